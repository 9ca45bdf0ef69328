//! The server: `serve` measures with whoever comes, ours or iperf3's clients.
//!
//! All connections arrive at one listener. The first 37 bytes of each, its cookie, tell whether it is a new test or a
//! stream of one. Until they are there it is a *guest*: guests have five seconds, all at the same time, and of too many the
//! oldest has to go.

use crate::datagram;
use crate::flow::Link;
use crate::latency::Pings;
use crate::machinery::Machinery;
use crate::op::{self, Op, Port, Stream, UdpSocket};
use crate::output::{Form, Printer, Sink, Voice};
use crate::parameters::{Parameters, Protocol};
use crate::protocol::{
    COOKIE_BYTES, Cookie, DEFAULT_PORT, Failure, PARAMETERS_BYTES_MAX, code, describe, frame, state,
};
use crate::report::Role;
use crate::report::human::{SERVER_RULE, plain};
use crate::results::Results;
use crate::session::{Alarm, Core, LINGER, Phase, Session};
use crate::socket;
use crate::system::{self, Processors};
use socket2::{Domain, SockRef, Socket, Type};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wharf::error::ErrorExt;
use wharf::{Buffer, OperationId};

/// Connections with a wrong cookie that a test bears while it waits for its streams.
const FOREIGN_STREAMS_MAX: u32 = 16;
/// All streams of the largest test, which a busy server may find connected before it has read a single cookie, and 64 strangers.
pub const GUESTS_MAX: usize = 2 * crate::parameters::STREAMS_MAX + 64;
const BACKLOG: i32 = 4096;
/// How long an accept that failed rests before it is issued again.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// TCP and UDP; 0: any free one, the first line says which.
    pub port: u16,
    /// The address to listen on; `None`: all.
    pub address: Option<IpAddr>,
    /// The network device.
    pub device: Option<String>,
    /// Only IPv4 (4) or IPv6 (6).
    pub family: Option<u8>,
    /// One test, and then the end.
    pub one_off: bool,
    /// With `one_off`: ends also when no test came for so long.
    pub idle_timeout: Option<Duration>,
    /// Tests at a time; iperf3 has one, and refuses the second.
    pub max_clients: usize,
    /// Longest test, the omitted time included, seconds.
    pub max_seconds: Option<u64>,
    /// Bits a second of all streams of a test together: what a client asks for, and what it then takes.
    pub bitrate_limit: Option<u64>,
    /// The time over which that is averaged.
    pub bitrate_window: Duration,
    /// Most streams of a test, both directions together.
    pub max_streams: usize,
    /// Largest parameter frame, bytes.
    pub max_parameter_bytes: usize,
    /// Connections without a cookie at a time.
    pub max_guests: usize,
    /// What the cookie of a connection may take, and then the parameters of a test.
    pub handshake_timeout: Duration,
    /// What all streams of a test may take, and then its results.
    pub setup_timeout: Duration,
    /// Between two reports.
    pub interval: Duration,
    /// Nothing came for so long: the test is over.
    pub receive_timeout: Duration,
    /// The form of the reports.
    pub form: Form,
    /// What it runs on.
    pub machinery: Machinery,
    /// Sent instead of random bytes, or what is received goes there. Of tests with one TCP stream; others are refused.
    pub file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            port: DEFAULT_PORT,
            address: None,
            device: None,
            family: None,
            one_off: false,
            idle_timeout: None,
            max_clients: 1,
            max_seconds: None,
            bitrate_limit: None,
            bitrate_window: Duration::from_secs(5),
            max_streams: 2 * crate::parameters::STREAMS_MAX,
            max_parameter_bytes: PARAMETERS_BYTES_MAX,
            max_guests: GUESTS_MAX,
            handshake_timeout: Duration::from_secs(5),
            setup_timeout: Duration::from_secs(10),
            interval: Duration::from_secs(1),
            receive_timeout: Duration::from_secs(120),
            form: Form::default(),
            machinery: Machinery::default(),
            file: None,
        }
    }
}

