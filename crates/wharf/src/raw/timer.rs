//! Timers: operations whose time comes. They lie in one ordered list; the engine is told the earliest deadline.

use super::{Cancel, Completion, ECANCELED, Entry, Kind, OperationId, Payload, Port, PortDriver, Sink};
use crate::threads::Found;
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// The shortest period of a timer. One of no time would be one packet after another, and what is shorter than this could
/// not be counted rightly.
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

/// Serial numbers are the port's own, and nobody outside chooses them: they need no hash that withstands an attacker, which
/// would be a third of what a timer costs.
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

#[derive(Debug, Default)]
pub(super) struct Timers {
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
}

impl PortDriver {
    /// Tells the engine the earliest deadline, if that changed. Under the timers' lock, so that the last word is right.
    fn set_deadline(&self, timers: &mut Timers) {
        let earliest = timers.due.keys().next().map(|&(at, _)| at);
        if earliest != timers.armed {
            timers.armed = earliest;
            self.sources.store(true, Ordering::Relaxed);
            self.engine.set_deadline(earliest);
        }
    }

    /// The leader found that a deadline has passed.
    pub(super) fn timers_due(&self, found: &mut Found<Entry>) {
        let time = self.engine.now();
        let mut resume = false;
        let mut events = Vec::new();
        {
            let mut timers = self.timers.lock();
            timers.armed = None;
            while let Some(entry) = timers.due.first_entry().filter(|entry| entry.key().0 <= time) {
                let ((_, serial), action) = entry.remove_entry();
                timers.when.remove(&serial);
                match action {
                    Action::ResumeAccepting => resume = true,
                    Action::Once(timer) => {
                        let completion = timer.packet(Kind::Elapsed, 1, false);
                        timer.sink.tell_beside(&completion);
                        match timer.sink {
                            Sink::Port | Sink::Both(_) => found.entries.push(Entry::Packet(Box::new(completion))),
                            Sink::Event(event) => events.push((event, completion)),
                            Sink::Callback(call, context) => {
                                found.entries.push(Entry::Call(call, context, Box::new(completion)));
                            }
                        }
                    }
                    Action::Every { timer, period, base, reported } => {
                        found.entries.push(Entry::Tick(serial));
                        timers.queued.insert(serial, Action::Every { timer, period, base, reported });
                    }
                }
            }
            self.set_deadline(&mut timers);
        }
        for (event, completion) in events {
            event.signal(completion);
        }
        if resume {
            self.resume_starved(|entry| found.work.push(entry));
        }
    }
}

impl Port {
    /// Issues a timer: one packet after `after`, and then, with a `period`, one packet every `period`, until it is
    /// cancelled; the last packet of a periodic timer says [`ECANCELED`]. The byte count says how many periods have
    /// elapsed since the last packet: while one is queued no further one is.
    ///
    /// Fails at once with `EINVAL` when the period is shorter than [`PERIOD_LEAST`], and with [`EBADF`](super::EBADF).
    pub fn timer(
        &self,
        after: Duration,
        period: Option<Duration>,
        key: usize,
        token: usize,
        sink: Sink,
        retain: Retain,
    ) -> Result<OperationId, i32> {
        self.check()?;
        let driver = self.driver();
        let time = driver.engine.now();
        // What the clock cannot express will not come: a century is as good.
        let at = time.checked_add(after).unwrap_or(time + Duration::from_secs(3_000_000_000));
        let timer = Repeating { key, token, sink, retain };
        let action = match period {
            None => Action::Once(timer),
            Some(period) if period < PERIOD_LEAST => return Err(super::EINVAL),
            Some(period) => Action::Every { timer, period, base: at, reported: 0 },
        };
        let mut timers = driver.timers.lock();
        if timers.closed {
            return Err(super::EBADF);
        }
        let serial = timers.next_serial();
        timers.add(at, serial, action);
        driver.set_deadline(&mut timers);
        Ok(self.repeating_id(serial))
    }

    pub(super) fn resume_accepting_after(&self, after: Duration) {
        let driver = self.driver();
        let at = driver.engine.now() + after;
        let mut timers = driver.timers.lock();
        if !timers.closed && !timers.due.values().any(|action| matches!(action, Action::ResumeAccepting)) {
            let serial = timers.next_serial();
            timers.add(at, serial, Action::ResumeAccepting);
            driver.set_deadline(&mut timers);
        }
    }

    /// The packet of a periodic timer is handed out: its count is taken now, and the timer goes on.
    pub(super) fn tick_taken(&self, serial: u64) -> Option<Completion> {
        let driver = self.driver();
        let (sink, completion) = {
            let mut timers = driver.timers.lock();
            // Cancelled meanwhile: its last packet is on the way.
            let Some(Action::Every { timer, period, base, reported }) = timers.queued.remove(&serial) else {
                return None;
            };
            let time = driver.engine.now();
            let elapsed = time.saturating_duration_since(base);
            let total = u64::try_from(elapsed.as_nanos() / period.as_nanos()).unwrap_or(u64::MAX - 1) + 1;
            let count = total.saturating_sub(reported).max(1);
            let reported = reported + count;
            let next = base
                + Duration::from_nanos(
                    u64::try_from(period.as_nanos().saturating_mul(u128::from(reported))).unwrap_or(u64::MAX / 4),
                );
            let completion = timer.packet(Kind::Elapsed, usize::try_from(count).unwrap_or(usize::MAX), true);
            let sink = timer.sink.clone();
            timers.add(next, serial, Action::Every { timer, period, base, reported });
            driver.set_deadline(&mut timers);
            (sink, completion)
        };
        self.hand_out(sink, completion)
    }

    /// Cancels a timer or a signal.
    pub(super) fn cancel_repeating(&self, serial: u64) -> Cancel {
        if serial % 2 == 1 {
            return self.cancel_signal(serial);
        }
        let removed = {
            let mut timers = self.driver().timers.lock();
            let removed = timers.remove(serial);
            self.driver().set_deadline(&mut timers);
            removed
        };
        match removed {
            Some(Action::Once(timer) | Action::Every { timer, .. }) => {
                let (sink, completion) = timer.ended(Kind::Elapsed);
                self.deliver(sink, completion);
                Cancel::Requested
            }
            Some(Action::ResumeAccepting) | None => Cancel::TooLate,
        }
    }

    /// The port is closed: timers and signals end.
    pub(super) fn end_repeating(&self) {
        let ended: Vec<Action> = {
            let mut timers = self.driver().timers.lock();
            timers.closed = true;
            timers.when.clear();
            let due = std::mem::take(&mut timers.due).into_values();
            let queued: Vec<Action> = timers.queued.drain().map(|(_, action)| action).collect();
            self.driver().engine.set_deadline(None);
            due.chain(queued).collect()
        };
        for action in ended {
            if let Action::Once(timer) | Action::Every { timer, .. } = action {
                let (sink, completion) = timer.ended(Kind::Elapsed);
                self.deliver(sink, completion);
            }
        }
        self.end_signals();
    }
}
