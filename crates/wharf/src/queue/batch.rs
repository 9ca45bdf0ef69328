//! Batches: what a worker took beside its first entry is *held* for it, in a list that others can reach.
//!
//! The worker walks through the list without the queue's lock. The entries that it has not come to go back to the head
//! of the queue when it returns to `get`, says that it blocks, is found blocked, or exits: a batch keeps no entry from
//! others.

use super::state::{Shared, State};
use super::{Driver, Queue};
use crate::sync::Arc;

/// What a worker has taken and not come to: see [`Queue::get_many`].
pub(crate) struct Held<T> {
    pub(super) holder: Holder<T>,
}

/// Whose `held` list it is; nobody's if it was empty from the start.
pub(super) type Holder<T> = Option<Arc<Shared<T>>>;

impl<T> Held<T> {
    #[inline]
    pub(crate) fn next(&self) -> Option<T> {
        self.holder.as_ref()?.held.lock().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.holder.as_ref().map_or(0, |holder| holder.held.lock().len())
    }

    pub(crate) fn drain(&self) -> Vec<T> {
        self.holder.as_ref().map_or_else(Vec::new, |holder| holder.held.lock().drain(..).collect())
    }
}

impl<T: Send, D: Driver<T>> Queue<T, D> {
    /// The rest of a worker's batch goes back to the head of the queue, in its order.
    pub(super) fn take_back_held(&self, state: &mut State<T>, index: usize) {
        let worker = state.worker(index);
        if !std::mem::take(&mut worker.holds) {
            return;
        }
        let shared = worker.shared.clone();
        state.holders -= 1;
        let mut held = shared.held.lock();
        state.totals.removed -= held.len() as u64;
        while let Some(entry) = held.pop_back() {
            state.fifo.push_front(entry);
        }
    }

    pub(super) fn hold(&self, state: &mut State<T>, me: usize, count: usize) -> Arc<Shared<T>> {
        let State { fifo, workers, holders, .. } = state;
        let worker = workers[me].as_mut().expect("the calling worker");
        *holders += usize::from(!std::mem::replace(&mut worker.holds, true));
        worker.shared.held.lock().extend(fifo.drain(..count));
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
