//! One test at one end: what client and server have in common. The control connection's states are in [`client`](crate::client) and
//! [`server`](crate::server).
//!
//! All of it is under one lock, which the data path does not take. Its streams are closed under it. What has to happen
//! without it (lines that go out, a server that is told) is put down and done by [`leave`](Session::leave).

use crate::client::ClientSide;
use crate::flow::{Flow, Gate, Link, Payload};
use crate::latency::Pings;
use crate::op::{File, Op, Port, Stream};
use crate::output::{Live, Printer, Voice};
use crate::parameters::{Parameters, Protocol, stream_id};
use crate::protocol::{Cookie, Decoder, Failure, code, describe, frame, state};
use crate::report::book::{Book, remote_half};
use crate::report::{DiskFile, End, Half, Interval, Role, Snapshot, Start, StreamEnd, StreamInfo, sides};
use crate::results::Results;
use crate::server::Server;
use crate::socket::Processor;
use crate::system;
use serde_json::Value;
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use wharf::{Buffer, OperationId};

/// Bytes taken from a control connection at a time.
const CONTROL_BYTES: usize = 16 * 1024;
/// How long a broken or finished control connection is read before it is closed, so that no reset destroys what was sent.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// How long the end of a test waits for sends that are under way.
const GRACE: Duration = Duration::from_millis(80);
/// A receiver whose client has ended takes what is still in the sockets: until nothing came for so long …
const SETTLE: Duration = Duration::from_millis(2);
/// … and at most so many times.
const SETTLE_ROUNDS: u32 = 20;
/// Where it is known how much has to come, the server waits for it, until nothing came for so long.
const SETTLE_SILENCE: Duration = Duration::from_millis(500);
/// A file that is slow is not waited for longer.
const STORE_MAX: Duration = Duration::from_secs(20);
/// In a test by amount over UDP, a sender that has sent all and lost some on the way stays silent: so long is enough …
const UDP_SILENCE: Duration = Duration::from_secs(2);
/// … and so long when the last numbers have not come either.
const UDP_SILENCE_MORE: Duration = Duration::from_secs(5);
/// What may wait to be understood on a control connection: more than any frame has. Of a client that is the server's report …
const INPUT_BYTES_MAX: usize = (64 << 20) + (1 << 20);
/// … and of a server the results, or, where more is allowed, the parameters.
const SERVER_INPUT_BYTES_MAX: usize = 1 << 20;
/// Looks at the rate in the window of a server's limit.
const LOOKS: u32 = 10;
/// What a server adds to the time of a test before it ends it.
const GUARD: Duration = Duration::from_secs(40);
/// Between two figures on a live line.
const LIVE: Duration = Duration::from_millis(250);

/// Where a test stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Client: no connection yet.
    Connecting,
    /// Client: the cookie is sent. Server: parameters are waited for.
    Greeting,
    /// Client: the parameters are sent.
    Asked,
    /// Streams are being made.
    Streams,
    /// Client: all are there.
    Ready,
    /// Client: the start was seen.
    Started,
    /// Data flows.
    Running,
    /// No more is sent; what is under way comes to its end.
    Settling,
    /// Client: the counters are taken.
    Counted,
    /// Client: the end is told.
    Told,
    /// The peer's results are waited for.
    Results,
    /// Client: for the word to show them. Server: for the client's last word.
    Display,
    /// Client: state −2 was seen, its numbers are waited for.
    Erring,
    /// Only the end of the connection is waited for.
    Draining,
    /// All is closed.
    Over,
}

/// What a timer of a test is for. One of each runs at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Alarm {
    /// The phase takes too long.
    Deadline,
    /// An interval is over.
    Tick,
    /// The time that does not count is over.
    Omit,
    /// The test's time is over.
    End,
    /// Sends and receives had time to finish.
    Settle,
    /// The client should have ended it.
    Guard,
    /// Is anything moving?
    Watch,
    /// A figure for the live line.
    Live,
    /// Is it faster than the server allows?
    Limit,
    /// The hello was not answered.
    Hello,
}

const ALARMS: usize = Alarm::Hello as usize + 1;

/// How the end of a test settles.
struct Settled {
    rounds: u32,
    moved: u64,
    /// When the end was told.
    since: Instant,
    /// When something moved last.
    moved_at: Instant,
}

/// What is done when the lock is not held any more.
enum Later {
    /// The server has room for the next test.
    Free,
    /// The test is over.
    Over,
}

/// One test at one end.
pub(crate) struct Session {
    pub(crate) port: Port,
    pub(crate) cookie: Cookie,
    pub(crate) voice: Arc<Voice>,
    pub(crate) server: Option<Arc<Server>>,
    core: Mutex<Core>,
}

