//! What the queue knows, and the rules that hold whenever its lock is free.
//!
//! * `fifo` holds what needs a slot to be handed out, `engine_work` what does not (the engine's own progress).
//! * `active` counts the slots in use: workers outside `get` that run, and *promised* slots of workers that were
//!   picked from the stack and have not woken yet. It may exceed `limit` when written-off workers run again (C-09).
//! * Waiting workers lie on a stack, the most recent one on top (C-05). One of them *stands by*: it lies below the
//!   stack and sleeps on the watchdog timer instead of its futex word.
//! * At most one worker *leads*: it waits inside the engine, outside the lock. Where all are outside, the supervisor
//!   leads. It takes no entry, so it is woken for none: a waiter is, and where there is none the timer sees to it.
//!
//! **The invariant.** Whoever has changed something settles ([`State::settle`]) before it sleeps or leaves, and so
//! restores it: *while something is queued that nobody was woken for, or lies in a batch, or nobody leads, or a worker
//! that was written off may run again beside others, and anybody waits, leads or supervises, the watchdog timer is
//! armed and somebody sleeps on it.* For a supervisor alone, what is queued counts only where a pool may start another
//! worker: nobody else could take it. No packet is stranded (C-18): either a worker outside `get` comes back for it, or
//! the timer fetches one.
//!
//! **The timer is never pushed beyond what it is about.** It goes off at the latest one tick after the oldest of these:
//! the beginning of a stay outside `get` whose slot or batch is wanted (or the last look at it, or the last time that
//! this was thought over before it was wanted), the last poll while nobody leads, the insertion of an entry that a free
//! slot could take. Packets that flow beside push it on only as far as these have moved on ([`State::review`]).
//!
//! **Who looks.** While packets flow, whoever settles finds out in passing that a look is due, a quarter of a tick
//! before the timer would go off, and looks itself. So a blocked worker beside a busy one costs one look in a tick and
//! no wake-up. Where nobody comes back, the timer wakes who sleeps on it. Where nobody sleeps on it, because all
//! threads are outside and no supervisor is there, a worker that comes back reads the clock each time.
//!
//! Times are those of `clock`, the last reading of the clock by anybody: a stay begins at the latest when its `seen`
//! says, so a look may come early and does not come late.
//!
//! A debug build checks all this: the counts when the lock is released, the timer when somebody settles. A violation
//! panics.
//!
//! The lines marked `guard:` in the files of this folder hold this up. `ci/loom` takes each of them out and requires
//! that a model in `model.rs` fails.
//!
//! **When a further worker is woken.** Waking a thread on another core costs about 30 us of processor time, five
//! echoed messages. So the policy [`Wake::Adaptive`] wakes one at once only when nobody is active, or when the
//! backlog (entries times the average handler time) is worth two wake-ups; otherwise the active worker that will
//! return soon takes the next entry, and if it does not return, the tick does. [`Wake::Eager`] wakes one for each
//! entry while slots are free, as NT does. No entry ever wakes two workers: each wake-up promises a slot, and
//! promises are weighed against the entries.

use super::park::Park;
use super::watchdog::Watchdog;
use crate::sync::{Arc, Lock, now};
use crate::sys::probe::Probe;
use crate::threads::Wake;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

/// The backlog that is worth waking a further worker for: about twice the cost of a wake-up.
const BACKLOG_WORTH_A_WAKE: Duration = Duration::from_micros(50);
/// What a handler is taken to need before one was measured: an echo.
const FIRST_SERVICE_TIME: Duration = Duration::from_micros(5);
/// One service time in this number is measured: reading the clock costs 25 to 40 ns.
const SERVICE_SAMPLE_EVERY: u64 = 8;
/// This number of queued entries is a burst.
const BURST: usize = 8;
/// A worker that was found blocked is looked at again when it has slept this part of the time longer, but not more
/// often than once in a tick and not less often than once in `LONGEST_SLEEP_UNSEEN` ticks, unless the number of
/// sleepers makes their turn come later. The longer it sleeps, the less does a late look matter: a look costs 2 to 3
/// us, and hundreds may sleep.
const PART_OF_A_SLEEP: u32 = 32;
const LONGEST_SLEEP_UNSEEN: u32 = 64;
/// Workers that are looked at in one go, 50 us at most: first who has a slot, then who was not seen for longest. Of
/// those that were found blocked before, no more than these are looked at in a tick.
pub(super) const LOOKS_AT_A_TIME: usize = 16;
/// Pieces of engine work that may be taken in a row while an entry could be taken, or a poll is due.
pub(super) const WORKS_IN_A_ROW: u32 = 2;
/// Up to this number of workers, a debug build counts again at each release what the queue keeps counted.
#[cfg(any(test, debug_assertions))]
const CHECKED_AT_A_RELEASE: usize = 64;
/// Weight of a sample in the moving average, and how many times the average it may count at most. One handler that
/// sleeps for 50 ms would otherwise distort the next 40 decisions.
const SERVICE_WEIGHT: u32 = 8;
const SERVICE_CLIP: u32 = 8;

