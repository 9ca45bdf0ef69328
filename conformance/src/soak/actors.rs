//! Who uses the port during a soak. Each actor issues operations, checks what their packets bring, and goes on until
//! the round ends. Players begin things; services answer them, and are closed when the last player has left.

use super::ledger::{Kind, Ledger, Ticket};
use crate::system;
use fastrand::Rng;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wharf::net::FileMessage;
use wharf::{Buffer, CompletionPort, OperationId, Outcome, Packet, Refused};

pub type Port = CompletionPort<(), Op>;
type Event = wharf::Event<(), Op>;
type Stream = wharf::Stream<(), Op>;
type Listener = wharf::Listener<(), Op>;
type Socket = wharf::Datagrams<(), Op>;
type File = wharf::fs::File<(), Op>;

const ECANCELED: i32 = wharf::raw::ECANCELED;

/// The context of every operation.
pub struct Op {
    ticket: Ticket,
    actor: Arc<dyn Actor>,
    step: u8,
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, step {}", self.ticket.kind, self.step)
    }
}

trait Actor: Send + Sync {
    /// The packet of the operation that was issued as `step` has come.
    fn took(self: Arc<Self>, step: u8, event: Event);
}

/// What the workers do with each packet.
pub fn dispatch(packet: Packet<(), Op>) {
    let cancelled = packet.error().is_some_and(|error| error.raw_os_error() == Some(ECANCELED));
    let Packet { context: Op { ticket, actor, step }, event, .. } = packet;
    if cancelled {
        ticket.cancelled();
    }
    ticket.arrive();
    actor.took(step, event);
}

/// A round: what its actors share.
pub struct Stage {
    port: Port,
    ledger: Ledger,
    stopping: AtomicBool,
    players: AtomicUsize,
    seeds: AtomicU64,
    services: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    /// What is downloaded, and what it holds.
    shown: (Arc<std::fs::File>, Arc<Vec<u8>>),
    directory: PathBuf,
}

/// Counts an actor as long as it lives on.
struct Player(Arc<Stage>);

impl Drop for Player {
    fn drop(&mut self) {
        self.0.players.fetch_sub(1, Ordering::SeqCst);
    }
}

const SHOWN_BYTES: usize = 1 << 20;

impl Stage {
    /// Puts everybody on.
    pub fn begin(port: &Port, ledger: &Ledger, directory: PathBuf, seed: u64) -> io::Result<Arc<Stage>> {
        let content = pattern(SHOWN_BYTES, seed);
        let path = directory.join("shown");
        std::fs::write(&path, &content)?;
        let stage = Arc::new(Stage {
            port: port.clone(),
            ledger: ledger.clone(),
            stopping: AtomicBool::new(false),
            players: AtomicUsize::new(0),
            seeds: AtomicU64::new(seed),
            services: Mutex::default(),
            shown: (Arc::new(std::fs::File::open(path)?), Arc::new(content)),
            directory,
        });
        let echo = Acceptor::open(&stage, false)?;
        let download = Acceptor::open(&stage, true)?;
        let pong = Pong::open(&stage)?;
        for _ in 0..12 {
            EchoClient::enter(&stage, echo);
        }
        for number in 0..3 {
            Downloader::enter(&stage, download);
            Pinger::enter(&stage, pong);
            Librarian::enter(&stage, number)?;
            Sleeper::enter(&stage);
        }
        for _ in 0..4 {
            Poster::enter(&stage);
            Watchman::enter(&stage);
            Waverer::enter(&stage)?;
        }
        Ok(stage)
    }

