//! `-D`: a server that goes on in the background.

use super::sink::LISTENING;
use crate::system;
use std::io::Read;
use std::process::{Command, Stdio};

/// Set for the process that serves in the background.
const DETACHED: &str = "WHARF_PERF_DETACHED";

/// Whether this process is the one in the background.
pub fn is_detached() -> bool {
    std::env::var_os(DETACHED).is_some()
}

/// Starts this program anew in the background, with the same options, and returns when it listens: what goes wrong
/// before that is still said here.
pub fn detach() -> Result<(), String> {
    let wrong = |error: std::io::Error| format!("it cannot go to the background (-D): {error}");
    let mut child = system::background(&mut Command::new(std::env::current_exe().map_err(wrong)?))
        .args(std::env::args_os().skip(1))
        .env(DETACHED, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(wrong)?;
    let mut said = String::new();
    if let Some(mut from) = child.stderr.take() {
        from.read_to_string(&mut said).map_err(wrong)?;
    }
    match said.split_once(LISTENING) {
        Some((before, port)) => {
            eprint!("{before}");
            println!("Server listening on {} in process {}", port.trim(), child.id());
            Ok(())
        }
        None => {
            let _ = child.wait();
            let said = said.trim().trim_start_matches("wharf: ").to_owned();
            Err(if said.is_empty() { "the server has ended at once".into() } else { said })
        }
    }
}
