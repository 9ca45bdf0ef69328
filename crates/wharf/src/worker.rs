//! A pool of threads that serve a port: it grows when all its threads are blocked, and shrinks when they are idle.
//!
//! Beside the workers runs one thread more, the *supervisor*. It sleeps on the port's watchdog timer, makes no system
//! call while the port is idle or busy, and wakes only when nobody has come back to the port for a tick. Then it looks
//! who is blocked, wakes a waiting worker if there is one, and starts another if all are outside and entries wait.
//! While all are outside it leads: it waits for the sockets, and goes on with what needs no worker. A port without a
//! pool has one by [`supervise`](raw::Port::supervise).
//!
//! Where several pools serve a port, one of their supervisors does this for all of them, and the worker is started by
//! the first pool that may have a further one.
//!
//! Shutdown in steps: 1. the pool is marked as stopping, which each worker looks at after every entry; 2. the
//! supervisor is told to stop; 3. each worker's wait is interrupted, wherever it waits; 4. the caller waits until none
//! is left or its time is over. Packets in the queue stay there.

use crate::contain::{discard, say};
use crate::raw::{self, Completion, Note, Park};
use crate::sync::Monitor;
use crate::threads::{Deadline, GetError, Grow, Taken, WorkerId, WorkerState};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// A pool with all its threads blocked grows up to this many, unless told otherwise.
const MAX_WORKERS: usize = 256;
/// A worker beyond the minimum ends when it had nothing to do for this time.
const IDLE: Duration = Duration::from_secs(10);
/// When a thread could not be started, the next one is tried after `FIRST_RETRY`, and after each further failure twice
/// as late, up to `LAST_RETRY`.
const FIRST_RETRY: Duration = Duration::from_millis(2);
const LAST_RETRY: Duration = Duration::from_secs(1);
/// How often the log is told of the same trouble, at most.
const SAY_EVERY: Duration = Duration::from_secs(1);

/// How many threads a pool has.
#[derive(Clone, Debug)]
pub struct Workers {
    min: usize,
    max: usize,
    idle: Duration,
    name: String,
}

impl Default for Workers {
    /// Twice as many as may run at a time, so that a blocked one is replaced without starting a thread; up to 256.
    fn default() -> Self {
        Workers { min: 0, max: MAX_WORKERS, idle: IDLE, name: "wharf".into() }
    }
}

impl Workers {
    /// At least `count` threads, which the pool starts with. It may grow: see [`max`](Workers::max). 0 is taken for
    /// 1: a pool without a thread would serve nothing.
    pub fn new(count: usize) -> Self {
        Workers { min: count.max(1), ..Self::default() }
    }

    /// Exactly `count` threads: when all of them are blocked, nothing replaces them. 0 is taken for 1.
    pub fn exactly(count: usize) -> Self {
        Workers { max: count.max(1), ..Self::new(count) }
    }

    /// At most `count` threads, however many are blocked, but not fewer than the pool starts with. Default: 256.
    pub fn max(mut self, count: usize) -> Self {
        self.max = count.max(1);
        self
    }

    /// After how much idle time a thread beyond the minimum ends. Default: 10 s. With zero it ends as soon as it finds
    /// nothing to do, with `Duration::MAX` never.
    pub fn idle(mut self, time: Duration) -> Self {
        self.idle = time;
        self
    }

    /// How many threads there can be.
    pub fn limit(&self) -> usize {
        self.max.max(self.min)
    }

    /// The threads' name. Default: "wharf". With a zero byte in it no thread can be started: `start` then fails with
    /// `InvalidInput`.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }
}

/// What became of a pool's threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolReport {
    /// Threads that are there.
    pub workers: usize,
    /// The most there were at a time.
    pub peak: usize,
    /// Threads that were started because all others of the port were blocked.
    pub grown: u64,
    /// Handlers that panicked. The thread goes on with the next packet.
    pub panics: u64,
    /// All threads the pool may have are there, all are busy or blocked, and packets waited for one. False again when
    /// one comes back.
    pub exhausted: bool,
}

impl PoolReport {
    /// What a forked child has.
    const NONE: PoolReport = PoolReport { workers: 0, peak: 0, grown: 0, panics: 0, exhausted: false };
}

/// The threads that [`start`](crate::CompletionPort::start) started. Dropping it stops them without waiting.
pub struct WorkerPool {
    shared: Arc<Pool>,
}