/// Everything that changes.
pub(crate) struct Core {
    pub(crate) role: Role,
    pub(crate) phase: Phase,
    /// What the streams of this phase have in common.
    pub(crate) gate: Arc<Gate>,
    /// 2 in the second phase of a test of two.
    pub(crate) round: u32,
    /// The first phase, once the second has begun.
    pub(crate) first: Option<(Start, End, Vec<Interval>)>,
    pub(crate) control: Option<Stream>,
    pub(crate) input: Decoder,
    pub(crate) parameters: Parameters,
    /// Whom the reports name.
    pub(crate) host: String,
    pub(crate) host_port: u16,
    pub(crate) flows: Vec<Arc<Flow>>,
    /// At a server: the connections that are to be the streams, with their numbers, until all are there.
    pub(crate) arrivals: Vec<(u64, Stream, SocketAddr)>,
    pub(crate) payload: Option<Payload>,
    pub(crate) printer: Printer,
    pub(crate) interval: Duration,
    pub(crate) receive_timeout: Duration,
    pub(crate) engine: String,
    pub(crate) client: Option<Box<ClientSide>>,
    pub(crate) pings: Option<Arc<Pings>>,
    pub(crate) foreign_streams: u32,
    pub(crate) start: Option<Start>,
    pub(crate) intervals: Vec<Interval>,
    pub(crate) end: Option<End>,
    pub(crate) failure: Option<Failure>,
    pub(crate) processor: Processor,
    pub(crate) remote: Option<Results>,
    cpu: [f64; 3],
    book: Option<Book>,
    began: Instant,
    /// The counted time began.
    counted_from: Instant,
    omitting: bool,
    /// Length of the counted time, and the counters at its end.
    totals: Option<(f64, Vec<Snapshot>)>,
    congestion: Option<String>,
    settled: Settled,
    /// The moved bytes at each look, for the server's limit.
    looks: VecDeque<(Instant, u64)>,
    /// What is sent from or received into, and how it is called.
    pub(crate) file: Option<(File, String)>,
    watched: (u64, Instant),
    shown: ([u64; 2], Instant),
    timers: [(u64, Option<OperationId>); ALARMS],
    last_token: u64,
    later: Vec<Later>,
}

impl Session {
    pub(crate) fn new(
        port: &Port,
        role: Role,
        cookie: Cookie,
        voice: &Arc<Voice>,
        printer: Printer,
        server: Option<Arc<Server>>,
    ) -> Arc<Session> {
        let now = Instant::now();
        Arc::new_cyclic(|session| {
            let core = Core {
                role,
                gate: Gate::new(session.clone(), 1),
                round: 1,
                first: None,
                phase: Phase::Connecting,
                control: None,
                input: Decoder::default(),
                parameters: Parameters::default(),
                host: String::new(),
                host_port: 0,
                flows: Vec::new(),
                arrivals: Vec::new(),
                payload: None,
                printer,
                interval: Duration::from_secs(1),
                receive_timeout: Duration::from_secs(120),
                engine: port.stats().engine.to_owned(),
                client: None,
                pings: None,
                foreign_streams: 0,
                start: None,
                intervals: Vec::new(),
                end: None,
                failure: None,
                processor: Processor::now(),
                remote: None,
                cpu: [0.0; 3],
                book: None,
                began: now,
                counted_from: now,
                omitting: false,
                totals: None,
                congestion: None,
                settled: Settled { rounds: 0, moved: 0, since: now, moved_at: now },
                looks: VecDeque::new(),
                file: None,
                watched: (0, now),
                shown: ([0; 2], now),
                timers: [(0, None); ALARMS],
                last_token: 0,
                later: Vec::new(),
            };
            Session { port: port.clone(), cookie, voice: voice.clone(), server, core: Mutex::new(core) }
        })
    }

