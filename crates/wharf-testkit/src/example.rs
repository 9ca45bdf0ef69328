//! Examples, run as their headers say: each is started as a process of its own, talked to, and ended.

use crate::plain::{DEADLINE, eventually};
use crate::process::skipped;
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};

/// A running example. Dropping it kills it, so that a failed test leaves no process behind.
pub struct Example {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Example {
    /// Starts it by its name.
    pub fn start(name: &str, arguments: &[&str]) -> Example {
        let mut child = Command::new(path(name)).args(arguments).stdout(Stdio::piped()).spawn().unwrap();
        let out = BufReader::new(child.stdout.take().unwrap());
        Example { child, out }
    }

    /// Its next line.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.out.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    /// The address in its first line.
    #[track_caller]
    pub fn address(&mut self) -> SocketAddr {
        let line = self.line();
        let address = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("the first line is {line:?}"));
        address.parse().unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for its end, and returns what it has still said.
    pub fn end(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        eventually("the example ends", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let mut rest = String::new();
        self.out.read_to_string(&mut rest).unwrap();
        (status.unwrap(), rest)
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Cargo builds the examples beside the tests, but tells a test nothing about where.
fn path(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let target = test.parent().and_then(|deps| deps.parent()).unwrap();
    let path = target.join("examples").join(name);
    assert!(path.exists(), "{} is missing: build it with `cargo build --examples`", path.display());
    path
}

/// Connects to it.
pub fn client(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

/// Reads until `text` has come, and returns all that came.
#[track_caller]
pub fn read_until(socket: &mut TcpStream, text: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(text) {
        let mut piece = [0; 4096];
        let bytes = socket.read(&mut piece).unwrap();
        assert!(bytes > 0, "the connection ended before {text:?} came, after {:?}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&piece[..bytes]);
    }
    String::from_utf8(seen).unwrap()
}

/// Each example of a package says how to try it, and is in the package's tests, of which this is the text.
///
/// # Panics
///
/// When one does not, or is not.
pub fn all_are_tested(package: &str, tests: &str) {
    let folder = PathBuf::from(package).join("examples");
    if !folder.exists() {
        return skipped("the examples' headers", "the sources are not here");
    }
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let source = std::fs::read_to_string(&path).unwrap();
        assert!(source.contains(&format!("//! `cargo run --example {name}")), "{name} does not say how to try it");
        assert!(tests.contains(&format!("start(\"{name}\"")), "{name} is not tested");
    }
}
