//! UDP: sockets that send and receive datagrams.

use super::adopt_socket;
use crate::op::buffer::Buffer;
use crate::port::associate::{Associate, Outcome, Route, Shared, device, refusal};
use crate::port::refused::{Refused, Rejected};
use crate::port::{Context, Key};
use crate::raw::{Buffers, DeviceKind, Incoming, Outgoing, Sink};
use crate::sys;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// A datagram socket of a port. Clones name the same device.
///
/// Each receive takes one whole datagram, each send makes one. Any number may be outstanding; receives are served in
/// the order of issue. Without a receive outstanding, datagrams wait in the socket's receive buffer, and what does not
/// fit there is lost without a word (row U-14).
///
/// ```
/// use wharf::{Buffer, CompletionPort, Event};
/// let port = CompletionPort::<(), ()>::new()?;
/// let socket = port.bind("127.0.0.1:0", ())?;
/// socket.recv_from(Buffer::with_capacity(1500), ())?;
/// socket.send_to("hello", socket.local_addr()?, ())?;
/// for _ in 0..2 {
///     match port.get()?.event {
///         Event::ReceivedFrom { buffer, from, result: Ok(5), .. } => {
///             assert_eq!((&buffer[..], from), (&b"hello"[..], Some(socket.local_addr()?)));
///         }
///         Event::SentTo { result: Ok(5), .. } => {}
///         other => panic!("{other:?}"),
///     }
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Datagrams<K, C>(pub(crate) Arc<Shared<K, C>>);

device!(Datagrams);
socket!(Datagrams, std::net::UdpSocket);

impl<K: Key, C: Context> Associate<K, C> for std::net::UdpSocket {
    type Device = Datagrams<K, C>;

    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Datagrams<K, C>, Rejected<Self, K>> {
        adopt_socket(route, self, DeviceKind::Datagram, key).map(Datagrams)
    }
}

impl<K: Key, C: Context> Datagrams<K, C> {
    /// Issues a receive of one datagram into a buffer. Its packet is
    /// [`Event::ReceivedFrom`](crate::Event::ReceivedFrom).
    ///
    /// A datagram longer than the buffer fills it, loses the rest, and fails with `EMSGSIZE` and the bytes that fitted
    /// (row U-02); a buffer without capacity takes a datagram all the same (row U-04). An empty datagram is a success
    /// of 0 bytes, and not an end (row U-01).
    ///
    /// # Errors
    ///
    /// The buffer and the context come back when the socket or the port is closed, or the buffer is shared memory. On a
    /// connected socket a peer that answers "port unreachable" fails one receive or send with `ECONNREFUSED`; the next
    /// works again (row U-09). [`report_refusals`](Datagrams::report_refusals) has unconnected sockets hear of it too.
    #[doc(alias = "WSARecvFrom")]
    pub fn recv_from(&self, buffer: impl Into<Buffer>, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        let shared = &self.0;
        shared.issue_into(buffer.into(), context, |into, token| {
            #[allow(unsafe_code)]
            // SAFETY: the buffer lies in the record, which nobody touches until the completion takes it back.
            unsafe {
                shared.port.receive_from(&shared.device, into, token, Sink::Port)
            }
        })
    }

