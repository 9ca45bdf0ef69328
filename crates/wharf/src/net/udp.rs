//! UDP: sockets that send and receive datagrams.

use super::adopt_socket;
use crate::associate::{Associate, Outcome, Shared, device};
use crate::buffer::Buffer;
use crate::engine::datagram::set_option;
use crate::packet::{Refused, Rejected};
use crate::port::{Context, Key};
use crate::raw::{self, Buffers, DeviceKind, Sink};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// A datagram socket of a port. Clones name the same device.
///
/// Each receive takes one whole datagram, each send makes one. Any number may be outstanding; receives are served in the
/// order of issue. Without a receive outstanding, datagrams wait in the socket's receive buffer, and what does not fit
/// there is lost without a word (row U-14).
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
pub struct UdpSocket<K, C>(pub(crate) Arc<Shared<K, C>>);

device!(UdpSocket);
socket!(UdpSocket, std::net::UdpSocket);

impl<K: Key, C: Context> Associate<K, C> for std::net::UdpSocket {
    type Device = UdpSocket<K, C>;

    fn associate(self, port: &raw::Port, key: K) -> Result<UdpSocket<K, C>, Rejected<Self, K>> {
        adopt_socket(port, self, DeviceKind::Datagram, key).map(UdpSocket)
    }
}

impl<K: Key, C: Context> UdpSocket<K, C> {
    /// Issues a receive of one datagram into a buffer. Its packet is [`Event::ReceivedFrom`](crate::Event::ReceivedFrom).
    ///
    /// A datagram longer than the buffer fills it, loses the rest, and fails with `EMSGSIZE` and the bytes that fitted
    /// (row U-02); a buffer without capacity takes a datagram all the same (row U-04). An empty datagram is a success of
    /// 0 bytes, and not an end (row U-01).
    ///
    /// # Errors
    ///
    /// The buffer and the context come back when the socket or the port is closed, or the buffer is shared memory. On a
    /// connected socket a peer that answers "port unreachable" fails one receive with `ECONNREFUSED`; the next works
    /// again (row U-09).
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

    /// Issues a send of one datagram to an address. It goes whole or fails (row U-08); `SentTo` says that the system took
    /// it, not that it arrives.
    ///
    /// # Errors
    ///
    /// The buffer and the context come back when it is longer than any datagram (`EMSGSIZE`, row U-07), or the socket or
    /// the port is closed.
    #[doc(alias = "WSASendTo")]
    pub fn send_to(&self, buffer: impl Into<Buffer>, to: SocketAddr, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        self.issue_send(buffer.into(), Some(to), context)
    }

    /// Issues a send of one datagram to the address the socket is [connected](UdpSocket::connect) to.
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

    /// From now on only datagrams of that peer are received, and [`send`](UdpSocket::send) goes to it. A plain call.
    pub fn connect(&self, peer: SocketAddr) -> io::Result<()> {
        self.0.with_fd(|fd| Ok(rustix::net::connect(fd, &peer)?))
    }

    /// Segmentation offload: a send of more than this many bytes goes out as several datagrams of that size, the last
    /// perhaps shorter, for the cost of little more than one. `None` ends it.
    pub fn set_segment_bytes(&self, bytes: Option<u16>) -> io::Result<()> {
        self.0.with_fd(|fd| set_option(fd, libc::UDP_SEGMENT, bytes.map_or(0, i32::from)))
    }

    /// Receive offload: several datagrams of one peer that came together may be received as one, and the packet says how
    /// long each is (`segment_bytes`). Give buffers of 64 KiB.
    pub fn set_receive_offload(&self, on: bool) -> io::Result<()> {
        self.0.with_fd(|fd| set_option(fd, libc::UDP_GRO, i32::from(on)))
    }
}