    pub(crate) fn enter(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets go of the lock, and does what had to wait for that.
    pub(crate) fn leave(self: &Arc<Self>, mut core: MutexGuard<'_, Core>) {
        let later = std::mem::take(&mut core.later);
        drop(core);
        self.voice.flush();
        for what in later {
            match (what, &self.server) {
                (Later::Free, Some(server)) => server.free(self),
                (Later::Over, Some(server)) => server.over(),
                (Later::Over, None) => self.client_over(),
                (Later::Free, None) => {}
            }
        }
    }

    // --- Time ---

    pub(crate) fn arm(self: &Arc<Self>, core: &mut Core, alarm: Alarm, after: Duration) {
        self.disarm(core, alarm);
        core.last_token += 1;
        let token = core.last_token;
        let id = self.port.timer(after, (), Op::Alarm(self.clone(), alarm, token)).ok();
        core.timers[alarm as usize] = (token, id);
    }

    pub(crate) fn disarm(&self, core: &mut Core, alarm: Alarm) {
        if let (_, Some(id)) = std::mem::take(&mut core.timers[alarm as usize]) {
            self.port.cancel(id);
        }
    }

    fn disarm_all(&self, core: &mut Core) {
        for (_, id) in std::mem::take(&mut core.timers) {
            id.map(|id| self.port.cancel(id));
        }
    }

    pub(crate) fn alarm(self: &Arc<Self>, alarm: Alarm, token: u64) {
        let mut core = self.enter();
        if core.timers[alarm as usize].0 != token {
            return;
        }
        core.timers[alarm as usize] = (0, None);
        match alarm {
            Alarm::Deadline => self.too_late(&mut core),
            Alarm::Tick => self.tick(&mut core),
            Alarm::Omit => self.omit_over(&mut core),
            Alarm::End => self.stop_sending(&mut core),
            Alarm::Settle => self.settle(&mut core),
            Alarm::Guard => self.fail(&mut core, Failure::new(code::EXPIRED, describe(code::EXPIRED))),
            Alarm::Watch => self.watch(&mut core),
            Alarm::Live => self.live(&mut core),
            Alarm::Limit => self.look_at_the_rate(&mut core),
            Alarm::Hello => self.hello_again(&mut core),
        }
        self.leave(core);
    }

    fn too_late(self: &Arc<Self>, core: &mut Core) {
        let failure = match (core.role, core.phase) {
            (_, Phase::Draining) => return self.close(core),
            (Role::Server, Phase::Greeting) => {
                Failure::new(code::PARAMETERS, "unable to receive parameters from client: they did not come in time")
            }
            (Role::Server, Phase::Streams) => {
                let (there, wanted) = (core.flows.len() + core.arrivals.len(), core.parameters.streams());
                let text = format!("only {there} of {wanted} streams came in time");
                Failure::new(code::SILENCE, text)
            }
            (_, Phase::Results) => Failure::new(code::RESULTS, "unable to receive results: they did not come in time"),
            (Role::Server, Phase::Display) => return self.close(core),
            (_, Phase::Connecting) => {
                Failure::new(code::CONNECT, "unable to connect to server: no answer in time (--connect-timeout)")
            }
            _ => {
                let text = "the server has been silent for too long (--rcv-timeout)";
                Failure::new(code::SILENCE, text)
            }
        };
        self.fail(core, failure);
    }

    // --- The control connection ---

    pub(crate) fn send(&self, core: &Core, bytes: impl Into<Buffer>) {
        if let Some(control) = &core.control {
            let _ = control.send(bytes, Op::Nothing);
        }
    }

    pub(crate) fn send_state(&self, core: &Core, state: i8) {
        self.send(core, vec![state as u8]);
    }

    pub(crate) fn listen_to(self: &Arc<Self>, core: &Core) {
        if let Some(control) = &core.control {
            let _ = control.recv(Buffer::with_capacity(CONTROL_BYTES), Op::Control(self.clone()));
        }
    }

    pub(crate) fn control(self: &Arc<Self>, buffer: Buffer, result: io::Result<usize>) {
        let mut core = self.enter();
        let ended = !matches!(result, Ok(1..));
        match core.phase {
            Phase::Over => {}
            Phase::Draining if ended => self.close(&mut core),
            Phase::Draining => self.listen_to(&core),
            _ => {
                core.input.push(&buffer);
                let most = match &self.server {
                    Some(server) => {
                        SERVER_INPUT_BYTES_MAX.max(server.options.max_parameter_bytes.saturating_add(1 << 16))
                    }
                    None => INPUT_BYTES_MAX,
                };
                if core.input.len() > most {
                    let text = "the peer says more than there is to say";
                    self.fail(&mut core, Failure::new(code::MESSAGE, text));
                }
                match core.role {
                    Role::Client => self.client_heard(&mut core, ended),
                    Role::Server => self.server_heard(&mut core, ended),
                }
                match core.phase {
                    Phase::Over => {}
                    Phase::Draining if ended => self.close(&mut core),
                    _ if ended => {
                        let text = match (core.role, result) {
                            (Role::Server, Ok(_)) => "the client has unexpectedly closed the connection".into(),
                            (_, Ok(_)) => describe(code::CONTROL_CLOSED),
                            (_, Err(error)) => format!("{}: {error}", describe(code::CONTROL_CLOSED)),
                        };
                        self.fail(&mut core, Failure::new(code::CONTROL_CLOSED, text));
                        self.close(&mut core);
                    }
                    _ => self.listen_to(&core),
                }
            }
        }
        self.leave(core);
    }

    // --- The test ---

    /// A stream is there.
    pub(crate) fn add_flow(self: &Arc<Self>, core: &mut Core, link: Link, addresses: (SocketAddr, SocketAddr)) {
        let index = core.flows.len();
        let sends = core.parameters.client_sends(index) == (core.role == Role::Client);
        let info = StreamInfo { id: stream_id(index), sends, local: addresses.0, peer: addresses.1 };
        if core.payload.is_none() {
            core.payload = Some(Payload::new(&core.parameters, &self.cookie));
        }
        let payload = core.payload.as_ref().expect("made just above");
        let file = core.file.as_ref().map(|(file, _)| file.clone());
        let flow = Flow::new(info, link, &core.gate, &core.parameters, payload, file);
        if !sends {
            flow.begin_receiving();
        }
        core.flows.push(flow);
    }

    /// All streams are there, and the test begins.
    pub(crate) fn begin(self: &Arc<Self>, core: &mut Core) {
        let now = Instant::now();
        (core.began, core.counted_from) = (now, now);
        let streams: Vec<StreamInfo> = core.flows.iter().map(|flow| flow.info.clone()).collect();
        let buffers = core.flows.first().and_then(|flow| flow.tcp()).map_or((0, 0), |stream| {
            system::with_socket(stream, |socket| {
                let size = |size: io::Result<usize>| size.unwrap_or(0) as u64;
                (size(socket.send_buffer_size()), size(socket.recv_buffer_size()))
            })
        });
        core.congestion = core.flows.first().and_then(|flow| flow.tcp()).and_then(system::congestion);
        let start = Start {
            role: core.role,
            parameters: core.parameters.clone(),
            cookie: self.cookie,
            host: core.host.clone(),
            port: core.host_port,
            mss: core.control.as_ref().map_or(0, system::segment_bytes),
            buffers,
            time: SystemTime::now(),
            interval: core.interval,
            engine: core.engine.clone(),
            streams,
        };
        core.printer.started(&start);
        let mut book = Book::new(core.parameters.protocol, &start.streams);
        // What has come already belongs to the test: a server sends as soon as it has told so.
        let first = core.flows.iter().map(|flow| Snapshot { tcp: flow.snapshot(true).tcp, ..Snapshot::default() });
        let first: Vec<Snapshot> = first.collect();
        book.begin(&first);
        core.book = Some(book);
        core.start = Some(start);
        core.omitting = core.parameters.omit > 0;
        if core.omitting {
            self.arm(core, Alarm::Omit, Duration::from_secs(core.parameters.omit));
        } else if let Some(pings) = &core.pings {
            pings.count();
        }
        if core.role == Role::Server && !core.omitting {
            self.count(core);
        }
        self.arm_tick(core);
        core.watched = (0, now);
        self.arm(core, Alarm::Watch, self.watch_period(core));
        if self.voice.wants_live {
            core.shown = ([0; 2], now);
            self.arm(core, Alarm::Live, LIVE);
        }
        if core.role == Role::Server && self.limit().is_some() {
            core.looks = VecDeque::from([(now, 0)]);
            self.arm_limit(core);
        }
        if core.role == Role::Server && core.parameters.time > 0 {
            let time = Duration::from_secs(core.parameters.time + core.parameters.omit);
            self.arm(core, Alarm::Guard, time + GUARD);
        }
    }

    /// What ends the test counts from now. Set before there are streams: in the reverse direction data may come before the
    /// word that the test has begun.
    pub(crate) fn count(&self, core: &mut Core) {
        if let Some(pings) = &core.pings {
            pings.count();
        }
        if core.role == Role::Client {
            // In a test of both directions, or of the reverse one, what the server sends counts as well.
            core.gate.want(core.parameters.num, core.parameters.blocks);
            if let Some(blocks) = core.parameters.blocks_wanted() {
                core.gate.limit(blocks);
            }
        } else if let (true, Some(blocks)) = (core.parameters.two_phase, core.parameters.blocks_wanted()) {
            // The client is ours, and takes a sender that has sent enough for what it is: both phases have so many blocks.
            core.gate.limit(blocks);
        }
    }

    /// Data may flow.
    pub(crate) fn run(self: &Arc<Self>, core: &mut Core) {
        core.phase = Phase::Running;
        core.gate.open();
        for flow in core.flows.iter().filter(|flow| flow.info.sends) {
            flow.begin_sending(&self.port);
        }
    }

    fn snapshots(&self, core: &Core, tcp: bool) -> Vec<Snapshot> {
        core.flows.iter().map(|flow| flow.snapshot(tcp)).collect()
    }

    fn moved(core: &Core) -> u64 {
        core.flows.iter().map(|flow| flow.bytes()).sum()
    }

    fn arm_tick(self: &Arc<Self>, core: &mut Core) {
        if core.interval.is_zero() {
            return;
        }
        let elapsed = core.counted_from.elapsed();
        let ticks = (elapsed.as_secs_f64() / core.interval.as_secs_f64()).floor() + 1.0;
        let next = core.interval.mul_f64(ticks);
        self.arm(core, Alarm::Tick, next.saturating_sub(elapsed));
    }

    fn tick(self: &Arc<Self>, core: &mut Core) {
        if core.phase != Phase::Running {
            return;
        }
        let seconds = core.counted_from.elapsed().as_secs_f64();
        // The tick at the very end is left to the end, or a row of a few milliseconds would follow it.
        let distance = (seconds - core.parameters.time as f64).abs();
        if core.omitting || core.parameters.time == 0 || distance > 0.05 * core.interval.as_secs_f64() {
            self.close_interval(core, seconds);
        }
        self.arm_tick(core);
    }

    fn close_interval(&self, core: &mut Core, seconds: f64) {
        let snapshots = self.snapshots(core, true);
        let omitting = core.omitting;
        let Some(book) = &mut core.book else { return };
        let interval = book.tick(seconds, omitting, &snapshots);
        if let Some(start) = &core.start {
            core.printer.interval(start, &interval);
        }
        if core.role == Role::Client {
            core.intervals.push(interval);
        }
    }

    /// The last interval, if there is enough of it to tell.
    fn close_last_interval(&self, core: &mut Core, seconds: f64) {
        if core.interval.is_zero() {
            return;
        }
        let snapshots = self.snapshots(core, false);
        let worth = core.book.as_ref().is_some_and(|book| {
            let length = seconds - book.last_tick();
            // Of a test that was over at once it is the only one.
            let counts = length > 0.001 || book.last_tick() == 0.0;
            length >= 0.1 * core.interval.as_secs_f64() || counts && book.moved(&snapshots)
        });
        if worth {
            self.close_interval(core, seconds);
        }
    }

    fn omit_over(self: &Arc<Self>, core: &mut Core) {
        if core.phase != Phase::Running {
            return;
        }
        let seconds = core.counted_from.elapsed().as_secs_f64();
        let unfinished = core.book.as_ref().map_or(0.0, |book| seconds - book.last_tick());
        if !core.interval.is_zero() && unfinished >= 0.1 * core.interval.as_secs_f64() {
            self.close_interval(core, seconds);
        }
        core.omitting = false;
        core.counted_from = Instant::now();
        let snapshots = self.snapshots(core, true);
        if let Some(book) = &mut core.book {
            book.begin(&snapshots);
        }
        self.count(core);
        self.arm_tick(core);
    }

    fn watch_period(&self, core: &Core) -> Duration {
        (core.receive_timeout / 4).clamp(Duration::from_millis(20), Duration::from_secs(1))
    }

    fn watch(self: &Arc<Self>, core: &mut Core) {
        if !matches!(core.phase, Phase::Running) {
            return;
        }
        let moved = Self::moved(core);
        let parameters = &core.parameters;
        let receives = core.flows.iter().any(|flow| !flow.info.sends && !flow.is_over());
        let senders = || core.flows.iter().filter(|flow| flow.info.sends);
        let client = core.role == Role::Client;
        // Of a sender standing still is as bad, unless it has sent its file or is to send less often. A client whose test has a
        // time can wait for the end of it.
        let often = senders().any(|flow| !flow.is_over() && 4 * flow.pause() < core.receive_timeout);
        let must_move = receives || often && (!client || parameters.time == 0);
        if moved != core.watched.0 {
            core.watched = (moved, Instant::now());
        }
        let silence = core.watched.1.elapsed();
        // A sender that has sent what was wanted stays silent, though datagrams were lost on the way.
        let all_sent = client && !core.omitting && moved > 0 && parameters.protocol == Protocol::Udp;
        let all_sent = all_sent
            && parameters.reverse
            && parameters.blocks_wanted().is_some_and(|wanted| {
                let seen: u64 = core.flows.iter().map(|flow| flow.snapshot(false).packets).sum();
                silence >= if seen >= wanted { UDP_SILENCE } else { UDP_SILENCE_MORE }
            });
        // What a broken stream had in hand will not come any more; and a file ends once.
        let wanted = parameters.blocks_wanted().is_some() || core.file.is_some();
        let broken = client && !core.omitting && wanted && {
            let all = core.flows.iter().all(|flow| flow.is_over());
            all || core.flows.iter().any(|flow| flow.is_over()) && silence >= UDP_SILENCE
        };
        if all_sent || broken {
            return self.stop_sending(core);
        }
        if must_move && silence >= core.receive_timeout {
            return self.fail(core, Failure::new(code::SILENCE, describe(code::SILENCE)));
        }
        self.arm(core, Alarm::Watch, self.watch_period(core));
    }

    /// The server's limit: bits a second, and the time over which they are averaged.
    fn limit(&self) -> Option<(u64, Duration)> {
        let options = &self.server.as_ref()?.options;
        options.bitrate_limit.map(|limit| (limit, options.bitrate_window))
    }

    fn arm_limit(self: &Arc<Self>, core: &mut Core) {
        if let Some((_, window)) = self.limit() {
            self.arm(core, Alarm::Limit, (window / LOOKS).max(Duration::from_millis(20)));
        }
    }

    /// A test that is faster than agreed, or that agreed to nothing, ends here.
    fn look_at_the_rate(self: &Arc<Self>, core: &mut Core) {
        let (Phase::Running, Some((limit, window))) = (core.phase, self.limit()) else { return };
        let (now, moved) = (Instant::now(), Self::moved(core));
        core.looks.push_back((now, moved));
        // The youngest look that is a whole window old stays.
        while core.looks.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= window) {
            core.looks.pop_front();
        }
        let (at, before) = core.looks[0];
        let seconds = now.duration_since(at).as_secs_f64();
        if now.duration_since(at) >= window && crate::report::rate(moved - before, seconds) > limit as f64 {
            return self.fail(core, Failure::new(code::BANDWIDTH, describe(code::BANDWIDTH)));
        }
        self.arm_limit(core);
    }

