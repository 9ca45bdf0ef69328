//! The systems with kqueue: macOS and its relatives, FreeBSD. A kqueue is a descriptor that can be waited for itself,
//! so one with a single event stands for an event descriptor, a timer descriptor, or a child.
//!
//! Checked by the compiler and by nothing else: see docs/verification.md.

use super::Handle;
use crate::sync::{Lock, Monitor};
use rustix::event::kqueue::{
    Event, EventFilter, EventFlags, ProcessEvents, UserDefinedFlags, UserFlags, kevent, kqueue,
};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketAddrAny, SocketType};
use rustix::process::{Pid, Signal, WaitOptions};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Each kqueue here has one event of each kind.
const IDENT: isize = 1;

fn change(queue: impl AsFd, filter: EventFilter, flags: EventFlags) -> Result<(), Errno> {
    let change = [Event::new(filter, flags, std::ptr::null_mut())];
    let mut none: [Event; 0] = [];
    #[allow(unsafe_code)]
    // SAFETY: the descriptors that are named are open; no event is asked for.
    unsafe { kevent(queue, &change, &mut none[..], None) }.map(drop)
}

/// Takes an event that is there.
fn take(queue: impl AsFd) -> bool {
    let mut room = Vec::with_capacity(1);
    #[allow(unsafe_code)]
    // SAFETY: no descriptor is named.
    let taken = unsafe { kevent(queue, &[], rustix::buffer::spare_capacity(&mut room), Some(Duration::ZERO)) };
    taken.is_ok_and(|count| count > 0)
}

fn made() -> io::Result<OwnedFd> {
    // Children do not inherit a kqueue over fork, but they do over spawn.
    let queue = kqueue()?;
    rustix::io::fcntl_setfd(&queue, rustix::io::FdFlags::CLOEXEC)?;
    Ok(queue)
}

fn raising(flags: UserFlags) -> EventFilter {
    EventFilter::User { ident: IDENT, flags, user_flags: UserDefinedFlags::new(0) }
}

// --- Events and timers that are descriptors ---

/// A descriptor that is readable from `raise` to `lower`.
pub(crate) fn event() -> io::Result<OwnedFd> {
    let queue = made()?;
    change(&queue, raising(UserFlags::NOINPUT), EventFlags::ADD | EventFlags::CLEAR)?;
    Ok(queue)
}

/// Never blocks, and may be called by a signal's handler.
pub(crate) fn raise(event: &OwnedFd) {
    let _ = change(event, raising(UserFlags::TRIGGER), EventFlags::empty());
}

pub(crate) fn lower(event: &OwnedFd) {
    take(event);
}

/// A descriptor that is readable when a time has come.
pub(crate) fn timer() -> io::Result<OwnedFd> {
    made()
}

/// It goes off after that time, whatever was set before; zero: it does not.
pub(crate) fn set_timer(timer: &OwnedFd, after: Duration) {
    let filter = |timer| EventFilter::Timer { ident: IDENT, timer };
    // An expiry that nobody has taken goes with it.
    let _ = change(timer, filter(None), EventFlags::DELETE);
    if !after.is_zero() {
        // Whole milliseconds: what is asked for in less is rounded to seconds.
        let after = Duration::from_millis(u64::try_from(after.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX));
        let _ = change(timer, filter(Some(after)), EventFlags::ADD | EventFlags::ONESHOT);
    }
}

/// Takes the expiry; false when there is none, because somebody took it, or set the timer anew, in between.
pub(crate) fn take_expiry(timer: &OwnedFd) -> bool {
    take(timer)
}

/// A descriptor that is readable while one of these is.
pub(crate) fn either(one: &OwnedFd, other: Option<BorrowedFd<'_>>) -> io::Result<OwnedFd> {
    let queue = made()?;
    for fd in [Some(one.as_fd()), other].into_iter().flatten() {
        change(&queue, EventFilter::Read(fd.as_raw_fd()), EventFlags::ADD)?;
    }
    Ok(queue)
}

