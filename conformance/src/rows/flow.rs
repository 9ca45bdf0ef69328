//! The concurrency model while packets flow: the queue is deep, and workers take packet after packet beside what a row
//! is about. What a port does only when it has nothing else to do, or when somebody posts, is not done then.

use crate::kit::*;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// The context of the packets that flow; all others are the row's.
const FLOW: u64 = u64::MAX;
/// How long one of them computes.
const PIECE: Duration = Duration::from_micros(100);
/// How long a handler of a row blocks, or computes: what a row has to see within is far less.
const LONG: Duration = Duration::from_millis(300);
/// Within so long a port has to have seen that a handler blocks, or no longer does: some looks of a millisecond each.
const SEEN: Duration = Duration::from_millis(50);
/// How often it is tried, and has to be so mostly. Not the best of them: work that other processes have interrupts a
/// flow now and then, and a port that looks only then is quick by luck.
const TRIES: usize = 5;
/// No row has a higher limit.
const MOST: usize = 4;

/// What the handlers of a flow look at, and write down.
struct Shared {
    /// Packets that are left are not computed for.
    skip: AtomicBool,
    /// Handlers of the flow that have begun and not ended.
    inside: Count,
    /// What begins is noted from then on, in nanoseconds after `begun`.
    from: AtomicU64,
    /// For each number, less one: when that number was inside first; 0 while it was not.
    reached: [AtomicU64; MOST],
    /// Handlers that began, and those that began beside another one.
    starts: Count,
    beside: Count,
    begun: Instant,
}

impl Shared {
    /// Nothing here may block: it would be what is measured.
    fn enter(&self) {
        let inside = self.inside.up();
        let now = self.at(Instant::now());
        if now < self.from.load(Ordering::SeqCst) {
            return;
        }
        self.starts.up();
        if inside > 1 {
            self.beside.up();
        }
        let _ = self.reached[inside.min(MOST) - 1].compare_exchange(0, now, Ordering::SeqCst, Ordering::SeqCst);
    }

    fn at(&self, time: Instant) -> u64 {
        u64::try_from(time.duration_since(self.begun).as_nanos()).unwrap_or(u64::MAX).max(1)
    }
}

/// Workers of a port, and packets enough that they are never without one.
struct Flow {
    port: Port,
    limit: usize,
    shared: Arc<Shared>,
    _crew: Crew,
}

impl Flow {
    /// `other` handles the packets that are not the flow's.
    fn start(b: &Bench, limit: usize, workers: usize, other: impl Fn(u64) + Send + Sync + 'static) -> Flow {
        Flow::on(b.limited(limit), limit, workers, other)
    }

    fn on(port: Port, limit: usize, workers: usize, other: impl Fn(u64) + Send + Sync + 'static) -> Flow {
        let shared = Arc::new(Shared {
            skip: AtomicBool::new(false),
            inside: Count::default(),
            from: AtomicU64::new(u64::MAX),
            reached: Default::default(),
            starts: Count::default(),
            beside: Count::default(),
            begun: Instant::now(),
        });
        let own = shared.clone();
        let crew = Crew::start(&port, workers, move |_, packet| {
            if packet.context != FLOW {
                return other(packet.context);
            }
            if !own.skip.load(Ordering::Relaxed) {
                own.enter();
                burn(PIECE);
                own.inside.down();
            }
        });
        Flow { port, limit, shared, _crew: crew }
    }

    /// Packets for longer than a row looks, and the flow has begun.
    fn fill(&self) {
        let packets = 2 * self.limit * (LONG.as_micros() / PIECE.as_micros()) as usize;
        self.note_from(Instant::now());
        (0..packets).for_each(|_| self.port.post(0, 0, FLOW).unwrap());
        eventually("packets flow", || self.shared.starts.now() > 20);
        assert!(self.port.stats().queued > packets / 2, "the queue is deep");
    }

    /// Has the packets go that are left.
    fn drain(&self) {
        self.shared.skip.store(true, Ordering::Relaxed);
        eventually("no packet is left", || self.port.stats().queued == 0 && self.shared.inside.now() == 0);
        self.shared.skip.store(false, Ordering::Relaxed);
    }

    /// Forgets what was noted, and notes what begins after that time.
    fn note_from(&self, at: Instant) {
        self.shared.from.store(u64::MAX, Ordering::SeqCst);
        self.shared.starts.set(0);
        self.shared.beside.set(0);
        self.shared.reached.iter().for_each(|reached| reached.store(0, Ordering::SeqCst));
        self.shared.from.store(self.shared.at(at), Ordering::SeqCst);
    }

    /// How long after `at` this number of handlers of the flow were first inside at once; [`LONG`] if they never were.
    fn reached(&self, number: usize, at: Instant) -> Duration {
        let first = self.shared.reached[number - 1..].iter().map(|reached| reached.load(Ordering::SeqCst));
        let first = first.filter(|&first| first > 0).min();
        first.map_or(LONG, |first| Duration::from_nanos(first.saturating_sub(self.shared.at(at))))
    }
}