    fn live(self: &Arc<Self>, core: &mut Core) {
        if core.phase != Phase::Running {
            return;
        }
        let now = Instant::now();
        let sum = |sends| core.flows.iter().filter(|flow| flow.info.sends == sends).map(|flow| flow.bytes()).sum();
        let bytes: [u64; 2] = [sum(true), sum(false)];
        let seconds = now.duration_since(core.shown.1).as_secs_f64();
        let rate = |at: usize| crate::report::rate(bytes[at].saturating_sub(core.shown.0[at]), seconds);
        let total = core.parameters.time + core.parameters.omit;
        self.voice.live(Live {
            elapsed: now.duration_since(core.began),
            total: (core.parameters.time > 0).then(|| Duration::from_secs(total)),
            bits_per_second: [rate(0), rate(1)],
        });
        core.shown = (bytes, now);
        self.arm(core, Alarm::Live, LIVE);
    }

    // --- The end ---

    pub(crate) fn reached(self: &Arc<Self>, phase: u32) {
        let mut core = self.enter();
        if core.role == Role::Client && !core.omitting && core.round == phase {
            self.stop_sending(&mut core);
        }
        self.leave(core);
    }

    /// The test's time is over, or all has moved: the client stops, waits for what is under way, and tells.
    pub(crate) fn stop_sending(self: &Arc<Self>, core: &mut Core) {
        if core.phase != Phase::Running {
            return;
        }
        core.phase = Phase::Settling;
        Self::begin_to_settle(core);
        if core.gate.close() {
            self.client_ends(core);
        } else {
            self.arm(core, Alarm::Settle, GRACE);
        }
    }

