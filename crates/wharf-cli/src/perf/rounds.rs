//! Tests one after the other, with each engine in turn and as often as was asked for.

use super::options::Run;
use super::setup::{prepare, refuse};
use super::sink::{Out, Terminal};
use super::tally::Tally;
use crate::system;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use wharf::CompletionPort;
use wharf_perf::client::{self, Outcome};
use wharf_perf::protocol::code;
use wharf_perf::report::plot;

pub fn measure(options: &Run) -> Result<(), String> {
    let settings = options.settings().unwrap_or_else(refuse);
    let engines = options.common.engines().unwrap_or_else(refuse);
    let (out, _number) = prepare(&options.common)?;
    let mut tally = Tally::new(engines.len());
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
        tally.compare(&out, options, &engines);
    }
    if options.repeat > 1 && engines.len() == 1 {
        tally.summarise(&out, options);
    }
    for sentence in &tally.missed {
        out.error(sentence);
    }
    out.all_written()?;
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
        tally.judge(options, outcome, engine, second);
        if let (Some(file), true) = (&options.plot, outcome.failure.is_none()) {
            let title = format!("{} {}", settings.host, way_of(outcome));
            let reverse = outcome.start.as_ref().is_some_and(|start| start.parameters.reverse);
            let engines = tally.engines();
            let number = (round as usize - 1) * engines + engine + 1;
            let runs = options.repeat as usize * engines;
            plot::draw(outcome, &title, &numbered(file, runs, number, phases.len(), reverse))?;
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
fn numbered(file: &Path, runs: usize, run: usize, phases: usize, reverse: bool) -> PathBuf {
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
