//! Cancelling operations, closing devices, and closing the port without memory freed under the kernel.

use super::device::{DeviceState, traits};
use super::direction::{Direction, finish};
use super::packet::{dispose, entry_of, free};
use super::port::Port;
use super::queue::{Queue, key};
use super::record::{Pointer, Record};
use crate::op::{Cancel, DeviceKind, Name, OperationId, Payload, Side};
use crate::sync::Arc;
use crate::sys::calls::{self as sys, OVERLAPPED_ENTRY};
use crate::sys::errno::ECANCELED;
use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long closing a port waits for what was outstanding. What a driver does not give up by then is waited for by a
/// thread of its own.
const CLOSING: Duration = Duration::from_millis(500);

/// How long a cancel waits at most for an operation that the kernel is about to end at that moment: see
/// [`cancel_direction`].
const SETTLING: Duration = Duration::from_secs(1);

impl Port {
    // --- Cancelling ---

    pub(crate) fn cancel(&self, id: OperationId) -> Cancel {
        if id.port != self.driver().number {
            return Cancel::Foreign;
        }
        if id.device == 0 {
            return self.cancel_repeating(id.serial);
        }
        let device = self.driver().devices.lock().find(id.device).cloned();
        let Some(device) = device else { return Cancel::TooLate };
        let (issued, waiting) = cancel_direction(&device, Side::of(id.serial), Which::One(id.serial));
        let count = issued + self.end_waiting(&device, waiting);
        if count > 0 { Cancel::Requested } else { Cancel::TooLate }
    }

    /// [`cancel`](Port::cancel), if it is an operation of this device.
    pub(crate) fn cancel_of(&self, device: &Arc<DeviceState>, id: OperationId) -> Cancel {
        if (id.port, id.device) == (device.port, device.number) { self.cancel(id) } else { Cancel::Foreign }
    }

    pub(crate) fn cancel_all(&self, device: &Arc<DeviceState>) -> usize {
        let Ok(device) = self.own(device) else { return 0 };
        let cancel = |side| {
            let (issued, waiting) = cancel_direction(device, side, Which::All);
            issued + self.end_waiting(device, waiting)
        };
        cancel(Side::Receive) + cancel(Side::Send)
    }

    /// Asks that those outstanding operations of a device end that have a name in common.
    pub(crate) fn cancel_named(&self, device: &Arc<DeviceState>, name: Name) -> usize {
        let Ok(device) = self.own(device) else { return 0 };
        let cancel = |side| {
            let (issued, waiting) = cancel_direction(device, side, Which::Named(name));
            issued + self.end_waiting(device, waiting)
        };
        cancel(Side::Receive) + cancel(Side::Send)
    }

    /// Delivers operations that the kernel never had as cancelled. Returns how many.
    fn end_waiting(&self, device: &DeviceState, waiting: VecDeque<Box<Record>>) -> usize {
        let count = waiting.len();
        for record in waiting {
            let (sink, completion) = finish(device, record, ECANCELED, Payload::None);
            self.deliver(sink, completion);
        }
        count
    }

    /// Closes both directions: what waits ends, and what the kernel has is cancelled.
    pub(super) fn abandon(&self, device: &Arc<DeviceState>) {
        for side in [Side::Receive, Side::Send] {
            let (_, waiting) = cancel_direction(device, side, Which::AllAndClose);
            self.end_waiting(device, waiting);
        }
    }

    pub(crate) fn close(&self) {
        if !self.queue.close() {
            return;
        }
        self.end_repeating();
        let devices: Vec<Arc<DeviceState>> = self.driver().devices.lock().iter().cloned().collect();
        for device in devices {
            self.abandon(&device);
        }
        let deadline = Instant::now() + CLOSING;
        if !drain(&self.queue, deadline) {
            let port = self.clone();
            let stays = std::thread::Builder::new().name("wharf-closing".into());
            let started = stays.spawn(move || while !drain(&port.queue, Instant::now() + CLOSING) {});
            if let Err(error) = started {
                log::error!("what is outstanding of a closed port is not freed: {error}");
                // The kernel may still write to it.
                std::mem::forget(self.clone());
            }
        }
    }
}

/// Which operations of a direction are cancelled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    One(u64),
    Named(Name),
    All,
    /// And nothing is issued there any more.
    AllAndClose,
}

