//! The send side: connecting, sending, shutting, in the order of issue.
//!
//! A send is tried inside the issuing call, so that the bytes leave before the caller goes on to something that
//! blocks. What does not fit waits for space and is continued by whoever leads: half-sent data needs no worker's
//! slot. One owner at a time sends on a stream, so the bytes of one call are never interleaved with another's
//! (row S-04); several small sends that queued up meanwhile go out in one system call.

use super::datagram::{DATAGRAMS_MAX, gathers};
use super::inline::{TrySend, completion};
use super::parts::Window;
use super::{
    Buffers, Completion, DeviceKind, EAGAIN, EBADF, ECANCELED, ECONNABORTED, ECONNRESET, EINVAL, EMSGSIZE, ENOTCONN,
    EPIPE, ESHUTDOWN, ETIMEDOUT, Entry, Issued, Kind, PIECES_MAX, Payload, Port, RawBuffer, Side, Sink, entry, finish,
};
use crate::op::Operation;
use crate::op::phase;
use crate::reactor::device::{DeviceState, shut};
use crate::reactor::direction::{Direction, Turn};
use crate::sync::{Arc, Guard};
use crate::sys::errno::ENOTSOCK;
use std::net::{Shutdown, SocketAddr};
use std::ops::Range;
use std::sync::atomic::Ordering;

/// The longest datagram: what a length of 16 bits can say, without UDP's own header.
pub(super) const DATAGRAM_MAX: usize = 65535 - 8;
/// Bytes that one system call may gather from several operations.
const GATHER_BYTES: usize = 256 * 1024;
/// System calls in one turn, operations that end in it, and bytes that it moves; then packets and other devices come
/// first.
const CALLS_PER_TURN: usize = 16;
const OPERATIONS_PER_TURN: usize = 256;
pub(super) const BYTES_PER_TURN: usize = 1024 * 1024;

/// Operations taken from the list to be executed together: more than one only if all are sends.
pub(super) struct Batch {
    head: Operation,
    more: Vec<Operation>,
}

impl Batch {
    pub(super) fn of(operation: Operation) -> Batch {
        Batch { head: operation, more: Vec::new() }
    }
}

pub(super) enum Attempt {
    /// So many bytes were taken, and fewer than were offered if `short`; for other operations than sends: it is done.
    Done {
        bytes: usize,
        short: bool,
    },
    /// So many of the batch's datagrams were taken, at least one.
    Sent(usize),
    Failed(i32),
    NotNow,
    /// A part of a file has to be read first.
    Fetch(Window),
    /// The file that is being sent has no more bytes, and none are missing.
    FileEnded,
}

