//! The time that sessions go by, and how they wait.
//!
//! A schedule of the tests (`schedules.rs`) gives its thread a world of its own, whose time passes as the schedule
//! says: who waits there has the world go on.

use crate::lock::{Condition, Guard, Lock};
#[cfg(test)]
use std::cell::RefCell;
#[cfg(test)]
use std::rc::Rc;
use std::time::{Duration, Instant};

/// What time it is, and what happens while somebody waits.
#[cfg(test)]
pub(super) trait World {
    fn now(&self) -> Instant;

    /// How long there has been a time.
    fn age(&self) -> Duration;

    /// Goes on for some time, no longer than so. No lock is held.
    fn pass(&self, at_most: Duration);
}

#[cfg(test)]
thread_local! {
    static WORLD: RefCell<Option<Rc<dyn World>>> = const { RefCell::new(None) };
}

/// Gives this thread a world, or takes it.
#[cfg(all(test, unix))]
pub(super) fn enter(world: Option<Rc<dyn World>>) {
    let before = WORLD.replace(world);
    drop(before);
}

#[cfg(test)]
fn world() -> Option<Rc<dyn World>> {
    WORLD.try_with(|world| world.borrow().clone()).ok().flatten()
}

pub(super) fn now() -> Instant {
    #[cfg(test)]
    if let Some(world) = world() {
        return world.now();
    }
    Instant::now()
}

/// How long ago that was.
pub(super) fn since(then: Instant) -> Duration {
    now().saturating_duration_since(then)
}

/// The system's coarse clock in milliseconds: its reading costs next to nothing, and it moves 100 to 1000 times a
/// second.
pub(super) fn coarse_ms() -> u64 {
    #[cfg(test)]
    if let Some(world) = world() {
        return u64::try_from(world.age().as_millis()).unwrap_or(u64::MAX) + 1;
    }
    crate::sys::coarse_ms()
}

/// Waits until it is notified, or so long.
pub(super) fn wait<'a, T>(
    lock: &'a Lock<T>,
    guard: Guard<'a, T>,
    notified: &Condition,
    at_most: Duration,
) -> Guard<'a, T> {
    #[cfg(test)]
    if let Some(world) = world() {
        drop(guard);
        world.pass(at_most);
        return lock.lock();
    }
    let _ = lock;
    notified.wait_at_most(guard, at_most)
}

pub(super) fn sleep(time: Duration) {
    #[cfg(test)]
    if let Some(world) = world() {
        return world.pass(time);
    }
    std::thread::sleep(time);
}
