//! The results: one row for each system in each case. A run's JSON is an array of them.

use serde::{Deserialize, Serialize};

/// A row. What was not measured is null. Ratios are this system's value divided by wharf's in the same rounds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub scenario: String,
    pub case: String,
    pub system: String,
    /// What a message is, the scenario says: an echo, a delivery, a packet, a read.
    pub messages_per_second: Option<f64>,
    /// The server's processor time, user and system.
    pub cpu_us_per_message: Option<f64>,
    pub p50_us: Option<f64>,
    pub p99_us: Option<f64>,
    pub p999_us: Option<f64>,
    pub max_us: Option<f64>,
    pub ratio_cpu: Option<f64>,
    /// The per-round ratios' quartiles.
    pub ratio_cpu_quartiles: Option<(f64, f64)>,
    pub ratio_rate: Option<f64>,
    pub ratio_rate_quartiles: Option<(f64, f64)>,
    pub switches_per_message: Option<f64>,
    /// How often a thread of the server began to run.
    pub wakeups_per_message: Option<f64>,
    pub syscalls_per_message: Option<f64>,
    /// After the load, with its connections still there.
    pub resident_bytes: Option<f64>,
    /// What the server has allocated and not freed then.
    pub heap_bytes: Option<f64>,
    pub resident_bytes_per_connection: Option<f64>,
    pub heap_bytes_per_connection: Option<f64>,
    /// Messages a second, divided by the same system's without the disturbance.
    pub rate_of_quiet: Option<f64>,
    /// How much of one processor the load generator took.
    pub generator_share: Option<f64>,
    /// How late the open-loop generator itself was with 99 of 100 messages; part of the latencies above.
    pub generator_late_p99_us: Option<f64>,
    pub rounds: usize,
    /// In the first row of each scenario: what the figures stand with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<Box<About>>,
}

/// How a scenario was run, and what it came to beside the figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct About {
    pub command: String,
    pub quick: bool,
    pub kernel: String,
    pub processors: String,
    pub congestion: String,
    /// What wharf's port works with.
    pub engine: String,
    pub versions: Vec<String>,
    /// Of the last minute, before and after.
    pub load: (f64, f64),
    pub seconds: f64,
    pub notes: Vec<String>,
    pub goals: Vec<Goal>,
}

/// A figure and what it should be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Goal {
    pub what: String,
    pub value: Option<f64>,
    pub wanted: Wanted,
}

/// Which side of a number is good.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wanted {
    AtMost(f64),
    AtLeast(f64),
}

impl Goal {
    pub fn new(what: impl Into<String>, value: Option<f64>, wanted: Wanted) -> Goal {
        Goal { what: what.into(), value, wanted }
    }

    /// What is wanted, in words.
    pub fn limit(&self) -> String {
        let shown = |limit: f64| (limit * 100.0).round() / 100.0;
        match self.wanted {
            Wanted::AtMost(limit) => format!("at most {}", shown(limit)),
            Wanted::AtLeast(limit) => format!("at least {}", shown(limit)),
        }
    }

    pub fn verdict(&self) -> &'static str {
        match (self.value, self.wanted) {
            (None, _) => "not measured",
            (Some(value), Wanted::AtMost(limit)) if value <= limit => "met",
            (Some(value), Wanted::AtLeast(limit)) if value >= limit => "met",
            _ => "MISSED",
        }
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
    /// The row of a system in a case.
    pub fn row(&self, case: &str, system: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.case == case && row.system == system)
    }

    /// For each case the cheapest of some systems: its processor time, as a ratio to wharf's. Cases that have none of
    /// them are left out.
    pub fn cheapest(&self, of: fn(&str) -> bool) -> Vec<(&str, f64)> {
        let mut found: Vec<(&str, f64)> = Vec::new();
        for row in self.rows.iter().filter(|row| of(&row.system)) {
            let Some(ratio) = row.ratio_cpu else { continue };
            match found.iter_mut().find(|(case, _)| *case == row.case) {
                Some((_, least)) => *least = least.min(ratio),
                None => found.push((&row.case, ratio)),
            }
        }
        found
    }
}

/// The name of wharf measured against itself: what it shows is noise.
pub const AGAIN: &str = "wharf again (noise)";

/// The rows as a JSON array, a row a line.
pub fn to_json(rows: &[Row]) -> serde_json::Result<String> {
    let lines = rows.iter().map(serde_json::to_string).collect::<serde_json::Result<Vec<String>>>()?;
    Ok(format!("[\n{}\n]\n", lines.join(",\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The names that programs which read the file rely on.
    const KEYS: [&str; 10] = [
        "scenario",
        "case",
        "system",
        "messages_per_second",
        "cpu_us_per_message",
        "p50_us",
        "p99_us",
        "p999_us",
        "ratio_cpu",
        "ratio_rate",
    ];

    #[test]
    fn the_file_is_an_array_of_objects_that_have_every_name_also_where_nothing_was_measured() {
        let about = About { goals: vec![Goal::new("g", None, Wanted::AtLeast(1.0))], ..About::default() };
        let rows = vec![
            Row { scenario: "echo".into(), about: Some(Box::new(about)), ..Row::default() },
            Row { ratio_cpu: Some(1.5), ratio_cpu_quartiles: Some((1.0, 2.0)), rounds: 7, ..Row::default() },
        ];
        let text = to_json(&rows).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        let array = json.as_array().expect("an array");
        assert_eq!(array.len(), 2);
        for row in array {
            let row = row.as_object().expect("an object");
            for key in KEYS {
                assert!(row.contains_key(key), "{key}");
            }
        }
        assert!(array[0]["p50_us"].is_null());
        assert_eq!(array[1]["ratio_cpu"], 1.5);
        assert_eq!(serde_json::from_str::<Vec<Row>>(&text).unwrap(), rows);
        assert_eq!(text.lines().count(), 4, "a row a line");
    }

    #[test]
    fn the_cheapest_of_each_case_is_what_wharf_is_held_against() {
        let row = |case: &str, system: &str, ratio_cpu| Row {
            case: case.into(),
            system: system.into(),
            ratio_cpu,
            ..Row::default()
        };
        let rows = vec![
            row("one", "tokio", Some(0.9)),
            row("one", "tokio too", Some(0.8)),
            row("one", "raw", Some(0.5)),
            row("two", "tokio", None),
            row("three", "tokio", Some(1.2)),
        ];
        let report = Report { rows, ..Report::default() };
        assert_eq!(report.cheapest(|name| name.starts_with("tokio")), [("one", 0.8), ("three", 1.2)]);
    }

    #[test]
    fn a_goal_is_met_on_its_side_of_the_number_only() {
        let verdict = |value, wanted| Goal::new("", value, wanted).verdict();
        assert_eq!(verdict(Some(1.0), Wanted::AtMost(1.0)), "met");
        assert_eq!(verdict(Some(1.1), Wanted::AtMost(1.0)), "MISSED");
        assert_eq!(verdict(Some(0.9), Wanted::AtLeast(1.0)), "MISSED");
        assert_eq!(verdict(Some(f64::NAN), Wanted::AtLeast(1.0)), "MISSED");
        assert_eq!(verdict(None, Wanted::AtLeast(1.0)), "not measured");
    }
}