/// What others may touch of a worker without the queue's lock.
pub(super) struct Shared<T> {
    pub(super) park: Arc<Park>,
    pub(super) probe: Probe,
    /// Entries of the batch that the worker walks through: taken from the queue, not yet seen by user code.
    pub(super) batch: Lock<VecDeque<T>>,
    /// What the worker handles now, for reports: the number of the device.
    pub(super) note: AtomicU64,
}

pub(super) struct Worker<T> {
    pub(super) shared: Arc<Shared<T>>,
    /// How many workers were enrolled until this one was.
    pub(super) generation: u64,
    /// Holds one of the `active` slots.
    pub(super) counted: bool,
    /// Was picked from the stack with a slot, and has not woken yet.
    pub(super) promised: bool,
    /// Number of the present stay outside `get`, 0 while inside. Unique, so a late look cannot hit the next stay.
    pub(super) stay: u64,
    /// When that stay began, or a look last showed what it does.
    pub(super) seen: Instant,
    /// A look found it blocked and took its slot.
    pub(super) written_off: bool,
    /// Inside `blocking`.
    pub(super) blocking: bool,
    /// Its present or next interruptible `get` is to come back without an entry.
    pub(super) interrupted: bool,
    /// Since when it has been outside `get`, where that was measured.
    pub(super) left_at: Option<Instant>,
    /// How many entries it took along.
    pub(super) took: u32,
    /// Its `batch` may have entries.
    pub(super) has_batch: bool,
    /// When a look first found it blocked in this stay.
    pub(super) blocked_since: Option<Instant>,
}

/// Running totals since the port was made.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Totals {
    pub(super) inserted: u64,
    pub(super) removed: u64,
    pub(super) wakes: u64,
    pub(super) polls: u64,
    pub(super) ticks: u64,
    pub(super) write_offs: u64,
}

/// Who waits in the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    Nobody,
    Worker,
    /// The supervisor, or who was that when it went in. It takes no entry.
    Supervisor,
}

pub(super) struct State<T> {
    pub(super) fifo: VecDeque<T>,
    pub(super) engine_work: VecDeque<T>,
    pub(super) workers: Vec<Option<Worker<T>>>,
    /// Workers that there have been.
    pub(super) enrolled: u64,
    pub(super) waiters: Vec<usize>,
    pub(super) standby: Option<usize>,
    pub(super) supervisor: Option<Arc<Park>>,
    /// The supervisor may find a pool that starts a further worker.
    pub(super) may_grow: bool,
    /// Who would supervise if the supervisor ended.
    pub(super) candidates: Vec<Arc<Park>>,
    pub(super) leader: Leader,
    /// The timer has gone off while nobody was inside, and nobody was found inside since: the supervisor leads.
    pub(super) unattended: bool,
    pub(super) kicked: bool,
    /// Workers that took a batch and have not come back.
    pub(super) batches: usize,
    /// Workers that a look found blocked and that have not come back.
    pub(super) written_off: usize,
    pub(super) active: usize,
    pub(super) promised: usize,
    pub(super) limit: usize,
    pub(super) wake: Wake,
    pub(super) closed: bool,
    pub(super) stays: u64,
    /// The last reading of the clock.
    pub(super) clock: Instant,
    /// Entries and work taken since the last poll, and when that was.
    pub(super) since_poll: u32,
    pub(super) polled_at: Instant,
    /// Engine work taken in a row, without an entry between that could be taken.
    pub(super) works_in_a_row: u32,
    /// Entries up to this total were inserted by then; while they are not taken, one has waited since then.
    mark: u64,
    marked_at: Instant,
    /// When the timer and the workers outside are next thought over.
    review_at: Instant,
    /// The timer goes off once in a tick at most: what it is about may go on, as a pool without a thread to spare.
    next_tick: Instant,
    /// Before that nobody who was written off is looked at again.
    next_round: Instant,
    /// Between the last two ticks no worker came for an entry.
    stalled: bool,
    removed_at_tick: u64,
    pub(super) armed_until: Option<Instant>,
    /// Times since the clock was last read that somebody wanted the timer armed.
    pub(super) rearms: u32,
    /// How long the leader last slept in the engine: tells a port under load from an idle one.
    pub(super) last_gap: Duration,
    pub(super) service: Duration,
    pub(super) totals: Totals,
    /// Releases of the lock since the counts were last checked.
    #[cfg(any(test, debug_assertions))]
    unchecked: usize,
    #[cfg(all(unix, not(loom)))]
    pub(super) notifier: Option<super::notify::Waker>,
}