    /// No player begins anything new.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub fn players(&self) -> usize {
        self.players.load(Ordering::SeqCst)
    }

    /// The services are closed with what is outstanding on them.
    pub fn close(&self) {
        std::mem::take(&mut *lock(&self.services)).into_iter().for_each(|close| close());
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    fn player(self: &Arc<Self>) -> Player {
        self.players.fetch_add(1, Ordering::SeqCst);
        Player(self.clone())
    }

    fn random(&self) -> Rng {
        Rng::with_seed(self.seeds.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn service(&self, close: impl FnOnce() + Send + 'static) {
        lock(&self.services).push(Box::new(close));
    }

    fn fault(&self, what: impl Into<String>) {
        self.ledger.fault(what.into());
    }

    fn check(&self, holds: bool, what: &str) {
        if !holds {
            self.fault(what);
        }
    }

    fn op(&self, kind: Kind, actor: Arc<dyn Actor>, step: u8) -> Op {
        Op { ticket: self.ledger.ticket(kind), actor, step }
    }

    /// The operation's name, unless the port has not accepted it, which nobody here gives it a reason for.
    fn issued<B>(&self, result: Result<Outcome<(), Op>, Refused<Op, B>>) -> Option<OperationId> {
        match result {
            Ok(Outcome::Pending(id)) => Some(id),
            Ok(Outcome::Done(_)) => {
                self.fault("an operation was done at once, and nobody had asked for that");
                None
            }
            Err(refused) => {
                self.fault(format!("{:?} was not accepted: {}", refused.context.ticket.kind, refused.error));
                refused.context.ticket.withdraw();
                None
            }
        }
    }

    /// As `issued`, where the other end may have gone.
    fn perhaps<B>(&self, result: Result<Outcome<(), Op>, Refused<Op, B>>) {
        match result {
            Err(refused) if peer_is_gone(&refused.error) => refused.context.ticket.withdraw(),
            other => drop(self.issued(other)),
        }
    }

    fn post(&self, bytes: usize, actor: Arc<dyn Actor>, step: u8) {
        if let Err(unposted) = self.port.post(bytes, (), self.op(Kind::Post, actor, step)) {
            self.fault("a post was not accepted");
            unposted.context.ticket.withdraw();
        }
    }

    fn timer(&self, after: Duration, actor: Arc<dyn Actor>, step: u8) -> Option<OperationId> {
        match self.port.timer(after, (), self.op(Kind::Timer, actor, step)) {
            Ok(id) => Some(id),
            Err(refused) => {
                self.fault(format!("a timer was not accepted: {}", refused.error));
                refused.context.ticket.withdraw();
                None
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

fn peer_is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    error.raw_os_error() == Some(ECANCELED) || matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}

// --- Streams ---

/// A listener, and what becomes of its connections.
struct Acceptor {
    stage: Arc<Stage>,
    shows: bool,
}

impl Acceptor {
    fn open(stage: &Arc<Stage>, shows: bool) -> io::Result<SocketAddr> {
        let listener: Listener = stage.port.listen("127.0.0.1:0", ())?;
        let address = listener.local_addr()?;
        let acceptor = Arc::new(Acceptor { stage: stage.clone(), shows });
        for _ in 0..4 {
            stage.issued(listener.accept(stage.op(Kind::Accept, acceptor.clone(), 0)));
        }
        stage.service(move || listener.close());
        Ok(address)
    }
}

impl Actor for Acceptor {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        let Event::Accepted { listener, result } = event else {
            return stage.fault("an accept ended as something else");
        };
        match result {
            Ok((socket, _)) => {
                stage.issued(listener.accept(stage.op(Kind::Accept, self.clone(), 0)));
                match stage.port.associate(socket, ()) {
                    Ok(stream) if self.shows => Shower::serve(&stage, &stream),
                    Ok(stream) => EchoServer::serve(&stage, &stream),
                    Err(rejected) => stage.fault(format!("a connection was not associated: {}", rejected.error)),
                }
            }
            Err(error) => stage.check(error.raw_os_error() == Some(ECANCELED), &format!("an accept failed: {error}")),
        }
    }
}

/// Sends back what it gets.
struct EchoServer(Arc<Stage>);

impl EchoServer {
    fn serve(stage: &Arc<Stage>, stream: &Stream) {
        Arc::new(EchoServer(stage.clone())).receive(stream);
    }

    fn receive(self: Arc<Self>, stream: &Stream) {
        let stage = self.0.clone();
        stage.perhaps(stream.recv_pooled(stage.op(Kind::Receive, self, 0)));
    }
}

impl Actor for EchoServer {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.0.clone();
        match event {
            Event::Received { stream, buffer, result: Ok(1..) } => {
                stage.perhaps(stream.send(buffer, stage.op(Kind::Send, self, 0)));
            }
            Event::Received { result: Ok(_), .. } => {}
            Event::Sent { stream, result: Ok(_), .. } => self.receive(&stream),
            Event::Received { result: Err(error), .. } | Event::Sent { result: Err(error), .. } => {
                stage.check(peer_is_gone(&error), &format!("the echo's server failed: {error}"));
            }
            _ => stage.fault("a stream's operation ended as something else"),
        }
    }
}

/// Connects, sends, compares what comes back, ends the connection in one of several ways, and begins anew.
struct EchoClient {
    stage: Arc<Stage>,
    address: SocketAddr,
    state: Mutex<Conversation>,
    _player: Player,
}

struct Conversation {
    random: Rng,
    sent: Vec<u8>,
    come_back: usize,
    /// The send's packet has come.
    told: bool,
    messages_left: usize,
}

const CONNECTED: u8 = 0;
const SENT: u8 = 1;
const RECEIVED: u8 = 2;
/// The last operation of a connection, however it ends.
const LAST: u8 = 3;

impl EchoClient {
    fn enter(stage: &Arc<Stage>, address: SocketAddr) {
        let random = stage.random();
        let state = Conversation { random, sent: Vec::new(), come_back: 0, told: false, messages_left: 0 };
        Arc::new(EchoClient { stage: stage.clone(), address, state: Mutex::new(state), _player: stage.player() })
            .start();
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        if stage.is_stopping() {
            return;
        }
        let local = {
            let mut state = lock(&self.state);
            state.messages_left = state.random.usize(1..20);
            state.random.u8(..) < 64
        };
        if !local {
            let op = stage.op(Kind::Connect, self.clone(), CONNECTED);
            if let Err(refused) = stage.port.connect(self.address, (), op) {
                stage.fault(format!("a connect was not accepted: {}", refused.error));
                refused.context.ticket.withdraw();
            }
            return;
        }
        let Ok((own, other)) = system::pair() else { return stage.fault("no pair of sockets") };
        match (stage.port.associate(own, ()), stage.port.associate(other, ())) {
            (Ok(own), Ok(other)) => {
                EchoServer::serve(&stage, &other);
                self.speak(&own);
            }
            _ => stage.fault("a pair of sockets was not associated"),
        }
    }

    fn speak(self: Arc<Self>, stream: &Stream) {
        let stage = self.stage.clone();
        let (message, room) = {
            let mut state = lock(&self.state);
            let length =
                if state.random.u8(..) < 16 { state.random.usize(1..200_000) } else { state.random.usize(1..2000) };
            state.sent = vec![0; length];
            let Conversation { random, sent, .. } = &mut *state;
            random.fill(sent);
            (state.come_back, state.told) = (0, false);
            (state.sent.clone(), state.random.usize(1..20_000))
        };
        stage.issued(stream.send(message, stage.op(Kind::Send, self.clone(), SENT)));
        stage.issued(stream.recv(Buffer::with_capacity(room), stage.op(Kind::Receive, self, RECEIVED)));
    }

    /// The conversation is over, if both sides are.
    fn go_on(self: Arc<Self>, stream: &Stream) {
        let stage = self.stage.clone();
        let last = {
            let mut state = lock(&self.state);
            if !state.told || state.come_back < state.sent.len() {
                return;
            }
            // Once only, though two packets may be looked at side by side.
            state.told = false;
            state.messages_left -= 1;
            (state.messages_left == 0).then(|| state.random.u8(0..4))
        };
        let receive = || {
            let op = stage.op(Kind::Receive, self.clone(), LAST);
            stage.issued(stream.recv(Buffer::with_capacity(100), op))
        };
        match last {
            None => self.speak(stream),
            Some(0) => drop(stage.issued(stream.disconnect(stage.op(Kind::Disconnect, self, LAST)))),
            Some(1) => {
                receive();
                stream.close();
            }
            Some(2) => {
                if let Some(id) = receive() {
                    stream.cancel(id);
                }
            }
            // The last handle goes with the packet.
            Some(_) => stage.post(0, self, LAST),
        }
    }
}

impl Actor for EchoClient {
    fn took(self: Arc<Self>, step: u8, event: Event) {
        let stage = self.stage.clone();
        match (step, event) {
            (CONNECTED, Event::Connected { stream, result: Ok(()) }) => self.speak(&stream),
            (SENT, Event::Sent { stream, result: Ok(bytes), .. }) => {
                {
                    let mut state = lock(&self.state);
                    stage.check(bytes == state.sent.len(), "a send took fewer bytes than it had");
                    state.told = true;
                }
                self.go_on(&stream);
            }
            (RECEIVED, Event::Received { stream, buffer, result: Ok(bytes @ 1..) }) => {
                let more = {
                    let mut state = lock(&self.state);
                    let at = state.come_back;
                    let same = state.sent.get(at..at + bytes).is_some_and(|sent| *sent == buffer[..]);
                    stage.check(same, "an echo is not what was sent");
                    state.come_back += bytes;
                    state.come_back < state.sent.len()
                };
                if more {
                    stage.issued(stream.recv(buffer, stage.op(Kind::Receive, self, RECEIVED)));
                } else {
                    self.go_on(&stream);
                }
            }
            (LAST, Event::Received { result: Err(error), .. }) => {
                stage.check(error.raw_os_error() == Some(ECANCELED), &format!("the last receive failed: {error}"));
                self.start();
            }
            (LAST, Event::Disconnected { result: Ok(()), .. } | Event::Posted { .. }) => self.start(),
            (step, event) => stage.fault(format!("an echo's client, step {step}: {event:?}")),
        }
    }
}

// --- Files that are sent ---

/// Sends a part of the file that is shown: where it lies, the part, and an end.
struct Shower(Arc<Stage>);

const END: &[u8] = b"end of the part";

impl Shower {
    fn serve(stage: &Arc<Stage>, stream: &Stream) {
        let mut random = stage.random();
        let offset = random.usize(..SHOWN_BYTES);
        let length = random.usize(..=SHOWN_BYTES - offset).min(300_000);
        let head: Vec<u8> = [offset as u64, length as u64].into_iter().flat_map(u64::to_le_bytes).collect();
        let message = FileMessage {
            head: head.into(),
            offset: offset as u64,
            length: Some(length as u64),
            tail: END.into(),
            ..FileMessage::new(stage.shown.0.clone())
        };
        let shower = Arc::new(Shower(stage.clone()));
        stage.issued(stream.send_file(message, stage.op(Kind::SendFile, shower.clone(), 0)));
        stage.issued(stream.disconnect(stage.op(Kind::Disconnect, shower, 0)));
    }
}

impl Actor for Shower {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        if !matches!(event, Event::SentFile { result: Ok(_), .. } | Event::Disconnected { result: Ok(()), .. }) {
            self.0.fault(format!("sending a file: {event:?}"));
        }
    }
}

/// Takes a part of the file and compares it.
struct Downloader {
    stage: Arc<Stage>,
    address: SocketAddr,
    got: Mutex<Vec<u8>>,
    _player: Player,
}

impl Downloader {
    fn enter(stage: &Arc<Stage>, address: SocketAddr) {
        let got = Mutex::default();
        Arc::new(Downloader { stage: stage.clone(), address, got, _player: stage.player() }).start();
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        lock(&self.got).clear();
        if stage.is_stopping() {
            return;
        }
        let op = stage.op(Kind::Connect, self.clone(), 0);
        if let Err(refused) = stage.port.connect(self.address, (), op) {
            stage.fault(format!("a connect was not accepted: {}", refused.error));
            refused.context.ticket.withdraw();
        }
    }

    fn judge(&self) {
        let got = lock(&self.got);
        let word =
            |at: usize| got.get(at..at + 8).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?) as usize));
        let whole = word(0).zip(word(8)).is_some_and(|(offset, length)| {
            let part = self.stage.shown.1.get(offset..offset + length);
            got.get(16..16 + length) == part && got.get(16 + length..) == Some(END)
        });
        self.stage.check(whole, "a file that was sent is not what it holds");
    }
}

