//! The error table itself: three lists of rows, the errno numbers, and the page made from them.
//!
//! Over 500 lines because it is a table: the rows must be read together, since one errno stands behind several
//! Windows codes and has to be given to exactly one of them.
//!
//! The ids (E-01 ... E-89) are those of the project's behaviour specification. Its numbers were read back from the
//! native calls (Wine 8, Wine's Windows-verified status table) and from Microsoft's "Windows Sockets Error Codes";
//! the names are those of `ntstatus.h`, `winerror.h` and `winsock2.h`. The errno column is our own mapping.
//!
//! Where the specification names one errno in several rows, exactly one row has it in `errnos` (for each class),
//! and the others say in `linux` which row won. Those others still matter: a native Windows port reports them.

use std::fmt::Write as _;
use std::io::ErrorKind;

use self::Class::{Any, Datagram, File, Pipe};
use self::errno::*;

/// What kind of object an operation worked on, as far as it decides the meaning of an errno.
///
/// Linux has one ECONNREFUSED and one EPIPE where Windows has two codes each; the class tells them apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// A connected or listening stream socket: accept, disconnect, receive, send.
    Stream,
    /// A connection being made.
    Connect,
    /// A datagram socket.
    Datagram,
    /// A regular file or a block device.
    File,
    /// A pipe, a FIFO, or a Unix socket that stands for a named pipe.
    Pipe,
    /// Everything else (timers, signals, posted packets), or not known. In the table: the row that is taken when
    /// none has the exact class.
    Any,
}

/// One way a completed operation can end.
pub(super) struct Row {
    /// The row of the specification. Two rows share an id where the specification names two statuses.
    pub id: &'static str,
    /// What an OVERLAPPED's `Internal` holds.
    pub nt_status: u32,
    pub nt_name: &'static str,
    /// What GetLastError says after GetQueuedCompletionStatus or GetOverlappedResult.
    pub win32: u32,
    pub win32_name: &'static str,
    /// What WSAGetLastError says after WSAGetOverlappedResult; `None` where a socket cannot end like this.
    pub winsock: Option<u32>,
    pub winsock_name: &'static str,
    /// The Linux numbers that become this row.
    pub errnos: &'static [(i32, Class)],
    /// What std makes of the first errno of the row (`Other` where std has no stable kind).
    pub kind: ErrorKind,
    pub when: &'static str,
    /// What else stands behind the row on Linux, or why its errno is given to another row.
    pub linux: &'static str,
}

/// One code of a port call (E-50...) or of a Winsock call that fails at once (E-60...).
pub(super) struct CodeRow {
    pub id: &'static str,
    pub code: u32,
    pub name: &'static str,
    pub when: &'static str,
    pub errnos: &'static [i32],
    pub linux: &'static str,
}

/// The row of everything that has none.
pub(super) const FALLBACK: &Row = &TABLE[TABLE.len() - 1];

