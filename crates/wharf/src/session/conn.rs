//! One session's life, and the link by which others reach it.
//!
//! ```text
//! connecting ─→ open ─→ closing ─→ over
//!      └ handshake ┘ └────────────────↗
//! ```
//!
//! A receive is outstanding from `open` to `over`, or a handler runs that will issue the next one: so there is always
//! exactly one place where the end is noticed, and that place calls `closed`. Whoever wants a session to end closes
//! its device; the receive then completes as cancelled, or the next one is refused. A send that finds the connection
//! broken closes nothing: what the peer said before can still be received, and then the receive fails too.
//!
//! Only the end of the whole service comes from elsewhere, when no packet will come any more. If a handler runs then,
//! the thread that runs it calls `closed` after it has returned: see `tell_closed`.
//!
//! *Closing* (by `Link::close`, by shutdown) is graceful: the outbox goes out, within a time limit; the sending side is
//! shut; what still arrives is discarded until the peer closes too, or half a second has passed. A session that is not
//! connected yet and has something to send is closed when it is connected.
//!
//! A session with TLS goes through `handshake`: receives are outstanding and TLS sends its own; messages wait in the
//! outbox, as while connecting, and the handler hears of nothing. A TLS failure closes gracefully too, so that the peer
//! hears why, but nothing of the outbox goes out. Both directions go through `Tls`, whose lock is never held together
//! with `sending`: see `tls/mod.rs`.
//!
//! The session holds its stream and the stream's key holds the session; `over` takes the stream out, which ends the
//! circle.
//!
//! Longer than most files: both sides share one state under one lock, and how they end each other has to be read together.

use super::Session;
use super::Tls;
use super::framing::FrameError;
use super::group::Membership;
use super::outbox::{Outbox, SendError, SendErrorReason, SlowConsumer};
use super::service::{Inner, Node, Op, Stream};
#[cfg(feature = "tls")]
use super::tls::{TlsError, TlsErrorKind, TlsInfo};
use crate::associate::Outcome;
use crate::buffer::Buffer;
use crate::packet::Event;
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::{Duration, Instant};

/// Receives that one handler call may go through before other sessions come first.
const RECEIVES_PER_TURN: usize = 8;

/// After all has gone out, how long the peer may take to close its side too. Closing without waiting at all would
/// reset the connection if the peer has just sent something, and it might lose what it was sent.
const HEAR_OUT: Duration = Duration::from_millis(500);

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
    /// The peer broke the framing, or ended the stream inside a frame. Only for a [`Framed`](super::Framed) session.
    Framing(FrameError),
    /// Nothing was received, and no send completed, for as long as
    /// [`Builder::idle_timeout`](super::Builder::idle_timeout) says.
    IdleTimeout,
    /// [`Link::ready`] was not called within [`Builder::handshake_timeout`](super::Builder::handshake_timeout), or the
    /// TLS handshake was not done.
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
    fn is_peers_end(&self) -> bool {
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

/// A session's figures. Over TLS bytes are those on the wire, encrypted, handshake included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkStats {
    /// Bytes received.
    pub bytes_received: u64,
    /// Bytes that the system took for sending.
    pub bytes_sent: u64,
    /// Messages dropped by [`SlowConsumer::DropOldest`].
    pub dropped: u64,
    /// Bytes of memory that wait to be sent.
    pub queued_bytes: usize,
}

/// How anybody reaches a session, from any thread. Clones name the same session; a link does not keep it open.
#[derive(Clone)]
pub struct Link(pub(super) Arc<Conn>);

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Link({} to {})", self.0.id, self.0.peer)
    }
}

pub(super) struct Conn {
    id: u64,
    peer: SocketAddr,
    service: Weak<Inner>,
    tls: Option<Tls>,
    handler: Mutex<Option<Box<dyn Session>>>,
    sending: Mutex<Sending>,
    room: Condvar,
    /// Senders that wait for room: notifying costs a system call even when nobody listens.
    waiting: AtomicU32,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
    /// The service's coarse clock, which `heard_us` and `opened_us` go by.
    coarse_us: Arc<AtomicU64>,
    /// When something was received, or a send completed; `NEVER` while a handler runs, whose time is not the peer's, and before the session
    /// is open.
    heard_us: AtomicU64,
    /// When it was opened; `NEVER` before.
    opened_us: AtomicU64,
    ready: AtomicBool,
}

