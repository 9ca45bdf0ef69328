//! The program as the test files run it: started, heard line by line, signalled, and waited for.

// Each test file uses a part of this.
#![allow(dead_code)]

use rustix::process::{Pid, Signal, kill_process};
use std::io::{self, BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// After so long a test that waits is stuck.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// The program with these arguments.
pub fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(arguments).env_remove("RUST_LOG");
    command
}

/// The lines of one pipe, read as they come, so that whoever writes them is never held up.
#[derive(Default)]
struct Heard {
    lines: Mutex<Lines>,
    changed: Condvar,
}

#[derive(Default)]
struct Lines {
    all: Vec<String>,
    /// Those that a test has taken.
    taken: usize,
    ended: bool,
}

impl Heard {
    fn listen(from: impl Read + Send + 'static) -> (Arc<Heard>, JoinHandle<()>) {
        let heard = Arc::new(Heard::default());
        let into = heard.clone();
        let reader = thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
                into.lines.lock().unwrap().all.push(String::from_utf8_lossy(&line).into_owned());
                into.changed.notify_all();
            }
            into.lines.lock().unwrap().ended = true;
            into.changed.notify_all();
        });
        (heard, reader)
    }

    /// The next line with these words.
    #[track_caller]
    fn next(&self, words: &str) -> String {
        let until = Instant::now() + DEADLINE;
        let mut lines = self.lines.lock().unwrap();
        loop {
            while let Some(line) = lines.all.get(lines.taken).cloned() {
                lines.taken += 1;
                if line.contains(words) {
                    return line;
                }
            }
            assert!(!lines.ended, "it has ended, and not said {words:?}: {:#?}", lines.all);
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{words:?} was not said in time: {:#?}", lines.all);
            lines = self.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    fn rest(&self) -> Vec<String> {
        let mut lines = self.lines.lock().unwrap();
        let rest = lines.all[lines.taken..].to_vec();
        lines.taken = lines.all.len();
        rest
    }
}

/// The running program. Dropping it kills it, so that a failed test leaves no process behind.
pub struct Wharf {
    pub child: Child,
    out: Arc<Heard>,
    errors: Arc<Heard>,
    readers: Vec<JoinHandle<()>>,
}

/// What it had still to say, and how it ended.
pub struct End {
    pub status: ExitStatus,
    pub code: Option<i32>,
    pub out: Vec<String>,
    pub errors: Vec<String>,
}

impl Wharf {
    pub fn start(arguments: &[&str]) -> Wharf {
        Wharf::spawn(&mut command(arguments)).unwrap()
    }

    pub fn spawn(command: &mut Command) -> io::Result<Wharf> {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let (out, out_reader) = Heard::listen(child.stdout.take().unwrap());
        let (errors, error_reader) = Heard::listen(child.stderr.take().unwrap());
        Ok(Wharf { child, out, errors, readers: vec![out_reader, error_reader] })
    }

    /// The next line on standard output.
    #[track_caller]
    pub fn line(&self) -> String {
        self.out.next("")
    }

    /// The next line on standard error.
    #[track_caller]
    pub fn error(&self) -> String {
        self.errors.next("")
    }

    /// The next line on standard output with these words.
    #[track_caller]
    pub fn says(&self, words: &str) -> String {
        self.out.next(words)
    }

    /// The next line on standard error with these words.
    #[track_caller]
    pub fn complains(&self, words: &str) -> String {
        self.errors.next(words)
    }

    /// All that it has said on standard error so far.
    pub fn complaints(&self) -> Vec<String> {
        self.errors.lines.lock().unwrap().all.clone()
    }

    /// Where a server or a relay listens, which it says first.
    #[track_caller]
    pub fn listening_on(&self) -> String {
        let line = self.line();
        line.strip_prefix("listening on ").unwrap_or_else(|| panic!("the first line is {line:?}")).to_owned()
    }

    /// The same, if it is TCP.
    #[track_caller]
    pub fn address(&self) -> SocketAddr {
        self.listening_on().parse().unwrap()
    }

    /// Where `perf serve` listens.
    #[track_caller]
    pub fn perf_port(&self) -> u16 {
        let line = self.says("Server listening on ");
        line.split(' ').nth(3).and_then(|port| port.parse().ok()).unwrap_or_else(|| panic!("no port: {line:?}"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    #[track_caller]
    pub fn end_by(self, signal: Signal) -> End {
        self.signal(signal);
        self.end()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(mut self) -> End {
        let until = Instant::now() + DEADLINE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < until, "it does not end: {:#?}", self.complaints()),
            }
            thread::sleep(Duration::from_millis(1));
        };
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        End { status, code: status.code(), out: self.out.rest(), errors: self.errors.rest() }
    }
}

impl Drop for Wharf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
