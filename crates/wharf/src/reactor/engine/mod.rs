//! What the port needs from a system: somebody who tells what is ready, and calls that do not block.
//!
//! An engine is a [`Selector`], which tells *readiness*, and [`Calls`], which perform operations *without blocking*.
//! Everything else (order, exactly one packet, cancellation, limits, threads) is done once, above them. Who brings
//! wharf to a system with another way to wait (kqueue, say) writes a selector: `selector/mod.rs` has its contract, as a
//! checklist. The calls are the same on all Unixes (`calls/system.rs`); tests have others.
//!
//! The platform corners, where Unixes differ and no engine helps, stand in [`sys`](crate::sys); in this folder
//! `files/ring/` (io_uring) and `calls/datagram/`; and in `error/table.rs` the numbers. `selector/poll.rs` asks
//! whether `poll` tells that the peer has shut its side.
//!
//! Not asked of an engine: fairness, order between handles, time-outs of operations, thread safety per direction.

pub(crate) mod calls;
pub(crate) mod files;
pub(crate) mod selector;

pub(crate) use crate::op::PIECES_MAX;
pub(crate) use crate::sys::Handle;
pub(crate) use calls::{Calls, Pieces};
pub(crate) use selector::{Events, Outcome, Readiness, Selector};

use crate::op::Side;
use crate::sys::errno::EAGAIN;
use calls::System;
use std::sync::Arc;

#[derive(Clone)]
pub(crate) struct Engine {
    pub(crate) selector: Arc<dyn Selector>,
    calls: Caller,
}

/// Who makes the calls: the system, which is known when the library is compiled, so that a call costs no more than
/// itself. Tests put somebody else in its place.
#[cfg(not(any(test, feature = "fake")))]
type Caller = System;
#[cfg(any(test, feature = "fake"))]
type Caller = Arc<dyn Calls>;

impl Engine {
    /// One that makes the system's calls.
    pub(crate) fn new(selector: Arc<dyn Selector>) -> Engine {
        #[cfg(not(any(test, feature = "fake")))]
        let calls = System;
        #[cfg(any(test, feature = "fake"))]
        let calls = Arc::new(System);
        Engine { selector, calls }
    }

    /// One in which nothing is the system's.
    #[cfg(any(test, feature = "fake"))]
    pub(crate) fn of<E: Selector + Calls + 'static>(engine: Arc<E>) -> Engine {
        Engine { selector: engine.clone(), calls: engine }
    }

    #[inline]
    pub(crate) fn calls(&self) -> &dyn Calls {
        #[cfg(not(any(test, feature = "fake")))]
        return &self.calls;
        #[cfg(any(test, feature = "fake"))]
        return &*self.calls;
    }

    /// Makes a call that takes something out of a handle, and tells the selector what came of it.
    #[inline]
    pub(crate) fn receiving<R>(
        &self,
        handle: Handle,
        call: impl FnOnce(&dyn Calls) -> Result<R, i32>,
    ) -> Result<R, i32> {
        let result = call(self.calls());
        let outcome = match result {
            Ok(_) => Outcome::Done,
            Err(EAGAIN) => Outcome::NotNow,
            Err(_) => Outcome::Failed,
        };
        self.selector.used(handle, Side::Receive, outcome);
        result
    }

    /// Makes a call that puts as much into a handle as the system takes of what is `offered`, and tells the selector
    /// what came of it.
    #[inline]
    pub(crate) fn sending(
        &self,
        handle: Handle,
        offered: usize,
        call: impl FnOnce(&dyn Calls) -> Result<usize, i32>,
    ) -> Result<usize, i32> {
        let result = call(self.calls());
        let outcome = match result {
            Ok(taken) if taken >= offered => Outcome::Done,
            Ok(_) => Outcome::Short,
            Err(EAGAIN) => Outcome::NotNow,
            Err(_) => Outcome::Failed,
        };
        self.selector.used(handle, Side::Send, outcome);
        result
    }

    /// A connect is waited for, whose end may be told on either side.
    pub(crate) fn waits_for_connect(&self, handle: Handle) {
        for side in [Side::Receive, Side::Send] {
            self.selector.used(handle, side, Outcome::NotNow);
        }
    }
}
