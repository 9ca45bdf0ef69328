//! Timers: operations whose time comes. They lie in a wheel; the engine is told a deadline, at most a tick after the
//! earliest of them. It is told a later one only when it asks: a timer that begins and is cancelled beside an earlier
//! one touches nothing but its place in the wheel.

use super::wheel::{TICK, Wheel};
use super::{Completion, Kind, Payload, Sink};
use crate::sys::errno::{EBADF, ECANCELED, EINVAL};
use std::time::{Duration, Instant};

/// The shortest period of a timer. One of no time would be one packet after another, and what is shorter than this
/// could not be counted rightly.
pub const PERIOD_LEAST: Duration = Duration::from_micros(1);

/// A timer's or a signal's answer to "who else holds the token?": called, under a lock, before every packet but the
/// last, so that a token that counts its holders can count one more. Must not call back into the port.
pub type Retain = fn(usize);

/// An operation that may deliver several packets.
#[derive(Debug)]
pub(crate) struct Repeating {
    pub(crate) key: usize,
    pub(crate) token: usize,
    pub(crate) sink: Sink,
    pub(crate) retain: Retain,
}

impl Repeating {
    pub(crate) fn packet(&self, kind: Kind, bytes: usize, more: bool) -> Completion {
        if more {
            (self.retain)(self.token);
        }
        let (key, token) = (self.key, self.token);
        Completion { key, token, bytes, error: 0, kind, device: 0, more, payload: Payload::None, named_memory: false }
    }

    pub(crate) fn ended(self, kind: Kind) -> (Sink, Completion) {
        let mut completion = self.packet(kind, 0, false);
        completion.error = ECANCELED;
        (self.sink, completion)
    }
}

#[derive(Debug)]
enum Action {
    Once(Repeating),
    Every { timer: Repeating, period: Duration, base: Instant, reported: u64 },
    ResumeAccepting,
}

impl Action {
    /// The last packet.
    fn ended(self) -> Option<(Sink, Completion)> {
        match self {
            Action::Once(timer) | Action::Every { timer, .. } => Some(timer.ended(Kind::Elapsed)),
            Action::ResumeAccepting => None,
        }
    }
}

/// What tells the time, and wakes the port when it has come.
pub(crate) trait Clock {
    fn now(&self) -> Instant;
    /// The earliest deadline is this one from now on.
    fn wake_at(&self, deadline: Option<Instant>);
}

/// What has come of timers whose time has come, in this order.
pub(crate) enum Due {
    Elapsed(Sink, Completion),
    /// A periodic timer: its packet is made when it is taken, by [`Timers::take_tick`].
    Tick(u64),
    /// Accepting is tried again.
    ResumeAccepting,
}

/// What the clock cannot express will not come: a century is as good.
fn after_now(now: Instant, after: Duration) -> Instant {
    now.checked_add(after).unwrap_or(now + Duration::from_secs(3_000_000_000))
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// Parked: periodic timers whose packet is queued. They go on when it is taken, so that an idle consumer finds one
    /// packet and not a thousand.
    wheel: Wheel<Action>,
    /// The deadline that the engine knows. It may be that of a timer which is over.
    armed: Option<Instant>,
    /// Accepting is to be tried again, and has its place in the wheel.
    resuming: bool,
    closed: bool,
}

impl Timers {
    /// The engine's deadline, for something that begins at this time. One that is earlier by less than a tick is not
    /// worth a call.
    fn arm(&mut self, clock: &impl Clock, at: Instant) {
        let suffices = self.armed.is_some_and(|armed| armed.checked_duration_since(at).is_none_or(|late| late < TICK));
        if !suffices {
            self.armed = Some(at);
            clock.wake_at(self.armed);
        }
    }

    /// Begins a timer and returns its serial number, which is even. Fails with `EINVAL` (a period shorter than
    /// [`PERIOD_LEAST`]) and [`EBADF`] (closed).
    pub(crate) fn begin(
        &mut self,
        clock: &impl Clock,
        timer: Repeating,
        after: Duration,
        period: Option<Duration>,
    ) -> Result<u64, i32> {
        if period.is_some_and(|period| period < PERIOD_LEAST) {
            return Err(EINVAL);
        }
        if self.closed {
            return Err(EBADF);
        }
        let time = clock.now();
        let at = after_now(time, after);
        let action = match period {
            None => Action::Once(timer),
            Some(period) => Action::Every { timer, period, base: at, reported: 0 },
        };
        let serial = self.wheel.add(time, at, action) << 1;
        self.arm(clock, at);
        Ok(serial)
    }

