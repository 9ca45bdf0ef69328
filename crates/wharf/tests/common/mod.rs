//! What the test files share: waiting with a deadline, contexts that are counted, sockets, and child processes.
//!
//! Time limits here are for hung tests only: nothing is concluded from how long something took.

// Each test file uses a part of this.
#![allow(dead_code, unused_imports)]

pub use wharf_testkit::numbers;
pub use wharf_testkit::plain::*;
pub use wharf_testkit::process::*;
pub use wharf_testkit::sockets::*;

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use wharf::{Buffer, CompletionPort, Event, GetError, OperationId, Outcome, Packet, PortOptions, Wake};

pub type Port = CompletionPort<u64, Token>;
pub type Stream = wharf::Stream<u64, Token>;
pub type Listener = wharf::Listener<u64, Token>;
pub type Taken = Packet<u64, Token>;

// --- Accounting ---

const TOKENS_MAX: usize = 1 << 22;
/// Two bits for each context.
const ARRIVED: u64 = 1;
const DROPPED: u64 = 2;
const TOKENS_PER_WORD: usize = 32;

/// Counts the contexts that a test hands out. Made first and so dropped last, it then checks that every one of them is
/// gone: none leaked, none freed twice, none delivered twice.
pub struct Ledger(Arc<Books>);

struct Books {
    live: AtomicI64,
    freed_twice: AtomicI64,
    made: AtomicUsize,
    arrived: AtomicUsize,
    states: Box<[AtomicU64]>,
}

impl Ledger {
    pub fn new() -> Ledger {
        Ledger(Arc::new(Books {
            live: AtomicI64::new(0),
            freed_twice: AtomicI64::new(0),
            made: AtomicUsize::new(0),
            arrived: AtomicUsize::new(0),
            states: (0..TOKENS_MAX / TOKENS_PER_WORD).map(|_| AtomicU64::new(0)).collect(),
        }))
    }

    /// A context with a number of the test's choice.
    pub fn token(&self, number: u64) -> Token {
        Token::new(&self.0, number)
    }

    /// Contexts that exist.
    pub fn live(&self) -> i64 {
        self.0.live.load(Ordering::SeqCst)
    }

    /// Contexts that were made.
    pub fn made(&self) -> usize {
        self.0.made.load(Ordering::SeqCst)
    }

    /// Contexts that came out of a port.
    pub fn arrived(&self) -> usize {
        self.0.arrived.load(Ordering::SeqCst)
    }

    /// Another handle for a handler that makes contexts; it checks nothing.
    pub fn mint(&self) -> Mint {
        Mint(self.0.clone())
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        eventually("every context is freed", || self.live() <= 0);
        assert_eq!(self.live(), 0, "more contexts were freed than made");
        assert_eq!(self.0.freed_twice.load(Ordering::SeqCst), 0, "contexts were freed twice");
    }
}

impl Books {
    /// Sets a bit of a context's state and returns the state before.
    fn mark(&self, serial: usize, bit: u64) -> u64 {
        let shift = 2 * (serial % TOKENS_PER_WORD);
        self.states[serial / TOKENS_PER_WORD].fetch_or(bit << shift, Ordering::SeqCst) >> shift & 3
    }
}

/// Makes tokens of a [`Ledger`] in another thread.
#[derive(Clone)]
pub struct Mint(Arc<Books>);

impl Mint {
    pub fn token(&self, number: u64) -> Token {
        Token::new(&self.0, number)
    }
}

/// A context that knows whether it was delivered and freed. Atomics only, so that a handler which looks at it never
/// blocks.
pub struct Token {
    pub number: u64,
    serial: usize,
    books: Arc<Books>,
}

impl Token {
    fn new(books: &Arc<Books>, number: u64) -> Token {
        let serial = books.made.fetch_add(1, Ordering::SeqCst);
        assert!(serial < TOKENS_MAX, "raise TOKENS_MAX for a test that makes so many contexts");
        books.live.fetch_add(1, Ordering::SeqCst);
        Token { number, serial, books: books.clone() }
    }

    /// To be called once it came out of a port.
    #[track_caller]
    pub fn arrive(&self) {
        assert_eq!(
            self.books.mark(self.serial, ARRIVED),
            0,
            "context {} was delivered twice, or after it was freed",
            self.number
        );
        self.books.arrived.fetch_add(1, Ordering::SeqCst);
    }
}

impl Clone for Token {
    fn clone(&self) -> Token {
        Token::new(&self.books, self.number)
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        if self.books.mark(self.serial, DROPPED) & DROPPED != 0 {
            self.books.freed_twice.fetch_add(1, Ordering::SeqCst);
        }
        self.books.live.fetch_sub(1, Ordering::SeqCst);
    }
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({})", self.number)
    }
}

