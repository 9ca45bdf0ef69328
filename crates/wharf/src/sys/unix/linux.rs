//! Linux, and Android with the same kernel.

use super::Handle;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketFlags, SocketType};
use rustix::process::Signal;
use rustix::thread::futex;
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime};
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Bytes of a stream that were sent and not acknowledged, its end counting as one (`SIOCOUTQ`, tcp(7)); of a Unix
/// socket the memory of what the peer has not read (unix(7)).
#[allow(unsafe_code)]
pub(crate) fn unacknowledged(stream: BorrowedFd<'_>) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open, and the call writes one int, to where the pointer says.
    let told = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) } == 0;
    told.then_some(u64::try_from(bytes).unwrap_or(0))
}

pub(crate) fn timespec(duration: Duration) -> rustix::time::Timespec {
    rustix::time::Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

// --- Events and timers that are descriptors ---

/// A descriptor that is readable from `raise` to `lower`.
pub(crate) fn event() -> io::Result<OwnedFd> {
    Ok(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)
}

/// Never blocks, and may be called by a signal's handler.
pub(crate) fn raise(event: &OwnedFd) {
    // A full counter means that it is raised.
    let _ = rustix::io::write(event, &1u64.to_ne_bytes());
}

pub(crate) fn lower(event: &OwnedFd) {
    let _ = rustix::io::read(event, &mut [0u8; 8]);
}

/// A descriptor that is readable when a time has come.
pub(crate) fn timer() -> io::Result<OwnedFd> {
    Ok(timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?)
}

/// It goes off after that time, whatever was set before; zero: it does not.
pub(crate) fn set_timer(timer: &OwnedFd, after: Duration) {
    let value = Itimerspec { it_interval: timespec(Duration::ZERO), it_value: timespec(after) };
    // Cannot fail with a valid descriptor and a valid time (timerfd_settime(2)).
    let _ = timerfd_settime(timer, TimerfdTimerFlags::empty(), &value);
}

/// Takes the expiry; false when there is none, because somebody took it, or set the timer anew, in between.
pub(crate) fn take_expiry(timer: &OwnedFd) -> bool {
    loop {
        match rustix::io::read(timer, &mut [0u8; 8]) {
            Err(Errno::INTR) => {}
            other => return other.is_ok(),
        }
    }
}

/// A descriptor that is readable while one of these is.
pub(crate) fn either(one: &OwnedFd, other: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let both = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&both, one, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    if let Some(other) = other {
        epoll::add(&both, other, epoll::EventData::new_u64(1), epoll::EventFlags::IN)?;
    }
    Ok(both)
}

/// A set of descriptors that is a descriptor itself: readable since something has happened to one of them.
pub(crate) struct Set(OwnedFd);

impl Set {
    const EVENTS: usize = 64;

    pub(crate) fn new() -> Result<Set, Errno> {
        epoll::create(epoll::CreateFlags::CLOEXEC).map(Set)
    }

    fn everything() -> epoll::EventFlags {
        use epoll::EventFlags;
        EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET
    }

    /// What there is already counts.
    pub(crate) fn enter(&self, fd: BorrowedFd<'_>) -> Result<(), Errno> {
        epoll::add(&self.0, fd, epoll::EventData::new_u64(0), Set::everything())
    }

    /// What there is counts again.
    pub(crate) fn enter_anew(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::modify(&self.0, fd, epoll::EventData::new_u64(0), Set::everything());
    }

    pub(crate) fn leave(&self, fd: BorrowedFd<'_>) {
        let _ = epoll::delete(&self.0, fd);
    }

    /// What has happened so far counts no more.
    pub(crate) fn empty(&self) {
        let mut events = [const { std::mem::MaybeUninit::<epoll::Event>::uninit() }; Set::EVENTS];
        loop {
            match epoll::wait(&self.0, &mut events, Some(&timespec(Duration::ZERO))) {
                Err(Errno::INTR) => {}
                Ok((told, _)) if told.len() == Set::EVENTS => {}
                _ => return,
            }
        }
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

// --- Waiting on a word ---

/// A word that one thread sleeps on.
#[derive(Debug, Default)]
pub(crate) struct Word(AtomicU32);

impl Word {
    #[inline]
    pub(crate) fn load(&self, ordering: Ordering) -> u32 {
        self.0.load(ordering)
    }

    #[inline]
    pub(crate) fn store(&self, value: u32, ordering: Ordering) {
        self.0.store(value, ordering);
    }

    /// Wakes the thread that sleeps on it.
    #[inline]
    pub(crate) fn wake(&self) {
        let _ = futex::wake(&self.0, futex::Flags::PRIVATE, 1);
    }

    /// Sleeps while it has this value, until it is woken or the time is over, or for less.
    #[inline]
    pub(crate) fn sleep(&self, value: u32, timeout: Option<Duration>) {
        let timeout = timeout.map(timespec);
        // EAGAIN: the word changed. EINTR: a signal handler ran. ETIMEDOUT: the caller looks at the clock.
        let _ = futex::wait(&self.0, futex::Flags::PRIVATE, value, timeout.as_ref());
    }
}

// --- Sockets and pipes ---

/// A socket that children do not inherit.
pub(crate) fn socket(family: AddressFamily, kind: SocketType, blocking: bool) -> Result<OwnedFd, Errno> {
    let flags = if blocking { SocketFlags::CLOEXEC } else { SocketFlags::CLOEXEC | SocketFlags::NONBLOCK };
    rustix::net::socket_with(family, kind, flags, None)
}

/// Takes a connection, in non-blocking mode.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
    rustix::net::acceptfrom_with(listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK)
}

/// Whether a socket listens.
pub(crate) fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    Ok(rustix::net::sockopt::socket_acceptconn(socket)?)
}

/// Both ends of a pipe, in non-blocking mode.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    use rustix::pipe::{PipeFlags, pipe_with};
    Ok(pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?)
}

