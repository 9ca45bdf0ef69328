//! The system's calls on sockets and pipes, without blocking, for all Unixes.
//!
//! Non-blocking mode belongs to the open file description, which every duplicate of a descriptor shares, those of other
//! processes too. So no call relies on the mode that was set when the device was associated (row O-24): calls on
//! sockets have a flag of their own (`MSG_DONTWAIT`), and so have those on pipes (`RWF_NOWAIT`). `accept`, `connect`
//! and `sendfile` have none. Before each of them the mode is set anew, and a listener is looked at. Both are needed:
//! another process that listens may take the connection that the look has found, and another holder may set the mode
//! back. What is left is a holder that does one while another does the other, both between two system calls of this
//! thread.

use super::{Calls, Handle, PIECES_MAX, Pieces, datagram};
use crate::op::{Datagram, RawBuffer};
use crate::sys;
use crate::sys::errno::{ECONNRESET, EINVAL, ENOSYS, EOPNOTSUPP, EPERM};
use rustix::event::{PollFd, PollFlags};
use rustix::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SocketType, sockopt};
use rustix::time::Timespec;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

/// As many pieces are listed on the stack.
const PIECES_FEW: usize = 64;

#[allow(unsafe_code)]
pub(crate) fn borrow<'a>(handle: Handle) -> BorrowedFd<'a> {
    // SAFETY: a call on a device's descriptor is made by the owner of one of its directions, or by a counted user of
    // the descriptor (`DeviceState::enter`), or before anybody else knows the device. Closing a device makes such
    // owners users (`DeviceState::lend_to_owners`), and the last user closes the descriptor: it is open for the length
    // of the call.
    unsafe { BorrowedFd::borrow_raw(handle) }
}

/// The number is a descriptor's.
#[allow(unsafe_code)]
pub(crate) fn is_open(handle: Handle) -> Result<(), i32> {
    // SAFETY: only asks, by number.
    if unsafe { libc::fcntl(handle, libc::F_GETFD) } < 0 { Err(Errno::BADF.raw_os_error()) } else { Ok(()) }
}

fn retry<T>(mut call: impl FnMut() -> Result<T, Errno>) -> Result<T, i32> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            other => return other.map_err(Errno::raw_os_error),
        }
    }
}

/// Runs a call that raises SIGPIPE where the peer is gone, and has no flag against it.
#[allow(unsafe_code)]
fn without_sigpipe<T>(call: impl FnOnce() -> Result<T, i32>) -> Result<T, i32> {
    // SAFETY: plain data, for which zeros are valid; the calls below fill it in.
    let (mut disposition, mut pipe, mut before): (libc::sigaction, libc::sigset_t, libc::sigset_t) =
        unsafe { std::mem::zeroed() };
    // SAFETY: only asks, into a place of our own.
    let ignored = unsafe { libc::sigaction(libc::SIGPIPE, std::ptr::null(), &raw mut disposition) } == 0
        && disposition.sa_sigaction == libc::SIG_IGN;
    if ignored {
        // So it is in Rust's programs, unless they change it.
        return call();
    }
    // SAFETY: the sets are our own. The signal is blocked in this thread only, and a raised one goes to this thread.
    let blocked = unsafe {
        libc::sigemptyset(&raw mut pipe);
        libc::sigaddset(&raw mut pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const pipe, &raw mut before) == 0
    };
    let was_pending = is_pending(libc::SIGPIPE);
    let result = call();
    if blocked {
        // Whatever the result: some bytes may have been taken before.
        if !was_pending {
            sys::take_pending(&pipe);
        }
        // SAFETY: as above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut()) };
    }
    result
}

#[allow(unsafe_code)]
fn is_pending(signal: i32) -> bool {
    // SAFETY: plain data, for which zeros are valid, and a place of our own to write to.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&raw mut pending) == 0 && libc::sigismember(&raw const pending, signal) == 1
    }
}

#[allow(unsafe_code)]
fn writable<'a>(piece: &RawBuffer) -> &'a mut [MaybeUninit<u8>] {
    // SAFETY: the issuer of a receive promised that these bytes are valid for writing and the operation's alone until
    // its packet (see `raw`); one worker executes an operation at a time, and the slice lives for one system call.
    unsafe { std::slice::from_raw_parts_mut(piece.pointer.cast(), piece.length) }
}

