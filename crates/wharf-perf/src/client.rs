//! The client: `run` makes one test against a server, ours or iperf3's.

use crate::flow::Link;
use crate::latency::Pings;
pub use crate::machinery::Machinery;
use crate::op::{self, Op, Port, Stream, UdpSocket};
use crate::output::{Form, Printer, Sink, Voice};
use crate::parameters::{Parameters, Protocol};
use crate::protocol::{Cookie, Failure, code, describe, frame, state};
use crate::report::sides::Sides;
use crate::report::{End, Interval, Role, Start};
use crate::results::Results;
use crate::session::{Alarm, Core, LINGER, Phase, Session};
use crate::socket;
pub use crate::socket::{KeepAlive, Origin, use_processor};
use crate::{datagram, report::human::plain};
use socket2::Type;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;
use wharf::Buffer;

/// A hello that was not answered is said again after so long, and once more after twice as long: not earlier, because a stock
/// server that did get it takes the second for data.
const HELLO_AGAIN: Duration = Duration::from_secs(1);
const HELLOS_MAX: u32 = 3;
/// What the answer to the last hello may take.
const HELLO_LAST: Duration = Duration::from_secs(27);
/// A datagram's size if the connection does not tell its segment size.
const DATAGRAM_BYTES: usize = 1460;

/// A test to be made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name or address.
    pub host: String,
    /// Of the control connection, the streams and the datagrams.
    pub port: u16,
    /// What to do. `len` 0: the default, which for UDP is the connection's segment size.
    pub parameters: Parameters,
    /// Only IPv4 (4) or IPv6 (6).
    pub family: Option<u8>,
    /// Where this end's sockets are.
    pub origin: Origin,
    /// The first stream's own port; the next ones follow. 0: any.
    pub client_port: u16,
    /// For the control connection; `None`: as long as the system tries.
    pub connect_timeout: Option<Duration>,
    /// A receiver that got nothing for so long gives up; so does a client whose server says nothing.
    pub receive_timeout: Duration,
    /// Unacknowledged data breaks a stream after so long.
    pub send_timeout: Option<Duration>,
    /// Between two reports; zero: only the end.
    pub interval: Duration,
    /// The form of the report.
    pub form: Form,
    /// What it runs on.
    pub machinery: Machinery,
    /// Sent instead of random bytes, or what is received goes there. Of one TCP stream.
    pub file: Option<PathBuf>,
    /// A line in front of the report.
    pub announce: Option<String>,
}

impl Options {
    /// A test of ten seconds against this server.
    pub fn new(host: impl Into<String>, port: u16) -> Options {
        Options {
            host: host.into(),
            port,
            parameters: Parameters::default(),
            family: None,
            origin: Origin::default(),
            client_port: 0,
            connect_timeout: None,
            receive_timeout: Duration::from_secs(30),
            send_timeout: None,
            interval: Duration::from_secs(1),
            form: Form::default(),
            machinery: Machinery::default(),
            file: None,
            announce: None,
        }
    }
}

/// What a test came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Known as soon as the streams were there.
    pub start: Option<Start>,
    /// As they were reported.
    pub intervals: Vec<Interval>,
    /// The totals; after a failure what was known then.
    pub end: Option<End>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Of a test in two phases whose second has begun, the first; the rest is about the second.
    pub first: Option<Box<Outcome>>,
    /// What moved the bytes.
    pub engine: String,
}

impl Outcome {
    /// Both phases side by side, of a test that had two.
    pub fn sides(&self) -> Option<Sides> {
        let first = self.first.as_ref()?;
        let (start, end) = (first.start.as_ref()?, first.end.as_ref()?);
        Some(Sides::new((start, end), self.start.as_ref().zip(self.end.as_ref())))
    }

    fn failed(failure: Failure) -> Outcome {
        Outcome {
            start: None,
            intervals: Vec::new(),
            end: None,
            failure: Some(failure),
            first: None,
            engine: String::new(),
        }
    }
}

/// What only a client has.
pub(crate) struct ClientSide {
    addresses: Vec<SocketAddr>,
    tried: usize,
    peer: SocketAddr,
    options: Options,
    hello: Option<(UdpSocket, u32)>,
    done: Sender<()>,
    last_words: bool,
}

