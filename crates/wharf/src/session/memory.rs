//! What all sessions of a service keep in memory together, and what happens when that is too much.
//!
//! Counted is what waits to be sent in every outbox, sends under way included, and what was received and waits to be handled:
//! unfinished frames, and what came when a session was already paused. Each session knows its share; the sum is here.
//!
//! *Sends* reserve their bytes before they are accepted, so they never exceed the limit. A send that finds no room is
//! treated by the [`SlowConsumer`](super::SlowConsumer) policy, with *the session that holds most*, the new message counted,
//! in the part of the slow consumer: it is ended, or loses its oldest messages, or the sender waits.
//!
//! *Receives* are held back while more than three quarters are used, until no more than half is. Of itself that could stand
//! still for ever: what is used may belong to peers that never read, or to frames whose end cannot come because
//! nothing is received. So while anybody waits for memory somebody looks once a second, and if less than a hundredth of the
//! limit was freed since the last look, the session that holds most is ended.
//!
//! Who waits is in one list, put there under the session's lock. No wake-up is lost: whoever waits enters the list and then
//! looks at the figure; whoever frees changes the figure and then looks at the list.

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
    limit: usize,
    used: AtomicUsize,
    freed: AtomicU64,
    /// Sessions that are not received from, and those whose senders wait: to be told when memory was freed.
    list: Mutex<Vec<Arc<Conn>>>,
    waiting: AtomicUsize,
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

impl Memory {
    pub(super) fn new(limit: usize) -> Memory {
        Memory {
            limit,
            used: AtomicUsize::new(0),
            freed: AtomicU64::new(0),
            list: Mutex::default(),
            waiting: AtomicUsize::new(0),
            telling: AtomicBool::new(false),
            looking: AtomicBool::new(false),
            freed_then: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            held_back: AtomicU64::new(0),
        }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::SeqCst)
    }

    /// Counts bytes that are to be kept, if there is room for them.
    pub(super) fn reserve(&self, bytes: usize) -> bool {
        let more = |used: usize| used.checked_add(bytes).filter(|&sum| sum <= self.limit);
        self.used.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
    }

    /// Counts bytes that are kept already.
    pub(super) fn add(&self, bytes: usize) {
        self.used.fetch_add(bytes, Ordering::SeqCst);
    }

    /// True when somebody waits who has to be told: by [`Inner::tell_of_memory`], which needs no lock.
    #[must_use]
    pub(super) fn free(&self, bytes: usize) -> bool {
        let before = self.used.fetch_sub(bytes, Ordering::SeqCst);
        debug_assert!(before >= bytes, "more memory was freed than counted");
        self.freed.fetch_add(bytes as u64, Ordering::Relaxed);
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// Whether nothing more is to be received.
    pub(super) fn is_short(&self) -> bool {
        self.used() > self.limit - self.limit / 4
    }

    /// Whether receiving may go on.
    pub(super) fn is_calm(&self) -> bool {
        self.used() <= self.limit / 2
    }

    /// Has a session told when memory was freed. True when it has to be told now: memory was freed meanwhile.
    #[must_use]
    pub(super) fn enlist(&self, conn: &Arc<Conn>, sender_needs: Option<usize>) -> bool {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.push(conn.clone());
        self.waiting.store(list.len(), Ordering::SeqCst);
        drop(list);
        match sender_needs {
            Some(bytes) => self.used().saturating_add(bytes) <= self.limit,
            None => self.is_calm(),
        }
    }

    fn take_list(&self) -> Vec<Arc<Conn>> {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        self.waiting.store(0, Ordering::SeqCst);
        std::mem::take(&mut list)
    }

    fn put_back(&self, mut conns: Vec<Arc<Conn>>) {
        let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        list.append(&mut conns);
        self.waiting.store(list.len(), Ordering::SeqCst);
    }

    /// The service ends.
    pub(super) fn clear(&self) {
        drop(self.take_list());
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
        self.memory.telling.store(false, Ordering::SeqCst);
        let calm = self.memory.is_calm();
        let waiting = self.memory.take_list();
        let left: Vec<Arc<Conn>> = waiting.into_iter().filter(|conn| !conn.memory_freed(calm)).collect();
        if !left.is_empty() {
            self.memory.put_back(left);
            // It may have become calm between the look and here, when nobody was in the list.
            if !calm && self.memory.is_calm() {
                self.tell_of_memory();
            }
        }
    }

    /// On a worker, once a second while somebody waits.
    pub(super) fn memory_look(&self) {
        let memory = &self.memory;
        memory.looking.store(false, Ordering::SeqCst);
        // Some have ended meanwhile: nobody is to pay for those.
        let waiting: Vec<Arc<Conn>> = memory.take_list().into_iter().filter(|conn| conn.waits_for_memory()).collect();
        if waiting.is_empty() {
            return;
        }
        memory.put_back(waiting);
        let freed = memory.freed.load(Ordering::Relaxed) - memory.freed_then.load(Ordering::Relaxed);
        if !memory.is_short() {
            // Between the marks, and nothing moves: there is no reason to wait for the lower one.
            let waiting = memory.take_list();
            waiting.into_iter().for_each(|conn| _ = conn.memory_freed(true));
        } else if freed < (memory.limit / PROGRESS_SHARE) as u64 {
            self.end_largest(None);
        }
        // What was freed while the list was not in its place has told nobody.
        self.tell_of_memory();
        self.look_at_memory();
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
        log::warn!(
            "session {} with {} is ended: the service's memory limit ({} bytes) is reached and this session holds most of it ({} bytes)",
            conn.id(),
            conn.peer(),
            self.memory.limit,
            conn.holds(),
        );
        self.memory.ended.fetch_add(1, Ordering::Relaxed);
        conn.write_off(Closed::MemoryLimit);
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
        memory.add(1 << 40);
        assert!(!memory.is_short() && memory.is_calm() && memory.reserve(1 << 40));
    }
}