#[allow(unsafe_code)]
fn readable<'a>(piece: &RawBuffer) -> &'a [u8] {
    // SAFETY: the issuer of a send promised that these bytes are initialised, valid for reading and unchanged until
    // its packet (see `raw`); the slice lives for one system call.
    unsafe { std::slice::from_raw_parts(piece.pointer, piece.length) }
}

/// Puts a descriptor into non-blocking mode. What has no mode (an event of its own kind) does not block either.
fn no_waiting(handle: Handle) {
    let _ = rustix::io::ioctl_fionbio(borrow(handle), true);
}

/// Reads the file and sends what was read: what it has in its cache, or what makes no disk wait.
fn send_file_by_hand(handle: Handle, file: Handle, offset: u64, count: usize) -> Result<usize, i32> {
    const BYTES: usize = 64 * 1024;
    let mut bytes = vec![0; count.min(BYTES)];
    let read = retry(|| rustix::io::pread(borrow(file), &mut bytes, offset))?;
    if read == 0 {
        return Ok(0);
    }
    System.send(handle, &[RawBuffer { pointer: bytes.as_mut_ptr(), length: read }], false)
}

fn send_file_by_system(handle: Handle, file: Handle, offset: u64, count: usize) -> Result<usize, i32> {
    // Unlike `send` it has no flags: neither for the mode nor for the signal.
    no_waiting(handle);
    without_sigpipe(|| retry(|| sys::send_file(borrow(handle), borrow(file), offset, count)))
}

