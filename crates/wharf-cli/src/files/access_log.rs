//! The access log, in the common log format. A thread of its own writes it: no worker waits for a disk or a terminal,
//! but for a log that cannot be written as fast as requests come.

use super::clock::Date;
use std::fs::OpenOptions;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};

/// Lines that may wait to be written.
const LINES_MAX: usize = 16 * 1024;
/// Bytes of a request line that are kept.
const LINE_BYTES_MAX: usize = 1024;

#[derive(Debug)]
pub struct AccessLog {
    lines: SyncSender<Vec<u8>>,
}

/// Writes what is left when the last [`AccessLog`] has gone.
#[derive(Debug)]
pub struct Writer(JoinHandle<()>);

impl AccessLog {
    /// `-` is the standard output. A file is appended to.
    pub fn open(path: &Path) -> io::Result<(AccessLog, Writer)> {
        let target: Box<dyn Write + Send> = if path.as_os_str() == "-" {
            Box::new(io::stdout())
        } else {
            Box::new(OpenOptions::new().append(true).create(true).open(path)?)
        };
        let (lines, waiting) = sync_channel(LINES_MAX);
        let writer = thread::Builder::new().name("wharf-log".into()).spawn(move || write(target, &waiting))?;
        Ok((AccessLog { lines }, Writer(writer)))
    }

    pub fn add(&self, line: Vec<u8>) {
        if let Err(TrySendError::Full(line)) = self.lines.try_send(line) {
            let _ = wharf::blocking(|| self.lines.send(line));
        }
    }
}

impl Writer {
    pub fn finish(self) {
        let _ = self.0.join();
    }
}

fn write(target: Box<dyn Write + Send>, lines: &Receiver<Vec<u8>>) {
    let mut target = BufWriter::with_capacity(64 * 1024, target);
    let mut failed = false;
    while let Ok(line) = lines.recv() {
        let mut written = target.write_all(&line);
        // All that waits, and then out with it: who reads along sees it at once.
        while let Ok(line) = lines.try_recv() {
            written = written.and_then(|()| target.write_all(&line));
        }
        if let Err(error) = written.and_then(|()| target.flush()) {
            if !std::mem::replace(&mut failed, true) {
                log::error!("the access log cannot be written: {error}; requests go on, unlogged");
            }
        }
    }
}

/// A line up to the number of bytes, which is known at the end only.
pub fn begin(peer: IpAddr, date: &Date, request: &[u8], status: u16) -> Vec<u8> {
    let mut line = Vec::with_capacity(96 + request.len());
    // "Sun, 06 Nov 1994 08:49:37 GMT" has all that is needed.
    let part = |from: usize, to: usize| str::from_utf8(&date[from..to]).unwrap_or_default();
    let (day, month, year, time) = (part(5, 7), part(8, 11), part(12, 16), part(17, 25));
    let _ = write!(line, "{peer} - - [{day}/{month}/{year}:{time} +0000] \"");
    for &byte in request.iter().take(LINE_BYTES_MAX) {
        match byte {
            b'"' | b'\\' => line.extend([b'\\', byte]),
            b' '..=b'~' => line.push(byte),
            // Nothing a terminal or a reader of logs would act upon.
            _ => drop(write!(line, "\\x{byte:02x}")),
        }
    }
    let _ = write!(line, "\" {status} ");
    line
}

/// `bytes`: behind the head.
pub fn end(mut line: Vec<u8>, bytes: u64) -> Vec<u8> {
    let _ = if bytes == 0 { line.write_all(b"-\n") } else { writeln!(line, "{bytes}") };
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_one_line_whatever_was_asked_for() {
        let peer = "127.0.0.1".parse().unwrap();
        let date = *b"Sun, 06 Nov 1994 08:49:37 GMT";
        let line = |request: &[u8], bytes| String::from_utf8(end(begin(peer, &date, request, 200), bytes)).unwrap();
        let start = "127.0.0.1 - - [06/Nov/1994:08:49:37 +0000] ";
        assert_eq!(line(b"GET / HTTP/1.1", 12), format!("{start}\"GET / HTTP/1.1\" 200 12\n"));
        assert_eq!(line(b"G \"\\\n\x1b[1m\xff", 0), format!("{start}\"G \\\"\\\\\\x0a\\x1b[1m\\xff\" 200 -\n"));
        assert!(line(&[b'x'; 100_000], 0).len() < 1200);
    }
}
