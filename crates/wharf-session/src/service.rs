//! A port, its workers, its listeners and its sessions.

use crate::accepting::{Listener, Taken};
use crate::conn::{Closed, Conn, Link};
use crate::gather::{self, Parcel};
use crate::local::SocketFile;
use crate::lock::{Condition, Lock};
use crate::memory::{LOOK, Memory};
use crate::outbox::SlowConsumer;
use crate::peer::{LocalPeer, Peer};
use crate::rate::{Rate, Rates};
use crate::reconnect::{Control, GaveUp};
#[cfg(feature = "tls")]
use crate::tls::ClientTls;
use crate::waiting::{Waiters, Waiting};
use crate::{ById, ServerTls, Session, Tls, time};
use std::cell::Cell;
use std::collections::HashSet;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use wharf::net::Addresses;
use wharf::{
    Branch, CompletionPort, Context, Event, GetError, Home, Key, OperationId, Packet, PoolReport, PortStats, Wake,
    WorkerPool, WorkerReport, Workers,
};

/// How often sessions that linger are looked at; and how often while a shutdown waits for the last of them.
pub(super) const SWEEP: Duration = Duration::from_millis(200);
const FINISH_LOOK: Duration = Duration::from_millis(10);

/// How often sessions are looked at for time-outs, in the smallest of them; and the least time between two looks, as
/// looking at all sessions is work.
const LOOKS_PER_TIMEOUT: u32 = 8;
const LOOK_LEAST: Duration = Duration::from_millis(5);

const OUTBOX_BYTES: usize = 1024 * 1024;
const MAX_SESSIONS: usize = 1_000_000;
const LINGER: Duration = Duration::from_secs(5);
/// For a TLS handshake: a few round trips, on a bad line, by a slow machine. Who needs longer will not be served well.
const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// For an address to answer. The system's own limit is about two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What a device of a service is.
#[derive(Clone)]
pub(super) enum Node {
    Listener(Arc<Listening>),
    /// A listener that failed, and is tried again.
    Resting(Listener),
    Taken(Arc<Taken>),
    Session(Arc<Conn>),
    Client(Arc<Control>),
    /// Sends that were left: see `gather.rs`.
    Parcel(Arc<Parcel>),
    Service,
}

/// What an operation of a service is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Accept,
    Connect,
    /// Posted for a connection that was made elsewhere.
    Start,
    Receive,
    Resume,
    Send,
    Sweep,
    Timeouts,
    Signal,
    /// Sessions have tokens again.
    Rates,
    /// Memory was freed, and somebody waits for it; and the look whether it is.
    Memory,
    MemoryLook,
    /// A client's wait is over; and an address has not answered, in the attempt with these last bits of its number.
    ConnectAgain,
    ConnectLate(u8),
}

pub(super) type Stream = wharf::Stream<Node, Op>;

type MakeTcp = dyn Fn(SocketAddr) -> Box<dyn Session> + Send + Sync;
type MakeLocal = dyn Fn(&LocalPeer) -> Box<dyn Session> + Send + Sync;

/// Makes sessions, of connections of one kind.
#[cfg_attr(windows, allow(dead_code, reason = "no socket of the machine's own completes into a port there"))]
pub(super) enum Make {
    Tcp(Box<MakeTcp>),
    Local(Box<MakeLocal>),
}

pub(super) struct Listening {
    pub(super) make: Make,
    pub(super) tls: Option<ServerTls>,
    /// It has failed, which was said, and no connection was taken since.
    pub(super) failed: AtomicBool,
}

impl Listening {
    pub(super) fn new(make: Make, tls: Option<ServerTls>) -> Listening {
        Listening { make, tls, failed: AtomicBool::new(false) }
    }
}

/// Options of a service.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    workers: Workers,
    concurrency: usize,
    wake: Wake,
    options: Options,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) max_sessions: usize,
    pub(super) outbox_bytes: usize,
    pub(super) slow_consumer: SlowConsumer,
    pub(super) linger: Duration,
    pub(super) nodelay: bool,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) handshake_timeout: Option<Duration>,
    pub(super) connect_timeout: Duration,
    pub(super) rate: Option<Rate>,
    pub(super) inbox_bytes: usize,
    pub(super) memory_bytes: usize,
}

impl Options {
    /// Values that nobody can mean are refused: each would be found out only when the first session ends for it.
    fn check(&self) -> io::Result<()> {
        let refuse = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if self.max_sessions == 0 {
            return refuse("max_sessions(0) would refuse every session; give 1 or more");
        }
        if self.outbox_bytes == 0 {
            return refuse("an outbox of 0 bytes takes no message; give outbox the length of the longest one or more");
        }
        if self.inbox_bytes == 0 {
            return refuse("inbox(0) would end every session at the first piece of a frame; give it a frame's length");
        }
        if self.memory_bytes == 0 {
            return refuse("memory_limit(0) takes no message; give it some outboxes, or leave it out for no limit");
        }
        if self.idle_timeout.is_some_and(|time| time.is_zero()) {
            return refuse("an idle_timeout of no time would end every session at once; leave it out for never");
        }
        if self.connect_timeout.is_zero() {
            return refuse(
                "a connect_timeout of no time gives nobody time to answer; Duration::MAX is the system's limit",
            );
        }
        if self.handshake_timeout.is_some_and(|time| time.is_zero()) {
            return refuse("a handshake_timeout of no time would end every session at once; leave it out for never");
        }
        Ok(())
    }

    pub(super) fn tls_handshake_timeout(&self) -> Duration {
        self.handshake_timeout.unwrap_or(TLS_HANDSHAKE)
    }

    /// How long an address may take to answer.
    fn connect_limit(&self) -> Duration {
        self.handshake_timeout.map_or(self.connect_timeout, |time| time.min(self.connect_timeout))
    }
}

impl ServiceOptions {
    /// How many threads serve it. Default: twice the processors, growing when all are blocked.
    pub fn workers(mut self, workers: Workers) -> Self {
        self.workers = workers;
        self
    }

