//! The waker of a port, for a program that waits in a loop of its own: an event descriptor that is readable while
//! something is queued (row P-40). It exists only once somebody asked for it.

use crate::sys;
use rustix::fd::OwnedFd;
use std::sync::Arc;

pub(super) struct Waker {
    event: Arc<OwnedFd>,
    raised: bool,
}

impl Waker {
    pub(super) fn new() -> std::io::Result<Waker> {
        Ok(Waker { event: Arc::new(sys::event()?), raised: false })
    }

    pub(super) fn event(&self) -> &Arc<OwnedFd> {
        &self.event
    }

    /// Called under the queue's lock, so that the descriptor's state follows the queue's in the same order. Neither
    /// call can block: the descriptor is non-blocking and the counter is 0 or 1.
    pub(super) fn set(&mut self, raise: bool) {
        if raise == self.raised {
            return;
        }
        self.raised = raise;
        if raise {
            sys::raise(&self.event);
        } else {
            sys::lower(&self.event);
        }
    }
}
