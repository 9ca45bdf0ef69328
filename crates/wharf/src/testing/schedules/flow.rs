//! Workers that block while others take packet after packet, and pools that share a port, on the fake engine.
//!
//! The rest of the schedules play on one thread, or on threads that never block in a handler. Who is blocked is what
//! the system says of a thread, so here threads are real, and so is time: a schedule draws the limit, how many handlers
//! block and how they say so, who serves the port, and whether a blocked worker holds a batch.
//!
//! Checked are: beside blocked workers as many run as the limit allows; what a blocked worker holds is handled by
//! others; a packet is not left in the queue while a slot is free and a thread waits, or a pool may have a further one;
//! each packet is handled once. Nothing is concluded from how long something took: the blocked ones wake when the
//! others have handled very many packets, and what was not there by then never comes.

use super::{RECEIVE_BYTES, Replay, disposed};
use crate::raw::{Config, DeviceKind, FileEngine, Post};
use crate::reactor::Port;
use crate::reactor::engine::Engine;
use crate::testing::fake::Fake;
use crate::threads::{Deadline, Wake};
use crate::worker::{WorkerPool, Workers};
use fastrand::Rng;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use wharf_testkit::seeds;

/// What a handler of the flow takes.
const HANDLER: Duration = Duration::from_micros(100);
/// 300 ms of one worker: hundreds of ticks.
const VERY_MANY: usize = 3_000;
/// After that it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// Tokens.
const FLOW: usize = 0;
const BLOCK: usize = 1;
const HELD: usize = 2;

/// What a blocked worker took at once, the packet of its own handler among them.
const BATCH: usize = 4;

