//! One session's life, and the link by which others reach it.
//!
//! ```text
//! connecting ─→ open ─→ closing ─→ over
//!      └ handshake ┘ └────────────────↗
//! ```
//!
//! A receive is outstanding from `open` to `over`, or a handler runs that will issue the next one: so there is always
//! exactly one place where the end is noticed, and that place calls `closed`. A session that is not received from for a
//! while is *held*, and whoever takes that back issues the next one: see `hold.rs`. Whoever wants a session to end
//! closes its device; the receive then completes as cancelled, or the next one is refused. A send that finds the
//! connection broken closes nothing: what the peer said before can still be received, and then the receive fails too.
//!
//! Only the end of the whole service comes from elsewhere, when no packet will come any more. If a handler runs then,
//! the thread that runs it calls `closed` after it has returned: see `tell_closed`.
//!
//! *Closing* (by `Link::close`, by shutdown) is graceful: the outbox goes out, the sending side is shut, and the peer
//! acknowledges what it was sent, within a time limit; what still arrives is discarded until the peer closes too, or
//! half a second has passed. How all ends are made stands in `ending.rs`. A session that is not connected yet and has
//! something to send is closed when it is connected.
//!
//! A session with TLS goes through `handshake`: receives are outstanding and TLS sends its own; messages wait in the
//! outbox, as while connecting, and the handler hears of nothing. A TLS failure closes gracefully too, so that the peer
//! hears why, but nothing of the outbox goes out. Both directions go through `Tls`, whose lock is never held together
//! with `sending`: see `tls/mod.rs`.
//!
//! The session holds its stream and the stream's key holds the session; `over` takes the stream out, which ends the
//! circle.
//!
//! Longer than most files: both sides share one state under one lock, and how they end each other has to be read
//! together.

use crate::connecting::Connecting;
use crate::dispatch::{Handling, Node, Op};
use crate::ending::{self, HEAR_OUT, Look};
use crate::framing::FrameError;
use crate::gather;
use crate::group::Membership;
use crate::hold::{Hold, Inbox, Turn};
use crate::lock::{Condition, Guard, Lock};
use crate::memory::Charge;
use crate::outbox::{Load, Outbox, Piece, SendError, SendErrorReason, SlowConsumer};
use crate::peer::Peer;
use crate::service::{Inner, Stream, after};
use crate::tape::Tape;
#[cfg(feature = "tls")]
use crate::tls::{TlsError, TlsErrorKind, TlsInfo};
use crate::{Session, Tls, payload, time};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use wharf::{Buffer, Event, Outcome};

/// Receives that one handler call may go through before other sessions come first.
const RECEIVES_PER_TURN: usize = 8;

/// Why a session ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Closed {
    /// The peer ended the stream.
    ByPeer,
    /// This side closed it: [`Link::close`] or [`Link::abort`].
    ByUs,
    /// The service was shut down.
    Shutdown,
    /// The connection broke, or could not be made.
    Failed(io::Error),
    /// The peer did not read, and its outbox was full.
    SlowConsumer,
    /// The service's memory limit was reached, and this session held most of it: see
    /// [`ServiceOptions::memory_limit`](crate::ServiceOptions::memory_limit).
    MemoryLimit,
    /// The peer broke the framing, or ended the stream inside a frame. Only for a [`Framed`](crate::Framed) session.
    Framing(FrameError),
    /// Nothing was received, and no send completed, for as long as
    /// [`ServiceOptions::idle_timeout`](crate::ServiceOptions::idle_timeout) says.
    IdleTimeout,
    /// [`Link::ready`] was not called within
    /// [`ServiceOptions::handshake_timeout`](crate::ServiceOptions::handshake_timeout), or the TLS handshake was not
    /// done.
    HandshakeTimeout,
    /// TLS failed: in the handshake, then `opened` was not called, or later; or the peer ended the stream without the
    /// end of TLS.
    #[cfg(feature = "tls")]
    Tls(TlsError),
    /// A handler of the session panicked.
    Panicked,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::ByPeer => f.write_str("the peer closed the connection"),
            Closed::ByUs => f.write_str("closed"),
            Closed::Shutdown => f.write_str("the service was shut down"),
            Closed::Failed(error) => write!(f, "{error}"),
            Closed::SlowConsumer => f.write_str("the peer does not read what it is sent"),
            Closed::MemoryLimit => {
                f.write_str("the service's memory limit was reached, and this session held most of the memory")
            }
            Closed::Framing(error) => write!(f, "{error}"),
            Closed::IdleTimeout => f.write_str("the peer has neither sent nor taken anything for too long"),
            Closed::HandshakeTimeout => f.write_str("the handshake took too long"),
            #[cfg(feature = "tls")]
            Closed::Tls(error) => write!(f, "{error}"),
            Closed::Panicked => f.write_str("a handler panicked"),
        }
    }
}

impl Closed {
    /// Whether the peer has ended its side, well or not: it may still read what was accepted for it.
    pub(super) fn is_peers_end(&self) -> bool {
        match self {
            Closed::ByPeer => true,
            #[cfg(feature = "tls")]
            Closed::Tls(error) => error.kind() == TlsErrorKind::Truncated,
            _ => false,
        }
    }
}