    /// How many of them may run at the same time. 0, the default: as many as there are processors.
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.concurrency = limit;
        self
    }

    /// How soon a further thread is woken while others are active.
    pub fn wake(mut self, wake: Wake) -> Self {
        self.wake = wake;
        self
    }

    /// How many sessions there may be at a time, at least 1. A connection beyond it is closed at once, and counted as
    /// refused.
    pub fn max_sessions(mut self, count: usize) -> Self {
        self.options.max_sessions = count;
        self
    }

    /// How many bytes may wait for one session (1 MiB), at least 1, and what happens when they are reached. What the
    /// system has taken of a message does not wait any more.
    pub fn outbox(mut self, bytes: usize, policy: SlowConsumer) -> Self {
        self.options.outbox_bytes = bytes;
        self.options.slow_consumer = policy;
        self
    }

    /// How many bytes of an unfinished frame one [`Framed`](crate::Framed) session may keep, beside its codec's own
    /// maximum. One with more is closed ([`FrameError::TooLong`](crate::FrameError::TooLong)). Default: as the codec
    /// says.
    ///
    /// A session without framing keeps what it is given itself. Beside a frame one receive (16 KiB) may wait, when a
    /// session was paused as it came.
    pub fn inbox(mut self, bytes: usize) -> Self {
        self.options.inbox_bytes = bytes;
        self
    }

    /// How many bytes all sessions together may keep: what waits to be sent, and what was received and waits to be
    /// handled (see [`outbox`](ServiceOptions::outbox) and [`inbox`](ServiceOptions::inbox)). Default: no limit.
    ///
    /// - A send that would exceed it is treated as the policy for slow consumers says, with *the session that holds
    ///   most*, the new message counted, as the slow one: it ends ([`Closed::MemoryLimit`]), or loses its oldest
    ///   messages, or the sender waits.
    /// - While three quarters are used, nothing is received, until no more than half is: peers then wait, by TCP's own
    ///   means.
    /// - While anybody waits for memory, and in a second less than a hundredth of the limit is freed, or taken by the
    ///   peers of what is on its way, the largest of those whose peers take nothing end, as many as it takes until
    ///   those that wait may go on, and at least as many as hold a hundredth. So a service whose memory is full of what
    ///   nobody reads gets on again by itself.
    ///
    /// Sends never exceed it. Receives that were outstanding when memory became short may, by a quarter: if their
    /// unfinished frames come to more, the session that holds most ends at once. What came as a session was just paused
    /// is not bounded by it, but by one receive (16 KiB) for each such session. The bytes of a broadcast count once,
    /// however many members have not read it yet. Not counted: what a session keeps itself, the system's own buffers,
    /// and some hundred bytes for each session. Everything that is ended for it is logged, and counted in
    /// [`ServiceStats::memory`].
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.options.memory_bytes = bytes;
        self
    }

    /// How fast each session may receive: see [`Rate`]. [`Link::set_rate_limit`] says otherwise for one. Default: no
    /// limit.
    ///
    /// Nothing is lost, and nobody is ended: a session that has used up its rate is not received from until it may
    /// again. Its time in waiting does not count as idle.
    pub fn rate_limit(mut self, rate: Rate) -> Self {
        self.options.rate = Some(rate);
        self
    }

    /// How long a session that is being closed may take until what was accepted has arrived, and the peer has ended its
    /// side (5 s); in a shutdown its deadline counts instead. A peer that has ended its side and still reads what was
    /// accepted for it has as long as this since it last took something. What has not arrived then is lost, and the
    /// peer hears a reset. With no time at all a close is an [abort](Link::abort) as soon as something has to be waited
    /// for.
    pub fn linger(mut self, time: Duration) -> Self {
        self.options.linger = time;
        self
    }

    /// Whether small messages go out at once (`TCP_NODELAY`). Default: yes.
    pub fn nodelay(mut self, on: bool) -> Self {
        self.options.nodelay = on;
        self
    }

    /// Closes a session that for that long has received nothing, and of which no send has completed and nothing was
    /// acknowledged ([`Closed::IdleTimeout`]): its peer is silent, and does not read either. Default: never.
    ///
    /// Sessions are looked at eight times in the smallest time-out, but not more often than every 5 ms, so one is
    /// closed up to half of it, or 20 ms, later, never earlier. Time in which a handler of the session runs does not
    /// count.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.options.idle_timeout = Some(time);
        self
    }

    /// Closes a session that has not called [`Link::ready`] that long after it was opened
    /// ([`Closed::HandshakeTimeout`]), whatever it receives. Default: never. As exact as
    /// [`idle_timeout`](ServiceOptions::idle_timeout).
    ///
    /// A TLS handshake, before `opened`, may take as long, and 10 s if nothing is said here; sessions that are at it
    /// are looked at every 0.2 s.
    pub fn handshake_timeout(mut self, time: Duration) -> Self {
        self.options.handshake_timeout = Some(time);
        self
    }

    /// How long an address may take to answer, for sessions that this side connects: then the name's next address is
    /// tried, or the session's `closed` is called ([`Closed::Failed`], [`TimedOut`](io::ErrorKind::TimedOut)). Default:
    /// 20 s; the system's own limit is about two minutes. [`handshake_timeout`](ServiceOptions::handshake_timeout), if
    /// it is shorter, counts for this, too. Looked at every 0.2 s. A client that connects again has [its
    /// own](crate::Reconnect::connect_timeout).
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.options.connect_timeout = time;
        self
    }

    /// Makes the port and starts the workers.
    ///
    /// # Errors
    ///
    /// The system's, when descriptors, memory or threads are exhausted. `InvalidInput`: an option says that nothing may
    /// ever be done (no sessions, an outbox, an inbox or a memory limit of 0 bytes, a time-out of no time).
    pub fn start(self) -> io::Result<Service> {
        self.options.check()?;
        let port = CompletionPort::<(), ()>::options().concurrency(self.concurrency).wake(self.wake).build()?;
        let workers = self.workers.clone();
        let inner = self.over(&port, Some(port.clone()));
        // All its packets are the service's.
        let pool = port.start(workers, |_| {})?;
        let service = Service { inner, pool: Some(pool) };
        service.inner.begin()?;
        Ok(service)
    }

    /// A service on a port that the program has, served by the threads that take packets of it: a pool that the program
    /// has started, or threads that call [`get`](CompletionPort::get). [`workers`](ServiceOptions::workers),
    /// [`concurrency`](ServiceOptions::concurrency) and [`wake`](ServiceOptions::wake) are the port's, and count for
    /// nothing here.
    ///
    /// The service does everything that it does on a port of its own, and leaves the port and its other packets alone:
    /// it is a [branch](wharf::Branch) of it. Its handlers run inside `get`, or in a pool beside the program's own. Any
    /// number of services may stand on one port.
    ///
    /// - [`Service::shutdown`], and dropping the service, end its sessions, listeners and timers, and not the port.
    ///   They wait for no thread: a handler that still runs then hears of its session's end when it returns.
    ///   [`ShutdownReport::workers_left`] is 0.
    /// - While no thread is inside `get` the sessions stand still, and a shutdown that is to be graceful takes its
    ///   whole time.
    /// - The port is to be closed after the service. If it is closed before, or its last handle is dropped, nothing of
    ///   the sessions goes on. Their `closed` is called when the service is dropped or shut down, as of sessions that
    ///   were cut off; what they had not sent is lost.
    /// - With [`SlowConsumer::Wait`] all threads of the port but one may wait for room, those included that handle
    ///   packets of the program's own. A send by the last one does not wait: it ends the session that is slow.
    ///
    /// ```
    /// # use std::io::{Read, Write};
    /// use wharf::{Buffer, CompletionPort, Event, Workers};
    /// use wharf_session::{Link, Service, Session};
    ///
    /// struct Echo;
    /// impl Session for Echo {
    ///     fn received(&mut self, link: &Link, data: Buffer) {
    ///         let _ = link.send(data);
    ///     }
    /// }
    ///
    /// let port = CompletionPort::<&str, u32>::new()?; // the program's, with packets of its own
    /// let workers = port.start(Workers::new(2), |packet| println!("{}: {}", packet.key, packet.context))?;
    /// let service = Service::options().start_on(&port)?;
    /// let address = service.listen("127.0.0.1:0", |_peer| Echo)?;
    /// # let mut client = std::net::TcpStream::connect(address)?;
    /// # client.write_all(b"hello")?;
    /// # client.read_exact(&mut [0; 5])?;
    /// service.shutdown(std::time::Duration::from_secs(5));
    /// port.post(0, "still here", 1).unwrap();
    /// # port.close();
    /// # workers.join();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The port is closed. And `InvalidInput`, as [`start`](ServiceOptions::start).
    pub fn start_on<K: Key, C: Context>(self, port: &CompletionPort<K, C>) -> io::Result<Service> {
        self.options.check()?;
        let inner = self.over(port, None);
        // An empty packet: of a closed port nothing is to be expected.
        inner.port.post(0, Node::Service, Op::Signal).map_err(|_| GetError::Abandoned)?;
        let service = Service { inner, pool: None };
        service.inner.begin()?;
        Ok(service)
    }

    /// A service that is a branch of a port, without workers. `own`: the port serves nothing else.
    pub(super) fn over<K: Key, C: Context>(
        self,
        port: &CompletionPort<K, C>,
        own: Option<CompletionPort<(), ()>>,
    ) -> Arc<Inner> {
        let smallest = self.options.idle_timeout.into_iter().chain(self.options.handshake_timeout).min();
        let timeouts = smallest.map(|smallest| Timeouts {
            period: (smallest / LOOKS_PER_TIMEOUT).max(LOOK_LEAST),
            last: Lock::new(time::now()),
            timer: OnceLock::new(),
        });
        Arc::new_cyclic(|inner: &Weak<Inner>| {
            let inner = inner.clone();
            let branch = port.branch(move |packet| {
                if let Some(inner) = inner.upgrade() {
                    inner.work(packet);
                }
            });
            Inner {
                home: Home::here(),
                waiters: match &own {
                    Some(_) => Waiters::alone(&branch, self.workers.limit()),
                    None => Waiters::shared(&branch),
                },
                port: branch,
                own,
                timeouts,
                coarse_us: Arc::default(),
                rates: Rates::new(),
                memory: Memory::new(self.options.memory_bytes),
                options: self.options,
                totals: Totals::default(),
                next_id: AtomicU64::new(1),
                sessions: Lock::default(),
                none_left: Condition::new(),
                listeners: Lock::new(Vec::new()),
                socket_files: Lock::new(Vec::new()),
                accepting: AtomicUsize::new(0),
                clients: Lock::new(Vec::new()),
                lingering: Lock::default(),
                sweeping: AtomicBool::new(false),
                sweep_turn: Lock::new(()),
                until: OnceLock::new(),
                signals: Lock::new(Vec::new()),
                signalled: Condition::new(),
                shutting_down: AtomicBool::new(false),
            }
        })
    }
}

