//! Posted packets: one thread, then bursts through several.

use crate::rows::{Row, median, quartiles};
use std::collections::VecDeque;
use std::hint::black_box;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use wharf::{CompletionPort, Packet, PortStats};

type Port = CompletionPort<usize, usize>;

pub fn run(quick: bool) -> Vec<Row> {
    let rounds = if quick { 9 } else { 21 };
    let mut rows = one_thread(rounds, if quick { 300_000 } else { 1_000_000 });
    for (producers, consumers) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        rows.extend(burst(producers, consumers, rounds, if quick { 200_000 } else { 1_000_000 }));
    }
    rows
}

fn rows_of(case: &str, systems: &[&str], nanos: &[Vec<f64>], rounds: usize) -> Vec<Row> {
    let row = |(system, values): (usize, &Vec<f64>)| {
        let ratio: Vec<f64> = values.iter().zip(&nanos[0]).map(|(this, wharf)| this / wharf).collect();
        Row {
            scenario: "queue",
            case: case.into(),
            system: systems[system].into(),
            messages_per_second: Some(1e9 / median(values)),
            cpu_us_per_message: Some(median(values) / 1000.0),
            ratio_cpu: Some(median(&ratio)),
            ratio_cpu_spread: Some(quartiles(&ratio)),
            ratio_rate: Some(1.0 / median(&ratio)),
            rounds,
            ..Row::default()
        }
    };
    nanos.iter().enumerate().map(row).collect()
}

/// Post and get, or push and pop of the same packet type under a bare lock.
fn one_thread(rounds: usize, count: usize) -> Vec<Row> {
    let port = Port::builder().concurrency(2).build::<usize, usize>().expect("a port");
    let queue: Mutex<VecDeque<Packet<usize, usize>>> = Mutex::new(VecDeque::new());
    port.post(0, 0, 0).expect("the port is open");
    let mut packet = port.get().expect("just posted");
    let mut nanos = vec![Vec::new(); 2];
    for _ in 0..rounds {
        nanos[0].push(timed(count, |number| {
            port.post(0, black_box(number), number).expect("the port is open");
            black_box(port.get().expect("just posted"));
        }));
        let mut slot = Some(packet);
        nanos[1].push(timed(count, |number| {
            let mut packet = slot.take().expect("put back below");
            packet.context = number;
            queue.lock().expect("not poisoned").push_back(packet);
            slot = black_box(queue.lock().expect("not poisoned").pop_front());
        }));
        packet = slot.take().expect("the last one");
    }
    rows_of("post + get, one thread", &["wharf", "Mutex<VecDeque>"], &nanos, rounds)
}

fn timed(count: usize, mut step: impl FnMut(usize)) -> f64 {
    let begin = Instant::now();
    (0..count).for_each(&mut step);
    begin.elapsed().as_nanos() as f64 / count as f64
}

/// All packets are posted by threads that do nothing else, and taken by others.
fn burst(producers: usize, consumers: usize, rounds: usize, count: usize) -> Vec<Row> {
    let mut nanos = vec![Vec::new(); 3];
    for round in 0..rounds {
        for place in 0..3 {
            let system = (round + place) % 3;
            nanos[system].push(match system {
                0 => burst_through_port(producers, consumers, count, 64),
                1 => burst_through_port(producers, consumers, count, 1),
                _ => burst_through_crossbeam(producers, consumers, count),
            });
        }
    }
    let case = format!("burst, {producers} producers {consumers} consumers");
    rows_of(&case, &["wharf get_many(64)", "wharf get", "crossbeam-channel recv"], &nanos, rounds)
}

/// Nanoseconds of wall time for each packet.
fn burst_through_port(producers: usize, consumers: usize, count: usize, batch: usize) -> f64 {
    let port = Port::builder().concurrency(consumers).build::<usize, usize>().expect("a port");
    let start = Arc::new(Barrier::new(producers + consumers + 1));
    let begin = thread::scope(|scope| {
        for _ in 0..producers {
            scope.spawn(|| {
                start.wait();
                for number in 0..count / producers {
                    port.post(0, number, number).expect("the port is open");
                }
            });
        }
        for _ in 0..consumers {
            scope.spawn(|| {
                start.wait();
                loop {
                    if batch == 1 {
                        if port.get().expect("the port is open").key == usize::MAX {
                            return;
                        }
                    } else {
                        for packet in port.get_many(batch, None).expect("the port is open") {
                            if packet.key == usize::MAX {
                                return;
                            }
                        }
                    }
                }
            });
        }
        start.wait();
        let begin = Instant::now();
        while port.stats().removed < (count / producers * producers) as u64 {
            thread::sleep(Duration::from_micros(100));
        }
        let took = begin.elapsed();
        (0..consumers).for_each(|_| port.post(0, usize::MAX, 0).expect("the port is open"));
        took
    });
    let _: PortStats = port.stats();
    begin.as_nanos() as f64 / count as f64
}

fn burst_through_crossbeam(producers: usize, consumers: usize, count: usize) -> f64 {
    // What a packet of ours carries.
    let (sender, receiver) = crossbeam_channel::unbounded::<(usize, usize, usize)>();
    let start = Arc::new(Barrier::new(producers + consumers + 1));
    thread::scope(|scope| {
        for _ in 0..producers {
            let sender = sender.clone();
            let start = start.clone();
            scope.spawn(move || {
                start.wait();
                for number in 0..count / producers {
                    sender.send((0, number, number)).expect("there are receivers");
                }
            });
        }
        drop(sender);
        let taken = Arc::new(std::sync::atomic::AtomicU64::new(0));
        for _ in 0..consumers {
            let receiver = receiver.clone();
            let (start, taken) = (start.clone(), taken.clone());
            scope.spawn(move || {
                start.wait();
                let mut own = 0;
                while let Ok(packet) = receiver.recv() {
                    black_box(packet);
                    own += 1;
                }
                taken.fetch_add(own, std::sync::atomic::Ordering::Relaxed);
            });
        }
        start.wait();
        let begin = Instant::now();
        while taken.load(std::sync::atomic::Ordering::Relaxed) < (count / producers * producers) as u64 {
            thread::sleep(Duration::from_micros(100));
        }
        begin.elapsed().as_nanos() as f64 / count as f64
    })
}
