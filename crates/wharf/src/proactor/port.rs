//! The port over the kernel's: what a packet is, how operations begin and end, how devices come and go, and how the
//! port is closed without memory freed under the kernel.

pub(crate) use super::files::file_traits;
pub(crate) use super::queue::{Held, Note, Park};
pub(crate) use super::streams::Now;
pub(crate) use crate::op::{
    Cancel, Completion, Config, DeviceInfo, DeviceKind, Handle, Issued, Kind, OperationId, Payload, Post, Sink,
};
pub(crate) use crate::sys::errno::{EBADF, ECANCELED, EINVAL};

use super::console::Signals;
use super::device::{DeviceState, Devices, phase, shut, traits};
use super::queue::{Queue, Ticker, key};
use super::record::{Extra, Pointer, Record};
use crate::contain::contain;
use crate::op::buffer::Pool;
use crate::op::{Delivery, Operation, PortNumber, Side, Timers};
use crate::sync::{Arc, Guard, Lock};
use crate::sys::calls::{self as sys, Called, OVERLAPPED, OVERLAPPED_ENTRY};
use crate::sys::errno::{EBUSY, ENOTCONN, ESHUTDOWN};
use crate::threads::{Deadline, GetError, QueueStats, Taken, WorkerReport};
use std::collections::VecDeque;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// How long closing a port waits for what was outstanding. What a driver does not give up by then is waited for by a
/// thread of its own.
const CLOSING: Duration = Duration::from_millis(500);

/// How long a cancel waits at most for an operation that the kernel is about to end at that moment: see
/// [`cancel_lane`].
const SETTLING: Duration = Duration::from_secs(1);

/// What a packet is, once it was taken.
#[derive(Debug)]
pub(crate) enum Entry {
    Post(Post),
    /// Finished here, not by the kernel.
    Packet(Box<Completion>),
    /// A completion for a function.
    Call(fn(usize, Completion), usize, Box<Completion>),
    /// A periodic timer whose time has come.
    Tick(u64),
    /// An operation that the kernel has ended, with so many bytes.
    Ended(Ended),
}

/// Owns the record again: it is to be [finished](Port::finished), once.
pub(crate) struct Ended(Pointer, usize);

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ended({} bytes)", self.1)
    }
}

/// What timers and devices need of the port.
pub(crate) struct PortDriver {
    /// No other port of the process has it, or had it.
    number: PortNumber,
    pub(super) engine: Arc<Ticker>,
    pub(super) timers: Lock<Timers>,
    pub(super) signals: Signals,
    pub(super) sources: AtomicBool,
    pub(super) devices: Lock<Devices>,
    pub(super) pool: std::sync::Arc<Pool>,
    /// Records in the kernel's hands.
    outstanding: AtomicUsize,
    /// Threads that are about to queue a packet.
    posting: AtomicUsize,
    dispose: fn(Completion),
}

/// Frees an entry that nobody will take.
pub(super) fn dispose(queue: &Queue, entry: Entry) {
    let dispose = queue.driver().dispose;
    match entry {
        Entry::Post(post) => contain(|| dispose(post.into())),
        Entry::Packet(completion) => contain(|| dispose(*completion)),
        // A function's completion is not the port's to free: it is told, as it would have been.
        Entry::Call(call, context, completion) => contain(|| call(context, *completion)),
        Entry::Tick(_) => {}
        Entry::Ended(ended) => {
            let ended = finished(queue, ended, true);
            ended.into_iter().for_each(|(sink, completion)| free(queue, sink, completion));
        }
    }
}

/// Frees a completion of a port that is closed, unless somebody is to be told of it.
fn free(queue: &Queue, sink: Sink, completion: Completion) {
    match sink.send(completion) {
        None => {}
        Some(Delivery::Packet(completion)) => contain(|| (queue.driver().dispose)(completion)),
        Some(Delivery::Call(call, context, completion)) => contain(|| call(context, completion)),
    }
}

/// Queues an entry. A closed port frees it, as does one for which the kernel has no memory; that is said.
pub(super) fn post_entry(queue: &Queue, entry: Entry) {
    // Counted before the look: who drains a closed port waits until nobody is on the way.
    queue.driver().posting.fetch_add(1, Ordering::SeqCst);
    if queue.is_closed() {
        queue.driver().posting.fetch_sub(1, Ordering::SeqCst);
        return dispose(queue, entry);
    }
    let (bytes, key, token) = match entry {
        Entry::Post(post) => (0, key::POST, Box::into_raw(Box::new(post)).expose_provenance()),
        Entry::Packet(completion) => (0, key::PACKET, Box::into_raw(completion).expose_provenance()),
        Entry::Call(call, context, completion) => {
            (0, key::CALL, Box::into_raw(Box::new((call, context, completion))).expose_provenance())
        }
        Entry::Tick(serial) => (0, key::TICK, usize::try_from(serial).unwrap_or(0)),
        Entry::Ended(Ended(pointer, bytes)) => (bytes as u32, key::OPERATION, pointer.0.expose_provenance()),
    };
    let posted = queue.completions.post(bytes, key, token);
    queue.driver().posting.fetch_sub(1, Ordering::SeqCst);
    if !posted {
        log::error!("a packet is lost: {}", std::io::Error::last_os_error());
        let mut lost = OVERLAPPED_ENTRY::default();
        (lost.lpCompletionKey, lost.lpOverlapped, lost.dwNumberOfBytesTransferred) =
            (key, std::ptr::with_exposed_provenance_mut(token), bytes);
        dispose(queue, entry_of(&lost));
    }
}

