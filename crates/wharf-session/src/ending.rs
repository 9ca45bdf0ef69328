//! How sessions end, and what becomes of that which was accepted for sending.
//!
//! One rule: it arrives before the end, within the time that the end may take, or the peer hears a *reset*, never an
//! end that it could take for that of the whole, and the owner is told how much is lost (`LinkStats::lost_bytes`, a
//! line in the log, the service's figures).
//!
//! *Arrived* is what the peer's system has acknowledged, as far as the system tells (`Stream::unacknowledged`); where
//! it does not, what it has taken. It is asked when a session ends, and of one that seems to be idle; never while it is
//! well.
//!
//! | end | what is waited for | how long |
//! |---|---|---|
//! | a close by this side, a shutdown | all arrives; then the peer's end, for half a second | `linger`, or the deadline |
//! | the peer's end | all arrives | `linger` since the peer last took something, or the deadline |
//! | `abort`, slow consumer, memory, a panic | nothing: what the system has not taken is missing | |
//! | the connection breaks | nothing: what was not acknowledged is missing | |
//!
//! If something is missing then, the peer hears a reset.
//!
//! Closing without waiting for the acknowledgement would not be the same: the system sends what it has taken also after
//! `close`, but throws it away, and resets, as soon as the peer sends anything. And nobody would hear whether it
//! arrived.
//!
//! Who waits is in the service's list of those that linger, and is looked at a few times a second (`linger_over`).

use crate::closed::Closed;
use crate::conn::{Conn, Phase, Sending};
use crate::lock::Guard;
use crate::service::{Inner, Stream, after};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// After all has arrived, how long the peer may take to close its side too. Closing without waiting at all would reset
/// the connection if the peer has just sent something, and it might lose what it has not read yet.
pub(super) const HEAR_OUT: Duration = Duration::from_millis(500);

/// What one look at a session that sends has seen; if the next sees something else, the peer has taken something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    given: u64,
    taken: u64,
    unacknowledged: Option<u64>,
}

pub(super) fn close(stream: &Stream, hard: bool) {
    if hard { stream.reset() } else { stream.close() }
}

impl Conn {
    /// Bytes of messages, as they are on the wire, that were given to the stream and have not arrived.
    pub(super) fn owes(&self, stream: &Stream) -> u64 {
        let given = self.given_data.load(Ordering::Relaxed);
        if given == 0 {
            return 0;
        }
        // What was sent to a process of this machine is there, also after this end is closed.
        let unheard = if self.is_local { 0 } else { stream.unacknowledged_bytes().unwrap_or(0) };
        let arrived = stream.bytes_taken().saturating_sub(unheard);
        given.saturating_sub(arrived)
    }

    /// Whether the peer has taken something since the last look; settles that nothing is left to look for, if so.
    pub(super) fn takes(&self, sending: &mut Sending, stream: &Stream) -> bool {
        let given = self.given.load(Ordering::Relaxed);
        // Without the end of the stream: that this side gives it is nothing that the peer has taken.
        let look = Look { given, taken: stream.bytes_taken(), unacknowledged: stream.unacknowledged_bytes() };
        let before = std::mem::replace(&mut sending.look, look);
        if look.unacknowledged.unwrap_or(0) == 0 && look.taken == given {
            self.settled.store(given, Ordering::Relaxed);
            // When it was given to the system is known, and was a moment ago.
            return before != look && before.given == given;
        }
        before != look
    }

    /// Whether something was sent of which no look has told that it arrived.
    pub(super) fn is_unsettled(&self) -> bool {
        self.settled.load(Ordering::Relaxed) != self.given.load(Ordering::Relaxed)
    }

    /// Bytes that the peer has taken since this was last asked.
    pub(super) fn taken_since(&self) -> u64 {
        let Some(stream) = self.stream() else { return 0 };
        let arrived = stream.bytes_taken().saturating_sub(stream.unacknowledged_bytes().unwrap_or(0));
        arrived.saturating_sub(self.arrived_then.swap(arrived, Ordering::Relaxed))
    }

