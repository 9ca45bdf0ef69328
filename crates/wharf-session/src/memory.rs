//! What all sessions of a service keep in memory together, and what happens when that is too much.
//!
//! Counted is what waits to be sent in every outbox, sends under way included, and what was received and waits to be
//! handled: unfinished frames, and what came when a session was already paused. Each session knows its share; the sum
//! is here.
//!
//! *Sends* reserve their bytes before they are accepted, so they never exceed the limit. A send that finds no room is
//! treated by the [`SlowConsumer`](crate::SlowConsumer) policy, with *the session that holds most*, the new message
//! counted, in the part of the slow consumer: it is ended, or loses its oldest messages, or the sender waits.
//!
//! *Receives* are held back while more than three quarters are used, until no more than half is. What was received
//! already is still handed on, for that is how its memory is freed: of receives that were outstanding only unfinished
//! frames are kept. If all of those together are a quarter more than the limit, the session that holds most is ended at
//! once.
//!
//! Of itself that could stand still for ever: what is used may belong to peers that never read, or to frames whose end
//! cannot come because nothing is received. So while anybody waits for memory somebody looks once a second. If less
//! than a hundredth of the limit was freed since the last look, or taken by peers of a message that is not complete,
//! the largest of those whose peers take nothing are ended, as many as it takes: until they held a hundredth, and those
//! that wait may go on.
//!
//! Who waits is in one of two lists, put there under the session's lock: sessions that are not received from, which a
//! free that leaves no more than half has told, and those whose senders wait, which every free has told. No wake-up is
//! lost: whoever waits enters the list and then looks at the figure; whoever frees changes the figure and then looks at
//! the list.
//!
//! *Shared* bytes, those of a broadcast, count once, however many sessions keep them: a [`Charge`] counts them from the
//! first that takes them until the last lets go. Each session *holds* them all the same, for who holds most is asked
//! who does not read. So ending the session that holds most may free nothing: what has to be done is done to as many as
//! it takes.
//!
//! Without a limit there is no common figure, which all processors would write for each message: the shares are added
//! up when somebody asks.

use crate::closed::Closed;
use crate::conn::Conn;
use crate::lock::Lock;
use crate::service::Inner;
use crate::time;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How often somebody looks whether memory is being freed while others wait for it.
pub(super) const LOOK: Duration = Duration::from_secs(1);
/// The share of the limit that has to be freed between two looks.
const PROGRESS_SHARE: usize = 100;

/// Sessions that a look at all of them finds as the largest, and for how long at least nobody looks again. Who has no
/// more sessions than that looks each time.
const CANDIDATES: usize = 1024;
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// The part of the time that looks at all sessions may take.
const LOOKING_SHARE: u32 = 8;

/// Bytes that several sessions of a service keep together.
#[derive(Debug)]
pub(super) struct Charge {
    service: Weak<Inner>,
    bytes: AtomicUsize,
}

impl Charge {
    /// Counts so many bytes, if there is room for them. Only with a limit.
    pub(super) fn reserve(service: &Arc<Inner>, bytes: usize) -> Option<Arc<Charge>> {
        let counted = service.memory.reserve(bytes);
        counted.then(|| Arc::new(Charge { service: Arc::downgrade(service), bytes: AtomicUsize::new(bytes) }))
    }

    pub(super) fn is_of(&self, service: &Arc<Inner>) -> bool {
        std::ptr::eq(self.service.as_ptr(), Arc::as_ptr(service))
    }

    /// They have become so many, and will not become more.
    pub(super) fn shrink_to(&self, bytes: usize) {
        self.free(self.bytes.swap(bytes, Ordering::Relaxed).saturating_sub(bytes));
    }

    fn free(&self, bytes: usize) {
        let Some(service) = self.service.upgrade() else { return };
        if bytes > 0 && service.memory.free(bytes) {
            service.tell_of_memory();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.free(self.bytes.load(Ordering::Relaxed));
    }
}

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
    /// The most that a sender waited for since the last look.
    wanted: AtomicUsize,
    largest: Lock<Largest>,
    /// Nobody has anything that can be dropped, until then.
    nothing_until: Lock<Option<Instant>>,
    /// Looks at all sessions.
    looks: AtomicU64,
    /// Sessions that were ended for it.
    pub(super) ended: AtomicU64,
    /// Times that a session was paused for it.
    pub(super) held_back: AtomicU64,
}