/// Whom to wake after the lock was released.
pub(super) struct Wakes {
    parks: Vec<(Arc<Park>, bool)>,
    pub(super) kick: bool,
    /// Somebody outside is to be looked at, now and by whoever settles.
    pub(super) look: bool,
}

impl Wakes {
    pub(super) fn is_empty(&self) -> bool {
        self.parks.is_empty()
    }

    pub(super) fn signal(&self) {
        for (park, standing_by) in &self.parks {
            park.signal(*standing_by);
        }
    }
}

impl<T> State<T> {
    pub(super) fn new(limit: usize, wake: Wake) -> Self {
        let clock = now();
        State {
            fifo: VecDeque::new(),
            engine_work: VecDeque::new(),
            workers: Vec::new(),
            enrolled: 0,
            waiters: Vec::new(),
            standby: None,
            supervisor: None,
            // In a model always: to say so there would take the lock, and be one more step in each schedule.
            may_grow: cfg!(loom),
            candidates: Vec::new(),
            leader: Leader::Nobody,
            unattended: false,
            kicked: false,
            batches: 0,
            written_off: 0,
            active: 0,
            promised: 0,
            limit,
            wake,
            closed: false,
            stays: 0,
            clock,
            since_poll: 0,
            polled_at: clock,
            works_in_a_row: 0,
            mark: 0,
            marked_at: clock,
            review_at: clock,
            next_tick: clock,
            next_round: clock,
            stalled: false,
            removed_at_tick: 0,
            armed_until: None,
            rearms: 0,
            last_gap: Duration::ZERO,
            service: FIRST_SERVICE_TIME,
            totals: Totals::default(),
            #[cfg(any(test, debug_assertions))]
            unchecked: 0,
            #[cfg(all(unix, not(loom)))]
            notifier: None,
        }
    }

    pub(super) fn worker(&mut self, index: usize) -> &mut Worker<T> {
        self.workers[index].as_mut().expect("a worker's number is valid as long as its thread lives")
    }

    pub(super) fn has_room(&self) -> bool {
        self.active < self.limit
    }

    /// Reads the clock.
    pub(super) fn read_clock(&mut self) {
        // What two threads read may reach the lock in the other order.
        self.clock = self.clock.max(now());
    }

    /// The watchdog timer went off.
    pub(super) fn tick(&mut self) {
        self.read_clock();
        self.armed_until = None;
        self.next_tick = self.clock + super::TICK;
        self.totals.ticks += 1;
        let before = std::mem::replace(&mut self.removed_at_tick, self.totals.removed);
        self.stalled = before == self.totals.removed; // guard: while the active ones compute, another leads
    }

