//! The load generator: one thread around epoll, connected to all servers that are compared, which loads one at a time;
//! so they are measured in turns, on the same machine in the same state.
//!
//! *Closed loop*: a fixed number of messages is always under way, and each answer triggers the next message. It finds
//! the peak. *Open loop*: messages leave by a schedule, whether or not earlier ones were answered, and latency counts
//! from the moment that the schedule says; so a server that stalls is charged for everything that it made late (no
//! coordinated omission). It finds latencies.

pub mod chat;
pub mod churn;
mod connection;
pub mod crowd;
mod pace;
pub mod trickle;

pub use pace::Random;

use crate::measure::{Sample, thread_cpu_us};
use crate::stats::histogram;
use crate::system::Server;
use crate::usage::Usage;
use connection::{Connection, Content};
use hdrhistogram::Histogram;
use pace::Schedule;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// A server that answers nothing for so long is taken for dead.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// With a processor of its own the generator does not sleep for less than this: to wake up would take as long.
const NAP_LEAST: Duration = Duration::from_micros(150);
const EVENTS_MAX: usize = 256;
const BUFFER_BYTES: usize = 64 * 1024;

/// The connections to a server.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub connections: usize,
    pub bytes: usize,
    /// Messages under way on each connection, in a closed loop.
    pub depth: usize,
    /// A tenth of the connections carries nine tenths of the messages.
    pub skewed: bool,
    /// Each message names one of this number of blocks of a file, and answers may come in any order.
    pub blocks: Option<u64>,
    /// In a closed loop: how long the generator lets answers gather before it looks at them, which costs it less of a
    /// processor that it shares.
    pub gather: Option<Duration>,
}

impl Shape {
    pub fn new(connections: usize, bytes: usize, depth: usize) -> Shape {
        Shape { connections, bytes, depth, skewed: false, blocks: None, gather: None }
    }
}

/// When messages leave.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    Closed,
    /// So many a second, over all connections.
    Open {
        rate: f64,
        /// Whether the generator has a processor of its own, on which it need not sleep.
        alone: bool,
    },
}

/// The connections, open.
pub struct Load {
    epoll: OwnedFd,
    connections: Vec<Connection>,
    shape: Shape,
    /// How many of the first connections are the disturbance: one message at a time, not counted.
    disturbing: usize,
    random: Random,
    buffer: Vec<u8>,
    answers: Vec<Instant>,
    /// Connections with something to be written, in order.
    dirty: Vec<usize>,
    next: usize,
}

/// What a slice came to.
pub struct Slice {
    pub messages: u64,
    pub time: Duration,
    /// In nanoseconds.
    pub latency: Histogram<u64>,
    pub late: Histogram<u64>,
}

