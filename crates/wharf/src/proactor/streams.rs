//! Streams: accepting, connecting, receiving, sending, ending.
//!
//! The kernel keeps order: receives fill in the order of issue, sends go out in it. What takes more than one call (a
//! receive into a buffer of the pool, a send of a file) or ends what goes before it (the end of sending) is alone in
//! the kernel's hands; the rest waits in the direction.

use super::device::{DeviceState, shut, traits};
use super::direction::Concluded;
use super::port::Port;
use super::queue::{Queue, key};
use super::record::{Extra, Record};
use crate::op::{
    Accepted, Buffers, DeviceKind, Issued, Kind, Operation, Payload, RawBuffer, ReceiveFlags, Side, Sink, phase,
};
use crate::sync::Arc;
use crate::sys::calls::{self as sys, AcceptRoom, Called, OVERLAPPED};
use crate::sys::errno::{
    EADDRNOTAVAIL, EBADF, ECANCELED, ECONNABORTED, ECONNRESET, EINVAL, EISCONN, ENOTCONN, EOPNOTSUPP, ESHUTDOWN,
    ETIMEDOUT, EWOULDBLOCK, is_broken,
};
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::net::sockopt;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What came of a send that has no record, where that is possible.
#[allow(dead_code)]
pub(crate) enum TrySend {
    Done,
    Started(Infallible),
    NotTried,
}

impl Port {
    /// There is no way here to take a connection beside the accepts that are outstanding.
    pub(crate) fn accept_now(&self, _device: &Arc<DeviceState>) -> Option<Accepted> {
        None
    }

    pub(crate) fn accept(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::Listener {
            return Err(EINVAL);
        }
        let operation = Operation::new(Kind::Accepted, token, sink, Buffers::None);
        self.issue(device, Side::Receive, operation, Extra::None)
    }

    pub(crate) fn connect(
        &self,
        device: &Arc<DeviceState>,
        peer: &SocketAddr,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        self.check()?;
        if peer.ip().is_unspecified() || peer.port() == 0 {
            return Err(EADDRNOTAVAIL);
        }
        let begun = device.phase.compare_exchange(phase::FRESH, phase::CONNECTING, Ordering::AcqRel, Ordering::Acquire);
        match begun {
            Ok(_) => {}
            Err(phase::CONNECTED) => return Err(EISCONN),
            Err(_) => return Err(EINVAL),
        }
        device.failed.store(0, Ordering::Release);
        device.failed_receive.store(0, Ordering::Release);
        let operation = Operation::new(Kind::Connected, token, sink, Buffers::None);
        self.issue(device, Side::Send, operation, Extra::Connect(*peer)).inspect_err(|_| {
            device.phase.store(phase::FRESH, Ordering::Release);
        })
    }

    #[allow(unsafe_code)]
    #[inline]
    pub(crate) unsafe fn receive(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        // SAFETY: the caller promises the same.
        unsafe { self.receive_with(device, buffers, ReceiveFlags::default(), token, sink) }
    }

    /// # Safety
    ///
    /// As for [`receive`](Port::receive).
    #[allow(unsafe_code)]
    pub(crate) unsafe fn receive_with(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        flags: ReceiveFlags,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        let pooled = matches!(buffers, Buffers::Pooled);
        if buffers.is_empty_list() || !flags.are_sound() || !flags.is_empty() && pooled {
            return Err(EINVAL);
        }
        if flags.contains(ReceiveFlags::PEEK) {
            return Err(EOPNOTSUPP);
        }
        may_issue(device, Side::Receive)?;
        let kind = if buffers.total() == 0 { Kind::Readable } else { Kind::Received };
        let mut operation = Operation::new(kind, token, sink, buffers);
        if kind == Kind::Received {
            operation.flags = flags;
        }
        self.issue(device, Side::Receive, operation, Extra::None)
    }

    /// The kernel tells no edges: it waits for data.
    pub(crate) fn watch_readable(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        #[allow(unsafe_code)]
        // SAFETY: it names no memory.
        unsafe {
            self.receive(device, Buffers::None, token, sink)
        }
    }

    /// The kernel has no such operation.
    pub(crate) fn watch_writable(&self, device: &Arc<DeviceState>, _token: usize, _sink: Sink) -> Result<Issued, i32> {
        may_issue(self.own(device)?, Side::Send)?;
        Err(EOPNOTSUPP)
    }

    #[allow(unsafe_code)]
    pub(crate) unsafe fn send(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if matches!(buffers, Buffers::Pooled) {
            return Err(EINVAL);
        }
        may_issue(device, Side::Send)?;
        self.issue(device, Side::Send, Operation::new(Kind::Sent, token, sink, buffers), Extra::None)
    }

