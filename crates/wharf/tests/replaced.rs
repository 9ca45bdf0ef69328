//! A worker that blocks beside workers that flow: it is replaced, what it holds goes to others, and it counts again
//! when it computes again. In a quiet port the watchdog timer sees to that; here packets never stop.
//!
//! Nothing is concluded from the clock. How long something took is told by the packets that others handled meanwhile,
//! in several rounds, of which a busy machine may spoil the worst two.

mod common;

use common::eventually;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};
use wharf::{CompletionPort, GetError, Wake};

type Port = CompletionPort<u64, u64>;

/// What a handler of the flow takes.
const HANDLER: Duration = Duration::from_micros(100);
const ROUNDS: usize = 15;
/// So many packets of the flow are 40 ms of one worker: far above the one or two ticks that a look takes, and far below
/// a sleep, which ends with the round.
const SOON: usize = 400;
/// The round is over.
const NEVER: usize = 5_000;

/// Contexts.
const FLOW: u64 = 0;
const SLEEP: u64 = 1;
const HELD: u64 = 2;

fn port(limit: usize, wake: Wake) -> Port {
    Port::options().concurrency(limit).wake(wake).build().unwrap()
}

fn compute(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// A gate that a handler sleeps at.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    /// Held as long as the gate is shut.
    mutex: Mutex<()>,
}

