//! The results: one row for each system in each case, and how they stand to the goals.

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
    pub ratio_cpu_quartiles: Option<(f64, f64)>,
    pub ratio_rate: Option<f64>,
    pub switches_per_message: Option<f64>,
    /// Messages a second, divided by the same system's without the disturbance.
    pub rate_of_quiet: Option<f64>,
    pub rounds: usize,
}

/// A figure and what it should be.
pub struct Goal {
    pub what: String,
    pub value: Option<f64>,
    pub wanted: Wanted,
}

/// Which side of a number is good.
#[derive(Clone, Copy)]
pub enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub fn new(what: impl Into<String>, value: Option<f64>, wanted: Wanted) -> Goal {
        Goal { what: what.into(), value, wanted }
    }
}

/// What a scenario comes to.
#[derive(Default)]
pub struct Report {
    pub rows: Vec<Row>,
    /// Lines between the table and the goals.
    pub notes: Vec<String>,
    pub goals: Vec<Goal>,
}

impl Report {
    /// The rows as a table, then the notes and the goals.
    pub fn print(&self) {
        let case = width(self.rows.iter().map(|row| &row.case), "case");
        let system = width(self.rows.iter().map(|row| &row.system), "system");
        let line = |cells: [&str; 11]| {
            println!(
                "{:<case$}  {:<system$} {:>10} {:>9} {:>9} {:>13} {:>10} {:>8} {:>8} {:>9} {:>8}",
                cells[0],
                cells[1],
                cells[2],
                cells[3],
                cells[4],
                cells[5],
                cells[6],
                cells[7],
                cells[8],
                cells[9],
                cells[10],
            );
        };
        line([
            "case",
            "system",
            "msg/s",
            "cpu us",
            "cpu/wharf",
            "quartiles",
            "rate/wharf",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "switches",
        ]);
        let number = |value: Option<f64>, digits: usize| value.map_or("-".into(), |value| format!("{value:.digits$}"));
        for row in &self.rows {
            let quartiles = row.ratio_cpu_quartiles.map_or("-".into(), |(low, high)| format!("{low:.2} to {high:.2}"));
            line([
                &row.case,
                &row.system,
                &number(row.messages_per_second, 0),
                &number(row.cpu_us_per_message, 3),
                &number(row.ratio_cpu, 2),
                &quartiles,
                &number(row.ratio_rate, 2),
                &number(row.p50_us, 1),
                &number(row.p99_us, 1),
                &number(row.p999_us, 1),
                &number(row.switches_per_message, 3),
            ]);
        }
        println!();
        for note in &self.notes {
            println!("note        {note}");
        }
        for Goal { what, value, wanted } in &self.goals {
            let (sign, limit) = match *wanted {
                Wanted::AtMost(limit) => ("at most", limit),
                Wanted::AtLeast(limit) => ("at least", limit),
            };
            let verdict = match (*value, *wanted) {
                (None, _) => "not measured",
                (Some(value), Wanted::AtMost(limit)) if value <= limit => "met",
                (Some(value), Wanted::AtLeast(limit)) if value >= limit => "met",
                _ => "MISSED",
            };
            println!("goal        {what}: {} ({sign} {limit}): {verdict}", number(*value, 2));
        }
    }
}

fn width<'a>(texts: impl Iterator<Item = &'a String>, head: &str) -> usize {
    texts.map(String::len).max().unwrap_or(0).max(head.len())
}

/// The middle of a list, unless it is empty.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The quartiles of a list, unless it is empty.
pub fn quartiles(values: &[f64]) -> Option<(f64, f64)> {
    Some((quantile(values, 0.25)?, quantile(values, 0.75)?))
}

fn quantile(values: &[f64], at: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len().saturating_sub(1) as f64 * at).round() as usize).copied()
}
