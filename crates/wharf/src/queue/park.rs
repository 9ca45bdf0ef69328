//! How one worker sleeps until somebody signals it: one word (a futex on Linux) for each worker, so that exactly the
//! thread that was picked from the stack wakes, and no other.
//!
//! The waiter calls [`Park::prepare`] under the queue's lock, before it becomes visible on the stack, and sleeps
//! after the lock is released. A signal sent in between is kept in the word, so it cannot be lost.

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woke {
    Signalled,
    TimedOut,
    /// Only from [`crate::queue::watchdog::Watchdog::wait`]: the watchdog timer went off.
    Tick,
}

#[cfg(not(loom))]
mod system {
    use super::Woke;
    use crate::queue::signal::{self, EMPTY, Event, Signal};
    use crate::sync::Arc;
    use crate::sys::{self, Word};
    use rustix::fd::OwnedFd;
    use std::sync::atomic::Ordering;
    use std::time::Instant;

    impl signal::Word for Word {
        fn load(&self, ordering: Ordering) -> u32 {
            Word::load(self, ordering)
        }

        fn store(&self, value: u32, ordering: Ordering) {
            Word::store(self, value, ordering);
        }

        fn wake(&self) {
            Word::wake(self);
        }
    }

    impl Event for OwnedFd {
        fn make() -> Option<OwnedFd> {
            sys::event().ok()
        }

        fn raise(&self) {
            sys::raise(self);
        }
    }

    #[derive(Debug, Default)]
    pub(crate) struct Park(Signal<Word, OwnedFd>);

    impl Park {
        pub(crate) fn prepare(&self) {
            self.0.prepare();
        }

        pub(crate) fn is_signalled(&self) -> bool {
            self.0.is_set()
        }

        /// Wakes the worker wherever it sleeps. `standing_by` is what the queue's state said under its lock.
        pub(crate) fn signal(&self, standing_by: bool) {
            self.0.set(standing_by);
        }

        pub(crate) fn wait(&self, deadline: Option<Instant>) -> Woke {
            loop {
                if self.is_signalled() {
                    return Woke::Signalled;
                }
                let timeout = match deadline {
                    None => None,
                    Some(at) => {
                        let left = at.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            return Woke::TimedOut;
                        }
                        Some(left)
                    }
                };
                self.0.word.sleep(EMPTY, timeout);
            }
        }

        /// The descriptor by which a worker that stands by is woken; `None` while the process has no descriptor left.
        pub(crate) fn event(&self) -> Option<Arc<OwnedFd>> {
            self.0.event()
        }
    }
}

#[cfg(loom)]
mod system {
    use super::Woke;
    use crate::sync::pass_until;
    use loom::sync::{Condvar, Mutex};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Instant;

    #[derive(Debug)]
    pub(crate) struct Park {
        signalled: Mutex<bool>,
        changed: Condvar,
    }

    impl Default for Park {
        fn default() -> Self {
            Park { signalled: Mutex::new(false), changed: Condvar::new() }
        }
    }

    impl Park {
        pub(crate) fn prepare(&self) {
            *self.signalled.lock().unwrap() = false;
        }

        pub(crate) fn signal(&self, _standing_by: bool) {
            *self.signalled.lock().unwrap() = true;
            self.changed.notify_all();
        }

        pub(crate) fn is_signalled(&self) -> bool {
            *self.signalled.lock().unwrap()
        }

        /// The watchdog timer was armed: the sleeper looks at it.
        pub(crate) fn timer_armed(&self) {
            drop(self.signalled.lock().unwrap());
            self.changed.notify_all();
        }

        pub(crate) fn wait(&self, deadline: Option<Instant>) -> Woke {
            self.sleep(deadline, None)
        }

        /// A deadline may pass, and an armed timer go off, at any moment: the sleeper yields, and the explored
        /// schedules decide what the others have done when it looks again.
        pub(crate) fn sleep(&self, deadline: Option<Instant>, armed: Option<&AtomicBool>) -> Woke {
            let mut signalled = self.signalled.lock().unwrap();
            loop {
                if *signalled {
                    return Woke::Signalled;
                }
                let is_armed = armed.is_some_and(|armed| armed.load(Ordering::Relaxed));
                if !is_armed && deadline.is_none() {
                    signalled = self.changed.wait(signalled).unwrap();
                    continue;
                }
                drop(signalled);
                loom::thread::yield_now();
                signalled = self.signalled.lock().unwrap();
                if *signalled {
                    return Woke::Signalled;
                }
                if armed.is_some_and(|armed| armed.swap(false, Ordering::Relaxed)) {
                    return Woke::Tick;
                }
                if let Some(at) = deadline {
                    pass_until(at);
                    return Woke::TimedOut;
                }
            }
        }
    }
}

pub(crate) use system::*;
