//! Models of the queue: each runs the shipped protocol in all schedules that differ (up to a few forced switches) and
//! checks afterwards that every entry came to one end, no slot leaked and nobody is left behind.
//!
//! `RUSTFLAGS="--cfg loom" cargo test -p wharf --lib --release queue::model` runs them; `ci/loom` also takes every line
//! marked `guard:` out of the queue, one at a time, and requires that one of them fails.
//!
//! A worker that is never woken shows as a deadlock, a timer that goes off for ever as too many branches. Where the
//! timer is *stopped* it never goes off: what must happen, must happen promptly. Threads are taken to be blocked by
//! whoever looks, unless they say that they compute.

use super::signal::{self, Signal, Word};
use super::*;
use crate::sync::pass_until;
use crate::sys::probe::compute;
use crate::threads::{Tended, WorkerState, blocking, unbind};
use loom::sync::{Condvar, Mutex};
use loom::thread::{self, JoinHandle};
use std::sync::Mutex as Untracked;
use std::sync::atomic::AtomicUsize;
use std::time::Instant;

/// Forced switches of threads in a schedule, unless `LOOM_MAX_PREEMPTIONS` says otherwise. What is taken out of the
/// queue by `ci/loom` shows with two.
const PREEMPTIONS: usize = 3;
/// The same for models that would take half a minute or more with three: most of those with four threads.
const PREEMPTIONS_WHERE_MANY: usize = 2;
/// Scheduling points in one run: a run beyond is one that does not end.
const BRANCHES: usize = 5_000;

/// The engine of a model: events happen when a thread says so.
struct Events {
    park: Arc<Park>,
    watchdog: Watchdog,
    happened: Untracked<Vec<Taken<u32>>>,
    disposed: Untracked<Vec<u32>>,
}

impl Driver<u32> for Events {
    fn poll(&self, wait: Option<Duration>, found: &mut Found<u32>) {
        if wait != Some(Duration::ZERO) {
            found.ticked = self.watchdog.wait(&self.park, wait.map(|wait| now() + wait)) == Woke::Tick;
            // A sleep takes long enough for the queue to learn that it is idle.
            pass_until(now() + TICK);
        }
        self.park.prepare();
        for event in self.happened.lock().unwrap().drain(..) {
            match event {
                Taken::Entry(entry) => found.entries.push(entry),
                Taken::EngineWork(work) => found.engine_work.push(work),
            }
        }
    }

    fn has_sources(&self) -> bool {
        true
    }

    fn kick(&self) {
        self.park.signal(true);
    }

    fn dispose(&self, entry: u32) {
        self.disposed.lock().unwrap().push(entry);
    }
}

/// A queue and what became of its entries.
#[derive(Clone)]
struct Bed {
    queue: Arc<Queue<u32, Events>>,
    /// In the order in which they were handed out, or returned.
    ended: Arc<Untracked<Vec<u32>>>,
}

impl Bed {
    fn new(limit: usize, wake: Wake) -> Bed {
        let queue = Queue::new(limit, wake, |watchdog| {
            Ok(Events {
                park: Arc::new(Park::default()),
                watchdog: watchdog.clone(),
                happened: Untracked::default(),
                disposed: Untracked::default(),
            })
        });
        Bed { queue: Arc::new(queue.unwrap()), ended: Arc::default() }
    }

    /// A port whose timer never goes off.
    fn prompt(limit: usize, wake: Wake) -> Bed {
        let bed = Bed::new(limit, wake);
        bed.queue.watchdog.stop();
        bed
    }

    /// Starts a thread that leaves the port before it ends.
    fn worker(&self, work: impl FnOnce(&Bed) + 'static) -> JoinHandle<()> {
        let bed = self.clone();
        thread::spawn(move || {
            work(&bed);
            unbind();
        })
    }

    fn insert_all(&self, entries: impl IntoIterator<Item = u32>) {
        pause();
        self.queue.insert_all(entries);
    }

    fn insert(&self, entry: u32) {
        pause();
        if let Err(entry) = self.queue.insert(entry) {
            self.end(entry);
        }
    }

    /// Something happens in the engine.
    fn happen(&self, event: Taken<u32>) {
        pause();
        self.queue.driver.happened.lock().unwrap().push(event);
        self.queue.driver.park.signal(true);
    }

    fn end(&self, entry: u32) -> usize {
        let mut ended = self.ended.lock().unwrap();
        ended.push(entry);
        ended.len()
    }

    /// Takes one entry and does the engine work that comes before. Returns how many have come to their end.
    fn get(&self, deadline: Deadline) -> Result<usize, GetError> {
        if let Some(entry) = self.queue.take_again() {
            return Ok(self.end(entry));
        }
        loop {
            match self.queue.get(deadline)? {
                Taken::Entry(entry) => return Ok(self.end(entry)),
                Taken::EngineWork(work) => self.end(work),
            };
        }
    }

    fn take(&self) -> usize {
        self.get(Deadline::Never).expect("an entry")
    }

    fn get_until_closed(&self) {
        while self.get(Deadline::Never) != Err(GetError::Abandoned) {}
    }

