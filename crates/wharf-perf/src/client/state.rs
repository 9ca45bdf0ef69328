//! What a test at the client does, under its lock: connecting, the streams, and the end. What the server says is
//! understood by [`ClientControl`]; what both ends do alike is in [`TestSession`].

use super::hello::Hello;
use super::options::Options;
use super::progress;
use crate::measure::settling::{SETTLE, SETTLE_SILENCE, STORE_MAX, Settling};
use crate::protocol::client::{ClientAction, ClientControl, ClientPhase};
use crate::protocol::parameters::{BLOCK_BYTES, DATAGRAM_BYTES_MAX, Protocol};
use crate::protocol::{Failure, code, datagram, describe, frame, state};
use crate::report::text::plain;
use crate::session::purpose::{Alarm, Purpose};
use crate::session::test::{LINGER, TestSession};
use crate::stream::base::Carrier;
use crate::stream::pings::Pings;
use crate::surroundings::port::{Datagrams, Op, Stream};
use crate::surroundings::processor::Processor;
use crate::surroundings::{socket, system};
use socket2::Type;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use wharf::Buffer;

/// A datagram's size if the connection does not tell its segment size.
const DATAGRAM_BYTES: usize = 1460;
/// How long the end of a test waits for sends that are under way.
const GRACE: Duration = Duration::from_millis(80);
/// Everything that changes.
pub(super) struct State {
    pub(super) session: TestSession,
    control: ClientControl,
    settling: Settling,
    options: Options,
    addresses: Vec<SocketAddr>,
    /// How many of them were tried.
    tried: usize,
    /// The one that was tried last.
    peer: SocketAddr,
    /// The datagram stream that is being made.
    hello: Option<Hello>,
    /// The end is to be told to whoever waits for it.
    pub(super) over: bool,
}

impl State {
    /// A test as the options want it; there is at least one address.
    pub(super) fn new(session: TestSession, options: &Options, addresses: Vec<SocketAddr>) -> State {
        State {
            session,
            control: ClientControl::new(options.parameters.two_phase),
            settling: Settling::new(0),
            options: options.clone(),
            peer: addresses[0],
            addresses,
            tried: 0,
            hello: None,
            over: false,
        }
    }

    pub(super) fn alarm(&mut self, alarm: Alarm, number: u32) {
        if !self.session.timers.fires(alarm, number) {
            return;
        }
        let runs = self.control.phase() == ClientPhase::Running;
        match alarm {
            Alarm::Deadline => self.too_late(),
            Alarm::Tick if runs => self.session.tick(),
            Alarm::Omit if runs => {
                self.session.omit_over();
                self.count();
            }
            Alarm::End => self.stop_sending(),
            Alarm::Settle => self.settle(),
            Alarm::Watch if runs => self.watch(),
            Alarm::Live if runs => self.session.live(),
            Alarm::Hello => self.hello_again(),
            Alarm::Tick | Alarm::Omit | Alarm::Watch | Alarm::Live | Alarm::Guard | Alarm::Limit => {}
        }
    }

    /// The phase has lasted too long.
    fn too_late(&mut self) {
        let failure = match self.control.phase() {
            ClientPhase::Draining => return self.close(),
            ClientPhase::Results => Failure::new(code::RESULTS, "unable to receive results: they did not come in time"),
            ClientPhase::Connecting => {
                Failure::new(code::CONNECT, "unable to connect to server: no answer in time (--connect-timeout)")
            }
            _ => Failure::new(code::SILENCE, "the server has been silent for too long (--rcv-timeout)"),
        };
        self.fail(failure);
    }

    /// The server has its time for the next word.
    fn wait(&mut self) {
        self.session.timers.arm(Alarm::Deadline, self.session.receive_timeout);
    }

    // --- The control connection ---

    /// Tries the next address of the server.
    pub(super) fn connect_next(&mut self, last: Option<io::Error>) {
        let Some(peer) = self.addresses.get(self.tried).copied() else {
            let why = last.map_or_else(|| "no address is left".into(), |error| error.to_string());
            return self.fail(Failure::new(code::CONNECT, format!("unable to connect to server: {why}")));
        };
        self.tried += 1;
        self.peer = peer;
        let socket = match socket::open(Type::STREAM, &peer, &self.options.origin, 0, None) {
            Ok(socket) => socket,
            Err(failure) => return self.fail(failure),
        };
        let op = self.session.op(Purpose::Control);
        match self.session.port.connect_with(socket.into(), peer, (), op) {
            Ok(stream) => self.session.connection.set(stream),
            Err(refused) => return self.connect_next(Some(refused.error)),
        }
        if let Some(timeout) = self.options.connect_timeout {
            self.session.timers.arm(Alarm::Deadline, timeout);
        }
    }

