//! A system: a server program with its options. And a running one.

use crate::peers;
use crate::process::{Running, command};
use crate::usage::{Usage, resident_bytes};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, ErrorKind, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, ChildStdout, Stdio};

/// How long an answer on the standard output may take. A busy server answers late, a peer in C++ does not answer.
const ANSWER: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The status with which a peer says that it does not have what it was asked for.
const UNSUPPORTED: i32 = 2;

/// What can be started.
#[derive(Clone, Debug)]
pub struct System {
    pub name: String,
    program: Program,
    arguments: Vec<String>,
}

#[derive(Clone, Debug)]
enum Program {
    /// The lab itself.
    Own,
    /// A peer, which was built.
    Peer(&'static str),
    Other(PathBuf),
}

impl System {
    /// One of wharf's own servers; `options` are those after `serve`.
    pub fn wharf(name: &str, options: &str) -> System {
        let arguments = ["child", "serve"].into_iter().chain(options.split_whitespace()).map(str::to_owned).collect();
        System { name: name.into(), program: Program::Own, arguments }
    }

    /// A peer; `options` begin with its kind.
    pub fn peer(name: &str, program: &'static str, options: &str) -> System {
        let arguments = options.split_whitespace().map(str::to_owned).collect();
        System { name: name.into(), program: Program::Peer(program), arguments }
    }

    /// Any program that tells where it listens.
    pub fn other(name: &str, program: &Path, arguments: &[&str]) -> System {
        let arguments = arguments.iter().map(|&argument| argument.to_owned()).collect();
        System { name: name.into(), program: Program::Other(program.to_owned()), arguments }
    }

    /// Another build of the lab, with the options of [`wharf`](System::wharf).
    pub fn other_build(name: &str, program: &Path, options: &str) -> System {
        System { program: Program::Other(program.to_owned()), ..System::wharf(name, options) }
    }

    /// The same with one argument more, which may have spaces.
    pub fn with(mut self, option: &str, value: &Path) -> System {
        self.arguments.extend([option.to_owned(), value.to_string_lossy().into_owned()]);
        self
    }

    /// Starts it, where servers run. [`ErrorKind::Unsupported`]: it is not built, or does not have what it was asked
    /// for.
    pub fn start(&self) -> io::Result<Server> {
        let missing = || io::Error::new(ErrorKind::Unsupported, "not built");
        let program = match &self.program {
            Program::Own => std::env::current_exe()?,
            Program::Peer(name) => peers::program(name).ok_or_else(missing)?,
            Program::Other(path) => path.clone(),
        };
        let mut child = command(&program, &self.arguments)?.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let (input, output) = (child.stdin.take(), child.stdout.take());
        let mut running = Running(child);
        let mut line = String::new();
        let mut output = BufReader::new(output.ok_or_else(|| io::Error::other("no output"))?);
        output.read_line(&mut line)?;
        let address = line.trim().rsplit(' ').next().and_then(|address| address.parse().ok());
        let Some(address) = address else {
            if running.0.wait()?.code() == Some(UNSUPPORTED) {
                return Err(io::Error::new(ErrorKind::Unsupported, "it does not have that"));
            }
            return Err(io::Error::other(format!("it did not say where it listens: {line:?}")));
        };
        let streams = input.map(|input| RefCell::new((input, output)));
        Ok(Server { name: self.name.clone(), address, running, streams })
    }
}

/// A running server. It ends when this is dropped.
pub struct Server {
    pub name: String,
    pub address: SocketAddr,
    running: Running,
    /// Its standard input and output, where we may ask.
    streams: Option<RefCell<(ChildStdin, BufReader<ChildStdout>)>>,
}

impl Server {
    /// A program that does not say where it listens, and cannot be asked.
    pub fn silent(name: &str, program: &Path, arguments: &[String], address: SocketAddr) -> io::Result<Server> {
        let child = command(program, arguments)?.stdout(Stdio::null()).spawn()?;
        Ok(Server { name: name.into(), address, running: Running(child), streams: None })
    }

    pub fn id(&self) -> u32 {
        self.running.id()
    }

    pub fn usage(&self) -> Usage {
        Usage::of(self.id())
    }

    pub fn resident_bytes(&self) -> Option<f64> {
        resident_bytes(self.id())
    }

    /// What it has allocated and not freed, if it counts that.
    pub fn heap_bytes(&self) -> Option<f64> {
        let mut streams = self.streams.as_ref()?.borrow_mut();
        let (input, output) = &mut *streams;
        input.write_all(b"heap\n").ok()?;
        let mut descriptors = [PollFd::new(output.get_ref(), PollFlags::IN)];
        if !poll(&mut descriptors, Some(&ANSWER)).is_ok_and(|ready| ready > 0) {
            return None;
        }
        let mut line = String::new();
        output.read_line(&mut line).ok()?;
        line.trim().strip_prefix("heap ")?.parse().ok()
    }

    /// An error that says whose it is.
    pub fn named(&self, error: io::Error) -> io::Error {
        io::Error::new(error.kind(), format!("{}: {error}", self.name))
    }
}