impl Port {
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        if let (&Buffers::One(piece), Sink::Port) = (&buffers, &sink) {
            // SAFETY: the caller promises more.
            match unsafe { self.send_inline(device, piece) }? {
                TrySend::Done => return Ok(Issued::Done(completion(device, piece.length, token))),
                // SAFETY: by the caller's promise; it is the same memory.
                TrySend::Started(started) => return Ok(unsafe { self.send_on(device, started, buffers, token) }),
                TrySend::NotTried => {}
            }
        }
        // SAFETY: the caller promises the same.
        unsafe { self.send_with_record(device, buffers, token, sink) }
    }

    /// [`send`](Port::send), for one that [`send_inline`](Port::send_inline) did not try.
    ///
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
        let device = self.own(device)?;
        if !matches!(device.kind, DeviceKind::Stream | DeviceKind::Handle) || matches!(buffers, Buffers::Pooled) {
            return Err(EINVAL);
        }
        self.may_send(device)?;
        self.issue_send(device, Operation::new(Kind::Sent, token, sink, buffers))
    }

    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_to(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        to: Option<SocketAddr>,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::Datagram || matches!(buffers, Buffers::Pooled) {
            return Err(EINVAL);
        }
        if buffers.total() > DATAGRAM_MAX {
            return Err(EMSGSIZE);
        }
        self.issue_send(device, Operation::new(Kind::SentTo, token, sink, buffers).with_address(to))
    }

    pub(crate) fn disconnect(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        let device = self.own(device)?;
        self.may_send(device)?;
        self.issue_send(device, Operation::new(Kind::Disconnected, token, sink, Buffers::None))
    }

    pub(super) fn may_send(&self, device: &DeviceState) -> Result<(), i32> {
        if !device.is(phase::CONNECTED) {
            return Err(ENOTCONN);
        }
        match device.failed_send.load(Ordering::Acquire) {
            0 => Ok(()),
            error => Err(error),
        }
    }

    /// The send side, to issue something there.
    #[inline]
    pub(super) fn open_send_side<'a>(&self, device: &'a DeviceState) -> Result<Guard<'a, Direction>, i32> {
        self.is_open()?;
        let direction = device.send.lock();
        if direction.closed {
            return Err(EBADF);
        }
        // Under the lock: what is issued after a shutdown must not come behind it and take the answer for a reset.
        if device.shut.load(Ordering::Acquire) & shut::SEND != 0 {
            return Err(ESHUTDOWN);
        }
        Ok(direction)
    }

    pub(super) fn issue_send(&self, device: &Arc<DeviceState>, mut operation: Operation) -> Result<Issued, i32> {
        let mut direction = self.open_send_side(device)?;
        if operation.kind == Kind::Disconnected {
            device.shut.fetch_or(shut::SEND, Ordering::AcqRel);
        }
        operation.serial = direction.next_serial();
        let serial = operation.serial;
        let id = Port::id(device, serial);
        if direction.turn == Turn::Idle && !direction.drained && direction.operations.is_empty() {
            direction.begin();
            direction.run(serial);
            drop(direction);
            let at_once = device.skip_on_success.load(Ordering::Relaxed) && operation.is_for_port();
            let mut done = None;
            let wanted = if at_once { serial..serial + 1 } else { 0..0 };
            self.execute_sends(device, Batch::of(operation), None, wanted, &mut |_, completion| {
                done = Some(completion)
            });
            return Ok(done.map_or(Issued::Pending(id), Issued::Done));
        }
        direction.operations.push_back(operation);
        let wanted = direction.wants_a_turn();
        drop(direction);
        if wanted {
            self.insert_work(Entry::Ready(device.clone(), Side::Send));
        }
        Ok(Issued::Pending(id))
    }

    /// Shuts the sending side now, or marks it to be shut after what is outstanding.
    pub(super) fn shut_sending(&self, device: &Arc<DeviceState>) -> Result<(), i32> {
        loop {
            match self.issue_send(device, Operation::shutdown()) {
                Err(ESHUTDOWN) => {
                    let _send = device.send.lock();
                    if device.shut.load(Ordering::Acquire) & shut::SEND != 0 {
                        device.shut.fetch_or(shut::SEND_IN_ANY_CASE, Ordering::AcqRel);
                        return Ok(());
                    }
                    // A disconnect was cancelled in between.
                }
                result => return result.map(drop),
            }
        }
    }

    /// A disconnect was cancelled: nothing was shut (row X-05), unless a shutdown was asked for as well.
    pub(super) fn disconnect_cancelled(&self, device: &Arc<DeviceState>) {
        let (closed, before) = {
            let send = device.send.lock();
            (send.closed, device.shut.fetch_and(!(shut::SEND | shut::SEND_IN_ANY_CASE), Ordering::AcqRel))
        };
        if before & shut::SEND_IN_ANY_CASE != 0 && !closed {
            // It fails when the device or the port is closed meanwhile.
            let _ = self.shut_sending(device);
        }
    }

    /// Goes on with the send side of a device: space has come, or a turn was over.
    pub(super) fn send_turn(&self, device: &Arc<DeviceState>) {
        let batch = {
            let mut direction = device.send.lock();
            if direction.turn != Turn::Queued {
                // A connect has taken the turn of the one that was cancelled before it.
                return;
            }
            direction.begin();
            match take_batch(device, &mut direction) {
                Some(batch) => batch,
                None => {
                    let left = direction.let_go(false);
                    drop(direction);
                    self.turn_over(device, Side::Send, left);
                    return;
                }
            }
        };
        self.execute_sends(device, batch, None, 0..0, &mut |_, _| {});
    }

    /// Executes operations until none is left, nothing more fits, or the turn is over. The calling thread owns the
    /// direction. The completions of `wanted`, of those operations that succeeded, are given to `take` instead of being
    /// queued. `first`: what the first call came to, where it was made already.
    pub(super) fn execute_sends(
        &self,
        device: &Arc<DeviceState>,
        mut batch: Batch,
        mut first: Option<Attempt>,
        wanted: Range<u64>,
        take: &mut dyn FnMut(u64, Completion),
    ) {
        let mut packets = Vec::new();
        let (mut calls, mut moved) = (0, 0);
        let left = loop {
            calls += 1;
            let attempt = first.take().unwrap_or_else(|| self.try_send(device, &batch));
            if let Attempt::Fetch(window) = attempt {
                self.deliver_sent(device, packets);
                self.fetch(device, batch.head, window);
                return;
            }
            let attempt = match attempt {
                Attempt::FileEnded => {
                    batch.head.file_ended();
                    Attempt::Done { bytes: 0, short: false }
                }
                attempt => attempt,
            };
            let mut direction = device.send.lock();
            let mut finished = |operation: Operation, error: i32| {
                let serial = operation.serial;
                let (sink, completion) = finish(device, operation, error, Payload::None);
                if error == 0 && wanted.contains(&serial) && matches!(sink, Sink::Port) {
                    take(serial, completion);
                } else {
                    packets.push((sink, completion));
                }
            };
            let mut drained = false;
            match attempt {
                Attempt::Done { bytes, short } if !short && batch.more.is_empty() => {
                    // What nearly all come to: one, and all of it.
                    moved += bytes;
                    batch.head.advance(bytes);
                    if batch.head.done == batch.head.total() {
                        finished(batch.head, 0);
                    } else {
                        put_back(&mut direction, vec![batch.head], &mut finished);
                    }
                }
                Attempt::Done { bytes, short } => {
                    moved += bytes;
                    let left = account(batch, bytes, &mut finished);
                    drained = short;
                    put_back(&mut direction, left, &mut finished);
                }
                Attempt::Sent(count) => {
                    let mut operations = into_operations(batch);
                    for mut operation in operations.drain(..count) {
                        operation.advance(operation.total());
                        moved += operation.done;
                        finished(operation, 0);
                    }
                    put_back(&mut direction, operations, &mut finished);
                }
                Attempt::NotNow => {
                    drained = true;
                    put_back(&mut direction, into_operations(batch), &mut finished);
                }
                Attempt::Fetch(_) | Attempt::FileEnded => unreachable!("looked at above"),
                Attempt::Failed(error) => {
                    // What was gathered behind the failed head fails by itself, or not: it is tried again.
                    let Batch { head, more } = batch;
                    finished(head, error);
                    put_back(&mut direction, more, &mut finished);
                }
            }
            if drained && !device.wants_space.load(Ordering::Relaxed) {
                // Space that came until now went unheard: one more attempt.
                device.wants_space.store(true, Ordering::SeqCst);
                drained = false;
            }
            if drained && std::mem::take(&mut direction.edge) {
                drained = false;
            }
            direction.forget_cancelled();
            drained &= !direction.needs_no_space();
            let goes_on = calls < CALLS_PER_TURN && packets.len() < OPERATIONS_PER_TURN && moved < BYTES_PER_TURN;
            if !drained && goes_on {
                if let Some(next) = take_batch(device, &mut direction) {
                    batch = next;
                    continue;
                }
            }
            direction.run_none();
            if !packets.is_empty() {
                drop(direction);
                self.deliver_sent(device, packets);
                // Only now may another thread send: its packets come behind these.
                direction = device.send.lock();
            }
            break direction.let_go(drained);
        };
        self.turn_over(device, Side::Send, left);
    }

    /// Ends the turn of a send that the file thread has read for: it goes back to the head of the list, or fails.
    pub(super) fn end_interrupted_turn(&self, device: &Arc<DeviceState>, operation: Operation, error: i32) {
        let mut packets = Vec::new();
        let mut finished = |operation, error| packets.push(finish(device, operation, error, Payload::None));
        let mut direction = device.send.lock();
        match error {
            0 => put_back(&mut direction, vec![operation], &mut finished),
            error => finished(operation, error),
        }
        direction.run_none();
        if !packets.is_empty() {
            drop(direction);
            self.deliver_sent(device, packets);
            direction = device.send.lock();
        }
        let left = direction.let_go(false);
        drop(direction);
        self.turn_over(device, Side::Send, left);
    }

    fn deliver_sent(&self, device: &DeviceState, packets: Vec<(Sink, Completion)>) {
        let several = packets.len() > 1;
        let entries = packets.into_iter().filter_map(|(sink, completion)| {
            if completion.kind == Kind::Connected && completion.error == ECANCELED {
                self.abort_connect(device);
            }
            entry(sink, completion)
        });
        if several {
            self.queue.insert_all(entries.collect::<Vec<Entry>>());
        } else {
            entries.for_each(|entry| self.insert(entry));
        }
    }

    fn try_send(&self, device: &DeviceState, batch: &Batch) -> Attempt {
        let engine = self.engine();
        let head = &batch.head;
        match head.kind {
            Kind::Connected => match engine.calls().connect_result(device.handle) {
                result @ (Ok(()) | Err(ECONNRESET)) => {
                    if result.is_err() {
                        // As if a send had been told: a receive takes what has come, and then finds the reset.
                        device.failed_send.store(ECONNRESET, Ordering::Release);
                    }
                    device.wants_space.store(false, Ordering::SeqCst);
                    device.phase.store(phase::CONNECTED, Ordering::Release);
                    Attempt::Done { bytes: 0, short: false }
                }
                Err(EAGAIN) => {
                    engine.waits_for_connect(device.handle);
                    Attempt::NotNow
                }
                Err(error) => {
                    device.phase.store(phase::FRESH, Ordering::Release);
                    Attempt::Failed(error)
                }
            },
            Kind::Disconnected => match engine.calls().shutdown(device.handle, Shutdown::Write) {
                Ok(()) => {
                    device.shut.fetch_or(shut::TAKEN, Ordering::AcqRel);
                    Attempt::Done { bytes: 0, short: false }
                }
                Err(error) => {
                    if error == ENOTSOCK {
                        // A pipe, say, has no sides: nothing was shut, and sending goes on.
                        device.shut.fetch_and(!(shut::SEND | shut::SEND_IN_ANY_CASE), Ordering::AcqRel);
                    }
                    Attempt::Failed(error)
                }
            },
            Kind::Writable => match device.failed_send.load(Ordering::Acquire) {
                0 => Attempt::Done { bytes: 0, short: false },
                error => Attempt::Failed(error),
            },
            Kind::SentTo => match self.try_send_to(device, head, &batch.more) {
                Ok(count) => Attempt::Sent(count),
                Err(EAGAIN) => Attempt::NotNow,
                Err(error) => Attempt::Failed(error),
            },
            _ => {
                if let Some(parts) = head.parts() {
                    return match device.failed_send.load(Ordering::Acquire) {
                        0 => self.try_parts(device, parts, head.done),
                        error => Attempt::Failed(error),
                    };
                }
                let (one, mut many): ([RawBuffer; 1], Vec<RawBuffer>);
                let pieces: &[RawBuffer] = match (&head.buffers, batch.more.is_empty()) {
                    (Buffers::One(piece), true) => {
                        one = [piece.rest(head.done)];
                        &one
                    }
                    _ => {
                        many = Vec::with_capacity((head.pieces_left() + batch.more.len()).min(PIECES_MAX));
                        for operation in std::iter::once(head).chain(&batch.more) {
                            operation.each_left(PIECES_MAX - many.len(), |piece| many.push(piece));
                        }
                        &many
                    }
                };
                self.try_pieces(device, pieces)
            }
        }
    }

    /// Offers some memory to the system: as much as one turn may move.
    #[inline]
    pub(super) fn try_pieces(&self, device: &DeviceState, pieces: &[RawBuffer]) -> Attempt {
        match device.failed_send.load(Ordering::Acquire) {
            0 => {}
            error => return Attempt::Failed(error),
        }
        let engine = self.engine();
        let (cut, offered) = cut(pieces, BYTES_PER_TURN);
        let pieces = cut.as_deref().unwrap_or(pieces);
        let result = match device.kind {
            _ if pieces.is_empty() => Ok(0),
            DeviceKind::Handle => engine.sending(device.handle, offered, |calls| calls.write(device.handle, pieces)),
            _ => engine.sending(device.handle, offered, |calls| calls.send(device.handle, pieces, false)),
        };
        match result {
            Ok(bytes) => {
                device.count_taken(bytes);
                Attempt::Done { bytes, short: bytes < offered }
            }
            Err(EAGAIN) => Attempt::NotNow,
            Err(error) => Attempt::Failed(failed_send(device, error)),
        }
    }
}