/// Codes of completed operations.
#[rustfmt::skip] // One field a line would turn a table of five-line rows into six hundred lines nobody can compare.
pub(super) const TABLE: &[Row] = &[
    Row { id: "E-01", nt_status: 0, nt_name: "STATUS_SUCCESS",
          win32: 0, win32_name: "ERROR_SUCCESS", winsock: Some(0), winsock_name: "NO_ERROR",
          errnos: &[], kind: ErrorKind::Other,
          when: "success", linux: "result >= 0" },
    Row { id: "E-02", nt_status: 0x0000_0103, nt_name: "STATUS_PENDING",
          win32: 997, win32_name: "ERROR_IO_PENDING", winsock: Some(997), winsock_name: "WSA_IO_PENDING",
          errnos: &[], kind: ErrorKind::WouldBlock,
          when: "accepted, not finished (asking for the result meanwhile gives 996, E-55)",
          linux: "no result yet. EINPROGRESS and EAGAIN mean \"wait for readiness and try again\"; they never end an operation as pending, because that would pass for success" },
    Row { id: "E-03", nt_status: 0x8000_0005, nt_name: "STATUS_BUFFER_OVERFLOW",
          win32: 234, win32_name: "ERROR_MORE_DATA", winsock: Some(10040), winsock_name: "WSAEMSGSIZE",
          errnos: &[], kind: ErrorKind::Other,
          when: "datagram or message longer than the buffer", linux: "result >= 0 with MSG_TRUNC in msg_flags" },
    // An io_uring worker has all signals blocked (create_io_thread, kernel/fork.c): EINTR from a file or a pipe there
    // is a cancel that came after the call had begun. A system call made on a thread of our own has to repeat EINTR
    // before it asks this table.
    Row { id: "E-04", nt_status: 0xC000_0120, nt_name: "STATUS_CANCELLED",
          win32: 995, win32_name: "ERROR_OPERATION_ABORTED", winsock: Some(995), winsock_name: "WSA_OPERATION_ABORTED",
          errnos: &[(ECANCELED, Any), (EINTR, File), (EINTR, Pipe)], kind: ErrorKind::Other,
          when: "cancelled; handle closed; thread exit", linux: "EINTR: the cancel reached a worker in the middle of the call" },
    Row { id: "E-05", nt_status: 0xC000_0011, nt_name: "STATUS_END_OF_FILE",
          win32: 38, win32_name: "ERROR_HANDLE_EOF", winsock: Some(10022), winsock_name: "WSAEINVAL",
          errnos: &[], kind: ErrorKind::UnexpectedEof,
          when: "file read at or past the end", linux: "read result 0 with length > 0" },
    // A socket gets its reset once, then receives give 0 and sends EPIPE (L-33): both are the peer's reset.
    Row { id: "E-06", nt_status: 0xC000_020D, nt_name: "STATUS_CONNECTION_RESET",
          win32: 64, win32_name: "ERROR_NETNAME_DELETED", winsock: Some(10054), winsock_name: "WSAECONNRESET",
          errnos: &[(ECONNRESET, Any), (EPIPE, Any)], kind: ErrorKind::ConnectionReset,
          when: "peer reset", linux: "EPIPE on send. Linux also gives EPIPE after the program's own shutdown and before any connect: the socket's state decides (L-40; E-36, E-15)" },
    Row { id: "E-07", nt_status: 0xC000_020C, nt_name: "STATUS_CONNECTION_DISCONNECTED",
          win32: 64, win32_name: "ERROR_NETNAME_DELETED", winsock: Some(10054), winsock_name: "WSAECONNRESET",
          errnos: &[], kind: ErrorKind::ConnectionReset,
          when: "connection gone", linux: "ECONNRESET, EPIPE: see E-06" },
    Row { id: "E-08", nt_status: 0xC000_013B, nt_name: "STATUS_LOCAL_DISCONNECT",
          win32: 64, win32_name: "ERROR_NETNAME_DELETED", winsock: Some(10053), winsock_name: "WSAECONNABORTED",
          errnos: &[], kind: ErrorKind::ConnectionAborted,
          when: "ended by the local side", linux: "ECONNABORTED: see E-10" },
    Row { id: "E-09", nt_status: 0xC000_013C, nt_name: "STATUS_REMOTE_DISCONNECT",
          win32: 64, win32_name: "ERROR_NETNAME_DELETED", winsock: Some(10054), winsock_name: "WSAECONNRESET",
          errnos: &[], kind: ErrorKind::ConnectionReset,
          when: "ended by the remote side", linux: "ECONNRESET: see E-06" },
    // Of the three rows with ECONNABORTED (E-08, E-10, E-16) the one whose Win32 name says what errno says.
    Row { id: "E-10", nt_status: 0xC000_0241, nt_name: "STATUS_CONNECTION_ABORTED",
          win32: 1236, win32_name: "ERROR_CONNECTION_ABORTED", winsock: Some(10053), winsock_name: "WSAECONNABORTED",
          errnos: &[(ECONNABORTED, Any)], kind: ErrorKind::ConnectionAborted,
          when: "aborted locally (Windows also gives it for a receive ended by closesocket; this library gives E-04)", linux: "" },
    Row { id: "E-11", nt_status: 0xC000_0236, nt_name: "STATUS_CONNECTION_REFUSED",
          win32: 1225, win32_name: "ERROR_CONNECTION_REFUSED", winsock: Some(10061), winsock_name: "WSAECONNREFUSED",
          errnos: &[(ECONNREFUSED, Any)], kind: ErrorKind::ConnectionRefused,
          when: "ConnectEx refused", linux: "on a stream" },
    Row { id: "E-12", nt_status: 0xC000_023F, nt_name: "STATUS_PORT_UNREACHABLE",
          win32: 1234, win32_name: "ERROR_PORT_UNREACHABLE", winsock: Some(10054), winsock_name: "WSAECONNRESET",
          errnos: &[(ECONNREFUSED, Datagram)], kind: ErrorKind::ConnectionRefused,
          when: "ICMP port unreachable on UDP", linux: "on an unconnected socket only with IP_RECVERR" },
    Row { id: "E-13", nt_status: 0xC000_00B5, nt_name: "STATUS_IO_TIMEOUT",
          win32: 121, win32_name: "ERROR_SEM_TIMEOUT", winsock: Some(10060), winsock_name: "WSAETIMEDOUT",
          errnos: &[(ETIMEDOUT, Any)], kind: ErrorKind::TimedOut,
          when: "connect or transport time-out", linux: "" },
    Row { id: "E-14", nt_status: 0xC000_013F, nt_name: "STATUS_LINK_TIMEOUT",
          win32: 59, win32_name: "ERROR_UNEXP_NET_ERR", winsock: Some(10060), winsock_name: "WSAETIMEDOUT",
          errnos: &[], kind: ErrorKind::TimedOut,
          when: "link time-out", linux: "ETIMEDOUT: see E-13" },
    Row { id: "E-15", nt_status: 0xC000_0140, nt_name: "STATUS_INVALID_CONNECTION",
          win32: 59, win32_name: "ERROR_UNEXP_NET_ERR", winsock: Some(10057), winsock_name: "WSAENOTCONN",
          errnos: &[(ENOTCONN, Any)], kind: ErrorKind::NotConnected,
          when: "no valid connection", linux: "" },
    Row { id: "E-16", nt_status: 0xC000_020F, nt_name: "STATUS_TRANSACTION_ABORTED",
          win32: 59, win32_name: "ERROR_UNEXP_NET_ERR", winsock: Some(10053), winsock_name: "WSAECONNABORTED",
          errnos: &[], kind: ErrorKind::ConnectionAborted,
          when: "transport transaction aborted", linux: "ECONNABORTED: see E-10" },
    Row { id: "E-17", nt_status: 0xC000_023C, nt_name: "STATUS_NETWORK_UNREACHABLE",
          win32: 1231, win32_name: "ERROR_NETWORK_UNREACHABLE", winsock: Some(10051), winsock_name: "WSAENETUNREACH",
          errnos: &[(ENETUNREACH, Any)], kind: ErrorKind::NetworkUnreachable,
          when: "no route", linux: "" },
    Row { id: "E-18", nt_status: 0xC000_023D, nt_name: "STATUS_HOST_UNREACHABLE",
          win32: 1232, win32_name: "ERROR_HOST_UNREACHABLE", winsock: Some(10065), winsock_name: "WSAEHOSTUNREACH",
          errnos: &[(EHOSTUNREACH, Any)], kind: ErrorKind::HostUnreachable,
          when: "host unreachable", linux: "" },
    Row { id: "E-19", nt_status: 0xC000_023E, nt_name: "STATUS_PROTOCOL_UNREACHABLE",
          win32: 1233, win32_name: "ERROR_PROTOCOL_UNREACHABLE", winsock: Some(10051), winsock_name: "WSAENETUNREACH",
          errnos: &[(ENOPROTOOPT, Any), (EPROTO, Any)], kind: ErrorKind::Other,
          when: "ICMP protocol unreachable", linux: "" },
    Row { id: "E-20", nt_status: 0xC000_023B, nt_name: "STATUS_CONNECTION_ACTIVE",
          win32: 1230, win32_name: "ERROR_CONNECTION_ACTIVE", winsock: Some(10056), winsock_name: "WSAEISCONN",
          errnos: &[(EISCONN, Any)], kind: ErrorKind::Other,
          when: "connect on a connected socket", linux: "" },
    Row { id: "E-21", nt_status: 0xC000_0237, nt_name: "STATUS_GRACEFUL_DISCONNECT",
          win32: 1226, win32_name: "ERROR_GRACEFUL_DISCONNECT", winsock: Some(10101), winsock_name: "WSAEDISCON",
          errnos: &[], kind: ErrorKind::UnexpectedEof,
          when: "graceful disconnect reported as an error by message protocols", linux: "result 0" },
    Row { id: "E-22", nt_status: 0xC000_0240, nt_name: "STATUS_REQUEST_ABORTED",
          win32: 1235, win32_name: "ERROR_REQUEST_ABORTED", winsock: Some(10004), winsock_name: "WSAEINTR",
          errnos: &[(EINTR, Any)], kind: ErrorKind::Interrupted,
          when: "blocking call broken off", linux: "on files and pipes: see E-04" },
    Row { id: "E-23", nt_status: 0xC000_020A, nt_name: "STATUS_ADDRESS_ALREADY_EXISTS",
          win32: 52, win32_name: "ERROR_DUP_NAME", winsock: Some(10048), winsock_name: "WSAEADDRINUSE",
          errnos: &[(EADDRINUSE, Any)], kind: ErrorKind::AddrInUse,
          when: "address in use", linux: "" },
    Row { id: "E-24", nt_status: 0xC000_0141, nt_name: "STATUS_INVALID_ADDRESS",
          win32: 59, win32_name: "ERROR_UNEXP_NET_ERR", winsock: Some(10049), winsock_name: "WSAEADDRNOTAVAIL",
          errnos: &[(EADDRNOTAVAIL, Any)], kind: ErrorKind::AddrNotAvailable,
          when: "invalid address", linux: "" },
    Row { id: "E-24", nt_status: 0xC000_0207, nt_name: "STATUS_INVALID_ADDRESS_COMPONENT",
          win32: 1214, win32_name: "ERROR_INVALID_NETNAME", winsock: Some(10049), winsock_name: "WSAEADDRNOTAVAIL",
          errnos: &[], kind: ErrorKind::AddrNotAvailable,
          when: "invalid address", linux: "EADDRNOTAVAIL: the row above" },
    Row { id: "E-25", nt_status: 0xC000_0206, nt_name: "STATUS_INVALID_BUFFER_SIZE",
          win32: 1784, win32_name: "ERROR_INVALID_USER_BUFFER", winsock: Some(10040), winsock_name: "WSAEMSGSIZE",
          errnos: &[(EMSGSIZE, Any)], kind: ErrorKind::Other,
          when: "datagram too large to send", linux: "" },
    Row { id: "E-26", nt_status: 0xC000_009A, nt_name: "STATUS_INSUFFICIENT_RESOURCES",
          win32: 1450, win32_name: "ERROR_NO_SYSTEM_RESOURCES", winsock: Some(10055), winsock_name: "WSAENOBUFS",
          errnos: &[(ENOBUFS, Any)], kind: ErrorKind::Other,
          when: "out of buffers", linux: "ENOMEM: see E-27" },
    Row { id: "E-27", nt_status: 0xC000_0017, nt_name: "STATUS_NO_MEMORY",
          win32: 8, win32_name: "ERROR_NOT_ENOUGH_MEMORY", winsock: Some(10055), winsock_name: "WSAENOBUFS",
          errnos: &[(ENOMEM, Any)], kind: ErrorKind::OutOfMemory,
          when: "out of memory", linux: "" },
    Row { id: "E-28", nt_status: 0xC000_0005, nt_name: "STATUS_ACCESS_VIOLATION",
          win32: 998, win32_name: "ERROR_NOACCESS", winsock: Some(10014), winsock_name: "WSAEFAULT",
          errnos: &[(EFAULT, Any)], kind: ErrorKind::Other,
          when: "bad buffer address", linux: "" },
    Row { id: "E-29", nt_status: 0xC000_000D, nt_name: "STATUS_INVALID_PARAMETER",
          win32: 87, win32_name: "ERROR_INVALID_PARAMETER", winsock: Some(10022), winsock_name: "WSAEINVAL",
          errnos: &[(EINVAL, Any)], kind: ErrorKind::InvalidInput,
          when: "bad argument", linux: "" },
    Row { id: "E-30", nt_status: 0xC000_0008, nt_name: "STATUS_INVALID_HANDLE",
          win32: 6, win32_name: "ERROR_INVALID_HANDLE", winsock: Some(10038), winsock_name: "WSAENOTSOCK",
          errnos: &[(EBADF, Any)], kind: ErrorKind::Other,
          when: "bad or closed handle", linux: "a file opened in the wrong mode gives EBADF too: E-31 if the caller knows the mode" },
    Row { id: "E-30", nt_status: 0xC000_0024, nt_name: "STATUS_OBJECT_TYPE_MISMATCH",
          win32: 6, win32_name: "ERROR_INVALID_HANDLE", winsock: Some(10038), winsock_name: "WSAENOTSOCK",
          errnos: &[(ENOTSOCK, Any)], kind: ErrorKind::Other,
          when: "handle of the wrong kind", linux: "" },
    Row { id: "E-31", nt_status: 0xC000_0022, nt_name: "STATUS_ACCESS_DENIED",
          win32: 5, win32_name: "ERROR_ACCESS_DENIED", winsock: Some(10013), winsock_name: "WSAEACCES",
          errnos: &[(EACCES, Any), (EPERM, Any)], kind: ErrorKind::PermissionDenied,
          when: "not permitted", linux: "EBADF for the wrong open mode: see E-30" },
    Row { id: "E-32", nt_status: 0xC000_00BB, nt_name: "STATUS_NOT_SUPPORTED",
          win32: 50, win32_name: "ERROR_NOT_SUPPORTED", winsock: Some(10045), winsock_name: "WSAEOPNOTSUPP",
          errnos: &[(EOPNOTSUPP, Any)], kind: ErrorKind::Unsupported,
          when: "not supported", linux: "" },
    Row { id: "E-33", nt_status: 0xC000_0023, nt_name: "STATUS_BUFFER_TOO_SMALL",
          win32: 122, win32_name: "ERROR_INSUFFICIENT_BUFFER", winsock: Some(10014), winsock_name: "WSAEFAULT",
          errnos: &[], kind: ErrorKind::InvalidInput,
          when: "buffer too small (the address area of an AcceptEx)", linux: "own check; no errno" },
    Row { id: "E-34", nt_status: 0xC000_014B, nt_name: "STATUS_PIPE_BROKEN",
          win32: 109, win32_name: "ERROR_BROKEN_PIPE", winsock: None, winsock_name: "",
          errnos: &[], kind: ErrorKind::BrokenPipe,
          when: "other pipe end closed, read", linux: "read result 0 on a pipe" },
    // Files too: a FIFO may well have been opened by name as a file.
    Row { id: "E-35", nt_status: 0xC000_00B1, nt_name: "STATUS_PIPE_CLOSING",
          win32: 232, win32_name: "ERROR_NO_DATA", winsock: None, winsock_name: "",
          errnos: &[(EPIPE, Pipe), (EPIPE, File)], kind: ErrorKind::BrokenPipe,
          when: "pipe closing, write", linux: "" },
    // ESHUTDOWN is ours: the kernel answers EPIPE, which cannot be told from a reset, and this is the errno by which
    // code that knows the socket's state asks for 10058 (L-40).
    Row { id: "E-36", nt_status: 0xC000_00B0, nt_name: "STATUS_PIPE_DISCONNECTED",
          win32: 233, win32_name: "ERROR_PIPE_NOT_CONNECTED", winsock: Some(10058), winsock_name: "WSAESHUTDOWN",
          errnos: &[(ENOTCONN, Pipe), (ESHUTDOWN, Any)], kind: ErrorKind::NotConnected,
          when: "pipe disconnected; socket shut down", linux: "EPIPE on a socket shut down by the program itself: its state decides (L-40)" },
    Row { id: "E-37", nt_status: 0xC000_00B2, nt_name: "STATUS_PIPE_CONNECTED",
          win32: 535, win32_name: "ERROR_PIPE_CONNECTED", winsock: None, winsock_name: "",
          errnos: &[], kind: ErrorKind::Other,
          when: "ConnectNamedPipe with a client there (immediate)", linux: "accept has a result at once" },
    Row { id: "E-38", nt_status: 0xC000_00B3, nt_name: "STATUS_PIPE_LISTENING",
          win32: 536, win32_name: "ERROR_PIPE_LISTENING", winsock: None, winsock_name: "",
          errnos: &[(EAGAIN, Pipe)], kind: ErrorKind::WouldBlock,
          when: "pipe waits for a client", linux: "" },
    Row { id: "E-39", nt_status: 0xC000_007F, nt_name: "STATUS_DISK_FULL",
          win32: 112, win32_name: "ERROR_DISK_FULL", winsock: None, winsock_name: "",
          errnos: &[(ENOSPC, Any), (EDQUOT, Any)], kind: ErrorKind::StorageFull,
          when: "write, disk full", linux: "" },
    // fcntl(2) allows EACCES as well for a locked range; Linux gives EAGAIN, and EACCES on a file is a permission.
    Row { id: "E-40", nt_status: 0xC000_0054, nt_name: "STATUS_FILE_LOCK_CONFLICT",
          win32: 33, win32_name: "ERROR_LOCK_VIOLATION", winsock: None, winsock_name: "",
          errnos: &[(EAGAIN, File)], kind: ErrorKind::WouldBlock,
          when: "locked range", linux: "EACCES: see E-31" },
    Row { id: "E-41", nt_status: 0xC000_0225, nt_name: "STATUS_NOT_FOUND",
          win32: 1168, win32_name: "ERROR_NOT_FOUND", winsock: None, winsock_name: "",
          errnos: &[(ENOENT, Any)], kind: ErrorKind::NotFound,
          when: "CancelIoEx found nothing", linux: "ENOENT from the cancel request, or 0 matches" },
    // Must stay last, see FALLBACK. 317 and 10022 stand for a status without a name of its own. The status is none of
    // Microsoft's: bit 29 marks codes that an application may define ([MS-ERREF] 2.3), so there is room for the errno
    // in it and no reader can take it for something it is not.
    Row { id: "E-42", nt_status: 0xE000_0000, nt_name: "(own: 0xE0000000 + errno)",
          win32: 317, win32_name: "ERROR_MR_MID_NOT_FOUND", winsock: Some(10022), winsock_name: "WSAEINVAL",
          errnos: &[], kind: ErrorKind::Other,
          when: "unmapped", linux: "any other errno; the number is kept in the status and in the io::Error" },
];

