//! Datagrams by the batch: many operations issued under one lock, and many of those outstanding done by one system
//! call.
//!
//! An operation stays what it is: one datagram, one packet, in the order of issue. What a batch shares is the turn of
//! its device and the system call. It is gathered from the list, as small sends on a stream are, so it forms by itself
//! whenever several operations are outstanding, however they were issued.
//!
//! How many receives one call is given follows what came last (`Direction::burst`): a call that is given more than
//! there are has prepared memory for nothing, one that is given one more than there are learns that no more is there.

use super::receive::Out;
use super::send::{DATAGRAM_MAX, put_back, take_batch};
use super::{
    Buffers, Completion, Datagram, DeviceKind, EAGAIN, EBADF, EINVAL, EMSGSIZE, ESHUTDOWN, Entry, Incoming, Issued,
    Kind, Outgoing, PIECES_MAX, Payload, Port, RawBuffer, Side, Sink, entry, finish,
};
use crate::op::Operation;
use crate::op::buffer::PoolBuffer;
use crate::reactor::device::{DeviceState, shut, traits};
use crate::reactor::direction::{DATAGRAMS_MIN, Direction, Turn};
use crate::reactor::engine::Pieces;
use crate::sync::Arc;
use crate::sys::errno::{
    EACCES, ECONNREFUSED, EHOSTDOWN, EHOSTUNREACH, ENETUNREACH, ENONET, ENOPROTOOPT, EOPNOTSUPP, EPROTO,
};
use std::sync::atomic::Ordering;

/// Datagrams in one system call. With more the gain for each is small, and other devices of the port wait longer.
pub(super) const DATAGRAMS_MAX: usize = 64;
/// How often a call is repeated that was told of something that may not be its own affair.
const ATTEMPTS: usize = 16;

/// What the network answers to a datagram, later: what a call on a socket may be told although its own datagram is
/// good. From the kernel's table of ICMP messages (net/ipv4/icmp.c, net/ipv6/icmp.c).
fn is_of_network(error: i32) -> bool {
    matches!(
        error,
        EACCES
            | ENONET
            | EPROTO
            | EMSGSIZE
            | ENOPROTOOPT
            | EOPNOTSUPP
            | ENETUNREACH
            | ECONNREFUSED
            | EHOSTDOWN
            | EHOSTUNREACH
    )
}

/// What a receive came to that the system did not give a datagram.
pub(super) enum Refusal {
    /// Somebody has refused a datagram that was sent before.
    By(i32, Datagram),
    NotNow,
    /// What it was told was told before.
    Again,
    Failed(i32),
}

impl Port {
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_to_many(
        &self,
        device: &Arc<DeviceState>,
        datagrams: Vec<Outgoing>,
    ) -> Vec<Result<Issued, i32>> {
        let operation = |Outgoing { buffers, to, token, sink }| {
            if matches!(buffers, Buffers::Pooled) {
                return Err(EINVAL);
            }
            if buffers.total() > DATAGRAM_MAX {
                return Err(EMSGSIZE);
            }
            Ok(Operation::new(Kind::SentTo, token, sink, buffers).with_address(to))
        };
        self.issue_many(device, Side::Send, datagrams.into_iter().map(operation).collect())
    }

    #[allow(unsafe_code)]
    pub(crate) unsafe fn receive_from_many(
        &self,
        device: &Arc<DeviceState>,
        receives: Vec<Incoming>,
    ) -> Vec<Result<Issued, i32>> {
        let operation = |Incoming { buffers, token, sink }| match buffers.is_empty_list() {
            true => Err(EINVAL),
            false => Ok(Operation::new(Kind::ReceivedFrom, token, sink, buffers)),
        };
        self.issue_many(device, Side::Receive, receives.into_iter().map(operation).collect())
    }

    /// Whether a datagram can arrive at the socket. Without an address none can, and a receive would wait for ever (row
    /// U-06); a send or a connect gives it one.
    pub(super) fn can_be_reached(&self, device: &Arc<DeviceState>) -> bool {
        if !device.has(traits::UNBOUND) || !device.enter() {
            // A closed one is refused as that.
            return true;
        }
        let bound = self.engine().calls().is_bound(device.handle);
        self.leave(device);
        if bound {
            device.traits.fetch_and(!traits::UNBOUND, Ordering::AcqRel);
        }
        bound
    }

