//! An engine over sockets in memory, for tests: every fault that the contract allows, drawn from a seed.
//!
//! The other end of a connection is not a socket but a few calls of the test (`peer_write`, `peer_reset` ...). What a
//! peer writes is a pattern ([`pattern`]), so that its bytes can be told by connection and position; what the port
//! sends is kept ([`Fake::sent`]). Time stands still until [`Fake::advance`].
//!
//! **Faults** (see [`Faults`]) are those of real systems: short transfers, `EAGAIN` although something is there, empty
//! polls, events that are spurious, delayed, reordered or late, errors of accept, connect and register. The engine's
//! side of the contract is kept: what is or becomes ready after an `EAGAIN` or a short transfer is reported again,
//! but for what a sticky bit announces. A handle's number is used again at once after its close.
//!
//! **The port's side is asserted**: handles are closed once, deregistered before, with no call on them under way; one
//! thread polls at a time; one call at a time is under way in each direction of a handle; the selector is told what a
//! call came to before the next.
//!
//! **The hook** is called before and after the effect of every call, with no lock of the fake held. It may call the
//! port: so one thread plays what another one would do at that moment, and the seed alone decides the interleaving.
//!
//! With the feature `fake` several ports share one in real time, with peers that read and write as sockets do:
//! `network.rs`.

mod calls;
mod datagrams;
#[cfg(feature = "fake")]
mod network;
#[cfg(feature = "fake")]
mod peers;
#[cfg(feature = "fake")]
mod ports;
mod selector;

#[cfg(feature = "fake")]
pub use network::Network;
#[cfg(feature = "fake")]
pub use peers::{Listener, Mail, Peer};
#[cfg(feature = "fake")]
pub use ports::stand_still;

#[cfg(test)]
pub(crate) use datagrams::{CARRIED_MAX, content, sender};

use crate::reactor::engine::{Events, Handle, Pieces, Readiness};
use crate::sync::{Lock, Monitor};
use crate::sys;
use crate::sys::errno::ECONNREFUSED;
use fastrand::Rng;
use rustix::fd::OwnedFd;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::{OnceLock, Weak};
use std::time::{Duration, Instant};

/// The lowest handle: above any descriptor of the system's, so that a call past the engine reaches nobody.
const FIRST_HANDLE: Handle = 1 << 28;
/// How long a `poll` without an end waits before it says that the watchdog timer went off.
const TICK: Duration = Duration::from_millis(1);

/// Which call of the engine the hook is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    Register,
    Deregister,
    Poll,
    OpenStream,
    Receive,
    Peek,
    Send,
    Accept,
    Connect,
    ConnectResult,
    AbortConnect,
    Shutdown,
    Close,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    Before,
    After,
}

type Hook = Box<dyn Fn(Call, When) + Send + Sync>;

/// How often, of 256 times, something goes wrong.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// A transfer moves less than it could.
    pub short: u8,
    /// `EAGAIN` although something is there; an edge follows.
    pub again: u8,
    /// An event without a reason.
    pub spurious: u8,
    /// An event waits for a later poll.
    pub delayed: u8,
    /// A poll brings nothing, as after EINTR.
    pub empty: u8,
    /// An event of a device that was deregistered is reported nevertheless.
    pub late: u8,
    /// An accept fails.
    pub accept: u8,
    /// A connect ends at once, well or not.
    pub connect: u8,
    /// A registration fails.
    pub register: u8,
}

impl Faults {
    fn drawn(rng: &mut Rng) -> Faults {
        let mut draw = |most: u8| if rng.bool() { rng.u8(..=most) } else { 0 };
        Faults {
            short: draw(160),
            again: draw(100),
            spurious: draw(160),
            delayed: draw(150),
            empty: draw(100),
            late: draw(255),
            accept: draw(120),
            connect: draw(200),
            register: draw(40),
        }
    }
}