    /// The active workers are at the limit, have something to do, come back for it, and poll every `POLL_EVERY`
    /// entries, which is at least once in a tick. A worker that waits would only be in their way as leader, woken by
    /// every event and allowed to handle none.
    pub(super) fn does_without_leader(&self) -> bool {
        let polled_in_time = self.service.saturating_mul(super::POLL_EVERY) <= super::TICK;
        !self.fifo.is_empty() && !self.has_room() && !self.stalled && self.engine_work.is_empty() && polled_in_time
    }

    /// Somebody sleeps on the watchdog timer, or will as soon as that is needed.
    #[inline]
    pub(super) fn is_watched(&self) -> bool {
        self.anybody_inside() || self.supervisor.is_some()
    }

    /// Nobody could be woken, no loop of the program's own waits for the waker, and nobody outside need be looked at:
    /// there is nothing to settle.
    #[inline]
    pub(super) fn is_alone(&self) -> bool {
        #[cfg(all(unix, not(loom)))]
        if self.notifier.is_some() {
            return false;
        }
        !self.is_watched() && self.batches == 0 && self.written_off == 0
    }

    /// A poll is due after `POLL_EVERY` entries or a tick, whatever is queued: a few busy sockets that keep re-queueing
    /// themselves, or handlers that take long, would starve the rest.
    #[inline]
    pub(super) fn poll_is_due(&self) -> bool {
        self.leader == Leader::Nobody
            && (self.since_poll >= super::POLL_EVERY || self.clock >= self.polled_at + super::TICK)
    }

    /// A poll was made, or could bring nothing. Work does not begin anew with it: a piece may take a tick, so that a
    /// poll is due each time, and entries would wait for as long as there is work.
    pub(super) fn polled(&mut self) {
        self.since_poll = 0;
        self.polled_at = self.clock;
    }

    /// A worker comes back where no timer can tell it the time. With nothing that a poll could bring and nobody to be
    /// looked at it need not know.
    #[inline]
    pub(super) fn read_clock_unwatched(&mut self, has_sources: impl FnOnce() -> bool) {
        if !self.is_watched() && (self.batches > 0 || self.written_off > 0 || has_sources()) {
            self.read_clock();
        }
    }

    /// What [`settle`](State::settle) comes to with most packets of a burst: all slots are taken, so nobody can be
    /// woken for an entry, somebody sleeps on the timer, and it need not be looked at yet.
    #[inline]
    pub(super) fn is_settled(&mut self) -> bool {
        #[cfg(all(unix, not(loom)))]
        if self.notifier.is_some() {
            return false;
        }
        let full = self.active >= self.limit && self.engine_work.is_empty() && !self.closed;
        let watched = self.armed_until.is_some() && (self.standby.is_some() || self.supervisor.is_some());
        let settled = full && watched && self.is_a_burst() && !(self.rearms + 1).is_multiple_of(BURST as u32);
        self.rearms += u32::from(settled);
        #[cfg(any(test, debug_assertions))]
        if settled {
            self.check_watched();
        }
        settled
    }

    /// The clock is read now and then only.
    #[inline]
    fn is_a_burst(&self) -> bool {
        self.fifo.len() > BURST
    }

    /// A worker waits in the engine.
    #[inline]
    pub(super) fn worker_leads(&self) -> bool {
        self.leader == Leader::Worker
    }

    /// Somebody waits in the engine, or is about to: the supervisor, where all are outside, after each piece of work.
    fn is_led(&self) -> bool {
        self.leader != Leader::Nobody || (self.unattended && !self.anybody_inside())
    }

    /// Somebody is inside `get` and can be reached.
    #[inline]
    pub(super) fn anybody_inside(&self) -> bool {
        self.worker_leads() || self.standby.is_some() || !self.waiters.is_empty()
    }

    /// Nobody has ended that supervision.
    pub(super) fn is_supervised_by(&self, park: &Arc<Park>) -> bool {
        self.supervisor.as_ref().is_some_and(|it| Arc::ptr_eq(it, park))
    }

