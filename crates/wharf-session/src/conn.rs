//! One session's life. `receiving.rs` and `sending.rs` are the two halves of its connection, `room.rs` is how a message
//! comes to its place in the outbox, `link.rs` how others reach it.
//!
//! ```text
//! connecting ─→ open ─→ closing ─→ over
//!      └ handshake ┘ └────────────────↗
//! ```
//!
//! A receive is outstanding from `open` to `over`, or a handler runs that will issue the next one: so there is always
//! exactly one place where the end is noticed, and that place calls `closed`. A session that is not received from for a
//! while is *paused*, and whoever takes that back issues the next one: see `pausing.rs`. Whoever wants a session to end
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
//! Both halves share one state under one lock, [`Sending`].

use crate::closed::Closed;
use crate::coalesce;
use crate::connecting::Connecting;
use crate::dispatch::Handling;
use crate::ending::{self, Look};
use crate::group::Membership;
use crate::link::Link;
use crate::lock::{Condition, Guard, Lock};
use crate::outbox::Outbox;
use crate::pausing::{Inbox, Pause};
use crate::peer::Peer;
use crate::service::{Inner, Stream};
use crate::{Session, Tls, payload, time};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

/// What never changes, a lock for the program's session, one for all that decides about the connection ([`Sending`]),
/// and figures that are read without a lock. `handler` is held while the session's code runs, which may take `sending`;
/// it is never taken under `sending`, under which no code of the program runs. The rest:
///
/// | field | who changes it, and when | who reads it | ordering |
/// |---|---|---|---|
/// | `peer` | whoever connects, with each address that it tries; a lock of its own, under which nothing else is taken | anybody | the lock's |
/// | `messages_in_flight` | whoever sends: it has set `busy` | the end of that send | Relaxed. The send's packet, and the lock under which `busy` changes, come between |
/// | `waiting` | a sender that waits for room, under the lock when it begins | whoever made room, after it has had the lock | Relaxed. A sender that the lock showed to nobody looks for room under it later |
/// | `bytes_received`, `messages_received` | the thread that receives, of which there is one | anybody | Relaxed: a figure by itself, so written without an atomic addition (see [`count`]) |
/// | `messages_sent`, `sends` | the thread that sends, of which there is one | anybody | Relaxed: as above |
/// | `bytes_sent` | whoever has looked how much the system took, upwards only | anybody | Relaxed: a figure by itself |
/// | `given`, `given_data` | whoever sends, under the lock, before the stream is given the bytes | under the lock; looks at what has arrived, without | Relaxed. A look may find less than was given by now, and then sees that something is under way |
/// | `settled` | a look, under the lock | the same, and who asks whether to look | Relaxed: who misses it looks once more |
/// | `arrived_then` | whoever looks at the memory of all | the same | Relaxed: exchanged, so no byte counts twice |
/// | `framed` | the framing, when it has its first bytes | the thread that receives; memory | Relaxed: it goes one way |
/// | `holds` | under the lock | memory, which looks for the largest | Relaxed: the choice need not be exact |
/// | `opened_ms`, `received_ms` | the thread that receives | anybody | Relaxed: times by themselves |
/// | `heard_us` | the thread that receives, also to and from `NEVER`; the end of a send by exchange, and not over `NEVER` | the sweep for time-outs | Relaxed: a time-out comes with the next sweep |
/// | `opened_us`, `ready` | the thread that receives; the owner | the sweep for time-outs | Relaxed: as above |
pub(super) struct Conn {
    pub(super) id: u64,
    /// While it is being connected, the address that is tried.
    pub(super) peer: Lock<Peer>,
    /// The peer is a process of this machine.
    pub(super) is_local: bool,
    pub(super) service: Weak<Inner>,
    /// Boxed: it is more than all the rest, and most sessions have none.
    pub(super) tls: Option<Box<Tls>>,
    /// Messages that are in the send under way, of which several may be in one buffer.
    pub(super) messages_in_flight: AtomicU64,
    pub(super) handler: Lock<Option<Box<dyn Session>>>,
    pub(super) sending: Lock<Sending>,
    pub(super) room: Condition,
    /// Senders that wait for room: notifying costs a system call even when nobody listens.
    pub(super) waiting: AtomicU32,
    pub(super) bytes_received: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    /// Bytes that were given to the stream to be sent, those of TLS included; and how many they were with the last
    /// message.
    pub(super) given: AtomicU64,
    pub(super) given_data: AtomicU64,
    /// What `given` was when all of it was known to have arrived.
    pub(super) settled: AtomicU64,
    /// What had arrived when memory was last looked at.
    pub(super) arrived_then: AtomicU64,
    pub(super) messages_received: AtomicU64,
    pub(super) messages_sent: AtomicU64,
    pub(super) sends: AtomicU64,
    /// Frames are its messages.
    pub(super) framed: AtomicBool,
    /// What it keeps in memory: written under `sending`'s lock, read without.
    pub(super) holds: AtomicUsize,
    /// The service has a limit, and counts it.
    pub(super) limited: bool,
    /// When it was opened, and when it last received something, by `tick_ms`; 0: never.
    pub(super) opened_ms: AtomicU64,
    pub(super) received_ms: AtomicU64,
    /// The service's coarse clock, which `heard_us` and `opened_us` go by.
    pub(super) coarse_us: Arc<AtomicU64>,
    /// When something was received, or a send completed; `NEVER` while a handler runs, whose time is not the peer's,
    /// and before the session is open.
    pub(super) heard_us: AtomicU64,
    /// When it was opened; `NEVER` before.
    pub(super) opened_us: AtomicU64,
    pub(super) ready: AtomicBool,
}

/// No time-out counts from here.
pub(super) const NEVER: u64 = u64::MAX;

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
    pub(super) starved: u32,
    pub(super) listed: bool,
    /// Somebody sends, or a send is outstanding.
    pub(super) busy: bool,
    /// Nobody does, though something waits: a thread has it in its deferred list, see `coalesce.rs`.
    pub(super) left: bool,
    /// TLS has something to say of its own.
    pub(super) answers: bool,
    /// The end of TLS has been sent.
    pub(super) sealed_off: bool,
    /// The sending side is to be shut when the outbox has gone out; and it was.
    pub(super) finishing: bool,
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
            messages_in_flight: AtomicU64::new(0),
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

    /// Nothing more is said on a shared log at the end of the outbox.
    pub(super) fn settle(&self, sending: &mut Sending) {
        if sending.outbox.settle() {
            self.account(sending);
        }
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

    /// The peer is heard from, now.
    pub(super) fn heard(&self) {
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
        if sending.inbox.asked || sending.inbox.paused_for.is_some_and(Pause::is_ours) {
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
    pub(super) fn call(self: &Arc<Self>, f: impl FnOnce(&mut dyn Session, &Link)) -> bool {
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
            coalesce::set(false);
            coalesce::send();
            let broken = self.handler.lock().take();
            self.guarded(|| drop(broken));
        } else if self.lock().phase == Phase::Over {
            self.tell_closed();
        }
        well
    }

    /// Runs the program's code, its destructors too. False when it panicked.
    pub(super) fn guarded(&self, run: impl FnOnce()) -> bool {
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

/// Counts in a figure that one thread at a time writes, the one that receives or the one that sends: without an atomic
/// addition, which costs as much as a lock.
pub(super) fn count(figure: &AtomicU64, more: u64) {
    figure.store(figure.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
}

/// The system's coarse clock: its reading costs next to nothing, and it moves 100 to 1000 times a second. Never 0.
pub(super) fn tick_ms() -> u64 {
    time::coarse_ms().max(1)
}