struct Timeouts {
    period: Duration,
    last: Lock<Instant>,
    timer: OnceLock<OperationId>,
}

#[derive(Default)]
pub(super) struct Totals {
    pub(super) bytes_received: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) panics: AtomicU64,
    pub(super) cut: AtomicU64,
    pub(super) lost_bytes: AtomicU64,
    pub(super) accepted: AtomicU64,
    pub(super) refused: AtomicU64,
    open: AtomicUsize,
}

/// A service's figures. Totals count since it was started.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceStats {
    /// Sessions that there are.
    pub sessions: usize,
    /// Connections that were taken.
    pub accepted: u64,
    /// Connections that were closed at once, because there were enough sessions.
    pub refused: u64,
    /// Bytes received by all sessions.
    pub bytes_received: u64,
    /// Bytes that the system took for sending.
    pub bytes_sent: u64,
    /// Handlers that panicked.
    pub panics: u64,
    /// Sessions of which something that was accepted for sending is lost, and how many bytes: see
    /// [`LinkStats::lost_bytes`](crate::LinkStats::lost_bytes).
    pub cut: u64,
    /// See `cut`.
    pub lost_bytes: u64,
    /// What all sessions keep in memory.
    pub memory: MemoryStats,
    /// The port's figures.
    pub port: PortStats,
    /// The workers'. `None` on a port of the program's ([`ServiceOptions::start_on`]), which has workers of its own.
    pub pool: Option<PoolReport>,
}

/// What the sessions of a service keep in memory: see [`ServiceOptions::memory_limit`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryStats {
    /// Bytes that wait to be sent or to be handled.
    pub used_bytes: usize,
    /// How many there may be.
    pub limit_bytes: Option<usize>,
    /// How many times a session was not received from because memory was short.
    pub held_back: u64,
    /// Sessions that were ended because they held most of it.
    pub ended: u64,
}

