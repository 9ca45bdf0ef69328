//! Child processes: one of the system's threads waits for the end, and queues the packet.
//!
//! Who queues it is decided once, by [`Told::posted`]: the waiting thread or a cancel, whichever comes first. The
//! record owns what the thread is given, and keeps the process's handle open. Both go when the record has been dequeued
//! and the wait is unregistered, which waits for a call of the thread that has posted and not returned yet.

use super::device::{DeviceState, traits};
use super::direction::Concluded;
use super::port::Port;
use super::queue::key;
use super::record::{Extra, Pointer, Record};
use crate::op::{Buffers, Issued, Kind, Operation, Payload, Side, Sink};
use crate::sys::calls::{self as sys, Called, Completions};
use crate::sys::errno::{ECANCELED, EINVAL};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What the waiting thread is given.
struct Told {
    completions: Arc<Completions>,
    record: Pointer,
    process: crate::sys::Handle,
    /// The packet is queued, or about to be: by whoever has set this.
    posted: AtomicBool,
}

/// A wait that the system was asked for.
pub(super) struct Wait {
    /// The system's own name for it.
    wait: usize,
    told: Arc<Told>,
    /// Its handle is open until the wait is over.
    device: Arc<DeviceState>,
    cancelled: bool,
}

impl Drop for Wait {
    fn drop(&mut self) {
        if !sys::end_wait(self.wait) {
            // The thread may look at it yet.
            std::mem::forget(self.told.clone());
        }
        self.device.leave();
    }
}

impl Port {
    pub(crate) fn wait_child(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if !device.has(traits::CHILD) {
            return Err(EINVAL);
        }
        let operation = Operation::new(Kind::Exited, token, sink, Buffers::None);
        let completions = self.queue.completions.clone();
        self.issue(device, Side::Receive, operation, Extra::Child(completions, None))
    }
}

pub(super) fn wait(device: &DeviceState, record: &mut Record) -> Called {
    let pointer = Pointer(&raw mut *record);
    let Extra::Child(completions, wait) = &mut record.extra else { return Called::Failed(EINVAL) };
    // The handle stays open for it.
    if !device.enter() {
        return Called::Failed(ECANCELED);
    }
    let completions = completions.clone();
    let posted = AtomicBool::new(false);
    let told = Arc::new(Told { completions, record: pointer, process: device.handle(), posted });
    match sys::when_ended(device.handle(), has_ended, Arc::as_ptr(&told).expose_provenance()) {
        // The packet may be queued already. Whoever takes it needs the direction's lock, which is held here, to come to
        // the record.
        Ok(name) => {
            *wait = Some(Wait { wait: name, told, device: record.device.clone(), cancelled: false });
            Called::Pending
        }
        Err(error) => {
            device.leave();
            Called::Failed(error)
        }
    }
}

#[allow(unsafe_code)]
unsafe extern "system" fn has_ended(told: *mut std::ffi::c_void, _: bool) {
    // SAFETY: the record owns it until `Wait` is dropped, which waits for this call to return.
    let told = unsafe { &*told.cast_const().cast::<Told>() };
    if !told.posted.swap(true, Ordering::AcqRel) {
        // The handle is open: it is given up after the packet was taken.
        told.completions.post(sys::exit_code(told.process), key::OPERATION, told.record.0.expose_provenance());
    }
}

/// Ends a wait, unless its packet is on the way. True if it does.
///
/// # Safety
///
/// The record is listed in its direction, which is locked.
#[allow(unsafe_code)]
pub(super) unsafe fn cancel(pointer: *mut Record) -> bool {
    // SAFETY: by the contract the record is alive, and nobody else looks at this field.
    let Extra::Child(_, Some(wait)) = (unsafe { &mut (*pointer).extra }) else { return false };
    if wait.told.posted.swap(true, Ordering::AcqRel) {
        return false;
    }
    wait.cancelled = true;
    wait.told.completions.post(0, key::OPERATION, pointer.expose_provenance());
    true
}

/// The packet was taken.
pub(super) fn ended(mut record: Box<Record>, bytes: usize) -> Concluded {
    let Extra::Child(_, wait) = &mut record.extra else {
        return Concluded::Ended(record, EINVAL, Payload::None);
    };
    // The wait ends here.
    let cancelled = wait.take().is_none_or(|wait| wait.cancelled);
    if !cancelled {
        record.operation.done = bytes;
    }
    let error = if cancelled { ECANCELED } else { 0 };
    Concluded::Ended(record, error, Payload::None)
}
