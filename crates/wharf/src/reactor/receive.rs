//! The receive side: receives in the order of issue, and accepting.

use super::datagram::{Refusal, take_receives};
use super::{
    Buffers, Completion, Datagram, DeviceKind, EAGAIN, EBADF, ECANCELED, ECONNABORTED, ECONNRESET, EINVAL, EMSGSIZE,
    ENOTCONN, ESHUTDOWN, ETIMEDOUT, Issued, Kind, PIECES_MAX, Payload, Port, RawBuffer, Side, Sink, finish,
};
use crate::op::buffer::PoolBuffer;
use crate::op::phase;
use crate::op::{Operation, ReceiveFlags};
use crate::reactor::device::{DeviceState, shut};
use crate::reactor::direction::{Direction, Turn, duty};
use crate::sync::{Arc, Guard};
use std::sync::atomic::Ordering;

/// Calls that a receive which waits for all makes in one turn.
const CALLS_PER_TURN: usize = 16;

/// What becomes of a packet for the queue.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Out {
    /// A worker inside `get` hands it out.
    Hand,
    /// The issuing call returns it, if it is a success.
    Issuing,
    /// It is queued, before anybody else can execute the operation behind it.
    Queue,
}

/// What one attempt came to.
pub(super) enum Attempt {
    Done {
        bytes: usize,
        payload: Payload,
        more_likely: bool,
    },
    /// Another datagram, sent before, was refused.
    Refused(i32, Datagram),
    Failed(i32),
    NotNow,
}

/// Whether a stream, or a pipe or the like, can be received from.
#[inline]
pub(super) fn may_receive(device: &DeviceState) -> Result<(), i32> {
    if !matches!(device.kind, DeviceKind::Stream | DeviceKind::Handle) {
        return Err(EINVAL);
    }
    if !device.is(phase::CONNECTED) {
        return Err(ENOTCONN);
    }
    if device.shut.load(Ordering::Acquire) & shut::RECEIVE != 0 {
        return Err(ESHUTDOWN);
    }
    match device.failed_receive.load(Ordering::Acquire) {
        0 => Ok(()),
        error => Err(error),
    }
}

impl Port {
    #[allow(unsafe_code)]
    pub(crate) unsafe fn receive(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        may_receive(device)?;
        if buffers.is_empty_list() {
            return Err(EINVAL);
        }
        let kind = if buffers.total() == 0 { Kind::Readable } else { Kind::Received };
        self.issue_receive(device, Operation::new(kind, token, sink, buffers))
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
        let suits = flags == ReceiveFlags::WAIT_ALL || self.own(device)?.kind == DeviceKind::Stream;
        let pooled = matches!(buffers, Buffers::Pooled);
        if !flags.is_empty() && (!flags.are_sound() || !suits || pooled) {
            return Err(EINVAL);
        }
        if flags.is_empty() || buffers.total() == 0 {
            // SAFETY: the caller promises the same.
            return unsafe { self.receive(device, buffers, token, sink) };
        }
        let device = self.own(device)?;
        may_receive(device)?;
        let mut operation = Operation::new(Kind::Received, token, sink, buffers);
        operation.flags = flags;
        self.issue_receive(device, operation)
    }

    #[allow(unsafe_code)]
    pub(crate) unsafe fn receive_from(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::Datagram || buffers.is_empty_list() || !self.can_be_reached(device) {
            return Err(EINVAL);
        }
        self.issue_receive(device, Operation::new(Kind::ReceivedFrom, token, sink, buffers))
    }

    pub(crate) fn wait_child(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::Handle {
            return Err(EINVAL);
        }
        self.issue_receive(device, Operation::new(Kind::Exited, token, sink, Buffers::None))
    }

    pub(super) fn issue_receive(&self, device: &Arc<DeviceState>, mut operation: Operation) -> Result<Issued, i32> {
        self.is_open()?;
        let mut direction = device.receive.lock();
        if direction.closed {
            return Err(EBADF);
        }
        operation.serial = direction.next_serial();
        let id = Port::id(device, operation.serial);
        let at_once = device.kind != DeviceKind::Listener
            && device.skip_on_success.load(Ordering::Relaxed)
            && operation.is_for_port()
            && direction.operations.is_empty()
            && direction.turn == Turn::Idle
            && !direction.drained;
        if at_once {
            direction.begin();
            direction.run(operation.serial);
            drop(direction);
            let done = self.execute_receive(device, operation, Out::Issuing);
            return Ok(done.map_or(Issued::Pending(id), Issued::Done));
        }
        let moves = !operation.is_for_port() && device.kind != DeviceKind::Listener;
        direction.operations.push_back(operation);
        let moves = moves && direction.moves_to_work();
        if !moves && !direction.wants_a_turn() {
            return Ok(Issued::Pending(id));
        }
        let in_work = direction.in_work;
        drop(direction);
        self.queue_receives(device, in_work);
        Ok(Issued::Pending(id))
    }

