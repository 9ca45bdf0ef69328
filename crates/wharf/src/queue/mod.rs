//! The NT queue: packets first in, first out; workers last in, first out; a limit on how many of them run.
//!
//! The queue knows no sockets. What it holds is a `T`; what happens outside is told by a [`Driver`], in which one
//! worker, the *leader*, waits for events while the others sleep, each on its own futex word.
//!
//! `get` in steps, all under one short lock but the sleeping:
//!
//! 1. The worker gives back the slot it had while it ran.
//! 2. Engine work (which needs no slot) goes first, two pieces in a row at most: it is handed out uncounted.
//! 3. Below the limit, the worker takes the oldest entry, and a slot.
//! 4. Otherwise, if nobody leads, it leads: it waits in the driver, then starts again at 2. But not beside busy workers
//!    that come back so often that they poll in time themselves.
//! 5. Otherwise it lies down on the stack. The first to lie down *stands by*: it sleeps on the watchdog timer.
//!
//! `state.rs` holds the rules and the invariant that every release of the lock restores, `watchdog.rs` the timer,
//! `supervise.rs` what is done when it goes off, `batch.rs` the entries that a worker took beside the first,
//! `enroll.rs` how a thread comes and goes, `report.rs` the figures, [`probe`](crate::sys::probe) the look at a
//! worker's kernel state, [`threads`](crate::threads) the thread's side. Lock order: the driver's `found` list, then
//! the state, then a worker's `batch`; user code runs under none of them.
//!
//! Closing: the flag is set and the entries are taken out under the lock, every waiter and the leader are woken,
//! and the entries are given to the caller, who frees them outside the lock. Whatever is inserted later comes back
//! from `insert`. So an entry is either handed out by one `get`, or returned by `close` or `insert`, never both.

mod batch;
mod enroll;
mod lock;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(unix, not(loom)))]
mod notify;
mod park;
mod report;
mod signal;
mod state;
mod supervise;
#[cfg(all(test, not(loom)))]
mod tests;
mod watchdog;

use crate::sync::{Arc, Guard, Lock, now};
use crate::threads::{Bindable, Deadline, GetError, Pools, Taken, Wake, WorkerId, bind, bound};
use batch::Owner;
pub(crate) use batch::Rest;
use lock::BackoffLock;
pub(crate) use park::Park;
use park::Woke;
pub(crate) use report::Note;
use state::{Leader, State};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use watchdog::Watchdog;

/// The sockets are polled after this number of entries at the latest, or after a tick, even while more are queued.
/// Otherwise a few busy sockets that keep re-queueing themselves starve the rest (60 ms of latency were measured).
const POLL_EVERY: u32 = 64;

/// How long the watchdog timer lets the queue's head wait.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// What a poll brought.
pub(crate) struct Found<T> {
    pub(crate) entries: Vec<T>,
    pub(crate) engine_work: Vec<T>,
    /// The watchdog timer went off.
    pub(crate) ticked: bool,
}

/// Where entries come from while nobody handles one.
pub(crate) trait Driver<T>: Send + Sync {
    /// Called without the lock, by one thread at a time. Returns when there were events, when `wait` is over (`None`:
    /// never) or after [`kick`](Driver::kick), which may come before the call.
    fn poll(&self, wait: Option<Duration>, found: &mut Found<T>);
    /// Whether a poll could bring anything at all: a queue of posted packets need not look.
    fn has_sources(&self) -> bool;
    /// Ends the present or the next `poll`.
    fn kick(&self);
    /// Whether this is the process that made the queue: a forked child has no thread that would release a lock.
    fn is_here(&self) -> bool {
        true
    }
    /// An entry that nobody can receive any more; called without the lock. Does not panic, whatever the program's
    /// destructors do: others are freed behind it.
    fn dispose(&self, entry: T);
}

pub(crate) struct Queue<T: Send, D: Driver<T>> {
    state: BackoffLock<State<T>>,
    /// The leader's list of events, kept for its memory.
    found: Lock<Found<T>>,
    watchdog: Watchdog,
    driver: D,
    /// The state's `closed`, for those who only want to know.
    closed: AtomicBool,
    pub(crate) pools: Pools,
}

