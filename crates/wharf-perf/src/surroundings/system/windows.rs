//! Windows: what it has of all this, and a sentence for what it lacks.

use crate::measure::figures::TcpSample;
use crate::protocol::{Failure, code};
use crate::surroundings::port::Stream;
use socket2::{SockRef, Socket, Type};
use std::io;
use std::net::SocketAddr;
use std::os::windows::io::{AsRawSocket, BorrowedSocket};
use std::time::Duration;
use wharf::signal::{SIGBREAK, SIGINT, SIGTERM};
use windows_sys::Win32::Foundation::{self as base, FILETIME};
use windows_sys::Win32::Networking::WinSock as ws;
use windows_sys::Win32::System::Threading as threads;

/// What asks a test or a server to end: Ctrl+C, the end of the console or the session, Ctrl+Break.
pub(crate) const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGBREAK];

/// What to do when buffers of sockets are smaller than asked for.
pub(crate) const MORE_BUFFER: &str = "ask for less (-w)";

/// The system's name, the machine's, the version, and the kind of processor.
#[allow(unsafe_code)]
pub(crate) fn name() -> String {
    use windows_sys::Wdk::System::SystemServices::RtlGetVersion;
    use windows_sys::Win32::System::SystemInformation::OSVERSIONINFOW;
    // SAFETY: numbers and characters, of which zeros are valid.
    let mut version: OSVERSIONINFOW = unsafe { std::mem::zeroed() };
    version.dwOSVersionInfoSize = size_of::<OSVERSIONINFOW>() as u32;
    // SAFETY: the structure says how large it is, and lives through the call.
    unsafe { RtlGetVersion(&raw mut version) };
    let (major, minor, build) = (version.dwMajorVersion, version.dwMinorVersion, version.dwBuildNumber);
    let machine = std::env::var("COMPUTERNAME").unwrap_or_else(|_| "-".into());
    format!("Windows_NT {machine} {major}.{minor}.{build} {}", std::env::consts::ARCH)
}

fn lacks(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, what)
}

// --- Errors ---

/// The number of an error: Win32's, or Winsock's.
fn number(error: &io::Error) -> u32 {
    error.raw_os_error().unwrap_or(0).cast_unsigned()
}

/// A datagram was larger than the way allows.
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    matches!(number(error).cast_signed(), ws::WSAEMSGSIZE) || number(error) == base::ERROR_MORE_DATA
}

/// Nobody listened where an earlier datagram went, which is told as a reset.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    matches!(number(error).cast_signed(), ws::WSAECONNREFUSED | ws::WSAECONNRESET)
        || matches!(number(error), base::ERROR_PORT_UNREACHABLE | base::ERROR_CONNECTION_REFUSED)
}

/// A send of datagrams failed for what the next one may not meet.
pub(crate) fn passes(error: &io::Error) -> bool {
    is_refusal(error) || matches!(number(error).cast_signed(), ws::WSAENOBUFS | ws::WSAEWOULDBLOCK)
}

/// A segmented send failed because the route cannot segment.
pub(crate) fn cannot_segment(error: &io::Error) -> bool {
    matches!(number(error).cast_signed(), ws::WSAEINVAL | ws::WSAEMSGSIZE | ws::WSAEOPNOTSUPP)
}

// --- Options ---

