//! Random schedules on a port over the [fake engine](crate::testing::fake), checked against a model.
//!
//! A schedule is some 30 to 80 steps drawn from one seed: operations are issued, cancelled and taken, devices come and
//! go, peers write, read, finish and reset, time passes. The fake's hook plays further steps in the middle of the
//! engine's calls, so that an operation completes before its issuing call has returned, a device is closed while a call
//! on it is under way, and so on. Everything happens on one thread, and a seed always gives the same schedule.
//!
//! Checked are: each accepted operation completes once and a refused one never; each byte that a peer wrote is received
//! once, in order, and nothing else is written into a buffer; what was sent is what the completions say, in the order
//! of issue; operations of one direction complete in that order; what can go on goes on; at the end nothing is left.
//! The numbers of devices differ, whatever slots are used again; work that has no end keeps nothing waiting
//! (`endless.rs`); and a destructor that panics keeps nothing from being freed.
//!
//! A failure prints its seed. To replay it, and to run many schedules:
//!
//! ```text
//! WHARF_SEED=123 cargo test -p wharf schedules
//! WHARF_SCHEDULES=1000000 cargo test --release -p wharf schedules
//! ```

mod arrived;
mod datagrams;
mod endless;
mod flow;
mod scenarios;
mod turns;

use crate::op::Name;
use crate::raw::{
    Accepted, Buffers, Cancel, Completion, CompletionEvent, Config, DeviceKind, EBADF, ECANCELED, FileEngine, GetError,
    Issued, Kind, OperationId, Payload, Post, Ran, RawBuffer, ReceiveFlags, Sink, Withdrawal, set_issuer,
};
use crate::reactor::DeviceState;
use crate::reactor::Port;
use crate::reactor::engine::{Calls, Engine, Handle, Selector};
use crate::sync::{Lock, stand_still};
use crate::sys::errno::{EAGAIN, ECONNRESET, ENOTCONN, ESHUTDOWN};
use crate::testing::fake::{Call, Fake, pattern};
use crate::threads::{Deadline, Wake};
use fastrand::Rng;
use std::cell::{Cell, RefCell};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::time::{Duration, Instant};
use wharf_testkit::seeds;

const EBUSY: i32 = 16;
/// What a post may say.
const POSTED_ERROR: i32 = 995;
const EACCES: i32 = 13;
const ENOSPC: i32 = 28;
const ECONNREFUSED: i32 = 111;

/// What memory holds that nobody has written.
const CANARY: u8 = 0xA5;
const RECEIVE_BYTES: usize = 24;
/// Calls of `get` that must be enough for everything that can be done.
const GETS_MAX: usize = 5000;

thread_local! {
    /// What this thread was given in callbacks and to dispose of, in that order.
    static ARRIVED: RefCell<Vec<(Way, Completion)>> = const { RefCell::new(Vec::new()) };
    /// Packets for which the port has asked to retain the token.
    static RETAINED: Cell<u64> = const { Cell::new(0) };
    /// How long the thread is kept while a schedule is made, as on a busy machine.
    static PAUSE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn called(_context: usize, completion: Completion) {
    ARRIVED.with_borrow_mut(|arrived| arrived.push((Way::Callback, completion)));
}

/// A function that was queued is called.
fn ran(token: usize, ran: Ran) {
    let way = match ran {
        Ran::Worker => Way::Callback,
        Ran::Closed => Way::Disposed,
    };
    ARRIVED.with_borrow_mut(|arrived| arrived.push((way, Post { key: token + 7, token, bytes: token }.into())));
}

/// The calling thread's tag.
fn issuer() -> u32 {
    let tag = set_issuer(0);
    set_issuer(tag);
    tag
}

/// Frees what nobody takes any more. The program's destructors are called here; some panic, and what some of them panic
/// with panics when it is dropped.
fn disposed(completion: Completion) {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            resume_unwind(Box::new(()));
        }
    }
    let token = completion.token;
    ARRIVED.with_borrow_mut(|arrived| arrived.push((Way::Disposed, completion)));
    // Without the panic hook, which would say so thousands of times.
    match token % 6 {
        0 => resume_unwind(Box::new(Bomb)),
        3 => resume_unwind(Box::new(())),
        _ => {}
    }
}

fn retained(_token: usize) {
    RETAINED.set(RETAINED.get() + 1);
}

/// How a completion comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Port,
    Event,
    Callback,
    /// As the issuing call's result.
    Inline,
    /// As a call on borrowed memory, which is no operation.
    Now,
    /// To whoever withdrew it.
    Withdrawn,
    /// To the port's `dispose`, after its close.
    Disposed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Issuing,
    Pending,
    Refused,
    Done { error: i32, bytes: usize, way: Way, arrival: u64 },
}

const RECEIVE: usize = 0;
const SEND: usize = 1;

#[derive(Debug)]
struct Operation {
    kind: Kind,
    device: Option<usize>,
    side: usize,
    event: Option<Arc<CompletionEvent>>,
    id: Option<OperationId>,
    fate: Fate,
    /// It was asked to end, or its device or port was closed.
    ends: bool,
    /// It was issued in the middle of a call that asks others to.
    may_end: bool,
    key: usize,
    /// The buffers, each followed by a byte that belongs to none.
    memory: Vec<AtomicU8>,
    pieces: Vec<(usize, usize)>,
    total: usize,
    /// What a buffer of the pool held.
    pooled: Vec<u8>,
    /// Of datagrams: where it goes, and who sent or refused it.
    to: Option<SocketAddr>,
    from: Option<SocketAddr>,
    /// A receive that completes when its buffers are full.
    waits_for_all: bool,
    /// A wait for an edge.
    watch: bool,
    /// The tag of who has issued it.
    issuer: u32,
    /// For timers.
    first: Instant,
    period: Option<Duration>,
    count: u64,
}

impl Operation {
    fn is_outstanding(&self) -> bool {
        matches!(self.fate, Fate::Issuing | Fate::Pending)
    }

    /// The bytes of the buffers in their order.
    fn bytes(&self) -> impl Iterator<Item = u8> {
        let places = self.pieces.iter().flat_map(|&(at, length)| at..at + length);
        places.map(|at| self.memory[at].load(Ordering::Relaxed))
    }

    /// Nothing is written but the first `bytes` bytes of the buffers.
    fn is_untouched_beyond(&self, bytes: usize) -> bool {
        let mut written = vec![false; self.memory.len()];
        for at in self.pieces.iter().flat_map(|&(at, length)| at..at + length).take(bytes) {
            written[at] = true;
        }
        self.memory.iter().zip(written).all(|(byte, written)| written || byte.load(Ordering::Relaxed) == CANARY)
    }
}

#[derive(Debug)]
struct Socket {
    device: Arc<DeviceState>,
    listener: bool,
    connection: Option<usize>,
    /// A datagram socket's, whether it is connected, and whether its refusals are listed.
    mailbox: Option<usize>,
    peer: bool,
    listed: bool,
    /// A connect completed well, or it was connected when adopted.
    connected: bool,
    /// Closed or released, or about to be.
    ending: bool,
    closing: bool,
    /// All its operations were once asked to end.
    cancelled: bool,
    /// By so many calls that have not returned.
    cancelling: u32,
    ended: bool,
    released: bool,
    /// By side: a shutdown was tried, and was accepted.
    shut_tried: [bool; 2],
    shut: [bool; 2],
    /// By side: a completion told of the reset.
    failed: [bool; 2],
    skip: bool,
    /// Tokens by side, in the order of issue.
    operations: [Vec<usize>; 2],
}

struct Model {
    rng: Rng,
    operations: Vec<Operation>,
    sockets: Vec<Socket>,
    connections: Vec<usize>,
    mailboxes: Vec<usize>,
    /// Handles that belong to the model: accepted, or released.
    handles: Vec<Handle>,
    arrivals: u64,
    /// Calls on borrowed memory that are under way.
    tries: usize,
    more: u64,
    /// The port was closed, or is just being closed, after so many arrivals.
    closed: bool,
    before_close: u64,
    gone: bool,
    threads: bool,
}