/// Codes of the port calls themselves. No lookup leads here: each call knows which of them it means.
#[rustfmt::skip] // A table, as above.
pub(super) const PORT_CALLS: &[CodeRow] = &[
    CodeRow { id: "E-50", code: 258, name: "WAIT_TIMEOUT", errnos: &[ETIME, ETIMEDOUT],
              when: "dequeue timed out, no packet", linux: "ETIME of a timed ring wait, ETIMEDOUT of a futex" },
    CodeRow { id: "E-51", code: 735, name: "ERROR_ABANDONED_WAIT_0", errnos: &[],
              when: "port closed during the wait", linux: "own flag; no counterpart" },
    CodeRow { id: "E-52", code: 192, name: "WAIT_IO_COMPLETION", errnos: &[],
              when: "alertable wait ended by an APC", linux: "own queue of calls; EINTR is the nearest" },
    CodeRow { id: "E-53", code: 6, name: "ERROR_INVALID_HANDLE", errnos: &[EBADF],
              when: "bad port or file handle", linux: "" },
    CodeRow { id: "E-54", code: 87, name: "ERROR_INVALID_PARAMETER", errnos: &[EINVAL, EBUSY, EEXIST],
              when: "associated again, non-overlapped file, count 0, flags", linux: "" },
    CodeRow { id: "E-55", code: 996, name: "ERROR_IO_INCOMPLETE", errnos: &[EINPROGRESS],
              when: "GetOverlappedResult without waiting, still pending", linux: "" },
    CodeRow { id: "E-56", code: 997, name: "ERROR_IO_PENDING", errnos: &[EINPROGRESS],
              when: "the call was accepted", linux: "" },
    CodeRow { id: "E-57", code: 1168, name: "ERROR_NOT_FOUND", errnos: &[ENOENT],
              when: "nothing to cancel", linux: "" },
    CodeRow { id: "E-58", code: 1784, name: "ERROR_INVALID_USER_BUFFER", errnos: &[EAGAIN],
              when: "too many outstanding file operations", linux: "" },
    CodeRow { id: "E-58", code: 8, name: "ERROR_NOT_ENOUGH_MEMORY", errnos: &[ENOMEM],
              when: "too many outstanding file operations", linux: "" },
    CodeRow { id: "E-58", code: 1816, name: "ERROR_NOT_ENOUGH_QUOTA", errnos: &[EMFILE],
              when: "too many outstanding file operations", linux: "" },
];