/// What a packet is. Each packet is given here once: it owns what its address names.
#[allow(unsafe_code)]
pub(super) fn entry_of(packet: &OVERLAPPED_ENTRY) -> Entry {
    let token = packet.lpOverlapped.expose_provenance();
    // SAFETY: a key is used for addresses of one kind only: see `post_entry`. A packet is dequeued once, and what it
    // names was leaked for it.
    unsafe {
        match packet.lpCompletionKey {
            key::POST => Entry::Post(*Box::from_raw(std::ptr::with_exposed_provenance_mut::<Post>(token))),
            key::PACKET => Entry::Packet(Box::from_raw(std::ptr::with_exposed_provenance_mut(token))),
            key::CALL => {
                type Call = (fn(usize, Completion), usize, Box<Completion>);
                let (call, context, completion) = *Box::from_raw(std::ptr::with_exposed_provenance_mut::<Call>(token));
                Entry::Call(call, context, completion)
            }
            key::TICK => Entry::Tick(token as u64),
            _ => {
                let pointer = Pointer(packet.lpOverlapped.cast());
                Entry::Ended(Ended(pointer, packet.dwNumberOfBytesTransferred as usize))
            }
        }
    }
}

/// What starting an operation came to.
pub(super) enum Started {
    /// A packet will come.
    Pending,
    /// It is done with so many bytes, and no packet will come.
    Done(Box<Record>, usize),
    Failed(Box<Record>, i32),
}

/// What the end of a call means for its operation.
pub(super) enum Concluded {
    Ended(Box<Record>, i32, Payload),
    /// There is more to do.
    GoesOn(Box<Record>),
}

/// Gives an operation to the kernel. The lane is the one of its side, locked, and the device open.
#[allow(unsafe_code)]
fn start(
    queue: &Queue,
    device: &DeviceState,
    lane: &mut Guard<'_, super::device::Lane>,
    record: Box<Record>,
) -> Started {
    let serial = record.operation.serial;
    lane.alone = record.is_alone();
    let pointer = Box::into_raw(record);
    lane.issued.insert(serial, Pointer(pointer));
    queue.driver().outstanding.fetch_add(1, Ordering::AcqRel);
    // SAFETY: the record is ours until the call below gives it to the kernel. It stays where it is, and is freed by
    // whoever takes its packet, or below if there will be none. Nobody else finds it meanwhile but by the lane, which
    // is locked.
    let called = unsafe {
        (*pointer).overlapped = OVERLAPPED::default();
        call(device, pointer)
    };
    let skips = device.skip_on_success.load(Ordering::Acquire);
    // SAFETY: it is listed, and its packet was not queued yet.
    let is_end = unsafe { (*pointer).operation.kind == Kind::Disconnected };
    if is_end && !skips && matches!(called, Called::Now(_)) {
        // A plain call, whose packet is ours to queue.
        queue.completions.post(0, key::OPERATION, pointer.expose_provenance());
    }
    match called {
        Called::Pending => {
            if lane.over {
                // SAFETY: as above.
                sys::cancel(device.handle(), Some(unsafe { &raw mut (*pointer).overlapped }));
            }
            Started::Pending
        }
        Called::Now(_) if !skips => Started::Pending,
        Called::Now(_) | Called::Failed(_) => {
            lane.issued.remove(&serial);
            lane.alone = false;
            queue.driver().outstanding.fetch_sub(1, Ordering::AcqRel);
            // SAFETY: no packet will come, so nobody else has it.
            let record = unsafe { Box::from_raw(pointer) };
            match called {
                Called::Now(bytes) => Started::Done(record, bytes),
                Called::Failed(error) => Started::Failed(record, error),
                Called::Pending => unreachable!("looked at above"),
            }
        }
    }
}

