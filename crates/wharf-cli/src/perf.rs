//! `wharf perf`: the options, where lines go, and what several tests come to. The measuring is in `wharf-perf`.

mod options;
mod sink;

pub use options::Perf;

use options::{Common, Run, Serve};
use serde_json::json;
use sink::{Out, Terminal};
use std::time::{Duration, Instant};
use wharf_perf::client::{self, Outcome};
use wharf_perf::parameters::Protocol;
use wharf_perf::server;
use wharf_perf::summary::Summary;

/// Runs what was asked. The error is for people; an empty one was told already.
pub fn run(perf: &Perf) -> Result<(), String> {
    match perf {
        Perf::Serve(serve) => self::serve(serve),
        Perf::Run(run) => {
            let merged;
            let run = match &run.config {
                Some(file) => {
                    merged = options::with_config(file)?;
                    &merged
                }
                None => run,
            };
            measure(run)
        }
    }
}

/// What both commands do before anything else.
fn prepare(common: &Common) -> Result<Out, String> {
    if let Some(processor) = common.processor(true) {
        wharf_perf::client::use_processor(processor)
            .map_err(|error| format!("processor {processor} cannot be used (-A): {error}"))?;
    }
    if let Some(file) = &common.pidfile {
        std::fs::write(file, format!("{}\n", std::process::id()))
            .map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
    }
    Out::new(common)
}

fn serve(options: &Serve) -> Result<(), String> {
    let settings = options.settings()?;
    let out = prepare(&options.common)?;
    let result = server::serve(&settings, Box::new(Terminal::new(out, false)));
    if let Some(file) = &options.common.pidfile {
        let _ = std::fs::remove_file(file);
    }
    result.map_err(|failure| failure.text)
}

fn measure(options: &Run) -> Result<(), String> {
    let settings = options.settings()?;
    let out = prepare(&options.common)?;
    let mut rates = Vec::new();
    let mut missed = Vec::new();
    let mut failures = 0;
    let json = options.common.json || options.common.json_stream;
    let phases: &[bool] = if options.two_phase { &[false, true] } else { &[settings.parameters.reverse] };
    for round in 1..=options.repeat {
        if round > 1 {
            std::thread::sleep(Duration::from_secs_f64(options.pause));
        }
        let mut sides = Vec::new();
        for reverse in phases {
            let mut settings = settings.clone();
            settings.parameters.reverse = *reverse;
            if options.two_phase {
                let way = if *reverse { "server to client" } else { "client to server" };
                settings.announce = Some(format!("Phase {}: {way}", 1 + u32::from(*reverse)));
            }
            if options.repeat > 1 && !json {
                out.line(&format!("Run {round} of {}", options.repeat));
            }
            let live = !json && options.common.logfile.is_none();
            let started = Instant::now();
            let outcome = client::run(&settings, Box::new(Terminal::new(out.clone(), live)));
            log::info!("the test took {:?}", started.elapsed());
            failures += usize::from(outcome.failure.is_some());
            judge(options, &outcome, &mut rates, &mut missed);
            if let (Some(file), true) = (&options.plot, outcome.failure.is_none()) {
                let title = format!("{} {}", settings.host, way_of(&outcome));
                let file = numbered(file, options.repeat, round, phases.len(), *reverse);
                wharf_perf::plot::draw(&outcome, &title, &file)?;
            }
            sides.push(outcome);
        }
        if options.two_phase {
            two_phases(&out, &sides, json);
        }
    }
    if options.repeat > 1 {
        summarise(&out, options, &rates, failures, json);
    }
    for sentence in &missed {
        out.error(sentence);
    }
    match failures == 0 && missed.is_empty() {
        true => Ok(()),
        // All of it was said above.
        false => Err(String::new()),
    }
}

fn way_of(outcome: &Outcome) -> String {
    let Some(start) = &outcome.start else { return String::new() };
    let way = match (start.parameters.bidirectional, start.parameters.reverse) {
        (true, _) => "both ways",
        (_, true) => "reverse",
        _ => "",
    };
    format!("{} {} streams {way}", start.parameters.protocol.name(), start.parameters.parallel)
}