    /// Accepting is to be tried again after this time, if that is not on the list yet.
    #[cfg_attr(windows, allow(dead_code, reason = "accepting is the kernel's own business there, and never paused"))]
    pub(crate) fn resume_accepting_after(&mut self, clock: &impl Clock, after: Duration) {
        if !self.closed && !std::mem::replace(&mut self.resuming, true) {
            let time = clock.now();
            self.wheel.add(time, time + after, Action::ResumeAccepting);
            self.arm(clock, time + after);
        }
    }

    /// A deadline has passed: takes those whose time has come.
    pub(crate) fn take_due(&mut self, clock: &impl Clock) -> Vec<Due> {
        let names = self.wheel.due(clock.now());
        let mut due = Vec::with_capacity(names.len());
        for name in names {
            if let Some(Action::Every { .. }) = self.wheel.parked(name) {
                due.push(Due::Tick(name << 1));
                continue;
            }
            match self.wheel.remove(name) {
                Some(Action::Once(timer)) => {
                    let completion = timer.packet(Kind::Elapsed, 1, false);
                    due.push(Due::Elapsed(timer.sink, completion));
                }
                Some(Action::ResumeAccepting) => {
                    self.resuming = false;
                    due.push(Due::ResumeAccepting);
                }
                Some(Action::Every { .. }) | None => {
                    unreachable!("a name that is due has its value, and ticks are parked")
                }
            }
        }
        // The engine has none any more.
        self.armed = None;
        if let Some(earliest) = self.wheel.earliest() {
            self.arm(clock, earliest);
        }
        due
    }

    /// The packet of a periodic timer is handed out: its count is taken now, and the timer goes on. `None`: it was
    /// cancelled meanwhile, and its last packet is on the way.
    pub(crate) fn take_tick(&mut self, clock: &impl Clock, serial: u64) -> Option<(Sink, Completion)> {
        let name = serial >> 1;
        let Some(Action::Every { timer, period, base, reported }) = self.wheel.parked(name) else { return None };
        let elapsed = clock.now().saturating_duration_since(*base);
        let total = u64::try_from(elapsed.as_nanos() / period.as_nanos()).unwrap_or(u64::MAX - 1) + 1;
        let count = total.saturating_sub(*reported).max(1);
        *reported += count;
        let behind = period.as_nanos().saturating_mul(u128::from(*reported));
        let next = *base + Duration::from_nanos(u64::try_from(behind).unwrap_or(u64::MAX / 4));
        let completion = timer.packet(Kind::Elapsed, usize::try_from(count).unwrap_or(usize::MAX), true);
        let sink = timer.sink.clone();
        self.wheel.wait_again(name, next);
        self.arm(clock, next);
        Some((sink, completion))
    }

    /// A timer that is outstanding elapses so much later than now, and a periodic one from then on each period. False:
    /// there is none.
    pub(crate) fn reset(&mut self, clock: &impl Clock, serial: u64, after: Duration) -> bool {
        let name = serial >> 1;
        let is_parked = self.wheel.parked(name).is_some();
        let at = after_now(clock.now(), after);
        match self.wheel.get_mut(name) {
            None | Some(Action::ResumeAccepting) => return false,
            Some(Action::Once(_)) => {}
            Some(Action::Every { period, base, reported, .. }) => {
                // The packet that is queued counts one period, and the next comes at the time.
                *base = if is_parked { at.checked_sub(*period).unwrap_or(at) } else { at };
                *reported = 0;
            }
        }
        self.wheel.move_to(name, at);
        if !is_parked {
            self.arm(clock, at);
        }
        true
    }

    /// Ends a timer: its last packet. `None`: there is none.
    pub(crate) fn cancel(&mut self, serial: u64) -> Option<(Sink, Completion)> {
        self.wheel.remove(serial >> 1).and_then(Action::ended)
    }