    fn close(&self) {
        pause();
        for entry in self.queue.close() {
            self.end(entry);
        }
    }

    /// All threads have left: nothing is queued, nobody waits, every slot is back, and `entries` have come to one end
    /// each.
    fn check(&self, entries: impl IntoIterator<Item = u32>) {
        let state = self.queue.state.lock();
        assert_eq!((state.active, state.promised), (0, 0), "slots in use, slots promised");
        assert!(state.fifo.is_empty() && state.engine_work.is_empty(), "something is left in the queue");
        assert!(!state.anybody_inside() && state.supervisor.is_none(), "somebody is left in the queue");
        assert!(state.workers.iter().all(Option::is_none), "somebody belongs to the queue");
        assert!(state.candidates.is_empty(), "somebody who would supervise is left");
        let found = self.queue.found.lock();
        assert!(found.entries.is_empty() && found.engine_work.is_empty(), "the leader left something");
        let mut ended = self.ended.lock().unwrap().clone();
        ended.append(&mut self.queue.driver.disposed.lock().unwrap());
        ended.extend(self.queue.driver.happened.lock().unwrap().drain(..).map(|event| match event {
            Taken::Entry(event) | Taken::EngineWork(event) => event,
        }));
        ended.sort_unstable();
        assert_eq!(ended, Vec::from_iter(entries), "each entry has one end");
    }
}

/// What a handler waits for.
#[derive(Clone)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn new() -> Gate {
        Gate(Arc::new((Mutex::new(false), Condvar::new())))
    }

    fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let mut open = self.0.0.lock().unwrap();
        while !*open {
            open = self.0.1.wait(open).unwrap();
        }
    }
}

/// A scheduling point. A thread whose time-out passes lets another one make a step first: this is a step that changes
/// nothing, so that the time-out may also come before the next one.
fn pause() {
    drop(Mutex::new(()).lock());
}

/// Runs all schedules, and tells how many there were.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    explore_within(PREEMPTIONS, model);
}

fn explore_within(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let schedules = Arc::new(AtomicUsize::new(0));
    let count = schedules.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(preemptions));
    builder.max_branches = BRANCHES;
    let start = Instant::now();
    builder.check(move || {
        count.fetch_add(1, Ordering::Relaxed);
        model();
    });
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    println!("{name}: {} schedules in {:.1?}", schedules.load(Ordering::Relaxed), start.elapsed());
}

fn soon() -> Deadline {
    Deadline::after(Some(Duration::from_secs(1)))
}

fn join(threads: impl IntoIterator<Item = JoinHandle<()>>) {
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn an_insertion_and_an_event_reach_a_leader_that_goes_to_sleep() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let worker = bed.worker(|bed| {
            bed.take();
            bed.take();
            bed.take();
        });
        let engine = bed.worker(|bed| bed.happen(Taken::Entry(2)));
        bed.insert(1);
        bed.queue.try_insert(3, 2).unwrap_or_else(|_| panic!("there is room"));
        join([worker, engine]);
        bed.check([1, 2, 3]);
    });
}

#[test]
fn engine_work_reaches_a_leader_that_goes_to_sleep() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let worker = serve(&bed, 1);
        bed.queue.insert_engine_work(1).unwrap();
        join([worker]);
        bed.check([1]);
    });
}

#[test]
fn two_entries_wake_two_workers_where_the_policy_is_eager() {
    explore(|| {
        let bed = Bed::prompt(2, Wake::Eager);
        let gate = Gate::new();
        let worker = |gate: Gate| {
            bed.worker(move |bed| {
                if bed.take() == 2 {
                    gate.open();
                }
                gate.wait();
            })
        };
        let workers = [worker(gate.clone()), worker(gate)];
        bed.insert(1);
        bed.insert(2);
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn a_promise_whose_entry_another_took_is_returned() {
    explore(|| {
        let bed = Bed::prompt(2, Wake::Eager);
        let workers = [0, 1].map(|_| {
            bed.worker(|bed| {
                if bed.take() == 1 {
                    bed.insert(2);
                }
            })
        });
        bed.insert(1);
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn a_get_that_times_out_takes_what_was_promised_or_passes_it_on() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let hurried = bed.worker(|bed| {
            // Takes the other one's entry: then there has to be another.
            if bed.get(soon()).is_ok() {
                bed.insert(2);
            } else {
                bed.end(2);
            }
        });
        let patient = bed.worker(|bed| assert!(bed.take() > 0));
        bed.insert(1);
        join([hurried, patient]);
        bed.check([1, 2]);
    });
}

#[test]
fn an_exit_passes_its_slot_on() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let workers = [0, 1].map(|_| bed.worker(|bed| assert!(bed.take() > 0)));
        bed.insert(1);
        bed.insert(2);
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn an_exit_passes_its_batch_on() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let exits = bed.worker(|bed| match bed.queue.get_many(soon(), 2) {
            Ok((Taken::Entry(first), _batch)) => {
                bed.end(first);
                bed.insert(3);
                unbind();
            }
            _ => drop(bed.end(3)),
        });
        let worker = bed.worker(|bed| {
            bed.take();
            bed.take();
        });
        bed.insert_all([1, 2]);
        join([exits, worker]);
        bed.check([1, 2, 3]);
    });
}