    pub(crate) fn quiet(self: &Arc<Self>, phase: u32) {
        let mut core = self.enter();
        if core.role == Role::Client && core.phase == Phase::Settling && core.round == phase {
            self.client_ends(&mut core);
        }
        self.leave(core);
    }

    fn client_ends(self: &Arc<Self>, core: &mut Core) {
        self.disarm(core, Alarm::Settle);
        let seconds = core.counted_from.elapsed().as_secs_f64();
        self.take_totals(core, seconds);
        core.phase = Phase::Counted;
        // A test by time is cut off where it is. One by amount is not over before the amount is there, and a stock server
        // stops to count as soon as it is told.
        let amount = core.parameters.blocks_wanted().is_some() || core.file.is_some();
        match amount && core.flows.iter().any(|flow| flow.info.sends) {
            true => self.arm(core, Alarm::Settle, SETTLE),
            false => self.tell_the_end(core),
        }
    }

    fn tell_the_end(self: &Arc<Self>, core: &mut Core) {
        core.phase = Phase::Told;
        self.send_state(core, state::TEST_END);
        self.arm(core, Alarm::Deadline, core.receive_timeout);
    }

    fn begin_to_settle(core: &mut Core) {
        let now = Instant::now();
        core.settled = Settled { rounds: 0, moved: Self::moved(core), since: now, moved_at: now };
    }

