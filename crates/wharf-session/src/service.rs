//! A service: its port, its listeners and its sessions; and how each comes to it.

use crate::accepting::Listener;
use crate::closed::Closed;
use crate::conn::Conn;
use crate::dispatch::{Node, Op};
use crate::lingering::Lingering;
use crate::link::Link;
use crate::local::SocketFile;
use crate::lock::{Condition, Lock};
use crate::memory::{LOOK, Memory};
use crate::options::{Options, ServiceOptions};
use crate::peer::{LocalPeer, Peer};
use crate::rate::Rates;
use crate::reconnect::Control;
use crate::stats::Totals;
use crate::timeouts::Timeouts;
#[cfg(feature = "tls")]
use crate::tls::ClientTls;
use crate::waiting::{Waiters, Waiting};
use crate::{ById, ServerTls, Session, Tls, time};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};
use wharf::net::Addresses;
use wharf::{Branch, CompletionPort, Context, GetError, Home, Key, WorkerPool, WorkerReport};

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

impl ServiceOptions {
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
    ///   [`ShutdownReport::workers_left`](crate::ShutdownReport::workers_left) is 0.
    /// - While no thread is inside `get` the sessions stand still, and a shutdown that is to be graceful takes its
    ///   whole time.
    /// - The port is to be closed after the service. If it is closed before, or its last handle is dropped, nothing of
    ///   the sessions goes on. Their `closed` is called when the service is dropped or shut down, as of sessions that
    ///   were cut off; what they had not sent is lost.
    /// - With [`SlowConsumer::Wait`](crate::SlowConsumer::Wait) all threads of the port but one may wait for room,
    ///   those included that handle packets of the program's own. A send by the last one does not wait: it ends the
    ///   session that is slow.
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
                timeouts: Timeouts::of(&self.options),
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
                ended: AtomicBool::new(false),
            }
        })
    }
}

/// A server, a client, or both: a port with workers, serving sessions. See the [crate].
///
/// Dropping it closes everything at once; [`shutdown`](Service::shutdown) does so gracefully.
pub struct Service {
    pub(super) inner: Arc<Inner>,
    pub(super) pool: Option<WorkerPool>,
}

pub(super) struct Inner {
    pub(super) home: Home,
    pub(super) port: Branch<Node, Op>,
    /// The whole port, if it is there for the service alone, and ends with it.
    pub(super) own: Option<CompletionPort<(), ()>>,
    pub(super) waiters: Arc<Waiters>,
    pub(super) options: Options,
    pub(super) totals: Totals,
    /// The coarse clock: see `look_for_timeouts`.
    pub(super) coarse_us: Arc<AtomicU64>,
    pub(super) timeouts: Option<Timeouts>,
    pub(super) rates: Rates,
    pub(super) memory: Memory,
    pub(super) next_id: AtomicU64,
    pub(super) sessions: Lock<ById<Arc<Conn>>>,
    pub(super) none_left: Condition,
    pub(super) listeners: Lock<Vec<Listener>>,
    pub(super) socket_files: Lock<Vec<SocketFile>>,
    /// Accepts that are outstanding, or whose connection is just being made a session.
    pub(super) accepting: AtomicUsize,
    /// Clients that connect again.
    pub(super) clients: Lock<Vec<Weak<Control>>>,
    pub(super) lingering: Lock<Lingering>,
    /// A timer for the next look at them is set; and who looks.
    pub(super) sweeping: AtomicBool,
    pub(super) sweep_turn: Lock<()>,
    /// When a shutdown's time is over, once there is one.
    pub(super) until: OnceLock<Instant>,
    pub(super) signals: Lock<Vec<i32>>,
    pub(super) signalled: Condition,
    pub(super) shutting_down: AtomicBool,
    /// It was dropped, and takes its port and all connections with it.
    pub(super) ended: AtomicBool,
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
        ServiceOptions::default()
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

    /// The workers: what each does, and who is blocked.
    pub fn workers(&self) -> Vec<WorkerReport> {
        self.inner.port.workers()
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
    fn associate(self: &Arc<Self>, socket: StdStream, conn: &Arc<Conn>) -> io::Result<Stream> {
        let _ = socket.set_nodelay(self.options.nodelay);
        self.associated(conn, self.port.associate(socket, Node::Session(conn.clone())))
    }

    /// Makes a connection that was accepted the session's.
    pub(super) fn associate_accepted(self: &Arc<Self>, socket: StdStream, conn: &Arc<Conn>) -> io::Result<Stream> {
        let _ = socket.set_nodelay(self.options.nodelay);
        self.associated(conn, self.port.associate_accepted(socket, Node::Session(conn.clone())))
    }

    /// The session has its stream, or ends.
    pub(super) fn associated<S>(
        self: &Arc<Self>,
        conn: &Arc<Conn>,
        associated: Result<Stream, wharf::Rejected<S, Node>>,
    ) -> io::Result<Stream> {
        match associated {
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

    /// Those that are open, and those that linger.
    pub(super) fn all_sessions(&self) -> Vec<Arc<Conn>> {
        let mut all = self.sessions.lock().clone();
        let lingering = self.lingering.lock().all().cloned().collect::<Vec<_>>();
        all.extend(lingering.into_iter().map(|conn| (conn.id(), conn)));
        all.into_values().collect()
    }

    pub(super) fn note_client(&self, client: &Arc<Control>) {
        let mut clients = self.clients.lock();
        if clients.len() == clients.capacity() {
            // Before it grows, so that a client pays for a few others and not for all.
            clients.retain(|known| known.strong_count() > 0);
        }
        clients.push(Arc::downgrade(client));
    }

    pub(super) fn arm_rates(&self, after: Duration) {
        let _ = self.port.timer(after, Node::Service, Op::Rates);
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

    /// A sender asks whether it may wait for room in an outbox.
    pub(super) fn may_wait(&self) -> Option<Waiting<'_>> {
        self.waiters.may_wait(self.is_worker())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SlowConsumer;
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