/// A worker that handles entries and work until all have come to their end.
fn serve(bed: &Bed, all: usize) -> JoinHandle<()> {
    bed.worker(move |bed| {
        while let Ok(Taken::Entry(ended) | Taken::EngineWork(ended)) = bed.queue.get(Deadline::Never) {
            if bed.end(ended) == all {
                bed.close();
            }
        }
    })
}

#[test]
fn engine_work_leaves_a_promised_slot_to_the_entry() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let workers = [0, 1].map(|_| serve(&bed, 2));
        bed.insert(1);
        bed.queue.insert_engine_work(2).unwrap();
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn an_event_is_found_though_the_leader_left_and_blocks() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let workers = [0, 1].map(|_| first_waits_for_second(&bed, &gate, Gate::wait));
        bed.happen(Taken::Entry(1));
        bed.happen(Taken::Entry(2));
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn an_event_is_found_though_the_leader_left_with_work() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let workers = [0, 1].map(|_| {
            let gate = gate.clone();
            bed.worker(move |bed| {
                let taken = bed.queue.get(Deadline::Never).unwrap();
                let (Taken::Entry(ended) | Taken::EngineWork(ended)) = taken;
                if bed.end(ended) == 1 { gate.wait() } else { gate.open() }
            })
        });
        bed.happen(Taken::EngineWork(1));
        bed.happen(Taken::Entry(2));
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn an_event_is_found_though_the_leader_timed_out() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let hurried = bed.worker({
            let gate = gate.clone();
            move |bed| {
                if bed.get(soon()).is_ok() {
                    bed.happen(Taken::Entry(2));
                } else {
                    bed.end(2);
                }
                gate.wait();
            }
        });
        let patient = bed.worker(move |bed| {
            bed.take();
            gate.open();
        });
        bed.happen(Taken::Entry(1));
        join([hurried, patient]);
        bed.check([1, 2]);
    });
}

#[test]
fn where_all_say_that_they_block_another_leads_promptly() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let (taken, gate) = (Gate::new(), Gate::new());
        let workers = [0, 1].map(|_| {
            let (taken, gate) = (taken.clone(), gate.clone());
            bed.worker(move |bed| {
                if bed.take() == 1 {
                    taken.open();
                    blocking(|| gate.wait());
                } else {
                    gate.open();
                }
            })
        });
        bed.happen(Taken::Entry(1));
        taken.wait();
        bed.happen(Taken::Entry(2));
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn a_get_inside_blocking_is_counted_once() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let worker = bed.worker({
            let gate = gate.clone();
            move |bed| {
                bed.take();
                blocking(|| {
                    bed.take();
                    gate.wait();
                });
                compute(true);
                thread::yield_now();
            }
        });
        let other = bed.worker(move |bed| {
            bed.take();
            gate.open();
            bed.take();
        });
        bed.insert_all([1, 2, 3, 4]);
        join([worker, other]);
        bed.check([1, 2, 3, 4]);
    });
}

#[test]
fn blocking_inside_a_get_inside_blocking_is_heard() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let gate = Gate::new();
        let worker = bed.worker({
            let gate = gate.clone();
            move |bed| {
                bed.take();
                blocking(|| {
                    bed.take();
                    blocking(|| gate.wait());
                });
            }
        });
        bed.insert_all([1, 2]);
        // Until both were taken by the same one.
        let other = bed.worker(move |bed| {
            bed.take();
            gate.open();
        });
        bed.insert(3);
        join([worker, other]);
        bed.check([1, 2, 3]);
    });
}

#[test]
fn the_end_of_an_inner_blocking_leaves_the_outer_one_as_it_is() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let gate = Gate::new();
        let wait = |gate: &Gate| {
            blocking(|| {
                blocking(|| {});
                gate.wait();
            })
        };
        let workers = [0, 1].map(|_| first_waits_for_second(&bed, &gate, wait));
        bed.insert_all([1, 2]);
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn a_batch_behind_a_blocked_handler_goes_to_another_worker() {
    for says_so in [false, true] {
        explore(move || {
            let bed = if says_so { Bed::prompt(1, Wake::Adaptive) } else { Bed::new(1, Wake::Adaptive) };
            let gate = Gate::new();
            let workers = [0, 1].map(|_| {
                let gate = gate.clone();
                bed.worker(move |bed| {
                    let Ok((Taken::Entry(first), batch)) = bed.queue.get_many(Deadline::Never, 2) else { panic!() };
                    if bed.end(first) == 2 {
                        gate.open();
                    } else if says_so {
                        blocking(|| gate.wait());
                    } else {
                        gate.wait();
                    }
                    assert_eq!(batch.len(), 0);
                })
            });
            bed.insert_all([1, 2]);
            join(workers);
            bed.check([1, 2]);
        });
    }
}

