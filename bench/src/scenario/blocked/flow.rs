//! Handlers that block beside handlers that take packet after packet. The others never sleep, so the port is never
//! quiet, and nobody's timer goes off for want of anything else to do: it has to be seen all the same that a slot is
//! free.
//!
//! As many packets as the limit, and as many again, are always queued; each computes for 100 us and begets the next
//! one. A trial posts packets whose handlers sleep, without a word. From the moment when all of them sleep it is
//! measured how long it takes until as many threads have begun a handler as the limit allows, and how many packets are
//! handled until the first sleeper wakes. (Not until as many compute at the same instant: with fewer processors than
//! threads that is a matter of where the system happens to interrupt them.) The port is the lab's own, with a pool of
//! as many workers as can be needed.

use crate::builds::Builds;
use crate::lab::Lab;
use crate::load::Random;
use crate::machine::Place;
use crate::measure::{Plan, Sample, Samples, all_in_turns, ratios, rows};
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::server::compute;
use crate::stats::{histogram, median};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use wharf::{CompletionPort, WorkerPool, Workers};

const NAMES: [&str; 2] = ["wharf", AGAIN];
/// What a handler computes.
const HANDLER: Duration = Duration::from_micros(100);
/// What a handler sleeps, in milliseconds.
const SLEEP_MS: std::ops::Range<u64> = 50..100;
/// Between two trials, so that whoever slept is back: many times what the next packet takes.
const BETWEEN: Duration = Duration::from_millis(5);

/// A limit, and how many of the threads sleep.
#[derive(Clone, Copy)]
pub struct Sleepers {
    limit: usize,
    count: usize,
}

pub const SLEEPERS: [Sleepers; 2] = [Sleepers { limit: 2, count: 1 }, Sleepers { limit: 4, count: 2 }];

impl Sleepers {
    pub fn name(self) -> String {
        let verb = if self.count == 1 { "sleeps" } else { "sleep" };
        format!("{} of {} {verb} 50 to 100 ms beside a flow", self.count, self.limit)
    }
}

pub fn case(lab: &Lab, report: &mut Report, sleepers: Sleepers, beside: Option<&Path>) -> io::Result<()> {
    let name = sleepers.name();
    lab.case(&name);
    Place::Anywhere.for_servers();
    let trials = lab.pick(4, 10);
    let Sleepers { limit, count } = sleepers;
    let mut builds = Builds::start(beside, &[("a pool", format!("blocked-flow {limit} {count} {trials}"))])?;
    let names: Vec<String> = NAMES.into_iter().chain(builds.names()).map(str::to_owned).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut flow = Flow::new(limit, count);
    let quiet: RefCell<Samples> = RefCell::new(vec![Vec::new(); names.len()]);
    // A full run has the two hundred trials that a 99th percentile needs.
    let disturbed = all_in_turns(lab, names.len(), Plan::within(lab.pick(5.0, 44.0)), |at| {
        let turn = match at.checked_sub(NAMES.len()) {
            None => flow.turn(trials)?.into(),
            Some(build) => builds.turn(build)?,
        };
        let [calm, slept] = <[Sample; 2]>::try_from(turn).map_err(|_| io::Error::other("a turn has two samples"))?;
        quiet.borrow_mut()[at].push(calm);
        Ok(slept)
    })?;
    let quiet = quiet.into_inner();
    let calm = rows("blocked", &format!("quiet, for: {name}"), &names, &quiet);
    let mut found = rows("blocked", &name, &names, &disturbed);
    for (at, row) in found.iter_mut().enumerate() {
        row.rate_of_quiet = median(&ratios(&disturbed[at], &quiet[at], |sample| sample.messages_per_second));
    }
    let row = &found[0];
    let until = |which: &str| format!("{name}: until {limit} run beside, {which} in us");
    report.goals.push(Goal::new(until("median"), row.p50_us, Wanted::AtMost(2500.0)));
    report.goals.push(Goal::new(until("p99"), row.p99_us, Wanted::AtMost(5000.0)));
    let rate = format!("{name}: the others' rate of quiet's");
    report.goals.push(Goal::new(rate, row.rate_of_quiet, Wanted::AtLeast(0.95)));
    report.rows.extend(calm);
    report.rows.append(&mut found);
    Ok(())
}