/// The one call of an operation's next step.
///
/// # Safety
///
/// The record stays valid until its packet, and with it the memory that the operation names.
#[allow(unsafe_code)]
unsafe fn call(device: &DeviceState, pointer: *mut Record) -> Called {
    // SAFETY: by the contract; the overlapped structure's address is taken without a reference to it.
    unsafe {
        let overlapped = &raw mut (*pointer).overlapped;
        let record = &mut *pointer;
        match record.operation.kind {
            Kind::Accepted => super::streams::accept(device, record, overlapped),
            Kind::Connected => super::streams::connect(device, record, overlapped),
            Kind::Received | Kind::Readable => super::streams::receive(device, record, overlapped),
            Kind::Sent => super::streams::send(device, record, overlapped),
            Kind::Disconnected => sys::shut_sending(device.handle()),
            Kind::SentFile => super::transmit::step(device, record, overlapped),
            Kind::ReceivedFrom => super::datagrams::receive(device, record, overlapped),
            Kind::SentTo => super::datagrams::send(device, record, overlapped),
            Kind::Read | Kind::Written => super::files::transfer(device, record, overlapped),
            Kind::Synced => super::files::sync(device, record),
            Kind::Exited => super::children::wait(device, record),
            Kind::Posted | Kind::Elapsed | Kind::Signal => Called::Failed(EINVAL),
        }
    }
}

/// What the end of a call means.
fn conclude(
    queue: &Queue,
    device: &Arc<DeviceState>,
    closed: bool,
    record: Box<Record>,
    bytes: usize,
    error: i32,
) -> Concluded {
    let ends = closed || record.cancelled;
    // A closed handle ends its operations in several ways; they all mean this (row K-12).
    let error = if closed && error != 0 { ECANCELED } else { error };
    // Nobody has asked for it: the connection has ended, and this operation with it (see `end_with_connection`).
    let error = match super::streams::end_of(device, record.side()) {
        Some(end) if error == ECANCELED && !ends => end,
        _ => error,
    };
    match record.operation.kind {
        Kind::Accepted => super::streams::accepted(device, record, error, closed),
        Kind::Connected => super::streams::connected(queue, device, record, error, closed),
        Kind::Received => super::streams::received(queue, device, record, bytes, error, ends),
        Kind::Readable => {
            super::streams::note_broken_receive(device, error);
            Concluded::Ended(record, error, Payload::None)
        }
        Kind::Sent => super::streams::sent(device, record, bytes, error, ends),
        Kind::SentFile => super::transmit::ended(device, record, bytes, error, ends),
        Kind::ReceivedFrom => super::datagrams::received(record, bytes, error),
        Kind::SentTo => {
            let mut record = record;
            record.operation.done = if error == 0 { record.operation.total() } else { 0 };
            Concluded::Ended(record, error, Payload::None)
        }
        Kind::Read | Kind::Written => super::files::transferred(record, bytes, error, ends),
        Kind::Exited => super::children::ended(record, bytes),
        _ => Concluded::Ended(record, error, Payload::None),
    }
}

/// Gives the kernel what may go there now, of what waits.
fn advance(
    queue: &Queue,
    device: &Arc<DeviceState>,
    lane: &mut Guard<'_, super::device::Lane>,
    ended: &mut Vec<(Sink, Completion)>,
) {
    while let Some(next) = lane.waiting.front() {
        if !lane.may_go(next) {
            return;
        }
        let next = lane.waiting.pop_front().expect("looked at just above");
        match start(queue, device, lane, next) {
            Started::Pending => {}
            Started::Done(record, bytes) => go_on(queue, device, lane, record, bytes, 0, ended),
            Started::Failed(record, error) => ended.push(finish(device, record, error, Payload::None)),
        }
    }
}

/// A step of an operation is over: it ends, or takes the next one.
fn go_on(
    queue: &Queue,
    device: &Arc<DeviceState>,
    lane: &mut Guard<'_, super::device::Lane>,
    mut record: Box<Record>,
    mut bytes: usize,
    mut error: i32,
    ended: &mut Vec<(Sink, Completion)>,
) {
    loop {
        record = match conclude(queue, device, lane.closed, record, bytes, error) {
            Concluded::Ended(record, error, payload) => {
                end_with_connection(device, lane, record.side());
                ended.push(finish(device, record, error, payload));
                return;
            }
            Concluded::GoesOn(record) => record,
        };
        match start(queue, device, lane, record) {
            Started::Pending => return,
            Started::Done(again, moved) => (record, bytes, error) = (again, moved, 0),
            Started::Failed(again, why) => (record, bytes, error) = (again, 0, why),
        }
    }
}