#[test]
fn what_is_given_back_goes_to_another_worker() {
    explore(|| {
        let bed = Bed::prompt(2, Wake::Eager);
        let gate = Gate::new();
        let gives = bed.worker({
            let gate = gate.clone();
            move |bed| {
                let Ok((Taken::Entry(first), batch)) = bed.queue.get_many(Deadline::Never, 2) else { panic!() };
                bed.end(first);
                bed.queue.give_back(batch.drain().into_iter());
                gate.wait();
            }
        });
        let other = bed.worker(move |bed| {
            bed.take();
            gate.open();
        });
        bed.insert_all([1, 2]);
        join([gives, other]);
        bed.check([1, 2]);
    });
}

/// The first of two workers to get something waits until the second has the other entry.
fn first_waits_for_second(bed: &Bed, gate: &Gate, wait: fn(&Gate)) -> JoinHandle<()> {
    let gate = gate.clone();
    bed.worker(move |bed| if bed.take() == 1 { wait(&gate) } else { gate.open() })
}

#[test]
fn a_worker_that_says_it_blocks_is_replaced_promptly() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let gate = Gate::new();
        let workers = [0, 1].map(|_| first_waits_for_second(&bed, &gate, |gate| blocking(|| gate.wait())));
        bed.insert(1);
        bed.insert(2);
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn a_worker_that_says_it_blocks_is_not_written_off_as_well() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let wait = |gate: &Gate| {
            // A look may find it blocked here, and computing from now on.
            thread::yield_now();
            compute(true);
            blocking(|| gate.wait());
        };
        let workers = [0, 1].map(|_| first_waits_for_second(&bed, &gate, wait));
        bed.insert(1);
        bed.insert(2);
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn a_blocked_worker_is_replaced_through_the_timer() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let workers = [0, 1].map(|_| first_waits_for_second(&bed, &gate, Gate::wait));
        bed.insert(1);
        bed.insert(2);
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn an_entry_not_worth_a_wake_is_fetched_through_the_timer() {
    explore(|| {
        let bed = Bed::new(2, Wake::Adaptive);
        let gate = Gate::new();
        let workers = [0, 1].map(|_| first_waits_for_second(&bed, &gate, Gate::wait));
        bed.insert(1);
        bed.insert(2);
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn a_standby_that_times_out_passes_the_timer_on() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let worker = |deadline: fn() -> Deadline| {
            let gate = gate.clone();
            bed.worker(move |bed| match bed.get(deadline()) {
                Ok(1) => gate.wait(),
                Ok(_) => {
                    gate.open();
                    bed.close();
                }
                Err(_) => {}
            })
        };
        let workers = [worker(|| Deadline::Never), worker(soon), worker(|| Deadline::Never)];
        bed.happen(Taken::Entry(1));
        bed.insert(2);
        join(workers);
        bed.check([1, 2]);
    });
}

#[test]
fn a_waiter_that_times_out_is_not_woken_in_place_of_another() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let workers = [0, 1].map(|_| serve(&bed, 1));
        let hurried = bed.worker(|bed| {
            if bed.get(soon()).is_ok() {
                bed.close();
            }
        });
        bed.insert(1);
        join(workers);
        join([hurried]);
        bed.check([1]);
    });
}

#[test]
fn a_written_off_worker_that_computes_again_counts_again() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let workers = [0, 1, 2].map(|_| {
            let gate = gate.clone();
            bed.worker(move |bed| {
                match bed.take() {
                    1 => gate.wait(),
                    2 => gate.open(),
                    _ => {}
                }
                compute(true);
                thread::yield_now();
            })
        });
        bed.insert_all([1, 2, 3]);
        join(workers);
        bed.check([1, 2, 3]);
    });
}

#[test]
fn handlers_that_do_not_block_run_one_at_a_time() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let running = Arc::new(AtomicUsize::new(0));
        let workers = [0, 1].map(|_| {
            let running = running.clone();
            bed.worker(move |bed| {
                while let Ok(ended) = bed.get(Deadline::Never) {
                    compute(true);
                    assert_eq!(running.fetch_add(1, Ordering::Relaxed), 0, "two handlers run");
                    thread::yield_now();
                    running.fetch_sub(1, Ordering::Relaxed);
                    if ended == 3 {
                        bed.close();
                    }
                    compute(false);
                }
            })
        });
        bed.insert_all([1, 2, 3]);
        join(workers);
        bed.check([1, 2, 3]);
    });
}

#[test]
fn engine_work_goes_on_while_all_slots_are_taken() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let workers = [0, 1].map(|_| works_or_waits(&bed, &gate));
        bed.insert_all([1, 2]);
        bed.happen(Taken::EngineWork(3));
        join(workers);
        bed.check([1, 2, 3]);
    });
}

