//! The laboratory: wharf beside what a user would pick instead, in one run, interleaved.
//!
//! `cargo run --release -p wharf-bench -- SCENARIO [--quick] [--json FILE]`
//!
//! A ratio is a system's value divided by wharf's in the same rounds; rounds are interleaved in rotating order, and the
//! median of the per-round ratios is shown with its spread. Processor time per message comes first: it is the figure that
//! survives a machine that others use as well.

mod load;
mod machine;
mod process;
mod rows;
mod scenario;
mod server;

use clap::{Parser, ValueEnum};
use std::path::PathBuf;
use std::process::ExitCode;

#[derive(Parser)]
#[command(about = "Measures wharf beside its peers")]
struct Options {
    /// What to measure
    scenario: Scenario,
    /// A short run of each: under 45 seconds
    #[arg(long)]
    quick: bool,
    /// Write the rows there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Which server to be: the lab starts itself so
    #[arg(long, hide = true)]
    workers: Option<usize>,
    #[arg(long, hide = true)]
    concurrency: Option<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scenario {
    /// Posted packets beside a bare queue and crossbeam-channel
    Queue,
    /// Waking a sleeping worker beside a bare futex
    Wake,
    /// Closed-loop echo beside tokio
    Echo,
    /// 20 and 100 messages a second: what watching costs
    Trickle,
    /// What an idle server does: nothing
    Idle,
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
        Scenario::ServePort => server::port(options.workers.unwrap_or(2), options.concurrency.unwrap_or(1)),
        Scenario::ServeSession => server::session(options.workers.unwrap_or(2), options.concurrency.unwrap_or(1)),
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

fn run(options: &Options) -> std::io::Result<()> {
    machine::print();
    let quick = options.quick;
    let rows = match options.scenario {
        Scenario::Queue => scenario::queue::run(quick),
        Scenario::Wake => scenario::wake::run(quick),
        Scenario::Echo => scenario::echo::run(quick)?,
        Scenario::Trickle => scenario::trickle::run(quick)?,
        Scenario::Idle => scenario::idle::run()?,
        _ => unreachable!("servers are handled by main"),
    };
    rows::print(&rows);
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_string_pretty(&rows)?)?;
    }
    Ok(())
}