    /// Executes the head of a receive list, and returns its packet to be handed out.
    pub(super) fn receive_turn(&self, device: &Arc<DeviceState>) -> Option<Completion> {
        let mut direction = device.receive.lock();
        if !direction.entry_counts(false) {
            return None;
        }
        self.receive_turn_of(device, direction, Out::Hand)
    }

    /// [`receive_turn`](Port::receive_turn) without a slot: what is for the port is queued.
    pub(super) fn receive_as_work(&self, device: &Arc<DeviceState>) {
        let mut direction = device.receive.lock();
        if direction.entry_counts(true) {
            let queued = self.receive_turn_of(device, direction, Out::Queue);
            debug_assert!(queued.is_none(), "its packet was queued");
        }
    }

    /// [`receive_turn`](Port::receive_turn) of a side that nobody owns.
    // Always: once a message.
    #[inline(always)]
    pub(super) fn receive_turn_of(
        &self,
        device: &Arc<DeviceState>,
        mut direction: Guard<'_, Direction>,
        out: Out,
    ) -> Option<Completion> {
        let operation = {
            direction.begin();
            if device.kind == DeviceKind::Datagram && direction.operations.len() > 1 {
                let batch = take_receives(&mut direction);
                drop(direction);
                return self.execute_receives(device, batch, out);
            }
            let Some(operation) = direction.operations.pop_front() else {
                // Cancelled or closed meanwhile; the direction stays maybe ready.
                let left = direction.let_go(false);
                drop(direction);
                self.turn_over(device, Side::Receive, left);
                return None;
            };
            direction.run(operation.serial);
            drop(direction);
            operation
        };
        self.execute_receive(device, operation, out)
    }

    /// Executes an operation that was taken from the list; the calling thread owns the direction. Returns the packet
    /// to be handed out; to an issuing call only that of a success.
    fn execute_receive(&self, device: &Arc<DeviceState>, mut operation: Operation, out: Out) -> Option<Completion> {
        let mut first = None;
        if let Buffers::One(piece) = operation.buffers
            && operation.kind == Kind::Received
            && operation.flags.is_empty()
            && device.kind == DeviceKind::Stream
            && device.failed_receive.load(Ordering::Acquire) == 0
        {
            let result = self.engine().receiving(device.handle, |calls| calls.receive(device.handle, &[piece]));
            if let Ok(bytes @ 1..) = result {
                // What nearly all come to, without the rest.
                operation.done = bytes;
                let drained = bytes < piece.length && device.short_means_drained();
                if out == Out::Queue {
                    self.queue_received(device, operation, 0, Payload::None, drained);
                    return None;
                }
                let left = device.receive.lock().let_go(drained);
                let (sink, completion) = finish(device, operation, 0, Payload::None);
                let packet = self.hand_out(sink, completion);
                self.turn_over(device, Side::Receive, left);
                return packet;
            }
            first = Some(self.received(device, result, piece.length, None));
        }
        self.go_on_receiving(device, operation, first, out)
    }

