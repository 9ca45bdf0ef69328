//! How a sleeper is reached wherever it sleeps: on its word, or beside the watchdog timer on an *event*. An event is a
//! descriptor; it is made when it is first needed, and there may be none.
//!
//! Who signals sets the word, then asks for the event. Who goes to sleep asks for the event, then looks at the word.
//! The one who asks first makes it, under a lock. So either the signal finds the event that the other sleeps on, or the
//! other finds the word set.
//!
//! A sleeper that gets no event sleeps on the word. The next one to ask may get one, and would raise it in vain: once
//! somebody went without, a signal wakes the word as well.

use crate::sync::{Arc, Lock};
use std::sync::atomic::Ordering;

/// What a sleeper looks at, and sleeps on without the timer.
pub(super) trait Word: Default {
    fn load(&self, ordering: Ordering) -> u32;
    fn store(&self, value: u32, ordering: Ordering);
    /// Wakes who sleeps on it.
    fn wake(&self);
}

/// What a sleeper waits for beside the timer.
pub(super) trait Event: Sized {
    /// `None` while there is none to be had.
    fn make() -> Option<Self>;
    /// Wakes who waits for it, now or later.
    fn raise(&self);
}

pub(super) const EMPTY: u32 = 0;
const SIGNALLED: u32 = 1;

#[derive(Debug)]
pub(super) struct Signal<W, E> {
    pub(super) word: W,
    made: Lock<Made<E>>,
}

#[derive(Debug)]
struct Made<E> {
    event: Option<Arc<E>>,
    /// Somebody has asked for it in vain.
    went_without: bool,
}

impl<W: Word, E> Default for Signal<W, E> {
    fn default() -> Self {
        Signal { word: W::default(), made: Lock::new(Made { event: None, went_without: false }) }
    }
}

impl<W: Word, E: Event> Signal<W, E> {
    /// Before the sleeper can be found: an old signal is forgotten.
    pub(super) fn prepare(&self) {
        self.word.store(EMPTY, Ordering::Relaxed);
    }

    pub(super) fn is_set(&self) -> bool {
        self.word.load(Ordering::Acquire) == SIGNALLED
    }

    /// Wakes the sleeper. `by_event`: it may wait for the event.
    pub(super) fn set(&self, by_event: bool) {
        self.word.store(SIGNALLED, Ordering::Release);
        let event = by_event.then(|| self.event()).flatten();
        if let Some(event) = &event {
            event.raise(); // guard: a signal reaches who sleeps beside the timer
        }
        // guard: a signal reaches who found no descriptor to wait for [without: if event.is_none() {]
        if event.is_none() || self.made.lock().went_without {
            self.word.wake(); // guard: a signal reaches who sleeps on the word
        }
    }

    /// What the sleeper waits for beside the timer, made at the first call that can make it.
    pub(super) fn event(&self) -> Option<Arc<E>> {
        let mut made = self.made.lock();
        if made.event.is_none() {
            made.event = E::make().map(Arc::new);
            made.went_without |= made.event.is_none();
        }
        made.event.clone()
    }
}