    /// A worker enters `get`: its slot goes back, so that at the limit it can take the next entry itself (C-06, C-07).
    pub(super) fn come_back(&mut self, me: usize) {
        let worker = self.worker(me);
        let counted = std::mem::take(&mut worker.counted);
        worker.stay = 0;
        // guard: a worker that came back is not counted again by a look [without: let written_off = worker.written_off;]
        let written_off = std::mem::take(&mut worker.written_off);
        worker.blocking = false;
        worker.blocked_since = None;
        let sample = worker.left_at.take().map(|left| now().saturating_duration_since(left) / worker.took.max(1));
        self.written_off -= usize::from(written_off);
        if counted {
            self.active -= 1; // guard: a worker gives its slot back
        }
        if let Some(sample) = sample {
            let clipped = sample.min(self.service * SERVICE_CLIP + Duration::from_micros(1));
            self.service = self.service - self.service / SERVICE_WEIGHT + clipped / SERVICE_WEIGHT;
        }
    }

    /// Apart from the insertion itself, so that the entry can be built in its place.
    #[cold]
    pub(super) fn make_room(&mut self) {
        self.fifo.reserve(self.fifo.len().max(64));
    }

    /// A worker that runs comes back, and goes out with the next entry at once. `None`, and nothing changed, when that
    /// needs a closer look.
    #[inline]
    pub(super) fn take_again(&mut self, me: usize, has_sources: impl FnOnce() -> bool) -> Option<T> {
        self.read_clock_unwatched(has_sources);
        let poll_due = self.poll_is_due();
        let worker = self.workers[me].as_mut()?;
        let plain = worker.counted
            && !worker.has_batch
            && worker.left_at.is_none()
            && !self.closed
            && self.engine_work.is_empty();
        if !plain || poll_due || self.active > self.limit {
            return None;
        }
        let taken = self.fifo.pop_front()?;
        self.stays += 1;
        worker.stay = self.stays; // guard: a worker that takes again begins a new stay
        worker.seen = self.clock;
        worker.took = 1;
        if self.stays.is_multiple_of(SERVICE_SAMPLE_EVERY) && !(self.waiters.is_empty() && self.standby.is_none()) {
            worker.left_at = Some(now());
        }
        self.totals.removed += 1;
        self.since_poll += 1;
        self.works_in_a_row = 0;
        Some(taken)
    }

    /// A worker leaves `get` and counts as running until it comes back, blocks or exits (C-03, C-11).
    pub(super) fn go_out(&mut self, me: usize, took: usize, has_slot: bool) {
        if !has_slot {
            self.active += 1;
        }
        self.stays += 1;
        let stay = self.stays;
        self.totals.removed += took as u64;
        self.since_poll = self.since_poll.saturating_add(u32::try_from(took).unwrap_or(u32::MAX));
        // Without anybody to wake there is nothing to decide, and the clock need not be read.
        let measure = took > 0
            && stay.is_multiple_of(SERVICE_SAMPLE_EVERY)
            && !(self.waiters.is_empty() && self.standby.is_none());
        if took > 0 {
            self.works_in_a_row = 0;
        }
        let clock = self.clock;
        let worker = self.worker(me);
        worker.counted = true;
        worker.stay = stay;
        worker.seen = clock;
        worker.took = u32::try_from(took).unwrap_or(u32::MAX);
        worker.left_at = measure.then(now);
    }

    /// A worker leaves `get` on the engine's business, without a slot.
    pub(super) fn go_out_uncounted(&mut self, me: usize) {
        self.stays += 1;
        let stay = self.stays;
        self.worker(me).stay = stay;
    }

    /// Engine work needs no slot, so it goes before entries and polls, but not for long: work that begets work would
    /// keep them waiting for ever.
    pub(super) fn take_engine_work(&mut self) -> Option<T> {
        if self.works_in_a_row >= WORKS_IN_A_ROW {
            return None;
        }
        let work = self.engine_work.pop_front()?;
        self.works_in_a_row += 1; // guard: engine work does not starve entries and polls
        self.since_poll = self.since_poll.saturating_add(1);
        Some(work)
    }

    /// Takes a worker that woke by itself off the stack, and turns a promise into a slot.
    pub(super) fn rise(&mut self, me: usize) -> bool {
        if self.standby == Some(me) {
            self.standby = None; // guard: a standby that woke by itself is not woken in another's place
        } else if let Some(at) = self.waiters.iter().rposition(|&waiter| waiter == me) {
            self.waiters.remove(at); // guard: a waiter that woke by itself is not woken in another's place
        }
        let promised = std::mem::take(&mut self.worker(me).promised);
        if promised {
            self.promised -= 1;
        }
        promised
    }