/// What TLS made of received bytes.
#[derive(Default)]
pub(super) struct Unsealed {
    /// For the handler.
    pub(super) plain: Vec<u8>,
    /// The handshake is done now; the plaintext came after it.
    pub(super) established: bool,
    /// TLS has something to say to the peer.
    pub(super) answers: bool,
    /// After the plaintext, nothing more comes.
    pub(super) end: Option<Closed>,
}

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
    /// [`SlowConsumer`], [`Link::abort`], [`ServiceOptions::linger`](crate::ServiceOptions::linger). Not less than was
    /// lost: over TLS what has gone out is counted with its records, and what the peer takes at the very moment of the
    /// end may be counted, too.
    pub lost_bytes: u64,
    /// Messages dropped by [`SlowConsumer::DropOldest`].
    pub dropped: u64,
    /// Bytes of memory that are kept to be sent: what waits, and the messages of the send under way, from which the
    /// system may have taken a part already. The limit of the outbox is about what waits alone: over a plain connection
    /// `accepted_bytes - bytes_sent`.
    pub queued_bytes: usize,
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
    pub held: bool,
}

/// How anybody reaches a session, from any thread. Clones name the same session; a link does not keep it open.
#[derive(Clone)]
pub struct Link(pub(super) Arc<Conn>);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} to {})", self.0.id, self.0.peer())
    }
}

pub(super) struct Conn {
    id: u64,
    /// While it is being connected, the address that is tried.
    peer: Lock<Peer>,
    /// The peer is a process of this machine.
    pub(super) is_local: bool,
    pub(super) service: Weak<Inner>,
    /// Boxed: it is more than all the rest, and most sessions have none.
    tls: Option<Box<Tls>>,
    /// Messages that are in the send under way, of which several may be in one buffer.
    flying_messages: AtomicU64,
    handler: Lock<Option<Box<dyn Session>>>,
    sending: Lock<Sending>,
    room: Condition,
    /// Senders that wait for room: notifying costs a system call even when nobody listens.
    waiting: AtomicU32,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    /// Bytes that were given to the stream to be sent, those of TLS included; and how many they were with the last
    /// message.
    pub(super) given: AtomicU64,
    pub(super) given_data: AtomicU64,
    /// What `given` was when all of it was known to have arrived.
    pub(super) settled: AtomicU64,
    /// What had arrived when memory was last looked at.
    pub(super) arrived_then: AtomicU64,
    pub(super) messages_received: AtomicU64,
    messages_sent: AtomicU64,
    sends: AtomicU64,
    /// Frames are its messages.
    pub(super) framed: AtomicBool,
    /// What it keeps in memory: written under `sending`'s lock, read without.
    pub(super) holds: AtomicUsize,
    /// The service has a limit, and counts it.
    pub(super) limited: bool,
    /// When it was opened, and when it last received something, by `tick_ms`; 0: never.
    opened_ms: AtomicU64,
    received_ms: AtomicU64,
    /// The service's coarse clock, which `heard_us` and `opened_us` go by.
    coarse_us: Arc<AtomicU64>,
    /// When something was received, or a send completed; `NEVER` while a handler runs, whose time is not the peer's,
    /// and before the session is open.
    heard_us: AtomicU64,
    /// When it was opened; `NEVER` before.
    opened_us: AtomicU64,
    ready: AtomicBool,
}

/// No time-out counts from here.
const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Connecting,
    Handshake,
    Open,
    Closing,
    Over,
}

