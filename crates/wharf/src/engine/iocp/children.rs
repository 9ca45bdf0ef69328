//! Child processes: one of the system's threads waits for the end, and queues the packet.

use super::device::{Device as Inner, traits};
use super::numbers::{ECANCELED, EINVAL};
use super::queue::key;
use super::raw::{Concluded, Device, Issued, Port};
use super::record::{Extra, Pointer, Record};
use super::sys::{self, Called, Completions};
use crate::operation::{Buffers, Kind, Operation, Payload, Side, Sink};
use std::sync::Arc;

/// What the waiting thread is given.
pub(super) struct Told {
    completions: Arc<Completions>,
    record: Pointer,
    process: crate::os::Handle,
}

/// A wait in the system's hands: its own name for it, and the address of what it was given.
pub(super) struct Wait {
    wait: usize,
    told: usize,
}

impl Port {
    /// Issues a wait for the child process behind a device to end: the completion's byte count is its exit code.
    pub fn wait_child(&self, device: &Device, token: usize, sink: Sink) -> Result<Issued, i32> {
        if !device.0.has(traits::CHILD) {
            return Err(EINVAL);
        }
        let operation = Operation::new(Kind::Exited, token, sink, Buffers::None);
        let completions = self.queue.completions.clone();
        let told = Told { completions, record: Pointer(std::ptr::null_mut()), process: device.0.handle() };
        self.issue(&device.0, Side::Receive, operation, Extra::Child(Some(Box::new(told)), None))
    }
}

#[allow(unsafe_code)]
pub(super) fn wait(device: &Inner, record: &mut Record) -> Called {
    let pointer = Pointer(&raw mut *record);
    let Extra::Child(told, waits) = &mut record.extra else { return Called::Failed(EINVAL) };
    let Some(mut told) = told.take() else { return Called::Failed(EINVAL) };
    told.record = pointer;
    let told = Box::into_raw(told).expose_provenance();
    match sys::when_ended(device.handle(), has_ended, told) {
        Ok(wait) => {
            *waits = Some(Wait { wait, told });
            Called::Pending
        }
        Err(error) => {
            // SAFETY: leaked just above, and nobody was given it.
            drop(unsafe { Box::<Told>::from_raw(std::ptr::with_exposed_provenance_mut(told)) });
            Called::Failed(error)
        }
    }
}

#[allow(unsafe_code)]
unsafe extern "system" fn has_ended(told: *mut std::ffi::c_void, _: bool) {
    // SAFETY: `wait` gave it to this call, which is made once, or to `cancel`, if it is not made.
    let told = unsafe { Box::<Told>::from_raw(told.cast()) };
    told.completions.post(sys::exit_code(told.process), key::OPERATION, told.record.0.expose_provenance());
}

/// Ends a wait, unless its packet is on the way. True if it does.
///
/// # Safety
///
/// The record is listed in its lane, which is locked.
#[allow(unsafe_code)]
pub(super) unsafe fn cancel(pointer: *mut Record) -> bool {
    // SAFETY: by the contract the record is alive, and nobody else looks at this field.
    let Extra::Child(_, waits) = (unsafe { &mut (*pointer).extra }) else { return false };
    let ends = waits.as_ref().is_some_and(|waits| sys::end_wait(waits.wait));
    if ends {
        let told = waits.take().expect("looked at just above").told;
        // SAFETY: the other call will not be made, so it is ours.
        let told = unsafe { Box::<Told>::from_raw(std::ptr::with_exposed_provenance_mut(told)) };
        told.completions.post(0, key::OPERATION, pointer.expose_provenance());
    }
    ends
}

pub(super) fn ended(mut record: Box<Record>, bytes: usize) -> Concluded {
    let Extra::Child(_, waits) = &mut record.extra else {
        return Concluded::Ended(record, EINVAL, Payload::None);
    };
    match waits.take() {
        Some(waits) => {
            sys::end_wait(waits.wait);
            record.operation.done = bytes;
            Concluded::Ended(record, 0, Payload::None)
        }
        None => Concluded::Ended(record, ECANCELED, Payload::None),
    }
}