fn compute(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

fn eventually(what: &str, is: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is() {
        assert!(Instant::now() < deadline, "it does not come to this: {what}");
        thread::sleep(Duration::from_micros(200));
    }
}

/// How a handler blocks.
#[derive(Clone, Copy, Debug)]
enum Way {
    Silently,
    Declared,
}

/// What handlers and the schedule share.
struct State {
    limit: usize,
    blockers: usize,
    way: Way,
    open: Mutex<bool>,
    opened: Condvar,
    ends: AtomicBool,
    blocked: AtomicUsize,
    /// Handlers of the flow that compute now, and how many have.
    running: AtomicUsize,
    flowed: AtomicUsize,
    posted: AtomicUsize,
    held: AtomicUsize,
    /// As many run as the limit allows, beside the blocked.
    reached: AtomicBool,
}

impl State {
    fn new(limit: usize, blockers: usize, way: Way) -> Arc<State> {
        Arc::new(State {
            limit,
            blockers,
            way,
            open: Mutex::new(false),
            opened: Condvar::new(),
            ends: AtomicBool::new(false),
            blocked: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            flowed: AtomicUsize::new(0),
            posted: AtomicUsize::new(0),
            held: AtomicUsize::new(0),
            reached: AtomicBool::new(false),
        })
    }

    fn post(&self, port: &Port, token: usize) {
        if token == FLOW {
            self.posted.fetch_add(1, SeqCst);
        }
        port.post(Post { key: 0, token, bytes: 0 }).expect("the port is open");
    }

    fn handle(&self, port: &Port, token: usize) {
        match token {
            FLOW => self.flow(port),
            BLOCK => self.block(),
            _ => drop(self.held.fetch_add(1, SeqCst)),
        }
    }

    fn flow(&self, port: &Port) {
        let running = self.running.fetch_add(1, SeqCst) + 1;
        if running >= self.limit && self.blocked.load(SeqCst) == self.blockers {
            self.reached.store(true, SeqCst);
        }
        compute(HANDLER);
        self.running.fetch_sub(1, SeqCst);
        if !self.ends.load(SeqCst) {
            self.post(port, FLOW);
        }
        self.flowed.fetch_add(1, SeqCst);
    }

    fn block(&self) {
        self.blocked.fetch_add(1, SeqCst);
        let wait = || drop(self.opened.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
        match self.way {
            Way::Silently => wait(),
            Way::Declared => crate::blocking(wait),
        }
    }

    fn wake_all(&self) {
        *self.open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

fn port(seed: u64, rng: &mut Rng, limit: usize) -> Port {
    let config = Config {
        concurrency: limit,
        wake: if rng.bool() { Wake::Eager } else { Wake::Adaptive },
        pool_buffer_bytes: RECEIVE_BYTES,
        pool_keep: 2,
        files: FileEngine::default(),
        sockets: crate::raw::SocketEngine::Auto,
        dispose: disposed,
    };
    let fake = Arc::new(Fake::new(seed));
    fake.honest(true);
    let engine = fake.clone();
    let port = Port::build(config, |_| Ok(Engine::of(engine))).expect("a timer descriptor");
    if rng.bool() {
        // One that polls has another way to sleep.
        let (handle, _) = fake.connected(64);
        port.take_over(handle, DeviceKind::Stream, 0).expect("nothing goes wrong");
    }
    port
}

fn pool(port: &Port, state: &Arc<State>, workers: Workers) -> WorkerPool {
    let (own, state) = (port.clone(), state.clone());
    WorkerPool::start(crate::raw::Port(port.clone()), workers, move |packet| state.handle(&own, packet.token)).unwrap()
}

/// Threads of the program, or a pool.
enum Crew {
    Threads(Vec<JoinHandle<()>>),
    Pool(WorkerPool),
}

impl Crew {
    fn start(port: &Port, state: &Arc<State>, count: usize, pooled: bool) -> Crew {
        if pooled {
            return Crew::Pool(pool(port, state, Workers::exactly(count)));
        }
        let serve = |_| {
            let (port, state) = (port.clone(), state.clone());
            thread::spawn(move || {
                while let Ok(packet) = port.get(None) {
                    state.handle(&port, packet.token);
                }
            })
        };
        Crew::Threads((0..count).map(serve).collect())
    }

    fn join(self) {
        match self {
            Crew::Threads(threads) => threads.into_iter().for_each(|thread| thread.join().unwrap()),
            Crew::Pool(pool) => drop(pool.join()),
        }
    }
}

/// One that takes several packets at a time, and blocks with the first.
fn batch(port: &Port, state: &Arc<State>) -> JoinHandle<()> {
    (0..BATCH).for_each(|_| state.post(port, HELD));
    let (own, blocks) = (port.clone(), state.clone());
    let thread = thread::spawn(move || {
        let (_, held) = own.get_many(BATCH, Deadline::after(Some(PATIENCE))).expect("they are queued");
        blocks.block();
        let mut left = 0;
        while own.next_of(&held).is_some() {
            left += 1;
        }
        assert_eq!(left, 0, "packets that a blocked worker keeps");
    });
    eventually("the batch was taken", || state.blocked.load(SeqCst) == 1);
    thread
}

/// Packets flow beside workers that are blocked.
fn run(seed: u64) {
    let _replay = Replay(seed);
    let mut rng = Rng::with_seed(seed);
    let limit = rng.usize(1..4);
    let blockers = rng.usize(1..=limit);
    let way = if rng.u8(..4) == 0 { Way::Declared } else { Way::Silently };
    let port = port(seed, &mut rng, limit);
    let state = State::new(limit, blockers, way);
    let batch = rng.bool().then(|| batch(&port, &state));
    let held = if batch.is_some() { BATCH - 1 } else { 0 };
    let others = blockers - usize::from(batch.is_some());
    let crew = Crew::start(&port, &state, limit + others, rng.bool());
    (0..2 * limit).for_each(|_| state.post(&port, FLOW));
    (0..others).for_each(|_| state.post(&port, BLOCK));
    eventually("all are blocked", || state.blocked.load(SeqCst) == blockers);

    let before = state.flowed.load(SeqCst);
    let all = || state.reached.load(SeqCst) && state.held.load(SeqCst) == held;
    eventually("others run, or very many packets flowed", || all() || state.flowed.load(SeqCst) > before + VERY_MANY);
    let (reached, came) = (state.reached.load(SeqCst), state.held.load(SeqCst));
    assert!(reached, "{blockers} are blocked, {way:?}, and {limit} never run beside them");
    assert_eq!(came, held, "{limit} run beside the blocked, {way:?}, and what one of them holds does not come back");

    state.ends.store(true, SeqCst);
    eventually("the flow has ended", || state.flowed.load(SeqCst) == state.posted.load(SeqCst));
    // Slots are free, and threads wait.
    for nth in 1..=limit {
        state.post(&port, HELD);
        eventually("a packet is taken beside the blocked", || state.held.load(SeqCst) == held + nth);
    }
    state.wake_all();
    batch.into_iter().for_each(|thread| thread.join().unwrap());
    end(port, &state, vec![crew]);
    assert_eq!(state.held.load(SeqCst), held + limit, "each is handled once");
}

/// Two pools, of which one may grow, serve a port; each one's thread is blocked.
fn run_pools(seed: u64) {
    let _replay = Replay(seed);
    let mut rng = Rng::with_seed(seed);
    let limit = rng.usize(1..4);
    let way = if rng.bool() { Way::Declared } else { Way::Silently };
    let port = port(seed, &mut rng, limit);
    let state = State::new(limit, 2, way);
    let mut workers = [Workers::exactly(1), Workers::new(1).max(8)];
    rng.shuffle(&mut workers);
    let crews: Vec<Crew> = workers.map(|workers| Crew::Pool(pool(&port, &state, workers))).into();
    let packets = rng.usize(1..4);
    (0..2).for_each(|_| state.post(&port, BLOCK));
    (0..packets).for_each(|_| state.post(&port, HELD));
    eventually("the pool that may grow does", || state.held.load(SeqCst) == packets);
    state.wake_all();
    end(port, &state, crews);
    assert_eq!((state.held.load(SeqCst), state.blocked.load(SeqCst)), (packets, 2), "each is handled once");
}

fn end(port: Port, state: &State, crews: Vec<Crew>) {
    eventually("nothing is queued, and nobody is blocked", || {
        let stats = port.stats();
        (stats.queued, stats.active, stats.blocked) == (0, 0, 0)
    });
    port.close();
    crews.into_iter().for_each(Crew::join);
    let stats = port.stats();
    assert_eq!((stats.active, stats.waiting, stats.blocked), (0, 0, 0), "{stats:?}");
    assert_eq!(state.running.load(SeqCst), 0);
}

/// They compute, so they take turns, and are few.
fn seeds() -> std::ops::Range<u64> {
    if let Some(seed) = seeds::from_environment("WHARF_SEED") {
        return seed..seed + 1;
    }
    let count = seeds::from_environment("WHARF_SCHEDULES").map_or(10, |count| (count / 200).max(10));
    let first = fastrand::u64(..1 << 40);
    first..first + count
}

#[test]
fn blocked_workers_keep_neither_slots_nor_packets_from_workers_that_flow() {
    seeds().for_each(run);
}

#[test]
fn of_two_pools_whose_threads_are_blocked_the_one_that_may_grow_does() {
    seeds().for_each(run_pools);
}
