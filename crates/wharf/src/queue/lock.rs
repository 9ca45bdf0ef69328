//! The lock of the queue's state, which several processors take for a few dozen nanoseconds, again and again:
//! exponential back-off, then park.
//!
//! Each attempt at a lock that another processor uses takes its cache lines away. So a thread that finds the lock taken
//! waits before it tries again, longer each time: the processor that has the lines does a run of insertions, or of
//! batches, with them, and they are handed over once for all of these. A thread that tried all the time, or was let in
//! by turns, would cost a hand-over for each; a burst then takes twice to six times as long
//! (docs/decisions/0008-back-off.md).
//!
//! Nobody has a claim to be next. A wait is short because the lock is free most of the time, not because of a place in
//! a row. A thread that has tried in vain for long parks: it sleeps on the mutex.

#[cfg(not(loom))]
mod system {
    use crate::sync::Guard;
    use std::hint::spin_loop;
    use std::sync::{Mutex, PoisonError, TryLockError};

    /// How long a thread that finds the lock taken waits before it tries again, first and at most, in processor pauses,
    /// which take 10 to 130 ns each; and how often it tries before it parks. In all 5 to 50 us, about what parking
    /// costs.
    const FIRST_PAUSE: u32 = 4;
    const LONGEST_PAUSE: u32 = 32;
    const TRIES: u32 = 16;

    #[derive(Debug)]
    pub(crate) struct BackoffLock<T>(Mutex<T>);

    impl<T> BackoffLock<T> {
        pub(crate) fn new(value: T) -> Self {
            BackoffLock(Mutex::new(value))
        }

        #[inline]
        pub(crate) fn lock(&self) -> Guard<'_, T> {
            match self.try_lock() {
                Some(guard) => guard,
                None => self.wait(),
            }
        }

        /// Poisoning is ignored, as in [`crate::sync::Lock`].
        #[inline]
        fn try_lock(&self) -> Option<Guard<'_, T>> {
            match self.0.try_lock() {
                Ok(guard) => Some(guard),
                Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => None,
            }
        }

        #[cold]
        #[inline(never)]
        fn wait(&self) -> Guard<'_, T> {
            let mut pause = FIRST_PAUSE;
            for _ in 0..TRIES {
                (0..pause).for_each(|_| spin_loop());
                if let Some(guard) = self.try_lock() {
                    return guard;
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[cfg(not(loom))]
pub(super) use system::BackoffLock;

/// A model has no cache lines.
#[cfg(loom)]
pub(super) type BackoffLock<T> = crate::sync::Lock<T>;