    fn pop_waiter(&mut self) -> Option<(usize, bool)> {
        match self.waiters.pop() {
            Some(top) => Some((top, false)),
            None => self.standby.take().map(|bottom| (bottom, true)),
        }
    }

    /// A leader that was kicked comes back at once and takes an entry, as one that was promised a slot does.
    fn coming(&self) -> usize {
        usize::from(self.worker_leads() && self.kicked)
    }

    fn worth_a_wake(&self) -> bool {
        if self.active + self.coming() == 0 || self.wake == Wake::Eager {
            return true;
        }
        let backlog = u32::try_from(self.fifo.len() - self.promised - self.coming()).unwrap_or(u32::MAX);
        self.service.saturating_mul(backlog) >= BACKLOG_WORTH_A_WAKE
    }

    /// Entries for which nobody was woken. The others are as good as taken: who wakes settles again.
    pub(super) fn has_entries_left(&self) -> bool {
        self.fifo.len() > self.promised + self.coming()
    }

    pub(super) fn needs_the_timer(&self) -> bool {
        let queued = self.has_entries_left() || !self.engine_work.is_empty() || self.batches > 0;
        // Where nobody could take it, it waits for who comes.
        let queued = queued && (self.may_grow || self.anybody_inside());
        let recount = self.written_off > 0 && self.active > 0;
        (queued || !self.is_led() || recount) && self.is_watched()
    }

    /// When the worker is to be looked at. `None`: it does not matter what it does.
    fn look_due(&self, worker: &Worker<T>, tick: Duration) -> Option<Instant> {
        if let Some(asleep_since) = worker.blocked_since.filter(|_| worker.written_off) {
            let slept = self.clock.saturating_duration_since(asleep_since);
            let look = worker.seen + (slept / PART_OF_A_SLEEP).clamp(tick, tick * LONGEST_SLEEP_UNSEEN);
            return Some(look.max(self.next_round));
        }
        let slots_wanted = self.has_entries_left() && !self.has_room();
        // Where all are outside the supervisor leads, and may have to start another.
        let supervised_alone = self.supervisor.is_some() && !self.anybody_inside();
        // The timer keeps the count up to date, and ends when all have come back or are found blocked.
        let recount = self.written_off > 0;
        // guard: a batch is taken from a worker that does not come back [without: let wanted = slots_wanted || supervised_alone || recount;]
        let wanted = slots_wanted || supervised_alone || recount || worker.has_batch;
        (worker.counted && wanted).then(|| worker.seen + tick)
    }

    /// Whom to look at now: first who has a slot, then who was not seen for longest.
    pub(super) fn suspects(&mut self, tick: Duration) -> Vec<(usize, u64, Arc<Shared<T>>)> {
        let mut due: Vec<_> = Vec::new();
        for (index, worker) in self.workers.iter().enumerate() {
            let Some(worker) = worker else { continue };
            if self.look_due(worker, tick).is_some_and(|look| look <= self.clock + tick / 4) {
                due.push((worker.written_off, worker.seen, index));
            }
        }
        due.sort_unstable();
        due.truncate(LOOKS_AT_A_TIME);
        if due.iter().any(|&(written_off, ..)| written_off) {
            self.next_round = self.clock + tick;
        }
        let suspect = |(_, _, index): (bool, Instant, usize)| {
            let worker = self.worker(index);
            (index, worker.stay, worker.shared.clone())
        };
        due.into_iter().map(suspect).collect()
    }

    /// Moves the mark on if all entries up to it were taken.
    fn move_mark(&mut self) {
        if self.totals.removed >= self.mark {
            self.mark = self.totals.inserted;
            self.marked_at = self.clock;
        }
    }

