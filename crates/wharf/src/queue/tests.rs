//! The order in which one thread is handed engine work, entries and polls, on a driver that does what the test says.

use super::*;
use crate::sys::probe::ThreadState;
use crate::threads::{Tended, blocking};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::thread;

/// What a poll brings each time.
struct Source {
    entry: Option<u32>,
    /// Whoever leads sleeps until the timer goes off.
    sleeps: bool,
    polls: AtomicU64,
}

impl Driver<u32> for Source {
    fn poll(&self, wait: Option<Duration>, found: &mut Found<u32>) {
        if self.sleeps && wait.is_none() {
            thread::sleep(TICK);
            found.ticked = true;
        } else {
            assert_eq!(wait, Some(Duration::ZERO), "there is something to do, so nobody sleeps");
        }
        self.polls.fetch_add(1, Ordering::Relaxed);
        found.entries.extend(self.entry);
    }

    fn has_sources(&self) -> bool {
        true
    }

    fn kick(&self) {}

    fn dispose(&self, _: u32) {}
}

fn queue(entry: Option<u32>) -> Arc<Queue<u32, Source>> {
    let source = Source { entry, sleeps: false, polls: AtomicU64::new(0) };
    Arc::new(Queue::new(1, Wake::Adaptive, |_| Ok(source)).unwrap())
}

/// Does `most` pieces of work, each of which begets another, and returns how many there were before the first entry.
fn works_before_an_entry(queue: &Arc<Queue<u32, Source>>, most: usize) -> usize {
    queue.insert_engine_work(0).unwrap();
    for done in 0..most {
        match queue.get(Deadline::Never).unwrap() {
            Taken::Entry(_) => return done,
            Taken::EngineWork(work) => queue.insert_engine_work(work).unwrap(),
        }
    }
    most
}

#[test]
fn work_that_begets_work_does_not_hold_back_an_entry() {
    let queue = queue(None);
    queue.insert(1).unwrap();
    assert!(works_before_an_entry(&queue, 1000) <= 2);
    queue.close();
}

#[test]
fn work_that_begets_work_does_not_hold_back_a_poll() {
    let queue = queue(Some(1));
    let works = works_before_an_entry(&queue, 1000);
    assert!(works <= POLL_EVERY as usize + 2, "{works} pieces of work came before what the poll brings");
    queue.close();
}

#[test]
fn a_supervisor_goes_on_with_work_that_begets_work() {
    let queue = queue(None);
    let park = queue.supervise().unwrap();
    queue.insert(7).unwrap();
    assert!(matches!(queue.get(Deadline::Never), Ok(Taken::Entry(7))));
    blocking(|| {
        queue.insert_engine_work(0).unwrap();
        let mut works = 0;
        for _ in 0..1000 {
            if let Tended::EngineWork(work) = queue.tend(&park) {
                works += 1;
                queue.insert_engine_work(work).unwrap();
            }
        }
        assert!(works > 500, "{works} pieces of work in 1000 turns");
    });
    queue.close();
}

#[test]
fn work_that_begets_work_keeps_a_supervisor_neither_from_polls_nor_from_growing() {
    let queue = queue(Some(1));
    let park = queue.supervise().unwrap();
    // The only worker has the only slot, and says that it blocks.
    queue.insert(7).unwrap();
    assert!(matches!(queue.get(Deadline::Never), Ok(Taken::Entry(7))));
    blocking(|| {
        queue.insert_engine_work(0).unwrap();
        let (mut works, mut grown) = (0_u64, 0);
        // A tick is a matter of time: the works go on until it has come.
        while grown == 0 {
            match queue.tend(&park) {
                Tended::EngineWork(work) => {
                    works += 1;
                    queue.insert_engine_work(work).unwrap();
                }
                Tended::Grow => grown += 1,
                Tended::Stopped => panic!("nobody stopped it"),
                Tended::Nothing => {}
            }
        }
        let polls = queue.driver.polls.load(Ordering::Relaxed);
        assert!(polls >= works / 4, "{polls} polls beside {works} pieces of work");
    });
    queue.close();
}

#[test]
fn a_supervisor_starts_nobody_for_an_entry_that_a_worker_is_on_its_way_to() {
    let source = Source { entry: None, sleeps: true, polls: AtomicU64::new(0) };
    let queue = Arc::new(Queue::new(2, Wake::Adaptive, |_| Ok(source)).unwrap());
    let park = queue.supervise().unwrap();
    let blocked = queue.enroll().number;
    let coming = queue.enroll().number;
    {
        let mut state = queue.state.lock();
        state.go_out_uncounted(blocked);
        state.worker(blocked).blocking = true;
        // It was woken, and has not run yet.
        state.worker(coming).promised = true;
        (state.active, state.promised) = (1, 1);
    }
    queue.insert(7).unwrap();
    for _ in 0..20 {
        assert!(matches!(queue.tend(&park), Tended::Nothing));
    }
    queue.close();
}

/// Enrolls this number of workers that were found blocked; beside them one runs.
fn written_off(queue: &Arc<Queue<u32, Source>>, many: usize) -> (thread::JoinHandle<()>, mpsc::Sender<()>) {
    let (end, ended) = mpsc::channel();
    let (tell, told) = mpsc::channel();
    let enrolling = queue.clone();
    let sleeper = thread::spawn(move || {
        for _ in 0..many {
            enrolling.enroll();
        }
        tell.send(()).unwrap();
        let _ = ended.recv();
    });
    told.recv().unwrap();
    let running = queue.enroll().number;
    let mut state = queue.state.lock();
    while state.worker(0).shared.probe.look() != ThreadState::Blocked {
        thread::yield_now();
    }
    state.read_clock();
    let clock = state.clock;
    for index in 0..many {
        state.go_out_uncounted(index);
        let worker = state.worker(index);
        (worker.written_off, worker.blocked_since, worker.seen) = (true, Some(clock), clock);
    }
    state.written_off = many;
    state.go_out(running, 0, false);
    (sleeper, end)
}

#[test]
fn who_settles_beside_many_who_sleep_looks_at_few() {
    let queue = queue(None);
    queue.supervise().unwrap();
    let (sleeper, end) = written_off(&queue, 200);
    let mut looks = 0;
    let start = now();
    let seen = |state: &State<u32>| state.workers.iter().flatten().map(|worker| worker.seen).collect::<Vec<_>>();
    let mut before = seen(&queue.state.lock());
    while start.elapsed() < 50 * TICK {
        queue.release(queue.state.lock(), false);
        let after = seen(&queue.state.lock());
        let at_once = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert!(at_once <= state::LOOKS_AT_A_TIME, "{at_once} looks in one go");
        (before, looks) = (after, looks + at_once);
    }
    let ticks = start.elapsed().div_duration_f64(TICK);
    let most = 2.0 * state::LOOKS_AT_A_TIME as f64 * ticks;
    assert!(looks > 0 && (looks as f64) < most, "{looks} looks in {ticks} ticks");
    drop(end);
    sleeper.join().unwrap();
    queue.close();
}
