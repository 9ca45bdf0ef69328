//! `wharf perf`: the options, where lines go, and what several tests come to. The measuring is in `wharf-perf`.

mod background;
mod options;
mod rounds;
mod setup;
mod sink;
mod tally;

pub use options::Perf;

use crate::system;
use options::Serve;
use setup::{prepare, refuse};
use sink::{Daemon, Terminal};
use wharf_perf::report::log::Sink;
use wharf_perf::server;

/// Runs what was asked. The error is for people; an empty one was told already.
pub fn run(perf: &Perf) -> Result<(), String> {
    match perf {
        Perf::Serve(serve) => self::serve(serve),
        Perf::Run(run) => {
            let merged;
            let run = match &run.config {
                Some(file) => {
                    merged = options::with_config(file).unwrap_or_else(refuse);
                    &merged
                }
                None => run,
            };
            rounds::measure(run)
        }
    }
}

fn serve(options: &Serve) -> Result<(), String> {
    let settings = options.settings().unwrap_or_else(refuse);
    let detached = options.daemon && background::is_detached();
    if options.daemon && !detached {
        return background::detach();
    }
    if detached {
        system::own_session().map_err(|error| format!("no session of its own (-D): {error}"))?;
    }
    let (out, _number) = prepare(&options.common)?;
    let terminal = Terminal::new(out.clone(), false);
    let sink: Box<dyn Sink> = if detached { Box::new(Daemon(terminal)) } else { Box::new(terminal) };
    server::serve(&settings, sink).map_err(|failure| failure.text)?;
    out.all_written()
}
