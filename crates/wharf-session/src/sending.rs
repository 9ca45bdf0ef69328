//! The sending half of a connection: any thread, one at a time.
//!
//! Whoever puts a message into the outbox sends what waits there, unless somebody does already (`Sending::busy`), who
//! then sends it, too. A send that is outstanding is somebody.

use crate::coalesce;
use crate::conn::{Conn, Phase, Sending, count};
use crate::dispatch::{Node, Op};
use crate::ending::HEAR_OUT;
use crate::lock::Guard;
use crate::outbox::{Load, Piece, SendErrorReason};
use crate::pausing::Pause;
use crate::service::{Inner, Stream};
use crate::time;
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use wharf::{Buffer, Event, Outcome};

impl Sending {
    pub(super) fn accepts(&self) -> bool {
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
    pub(super) fn may_leave(&self, service: &Inner) -> bool {
        let share = coalesce::share(service.options.outbox_bytes);
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
    pub(super) fn refusal(&self) -> SendErrorReason {
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
    /// Leaves what was put into the outbox there, for the thread's deferred list, unless somebody sends or has it in
    /// one.
    pub(super) fn leave(self: &Arc<Self>, service: &Inner, mut sending: Guard<'_, Sending>) {
        let is_new = !sending.busy && !std::mem::replace(&mut sending.left, true);
        drop(sending);
        if is_new {
            coalesce::leave(service, self);
        }
    }

    /// Sends what was left, if nobody has.
    pub(super) fn send_left(self: &Arc<Self>) {
        let sending = self.lock();
        if sending.left {
            self.pump(sending);
        }
    }

    /// Sends what waits, unless somebody does already; then lets receiving go on, if that waited for room.
    pub(super) fn pump<'a>(self: &'a Arc<Self>, sending: Guard<'a, Sending>) {
        let mut sending = self.send_waiting(sending);
        let limit = self.service.upgrade().map_or(0, |service| service.options.outbox_bytes);
        let has_room = sending.outbox.queued_bytes() <= limit / 4;
        let go_on = has_room && sending.take_pause(|pause| pause == Pause::Outbox);
        drop(sending);
        if go_on {
            self.receive_later();
        }
    }

    pub(super) fn send_waiting<'a>(self: &'a Arc<Self>, mut sending: Guard<'a, Sending>) -> Guard<'a, Sending> {
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
            self.messages_in_flight.store(number, Ordering::Relaxed);
            if let Some((tls, last)) = seal {
                let sealed = tls.seal(messages, last);
                let mut sending = self.lock();
                let bytes = std::mem::take(&mut sending.sealing);
                match sealed {
                    Ok(_) if sending.reckoned => {
                        sending.busy = false;
                        sending.outbox.completed();
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
            sending.outbox.completed();
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
        let messages = self.messages_in_flight.load(Ordering::Relaxed) * u64::from(result.is_ok());
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
                sending.outbox.completed();
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
            sending.outbox.completed();
            self.account(&mut sending);
            sending.reason.get_or_insert(self.failed(error));
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

fn length(buffers: &[Buffer]) -> u64 {
    buffers.iter().map(|buffer| buffer.len() as u64).sum()
}
