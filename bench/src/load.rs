//! The load generator: one thread, level-triggered epoll, closed loop. It is connected to all servers at once and loads
//! one at a time, so that they are measured in turns, on the same machine in the same state.

use crate::measure::{Sample, histogram};
use crate::process::Server;
use hdrhistogram::Histogram;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A server that answers nothing for so long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The connections to one server.
pub struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    buffer: Vec<u8>,
    /// Of how many of the first connections are the messages not counted: they are the disturbance.
    uncounted: usize,
}

struct Connection {
    socket: TcpStream,
    message: Vec<u8>,
    /// Bytes of the message that the system has not taken yet, and of the echo that is still to come.
    unsent: usize,
    missing: usize,
    sent_at: Instant,
}

/// What a slice came to.
pub struct Slice {
    pub messages: u64,
    pub time: Duration,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
}

impl Load {
    pub fn connect(server: &Server, connections: usize, bytes: usize) -> io::Result<Load> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let connections = (0..connections)
            .map(|number| {
                let socket = TcpStream::connect(server.address)?;
                socket.set_nodelay(true)?;
                socket.set_nonblocking(true)?;
                epoll::add(&epoll, &socket, EventData::new_u64(number as u64), EventFlags::IN)?;
                Ok(Connection { socket, message: vec![b'x'; bytes], unsent: 0, missing: 0, sent_at: Instant::now() })
            })
            .collect::<io::Result<_>>()?;
        Ok(Load { epoll, connections, buffer: vec![0; 64 * 1024], uncounted: 0 })
    }

    /// From now on the first connection's messages begin with `letter` and are not counted; `None` ends that.
    pub fn disturb(&mut self, letter: Option<u8>) {
        self.uncounted = usize::from(letter.is_some());
        self.connections[0].message[0] = letter.unwrap_or(b'x');
    }

    /// Every connection sends, waits for the echo and sends again, for `time`; then what is on its way is waited for.
    pub fn slice(&mut self, time: Duration) -> io::Result<Slice> {
        let mut slice = Slice { messages: 0, time, latency: histogram() };
        let begin = Instant::now();
        let mut outstanding = self.connections.len();
        for connection in &mut self.connections {
            connection.send()?;
        }
        let silence = Timespec::try_from(SILENCE_MAX).map_err(io::Error::other)?;
        let mut events = Vec::with_capacity(256);
        while outstanding > 0 {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&silence)) {
                Ok(0) => return Err(io::Error::other(format!("no answer for {SILENCE_MAX:?}"))),
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
            let now = Instant::now();
            let go_on = now - begin < time;
            for event in &events {
                let number = event.data.u64() as usize;
                let connection = &mut self.connections[number];
                if !connection.answered(&mut self.buffer)? {
                    continue;
                }
                // The rate is that of the slice itself: what the drain brings is late because others are silent.
                if number >= self.uncounted {
                    slice.messages += 1;
                    let _ = slice.latency.record(connection.sent_at.elapsed().as_nanos() as u64);
                    slice.time = begin.elapsed();
                }
                if go_on {
                    connection.send()?;
                } else {
                    outstanding -= 1;
                }
            }
        }
        Ok(slice)
    }

    /// A slice with the server's processor time and context switches.
    pub fn measured(&mut self, server: &Server, time: Duration) -> io::Result<Sample> {
        let before = server.usage();
        let slice = self.slice(time).map_err(|error| named(server, error))?;
        let after = server.usage();
        let messages = slice.messages as f64;
        Ok(Sample {
            messages_per_second: Some(messages / slice.time.as_secs_f64()),
            cpu_us_per_message: Some(after.cpu_us_since(before) / messages),
            switches_per_message: Some(after.switches_since(before) / messages),
            latency: Some(slice.latency),
        })
    }

    /// One message at a time on the first connection, `rate` a second.
    pub fn trickle(&mut self, server: &Server, rate: f64, time: Duration) -> io::Result<Sample> {
        let before = server.usage();
        let mut latency = histogram();
        let begin = Instant::now();
        let connection = &mut self.connections[0];
        connection.socket.set_nonblocking(false)?;
        connection.socket.set_read_timeout(Some(SILENCE_MAX))?;
        let mut messages = 0.0;
        let mut answer = vec![0; connection.message.len()];
        while begin.elapsed() < time {
            let sent_at = Instant::now();
            connection.socket.write_all(&connection.message)?;
            connection.socket.read_exact(&mut answer).map_err(|error| named(server, error))?;
            let _ = latency.record(sent_at.elapsed().as_nanos() as u64);
            messages += 1.0;
            let next = begin + Duration::from_secs_f64(messages / rate);
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        connection.socket.set_nonblocking(true)?;
        let after = server.usage();
        Ok(Sample {
            messages_per_second: Some(messages / begin.elapsed().as_secs_f64()),
            cpu_us_per_message: Some(after.cpu_us_since(before) / messages),
            switches_per_message: Some(after.switches_since(before) / messages),
            latency: Some(latency),
        })
    }
}

fn named(server: &Server, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", server.name))
}

impl Connection {
    fn send(&mut self) -> io::Result<()> {
        self.sent_at = Instant::now();
        self.missing = self.message.len();
        self.unsent = self.message.len();
        self.push()
    }

    /// What does not fit now goes out when a part of the echo has come.
    fn push(&mut self) -> io::Result<()> {
        while self.unsent > 0 {
            match self.socket.write(&self.message[self.message.len() - self.unsent..]) {
                Ok(bytes) => self.unsent -= bytes,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has come; true when the echo is complete.
    fn answered(&mut self, buffer: &mut [u8]) -> io::Result<bool> {
        match self.socket.read(buffer) {
            Ok(0) => Err(io::Error::other("the server closed a connection")),
            Ok(bytes) => {
                self.missing = self.missing.saturating_sub(bytes);
                self.push()?;
                Ok(self.missing == 0)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }
}