struct Pool {
    port: raw::Port,
    workers: Workers,
    handler: Box<dyn Fn(Completion) + Send + Sync>,
    state: Monitor<State>,
    /// What each worker looks at after every packet, apart from the lock.
    stopping: AtomicBool,
    surplus: AtomicBool,
    /// A further worker was wanted and may not be had, and none has come back since.
    exhausted: AtomicBool,
}

#[derive(Default)]
struct State {
    live: usize,
    /// Of these: were not needed, and are about to end.
    leaving: usize,
    started: usize,
    peak: usize,
    grown: u64,
    panics: u64,
    /// The log was told of the present exhaustion.
    exhaustion_said: bool,
    said: Seldom,
    /// How often in a row a thread could not be started, when the next is tried, and what the log was told.
    failures: u32,
    retry_at: Option<Instant>,
    failure_said: Seldom,
    supervised: bool,
    /// The supervisor's thread sleeps on it while another pool's supervises.
    candidate: Option<Arc<Park>>,
    /// The workers as the queue knows them.
    members: Vec<WorkerId>,
}

impl std::fmt::Debug for WorkerPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("WorkerPool").field(&self.report()).finish()
    }
}

impl WorkerPool {
    pub(crate) fn start(
        port: raw::Port,
        mut workers: Workers,
        handler: impl Fn(Completion) + Send + Sync + 'static,
    ) -> io::Result<WorkerPool> {
        if workers.name.contains('\0') {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a zero byte in the name of a pool's threads"));
        }
        if workers.min == 0 {
            workers.min = port.0.stats().limit.saturating_mul(2).min(workers.max);
        }
        workers.max = workers.max.max(workers.min);
        let count = workers.min;
        let shared = Arc::new(Pool {
            port,
            workers,
            handler: Box::new(handler),
            state: Monitor::default(),
            stopping: AtomicBool::new(false),
            surplus: AtomicBool::new(false),
            exhausted: AtomicBool::new(false),
        });
        let pool = WorkerPool { shared };
        // A failure here drops the pool, which stops those that were started.
        for _ in 0..count {
            pool.shared.start_worker(false)?;
        }
        let as_pool: Weak<dyn Grow> = Arc::<Pool>::downgrade(&pool.shared);
        pool.shared.port.0.queue.add_pool(as_pool);
        let shared = pool.shared.clone();
        let name = format!("{}-supervisor", shared.workers.name);
        thread::Builder::new().name(name).spawn(move || shared.supervise())?;
        Ok(pool)
    }

    /// What the threads are at. A forked child has none of them.
    pub fn report(&self) -> PoolReport {
        if self.shared.is_home() { self.shared.report(&self.shared.state.lock()) } else { PoolReport::NONE }
    }

    /// Tells the threads to end after the packet that each is at, and waits for them up to `deadline`. The port stays
    /// open, with what is queued. The report's `workers` are those that are still at it: they end when their handler
    /// returns. `Duration::MAX` waits until all have ended. Does nothing in a forked child.
    pub fn shutdown(self, deadline: Duration) -> PoolReport {
        if !self.shared.is_home() {
            return PoolReport::NONE;
        }
        let until = Deadline::after(Some(deadline));
        let shared = &self.shared;
        shared.stop();
        let mut state = shared.state.lock();
        if !until.has_passed() {
            let left = until.instant().map(|at| at.saturating_duration_since(Instant::now()));
            state = shared.state.wait_while(state, left, |state| state.live > 0);
        }
        shared.report(&state)
    }

    /// Waits until all threads have ended: after the port was closed, say. Does not wait in a forked child.
    pub fn join(self) -> PoolReport {
        if !self.shared.is_home() {
            return PoolReport::NONE;
        }
        let state = &self.shared.state;
        let state = state.wait_while(state.lock(), None, |state| state.live > 0);
        self.shared.report(&state)
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.shared.stop();
    }
}

/// Says yes at most once in [`SAY_EVERY`].
#[derive(Default)]
struct Seldom(Option<Instant>);

impl Seldom {
    fn may_say(&mut self) -> bool {
        let now = Instant::now();
        let may = self.0.is_none_or(|last| now.saturating_duration_since(last) >= SAY_EVERY);
        if may {
            self.0 = Some(now);
        }
        may
    }
}

