//! What ends one thread's wait.

use super::execution;
use crate::sync::Arc;
use crate::threads::{WorkerId, bind};
use std::fmt;

/// Ends the wait of the thread that has made it ([`Port::waker`](super::Port::waker)), and of no other: its present or
/// next [`get`](super::Port::get) or [`get_into`](super::Port::get_into) on that port returns
/// [`GetError::Interrupted`](super::GetError::Interrupted), once, however often it was woken before. For what only this
/// thread can do, as a call that another thread has queued for it; for what any thread can, post.
///
/// It does not keep the port open. When the thread exits, [leaves](super::leave_port) the port or has moved to another
/// one, its old wakers wake nobody.
///
/// Neither a pool's threads nor a typed port's `get` return for it.
///
/// On Windows the thread waits alertably, and a call that does nothing is queued to it (`QueueUserAPC`).
#[derive(Clone)]
pub struct Waker {
    queue: std::sync::Weak<execution::PortQueue>,
    thread: WorkerId,
}

impl fmt::Debug for Waker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Waker").field(&self.thread).finish()
    }
}

impl Waker {
    pub(super) fn here(port: &execution::Port) -> Option<Waker> {
        if !port.is_home() {
            return None;
        }
        let thread = bind(&port.queue)?;
        Some(Waker { queue: Arc::downgrade(&port.queue), thread })
    }

    /// Wakes the thread. Returns at once; in a forked child it does nothing.
    pub fn wake(&self) {
        if let Some(queue) = self.queue.upgrade() {
            let port = execution::Port { queue };
            if port.is_home() {
                port.queue.interrupt(self.thread);
            }
        }
    }
}