/// How a shutdown went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Sessions that ended in time, and all that was accepted for them has arrived: was acknowledged by the peer's
    /// system, or, where this system does not tell (Windows), taken by it. Those that had ended before, and were still
    /// sending, count too.
    pub graceful: usize,
    /// Sessions that were closed when the time was over, or whose connection broke before all had arrived. Their peers
    /// have heard a reset if anything is missing.
    pub aborted: usize,
    /// Bytes of messages that were accepted for these sessions, since they began, and not dropped for newer ones.
    pub accepted_bytes: u64,
    /// Bytes of these that have arrived.
    pub delivered_bytes: u64,
    /// Bytes of these that are lost; with those that were delivered they are all that was accepted.
    pub lost_bytes: u64,
    /// Workers whose handler had not returned then.
    pub workers_left: usize,
}

/// Signals that a service catches: see [`Service::signals`]. Dropping it, they are caught no longer.
pub struct Signals {
    inner: Arc<Inner>,
    registered: Vec<OperationId>,
}

impl Signals {
    /// Waits until one of them comes, or came before, and returns its number.
    ///
    /// In a forked child, where none comes, it returns 0 at once.
    pub fn wait(&self) -> i32 {
        if !self.inner.is_home() {
            return 0;
        }
        let mut signals = self.inner.signals.lock();
        while signals.is_empty() {
            signals = self.inner.signalled.wait(signals);
        }
        signals.remove(0)
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signals({} caught)", self.registered.len())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            self.inner.port.cancel(id);
        }
    }
}

/// A server, a client, or both: a port with workers, serving sessions. See the [crate].
///
/// Dropping it closes everything at once; [`shutdown`](Service::shutdown) does so gracefully.
pub struct Service {
    pub(super) inner: Arc<Inner>,
    pool: Option<WorkerPool>,
}

/// Sessions that are connected, shake hands or end, to be looked at when their time is over.
#[derive(Default)]
struct Lingering {
    waiting: Vec<Arc<Conn>>,
    /// Those that are just being looked at.
    in_hands: Vec<Arc<Conn>>,
}

impl Lingering {
    fn all(&self) -> impl Iterator<Item = &Arc<Conn>> {
        self.waiting.iter().chain(&self.in_hands)
    }
}

pub(super) struct Inner {
    home: Home,
    pub(super) port: Branch<Node, Op>,
    /// The whole port, if it is there for the service alone, and ends with it.
    own: Option<CompletionPort<(), ()>>,
    waiters: Arc<Waiters>,
    pub(super) options: Options,
    pub(super) totals: Totals,
    /// The coarse clock: see `look_for_timeouts`.
    coarse_us: Arc<AtomicU64>,
    timeouts: Option<Timeouts>,
    pub(super) rates: Rates,
    pub(super) memory: Memory,
    next_id: AtomicU64,
    pub(super) sessions: Lock<ById<Arc<Conn>>>,
    pub(super) none_left: Condition,
    pub(super) listeners: Lock<Vec<Listener>>,
    pub(super) socket_files: Lock<Vec<SocketFile>>,
    /// Accepts that are outstanding, or whose connection is just being made a session.
    pub(super) accepting: AtomicUsize,
    /// Clients that connect again.
    clients: Lock<Vec<Weak<Control>>>,
    lingering: Lock<Lingering>,
    /// A timer for the next look at them is set; and who looks.
    sweeping: AtomicBool,
    sweep_turn: Lock<()>,
    /// When a shutdown's time is over, once there is one.
    pub(super) until: OnceLock<Instant>,
    signals: Lock<Vec<i32>>,
    signalled: Condition,
    pub(super) shutting_down: AtomicBool,
}

thread_local! {
    /// The service whose worker this thread is: its address, 0 for none.
    static WORKER_OF: Cell<usize> = const { Cell::new(0) };
    /// The session whose handler this thread runs: its number, 0 for none.
    static HANDLING: Cell<u64> = const { Cell::new(0) };
}

/// This thread runs a handler of that session, until the value is dropped.
pub(super) struct Handling {
    outer: u64,
}

impl Handling {
    pub(super) fn of(session: u64) -> Handling {
        Handling { outer: HANDLING.replace(session) }
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        HANDLING.set(self.outer);
    }
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Service").field(&self.stats()).finish()
    }
}

/// That time from now on; a century where the clock cannot express it.
pub(super) fn after(time: Duration) -> Instant {
    let now = time::now();
    now.checked_add(time).unwrap_or(now + Duration::from_secs(3_000_000_000))
}

pub(super) fn full() -> io::Error {
    io::Error::new(io::ErrorKind::QuotaExceeded, "the service has as many sessions as it may have")
}

impl Service {
    /// Options for a service.
    pub fn options() -> ServiceOptions {
        ServiceOptions {
            workers: Workers::default(),
            concurrency: 0,
            wake: Wake::default(),
            options: Options {
                max_sessions: MAX_SESSIONS,
                outbox_bytes: OUTBOX_BYTES,
                slow_consumer: SlowConsumer::default(),
                linger: LINGER,
                nodelay: true,
                idle_timeout: None,
                handshake_timeout: None,
                connect_timeout: CONNECT_TIMEOUT,
                rate: None,
                inbox_bytes: usize::MAX,
                memory_bytes: usize::MAX,
            },
        }
    }

    /// One whose packets the caller handles, with [`Inner::work`].
    #[cfg(all(test, unix))]
    pub(super) fn without_workers(inner: Arc<Inner>) -> Service {
        Service { inner, pool: None }
    }

    /// Listens on an address, and makes a session of each connection. Returns the address, with the real port where 0
    /// was asked for. May be called for several addresses.
    pub fn listen<S: Session>(
        &self,
        address: impl Addresses,
        make: impl Fn(SocketAddr) -> S + Send + Sync + 'static,
    ) -> io::Result<SocketAddr> {
        let make = Make::Tcp(Box::new(move |peer| Box::new(make(peer))));
        self.listen_at(address, Listening::new(make, None))
    }

    /// Like [`listen`](Service::listen), over TLS: a session's `opened` is called when its handshake is done, and its
    /// `closed` alone, mostly with [`Closed::Tls`] or [`Closed::HandshakeTimeout`], if it fails.
    #[cfg(feature = "tls")]
    pub fn listen_tls<S: Session>(
        &self,
        address: impl Addresses,
        tls: ServerTls,
        make: impl Fn(SocketAddr) -> S + Send + Sync + 'static,
    ) -> io::Result<SocketAddr> {
        let make = Make::Tcp(Box::new(move |peer| Box::new(make(peer))));
        self.listen_at(address, Listening::new(make, Some(tls)))
    }

