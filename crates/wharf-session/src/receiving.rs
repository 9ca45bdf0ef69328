//! The receiving half of a connection: one worker at a time, from `opened` to the end.

use crate::Session;
use crate::Tls;
use crate::closed::Closed;
use crate::coalesce;
use crate::conn::{Conn, NEVER, Phase, count, tick_ms};
use crate::dispatch::Op;
use crate::link::Link;
use crate::pausing::Turn;
use crate::service::{Stream, after};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wharf::{Buffer, Event, Outcome};

/// Receives that one handler call may go through before other sessions come first.
const RECEIVES_PER_TURN: usize = 8;

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

impl Conn {
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
                    coalesce::received(false);
                    if !self.handle(|session, link| session.received(link, buffer)) {
                        return;
                    }
                    continue;
                }
                Turn::GoOn => {
                    coalesce::received(false);
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
                Err(refused) => return self.over(self.failed(refused.error)),
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
                coalesce::received(bytes == buffer.capacity());
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
                self.over(self.failed(error));
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
}