/// The sessions that held most when all were looked at. With a hundred thousand sessions a look takes milliseconds, and
/// a broadcast into a full memory may need to know for each member: so it serves for many, while it is fresh.
#[derive(Default)]
struct Largest {
    /// With what each held then, or when it was looked at since.
    candidates: BinaryHeap<Candidate>,
    /// All others held less.
    least: usize,
    fresh_until: Option<Instant>,
}

struct Candidate {
    holds: usize,
    conn: Weak<Conn>,
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Candidate) -> bool {
        self.holds == other.holds
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Candidate) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Candidate) -> std::cmp::Ordering {
        self.holds.cmp(&other.holds)
    }
}

impl Largest {
    /// The one that holds most, of those that are known. Handles that are not needed any more, perhaps the last ones,
    /// are to be dropped outside the lock.
    fn first(&mut self, unneeded: &mut Vec<Arc<Conn>>) -> Option<Arc<Conn>> {
        while let Some(mut first) = self.candidates.peek_mut() {
            let conn = first.conn.upgrade();
            let holds = conn.as_ref().map_or(0, |conn| conn.holds());
            if holds > 0 && holds >= first.holds {
                return conn;
            }
            unneeded.extend(conn);
            if holds >= self.least {
                first.holds = holds;
            } else {
                PeekMut::pop(first);
            }
        }
        None
    }

    fn look(&mut self, service: &Inner) {
        let begin = time::now();
        let mut all = service.holders();
        service.memory.looks.fetch_add(1, Ordering::Relaxed);
        self.least = 1;
        if all.len() > CANDIDATES {
            let (_, last, _) = all.select_nth_unstable_by_key(CANDIDATES - 1, |(holds, _)| Reverse(*holds));
            self.least = last.0;
            all.truncate(CANDIDATES);
        }
        self.candidates = all.into_iter().map(|(holds, conn)| Candidate { holds, conn }).collect();
        let now = time::now();
        self.fresh_until = now.checked_add(LOOK_AGAIN.max((now - begin) * LOOKING_SHARE));
    }
}

/// A session that holds something.
struct Holder {
    holds: usize,
    taken: u64,
    conn: Arc<Conn>,
}

/// Sessions that are to be told when memory was freed.
#[derive(Default)]
struct List {
    conns: Lock<Vec<Arc<Conn>>>,
    count: AtomicUsize,
}

impl List {
    fn add(&self, more: impl IntoIterator<Item = Arc<Conn>>) {
        let mut conns = self.conns.lock();
        conns.extend(more);
        self.count.store(conns.len(), Ordering::SeqCst);
    }

    fn take(&self) -> Vec<Arc<Conn>> {
        let mut conns = self.conns.lock();
        self.count.store(0, Ordering::SeqCst);
        std::mem::take(&mut conns)
    }

    /// Keeps those that still wait; true if any does. Their locks are taken, so the list's is not held. The caller sees
    /// to it that those hear of what was freed meanwhile.
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
            wanted: AtomicUsize::new(0),
            largest: Lock::default(),
            nothing_until: Lock::new(None),
            looks: AtomicU64::new(0),
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

    /// True when somebody waits who has to be told: by [`Inner::tell_of_memory`], which needs no lock. Only with a
    /// limit.
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

