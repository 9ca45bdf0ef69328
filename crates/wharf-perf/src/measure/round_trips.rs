//! Round-trip times of small messages that go by a schedule, whether or not the earlier ones are answered: a client
//! that waited for each answer would ask seldom just when answers take long, and its percentiles would look better than
//! what others see.

use super::figures::Latency;
use hdrhistogram::Histogram;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two messages: a thousand a second, which is no load.
pub(crate) const PERIOD: Duration = Duration::from_millis(1);
/// Messages that may be unanswered; at this number none is sent.
const UNANSWERED_MAX: usize = 1000;
/// What takes longer counts as an hour. A histogram that grows with its values would need a way to fail.
const ROUND_TRIP_US_MAX: u64 = 3_600_000_000;

/// The messages of one connection.
pub(crate) struct RoundTripTimes {
    message_bytes: usize,
    /// When the messages that are not answered yet were sent.
    sent: VecDeque<Instant>,
    /// When the next message is due.
    due: Instant,
    /// Bytes of the oldest message's answer.
    answered: usize,
    histogram: Histogram<u64>,
    counting: bool,
}

impl RoundTripTimes {
    /// Of messages with `message_bytes` bytes each.
    pub(crate) fn new(message_bytes: usize) -> RoundTripTimes {
        RoundTripTimes {
            message_bytes,
            sent: VecDeque::new(),
            due: Instant::now(),
            answered: 0,
            histogram: Histogram::new_with_max(ROUND_TRIP_US_MAX, 3).expect("three digits are allowed"),
            counting: false,
        }
    }

    /// The schedule begins at `now`.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.due = now;
    }

    /// What comes from now on counts: the omitted time is over.
    pub(crate) fn count(&mut self) {
        self.counting = true;
        self.histogram.reset();
    }

    /// A message is due. Whether it is to be sent, and how long to wait for the next one.
    pub(crate) fn ask(&mut self, now: Instant) -> (bool, Duration) {
        let sends = self.sent.len() < UNANSWERED_MAX;
        if sends {
            self.sent.push_back(now);
        }
        // What this process itself was too late for is left out: it would go all at once.
        let late = now.saturating_duration_since(self.due).as_nanos() / PERIOD.as_nanos();
        self.due += PERIOD.saturating_mul(u32::try_from(late + 1).unwrap_or(u32::MAX));
        (sends, self.due.saturating_duration_since(now))
    }

    /// So many bytes of answers have come.
    pub(crate) fn answered(&mut self, now: Instant, bytes: usize) {
        self.answered += bytes;
        while self.answered >= self.message_bytes {
            self.answered -= self.message_bytes;
            let Some(sent) = self.sent.pop_front() else { return };
            if self.counting {
                let micros = now.saturating_duration_since(sent).as_micros();
                self.histogram.saturating_record(u64::try_from(micros).unwrap_or(u64::MAX));
            }
        }
    }

    /// What was measured, if anything was.
    pub(crate) fn found(&self) -> Option<Latency> {
        let histogram = &self.histogram;
        let at = |quantile| histogram.value_at_quantile(quantile);
        (!histogram.is_empty()).then(|| Latency {
            pings: histogram.len(),
            min: histogram.min(),
            mean: histogram.mean(),
            p50: at(0.5),
            p99: at(0.99),
            p999: at(0.999),
            max: histogram.max(),
        })
    }
}