pub(super) struct Sending {
    pub(super) phase: Phase,
    pub(super) stream: Option<Stream>,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    /// What the service counts for this session, in bytes; and that it counts nothing for it any more.
    pub(super) accounted: usize,
    pub(super) written_off: bool,
    /// Senders that wait for the service's memory; and that the session is in the list of those to be told.
    starved: u32,
    listed: bool,
    /// Somebody sends, or a send is outstanding.
    pub(super) busy: bool,
    /// Nobody does, though something waits: a thread has it in its parcel, see `gather.rs`.
    pub(super) left: bool,
    /// TLS has something to say of its own.
    answers: bool,
    /// The end of TLS has been sent.
    sealed_off: bool,
    /// The sending side is to be shut when the outbox has gone out; and it was.
    finishing: bool,
    pub(super) shut: bool,
    /// Why it ends, once that is decided.
    pub(super) reason: Option<Closed>,
    /// Something that was accepted for sending is lost, or the session's time was over.
    pub(super) cut: bool,
    pub(super) groups: Vec<Membership>,
    /// When a graceful end turns into an abrupt one, a handshake into a failure, and a connect into the next address's.
    /// See `ending.rs` for these.
    pub(super) limit: Option<Instant>,
    /// When its graceful end does, also where the connection is still to be made, for which the limit may be shorter.
    pub(super) ends_by: Option<Instant>,
    /// The limit begins anew whenever the peer takes something.
    pub(super) patient: bool,
    /// All has arrived, and so long the peer may take to end its side.
    pub(super) hear_until: Option<Instant>,
    /// It is in the list of those that linger.
    pub(super) swept: bool,
    pub(super) look: Look,
    /// Bytes of messages that left the outbox to be sent; that are lost, and of which that was told.
    pub(super) launched: u64,
    /// Those of them that TLS has in hand, and the stream was not given yet.
    pub(super) sealing: u64,
    pub(super) lost: u64,
    pub(super) told_lost: u64,
    /// What is lost of what left the outbox is known.
    pub(super) reckoned: bool,
    pub(super) connecting: Connecting,
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
    /// [`SlowConsumer::Wait`].
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
    pub(super) fn offer(
        &self,
        mut buffer: Buffer,
        mut shared: Option<&mut Option<Arc<Charge>>>,
    ) -> Result<u64, SendError> {
        let refuse = |reason, buffer| Err(SendError { reason, buffer });
        let conn = &self.0;
        let service = conn.service.upgrade().filter(|service| service.is_home());
        let Some(service) = service else { return refuse(SendErrorReason::Closed, buffer) };
        let limit = service.options.outbox_bytes;
        let largest = limit.min(service.memory.limit());
        let mut cost = Outbox::cost(&buffer);
        if cost > largest && buffer.len() <= largest {
            // A few bytes in a large buffer, one that was received into, say: what is too large is the buffer.
            buffer = buffer.to_vec().into();
            cost = Outbox::cost(&buffer);
        }
        if cost > largest {
            return refuse(SendErrorReason::TooLarge, buffer);
        }
        let mut sending = conn.lock();
        conn.settle(&mut sending);
        let dropped_before = sending.outbox.dropped;
        // Each turn that does not end here has made room, or waited for it.
        loop {
            if !sending.accepts() {
                return refuse(sending.refusal(), buffer);
            }
            let here = conn.has_room(&sending, cost, limit);
            let counted = here
                && match shared.as_deref_mut().filter(|_| conn.limited) {
                    Some(Some(charge)) if charge.is_of(&service) => true,
                    Some(charge) => {
                        *charge = Charge::reserve(&service, cost);
                        charge.is_some()
                    }
                    None => service.memory.reserve(cost),
                };
            if counted {
                break;
            }
            // What could have gone out already is nobody's slowness.
            if sending.left {
                sending = conn.send_waiting(sending);
                continue;
            }
            if here {
                drop(sending);
                let left = gather::send_all();
                sending = conn.lock();
                if left {
                    continue;
                }
            }
            match service.options.slow_consumer {
                SlowConsumer::Disconnect => {
                    drop(sending);
                    if !here {
                        conn.end(Closed::SlowConsumer);
                        return refuse(SendErrorReason::SlowConsumer, buffer);
                    }
                    if !service.end_largest(Some((conn, cost))) {
                        return refuse(SendErrorReason::MemoryLimit, buffer);
                    }
                    sending = conn.lock();
                }
                SlowConsumer::DropOldest => {
                    if here {
                        drop(sending);
                        let dropped = service.drop_oldest(conn, cost);
                        sending = conn.lock();
                        if dropped {
                            continue;
                        }
                    } else {
                        let taken = conn.taken_of_flight(&sending);
                        sending.outbox.drop_oldest(cost, limit + taken);
                        conn.account(&mut sending);
                        if sending.outbox.has_room(cost, limit + taken) {
                            continue;
                        }
                    }
                    // All of it is on its way: the newest is the oldest that has not begun.
                    sending.outbox.dropped += 1;
                    return Ok(sending.outbox.dropped - dropped_before);
                }
                SlowConsumer::Wait => {
                    drop(sending);
                    let Some(_waiting) = service.may_wait() else {
                        if here {
                            if service.end_largest(Some((conn, cost))) {
                                sending = conn.lock();
                                continue;
                            }
                            return refuse(SendErrorReason::MemoryLimit, buffer);
                        }
                        conn.end(Closed::SlowConsumer);
                        return refuse(SendErrorReason::SlowConsumer, buffer);
                    };
                    sending = wharf::blocking(|| conn.wait_for_room(&service, cost, limit));
                }
            }
        }
        match shared.and_then(|charge| charge.clone()).filter(|_| conn.limited) {
            Some(charge) => sending.outbox.push_piece(Piece::Shared(buffer, charge)),
            None => {
                sending.accounted += cost;
                sending.outbox.push(buffer);
            }
        }
        conn.note_holds(&sending);
        let dropped = sending.outbox.dropped - dropped_before;
        if gather::is_on() && sending.may_leave(&service) {
            conn.leave(&service, sending);
        } else {
            conn.pump(sending);
        }
        Ok(dropped)
    }

    /// Takes a tape at the end of its outbox, if that has room for all that may come on it.
    pub(super) fn hear(&self, tape: &Arc<Tape>) -> bool {
        let conn = &self.0;
        let Some(service) = conn.service.upgrade().filter(|service| service.is_home()) else { return false };
        let limit = service.options.outbox_bytes;
        if tape.room() > gather::share(limit) {
            return false;
        }
        let mut sending = conn.lock();
        conn.settle(&mut sending);
        let may = sending.accepts() && sending.may_leave(&service) && sending.outbox.has_room(tape.room(), limit);
        // One that another service counts is none of this one's.
        let counted = !conn.limited || tape.charge().is_some_and(|charge| charge.is_of(&service));
        if !may || !counted {
            return false;
        }
        if tape.charge().is_none() {
            sending.accounted += tape.room();
        }
        sending.outbox.push_tape(tape);
        conn.note_holds(&sending);
        conn.leave(&service, sending);
        true
    }

