//! Posted packets, beside queues that do nothing else: on one thread; in bursts, with producers and consumers that do
//! nothing but post and take; and sparse, where the consumer sleeps before each packet.
//!
//! Every queue carries the same three words, which is what a post is (bytes, key, context), and hands all three to the
//! consumer; a port's entry has a fourth, its kind. All have the same threads, the same number of items and the same
//! end: time and processor time run from the first post until the last consumer has ended. Nobody's queue has a bound,
//! and how many threads a queue wakes is its own affair. What differs: `get_many(64)` may take 64 at a time, where a
//! channel's `recv` takes one, and is held against it because that is what a channel has; `recv + try_iter` takes one
//! lock or claim for each, too.

mod peers;

use crate::builds::Builds;
use crate::lab::Lab;
use crate::measure::{Plan, Sample, all_in_turns, process_cpu_us, ratios, rows, thread_cpu_us};
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::stats::{histogram, median};
use crate::usage::own_switches;
use peers::Queue;
use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::path::Path;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use wharf::{CompletionPort, Packet};

/// What a post carries: a number of bytes, a key, a context.
pub type Item = (usize, usize, usize);

const BATCH: usize = 64;
/// An item with this key ends the consumer that takes it.
const LAST: usize = usize::MAX;
/// A consumer that was given nothing for so long is asleep.
const PAUSE: Duration = Duration::from_micros(300);

pub fn run(lab: &Lab, beside: Option<&Path>) -> io::Result<Report> {
    let mut report = Report::default();
    one_thread(lab, &mut report, beside)?;
    for (producers, consumers) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        if lab.has_time(&burst_name(producers, consumers), 7.0) {
            burst(lab, &mut report, beside, producers, consumers)?;
        }
    }
    for &consumers in lab.pick(&[1][..], &[1, 2]) {
        if lab.has_time(&sparse_name(consumers), 4.0) {
            sparse(lab, &mut report, beside, consumers)?;
        }
    }
    Ok(report)
}

fn burst_name(producers: usize, consumers: usize) -> String {
    format!("burst, {producers} to {consumers}")
}

fn sparse_name(consumers: usize) -> String {
    format!("sparse, 1 to {consumers}")
}

fn sample(count: usize, seconds: f64, cpu_us: f64) -> Sample {
    Sample {
        messages_per_second: Some(count as f64 / seconds),
        cpu_us_per_message: Some(cpu_us / count as f64),
        ..Sample::default()
    }
}

/// Post and get, or push and pop of the same packet type under a bare lock; and the others' own types.
fn one_thread(lab: &Lab, report: &mut Report, beside: Option<&Path>) -> io::Result<()> {
    let case = "post + get, 1 thread";
    lab.case(case);
    let count = lab.pick(200_000, 1_000_000);
    let port = one_port()?;
    let queue: Mutex<VecDeque<Ours>> = Mutex::new(VecDeque::new());
    port.post(0, 0, 0).expect("the port is open");
    // The type can be made by a port only.
    let mut slot = Some(port.get().expect("just posted"));
    let own = ["wharf", "Mutex<VecDeque>", AGAIN, "crossbeam-channel", "flume", "kanal", "std mpsc"];
    let mut builds = Builds::start(beside, &[("post + get", format!("queue-one-thread {count}"))])?;
    let names = with_builds(&own, &builds);
    let plan = Plan::within(lab.pick(3.0, 12.0));
    let samples = all_in_turns(lab, names.len(), plan, |system| {
        if let Some(build) = system.checked_sub(own.len()) {
            return builds.sample(build);
        }
        let (begin, cpu) = (Instant::now(), thread_cpu_us());
        match system {
            0 | 2 => return Ok(one_thread_turn(count, &port)),
            1 => slot = under_a_lock(count, &queue, slot.take()),
            3 => {
                let (posts, takes) = crossbeam_channel::unbounded::<Item>();
                there_and_back(count, |item| posts.send(item).is_ok(), || takes.recv().ok());
            }
            4 => {
                let (posts, takes) = flume::unbounded::<Item>();
                there_and_back(count, |item| posts.send(item).is_ok(), || takes.recv().ok());
            }
            5 => {
                let (posts, takes) = kanal::unbounded::<Item>();
                there_and_back(count, |item| posts.send(item).is_ok(), || takes.recv().ok());
            }
            _ => {
                let (posts, takes) = std::sync::mpsc::channel::<Item>();
                there_and_back(count, |item| posts.send(item).is_ok(), || takes.recv().ok());
            }
        }
        Ok(sample(count, begin.elapsed().as_secs_f64(), thread_cpu_us() - cpu))
    })?;
    report.rows.extend(rows("queue", case, &refs(&names), &samples));
    let ratio = median(&ratios(&samples[0], &samples[1], |sample| sample.cpu_us_per_message));
    report.goals.push(Goal::new("post + get beside a bare queue", ratio, Wanted::AtMost(1.5)));
    Ok(())
}

