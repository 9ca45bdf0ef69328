//! Listening sockets that the program was started with: the convention is systemd's, and Windows has none like it.

use std::io;
use std::net::TcpListener;

/// A listening socket that the program was started with: see [`inherited`].
#[derive(Debug)]
pub struct Inherited {
    /// What it is called.
    pub name: String,
    /// The socket.
    pub socket: InheritedSocket,
}

/// What it is.
#[derive(Debug)]
#[non_exhaustive]
pub enum InheritedSocket {
    /// For [`Service::adopt_listener`](crate::Service::adopt_listener).
    Tcp(TcpListener),
}

/// The listening sockets that the program was started with: none on Windows.
pub fn inherited() -> io::Result<Vec<Inherited>> {
    Ok(Vec::new())
}
