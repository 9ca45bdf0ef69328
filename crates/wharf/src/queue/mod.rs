//! The NT queue: packets first in, first out; workers last in, first out; a limit on how many of them run.
//!
//! The queue knows no sockets. What it holds is a `T`; what happens outside is told by a [`Driver`], in which one
//! worker, the *leader*, waits for events while the others sleep, each on its own futex word.
//!
//! `get` in steps, all under one short lock but the sleeping:
//!
//! 1. The worker gives back the slot it held while it ran.
//! 2. Engine work (which needs no slot) goes first, two pieces in a row at most: it is handed out uncounted.
//! 3. Below the limit, the worker takes the oldest entry, and a slot.
//! 4. Otherwise, if nobody leads, it leads: it waits in the driver, then starts again at 2. But not beside busy workers that
//!    come back so often that they poll in time themselves.
//! 5. Otherwise it lies down on the stack. The first to lie down *stands by*: it sleeps on the dead-man's timer.
//!
//! `state.rs` holds the rules and the invariant that every release of the lock restores, `watch.rs` the timer,
//! [`probe`](crate::sys::probe) the look at a worker's kernel state, [`threads`](crate::threads) the thread's side. Lock order: the driver's `found`
//! list, then the state, then a worker's `held` list; user code runs under none of them.
//!
//! Closing: the flag is set and the entries are taken out under the lock, every waiter and the leader are woken,
//! and the entries are given to the caller, who frees them outside the lock. Whatever is inserted later comes back
//! from `insert`. So an entry is either handed out by one `get`, or returned by `close` or `insert`, never both.

mod lock;
#[cfg(all(test, loom))]
mod model;
#[cfg(all(unix, not(loom)))]
mod notify;
mod park;
mod signal;
mod state;
#[cfg(all(test, not(loom)))]
mod tests;
mod watch;

use crate::sync::{Arc, Guard, Lock, now};
use crate::sys::probe::{Probe, ThreadState};
use crate::threads::{
    Bindable, Deadline, Nothing, Pools, QueueStats, Taken, Tended, Wake, WorkerId, WorkerReport, WorkerState, bind,
    bound,
};
use lock::BusyLock;
pub(crate) use park::Park;
use park::Woke;
use state::{Shared, State, Worker};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use watch::Watch;

/// The sockets are polled at the latest after so many entries, or a tick, even while more are queued. Otherwise a few busy
/// sockets that keep re-queueing themselves starve the rest (60 ms of latency were measured).
const POLL_EVERY: u32 = 64;

/// How long the dead-man's timer lets the queue's head wait.
pub(crate) const TICK: Duration = Duration::from_millis(1);

/// What a poll brought.
pub(crate) struct Found<T> {
    pub(crate) entries: Vec<T>,
    pub(crate) work: Vec<T>,
    /// The dead-man's timer went off.
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
    /// An entry that nobody can receive any more; called without the lock. Does not panic, whatever the program's
    /// destructors do: others are freed behind it.
    fn dispose(&self, entry: T);
}

pub(crate) struct Queue<T, D> {
    state: BusyLock<State<T>>,
    /// The leader's list of events, kept for its memory.
    found: Lock<Found<T>>,
    watch: Watch,
    driver: D,
    /// The state's `closed`, for those who only want to know.
    closed: AtomicBool,
    pub(crate) pools: Pools,
}

