//! Ports and workers as the options describe them.

use crate::options::Load;
use crate::system::{self, Scarce};
use std::io;
use wharf::{CompletionPort, Context, Workers};

/// The port of a server's handlers.
pub fn of<C: Context>(load: &Load) -> Result<CompletionPort<(), C>, String> {
    let options = CompletionPort::<(), C>::options().concurrency(load.concurrency.map_or(0, usize::from));
    options.build().map_err(|error| no_port(&error))
}

/// The threads of a server.
pub fn workers(load: &Load) -> Workers {
    load.workers.map_or_else(Workers::default, |count| Workers::new(count.into()))
}

/// The port's descriptors are the first that a program needs, and the ones that a low limit refuses.
pub fn no_port(error: &io::Error) -> String {
    let remedy = match system::scarce(error) {
        Some(Scarce::Here) => format!("; {}", system::RAISE_LIMIT),
        Some(Scarce::Everywhere) => format!("; {}", system::RAISE_SYSTEMS),
        None => String::new(),
    };
    format!("the port cannot be made: {error}{remedy}")
}