    /// Whether so much is free that what could go out may wait for a moment.
    pub(super) fn has_plenty(&self) -> bool {
        !self.is_limited() || self.used() <= self.limit / 2
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
        self.wanted.fetch_max(bytes, Ordering::Relaxed);
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
        let paused = memory.receivers.keep(|conn| conn.is_paused_for_memory());
        let starved = memory.senders.keep(|conn| conn.has_starved_senders());
        if !paused && !starved {
            return;
        }
        let mut freed = memory.freed.load(Ordering::Relaxed) - memory.freed_then.load(Ordering::Relaxed);
        // A large message may find no room, though memory is not short.
        let enough = (memory.limit / PROGRESS_SHARE).max(1);
        let waits = starved || memory.is_short();
        let wanted = memory.wanted.swap(0, Ordering::Relaxed);
        if waits && freed < enough as u64 {
            let holders = self.largest_holders();
            freed += holders.iter().map(|holder| holder.taken).sum::<u64>();
            if freed < enough as u64 {
                // As many as it takes: if all hold little, one a second would take hours.
                self.end_holders(holders, enough, || {
                    (!starved || memory.fits(wanted)) && (!paused || !memory.is_short())
                });
            }
        } else if !memory.is_short() {
            // Between the marks: there is no reason to wait for the lower one.
            memory.receivers.take().iter().for_each(Conn::memory_freed);
        }
        // What was freed while the lists were not in their places has told nobody.
        self.tell_of_memory();
        self.look_at_memory();
    }

    /// All that hold something, the largest first, and what the peers of the largest have taken since the last look: of
    /// one large message nothing is freed until all of it was taken.
    fn largest_holders(&self) -> Vec<Holder> {
        let mut holders = self.holders();
        holders.sort_unstable_by_key(|(holds, _)| Reverse(*holds));
        let upgraded = holders.into_iter().filter_map(|(holds, conn)| Some((holds, conn.upgrade()?)));
        let look = |(number, (holds, conn)): (usize, (usize, Arc<Conn>))| {
            let taken = if number < CANDIDATES { conn.taken_since() } else { 0 };
            Holder { holds, taken, conn }
        };
        upgraded.enumerate().map(look).collect()
    }

    /// Ends the largest whose peers take nothing, until they held enough and `is_met` says so too; and one in any case.
    fn end_holders(&self, holders: Vec<Holder>, enough: usize, is_met: impl Fn() -> bool) {
        let mut let_go = 0;
        let (deaf, others): (Vec<Holder>, Vec<Holder>) = holders.into_iter().partition(|holder| holder.taken == 0);
        for holder in &deaf {
            if let_go >= enough && is_met() {
                return;
            }
            let_go += holder.holds.max(1);
            self.end_for_memory(&holder.conn);
        }
        if let (0, Some(first)) = (let_go, others.first()) {
            self.end_for_memory(&first.conn);
        }
    }

    /// Drops the oldest messages that have not begun to go out, for a message of so many bytes: of the session that
    /// holds most, that of the message included; and if there are none, for all that it holds is on its way, of the
    /// next ones. False when nobody has any.
    pub(super) fn drop_oldest(&self, conn: &Arc<Conn>, bytes: usize) -> bool {
        if self.largest(Some((conn, bytes))).is_some_and(|largest| largest.drop_oldest(bytes) > 0) {
            return true;
        }
        let begin = time::now();
        let nothing = |until: &Option<Instant>| until.is_some_and(|until| begin < until);
        if nothing(&self.memory.nothing_until.lock()) {
            return false;
        }
        let mut holders = self.holders();
        holders.sort_unstable_by_key(|(holds, _)| Reverse(*holds));
        let mut dropped = false;
        for holder in holders.iter().filter_map(|(_, holder)| holder.upgrade()) {
            dropped |= holder.drop_oldest(bytes) > 0;
            if dropped && self.memory.fits(bytes) {
                return true;
            }
        }
        if !dropped {
            let again = LOOK_AGAIN.max(time::since(begin) * LOOKING_SHARE);
            *self.memory.nothing_until.lock() = begin.checked_add(again);
        }
        dropped
    }

    /// Something was received that is kept.
    pub(super) fn bound_memory(&self) {
        while self.memory.is_exceeded() && self.end_largest(None) {}
    }

    /// Who holds most. `with`: a session, and a message for it that counts too.
    pub(super) fn largest(&self, with: Option<(&Arc<Conn>, usize)>) -> Option<Arc<Conn>> {
        let mut unneeded = Vec::new();
        let most = {
            let mut largest = self.memory.largest.lock();
            let is_fresh =
                self.has_many_sessions(CANDIDATES) && largest.fresh_until.is_some_and(|until| time::now() < until);
            let known = if is_fresh { largest.first(&mut unneeded) } else { None };
            known.or_else(|| {
                largest.look(self);
                largest.first(&mut unneeded)
            })
        };
        let Some(most) = most else { return with.map(|(conn, _)| conn.clone()) };
        match with {
            Some((conn, bytes)) if conn.holds() + bytes >= most.holds() => Some(conn.clone()),
            _ => (most.holds() > 0).then_some(most),
        }
    }

