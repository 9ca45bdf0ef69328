//! How the end of a test settles: what is still under way moves on, and when it does not any more, the end may be told.

use std::time::{Duration, Instant};

/// Between two looks.
pub(crate) const SETTLE: Duration = Duration::from_millis(2);
/// Looks at what arrives although nobody knows how much will; then it has settled.
pub(crate) const SETTLE_ROUNDS: u32 = 20;
/// Where it is known how much has to come, it is waited for until nothing came for so long.
pub(crate) const SETTLE_SILENCE: Duration = Duration::from_millis(500);
/// A file that is slow is not waited for longer.
pub(crate) const STORE_MAX: Duration = Duration::from_secs(20);

/// The end of one test.
#[derive(Debug)]
pub(crate) struct Settling {
    rounds: u32,
    moved: u64,
    /// When the end was told.
    since: Instant,
    /// When something moved last.
    moved_at: Instant,
}

impl Settling {
    /// It begins now, with `moved` bytes moved.
    pub(crate) fn new(moved: u64) -> Settling {
        let now = Instant::now();
        Settling { rounds: 0, moved, since: now, moved_at: now }
    }

    /// Looks once more; true: something has moved since the last look.
    pub(crate) fn look(&mut self, moved: u64) -> bool {
        self.rounds += 1;
        let moves = moved != self.moved;
        if moves {
            (self.moved, self.moved_at) = (moved, Instant::now());
        }
        moves
    }

    /// Looks so far.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds
    }

    /// How long nothing has moved.
    pub(crate) fn silence(&self) -> Duration {
        self.moved_at.elapsed()
    }

    /// When something moved last.
    pub(crate) fn moved_at(&self) -> Instant {
        self.moved_at
    }

    /// Since the end was told.
    pub(crate) fn elapsed(&self) -> Duration {
        self.since.elapsed()
    }
}