/// `curve.svg` of several tests: `curve-2.svg`, `curve-2-reverse.svg`.
fn numbered(file: &std::path::Path, runs: u32, run: u32, phases: usize, reverse: bool) -> std::path::PathBuf {
    let mut name = file.file_stem().unwrap_or_default().to_os_string();
    if runs > 1 {
        name.push(format!("-{run}"));
    }
    if phases > 1 && reverse {
        name.push("-reverse");
    }
    if let Some(extension) = file.extension() {
        name.push(".");
        name.push(extension);
    }
    file.with_file_name(name)
}

/// Whether the thresholds are met, and the errors of verification none.
fn judge(options: &Run, outcome: &Outcome, rates: &mut Vec<f64>, missed: &mut Vec<String>) {
    let (Some(end), None) = (&outcome.end, &outcome.failure) else { return };
    let rate = end.throughput();
    rates.push(rate);
    if let Some(least) = options.fail_under.filter(|least| rate < *least as f64) {
        missed.push(format!("too slow: {} Mbit/s, --fail-under asks for {}", mega(rate), mega(least as f64)));
    }
    let udp = outcome.start.as_ref().is_some_and(|start| start.parameters.protocol == Protocol::Udp);
    if let (Some(most), true) = (options.fail_loss, udp) {
        for ours in end.directions() {
            let (sent, received) = (end.sum(ours, true), end.sum(ours, false));
            let share = 100.0 * received.lost as f64 / sent.packets.max(received.packets).max(1) as f64;
            if share > most {
                missed.push(format!("too much lost: {share:.2} %, --fail-loss allows {most}"));
            }
        }
    }
    if end.verification_errors() > 0 {
        missed.push(format!("{} blocks were not as they were sent", end.verification_errors()));
    }
}

fn mega(rate: f64) -> String {
    format!("{:.1}", rate / 1e6)
}

/// Both phases side by side, each as its sender and as its receiver saw it.
fn two_phases(out: &Out, sides: &[Outcome], json: bool) {
    let mut rows = Vec::new();
    for (name, outcome) in ["client to server", "server to client"].into_iter().zip(sides) {
        let Some(end) = &outcome.end else { continue };
        for ours in end.directions() {
            rows.push((name, end.sum(ours, true), end.sum(ours, false), end.verification_errors()));
        }
    }
    let success = sides.len() == 2 && sides.iter().all(|side| side.failure.is_none());
    let success = success && rows.iter().all(|row| row.3 == 0);
    if json {
        let phases: Vec<_> = rows
            .iter()
            .map(|(name, sent, received, errors)| {
                json!({
                    "phase": name,
                    "sender": {"bytes": sent.bytes, "seconds": sent.seconds, "bits_per_second": sent.rate()},
                    "receiver": {"bytes": received.bytes, "seconds": received.seconds, "bits_per_second": received.rate()},
                    "verification_errors": errors,
                })
            })
            .collect();
        return out.line(&json!({"event": "two_phase", "data": {"phases": phases, "success": success}}).to_string());
    }
    out.line("");
    out.line(&format!("{:18} {:>16} {:>16} {:>12} {:>12}", "", "bytes sent", "received", "Mbit/s sent", "received"));
    for (name, sent, received, _) in &rows {
        let (left, right) = (mega(sent.rate()), mega(received.rate()));
        out.line(&format!("{name:18} {:>16} {:>16} {left:>12} {right:>12}", sent.bytes, received.bytes));
    }
    out.line(if success { "Both phases succeeded." } else { "Not both phases succeeded." });
}

fn summarise(out: &Out, options: &Run, rates: &[f64], failures: usize, json: bool) {
    let summary = Summary::of(rates).unwrap_or_default();
    if json {
        let data = json!({
            "runs": options.repeat, "failed": failures, "mean_bits_per_second": summary.mean,
            "standard_deviation": summary.deviation, "median": summary.median, "min": summary.min, "max": summary.max,
        });
        return out.line(&json!({"event": "summary", "data": data}).to_string());
    }
    out.line("");
    out.line(&format!(
        "{} tests, {failures} failed: mean {} Mbit/s, standard deviation {}, median {}, min {}, max {}",
        summary.count + failures,
        mega(summary.mean),
        mega(summary.deviation),
        mega(summary.median),
        mega(summary.min),
        mega(summary.max)
    ));
}