    /// Ends the session that holds most. False when nobody holds anything.
    pub(super) fn end_largest(&self, with: Option<(&Arc<Conn>, usize)>) -> bool {
        let Some(conn) = self.largest(with) else { return false };
        self.end_for_memory(&conn);
        true
    }

    fn end_for_memory(&self, conn: &Arc<Conn>) {
        let held = conn.holds();
        if conn.write_off(Closed::MemoryLimit) {
            self.memory.ended.fetch_add(1, Ordering::Relaxed);
            log::warn!(
                "session {} with {} is ended: the service's memory limit ({} bytes) is reached and this session held \
                 most of it ({held} bytes)",
                conn.id(),
                conn.peer(),
                self.memory.limit,
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Link, Service, Session, SlowConsumer};
    use wharf::Buffer;

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
    fn where_all_hold_little_a_look_ends_as_many_as_free_a_hundredth() {
        struct Idle;
        impl Session for Idle {
            fn received(&mut self, _link: &Link, _data: Buffer) {}
        }
        let builder = Service::options().memory_limit(20_000).outbox(1 << 20, SlowConsumer::Wait);
        let service = builder.start().unwrap();
        let nobody = "127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap();
        let admit = |_| Link(service.inner.admit(nobody.into(), None, Box::new(Idle)).unwrap());
        let links: Vec<Link> = (0..2000).map(admit).collect();
        links.iter().for_each(|link| link.send(vec![1; 10]).unwrap());
        // Waits for the look.
        admit(0).send(vec![2; 100]).unwrap();
        assert_eq!(service.stats().memory.ended, 20);
    }

    #[test]
    fn a_full_memory_of_many_sessions_costs_a_send_no_look_at_all_of_them() {
        const SESSIONS: usize = 20_000;
        struct Idle;
        impl Session for Idle {
            fn received(&mut self, _link: &Link, _data: Buffer) {}
        }
        let builder = Service::options().memory_limit(SESSIONS * 10).outbox(1 << 20, SlowConsumer::DropOldest);
        let service = builder.start().unwrap();
        // They are never connected: what they are sent waits.
        let nobody = "127.0.0.1:9".parse::<std::net::SocketAddr>().unwrap();
        let admit = |_| Link(service.inner.admit(nobody.into(), None, Box::new(Idle)).unwrap());
        let links: Vec<Link> = (0..SESSIONS).map(admit).collect();
        links.iter().for_each(|link| link.send(vec![1; 10]).unwrap());
        assert_eq!(service.stats().memory.used_bytes, SESSIONS * 10);
        links[0].send(vec![2; 10]).unwrap();
        let looks = || service.inner.memory.looks.load(Ordering::Relaxed);
        let before = (looks(), Instant::now());
        links.iter().for_each(|link| link.send(vec![2; 10]).unwrap());
        // One for each time that the last one was too old, which is as often as all of them take an eighth of the time.
        let most = 2 + before.1.elapsed().as_millis() / LOOK_AGAIN.as_millis() + SESSIONS as u128 / CANDIDATES as u128;
        assert!(u128::from(looks() - before.0) <= most, "{} looks at all, where {most} are enough", looks() - before.0);
        // Each in turn lost its oldest, for its own message made it the largest.
        assert!(links.iter().all(|link| link.stats().queued_bytes == 10));
        // Others make room for one that is small still.
        let small = admit(0);
        small.send(vec![3; 5]).unwrap();
        assert_eq!(small.stats().queued_bytes, 5);
        assert!(service.stats().memory.used_bytes <= SESSIONS * 10);
    }

    #[test]
    fn without_a_limit_nothing_is_short() {
        let memory = Memory::new(usize::MAX);
        assert!(memory.reserve(1 << 40) && memory.reserve(usize::MAX), "nothing is counted in common");
        assert!(!memory.is_short() && memory.is_calm() && memory.fits(usize::MAX) && memory.used() == 0);
    }
}
