//! What the queue tells about itself: figures, the workers' states, and the descriptor that shows whether something is
//! queued.

#[cfg(all(unix, not(loom)))]
use super::notify;
use super::state::{Shared, Worker};
use super::{Driver, Queue};
use crate::sync::{Arc, now};
use crate::threads::{QueueStats, WorkerId, WorkerReport, WorkerState};
use std::sync::atomic::Ordering;

impl<T: Send, D: Driver<T>> Queue<T, D> {
    /// Where a worker notes what it handles, for reports.
    pub(crate) fn note(&self, me: WorkerId) -> Note<T> {
        Note { shared: self.state.lock().worker(me.number).shared.clone() }
    }

    /// Whether a worker is inside `get`.
    pub(crate) fn waits(&self, worker: WorkerId) -> bool {
        let state = self.state.lock();
        let it = state.workers.get(worker.number).and_then(Option::as_ref);
        it.is_some_and(|it| it.generation == worker.generation && it.stay == 0)
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let state = self.state.lock();
        let totals = state.totals;
        QueueStats {
            queued: state.fifo.len(),
            limit: state.limit,
            active: state.active - state.promised,
            waiting: state.waiters.len()
                + usize::from(state.standby.is_some())
                + usize::from(state.worker_leads())
                + state.promised,
            blocked: state.workers.iter().flatten().filter(|w| w.blocking || w.written_off).count(),
            inserted: totals.inserted,
            removed: totals.removed,
            wakes: Some(totals.wakes),
            polls: totals.polls,
            ticks: Some(totals.ticks),
            write_offs: Some(totals.write_offs),
        }
    }

    pub(crate) fn workers(&self) -> Vec<WorkerReport> {
        let seen: Vec<_> = {
            let state = self.state.lock();
            let seen = state.workers.iter().flatten().map(|worker| {
                let what = match worker {
                    Worker { stay: 0, .. } => WorkerState::Waiting,
                    Worker { counted: true, .. } => WorkerState::Running,
                    _ => WorkerState::Blocked,
                };
                (worker.shared.clone(), what, worker.blocked_since)
            });
            seen.collect()
        };
        let time = now();
        seen.into_iter()
            .map(|(shared, state, since)| WorkerReport {
                thread: shared.probe.thread(),
                state,
                blocked_for: since.map(|since| time.saturating_duration_since(since)),
                sleeps_in: if state == WorkerState::Blocked { shared.probe.sleeps_in() } else { None },
                device: shared.note.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// An event descriptor that is readable while something is queued.
    #[cfg(all(unix, not(loom)))]
    pub(crate) fn waker(&self) -> std::io::Result<std::sync::Arc<rustix::fd::OwnedFd>> {
        let mut state = self.state.lock();
        if state.notifier.is_none() {
            state.notifier = Some(notify::Waker::new()?);
        }
        let event = state.notifier.as_ref().map(|waker| waker.event().clone()).expect("just made");
        self.release(state, false);
        Ok(event)
    }
}

/// See [`Queue::note`].
pub(crate) struct Note<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Note<T> {
    pub(crate) fn set(&self, device: u64) {
        self.shared.note.store(device, Ordering::Relaxed);
    }
}
