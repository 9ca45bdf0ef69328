//! When the next block may go: a schedule of absolute times, so that a late block is not followed by another late one.
//!
//! A sender that was held up catches up with at most 100 ms of data; then the rest is forgotten, unlike in stock, which
//! would send without limit until the average is right again. Where a pause between two blocks is asked for it is kept,
//! and nothing is made up for: a late block makes all that follow later.

use std::time::{Duration, Instant};

/// What is made up for after a stall.
const CATCH_UP: Duration = Duration::from_millis(100);

/// The schedule of one stream.
#[derive(Clone, Debug)]
pub struct Pacer {
    /// Time that one byte takes, in seconds; 0: no limit.
    byte_seconds: f64,
    /// Least time between the starts of two blocks, whatever their size.
    gap: Duration,
    /// Blocks that go together.
    burst: u64,
    /// When the next burst is due.
    due: Option<Instant>,
    /// What is due but was not sent yet, as blocks of the burst that is going out.
    in_burst: u64,
    behind: Duration,
}

impl Pacer {
    /// `rate` in bits a second, 0 for none; `burst` in blocks, 0 for one; `gap` the least time between the starts of
    /// two blocks, or bursts of them.
    pub fn new(rate: u64, burst: u64, gap: Duration) -> Pacer {
        let byte_seconds = if rate == 0 { 0.0 } else { 8.0 / rate as f64 };
        Pacer { byte_seconds, gap, burst: burst.max(1), due: None, in_burst: 0, behind: Duration::ZERO }
    }

    /// Whether there is nothing to wait for, ever.
    pub fn is_unlimited(&self) -> bool {
        self.byte_seconds == 0.0 && self.gap.is_zero()
    }

    /// Whether no block may follow another one sooner than the pause that was asked for.
    pub fn keeps_a_gap(&self) -> bool {
        !self.gap.is_zero()
    }

    /// How long to wait before the next block.
    pub fn wait(&mut self, now: Instant) -> Option<Duration> {
        if self.is_unlimited() || self.in_burst > 0 {
            return None;
        }
        let due = *self.due.get_or_insert(now);
        match due.checked_duration_since(now) {
            Some(wait) if !wait.is_zero() => Some(wait),
            _ => {
                let most = if self.keeps_a_gap() { Duration::ZERO } else { CATCH_UP };
                let oldest = now.checked_sub(most).unwrap_or(now);
                self.due = Some(due.max(oldest));
                None
            }
        }
    }

    /// The longest time between two sends of blocks of `len` bytes, if nothing holds them up.
    pub fn pause(&self, len: usize) -> Duration {
        self.block_time(len).saturating_mul(u32::try_from(self.burst).unwrap_or(u32::MAX))
    }

    /// How many blocks of `len` bytes are due now, up to `most`; at least one, if [`wait`](Pacer::wait) said so.
    pub fn allowance(&self, now: Instant, len: usize, most: u64) -> u64 {
        if self.is_unlimited() {
            return most;
        }
        if self.burst > 1 {
            return most.min(if self.in_burst > 0 { self.in_burst } else { self.burst });
        }
        let block = self.block_time(len).as_secs_f64();
        let late = self.due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due)).as_secs_f64();
        ((late / block.max(1e-9)) as u64 + 1).min(most)
    }

    /// `blocks` of `len` bytes go out.
    pub fn sent(&mut self, len: usize, blocks: u64) {
        if self.is_unlimited() {
            return;
        }
        let time = self.block_time(len).saturating_mul(u32::try_from(blocks).unwrap_or(u32::MAX));
        if self.burst > 1 {
            let left = if self.in_burst > 0 { self.in_burst } else { self.burst };
            self.in_burst = left.saturating_sub(blocks);
            self.behind += time;
            if self.in_burst > 0 {
                return;
            }
            let time = std::mem::take(&mut self.behind);
            self.due = self.due.and_then(|due| due.checked_add(time)).or(self.due);
            return;
        }
        self.due = self.due.and_then(|due| due.checked_add(time)).or(self.due);
    }

    fn block_time(&self, len: usize) -> Duration {
        Duration::from_secs_f64(self.byte_seconds * len as f64).max(self.gap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn blocks_go_at_their_times_and_a_late_one_makes_no_other_late() {
        // 1000 bytes at 8 Mbit/s: 1 ms.
        let mut pacer = Pacer::new(8_000_000, 0, Duration::ZERO);
        let start = Instant::now();
        assert_eq!(pacer.wait(start), None, "the first goes at once");
        pacer.sent(1000, 1);
        assert_eq!(pacer.wait(start), Some(MS));
        let late = start + 5 * MS;
        assert_eq!(pacer.wait(late), None);
        assert_eq!(pacer.allowance(late, 1000, 64), 5, "those of 1, 2, 3, 4 and 5 ms");
        pacer.sent(1000, 5);
        assert_eq!(pacer.wait(late), Some(MS));
    }

    #[test]
    fn a_stall_is_made_up_for_with_a_tenth_of_a_second_at_most() {
        let mut pacer = Pacer::new(8_000_000, 0, Duration::ZERO);
        let start = Instant::now();
        pacer.wait(start);
        pacer.sent(1000, 1);
        let late = start + 1000 * MS;
        assert_eq!(pacer.wait(late), None);
        assert_eq!(pacer.allowance(late, 1000, 1_000_000), 101);
    }

    #[test]
    fn a_burst_goes_back_to_back_and_keeps_the_rate() {
        let mut pacer = Pacer::new(8_000_000, 10, Duration::ZERO);
        let start = Instant::now();
        assert_eq!(pacer.wait(start), None);
        for _ in 0..10 {
            assert_eq!(pacer.wait(start), None);
            pacer.sent(1000, 1);
        }
        assert_eq!(pacer.wait(start), Some(10 * MS));
    }

    #[test]
    fn a_gap_is_kept_whatever_the_size() {
        let mut pacer = Pacer::new(0, 0, 20 * MS);
        let start = Instant::now();
        assert_eq!(pacer.wait(start), None);
        pacer.sent(1, 1);
        assert_eq!(pacer.wait(start), Some(20 * MS));
        // Five pauses late: still one block, and a whole pause behind it.
        let late = start + 100 * MS;
        assert_eq!(pacer.wait(late), None);
        assert_eq!(pacer.allowance(late, 1, 64), 1);
        pacer.sent(1, 1);
        assert_eq!(pacer.wait(late + MS), Some(19 * MS));
        assert!(Pacer::new(0, 5, Duration::ZERO).is_unlimited());
    }
}