impl<T: Send, D: Driver<T>> Queue<T, D> {
    /// `make` gets the dead-man's timer, which the engine shows to its leader.
    pub(crate) fn new(
        limit: usize,
        wake: Wake,
        make: impl FnOnce(&Watch) -> std::io::Result<D>,
    ) -> std::io::Result<Self> {
        let watch = Watch::new(TICK)?;
        let driver = make(&watch)?;
        Ok(Queue {
            state: BusyLock::new(State::new(limit, wake)),
            found: Lock::new(Found { entries: Vec::new(), work: Vec::new(), ticked: false }),
            watch,
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
        #[cfg(test)]
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
        let wakes = state.settle(&self.watch, urgent);
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
    pub(crate) fn insert_work(&self, work: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(work);
        }
        state.work.push_back(work);
        self.release(state, false); // guard: an insertion of work settles
        Ok(())
    }

    /// The common case of [`get`](Queue::get), steps 1 and 3 in one: a worker comes back for the next entry and keeps its
    /// slot. `None` when that takes a closer look.
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
    pub(crate) fn get(self: &Arc<Self>, deadline: Deadline) -> Result<Taken<T>, Nothing>
    where
        T: 'static,
        D: 'static,
    {
        past_interruptions(|| self.get_interruptibly(deadline))
    }

    /// Like [`get`](Queue::get), and comes back when the worker is [interrupted](Queue::interrupt).
    pub(crate) fn get_interruptibly(self: &Arc<Self>, deadline: Deadline) -> Result<Taken<T>, Nothing>
    where
        T: 'static,
        D: 'static,
    {
        self.with_worker(|me| self.get_as(me, deadline, 1)).map(|(taken, _)| taken)
    }

    /// Like [`get`](Queue::get), and takes up to `most` entries that are there at the same moment. Those behind the
    /// first are held for the worker, who walks through them, where others can take them back.
    pub(crate) fn get_many(self: &Arc<Self>, deadline: Deadline, most: usize) -> Result<(Taken<T>, Held<T>), Nothing>
    where
        T: 'static,
        D: 'static,
    {
        match bind(self) {
            Some(me) => {
                let taken = past_interruptions(|| self.get_as(me.number, deadline, most));
                taken.map(|(taken, holder)| (taken, Held { holder }))
            }
            // The thread is being torn down and belongs to no port: the batch is its own, nobody can take it back.
            None => {
                let me = self.enroll().number;
                let taken = self.get_as(me, deadline, most);
                {
                    let mut state = self.state.lock();
                    let held = std::mem::take(&mut state.worker(me).holds);
                    state.holders -= usize::from(held);
                }
                self.dismiss(me);
                taken.map(|(taken, holder)| (taken, Held { holder }))
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

    /// Returns the worker too, if it holds a batch now.
    fn get_as(&self, me: usize, deadline: Deadline, most: usize) -> Result<(Taken<T>, Holder<T>), Nothing> {
        let mut state = self.state.lock();
        if state.worker(me).holds {
            self.take_back_held(&mut state, me);
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
                return Err(Nothing::Abandoned);
            }
            if std::mem::take(&mut state.worker(me).interrupted) {
                state.go_out(me, 0, slot);
                self.release(state, false);
                return Err(Nothing::Interrupted);
            }
            if let Some(work) = state.take_work() {
                if slot {
                    state.active -= 1; // guard: a promise is returned by who finds work
                }
                state.go_out_uncounted(me);
                self.release(state, false); // guard: a departure with work settles
                return Ok((Taken::Work(work), None));
            }
            let last = polled && deadline.has_passed();
            let poll_due = !last && state.poll_is_due() && self.has_sources(&mut state);
            // A worker that has led leaves the entries for which others were woken to them: they began to wait later
            // (C-05), and would wake for nothing. One that comes back from its handler does not (C-07).
            let spoken_for = polled && state.fifo.len() <= state.promised;
            if !poll_due && (slot || (state.has_room() && !spoken_for)) {
                if let Some(entry) = state.fifo.pop_front() {
                    let further = (most - 1).min(state.fifo.len());
                    let holder = (further > 0).then(|| self.hold(&mut state, me, further));
                    state.go_out(me, 1 + further, slot);
                    self.release(state, false); // guard: a departure with an entry settles
                    return Ok((Taken::Entry(entry), holder));
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
            if !state.work.is_empty() && !poll_due {
                // It had to let entries and polls go first, and there are none.
                state.works_in_a_row = 0;
                continue;
            }
            if !state.leader && !state.does_without_leader() && !last {
                (state, ticked) = self.lead(state, deadline);
                polled = true;
                continue;
            }
            if deadline.has_passed() {
                state.go_out(me, 0, false);
                self.release(state, false); // guard: a departure without anything settles
                return Err(Nothing::TimedOut);
            }
            (state, slot, ticked) = self.lie_down(state, me, deadline);
        }
    }

    /// Step 4: waits in the driver. Returns true when the dead-man's timer went off.
    fn lead<'a>(&'a self, mut state: Guard<'a, State<T>>, deadline: Deadline) -> (Guard<'a, State<T>>, bool) {
        let busy = !state.work.is_empty() || (state.fifo.len() > state.promised && state.has_room());
        state.leader = true;
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
        let asleep_since = (idle && watched).then(now);
        let unwanted = idle && state.armed_until.is_some() && !state.needs_the_timer();
        if unwanted && state.last_gap > self.watch.tick() / 2 {
            // The last sleep was long, so this one will be: without this the timer would wake the standby for nothing.
            self.watch.disarm();
            state.armed_until = None;
        }
        self.release(state, false);

        let mut found = self.found.lock();
        self.driver.poll(wait, &mut found);
        let mut state = self.state.lock();
        state.read_clock();
        state.leader = false;
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
        state.work.extend(found.work.drain(..));
        (state, ticked)
    }

    /// Frees what a leader found in a port that was closed meanwhile. Whoever led calls it when it is outside: freeing
    /// runs user code, which may take the thread to another port.
    fn dispose_found(&self) {
        let mut found = self.found.lock();
        let Found { entries, work, .. } = &mut *found;
        let late: Vec<T> = entries.drain(..).chain(work.drain(..)).collect();
        drop(found);
        late.into_iter().for_each(|entry| self.driver.dispose(entry));
    }

    /// Step 5: sleeps. Returns whether a slot was promised and whether the dead-man's timer went off.
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
        let woke = if stands_by { self.watch.wait(&park, deadline.instant()) } else { park.wait(deadline.instant()) };
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

    /// Looks at the workers outside `get` that it matters of and that were not seen for a tick: who is blocked loses the
    /// slot (C-08) and the rest of its batch, who computes again gets it back (C-09), who is gone is forgotten. The
    /// looking is done without the lock; a worker that has come back meanwhile is left alone, because its stay has
    /// another number. Returns whether a slot became free.
    fn look<'a>(&'a self, mut state: Guard<'a, State<T>>) -> (Guard<'a, State<T>>, bool) {
        let suspects = state.suspects(self.watch.tick());
        if suspects.is_empty() {
            return (state, false);
        }
        drop(state);
        let seen: Vec<ThreadState> = suspects.iter().map(|(_, _, shared)| shared.probe.look()).collect();
        let mut state = self.state.lock();
        state.read_clock();
        let clock = state.clock;
        let mut freed = false;
        for ((index, stay, _), seen) in suspects.into_iter().zip(seen) {
            let Some(worker) = state.workers[index].as_mut() else { continue };
            // guard: a look that comes late does not hit the worker's next stay [without: if false {]
            if worker.stay != stay {
                continue;
            }
            worker.seen = clock;
            match seen {
                ThreadState::Blocked | ThreadState::Gone => {
                    // guard: a slot is not taken away twice [without: if std::mem::take(&mut worker.counted) || true {]
                    if std::mem::take(&mut worker.counted) {
                        worker.written_off = true;
                        worker.left_at = None;
                        worker.blocked_since = Some(clock);
                        state.active -= 1;
                        state.written_off += 1;
                        state.totals.write_offs += 1;
                        freed = true;
                    }
                    // Even one that was written off before: it may have got the batch since.
                    self.take_back_held(&mut state, index); // guard: a worker found blocked holds nothing hostage
                }
                ThreadState::Running if worker.written_off => {
                    worker.written_off = false;
                    worker.blocked_since = None;
                    worker.counted = true; // guard: a worker that computes again counts again
                    state.written_off -= 1;
                    state.active += 1;
                }
                ThreadState::Running => {}
            }
        }
        (state, freed)
    }

    /// The rest of a worker's batch goes back to the head of the queue, in its order.
    fn take_back_held(&self, state: &mut State<T>, index: usize) {
        let worker = state.worker(index);
        if !std::mem::take(&mut worker.holds) {
            return;
        }
        let shared = worker.shared.clone();
        state.holders -= 1;
        let mut held = shared.held.lock();
        state.totals.removed -= held.len() as u64;
        while let Some(entry) = held.pop_back() {
            state.fifo.push_front(entry);
        }
    }

    fn hold(&self, state: &mut State<T>, me: usize, count: usize) -> Arc<Shared<T>> {
        let State { fifo, workers, holders, .. } = state;
        let worker = workers[me].as_mut().expect("the calling worker");
        *holders += usize::from(!std::mem::replace(&mut worker.holds, true));
        worker.shared.held.lock().extend(fifo.drain(..count));
        worker.shared.clone()
    }

    /// Returns entries that were taken but not handed out to the head of the queue, in their order.
    pub(crate) fn give_back(&self, entries: impl DoubleEndedIterator<Item = T>) {
        let mut state = self.state.lock();
        let mut late = Vec::new();
        for entry in entries.rev() {
            if state.closed {
                late.push(entry);
            } else {
                state.totals.removed -= 1;
                state.fifo.push_front(entry);
            }
        }
        self.release(state, false); // guard: what is given back settles
        late.into_iter().for_each(|entry| self.driver.dispose(entry)); // guard: what is given back late is freed
    }

    /// Wakes every waiter with *abandoned* and returns what was queued, for the caller to free.
    pub(crate) fn close(&self) -> Vec<T> {
        let mut state = self.state.lock();
        state.closed = true;
        self.closed.store(true, Ordering::Release);
        let mut left: Vec<T> = state.fifo.drain(..).collect();
        left.extend(state.work.drain(..));
        for worker in state.workers.iter_mut().flatten() {
            worker.holds = false;
            left.extend(worker.shared.held.lock().drain(..));
        }
        state.holders = 0;
        self.release(state, true); // guard: close settles
        left
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Where a worker notes what it handles, for reports.
    pub(crate) fn note(&self, me: WorkerId) -> Note<T> {
        Note { shared: self.state.lock().worker(me.number).shared.clone() }
    }

    /// Whether a worker is inside `get`.
    pub(crate) fn waits(&self, worker: WorkerId) -> bool {
        let state = self.state.lock();
        let it = state.workers.get(worker.number).and_then(Option::as_ref);
        it.is_some_and(|it| it.generation == worker.generation && it.stay == 0)
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let state = self.state.lock();
        let totals = state.totals;
        QueueStats {
            queued: state.fifo.len(),
            limit: state.limit,
            active: state.active - state.promised,
            waiting: state.waiters.len()
                + usize::from(state.standby.is_some())
                + usize::from(state.leader)
                + state.promised,
            blocked: state.workers.iter().flatten().filter(|w| w.blocking || w.written_off).count(),
            inserted: totals.inserted,
            removed: totals.removed,
            wakes: Some(totals.wakes),
            polls: totals.polls,
            ticks: Some(totals.ticks),
            write_offs: Some(totals.write_offs),
        }
    }

    pub(crate) fn workers(&self) -> Vec<WorkerReport> {
        let seen: Vec<_> = {
            let state = self.state.lock();
            let seen = state.workers.iter().flatten().map(|worker| {
                let what = match worker {
                    Worker { stay: 0, .. } => WorkerState::Waiting,
                    Worker { counted: true, .. } => WorkerState::Running,
                    _ => WorkerState::Blocked,
                };
                (worker.shared.clone(), what, worker.blocked_since)
            });
            seen.collect()
        };
        let time = now();
        seen.into_iter()
            .map(|(shared, state, since)| WorkerReport {
                thread: shared.probe.thread(),
                state,
                blocked_for: since.map(|since| time.saturating_duration_since(since)),
                sleeps_in: if state == WorkerState::Blocked { shared.probe.sleeps_in() } else { None },
                device: shared.note.load(Ordering::Relaxed),
            })
            .collect()
    }

    /// An event descriptor that is readable while something is queued.
    #[cfg(all(unix, not(loom)))]
    pub(crate) fn bell(&self) -> std::io::Result<std::sync::Arc<rustix::fd::OwnedFd>> {
        let mut state = self.state.lock();
        if state.notifier.is_none() {
            state.notifier = Some(notify::Bell::new()?);
        }
        let event = state.notifier.as_ref().map(|bell| bell.event().clone()).expect("just made");
        self.release(state, false);
        Ok(event)
    }

    // --- Supervision: a pool's own thread sleeps on the dead-man's timer, so that no worker has to. ---

    /// Makes the calling thread the one that the dead-man's timer wakes. `None` if the port has a supervisor already, or
    /// is closed.
    pub(crate) fn supervise(&self) -> Option<Arc<Park>> {
        let mut state = self.state.lock();
        if state.supervisor.is_some() || state.closed {
            return None;
        }
        let park = Arc::new(Park::default());
        park.prepare();
        state.supervisor = Some(park.clone());
        // Who stands by now sleeps on the same timer; woken, it lies down like the others.
        let mut nudge = None;
        if let Some(standby) = state.standby.take() {
            nudge = Some(state.worker(standby).shared.park.clone());
        }
        self.release(state, false);
        if let Some(standby) = nudge {
            standby.signal(true); // guard: a worker that stood by learns of the supervisor
        }
        Some(park)
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
        let leads = state.leader;
        self.release(state, false);
        if waits {
            park.signal(standing_by); // guard: an interruption reaches a worker that sleeps
        } else if leads {
            self.driver.kick(); // guard: an interruption reaches a worker that leads
        }
    }

    /// Sleeps until the supervisor ends, unless there is none; `park` is signalled to end the sleep.
    pub(crate) fn await_supervision(&self, park: &Arc<Park>) {
        {
            let mut state = self.state.lock();
            if state.closed || state.supervisor.is_none() {
                return;
            }
            state.candidates.push(park.clone());
            self.release(state, false);
        }
        park.wait(None);
        self.state.lock().candidates.retain(|other| !Arc::ptr_eq(other, park)); // guard: a candidate that gives up is forgotten
    }

    /// Ends the supervision: a waiting worker stands by again.
    pub(crate) fn end_supervision(&self) {
        let mut state = self.state.lock();
        if let Some(park) = state.supervisor.take() {
            park.signal(true); // guard: a supervisor learns that it is to stop
        }
        state.candidates.drain(..).for_each(|park| park.signal(false)); // guard: a candidate learns that it may supervise
        self.release(state, false); // guard: the end of supervision settles
    }

    /// Sleeps until the dead-man's timer goes off, and does what has to be done then.
    pub(crate) fn tend(&self, park: &Arc<Park>) -> Tended<T> {
        let mut state = self.state.lock();
        if !state.anybody_inside() {
            // What an earlier turn found beside the one it returned. Behind so much work comes a poll.
            if let Some(work) = state.take_work() {
                self.release(state, false);
                return Tended::Work(work);
            }
        }
        let goes_on = !state.anybody_inside() && !state.work.is_empty() && !park.is_signalled();
        drop(state);
        if !goes_on && self.watch.wait(park, None) == Woke::Signalled {
            return Tended::Stopped;
        }
        let mut state = self.state.lock();
        // With work to go on with it did not sleep, and the timer may have gone off meanwhile.
        let ticked = !goes_on || state.is_overdue();
        if ticked {
            state.tick();
        }
        if state.leader
            && state.fifo.is_empty()
            && state.work.is_empty()
            && state.holders == 0
            && state.written_off == 0
        {
            self.release(state, false);
            return Tended::Nothing;
        }
        state = self.look(state).0;
        if state.closed {
            return Tended::Stopped;
        }
        if state.anybody_inside() {
            if !state.fifo.is_empty() && state.has_room() {
                self.release(state, true); // guard: a supervisor wakes a worker for what was stuck
            } else {
                // Nobody leads, and the active workers have been out for a tick: a waiting one leads.
                let mut wakes = state.settle(&self.watch, false);
                if !state.leader && wakes.is_empty() && !state.does_without_leader() {
                    state.nudge_top(&mut wakes); // guard: a supervisor has somebody lead
                }
                drop(state);
                wakes.signal();
                if wakes.kick {
                    self.driver.kick();
                }
            }
            return Tended::Nothing;
        }
        // Everybody is outside. What the engine has goes on without a slot; entries need a further thread.
        let (mut state, _) = self.lead(state, Deadline::Now);
        if state.closed {
            drop(state);
            self.dispose_found();
            return Tended::Stopped;
        }
        // Not who has just started, nor who does the engine's work.
        let mut workers = state.workers.iter().flatten().peekable();
        let all_blocked = workers.peek().is_some() && workers.all(|worker| worker.blocking || worker.written_off);
        let wanted = state.has_room() && (state.has_entries_left() || all_blocked) && !state.anybody_inside();
        // A poll was made, and entries are not the supervisor's to take: work comes again.
        state.works_in_a_row = 0;
        // Work that is left is taken in the next turn.
        let wanted = wanted && ticked;
        let work = if wanted { None } else { state.take_work() };
        self.release(state, false);
        match work {
            Some(work) => Tended::Work(work),
            None if wanted => Tended::Grow,
            None => Tended::Nothing,
        }
    }
}

impl<T: Send, D: Driver<T>> Bindable for Queue<T, D> {
    fn enroll(&self) -> WorkerId {
        let shared = Arc::new(Shared {
            park: Arc::new(Park::default()),
            probe: Probe::current(),
            held: Lock::new(VecDeque::new()),
            note: AtomicU64::new(0),
        });
        let mut worker = Worker {
            shared,
            generation: 0,
            counted: false,
            promised: false,
            stay: 0,
            seen: now(),
            written_off: false,
            blocking: false,
            interrupted: false,
            left_at: None,
            took: 0,
            holds: false,
            blocked_since: None,
        };
        let mut state = self.state.lock();
        state.enrolled += 1;
        let generation = state.enrolled;
        worker.generation = generation;
        let number = match state.workers.iter().position(Option::is_none) {
            Some(free) => {
                state.workers[free] = Some(worker);
                free
            }
            None => {
                state.workers.push(Some(worker));
                state.workers.len() - 1
            }
        };
        WorkerId { number, generation }
    }

    /// The thread exits or moves to another port: its slot and its batch go back (C-02, C-12).
    fn dismiss(&self, worker: usize) {
        let mut state = self.state.lock();
        self.take_back_held(&mut state, worker); // guard: an exit gives the batch back
        let gone = state.workers[worker].take();
        state.written_off -= usize::from(gone.as_ref().is_some_and(|worker| worker.written_off));
        if gone.is_some_and(|worker| worker.counted) {
            state.active -= 1; // guard: an exit gives the slot back
        }
        self.release(state, false); // guard: an exit settles
    }

    fn enter_blocking(&self, worker: usize) -> bool {
        let mut state = self.state.lock();
        self.take_back_held(&mut state, worker); // guard: a worker that says it blocks holds nothing hostage
        let me = state.worker(worker);
        // guard: the inner one of two calls of `blocking` does not end the outer [without: if me.stay == 0 {]
        if me.stay == 0 || me.blocking {
            return false;
        }
        me.blocking = true;
        // guard: a worker in `blocking` is not counted again by a look [without: let written_off = me.written_off;]
        let written_off = std::mem::take(&mut me.written_off);
        me.blocked_since = Some(now());
        me.left_at = None;
        let counted = std::mem::take(&mut me.counted);
        state.written_off -= usize::from(written_off);
        if counted {
            state.active -= 1; // guard: a worker in `blocking` gives its slot back
        }
        self.release(state, true); // guard: a worker that says it blocks settles
        true
    }

    fn leave_blocking(&self, worker: usize) {
        let mut state = self.state.lock();
        let me = state.worker(worker);
        // guard: a `get` inside `blocking` is counted once [without: if !std::mem::take(&mut me.blocking) && false {]
        if !std::mem::take(&mut me.blocking) {
            // A `get` inside the closure has counted it anew.
            return;
        }
        me.blocked_since = None;
        let counted = std::mem::replace(&mut me.counted, true);
        let clock = state.clock;
        state.worker(worker).seen = clock;
        if !counted {
            state.active += 1;
        }
        self.release(state, false);
    }
}

/// Repeats a wait that ended because the worker was interrupted, which only a pool's own waits are for.
fn past_interruptions<R>(mut wait: impl FnMut() -> Result<R, Nothing>) -> Result<R, Nothing> {
    loop {
        match wait() {
            Err(Nothing::Interrupted) => {}
            other => return other,
        }
    }
}

/// See [`Queue::note`].
pub(crate) struct Note<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Note<T> {
    pub(crate) fn set(&self, device: u64) {
        self.shared.note.store(device, Ordering::Relaxed);
    }
}

/// What a worker has taken and not come to: see [`Queue::get_many`].
pub(crate) struct Held<T> {
    holder: Holder<T>,
}

/// Whose `held` list it is; nobody's if it was empty from the start.
type Holder<T> = Option<Arc<Shared<T>>>;

impl<T> Held<T> {
    #[inline]
    pub(crate) fn next(&self) -> Option<T> {
        self.holder.as_ref()?.held.lock().pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.holder.as_ref().map_or(0, |holder| holder.held.lock().len())
    }

    pub(crate) fn drain(&self) -> Vec<T> {
        self.holder.as_ref().map_or_else(Vec::new, |holder| holder.held.lock().drain(..).collect())
    }
}
