//! The completion port: one queue into which everything completes, and the threads that serve it.

mod assemble;
pub(crate) mod associate;
mod batch;
pub(crate) mod branch;
pub mod fs;
pub mod net;
mod notifier;
mod options;
pub(crate) mod packet;
pub mod process;
mod record;
pub(crate) mod refused;
mod run;
mod spare;
mod stats;
mod timing;
mod types;
mod word;

pub(crate) use assemble::assemble;
pub use batch::Batch;
pub use branch::Branch;
pub use notifier::Notifier;
pub use options::PortOptions;
pub use run::NotRun;
pub use stats::PortStats;
pub use types::{Context, Key};

use crate::port::assemble::{assemble_post, posted, unposted};
use crate::port::associate::{Associate, Route};
use crate::port::branch::{Link, is_own, take, take_raw};
use crate::port::fs::File;
use crate::port::net::{Addresses, Datagrams, Listener, Stream};
use crate::port::packet::Packet;
use crate::port::refused::{Refused, Rejected, Unposted, UnpostedReason};
use crate::raw::{self, Cancel, DeviceInfo, Entry, OperationId, Withdrawal};
use crate::threads::{Deadline, GetError, WorkerReport};
use crate::worker::{WorkerPool, Workers};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A `get` whose time is over, but which has handled packets of branches, looks for one of its own so many times in
/// all.
const HANDLED_MAX: usize = 64;

/// An I/O completion port.
///
/// Devices are [associated](CompletionPort::associate) with it under a key `K`; operations are issued on them with a
/// context `C`, and each accepted operation comes back as exactly one [`Packet`] with both, taken by exactly one
/// [`get`](CompletionPort::get) in any thread. Of the threads that call `get` at most
/// [`concurrency`](PortOptions::concurrency) run at a time; when one of them blocks, another takes its place.
///
/// ```
/// use wharf::{CompletionPort, Event};
/// let port = CompletionPort::<&str, u32>::new()?;
/// port.post(7, "key", 42).unwrap();
/// let packet = port.get()?;
/// assert_eq!((packet.key, packet.context), ("key", 42));
/// assert!(matches!(packet.event, Event::Posted { bytes: 7 }));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Clones name the same port. It is closed by [`close`](CompletionPort::close), or when the last clone is dropped;
/// devices do not keep it open.
///
/// # Ordering
///
/// Packets leave the queue first in, first out; what two threads then do with two packets may overlap (rows D-15,
/// D-16). Waiting threads are released last in, first out (C-05). Receives of one stream complete in the order of
/// issue, and so do its sends.
///
/// # Who does the port's work
///
/// The threads inside [`get`](CompletionPort::get): they wait for the sockets, and go on with half-sent data, timers
/// and accepting. A pool ([`start`](CompletionPort::start)) has a thread more that does so while all its workers are
/// outside `get`, and so has a port that a thread [supervises](CompletionPort::supervise). A port without either stands
/// still while no thread is inside: what waits goes on with the next `get`.
///
/// # Not guaranteed
///
/// That exactly `concurrency` threads run: a blocked thread that wakes runs on beside its replacement (C-09), and
/// blocking that was not announced by [`blocking`](crate::blocking) is noticed after one or two ticks of 1 ms.
#[doc(alias = "CreateIoCompletionPort")]
#[doc(alias = "IOCP")]
pub struct CompletionPort<K, C> {
    owner: Arc<Owner>,
    types: PhantomData<fn() -> (K, C)>,
}

/// Closes the port when its last handle goes.
struct Owner(raw::Port);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl<K, C> Clone for CompletionPort<K, C> {
    fn clone(&self) -> Self {
        CompletionPort { owner: self.owner.clone(), types: PhantomData }
    }
}

impl<K, C> fmt::Debug for CompletionPort<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.owner.0.fmt(f)
    }
}

impl<K: Key, C: Context> CompletionPort<K, C> {
    /// A port with the default options.
    pub fn new() -> io::Result<Self> {
        PortOptions::default().build()
    }

    /// Options for a port.
    pub fn options() -> PortOptions {
        PortOptions::default()
    }

    pub(crate) fn from_raw(raw: raw::Port) -> Self {
        CompletionPort { owner: Arc::new(Owner(raw)), types: PhantomData }
    }