    /// When the timer has to go off at the latest, never more than a tick from now, and when a look is due.
    fn due(&self, tick: Duration) -> (Instant, Option<Instant>) {
        let mut due = self.clock + tick;
        if self.has_entries_left() && self.has_room() {
            due = due.min(self.marked_at + tick); // guard: an entry that a free slot could take is not left behind
        }
        if self.leader == Leader::Nobody {
            due = due.min(self.polled_at + tick); // guard: a port without a leader is polled in time
        }
        let looks = self.workers.iter().flatten().filter_map(|worker| self.look_due(worker, tick));
        let look = looks.min();
        // guard: the timer is not pushed beyond the stay of a worker that blocks [without: (due, look)]
        (look.map_or(due, |look| due.min(look)), look)
    }

    /// Restores the invariant at the top of this file. `urgent`: somebody announced that it will block, or the tick
    /// found the queue stuck; one worker is then woken whatever the policy says.
    pub(super) fn settle(&mut self, watchdog: &Watchdog, urgent: bool) -> Wakes {
        let mut wakes = Wakes { parks: Vec::new(), kick: false, look: false };
        if self.closed {
            self.wake_everybody(&mut wakes);
            return wakes;
        }
        let mut urgent = urgent;
        while self.fifo.len() > self.promised + self.coming()
            && self.active + self.coming() < self.limit
            && (urgent || self.worth_a_wake())
        {
            urgent = false;
            let Some((waiter, standing_by)) = self.pop_waiter() else {
                if self.leader != Leader::Supervisor {
                    self.kick(&mut wakes); // guard: an insertion reaches a sleeping leader
                }
                break;
            };
            self.active += 1; // guard: a wake-up reserves a slot
            self.promised += 1; // guard: one entry wakes one worker
            self.totals.wakes += 1;
            let worker = self.worker(waiter);
            worker.promised = true;
            wakes.parks.push((worker.shared.park.clone(), standing_by));
        }
        if urgent && self.leader == Leader::Nobody && self.active == 0 {
            self.nudge_top(&mut wakes); // guard: where all have said that they block, one leads
        }
        if !self.engine_work.is_empty() {
            self.kick(&mut wakes); // guard: work reaches a sleeping leader
        }
        if self.needs_the_timer() {
            if self.supervisor.is_none() && self.standby.is_none() && !self.waiters.is_empty() {
                // Its futex sleep has no deadline. It wakes and stands by, or does what is to be done.
                let bottom = self.waiters.remove(0);
                self.standby = Some(bottom);
                self.totals.wakes += 1;
                wakes.parks.push((self.worker(bottom).shared.park.clone(), false)); // guard: somebody sleeps on the timer
            }
            wakes.look = self.review(watchdog);
        } else if !self.is_watched() {
            // Nobody would hear the timer: who comes back has read the clock.
            wakes.look = self.clock >= self.review_at && self.think_over(watchdog.tick()).1;
        }
        #[cfg(all(unix, not(loom)))]
        if let Some(waker) = &mut self.notifier {
            waker.set(!self.fifo.is_empty() || !self.engine_work.is_empty());
        }
        #[cfg(any(test, debug_assertions))]
        self.check_watched();
        wakes
    }

    /// Every slot belongs to a worker that runs, or to one that was promised it; a closed queue is empty.
    ///
    /// It walks through all workers, so a port with more than [`CHECKED_AT_A_RELEASE`] of them is checked at every
    /// second release, or third, and so on: a release costs a walk through that many workers on average, however many
    /// there are.
    #[cfg(any(test, debug_assertions))]
    pub(super) fn check_counts(&mut self) {
        self.unchecked += 1;
        if self.unchecked.saturating_mul(CHECKED_AT_A_RELEASE) < self.workers.len() {
            return;
        }
        self.unchecked = 0;
        let count = |what: fn(&Worker<T>) -> bool| self.workers.iter().flatten().filter(|worker| what(worker)).count();
        assert_eq!(self.promised, count(|worker| worker.promised), "slots promised");
        assert_eq!(self.active, self.promised + count(|worker| worker.counted), "slots in use");
        assert_eq!(self.batches, count(|worker| worker.has_batch), "batches");
        assert_eq!(self.written_off, count(|worker| worker.written_off), "written off");
        assert_eq!(count(|worker| worker.counted && (worker.promised || worker.written_off || worker.blocking)), 0);
        assert!(!self.closed || self.fifo.is_empty() && self.engine_work.is_empty(), "a closed queue is empty");
    }

