//! What all sessions of a service keep in memory together, and what happens when that is too much.
//!
//! Counted is what waits to be sent in every outbox, sends under way included, and what was received and waits to be handled:
//! unfinished frames, and what came when a session was already paused. Each session knows its share; the sum is here.
//!
//! *Sends* reserve their bytes before they are accepted, so they never exceed the limit. A send that finds no room is
//! treated by the [`SlowConsumer`](super::SlowConsumer) policy, with *the session that holds most*, the new message counted,
//! in the part of the slow consumer: it is ended, or loses its oldest messages, or the sender waits.
//!
//! *Receives* are held back while more than three quarters are used, until no more than half is. What was received already is
//! still handed on, for that is how its memory is freed: of receives that were outstanding only unfinished frames are kept. If
//! all of those together are a quarter more than the limit, the session that holds most is ended at once.
//!
//! Of itself that could stand still for ever: what is used may belong to peers that never read, or to frames whose end cannot
//! come because nothing is received. So while anybody waits for memory somebody looks once a second, and if less than a
//! hundredth of the limit was freed since the last look, the session that holds most is ended.
//!
//! Who waits is in one of two lists, put there under the session's lock: sessions that are not received from, which a free that
//! leaves no more than half has told, and those whose senders wait, which every free has told. No wake-up is lost: whoever waits
//! enters the list and then looks at the figure; whoever frees changes the figure and then looks at the list.
//!
//! Without a limit there is no common figure, which all processors would write for each message: the shares are added up
//! when somebody asks.

use super::conn::{Closed, Conn};
use super::service::Inner;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How often somebody looks whether memory is being freed while others wait for it.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// The share of the limit that has to be freed between two looks.
const PROGRESS_SHARE: usize = 100;

pub(super) struct Memory {
    /// `usize::MAX`: there is none.
    limit: usize,
    used: AtomicUsize,
    /// Counts while `looking` only.
    freed: AtomicU64,
    /// Sessions that are not received from.
    receivers: List,
    /// Sessions whose senders wait.
    senders: List,
    /// Somebody is on the way to tell them.
    telling: AtomicBool,
    /// The timer for the next look is set; and what `freed` was when it was.
    looking: AtomicBool,
    freed_then: AtomicU64,
    /// Sessions that were ended for it.
    pub(super) ended: AtomicU64,
    /// Times that a session was held back for it.
    pub(super) held_back: AtomicU64,
}

/// Sessions that are to be told when memory was freed.
#[derive(Default)]
struct List {
    conns: Mutex<Vec<Arc<Conn>>>,
    count: AtomicUsize,
}

impl List {
    fn add(&self, more: impl IntoIterator<Item = Arc<Conn>>) {
        let mut conns = self.conns.lock().unwrap_or_else(PoisonError::into_inner);
        conns.extend(more);
        self.count.store(conns.len(), Ordering::SeqCst);
    }

    fn take(&self) -> Vec<Arc<Conn>> {
        let mut conns = self.conns.lock().unwrap_or_else(PoisonError::into_inner);
        self.count.store(0, Ordering::SeqCst);
        std::mem::take(&mut conns)
    }

    /// Keeps those that still wait; true if any does. Their locks are taken, so the list's is not held. The caller sees to it
    /// that those hear of what was freed meanwhile.
    fn keep(&self, waits: impl FnMut(&Arc<Conn>) -> bool) -> bool {
        let mut conns = self.take();
        conns.retain(waits);
        let any = !conns.is_empty();
        self.add(conns);
        any
    }

    fn is_empty(&self) -> bool {
        self.count.load(Ordering::SeqCst) == 0
    }
}