/// When the connection has ended on a side, so does all that the kernel has of it, and each with that end: it is asked
/// for it. Windows does so by itself. Wine does not end a receive that was issued when the end was on its way to the
/// one before.
#[allow(unsafe_code)]
fn end_with_connection(device: &DeviceState, lane: &mut Guard<'_, super::device::Lane>, side: Side) {
    // What is closed was cancelled, and its handle may be closed, too.
    if lane.over || lane.closed || super::streams::end_of(device, side).is_none() {
        return;
    }
    lane.over = true;
    for &Pointer(pointer) in lane.issued.values() {
        // SAFETY: a record that is listed is alive; see `cancel_issued`.
        sys::cancel(device.handle(), Some(unsafe { &raw mut (*pointer).overlapped }));
    }
}

/// An operation's packet was taken. What has ended by it: the operation itself comes first, unless it goes on.
#[allow(unsafe_code)]
fn finished(queue: &Queue, Ended(pointer, bytes): Ended, closing: bool) -> Vec<(Sink, Completion)> {
    // SAFETY: its packet was dequeued, once, so it is ours.
    let record = unsafe { Box::from_raw(pointer.0) };
    queue.driver().outstanding.fetch_sub(1, Ordering::AcqRel);
    let device = record.device.clone();
    let status = record.overlapped.Internal as u32;
    let error = crate::error::of_status(status, device.is_socket());
    let mut ended = Vec::with_capacity(1);
    let mut lane = device.lane(record.side()).lock();
    lane.issued.remove(&record.operation.serial);
    if record.is_alone() {
        lane.alone = false;
    }
    lane.closed |= closing;
    go_on(queue, &device, &mut lane, record, bytes, error, &mut ended);
    advance(queue, &device, &mut lane, &mut ended);
    ended
}

pub(super) fn finish(
    device: &DeviceState,
    mut record: Box<Record>,
    error: i32,
    payload: Payload,
) -> (Sink, Completion) {
    let named_memory = record.operation.names_memory();
    let sink = record.operation.take_sink();
    let Operation { kind, token, done: bytes, .. } = record.operation;
    let (key, device) = (device.key(), device.number);
    (sink, Completion { key, token, bytes, error, kind, device, more: false, payload, named_memory })
}

/// A completion port of the raw layer. Clones name the same port. When the last one goes, the port is closed
/// ([`close`](Port::close)), and so are its devices.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) queue: Arc<Queue>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("engine", &self.engine_name()).field("stats", &self.stats()).finish()
    }
}

impl Port {
    pub(crate) fn new(config: Config) -> std::io::Result<Port> {
        let limit = match config.concurrency {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            limit => limit,
        };
        sys::start_winsock();
        let number = PortNumber::next()?;
        let queue = Queue::new(limit, |engine| {
            Ok(PortDriver {
                number,
                engine,
                timers: Lock::default(),
                signals: Signals::default(),
                sources: AtomicBool::new(false),
                devices: Lock::new(Devices::of(number)),
                pool: Pool::new(config.pool_buffer_bytes, config.pool_keep),
                outstanding: AtomicUsize::new(0),
                posting: AtomicUsize::new(0),
                dispose: config.dispose,
            })
        })?;
        Ok(Port { queue: Arc::new(queue) })
    }

    pub(super) fn driver(&self) -> &PortDriver {
        self.queue.driver()
    }

