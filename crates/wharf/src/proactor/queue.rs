//! Threads and their waiting. Who runs and who waits is the kernel's business; what is kept here is what it does not
//! tell: which threads belong to the port, and when the next timer is due.
//!
//! **Timers** need somebody whose wait ends in time: the *keeper*. With a pool that is its supervisor; otherwise one of
//! the waiting threads, whose wait ends at the earliest deadline. Whoever leaves the port while a deadline stands that
//! nobody keeps, and others wait, posts an empty packet, so that another one keeps it. Whoever sets an earlier deadline
//! does so, too. No deadline is missed: who begins to wait is counted before it looks whether somebody keeps the time,
//! and who stops keeping says so before it looks whether anybody waits.
//!
//! **Waking a particular thread** (a pool that stops, the port's end): each waits alertably, and a call that does
//! nothing is queued to it, which ends its wait, or its next one.

use super::packet::Entry;
use super::port::PortDriver;
use crate::sync::{Arc, Lock, Monitor};
use crate::sys::calls::{Completions, NoPacket, OVERLAPPED_ENTRY, Thread};
use std::collections::VecDeque;
use std::sync::Weak;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::threads::{
    Bindable, Deadline, GetError, Grow, Pools, QueueStats, Taken, Tended, WorkerId, WorkerReport, WorkerState, bind,
};

/// What the kernel's keys say: what kind of packet it is.
pub(super) mod key {
    /// An operation of a device.
    pub(in super::super) const OPERATION: usize = 1;
    /// A program's own.
    pub(in super::super) const POST: usize = 2;
    /// One that was finished here.
    pub(in super::super) const PACKET: usize = 3;
    /// A function's.
    pub(in super::super) const CALL: usize = 4;
    /// A periodic timer's.
    pub(in super::super) const TICK: usize = 5;
    /// Nobody's: whoever takes it looks around, and waits on.
    pub(in super::super) const NOTHING: usize = 6;
    /// A key that is not smaller is the address of a function to call: nothing lies in the first 64 KiB.
    pub(in super::super) const FUNCTION: usize = 0x1_0000;
}

/// How long nobody has to have come back before a pool grows.
const TICK: Duration = Duration::from_millis(5);
/// Packets that one wait brings at most.
const BATCH: usize = 64;

/// How one thread sleeps until somebody signals it.
#[derive(Debug, Default)]
pub(crate) struct Park(Monitor<bool>);

impl Park {
    pub(crate) fn signal(&self, _: bool) {
        *self.0.lock() = true;
        self.0.notify_all();
    }

    /// Sleeps until it is signalled, which is then used up, or until `deadline`.
    pub(crate) fn wait(&self, deadline: Option<Instant>) {
        let mut signalled = self.0.lock();
        while !std::mem::take(&mut *signalled) {
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return;
            }
            signalled = self.0.wait(signalled, left);
        }
    }
}

/// What a thread does, as `Worker::state`.
mod state {
    pub(super) const INSIDE: u8 = 0;
    pub(super) const RUNNING: u8 = 1;
    pub(super) const BLOCKING: u8 = 2;
}

/// A thread of the port.
pub(crate) struct Worker {
    thread: Thread,
    /// How many workers were enrolled until this one was; 0 for one that is not.
    generation: u64,
    state: AtomicU8,
    interrupted: AtomicBool,
    note: AtomicU64,
    /// Entries of the batch that it walks through.
    batch: Lock<VecDeque<Entry>>,
}

/// Who sees to it that timers come in time.
pub(crate) struct Ticker {
    completions: Arc<Completions>,
    /// Threads that wait, or are about to.
    waiting: AtomicUsize,
    times: Lock<Times>,
    has_deadline: AtomicBool,
}

#[derive(Default)]
struct Times {
    deadline: Option<Instant>,
    /// Until when somebody waits at most, and who: a number that is used once.
    keeper: Option<(Instant, u64)>,
    last_keeper: u64,
    /// A pool's supervisor keeps the time.
    supervisor: Option<Arc<Park>>,
}

