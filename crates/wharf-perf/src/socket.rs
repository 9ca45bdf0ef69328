//! Sockets before they become devices of the port, and what the kernel knows of them and of this process.

use crate::op::{File, Op, Port, Stream};
use crate::parameters::Parameters;
use crate::protocol::{Failure, code, describe};
use crate::report::TcpSample;
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use wharf::{Builder, CompletionPort, FileEngine, SocketEngine};

/// Where sockets of this end come from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The local address.
    pub address: Option<IpAddr>,
    /// The network device.
    pub device: Option<String>,
}

/// A port as the options say.
pub(crate) fn builder(concurrency: usize, sockets: Option<SocketEngine>, files: Option<FileEngine>) -> Builder {
    let mut builder = CompletionPort::<(), Op>::builder().concurrency(concurrency);
    if let Some(engine) = sockets {
        builder = builder.socket_engine(engine);
    }
    if let Some(engine) = files {
        builder = builder.file_engine(engine);
    }
    builder
}

/// The file of `-F`: read by a sender, made anew by a receiver. Its name comes along, for messages.
pub(crate) fn open_file(
    port: &Port,
    path: &Path,
    parameters: &Parameters,
    sends: bool,
) -> Result<(File, String), Failure> {
    if parameters.protocol != crate::parameters::Protocol::Tcp {
        return Err(Failure::new(code::FILE_OVER_UDP, describe(code::FILE_OVER_UDP)));
    }
    if parameters.streams() != 1 || parameters.verify || parameters.two_phase {
        let text = "a file goes over one stream in one direction: without -P, --bidir, --two-phase and --verify";
        return Err(Failure::new(code::FILE, text));
    }
    let mut options = std::fs::OpenOptions::new();
    match sends {
        true => options.read(true),
        false => options.write(true).create(true).truncate(true),
    };
    match port.open(path, &options, ()) {
        Ok(file) => Ok((file, path.display().to_string())),
        Err(error) => {
            let what = if sends { "read" } else { "written" };
            let errno = error.raw_os_error().unwrap_or(0);
            let text = format!("{} cannot be {what} (-F): {error}", path.display());
            Err(Failure { code: code::FILE, errno, text })
        }
    }
}

/// A socket of the peer's family, bound as the origin says, with the options of `parameters` if it is a stream's.
pub(crate) fn open(
    kind: Type,
    peer: &SocketAddr,
    origin: &Origin,
    local_port: u16,
    parameters: Option<&Parameters>,
) -> Result<Socket, Failure> {
    let wrong = |error: io::Error| Failure::system(code::STREAM_CONNECT, &error);
    let socket = Socket::new(Domain::for_address(*peer), kind, None).map_err(wrong)?;
    if let Some(device) = &origin.device {
        socket.bind_device(Some(device.as_bytes())).map_err(|error| {
            Failure::new(143, format!("cannot bind to device {device:?}: {error}; it needs the right to (CAP_NET_RAW)"))
        })?;
    }
    if let Some(parameters) = parameters {
        prepare(&SockRef::from(&socket), parameters, true)?;
    }
    if origin.address.is_some() || local_port > 0 {
        let any: IpAddr = if peer.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let address = origin.address.unwrap_or(any);
        socket.set_reuse_address(true).map_err(wrong)?;
        socket.bind(&SocketAddr::new(address, local_port).into()).map_err(|error| {
            Failure::new(code::STREAM_CONNECT, format!("cannot bind to {address} port {local_port}: {error}"))
        })?;
    }
    Ok(socket)
}

/// Sets what the test asks of a stream's socket. `strict`: the client's own wishes; a server that lacks a congestion control
/// only warns.
pub(crate) fn prepare(socket: &SockRef<'_>, parameters: &Parameters, strict: bool) -> Result<(), Failure> {
    let tcp = parameters.protocol == crate::parameters::Protocol::Tcp;
    if parameters.window > 0 {
        let refused = |error: io::Error| Failure::system(code::BUFFER, &error);
        socket.set_send_buffer_size(parameters.window).map_err(refused)?;
        socket.set_recv_buffer_size(parameters.window).map_err(refused)?;
        let actual = (socket.send_buffer_size().unwrap_or(0), socket.recv_buffer_size().unwrap_or(0));
        if actual.0 < parameters.window || actual.1 < parameters.window {
            let text = format!(
                "socket buffer size not set correctly: {} bytes asked, {} and {} got; raise net.core.wmem_max and \
                 net.core.rmem_max",
                parameters.window, actual.0, actual.1
            );
            return Err(Failure::new(code::BUFFER, text));
        }
    } else if !tcp {
        // Datagrams come in bursts. What the system does not allow is not taken.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
    }
    if tcp {
        if parameters.nodelay {
            socket.set_tcp_nodelay(true).map_err(|error| Failure::system(122, &error))?;
        }
        if parameters.mss > 0 {
            socket.set_tcp_mss(parameters.mss).map_err(|error| Failure::system(123, &error))?;
        }
        if let Some(name) = &parameters.congestion {
            if let Err(error) = socket.set_tcp_congestion(name.as_bytes()) {
                if strict {
                    let text = format!("{name:?} is no congestion control of this system: {error}");
                    return Err(Failure::new(code::CONGESTION, text));
                }
                log::warn!("the client's congestion control is not available here: {error}");
            }
        }
    }
    if parameters.tos > 0 {
        let six = socket.domain().is_ok_and(|domain| domain == Domain::IPV6);
        let set = if six { socket.set_tclass_v6(parameters.tos) } else { socket.set_tos_v4(parameters.tos) };
        set.map_err(|error| Failure::system(125, &error))?;
    }
    if parameters.fq_rate > 0 {
        option(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE, parameters.fq_rate / 8)
            .map_err(|error| Failure::system(140, &error))?;
    }
    if parameters.dont_fragment && !tcp {
        option(socket.as_raw_fd(), libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_DO)
            .map_err(|error| Failure::system(145, &error))?;
    }
    Ok(())
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

/// Lets a socket send with a flow label: the kernel has to be told of it first (`IPV6_FLOWLABEL_MGR`). Returns the peer's address
/// with the label in it, which is what to connect to.
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

/// Room for the datagrams of a burst.
const UDP_BUFFER: usize = 4 << 20;

#[allow(unsafe_code)]
fn option<T: Copy>(fd: i32, level: i32, name: i32, value: T) -> io::Result<()> {
    let length = size_of::<T>() as libc::socklen_t;
    // SAFETY: the pointer and the length name `value`, numbers without gaps between them, which the call only reads.
    let result = unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Calls `call` with the socket behind a stream that nobody closes meanwhile: streams are closed under their test's lock,
/// which the caller holds, or before others know them.
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

/// How a control connection finds out that its peer has vanished: silent for `idle`, then asked every `interval`, and given up
/// after `count` questions without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first question.
    pub idle: Duration,
    /// Between two questions.
    pub interval: Duration,
    /// Questions.
    pub count: u32,
}

impl Default for KeepAlive {
    /// A minute and a half in all; the system's own default is more than two hours.
    fn default() -> Self {
        KeepAlive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 3 }
    }
}