/// Winsock codes of calls that fail at once and queue no packet. Each errno stands here at most once.
#[rustfmt::skip] // A table, as above.
pub(super) const IMMEDIATE: &[CodeRow] = &[
    CodeRow { id: "E-60", code: 10004, name: "WSAEINTR", errnos: &[EINTR],
              when: "blocking call cancelled", linux: "" },
    CodeRow { id: "E-61", code: 10009, name: "WSAEBADF", errnos: &[],
              when: "file handle not valid", linux: "EBADF of the file (not the socket) given to TransmitFile; otherwise E-69" },
    CodeRow { id: "E-62", code: 10013, name: "WSAEACCES", errnos: &[EACCES],
              when: "broadcast without SO_BROADCAST, forbidden address", linux: "" },
    CodeRow { id: "E-63", code: 10014, name: "WSAEFAULT", errnos: &[EFAULT],
              when: "bad pointer, too small address length", linux: "" },
    CodeRow { id: "E-64", code: 10022, name: "WSAEINVAL", errnos: &[EINVAL],
              when: "not bound, wrong state, bad flag, routine on an associated socket", linux: "" },
    CodeRow { id: "E-65", code: 10024, name: "WSAEMFILE", errnos: &[EMFILE, ENFILE],
              when: "no more handles", linux: "" },
    CodeRow { id: "E-66", code: 10035, name: "WSAEWOULDBLOCK", errnos: &[EAGAIN],
              when: "non-overlapped call on a non-blocking socket; too many outstanding overlapped requests", linux: "" },
    CodeRow { id: "E-67", code: 10036, name: "WSAEINPROGRESS", errnos: &[EINPROGRESS],
              when: "blocking 1.1 call in progress, callback running", linux: "" },
    CodeRow { id: "E-68", code: 10037, name: "WSAEALREADY", errnos: &[EALREADY],
              when: "connect in progress; RIONotify armed", linux: "" },
    // EBADF: the handle of a Winsock call is a socket, and Windows answers a dead one with "not a socket".
    CodeRow { id: "E-69", code: 10038, name: "WSAENOTSOCK", errnos: &[ENOTSOCK, EBADF],
              when: "not a socket", linux: "" },
    CodeRow { id: "E-70", code: 10039, name: "WSAEDESTADDRREQ", errnos: &[EDESTADDRREQ],
              when: "datagram without destination", linux: "" },
    CodeRow { id: "E-71", code: 10040, name: "WSAEMSGSIZE", errnos: &[EMSGSIZE],
              when: "datagram longer than the buffer or than the protocol's maximum", linux: "MSG_TRUNC: see E-03" },
    CodeRow { id: "E-72", code: 10045, name: "WSAEOPNOTSUPP", errnos: &[EOPNOTSUPP],
              when: "MSG_OOB on a datagram socket, wrong kind of socket", linux: "" },
    CodeRow { id: "E-73", code: 10047, name: "WSAEAFNOSUPPORT", errnos: &[EAFNOSUPPORT],
              when: "address of another family", linux: "" },
    CodeRow { id: "E-74", code: 10048, name: "WSAEADDRINUSE", errnos: &[EADDRINUSE],
              when: "bind or ConnectEx: address pair in use", linux: "" },
    CodeRow { id: "E-75", code: 10049, name: "WSAEADDRNOTAVAIL", errnos: &[EADDRNOTAVAIL],
              when: "address not of this machine, all-zero remote", linux: "" },
    CodeRow { id: "E-76", code: 10050, name: "WSAENETDOWN", errnos: &[ENETDOWN],
              when: "network subsystem failed", linux: "" },
    CodeRow { id: "E-77", code: 10051, name: "WSAENETUNREACH", errnos: &[ENETUNREACH],
              when: "no route", linux: "" },
    CodeRow { id: "E-78", code: 10052, name: "WSAENETRESET", errnos: &[ENETRESET],
              when: "keep-alive failure; TTL expired (datagram)", linux: "Linux gives ETIMEDOUT (E-85) and EHOSTUNREACH (E-87) instead; only the ICMP type in the error queue tells them apart" },
    CodeRow { id: "E-79", code: 10053, name: "WSAECONNABORTED", errnos: &[ECONNABORTED],
              when: "connection ended locally or by time-out", linux: "" },
    CodeRow { id: "E-80", code: 10054, name: "WSAECONNRESET", errnos: &[ECONNRESET, EPIPE],
              when: "reset by the peer; ICMP on UDP", linux: "ECONNREFUSED on UDP: see E-12" },
    CodeRow { id: "E-81", code: 10055, name: "WSAENOBUFS", errnos: &[ENOBUFS, ENOMEM],
              when: "no buffer space; RIO queue full", linux: "" },
    CodeRow { id: "E-82", code: 10056, name: "WSAEISCONN", errnos: &[EISCONN],
              when: "already connected", linux: "" },
    CodeRow { id: "E-83", code: 10057, name: "WSAENOTCONN", errnos: &[ENOTCONN],
              when: "not connected", linux: "" },
    CodeRow { id: "E-84", code: 10058, name: "WSAESHUTDOWN", errnos: &[ESHUTDOWN],
              when: "that direction was shut down locally", linux: "Linux gives EPIPE (send) or result 0 (receive); the socket's state decides (L-40)" },
    CodeRow { id: "E-85", code: 10060, name: "WSAETIMEDOUT", errnos: &[ETIMEDOUT],
              when: "connect or retransmission time-out", linux: "" },
    CodeRow { id: "E-86", code: 10061, name: "WSAECONNREFUSED", errnos: &[ECONNREFUSED],
              when: "refused", linux: "" },
    CodeRow { id: "E-87", code: 10064, name: "WSAEHOSTDOWN", errnos: &[EHOSTDOWN],
              when: "host down", linux: "" },
    CodeRow { id: "E-87", code: 10065, name: "WSAEHOSTUNREACH", errnos: &[EHOSTUNREACH],
              when: "host unreachable", linux: "" },
    CodeRow { id: "E-88", code: 10091, name: "WSASYSNOTREADY", errnos: &[],
              when: "start-up problems", linux: "cannot happen" },
    CodeRow { id: "E-88", code: 10092, name: "WSAVERNOTSUPPORTED", errnos: &[],
              when: "start-up problems", linux: "cannot happen" },
    CodeRow { id: "E-88", code: 10093, name: "WSANOTINITIALISED", errnos: &[],
              when: "start-up problems", linux: "cannot happen" },
    CodeRow { id: "E-89", code: 10101, name: "WSAEDISCON", errnos: &[],
              when: "graceful close on message-oriented sockets", linux: "result 0" },
];