/// How a handler blocks without saying so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Block {
    Sleep,
    /// In a mutex that another thread holds.
    Mutex,
}

/// What the handlers of a row wait for, that hold their slots till then.
#[derive(Clone, Default)]
struct Gate {
    begun: Count,
    open: Arc<AtomicBool>,
    /// Held while they are to block.
    lock: Arc<Mutex<()>>,
}

impl Gate {
    /// Computes until the gate is opened.
    fn pass(&self) {
        self.begun.up();
        spin_until("the row lets the handler block", || self.open.load(Ordering::SeqCst));
    }

    fn block(&self, how: Block, sleep: Duration) {
        match how {
            Block::Sleep => thread::sleep(sleep),
            Block::Mutex => drop(self.lock.lock()),
        }
    }
}

/// C-08: `asleep` handlers block while packets flow at `limit`, each slot taken; soon `limit` handlers run again.
pub fn sleepers_are_replaced(b: &Bench, limit: usize, asleep: usize, block: Block) {
    let what =
        format!("limit {limit}, {asleep} handlers block ({block:?}) while packets flow: until {limit} others run");
    let gate = Gate::default();
    let own = gate.clone();
    let flow = Flow::start(b, limit, limit + asleep + 1, move |_| {
        own.pass();
        own.block(block, LONG);
    });
    let took = mostly(&what, SEEN, TRIES, || {
        gate.begun.set(0);
        gate.open.store(false, Ordering::SeqCst);
        (0..asleep).for_each(|_| flow.port.post(0, 0, 1).unwrap());
        eventually("the handlers hold their slots", || gate.begun.now() == asleep);
        flow.fill();
        let held = gate.lock.lock().unwrap();
        let at = Instant::now();
        flow.note_from(at);
        gate.open.store(true, Ordering::SeqCst);
        // As long as they block, and no longer.
        thread::sleep(LONG * 9 / 10);
        let took = flow.reached(limit, at);
        drop(held);
        flow.drain();
        took
    });
    b.note(format!("{what} {took:.1?}"));
}

/// C-08: a handler sleeps over a batch. Another runs soon, and the packets of the batch that it had not come to are
/// handled meanwhile.
pub fn batch_of_a_sleeper(b: &Bench) {
    let what = "limit 2, a handler with a batch sleeps while packets flow: until 2 others run";
    let took = mostly(what, SEEN, TRIES, || {
        let port = b.limited(2);
        let (gate, rest) = (Gate::default(), Count::default());
        (0..8).for_each(|_| port.post(0, 0, 1).unwrap());
        let (own, taker) = (gate.clone(), port.clone());
        let sleeper = thread::spawn(move || {
            let mut batch = taker.get_many_timeout(8, DEADLINE).unwrap();
            assert_eq!(batch.next().map(|packet| packet.context), Some(1));
            own.pass();
            thread::sleep(LONG);
            batch.count()
        });
        eventually("it has a batch", || gate.begun.now() == 1);
        let handled = rest.clone();
        let flow = Flow::on(port, 2, 3, move |_| _ = handled.up());
        flow.fill();
        let at = Instant::now();
        flow.note_from(at);
        gate.open.store(true, Ordering::SeqCst);
        thread::sleep(LONG * 8 / 10);
        let seen = flow.reached(2, at);
        flow.drain();
        let kept = sleeper.join().unwrap();
        assert_eq!(kept + rest.now(), 7, "each packet of the batch comes to one handler");
        seen
    });
    b.note(format!("{what} {took:.1?}"));
}

/// C-09, C-03, C-06, C-17: a handler blocks while packets flow, and computes when it has woken. From then on it counts:
/// no more than `limit` compute.
pub fn woken_counts_again(b: &Bench, limit: usize, block: Block) {
    let (gate, woke) = (Gate::default(), Arc::new(Mutex::new(None::<Instant>)));
    let (own, at) = (gate.clone(), woke.clone());
    let flow = Flow::start(b, limit, limit + 2, move |_| {
        own.begun.up();
        own.block(block, 2 * SEEN);
        *at.lock().unwrap() = Some(Instant::now());
        burn(LONG);
    });
    let mut over = Vec::new();
    // Mostly, as above.
    while over.iter().filter(|&&number| number <= limit).count() <= TRIES / 2 {
        assert!(
            over.len() < TRIES,
            "limit {limit}: {over:?} handlers began beyond it while one that had blocked computes"
        );
        gate.begun.set(0);
        let held = gate.lock.lock().unwrap();
        flow.port.post(0, 0, 1).unwrap();
        eventually("the handler blocks", || gate.begun.now() == 1);
        flow.fill();
        drop(held);
        eventually("it computes", || woke.lock().unwrap().is_some());
        let at = woke.lock().unwrap().take().expect("it has woken");
        flow.note_from(at + SEEN);
        while at.elapsed() < LONG * 9 / 10 {
            thread::sleep(Duration::from_millis(1));
        }
        // With one slot left for the flow none begins beside another, and with none left none begins.
        over.push(if limit == 1 { flow.shared.starts.now() } else { flow.shared.beside.now() });
        flow.drain();
    }
    b.note(format!("limit {limit}, one wakes ({block:?}) and computes: {over:?} handlers too many began beside it"));
}

