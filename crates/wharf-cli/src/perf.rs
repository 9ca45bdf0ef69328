//! `wharf perf`: the options, where lines go, and what several tests come to. The measuring is in `wharf-perf`.

mod options;
mod sink;

pub use options::Perf;

use crate::system;
use options::{Common, Engine, Run, Serve};
use serde_json::json;
use sink::{Daemon, LISTENING, Out, Terminal};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wharf::CompletionPort;
use wharf_perf::client::{self, Outcome};
use wharf_perf::measure::summary::Summary;
use wharf_perf::protocol::code;
use wharf_perf::protocol::parameters::Protocol;
use wharf_perf::report::log::Sink;
use wharf_perf::server;

/// What a shell reports of a command line that was not understood; clap ends with it, too.
const WRONG_USAGE: i32 = 2;

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
            measure(run)
        }
    }
}

/// Options that cannot be are no failed test: scripts tell the two apart by the exit code.
fn refuse<R>(sentence: String) -> R {
    eprintln!("wharf: {sentence}");
    std::process::exit(WRONG_USAGE)
}

/// The file with the process's number; gone with this, however the command ends.
struct NumberFile(PathBuf);

impl NumberFile {
    fn write(path: &Path) -> Result<NumberFile, String> {
        std::fs::write(path, format!("{}\n", std::process::id()))
            .map_err(|error| format!("{} cannot be written: {error}", path.display()))?;
        Ok(NumberFile(path.to_owned()))
    }
}

impl Drop for NumberFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// What both commands do before anything else.
fn prepare(common: &Common) -> Result<(Out, Option<NumberFile>), String> {
    if let Some(processor) = common.processor(true) {
        wharf_perf::client::use_processor(processor)
            .map_err(|error| format!("processor {processor} cannot be used (-A): {error}"))?;
    }
    let number = common.pidfile.as_deref().map(NumberFile::write).transpose()?;
    Ok((Out::new(common)?, number))
}

/// Set for the process that serves in the background.
const DETACHED: &str = "WHARF_PERF_DETACHED";

fn serve(options: &Serve) -> Result<(), String> {
    let settings = options.settings().unwrap_or_else(refuse);
    let detached = options.daemon && std::env::var_os(DETACHED).is_some();
    if options.daemon && !detached {
        return detach();
    }
    if detached {
        system::own_session().map_err(|error| format!("no session of its own (-D): {error}"))?;
    }
    let (out, _number) = prepare(&options.common)?;
    let terminal = Terminal::new(out, false);
    let sink: Box<dyn Sink> = if detached { Box::new(Daemon(terminal)) } else { Box::new(terminal) };
    server::serve(&settings, sink).map_err(|failure| failure.text)
}

/// Starts this program anew in the background, with the same options, and returns when it listens: what goes wrong
/// before that is still said here.
fn detach() -> Result<(), String> {
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

fn measure(options: &Run) -> Result<(), String> {
    let settings = options.settings().unwrap_or_else(refuse);
    let engines = options.common.engines().unwrap_or_else(refuse);
    let (out, _number) = prepare(&options.common)?;
    let mut tally = Tally { of: vec![Default::default(); engines.len()], missed: Vec::new(), tests: 0, failures: 0 };
    let enough = Enough::new(options.repeat as usize * engines.len() > 1 || options.two_phase)?;
    'tests: for round in 1..=options.repeat {
        // In turns, so that what else the machine does meets all of them.
        for (at, engine) in engines.iter().enumerate() {
            let pause = if round > 1 && at == 0 { options.pause } else { 0.0 };
            if enough.was_said(Duration::from_secs_f64(pause)) {
                tally.missed.push("interrupt - the client has terminated".into());
                break 'tests;
            }
            if options.repeat > 1 && !options.common.is_json() {
                out.line(&format!("Run {round} of {}", options.repeat));
            }
            if engines.len() > 1 && !options.common.is_json() {
                out.line(&format!("Engine: {}", engine.name));
            }
            let mut settings = settings.clone();
            let machinery = &mut settings.machinery;
            (machinery.socket_engine, machinery.file_engine) = (engine.sockets, engine.files);
            if !one_test(options, &settings, &out, (round, at), &enough, &mut tally)? {
                break 'tests;
            }
        }
    }
    if engines.len() > 1 {
        compare(&out, options, &engines, &tally);
    }
    if options.repeat > 1 && engines.len() == 1 {
        summarise(&out, options, &tally);
    }
    for sentence in &tally.missed {
        out.error(sentence);
    }
    match tally.failures == 0 && tally.missed.is_empty() {
        true => Ok(()),
        // All of it was said above.
        false => Err(String::new()),
    }
}