/// Bytes of a stream that were sent and not acknowledged (`SO_NWRITE`, `FIONWRITE`).
#[allow(unsafe_code)]
pub(crate) fn unacknowledged(stream: BorrowedFd<'_>) -> Option<u64> {
    let mut bytes: libc::c_int = 0;
    #[cfg(target_vendor = "apple")]
    let told = {
        let mut length = size_of::<libc::c_int>() as libc::socklen_t;
        let (fd, level) = (stream.as_raw_fd(), libc::SOL_SOCKET);
        // SAFETY: the descriptor is open, and the call writes one int, whose size it is told.
        unsafe { libc::getsockopt(fd, level, libc::SO_NWRITE, (&raw mut bytes).cast(), &raw mut length) == 0 }
    };
    #[cfg(not(target_vendor = "apple"))]
    let told = {
        // sys/filio.h: _IOR('f', 119, int).
        const FIONWRITE: libc::c_ulong = 0x4004_6677;
        // SAFETY: the descriptor is open, and the call writes one int, to where the pointer says.
        unsafe { libc::ioctl(stream.as_raw_fd(), FIONWRITE, &raw mut bytes) == 0 }
    };
    told.then_some(u64::try_from(bytes).unwrap_or(0))
}

pub(crate) fn timespec(duration: Duration) -> rustix::time::Timespec {
    rustix::time::Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: duration.subsec_nanos().into(),
    }
}

/// A set of descriptors that is a descriptor itself: not written for these systems.
pub(crate) enum Set {}

impl Set {
    pub(crate) fn new() -> Result<Set, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    pub(crate) fn enter(&self, _fd: BorrowedFd<'_>) -> Result<(), Errno> {
        match *self {}
    }

    pub(crate) fn enter_anew(&self, _fd: BorrowedFd<'_>) {
        match *self {}
    }

    pub(crate) fn leave(&self, _fd: BorrowedFd<'_>) {
        match *self {}
    }

    pub(crate) fn empty(&self) {
        match *self {}
    }

    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        match *self {}
    }
}

// --- Waiting on a word ---

/// A word that one thread sleeps on. The systems' own ways to do so are private or young.
#[derive(Debug, Default)]
pub(crate) struct Word {
    value: AtomicU32,
    asleep: Monitor<()>,
}

impl Word {
    pub(crate) fn load(&self, ordering: Ordering) -> u32 {
        self.value.load(ordering)
    }

    pub(crate) fn store(&self, value: u32, ordering: Ordering) {
        self.value.store(value, ordering);
    }

    /// Wakes the thread that sleeps on it.
    pub(crate) fn wake(&self) {
        // Whoever has looked at the word and not slept yet holds the lock.
        drop(self.asleep.lock());
        self.asleep.notify_one();
    }

    /// Sleeps while it has this value, until it is woken or the time is over, or for less.
    pub(crate) fn sleep(&self, value: u32, timeout: Option<Duration>) {
        let asleep = self.asleep.lock();
        if self.value.load(Ordering::Acquire) != value {
            return;
        }
        drop(self.asleep.wait(asleep, timeout));
    }
}

// --- Sockets and pipes ---

fn prepare(fd: OwnedFd, blocking: bool) -> Result<OwnedFd, Errno> {
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&fd, !blocking)?;
    Ok(fd)
}

/// A socket that children do not inherit, but for one that is started at this very moment.
pub(crate) fn socket(family: AddressFamily, kind: SocketType, blocking: bool) -> Result<OwnedFd, Errno> {
    let socket = prepare(rustix::net::socket(family, kind, None)?, blocking)?;
    without_signal(socket.as_raw_fd());
    Ok(socket)
}

/// Takes a connection, in non-blocking mode.
pub(crate) fn accept(listener: BorrowedFd<'_>) -> Result<(OwnedFd, Option<SocketAddrAny>), Errno> {
    let (socket, peer) = rustix::net::acceptfrom(listener)?;
    let socket = prepare(socket, false)?;
    without_signal(socket.as_raw_fd());
    Ok((socket, peer))
}

/// Whether a socket listens.
#[allow(unsafe_code)]
pub(crate) fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    let (mut listens, mut length): (libc::c_int, _) = (0, size_of::<libc::c_int>() as libc::socklen_t);
    // SAFETY: the room is as large as said.
    let told = unsafe {
        let (socket, value) = (socket.as_fd().as_raw_fd(), (&raw mut listens).cast());
        libc::getsockopt(socket, libc::SOL_SOCKET, libc::SO_ACCEPTCONN, value, &raw mut length)
    };
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        _ if told == 0 => Ok(listens != 0),
        // An older system does not tell; the first accept will.
        Some(libc::ENOPROTOOPT) => Ok(true),
        _ => Err(error),
    }
}

/// Both ends of a pipe, in non-blocking mode.
pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe()?;
    Ok((prepare(reader, false)?, prepare(writer, false)?))
}

