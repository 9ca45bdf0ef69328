//! What waits to be sent to one session: bounded, gathered, in order.
//!
//! At most one send is outstanding for a session. What is sent meanwhile lies here, and goes out together in one
//! vectored send when that one is done. Bytes are counted by what they keep in memory, including the send under way.

use super::framing::FrameError;
use crate::buffer::Buffer;
use std::collections::VecDeque;
use std::fmt;
use std::io;

/// Messages and bytes that one send gathers.
const GATHER_MESSAGES: usize = 64;
const GATHER_BYTES: usize = 256 * 1024;

/// What happens to a message for a session whose outbox is full because its peer does not read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SlowConsumer {
    /// The session ends. The default: one slow peer harms nobody else, and nothing goes missing unnoticed.
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
    /// The service's memory limit is reached ([`Builder::memory_limit`](super::Builder::memory_limit)), and this session held
    /// most of it, so it ends; or nobody holds anything that could be let go of, and the session goes on.
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
    waiting: VecDeque<Buffer>,
    waiting_cost: usize,
    flying_cost: usize,
    pub(super) dropped: u64,
}

impl Outbox {
    /// What a message keeps in memory: a small one in a large buffer keeps the large buffer.
    pub(super) fn cost(buffer: &Buffer) -> usize {
        buffer.len().max(buffer.capacity()).max(1)
    }

    pub(super) fn has_room(&self, cost: usize, limit: usize) -> bool {
        self.waiting_cost + self.flying_cost + cost <= limit
    }

    pub(super) fn drop_oldest(&mut self, cost: usize, limit: usize) {
        while !self.has_room(cost, limit) {
            let Some(oldest) = self.waiting.pop_front() else { return };
            self.waiting_cost -= Self::cost(&oldest);
            self.dropped += 1;
        }
    }

    /// Drops the oldest for so many bytes, if there are so many that have not begun to go out. They are returned, to be
    /// dropped outside the lock.
    pub(super) fn drop_bytes(&mut self, bytes: usize) -> Vec<Buffer> {
        let mut dropped = Vec::new();
        let mut freed = 0;
        while freed < bytes {
            let Some(oldest) = self.waiting.pop_front() else { break };
            freed += Self::cost(&oldest);
            dropped.push(oldest);
        }
        self.waiting_cost -= freed;
        self.dropped += dropped.len() as u64;
        dropped
    }

    pub(super) fn push(&mut self, buffer: Buffer) {
        self.waiting_cost += Self::cost(&buffer);
        self.waiting.push_back(buffer);
    }

    /// The next send: what waits, up to the limits of one call.
    pub(super) fn take(&mut self) -> Vec<Buffer> {
        let mut bytes = 0;
        let fitting = self.waiting.iter().take(GATHER_MESSAGES).take_while(|buffer| {
            let first = bytes == 0;
            bytes += buffer.len().max(1);
            first || bytes <= GATHER_BYTES
        });
        let count = fitting.count();
        let taken: Vec<Buffer> = self.waiting.drain(..count).collect();
        let cost: usize = taken.iter().map(Self::cost).sum();
        self.waiting_cost -= cost;
        self.flying_cost = cost;
        taken
    }

    /// The send that `take` gave is over.
    pub(super) fn landed(&mut self) {
        self.flying_cost = 0;
    }

    /// Nothing more will be sent. The messages are returned, to be dropped outside the lock.
    pub(super) fn clear(&mut self) -> VecDeque<Buffer> {
        self.waiting_cost = 0;
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn queued_bytes(&self) -> usize {
        self.waiting_cost + self.flying_cost
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
        assert_eq!(outbox.take().len(), 1);
        outbox.push("2222".into());
        outbox.push("3333".into());
        outbox.drop_oldest(4, 12);
        assert_eq!(outbox.dropped, 1);
        outbox.push("4444".into());
        outbox.landed();
        let rest: Vec<Vec<u8>> = outbox.take().into_iter().map(Buffer::into_vec).collect();
        assert_eq!(rest, [b"3333", b"4444"]);
    }

    #[test]
    fn one_send_gathers_up_to_its_limit_and_at_least_one() {
        let mut outbox = Outbox::default();
        outbox.push(vec![0; 2 * GATHER_BYTES].into());
        (0..100).for_each(|_| outbox.push("x".into()));
        assert_eq!(outbox.take().len(), 1);
        outbox.landed();
        assert_eq!(outbox.take().len(), GATHER_MESSAGES);
    }
}