/// C-11: a thread that polls, and sleeps between its polls, holds no slot while it sleeps.
pub fn poller_holds_nothing(b: &Bench) {
    /// Of a hundred handlers, where two can run all the time but for a millisecond or two of each poll.
    const SHARE: usize = 50;
    let flow = Flow::start(b, 2, 3, |_| {});
    let stop = Flag::default();
    let (port, ended) = (flow.port.clone(), stop.clone());
    let poller = thread::spawn(move || {
        while !ended.is_set() {
            drop(port.get_timeout(Duration::ZERO));
            thread::sleep(Duration::from_millis(16));
        }
    });
    // The worst of several: it is a race, whether the poller is counted when the flow begins.
    let shares: Vec<usize> = (0..TRIES)
        .map(|_| {
            thread::sleep(WHILE);
            flow.fill();
            flow.note_from(Instant::now());
            thread::sleep(LONG / 2);
            let share = flow.shared.beside.now() * 100 / flow.shared.starts.now().max(1);
            flow.drain();
            share
        })
        .collect();
    stop.set();
    poller.join().unwrap();
    b.note(format!("limit 2, beside one that polls and sleeps: {shares:?} % began beside another"));
    let good = shares.iter().filter(|&&share| share >= SHARE).count();
    assert!(
        good > TRIES / 2,
        "of the handlers {shares:?} % began beside another, at limit 2 with a poller that sleeps"
    );
}

/// C-02: a handler that waits on another port gives its slot back while packets flow.
pub fn another_port_frees(b: &Bench) {
    let elsewhere = b.port();
    let (inner, gate) = (elsewhere.clone(), Gate::default());
    let own = gate.clone();
    let flow = Flow::start(b, 2, 4, move |_| {
        own.pass();
        let _ = inner.get_timeout(DEADLINE);
    });
    let what = "limit 2, a handler waits on another port while packets flow: until two others run";
    let took = mostly(what, SEEN, TRIES, || {
        gate.begun.set(0);
        gate.open.store(false, Ordering::SeqCst);
        flow.port.post(0, 0, 1).unwrap();
        eventually("the handler holds its slot", || gate.begun.now() == 1);
        flow.fill();
        let at = Instant::now();
        flow.note_from(at);
        gate.open.store(true, Ordering::SeqCst);
        thread::sleep(LONG / 2);
        let took = flow.reached(2, at);
        elsewhere.post(0, 0, 1).unwrap();
        flow.drain();
        took
    });
    b.note(format!("{what} {took:.1?}"));
}

/// D-15, D-33: one thread, and a packet that computes and is posted anew by its handler, so that one is always queued.
/// What ends by itself meanwhile comes after a few of them.
pub fn others_have_their_turn(b: &Bench) {
    const PIECE: Duration = Duration::from_millis(5);
    /// Some pieces; the wrong value is 64 of them.
    const SOON: Duration = Duration::from_millis(60);
    let port = b.limited(1);
    let (stream, mut peer) = b.stream(&port, 1);
    let at: Arc<Mutex<Option<Instant>>> = Arc::default();
    let (came, own, stop) = (at.clone(), port.clone(), Flag::default());
    let ended = stop.clone();
    let crew = Crew::start(&port, 1, move |_, packet| match packet.event {
        wharf::Event::Posted { .. } => {
            burn(PIECE);
            if !ended.is_set() {
                let _ = own.post(0, 0, FLOW);
            }
        }
        wharf::Event::Received { stream, result: Ok(1..), .. } => {
            *came.lock().unwrap() = Some(Instant::now());
            stream.recv(vec![0; 16], 1).unwrap();
        }
        wharf::Event::Elapsed { .. } => *came.lock().unwrap() = Some(Instant::now()),
        _ => {}
    });
    stream.recv(vec![0; 16], 1).unwrap();
    port.post(0, 0, FLOW).unwrap();
    eventually("the handler runs", || port.stats().active == 1);
    for (what, timer) in [("data that came", false), ("a timer of 10 ms", true)] {
        let took = mostly(what, SOON, TRIES, || {
            let begun = Instant::now();
            if timer {
                port.timer(2 * PIECE, 0, 2).unwrap();
            } else {
                peer.write_all(b"x").unwrap();
            }
            eventually(what, || at.lock().unwrap().is_some());
            at.lock().unwrap().take().expect("it came").duration_since(begun)
        });
        b.note(format!("{what}, beside a packet of 5 ms that is always there: {took:.1?}"));
    }
    stop.set();
    drop(crew);
}
