//! The one kind of lock that sessions have, and the condition that goes with it.
//!
//! Both ignore poisoning. Code of the program's runs under two of them: the one that keeps a session's handlers apart,
//! and the one of what makes a client's sessions. A panic there is caught, and ends the session or the attempt. Under
//! all others nothing of the program's runs, so a panic leaves no state half changed, and one handler that panics does
//! not take others down.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

/// A mutex.
#[derive(Debug, Default)]
pub(crate) struct Lock<T>(Mutex<T>);

pub(crate) type Guard<'a, T> = MutexGuard<'a, T>;

/// What threads wait for under a lock.
#[derive(Debug, Default)]
pub(crate) struct Condition(Condvar);

impl<T> Lock<T> {
    pub(crate) const fn new(value: T) -> Lock<T> {
        Lock(Mutex::new(value))
    }

    #[inline]
    pub(crate) fn lock(&self) -> Guard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `None`: somebody holds it.
    pub(crate) fn try_lock(&self) -> Option<Guard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.0.get_mut().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Condition {
    pub(crate) const fn new() -> Condition {
        Condition(Condvar::new())
    }

    pub(crate) fn wait<'a, T>(&self, guard: Guard<'a, T>) -> Guard<'a, T> {
        self.0.wait(guard).unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wait_at_most<'a, T>(&self, guard: Guard<'a, T>, time: Duration) -> Guard<'a, T> {
        self.0.wait_timeout(guard, time).unwrap_or_else(PoisonError::into_inner).0
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}
