//! What a test at the server does, under its lock: the parameters, the streams, and the end. What the client says is
//! understood by [`ServerControl`]; what both ends do alike is in [`TestSession`].

use super::options::Options;
use super::{limits, sockets};
use crate::measure::rate_limit::RateLimit;
use crate::measure::settling::{SETTLE, SETTLE_ROUNDS, SETTLE_SILENCE, STORE_MAX, Settling};
use crate::protocol::parameters::{Parameters, Protocol};
use crate::protocol::results::Results;
use crate::protocol::server::{ServerAction, ServerControl, ServerPhase};
use crate::protocol::{Failure, code, datagram, describe, frame, state};
use crate::report::text::plain;
use crate::session::purpose::Alarm;
use crate::session::test::{LINGER, TestSession};
use crate::stream::base::Carrier;
use crate::stream::pings::Pings;
use crate::surroundings::port::{Datagrams, Op, Stream};
use crate::surroundings::processor::Processor;
use crate::surroundings::{file, socket, system};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Connections with a wrong cookie that a test bears while it waits for its streams.
const FOREIGN_STREAMS_MAX: u32 = 16;
/// What a server adds to the time of a test before it ends it.
const GUARD: Duration = Duration::from_secs(40);

/// What a test uses of its server's. Asked under the test's lock.
pub(super) trait Resources: Send + Sync {
    /// Where the server listens.
    fn address(&self) -> SocketAddr;
    /// What a client asks for with `-A n,m`: of the whole process, until no test is left.
    fn use_processor(&self, number: u32) -> io::Result<()>;
    /// Makes sure that hellos are heard.
    fn listen_for_hellos(self: Arc<Self>) -> io::Result<()>;
}

/// Everything that changes.
pub(super) struct State {
    session: TestSession,
    control: ServerControl,
    settling: Settling,
    options: Options,
    resources: Arc<dyn Resources>,
    /// The connections that are to be the streams, with their numbers, until all are there.
    arrivals: Vec<(u64, Stream, SocketAddr)>,
    foreign_streams: u32,
    limit: Option<RateLimit>,
    /// The server has room for another test from here on.
    pub(super) frees_place: bool,
    pub(super) over: bool,
}

impl State {
    /// A test whose control connection is still to come.
    pub(super) fn new(session: TestSession, options: &Options, resources: Arc<dyn Resources>) -> State {
        State {
            session,
            control: ServerControl::new(options.max_parameter_bytes),
            settling: Settling::new(0),
            options: options.clone(),
            resources,
            arrivals: Vec::new(),
            foreign_streams: 0,
            limit: None,
            frees_place: false,
            over: false,
        }
    }

    /// Whether it needs no place any more.
    pub(super) fn is_past(&self) -> bool {
        match self.control.phase() {
            ServerPhase::Display => !self.control.is_first_of_two(),
            phase => matches!(phase, ServerPhase::Draining | ServerPhase::Over),
        }
    }

    pub(super) fn alarm(&mut self, alarm: Alarm, number: u32) {
        if !self.session.timers.fires(alarm, number) {
            return;
        }
        let runs = self.control.phase() == ServerPhase::Running;
        match alarm {
            Alarm::Deadline => self.too_late(),
            Alarm::Tick if runs => self.session.tick(),
            Alarm::Omit if runs => {
                self.session.omit_over();
                self.count();
            }
            Alarm::Settle if self.control.phase() == ServerPhase::Settling => self.settle(),
            Alarm::Guard => self.fail(Failure::new(code::EXPIRED, describe(code::EXPIRED))),
            Alarm::Watch if runs => self.watch(),
            Alarm::Live if runs => self.session.live(),
            Alarm::Limit if runs => self.look_at_the_rate(),
            _ => {}
        }
    }

    /// The phase has lasted too long.
    fn too_late(&mut self) {
        let failure = match self.control.phase() {
            ServerPhase::Draining | ServerPhase::Display => return self.close(),
            ServerPhase::Greeting => {
                Failure::new(code::PARAMETERS, "unable to receive parameters from client: they did not come in time")
            }
            ServerPhase::Streams => {
                let there = self.session.streams.len() + self.arrivals.len();
                let wanted = self.session.parameters.streams();
                Failure::new(code::SILENCE, format!("only {there} of {wanted} streams came in time"))
            }
            ServerPhase::Results => Failure::new(code::RESULTS, "unable to receive results: they did not come in time"),
            // No time is set to these.
            ServerPhase::Running | ServerPhase::Settling | ServerPhase::Over => return,
        };
        self.fail(failure);
    }

    /// The client has so long for a step between two ends.
    fn wait(&mut self) {
        self.session.timers.arm(Alarm::Deadline, self.options.setup_timeout);
    }