/// A broken connection fails every later send at once (row S-09). EPIPE says the same as ECONNRESET here: this side
/// was not shut, or the send would not have been issued.
pub(super) fn failed_send(device: &DeviceState, error: i32) -> i32 {
    let error = if error == EPIPE && device.kind == DeviceKind::Stream { ECONNRESET } else { error };
    if matches!(error, ECONNRESET | ECONNABORTED | ETIMEDOUT) {
        let first = device.failed_send.compare_exchange(0, error, Ordering::AcqRel, Ordering::Acquire);
        return first.err().unwrap_or(error);
    }
    error
}

/// Takes the head of the list and, if it is a send, the sends behind it that one system call can carry.
pub(super) fn take_batch(device: &DeviceState, direction: &mut Direction) -> Option<Batch> {
    let head = direction.operations.pop_front()?;
    let mut more: Vec<Operation> = Vec::new();
    if head.kind == Kind::SentTo && gathers(device) {
        let mut bytes = head.total();
        let fits = |operation: &Operation| operation.pieces_left() <= PIECES_MAX;
        while fits(&head)
            && let Some(next) = direction.operations.front()
        {
            bytes += next.total();
            if next.kind != Kind::SentTo || !fits(next) || more.len() + 1 == DATAGRAMS_MAX || bytes > GATHER_BYTES {
                break;
            }
            more.extend(direction.operations.pop_front());
        }
    } else if head.kind == Kind::Sent {
        let mut pieces = head.pieces_left();
        let mut bytes = head.total() - head.done;
        while let Some(next) = direction.operations.front() {
            pieces += next.pieces_left();
            bytes += next.total();
            let full = pieces > PIECES_MAX || bytes > GATHER_BYTES || more.len() + 1 == OPERATIONS_PER_TURN;
            if next.kind != Kind::Sent || full {
                break;
            }
            more.extend(direction.operations.pop_front());
        }
    }
    direction.run_none();
    direction.run(head.serial);
    direction.run_too(more.iter().map(Operation::label));
    Some(Batch { head, more })
}

