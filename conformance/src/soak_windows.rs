//! The soak runs on Linux, whose figures of memory and descriptors it looks at.

use crate::kit::Engine;
use std::process::ExitCode;

#[derive(clap::Args)]
pub struct Options {}

pub fn run(_: &Options, _: Engine) -> ExitCode {
    eprintln!("the soak runs on Linux, whose figures of memory and descriptors it looks at");
    ExitCode::from(2)
}
