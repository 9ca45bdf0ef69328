//! One test's clock and book: when the counted time began, which intervals it has, and what the counters came to at its
//! end.

use super::book::{Book, remote_half};
use super::figures::{Half, Interval, RoundTrips, Snapshot, StreamInfo, rate};
use crate::protocol::parameters::Protocol;
use crate::protocol::results::{StreamResult, Verification};
use std::time::{Duration, Instant};

/// The share of an interval that is worth a row of its own at the end.
const ROW_SHARE_MIN: f64 = 0.1;
/// A tick that is nearer to the test's end than this share of an interval is left to the end.
const END_SHARE: f64 = 0.05;

/// What is measured of one test, or of one phase of a test of two.
#[derive(Debug)]
pub(crate) struct Measurement {
    book: Option<Book>,
    began: Instant,
    /// The counted time began.
    counted_from: Instant,
    omitting: bool,
    /// Length of the counted time, and the counters at its end.
    totals: Option<(f64, Vec<Snapshot>)>,
    /// Percent of one processor at its end.
    cpu: [f64; 3],
    /// The moved bytes when they changed last, and when that was.
    watched: (u64, Instant),
    /// What was sent and received at the last live figure, and when that was.
    shown: ([u64; 2], Instant),
}

impl Measurement {
    /// Nothing is measured yet, at `now`.
    pub(crate) fn new(now: Instant) -> Measurement {
        Measurement {
            book: None,
            began: now,
            counted_from: now,
            omitting: false,
            totals: None,
            cpu: [0.0; 3],
            watched: (0, now),
            shown: ([0; 2], now),
        }
    }

    /// The test has begun at `now`, with its first time omitted or not. What has come already belongs to the test: a
    /// server sends as soon as it has told so. So only what the kernel counts has a beginning.
    pub(crate) fn begin(
        now: Instant,
        protocol: Protocol,
        streams: &[StreamInfo],
        omits: bool,
        counters: &[Snapshot],
    ) -> Measurement {
        let kernel = |counters: &Snapshot| Snapshot { tcp: counters.tcp, ..Snapshot::default() };
        let mut book = Book::new(protocol, streams);
        book.begin(&counters.iter().map(kernel).collect::<Vec<_>>());
        Measurement { book: Some(book), omitting: omits, ..Measurement::new(now) }
    }

    /// The omitted time is over since `now`.
    pub(crate) fn count(&mut self, now: Instant, counters: &[Snapshot]) {
        self.omitting = false;
        self.counted_from = now;
        if let Some(book) = &mut self.book {
            book.begin(counters);
        }
    }

    pub(crate) fn is_omitting(&self) -> bool {
        self.omitting
    }

    /// Seconds of the counted time, or of the omitted one before it.
    pub(crate) fn seconds(&self) -> f64 {
        self.counted_from.elapsed().as_secs_f64()
    }

    /// Seconds of the counted time until then.
    pub(crate) fn seconds_until(&self, then: Instant) -> f64 {
        then.saturating_duration_since(self.counted_from).as_secs_f64()
    }

    // --- Intervals ---

    /// How long until the next interval ends, which are a period long each.
    pub(crate) fn next_tick(&self, period: Duration) -> Duration {
        let elapsed = self.counted_from.elapsed();
        let ticks = (elapsed.as_secs_f64() / period.as_secs_f64()).floor() + 1.0;
        period.mul_f64(ticks).saturating_sub(elapsed)
    }

    /// The tick at the very end of a test by time is left to the end, or a row of a few milliseconds would follow it.
    pub(crate) fn is_left_to_the_end(&self, seconds: f64, period: Duration, time: u64) -> bool {
        let distance = (seconds - time as f64).abs();
        !self.omitting && time > 0 && distance <= END_SHARE * period.as_secs_f64()
    }

    /// An interval ends.
    pub(crate) fn tick(&mut self, seconds: f64, now: &[Snapshot]) -> Option<Interval> {
        let omitting = self.omitting;
        self.book.as_mut().map(|book| book.tick(seconds, omitting, now))
    }