impl Ticker {
    pub(crate) fn now(&self) -> Instant {
        Instant::now()
    }

    /// The earliest timer is due then.
    pub(crate) fn set_deadline(&self, at: Option<Instant>) {
        let mut times = self.times.lock();
        times.deadline = at;
        self.has_deadline.store(at.is_some(), Ordering::SeqCst);
        let Some(at) = at else { return };
        if let Some(supervisor) = &times.supervisor {
            supervisor.signal(false);
        } else if times.keeper.is_none_or(|(until, _)| until > at) && self.waiting.load(Ordering::SeqCst) > 0 {
            drop(times);
            self.wake_one();
        }
    }

    /// What was due is being looked after; a deadline that lies ahead stays.
    pub(super) fn forget_due(&self) {
        let mut times = self.times.lock();
        if times.deadline.is_some_and(|at| at <= Instant::now()) {
            times.deadline = None;
            self.has_deadline.store(false, Ordering::SeqCst);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        if self.has_deadline.load(Ordering::SeqCst) { self.times.lock().deadline } else { None }
    }

    /// The calling thread is counted among those that wait. Until when it has to, if the time is its to keep.
    fn keep(&self) -> Option<(Instant, u64)> {
        if !self.has_deadline.load(Ordering::SeqCst) {
            return None;
        }
        let mut times = self.times.lock();
        let at = times.deadline?;
        if times.supervisor.is_some() || times.keeper.is_some_and(|(until, _)| until <= at) {
            return None;
        }
        times.last_keeper += 1;
        times.keeper = Some((at, times.last_keeper));
        times.keeper
    }

    fn stop_keeping(&self, number: u64) {
        let mut times = self.times.lock();
        if times.keeper.is_some_and(|(_, keeper)| keeper == number) {
            times.keeper = None;
        }
    }

    /// A thread leaves the port: another one has to keep the time if it did.
    fn pass_on(&self) {
        if !self.has_deadline.load(Ordering::SeqCst) || self.waiting.load(Ordering::SeqCst) == 0 {
            return;
        }
        let times = self.times.lock();
        if times.deadline.is_some() && times.keeper.is_none() && times.supervisor.is_none() {
            drop(times);
            self.wake_one();
        }
    }

    fn wake_one(&self) {
        // Without memory for it the next one to wait looks at the time.
        self.completions.post(0, key::NOTHING, 0);
    }
}

/// The kernel's port, and the threads that serve it.
pub(crate) struct Queue {
    pub(super) completions: Arc<Completions>,
    pub(super) ticker: Arc<Ticker>,
    limit: usize,
    workers: Lock<Vec<Option<Arc<Worker>>>>,
    enrolled: AtomicU64,
    closed: AtomicBool,
    candidates: Lock<Vec<Arc<Park>>>,
    /// Somebody supervises, and wants to be told when nobody waits; and it was told.
    supervised: AtomicBool,
    told: AtomicBool,
    removed: AtomicU64,
    polls: AtomicU64,
    pub(crate) pools: Pools,
    driver: PortDriver,
}

impl Queue {
    pub(super) fn new(
        limit: usize,
        make: impl FnOnce(Arc<Ticker>) -> std::io::Result<PortDriver>,
    ) -> std::io::Result<Queue> {
        let completions = Arc::new(Completions::new(limit)?);
        let ticker = Arc::new(Ticker {
            completions: completions.clone(),
            waiting: AtomicUsize::new(0),
            times: Lock::default(),
            has_deadline: AtomicBool::new(false),
        });
        Ok(Queue {
            completions,
            limit,
            workers: Lock::default(),
            enrolled: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            candidates: Lock::default(),
            supervised: AtomicBool::new(false),
            told: AtomicBool::new(false),
            removed: AtomicU64::new(0),
            polls: AtomicU64::new(0),
            pools: Pools::default(),
            driver: make(ticker.clone())?,
            ticker,
        })
    }