struct Schedule {
    port: Port,
    fake: Arc<Fake>,
    model: Lock<Model>,
    /// The hook is silent: a nested step runs, or the schedule is checked.
    silent: AtomicBool,
    /// Several threads have worked on the port, so that no order is known.
    threads: bool,
    /// They do.
    busy: AtomicBool,
}

impl Model {
    fn chance(&mut self, of_256: u8) -> bool {
        self.rng.u8(..) < of_256
    }

    fn pick(&mut self, fits: impl Fn(&Socket) -> bool) -> Option<usize> {
        let fitting = self.sockets.iter().filter(|socket| fits(socket)).count();
        if fitting == 0 {
            return None;
        }
        let nth = self.rng.usize(..fitting);
        let mut fitting = self.sockets.iter().enumerate().filter(|(_, socket)| fits(socket));
        fitting.nth(nth).map(|(index, _)| index)
    }

    /// A stream, rarely one that is closed.
    fn pick_stream(&mut self) -> Option<usize> {
        let any = self.chance(12);
        self.pick(|socket| !socket.listener && socket.mailbox.is_none() && (any || !socket.ending))
    }

    fn pick_connection(&mut self) -> Option<usize> {
        // Mostly a recent one: the older are likely to be closed.
        let count = self.connections.len();
        (count > 0).then(|| self.connections[self.rng.usize(count.saturating_sub(5)..count)])
    }

    fn add(&mut self, kind: Kind, device: Option<usize>, side: usize, now: Instant) -> usize {
        let token = self.operations.len();
        if let Some(device) = device {
            self.sockets[device].operations[side].push(token);
        }
        let key = device.map_or(token + 7, |device| self.sockets[device].device.key());
        self.operations.push(Operation {
            kind,
            device,
            side,
            event: None,
            id: None,
            fate: Fate::Issuing,
            ends: false,
            may_end: device.is_some_and(|device| self.sockets[device].cancelling > 0),
            key,
            memory: Vec::new(),
            pieces: Vec::new(),
            total: 0,
            pooled: Vec::new(),
            to: None,
            from: None,
            waits_for_all: false,
            watch: false,
            issuer: issuer(),
            first: now,
            period: None,
            count: 0,
        });
        token
    }

    fn sink(&mut self, token: usize) -> Sink {
        match self.rng.u8(..16) {
            0..2 => {
                let event = CompletionEvent::new();
                self.operations[token].event = Some(event.clone());
                Sink::Event(event)
            }
            2..5 => Sink::Callback(called, token),
            _ => Sink::Port,
        }
    }

    /// Memory for an operation, in pieces of these lengths.
    fn memory(&mut self, token: usize, lengths: &[usize]) -> Vec<RawBuffer> {
        let operation = &mut self.operations[token];
        let mut at = 0;
        for &length in lengths {
            operation.pieces.push((at, length));
            at += length + 1;
        }
        operation.total = lengths.iter().sum();
        operation.memory = (0..at).map(|_| AtomicU8::new(CANARY)).collect();
        let base = operation.memory.as_ptr().cast_mut().cast::<u8>();
        operation.pieces.iter().map(|&(at, length)| RawBuffer { pointer: base.wrapping_add(at), length }).collect()
    }

    fn lengths(&mut self) -> Vec<usize> {
        let rng = &mut self.rng;
        match rng.u8(..32) {
            0..4 => vec![0],
            4..18 => vec![rng.usize(1..40)],
            18..22 => vec![rng.usize(40..400)],
            22..30 => (0..rng.usize(2..6)).map(|_| rng.usize(..12)).collect(),
            // More than one call of an engine takes.
            30 => (0..rng.usize(1025..1200)).map(|_| rng.usize(..3)).collect(),
            _ => (0..rng.usize(1..4)).map(|_| 0).collect(),
        }
    }

    fn add_socket(&mut self, device: Arc<DeviceState>, listener: bool, connection: Option<usize>) -> usize {
        let number = device.number;
        // Slots are used again, worn ones too.
        assert!(number != 0 && number as u32 != 0, "{number:#x} is no device's, or a timer's");
        let again = self.sockets.iter().find(|socket| socket.device.number == number);
        assert!(again.is_none(), "the number {number:#x} has come again: {again:?}");
        self.sockets.push(Socket {
            device,
            listener,
            connection,
            mailbox: None,
            peer: false,
            listed: false,
            connected: false,
            ending: false,
            closing: false,
            cancelled: false,
            cancelling: 0,
            ended: false,
            released: false,
            shut_tried: [false; 2],
            shut: [false; 2],
            failed: [false; 2],
            skip: false,
            operations: [Vec::new(), Vec::new()],
        });
        self.sockets.len() - 1
    }

    fn end_all(&mut self, device: Option<usize>) {
        let fits = |operation: &&mut Operation| device.is_none() || operation.device == device;
        self.operations.iter_mut().filter(fits).for_each(|operation| operation.ends = true);
    }

    /// Operations that were ever issued there.
    fn issued(&self, device: usize) -> usize {
        self.sockets[device].operations.iter().map(Vec::len).sum()
    }

    fn outstanding(&self, device: usize) -> usize {
        let tokens = self.sockets[device].operations.iter().flatten();
        tokens.filter(|&&token| self.operations[token].is_outstanding()).count()
    }
}

impl Schedule {
    fn new(seed: u64, threads: bool) -> Arc<Schedule> {
        let mut rng = Rng::with_seed(seed ^ 0x5EED);
        let config = Config {
            concurrency: rng.usize(1..4),
            wake: if rng.bool() { Wake::Eager } else { Wake::Adaptive },
            pool_buffer_bytes: RECEIVE_BYTES,
            pool_keep: 4,
            files: FileEngine::default(),
            sockets: crate::raw::SocketEngine::Auto,
            dispose: disposed,
        };
        let fake = Arc::new(Fake::new(seed));
        if !threads {
            // Before the port is made: its clock begins then.
            stand_still(Some(fake.now()));
        }
        std::thread::sleep(PAUSE.get());
        let engine = fake.clone();
        let interrupt = if rng.u8(..4) == 0 { 0 } else { rng.u8(..90) };
        let schedule = Arc::new(Schedule {
            port: Port::build(config, |_| Ok(Engine::of(engine))).expect("a timer descriptor"),
            fake: fake.clone(),
            model: Lock::new(Model {
                rng,
                operations: Vec::new(),
                sockets: Vec::new(),
                connections: Vec::new(),
                mailboxes: Vec::new(),
                handles: Vec::new(),
                arrivals: 0,
                tries: 0,
                more: 0,
                closed: false,
                before_close: u64::MAX,
                gone: false,
                threads,
            }),
            silent: AtomicBool::new(false),
            threads,
            busy: AtomicBool::new(threads),
        });
        RETAINED.set(0);
        if seed.is_multiple_of(5) {
            schedule.port.wear_slots(seed as usize % 3 + 1, u32::MAX - 1 - seed as u32 % 7);
        }
        if threads {
            fake.hook(move |_, _| {
                if fastrand::u8(..) < interrupt {
                    std::thread::yield_now()
                }
            });
        } else {
            let weak = Arc::downgrade(&schedule);
            fake.hook(move |call, _| {
                let Some(schedule) = weak.upgrade() else { return };
                if schedule.silent.load(Ordering::Relaxed) || !schedule.model.lock().chance(interrupt) {
                    return;
                }
                schedule.silently(|| schedule.nested_step(call));
            });
        }
        schedule
    }

    fn silently(&self, f: impl FnOnce()) {
        let before = self.silent.swap(true, Ordering::Relaxed);
        f();
        self.silent.store(before, Ordering::Relaxed);
    }

