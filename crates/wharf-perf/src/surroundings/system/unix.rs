//! Linux: the options of its sockets, what its kernel knows of a connection, and the processors.

use crate::measure::figures::TcpSample;
use crate::protocol::{Failure, code};
use crate::surroundings::port::Stream;
use socket2::{Domain, SockRef, Socket};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;
use wharf::signal::{SIGHUP, SIGINT, SIGTERM};

/// What asks a test or a server to end.
pub(crate) const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// What to do when buffers of sockets are smaller than asked for.
pub(crate) const MORE_BUFFER: &str = "raise net.core.wmem_max and net.core.rmem_max";

/// `uname -a` without its operating system's name.
pub(crate) fn name() -> String {
    let name = rustix::system::uname();
    let parts = [name.sysname(), name.nodename(), name.release(), name.version(), name.machine()];
    let parts: Vec<_> = parts.iter().map(|part| part.to_string_lossy()).collect();
    parts.join(" ")
}

// --- Errors ---

/// A datagram was larger than the way allows.
pub(crate) fn is_too_long(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EMSGSIZE)
}

/// Nobody listened where an earlier datagram went.
pub(crate) fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// A send of datagrams failed for what the next one may not meet.
pub(crate) fn passes(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::ECONNREFUSED | libc::EAGAIN))
}

/// A segmented send failed because the route cannot segment.
pub(crate) fn cannot_segment(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL))
}

// --- Options ---

/// Has a socket use this network device only.
pub(crate) fn bind_device(socket: &Socket, device: &str) -> io::Result<()> {
    socket.bind_device(Some(device.as_bytes())).map_err(|error| {
        let what = format!("{error}; it needs the right to (CAP_NET_RAW)");
        io::Error::new(error.kind(), what)
    })
}

/// Lets a socket have a port that was in use just now, or that another one of the same test has.
pub(crate) fn reuse_address(socket: &Socket) -> io::Result<()> {
    socket.set_reuse_address(true)
}

/// Connects a datagram socket.
pub(crate) fn connect(socket: &Socket, to: &SocketAddr) -> io::Result<()> {
    // With the flow label, which std's and socket2's addresses have in another order.
    Ok(rustix::net::connect(socket, to)?)
}

/// The largest segment.
pub(crate) fn set_segment_bytes(socket: &SockRef<'_>, bytes: u32) -> io::Result<()> {
    socket.set_tcp_mss(bytes)
}

pub(crate) fn set_congestion(socket: &SockRef<'_>, name: &str) -> io::Result<()> {
    socket.set_tcp_congestion(name.as_bytes())
}

/// The type of service, or the class of traffic.
pub(crate) fn set_tos(socket: &SockRef<'_>, tos: u32) -> io::Result<()> {
    let six = socket.domain().is_ok_and(|domain| domain == Domain::IPV6);
    if six { socket.set_tclass_v6(tos) } else { socket.set_tos_v4(tos) }
}

/// The kernel sends no faster than this number of bytes a second.
pub(crate) fn set_pacing(socket: &SockRef<'_>, rate: u64) -> io::Result<()> {
    option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, rate)
}

