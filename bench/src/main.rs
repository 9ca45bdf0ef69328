//! The laboratory: wharf beside what a user would pick instead, in one run, interleaved.
//!
//! `cargo run --release -p wharf-bench -- SCENARIO [--quick] [--json FILE]`
//!
//! A ratio is a system's value divided by wharf's in the same rounds; rounds are interleaved in rotating order, and the
//! median of the per-round ratios is shown with its quartiles. Processor time per message comes first: it is the figure
//! that survives a machine that others use as well.
//!
//! A scenario is a file in `scenario/`, named once more in the table below. A peer is a file in `peers/src/`, named in
//! that workspace's manifest and in the scenarios that measure it.

mod load;
mod machine;
mod measure;
mod process;
mod rows;
mod scenario;
mod server;

use clap::{Parser, ValueEnum};
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Measures wharf beside its peers")]
struct Options {
    /// What to measure
    scenario: Scenario,
    /// A short run: under 45 seconds
    #[arg(long)]
    quick: bool,
    /// Write the rows there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where cargo builds the peers [default: bench/peers/target]
    #[arg(long, value_name = "DIR")]
    peers_target: Option<PathBuf>,
    /// Another build of this program, whose wharf is measured too: before and after a change (echo only)
    #[arg(long, value_name = "PROGRAM")]
    beside: Option<PathBuf>,
    /// What a child of the lab is to do: the lab starts itself so
    #[arg(last = true, hide = true)]
    command: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Posted packets beside a bare queue and crossbeam-channel
    Queue,
    /// Waking a sleeping worker beside a bare futex
    Wake,
    /// Closed-loop echo beside tokio
    Echo,
    /// Bursts of datagrams beside sendmmsg and recvmmsg
    Datagrams,
    /// Direct and cached reads beside fio and pread, copies beside cp
    Files,
    /// Files over HTTP beside nginx, by wrk
    Static,
    /// 20 and 100 messages a second: what watching costs
    Trickle,
    /// What an idle server does: nothing
    Idle,
    /// One of 64 connections blocks its handler: what the others notice
    Blocked,
    /// From a worker blocking to another worker taking the next packet, beside a bare futex
    Compensation,
    #[value(hide = true)]
    Launch,
    #[value(hide = true)]
    ServePort,
    #[value(hide = true)]
    ServeSession,
    #[value(hide = true)]
    ServeLoop,
}

fn main() -> ExitCode {
    let options = Options::parse();
    let result = match options.scenario {
        Scenario::Launch => process::launch(&options.command),
        Scenario::ServePort => threads(&options).and_then(|(workers, limit)| server::port(workers, limit)),
        Scenario::ServeSession => threads(&options).and_then(|(workers, limit)| server::session(workers, limit)),
        Scenario::ServeLoop => server::bare_loop(),
        _ => run(&options),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wharf-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A server's workers, and how many of them may run at a time.
fn threads(options: &Options) -> io::Result<(usize, usize)> {
    let number = |at: usize| options.command.get(at).and_then(|text| text.parse().ok());
    match (number(0), number(1)) {
        (Some(workers), Some(limit)) => Ok((workers, limit)),
        _ => Err(io::Error::other("a server is told its workers and its limit: serve-port -- 2 1")),
    }
}

fn run(options: &Options) -> io::Result<()> {
    let quick = options.quick;
    let networked = !matches!(
        options.scenario,
        Scenario::Queue | Scenario::Wake | Scenario::Datagrams | Scenario::Files | Scenario::Compensation
    );
    if networked {
        process::build_peers(options.peers_target.as_deref())?;
        machine::enter_own_network();
        machine::allow_descriptors();
    }
    machine::print(networked);
    let report = match options.scenario {
        Scenario::Queue => scenario::queue::run(quick)?,
        Scenario::Wake => scenario::wake::run(quick)?,
        Scenario::Datagrams => scenario::datagrams::run(quick)?,
        Scenario::Files => scenario::files::run(quick)?,
        Scenario::Static => scenario::statics::run(quick)?,
        Scenario::Echo => scenario::echo::run(quick, options.beside.as_deref())?,
        Scenario::Trickle => scenario::trickle::run(quick)?,
        Scenario::Idle => scenario::idle::run()?,
        Scenario::Blocked => scenario::blocked::run(quick)?,
        Scenario::Compensation => scenario::compensation::run(quick)?,
        _ => unreachable!("children are handled by main"),
    };
    report.print();
    machine::print_load();
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&report.rows)?)?;
    }
    Ok(())
}