    /// Like [`listen`](Service::listen), on a socket that listens already.
    pub fn adopt_listener<S: Session>(
        &self,
        listener: std::net::TcpListener,
        make: impl Fn(SocketAddr) -> S + Send + Sync + 'static,
    ) -> io::Result<SocketAddr> {
        let make = Make::Tcp(Box::new(move |peer| Box::new(make(peer))));
        self.take_listener(listener, Listening::new(make, None))
    }

    /// Like [`listen_tls`](Service::listen_tls), on a socket that listens already.
    #[cfg(feature = "tls")]
    pub fn adopt_listener_tls<S: Session>(
        &self,
        listener: std::net::TcpListener,
        tls: ServerTls,
        make: impl Fn(SocketAddr) -> S + Send + Sync + 'static,
    ) -> io::Result<SocketAddr> {
        let make = Make::Tcp(Box::new(move |peer| Box::new(make(peer))));
        self.take_listener(listener, Listening::new(make, Some(tls)))
    }

    fn listen_at(&self, address: impl Addresses, listening: Listening) -> io::Result<SocketAddr> {
        self.inner.at_home()?;
        let listener = self.inner.port.listen(address, Node::Listener(Arc::new(listening)))?;
        self.accept_at(listener)
    }

    fn take_listener(&self, listener: std::net::TcpListener, listening: Listening) -> io::Result<SocketAddr> {
        self.inner.at_home()?;
        let listener = self.inner.port.associate(listener, Node::Listener(Arc::new(listening)))?;
        self.accept_at(listener)
    }

    fn accept_at(&self, listener: Listener) -> io::Result<SocketAddr> {
        let address = listener.local_addr()?;
        self.inner.begin_accepting(listener, None)?;
        Ok(address)
    }

    /// Connects to an address, or to a name's addresses, one after the other until one answers: see
    /// [`ServiceOptions::connect_timeout`]. The session's `opened` is called when the connection is made, or its
    /// `closed` when it cannot be made. What is sent on the link before waits in its outbox. A name is looked up in
    /// this call, which then waits for the answer.
    pub fn connect(&self, peer: impl Addresses, session: impl Session) -> io::Result<Link> {
        let limit = self.inner.options.connect_limit();
        self.inner.connect_boxed(peer.addresses()?, Some(limit), None, Box::new(session))
    }

    /// Like [`connect`](Service::connect), over TLS. The server has to show a certificate for `server_name`, a host's
    /// name or an address. The session's `opened` is called when the handshake is done, or its `closed` when the
    /// connection cannot be made or the handshake fails.
    ///
    /// # Errors
    ///
    /// As `connect`; and `InvalidInput`: `server_name` can be nobody's name.
    #[cfg(feature = "tls")]
    pub fn connect_tls(
        &self,
        peer: impl Addresses,
        server_name: &str,
        tls: &ClientTls,
        session: impl Session,
    ) -> io::Result<Link> {
        let tls = tls.connect(server_name)?;
        let limit = self.inner.options.connect_limit();
        self.inner.connect_boxed(peer.addresses()?, Some(limit), Some(tls), Box::new(session))
    }

    /// Hands the service a connection that was made elsewhere. A worker calls the session's `opened`.
    pub fn adopt(&self, socket: StdStream, session: impl Session) -> io::Result<Link> {
        self.adopt_boxed(socket, None, Box::new(session))
    }

    /// Like [`adopt`](Service::adopt), as the server's side of TLS.
    #[cfg(feature = "tls")]
    pub fn adopt_tls(&self, socket: StdStream, tls: &ServerTls, session: impl Session) -> io::Result<Link> {
        self.adopt_boxed(socket, Some(tls.accept()?), Box::new(session))
    }

    fn adopt_boxed(&self, socket: StdStream, tls: Option<Tls>, session: Box<dyn Session>) -> io::Result<Link> {
        self.inner.at_home()?;
        let peer = socket.peer_addr()?;
        let conn = self.inner.admit(peer.into(), tls, session).ok_or_else(full)?;
        self.inner.associate(socket, &conn)?;
        // The port is open as long as the service is.
        let _ = self.inner.port.post(0, Node::Session(conn.clone()), Op::Start);
        Ok(Link(conn))
    }

    /// Catches signals from now on: they do not end the process any more, but [`Signals::wait`]. To be called before
    /// the program says that it is ready, or whoever ends it at once ends it the hard way.
    ///
    /// Signals are packets of the port like everything else; a worker takes them.
    pub fn signals(&self, numbers: &[i32]) -> io::Result<Signals> {
        let mut signals = Signals { inner: self.inner.clone(), registered: Vec::new() };
        for &number in numbers {
            signals.registered.push(self.inner.port.signal(number, Node::Service, Op::Signal)?);
        }
        Ok(signals)
    }

    /// Catches the signals and waits for one of them: see [`signals`](Service::signals).
    pub fn wait_for_signal(&self, numbers: &[i32]) -> io::Result<i32> {
        Ok(self.signals(numbers)?.wait())
    }

    /// The service's figures. Some are added up in this call, a few nanoseconds for each session.
    pub fn stats(&self) -> ServiceStats {
        let totals = &self.inner.totals;
        self.inner.count_taken();
        ServiceStats {
            sessions: totals.open.load(Ordering::Relaxed),
            accepted: totals.accepted.load(Ordering::Relaxed),
            refused: totals.refused.load(Ordering::Relaxed),
            bytes_received: totals.bytes_received.load(Ordering::Relaxed),
            bytes_sent: totals.bytes_sent.load(Ordering::Relaxed),
            panics: totals.panics.load(Ordering::Relaxed),
            cut: totals.cut.load(Ordering::Relaxed),
            lost_bytes: totals.lost_bytes.load(Ordering::Relaxed),
            memory: MemoryStats {
                used_bytes: self.inner.memory_used(),
                limit_bytes: self.inner.memory.is_limited().then(|| self.inner.memory.limit()),
                held_back: self.inner.memory.held_back.load(Ordering::Relaxed),
                ended: self.inner.memory.ended.load(Ordering::Relaxed),
            },
            port: self.inner.port.stats(),
            pool: self.pool.as_ref().map(WorkerPool::report),
        }
    }

    /// The workers: what each does, and who is blocked.
    pub fn workers(&self) -> Vec<WorkerReport> {
        self.inner.port.workers()
    }

