//! How fast a session may receive: token buckets, and who waits for tokens.
//!
//! A session whose bucket is empty is not received from until it has tokens again; its peer's data waits in the system,
//! and then with the peer, by TCP's own back pressure. A bucket is one number: the time at which all that was taken out
//! of it would have trickled in.
//!
//! There is no timer for each session. Those that wait lie in one list by the *tick* (10 ms) in which they go on, and
//! one timer is set for the first. Without limited sessions there is no timer and no clock is read.

use crate::conn::Conn;
use crate::lock::Lock;
use crate::time;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Sessions go on in steps of this: a timer serves all that are due in it.
const TICK_NS: u64 = 10_000_000;
/// A session goes on in a tick, and perhaps a tick late: what comes in meanwhile has to fit into the bucket.
const BURST_LEAST_NS: u64 = 2 * TICK_NS;
const SECOND_NS: u128 = 1_000_000_000;

/// How much a session may receive: bytes a second, messages a second, or both.
///
/// A message is what one call of a handler gets: a receive, or a frame of a [`Framed`](crate::Framed) session.
///
/// ```
/// use wharf_session::{Rate, Service};
/// let rate = Rate::bytes(64 * 1024, 256 * 1024).and_messages(100, 200);
/// let service = Service::options().rate_limit(rate).start()?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Exactness
///
/// In any span of `t` seconds a session gets at most `burst + t × per_second` bytes and one receive more (16 KiB): it
/// receives while it has tokens, and what it receives too much is taken off what comes next. For messages the same
/// holds without the one more. It goes on up to 20 ms after it has tokens again, and a burst counts as at least what
/// comes in 20 ms, so that the full rate is reached all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    bytes: Option<Limit>,
    messages: Option<Limit>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Limit {
    per_second: u64,
    burst: u64,
}

impl Rate {
    /// So many bytes a second, and so many at once after a pause.
    ///
    /// # Panics
    ///
    /// When `per_second` is 0: to receive nothing, there is [`Link::pause`](crate::Link::pause).
    pub const fn bytes(per_second: u64, burst: u64) -> Rate {
        Rate { bytes: Some(Limit::new(per_second, burst)), messages: None }
    }

    /// So many messages a second, and so many at once after a pause.
    ///
    /// # Panics
    ///
    /// As [`bytes`](Rate::bytes).
    pub const fn messages(per_second: u64, burst: u64) -> Rate {
        Rate { bytes: None, messages: Some(Limit::new(per_second, burst)) }
    }

    /// And so many messages, too.
    ///
    /// # Panics
    ///
    /// As [`bytes`](Rate::bytes).
    pub const fn and_messages(mut self, per_second: u64, burst: u64) -> Rate {
        self.messages = Some(Limit::new(per_second, burst));
        self
    }
}

impl Limit {
    const fn new(per_second: u64, burst: u64) -> Limit {
        assert!(per_second > 0, "a rate of 0 would never receive; Link::pause does that");
        Limit { per_second, burst }
    }

    /// How long `count` take to come in. Rounded up: a rate is never exceeded.
    fn time_of(self, count: u64) -> u64 {
        u64::try_from((u128::from(count) * SECOND_NS).div_ceil(u128::from(self.per_second))).unwrap_or(u64::MAX)
    }
}

/// A bucket: full when made.
#[derive(Debug)]
struct Bucket {
    limit: Limit,
    burst_ns: u64,
    /// When all that was taken out would have trickled in, in the clock of [`Rates::now_ns`].
    paid_ns: u64,
}

impl Bucket {
    fn new(limit: Limit) -> Bucket {
        let burst_ns = limit.time_of(limit.burst).max(limit.time_of(1)).max(BURST_LEAST_NS);
        Bucket { limit, burst_ns, paid_ns: 0 }
    }

    fn spend(&mut self, count: u64, now_ns: u64) {
        self.paid_ns = self.paid_ns.max(now_ns).saturating_add(self.limit.time_of(count));
    }

    /// When there is a whole token.
    fn due_ns(&self) -> u64 {
        self.paid_ns.saturating_add(self.limit.time_of(1)).saturating_sub(self.burst_ns)
    }
}

/// The buckets of one session; its owner locks them.
#[derive(Debug)]
pub(super) struct Buckets {
    bytes: Option<Bucket>,
    messages: Option<Bucket>,
}

impl Buckets {
    pub(super) fn new(rate: Rate) -> Buckets {
        Buckets { bytes: rate.bytes.map(Bucket::new), messages: rate.messages.map(Bucket::new) }
    }

    pub(super) fn spend(&mut self, bytes: u64, messages: u64, now_ns: u64) {
        if let Some(bucket) = &mut self.bytes {
            bucket.spend(bytes, now_ns);
        }
        if let Some(bucket) = &mut self.messages {
            bucket.spend(messages, now_ns);
        }
    }

    /// When there are tokens again, if there are none now.
    pub(super) fn wait(&self, now_ns: u64) -> Option<u64> {
        let due = self.bytes.iter().chain(&self.messages).map(Bucket::due_ns).max()?;
        (due > now_ns).then_some(due)
    }

    /// When there is a token for a message, if there is none now. Its bytes were taken out when they were received:
    /// what was too much then is taken off what is received next, and not off what is here.
    pub(super) fn wait_for_message(&self, now_ns: u64) -> Option<u64> {
        let due = self.messages.as_ref()?.due_ns();
        (due > now_ns).then_some(due)
    }
}

