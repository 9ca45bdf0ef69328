//! What an error number is called on the other system.
//!
//! Linux has one number for an error, Windows three: the NTSTATUS that a completed operation keeps, its Win32 name
//! and its Winsock name, which are two translations of the same status (a reset is 64 for
//! GetQueuedCompletionStatus and 10054 for WSAGetOverlappedResult, E-00). So a packet keeps the errno and the
//! [`NtStatus`] made from it and the kind of operation ([`Class`]), and only the edge translates further:
//!
//! ```text
//! errno + class --nt_status--> NTSTATUS --win32---> GetQueuedCompletionStatus, GetOverlappedResult
//!                                       --winsock-> WSAGetOverlappedResult
//! errno --------winsock_from_errno----------------> a Winsock call that fails at once
//! ```
//!
//! Every lookup has an answer for every number. A number that the table does not know becomes
//! [`NtStatus::UNMAPPED`] with the number inside, never success and never end of file; an [`io::Error`] has the
//! system's own number in any case. The lookups walk the table from its start: errors are rare and it is short.
//!
//! Not done here: what only the state of a socket tells. Linux answers EPIPE to a send after a reset, after the
//! program's own shutdown and before any connect (L-40), and gives a reset only once (L-33); the socket decides which
//! it was and may ask for ESHUTDOWN or ENOTCONN instead.

mod table;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

use std::fmt;
use std::io;

pub use table::{Class, markdown};

#[cfg(unix)]
use unix as system;
#[cfg(windows)]
use windows as system;
#[cfg(windows)]
pub(crate) use windows::of_status;

use table::{FALLBACK, IMMEDIATE, Row, TABLE};

/// An NTSTATUS: how an operation ended, in the code from which the Win32 and Winsock names are made.
///
/// An open set of numbers, because Windows drivers may return any; a status the table does not know is kept as it is.
#[doc(alias = "NTSTATUS")]
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct NtStatus(pub u32);

impl NtStatus {
    /// The operation succeeded (E-01).
    pub const SUCCESS: NtStatus = NtStatus(0);
    /// Accepted and not finished (E-02).
    pub const PENDING: NtStatus = NtStatus(0x0000_0103);
    /// The datagram or message was longer than the buffer, which is full (E-03). A warning.
    pub const BUFFER_OVERFLOW: NtStatus = NtStatus(0x8000_0005);
    /// Cancelled, or the handle was closed (E-04).
    pub const CANCELLED: NtStatus = NtStatus(0xC000_0120);
    /// A file read at or past the end (E-05).
    pub const END_OF_FILE: NtStatus = NtStatus(0xC000_0011);
    /// The peer reset the connection (E-06).
    pub const CONNECTION_RESET: NtStatus = NtStatus(0xC000_020D);
    /// The connection was aborted on this side (E-10).
    pub const CONNECTION_ABORTED: NtStatus = NtStatus(0xC000_0241);
    /// Nobody listens there (E-11).
    pub const CONNECTION_REFUSED: NtStatus = NtStatus(0xC000_0236);
    /// An earlier datagram found no receiver (E-12).
    pub const PORT_UNREACHABLE: NtStatus = NtStatus(0xC000_023F);
    /// A connect or the transport timed out (E-13).
    pub const IO_TIMEOUT: NtStatus = NtStatus(0xC000_00B5);
    /// The socket has no connection (E-15).
    pub const INVALID_CONNECTION: NtStatus = NtStatus(0xC000_0140);
    /// A bad argument (E-29).
    pub const INVALID_PARAMETER: NtStatus = NtStatus(0xC000_000D);
    /// A bad or closed handle (E-30).
    pub const INVALID_HANDLE: NtStatus = NtStatus(0xC000_0008);
    /// The system does not do this (E-32).
    pub const NOT_SUPPORTED: NtStatus = NtStatus(0xC000_00BB);
    /// A buffer is too small for what has to go in (E-33).
    pub const BUFFER_TOO_SMALL: NtStatus = NtStatus(0xC000_0023);
    /// A pipe's other end is closed; read (E-34).
    pub const PIPE_BROKEN: NtStatus = NtStatus(0xC000_014B);
    /// A pipe's other end is closed; write (E-35).
    pub const PIPE_CLOSING: NtStatus = NtStatus(0xC000_00B1);
    /// A pipe is disconnected, or the program itself shut the socket down in this direction (E-36).
    pub const PIPE_DISCONNECTED: NtStatus = NtStatus(0xC000_00B0);
    /// A cancel found nothing to cancel (E-41).
    pub const NOT_FOUND: NtStatus = NtStatus(0xC000_0225);
    /// An error without a status of its own (E-42). [`nt_status`] adds the errno, see
    /// [`unmapped_errno`](NtStatus::unmapped_errno).
    ///
    /// Not a status of Windows: bit 29 marks codes that an application defines for itself ([MS-ERREF] 2.3).
    pub const UNMAPPED: NtStatus = NtStatus(FALLBACK.nt_status);