/// A connection, as its peer and its socket see it. It outlives the socket.
#[derive(Debug)]
struct Connection {
    /// Bytes that the peer wrote, and how many of them were received.
    written: u64,
    taken: u64,
    /// The peer has shut its side.
    finished: bool,
    reset: bool,
    /// The reset was not reported yet.
    error: bool,
    /// Position of the urgent mark: a receive does not go beyond it in one call.
    urgent: Option<u64>,
    /// What was sent, how much of it the peer has read, and how much may lie unread.
    sent: Vec<u8>,
    read: usize,
    capacity: usize,
    /// A send found no space: there will be an edge.
    wants_space: bool,
    shut: bool,
    /// The socket was closed.
    closed: bool,
    /// Zero-byte receives that found something.
    peeked: u64,
    handle: Option<Handle>,
    /// What the peer wrote, where it is no pattern: the bytes from position `taken` on.
    given: VecDeque<u8>,
    /// The peer has closed its end: what is sent is answered by a reset.
    gone: bool,
    /// Its close is to reset it, by the port's wish.
    hard: bool,
    /// The socket was closed in such a way that its peer sees a reset.
    broken: bool,
    /// Bytes that were sent and not read when the socket was closed.
    unread_when_closed: usize,
    /// The address that was connected to.
    target: Option<SocketAddr>,
}

impl Connection {
    fn unread(&self) -> u64 {
        self.written - self.taken
    }

    fn space(&self) -> usize {
        self.capacity - (self.sent.len() - self.read)
    }

    fn bits(&self) -> u8 {
        let mut bits = self.sticky();
        if self.unread() > 0 || self.finished || self.reset {
            bits |= Readiness::RECEIVE;
        }
        if self.space() > 0 || self.reset {
            bits |= Readiness::SEND;
        }
        bits
    }

    fn sticky(&self) -> u8 {
        let mut bits = 0;
        if self.finished || self.reset {
            bits |= Readiness::HANG_UP;
        }
        if self.error {
            bits |= Readiness::ERROR;
        }
        if self.urgent.is_some_and(|mark| mark >= self.taken) {
            bits |= Readiness::URGENT;
        }
        bits
    }
}

#[derive(Debug)]
enum State {
    Fresh,
    Connecting,
    Refused(i32),
    Stream(usize),
    Listener(VecDeque<usize>),
    Mailbox(usize),
}

#[derive(Debug)]
struct Socket {
    state: State,
    device: Option<u64>,
    /// What the next poll reports.
    pending: u8,
    /// Bits that a poll has reported.
    reported: u8,
    /// The address that it connects to.
    target: Option<SocketAddr>,
    /// Calls under way: all, and by direction.
    calls: u32,
    under_way: [Option<Call>; 2],
    /// The last call in a direction, as long as the selector was not told what it came to.
    untold: [Option<Call>; 2],
}

struct Net {
    rng: Rng,
    faults: Faults,
    /// For the time being nothing goes wrong, and every poll brings everything.
    honest: bool,
    sockets: Vec<Option<Socket>>,
    /// The last closed is the next opened.
    free: Vec<Handle>,
    connections: Vec<Connection>,
    mailboxes: Vec<datagrams::Mailbox>,
    /// Connections that are each other's peers.
    #[cfg(feature = "fake")]
    links: Vec<[usize; 2]>,
    late: Vec<(u64, Readiness)>,
    /// Errors that calls to come return, whatever the state is.
    scripted: Vec<(Call, i32)>,
    time: Instant,
    deadline: Option<Instant>,
    kicked: bool,
}

impl Net {
    fn chance(&mut self, of_256: u8) -> bool {
        of_256 > 0 && !self.honest && self.rng.u8(..) < of_256
    }

    fn socket(&mut self, handle: Handle) -> &mut Socket {
        let index = usize::try_from(handle - FIRST_HANDLE).expect("a handle of this engine");
        self.sockets.get_mut(index).and_then(Option::as_mut).unwrap_or_else(|| panic!("handle {handle} is closed"))
    }

    fn open(&mut self, state: State) -> Handle {
        let handle = self.free.pop().unwrap_or_else(|| {
            self.sockets.push(None);
            FIRST_HANDLE + Handle::try_from(self.sockets.len()).unwrap() - 1
        });
        if let State::Stream(connection) = state {
            self.connections[connection].handle = Some(handle);
        }
        let socket = Socket {
            state,
            device: None,
            pending: 0,
            reported: 0,
            target: None,
            calls: 0,
            under_way: [None; 2],
            untold: [None; 2],
        };
        self.sockets[usize::try_from(handle - FIRST_HANDLE).unwrap()] = Some(socket);
        handle
    }