    // --- The control connection ---

    pub(super) fn greet(&mut self, stream: Stream, peer: SocketAddr) {
        let session = &mut self.session;
        session.host = peer.ip().to_string();
        session.host_port = peer.port();
        socket::keep_alive(&stream, &self.options.machinery.keep_alive);
        session.connection.set(stream);
        session.connection.send_state(state::PARAM_EXCHANGE);
        session.timers.arm(Alarm::Deadline, self.options.handshake_timeout);
        session.connection.receive();
    }

    /// Bytes of the client.
    pub(super) fn received(&mut self, bytes: &[u8], result: io::Result<usize>) {
        let ended = !matches!(result, Ok(1..));
        match self.control.phase() {
            ServerPhase::Over => return,
            ServerPhase::Draining if ended => return self.close(),
            ServerPhase::Draining => return self.session.connection.receive(),
            _ => {}
        }
        if let Err(failure) = self.control.push(bytes) {
            self.fail(failure);
        }
        self.hear(ended);
        match self.control.phase() {
            ServerPhase::Over => {}
            ServerPhase::Draining if ended => self.close(),
            _ if ended => {
                let text = match result {
                    Ok(_) => "the client has unexpectedly closed the connection".into(),
                    Err(error) => format!("{}: {error}", describe(code::CONTROL_CLOSED)),
                };
                self.fail(Failure::new(code::CONTROL_CLOSED, text));
                self.close();
            }
            _ => self.session.connection.receive(),
        }
    }

    /// Does what the client has asked for so far.
    fn hear(&mut self, ended: bool) {
        while let Some(action) = self.control.next(ended) {
            match action {
                ServerAction::Agree(parameters) => {
                    if let Err(failure) = self.agree(*parameters) {
                        return self.fail(failure);
                    }
                }
                ServerAction::End => self.end_told(),
                ServerAction::TakeResults(results) => self.tell(*results),
                ServerAction::SecondPhase => {
                    self.session.second_phase();
                    self.foreign_streams = 0;
                    self.session.connection.send_state(state::CREATE_STREAMS);
                    self.wait();
                }
                ServerAction::Goodbye => self.close(),
                ServerAction::GivenUp(failure) => {
                    self.fail(failure);
                    self.close();
                }
                ServerAction::Fail(failure) => self.fail(failure),
            }
        }
    }

    /// Whether the test can be, and if so, what is needed for it.
    fn agree(&mut self, parameters: Parameters) -> Result<(), Failure> {
        limits::allow(&self.options, &parameters)?;
        if let Some(processor) = parameters.server_affinity {
            let chosen = self.resources.use_processor(processor);
            chosen.map_err(|error| Failure::system(code::AFFINITY, &error))?;
        }
        let session = &mut self.session;
        if let Some(path) = &self.options.file {
            session.file = Some(file::open(&session.port, path, &parameters, parameters.reverse)?);
        }
        if parameters.window > 0 {
            sockets::try_buffers(parameters.window)?;
        }
        if parameters.protocol == Protocol::Udp {
            let listens = self.resources.clone().listen_for_hellos();
            listens.map_err(|error| Failure::system(code::STREAM_LISTEN, &error))?;
        }
        if parameters.get_server_output {
            session.printer.capture();
        }
        // Of the JSON object only: a stranger's text is nothing for a terminal.
        for (key, text) in [("title", &parameters.title), ("extra_data", &parameters.extra_data)] {
            if let Some(text) = text {
                session.printer.extra(key, text.as_str().into());
            }
        }
        let line = format!("Accepted connection from {}, port {}", session.host, session.host_port);
        session.printer.line(&line);
        self.control.agreed(parameters.two_phase);
        session.parameters = parameters;
        session.connection.send_state(state::CREATE_STREAMS);
        self.wait();
        Ok(())
    }

    // --- Streams ---

    /// A connection with this test's cookie. Cookies overtake each other; the streams are what they are by the order of
    /// their connections, so they wait for each other.
    pub(super) fn offer(&mut self, stream: Stream, peer: SocketAddr, number: u64) -> Result<(), Stream> {
        let session = &mut self.session;
        let parameters = &session.parameters;
        let phase = self.control.phase();
        let tcp = parameters.protocol == Protocol::Tcp;
        if tcp && phase == ServerPhase::Streams && self.arrivals.len() < parameters.streams() {
            if let Err(failure) = system::with_socket(&stream, |socket| socket::prepare(&socket, parameters, false)) {
                self.fail(failure);
                return Err(stream);
            }
            self.arrivals.push((number, stream, peer));
            if self.arrivals.len() == parameters.streams() {
                let mut arrivals = std::mem::take(&mut self.arrivals);
                arrivals.sort_by_key(|&(number, ..)| number);
                for (_, stream, peer) in arrivals {
                    let local = stream.local_addr().unwrap_or(peer);
                    session.add_stream(Carrier::Tcp(stream), plain(local), peer);
                }
                self.begin_if_complete();
            }
            return Ok(());
        }
        if parameters.latency && phase == ServerPhase::Running && session.pings.is_none() {
            session.pings = Some(Pings::answer(&session.port, stream));
            return Ok(());
        }
        Err(stream)
    }

