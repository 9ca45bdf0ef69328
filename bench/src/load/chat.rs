//! A chat's members, and one of them who speaks: a line at a time, or as fast as the server takes them. A message is a
//! delivery: a line that has reached a member.

use super::{SILENCE_MAX, Slice};
use crate::stats::histogram;
use crate::system::Server;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

const EVENTS_MAX: usize = 256;
/// Who has heard nothing for so long has heard everything.
const QUIET: Duration = Duration::from_millis(30);
const BUFFER_BYTES: usize = 64 * 1024;
/// Lines that the speaker writes with one call, when it floods.
const FLOOD_BYTES: usize = 16 * 1024;

pub struct Room {
    epoll: OwnedFd,
    members: Vec<TcpStream>,
    /// Bytes that each of them has received.
    received: Vec<u64>,
    line: Vec<u8>,
    buffer: Vec<u8>,
}

impl Room {
    /// Everybody is there, and has heard the first line.
    pub fn enter(server: &Server, members: usize, line_bytes: usize) -> io::Result<Room> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let members = (0..members)
            .map(|number| {
                let socket = TcpStream::connect(server.address)?;
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                epoll::add(&epoll, &socket, EventData::new_u64(number as u64), EventFlags::IN)?;
                Ok(socket)
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(|error| server.named(error))?;
        let mut line: Vec<u8> = (0..line_bytes - 1).map(|at| b'a' + (at % 26) as u8).collect();
        line.push(b'\n');
        let mut room = Room { epoll, received: vec![0; members.len()], members, line, buffer: vec![0; BUFFER_BYTES] };
        room.gather().map_err(|error| server.named(error))?;
        Ok(room)
    }

    /// The server may still be taking connections: a line is said again and again until every member has heard one.
    fn gather(&mut self) -> io::Result<()> {
        let begin = Instant::now();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        while self.received.contains(&0) {
            if begin.elapsed() > SILENCE_MAX {
                return Err(io::Error::other("not every member hears what is said"));
            }
            self.say()?;
            while self.wait(&mut events, Duration::from_millis(5))? {
                self.hear(&events)?;
            }
        }
        // Until nothing is on its way any more, and nobody has heard half a line.
        while self.wait(&mut events, QUIET)? {
            self.hear(&events)?;
        }
        if self.received.iter().any(|bytes| bytes % self.line.len() as u64 != 0) {
            return Err(io::Error::other("a member heard half a line"));
        }
        self.received.fill(0);
        Ok(())
    }

    fn say(&mut self) -> io::Result<()> {
        let mut line = &self.line[..];
        while !line.is_empty() {
            match (&self.members[0]).write(line) {
                Ok(bytes) => line = &line[bytes..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&self, events: &mut Vec<epoll::Event>, timeout: Duration) -> io::Result<bool> {
        events.clear();
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(count) => Ok(count > 0),
            Err(rustix::io::Errno::INTR) => Ok(true),
            Err(error) => Err(error.into()),
        }
    }

    /// Reads what has come; returns the bytes.
    fn hear(&mut self, events: &[epoll::Event]) -> io::Result<u64> {
        let mut total = 0;
        for event in events.iter().filter(|event| !{ event.flags }.difference(EventFlags::OUT).is_empty()) {
            total += self.hear_one(event.data.u64() as usize)?;
        }
        Ok(total)
    }

    fn hear_one(&mut self, number: usize) -> io::Result<u64> {
        match (&self.members[number]).read(&mut self.buffer) {
            Ok(0) => Err(io::Error::other("the server closed a connection")),
            Ok(bytes) => {
                // What comes has the bytes of lines, wherever in one it begins.
                let wrong = |&byte: &u8| byte != b'\n' && !byte.is_ascii_lowercase();
                if self.buffer[..bytes.min(64)].iter().any(wrong) {
                    return Err(io::Error::other("a member heard what was not said"));
                }
                self.received[number] += bytes as u64;
                Ok(bytes as u64)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// The next line is said when everybody has heard the last. Latency is that of each delivery.
    pub fn one_at_a_time(&mut self, time: Duration) -> io::Result<Slice> {
        let mut slice = Slice { messages: 0, time, latency: histogram(), late: histogram() };
        let bytes = self.line.len() as u64;
        let begin = Instant::now();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        self.received.fill(0);
        while begin.elapsed() < time {
            let said_at = Instant::now();
            self.say()?;
            let mut missing = self.members.len();
            while missing > 0 {
                if !self.wait(&mut events, SILENCE_MAX)? {
                    return Err(io::Error::other(format!("no line for {SILENCE_MAX:?}")));
                }
                for event in &events {
                    let number = event.data.u64() as usize;
                    self.hear_one(number)?;
                    if self.received[number] >= bytes {
                        self.received[number] -= bytes;
                        missing -= 1;
                        slice.messages += 1;
                        let _ = slice.latency.record(said_at.elapsed().as_nanos() as u64);
                    }
                }
            }
            slice.time = begin.elapsed();
        }
        Ok(slice)
    }

    /// The speaker does not wait for anybody. What is on its way at the end stays there: the server should be ended.
    pub fn flood(&mut self, time: Duration) -> io::Result<Slice> {
        let mut slice = Slice { messages: 0, time, latency: histogram(), late: histogram() };
        let lines = self.line.repeat((FLOOD_BYTES / self.line.len()).max(1));
        let mut said = 0;
        let flags = EventFlags::IN | EventFlags::OUT;
        epoll::modify(&self.epoll, &self.members[0], EventData::new_u64(0), flags)?;
        let begin = Instant::now();
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let mut heard = 0;
        while begin.elapsed() < time {
            if !self.wait(&mut events, SILENCE_MAX)? {
                return Err(io::Error::other(format!("no line for {SILENCE_MAX:?}")));
            }
            let room = |event: &epoll::Event| event.data.u64() == 0 && { event.flags }.contains(EventFlags::OUT);
            if events.iter().any(room) {
                match (&self.members[0]).write(&lines[said % lines.len()..]) {
                    Ok(bytes) => said += bytes,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            heard += self.hear(&events)?;
        }
        slice.time = begin.elapsed();
        // What lies in the members' sockets was delivered, too; once around, for the server goes on.
        for number in 0..self.members.len() {
            heard += self.hear_one(number)?;
        }
        slice.messages = heard / self.line.len() as u64;
        Ok(slice)
    }
}