    // --- Steps ---

    fn step(&self) {
        let what = self.model.lock().rng.u8(..170);
        match what {
            128..129 => self.adopt_datagrams(),
            129..137 => self.receive_from(),
            137..144 => self.send_to(),
            144..152 => self.datagram_peer(),
            152..164 => self.try_now(),
            164.. => self.watch(),
            0..20 => self.receive(),
            20..36 => self.send(),
            36..41 => self.accept(),
            41..45 => self.open_or_connect(),
            45..47 => self.disconnect(),
            47..49 => self.shutdown(),
            49..51 => self.timer(),
            51..52 => self.reset_timer(),
            52..56 => self.post(),
            56..61 => self.cancel(),
            61..63 => self.cancel_named(),
            63..64 => self.cancel_all(),
            64..66 => self.close_device(),
            66..68 => self.release(),
            68..69 => self.skip_on_success(),
            69..72 => self.adopt(),
            72..73 => self.listen(),
            73..86 => drop(self.get()),
            86..88 => self.take_again(),
            88..92 => self.get_many(),
            92..122 => self.peer(),
            122..126 => self.pass_time(),
            _ => self.settle(),
        }
    }

    /// What another thread does meanwhile.
    fn nested_step(&self, call: Call) {
        let what = self.model.lock().rng.u8(..90);
        match what {
            64..68 => self.receive_from(),
            68..72 => self.send_to(),
            72..80 => self.datagram_peer(),
            80..86 => self.try_now(),
            86.. => self.watch(),
            0..10 if call != Call::Poll => drop(self.get()),
            0..16 => self.receive(),
            16..24 => self.send(),
            24..28 => self.accept(),
            28..34 => self.cancel(),
            34..37 => self.cancel_named(),
            37..38 => self.cancel_all(),
            38..40 => self.close_device(),
            40..42 => self.release(),
            42..44 => self.disconnect(),
            44..45 => self.shutdown(),
            45..47 => self.adopt(),
            47..48 => self.skip_on_success(),
            48..49 => self.timer(),
            49..50 => self.post(),
            50..51 if self.model.lock().chance(30) => self.close_port(),
            _ => self.peer(),
        }
    }