/// Makes a test, and reports to `sink` while it runs. Returns when it is over.
///
/// Ctrl+C ends the test early: what is known is reported, and the server is told.
pub fn run(options: &Options, sink: Box<dyn Sink>) -> Outcome {
    let voice = Voice::new(sink);
    let outcome = run_with(options, &voice);
    voice.finish();
    outcome
}

fn run_with(options: &Options, voice: &Arc<Voice>) -> Outcome {
    let mut printer = Printer::new(options.form.clone(), voice.clone());
    let fail = |mut printer: Printer, failure: Failure| {
        printer.failed(None, None, &failure);
        Outcome::failed(failure)
    };
    let parameters = &options.parameters;
    if let Some(title) = &parameters.title {
        printer.extra("title", title.as_str().into());
        printer.set_prefix(format!("{title}:  "));
    }
    if let Some(text) = &parameters.extra_data {
        printer.extra("extra_data", text.as_str().into());
    }
    let addresses = match resolve(options) {
        Ok(addresses) => addresses,
        Err(failure) => return fail(printer, failure),
    };
    let built = options.machinery.port();
    let port: Port = match built {
        Ok(port) => port,
        Err(error) => return fail(printer, Failure::system(code::INIT, &error)),
    };
    let file = match &options.file {
        None => None,
        Some(path) => match socket::open_file(&port, path, parameters, !parameters.reverse) {
            Ok(file) => Some(file),
            Err(failure) => return fail(printer, failure),
        },
    };
    if let Some(text) = &options.announce {
        printer.line(text);
    }
    printer.line(&format!("Connecting to host {}, port {}", options.host, options.port));
    let session = Session::new(&port, Role::Client, Cookie::random(), voice, printer, None);
    let (done, over) = channel();
    let pool = match op::run(&port, options.machinery.threads) {
        Ok(pool) => pool,
        Err(error) => {
            let failure = Failure::system(code::INIT, &error);
            session.enter().printer.failed(None, None, &failure);
            return Outcome::failed(failure);
        }
    };
    for signal in op::ENDING_SIGNALS {
        let _ = port.signal(signal, (), Op::Interrupt(session.clone()));
    }
    let mut core = session.enter();
    core.parameters = parameters.clone();
    core.host.clone_from(&options.host);
    core.host_port = options.port;
    core.interval = options.interval;
    core.receive_timeout = options.receive_timeout;
    core.file = file;
    core.client = Some(Box::new(ClientSide {
        peer: addresses[0],
        addresses,
        tried: 0,
        options: options.clone(),
        hello: None,
        done,
        last_words: false,
    }));
    session.connect_next(&mut core, None);
    session.leave(core);
    let _ = over.recv();
    port.close();
    pool.join();
    let mut core = session.enter();
    let engine = core.engine.clone();
    let first = core.first.take().map(|(start, end, intervals)| {
        let (start, end, engine) = (Some(start), Some(end), engine.clone());
        Box::new(Outcome { start, intervals, end, failure: None, first: None, engine })
    });
    Outcome {
        start: core.start.take(),
        intervals: std::mem::take(&mut core.intervals),
        end: core.end.take(),
        failure: core.failure.take(),
        first,
        engine,
    }
}

fn resolve(options: &Options) -> Result<Vec<SocketAddr>, Failure> {
    let Options { host, port, family, .. } = options;
    let unknown = |why: String| Failure::new(code::CONNECT, format!("unable to connect to server: {why}"));
    let addresses = (&**host, *port).to_socket_addrs();
    let addresses = addresses.map_err(|error| unknown(format!("{host:?}: {error}")))?;
    let fits = |address: &SocketAddr| match family {
        Some(4) => address.is_ipv4(),
        Some(6) => address.is_ipv6(),
        _ => true,
    };
    let addresses: Vec<SocketAddr> = addresses.filter(fits).collect();
    if addresses.is_empty() {
        return Err(unknown(format!("{host:?} has no address of the family that was asked for (-4, -6)")));
    }
    // From an address of one family there is no way to the other.
    let Some(own) = options.origin.address else { return Ok(addresses) };
    let addresses: Vec<SocketAddr> = addresses.into_iter().filter(|it| it.is_ipv4() == own.is_ipv4()).collect();
    match addresses.is_empty() {
        true => Err(unknown(format!("{host:?} has no address of the family of {own} (-B)"))),
        false => Ok(addresses),
    }
}