    /// Takes no more connections; sessions go on. Connections that were made already are served, too. Another process
    /// that has the listening socket takes those that come from now on.
    ///
    /// Workers make sessions of those that wait to be accepted (on Windows they are reset).
    pub fn stop_listening(&self) {
        if !self.inner.is_home() {
            return;
        }
        self.inner.stop_listening();
    }

    /// Takes no more connections, and waits until all sessions have ended by themselves, or `deadline` has passed;
    /// returns how many are left. [`shutdown`](Service::shutdown), which comes next, closes those. In a handler of the
    /// service itself it does not wait for the handler's own session.
    ///
    /// So a server is started anew without one connection refused: the new process listens on the same socket (see
    /// [`inherited`](crate::inherited)), and then the old one drains.
    ///
    /// Does nothing in a forked child, which has no sessions.
    pub fn drain(&self, deadline: Duration) -> usize {
        if !self.inner.is_home() {
            return 0;
        }
        self.inner.stop_listening();
        let accepting = || self.inner.accepting.load(Ordering::SeqCst) > 0;
        self.inner.wait_while(after(deadline), |others| others > 0 || accepting())
    }

    /// Ends the service: takes no more connections, closes every session gracefully, and after `deadline` those that
    /// are left at once.
    ///
    /// In a handler of the service itself it waits for the other sessions only: the handler's own cannot end, and its
    /// worker not return, before the call does. That session is then closed at once when the handler returns, and the
    /// worker is among [`ShutdownReport::workers_left`]. Better call it where nobody waits for it, after
    /// [`Signals::wait`], say.
    pub fn shutdown(mut self, deadline: Duration) -> ShutdownReport {
        if !self.inner.is_home() {
            return ShutdownReport::default();
        }
        let until = after(deadline);
        let inner = &self.inner;
        inner.shutting_down.store(true, Ordering::SeqCst);
        inner.end_clients();
        inner.close_listeners();
        let _ = inner.until.set(until);
        let sessions = inner.all_sessions();
        sessions.iter().for_each(|conn| conn.close_until(until));
        if inner.wait_for_sessions(until) > 0 {
            let late: Vec<Arc<Conn>> = inner.sessions.lock().values().cloned().collect();
            late.iter().for_each(|conn| conn.cut_off(Closed::Shutdown));
            // Their handlers hear of it, if they return.
            inner.wait_for_sessions(time::now() + Duration::from_millis(500));
        }
        inner.finish_lingering(until);
        let left = until.saturating_duration_since(time::now()).max(Duration::from_millis(100));
        // A worker that waits for all of them waits for itself.
        let left = if inner.is_worker() { Duration::ZERO } else { left };
        let workers_left = self.pool.take().map_or(0, |pool| pool.shutdown(left).workers);
        self.inner.end_all();
        let aborted = sessions.iter().filter(|conn| conn.is_cut()).count();
        let add = |(accepted, lost), (more_accepted, more_lost)| (accepted + more_accepted, lost + more_lost);
        let (accepted_bytes, lost_bytes) = sessions.iter().map(|conn| conn.reckoning()).fold((0, 0), add);
        ShutdownReport {
            graceful: sessions.len() - aborted,
            aborted,
            accepted_bytes,
            delivered_bytes: accepted_bytes - lost_bytes,
            lost_bytes,
            workers_left,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.inner.end_all();
    }
}

impl Inner {
    /// Is this the process that started the service? A forked child has none of its threads, and takes none of its
    /// locks.
    pub(super) fn is_home(&self) -> bool {
        self.home.is_here()
    }

    pub(super) fn at_home(&self) -> io::Result<()> {
        if self.is_home() { Ok(()) } else { Err(GetError::Forked.into()) }
    }