    pub(super) fn driver(&self) -> &PortDriver {
        &self.driver
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::SeqCst)
    }

    /// Takes the next entry.
    pub(crate) fn get(self: &Arc<Self>, deadline: Deadline) -> Result<Taken<Entry>, GetError> {
        Ok(self.take(deadline, false)?.expect("it is not to be interrupted"))
    }

    /// Like [`get`](Queue::get), and `None` when the worker is [interrupted](Queue::interrupt).
    pub(crate) fn get_interruptibly(self: &Arc<Self>, deadline: Deadline) -> Result<Option<Taken<Entry>>, GetError> {
        self.take(deadline, true)
    }

    fn take(self: &Arc<Self>, deadline: Deadline, interruptible: bool) -> Result<Option<Taken<Entry>>, GetError> {
        let worker = self.worker();
        let mut into = [OVERLAPPED_ENTRY::default()];
        let came = self.wait(&worker, deadline, interruptible, &mut into)?;
        Ok(came.map(|_| Taken::Entry(super::packet::entry_of(&into[0]))))
    }

    /// Takes up to `most` entries that are there at the same moment.
    pub(crate) fn get_many(
        self: &Arc<Self>,
        deadline: Deadline,
        most: usize,
    ) -> Result<(Taken<Entry>, Rest<Entry>), GetError> {
        Ok(self.take_many(deadline, most, false)?.expect("it is not to be interrupted"))
    }

    /// Like [`get_many`](Queue::get_many), and `None` when the worker is [interrupted](Queue::interrupt).
    pub(crate) fn get_many_interruptibly(
        self: &Arc<Self>,
        deadline: Deadline,
        most: usize,
    ) -> Result<Option<(Taken<Entry>, Rest<Entry>)>, GetError> {
        self.take_many(deadline, most, true)
    }

    fn take_many(
        self: &Arc<Self>,
        deadline: Deadline,
        most: usize,
        interruptible: bool,
    ) -> Result<Option<(Taken<Entry>, Rest<Entry>)>, GetError> {
        let worker = self.worker();
        let mut into = [OVERLAPPED_ENTRY::default(); BATCH];
        let into = &mut into[..most.clamp(1, BATCH)];
        let Some(count) = self.wait(&worker, deadline, interruptible, into)? else { return Ok(None) };
        let mut batch = worker.batch.lock();
        batch.extend(into[..count].iter().map(super::packet::entry_of));
        let first = batch.pop_front().expect("at least one came");
        drop(batch);
        Ok(Some((Taken::Entry(first), Rest { worker, entry: std::marker::PhantomData })))
    }

    /// Waits for packets, and returns how many came; `None`: the worker was interrupted. The thread is the kernel's to
    /// count from the first time on.
    fn wait(
        &self,
        worker: &Worker,
        deadline: Deadline,
        interruptible: bool,
        into: &mut [OVERLAPPED_ENTRY],
    ) -> Result<Option<usize>, GetError> {
        self.give_back_batch(worker);
        // Before the first look at what ends a wait: whoever sets it after that finds a thread that is to be
        // interrupted.
        worker.state.store(state::INSIDE, Ordering::SeqCst);
        let result = loop {
            if self.is_closed() {
                break Err(GetError::Abandoned);
            }
            if interruptible && worker.interrupted.swap(false, Ordering::SeqCst) {
                break Ok(None);
            }
            self.fire_due();
            self.ticker.waiting.fetch_add(1, Ordering::SeqCst);
            let keeps = self.ticker.keep();
            let until = [deadline.instant(), keeps.map(|(at, _)| at)].into_iter().flatten().min();
            let wait = match (deadline, until) {
                (Deadline::Now, _) => Some(0),
                (_, None) => None,
                (_, Some(until)) => Some(milliseconds(until)),
            };
            self.polls.fetch_add(1, Ordering::Relaxed);
            let got = self.completions.get(into, wait);
            self.ticker.waiting.fetch_sub(1, Ordering::SeqCst);
            if let Some((_, number)) = keeps {
                self.ticker.stop_keeping(number);
            }
            match got {
                Ok(count) => {
                    let mut kept = 0;
                    for at in 0..count {
                        if into[at].lpCompletionKey != key::NOTHING {
                            into[kept] = into[at];
                            kept += 1;
                        }
                    }
                    if kept > 0 {
                        self.removed.fetch_add(kept as u64, Ordering::Relaxed);
                        break Ok(Some(kept));
                    }
                }
                Err(NoPacket::TimedOut) if deadline.has_passed() => break Err(GetError::TimedOut),
                Err(_) => {}
            }
        };
        worker.state.store(state::RUNNING, Ordering::SeqCst);
        self.ticker.pass_on();
        self.tell_supervisor();
        result
    }