    /// Waits until the peer's system has all that was sent, and then as long again.
    fn wait_for_arrival(self: &Arc<Self>, core: &mut Core) {
        core.settled.rounds += 1;
        let left = core.flows.iter().filter_map(|flow| flow.tcp()).map(system::unsent_bytes).sum::<u64>();
        let moves = left != core.settled.moved;
        if moves {
            (core.settled.moved, core.settled.moved_at) = (left, Instant::now());
        }
        let waits = moves || left > 0 && core.settled.moved_at.elapsed() < SETTLE_SILENCE;
        if waits && core.settled.since.elapsed() < core.receive_timeout {
            return self.arm(core, Alarm::Settle, SETTLE);
        }
        self.tell_the_end(core);
    }

    /// The server: the client has told the end. In a test by time the clock stops here, and the counters with it, as iperf3's do: what
    /// comes later is no part of the rate. One by amount goes on until the amount is there, and so does its clock.
    pub(crate) fn server_ends(self: &Arc<Self>, core: &mut Core) {
        core.phase = Phase::Settling;
        core.gate.close();
        Self::begin_to_settle(core);
        let receives = core.flows.iter().any(|flow| !flow.info.sends);
        let stops = receives && core.parameters.blocks_wanted().is_none() && core.file.is_none();
        if stops {
            let seconds = core.counted_from.elapsed().as_secs_f64();
            self.take_totals(core, seconds);
        }
        // In the second phase the last blocks have arrived, though it may not have been heard here that they are gone.
        let gone = !core.parameters.two_phase || core.gate.is_quiet();
        // Of datagrams it is still to be seen which were lost.
        let waits = receives && !(stops && core.parameters.protocol == Protocol::Tcp);
        match waits || !gone {
            true => self.arm(core, Alarm::Settle, SETTLE),
            false => self.server_counted(core),
        }
    }

    fn settle(self: &Arc<Self>, core: &mut Core) {
        match (core.phase, core.role) {
            (Phase::Counted, _) => self.wait_for_arrival(core),
            (Phase::Told, Role::Client) => self.exchange(core),
            (Phase::Settling, Role::Client) => self.client_ends(core),
            (Phase::Settling, Role::Server) => self.server_settles(core),
            _ => {}
        }
    }

    /// A receiving server takes what is still on its way. Of the datagrams of a test by time that is little; in one by amount it is
    /// known what has to come, and the client has seen to it that it did.
    fn server_settles(self: &Arc<Self>, core: &mut Core) {
        let (moved, now) = (Self::moved(core), Instant::now());
        let moves = moved != core.settled.moved;
        if moves {
            (core.settled.moved, core.settled.moved_at) = (moved, now);
        }
        core.settled.rounds += 1;
        let received: u64 = core.flows.iter().filter(|flow| !flow.info.sends).map(|flow| flow.bytes()).sum();
        let receives = core.flows.iter().any(|flow| !flow.info.sends);
        let parameters = &core.parameters;
        let wanted = parameters.num.max(parameters.blocks.saturating_mul(parameters.len as u64));
        // With both directions it may be the other one that had its amount.
        let silence = if parameters.bidirectional { 10 * SETTLE } else { SETTLE_SILENCE };
        let wait = moves && core.settled.rounds < SETTLE_ROUNDS
            || receives && received < wanted && now.duration_since(core.settled.moved_at) < silence
            || core.parameters.two_phase && !core.gate.is_quiet() && core.settled.since.elapsed() < SETTLE_SILENCE
            || Self::is_storing(core);
        if wait && now.duration_since(core.settled.since) < STORE_MAX {
            return self.arm(core, Alarm::Settle, SETTLE);
        }
        self.server_counted(core);
    }

