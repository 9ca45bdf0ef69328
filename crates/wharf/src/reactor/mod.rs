//! Operations executed by calls: the system tells when a call would not block, and this crate makes it.
//!
//! `device.rs` and `direction.rs` say what a device is; then one file for each kind of operation; `engine/` is what is
//! asked of a system. [`raw`](crate::raw) is the face of it.

mod accept;
mod arrived;
mod cancel;
mod connect;
mod datagram;
pub(crate) mod device;
mod devices;
pub(crate) mod direction;
mod driver;
mod edges;
pub(crate) mod engine;
mod file;
mod forked;
mod inline;
mod packets;
mod parts;
mod progress;
mod receive;
mod send;
mod signal;
mod timers;
mod trying;

pub(crate) use crate::op::{
    Accepted, Buffers, Cancel, Completion, Config, Datagram, DeviceInfo, DeviceKind, FileEngine, Handle, Incoming,
    Issued, Kind, OperationId, Outgoing, Payload, Post, RawBuffer, Sink,
};
pub(crate) use crate::queue::{Park, Rest};
pub(crate) use crate::sys::errno::{
    EADDRNOTAVAIL, EAGAIN, EBADF, ECANCELED, ECONNABORTED, ECONNRESET, EINPROGRESS, EINVAL, EISCONN, EMSGSIZE,
    ENOTCONN, EPIPE, ESHUTDOWN, ETIMEDOUT,
};
pub(crate) use device::DeviceState;
pub(crate) use file::traits_of as file_traits;
pub(crate) use inline::TrySend;

use crate::op::buffer::Pool;
use crate::op::{Delivery, Devices, Operation, PortNumber, Ran, Timers};
use crate::queue::{self, Driver, Queue};
use crate::sync::{Arc, Lock};
use crate::sys::fork::Home;
use crate::threads::{QueueStats, WorkerReport};
use direction::{Direction, Left, Side, duty};
use driver::PortDriver;
use engine::{Engine, Events, PIECES_MAX};
use std::sync::OnceLock;
use std::sync::atomic::AtomicBool;

/// Where a worker notes what it handles, for reports.
pub(crate) type Note = queue::Note<Entry>;

pub(crate) type PortQueue = Queue<Entry, PortDriver>;

/// What lies in the queue. The tag is a whole word: entries are then copied in aligned pieces, which the processor
/// forwards from store to load; with a byte as tag a burst of posts costs half as much again.
#[derive(Debug)]
#[repr(usize)]
pub(crate) enum Entry {
    /// A post: kept small, because a program may post millions a second.
    Post(Post),
    /// A finished operation.
    Packet(Box<Completion>),
    /// A direction whose head operation can be tried.
    Ready(Arc<DeviceState>, Side),
    /// A completion for a function.
    Call(fn(usize, Completion), usize, Box<Completion>),
    /// A function of the program's own, which is to be called with this number.
    Run(fn(usize, Ran), usize),
    /// A periodic timer whose time has come.
    Tick(u64),
}

/// The port as its operations see it; [`raw::Port`](crate::raw::Port) is its face.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) queue: Arc<PortQueue>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("engine", &self.engine_name()).field("stats", &self.stats()).finish()
    }
}

impl Port {
    pub(crate) fn new(config: Config) -> std::io::Result<Port> {
        let sockets = config.sockets;
        Port::build(config, |watchdog| sockets.make(watchdog))
    }

    /// A port over any engine; `make` is given the descriptor of the queue's watchdog timer.
    pub(crate) fn build(
        config: Config,
        make: impl FnOnce(rustix::fd::BorrowedFd<'_>) -> std::io::Result<Engine>,
    ) -> std::io::Result<Port> {
        let limit = match config.concurrency {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            limit => limit,
        };
        let number = PortNumber::next()?;
        let queue = Queue::new(limit, config.wake, |watchdog| {
            Ok(PortDriver {
                home: Home::here(),
                number,
                engine: make(watchdog.as_fd())?,
                events: Lock::new(Events::default()),
                devices: Lock::new(Devices::of(number)),
                timers: Lock::new(Timers::default()),
                signals: signal::Signals::default(),
                sources: AtomicBool::new(false),
                starved: Lock::new(Vec::new()),
                starving: AtomicBool::new(false),
                starving_said: Lock::new(None),
                pool: Pool::new(config.pool_buffer_bytes, config.pool_keep),
                file_thread: OnceLock::new(),
                files: config.files,
                dispose: config.dispose,
            })
        })?;
        Ok(Port { queue: Arc::new(queue) })
    }

    fn driver(&self) -> &PortDriver {
        self.queue.driver()
    }

    /// What drives the port.
    pub(crate) fn engine_name(&self) -> &'static str {
        self.engine().selector.name()
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.driver().engine
    }

