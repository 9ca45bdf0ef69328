//! Accepting for as long as a server runs: several accepts outstanding, connections counted, and an end that loses
//! none.
//!
//! An accept counts from its issue until its packet has been handled, and a connection from then until its permit is
//! dropped. The permit is made before the accept stops counting, so the sum of both reaches zero only when no
//! connection is open and none can come. Two locks, neither held while a call into the port or the program runs:
//! `lists` has the listeners and what waits for a packet, `tally` the counts.

use super::Listener;
use crate::error::ErrorExt;
use crate::port::packet::Event;
use crate::port::{CompletionPort, Context, Key};
use crate::sync::{Lock, Monitor};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

/// How long an accept that failed rests before the next is issued in its place.
const REST: Duration = Duration::from_millis(100);
/// Connections that are taken from one listener when it is closed: the backlog that listeners are made with. There is a
/// limit, because others may listen on the same socket, and then more may come all the time.
const BACKLOG_MAX: usize = 4096;

/// How many accepts and connections an [`Acceptor`] has at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AcceptLimits {
    /// Accepts outstanding at each listener, 1 or more; 16 by default. With one, connections come in the order in which
    /// the system made them.
    pub outstanding: usize,
    /// Connections at a time; by default there is no limit.
    pub connections: usize,
}

impl Default for AcceptLimits {
    fn default() -> AcceptLimits {
        AcceptLimits { outstanding: 16, connections: usize::MAX }
    }
}

/// Accepts TCP connections from one or more listeners of a port until it is stopped. Clones name the same acceptor.
///
/// It keeps accepts outstanding, issues the next for each that completes, counts the connections, and refuses those
/// that are too many. All its packets have the context that the caller chooses, and go to
/// [`completed`](Acceptor::completed). The acceptor holds a handle of the port, so that the port has to be closed by
/// its `close`.
///
/// ```
/// use wharf::net::{AcceptLimits, Acceptor, Incoming};
/// use wharf::{Buffer, CompletionPort, Event, Workers};
/// use std::io::{Read, Write};
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// #[derive(Clone)]
/// enum Purpose {
///     Accept,
///     /// The connection counts until its last operation has ended.
///     Serve(#[allow(dead_code)] Arc<wharf::net::Permit>),
/// }
///
/// let port = CompletionPort::<(), Purpose>::new()?;
/// let listener = port.listen("127.0.0.1:0", ())?;
/// let address = listener.local_addr()?;
/// let limits = AcceptLimits { connections: 1000, ..AcceptLimits::default() };
/// let acceptor = Acceptor::new(&port, limits, || Purpose::Accept);
/// acceptor.listen(listener)?;
///
/// let (serving, accepting) = (port.clone(), acceptor.clone());
/// let workers = port.start(Workers::default(), move |packet| match (packet.context, packet.event) {
///     (Purpose::Accept, event) => {
///         if let Some(Incoming::Admitted { socket, permit, .. }) = accepting.completed(event) {
///             let Ok(stream) = serving.associate(socket, ()) else { return };
///             let _ = stream.recv(Buffer::with_capacity(4096), Purpose::Serve(Arc::new(permit)));
///         }
///     }
///     (serve, Event::Received { stream, buffer, result: Ok(1..) }) => drop(stream.send(buffer, serve)),
///     (serve, Event::Sent { stream, buffer, result: Ok(_) }) => drop(stream.recv(buffer, serve)),
///     _ => {} // the end of a stream, or an error: the last handle goes, and the socket is closed
/// })?;
///
/// let mut client = std::net::TcpStream::connect(address)?;
/// acceptor.stop(); // the client is served all the same
/// client.write_all(b"hello")?;
/// client.read_exact(&mut [0; 5])?;
/// drop(client);
/// assert_eq!(acceptor.wait(Duration::from_secs(10)), 0, "all connections have ended");
/// port.close();
/// workers.join();
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Acceptor<K, C>(Arc<Shared<K, C>>);

/// A connection that an [`Acceptor`] has accepted. The socket belongs to no port yet (associate it), and is in
/// non-blocking mode.
#[derive(Debug)]
#[non_exhaustive]
pub enum Incoming {
    /// It may be served.
    Admitted {
        /// The connection.
        socket: TcpStream,
        /// Its other end.
        peer: SocketAddr,
        /// Counts it as open, until this is dropped.
        permit: Permit,
    },
    /// There are as many connections as the limit allows.
    Refused {
        /// The connection, to say so before it is dropped.
        socket: TcpStream,
        /// Its other end.
        peer: SocketAddr,
    },
}

/// A connection's share of the limit, which it gives back when it is dropped.
pub struct Permit {
    tally: Arc<Tally>,
    number: u64,
}

