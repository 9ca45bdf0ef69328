//! The reports of one test: which form they have, and what of them is kept.

use super::human::Human;
use super::json;
use super::log::Log;
use super::sides::Sides;
use super::units::Format;
use crate::measure::figures::{End, Interval, Start};
use crate::protocol::json::pretty;
use crate::protocol::{Failure, VERSION};
use serde_json::{Map, Value};
use std::sync::Arc;

/// The form of the reports.
#[derive(Clone, Debug)]
pub struct Form {
    /// One object at the end.
    pub json: bool,
    /// One object a line.
    pub json_stream: bool,
    /// With the stream, also the object at the end.
    pub full: bool,
    /// The unit of rates.
    pub format: Format,
    /// Say more.
    pub verbose: bool,
    /// Tell processor time.
    pub cpu: bool,
    /// What `start.version` says.
    pub version: String,
}

impl Default for Form {
    fn default() -> Self {
        Form {
            json: false,
            json_stream: false,
            full: false,
            format: Format::default(),
            verbose: false,
            cpu: false,
            version: VERSION.into(),
        }
    }
}

/// What is kept of a server's lines for its client, which takes no more than 64 MiB.
const CAPTURED_BYTES_MAX: usize = 16 << 20;
/// Rows of intervals that a JSON object may have: an endless test must not take endless memory.
const ROWS_MAX: usize = 1_000_000;

/// The reports of one test.
pub(crate) struct Printer {
    form: Form,
    human: Human,
    log: Arc<Log>,
    /// In front of each line of people's reports.
    prefix: String,
    /// The lines so far, for a client that wants them.
    captured: Option<String>,
    start: Option<Value>,
    intervals: Vec<Value>,
    rows: usize,
    extra: Map<String, Value>,
    ended: bool,
}

impl Printer {
    pub(crate) fn new(form: Form, log: Arc<Log>) -> Printer {
        let human = Human::new(form.format, form.verbose, form.cpu);
        Printer {
            form,
            human,
            log,
            prefix: String::new(),
            captured: None,
            start: None,
            intervals: Vec::new(),
            rows: 0,
            extra: Map::new(),
            ended: false,
        }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.form.json || self.form.json_stream
    }

    pub(crate) fn set_prefix(&mut self, prefix: String) {
        self.prefix = prefix;
    }

    /// Top-level keys of the object: `title`, `extra_data`.
    pub(crate) fn extra(&mut self, key: &str, value: Value) {
        self.extra.insert(key.into(), value);
    }

    pub(crate) fn capture(&mut self) {
        self.captured.get_or_insert_default();
    }

    /// A line of people's reports; a JSON report has none.
    pub(crate) fn line(&mut self, text: &str) {
        if self.is_json() {
            return;
        }
        if let Some(captured) = &mut self.captured {
            if captured.len() + text.len() < CAPTURED_BYTES_MAX {
                captured.push_str(text);
                captured.push('\n');
            }
        }
        let text = if text.is_empty() { String::new() } else { format!("{}{text}", self.prefix) };
        self.log.line(text);
    }

    fn lines(&mut self, lines: Vec<String>) {
        lines.iter().for_each(|line| self.line(line));
    }

    pub(crate) fn started(&mut self, start: &Start) {
        if self.is_json() {
            let value = json::start(start, &self.form.version);
            if self.form.json_stream {
                self.log.line(json::event("start", value.clone()));
            }
            self.start = Some(value);
        } else {
            self.lines(self.human.start(start));
        }
    }

    pub(crate) fn interval(&mut self, start: &Start, interval: &Interval) {
        if self.is_json() {
            let value = json::interval(interval, start);
            if self.form.json_stream {
                self.log.line(json::event("interval", value.clone()));
            }
            self.rows += interval.rows.len();
            if (!self.form.json_stream || self.form.full) && self.rows <= ROWS_MAX {
                self.intervals.push(value);
            }
        } else {
            let lines = self.human.interval(start, interval);
            self.lines(lines);
        }
    }

    /// What a client that asked for it gets: the text so far, or the object.
    pub(crate) fn server_output(&self, start: &Start, end: &End) -> Option<Value> {
        match &self.captured {
            Some(_) if self.is_json() => Some(self.object(Some((start, end)), None)),
            Some(text) => Some(text.as_str().into()),
            None => None,
        }
    }

    pub(crate) fn ended(&mut self, start: &Start, end: &End) {
        self.ended = true;
        if !self.is_json() {
            let lines = self.human.end(start, end);
            self.lines(lines);
            return;
        }
        if self.form.json_stream {
            if let Some(output) = &end.server_output {
                let name = if output.is_string() { "server_output_text" } else { "server_output_json" };
                self.log.line(json::event(name, output.clone()));
            }
            self.log.line(json::event("end", json::end(end, start)));
            self.log.line(json::event("wharf", json::ours(Some(end), Some(start))));
        }
        if !self.form.json_stream || self.form.full {
            self.log.line(pretty(&self.object(Some((start, end)), None)));
        }
    }

    /// The first phase of a test of two is told; the next one has a report of its own.
    pub(crate) fn second_phase(&mut self) {
        self.human = Human::new(self.form.format, self.form.verbose, self.form.cpu);
        self.captured = self.captured.take().map(|_| String::new());
        self.start = None;
        self.intervals.clear();
        self.rows = 0;
        self.ended = false;
        self.line("");
        self.line("Second phase, the server sends");
    }

    pub(crate) fn sides(&mut self, sides: &Sides) {
        match self.is_json() {
            true => self.log.line(json::event("two_phase", sides.to_json())),
            false => self.lines(sides.lines()),
        }
    }

    /// The test failed: what is known, and why it is not more.
    pub(crate) fn failed(&mut self, start: Option<&Start>, end: Option<&End>, failure: &Failure) {
        if self.ended {
            // The report is out already, and whole.
            self.log.error(failure.text.clone());
            return;
        }
        self.ended = true;
        let known = start.zip(end);
        if self.form.json_stream {
            self.log.line(json::event("error", failure.text.as_str().into()));
            let end = known.map_or_else(|| Value::Object(Map::new()), |(start, end)| json::end(end, start));
            self.log.line(json::event("end", end));
        }
        if self.is_json() && (!self.form.json_stream || self.form.full) {
            self.log.line(pretty(&self.object(known, Some(&failure.text))));
        }
        if !self.is_json() {
            if let Some((start, end)) = known {
                let lines = self.human.end(start, end);
                self.lines(lines);
            }
            self.log.error(format!("{}{}", self.prefix, failure.text));
        }
    }

    fn object(&self, known: Option<(&Start, &End)>, error: Option<&str>) -> Value {
        let mut map = Map::new();
        let start = self.start.clone().unwrap_or_else(|| json::preamble(&self.form.version));
        map.insert("start".into(), start);
        map.insert("intervals".into(), self.intervals.clone().into());
        let end = known.map_or_else(|| Value::Object(Map::new()), |(start, end)| json::end(end, start));
        map.insert("end".into(), end);
        for (key, value) in &self.extra {
            map.insert(key.clone(), value.clone());
        }
        if let Some(output) = known.and_then(|(_, end)| end.server_output.as_ref()) {
            let name = if output.is_string() { "server_output_text" } else { "server_output_json" };
            map.insert(name.into(), output.clone());
        }
        if let Some(error) = error {
            map.insert("error".into(), error.into());
        }
        let mut ours = json::ours(known.map(|known| known.1), known.map(|known| known.0));
        if self.rows > ROWS_MAX {
            ours["intervals_left_out"] = true.into();
        }
        map.insert("wharf".into(), ours);
        map.into()
    }
}