    #[cfg(any(test, feature = "fake"))]
    pub(crate) fn pool(&self) -> &std::sync::Arc<Pool> {
        &self.driver().pool
    }

    /// The next devices come into slots that have had so many before.
    #[cfg(test)]
    pub(crate) fn wear_slots(&self, slots: usize, generation: u32) {
        self.driver().devices.lock().wear(slots, generation);
    }

    /// Whether the calling thread is bound to this port.
    pub(crate) fn is_worker(&self) -> bool {
        crate::threads::bound(&self.queue).is_some()
    }

    /// Is this the process that made the port, and no forked child? Every public call asks before it takes a lock.
    #[inline]
    pub(crate) fn is_home(&self) -> bool {
        self.driver().home.is_here()
    }

    /// The device, if it is this port's, and this process the port's. At the head of every call that is given a device.
    #[inline]
    fn own<'a>(&self, device: &'a Arc<DeviceState>) -> Result<&'a Arc<DeviceState>, i32> {
        if device.port != self.driver().number {
            return Err(EINVAL);
        }
        if !self.is_home() {
            return Err(EBADF);
        }
        Ok(device)
    }

    /// Names an operation of a device.
    #[inline]
    fn id(device: &DeviceState, serial: u64) -> OperationId {
        OperationId { port: device.port, device: device.number, serial }
    }

    /// Names a timer or a signal.
    fn repeating_id(&self, serial: u64) -> OperationId {
        OperationId { port: self.driver().number, device: 0, serial }
    }

    fn check(&self) -> Result<(), i32> {
        if self.is_home() { self.is_open() } else { Err(EBADF) }
    }

    /// [`check`](Port::check) of a call that has found out already that it is [at home](Port::is_home).
    #[inline]
    fn is_open(&self) -> Result<(), i32> {
        if self.queue.is_closed() { Err(EBADF) } else { Ok(()) }
    }

    /// What is left after a turn: nothing, mostly.
    #[inline(always)]
    fn turn_over(&self, device: &Arc<DeviceState>, side: Side, left: Left) {
        if left.goes_on || left.duties != 0 {
            self.follow_up(device, side, left);
        }
    }

    #[inline(never)]
    fn follow_up(&self, device: &Arc<DeviceState>, side: Side, left: Left) {
        if left.duties & duty::HANDLE != 0 {
            self.leave(device);
        }
        if left.goes_on {
            match side {
                Side::Receive => self.queue_receives(device, left.in_work),
                Side::Send => self.insert_work(Entry::Ready(device.clone(), side)),
            }
        }
        if left.duties & duty::RECEIVE != 0 {
            let mut direction = device.receive.lock();
            if direction.ready() {
                let in_work = direction.in_work;
                drop(direction);
                self.queue_receives(device, in_work);
            }
        }
    }

    /// Queues the receive side. A receive is the business of a worker that has a slot; one that only an event or a
    /// function hears of, and an accept, are not.
    fn queue_receives(&self, device: &Arc<DeviceState>, in_work: bool) {
        let entry = Entry::Ready(device.clone(), Side::Receive);
        if in_work || device.kind == DeviceKind::Listener { self.insert_work(entry) } else { self.insert(entry) }
    }

    pub(crate) fn close(&self) {
        if !self.is_home() {
            // The descriptors that wake and time the port are the parent's too: a child leaves them alone.
            return;
        }
        let left = self.queue.close();
        for entry in left {
            self.driver().dispose(entry);
        }
        self.end_repeating();
        let devices: Vec<Arc<DeviceState>> = self.driver().devices.lock().iter().cloned().collect();
        for device in devices {
            self.abandon(&device);
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    /// All 0 in a forked child.
    pub(crate) fn stats(&self) -> QueueStats {
        if self.is_home() { self.queue.stats() } else { QueueStats::default() }
    }

    /// None in a forked child.
    pub(crate) fn workers(&self) -> Vec<WorkerReport> {
        if self.is_home() { self.queue.workers() } else { Vec::new() }
    }

    // --- What the queue hands out ---

    /// Executes an entry that was taken with a slot. `None`: it came to nothing, take the next one.
    pub(crate) fn execute(&self, entry: Entry) -> Option<Completion> {
        debug_assert!(
            crate::threads::bound(&self.queue).is_none_or(|me| !self.queue.waits(me)),
            "an entry is executed by a worker that the queue has let out of `get`"
        );
        match entry {
            Entry::Post(post) => Some(post.into()),
            Entry::Packet(completion) => Some(*completion),
            Entry::Ready(device, Side::Receive) if device.kind != DeviceKind::Listener => self.receive_turn(&device),
            Entry::Tick(serial) => self.tick_taken(serial),
            Entry::Run(call, context) => {
                call(context, Ran::Worker);
                None
            }
            Entry::Call(call, context, completion) => {
                call(context, *completion);
                None
            }
            work @ Entry::Ready(..) => {
                self.do_work(work);
                None
            }
        }
    }

    /// Does engine work: nothing of it runs user code, so it needs no slot.
    pub(crate) fn do_work(&self, entry: Entry) {
        match entry {
            Entry::Ready(device, Side::Send) => {
                self.send_turn(&device);
            }
            Entry::Ready(device, Side::Receive) if device.kind == DeviceKind::Listener => self.accept_turn(&device),
            Entry::Ready(device, Side::Receive) => self.receive_as_work(&device),
            other => self.insert(other),
        }
    }

    fn insert(&self, entry: Entry) {
        if let Err(entry) = self.queue.insert(entry) {
            self.driver().dispose(entry);
        }
    }

    fn insert_work(&self, entry: Entry) {
        // A closed port does no work: its operations were ended by `close`.
        let _ = self.queue.insert_engine_work(entry);
    }

    // --- Completing ---

    /// The one end of an operation: consumes its record and sends the completion to its sink.
    fn complete(&self, device: &Arc<DeviceState>, operation: Operation, error: i32) {
        debug_assert_ne!(operation.serial, 0, "an operation is completed that was never issued");
        if operation.kind == Kind::Connected && error == ECANCELED {
            self.abort_connect(device);
        }
        if operation.kind == Kind::Disconnected && error == ECANCELED {
            self.disconnect_cancelled(device);
        }
        let (sink, completion) = finish(device, operation, error, Payload::None);
        self.deliver(sink, completion);
    }

    pub(crate) fn deliver(&self, sink: Sink, completion: Completion) {
        if let Some(entry) = entry(sink, completion) {
            self.insert(entry);
        }
    }

    /// Like [`deliver`](Port::deliver), but a packet for the queue is returned, and a function called: the caller is
    /// inside `get`, and hands it out at once.
    #[inline(always)]
    fn hand_out(&self, sink: Sink, completion: Completion) -> Option<Completion> {
        match sink.send(completion)? {
            Delivery::Packet(completion) => Some(completion),
            Delivery::Call(call, context, completion) => {
                call(context, completion);
                None
            }
        }
    }

    fn resume_accepting(&self) {
        self.driver().resume_starved(|entry| self.insert_work(entry));
    }
}

impl From<Delivery> for Entry {
    fn from(delivery: Delivery) -> Entry {
        match delivery {
            Delivery::Packet(completion) => Entry::Packet(Box::new(completion)),
            Delivery::Call(call, context, completion) => Entry::Call(call, context, Box::new(completion)),
        }
    }
}

/// Sends a completion to its sink; what goes there through the queue is returned.
fn entry(sink: Sink, completion: Completion) -> Option<Entry> {
    sink.send(completion).map(Entry::from)
}

/// A file's operations: they are in the file thread's hands.
fn files_under_way(device: &DeviceState, direction: &Direction) -> Vec<u64> {
    if device.kind == DeviceKind::File { direction.under_way().collect() } else { Vec::new() }
}

// Always: once a message.
#[inline(always)]
fn finish(device: &DeviceState, mut operation: Operation, error: i32, payload: Payload) -> (Sink, Completion) {
    let named_memory = operation.names_memory();
    let sink = operation.take_sink();
    let Operation { kind, token, done: bytes, .. } = operation;
    let (key, device) = (device.key(), device.number);
    (sink, Completion { key, token, bytes, error, kind, device, more: false, payload, named_memory })
}