/// Datagrams are not cut on their way.
pub(crate) fn forbid_fragments(socket: &SockRef<'_>) -> io::Result<()> {
    option(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
}

#[allow(unsafe_code)]
fn option<T: Copy>(fd: i32, level: i32, name: i32, value: T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length name `value`, numbers without gaps between them, which the call only reads.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls `call` with the socket behind a stream that nobody closes meanwhile: streams are closed under their test's
/// lock, which the caller holds, or before others know them.
#[allow(unsafe_code)]
pub(crate) fn with_socket<R>(stream: &Stream, call: impl FnOnce(SockRef<'_>) -> R) -> R {
    // SAFETY: the handle that is borrowed keeps the descriptor open, unless `close` is called; see above.
    let fd = unsafe { BorrowedFd::borrow_raw(stream.raw().handle()) };
    call(SockRef::from(&fd))
}

/// What the kernel says of a connection; `None` if it says nothing. The same holds as for [`with_socket`].
#[allow(unsafe_code)]
pub(crate) fn tcp_sample(stream: &Stream) -> Option<TcpSample> {
    let mut bytes = [0_u8; 256];
    let mut length = bytes.len() as libc::socklen_t;
    let fd = stream.raw().handle();
    // SAFETY: the pointer and the length name `bytes`; the kernel writes at most that much and says how much.
    let result =
        unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, bytes.as_mut_ptr().cast(), &raw mut length) };
    // Offsets in the kernel's `struct tcp_info` (include/uapi/linux/tcp.h), which only grows at its end.
    let word = |at: usize| -> Option<u64> {
        let word = bytes.get(at..at + 4).filter(|_| at + 4 <= length as usize)?;
        Some(u32::from_ne_bytes(word.try_into().ok()?).into())
    };
    (result == 0).then_some(())?;
    let mss = word(16)?;
    Some(TcpSample {
        retransmits: word(100)?,
        congestion_window: word(80)? * mss,
        send_window: word(228).map_or(-1, |bytes| bytes as i64),
        rtt: word(68)?,
        rtt_variation: word(72)?,
        path_mtu: word(60)?,
        reordered: word(220).unwrap_or(0),
    })
}

/// Bytes of a connection that the peer's system has not acknowledged. The same holds as for [`with_socket`].
#[allow(unsafe_code)]
pub(crate) fn unsent_bytes(stream: &Stream) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the request (SIOCOUTQ, which has TIOCOUTQ's number) writes one int, which is what the pointer names.
    let result = unsafe { libc::ioctl(stream.raw().handle(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Bytes that wait in a connection's receive buffer. The same holds as for [`with_socket`].
#[allow(unsafe_code)]
pub(crate) fn unread_bytes(stream: &Stream) -> u64 {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int, which is what the pointer names.
    let result = unsafe { libc::ioctl(stream.raw().handle(), libc::FIONREAD, &raw mut bytes) };
    if result == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// A connection's segment size; 0 if unknown.
pub(crate) fn segment_bytes(stream: &Stream) -> u64 {
    with_socket(stream, |socket| socket.tcp_mss().map_or(0, u64::from))
}

/// The name of a connection's congestion control.
pub(crate) fn congestion(stream: &Stream) -> Option<String> {
    let name = with_socket(stream, |socket| socket.tcp_congestion()).ok()?;
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
    Some(String::from_utf8_lossy(&name[..end]).into_owned())
}

/// Sent data that is not acknowledged for so long breaks the connection (`TCP_USER_TIMEOUT`).
pub(crate) fn send_timeout(stream: &Stream, timeout: Duration) -> io::Result<()> {
    with_socket(stream, |socket| socket.set_tcp_user_timeout(Some(timeout)))
}

/// The kernel's `struct in6_flowlabel_req` (include/uapi/linux/in6.h).
#[derive(Clone, Copy)]
#[repr(C)]
struct FlowLabelRequest {
    to: [u8; 16],
    label: u32,
    action: u8,
    share: u8,
    flags: u16,
    expires: u16,
    linger: u16,
    pad: u32,
}

const _: () = assert!(size_of::<FlowLabelRequest>() == 32);

/// Lets a socket send with a flow label: the kernel has to be told of it first (`IPV6_FLOWLABEL_MGR`). Returns the
/// peer's address with the label in it, which is what to connect to.
pub(crate) fn label(socket: &Socket, peer: SocketAddr, label: u32) -> Result<SocketAddr, Failure> {
    if label == 0 {
        return Ok(peer);
    }
    let SocketAddr::V6(mut peer) = peer else {
        return Err(Failure::new(code::FLOW_LABEL, "IPv4 has no flow labels (-L); use -6 and an address of IPv6"));
    };
    /// `IPV6_FL_A_GET`, with `IPV6_FL_F_CREATE` and `IPV6_FL_S_ANY`: of several streams each may have it.
    const GET: u8 = 0;
    const CREATE: u16 = 1;
    const ANY: u8 = 255;
    let to = peer.ip().octets();
    let request = FlowLabelRequest {
        to,
        label: label.to_be(),
        action: GET,
        share: ANY,
        flags: CREATE,
        expires: 0,
        linger: 0,
        pad: 0,
    };
    let fd = socket.as_raw_fd();
    option(fd, libc::IPPROTO_IPV6, libc::IPV6_FLOWLABEL_MGR, request)
        .and_then(|()| option::<libc::c_int>(fd, libc::IPPROTO_IPV6, libc::IPV6_FLOWINFO_SEND, 1))
        .map_err(|error| Failure::system(code::FLOW_LABEL, &error))?;
    peer.set_flowinfo(label);
    Ok(SocketAddr::V6(peer))
}

// --- The process ---

/// The process's processor time so far: user, system.
#[allow(unsafe_code)]
pub(crate) fn processor_times() -> [Duration; 2] {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: all zeros is a valid `rusage`, a structure of numbers, and the call writes only to it.
    let usage = unsafe {
        libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
        usage.assume_init()
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    [time(usage.ru_utime), time(usage.ru_stime)]
}

/// The processors that this process may run on.
#[derive(Clone, Copy)]
pub(crate) struct Processors(libc::cpu_set_t);

impl Processors {
    /// Those of the calling thread, which are those of the process as long as nobody has chosen.
    #[allow(unsafe_code)]
    pub(crate) fn now() -> io::Result<Processors> {
        // SAFETY: a structure of plain bits, of which all zeros is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the size is that of `set`, to which alone the call writes.
        let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        if result == 0 { Ok(Processors(set)) } else { Err(io::Error::last_os_error()) }
    }

    #[allow(unsafe_code)]
    pub(crate) fn only(number: u32) -> io::Result<Processors> {
        if number as usize >= 8 * size_of::<libc::cpu_set_t>() {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        // SAFETY: as in `now`; the number is inside of the set.
        let set = unsafe {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(number as usize, &mut set);
            set
        };
        Ok(Processors(set))
    }

    /// All threads of this process run there from now on; those that are started later, too.
    #[allow(unsafe_code)]
    pub(crate) fn choose(&self) -> io::Result<()> {
        for thread in std::fs::read_dir("/proc/self/task")?.flatten() {
            let Some(id) = thread.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
            // SAFETY: the size is that of the set, which the call only reads.
            let result = unsafe { libc::sched_setaffinity(id, size_of::<libc::cpu_set_t>(), &raw const self.0) };
            let error = io::Error::last_os_error();
            // A thread may have ended since it was listed.
            if result != 0 && error.raw_os_error() != Some(libc::ESRCH) {
                return Err(error);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::Type;

    #[test]
    #[allow(unsafe_code)]
    fn a_flow_label_is_on_the_way() {
        let Ok(receiver) = std::net::UdpSocket::bind("[::1]:0") else {
            return eprintln!("NOT RUN: this machine has no ::1");
        };
        let wish: libc::c_int = 1;
        option(receiver.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_FLOWINFO, wish).unwrap();
        let peer = receiver.local_addr().unwrap();
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        let to = label(&socket, peer, 0xABCDE).unwrap();
        rustix::net::connect(&socket, &to).unwrap();
        socket.send(b"labelled").unwrap();
        let (mut data, mut control) = ([0_u8; 16], [0_u64; 16]);
        let mut piece = libc::iovec { iov_base: data.as_mut_ptr().cast(), iov_len: data.len() };
        // SAFETY: all zeros is a valid `msghdr`, of numbers and pointers; those that the call follows are set below, to
        // memory of these lengths that lives on.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        (message.msg_iov, message.msg_iovlen) = (&raw mut piece, 1);
        (message.msg_control, message.msg_controllen) = (control.as_mut_ptr().cast(), size_of_val(&control) as _);
        // SAFETY: see above.
        let count = unsafe { libc::recvmsg(receiver.as_raw_fd(), &raw mut message, 0) };
        assert_eq!(count, 8);
        // SAFETY: the kernel has filled in what the message says of its control part, which is aligned as headers are.
        let told = unsafe {
            let head = libc::CMSG_FIRSTHDR(&raw const message);
            assert!(!head.is_null(), "no word about the flow");
            assert_eq!((*head).cmsg_type, libc::IPV6_FLOWINFO);
            libc::CMSG_DATA(head).cast::<u32>().read_unaligned()
        };
        assert_eq!(u32::from_be(told) & crate::protocol::parameters::FLOW_LABEL_MAX, 0xABCDE);
        let four = "127.0.0.1:1".parse().unwrap();
        assert_eq!(label(&socket, four, 7).unwrap_err().code, code::FLOW_LABEL);
        assert_eq!(label(&socket, four, 0).unwrap(), four);
    }
}
