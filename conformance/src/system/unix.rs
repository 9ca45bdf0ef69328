//! What all Unixes have.

use std::io;
use std::os::unix::net::UnixStream;

/// One end of a pair of sockets.
pub type Socket = UnixStream;

/// Two sockets that are connected with each other.
pub fn pair() -> io::Result<(Socket, Socket)> {
    UnixStream::pair()
}

/// Descriptors that the process has open.
pub fn descriptors() -> io::Result<usize> {
    Ok(std::fs::read_dir("/dev/fd")?.count())
}

/// Only a Windows can be Wine.
pub fn is_wine() -> bool {
    false
}