/// A worker whose handler computes until the engine's work was done, which needs another worker.
fn works_or_waits(bed: &Bed, gate: &Gate) -> JoinHandle<()> {
    let gate = gate.clone();
    bed.worker(move |bed| {
        loop {
            match bed.queue.get(Deadline::Never) {
                Ok(Taken::EngineWork(work)) => {
                    bed.end(work);
                    gate.open();
                }
                Ok(Taken::Entry(entry)) => {
                    compute(true);
                    gate.wait();
                    compute(false);
                    if bed.end(entry) == 3 {
                        bed.close();
                    }
                }
                Err(_) => return,
            }
        }
    })
}

#[test]
fn close_reaches_leader_standby_and_waiter() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let workers = [0, 1, 2].map(|_| bed.worker(Bed::get_until_closed));
        bed.close();
        join(workers);
        bed.check([]);
    });
}

#[test]
fn close_returns_what_was_not_handed_out() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let workers = [0, 1].map(|_| bed.worker(Bed::get_until_closed));
        let inserter = bed.worker(|bed| {
            bed.insert(1);
            bed.happen(Taken::Entry(2));
            bed.insert(3);
        });
        bed.close();
        join(workers);
        join([inserter]);
        bed.check([1, 2, 3]);
    });
}

#[test]
fn close_returns_a_batch_or_leaves_it_to_its_worker() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let worker = bed.worker(|bed| {
            if let Ok((Taken::Entry(first), batch)) = bed.queue.get_many(Deadline::Never, 3) {
                bed.end(first);
                if let Some(entry) = batch.next() {
                    bed.end(entry);
                }
                bed.queue.give_back(batch.drain().into_iter());
            }
        });
        let other = bed.worker(Bed::get_until_closed);
        bed.insert_all([1, 2, 3]);
        bed.close();
        join([worker, other]);
        bed.check([1, 2, 3]);
    });
}

/// Supervises until told to stop. Tells when a further worker is wanted, and when it has done engine work.
fn supervise(bed: &Bed, park: &Arc<Park>, grow: &Gate, worked: &Gate) {
    loop {
        match bed.queue.tend(park) {
            Tended::Stopped => return,
            Tended::Grow => grow.open(),
            Tended::EngineWork(work) => {
                bed.end(work);
                worked.open();
            }
            Tended::Nothing => {}
        }
    }
}

#[test]
fn a_supervisor_replaces_a_blocked_worker_until_it_is_told_to_stop() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let supervisor = bed.worker(|bed| {
            if let Some(park) = bed.queue.supervise() {
                supervise(bed, &park, &Gate::new(), &Gate::new());
            }
        });
        let workers = [0, 1].map(|_| first_waits_for_second(&bed, &gate, Gate::wait));
        bed.insert_all([1, 2]);
        join(workers);
        bed.queue.end_supervision();
        // One that has not begun yet begins now.
        bed.close();
        join([supervisor]);
        bed.check([1, 2]);
    });
}

#[test]
fn a_standby_is_reached_when_a_supervisor_takes_its_place() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let gate = Gate::new();
        let workers = [0, 1].map(|_| first_waits_for_second(&bed, &gate, |gate| blocking(|| gate.wait())));
        pause();
        let park = bed.queue.supervise().unwrap();
        bed.insert(1);
        bed.insert(2);
        join(workers);
        bed.queue.end_supervision();
        assert!(matches!(bed.queue.tend(&park), Tended::Stopped));
        bed.check([1, 2]);
    });
}

#[test]
fn the_end_of_supervision_leaves_somebody_on_the_timer() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let park = bed.queue.supervise().unwrap();
        let workers = [0, 1].map(|_| first_waits_for_second(&bed, &gate, Gate::wait));
        let ends = bed.worker(|bed| bed.queue.end_supervision());
        bed.happen(Taken::Entry(1));
        bed.insert(2);
        join(workers);
        join([ends]);
        assert!(matches!(bed.queue.tend(&park), Tended::Stopped));
        bed.check([1, 2]);
    });
}

#[test]
fn a_supervisor_asks_for_a_worker_where_all_are_blocked() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let grow = Gate::new();
        let park = bed.queue.supervise().unwrap();
        let worker = first_waits_for_second(&bed, &gate, Gate::wait);
        let further = bed.worker({
            let grow = grow.clone();
            move |bed| {
                grow.wait();
                if bed.take() == 1 {
                    gate.wait()
                } else {
                    gate.open()
                }
                bed.close();
            }
        });
        bed.insert_all([1, 2]);
        supervise(&bed, &park, &grow, &Gate::new());
        join([worker, further]);
        bed.check([1, 2]);
    });
}

#[test]
fn a_supervisor_has_somebody_lead_while_all_slots_are_taken() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::new(1, Wake::Adaptive);
        let gate = Gate::new();
        let park = bed.queue.supervise().unwrap();
        let workers = [0, 1].map(|_| works_or_waits(&bed, &gate));
        bed.happen(Taken::Entry(1));
        bed.insert(2);
        bed.happen(Taken::EngineWork(3));
        supervise(&bed, &park, &Gate::new(), &gate);
        join(workers);
        bed.check([1, 2, 3]);
    });
}