    /// True for success and information codes, which includes [`PENDING`](NtStatus::PENDING).
    #[doc(alias = "NT_SUCCESS")]
    pub const fn is_success(self) -> bool {
        self.severity() <= 1
    }

    /// True for the codes of operations that did something, but not all: a truncated datagram.
    #[doc(alias = "NT_WARNING")]
    pub const fn is_warning(self) -> bool {
        self.severity() == 2
    }

    /// True for the codes of operations that failed.
    #[doc(alias = "NT_ERROR")]
    pub const fn is_error(self) -> bool {
        self.severity() == 3
    }

    /// Bits 31 and 30 ([MS-ERREF] 2.3): 0 success, 1 information, 2 warning, 3 error.
    const fn severity(self) -> u32 {
        self.0 >> 30
    }

    /// The name in `ntstatus.h`, for the statuses of the table.
    pub fn name(self) -> Option<&'static str> {
        let row = TABLE.iter().find(|row| row.nt_status == self.0);
        row.filter(|row| row.id != FALLBACK.id).map(|row| row.nt_name)
    }

    /// The kind of `io::Error` that says the same; `Other` where std has none, and for success.
    pub fn kind(self) -> io::ErrorKind {
        row(self).kind
    }

    /// The errno inside a status that [`nt_status`] made because the table does not know the errno; otherwise `None`.
    pub const fn unmapped_errno(self) -> Option<i32> {
        let errno = self.0 & ERRNO_MASK;
        // Nothing between the two parts: another application's own code is not taken for an errno.
        if self.0 & !ERRNO_MASK == FALLBACK.nt_status && errno != 0 { Some(errno as i32) } else { None }
    }
}

/// `STATUS_CANCELLED (0xC0000120)`; the number alone where there is no name.
impl fmt::Display for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.name(), self.unmapped_errno()) {
            (Some(name), _) => write!(f, "{name} (0x{:08X})", self.0),
            (None, Some(errno)) => write!(f, "errno {errno} (0x{:08X})", self.0),
            (None, None) => write!(f, "0x{:08X}", self.0),
        }
    }
}

