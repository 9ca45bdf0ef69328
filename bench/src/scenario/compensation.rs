//! Compensation: the time from a worker blocking to another worker taking the next packet.
//!
//! The port's limit is one, two packets are queued. The handler of the first waits for the second's, which therefore
//! needs another worker: as soon as the first is told to be blocked (`wharf::blocking`), or is found to be. Beside it a
//! bare futex: from the waker's call, after which it goes to sleep itself, to the woken thread's return. All three take
//! turns.

use crate::futex::{wait, wake};
use crate::lab::Lab;
use crate::load::Random;
use crate::measure::{Plan, Sample, all_in_turns, rows};
use crate::rows::{Goal, Report, Wanted};
use crate::stats::{histogram, median};
use hdrhistogram::Histogram;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wharf::{CompletionPort, Workers};

const NAMES: [&str; 3] = ["declared (wharf::blocking)", "detected", "bare futex wake"];
/// One blocks, one takes the next packet, one is left.
const WORKERS: usize = 3;
/// For so long the first handler computes before it blocks: it is known to run, and the other packet waits.
const BEFORE: Duration = Duration::from_micros(20);

pub fn run(lab: &Lab) -> io::Result<Report> {
    lab.case("limit 1, 3 workers");
    let times = lab.pick(60, 200);
    let port = Port::start()?;
    let mut random = Random::new(1);
    let samples = all_in_turns(lab, NAMES.len(), Plan::within(lab.pick(10.0, 25.0)), |system| {
        let mut latency = histogram();
        match system {
            2 => bare(times, &mut latency),
            _ => {
                for _ in 0..times {
                    let _ = latency.record(port.trial(system == 0, pause(&mut random)));
                }
            }
        }
        Ok(Sample { latency: Some(latency), ..Sample::default() })
    })?;
    port.end();
    let mut report = Report { rows: rows("compensation", "limit 1, 3 workers", &NAMES, &samples), ..Report::default() };
    for (name, own) in NAMES.iter().zip(&samples) {
        let mut all = histogram();
        for latency in own.iter().filter_map(|sample| sample.latency.as_ref()) {
            let _ = all.add(latency);
        }
        report.notes.push(format!("{name}: {}", distribution(&all)));
    }
    let middle = |sample: &Sample| sample.latency.as_ref().map(|latency| latency.value_at_quantile(0.5) as f64);
    let per_round = |of: usize, by: usize| -> Vec<f64> {
        let pairs = samples[of].iter().zip(&samples[by]);
        pairs.filter_map(|(of, by)| Some(middle(of)? / middle(by)?)).collect()
    };
    let declared = median(&per_round(0, 2));
    report.goals.push(Goal::new("declared, median, of a bare futex wake's", declared, Wanted::AtMost(3.0)));
    let detected =
        median(&samples[1].iter().filter_map(middle).map(|nanoseconds| nanoseconds / 1e6).collect::<Vec<f64>>());
    report.goals.push(Goal::new("detected, median in ms", detected, Wanted::AtMost(2.5)));
    Ok(report)
}

/// In microseconds.
fn distribution(latency: &Histogram<u64>) -> String {
    let at = |quantile: f64| latency.value_at_quantile(quantile) as f64 / 1000.0;
    let max = latency.max() as f64 / 1000.0;
    let [p10, p50, p90, p99] = [0.1, 0.5, 0.9, 0.99].map(at);
    format!("p10 {p10:.1}, p50 {p50:.1}, p90 {p90:.1}, p99 {p99:.1}, max {max:.1} us ({} times)", latency.len())
}

/// Up to a millisecond, so that trials fall anywhere between two ticks.
fn pause(random: &mut Random) -> Duration {
    Duration::from_micros(random.below(1000))
}

/// What the two handlers and the trial share.
struct Trial {
    begin: Instant,
    /// Both packets are queued.
    posted: AtomicU32,
    blocked_at: AtomicU64,
    taken_at: AtomicU64,
    release: AtomicU32,
    over: AtomicU32,
}

impl Trial {
    fn new() -> Trial {
        Trial {
            begin: Instant::now(),
            posted: AtomicU32::new(0),
            blocked_at: AtomicU64::new(0),
            taken_at: AtomicU64::new(0),
            release: AtomicU32::new(0),
            over: AtomicU32::new(0),
        }
    }

    fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    fn block(&self, declared: bool) {
        while self.posted.load(Ordering::Acquire) == 0 {
            std::hint::spin_loop();
        }
        let until = Instant::now() + BEFORE;
        while Instant::now() < until {
            std::hint::spin_loop();
        }
        self.blocked_at.store(self.now(), Ordering::Relaxed);
        let wait = || wait(&self.release);
        let _ = if declared { wharf::blocking(wait) } else { wait() };
    }

    fn take(&self) {
        self.taken_at.store(self.now(), Ordering::Relaxed);
        wake(&self.release, 1);
        wake(&self.over, 1);
    }

    fn nanoseconds(&self) -> u64 {
        self.taken_at.load(Ordering::Relaxed).saturating_sub(self.blocked_at.load(Ordering::Relaxed))
    }
}

#[derive(Clone, Copy)]
enum Task {
    Block { declared: bool },
    Take,
}

struct Port {
    port: CompletionPort<(), Task>,
    pool: wharf::WorkerPool,
    trial: Arc<Trial>,
}

impl Port {
    fn start() -> io::Result<Port> {
        let port = CompletionPort::<(), Task>::options().concurrency(1).build()?;
        let trial = Arc::new(Trial::new());
        let own = trial.clone();
        let pool = port.start(Workers::exactly(WORKERS), move |packet| match packet.context {
            Task::Block { declared } => own.block(declared),
            Task::Take => own.take(),
        })?;
        Ok(Port { port, pool, trial })
    }

    fn trial(&self, declared: bool, pause: Duration) -> u64 {
        // Everybody is back, and asleep.
        while self.port.stats().waiting < WORKERS {
            thread::sleep(Duration::from_micros(50));
        }
        thread::sleep(pause);
        self.trial.posted.store(0, Ordering::Relaxed);
        for task in [Task::Block { declared }, Task::Take] {
            self.port.post(0, (), task).unwrap_or_else(|_| unreachable!("the port is open"));
        }
        self.trial.posted.store(1, Ordering::Release);
        wait(&self.trial.over);
        self.trial.nanoseconds()
    }

    fn end(self) {
        self.port.close();
        self.pool.join();
    }
}

/// One thread wakes the other and goes to sleep, as a worker does that blocks.
fn bare(times: usize, latency: &mut Histogram<u64>) {
    let (trial, there) = (Trial::new(), AtomicU32::new(0));
    thread::scope(|scope| {
        scope.spawn(|| {
            while wait(&there) == 1 {
                trial.taken_at.store(trial.now(), Ordering::Relaxed);
                wake(&trial.over, 1);
            }
        });
        for _ in 0..times {
            thread::sleep(Duration::from_micros(100)); // it has fallen asleep
            let until = Instant::now() + BEFORE;
            while Instant::now() < until {
                std::hint::spin_loop();
            }
            trial.blocked_at.store(trial.now(), Ordering::Relaxed);
            wake(&there, 1);
            wait(&trial.over);
            let _ = latency.record(trial.nanoseconds());
        }
        wake(&there, 2);
    });
}