/// The Linux errno numbers that the tables use (asm-generic, so x86-64, arm, arm64 and riscv; alpha, mips, parisc and
/// sparc number the upper ones differently).
///
/// Plain numbers instead of the system's own constants, because the tables also have to compile, and the page also has
/// to come out the same, on Windows. There no io::Error carries these numbers: its raw code is already a Win32 or
/// Winsock code, so the lookups by errno are for the Linux engines only.
pub(super) mod errno {
    /// Linux's numbers, which Windows has none of; elsewhere the system's own.
    macro_rules! errnos {
        ($($name:ident = $number:literal,)*) => {
            #[cfg(any(target_os = "linux", target_os = "android", windows))]
            mod numbers {
                $(pub const $name: i32 = $number;)*
            }
            #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
            mod numbers {
                pub use super::of_system::{$($name),*};
            }
            pub use numbers::*;

            /// Every errno of the tables with its name.
            pub const ALL: &[(i32, &str)] = &[$(($name, stringify!($name))),*];
        };
    }

    #[cfg(not(any(target_os = "linux", target_os = "android", windows)))]
    mod of_system {
        pub use libc::*;
        /// It has none, and no error is this.
        #[cfg(target_os = "freebsd")]
        pub const ETIME: i32 = i32::MIN;
    }