/// The first pieces, the last of them shortened, that have so many bytes at most; nothing where all have. And how many
/// bytes they have.
#[inline]
fn cut(pieces: &[RawBuffer], most: usize) -> (Option<Vec<RawBuffer>>, usize) {
    match pieces {
        // What nearly all are.
        [only] if only.length <= most => (None, only.length),
        _ => cut_many(pieces, most),
    }
}

fn cut_many(pieces: &[RawBuffer], most: usize) -> (Option<Vec<RawBuffer>>, usize) {
    let mut bytes = 0;
    for (at, piece) in pieces.iter().enumerate() {
        if piece.length > most - bytes {
            let mut first = pieces[..=at].to_vec();
            first[at] = piece.first(most - bytes);
            return (Some(first), most);
        }
        bytes += piece.length;
    }
    (None, bytes)
}

fn into_operations(batch: Batch) -> Vec<Operation> {
    let mut operations = vec![batch.head];
    operations.extend(batch.more);
    operations
}

/// Distributes the bytes that a call took over the batch's operations; returns those that are not finished, in order.
fn account(batch: Batch, mut bytes: usize, finished: &mut impl FnMut(Operation, i32)) -> Vec<Operation> {
    let mut left = Vec::new();
    for mut operation in std::iter::once(batch.head).chain(batch.more) {
        if left.is_empty() {
            let wanted = operation.total() - operation.done;
            let taken = bytes.min(wanted);
            operation.advance(taken);
            bytes -= taken;
            if taken == wanted {
                finished(operation, 0);
                continue;
            }
        }
        left.push(operation);
    }
    debug_assert_eq!(bytes, 0, "the engine took more bytes than it was given");
    left
}