/// Flags of a send that does not wait and raises no signal; `more` follows soon.
#[inline]
pub(crate) fn send_flags(more: bool) -> SendFlags {
    let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
    if more { flags | SendFlags::MORE } else { flags }
}

// With offsets of 64 bits also where those of the plain names have 32.
#[cfg(not(target_env = "gnu"))]
use libc::{preadv2, pwritev2};
#[cfg(target_env = "gnu")]
use libc::{preadv64v2 as preadv2, pwritev64v2 as pwritev2};

/// The offset of a transfer that goes on where the last one ended, as those of pipes do.
const NO_OFFSET: libc::off64_t = -1;

/// Reads from what is no socket without waiting, whatever mode it is in; `EOPNOTSUPP` where it does not offer that:
/// pipes before Linux 6.4, terminals.
#[allow(unsafe_code)]
pub(crate) fn read_now(from: BorrowedFd<'_>, into: &mut [IoSliceMut<'_>]) -> Result<usize, Errno> {
    let count = i32::try_from(into.len()).unwrap_or(i32::MAX);
    // SAFETY: the slices are laid out as iovec, as std promises, and stay borrowed until the call returns.
    moved_now(unsafe { preadv2(from.as_raw_fd(), into.as_mut_ptr().cast(), count, NO_OFFSET, libc::RWF_NOWAIT) })
}

/// Writes, as `read_now` reads.
#[allow(unsafe_code)]
pub(crate) fn write_now(to: BorrowedFd<'_>, from: &[IoSlice<'_>]) -> Result<usize, Errno> {
    let count = i32::try_from(from.len()).unwrap_or(i32::MAX);
    // SAFETY: as above; the memory is only read.
    moved_now(unsafe { pwritev2(to.as_raw_fd(), from.as_ptr().cast(), count, NO_OFFSET, libc::RWF_NOWAIT) })
}

/// What a call that moves bytes without waiting came to. Nothing may come between it and this: the error is in `errno`.
fn moved_now(moved: isize) -> Result<usize, Errno> {
    usize::try_from(moved).map_err(|_| match std::io::Error::last_os_error().raw_os_error() {
        Some(libc::ENOSYS) | None => Errno::OPNOTSUPP,
        Some(error) => Errno::from_raw_os_error(error),
    })
}

/// What a socket needs to be told so that its sends raise no signal: nothing, the flags do.
#[inline]
pub(crate) fn without_signal(_handle: Handle) {}

/// Takes a signal of the set that is pending for the calling thread, if there is one.
#[allow(unsafe_code)]
pub(crate) fn take_pending(signals: &libc::sigset_t) {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: reads the set and the time, which live here.
    unsafe { libc::sigtimedwait(signals, std::ptr::null_mut(), &raw const now) };
}

/// Sends a file's bytes; raises a signal where the peer is gone.
pub(crate) fn send_file(to: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, count: usize) -> Result<usize, Errno> {
    let mut offset = offset;
    rustix::fs::sendfile(to, file, Some(&mut offset), count)
}

// --- Datagrams ---

/// Segmentation offload of a socket; 0 ends it.
pub(crate) fn set_segment_bytes(socket: BorrowedFd<'_>, bytes: u16) -> io::Result<()> {
    set_datagram_option(socket, libc::UDP_SEGMENT, i32::from(bytes))
}

/// Receive offload of a socket.
pub(crate) fn set_receive_offload(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    set_datagram_option(socket, libc::UDP_GRO, i32::from(on))
}

#[allow(unsafe_code)]
fn set_datagram_option(socket: BorrowedFd<'_>, option: i32, value: i32) -> io::Result<()> {
    let (from, length) = (std::ptr::from_ref(&value).cast(), size_of_val(&value) as libc::socklen_t);
    // SAFETY: the value is an int that lives for the length of the call, and the descriptor is open.
    let set = unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, option, from, length) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Flags of a `sendmsg` that raises no signal.
