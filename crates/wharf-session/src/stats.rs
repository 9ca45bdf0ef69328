//! What a service tells of itself.

use crate::conn::Conn;
use crate::service::{Inner, Service};
use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use wharf::{PoolReport, PortStats, WorkerPool};

#[derive(Default)]
pub(super) struct Totals {
    pub(super) bytes_received: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) lost_bytes: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    pub(super) open: AtomicUsize,
}

/// A service's figures. Totals count since it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceStats {
    /// Sessions that there are.
    pub sessions: usize,
    /// Connections that were taken.
    pub accepted: u64,
    /// Connections that were closed at once, because there were enough sessions.
    pub refused: u64,
    /// Bytes received by all sessions.
    pub bytes_received: u64,
    /// Bytes that the system took for sending.
    pub bytes_sent: u64,
    /// Handlers that panicked.
    pub panics: u64,
    /// Sessions of which something that was accepted for sending is lost, and how many bytes: see
    /// [`LinkStats::lost_bytes`](crate::LinkStats::lost_bytes).
    pub cut: u64,
    /// See `cut`.
    pub lost_bytes: u64,
    /// What all sessions keep in memory.
    pub memory: MemoryStats,
    /// The port's figures.
    pub port: PortStats,
    /// The workers'. `None` on a port of the program's ([`ServiceOptions::start_on`](crate::ServiceOptions::start_on)),
    /// which has workers of its own.
    pub pool: Option<PoolReport>,
}

/// What the sessions of a service keep in memory: see
/// [`ServiceOptions::memory_limit`](crate::ServiceOptions::memory_limit).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Bytes that wait to be sent or to be handled.
    pub used_bytes: usize,
    /// How many there may be.
    pub limit_bytes: Option<usize>,
    /// How many times a session was not received from because memory was short.
    pub held_back: u64,
    /// Sessions that were ended because they held most of it.
    pub ended: u64,
}

impl Service {
    /// The service's figures. Some are added up in this call, a few nanoseconds for each session.
    pub fn stats(&self) -> ServiceStats {
        let totals = &self.inner.totals;
        self.inner.count_taken();
        ServiceStats {
            sessions: totals.open.load(Ordering::Relaxed),
            accepted: totals.accepted.load(Ordering::Relaxed),
            refused: totals.refused.load(Ordering::Relaxed),
            bytes_received: totals.bytes_received.load(Ordering::Relaxed),
            bytes_sent: totals.bytes_sent.load(Ordering::Relaxed),
            panics: totals.panics.load(Ordering::Relaxed),
            cut: totals.cut.load(Ordering::Relaxed),
            lost_bytes: totals.lost_bytes.load(Ordering::Relaxed),
            memory: MemoryStats {
                used_bytes: self.inner.memory_used(),
                limit_bytes: self.inner.memory.is_limited().then(|| self.inner.memory.limit()),
                held_back: self.inner.memory.held_back.load(Ordering::Relaxed),
                ended: self.inner.memory.ended.load(Ordering::Relaxed),
            },
            port: self.inner.port.stats(),
            pool: self.pool.as_ref().map(WorkerPool::report),
        }
    }
}

impl Inner {
    /// Has each session count what the system has taken of a send that is not complete.
    fn count_taken(&self) {
        if !self.is_home() {
            return;
        }
        let sending = |conn: &Arc<Conn>| conn.is_unsettled().then(|| conn.stream()).flatten();
        for conn in self.sessions.lock().values() {
            if let Some(stream) = sending(conn) {
                conn.count_taken(&stream);
            }
        }
    }

    /// What all sessions keep. With a limit it is known; without one, each is asked: those that are being closed too,
    /// of which some are still among the others.
    pub(super) fn memory_used(&self) -> usize {
        if !self.is_home() {
            return 0;
        }
        if self.memory.is_limited() {
            return self.memory.used();
        }
        let sessions = self.sessions.lock();
        let open: usize = sessions.values().map(|conn| conn.holds()).sum();
        let lingering = self.lingering.lock();
        let mut counted = HashSet::new();
        let over = lingering.all().filter(|conn| !sessions.contains_key(&conn.id()) && counted.insert(conn.id()));
        open + over.map(|conn| conn.holds()).sum::<usize>()
    }
}