type Ours = Packet<usize, usize>;

/// The port of one thread's turns.
pub fn one_port() -> io::Result<CompletionPort<usize, usize>> {
    CompletionPort::<usize, usize>::options().concurrency(2).build()
}

pub fn one_thread_turn(count: usize, port: &CompletionPort<usize, usize>) -> Sample {
    let (begin, cpu) = (Instant::now(), thread_cpu_us());
    through_a_port(count, port);
    sample(count, begin.elapsed().as_secs_f64(), thread_cpu_us() - cpu)
}

/// A burst through a port.
pub fn burst_turn(producers: usize, consumers: usize, batch: usize, count: usize) -> io::Result<Sample> {
    through(Queue::Wharf, producers, consumers, batch, count)
}

/// One packet at a time through a port.
pub fn sparse_turn(consumers: usize, count: usize) -> io::Result<Sample> {
    alone(Queue::Wharf, consumers, count)
}

fn with_builds(own: &[&str], builds: &Builds) -> Vec<String> {
    own.iter().copied().chain(builds.names()).map(str::to_owned).collect()
}

fn refs(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

// Each a function of its own: inlined into one, what the compiler makes of one of them depends on the others.

#[inline(never)]
fn through_a_port(count: usize, port: &CompletionPort<usize, usize>) {
    for number in 0..count {
        port.post(0, black_box(number), number).expect("the port is open");
        black_box(port.get().expect("just posted"));
    }
}

#[inline(never)]
fn under_a_lock(count: usize, queue: &Mutex<VecDeque<Ours>>, mut slot: Option<Ours>) -> Option<Ours> {
    for number in 0..count {
        let mut packet = slot.take().expect("put back below");
        packet.context = number;
        queue.lock().expect("not poisoned").push_back(packet);
        slot = black_box(queue.lock().expect("not poisoned").pop_front());
    }
    slot
}

#[inline(never)]
fn there_and_back(count: usize, post: impl Fn(Item) -> bool, take: impl Fn() -> Option<Item>) {
    for number in 0..count {
        assert!(post((0, black_box(number), number)));
        black_box(take());
    }
}

/// A queue, and how many items a consumer takes at a time.
type System = (&'static str, Queue, usize);

fn systems(consumers: usize) -> Vec<System> {
    let mut systems = vec![
        ("wharf get_many(64)", Queue::Wharf, BATCH),
        ("wharf get", Queue::Wharf, 1),
        (AGAIN, Queue::Wharf, BATCH),
        ("crossbeam-channel recv", Queue::Crossbeam, 1),
        ("crossbeam-channel recv + try_iter", Queue::Crossbeam, BATCH),
        ("flume", Queue::Flume, 1),
        ("kanal", Queue::Kanal, 1),
    ];
    if consumers == 1 {
        systems.push(("std mpsc", Queue::Std, 1));
    }
    systems
}

/// All packets are posted by threads that do nothing else, and taken by others.
fn burst(lab: &Lab, report: &mut Report, beside: Option<&Path>, producers: usize, consumers: usize) -> io::Result<()> {
    let case = burst_name(producers, consumers);
    lab.case(&case);
    let count = lab.pick(200_000, 1_000_000);
    let systems = systems(consumers);
    let own: Vec<&str> = systems.iter().map(|system| system.0).collect();
    let turns = |batch: usize| format!("queue-burst {producers} {consumers} {batch} {count}");
    let mut builds = Builds::start(beside, &[("get_many(64)", turns(BATCH)), ("get", turns(1))])?;
    let names = with_builds(&own, &builds);
    let plan = Plan::within(lab.pick(3.5, 13.0));
    let samples = all_in_turns(lab, names.len(), plan, |system| match systems.get(system) {
        Some(&(_, queue, batch)) => through(queue, producers, consumers, batch, count),
        None => builds.sample(system - systems.len()),
    })?;
    report.rows.extend(rows("queue", &case, &refs(&names), &samples));
    let ratio = |system: usize| median(&ratios(&samples[system], &samples[3], |sample| sample.messages_per_second));
    report.goals.push(Goal::new(format!("{case}: get_many, rate of crossbeam's"), ratio(0), Wanted::AtLeast(1.0)));
    report.goals.push(Goal::new(format!("{case}: get, rate of crossbeam's"), ratio(1), Wanted::AtLeast(0.35)));
    Ok(())
}

/// Runs the threads, and times them from the first post to the end of the last consumer.
fn through(queue: Queue, producers: usize, consumers: usize, batch: usize, count: usize) -> io::Result<Sample> {
    let (posts, takes) = queue.open(consumers)?;
    let start = Barrier::new(producers + consumers + 1);
    let each = count / producers;
    let (mut begin, mut cpu) = (Instant::now(), 0.0);
    let switches = own_switches();
    thread::scope(|scope| {
        for mut take in takes {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let mut is_over = false;
                while !is_over {
                    take.take(batch, &mut |item: Item| is_over |= black_box(item).1 == LAST);
                }
            });
        }
        let producing: Vec<_> = (0..producers)
            .map(|_| {
                let (posts, start) = (posts.another(), &start);
                scope.spawn(move || {
                    start.wait();
                    (0..each).for_each(|number| assert!(posts.post((0, number, number))));
                })
            })
            .collect();
        (begin, cpu) = (Instant::now(), process_cpu_us());
        start.wait();
        for thread in producing {
            thread.join().expect("a producer does not panic");
        }
        // More than there are consumers, should one have taken several at a time.
        (0..consumers * BATCH).for_each(|_| _ = posts.post((0, LAST, 0)));
    });
    let count = each * producers;
    Ok(Sample {
        switches_per_message: Some((own_switches() - switches) as f64 / count as f64),
        ..sample(count, begin.elapsed().as_secs_f64(), process_cpu_us() - cpu)
    })
}

