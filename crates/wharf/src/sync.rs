//! The primitives the queue is built from, in two versions: the real ones, and under `--cfg loom` the ones a model
//! checker can see through. The protocol in [`crate::queue`] is written against this module only, so the code that
//! ships is the code that is explored.

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
        pub(crate) fn new(value: T) -> Self {
            Lock(Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> Guard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }

    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}

#[cfg(loom)]
mod model {
    use loom::sync::{Mutex, MutexGuard};
    use std::sync::OnceLock;
    use std::time::Instant;

    pub(crate) use std::sync::Arc;

    #[derive(Debug)]
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

    /// Time stands still in a model: whatever depends on it must be a nondeterministic return instead.
    pub(crate) fn now() -> Instant {
        static START: OnceLock<Instant> = OnceLock::new();
        *START.get_or_init(Instant::now)
    }
}

#[cfg(loom)]
pub(crate) use model::*;
#[cfg(not(loom))]
pub(crate) use real::*;
