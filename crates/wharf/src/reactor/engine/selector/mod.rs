//! The contract of a selector: who tells which sockets and pipes are ready. A checklist for whoever writes one.
//!
//! - [ ] **`register`** makes readiness of a handle known, both directions at once, edge triggered: *each* arrival of
//!   data, space, a connection or an error after the call is reported by a later `poll` at least once, and a state that
//!   exists at the call is reported too. Reporting more than that (spurious readiness) is allowed, but not without end:
//!   a side that was reported falls silent until something arrives or a call on it has moved something or said
//!   `EAGAIN`. (A listener for which there is no free descriptor stays ready, and must not be reported all the while.)
//! - [ ] **`deregister`** ends that. It is called before the handle is closed, because duplicates of a descriptor keep
//!   an epoll entry alive; and it ends a `poll` under way that would keep the socket open. A late event for the number
//!   it was registered with is allowed; the port checks slot and generation.
//! - [ ] **Sticky bits**: an event says whether the peer has shut its side (`HANG_UP`), an error is pending (`ERROR`)
//!   or urgent data came (`URGENT`). With any of these a short read must not be taken for "nothing more is there".
//! - [ ] **`poll`** is called by one thread at a time, and returns early after **`kick`**, which may be called from any
//!   thread, by a signal's handler too, and before the `poll` it ends. An interrupted wait (EINTR) is a wait with no
//!   events.
//! - [ ] **The watchdog timer**, whose descriptor the selector is made with, is watched as well: when it goes off,
//!   `poll` returns with `ticked` set, once. Others sleep on it, too; whoever takes the expiry has it.
//! - [ ] **`set_deadline`** makes a `poll` that is under way, or the next one, return with `deadline_passed` set.
//! - [ ] **`used`** tells what a call on one side of a handle came to. A system that gives edges needs none of it. One
//!   that tells levels asks for a side again from then on: when something was received or `EAGAIN` came back, and when
//!   not all was sent that was to be sent. The port says so after each call, before another one on the same side.
//! - [ ] **`pollable`** is a descriptor to wait on for `poll` to have something, for programs with a loop of their own;
//!   `None` where the system has no such thing.
//! - [ ] **`now`** is what time it is for timers.
//!
//! `epoll.rs` does so with edges that the system gives, `poll.rs` with edges made from levels.

#[cfg(any(target_os = "linux", target_os = "android"))]
mod epoll;
mod poll;

use super::{Engine, Handle};
use crate::op::{Side, SocketEngine};
use rustix::fd::BorrowedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl SocketEngine {
    /// Makes the engine; `watchdog` is the descriptor of the queue's watchdog timer.
    pub(crate) fn make(self, watchdog: BorrowedFd<'_>) -> std::io::Result<Engine> {
        Ok(Engine::new(match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            SocketEngine::Auto => Arc::new(epoll::Epoll::new(watchdog)?),
            #[cfg(not(any(target_os = "linux", target_os = "android")))]
            SocketEngine::Auto => Arc::new(poll::Poll::new(watchdog)?),
            SocketEngine::Poll => Arc::new(poll::Poll::new(watchdog)?),
        }))
    }
}

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

/// What a call on one side of a handle came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Something was received, or all was sent.
    Done,
    /// Not all was sent.
    Short,
    /// `EAGAIN`.
    NotNow,
    /// Another error.
    Failed,
}

/// See the top of this file.
pub(crate) trait Selector: Send + Sync {
    fn name(&self) -> &'static str;
    fn register(&self, handle: Handle, device: u64) -> Result<(), i32>;
    fn deregister(&self, handle: Handle);
    fn poll(&self, wait: Option<Duration>, events: &mut Events);
    fn kick(&self);
    fn set_deadline(&self, at: Option<Instant>);
    fn used(&self, _handle: Handle, _side: Side, _outcome: Outcome) {}
    fn pollable(&self) -> Option<BorrowedFd<'_>>;
    fn now(&self) -> Instant;
}