/// A queue that nobody has closed frees what it holds.
#[cfg(not(loom))]
impl<T: Send, D: Driver<T>> Drop for Queue<T, D> {
    fn drop(&mut self) {
        if !self.is_closed() && self.driver.is_here() {
            for entry in self.close() {
                self.driver.dispose(entry);
            }
        }
    }
}

impl<T: Send, D: Driver<T>> Queue<T, D> {
    /// `make` gets the watchdog timer, which the engine shows to its leader.
    pub(crate) fn new(
        limit: usize,
        wake: Wake,
        make: impl FnOnce(&Watchdog) -> std::io::Result<D>,
    ) -> std::io::Result<Self> {
        let watchdog = Watchdog::new(TICK)?;
        let driver = make(&watchdog)?;
        Ok(Queue {
            state: BackoffLock::new(State::new(limit, wake)),
            found: Lock::new(Found { entries: Vec::new(), engine_work: Vec::new(), ticked: false }),
            watchdog,
            driver,
            closed: AtomicBool::new(false),
            pools: Pools::default(),
        })
    }

    pub(crate) fn driver(&self) -> &D {
        &self.driver
    }

    /// Restores the invariant, releases the lock, then wakes whom it named.
    #[inline]
    fn release(&self, mut state: Guard<'_, State<T>>, urgent: bool) {
        #[cfg(any(test, debug_assertions))]
        state.check_counts();
        if !state.is_alone() && (urgent || !state.is_settled()) {
            self.settle(state, urgent);
        }
    }

    #[inline(never)]
    fn settle(&self, state: Guard<'_, State<T>>, urgent: bool) {
        if self.wake_for(state, urgent) {
            let (state, freed) = self.look(self.state.lock());
            // Once: whom another look is due for is left to who settles next, or to the timer.
            // guard: a slot that a look freed goes to another [without: drop((state, freed));]
            self.wake_for(state, freed);
        }
    }

    /// Returns whether a look is due.
    fn wake_for(&self, mut state: Guard<'_, State<T>>, urgent: bool) -> bool {
        let wakes = state.settle(&self.watchdog, urgent);
        drop(state);
        wakes.signal();
        if wakes.kick {
            self.driver.kick();
        }
        wakes.look
    }

    /// Appends an entry. A closed queue gives it back, to be freed by the caller.
    pub(crate) fn insert(&self, entry: T) -> Result<(), T> {
        let mut entry = Some(entry);
        self.insert_with(|| entry.take().expect("called once"));
        entry.map_or(Ok(()), Err)
    }

    /// Appends what `make` makes, under the lock, unless the queue is closed: an entry that is built in its place is
    /// not copied.
    #[inline]
    pub(crate) fn insert_with(&self, make: impl FnOnce() -> T) -> bool {
        let mut state = self.state.lock();
        if state.closed {
            return false;
        }
        if state.fifo.len() == state.fifo.capacity() {
            state.make_room();
        }
        state.fifo.push_back(make());
        state.totals.inserted += 1;
        self.release(state, false); // guard: an insertion settles
        true
    }

    /// Appends an entry unless `limit` of them are queued already.
    pub(crate) fn try_insert(&self, entry: T, limit: usize) -> Result<(), (T, bool)> {
        let mut state = self.state.lock();
        if state.closed {
            return Err((entry, true));
        }
        if state.fifo.len() >= limit {
            return Err((entry, false));
        }
        state.fifo.push_back(entry);
        state.totals.inserted += 1;
        self.release(state, false); // guard: a limited insertion settles
        Ok(())
    }