    /// Executes an operation, whose `first` attempt is known perhaps.
    // Apart from what nearly all come to, which has its own copy of what it calls.
    #[inline(never)]
    fn go_on_receiving(
        &self,
        device: &Arc<DeviceState>,
        mut operation: Operation,
        mut first: Option<Attempt>,
        out: Out,
    ) -> Option<Completion> {
        let mut calls = 0;
        loop {
            calls += 1;
            let attempt = first.take().unwrap_or_else(|| self.try_receive(device, &mut operation));
            let mut direction = device.receive.lock();
            let (error, payload, drained) = match attempt {
                Attempt::NotNow if direction.must_end(&operation) => (ECANCELED, Payload::None, true),
                Attempt::NotNow if direction.edge => {
                    direction.edge = false;
                    continue;
                }
                Attempt::NotNow => {
                    direction.operations.push_front(operation);
                    let left = direction.let_go(true);
                    debug_assert!(!left.goes_on && left.duties == 0, "an edge and the end were looked at above");
                    return None;
                }
                Attempt::Done { bytes: bytes @ 1.., more_likely, .. }
                    if operation.waits_for_all() && operation.done + bytes < operation.total() =>
                {
                    operation.advance(bytes);
                    if direction.must_end(&operation) {
                        (ECANCELED, Payload::None, false)
                    } else {
                        let more_likely = more_likely || std::mem::take(&mut direction.edge);
                        if more_likely && calls < CALLS_PER_TURN {
                            continue;
                        }
                        direction.operations.push_front(operation);
                        let left = direction.let_go(!more_likely);
                        drop(direction);
                        self.turn_over(device, Side::Receive, left);
                        return None;
                    }
                }
                Attempt::Done { bytes, payload, more_likely } => {
                    operation.done += bytes;
                    // A datagram that did not fit is a failure which brings what did (row U-02).
                    let cut = matches!(&payload, Payload::Datagram(what) if what.0.truncated);
                    (if cut { EMSGSIZE } else { 0 }, payload, !more_likely)
                }
                Attempt::Refused(error, datagram) => (error, Payload::Datagram(Box::new((datagram, None))), false),
                Attempt::Failed(error) => (error, Payload::None, false),
            };
            if out == Out::Queue {
                drop(direction);
                self.queue_received(device, operation, error, payload, drained);
                return None;
            }
            let left = direction.let_go(drained);
            drop(direction);
            let (sink, completion) = finish(device, operation, error, payload);
            let packet = if out == Out::Issuing && error != 0 {
                self.deliver(sink, completion);
                None
            } else {
                self.hand_out(sink, completion)
            };
            // Behind a completion that went into the queue: the next operation's must not overtake it.
            self.turn_over(device, Side::Receive, left);
            return packet;
        }
    }

    /// Ends a receive for the queue. An entry of this side may lie there, so the turn is let go behind the packet: a
    /// worker that comes to that entry would else overtake it.
    fn queue_received(
        &self,
        device: &Arc<DeviceState>,
        operation: Operation,
        error: i32,
        payload: Payload,
        drained: bool,
    ) {
        let (sink, completion) = finish(device, operation, error, payload);
        self.deliver(sink, completion);
        let left = device.receive.lock().let_go(drained);
        self.turn_over(device, Side::Receive, left);
    }

    fn try_receive(&self, device: &DeviceState, operation: &mut Operation) -> Attempt {
        match device.failed_receive.load(Ordering::Acquire) {
            0 => {}
            error => return Attempt::Failed(error),
        }
        let engine = self.engine();
        if operation.is_watch() {
            return Attempt::Done { bytes: 0, payload: Payload::None, more_likely: true };
        }
        if operation.kind == Kind::Readable {
            let looked = engine.receiving(device.handle, |calls| match device.kind {
                DeviceKind::Handle => calls.is_readable(device.handle),
                _ => calls.peek(device.handle),
            });
            return match looked {
                Ok(()) => Attempt::Done { bytes: 0, payload: Payload::None, more_likely: true },
                Err(error) => self.failed_receive(device, error),
            };
        }
        if operation.kind == Kind::Exited {
            return match engine.receiving(device.handle, |calls| calls.exit_status(device.handle)) {
                Ok(status) => {
                    let bytes = usize::try_from(status).unwrap_or(0);
                    Attempt::Done { bytes, payload: Payload::None, more_likely: true }
                }
                Err(EAGAIN) => Attempt::NotNow,
                Err(error) => Attempt::Failed(error),
            };
        }
        if !operation.flags.is_empty() {
            return self.try_flagged(device, operation);
        }
        let mut pooled: Option<PoolBuffer> = None;
        let (one, first): ([RawBuffer; 1], Vec<RawBuffer>);
        let into: &[RawBuffer] = match &operation.buffers {
            Buffers::One(piece) => {
                one = [*piece];
                &one
            }
            Buffers::Many(pieces) if pieces.len() <= PIECES_MAX => pieces,
            Buffers::Many(pieces) => {
                first = pieces.iter().filter(|piece| piece.length > 0).take(PIECES_MAX).copied().collect();
                &first
            }
            Buffers::Pooled => {
                one = [pooled.insert(self.driver().pool.take()).space()];
                &one
            }
            Buffers::None => &[],
        };
        if operation.kind == Kind::ReceivedFrom {
            for attempt in 1.. {
                match engine.receiving(device.handle, |calls| calls.receive_from(device.handle, into)) {
                    Ok(datagram) => {
                        let payload = Payload::Datagram(Box::new((datagram, pooled)));
                        // More may have come with the same event.
                        return Attempt::Done { bytes: datagram.bytes, payload, more_likely: true };
                    }
                    Err(error) => match self.refused_receive(device, error, attempt) {
                        Refusal::By(error, datagram) => return Attempt::Refused(error, datagram),
                        Refusal::NotNow => return Attempt::NotNow,
                        Refusal::Failed(error) => return Attempt::Failed(error),
                        Refusal::Again => {}
                    },
                }
            }
        }
        self.receive_into(device, into, pooled)
    }

