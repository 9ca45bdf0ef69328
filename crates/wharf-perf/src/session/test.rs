//! One test at one end, from its streams to its report: what client and server do alike. What differs between them, and
//! where the control connection stands, is their own.
//!
//! All of it is under the lock of whoever owns it, which the data path does not take. Its streams are closed under that
//! lock. Lines for the log are put down under it and let out without it, by the owner.

use super::connection::Connection;
use super::purpose::{Alarm, Purpose};
use super::timers::Timers;
use crate::measure::figures::{DiskFile, End, Interval, Role, Start, StreamEnd, StreamInfo};
use crate::measure::measurement::Measurement;
use crate::protocol::parameters::{Parameters, Protocol, stream_id};
use crate::protocol::results::Results;
use crate::protocol::{Cookie, Failure};
use crate::report::log::{Live, Log};
use crate::report::printer::Printer;
use crate::report::sides::Sides;
use crate::stream::base::Carrier;
use crate::stream::payload::Payload;
use crate::stream::pings::Pings;
use crate::stream::send_control::{SendControl, Watcher};
use crate::stream::streams::{Streams, TestStream};
use crate::surroundings::port::{File, Op, Owner, Port};
use crate::surroundings::processor::Processor;
use crate::surroundings::system;
use serde_json::Value;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

/// How long a broken or finished control connection is read before it is closed, so that no reset destroys what was
/// sent.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// Between two figures on a live line.
const LIVE: Duration = Duration::from_millis(250);
/// Looks at whether anything moves are a quarter of the receive timeout apart, within these bounds.
const WATCH_MIN: Duration = Duration::from_millis(20);
const WATCH_MAX: Duration = Duration::from_secs(1);

/// One phase of a test as it is reported.
pub(crate) struct Told {
    pub(crate) start: Start,
    pub(crate) end: End,
    pub(crate) intervals: Vec<Interval>,
}

/// One test at one end.
pub(crate) struct TestSession {
    pub(crate) port: Port,
    pub(crate) cookie: Cookie,
    pub(crate) log: Arc<Log>,
    role: Role,
    owner: Weak<dyn Owner>,
    watcher: Weak<dyn Watcher>,
    pub(crate) connection: Connection,
    pub(crate) timers: Timers,
    pub(crate) parameters: Parameters,
    /// Whom the reports name.
    pub(crate) host: String,
    pub(crate) host_port: u16,
    pub(crate) interval: Duration,
    pub(crate) receive_timeout: Duration,
    /// What moves the bytes.
    pub(crate) engine: String,
    /// What is sent from or received into, and how it is called.
    pub(crate) file: Option<(File, String)>,
    pub(crate) printer: Printer,
    // What follows belongs to one phase of a test of two.
    /// What the streams have in common.
    pub(crate) send_control: Arc<SendControl>,
    pub(crate) streams: Streams,
    payload: Option<Payload>,
    pub(crate) pings: Option<Arc<Pings>>,
    pub(crate) measurement: Measurement,
    /// The processors' time when the test began.
    pub(crate) processor: Processor,
    congestion: Option<String>,
    pub(crate) start: Option<Start>,
    /// A client's; a server's are only told.
    intervals: Vec<Interval>,
    /// What the peer told.
    pub(crate) remote: Option<Results>,
    pub(crate) end: Option<End>,
    // And this to both.
    /// The first phase, once the second has begun.
    pub(crate) first: Option<Told>,
    pub(crate) failure: Option<Failure>,
}

