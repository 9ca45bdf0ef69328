//! TCP: listeners and streams.

use super::{Addresses, adopt_socket};
use crate::op::buffer::Buffer;
#[cfg(unix)]
use crate::port::associate::adopt;
use crate::port::associate::{Associate, Outcome, Route, Shared, device, refusal};
use crate::port::packet::{Event, Packet};
use crate::port::record::Memory;
use crate::port::refused::{Refused, Rejected};
use crate::port::{Context, Key};
use crate::raw::{Buffers, DeviceKind, ReceiveFlags, Sink, TrySend};
use crate::sys::{self, Owned};
use rustix::net::sockopt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

/// Connections that may wait to be accepted; the system has a limit of its own (`net.core.somaxconn`, 4096).
const BACKLOG: i32 = 4096;

/// A listening socket of a port, for TCP or for Unix sockets. Clones name the same device.
pub struct Listener<K, C>(pub(crate) Arc<Shared<K, C>>);

/// A stream of a port: a TCP connection, a Unix socket, one end of a pipe, a terminal. Clones name the same device.
///
/// Any number of operations may be outstanding, in both directions. It is closed by [`close`](Stream::close) or when
/// its last handle is dropped; an outstanding operation holds a handle.
///
/// ```
/// use std::io::{Read, Write};
/// use wharf::{Buffer, CompletionPort, Event};
/// let port = CompletionPort::<(), ()>::new()?;
/// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let mut peer = std::net::TcpStream::connect(listener.local_addr()?)?;
/// let stream = port.associate(listener.accept()?.0, ())?;
///
/// peer.write_all(b"question")?;
/// stream.recv(Buffer::with_capacity(100), ())?;
/// let Event::Received { stream, buffer, result: Ok(8) } = port.get()?.event else { panic!() };
/// assert_eq!(&buffer[..], b"question");
/// stream.send("answer", ())?;
/// assert!(matches!(port.get()?.event, Event::Sent { result: Ok(6), .. }));
/// let mut answer = [0; 6];
/// peer.read_exact(&mut answer)?;
/// # assert_eq!(&answer, b"answer");
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Stream<K, C>(pub(crate) Arc<Shared<K, C>>);

device!(Listener);
socket!(Listener, std::net::TcpListener);
device!(Stream);
socket!(Stream, std::net::TcpStream);

impl<K: Key, C: Context> Associate<K, C> for std::net::TcpListener {
    type Device = Listener<K, C>;

    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Listener<K, C>, Rejected<Self, K>> {
        match sys::is_listening(&self) {
            Ok(true) => {}
            Ok(false) => {
                let error =
                    io::Error::new(io::ErrorKind::InvalidInput, "the socket does not listen; call listen first");
                return Err(Rejected { error, source: self, key });
            }
            Err(error) => return Err(Rejected { error, source: self, key }),
        }
        adopt_socket(route, self, DeviceKind::Listener, key).map(Listener)
    }
}

impl<K: Key, C: Context> Associate<K, C> for std::net::TcpStream {
    type Device = Stream<K, C>;

    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Stream<K, C>, Rejected<Self, K>> {
        match self.peer_addr() {
            // Reset since it was accepted: what came before can still be received, and then the reset (row R-21).
            Err(error) if error.kind() == io::ErrorKind::NotConnected && has_port(&self) => {}
            Err(error) => return Err(Rejected { error, source: self, key }),
            Ok(_) => {}
        }
        adopt_socket(route, self, DeviceKind::Stream, key).map(Stream)
    }

    #[cfg(unix)]
    fn associate_accepted(self, route: &Route<'_, K, C>, key: K) -> Result<Stream<K, C>, Rejected<Self, K>> {
        // It is connected, and in non-blocking mode.
        adopt(route, self, DeviceKind::Stream, key).map(Stream)
    }
}

/// A socket that was never connected has no local port, unless it was bound by hand.
fn has_port(socket: &std::net::TcpStream) -> bool {
    socket.local_addr().is_ok_and(|address| address.port() != 0)
}

