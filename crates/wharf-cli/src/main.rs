//! The `wharf` program.

mod address;
mod chat;
mod copy;
mod doctor;
mod files;
mod listen;
mod options;
mod output;
mod perf;
mod port;
mod printable;
mod relay;
mod serve;
mod serving;
mod signals;
mod system;
mod tls;

use clap::Parser;
use options::{Command, Options, Serve};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options = Options::parse();
    let level = match options.verbose {
        0 => "warn",
        1 => "info",
        2 => "debug",
        _ => "trace",
    };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(level)).init();
    let result = match options.command {
        Command::Serve(Serve::Chat(server)) => serve::chat(&server),
        Command::Serve(Serve::Echo(server)) => serve::echo(&server),
        Command::Serve(Serve::Discard(server)) => serve::discard(&server),
        Command::Serve(Serve::Files(files)) => files::run(&files),
        Command::Chat(client) => chat::run(&client),
        Command::Relay(relay) => relay::run(&relay),
        Command::Copy(copy) => copy::run(&copy),
        Command::Doctor(doctor) => doctor::run(&doctor),
        Command::Perf(perf) => perf::run(&perf),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(sentence) => {
            // An empty one was told where it belongs, in a report.
            if !sentence.is_empty() {
                eprintln!("wharf: {sentence}");
            }
            ExitCode::FAILURE
        }
    }
}