impl Load {
    pub fn connect(server: &Server, shape: Shape) -> io::Result<Load> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let content = Content::of(&shape);
        let connections = (0..shape.connections)
            .map(|number| {
                let connection = Connection::open(server.address, content.clone())?;
                epoll::add(&epoll, &connection.socket, EventData::new_u64(number as u64), EventFlags::IN)?;
                Ok(connection)
            })
            .collect::<io::Result<_>>()
            .map_err(|error| server.named(error))?;
        Ok(Load {
            epoll,
            connections,
            shape,
            disturbing: 0,
            random: Random::new(shape.connections as u64),
            buffer: vec![0; BUFFER_BYTES],
            answers: Vec::new(),
            dirty: Vec::new(),
            next: 0,
        })
    }

    /// From now on the messages of the first `count` connections begin with `letter`, go one at a time, and are not
    /// counted.
    pub fn disturb(&mut self, count: usize, letter: u8) {
        let disturbing = Content::beginning_with(letter, self.shape.bytes);
        let usual = Content::of(&self.shape);
        for (number, connection) in self.connections[..count.max(self.disturbing)].iter_mut().enumerate() {
            connection.content = if number < count { disturbing.clone() } else { usual.clone() };
        }
        self.disturbing = count;
    }

    /// Loads the server for `time`; then what is on its way is waited for.
    pub fn slice(&mut self, work: Work, time: Duration) -> io::Result<Slice> {
        let mut slice = Slice { messages: 0, time, latency: histogram(), late: histogram() };
        let begin = Instant::now();
        let mut schedule = match work {
            Work::Closed => None,
            Work::Open { rate, .. } => Some(Schedule::new(begin, time, rate)),
        };
        let mut outstanding = 0;
        for number in 0..self.disturbing {
            self.queue(number, begin);
            outstanding += 1;
        }
        if schedule.is_none() {
            for number in self.disturbing..self.connections.len() {
                for _ in 0..self.shape.depth {
                    let number = if self.shape.skewed { self.choose() } else { number };
                    self.queue(number, begin);
                    outstanding += 1;
                }
            }
        }
        let mut events = Vec::with_capacity(EVENTS_MAX);
        let gather = self.shape.gather.filter(|_| schedule.is_none());
        loop {
            if let Some(time) = gather {
                std::thread::sleep(time);
            }
            let now = Instant::now();
            if let Some(schedule) = &mut schedule {
                while let Some(due) = schedule.due(now, &mut self.random) {
                    let _ = slice.late.record((now - due).as_nanos() as u64);
                    let number = self.choose();
                    self.queue(number, due);
                    outstanding += 1;
                }
            }
            self.push_all()?;
            let next = schedule.as_ref().and_then(Schedule::next);
            if outstanding == 0 && next.is_none() {
                break;
            }
            if !self.wait(&mut events, next, work)? {
                return Err(io::Error::other(format!("no answer for {SILENCE_MAX:?}")));
            }
            let go_on = Instant::now() - begin < time;
            for event in &events {
                let number = event.data.u64() as usize;
                self.connections[number].receive(&mut self.buffer, &mut self.answers)?;
                let now = Instant::now();
                let is_counted = number >= self.disturbing;
                let mut answers = std::mem::take(&mut self.answers);
                for sent_at in answers.drain(..) {
                    outstanding -= 1;
                    if is_counted {
                        slice.messages += 1;
                        let _ = slice.latency.record((now - sent_at).as_nanos() as u64);
                        // The rate is that of the slice itself: what the drain brings is late because others are
                        // silent.
                        slice.time = now - begin;
                    }
                    if go_on && (schedule.is_none() || !is_counted) {
                        let next = if is_counted && self.shape.skewed { self.choose() } else { number };
                        self.queue(next, now);
                        outstanding += 1;
                    }
                }
                self.answers = answers;
                if !self.shape.skewed {
                    self.push_all()?;
                }
            }
        }
        slice.time = slice.time.max(Duration::from_micros(1));
        Ok(slice)
    }

    /// A connection for the next message.
    fn choose(&mut self) -> usize {
        let all = self.connections.len();
        if self.shape.skewed {
            let hot = (all / 10).max(1);
            return match self.random.below(10) {
                0 if hot < all => hot + self.random.below((all - hot) as u64) as usize,
                _ => self.random.below(hot as u64) as usize,
            };
        }
        self.next = if self.next + 1 < all { self.next + 1 } else { self.disturbing };
        self.next
    }

    fn queue(&mut self, number: usize, intended: Instant) {
        let connection = &mut self.connections[number];
        connection.queue(intended, &mut self.random);
        if !std::mem::replace(&mut connection.is_dirty, true) {
            self.dirty.push(number);
        }
    }

    fn push_all(&mut self) -> io::Result<()> {
        let mut dirty = std::mem::take(&mut self.dirty);
        for number in dirty.drain(..) {
            self.push(number)?;
        }
        self.dirty = dirty;
        Ok(())
    }

    /// What does not fit now goes out when the system says that there is room.
    fn push(&mut self, number: usize) -> io::Result<()> {
        let connection = &mut self.connections[number];
        connection.is_dirty = false;
        let blocked = !connection.push()?;
        if blocked != connection.waits_for_room {
            connection.waits_for_room = blocked;
            let flags = if blocked { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(&self.epoll, &connection.socket, EventData::new_u64(number as u64), flags)?;
        }
        Ok(())
    }

    /// False: nothing has happened for too long.
    fn wait(&mut self, events: &mut Vec<epoll::Event>, next: Option<Instant>, work: Work) -> io::Result<bool> {
        let timeout = match next {
            None => SILENCE_MAX,
            Some(next) => {
                let left = next.saturating_duration_since(Instant::now());
                let alone = matches!(work, Work::Open { alone: true, .. });
                if alone && left < NAP_LEAST { Duration::ZERO } else { left }
            }
        };
        events.clear();
        let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
        let count = match epoll::wait(&self.epoll, spare_capacity(events), Some(&timeout)) {
            Ok(count) => count,
            Err(rustix::io::Errno::INTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        for event in events.iter().filter(|event| { event.flags }.contains(EventFlags::OUT)) {
            let number = event.data.u64() as usize;
            self.push(number)?;
        }
        events.retain(|event| { event.flags }.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR));
        Ok(count > 0 || next.is_some())
    }

    /// One message and its answer, on the first connection.
    pub fn one(&mut self, intended: Instant) -> io::Result<Duration> {
        self.queue(0, intended);
        self.push_all()?;
        let mut events = Vec::with_capacity(1);
        loop {
            if !self.wait(&mut events, None, Work::Closed)? {
                return Err(io::Error::other(format!("no answer for {SILENCE_MAX:?}")));
            }
            self.connections[0].receive(&mut self.buffer, &mut self.answers)?;
            if let Some(sent_at) = self.answers.pop() {
                return Ok(sent_at.elapsed());
            }
        }
    }

    /// A slice with what the server and the generator used for it.
    pub fn measured(&mut self, server: &Server, work: Work, time: Duration) -> io::Result<Sample> {
        measured(server, || self.slice(work, time))
    }
}

/// What the server and the generator used for a slice.
pub fn measured(server: &Server, slice: impl FnOnce() -> io::Result<Slice>) -> io::Result<Sample> {
    let before = server.usage();
    let (begin, own) = (Instant::now(), thread_cpu_us());
    let slice = slice().map_err(|error| server.named(error))?;
    let (elapsed, own) = (begin.elapsed(), thread_cpu_us() - own);
    let used = server.usage().since(before);
    Ok(sample(&slice, used, own / elapsed.as_secs_f64() / 1e6))
}

fn sample(slice: &Slice, used: Usage, generator_share: f64) -> Sample {
    let messages = slice.messages as f64;
    Sample {
        messages_per_second: Some(messages / slice.time.as_secs_f64()),
        cpu_us_per_message: Some(used.cpu_us() / messages),
        switches_per_message: Some(used.switches as f64 / messages),
        wakeups_per_message: Some(used.wakeups as f64 / messages),
        latency: Some(slice.latency.clone()),
        generator_share: Some(generator_share),
        late: (!slice.late.is_empty()).then(|| slice.late.clone()),
    }
}