impl Actor for Downloader {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        let (stream, buffer) = match event {
            Event::Connected { stream, result: Ok(()) } => (stream, Buffer::with_capacity(64 * 1024)),
            Event::Received { result: Ok(0), .. } => {
                self.judge();
                return self.start();
            }
            Event::Received { stream, buffer, result: Ok(_) } => {
                lock(&self.got).extend_from_slice(&buffer);
                (stream, buffer)
            }
            other => return stage.fault(format!("taking a file: {other:?}")),
        };
        stage.issued(stream.recv(buffer, stage.op(Kind::Receive, self, 0)));
    }
}

// --- Datagrams ---

/// Sends datagrams back to where they came from.
struct Pong(Arc<Stage>);

impl Pong {
    fn open(stage: &Arc<Stage>) -> io::Result<SocketAddr> {
        let socket: Socket = stage.port.bind("127.0.0.1:0", ())?;
        let address = socket.local_addr()?;
        let pong = Arc::new(Pong(stage.clone()));
        for _ in 0..4 {
            stage.issued(socket.recv_from(Buffer::with_capacity(2048), stage.op(Kind::Datagram, pong.clone(), 0)));
        }
        stage.service(move || socket.close());
        Ok(address)
    }
}

impl Actor for Pong {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.0.clone();
        match event {
            Event::ReceivedFrom { socket, buffer, from: Some(from), result: Ok(_), .. } => {
                stage.issued(socket.send_to(buffer, from, stage.op(Kind::Datagram, self, 0)));
            }
            Event::SentTo { socket, result: Ok(_), .. } => {
                stage.issued(socket.recv_from(Buffer::with_capacity(2048), stage.op(Kind::Datagram, self, 0)));
            }
            Event::ReceivedFrom { result: Err(error), .. } if error.raw_os_error() == Some(ECANCELED) => {}
            other => stage.fault(format!("the datagrams' server: {other:?}")),
        }
    }
}

