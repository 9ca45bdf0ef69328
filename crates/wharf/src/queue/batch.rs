//! Batches: what a worker took beside its first entry lies in a list of its own that others can reach.
//!
//! The worker walks through the list without the queue's lock. The entries that it has not come to go back to the head
//! of the queue when it returns to `get`, says that it blocks, is found blocked, or exits: a batch keeps no entry from
//! others.

use super::state::{Shared, State};
use super::{Driver, Queue};
use crate::sync::Arc;

/// What a worker has taken and not come to: see [`Queue::get_many`].
pub(crate) struct Rest<T> {
    pub(super) owner: Owner<T>,
}

/// Whose `batch` it is; nobody's if it was empty from the start.
pub(super) type Owner<T> = Option<Arc<Shared<T>>>;

impl<T> Rest<T> {
    #[inline]
    pub(crate) fn next(&self) -> Option<T> {
        self.owner.as_ref()?.batch.lock().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.owner.as_ref().map_or(0, |owner| owner.batch.lock().len())
    }

    pub(crate) fn drain(&self) -> Vec<T> {
        self.owner.as_ref().map_or_else(Vec::new, |owner| owner.batch.lock().drain(..).collect())
    }
}

impl<T: Send, D: Driver<T>> Queue<T, D> {
    /// The rest of a worker's batch goes back to the head of the queue, in its order.
    pub(super) fn take_back_batch(&self, state: &mut State<T>, index: usize) {
        let worker = state.worker(index);
        if !std::mem::take(&mut worker.has_batch) {
            return;
        }
        let shared = worker.shared.clone();
        state.batches -= 1;
        let mut batch = shared.batch.lock();
        state.totals.removed -= batch.len() as u64;
        while let Some(entry) = batch.pop_back() {
            state.fifo.push_front(entry);
        }
    }

    pub(super) fn take_along(&self, state: &mut State<T>, me: usize, count: usize) -> Arc<Shared<T>> {
        let State { fifo, workers, batches, .. } = state;
        let worker = workers[me].as_mut().expect("the calling worker");
        *batches += usize::from(!std::mem::replace(&mut worker.has_batch, true));
        worker.shared.batch.lock().extend(fifo.drain(..count));
        worker.shared.clone()
    }

    /// Returns entries that were taken but not handed out to the head of the queue, in their order.
    pub(crate) fn give_back(&self, entries: impl DoubleEndedIterator<Item = T>) {
        let mut state = self.state.lock();
        let mut late = Vec::new();
        for entry in entries.rev() {
            if state.closed {
                late.push(entry);
            } else {
                state.totals.removed -= 1;
                state.fifo.push_front(entry);
            }
        }
        self.release(state, false); // guard: what is given back settles
        late.into_iter().for_each(|entry| self.driver.dispose(entry)); // guard: what is given back late is freed
    }
}