    errnos! {
        EPERM = 1,
        ENOENT = 2,
        EINTR = 4,
        EBADF = 9,
        EAGAIN = 11,
        ENOMEM = 12,
        EACCES = 13,
        EFAULT = 14,
        EBUSY = 16,
        EEXIST = 17,
        EINVAL = 22,
        ENFILE = 23,
        EMFILE = 24,
        ENOSPC = 28,
        EPIPE = 32,
        ETIME = 62,
        EPROTO = 71,
        ENOTSOCK = 88,
        EDESTADDRREQ = 89,
        EMSGSIZE = 90,
        ENOPROTOOPT = 92,
        EOPNOTSUPP = 95,
        EAFNOSUPPORT = 97,
        EADDRINUSE = 98,
        EADDRNOTAVAIL = 99,
        ENETDOWN = 100,
        ENETUNREACH = 101,
        ENETRESET = 102,
        ECONNABORTED = 103,
        ECONNRESET = 104,
        ENOBUFS = 105,
        EISCONN = 106,
        ENOTCONN = 107,
        ESHUTDOWN = 108,
        ETIMEDOUT = 110,
        ECONNREFUSED = 111,
        EHOSTDOWN = 112,
        EHOSTUNREACH = 113,
        EALREADY = 114,
        EINPROGRESS = 115,
        EDQUOT = 122,
        ECANCELED = 125,
    }
}