    /// A connection with a wrong cookie has come, which is borne for a while if this test waits for its streams.
    pub(super) fn foreign_stream(&mut self) {
        if self.control.phase() == ServerPhase::Streams {
            self.foreign_streams += 1;
            if self.foreign_streams > FOREIGN_STREAMS_MAX {
                let text = "too many connections with wrong cookies while the streams were waited for";
                self.fail(Failure::new(code::STREAM_CREATE, text));
            }
        }
    }

    pub(super) fn hello_from(&mut self, from: SocketAddr) -> bool {
        let session = &mut self.session;
        let waits = self.control.phase() == ServerPhase::Streams && session.parameters.protocol == Protocol::Udp;
        let ours = waits && session.host == from.ip().to_string();
        if ours && session.streams.iter().all(|stream| stream.info().peer != from) {
            match self.datagram_stream(from) {
                Ok((socket, local)) => {
                    let _ = socket.send(&datagram::REPLY, Op::Nothing);
                    self.session.add_stream(Carrier::Udp(socket, from), local, from);
                    self.begin_if_complete();
                }
                Err(failure) => self.fail(failure),
            }
        }
        ours
    }

    /// A socket of its own for a datagram stream, on the server's port and at the address that the client talks to.
    fn datagram_stream(&self, from: SocketAddr) -> Result<(Datagrams, SocketAddr), Failure> {
        let session = &self.session;
        let control = session.connection.stream().and_then(|control| control.local_addr().ok());
        let control = control.ok_or_else(|| Failure::new(code::STREAM_CREATE, describe(code::STREAM_CREATE)))?;
        let mut local = plain(control);
        local.set_port(self.resources.address().port());
        let socket = sockets::datagram_stream(&self.options, &session.parameters, local, from)?;
        let socket = session.port.associate(socket, ());
        let socket = socket.map_err(|rejected| Failure::system(code::STREAM_CREATE, &rejected.error))?;
        Ok((socket, local))
    }

    fn begin_if_complete(&mut self) {
        let session = &mut self.session;
        if session.streams.len() < session.parameters.streams() {
            return;
        }
        session.timers.disarm(Alarm::Deadline);
        session.processor = Processor::now();
        session.begin();
        if !session.measurement.is_omitting() {
            self.count();
        }
        let session = &mut self.session;
        if let Some(limit) = self.options.bitrate_limit {
            let limit = RateLimit::new(limit, self.options.bitrate_window, Instant::now());
            session.timers.arm(Alarm::Limit, limit.period());
            self.limit = Some(limit);
        }
        if session.parameters.time > 0 {
            let time = Duration::from_secs(session.parameters.time + session.parameters.omit);
            session.timers.arm(Alarm::Guard, time + GUARD);
        }
        session.connection.send(vec![state::TEST_START as u8, state::TEST_RUNNING as u8]);
        self.control.running();
        session.run();
    }

    // --- The test ---

    /// What the server sends counts from now. In a test of two phases its client is ours, and stops a sender that has
    /// sent enough: both phases have the same number of blocks.
    fn count(&mut self) {
        let parameters = &self.session.parameters;
        if let (true, Some(blocks)) = (parameters.two_phase, parameters.blocks_wanted()) {
            self.session.send_control.limit(blocks);
        }
    }

    /// Looks whether anything moves.
    fn watch(&mut self) {
        let session = &mut self.session;
        let moved = session.streams.moved();
        let silence = session.measurement.silence(moved);
        // A sender that stands still is as bad, unless it has sent its file or is to send less often.
        let must_move = session.streams.still_receive() || session.streams.send_every(session.receive_timeout / 4);
        if must_move && silence >= session.receive_timeout {
            return self.fail(Failure::new(code::SILENCE, describe(code::SILENCE)));
        }
        session.arm_watch();
    }

    /// A test that is faster than agreed, or that agreed to nothing, ends here.
    fn look_at_the_rate(&mut self) {
        let Some(limit) = &mut self.limit else { return };
        if limit.is_exceeded(Instant::now(), self.session.streams.moved()) {
            return self.fail(Failure::new(code::BANDWIDTH, describe(code::BANDWIDTH)));
        }
        self.session.timers.arm(Alarm::Limit, limit.period());
    }

    // --- The end ---

