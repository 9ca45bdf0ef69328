//! Waking a sleeping thread and being woken by it, there and back: a worker in `get` beside a bare futex. The way back
//! is a bare futex for all.

use crate::rows::{Row, median, quartiles};
use rustix::thread::futex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Instant;
use wharf::CompletionPort;

pub fn run(quick: bool) -> Vec<Row> {
    let rounds = if quick { 9 } else { 21 };
    let trips = if quick { 10_000 } else { 30_000 };
    let mut nanos = vec![Vec::new(); 3];
    for round in 0..rounds {
        for place in 0..3 {
            let system = (round + place) % 3;
            nanos[system].push(match system {
                0 => ports(trips, true),
                1 => ports(trips, false),
                _ => futexes(trips),
            });
        }
    }
    let systems = ["wharf, asleep on its futex", "wharf, asleep in epoll", "bare futex"];
    let row = |(system, values): (usize, &Vec<f64>)| {
        let ratio: Vec<f64> = values.iter().zip(&nanos[0]).map(|(this, wharf)| this / wharf).collect();
        Row {
            scenario: "wake",
            case: "there and back".into(),
            system: systems[system].into(),
            p50_us: Some(median(values) / 1000.0),
            messages_per_second: Some(1e9 / median(values)),
            ratio_rate: Some(1.0 / median(&ratio)),
            ratio_cpu: Some(median(&ratio)),
            ratio_cpu_spread: Some(quartiles(&ratio)),
            rounds,
            ..Row::default()
        }
    };
    nanos.iter().enumerate().map(row).collect()
}

/// A port wakes the other thread, and a futex wakes this one. With `led`, two more workers wait, one of which leads
/// and one of which stands by, so that the woken one sleeps on its futex; without, it is the leader and sleeps in
/// epoll. Whoever is woken answers.
fn ports(trips: usize, led: bool) -> f64 {
    let port = CompletionPort::<(), bool>::builder().concurrency(4).build::<(), bool>().expect("a port");
    let back = AtomicU32::new(0);
    thread::scope(|scope| {
        let workers = if led { 3 } else { 1 };
        for waiting in 1..=workers {
            scope.spawn(|| {
                while port.get().expect("the port is open").context {
                    wake(&back, 1);
                }
            });
            while port.stats().waiting < waiting {
                thread::yield_now();
            }
        }
        let begin = Instant::now();
        for _ in 0..trips {
            port.post(0, (), true).expect("the port is open");
            wait(&back);
        }
        let took = begin.elapsed().as_nanos() as f64 / trips as f64;
        // One for each thread, and it ends.
        (0..workers).for_each(|_| port.post(0, (), false).expect("the port is open"));
        took
    })
}

fn wake(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
    let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
}

fn wait(word: &AtomicU32) -> u32 {
    loop {
        match word.swap(0, Ordering::AcqRel) {
            0 => drop(futex::wait(word, futex::Flags::PRIVATE, 0, None)),
            value => return value,
        }
    }
}

fn futexes(trips: usize) -> f64 {
    let (there, back) = (AtomicU32::new(0), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while wait(&there) == 1 {
                wake(&back, 1);
            }
        });
        let begin = Instant::now();
        for _ in 0..trips {
            wake(&there, 1);
            wait(&back);
        }
        let took = begin.elapsed().as_nanos() as f64 / trips as f64;
        wake(&there, 2);
        took
    })
}