/// One packet at a time, each to a consumer that has been asleep for a while. Latency is from the post to the consumer;
/// cost is both sides', with the pauses' sleep in between.
fn sparse(lab: &Lab, report: &mut Report, beside: Option<&Path>, consumers: usize) -> io::Result<()> {
    let case = sparse_name(consumers);
    lab.case(&case);
    let single = |system: &System| system.2 == 1 || system.0 == AGAIN;
    let systems: Vec<System> = systems(consumers).into_iter().filter(single).collect();
    let own: Vec<&str> = systems.iter().map(|system| system.0).collect();
    let count = lab.pick(120, 500);
    let mut builds = Builds::start(beside, &[("get", format!("queue-sparse {consumers} {count}"))])?;
    let names = with_builds(&own, &builds);
    let plan = Plan::within(lab.pick(3.0, 12.0));
    let samples = all_in_turns(lab, names.len(), plan, |system| match systems.get(system) {
        Some(&(_, queue, _)) => alone(queue, consumers, count),
        None => builds.sample(system - systems.len()),
    })?;
    report.rows.extend(rows("queue", &case, &refs(&names), &samples));
    Ok(())
}

fn alone(queue: Queue, consumers: usize, count: usize) -> io::Result<Sample> {
    let (posts, takes) = queue.open(consumers)?;
    let origin = Instant::now();
    let latency = Mutex::new(histogram());
    let (mut time, mut cpu) = (Duration::ZERO, 0.0);
    let switches = own_switches();
    thread::scope(|scope| {
        for mut take in takes {
            let latency = &latency;
            scope.spawn(move || {
                let mut is_over = false;
                while !is_over {
                    take.take(1, &mut |item: Item| {
                        let way = origin.elapsed().as_nanos() as u64 - item.2 as u64;
                        is_over = item.1 == LAST;
                        if !is_over {
                            let _ = latency.lock().expect("not poisoned").record(way);
                        }
                    });
                }
            });
        }
        thread::sleep(PAUSE * 4);
        let (begin, before) = (Instant::now(), process_cpu_us());
        for number in 0..count {
            assert!(posts.post((0, number, origin.elapsed().as_nanos() as usize)));
            thread::sleep(PAUSE);
        }
        (time, cpu) = (begin.elapsed(), process_cpu_us() - before);
        (0..consumers).for_each(|_| _ = posts.post((0, LAST, 0)));
    });
    Ok(Sample {
        latency: Some(latency.into_inner().expect("not poisoned")),
        switches_per_message: Some((own_switches() - switches) as f64 / count as f64),
        ..sample(count, time.as_secs_f64(), cpu)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_carries_everything_once_and_ends() {
        for queue in [Queue::Wharf, Queue::Crossbeam, Queue::Flume, Queue::Kanal, Queue::Std] {
            for consumers in [1, 2] {
                if queue == Queue::Std && consumers > 1 {
                    continue;
                }
                let (posts, takes) = queue.open(consumers).unwrap();
                let taken = Mutex::new(Vec::new());
                thread::scope(|scope| {
                    for mut take in takes {
                        let taken = &taken;
                        scope.spawn(move || {
                            let mut is_over = false;
                            while !is_over {
                                take.take(3, &mut |item: Item| {
                                    is_over |= item.1 == LAST;
                                    if item.1 != LAST {
                                        taken.lock().unwrap().push(item.2);
                                    }
                                });
                            }
                        });
                    }
                    let another = posts.another();
                    let other = scope.spawn(move || (0..500).for_each(|number| assert!(another.post((0, 0, number)))));
                    (500..1000).for_each(|number| assert!(posts.post((0, 0, number))));
                    // The ends come behind everything else.
                    other.join().unwrap();
                    (0..consumers * 3).for_each(|_| _ = posts.post((0, LAST, 0)));
                });
                let mut taken = taken.into_inner().unwrap();
                taken.sort_unstable();
                assert_eq!(taken, (0..1000).collect::<Vec<_>>(), "{queue:?}");
            }
        }
    }
}
