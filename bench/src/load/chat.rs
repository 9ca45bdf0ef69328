//! A chat's members, and one of them who speaks: a line at a time, or as fast as the server takes them. A message is a
//! delivery: a line that has reached a member. In a flood lines are numbered: a member who has heard a line, and fewer
//! lines before it than were said, has lost the others.

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
/// The letters that a line begins with, its number.
const NUMBER_LETTERS: usize = 8;
/// Lines that the speaker writes with one call, when it floods.
const FLOOD_BYTES: usize = 16 * 1024;

pub struct Room {
    epoll: OwnedFd,
    members: Vec<TcpStream>,
    /// Bytes that each of them has received.
    received: Vec<u64>,
    /// The first and the last numbered line that each of them has heard and looked at: the number, and how many lines
    /// it had heard before.
    heard: Vec<Option<[(u64, u64); 2]>>,
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
        number(&mut line, line_bytes - 1, &mut 0);
        line.push(b'\n');
        let (received, heard) = (vec![0; members.len()], vec![None; members.len()]);
        let mut room = Room { epoll, received, heard, members, line, buffer: vec![0; BUFFER_BYTES] };
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
                self.note_number(number, bytes);
                self.received[number] += bytes as u64;
                Ok(bytes as u64)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(0),
            Err(error) => Err(error),
        }
    }

    /// Looks at the number of the last line that begins in what a member has just received.
    fn note_number(&mut self, member: usize, bytes: usize) {
        let (line, before) = (self.line.len(), self.received[member]);
        let first = (line - (before % line as u64) as usize) % line;
        let Some(room) = bytes.checked_sub(first + NUMBER_LETTERS) else { return };
        let at = first + room / line * line;
        let letters = &self.buffer[at..at + NUMBER_LETTERS];
        let number = letters.iter().fold(0, |number, &letter| number * 26 + u64::from(letter.wrapping_sub(b'a')));
        // Number 0 was said before.
        if number > 0 {
            let this = (number, (before + at as u64) / line as u64);
            self.heard[member].get_or_insert([this; 2])[1] = this;
        }
    }

    /// Of how many numbered lines, taken over all members, how many were lost in a flood.
    pub fn lost(&self) -> (u64, u64) {
        let each = self.heard.iter().flatten().map(|[first, last]| (last.0 - first.0, last.1 - first.1));
        each.fold((0, 0), |(lost, all), (said, heard)| (lost + said.saturating_sub(heard), all + said))
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

    /// The speaker does not wait for anybody. Then it is silent, and what is on its way is heard, for five times as
    /// long and as long as something comes: it has cost the server its time, and a fast one has more of it on its way.
    /// What is left stays there: the server should be ended.
    pub fn flood(&mut self, time: Duration) -> io::Result<Slice> {
        let mut slice = Slice { messages: 0, time, latency: histogram(), late: histogram() };
        let mut lines = self.line.repeat((FLOOD_BYTES / self.line.len()).max(1));
        let (mut said, mut next) = (0, 1);
        number(&mut lines, self.line.len(), &mut next);
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
                    Ok(bytes) => {
                        said += bytes;
                        if said % lines.len() == 0 {
                            number(&mut lines, self.line.len(), &mut next);
                        }
                    }
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                    Err(error) => return Err(error),
                }
            }
            heard += self.hear(&events)?;
        }
        slice.time = begin.elapsed();
        epoll::modify(&self.epoll, &self.members[0], EventData::new_u64(0), EventFlags::IN)?;
        while begin.elapsed() < 6 * time && self.wait(&mut events, QUIET)? {
            heard += self.hear(&events)?;
            slice.time = begin.elapsed();
        }
        // What lies in the members' sockets was delivered, too; once around, for the server goes on.
        for number in 0..self.members.len() {
            heard += self.hear_one(number)?;
        }
        slice.messages = heard / self.line.len() as u64;
        Ok(slice)
    }
}

/// Numbers lines from `next` on.
fn number(lines: &mut [u8], length: usize, next: &mut u64) {
    for line in lines.chunks_exact_mut(length) {
        let mut rest = *next;
        for letter in line[..NUMBER_LETTERS].iter_mut().rev() {
            *letter = b'a' + (rest % 26) as u8;
            rest /= 26;
        }
        *next += 1;
    }
}