/// Flags of a send that raises no signal: the socket was told so. That more follows cannot be said everywhere.
pub(crate) fn send_flags(_more: bool) -> SendFlags {
    SendFlags::DONTWAIT
}

/// Reads from what is no socket without waiting, whatever mode it is in: not offered here.
pub(crate) fn read_now(_from: BorrowedFd<'_>, _into: &mut [IoSliceMut<'_>]) -> Result<usize, Errno> {
    Err(Errno::OPNOTSUPP)
}

/// Writes, as `read_now` reads.
pub(crate) fn write_now(_to: BorrowedFd<'_>, _from: &[IoSlice<'_>]) -> Result<usize, Errno> {
    Err(Errno::OPNOTSUPP)
}

/// Tells a socket that its sends raise no signal.
#[allow(unsafe_code)]
pub(crate) fn without_signal(handle: Handle) {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the value is an int that lives for the length of the call; what is no socket refuses it.
    unsafe { libc::setsockopt(handle, libc::SOL_SOCKET, libc::SO_NOSIGPIPE, (&raw const on).cast(), length) };
}

/// Takes a signal of the set that is pending for the calling thread, if there is one.
#[allow(unsafe_code)]
pub(crate) fn take_pending(signals: &libc::sigset_t) {
    // SAFETY: plain data, for which zeros are valid; the calls read and write what lives here.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        let is_there = libc::sigpending(&raw mut pending) == 0
            && libc::sigismember(&raw const pending, libc::SIGPIPE) == 1
            && libc::sigismember(signals, libc::SIGPIPE) == 1;
        if is_there {
            let mut number = 0;
            libc::sigwait(signals, &raw mut number);
        }
    }
}

/// Sends a file's bytes; raises a signal where the peer is gone and the socket was not told otherwise.
#[allow(unsafe_code)]
pub(crate) fn send_file(to: BorrowedFd<'_>, file: BorrowedFd<'_>, offset: u64, count: usize) -> Result<usize, Errno> {
    let (to, file) = (to.as_raw_fd(), file.as_raw_fd());
    let from = libc::off_t::try_from(offset).unwrap_or(libc::off_t::MAX);
    let mut sent = libc::off_t::try_from(count).unwrap_or(libc::off_t::MAX);
    #[cfg(target_vendor = "apple")]
    // SAFETY: the descriptors are open; the length is read and written; there are no headers.
    let result = unsafe { libc::sendfile(file, to, from, &raw mut sent, std::ptr::null_mut(), 0) };
    #[cfg(not(target_vendor = "apple"))]
    // SAFETY: as above.
    let result = unsafe { libc::sendfile(file, to, from, count, std::ptr::null_mut(), &raw mut sent, 0) };
    let error = io::Error::last_os_error();
    // Both tell of bytes that went before an error; on FreeBSD only the third number does.
    match (result, usize::try_from(sent).unwrap_or(0)) {
        (0, sent) => Ok(sent),
        (_, sent @ 1..) if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => Ok(sent),
        _ => Err(Errno::from_io_error(&error).unwrap_or(Errno::IO)),
    }
}

// --- Datagrams: one at a time ---

/// Flags of a `sendmsg` that raises no signal: datagrams raise none.
pub(crate) const SENDMSG: i32 = 0;

fn no_offload(asked: bool) -> io::Result<()> {
    if asked {
        let what = "only Linux offers offload of datagrams; sends and receives take one each without it";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(())
}

pub(crate) fn set_segment_bytes(_socket: BorrowedFd<'_>, bytes: u16) -> io::Result<()> {
    no_offload(bytes > 0)
}

pub(crate) fn set_receive_offload(_socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    no_offload(on)
}

// --- Children ---

/// Whose end each descriptor of a child tells; nobody's once it was told. An entry stays until its number is used
/// again.
static CHILDREN: Lock<BTreeMap<Handle, Option<Pid>>> = Lock::new(BTreeMap::new());

/// A descriptor that names a child, and is readable when it has ended.
pub(crate) fn child(number: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(number).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
    let queue = made()?;
    change(&queue, raising(UserFlags::NOINPUT), EventFlags::ADD)?;
    match change(&queue, EventFilter::Proc { pid, flags: ProcessEvents::EXIT }, EventFlags::ADD) {
        Ok(()) => {}
        // It has ended already, and waits for somebody to ask.
        Err(Errno::SRCH) => raise(&queue),
        Err(error) => return Err(error.into()),
    }
    CHILDREN.lock().insert(queue.as_raw_fd(), Some(pid));
    Ok(queue)
}

/// How it ended, as `waitpid` puts it; `None` while it has not. Tells it once.
pub(crate) fn exit_status(child: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    let pid = CHILDREN.lock().get(&child.as_raw_fd()).copied().flatten().ok_or(Errno::CHILD)?;
    let Some((_, status)) = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG)? else { return Ok(None) };
    CHILDREN.lock().insert(child.as_raw_fd(), None);
    Ok(Some(status.as_raw()))
}