    /// A receive that takes its bytes otherwise than most do.
    fn try_flagged(&self, device: &DeviceState, operation: &Operation) -> Attempt {
        let mut into = Vec::new();
        operation.each_left(PIECES_MAX, |piece| into.push(piece));
        if operation.waits_for_all() {
            return self.receive_into(device, &into, None);
        }
        let urgent = operation.flags.contains(ReceiveFlags::OUT_OF_BAND);
        let stays = operation.flags.contains(ReceiveFlags::PEEK);
        let look = |into: &[RawBuffer], urgent, stays| {
            self.engine().receiving(device.handle, |calls| calls.receive_flagged(device.handle, into, urgent, stays))
        };
        let space: usize = into.iter().map(|piece| piece.length).sum();
        match look(&into, urgent, stays) {
            // There is no urgent byte, and none will come behind the end of the stream.
            Err(EINVAL) if urgent => {
                let mut byte = 0_u8;
                let one = [RawBuffer { pointer: &raw mut byte, length: 1 }];
                match look(&one, false, true) {
                    Ok(1..) => Attempt::NotNow,
                    result => self.received(device, result, space, None),
                }
            }
            result => match self.received(device, result, space, None) {
                // What was looked at is still there.
                Attempt::Done { bytes, payload, .. } => Attempt::Done { bytes, payload, more_likely: true },
                other => other,
            },
        }
    }

    /// One call that takes what a stream has, or a handle, into memory that has space.
    pub(super) fn receive_into(&self, device: &DeviceState, into: &[RawBuffer], pooled: Option<PoolBuffer>) -> Attempt {
        let engine = self.engine();
        let space: usize = into.iter().map(|piece| piece.length).sum();
        if device.kind == DeviceKind::Handle {
            return match engine.receiving(device.handle, |calls| calls.read(device.handle, into)) {
                // A terminal gives a line at a time, so a short read says nothing.
                Ok(bytes) => {
                    let payload = pooled.map_or(Payload::None, Payload::Pooled);
                    Attempt::Done { bytes, payload, more_likely: true }
                }
                Err(error) => self.failed_receive(device, error),
            };
        }
        let result = engine.receiving(device.handle, |calls| calls.receive(device.handle, into));
        self.received(device, result, space, pooled)
    }

    /// What the system gave a stream's receive for so much space.
    fn received(
        &self,
        device: &DeviceState,
        result: Result<usize, i32>,
        space: usize,
        pooled: Option<PoolBuffer>,
    ) -> Attempt {
        match result {
            Ok(0) if waits_for_send(device) => Attempt::NotNow,
            // A send has seen the reset, which Linux reports once, and what was still to be read is read.
            Ok(0) if device.failed_send.load(Ordering::Acquire) != 0 => self.failed_receive(device, ECONNRESET),
            Ok(bytes) => {
                // A full buffer says nothing about what is left, and the end of a stream stays (row R-10).
                let more_likely = bytes == space || bytes == 0 || !device.short_means_drained();
                let payload = pooled.map_or(Payload::None, Payload::Pooled);
                Attempt::Done { bytes, payload, more_likely }
            }
            Err(error) => self.failed_receive(device, error),
        }
    }

    fn failed_receive(&self, device: &DeviceState, error: i32) -> Attempt {
        if error == EAGAIN {
            return Attempt::NotNow;
        }
        if error == ECONNRESET || error == ECONNABORTED || error == ETIMEDOUT {
            // A broken connection stays broken: Linux reports it once, every later operation must see it.
            device.failed_receive.store(error, Ordering::Release);
            let _ = device.failed_send.compare_exchange(0, error, Ordering::AcqRel, Ordering::Acquire);
        }
        Attempt::Failed(error)
    }
}

/// Is the end of the stream possibly a reset? Linux reports a reset once, and a send that is under way may be about to
/// say that it was told. It has the receive side look again when it is over.
fn waits_for_send(device: &DeviceState) -> bool {
    let mut send = device.send.lock();
    let sending = send.turn == Turn::Running;
    if sending {
        send.duties |= duty::RECEIVE;
    }
    sending
}
