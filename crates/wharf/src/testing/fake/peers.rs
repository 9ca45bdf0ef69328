//! The other ends of the fake network's connections: peers, as a program would be that uses std's sockets.

use super::network::Shared;
use super::{Connection, Net, Readiness};
use crate::sync::Lock;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener as StdListener, TcpStream as StdStream, UdpSocket as StdUdp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a peer waits before it looks again: the network wakes it, but for what is done past the port.
const LOOK: Duration = Duration::from_millis(5);

impl Connection {
    pub(super) fn unread_sent(&self) -> usize {
        self.sent.len() - self.read
    }

    /// Up to `most` of what was sent and not read yet.
    pub(super) fn read_sent(&mut self, most: usize) -> Vec<u8> {
        let bytes = self.sent[self.read..][..self.unread_sent().min(most)].to_vec();
        self.read += bytes.len();
        if self.read == self.sent.len() {
            self.sent.clear();
            self.read = 0;
        }
        bytes
    }
}

impl Shared {
    /// Waits until `look` has something; with a time-out, no longer.
    fn wait<R>(&self, limit: Option<Duration>, mut look: impl FnMut(&mut Net) -> Option<R>) -> Option<R> {
        let until = limit.map(|limit| Instant::now() + limit);
        let mut net = self.fake.net.lock();
        loop {
            if let Some(found) = look(&mut net) {
                return Some(found);
            }
            if until.is_some_and(|at| at <= Instant::now()) {
                return None;
            }
            net = self.fake.net.wait(net, Some(LOOK));
        }
    }
}

/// The other end of a port's connection: reads and writes like a std socket in blocking mode, and closes the connection
/// when its last clone is dropped.
#[derive(Clone)]
pub struct Peer(Arc<End>);

struct End {
    network: Arc<Shared>,
    connection: usize,
    room: usize,
    /// The name's other end: it has the addresses, and what the port's side does past the port.
    name: StdStream,
    time_out: Lock<Option<Duration>>,
    hard: AtomicBool,
}

impl std::fmt::Debug for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Peer").field(&self.0.connection).finish()
    }
}

fn reset() -> io::Error {
    io::Error::from_raw_os_error(crate::sys::errno::ECONNRESET)
}

impl Peer {
    pub(super) fn new(network: Arc<Shared>, connection: usize, room: usize, name: StdStream) -> io::Result<Peer> {
        name.set_nonblocking(true)?;
        let (time_out, hard) = (Lock::new(None), AtomicBool::new(false));
        Ok(Peer(Arc::new(End { network, connection, room, name, time_out, hard })))
    }

    /// A read or write that takes longer fails as `WouldBlock`; of all clones.
    pub fn set_time_out(&self, limit: Option<Duration>) {
        *self.0.time_out.lock() = limit;
    }

    /// Closing it resets the connection.
    pub fn reset_when_closed(&self) {
        self.0.hard.store(true, Ordering::Release);
    }

    /// Shuts one side or both: the port's side sees the end.
    pub fn shutdown(&self, how: Shutdown) {
        if how != Shutdown::Read {
            self.0.network.fake.peer_finishes(self.0.connection);
        }
    }

    /// This end's address.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.name.local_addr()
    }

    /// The port's end's address.
    ///
    /// # Errors
    ///
    /// The system's: the connection is broken off.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.name.peer_addr()
    }
}

impl Read for &Peer {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let End { network, connection, name, time_out, .. } = &*self.0;
        let limit = *time_out.lock();
        let mut name = name;
        let found = network.wait(limit, |net| {
            let one = &mut net.connections[*connection];
            if one.unread_sent() > 0 {
                let bytes = one.read_sent(into.len());
                into[..bytes.len()].copy_from_slice(&bytes);
                net.space(*connection);
                return Some(Ok(bytes.len()));
            }
            if one.broken || one.reset {
                return Some(Err(reset()));
            }
            if one.shut || one.closed {
                return Some(Ok(0));
            }
            match name.read(into) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => None,
                other => Some(other),
            }
        });
        network.fake.wake();
        found.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
    }
}

