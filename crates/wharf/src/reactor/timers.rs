//! Timers of a port: the leader waits until the earliest deadline.

use super::{Cancel, Completion, Entry, OperationId, Port, PortDriver, Sink};
use crate::op::{Clock, Due, Repeating, Retain};
use crate::queue::Found;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Clock for PortDriver {
    fn now(&self) -> Instant {
        self.engine.selector.now()
    }

    fn wake_at(&self, deadline: Option<Instant>) {
        if deadline.is_some() {
            self.sources.store(true, Ordering::Relaxed);
        }
        self.engine.selector.set_deadline(deadline);
    }
}

impl PortDriver {
    /// The leader found that a deadline has passed.
    pub(super) fn timers_due(&self, found: &mut Found<Entry>) {
        let due = self.timers.lock().take_due(self);
        for due in due {
            match due {
                Due::ResumeAccepting => self.resume_starved(|entry| found.engine_work.push(entry)),
                Due::Tick(serial) => found.entries.push(Entry::Tick(serial)),
                Due::Elapsed(sink, completion) => found.entries.extend(super::entry(sink, completion)),
            }
        }
    }
}

impl Port {
    pub(crate) fn timer(
        &self,
        after: Duration,
        period: Option<Duration>,
        key: usize,
        token: usize,
        sink: Sink,
        retain: Retain,
    ) -> Result<OperationId, i32> {
        self.check()?;
        let driver = self.driver();
        let timer = Repeating { key, token, sink, retain };
        let serial = driver.timers.lock().begin(driver, timer, after, period)?;
        Ok(self.repeating_id(serial))
    }

    pub(super) fn resume_accepting_after(&self, after: Duration) {
        let driver = self.driver();
        driver.timers.lock().resume_accepting_after(driver, after);
    }

    /// A timer that is outstanding elapses so much later than now. False if there is none.
    pub(crate) fn reset_timer(&self, id: OperationId, after: Duration) -> bool {
        let driver = self.driver();
        // The odd numbers are signals'.
        if id.device != 0 || id.port != driver.number || !self.is_home() || id.serial % 2 == 1 {
            return false;
        }
        driver.timers.lock().reset(driver, id.serial, after)
    }

    /// The packet of a periodic timer is handed out.
    pub(super) fn tick_taken(&self, serial: u64) -> Option<Completion> {
        let driver = self.driver();
        let taken = driver.timers.lock().take_tick(driver, serial);
        let (sink, completion) = taken?;
        self.hand_out(sink, completion)
    }

    /// Takes a timer or a signal out: its last packet.
    pub(super) fn end_one_repeating(&self, serial: u64) -> Option<(Sink, Completion)> {
        if serial % 2 == 1 { self.end_signal(serial) } else { self.driver().timers.lock().cancel(serial) }
    }

    /// Cancels a timer or a signal.
    pub(super) fn cancel_repeating(&self, serial: u64) -> Cancel {
        let Some((sink, completion)) = self.end_one_repeating(serial) else { return Cancel::TooLate };
        self.deliver(sink, completion);
        Cancel::Requested
    }

    /// The port is closed: timers and signals end.
    pub(super) fn end_repeating(&self) {
        let driver = self.driver();
        let ended = driver.timers.lock().close(driver);
        for (sink, completion) in ended {
            self.deliver(sink, completion);
        }
        self.end_signals();
    }
}
