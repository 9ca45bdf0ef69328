//! How one worker sleeps until somebody signals it: one word (a futex on Linux) for each worker, so that exactly the thread that
//! was picked from the stack wakes, and no other.
//!
//! The waiter calls [`Park::prepare`] under the queue's lock, before it becomes visible on the stack, and sleeps
//! after the lock is released. A signal sent in between is kept in the word, so it cannot be lost.

/// Why a sleep ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woke {
    Signalled,
    TimedOut,
    /// Only from [`crate::queue::watch::Watch::wait`]: the dead-man's timer went off.
    Tick,
}

#[cfg(not(loom))]
mod system {
    use super::Woke;
    use crate::engine::system::{self, Word};
    use rustix::fd::OwnedFd;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Mutex, OnceLock, PoisonError};
    use std::time::Instant;

    const EMPTY: u32 = 0;
    const SIGNALLED: u32 = 1;

    #[derive(Debug, Default)]
    pub(crate) struct Park {
        word: Word,
        /// Made when the worker first stands by: it then sleeps on the dead-man's timer, where a futex cannot reach it.
        /// Where no descriptor is free it sleeps on its word, tick by tick, and tries again at the next.
        event: OnceLock<OwnedFd>,
        making: Mutex<()>,
        /// There was none at some time: the worker may sleep on its word although there is one by now.
        went_without: AtomicBool,
    }

    impl Park {
        pub(crate) fn prepare(&self) {
            self.word.store(EMPTY, Ordering::Relaxed);
        }

        pub(crate) fn is_signalled(&self) -> bool {
            self.word.load(Ordering::Acquire) == SIGNALLED
        }

        /// Wakes the worker wherever it sleeps. `standing_by` is what the queue's state said under its lock.
        pub(crate) fn signal(&self, standing_by: bool) {
            self.word.store(SIGNALLED, Ordering::Release);
            // Made here if the sleeper has not come to it yet. A look whether it has, without the lock that `event` takes,
            // would race with its look at the word, and each could miss the other.
            match standing_by.then(|| self.event()).flatten() {
                Some(event) => {
                    system::raise(event);
                    // Set before the event was, so that who finds the event sees it.
                    if self.went_without.load(Ordering::Relaxed) {
                        self.word.wake();
                    }
                }
                None => self.word.wake(),
            }
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
                self.word.sleep(EMPTY, timeout);
            }
        }

        /// The descriptor by which a standing-by worker is woken; `None` while the process has no descriptor left.
        pub(crate) fn event(&self) -> Option<&OwnedFd> {
            if self.event.get().is_none() {
                let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
                if self.event.get().is_none() {
                    match system::event() {
                        Ok(event) => self.event.set(event).expect("made under the lock only"),
                        Err(_) => self.went_without.store(true, Ordering::Relaxed),
                    }
                }
            }
            self.event.get()
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

        /// The dead-man's timer was armed: the sleeper looks at it.
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