impl fmt::Debug for NtStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Room for an errno in [`NtStatus::UNMAPPED`]: the code bits of an NTSTATUS. Linux needs 12 of them (MAX_ERRNO is
/// 4095, include/linux/err.h).
const ERRNO_MASK: u32 = 0xFFFF;

/// The status of an operation that ended with this errno (a positive number; 0 is success).
///
/// A row for exactly this class goes before the row for any class: ECONNREFUSED is
/// [`CONNECTION_REFUSED`](NtStatus::CONNECTION_REFUSED) for a connect and
/// [`PORT_UNREACHABLE`](NtStatus::PORT_UNREACHABLE) for a datagram socket. A number without a row gives
/// [`NtStatus::UNMAPPED`] with the number inside; only a negative number or one above 65535, which no system uses as
/// an errno, does not fit and gives the bare `UNMAPPED`.
///
/// Nothing but 0 gives a status for which [`is_error`](NtStatus::is_error) is false. EAGAIN on a socket is no result:
/// the operation has to wait for readiness and be tried again.
#[doc(alias = "Internal")]
pub fn nt_status(errno: i32, class: Class) -> NtStatus {
    if errno == 0 {
        return NtStatus::SUCCESS;
    }
    let find = |class| TABLE.iter().find(|row| row.errnos.contains(&(errno, class)));
    match find(class).or_else(|| find(Class::Any)) {
        Some(row) => NtStatus(row.nt_status),
        None => match u32::try_from(errno) {
            Ok(errno) if errno <= ERRNO_MASK => NtStatus(FALLBACK.nt_status | errno),
            _ => NtStatus::UNMAPPED,
        },
    }
}

/// The status of an operation of this class that Windows reports with this code, Win32's or Winsock's.
///
/// Several statuses have one code; the one that an errno leads to goes before the others, one for exactly this class
/// first. A code without a row gives [`NtStatus::UNMAPPED`] with the code inside.
pub fn nt_status_of_code(code: u32, class: Class) -> NtStatus {
    let has_code = |row: &&Row| row.win32 == code || row.winsock == Some(code);
    let leads_to = |row: &&Row, of: Class| row.errnos.iter().any(|&(_, class)| class == of);
    let named = || TABLE.iter().filter(|row| row.id != FALLBACK.id).filter(has_code);
    let row = named()
        .find(|row| leads_to(row, class))
        .or_else(|| named().find(|row| leads_to(row, Class::Any)))
        .or_else(|| named().next());
    row.map_or(NtStatus(FALLBACK.nt_status | (code & ERRNO_MASK)), |row| NtStatus(row.nt_status))
}

/// What GetLastError says about this status after GetQueuedCompletionStatus or GetOverlappedResult.
///
/// 0 for success and 997 for a pending operation. A status that the table does not know gives 317
/// (`ERROR_MR_MID_NOT_FOUND`, E-42), even if its severity is success: what is not known is not passed off as
/// a success.
#[doc(alias = "RtlNtStatusToDosError")]
#[doc(alias = "GetLastError")]
pub fn win32(status: NtStatus) -> u32 {
    row(status).win32
}

/// What WSAGetLastError says about this status after WSAGetOverlappedResult.
///
/// 10022 (`WSAEINVAL`) for a status that the table does not know and for one that has no Winsock name because no
/// socket ends like that (a full disk).
#[doc(alias = "WSAGetLastError")]
#[doc(alias = "WSAGetOverlappedResult")]
pub fn winsock(status: NtStatus) -> u32 {
    row(status).winsock.unwrap_or(WINSOCK_FALLBACK)
}

/// What WSAGetLastError says after a Winsock call that failed at once with this errno and queued no packet.
///
/// Differs from the way over [`nt_status`] where Winsock has a code without an NTSTATUS (EMFILE is 10024, EAGAIN
/// 10035). There is no class: a datagram socket's ECONNREFUSED comes out as 10061, and a caller that knows the class
/// takes `winsock(nt_status(errno, class))`, which is 10054. An errno that only completed operations have goes by
/// their table; one that stands nowhere gives 10022 (`WSAEINVAL`).
pub fn winsock_from_errno(errno: i32) -> u32 {
    match IMMEDIATE.iter().find(|row| row.errnos.contains(&errno)) {
        Some(row) => row.code,
        None => winsock(nt_status(errno, Class::Any)),
    }
}

/// The status of an operation of this class that ended with this error number of the system's: an errno, or on Windows
/// a code ([`nt_status_of_code`]).
pub fn nt_status_of_number(number: i32, class: Class) -> NtStatus {
    if number == 0 { NtStatus::SUCCESS } else { system::status_of(number, class) }
}

/// The `io::Error` of an errno. It keeps the number, whatever it is: `raw_os_error` gives it back.
pub fn io_error(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

/// E-42.
const WINSOCK_FALLBACK: u32 = 10022;

fn row(status: NtStatus) -> &'static Row {
    TABLE.iter().find(|row| row.nt_status == status.0).unwrap_or(FALLBACK)
}

/// The status of an `io::Error` that some code made without a system's number, from its kind alone.
fn nt_status_of_kind(kind: io::ErrorKind) -> NtStatus {
    if kind == io::ErrorKind::Other {
        return NtStatus::UNMAPPED;
    }
    let failed_so = || TABLE.iter().filter(|row| row.kind == kind && NtStatus(row.nt_status).is_error());
    // First the row that an errno of this kind leads to, so that both ways agree; then those without any errno (end of
    // file). Never a row that holds for one class only.
    failed_so()
        .find(|row| row.errnos.iter().any(|&(_, class)| class == Class::Any))
        .or_else(|| failed_so().find(|row| row.errnos.is_empty()))
        .map_or(NtStatus::UNMAPPED, |row| NtStatus(row.nt_status))
}

/// The Windows side of an `io::Error` that an operation or a call gave.
///
/// ```ignore
/// match packet.result {
///     Err(error) if error.is_aborted() => {}                // we closed it ourselves
///     Err(error) if error.is_reset() => forget(session),    // the peer went away without a word
///     Err(error) => log::warn!("{error}, {}", error.nt_status(Class::Stream)),
///     Ok(bytes) => handle(bytes),
/// }
/// ```
///
/// # Platform notes
///
/// An error without a system's number (made by `io::Error::new` or from a kind) is looked up by its kind. The numbers
/// are read as Linux errnos; a native Windows engine has the NTSTATUS itself.
pub trait ErrorExt {
    /// The operation was cancelled or its device was closed while it waited: ECANCELED.
    fn is_aborted(&self) -> bool;

    /// The peer broke the connection off: ECONNRESET, or EPIPE from a send.
    ///
    /// Not guaranteed: that a bare EPIPE was the peer. Linux gives the same to a send after the program's own shutdown
    /// and to a write into a pipe that nobody reads (L-40).
    fn is_reset(&self) -> bool;

    /// The NTSTATUS of an operation of this class that failed so; see [`nt_status`].
    fn nt_status(&self, class: Class) -> NtStatus;

    /// The Win32 code of an operation of this class that failed so; see [`win32`].
    fn win32(&self, class: Class) -> u32;

    /// The Winsock code of a call that failed at once; see [`winsock_from_errno`]. For a completed operation, whose
    /// class is known, take [`winsock`]`(error.nt_status(class))`.
    fn winsock(&self) -> u32;
}

impl ErrorExt for io::Error {
    fn is_aborted(&self) -> bool {
        self.raw_os_error() == Some(crate::sys::errno::ECANCELED)
    }

    fn is_reset(&self) -> bool {
        match self.raw_os_error() {
            Some(number) => system::is_reset(number),
            None => self.kind() == io::ErrorKind::ConnectionReset,
        }
    }

    fn nt_status(&self, class: Class) -> NtStatus {
        match self.raw_os_error() {
            // 0 is success for nt_status, but this is an error all the same (someone read errno too late).
            Some(0) => NtStatus::UNMAPPED,
            Some(number) => system::status_of(number, class),
            None => nt_status_of_kind(self.kind()),
        }
    }

    fn win32(&self, class: Class) -> u32 {
        win32(self.nt_status(class))
    }

    fn winsock(&self) -> u32 {
        match self.raw_os_error() {
            Some(number) if number != 0 => system::winsock_of(number),
            _ => winsock(self.nt_status(Class::Any)),
        }
    }
}

/// What a call in a forked child fails with.
pub(crate) fn forked() -> io::Error {
    let what = "the port belongs to the parent process; make a new one after fork";
    io::Error::new(io::ErrorKind::NotConnected, what)
}

#[cfg(test)]
mod tests {
    use super::table::errno::*;
    use super::*;
    use Class::{Any, Connect, Datagram, File, Pipe, Stream};

    const CLASSES: [Class; 6] = [Stream, Connect, Datagram, File, Pipe, Any];

    #[test]
    fn every_status_of_the_specification_has_both_its_names() {
        // Copied from the specification by a script, not from the table. 10022 stands for "no Winsock name".
        #[rustfmt::skip]
        let specified = [
            (0x0000_0000, 0, 0), (0x0000_0103, 997, 997), (0x8000_0005, 234, 10040), (0xC000_0120, 995, 995),
            (0xC000_0011, 38, 10022), (0xC000_020D, 64, 10054), (0xC000_020C, 64, 10054), (0xC000_013B, 64, 10053),
            (0xC000_013C, 64, 10054), (0xC000_0241, 1236, 10053), (0xC000_0236, 1225, 10061), (0xC000_023F, 1234, 10054),
            (0xC000_00B5, 121, 10060), (0xC000_013F, 59, 10060), (0xC000_0140, 59, 10057), (0xC000_020F, 59, 10053),
            (0xC000_023C, 1231, 10051), (0xC000_023D, 1232, 10065), (0xC000_023E, 1233, 10051), (0xC000_023B, 1230, 10056),
            (0xC000_0237, 1226, 10101), (0xC000_0240, 1235, 10004), (0xC000_020A, 52, 10048), (0xC000_0141, 59, 10049),
            (0xC000_0207, 1214, 10049), (0xC000_0206, 1784, 10040), (0xC000_009A, 1450, 10055), (0xC000_0017, 8, 10055),
            (0xC000_0005, 998, 10014), (0xC000_000D, 87, 10022), (0xC000_0008, 6, 10038), (0xC000_0024, 6, 10038),
            (0xC000_0022, 5, 10013), (0xC000_00BB, 50, 10045), (0xC000_0023, 122, 10014), (0xC000_014B, 109, 10022),
            (0xC000_00B1, 232, 10022), (0xC000_00B0, 233, 10058), (0xC000_00B2, 535, 10022), (0xC000_00B3, 536, 10022),
            (0xC000_007F, 112, 10022), (0xC000_0054, 33, 10022), (0xC000_0225, 1168, 10022),
        ];
        for (status, win32_code, winsock_code) in specified {
            assert_eq!(win32(NtStatus(status)), win32_code, "{}", NtStatus(status));
            assert_eq!(winsock(NtStatus(status)), winsock_code, "{}", NtStatus(status));
        }
        // And no row that the specification does not have, but for E-42.
        assert_eq!(TABLE.len(), specified.len() + 1);
    }

    #[test]
    fn every_errno_of_the_specification_ends_in_its_status() {
        #[rustfmt::skip]
        let specified = [
            (ECANCELED, Any, 0xC000_0120), (EINTR, File, 0xC000_0120), (ECONNRESET, Stream, 0xC000_020D),
            (ECONNABORTED, Stream, 0xC000_0241), (ETIMEDOUT, Connect, 0xC000_00B5), (ENOTCONN, Stream, 0xC000_0140),
            (ENETUNREACH, Connect, 0xC000_023C), (EHOSTUNREACH, Connect, 0xC000_023D), (ENOPROTOOPT, Datagram, 0xC000_023E),
            (EPROTO, Datagram, 0xC000_023E), (EISCONN, Connect, 0xC000_023B), (EINTR, Stream, 0xC000_0240),
            (EADDRINUSE, Connect, 0xC000_020A), (EADDRNOTAVAIL, Connect, 0xC000_0141), (EMSGSIZE, Datagram, 0xC000_0206),
            (ENOBUFS, Stream, 0xC000_009A), (ENOMEM, Stream, 0xC000_0017), (EFAULT, Stream, 0xC000_0005),
            (EINVAL, File, 0xC000_000D), (EBADF, File, 0xC000_0008), (ENOTSOCK, Stream, 0xC000_0024),
            (EACCES, File, 0xC000_0022), (EPERM, File, 0xC000_0022), (EOPNOTSUPP, Stream, 0xC000_00BB),
            (ENOTCONN, Pipe, 0xC000_00B0), (EAGAIN, Pipe, 0xC000_00B3), (ENOSPC, File, 0xC000_007F),
            (EDQUOT, File, 0xC000_007F), (EAGAIN, File, 0xC000_0054), (ENOENT, Any, 0xC000_0225),
        ];
        for (errno, class, status) in specified {
            assert_eq!(nt_status(errno, class), NtStatus(status), "errno {errno}, {class:?}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn a_refusal_is_another_error_for_a_datagram_than_for_a_connect() {
        let connect = io_error(ECONNREFUSED).nt_status(Connect);
        assert_eq!((connect.0, win32(connect), winsock(connect)), (0xC000_0236, 1225, 10061));
        let datagram = io_error(ECONNREFUSED).nt_status(Datagram);
        assert_eq!((datagram.0, win32(datagram), winsock(datagram)), (0xC000_023F, 1234, 10054));
    }

    #[test]
    fn a_broken_pipe_is_a_reset_on_sockets_and_a_closing_pipe_on_pipes() {
        for socket in [Stream, Connect, Datagram] {
            let status = nt_status(EPIPE, socket);
            assert_eq!((status.0, win32(status), winsock(status)), (0xC000_020D, 64, 10054));
        }
        let pipe = nt_status(EPIPE, Pipe);
        assert_eq!((pipe.0, win32(pipe)), (0xC000_00B1, 232));
    }

    #[test]
    fn a_direction_shut_down_by_the_program_is_not_a_reset() {
        let status = nt_status(ESHUTDOWN, Stream);
        assert_eq!((status, winsock(status)), (NtStatus::PIPE_DISCONNECTED, 10058));
        assert_eq!(winsock_from_errno(ESHUTDOWN), 10058);
        assert!(!io_error(ESHUTDOWN).is_reset());
    }

    #[cfg(unix)]
    #[test]
    fn immediate_failures_have_the_winsock_codes_of_the_specification() {
        #[rustfmt::skip]
        let specified = [
            (EINTR, 10004), (EACCES, 10013), (EFAULT, 10014), (EINVAL, 10022), (EMFILE, 10024), (ENFILE, 10024),
            (EAGAIN, 10035), (EINPROGRESS, 10036), (EALREADY, 10037), (ENOTSOCK, 10038), (EBADF, 10038),
            (EDESTADDRREQ, 10039), (EMSGSIZE, 10040), (EOPNOTSUPP, 10045), (EAFNOSUPPORT, 10047),
            (EADDRINUSE, 10048), (EADDRNOTAVAIL, 10049), (ENETDOWN, 10050), (ENETUNREACH, 10051), (ENETRESET, 10052),
            (ECONNABORTED, 10053), (ECONNRESET, 10054), (EPIPE, 10054), (ENOBUFS, 10055), (ENOMEM, 10055),
            (EISCONN, 10056), (ENOTCONN, 10057), (ETIMEDOUT, 10060), (ECONNREFUSED, 10061), (EHOSTDOWN, 10064),
            (EHOSTUNREACH, 10065),
            // Not in the list of immediate failures: by the table of completed operations.
            (ECANCELED, 995), (EPERM, 10013),
        ];
        for (errno, code) in specified {
            assert_eq!(winsock_from_errno(errno), code, "errno {errno}");
            assert_eq!(io_error(errno).winsock(), code, "errno {errno}");
        }
    }

    #[test]
    fn an_unknown_errno_is_an_error_that_keeps_its_number() {
        let mut unknown = 0;
        for errno in 1..=4095 {
            assert_eq!(io_error(errno).raw_os_error(), Some(errno));
            for class in CLASSES {
                let status = nt_status(errno, class);
                assert!(status.is_error(), "errno {errno}, {class:?}: {status}");
                if status.name().is_none() {
                    unknown += 1;
                    assert_eq!(status.unmapped_errno(), Some(errno), "{class:?}");
                    assert_eq!((win32(status), winsock(status)), (317, 10022), "errno {errno}, {class:?}");
                    assert_eq!(status.to_string(), format!("errno {errno} (0x{:08X})", status.0));
                } else {
                    assert_eq!(status.unmapped_errno(), None, "errno {errno}, {class:?}");
                }
            }
        }
        assert!(unknown > 4000 * CLASSES.len());
        assert_eq!(winsock_from_errno(4095), 10022);
    }

    #[test]
    fn a_number_that_can_be_no_errno_is_an_error_too() {
        for number in [-1, -ECANCELED, 0x1_0000, i32::MAX, i32::MIN] {
            assert_eq!(nt_status(number, Any), NtStatus::UNMAPPED, "{number}");
            assert_eq!(winsock_from_errno(number), 10022, "{number}");
            assert_eq!(io_error(number).raw_os_error(), Some(number));
        }
        assert_eq!(NtStatus::UNMAPPED.unmapped_errno(), None);
    }

    #[test]
    fn zero_is_success_as_a_result_and_a_failure_as_an_error() {
        for class in CLASSES {
            assert_eq!(nt_status(0, class), NtStatus::SUCCESS);
            assert_eq!(io_error(0).nt_status(class), NtStatus::UNMAPPED);
        }
        assert_eq!((win32(NtStatus::SUCCESS), winsock(NtStatus::SUCCESS)), (0, 0));
        assert_eq!((io_error(0).win32(Any), io_error(0).winsock()), (317, 10022));
    }

    #[test]
    fn an_unknown_status_is_not_passed_off_as_success() {
        // One of each severity, and an application's own code that is not ours.
        for status in [0x0000_0777, 0x4000_0777, 0x8000_0777, 0xC000_0777, 0xE123_0020] {
            let status = NtStatus(status);
            assert_eq!((win32(status), winsock(status)), (317, 10022), "{status}");
            assert_eq!((status.name(), status.unmapped_errno()), (None, None));
            assert_eq!(status.to_string(), format!("0x{:08X}", status.0));
        }
    }

    #[test]
    fn the_two_top_bits_say_whether_a_status_is_a_failure() {
        let severity = |status: NtStatus| (status.is_success(), status.is_warning(), status.is_error());
        assert_eq!(severity(NtStatus::SUCCESS), (true, false, false));
        assert_eq!(severity(NtStatus::PENDING), (true, false, false));
        assert_eq!(severity(NtStatus(0x4000_0000)), (true, false, false));
        assert_eq!(severity(NtStatus::BUFFER_OVERFLOW), (false, true, false));
        assert_eq!(severity(NtStatus::CANCELLED), (false, false, true));
        assert_eq!(severity(NtStatus::UNMAPPED), (false, false, true));
    }

    #[test]
    fn every_constant_has_the_number_of_its_name() {
        macro_rules! named {
            ($($name:ident)*) => {$(
                assert_eq!(NtStatus::$name.name(), Some(concat!("STATUS_", stringify!($name))));
            )*};
        }
        named! {
            SUCCESS PENDING BUFFER_OVERFLOW CANCELLED END_OF_FILE CONNECTION_RESET CONNECTION_ABORTED
            CONNECTION_REFUSED PORT_UNREACHABLE IO_TIMEOUT INVALID_CONNECTION INVALID_PARAMETER INVALID_HANDLE
            NOT_SUPPORTED BUFFER_TOO_SMALL PIPE_BROKEN PIPE_CLOSING PIPE_DISCONNECTED NOT_FOUND
        }
        assert_eq!(format!("{:?}", NtStatus::CANCELLED), "STATUS_CANCELLED (0xC0000120)");
    }

    #[cfg(unix)]
    #[test]
    fn a_cancelled_operation_is_aborted_and_nothing_else_is() {
        let aborted: Vec<i32> = (0..=4095).filter(|&errno| io_error(errno).is_aborted()).collect();
        assert_eq!(aborted, [ECANCELED]);
        assert_eq!(io_error(ECANCELED).win32(Stream), 995);
        assert!(!io::Error::other("cancelled").is_aborted());
    }

    #[cfg(unix)]
    #[test]
    fn a_connection_that_broke_is_reset_and_one_that_ended_otherwise_is_not() {
        let reset: Vec<i32> = (0..=4095).filter(|&errno| io_error(errno).is_reset()).collect();
        assert_eq!(reset, [EPIPE, ECONNRESET]);
        assert!(io::Error::from(io::ErrorKind::ConnectionReset).is_reset());
        assert!(!io::Error::from(io::ErrorKind::UnexpectedEof).is_reset());
        for errno in reset {
            assert_eq!(io_error(errno).nt_status(Stream), NtStatus::CONNECTION_RESET);
        }
    }

    #[test]
    fn a_code_leads_back_to_the_status_that_an_errno_has() {
        for class in CLASSES {
            for row in TABLE.iter().filter(|row| row.id != FALLBACK.id) {
                for &(errno, _) in row.errnos.iter().filter(|&&(_, of)| of == class) {
                    let status = nt_status(errno, class);
                    // Some statuses share both codes, and many share one of them.
                    let codes = |status| (win32(status), winsock(status));
                    let back = [win32(status), winsock(status)].map(|code| nt_status_of_code(code, class));
                    assert!(back.map(codes).contains(&codes(status)), "{} for {class:?}: {back:?}", row.id);
                }
            }
        }
        assert_eq!(nt_status_of_code(10054, Datagram), NtStatus::PORT_UNREACHABLE);
        assert_eq!(nt_status_of_code(10054, Stream), NtStatus::CONNECTION_RESET);
        assert_eq!(nt_status_of_code(995, Any), NtStatus::CANCELLED);
        assert_eq!(nt_status_of_code(38, File), NtStatus::END_OF_FILE);
        assert_eq!(nt_status_of_code(0, Any), NtStatus::SUCCESS);
        assert_eq!(nt_status_of_code(12345, Any), NtStatus(0xE000_0000 | 12345));
    }

    #[test]
    fn an_error_without_a_number_is_known_by_its_kind() {
        use io::ErrorKind::*;
        for (kind, status) in [
            (UnexpectedEof, NtStatus::END_OF_FILE),
            (ConnectionReset, NtStatus::CONNECTION_RESET),
            (ConnectionAborted, NtStatus::CONNECTION_ABORTED),
            (TimedOut, NtStatus::IO_TIMEOUT),
            (BrokenPipe, NtStatus::PIPE_BROKEN),
            (InvalidInput, NtStatus::INVALID_PARAMETER),
            // A kind that only pending or class-bound rows have, one that no row has, and none at all.
            (WouldBlock, NtStatus::UNMAPPED),
            (InvalidData, NtStatus::UNMAPPED),
            (Other, NtStatus::UNMAPPED),
        ] {
            for error in [io::Error::from(kind), io::Error::new(kind, "text")] {
                assert_eq!(error.nt_status(Any), status, "{kind:?}");
                assert_eq!(error.winsock(), winsock(status), "{kind:?}");
            }
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn an_error_has_the_same_status_by_its_number_and_by_its_kind() {
        for row in TABLE {
            let Some(&(errno, Any)) = row.errnos.first() else {
                continue;
            };
            if row.kind != io::ErrorKind::Other {
                let by_kind = io::Error::from(io_error(errno).kind()).nt_status(Any);
                assert_eq!(by_kind, nt_status(errno, Any), "{}", row.id);
            }
        }
    }
}