    /// The stream is about to be closed: what was given to it and does not arrive is lost. `unheard`: what the system
    /// has taken, and will not go on with or has no more time for, is among it. Once for each session.
    pub(super) fn reckon(&self, sending: &mut Sending, stream: &Stream, unheard: bool) {
        if std::mem::replace(&mut sending.reckoned, true) {
            return;
        }
        self.count_taken(stream);
        let untaken = self.given_data.load(Ordering::Relaxed).saturating_sub(stream.bytes_taken());
        let hard = untaken + sending.sealing > 0 || sending.cut || sending.outbox.waiting_bytes() > 0;
        // A reset throws away what the system has taken.
        let lost = if unheard || hard { self.owes(stream).max(untaken) } else { 0 };
        // Records of TLS are longer than their content.
        let lost = (lost + sending.sealing).min(sending.launched);
        sending.lost += lost;
        sending.cut |= lost > 0;
    }

    /// Tells what was lost, as far as it was not told.
    pub(super) fn tell_of_loss(&self) {
        let (lost, first) = {
            let mut sending = self.lock();
            let (lost, told) = (sending.lost, sending.told_lost);
            sending.told_lost = lost;
            (lost - told, told == 0)
        };
        if lost == 0 {
            return;
        }
        log::info!(
            "session {} with {} was cut: {lost} bytes that were accepted for it have not arrived",
            self.id(),
            self.peer()
        );
        if let Some(service) = self.service.upgrade() {
            service.totals.cut.fetch_add(u64::from(first), Ordering::Relaxed);
            service.totals.lost_bytes.fetch_add(lost, Ordering::Relaxed);
        }
    }

    /// Why it ends after a failure: when the service has ended, which closes everything, that is the cause.
    pub(super) fn failed(&self, error: io::Error) -> Closed {
        match self.service.upgrade() {
            Some(service) if !service.ended.load(Ordering::SeqCst) => Closed::Failed(error),
            _ => Closed::Shutdown,
        }
    }

    /// The end, once: noticed on the receiving side, or made by the end of the service.
    pub(super) fn over(self: &Arc<Self>, reason: Closed) {
        // Said when the lock is free: the logger is the program's.
        let say = log::log_enabled!(log::Level::Debug);
        let peers_end = reason.is_peers_end();
        let broken = matches!(reason, Closed::Failed(_));
        let (stream, groups, unsent, unhandled, stays, hard, words) = {
            let mut sending = self.lock();
            if sending.phase == Phase::Over {
                return;
            }
            let unhandled = sending.inbox.clear();
            // This side may have ended it at once, and closed the stream, before the peer's end came.
            let graceful = peers_end && !sending.reckoned;
            // One that this side ends as well has a limit, which stays.
            sending.patient = sending.phase == Phase::Open;
            sending.phase = Phase::Over;
            let reason = sending.reason.get_or_insert(reason);
            let words = say.then(|| reason.to_string());
            let stream = sending.stream.clone();
            // After the peer's end it may still read what was accepted for it; after a failure nobody does.
            let stays = match &stream {
                Some(stream) if graceful => sending.busy || sending.left || self.is_tls() || self.owes(stream) > 0,
                _ => false,
            };
            let unsent = if graceful { VecDeque::new() } else { sending.give_up() };
            if let (Some(stream), false) = (&stream, stays) {
                self.reckon(&mut sending, stream, broken);
            }
            let hard = sending.lost > 0 && !graceful;
            sending.outbox.settle();
            self.account(&mut sending);
            if !stays {
                sending.stream = None;
            }
            (stream, std::mem::take(&mut sending.groups), unsent, unhandled, stays, hard, words)
        };
        if let Some(words) = words {
            log::debug!("session {} is over: {words}", self.id());
        }
        self.made_room();
        drop((unsent, unhandled));
        for group in groups {
            if let Some(group) = group.upgrade() {
                group.leave(self.id());
            }
        }
        self.tell_closed();
        if stays {
            // What is left goes out, TLS ends its side too, and the stream is closed when all has arrived: by whoever
            // sends, or by the sweep.
            self.pump(self.lock());
            if self.lock().stream.is_some() {
                self.linger();
            }
        } else if let Some(stream) = stream {
            close(&stream, hard);
        }
        self.tell_of_loss();
        if let Some(service) = self.service.upgrade() {
            service.forget(self);
        }
    }