/// Hears Ctrl+C where no test does: between two of them, and when one has its report out already.
struct Enough(Option<CompletionPort<(), ()>>);

impl Enough {
    /// Of a single test the test itself hears it, and before that the system ends the process.
    fn new(several: bool) -> Result<Enough, String> {
        let wrong = |error: std::io::Error| format!("Ctrl+C cannot be waited for: {error}");
        if !several {
            return Ok(Enough(None));
        }
        let port = CompletionPort::new().map_err(wrong)?;
        for signal in system::ENDING_TESTS {
            port.signal(signal, (), ()).map_err(wrong)?;
        }
        Ok(Enough(Some(port)))
    }

    /// Whether it came, or comes within this time.
    fn was_said(&self, pause: Duration) -> bool {
        match &self.0 {
            Some(port) => port.get_timeout(pause).is_ok(),
            None => false,
        }
    }
}

/// What the tests have come to.
struct Tally {
    /// Of each engine the tests, and in a test of two phases each phase, since two directions are two things.
    of: Vec<[Figures; 2]>,
    missed: Vec<String>,
    tests: usize,
    failures: usize,
}

/// Of tests that are the same.
#[derive(Clone, Default)]
struct Figures {
    /// What arrived, bits a second.
    rates: Vec<f64>,
    /// Processor seconds for a gigabyte, here and there.
    costs: Vec<[f64; 2]>,
}

/// The phases of each test by name; without phases one that needs none.
fn phases(options: &Run) -> &'static [Option<&'static str>] {
    match options.two_phase {
        true => &[Some("client to server"), Some("server to client")],
        false => &[None],
    }
}