    #[allow(unsafe_code)]
    fn receive(&self) {
        let (device, buffers, flags, token, sink) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick_stream() else { return };
            let token = model.add(Kind::Received, Some(socket), RECEIVE, self.fake.now());
            let sink = model.sink(token);
            let pooled = model.chance(40);
            let waits = !pooled && model.chance(50);
            let buffers = if pooled {
                model.operations[token].total = RECEIVE_BYTES;
                Buffers::Pooled
            } else {
                let lengths = model.lengths();
                let pieces = model.memory(token, &lengths);
                if lengths.iter().sum::<usize>() == 0 {
                    model.operations[token].kind = Kind::Readable;
                }
                to_buffers(pieces, model.rng.bool())
            };
            model.operations[token].waits_for_all = waits;
            let flags = if waits { ReceiveFlags::WAIT_ALL } else { ReceiveFlags::default() };
            (model.sockets[socket].device.clone(), buffers, flags, token, sink)
        };
        let refuse = self.must_refuse(token);
        // SAFETY: the memory is the operation's, lives as long as the schedule, and is read after the completion.
        let issued = unsafe { self.port.receive_with(&device, buffers, flags, token, sink) };
        self.issued(token, issued, refuse);
    }

    #[allow(unsafe_code)]
    fn send(&self) {
        let (device, buffers, token, sink) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick_stream() else { return };
            let token = model.add(Kind::Sent, Some(socket), SEND, self.fake.now());
            let sink = model.sink(token);
            let lengths = model.lengths();
            let pieces = model.memory(token, &lengths);
            let operation = &model.operations[token];
            let places = operation.pieces.iter().flat_map(|&(at, length)| at..at + length);
            for (nth, at) in places.enumerate() {
                operation.memory[at].store(pattern(token + 1000, nth as u64), Ordering::Relaxed);
            }
            (model.sockets[socket].device.clone(), to_buffers(pieces, model.rng.bool()), token, sink)
        };
        let refuse = self.must_refuse(token);
        // SAFETY: the memory is the operation's, lives as long as the schedule, and does not change.
        let issued = unsafe { self.port.send(&device, buffers, token, sink) };
        self.issued(token, issued, refuse);
    }

    /// Sends or receives on borrowed memory: no operation is issued, though the model takes it for one that ends at
    /// once.
    #[allow(unsafe_code)]
    fn try_now(&self) {
        let (device, pieces, token, kind) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick_stream() else { return };
            let (kind, side) = if model.rng.bool() { (Kind::Sent, SEND) } else { (Kind::Received, RECEIVE) };
            let mut lengths = model.lengths();
            if lengths.iter().sum::<usize>() == 0 {
                lengths.push(3);
            }
            let token = model.add(kind, Some(socket), side, self.fake.now());
            let pieces = model.memory(token, &lengths);
            model.tries += 1;
            if kind == Kind::Sent {
                let operation = &model.operations[token];
                let places = operation.pieces.iter().flat_map(|&(at, length)| at..at + length);
                for (nth, at) in places.enumerate() {
                    operation.memory[at].store(pattern(token + 1000, nth as u64), Ordering::Relaxed);
                }
            }
            (model.sockets[socket].device.clone(), pieces, token, kind)
        };
        let refuse = self.must_refuse(token);
        let result = match kind {
            // SAFETY: the memory is the operation's, and lives as long as the schedule.
            Kind::Sent => unsafe { self.port.send_borrowed(&device, &pieces) },
            // SAFETY: as above; it is read after the call.
            _ => unsafe { self.port.receive_borrowed(&device, &pieces) },
        };
        self.drain();
        let mut model = self.model.lock();
        model.tries -= 1;
        let Some(socket) = model.operations[token].device else { return };
        let side = model.operations[token].side;
        let connection = model.sockets[socket].connection;
        let view = connection.map(|connection| self.fake.view(connection));
        model.arrivals += 1;
        let arrival = model.arrivals;
        match result {
            Ok(bytes) => {
                assert!(!refuse, "it was to be refused");
                assert!(bytes <= model.operations[token].total);
                model.operations[token].fate = Fate::Done { error: 0, bytes, way: Way::Now, arrival };
            }
            Err(error) => {
                let reset = view.map_or(self.threads, |view| view.reset);
                let is_known = match error {
                    EAGAIN => true,
                    ECONNRESET => reset,
                    EBADF => model.closed || model.sockets[socket].ending,
                    ESHUTDOWN => model.sockets[socket].shut_tried[side],
                    ENOTCONN => !model.sockets[socket].connected || self.threads,
                    _ => false,
                };
                model.sockets[socket].failed[side] |= error == ECONNRESET;
                assert!(is_known, "{kind:?} on borrowed memory failed: {error}");
                model.operations[token].fate = Fate::Refused;
            }
        }
    }

    /// Waits for an edge.
    fn watch(&self) {
        let (device, kind, token, sink) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick_stream() else { return };
            let (kind, side) = if model.rng.bool() { (Kind::Writable, SEND) } else { (Kind::Readable, RECEIVE) };
            let token = model.add(kind, Some(socket), side, self.fake.now());
            model.operations[token].watch = true;
            let sink = model.sink(token);
            (model.sockets[socket].device.clone(), kind, token, sink)
        };
        let refuse = self.must_refuse(token);
        let issued = match kind {
            Kind::Writable => self.port.watch_writable(&device, token, sink),
            _ => self.port.watch_readable(&device, token, sink),
        };
        self.issued(token, issued, refuse);
    }

    fn accept(&self) {
        let (device, token, sink) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick(|socket| socket.listener && !socket.ending) else { return };
            let token = model.add(Kind::Accepted, Some(socket), RECEIVE, self.fake.now());
            let sink = model.sink(token);
            (model.sockets[socket].device.clone(), token, sink)
        };
        let refuse = self.must_refuse(token);
        let issued = self.port.accept(&device, token, sink);
        self.issued(token, issued, refuse);
    }

    fn open_or_connect(&self) {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 7));
        let fresh = {
            let mut model = self.model.lock();
            let again = model.rng.bool();
            let fresh = model.pick(|socket| !socket.listener && !socket.connected && !socket.ending);
            fresh.filter(|_| again)
        };
        let socket = match fresh {
            Some(socket) => socket,
            None => {
                let key = self.model.lock().rng.usize(..1000);
                let Ok(device) = self.port.open_stream(&peer, key) else {
                    assert!(self.model.lock().closed);
                    return;
                };
                self.add_socket(device, false, None)
            }
        };
        let (device, token, sink) = {
            let mut model = self.model.lock();
            let token = model.add(Kind::Connected, Some(socket), SEND, self.fake.now());
            let sink = model.sink(token);
            (model.sockets[socket].device.clone(), token, sink)
        };
        let refuse = self.must_refuse(token);
        let issued = self.port.connect(&device, &peer, token, sink);
        let mut model = self.model.lock();
        if issued.is_ok() && !model.sockets[socket].ending && self.fake.is_open(device.handle()) {
            if let Some(connection) = self.fake.connection_of(device.handle()) {
                model.sockets[socket].connection = Some(connection);
                model.connections.push(connection);
            }
        }
        drop(model);
        self.issued(token, issued, refuse);
    }

    fn disconnect(&self) {
        let (device, token, sink, socket) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick_stream() else { return };
            let token = model.add(Kind::Disconnected, Some(socket), SEND, self.fake.now());
            let sink = model.sink(token);
            model.sockets[socket].shut_tried[SEND] = true;
            (model.sockets[socket].device.clone(), token, sink, socket)
        };
        let refuse = self.must_refuse(token);
        let issued = self.port.disconnect(&device, token, sink);
        if issued.is_ok() {
            self.model.lock().sockets[socket].shut[SEND] = true;
        }
        self.issued(token, issued, refuse);
    }

    fn shutdown(&self) {
        let (device, how, socket) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick_stream() else { return };
            let how = [Shutdown::Read, Shutdown::Write, Shutdown::Both][model.rng.usize(..3)];
            let tried = &mut model.sockets[socket].shut_tried;
            tried[RECEIVE] |= how != Shutdown::Write;
            tried[SEND] |= how != Shutdown::Read;
            (model.sockets[socket].device.clone(), how, socket)
        };
        let result = self.port.shutdown(&device, how);
        self.drain();
        let mut model = self.model.lock();
        let closed = model.closed;
        let socket = &mut model.sockets[socket];
        match result {
            Ok(()) => {
                socket.shut[RECEIVE] |= how != Shutdown::Write;
                socket.shut[SEND] |= how != Shutdown::Read;
            }
            Err(ENOTCONN) => assert!(!socket.connected || self.threads),
            Err(error) => assert!(error == EBADF && (closed || socket.ending), "a shutdown failed: {error}"),
        }
    }

    fn timer(&self) {
        let (token, sink, key, after, period) = {
            let mut model = self.model.lock();
            let now = self.fake.now();
            let token = model.add(Kind::Elapsed, None, 0, now);
            let mut sink = model.sink(token);
            let after = Duration::from_millis(model.rng.u64(..30));
            let period = model.rng.bool().then(|| Duration::from_micros(model.rng.u64(1..20_000)));
            if period.is_some() && matches!(sink, Sink::Event(_)) {
                // An event holds one completion.
                model.operations[token].event = None;
                sink = Sink::Port;
            }
            let operation = &mut model.operations[token];
            operation.first = now + after;
            operation.period = period;
            (token, sink, operation.key, after, period)
        };
        let refuse = self.must_refuse(token);
        let issued = self.port.timer(after, period, key, token, sink, retained);
        self.issued(token, issued.map(Issued::Pending), refuse);
    }

    fn post(&self) {
        let way = self.model.lock().rng.u8(..4);
        self.post_in_way(way);
    }

    /// Queues a function (0), a packet with an error (1), or a plain packet.
    fn post_in_way(&self, way: u8) {
        let (token, key, limit) = {
            let mut model = self.model.lock();
            let token = model.add(Kind::Posted, None, 0, self.fake.now());
            (token, model.operations[token].key, model.rng.bool().then(|| model.rng.usize(..4)))
        };
        let refuse = self.must_refuse(token);
        let post = Post { key, token, bytes: token };
        let result = match limit {
            None if way == 0 => self.port.run(ran, token).map_err(|token| (Post { token, ..post }, true)),
            None if way == 1 => {
                let port = crate::raw::Port(self.port.clone());
                port.post_with_error(post, POSTED_ERROR).map_err(|post| (post, true))
            }
            None => self.port.post(post).map_err(|post| (post, true)),
            Some(limit) => self.port.try_post(post, limit),
        };
        self.drain();
        let mut model = self.model.lock();
        match result {
            Ok(()) => {
                assert!(!refuse);
                if model.operations[token].fate == Fate::Issuing {
                    model.operations[token].fate = Fate::Pending;
                }
            }
            Err((post, closed)) => {
                assert_eq!(post, Post { key, token, bytes: token }, "another post came back");
                assert!(if closed { model.closed } else { limit.is_some() });
                assert_eq!(model.operations[token].fate, Fate::Issuing, "a refused post was delivered");
                model.operations[token].fate = Fate::Refused;
            }
        }
    }

    fn cancel(&self) {
        let (id, token, done) = {
            let mut model = self.model.lock();
            let count = model.operations.len();
            if count == 0 {
                return;
            }
            // Mostly one of the last.
            let least = if model.chance(200) { count.saturating_sub(8) } else { 0 };
            let token = model.rng.usize(least..count);
            let operation = &mut model.operations[token];
            let Some(id) = operation.id else { return };
            operation.ends = true;
            (id, token, !operation.is_outstanding())
        };
        if self.model.lock().rng.bool() {
            return self.withdraw(id, token, done);
        }
        let cancel = self.port.cancel(id);
        if done {
            assert_eq!(cancel, Cancel::TooLate, "operation {token} had completed when it was cancelled");
        }
        self.drain();
    }

    /// What is withdrawn ends here, and gives no packet.
    fn withdraw(&self, id: OperationId, token: usize, done: bool) {
        // What a timer has told a function before.
        self.drain();
        match self.port.withdraw(id) {
            Withdrawal::Withdrawn(completion) => {
                assert_eq!((completion.token, completion.error), (token, ECANCELED));
                assert_eq!((completion.bytes, completion.more), (0, false), "something has happened of it");
                self.model.lock().arrive(Way::Withdrawn, completion, &self.fake);
            }
            Withdrawal::Requested => assert!(!done, "operation {token} had completed when it was withdrawn"),
            Withdrawal::TooLate => {}
            Withdrawal::Foreign => panic!("it is of this port"),
        }
        self.drain();
    }

    /// Cancels by the token, or by who has issued.
    fn cancel_named(&self) {
        let (socket, device, name, outstanding, before) = {
            let mut model = self.model.lock();
            if model.chance(60) {
                set_issuer(model.rng.u32(..3));
            }
            let Some(socket) = model.pick(|socket| !socket.ending) else { return };
            let tokens: Vec<usize> = model.sockets[socket].operations.iter().flatten().copied().collect();
            let Some(&some) = model.rng.choice(&tokens) else { return };
            let by_token = model.rng.bool();
            let issuer = model.operations[some].issuer;
            let fits =
                |&&token: &&usize| if by_token { token == some } else { model.operations[token].issuer == issuer };
            let named: Vec<usize> = tokens.iter().filter(fits).copied().collect();
            let outstanding = named.iter().filter(|&&token| model.operations[token].is_outstanding()).count();
            named.iter().for_each(|&token| model.operations[token].ends = true);
            let name = if by_token { Name::Token(some) } else { Name::Issuer(issuer) };
            model.sockets[socket].cancelled = true;
            model.sockets[socket].cancelling += 1;
            (socket, model.sockets[socket].device.clone(), name, outstanding, model.issued(socket))
        };
        let count = self.port.cancel_named(&device, name);
        let mut model = self.model.lock();
        model.sockets[socket].cancelling -= 1;
        let most = outstanding + model.issued(socket) - before;
        drop(model);
        assert!(self.threads || count <= most, "{count} cancelled of {most}, {name:?}");
        self.drain();
    }

    /// A timer that delivers one packet is put off, or hurried.
    fn reset_timer(&self) {
        let (id, token, after, done) = {
            let mut model = self.model.lock();
            let now = self.fake.now();
            let after = Duration::from_millis(model.rng.u64(..30));
            let fits = |operation: &Operation| operation.kind == Kind::Elapsed && operation.period.is_none();
            let timers: Vec<usize> = (0..model.operations.len()).filter(|&at| fits(&model.operations[at])).collect();
            let Some(&token) = model.rng.choice(&timers) else { return };
            let operation = &mut model.operations[token];
            let Some(id) = operation.id else { return };
            // From when on it may come.
            operation.first = operation.first.min(now + after);
            (id, token, after, !operation.is_outstanding())
        };
        let was_outstanding = self.port.reset_timer(id, after);
        assert!(!(done && was_outstanding), "timer {token} had elapsed when it was reset");
        let mut model = self.model.lock();
        if was_outstanding && !self.threads {
            model.operations[token].first = self.fake.now() + after;
        }
        drop(model);
        self.drain();
    }

    fn cancel_all(&self) {
        let (socket, device, outstanding, before) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick(|socket| !socket.ending) else { return };
            model.end_all(Some(socket));
            model.sockets[socket].cancelled = true;
            model.sockets[socket].cancelling += 1;
            let shutdown = usize::from(model.sockets[socket].shut_tried[SEND]);
            let outstanding = model.outstanding(socket) + shutdown + model.tries;
            (socket, model.sockets[socket].device.clone(), outstanding, model.issued(socket))
        };
        let count = self.port.cancel_all(&device);
        let mut model = self.model.lock();
        model.sockets[socket].cancelling -= 1;
        let most = outstanding + model.issued(socket) - before;
        drop(model);
        assert!(self.threads || count <= most, "{count} operations cancelled of {most}");
        self.drain();
    }

    fn close_device(&self) {
        let socket = {
            let mut model = self.model.lock();
            let twice = model.chance(16);
            let Some(socket) = model.pick(|socket| twice || !socket.ending) else { return };
            socket
        };
        self.close(socket);
    }

    fn close(&self, socket: usize) {
        let device = {
            let mut model = self.model.lock();
            model.sockets[socket].ending = true;
            model.sockets[socket].closing = true;
            model.end_all(Some(socket));
            model.sockets[socket].device.clone()
        };
        self.port.close_device(&device);
        self.drain();
        self.model.lock().sockets[socket].ended = true;
    }

    fn release(&self) {
        let (socket, device) = {
            let mut model = self.model.lock();
            let Some(socket) = model.pick(|socket| !socket.ending) else { return };
            model.sockets[socket].ending = true;
            (socket, model.sockets[socket].device.clone())
        };
        let result = self.port.give_up(&device);
        self.drain();
        let mut model = self.model.lock();
        let outstanding = model.outstanding(socket);
        match result {
            Ok(handle) => {
                assert_eq!(handle, device.handle());
                assert!(self.fake.is_at_rest(handle), "a handle was released while the port uses it");
                // What is not taken yet lies in the queue.
                model.end_all(Some(socket));
                model.sockets[socket].ended = true;
                model.sockets[socket].released = true;
                model.handles.push(handle);
            }
            Err(EBUSY) => {
                let busy = outstanding > 0 || model.sockets[socket].shut_tried[SEND];
                assert!(self.threads || busy || self.silent.load(Ordering::Relaxed), "busy with nothing");
                // Unless somebody closed it meanwhile.
                model.sockets[socket].ending = model.sockets[socket].closing;
            }
            Err(error) => {
                assert_eq!(error, EBADF);
                // In the middle of another step the port may be on its way out.
                let ended = model.sockets[socket].ended;
                let closing = model.closed || self.silent.load(Ordering::Relaxed);
                assert!(self.threads || ended || closing, "an open device is said to be closed");
                model.sockets[socket].ending = model.sockets[socket].closing;
            }
        }
    }

    fn skip_on_success(&self) {
        let mut model = self.model.lock();
        if let Some(socket) = model.pick(|socket| !socket.listener) {
            model.sockets[socket].skip = true;
            model.sockets[socket].device.skip_on_success();
        }
    }

    fn adopt(&self) {
        let (handle, connection, key) = {
            let mut model = self.model.lock();
            let key = model.rng.usize(..1000);
            let given = model.handles.pop().map(|handle| (handle, self.fake.connection_of(handle)));
            let usable = given.filter(|&(_, connection)| {
                connection.is_some_and(|connection| {
                    let view = self.fake.view(connection);
                    !view.shut && !view.reset
                })
            });
            match (given, usable) {
                (_, Some((handle, connection))) => (handle, connection, key),
                (Some((handle, _)), None) => {
                    drop(model);
                    return self.fake.close(handle);
                }
                (None, None) => {
                    let capacity = model.rng.usize(8..200);
                    let (handle, connection) = self.fake.connected(capacity);
                    model.connections.push(connection);
                    (handle, Some(connection), key)
                }
            }
        };
        match self.port.take_over(handle, DeviceKind::Stream, key) {
            Ok(device) => {
                assert_eq!((device.key(), device.handle()), (key, handle));
                let socket = self.add_socket(device, false, connection);
                self.model.lock().sockets[socket].connected = true;
            }
            Err(error) => {
                assert!(error == ENOSPC || error == EBADF && self.model.lock().closed, "adopting failed: {error}");
                assert!(self.fake.is_at_rest(handle));
                self.fake.close(handle);
            }
        }
        self.drain();
    }

    fn listen(&self) {
        let handle = self.fake.listening();
        match self.port.take_over(handle, DeviceKind::Listener, 1) {
            Ok(device) => drop(self.add_socket(device, true, None)),
            Err(_) => self.fake.close(handle),
        }
        self.drain();
    }

    fn add_socket(&self, device: Arc<DeviceState>, listener: bool, connection: Option<usize>) -> usize {
        self.model.lock().add_socket(device, listener, connection)
    }

    fn get(&self) -> bool {
        self.get_for(Duration::ZERO)
    }

    fn get_for(&self, wait: Duration) -> bool {
        let result = self.port.get(Some(wait));
        self.drain();
        match result {
            Ok(completion) => {
                self.model.lock().arrive(Way::Port, completion, &self.fake);
                return true;
            }
            Err(GetError::TimedOut) => {}
            Err(GetError::Abandoned) => assert!(self.model.lock().closed, "abandoned by an open port"),
            Err(GetError::Forked | GetError::NoRoom | GetError::Interrupted) => unreachable!(),
        }
        false
    }

    /// Takes a batch and walks through it, or through some of it.
    fn get_many(&self) {
        let most = self.model.lock().rng.usize(1..24);
        let result = self.port.get_many(most, Deadline::Now);
        self.drain();
        let (first, held) = match result {
            Ok(taken) => taken,
            Err(empty) => {
                assert!(empty == GetError::TimedOut || self.model.lock().closed, "{empty:?}");
                return;
            }
        };
        let mut next = Some(first);
        while let Some(completion) = next {
            let stop = {
                let mut model = self.model.lock();
                model.arrive(Way::Port, completion, &self.fake);
                model.chance(40)
            };
            if stop {
                // The rest goes back, here or when the thread comes for more.
                if self.model.lock().rng.bool() {
                    self.port.queue.give_back(held.drain().into_iter());
                }
                break;
            }
            next = self.port.next_of(&held);
            self.drain();
        }
        self.drain();
    }

    fn take_again(&self) {
        let taken = self.port.take_again().and_then(|entry| self.port.execute(entry));
        self.drain();
        if let Some(completion) = taken {
            self.model.lock().arrive(Way::Port, completion, &self.fake);
        }
    }

    fn pass_time(&self) {
        let by = self.model.lock().rng.u64(..40_000);
        self.fake.advance(Duration::from_micros(by));
        if !self.threads {
            stand_still(Some(self.fake.now()));
        }
    }

    fn peer(&self) {
        let (what, amount, connection, handle) = {
            let mut model = self.model.lock();
            let what = model.rng.u8(..32);
            let handle = match what {
                26..30 => model.pick(|socket| socket.listener && !socket.ending),
                30..32 => model.pick(|socket| !socket.listener && !socket.connected && !socket.ending),
                _ => None,
            };
            (what, model.rng.u64(1..120), model.pick_connection(), handle)
        };
        if let Some(connection) = connection {
            match what {
                0..10 => self.fake.peer_writes(connection, amount),
                10..11 => self.fake.peer_urges(connection),
                11..20 => self.fake.peer_reads(connection, amount as usize),
                20..22 => self.fake.peer_finishes(connection),
                22..24 => {
                    self.fake.peer_writes(connection, amount);
                    self.fake.peer_finishes(connection);
                }
                24 => self.fake.peer_resets(connection, amount % 2 == 0),
                25 => {
                    self.fake.peer_writes(connection, amount);
                    self.fake.peer_urges(connection);
                    self.fake.peer_writes(connection, amount / 2);
                }
                _ => {}
            }
        }
        let Some(index) = handle else { return };
        let mut model = self.model.lock();
        let capacity = model.rng.usize(8..200);
        let handle = model.sockets[index].device.handle();
        if model.sockets[index].ending {
            return;
        }
        if model.sockets[index].listener {
            let connection = self.fake.peer_connects(handle, capacity);
            model.connections.push(connection);
        } else if let Some(connection) = self.fake.end_connect(handle, amount % 4 != 0, capacity) {
            model.sockets[index].connection = Some(connection);
            model.connections.push(connection);
        }
    }

    fn close_port(&self) {
        {
            let mut model = self.model.lock();
            model.closed = true;
            model.before_close = model.arrivals;
            model.end_all(None);
        }
        self.port.close();
        self.drain();
        self.model.lock().gone = true;
    }

    // --- What comes back ---

    /// Fills in what callbacks and the disposal were given on this thread.
    fn drain(&self) {
        let arrived = ARRIVED.with_borrow_mut(std::mem::take);
        if arrived.is_empty() {
            return;
        }
        let mut model = self.model.lock();
        for (way, completion) in arrived {
            model.arrive(way, completion, &self.fake);
        }
    }

    fn drain_events(&self) {
        let mut model = self.model.lock();
        for token in 0..model.operations.len() {
            let outstanding = model.operations[token].is_outstanding();
            let Some(event) = model.operations[token].event.clone().filter(|_| outstanding) else { continue };
            if let Some(completion) = event.wait(Some(Duration::ZERO)) {
                model.arrive(Way::Event, completion, &self.fake);
            }
        }
    }

    /// Whether an operation that is about to be issued has to be refused.
    fn must_refuse(&self, token: usize) -> bool {
        let model = self.model.lock();
        let operation = &model.operations[token];
        let Some(socket) = operation.device.map(|device| &model.sockets[device]) else { return model.gone };
        let side = operation.side;
        // A disconnect that is cancelled shuts nothing.
        let undone = socket.operations[side].iter().any(|&token| {
            let operation = &model.operations[token];
            let meanwhile = operation.may_end || self.threads && socket.cancelled;
            operation.kind == Kind::Disconnected && (operation.ends || meanwhile)
        });
        let shut = socket.shut[side] && !undone;
        model.gone || socket.ended || shut || socket.failed[side] && operation.kind != Kind::Accepted
    }

    fn may_refuse_connect(&self, model: &Model, token: usize, error: i32) -> bool {
        const EINVAL: i32 = 22;
        const EISCONN: i32 = 106;
        match error {
            // Another one is outstanding, or its end is just being dealt with.
            EINVAL => {
                let outstanding = |other: &Operation| {
                    other.kind == Kind::Connected
                        && other.device == model.operations[token].device
                        && other.is_outstanding()
                        && !other.ends
                };
                let others = model.operations[..token].iter().any(outstanding);
                others || self.threads || self.silent.load(Ordering::Relaxed)
            }
            EISCONN => {
                let socket = model.operations[token].device.map(|device| &model.sockets[device]);
                self.threads || socket.is_some_and(|socket| socket.connection.is_some())
            }
            error => error == EACCES || error == ENOSPC,
        }
    }

    fn issued(&self, token: usize, issued: Result<Issued, i32>, refuse: bool) {
        self.drain();
        let mut model = self.model.lock();
        match issued {
            Ok(issued) => {
                assert!(!refuse, "operation {token} was accepted: {:?}", model.operations[token]);
                let operation = &mut model.operations[token];
                if operation.fate == Fate::Issuing {
                    operation.fate = Fate::Pending;
                }
                match issued {
                    Issued::Pending(id) => operation.id = Some(id),
                    Issued::Done(completion) => {
                        assert_eq!(completion.error, 0, "only a success skips the queue");
                        assert!(operation.device.is_some_and(|device| model.sockets[device].skip));
                        model.arrive(Way::Inline, completion, &self.fake);
                    }
                }
            }
            Err(error) => {
                let operation = &model.operations[token];
                assert_eq!(operation.fate, Fate::Issuing, "a refused operation completed");
                let mut allowed = model.closed && error == EBADF;
                if let Some(device) = operation.device {
                    let socket = &model.sockets[device];
                    let known = socket.connection.map(|connection| self.fake.view(connection));
                    let reset = || known.map_or(self.threads, |view| view.reset);
                    allowed |= match error {
                        EBADF => socket.ending,
                        ESHUTDOWN => socket.shut_tried[operation.side],
                        // With threads, another may have told the model meanwhile.
                        ENOTCONN => !socket.connected || self.threads,
                        ECONNRESET => reset(),
                        _ => operation.kind == Kind::Connected && self.may_refuse_connect(&model, token, error),
                    };
                }
                assert!(allowed, "refused for no reason, error {error}: {operation:?}");
                model.operations[token].fate = Fate::Refused;
            }
        }
    }
}