impl Pool {
    fn report(&self, state: &State) -> PoolReport {
        // Who came back just before the pool was found exhausted, and waits now, has had nothing to take back.
        let waits = || state.members.iter().any(|&member| self.port.0.queue.waits(member));
        PoolReport {
            workers: state.live,
            // One that has been started, and not begun, is not counted yet.
            peak: state.peak.max(state.live),
            grown: state.grown,
            panics: state.panics,
            exhausted: self.exhausted.load(Ordering::Relaxed) && !waits(),
        }
    }

    /// Is this the process that started the threads? In a forked child, which has none of them, nobody would release
    /// the lock if one of them held it.
    fn is_home(&self) -> bool {
        self.port.0.is_home()
    }

    fn stop(self: &Arc<Self>) {
        if !self.is_home() {
            return;
        }
        self.port.0.queue.remove_pool(Arc::as_ptr(self));
        let (members, supervised, candidate) = {
            let mut state = self.state.lock();
            self.stopping.store(true, Ordering::Release);
            (state.members.clone(), std::mem::take(&mut state.supervised), state.candidate.take())
        };
        if supervised {
            self.port.0.queue.end_supervision();
        }
        if let Some(park) = candidate {
            park.signal(false);
        }
        members.into_iter().for_each(|worker| self.port.0.queue.interrupt(worker));
    }

    /// The supervisor's thread. A port with several pools has one supervisor at a time; the next takes over when it
    /// ends.
    fn supervise(self: &Arc<Self>) {
        let queue = &self.port.0.queue;
        loop {
            let turn = {
                let mut state = self.state.lock();
                if self.stopping.load(Ordering::Acquire) || queue.is_closed() {
                    return;
                }
                match queue.supervise() {
                    Some(park) => {
                        state.supervised = true;
                        Ok(park)
                    }
                    None => {
                        let park = Arc::new(Park::default());
                        state.candidate = Some(park.clone());
                        Err(park)
                    }
                }
            };
            match turn {
                Err(park) => queue.await_supervision(&park),
                Ok(park) => return raw::tend(&self.port.0, &park),
            }
        }
    }

    /// `further`: more than the pool has started with.
    fn start_worker(self: &Arc<Self>, further: bool) -> io::Result<()> {
        let number = {
            let mut state = self.state.lock();
            state.live += 1;
            state.started += 1;
            self.surplus.store(state.live > self.workers.min, Ordering::Relaxed);
            state.started
        };
        let pool = self.clone();
        let name = format!("{}-{number}", self.workers.name);
        let started = thread::Builder::new().name(name).spawn(move || {
            // However the thread ends, it is counted out.
            struct Gone {
                pool: Arc<Pool>,
                not_needed: bool,
            }
            impl Drop for Gone {
                fn drop(&mut self) {
                    if !self.pool.is_home() {
                        return;
                    }
                    let mut state = self.pool.state.lock();
                    state.live -= 1;
                    state.leaving -= usize::from(self.not_needed);
                    self.pool.surplus.store(state.live > self.pool.workers.min, Ordering::Relaxed);
                    drop(state);
                    self.pool.state.notify_all();
                }
            }
            let mut gone = Gone { pool, not_needed: false };
            {
                let mut state = gone.pool.state.lock();
                state.peak = state.peak.max(state.live);
                state.grown += u64::from(further);
            }
            gone.not_needed = gone.pool.work();
            // Before the pool hears of it: whoever waits for the thread finds its slot given back.
            crate::threads::unbind();
        });
        started.map(drop).inspect_err(|_| {
            let mut state = self.state.lock();
            state.live -= 1;
            self.surplus.store(state.live > self.workers.min, Ordering::Relaxed);
        })
    }

