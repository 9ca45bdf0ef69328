//! Operations executed by calls: the system tells when a call would not block, and this crate makes it.
//!
//! `device.rs` and `direction.rs` say what a device is; then one file for each kind of operation; `engine/` is what is asked of
//! a system. [`raw`](crate::raw) is the face of it.

mod datagram;
pub(crate) mod device;
pub(crate) mod direction;
pub(crate) mod engine;
mod file;
#[cfg(all(test, unix))]
mod forked;
mod now;
mod parts;
mod progress;
mod receive;
mod send;
mod signal;
mod timer;

pub(crate) use crate::op::{Config, DeviceInfo, DeviceKind, FileEngine, Incoming, Issued, Outgoing, Post};
pub(crate) use file::traits_of as file_traits;
pub(crate) use now::Now;

pub(crate) use crate::op::{
    Accepted, Buffers, Cancel, Completion, Datagram, Handle, Kind, OperationId, Payload, RawBuffer, Sink,
};

use crate::contain::contain;
use crate::op::Delivery;
use crate::op::buffer::Pool;
use crate::op::{Operation, PortNumber};
use crate::queue::Found;
use crate::queue::{self, Driver, Queue};
use crate::reactor::device::{Devices, phase, shut, traits};
use crate::reactor::direction::{Direction, Left, Side};
use crate::reactor::engine::files::Pump;
use crate::reactor::engine::{Engine, Events, PIECES_MAX, Readiness};
use crate::sync::{Arc, Lock};
use crate::sys::errno;
use crate::threads::{Deadline, GetError, QueueStats, Taken, WorkerReport};
pub(crate) use device::DeviceState;
use std::hint::black_box;
use std::net::{Shutdown, SocketAddr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) use errno::{
    EADDRNOTAVAIL, EAGAIN, EBADF, ECANCELED, ECONNABORTED, ECONNRESET, EINPROGRESS, EINVAL, EISCONN, EMSGSIZE,
    ENOTCONN, EPIPE, ESHUTDOWN, ETIMEDOUT,
};

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
    /// A periodic timer whose time has come.
    Tick(u64),
}

pub(crate) struct PortDriver {
    home: crate::sys::fork::Home,
    /// No other port of the process has it, or had it.
    number: PortNumber,
    engine: Arc<dyn Engine>,
    events: Lock<Events>,
    devices: Lock<Devices>,
    timers: Lock<crate::op::Timers>,
    signals: signal::Signals,
    /// A device or a timer has been there: events may come.
    sources: AtomicBool,
    /// Listeners that found no free descriptor.
    starved: Lock<Vec<Arc<DeviceState>>>,
    /// That was said, and no connection was taken since.
    starving: AtomicBool,
    /// When it was last said: where descriptors come and go at the limit, it would be said with each of them.
    starving_said: Lock<Option<std::time::Instant>>,
    pool: std::sync::Arc<Pool>,
    /// Where file operations wait, from the first on that has to.
    pump: OnceLock<std::io::Result<Pump<file::Errand>>>,
    files: FileEngine,
    dispose: fn(Completion),
}

impl Drop for PortDriver {
    fn drop(&mut self) {
        let devices: Vec<Arc<DeviceState>> = self.devices.get_mut().iter().cloned().collect();
        if self.home.is_here() {
            self.end(&devices);
            return;
        }
        // No lock is taken in a child: it may be held for good.
        for device in devices {
            device.close_copy(&*self.engine);
        }
        // The thread that it would end, and what wakes that, are the parent's.
        std::mem::forget(self.pump.take());
    }
}

