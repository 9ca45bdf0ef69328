//! Sockets in states that tests need and std does not make.

use std::net::{SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
use std::time::Duration;

/// Closes the connection with a reset instead of an end of stream.
pub fn reset(peer: StdStream) {
    rustix::net::sockopt::set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
}

/// An address at which nobody listens.
pub fn dead_address() -> SocketAddr {
    // Bound but not listening: connecting is refused, and nobody else gets the number while the test runs.
    use std::sync::OnceLock;
    static BOUND: OnceLock<(rustix::fd::OwnedFd, SocketAddr)> = OnceLock::new();
    BOUND
        .get_or_init(|| {
            use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
            // On Windows std's first socket starts what sockets need.
            drop(StdListener::bind("127.0.0.1:0"));
            let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
            bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            let address = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
            (socket, address)
        })
        .1
}