    fn is_storing(core: &Core) -> bool {
        core.flows.iter().any(|flow| flow.is_storing())
    }

    /// The client: the server has stopped; its results are next, once all that came is stored.
    pub(crate) fn exchange(self: &Arc<Self>, core: &mut Core) {
        if Self::is_storing(core) && core.settled.since.elapsed() < STORE_MAX {
            return self.arm(core, Alarm::Settle, SETTLE);
        }
        self.count_late_datagrams(core);
        let frame = frame(&self.results(core, None).to_json());
        self.send(core, frame);
        core.phase = Phase::Results;
        self.arm(core, Alarm::Deadline, core.receive_timeout);
        self.client_heard(core, false);
    }

    fn server_counted(self: &Arc<Self>, core: &mut Core) {
        if core.totals.is_some() {
            self.count_late_datagrams(core);
        } else {
            // All that is counted moved until then.
            let seconds = core.settled.moved_at.saturating_duration_since(core.counted_from).as_secs_f64();
            self.take_totals(core, seconds);
        }
        self.close_flows(core);
        core.phase = Phase::Results;
        self.send_state(core, state::EXCHANGE_RESULTS);
        self.arm(core, Alarm::Deadline, self.setup_timeout());
        self.server_heard(core, false);
    }

    /// The counters as they are reported.
    fn take_totals(self: &Arc<Self>, core: &mut Core, seconds: f64) {
        self.close_last_interval(core, seconds);
        let snapshots = self.snapshots(core, true);
        if let Some(book) = &mut core.book {
            book.close(&snapshots);
        }
        core.cpu = Processor::now().percent_since(&core.processor);
        core.totals = Some((seconds, snapshots));
        let foreign = core.gate.foreign.load(std::sync::atomic::Ordering::Relaxed);
        if foreign > 0 {
            log::warn!("{foreign} datagrams were not of this test, and were not counted");
        }
        for alarm in [Alarm::Tick, Alarm::Omit, Alarm::End, Alarm::Watch, Alarm::Live, Alarm::Limit, Alarm::Guard] {
            self.disarm(core, alarm);
        }
    }

    /// Datagrams that were on their way when the clock stopped have come by now. They were not lost; of the rate they are no part.
    pub(crate) fn count_late_datagrams(&self, core: &mut Core) {
        if core.parameters.protocol == Protocol::Udp && core.flows.iter().any(|flow| !flow.info.sends) {
            let snapshots = self.snapshots(core, false);
            if let Some((_, totals)) = &mut core.totals {
                for (total, now) in totals.iter_mut().zip(snapshots) {
                    *total = Snapshot { bytes: total.bytes, ..now };
                }
            }
        }
    }

    pub(crate) fn close_flows(&self, core: &mut Core) {
        core.flows.iter().for_each(|flow| flow.close());
        core.arrivals.drain(..).for_each(|(_, stream, _)| stream.close());
    }

    /// This end's results.
    pub(crate) fn results(&self, core: &Core, server_output: Option<Value>) -> Results {
        let (seconds, snapshots) = core.totals.clone().unwrap_or_default();
        let sends = core.flows.iter().any(|flow| flow.info.sends);
        let tcp = core.parameters.protocol == Protocol::Tcp;
        let streams = match &core.book {
            Some(book) => book.results(seconds, &snapshots, |index| core.flows[index].verification()),
            None => Vec::new(),
        };
        Results {
            cpu: core.cpu,
            sender_has_retransmits: if !sends { -1 } else { i64::from(tcp) },
            congestion: core.congestion.clone().filter(|_| tcp),
            streams,
            server_output,
            verified: core.parameters.verify,
            two_phase: core.parameters.two_phase,
        }
    }