impl PortDriver {
    /// Nobody has the port any more, so nobody works on a device: what nobody has closed ends.
    fn end(&self, devices: &[Arc<DeviceState>]) {
        let mut ended: Vec<(Sink, Completion)> = Vec::new();
        for device in devices {
            for side in [Side::Receive, Side::Send] {
                let pending = {
                    let mut direction = device.direction(side).lock();
                    direction.closed = true;
                    direction.operations.take()
                };
                let pending = pending.into_iter();
                ended.extend(pending.map(|operation| finish(device, operation, ECANCELED, Payload::None)));
            }
            device.deregister(&*self.engine);
            device.leave(&*self.engine);
        }
        ended.extend(self.timers.lock().close(self));
        ended.extend(self.signals.close());
        for (sink, completion) in ended {
            if let Some(entry) = entry(sink, completion) {
                self.dispose(entry);
            }
        }
    }
}

impl PortDriver {
    fn pump(&self) -> Result<&Pump<file::Errand>, &std::io::Error> {
        let mut is_new = false;
        let pump = self.pump.get_or_init(|| {
            is_new = true;
            Pump::start(self.files)
        });
        if let (true, Ok(pump)) = (is_new, pump) {
            log::info!("files: {}", pump.why);
        }
        pump.as_ref()
    }

    /// An engine reported readiness: remember what stays, and queue the directions that wait for it.
    fn ready(&self, device: &Arc<DeviceState>, readiness: Readiness, found: &mut Found<Entry>) {
        let sticky = readiness.0 & Readiness::STICKY;
        if sticky != 0 {
            device.sticky.fetch_or(sticky, Ordering::AcqRel);
        }
        if readiness.has(Readiness::RECEIVE) && device.receive.lock().ready() {
            let entry = Entry::Ready(device.clone(), Side::Receive);
            // A receive is executed by the worker that dequeues it, into a buffer it will look at at once. Accepting
            // is the engine's own progress and needs no slot.
            match device.kind {
                DeviceKind::Listener => found.engine_work.push(entry),
                _ => found.entries.push(entry),
            }
        }
        // An engine reports space with every event; only who found none, or is sending just now, wants to know.
        let wanted = device.wants_space.load(Ordering::SeqCst);
        if wanted && readiness.has(Readiness::SEND) && device.send.lock().ready() {
            found.engine_work.push(Entry::Ready(device.clone(), Side::Send));
        }
    }

    fn resume_starved(&self, mut queue: impl FnMut(Entry)) {
        let starved = std::mem::take(&mut *self.starved.lock());
        for device in starved {
            if device.receive.lock().ready() {
                queue(Entry::Ready(device, Side::Receive));
            }
        }
    }
}

impl Driver<Entry> for PortDriver {
    fn poll(&self, wait: Option<Duration>, found: &mut Found<Entry>) {
        let mut events = self.events.lock();
        self.engine.poll(wait, &mut events);
        found.ticked |= std::mem::take(&mut events.ticked);
        if std::mem::take(&mut events.deadline_passed) {
            self.timers_due(found);
        }
        self.signals.collect(&mut found.entries);
        if !events.ready.is_empty() {
            let devices = self.devices.lock();
            for (number, readiness) in events.ready.drain(..) {
                if let Some(device) = devices.find(number) {
                    self.ready(device, readiness, found);
                }
            }
        }
    }

    fn has_sources(&self) -> bool {
        self.sources.load(Ordering::Relaxed) || self.signals.is_pending()
    }

    fn kick(&self) {
        self.engine.kick();
    }

    fn is_here(&self) -> bool {
        self.home.is_here()
    }

    fn dispose(&self, entry: Entry) {
        match entry {
            Entry::Post(post) => contain(|| (self.dispose)(post.into())),
            Entry::Packet(completion) => contain(|| (self.dispose)(*completion)),
            // A function's completion is not the port's to free: it is told, as it would have been.
            Entry::Call(call, context, completion) => contain(|| call(context, *completion)),
            Entry::Ready(..) | Entry::Tick(_) => {}
        }
    }
}

