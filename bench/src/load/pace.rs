//! When an open loop's messages leave: at random, as from many clients that know nothing of each other, with a fixed
//! mean rate and a fixed seed.

use std::time::{Duration, Instant};

/// Numbers without a pattern, the same in each run.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed ^ 0x9e37_79b9_7f4a_7c15)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }

    /// Between 0 and 1, without both.
    fn part(&mut self) -> f64 {
        (self.below(1 << 53) as f64 + 0.5) / (1_u64 << 53) as f64
    }
}

pub struct Schedule {
    next: Instant,
    end: Instant,
    mean: Duration,
}

impl Schedule {
    pub fn new(begin: Instant, time: Duration, rate: f64) -> Schedule {
        Schedule { next: begin, end: begin + time, mean: Duration::from_secs_f64(1.0 / rate) }
    }

    /// The next moment, if there is one before the end.
    pub fn next(&self) -> Option<Instant> {
        (self.next < self.end).then_some(self.next)
    }

    /// The moment of a message that should have left by now. Whatever has happened meanwhile, none is left out.
    pub fn due(&mut self, now: Instant, random: &mut Random) -> Option<Instant> {
        let due = self.next().filter(|&next| next <= now)?;
        // Exponential distances.
        self.next += self.mean.mul_f64(-random.part().ln());
        Some(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_and_a_stall_leaves_nothing_out() {
        let begin = Instant::now();
        let mut random = Random::new(1);
        let mut schedule = Schedule::new(begin, Duration::from_secs(10), 1000.0);
        // Somebody stalls for the first half, and then looks: everything is still due, each at its own moment.
        let half = begin + Duration::from_secs(5);
        let mut dues = Vec::new();
        while let Some(due) = schedule.due(half, &mut random) {
            dues.push(due);
        }
        assert!((4500..5500).contains(&dues.len()), "{}", dues.len());
        assert!(dues.is_sorted() && dues[0] == begin && *dues.last().unwrap() <= half);
        let mut rest = 0;
        while schedule.due(begin + Duration::from_secs(60), &mut random).is_some() {
            rest += 1;
        }
        assert!((4500..5500).contains(&rest), "none after the end: {rest}");
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn distances_are_random_and_the_same_in_each_run() {
        let moments = |seed| {
            let begin = Instant::now();
            let mut random = Random::new(seed);
            let mut schedule = Schedule::new(begin, Duration::from_millis(100), 1000.0);
            std::iter::from_fn(move || schedule.due(begin + Duration::from_secs(1), &mut random))
                .map(|due| due - begin)
                .collect::<Vec<_>>()
        };
        assert_eq!(moments(5), moments(5));
        assert_ne!(moments(5), moments(6));
    }
}