fn to_buffers(pieces: Vec<RawBuffer>, many: bool) -> Buffers {
    match pieces[..] {
        [] => Buffers::None,
        [one] if !many => Buffers::One(one),
        _ => Buffers::Many(pieces.into()),
    }
}

impl Model {
    /// A completion came.
    fn arrive(&mut self, way: Way, completion: Completion, fake: &Fake) {
        let Completion { key, token, bytes, error, kind, device, more, payload, .. } = completion;
        self.arrivals += 1;
        let arrival = self.arrivals;
        let closed = self.closed;
        let operation = &mut self.operations[token];
        if more && self.threads && !operation.is_outstanding() {
            // Taken before the last packet, and told later.
            return;
        }
        assert!(operation.is_outstanding(), "operation {token} completes again, or was refused: {operation:?}");
        assert_eq!((operation.kind, operation.key), (kind, key), "operation {token}");
        let socket = operation.device.map(|device| &mut self.sockets[device]);
        assert_eq!(socket.as_ref().map_or(0, |socket| socket.device.number), device);
        let expected = match way {
            Way::Disposed => closed,
            Way::Event => operation.event.is_some(),
            Way::Withdrawn => true,
            Way::Now => false,
            Way::Port | Way::Inline | Way::Callback => operation.event.is_none(),
        };
        assert!(expected, "operation {token} completed by {way:?}");
        if kind == Kind::Elapsed && error == 0 {
            assert!(operation.first <= fake.now(), "a timer went off too early");
            operation.count += bytes as u64;
            if more {
                assert!(operation.period.is_some());
                self.more += 1;
                return;
            }
            assert!(operation.period.is_none());
        }
        assert!(!more);
        let view = socket.as_ref().and_then(|socket| socket.connection).map(|connection| fake.view(connection));
        // With threads, a connection may be used before the connecting thread has noted which it is.
        let unknown = self.threads && view.is_none();
        let reset = unknown || view.is_some_and(|view| view.reset);
        let total = operation.total;
        let allowed = match (error, kind) {
            (ECANCELED, _) if self.threads => {
                // It may have been issued while another thread was about to end all there were.
                operation.ends || closed || socket.as_ref().is_some_and(|socket| socket.ending || socket.cancelled)
            }
            (ECANCELED, _) => operation.ends || operation.may_end,
            (0, Kind::Received) if operation.waits_for_all && bytes < total => {
                unknown || view.is_some_and(|view| view.finished || view.reset)
            }
            (0, Kind::Received | Kind::Readable) => bytes <= total,
            (0, Kind::Writable) => bytes == 0,
            (0, Kind::Sent) => bytes == total,
            (0, Kind::Disconnected) => unknown || view.is_some_and(|view| view.shut),
            (0, Kind::Connected) => unknown || view.is_some() || operation.ends,
            (0 | POSTED_ERROR, Kind::Posted) => bytes == token,
            (0, Kind::Accepted | Kind::Elapsed) => true,
            (ECONNRESET, Kind::Received | Kind::Readable | Kind::Sent | Kind::Writable) => reset,
            (ENOTCONN, Kind::Disconnected) => reset,
            (ECONNREFUSED, Kind::Connected) => true,
            (error, Kind::ReceivedFrom | Kind::SentTo) => {
                let listed = socket.as_ref().is_some_and(|socket| socket.listed);
                Model::datagram_may_end(operation, listed, error, bytes)
            }
            _ => false,
        };
        assert!(allowed, "operation {token} ended with error {error} and {bytes} bytes: {operation:?}, {view:?}");
        operation.fate = Fate::Done { error, bytes, way, arrival };
        if let Some(socket) = socket {
            socket.failed[operation.side] |= error == ECONNRESET;
            socket.connected |= error == 0 && kind == Kind::Connected;
        }
        match payload {
            Payload::None => {}
            Payload::Accepted(accepted) => {
                let Accepted { handle, .. } = *accepted;
                assert!(kind == Kind::Accepted && fake.is_at_rest(handle));
                self.handles.push(handle);
            }
            Payload::Datagram(datagram) => {
                let (datagram, pooled) = *datagram;
                assert_eq!((kind, datagram.bytes), (Kind::ReceivedFrom, bytes));
                operation.from = datagram.from;
                if let Some(pooled) = pooled {
                    let mut buffer = crate::Buffer::pooled(pooled);
                    buffer.received(bytes);
                    operation.pooled = buffer.to_vec();
                }
            }
            Payload::Pooled(buffer) => {
                assert!(operation.memory.is_empty());
                let mut buffer = crate::Buffer::pooled(buffer);
                buffer.received(bytes);
                operation.pooled = buffer.to_vec();
            }
        }
    }
}

