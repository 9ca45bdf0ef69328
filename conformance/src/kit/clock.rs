//! How long something takes, judged so that a loaded machine is not taken for a slow library.

use std::thread;
use std::time::{Duration, Instant};

/// The machine has so much to do beside that a thread may wait for a processor longer than for anything that a row
/// times. Where nothing can be read of it, it is not said to be so.
pub fn loaded() -> bool {
    /// Waiting and running threads a processor. The suite's own are about two.
    const MANY: f64 = 3.0;
    let load = std::fs::read_to_string("/proc/loadavg").ok();
    let now = load.and_then(|text| text.split(' ').next().and_then(|number| number.parse::<f64>().ok()));
    let processors = thread::available_parallelism().map_or(1, usize::from);
    now.is_some_and(|now| now > MANY * processors as f64)
}

/// How long something took.
pub fn timed(what: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    what();
    begun.elapsed()
}

/// What is done at once takes far less, and what waits for anything takes more.
pub const AT_ONCE: Duration = Duration::from_millis(10);
/// How often it is tried whether something is done at once.
pub const TRIES: usize = 20;

/// The quickest of at most `tries`; no further ones once one is below `bound`.
#[track_caller]
pub fn quickest(what: &str, bound: Duration, tries: usize, mut one: impl FnMut() -> Duration) -> Duration {
    let mut best = Duration::MAX;
    for _ in 0..tries {
        best = best.min(one());
        if best < bound {
            return best;
        }
    }
    panic!("{what}: {best:?} in the best of {tries} tries, where it has to be less than {bound:?}");
}

/// Most of `tries` are below `bound`: for what is slow at random, so that the best of them says nothing. The times that
/// were measured, until that was known.
#[track_caller]
pub fn mostly(what: &str, bound: Duration, tries: usize, mut one: impl FnMut() -> Duration) -> Vec<Duration> {
    let (mut times, mut good) = (Vec::new(), 0);
    while good <= tries / 2 {
        assert!(times.len() < tries, "{what}: {times:.1?}, where most have to be less than {bound:?}");
        times.push(one());
        good += usize::from(times[times.len() - 1] < bound);
    }
    times
}

/// The median of what was measured.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
