//! Who may wait for room in an outbox.
//!
//! Threads of the program's own always may. Of a port's threads all but one may: if none were left, nobody would take
//! the packet that says that there is room. So those that wait are counted for each port, whatever number of services
//! stands on it.

use crate::dispatch::{Node, Op};
use crate::lock::Lock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use wharf::{Branch, Home};

/// The threads of a port, as far as they wait for room.
pub(super) struct Waiters {
    port: Branch<Node, Op>,
    /// How many threads there can be. `None`: the port is the program's, and so are its threads.
    most: Option<usize>,
    waiting: AtomicUsize,
}

/// A sender that may wait for room.
pub(super) struct Waiting<'a>(Option<&'a AtomicUsize>);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.0 {
            waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Waiters {
    /// Of a port that serves one service alone.
    pub(super) fn alone(port: &Branch<Node, Op>, most: usize) -> Arc<Waiters> {
        Arc::new(Waiters { port: port.clone(), most: Some(most), waiting: AtomicUsize::new(0) })
    }

    /// Of a port of the program's, which services may share.
    pub(super) fn shared(port: &Branch<Node, Op>) -> Arc<Waiters> {
        static KNOWN: OnceLock<(Home, Lock<Vec<Weak<Waiters>>>)> = OnceLock::new();
        let new = || Arc::new(Waiters { port: port.clone(), most: None, waiting: AtomicUsize::new(0) });
        let (home, known) = KNOWN.get_or_init(|| (Home::here(), Lock::default()));
        if !home.is_here() {
            // A forked child: the lock is the parent's.
            return new();
        }
        let mut known = known.lock();
        known.retain(|waiters| waiters.strong_count() > 0);
        if let Some(waiters) = known.iter().filter_map(Weak::upgrade).find(|known| known.port.shares_port(port)) {
            return waiters;
        }
        let new = new();
        known.push(Arc::downgrade(&new));
        new
    }

    /// A sender asks whether it may wait. `handles`: it is known to handle a packet, whatever port it has used since.
    pub(super) fn may_wait(&self, handles: bool) -> Option<Waiting<'_>> {
        if !handles && !self.port.is_worker() {
            return Some(Waiting(None));
        }
        let others = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waiting = Waiting(Some(&self.waiting));
        let most = self.most.unwrap_or_else(|| self.port.workers().len());
        (others + 1 < most).then_some(waiting)
    }
}