fn side(core: &mut Core) -> &mut ClientSide {
    core.client.as_mut().expect("set before the first packet")
}

impl Session {
    /// Tries the next address of the server.
    fn connect_next(self: &Arc<Self>, core: &mut Core, last: Option<io::Error>) {
        let client = side(core);
        let Some(peer) = client.addresses.get(client.tried).copied() else {
            let why = last.map_or_else(|| "no address is left".into(), |error| error.to_string());
            return self.fail(core, Failure::new(code::CONNECT, format!("unable to connect to server: {why}")));
        };
        client.tried += 1;
        client.peer = peer;
        let timeout = client.options.connect_timeout;
        let socket = match socket::open(Type::STREAM, &peer, &client.options.origin, 0, None) {
            Ok(socket) => socket,
            Err(failure) => return self.fail(core, failure),
        };
        match self.port.connect_with(socket.into(), peer, (), Op::Connect(self.clone())) {
            Ok(stream) => core.control = Some(stream),
            Err(refused) => return self.connect_next(core, Some(refused.error)),
        }
        if let Some(timeout) = timeout {
            self.arm(core, Alarm::Deadline, timeout);
        }
    }

    pub(crate) fn control_connected(self: &Arc<Self>, stream: Stream, result: io::Result<()>) {
        let mut core = self.enter();
        if core.phase == Phase::Connecting {
            match result {
                Err(error) => self.connect_next(&mut core, Some(error)),
                Ok(()) => {
                    let _ = stream.set_nodelay(true);
                    socket::keep_alive(&stream, &side(&mut core).options.machinery.keep_alive);
                    core.processor = socket::Processor::now();
                    if core.parameters.len == 0 {
                        core.parameters.len = match core.parameters.protocol {
                            Protocol::Tcp => crate::parameters::BLOCK_BYTES,
                            Protocol::Udp => match socket::segment_bytes(&stream) as usize {
                                0 => DATAGRAM_BYTES,
                                bytes => bytes.min(crate::parameters::DATAGRAM_BYTES_MAX),
                            },
                        };
                    }
                    core.control = Some(stream);
                    core.phase = Phase::Greeting;
                    self.send(&core, self.cookie.bytes().to_vec());
                    self.listen_to(&core);
                    self.wait(&mut core);
                }
            }
        }
        self.leave(core);
    }

    fn wait(self: &Arc<Self>, core: &mut Core) {
        self.arm(core, Alarm::Deadline, core.receive_timeout);
    }

    /// What the server has said.
    pub(crate) fn client_heard(self: &Arc<Self>, core: &mut Core, ended: bool) {
        loop {
            match core.phase {
                Phase::Erring => {
                    let Some((code, errno)) = core.input.error_pair(ended) else { return };
                    return self.fail(core, Failure::remote(code, errno));
                }
                Phase::Results => {
                    let most = match core.parameters.get_server_output {
                        true => 64 << 20,
                        false => (64 << 10) + 1024 * core.flows.len(),
                    };
                    let ids: Vec<i64> = core.flows.iter().map(|flow| flow.info.id).collect();
                    let results = match core.input.frame(most) {
                        Ok(None) => return,
                        Ok(Some(map)) => Results::from_json(&map, &ids),
                        Err(bad) => Err(Failure::new(code::RESULTS, format!("unable to receive results: {bad:?}"))),
                    };
                    match results {
                        Ok(results) => {
                            core.remote = Some(results);
                            core.phase = Phase::Display;
                            self.wait(core);
                        }
                        Err(failure) => return self.fail(core, failure),
                    }
                }
                Phase::Draining | Phase::Over => return,
                // The start may be heard before the answer to the last hello.
                Phase::Streams if core.input.next() == Some(state::TEST_START) => return,
                _ => {
                    let Some(state) = core.input.state() else { return };
                    self.client_state(core, state);
                }
            }
        }
    }