    /// Returns true when the worker was not needed for a while.
    fn work(&self) -> bool {
        let queue = &self.port.0.queue;
        let mut member = Member { pool: self, id: None, note: None };
        // A handler that forks returns twice. In the child the thread ends: what it would wait for is the parent's.
        while self.is_home() {
            // Before the look at `stopping`: whoever sets it after that interrupts this worker.
            let me = member.enter();
            if self.stopping.load(Ordering::Acquire) {
                return false;
            }
            if self.exhausted.load(Ordering::Relaxed) {
                self.is_back();
            }
            // A pool that shrinks a little later is no worse.
            let may_end = || self.surplus.load(Ordering::Relaxed);
            let taken = match me.and_then(|me| self.port.0.take_again_as(me)) {
                Some(entry) => Ok(Some(Taken::Entry(entry))),
                None => queue.get_interruptibly(Deadline::after(may_end().then_some(self.workers.idle))),
            };
            let entry = match taken {
                Ok(Some(Taken::Entry(entry))) => entry,
                Ok(Some(Taken::EngineWork(entry))) => {
                    self.port.0.do_work(entry);
                    continue;
                }
                Ok(None) => continue,
                Err(GetError::TimedOut) => {
                    let mut state = self.state.lock();
                    if state.live - state.leaving > self.workers.min {
                        state.leaving += 1;
                        return true;
                    }
                    drop(state);
                    continue;
                }
                Err(_) => return false,
            };
            // A function that was queued is called here, too.
            let handle = || {
                let Some(completion) = self.port.0.execute(entry) else { return };
                if let Some(note) = &member.note {
                    note.set(completion.device);
                }
                (self.handler)(completion);
            };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(handle)) {
                if !self.is_home() {
                    return false;
                }
                self.state.lock().panics += 1;
                let words = message(&*panic);
                say(|| log::error!("a handler panicked: {words}; the worker goes on with the next packet"));
                discard(panic);
            }
        }
        false
    }

    /// A worker of an exhausted pool has come back.
    fn is_back(&self) {
        let mut state = self.state.lock();
        self.exhausted.store(false, Ordering::Relaxed);
        state.exhaustion_said = false;
    }

    /// The port's blocked workers, for the log.
    fn blocked(&self) -> String {
        let workers = self.port.0.workers();
        let blocked = workers.iter().filter(|worker| worker.state == WorkerState::Blocked);
        let list: Vec<String> = blocked
            .map(|worker| {
                let place = worker.sleeps_in.as_deref().unwrap_or("the kernel");
                let time = worker.blocked_for.unwrap_or_default();
                format!("thread {} in {place} for {time:.0?} (device {:#x})", worker.thread, worker.device)
            })
            .collect();
        list.join(", ")
    }
}

impl Grow for Pool {
    fn grow(self: Arc<Self>) -> bool {
        {
            let state = self.state.lock();
            if self.stopping.load(Ordering::Acquire) {
                return false;
            }
            if state.live >= self.workers.max {
                self.exhausted.store(true, Ordering::Relaxed);
                return false;
            }
            if state.retry_at.is_some_and(|at| Instant::now() < at) {
                return false;
            }
        }
        say(|| log::debug!("all workers are outside, one more is started: {}", self.blocked()));
        let started = self.start_worker(true);
        let mut state = self.state.lock();
        let Err(error) = started else {
            (state.failures, state.retry_at) = (0, None);
            return true;
        };
        let wait = FIRST_RETRY.saturating_mul(1 << state.failures.min(16)).min(LAST_RETRY);
        state.failures += 1;
        state.retry_at = Some(Instant::now() + wait);
        let may_say = state.failure_said.may_say();
        drop(state);
        if may_say {
            say(|| log::warn!("no further worker can be started: {error}; packets wait until one comes back"));
        }
        false
    }

    fn stuck(&self) {
        {
            let mut state = self.state.lock();
            let exhausted = self.exhausted.load(Ordering::Relaxed);
            if !exhausted || state.exhaustion_said || !state.said.may_say() {
                return;
            }
            state.exhaustion_said = true;
        }
        let (max, blocked) = (self.workers.max, self.blocked());
        say(|| {
            log::warn!("all {max} workers are busy or blocked and no more are allowed; packets wait: {blocked}");
        });
    }
}

/// A worker's entry among its pool's members. However the worker ends, it is taken out.
struct Member<'a> {
    pool: &'a Pool,
    id: Option<WorkerId>,
    note: Option<Note>,
}

impl Member<'_> {
    /// The thread belongs to the pool's port. After a handler that has used another port it does so as another worker.
    #[inline]
    fn enter(&mut self) -> Option<WorkerId> {
        let id = crate::threads::bind(&self.pool.port.0.queue);
        if id != self.id {
            self.become_another(id);
        }
        id
    }

    #[cold]
    fn become_another(&mut self, id: Option<WorkerId>) {
        self.note = id.map(|id| self.pool.port.0.queue.note(id));
        self.replace(id);
    }

    fn replace(&mut self, id: Option<WorkerId>) {
        let mut state = self.pool.state.lock();
        state.members.retain(|&member| Some(member) != self.id);
        state.members.extend(id);
        self.id = id;
    }
}

impl Drop for Member<'_> {
    fn drop(&mut self) {
        if self.pool.is_home() {
            self.replace(None);
        }
    }
}

/// What a panic said.
pub(crate) fn message(panic: &(dyn std::any::Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}
