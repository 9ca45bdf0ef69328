//! What this machine offers, and which limits will bite.
//!
//! Nothing is concluded from a version: a port is made, a file is synced through it, and the port says what ran that.
//! `finding.rs` is a line of the report, `sync.rs` the sync, and `system/` what there is to look at on each system.

mod finding;
mod sync;
mod system;

use crate::options::Doctor;
use crate::output;
use finding::Finding;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// Prints the report. Warnings are no failure.
pub fn run(options: &Doctor) -> Result<(), String> {
    let findings = system::findings()?;
    let text = if options.json { as_json(&findings) } else { as_text(&findings) };
    output::write("the report", &text)
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
