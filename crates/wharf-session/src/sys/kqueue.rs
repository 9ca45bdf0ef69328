//! macOS and its relatives, FreeBSD.

use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use std::io;
use std::os::unix::net::{SocketAddr, UnixStream};

/// The clock in milliseconds. A coarse one that is cheaper is not to be had everywhere.
pub(crate) fn coarse_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
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

/// A Unix stream socket in non-blocking mode. A child that is started at this very moment inherits it.
pub(crate) fn local_socket() -> Result<OwnedFd, Errno> {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

/// A name of a Unix socket that is no path: only Linux has them.
pub(crate) fn abstract_name(_name: &[u8]) -> Result<SocketAddrUnix, Errno> {
    Err(Errno::OPNOTSUPP)
}

/// The abstract name of an address: it has none.
pub(crate) fn abstract_name_of(_address: &SocketAddr) -> Option<&[u8]> {
    None
}

/// Process, user and group at the other end. Where the system does not tell the process it is 0.
#[allow(unsafe_code)]
pub(crate) fn credentials(socket: &UnixStream) -> Option<[u32; 3]> {
    let socket = socket.as_raw_fd();
    let (mut user, mut group) = (0, 0);
    // SAFETY: both numbers are ours to be written.
    if unsafe { libc::getpeereid(socket, &raw mut user, &raw mut group) } != 0 {
        return None;
    }
    #[cfg(target_vendor = "apple")]
    let process = {
        let mut process: libc::pid_t = 0;
        let mut length = size_of_val(&process) as libc::socklen_t;
        // SAFETY: the room is as large as said.
        let told = unsafe {
            let value = (&raw mut process).cast();
            libc::getsockopt(socket, libc::SOL_LOCAL, libc::LOCAL_PEERPID, value, &raw mut length)
        };
        if told == 0 { process.unsigned_abs() } else { 0 }
    };
    #[cfg(not(target_vendor = "apple"))]
    let process = 0;
    Some([process, user, group])
}