/// No time-out counts from here.
const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Connecting,
    Handshake,
    Open,
    Closing,
    Over,
}

struct Sending {
    phase: Phase,
    stream: Option<Stream>,
    outbox: Outbox,
    /// Somebody sends, or a send is outstanding.
    busy: bool,
    /// TLS has something to say of its own.
    answers: bool,
    /// The end of TLS has been sent.
    sealed_off: bool,
    /// The sending side is to be shut when the outbox has gone out; and it was.
    finishing: bool,
    shut: bool,
    /// Nothing is received for now: the outbox is half full, and whoever sends so much has to read first.
    paused: bool,
    /// Why it ends, once that is decided.
    reason: Option<Closed>,
    /// Something that was accepted for sending has not gone out, and will not.
    cut: bool,
    groups: Vec<Membership>,
    /// When a graceful close turns into an abrupt one, and a handshake into a failure.
    linger_until: Option<Instant>,
}

impl Link {
    /// The session's number: unique in its service, and never used again.
    pub fn id(&self) -> u64 {
        self.0.id
    }

    /// The other end.
    pub fn peer(&self) -> SocketAddr {
        self.0.peer
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
        self.0.tls.as_ref().and_then(Tls::info).cloned()
    }

    /// Sends a message: it goes out after what was accepted before, in one piece.
    ///
    /// Returns as soon as the message is accepted, which is at once, unless the outbox is full and the policy is
    /// [`SlowConsumer::Wait`].
    ///
    /// # Errors
    ///
    /// The message comes back when the session is closed, when it is larger than the outbox may be, and when the
    /// outbox is full and the policy is to end the session.
    pub fn send(&self, message: impl Into<Buffer>) -> Result<(), SendError> {
        let mut buffer = message.into();
        let refuse = |reason, buffer| Err(SendError { reason, buffer });
        let conn = &self.0;
        let Some(service) = conn.service.upgrade() else { return refuse(SendErrorReason::Closed, buffer) };
        let limit = service.options.outbox_bytes;
        let mut cost = Outbox::cost(&buffer);
        if cost > limit && buffer.len() <= limit {
            // A few bytes in a large buffer, one that was received into, say: what is too large is the buffer.
            buffer = buffer.to_vec().into();
            cost = Outbox::cost(&buffer);
        }
        let mut sending = conn.lock();
        if cost > limit {
            return refuse(SendErrorReason::TooLarge, buffer);
        }
        if !sending.accepts() {
            return refuse(SendErrorReason::Closed, buffer);
        }
        if !sending.outbox.has_room(cost, limit) {
            match service.options.slow_consumer {
                SlowConsumer::Disconnect => {
                    drop(sending);
                    conn.end(Closed::SlowConsumer);
                    return refuse(SendErrorReason::SlowConsumer, buffer);
                }
                SlowConsumer::DropOldest => {
                    sending.outbox.drop_oldest(cost, limit);
                    if !sending.outbox.has_room(cost, limit) {
                        // All of it is on its way: the newest is the oldest that has not begun.
                        sending.outbox.dropped += 1;
                        return Ok(());
                    }
                }
                SlowConsumer::Wait => {
                    drop(sending);
                    let Some(_waiting) = service.may_wait() else {
                        conn.end(Closed::SlowConsumer);
                        return refuse(SendErrorReason::SlowConsumer, buffer);
                    };
                    sending = crate::blocking(|| {
                        let full = |sending: &mut Sending| sending.accepts() && !sending.outbox.has_room(cost, limit);
                        let sending = conn.lock();
                        conn.waiting.fetch_add(1, Ordering::Relaxed);
                        let sending = conn.room.wait_while(sending, full).unwrap_or_else(PoisonError::into_inner);
                        conn.waiting.fetch_sub(1, Ordering::Relaxed);
                        sending
                    });
                    if !sending.accepts() {
                        return refuse(SendErrorReason::Closed, buffer);
                    }
                }
            }
        }
        sending.outbox.push(buffer);
        conn.pump(sending);
        Ok(())
    }