// --- Packets ---

/// A port with a limit on running threads.
pub fn port(limit: usize, wake: Wake) -> Port {
    PortOptions::default().concurrency(limit).wake(wake).build().unwrap()
}

/// The next packet, which has to come.
#[track_caller]
pub fn next(port: &Port) -> Taken {
    match port.get_timeout(DEADLINE) {
        Ok(packet) => {
            packet.context.arrive();
            packet
        }
        Err(error) => panic!("a packet was expected: {error}"),
    }
}

/// Nothing is queued, and nothing comes either: a packet that was queued wrongly would stand before the marker.
#[track_caller]
pub fn quiet(port: &Port, ledger: &Ledger) {
    const MARKER: u64 = u64::MAX - 77;
    port.post(0, MARKER, ledger.token(MARKER)).unwrap();
    let packet = next(port);
    assert_eq!(packet.context.number, MARKER, "a packet came that nobody may expect: {:?}", packet.event);
    match port.get_timeout(Duration::from_millis(20)) {
        Err(GetError::TimedOut) => {}
        other => panic!("a packet came that nobody may expect: {other:?}"),
    }
}

#[derive(Debug)]
pub struct Received {
    pub number: u64,
    pub stream: Stream,
    pub buffer: Buffer,
    pub result: io::Result<usize>,
}

#[track_caller]
pub fn received(packet: Taken) -> Received {
    match packet.event {
        Event::Received { stream, buffer, result } => {
            Received { number: packet.context.number, stream, buffer, result }
        }
        other => panic!("a receive was expected to complete: {other:?}"),
    }
}

#[track_caller]
pub fn next_received(port: &Port) -> Received {
    received(next(port))
}

#[track_caller]
pub fn next_sent(port: &Port) -> (u64, Buffer, io::Result<usize>) {
    let packet = next(port);
    match packet.event {
        Event::Sent { buffer, result, .. } => (packet.context.number, buffer, result),
        other => panic!("a send was expected to complete: {other:?}"),
    }
}

#[track_caller]
pub fn next_accepted(port: &Port) -> (u64, io::Result<(StdStream, SocketAddr)>) {
    let packet = next(port);
    match packet.event {
        Event::Accepted { result, .. } => (packet.context.number, result),
        other => panic!("an accept was expected to complete: {other:?}"),
    }
}

#[track_caller]
pub fn next_connected(port: &Port) -> (u64, Stream, io::Result<()>) {
    let packet = next(port);
    match packet.event {
        Event::Connected { stream, result } => (packet.context.number, stream, result),
        other => panic!("a connect was expected to complete: {other:?}"),
    }
}

/// The operation's name; it has to be pending.
#[track_caller]
pub fn pending(outcome: Outcome<u64, Token>) -> OperationId {
    match outcome {
        Outcome::Pending(id) => id,
        Outcome::Done(packet) => panic!("without skip_on_success every operation pends: {packet:?}"),
    }
}

#[track_caller]
pub fn errno<T: std::fmt::Debug>(result: &io::Result<T>) -> i32 {
    let error = result.as_ref().expect_err("an error was expected");
    error.raw_os_error().unwrap_or_else(|| panic!("an error with a number was expected: {error}"))
}

// --- Threads ---

/// Threads that serve a port until it is closed, which dropping the crew does: so a failed assertion ends the test
/// instead of hanging it.
pub struct Crew {
    port: Port,
    threads: Vec<JoinHandle<()>>,
}

impl Crew {
    /// Starts `count` threads, each when the one before it waits. The handler gets the thread's number, from 0.
    #[track_caller]
    pub fn start(port: &Port, count: usize, handler: impl Fn(usize, Taken) + Send + Sync + 'static) -> Crew {
        let handler = Arc::new(handler);
        let mut crew = Crew { port: port.clone(), threads: Vec::new() };
        let before = port.stats().waiting;
        for number in 0..count {
            let (port, handler) = (port.clone(), handler.clone());
            crew.threads.push(thread::spawn(move || {
                while let Ok(packet) = port.get() {
                    packet.context.arrive();
                    handler(number, packet);
                }
            }));
            eventually("a thread that calls get waits", || crew.port.stats().waiting == before + number + 1);
        }
        crew
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        self.port.close();
        for thread in self.threads.drain(..) {
            let result = thread.join();
            if let (Err(panic), false) = (result, thread::panicking()) {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

// --- Sockets ---

/// A stream of the port under `key`, and its peer.
pub fn connection(port: &Port, key: u64) -> (Stream, StdStream) {
    let (server, client) = pair();
    (port.associate(server, key).unwrap(), client)
}
