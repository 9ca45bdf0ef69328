//! What waits to be sent to one session: bounded, coalesced, in order.
//!
//! At most one send is outstanding for a session. What is sent meanwhile lies here, and goes out together in one
//! vectored send when that one is done. Bytes are counted by what they keep in memory, including the send under way.
//!
//! The last piece may be a [`SharedLog`] that still grows: what a group says goes to the ends of many outboxes at once,
//! see `shared_log.rs`. It is cut, and counted by what is on it, before anything else is done with the outbox. Until
//! then it counts as large as it may become, so that it never exceeds the outbox.

use crate::framing::FrameError;
use crate::memory::Charge;
use crate::shared_log::SharedLog;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::Arc;
use wharf::Buffer;

/// Messages and bytes that one send coalesces.
const GATHER_MESSAGES: usize = 64;
const GATHER_BYTES: usize = 256 * 1024;

/// What happens to a message for a session whose outbox is full because its peer does not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// The session ends. The default: one slow peer harms nobody else, and nothing goes missing unnoticed: the peer
    /// hears a reset, and [`LinkStats::lost_bytes`](crate::LinkStats::lost_bytes) tells what it did not get.
    #[default]
    Disconnect,
    /// The oldest messages that have not begun to go out are dropped, and counted.
    DropOldest,
    /// The sender waits for room, without occupying a slot of the port. A broadcast then goes at the pace of its
    /// slowest member. Two sessions that wait for each other wait for ever: do not send in a circle with it. One worker
    /// of those that the pool may have never waits, but ends the session, so that somebody is left to make room.
    Wait,
}

/// Why a message was not accepted. It comes back.
pub struct SendError {
    /// Why.
    pub reason: SendErrorReason,
    /// The message.
    pub buffer: Buffer,
}

/// See [`SendError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendErrorReason {
    /// The session is closed, or is being closed.
    Closed,
    /// The outbox was full, and the session ends for it ([`SlowConsumer::Disconnect`]).
    SlowConsumer,
    /// The message alone is larger than the outbox may be, or than the memory of the whole service.
    TooLarge,
    /// The service's memory limit is reached ([`ServiceOptions::memory_limit`](crate::ServiceOptions::memory_limit)),
    /// and this session held most of it, so it ends; or nobody holds anything that could be let go of, and the session
    /// goes on.
    MemoryLimit,
    /// The message cannot be made a frame.
    Framing(FrameError),
}

impl fmt::Display for SendErrorReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            SendErrorReason::Framing(error) => return error.fmt(f),
            SendErrorReason::Closed => "the session is closed",
            SendErrorReason::SlowConsumer => "the peer does not read and its outbox is full; the session was ended",
            SendErrorReason::TooLarge => {
                "the message is larger than the outbox, or than the memory limit; raise its limit or send pieces"
            }
            SendErrorReason::MemoryLimit => {
                "the service's memory limit is reached; raise it, or see who does not read what it is sent"
            }
        })
    }
}

impl fmt::Debug for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendError({:?}, {} bytes)", self.reason, self.buffer.len())
    }
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl std::error::Error for SendError {}

impl From<SendError> for io::Error {
    fn from(error: SendError) -> io::Error {
        let kind = match error.reason {
            SendErrorReason::Closed => io::ErrorKind::NotConnected,
            SendErrorReason::SlowConsumer => io::ErrorKind::ConnectionAborted,
            SendErrorReason::MemoryLimit => io::ErrorKind::OutOfMemory,
            SendErrorReason::TooLarge | SendErrorReason::Framing(_) => io::ErrorKind::InvalidInput,
        };
        io::Error::new(kind, error.reason.to_string())
    }
}

/// The list itself; its owner locks it.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    waiting: VecDeque<Piece>,
    waiting_cost: usize,
    /// The last piece is a shared log that was not cut by this outbox, and counts as large as it may become.
    grows: bool,
    cost_in_flight: usize,
    /// Bytes of messages of what flies.
    bytes_in_flight: u64,
    /// What of both is shared with other sessions, and counted by a charge.
    waiting_shared: usize,
    shared_in_flight: usize,
    /// The charges of what flies.
    in_flight: Vec<Arc<Charge>>,
    pub(super) dropped: u64,
    /// Bytes of messages that came here and were not dropped for newer ones; of a shared log that grows, once it is
    /// cut.
    accepted: u64,
}

