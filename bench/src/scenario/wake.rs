//! Waking a sleeping thread: a worker in `get` beside a bare futex, and beside a bare eventfd in an epoll.
//!
//! One thread wakes the other, which wakes it back by a bare futex whatever is measured; so both sleep each time.
//! Latency is that of the one way, by the clock that both read. Processor time is that of the trip, less half of the
//! bare futex's trip in the same round for the way back.

use crate::futex::{wait, wake};
use crate::lab::Lab;
use crate::machine;
use crate::measure::{Plan, Sample, Samples, all_in_turns, process_cpu_us, ratios, rows};
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::stats::{histogram, median};
use crate::usage::Usage;
use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;
use wharf::CompletionPort;

/// The worker is woken on the processor of its waker, or on the other one.
const PLACES: [(&str, usize); 2] = [("one processor", 0), ("two processors", 1)];
const NAMES: [&str; 5] =
    ["wharf, asleep on its futex", "wharf, asleep in epoll", "bare futex", "bare eventfd in epoll", AGAIN];

pub fn run(lab: &Lab) -> io::Result<Report> {
    let plan = Plan::within(lab.pick(12.0, 15.0));
    let trips = lab.pick(1_500, 6_000);
    let mut report = Report::default();
    for (place, waker) in PLACES {
        lab.case(place);
        let mut samples = all_in_turns(lab, NAMES.len(), plan, |system| match system {
            0 | 4 => port(trips, waker, 2),
            1 => port(trips, waker, 0),
            2 => bare_futex(trips, waker),
            _ => bare_eventfd(trips, waker),
        })?;
        one_way(&mut samples);
        report.rows.extend(rows("wake", place, &NAMES, &samples));
        for (of, by) in [(0, 2), (1, 3), (1, 2)] {
            let what = format!("{place}: {}, cpu of {}'s", NAMES[of], NAMES[by]);
            let ratio = median(&ratios(&samples[of], &samples[by], |sample| sample.cpu_us_per_message));
            report.goals.push(Goal::new(what, ratio, Wanted::AtMost(1.1)));
        }
    }
    machine::unpin();
    Ok(report)
}

fn one_way(samples: &mut Samples) {
    for round in 0..samples[0].len() {
        let back = samples[2][round].cpu_us_per_message.map(|trip| trip / 2.0);
        for own in samples.iter_mut() {
            own[round].cpu_us_per_message = own[round].cpu_us_per_message.zip(back).map(|(trip, back)| trip - back);
        }
    }
}

/// The waker's side, and what the worker needs to answer.
struct Trips {
    begin: Instant,
    posted_at: AtomicU64,
    way: AtomicU64,
    back: AtomicU32,
}

impl Trips {
    fn new() -> Trips {
        Trips { begin: Instant::now(), posted_at: AtomicU64::new(0), way: AtomicU64::new(0), back: AtomicU32::new(0) }
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// The worker is awake, and wakes the waker.
    fn answer(&self) {
        self.way.store(self.now() - self.posted_at.load(Ordering::Relaxed), Ordering::Relaxed);
        wake(&self.back, 1);
    }

    fn measure(&self, trips: usize, waker: usize, post: impl Fn()) -> Sample {
        machine::pin(waker);
        let mut latency = histogram();
        let trip = || {
            self.posted_at.store(self.now(), Ordering::Relaxed);
            post();
            wait(&self.back);
            self.way.load(Ordering::Relaxed)
        };
        for _ in 0..100 {
            trip(); // the worker has fallen asleep for the first time
        }
        let (begin, cpu, before) = (Instant::now(), process_cpu_us(), Usage::own());
        for _ in 0..trips {
            let _ = latency.record(trip());
        }
        let (time, cpu, used) = (begin.elapsed(), process_cpu_us() - cpu, Usage::own().since(before));
        Sample {
            messages_per_second: Some(trips as f64 / time.as_secs_f64()),
            cpu_us_per_message: Some(cpu / trips as f64),
            switches_per_message: Some(used.switches as f64 / trips as f64),
            wakeups_per_message: Some(used.wakeups as f64 / trips as f64),
            latency: Some(latency),
            ..Sample::default()
        }
    }
}

/// With two others, one leads and one stands by, and the woken worker sleeps on its futex. With none, it is the leader,
/// and sleeps in epoll.
fn port(trips: usize, waker: usize, others: usize) -> io::Result<Sample> {
    let port: CompletionPort<(), bool> = CompletionPort::<(), bool>::options().concurrency(4).build()?;
    let state = Trips::new();
    machine::pin(0);
    Ok(thread::scope(|scope| {
        for waiting in 1..=others + 1 {
            scope.spawn(|| {
                while port.get().expect("the port is open").context {
                    state.answer();
                }
            });
            while port.stats().waiting < waiting {
                thread::yield_now();
            }
        }
        let sample = state.measure(trips, waker, || port.post(0, (), true).expect("the port is open"));
        (0..=others).for_each(|_| port.post(0, (), false).expect("the port is open"));
        sample
    }))
}

fn bare_futex(trips: usize, waker: usize) -> io::Result<Sample> {
    let (state, there) = (Trips::new(), AtomicU32::new(0));
    machine::pin(0);
    Ok(thread::scope(|scope| {
        scope.spawn(|| {
            while wait(&there) == 1 {
                state.answer();
            }
        });
        let sample = state.measure(trips, waker, || wake(&there, 1));
        wake(&there, 2);
        sample
    }))
}

fn bare_eventfd(trips: usize, waker: usize) -> io::Result<Sample> {
    let (state, value) = (Trips::new(), AtomicU32::new(1));
    let event = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, &event, epoll::EventData::new_u64(0), epoll::EventFlags::IN | epoll::EventFlags::ET)?;
    let wake = || {
        let _ = rustix::io::write(&event, &1u64.to_ne_bytes());
    };
    machine::pin(0);
    Ok(thread::scope(|scope| {
        scope.spawn(|| {
            let mut events = Vec::with_capacity(8);
            while value.load(Ordering::Acquire) == 1 {
                events.clear();
                if epoll::wait(&epoll, spare_capacity(&mut events), None).is_ok_and(|count| count > 0) {
                    state.answer();
                }
            }
        });
        let sample = state.measure(trips, waker, wake);
        value.store(0, Ordering::Release);
        wake();
        sample
    }))
}