struct Shared<K, C> {
    port: CompletionPort<K, C>,
    limits: AcceptLimits,
    context: Box<dyn Fn() -> C + Send + Sync>,
    lists: Lock<Lists<K, C>>,
    tally: Arc<Tally>,
}

struct Lists<K, C> {
    listeners: Vec<Listener<K, C>>,
    /// Accepts of these have failed, and are issued again when a timer elapses: one entry for each timer.
    resting: VecDeque<Listener<K, C>>,
    /// Connections that were taken when listening stopped: one entry for each packet that was posted.
    taken: VecDeque<(TcpStream, SocketAddr)>,
    /// The last accept has failed, and the log has said so.
    failing: bool,
    stopped: bool,
}

/// What counts, in one place, so that one look sees all of it.
#[derive(Default)]
struct Tally(Monitor<Counts>);

#[derive(Default)]
struct Counts {
    /// Accepts outstanding, connections taken without a packet of their own, and those whose packet is being handled.
    accepts: usize,
    open: usize,
    /// Connections that were ever admitted.
    admitted: u64,
}

impl Counts {
    /// Connections that are open or may yet be made.
    fn left(&self) -> usize {
        self.accepts + self.open
    }
}

/// An accept that counts, until this is dropped.
struct Accepting<'a>(&'a Tally);

impl<K, C> Clone for Acceptor<K, C> {
    fn clone(&self) -> Self {
        Acceptor(self.0.clone())
    }
}

impl<K, C> fmt::Debug for Acceptor<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("limits", &self.0.limits).finish_non_exhaustive()
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Permit").field(&self.number).finish()
    }
}

impl Permit {
    /// The connection's number: 1 for the first that the acceptor admitted. With one accept outstanding at one listener
    /// the numbers are in the order in which the system made the connections.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.tally.change(|counts| counts.open -= 1);
    }
}

impl Tally {
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        let mut counts = self.0.lock();
        change(&mut counts);
        if counts.left() == 0 {
            self.0.notify_all();
        }
    }

    fn begin(&self) -> Accepting<'_> {
        self.0.lock().accepts += 1;
        Accepting(self)
    }

    fn admit(self: &Arc<Self>, limit: usize) -> Option<Permit> {
        let mut counts = self.0.lock();
        if counts.open >= limit {
            return None;
        }
        counts.open += 1;
        counts.admitted += 1;
        Some(Permit { tally: self.clone(), number: counts.admitted })
    }
}

impl Accepting<'_> {
    /// It was issued: its packet goes on counting.
    fn issued(self) {
        std::mem::forget(self);
    }
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        self.0.change(|counts| counts.accepts -= 1);
    }
}

impl<K: Key, C: Context> Acceptor<K, C> {
    /// An acceptor without a listener. `context` makes the context of each of its packets.
    pub fn new(
        port: &CompletionPort<K, C>,
        limits: AcceptLimits,
        context: impl Fn() -> C + Send + Sync + 'static,
    ) -> Acceptor<K, C> {
        let lists = Lists {
            listeners: Vec::new(),
            resting: VecDeque::new(),
            taken: VecDeque::new(),
            failing: false,
            stopped: false,
        };
        Acceptor(Arc::new(Shared {
            port: port.clone(),
            limits: AcceptLimits { outstanding: limits.outstanding.max(1), ..limits },
            context: Box::new(context),
            lists: Lock::new(lists),
            tally: Arc::default(),
        }))
    }

    /// Accepts connections of this listener, too.
    ///
    /// # Errors
    ///
    /// The listener or the port is closed, the acceptor was stopped, or it is a Unix socket.
    pub fn listen(&self, listener: Listener<K, C>) -> io::Result<()> {
        let shared = &self.0;
        if !shared.port.is_home() {
            return Err(crate::error::forked());
        }
        // A Unix socket has no such address.
        listener.local_addr()?;
        for _ in 0..shared.limits.outstanding {
            shared.accept(&listener)?;
        }
        let mut lists = shared.lists.lock();
        if lists.stopped {
            drop(lists);
            listener.close();
            return Err(io::Error::other("the acceptor was stopped; make another one to go on accepting"));
        }
        lists.listeners.push(listener);
        Ok(())
    }