// --- Checks ---

impl Schedule {
    /// Everything that can be done is done, and what is left has a reason to wait.
    fn settle(&self) {
        if self.model.lock().closed || self.busy.load(Ordering::Relaxed) {
            return;
        }
        self.silently(|| {
            self.fake.honest(true);
            for round in 0..3 {
                let mut empty = 0;
                let mut gets = 0;
                while empty < 2 {
                    empty = if self.get() { 0 } else { empty + 1 };
                    gets += 1;
                    assert!(gets < GETS_MAX, "the port does not come to rest");
                }
                if round == 0 {
                    // A listener without a free descriptor tries again after a while.
                    self.fake.advance(Duration::from_millis(150));
                }
            }
            self.drain_events();
            self.check();
            self.fake.honest(false);
        });
    }

    fn check(&self) {
        let model = self.model.lock();
        let now = self.fake.now();
        for (token, operation) in model.operations.iter().enumerate() {
            let socket = operation.device.map(|device| &model.sockets[device]);
            let view = socket.and_then(|socket| socket.connection).map(|connection| self.fake.view(connection));
            if !operation.is_outstanding() {
                continue;
            }
            // With threads, it may have been issued after all there were had been asked to end.
            let ends = operation.ends && (!self.threads || socket.is_none_or(|socket| socket.ending));
            assert!(!ends, "operation {token} was asked to end and did not: {operation:?}");
            let waits = match operation.kind {
                Kind::Received | Kind::Readable => {
                    view.is_some_and(|view| view.written == view.taken && !view.finished && !view.reset)
                }
                Kind::Sent | Kind::Writable => view.is_some_and(|view| view.space == 0 && !view.reset),
                Kind::ReceivedFrom | Kind::SentTo => {
                    let view = self.fake.mailbox_view(socket.and_then(|socket| socket.mailbox).expect("of a mailbox"));
                    match operation.kind {
                        Kind::SentTo => view.space == 0,
                        _ => view.taken == view.arrived && !view.failed,
                    }
                }
                Kind::Disconnected => view.is_some_and(|view| view.space == 0 && !view.reset),
                Kind::Connected => !self.fake.connect_is_over(socket.unwrap().device.handle()),
                Kind::Accepted => self.fake.backlog(socket.unwrap().device.handle()) == 0,
                // With threads, time may have passed before the port looked at the clock.
                Kind::Elapsed if self.threads => true,
                Kind::Elapsed => match operation.period {
                    None => operation.first > now,
                    Some(period) => {
                        let over = now.checked_duration_since(operation.first);
                        operation.count == over.map_or(0, |over| (over.as_nanos() / period.as_nanos()) as u64 + 1)
                    }
                },
                _ => false,
            };
            assert!(waits, "operation {token} hangs: {operation:?}, {view:?}");
        }
        let mut devices = self.port.devices();
        for (index, socket) in model.sockets.iter().enumerate().filter(|(_, socket)| !socket.ended) {
            let at = devices.iter().position(|info| info.number == socket.device.number);
            let info = devices.swap_remove(at.unwrap_or_else(|| panic!("device {index} is not listed")));
            let pending = |side: usize| {
                let tokens = socket.operations[side].iter();
                tokens.filter(|&&token| model.operations[token].is_outstanding()).count()
            };
            assert_eq!(info.pending.0, pending(RECEIVE));
            let shutdown = info.pending.1 - pending(SEND);
            assert!(shutdown == 0 || shutdown == 1 && socket.shut_tried[SEND], "{info:?}, {}", pending(SEND));
        }
        assert!(devices.is_empty(), "closed devices are listed: {devices:?}");
        let stats = self.port.stats();
        assert_eq!((stats.queued, stats.active, stats.waiting), (0, 1, 0), "{stats:?}");
        assert_eq!(stats.inserted, stats.removed, "{stats:?}");
        if !self.threads {
            assert_eq!(model.more, RETAINED.get(), "tokens are retained for packets that follow");
        }
    }