    /// Sessions are looked at for time-outs from now on.
    pub(super) fn begin(&self) -> io::Result<()> {
        match &self.timeouts {
            Some(timeouts) => {
                let timer = self.port.interval(timeouts.period, Node::Service, Op::Timeouts)?;
                let _ = timeouts.timer.set(timer);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// What a worker does with a packet.
    pub(super) fn work(self: &Arc<Self>, packet: Packet<Node, Op>) {
        WORKER_OF.set(Arc::as_ptr(self).addr());
        self.handle(packet);
    }

    fn handle(self: &Arc<Self>, packet: Packet<Node, Op>) {
        let Packet { key, context, event, .. } = packet;
        let _turn = gather::Turn;
        match (key, context, event) {
            (Node::Listener(listening), _, Event::Accepted { listener, result }) => {
                let _counted = self.accepted_one();
                if let Some((socket, peer)) = self.next_accept(&listening, &listener, result) {
                    self.accepted(&listening, socket, peer);
                }
            }
            (Node::Listener(listening), _, Event::AcceptedLocal { listener, result }) => {
                let _counted = self.accepted_one();
                if let Some(socket) = self.next_accept(&listening, &listener, result) {
                    self.accepted_local(&listening, socket);
                }
            }
            (Node::Resting(listener), _, Event::Elapsed { result: Ok(_) }) => {
                let _ = self.accept(&listener);
            }
            (Node::Resting(_), ..) => {}
            (Node::Taken(taken), ..) => self.serve_taken(&taken),
            (Node::Client(client), Op::ConnectAgain, Event::Elapsed { result: Ok(_) }) => client.attempt(),
            (Node::Client(client), Op::ConnectLate(attempt), Event::Elapsed { result: Ok(_) }) => {
                client.connect_late(attempt);
            }
            (Node::Client(_), ..) => {}
            (Node::Parcel(parcel), ..) => parcel.due(),
            (Node::Session(conn), _, Event::Connected { stream, result }) => self.connected(&conn, stream, result),
            (Node::Session(conn), _, Event::Received { stream, buffer, result }) => {
                conn.received(&stream, buffer, result);
            }
            (Node::Session(conn), Op::Start, _) => {
                if let Some(stream) = conn.stream() {
                    conn.opened(&stream);
                }
            }
            (Node::Session(conn), Op::Resume, _) => {
                if let Some(stream) = conn.stream() {
                    conn.receive(&stream);
                }
            }
            (Node::Session(conn), _, event) => conn.sent(event),
            (_, Op::Sweep, _) => self.sweep(),
            (_, Op::Timeouts, _) => self.look_for_timeouts(),
            (_, Op::Rates, _) => self.rates_due(),
            (_, Op::Memory, _) => self.memory_freed(),
            (_, Op::MemoryLook, _) => self.memory_look(),
            (_, Op::Signal, Event::Signal { result: Ok(number) }) => {
                self.signals.lock().push(number);
                self.signalled.notify_all();
            }
            _ => {}
        }
    }

    pub(super) fn has_room(&self, sessions: &ById<Arc<Conn>>) -> bool {
        sessions.len() < self.options.max_sessions && !self.shutting_down.load(Ordering::SeqCst)
    }

    /// A place among the sessions, if there is one.
    pub(super) fn admit(
        self: &Arc<Self>,
        peer: Peer,
        tls: Option<Tls>,
        session: Box<dyn Session>,
    ) -> Option<Arc<Conn>> {
        let mut sessions = self.sessions.lock();
        if !self.has_room(&sessions) {
            return None;
        }
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let conn = Conn::new(id, peer, self, self.coarse_us.clone(), tls, session);
        sessions.insert(id, conn.clone());
        self.totals.open.store(sessions.len(), Ordering::Relaxed);
        Some(conn)
    }

    /// Makes a connection that exists the session's.
    pub(super) fn associate(self: &Arc<Self>, socket: StdStream, conn: &Arc<Conn>) -> io::Result<Stream> {
        let _ = socket.set_nodelay(self.options.nodelay);
        match self.port.associate(socket, Node::Session(conn.clone())) {
            Ok(stream) => {
                self.attach(conn, stream.clone());
                Ok(stream)
            }
            Err(rejected) => {
                self.forget(conn);
                Err(rejected.error)
            }
        }
    }

    /// A session that came while the service was being shut down is closed with the others.
    pub(super) fn attach(self: &Arc<Self>, conn: &Arc<Conn>, stream: Stream) {
        conn.attach(stream);
        if self.shutting_down.load(Ordering::SeqCst) {
            conn.end(Closed::Shutdown);
        }
    }

    pub(super) fn forget(&self, conn: &Conn) {
        let removed = {
            let mut sessions = self.sessions.lock();
            let removed = sessions.remove(&conn.id());
            self.totals.open.store(sessions.len(), Ordering::Relaxed);
            // One may be that of the handler that waits.
            if sessions.len() <= 1 {
                self.none_left.notify_all();
            }
            removed
        };
        drop(removed);
    }

    #[cfg(all(test, unix))]
    pub(super) fn open_sessions(&self) -> usize {
        self.sessions.lock().len()
    }

    /// How many are left when the time is over.
    fn wait_for_sessions(&self, until: Instant) -> usize {
        self.wait_while(until, |others| others > 0)
    }

    /// Whether this thread is a worker of the service.
    fn is_worker(&self) -> bool {
        WORKER_OF.get() == std::ptr::from_ref(self).addr()
    }

    /// The session whose handler this thread runs, 0 for none: who waits for that to end waits for ever.
    fn own_session(&self) -> u64 {
        if self.is_worker() { HANDLING.get() } else { 0 }
    }

    /// Waits as long as `wait`, given the number of sessions that can end while this thread waits, says so.
    fn wait_while(&self, until: Instant, wait: impl Fn(usize) -> bool) -> usize {
        let own = self.own_session();
        let mut sessions = self.sessions.lock();
        while wait(sessions.len() - usize::from(sessions.contains_key(&own))) {
            let left = until.saturating_duration_since(time::now());
            if left.is_zero() {
                break;
            }
            sessions = time::wait(&self.sessions, sessions, &self.none_left, left);
        }
        sessions.len()
    }

    /// Those that are open, and those that linger.
    pub(super) fn all_sessions(&self) -> Vec<Arc<Conn>> {
        let mut all = self.sessions.lock().clone();
        let lingering = self.lingering.lock().all().cloned().collect::<Vec<_>>();
        all.extend(lingering.into_iter().map(|conn| (conn.id(), conn)));
        all.into_values().collect()
    }

    /// Has each session count what the system has taken of a send that is not complete.
    fn count_taken(&self) {
        if !self.is_home() {
            return;
        }
        let sending = |conn: &Arc<Conn>| conn.is_unsettled().then(|| conn.stream()).flatten();
        for conn in self.sessions.lock().values() {
            if let Some(stream) = sending(conn) {
                conn.count_taken(&stream);
            }
        }
    }

    // --- Clients that connect again ---

    pub(super) fn note_client(&self, client: &Arc<Control>) {
        let mut clients = self.clients.lock();
        if clients.len() == clients.capacity() {
            // Before it grows, so that a client pays for a few others and not for all.
            clients.retain(|known| known.strong_count() > 0);
        }
        clients.push(Arc::downgrade(client));
    }

    fn end_clients(&self) {
        let clients = std::mem::take(&mut *self.clients.lock());
        clients.iter().filter_map(Weak::upgrade).for_each(|client| client.end(GaveUp::Stopped));
    }

    // --- Sessions that are held: see `hold.rs` ---

    pub(super) fn arm_rates(&self, after: Duration) {
        let _ = self.port.timer(after, Node::Service, Op::Rates);
    }

    fn rates_due(&self) {
        let (due, next) = self.rates.due();
        if let Some(after) = next {
            self.arm_rates(after);
        }
        due.iter().for_each(Conn::rate_due);
    }

    pub(super) fn post_memory(&self) {
        let _ = self.port.post(0, Node::Service, Op::Memory);
    }

    pub(super) fn arm_memory_look(&self) {
        let _ = self.port.timer(LOOK, Node::Service, Op::MemoryLook);
    }

    /// What each session keeps, if anything, ended ones that still send included. One that is being closed may be there
    /// twice.
    pub(super) fn holders(&self) -> Vec<(usize, Weak<Conn>)> {
        let of = |conn: &Arc<Conn>| Some((conn.holds(), Arc::downgrade(conn))).filter(|(holds, _)| *holds > 0);
        let mut holders: Vec<_> = self.sessions.lock().values().filter_map(of).collect();
        holders.extend(self.lingering.lock().all().filter_map(of));
        holders
    }

    pub(super) fn has_many_sessions(&self, many: usize) -> bool {
        self.totals.open.load(Ordering::Relaxed) > many
    }

    /// What all sessions keep. With a limit it is known; without one, each is asked: those that are being closed too,
    /// of which some are still among the others.
    fn memory_used(&self) -> usize {
        if !self.is_home() {
            return 0;
        }
        if self.memory.is_limited() {
            return self.memory.used();
        }
        let sessions = self.sessions.lock();
        let open: usize = sessions.values().map(|conn| conn.holds()).sum();
        let lingering = self.lingering.lock();
        let mut counted = HashSet::new();
        let over = lingering.all().filter(|conn| !sessions.contains_key(&conn.id()) && counted.insert(conn.id()));
        open + over.map(|conn| conn.holds()).sum::<usize>()
    }

    /// A sender asks whether it may wait for room in an outbox.
    pub(super) fn may_wait(&self) -> Option<Waiting<'_>> {
        self.waiters.may_wait(self.is_worker())
    }

    // --- Time-outs ---
    //
    // No timer for each session, and no clock read for each packet: one interval advances a coarse clock, a packet
    // stores it, and the interval compares. Without time-outs there is no interval, and the clock stands still.
    //
    // The clock advances by two periods at most. If workers were late for long, packets that came meanwhile have an old
    // stamp, and their sessions would be closed for it. So a stamp is at most two periods too old, and a time-out is
    // that much longer: no session is closed too early.

    fn look_for_timeouts(&self) {
        let Some(timeouts) = &self.timeouts else { return };
        // Another worker looks already: this look is late, and the other is enough.
        let Some(mut last) = timeouts.last.try_lock() else { return };
        let now = time::now();
        let passed = (now - *last).min(2 * timeouts.period);
        *last = now;
        let passed_us = passed.as_micros() as u64;
        let now_us = self.coarse_us.fetch_add(passed_us, Ordering::Relaxed) + passed_us;
        let slack = 2 * timeouts.period;
        let limit = |time: Option<Duration>| {
            time.map(|time| u64::try_from(time.saturating_add(slack).as_micros()).unwrap_or(u64::MAX))
        };
        let (idle_us, handshake_us) = (limit(self.options.idle_timeout), limit(self.options.handshake_timeout));
        let look_us = timeouts.period.as_micros() as u64;
        let due = |conn: &Arc<Conn>| {
            conn.timed_out(now_us, idle_us, handshake_us, look_us).map(|reason| (conn.clone(), reason))
        };
        let due: Vec<(Arc<Conn>, Closed)> = self.sessions.lock().values().filter_map(due).collect();
        due.into_iter().for_each(|(conn, reason)| conn.close(reason));
    }

    // --- Sessions that linger: see `ending.rs` ---

    /// Has a session looked at until its end is there. Under no lock of it.
    pub(super) fn sweep_later(&self, conn: &Arc<Conn>) {
        if !std::mem::replace(&mut conn.lock().swept, true) {
            self.lingering.lock().waiting.push(conn.clone());
        }
        self.arm_sweep();
    }

    fn arm_sweep(&self) {
        if !self.sweeping.swap(true, Ordering::AcqRel) {
            let _ = self.port.timer(SWEEP, Node::Service, Op::Sweep);
        }
    }

    fn sweep(&self) {
        self.sweeping.store(false, Ordering::Release);
        self.look_at_lingering(time::now());
        if !self.lingering.lock().waiting.is_empty() {
            self.arm_sweep();
        }
    }

    /// Looks at each session that lingers. While it does, others still find them all in the list.
    pub(super) fn look_at_lingering(&self, now: Instant) {
        let _turn = self.sweep_turn.lock();
        let mut looked_at = {
            let mut lingering = self.lingering.lock();
            lingering.in_hands = std::mem::take(&mut lingering.waiting);
            lingering.in_hands.clone()
        };
        looked_at.retain(|conn| !conn.linger_over(self, now));
        let over = {
            let mut lingering = self.lingering.lock();
            lingering.waiting.append(&mut looked_at);
            std::mem::take(&mut lingering.in_hands)
        };
        // Perhaps the last handles.
        drop(over);
    }

    /// What was accepted for peers that have closed their side still goes out, up to the deadline; then it is cut.
    fn finish_lingering(&self, until: Instant) {
        let own = self.own_session();
        loop {
            let now = time::now();
            self.look_at_lingering(now);
            let waiting = self.lingering.lock().all().any(|conn| conn.id() != own && conn.stream().is_some());
            if !waiting || now >= until {
                return;
            }
            time::sleep(FINISH_LOOK.min(until - now));
        }
    }

    /// Everything at once. Whoever runs a handler now is not waited for: see `Conn::tell_closed`.
    ///
    /// A forked child ends nothing: the sessions and the socket files are the parent's.
    fn end_all(&self) {
        if !self.is_home() {
            return;
        }
        self.shutting_down.store(true, Ordering::SeqCst);
        self.end_clients();
        self.close_listeners();
        match &self.own {
            Some(port) => port.close(),
            None => {
                let timer = self.timeouts.as_ref().and_then(|timeouts| timeouts.timer.get());
                timer.into_iter().for_each(|&timer| _ = self.port.cancel(timer));
            }
        }
        let sessions = std::mem::take(&mut *self.sessions.lock());
        let Lingering { waiting, in_hands } = std::mem::take(&mut *self.lingering.lock());
        for conn in sessions.into_values().chain(waiting).chain(in_hands) {
            conn.discard();
        }
        self.rates.clear();
        self.memory.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wharf::Buffer;

    struct Idle;

    impl Session for Idle {
        fn received(&mut self, _link: &Link, _data: Buffer) {}
    }

    #[test]
    fn sessions_that_are_just_being_looked_at_are_found_by_who_needs_memory() {
        let service = Service::options().memory_limit(1000).outbox(1000, SlowConsumer::Disconnect).start().unwrap();
        let inner = &service.inner;
        // Never connected: what it is sent waits. It is over for the others, and lingers.
        let nobody = "127.0.0.1:9".parse::<SocketAddr>().unwrap();
        let conn = inner.admit(nobody.into(), None, Box::new(Idle)).unwrap();
        Link(conn.clone()).send(vec![1; 950]).unwrap();
        inner.forget(&conn);
        inner.lingering.lock().in_hands.push(conn.clone());
        assert!(inner.largest(None).is_some_and(|largest| Arc::ptr_eq(&largest, &conn)));
        let other = inner.admit(nobody.into(), None, Box::new(Idle)).unwrap();
        Link(other.clone()).send(vec![2; 900]).unwrap();
        assert_eq!((inner.memory_used(), other.holds(), conn.holds()), (900, 900, 0));
    }
}