/// The server while it runs.
pub(crate) struct Server {
    port: Port,
    pub(crate) options: Options,
    address: SocketAddr,
    voice: Arc<Voice>,
    lobby: Mutex<Lobby>,
    done: Mutex<Sender<()>>,
}

#[derive(Default)]
struct Lobby {
    guests: VecDeque<Arc<Guest>>,
    /// That have ever come.
    connections: u64,
    /// Tests that take a place.
    sessions: Vec<Arc<Session>>,
    /// Tests that have been begun.
    tests: u64,
    /// The processors before a client chose one.
    processors: Option<Processors>,
    /// Where hellos arrive, while a test waits for datagram streams.
    udp: Option<UdpSocket>,
    stopping: bool,
}

/// A connection that has not said what it is.
pub(crate) struct Guest {
    server: Arc<Server>,
    stream: Stream,
    peer: SocketAddr,
    /// Those that came later have higher ones.
    number: u64,
    cookie: Mutex<Vec<u8>>,
    /// The end of its time.
    timer: Mutex<Option<OperationId>>,
}

/// A connection that was refused, and is read for a moment before it is closed.
pub(crate) struct Refused(Stream);

impl Refused {
    fn begin(port: &Port, stream: &Stream, word: &[u8]) {
        let _ = stream.send(word.to_vec(), Op::Nothing);
        let _ = stream.disconnect(Op::Nothing);
        let refused = Arc::new(Refused(stream.clone()));
        let _ = stream.recv(Buffer::with_capacity(256), Op::Refused(refused.clone()));
        let _ = port.timer(LINGER, (), Op::RefusedLate(refused));
    }

    pub(crate) fn received(self: Arc<Self>, buffer: Buffer, result: io::Result<usize>) {
        match result {
            Ok(1..) => {
                let stream = self.0.clone();
                let _ = stream.recv(buffer, Op::Refused(self));
            }
            _ => self.0.close(),
        }
    }

    pub(crate) fn late(&self) {
        self.0.close();
    }
}

/// Serves until a signal comes, or, with `one_off`, one test is over.
///
/// # Errors
///
/// The port cannot be listened on.
pub fn serve(options: &Options, sink: Box<dyn Sink>) -> Result<(), Failure> {
    let voice = Voice::new(sink);
    let result = serve_with(options, &voice);
    voice.finish();
    result
}

/// A socket of the server that is going to be bound to this address: each goes over the device that was asked for.
fn socket_for(options: &Options, address: SocketAddr, kind: Type) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if address.is_ipv6() {
        socket.set_only_v6(options.family == Some(6))?;
    }
    if let Some(device) = &options.device {
        system::bind_device(&socket, device)?;
    }
    system::reuse_address(&socket)?;
    Ok(socket)
}

