//! When a send leaves: at once, unless a worker is going through many frames that came together.
//!
//! A system call for each message and each member is what a busy room costs, and one call takes many messages as well
//! as one. So while a worker goes through the frames of a receive, the first frame's sends leave at once, and so do the
//! last one's; of those between, each session's are left in its outbox, and leave in one send when the frames are done.
//! If the receive was full, and the peer is ahead of us anyway, so are the first one's, and they leave when the worker
//! has gone through what it may receive in one turn.
//!
//! What was left lies in the outboxes, accepted, in order, and counted: whoever sends to such a session, closes or ends
//! it sends that first, as what waits in any outbox. The thread's *deferred list* names the sessions, and has nothing
//! else. It is emptied, each session's messages in one send,
//!
//! - when the frames are done, also by a panic; and between two frames when the system's coarse clock says that more
//!   than a moment has passed since the first was left. That is a millisecond, or as long as the last emptying took:
//!   where a line costs a thousand sends, one more line must not;
//! - when a session's share, or a shared log, is full;
//! - when the handler says that it blocks ([`blocking`](wharf::blocking));
//! - by a packet that is posted when the first is left. A handler that blocks and does not say so loses its slot, and
//!   another worker takes the packet. So the deferred list belongs to nobody, and has a lock; the flag that says that
//!   such a packet is in the queue is under it, and is taken back before the list is taken out, so that whatever is
//!   left later posts another.
//!
//! With a memory limit sends are coalesced only while no more than half of it is used.

use crate::conn::Conn;
use crate::dispatch::{Node, Op};
use crate::lock::Lock;
use crate::service::Inner;
use crate::shared_log::SharedLog;
use crate::time::coarse_ms;
use std::cell::{Cell, RefCell};
use std::sync::{Arc, Weak};
use wharf::BeforeBlocking;

/// For how long a send waits for further frames, if sending takes no longer. By a clock that moves 100 to 1000 times a
/// second.
const AGE_MS: u64 = 1;

/// What may wait in an outbox for others to be sent with it, in bytes and as a part of the outbox.
const SHARE_BYTES: usize = 64 * 1024;
const SHARE_PART: usize = 8;
/// An outbox that has no room for a shared log of so many bytes gets each message by itself.
const LOG_LEAST: usize = 1024;

/// Sessions with something in their outboxes that nobody sends yet.
#[derive(Default)]
pub(super) struct Deferred(Lock<Left>);

#[derive(Default)]
struct Left {
    sessions: Vec<Arc<Conn>>,
    /// A packet that empties it is in the queue.
    is_posted: bool,
}

/// What a thread coalesces.
#[derive(Default)]
struct Coalescing {
    /// Sends are left, now.
    on: Cell<bool>,
    /// The receive was full.
    behind: Cell<bool>,
    /// When the first of what is left was left, by the coarse clock.
    since: Cell<Option<u64>>,
    /// How long the last emptying of the deferred list took, in milliseconds.
    took: Cell<u64>,
    /// With the service that it is for, whose port has the packet that empties it.
    deferred: RefCell<Option<(Weak<Inner>, Arc<Deferred>)>>,
    /// What a group says, and to whom.
    group_write: RefCell<Option<GroupWrite>>,
}

/// A group's shared log, that goes on while the same members are to hear the same.
pub(super) struct GroupWrite {
    pub(super) shared_log: Arc<SharedLog>,
    /// Which group, which of its members, and who of them not: compared by address, and kept so that it stays theirs.
    pub(super) members: Arc<[crate::Link]>,
    pub(super) except: Option<u64>,
    /// Those who have the shared log.
    pub(super) hear: u64,
    /// Those who could not take it, and get each message by itself.
    pub(super) others: Vec<crate::Link>,
}

thread_local! {
    static COALESCING: Coalescing = Coalescing::default();
}

/// What may wait in an outbox of such a size.
pub(super) fn share(outbox_bytes: usize) -> usize {
    SHARE_BYTES.min(outbox_bytes / SHARE_PART)
}

/// How much a shared log for outboxes of such a size may hold, if it is worth it.
pub(super) fn log_bytes(outbox_bytes: usize) -> Option<usize> {
    Some(share(outbox_bytes)).filter(|&bytes| bytes >= LOG_LEAST)
}

/// A receive has come: whether it was full.
pub(super) fn received(is_full: bool) {
    let _ = COALESCING.try_with(|coalesce| coalesce.behind.set(is_full));
}