/// A test; of two phases both, in one session or, if the server has only tests of one, in two. False: the user wants no
/// more.
fn one_test(
    options: &Run,
    settings: &client::Options,
    out: &Out,
    (round, engine): (u32, usize),
    enough: &Enough,
    tally: &mut Tally,
) -> Result<bool, String> {
    let json = options.common.is_json();
    let live = !json && options.common.logfile.is_none();
    let mut settings = settings.clone();
    if options.two_phase {
        settings.announce = Some("First phase, the client sends".into());
    }
    let started = Instant::now();
    let run = |settings: &client::Options| client::run(settings, Box::new(Terminal::new(out.clone(), live)));
    let mut last = run(&settings);
    log::info!("the test took {:?}", started.elapsed());
    let mut first = last.first.take();
    let mut interrupted = false;
    if options.two_phase && last.failure.is_none() && first.is_none() {
        interrupted = enough.was_said(Duration::ZERO);
    }
    if options.two_phase && last.failure.is_none() && first.is_none() && !interrupted {
        settings.parameters.two_phase = false;
        settings.parameters.reverse = true;
        settings.announce = Some("Second phase, in a session of its own, since the server is not wharf".into());
        first = Some(Box::new(std::mem::replace(&mut last, run(&settings))));
        last.first = first.take();
        if let Some(sides) = last.sides() {
            match json {
                true => out.line(&json!({"event": "two_phase", "data": sides.to_json()}).to_string()),
                false => sides.lines().iter().for_each(|line| out.line(line)),
            }
        }
        first = last.first.take();
    }
    tally.tests += 1;
    tally.failures += usize::from(last.failure.is_some());
    let phases: Vec<&Outcome> = first.as_deref().into_iter().chain([&last]).collect();
    for outcome in &phases {
        let second = outcome.start.as_ref().is_some_and(|start| options.two_phase && start.parameters.reverse);
        judge(options, outcome, &mut tally.of[engine][usize::from(second)], &mut tally.missed);
        if let (Some(file), true) = (&options.plot, outcome.failure.is_none()) {
            let title = format!("{} {}", settings.host, way_of(outcome));
            let reverse = outcome.start.as_ref().is_some_and(|start| start.parameters.reverse);
            let engines = tally.of.len();
            let number = (round as usize - 1) * engines + engine + 1;
            let runs = options.repeat as usize * engines;
            wharf_perf::report::plot::draw(outcome, &title, &numbered(file, runs, number, phases.len(), reverse))?;
        }
    }
    last.first = first;
    if options.two_phase && last.failure.is_none() && !last.sides().is_some_and(|sides| sides.success()) {
        tally.missed.push("not both phases succeeded".into());
    }
    Ok(!interrupted && last.failure.as_ref().is_none_or(|failure| failure.code != code::CLIENT_TERMINATED))
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
fn numbered(file: &std::path::Path, runs: usize, run: usize, phases: usize, reverse: bool) -> std::path::PathBuf {
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
fn judge(options: &Run, outcome: &Outcome, of: &mut Figures, missed: &mut Vec<String>) {
    let (Some(end), None) = (&outcome.end, &outcome.failure) else { return };
    let rate = end.throughput();
    of.rates.push(rate);
    if let Some(start) = &outcome.start {
        let cost = end.cost(start.parameters.len);
        let gigabytes = cost.gigabytes.max(1e-9);
        of.costs.push([cost.here / gigabytes, cost.there.unwrap_or(0.0) / gigabytes]);
    }
    if let Some(least) = options.fail_under.filter(|least| rate < *least as f64) {
        missed.push(format!("too slow: {} Mbit/s, --fail-under asks for {}", mega(rate), mega(least as f64)));
    }
    let udp = outcome.start.as_ref().is_some_and(|start| start.parameters.protocol == Protocol::Udp);
    if let (Some(most), true) = (options.fail_loss, udp) {
        for ours in end.directions() {
            let share = end.loss_percent(ours);
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

/// The engines side by side.
fn compare(out: &Out, options: &Run, engines: &[Engine], tally: &Tally) {
    let mean = |costs: &[[f64; 2]], end: usize| match costs.len() {
        0 => 0.0,
        count => costs.iter().map(|cost| cost[end]).sum::<f64>() / count as f64,
    };
    let mut rows = Vec::new();
    for (engine, of) in engines.iter().zip(&tally.of) {
        for (phase, Figures { rates, costs }) in phases(options).iter().zip(of) {
            let rates = Summary::of(rates).unwrap_or_default();
            rows.push((&engine.name, phase, rates, mean(costs, 0), mean(costs, 1)));
        }
    }
    if options.common.is_json() {
        let data: Vec<_> = rows
            .iter()
            .map(|(name, phase, rates, here, there)| {
                let mut row = json!({
                    "engine": name, "tests": rates.count, "median_bits_per_second": rates.median, "min": rates.min,
                    "max": rates.max, "host_seconds_per_gigabyte": here, "remote_seconds_per_gigabyte": there,
                });
                if let Some(phase) = phase {
                    row["phase"] = json!(phase);
                }
                row
            })
            .collect();
        return out.line(&json!({"event": "engines", "data": data}).to_string());
    }
    out.line("");
    out.line(&format!(
        "{:18} {:>6} {:>12} {:>12} {:>12} {:>11} {:>11}",
        "Engine here", "tests", "Mbit/s", "min", "max", "s/GB here", "s/GB there"
    ));
    for (name, phase, rates, here, there) in rows {
        let [median, min, max] = [rates.median, rates.min, rates.max].map(mega);
        let phase = phase.map_or(String::new(), |phase| format!("  {phase}"));
        let tests = rates.count;
        out.line(&format!("{name:18} {tests:>6} {median:>12} {min:>12} {max:>12} {here:>11.3} {there:>11.3}{phase}"));
    }
}

/// What all the tests come to, of each phase.
fn summarise(out: &Out, options: &Run, tally: &Tally) {
    let Tally { tests, failures, .. } = tally;
    for (phase, Figures { rates, .. }) in phases(options).iter().zip(&tally.of[0]) {
        let summary = Summary::of(rates).unwrap_or_default();
        if options.common.is_json() {
            let mut data = json!({
                "runs": tests, "failed": failures, "mean_bits_per_second": summary.mean,
                "standard_deviation": summary.deviation, "median": summary.median, "min": summary.min, "max": summary.max,
            });
            if let Some(phase) = phase {
                data["phase"] = json!(phase);
            }
            out.line(&json!({"event": "summary", "data": data}).to_string());
            continue;
        }
        out.line("");
        let [mean, deviation, median] = [summary.mean, summary.deviation, summary.median].map(mega);
        let (min, max) = (mega(summary.min), mega(summary.max));
        let phase = phase.map_or(String::new(), |phase| format!(", {phase}"));
        out.line(&format!(
            "{tests} tests, {failures} failed{phase}: mean {mean} Mbit/s, standard deviation {deviation}, median {median}, \
             min {min}, max {max}"
        ));
    }
}
