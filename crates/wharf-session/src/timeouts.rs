//! Sessions whose time is over.
//!
//! No timer for each session, and no clock read for each packet: one interval advances a coarse clock, a packet
//! stores it, and the interval compares. Without time-outs there is no interval, and the clock stands still.
//!
//! The clock advances by two periods at most. If workers were late for long, packets that came meanwhile have an old
//! stamp, and their sessions would be closed for it. So a stamp is at most two periods too old, and a time-out is
//! that much longer: no session is closed too early.

use crate::closed::Closed;
use crate::conn::Conn;
use crate::dispatch::{Node, Op};
use crate::lock::Lock;
use crate::options::Options;
use crate::service::Inner;
use crate::time;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use wharf::OperationId;

/// How often sessions are looked at for time-outs, in the smallest of them; and the least time between two looks, as
/// looking at all sessions is work.
const LOOKS_PER_TIMEOUT: u32 = 8;
const LOOK_LEAST: Duration = Duration::from_millis(5);

pub(super) struct Timeouts {
    period: Duration,
    last: Lock<Instant>,
    pub(super) timer: OnceLock<OperationId>,
}

impl Timeouts {
    /// `None`: there are no time-outs.
    pub(super) fn of(options: &Options) -> Option<Timeouts> {
        let smallest = options.idle_timeout.into_iter().chain(options.handshake_timeout).min()?;
        let period = (smallest / LOOKS_PER_TIMEOUT).max(LOOK_LEAST);
        Some(Timeouts { period, last: Lock::new(time::now()), timer: OnceLock::new() })
    }
}

impl Inner {
    /// Sessions are looked at for time-outs from now on.
    pub(super) fn begin(&self) -> io::Result<()> {
        match &self.timeouts {
            Some(timeouts) => {
                let timer = self.port.interval(timeouts.period, Node::Service, Op::Timeouts)?;
                let _ = timeouts.timer.set(timer);
                Ok(())
            }
            None => Ok(()),
        }
    }

    pub(super) fn look_for_timeouts(&self) {
        let Some(timeouts) = &self.timeouts else { return };
        // Another worker looks already: this look is late, and the other is enough.
        let Some(mut last) = timeouts.last.try_lock() else { return };
        let now = time::now();
        let passed = (now - *last).min(2 * timeouts.period);
        *last = now;
        let passed_us = passed.as_micros() as u64;
        let now_us = self.coarse_us.fetch_add(passed_us, Ordering::Relaxed) + passed_us;
        let slack = 2 * timeouts.period;
        let limit = |time: Option<Duration>| {
            time.map(|time| u64::try_from(time.saturating_add(slack).as_micros()).unwrap_or(u64::MAX))
        };
        let (idle_us, handshake_us) = (limit(self.options.idle_timeout), limit(self.options.handshake_timeout));
        let look_us = timeouts.period.as_micros() as u64;
        let due = |conn: &Arc<Conn>| {
            conn.timed_out(now_us, idle_us, handshake_us, look_us).map(|reason| (conn.clone(), reason))
        };
        let due: Vec<(Arc<Conn>, Closed)> = self.sessions.lock().values().filter_map(due).collect();
        due.into_iter().for_each(|(conn, reason)| conn.close(reason));
    }
}