#[derive(Debug)]
pub(super) enum Piece {
    Message(Buffer),
    /// One that other sessions have, too.
    Shared(Buffer, Arc<Charge>),
    /// The messages of a shared log, but the first so many, which were dropped.
    Log(Arc<SharedLog>, usize),
}

/// The pieces of one send, and how many messages they are.
#[derive(Debug, Default)]
pub(super) struct Load {
    pub(super) buffers: Vec<Buffer>,
    pub(super) messages: u64,
}

impl Load {
    /// Bytes of its messages.
    pub(super) fn bytes(&self) -> u64 {
        self.buffers.iter().map(|buffer| buffer.len() as u64).sum()
    }
}

impl Piece {
    /// Bytes of its messages; of a shared log that grows, those that are on it.
    pub(super) fn length(&self) -> u64 {
        match self {
            Piece::Message(buffer) | Piece::Shared(buffer, _) => buffer.len() as u64,
            Piece::Log(shared_log, 0) => shared_log.bytes() as u64,
            // Messages are dropped of one that was cut.
            Piece::Log(shared_log, dropped) => shared_log.cut().bytes_after(*dropped) as u64,
        }
    }

    /// What counts it, if others have it too.
    fn charge(&self) -> Option<&Arc<Charge>> {
        match self {
            Piece::Message(_) => None,
            Piece::Shared(_, charge) => Some(charge),
            Piece::Log(shared_log, _) => shared_log.charge(),
        }
    }

    /// What of such a cost is shared.
    fn shared(&self, cost: usize) -> usize {
        if self.charge().is_some() { cost } else { 0 }
    }

    /// Of a shared log that was cut.
    fn cost(&self) -> usize {
        match self {
            Piece::Message(buffer) | Piece::Shared(buffer, _) => Outbox::cost(buffer),
            Piece::Log(shared_log, dropped) => shared_log.cut().bytes_after(*dropped),
        }
    }
}

impl Outbox {
    /// What a message keeps in memory: a small one in a large buffer keeps the large buffer.
    pub(super) fn cost(buffer: &Buffer) -> usize {
        buffer.len().max(buffer.capacity()).max(1)
    }

    pub(super) fn has_room(&self, cost: usize, limit: usize) -> bool {
        self.counted_bytes() + cost <= limit
    }

    /// Nothing more is said on the shared log at the end, if there is one: then what is counted has changed.
    pub(super) fn settle(&mut self) -> bool {
        let grew = std::mem::take(&mut self.grows);
        if grew {
            let Some(last @ Piece::Log(shared_log, _)) = self.waiting.back() else {
                unreachable!("a shared_log is the last piece")
            };
            let bytes = shared_log.cut().bytes_after(0);
            let less = shared_log.room() - bytes;
            self.accepted += bytes as u64;
            self.waiting_cost -= less;
            self.waiting_shared -= last.shared(less);
        }
        grew
    }

    /// Takes the oldest message out. The outbox is settled.
    fn drop_first(&mut self) -> Option<(usize, Option<Piece>)> {
        let first = self.waiting.front_mut()?;
        let before = first.length();
        let (cost, is_over) = match first {
            Piece::Message(buffer) | Piece::Shared(buffer, _) => (Self::cost(buffer), true),
            Piece::Log(shared_log, dropped) => {
                let text = shared_log.cut();
                let before = text.bytes_after(*dropped);
                *dropped += 1;
                (before - text.bytes_after(*dropped), *dropped == text.messages())
            }
        };
        self.waiting_shared -= first.shared(cost);
        self.waiting_cost -= cost;
        self.accepted -= if is_over { before } else { before - first.length() };
        self.dropped += 1;
        Some((cost, if is_over { self.waiting.pop_front() } else { None }))
    }

    pub(super) fn drop_oldest(&mut self, cost: usize, limit: usize) {
        self.settle();
        while !self.has_room(cost, limit) && self.drop_first().is_some() {}
    }

    /// Drops the oldest for so many bytes, if there are so many that have not begun to go out. They are returned, to be
    /// dropped outside the lock; and how many they were.
    pub(super) fn drop_bytes(&mut self, bytes: usize) -> (Vec<Piece>, usize) {
        self.settle();
        let mut pieces = Vec::new();
        let (mut freed, mut count) = (0, 0);
        while freed < bytes {
            let Some((cost, piece)) = self.drop_first() else { break };
            freed += cost;
            count += 1;
            pieces.extend(piece);
        }
        (pieces, count)
    }

