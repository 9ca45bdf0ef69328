//! Posted packets: one thread, then bursts through several.

use crate::measure::{Sample, in_turns, process_cpu_us, ratios, rows, thread_cpu_us};
use crate::rows::{Goal, Report, Wanted, median};
use std::collections::VecDeque;
use std::hint::black_box;
use std::io;
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::Instant;
use wharf::{CompletionPort, Packet};

type Port = CompletionPort<usize, usize>;

const BATCH: usize = 64;
/// A packet with this key ends the consumer that takes it.
const LAST: usize = usize::MAX;

pub fn run(quick: bool) -> io::Result<Report> {
    let rounds = if quick { 9 } else { 21 };
    let mut report = Report::default();
    one_thread(&mut report, rounds, if quick { 300_000 } else { 1_000_000 })?;
    for (producers, consumers) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        burst(&mut report, producers, consumers, rounds, 1_000_000)?;
    }
    Ok(report)
}

fn sample(count: usize, seconds: f64, cpu_us: f64) -> Sample {
    Sample {
        messages_per_second: Some(count as f64 / seconds),
        cpu_us_per_message: Some(cpu_us / count as f64),
        ..Sample::default()
    }
}

/// Post and get, or push and pop of the same packet type under a bare lock.
fn one_thread(report: &mut Report, rounds: usize, count: usize) -> io::Result<()> {
    let port: Port = Port::builder().concurrency(2).build()?;
    let queue: Mutex<VecDeque<Packet<usize, usize>>> = Mutex::new(VecDeque::new());
    port.post(0, 0, 0).expect("the port is open");
    // The type can be made by a port only.
    let mut slot = Some(port.get().expect("just posted"));
    let samples = in_turns(2, rounds, |system| {
        let (begin, cpu) = (Instant::now(), thread_cpu_us());
        if system == 0 {
            for number in 0..count {
                port.post(0, black_box(number), number).expect("the port is open");
                black_box(port.get().expect("just posted"));
            }
        } else {
            for number in 0..count {
                let mut packet = slot.take().expect("put back below");
                packet.context = number;
                queue.lock().expect("not poisoned").push_back(packet);
                slot = black_box(queue.lock().expect("not poisoned").pop_front());
            }
        }
        Ok(sample(count, begin.elapsed().as_secs_f64(), thread_cpu_us() - cpu))
    })?;
    report.rows.extend(rows("queue", "post + get, 1 thread", &["wharf", "Mutex<VecDeque>"], &samples));
    let ratio = median(&ratios(&samples[0], &samples[1], |sample| sample.cpu_us_per_message));
    report.goals.push(Goal::new("post + get beside a bare queue", ratio, Wanted::AtMost(1.5)));
    Ok(())
}

/// All packets are posted by threads that do nothing else, and taken by others.
fn burst(report: &mut Report, producers: usize, consumers: usize, rounds: usize, count: usize) -> io::Result<()> {
    let names = ["wharf get_many(64)", "wharf get", "crossbeam recv", "crossbeam recv + try_iter"];
    let samples = in_turns(names.len(), rounds, |system| match system {
        0 | 1 => through_port(producers, consumers, count, if system == 0 { BATCH } else { 1 }),
        _ => Ok(through_crossbeam(producers, consumers, count, if system == 3 { BATCH } else { 1 })),
    })?;
    let case = format!("burst, {producers} to {consumers}");
    report.rows.extend(rows("queue", &case, &names, &samples));
    let ratio = |system: usize| median(&ratios(&samples[system], &samples[2], |sample| sample.messages_per_second));
    report.goals.push(Goal::new(format!("{case}: get_many, rate of crossbeam's"), ratio(0), Wanted::AtLeast(1.0)));
    report.goals.push(Goal::new(format!("{case}: get, rate of crossbeam's"), ratio(1), Wanted::AtLeast(0.35)));
    Ok(())
}

fn through_port(producers: usize, consumers: usize, count: usize, batch: usize) -> io::Result<Sample> {
    let port: Port = Port::builder().concurrency(consumers).build()?;
    let post = |number| port.post(0, number, number).expect("the port is open");
    let take_one = || port.get().expect("the port is open").key != LAST;
    let take_many =
        || port.get_many(batch, None).expect("the port is open").all(|packet| black_box(packet).key != LAST);
    Ok(through(
        producers,
        consumers,
        count,
        || post,
        || move || while if batch == 1 { take_one() } else { take_many() } {},
        || (0..consumers).for_each(|_| post(LAST)),
    ))
}

fn through_crossbeam(producers: usize, consumers: usize, count: usize, batch: usize) -> Sample {
    // What a packet of ours carries.
    let (sender, receiver) = crossbeam_channel::unbounded::<(usize, usize, usize)>();
    let post = |number| sender.send((0, number, number)).expect("there is a receiver");
    let take = || {
        while let Ok(packet) = receiver.recv() {
            if black_box(packet).1 == LAST {
                return;
            }
            // It stops at the first end it sees: the others' ends stay.
            for packet in receiver.try_iter().take(batch - 1) {
                if black_box(packet).1 == LAST {
                    return;
                }
            }
        }
    };
    through(producers, consumers, count, || post, || take, || (0..consumers).for_each(|_| post(LAST)))
}

/// Runs the threads, and times them from the first post to the end of the last consumer.
fn through<P: Fn(usize) + Send, C: FnOnce() + Send>(
    producers: usize,
    consumers: usize,
    count: usize,
    producer: impl Fn() -> P,
    consumer: impl Fn() -> C,
    end: impl FnOnce(),
) -> Sample {
    let start = Barrier::new(producers + consumers + 1);
    let each = count / producers;
    let (mut begin, mut cpu) = (Instant::now(), 0.0);
    thread::scope(|scope| {
        for _ in 0..consumers {
            let (consume, start) = (consumer(), &start);
            scope.spawn(move || {
                start.wait();
                consume();
            });
        }
        let producing: Vec<_> = (0..producers)
            .map(|_| {
                let (post, start) = (producer(), &start);
                scope.spawn(move || {
                    start.wait();
                    (0..each).for_each(post);
                })
            })
            .collect();
        (begin, cpu) = (Instant::now(), process_cpu_us());
        start.wait();
        for thread in producing {
            thread.join().expect("a producer does not panic");
        }
        end();
    });
    sample(each * producers, begin.elapsed().as_secs_f64(), process_cpu_us() - cpu)
}