/// Operations that could not be finished go back to the head of the list, unless they were asked to end.
pub(super) fn put_back(
    direction: &mut Direction,
    operations: Vec<Operation>,
    finished: &mut impl FnMut(Operation, i32),
) {
    for operation in operations.into_iter().rev() {
        if direction.must_end(&operation) {
            finished(operation, ECANCELED);
        } else {
            direction.operations.push_front(operation);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Config, FileEngine, SocketEngine};
    use crate::reactor::engine::Engine;
    use crate::testing::fake::Fake;
    use crate::threads::Wake;
    use std::net::SocketAddr;
    use std::sync::atomic::AtomicBool;
    use std::time::Duration;

    /// A port on a fake engine without faults.
    fn port() -> (Port, Arc<Fake>) {
        let config = Config {
            concurrency: 1,
            wake: Wake::Eager,
            pool_buffer_bytes: 16,
            pool_keep: 0,
            files: FileEngine::default(),
            sockets: SocketEngine::Auto,
            dispose: drop,
        };
        let fake = Arc::new(Fake::quiet());
        let engine = Engine::of(fake.clone());
        (Port::build(config, |_| Ok(engine)).unwrap(), fake)
    }

    #[test]
    fn whoever_has_the_last_packet_may_release_although_its_deliverer_is_not_out_yet() {
        let (port, fake) = port();
        for side in [Side::Receive, Side::Send] {
            let device = port.take_over(fake.connected(8).0, DeviceKind::Stream, 1).unwrap();
            device.direction(side).lock().begin();
            port.give_up(&device).expect("nothing is outstanding");
            let left = device.direction(side).lock().let_go(false);
            port.turn_over(&device, side, left);
        }
    }

    #[test]
    fn a_device_is_not_given_up_while_a_call_on_its_handle_is_under_way() {
        let (port, fake) = port();
        let device = port.take_over(fake.connected(8).0, DeviceKind::Stream, 1).unwrap();
        let given = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let call = |_| {
                scope.spawn(|| {
                    port.give_up(&device).expect("nothing is outstanding");
                    given.store(true, Ordering::SeqCst);
                });
                std::thread::sleep(Duration::from_millis(50));
                assert!(!given.load(Ordering::SeqCst), "its next owner may close it under the call");
                Ok(())
            };
            port.with_handle(&device, call).unwrap();
        });
        assert!(given.load(Ordering::SeqCst));
        assert!(port.with_handle(&device, |_| Ok(())).is_err());
    }

    #[test]
    fn whoever_has_the_packet_of_a_failed_connect_may_connect_again_although_its_deliverer_is_not_out_yet() {
        let (port, _fake) = port();
        let peer = SocketAddr::from(([127, 0, 0, 1], 7));
        let device = port.open_stream(&peer, 1).unwrap();
        device.send.lock().begin();
        let deliverer = {
            let device = device.clone();
            std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                assert!(!device.send.lock().let_go(false).goes_on);
            })
        };
        let issued = port.connect(&device, &peer, 2, Sink::Port);
        assert!(matches!(issued, Ok(Issued::Pending(_))), "{issued:?}");
        deliverer.join().unwrap();
        assert_eq!(port.connect(&device, &peer, 3, Sink::Port).unwrap_err(), EINVAL, "one is outstanding");
    }
}