    fn route(&self) -> Route<'_, K, C> {
        Route { port: &self.owner.0, link: Link::NONE }
    }

    /// A part of the port with keys and contexts of its own, whose packets go to `handler`: see [`Branch`].
    pub fn branch<K2: Key, C2: Context>(
        &self,
        handler: impl Fn(Packet<K2, C2>) + Send + Sync + 'static,
    ) -> Branch<K2, C2> {
        Branch::new(&self.owner.0, handler)
    }

    /// The layer below, for what needs numbers and addresses instead of types.
    ///
    /// ```compile_fail
    /// # use wharf::{CompletionPort, raw::Port};
    /// fn below(port: &CompletionPort<(), ()>) -> &Port {
    ///     port.raw()
    /// }
    /// ```
    ///
    /// # Safety
    ///
    /// No completion of an operation that is issued through it may reach this port's queue, whose packets are taken for
    /// the typed layer's own: give each an event or a callback as sink, and do not post.
    #[allow(unsafe_code)]
    pub unsafe fn raw(&self) -> &raw::Port {
        &self.owner.0
    }

    // --- Devices ---

    /// Associates a socket with the port, under a key. The device is closed by its `close`, or when the last handle
    /// to it is dropped; an outstanding operation holds a handle, which its packet gives back.
    ///
    /// A socket, pipe or terminal is put into non-blocking mode, which all duplicates of it share, those of other
    /// processes too. Whoever else has one finds it so; one who sets it back disturbs no operation of the port.
    ///
    /// # Errors
    ///
    /// The source and the key come back when the port is closed, when the system's limits are reached, or when the
    /// source is not in a state to be associated (a stream that is not connected).
    pub fn associate<S: Associate<K, C>>(&self, source: S, key: K) -> Result<S::Device, Rejected<S, K>> {
        source.associate(&self.route(), key)
    }

    /// Associates a connection that an accept has brought ([`Event::Accepted`](crate::Event::Accepted), of this port or
    /// another), and in the state that it was brought in: as [`associate`](CompletionPort::associate), without the
    /// calls that look whether it is connected and put it into non-blocking mode, in which it is already.
    ///
    /// One that was put into blocking mode meanwhile disturbs no operation of the port. Of a socket from elsewhere that
    /// is not connected, operations fail.
    ///
    /// ```
    /// use wharf::{Buffer, CompletionPort, Event};
    /// let port = CompletionPort::<(), ()>::new()?;
    /// let listener = port.listen("127.0.0.1:0", ())?;
    /// listener.accept(())?;
    /// let _client = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let Event::Accepted { result: Ok((socket, _peer)), .. } = port.get()?.event else { panic!() };
    /// port.associate_accepted(socket, ())?.recv(Buffer::with_capacity(4096), ())?;
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As those of [`associate`](CompletionPort::associate).
    pub fn associate_accepted<S: Associate<K, C>>(&self, source: S, key: K) -> Result<S::Device, Rejected<S, K>> {
        source.associate_accepted(&self.route(), key)
    }

    /// A listening socket on one of the addresses, associated with the port.
    ///
    /// # Errors
    ///
    /// Address in use, not permitted, not of this machine; the last address's error when there are several.
    pub fn listen(&self, address: impl Addresses, key: K) -> io::Result<Listener<K, C>> {
        let listener = crate::port::net::listen(address)?;
        Ok(self.associate(listener, key)?)
    }

    /// A datagram socket on one of the addresses, associated with the port. With port 0 the system chooses one.
    ///
    /// # Errors
    ///
    /// Address in use, not permitted, not of this machine.
    pub fn bind(&self, address: impl Addresses, key: K) -> io::Result<Datagrams<K, C>> {
        let socket = std::net::UdpSocket::bind(&address.addresses()?[..])?;
        Ok(self.associate(socket, key)?)
    }

    /// Connects to an address. The stream can be used when its packet ([`Event::Connected`](crate::Event::Connected))
    /// says so.
    ///
    /// # Errors
    ///
    /// What can be told without trying: no descriptor, no such address. A refusal comes as a packet.
    pub fn connect(&self, peer: SocketAddr, key: K, context: C) -> Result<Stream<K, C>, Refused<C, ()>> {
        Stream::connecting(&self.route(), peer, key, context)
    }

    /// Connects a socket that the caller has made: bound to an address, with its buffers sized, whatever has to be done
    /// before the connection is. It is put into non-blocking mode. The stream can be used when its packet
    /// ([`Event::Connected`](crate::Event::Connected)) says so.
    ///
    /// # Errors
    ///
    /// What can be told without trying: the port is closed, the peer is the unspecified address. The context comes
    /// back; the socket is closed. A refusal comes as a packet.
    pub fn connect_with(
        &self,
        socket: std::net::TcpStream,
        peer: SocketAddr,
        key: K,
        context: C,
    ) -> Result<Stream<K, C>, Refused<C, ()>> {
        match Stream::unconnected(&self.route(), socket, key) {
            Ok(stream) => match stream.connect(peer, context) {
                Ok(_) => Ok(stream),
                Err(refused) => Err(refused),
            },
            Err(error) => Err(Refused { error, context, buffer: () }),
        }
    }

    /// Opens a file, with std's options (`custom_flags(O_DIRECT)` for direct I/O), and associates it with the port. A
    /// plain call, which may wait for the disk.
    ///
    /// # Errors
    ///
    /// The system's: no such file, no permission; and what is no file: a directory, a pipe.
    pub fn open(&self, path: impl AsRef<Path>, options: &OpenOptions, key: K) -> io::Result<File<K, C>> {
        crate::port::fs::open(&self.route(), path.as_ref(), options, key)
    }

    /// The standard input, if it is a terminal or a pipe, opened anew so that nobody who shares it is disturbed.
    ///
    /// # Errors
    ///
    /// It is a file (associate that), a socket, or closed.
    pub fn stdin(&self, key: K) -> io::Result<Stream<K, C>> {
        let input = crate::port::net::standard_input()?;
        Ok(self.associate(input, key)?)
    }

    /// The associated devices: the list that Windows keeps and does not show.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        self.owner.0.devices()
    }

    // --- Packets ---

    /// Queues a packet of the program's own.
    ///
    /// Never blocks. Unlimited: for a limit see [`try_post`](CompletionPort::try_post).
    ///
    /// # Errors
    ///
    /// The port is closed; key and context come back.
    #[doc(alias = "PostQueuedCompletionStatus")]
    #[inline]
    pub fn post(&self, bytes: usize, key: K, context: C) -> Result<(), Unposted<K, C>> {
        self.owner.0.post(posted(bytes, key, context)).map_err(|post| unposted(post, UnpostedReason::Closed))
    }

    /// Like [`post`](CompletionPort::post), unless `limit` entries are queued already.
    ///
    /// ```
    /// use wharf::{CompletionPort, UnpostedReason};
    /// let port = CompletionPort::<(), &str>::new()?;
    /// port.try_post(0, (), "first", 1).unwrap();
    /// let refused = port.try_post(0, (), "second", 1).unwrap_err();
    /// assert_eq!((refused.reason, refused.context), (UnpostedReason::Full, "second"));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`UnpostedReason::Full`] or [`UnpostedReason::Closed`]; key and context come back.
    pub fn try_post(&self, bytes: usize, key: K, context: C, limit: usize) -> Result<(), Unposted<K, C>> {
        self.owner.0.try_post(posted(bytes, key, context), limit).map_err(|(post, closed)| {
            unposted(post, if closed { UnpostedReason::Closed } else { UnpostedReason::Full })
        })
    }

    /// Queues a function: the thread that takes it, in a pool or inside [`get`](CompletionPort::get), calls it as it
    /// would handle a packet, with a slot, and then takes the next. It may block, and is replaced then. A panic comes
    /// out of the `get`; a pool goes on, as after any handler's.
    ///
    /// A port that is closed before drops it. A `get` with a time-out returns later by what functions take; once its
    /// time is over, it takes no more than 64 of them before it gives up.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use wharf::{CompletionPort, Workers};
    /// let port = CompletionPort::<(), ()>::new()?;
    /// let workers = port.start(Workers::new(2), |_packet| {})?;
    /// let (tell, told) = channel();
    /// port.run(move || tell.send(6 * 7).unwrap()).unwrap();
    /// assert_eq!(told.recv(), Ok(42));
    /// # drop(workers);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The port is closed; the function comes back.
    pub fn run<F: FnOnce() + Send + 'static>(&self, function: F) -> Result<(), NotRun<F>> {
        run::run(&self.owner.0, function)
    }

    /// Takes the next packet, waiting for one as long as it takes.
    ///
    /// # Errors
    ///
    /// [`GetError::Abandoned`] when the port is closed.
    #[doc(alias = "GetQueuedCompletionStatus")]
    #[inline]
    pub fn get(&self) -> Result<Packet<K, C>, GetError> {
        self.get_after(None)
    }

    /// Takes the next packet, waiting for at most `timeout`. Zero does not wait: it looks once whether there is one,
    /// on the sockets too.
    ///
    /// # Errors
    ///
    /// [`GetError::TimedOut`]; and [`GetError::Abandoned`] when the port is closed.
    #[doc(alias = "GetQueuedCompletionStatus")]
    pub fn get_timeout(&self, timeout: Duration) -> Result<Packet<K, C>, GetError> {
        self.get_after(Some(timeout))
    }

    #[inline]
    fn get_after(&self, timeout: Option<Duration>) -> Result<Packet<K, C>, GetError> {
        match self.owner.0.0.take_again() {
            Some(Entry::Post(post)) => Ok(assemble_post(post)),
            other => self.get_slowly(other, timeout),
        }
    }

    // A completion is large: on the way of the port's own it is moved once.
    #[inline(never)]
    fn get_slowly(&self, entry: Option<Entry>, timeout: Option<Duration>) -> Result<Packet<K, C>, GetError> {
        let raw = &self.owner.0;
        let mut handled = 0;
        if let Some(completion) = entry.and_then(|entry| raw.0.execute(entry)) {
            if is_own(&completion) {
                return Ok(assemble(completion));
            }
            take_raw(completion);
            handled += 1;
        }
        let deadline = Deadline::after(timeout);
        loop {
            if handled >= HANDLED_MAX && deadline.has_passed() {
                return Err(GetError::TimedOut);
            }
            let completion = raw.0.get_until(deadline)?;
            if is_own(&completion) {
                return Ok(assemble(completion));
            }
            take_raw(completion);
            handled += 1;
        }
    }

    /// Waits for a packet as long as it takes, and takes up to `max` that are there then, in the order of the queue.
    ///
    /// The batch counts as one running thread (row D-51). Packets that were not walked through go back to the head of
    /// the queue when the batch is dropped, when the thread announces that it [blocks](crate::blocking) or is found
    /// blocked, and when it calls `get` again; so a handler that blocks delays no packet.
    ///
    /// # Errors
    ///
    /// As [`get`](CompletionPort::get); and [`GetError::NoRoom`] when `max` is 0 (row D-46).
    ///
    /// ```
    /// use wharf::CompletionPort;
    /// let port = CompletionPort::<(), u32>::new()?;
    /// (0..5).for_each(|number| port.post(0, (), number).unwrap());
    /// let taken: Vec<u32> = port.get_many(3)?.map(|packet| packet.context).collect();
    /// assert_eq!(taken, [0, 1, 2]);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "GetQueuedCompletionStatusEx")]
    pub fn get_many(&self, max: usize) -> Result<Batch<K, C>, GetError> {
        self.get_many_until(max, Deadline::after(None))
    }

    /// Like [`get_many`](CompletionPort::get_many), waiting for at most `timeout`, as
    /// [`get_timeout`](CompletionPort::get_timeout) does.
    #[doc(alias = "GetQueuedCompletionStatusEx")]
    pub fn get_many_timeout(&self, max: usize, timeout: Duration) -> Result<Batch<K, C>, GetError> {
        self.get_many_until(max, Deadline::after(Some(timeout)))
    }

    fn get_many_until(&self, max: usize, deadline: Deadline) -> Result<Batch<K, C>, GetError> {
        let raw = &self.owner.0;
        let mut handled = 0;
        loop {
            let (first, rest) = raw.0.get_many(max, deadline)?;
            let mut next = Some(first);
            while let Some(completion) = next {
                match take_raw(completion) {
                    Some(first) => {
                        return Ok(Batch { port: raw.clone(), first: Some(first), rest, types: PhantomData });
                    }
                    None => next = raw.0.next_of(&rest),
                }
                handled += 1;
            }
            // All of them were branches', and were handled.
            if deadline.has_passed() && handled >= HANDLED_MAX {
                return Err(GetError::TimedOut);
            }
        }
    }

    /// Starts threads that take packets and call `handler` with each. The pool grows when all its threads are blocked
    /// and shrinks when they are idle. Where several pools serve a port, the first of them that may grow does, when the
    /// threads of all of them are blocked.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use wharf::{CompletionPort, Workers};
    /// let port = CompletionPort::<(), u32>::new()?;
    /// let (results, squares) = channel();
    /// let workers = port.start(Workers::new(2), move |packet| {
    ///     results.send(packet.context * packet.context).unwrap();
    /// })?;
    /// (1..=3).for_each(|number| port.post(0, (), number).unwrap());
    /// assert_eq!((0..3).map(|_| squares.recv().unwrap()).sum::<u32>(), 14);
    /// port.close();
    /// workers.join();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The system refuses to start a thread; or a [name](Workers::name) that no thread can have.
    pub fn start(
        &self,
        workers: Workers,
        handler: impl Fn(Packet<K, C>) + Send + Sync + 'static,
    ) -> io::Result<WorkerPool> {
        if !self.is_home() {
            return Err(crate::error::forked());
        }
        WorkerPool::start(self.owner.0.clone(), workers, move |completion| {
            if let Some(packet) = take(completion) {
                handler(packet);
            }
        })
    }

    // --- Timers and signals ---

    /// One packet ([`Event::Elapsed`](crate::Event::Elapsed)) after `after`.
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf::{CompletionPort, Event};
    /// let port = CompletionPort::<(), &str>::new()?;
    /// port.timer(Duration::from_millis(1), (), "later")?;
    /// let packet = port.get()?;
    /// assert!(matches!(packet.event, Event::Elapsed { result: Ok(1) }));
    /// assert_eq!(packet.context, "later");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Cancellation
    ///
    /// [`cancel`](CompletionPort::cancel) ends it early; its packet then has an error.
    ///
    /// # Errors
    ///
    /// The port is closed; the context comes back.
    pub fn timer(&self, after: Duration, key: K, context: C) -> Result<OperationId, Refused<C, ()>> {
        timing::timer(&self.route(), after, key, context)
    }

    /// A timer or interval that is outstanding elapses `after` from now instead of when it would have; an interval
    /// does, and then each period from there. Returns false, and does nothing, if it is not outstanding: its packet is
    /// queued or was taken, or it was cancelled. The packet that an interval has queued already comes all the same.
    ///
    /// Putting a time-out off with each message costs next to nothing:
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf::CompletionPort;
    /// let port = CompletionPort::<(), &str>::new()?;
    /// let timeout = port.timer(Duration::from_secs(60), (), "idle")?;
    /// assert!(port.reset_timer(timeout, Duration::from_secs(90)));
    /// assert!(port.reset_timer(timeout, Duration::ZERO));
    /// assert_eq!(port.get()?.context, "idle");
    /// assert!(!port.reset_timer(timeout, Duration::ZERO), "it has elapsed");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn reset_timer(&self, timer: OperationId, after: Duration) -> bool {
        self.owner.0.reset_timer(timer, after)
    }

    /// A packet every `period`, the first after one period, until it is cancelled. While one is queued no further one
    /// is; the next then tells how many periods have passed.
    ///
    /// # Errors
    ///
    /// `InvalidInput`: the period is shorter than a microsecond, which is as near as timers get. Or the port is closed.
    pub fn interval(&self, period: Duration, key: K, context: C) -> io::Result<OperationId>
    where
        C: Clone + Sync,
    {
        timing::interval(&self.route(), period, key, context)
    }

    /// A packet ([`Event::Signal`](crate::Event::Signal)) for each arrival of a signal in the process,
    /// [`SIGINT`](crate::signal::SIGINT) (Ctrl+C) say, until it is cancelled. Signals that come faster than they are
    /// taken are merged, as POSIX does. Handlers that the program had before still run.
    ///
    /// # Errors
    ///
    /// The signal cannot be caught (`SIGKILL`, `SIGSTOP`, and those that report a fault), or the port is closed.
    pub fn signal(&self, number: i32, key: K, context: C) -> io::Result<OperationId>
    where
        C: Clone + Sync,
    {
        timing::signal(&self.route(), number, key, context)
    }

    /// Asks that an operation ends. Whatever the answer, its one packet comes (a timer's or signal's last one).
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf::error::ErrorExt;
    /// use wharf::{Cancel, CompletionPort, Event};
    /// let port = CompletionPort::<(), ()>::new()?;
    /// let timer = port.timer(Duration::from_secs(3600), (), ())?;
    /// assert_eq!(port.cancel(timer), Cancel::Requested);
    /// let Event::Elapsed { result: Err(error) } = port.get()?.event else { panic!() };
    /// assert!(error.is_aborted());
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[doc(alias = "CancelIoEx")]
    pub fn cancel(&self, operation: OperationId) -> Cancel {
        self.owner.0.cancel(operation)
    }

    /// Takes an operation back that has not begun, without a packet of it: what its packet would have been is returned,
    /// with the context and the buffers. One that has begun is [cancelled](CompletionPort::cancel), and its packet
    /// comes. So each operation gives one packet, or is withdrawn.
    ///
    /// A time-out that is not needed any more costs no packet this way:
    ///
    /// ```
    /// use std::time::Duration;
    /// use wharf::{CompletionPort, Withdrawal};
    /// let port = CompletionPort::<(), &str>::new()?;
    /// let timer = port.timer(Duration::from_secs(60), (), "a context")?;
    /// let Withdrawal::Withdrawn(packet) = port.withdraw(timer) else { panic!("it has not elapsed") };
    /// assert_eq!(packet.context, "a context");
    /// assert!(matches!(port.withdraw(timer), Withdrawal::TooLate));
    /// assert!(port.get_timeout(Duration::ZERO).is_err(), "there is no packet");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// On Windows only timers and signals are withdrawn; operations of devices are the kernel's, and are cancelled.
    pub fn withdraw(&self, operation: OperationId) -> Withdrawal<Packet<K, C>> {
        branch::withdraw(&self.owner.0, operation, is_own)
    }

    // --- The port ---

    /// Is this the process that made the port, and no forked child?
    pub(crate) fn is_home(&self) -> bool {
        self.owner.0.0.is_home()
    }

    /// Makes the calling thread the one that does the port's work while no thread is inside
    /// [`get`](CompletionPort::get), until the port is closed: it waits for the sockets then, goes on with half-sent
    /// data, accepting, connecting and timers, and leaves packets to the threads that get them. It never handles one. A
    /// port with a pool needs none.
    ///
    /// ```
    /// use std::thread;
    /// use wharf::CompletionPort;
    /// let port = CompletionPort::<(), u32>::new()?;
    /// let supervisor = thread::spawn({
    ///     let port = port.clone();
    ///     move || port.supervise()
    /// });
    /// // The program's own threads come and go.
    /// port.close();
    /// supervisor.join().unwrap();
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// Of several such threads, and the supervisors of pools, one is at it at a time; the others sleep until it ends.
    /// Returns at once if the port is closed, and in a forked child. The thread's handle keeps the port open.
    pub fn supervise(&self) {
        self.owner.0.supervise();
    }

    /// Closes the port: every waiting thread returns [`GetError::Abandoned`], and what is queued or outstanding is
    /// freed with its buffers and contexts, without a packet.
    pub fn close(&self) {
        self.owner.0.close();
    }

    /// The port's figures.
    pub fn stats(&self) -> PortStats {
        PortStats::of(&self.owner.0)
    }

    /// The threads that belong to the port: what each does, and who is blocked, for how long and where.
    pub fn workers(&self) -> Vec<WorkerReport> {
        self.owner.0.0.workers()
    }

    /// A descriptor that is readable while a `get` would find something, for programs that wait in a loop of their
    /// own. It may be readable when the `get` then finds nothing; waiting on it takes no packet.
    pub fn notifier(&self) -> io::Result<Notifier> {
        Notifier::new(&self.owner.0)
    }
}
