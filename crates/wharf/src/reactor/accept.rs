//! Accepting: the receive side of a listener.

use super::{
    Accepted, Buffers, DeviceKind, EAGAIN, ECANCELED, ECONNABORTED, EINVAL, Entry, Issued, Kind, Payload, Port, Side,
    Sink, entry, finish,
};
use crate::op::Operation;
use crate::reactor::device::DeviceState;
use crate::reactor::direction::Direction;
use crate::sync::{Arc, Guard};
use crate::sys::errno::{EMFILE, ENFILE, ENOBUFS, ENOMEM, EPROTO};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Connections taken in one turn of a listener, so that a flood of them does not keep others waiting.
const ACCEPTS_PER_TURN: usize = 16;
/// How often a listener that found no free descriptor tries again, beside each time one is closed here.
const STARVED_RETRY: Duration = Duration::from_millis(100);
/// The least time between two lines that say it.
const STARVED_SAID: Duration = Duration::from_secs(1);

impl Port {
    pub(crate) fn accept(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::Listener {
            return Err(EINVAL);
        }
        match device.failed_receive.load(Ordering::Acquire) {
            0 => {}
            error => return Err(error),
        }
        self.issue_receive(device, Operation::new(Kind::Accepted, token, sink, Buffers::None))
    }

    /// Takes a connection that waits now, beside the accepts that are outstanding, if one does.
    pub(crate) fn accept_now(&self, device: &Arc<DeviceState>) -> Option<Accepted> {
        let device = self.own(device).ok()?;
        if device.kind != DeviceKind::Listener || !device.enter() {
            return None;
        }
        let taken = loop {
            match self.engine().receiving(device.handle, |calls| calls.accept(device.handle)) {
                // The connection is gone before it was taken.
                Err(ECONNABORTED | EPROTO) => {}
                other => break other.ok(),
            }
        };
        self.leave(device);
        taken.map(|(handle, peer)| Accepted { handle, peer })
    }

    /// Takes connections for the outstanding accepts of a listener.
    pub(super) fn accept_turn(&self, device: &Arc<DeviceState>) {
        let mut direction = device.receive.lock();
        // They lie in one list, whatever the accepts are for.
        if direction.entry_counts(false) && direction.entry_counts(true) {
            self.accept_turn_of(device, direction);
        }
    }

    /// [`accept_turn`](Port::accept_turn) of a listener that nobody owns.
    pub(super) fn accept_turn_of<'a>(&self, device: &'a Arc<DeviceState>, mut direction: Guard<'a, Direction>) {
        let mut taken = Vec::new();
        direction.begin();
        let mut starved = None;
        let mut drained = false;
        while taken.len() < ACCEPTS_PER_TURN {
            let Some(operation) = direction.operations.pop_front() else { break };
            direction.run(operation.serial);
            drop(direction);
            let result = self.engine().receiving(device.handle, |calls| calls.accept(device.handle));
            direction = device.receive.lock();
            direction.run_none();
            match result {
                Ok((handle, peer)) => {
                    self.driver().starving.store(false, Ordering::Relaxed);
                    let payload = Payload::Accepted(Box::new(Accepted { handle, peer }));
                    taken.push(finish(device, operation, 0, payload));
                    continue;
                }
                Err(EAGAIN) if !std::mem::take(&mut direction.edge) => drained = true,
                // The connection is gone before it was taken: the next one, please (row A-07, L-52).
                Err(EAGAIN | ECONNABORTED | EPROTO) => {}
                Err(error @ (EMFILE | ENFILE | ENOBUFS | ENOMEM)) => {
                    starved = Some(error);
                    drained = true;
                }
                Err(error) => {
                    if error == EINVAL {
                        // It listens no more, and never will: see `accept`.
                        device.failed_receive.store(error, Ordering::Release);
                    }
                    taken.push(finish(device, operation, error, Payload::None));
                    continue;
                }
            }
            // It has to wait, unless somebody has asked that it does not.
            if direction.must_end(&operation) {
                taken.push(finish(device, operation, ECANCELED, Payload::None));
            } else {
                direction.operations.push_front(operation);
            }
            if drained {
                break;
            }
        }
        drop(direction);
        let entries: Vec<Entry> = taken.into_iter().filter_map(|(sink, completion)| entry(sink, completion)).collect();
        if !entries.is_empty() {
            self.queue.insert_all(entries);
        }
        // Only now may another worker take connections: its packets come behind these (row A-18).
        let left = device.receive.lock().let_go(drained);
        if let Some(error) = starved {
            self.starve(device, error);
        }
        self.turn_over(device, Side::Receive, left);
    }

    /// A listener without a free descriptor waits. An edge-triggered engine will not report it again, so the port
    /// does: whenever it closes a descriptor, and after a while.
    fn starve(&self, device: &Arc<DeviceState>, error: i32) {
        self.driver().starved.lock().push(device.clone());
        self.resume_accepting_after(STARVED_RETRY);
        if !self.driver().starving.swap(true, Ordering::Relaxed) && self.is_time_to_say_so() {
            log::warn!(
                "accepting pauses: {}. It resumes when a descriptor is free; raise the limit (ulimit -n) or lower the \
                 number of sessions",
                std::io::Error::from_raw_os_error(error)
            );
        }
    }

    fn is_time_to_say_so(&self) -> bool {
        let now = self.engine().selector.now();
        let mut said = self.driver().starving_said.lock();
        let due = said.is_none_or(|said| now - said >= STARVED_SAID);
        if due {
            *said = Some(now);
        }
        due
    }
}