    /// Ends everything, and checks what can be known only then.
    fn finish(&self) {
        let (settle, port_first) = {
            let mut model = self.model.lock();
            (model.chance(192), model.chance(96))
        };
        if settle {
            self.settle();
        }
        if port_first {
            self.close_port();
            self.drain_events();
            let model = self.model.lock();
            let left = model.operations.iter().find(|operation| operation.is_outstanding());
            assert!(left.is_none(), "the port is closed, and this goes on: {left:?}");
        }
        // Steps in between may add some.
        loop {
            let open = self.model.lock().sockets.iter().position(|socket| !socket.ended);
            let Some(socket) = open else { break };
            self.close(socket);
        }
        self.settle();
        if !self.model.lock().closed {
            self.close_port();
        }
        self.get();
        self.drain();
        self.drain_events();
        let handles = std::mem::take(&mut self.model.lock().handles);
        handles.into_iter().for_each(|handle| self.fake.close(handle));
        assert!(self.port.devices().is_empty());
        assert_eq!(self.port.device_count(), 0);
        assert_eq!(self.fake.open_handles(), [], "handles that nobody closed");
        assert_eq!(Arc::strong_count(self.port.pool()), 1, "buffers are missing in the pool");
        let model = self.model.lock();
        for (token, operation) in model.operations.iter().enumerate() {
            assert!(!operation.is_outstanding(), "operation {token} never completed: {operation:?}");
            let again = operation.event.as_ref().and_then(|event| event.wait(Some(Duration::ZERO)));
            assert!(again.is_none(), "operation {token} completed twice");
            let Fate::Done { bytes, error, .. } = operation.fate else { continue };
            match operation.kind {
                Kind::Received | Kind::Readable => {
                    let may = error == 0 || operation.waits_for_all;
                    assert!(may || bytes == 0, "a failed receive took {bytes} bytes");
                    assert!(operation.is_untouched_beyond(bytes), "operation {token} wrote beyond {bytes} bytes");
                }
                Kind::ReceivedFrom => {
                    assert!(operation.is_untouched_beyond(bytes), "operation {token} wrote beyond {bytes} bytes");
                }
                _ => {}
            }
        }
        if !self.threads {
            model.sockets.iter().for_each(|socket| model.check_order(socket));
            model.connections.iter().for_each(|&connection| model.check_streams(connection, &self.fake));
            model.mailboxes.iter().for_each(|&mailbox| model.check_mailbox(mailbox, &self.fake));
        }
    }
}

