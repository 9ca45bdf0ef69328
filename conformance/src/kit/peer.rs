//! The other ends of the ports' sockets: std's, or those of the fake network. A row names what it needs here, and runs
//! unchanged on both.

use super::{Bench, DEADLINE, Port, Stream, adopt, pair, small_buffers};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener as StdListener, TcpStream as StdStream, UdpSocket as StdUdp};
use std::time::Duration;
use wharf::raw;

/// The other end of a connection. Reads and writes wait for so long as they may take, [`DEADLINE`] at first.
pub enum Peer {
    Std(StdStream),
    #[cfg(unix)]
    Fake(wharf::fake::Peer),
}

impl Peer {
    pub fn try_clone(&self) -> io::Result<Peer> {
        Ok(match self {
            Peer::Std(peer) => Peer::Std(peer.try_clone()?),
            #[cfg(unix)]
            Peer::Fake(peer) => Peer::Fake(peer.clone()),
        })
    }

    pub fn set_read_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        match self {
            Peer::Std(peer) => peer.set_read_timeout(limit),
            #[cfg(unix)]
            Peer::Fake(peer) => {
                peer.set_time_out(limit);
                Ok(())
            }
        }
    }

    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        match self {
            Peer::Std(peer) => peer.shutdown(how),
            #[cfg(unix)]
            Peer::Fake(peer) => {
                peer.shutdown(how);
                Ok(())
            }
        }
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Peer::Std(peer) => peer.local_addr(),
            #[cfg(unix)]
            Peer::Fake(peer) => peer.local_addr(),
        }
    }

    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Peer::Std(peer) => peer.peer_addr(),
            #[cfg(unix)]
            Peer::Fake(peer) => peer.peer_addr(),
        }
    }

    /// The system's socket, if it is one.
    pub fn std(self) -> Option<StdStream> {
        match self {
            Peer::Std(peer) => Some(peer),
            #[cfg(unix)]
            Peer::Fake(_) => None,
        }
    }

    /// Closing it will be a reset.
    pub fn reset_when_closed(&self) {
        match self {
            Peer::Std(peer) => _ = rustix::net::sockopt::set_socket_linger(peer, Some(Duration::ZERO)),
            #[cfg(unix)]
            Peer::Fake(peer) => peer.reset_when_closed(),
        }
    }
}

impl Read for &Peer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Peer::Std(peer) => (&mut &*peer).read(into),
            #[cfg(unix)]
            Peer::Fake(peer) => (&mut &*peer).read(into),
        }
    }
}

impl Write for &Peer {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        match self {
            Peer::Std(peer) => (&mut &*peer).write(from),
            #[cfg(unix)]
            Peer::Fake(peer) => (&mut &*peer).write(from),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Read for Peer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        (&mut &*self).read(into)
    }
}

impl Write for Peer {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        (&mut &*self).write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Ends a connection by a reset.
pub fn reset(peer: Peer) {
    peer.reset_when_closed();
}

/// A peer that listens.
pub enum Listener {
    Std(StdListener),
    #[cfg(unix)]
    Fake(wharf::fake::Listener),
}

impl Listener {
    pub fn local_addr(&self) -> SocketAddr {
        match self {
            Listener::Std(listener) => listener.local_addr().unwrap(),
            #[cfg(unix)]
            Listener::Fake(listener) => listener.local_addr(),
        }
    }

    /// The next one that has connected.
    #[track_caller]
    pub fn accept(&self) -> Peer {
        match self {
            Listener::Std(listener) => limited(listener.accept().unwrap().0),
            #[cfg(unix)]
            Listener::Fake(listener) => limited_fake(listener.accept(DEADLINE).expect("somebody connects").0),
        }
    }

    /// The next one that has connected, if there is one.
    pub fn try_accept(&self) -> Option<Peer> {
        match self {
            Listener::Std(listener) => {
                listener.set_nonblocking(true).unwrap();
                match listener.accept() {
                    Ok((peer, _)) => Some(Peer::Std(peer)),
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::WouldBlock);
                        None
                    }
                }
            }
            #[cfg(unix)]
            Listener::Fake(listener) => listener.accept(Duration::ZERO).map(|(peer, _)| Peer::Fake(peer)),
        }
    }
}

/// A listener that answers no further connection: its backlog is full, so the system drops what comes.
pub struct Deaf {
    pub listener: Listener,
    pub address: SocketAddr,
    _waiting: Vec<StdStream>,
}

/// A peer that sends and receives datagrams.
pub enum Mail {
    Std(StdUdp),
    #[cfg(unix)]
    Fake(wharf::fake::Mail),
}

impl Mail {
    pub fn local_addr(&self) -> SocketAddr {
        match self {
            Mail::Std(socket) => socket.local_addr().unwrap(),
            #[cfg(unix)]
            Mail::Fake(mail) => mail.local_addr(),
        }
    }