    fn client_state(self: &Arc<Self>, core: &mut Core, state: i8) {
        match (core.phase, state) {
            (_, state::ACCESS_DENIED) => self.fail(core, Failure::new(code::BUSY, describe(code::BUSY))),
            (_, state::SERVER_ERROR) => {
                core.phase = Phase::Erring;
                // While a test runs nothing else is waited for: the numbers may never come.
                self.wait(core);
            }
            (_, state::SERVER_TERMINATE) => {
                self.fail(core, Failure::new(code::SERVER_TERMINATED, describe(code::SERVER_TERMINATED)));
            }
            (Phase::Greeting, state::PARAM_EXCHANGE) => {
                let frame = frame(&core.parameters.to_json());
                self.send(core, frame);
                core.phase = Phase::Asked;
                self.wait(core);
            }
            (Phase::Asked, state::CREATE_STREAMS) => {
                core.phase = Phase::Streams;
                if core.parameters.omit == 0 {
                    self.count(core);
                }
                self.wait(core);
                self.next_stream(core);
            }
            (Phase::Ready, state::TEST_START) => {
                self.begin(core);
                core.phase = Phase::Started;
                self.wait(core);
            }
            (Phase::Started, state::TEST_RUNNING) => {
                self.disarm(core, Alarm::Deadline);
                let parameters = &core.parameters;
                if parameters.time > 0 && parameters.blocks_wanted().is_none() {
                    let time = Duration::from_secs(parameters.time + parameters.omit);
                    self.arm(core, Alarm::End, time);
                }
                self.start_pings(core);
                self.run(core);
                // All that is wanted may have come before the word that the test runs.
                if core.gate.is_reached() {
                    self.stop_sending(core);
                }
            }
            (Phase::Told, state::EXCHANGE_RESULTS) => self.exchange(core),
            (Phase::Display, state::DISPLAY_RESULTS) => {
                let end = self.make_end(core);
                if let (Some(start), Some(end)) = (core.start.clone(), &end) {
                    core.printer.ended(&start, end);
                }
                core.end = end;
                if Self::is_first_of_two(core) && core.remote.as_ref().is_some_and(|remote| remote.two_phase) {
                    self.send_state(core, state::SECOND_PHASE);
                    self.second_phase(core);
                    core.phase = Phase::Asked;
                    return self.wait(core);
                }
                Self::print_sides(core);
                core.printer.line("");
                core.printer.line("iperf Done.");
                self.send_state(core, state::DONE);
                self.close_flows(core);
                core.phase = Phase::Draining;
                if let Some(control) = &core.control {
                    let _ = control.disconnect(Op::Nothing);
                }
                self.arm(core, Alarm::Deadline, LINGER);
            }
            _ => {
                let text = format!("received an unknown control message: {state} while {:?}", core.phase);
                self.fail(core, Failure::new(code::MESSAGE, text));
            }
        }
    }

    fn start_pings(self: &Arc<Self>, core: &mut Core) {
        if !core.parameters.latency {
            return;
        }
        let client = side(core);
        let peer = client.peer;
        if let Ok(socket) = socket::open(Type::STREAM, &peer, &client.options.origin, 0, None) {
            let pings = Pings::ask(&self.port, socket.into(), peer, self.cookie);
            if core.parameters.omit == 0 {
                pings.count();
            }
            core.pings = Some(pings);
        }
    }

    // --- Streams ---

    fn next_stream(self: &Arc<Self>, core: &mut Core) {
        let made = core.flows.len();
        if made == core.parameters.streams() {
            core.phase = Phase::Ready;
            self.wait(core);
            return self.client_heard(core, false);
        }
        let parameters = core.parameters.clone();
        let client = side(core);
        let peer = client.peer;
        let local_port = match client.options.client_port {
            0 => 0,
            first => first.wrapping_add(made as u16),
        };
        let kind = if parameters.protocol == Protocol::Udp { Type::DGRAM } else { Type::STREAM };
        let socket = socket::open(kind, &peer, &client.options.origin, local_port, Some(&parameters));
        let labelled = socket.and_then(|socket| {
            let to = socket::label(&socket, peer, parameters.flow_label)?;
            Ok((socket, to))
        });
        let (socket, to) = match labelled {
            Ok(labelled) => labelled,
            Err(failure) => return self.fail(core, failure),
        };
        if parameters.protocol == Protocol::Tcp {
            let issued = self.port.connect_with(socket.into(), to, (), Op::StreamUp(self.clone()));
            if let Err(refused) = issued {
                self.fail(core, Failure::system(code::STREAM_CONNECT, &refused.error));
            }
            return;
        }
        let ready = rustix::net::connect(&socket, &to).map_err(io::Error::from);
        let ready = ready.map(|()| std::net::UdpSocket::from(socket));
        let socket: io::Result<UdpSocket> = ready.and_then(|socket| Ok(self.port.associate(socket, ())?));
        match socket {
            Ok(socket) => {
                let _ = socket.recv_from(Buffer::with_capacity(2048), Op::Answer(self.clone()));
                let _ = socket.send(&datagram::HELLO, Op::Nothing);
                side(core).hello = Some((socket, 1));
                self.arm(core, Alarm::Hello, HELLO_AGAIN);
            }
            Err(error) => self.fail(core, Failure::system(code::STREAM_CONNECT, &error)),
        }
    }

