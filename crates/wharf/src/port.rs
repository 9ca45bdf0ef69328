//! The completion port: one queue into which everything completes, and the threads that serve it.

use crate::associate::{Associate, Shared};
use crate::buffer::Buffer;
use crate::fs::File;
use crate::net::{Addresses, FileMessage, Stream, TcpListener, TcpStream, UdpSocket};
pub use crate::os::Notifier;
use crate::os::{Handle, Owned};
use crate::packet::{Event, GetError, Packet, Refused, Rejected, Unposted, UnpostedReason};
use crate::process::Child;
use crate::queue::{Deadline, Wake, WorkerReport};
use crate::raw::{
    self, Cancel, Completion, DeviceInfo, Empty, Entry, FileEngine, Kind, OperationId, Payload, Post, Sink,
    SocketEngine,
};
use crate::record::{Memory, Record, RepeatRecord, TimerRecord};
use crate::word;
use crate::worker::{WorkerPool, Workers};
use std::fmt;
use std::fs::OpenOptions;
use std::io;
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a device's key has to be: it is copied into every packet. `()`, a number, an `Arc` are good ones.
pub trait Key: Clone + Send + Sync + 'static {}
impl<K: Clone + Send + Sync + 'static> Key for K {}

/// What an operation's context has to be: it travels from the issuing thread to the one that takes the packet.
pub trait Context: Send + 'static {}
impl<C: Send + 'static> Context for C {}

/// An I/O completion port.
///
/// Devices are [associated](CompletionPort::associate) with it under a key `K`; operations are issued on them with a
/// context `C`, and each accepted operation comes back as exactly one [`Packet`] with both, taken by exactly one
/// [`get`](CompletionPort::get) in any thread. Of the threads that call `get` at most
/// [`concurrency`](Builder::concurrency) run at a time; when one of them blocks, another takes its place.
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
/// The threads inside [`get`](CompletionPort::get): they wait for the sockets, and go on with half-sent data, timers and
/// accepting. A pool ([`run`](CompletionPort::run)) has a thread more that does so while all its workers are outside `get`.
/// A port that only threads of the program's own serve stands still while none of them is inside: what waits goes on with
/// the next `get`.
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

/// Options of a port.
#[derive(Clone, Debug)]
pub struct Builder {
    concurrency: usize,
    wake: Wake,
    pool_buffer_bytes: usize,
    pool_keep: usize,
    files: Option<FileEngine>,
    sockets: Option<SocketEngine>,
}

/// Large receive buffers were worth more than any other tuning with clients that pipeline.
const POOL_BUFFER_BYTES: usize = 16 * 1024;
/// 4 MiB of idle buffers at most.
const POOL_KEEP: usize = 256;

impl Default for Builder {
    fn default() -> Self {
        Builder {
            concurrency: 0,
            wake: Wake::default(),
            pool_buffer_bytes: POOL_BUFFER_BYTES,
            pool_keep: POOL_KEEP,
            files: None,
            sockets: None,
        }
    }
}

impl Builder {
    /// How many threads may run at the same time. 0, the default: as many as the machine has processors.
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.concurrency = limit;
        self
    }

    /// How soon a further thread is woken while others are active. Default: [`Wake::Adaptive`].
    pub fn wake(mut self, wake: Wake) -> Self {
        self.wake = wake;
        self
    }

    /// Bytes in a buffer of the port's pool (16 KiB), and how many unused ones it keeps (256).
    pub fn pool(mut self, buffer_bytes: usize, keep: usize) -> Self {
        self.pool_buffer_bytes = buffer_bytes;
        self.pool_keep = keep;
        self
    }

    /// What tells which sockets are ready. Without this call, the environment variable `WHARF_ENGINE` decides (`poll`, or
    /// anything else); without that, [`SocketEngine::Auto`].
    pub fn socket_engine(mut self, engine: SocketEngine) -> Self {
        self.sockets = Some(engine);
        self
    }

    /// What runs file operations that have to wait. Without this call, the environment variable `WHARF_ENGINE` decides
    /// (`auto`, `io_uring` or `threads`); without that, [`FileEngine::Auto`].
    pub fn file_engine(mut self, engine: FileEngine) -> Self {
        self.files = Some(engine);
        self
    }

    /// Makes the port.
    ///
    /// # Errors
    ///
    /// The system's, when descriptors or memory are exhausted: a port needs four descriptors on Linux, and two more once a
    /// file operation had to wait. And a `WHARF_ENGINE` that names no engine; and `InvalidInput`: buffers of no bytes.
    pub fn build<K: Key, C: Context>(self) -> io::Result<CompletionPort<K, C>> {
        let raw = raw::Port::new(self.config::<K, C>()?)?;
        Ok(CompletionPort::from_raw(raw))
    }

    pub(crate) fn config<K: Key, C: Context>(&self) -> io::Result<raw::Config> {
        if self.pool_buffer_bytes == 0 {
            let what = "buffers of 0 bytes can receive nothing; give pool 1 byte or more";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let files = self.files.map_or_else(FileEngine::from_environment, Ok)?;
        Ok(raw::Config {
            files,
            sockets: self.sockets.unwrap_or_else(SocketEngine::from_environment),
            concurrency: self.concurrency,
            wake: self.wake,
            pool_buffer_bytes: self.pool_buffer_bytes,
            pool_keep: self.pool_keep,
            dispose: |completion| drop(assemble::<K, C>(completion)),
        })
    }
}

