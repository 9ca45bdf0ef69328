//! Systems are measured in turns, each round in another order: what the machine does beside then hits all of them
//! alike, and the ratio within a round stands although the values do not.

use crate::lab::Lab;
use crate::rows::Row;
use crate::stats::{longest_us, median, percentile_us, quartiles};
use hdrhistogram::Histogram;
use rustix::time::{ClockId, clock_gettime};
use std::io;
use std::time::Duration;

/// Fewer rounds say too little of how much they differ.
pub const ROUNDS_LEAST: usize = 7;

/// What one system came to in one round.
#[derive(Clone, Default)]
pub struct Sample {
    pub messages_per_second: Option<f64>,
    pub cpu_us_per_message: Option<f64>,
    pub switches_per_message: Option<f64>,
    pub wakeups_per_message: Option<f64>,
    /// In nanoseconds.
    pub latency: Option<Histogram<u64>>,
    pub generator_share: Option<f64>,
    /// Of an open-loop generator, in nanoseconds.
    pub late: Option<Histogram<u64>>,
}

/// Samples of each system, round by round. A system that has failed has fewer than the others.
pub type Samples = Vec<Vec<Sample>>;

/// How long a case may take, and how often each system has its turn.
#[derive(Clone, Copy)]
pub struct Plan {
    pub rounds_most: usize,
    /// After the least number of rounds, none is begun beyond it, less where the run is late.
    pub budget: Duration,
}

impl Plan {
    /// So many rounds, however long they take.
    #[cfg(test)]
    pub fn rounds(rounds: usize) -> Plan {
        Plan { rounds_most: rounds, budget: Duration::MAX }
    }

    /// As many as fit.
    pub fn within(seconds: f64) -> Plan {
        Plan { rounds_most: 31, budget: Duration::from_secs_f64(seconds) }
    }
}

/// Measures `systems` of them in rounds. When the first fails, all ends; when another does, its turns end, and `failed`
/// is told.
pub fn in_turns(
    lab: &Lab,
    systems: usize,
    plan: Plan,
    mut measure: impl FnMut(usize) -> io::Result<Sample>,
    mut failed: impl FnMut(usize, io::Error),
) -> io::Result<Samples> {
    let mut samples: Samples = vec![Vec::new(); systems];
    let mut alive = vec![true; systems];
    let begin = std::time::Instant::now();
    let rounds = plan.rounds_most.max(ROUNDS_LEAST);
    let steps = lab.steps(rounds * systems);
    for round in 0..rounds {
        if round >= ROUNDS_LEAST && begin.elapsed().as_secs_f64() >= plan.budget.as_secs_f64() * lab.pace {
            break;
        }
        for place in 0..systems {
            let system = (place + round) % systems;
            if alive[system] {
                match measure(system) {
                    Ok(sample) => samples[system].push(sample),
                    Err(error) if system == 0 => return Err(error),
                    Err(error) => {
                        alive[system] = false;
                        failed(system, error);
                    }
                }
            }
            steps.done();
        }
    }
    Ok(samples)
}

/// The same, where every system is the lab's own: none may fail.
pub fn all_in_turns(
    lab: &Lab,
    systems: usize,
    plan: Plan,
    measure: impl FnMut(usize) -> io::Result<Sample>,
) -> io::Result<Samples> {
    let mut first = None;
    let samples = in_turns(lab, systems, plan, measure, |_, error| {
        first.get_or_insert(error);
    })?;
    first.map_or(Ok(samples), Err)
}

