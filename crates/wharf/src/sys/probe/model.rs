//! A probe that a model sets itself.

use super::ThreadState;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// In a model a thread is taken to be blocked, the harder case for the counting, while it does not say otherwise.
#[derive(Debug)]
pub(crate) struct Probe(Arc<AtomicBool>);

loom::thread_local! {
    static COMPUTES: Arc<AtomicBool> = Arc::new(AtomicBool::new(false));
}

/// What looks at the calling thread show from now on.
pub(crate) fn compute(computes: bool) {
    COMPUTES.with(|flag| flag.store(computes, Ordering::Relaxed));
}

impl Probe {
    pub(crate) fn current() -> Probe {
        Probe(COMPUTES.with(Arc::clone))
    }

    pub(crate) fn thread(&self) -> i32 {
        0
    }

    pub(crate) fn look(&self) -> ThreadState {
        if self.0.load(Ordering::Relaxed) { ThreadState::Running } else { ThreadState::Blocked }
    }

    pub(crate) fn sleeps_in(&self) -> Option<String> {
        None
    }
}