    /// Whether the interval that is running is long enough to be told.
    pub(crate) fn is_worth_a_row(&self, seconds: f64, period: Duration) -> bool {
        let length = self.book.as_ref().map_or(0.0, |book| seconds - book.last_tick());
        length >= ROW_SHARE_MIN * period.as_secs_f64()
    }

    /// The same of the last interval, which is told as well if something moved in it.
    pub(crate) fn is_worth_a_last_row(&self, seconds: f64, period: Duration, now: &[Snapshot]) -> bool {
        let Some(book) = &self.book else { return false };
        let length = seconds - book.last_tick();
        // Of a test that was over at once it is the only one.
        let counts = length > 0.001 || book.last_tick() == 0.0;
        self.is_worth_a_row(seconds, period) || counts && book.moved(now)
    }

    // --- While it runs ---

    /// How long nothing has moved; `moved`: all bytes so far.
    pub(crate) fn silence(&mut self, moved: u64) -> Duration {
        if moved != self.watched.0 {
            self.watched = (moved, Instant::now());
        }
        self.watched.1.elapsed()
    }

    /// The time since the test began, and the rates since this was asked last; of the bytes that were sent and
    /// received.
    pub(crate) fn live(&mut self, bytes: [u64; 2]) -> (Duration, [f64; 2]) {
        let now = Instant::now();
        let seconds = now.duration_since(self.shown.1).as_secs_f64();
        let rates = [0, 1].map(|at: usize| rate(bytes[at].saturating_sub(self.shown.0[at]), seconds));
        self.shown = (bytes, now);
        (now.duration_since(self.began), rates)
    }

    // --- The end ---

    /// The counted time is over: the counters as they are reported.
    pub(crate) fn close(&mut self, seconds: f64, cpu: [f64; 3], now: Vec<Snapshot>) {
        if let Some(book) = &mut self.book {
            book.close(&now);
        }
        self.cpu = cpu;
        self.totals = Some((seconds, now));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.totals.is_some()
    }

    /// Datagrams that were on their way when the clock stopped have come by now. They were not lost; of the rate they
    /// are no part.
    pub(crate) fn count_late_datagrams(&mut self, now: Vec<Snapshot>) {
        if let Some((_, totals)) = &mut self.totals {
            for (total, now) in totals.iter_mut().zip(now) {
                *total = Snapshot { bytes: total.bytes, ..now };
            }
        }
    }

    /// Percent of one processor in the counted time: total, user, system. `None`: it is not over.
    pub(crate) fn cpu(&self) -> Option<[f64; 3]> {
        self.is_closed().then_some(self.cpu)
    }

    /// This end's account for the peer. `verification`: what was found in a stream's blocks.
    pub(crate) fn results(&self, verification: impl Fn(usize) -> Option<Verification>) -> Vec<StreamResult> {
        let (seconds, snapshots) = self.totals.clone().unwrap_or_default();
        self.book.as_ref().map_or_else(Vec::new, |book| book.results(seconds, &snapshots, verification))
    }

    /// Both ends' totals of the streams as far as they are known; `now`: the counters, if the counted time is not over.
    /// `None`: the test has not begun.
    pub(crate) fn totals(&self, now: impl FnOnce() -> Vec<Snapshot>) -> Option<Totals<'_>> {
        let book = self.book.as_ref()?;
        let (seconds, snapshots) = match &self.totals {
            Some(totals) => totals.clone(),
            None => (self.seconds(), now()),
        };
        Some(Totals { book, seconds, ours: book.totals(seconds, &snapshots) })
    }
}

/// The totals of a test's streams.
pub(crate) struct Totals<'a> {
    book: &'a Book,
    seconds: f64,
    ours: Vec<Half>,
}

impl Totals<'_> {
    /// This end's.
    pub(crate) fn ours(&self, index: usize) -> Half {
        self.ours[index]
    }

    /// The peer's, if it told.
    pub(crate) fn theirs(&self, told: Option<&StreamResult>) -> Half {
        told.map_or_else(Half::default, |result| remote_half(result, self.seconds))
    }

    pub(crate) fn round_trips(&self, index: usize) -> Option<RoundTrips> {
        self.book.round_trips(index)
    }
}
