//! How anybody reaches a session: the public interface of a connection.

use crate::closed::Closed;
use crate::coalesce;
use crate::conn::{Conn, Phase, tick_ms};
use crate::group::Membership;
use crate::memory::Charge;
use crate::outbox::{Outbox, Piece, SendError, SendErrorReason};
use crate::peer::Peer;
use crate::room::NoRoom;
use crate::shared_log::SharedLog;
#[cfg(feature = "tls")]
use crate::tls::TlsInfo;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use wharf::Buffer;

/// A session's figures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes that the system took for sending, those of a send that is not complete included. Over TLS its records
    /// count.
    pub bytes_sent: u64,
    /// Bytes of messages that were accepted for sending, and not dropped for newer ones.
    pub accepted_bytes: u64,
    /// Bytes of these that are lost: the session ended, or its connection broke, before they had arrived. See
    /// [`SlowConsumer`](crate::SlowConsumer), [`Link::abort`],
    /// [`ServiceOptions::linger`](crate::ServiceOptions::linger). Not less than was lost: over TLS what has gone out is
    /// counted with its records, and what the peer takes at the very moment of the end may be counted, too.
    pub lost_bytes: u64,
    /// Messages dropped by [`SlowConsumer::DropOldest`](crate::SlowConsumer::DropOldest).
    pub dropped: u64,
    /// Bytes that wait to be sent, which the limit of the outbox is about. What the system has taken of the send under
    /// way does not wait any more.
    pub queued_bytes: usize,
    /// Bytes of memory that are kept to be sent: what waits, and the messages of the send under way as a whole. They
    /// count for the memory limit.
    pub kept_bytes: usize,
    /// Bytes of memory that were received and wait to be handled: the beginning of a frame, and what came when the
    /// session was paused already.
    pub unhandled_bytes: usize,
    /// Messages received: frames of a [`Framed`](crate::Framed) session, else calls of
    /// [`Session::received`](crate::Session::received).
    pub messages_received: u64,
    /// Messages that the system took for sending.
    pub messages_sent: u64,
    /// Sends that took them: one takes the messages that waited together. Over TLS also those that have only TLS's own.
    pub sends: u64,
    /// How long it has been open; `None` before it is. As exact as [`silent_for`](LinkStats::silent_for).
    pub open_for: Option<Duration>,
    /// How long nothing was received, or since it was opened; `None` before. Exact to a tick of the system (1 to 10
    /// ms).
    pub silent_for: Option<Duration>,
    /// Whether it is not received from now, for whatever reason: [`Link::pause`], a half-full outbox, the rate limit,
    /// the memory limit.
    pub paused: bool,
}

/// How anybody reaches a session, from any thread. Clones name the same session; a link does not keep it open.
#[derive(Clone)]
pub struct Link(pub(super) Arc<Conn>);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} to {})", self.0.id, self.0.peer())
    }
}

impl Link {
    /// The session's number: unique in its service, and never used again.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The other end. For TCP it compares with, and prints as, its address; [`Peer::tcp`] is the address itself.
    pub fn peer(&self) -> Peer {
        self.0.peer()
    }

    /// Whether the session is over TLS.
    #[cfg(feature = "tls")]
    pub fn is_tls(&self) -> bool {
        self.0.tls.is_some()
    }

    /// What was agreed on in the TLS handshake. `None` without TLS, and until the handshake is done, which it is when
    /// `opened` is called.
    #[cfg(feature = "tls")]
    pub fn tls(&self) -> Option<Arc<TlsInfo>> {
        self.0.tls.as_ref().and_then(|tls| tls.info()).cloned()
    }

    /// Sends a message: it goes out after what was accepted before, in one piece.
    ///
    /// Returns as soon as the message is accepted, which is at once, unless the outbox is full and the policy is
    /// [`SlowConsumer::Wait`](crate::SlowConsumer::Wait).
    ///
    /// # Errors
    ///
    /// The message comes back when the session is closed, when it is larger than the outbox or the service's memory may
    /// be, and when the outbox is full, or the service's memory is, and the policy is to end the session.
    pub fn send(&self, message: impl Into<Buffer>) -> Result<(), SendError> {
        self.offer(message.into(), None).map(|_| ())
    }

    /// Like [`send`](Link::send); returns how many messages were dropped for it. `shared`: what counts it for all
    /// sessions of a service that get it, once one has.
    pub(super) fn offer(&self, buffer: Buffer, mut shared: Option<&mut Option<Arc<Charge>>>) -> Result<u64, SendError> {
        let refuse = |reason, buffer| Err(SendError { reason, buffer });
        let conn = &self.0;
        let service = conn.service.upgrade().filter(|service| service.is_home());
        let Some(service) = service else { return refuse(SendErrorReason::Closed, buffer) };
        let largest = service.options.outbox_bytes.min(service.memory.limit());
        let (buffer, cost) = compact(buffer, largest);
        if cost > largest {
            return refuse(SendErrorReason::TooLarge, buffer);
        }
        let mut sending = conn.lock();
        conn.settle(&mut sending);
        let dropped_before = sending.outbox.dropped;
        let mut sending = match conn.reserve(&service, sending, cost, shared.as_deref_mut()) {
            Ok(sending) => sending,
            Err(NoRoom::Refused(reason)) => return refuse(reason, buffer),
            Err(NoRoom::Dropped(dropped)) => return Ok(dropped - dropped_before),
        };
        match shared.and_then(|charge| charge.clone()).filter(|_| conn.limited) {
            Some(charge) => sending.outbox.push_piece(Piece::Shared(buffer, charge)),
            None => {
                sending.accounted += cost;
                sending.outbox.push(buffer);
            }
        }
        conn.note_holds(&sending);
        let dropped = sending.outbox.dropped - dropped_before;
        if coalesce::is_on() && sending.may_leave(&service) {
            conn.leave(&service, sending);
        } else {
            conn.pump(sending);
        }
        Ok(dropped)
    }