    /// The report's end, from what this end knows and what the peer told, if it did.
    pub(crate) fn make_end(&self, core: &Core) -> Option<End> {
        let book = core.book.as_ref()?;
        let (seconds, snapshots) = match &core.totals {
            Some(totals) => totals.clone(),
            None => (core.counted_from.elapsed().as_secs_f64(), self.snapshots(core, true)),
        };
        let totals = book.totals(seconds, &snapshots);
        let remote = core.remote.as_ref();
        let streams: Vec<StreamEnd> = core
            .flows
            .iter()
            .enumerate()
            .map(|(index, flow)| {
                let told = remote.and_then(|remote| remote.stream(flow.info.id));
                let ours = totals[index];
                let theirs = told.map_or_else(Half::default, |result| remote_half(result, seconds));
                let (sender, receiver) = if flow.info.sends { (ours, theirs) } else { (theirs, ours) };
                StreamEnd {
                    id: flow.info.id,
                    sends: flow.info.sends,
                    sender,
                    receiver,
                    round_trips: book.round_trips(index),
                    verification: match flow.info.sends {
                        true => told.and_then(|result| result.verification),
                        false => flow.verification(),
                    },
                    broke: flow.broke(),
                    file: core
                        .file
                        .as_ref()
                        .map(|(file, name)| DiskFile { name: name.clone(), bytes: file.len().unwrap_or(0) }),
                }
            })
            .collect();
        let theirs = remote.and_then(|remote| remote.congestion.clone());
        let sends = core.flows.iter().any(|flow| flow.info.sends);
        let congestion = if sends { (core.congestion.clone(), theirs) } else { (theirs, core.congestion.clone()) };
        Some(End {
            streams,
            cpu: if core.totals.is_some() { core.cpu } else { Processor::now().percent_since(&core.processor) },
            remote_cpu: remote.map(|remote| remote.cpu),
            congestion,
            verified: core.parameters.verify.then(|| remote.is_some_and(|remote| remote.verified)),
            latency: core.pings.as_ref().and_then(|pings| pings.end()),
            server_output: remote.and_then(|remote| remote.server_output.clone()),
        })
    }

    /// It cannot go on: the peer is told, the streams are closed, the report says why. What the peer still sends is read
    /// for a moment, so that it gets to see the reason.
    pub(crate) fn fail(self: &Arc<Self>, core: &mut Core, failure: Failure) {
        if matches!(core.phase, Phase::Draining | Phase::Over) {
            return;
        }
        let gone = failure.code == code::CONTROL_CLOSED;
        match core.role {
            Role::Server if core.phase == Phase::Display => {
                // The report is out; only the goodbye was missing.
                log::info!("{failure}");
                return self.close(core);
            }
            Role::Server if failure.code == code::SERVER_TERMINATED => self.send_state(core, state::SERVER_TERMINATE),
            Role::Server if gone || failure.code == code::CLIENT_TERMINATED => {}
            Role::Server => self.send(core, failure.frame().to_vec()),
            Role::Client if failure.code == code::CLIENT_TERMINATED => self.send_state(core, state::CLIENT_TERMINATE),
            Role::Client if matches!(failure.code, code::SERVER_TERMINATED | code::MESSAGE) => {
                self.send_state(core, state::DONE);
            }
            Role::Client => {}
        }
        core.gate.close();
        if core.start.is_some() && core.totals.is_none() {
            let seconds = core.counted_from.elapsed().as_secs_f64();
            self.take_totals(core, seconds);
        }
        let end = self.make_end(core);
        core.printer.failed(core.start.as_ref(), end.as_ref(), &failure);
        core.end = end;
        core.failure = Some(failure);
        if core.role == Role::Client || gone {
            return self.close(core);
        }
        self.drain(core);
    }

    /// Of a test in two phases the first is over, with all its reports: everything that belongs to it is put away, and the
    /// other direction comes.
    pub(crate) fn second_phase(self: &Arc<Self>, core: &mut Core) {
        self.disarm_all(core);
        self.close_flows(core);
        core.flows.clear();
        if let Some(pings) = core.pings.take() {
            pings.end();
        }
        core.first = core.start.take().zip(core.end.take()).map(|(start, end)| {
            let intervals = std::mem::take(&mut core.intervals);
            (start, end, intervals)
        });
        core.round = 2;
        core.gate = Gate::new(Arc::downgrade(self), 2);
        core.parameters.reverse = true;
        core.foreign_streams = 0;
        core.remote = None;
        core.book = None;
        core.totals = None;
        core.cpu = [0.0; 3];
        core.processor = Processor::now();
        core.printer.second_phase();
    }

    /// Whether another phase is to come after this one.
    pub(crate) fn is_first_of_two(core: &Core) -> bool {
        core.parameters.two_phase && core.round == 1
    }

    /// Both phases of a test side by side, if this was one.
    pub(crate) fn print_sides(core: &mut Core) {
        if let (Some((start, end, _)), Some(second), Some(last)) = (&core.first, &core.start, &core.end) {
            core.printer.sides(&sides::Sides::new((start, end), Some((second, last))));
        }
    }

    /// Only the peer's end is waited for, and not for long.
    pub(crate) fn drain(self: &Arc<Self>, core: &mut Core) {
        self.close_flows(core);
        self.disarm_all(core);
        core.phase = Phase::Draining;
        if let Some(control) = &core.control {
            let _ = control.disconnect(Op::Nothing);
        }
        self.arm(core, Alarm::Deadline, LINGER);
        core.later.push(Later::Free);
    }

    /// The server has room for another test from here on.
    pub(crate) fn free(&self, core: &mut Core) {
        core.later.push(Later::Free);
    }

    /// Closes everything.
    pub(crate) fn close(self: &Arc<Self>, core: &mut Core) {
        if core.phase == Phase::Over {
            return;
        }
        core.phase = Phase::Over;
        self.disarm_all(core);
        core.gate.close();
        self.close_flows(core);
        if let Some(pings) = &core.pings {
            pings.end();
        }
        core.pings = None;
        core.flows.clear();
        if let Some(control) = core.control.take() {
            control.close();
        }
        core.later.push(Later::Free);
        core.later.push(Later::Over);
    }
}