/// A completion port of the raw layer. Clones name the same port. When the last one goes, the port is closed
/// ([`close`](Port::close)), and so are its devices.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) queue: Arc<Queue<Entry, PortDriver>>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("engine", &self.engine().name()).field("stats", &self.stats()).finish()
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
        make: impl FnOnce(rustix::fd::BorrowedFd<'_>) -> std::io::Result<Arc<dyn Engine>>,
    ) -> std::io::Result<Port> {
        let limit = match config.concurrency {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            limit => limit,
        };
        let number = PortNumber::next()?;
        let queue = Queue::new(limit, config.wake, |watchdog| {
            Ok(PortDriver {
                home: crate::sys::fork::Home::here(),
                number,
                engine: make(watchdog.as_fd())?,
                events: Lock::new(Events::default()),
                devices: Lock::new(Devices::of(number)),
                timers: Lock::new(crate::op::Timers::default()),
                signals: signal::Signals::default(),
                sources: AtomicBool::new(false),
                starved: Lock::new(Vec::new()),
                starving: AtomicBool::new(false),
                starving_said: Lock::new(None),
                pool: Pool::new(config.pool_buffer_bytes, config.pool_keep),
                pump: OnceLock::new(),
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
        self.engine().name()
    }

    pub(crate) fn engine(&self) -> &dyn Engine {
        &*self.driver().engine
    }

    #[cfg(test)]
    pub(crate) fn pool(&self) -> &std::sync::Arc<Pool> {
        &self.driver().pool
    }

    /// The next devices come into slots that have had so many before.
    #[cfg(test)]
    pub(crate) fn wear_slots(&self, slots: usize, generation: u32) {
        self.driver().devices.lock().wear(slots, generation);
    }

    // --- Devices ---

    /// The caller owns the handle, and gives it to the port. On failure it stays the caller's.
    pub(crate) fn take_over(&self, handle: Handle, kind: DeviceKind, key: usize) -> Result<Arc<DeviceState>, i32> {
        let phase = match kind {
            DeviceKind::Listener => phase::LISTENING,
            DeviceKind::Stream | DeviceKind::Datagram | DeviceKind::Handle | DeviceKind::File => phase::CONNECTED,
        };
        self.check()?;
        let traits = match kind {
            DeviceKind::File => file::traits_of(handle).map_err(|error| error.raw_os_error().unwrap_or(EINVAL))?,
            _ => 0,
        };
        let device = self.driver().devices.lock().add(handle, kind, key, phase);
        device.traits.store(traits, Ordering::Relaxed);
        if kind == DeviceKind::Datagram && self.engine().has_peer(handle) {
            device.traits.fetch_or(traits::PEER, Ordering::Relaxed);
        }
        if kind == DeviceKind::Datagram && !self.engine().is_bound(handle) {
            device.traits.fetch_or(traits::UNBOUND, Ordering::Relaxed);
        }
        if kind == DeviceKind::File {
            // An engine of readiness has nothing to say of it.
            return Ok(device);
        }
        if let Err(error) = self.register(&device) {
            self.driver().devices.lock().remove(device.number);
            return Err(error);
        }
        Ok(device)
    }

    pub(crate) fn open_stream(&self, peer: &SocketAddr, key: usize) -> Result<Arc<DeviceState>, i32> {
        self.check()?;
        let handle = self.engine().open_stream(peer)?;
        Ok(self.driver().devices.lock().add(handle, DeviceKind::Stream, key, phase::FRESH))
    }

    pub(crate) fn take_over_unconnected(&self, handle: Handle, key: usize) -> Result<Arc<DeviceState>, i32> {
        self.check()?;
        Ok(self.driver().devices.lock().add(handle, DeviceKind::Stream, key, phase::FRESH))
    }

    fn register(&self, device: &DeviceState) -> Result<(), i32> {
        // Nobody else registers it at the same time: it is being adopted, or connected by this call. The mark is set
        // afterwards, so that whoever closes the handle, be it meanwhile, deregisters it (`Device::leave`).
        if !device.registered.load(Ordering::Acquire) {
            self.driver().sources.store(true, Ordering::Relaxed);
            self.engine().register(device.handle, device.number)?;
            device.registered.store(true, Ordering::Release);
        }
        Ok(())
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

    pub(crate) fn close_device(&self, device: &Arc<DeviceState>) -> bool {
        let device = match self.own(device) {
            Ok(device) => device,
            Err(EBADF) => {
                device.close_copy(self.engine());
                return true;
            }
            Err(_) => return false,
        };
        self.abandon(device);
        let open = self.driver().devices.lock().remove(device.number);
        if open {
            device.deregister(self.engine());
            device.lend_to_owners();
            self.leave(device);
        }
        true
    }

    /// Ends a use of a device's handle.
    fn leave(&self, device: &DeviceState) {
        if device.leave(self.engine()) {
            self.resume_accepting();
        }
    }

    /// What is left after a turn.
    #[inline]
    fn turn_over(&self, device: &Arc<DeviceState>, side: Side, left: Left) {
        if left.handle || left.goes_on {
            self.follow_up(device, side, left);
        }
    }

    fn follow_up(&self, device: &Arc<DeviceState>, side: Side, left: Left) {
        if left.handle {
            self.leave(device);
        }
        if left.goes_on {
            let entry = Entry::Ready(device.clone(), side);
            match (side, device.kind) {
                // A receive is the business of a worker that has a slot.
                (Side::Receive, kind) if kind != DeviceKind::Listener => self.insert(entry),
                _ => self.insert_work(entry),
            }
        }
    }

    /// Takes the descriptor out of the port: a number that is the caller's to close.
    pub(crate) fn give_up(&self, device: &Arc<DeviceState>) -> Result<Handle, i32> {
        use errno::EBUSY;
        let device = self.own(device)?;
        {
            let mut receive = device.receive.lock();
            let mut send = device.send.lock();
            // Who owns a side on which nothing is outstanding has delivered the last packet, and calls the system no more.
            let busy = |side: &Direction| side.pending() > 0;
            if receive.closed {
                return Err(EBADF);
            }
            // While connecting: the operation may have been cancelled, and the attempt is just being given up.
            if busy(&receive) || busy(&send) || device.is(phase::CONNECTING) {
                return Err(EBUSY);
            }
            receive.closed = true;
            send.closed = true;
        }
        if !self.driver().devices.lock().remove(device.number) {
            return Err(EBADF);
        }
        device.deregister(self.engine());
        device.give_away();
        // A plain call of another thread (an address, an option) may be under way on the handle, which its next owner may
        // close. Such calls do not wait.
        while !device.leave_alone() {
            std::thread::yield_now();
        }
        Ok(device.handle)
    }

    /// Marks both directions closed and completes what they hold.
    fn abandon(&self, device: &Arc<DeviceState>) {
        for side in [Side::Receive, Side::Send] {
            let (pending, files) = {
                let mut direction = device.direction(side).lock();
                direction.closed = true;
                (direction.operations.take(), files_under_way(device, &direction))
            };
            self.cancel_files(device, &files);
            for operation in pending {
                self.complete(device, operation, ECANCELED);
            }
        }
    }

    /// Calls `call` with the device's descriptor, which stays open meanwhile.
    pub(crate) fn with_handle<R>(
        &self,
        device: &Arc<DeviceState>,
        call: impl FnOnce(i32) -> std::io::Result<R>,
    ) -> std::io::Result<R> {
        let device = match self.own(device) {
            Ok(device) => device,
            Err(EBADF) => return Err(crate::error::forked()),
            Err(error) => return Err(std::io::Error::from_raw_os_error(error)),
        };
        if !device.enter() {
            return Err(std::io::Error::new(std::io::ErrorKind::NotConnected, "the device is closed"));
        }
        let result = call(device.handle);
        self.leave(device);
        result
    }

    pub(crate) fn devices(&self) -> Vec<DeviceInfo> {
        if !self.is_home() {
            return Vec::new();
        }
        let devices: Vec<Arc<DeviceState>> = self.driver().devices.lock().iter().cloned().collect();
        devices
            .iter()
            .map(|device| DeviceInfo {
                number: device.number,
                kind: device.kind,
                handle: device.handle,
                pending: (device.receive.lock().pending(), device.send.lock().pending()),
            })
            .collect()
    }

    pub(crate) fn device_count(&self) -> usize {
        if self.is_home() { self.driver().devices.lock().len() } else { 0 }
    }

    pub(crate) fn shutdown(&self, device: &Arc<DeviceState>, how: Shutdown) -> Result<(), i32> {
        let device = self.own(device)?;
        self.check()?;
        if device.receive.lock().closed {
            return Err(EBADF);
        }
        if !device.is(phase::CONNECTED) {
            return Err(ENOTCONN);
        }
        if device.kind == DeviceKind::Handle && how != Shutdown::Read {
            return Err(errno::ENOTSOCK);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            device.shut.fetch_or(shut::RECEIVE, Ordering::AcqRel);
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.shut_sending(device)?;
        }
        Ok(())
    }

    // --- Cancelling ---

    pub(crate) fn cancel(&self, id: OperationId) -> Cancel {
        if id.port != self.driver().number {
            return Cancel::Foreign;
        }
        if !self.is_home() {
            return Cancel::TooLate;
        }
        if id.device == 0 {
            return self.cancel_repeating(id.serial);
        }
        let device = self.driver().devices.lock().find(id.device).cloned();
        let Some(device) = device else { return Cancel::TooLate };
        let mut direction = device.direction(Side::of(id.serial)).lock();
        if direction.is_running(id.serial) {
            direction.cancel(id.serial);
            drop(direction);
            if device.kind == DeviceKind::File {
                self.cancel_files(&device, &[id.serial]);
            }
            return Cancel::Requested;
        }
        let Some(operation) = direction.operations.remove(id.serial) else { return Cancel::TooLate };
        let wanted = direction.wants_no_space();
        drop(direction);
        self.complete(&device, operation, ECANCELED);
        if wanted {
            self.insert_work(Entry::Ready(device, Side::Send));
        }
        Cancel::Requested
    }

    /// [`cancel`](Port::cancel), if it is an operation of this device.
    pub(crate) fn cancel_of(&self, device: &Arc<DeviceState>, id: OperationId) -> Cancel {
        if (id.port, id.device) == (device.port, device.number) { self.cancel(id) } else { Cancel::Foreign }
    }

    pub(crate) fn cancel_all(&self, device: &Arc<DeviceState>) -> usize {
        let Ok(device) = self.own(device) else { return 0 };
        let mut count = 0;
        for side in [Side::Receive, Side::Send] {
            let (pending, files, wanted) = {
                let mut direction = device.direction(side).lock();
                count += direction.cancel_running();
                let mut pending: Vec<Operation> = direction.operations.take().collect();
                // A shutdown, which is no operation of the program's, comes all the same. Nothing was issued behind it.
                if let Some(shutdown) = pending.pop_if(|last| last.is_shutdown()) {
                    direction.operations.push_back(shutdown);
                }
                (pending, files_under_way(device, &direction), direction.wants_no_space())
            };
            self.cancel_files(device, &files);
            for operation in pending {
                count += 1;
                self.complete(device, operation, ECANCELED);
            }
            if wanted {
                self.insert_work(Entry::Ready(device.clone(), Side::Send));
            }
        }
        count
    }

    // --- Packets ---

    #[inline]
    pub(crate) fn post(&self, post: Post) -> Result<(), Post> {
        // Loaded as words: two that the caller has just stored are else loaded as a pair, which the processor cannot
        // forward from two stores, and a post takes twice as long.
        let (key, token, bytes) = (black_box(post.key), black_box(post.token), black_box(post.bytes));
        let taken = self.is_home() && self.queue.insert_with(move || Entry::Post(Post { key, token, bytes }));
        if taken { Ok(()) } else { Err(Post { key, token, bytes }) }
    }

    pub(crate) fn try_post(&self, post: Post, limit: usize) -> Result<(), (Post, bool)> {
        if !self.is_home() {
            return Err((post, true));
        }
        self.queue.try_insert(Entry::Post(post), limit).map_err(|(_, closed)| (post, closed))
    }

    /// The common case: the calling worker comes back, and something is there for it.
    #[inline]
    pub(crate) fn take_again(&self) -> Option<Entry> {
        if self.is_home() { self.queue.take_again() } else { None }
    }

    /// [`take_again`](Port::take_again) by a worker that has just [bound](crate::threads::bind) itself, at home.
    #[inline]
    pub(crate) fn take_again_as(&self, me: crate::threads::WorkerId) -> Option<Entry> {
        self.queue.take_again_as(me)
    }

    pub(crate) fn get(&self, timeout: Option<Duration>) -> Result<Completion, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    pub(crate) fn get_until(&self, deadline: Deadline) -> Result<Completion, GetError> {
        loop {
            if !self.is_home() {
                return Err(GetError::Forked);
            }
            match self.queue.get(deadline)? {
                Taken::Entry(entry) => {
                    if let Some(completion) = self.execute(entry) {
                        return Ok(completion);
                    }
                }
                Taken::EngineWork(entry) => self.do_work(entry),
            }
        }
    }

    /// Waits for a packet, and takes up to `most` entries that are there then; of none is refused (row D-46).
    pub(crate) fn get_many(&self, most: usize, deadline: Deadline) -> Result<(Completion, Held<Entry>), GetError> {
        loop {
            if !self.is_home() {
                return Err(GetError::Forked);
            }
            if most == 0 {
                return Err(GetError::NoRoom);
            }
            let (taken, held) = self.queue.get_many(deadline, most)?;
            match taken {
                Taken::EngineWork(entry) => self.do_work(entry),
                Taken::Entry(entry) => {
                    let first = self.execute(entry).or_else(|| self.next_of(&held));
                    if let Some(first) = first {
                        return Ok((first, held));
                    }
                }
            }
        }
    }

    /// The next packet of a batch: operations are executed as the worker comes to them.
    pub(crate) fn next_of(&self, held: &Held<Entry>) -> Option<Completion> {
        while let Some(entry) = held.next() {
            if let Some(completion) = self.execute(entry) {
                return Some(completion);
            }
        }
        None
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
            Entry::Ready(device, Side::Receive) => self.accept_turn(&device),
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

    fn deliver(&self, sink: Sink, completion: Completion) {
        if let Some(entry) = entry(sink, completion) {
            self.insert(entry);
        }
    }

    /// Like [`deliver`](Port::deliver), but a packet for the queue is returned: the caller is inside `get` and hands
    /// it out at once.
    fn hand_out(&self, sink: Sink, completion: Completion) -> Option<Completion> {
        match sink.send(completion)? {
            Delivery::Packet(completion) => Some(completion),
            call => {
                self.insert(call.into());
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

/// A file's operations: they are in the pump's hands.
fn files_under_way(device: &DeviceState, direction: &Direction) -> Vec<u64> {
    if device.kind == DeviceKind::File { direction.under_way().collect() } else { Vec::new() }
}

#[inline]
fn finish(device: &DeviceState, mut operation: Operation, error: i32, payload: Payload) -> (Sink, Completion) {
    let named_memory = operation.names_memory();
    let sink = operation.take_sink();
    let Operation { kind, token, done: bytes, .. } = operation;
    let (key, device) = (device.key(), device.number);
    (sink, Completion { key, token, bytes, error, kind, device, more: false, payload, named_memory })
}

pub(crate) use queue::{Held, Park};
pub(crate) type Note = queue::Note<Entry>;