pub(crate) fn listen(address: impl Addresses) -> io::Result<std::net::TcpListener> {
    let mut listened = Err(io::ErrorKind::InvalidInput.into());
    for address in address.addresses()? {
        listened = sys::listen(&address, BACKLOG);
        if listened.is_ok() {
            break;
        }
    }
    listened
}

impl<K: Key, C: Context> Listener<K, C> {
    /// Accepts a connection that waits now, if one does, without a packet: what is returned is what an accept's packet
    /// brings, [`Event::Accepted`], or [`Event::AcceptedLocal`] of a Unix socket. For whoever is about to close the
    /// listener: clients whose connection the system has made already would be reset.
    ///
    /// Accepts that are outstanding and have not completed do not count: what they wait for is taken here first.
    ///
    /// # Platform notes
    ///
    /// On Windows no connection is seen.
    pub fn accept_now(&self) -> Option<Event<K, C>> {
        let shared = &self.0;
        let accepted = shared.port.0.accept_now(&shared.device.0)?;
        #[allow(unsafe_code)]
        // SAFETY: the handle was just made for this connection, and is nobody else's.
        let event = unsafe {
            let listener = self.clone();
            match accepted.peer {
                Some(peer) => Event::Accepted { listener, result: Ok((Owned::from_handle(accepted.handle), peer)) },
                None => Event::AcceptedLocal { listener, result: Ok(Owned::from_handle(accepted.handle)) },
            }
        };
        Some(event)
    }

    /// Issues an accept: its packet ([`Event::Accepted`](crate::Event::Accepted)) brings a connection. Several may be
    /// outstanding; they are served in the order of issue.
    ///
    /// While the process has no free descriptor the operation waits: it goes on within 100 ms of one being free.
    ///
    /// # Errors
    ///
    /// The listener or the port is closed; the context comes back.
    #[doc(alias = "AcceptEx")]
    pub fn accept(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| shared.port.accept(&shared.device, token, Sink::Port))
    }
}

impl<K: Key, C: Context> Stream<K, C> {
    /// A stream that is not connected yet, of the peer's address family; see [`connect`](Stream::connect).
    fn open(route: &Route<'_, K, C>, peer: &SocketAddr, key: K) -> io::Result<Stream<K, C>> {
        let port = route.port;
        let device = port.open_stream(peer, 0).map_err(|error| refusal(port, error))?;
        Ok(Stream(Shared::new(route, device, key)))
    }

    /// See [`CompletionPort::connect`](crate::CompletionPort::connect).
    pub(crate) fn connecting(
        route: &Route<'_, K, C>,
        peer: SocketAddr,
        key: K,
        context: C,
    ) -> Result<Stream<K, C>, Refused<C, ()>> {
        match Stream::open(route, &peer, key) {
            Ok(stream) => match stream.connect(peer, context) {
                Ok(_) => Ok(stream),
                Err(refused) => Err(refused),
            },
            Err(error) => Err(Refused { error, context, buffer: () }),
        }
    }

    /// A stream of a socket that is not connected yet.
    pub(crate) fn unconnected(
        route: &Route<'_, K, C>,
        socket: std::net::TcpStream,
        key: K,
    ) -> io::Result<Stream<K, C>> {
        let port = route.port;
        socket.set_nonblocking(true)?;
        let device = port.adopt_unconnected(socket, 0).map_err(|(error, _)| refusal(port, error))?;
        Ok(Stream(Shared::new(route, device, key)))
    }