    fn issue_many(
        &self,
        device: &Arc<DeviceState>,
        side: Side,
        operations: Vec<Result<Operation, i32>>,
    ) -> Vec<Result<Issued, i32>> {
        let device = match self.own(device) {
            Ok(device) => device,
            Err(error) => return refuse_all(operations, error),
        };
        let refusal = match device.kind {
            DeviceKind::Datagram if side == Side::Receive && !self.can_be_reached(device) => Some(EINVAL),
            DeviceKind::Datagram => self.check().err(),
            _ => Some(EINVAL),
        };
        if let Some(error) = refusal {
            return refuse_all(operations, error);
        }
        let mut direction = device.direction(side).lock();
        let shut = side == Side::Send && device.shut.load(Ordering::Acquire) & shut::SEND != 0;
        if direction.closed || shut {
            let error = if direction.closed { EBADF } else { ESHUTDOWN };
            drop(direction);
            return refuse_all(operations, error);
        }
        let idle = direction.turn == Turn::Idle && !direction.drained && direction.operations.is_empty();
        let mut results = Vec::with_capacity(operations.len());
        // Which result is whose.
        let mut serials = Vec::with_capacity(operations.len());
        for operation in operations {
            let issued = operation.map(|mut operation| {
                let serial = direction.next_serial();
                operation.serial = serial;
                direction.operations.push_back(operation);
                serials.push((serial, results.len()));
                Issued::Pending(Port::id(device, serial))
            });
            results.push(issued);
        }
        let (Some(&(first, _)), Some(&(last, _))) = (serials.first(), serials.last()) else { return results };
        if side == Side::Send && idle {
            direction.begin();
            let batch = take_batch(device, &mut direction).expect("appended just above");
            drop(direction);
            // Nobody else's lie between them.
            let wanted = if device.skip_on_success.load(Ordering::Relaxed) { first..last + 1 } else { 0..0 };
            self.execute_sends(device, batch, None, wanted, &mut |serial, completion| {
                let at = serials.binary_search_by_key(&serial, |&(serial, _)| serial).expect("one of these");
                results[serials[at].1] = Ok(Issued::Done(completion));
            });
            return results;
        }
        let moves = side == Side::Receive && direction.moves_to_work();
        let wanted = moves || direction.wants_a_turn();
        let in_work = direction.in_work;
        drop(direction);
        if wanted {
            match side {
                Side::Receive => self.queue_receives(device, in_work),
                Side::Send => self.insert_work(Entry::Ready(device.clone(), side)),
            }
        }
        results
    }