/// What is measured in turns, and when the next trial of it begins.
pub struct Flow {
    sleepers: Sleepers,
    random: Random,
}

impl Flow {
    pub fn new(limit: usize, sleepers: usize) -> Flow {
        Flow { sleepers: Sleepers { limit, count: sleepers }, random: Random::new(1) }
    }

    /// A port's rate while nobody sleeps; and beside sleepers, with the times until they were replaced.
    pub fn turn(&mut self, trials: usize) -> io::Result<[Sample; 2]> {
        let flow = Running::start(self.sleepers)?;
        thread::sleep(BETWEEN);
        let mut quiet = Rate::default();
        let mut beside = Rate::default();
        let mut latency = histogram();
        for _ in 0..trials {
            // Up to a tick more, so that trials fall anywhere between two ticks.
            let (begin, before) = (Instant::now(), flow.state.handled.load(SeqCst));
            thread::sleep(2 * BETWEEN + Duration::from_micros(self.random.below(1000)));
            quiet.add(flow.state.handled.load(SeqCst) - before, begin.elapsed());
            let span = SLEEP_MS.end - SLEEP_MS.start;
            let asleep = Duration::from_millis(SLEEP_MS.start) + Duration::from_micros(self.random.below(span * 1000));
            let trial = flow.trial(asleep);
            // Who is not replaced while it sleeps has taken the whole sleep at least.
            let _ = latency.record(trial.replaced.unwrap_or(trial.slept).as_nanos() as u64);
            beside.add(trial.handled, trial.slept);
            thread::sleep(BETWEEN);
        }
        flow.end();
        Ok([quiet.sample(), Sample { latency: Some(latency), ..beside.sample() }])
    }
}

#[derive(Default)]
struct Rate {
    packets: usize,
    time: Duration,
}

impl Rate {
    fn add(&mut self, packets: usize, time: Duration) {
        self.packets += packets;
        self.time += time;
    }

    fn sample(&self) -> Sample {
        let rate = self.packets as f64 / self.time.as_secs_f64();
        Sample { messages_per_second: Some(rate), ..Sample::default() }
    }
}

/// What came of sleepers: how long all of them slept, what the others handled meanwhile, and when the limit was
/// reached.
#[derive(Clone, Copy)]
struct Trial {
    slept: Duration,
    handled: usize,
    replaced: Option<Duration>,
}

#[derive(Clone, Copy)]
enum Task {
    Flow,
    Sleep(Duration),
}

/// All sleepers sleep, and the limit was not reached since.
const WAITED_FOR: u64 = u64::MAX;

thread_local! {
    /// Which of the lab's workers the thread is. Each turn has its own; their numbers come again after 64.
    static WORKER: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, SeqCst) % 64
    };
}

/// What handlers and trials share.
struct State {
    begin: Instant,
    ends: AtomicBool,
    handled: AtomicUsize,
    /// The threads that have begun a handler since all sleepers sleep, a bit for each.
    begun: AtomicU64,
    /// When the limit was reached beside sleepers, in nanoseconds since `begin`; or [`WAITED_FOR`].
    replaced_at: AtomicU64,
    sleep: Mutex<Sleep>,
    awake: Condvar,
}

/// How far the sleepers of a trial are.
#[derive(Default)]
struct Sleep {
    asleep: usize,
    woken: usize,
    /// When the last one fell asleep, and what was handled by then.
    all: Option<(Duration, usize)>,
    trial: Option<Trial>,
}

impl State {
    fn flow(&self, limit: usize, port: &CompletionPort<(), Task>) {
        let own = 1 << WORKER.with(|worker| *worker);
        let begun = self.begun.fetch_or(own, SeqCst) | own;
        if begun.count_ones() as usize >= limit && self.replaced_at.load(SeqCst) == WAITED_FOR {
            let now = self.begin.elapsed().as_nanos() as u64;
            // Another one may just have told.
            let _ = self.replaced_at.compare_exchange(WAITED_FOR, now, SeqCst, SeqCst);
        }
        compute(HANDLER);
        self.handled.fetch_add(1, SeqCst);
        if !self.ends.load(SeqCst) {
            // Refused only when the port is closed, and then it is over.
            drop(port.post(0, (), Task::Flow));
        }
    }