    /// Issues a connect of a stream whose last connect failed: see
    /// [`CompletionPort::connect`](crate::CompletionPort::connect).
    #[doc(alias = "ConnectEx")]
    pub fn connect(&self, peer: SocketAddr, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| shared.port.connect(&shared.device, &peer, token, Sink::Port))
    }

    /// The other end's address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.with_fd(|fd| match rustix::net::getpeername(fd)? {
            Some(peer) => Ok(SocketAddr::try_from(peer)?),
            None => Err(io::ErrorKind::NotConnected.into()),
        })
    }

    /// Sends small pieces at once instead of waiting for more (`TCP_NODELAY`).
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.0.with_fd(|fd| Ok(sockopt::set_tcp_nodelay(fd, on)?))
    }

    /// Issues a receive into a buffer, from its start up to its capacity. It completes as soon as at least one byte,
    /// or the end of the stream, is there.
    ///
    /// A buffer without capacity waits for data and takes none, as [`readable`](Stream::readable) does, and its packet
    /// is that of `readable`: [`Event::Readable`](crate::Event::Readable). `Vec::new()` is such a buffer, as a buffer
    /// of no bytes is on Windows: give `Vec::with_capacity(4096)` or `Buffer::with_capacity(4096)` to receive.
    ///
    /// It has no time-out: a timer whose packet cancels it is one (see "A deadline for an operation" in
    /// `docs/guide.md`).
    ///
    /// # Ordering
    ///
    /// Several receives may be outstanding: data fills them in the order of issue (row R-06).
    ///
    /// # Errors
    ///
    /// The buffer and the context come back, and no packet will come, when the stream is not connected, is known to be
    /// reset, was shut for receiving or is closed, when the port is closed, or when the buffer is shared memory.
    #[doc(alias = "WSARecv")]
    #[inline]
    pub fn recv(&self, buffer: impl Into<Buffer>, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        let shared = &self.0;
        shared.issue_into(buffer.into(), context, |into, token| {
            #[allow(unsafe_code)]
            // SAFETY: the buffer lies in the record, which nobody touches until the completion takes it back.
            unsafe {
                shared.port.receive(&shared.device, into, token, Sink::Port)
            }
        })
    }

    /// Issues a receive that completes when the buffer is full, not with the first bytes; at the end of the stream with
    /// the bytes before it. Otherwise as [`recv`](Stream::recv), and in one order with the others.
    ///
    /// # Cancellation
    ///
    /// What it has received by then is in its packet's buffer, beside the error; no byte is lost. So it is when the
    /// connection is reset.
    pub fn recv_exact(&self, buffer: impl Into<Buffer>, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        let shared = &self.0;
        shared.issue_into(buffer.into(), context, |into, token| {
            #[allow(unsafe_code)]
            // SAFETY: the buffer lies in the record, which nobody touches until the completion takes it back.
            unsafe {
                shared.port.receive_with(&shared.device, into, ReceiveFlags::WAIT_ALL, token, Sink::Port)
            }
        })
    }

    /// Issues a receive whose buffer is taken from the port's pool when data is there, so that an idle connection pins
    /// no memory. The buffer goes back to the pool when it is dropped.
    pub fn recv_pooled(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| {
            #[allow(unsafe_code)]
            // SAFETY: a pooled receive names no memory; the pool's buffer travels in the completion.
            unsafe {
                shared.port.receive(&shared.device, Buffers::Pooled, token, Sink::Port)
            }
        })
    }

    /// Issues a zero-byte receive: it completes when data, or the end of the stream, is there, and takes nothing.
    pub fn readable(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| {
            #[allow(unsafe_code)]
            // SAFETY: a receive without buffers names no memory.
            unsafe {
                shared.port.receive(&shared.device, Buffers::None, token, Sink::Port)
            }
        })
    }

    /// Issues a send of a buffer's bytes. It completes when the system has taken *all* of them; that is not to say
    /// that the peer has received them.
    ///
    /// # Ordering
    ///
    /// Sends go out in the order of issue, each in one piece; those of several threads in some order, still each in
    /// one piece.
    ///
    /// # Cancellation
    ///
    /// Cancelling a send that has begun leaves a part of its bytes in the stream.
    ///
    /// # Errors
    ///
    /// The buffer and the context come back, and no packet will come, when the stream is not connected, is known to be
    /// reset, was shut for sending or is closed, or when the port is closed.
    #[doc(alias = "WSASend")]
    #[inline]
    pub fn send(&self, buffer: impl Into<Buffer>, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        let shared = &self.0;
        let buffer = buffer.into();
        #[allow(unsafe_code)]
        // SAFETY: the buffer is borrowed until the call is over.
        let tried = unsafe { shared.port.0.send_inline(&shared.device.0, buffer.content()) };
        match tried {
            Ok(TrySend::Done) => {
                let event = Event::Sent { result: Ok(buffer.len()), stream: self.clone(), buffer };
                Ok(Outcome::Done(Packet { key: shared.key.clone(), context, event }))
            }
            Ok(TrySend::Started(started)) => shared.issue_from(buffer, context, |from, token| {
                #[allow(unsafe_code)]
                // SAFETY: the buffer lies in the record, which nobody touches until the completion takes it back. Its
                // bytes are where they were when it was tried: a buffer that is moved leaves them in their place.
                Ok(unsafe { shared.port.0.send_on(&shared.device.0, started, from, token) })
            }),
            Ok(TrySend::NotTried) => shared.issue_from(buffer, context, |from, token| {
                #[allow(unsafe_code)]
                // SAFETY: the buffer lies in the record, which nobody touches until the completion takes it back.
                unsafe {
                    shared.port.0.send_with_record(&shared.device.0, from, token, Sink::Port)
                }
            }),
            Err(error) => Err(Refused { error: refusal(&shared.port, error), context, buffer }),
        }
    }

    /// Issues a send of several buffers, in their order, as one run of bytes.
    ///
    /// # Errors
    ///
    /// As those of [`send`](Stream::send); all buffers and the context come back.
    pub fn send_vectored(&self, buffers: Vec<Buffer>, context: C) -> Result<Outcome<K, C>, Refused<C, Vec<Buffer>>> {
        let shared = &self.0;
        shared
            .issue(context, Memory::Many(buffers), |memory, token| {
                let Memory::Many(buffers) = memory else { unreachable!("given just above") };
                let pieces = buffers.iter().map(Buffer::content).collect();
                #[allow(unsafe_code)]
                // SAFETY: as in `send`.
                unsafe {
                    shared.port.send(&shared.device, Buffers::Many(pieces), token, Sink::Port)
                }
            })
            .map_err(|(error, context, memory)| match memory {
                Memory::Many(buffer) => Refused { error, context, buffer },
                _ => unreachable!("given just above"),
            })
    }

    /// Issues the graceful end of the sending side: when all that was sent before has gone out, the peer sees the end
    /// of the stream, and the packet comes. Receiving goes on.
    ///
    /// # Errors
    ///
    /// The context comes back, and no packet will come, when the stream is not connected, was shut for sending or is
    /// closed, or when the port is closed. A pipe or a terminal has no such end: there it fails, and nothing is shut.
    #[doc(alias = "DisconnectEx")]
    pub fn disconnect(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| shared.port.disconnect(&shared.device, token, Sink::Port))
    }

    /// Bytes that the system has taken for sending, parts of sends that are not complete included (on Windows without
    /// those).
    pub fn bytes_taken(&self) -> u64 {
        self.0.port.bytes_taken(&self.0.device)
    }

    /// Bytes that the system has taken for sending and that the peer's system has not acknowledged, the end of the
    /// stream counting as one; of a Unix socket the memory of what the peer has not read. `None` where the system does
    /// not tell (Windows), and when the stream is closed.
    pub fn unacknowledged(&self) -> Option<u64> {
        self.0.port.unacknowledged(&self.0.device)
    }

    /// The same without the end of the stream: bytes that were sent, and no more.
    pub fn unacknowledged_bytes(&self) -> Option<u64> {
        self.0.port.0.unacknowledged_bytes(&self.0.device.0)
    }

    /// Closes the stream hard: what was not sent or not acknowledged is thrown away, and the peer hears a reset
    /// (`SO_LINGER` with no time) instead of an end that it might take for that of the whole. A Unix socket has no
    /// resets: its peer hears an end.
    pub fn reset(&self) {
        self.0.port.0.reset_when_closed(&self.0.device.0);
        self.close();
    }

    /// Whether the stream is closed, or its connection known to be broken: the peer has reset it, or it has timed out.
    /// While no receive is outstanding nobody hears of that otherwise. It takes nothing away: the next operation fails.
    pub fn is_broken(&self) -> bool {
        self.0.port.0.is_broken(&self.0.device.0)
    }

    /// Shuts one or both sides, without a packet. The sending side is shut after what was sent before has gone out;
    /// receives that are outstanding stay and still take data, new ones fail.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        self.0.port.shutdown(&self.0.device, how).map_err(|error| refusal(&self.0.port, error))
    }
}