    fn new_connection(&mut self, capacity: usize) -> usize {
        self.connections.push(Connection {
            written: 0,
            taken: 0,
            finished: false,
            reset: false,
            error: false,
            urgent: None,
            sent: Vec::new(),
            read: 0,
            capacity,
            wants_space: false,
            shut: false,
            closed: false,
            peeked: 0,
            handle: None,
            given: VecDeque::new(),
            gone: false,
            hard: false,
            broken: false,
            unread_when_closed: 0,
            target: None,
        });
        self.connections.len() - 1
    }

    fn stream(&mut self, handle: Handle) -> usize {
        match self.socket(handle).state {
            State::Stream(connection) => connection,
            ref other => panic!("handle {handle} is not a connection but {other:?}"),
        }
    }

    fn edge(&mut self, handle: Handle, bits: u8) {
        let socket = self.socket(handle);
        if socket.device.is_some() {
            socket.pending |= bits;
        }
    }

    /// Something happened at the peer's end.
    fn arrival(&mut self, connection: usize, bits: u8) {
        if let Some(handle) = self.connections[connection].handle {
            self.edge(handle, bits);
        }
    }

    /// The peer breaks the connection off; what was not received is lost, or can still be received.
    fn reset(&mut self, connection: usize, loses: bool) {
        let one = &mut self.connections[connection];
        if !one.reset && !one.closed {
            one.reset = true;
            one.error = true;
            if loses {
                one.written = one.taken;
                one.given.clear();
            }
            self.arrival(connection, Readiness::RECEIVE | Readiness::SEND);
        }
    }

    fn state_bits(&mut self, handle: Handle) -> u8 {
        match &self.socket(handle).state {
            State::Fresh | State::Connecting => 0,
            State::Refused(_) => Readiness::RECEIVE | Readiness::SEND | Readiness::HANG_UP | Readiness::ERROR,
            State::Listener(backlog) if backlog.is_empty() => 0,
            State::Listener(_) => Readiness::RECEIVE,
            &State::Stream(connection) => self.connections[connection].bits(),
            &State::Mailbox(mailbox) => self.mailboxes[mailbox].bits(),
        }
    }

    fn begin(&mut self, call: Call, handle: Handle) {
        let socket = self.socket(handle);
        socket.calls += 1;
        if let Some(side) = side(call) {
            let other = socket.under_way[side].replace(call);
            assert!(other.is_none(), "{call:?} on handle {handle} while {other:?} is under way");
        }
        if let Some(side) = side(call).filter(|_| uses_readiness(call)) {
            let other = socket.untold[side];
            assert!(other.is_none(), "{call:?} on handle {handle} before the selector heard what {other:?} came to");
        }
    }

    fn end(&mut self, call: Call, handle: Handle) {
        let socket = self.socket(handle);
        socket.calls -= 1;
        if let Some(side) = side(call) {
            socket.under_way[side] = None;
            socket.untold[side] = Some(call).filter(|_| uses_readiness(call));
        }
    }

    fn scripted(&mut self, call: Call) -> Result<(), i32> {
        let at = self.scripted.iter().position(|&(scripted, _)| scripted == call);
        at.map_or(Ok(()), |at| Err(self.scripted.remove(at).1))
    }

    fn collect(&mut self, events: &mut Events) {
        self.kicked = false;
        if self.deadline.is_some_and(|at| at <= self.time) {
            self.deadline = None;
            events.deadline_passed = true;
        }
        self.collect_ready(events, |_| true);
    }

