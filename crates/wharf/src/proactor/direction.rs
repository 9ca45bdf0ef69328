//! One side of a device: what is in the kernel's hands, what waits for its turn, and how an operation begins, goes on
//! and ends.

use super::device::{DeviceState, shut};
use super::packet::Ended;
use super::port::Port;
use super::queue::{Queue, key};
use super::record::{Extra, Pointer, Record};
use super::{children, datagrams, files, streams, transmit};
use crate::op::{Completion, Issued, Kind, Name, Operation, OperationId, Payload, Side, Sink};
use crate::sync::{Arc, Guard};
use crate::sys::calls::{self as sys, Called, OVERLAPPED};
use crate::sys::errno::{EBADF, ECANCELED, EINVAL, ESHUTDOWN};
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::Ordering;

/// One side of a device.
#[derive(Default)]
pub(super) struct Direction {
    /// In the kernel's hands, by serial number.
    pub(super) issued: BTreeMap<u64, Pointer>,
    /// Wait until what is in the kernel's hands has ended.
    pub(super) waiting: VecDeque<Box<Record>>,
    /// What is in the kernel's hands has to be alone there.
    pub(super) alone: bool,
    pub(super) closed: bool,
    /// The connection has ended on this side, and what the kernel has was asked to end with it.
    pub(super) over: bool,
    last_serial: u64,
}

impl Direction {
    pub(super) fn next_serial(&mut self, side: Side) -> u64 {
        self.last_serial += 2;
        self.last_serial + u64::from(side == Side::Send)
    }

    /// May this one go to the kernel now?
    pub(super) fn may_go(&self, record: &Record) -> bool {
        !self.alone && (self.issued.is_empty() || !record.is_alone())
    }

    /// Those of a name that the kernel has.
    #[allow(unsafe_code)]
    pub(super) fn named(&self, name: Name) -> Vec<u64> {
        // SAFETY: a record that is listed is alive: its packet's taker has to have the direction's lock to take it out,
        // and changes nothing of the operation before. The kernel does not touch it.
        let is = |&Pointer(pointer): &Pointer| unsafe { (*pointer).operation.label().is(name) };
        self.issued.iter().filter(|(_, pointer)| is(pointer)).map(|(&serial, _)| serial).collect()
    }

    pub(super) fn pending(&self) -> usize {
        self.issued.len() + self.waiting.len()
    }
}

/// What giving an operation to the kernel came to.
pub(super) enum Submitted {
    /// A packet will come.
    Pending,
    /// It is done with so many bytes, and no packet will come.
    Done(Box<Record>, usize),
    Failed(Box<Record>, i32),
}

/// What the end of a call means for its operation.
pub(super) enum Concluded {
    Ended(Box<Record>, i32, Payload),
    /// There is more to do.
    GoesOn(Box<Record>),
}

/// Gives an operation to the kernel. The direction is the one of its side, locked, and the device open.
#[allow(unsafe_code)]
fn submit(queue: &Queue, device: &DeviceState, direction: &mut Guard<'_, Direction>, record: Box<Record>) -> Submitted {
    let serial = record.operation.serial;
    direction.alone = record.is_alone();
    let pointer = Box::into_raw(record);
    direction.issued.insert(serial, Pointer(pointer));
    queue.driver().outstanding.fetch_add(1, Ordering::AcqRel);
    // SAFETY: the record is ours until the call below gives it to the kernel. It stays where it is, and is freed by
    // whoever takes its packet, or below if there will be none. Nobody else finds it meanwhile but by the direction,
    // which is locked.
    let called = unsafe {
        (*pointer).overlapped = OVERLAPPED::default();
        call(device, pointer)
    };
    let skips = device.skip_on_success.load(Ordering::Acquire);
    // SAFETY: it is listed, and its packet was not queued yet.
    let is_end = unsafe { (*pointer).operation.kind == Kind::Disconnected };
    if is_end && !skips && matches!(called, Called::Now(_)) {
        // A plain call, whose packet is ours to queue.
        queue.completions.post(0, key::OPERATION, pointer.expose_provenance());
    }
    match called {
        Called::Pending => {
            if direction.over {
                // SAFETY: as above.
                sys::cancel(device.handle(), Some(unsafe { &raw mut (*pointer).overlapped }));
            }
            Submitted::Pending
        }
        Called::Now(_) if !skips => Submitted::Pending,
        Called::Now(_) | Called::Failed(_) => {
            direction.issued.remove(&serial);
            direction.alone = false;
            queue.driver().outstanding.fetch_sub(1, Ordering::AcqRel);
            // SAFETY: no packet will come, so nobody else has it.
            let record = unsafe { Box::from_raw(pointer) };
            match called {
                Called::Now(bytes) => Submitted::Done(record, bytes),
                Called::Failed(error) => Submitted::Failed(record, error),
                Called::Pending => unreachable!("looked at above"),
            }
        }
    }
}