/// A supervisor of a port with nobody inside: when it tends next, it leads. The timer is heard no more.
fn leads_next(bed: &Bed) -> Arc<Park> {
    let park = bed.queue.supervise().unwrap();
    assert!(matches!(bed.queue.tend(&park), Tended::Nothing), "the timer goes off");
    bed.queue.watchdog.stop();
    park
}

#[test]
fn an_event_reaches_a_worker_that_came_while_a_supervisor_led() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let park = leads_next(&bed);
        let worker = bed.worker(|bed| {
            bed.take();
            bed.queue.end_supervision();
        });
        let engine = bed.worker(|bed| bed.happen(Taken::Entry(1)));
        supervise(&bed, &park, &Gate::new(), &Gate::new());
        join([worker, engine]);
        bed.check([1]);
    });
}

#[test]
fn a_worker_leads_after_a_supervisor_that_found_work() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let park = leads_next(&bed);
        let worker = bed.worker(|bed| {
            bed.take();
            bed.queue.end_supervision();
        });
        let engine = bed.worker(|bed| {
            bed.happen(Taken::EngineWork(1));
            bed.happen(Taken::Entry(2));
        });
        supervise(&bed, &park, &Gate::new(), &Gate::new());
        join([worker, engine]);
        bed.check([1, 2]);
    });
}

#[test]
fn work_goes_on_while_all_are_outside() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let park = leads_next(&bed);
        let engine = bed.worker(|bed| {
            // More than is done in a row.
            (1..=3).for_each(|work| bed.queue.driver.happened.lock().unwrap().push(Taken::EngineWork(work)));
            bed.happen(Taken::EngineWork(4));
            bed.queue.insert_engine_work(5).unwrap();
        });
        while bed.ended.lock().unwrap().len() < 5 {
            if let Tended::EngineWork(work) = bed.queue.tend(&park) {
                bed.end(work);
            }
        }
        join([engine]);
        bed.queue.end_supervision();
        assert!(matches!(bed.queue.tend(&park), Tended::Stopped));
        bed.check([1, 2, 3, 4, 5]);
    });
}

#[test]
fn an_insertion_reaches_a_worker_that_waits_while_a_supervisor_leads() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let park = leads_next(&bed);
        let worker = bed.worker(|bed| {
            bed.take();
            bed.queue.end_supervision();
        });
        let inserts = bed.worker(|bed| {
            bed.queue.insert_engine_work(1).unwrap();
            bed.insert(2);
        });
        supervise(&bed, &park, &Gate::new(), &Gate::new());
        join([worker, inserts]);
        bed.check([1, 2]);
    });
}

#[test]
fn an_entry_while_a_supervisor_leads_asks_for_a_worker() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let grow = Gate::new();
        let park = bed.queue.supervise().unwrap();
        assert!(matches!(bed.queue.tend(&park), Tended::Nothing));
        let inserts = bed.worker(|bed| bed.insert(1));
        let further = bed.worker({
            let grow = grow.clone();
            move |bed| {
                grow.wait();
                bed.take();
                bed.close();
            }
        });
        supervise(&bed, &park, &grow, &Gate::new());
        join([inserts, further]);
        bed.check([1]);
    });
}

#[test]
fn close_reaches_a_supervisor_that_leads() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let park = leads_next(&bed);
        let supervisor = bed.worker(move |bed| supervise(bed, &park, &Gate::new(), &Gate::new()));
        bed.happen(Taken::Entry(1));
        bed.happen(Taken::EngineWork(2));
        bed.close();
        join([supervisor]);
        bed.check([1, 2]);
    });
}

#[test]
fn the_end_of_supervision_reaches_a_supervisor_that_leads() {
    explore(|| {
        let bed = Bed::new(1, Wake::Adaptive);
        let park = leads_next(&bed);
        let supervisor = bed.worker(move |bed| supervise(bed, &park, &Gate::new(), &Gate::new()));
        let worker = bed.worker(|bed| assert!(bed.take() > 0));
        pause();
        bed.queue.end_supervision();
        bed.happen(Taken::Entry(1));
        join([supervisor, worker]);
        bed.check([1]);
    });
}

#[test]
fn who_supervises_next_leads_after_who_did_before() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::new(1, Wake::Adaptive);
        let park = bed.queue.supervise().unwrap();
        assert!(matches!(bed.queue.tend(&park), Tended::Nothing));
        let first = bed.worker(move |bed| supervise(bed, &park, &Gate::new(), &Gate::new()));
        pause();
        bed.queue.end_supervision();
        let park = bed.queue.supervise().unwrap();
        let worked = Gate::new();
        let next = bed.worker({
            let worked = worked.clone();
            move |bed| supervise(bed, &park, &Gate::new(), &worked)
        });
        bed.happen(Taken::EngineWork(1));
        worked.wait();
        bed.close();
        join([first, next]);
        bed.check([1]);
    });
}

