//! The calls on handles, one function each: what a port asks of a system beside readiness.
//!
//! They never block, whatever mode another holder of the descriptor has set: they return `EAGAIN` instead, and retry
//! `EINTR` themselves. They are made without any lock of the port held, from several threads at once for different
//! directions of one handle. Errors are the system's numbers, unchanged. A handle is a plain number, owned by the
//! device that was given it; `close` is called once for each, and only when no call on it is under way.
//!
//! `system.rs` has them for all Unixes. Tests put a fake in its place, which lets each of them fail.

mod datagram;
mod system;

pub(crate) use system::{System, borrow, is_open};

use super::{Handle, PIECES_MAX};
use crate::op::{Buffers, Datagram, RawBuffer};
use std::net::{Shutdown, SocketAddr};

/// The pieces of several datagrams, one behind the other.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    all: Vec<RawBuffer>,
    counts: Vec<usize>,
}

impl Pieces {
    /// Adds a datagram: the first `most` pieces of an operation that are not empty.
    pub(crate) fn push(&mut self, buffers: &Buffers, most: usize) {
        let before = self.all.len();
        buffers.each(|piece| {
            if piece.length > 0 && self.all.len() - before < most {
                self.all.push(*piece);
            }
        });
        self.counts.push(self.all.len() - before);
    }

    /// How many datagrams.
    pub(crate) fn len(&self) -> usize {
        self.counts.len()
    }

    pub(crate) fn all(&self) -> &[RawBuffer] {
        &self.all
    }

    /// How many pieces each of them has.
    pub(crate) fn counts(&self) -> impl Iterator<Item = usize> {
        self.counts.iter().copied()
    }
}

/// See the top of this file.
pub(crate) trait Calls: Send + Sync {
    /// A stream socket of the peer's family, not connected.
    fn open_stream(&self, peer: &SocketAddr) -> Result<Handle, i32>;
    /// Receives into the pieces in order; 0 is the end of the stream.
    fn receive(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32>;
    /// `receive` of the urgent byte (`EINVAL`: there is none), or of what `stays` in the stream.
    fn receive_flagged(&self, handle: Handle, into: &[RawBuffer], urgent: bool, stays: bool) -> Result<usize, i32>;
    /// Is there data, or the end of the stream? Consumes nothing.
    fn peek(&self, handle: Handle) -> Result<(), i32>;
    /// Sends from the pieces in order; never raises a signal. `more` will be sent soon, and what does not fill a
    /// segment may wait for it.
    fn send(&self, handle: Handle, from: &[RawBuffer], more: bool) -> Result<usize, i32>;
    /// Sends up to `count` bytes of a file; never raises a signal. 0: the file ends at `offset`. The port has seen to
    /// it that they are in the system's cache.
    fn send_file(&self, handle: Handle, file: Handle, offset: u64, count: u64) -> Result<usize, i32>;
    /// `receive` and `send` for what is no socket: a pipe, a terminal. 0 is the end.
    fn read(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32>;
    fn write(&self, handle: Handle, from: &[RawBuffer]) -> Result<usize, i32>;
    /// `peek` for what is no socket.
    fn is_readable(&self, handle: Handle) -> Result<(), i32>;
    /// How the child process behind a handle ended, as `waitpid` tells it; `EAGAIN` while it has not. Tells it once.
    fn exit_status(&self, handle: Handle) -> Result<i32, i32>;
    /// Takes one datagram into the pieces in order; what does not fit is lost.
    fn receive_from(&self, handle: Handle, into: &[RawBuffer]) -> Result<Datagram, i32>;
    /// Sends the pieces as one datagram; without an address to the one the socket is connected to.
    fn send_to(&self, handle: Handle, from: &[RawBuffer], to: Option<&SocketAddr>) -> Result<(), i32>;
    /// Takes one datagram into each of `into`, in order, as many as there are. An error only when there was none; one
    /// that comes behind the first is told by the next call.
    fn receive_many(&self, handle: Handle, into: &Pieces, found: &mut Vec<Datagram>) -> Result<(), i32>;
    /// Sends each of `from` as one datagram, in order, to the address beside it; returns how many the system took. An
    /// error is that of the first; one that comes behind it is met again by the next call, or forgotten if the socket
    /// tells it once (a refusal by a peer).
    fn send_many(&self, handle: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32>;
    /// Has refusals by peers kept in a list, from which `refusal` takes them.
    fn keep_refusals(&self, handle: Handle, keep: bool) -> Result<(), i32>;
    /// The next refusal, and the address that the refused datagram was sent to; `EAGAIN` when there is none.
    fn refusal(&self, handle: Handle) -> Result<(i32, Option<SocketAddr>), i32>;
    /// Whether a datagram socket is connected.
    fn has_peer(&self, handle: Handle) -> bool;
    /// Whether a datagram socket has an address of its own, at which something can arrive.
    fn is_bound(&self, handle: Handle) -> bool;
    /// Bytes that the system took for sending on a stream and that the peer's system has not acknowledged, the end of
    /// the stream counting as one. `None`: the system does not tell.
    fn unacknowledged(&self, handle: Handle) -> Option<u64>;
    /// Whether a stream's connection is known to be broken, though nobody receives.
    fn is_broken(&self, handle: Handle) -> bool;
    /// The close of this stream, which comes next, resets its connection, and throws away what was not sent or not
    /// acknowledged.
    fn reset_when_closed(&self, handle: Handle);
    /// Takes a connection, and tells who is at its other end.
    fn accept(&self, handle: Handle) -> Result<(Handle, Option<SocketAddr>), i32>;
    /// Begins to connect. `ECONNRESET` says that the connection was made, and has been reset since.
    fn connect(&self, handle: Handle, peer: &SocketAddr) -> Result<(), i32>;
    /// How a connect that was in progress ended; `EAGAIN` while it has not. `ECONNRESET` says that the connection was
    /// made, and has been reset since; no other call is told so.
    fn connect_result(&self, handle: Handle) -> Result<(), i32>;
    /// Gives up a connect that is in progress; the socket may then connect anew.
    fn abort_connect(&self, handle: Handle);
    fn shutdown(&self, handle: Handle, how: Shutdown) -> Result<(), i32>;
    /// Does not wait, also where the socket has a linger time: what was sent is delivered all the same, by the system.
    fn close(&self, handle: Handle);
    /// In a forked child: closes its copy, and changes nothing that the parent has, too.
    fn close_copy(&self, handle: Handle);
}
