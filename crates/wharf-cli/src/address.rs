//! Addresses as they are given on the command line, and what is said about one that is of no use.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};

/// What an address begins with that is the path of a Unix socket.
pub const UNIX: &str = "unix:";

/// It never leaves the machine.
pub const NO_TLS: &str = "a Unix socket has no use for TLS; leave out what begins with --tls";

/// `what`: what the address is for.
pub fn resolve(address: &str, what: &str) -> Result<Vec<SocketAddr>, String> {
    address.to_socket_addrs().map(Iterator::collect).map_err(|error| {
        format!("{address:?} is not an address to {what} ({error}); give ADDRESS:PORT, such as 127.0.0.1:25000")
    })
}

/// `place`: where another one can be given.
pub fn cannot_listen(address: &str, error: &io::Error, place: &str) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => &format!("another program listens there; end it, or choose another port{place}"),
        io::ErrorKind::PermissionDenied => &format!("ports below 1024 need privileges; choose a higher one{place}"),
        io::ErrorKind::AddrNotAvailable => "it is not an address of this machine; 0.0.0.0 stands for all of them",
        _ => &format!("choose another address{place}"),
    };
    format!("cannot listen on {address}: {error}; {remedy}")
}
