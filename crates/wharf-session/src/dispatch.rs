//! What a worker does with a packet of a service.

use crate::accepting::{Listener, Taken};
use crate::coalesce::{self, Deferred};
use crate::conn::Conn;
use crate::reconnect::Control;
use crate::service::{Inner, Listening};
use std::cell::Cell;
use std::sync::Arc;
use wharf::{Event, Packet};

/// What a device of a service is.
#[derive(Clone)]
pub(super) enum Node {
    Listener(Arc<Listening>),
    /// A listener that failed, and is tried again.
    Resting(Listener),
    Taken(Arc<Taken>),
    Session(Arc<Conn>),
    Client(Arc<Control>),
    /// Sends that were left: see `coalesce.rs`.
    Deferred(Arc<Deferred>),
    Service,
}

/// What an operation of a service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Accept,
    Connect,
    /// Posted for a connection that was made elsewhere.
    Start,
    Receive,
    Resume,
    Send,
    Sweep,
    Timeouts,
    Signal,
    /// Sessions have tokens again.
    Rates,
    /// Memory was freed, and somebody waits for it; and the look whether it is.
    Memory,
    MemoryLook,
    /// A client's wait is over; and an address has not answered, in the attempt with these last bits of its number.
    ConnectAgain,
    ConnectLate(u8),
}

thread_local! {
    /// The service whose worker this thread is: its address, 0 for none.
    static WORKER_OF: Cell<usize> = const { Cell::new(0) };
    /// The session whose handler this thread runs: its number, 0 for none.
    static HANDLING: Cell<u64> = const { Cell::new(0) };
}

/// This thread runs a handler of that session, until the value is dropped.
pub(super) struct Handling {
    outer: u64,
}

impl Handling {
    pub(super) fn of(session: u64) -> Handling {
        Handling { outer: HANDLING.replace(session) }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        HANDLING.set(self.outer);
    }
}

impl Inner {
    /// What a worker does with a packet.
    pub(super) fn work(self: &Arc<Self>, packet: Packet<Node, Op>) {
        WORKER_OF.set(Arc::as_ptr(self).addr());
        self.handle(packet);
    }

    fn handle(self: &Arc<Self>, packet: Packet<Node, Op>) {
        let Packet { key, context, event, .. } = packet;
        let _turn = coalesce::Turn;
        match (key, context, event) {
            (Node::Listener(listening), _, Event::Accepted { listener, result }) => {
                let _counted = self.accepted_one();
                if let Some((socket, peer)) = self.next_accept(&listening, &listener, result) {
                    self.accepted(&listening, socket, peer);
                }
            }
            (Node::Listener(listening), _, Event::AcceptedLocal { listener, result }) => {
                let _counted = self.accepted_one();
                if let Some(socket) = self.next_accept(&listening, &listener, result) {
                    self.accepted_local(&listening, socket);
                }
            }
            (Node::Resting(listener), _, Event::Elapsed { result: Ok(_) }) => {
                let _ = self.accept(&listener);
            }
            (Node::Resting(_), ..) => {}
            (Node::Taken(taken), ..) => self.serve_taken(&taken),
            (Node::Client(client), Op::ConnectAgain, Event::Elapsed { result: Ok(_) }) => client.attempt(),
            (Node::Client(client), Op::ConnectLate(attempt), Event::Elapsed { result: Ok(_) }) => {
                client.connect_late(attempt);
            }
            (Node::Client(_), ..) => {}
            (Node::Deferred(deferred), ..) => deferred.due(),
            (Node::Session(conn), _, Event::Connected { stream, result }) => self.connected(&conn, stream, result),
            (Node::Session(conn), _, Event::Received { stream, buffer, result }) => {
                conn.received(&stream, buffer, result);
            }
            (Node::Session(conn), Op::Start, _) => {
                if let Some(stream) = conn.stream() {
                    conn.opened(&stream);
                }
            }
            (Node::Session(conn), Op::Resume, _) => {
                if let Some(stream) = conn.stream() {
                    conn.receive(&stream);
                }
            }
            (Node::Session(conn), _, event) => conn.sent(event),
            (_, Op::Sweep, _) => self.sweep(),
            (_, Op::Timeouts, _) => self.look_for_timeouts(),
            (_, Op::Rates, _) => self.rates_due(),
            (_, Op::Memory, _) => self.memory_freed(),
            (_, Op::MemoryLook, _) => self.memory_look(),
            (_, Op::Signal, Event::Signal { result: Ok(number) }) => {
                self.signals.lock().push(number);
                self.signalled.notify_all();
            }
            _ => {}
        }
    }

    /// Whether this thread is a worker of the service.
    pub(super) fn is_worker(&self) -> bool {
        WORKER_OF.get() == std::ptr::from_ref(self).addr()
    }

    /// The session whose handler this thread runs, 0 for none: who waits for that to end waits for ever.
    pub(super) fn own_session(&self) -> u64 {
        if self.is_worker() { HANDLING.get() } else { 0 }
    }

    fn rates_due(&self) {
        let (due, next) = self.rates.due();
        if let Some(after) = next {
            self.arm_rates(after);
        }
        due.iter().for_each(Conn::rate_due);
    }
}