/// The one call of an operation's next step.
///
/// # Safety
///
/// The record stays valid until its packet, and with it the memory that the operation names.
#[allow(unsafe_code)]
unsafe fn call(device: &DeviceState, pointer: *mut Record) -> Called {
    // SAFETY: by the contract; the overlapped structure's address is taken without a reference to it.
    unsafe {
        let overlapped = &raw mut (*pointer).overlapped;
        let record = &mut *pointer;
        match record.operation.kind {
            Kind::Accepted => streams::accept(device, record, overlapped),
            Kind::Connected => streams::connect(device, record, overlapped),
            Kind::Received | Kind::Readable => streams::receive(device, record, overlapped),
            Kind::Sent => streams::send(device, record, overlapped),
            Kind::Disconnected => sys::shut_sending(device.handle()),
            Kind::SentFile => transmit::step(device, record, overlapped),
            Kind::ReceivedFrom => datagrams::receive(device, record, overlapped),
            Kind::SentTo => datagrams::send(device, record, overlapped),
            Kind::Read | Kind::Written => files::transfer(device, record, overlapped),
            Kind::Synced => files::sync(device, record),
            Kind::Exited => children::wait(device, record),
            Kind::Posted | Kind::Elapsed | Kind::Signal | Kind::Writable => Called::Failed(EINVAL),
        }
    }
}

/// What the end of a call means.
fn conclude(
    queue: &Queue,
    device: &Arc<DeviceState>,
    closed: bool,
    record: Box<Record>,
    bytes: usize,
    error: i32,
) -> Concluded {
    let ends = closed || record.cancelled;
    // A closed handle ends its operations in several ways; they all mean this (row K-12).
    let error = if closed && error != 0 { ECANCELED } else { error };
    // Nobody has asked for it: the connection has ended, and this operation with it (see `end_with_connection`).
    let error = match streams::end_of(device, record.side()) {
        Some(end) if error == ECANCELED && !ends => end,
        _ => error,
    };
    match record.operation.kind {
        Kind::Accepted => streams::accepted(device, record, error, closed),
        Kind::Connected => streams::connected(queue, device, record, error, closed),
        Kind::Received => streams::received(queue, device, record, bytes, error, ends),
        Kind::Readable => {
            streams::note_broken_receive(device, error);
            Concluded::Ended(record, error, Payload::None)
        }
        Kind::Sent => streams::sent(device, record, bytes, error, ends),
        Kind::SentFile => transmit::ended(device, record, bytes, error, ends),
        Kind::ReceivedFrom => datagrams::received(record, bytes, error),
        Kind::SentTo => {
            let mut record = record;
            record.operation.done = if error == 0 { record.operation.total() } else { 0 };
            Concluded::Ended(record, error, Payload::None)
        }
        Kind::Read | Kind::Written => files::transferred(record, bytes, error, ends),
        Kind::Exited => children::ended(record, bytes),
        _ => Concluded::Ended(record, error, Payload::None),
    }
}

/// Gives the kernel what may go there now, of what waits.
fn advance(
    queue: &Queue,
    device: &Arc<DeviceState>,
    direction: &mut Guard<'_, Direction>,
    ended: &mut Vec<(Sink, Completion)>,
) {
    while let Some(next) = direction.waiting.front() {
        if !direction.may_go(next) {
            return;
        }
        let next = direction.waiting.pop_front().expect("looked at just above");
        match submit(queue, device, direction, next) {
            Submitted::Pending => {}
            Submitted::Done(record, bytes) => go_on(queue, device, direction, record, bytes, 0, ended),
            Submitted::Failed(record, error) => ended.push(finish(device, record, error, Payload::None)),
        }
    }
}

/// A step of an operation is over: it ends, or takes the next one.
fn go_on(
    queue: &Queue,
    device: &Arc<DeviceState>,
    direction: &mut Guard<'_, Direction>,
    mut record: Box<Record>,
    mut bytes: usize,
    mut error: i32,
    ended: &mut Vec<(Sink, Completion)>,
) {
    loop {
        record = match conclude(queue, device, direction.closed, record, bytes, error) {
            Concluded::Ended(record, error, payload) => {
                end_with_connection(device, direction, record.side());
                ended.push(finish(device, record, error, payload));
                return;
            }
            Concluded::GoesOn(record) => record,
        };
        match submit(queue, device, direction, record) {
            Submitted::Pending => return,
            Submitted::Done(again, moved) => (record, bytes, error) = (again, moved, 0),
            Submitted::Failed(again, why) => (record, bytes, error) = (again, 0, why),
        }
    }
}