    /// Says that nothing more will be sent: what was accepted goes out, then the peer sees the end of the stream.
    /// Receiving goes on until the peer ends its side too.
    pub fn finish(&self) {
        let mut sending = self.0.lock();
        if !sending.finishing {
            sending.finishing = true;
            self.0.pump(sending);
        }
        self.0.made_room();
    }

    /// Ends the session gracefully: what was accepted for sending goes out first. Does not wait for it.
    pub fn close(&self) {
        self.0.close(Closed::ByUs);
    }

    /// Ends the session at once; what has not gone out is lost.
    pub fn abort(&self) {
        self.0.end(Closed::ByUs);
    }

    /// Says that the session has come so far that
    /// [`Builder::handshake_timeout`](super::Builder::handshake_timeout) does not end it any more.
    pub fn ready(&self) {
        self.0.ready.store(true, Ordering::Relaxed);
    }

    /// Whether messages are accepted.
    pub fn is_open(&self) -> bool {
        self.0.lock().accepts()
    }

    /// The session's figures.
    pub fn stats(&self) -> LinkStats {
        let sending = self.0.lock();
        LinkStats {
            bytes_received: self.0.bytes_received.load(Ordering::Relaxed),
            bytes_sent: self.0.bytes_sent.load(Ordering::Relaxed),
            dropped: sending.outbox.dropped,
            queued_bytes: sending.outbox.queued_bytes(),
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
        may && !self.finishing && self.reason.is_none()
    }

    /// What goes out next. Until its handshake is done only TLS speaks.
    fn next(&mut self) -> Vec<Buffer> {
        if self.phase == Phase::Handshake { Vec::new() } else { self.outbox.take() }
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

    /// Whether TLS has to be asked for what to send, to encrypt the messages that were taken, or because it has something
    /// to say; and whether it ends its side by it. Asked for each of them once.
    fn ask_tls(&mut self, messages: &[Buffer]) -> Option<bool> {
        let last = messages.is_empty() && self.ends() && !std::mem::replace(&mut self.sealed_off, true);
        let answers = std::mem::take(&mut self.answers);
        (!messages.is_empty() || answers || last).then_some(last)
    }

    /// Nothing more goes out. What waited is returned, to be dropped outside the lock.
    fn give_up(&mut self) -> VecDeque<Buffer> {
        self.cut |= self.outbox.queued_bytes() > 0;
        self.outbox.clear()
    }
}

impl Conn {
    pub(super) fn new(
        id: u64,
        peer: SocketAddr,
        service: Weak<Inner>,
        coarse_us: Arc<AtomicU64>,
        tls: Option<Tls>,
        session: Box<dyn Session>,
    ) -> Arc<Conn> {
        Arc::new(Conn {
            id,
            peer,
            service,
            tls,
            handler: Mutex::new(Some(session)),
            sending: Mutex::new(Sending {
                phase: Phase::Connecting,
                stream: None,
                outbox: Outbox::default(),
                busy: false,
                answers: false,
                sealed_off: false,
                finishing: false,
                shut: false,
                paused: false,
                reason: None,
                cut: false,
                groups: Vec::new(),
                linger_until: None,
            }),
            room: Condvar::new(),
            waiting: AtomicU32::new(0),
            bytes_received: AtomicU64::new(0),
            bytes_sent: AtomicU64::new(0),
            coarse_us,
            heard_us: AtomicU64::new(NEVER),
            opened_us: AtomicU64::new(NEVER),
            ready: AtomicBool::new(false),
        })
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    fn lock(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something changed, under the lock, that a waiting sender may wait for. It counted itself under the same lock.
    fn made_room(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.room.notify_all();
        }
    }

    /// The stream exists, connected or not. What was sent while connecting waits in the outbox.
    pub(super) fn attach(&self, stream: Stream) {
        let mut sending = self.lock();
        match sending.phase {
            Phase::Connecting | Phase::Handshake | Phase::Open => sending.stream = Some(stream),
            // Ended before it had a stream: the connect, or the first receive, notices.
            Phase::Closing => {
                sending.stream = Some(stream.clone());
                drop(sending);
                stream.close();
            }
            // All is done already, in another thread.
            Phase::Over => {}
        }
    }

    // --- The receiving side: runs on one worker at a time ---

    /// The connection is made.
    pub(super) fn opened(self: &Arc<Self>, stream: &Stream) {
        stream.skip_on_success();
        if self.tls.is_some() {
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
                if sending.phase == Phase::Open {
                    sending.linger_until = None;
                }
            }
        }
        self.opened_us.store(self.coarse_us.load(Ordering::Relaxed), Ordering::Relaxed);
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
        // Closed gracefully, with something to send: then there is a limit already.
        sending.linger_until.get_or_insert(Instant::now() + service.options.tls_handshake_timeout());
        // A client's first words.
        sending.answers = true;
        self.pump(sending);
        service.sweep_later(self);
    }

    /// Issues the next receive, and goes through those that are done at once.
    pub(super) fn receive(self: &Arc<Self>, stream: &Stream) {
        let Some(service) = self.service.upgrade() else { return };
        for _ in 0..RECEIVES_PER_TURN {
            {
                let mut sending = self.lock();
                if sending.phase == Phase::Open && sending.outbox.queued_bytes() > service.options.outbox_bytes / 2 {
                    sending.paused = true;
                    return;
                }
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
        // Others first. A closed port takes no post; the session then ends with it.
        self.resume();
    }

    /// Receiving goes on, on a worker.
    fn resume(self: &Arc<Self>) {
        if let Some(service) = self.service.upgrade() {
            let _ = service.port.post(0, Node::Session(self.clone()), Op::Resume);
        }
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
                self.over(self.tls.as_ref().map_or(Closed::ByPeer, Tls::ended));
                false
            }
            Ok(bytes) => {
                self.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
                if let Some(service) = self.service.upgrade() {
                    service.totals.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
                }
                let phase = self.lock().phase;
                match (phase, &self.tls) {
                    (Phase::Open | Phase::Handshake, Some(tls)) => self.unsealed(tls, buffer),
                    (Phase::Open, None) => self.hand_over(buffer),
                    // Closing: what still comes is read so that the peer gets our end, and no reset.
                    _ => true,
                }
            }
            Err(error) => {
                self.over(Closed::Failed(error));
                false
            }
        }
    }

    /// Gives the handler what has come. False when the session is over.
    fn hand_over(self: &Arc<Self>, buffer: Buffer) -> bool {
        self.heard_us.store(NEVER, Ordering::Relaxed);
        if self.call(|session, link| session.received(link, buffer)) {
            self.heard();
            return true;
        }
        self.over(Closed::Panicked);
        false
    }

    /// Bytes of TLS have come. False when the session is over.
    fn unsealed(self: &Arc<Self>, tls: &Tls, received: Buffer) -> bool {
        let mut came = Unsealed::default();
        // A configuration of the program's own has code of the program.
        if !self.guarded(|| came = tls.unseal(&received)) {
            self.over(Closed::Panicked);
            return false;
        }
        // Its buffer is the pool's, and handlers may take their time.
        drop(received);
        if came.answers {
            let mut sending = self.lock();
            sending.answers = true;
            self.pump(sending);
        }
        if came.established && !self.greet() {
            return false;
        }
        // `opened` may have closed it.
        if !came.plain.is_empty() && self.is_receiving() && !self.hand_over(came.plain.into()) {
            return false;
        }
        match came.end {
            None => true,
            Some(end) if end.is_peers_end() => {
                self.over(end);
                false
            }
            Some(failure) => {
                self.close_broken(failure);
                // What still comes is discarded, as in any graceful end.
                true
            }
        }
    }

    /// Ends the session because TLS failed: what TLS has to say of it goes out, and nothing else.
    fn close_broken(self: &Arc<Self>, failure: Closed) {
        let unsent = {
            let mut sending = self.lock();
            if sending.phase == Phase::Over {
                return;
            }
            log::info!("session {} with {}: {failure}", self.id, self.peer);
            sending.reason.get_or_insert(failure);
            sending.phase = Phase::Closing;
            sending.give_up()
        };
        drop(unsent);
        self.made_room();
        self.pump(self.lock());
        self.linger();
    }

    /// The peer is heard from, now.
    fn heard(&self) {
        self.heard_us.store(self.coarse_us.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// The peer has taken what it was sent. While a handler runs no time counts, and none begins to.
    fn taken(&self) {
        let now = self.coarse_us.load(Ordering::Relaxed);
        let stamp = |at| (at != NEVER).then_some(now);
        let _ = self.heard_us.fetch_update(Ordering::Relaxed, Ordering::Relaxed, stamp);
    }

    /// The time-out that has passed, if one has.
    pub(super) fn timed_out(&self, now_us: u64, idle_us: Option<u64>, handshake_us: Option<u64>) -> Option<Closed> {
        let passed = |stamp: &AtomicU64, limit: Option<u64>| {
            limit.is_some_and(|limit| now_us.saturating_sub(stamp.load(Ordering::Relaxed)) >= limit)
        };
        let late = passed(&self.opened_us, handshake_us) && !self.ready.load(Ordering::Relaxed);
        let idle = passed(&self.heard_us, idle_us);
        if !late && !idle {
            return None;
        }
        let sending = self.lock();
        if sending.phase != Phase::Open {
            return None;
        }
        if late {
            return Some(Closed::HandshakeTimeout);
        }
        // It may have taken something since the look above.
        passed(&self.heard_us, idle_us).then_some(Closed::IdleTimeout)
    }

    /// Calls the session. False when it panicked; it is then gone.
    fn call(self: &Arc<Self>, f: impl FnOnce(&mut dyn Session, &Link)) -> bool {
        // Never contended: one handler at a time is how this layer is built. The lock is the proof for the compiler,
        // and tells `tell_closed` whether a handler runs.
        let well = match self.handler.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            Some(session) => self.guarded(|| f(session.as_mut(), &Link(self.clone()))),
            None => true,
        };
        if !well {
            let broken = self.handler.lock().unwrap_or_else(PoisonError::into_inner).take();
            self.guarded(|| drop(broken));
        } else if self.lock().phase == Phase::Over {
            self.tell_closed();
        }
        well
    }

    /// Runs the program's code, its destructors too. False when it panicked.
    fn guarded(&self, run: impl FnOnce()) -> bool {
        let Err(panic) = catch_unwind(AssertUnwindSafe(run)) else { return true };
        log::error!("a handler of session {} panicked: {}", self.id, crate::worker::message(&*panic));
        if let Some(service) = self.service.upgrade() {
            service.totals.panics.fetch_add(1, Ordering::Relaxed);
        }
        false
    }

    /// Calls `closed` and drops the session, unless a handler runs: then the thread that runs it comes here when it is
    /// done. The phase is set before the lock is tried, and looked at after it was released, so that one of the two
    /// does it; the session is taken out under the lock, so that only one does.
    fn tell_closed(self: &Arc<Self>) {
        let taken = match self.handler.try_lock() {
            Ok(mut handler) => handler.take(),
            Err(TryLockError::Poisoned(handler)) => handler.into_inner().take(),
            Err(TryLockError::WouldBlock) => return,
        };
        let Some(mut session) = taken else { return };
        let reason = self.lock().reason.take().unwrap_or(Closed::ByUs);
        self.guarded(|| session.closed(&Link(self.clone()), &reason));
        self.guarded(|| drop(session));
    }

    /// The end, once: noticed on the receiving side, or made by the end of the service.
    pub(super) fn over(self: &Arc<Self>, reason: Closed) {
        let (stream, groups, unsent, graceful) = {
            let mut sending = self.lock();
            if sending.phase == Phase::Over {
                return;
            }
            let graceful = reason.is_peers_end();
            sending.phase = Phase::Over;
            let reason = sending.reason.get_or_insert(reason);
            log::debug!("session {} is over: {reason}", self.id);
            // After the peer's end it may still read what was accepted for it; after a failure nobody does.
            let unsent = if graceful { VecDeque::new() } else { sending.give_up() };
            let stays = graceful && (sending.busy || self.tls.is_some());
            let stream = if stays { sending.stream.clone() } else { sending.stream.take() };
            (stream, std::mem::take(&mut sending.groups), unsent, graceful)
        };
        self.made_room();
        drop(unsent);
        for group in groups {
            if let Some(group) = group.upgrade() {
                group.leave(self.id);
            }
        }
        self.tell_closed();
        if let Some(stream) = stream {
            if graceful && self.tls.is_some() {
                // TLS ends its side too, unless somebody sends and will come to it.
                self.pump(self.lock());
            }
            if graceful && self.lock().busy {
                // `sent` closes it; the sweep does if the peer never reads.
                self.linger();
            } else {
                self.detach();
                stream.close();
            }
        }
        if let Some(service) = self.service.upgrade() {
            service.forget(self);
        }
    }

    /// Whether what is received goes to the session.
    pub(super) fn is_receiving(&self) -> bool {
        self.lock().phase == Phase::Open
    }

    pub(super) fn stream(&self) -> Option<Stream> {
        self.lock().stream.clone()
    }

    /// The service is gone: no packet will come any more.
    pub(super) fn discard(self: &Arc<Self>) {
        self.over(Closed::Shutdown);
        // It may have been over before, with something still on its way.
        let (stream, unsent) = {
            let mut sending = self.lock();
            (sending.stream.take(), sending.give_up())
        };
        drop(unsent);
        if let Some(stream) = stream {
            stream.close();
        }
    }

    /// Whether something that was accepted for sending was not sent.
    pub(super) fn is_cut(&self) -> bool {
        self.lock().cut
    }

    fn detach(&self) {
        let stream = self.lock().stream.take();
        drop(stream);
    }

    // --- The sending side: any thread ---

    /// Sends what waits, unless somebody does already; then lets receiving go on, if that waited for room.
    fn pump<'a>(self: &'a Arc<Self>, sending: MutexGuard<'a, Sending>) {
        let mut sending = self.send_waiting(sending);
        let limit = self.service.upgrade().map_or(0, |service| service.options.outbox_bytes);
        let resume = sending.paused && sending.outbox.queued_bytes() <= limit / 4;
        sending.paused &= !resume;
        drop(sending);
        if resume {
            self.resume();
        }
    }

    fn send_waiting<'a>(self: &'a Arc<Self>, mut sending: MutexGuard<'a, Sending>) -> MutexGuard<'a, Sending> {
        if sending.busy || sending.phase == Phase::Connecting {
            return sending;
        }
        let Some(stream) = sending.stream.clone() else { return sending };
        sending.busy = true;
        loop {
            let mut messages = sending.next();
            let seal = self.tls.as_ref().and_then(|tls| Some((tls, sending.ask_tls(&messages)?)));
            if messages.is_empty() && seal.is_none() {
                sending.busy = false;
                match sending.phase {
                    Phase::Open | Phase::Closing if sending.ends() => {
                        sending.shut = true;
                        if sending.phase == Phase::Closing {
                            sending.linger_until = Some(Instant::now() + HEAR_OUT);
                        }
                        drop(sending);
                        // A failure means that the connection is gone, which the receive notices.
                        let _ = stream.shutdown(std::net::Shutdown::Write);
                        sending = self.lock();
                    }
                    Phase::Over => {
                        drop(sending);
                        self.detach();
                        stream.close();
                        sending = self.lock();
                    }
                    _ => {}
                }
                return sending;
            }
            drop(sending);
            if let Some((tls, last)) = seal {
                messages = match tls.seal(messages, last) {
                    Ok(sealed) => sealed,
                    Err(error) => return self.send_failed(error),
                };
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
            self.made_room();
        }
    }

    fn count_sent(&self, event: &Event<Node, Op>) {
        let (Event::Sent { result, .. } | Event::SentVectored { result, .. }) = event else { return };
        let bytes = *result.as_ref().unwrap_or(&0) as u64;
        self.taken();
        self.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
        if let Some(service) = self.service.upgrade() {
            service.totals.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
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
                self.made_room();
                sending
            }
        };
        self.pump(sending);
    }

    /// Nothing more goes out. If the connection is broken the receive notices, after what came before.
    fn send_failed(self: &Arc<Self>, error: io::Error) -> MutexGuard<'_, Sending> {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, TimedOut};
        let broken = matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset | TimedOut);
        let (unsent, stream) = {
            let mut sending = self.lock();
            let unsent = sending.give_up();
            sending.busy = false;
            sending.outbox.landed();
            sending.shut = true;
            sending.reason.get_or_insert(Closed::Failed(error));
            let stream = match sending.phase {
                Phase::Over => sending.stream.take(),
                _ if broken => None,
                _ => sending.stream.clone(),
            };
            (unsent, stream)
        };
        drop(unsent);
        self.made_room();
        if let Some(stream) = stream {
            stream.close();
        }
        self.lock()
    }