    /// What is ready among the devices that `own` says yes to.
    fn collect_ready(&mut self, events: &mut Events, own: impl Fn(u64) -> bool) {
        let empty = self.faults.empty;
        if self.chance(empty) {
            return;
        }
        let Faults { delayed, spurious, late, .. } = self.faults;
        let count = self.sockets.len();
        let first = if count > 1 && !self.honest { self.rng.usize(..count) } else { 0 };
        for index in (0..count).map(|index| (first + index) % count) {
            let Some(Socket { device: Some(device), pending, .. }) = self.sockets[index] else { continue };
            if pending == 0 || !own(device) || self.chance(delayed) {
                continue;
            }
            let state = self.state_bits(FIRST_HANDLE + Handle::try_from(index).unwrap());
            // A real event tells the whole state, or what there is of it when only the news is wanted.
            let news = if self.rng.bool() { pending } else { pending | state };
            let ready = news | (state & Readiness::STICKY);
            let socket = self.sockets[index].as_mut().expect("looked at above");
            socket.pending = 0;
            socket.reported |= ready;
            events.ready.push((device, Readiness(ready)));
        }
        if count > 0 && self.chance(spurious) {
            let index = self.rng.usize(..count);
            let handle = FIRST_HANDLE + Handle::try_from(index).unwrap();
            if let Some(Socket { device: Some(device), .. }) = self.sockets[index]
                && own(device)
            {
                let sticky = self.state_bits(handle) & self.socket(handle).reported & Readiness::STICKY;
                let ready = self.rng.u8(..) & (Readiness::RECEIVE | Readiness::SEND) | sticky;
                events.ready.push((device, Readiness(ready)));
            }
        }
        if !self.late.is_empty() && (self.honest || self.rng.u8(..) < late) {
            events.ready.extend(self.late.extract_if(.., |&mut (device, _)| own(device)));
        }
    }

    fn has_events(&self) -> bool {
        self.kicked
            || self.deadline.is_some_and(|at| at <= self.time)
            || self.sockets.iter().flatten().any(|socket| socket.pending != 0)
    }
}

fn side(call: Call) -> Option<usize> {
    match call {
        Call::Receive | Call::Peek | Call::Accept => Some(0),
        Call::Send | Call::Connect | Call::ConnectResult | Call::AbortConnect | Call::Shutdown => Some(1),
        Call::Register | Call::Deregister | Call::Poll | Call::OpenStream | Call::Close => None,
    }
}

/// A call that uses up what was reported of its side.
fn uses_readiness(call: Call) -> bool {
    matches!(call, Call::Receive | Call::Peek | Call::Accept | Call::Send | Call::Connect)
}