impl TestSession {
    pub(crate) fn new<O: Owner + Watcher + 'static>(
        port: &Port,
        role: Role,
        cookie: Cookie,
        log: &Arc<Log>,
        printer: Printer,
        owner: &Weak<O>,
    ) -> TestSession {
        TestSession {
            port: port.clone(),
            cookie,
            log: log.clone(),
            role,
            owner: owner.clone(),
            watcher: owner.clone(),
            connection: Connection::new(owner.clone()),
            timers: Timers::new(port, owner.clone()),
            parameters: Parameters::default(),
            host: String::new(),
            host_port: 0,
            interval: Duration::from_secs(1),
            receive_timeout: Duration::from_secs(120),
            engine: port.stats().engine.to_owned(),
            file: None,
            printer,
            send_control: SendControl::new(owner.clone(), 1),
            streams: Streams::default(),
            payload: None,
            pings: None,
            measurement: Measurement::new(Instant::now()),
            processor: Processor::now(),
            congestion: None,
            start: None,
            intervals: Vec::new(),
            remote: None,
            end: None,
            first: None,
            failure: None,
        }
    }

    /// The context of an operation for this purpose.
    pub(crate) fn op(&self, purpose: Purpose) -> Op {
        // The owner is alive: it is who calls.
        self.owner.upgrade().map_or(Op::Nothing, |owner| Op::Of(owner, purpose.tag()))
    }

    // --- The beginning ---

    /// A stream is there.
    pub(crate) fn add_stream(&mut self, carrier: Carrier, local: SocketAddr, peer: SocketAddr) {
        let index = self.streams.len();
        let sends = self.parameters.client_sends(index) == (self.role == Role::Client);
        let info = StreamInfo { id: stream_id(index), sends, local, peer };
        let payload = self.payload.get_or_insert_with(|| Payload::new(&self.parameters, &self.cookie));
        let file = self.file.as_ref().map(|(file, _)| file.clone());
        self.streams.add(TestStream::new(info, carrier, &self.send_control, &self.parameters, payload, file));
    }

    /// All streams are there, and the test begins.
    pub(crate) fn begin(&mut self) {
        let now = Instant::now();
        let streams = self.streams.infos();
        let tcp = self.streams.iter().next().and_then(TestStream::tcp);
        let buffers = tcp.map_or((0, 0), |stream| {
            system::with_socket(stream, |socket| {
                let size = |size: io::Result<usize>| size.unwrap_or(0) as u64;
                (size(socket.send_buffer_size()), size(socket.recv_buffer_size()))
            })
        });
        self.congestion = tcp.and_then(system::congestion);
        let start = Start {
            role: self.role,
            parameters: self.parameters.clone(),
            cookie: self.cookie,
            host: self.host.clone(),
            port: self.host_port,
            mss: self.connection.stream().map_or(0, system::segment_bytes),
            buffers,
            time: SystemTime::now(),
            interval: self.interval,
            engine: self.engine.clone(),
            streams,
        };
        self.printer.started(&start);
        let omits = self.parameters.omit > 0;
        let first = self.streams.snapshots(true);
        self.measurement = Measurement::begin(now, self.parameters.protocol, &start.streams, omits, &first);
        self.start = Some(start);
        if omits {
            self.timers.arm(Alarm::Omit, Duration::from_secs(self.parameters.omit));
        } else {
            self.count_pings();
        }
        self.arm_tick();
        self.arm_watch();
        if self.log.wants_live {
            self.timers.arm(Alarm::Live, LIVE);
        }
    }

    pub(crate) fn count_pings(&self) {
        if let Some(pings) = &self.pings {
            pings.count();
        }
    }

    /// Data may flow.
    pub(crate) fn run(&self) {
        self.send_control.open();
        self.streams.begin_sending(&self.port);
    }

    // --- While data flows ---

    fn arm_tick(&mut self) {
        if !self.interval.is_zero() {
            self.timers.arm(Alarm::Tick, self.measurement.next_tick(self.interval));
        }
    }

    /// An interval is over.
    pub(crate) fn tick(&mut self) {
        let seconds = self.measurement.seconds();
        if !self.measurement.is_left_to_the_end(seconds, self.interval, self.parameters.time) {
            self.close_interval(seconds);
        }
        self.arm_tick();
    }

    fn close_interval(&mut self, seconds: f64) {
        let Some(interval) = self.measurement.tick(seconds, &self.streams.snapshots(true)) else { return };
        if let Some(start) = &self.start {
            self.printer.interval(start, &interval);
        }
        if self.role == Role::Client {
            self.intervals.push(interval);
        }
    }

    /// The time that does not count is over.
    pub(crate) fn omit_over(&mut self) {
        let seconds = self.measurement.seconds();
        if !self.interval.is_zero() && self.measurement.is_worth_a_row(seconds, self.interval) {
            self.close_interval(seconds);
        }
        let now = Instant::now();
        self.measurement.count(now, &self.streams.snapshots(true));
        self.count_pings();
        self.arm_tick();
    }

    pub(crate) fn arm_watch(&mut self) {
        self.timers.arm(Alarm::Watch, (self.receive_timeout / 4).clamp(WATCH_MIN, WATCH_MAX));
    }

    /// A figure for the live line.
    pub(crate) fn live(&mut self) {
        let bytes = [true, false].map(|sends| self.streams.moved_one_way(sends));
        let (elapsed, bits_per_second) = self.measurement.live(bytes);
        let Parameters { time, omit, .. } = self.parameters;
        let total = (time > 0).then(|| Duration::from_secs(time + omit));
        self.log.live(Live { elapsed, total, bits_per_second });
        self.timers.arm(Alarm::Live, LIVE);
    }

    // --- The end ---

    /// The counted time is over, after `seconds`: the last interval, and the counters as they are reported.
    pub(crate) fn take_totals(&mut self, seconds: f64) {
        if !self.interval.is_zero() {
            let now = self.streams.snapshots(false);
            if self.measurement.is_worth_a_last_row(seconds, self.interval, &now) {
                self.close_interval(seconds);
            }
        }
        let now = self.streams.snapshots(true);
        let cpu = Processor::now().percent_since(&self.processor);
        self.measurement.close(seconds, cpu, now);
        let foreign = self.send_control.foreign.load(Relaxed);
        if foreign > 0 {
            log::warn!("{foreign} datagrams were not of this test, and were not counted");
        }
        for alarm in [Alarm::Tick, Alarm::Omit, Alarm::End, Alarm::Watch, Alarm::Live, Alarm::Limit, Alarm::Guard] {
            self.timers.disarm(alarm);
        }
    }

    /// Datagrams that came after the counted time are counted as not lost.
    pub(crate) fn count_late_datagrams(&mut self) {
        if self.parameters.protocol == Protocol::Udp && self.streams.receive() {
            self.measurement.count_late_datagrams(self.streams.snapshots(false));
        }
    }

    /// This end's results.
    pub(crate) fn results(&self, server_output: Option<Value>) -> Results {
        let tcp = self.parameters.protocol == Protocol::Tcp;
        Results {
            cpu: self.measurement.cpu().unwrap_or_default(),
            sender_has_retransmits: if self.streams.send() { i64::from(tcp) } else { -1 },
            congestion: self.congestion.clone().filter(|_| tcp),
            streams: self.measurement.results(|index| self.streams.verification(index)),
            server_output,
            verified: self.parameters.verify,
            two_phase: self.parameters.two_phase,
        }
    }

    /// The report's end, from what this end knows and what the peer told, if it did.
    pub(crate) fn make_end(&self) -> Option<End> {
        let totals = self.measurement.totals(|| self.streams.snapshots(true))?;
        let remote = self.remote.as_ref();
        let file = |(file, name): &(File, String)| DiskFile { name: name.clone(), bytes: file.len().unwrap_or(0) };
        let end_of = |(index, stream): (usize, &TestStream)| {
            let info = stream.info();
            let told = remote.and_then(|remote| remote.stream(info.id));
            let (ours, theirs) = (totals.ours(index), totals.theirs(told));
            let (sender, receiver) = if info.sends { (ours, theirs) } else { (theirs, ours) };
            StreamEnd {
                id: info.id,
                sends: info.sends,
                sender,
                receiver,
                round_trips: totals.round_trips(index),
                verification: match info.sends {
                    true => told.and_then(|result| result.verification),
                    false => stream.verification(),
                },
                broke: stream.broke(),
                file: self.file.as_ref().map(file),
            }
        };
        let streams = self.streams.iter().enumerate().map(end_of).collect();
        let (ours, theirs) = (self.congestion.clone(), remote.and_then(|remote| remote.congestion.clone()));
        Some(End {
            streams,
            cpu: self.measurement.cpu().unwrap_or_else(|| Processor::now().percent_since(&self.processor)),
            remote_cpu: remote.map(|remote| remote.cpu),
            congestion: if self.streams.send() { (ours, theirs) } else { (theirs, ours) },
            verified: self.parameters.verify.then(|| remote.is_some_and(|remote| remote.verified)),
            latency: self.pings.as_ref().and_then(|pings| pings.end()),
            server_output: remote.and_then(|remote| remote.server_output.clone()),
        })
    }

    /// The test cannot go on: nothing more is sent, and the report says why and what is known.
    pub(crate) fn report_failure(&mut self, failure: Failure) {
        self.send_control.close();
        if self.start.is_some() && !self.measurement.is_closed() {
            self.take_totals(self.measurement.seconds());
        }
        let end = self.make_end();
        self.printer.failed(self.start.as_ref(), end.as_ref(), &failure);
        self.end = end;
        self.failure = Some(failure);
    }

    /// Of a test in two phases the first is over, with all its reports: everything that belongs to it is put away, and
    /// the other direction comes.
    pub(crate) fn second_phase(&mut self) {
        self.timers.disarm_all();
        self.streams.close();
        self.streams.clear();
        if let Some(pings) = self.pings.take() {
            pings.end();
        }
        let intervals = std::mem::take(&mut self.intervals);
        self.first = self.start.take().zip(self.end.take()).map(|(start, end)| Told { start, end, intervals });
        self.send_control = SendControl::new(self.watcher.clone(), 2);
        self.parameters.reverse = true;
        self.remote = None;
        self.measurement = Measurement::new(Instant::now());
        self.processor = Processor::now();
        self.printer.second_phase();
    }

    /// Both phases of a test side by side, if this was one.
    pub(crate) fn print_sides(&mut self) {
        if let (Some(first), Some(second), Some(last)) = (&self.first, &self.start, &self.end) {
            self.printer.sides(&Sides::new((&first.start, &first.end), Some((second, last))));
        }
    }

    /// What a test came to, for whoever asked for it.
    pub(crate) fn take_intervals(&mut self) -> Vec<Interval> {
        std::mem::take(&mut self.intervals)
    }

    /// Closes everything.
    pub(crate) fn close(&mut self) {
        self.timers.disarm_all();
        self.send_control.close();
        self.streams.close();
        if let Some(pings) = self.pings.take() {
            pings.end();
        }
        self.streams.clear();
        self.connection.close();
    }
}