/// The whole table as the page `docs/errors.md`, in Markdown.
///
/// The page in the repository is compared with this text by a test;
/// `WHARF_BLESS=1 cargo test -p wharf the_page_in_docs` rewrites it after a change of the table.
pub fn markdown() -> String {
    let mut page = String::from(PAGE_HEAD);
    page.push_str(
        "\n## Completed operations\n\n\
         | Id | NTSTATUS | Name | Win32 | Name | Winsock | Name | errno | io::ErrorKind | When | On Linux |\n\
         |---|---|---|---|---|---|---|---|---|---|---|\n",
    );
    for row in TABLE {
        let errnos: Vec<String> = row
            .errnos
            .iter()
            .map(|&(errno, class)| match class {
                Any => named(errno),
                _ => format!("{} ({class:?})", named(errno)),
            })
            .collect();
        line(
            &mut page,
            &[
                row.id,
                &format!("0x{:08X}", row.nt_status),
                row.nt_name,
                &row.win32.to_string(),
                row.win32_name,
                &row.winsock.map(|code| code.to_string()).unwrap_or_default(),
                row.winsock_name,
                &errnos.join(", "),
                &if row.nt_status >> 30 == 0 { String::new() } else { format!("{:?}", row.kind) },
                row.when,
                row.linux,
            ],
        );
    }
    for (title, rows) in [("Port calls", PORT_CALLS), ("Winsock calls that fail at once", IMMEDIATE)] {
        let _ =
            write!(page, "\n## {title}\n\n| Id | Code | Name | When | errno | On Linux |\n|---|---|---|---|---|---|\n");
        for row in rows {
            let errnos: Vec<String> = row.errnos.iter().map(|&errno| named(errno)).collect();
            line(&mut page, &[row.id, &row.code.to_string(), row.name, row.when, &errnos.join(", "), row.linux]);
        }
    }
    page
}

const PAGE_HEAD: &str = "\
# Errors

<!-- Generated from the table in crates/wharf/src/error; after a change: WHARF_BLESS=1 cargo test -p wharf the_page_in_docs -->

An operation that fails keeps the system's own number: the `io::Error` has the errno on Linux and the Win32 or Winsock
code on Windows. This page says which Windows codes belong to an errno. The first table is read from right to left:
find the errno (a class in brackets means: only for operations of that class, which then go before the rows without
one), and the row gives the NTSTATUS that an OVERLAPPED would hold in `Internal`, the Win32 code that
GetQueuedCompletionStatus and GetOverlappedResult would report for it, and the Winsock code that
WSAGetOverlappedResult would report; one status has two names. An errno that stands in no row ends in E-42, whose
status still has the number in its low 16 bits. Rows without an errno come from something else than an errno (last
column) or only from Windows. The second table has the codes of the port calls themselves, the third those of Winsock
calls that fail at once and queue no packet. A cell with \u{2013} has nothing to say. The ids are those of the
behaviour specification (E) and of its list of differences between the systems (L).
";

/// One line of a Markdown table; an empty cell becomes a dash, so that it does not look forgotten.
fn line(page: &mut String, cells: &[&str]) {
    for cell in cells {
        let _ = write!(page, "| {} ", if cell.is_empty() { "\u{2013}" } else { cell });
    }
    page.push_str("|\n");
}

