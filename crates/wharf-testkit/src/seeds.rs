//! Tests that are played from seeds: which, how many, and on all processors.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// The number of an environment variable, if it is there.
#[track_caller]
pub fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// Plays the seed that `WHARF_SEED` names; or, without one, as many as `WHARF_SCHEDULES` says, `usual` if it says
/// nothing, on all processors. A short run tries other seeds than the last. Returns how many it played, 0 for a seed
/// that was named.
pub fn play(usual: u64, run: impl Fn(u64) + Sync) -> u64 {
    if let Some(seed) = from_environment("WHARF_SEED") {
        run(seed);
        return 0;
    }
    let count = from_environment("WHARF_SCHEDULES").unwrap_or(usual);
    let first = if count > 5_000 { 0 } else { fastrand::u64(..1 << 40) };
    let next = AtomicU64::new(0);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    run(first + seed);
                }
            });
        }
    });
    count
}