impl Gate {
    fn pass(&self) {
        drop(self.changed.wait_while(self.open.lock().unwrap(), |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }
}

/// Packets that beget packets, until told to end.
#[derive(Default)]
struct Flow {
    ends: AtomicBool,
    handled: AtomicUsize,
    /// Packets by worker.
    by: Mutex<HashMap<ThreadId, usize>>,
}

impl Flow {
    fn handle(&self, port: &Port) {
        compute(HANDLER);
        // In a handler's time, and never for long: `try_lock`, so that nobody of the flow blocks here.
        if let Ok(mut by) = self.by.try_lock() {
            *by.entry(thread::current().id()).or_default() += 1;
        }
        if self.handled.fetch_add(1, SeqCst) >= NEVER {
            self.ends.store(true, SeqCst);
        }
        if !self.ends.load(SeqCst) {
            drop(port.post(0, 0, FLOW));
        }
    }
}

fn crew(port: &Port, count: usize, handler: impl Fn(u64) + Send + Sync + 'static) -> Vec<JoinHandle<()>> {
    let handler = Arc::new(handler);
    (0..count)
        .map(|_| {
            let (port, handler) = (port.clone(), handler.clone());
            thread::spawn(move || {
                loop {
                    match port.get() {
                        Ok(packet) => handler(packet.context),
                        Err(GetError::Abandoned) => return,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect()
}

/// `sleepers` of `sleepers` + `limit` workers block in `sleep` while packets flow. Returns how many packets the flow
/// handled from the moment when all sleepers slept until `limit` workers ran beside them.
fn until_replaced(limit: usize, sleepers: usize, wake: Wake, sleep: impl Fn(&Gate) + Send + Sync + 'static) -> usize {
    let port = port(limit, wake);
    let (flow, gate) = (Arc::new(Flow::default()), Arc::new(Gate::default()));
    let shut = gate.clone();
    let shut = shut.mutex.lock().unwrap();
    let asleep = Arc::new(AtomicUsize::new(0));
    let threads = crew(&port, limit + sleepers, {
        let (port, flow, gate, asleep) = (port.clone(), flow.clone(), gate.clone(), asleep.clone());
        move |context| match context {
            SLEEP => {
                asleep.fetch_add(1, SeqCst);
                sleep(&gate);
            }
            _ => flow.handle(&port),
        }
    });
    (0..2 * limit).for_each(|_| port.post(0, 0, FLOW).unwrap());
    (0..sleepers).for_each(|_| port.post(0, 0, SLEEP).unwrap());
    eventually("all sleepers are asleep", || asleep.load(SeqCst) == sleepers);
    flow.by.lock().unwrap().clear();
    let before = flow.handled.load(SeqCst);
    eventually("others run in their place, or the flow has ended", || {
        flow.by.lock().unwrap().len() >= limit || flow.ends.load(SeqCst)
    });
    let replaced = flow.by.lock().unwrap().len() >= limit;
    let took = if replaced { flow.handled.load(SeqCst) - before } else { NEVER };
    flow.ends.store(true, SeqCst);
    gate.open();
    drop(shut);
    port.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    took
}

/// All rounds but two are soon over.
fn soon(what: &str, round: impl Fn() -> usize) {
    let mut took: Vec<usize> = (0..ROUNDS).map(|_| round()).collect();
    took.sort_unstable();
    println!("{what}: {took:?} packets");
    assert!(took[ROUNDS - 3] < SOON, "{what}: after {took:?} packets of the flow, in rounds");
}

#[test]
fn a_sleeper_beside_a_busy_worker_is_replaced() {
    for wake in [Wake::Adaptive, Wake::Eager] {
        soon(&format!("limit 2, one sleeps, {wake:?}"), || until_replaced(2, 1, wake, Gate::pass));
    }
}

#[test]
fn two_sleepers_of_four_are_replaced() {
    soon("limit 4, two sleep", || until_replaced(4, 2, Wake::Adaptive, Gate::pass));
}

#[test]
fn a_worker_that_waits_for_a_mutex_is_replaced() {
    soon("limit 2, one waits for a mutex", || {
        until_replaced(2, 1, Wake::Adaptive, |gate| drop(gate.mutex.lock().unwrap()))
    });
}

/// One of three workers, at limit 2, takes four packets at a time and sleeps on the first while the flow goes on.
/// Returns after how many packets of the flow the other three were handled.
fn until_a_batch_is_handled() -> usize {
    let port = port(2, Wake::Adaptive);
    let (flow, gate) = (Arc::new(Flow::default()), Arc::new(Gate::default()));
    let held = Arc::new(AtomicUsize::new(0));
    (0..4).for_each(|_| port.post(0, 0, HELD).unwrap());
    let (inside, own, sleeps) = (Arc::new(AtomicBool::new(false)), port.clone(), gate.clone());
    let told = inside.clone();
    let sleeper = thread::spawn(move || {
        let batch = own.get_many(4).unwrap();
        told.store(true, SeqCst);
        sleeps.pass();
        assert_eq!(batch.count(), 1, "the first is the sleeper's, the others are gone");
    });
    eventually("the batch was taken", || inside.load(SeqCst));
    let threads = crew(&port, 2, {
        let (port, flow, held) = (port.clone(), flow.clone(), held.clone());
        move |context| match context {
            HELD => drop(held.fetch_add(1, SeqCst)),
            _ => flow.handle(&port),
        }
    });
    (0..4).for_each(|_| port.post(0, 0, FLOW).unwrap());
    eventually("the batch was handled, or the flow has ended", || held.load(SeqCst) == 3 || flow.ends.load(SeqCst));
    let took = if held.load(SeqCst) == 3 { flow.handled.load(SeqCst) } else { NEVER };
    flow.ends.store(true, SeqCst);
    gate.open();
    sleeper.join().unwrap();
    port.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    took
}

#[test]
fn a_batch_held_by_a_sleeper_beside_busy_workers_goes_to_others() {
    soon("limit 2, a batch is held", until_a_batch_is_handled);
}

/// At limit 1 a worker sleeps, is replaced, wakes and computes while the flow goes on. Returns how many packets were
/// handled beside it from then on.
fn beside_one_that_computes_again() -> usize {
    let port = port(1, Wake::Adaptive);
    let (flow, gate) = (Arc::new(Flow::default()), Arc::new(Gate::default()));
    let beside = Arc::new(AtomicUsize::new(NEVER));
    let threads = crew(&port, 3, {
        let (port, flow, gate, beside) = (port.clone(), flow.clone(), gate.clone(), beside.clone());
        move |context| match context {
            SLEEP => {
                gate.pass();
                let before = flow.handled.load(SeqCst);
                compute(HANDLER * 2_000);
                beside.store(flow.handled.load(SeqCst) - before, SeqCst);
            }
            _ => flow.handle(&port),
        }
    });
    port.post(0, 0, SLEEP).unwrap();
    (0..2).for_each(|_| port.post(0, 0, FLOW).unwrap());
    eventually("the sleeper was replaced", || flow.handled.load(SeqCst) > 100);
    gate.open();
    eventually("it has computed", || beside.load(SeqCst) < NEVER || flow.ends.load(SeqCst));
    flow.ends.store(true, SeqCst);
    port.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    beside.load(SeqCst)
}

#[test]
fn a_sleeper_that_computes_again_beside_a_busy_worker_counts_again() {
    soon("limit 1, one computes again", beside_one_that_computes_again);
}

/// A thread that looks into the port now and then, and sleeps between: a game's loop. Returns after how many packets of
/// the flow two others run beside it at limit 2.
fn until_a_poller_is_replaced() -> usize {
    let port = port(2, Wake::Adaptive);
    let (flow, gate) = (Arc::new(Flow::default()), Arc::new(Gate::default()));
    let (sleeps, asleep, own) = (gate.clone(), Arc::new(AtomicBool::new(false)), port.clone());
    let told = asleep.clone();
    let poller = thread::spawn(move || {
        assert!(own.get_timeout(Duration::ZERO).is_err());
        told.store(true, SeqCst);
        sleeps.pass();
    });
    eventually("the poller sleeps", || asleep.load(SeqCst));
    let threads = crew(&port, 2, {
        let (port, flow) = (port.clone(), flow.clone());
        move |_| flow.handle(&port)
    });
    (0..4).for_each(|_| port.post(0, 0, FLOW).unwrap());
    eventually("two run beside it", || flow.by.lock().unwrap().len() >= 2 || flow.ends.load(SeqCst));
    let took = if flow.by.lock().unwrap().len() >= 2 { flow.handled.load(SeqCst) } else { NEVER };
    flow.ends.store(true, SeqCst);
    gate.open();
    poller.join().unwrap();
    port.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    took
}

#[test]
fn a_thread_that_polls_and_sleeps_keeps_no_slot_from_busy_workers() {
    soon("limit 2, a poller sleeps", until_a_poller_is_replaced);
}