/// A port's figures at one moment. Totals count since the port was made.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PortStats {
    /// Which engine drives it.
    pub engine: &'static str,
    /// What runs file operations that have to wait; `None` as long as none had to.
    pub files: Option<&'static str>,
    /// Associated devices.
    pub devices: usize,
    /// Entries in the queue: packets, and sockets with something to receive.
    pub queued: usize,
    /// How many threads may run at the same time.
    pub concurrency: usize,
    /// Threads outside `get` that are not known to be blocked: they count as running.
    pub active: usize,
    /// Threads inside `get`.
    pub waiting: usize,
    /// Threads outside `get` that are known to be blocked: by their own word ([`blocking`](crate::blocking)) or, where
    /// `write_offs` is told, as the kernel says.
    pub blocked: usize,
    /// Entries that came into the queue.
    pub inserted: u64,
    /// Entries that left it.
    pub removed: u64,
    /// Threads woken, the leader included. `None` where the kernel keeps the queue (Windows) and does not tell.
    pub wakes: Option<u64>,
    /// Waits in the engine.
    pub polls: u64,
    /// Times the dead-man's timer went off. `None` where the kernel keeps the queue: there is no such timer.
    pub ticks: Option<u64>,
    /// Threads found blocked. `None` where the kernel keeps the queue: it lets others run in their place, and does not tell.
    pub write_offs: Option<u64>,
}

impl<K: Key, C: Context> CompletionPort<K, C> {
    /// A port with the default options.
    pub fn new() -> io::Result<Self> {
        Builder::default().build()
    }

    /// Options for a port.
    pub fn builder() -> Builder {
        Builder::default()
    }