    /// Ends the session now: the receive completes as cancelled, and the receiving side does the rest.
    pub(super) fn end(self: &Arc<Self>, reason: Closed) {
        let (stream, resume) = {
            let mut sending = self.lock();
            if sending.phase == Phase::Over {
                return;
            }
            sending.reason.get_or_insert(reason);
            sending.phase = Phase::Closing;
            (sending.stream.clone(), std::mem::take(&mut sending.paused))
        };
        self.made_room();
        if let Some(stream) = stream {
            stream.close();
        }
        if resume {
            // No receive is outstanding; the next one is refused, and notices the end.
            self.resume();
        }
    }

    /// Ends the session because its time is over.
    pub(super) fn cut_off(self: &Arc<Self>, reason: Closed) {
        self.lock().cut = true;
        self.end(reason);
    }

    /// Ends the session after its outbox has gone out.
    pub(super) fn close(self: &Arc<Self>, reason: Closed) {
        {
            let mut sending = self.lock();
            match sending.phase {
                Phase::Open => {}
                // There may be nobody at the other end: that is worth waiting for only if there is something to send.
                Phase::Connecting | Phase::Handshake if sending.outbox.queued_bytes() == 0 => {
                    drop(sending);
                    return self.end(reason);
                }
                Phase::Connecting | Phase::Handshake => {}
                Phase::Closing | Phase::Over => return,
            }
            sending.reason.get_or_insert(reason);
            if sending.phase == Phase::Open {
                sending.phase = Phase::Closing;
            }
            self.pump(sending);
        }
        self.made_room();
        self.linger();
    }