    /// The invariant at the top of this file.
    #[cfg(any(test, debug_assertions))]
    fn check_watched(&self) {
        if self.needs_the_timer() {
            let until = self.armed_until.expect("the watchdog timer is armed");
            assert!(until <= self.clock + super::TICK, "it goes off within a tick");
            assert!(
                self.leader != Leader::Nobody || self.standby.is_some() || self.supervisor.is_some(),
                "somebody sleeps on it"
            );
        }
    }

    /// Wakes the most recent waiter without a slot, to lead.
    pub(super) fn nudge_top(&mut self, wakes: &mut Wakes) {
        if let Some((waiter, standing_by)) = self.pop_waiter() {
            self.totals.wakes += 1;
            wakes.parks.push((self.worker(waiter).shared.park.clone(), standing_by));
        }
    }

    pub(super) fn kick(&mut self, wakes: &mut Wakes) {
        if self.leader != Leader::Nobody && !self.kicked {
            self.kicked = true;
            self.totals.wakes += 1;
            wakes.kick = true;
        }
    }

    /// Moves the timer to when it is needed next, and returns whether somebody has to be looked at now. At most once
    /// per half tick: a timer that is pushed on with every packet would cost more than it saves. In a burst the clock
    /// is read now and then only; a timer that goes off too early for it costs one look.
    fn review(&mut self, watchdog: &Watchdog) -> bool {
        self.rearms += 1;
        if self.armed_until.is_some() && self.is_a_burst() && !self.rearms.is_multiple_of(BURST as u32) {
            return false;
        }
        self.rearms = 0;
        self.read_clock();
        if self.armed_until.is_some() && self.clock < self.review_at {
            return false;
        }
        let (due, look) = self.think_over(watchdog.tick());
        let due = due.max(self.clock).max(self.next_tick);
        let gone_off = self.armed_until.is_some_and(|until| until <= self.clock);
        if self.armed_until != Some(due) && !(gone_off && due == self.clock) {
            watchdog.arm(due, self.clock); // guard: the watchdog timer is armed
            self.armed_until = Some(due);
        }
        #[cfg(any(test, debug_assertions))]
        self.check_due(watchdog.tick());
        look
    }

    /// When the timer has to go off, and whether a look is due: a quarter of a tick earlier, so that whoever comes back
    /// in time spares the wake-up.
    fn think_over(&mut self, tick: Duration) -> (Instant, bool) {
        self.move_mark();
        let (due, look) = self.due(tick);
        let look = look.map(|look| look - tick / 4);
        let next = look.map_or(self.clock + tick / 2, |look| look.min(self.clock + tick / 2));
        self.review_at = next.max(self.clock + tick / 8);
        // guard: who settles looks when a look is due [without: (due, false)]
        (due, look.is_some_and(|look| look <= self.clock))
    }

    /// The timer goes off in time for everything that it is about.
    #[cfg(any(test, debug_assertions))]
    fn check_due(&self, tick: Duration) {
        let until = self.armed_until.expect("it was just armed");
        let in_time = |at: Instant| until <= at.max(self.clock).max(self.next_tick);
        let looks = self.workers.iter().flatten().filter_map(|worker| self.look_due(worker, tick));
        looks.for_each(|look| assert!(in_time(look), "for a look"));
        assert!(self.leader != Leader::Nobody || in_time(self.polled_at + tick), "for a poll");
        let waits = self.has_entries_left() && self.has_room();
        assert!(!waits || in_time(self.marked_at + tick), "for an entry that a free slot could take");
    }

    fn wake_everybody(&mut self, wakes: &mut Wakes) {
        while let Some((waiter, standing_by)) = self.pop_waiter() {
            wakes.parks.push((self.worker(waiter).shared.park.clone(), standing_by)); // guard: close wakes every waiter
        }
        self.kick(wakes); // guard: close wakes the leader
        if let Some(park) = self.supervisor.take() {
            wakes.parks.push((park, true)); // guard: close wakes the supervisor
        }
        wakes.parks.extend(self.candidates.drain(..).map(|park| (park, false)));
        #[cfg(all(unix, not(loom)))]
        if let Some(waker) = &mut self.notifier {
            waker.set(true);
        }
    }
}
