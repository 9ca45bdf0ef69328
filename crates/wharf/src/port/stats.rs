//! What a port tells of itself.

use crate::raw;

/// A port's figures at one moment. Totals count since the port was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortStats {
    /// Which engine drives it.
    pub engine: &'static str,
    /// What runs file operations that have to wait; `None` as long as none had to.
    pub files: Option<&'static str>,
    /// Associated devices.
    pub devices: usize,
    /// Entries in the queue: packets, and sockets with something to receive.
    pub queued: usize,
    /// How many threads may run at the same time.
    pub concurrency: usize,
    /// Threads outside `get` that are not known to be blocked: they count as running.
    pub active: usize,
    /// Threads inside `get`.
    pub waiting: usize,
    /// Threads outside `get` that are known to be blocked: by their own word ([`blocking`](crate::blocking)) or, where
    /// `write_offs` is told, as the kernel says.
    pub blocked: usize,
    /// Entries that came into the queue.
    pub inserted: u64,
    /// Entries that left it.
    pub removed: u64,
    /// Threads woken, the leader included. `None` where the kernel keeps the queue (Windows) and does not tell.
    pub wakes: Option<u64>,
    /// Waits in the engine.
    pub polls: u64,
    /// Times the watchdog timer went off. `None` where the kernel keeps the queue: there is no such timer.
    pub ticks: Option<u64>,
    /// Threads found blocked. `None` where the kernel keeps the queue: it lets others run in their place, and does not
    /// tell.
    pub write_offs: Option<u64>,
}

impl PortStats {
    pub(super) fn of(raw: &raw::Port) -> PortStats {
        let queue = raw.0.stats();
        PortStats {
            engine: raw.0.engine_name(),
            files: raw.file_engine(),
            devices: raw.device_count(),
            queued: queue.queued,
            concurrency: queue.limit,
            active: queue.active,
            waiting: queue.waiting,
            blocked: queue.blocked,
            inserted: queue.inserted,
            removed: queue.removed,
            wakes: queue.wakes,
            polls: queue.polls,
            ticks: queue.ticks,
            write_offs: queue.write_offs,
        }
    }
}