    /// How much a tape for its outbox may hold.
    pub(super) fn tape_bytes(&self) -> Option<usize> {
        gather::tape_bytes(self.0.service.upgrade()?.options.outbox_bytes)
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
        // What was only gathered would have gone out.
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
            queued_bytes: sending.outbox.queued_bytes(),
            unhandled_bytes: sending.inbox.bytes(),
            messages_received: self.0.messages_received.load(Ordering::Relaxed),
            messages_sent: self.0.messages_sent.load(Ordering::Relaxed),
            sends: self.0.sends.load(Ordering::Relaxed),
            open_for: since(&self.0.opened_ms),
            silent_for: since(&self.0.received_ms).or_else(|| since(&self.0.opened_ms)),
            held: sending.inbox.held.is_some(),
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

impl Sending {
    fn accepts(&self) -> bool {
        let may = matches!(self.phase, Phase::Open | Phase::Handshake | Phase::Connecting);
        may && !self.finishing && self.reason.is_none() && !self.written_off
    }

    /// What goes out next. Until its handshake is done only TLS speaks.
    fn next(&mut self) -> Load {
        if self.phase == Phase::Handshake {
            return Load::default();
        }
        let load = self.outbox.take();
        self.launched += load.bytes();
        load
    }

    /// Whether what is sent may be left in the outbox for a moment.
    fn may_leave(&self, service: &Inner) -> bool {
        let share = gather::share(service.options.outbox_bytes);
        self.phase == Phase::Open && self.outbox.waiting_bytes() <= share && service.memory.has_plenty()
    }

    /// Whether the sending side is to be ended as soon as the outbox is empty.
    fn ends(&self) -> bool {
        match self.phase {
            Phase::Connecting | Phase::Handshake => false,
            Phase::Open => self.finishing && !self.shut,
            Phase::Closing => !self.shut,
            Phase::Over => true,
        }
    }

    /// Whether TLS has to be asked for what to send, to encrypt the messages that were taken, or because it has
    /// something to say; and whether it ends its side by it. Asked for each of them once.
    fn ask_tls(&mut self, messages: &[Buffer]) -> Option<bool> {
        let last = messages.is_empty() && self.ends() && !std::mem::replace(&mut self.sealed_off, true);
        let answers = std::mem::take(&mut self.answers);
        (!messages.is_empty() || answers || last).then_some(last)
    }

    /// Why a message is not accepted.
    fn refusal(&self) -> SendErrorReason {
        if self.written_off { SendErrorReason::MemoryLimit } else { SendErrorReason::Closed }
    }

    /// Nothing more goes out. What waited is returned, to be dropped outside the lock.
    pub(super) fn give_up(&mut self) -> VecDeque<Piece> {
        self.left = false;
        let unsent = self.outbox.clear();
        let bytes: u64 = unsent.iter().map(Piece::length).sum();
        self.lost += bytes;
        self.cut |= bytes > 0;
        unsent
    }
}

impl Conn {
    pub(super) fn new(
        id: u64,
        peer: Peer,
        service: &Arc<Inner>,
        coarse_us: Arc<AtomicU64>,
        tls: Option<Tls>,
        session: Box<dyn Session>,
    ) -> Arc<Conn> {
        Arc::new(Conn {
            id,
            is_local: peer.local().is_some(),
            peer: Lock::new(peer),
            service: Arc::downgrade(service),
            tls: tls.map(Box::new),
            flying_messages: AtomicU64::new(0),
            handler: Lock::new(Some(session)),
            sending: Lock::new(Sending {
                phase: Phase::Connecting,
                stream: None,
                outbox: Outbox::default(),
                inbox: Inbox::new(service.options.rate),
                accounted: 0,
                written_off: false,
                starved: 0,
                listed: false,
                busy: false,
                left: false,
                answers: false,
                sealed_off: false,
                finishing: false,
                shut: false,
                reason: None,
                cut: false,
                groups: Vec::new(),
                limit: None,
                ends_by: None,
                patient: false,
                hear_until: None,
                swept: false,
                look: Look::default(),
                launched: 0,
                sealing: 0,
                lost: 0,
                told_lost: 0,
                reckoned: false,
                connecting: Connecting::default(),
            }),
            room: Condition::new(),
            waiting: AtomicU32::new(0),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            given: AtomicU64::new(0),
            given_data: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            arrived_then: AtomicU64::new(0),
            messages_received: AtomicU64::new(0),
            messages_sent: AtomicU64::new(0),
            sends: AtomicU64::new(0),
            framed: AtomicBool::new(false),
            holds: AtomicUsize::new(0),
            limited: service.memory.is_limited(),
            opened_ms: AtomicU64::new(0),
            received_ms: AtomicU64::new(0),
            coarse_us,
            heard_us: AtomicU64::new(NEVER),
            opened_us: AtomicU64::new(NEVER),
            ready: AtomicBool::new(false),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer.lock().clone()
    }

    pub(super) fn set_peer(&self, peer: Peer) {
        *self.peer.lock() = peer;
    }

    pub(super) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(super) fn stream(&self) -> Option<Stream> {
        self.lock().stream.clone()
    }

    pub(super) fn lock(&self) -> Guard<'_, Sending> {
        self.sending.lock()
    }

    /// Whether nobody holds its lock at this moment.
    #[cfg(all(test, unix))]
    pub(super) fn is_unlocked(&self) -> bool {
        self.sending.try_lock().is_some()
    }

    /// Whether it is known what is lost, or just being found out.
    #[cfg(all(test, unix))]
    pub(super) fn is_reckoned(&self) -> bool {
        self.sending.try_lock().is_none_or(|sending| sending.reckoned)
    }

    /// Whether it was ended for its memory.
    #[cfg(all(test, unix))]
    pub(super) fn is_written_off(&self) -> bool {
        self.lock().written_off
    }

    /// Whether it is decided that it ends, and why.
    #[cfg(all(test, unix))]
    pub(super) fn is_to_end(&self) -> bool {
        let sending = self.lock();
        sending.reason.is_some() || matches!(sending.phase, Phase::Closing | Phase::Over)
    }

    /// Nothing more is said on a tape at the end of the outbox.
    pub(super) fn settle(&self, sending: &mut Sending) {
        if sending.outbox.settle() {
            self.account(sending);
        }
    }

    /// Leaves what was put into the outbox there, for the thread's parcel, unless somebody sends or has it in one.
    fn leave(self: &Arc<Self>, service: &Inner, mut sending: Guard<'_, Sending>) {
        let is_new = !sending.busy && !std::mem::replace(&mut sending.left, true);
        drop(sending);
        if is_new {
            gather::leave(service, self);
        }
    }

    /// Sends what was left, if nobody has.
    pub(super) fn send_left(self: &Arc<Self>) {
        let sending = self.lock();
        if sending.left {
            self.pump(sending);
        }
    }

    /// Something changed, under the lock, that a waiting sender may wait for. It counted itself under the same lock.
    pub(super) fn made_room(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.room.notify_all();
        }
    }

    /// Whether a message fits. What the system has taken of a long send does not count: its peer reads, though the send
    /// is not complete.
    fn has_room(&self, sending: &Sending, cost: usize, limit: usize) -> bool {
        sending.outbox.has_room(cost, limit) || sending.outbox.has_room(cost, limit + self.taken_of_flight(sending))
    }

    /// Bytes that the system has taken of the send under way.
    fn taken_of_flight(&self, sending: &Sending) -> usize {
        match &sending.stream {
            Some(stream) if sending.busy && sending.sealing == 0 => {
                let given = self.given.load(Ordering::Relaxed);
                sending.outbox.taken_bytes(given.saturating_sub(stream.bytes_taken()))
            }
            _ => 0,
        }
    }

    /// Waits until a message may fit, or the session ends: the caller looks which. Not under any lock.
    fn wait_for_room(self: &Arc<Self>, service: &Arc<Inner>, cost: usize, limit: usize) -> Guard<'_, Sending> {
        let mut sending = self.lock();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        while sending.accepts() {
            self.settle(&mut sending);
            let for_memory = self.has_room(&sending, cost, limit);
            if for_memory {
                // In the list first, then the look: see `memory.rs`. One that is told for nothing enters the list
                // again. One that is in the list, or has just been taken out of it, is told when it waits.
                let memory = &service.memory;
                if memory.fits(cost) {
                    break;
                }
                let enters = !std::mem::replace(&mut sending.listed, true);
                if enters && memory.enlist_sender(self, cost) {
                    break;
                }
                service.look_at_memory();
            }
            sending.starved += u32::from(for_memory);
            sending = self.room.wait(sending);
            sending.starved -= u32::from(for_memory);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        sending
    }

    /// Memory was freed, and its senders look whether it is enough.
    pub(super) fn have_senders_look(&self) {
        // The lock was held: a sender entered the list under it, so by now it waits on the condition.
        self.lock().listed = false;
        self.made_room();
    }

    /// Whether a sender waits for memory. One that does not is not in the list any more.
    pub(super) fn has_starved_senders(&self) -> bool {
        let mut sending = self.lock();
        sending.listed &= sending.starved > 0;
        sending.listed
    }

    /// Drops the oldest messages that have not begun to go out, for so many bytes; returns how many were dropped.
    pub(super) fn drop_oldest(&self, bytes: usize) -> usize {
        let mut sending = self.lock();
        let (pieces, dropped) = sending.outbox.drop_bytes(bytes);
        self.account(&mut sending);
        drop(sending);
        drop(pieces);
        dropped
    }

    /// The stream exists, connected or not. What was sent while connecting waits in the outbox.
    pub(super) fn attach(&self, stream: Stream) {
        let mut sending = self.lock();
        match sending.phase {
            Phase::Connecting | Phase::Handshake | Phase::Open => sending.stream = Some(stream),
            // Ended before it had a stream: the connect, or the first receive, notices. Its peer does not get what was
            // accepted for it.
            Phase::Closing => {
                let hard = sending.lost > 0 || sending.outbox.waiting_bytes() > 0;
                sending.stream = Some(stream.clone());
                drop(sending);
                ending::close(&stream, hard);
            }
            // All is done already, in another thread.
            Phase::Over if sending.lost > 0 => {
                drop(sending);
                stream.reset();
            }
            Phase::Over => {}
        }
    }

    // --- The receiving side: runs on one worker at a time ---

    /// The connection is made.
    pub(super) fn opened(self: &Arc<Self>, stream: &Stream) {
        stream.skip_on_success();
        if self.lock().phase == Phase::Closing {
            // Ended before anybody heard of it: the receive notices.
            self.receive(stream);
        } else if self.tls.is_some() {
            self.shake_hands();
            self.receive(stream);
        } else if self.greet() {
            self.receive(stream);
        }
    }

    /// The session can begin. False when it is over.
    fn greet(self: &Arc<Self>) -> bool {
        {
            let mut sending = self.lock();
            if matches!(sending.phase, Phase::Connecting | Phase::Handshake) {
                sending.phase = if sending.reason.is_some() { Phase::Closing } else { Phase::Open };
                // What was to be done before had its own limit.
                sending.limit = sending.ends_by;
            }
        }
        self.opened_us.store(self.coarse_us.load(Ordering::Relaxed), Ordering::Relaxed);
        self.opened_ms.store(tick_ms(), Ordering::Relaxed);
        if !self.call(|session, link| session.opened(link)) {
            self.over(Closed::Panicked);
            return false;
        }
        self.heard();
        // What `send` accepted before the connection was made.
        self.pump(self.lock());
        true
    }

    /// The TLS handshake begins, and its time.
    fn shake_hands(self: &Arc<Self>) {
        let Some(service) = self.service.upgrade() else { return };
        let mut sending = self.lock();
        if sending.phase != Phase::Connecting {
            // Closed meanwhile: the receive notices.
            return;
        }
        sending.phase = Phase::Handshake;
        let limit = after(service.options.tls_handshake_timeout());
        // Closed gracefully, with something to send: then there is a limit already, which may be shorter.
        let earlier = sending.limit.filter(|_| sending.reason.is_some());
        sending.limit = Some(earlier.map_or(limit, |earlier| earlier.min(limit)));
        // A client's first words.
        sending.answers = true;
        self.pump(sending);
        service.sweep_later(self);
    }

    /// Issues the next receive, and goes through those that are done at once.
    pub(super) fn receive(self: &Arc<Self>, stream: &Stream) {
        let Some(service) = self.service.upgrade() else { return };
        for _ in 0..RECEIVES_PER_TURN {
            match self.turn(&service) {
                Turn::Held => return,
                Turn::Handle(buffer) => {
                    gather::received(false);
                    if !self.handle(|session, link| session.received(link, buffer)) {
                        return;
                    }
                    continue;
                }
                Turn::GoOn => {
                    gather::received(false);
                    if !self.handle(|session, link| session.resumed(link)) {
                        return;
                    }
                    continue;
                }
                Turn::End(end) => {
                    if !self.ended_in_tls(end) {
                        return;
                    }
                    continue;
                }
                Turn::Receive => {}
            }
            match stream.recv_pooled(Op::Receive) {
                Ok(Outcome::Pending(_)) => return,
                Ok(Outcome::Done(packet)) => {
                    let Event::Received { buffer, result, .. } = packet.event else {
                        unreachable!("a receive's packet says what was received")
                    };
                    if !self.arrived(buffer, result) {
                        return;
                    }
                }
                Err(refused) => return self.over(Closed::Failed(refused.error)),
            }
        }
        // Others first.
        self.receive_later();
    }

    /// A receive that was outstanding has completed.
    pub(super) fn received(self: &Arc<Self>, stream: &Stream, buffer: Buffer, result: io::Result<usize>) {
        if self.arrived(buffer, result) {
            self.receive(stream);
        }
    }

    /// Hands on what was received. False when the session is over.
    fn arrived(self: &Arc<Self>, buffer: Buffer, result: io::Result<usize>) -> bool {
        match result {
            Ok(0) => {
                self.over(self.tls.as_ref().map_or(Closed::ByPeer, |tls| tls.ended()));
                false
            }
            Ok(bytes) => {
                gather::received(bytes == buffer.capacity());
                count(&self.bytes_received, bytes as u64);
                if let Some(service) = self.service.upgrade() {
                    service.totals.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                self.received_ms.store(tick_ms(), Ordering::Relaxed);
                if let Some(tls) = &self.tls {
                    return self.unseal(tls, buffer);
                }
                // Closing: what still comes is read so that the peer gets our end, and no reset. Or it is kept for
                // later.
                let Some(buffer) = self.take_in(buffer) else { return true };
                self.handle(|session, link| session.received(link, buffer))
            }
            Err(error) => {
                self.over(Closed::Failed(error));
                false
            }
        }
    }

    /// Has the session handle something. False when it panicked, and is over.
    fn handle(self: &Arc<Self>, run: impl FnOnce(&mut dyn Session, &Link)) -> bool {
        self.heard_us.store(NEVER, Ordering::Relaxed);
        if self.call(run) {
            self.heard();
            return true;
        }
        self.over(Closed::Panicked);
        false
    }

    /// Bytes of TLS have come. False when the session is over.
    fn unseal(self: &Arc<Self>, tls: &Tls, received: Buffer) -> bool {
        if !matches!(self.lock().phase, Phase::Handshake | Phase::Open) {
            return true;
        }
        let mut came = Unsealed::default();
        // A configuration of the program's own has code of the program.
        if !self.guarded(|| came = tls.unseal(&received)) {
            self.over(Closed::Panicked);
            return false;
        }
        // Its buffer is the pool's, and handlers may take their time.
        drop(received);
        {
            let mut sending = self.lock();
            if sending.shut {
                // This side has ended, and says nothing more, not even why it fails.
                sending.inbox.end = came.end.take();
            } else if came.answers {
                sending.answers = true;
                self.pump(sending);
            }
        }
        if came.established && !self.greet() {
            return false;
        }
        if let Some(end) = came.end {
            let mut sending = self.lock();
            if sending.phase == Phase::Handshake {
                drop(sending);
                return self.ended_in_tls(end);
            }
            // Its turn comes when all before it was handled, which a pause, say, can put off.
            sending.inbox.end = Some(end);
        }
        if came.plain.is_empty() {
            // A record may take longer than an idle peer may be silent.
            self.taken();
            return true;
        }
        match self.take_in(came.plain.into()) {
            Some(buffer) => self.handle(|session, link| session.received(link, buffer)),
            None => true,
        }
    }

    /// What came in TLS ends here. False when the session is over.
    fn ended_in_tls(self: &Arc<Self>, end: Closed) -> bool {
        if end.is_peers_end() {
            self.over(end);
            return false;
        }
        // TLS failed: what it has to say of that goes out, and nothing else.
        log::info!("session {} with {}: {end}", self.id, self.peer());
        let unsent = {
            let mut sending = self.lock();
            if sending.phase == Phase::Over {
                return false;
            }
            sending.reason.get_or_insert(end);
            sending.phase = Phase::Closing;
            let unsent = sending.give_up();
            self.account(&mut sending);
            unsent
        };
        drop(unsent);
        self.made_room();
        self.pump(self.lock());
        self.linger();
        // What still comes is discarded, as in any graceful end.
        true
    }

    /// The peer is heard from, now.
    fn heard(&self) {
        self.heard_us.store(self.coarse_us.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The peer has taken what it was sent. While a handler runs no time counts, and none begins to.
    pub(super) fn taken(&self) {
        let now = self.coarse_us.load(Ordering::Relaxed);
        let stamp = |at| (at != NEVER).then_some(now);
        let _ = self.heard_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, stamp);
    }

    /// The time-out that has passed, if one has. A session that has sent something, of which nothing more was heard for
    /// `look_us`, is looked at closer: its peer may be reading what the system has taken long ago.
    pub(super) fn timed_out(
        &self,
        now_us: u64,
        idle_us: Option<u64>,
        handshake_us: Option<u64>,
        look_us: u64,
    ) -> Option<Closed> {
        let passed = |stamp: &AtomicU64, limit: Option<u64>| {
            limit.is_some_and(|limit| now_us.saturating_sub(stamp.load(Ordering::Relaxed)) >= limit)
        };
        let late = passed(&self.opened_us, handshake_us) && !self.ready.load(Ordering::Relaxed);
        let idle = passed(&self.heard_us, idle_us);
        let slow = idle_us.is_some() && self.is_unsettled() && passed(&self.heard_us, Some(look_us));
        if !late && !idle && !slow {
            return None;
        }
        let mut sending = self.lock();
        if sending.phase != Phase::Open {
            return None;
        }
        if late {
            return Some(Closed::HandshakeTimeout);
        }
        if sending.inbox.asked || sending.inbox.held.is_some_and(Hold::is_ours) {
            // We do not listen: that it is silent is not its doing.
            return None;
        }
        if let (true, Some(stream)) = (slow, sending.stream.clone()) {
            if self.takes(&mut sending, &stream) {
                self.taken();
            }
        }
        // It may have taken something since the look above.
        passed(&self.heard_us, idle_us).then_some(Closed::IdleTimeout)
    }

    /// Calls the session. False when it panicked; it is then gone.
    fn call(self: &Arc<Self>, f: impl FnOnce(&mut dyn Session, &Link)) -> bool {
        // Never contended: one handler at a time is how this layer is built. The lock is the proof for the compiler,
        // and tells `tell_closed` whether a handler runs.
        let well = match self.handler.lock().as_mut() {
            Some(session) => {
                let _handling = Handling::of(self.id);
                self.guarded(|| f(session.as_mut(), &Link(self.clone())))
            }
            None => true,
        };
        if !well {
            gather::set(false);
            gather::send();
            let broken = self.handler.lock().take();
            self.guarded(|| drop(broken));
        } else if self.lock().phase == Phase::Over {
            self.tell_closed();
        }
        well
    }

    /// Runs the program's code, its destructors too. False when it panicked.
    fn guarded(&self, run: impl FnOnce()) -> bool {
        let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return true };
        let words = payload::words(panic);
        log::error!("a handler of session {} panicked: {words}", self.id);
        if let Some(service) = self.service.upgrade() {
            service.totals.panics.fetch_add(1, Ordering::Relaxed);
        }
        false
    }

    /// Calls `closed` and drops the session, unless a handler runs: then the thread that runs it comes here when it is
    /// done. The phase is set before the lock is tried, and looked at after it was released, so that one of the two
    /// does it; the session is taken out under the lock, so that only one does.
    pub(super) fn tell_closed(self: &Arc<Self>) {
        let Some(mut handler) = self.handler.try_lock() else { return };
        let taken = handler.take();
        drop(handler);
        let Some(mut session) = taken else { return };
        let reason = self.lock().reason.take().unwrap_or(Closed::ByUs);
        self.guarded(|| session.closed(&Link(self.clone()), &reason));
        self.guarded(|| drop(session));
    }

    // --- The sending side: any thread ---

    /// Sends what waits, unless somebody does already; then lets receiving go on, if that waited for room.
    pub(super) fn pump<'a>(self: &'a Arc<Self>, sending: Guard<'a, Sending>) {
        let mut sending = self.send_waiting(sending);
        let limit = self.service.upgrade().map_or(0, |service| service.options.outbox_bytes);
        let has_room = sending.outbox.queued_bytes() <= limit / 4;
        let go_on = has_room && sending.take_hold(|hold| hold == Hold::Outbox);
        drop(sending);
        if go_on {
            self.receive_later();
        }
    }

    fn send_waiting<'a>(self: &'a Arc<Self>, mut sending: Guard<'a, Sending>) -> Guard<'a, Sending> {
        if sending.busy || sending.reckoned || sending.phase == Phase::Connecting {
            return sending;
        }
        sending.left = false;
        let Some(stream) = sending.stream.clone() else { return sending };
        sending.busy = true;
        loop {
            if sending.reckoned {
                // The stream is being closed, and what waits is lost: neither more of it nor an end goes out ahead of
                // that.
                sending.busy = false;
                return sending;
            }
            let Load { buffers: mut messages, messages: number } = sending.next();
            let seal = self.tls.as_ref().and_then(|tls| Some((tls, sending.ask_tls(&messages)?)));
            if messages.is_empty() && seal.is_none() {
                sending.busy = false;
                match sending.phase {
                    Phase::Open | Phase::Closing if sending.ends() => {
                        sending.shut = true;
                        drop(sending);
                        // A failure means that the connection is gone, which the receive notices.
                        let _ = stream.shutdown(std::net::Shutdown::Write);
                        sending = self.lock();
                        if sending.phase == Phase::Closing && self.owes(&stream) == 0 {
                            sending.hear_until = Some(time::now() + HEAR_OUT);
                        }
                    }
                    Phase::Over => return self.finish_over(sending, &stream),
                    _ => {}
                }
                return sending;
            }
            // What is taken out of the outbox is accounted for under the same lock: however soon the session is ended
            // by another thread, that one knows what has not gone out.
            match seal {
                Some(_) => sending.sealing = length(&messages),
                None => self.give(&messages, number > 0),
            }
            drop(sending);
            self.flying_messages.store(number, Ordering::Relaxed);
            if let Some((tls, last)) = seal {
                let sealed = tls.seal(messages, last);
                let mut sending = self.lock();
                let bytes = std::mem::take(&mut sending.sealing);
                match sealed {
                    Ok(_) if sending.reckoned => {
                        sending.busy = false;
                        sending.outbox.landed();
                        self.account(&mut sending);
                        self.made_room();
                        return sending;
                    }
                    Ok(sealed) => {
                        self.give(&sealed, number > 0);
                        messages = sealed;
                    }
                    Err(error) => {
                        if !sending.reckoned {
                            sending.launched -= bytes;
                            sending.lost += bytes;
                        }
                        drop(sending);
                        return self.send_failed(error);
                    }
                }
            }
            let outcome = match messages.len() {
                // TLS had nothing to say after all.
                0 => None,
                1 => {
                    let message = messages.pop().expect("one message");
                    Some(stream.send(message, Op::Send).map_err(io::Error::from))
                }
                _ => Some(stream.send_vectored(messages, Op::Send).map_err(io::Error::from)),
            };
            match outcome {
                Some(Ok(Outcome::Pending(_))) => return self.lock(),
                Some(Ok(Outcome::Done(packet))) => self.count_sent(&packet.event),
                Some(Err(error)) => return self.send_failed(error),
                None => {}
            }
            sending = self.lock();
            sending.outbox.landed();
            self.account(&mut sending);
            self.made_room();
        }
    }

    /// Counts what the stream is given next. Under the session's lock.
    fn give(&self, buffers: &[Buffer], has_messages: bool) {
        count(&self.given, length(buffers));
        if has_messages {
            self.given_data.store(self.given.load(Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    fn count_sent(&self, event: &Event<Node, Op>) {
        let (Event::Sent { result, stream, .. } | Event::SentVectored { result, stream, .. }) = event else { return };
        let messages = self.flying_messages.load(Ordering::Relaxed) * u64::from(result.is_ok());
        self.taken();
        count(&self.messages_sent, messages);
        count(&self.sends, u64::from(result.is_ok()));
        self.count_taken(stream);
    }

    /// Counts what the system has taken for sending since it was last counted, by whomever.
    pub(super) fn count_taken(&self, stream: &Stream) {
        let taken = stream.bytes_taken();
        let before = self.bytes_sent.fetch_max(taken, Ordering::Relaxed);
        if taken > before {
            if let Some(service) = self.service.upgrade() {
                service.totals.bytes_sent.fetch_add(taken - before, Ordering::Relaxed);
            }
        }
    }

    /// A send that was outstanding has completed.
    pub(super) fn sent(self: &Arc<Self>, event: Event<Node, Op>) {
        self.count_sent(&event);
        let sending = match event {
            Event::Sent { result: Err(error), .. } | Event::SentVectored { result: Err(error), .. } => {
                self.send_failed(error)
            }
            _ => {
                let mut sending = self.lock();
                sending.busy = false;
                sending.outbox.landed();
                self.account(&mut sending);
                self.made_room();
                sending
            }
        };
        self.pump(sending);
    }

    /// Nothing more goes out. If the connection is broken the receive notices, after what came before.
    fn send_failed(self: &Arc<Self>, error: io::Error) -> Guard<'_, Sending> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
        let broken = matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut);
        let (unsent, stream) = {
            let mut sending = self.lock();
            let unsent = sending.give_up();
            sending.busy = false;
            sending.outbox.landed();
            self.account(&mut sending);
            sending.reason.get_or_insert(Closed::Failed(error));
            let stream = match sending.phase {
                _ if broken && sending.phase != Phase::Over => None,
                phase => {
                    if let Some(stream) = sending.stream.clone() {
                        self.reckon(&mut sending, &stream, true);
                    }
                    if phase == Phase::Over { sending.stream.take() } else { sending.stream.clone() }
                }
            };
            sending.shut = true;
            (unsent, stream)
        };
        drop(unsent);
        self.made_room();
        if let Some(stream) = stream {
            stream.reset();
        }
        self.tell_of_loss();
        self.lock()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        // Over, with something on its way that never came back: the service had ended.
        let sending = self.sending.get_mut();
        if sending.accounted == 0 || !self.limited {
            return;
        }
        if let Some(service) = self.service.upgrade() {
            if service.memory.free(sending.accounted) {
                service.tell_of_memory();
            }
        }
    }
}

fn length(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| buffer.len() as u64).sum()
}

/// Counts in a figure that one thread at a time writes, the one that receives or the one that sends: without an atomic
/// addition, which costs as much as a lock.
pub(super) fn count(figure: &AtomicU64, more: u64) {
    figure.store(figure.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// The system's coarse clock: its reading costs next to nothing, and it moves 100 to 1000 times a second. Never 0.
fn tick_ms() -> u64 {
    time::coarse_ms().max(1)
}
