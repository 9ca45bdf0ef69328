//! Linux, and Android with the same kernel.

use rustix::fd::{AsFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::io;
use std::os::unix::net::{SocketAddr, UnixStream};

/// The system's coarse clock in milliseconds: its reading costs next to nothing, and it moves 100 to 1000 times a
/// second.
pub(crate) fn coarse_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    now.tv_sec.unsigned_abs() * 1000 + now.tv_nsec.unsigned_abs() / 1_000_000
}

/// Whether a socket listens.
pub(crate) fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    Ok(sockopt::socket_acceptconn(socket)?)
}

/// A Unix stream socket in non-blocking mode, which children do not inherit.
pub(crate) fn local_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// A name of a Unix socket that is no path.
pub(crate) fn abstract_name(name: &[u8]) -> Result<SocketAddrUnix, Errno> {
    SocketAddrUnix::new_abstract_name(name)
}

/// The abstract name of an address, if it has one.
pub(crate) fn abstract_name_of(address: &SocketAddr) -> Option<&[u8]> {
    #[cfg(target_os = "android")]
    use std::os::android::net::SocketAddrExt;
    #[cfg(target_os = "linux")]
    use std::os::linux::net::SocketAddrExt;
    address.as_abstract_name()
}

/// Process, user and group at the other end.
pub(crate) fn credentials(socket: &UnixStream) -> Option<[u32; 3]> {
    let who = sockopt::socket_peercred(socket).ok()?;
    Some([who.pid.as_raw_nonzero().get().unsigned_abs(), who.uid.as_raw(), who.gid.as_raw()])
}
