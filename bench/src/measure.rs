//! Systems are measured in turns, each round in another order: what the machine does beside then hits all of them
//! alike, and the ratio within a round stands although the values do not.

use crate::rows::{Row, median, quartiles};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::io;

/// What one system came to in one round.
#[derive(Clone, Default)]
pub struct Sample {
    pub messages_per_second: Option<f64>,
    pub cpu_us_per_message: Option<f64>,
    pub switches_per_message: Option<f64>,
    /// In nanoseconds.
    pub latency: Option<Histogram<u64>>,
}

/// A histogram of nanoseconds with three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are few enough")
}

/// Samples of each system, round by round.
pub type Samples = Vec<Vec<Sample>>;

/// Measures `systems` of them in `rounds` rounds.
pub fn in_turns(
    systems: usize,
    rounds: usize,
    mut measure: impl FnMut(usize) -> io::Result<Sample>,
) -> io::Result<Samples> {
    let mut samples: Samples = vec![Vec::new(); systems];
    for round in 0..rounds {
        for place in 0..systems {
            let system = (place + round) % systems;
            samples[system].push(measure(system)?);
        }
    }
    Ok(samples)
}

/// One row for each system; the first is what the others are divided by. Each value is the median of its rounds, the
/// percentiles too: one round in which the machine was busy with something else would fill the tail of a common
/// histogram.
pub fn rows(scenario: &'static str, case: &str, names: &[&str], samples: &Samples) -> Vec<Row> {
    let cpu = |sample: &Sample| sample.cpu_us_per_message;
    let rate = |sample: &Sample| sample.messages_per_second;
    let row = |(name, own): (&&str, &Vec<Sample>)| {
        let ratio_cpu = ratios(own, &samples[0], cpu);
        let percentile =
            |at: f64| middle(own, |sample| Some(sample.latency.as_ref()?.value_at_quantile(at) as f64 / 1000.0));
        Row {
            scenario,
            case: case.into(),
            system: (*name).into(),
            messages_per_second: middle(own, rate),
            cpu_us_per_message: middle(own, cpu),
            p50_us: percentile(0.5),
            p99_us: percentile(0.99),
            p999_us: percentile(0.999),
            ratio_cpu: median(&ratio_cpu),
            ratio_cpu_quartiles: quartiles(&ratio_cpu),
            ratio_rate: median(&ratios(own, &samples[0], rate)),
            switches_per_message: middle(own, |sample| sample.switches_per_message),
            rate_of_quiet: None,
            rounds: own.len(),
        }
    };
    names.iter().zip(samples).map(row).collect()
}

/// The per-round quotients of two systems.
pub fn ratios(these: &[Sample], those: &[Sample], value: impl Fn(&Sample) -> Option<f64>) -> Vec<f64> {
    these.iter().zip(those).filter_map(|(this, that)| Some(value(this)? / value(that)?)).collect()
}

fn middle(samples: &[Sample], value: impl Fn(&Sample) -> Option<f64>) -> Option<f64> {
    median(&samples.iter().filter_map(value).collect::<Vec<f64>>())
}

/// The processor time of all our threads so far, in microseconds.
pub fn process_cpu_us() -> f64 {
    clock_us(ClockId::ProcessCPUTime)
}

/// The calling thread's processor time so far, in microseconds.
pub fn thread_cpu_us() -> f64 {
    clock_us(ClockId::ThreadCPUTime)
}

fn clock_us(clock: ClockId) -> f64 {
    let time = clock_gettime(clock);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}