    /// It may get lost.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) {
        match self {
            Mail::Std(socket) => _ = socket.send_to(bytes, to),
            #[cfg(unix)]
            Mail::Fake(mail) => mail.send_to(bytes, to),
        }
    }

    /// How long a receive waits; [`DEADLINE`] at first.
    pub fn set_time_out(&self, limit: Duration) {
        match self {
            Mail::Std(socket) => socket.set_read_timeout(Some(limit)).unwrap(),
            #[cfg(unix)]
            Mail::Fake(_) => {}
        }
    }

    /// The next datagram, if one is there or comes soon.
    pub fn try_receive(&self) -> Option<Vec<u8>> {
        match self {
            Mail::Std(socket) => {
                let mut bytes = vec![0; 65_536];
                let got = socket.recv(&mut bytes).ok()?;
                bytes.truncate(got);
                Some(bytes)
            }
            #[cfg(unix)]
            Mail::Fake(mail) => mail.receive(super::WHILE).map(|(bytes, _)| bytes),
        }
    }

    #[track_caller]
    pub fn receive(&self) -> Vec<u8> {
        match self {
            Mail::Std(socket) => {
                let mut bytes = vec![0; 65_536];
                let got = socket.recv(&mut bytes).unwrap();
                bytes.truncate(got);
                bytes
            }
            #[cfg(unix)]
            Mail::Fake(mail) => mail.receive(DEADLINE).expect("a datagram comes").0,
        }
    }
}

fn limited(end: StdStream) -> Peer {
    end.set_read_timeout(Some(DEADLINE)).unwrap();
    end.set_write_timeout(Some(DEADLINE)).unwrap();
    Peer::Std(end)
}

#[cfg(unix)]
fn limited_fake(end: wharf::fake::Peer) -> Peer {
    end.set_time_out(Some(DEADLINE));
    Peer::Fake(end)
}

/// What each side of a narrow stream takes, as with `small_buffers`.
#[cfg(unix)]
const NARROW: usize = 64 * 1024;

impl Bench {
    /// A socket for a port, and its peer.
    pub fn pair(&self) -> (StdStream, Peer) {
        #[cfg(unix)]
        if let Some(network) = &self.network {
            let (server, peer) = network.pair(None).unwrap();
            return (server, limited_fake(peer));
        }
        let (server, client) = pair();
        (server, Peer::Std(client))
    }

    /// Both ends of a connection, for ports.
    pub fn both(&self) -> (StdStream, StdStream) {
        #[cfg(unix)]
        if let Some(network) = &self.network {
            return network.both().unwrap();
        }
        pair()
    }

    /// A stream of the port under `key`, and its peer.
    pub fn stream(&self, port: &Port, key: u64) -> (Stream, Peer) {
        let (server, client) = self.pair();
        (port.associate(server, key).unwrap(), client)
    }

    /// A stream whose peer reads nothing by itself, with so little room that megabytes do not fit.
    pub fn narrow(&self, port: &Port, key: u64) -> (Stream, Peer) {
        #[cfg(unix)]
        if let Some(network) = &self.network {
            let (server, peer) = network.pair(Some(NARROW)).unwrap();
            return (port.associate(server, key).unwrap(), limited_fake(peer));
        }
        let (server, client) = pair();
        small_buffers([&server, &client]);
        (port.associate(server, key).unwrap(), Peer::Std(client))
    }

    /// A connected stream of a raw port under `key`.
    pub fn raw_stream(&self, port: &raw::Port, key: usize) -> (raw::Device, Peer) {
        let (server, client) = self.pair();
        (adopt(port, server, key), client)
    }

    /// Connects to a port's listener.
    pub fn connect(&self, to: SocketAddr) -> io::Result<Peer> {
        #[cfg(unix)]
        if let Some(network) = &self.network {
            return network.connect(to).map(limited_fake);
        }
        StdStream::connect(to).map(limited)
    }

    /// A peer that listens.
    pub fn listener(&self) -> Listener {
        #[cfg(unix)]
        if let Some(network) = &self.network {
            return Listener::Fake(network.listener(false).unwrap());
        }
        Listener::Std(StdListener::bind("127.0.0.1:0").unwrap())
    }

    pub fn deaf(&self) -> Deaf {
        use rustix::net::{AddressFamily, SocketType, bind, listen, socket};
        #[cfg(unix)]
        if let Some(network) = &self.network {
            let listener = network.listener(true).unwrap();
            return Deaf { address: listener.local_addr(), listener: Listener::Fake(listener), _waiting: Vec::new() };
        }
        let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        listen(&socket, 0).unwrap();
        let listener = StdListener::from(socket);
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(one) = StdStream::connect_timeout(&address, Duration::from_millis(200)) {
            waiting.push(one);
            assert!(waiting.len() < 16, "the backlog never fills");
        }
        Deaf { listener: Listener::Std(listener), address, _waiting: waiting }
    }

    /// A peer that sends and receives datagrams.
    pub fn mail(&self) -> Mail {
        #[cfg(unix)]
        if let Some(network) = &self.network {
            return Mail::Fake(network.mail().unwrap());
        }
        let socket = StdUdp::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Mail::Std(socket)
    }
}