#[test]
fn an_interruption_reaches_leader_standby_and_waiter() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::prompt(1, Wake::Adaptive);
        // Whether the pool stops, and its workers.
        let pool = Arc::new(Mutex::new((false, Vec::new())));
        let workers = [0, 1, 2].map(|_| {
            let pool = pool.clone();
            bed.worker(move |bed| {
                pool.lock().unwrap().1.extend(bind(&bed.queue));
                if !pool.lock().unwrap().0 {
                    assert!(bed.queue.get_interruptibly(Deadline::Never).unwrap().is_none());
                }
            })
        });
        pause();
        let members = {
            let mut pool = pool.lock().unwrap();
            pool.0 = true;
            pool.1.clone()
        };
        members.into_iter().for_each(|member| bed.queue.interrupt(member));
        join(workers);
        bed.check([]);
    });
}

#[test]
fn an_interruption_that_comes_late_hits_nobody_else() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let stops = bed.worker(|bed| {
            let left = bind(&bed.queue).unwrap();
            unbind();
            pause();
            bed.queue.interrupt(left);
        });
        let worker = bed.worker(|bed| {
            let Ok(Some(Taken::Entry(entry))) = bed.queue.get_interruptibly(Deadline::Never) else {
                panic!("it was interrupted, and nobody has asked for it")
            };
            bed.end(entry);
        });
        bed.insert(1);
        join([stops, worker]);
        bed.check([1]);
    });
}

#[test]
fn a_get_that_is_no_pools_own_goes_on_after_an_interruption() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let id = Arc::new(Mutex::new(None));
        let worker = bed.worker({
            let id = id.clone();
            move |bed| {
                *id.lock().unwrap() = bind(&bed.queue);
                assert_eq!(bed.get(Deadline::Never), Ok(1));
            }
        });
        pause();
        let member = *id.lock().unwrap();
        if let Some(member) = member {
            bed.queue.interrupt(member);
        }
        bed.insert(1);
        join([worker]);
        bed.check([1]);
    });
}

#[test]
fn a_candidate_for_supervision_that_gives_up_is_forgotten() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let first = bed.queue.supervise().unwrap();
        let park = Arc::new(Park::default());
        let candidate = bed.worker({
            let park = park.clone();
            move |bed| bed.queue.await_supervision(&park)
        });
        pause();
        park.signal(false);
        join([candidate]);
        assert!(bed.queue.state.lock().candidates.is_empty(), "it is left in the list");
        bed.queue.end_supervision();
        assert!(matches!(bed.queue.tend(&first), Tended::Stopped));
        bed.check([]);
    });
}

#[test]
fn the_end_of_supervision_reaches_a_candidate() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        let first = bed.queue.supervise().unwrap();
        let candidate = bed.worker(|bed| bed.queue.await_supervision(&Arc::new(Park::default())));
        pause();
        bed.queue.end_supervision();
        join([candidate]);
        assert!(matches!(bed.queue.tend(&first), Tended::Stopped));
        bed.check([]);
    });
}

/// A word that a thread sleeps on without a time-out. It is under a lock, so the model explores which thread comes
/// first, and not what the memory orders allow: with an atomic the model checker lets a thread read a value that a
/// store it has seen replaced.
#[derive(Default)]
struct ModelWord(Mutex<u32>, Condvar);

impl ModelWord {
    fn sleep(&self) {
        let mut value = self.0.lock().unwrap();
        while *value == signal::EMPTY {
            value = self.1.wait(value).unwrap();
        }
    }
}

impl signal::Word for ModelWord {
    fn load(&self, _: Ordering) -> u32 {
        *self.0.lock().unwrap()
    }

    fn store(&self, value: u32, _: Ordering) {
        *self.0.lock().unwrap() = value;
    }

    fn wake(&self) {
        drop(self.0.lock().unwrap());
        self.1.notify_all();
    }
}

loom::lazy_static! {
    /// Whether an event can be had.
    static ref FREE: Mutex<bool> = Mutex::new(false);
}

/// An event, raised or not.
struct ModelEvent(Mutex<bool>, Condvar);

impl ModelEvent {
    fn wait(&self) {
        let mut raised = self.0.lock().unwrap();
        while !std::mem::take(&mut *raised) {
            raised = self.1.wait(raised).unwrap();
        }
    }
}

impl signal::Event for ModelEvent {
    fn make() -> Option<Self> {
        FREE.lock().unwrap().then(|| ModelEvent(Mutex::new(false), Condvar::new()))
    }

    fn raise(&self) {
        *self.0.lock().unwrap() = true;
        self.1.notify_all();
    }
}

#[test]
fn a_signal_reaches_a_sleeper_whether_an_event_can_be_had_or_not() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let place: Arc<Signal<ModelWord, ModelEvent>> = Arc::default();
        let sleeps = [Gate::new(), Gate::new()];
        let sleeper = thread::spawn({
            let (place, sleeps) = (place.clone(), sleeps.clone());
            move || {
                for found in sleeps {
                    place.prepare();
                    found.open();
                    match place.event() {
                        None => place.word.sleep(),
                        Some(event) => {
                            while !place.is_set() {
                                event.wait();
                            }
                        }
                    }
                }
            }
        });
        let frees = thread::spawn(|| *FREE.lock().unwrap() = true);
        // One that may come so late that it falls into the second sleep, which it is not meant for.
        let late = thread::spawn({
            let (place, found) = (place.clone(), sleeps[0].clone());
            move || {
                found.wait();
                place.set(true);
            }
        });
        for found in &sleeps {
            found.wait();
            place.set(true);
        }
        join([sleeper, frees, late]);
    });
}