pub(crate) fn signal(child: BorrowedFd<'_>, signal: Signal) -> Result<(), Errno> {
    // Not collected yet, so the number is still the child's.
    let pid = CHILDREN.lock().get(&child.as_raw_fd()).copied().flatten().ok_or(Errno::SRCH)?;
    rustix::process::kill_process(pid, signal)
}

// --- Files ---

/// Where bytes of a file go.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    At(u64),
    /// Behind the end as it then is.
    End,
}

/// Reads at an offset; `now`: it cannot be said beforehand whether a call waits, so it fails with `EOPNOTSUPP`. Returns
/// as the system call does.
///
/// # Safety
///
/// The pieces may be written until the call returns; the descriptor is open.
#[allow(unsafe_code)]
pub(crate) unsafe fn read_file(handle: Handle, pieces: &[libc::iovec], offset: u64, now: bool) -> isize {
    if now {
        return not_offered();
    }
    // SAFETY: by the contract.
    unsafe { libc::preadv(handle, pieces.as_ptr(), count(pieces), to_offset(offset)) }
}

/// Writes, as `read_file` reads.
///
/// # Safety
///
/// The pieces may be read until the call returns; the descriptor is open.
#[allow(unsafe_code)]
pub(crate) unsafe fn write_file(handle: Handle, pieces: &[libc::iovec], place: Place, now: bool) -> isize {
    /// Appends of this process do not overwrite each other. Those of another one may: there is no call for it.
    static APPENDING: Lock<()> = Lock::new(());
    if now {
        return not_offered();
    }
    let (offset, _appending) = match place {
        Place::At(offset) => (to_offset(offset), None),
        Place::End => {
            let appending = APPENDING.lock();
            // SAFETY: zeros are a value of this plain structure; it lives here, and the descriptor is open.
            let end = unsafe {
                let mut about: libc::stat = std::mem::zeroed();
                if libc::fstat(handle, &raw mut about) != 0 {
                    return -1;
                }
                about.st_size
            };
            (end, Some(appending))
        }
    };
    // SAFETY: by the contract.
    unsafe { libc::pwritev(handle, pieces.as_ptr(), count(pieces), offset) }
}

#[allow(unsafe_code)]
fn not_offered() -> isize {
    // SAFETY: the calling thread's own number.
    unsafe {
        *libc::__error() = libc::EOPNOTSUPP;
    }
    -1
}

fn count(pieces: &[libc::iovec]) -> i32 {
    i32::try_from(pieces.len()).unwrap_or(i32::MAX)
}

/// Offsets beyond the system's were refused when the operation was issued.
fn to_offset(offset: u64) -> libc::off_t {
    libc::off_t::try_from(offset).unwrap_or(libc::off_t::MAX)
}

/// Has a file's bytes written, and what is needed to find them.
pub(crate) fn sync_data(handle: Handle) -> isize {
    sync(handle)
}

/// Has everything about a file written.
#[allow(unsafe_code)]
pub(crate) fn sync(handle: Handle) -> isize {
    // There fsync leaves it in the disk's own cache. Not every file system knows the other.
    #[cfg(target_vendor = "apple")]
    // SAFETY: takes numbers.
    if unsafe { libc::fcntl(handle, libc::F_FULLFSYNC) } == 0 {
        return 0;
    }
    // SAFETY: takes a number.
    unsafe { libc::fsync(handle) as isize }
}

/// Whether a file is open for direct I/O: a flag of the cache, not of the descriptor.
pub(crate) fn is_direct(_flags: OFlags) -> bool {
    false
}

// --- The rest ---

/// The standard input as a descriptor of its own, if it is a terminal: that can be opened anew, so that the shell that
/// shares it is not disturbed by non-blocking mode.
pub(crate) fn standard_input() -> io::Result<OwnedFd> {
    use std::io::IsTerminal;
    if !io::stdin().is_terminal() {
        let what = "here only a terminal can be opened anew; duplicate the descriptor, and associate that";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(rustix::fs::open("/dev/tty", OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?)
}