/// One datagram there and back at a time, so that the system has no reason to lose one.
struct Pinger {
    stage: Arc<Stage>,
    to: SocketAddr,
    state: Mutex<(Rng, Vec<u8>, usize)>,
    _player: Player,
}

impl Pinger {
    fn enter(stage: &Arc<Stage>, to: SocketAddr) {
        let state = Mutex::new((stage.random(), Vec::new(), 0));
        Arc::new(Pinger { stage: stage.clone(), to, state, _player: stage.player() }).start();
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        if stage.is_stopping() {
            return;
        }
        match stage.port.bind("127.0.0.1:0", ()) {
            Ok(socket) => {
                lock(&self.state).2 = 100;
                self.ping(&socket);
            }
            Err(error) => stage.fault(format!("no socket for datagrams: {error}")),
        }
    }

    fn ping(self: Arc<Self>, socket: &Socket) {
        let stage = self.stage.clone();
        let message = {
            let (random, sent, _) = &mut *lock(&self.state);
            *sent = vec![0; random.usize(..1500)];
            random.fill(sent);
            sent.clone()
        };
        stage.issued(socket.recv_from(Buffer::with_capacity(2048), stage.op(Kind::Datagram, self.clone(), 0)));
        stage.issued(socket.send_to(message, self.to, stage.op(Kind::Datagram, self, 1)));
    }
}