/// The calling thread takes entries of a flow, each of which takes it a while and begets another, for this number of
/// handlers.
fn flow(bed: &Bed, handlers: usize, handler: Duration) {
    for _ in 0..handlers {
        match bed.queue.get(Deadline::Now) {
            Ok(Taken::Entry(entry)) if entry >= 10 => {
                compute(true);
                pass_until(now() + handler);
                bed.insert(entry);
                compute(false);
            }
            Ok(Taken::Entry(entry) | Taken::EngineWork(entry)) => drop(bed.end(entry)),
            Err(_) => return,
        }
    }
}

/// Returns when a worker waits.
fn until_somebody_is_inside(bed: &Bed) {
    while !bed.queue.state.lock().anybody_inside() {
        thread::yield_now();
    }
}

#[test]
fn a_worker_that_flows_has_the_slot_of_one_that_blocks_go_to_another() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::prompt(2, Wake::Adaptive);
        let (gate, taken) = (Gate::new(), Gate::new());
        let sleeper = bed.worker({
            let (gate, taken) = (gate.clone(), taken.clone());
            move |bed| {
                bed.take();
                taken.open();
                gate.wait();
            }
        });
        bed.insert(1);
        taken.wait();
        let other = bed.worker({
            let gate = gate.clone();
            move |bed| {
                bed.take();
                gate.open();
            }
        });
        until_somebody_is_inside(&bed);
        bed.insert_all([10, 11]);
        flow(&bed, 6, TICK / 2);
        // One entry is left for the other, who was woken for it in time.
        gate.wait();
        join([sleeper, other]);
        bed.take();
        unbind();
        bed.check([1, 10, 11]);
    });
}

#[test]
fn a_worker_that_flows_gets_the_batch_of_one_that_blocks() {
    explore(|| {
        let bed = Bed::prompt(2, Wake::Adaptive);
        let (gate, taken) = (Gate::new(), Gate::new());
        let sleeper = bed.worker({
            let (gate, taken) = (gate.clone(), taken.clone());
            move |bed| {
                let Ok((Taken::Entry(1), rest)) = bed.queue.get_many(Deadline::Never, 2) else { panic!() };
                bed.end(1);
                taken.open();
                gate.wait();
                assert_eq!(rest.len(), 0, "a sleeper holds nothing");
            }
        });
        bed.insert_all([1, 2]);
        taken.wait();
        bed.insert(10);
        flow(&bed, 6, TICK / 2);
        gate.open();
        join([sleeper]);
        bed.take();
        unbind();
        bed.check([1, 2, 10]);
    });
}

#[test]
fn a_look_that_comes_late_leaves_a_worker_alone_that_has_taken_again() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        bed.insert(1);
        bed.take();
        let leader = bed.worker(Bed::get_until_closed);
        until_somebody_is_inside(&bed);
        let looker = bed.worker(|bed| {
            pass_until(now() + TICK * 2);
            // Whoever inserts finds out that the worker has been out for two ticks, and looks.
            bed.insert(2);
        });
        let again = bed.queue.take_again();
        compute(true);
        join([looker]);
        if let Some(entry) = again {
            bed.end(entry);
            let state = bed.queue.state.lock();
            assert!(state.workers.iter().flatten().any(|worker| worker.counted), "it computes, and has no slot");
        }
        compute(false);
        unbind();
        bed.close();
        join([leader]);
        bed.check([1, 2]);
    });
}

#[test]
fn an_entry_that_a_free_slot_could_take_is_not_left_behind() {
    explore_within(PREEMPTIONS_WHERE_MANY, || {
        let bed = Bed::new(2, Wake::Adaptive);
        let gate = Gate::new();
        bed.insert(1);
        bed.take();
        let other = bed.worker({
            let gate = gate.clone();
            move |bed| {
                bed.take();
                gate.open();
            }
        });
        until_somebody_is_inside(&bed);
        bed.insert_all([10, 11]);
        // The handlers take long, and the average that the queue goes by has not noticed it yet.
        flow(&bed, 2, TICK * 2);
        gate.wait();
        join([other]);
        bed.take();
        unbind();
        bed.check([1, 10, 11]);
    });
}

#[test]
fn engine_work_that_begets_work_leaves_room_for_an_entry() {
    explore(|| {
        let bed = Bed::prompt(1, Wake::Adaptive);
        bed.insert(1);
        bed.queue.insert_engine_work(2).unwrap();
        let mut works = 0;
        while let Ok(Taken::EngineWork(work)) = bed.queue.get(Deadline::Never) {
            works += 1;
            assert!(works < 5, "work goes before an entry without end");
            bed.queue.insert_engine_work(work).unwrap();
        }
        bed.end(1);
        bed.close();
        unbind();
        bed.check([1, 2]);
    });
}
