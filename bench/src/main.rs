//! The laboratory: wharf beside what a user would pick instead, in one run, interleaved.
//!
//! `cargo run --release -p wharf-bench -- SCENARIO [--quick] [--json FILE]`
//!
//! A ratio is a system's value divided by wharf's in the same rounds; rounds are interleaved in rotating order, and the
//! median of the per-round ratios is shown with its quartiles. Processor time per message comes first: it is the figure
//! that survives a machine that others use as well.
//!
//! A scenario is a file in `scenario/`, named once more in the tables below. A peer is a program of the workspace in
//! `peers/`, named in the scenarios that measure it; wharf's own servers are in `server/`, the load is in `load/`. What
//! was measured becomes JSON (`rows`), a table (`table`), and a page with plots (`page`).

mod builds;
mod child;
mod compare;
mod futex;
mod lab;
mod load;
mod machine;
mod measure;
mod page;
mod peers;
mod process;
mod rows;
mod scenario;
mod server;
mod stats;
mod syscalls;
mod system;
mod systems;
mod table;
mod usage;

use clap::{Parser, ValueEnum};
use lab::Lab;
use rows::{Report, Row};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Measures wharf beside its peers, and writes tables and plots")]
struct Options {
    /// What to measure, or `page` to make the page of an earlier run's rows
    scenario: Scenario,
    /// A short run: under 45 seconds for each scenario
    #[arg(long)]
    quick: bool,
    /// Write the rows there; for `page`, read them
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the page, benchmarks.md and plots/, into this folder [default: target/bench; for `page`: docs]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where cargo builds the peers [default: bench/peers/target]
    #[arg(long, value_name = "DIR")]
    peers_target: Option<PathBuf>,
    /// Another build of this program, whose wharf is measured too: before and after a change (echo, broadcast, queue,
    /// blocked and trickle)
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// What an echoed message costs, closed and open loop, beside runtimes and raw loops
    Echo,
    /// What a message costs as idle connections grow to 10 000, beside select, poll and a thread per connection
    Scale,
    /// Handlers sleep, hold a lock or compute: what the others notice
    Blocked,
    /// 1, 20 and 100 messages a second: what watching costs
    Trickle,
    /// A tenth of the connections carries nine tenths of the load, with 50 us of computing
    Skew,
    /// Connections that come and go
    Churn,
    /// One line to 10, 100 and 1000 members
    Broadcast,
    /// Posted packets beside queues of other crates
    Queue,
    /// Reads cached and direct beside pread, io_uring and fio; copies beside cp
    Files,
    /// Memory of 9000 connections, and what an idle server does
    Idle,
    /// Sockets, file reads and timers together
    Mixed,
    /// Waking a sleeping worker beside a bare futex
    Wake,
    /// From a worker blocking to another taking the next packet
    Compensation,
    /// Bursts of datagrams beside sendmmsg and recvmmsg
    Datagrams,
    /// Files over HTTP beside nginx, by wrk
    Static,
    /// Bulk transfer by `wharf perf` beside iperf3; not part of all
    Bulk,
    /// All of these
    All,
    /// The page of an earlier run's rows
    Page,
}

use Scenario::*;

/// What `all` measures, in this order: what fits into half an hour. `bulk` is for the page of `wharf perf`.
const EVERY: [Scenario; 15] = [
    Echo,
    Scale,
    Blocked,
    Trickle,
    Skew,
    Churn,
    Broadcast,
    Queue,
    Files,
    Idle,
    Mixed,
    Wake,
    Compensation,
    Datagrams,
    Static,
];

impl Scenario {
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// About how many seconds a full run takes of a machine with two processors that has nothing else to do.
    fn seconds(self) -> f64 {
        match self {
            Echo => 395.0,
            Broadcast | Files => 320.0,
            Bulk => 190.0,
            Blocked => 235.0,
            Trickle | Skew | Static => 100.0,
            Scale | Queue => 75.0,
            Churn | Idle => 60.0,
            Mixed | Datagrams => 30.0,
            Wake | Compensation => 15.0,
            All | Page => 0.0,
        }
    }

    /// Whether it needs programs of `bench/peers`.
    fn has_peers(self) -> bool {
        self.is_networked() && !matches!(self, Static | Bulk)
    }

    /// Whether it needs a network.
    fn is_networked(self) -> bool {
        !matches!(self, Queue | Wake | Compensation | Datagrams | Files)
    }

    /// Whether another build can be measured beside this one.
    fn takes_another_build(self) -> bool {
        matches!(self, Echo | Broadcast | Queue | Blocked | Trickle | All)
    }

    fn measure(self, lab: &Lab, options: &Options) -> io::Result<Report> {
        let beside = options.beside.as_deref();
        match self {
            Echo => scenario::echo::run(lab, beside),
            Scale => scenario::scale::run(lab),
            Blocked => scenario::blocked::run(lab, beside),
            Trickle => scenario::trickle::run(lab, beside),
            Skew => scenario::skew::run(lab),
            Churn => scenario::churn::run(lab),
            Broadcast => scenario::broadcast::run(lab, beside),
            Queue => scenario::queue::run(lab, beside),
            Files => scenario::files::run(lab),
            Idle => scenario::idle::run(lab),
            Mixed => scenario::mixed::run(lab),
            Wake => scenario::wake::run(lab),
            Compensation => scenario::compensation::run(lab),
            Datagrams => scenario::datagrams::run(lab),
            Static => scenario::statics::run(lab),
            Bulk => scenario::bulk::run(lab),
            All | Page => unreachable!("they are no measurements"),
        }
    }
}