impl Actor for Pinger {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        match event {
            Event::SentTo { result: Ok(_), .. } => {}
            Event::ReceivedFrom { socket, buffer, result: Ok(_), .. } => {
                let more = {
                    let (_, sent, left) = &mut *lock(&self.state);
                    stage.check(buffer[..] == sent[..], "a datagram is not what was sent");
                    *left -= 1;
                    *left > 0
                };
                if more {
                    self.ping(&socket);
                } else {
                    socket.close();
                    self.start();
                }
            }
            other => stage.fault(format!("a datagram: {other:?}")),
        }
    }
}

// --- Files ---

/// Writes blocks into a file, and reads what it wrote.
struct Librarian {
    stage: Arc<Stage>,
    path: PathBuf,
    state: Mutex<Shelf>,
    _player: Player,
}

struct Shelf {
    random: Rng,
    block: Vec<u8>,
    offset: u64,
    left: usize,
    direct: bool,
}

/// What direct I/O is aligned to.
const UNIT: usize = 4096;
const BLOCKS: u64 = 64;

impl Librarian {
    fn enter(stage: &Arc<Stage>, number: usize) -> io::Result<()> {
        let path = stage.directory.join(format!("shelf-{number}"));
        std::fs::write(&path, vec![0; UNIT])?;
        let shelf = Shelf { random: stage.random(), block: Vec::new(), offset: 0, left: 0, direct: false };
        Arc::new(Librarian { stage: stage.clone(), path, state: Mutex::new(shelf), _player: stage.player() }).start();
        Ok(())
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        if stage.is_stopping() {
            return;
        }
        let direct = {
            let mut state = lock(&self.state);
            state.left = 30;
            state.direct = state.random.bool();
            state.direct
        };
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let plain = options.clone();
        if direct {
            system::direct(&mut options);
        }
        // Not every file system offers direct I/O.
        match stage.port.open(&self.path, &options, ()).or_else(|_| stage.port.open(&self.path, &plain, ())) {
            Ok(file) => self.write(&file),
            Err(error) => stage.fault(format!("a file was not opened: {error}")),
        }
    }