    /// The port is closed: the last packets of all, and no further timer begins.
    pub(crate) fn close(&mut self, clock: &impl Clock) -> Vec<(Sink, Completion)> {
        self.closed = true;
        clock.wake_at(None);
        self.wheel.clear().into_iter().filter_map(Action::ended).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    /// A clock that is set, and remembers what it was told.
    struct Set {
        now: Cell<Instant>,
        told: RefCell<Vec<Option<Instant>>>,
    }

    impl Clock for Set {
        fn now(&self) -> Instant {
            self.now.get()
        }

        fn wake_at(&self, deadline: Option<Instant>) {
            self.told.borrow_mut().push(deadline);
        }
    }

    impl Set {
        fn new() -> Self {
            Set { now: Cell::new(Instant::now()), told: RefCell::default() }
        }

        /// Time passes until the deadline that the clock knows.
        fn sleep(&self) {
            let told = self.told.borrow().last().copied().flatten().expect("nothing to wait for");
            self.now.set(self.now.get().max(told));
        }
    }

    fn timer(token: usize) -> Repeating {
        Repeating { key: 7, token, sink: Sink::Port, retain: |_| {} }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_timer_that_begins_and_ends_beside_an_earlier_deadline_tells_the_clock_nothing() {
        let (clock, mut timers) = (Set::new(), Timers::default());
        for number in 0..1000 {
            clock.now.set(clock.now.get() + Duration::from_micros(1));
            let serial = timers.begin(&clock, timer(number), SECOND, None).unwrap();
            let (_, ended) = timers.cancel(serial).unwrap();
            assert_eq!((ended.token, ended.error), (number, ECANCELED));
            assert!(timers.cancel(serial).is_none());
        }
        assert_eq!(clock.told.borrow().len(), 1, "the first");
        clock.sleep();
        assert!(timers.take_due(&clock).is_empty());
        assert_eq!(clock.told.borrow().len(), 1, "nothing is left to wait for");
    }

    #[test]
    fn a_timer_that_is_put_off_tells_the_clock_nothing_and_one_that_is_hurried_once() {
        let (clock, mut timers) = (Set::new(), Timers::default());
        let serial = timers.begin(&clock, timer(1), SECOND, None).unwrap();
        for _ in 0..1000 {
            clock.now.set(clock.now.get() + Duration::from_micros(100));
            assert!(timers.reset(&clock, serial, SECOND));
        }
        let at = clock.now() + SECOND;
        assert_eq!(clock.told.borrow().len(), 1, "when it began");
        // It is asked for once at its old time, and once or twice on the way.
        let mut asked = 0;
        loop {
            clock.sleep();
            asked += 1;
            let due = timers.take_due(&clock);
            assert!(due.len() <= 1 && (due.is_empty() || clock.now() >= at), "too early");
            if !due.is_empty() {
                break;
            }
        }
        assert!(asked <= 4, "{asked}");
        assert!(clock.now() <= at + TICK);
        assert!(!timers.reset(&clock, serial, SECOND), "it has elapsed");
        let serial = timers.begin(&clock, timer(2), SECOND, None).unwrap();
        let before = clock.told.borrow().len();
        assert!(timers.reset(&clock, serial, SECOND / 2));
        assert_eq!(clock.told.borrow()[before..], [Some(clock.now() + SECOND / 2)]);
    }

    #[test]
    fn a_timer_is_never_early_and_at_most_a_tick_later_than_the_clock_can_tell() {
        let (clock, mut timers) = (Set::new(), Timers::default());
        let begin = clock.now();
        let ahead = [900, 3, 500_000, 499_990, 1_000_000, 1].map(Duration::from_micros);
        for (token, after) in ahead.into_iter().enumerate() {
            timers.begin(&clock, timer(token), after, None).unwrap();
        }
        let mut order = Vec::new();
        while order.len() < ahead.len() {
            clock.sleep();
            for due in timers.take_due(&clock) {
                let Due::Elapsed(_, completion) = due else { panic!("none of them is periodic") };
                let at = begin + ahead[completion.token];
                assert!(at <= clock.now() && clock.now() <= at + TICK);
                order.push(completion.token);
            }
        }
        assert_eq!(order, [5, 1, 0, 3, 2, 4]);
    }

    #[test]
    fn periods_do_not_drift_however_late_their_packets_are_taken() {
        let (clock, mut timers) = (Set::new(), Timers::default());
        let (begin, period) = (clock.now(), Duration::from_micros(700));
        timers.begin(&clock, timer(1), period, Some(period)).unwrap();
        let mut counted = 0;
        for late in 0..2000 {
            clock.sleep();
            let due = timers.take_due(&clock);
            let [Due::Tick(serial)] = due[..] else { panic!("one tick is due") };
            clock.now.set(clock.now.get() + Duration::from_micros(late % 1500));
            counted += timers.take_tick(&clock, serial).unwrap().1.bytes as u128;
            assert_eq!(counted, (clock.now() - begin).as_nanos() / period.as_nanos(), "{late}");
        }
    }
}
