//! From reports to lines: which form, and where they go.

use crate::protocol::Failure;
use crate::report::human::Human;
use crate::report::{End, Interval, Start, json, sides::Sides};
use crate::units::Format;
use serde_json::{Map, Value};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Where lines go. Called by one thread at a time, and under no lock of a test.
pub trait Sink: Send {
    /// A line of the report.
    fn line(&mut self, text: &str);
    /// A line about what went wrong.
    fn error(&mut self, text: &str);
    /// A server listens, on this port.
    fn listening(&mut self, _port: u16) {}
    /// How the test stands, a few times a second; only if [`wants_live`](Sink::wants_live).
    fn live(&mut self, _live: &Live) {}
    /// Whether [`live`](Sink::live) is to be called.
    fn wants_live(&self) -> bool {
        false
    }
}

/// How a running test stands.
#[derive(Clone, Copy, Debug)]
pub struct Live {
    /// Since it began, the omitted time included.
    pub elapsed: Duration,
    /// How long it will take; `None`: it does not end by time.
    pub total: Option<Duration>,
    /// What this end sends and receives just now, bits a second.
    pub bits_per_second: [f64; 2],
}

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
            version: crate::VERSION.into(),
        }
    }
}

enum Said {
    Line(String),
    Error(String),
    Live(Live),
    Listening(u16),
}

/// Lines that may wait: strangers can cause some, and whoever reads them may have stopped to.
const WAITING_MAX: usize = 65_536;

/// Lines on their way to a [`Sink`], in order. Whoever holds a lock only queues; whoever holds none lets them out.
pub(crate) struct Voice {
    queue: Mutex<VecDeque<Said>>,
    sink: Mutex<Box<dyn Sink>>,
    left_out: AtomicU64,
    pub(crate) wants_live: bool,
}

impl Voice {
    pub(crate) fn new(sink: Box<dyn Sink>) -> Arc<Voice> {
        let wants_live = sink.wants_live();
        Arc::new(Voice { queue: Mutex::default(), sink: Mutex::new(sink), left_out: AtomicU64::new(0), wants_live })
    }

    fn say(&self, said: Said) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if queue.len() < WAITING_MAX {
            queue.push_back(said);
        } else {
            self.left_out.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn line(&self, text: impl Into<String>) {
        self.say(Said::Line(text.into()));
    }

    pub(crate) fn error(&self, text: impl Into<String>) {
        self.say(Said::Error(text.into()));
    }

    pub(crate) fn listening(&self, port: u16) {
        self.say(Said::Listening(port));
    }

    pub(crate) fn live(&self, live: Live) {
        self.say(Said::Live(live));
    }

    fn is_empty(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Lets out what is queued, unless another thread is at it: that one looks again when it is through.
    pub(crate) fn flush(&self) {
        while !self.is_empty() {
            let Ok(mut sink) = self.sink.try_lock() else { return };
            self.let_out(&mut **sink);
        }
    }

    /// The same, waiting for another thread.
    pub(crate) fn finish(&self) {
        self.let_out(&mut **self.sink.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn let_out(&self, sink: &mut dyn Sink) {
        loop {
            let said = self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match said {
                Some(Said::Line(text)) => sink.line(&text),
                Some(Said::Error(text)) => sink.error(&text),
                Some(Said::Live(live)) => sink.live(&live),
                Some(Said::Listening(port)) => sink.listening(port),
                None => match self.left_out.swap(0, Relaxed) {
                    0 => return,
                    count => sink.error(&format!("{count} lines were left out, because nobody read those before them")),
                },
            }
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
    voice: Arc<Voice>,
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
    pub(crate) fn new(form: Form, voice: Arc<Voice>) -> Printer {
        let human = Human::new(form.format, form.verbose, form.cpu);
        Printer {
            form,
            human,
            voice,
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
        self.voice.line(text);
    }

    fn lines(&mut self, lines: Vec<String>) {
        lines.iter().for_each(|line| self.line(line));
    }

    pub(crate) fn started(&mut self, start: &Start) {
        if self.is_json() {
            let value = json::start(start, &self.form.version);
            if self.form.json_stream {
                self.voice.line(json::event("start", value.clone()));
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
                self.voice.line(json::event("interval", value.clone()));
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
                self.voice.line(json::event(name, output.clone()));
            }
            self.voice.line(json::event("end", json::end(end, start)));
            self.voice.line(json::event("wharf", json::ours(Some(end), Some(start))));
        }
        if !self.form.json_stream || self.form.full {
            self.voice.line(crate::json::pretty(&self.object(Some((start, end)), None)));
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
            true => self.voice.line(json::event("two_phase", sides.to_json())),
            false => self.lines(sides.lines()),
        }
    }

    /// The test failed: what is known, and why it is not more.
    pub(crate) fn failed(&mut self, start: Option<&Start>, end: Option<&End>, failure: &Failure) {
        if self.ended {
            // The report is out already, and whole.
            self.voice.error(failure.text.clone());
            return;
        }
        self.ended = true;
        let known = start.zip(end);
        if self.form.json_stream {
            self.voice.line(json::event("error", failure.text.as_str().into()));
            let end = known.map_or_else(|| Value::Object(Map::new()), |(start, end)| json::end(end, start));
            self.voice.line(json::event("end", end));
        }
        if self.is_json() && (!self.form.json_stream || self.form.full) {
            self.voice.line(crate::json::pretty(&self.object(known, Some(&failure.text))));
        }
        if !self.is_json() {
            if let Some((start, end)) = known {
                let lines = self.human.end(start, end);
                self.lines(lines);
            }
            self.voice.error(format!("{}{}", self.prefix, failure.text));
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    struct Said(Sender<String>);

    impl Sink for Said {
        fn line(&mut self, text: &str) {
            let _ = self.0.send(text.into());
        }

        fn error(&mut self, text: &str) {
            let _ = self.0.send(format!("error: {text}"));
        }
    }

    #[test]
    fn lines_that_nobody_reads_take_so_much_memory_and_no_more() {
        let (into, from) = channel();
        let voice = Voice::new(Box::new(Said(into)));
        for number in 0..WAITING_MAX + 3 {
            voice.line(number.to_string());
        }
        voice.flush();
        voice.line("afterwards");
        voice.finish();
        let said: Vec<String> = from.try_iter().collect();
        assert_eq!(said.len(), WAITING_MAX + 2);
        assert_eq!(said[WAITING_MAX - 1], (WAITING_MAX - 1).to_string());
        assert!(said[WAITING_MAX].starts_with("error: 3 lines were left out"));
        assert_eq!(said[WAITING_MAX + 1], "afterwards");
    }
}