    /// Issues a receive whose buffer is taken from the port's pool when a datagram is there.
    pub fn recv_from_pooled(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| {
            #[allow(unsafe_code)]
            // SAFETY: no memory is named; the pool's buffer belongs to the packet.
            unsafe {
                shared.port.receive_from(&shared.device, Buffers::Pooled, token, Sink::Port)
            }
        })
    }

    /// Issues a send of one datagram to an address. It goes whole or fails (row U-08); `SentTo` says that the system
    /// took it, not that it arrives.
    ///
    /// # Errors
    ///
    /// The buffer and the context come back when it is longer than any datagram (`EMSGSIZE`, row U-07), or the socket
    /// or the port is closed.
    #[doc(alias = "WSASendTo")]
    pub fn send_to(&self, buffer: impl Into<Buffer>, to: SocketAddr, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        self.issue_send(buffer.into(), Some(to), context)
    }

    /// Issues a send of one datagram to the address the socket is [connected](Datagrams::connect) to.
    #[doc(alias = "WSASend")]
    pub fn send(&self, buffer: impl Into<Buffer>, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        self.issue_send(buffer.into(), None, context)
    }

    fn issue_send(&self, buffer: Buffer, to: Option<SocketAddr>, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        let shared = &self.0;
        shared.issue_from(buffer, context, |from, token| {
            #[allow(unsafe_code)]
            // SAFETY: as in `recv_from`; the memory is only read.
            unsafe {
                shared.port.send_to(&shared.device, from, to, token, Sink::Port)
            }
        })
    }

    /// Issues a send for each of many datagrams: a buffer, where it goes (an address, or `None::<SocketAddr>` on a
    /// [connected](Datagrams::connect) socket), and a context. The outcomes are in the order of the datagrams.
    ///
    /// Each is an operation like that of [`send_to`](Datagrams::send_to), with a packet of its own; what is refused or
    /// fails says nothing about the others. They are issued under one lock and then tried together, up to 64 with one
    /// system call, which costs less than a call for each. On a connected socket they still go one by one, unless
    /// [`report_refusals`](Datagrams::report_refusals) is on: a call for several can forget that the peer has refused
    /// one.
    ///
    /// ```
    /// use wharf::{Buffer, CompletionPort, Event};
    /// let port = CompletionPort::<(), usize>::new()?;
    /// let socket = port.bind("127.0.0.1:0", ())?;
    /// let to = socket.local_addr()?;
    /// socket.recv_from_many((0..100).map(|number| (Buffer::with_capacity(1500), number)));
    /// let outcomes = socket.send_to_many((0..100).map(|number| (format!("datagram {number}"), to, number)));
    /// assert!(outcomes.iter().all(Result::is_ok));
    /// let mut received = 0;
    /// for _ in 0..200 {
    ///     let packet = port.get()?;
    ///     match packet.event {
    ///         Event::ReceivedFrom { buffer, result: Ok(_), .. } => {
    ///             assert_eq!(&buffer[..], format!("datagram {}", packet.context).as_bytes());
    ///             received += 1;
    ///         }
    ///         Event::SentTo { result: Ok(_), .. } => {}
    ///         other => panic!("{other:?}"),
    ///     }
    /// }
    /// assert_eq!(received, 100);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "sendmmsg")]
    pub fn send_to_many<B: Into<Buffer>, A: Into<Option<SocketAddr>>>(
        &self,
        datagrams: impl IntoIterator<Item = (B, A, C)>,
    ) -> Vec<Result<Outcome<K, C>, Refused<C>>> {
        let shared = &self.0;
        let operation = |(buffer, to, context): (B, A, C)| (buffer.into(), to.into(), context);
        let name = |buffer: &mut Buffer| Some(buffer.content());
        shared.issue_many(datagrams.into_iter().map(operation).collect(), name, |operations| {
            let outgoing = |(buffers, to, token)| Outgoing { buffers, to, token, sink: Sink::Port };
            #[allow(unsafe_code)]
            // SAFETY: as in `send_to`, for each of them.
            unsafe {
                shared.port.send_to_many(&shared.device, operations.into_iter().map(outgoing).collect())
            }
        })
    }

    /// Issues many receives of one datagram each, like [`recv_from`](Datagrams::recv_from) and in this order, under one
    /// lock.
    ///
    /// Several that are outstanding, however they were issued, take up to 64 datagrams with one system call. None is
    /// tried inside the call, also after `skip_on_success`.
    #[doc(alias = "recvmmsg")]
    pub fn recv_from_many<B: Into<Buffer>>(
        &self,
        receives: impl IntoIterator<Item = (B, C)>,
    ) -> Vec<Result<Outcome<K, C>, Refused<C>>> {
        let shared = &self.0;
        let operation = |(buffer, context): (B, C)| (buffer.into(), (), context);
        shared.issue_many(receives.into_iter().map(operation).collect(), Buffer::space, |operations| {
            let incoming = |(buffers, (), token)| Incoming { buffers, token, sink: Sink::Port };
            #[allow(unsafe_code)]
            // SAFETY: as in `recv_from`, for each of them.
            unsafe {
                shared.port.receive_from_many(&shared.device, operations.into_iter().map(incoming).collect())
            }
        })
    }

    /// Issues many receives whose buffers are taken from the port's pool when datagrams are there: one for each
    /// context.
    pub fn recv_from_many_pooled(
        &self,
        contexts: impl IntoIterator<Item = C>,
    ) -> Vec<Result<Outcome<K, C>, Refused<C, ()>>> {
        let shared = &self.0;
        shared.issue_many_plain(contexts.into_iter().collect(), |tokens| {
            let incoming = |&token| Incoming { buffers: Buffers::Pooled, token, sink: Sink::Port };
            #[allow(unsafe_code)]
            // SAFETY: no memory is named; the pool's buffers belong to the packets.
            unsafe {
                shared.port.receive_from_many(&shared.device, tokens.iter().map(incoming).collect())
            }
        })
    }

    /// Whether receives are told when somebody refuses a datagram (row U-09): when nobody listens at an address, or
    /// none of the network's machines knows the way. Off at first, where Windows has it on.
    ///
    /// When on, each refusal fails one receive: the packet has the error (`ECONNREFUSED` for "port unreachable",
    /// `EHOSTUNREACH` ...), the address that the datagram was sent to as `from`, and no bytes. The next receive works
    /// again. A refusal is told once, to a receive only and never to a send, and takes no datagram's place; it may come
    /// behind datagrams that were waiting. Without a receive outstanding refusals wait in the socket's receive buffer,
    /// and what does not fit there is lost (row U-14).
    ///
    /// When off, an unconnected socket hears of none, and a connected one as a failed receive or send.
    ///
    /// It reads the system's list of errors of the socket (`IP_RECVERR`); a program that has the system put other
    /// things there (transmit time stamps) must not turn it on.
    #[doc(alias = "SIO_UDP_CONNRESET")]
    pub fn report_refusals(&self, on: bool) -> io::Result<()> {
        let shared = &self.0;
        shared.port.report_refusals(&shared.device, on).map_err(|error| refusal(&shared.port, error))
    }

    /// From now on only datagrams of that peer are received, and [`send`](Datagrams::send) goes to it. A plain call.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        // Before it is so: batches of sends go by it.
        self.0.device.has_peer();
        self.0.with_fd(|fd| Ok(rustix::net::connect(fd, &peer)?))
    }

    /// Segmentation offload: a send of more than this many bytes goes out as several datagrams of that size, the last
    /// perhaps shorter, for the cost of little more than one. `None` ends it.
    pub fn set_segment_bytes(&self, bytes: Option<u16>) -> io::Result<()> {
        self.0.with_fd(|fd| sys::set_segment_bytes(fd, bytes.unwrap_or(0)))
    }

    /// Receive offload: several datagrams of one peer that came together may be received as one, and the packet says
    /// how long each is (`segment_bytes`). Give buffers of 64 KiB.
    pub fn set_receive_offload(&self, on: bool) -> io::Result<()> {
        self.0.with_fd(|fd| sys::set_receive_offload(fd, on))
    }
}
