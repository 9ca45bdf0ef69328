//! The server's sockets: the listener, the one that hears hellos, and those of datagram streams.

use super::options::Options;
use crate::protocol::parameters::Parameters;
use crate::protocol::{Failure, code};
use crate::surroundings::{socket, system};
use socket2::{Domain, SockRef, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};

const BACKLOG: i32 = 4096;

/// A socket of the server that is going to be bound to this address: each goes over the device that was asked for.
fn socket_for(options: &Options, address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(options.family == Some(6))?;
    }
    if let Some(device) = &options.device {
        system::bind_device(&socket, device)?;
    }
    system::reuse_address(&socket)?;
    Ok(socket)
}

/// The listener, at the address that was asked for.
pub(super) fn listen(options: &Options) -> io::Result<TcpListener> {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, options.port));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.port));
    let candidates = match (options.address, options.family) {
        (Some(address), _) => vec![SocketAddr::new(address, options.port)],
        (None, Some(4)) => vec![v4],
        (None, Some(6)) => vec![v6],
        // Both at once, unless the machine has no IPv6.
        (None, _) => vec![v6, v4],
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in candidates {
        let made = (|| {
            let socket = socket_for(options, address, Type::STREAM)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok::<_, io::Error>(socket)
        })();
        match made {
            Ok(socket) => return Ok(socket.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Where hellos arrive.
pub(super) fn hellos(options: &Options, address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket_for(options, address, Type::DGRAM)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// A socket of its own for a datagram stream, between these two addresses.
pub(super) fn datagram_stream(
    options: &Options,
    parameters: &Parameters,
    local: SocketAddr,
    peer: SocketAddr,
) -> Result<UdpSocket, Failure> {
    let wrong = |error: io::Error| Failure::system(code::STREAM_CREATE, &error);
    let socket = socket_for(options, local, Type::DGRAM).map_err(wrong)?;
    socket::prepare(&SockRef::from(&socket), parameters, false)?;
    socket.bind(&local.into()).map_err(wrong)?;
    socket.connect(&peer.into()).map_err(wrong)?;
    Ok(socket.into())
}

/// Whether the system gives sockets buffers of this size: tried before a stream is there, so that the client hears in
/// time.
pub(super) fn try_buffers(window: usize) -> Result<(), Failure> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None);
    let socket = socket.map_err(|error| Failure::system(code::BUFFER, &error))?;
    let only = Parameters { window, ..Parameters::default() };
    socket::prepare(&SockRef::from(&socket), &only, false)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn each_socket_of_the_server_goes_over_the_device_that_was_asked_for() {
        let options = Options { device: Some("lo".into()), ..Options::default() };
        for kind in [Type::STREAM, Type::DGRAM] {
            let socket = socket_for(&options, (Ipv4Addr::LOCALHOST, 0).into(), kind).unwrap();
            assert_eq!(socket.device().unwrap().as_deref(), Some(&b"lo"[..]), "{kind:?}");
        }
    }
}