    /// Appends entries in order, under one lock.
    pub(crate) fn insert_all(&self, entries: impl IntoIterator<Item = T>) {
        let mut entries = entries.into_iter();
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            entries.for_each(|entry| self.driver.dispose(entry));
            return;
        }
        let before = state.fifo.len();
        state.fifo.extend(&mut entries);
        state.totals.inserted += (state.fifo.len() - before) as u64;
        self.release(state, false); // guard: an insertion of several settles
    }

    /// Appends engine work, which any worker inside `get` does without a slot.
    pub(crate) fn insert_engine_work(&self, work: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(work);
        }
        state.engine_work.push_back(work);
        self.release(state, false); // guard: an insertion of work settles
        Ok(())
    }

    /// The common case of [`get`](Queue::get), steps 1 and 3 in one: a worker comes back for the next entry and keeps
    /// its slot. `None` when that takes a closer look.
    #[inline]
    pub(crate) fn take_again(self: &Arc<Self>) -> Option<T>
    where
        T: 'static,
        D: 'static,
    {
        self.take_again_as(bound(self)?)
    }

    /// [`take_again`](Queue::take_again) by a thread that knows which worker it is.
    #[inline]
    pub(crate) fn take_again_as(&self, me: WorkerId) -> Option<T> {
        let mut state = self.state.lock();
        let taken = state.take_again(me.number, || self.driver.has_sources())?;
        self.release(state, false);
        Some(taken)
    }

    /// Takes the next entry. See the top of this file.
    pub(crate) fn get(self: &Arc<Self>, deadline: Deadline) -> Result<Taken<T>, GetError>
    where
        T: 'static,
        D: 'static,
    {
        past_interruptions(|| self.get_interruptibly(deadline))
    }

    /// Like [`get`](Queue::get), and `None` when the worker is [interrupted](Queue::interrupt).
    pub(crate) fn get_interruptibly(self: &Arc<Self>, deadline: Deadline) -> Result<Option<Taken<T>>, GetError>
    where
        T: 'static,
        D: 'static,
    {
        Ok(self.with_worker(|me| self.get_as(me, deadline, 1))?.map(|(taken, _)| taken))
    }

    /// Like [`get`](Queue::get), and takes up to `most` entries that are there at the same moment. Those behind the
    /// first lie in the worker's batch, who walks through them, where others can take them back.
    pub(crate) fn get_many(self: &Arc<Self>, deadline: Deadline, most: usize) -> Result<(Taken<T>, Rest<T>), GetError>
    where
        T: 'static,
        D: 'static,
    {
        past_interruptions(|| self.get_many_interruptibly(deadline, most))
    }

    /// Like [`get_many`](Queue::get_many), and `None` when the worker is [interrupted](Queue::interrupt).
    pub(crate) fn get_many_interruptibly(
        self: &Arc<Self>,
        deadline: Deadline,
        most: usize,
    ) -> Result<Several<T>, GetError>
    where
        T: 'static,
        D: 'static,
    {
        let with_rest = |got: Got<T>| got.map(|(taken, owner)| (taken, Rest { owner }));
        match bind(self) {
            Some(me) => self.get_as(me.number, deadline, most).map(with_rest),
            // The thread is being torn down and belongs to no port: the batch is its own, nobody can take it back.
            None => {
                let me = self.enroll().number;
                let taken = self.get_as(me, deadline, most);
                {
                    let mut state = self.state.lock();
                    let had_one = std::mem::take(&mut state.worker(me).has_batch);
                    state.batches -= usize::from(had_one);
                }
                self.dismiss(me);
                taken.map(with_rest)
            }
        }
    }

    fn with_worker<R>(self: &Arc<Self>, f: impl FnOnce(usize) -> R) -> R
    where
        T: 'static,
        D: 'static,
    {
        match bind(self) {
            Some(me) => f(me.number),
            None => {
                let me = self.enroll().number;
                let result = f(me);
                self.dismiss(me);
                result
            }
        }
    }

    /// Forgets that a poll is due if it could bring nothing.
    fn has_sources(&self, state: &mut State<T>) -> bool {
        let has = self.driver.has_sources();
        if !has {
            state.polled();
        }
        has
    }

    /// One wait, which an interruption may end.
    fn get_as(&self, me: usize, deadline: Deadline, most: usize) -> Result<Got<T>, GetError> {
        let mut state = self.state.lock();
        if state.worker(me).has_batch {
            self.take_back_batch(&mut state, me);
        }
        state.read_clock_unwatched(|| self.driver.has_sources());
        state.come_back(me);
        let mut slot = false;
        let mut polled = false;
        let mut ticked = false;
        loop {
            if state.closed {
                state.go_out(me, 0, slot);
                self.release(state, false);
                self.dispose_found(); // guard: what a leader found after the close is freed
                return Err(GetError::Abandoned);
            }
            if std::mem::take(&mut state.worker(me).interrupted) {
                state.go_out(me, 0, slot);
                self.release(state, false);
                return Ok(None);
            }
            if let Some(work) = state.take_engine_work() {
                if slot {
                    state.active -= 1; // guard: a promise is returned by who finds work
                }
                state.go_out_uncounted(me);
                self.release(state, false); // guard: a departure with work settles
                return Ok(Some((Taken::EngineWork(work), None)));
            }
            let last = polled && deadline.has_passed();
            let poll_due = !last && state.poll_is_due() && self.has_sources(&mut state);
            // A worker that has led leaves the entries for which others were woken to them: they began to wait later
            // (C-05), and would wake for nothing. One that comes back from its handler does not (C-07).
            let spoken_for = polled && state.fifo.len() <= state.promised;
            if !poll_due && (slot || (state.has_room() && !spoken_for)) {
                if let Some(entry) = state.fifo.pop_front() {
                    let further = (most - 1).min(state.fifo.len());
                    let owner = (further > 0).then(|| self.take_along(&mut state, me, further));
                    state.go_out(me, 1 + further, slot);
                    self.release(state, false); // guard: a departure with an entry settles
                    return Ok(Some((Taken::Entry(entry), owner)));
                }
            }
            if std::mem::take(&mut slot) {
                state.active -= 1; // guard: a promise that found nothing is returned
            }
            if std::mem::take(&mut ticked) {
                // Here, not when it settles: it would wake itself.
                state = self.look(state).0;
                continue;
            }
            if !state.engine_work.is_empty() && !poll_due {
                // It had to let entries and polls go first, and there are none.
                state.works_in_a_row = 0;
                continue;
            }
            if state.leader == Leader::Nobody && !state.does_without_leader() && !last {
                (state, ticked) = self.lead(state, Leader::Worker, deadline);
                polled = true;
                continue;
            }
            if deadline.has_passed() {
                state.go_out(me, 0, false);
                self.release(state, false); // guard: a departure without anything settles
                return Err(GetError::TimedOut);
            }
            (state, slot, ticked) = self.lie_down(state, me, deadline);
        }
    }

    /// Step 4: waits in the driver. Returns true when the watchdog timer went off.
    fn lead<'a>(
        &'a self,
        mut state: Guard<'a, State<T>>,
        who: Leader,
        deadline: Deadline,
    ) -> (Guard<'a, State<T>>, bool) {
        let to_take = state.fifo.len() > state.promised && state.has_room();
        // guard: an entry does not keep a supervisor awake [without: let takes = true;]
        let takes = who == Leader::Worker;
        let busy = !state.engine_work.is_empty() || (to_take && takes);
        state.leader = who;
        state.totals.polls += 1;
        let wait = match deadline {
            _ if busy => Some(Duration::ZERO),
            Deadline::Never => None,
            Deadline::Now => Some(Duration::ZERO),
            Deadline::At(at) => Some(at.saturating_duration_since(now())),
        };
        // A leader that only has a look comes back at once, as if it had been kicked already.
        state.kicked = wait == Some(Duration::ZERO); // guard: a leader that was kicked before can be kicked again
        let idle = state.fifo.is_empty() && wait != Some(Duration::ZERO);
        let watched = state.standby.is_some() || state.supervisor.is_some();
        let asleep_since = (idle && watched && takes).then(now);
        let unwanted = state.armed_until.is_some() && !state.needs_the_timer();
        let idles = idle && state.last_gap > self.watchdog.tick() / 2;
        if unwanted && (idles || who == Leader::Supervisor) {
            // The last sleep was long, so this one will be: without this the timer would wake the standby for nothing.
            self.watchdog.disarm();
            state.armed_until = None;
        }
        self.release(state, false);

        let mut found = self.found.lock();
        self.driver.poll(wait, &mut found);
        let mut state = self.state.lock();
        state.read_clock();
        state.leader = Leader::Nobody;
        state.polled();
        if let Some(since) = asleep_since {
            state.last_gap = state.clock.saturating_duration_since(since);
        }
        let ticked = std::mem::take(&mut found.ticked);
        if ticked {
            state.tick();
        }
        // guard: what a leader found after the close is not queued [without: if false {]
        if state.closed {
            // It stays in the list for `dispose_found`.
            return (state, ticked);
        }
        state.totals.inserted += found.entries.len() as u64;
        state.fifo.extend(found.entries.drain(..));
        state.engine_work.extend(found.engine_work.drain(..));
        (state, ticked)
    }

    /// Frees what a leader found in a port that was closed meanwhile. Whoever led calls it when it is outside: freeing
    /// runs user code, which may take the thread to another port.
    fn dispose_found(&self) {
        let mut found = self.found.lock();
        let Found { entries, engine_work, .. } = &mut *found;
        let late: Vec<T> = entries.drain(..).chain(engine_work.drain(..)).collect();
        drop(found);
        late.into_iter().for_each(|entry| self.driver.dispose(entry));
    }

    /// Step 5: sleeps. Returns whether a slot was promised and whether the watchdog timer went off.
    fn lie_down<'a>(
        &'a self,
        mut state: Guard<'a, State<T>>,
        me: usize,
        deadline: Deadline,
    ) -> (Guard<'a, State<T>>, bool, bool) {
        let stands_by = state.supervisor.is_none() && state.standby.is_none();
        let park = state.worker(me).shared.park.clone();
        park.prepare(); // guard: an old signal does not keep a worker from sleeping
        if stands_by {
            state.standby = Some(me);
        } else {
            state.waiters.push(me);
        }
        // guard: a signal that comes before the sleep is kept [without: self.release(state, false); park.prepare();]
        self.release(state, false);
        let woke =
            if stands_by { self.watchdog.wait(&park, deadline.instant()) } else { park.wait(deadline.instant()) };
        let mut state = self.state.lock();
        // guard: a time-out keeps the slot that was promised meanwhile [without: let slot = state.rise(me) && false;]
        let slot = state.rise(me);
        let ticked = woke == Woke::Tick;
        if ticked {
            state.tick();
        } else {
            // It has slept.
            state.read_clock();
        }
        (state, slot, ticked)
    }

    /// Wakes every waiter with *abandoned* and returns what was queued, for the caller to free.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.closed = true;
        self.closed.store(true, Ordering::Release);
        let mut left: Vec<T> = state.fifo.drain(..).collect();
        left.extend(state.engine_work.drain(..));
        for worker in state.workers.iter_mut().flatten() {
            worker.has_batch = false;
            left.extend(worker.shared.batch.lock().drain(..));
        }
        state.batches = 0;
        self.release(state, true); // guard: close settles
        left
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Makes one worker's present or next interruptible `get` come back without an entry.
    pub(crate) fn interrupt(&self, worker: WorkerId) {
        let mut state = self.state.lock();
        let Some(it) = state.workers.get_mut(worker.number).and_then(Option::as_mut) else { return };
        // guard: an interruption does not hit who has the number now [without: if false {]
        if it.generation != worker.generation {
            return;
        }
        it.interrupted = true; // guard: an interruption reaches a worker that is about to wait
        let park = it.shared.park.clone();
        let standing_by = state.standby == Some(worker.number);
        let waits = standing_by || state.waiters.contains(&worker.number);
        let leads = state.worker_leads();
        self.release(state, false);
        if waits {
            park.signal(standing_by); // guard: an interruption reaches a worker that sleeps
        } else if leads {
            self.driver.kick(); // guard: an interruption reaches a worker that leads
        }
    }
}

/// What a wait brings: an entry, and the worker if it has a batch now. `None`: it was interrupted.
type Got<T> = Option<(Taken<T>, Owner<T>)>;

/// What a wait for several brings. `None`: it was interrupted.
type Several<T> = Option<(Taken<T>, Rest<T>)>;

/// Repeats a wait that ended because the worker was interrupted, which only a pool's own waits are for.
fn past_interruptions<R>(mut wait: impl FnMut() -> Result<Option<R>, GetError>) -> Result<R, GetError> {
    loop {
        if let Some(taken) = wait()? {
            return Ok(taken);
        }
    }
}