/// A peer that vanished is noticed.
pub(crate) fn keep_alive(stream: &Stream, how: &KeepAlive) {
    let settings = TcpKeepalive::new().with_time(how.idle).with_interval(how.interval).with_retries(how.count);
    let _ = with_socket(stream, |socket| socket.set_tcp_keepalive(&settings));
}

/// Sent data that is not acknowledged for so long breaks the connection (`TCP_USER_TIMEOUT`).
pub(crate) fn send_timeout(stream: &Stream, timeout: Duration) -> io::Result<()> {
    with_socket(stream, |socket| socket.set_tcp_user_timeout(Some(timeout)))
}

/// The process's processor time at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processor {
    at: Instant,
    user: Duration,
    system: Duration,
}

impl Processor {
    #[allow(unsafe_code)]
    pub(crate) fn now() -> Processor {
        let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
        // SAFETY: all zeros is a valid `rusage`, a structure of numbers, and the call writes only to it.
        let usage = unsafe {
            libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr());
            usage.assume_init()
        };
        let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
        Processor { at: Instant::now(), user: time(usage.ru_utime), system: time(usage.ru_stime) }
    }

    /// Percent of one processor from then to now: total, user, system.
    pub(crate) fn percent_since(&self, then: &Processor) -> [f64; 3] {
        let wall = self.at.duration_since(then.at).as_secs_f64().max(1e-6);
        let share = |now: Duration, then: Duration| 100.0 * now.saturating_sub(then).as_secs_f64() / wall;
        let (user, system) = (share(self.user, then.user), share(self.system, then.system));
        [user + system, user, system]
    }
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
    fn only(number: u32) -> io::Result<Processors> {
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

/// All threads of this process run on this processor from now on; those that are started later, too.
///
/// # Errors
///
/// The system's: there is no such processor, or it may not be used.
pub fn use_processor(number: u32) -> io::Result<()> {
    Processors::only(number)?.choose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vanished_peer_is_asked_for_as_often_as_was_said() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port: Port = builder(1, None, None).build().unwrap();
        let stream: Stream = port.associate(socket, ()).unwrap();
        let how = KeepAlive { idle: Duration::from_secs(7), interval: Duration::from_secs(3), count: 2 };
        keep_alive(&stream, &how);
        with_socket(&stream, |socket| {
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), how.idle);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), how.interval);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), how.count);
        });
        assert_eq!(unread_bytes(&stream), 0);
        let (peer, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut &peer, &[1; 10]).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while unread_bytes(&stream) < 10 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
    }

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
        // SAFETY: all zeros is a valid `msghdr`, of numbers and pointers; those that the call follows are set below, to memory of
        // these lengths that lives on.
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
        assert_eq!(u32::from_be(told) & crate::parameters::FLOW_LABEL_MAX, 0xABCDE);
        let four = "127.0.0.1:1".parse().unwrap();
        assert_eq!(label(&socket, four, 7).unwrap_err().code, code::FLOW_LABEL);
        assert_eq!(label(&socket, four, 0).unwrap(), four);
    }

    #[test]
    fn a_file_goes_over_one_tcp_stream_and_must_be_there() {
        let port: Port = builder(1, None, None).build().unwrap();
        let open = |parameters: &Parameters, sends| {
            let path = std::env::temp_dir().join("wharf-perf-there-is-no-such-file");
            open_file(&port, &path, parameters, sends).map(drop).map_err(|failure| failure.code)
        };
        let tcp = Parameters::default();
        assert_eq!(open(&tcp, true), Err(code::FILE));
        assert_eq!(open(&Parameters { parallel: 2, ..tcp.clone() }, true), Err(code::FILE));
        assert_eq!(open(&Parameters { bidirectional: true, ..tcp.clone() }, true), Err(code::FILE));
        let udp = Parameters { protocol: crate::parameters::Protocol::Udp, ..tcp };
        assert_eq!(open(&udp, true), Err(code::FILE_OVER_UDP));
    }
}