    /// Takes a shared log at the end of its outbox, if that has room for all that may come on it.
    pub(super) fn hear(&self, shared_log: &Arc<SharedLog>) -> bool {
        let conn = &self.0;
        let Some(service) = conn.service.upgrade().filter(|service| service.is_home()) else { return false };
        let limit = service.options.outbox_bytes;
        if shared_log.room() > coalesce::share(limit) {
            return false;
        }
        let mut sending = conn.lock();
        conn.settle(&mut sending);
        let may = sending.accepts() && sending.may_leave(&service) && sending.outbox.has_room(shared_log.room(), limit);
        // One that another service counts is none of this one's.
        let counted = !conn.limited || shared_log.charge().is_some_and(|charge| charge.is_of(&service));
        if !may || !counted {
            return false;
        }
        if shared_log.charge().is_none() {
            sending.accounted += shared_log.room();
        }
        sending.outbox.push_log(shared_log);
        conn.note_holds(&sending);
        conn.leave(&service, sending);
        true
    }

    /// How much a shared log for its outbox may hold.
    pub(super) fn log_bytes(&self) -> Option<usize> {
        coalesce::log_bytes(self.0.service.upgrade()?.options.outbox_bytes)
    }

    /// Says that nothing more will be sent: what was accepted goes out, then the peer sees the end of the stream.
    /// Receiving goes on until the peer ends its side too.
    pub fn finish(&self) {
        if !self.is_home() {
            return;
        }
        let mut sending = self.0.lock();
        self.0.settle(&mut sending);
        if !sending.finishing {
            sending.finishing = true;
            self.0.pump(sending);
        }
        self.0.made_room();
    }

    /// Ends the session gracefully: what was accepted for sending goes out first. Does not wait for it.
    pub fn close(&self) {
        if !self.is_home() {
            return;
        }
        self.0.close(Closed::ByUs);
    }

    /// Ends the session at once. What the system has not taken is lost, and if that is anything, the peer hears a reset
    /// instead of an end that it could take for that of the whole (but a Unix socket has none).
    pub fn abort(&self) {
        if !self.is_home() {
            return;
        }
        // What was only coalesced would have gone out.
        self.0.send_left();
        self.0.end(Closed::ByUs);
    }

    /// Says that the session has come so far that
    /// [`ServiceOptions::handshake_timeout`](crate::ServiceOptions::handshake_timeout) does not end it any more.
    pub fn ready(&self) {
        self.0.ready.store(true, Ordering::Relaxed);
    }

    /// Whether messages are accepted.
    pub fn is_open(&self) -> bool {
        self.is_home() && self.0.lock().accepts()
    }

    /// In a forked child a link reaches nobody: the session is the parent's, and so are its locks.
    pub(super) fn is_home(&self) -> bool {
        self.0.service.upgrade().is_none_or(|service| service.is_home())
    }

    /// The session's figures; all 0 in a forked child.
    pub fn stats(&self) -> LinkStats {
        if !self.is_home() {
            return LinkStats::default();
        }
        let sending = self.0.lock();
        if let Some(stream) = &sending.stream {
            self.0.count_taken(stream);
        }
        let now = tick_ms();
        let since = |stamp: &AtomicU64| match stamp.load(Ordering::Relaxed) {
            0 => None,
            at => Some(Duration::from_millis(now.saturating_sub(at))),
        };
        LinkStats {
            bytes_received: self.0.bytes_received.load(Ordering::Relaxed),
            bytes_sent: self.0.bytes_sent.load(Ordering::Relaxed),
            accepted_bytes: sending.outbox.accepted_bytes(),
            lost_bytes: sending.lost,
            dropped: sending.outbox.dropped,
            queued_bytes: sending.outbox.queued_bytes().saturating_sub(self.0.taken_of_flight(&sending)),
            kept_bytes: sending.outbox.queued_bytes(),
            unhandled_bytes: sending.inbox.bytes(),
            messages_received: self.0.messages_received.load(Ordering::Relaxed),
            messages_sent: self.0.messages_sent.load(Ordering::Relaxed),
            sends: self.0.sends.load(Ordering::Relaxed),
            open_for: since(&self.0.opened_ms),
            silent_for: since(&self.0.received_ms).or_else(|| since(&self.0.opened_ms)),
            paused: sending.inbox.paused_for.is_some(),
        }
    }

    /// False when the session is over, and leaves no group any more.
    pub(super) fn note_group(&self, group: Membership) -> bool {
        let mut sending = self.0.lock();
        if sending.phase == Phase::Over {
            return false;
        }
        if !sending.groups.iter().any(|known| known.ptr_eq(&group)) {
            sending.groups.push(group);
        }
        true
    }

    pub(super) fn forget_group(&self, group: &Membership) {
        self.0.lock().groups.retain(|known| !known.ptr_eq(group));
    }
}

/// The message, and what it costs. A few bytes in a large buffer, one that was received into, say, are copied, if it is
/// the buffer alone that is too large.
fn compact(buffer: Buffer, largest: usize) -> (Buffer, usize) {
    let cost = Outbox::cost(&buffer);
    if cost <= largest || buffer.len() > largest {
        return (buffer, cost);
    }
    let buffer: Buffer = buffer.to_vec().into();
    let cost = Outbox::cost(&buffer);
    (buffer, cost)
}
