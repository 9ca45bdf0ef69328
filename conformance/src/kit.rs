//! What the rows share: ports of the engine under test, waiting with a deadline, and what stands in `kit/`:
//! clocks, sockets in every state, memory for the raw layer.
//!
//! A row fails by panicking. Its time limits are for what hangs. Where a row's sentence is a time ("at once", "does not
//! wait"), it is the best of several tries that is judged, or their median, by a bound that is far from the right value
//! and from the wrong one: [`quickest`], [`mostly`], [`median`].

use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use wharf::error::{win32, winsock};
use wharf::raw;
use wharf::{CompletionPort, Event, GetError, OperationId, Outcome, Packet, PortOptions, Wake};

/// A row that takes longer hangs.
pub const ROW_LIMIT: Duration = Duration::from_secs(70);
/// Time enough for something to happen that must not.
pub const WHILE: Duration = Duration::from_millis(20);

pub type Port = CompletionPort<u64, u64>;
pub type Stream = wharf::Stream<u64, u64>;
pub type Taken = Packet<u64, u64>;

use crate::judge::NotTried;
use crate::setting::{Engine, Setting, wake_name};

pub mod clock;
pub mod memory;
pub mod peer;
pub mod system;
pub use clock::*;
pub use memory::*;
pub use peer::*;
pub use system::*;
// What the library's own tests have as well.
pub use wharf_testkit::plain::*;

/// What a row is given.
pub struct Bench {
    pub engine: Engine,
    pub wake: Wake,
    /// Where sockets are, if not in the system.
    #[cfg(unix)]
    pub(crate) network: Option<wharf::fake::Network>,
    notes: Mutex<Vec<String>>,
}

impl Bench {
    pub fn new(Setting { engine, wake }: Setting) -> Bench {
        Bench {
            engine,
            wake,
            #[cfg(unix)]
            network: (engine == Engine::Fake).then(|| wharf::fake::Network::new(fastrand::u64(..))),
            notes: Mutex::new(Vec::new()),
        }
    }

    /// One more, over the same network, for a thread of the row's own.
    pub fn another(&self) -> Bench {
        Bench {
            engine: self.engine,
            wake: self.wake,
            #[cfg(unix)]
            network: self.network.clone(),
            notes: Mutex::default(),
        }
    }

    pub fn options(&self) -> PortOptions {
        PortOptions::default()
            .concurrency(2)
            .wake(self.wake)
            .file_engine(self.engine.file_engine())
            .socket_engine(self.engine.socket_engine())
    }

    /// The port of these options, over the engine under test.
    pub fn build<K: wharf::Key, C: wharf::Context>(&self, options: PortOptions) -> io::Result<CompletionPort<K, C>> {
        #[cfg(unix)]
        if let Some(network) = &self.network {
            return network.port(&options);
        }
        options.build()
    }

    /// A port at whose limit two threads run.
    pub fn port(&self) -> Port {
        self.build(self.options()).unwrap()
    }

    pub fn limited(&self, limit: usize) -> Port {
        self.build(self.options().concurrency(limit)).unwrap()
    }

    pub fn raw(&self) -> raw::Port {
        let config = raw::Config {
            concurrency: 2,
            wake: self.wake,
            pool_buffer_bytes: 4096,
            pool_keep: 4,
            files: self.engine.file_engine(),
            sockets: self.engine.socket_engine(),
            dispose: drop,
        };
        #[cfg(unix)]
        if let Some(network) = &self.network {
            return network.raw(config).unwrap();
        }
        raw::Port::new(config).unwrap()
    }

    /// Something measured, for the report.
    pub fn note(&self, text: String) {
        self.notes.lock().unwrap().push(text);
    }

    pub fn notes(&self) -> Vec<String> {
        self.notes.lock().unwrap().clone()
    }

    /// Runs a part of a row (`rows::child`) in a process of its own.
    #[track_caller]
    pub fn in_child(&self, part: &str) {
        let program = std::env::current_exe().unwrap();
        let output = std::process::Command::new(program)
            .args(["--child", part, "--engine", self.engine.name(), "--wake", wake_name(self.wake)])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "the child process failed: {}\n{text}", output.status);
    }
}

// --- What a row says that cannot try anything ---

/// Nothing here can show it: what would be needed.
pub fn not_tried(why: &str) -> ! {
    std::panic::resume_unwind(Box::new(NotTried { not_applicable: false, why: why.into() }))
}

/// The system has nothing that the row could speak of.
#[cfg_attr(unix, allow(dead_code))]
pub fn not_here(why: &str) -> ! {
    std::panic::resume_unwind(Box::new(NotTried { not_applicable: true, why: why.into() }))
}

// --- What several threads look at ---

/// A flag that several threads look at.
#[derive(Clone, Default)]
pub struct Flag(Arc<AtomicBool>);