    fn fire_due(&self) {
        if self.ticker.deadline().is_some_and(|at| at <= Instant::now()) {
            super::timers::fire_timers(self);
        }
    }

    // --- Threads ---

    /// The calling thread's place here; while it is being torn down, one for the call.
    fn worker(self: &Arc<Self>) -> Arc<Worker> {
        match bind(self) {
            Some(id) => self.workers.lock()[id.number].clone().expect("bound to it"),
            None => Arc::new(Worker::here(0)),
        }
    }

    /// A thread says what it does now. False if it is not known to have done what it says it did.
    fn changed(&self, number: usize, from: u8, to: u8) -> bool {
        let worker = self.workers.lock().get(number).cloned().flatten();
        worker.is_some_and(|it| it.state.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok())
    }

    /// The rest of a thread's batch goes to the end of the queue: its beginning is the kernel's.
    fn give_back_batch(&self, worker: &Worker) {
        let batch = std::mem::take(&mut *worker.batch.lock());
        if !batch.is_empty() {
            self.give_back(batch.into_iter());
        }
    }

    pub(crate) fn give_back(&self, entries: impl Iterator<Item = Entry>) {
        for entry in entries {
            self.removed.fetch_sub(1, Ordering::Relaxed);
            super::packet::post_entry(self, entry);
        }
    }

    /// Where a thread notes what it handles.
    pub(crate) fn note(&self, id: WorkerId) -> Note {
        Note(self.workers.lock()[id.number].clone().expect("bound to it"))
    }

    /// Makes one worker's present or next interruptible `get` come back without an entry.
    pub(crate) fn interrupt(&self, id: WorkerId) {
        let worker = self.workers.lock().get(id.number).cloned().flatten();
        if let Some(worker) = worker.filter(|worker| worker.generation == id.generation) {
            worker.interrupted.store(true, Ordering::SeqCst);
            worker.thread.interrupt();
        }
    }

    /// Whether a worker is inside `get`.
    pub(crate) fn waits(&self, id: WorkerId) -> bool {
        let worker = self.workers.lock().get(id.number).cloned().flatten();
        worker.is_some_and(|it| it.generation == id.generation && it.state.load(Ordering::SeqCst) == state::INSIDE)
    }

    pub(crate) fn stats(&self) -> QueueStats {
        let workers: Vec<Arc<Worker>> = self.workers.lock().iter().flatten().cloned().collect();
        let count = |state| workers.iter().filter(|worker| worker.state.load(Ordering::SeqCst) == state).count();
        let queued = self.completions.depth();
        let batched: usize = workers.iter().map(|worker| worker.batch.lock().len()).sum();
        let removed = self.removed.load(Ordering::Relaxed) - batched as u64;
        QueueStats {
            queued: queued + batched,
            limit: self.limit,
            active: count(state::RUNNING),
            waiting: count(state::INSIDE),
            blocked: count(state::BLOCKING),
            inserted: removed + (queued + batched) as u64,
            removed,
            polls: self.polls.load(Ordering::Relaxed),
            // The kernel's business, of which it says nothing.
            wakes: None,
            ticks: None,
            write_offs: None,
        }
    }

