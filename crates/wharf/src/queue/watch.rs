//! The dead-man's timer: what wakes the worker that stands by when all others are outside `get` for too long.
//!
//! A worker that leaves the port without a leader arms it; a worker that comes back to lead an idle port disarms it.
//! While packets flow it is pushed on at most once per half tick and never goes off, so watching costs a few
//! microseconds per second of load and nothing at all when the port is idle. (A constant 1 ms tick was measured at
//! 570 us of CPU per message at 20 messages/s; this timer at about 11.)
//!
//! The timer is a `timerfd` because it has to be moved by one thread while another one sleeps on it. The engine's
//! leader may watch the same descriptor, so that a port whose only waiting thread leads is looked after as well.

#[cfg(all(target_os = "linux", not(loom)))]
mod system {
    use crate::queue::park::{Park, Woke, retry, timespec};
    use crate::sync::Arc;
    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
    use rustix::io::Errno;
    use rustix::time::{
        Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, timerfd_create, timerfd_settime,
    };
    use std::time::{Duration, Instant};

    #[derive(Debug)]
    pub(crate) struct Watch {
        timer: OwnedFd,
        tick: Duration,
    }

    impl Watch {
        pub(crate) fn new(tick: Duration) -> std::io::Result<Watch> {
            let timer =
                timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
            Ok(Watch { timer, tick })
        }

        /// For the engine, which shows it to the leader.
        pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
            self.timer.as_fd()
        }

        pub(crate) fn tick(&self) -> Duration {
            self.tick
        }

        /// Goes off one tick from now, whatever was set before.
        pub(crate) fn arm(&self) {
            self.set(self.tick);
        }

        pub(crate) fn disarm(&self) {
            self.set(Duration::ZERO);
        }

        fn set(&self, after: Duration) {
            let zero = timespec(Duration::ZERO);
            let value = Itimerspec { it_interval: zero, it_value: timespec(after) };
            // Cannot fail with a valid descriptor and a valid time (timerfd_settime(2)).
            let _ = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &value);
        }

        /// Sleeps until the timer goes off, `park` is signalled or the deadline has passed.
        pub(crate) fn wait(&self, park: &Arc<Park>, deadline: Option<Instant>) -> Woke {
            let Some(event) = park.event() else {
                // No descriptor left: a constant tick is dearer but correct.
                let tick = Instant::now() + self.tick;
                let until = deadline.map_or(tick, |at| at.min(tick));
                return match park.wait(Some(until)) {
                    Woke::TimedOut if until == tick => Woke::Tick,
                    other => other,
                };
            };
            loop {
                if park.is_signalled() {
                    let _ = rustix::io::read(event, &mut [0u8; 8]);
                    return Woke::Signalled;
                }
                let timeout = match deadline {
                    None => None,
                    Some(at) => {
                        let left = at.saturating_duration_since(Instant::now());
                        if left.is_zero() {
                            return Woke::TimedOut;
                        }
                        Some(timespec(left))
                    }
                };
                let mut fds = [PollFd::new(event, PollFlags::IN), PollFd::new(&self.timer, PollFlags::IN)];
                if let Err(Errno::INTR) = poll(&mut fds, timeout.as_ref()) {
                    continue;
                }
                let ready = fds.map(|fd| fd.revents().contains(PollFlags::IN));
                if ready[0] {
                    // Possibly an old signal: the word decides.
                    let _ = rustix::io::read(event, &mut [0u8; 8]);
                } else if ready[1] && self.consume() {
                    return Woke::Tick;
                }
            }
        }

        /// Takes the expiry; false when somebody re-armed the timer in between.
        pub(crate) fn consume(&self) -> bool {
            retry(|| rustix::io::read(&self.timer, &mut [0u8; 8])).is_ok()
        }
    }
}

#[cfg(loom)]
mod system {
    use crate::queue::park::{Park, Woke};
    use crate::sync::Arc;
    use loom::sync::Mutex;
    use std::time::{Duration, Instant};

    /// In a model an armed timer may go off at any moment, a disarmed one never does.
    #[derive(Debug)]
    pub(crate) struct Watch {
        state: Mutex<(bool, Option<Arc<Park>>)>,
    }

    impl Watch {
        pub(crate) fn new(_tick: Duration) -> std::io::Result<Watch> {
            Ok(Watch { state: Mutex::new((false, None)) })
        }

        pub(crate) fn tick(&self) -> Duration {
            Duration::from_millis(1)
        }

        pub(crate) fn arm(&self) {
            self.set(true);
        }

        pub(crate) fn disarm(&self) {
            self.set(false);
        }

        fn set(&self, armed: bool) {
            let mut state = self.state.lock().unwrap();
            state.0 = armed;
            if let Some(park) = &state.1 {
                park.set_timer(armed);
            }
        }

        pub(crate) fn is_armed(&self) -> bool {
            self.state.lock().unwrap().0
        }

        pub(crate) fn wait(&self, park: &Arc<Park>, deadline: Option<Instant>) -> Woke {
            {
                let mut state = self.state.lock().unwrap();
                state.1 = Some(park.clone());
                park.set_timer(state.0);
            }
            match park.wait_timer(deadline) {
                Woke::Tick => {
                    self.consume();
                    Woke::Tick
                }
                other => other,
            }
        }

        pub(crate) fn consume(&self) -> bool {
            std::mem::take(&mut self.state.lock().unwrap().0)
        }
    }
}

pub(crate) use system::Watch;