    /// The kernel needs a record from the start, so nothing is tried without one.
    ///
    /// # Safety
    ///
    /// None is needed here.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_inline(&self, _device: &Arc<DeviceState>, _piece: RawBuffer) -> Result<TrySend, i32> {
        Ok(TrySend::NotTried)
    }

    /// # Safety
    ///
    /// None is needed: it cannot be called.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_on(
        &self,
        _device: &Arc<DeviceState>,
        started: Infallible,
        _buffers: Buffers,
        _token: usize,
    ) -> Issued {
        match started {}
    }

    /// # Safety
    ///
    /// As for [`send`](Port::send).
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_with_record(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        // SAFETY: the caller promises the same.
        unsafe { self.send(device, buffers, token, sink) }
    }

    pub(crate) fn bytes_taken(&self, device: &Arc<DeviceState>) -> u64 {
        self.own(device).map_or(0, |device| device.taken.load(Ordering::Relaxed))
    }

    pub(crate) fn unacknowledged(&self, _device: &Arc<DeviceState>) -> Option<u64> {
        None
    }

    /// Whether a stream's connection is known to be broken, though nobody receives; or is closed.
    pub(crate) fn is_broken(&self, device: &Arc<DeviceState>) -> bool {
        let look = self.with_handle(device, |handle| {
            #[allow(unsafe_code)]
            // SAFETY: `with_handle` keeps the socket open for the length of the call.
            let socket = unsafe { crate::sys::borrow(handle) };
            let mut ready = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
            let now = Timespec { tv_sec: 0, tv_nsec: 0 };
            rustix::event::poll(&mut ready, Some(&now))?;
            Ok(ready[0].revents().contains(PollFlags::ERR))
        });
        look.unwrap_or(true)
    }

    /// The close of a stream, which comes next, resets its connection.
    pub(crate) fn reset_when_closed(&self, device: &Arc<DeviceState>) {
        let _ = self.with_handle(device, |handle| {
            #[allow(unsafe_code)]
            // SAFETY: as above.
            let socket = unsafe { crate::sys::borrow(handle) };
            Ok(sockopt::set_socket_linger(socket, Some(Duration::ZERO))?)
        });
    }

    /// Not told either.
    pub(crate) fn unacknowledged_bytes(&self, _device: &Arc<DeviceState>) -> Option<u64> {
        None
    }

    pub(crate) fn disconnect(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        let device = self.own(device)?;
        may_issue(device, Side::Send)?;
        let operation = Operation::new(Kind::Disconnected, token, sink, Buffers::None);
        self.issue(device, Side::Send, operation, Extra::None)
    }
}

/// What every operation of a connected stream asks first. The end of sending is looked at under the direction's lock:
/// see `issue`.
pub(super) fn may_issue(device: &DeviceState, side: Side) -> Result<(), i32> {
    if device.kind != DeviceKind::Stream {
        return Err(EINVAL);
    }
    if device.direction(side).lock().closed {
        return Err(EBADF);
    }
    if !device.is(phase::CONNECTED) {
        return Err(ENOTCONN);
    }
    if side == Side::Receive && device.shut.load(Ordering::Acquire) & shut::RECEIVE != 0 {
        return Err(ESHUTDOWN);
    }
    match end_of(device, side) {
        // After the end of the stream the system tells it again.
        None | Some(0) => Ok(()),
        Some(error) => Err(error),
    }
}

/// A broken connection stays broken, for sends; receives hear it from the system when they have what came before.
pub(super) fn note_broken(device: &DeviceState, error: i32) {
    if device.kind == DeviceKind::Stream && is_broken(error) {
        let _ = device.failed.compare_exchange(0, error, Ordering::AcqRel, Ordering::Acquire);
    }
}

/// The same, of a receive: the later ones hear it, too.
pub(super) fn note_broken_receive(device: &DeviceState, error: i32) {
    note_broken(device, error);
    if device.kind == DeviceKind::Stream && is_broken(error) {
        device.failed_receive.store(error, Ordering::Release);
    }
}

/// How all ends that is outstanding on a side of a stream: with the connection's error, or with the end of the stream
/// (0).
pub(super) fn end_of(device: &DeviceState, side: Side) -> Option<i32> {
    let error = match side {
        Side::Receive => device.failed_receive.load(Ordering::Acquire),
        Side::Send => device.failed.load(Ordering::Acquire),
    };
    let ended = side == Side::Receive && device.ended_receive.load(Ordering::Acquire);
    (error != 0 || ended).then_some(error)
}