/// A place in the list of those that wait: the tick, and the session's number.
pub(super) type Place = (u64, u64);

/// The sessions that wait for tokens.
pub(super) struct Rates {
    born: Instant,
    waiting: Lock<Waiting>,
}

#[derive(Default)]
struct Waiting {
    by_tick: BTreeMap<Place, Arc<Conn>>,
    /// The tick for which a timer is set. Timers for later ticks may be set too, from before; they do nothing.
    armed: Option<u64>,
}

impl Rates {
    pub(super) fn new() -> Rates {
        Rates { born: time::now(), waiting: Lock::default() }
    }

    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(time::since(self.born).as_nanos()).unwrap_or(u64::MAX)
    }

    /// Has a session wait. The caller then sets a timer, if it is told to, outside its locks.
    pub(super) fn enlist(&self, conn: &Arc<Conn>, due_ns: u64) -> (Place, Option<Duration>) {
        let place = (due_ns.div_ceil(TICK_NS), conn.id());
        let mut waiting = self.waiting.lock();
        waiting.by_tick.insert(place, conn.clone());
        let first = waiting.armed.is_none_or(|armed| place.0 < armed);
        if first {
            waiting.armed = Some(place.0);
        }
        drop(waiting);
        (place, first.then(|| self.until(place.0)))
    }

    pub(super) fn forget(&self, place: Place) {
        let removed = self.waiting.lock().by_tick.remove(&place);
        // Perhaps the last of its session, whose end is no business of the list.
        drop(removed);
    }

    /// Who goes on now, and when to look again. A timer never goes off before its tick has begun, so the one that was
    /// set last always finds `armed` in the past, and an older one, finding it in the future, leaves it to the other.
    pub(super) fn due(&self) -> (Vec<Arc<Conn>>, Option<Duration>) {
        let tick = self.now_ns() / TICK_NS;
        let mut waiting = self.waiting.lock();
        let later = waiting.by_tick.split_off(&(tick + 1, 0));
        let due = std::mem::replace(&mut waiting.by_tick, later);
        let next = if waiting.armed.is_none_or(|armed| armed <= tick) {
            waiting.armed = waiting.by_tick.first_key_value().map(|(place, _)| place.0);
            waiting.armed
        } else {
            None
        };
        drop(waiting);
        (due.into_values().collect(), next.map(|tick| self.until(tick)))
    }

    /// All, because the service ends.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut self.waiting.lock().by_tick);
        drop(all);
    }

    fn until(&self, tick: u64) -> Duration {
        Duration::from_nanos(tick.saturating_mul(TICK_NS)).saturating_sub(time::since(self.born))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_bucket_lets_its_burst_through_and_then_its_rate() {
        let mut buckets = Buckets::new(Rate::bytes(1000, 500));
        let mut now = 1_000_000 * MS;
        assert_eq!(buckets.wait(now), None);
        buckets.spend(499, 1, now);
        assert_eq!(buckets.wait(now), None, "one byte is left");
        buckets.spend(1, 1, now);
        let due = buckets.wait(now).expect("it is empty");
        assert_eq!(due, now + MS);
        // 100 bytes too many are paid for in a tenth of a second, and one more has to come.
        buckets.spend(100, 1, now);
        assert_eq!(buckets.wait(now), Some(now + 101 * MS));
        now += 101 * MS;
        assert_eq!(buckets.wait(now), None);
    }

    #[test]
    fn what_was_not_used_is_saved_up_to_the_burst_only() {
        let mut buckets = Buckets::new(Rate::bytes(1000, 500));
        let hour = 3_600_000 * MS;
        buckets.spend(500, 1, hour);
        let mut passed = 0;
        while buckets.wait(2 * hour).is_none() {
            buckets.spend(1, 1, 2 * hour);
            passed += 1;
        }
        assert_eq!(passed, 500);
    }

    #[test]
    fn whichever_bucket_is_empty_decides() {
        let mut buckets = Buckets::new(Rate::bytes(1_000_000, 1_000_000).and_messages(10, 2));
        buckets.spend(1, 1, MS);
        assert_eq!(buckets.wait(MS), None);
        buckets.spend(1, 1, MS);
        assert_eq!(buckets.wait(MS), Some(101 * MS));
        buckets.spend(1, 1, MS);
        assert_eq!(buckets.wait(MS), Some(201 * MS));
    }

    #[test]
    fn the_largest_and_the_smallest_rates_overflow_nowhere() {
        for rate in [Rate::bytes(1, u64::MAX), Rate::bytes(u64::MAX, 0), Rate::bytes(u64::MAX, u64::MAX)] {
            let mut buckets = Buckets::new(rate);
            buckets.spend(u64::MAX, u64::MAX, u64::MAX - 1);
            let _ = buckets.wait(u64::MAX);
        }
        let mut buckets = Buckets::new(Rate::messages(1, 1));
        buckets.spend(0, u64::MAX, 1);
        assert!(buckets.wait(1).is_some());
    }

    #[test]
    #[should_panic(expected = "Link::pause")]
    fn a_rate_of_nothing_is_refused_with_the_remedy() {
        let _ = Rate::bytes(0, 1);
    }
}