    /// The client has told the end. In a test by time the clock stops here, and the counters with it, as iperf3's do:
    /// what comes later is no part of the rate. One by amount goes on until the amount is there, and so does its clock.
    fn end_told(&mut self) {
        let session = &mut self.session;
        session.send_control.close();
        self.settling = Settling::new(session.streams.moved());
        let receives = session.streams.receive();
        let stops = receives && session.parameters.blocks_wanted().is_none() && session.file.is_none();
        if stops {
            session.take_totals(session.measurement.seconds());
        }
        // In the second phase the last blocks have arrived, though it may not have been heard here that they are gone.
        let gone = !session.parameters.two_phase || session.send_control.is_quiet();
        // Of datagrams it is still to be seen which were lost.
        let waits = receives && !(stops && session.parameters.protocol == Protocol::Tcp);
        match waits || !gone {
            true => session.timers.arm(Alarm::Settle, SETTLE),
            false => self.settled(),
        }
    }

    /// A receiving server takes what is still on its way. Of the datagrams of a test by time that is little; in one by
    /// amount it is known what has to come, and the client has seen to it that it did.
    fn settle(&mut self) {
        let session = &mut self.session;
        let moves = self.settling.look(session.streams.moved());
        let received = session.streams.moved_one_way(false);
        let parameters = &session.parameters;
        let wanted = parameters.num.max(parameters.blocks.saturating_mul(parameters.len as u64));
        // With both directions it may be the other one that had its amount.
        let silence = if parameters.bidirectional { 10 * SETTLE } else { SETTLE_SILENCE };
        let sends = parameters.two_phase && !session.send_control.is_quiet();
        let waits = moves && self.settling.rounds() < SETTLE_ROUNDS
            || session.streams.receive() && received < wanted && self.settling.silence() < silence
            || sends && self.settling.elapsed() < SETTLE_SILENCE
            || session.streams.is_storing();
        if waits && self.settling.elapsed() < STORE_MAX {
            return session.timers.arm(Alarm::Settle, SETTLE);
        }
        self.settled();
    }

    /// The counters are final, and the results may be told.
    fn settled(&mut self) {
        let session = &mut self.session;
        if session.measurement.is_closed() {
            session.count_late_datagrams();
        } else {
            // All that is counted moved until then.
            session.take_totals(session.measurement.seconds_until(self.settling.moved_at()));
        }
        session.streams.close();
        self.control.counted(session.streams.ids());
        session.connection.send_state(state::EXCHANGE_RESULTS);
        self.wait();
        self.hear(false);
    }

    /// The client has told its results: ours, and the report.
    fn tell(&mut self, results: Results) {
        let session = &mut self.session;
        session.remote = Some(results);
        let mut output = None;
        if let (Some(start), Some(mut end)) = (session.start.clone(), session.make_end()) {
            end.server_output = None;
            session.printer.ended(&start, &end);
            output = session.printer.server_output(&start, &end);
            session.end = Some(end);
        }
        session.connection.send(frame(&session.results(output).to_json()));
        session.connection.send_state(state::DISPLAY_RESULTS);
        self.control.results_sent();
        self.wait();
        if !self.control.is_first_of_two() {
            self.session.print_sides();
            self.frees_place = true;
        }
    }

    /// It cannot go on: the client is told, the streams are closed, the report says why. What the client still sends is
    /// read for a moment, so that it gets to see the reason.
    pub(super) fn fail(&mut self, failure: Failure) {
        let gone = failure.code == code::CONTROL_CLOSED;
        match self.control.phase() {
            ServerPhase::Draining | ServerPhase::Over => return,
            ServerPhase::Display => {
                // The report is out; only the goodbye was missing.
                log::info!("{failure}");
                return self.close();
            }
            _ => {}
        }
        match failure.code {
            code::SERVER_TERMINATED => self.session.connection.send_state(state::SERVER_TERMINATE),
            code::CONTROL_CLOSED | code::CLIENT_TERMINATED => {}
            _ => self.session.connection.send(failure.frame().to_vec()),
        }
        self.session.report_failure(failure);
        if gone {
            return self.close();
        }
        self.close_streams();
        self.session.timers.disarm_all();
        self.control.drain();
        self.session.connection.disconnect();
        self.session.timers.arm(Alarm::Deadline, LINGER);
        self.frees_place = true;
    }

    /// Also those that are not complete.
    fn close_streams(&mut self) {
        self.session.streams.close();
        self.arrivals.drain(..).for_each(|(_, stream, _)| stream.close());
    }

    /// Closes everything.
    pub(super) fn close(&mut self) {
        if self.control.phase() == ServerPhase::Over {
            return;
        }
        self.control.close();
        self.close_streams();
        self.session.close();
        self.frees_place = true;
        self.over = true;
    }
}
