//! Timers of a port: a thread that waits, or a pool's supervisor, keeps the time.

use super::packet::{Entry, post_entry};
use super::port::{Port, PortDriver};
use super::queue::Queue;
use crate::op::{Cancel, Clock, Completion, Due, OperationId, Repeating, Retain, Sink, Withdrawal};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Clock for PortDriver {
    fn now(&self) -> Instant {
        self.engine.now()
    }

    fn wake_at(&self, deadline: Option<Instant>) {
        if deadline.is_some() {
            self.sources.store(true, Ordering::Relaxed);
        }
        self.engine.set_deadline(deadline);
    }
}

/// Queues the packets of timers that are due.
pub(super) fn fire_timers(queue: &Queue) {
    // It is told the next one, if there is one.
    queue.ticker.forget_due();
    let driver = queue.driver();
    let due = driver.timers.lock().take_due(driver);
    for due in due {
        match due {
            Due::ResumeAccepting => {}
            Due::Tick(serial) => post_entry(queue, Entry::Tick(serial)),
            Due::Elapsed(sink, completion) => {
                if let Some(delivery) = sink.send(completion) {
                    post_entry(queue, delivery.into());
                }
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

    /// A timer that is outstanding elapses so much later than now. False if there is none.
    pub(crate) fn reset_timer(&self, id: OperationId, after: Duration) -> bool {
        let driver = self.driver();
        // The odd numbers are signals'.
        if id.device != 0 || id.port != driver.number || id.serial % 2 == 1 {
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

    fn end_one_repeating(&self, serial: u64) -> Option<(Sink, Completion)> {
        if serial % 2 == 1 { self.end_signal(serial) } else { self.driver().timers.lock().cancel(serial) }
    }

    /// Cancels a timer or a signal.
    pub(super) fn cancel_repeating(&self, serial: u64) -> Cancel {
        let Some((sink, completion)) = self.end_one_repeating(serial) else { return Cancel::TooLate };
        self.deliver(sink, completion);
        Cancel::Requested
    }

    /// Takes a timer or a signal out: its last packet. Operations of devices are the kernel's, and are cancelled.
    pub(crate) fn withdraw(&self, id: OperationId) -> Withdrawal<Completion> {
        if id.device != 0 || id.port != self.driver().number {
            return self.cancel(id).into();
        }
        self.end_one_repeating(id.serial)
            .map_or(Withdrawal::TooLate, |(_, completion)| Withdrawal::Withdrawn(completion))
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
