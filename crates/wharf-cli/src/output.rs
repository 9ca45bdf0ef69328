//! What becomes of a report that cannot be written.

use std::io::{self, Write};

/// Writes it to standard output, all at once. `what`: what it is, for the sentence about an error.
pub fn write(what: &str, text: &str) -> Result<(), String> {
    let mut out = io::stdout();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).or_else(|error| unless_unwanted(what, &error))
}

/// Of a closed pipe nobody wants the rest, which is no failure. Every other error is.
pub fn unless_unwanted(what: &str, error: &io::Error) -> Result<(), String> {
    match error.kind() {
        io::ErrorKind::BrokenPipe => Ok(()),
        io::ErrorKind::StorageFull => Err(format!("{what} cannot be written: {error}; make room there")),
        _ => Err(format!("{what} cannot be written: {error}; look at where the output goes")),
    }
}