#[allow(unsafe_code)]
fn initialised<'a>(piece: &RawBuffer) -> &'a mut [u8] {
    // SAFETY: as in `writable`; the kernel only writes through the slice, nothing here reads what may be
    // uninitialised, and u8 has no invalid values.
    unsafe { std::slice::from_raw_parts_mut(piece.pointer, piece.length) }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct System;

impl Calls for System {
    fn open_stream(&self, peer: &SocketAddr) -> Result<Handle, i32> {
        let family = if peer.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        sys::socket(family, SocketType::STREAM, false).map(IntoRawFd::into_raw_fd).map_err(Errno::raw_os_error)
    }

    #[inline]
    fn receive(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32> {
        let fd = borrow(handle);
        if let [piece] = into {
            let space = writable(piece);
            return retry(|| rustix::net::recv(fd, &mut *space, RecvFlags::DONTWAIT).map(|(got, _)| got.0.len()));
        }
        let mut pieces: Vec<IoSliceMut<'_>> =
            into.iter().take(PIECES_MAX).map(|piece| IoSliceMut::new(initialised(piece))).collect();
        let mut beside = RecvAncillaryBuffer::default();
        retry(|| rustix::net::recvmsg(fd, &mut pieces, &mut beside, RecvFlags::DONTWAIT).map(|got| got.bytes))
    }

    fn receive_flagged(&self, handle: Handle, into: &[RawBuffer], urgent: bool, stays: bool) -> Result<usize, i32> {
        let mut flags = RecvFlags::DONTWAIT;
        flags.set(RecvFlags::OOB, urgent);
        flags.set(RecvFlags::PEEK, stays);
        let mut pieces: Vec<IoSliceMut<'_>> =
            into.iter().take(PIECES_MAX).map(|piece| IoSliceMut::new(initialised(piece))).collect();
        let mut beside = RecvAncillaryBuffer::default();
        retry(|| rustix::net::recvmsg(borrow(handle), &mut pieces, &mut beside, flags).map(|got| got.bytes))
    }

    fn peek(&self, handle: Handle) -> Result<(), i32> {
        let mut byte = [MaybeUninit::<u8>::uninit()];
        retry(|| rustix::net::recv(borrow(handle), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT).map(drop))
    }

    #[inline]
    fn send(&self, handle: Handle, from: &[RawBuffer], more: bool) -> Result<usize, i32> {
        let flags = sys::send_flags(more);
        let fd = borrow(handle);
        if let [piece] = from {
            let bytes = readable(piece);
            return retry(|| rustix::net::send(fd, bytes, flags));
        }
        if from.len() > PIECES_FEW {
            let pieces: Vec<IoSlice<'_>> =
                from.iter().take(PIECES_MAX).map(|piece| IoSlice::new(readable(piece))).collect();
            return retry(|| rustix::net::sendmsg(fd, &pieces, &mut SendAncillaryBuffer::default(), flags));
        }
        let mut pieces = [const { MaybeUninit::<IoSlice<'_>>::uninit() }; PIECES_FEW];
        let count = from.len();
        for (slot, piece) in pieces.iter_mut().zip(from) {
            slot.write(IoSlice::new(readable(piece)));
        }
        #[allow(unsafe_code)]
        // SAFETY: the first `count` slots were written just above; MaybeUninit<T> has the layout of T.
        let pieces: &[IoSlice<'_>] = unsafe { std::slice::from_raw_parts(pieces.as_ptr().cast(), count) };
        retry(|| rustix::net::sendmsg(fd, pieces, &mut SendAncillaryBuffer::default(), flags))
    }

    fn send_file(&self, handle: Handle, file: Handle, offset: u64, count: u64) -> Result<usize, i32> {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match send_file_by_system(handle, file, offset, count) {
            // The file system does not offer it (some of /proc), or a filter of system calls denies it.
            Err(EINVAL | ENOSYS | EPERM) => send_file_by_hand(handle, file, offset, count),
            result => result,
        }
    }

    fn read(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32> {
        let mut pieces: Vec<IoSliceMut<'_>> =
            into.iter().take(PIECES_MAX).map(|piece| IoSliceMut::new(initialised(piece))).collect();
        match retry(|| sys::read_now(borrow(handle), &mut pieces)) {
            Err(EOPNOTSUPP) => {
                self.is_readable(handle)?;
                no_waiting(handle);
                retry(|| rustix::io::readv(borrow(handle), &mut pieces))
            }
            result => result,
        }
    }

    fn write(&self, handle: Handle, from: &[RawBuffer]) -> Result<usize, i32> {
        let pieces: Vec<IoSlice<'_>> =
            from.iter().take(PIECES_MAX).map(|piece| IoSlice::new(readable(piece))).collect();
        without_sigpipe(|| match retry(|| sys::write_now(borrow(handle), &pieces)) {
            Err(EOPNOTSUPP) => {
                no_waiting(handle);
                retry(|| rustix::io::writev(borrow(handle), &pieces))
            }
            result => result,
        })
    }

    fn is_readable(&self, handle: Handle) -> Result<(), i32> {
        let handle = borrow(handle);
        let mut polled = [PollFd::new(&handle, PollFlags::IN)];
        match retry(|| rustix::event::poll(&mut polled, Some(&Timespec::default())))? {
            0 => Err(Errno::AGAIN.raw_os_error()),
            _ => Ok(()),
        }
    }

    fn exit_status(&self, handle: Handle) -> Result<i32, i32> {
        retry(|| sys::exit_status(borrow(handle)))?.ok_or(Errno::AGAIN.raw_os_error())
    }

    fn receive_from(&self, handle: Handle, into: &[RawBuffer]) -> Result<Datagram, i32> {
        datagram::receive(handle, into)
    }

    fn send_to(&self, handle: Handle, from: &[RawBuffer], to: Option<&SocketAddr>) -> Result<(), i32> {
        datagram::send(handle, from, to)
    }

    fn receive_many(&self, handle: Handle, into: &Pieces, found: &mut Vec<Datagram>) -> Result<(), i32> {
        datagram::receive_many(handle, into, found)
    }

    fn send_many(&self, handle: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32> {
        datagram::send_many(handle, from, to)
    }

    fn keep_refusals(&self, handle: Handle, keep: bool) -> Result<(), i32> {
        datagram::keep_refusals(handle, keep)
    }

    fn refusal(&self, handle: Handle) -> Result<(i32, Option<SocketAddr>), i32> {
        datagram::refusal(handle)
    }

    fn has_peer(&self, handle: Handle) -> bool {
        datagram::has_peer(handle)
    }

    fn is_bound(&self, handle: Handle) -> bool {
        let own = rustix::net::getsockname(borrow(handle)).ok().and_then(|own| SocketAddr::try_from(own).ok());
        // Another kind of socket: not ours to judge.
        own.is_none_or(|own| own.port() != 0)
    }

    fn unacknowledged(&self, handle: Handle) -> Option<u64> {
        sys::unacknowledged(borrow(handle))
    }

    fn is_broken(&self, handle: Handle) -> bool {
        let fd = borrow(handle);
        let mut ready = [PollFd::new(&fd, PollFlags::empty())];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        // What cannot be asked is not there any more.
        rustix::event::poll(&mut ready, Some(&now)).is_err() || ready[0].revents().contains(PollFlags::ERR)
    }

    fn reset_when_closed(&self, handle: Handle) {
        let _ = sockopt::set_socket_linger(borrow(handle), Some(Duration::ZERO));
    }

    fn accept(&self, handle: Handle) -> Result<(Handle, Option<SocketAddr>), i32> {
        self.is_readable(handle)?;
        no_waiting(handle);
        let (fd, peer) = retry(|| sys::accept(borrow(handle)))?;
        // Another kind of address is that of a Unix socket.
        Ok((fd.into_raw_fd(), peer.and_then(|peer| SocketAddr::try_from(peer).ok())))
    }

    fn connect(&self, handle: Handle, peer: &SocketAddr) -> Result<(), i32> {
        no_waiting(handle);
        let mut result = rustix::net::connect(borrow(handle), peer);
        if result == Err(Errno::CONNABORTED) {
            // What is left of an earlier attempt that failed, reported once; the socket is good again.
            result = rustix::net::connect(borrow(handle), peer);
        }
        // Not retried: after EINTR the connection goes on in the background (connect(2)).
        match result {
            Err(Errno::INTR) => Err(Errno::INPROGRESS.raw_os_error()),
            Err(Errno::PIPE) => Err(ECONNRESET),
            other => other.map_err(Errno::raw_os_error),
        }
    }

    fn connect_result(&self, handle: Handle) -> Result<(), i32> {
        let fd = borrow(handle);
        match sockopt::socket_error(fd) {
            // A connect that the peer refuses is told `ECONNREFUSED`. So these are of a connection that was made: a
            // reset, and a reset behind the end of the stream.
            Ok(Err(Errno::CONNRESET | Errno::PIPE)) => return Err(ECONNRESET),
            Ok(Err(error)) | Err(error) => return Err(error.raw_os_error()),
            Ok(Ok(())) => {}
        }
        match rustix::net::getpeername(fd) {
            Ok(_) => Ok(()),
            Err(Errno::NOTCONN) => Err(Errno::AGAIN.raw_os_error()),
            Err(error) => Err(error.raw_os_error()),
        }
    }

    fn abort_connect(&self, handle: Handle) {
        // Connecting to "no address" dissolves what there is (connect(2)).
        let _ = rustix::net::connect_unspec(borrow(handle));
    }

    fn shutdown(&self, handle: Handle, how: Shutdown) -> Result<(), i32> {
        let how = match how {
            Shutdown::Read => rustix::net::Shutdown::Read,
            Shutdown::Write => rustix::net::Shutdown::Write,
            Shutdown::Both => rustix::net::Shutdown::Both,
        };
        rustix::net::shutdown(borrow(handle), how).map_err(Errno::raw_os_error)
    }

    #[allow(unsafe_code)]
    fn close(&self, handle: Handle) {
        // With a time of zero it resets the connection, which is meant. What is no socket has none.
        if let Ok(Some(1..)) = sockopt::socket_linger(borrow(handle)).map(|time| time.map(|time| time.as_secs())) {
            // All that the time does is to have the closing thread wait, in non-blocking mode, too.
            let _ = sockopt::set_socket_linger(borrow(handle), None);
        }
        // SAFETY: the device gives its descriptor away here, once, with no call on it under way: the last user does so
        // (`DeviceState::leave`).
        drop(unsafe { OwnedFd::from_raw_fd(handle) });
    }

    #[allow(unsafe_code)]
    fn close_copy(&self, handle: Handle) {
        // SAFETY: the child's copy is the device's, which gives it away here, once (`DeviceState::close_copy`); no
        // thread of the child makes calls on it.
        drop(unsafe { OwnedFd::from_raw_fd(handle) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::errno::EAGAIN;
    use rustix::fd::AsRawFd;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_listener_in_blocking_mode_is_looked_at_and_put_right_before_it_accepts() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let handle = listener.as_raw_fd();
        let blocks = || !rustix::fs::fcntl_getfl(&listener).unwrap().contains(rustix::fs::OFlags::NONBLOCK);
        assert_eq!(System.accept(handle), Err(EAGAIN), "nobody has connected, and the call does not wait");
        listener.set_nonblocking(false).unwrap();
        let _peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        System.close(System.accept(handle).unwrap().0);
        assert!(!blocks(), "another process that takes the connection in between leaves an accept that does not wait");
    }
}
