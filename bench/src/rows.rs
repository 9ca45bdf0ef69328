//! The results: one row for each system in each case.

use serde::Serialize;

/// A row. What was not measured is null. Ratios are this system's value divided by wharf's in the same rounds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub scenario: &'static str,
    pub case: String,
    pub system: String,
    pub messages_per_second: Option<f64>,
    pub cpu_us_per_message: Option<f64>,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    pub ratio_cpu: Option<f64>,
    /// The per-round ratios' quartiles.
    pub ratio_cpu_spread: Option<(f64, f64)>,
    pub ratio_rate: Option<f64>,
    pub switches_per_message: Option<f64>,
    pub rounds: usize,
}

/// The rows as a table.
pub fn print(rows: &[Row]) {
    println!(
        "{:<9} {:<30} {:<22} {:>12} {:>9} {:>8} {:>17} {:>8} {:>9}",
        "scenario", "case", "system", "msg/s", "cpu us", "cpu/wharf", "quartiles", "rate", "switches"
    );
    let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
    for row in rows {
        let spread = row.ratio_cpu_spread.map_or("-".into(), |(low, high)| format!("{low:.2} to {high:.2}"));
        println!(
            "{:<9} {:<30} {:<22} {:>12} {:>9} {:>8} {:>17} {:>8} {:>9}",
            row.scenario,
            row.case,
            row.system,
            number(row.messages_per_second, 0),
            number(row.cpu_us_per_message, 3),
            number(row.ratio_cpu, 2),
            spread,
            number(row.ratio_rate, 2),
            number(row.switches_per_message, 3),
        );
    }
}

/// The middle of a list.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The quartiles of a list.
pub fn quartiles(values: &[f64]) -> (f64, f64) {
    (quantile(values, 0.25), quantile(values, 0.75))
}

fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        count => sorted[((count - 1) as f64 * at).round() as usize],
    }
}
