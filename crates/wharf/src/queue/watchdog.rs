//! The watchdog timer: it wakes the worker that stands by when all others are outside `get` for too long. Like the
//! handle that a train driver has to press again and again, it goes off when nobody comes back to push it on.
//!
//! Who changes something arms it where it is needed; a worker that comes back to lead an idle port disarms it, if its
//! last sleep was long. While packets flow and every worker comes back it is pushed on at most once per half tick and
//! does not go off, so watching costs a few microseconds per second of load and nothing at all when the port is idle.
//! (A constant 1 ms tick was measured at 570 us of CPU per message at 20 messages/s; this timer at about 11.) It is not
//! pushed beyond one tick after the stay of a worker that does not come back: `state.rs` says when it has to go off.
//!
//! The timer is a descriptor (a `timerfd` on Linux) because it has to be moved by one thread while another one sleeps
//! on it. The engine's leader may watch the same descriptor, so that a port whose only waiting thread leads is looked
//! after as well.

#[cfg(not(loom))]
mod system {
    use crate::queue::park::{Park, Woke};
    use crate::sync::Arc;
    use crate::sys;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
    use rustix::io::Errno;
    use std::time::{Duration, Instant};

    #[derive(Debug)]
    pub(crate) struct Watchdog {
        timer: OwnedFd,
        tick: Duration,
    }

    impl Watchdog {
        pub(crate) fn new(tick: Duration) -> std::io::Result<Watchdog> {
            Ok(Watchdog { timer: sys::timer()?, tick })
        }

        /// For the engine, which shows it to the leader.
        pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
            self.timer.as_fd()
        }

        pub(crate) fn tick(&self) -> Duration {
            self.tick
        }

        /// Goes off at that time, whatever was set before. The caller has just read the clock.
        pub(crate) fn arm(&self, at: Instant, clock: Instant) {
            // Zero would disarm it.
            let after = at.saturating_duration_since(clock).max(Duration::from_nanos(1));
            sys::set_timer(&self.timer, after);
        }

        pub(crate) fn disarm(&self) {
            sys::set_timer(&self.timer, Duration::ZERO);
        }

        /// Sleeps until the timer goes off, `park` is signalled or the deadline has passed.
        pub(crate) fn wait(&self, park: &Arc<Park>, deadline: Option<Instant>) -> Woke {
            let Some(event) = park.event() else {
                // No descriptor left: a tick at a time is dearer but correct, and the next one tries again.
                let tick = Instant::now() + self.tick;
                let until = deadline.map_or(tick, |at| at.min(tick));
                return match park.wait(Some(until)) {
                    Woke::TimedOut if until == tick => Woke::Tick,
                    other => other,
                };
            };
            let event = &*event;
            loop {
                if park.is_signalled() {
                    sys::lower(event);
                    return Woke::Signalled;
                }
                let timeout = match deadline {
                    None => None,
                    Some(at) => {
                        let left = at.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            return Woke::TimedOut;
                        }
                        Some(sys::timespec(left))
                    }
                };
                let mut fds = [PollFd::new(event, PollFlags::IN), PollFd::new(&self.timer, PollFlags::IN)];
                if let Err(Errno::INTR) = poll(&mut fds, timeout.as_ref()) {
                    continue;
                }
                let ready = fds.map(|fd| fd.revents().contains(PollFlags::IN));
                if ready[0] {
                    // Possibly an old signal: the word decides.
                    sys::lower(event);
                } else if ready[1] && self.consume() {
                    return Woke::Tick;
                }
            }
        }

        /// Takes the expiry; false when somebody re-armed the timer in between.
        pub(crate) fn consume(&self) -> bool {
            sys::take_expiry(&self.timer)
        }
    }
}

#[cfg(loom)]
mod system {
    use crate::queue::park::{Park, Woke};
    use crate::sync::{Arc, pass_until};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    /// Two sleepers could hand the timer to and fro for ever while a third thread is not let run. After this number of
    /// ticks a schedule goes on as it comes, which is fair, and its alternatives are not explored.
    const TICKS_EXPLORED: usize = 4;

    /// In a model an armed timer may go off at any moment, a disarmed one never does. One of those who sleep on it
    /// takes the expiry. What is shared here needs no tracking: it changes where a tracked lock is held or taken next.
    #[derive(Clone, Debug)]
    pub(crate) struct Watchdog(Arc<Timer>);

    #[derive(Debug)]
    struct Timer {
        armed: AtomicBool,
        due: Mutex<Option<Instant>>,
        stopped: AtomicBool,
        ticks: AtomicUsize,
        sleepers: Mutex<Vec<Arc<Park>>>,
    }

    impl Watchdog {
        pub(crate) fn new(_tick: Duration) -> std::io::Result<Watchdog> {
            Ok(Watchdog(Arc::new(Timer {
                armed: AtomicBool::new(false),
                due: Mutex::new(None),
                stopped: AtomicBool::new(false),
                ticks: AtomicUsize::new(0),
                sleepers: Mutex::new(Vec::new()),
            })))
        }

        pub(crate) fn tick(&self) -> Duration {
            Duration::from_millis(1)
        }

        /// From now on the timer does not go off: whatever happens nevertheless happens promptly.
        pub(crate) fn stop(&self) {
            self.0.stopped.store(true, Ordering::Relaxed);
            self.disarm();
        }

        pub(crate) fn arm(&self, at: Instant, _clock: Instant) {
            if self.0.stopped.load(Ordering::Relaxed) {
                return;
            }
            *self.0.due.lock().unwrap() = Some(at);
            self.0.armed.store(true, Ordering::Relaxed);
            let sleepers = self.0.sleepers.lock().unwrap().clone();
            sleepers.iter().for_each(|park| park.timer_armed());
        }

        pub(crate) fn disarm(&self) {
            self.0.armed.store(false, Ordering::Relaxed);
        }

        pub(crate) fn wait(&self, park: &Arc<Park>, deadline: Option<Instant>) -> Woke {
            self.0.sleepers.lock().unwrap().push(park.clone());
            let woke = park.sleep(deadline, Some(&self.0.armed));
            self.0.sleepers.lock().unwrap().retain(|sleeper| !Arc::ptr_eq(sleeper, park));
            if let (Woke::Tick, Some(due)) = (woke, *self.0.due.lock().unwrap()) {
                pass_until(due);
            }
            if woke == Woke::Tick && self.0.ticks.fetch_add(1, Ordering::Relaxed) == TICKS_EXPLORED {
                loom::skip_branch();
            }
            woke
        }
    }
}

pub(crate) use system::Watchdog;