    pub(crate) fn report_refusals(&self, device: &Arc<DeviceState>, on: bool) -> Result<(), i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::Datagram {
            return Err(EINVAL);
        }
        if !device.enter() {
            return Err(EBADF);
        }
        let result = self.engine().calls().keep_refusals(device.handle, on);
        self.leave(device);
        result?;
        match on {
            true => device.traits.fetch_or(traits::REFUSALS, Ordering::AcqRel),
            false => device.traits.fetch_and(!traits::REFUSALS, Ordering::AcqRel),
        };
        Ok(())
    }

    /// Sends a batch of datagrams; returns how many the system took, or the first's error.
    pub(super) fn try_send_to(&self, device: &DeviceState, head: &Operation, more: &[Operation]) -> Result<usize, i32> {
        let engine = self.engine();
        for attempt in 1.. {
            let result = if more.is_empty() {
                let (one, mut several): ([RawBuffer; 1], Vec<RawBuffer>);
                let pieces: &[RawBuffer] = match &head.buffers {
                    Buffers::One(piece) => {
                        one = [*piece];
                        &one
                    }
                    buffers => {
                        several = Vec::new();
                        buffers.each(|piece| several.push(*piece));
                        &several
                    }
                };
                engine
                    .sending(device.handle, 1, |calls| calls.send_to(device.handle, pieces, head.address()).map(|()| 1))
            } else {
                let mut pieces = Pieces::default();
                let mut to = Vec::with_capacity(1 + more.len());
                for operation in std::iter::once(head).chain(more) {
                    pieces.push(&operation.buffers, usize::MAX);
                    to.push(operation.address().copied());
                }
                engine.sending(device.handle, pieces.len(), |calls| calls.send_many(device.handle, &pieces, &to))
            };
            match result {
                // A refusal, which a receive will tell: this datagram was not tried. The system tells the next call of
                // the next in the list whenever one is taken from there, so that may take a few attempts. A send's own
                // errors come every time; this one is none.
                Err(ECONNREFUSED) if device.has(traits::REFUSALS) => {}
                Err(error) if device.has(traits::REFUSALS) && is_of_network(error) && attempt < ATTEMPTS => {}
                result => return result,
            }
        }
        unreachable!("there is no last attempt")
    }

    /// What a receive comes to that was given an error instead of a datagram.
    pub(super) fn refused_receive(&self, device: &DeviceState, error: i32, attempt: usize) -> Refusal {
        let listed = device.has(traits::REFUSALS) && (error == EAGAIN || is_of_network(error));
        if listed {
            match self.engine().receiving(device.handle, |calls| calls.refusal(device.handle)) {
                Ok((error, from)) => {
                    return Refusal::By(error, Datagram { bytes: 0, from, truncated: false, segment: 0 });
                }
                // The list is empty: it was full when that came, or what the error told was taken before.
                Err(_) if error != EAGAIN && attempt < ATTEMPTS => return Refusal::Again,
                Err(_) => {}
            }
        }
        // Of the network, not of the socket: the next receive works again (row U-09).
        if error == EAGAIN { Refusal::NotNow } else { Refusal::Failed(error) }
    }

    /// Executes receives that were taken from the list together; the calling thread owns the direction. The first one's
    /// packet is returned, or queued if `out` says so, the others' are queued behind it.
    pub(super) fn execute_receives(
        &self,
        device: &Arc<DeviceState>,
        batch: Vec<Operation>,
        out: Out,
    ) -> Option<Completion> {
        let asked = batch.len();
        let mut attempt = 0;
        let result = loop {
            attempt += 1;
            let result = self.try_receive_many(device, &batch);
            match result.map_err(|error| self.refused_receive(device, error, attempt)) {
                Err(Refusal::Again) => {}
                result => break result,
            }
        };
        let mut direction = device.receive.lock();
        let mut packets: Vec<(Sink, Completion)> = Vec::with_capacity(asked);
        let mut left = batch.into_iter();
        let mut drained = false;
        match result {
            Ok(found) => {
                let taken = found.len();
                // An error behind the last one gives no further edge.
                drained = taken < asked && !device.has(traits::PEER | traits::REFUSALS);
                let burst = if taken < asked { taken + 1 } else { asked * 2 };
                let burst = u8::try_from(burst.min(DATAGRAMS_MAX)).expect("not more than 64");
                direction.burst = burst.max(DATAGRAMS_MIN);
                for ((datagram, pooled), mut operation) in found.into_iter().zip(&mut left) {
                    operation.done = datagram.bytes;
                    let error = if datagram.truncated { EMSGSIZE } else { 0 };
                    let payload = Payload::Datagram(Box::new((datagram, pooled)));
                    packets.push(finish(device, operation, error, payload));
                }
            }
            Err(Refusal::NotNow) => drained = true,
            Err(Refusal::By(error, datagram)) => {
                let payload = Payload::Datagram(Box::new((datagram, None)));
                packets.extend(left.next().map(|operation| finish(device, operation, error, payload)));
            }
            Err(Refusal::Again) => unreachable!("tried again above"),
            Err(Refusal::Failed(error)) => {
                packets.extend(left.next().map(|operation| finish(device, operation, error, Payload::None)));
            }
        }
        put_back(&mut direction, left.collect(), &mut |operation, error| {
            packets.push(finish(device, operation, error, Payload::None));
        });
        direction.run_none();
        drop(direction);
        let mut packets = packets.into_iter();
        let first = match out {
            Out::Queue => None,
            Out::Hand | Out::Issuing => packets.next().and_then(|(sink, completion)| self.hand_out(sink, completion)),
        };
        let others: Vec<Entry> = packets.filter_map(|(sink, completion)| entry(sink, completion)).collect();
        if !others.is_empty() {
            self.queue.insert_all(others);
        }
        // Only now may another worker receive: its packets come behind these.
        let left = device.receive.lock().let_go(drained);
        self.turn_over(device, Side::Receive, left);
        first
    }

    fn try_receive_many(
        &self,
        device: &DeviceState,
        batch: &[Operation],
    ) -> Result<Vec<(Datagram, Option<PoolBuffer>)>, i32> {
        let mut pieces = Pieces::default();
        let mut pooled = Vec::with_capacity(batch.len());
        for operation in batch {
            let mut own = match &operation.buffers {
                Buffers::Pooled => Some(self.driver().pool.take()),
                _ => None,
            };
            match &mut own {
                Some(own) => pieces.push(&Buffers::One(own.space()), 1),
                None => pieces.push(&operation.buffers, PIECES_MAX),
            }
            pooled.push(own);
        }
        let mut found = Vec::with_capacity(batch.len());
        self.engine().receiving(device.handle, |calls| calls.receive_many(device.handle, &pieces, &mut found))?;
        Ok(found.into_iter().zip(pooled).collect())
    }
}

fn refuse_all(operations: Vec<Result<Operation, i32>>, error: i32) -> Vec<Result<Issued, i32>> {
    operations.into_iter().map(|operation| Err(operation.err().unwrap_or(error))).collect()
}

/// Receives to be executed together: the head, and those behind it for which there may be something.
pub(super) fn take_receives(direction: &mut Direction) -> Vec<Operation> {
    let most = usize::from(direction.burst).min(direction.operations.len());
    let batch: Vec<Operation> = (0..most).filter_map(|_| direction.operations.pop_front()).collect();
    if let [head, more @ ..] = &batch[..] {
        direction.run(head.serial);
        direction.run_too(more.iter().map(Operation::label));
    }
    batch
}

/// May sends be gathered? A call for several forgets a refusal that it is told of behind the first; where that is the
/// only way to hear of one, they go one by one.
pub(super) fn gathers(device: &DeviceState) -> bool {
    !device.has(traits::PEER) || device.has(traits::REFUSALS)
}