/// The byte that a connection's peer writes at a position.
pub(crate) fn pattern(connection: usize, at: u64) -> u8 {
    let mixed = (connection as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ at.wrapping_mul(0xD1B5_4A32_D192_ED03);
    (mixed >> 29) as u8
}

/// What a test sees of a connection.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(not(feature = "fake"), allow(dead_code, reason = "sessions' schedules look at all of it"))]
pub struct View {
    pub written: u64,
    pub taken: u64,
    pub finished: bool,
    pub reset: bool,
    pub shut: bool,
    pub space: usize,
    pub peeked: u64,
    /// Bytes that were sent, and how many of them the peer has read.
    pub sent: usize,
    pub read: usize,
    /// The port's socket was closed; so that its peer sees a reset, by the port's wish or not; and with so much on its
    /// way.
    pub closed: bool,
    pub hard: bool,
    pub broken: bool,
    pub unread_when_closed: usize,
}

/// See the top of this file.
pub struct Fake {
    net: Monitor<Net>,
    /// Raised with every notification of the net's, for those who wait for descriptors.
    wakers: Lock<Vec<Weak<OwnedFd>>>,
    polling: AtomicBool,
    hook: OnceLock<Hook>,
}

impl Fake {
    /// No faults.
    pub fn quiet() -> Fake {
        Fake::with(Rng::with_seed(0), Faults::default())
    }

    /// Faults of probabilities that the seed decides.
    pub fn new(seed: u64) -> Fake {
        let mut rng = Rng::with_seed(seed);
        let faults = Faults::drawn(&mut rng);
        Fake::with(rng, faults)
    }

    fn with(rng: Rng, faults: Faults) -> Fake {
        Fake {
            net: Monitor::new(Net {
                rng,
                faults,
                honest: false,
                sockets: Vec::new(),
                free: Vec::new(),
                connections: Vec::new(),
                mailboxes: Vec::new(),
                #[cfg(feature = "fake")]
                links: Vec::new(),
                late: Vec::new(),
                scripted: Vec::new(),
                time: Instant::now(),
                deadline: None,
                kicked: false,
            }),
            wakers: Lock::new(Vec::new()),
            polling: AtomicBool::new(false),
            hook: OnceLock::new(),
        }
    }

    /// Installs the hook; once.
    pub fn hook(&self, hook: impl Fn(Call, When) + Send + Sync + 'static) {
        assert!(self.hook.set(Box::new(hook)).is_ok(), "a hook is installed once");
    }

    /// Something has changed, whoever waits for it.
    fn wake(&self) {
        self.net.notify_all();
        self.wakers.lock().iter().filter_map(Weak::upgrade).for_each(|waker| {
            sys::raise(&waker);
        });
    }

    fn tell(&self, call: Call, when: When) {
        if let Some(hook) = self.hook.get() {
            hook(call, when);
        }
    }

    fn call<R>(&self, call: Call, handle: Handle, effect: impl FnOnce(&mut Net) -> R) -> R {
        self.net.lock().begin(call, handle);
        self.tell(call, When::Before);
        let result = effect(&mut self.net.lock());
        self.tell(call, When::After);
        self.net.lock().end(call, handle);
        self.wake();
        result
    }

    // --- What a test does in place of the system and the peers ---

    /// While honest, nothing goes wrong and nothing is delayed.
    pub fn honest(&self, honest: bool) {
        self.net.lock().honest = honest;
    }

    /// The next `call` fails with `error`, and has no effect.
    pub fn fail_next(&self, call: Call, error: i32) {
        self.net.lock().scripted.push((call, error));
    }

    pub fn advance(&self, by: Duration) {
        self.net.lock().time += by;
        self.wake();
    }

    /// A connected socket whose peer leaves up to `capacity` bytes unread.
    pub fn connected(&self, capacity: usize) -> (Handle, usize) {
        let mut net = self.net.lock();
        let connection = net.new_connection(capacity);
        (net.open(State::Stream(connection)), connection)
    }

    pub fn listening(&self) -> Handle {
        self.net.lock().open(State::Listener(VecDeque::new()))
    }

    /// A peer connects to a listener.
    pub fn peer_connects(&self, listener: Handle, capacity: usize) -> usize {
        let mut net = self.net.lock();
        let connection = net.new_connection(capacity);
        match &mut net.socket(listener).state {
            State::Listener(backlog) => backlog.push_back(connection),
            other => panic!("not a listener but {other:?}"),
        }
        net.edge(listener, Readiness::RECEIVE);
        drop(net);
        self.wake();
        connection
    }

    /// A connect that is in progress ends; if well, with this connection.
    pub fn end_connect(&self, handle: Handle, well: bool, capacity: usize) -> Option<usize> {
        let mut net = self.net.lock();
        if !matches!(net.socket(handle).state, State::Connecting) {
            return None;
        }
        let connection = well.then(|| net.new_connection(capacity));
        match connection {
            Some(connection) => {
                net.connections[connection].handle = Some(handle);
                net.connections[connection].target = net.socket(handle).target;
                net.socket(handle).state = State::Stream(connection);
                net.edge(handle, Readiness::SEND);
            }
            None => {
                net.socket(handle).state = State::Refused(ECONNREFUSED);
                net.edge(handle, Readiness::SEND | Readiness::RECEIVE);
            }
        }
        drop(net);
        self.wake();
        connection
    }

    /// The connection of a connected socket.
    pub fn connection_of(&self, handle: Handle) -> Option<usize> {
        match self.net.lock().socket(handle).state {
            State::Stream(connection) => Some(connection),
            _ => None,
        }
    }

    pub fn peer_writes(&self, connection: usize, bytes: u64) {
        let mut net = self.net.lock();
        let one = &mut net.connections[connection];
        if !one.finished && !one.reset && !one.closed {
            one.written += bytes;
            net.arrival(connection, Readiness::RECEIVE);
        }
        drop(net);
        self.wake();
    }

    /// The peer writes these bytes: on a connection whose peer never writes the pattern. After the socket's close a
    /// kernel answers by a reset.
    #[cfg(feature = "fake")]
    pub fn peer_says(&self, connection: usize, bytes: &[u8]) {
        let mut net = self.net.lock();
        let one = &mut net.connections[connection];
        if one.closed {
            one.broken = true;
        } else if !one.finished && !one.reset {
            one.given.extend(bytes);
            one.written += bytes.len() as u64;
            net.arrival(connection, Readiness::RECEIVE);
        }
        drop(net);
        self.wake();
    }

    /// Sockets that are connecting, and to where.
    #[cfg(feature = "fake")]
    pub fn connecting(&self) -> Vec<(Handle, SocketAddr)> {
        let net = self.net.lock();
        let handles = net.sockets.iter().enumerate().filter_map(|(index, socket)| {
            let socket = socket.as_ref().filter(|socket| matches!(socket.state, State::Connecting))?;
            Some((FIRST_HANDLE + Handle::try_from(index).unwrap(), socket.target?))
        });
        handles.collect()
    }

    /// The last connection that was made to this address.
    #[cfg(feature = "fake")]
    pub fn connection_to(&self, target: SocketAddr) -> Option<usize> {
        self.net.lock().connections.iter().rposition(|one| one.target == Some(target))
    }

    /// When the next poll is to say that time is over.
    #[cfg(feature = "fake")]
    pub fn deadline(&self) -> Option<Instant> {
        self.net.lock().deadline
    }

    /// The peer sends an urgent byte: a mark behind what was written.
    pub fn peer_urges(&self, connection: usize) {
        let mut net = self.net.lock();
        let one = &mut net.connections[connection];
        if !one.finished && !one.reset && !one.closed {
            one.urgent = Some(one.written);
            net.arrival(connection, Readiness::RECEIVE | Readiness::URGENT);
        }
    }

    /// The peer reads up to `bytes` of what was sent.
    pub fn peer_reads(&self, connection: usize, bytes: usize) {
        let mut net = self.net.lock();
        let one = &mut net.connections[connection];
        one.read = (one.read + bytes).min(one.sent.len());
        if one.wants_space && one.space() > 0 {
            one.wants_space = false;
            net.arrival(connection, Readiness::SEND);
        }
        drop(net);
        self.wake();
    }

    /// The peer shuts its sending side.
    pub fn peer_finishes(&self, connection: usize) {
        let mut net = self.net.lock();
        let one = &mut net.connections[connection];
        if !one.finished && !one.reset && !one.closed {
            one.finished = true;
            net.arrival(connection, Readiness::RECEIVE);
        }
        drop(net);
        self.wake();
    }

    /// The peer resets the connection; what was not received is lost, or can still be received.
    pub fn peer_resets(&self, connection: usize, loses: bool) {
        self.net.lock().reset(connection, loses);
        self.wake();
    }

    pub fn view(&self, connection: usize) -> View {
        let net = self.net.lock();
        let one = &net.connections[connection];
        View {
            written: one.written,
            taken: one.taken,
            finished: one.finished,
            reset: one.reset,
            shut: one.shut,
            space: one.space(),
            peeked: one.peeked,
            sent: one.sent.len(),
            read: one.read,
            closed: one.closed,
            hard: one.hard,
            broken: one.broken,
            unread_when_closed: one.unread_when_closed,
        }
    }

    /// Everything the system took from the port for this connection.
    pub fn sent(&self, connection: usize) -> Vec<u8> {
        self.net.lock().connections[connection].sent.clone()
    }

    /// How many bytes that are.
    pub fn sent_bytes(&self, connection: usize) -> usize {
        self.net.lock().connections[connection].sent.len()
    }

    pub fn backlog(&self, listener: Handle) -> usize {
        match &self.net.lock().socket(listener).state {
            State::Listener(backlog) => backlog.len(),
            _ => 0,
        }
    }

    /// A connect is over, and its end was not fetched.
    pub fn connect_is_over(&self, handle: Handle) -> bool {
        matches!(self.net.lock().socket(handle).state, State::Stream(_) | State::Refused(_))
    }

    /// No call on the handle is under way, and no poll will tell of it.
    pub fn is_at_rest(&self, handle: Handle) -> bool {
        let mut net = self.net.lock();
        let socket = net.socket(handle);
        socket.calls == 0 && socket.device.is_none()
    }

    pub fn is_open(&self, handle: Handle) -> bool {
        let index = usize::try_from(handle - FIRST_HANDLE).unwrap();
        self.net.lock().sockets.get(index).is_some_and(Option::is_some)
    }

    pub fn open_handles(&self) -> Vec<Handle> {
        let net = self.net.lock();
        let open = net.sockets.iter().enumerate().filter(|(_, socket)| socket.is_some());
        open.map(|(index, _)| FIRST_HANDLE + Handle::try_from(index).unwrap()).collect()
    }
}