    fn write(self: Arc<Self>, file: &File) {
        let stage = self.stage.clone();
        let (buffer, offset) = {
            let mut state = lock(&self.state);
            let Shelf { random, block, offset, .. } = &mut *state;
            *block = vec![0; UNIT * random.usize(1..4)];
            random.fill(block);
            *offset = random.u64(..BLOCKS) * UNIT as u64;
            (Buffer::aligned(block.len(), UNIT).filled(block), *offset)
        };
        stage.issued(file.write_at(buffer, offset, stage.op(Kind::File, self, 0)));
    }
}

impl Actor for Librarian {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        match event {
            Event::Written { file, result: Ok(_), .. } => {
                let (length, offset, sync) = {
                    let mut state = lock(&self.state);
                    let sync = state.random.u8(..) < 4;
                    (state.block.len(), state.offset, sync)
                };
                if sync {
                    stage.issued(file.sync_data(stage.op(Kind::File, self.clone(), 0)));
                } else {
                    let room = Buffer::aligned(length, UNIT);
                    stage.issued(file.read_at(room, offset, stage.op(Kind::File, self, 0)));
                }
            }
            Event::Synced { file, result: Ok(()) } => self.write(&file),
            Event::Read { file, buffer, result: Ok(_) } => {
                let more = {
                    let mut state = lock(&self.state);
                    stage.check(buffer[..] == state.block[..], "a file does not hold what was written");
                    state.left -= 1;
                    state.left > 0
                };
                if more {
                    self.write(&file);
                } else {
                    drop(file);
                    self.start();
                }
            }
            other => stage.fault(format!("a file: {other:?}")),
        }
    }
}

// --- Posts, timers, cancels ---

/// Posts in a row, with a pause.
struct Poster {
    stage: Arc<Stage>,
    _player: Player,
}

const POSTS: u8 = 64;

impl Poster {
    fn enter(stage: &Arc<Stage>) {
        let poster = Arc::new(Poster { stage: stage.clone(), _player: stage.player() });
        stage.post(0, poster, 0);
    }
}

impl Actor for Poster {
    fn took(self: Arc<Self>, step: u8, event: Event) {
        let stage = self.stage.clone();
        match event {
            Event::Posted { bytes } => {
                stage.check(bytes == usize::from(step), "a post does not bring what was posted");
                if step < POSTS {
                    stage.post(usize::from(step) + 1, self, step + 1);
                } else if !stage.is_stopping() {
                    stage.timer(Duration::from_millis(1), self, 0);
                }
            }
            Event::Elapsed { result: Ok(1) } => stage.post(0, self, 0),
            other => stage.fault(format!("a post or a pause: {other:?}")),
        }
    }
}

/// A timer that goes off, or is cancelled in time, or just then.
struct Watchman {
    stage: Arc<Stage>,
    state: Mutex<(Rng, Option<OperationId>, u8)>,
    _player: Player,
}

impl Watchman {
    fn enter(stage: &Arc<Stage>) {
        let state = Mutex::new((stage.random(), None, 0));
        Arc::new(Watchman { stage: stage.clone(), state, _player: stage.player() }).start();
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        if stage.is_stopping() {
            return;
        }
        let mut state = lock(&self.state);
        let after = Duration::from_micros(state.0.u64(..4000));
        // The post's handler cancels it, if it comes in time. Both packets have to come.
        state.2 = 2;
        state.1 = stage.timer(after, self.clone(), 0);
        stage.post(0, self.clone(), 0);
    }
}

impl Actor for Watchman {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let over = {
            let mut state = lock(&self.state);
            match event {
                Event::Posted { .. } => {
                    if let (Some(id), true) = (state.1, state.0.bool()) {
                        self.stage.port.cancel(id);
                    }
                }
                Event::Elapsed { result: Ok(1) } => {}
                Event::Elapsed { result: Err(error) } if error.raw_os_error() == Some(ECANCELED) => {}
                other => self.stage.fault(format!("a timer: {other:?}")),
            }
            state.2 -= 1;
            state.2 == 0
        };
        if over {
            self.start();
        }
    }
}

/// A receive that is cancelled while its data comes, or does not come: what was written is read in the end, in order,
/// each byte once.
struct Waverer {
    stage: Arc<Stage>,
    peer: system::Socket,
    state: Mutex<Wavering>,
    _player: Player,
}

