//! The lock of the queue's state, which several processors take for a few dozen nanoseconds, again and again.
//!
//! Each look at a lock that another processor uses takes its cache lines away. So who finds it taken looks rarely, and
//! more rarely each time: who has the lines does a run of insertions, or of batches, with them, and they are handed over
//! once for all of these. To look all the time, or to be let in by turns, costs a hand-over for each; a burst then
//! takes twice to six times as long (docs/decisions/0008-a-lock-for-runs.md).
//!
//! Nobody has a claim to be next. A wait is short because the lock is free most of the time, not because of its place;
//! where it is not, a thread that has looked in vain for long sleeps on the mutex, as it would have done before.

#[cfg(not(loom))]
mod system {
    use crate::sync::Guard;
    use std::hint::spin_loop;
    use std::sync::{Mutex, PoisonError, TryLockError};

    /// Exponential back-off: how long a thread that finds the lock taken waits before it looks again, first and at most, in
    /// processor pauses, which take 10 to 130 ns each; and how often it looks before it sleeps. In all 5 to 50 us, about what
    /// a sleep costs.
    const FIRST_PAUSE: u32 = 4;
    const LONGEST_PAUSE: u32 = 32;
    const LOOKS: u32 = 16;

    #[derive(Debug)]
    pub(crate) struct BusyLock<T>(Mutex<T>);

    impl<T> BusyLock<T> {
        pub(crate) fn new(value: T) -> Self {
            BusyLock(Mutex::new(value))
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
            for _ in 0..LOOKS {
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
pub(super) use system::BusyLock;

/// A model has no cache lines.
#[cfg(loom)]
pub(super) type BusyLock<T> = crate::sync::Lock<T>;