    pub(crate) fn hello_again(self: &Arc<Self>, core: &mut Core) {
        let Some((socket, said)) = &mut side(core).hello else { return };
        if *said >= HELLOS_MAX {
            let text =
                "unable to read from stream socket: the server does not answer datagrams; is a firewall between?";
            return self.fail(core, Failure::new(code::STREAM_READ, text));
        }
        let _ = socket.send(&datagram::HELLO, Op::Nothing);
        *said += 1;
        let after = if *said == HELLOS_MAX { HELLO_LAST } else { 2 * HELLO_AGAIN };
        self.arm(core, Alarm::Hello, after);
    }

    pub(crate) fn hello_answered(self: &Arc<Self>, socket: UdpSocket, buffer: Buffer, result: io::Result<usize>) {
        let mut core = self.enter();
        if core.phase == Phase::Streams {
            match result {
                Ok(_) if datagram::is_reply(&buffer) => {
                    side(&mut core).hello = None;
                    self.disarm(&mut core, Alarm::Hello);
                    let peer = side(&mut core).peer;
                    let local = socket.local_addr().unwrap_or(peer);
                    self.add_flow(&mut core, Link::Udp(socket, peer), (local, peer));
                    self.next_stream(&mut core);
                }
                Ok(_) => {
                    let text = "unable to read from stream socket: the answer to the hello is another";
                    self.fail(&mut core, Failure::new(code::STREAM_READ, text));
                }
                // Not there yet: the hello is said again.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    let _ = socket.recv_from(buffer, Op::Answer(self.clone()));
                }
                Err(error) => self.fail(&mut core, Failure::system(code::STREAM_READ, &error)),
            }
        }
        self.leave(core);
    }

    pub(crate) fn stream_connected(self: &Arc<Self>, stream: Stream, result: io::Result<()>) {
        let mut core = self.enter();
        if core.phase == Phase::Streams {
            match result {
                Err(error) => self.fail(&mut core, Failure::system(code::STREAM_CONNECT, &error)),
                Ok(()) => {
                    if let Some(timeout) = side(&mut core).options.send_timeout {
                        let _ = socket::send_timeout(&stream, timeout);
                    }
                    let peer = side(&mut core).peer;
                    let local = stream.local_addr().unwrap_or(peer);
                    let _ = stream.send(self.cookie.bytes().to_vec(), Op::Nothing);
                    self.add_flow(&mut core, Link::Tcp(stream), (plain(local), plain(peer)));
                    self.next_stream(&mut core);
                }
            }
        }
        self.leave(core);
    }

    // --- The end ---

    pub(crate) fn interrupted(self: &Arc<Self>) {
        let mut core = self.enter();
        let text = "interrupt - the client has terminated";
        self.fail(&mut core, Failure::new(code::CLIENT_TERMINATED, text));
        self.leave(core);
    }

    pub(crate) fn client_over(&self) {
        let mut core = self.enter();
        let client = side(&mut core);
        if !std::mem::replace(&mut client.last_words, true) {
            if let Some((socket, _)) = client.hello.take() {
                socket.close();
            }
            let _ = client.done.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_reached_from_this_ends_are_tried() {
        let mut options = Options::new("127.0.0.1", 5201);
        assert_eq!(resolve(&options).unwrap(), ["127.0.0.1:5201".parse().unwrap()]);
        options.origin.address = Some("127.0.0.1".parse().unwrap());
        assert_eq!(resolve(&options).unwrap().len(), 1);
        options.origin.address = Some("::1".parse().unwrap());
        assert!(resolve(&options).unwrap_err().text.contains("of the family of ::1 (-B)"));
        options.family = Some(6);
        assert!(resolve(&options).unwrap_err().text.contains("(-4, -6)"));
    }
}