/// One row for each system; the first is what the others are divided by. Each value is the median of its rounds. A
/// system without a single round has no row.
pub fn rows(scenario: &str, case: &str, names: &[&str], samples: &Samples) -> Vec<Row> {
    let cpu = |sample: &Sample| sample.cpu_us_per_message;
    let rate = |sample: &Sample| sample.messages_per_second;
    let row = |(name, own): (&&str, &Vec<Sample>)| {
        let ratio_cpu = ratios(own, &samples[0], cpu);
        let ratio_rate = ratios(own, &samples[0], rate);
        let latencies: Vec<&Histogram<u64>> = own.iter().filter_map(|sample| sample.latency.as_ref()).collect();
        let late: Vec<&Histogram<u64>> = own.iter().filter_map(|sample| sample.late.as_ref()).collect();
        Row {
            scenario: scenario.into(),
            case: case.into(),
            system: (*name).into(),
            messages_per_second: middle(own, rate),
            cpu_us_per_message: middle(own, cpu),
            p50_us: percentile_us(&latencies, 0.5),
            p99_us: percentile_us(&latencies, 0.99),
            p999_us: percentile_us(&latencies, 0.999),
            max_us: longest_us(&latencies),
            ratio_cpu: median(&ratio_cpu),
            ratio_cpu_quartiles: quartiles(&ratio_cpu),
            ratio_rate: median(&ratio_rate),
            ratio_rate_quartiles: quartiles(&ratio_rate),
            switches_per_message: middle(own, |sample| sample.switches_per_message),
            wakeups_per_message: middle(own, |sample| sample.wakeups_per_message),
            generator_share: middle(own, |sample| sample.generator_share),
            generator_late_p99_us: percentile_us(&late, 0.99),
            rounds: own.len(),
            ..Row::default()
        }
    };
    names.iter().zip(samples).filter(|(_, own)| !own.is_empty()).map(row).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(rate: f64, cpu: f64) -> Sample {
        Sample { messages_per_second: Some(rate), cpu_us_per_message: Some(cpu), ..Sample::default() }
    }

    #[test]
    fn a_ratio_is_the_systems_value_divided_by_wharfs_in_the_same_round() {
        // The machine was twice as slow in the second round, and the ratio does not notice.
        let samples = vec![vec![sample(100.0, 5.0), sample(50.0, 10.0)], vec![sample(80.0, 6.0), sample(40.0, 12.0)]];
        let rows = rows("echo", "case", &["wharf", "peer"], &samples);
        assert_eq!((rows[0].ratio_cpu, rows[0].ratio_rate), (Some(1.0), Some(1.0)));
        assert_eq!((rows[1].ratio_cpu, rows[1].ratio_rate), (Some(1.2), Some(0.8)));
        assert_eq!(rows[1].ratio_cpu_quartiles, Some((1.2, 1.2)));
        assert_eq!(rows[1].rounds, 2);
        assert_eq!(rows[1].p50_us, None);
    }

    #[test]
    fn every_system_is_first_in_a_round_before_one_is_first_again() {
        let mut order = Vec::new();
        let plan = Plan::within(0.0);
        all_in_turns(&Lab::quiet(), 3, plan, |system| {
            order.push(system);
            Ok(Sample::default())
        })
        .unwrap();
        // The budget was used up from the beginning: the least number of rounds is made all the same.
        assert_eq!(order.len(), 3 * ROUNDS_LEAST);
        assert_eq!(order[..9], [0, 1, 2, 1, 2, 0, 2, 0, 1]);
    }

    #[test]
    fn a_peer_that_fails_ends_alone_and_wharf_does_not() {
        let mut failed = Vec::new();
        let fails =
            |which| move |system| if system == which { Err(io::Error::other("gone")) } else { Ok(sample(1.0, 1.0)) };
        let samples = in_turns(&Lab::quiet(), 3, Plan::rounds(7), fails(1), |system, _| failed.push(system)).unwrap();
        assert_eq!(failed, [1]);
        assert_eq!(samples.iter().map(Vec::len).collect::<Vec<_>>(), [7, 0, 7]);
        let names = rows("s", "c", &["a", "b", "c"], &samples);
        assert_eq!(names.iter().map(|row| row.system.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!(in_turns(&Lab::quiet(), 3, Plan::rounds(7), fails(0), |_, _| {}).is_err());
        assert!(all_in_turns(&Lab::quiet(), 3, Plan::rounds(7), fails(2)).is_err());
    }
}