/// When the connection has ended on a side, so does all that the kernel has of it, and each with that end: it is asked
/// for it. Windows does so by itself. Wine does not end a receive that was issued when the end was on its way to the
/// one before.
#[allow(unsafe_code)]
fn end_with_connection(device: &DeviceState, direction: &mut Guard<'_, Direction>, side: Side) {
    // What is closed was cancelled, and its handle may be closed, too.
    if direction.over || direction.closed || streams::end_of(device, side).is_none() {
        return;
    }
    direction.over = true;
    for &Pointer(pointer) in direction.issued.values() {
        // SAFETY: a record that is listed is alive; see `cancel_issued`.
        sys::cancel(device.handle(), Some(unsafe { &raw mut (*pointer).overlapped }));
    }
}

/// An operation's packet was taken. What has ended by it: the operation itself comes first, unless it goes on.
#[allow(unsafe_code)]
pub(super) fn finished(queue: &Queue, Ended(pointer, bytes): Ended, closing: bool) -> Vec<(Sink, Completion)> {
    // SAFETY: its packet was dequeued, once, so it is ours.
    let record = unsafe { Box::from_raw(pointer.0) };
    queue.driver().outstanding.fetch_sub(1, Ordering::AcqRel);
    let device = record.device.clone();
    let status = record.overlapped.Internal as u32;
    let error = crate::error::of_status(status, device.is_socket());
    let mut ended = Vec::with_capacity(1);
    let mut direction = device.direction(record.side()).lock();
    direction.issued.remove(&record.operation.serial);
    if record.is_alone() {
        direction.alone = false;
    }
    direction.closed |= closing;
    go_on(queue, &device, &mut direction, record, bytes, error, &mut ended);
    advance(queue, &device, &mut direction, &mut ended);
    ended
}

pub(super) fn finish(
    device: &DeviceState,
    mut record: Box<Record>,
    error: i32,
    payload: Payload,
) -> (Sink, Completion) {
    let named_memory = record.operation.names_memory();
    let sink = record.operation.take_sink();
    let Operation { kind, token, done: bytes, .. } = record.operation;
    let (key, device) = (device.key(), device.number);
    (sink, Completion { key, token, bytes, error, kind, device, more: false, payload, named_memory })
}

impl Port {
    // --- Issuing ---

    /// Issues an operation: gives it to the kernel, or has it wait for its turn.
    pub(super) fn issue(
        &self,
        device: &Arc<DeviceState>,
        side: Side,
        operation: Operation,
        extra: Extra,
    ) -> Result<Issued, i32> {
        self.check()?;
        let mut record = Record::new(device, operation, extra);
        let mut direction = device.direction(side).lock();
        if direction.closed {
            return Err(EBADF);
        }
        // Under the lock: what is issued after the end of sending does not come behind it.
        if side == Side::Send && device.shut.load(Ordering::Acquire) & shut::SEND != 0 {
            return Err(ESHUTDOWN);
        }
        if record.operation.kind == Kind::Disconnected {
            device.shut.fetch_or(shut::SEND, Ordering::AcqRel);
        }
        let serial = direction.next_serial(side);
        record.operation.serial = serial;
        let id = OperationId { port: device.port, device: device.number, serial };
        if !direction.waiting.is_empty() || !direction.may_go(&record) {
            direction.waiting.push_back(record);
            return Ok(Issued::Pending(id));
        }
        match submit(&self.queue, device, &mut direction, record) {
            Submitted::Pending => Ok(Issued::Pending(id)),
            // A connect that cannot be tried.
            Submitted::Failed(record, error)
                if record.operation.kind == Kind::Connected && !streams::is_end_of_connect(error) =>
            {
                Err(error)
            }
            // An end like others, however soon it is known: it comes as a packet, as on other systems.
            Submitted::Failed(record, error) => {
                let mut ended = Vec::new();
                go_on(&self.queue, device, &mut direction, record, 0, error, &mut ended);
                drop(direction);
                ended.into_iter().for_each(|(sink, completion)| self.deliver(sink, completion));
                Ok(Issued::Pending(id))
            }
            Submitted::Done(record, bytes) => {
                let mut ended = Vec::new();
                go_on(&self.queue, device, &mut direction, record, bytes, 0, &mut ended);
                drop(direction);
                let Some((sink, completion)) = ended.pop() else { return Ok(Issued::Pending(id)) };
                if completion.error == 0 && matches!(sink, Sink::Port) {
                    return Ok(Issued::Done(completion));
                }
                self.deliver(sink, completion);
                Ok(Issued::Pending(id))
            }
        }
    }
}
