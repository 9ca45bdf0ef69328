//! What several tests come to: thresholds, the engines side by side, and a summary.

use super::options::{Engine, Run};
use super::sink::Out;
use serde_json::json;
use wharf_perf::client::Outcome;
use wharf_perf::measure::summary::Summary;
use wharf_perf::protocol::parameters::Protocol;

/// What the tests have come to.
pub struct Tally {
    /// Of each engine the tests, and in a test of two phases each phase, since two directions are two things.
    of: Vec<[Figures; 2]>,
    pub missed: Vec<String>,
    pub tests: usize,
    pub failures: usize,
}

/// Of tests that are the same.
#[derive(Clone, Default)]
struct Figures {
    /// What arrived, bits a second.
    rates: Vec<f64>,
    /// Processor seconds for a gigabyte, here and there.
    costs: Vec<[f64; 2]>,
}

impl Tally {
    /// Of no test yet, with this number of engines.
    pub fn new(engines: usize) -> Tally {
        Tally { of: vec![Default::default(); engines], missed: Vec::new(), tests: 0, failures: 0 }
    }

    pub fn engines(&self) -> usize {
        self.of.len()
    }

    /// Takes in a test, or of two phases one, with this engine: whether the thresholds are met, and the errors of
    /// verification none.
    pub fn judge(&mut self, options: &Run, outcome: &Outcome, engine: usize, second: bool) {
        let (Some(end), None) = (&outcome.end, &outcome.failure) else { return };
        let rate = end.throughput();
        let figures = &mut self.of[engine][usize::from(second)];
        figures.rates.push(rate);
        if let Some(start) = &outcome.start {
            let cost = end.cost(start.parameters.len);
            let gigabytes = cost.gigabytes.max(1e-9);
            figures.costs.push([cost.here / gigabytes, cost.there.unwrap_or(0.0) / gigabytes]);
        }
        if let Some(least) = options.fail_under.filter(|least| rate < *least as f64) {
            self.missed.push(format!("too slow: {} Mbit/s, --fail-under asks for {}", mega(rate), mega(least as f64)));
        }
        let udp = outcome.start.as_ref().is_some_and(|start| start.parameters.protocol == Protocol::Udp);
        if let (Some(most), true) = (options.fail_loss, udp) {
            for ours in end.directions() {
                let share = end.loss_percent(ours);
                if share > most {
                    self.missed.push(format!("too much lost: {share:.2} %, --fail-loss allows {most}"));
                }
            }
        }
        if end.verification_errors() > 0 {
            self.missed.push(format!("{} blocks were not as they were sent", end.verification_errors()));
        }
    }

    /// The engines side by side.
    pub fn compare(&self, out: &Out, options: &Run, engines: &[Engine]) {
        let mean = |costs: &[[f64; 2]], end: usize| match costs.len() {
            0 => 0.0,
            count => costs.iter().map(|cost| cost[end]).sum::<f64>() / count as f64,
        };
        let mut rows = Vec::new();
        for (engine, of) in engines.iter().zip(&self.of) {
            for (phase, Figures { rates, costs }) in phases(options).iter().zip(of) {
                let rates = Summary::of(rates).unwrap_or_default();
                rows.push((&engine.name, phase, rates, mean(costs, 0), mean(costs, 1)));
            }
        }
        if options.common.is_json() {
            let data: Vec<_> = rows
                .iter()
                .map(|(name, phase, rates, here, there)| {
                    let mut row = json!({
                        "engine": name, "tests": rates.count, "median_bits_per_second": rates.median, "min": rates.min,
                        "max": rates.max, "host_seconds_per_gigabyte": here, "remote_seconds_per_gigabyte": there,
                    });
                    if let Some(phase) = phase {
                        row["phase"] = json!(phase);
                    }
                    row
                })
                .collect();
            return out.line(&json!({"event": "engines", "data": data}).to_string());
        }
        out.line("");
        out.line(&format!(
            "{:18} {:>6} {:>12} {:>12} {:>12} {:>11} {:>11}",
            "Engine here", "tests", "Mbit/s", "min", "max", "s/GB here", "s/GB there"
        ));
        for (name, phase, rates, here, there) in rows {
            let [median, min, max] = [rates.median, rates.min, rates.max].map(mega);
            let phase = phase.map_or(String::new(), |phase| format!("  {phase}"));
            let tests = rates.count;
            out.line(&format!(
                "{name:18} {tests:>6} {median:>12} {min:>12} {max:>12} {here:>11.3} {there:>11.3}{phase}"
            ));
        }
    }

    /// What all the tests come to, of each phase.
    pub fn summarise(&self, out: &Out, options: &Run) {
        let Tally { tests, failures, .. } = self;
        for (phase, Figures { rates, .. }) in phases(options).iter().zip(&self.of[0]) {
            let summary = Summary::of(rates).unwrap_or_default();
            if options.common.is_json() {
                let mut data = json!({
                    "runs": tests, "failed": failures, "mean_bits_per_second": summary.mean,
                    "standard_deviation": summary.deviation, "median": summary.median, "min": summary.min, "max": summary.max,
                });
                if let Some(phase) = phase {
                    data["phase"] = json!(phase);
                }
                out.line(&json!({"event": "summary", "data": data}).to_string());
                continue;
            }
            out.line("");
            let [mean, deviation, median] = [summary.mean, summary.deviation, summary.median].map(mega);
            let (min, max) = (mega(summary.min), mega(summary.max));
            let phase = phase.map_or(String::new(), |phase| format!(", {phase}"));
            out.line(&format!(
                "{tests} tests, {failures} failed{phase}: mean {mean} Mbit/s, standard deviation {deviation}, median {median}, \
                 min {min}, max {max}"
            ));
        }
    }
}

/// The phases of each test by name; without phases one that needs none.
fn phases(options: &Run) -> &'static [Option<&'static str>] {
    match options.two_phase {
        true => &[Some("client to server"), Some("server to client")],
        false => &[None],
    }
}

fn mega(rate: f64) -> String {
    format!("{:.1}", rate / 1e6)
}
