//! When a session is not received from, though it is open: because the program has paused it, its outbox is half full,
//! it has received at its rate, or memory is short.
//!
//! Receiving is one activity, as the top of `conn.rs` says: a receive is outstanding, or a worker runs `Conn::receive`,
//! or a packet that leads there is queued, or the session is *paused*. It becomes so in one place, [`Conn::turn`],
//! which looks at all reasons under the session's lock, and notes which one it was. Whoever sees that this reason is
//! gone takes the note, under the same lock, and posts one packet; the worker who gets it looks at all reasons anew. So
//! a wake-up cannot be lost, for reason and note are under one lock, and none comes twice, for the note is taken once.
//! Whoever ends a session takes the note too, whatever it says: receiving then goes on until it finds the end.
//!
//! The reason *memory* lies outside the session's lock; `memory.rs` says why its wake-up is not lost either.
//!
//! A receive that is outstanding when the program pauses is not cancelled. What it brings is kept, a receive at most,
//! and is the first that the session gets when it is resumed.

use crate::closed::Closed;
use crate::conn::{Conn, Phase, Sending, count};
use crate::dispatch::{Node, Op};
use crate::link::Link;
use crate::rate::{Buckets, Place, Rate};
use crate::service::Inner;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wharf::Buffer;

/// Why nothing is received, and no frame handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// The program has paused it.
    Asked,
    /// The outbox is half full, and whoever sends so much has to read first.
    Outbox,
    /// It has no tokens until then.
    Rate(u64),
    /// The service has no memory.
    Memory,
}

impl Pause {
    /// Whether it is this side that does not want to hear the peer. A peer that does not read is silent by its own
    /// choice.
    pub(super) fn is_ours(self) -> bool {
        !matches!(self, Pause::Outbox)
    }
}

/// What was received and waits to be handled, and what makes it wait. Under the session's lock.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    /// Why the session is paused, if it is.
    pub(super) paused_for: Option<Pause>,
    /// [`Link::pause`] was called.
    pub(super) asked: bool,
    pub(super) rate: Option<Buckets>,
    place: Option<Place>,
    /// What came when the session was paused already.
    stash: Option<Buffer>,
    /// The session was stopped between two frames: it has more.
    more: bool,
    /// How TLS has ended, after all that is to be handled.
    pub(super) end: Option<Closed>,
    /// What the framing layer keeps, in bytes.
    pub(super) framing_bytes: usize,
}

impl Inbox {
    pub(super) fn new(rate: Option<Rate>) -> Inbox {
        Inbox { rate: rate.map(Buckets::new), ..Inbox::default() }
    }

    pub(super) fn bytes(&self) -> usize {
        self.framing_bytes + self.stash.as_ref().map_or(0, |buffer| buffer.len().max(buffer.capacity()))
    }

    /// Nothing of it will be handled any more. What waited is returned, to be dropped outside the lock.
    pub(super) fn clear(&mut self) -> Option<Buffer> {
        self.more = false;
        self.framing_bytes = 0;
        self.stash.take()
    }
}

/// What the receiving side does next.
pub(super) enum Turn {
    Receive,
    /// The session gets what came while it was paused.
    Handle(Buffer),
    /// The session goes on with the frames that it has.
    GoOn,
    /// All was handled that came before the end of TLS.
    End(Closed),
    Held,
}

/// Whether a frame may be handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frames {
    Next {
        /// It has a rate limit.
        is_rated: bool,
    },
    Later,
    Over,
}

impl Link {
    /// Receives nothing more until [`resume`](Link::resume), from any thread. What the peer sends waits in the system,
    /// and then with the peer. Sending goes on.
    ///
    /// From a handler of the session itself it works at once: no further receive, and no further frame of a
    /// [`Framed`](crate::Framed) session, is handed on. From another thread a handler that runs just then, or is just
    /// about to, still gets what it was called for. Pausing twice is pausing once.
    ///
    /// While a session is paused [`ServiceOptions::idle_timeout`](crate::ServiceOptions::idle_timeout) does not count,
    /// [`ServiceOptions::handshake_timeout`](crate::ServiceOptions::handshake_timeout) does. That the peer has ended
    /// the connection is noticed at the latest after [`resume`](Link::resume); closing it from this side works as
    /// always.
    pub fn pause(&self) {
        if !self.is_home() {
            return;
        }
        self.0.lock().inbox.asked = true;
    }

    /// Receives again: what came before the pause took effect first, then what the peer has sent meanwhile. From any
    /// thread; the handlers run on the workers, not in this call. Does nothing to a session that is not paused.
    pub fn resume(&self) {
        if !self.is_home() {
            return;
        }
        let go_on = {
            let mut sending = self.0.lock();
            if !std::mem::replace(&mut sending.inbox.asked, false) {
                return;
            }
            self.0.taken();
            sending.take_pause(|pause| pause == Pause::Asked)
        };
        if go_on {
            self.0.receive_later();
        }
    }