/// Cancels operations of a direction. Returns how many the kernel was asked to end, and those that it did not have yet.
///
/// An operation that the kernel does not know any more, and whose end is not written down yet, is being ended at this
/// very moment. It is looked at again until that is over, and only then may the handle be closed: the number of a
/// closed handle is soon another's. For Windows that is the time between two instructions. Wine lets the thread that
/// issued an operation move its bytes, by the handle's number, and has the operation wait on if there were none: after
/// a close it tried another socket's, and the operation never ended; without one, the cancel was forgotten.
fn cancel_direction(device: &DeviceState, side: Side, which: Which) -> (usize, VecDeque<Box<Record>>) {
    let mut count = 0;
    let mut waiting = VecDeque::new();
    let mut settling: Option<(Vec<u64>, Instant)> = None;
    // A handle that is closed already is another's, perhaps; whoever closed it has asked.
    let open = device.enter();
    loop {
        let mut direction = device.direction(side).lock();
        let serials: Vec<u64> = match &settling {
            // Serial numbers are used once: what was not there at the first look is somebody else's.
            Some((serials, _)) => serials.clone(),
            None => {
                direction.closed |= which == Which::AllAndClose;
                waiting = match which {
                    Which::One(serial) => {
                        let at = direction.waiting.iter().position(|record| record.operation.serial == serial);
                        at.and_then(|at| direction.waiting.remove(at)).into_iter().collect()
                    }
                    Which::Named(name) => {
                        let all = std::mem::take(&mut direction.waiting).into_iter();
                        let (ending, left) = all.partition(|record| record.operation.label().is(name));
                        direction.waiting = left;
                        ending
                    }
                    Which::All | Which::AllAndClose => std::mem::take(&mut direction.waiting),
                };
                match which {
                    Which::One(serial) => vec![serial],
                    Which::Named(name) => direction.named(name),
                    Which::All | Which::AllAndClose => direction.issued.keys().copied().collect(),
                }
            }
        };
        let (asked, ending) = if open { cancel_issued(device, &mut direction, &serials) } else { (0, Vec::new()) };
        drop(direction);
        count += asked;
        let until = settling.map_or_else(|| Instant::now() + SETTLING, |(_, until)| until);
        if ending.is_empty() || Instant::now() >= until {
            if open {
                device.leave();
            }
            return (count, waiting);
        }
        settling = Some((ending, until));
        std::thread::yield_now();
    }
}

/// Marks operations that the kernel has, and asks it to end them. Returns how many it will end, and those of the others
/// whose end is not written down yet. The device is open.
#[allow(unsafe_code)]
fn cancel_issued(device: &DeviceState, direction: &mut Direction, serials: &[u64]) -> (usize, Vec<u64>) {
    let (mut count, mut ending) = (0, Vec::new());
    for &serial in serials {
        let Some(&Pointer(pointer)) = direction.issued.get(&serial) else { continue };
        // SAFETY: a record that is listed is alive: its packet's taker has to have the direction's lock to take it out.
        // The fields are touched under that lock only, and not by the kernel, but for the status, which is read as what
        // may change.
        unsafe {
            let asked = if device.has(traits::CHILD) && device.kind == DeviceKind::Handle {
                super::children::cancel(pointer)
            } else {
                sys::cancel(device.handle(), Some(&raw mut (*pointer).overlapped))
            };
            if !asked && sys::is_pending(&raw const (*pointer).overlapped) {
                ending.push(serial);
            }
            // One whose packet is queued has ended (row K-05), unless it was to go on.
            let ends = asked || (*pointer).goes_on();
            count += usize::from(ends && !(*pointer).cancelled);
            (&raw mut (*pointer).cancelled).write((*pointer).cancelled || ends);
        }
    }
    (count, ending)
}

/// Takes the packets of a closed port, and frees them. True when nothing is left.
fn drain(queue: &Queue, deadline: Instant) -> bool {
    let mut into = [OVERLAPPED_ENTRY::default(); 64];
    loop {
        // In this order: whoever takes a packet may post another one.
        let left = queue.driver().outstanding.load(Ordering::Acquire) + queue.driver().posting.load(Ordering::SeqCst);
        let wait = if left == 0 { 0 } else { 10 };
        match queue.completions.get(&mut into, Some(wait)) {
            Ok(count) => {
                for packet in &into[..count] {
                    if packet.lpCompletionKey != key::NOTHING {
                        dispose(queue, entry_of(packet));
                    }
                }
            }
            Err(_) if left == 0 && queue.completions.depth() == 0 => return true,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // What it holds is freed, and nothing that the kernel may still write to.
        let devices: Vec<Arc<DeviceState>> = self.driver().devices.lock().iter().cloned().collect();
        if self.is_closed() {
            while !drain(self, Instant::now() + CLOSING) {}
            devices.iter().for_each(|device| device.leave());
            return;
        }
        // A raw port that nobody has closed.
        self.close();
        for device in &devices {
            for side in [Side::Receive, Side::Send] {
                let (_, waiting) = cancel_direction(device, side, Which::AllAndClose);
                for record in waiting {
                    let (sink, completion) = finish(device, record, ECANCELED, Payload::None);
                    free(self, sink, completion);
                }
            }
        }
        while !drain(self, Instant::now() + CLOSING) {
            log::warn!("a port waits for operations that a driver does not give up");
        }
        devices.iter().for_each(|device| device.leave());
    }
}