    /// The peer has ended its side, this session is over, and all that was accepted for it was given to the system:
    /// closes the stream if it has arrived; else says that nothing more comes, and the sweep goes on looking.
    pub(super) fn finish_over<'a>(
        self: &'a Arc<Self>,
        mut sending: Guard<'a, Sending>,
        stream: &Stream,
    ) -> Guard<'a, Sending> {
        if self.owes(stream) > 0 {
            if !std::mem::replace(&mut sending.shut, true) {
                drop(sending);
                // A failure means that the connection is gone, which the sweep notices.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                sending = self.lock();
            }
            return sending;
        }
        self.reckon(&mut sending, stream, false);
        sending.stream = None;
        drop(sending);
        stream.close();
        self.lock()
    }

    /// The service is gone: no packet will come any more.
    pub(super) fn discard(self: &Arc<Self>) {
        self.over(Closed::Shutdown);
        // It may have been over before, with something still on its way.
        let (stream, unsent, hard) = {
            let mut sending = self.lock();
            let unsent = sending.give_up();
            let stream = sending.stream.take();
            if let Some(stream) = &stream {
                self.reckon(&mut sending, stream, false);
            }
            self.account(&mut sending);
            (stream, unsent, sending.lost > 0)
        };
        drop(unsent);
        if let Some(stream) = stream {
            close(&stream, hard);
        }
        self.tell_of_loss();
    }

    /// Whether something that was accepted for sending was lost, or the session's time was over.
    pub(super) fn is_cut(&self) -> bool {
        self.lock().cut
    }

    /// Bytes that were accepted for sending and not dropped for newer ones, and those of them that are lost.
    pub(super) fn reckoning(&self) -> (u64, u64) {
        let sending = self.lock();
        (sending.outbox.accepted_bytes(), sending.lost)
    }

    /// Ends the session now: the receive completes as cancelled, and the receiving side does the rest.
    pub(super) fn end(self: &Arc<Self>, reason: Closed) {
        self.end_now(reason, false);
    }

    /// Ends the session because its time is over.
    pub(super) fn cut_off(self: &Arc<Self>, reason: Closed) {
        self.end_now(reason, true);
    }

    fn end_now(self: &Arc<Self>, reason: Closed, late: bool) {
        let (stream, hard, go_on) = {
            let mut sending = self.lock();
            if sending.phase == Phase::Over {
                return;
            }
            sending.reason.get_or_insert(reason);
            sending.phase = Phase::Closing;
            self.settle(&mut sending);
            let stream = sending.stream.clone();
            if let Some(stream) = &stream {
                self.reckon(&mut sending, stream, late);
            }
            let hard = sending.lost > 0 || sending.outbox.waiting_bytes() > 0;
            sending.cut |= late;
            (stream, hard, sending.take_pause(|_| true))
        };
        self.made_room();
        if let Some(stream) = stream {
            close(&stream, hard);
        }
        if go_on {
            // No receive is outstanding; the next one is refused, and notices the end.
            self.receive_later();
        }
    }

    /// Ends the session after its outbox has gone out.
    pub(super) fn close(self: &Arc<Self>, reason: Closed) {
        let go_on = {
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
            self.settle(&mut sending);
            if sending.phase == Phase::Open {
                sending.phase = Phase::Closing;
            }
            // The peer's end can be noticed only by receiving; what comes before it is discarded from now on.
            let go_on = sending.phase == Phase::Closing && sending.take_pause(|_| true);
            self.pump(sending);
            go_on
        };
        if go_on {
            self.receive_later();
        }
        self.made_room();
        self.linger();
    }

    /// The service is shut down, until then: one that is being closed already has as long, too.
    pub(super) fn close_until(self: &Arc<Self>, until: Instant) {
        self.close(Closed::Shutdown);
        let mut sending = self.lock();
        if sending.ends_by.is_some() {
            sending.ends_by = Some(until);
        }
        if matches!(sending.phase, Phase::Closing | Phase::Over) && sending.limit.is_some() {
            sending.limit = Some(until);
            sending.patient = false;
        }
    }

    /// From now on there is a time limit, if there was none. A handshake that was to be done before has no more time
    /// for it.
    pub(super) fn linger(self: &Arc<Self>) {
        let Some(service) = self.service.upgrade() else { return };
        let limit = service.linger_limit();
        let mut sending = self.lock();
        let end = *sending.ends_by.get_or_insert(limit);
        let earlier = match sending.phase {
            Phase::Connecting | Phase::Handshake => sending.limit,
            Phase::Open | Phase::Closing | Phase::Over => None,
        };
        sending.limit = Some(earlier.map_or(end, |earlier| earlier.min(end)));
        drop(sending);
        service.sweep_later(self);
    }

    /// The sweep: true when nothing more has to be waited for.
    pub(super) fn linger_over(self: &Arc<Self>, service: &Inner, now: Instant) -> bool {
        let mut sending = self.lock();
        let next = self.look_at_linger(&mut sending, service, now);
        let (unsent, hard) = match next {
            Lingers::On => return false,
            Lingers::Done => {
                sending.swept = false;
                return true;
            }
            Lingers::Late => {
                // The next address is tried, or the session ends, when the packet of the connect comes.
                // Should it have been made this moment, its peer must not take that for all that is said to it.
                sending.connecting.late = true;
                (VecDeque::new(), true)
            }
            Lingers::Arrived => (VecDeque::new(), false),
            Lingers::Cut => {
                if let Some(stream) = sending.stream.clone() {
                    self.reckon(&mut sending, &stream, true);
                }
                let hard = sending.cut || sending.outbox.waiting_bytes() > 0;
                sending.cut |= hard;
                let unsent = if sending.phase == Phase::Over { sending.give_up() } else { VecDeque::new() };
                (unsent, hard)
            }
        };
        sending.limit = None;
        sending.swept = false;
        let stream = match sending.phase {
            Phase::Over => sending.stream.take(),
            Phase::Connecting if next == Lingers::Late => sending.stream.clone(),
            _ => {
                sending.phase = Phase::Closing;
                sending.stream.clone()
            }
        };
        self.account(&mut sending);
        let (go_on, is_over) = (sending.take_pause(|_| true), sending.phase == Phase::Over);
        drop(sending);
        drop(unsent);
        if let Some(stream) = stream {
            close(&stream, hard);
        }
        if go_on {
            self.receive_later();
        }
        if is_over {
            self.tell_of_loss();
        }
        true
    }

    fn look_at_linger(&self, sending: &mut Sending, service: &Inner, now: Instant) -> Lingers {
        let Some(limit) = sending.limit else { return Lingers::Done };
        let late = limit <= now;
        let stream = match (&sending.stream, sending.phase) {
            (Some(stream), _) => stream.clone(),
            (None, Phase::Over) => return Lingers::Done,
            // Between two addresses.
            (None, _) => return Lingers::On,
        };
        match sending.phase {
            // It had a handshake to do, and has done it. Whoever sets a limit again has it looked at again.
            Phase::Open => return Lingers::Done,
            Phase::Connecting if late && sending.ends_by.is_none_or(|end| end > now) => return Lingers::Late,
            Phase::Handshake if late => {
                // What was accepted for it is lost for that, also when it was to be closed.
                sending.reason = Some(Closed::HandshakeTimeout);
                return Lingers::Cut;
            }
            Phase::Connecting | Phase::Handshake => return if late { Lingers::Cut } else { Lingers::On },
            Phase::Closing | Phase::Over => {}
        }
        let all_given = sending.shut && !sending.busy;
        if all_given && self.owes(&stream) == 0 {
            let hear_until = *sending.hear_until.get_or_insert(now + HEAR_OUT);
            let heard_out = sending.phase == Phase::Over || hear_until <= now || late;
            return if heard_out { Lingers::Arrived } else { Lingers::On };
        }
        // Nobody receives any more, who would notice.
        if sending.phase == Phase::Over && !sending.busy && stream.is_broken() {
            return Lingers::Cut;
        }
        if sending.patient && self.takes(sending, &stream) {
            sending.limit = Some(service.linger_limit());
            return Lingers::On;
        }
        if late { Lingers::Cut } else { Lingers::On }
    }
}

/// What becomes of a session that lingers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lingers {
    On,
    /// Nothing more has to be done here.
    Done,
    /// An address has not answered in time.
    Late,
    /// All has arrived, and the peer had its time to end its side.
    Arrived,
    /// The time is over, or the connection broke.
    Cut,
}

impl Inner {
    /// When a session that begins to linger now is cut.
    fn linger_limit(&self) -> Instant {
        self.until.get().copied().unwrap_or_else(|| after(self.options.linger))
    }
}