fn named(errno: i32) -> String {
    let known = ALL.iter().find(|&&(number, _)| number == errno);
    known.map_or_else(|| errno.to_string(), |(number, name)| format!("{name} {number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors.md");
        let table = markdown();
        if std::env::var_os("WHARF_BLESS").is_some_and(|value| value == "1") {
            std::fs::write(path, &table).unwrap_or_else(|error| panic!("cannot write {path}: {error}"));
        }
        let page = std::fs::read_to_string(path)
            .unwrap_or_else(|error| panic!("cannot read {path}: {error}; WHARF_BLESS=1 writes it"));
        // A checkout on Windows may have turned the line ends.
        let page = page.replace("\r\n", "\n");
        for (number, (page, table)) in page.lines().zip(table.lines()).enumerate() {
            assert_eq!(page, table, "line {} of {path}; WHARF_BLESS=1 rewrites it", number + 1);
        }
        assert_eq!(page, table, "{path}; WHARF_BLESS=1 rewrites it");
    }

    #[test]
    fn every_cell_of_the_page_stands_in_its_own_column() {
        // A "|" inside a text would shift the rest of its line.
        let mut columns = 0;
        for line in markdown().lines().filter(|line| line.starts_with('|')) {
            let bars = line.matches('|').count();
            if line.starts_with("| Id") {
                columns = bars;
            }
            assert_eq!(bars, columns, "{line}");
        }
        assert_ne!(columns, 0);
    }

    #[test]
    fn no_errno_stands_twice_with_the_same_class() {
        let all: Vec<_> = TABLE.iter().flat_map(|row| row.errnos).collect();
        for (at, pair) in all.iter().enumerate() {
            assert!(!all[..at].contains(pair), "{} {:?}", named(pair.0), pair.1);
        }
        let all: Vec<_> = IMMEDIATE.iter().flat_map(|row| row.errnos).collect();
        for (at, errno) in all.iter().enumerate() {
            assert!(!all[..at].contains(errno), "{}", named(**errno));
        }
    }

    #[test]
    fn no_status_stands_twice() {
        for (at, row) in TABLE.iter().enumerate() {
            let twin = TABLE[..at].iter().find(|other| other.nt_status == row.nt_status);
            assert!(twin.is_none(), "{:#010X}", row.nt_status);
        }
    }

    #[test]
    fn a_code_has_the_same_name_wherever_it_stands() {
        let completed = TABLE
            .iter()
            .flat_map(|row| [Some((row.win32, row.win32_name)), row.winsock.map(|code| (code, row.winsock_name))]);
        let calls = PORT_CALLS.iter().chain(IMMEDIATE).map(|row| Some((row.code, row.name)));
        let all: Vec<_> = completed.chain(calls).flatten().collect();
        for &(code, name) in &all {
            for &(other, other_name) in &all {
                // 0, 995 and 997 are the numbers that Win32 and Winsock share under two names.
                let same = name == other_name || [0, 995, 997].contains(&code);
                assert!(code != other || same, "{code}: {name}, {other_name}");
                assert!(name != other_name || code == other, "{name}: {code}, {other}");
            }
        }
    }

    #[test]
    fn only_an_operation_that_succeeded_or_waits_has_a_status_that_is_no_failure() {
        for row in TABLE {
            let success = row.nt_status >> 30 == 0;
            assert_eq!(success, ["E-01", "E-02"].contains(&row.id), "{}", row.id);
            assert!(!success || row.errnos.is_empty(), "{} turns an errno into success", row.id);
        }
    }

    #[test]
    fn every_id_of_the_three_lists_is_there_in_order() {
        let ids = |rows: &mut dyn Iterator<Item = &'static str>| {
            let mut ids: Vec<_> = rows.collect();
            ids.dedup();
            ids
        };
        let expected =
            |range: std::ops::RangeInclusive<u32>| -> Vec<_> { range.map(|id| format!("E-{id:02}")).collect() };
        assert_eq!(ids(&mut TABLE.iter().map(|row| row.id)), expected(1..=42));
        assert_eq!(ids(&mut PORT_CALLS.iter().map(|row| row.id)), expected(50..=58));
        assert_eq!(ids(&mut IMMEDIATE.iter().map(|row| row.id)), expected(60..=89));
        assert_eq!(FALLBACK.id, "E-42");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_row_has_the_kind_that_std_gives_to_its_first_errno() {
        for row in TABLE {
            let Some(&(errno, _)) = row.errnos.first() else {
                continue;
            };
            // std keeps kinds of its own that cannot be named in a program; such an errno has Other in the table.
            let std = match std::io::Error::from_raw_os_error(errno).kind() {
                kind if format!("{kind:?}") == "Uncategorized" => ErrorKind::Other,
                kind => kind,
            };
            assert_eq!(row.kind, std, "{} {}", row.id, named(errno));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_numbers_are_those_of_the_system() {
        use rustix::io::Errno;
        let mut checked = 0;
        macro_rules! same {
            ($($ours:ident $system:ident,)*) => {$(
                assert_eq!($ours, Errno::$system.raw_os_error(), stringify!($ours));
                checked += 1;
            )*};
        }
        same! {
            EPERM PERM, ENOENT NOENT, EINTR INTR, EBADF BADF, EAGAIN AGAIN, ENOMEM NOMEM, EACCES ACCESS,
            EFAULT FAULT, EBUSY BUSY, EEXIST EXIST, EINVAL INVAL, ENFILE NFILE, EMFILE MFILE, ENOSPC NOSPC,
            EPIPE PIPE, ETIME TIME, EPROTO PROTO, ENOTSOCK NOTSOCK, EDESTADDRREQ DESTADDRREQ, EMSGSIZE MSGSIZE,
            ENOPROTOOPT NOPROTOOPT, EOPNOTSUPP OPNOTSUPP, EAFNOSUPPORT AFNOSUPPORT, EADDRINUSE ADDRINUSE,
            EADDRNOTAVAIL ADDRNOTAVAIL, ENETDOWN NETDOWN, ENETUNREACH NETUNREACH, ENETRESET NETRESET,
            ECONNABORTED CONNABORTED, ECONNRESET CONNRESET, ENOBUFS NOBUFS, EISCONN ISCONN, ENOTCONN NOTCONN,
            ESHUTDOWN SHUTDOWN, ETIMEDOUT TIMEDOUT, ECONNREFUSED CONNREFUSED, EHOSTDOWN HOSTDOWN,
            EHOSTUNREACH HOSTUNREACH, EALREADY ALREADY, EINPROGRESS INPROGRESS, EDQUOT DQUOT, ECANCELED CANCELED,
        }
        assert_eq!(checked, ALL.len(), "a number of the table that this test does not check");
    }
}