    /// Limits how fast this session receives, instead of what
    /// [`ServiceOptions::rate_limit`](crate::ServiceOptions::rate_limit) says; `None`: not at all. Begins with a full
    /// burst.
    pub fn set_rate_limit(&self, rate: Option<Rate>) {
        if !self.is_home() {
            return;
        }
        let go_on = {
            let mut sending = self.0.lock();
            sending.inbox.rate = rate.map(Buckets::new);
            self.0.taken();
            sending.take_pause(|pause| matches!(pause, Pause::Rate(_)))
        };
        if go_on {
            self.0.receive_later();
        }
    }
}

impl Sending {
    /// Takes the note that the session is paused, if it is for such a reason. Whoever gets `true` has receiving go on.
    #[must_use]
    pub(super) fn take_pause(&mut self, such: impl FnOnce(Pause) -> bool) -> bool {
        let taken = self.inbox.paused_for.is_some_and(such);
        if taken {
            self.inbox.paused_for = None;
        }
        taken
    }

    /// Why nothing may be handed on now. Of several reasons the first is told; the others are found after it. Memory is
    /// none: what was received frees its own by being handed on.
    fn reason_to_pause(&self, service: &Inner, wait: fn(&Buckets, u64) -> Option<u64>) -> Option<Pause> {
        if self.inbox.asked {
            return Some(Pause::Asked);
        }
        if self.outbox.exceeds(service.options.outbox_bytes / 2) {
            return Some(Pause::Outbox);
        }
        let due = self.inbox.rate.as_ref().and_then(|rate| wait(rate, service.rates.now_ns()))?;
        Some(Pause::Rate(due))
    }
}

impl Conn {
    /// Decides what the receiving side does next. Who gets [`Turn::Held`] has nothing more to do.
    pub(super) fn turn(self: &Arc<Self>, service: &Arc<Inner>) -> Turn {
        let mut after: Option<Duration> = None;
        let (mut tell, mut look) = (false, false);
        {
            let mut sending = self.lock();
            if let Some(place) = sending.inbox.place.take() {
                service.rates.forget(place);
            }
            if sending.phase != Phase::Open {
                // What still comes is read so that the peer gets our end, and no reset; nobody handles it.
                let unhandled = sending.inbox.clear();
                self.account(&mut sending);
                drop(sending);
                drop(unhandled);
                return Turn::Receive;
            }
            let mut pause = sending.reason_to_pause(service, Buckets::wait_for_message);
            if pause.is_none() && std::mem::take(&mut sending.inbox.more) {
                return Turn::GoOn;
            }
            pause = pause.or_else(|| sending.reason_to_pause(service, Buckets::wait));
            if pause.is_none() {
                if let Some(buffer) = sending.inbox.stash.take() {
                    self.account(&mut sending);
                    self.spend(&mut sending, buffer.len());
                    return Turn::Handle(buffer);
                }
                if let Some(end) = sending.inbox.end.take() {
                    return Turn::End(end);
                }
                pause = service.memory.is_short().then_some(Pause::Memory);
            }
            match pause {
                None => return Turn::Receive,
                Some(pause) => {
                    sending.inbox.paused_for = Some(pause);
                    match pause {
                        Pause::Rate(due) => {
                            let (place, timer) = service.rates.enlist(self, due);
                            sending.inbox.place = Some(place);
                            after = timer;
                        }
                        Pause::Memory => {
                            service.memory.held_back.fetch_add(1, Ordering::Relaxed);
                            tell = service.memory.enlist(self);
                            look = true;
                        }
                        Pause::Asked | Pause::Outbox => {}
                    }
                }
            }
        }
        if let Some(after) = after {
            service.arm_rates(after);
        }
        if tell {
            service.tell_of_memory();
        }
        if look {
            service.look_at_memory();
        }
        Turn::Held
    }

    /// Something was received. Returns what is to be handed on; `None` when nobody is to get it, or not yet.
    pub(super) fn take_in(self: &Arc<Self>, buffer: Buffer) -> Option<Buffer> {
        let mut sending = self.lock();
        if sending.phase != Phase::Open {
            return None;
        }
        if sending.inbox.asked {
            // `turn`, which comes next, notes that the session is paused.
            sending.inbox.stash = Some(buffer);
            self.account(&mut sending);
            return None;
        }
        self.spend(&mut sending, buffer.len());
        Some(buffer)
    }