#[allow(unsafe_code)]
fn set_option(socket: &SockRef<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    let socket = socket.as_raw_socket() as ws::SOCKET;
    // SAFETY: the value is as large as said, and is only read.
    match unsafe { ws::setsockopt(socket, level, name, (&raw const value).cast(), 4) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Not on Windows.
pub(crate) fn bind_device(_: &Socket, _: &str) -> io::Result<()> {
    Err(lacks("Windows binds a socket to no device; give the device's address with -B"))
}

/// Lets a datagram socket have the port that the server has. A stream's is free as soon as its socket
/// is closed, and shared it would let another program take it over.
pub(crate) fn reuse_address(socket: &Socket) -> io::Result<()> {
    match socket.r#type()? {
        Type::DGRAM => socket.set_reuse_address(true),
        _ => Ok(()),
    }
}

/// Connects a datagram socket.
pub(crate) fn connect(socket: &Socket, to: &SocketAddr) -> io::Result<()> {
    socket.connect(&(*to).into())
}

/// Not on Windows.
pub(crate) fn set_segment_bytes(_: &SockRef<'_>, _: u32) -> io::Result<()> {
    Err(lacks("Windows lets no program choose the size of segments; leave -M out"))
}

/// Not on Windows.
pub(crate) fn set_congestion(_: &SockRef<'_>, _: &str) -> io::Result<()> {
    Err(lacks("Windows lets no program choose one; leave -C out"))
}

/// The type of service of IPv4. Windows takes it, and sends it only if its registry says so.
pub(crate) fn set_tos(socket: &SockRef<'_>, tos: u32) -> io::Result<()> {
    if socket.local_addr().is_ok_and(|address| address.is_ipv6()) {
        return Err(lacks("Windows sets no class of traffic of IPv6; use -4, or leave -S out"));
    }
    socket.set_tos_v4(tos)
}

/// Not on Windows.
pub(crate) fn set_pacing(_: &SockRef<'_>, _: u64) -> io::Result<()> {
    Err(lacks("Windows paces no sockets; use -b instead of --fq-rate"))
}

/// Datagrams are not cut on their way.
pub(crate) fn forbid_fragments(socket: &SockRef<'_>) -> io::Result<()> {
    set_option(socket, ws::IPPROTO_IP, ws::IP_DONTFRAGMENT, 1)
}

/// Calls `call` with the socket behind a stream that nobody closes meanwhile: streams are closed under their test's
/// lock, which the caller holds, or before others know them.
#[allow(unsafe_code)]
pub(crate) fn with_socket<R>(stream: &Stream, call: impl FnOnce(SockRef<'_>) -> R) -> R {
    // SAFETY: the handle that is borrowed keeps the socket open, unless `close` is called; see above.
    let socket = unsafe { BorrowedSocket::borrow_raw(stream.raw().handle()) };
    call(SockRef::from(&socket))
}

/// What the system says of a connection: nothing, as in iperf3's programs for Windows.
pub(crate) fn tcp_sample(_: &Stream) -> Option<TcpSample> {
    None
}

/// Bytes of a connection that the peer's system has not acknowledged: not known here, so nobody waits for them.
pub(crate) fn unsent_bytes(_: &Stream) -> u64 {
    0
}

/// Bytes that wait in a connection's receive buffer. The same holds as for [`with_socket`].
#[allow(unsafe_code)]
pub(crate) fn unread_bytes(stream: &Stream) -> u64 {
    let mut bytes = 0_u32;
    let socket = stream.raw().handle() as ws::SOCKET;
    // SAFETY: FIONREAD writes one number, which is what the pointer names.
    let result = unsafe { ws::ioctlsocket(socket, ws::FIONREAD, &raw mut bytes) };
    if result == 0 { bytes.into() } else { 0 }
}

/// A connection's segment size: not known here.
pub(crate) fn segment_bytes(_: &Stream) -> u64 {
    0
}

/// The name of a connection's congestion control: Windows tells none.
pub(crate) fn congestion(_: &Stream) -> Option<String> {
    None
}

/// Sent data that is not acknowledged for so long breaks the connection (`TCP_MAXRT`, in whole seconds).
pub(crate) fn send_timeout(stream: &Stream, timeout: Duration) -> io::Result<()> {
    let seconds = i32::try_from(timeout.as_millis().div_ceil(1000)).unwrap_or(i32::MAX);
    with_socket(stream, |socket| set_option(&socket, ws::IPPROTO_TCP, ws::TCP_MAXRT, seconds))
}

/// Not on Windows.
pub(crate) fn label(_: &Socket, peer: SocketAddr, label: u32) -> Result<SocketAddr, Failure> {
    match label {
        0 => Ok(peer),
        _ => Err(Failure::new(code::FLOW_LABEL, "Windows lets no program choose a flow label; leave -L out")),
    }
}

// --- The process ---

/// The process's processor time so far: user, system.
#[allow(unsafe_code)]
pub(crate) fn processor_times() -> [Duration; 2] {
    const NONE: FILETIME = FILETIME { dwLowDateTime: 0, dwHighDateTime: 0 };
    let [mut made, mut ended, mut system, mut user] = [NONE; 4];
    // SAFETY: the pointers name four places of the right kind, which live through the call.
    unsafe {
        let process = threads::GetCurrentProcess();
        threads::GetProcessTimes(process, &raw mut made, &raw mut ended, &raw mut system, &raw mut user);
    }
    // Tenths of microseconds.
    let time = |time: FILETIME| {
        let ticks = u64::from(time.dwHighDateTime) << 32 | u64::from(time.dwLowDateTime);
        Duration::from_nanos(ticks.saturating_mul(100))
    };
    [time(user), time(system)]
}

/// The processors that this process may run on: of its group, which has 64 at most.
#[derive(Clone, Copy)]
pub(crate) struct Processors(usize);

impl Processors {
    #[allow(unsafe_code)]
    pub(crate) fn now() -> io::Result<Processors> {
        let (mut ours, mut all) = (0, 0);
        // SAFETY: the pointers name two numbers that live through the call.
        let known =
            unsafe { threads::GetProcessAffinityMask(threads::GetCurrentProcess(), &raw mut ours, &raw mut all) };
        if known != 0 { Ok(Processors(ours)) } else { Err(io::Error::last_os_error()) }
    }

    pub(crate) fn only(number: u32) -> io::Result<Processors> {
        1_usize.checked_shl(number).map(Processors).ok_or_else(|| io::ErrorKind::InvalidInput.into())
    }

    /// All threads of this process run there from now on; those that are started later, too.
    #[allow(unsafe_code)]
    pub(crate) fn choose(&self) -> io::Result<()> {
        // SAFETY: numbers only.
        let done = unsafe { threads::SetProcessAffinityMask(threads::GetCurrentProcess(), self.0) };
        if done != 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}