    /// From now on there is a time limit.
    fn linger(self: &Arc<Self>) {
        if let Some(service) = self.service.upgrade() {
            let mut sending = self.lock();
            let limit = if sending.shut { HEAR_OUT } else { service.options.linger };
            sending.linger_until = Some(Instant::now() + limit);
            drop(sending);
            service.sweep_later(self);
        }
    }

    /// The sweep: true when nothing more has to be waited for.
    pub(super) fn linger_over(self: &Arc<Self>, now: Instant) -> bool {
        let (stream, resume) = {
            let mut sending = self.lock();
            if sending.phase == Phase::Over && sending.stream.is_none() {
                return true;
            }
            match sending.linger_until {
                // It had a handshake to do, and has done it. Whoever sets a limit again has it looked at again.
                None => return true,
                Some(until) if until > now => return false,
                Some(_) => {}
            }
            if sending.phase == Phase::Handshake {
                sending.reason.get_or_insert(Closed::HandshakeTimeout);
            }
            let stream = match sending.phase {
                Phase::Over => sending.stream.take(),
                _ => {
                    sending.phase = Phase::Closing;
                    sending.stream.clone()
                }
            };
            (stream, std::mem::take(&mut sending.paused))
        };
        if let Some(stream) = stream {
            stream.close();
        }
        if resume {
            self.resume();
        }
        true
    }
}