    /// What drives the port.
    pub(crate) fn engine_name(&self) -> &'static str {
        "iocp"
    }

    /// The kernel's port, to be waited on.
    pub(crate) fn notifier_handle(&self) -> Handle {
        self.queue.completions.number()
    }

    pub(crate) fn file_engine(&self) -> Option<&'static str> {
        None
    }

    // --- Devices ---

    /// The caller owns the handle, and gives it to the port. On failure it stays the caller's.
    pub(crate) fn take_over(&self, handle: Handle, kind: DeviceKind, key: usize) -> Result<Arc<DeviceState>, i32> {
        let phase = match kind {
            DeviceKind::Listener => phase::LISTENING,
            DeviceKind::Stream | DeviceKind::Datagram | DeviceKind::Handle | DeviceKind::File => phase::CONNECTED,
        };
        let traits = match kind {
            DeviceKind::File => super::files::traits_of(handle)?,
            _ => 0,
        };
        if kind == DeviceKind::Datagram {
            // Off at first (row U-09); a system that cannot be asked does not report them either.
            let _ = sys::report_refusals(handle, false);
        }
        self.add(handle, kind, key, phase, traits)
    }

    fn add(
        &self,
        handle: Handle,
        kind: DeviceKind,
        key: usize,
        phase: u8,
        traits: u8,
    ) -> Result<Arc<DeviceState>, i32> {
        self.check()?;
        // A process is no file: it is waited for otherwise.
        if traits & traits::CHILD == 0 || kind != DeviceKind::Handle {
            self.queue.completions.associate(handle, key::OPERATION)?;
        }
        Ok(self.driver().devices.lock().add(handle, kind, key, phase, traits))
    }

    /// Takes a process's handle, to be waited for.
    pub(crate) fn adopt_process(&self, handle: Handle) -> Result<Arc<DeviceState>, i32> {
        self.add(handle, DeviceKind::Handle, 0, phase::CONNECTED, traits::CHILD)
    }

    /// Ends the process behind a device.
    pub(crate) fn terminate(&self, device: &Arc<DeviceState>) -> std::io::Result<()> {
        self.with_handle(device, |process| sys::terminate(process).map_err(std::io::Error::from_raw_os_error))
    }

    pub(crate) fn open_stream(&self, peer: &SocketAddr, key: usize) -> Result<Arc<DeviceState>, i32> {
        let handle = sys::open_socket(sys::family_of(peer))?;
        self.add(handle, DeviceKind::Stream, key, phase::FRESH, traits::OURS).inspect_err(|_| sys::close_socket(handle))
    }

    pub(crate) fn take_over_unconnected(&self, handle: Handle, key: usize) -> Result<Arc<DeviceState>, i32> {
        self.add(handle, DeviceKind::Stream, key, phase::FRESH, 0)
    }

    /// There are no forked children here.
    #[inline]
    pub(crate) fn is_home(&self) -> bool {
        true
    }

    /// The device, if it is this port's. At the head of every call that is given a device.
    #[inline]
    pub(super) fn own<'a>(&self, device: &'a Arc<DeviceState>) -> Result<&'a Arc<DeviceState>, i32> {
        if device.port == self.driver().number { Ok(device) } else { Err(EINVAL) }
    }

    /// Names a timer or a signal.
    pub(super) fn repeating_id(&self, serial: u64) -> OperationId {
        OperationId { port: self.driver().number, device: 0, serial }
    }

    pub(super) fn check(&self) -> Result<(), i32> {
        if self.queue.is_closed() { Err(EBADF) } else { Ok(()) }
    }

    pub(crate) fn close_device(&self, device: &Arc<DeviceState>) -> bool {
        let Ok(device) = self.own(device) else { return false };
        self.abandon(device);
        if self.driver().devices.lock().remove(device.number) {
            device.leave();
        }
        true
    }

    /// Closes both lanes: what waits ends, and what the kernel has is cancelled.
    fn abandon(&self, device: &Arc<DeviceState>) {
        for side in [Side::Receive, Side::Send] {
            let (_, waiting) = cancel_lane(device, side, Which::AllAndClose);
            self.end_waiting(device, waiting);
        }
    }

    /// Takes the descriptor out of the port: a number that is the caller's to close.
    pub(crate) fn give_up(&self, device: &Arc<DeviceState>) -> Result<Handle, i32> {
        let device = self.own(device)?;
        {
            let mut receive = device.receive.lock();
            let mut send = device.send.lock();
            if receive.closed {
                return Err(EBADF);
            }
            if receive.pending() > 0 || send.pending() > 0 || device.is(phase::CONNECTING) {
                return Err(EBUSY);
            }
            receive.closed = true;
            send.closed = true;
        }
        if !self.driver().devices.lock().remove(device.number) {
            return Err(EBADF);
        }
        device.give_away();
        device.leave();
        // Where the system can, the association ends (row P-16).
        sys::dissociate(device.handle());
        Ok(device.handle())
    }

    /// Calls `call` with the device's handle, which stays open meanwhile.
    pub(crate) fn with_handle<R>(
        &self,
        device: &Arc<DeviceState>,
        call: impl FnOnce(Handle) -> std::io::Result<R>,
    ) -> std::io::Result<R> {
        let device = self.own(device).map_err(std::io::Error::from_raw_os_error)?;
        if !device.enter() {
            return Err(std::io::Error::new(std::io::ErrorKind::NotConnected, "the device is closed"));
        }
        let result = call(device.handle());
        device.leave();
        result
    }

    pub(crate) fn devices(&self) -> Vec<DeviceInfo> {
        let devices: Vec<Arc<DeviceState>> = self.driver().devices.lock().iter().cloned().collect();
        devices
            .iter()
            .map(|device| DeviceInfo {
                number: device.number,
                kind: device.kind,
                handle: device.handle(),
                pending: (device.receive.lock().pending(), device.send.lock().pending()),
            })
            .collect()
    }

    pub(crate) fn device_count(&self) -> usize {
        self.driver().devices.lock().len()
    }

    pub(crate) fn shutdown(&self, device: &Arc<DeviceState>, how: Shutdown) -> Result<(), i32> {
        self.own(device)?;
        self.check()?;
        if device.receive.lock().closed {
            return Err(EBADF);
        }
        if !device.is(phase::CONNECTED) {
            return Err(ENOTCONN);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            device.shut.fetch_or(shut::RECEIVE, Ordering::AcqRel);
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            // An operation like a disconnect, that nobody hears of.
            match self.disconnect(device, 0, Sink::Callback(|_, _| {}, 0)) {
                Ok(_) | Err(ESHUTDOWN) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    // --- Issuing ---

    /// Issues an operation: gives it to the kernel, or has it wait for its turn.
    pub(super) fn issue(
        &self,
        device: &Arc<DeviceState>,
        side: Side,
        operation: Operation,
        extra: Extra,
    ) -> Result<Issued, i32> {
        self.check()?;
        let mut record = Record::new(device, operation, extra);
        let mut lane = device.lane(side).lock();
        if lane.closed {
            return Err(EBADF);
        }
        // Under the lock: what is issued after the end of sending does not come behind it.
        if side == Side::Send && device.shut.load(Ordering::Acquire) & shut::SEND != 0 {
            return Err(ESHUTDOWN);
        }
        if record.operation.kind == Kind::Disconnected {
            device.shut.fetch_or(shut::SEND, Ordering::AcqRel);
        }
        let serial = lane.next_serial(side);
        record.operation.serial = serial;
        let id = OperationId { port: device.port, device: device.number, serial };
        if !lane.waiting.is_empty() || !lane.may_go(&record) {
            lane.waiting.push_back(record);
            return Ok(Issued::Pending(id));
        }
        match start(&self.queue, device, &mut lane, record) {
            Started::Pending => Ok(Issued::Pending(id)),
            // A connect that cannot be tried.
            Started::Failed(record, error)
                if record.operation.kind == Kind::Connected && !super::streams::is_end_of_connect(error) =>
            {
                Err(error)
            }
            // An end like others, however soon it is known: it comes as a packet, as on other systems.
            Started::Failed(record, error) => {
                let mut ended = Vec::new();
                go_on(&self.queue, device, &mut lane, record, 0, error, &mut ended);
                drop(lane);
                ended.into_iter().for_each(|(sink, completion)| self.deliver(sink, completion));
                Ok(Issued::Pending(id))
            }
            Started::Done(record, bytes) => {
                let mut ended = Vec::new();
                go_on(&self.queue, device, &mut lane, record, bytes, 0, &mut ended);
                drop(lane);
                let Some((sink, completion)) = ended.pop() else { return Ok(Issued::Pending(id)) };
                if completion.error == 0 && matches!(sink, Sink::Port) {
                    return Ok(Issued::Done(completion));
                }
                self.deliver(sink, completion);
                Ok(Issued::Pending(id))
            }
        }
    }

    // --- Cancelling ---

    pub(crate) fn cancel(&self, id: OperationId) -> Cancel {
        if id.port != self.driver().number {
            return Cancel::Foreign;
        }
        if id.device == 0 {
            return self.cancel_repeating(id.serial);
        }
        let device = self.driver().devices.lock().find(id.device).cloned();
        let Some(device) = device else { return Cancel::TooLate };
        let (issued, waiting) = cancel_lane(&device, Side::of(id.serial), Which::One(id.serial));
        let count = issued + self.end_waiting(&device, waiting);
        if count > 0 { Cancel::Requested } else { Cancel::TooLate }
    }

    /// [`cancel`](Port::cancel), if it is an operation of this device.
    pub(crate) fn cancel_of(&self, device: &Arc<DeviceState>, id: OperationId) -> Cancel {
        if (id.port, id.device) == (device.port, device.number) { self.cancel(id) } else { Cancel::Foreign }
    }

    pub(crate) fn cancel_all(&self, device: &Arc<DeviceState>) -> usize {
        let Ok(device) = self.own(device) else { return 0 };
        let cancel = |side| {
            let (issued, waiting) = cancel_lane(device, side, Which::All);
            issued + self.end_waiting(device, waiting)
        };
        cancel(Side::Receive) + cancel(Side::Send)
    }

    /// Delivers operations that the kernel never had as cancelled. Returns how many.
    fn end_waiting(&self, device: &DeviceState, waiting: VecDeque<Box<Record>>) -> usize {
        let count = waiting.len();
        for record in waiting {
            let (sink, completion) = finish(device, record, ECANCELED, Payload::None);
            self.deliver(sink, completion);
        }
        count
    }

    // --- Packets ---

    #[inline]
    pub(crate) fn post(&self, post: Post) -> Result<(), Post> {
        if self.queue.is_closed() {
            return Err(post);
        }
        post_entry(&self.queue, Entry::Post(post));
        Ok(())
    }

    pub(crate) fn try_post(&self, post: Post, limit: usize) -> Result<(), (Post, bool)> {
        if !self.queue.is_closed() && self.queue.stats().queued >= limit {
            return Err((post, false));
        }
        self.post(post).map_err(|post| (post, true))
    }

    /// The common case elsewhere: the calling worker comes back, and something is there for it. Here only the kernel
    /// knows.
    #[inline]
    pub(crate) fn take_again(&self) -> Option<Entry> {
        None
    }

    #[inline]
    pub(crate) fn take_again_as(&self, _me: crate::threads::WorkerId) -> Option<Entry> {
        None
    }

    pub(crate) fn get(&self, timeout: Option<Duration>) -> Result<Completion, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    pub(crate) fn get_until(&self, deadline: Deadline) -> Result<Completion, GetError> {
        loop {
            let Taken::Entry(entry) = self.queue.get(deadline)? else { unreachable!("there is no other work here") };
            if let Some(completion) = self.execute(entry) {
                return Ok(completion);
            }
        }
    }

    /// Waits for a packet, and takes up to `most` entries that are there then; of none is refused (row D-46).
    pub(crate) fn get_many(&self, most: usize, deadline: Deadline) -> Result<(Completion, Held<Entry>), GetError> {
        loop {
            if most == 0 {
                return Err(GetError::NoRoom);
            }
            let (taken, held) = self.queue.get_many(deadline, most)?;
            let Taken::Entry(entry) = taken else { unreachable!("there is no other work here") };
            if let Some(first) = self.execute(entry).or_else(|| self.next_of(&held)) {
                return Ok((first, held));
            }
        }
    }

    /// The next packet of a batch.
    pub(crate) fn next_of(&self, held: &Held<Entry>) -> Option<Completion> {
        while let Some(entry) = held.next() {
            if let Some(completion) = self.execute(entry) {
                return Some(completion);
            }
        }
        None
    }

    pub(crate) fn close(&self) {
        if !self.queue.close() {
            return;
        }
        self.end_repeating();
        let devices: Vec<Arc<DeviceState>> = self.driver().devices.lock().iter().cloned().collect();
        for device in devices {
            self.abandon(&device);
        }
        let deadline = Instant::now() + CLOSING;
        if !drain(&self.queue, deadline) {
            let port = self.clone();
            let stays = std::thread::Builder::new().name("wharf-closing".into());
            let started = stays.spawn(move || while !drain(&port.queue, Instant::now() + CLOSING) {});
            if let Err(error) = started {
                log::error!("what is outstanding of a closed port is not freed: {error}");
                // The kernel may still write to it.
                std::mem::forget(self.clone());
            }
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    pub(crate) fn stats(&self) -> QueueStats {
        self.queue.stats()
    }

    pub(crate) fn workers(&self) -> Vec<WorkerReport> {
        self.queue.workers()
    }

    /// What an entry comes to. `None`: nothing for the program, take the next one.
    pub(crate) fn execute(&self, entry: Entry) -> Option<Completion> {
        if self.queue.is_closed() {
            dispose(&self.queue, entry);
            return None;
        }
        match entry {
            Entry::Post(post) => Some(post.into()),
            Entry::Packet(completion) => Some(*completion),
            // Serial numbers of signals are odd.
            Entry::Tick(serial) if serial % 2 == 1 => self.signal_taken(serial),
            Entry::Tick(serial) => self.tick_taken(serial),
            Entry::Call(call, context, completion) => {
                call(context, *completion);
                None
            }
            Entry::Ended(ended) => {
                let mut ended = finished(&self.queue, ended, false).into_iter();
                let first = ended.next().and_then(|(sink, completion)| self.hand_out(sink, completion));
                ended.for_each(|(sink, completion)| self.deliver(sink, completion));
                first
            }
        }
    }

    pub(crate) fn do_work(&self, entry: Entry) {
        post_entry(&self.queue, entry);
    }

    // --- Completing ---

    pub(super) fn deliver(&self, sink: Sink, completion: Completion) {
        if let Some(delivery) = sink.send(completion) {
            post_entry(&self.queue, delivery.into());
        }
    }

    /// Like [`deliver`](Port::deliver), but a packet for the queue is returned, and a function called: the caller is
    /// inside `get`.
    pub(super) fn hand_out(&self, sink: Sink, completion: Completion) -> Option<Completion> {
        match sink.send(completion)? {
            Delivery::Packet(completion) => Some(completion),
            Delivery::Call(call, context, completion) => {
                call(context, completion);
                None
            }
        }
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

/// Which operations of a lane are cancelled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    One(u64),
    All,
    /// And nothing is issued there any more.
    AllAndClose,
}

/// Cancels operations of a lane. Returns how many the kernel was asked to end, and those that it did not have yet.
///
/// An operation that the kernel does not know any more, and whose end is not written down yet, is being ended at this
/// very moment. It is looked at again until that is over, and only then may the handle be closed: the number of a
/// closed handle is soon another's. For Windows that is the time between two instructions. Wine lets the thread that
/// issued an operation move its bytes, by the handle's number, and has the operation wait on if there were none: after
/// a close it tried another socket's, and the operation never ended; without one, the cancel was forgotten.
fn cancel_lane(device: &DeviceState, side: Side, which: Which) -> (usize, VecDeque<Box<Record>>) {
    let mut count = 0;
    let mut waiting = VecDeque::new();
    let mut settling: Option<(Vec<u64>, Instant)> = None;
    // A handle that is closed already is another's, perhaps; whoever closed it has asked.
    let open = device.enter();
    loop {
        let mut lane = device.lane(side).lock();
        let serials: Vec<u64> = match &settling {
            // Serial numbers are used once: what was not there at the first look is somebody else's.
            Some((serials, _)) => serials.clone(),
            None => {
                lane.closed |= which == Which::AllAndClose;
                waiting = match which {
                    Which::One(serial) => {
                        let at = lane.waiting.iter().position(|record| record.operation.serial == serial);
                        at.and_then(|at| lane.waiting.remove(at)).into_iter().collect()
                    }
                    Which::All | Which::AllAndClose => std::mem::take(&mut lane.waiting),
                };
                match which {
                    Which::One(serial) => vec![serial],
                    Which::All | Which::AllAndClose => lane.issued.keys().copied().collect(),
                }
            }
        };
        let (asked, ending) = if open { cancel_issued(device, &mut lane, &serials) } else { (0, Vec::new()) };
        drop(lane);
        count += asked;
        let until = settling.map_or_else(|| Instant::now() + SETTLING, |(_, until)| until);
        if ending.is_empty() || Instant::now() >= until {
            if open {
                device.leave();
            }
            return (count, waiting);
        }
        settling = Some((ending, until));
        std::thread::yield_now();
    }
}

/// Marks operations that the kernel has, and asks it to end them. Returns how many it will end, and those of the others
/// whose end is not written down yet. The device is open.
#[allow(unsafe_code)]
fn cancel_issued(device: &DeviceState, lane: &mut super::device::Lane, serials: &[u64]) -> (usize, Vec<u64>) {
    let (mut count, mut ending) = (0, Vec::new());
    for &serial in serials {
        let Some(&Pointer(pointer)) = lane.issued.get(&serial) else { continue };
        // SAFETY: a record that is listed is alive: its packet's taker has to have the lane's lock to take it out. The
        // fields are touched under that lock only, and not by the kernel, but for the status, which is read as what may
        // change.
        unsafe {
            let asked = if device.has(traits::CHILD) && device.kind == DeviceKind::Handle {
                super::children::cancel(pointer)
            } else {
                sys::cancel(device.handle(), Some(&raw mut (*pointer).overlapped))
            };
            if !asked && sys::is_pending(&raw const (*pointer).overlapped) {
                ending.push(serial);
            }
            // One whose packet is queued has ended (row K-05), unless it was to go on.
            let ends = asked || (*pointer).goes_on();
            count += usize::from(ends && !(*pointer).cancelled);
            (&raw mut (*pointer).cancelled).write((*pointer).cancelled || ends);
        }
    }
    (count, ending)
}

/// Takes the packets of a closed port, and frees them. True when nothing is left.
fn drain(queue: &Queue, deadline: Instant) -> bool {
    let mut into = [OVERLAPPED_ENTRY::default(); 64];
    loop {
        // In this order: whoever takes a packet may post another one.
        let left = queue.driver().outstanding.load(Ordering::SeqCst) + queue.driver().posting.load(Ordering::SeqCst);
        let wait = if left == 0 { 0 } else { 10 };
        match queue.completions.get(&mut into, Some(wait)) {
            Ok(count) => {
                for packet in &into[..count] {
                    if packet.lpCompletionKey != key::NOTHING {
                        dispose(queue, entry_of(packet));
                    }
                }
            }
            Err(_) if left == 0 && queue.completions.depth() == 0 => return true,
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // What it holds is freed, and nothing that the kernel may still write to.
        let devices: Vec<Arc<DeviceState>> = self.driver().devices.lock().iter().cloned().collect();
        if self.is_closed() {
            while !drain(self, Instant::now() + CLOSING) {}
            devices.iter().for_each(|device| device.leave());
            return;
        }
        // A raw port that nobody has closed.
        self.close();
        for device in &devices {
            for side in [Side::Receive, Side::Send] {
                let (_, waiting) = cancel_lane(device, side, Which::AllAndClose);
                for record in waiting {
                    let (sink, completion) = finish(device, record, ECANCELED, Payload::None);
                    free(self, sink, completion);
                }
            }
        }
        while !drain(self, Instant::now() + CLOSING) {
            log::warn!("a port waits for operations that a driver does not give up");
        }
        devices.iter().for_each(|device| device.leave());
    }
}