    pub(super) fn connected(&mut self, stream: Stream, result: io::Result<()>) {
        if self.control.phase() != ClientPhase::Connecting {
            return;
        }
        if let Err(error) = result {
            return self.connect_next(Some(error));
        }
        let session = &mut self.session;
        let _ = stream.set_nodelay(true);
        socket::keep_alive(&stream, &self.options.machinery.keep_alive);
        session.processor = Processor::now();
        if session.parameters.len == 0 {
            session.parameters.len = match session.parameters.protocol {
                Protocol::Tcp => BLOCK_BYTES,
                Protocol::Udp => match system::segment_bytes(&stream) as usize {
                    0 => DATAGRAM_BYTES,
                    bytes => bytes.min(DATAGRAM_BYTES_MAX),
                },
            };
        }
        session.connection.set(stream);
        self.control.connected();
        session.connection.send(session.cookie.bytes().to_vec());
        session.connection.receive();
        self.wait();
    }

    /// Bytes of the server.
    pub(super) fn received(&mut self, bytes: &[u8], result: io::Result<usize>) {
        let ended = !matches!(result, Ok(1..));
        match self.control.phase() {
            ClientPhase::Over => return,
            ClientPhase::Draining if ended => return self.close(),
            ClientPhase::Draining => return self.session.connection.receive(),
            _ => {}
        }
        if let Err(failure) = self.control.push(bytes) {
            self.fail(failure);
        }
        self.hear(ended);
        match self.control.phase() {
            ClientPhase::Over => {}
            ClientPhase::Draining if ended => self.close(),
            _ if ended => {
                let text = match result {
                    Ok(_) => describe(code::CONTROL_CLOSED),
                    Err(error) => format!("{}: {error}", describe(code::CONTROL_CLOSED)),
                };
                self.fail(Failure::new(code::CONTROL_CLOSED, text));
                self.close();
            }
            _ => self.session.connection.receive(),
        }
    }

    /// Does what the server has asked for so far.
    fn hear(&mut self, ended: bool) {
        while let Some(action) = self.control.next(ended) {
            match action {
                ClientAction::SendParameters => {
                    self.session.connection.send(frame(&self.session.parameters.to_json()));
                    self.wait();
                }
                ClientAction::MakeStreams => {
                    if self.session.parameters.omit == 0 {
                        self.count();
                    }
                    self.wait();
                    self.next_stream();
                }
                ClientAction::Begin => {
                    self.session.begin();
                    self.wait();
                }
                ClientAction::Run => self.run(),
                ClientAction::SendResults => self.send_results(),
                ClientAction::TakeResults(results) => {
                    self.session.remote = Some(*results);
                    self.wait();
                }
                ClientAction::Finish => self.finish(),
                // While a test runs nothing else is waited for: the numbers may never come.
                ClientAction::AwaitError => self.wait(),
                ClientAction::Fail(failure) => self.fail(failure),
            }
        }
    }

    // --- Streams ---

    fn next_stream(&mut self) {
        let session = &mut self.session;
        let made = session.streams.len();
        if made == session.parameters.streams() {
            self.control.streams_made();
            self.wait();
            return self.hear(false);
        }
        let local_port = match self.options.client_port {
            0 => 0,
            first => first.wrapping_add(made as u16),
        };
        let parameters = &session.parameters;
        let udp = parameters.protocol == Protocol::Udp;
        let kind = if udp { Type::DGRAM } else { Type::STREAM };
        let socket = socket::open(kind, &self.peer, &self.options.origin, local_port, Some(parameters));
        let labelled = socket.and_then(|socket| {
            let to = system::label(&socket, self.peer, parameters.flow_label)?;
            Ok((socket, to))
        });
        let (socket, to) = match labelled {
            Ok(labelled) => labelled,
            Err(failure) => return self.fail(failure),
        };
        let op = session.op(Purpose::Stream);
        if !udp {
            if let Err(refused) = session.port.connect_with(socket.into(), to, (), op) {
                self.fail(Failure::system(code::STREAM_CONNECT, &refused.error));
            }
            return;
        }
        let ready = system::connect(&socket, &to).map(|()| std::net::UdpSocket::from(socket));
        let socket: io::Result<Datagrams> = ready.and_then(|socket| Ok(session.port.associate(socket, ())?));
        match socket {
            Ok(socket) => {
                let hello = Hello::say(socket, op);
                session.timers.arm(Alarm::Hello, hello.patience());
                self.hello = Some(hello);
            }
            Err(error) => self.fail(Failure::system(code::STREAM_CONNECT, &error)),
        }
    }

