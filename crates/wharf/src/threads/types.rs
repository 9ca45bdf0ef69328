//! The words that a queue is spoken to with, the same whether this crate or the system's kernel keeps it.

use crate::sync::{Lock, now};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// What `get` hands out.
#[derive(Debug)]
#[cfg_attr(windows, allow(dead_code, reason = "the kernel does its own work there"))]
pub(crate) enum Taken<T> {
    Entry(T),
    /// The engine's own progress, which needs no slot.
    EngineWork(T),
}

/// Which worker of a queue. When a worker leaves, another thread may get its number, but never its generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WorkerId {
    pub(crate) number: usize,
    pub(crate) generation: u64,
}

/// Until when a `get` waits.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Deadline {
    Never,
    Now,
    At(Instant),
}

impl Deadline {
    pub(crate) fn after(timeout: Option<Duration>) -> Deadline {
        match timeout {
            None => Deadline::Never,
            Some(Duration::ZERO) => Deadline::Now,
            // A time-out beyond what the clock can express is none.
            Some(timeout) => now().checked_add(timeout).map_or(Deadline::Never, Deadline::At),
        }
    }

    pub(crate) fn has_passed(self) -> bool {
        match self {
            Deadline::Never => false,
            Deadline::Now => true,
            Deadline::At(at) => now() >= at,
        }
    }

    pub(crate) fn instant(self) -> Option<Instant> {
        match self {
            Deadline::At(at) => Some(at),
            _ => None,
        }
    }
}

/// A worker as `stats` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerReport {
    /// The system's number of the thread.
    pub thread: i32,
    /// What it does.
    pub state: WorkerState,
    /// Since when it is known to be blocked.
    pub blocked_for: Option<Duration>,
    /// The kernel function it sleeps in, where the system tells.
    pub sleeps_in: Option<String>,
    /// The number of the device whose packet it handles, 0 for none.
    pub device: u64,
}

/// What a worker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// Inside `get`.
    Waiting,
    /// Handles a packet and occupies a slot.
    Running,
    /// Outside `get` without a slot: blocked, by its own word or as the kernel says.
    Blocked,
}

/// The queue's figures at one moment. `None`: whoever keeps the queue does not tell.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct QueueStats {
    pub(crate) queued: usize,
    pub(crate) limit: usize,
    pub(crate) active: usize,
    pub(crate) waiting: usize,
    pub(crate) blocked: usize,
    pub(crate) inserted: u64,
    pub(crate) removed: u64,
    pub(crate) wakes: Option<u64>,
    pub(crate) polls: u64,
    pub(crate) ticks: Option<u64>,
    pub(crate) write_offs: Option<u64>,
}

/// What a supervisor's turn came to.
#[cfg_attr(windows, allow(dead_code, reason = "the kernel does its own work there"))]
pub(crate) enum Tended<T> {
    /// The port is closed, or the supervisor was told to stop.
    Stopped,
    /// Engine work to be done by the supervisor, because no worker is there to do it.
    EngineWork(T),
    /// Entries wait, slots are free, and all workers are outside `get`: a further thread would be of use.
    Grow,
    Nothing,
}

/// A pool of workers, as the supervisor of its port sees it: that may be another pool's.
pub(crate) trait Grow: Send + Sync {
    /// Starts a further worker, if there may be one and the system lets it.
    fn grow(self: Arc<Self>) -> bool;

    /// No pool of the port could start one, and packets wait.
    fn stuck(&self);
}

/// The pools that serve a port.
#[derive(Default)]
pub(crate) struct Pools(Lock<Vec<Weak<dyn Grow>>>);

impl Pools {
    pub(crate) fn add(&self, pool: Weak<dyn Grow>) {
        self.0.lock().push(pool);
    }

    /// Returns whether there are others.
    pub(crate) fn remove(&self, pool: *const impl Grow) -> bool {
        let mut pools = self.0.lock();
        pools.retain(|other| !std::ptr::addr_eq(other.as_ptr(), pool));
        !pools.is_empty()
    }

    /// A further worker is wanted: the first pool that can starts it.
    pub(crate) fn grow(&self) {
        let pools: Vec<Arc<dyn Grow>> = self.0.lock().iter().filter_map(Weak::upgrade).collect();
        if !pools.iter().any(|pool| pool.clone().grow()) {
            pools.iter().for_each(|pool| pool.stuck());
        }
    }
}

/// How soon a packet that arrives while workers are active wakes a further one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wake {
    /// When nobody is active, or the backlog is worth the cost of a wake-up; at the latest after one tick (1 ms).
    /// The cheapest on a busy server.
    #[default]
    Adaptive,
    /// At once, while fewer workers are active than the limit allows; what Windows does (rows C-04, D-33).
    Eager,
}