pub(super) fn note_end(device: &DeviceState, bytes: usize) {
    if bytes == 0 {
        device.ended_receive.store(true, Ordering::Release);
    }
}

/// How an attempt to connect may end, at once or later.
pub(super) fn is_end_of_connect(error: i32) -> bool {
    const ENETUNREACH: i32 = 10051;
    const ECONNREFUSED: i32 = 10061;
    const EHOSTUNREACH: i32 = 10065;
    matches!(error, ECONNREFUSED | ENETUNREACH | EHOSTUNREACH | ETIMEDOUT | ECONNRESET | ECONNABORTED)
}

// --- Calls. Each is made under its direction's lock, on an open device, with a record that stays until its packet. ---

#[allow(unsafe_code)]
pub(super) unsafe fn accept(device: &DeviceState, record: &mut Record, overlapped: *mut OVERLAPPED) -> Called {
    let Some(address) = sys::address_of(device.handle()) else { return Called::Failed(EINVAL) };
    let room = match AcceptRoom::new(sys::family_of(&address)) {
        Ok(room) => room,
        Err(error) => return Called::Failed(error),
    };
    record.extra = Extra::Accept(room);
    let Extra::Accept(room) = &mut record.extra else { unreachable!("set just above") };
    // SAFETY: the room is boxed, and the record stays.
    unsafe { sys::accept(device.handle(), &raw mut **room, overlapped) }
}

#[allow(unsafe_code)]
pub(super) unsafe fn connect(device: &DeviceState, record: &mut Record, overlapped: *mut OVERLAPPED) -> Called {
    let Extra::Connect(peer) = &record.extra else { return Called::Failed(EINVAL) };
    let handle = device.handle();
    // ConnectEx takes bound sockets only (row N-01).
    if sys::address_of(handle).is_none_or(|address| address.port() == 0) {
        if let Err(error) = sys::bind(handle, &sys::any_of(peer)) {
            // It is bound after all: some systems do not tell.
            if error != EINVAL {
                return Called::Failed(error);
            }
        }
    }
    // SAFETY: the record stays.
    unsafe { sys::connect(handle, peer, overlapped) }
}

/// Pieces of memory in one call. More take several.
pub(super) const PIECES_MAX: usize = 512;

/// Whether one call can take all that an operation sends.
pub(super) fn fits_one_call(operation: &Operation) -> bool {
    match &operation.buffers {
        Buffers::Many(pieces) if pieces.len() > PIECES_MAX => false,
        buffers => buffers.total() < u32::MAX as usize / 2,
    }
}

/// The memory of an operation, behind what was moved already, as far as one call takes it.
pub(super) fn pieces_left(operation: &Operation) -> Vec<RawBuffer> {
    let mut skip = operation.done;
    let mut left = Vec::new();
    operation.buffers.each(|piece| {
        let skipped = skip.min(piece.length);
        skip -= skipped;
        if skipped < piece.length && left.len() < PIECES_MAX {
            left.push(rest_of(piece, skipped));
        }
    });
    left
}

/// Memory of no bytes, at an address that is good for that.
pub(super) fn nothing() -> RawBuffer {
    RawBuffer { pointer: std::ptr::NonNull::dangling().as_ptr(), length: 0 }
}

/// A call takes one piece at least.
pub(super) fn pieces_or_nothing(mut pieces: Vec<RawBuffer>) -> Vec<RawBuffer> {
    if pieces.is_empty() {
        pieces.push(nothing());
    }
    pieces
}

pub(super) fn rest_of(piece: &RawBuffer, done: usize) -> RawBuffer {
    RawBuffer { pointer: piece.pointer.wrapping_add(done), length: piece.length - done }
}

#[allow(unsafe_code)]
pub(super) unsafe fn receive(device: &DeviceState, record: &mut Record, overlapped: *mut OVERLAPPED) -> Called {
    // Of no bytes it waits for data.
    let pieces = pieces_or_nothing(pieces_left(&record.operation));
    let urgent = record.operation.flags.contains(ReceiveFlags::OUT_OF_BAND);
    // SAFETY: the record stays, and with it what the operation names.
    unsafe { sys::receive(device.handle(), &pieces, urgent, overlapped) }
}

#[allow(unsafe_code)]
pub(super) unsafe fn send(device: &DeviceState, record: &mut Record, overlapped: *mut OVERLAPPED) -> Called {
    let pieces = pieces_or_nothing(pieces_left(&record.operation));
    // SAFETY: as in `receive`.
    unsafe { sys::send(device.handle(), &pieces, overlapped) }
}