    fn sleep(&self, count: usize, time: Duration) {
        let mut sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        sleep.asleep += 1;
        if sleep.asleep == count && sleep.woken == 0 {
            sleep.all = Some((self.begin.elapsed(), self.handled.load(SeqCst)));
            self.begun.store(0, SeqCst);
            self.replaced_at.store(WAITED_FOR, SeqCst);
        }
        drop(sleep);
        thread::sleep(time);
        let mut sleep = self.sleep.lock().unwrap_or_else(PoisonError::into_inner);
        sleep.woken += 1;
        if let Some((at, handled)) = sleep.all.take() {
            let replaced_at = self.replaced_at.swap(0, SeqCst);
            let replaced = (replaced_at != WAITED_FOR).then(|| Duration::from_nanos(replaced_at).saturating_sub(at));
            let (slept, handled) = (self.begin.elapsed() - at, self.handled.load(SeqCst) - handled);
            sleep.trial = Some(Trial { slept, handled, replaced });
        }
        self.awake.notify_all();
    }
}

/// A port whose workers compute all the time.
struct Running {
    sleepers: Sleepers,
    port: CompletionPort<(), Task>,
    pool: WorkerPool,
    state: Arc<State>,
}

impl Running {
    fn start(sleepers: Sleepers) -> io::Result<Running> {
        let port = CompletionPort::<(), Task>::options().concurrency(sleepers.limit).build()?;
        let state = Arc::new(State {
            begin: Instant::now(),
            ends: AtomicBool::new(false),
            handled: AtomicUsize::new(0),
            begun: AtomicU64::new(0),
            replaced_at: AtomicU64::new(0),
            sleep: Mutex::default(),
            awake: Condvar::new(),
        });
        let (own, again) = (state.clone(), port.clone());
        let pool =
            port.start(Workers::exactly(sleepers.limit + sleepers.count), move |packet| match packet.context {
                Task::Flow => own.flow(sleepers.limit, &again),
                Task::Sleep(time) => own.sleep(sleepers.count, time),
            })?;
        let running = Running { sleepers, port, pool, state };
        (0..2 * sleepers.limit).for_each(|_| running.post(Task::Flow));
        Ok(running)
    }

    fn post(&self, task: Task) {
        self.port.post(0, (), task).unwrap_or_else(|_| unreachable!("the port is open"));
    }

    /// Sleeps, and comes back when nobody does.
    fn trial(&self, time: Duration) -> Trial {
        loop {
            *self.state.sleep.lock().unwrap_or_else(PoisonError::into_inner) = Sleep::default();
            (0..self.sleepers.count).for_each(|_| self.post(Task::Sleep(time)));
            let sleep = self.state.sleep.lock().unwrap_or_else(PoisonError::into_inner);
            let is_on = |sleep: &mut Sleep| sleep.woken < self.sleepers.count;
            let sleep = self.state.awake.wait_while(sleep, is_on).unwrap_or_else(PoisonError::into_inner);
            // None where one woke before the other slept: on a machine that is busy with something else.
            if let Some(trial) = sleep.trial {
                return trial;
            }
        }
    }

    fn end(self) {
        self.state.ends.store(true, SeqCst);
        self.port.close();
        self.pool.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_goes_on_beside_sleepers_and_a_trial_says_how_long_they_slept() {
        for sleepers in SLEEPERS {
            let flow = Running::start(sleepers).unwrap();
            let trial = flow.trial(Duration::from_millis(50));
            assert!(trial.slept >= Duration::from_millis(25) && trial.handled > 0, "{}", sleepers.name());
            assert!(trial.replaced.is_none_or(|after| after <= trial.slept));
            flow.end();
        }
    }
}