    pub(crate) fn from_raw(raw: raw::Port) -> Self {
        CompletionPort { owner: Arc::new(Owner(raw)), types: PhantomData }
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
    /// A socket, pipe or terminal is put into non-blocking mode, which all duplicates of it share, those of other processes
    /// too. Whoever else has one finds it so; one who sets it back disturbs no operation of the port.
    ///
    /// # Errors
    ///
    /// The source and the key come back when the port is closed, when the system's limits are reached, or when the
    /// source is not in a state to be associated (a stream that is not connected).
    pub fn associate<S: Associate<K, C>>(&self, source: S, key: K) -> Result<S::Device, Rejected<S, K>> {
        source.associate(&self.owner.0, key)
    }

    /// A listening socket on one of the addresses, associated with the port.
    ///
    /// # Errors
    ///
    /// Address in use, not permitted, not of this machine; the last address's error when there are several.
    pub fn listen(&self, address: impl Addresses, key: K) -> io::Result<TcpListener<K, C>> {
        let listener = crate::net::listen(address)?;
        Ok(self.associate(listener, key)?)
    }

    /// A datagram socket on one of the addresses, associated with the port. With port 0 the system chooses one.
    ///
    /// # Errors
    ///
    /// Address in use, not permitted, not of this machine.
    pub fn bind(&self, address: impl Addresses, key: K) -> io::Result<UdpSocket<K, C>> {
        let socket = std::net::UdpSocket::bind(&address.addresses()?[..])?;
        Ok(self.associate(socket, key)?)
    }

    /// Connects to an address. The stream can be used when its packet ([`Event::Connected`]) says so.
    ///
    /// # Errors
    ///
    /// What can be told without trying: no descriptor, no such address. A refusal comes as a packet.
    pub fn connect(&self, peer: SocketAddr, key: K, context: C) -> Result<TcpStream<K, C>, Refused<C, ()>> {
        match TcpStream::open(&self.owner.0, &peer, key) {
            Ok(stream) => match stream.connect(peer, context) {
                Ok(_) => Ok(stream),
                Err(refused) => Err(refused),
            },
            Err(error) => Err(Refused { error, context, buffer: () }),
        }
    }

    /// Connects a socket that the caller has made: bound to an address, with its buffers sized, whatever has to be done
    /// before the connection is. It is put into non-blocking mode. The stream can be used when its packet
    /// ([`Event::Connected`]) says so.
    ///
    /// # Errors
    ///
    /// What can be told without trying: the port is closed, the peer is the unspecified address. The context comes back; the
    /// socket is closed. A refusal comes as a packet.
    pub fn connect_with(
        &self,
        socket: std::net::TcpStream,
        peer: SocketAddr,
        key: K,
        context: C,
    ) -> Result<TcpStream<K, C>, Refused<C, ()>> {
        match TcpStream::unconnected(&self.owner.0, socket, key) {
            Ok(stream) => match stream.connect(peer, context) {
                Ok(_) => Ok(stream),
                Err(refused) => Err(refused),
            },
            Err(error) => Err(Refused { error, context, buffer: () }),
        }
    }

    /// Opens a file, with std's options (`custom_flags(O_DIRECT)` for direct I/O), and associates it with the port. A plain
    /// call, which may wait for the disk.
    ///
    /// # Errors
    ///
    /// The system's: no such file, no permission; and what is no file: a directory, a pipe.
    pub fn open(&self, path: impl AsRef<Path>, options: &OpenOptions, key: K) -> io::Result<File<K, C>> {
        crate::fs::open(&self.owner.0, path.as_ref(), options, key)
    }

    /// The standard input, if it is a terminal or a pipe, opened anew so that nobody who shares it is disturbed.
    ///
    /// # Errors
    ///
    /// It is a file (associate that), a socket, or closed.
    pub fn stdin(&self, key: K) -> io::Result<Stream<K, C>> {
        let input = crate::net::standard_input()?;
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
    pub fn try_post(&self, bytes: usize, key: K, context: C, limit: usize) -> Result<(), Unposted<K, C>> {
        self.owner.0.try_post(posted(bytes, key, context), limit).map_err(|(post, closed)| {
            unposted(post, if closed { UnpostedReason::Closed } else { UnpostedReason::Full })
        })
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
    #[doc(alias = "GetQueuedCompletionStatus")]
    pub fn get_timeout(&self, timeout: Duration) -> Result<Packet<K, C>, GetError> {
        self.get_after(Some(timeout))
    }

    #[inline]
    fn get_after(&self, timeout: Option<Duration>) -> Result<Packet<K, C>, GetError> {
        match self.owner.0.take_again() {
            Some(Entry::Post(post)) => Ok(assemble_post(post)),
            other => self.get_slowly(other, timeout),
        }
    }

    #[inline(never)]
    fn get_slowly(&self, entry: Option<Entry>, timeout: Option<Duration>) -> Result<Packet<K, C>, GetError> {
        let raw = &self.owner.0;
        match entry.and_then(|entry| raw.execute(entry)) {
            Some(completion) => Ok(assemble(completion)),
            None => Ok(assemble(raw.get(timeout)?)),
        }
    }

    /// Waits for a packet, and takes up to `most` that are there then, in the order of the queue. `None` waits as
    /// long as it takes.
    ///
    /// The batch counts as one running thread (row D-51). Packets that were not walked through go back to the head of
    /// the queue when the batch is dropped, when the thread announces that it [blocks](crate::blocking) or is found
    /// blocked, and when it calls `get` again; so a handler that blocks holds no packet hostage.
    ///
    /// # Errors
    ///
    /// As [`get`](CompletionPort::get); and [`GetError::NoRoom`] when `most` is 0 (row D-46).
    #[doc(alias = "GetQueuedCompletionStatusEx")]
    pub fn get_many(&self, most: usize, timeout: Option<Duration>) -> Result<Batch<K, C>, GetError> {
        let raw = &self.owner.0;
        let (first, held) = raw.get_many(most, Deadline::after(timeout))?;
        Ok(Batch { port: raw.clone(), first: Some(first), held, types: PhantomData })
    }

    /// Starts threads that take packets and call `handler` with each. The pool grows when all its threads are blocked
    /// and shrinks when they are idle. Where several pools serve a port, the first of them that may grow does, when the
    /// threads of all of them are blocked.
    ///
    /// # Errors
    ///
    /// The system refuses to start a thread; or a [name](Workers::name) that no thread can have.
    pub fn run(
        &self,
        workers: Workers,
        handler: impl Fn(Packet<K, C>) + Send + Sync + 'static,
    ) -> io::Result<WorkerPool> {
        if !self.is_home() {
            return Err(crate::fork::refusal());
        }
        WorkerPool::start(self.owner.0.clone(), workers, move |completion| handler(assemble(completion)))
    }

    // --- Timers and signals ---

    /// One packet ([`Event::Elapsed`]) after `after`.
    pub fn timer(&self, after: Duration, key: K, context: C) -> Result<OperationId, Refused<C, ()>> {
        let token = TimerRecord::into_token(key, context);
        // A one-shot timer delivers one packet, so nothing is ever retained.
        self.owner.0.timer(after, None, 0, token, Sink::Port, |_| {}).map_err(|error| {
            let (_, context) = TimerRecord::<K, C>::from_token(token);
            Refused { error: io::Error::from_raw_os_error(error), context, buffer: () }
        })
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
        if period < raw::PERIOD_LEAST {
            let what = format!(
                "a period of {period:?} cannot be kept: it has to be 1 µs or more; what is to run all the \
                                time is posted anew by its handler"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let token = RepeatRecord::new(key, context).into_token();
        let retain = RepeatRecord::<K, C>::retain;
        self.owner.0.timer(period, Some(period), 0, token, Sink::Port, retain).map_err(|error| {
            RepeatRecord::<K, C>::release(token);
            io::Error::from_raw_os_error(error)
        })
    }

    /// A packet ([`Event::Signal`]) for each arrival of a signal in the process, `SIGINT` (Ctrl+C) say, until it is
    /// cancelled. Signals that come faster than they are taken are merged, as POSIX does. Handlers that the program
    /// had before still run.
    ///
    /// # Errors
    ///
    /// The signal cannot be caught (`SIGKILL`, `SIGSTOP`, and those that report a fault), or the port is closed.
    pub fn signal(&self, number: i32, key: K, context: C) -> io::Result<OperationId>
    where
        C: Clone + Sync,
    {
        let token = RepeatRecord::new(key, context).into_token();
        let retain = RepeatRecord::<K, C>::retain;
        self.owner.0.signal(number, 0, token, Sink::Port, retain).inspect_err(|_| {
            RepeatRecord::<K, C>::release(token);
        })
    }

    /// Asks that an operation ends. Whatever the answer, its one packet comes (a timer's or signal's last one).
    #[doc(alias = "CancelIoEx")]
    pub fn cancel(&self, operation: OperationId) -> Cancel {
        self.owner.0.cancel(operation)
    }

    // --- The port ---

    /// Is this the process that made the port, and no forked child?
    pub(crate) fn is_home(&self) -> bool {
        self.owner.0.is_home()
    }

    /// Closes the port: every waiting thread returns [`GetError::Abandoned`], and what is queued or outstanding is
    /// freed with its buffers and contexts, without a packet.
    pub fn close(&self) {
        self.owner.0.close();
    }

    /// The port's figures.
    pub fn stats(&self) -> PortStats {
        let raw = &self.owner.0;
        let queue = raw.stats();
        PortStats {
            engine: raw.engine_name(),
            files: raw.file_engine(),
            devices: raw.device_count(),
            queued: queue.queued,
            concurrency: queue.limit,
            active: queue.active,
            waiting: queue.waiting,
            blocked: queue.blocked,
            inserted: queue.inserted,
            removed: queue.removed,
            wakes: queue.wakes,
            polls: queue.polls,
            ticks: queue.ticks,
            write_offs: queue.write_offs,
        }
    }

    /// The threads that belong to the port: what each does, and who is blocked, for how long and where.
    pub fn workers(&self) -> Vec<WorkerReport> {
        self.owner.0.workers()
    }

    /// A descriptor that is readable while a `get` would find something, for programs that wait in a loop of their
    /// own. It may be readable when the `get` then finds nothing; waiting on it takes no packet.
    pub fn notifier(&self) -> io::Result<Notifier> {
        Notifier::new(&self.owner.0)
    }
}

/// Packets that were taken together: see [`CompletionPort::get_many`]. Belongs to the thread that took it.
pub struct Batch<K: Key, C: Context> {
    port: raw::Port,
    first: Option<Completion>,
    held: raw::Held<Entry>,
    // Not Send: the packets are held by the worker that took them.
    types: PhantomData<*const (K, C)>,
}

impl<K: Key, C: Context> Batch<K, C> {
    /// How many packets are left at most. Others may take them back (see [`CompletionPort::get_many`]), and a socket that
    /// seemed to have something may turn out to have nothing.
    pub fn len(&self) -> usize {
        if self.port.is_home() { self.held.len() + usize::from(self.first.is_some()) } else { 0 }
    }

    /// Whether none is left.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<K: Key, C: Context> fmt::Debug for Batch<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Batch({} packets)", self.len())
    }
}

impl<K: Key, C: Context> Iterator for Batch<K, C> {
    type Item = Packet<K, C>;

    #[inline]
    fn next(&mut self) -> Option<Packet<K, C>> {
        if !self.port.is_home() {
            // A forked child: the packets are the parent's.
            return None;
        }
        if let Some(first) = self.first.take() {
            return Some(assemble(first));
        }
        match self.held.next()? {
            Entry::Post(post) => Some(assemble_post(post)),
            other => self.port.execute(other).or_else(|| self.port.next_of(&self.held)).map(assemble),
        }
    }
}

impl<K: Key, C: Context> Drop for Batch<K, C> {
    fn drop(&mut self) {
        if !self.port.is_home() {
            return;
        }
        let first = self.first.take().map(|first| Entry::Packet(Box::new(first)));
        let rest = self.held.drain();
        if first.is_some() || !rest.is_empty() {
            self.port.queue.give_back(first.into_iter().chain(rest));
        }
    }
}

#[inline]
fn posted<K, C>(bytes: usize, key: K, context: C) -> Post {
    Post { key: word::pack(key), token: word::pack(context), bytes }
}

/// Makes a typed packet of what [`posted`] made.
#[inline]
#[allow(unsafe_code)]
fn assemble_post<K: Key, C: Context>(Post { key, token, bytes }: Post) -> Packet<K, C> {
    // SAFETY: a port's posts are made by `posted::<K, C>`, the only caller of `raw::Port::post` for it, and each is
    // taken out once.
    let (key, context) = unsafe { (word::unpack::<K>(key), word::unpack::<C>(token)) };
    Packet { key, context, event: Event::Posted { bytes } }
}

fn unposted<K: Key, C: Context>(post: Post, reason: UnpostedReason) -> Unposted<K, C> {
    let Packet { key, context, .. } = assemble_post(post);
    Unposted { reason, key, context }
}

/// Makes a typed packet of a raw one that this port's own calls issued.
pub(crate) fn assemble<K: Key, C: Context>(completion: Completion) -> Packet<K, C> {
    match completion.kind {
        Kind::Posted => {
            let Completion { key, token, bytes, .. } = completion;
            assemble_post(Post { key, token, bytes })
        }
        Kind::Elapsed | Kind::Signal => assemble_repeating(completion),
        _ => assemble_operation(completion),
    }
}

/// The packet of a timer or a signal.
fn assemble_repeating<K: Key, C: Context>(completion: Completion) -> Packet<K, C> {
    let Completion { token, bytes, error, kind, .. } = completion;
    let (key, context) =
        if RepeatRecord::<K, C>::is_token(token) { RepeatRecord::take(token) } else { TimerRecord::from_token(token) };
    let event = match kind {
        Kind::Signal => Event::Signal { result: ended(error, i32::try_from(bytes).unwrap_or(0)) },
        _ => Event::Elapsed { result: ended(error, bytes as u64) },
    };
    Packet { key, context, event }
}

#[allow(unsafe_code)]
fn owned<S: Owned>(handle: Handle) -> S {
    // SAFETY: an accepted connection's descriptor is owned by its packet, and this is the packet's one unpacking.
    unsafe { S::from_handle(handle) }
}

fn ended<T>(error: i32, value: T) -> io::Result<T> {
    if error == 0 { Ok(value) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// The packet of an operation of a device.
fn assemble_operation<K: Key, C: Context>(completion: Completion) -> Packet<K, C> {
    let Completion { key, token, bytes, error, kind, more: _, payload, device: _, named_memory } = completion;
    let (context, memory) = if named_memory {
        Record::from_token(token)
    } else {
        #[allow(unsafe_code)]
        // SAFETY: the token of an operation without memory was packed by `Shared::issue_plain`, with this C, and its one
        // completion is taken here.
        (unsafe { word::unpack::<C>(token) }, Memory::None)
    };
    #[allow(unsafe_code)]
    // SAFETY: every operation of the safe layer is issued with a handle held, on a device whose key is its address, and
    // this is its one completion.
    let shared = unsafe { Shared::<K, C>::from_key(key) };
    let key = shared.key.clone();
    let result = |value| ended(error, value);
    let event = match kind {
        Kind::Accepted => {
            let listener = TcpListener(shared);
            let local = listener.0.device.is_local();
            match payload {
                Payload::Accepted(accepted) => match accepted.peer {
                    Some(peer) => Event::Accepted { listener, result: Ok((owned(accepted.handle), peer)) },
                    None => Event::AcceptedLocal { listener, result: Ok(owned(accepted.handle)) },
                },
                _ if local => Event::AcceptedLocal { listener, result: Err(io::Error::from_raw_os_error(error)) },
                _ => Event::Accepted { listener, result: Err(io::Error::from_raw_os_error(error)) },
            }
        }
        Kind::Exited => {
            let child = Child(shared);
            Event::Exited { child, result: result(bytes).map(crate::os::exit_status) }
        }
        Kind::Connected => Event::Connected { stream: Stream(shared), result: result(0).map(drop) },
        Kind::Received => {
            let mut buffer = match payload {
                Payload::Pooled(buffer) => Buffer::pooled(buffer),
                _ => memory.into_one(),
            };
            if error == 0 {
                buffer.received(bytes);
            }
            Event::Received { stream: Stream(shared), buffer, result: result(bytes) }
        }
        Kind::Readable => Event::Readable { stream: Stream(shared), result: result(0).map(drop) },
        Kind::Sent => match memory {
            Memory::Many(buffers) => Event::SentVectored { stream: Stream(shared), buffers, result: result(bytes) },
            one => Event::Sent { stream: Stream(shared), buffer: one.into_one(), result: result(bytes) },
        },
        Kind::SentFile => {
            let Memory::File(message) = memory else { unreachable!("a send of a file has its message") };
            let result = match error {
                raw::ENODATA => Err(ended_early(bytes, &message)),
                _ => result(bytes),
            };
            Event::SentFile { stream: Stream(shared), message, result }
        }
        Kind::ReceivedFrom => {
            let (what, pooled) = match payload {
                Payload::Datagram(datagram) => (Some(datagram.0), datagram.1),
                _ => (None, None),
            };
            let mut buffer = pooled.map_or_else(|| memory.into_one(), Buffer::pooled);
            buffer.received(what.map_or(0, |what| what.bytes));
            let (from, segment_bytes) = what.map_or((None, 0), |what| (what.from, what.segment));
            Event::ReceivedFrom { socket: UdpSocket(shared), buffer, from, segment_bytes, result: result(bytes) }
        }
        Kind::SentTo => Event::SentTo { socket: UdpSocket(shared), buffer: memory.into_one(), result: result(bytes) },
        Kind::Read => {
            let mut buffer = memory.into_one();
            if error == 0 {
                buffer.received(bytes);
            }
            Event::Read { file: File(shared), buffer, result: result(bytes) }
        }
        Kind::Written => Event::Written { file: File(shared), buffer: memory.into_one(), result: result(bytes) },
        Kind::Synced => Event::Synced { file: File(shared), result: result(0).map(drop) },
        Kind::Disconnected => Event::Disconnected { stream: Stream(shared), result: result(0).map(drop) },
        Kind::Posted | Kind::Elapsed | Kind::Signal => unreachable!("no device has issued it"),
    };
    Packet { key, context, event }
}

fn ended_early(sent: usize, message: &FileMessage) -> io::Error {
    let of_file = sent.saturating_sub(message.head.len());
    let why = format!("the file ended {of_file} bytes behind offset {}: it has been truncated?", message.offset);
    io::Error::new(io::ErrorKind::UnexpectedEof, why)
}

impl From<Empty> for GetError {
    fn from(empty: Empty) -> GetError {
        match empty {
            Empty::TimedOut => GetError::TimedOut,
            Empty::Abandoned => GetError::Abandoned,
            Empty::Forked => GetError::Forked,
            Empty::NoRoom => GetError::NoRoom,
        }
    }
}
