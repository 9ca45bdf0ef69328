//! The words of the raw layer, the same whether this crate's engines or the system's kernel executes the operations.

use super::{Buffers, Completion, FileEngine, Handle, Kind, OperationId, Payload, Sink, SocketEngine};
use crate::threads::Wake;
use std::net::SocketAddr;

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceKind {
    /// A listening stream socket.
    Listener,
    /// A stream socket, connected or to be connected.
    Stream,
    /// A datagram socket.
    Datagram,
    /// Something else that can be waited for: a pipe, a terminal, an event descriptor, a child process.
    Handle,
    /// A regular file or a block device. Its operations know no order: they are listed as under way on the receive
    /// side.
    File,
}

/// What a program posts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Post {
    /// Comes out as the packet's key.
    pub key: usize,
    /// Comes out as the packet's token.
    pub token: usize,
    /// Comes out as the packet's byte count.
    pub bytes: usize,
}

impl From<Post> for Completion {
    #[inline]
    fn from(Post { key, token, bytes }: Post) -> Completion {
        let (kind, payload) = (Kind::Posted, Payload::None);
        Completion { key, token, bytes, error: 0, kind, device: 0, more: false, payload, named_memory: false }
    }
}

/// How a function that was queued ([`Port::run`](crate::raw::Port::run)) comes to be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ran {
    /// By a worker that has taken it, with a slot: it may do what a handler may.
    Worker,
    /// By whoever closed the port: it was still queued. It has to free what its number stands for, and no more.
    Closed,
}

/// A `get` whose time is over takes so many functions at most before it gives up.
pub(crate) const RUNS_MAX: usize = 64;

/// A device as the port's list shows it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeviceInfo {
    /// Slot and generation.
    pub number: u64,
    /// What it is.
    pub kind: DeviceKind,
    /// The system's descriptor.
    pub handle: Handle,
    /// Operations issued and not completed, receive side and send side.
    pub pending: (usize, usize),
}

/// What an accepted issuing call came to.
#[derive(Debug)]
pub enum Issued {
    /// A packet will come, or has come.
    Pending(OperationId),
    /// Done, no packet: only with skip-on-success.
    Done(Completion),
}

/// How to make a port.
#[derive(Clone, Debug)]
pub struct Config {
    /// How many workers may run at the same time; 0: as many as there are processors (row P-05).
    pub concurrency: usize,
    /// When a further worker is woken.
    pub wake: Wake,
    /// Bytes in a buffer of the pool.
    pub pool_buffer_bytes: usize,
    /// How many unused buffers the pool keeps.
    pub pool_keep: usize,
    /// What tells which sockets are ready.
    pub sockets: SocketEngine,
    /// What runs file operations that have to wait.
    pub files: FileEngine,
    /// Frees what a packet that nobody will take carries.
    pub dispose: fn(Completion),
}

impl Default for Config {
    /// As many workers as there are processors, the engines that suit the system, up to 4 MiB of unused buffers of 16
    /// KiB, and [`drop`] for what nobody takes.
    fn default() -> Config {
        Config {
            concurrency: 0,
            wake: Wake::default(),
            // Large receive buffers were worth more than any other tuning with clients that pipeline.
            pool_buffer_bytes: 16 * 1024,
            pool_keep: 256,
            sockets: SocketEngine::default(),
            files: FileEngine::default(),
            dispose: drop,
        }
    }
}

/// A send for [`Port::send_to_many`](crate::raw::Port::send_to_many).
#[derive(Debug)]
pub struct Outgoing {
    /// The datagram.
    pub buffers: Buffers,
    /// Where it goes; without it, to the address the socket is connected to.
    pub to: Option<SocketAddr>,
    /// Comes back in the completion.
    pub token: usize,
    /// Where the completion goes.
    pub sink: Sink,
}

/// A receive for [`Port::receive_from_many`](crate::raw::Port::receive_from_many).
#[derive(Debug)]
pub struct Incoming {
    /// Where the datagram goes.
    pub buffers: Buffers,
    /// Comes back in the completion.
    pub token: usize,
    /// Where the completion goes.
    pub sink: Sink,
}