fn listen(options: &Options) -> io::Result<std::net::TcpListener> {
    let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, options.port));
    let v6 = SocketAddr::from((Ipv6Addr::UNSPECIFIED, options.port));
    let candidates = match (options.address, options.family) {
        (Some(address), _) => vec![SocketAddr::new(address, options.port)],
        (None, Some(4)) => vec![v4],
        (None, Some(6)) => vec![v6],
        // Both at once, unless the machine has no IPv6.
        (None, _) => vec![v6, v4],
    };
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in candidates {
        let made = (|| {
            let socket = socket_for(options, address, Type::STREAM)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            Ok::<_, io::Error>(socket)
        })();
        match made {
            Ok(socket) => return Ok(socket.into()),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn serve_with(options: &Options, voice: &Arc<Voice>) -> Result<(), Failure> {
    let cannot = |error: &io::Error| {
        let text = format!("unable to start listener for connections on port {}: {error}", options.port);
        let remedy = if error.kind() == io::ErrorKind::AddrInUse {
            "; another server is there, choose another with -p"
        } else {
            ""
        };
        Failure::new(code::LISTEN, format!("{text}{remedy}"))
    };
    let built = options.machinery.port();
    let port: Port = built.map_err(|error| Failure::system(code::INIT, &error))?;
    let socket = listen(options).map_err(|error| cannot(&error))?;
    let address = socket.local_addr().map_err(|error| cannot(&error))?;
    let listener = port.associate(socket, ()).map_err(|rejected| Failure::system(code::LISTEN, &rejected.error))?;
    let (done, over) = channel();
    let server = Arc::new(Server {
        port: port.clone(),
        options: options.clone(),
        address,
        voice: voice.clone(),
        lobby: Mutex::default(),
        done: Mutex::new(done),
    });
    for signal in system::ENDING {
        let _ = port.signal(signal, (), Op::Stop(server.clone()));
    }
    server.accept(&listener);
    let pool = op::run(&port, options.machinery.threads).map_err(|error| Failure::system(code::INIT, &error))?;
    voice.listening(address.port());
    server.announce();
    voice.flush();
    // A server that goes on stays as it is when nobody comes: its listener needs no renewal.
    if let (true, Some(timeout)) = (options.one_off, options.idle_timeout) {
        let _ = port.timer(timeout, (), Op::Idle(server.clone()));
    }
    let _ = over.recv();
    drop(listener);
    port.close();
    pool.join();
    Ok(())
}

impl Server {
    fn lobby(&self) -> MutexGuard<'_, Lobby> {
        self.lobby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_json(&self) -> bool {
        self.options.form.json || self.options.form.json_stream
    }

    fn announce(&self) {
        if self.is_json() {
            return;
        }
        let number = self.lobby().tests + 1;
        self.voice.line(SERVER_RULE);
        self.voice.line(format!("Server listening on {} (test #{number})", self.address.port()));
        self.voice.line(SERVER_RULE);
    }

    /// So long after the start a server for one test ends if it has none.
    pub(crate) fn idle(&self) {
        if self.sessions().is_empty() {
            self.end();
        }
    }

    fn end(&self) {
        let _ = self.done.lock().unwrap_or_else(PoisonError::into_inner).send(());
    }

    fn sessions(&self) -> Vec<Arc<Session>> {
        self.lobby().sessions.clone()
    }

    // --- Connections ---

    pub(crate) fn accept(self: &Arc<Self>, listener: &wharf::TcpListener<(), Op>) {
        let _ = listener.accept(Op::Accept(self.clone()));
    }

    pub(crate) fn accepted(
        self: &Arc<Self>,
        listener: wharf::TcpListener<(), Op>,
        result: io::Result<(std::net::TcpStream, SocketAddr)>,
    ) {
        let (socket, peer) = match result {
            Ok(connection) => connection,
            // The reason may stay. A socket that listens no more takes no further accept.
            Err(error) => {
                if !error.is_aborted() {
                    log::warn!("no connection can be taken: {error}; it is tried again after 0.1 s");
                    let _ = self.port.timer(ACCEPT_REST, (), Op::Rested(self.clone(), listener));
                }
                return;
            }
        };
        // Which stream is whose is known by the order in which they came. So a connection has its number before the next
        // one is waited for: another worker could be faster with that.
        let number = {
            let mut lobby = self.lobby();
            lobby.connections += 1;
            lobby.connections
        };
        self.accept(&listener);
        let _ = socket.set_nodelay(true);
        let Ok(stream) = self.port.associate(socket, ()) else { return };
        let guest = Guest {
            server: self.clone(),
            stream,
            peer: plain(peer),
            number,
            cookie: Mutex::default(),
            timer: Mutex::default(),
        };
        let guest = Arc::new(guest);
        let oldest = {
            let mut lobby = self.lobby();
            lobby.guests.push_back(guest.clone());
            if lobby.guests.len() > self.options.max_guests { lobby.guests.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            self.voice.error(format!("{}: closed, too many connections have not said what they want", oldest.peer));
            oldest.forget_time();
            oldest.stream.close();
        }
        let timer = self.port.timer(self.options.handshake_timeout, (), Op::GuestLate(guest.clone())).ok();
        *guest.timer.lock().unwrap_or_else(PoisonError::into_inner) = timer;
        guest.receive(COOKIE_BYTES);
        self.voice.flush();
    }

    fn arrived(self: &Arc<Self>, guest: &Guest, bytes: &[u8]) {
        let (stream, peer) = (guest.stream.clone(), guest.peer);
        let Some(cookie) = Cookie::parse(bytes) else {
            let failure = Failure::new(code::COOKIE, describe(code::COOKIE));
            self.voice.error(format!("{peer}: {failure}"));
            return Refused::begin(&self.port, &stream, &failure.frame());
        };
        let mut sessions = self.sessions();
        // A client that has just heard the end of one test may be faster with the next than the list is with forgetting it.
        sessions.retain(|session| {
            let past = session.is_past();
            if past {
                self.free(session);
            }
            !past
        });
        if let Some(session) = sessions.iter().find(|session| session.cookie == cookie) {
            if let Err(stream) = session.offer(stream, peer, guest.number) {
                Refused::begin(&self.port, &stream, &[state::ACCESS_DENIED as u8]);
            }
            return;
        }
        let session = {
            let mut lobby = self.lobby();
            // A server for one test ends with it: another one would be cut off.
            let had_its_one = self.options.one_off && lobby.tests > 0;
            if lobby.stopping || had_its_one || lobby.sessions.len() >= self.options.max_clients {
                None
            } else {
                lobby.tests += 1;
                let mut printer = Printer::new(self.options.form.clone(), self.voice.clone());
                if self.options.max_clients > 1 {
                    printer.set_prefix(format!("#{} ", lobby.tests));
                }
                let session = Session::new(&self.port, Role::Server, cookie, &self.voice, printer, Some(self.clone()));
                lobby.sessions.push(session.clone());
                Some(session)
            }
        };
        match session {
            Some(session) => session.greet(stream, peer),
            None => {
                Refused::begin(&self.port, &stream, &[state::ACCESS_DENIED as u8]);
                sessions.iter().for_each(|session| session.foreign_stream());
            }
        }
    }

    // --- Datagrams ---

    /// What a client asks for with `-A n,m`: of the whole process, until no test is left.
    fn use_processor(&self, number: u32) -> io::Result<()> {
        let before = Processors::now()?;
        self.lobby().processors.get_or_insert(before);
        socket::use_processor(number)
    }

    /// Makes sure that hellos are heard.
    fn listen_for_hellos(self: &Arc<Self>) -> io::Result<()> {
        let mut lobby = self.lobby();
        if lobby.udp.is_some() {
            return Ok(());
        }
        let socket = socket_for(&self.options, self.address, Type::DGRAM)?;
        socket.bind(&self.address.into())?;
        let socket: UdpSocket = self.port.associate(std::net::UdpSocket::from(socket), ())?;
        let _ = socket.recv_from(Buffer::with_capacity(2048), Op::Hello(self.clone()));
        lobby.udp = Some(socket);
        Ok(())
    }

    pub(crate) fn hello(
        self: &Arc<Self>,
        socket: UdpSocket,
        buffer: Buffer,
        from: Option<SocketAddr>,
        result: io::Result<usize>,
    ) {
        if let (Some(from), true) = (from, result.is_ok() && datagram::is_hello(&buffer)) {
            self.hello_of(from);
        }
        let _ = socket.recv_from(buffer, Op::Hello(self.clone()));
    }

    /// A client asks for a datagram stream. It is that of the first test that waits for one from there; anything else is a
    /// stranger's.
    pub(crate) fn hello_of(&self, from: SocketAddr) {
        let from = plain(from);
        let _ = self.sessions().iter().find(|session| session.hello_from(from));
    }

    // --- Ends ---

    /// A test needs its place no longer.
    pub(crate) fn free(self: &Arc<Self>, session: &Arc<Session>) {
        let (gone, udp, processors) = {
            let mut lobby = self.lobby();
            let before = lobby.sessions.len();
            lobby.sessions.retain(|other| !Arc::ptr_eq(other, session));
            let (mut udp, mut processors) = (None, None);
            if lobby.sessions.is_empty() {
                (udp, processors) = (lobby.udp.take(), lobby.processors.take());
            }
            (lobby.sessions.len() < before, udp, processors)
        };
        if let Some(udp) = udp {
            udp.close();
        }
        if let Some(Err(error)) = processors.map(|processors| processors.choose()) {
            log::warn!("the processor that a client chose stays the only one: {error}");
        }
        if gone && !self.options.one_off {
            self.announce();
            self.voice.flush();
        }
    }

    pub(crate) fn over(&self) {
        if self.options.one_off {
            self.end();
        }
    }

    pub(crate) fn stop(self: &Arc<Self>) {
        let sessions = {
            let mut lobby = self.lobby();
            lobby.stopping = true;
            lobby.sessions.clone()
        };
        for session in sessions {
            let mut core = session.enter();
            let text = "interrupt - the server has terminated";
            session.fail(&mut core, Failure::new(code::SERVER_TERMINATED, text));
            session.close(&mut core);
            session.leave(core);
        }
        self.end();
    }
}

impl Guest {
    fn receive(self: &Arc<Self>, bytes: usize) {
        // No more than the cookie: what follows belongs to whoever it turns out to be.
        let _ = self.stream.recv(Buffer::with_capacity(bytes), Op::Guest(self.clone()));
    }

    /// Takes it off the list; false: somebody else has.
    fn take(self: &Arc<Self>) -> bool {
        let mut lobby = self.server.lobby();
        let at = lobby.guests.iter().position(|guest| Arc::ptr_eq(guest, self));
        let taken = at.map(|at| lobby.guests.remove(at)).is_some();
        drop(lobby);
        self.forget_time();
        taken
    }

    fn forget_time(&self) {
        if let Some(timer) = self.timer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.server.port.cancel(timer);
        }
    }

    pub(crate) fn received(self: Arc<Self>, buffer: Buffer, result: io::Result<usize>) {
        let cookie = {
            let mut cookie = self.cookie.lock().unwrap_or_else(PoisonError::into_inner);
            cookie.extend_from_slice(&buffer);
            cookie.clone()
        };
        match result {
            Ok(1..) if cookie.len() < COOKIE_BYTES => self.receive(COOKIE_BYTES - cookie.len()),
            Ok(1..) => {
                if self.take() {
                    self.server.arrived(&self, &cookie);
                }
            }
            // Connected and gone without a word: a look whether somebody is there.
            Ok(0) if cookie.is_empty() => {
                self.take();
                self.stream.close();
            }
            _ => {
                if self.take() {
                    self.server.arrived(&self, &cookie);
                }
            }
        }
        self.server.voice.flush();
    }

    pub(crate) fn late(self: &Arc<Self>) {
        if self.take() {
            let seconds = self.server.options.handshake_timeout.as_secs_f64();
            self.server.voice.error(format!("{}: closed, no cookie came in {seconds} s", self.peer));
            self.server.voice.flush();
            self.stream.close();
        }
    }
}

impl Session {
    /// A new test: its control connection.
    fn greet(self: &Arc<Self>, stream: Stream, peer: SocketAddr) {
        let mut core = self.enter();
        let options = &self.server.as_ref().expect("a server's session").options;
        core.host = peer.ip().to_string();
        core.host_port = peer.port();
        core.interval = options.interval;
        core.receive_timeout = options.receive_timeout;
        socket::keep_alive(&stream, &options.machinery.keep_alive);
        core.control = Some(stream);
        core.phase = Phase::Greeting;
        self.send_state(&core, state::PARAM_EXCHANGE);
        self.arm(&mut core, Alarm::Deadline, options.handshake_timeout);
        self.listen_to(&core);
        self.leave(core);
    }

    /// What the client has said.
    pub(crate) fn server_heard(self: &Arc<Self>, core: &mut Core, ended: bool) {
        loop {
            match core.phase {
                Phase::Greeting => {
                    let most = self.server.as_ref().map_or(PARAMETERS_BYTES_MAX, |it| it.options.max_parameter_bytes);
                    let asked = match core.input.frame(most) {
                        Ok(None) if ended => Err(Failure::new(code::PARAMETERS, describe(code::PARAMETERS))),
                        Ok(None) => return,
                        Ok(Some(map)) => Parameters::from_json(&map),
                        Err(bad) => {
                            let text = format!("{}: {bad:?}", describe(code::PARAMETERS));
                            Err(Failure::new(code::PARAMETERS, text))
                        }
                    };
                    match asked.and_then(|parameters| self.agree(core, parameters)) {
                        Ok(()) => {}
                        Err(failure) => return self.fail(core, failure),
                    }
                }
                Phase::Results => {
                    let ids: Vec<i64> = core.flows.iter().map(|flow| flow.info.id).collect();
                    // A second word that the test is over is not needed, and no length either.
                    if core.input.next() == Some(state::TEST_END) {
                        core.input.state();
                        continue;
                    }
                    let told = match core.input.frame((64 << 10) + 1024 * ids.len()) {
                        Ok(None) if ended => {
                            Err(Failure::new(code::RESULTS, "unable to receive results: the client has left"))
                        }
                        Ok(None) => return,
                        Ok(Some(map)) => Results::from_json(&map, &ids),
                        Err(bad) => Err(Failure::new(code::RESULTS, format!("unable to receive results: {bad:?}"))),
                    };
                    match told {
                        Ok(results) => self.tell(core, results),
                        Err(failure) => return self.fail(core, failure),
                    }
                }
                Phase::Settling | Phase::Draining | Phase::Over => return,
                _ => {
                    let Some(state) = core.input.state() else { return };
                    self.server_state(core, state);
                }
            }
        }
    }

    fn server_state(self: &Arc<Self>, core: &mut Core, state: i8) {
        match (core.phase, state) {
            (Phase::Running, state::TEST_END) => self.server_ends(core),
            (Phase::Display, state::DONE) => self.close(core),
            (Phase::Display, state::SECOND_PHASE) if Self::is_first_of_two(core) => {
                self.second_phase(core);
                core.phase = Phase::Streams;
                self.send_state(core, state::CREATE_STREAMS);
                self.arm(core, Alarm::Deadline, self.setup_timeout());
            }
            (_, state::CLIENT_TERMINATE) => {
                self.fail(core, Failure::new(code::CLIENT_TERMINATED, describe(code::CLIENT_TERMINATED)));
                self.close(core);
            }
            (_, state::DONE) => {
                self.fail(core, Failure::new(code::CLIENT_TERMINATED, "the client has given up"));
                self.close(core);
            }
            _ => {
                let text = format!("{}: {state}", describe(code::MESSAGE));
                self.fail(core, Failure::new(code::MESSAGE, text));
            }
        }
    }

    /// What a step between two ends may take.
    pub(crate) fn setup_timeout(&self) -> Duration {
        self.server.as_ref().map_or(LINGER, |server| server.options.setup_timeout)
    }

    /// Whether the test can be, and if so, what is needed for it.
    fn agree(self: &Arc<Self>, core: &mut Core, parameters: Parameters) -> Result<(), Failure> {
        let server = self.server.as_ref().expect("a server's session");
        let options = &server.options;
        if parameters.streams() > options.max_streams {
            let text = format!("{} streams are asked for, {} are allowed", parameters.streams(), options.max_streams);
            return Err(Failure::new(code::STREAMS, text));
        }
        if let Some(limit) = options.bitrate_limit {
            let total = (parameters.bandwidth as u128) * parameters.streams() as u128;
            // Who asks for no rate is measured by what it takes.
            if total > limit.into() {
                return Err(Failure::new(code::BANDWIDTH, describe(code::BANDWIDTH)));
            }
        }
        if let Some(most) = options.max_seconds {
            if parameters.time == 0 || parameters.time + parameters.omit > most {
                return Err(Failure::new(code::TOO_LONG, describe(code::TOO_LONG)));
            }
        }
        if let Some(processor) = parameters.server_affinity {
            server.use_processor(processor).map_err(|error| Failure::system(code::AFFINITY, &error))?;
        }
        if let Some(path) = &options.file {
            core.file = Some(socket::open_file(&self.port, path, &parameters, parameters.reverse)?);
        }
        if parameters.window > 0 {
            // Before a stream is there, so that the client hears it in time.
            let probe = Socket::new(Domain::IPV4, Type::STREAM, None);
            let probe = probe.map_err(|error| Failure::system(code::BUFFER, &error))?;
            let only = Parameters { window: parameters.window, ..Parameters::default() };
            socket::prepare(&SockRef::from(&probe), &only, false)?;
        }
        if parameters.protocol == Protocol::Udp {
            server.listen_for_hellos().map_err(|error| Failure::system(code::STREAM_LISTEN, &error))?;
        }
        if parameters.get_server_output {
            core.printer.capture();
        }
        // Of the JSON object only: a stranger's text is nothing for a terminal.
        for (key, text) in [("title", &parameters.title), ("extra_data", &parameters.extra_data)] {
            if let Some(text) = text {
                core.printer.extra(key, text.as_str().into());
            }
        }
        let line = format!("Accepted connection from {}, port {}", core.host, core.host_port);
        core.printer.line(&line);
        core.parameters = parameters;
        core.phase = Phase::Streams;
        self.send_state(core, state::CREATE_STREAMS);
        self.arm(core, Alarm::Deadline, options.setup_timeout);
        Ok(())
    }

    /// A connection with this test's cookie. Comes back if it has no place here. Cookies overtake each other; the streams
    /// are what they are by the order of their connections, so they wait for each other.
    fn offer(self: &Arc<Self>, stream: Stream, peer: SocketAddr, number: u64) -> Result<(), Stream> {
        let mut core = self.enter();
        let parameters = &core.parameters;
        let tcp = parameters.protocol == Protocol::Tcp;
        let room = tcp && core.phase == Phase::Streams && core.arrivals.len() < parameters.streams();
        let pings = parameters.latency && core.phase == Phase::Running && core.pings.is_none();
        let result = if room {
            match system::with_socket(&stream, |socket| socket::prepare(&socket, parameters, false)) {
                Err(failure) => {
                    self.fail(&mut core, failure);
                    Err(stream)
                }
                Ok(()) => {
                    core.arrivals.push((number, stream, peer));
                    if core.arrivals.len() == core.parameters.streams() {
                        let mut arrivals = std::mem::take(&mut core.arrivals);
                        arrivals.sort_by_key(|&(number, ..)| number);
                        for (_, stream, peer) in arrivals {
                            let local = stream.local_addr().unwrap_or(peer);
                            self.add_flow(&mut core, Link::Tcp(stream), (plain(local), peer));
                        }
                        self.begin_if_complete(&mut core);
                    }
                    Ok(())
                }
            }
        } else if pings {
            core.pings = Some(Pings::answer(&self.port, stream));
            Ok(())
        } else {
            Err(stream)
        };
        self.leave(core);
        result
    }

    /// Whether it needs no place any more.
    fn is_past(&self) -> bool {
        let core = self.enter();
        match core.phase {
            Phase::Display => !Self::is_first_of_two(&core),
            phase => matches!(phase, Phase::Draining | Phase::Over),
        }
    }

    /// A connection with a cookie that nobody knows, while this test waits for its streams.
    fn foreign_stream(self: &Arc<Self>) {
        let mut core = self.enter();
        if core.phase == Phase::Streams {
            core.foreign_streams += 1;
            if core.foreign_streams > FOREIGN_STREAMS_MAX {
                let text = "too many connections with wrong cookies while the streams were waited for";
                self.fail(&mut core, Failure::new(code::STREAM_CREATE, text));
            }
        }
        self.leave(core);
    }

    /// A hello; true if it is for this test.
    fn hello_from(self: &Arc<Self>, from: SocketAddr) -> bool {
        let mut core = self.enter();
        let waits = core.phase == Phase::Streams && core.parameters.protocol == Protocol::Udp;
        let ours = waits && core.host == from.ip().to_string();
        if ours && core.flows.iter().all(|flow| flow.info.peer != from) {
            match self.datagram_stream(&core, from) {
                Ok((socket, local)) => {
                    let _ = socket.send(&datagram::REPLY, Op::Nothing);
                    self.add_flow(&mut core, Link::Udp(socket, from), (local, from));
                    self.begin_if_complete(&mut core);
                }
                Err(failure) => self.fail(&mut core, failure),
            }
        }
        self.leave(core);
        ours
    }

    /// A socket of its own for a datagram stream, on the server's port and at the address that the client talks to.
    fn datagram_stream(&self, core: &Core, from: SocketAddr) -> Result<(UdpSocket, SocketAddr), Failure> {
        let wrong = |error: io::Error| Failure::system(code::STREAM_CREATE, &error);
        let control = core.control.as_ref().and_then(|control| control.local_addr().ok());
        let mut local = plain(control.ok_or_else(|| Failure::new(code::STREAM_CREATE, describe(code::STREAM_CREATE)))?);
        let server = self.server.as_ref().expect("a server's session");
        local.set_port(server.address.port());
        let socket = socket_for(&server.options, local, Type::DGRAM).map_err(wrong)?;
        socket::prepare(&SockRef::from(&socket), &core.parameters, false)?;
        socket.bind(&local.into()).map_err(wrong)?;
        socket.connect(&from.into()).map_err(wrong)?;
        let socket = self.port.associate(std::net::UdpSocket::from(socket), ());
        Ok((socket.map_err(|rejected| wrong(rejected.error))?, local))
    }

    fn begin_if_complete(self: &Arc<Self>, core: &mut Core) {
        if core.flows.len() < core.parameters.streams() {
            return;
        }
        self.disarm(core, Alarm::Deadline);
        core.processor = socket::Processor::now();
        self.begin(core);
        self.send(core, vec![state::TEST_START as u8, state::TEST_RUNNING as u8]);
        self.run(core);
    }

    /// The client has told its results: ours, and the report.
    fn tell(self: &Arc<Self>, core: &mut Core, results: Results) {
        core.remote = Some(results);
        let mut output = None;
        if let (Some(start), Some(mut end)) = (core.start.clone(), self.make_end(core)) {
            end.server_output = None;
            core.printer.ended(&start, &end);
            output = core.printer.server_output(&start, &end);
            core.end = Some(end);
        }
        let frame = frame(&self.results(core, output).to_json());
        self.send(core, frame);
        self.send_state(core, state::DISPLAY_RESULTS);
        core.phase = Phase::Display;
        self.arm(core, Alarm::Deadline, self.setup_timeout());
        if !Self::is_first_of_two(core) {
            Self::print_sides(core);
            self.free(core);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn each_socket_of_the_server_goes_over_the_device_that_was_asked_for() {
        let options = Options { device: Some("lo".into()), ..Options::default() };
        for kind in [Type::STREAM, Type::DGRAM] {
            let socket = socket_for(&options, (Ipv4Addr::LOCALHOST, 0).into(), kind).unwrap();
            assert_eq!(socket.device().unwrap().as_deref(), Some(&b"lo"[..]), "{kind:?}");
        }
    }
}