    pub(super) fn push(&mut self, buffer: Buffer) {
        self.push_piece(Piece::Message(buffer));
    }

    pub(super) fn push_piece(&mut self, piece: Piece) {
        self.settle();
        let cost = piece.cost();
        self.waiting_cost += cost;
        self.waiting_shared += piece.shared(cost);
        self.accepted += piece.length();
        self.waiting.push_back(piece);
    }

    /// Puts a shared log at the end, which counts as large as it may become.
    pub(super) fn push_log(&mut self, shared_log: &Arc<SharedLog>) {
        self.settle();
        let piece = Piece::Log(shared_log.clone(), 0);
        self.waiting_cost += shared_log.room();
        self.waiting_shared += piece.shared(shared_log.room());
        self.waiting.push_back(piece);
        self.grows = true;
    }

    /// The next send: what waits, up to the limits of one call.
    pub(super) fn take(&mut self) -> Load {
        self.settle();
        let mut load = Load::default();
        let (mut bytes, mut cost, mut shared) = (0, 0, 0);
        while load.buffers.len() < GATHER_MESSAGES {
            let Some(next) = self.waiting.front() else { break };
            let length = match next {
                Piece::Message(buffer) | Piece::Shared(buffer, _) => buffer.len(),
                Piece::Log(..) => next.cost(),
            };
            bytes += length.max(1);
            if bytes > GATHER_BYTES && !load.buffers.is_empty() {
                break;
            }
            cost += next.cost();
            shared += next.shared(next.cost());
            self.in_flight.extend(next.charge().cloned());
            match self.waiting.pop_front().expect("looked at above") {
                Piece::Message(buffer) | Piece::Shared(buffer, _) => {
                    load.messages += 1;
                    load.buffers.push(buffer);
                }
                Piece::Log(shared_log, dropped) => {
                    let text = shared_log.cut();
                    load.messages += (text.messages() - dropped) as u64;
                    load.buffers.push(text.after(dropped));
                }
            }
        }
        self.waiting_cost -= cost;
        self.waiting_shared -= shared;
        self.cost_in_flight = cost;
        self.bytes_in_flight = load.bytes();
        self.shared_in_flight = shared;
        load
    }

    /// The send that `take` gave is over.
    pub(super) fn completed(&mut self) {
        self.cost_in_flight = 0;
        self.bytes_in_flight = 0;
        self.shared_in_flight = 0;
        self.in_flight.clear();
    }

    /// What flies counts no more.
    pub(super) fn forgive(&mut self) {
        self.in_flight.clear();
    }

    /// Nothing more will be sent. The messages are returned, to be dropped outside the lock.
    pub(super) fn clear(&mut self) -> VecDeque<Piece> {
        self.settle();
        self.waiting_cost = 0;
        self.waiting_shared = 0;
        std::mem::take(&mut self.waiting)
    }

    /// Whether more bytes are here than so many.
    pub(super) fn exceeds(&self, bytes: usize) -> bool {
        // What counts is never less, and known without a look at a shared log.
        self.counted_bytes() > bytes && self.queued_bytes() > bytes
    }

    /// Bytes that are here.
    pub(super) fn queued_bytes(&self) -> usize {
        let growing = match self.waiting.back() {
            Some(Piece::Log(shared_log, _)) if self.grows => shared_log.room() - shared_log.bytes(),
            _ => 0,
        };
        self.counted_bytes() - growing
    }

    /// Bytes of messages that came here, and were not dropped for newer ones.
    pub(super) fn accepted_bytes(&self) -> u64 {
        match self.waiting.back() {
            Some(growing) if self.grows => self.accepted + growing.length(),
            _ => self.accepted,
        }
    }

    /// Bytes that count: more than are here, while a shared log at the end grows.
    pub(super) fn counted_bytes(&self) -> usize {
        self.waiting_cost + self.cost_in_flight
    }

    /// What of it flies and was taken already, when so many bytes that were given to the stream were not.
    pub(super) fn taken_bytes(&self, untaken: u64) -> usize {
        let taken = usize::try_from(self.bytes_in_flight.saturating_sub(untaken)).unwrap_or(usize::MAX);
        taken.min(self.cost_in_flight)
    }

    /// Those of them that are shared with other sessions, and counted once for all.
    pub(super) fn shared_bytes(&self) -> usize {
        self.waiting_shared + self.shared_in_flight
    }