impl Flag {
    pub fn set(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// A number that several threads count up.
#[derive(Clone, Default)]
pub struct Count(Arc<AtomicUsize>);

impl Count {
    /// Returns the number afterwards.
    pub fn up(&self) -> usize {
        self.0.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub fn add(&self, number: usize) {
        self.0.fetch_add(number, Ordering::SeqCst);
    }

    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }

    pub fn set(&self, number: usize) {
        self.0.store(number, Ordering::SeqCst);
    }

    pub fn raise_to(&self, number: usize) {
        self.0.fetch_max(number, Ordering::SeqCst);
    }

    pub fn now(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

// --- Packets ---

#[track_caller]
pub fn next(port: &Port) -> Taken {
    port.get_timeout(DEADLINE).unwrap_or_else(|error| panic!("a packet was expected: {error}"))
}

/// Nothing is queued, and nothing comes: a packet that was queued wrongly would stand before the marker.
#[track_caller]
pub fn quiet(port: &Port) {
    const MARKER: u64 = 0x6d61_726b_6572;
    port.post(0, MARKER, MARKER).unwrap();
    let packet = next(port);
    assert_eq!(packet.context, MARKER, "a packet came that nobody may expect: {:?}", packet.event);
    let later = port.get_timeout(WHILE);
    assert!(matches!(later, Err(GetError::TimedOut)), "a packet came that nobody may expect: {later:?}");
}

/// The bytes of the next packet, which has to be that of a receive, and its context.
#[track_caller]
pub fn received(port: &Port) -> (u64, io::Result<Vec<u8>>) {
    let packet = next(port);
    match packet.event {
        Event::Received { buffer, result, .. } => (
            packet.context,
            result.map(|bytes| {
                assert_eq!(bytes, buffer.len(), "the count is not what is in the buffer");
                buffer.to_vec()
            }),
        ),
        other => panic!("a receive was expected to end: {other:?}"),
    }
}

/// The next packet is that of a send: its context and result.
#[track_caller]
pub fn sent(port: &Port) -> (u64, io::Result<usize>) {
    let packet = next(port);
    match packet.event {
        Event::Sent { result, .. } | Event::SentVectored { result, .. } | Event::SentFile { result, .. } => {
            (packet.context, result)
        }
        other => panic!("a send was expected to end: {other:?}"),
    }
}

#[track_caller]
pub fn accepted(port: &Port) -> (u64, io::Result<(StdStream, SocketAddr)>) {
    let packet = next(port);
    match packet.event {
        Event::Accepted { result, .. } => (packet.context, result),
        other => panic!("an accept was expected to end: {other:?}"),
    }
}

#[track_caller]
pub fn pending(outcome: Outcome<u64, u64>) -> OperationId {
    match outcome {
        Outcome::Pending(id) => id,
        Outcome::Done(packet) => panic!("without the skip flag everything pends: {packet:?}"),
    }
}

#[track_caller]
pub fn errno<T: std::fmt::Debug>(result: &io::Result<T>) -> i32 {
    let error = result.as_ref().expect_err("an error was expected");
    error.raw_os_error().unwrap_or_else(|| panic!("an error with a number was expected: {error}"))
}

/// What GetQueuedCompletionStatus and WSAGetOverlappedResult would report.
pub fn codes(packet: &Taken) -> (u32, u32) {
    let status = packet.nt_status();
    (win32(status), winsock(status))
}

pub const ECANCELED: i32 = raw::ECANCELED;
pub const ECONNRESET: i32 = if cfg!(windows) { 10054 } else { 104 };

// --- Threads ---

/// Threads that serve a port until it is closed, which dropping the crew does.
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

/// More than a narrow stream takes.
pub const MUCH: usize = 4 << 20;

/// An address at which nobody listens, for as long as the value lives.
pub fn dead_address() -> (rustix::fd::OwnedFd, SocketAddr) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    let address = SocketAddr::try_from(getsockname(&socket).unwrap()).unwrap();
    (socket, address)
}

// --- Files ---

/// A path of the row's own, whose file is gone when it ends.
pub struct Temporary(pub std::path::PathBuf);

impl Temporary {
    pub fn new() -> Temporary {
        Temporary::in_directory(&std::env::temp_dir())
    }

    pub fn in_directory(directory: &std::path::Path) -> Temporary {
        let name = format!("wharf-conformance-{}-{:x}", std::process::id(), fastrand::u64(..));
        Temporary(directory.join(name))
    }

    pub fn with(content: impl AsRef<[u8]>) -> Temporary {
        let path = Temporary::new();
        std::fs::write(&path.0, content).unwrap();
        path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl AsRef<std::path::Path> for Temporary {
    fn as_ref(&self) -> &std::path::Path {
        &self.0
    }
}
