//! The primitives the queue is built from, in two versions: the real ones, and under `--cfg loom` the ones a model
//! checker can see through. The protocol in [`crate::queue`] is written against this module only, so the code that
//! ships is the code that is explored.

use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

#[cfg(not(loom))]
mod real {
    use std::sync::{Mutex, MutexGuard, PoisonError};
    use std::time::Instant;

    pub(crate) use std::sync::Arc;

    /// A mutex that ignores poisoning: user code never runs under one of our locks, so a panic cannot leave the
    /// state half changed, and one panicking handler must not take the port down.
    #[derive(Debug, Default)]
    pub(crate) struct Lock<T>(Mutex<T>);

    pub(crate) type Guard<'a, T> = MutexGuard<'a, T>;

    impl<T> Lock<T> {
        pub(crate) const fn new(value: T) -> Self {
            Lock(Mutex::new(value))
        }

        #[inline]
        pub(crate) fn lock(&self) -> Guard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }

        #[cfg_attr(windows, allow(dead_code, reason = "there are no forked children there"))]
        pub(crate) fn get_mut(&mut self) -> &mut T {
            self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
        }
    }

    pub(crate) fn now() -> Instant {
        #[cfg(all(any(test, feature = "fake"), unix))]
        if let Some(time) = STANDING.try_with(std::cell::Cell::get).ok().flatten() {
            return time;
        }
        Instant::now()
    }

    #[cfg(all(any(test, feature = "fake"), unix))]
    thread_local! {
        static STANDING: std::cell::Cell<Option<Instant>> = const { std::cell::Cell::new(None) };
    }

    /// For this thread the time stands still from now on, at that moment, or goes on: what a schedule does must not
    /// depend on how fast it is played.
    #[cfg(all(any(test, feature = "fake"), unix))]
    pub(crate) fn stand_still(at: Option<Instant>) {
        STANDING.set(at);
    }
}

#[cfg(loom)]
mod model {
    use loom::sync::{Mutex, MutexGuard};
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::time::Instant;

    pub(crate) use std::sync::Arc;

    #[derive(Debug, Default)]
    pub(crate) struct Lock<T>(Mutex<T>);

    pub(crate) type Guard<'a, T> = MutexGuard<'a, T>;

    impl<T> Lock<T> {
        pub(crate) fn new(value: T) -> Self {
            Lock(Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> Guard<'_, T> {
            self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
        }
    }

    loom::thread_local! {
        static CLOCK: Cell<Option<Instant>> = Cell::new(None);
    }

    /// In a model each thread has a clock of its own, which stands still but where the thread sleeps: whatever depends
    /// on time is a return that may come at any moment.
    pub(crate) fn now() -> Instant {
        static START: OnceLock<Instant> = OnceLock::new();
        let clock = CLOCK.try_with(Cell::get).ok().flatten();
        clock.unwrap_or_else(|| *START.get_or_init(Instant::now))
    }

    /// The calling thread has slept until then.
    pub(crate) fn pass_until(at: Instant) {
        let at = at.max(now());
        CLOCK.with(|clock| clock.set(Some(at)));
    }
}

/// A lock, and a condition that threads wait for. It ignores poisoning, as `Lock` does. The real one in models too: no
/// model waits for one.
#[derive(Debug, Default)]
pub(crate) struct Monitor<T> {
    value: std::sync::Mutex<T>,
    changed: std::sync::Condvar,
}

impl<T> Monitor<T> {
    #[cfg(all(unix, not(loom)))]
    pub(crate) fn new(value: T) -> Self {
        Monitor { value: std::sync::Mutex::new(value), changed: std::sync::Condvar::new() }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        self.value.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until it is notified or the time is over, or for less; `None` is no limit.
    #[cfg(any(windows, all(unix, not(any(target_os = "linux", target_os = "android"))), feature = "fake"))]
    pub(crate) fn wait<'a>(&'a self, guard: MutexGuard<'a, T>, timeout: Option<Duration>) -> MutexGuard<'a, T> {
        match timeout {
            None => self.changed.wait(guard).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => self.changed.wait_timeout(guard, timeout).unwrap_or_else(PoisonError::into_inner).0,
        }
    }

    /// Waits until the condition is over, or the time is; `None` is no limit.
    pub(crate) fn wait_while<'a>(
        &'a self,
        guard: MutexGuard<'a, T>,
        timeout: Option<Duration>,
        condition: impl FnMut(&mut T) -> bool,
    ) -> MutexGuard<'a, T> {
        match timeout {
            None => self.changed.wait_while(guard, condition).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout_while(guard, timeout, condition);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    #[cfg(all(unix, not(loom)))]
    pub(crate) fn notify_one(&self) {
        self.changed.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.changed.notify_all();
    }
}

#[cfg(loom)]
pub(crate) use model::*;
#[cfg(not(loom))]
pub(crate) use real::*;