/// Whether the last receive was full.
pub(super) fn is_behind() -> bool {
    COALESCING.try_with(|coalesce| coalesce.behind.get()).unwrap_or(false)
}

/// From now on this thread's sends are left, or not any more. What was left stays so. A handler that says it blocks
/// ends it.
pub(super) fn set(on: bool) {
    if COALESCING.try_with(|coalesce| coalesce.on.replace(on)).is_ok_and(|was_on| was_on != on) {
        if on { STOP.add() } else { STOP.remove() }
    }
}

static STOP: BeforeBlocking = BeforeBlocking::new(stop);

/// What the handler sends while it blocks, and after that, leaves at once, until the next frame.
fn stop() {
    let _ = COALESCING.try_with(|coalesce| coalesce.on.set(false));
    send();
}

/// Whether this thread's sends are left.
pub(super) fn is_on() -> bool {
    COALESCING.try_with(|coalesce| coalesce.on.get()).unwrap_or(false)
}

/// Whether something was left.
pub(super) fn has_left() -> bool {
    COALESCING.try_with(|coalesce| coalesce.since.get().is_some()).unwrap_or(false)
}

/// A session's send was left. Not under its lock.
pub(super) fn leave(service: &Inner, conn: &Arc<Conn>) {
    let other = |known: &Option<(Weak<Inner>, _)>| known.as_ref().is_some_and(|(of, _)| !of.ptr_eq(&conn.service));
    if COALESCING.with(|coalesce| other(&coalesce.deferred.borrow())) {
        // The packet of another service does not come if that ends.
        send();
        COALESCING.with(|coalesce| drop(coalesce.deferred.take()));
    }
    let deferred = COALESCING.with(|coalesce| {
        if coalesce.since.get().is_none() {
            coalesce.since.set(Some(coarse_ms()));
        }
        coalesce.deferred.borrow_mut().get_or_insert_with(|| (conn.service.clone(), Arc::default())).1.clone()
    });
    let post = {
        let mut left = deferred.0.lock();
        left.sessions.push(conn.clone());
        !std::mem::replace(&mut left.is_posted, true)
    };
    if post && service.port.post(0, Node::Deferred(deferred.clone()), Op::Send).is_err() {
        // A closed port takes no post, and its sessions end. The next may be of another service.
        deferred.0.lock().is_posted = false;
    }
}

/// Sends what this thread has left, if it was left long enough ago.
pub(super) fn send_if_late() {
    let is_late = |coalesce: &Coalescing| {
        coalesce.since.get().is_some_and(|since| coarse_ms().saturating_sub(since) >= coalesce.took.get().max(AGE_MS))
    };
    if COALESCING.try_with(is_late).unwrap_or(false) {
        send();
    }
}

/// Sends what this thread has left. False when that is nothing.
pub(super) fn send_all() -> bool {
    let left = has_left();
    send();
    left
}

/// Sends what this thread has left.
pub(super) fn send() {
    let deferred = COALESCING.try_with(|coalesce| {
        drop(coalesce.group_write.take());
        coalesce.since.take()?;
        coalesce.deferred.borrow().as_ref().map(|(_, deferred)| deferred.clone())
    });
    if let Ok(Some(deferred)) = deferred {
        let begun = coarse_ms();
        let sessions = std::mem::take(&mut deferred.0.lock().sessions);
        sessions.iter().for_each(Conn::send_left);
        let took = coarse_ms().saturating_sub(begun);
        let _ = COALESCING.try_with(|coalesce| coalesce.took.set(took));
    }
}

/// Goes on with what a group says: with what is there, if it is for the same, or with what `begin` makes.
pub(super) fn with_group_write<R>(act: impl FnOnce(&mut Option<GroupWrite>) -> R) -> R {
    COALESCING.with(|coalesce| {
        // Taken out: a send to those who get it by themselves may wait, and then send all that was left, which ends it.
        let mut group_write = coalesce.group_write.take();
        let result = act(&mut group_write);
        coalesce.group_write.replace(group_write);
        result
    })
}

impl Deferred {
    /// The packet was taken.
    pub(super) fn due(&self) {
        let sessions = {
            let mut left = self.0.lock();
            left.is_posted = false;
            std::mem::take(&mut left.sessions)
        };
        sessions.iter().for_each(Conn::send_left);
    }
}

/// Whatever happens to a worker in the handling of a packet, nothing of what it left stays.
pub(super) struct Turn;

impl Drop for Turn {
    fn drop(&mut self) {
        set(false);
        received(false);
        send();
    }
}