    pub(super) fn stream_connected(&mut self, stream: Stream, result: io::Result<()>) {
        if self.control.phase() != ClientPhase::Streams {
            return;
        }
        if let Err(error) = result {
            return self.fail(Failure::system(code::STREAM_CONNECT, &error));
        }
        if let Some(timeout) = self.options.send_timeout {
            let _ = system::send_timeout(&stream, timeout);
        }
        let local = stream.local_addr().unwrap_or(self.peer);
        let _ = stream.send(self.session.cookie.bytes().to_vec(), Op::Nothing);
        self.session.add_stream(Carrier::Tcp(stream), plain(local), plain(self.peer));
        self.next_stream();
    }

    fn hello_again(&mut self) {
        let Some(hello) = &mut self.hello else { return };
        match hello.say_again() {
            Ok(()) => self.session.timers.arm(Alarm::Hello, hello.patience()),
            Err(failure) => self.fail(failure),
        }
    }

    pub(super) fn hello_answered(&mut self, socket: Datagrams, buffer: Buffer, result: io::Result<usize>) {
        if self.control.phase() != ClientPhase::Streams {
            return;
        }
        match result {
            Ok(_) if datagram::is_reply(&buffer) => {
                self.hello = None;
                self.session.timers.disarm(Alarm::Hello);
                let local = socket.local_addr().unwrap_or(self.peer);
                self.session.add_stream(Carrier::Udp(socket, self.peer), local, self.peer);
                self.next_stream();
            }
            Ok(_) => {
                let text = "unable to read from stream socket: the answer to the hello is another";
                self.fail(Failure::new(code::STREAM_READ, text));
            }
            // Not there yet: the hello is said again.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                let _ = socket.recv_from(buffer, self.session.op(Purpose::Stream));
            }
            Err(error) => self.fail(Failure::system(code::STREAM_READ, &error)),
        }
    }

    // --- The test ---

    /// What ends the test counts from now. Set before there are streams: in the reverse direction data may come before
    /// the word that the test has begun.
    fn count(&mut self) {
        self.session.count_pings();
        // In a test of both directions, or of the reverse one, what the server sends counts as well.
        let (control, parameters) = (&self.session.send_control, &self.session.parameters);
        control.want(parameters.num, parameters.blocks);
        if let Some(blocks) = parameters.blocks_wanted() {
            control.limit(blocks);
        }
    }

    fn run(&mut self) {
        let session = &mut self.session;
        session.timers.disarm(Alarm::Deadline);
        if session.parameters.time > 0 && session.parameters.blocks_wanted().is_none() {
            let time = Duration::from_secs(session.parameters.time + session.parameters.omit);
            session.timers.arm(Alarm::End, time);
        }
        if session.parameters.latency {
            self.begin_pings();
        }
        self.session.run();
        // All that is wanted may have come before the word that the test runs.
        if self.session.send_control.is_reached() {
            self.stop_sending();
        }
    }

    fn begin_pings(&mut self) {
        let session = &mut self.session;
        if let Ok(socket) = socket::open(Type::STREAM, &self.peer, &self.options.origin, 0, None) {
            let pings = Pings::ask(&session.port, socket.into(), self.peer, session.cookie);
            if session.parameters.omit == 0 {
                pings.count();
            }
            session.pings = Some(pings);
        }
    }

    /// Looks whether anything moves.
    fn watch(&mut self) {
        let session = &mut self.session;
        let moved = session.streams.moved();
        let silence = session.measurement.silence(moved);
        if progress::is_complete(session, moved, silence) {
            return self.stop_sending();
        }
        if progress::must_move(session) && silence >= session.receive_timeout {
            return self.fail(Failure::new(code::SILENCE, describe(code::SILENCE)));
        }
        session.arm_watch();
    }

    // --- The end ---

    /// What was wanted has moved.
    pub(super) fn reached(&mut self, round: u32) {
        if !self.session.measurement.is_omitting() && self.control.round() == round {
            self.stop_sending();
        }
    }

    /// The test's time is over, or all has moved: the client stops, waits for what is under way, and tells.
    fn stop_sending(&mut self) {
        if self.control.phase() != ClientPhase::Running {
            return;
        }
        self.control.stopped();
        self.settling = Settling::new(self.session.streams.moved());
        if self.session.send_control.close() {
            self.take_totals();
        } else {
            self.session.timers.arm(Alarm::Settle, GRACE);
        }
    }

    /// No stream sends any more.
    pub(super) fn quiet(&mut self, round: u32) {
        if self.control.phase() == ClientPhase::Settling && self.control.round() == round {
            self.take_totals();
        }
    }

    fn settle(&mut self) {
        match self.control.phase() {
            ClientPhase::Settling => self.take_totals(),
            ClientPhase::Counted => self.wait_for_arrival(),
            ClientPhase::Told => self.send_results(),
            _ => {}
        }
    }

    fn take_totals(&mut self) {
        let session = &mut self.session;
        session.timers.disarm(Alarm::Settle);
        session.take_totals(session.measurement.seconds());
        self.control.counted();
        // A test by time is cut off where it is. One by amount is not over before the amount is there, and a stock
        // server stops to count as soon as it is told.
        let by_amount = session.parameters.blocks_wanted().is_some() || session.file.is_some();
        match by_amount && session.streams.send() {
            true => session.timers.arm(Alarm::Settle, SETTLE),
            false => self.tell_the_end(),
        }
    }

    /// Waits until the peer's system has all that was sent, and then as long again.
    fn wait_for_arrival(&mut self) {
        let unsent = self.session.streams.tcp().map(system::unsent_bytes).sum::<u64>();
        let moves = self.settling.look(unsent);
        let waits = moves || unsent > 0 && self.settling.silence() < SETTLE_SILENCE;
        if waits && self.settling.elapsed() < self.session.receive_timeout {
            return self.session.timers.arm(Alarm::Settle, SETTLE);
        }
        self.tell_the_end();
    }

    fn tell_the_end(&mut self) {
        self.control.told();
        self.session.connection.send_state(state::TEST_END);
        self.wait();
    }

    /// The server has stopped; its results are next, once all that came is stored.
    fn send_results(&mut self) {
        let session = &mut self.session;
        if session.streams.is_storing() && self.settling.elapsed() < STORE_MAX {
            return session.timers.arm(Alarm::Settle, SETTLE);
        }
        session.count_late_datagrams();
        session.connection.send(frame(&session.results(None).to_json()));
        self.control.results_sent(session.streams.ids(), session.parameters.get_server_output);
        self.wait();
        self.hear(false);
    }

    /// Both ends have told their results.
    fn finish(&mut self) {
        let session = &mut self.session;
        let end = session.make_end();
        if let (Some(start), Some(end)) = (session.start.clone(), &end) {
            session.printer.ended(&start, end);
        }
        session.end = end;
        if self.control.is_first_of_two() && session.remote.as_ref().is_some_and(|remote| remote.two_phase) {
            session.connection.send_state(state::SECOND_PHASE);
            session.second_phase();
            self.control.second_phase();
            return self.wait();
        }
        session.print_sides();
        session.printer.line("");
        session.printer.line("iperf Done.");
        session.connection.send_state(state::DONE);
        session.streams.close();
        self.control.drain();
        session.connection.disconnect();
        session.timers.arm(Alarm::Deadline, LINGER);
    }

    pub(super) fn interrupted(&mut self) {
        self.fail(Failure::new(code::CLIENT_TERMINATED, "interrupt - the client has terminated"));
    }

    /// It cannot go on: the server is told, the streams are closed, the report says why.
    fn fail(&mut self, failure: Failure) {
        if matches!(self.control.phase(), ClientPhase::Draining | ClientPhase::Over) {
            return;
        }
        match failure.code {
            code::CLIENT_TERMINATED => self.session.connection.send_state(state::CLIENT_TERMINATE),
            code::SERVER_TERMINATED | code::MESSAGE => self.session.connection.send_state(state::DONE),
            _ => {}
        }
        self.session.report_failure(failure);
        self.close();
    }

    /// Closes everything.
    fn close(&mut self) {
        if self.control.phase() == ClientPhase::Over {
            return;
        }
        self.control.close();
        self.session.close();
        if let Some(hello) = self.hello.take() {
            hello.close();
        }
        self.over = true;
    }
}