fn main() -> ExitCode {
    // The lab starts itself, as a server among others.
    let result = match std::env::args().nth(1).as_deref() {
        Some("child") => child::run(),
        _ => run(&Options::parse()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wharf-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> io::Result<()> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let target = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/bench");
    if options.scenario == Page {
        let file = options.json.as_deref().ok_or_else(|| io::Error::other("of which run? page --json FILE"))?;
        let text = std::fs::read_to_string(file)
            .map_err(|error| io::Error::new(error.kind(), format!("{} cannot be read: {error}", file.display())))?;
        let rows: Vec<Row> = serde_json::from_str(&text)
            .map_err(|error| io::Error::other(format!("{} is not a run's rows: {error}", file.display())))?;
        return written(options.out.as_deref().unwrap_or(&docs), &rows);
    }
    if options.beside.is_some() && !options.scenario.takes_another_build() {
        let what = "--beside is for echo, broadcast, queue, blocked and trickle, and for all, which has them";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let chosen = if options.scenario == All { &EVERY[..] } else { &[options.scenario] };
    let mut missing = Vec::new();
    if chosen.iter().any(|scenario| matches!(scenario, Files | Static | Bulk)) {
        peers::build_wharf()?;
    }
    if chosen.iter().any(|scenario| scenario.has_peers()) {
        missing = peers::build(options.peers_target.as_deref())?;
    }
    if chosen.iter().any(|scenario| scenario.is_networked()) {
        machine::enter_own_network();
        machine::allow_descriptors();
    }
    machine::exact_timers();
    let begun = std::time::Instant::now();
    let mut rows = Vec::new();
    for (number, &scenario) in chosen.iter().enumerate() {
        if number == 0 {
            machine::print(&machine::about(options.quick));
        }
        let pace = pace(begun.elapsed().as_secs_f64(), &chosen[number..]);
        let mut own = measure(scenario, options, pace, &missing)?;
        rows.append(&mut own);
        // After each, so that a run that is broken off has not been for nothing.
        if let Some(file) = &options.json {
            std::fs::write(file, rows::to_json(&rows)?).map_err(|error| {
                io::Error::new(error.kind(), format!("{} cannot be written: {error}", file.display()))
            })?;
        }
    }
    written(options.out.as_deref().unwrap_or(&target), &rows)
}

/// A full run of everything is to end within half an hour.
const ALL_SECONDS: f64 = 29.0 * 60.0;

/// What of the time that they would like to have the scenarios that are left may take.
fn pace(elapsed: f64, left: &[Scenario]) -> f64 {
    let wanted: f64 = left.iter().map(|scenario| scenario.seconds()).sum();
    ((ALL_SECONDS - elapsed) / wanted).clamp(0.1, 1.0)
}

/// Measures one scenario, and prints it.
fn measure(scenario: Scenario, options: &Options, pace: f64, missing: &[String]) -> io::Result<Vec<Row>> {
    let mut about = machine::about(options.quick);
    let lab = Lab::new(&scenario.name(), options.quick, pace);
    if scenario.is_networked() {
        missing.iter().for_each(|line| lab.note(line.clone()));
    }
    let result = scenario.measure(&lab, options);
    machine::unpin();
    about.seconds = lab.seconds();
    about.load.1 = machine::load();
    let noted = lab.finish();
    let mut report = result.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", scenario.name())))?;
    report.notes.extend(noted);
    report.notes.extend(compare::noise(&report.rows));
    table::print(&scenario.name(), &report, &about);
    (about.notes, about.goals) = (report.notes, report.goals);
    if report.rows.is_empty() {
        // What is missing here is told in the file as well.
        report.rows.push(Row { scenario: scenario.name(), case: "not measured".into(), ..Row::default() });
    }
    report.rows[0].about = Some(Box::new(about));
    Ok(report.rows)
}

fn written(folder: &Path, rows: &[Row]) -> io::Result<()> {
    let page = page::write(folder, rows)?;
    println!("page        {}", page.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound_and_all_is_all() {
        use clap::CommandFactory;
        Options::command().debug_assert();
        for &scenario in Scenario::value_variants() {
            let is_measured = EVERY.contains(&scenario);
            assert_eq!(is_measured, !matches!(scenario, Bulk | All | Page), "{scenario:?}");
        }
    }

    #[test]
    fn a_run_that_is_late_hurries_and_one_in_time_does_not() {
        assert!(pace(0.0, &EVERY) > 0.9, "nearly what all of them would like to have");
        assert_eq!(pace(ALL_SECONDS - 100.0, &[Static]), 1.0, "a hundred seconds for the last");
        let late = pace(ALL_SECONDS - 50.0, &[Static]);
        assert!((0.49..0.51).contains(&late), "{late}");
        assert_eq!(pace(1e6, &EVERY), 0.1);
    }
}