impl Memory {
    pub(super) fn new(limit: usize) -> Memory {
        Memory {
            limit,
            used: AtomicUsize::new(0),
            freed: AtomicU64::new(0),
            receivers: List::default(),
            senders: List::default(),
            telling: AtomicBool::new(false),
            looking: AtomicBool::new(false),
            freed_then: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    pub(super) fn is_limited(&self) -> bool {
        self.limit != usize::MAX
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// 0 without a limit.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Counts bytes that are to be kept, if there is room for them.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        !self.is_limited() || self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Counts bytes that are kept already. Only with a limit.
    pub(super) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
    }

    /// True when somebody waits who has to be told: by [`Inner::tell_of_memory`], which needs no lock. Only with a limit.
    #[must_use]
    pub(super) fn free(&self, bytes: usize) -> bool {
        let before = self.used.fetch_sub(bytes, Ordering::SeqCst);
        debug_assert!(before >= bytes, "more memory was freed than counted");
        if self.looking.load(Ordering::SeqCst) {
            self.freed.fetch_add(bytes as u64, Ordering::Relaxed);
        }
        // Those that are not received from are many, perhaps, and go on at the lower mark only.
        !self.senders.is_empty() || (before - bytes <= self.limit / 2 && !self.receivers.is_empty())
    }

    /// Whether nothing more is to be received.
    pub(super) fn is_short(&self) -> bool {
        self.used() > self.limit - self.limit / 4
    }

    /// Whether receiving may go on.
    fn is_calm(&self) -> bool {
        self.used() <= self.limit / 2
    }

    /// Whether there is room for a message.
    pub(super) fn fits(&self, bytes: usize) -> bool {
        self.used().saturating_add(bytes) <= self.limit
    }

    /// Whether what was received has taken more than all that it may.
    fn is_exceeded(&self) -> bool {
        self.used() > self.limit.saturating_add(self.limit / 4)
    }

    /// Has a session that is not received from told. True when it has to be told now: memory was freed meanwhile.
    #[must_use]
    pub(super) fn enlist(&self, conn: &Arc<Conn>) -> bool {
        self.receivers.add([conn.clone()]);
        self.is_calm()
    }

    /// Has a session told whose sender needs so many bytes. True when there is room now.
    #[must_use]
    pub(super) fn enlist_sender(&self, conn: &Arc<Conn>, bytes: usize) -> bool {
        self.senders.add([conn.clone()]);
        self.fits(bytes)
    }

    /// The service ends.
    pub(super) fn clear(&self) {
        drop((self.receivers.take(), self.senders.take()));
    }
}

impl Inner {
    /// Has a worker tell those that wait for memory. Once is enough for all that was freed before the worker comes.
    pub(super) fn tell_of_memory(&self) {
        if !self.memory.telling.swap(true, Ordering::SeqCst) {
            self.post_memory();
        }
    }

    /// Somebody waits for memory from now on: somebody has to look whether it comes.
    pub(super) fn look_at_memory(&self) {
        if !self.memory.looking.swap(true, Ordering::SeqCst) {
            self.memory.freed_then.store(self.memory.freed.load(Ordering::Relaxed), Ordering::Relaxed);
            self.arm_memory_look();
        }
    }

    /// On a worker: those that wait may look again.
    pub(super) fn memory_freed(&self) {
        let memory = &self.memory;
        memory.telling.store(false, Ordering::SeqCst);
        memory.senders.take().iter().for_each(|conn| conn.have_senders_look());
        if memory.is_calm() {
            memory.receivers.take().iter().for_each(Conn::memory_freed);
        }
    }

    /// On a worker, once a second while somebody waits.
    pub(super) fn memory_look(&self) {
        let memory = &self.memory;
        memory.looking.store(false, Ordering::SeqCst);
        // Some have ended meanwhile: nobody is to pay for those.
        let held = memory.receivers.keep(|conn| conn.is_held_for_memory());
        let starved = memory.senders.keep(|conn| conn.has_starved_senders());
        if !held && !starved {
            return;
        }
        let freed = memory.freed.load(Ordering::Relaxed) - memory.freed_then.load(Ordering::Relaxed);
        // A large message may find no room, though memory is not short.
        if (starved || memory.is_short()) && freed < (memory.limit / PROGRESS_SHARE) as u64 {
            self.end_largest(None);
        } else if !memory.is_short() {
            // Between the marks: there is no reason to wait for the lower one.
            memory.receivers.take().iter().for_each(Conn::memory_freed);
        }
        // What was freed while the lists were not in their places has told nobody.
        self.tell_of_memory();
        self.look_at_memory();
    }

    /// Something was received that is kept.
    pub(super) fn bound_memory(&self) {
        while self.memory.is_exceeded() && self.end_largest(None) {}
    }

    /// Who holds most. `with`: a session, and a message for it that counts too.
    pub(super) fn largest(&self, with: Option<(&Arc<Conn>, usize)>) -> Option<Arc<Conn>> {
        let most = self.holder_of_most()?;
        match with {
            Some((conn, bytes)) if conn.holds() + bytes >= most.holds() => Some(conn.clone()),
            _ => (most.holds() > 0).then_some(most),
        }
    }

    /// Ends the session that holds most. False when nobody holds anything.
    pub(super) fn end_largest(&self, with: Option<(&Arc<Conn>, usize)>) -> bool {
        let Some(conn) = self.largest(with) else { return false };
        let held = conn.holds();
        if conn.write_off(Closed::MemoryLimit) {
            self.memory.ended.fetch_add(1, Ordering::Relaxed);
            log::warn!(
                "session {} with {} is ended: the service's memory limit ({} bytes) is reached and this session held most of it ({held} bytes)",
                conn.id(),
                conn.peer(),
                self.memory.limit,
            );
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reservations_never_exceed_the_limit_and_what_is_freed_is_there_again() {
        let memory = Memory::new(100);
        assert!(memory.reserve(60) && memory.reserve(40) && !memory.reserve(1));
        assert!(memory.is_short() && !memory.is_calm());
        assert!(!memory.free(50), "nobody waits");
        assert!(!memory.is_short() && memory.is_calm());
        assert!(!memory.reserve(usize::MAX));
        memory.add(100);
        assert_eq!(memory.used(), 150);
    }

    #[test]
    fn without_a_limit_nothing_is_short() {
        let memory = Memory::new(usize::MAX);
        assert!(memory.reserve(1 << 40) && memory.reserve(usize::MAX), "nothing is counted in common");
        assert!(!memory.is_short() && memory.is_calm() && memory.fits(usize::MAX) && memory.used() == 0);
    }
}
