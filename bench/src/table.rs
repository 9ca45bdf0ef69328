//! A scenario's rows for a terminal, then its notes and goals.

use crate::rows::{About, Goal, Report, Row};

/// A column's head, and what stands in it.
type Column = (&'static str, fn(&Row) -> String);

const COLUMNS: [Column; 19] = [
    ("msg/s", |row| number(row.messages_per_second, 0)),
    ("cpu us", |row| number(row.cpu_us_per_message, 3)),
    ("cpu/wharf", |row| number(row.ratio_cpu, 2)),
    ("quartiles", |row| range(row.ratio_cpu_quartiles)),
    ("rate/wharf", |row| number(row.ratio_rate, 2)),
    ("quartiles", |row| range(row.ratio_rate_quartiles)),
    ("p50 us", |row| number(row.p50_us, 1)),
    ("p99 us", |row| number(row.p99_us, 1)),
    ("p99.9 us", |row| number(row.p999_us, 1)),
    ("max us", |row| number(row.max_us, 0)),
    ("switches", |row| number(row.switches_per_message, 3)),
    ("wake-ups", |row| number(row.wakeups_per_message, 3)),
    ("syscalls", |row| number(row.syscalls_per_message, 2)),
    ("rss MiB", |row| number(row.resident_bytes.map(mib), 1)),
    ("heap MiB", |row| number(row.heap_bytes.map(mib), 2)),
    ("rss/conn", |row| number(row.resident_bytes_per_connection, 0)),
    ("heap/conn", |row| number(row.heap_bytes_per_connection, 0)),
    ("of quiet", |row| number(row.rate_of_quiet, 2)),
    ("generator", |row| number(row.generator_share, 2)),
];

fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

/// A number, or a line where there is none.
pub fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}

/// Two numbers.
pub fn range(value: Option<(f64, f64)>) -> String {
    value.map_or("-".into(), |(low, high)| format!("{low:.2} to {high:.2}"))
}

pub fn print(scenario: &str, report: &Report, about: &About) {
    print!("{}", text(scenario, report, about));
}

fn text(scenario: &str, report: &Report, about: &About) -> String {
    let mut cells = vec![vec!["case".to_owned(), "system".to_owned()]];
    cells.extend(report.rows.iter().map(|row| vec![row.case.clone(), row.system.clone()]));
    for (head, value) in COLUMNS {
        let column: Vec<String> = report.rows.iter().map(value).collect();
        // What nobody has measured is no column.
        if column.iter().any(|cell| cell != "-") {
            cells[0].push(head.into());
            cells[1..].iter_mut().zip(column).for_each(|(line, cell)| line.push(cell));
        }
    }
    let widths: Vec<usize> =
        (0..cells[0].len()).map(|at| cells.iter().map(|line| line[at].len()).max().unwrap_or(0)).collect();
    let mut text = format!("--- {scenario} ({:.0} s)\n", about.seconds);
    for line in &cells {
        for (at, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let end = if at + 1 == line.len() { "\n" } else { "  " };
            text += &if at < 2 { format!("{cell:<width$}{end}") } else { format!("{cell:>width$}{end}") };
        }
    }
    text.push('\n');
    for note in &report.notes {
        text += &format!("note        {note}\n");
    }
    for goal in &report.goals {
        text += &format!("goal        {}\n", goal_text(goal));
    }
    text += &format!("load        {:.2} (1 minute)\n\n", about.load.1);
    text
}

fn goal_text(goal: &Goal) -> String {
    format!("{}: {} ({}): {}", goal.what, number(goal.value, 2), goal.limit(), goal.verdict())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Wanted;

    #[test]
    fn the_table_has_the_columns_that_were_measured_and_no_others() {
        let row = |system: &str, ratio| Row {
            case: "a case".into(),
            system: system.into(),
            cpu_us_per_message: Some(5.25),
            ratio_cpu: ratio,
            ..Row::default()
        };
        let goals = vec![Goal::new("cpu", Some(1.5), Wanted::AtMost(1.0))];
        let report =
            Report { rows: vec![row("wharf", Some(1.0)), row("a peer", None)], notes: vec!["n".into()], goals };
        let text = text("echo", &report, &About::default());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[1], "case    system  cpu us  cpu/wharf");
        assert_eq!(lines[2], "a case  wharf    5.250       1.00");
        assert_eq!(lines[3], "a case  a peer   5.250          -");
        assert!(text.contains("note        n\n"));
        assert!(text.contains("goal        cpu: 1.50 (at most 1): MISSED\n"), "{text}");
    }
}