pub(crate) const SENDMSG: i32 = libc::MSG_NOSIGNAL;

// --- Children ---
// By number: not every C library of the kernel has these calls by name.

fn result(returned: libc::c_long) -> Result<libc::c_long, Errno> {
    if returned >= 0 {
        Ok(returned)
    } else {
        Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO))
    }
}

/// A descriptor that names a child, and is readable when it has ended.
#[allow(unsafe_code)]
pub(crate) fn child(number: u32) -> io::Result<OwnedFd> {
    let flags = OFlags::NONBLOCK.bits();
    // SAFETY: takes numbers; the descriptor that comes back is open, not inherited by children, and nobody else's.
    unsafe {
        let opened = result(libc::syscall(libc::SYS_pidfd_open, number, flags))?;
        Ok(OwnedFd::from_raw_fd(Handle::try_from(opened).unwrap_or(-1)))
    }
}

/// How it ended, as `waitpid` puts it; `None` while it has not. Tells it once.
#[allow(unsafe_code)]
pub(crate) fn exit_status(child: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    /// That the number is a descriptor's (waitid(2)).
    const P_PIDFD: libc::idtype_t = 3;
    let child = child.as_raw_fd().cast_unsigned();
    // SAFETY: zeros are a value of this plain structure, which is ours to be written; its fields are those of a child.
    let (process, code, status) = unsafe {
        let mut about: libc::siginfo_t = std::mem::zeroed();
        let waited = libc::waitid(P_PIDFD, child, &raw mut about, libc::WEXITED | libc::WNOHANG);
        result(waited.into())?;
        (about.si_pid(), about.si_code, about.si_status())
    };
    Ok((process != 0).then_some(match code {
        // The exit code in the second byte, or the signal, with a bit for a core file.
        libc::CLD_EXITED => (status & 0xff) << 8,
        libc::CLD_DUMPED => status | 0x80,
        _ => status,
    }))
}

#[allow(unsafe_code)]
pub(crate) fn signal(child: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    let about = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: takes numbers, and nothing about the signal but these.
    result(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, child.as_raw_fd(), signal.as_raw(), about, 0) })
        .map(drop)
}

// --- Files ---

/// Where bytes of a file go.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    At(u64),
    /// Behind the end as it then is.
    End,
}

/// Reads at an offset; `now`: fails with `EAGAIN` instead of waiting for the disk, and with `EOPNOTSUPP` where the file
/// system cannot. Returns as the system call does.
///
/// # Safety
///
/// The pieces may be written until the call returns; the descriptor is open.
#[allow(unsafe_code)]
pub(crate) unsafe fn read_file(handle: Handle, pieces: &[libc::iovec], offset: u64, now: bool) -> isize {
    let flags = if now { libc::RWF_NOWAIT } else { 0 };
    // SAFETY: by the contract.
    unsafe { preadv2(handle, pieces.as_ptr(), count(pieces), to_offset(offset), flags) }
}

/// Writes, as `read_file` reads.
///
/// # Safety
///
/// The pieces may be read until the call returns; the descriptor is open.
#[allow(unsafe_code)]
pub(crate) unsafe fn write_file(handle: Handle, pieces: &[libc::iovec], place: Place, now: bool) -> isize {
    let flags = if now { libc::RWF_NOWAIT } else { 0 };
    let (offset, flags) = match place {
        Place::At(offset) => (offset, flags),
        Place::End => (0, flags | libc::RWF_APPEND),
    };
    // SAFETY: by the contract.
    unsafe { pwritev2(handle, pieces.as_ptr(), count(pieces), to_offset(offset), flags) }
}

fn count(pieces: &[libc::iovec]) -> i32 {
    i32::try_from(pieces.len()).unwrap_or(i32::MAX)
}

/// Offsets beyond the system's were refused when the operation was issued.
fn to_offset(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// Has a file's bytes written, and what is needed to find them.
#[allow(unsafe_code)]
pub(crate) fn sync_data(handle: Handle) -> isize {
    // SAFETY: takes a number.
    unsafe { libc::fdatasync(handle) as isize }
}

/// Has everything about a file written.
#[allow(unsafe_code)]
pub(crate) fn sync(handle: Handle) -> isize {
    // SAFETY: takes a number.
    unsafe { libc::fsync(handle) as isize }
}

/// Whether a file is open for direct I/O.
pub(crate) fn is_direct(flags: OFlags) -> bool {
    flags.contains(OFlags::DIRECT)
}

// --- The rest ---

/// The standard input as a descriptor of its own. Non-blocking mode belongs to what several processes share, so the
/// terminal or pipe is opened anew: the shell that shares it is not disturbed.
pub(crate) fn standard_input() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open("/proc/self/fd/0", OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}
