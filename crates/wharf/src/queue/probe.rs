//! Is a worker that has been outside `get` for a while blocked, or computing?
//!
//! The kernel tells nobody that a thread blocks, so the queue looks: when the dead-man's timer went off, or just before, in
//! passing. Reading `/proc/self/task/TID/stat` costs about 3 us. A thread that lost the processor to another shows `R` and
//! keeps its slot; one that sleeps, waits for the disk or is stopped gives it up (rows C-08, C-13). Where `/proc` is
//! not mounted the thread's processor clock stands in for it: no progress between two looks counts as blocked.

/// What a look at a thread showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadState {
    Running,
    Blocked,
    Gone,
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(loom)))]
#[path = "probe/linux.rs"]
mod system;
#[cfg(all(not(any(target_os = "linux", target_os = "android")), not(loom)))]
#[path = "probe/kqueue.rs"]
mod system;

#[cfg(loom)]
mod system {
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
}

pub(crate) use system::Probe;
#[cfg(all(test, loom))]
pub(crate) use system::compute;