    fn spend(&self, sending: &mut Sending, bytes: usize) {
        let framed = self.framed.load(Ordering::Relaxed);
        if !framed {
            count(&self.messages_received, 1);
        }
        let Some(rate) = &mut sending.inbox.rate else { return };
        if let Some(service) = self.service.upgrade() {
            rate.spend(bytes as u64, u64::from(!framed), service.rates.now_ns());
        }
    }

    // --- The framing layer: its frames are the messages ---

    pub(super) fn is_framed(&self) {
        self.framed.store(true, Ordering::Relaxed);
    }

    /// Asked before a frame is looked for.
    pub(super) fn next_frame(&self, service: &Inner) -> Frames {
        let mut sending = self.lock();
        if sending.phase != Phase::Open {
            return Frames::Over;
        }
        if sending.reason_to_pause(service, Buckets::wait_for_message).is_some() {
            sending.inbox.more = true;
            return Frames::Later;
        }
        Frames::Next { is_rated: sending.inbox.rate.is_some() }
    }

    /// A frame was found.
    pub(super) fn count_frame(&self, service: &Inner, is_rated: bool) {
        count(&self.messages_received, 1);
        if !is_rated {
            return;
        }
        if let Some(rate) = &mut self.lock().inbox.rate {
            rate.spend(0, 1, service.rates.now_ns());
        }
    }

    /// The framing layer keeps so many bytes from now on.
    pub(super) fn framing_keeps(&self, service: &Inner, bytes: usize) {
        let mut sending = self.lock();
        if sending.phase != Phase::Over {
            sending.inbox.framing_bytes = bytes;
            self.account(&mut sending);
        }
        drop(sending);
        service.bound_memory();
    }

    // --- Who lets it go on ---

    /// Receiving goes on, on a worker. A closed port takes no post; the session then ends with it.
    pub(super) fn receive_later(self: &Arc<Self>) {
        if let Some(service) = self.service.upgrade() {
            let _ = service.port.post(0, Node::Session(self.clone()), Op::Resume);
        }
    }

    /// Its tokens have come.
    pub(super) fn rate_due(self: &Arc<Self>) {
        self.go_on_if(|pause| matches!(pause, Pause::Rate(_)));
    }

    /// So much memory was freed that receiving may go on.
    pub(super) fn memory_freed(self: &Arc<Self>) {
        self.go_on_if(|pause| pause == Pause::Memory);
    }

    pub(super) fn is_paused_for_memory(&self) -> bool {
        self.lock().inbox.paused_for == Some(Pause::Memory)
    }

    fn go_on_if(self: &Arc<Self>, such: impl FnOnce(Pause) -> bool) {
        let go_on = {
            let mut sending = self.lock();
            let taken = sending.take_pause(such);
            if taken {
                self.taken();
            }
            taken
        };
        if go_on {
            self.receive_later();
        }
    }

    // --- Memory ---

    /// Notes what this session keeps, alone or with others.
    pub(super) fn note_holds(&self, sending: &Sending) {
        let holds = if sending.written_off { 0 } else { sending.outbox.counted_bytes() + sending.inbox.bytes() };
        self.holds.store(holds, Ordering::Relaxed);
    }

    /// Brings the service's figure up to date with what this session keeps. Called, under its lock, after every change.
    pub(super) fn account(&self, sending: &mut Sending) {
        self.note_holds(sending);
        let now = if sending.written_off {
            0
        } else {
            sending.outbox.counted_bytes() - sending.outbox.shared_bytes() + sending.inbox.bytes()
        };
        let before = std::mem::replace(&mut sending.accounted, now);
        if now == before || !self.limited {
            return;
        }
        let Some(service) = self.service.upgrade() else { return };
        if now > before {
            service.memory.add(now - before);
        } else if service.memory.free(before - now) {
            service.tell_of_memory();
        }
    }

    pub(super) fn holds(&self) -> usize {
        self.holds.load(Ordering::Relaxed)
    }

    /// Ends the session, and lets go of what it keeps at once: it does not count any more, even what the system is just
    /// taking. False when somebody has done so before.
    pub(super) fn write_off(self: &Arc<Self>, reason: Closed) -> bool {
        let (unsent, unhandled, stream) = {
            let mut sending = self.lock();
            if sending.written_off {
                return false;
            }
            let unsent = sending.give_up();
            sending.written_off = true;
            sending.outbox.forgive();
            let unhandled = sending.inbox.clear();
            self.account(&mut sending);
            // One that is over already, with something on its way to a peer that does not take it.
            let stream = if sending.phase == Phase::Over { sending.stream.take() } else { None };
            if let Some(stream) = &stream {
                self.reckon(&mut sending, stream, true);
            }
            (unsent, unhandled, stream)
        };
        drop((unsent, unhandled));
        if let Some(stream) = stream {
            stream.reset();
            self.tell_of_loss();
        }
        self.end(reason);
        true
    }
}
