//! Sending files: memory and parts of files, in order, as one operation (rows T). It is alone on its side, so nothing
//! comes between its bytes. Each step is one call: memory, or a part of a file with the memory before and behind it.

use super::device::DeviceState;
use super::direction::Concluded;
use super::port::Port;
use super::record::{Extra, Record};
use super::streams::{may_issue, note_broken, nothing, rest_of};
use crate::op::{Buffers, DeviceKind, Issued, Kind, Operation, Part, Parts, Payload, RawBuffer, Side, Sink};
use crate::sync::Arc;
use crate::sys::calls::{self as sys, Around, Called, OVERLAPPED};
use crate::sys::errno::{EACCES, ECANCELED, EINVAL, ENODATA, ENOTCONN};

/// Bytes of a file in one call: the system's own limit is 2 GiB less two bytes (row T-02).
const CALL_MAX: u64 = 1 << 30;

impl Port {
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_parts(
        &self,
        device: &Arc<DeviceState>,
        parts: Vec<Part>,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind == DeviceKind::Datagram {
            return Err(ENOTCONN); // row T-07
        }
        let parts = Parts::new(parts).ok_or(EINVAL)?;
        may_issue(device, Side::Send)?;
        let operation = Operation::new(Kind::SentFile, token, sink, Buffers::None);
        self.issue(device, Side::Send, operation.with_parts(parts), Extra::None)
    }
}

/// What the next call sends.
#[derive(Debug, PartialEq)]
struct Step {
    head: (usize, usize),
    /// Which part, how far in it, and how many bytes of it.
    file: Option<(usize, u64, u64)>,
    tail: Option<usize>,
}

/// The step behind `done` bytes: memory before a file goes with it, and memory behind it, if the call takes the rest of
/// it.
fn step_at(parts: &[Part], done: usize) -> Option<Step> {
    let mut skip = done as u64;
    let mut at = parts.iter().position(|part| {
        let here = skip < part.length();
        skip -= if here { 0 } else { part.length() };
        here
    })?;
    let mut step = Step { head: (at, skip as usize), file: None, tail: None };
    if matches!(parts[at], Part::Memory(_)) {
        (at, skip) = (at + 1, 0);
        if !matches!(parts.get(at), Some(Part::File { .. })) {
            return Some(step);
        }
    } else {
        step.head = (usize::MAX, 0);
    }
    let left = parts[at].length() - skip;
    step.file = Some((at, skip, left.min(CALL_MAX)));
    if left <= CALL_MAX && matches!(parts.get(at + 1), Some(Part::Memory(_))) {
        step.tail = Some(at + 1);
    }
    Some(step)
}

fn memory(part: Option<&Part>, skip: usize) -> RawBuffer {
    match part {
        Some(Part::Memory(piece)) => rest_of(piece, skip),
        _ => RawBuffer { pointer: std::ptr::null_mut(), length: 0 },
    }
}

#[allow(unsafe_code)]
pub(super) unsafe fn step(device: &DeviceState, record: &mut Record, overlapped: *mut OVERLAPPED) -> Called {
    let done = record.operation.done;
    let Some(Parts { list, .. }) = record.operation.parts() else { return Called::Failed(EINVAL) };
    let nothing = nothing();
    let Some(step) = step_at(list, done) else {
        record.extra = Extra::Step { bytes: 0, ends_early: false, _around: None };
        // SAFETY: a send of no bytes names no memory.
        return unsafe { sys::send(device.handle(), &[nothing], overlapped) };
    };
    let head = memory(list.get(step.head.0), step.head.1);
    let Some((part, skip, bytes)) = step.file else {
        record.extra = Extra::Step { bytes: head.length, ends_early: false, _around: None };
        // SAFETY: the record stays, with what the operation names.
        return unsafe { sys::send(device.handle(), &[head], overlapped) };
    };
    let Part::File { handle, offset, .. } = list[part] else { return Called::Failed(EINVAL) };
    let from = offset + skip;
    // What the file has of it: where it ends early, no tail is sent.
    let there = match sys::file_length(handle) {
        Ok(length) => length.saturating_sub(from).min(bytes),
        // A socket that is open, and a file that is not one, or not for reading.
        Err(_) => return Called::Failed(EACCES),
    };
    let ends_early = there < bytes;
    let tail = if ends_early { memory(None, 0) } else { memory(step.tail.and_then(|at| list.get(at)), 0) };
    let all = head.length + there as usize + tail.length;
    if there == 0 {
        // Of no bytes it would mean up to the end (row T-02), and there is none.
        record.extra = Extra::Step { bytes: head.length, ends_early, _around: None };
        let head = if head.length > 0 { head } else { nothing };
        // SAFETY: as above.
        return unsafe { sys::send(device.handle(), &[head], overlapped) };
    }
    let around = Around::new(&head, &tail);
    let address = &raw const *around;
    record.extra = Extra::Step { bytes: all, ends_early, _around: Some(around) };
    // SAFETY: as above; the file stays open by the contract of `send_parts`, and the boxed memory stays with the
    // record.
    unsafe {
        (*overlapped).Anonymous.Anonymous.Offset = from as u32;
        (*overlapped).Anonymous.Anonymous.OffsetHigh = (from >> 32) as u32;
        sys::transmit(device.handle(), handle, there as u32, address, overlapped)
    }
}

pub(super) fn ended(device: &DeviceState, mut record: Box<Record>, moved: usize, error: i32, ends: bool) -> Concluded {
    note_broken(device, error);
    let Extra::Step { bytes, ends_early, .. } = std::mem::replace(&mut record.extra, Extra::None) else {
        return Concluded::Ended(record, EINVAL, Payload::None);
    };
    if error != 0 {
        record.operation.done += moved.min(bytes);
        return Concluded::Ended(record, error, Payload::None);
    }
    // A call that has succeeded has sent all; not every system counts it.
    let short = moved > 0 && moved < bytes;
    record.operation.done += if moved > 0 { moved.min(bytes) } else { bytes };
    if ends_early || short {
        return Concluded::Ended(record, ENODATA, Payload::None);
    }
    if record.operation.done >= record.operation.total() {
        return Concluded::Ended(record, 0, Payload::None);
    }
    if ends { Concluded::Ended(record, ECANCELED, Payload::None) } else { Concluded::GoesOn(record) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_takes_a_file_with_the_memory_around_it() {
        let piece = |length| Part::Memory(RawBuffer { pointer: std::ptr::null_mut(), length });
        let file = |length| Part::File { handle: 0, offset: 7, length };
        let parts = [piece(2), file(3), piece(4)];
        let whole = Step { head: (0, 0), file: Some((1, 0, 3)), tail: Some(2) };
        assert_eq!(step_at(&parts, 0), Some(whole));
        assert_eq!(step_at(&parts, 9), None);
        let middle = Step { head: (usize::MAX, 0), file: Some((1, 2, 1)), tail: Some(2) };
        assert_eq!(step_at(&parts, 4), Some(middle));
        let large = [file(CALL_MAX + 1), piece(1)];
        let first = Step { head: (usize::MAX, 0), file: Some((0, 0, CALL_MAX)), tail: None };
        assert_eq!(step_at(&large, 0), Some(first));
        assert_eq!(step_at(&[piece(3)], 1), Some(Step { head: (0, 1), file: None, tail: None }));
    }
}