// --- Ends. Under the direction's lock, too. ---

pub(super) fn accepted(device: &DeviceState, mut record: Box<Record>, error: i32, closed: bool) -> Concluded {
    let ends = closed || record.cancelled;
    let room = match std::mem::replace(&mut record.extra, Extra::None) {
        // Perhaps it was asked to end, and was faster.
        Extra::Accept(room) if error == 0 && !closed => room,
        _ if ends => return Concluded::Ended(record, ECANCELED, Payload::None),
        // The connection is gone before it was taken: the next one, please (row A-07).
        _ if is_broken(error) || error == ENOTCONN => return Concluded::GoesOn(record),
        _ => return Concluded::Ended(record, error, Payload::None),
    };
    match room.take(device.handle()) {
        Some((handle, peer)) => {
            let payload = Payload::Accepted(Box::new(Accepted { handle, peer: Some(peer) }));
            Concluded::Ended(record, 0, payload)
        }
        None if ends => Concluded::Ended(record, ECANCELED, Payload::None),
        None => Concluded::GoesOn(record),
    }
}

pub(super) fn connected(
    queue: &Queue,
    device: &DeviceState,
    record: Box<Record>,
    error: i32,
    closed: bool,
) -> Concluded {
    if error == 0 && !record.cancelled {
        sys::connected(device.handle());
        device.phase.store(phase::CONNECTED, Ordering::Release);
        return Concluded::Ended(record, 0, Payload::None);
    }
    let error = if closed || record.cancelled { ECANCELED } else { error };
    // What was made after all must not stay so (row N-11); and a socket may not be good for a second attempt.
    if device.has(traits::OURS) && !closed {
        if let Extra::Connect(peer) = &record.extra {
            match sys::open_socket(sys::family_of(peer)) {
                // It behaves as the one before: a success queues a packet, or does not.
                Ok(fresh) => {
                    let skips = device.skip_on_success.load(Ordering::Acquire);
                    let joined = queue.completions.associate(fresh, key::OPERATION);
                    if joined.is_ok() && (!skips || sys::skip_on_success(fresh)) {
                        device.replace_handle(fresh);
                    } else {
                        sys::close_socket(fresh);
                    }
                }
                Err(why) => log::debug!("no socket for another attempt to connect: {why}"),
            }
        }
    }
    device.phase.store(phase::FRESH, Ordering::Release);
    Concluded::Ended(record, error, Payload::None)
}

#[allow(unsafe_code)]
pub(super) fn received(
    queue: &Queue,
    device: &DeviceState,
    mut record: Box<Record>,
    bytes: usize,
    error: i32,
    ends: bool,
) -> Concluded {
    note_broken_receive(device, error);
    if error != 0 {
        return Concluded::Ended(record, error, Payload::None);
    }
    if !matches!(record.operation.buffers, Buffers::Pooled) {
        note_end(device, bytes);
        record.operation.done += bytes;
        if record.operation.waits_for_all() && bytes > 0 && record.operation.done < record.operation.total() {
            return if ends { Concluded::Ended(record, ECANCELED, Payload::None) } else { Concluded::GoesOn(record) };
        }
        return Concluded::Ended(record, 0, Payload::None);
    }
    if ends {
        return Concluded::Ended(record, ECANCELED, Payload::None);
    }
    let mut buffer = queue.driver().pool.take();
    // SAFETY: the buffer is ours alone.
    match unsafe { sys::receive_now(device.handle(), &[buffer.space()]) } {
        Ok(bytes) => {
            note_end(device, bytes);
            record.operation.done = bytes;
            Concluded::Ended(record, 0, Payload::Pooled(buffer))
        }
        // Nothing after all: it waits again.
        Err(EWOULDBLOCK) => Concluded::GoesOn(record),
        Err(error) => {
            note_broken_receive(device, error);
            Concluded::Ended(record, error, Payload::None)
        }
    }
}

pub(super) fn sent(device: &DeviceState, mut record: Box<Record>, bytes: usize, error: i32, ends: bool) -> Concluded {
    note_broken(device, error);
    record.operation.done += bytes;
    device.taken.fetch_add(bytes as u64, Ordering::Relaxed);
    match error {
        // A length beyond what one call can say takes several.
        0 if record.operation.done < record.operation.total() && bytes > 0 => {
            if ends {
                Concluded::Ended(record, ECANCELED, Payload::None)
            } else {
                Concluded::GoesOn(record)
            }
        }
        error => Concluded::Ended(record, error, Payload::None),
    }
}
