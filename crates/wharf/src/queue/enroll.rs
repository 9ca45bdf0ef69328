//! The threads that belong to the queue: how one comes to it, leaves it, and says that it blocks.

use super::park::Park;
use super::state::{Shared, Worker};
use super::{Driver, Queue};
use crate::sync::{Arc, Lock, now};
use crate::sys::probe::Probe;
use crate::threads::{Bindable, WorkerId};
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;

impl<T: Send, D: Driver<T>> Bindable for Queue<T, D> {
    fn enroll(&self) -> WorkerId {
        let shared = Arc::new(Shared {
            park: Arc::new(Park::default()),
            probe: Probe::current(),
            batch: Lock::new(VecDeque::new()),
            note: AtomicU64::new(0),
        });
        let mut worker = Worker {
            shared,
            generation: 0,
            counted: false,
            promised: false,
            stay: 0,
            seen: now(),
            written_off: false,
            blocking: false,
            interrupted: false,
            left_at: None,
            took: 0,
            has_batch: false,
            blocked_since: None,
        };
        let mut state = self.state.lock();
        state.enrolled += 1;
        let generation = state.enrolled;
        worker.generation = generation;
        let number = match state.workers.iter().position(Option::is_none) {
            Some(free) => {
                state.workers[free] = Some(worker);
                free
            }
            None => {
                state.workers.push(Some(worker));
                state.workers.len() - 1
            }
        };
        WorkerId { number, generation }
    }

    /// The thread exits or moves to another port: its slot and its batch go back (C-02, C-12).
    fn dismiss(&self, worker: usize) {
        let mut state = self.state.lock();
        self.take_back_batch(&mut state, worker); // guard: an exit gives the batch back
        let gone = state.workers[worker].take();
        state.written_off -= usize::from(gone.as_ref().is_some_and(|worker| worker.written_off));
        if gone.is_some_and(|worker| worker.counted) {
            state.active -= 1; // guard: an exit gives the slot back
        }
        self.release(state, false); // guard: an exit settles
    }

    fn enter_blocking(&self, worker: usize) -> bool {
        let mut state = self.state.lock();
        self.take_back_batch(&mut state, worker); // guard: a worker that says it blocks holds nothing hostage
        let me = state.worker(worker);
        // guard: the inner one of two calls of `blocking` does not end the outer [without: if me.stay == 0 {]
        if me.stay == 0 || me.blocking {
            return false;
        }
        me.blocking = true;
        // guard: a worker in `blocking` is not counted again by a look [without: let written_off = me.written_off;]
        let written_off = std::mem::take(&mut me.written_off);
        me.blocked_since = Some(now());
        me.left_at = None;
        let counted = std::mem::take(&mut me.counted);
        state.written_off -= usize::from(written_off);
        if counted {
            state.active -= 1; // guard: a worker in `blocking` gives its slot back
        }
        self.release(state, true); // guard: a worker that says it blocks settles
        true
    }

    fn leave_blocking(&self, worker: usize) {
        let mut state = self.state.lock();
        let me = state.worker(worker);
        // guard: a `get` inside `blocking` is counted once [without: if !std::mem::take(&mut me.blocking) && false {]
        if !std::mem::take(&mut me.blocking) {
            // A `get` inside the closure has counted it anew.
            return;
        }
        me.blocked_since = None;
        let counted = std::mem::replace(&mut me.counted, true);
        let clock = state.clock;
        state.worker(worker).seen = clock;
        if !counted {
            state.active += 1;
        }
        self.release(state, false);
    }
}