    /// Bytes that count and are not on their way.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.waiting_cost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_message_in_a_large_buffer_counts_as_large() {
        let mut vec = Vec::with_capacity(1000);
        vec.push(1u8);
        assert_eq!(Outbox::cost(&Buffer::from(vec)), 1000);
        assert_eq!(Outbox::cost(&Buffer::from("ab")), 2);
    }

    #[test]
    fn the_oldest_go_first_and_what_flies_stays() {
        let mut outbox = Outbox::default();
        outbox.push("1111".into());
        assert_eq!(outbox.take().buffers.len(), 1);
        outbox.push("2222".into());
        outbox.push("3333".into());
        outbox.drop_oldest(4, 12);
        assert_eq!(outbox.dropped, 1);
        outbox.push("4444".into());
        outbox.completed();
        let rest: Vec<Vec<u8>> = outbox.take().buffers.into_iter().map(Buffer::into_vec).collect();
        assert_eq!(rest, [b"3333", b"4444"]);
    }

    #[test]
    fn one_send_coalesces_up_to_its_limit_and_at_least_one() {
        let mut outbox = Outbox::default();
        outbox.push(vec![0; 2 * GATHER_BYTES].into());
        (0..100).for_each(|_| outbox.push("x".into()));
        assert_eq!(outbox.take().buffers.len(), 1);
        outbox.completed();
        assert_eq!(outbox.take().buffers.len(), GATHER_MESSAGES);
    }

    fn tape_of(room: usize, messages: &[&str]) -> Arc<SharedLog> {
        let shared_log = Arc::new(SharedLog::new(room, None));
        messages.iter().for_each(|message| assert!(shared_log.say(message.as_bytes())));
        shared_log
    }

    fn text(load: Load) -> String {
        String::from_utf8(load.buffers.iter().flat_map(|buffer| buffer.to_vec()).collect()).unwrap()
    }

    #[test]
    fn a_shared_log_counts_as_large_as_it_may_become_until_it_is_cut() {
        let mut outbox = Outbox::default();
        let shared_log = tape_of(100, &["one", "two"]);
        outbox.push_log(&shared_log);
        assert!(shared_log.say(b"three"));
        assert_eq!((outbox.counted_bytes(), outbox.queued_bytes()), (100, 11));
        outbox.push("four".into());
        assert!(!shared_log.say(b"too late"), "what follows in one outbox must not come before what is there already");
        assert_eq!((outbox.counted_bytes(), outbox.queued_bytes()), (15, 15));
        let load = outbox.take();
        assert_eq!((load.messages, load.buffers.len()), (4, 2));
        assert_eq!(text(load), "onetwothreefour");
        outbox.completed();
        assert_eq!(outbox.counted_bytes(), 0);
    }

    #[test]
    fn a_shared_log_that_another_outbox_has_cut_is_counted_right() {
        let (mut one, mut two) = (Outbox::default(), Outbox::default());
        let shared_log = tape_of(100, &["one"]);
        one.push_log(&shared_log);
        assert_eq!(text(one.take()), "one");
        two.push_log(&shared_log);
        assert_eq!(two.queued_bytes(), 3);
        assert!(!shared_log.say(b"two"));
        assert_eq!(two.clear().len(), 1);
        assert_eq!(two.counted_bytes(), 0);
    }

    #[test]
    fn the_oldest_messages_of_a_shared_log_are_dropped_one_by_one() {
        let mut outbox = Outbox::default();
        outbox.push_log(&tape_of(100, &["1111", "2222", "3333"]));
        assert_eq!(outbox.accepted_bytes(), 12);
        outbox.drop_oldest(4, 12);
        assert_eq!((outbox.dropped, outbox.counted_bytes(), outbox.accepted_bytes()), (1, 8, 8));
        outbox.push("4444".into());
        assert_eq!(outbox.drop_bytes(5).1, 2);
        assert_eq!(outbox.accepted_bytes(), 4);
        assert_eq!(text(outbox.take()), "4444");
        outbox.completed();
        assert_eq!((outbox.dropped, outbox.counted_bytes()), (3, 0));
        outbox.push_log(&tape_of(100, &["1111", "2222", "3333"]));
        outbox.drop_oldest(4, 12);
        let load = outbox.take();
        assert_eq!(load.messages, 2);
        assert_eq!(text(load), "22223333");
    }
}
