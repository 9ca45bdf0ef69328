//! The page's text and tables.

use super::plot::Plot;
use super::{scenarios, text};
use crate::rows::{About, Row};
use crate::table::{number, range};
use std::fmt::Write;

type Column = (&'static str, fn(&Row) -> String);

const COLUMNS: [Column; 17] = [
    ("msg/s", |row| number(row.messages_per_second, 0)),
    ("CPU µs", |row| number(row.cpu_us_per_message, 3)),
    ("CPU/wharf", |row| with(number(row.ratio_cpu, 2), range(row.ratio_cpu_quartiles))),
    ("rate/wharf", |row| with(number(row.ratio_rate, 2), range(row.ratio_rate_quartiles))),
    ("p50 µs", |row| number(row.p50_us, 1)),
    ("p99 µs", |row| number(row.p99_us, 1)),
    ("p99.9 µs", |row| number(row.p999_us, 1)),
    ("max µs", |row| number(row.max_us, 0)),
    ("switches", |row| number(row.switches_per_message, 3)),
    ("wake-ups", |row| number(row.wakeups_per_message, 3)),
    ("syscalls", |row| number(row.syscalls_per_message, 2)),
    ("resident MiB", |row| number(row.resident_bytes.map(mib), 1)),
    ("heap MiB", |row| number(row.heap_bytes.map(mib), 2)),
    ("resident/connection", |row| number(row.resident_bytes_per_connection, 0)),
    ("heap/connection", |row| number(row.heap_bytes_per_connection, 0)),
    ("of quiet", |row| number(row.rate_of_quiet, 2)),
    ("generator", |row| row.generator_share.map_or("-".into(), |share| format!("{:.0} %", share * 100.0))),
];

fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

fn with(value: String, range: String) -> String {
    if range == "-" { value } else { format!("{value} ({range})") }
}

/// As the text of a table's cell.
fn cell(text: &str) -> String {
    text.replace('<', "&lt;").replace('|', "\\|")
}

pub fn page(rows: &[Row], plots: &[Plot]) -> String {
    let mut page = String::new();
    put(&mut page, rows, plots).expect("a string has room");
    page
}

fn put(page: &mut String, rows: &[Row], plots: &[Plot]) -> std::fmt::Result {
    let abouts: Vec<(&str, &About)> =
        rows.iter().filter_map(|row| Some((row.scenario.as_str(), row.about.as_deref()?))).collect();
    writeln!(page, "# Benchmarks\n")?;
    writeln!(
        page,
        "Made by `wharf-bench page --json FILE` of the rows of one run; nothing here is written by hand. What stands \
         behind a design decision is in [measurements](measurements.md).\n"
    )?;
    if abouts.iter().any(|(_, about)| about.quick) {
        writeln!(
            page,
            "> **A quick run.** It is short, and nobody has kept the machine quiet for it: look at *wharf again* in each \
             case before you believe a difference.\n"
        )?;
    }
    writeln!(page, "## Method\n\n{}", text::METHOD)?;
    environment(page, &abouts)?;
    glance(page, rows)?;
    goals(page, &abouts)?;
    for scenario in scenarios(rows) {
        let own: Vec<&Row> = rows.iter().filter(|row| row.scenario == scenario).collect();
        section(page, scenario, &own, plots)?;
    }
    Ok(())
}

fn environment(page: &mut String, abouts: &[(&str, &About)]) -> std::fmt::Result {
    writeln!(page, "## Where and with what\n")?;
    let Some((_, first)) = abouts.first() else {
        return writeln!(page, "The rows do not say.\n");
    };
    writeln!(page, "```sh\n{}\n```\n", first.command)?;
    writeln!(page, "| | |\n|---|---|")?;
    for (what, value) in [
        ("kernel", &first.kernel),
        ("processors", &first.processors),
        ("congestion control", &first.congestion),
        ("wharf's engine", &first.engine),
        ("versions", &first.versions.join(", ")),
    ] {
        writeln!(page, "| {what} | {} |", cell(value))?;
    }
    let least = abouts.iter().map(|(_, about)| about.load.0).fold(f64::INFINITY, f64::min);
    let most = abouts.iter().map(|(_, about)| about.load.0).fold(0.0, f64::max);
    let seconds: f64 = abouts.iter().map(|(_, about)| about.seconds).sum();
    writeln!(page, "| load of the last minute, before the scenarios | {least:.1} to {most:.1} |")?;
    writeln!(page, "| time | {:.0} minutes |\n", (seconds / 60.0).ceil())
}

/// Each system's middle ratio in each scenario.
fn glance(page: &mut String, rows: &[Row]) -> std::fmt::Result {
    writeln!(page, "## At a glance\n")?;
    writeln!(
        page,
        "The middle of a system's cases: processor time per message, and rate, of wharf's. Above 1 in the first, it \
         costs more than wharf; below 1 in the second, it does less.\n"
    )?;
    writeln!(page, "| scenario | system | cases | CPU/wharf | rate/wharf |\n|---|---|--:|--:|--:|")?;
    for scenario in scenarios(rows) {
        let own: Vec<&Row> = rows.iter().filter(|row| row.scenario == scenario).collect();
        let mut systems: Vec<&str> = Vec::new();
        for row in &own {
            if row.ratio_cpu.is_some() && !systems.contains(&row.system.as_str()) {
                systems.push(&row.system);
            }
        }
        for system in systems {
            let cases: Vec<&&Row> = own.iter().filter(|row| row.system == system && row.ratio_cpu.is_some()).collect();
            let middle = |value: fn(&Row) -> Option<f64>| {
                crate::stats::median(&cases.iter().filter_map(|row| value(row)).collect::<Vec<f64>>())
            };
            // What the others are divided by says nothing.
            let (cpu, rate) = (middle(|row| row.ratio_cpu), middle(|row| row.ratio_rate));
            if cases.iter().all(|row| row.ratio_cpu == Some(1.0) && row.ratio_rate.is_none_or(|rate| rate == 1.0)) {
                continue;
            }
            let (cpu, rate) = (number(cpu, 2), number(rate, 2));
            writeln!(page, "| {scenario} | {} | {} | {cpu} | {rate} |", cell(system), cases.len())?;
        }
    }
    writeln!(page)
}

fn goals(page: &mut String, abouts: &[(&str, &About)]) -> std::fmt::Result {
    if abouts.iter().all(|(_, about)| about.goals.is_empty()) {
        return Ok(());
    }
    writeln!(page, "## Goals\n\nMet and missed.\n")?;
    writeln!(page, "| scenario | what | measured | wanted | |\n|---|---|--:|---|---|")?;
    for (scenario, about) in abouts {
        for goal in &about.goals {
            let verdict = if goal.verdict() == "MISSED" { "**MISSED**" } else { goal.verdict() };
            let value = number(goal.value, 2);
            writeln!(page, "| {scenario} | {} | {value} | {} | {verdict} |", cell(&goal.what), goal.limit())?;
        }
    }
    writeln!(page)
}

fn section(page: &mut String, scenario: &str, rows: &[&Row], plots: &[Plot]) -> std::fmt::Result {
    writeln!(page, "## {scenario}\n\n{}\n", text::of(scenario))?;
    if let Some(plot) = plots.iter().find(|plot| plot.scenario == scenario) {
        writeln!(page, "![{}](plots/{scenario}.svg)\n", plot.title)?;
    }
    let about = rows.iter().find_map(|row| row.about.as_deref());
    for note in about.map_or(&[][..], |about| &about.notes) {
        writeln!(page, "- {}", cell(note))?;
    }
    let mut cases: Vec<&str> = Vec::new();
    for row in rows {
        if !cases.contains(&row.case.as_str()) {
            cases.push(&row.case);
        }
    }
    writeln!(page, "\n<details><summary>{} cases, {} rows</summary>\n", cases.len(), rows.len())?;
    for case in cases {
        let own: Vec<&&Row> = rows.iter().filter(|row| row.case == case).collect();
        let columns: Vec<&Column> =
            COLUMNS.iter().filter(|(_, value)| own.iter().any(|row| value(row) != "-")).collect();
        let heads: Vec<&str> = columns.iter().map(|(head, _)| *head).collect();
        writeln!(page, "**{}** ({} rounds)\n", cell(case), own.iter().map(|row| row.rounds).max().unwrap_or(0))?;
        writeln!(page, "| system | {} |\n|---|{}", heads.join(" | "), "--:|".repeat(heads.len()))?;
        for row in own {
            let cells: Vec<String> = columns.iter().map(|(_, value)| value(row)).collect();
            writeln!(page, "| {} | {} |", cell(&row.system), cells.join(" | "))?;
        }
        writeln!(page)?;
    }
    writeln!(page, "</details>\n")
}
