//! Where the lines of `wharf perf` go: the terminal, with a live line; a pipe, plain; or a file.

use super::options::Common;
use crate::output::unless_unwanted;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wharf_perf::report::log::{Live, Sink};
use wharf_perf::report::units::Format;

/// Standard output and standard error, or a file for both.
#[derive(Clone)]
pub struct Out(Arc<Inner>);

struct Inner {
    file: Option<Mutex<File>>,
    /// The first line that could not be written.
    failed: Mutex<Option<io::Error>>,
    timestamps: Option<String>,
    json: bool,
    colour: bool,
    format: Format,
}

impl Out {
    pub fn new(common: &Common) -> Result<Out, String> {
        let file = match &common.logfile {
            None => None,
            Some(path) => {
                let file = File::options().create(true).append(true).open(path);
                Some(Mutex::new(file.map_err(|error| format!("{} cannot be written: {error}", path.display()))?))
            }
        };
        let colour = file.is_none() && io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let json = common.json || common.json_stream || common.json_stream_full_output;
        let format = common.format.unwrap_or_default();
        Ok(Out(Arc::new(Inner {
            file,
            failed: Mutex::new(None),
            timestamps: common.timestamps.as_deref().map(as_in_c),
            json,
            colour,
            format,
        })))
    }

    fn stamped(&self, text: &str) -> String {
        match &self.0.timestamps {
            Some(format) if !self.0.json => format!("{}{text}", jiff::Zoned::now().strftime(format)),
            _ => text.to_owned(),
        }
    }

    fn write(&self, text: &str, mut other: impl Write) {
        // Measuring does not depend on who reads it.
        let written = match &self.0.file {
            Some(file) => writeln!(file.lock().unwrap_or_else(PoisonError::into_inner), "{text}"),
            None => writeln!(other, "{text}").and_then(|()| other.flush()),
        };
        if let Err(error) = written {
            self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        }
    }

    /// Whether everything could be written. An error says what could not.
    pub fn all_written(&self) -> Result<(), String> {
        match self.0.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(error) => unless_unwanted("the report", &error),
            None => Ok(()),
        }
    }

    pub fn line(&self, text: &str) {
        let mut text = self.stamped(text);
        // Sparingly: the heads of the columns, and the sums.
        if self.0.colour && (text.contains("[ ID]") || text.contains("[SUM]")) {
            text = format!("\x1b[1m{text}\x1b[0m");
        }
        self.write(&text, io::stdout().lock());
    }

    pub fn error(&self, text: &str) {
        // Wrapper scripts look for "error - ".
        self.write(&self.stamped(&format!("wharf perf: error - {text}")), io::stderr().lock());
    }
}

/// The format with what depends on a language said as iperf3 says it: its programs run in C's.
fn as_in_c(format: &str) -> String {
    let mut said = String::new();
    let mut letters = format.chars();
    while let Some(letter) = letters.next() {
        if letter != '%' {
            said.push(letter);
            continue;
        }
        match letters.next() {
            Some('c') => said.push_str("%a %b %e %H:%M:%S %Y"),
            Some('x') => said.push_str("%m/%d/%y"),
            Some('X') => said.push_str("%H:%M:%S"),
            other => said.extend(Some('%').into_iter().chain(other)),
        }
    }
    said
}

/// The lines of one test.
pub struct Terminal {
    out: Out,
    bar: Option<ProgressBar>,
}

impl Terminal {
    pub fn new(out: Out, live: bool) -> Terminal {
        let bar = (live && io::stdout().is_terminal() && io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar
        });
        Terminal { out, bar }
    }

    fn beside_the_bar(&self, print: impl FnOnce(&Out)) {
        match &self.bar {
            Some(bar) => bar.suspend(|| print(&self.out)),
            None => print(&self.out),
        }
    }
}

impl Sink for Terminal {
    fn line(&mut self, text: &str) {
        self.beside_the_bar(|out| out.line(text));
    }

    fn error(&mut self, text: &str) {
        self.beside_the_bar(|out| match out.0.json {
            // The object says it.
            true => {}
            false => out.error(text),
        });
    }

    fn live(&mut self, live: &Live) {
        let Some(bar) = &self.bar else { return };
        let rate = |bits| self.out.0.format.rate(bits);
        let seconds = |time: Duration| format!("{:.1}", time.as_secs_f64());
        let time = match live.total {
            Some(total) => format!("{} of {} s", seconds(live.elapsed), seconds(total)),
            None => format!("{} s", seconds(live.elapsed)),
        };
        let [sent, received] = live.bits_per_second;
        let figures = match (sent > 0.0, received > 0.0) {
            (true, true) => format!("out {}  in {}", rate(sent), rate(received)),
            (false, true) => rate(received),
            _ => rate(sent),
        };
        bar.set_message(format!("{time}  {figures}"));
        bar.tick();
    }

    fn wants_live(&self) -> bool {
        self.bar.is_some()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What a server in the background says last to whoever started it; the port follows.
pub const LISTENING: &str = "\0listening ";

/// The lines of a server in the background.
pub struct Daemon(pub Terminal);

impl Sink for Daemon {
    fn line(&mut self, text: &str) {
        self.0.line(text);
    }

    fn error(&mut self, text: &str) {
        self.0.error(text);
    }

    fn listening(&mut self, port: u16) {
        let mut stderr = io::stderr().lock();
        let _ = write!(stderr, "{LISTENING}{port}").and_then(|()| stderr.flush());
        // Nobody reads it from here on, and whoever waits for its end is free.
        crate::system::leave_stderr();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_in_front_of_lines_is_written_as_iperf3_writes_it() {
        let at = jiff::civil::date(2026, 11, 1).at(9, 5, 0, 0);
        assert_eq!(at.strftime(&as_in_c("%c ")).to_string(), "Sun Nov  1 09:05:00 2026 ");
        assert_eq!(at.strftime(&as_in_c("%x %X %%c")).to_string(), "11/01/26 09:05:00 %c");
        assert_eq!(as_in_c("100%"), "100%");
    }
}
