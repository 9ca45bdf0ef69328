//! Sockets before they become devices of the port, and the care for control connections.

use super::port::Stream;
use super::system;
use crate::protocol::parameters::{Parameters, Protocol};
use crate::protocol::{Failure, code};
use socket2::{Domain, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Room for the datagrams of a burst.
const UDP_BUFFER: usize = 4 << 20;

/// Where sockets of this end come from.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// The local address.
    pub address: Option<IpAddr>,
    /// The network device.
    pub device: Option<String>,
}

/// A socket of the peer's family, bound as the origin says, with the options of `parameters` if it is a stream's.
pub(crate) fn open(
    kind: Type,
    peer: &SocketAddr,
    origin: &Origin,
    local_port: u16,
    parameters: Option<&Parameters>,
) -> Result<Socket, Failure> {
    let wrong = |error: io::Error| Failure::system(code::STREAM_CONNECT, &error);
    let socket = Socket::new(Domain::for_address(*peer), kind, None).map_err(wrong)?;
    if let Some(device) = &origin.device {
        system::bind_device(&socket, device)
            .map_err(|error| Failure::new(143, format!("cannot bind to device {device:?}: {error}")))?;
    }
    if let Some(parameters) = parameters {
        prepare(&SockRef::from(&socket), parameters, true)?;
    }
    if origin.address.is_some() || local_port > 0 {
        let any: IpAddr = if peer.is_ipv4() { [0; 4].into() } else { [0_u16; 8].into() };
        let address = origin.address.unwrap_or(any);
        system::reuse_address(&socket).map_err(wrong)?;
        socket.bind(&SocketAddr::new(address, local_port).into()).map_err(|error| {
            Failure::new(code::STREAM_CONNECT, format!("cannot bind to {address} port {local_port}: {error}"))
        })?;
    }
    Ok(socket)
}

/// Sets what the test asks of a stream's socket. `strict`: the client's own wishes; a server that lacks a congestion
/// control only warns.
pub(crate) fn prepare(socket: &SockRef<'_>, parameters: &Parameters, strict: bool) -> Result<(), Failure> {
    let tcp = parameters.protocol == Protocol::Tcp;
    if parameters.window > 0 {
        let refused = |error: io::Error| Failure::system(code::BUFFER, &error);
        socket.set_send_buffer_size(parameters.window).map_err(refused)?;
        socket.set_recv_buffer_size(parameters.window).map_err(refused)?;
        let actual = (socket.send_buffer_size().unwrap_or(0), socket.recv_buffer_size().unwrap_or(0));
        if actual.0 < parameters.window || actual.1 < parameters.window {
            let text = format!(
                "socket buffer size not set correctly: {} bytes asked, {} and {} got; {}",
                parameters.window,
                actual.0,
                actual.1,
                system::MORE_BUFFER
            );
            return Err(Failure::new(code::BUFFER, text));
        }
    } else if !tcp {
        // Datagrams come in bursts. What the system does not allow is not taken.
        let _ = socket.set_recv_buffer_size(UDP_BUFFER);
        let _ = socket.set_send_buffer_size(UDP_BUFFER);
    }
    if tcp {
        if parameters.nodelay {
            socket.set_tcp_nodelay(true).map_err(|error| Failure::system(122, &error))?;
        }
        if parameters.mss > 0 {
            system::set_segment_bytes(socket, parameters.mss).map_err(|error| Failure::system(123, &error))?;
        }
        if let Some(name) = &parameters.congestion {
            if let Err(error) = system::set_congestion(socket, name) {
                if strict {
                    let text = format!("{name:?} is no congestion control of this system: {error}");
                    return Err(Failure::new(code::CONGESTION, text));
                }
                log::warn!("the client's congestion control is not available here: {error}");
            }
        }
    }
    if parameters.tos > 0 {
        system::set_tos(socket, parameters.tos).map_err(|error| Failure::system(125, &error))?;
    }
    if parameters.fq_rate > 0 {
        system::set_pacing(socket, parameters.fq_rate / 8).map_err(|error| Failure::system(140, &error))?;
    }
    if parameters.dont_fragment && !tcp {
        system::forbid_fragments(socket).map_err(|error| Failure::system(145, &error))?;
    }
    Ok(())
}

/// How a control connection finds out that its peer has vanished: silent for `idle`, then asked every `interval`, and
/// given up after `count` questions without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAlive {
    /// Silence before the first question.
    pub idle: Duration,
    /// Between two questions.
    pub interval: Duration,
    /// Questions.
    pub count: u32,
}

impl Default for KeepAlive {
    /// A minute and a half in all; the system's own default is more than two hours.
    fn default() -> Self {
        KeepAlive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 3 }
    }
}

/// A peer that vanished is noticed.
pub(crate) fn keep_alive(stream: &Stream, how: &KeepAlive) {
    let settings = TcpKeepalive::new().with_time(how.idle).with_interval(how.interval).with_retries(how.count);
    let _ = system::with_socket(stream, |socket| socket.set_tcp_keepalive(&settings));
}

#[cfg(test)]
mod tests {
    use super::super::machinery::Machinery;
    use super::super::port::Port;
    use super::*;
    use std::time::Instant;

    #[test]
    fn a_vanished_peer_is_asked_for_as_often_as_was_said() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let socket = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port: Port = Machinery::default().port().unwrap();
        let stream: Stream = port.associate(socket, ()).unwrap();
        let how = KeepAlive { idle: Duration::from_secs(7), interval: Duration::from_secs(3), count: 2 };
        keep_alive(&stream, &how);
        system::with_socket(&stream, |socket| {
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), how.idle);
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), how.interval);
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), how.count);
        });
        assert_eq!(system::unread_bytes(&stream), 0);
        let (peer, _) = listener.accept().unwrap();
        std::io::Write::write_all(&mut &peer, &[1; 10]).unwrap();
        let until = Instant::now() + Duration::from_secs(60);
        while system::unread_bytes(&stream) < 10 {
            assert!(Instant::now() < until);
            std::thread::yield_now();
        }
    }
}