    /// To be called with the event of each packet that has the acceptor's context: issues the next accept, and returns
    /// the connection, if there is one.
    ///
    /// An accept that failed is issued again after 100 ms, because its cause may stay; the first of several failures is
    /// logged. A listener that listens no more is given up.
    pub fn completed(&self, event: Event<K, C>) -> Option<Incoming> {
        let shared = &self.0;
        if !shared.port.is_home() {
            return None;
        }
        match event {
            Event::Accepted { listener, result } => {
                let _counts = Accepting(&shared.tally);
                match result {
                    Ok((socket, peer)) => {
                        // Before the next is accepted, whose packet another thread may handle first.
                        let incoming = shared.admit(socket, peer);
                        shared.lists.lock().failing = false;
                        let _ = shared.accept(&listener);
                        return Some(incoming);
                    }
                    // The listener or the port was closed.
                    Err(error) if error.is_aborted() => {}
                    Err(error) => shared.failed(&listener, &error),
                }
                None
            }
            Event::Elapsed { .. } => {
                let listener = shared.lists.lock().resting.pop_front()?;
                let _ = shared.accept(&listener);
                None
            }
            Event::Posted { .. } => {
                // Under the lock, so that the numbers are in the order in which they were taken.
                let mut lists = shared.lists.lock();
                let (socket, peer) = lists.taken.pop_front()?;
                let incoming = shared.admit(socket, peer);
                drop(lists);
                drop(Accepting(&shared.tally));
                Some(incoming)
            }
            _ => None,
        }
    }

    /// Closes the listeners. The connections that the system has made are accepted before, and come as packets as all
    /// others do: their clients are connected, and may be sending.
    ///
    /// # Platform notes
    ///
    /// On Windows connections beyond those of the outstanding accepts are reset.
    pub fn stop(&self) {
        let shared = &self.0;
        if !shared.port.is_home() {
            return;
        }
        let (listeners, resting) = {
            let mut lists = shared.lists.lock();
            lists.stopped = true;
            (std::mem::take(&mut lists.listeners), std::mem::take(&mut lists.resting))
        };
        for listener in &listeners {
            shared.take_backlog(listener);
            listener.close();
        }
        drop(resting);
    }

    /// How many connections are open: admitted, and their permits not dropped.
    pub fn open(&self) -> usize {
        if self.0.port.is_home() { self.0.tally.0.lock().open } else { 0 }
    }

    /// Waits until the acceptor is stopped and the last connection has ended, or the time is over. Returns how many are
    /// left, those included that no handler has seen yet.
    pub fn wait(&self, timeout: Duration) -> usize {
        if !self.0.port.is_home() {
            return 0;
        }
        let tally = &self.0.tally.0;
        tally.wait_while(tally.lock(), Some(timeout), |counts| counts.left() > 0).left()
    }
}

impl<K: Key, C: Context> Shared<K, C> {
    fn accept(&self, listener: &Listener<K, C>) -> io::Result<()> {
        let counted = self.tally.begin();
        listener.accept((self.context)()).map_err(|refused| refused.error)?;
        counted.issued();
        Ok(())
    }

    fn admit(&self, socket: TcpStream, peer: SocketAddr) -> Incoming {
        match self.tally.admit(self.limits.connections) {
            Some(permit) => Incoming::Admitted { socket, peer, permit },
            None => Incoming::Refused { socket, peer },
        }
    }

    /// Lets the listener rest, or gives it up.
    fn failed(&self, listener: &Listener<K, C>, error: &io::Error) {
        let given_up = listens_no_more(error);
        let said = {
            let mut lists = self.lists.lock();
            if lists.stopped {
                return;
            }
            if !given_up {
                lists.resting.push_back(listener.clone());
            }
            std::mem::replace(&mut lists.failing, true)
        };
        let address = listener.local_addr().map_or_else(|_| "a socket".to_owned(), |address| address.to_string());
        if given_up {
            if !said {
                log::error!(
                    "no more connections are taken on {address}: {error}; somebody has shut its listening socket down, \
                     listen anew"
                );
            }
            return;
        }
        if !said {
            log::warn!("no connection can be taken on {address}: {error}; it is tried again every 0.1 s");
        }
        // A closed port sets no timer, and takes no connections.
        let _ = self.port.timer(REST, listener.key().clone(), (self.context)());
    }

    /// Accepts what the system has made, and posts a packet for each. The handlers make something of them, for whoever
    /// stops the acceptor may hold what a handler needs.
    fn take_backlog(&self, listener: &Listener<K, C>) {
        for event in std::iter::from_fn(|| listener.accept_now()).take(BACKLOG_MAX) {
            // A Unix socket is refused by `listen`.
            let Event::Accepted { result: Ok((socket, peer)), .. } = event else { continue };
            self.lists.lock().taken.push_back((socket, peer));
            let counted = self.tally.begin();
            if self.port.post(0, listener.key().clone(), (self.context)()).is_err() {
                // The port is closed, and so is what nobody takes.
                let taken = self.lists.lock().taken.pop_back();
                return drop(taken);
            }
            counted.issued();
        }
    }
}

/// Whether a listener that fails so will never again take a connection: it listens no more, or is no socket.
fn listens_no_more(error: &io::Error) -> bool {
    const WSAEINVAL: u32 = 10022;
    const WSAENOTSOCK: u32 = 10038;
    matches!(error.winsock(), WSAEINVAL | WSAENOTSOCK)
}