impl Write for &Peer {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        let End { network, connection, room, time_out, .. } = &*self.0;
        let limit = *time_out.lock();
        let written = network.wait(limit, |net| {
            let one = &mut net.connections[*connection];
            if one.finished || one.reset || one.closed {
                return Some(Err(ErrorKind::BrokenPipe.into()));
            }
            let free = room.saturating_sub(usize::try_from(one.unread()).unwrap_or(usize::MAX));
            let bytes = from.len().min(free);
            if bytes == 0 && !from.is_empty() {
                return None;
            }
            one.given.extend(&from[..bytes]);
            one.written += bytes as u64;
            net.arrival(*connection, Readiness::RECEIVE);
            Some(Ok(bytes))
        });
        network.fake.wake();
        written.unwrap_or_else(|| Err(ErrorKind::WouldBlock.into()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut net = self.network.fake.net.lock();
        let one = &mut net.connections[self.connection];
        one.gone = true;
        // As a kernel does: what its program did not read is answered by a reset.
        if self.hard.load(Ordering::Acquire) || one.unread_sent() > 0 {
            net.reset(self.connection, false);
        } else if !one.finished && !one.reset && !one.closed {
            one.finished = true;
            net.arrival(self.connection, Readiness::RECEIVE);
        }
        drop(net);
        self.network.fake.wake();
    }
}

/// Those who have connected to a listening peer.
pub(super) struct Waiting {
    pub(super) name: StdListener,
    /// Somebody has asked for who is there: a deaf one answers from now on.
    asked: AtomicBool,
    connected: Lock<VecDeque<(Peer, SocketAddr)>>,
}

impl Waiting {
    pub(super) fn new(name: StdListener) -> Waiting {
        Waiting { name, asked: AtomicBool::new(false), connected: Lock::default() }
    }

    pub(super) fn push(&self, peer: Peer, from: SocketAddr) {
        self.connected.lock().push_back((peer, from));
    }
}

/// A peer that listens.
pub struct Listener {
    network: Arc<Shared>,
    address: SocketAddr,
    waiting: Arc<Waiting>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Listener").field(&self.address).finish()
    }
}

impl Listener {
    pub(super) fn new(network: Arc<Shared>, address: SocketAddr, waiting: Arc<Waiting>) -> Listener {
        Listener { network, address, waiting }
    }

    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes the next one that has connected, from where; `None` when nobody comes within this time.
    pub fn accept(&self, limit: Duration) -> Option<(Peer, SocketAddr)> {
        if self.waiting.asked.swap(true, Ordering::AcqRel) {
            self.network.answer(self.address, &self.waiting);
        }
        self.network.wait(Some(limit), |_| self.waiting.connected.lock().pop_front())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.network.forget(self.address, false);
    }
}

/// Datagrams that wait for a correspondent.
#[derive(Default)]
pub(super) struct Letters(Lock<VecDeque<(Vec<u8>, SocketAddr)>>);

impl Letters {
    pub(super) fn push(&self, bytes: Vec<u8>, from: SocketAddr) {
        self.0.lock().push_back((bytes, from));
    }
}

/// A peer that sends and receives datagrams.
pub struct Mail {
    network: Arc<Shared>,
    /// Has the address, and receives nothing.
    _name: StdUdp,
    address: SocketAddr,
    letters: Arc<Letters>,
}

impl std::fmt::Debug for Mail {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Mail").field(&self.address).finish()
    }
}

impl Mail {
    pub(super) fn new(network: Arc<Shared>, name: StdUdp, address: SocketAddr, letters: Arc<Letters>) -> Mail {
        Mail { network, _name: name, address, letters }
    }

    /// Its address.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Sends one datagram; nobody need be there.
    pub fn send_to(&self, bytes: &[u8], to: SocketAddr) {
        self.network.post(self.address, to, bytes.to_vec());
    }

    /// Takes the next datagram, and who sent it; `None` when none comes within this time.
    pub fn receive(&self, limit: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        self.network.wait(Some(limit), |_| self.letters.0.lock().pop_front())
    }
}

impl Drop for Mail {
    fn drop(&mut self) {
        self.network.forget(self.address, true);
    }
}
