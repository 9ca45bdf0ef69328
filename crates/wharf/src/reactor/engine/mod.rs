//! What the port needs from a system: the contract of an engine, as a checklist.
//!
//! An engine tells *readiness* and performs operations *without blocking*. Everything else (order, exactly one packet,
//! cancellation, limits, threads) is done once, above it. To write one (kqueue, say), provide:
//!
//! - [ ] **Handles** are plain numbers, owned by the device that was given them; `close` is called once for each, and
//!   only when no call on it is under way.
//! - [ ] **`register`** makes readiness of a handle known, both directions at once, edge triggered: *each* arrival of
//!   data, space, a connection or an error after the call is reported by a later `poll` at least once, and a state that
//!   exists at the call is reported too. Reporting more than that (spurious readiness) is allowed, but not without end:
//!   a side that was reported falls silent until something arrives or a call on it has moved something or said
//!   `EAGAIN`. (A listener for which there is no free descriptor stays ready, and must not be reported all the while.)
//! - [ ] **`deregister`** ends that. It is called before `close`, because duplicates of a descriptor keep an epoll
//!   entry alive; and it ends a `poll` under way that would keep the socket open. A late event for the number it was
//!   registered with is allowed; the port checks slot and generation.
//! - [ ] **Sticky bits**: an event says whether the peer has shut its side (`HANG_UP`), an error is pending (`ERROR`)
//!   or urgent data came (`URGENT`). With any of these a short read must not be taken for "nothing more is there".
//! - [ ] **`poll`** is called by one thread at a time, and returns early after **`kick`**, which may be called from any
//!   thread and before the `poll` it ends. An interrupted wait (EINTR) is a wait with no events.
//! - [ ] **The watchdog timer**, whose descriptor the engine is made with, is watched as well: when it goes off, `poll`
//!   returns with `ticked` set, once. Others sleep on it, too; whoever takes the expiry has it.
//! - [ ] **`set_deadline`** makes a `poll` that is under way, or the next one, return with `deadline_passed` set.
//! - [ ] **Operations** never block, whatever mode another holder of the descriptor has set: they return `EAGAIN`
//!   instead, and retry `EINTR` themselves. They are called without any lock of the port held, from several threads at
//!   once for different directions of one handle.
//! - [ ] **Errors** are the system's numbers, unchanged.
//!
//! `epoll.rs` does so with edges that the system gives, `poll.rs` with edges made from levels.
//!
//! The platform corners, where Unixes differ and no engine helps, stand in [`sys`](crate::sys); in this folder
//! `files/ring.rs` (io_uring) and `datagram/`; and in `error/table.rs` the numbers. `poll.rs` asks whether `poll` tells
//! that the peer has shut its side.
//!
//! Not asked of an engine: fairness, order between handles, time-outs of operations, thread safety per direction.

pub(crate) mod calls;
pub(crate) mod datagram;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) mod epoll;
pub(crate) mod files;
pub(crate) mod poll;

pub(crate) use crate::op::PIECES_MAX;
use crate::op::{Buffers, Datagram, RawBuffer};
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

use crate::op::SocketEngine;

impl SocketEngine {
    /// Makes the engine; `watchdog` is the descriptor of the queue's watchdog timer.
    pub(crate) fn make(self, watchdog: rustix::fd::BorrowedFd<'_>) -> std::io::Result<std::sync::Arc<dyn Engine>> {
        Ok(match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            SocketEngine::Auto => std::sync::Arc::new(epoll::Epoll::new(watchdog)?),
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            SocketEngine::Auto => std::sync::Arc::new(poll::Poll::new(watchdog)?),
            SocketEngine::Poll => std::sync::Arc::new(poll::Poll::new(watchdog)?),
        })
    }
}

pub(crate) use crate::sys::Handle;

/// Readiness of one device, as bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Readiness(pub(crate) u8);

impl Readiness {
    pub(crate) const RECEIVE: u8 = 1;
    pub(crate) const SEND: u8 = 2;
    pub(crate) const HANG_UP: u8 = 4;
    pub(crate) const ERROR: u8 = 8;
    pub(crate) const URGENT: u8 = 16;
    /// The bits that stay for a socket's life.
    pub(crate) const STICKY: u8 = Self::HANG_UP | Self::ERROR | Self::URGENT;

    pub(crate) fn has(self, bits: u8) -> bool {
        self.0 & bits != 0
    }
}

/// What one poll brought.
#[derive(Debug, Default)]
pub(crate) struct Events {
    /// The number given at registration, and what is ready.
    pub(crate) ready: Vec<(u64, Readiness)>,
    /// The queue's watchdog timer went off.
    pub(crate) ticked: bool,
    /// The time of `set_deadline` has come.
    pub(crate) deadline_passed: bool,
}

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
pub(crate) trait Engine: Send + Sync {
    fn name(&self) -> &'static str;
    fn register(&self, handle: Handle, device: u64) -> Result<(), i32>;
    fn deregister(&self, handle: Handle);
    fn poll(&self, wait: Option<Duration>, events: &mut Events);
    fn kick(&self);
    fn set_deadline(&self, at: Option<Instant>);

    /// A stream socket of the peer's family, not connected.
    fn open_stream(&self, peer: &SocketAddr) -> Result<Handle, i32>;
    /// Receives into the pieces in order; 0 is the end of the stream.
    fn receive(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32>;
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
    fn is_broken(&self, handle: Handle) -> bool {
        calls::is_broken(handle)
    }
    /// The close of this stream, which comes next, resets its connection.
    fn reset_when_closed(&self, handle: Handle) {
        calls::reset_when_closed(handle);
    }
    fn accept(&self, handle: Handle) -> Result<(Handle, Option<SocketAddr>), i32>;
    /// Begins to connect. `ECONNRESET` says that the connection was made, and has been reset since.
    fn connect(&self, handle: Handle, peer: &SocketAddr) -> Result<(), i32>;
    /// How a connect that was in progress ended; `EAGAIN` while it has not. `ECONNRESET` says that the connection was
    /// made, and has been reset since; no other call is told so.
    fn connect_result(&self, handle: Handle) -> Result<(), i32>;
    /// Gives up a connect that is in progress; the socket may then connect anew.
    fn abort_connect(&self, handle: Handle);
    fn shutdown(&self, handle: Handle, how: Shutdown) -> Result<(), i32>;
    fn close(&self, handle: Handle);
    /// In a forked child: closes its copy, and changes nothing that the parent has, too.
    fn close_copy(&self, handle: Handle) {
        calls::close_copy(handle);
    }

    /// The descriptor to wait on for `poll` to have something, for programs with a loop of their own.
    fn pollable(&self) -> Option<rustix::fd::BorrowedFd<'_>>;
    /// What time it is for timers.
    fn now(&self) -> Instant;
}