impl Model {
    /// Operations of one direction complete in the order of issue.
    fn check_order(&self, socket: &Socket) {
        for tokens in &socket.operations {
            let mut last = 0;
            for &token in tokens {
                let Fate::Done { error, way, arrival, .. } = self.operations[token].fate else { continue };
                if error != ECANCELED && matches!(way, Way::Port | Way::Callback) && arrival <= self.before_close {
                    assert!(arrival > last, "operation {token} came before an earlier one: {socket:?}");
                    last = arrival;
                }
            }
        }
    }

    /// What was received is what the peer wrote; what was sent is what completions say.
    fn check_streams(&self, connection: usize, fake: &Fake) {
        let view = fake.view(connection);
        let sockets = || self.sockets.iter().filter(|socket| socket.connection == Some(connection));
        let mut taken = 0;
        let mut readable = 0;
        let mut failed = false;
        for &token in sockets().flat_map(|socket| &socket.operations[RECEIVE]) {
            let operation = &self.operations[token];
            let Fate::Done { error, bytes, .. } = operation.fate else { continue };
            assert!(!failed || error != 0, "operation {token} succeeds after the reset was told");
            failed |= error == ECONNRESET;
            // One that waits for all may fail with bytes.
            if error != 0 && bytes == 0 {
                continue;
            }
            if operation.kind == Kind::Readable {
                readable += u64::from(!operation.watch);
                continue;
            }
            if bytes == 0 {
                assert!(view.finished && taken == view.written, "operation {token}: an end that is none");
            }
            let expected = (taken..taken + bytes as u64).map(|at| pattern(connection, at));
            let right = if operation.memory.is_empty() {
                expected.eq(operation.pooled.iter().copied())
            } else {
                expected.eq(operation.bytes().take(bytes))
            };
            assert!(right, "operation {token} received other bytes than the peer wrote at {taken}");
            taken += bytes as u64;
        }
        assert_eq!(taken, view.taken, "connection {connection}: bytes were received and not reported");
        assert_eq!(readable, view.peeked, "connection {connection}: readiness without a look");
        let mut sent = fake.sent(connection).into_iter();
        for &token in sockets().flat_map(|socket| &socket.operations[SEND]) {
            let operation = &self.operations[token];
            let Fate::Done { bytes, .. } = operation.fate else { continue };
            if operation.kind == Kind::Sent {
                let right = operation.bytes().take(bytes).eq(sent.by_ref().take(bytes));
                assert!(right, "operation {token}: its {bytes} bytes are not what was sent");
            }
        }
        assert_eq!(sent.count(), 0, "connection {connection}: bytes were sent and not reported");
        let wanted = sockets().any(|socket| socket.shut_tried[SEND]);
        assert!(!view.shut || wanted, "connection {connection} was shut by nobody");
    }
}

// --- The tests ---

/// Says how to repeat what has just failed.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: WHARF_SEED={} cargo test -p wharf schedules", self.0);
        }
        stand_still(None);
    }
}

/// Returns what came of each operation.
fn run(seed: u64) -> String {
    let _replay = Replay(seed);
    let schedule = Schedule::new(seed, false);
    let steps = schedule.model.lock().rng.u32(30..=80);
    schedule.adopt();
    if seed.is_multiple_of(2) {
        schedule.listen();
    }
    if seed.is_multiple_of(3) {
        schedule.adopt_datagrams();
    }
    for nth in 0..steps {
        if schedule.model.lock().closed {
            break;
        }
        if seed.is_multiple_of(16) && nth == steps / 2 {
            schedule.send_without_end();
        }
        schedule.step();
    }
    schedule.finish();
    let model = schedule.model.lock();
    model.operations.iter().map(|operation| format!("{:?} {:?}\n", operation.kind, operation.fate)).collect()
}

/// The same with three threads: whatever the order, each operation completes once, and nothing hangs or is left.
fn run_threads(seed: u64) {
    let _replay = Replay(seed);
    let schedule = Schedule::new(seed, true);
    schedule.adopt();
    schedule.listen();
    schedule.adopt_datagrams();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|nth| {
                let schedule = &schedule;
                scope.spawn(move || {
                    for _ in 0..60 {
                        let wait = schedule.model.lock().rng.u8(..16) == 0;
                        if wait {
                            schedule.get_for(Duration::from_micros(200));
                        } else {
                            schedule.step();
                        }
                    }
                    if nth == 0 && seed.is_multiple_of(4) {
                        schedule.close_port();
                    }
                })
            })
            .collect();
        // Joined one by one: a scope's end does not wait for the threads' own data to be dropped.
        let failed = threads.into_iter().filter_map(|thread| thread.join().err()).last();
        if let Some(panic) = failed {
            std::panic::resume_unwind(panic);
        }
    });
    schedule.busy.store(false, Ordering::Relaxed);
    schedule.finish();
}

#[test]
fn a_seed_gives_the_same_schedule_again() {
    for seed in 0..30 {
        let play = |pause| {
            let played = std::thread::spawn(move || {
                PAUSE.set(pause);
                run(seed)
            });
            played.join().unwrap()
        };
        assert_eq!(play(Duration::ZERO), play(Duration::from_millis(5)), "the schedule of seed {seed}");
    }
}

#[test]
fn every_schedule_keeps_the_rules() {
    seeds::play(1_500, |seed| drop(run(seed)));
}

#[test]
fn every_operation_completes_once_whatever_threads_do() {
    let count = seeds::from_environment("WHARF_SCHEDULES").map_or(200, |count| count / 50);
    let first = fastrand::u64(..1 << 40);
    (first..first + count).for_each(run_threads);
}
