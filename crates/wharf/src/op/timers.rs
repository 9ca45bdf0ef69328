//! Timers: operations whose time comes. They lie in one ordered list; the engine is told the earliest deadline.

use super::{Completion, Kind, Payload, Sink};
use crate::sys::errno::{EBADF, ECANCELED, EINVAL};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
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

/// Serial numbers are the port's own, and nobody outside chooses them: they need no hash that withstands an attacker,
/// which would be a third of what a timer costs.
type BySerial<T> = HashMap<u64, T, BuildHasherDefault<Spread>>;

/// Numbers that follow one another, spread over all bits: the table takes a place from the lowest, and a mark from the
/// highest.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn write_u64(&mut self, serial: u64) {
        // 2^64 divided by the golden ratio (Fibonacci hashing), and its better half brought down.
        self.0 = serial.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 ^= self.0 >> 32;
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.write_u64(self.0 ^ u64::from(byte)));
    }

    fn finish(&self) -> u64 {
        self.0
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

#[derive(Debug, Default)]
pub(crate) struct Timers {
    due: BTreeMap<(Instant, u64), Action>,
    when: BySerial<Instant>,
    /// Periodic timers whose packet is queued: they go on when it is taken, so that an idle consumer finds one packet
    /// and not a thousand.
    queued: BySerial<Action>,
    last_serial: u64,
    armed: Option<Instant>,
    closed: bool,
}

impl Timers {
    fn add(&mut self, at: Instant, serial: u64, action: Action) {
        self.due.insert((at, serial), action);
        self.when.insert(serial, at);
    }

    fn next_serial(&mut self) -> u64 {
        self.last_serial += 2;
        self.last_serial
    }

    fn remove(&mut self, serial: u64) -> Option<Action> {
        match self.when.remove(&serial) {
            Some(at) => self.due.remove(&(at, serial)),
            None => self.queued.remove(&serial),
        }
    }

    /// Tells the earliest deadline, if that changed. Under the timers' lock, so that the last word is right.
    fn arm(&mut self, clock: &impl Clock) {
        let earliest = self.due.keys().next().map(|&(at, _)| at);
        if earliest != self.armed {
            self.armed = earliest;
            clock.wake_at(earliest);
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
        // What the clock cannot express will not come: a century is as good.
        let at = time.checked_add(after).unwrap_or(time + Duration::from_secs(3_000_000_000));
        let action = match period {
            None => Action::Once(timer),
            Some(period) => Action::Every { timer, period, base: at, reported: 0 },
        };
        let serial = self.next_serial();
        self.add(at, serial, action);
        self.arm(clock);
        Ok(serial)
    }

    /// Accepting is to be tried again after this time, if that is not on the list yet.
    #[cfg_attr(windows, allow(dead_code, reason = "accepting is the kernel's own business there, and never paused"))]
    pub(crate) fn resume_accepting_after(&mut self, clock: &impl Clock, after: Duration) {
        if !self.closed && !self.due.values().any(|action| matches!(action, Action::ResumeAccepting)) {
            let serial = self.next_serial();
            self.add(clock.now() + after, serial, Action::ResumeAccepting);
            self.arm(clock);
        }
    }

    /// A deadline has passed: takes those whose time has come.
    pub(crate) fn take_due(&mut self, clock: &impl Clock) -> Vec<Due> {
        let time = clock.now();
        let mut due = Vec::new();
        self.armed = None;
        while let Some(entry) = self.due.first_entry().filter(|entry| entry.key().0 <= time) {
            let ((_, serial), action) = entry.remove_entry();
            self.when.remove(&serial);
            match action {
                Action::ResumeAccepting => due.push(Due::ResumeAccepting),
                Action::Once(timer) => {
                    let completion = timer.packet(Kind::Elapsed, 1, false);
                    due.push(Due::Elapsed(timer.sink, completion));
                }
                every @ Action::Every { .. } => {
                    due.push(Due::Tick(serial));
                    self.queued.insert(serial, every);
                }
            }
        }
        self.arm(clock);
        due
    }

    /// The packet of a periodic timer is handed out: its count is taken now, and the timer goes on. `None`: it was
    /// cancelled meanwhile, and its last packet is on the way.
    pub(crate) fn take_tick(&mut self, clock: &impl Clock, serial: u64) -> Option<(Sink, Completion)> {
        let Some(Action::Every { timer, period, base, reported }) = self.queued.remove(&serial) else { return None };
        let elapsed = clock.now().saturating_duration_since(base);
        let total = u64::try_from(elapsed.as_nanos() / period.as_nanos()).unwrap_or(u64::MAX - 1) + 1;
        let count = total.saturating_sub(reported).max(1);
        let reported = reported + count;
        let behind = period.as_nanos().saturating_mul(u128::from(reported));
        let next = base + Duration::from_nanos(u64::try_from(behind).unwrap_or(u64::MAX / 4));
        let completion = timer.packet(Kind::Elapsed, usize::try_from(count).unwrap_or(usize::MAX), true);
        let sink = timer.sink.clone();
        self.add(next, serial, Action::Every { timer, period, base, reported });
        self.arm(clock);
        Some((sink, completion))
    }

    /// Ends a timer: its last packet. `None`: there is none.
    pub(crate) fn cancel(&mut self, clock: &impl Clock, serial: u64) -> Option<(Sink, Completion)> {
        let removed = self.remove(serial);
        self.arm(clock);
        match removed? {
            Action::Once(timer) | Action::Every { timer, .. } => Some(timer.ended(Kind::Elapsed)),
            Action::ResumeAccepting => None,
        }
    }

    /// The port is closed: the last packets of all, and no further timer begins.
    pub(crate) fn close(&mut self, clock: &impl Clock) -> Vec<(Sink, Completion)> {
        self.closed = true;
        self.when.clear();
        let due = std::mem::take(&mut self.due).into_values();
        let queued: Vec<Action> = self.queued.drain().map(|(_, action)| action).collect();
        clock.wake_at(None);
        let ended = due.chain(queued).filter_map(|action| match action {
            Action::Once(timer) | Action::Every { timer, .. } => Some(timer.ended(Kind::Elapsed)),
            Action::ResumeAccepting => None,
        });
        ended.collect()
    }
}
