//! What this machine offers, and which limits will bite.
//!
//! Nothing is concluded from a version: a port is made, a file is synced through it, and the port says what ran that. What
//! there is to look at differs by system: one file for each, chosen here.

#[cfg_attr(windows, path = "windows.rs")]
#[cfg_attr(unix, path = "linux.rs")]
mod here;

use crate::options::Doctor;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs;
use std::io::{self, Write};
use wharf::{CompletionPort, Event};

/// One line of the report.
struct Finding {
    name: &'static str,
    value: String,
    /// What to think of it; empty where there is nothing to add.
    why: String,
    /// What to do about it: then it is a warning.
    remedy: Option<String>,
}

impl Finding {
    fn fine(name: &'static str, value: impl Into<String>, why: impl Into<String>) -> Finding {
        Finding { name, value: value.into(), why: why.into(), remedy: None }
    }

    fn warning(
        name: &'static str,
        value: impl Into<String>,
        why: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding { name, value: value.into(), why: why.into(), remedy: Some(remedy.into()) }
    }

    fn verdict(&self) -> &'static str {
        if self.remedy.is_some() { "warn" } else { "ok" }
    }
}

/// Prints the report. Warnings are no failure.
pub fn run(options: &Doctor) -> Result<(), String> {
    let findings = here::findings()?;
    let text = if options.json { as_json(&findings) } else { as_text(&findings) };
    // A closed pipe: nobody wants the rest.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let _ = writeln!(text, "{:4}  {:14}{}", finding.verdict(), finding.name, finding.value);
        if !finding.why.is_empty() {
            let _ = writeln!(text, "{:20}{}", "", finding.why);
        }
        if let Some(remedy) = &finding.remedy {
            let _ = writeln!(text, "{:20}remedy: {remedy}", "");
        }
    }
    text
}

fn as_json(findings: &[Finding]) -> String {
    let as_value = |finding: &Finding| -> Value {
        json!({
            "name": finding.name,
            "verdict": finding.verdict(),
            "value": finding.value,
            "why": finding.why,
            "remedy": finding.remedy,
        })
    };
    let findings: Vec<Value> = findings.iter().map(as_value).collect();
    format!("{:#}\n", json!({ "version": env!("CARGO_PKG_VERSION"), "findings": findings }))
}

fn processors() -> Finding {
    match std::thread::available_parallelism() {
        Ok(count) => Finding::fine("processors", count.to_string(), "so many threads of a port run at the same time"),
        Err(error) => Finding::fine("processors", "unknown", error.to_string()),
    }
}

/// Why a sync did not come back well.
enum Trouble {
    /// The temporary file is not to be had.
    File(String),
    /// The engine refused.
    Engine(io::Error),
}

/// Syncs a temporary file: of all operations, the one that always has to wait, and so starts the engine.
fn sync(port: &CompletionPort<(), ()>) -> Result<(), Trouble> {
    let path =
        std::env::temp_dir().join(format!("wharf-doctor-{}-{:?}", std::process::id(), std::thread::current().id()));
    let no_file = |error: io::Error| {
        // Not the directory's fault.
        if here::is_scarce(&error) {
            return Trouble::Engine(error);
        }
        let (path, why) = (path.display(), here::CHOOSE_TEMPORARY);
        Trouble::File(format!("the temporary file {path} cannot be made: {error}; {why}"))
    };
    let mut options = fs::OpenOptions::new();
    let file = port.open(&path, options.write(true).create_new(true), ()).map_err(no_file)?;
    let removed = fs::remove_file(&path);
    removed.map_err(no_file)?;
    file.sync(()).map_err(|refused| Trouble::Engine(refused.error))?;
    match port.get().map_err(|error| Trouble::Engine(error.into()))?.event {
        Event::Synced { result, .. } => result.map_err(Trouble::Engine),
        _ => unreachable!("nothing else was issued"),
    }
}
