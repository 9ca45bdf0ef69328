//! A connection of a loop around readiness: it echoes, and keeps what the system does not take at once.

use crate::{Messages, Options, spin};
use std::io::{self, ErrorKind, Read, Write};
use std::time::Duration;

pub struct Connection<S> {
    pub socket: S,
    /// While there is any of it, nothing more is read.
    unsent: Vec<u8>,
    spin: Option<(Messages, Duration)>,
}

/// What a step came to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// The buffer was filled: there may be more.
    Filled,
    /// It was not filled: nothing more was there.
    Short,
    /// There was nothing to read.
    Nothing,
    /// There are bytes that the system does not take now.
    Stuck,
}

impl<S: Read + Write> Connection<S> {
    /// For the kinds echo and spin.
    pub fn new(socket: S, options: &Options) -> Connection<S> {
        let spin = (options.kind == "spin").then(|| (Messages::new(options.size()), options.spin()));
        Connection { socket, unsent: Vec::new(), spin }
    }

    /// Sends what is left over, reads once, and answers; `None` at the end of the stream.
    pub fn step(&mut self, buffer: &mut [u8]) -> io::Result<Option<Progress>> {
        if !self.unsent.is_empty() {
            let sent = write(&mut self.socket, &self.unsent)?;
            self.unsent.drain(..sent);
            if !self.unsent.is_empty() {
                return Ok(Some(Progress::Stuck));
            }
        }
        let bytes = match self.socket.read(buffer) {
            Ok(0) => return Ok(None),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(Some(Progress::Nothing)),
            Err(error) => return Err(error),
        };
        let Connection { socket, unsent, spin: work } = self;
        match work {
            None => send(socket, unsent, &buffer[..bytes])?,
            Some((messages, time)) => messages.each(&buffer[..bytes], |message| {
                spin(*time);
                send(socket, unsent, message)
            })?,
        }
        Ok(Some(match (unsent.is_empty(), bytes == buffer.len()) {
            (false, _) => Progress::Stuck,
            (true, true) => Progress::Filled,
            (true, false) => Progress::Short,
        }))
    }
}

fn send(socket: &mut impl Write, unsent: &mut Vec<u8>, bytes: &[u8]) -> io::Result<()> {
    let sent = if unsent.is_empty() { write(socket, bytes)? } else { 0 };
    unsent.extend_from_slice(&bytes[sent..]);
    Ok(())
}

fn write(socket: &mut impl Write, bytes: &[u8]) -> io::Result<usize> {
    match socket.write(bytes) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
        result => result,
    }
}