    pub(crate) fn workers(&self) -> Vec<WorkerReport> {
        let workers: Vec<Arc<Worker>> = self.workers.lock().iter().flatten().cloned().collect();
        let report = |worker: &Arc<Worker>| WorkerReport {
            thread: worker.thread.number.cast_signed(),
            state: match worker.state.load(Ordering::SeqCst) {
                state::INSIDE => WorkerState::Waiting,
                state::BLOCKING => WorkerState::Blocked,
                _ => WorkerState::Running,
            },
            blocked_for: None,
            sleeps_in: None,
            device: worker.note.load(Ordering::Relaxed),
        };
        workers.iter().map(report).collect()
    }

    /// True for the one call that closes it. Every waiting thread comes back.
    pub(super) fn close(&self) -> bool {
        if self.closed.swap(true, Ordering::SeqCst) {
            return false;
        }
        let workers: Vec<Arc<Worker>> = self.workers.lock().iter().flatten().cloned().collect();
        for worker in workers {
            if worker.state.load(Ordering::SeqCst) == state::INSIDE {
                worker.thread.interrupt();
            }
            for entry in std::mem::take(&mut *worker.batch.lock()) {
                super::packet::dispose(self, entry);
            }
        }
        if let Some(park) = &self.ticker.times.lock().supervisor {
            park.signal(false);
        }
        self.candidates.lock().drain(..).for_each(|park| park.signal(false));
        true
    }

    // --- Supervision: a pool's own thread keeps the time, and sees when all workers are outside. ---

    /// Makes the calling thread the supervisor. `None` if the port has one already, or is closed.
    pub(crate) fn supervise(&self) -> Option<Arc<Park>> {
        let mut times = self.ticker.times.lock();
        if times.supervisor.is_some() || self.is_closed() {
            return None;
        }
        let park = Arc::new(Park::default());
        times.supervisor = Some(park.clone());
        self.supervised.store(true, Ordering::SeqCst);
        Some(park)
    }

    /// A pool serves the port from now on, which may start further workers.
    pub(crate) fn add_pool(&self, pool: Weak<dyn Grow>) {
        self.pools.add(pool);
    }

    /// The pool starts no workers any more.
    pub(crate) fn remove_pool(&self, pool: *const impl Grow) {
        self.pools.remove(pool);
    }

    /// Sleeps until the supervisor ends, unless there is none; `park` is signalled to end the sleep.
    pub(crate) fn await_supervision(&self, park: &Arc<Park>) {
        {
            let times = self.ticker.times.lock();
            if self.is_closed() || times.supervisor.is_none() {
                return;
            }
            self.candidates.lock().push(park.clone());
        }
        park.wait(None);
        self.candidates.lock().retain(|other| !Arc::ptr_eq(other, park));
    }

    /// Ends the supervision: a waiting thread keeps the time again.
    pub(crate) fn end_supervision(&self) {
        let mut times = self.ticker.times.lock();
        self.supervised.store(false, Ordering::SeqCst);
        if let Some(park) = times.supervisor.take() {
            park.signal(false);
        }
        drop(times);
        self.candidates.lock().drain(..).for_each(|park| park.signal(false));
        self.ticker.pass_on();
    }

    /// Nobody waits any more: the supervisor looks for how long.
    fn tell_supervisor(&self) {
        if self.supervised.load(Ordering::SeqCst)
            && self.ticker.waiting.load(Ordering::SeqCst) == 0
            && !self.told.swap(true, Ordering::SeqCst)
        {
            if let Some(park) = &self.ticker.times.lock().supervisor {
                park.signal(false);
            }
        }
    }

