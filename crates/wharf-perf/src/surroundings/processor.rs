//! What this process uses of its processors, and on which of them it runs.

use super::system::{self, Processors};
use std::io;
use std::time::{Duration, Instant};

/// The process's processor time at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Processor {
    at: Instant,
    user: Duration,
    system: Duration,
}

impl Processor {
    pub(crate) fn now() -> Processor {
        let [user, system] = system::processor_times();
        Processor { at: Instant::now(), user, system }
    }

    /// Percent of one processor from then to now: total, user, system.
    pub(crate) fn percent_since(&self, then: &Processor) -> [f64; 3] {
        let wall = self.at.duration_since(then.at).as_secs_f64().max(1e-6);
        let share = |now: Duration, then: Duration| 100.0 * now.saturating_sub(then).as_secs_f64() / wall;
        let (user, system) = (share(self.user, then.user), share(self.system, then.system));
        [user + system, user, system]
    }
}

/// All threads of this process run on this processor from now on; those that are started later, too.
///
/// # Errors
///
/// The system's: there is no such processor, or it may not be used.
pub fn use_processor(number: u32) -> io::Result<()> {
    Processors::only(number)?.choose()
}
