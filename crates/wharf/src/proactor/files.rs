//! Files: reads and writes at offsets, and syncs. Operations of one file know no order among each other (row F-08).

use super::device::{DeviceState, traits};
use super::direction::Concluded;
use super::port::Port;
use super::queue::key;
use super::record::{Extra, Record};
use super::streams::{nothing, pieces_left};
use crate::op::{Buffers, DeviceKind, Issued, Kind, Operation, Payload, Side, Sink};
use crate::sync::Arc;
use crate::sys::Handle;
use crate::sys::calls::{self as sys, Called, OVERLAPPED};
use crate::sys::errno::{EACCES, ECANCELED, EINVAL, ENODATA};

/// Bytes of one call. The kernel's own limit is 4 GiB.
const CALL_MAX: usize = 1 << 30;

impl Port {
    #[allow(unsafe_code)]
    pub(crate) unsafe fn read_file(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        offset: u64,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let operation = Operation::new(Kind::Read, token, sink, buffers);
        self.issue_file(device, operation, Some(offset), traits::READ)
    }

    #[allow(unsafe_code)]
    pub(crate) unsafe fn write_file(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        offset: Option<u64>,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let operation = Operation::new(Kind::Written, token, sink, buffers);
        self.issue_file(device, operation, offset, traits::WRITE)
    }

    pub(crate) fn sync_file(
        &self,
        device: &Arc<DeviceState>,
        data_only: bool,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let _ = data_only;
        let device = self.own(device)?;
        if device.kind != DeviceKind::File {
            return Err(EINVAL);
        }
        let operation = Operation::new(Kind::Synced, token, sink, Buffers::None);
        let work = Work { completions: self.queue.completions.clone(), pointer: 0, handle: device.handle() };
        self.issue(device, Side::Send, operation, Extra::Sync(Some(Box::new(work))))
    }

    fn issue_file(
        &self,
        device: &Arc<DeviceState>,
        operation: Operation,
        at: Option<u64>,
        needs: u8,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::File || matches!(operation.buffers, Buffers::Pooled) {
            return Err(EINVAL);
        }
        if let Some(offset) = at {
            let bytes = u64::try_from(operation.buffers.total()).unwrap_or(u64::MAX);
            if offset.checked_add(bytes).is_none_or(|end| i64::try_from(end).is_err()) {
                return Err(EINVAL);
            }
        }
        if !device.has(needs) {
            return Err(EACCES);
        }
        self.issue(device, Side::Receive, operation, Extra::At(at))
    }
}

/// What a handle permits; an error if it is no file.
pub(super) fn traits_of(handle: Handle) -> Result<u8, i32> {
    const READ_DATA: u32 = 1;
    const WRITE_DATA: u32 = 2;
    const APPEND_DATA: u32 = 4;
    if !sys::is_disk_file(handle) {
        return Err(EINVAL);
    }
    let rights = sys::file_rights(handle).unwrap_or(READ_DATA | WRITE_DATA);
    let reads = if rights & READ_DATA != 0 { traits::READ } else { 0 };
    let writes = if rights & (WRITE_DATA | APPEND_DATA) != 0 { traits::WRITE } else { 0 };
    Ok(reads | writes)
}

/// The same, with words.
pub(crate) fn file_traits(handle: Handle) -> std::io::Result<u8> {
    traits_of(handle).map_err(|_| {
        std::io::Error::new(
            std::io::ErrorKind::InvalidInput,
            "it is no file on a disk: a directory, a pipe, a console?",
        )
    })
}

#[allow(unsafe_code)]
pub(super) unsafe fn transfer(device: &DeviceState, record: &mut Record, overlapped: *mut OVERLAPPED) -> Called {
    let Extra::At(at) = record.extra else { return Called::Failed(EINVAL) };
    let done = record.operation.done as u64;
    let at = at.map_or(u64::MAX, |at| at + done);
    let mut piece = pieces_left(&record.operation).first().copied().unwrap_or_else(nothing);
    piece.length = piece.length.min(CALL_MAX);
    // SAFETY: the record stays, with what the operation names.
    unsafe {
        (*overlapped).Anonymous.Anonymous.Offset = at as u32;
        (*overlapped).Anonymous.Anonymous.OffsetHigh = (at >> 32) as u32;
        match record.operation.kind {
            Kind::Read => sys::read(device.handle(), &piece, overlapped),
            _ => sys::write(device.handle(), &piece, overlapped),
        }
    }
}

pub(super) fn transferred(mut record: Box<Record>, bytes: usize, error: i32, ends: bool) -> Concluded {
    let read = record.operation.kind == Kind::Read;
    record.operation.done += bytes;
    let done = record.operation.done;
    match error {
        // The end of the file is no failure (row F-03).
        ENODATA if read => Concluded::Ended(record, 0, Payload::None),
        0 if done < record.operation.total() && bytes > 0 => {
            // A part of what was asked for in one call says that the file ends there; the next call finds out.
            if ends {
                let error = if read { 0 } else { ECANCELED };
                return Concluded::Ended(record, error, Payload::None);
            }
            Concluded::GoesOn(record)
        }
        // A read that was asked to end after it had got something reports what it has.
        ECANCELED if read && done > 0 => Concluded::Ended(record, 0, Payload::None),
        error => Concluded::Ended(record, error, Payload::None),
    }
}

/// A sync that one of the system's threads does.
pub(super) struct Work {
    completions: std::sync::Arc<sys::Completions>,
    pointer: usize,
    handle: Handle,
}

#[allow(unsafe_code)]
pub(super) fn sync(device: &DeviceState, record: &mut Record) -> Called {
    let pointer = (&raw mut *record).expose_provenance();
    let Extra::Sync(work) = &mut record.extra else { return Called::Failed(EINVAL) };
    let Some(mut work) = work.take() else { return Called::Failed(EINVAL) };
    work.pointer = pointer;
    work.handle = device.handle();
    // The handle stays open for it.
    if !device.enter() {
        return Called::Failed(ECANCELED);
    }
    let context = Box::into_raw(work).expose_provenance();
    if sys::in_another_thread(flush, context) {
        return Called::Pending;
    }
    device.leave();
    // SAFETY: leaked just above, and nobody was given it.
    drop(unsafe { Box::<Work>::from_raw(std::ptr::with_exposed_provenance_mut(context)) });
    Called::Failed(sys::last_error())
}

#[allow(unsafe_code)]
unsafe extern "system" fn flush(context: *mut std::ffi::c_void) -> u32 {
    // SAFETY: `sync` gave it to this call.
    let work = unsafe { Box::<Work>::from_raw(context.cast()) };
    let error = sys::flush(work.handle);
    let record: *mut Record = std::ptr::with_exposed_provenance_mut(work.pointer);
    // SAFETY: the record waits for its packet, which is posted below, and only here. The fields are not the kernel's:
    // no call of its own is under way.
    unsafe {
        (*record).device.leave();
        (&raw mut (*record).operation.done).write(0);
        (&raw mut (*record).overlapped.Internal).write(if error == 0 { 0 } else { sys::status_of(error) });
    }
    work.completions.post(0, key::OPERATION, work.pointer);
    0
}