    /// Sleeps until a timer is due or all workers are outside, and does what has to be done then.
    pub(crate) fn tend(&self, park: &Arc<Park>) -> Tended<Entry> {
        let deadline = {
            let times = self.ticker.times.lock();
            if self.is_closed() || times.supervisor.as_ref().is_none_or(|it| !Arc::ptr_eq(it, park)) {
                return Tended::Stopped;
            }
            times.deadline
        };
        if deadline.is_some_and(|at| at <= Instant::now()) {
            super::timers::fire_timers(self);
            return Tended::Nothing;
        }
        let anybody = || self.ticker.waiting.load(Ordering::SeqCst) > 0;
        // Before the look: who leaves as the last after it tells.
        self.told.store(false, Ordering::SeqCst);
        if anybody() {
            park.wait(deadline);
            return Tended::Nothing;
        }
        self.told.store(true, Ordering::SeqCst);
        let before = self.removed.load(Ordering::Relaxed);
        let tick = Instant::now() + TICK;
        park.wait(Some(deadline.map_or(tick, |at| at.min(tick))));
        let stuck = !anybody() && self.removed.load(Ordering::Relaxed) == before && Instant::now() >= tick;
        if stuck && self.completions.depth() > 0 { Tended::Grow } else { Tended::Nothing }
    }
}

impl Bindable for Queue {
    fn enroll(&self) -> WorkerId {
        let generation = self.enrolled.fetch_add(1, Ordering::Relaxed) + 1;
        let worker = Arc::new(Worker::here(generation));
        let mut workers = self.workers.lock();
        let number = match workers.iter().position(Option::is_none) {
            Some(at) => {
                workers[at] = Some(worker);
                at
            }
            None => {
                workers.push(Some(worker));
                workers.len() - 1
            }
        };
        WorkerId { number, generation }
    }

    fn dismiss(&self, number: usize) {
        let worker = self.workers.lock()[number].take();
        if let Some(worker) = worker {
            self.give_back_batch(&worker);
        }
    }

    fn enter_blocking(&self, worker: usize) -> bool {
        let entered = self.changed(worker, state::RUNNING, state::BLOCKING);
        let holder = self.workers.lock().get(worker).cloned().flatten();
        if let Some(holder) = holder {
            self.give_back_batch(&holder);
        }
        entered
    }

    fn leave_blocking(&self, worker: usize) {
        self.changed(worker, state::BLOCKING, state::RUNNING);
    }
}

impl Worker {
    fn here(generation: u64) -> Worker {
        Worker {
            thread: Thread::here(),
            generation,
            state: AtomicU8::new(state::RUNNING),
            interrupted: AtomicBool::new(false),
            note: AtomicU64::new(0),
            batch: Lock::default(),
        }
    }
}

/// Where a thread notes what it handles, for reports.
pub(crate) struct Note(Arc<Worker>);

impl Note {
    pub(crate) fn set(&self, device: u64) {
        self.0.note.store(device, Ordering::Relaxed);
    }
}

/// The rest of a batch.
pub(crate) struct Rest<T> {
    worker: Arc<Worker>,
    entry: std::marker::PhantomData<T>,
}

impl Rest<Entry> {
    pub(crate) fn len(&self) -> usize {
        self.worker.batch.lock().len()
    }

    pub(crate) fn next(&self) -> Option<Entry> {
        self.worker.batch.lock().pop_front()
    }

    pub(crate) fn drain(&self) -> VecDeque<Entry> {
        std::mem::take(&mut *self.worker.batch.lock())
    }
}

/// The time until then, rounded up: a wait that ends early would end twice.
fn milliseconds(until: Instant) -> u32 {
    let left = until.saturating_duration_since(Instant::now());
    let up = left.as_millis() + u128::from(left.subsec_nanos() % 1_000_000 > 0);
    u32::try_from(up).unwrap_or(u32::MAX - 1).min(u32::MAX - 1)
}