struct Wavering {
    random: Rng,
    stream: Option<Stream>,
    written: usize,
    read: usize,
    outstanding: Option<OperationId>,
    /// Packets that are still to come.
    awaited: u8,
}

/// What the bytes count up to.
const PERIOD: usize = 251;

impl Waverer {
    fn enter(stage: &Arc<Stage>) -> io::Result<()> {
        let (own, peer) = system::pair()?;
        let stream = stage.port.associate(own, ()).map_err(|rejected| rejected.error)?;
        let state = Wavering {
            random: stage.random(),
            stream: Some(stream),
            written: 0,
            read: 0,
            outstanding: None,
            awaited: 0,
        };
        let waverer = Waverer { stage: stage.clone(), peer, state: Mutex::new(state), _player: stage.player() };
        Arc::new(waverer).start();
        Ok(())
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        let mut state = lock(&self.state);
        if stage.is_stopping() && state.read == state.written {
            // Packets of this actor are not outstanding, so the last handle goes here.
            state.stream = None;
            return;
        }
        state.awaited = 2;
        if let Some(stream) = &state.stream {
            let op = stage.op(Kind::Receive, self.clone(), 0);
            let id = stage.issued(stream.recv(Buffer::with_capacity(100), op));
            state.outstanding = id;
        }
        stage.post(0, self.clone(), 0);
    }

    /// Writes, or cancels, or both.
    fn waver(&self, state: &mut Wavering) {
        let waiting = state.written - state.read;
        let way = state.random.u8(0..3);
        let cancel = |state: &Wavering| {
            if let Some(id) = state.outstanding {
                self.stage.port.cancel(id);
            }
        };
        if way == 0 {
            cancel(state);
        }
        if way != 1 && waiting < 1000 && !self.stage.is_stopping() {
            let count = state.random.usize(1..200);
            let bytes: Vec<u8> = (state.written..state.written + count).map(|at| (at % PERIOD) as u8).collect();
            match (&self.peer).write_all(&bytes) {
                Ok(()) => state.written += count,
                Err(error) => self.stage.fault(format!("writing to a pair of sockets: {error}")),
            }
        }
        if way == 1 {
            cancel(state);
        } else if way == 0 && state.written == state.read {
            // Nothing was written: cancelled above.
        } else if state.written == state.read {
            cancel(state);
        }
    }
}

impl Actor for Waverer {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let over = {
            let mut state = lock(&self.state);
            match event {
                Event::Posted { .. } => self.waver(&mut state),
                Event::Received { buffer, result: Ok(bytes @ 1..), .. } => {
                    let in_order = (state.read..).zip(&buffer[..]).all(|(at, &byte)| (at % PERIOD) as u8 == byte);
                    self.stage.check(in_order, "bytes around a cancelled receive are not in order");
                    state.read += bytes;
                }
                Event::Received { result: Err(error), .. } if error.raw_os_error() == Some(ECANCELED) => {}
                other => self.stage.fault(format!("a receive that is cancelled: {other:?}")),
            }
            state.awaited -= 1;
            state.awaited == 0
        };
        if over {
            self.start();
        }
    }
}

// --- Handlers that block ---

/// Blocks a worker for a while, announced or not, and sometimes panics.
struct Sleeper {
    stage: Arc<Stage>,
    random: Mutex<Rng>,
    _player: Player,
}

/// What a handler of the soak panics with.
pub const PANIC: &str = "a handler of the soak panics";

impl Sleeper {
    fn enter(stage: &Arc<Stage>) {
        let random = Mutex::new(stage.random());
        let sleeper = Arc::new(Sleeper { stage: stage.clone(), random, _player: stage.player() });
        stage.post(0, sleeper, 0);
    }
}

impl Actor for Sleeper {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        if matches!(event, Event::Elapsed { .. }) {
            return stage.post(0, self, 0);
        }
        let (time, announced, panics) = {
            let mut random = lock(&self.random);
            (Duration::from_micros(random.u64(..3000)), random.bool(), random.u8(..) == 0)
        };
        let sleep = || std::thread::sleep(time);
        if announced {
            wharf::blocking(sleep)
        } else {
            sleep()
        }
        if !stage.is_stopping() {
            stage.timer(Duration::from_millis(5), self, 0);
        }
        if panics {
            std::panic::panic_any(PANIC);
        }
    }
}
