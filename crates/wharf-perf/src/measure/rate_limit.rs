//! A server's limit: whether a test is faster than agreed, averaged over a window that moves with the time.

use super::figures::rate;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Looks at the rate in one window.
const LOOKS: u32 = 10;
/// The least time between two looks.
const PERIOD_MIN: Duration = Duration::from_millis(20);

/// The limit of one test.
#[derive(Debug)]
pub(crate) struct RateLimit {
    /// Bits a second.
    limit: u64,
    window: Duration,
    /// The moved bytes at each look.
    looks: VecDeque<(Instant, u64)>,
}

impl RateLimit {
    /// The test begins at `now`, and nothing has moved.
    pub(crate) fn new(limit: u64, window: Duration, now: Instant) -> RateLimit {
        RateLimit { limit, window, looks: VecDeque::from([(now, 0)]) }
    }

    /// The time between two looks.
    pub(crate) fn period(&self) -> Duration {
        (self.window / LOOKS).max(PERIOD_MIN)
    }

    /// Whether the last whole window was faster than the limit; `moved`: bytes since the test began.
    pub(crate) fn is_exceeded(&mut self, now: Instant, moved: u64) -> bool {
        self.looks.push_back((now, moved));
        // The youngest look that is a whole window old stays.
        while self.looks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= self.window) {
            self.looks.pop_front();
        }
        let (at, before) = self.looks[0];
        let time = now.duration_since(at);
        time >= self.window && rate(moved - before, time.as_secs_f64()) > self.limit as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_whole_window_counts_and_nothing_before_it() {
        let start = Instant::now();
        let second = Duration::from_secs(1);
        let mut limit = RateLimit::new(8000, 2 * second, start);
        assert!(!limit.is_exceeded(start + second, 1_000_000), "there is no whole window yet");
        assert!(limit.is_exceeded(start + 2 * second, 1_000_000));
        assert!(limit.is_exceeded(start + 3 * second, 1_002_001), "2001 bytes in two seconds, and more before");
        assert!(!limit.is_exceeded(start + 5 * second, 1_004_001), "2000 bytes in two seconds");
        assert_eq!(limit.period(), second / 5);
    }
}
