//! The fake network in real time, under ports that threads use as any other: for the conformance suite, which so runs
//! its rows on it.
//!
//! The schedules of the library's own tests call a [`Fake`] by its own numbers. Here the port and its user need sockets
//! that std can hold, so each socket of the network is *named* by a real one that carries nothing: the descriptor's
//! number, the addresses and the options are the kernel's; bytes, readiness, errors, ends and the order of all of it
//! are the fake's. What a program does with such a socket past the port (a plain write, a drop) its peer sees as well,
//! as the kernel tells it to the other end of the name.
//!
//! A network belongs to any number of ports, and sockets may go from one to another. Of the faults those are on that no
//! program may notice: events without a reason, late ones, some that wait for a later poll, and polls that bring
//! nothing.
//!
//! Not there: pipes, files, child processes and Unix sockets; time-outs of the system's own; a peer that is a std
//! socket.

use super::peers::{self, Listener, Mail, Peer};
use super::{Events, Fake, Faults, Handle, Pieces, Readiness, State};
use crate::op::{Datagram, RawBuffer, Side};
use crate::port::{CompletionPort, Context, Key, PortOptions};
use crate::raw;
use crate::reactor::engine::calls::{System, borrow, is_open};
use crate::reactor::engine::{Calls, Engine, Outcome, Selector};
use crate::sync::Lock;
use crate::sys::{self, errno};
use fastrand::Rng;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::net::{SocketType, sockopt};
use std::collections::VecDeque;
use std::collections::hash_map::{Entry, HashMap};
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener as StdListener, TcpStream as StdStream, UdpSocket as StdUdp};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// What one side may leave unread: more than an exchange of words, less than what the suite calls much.
const ROOM: usize = 2 << 20;
/// The longest datagram of UDP over IPv4.
const LONGEST: usize = 65_507;
/// Datagrams that may wait to leave; they leave at once.
const WAITING_MAX: usize = 64;
/// The kernel makes connections between names at once; a busy machine takes a moment.
const NAMES_PATIENCE: Duration = Duration::from_secs(5);
/// Registrations in a device's key; above them the port's number.
const KEY_BITS: u32 = 40;

/// A socket of the network, by the descriptor that names it.
struct Named {
    /// The fake's number for it.
    handle: Handle,
    registered: bool,
    /// The name's address where it was given: a descriptor of this number that has another is another socket.
    address: Option<SocketAddr>,
}

/// Who answers at an address.
enum Door {
    /// A port's listener: its descriptor, and the fake's number.
    Port(Handle, Handle),
    Peer(Arc<peers::Waiting>),
    /// Connects stay without an answer: the descriptors that wait for one.
    Deaf(Vec<Handle>),
}

#[derive(Default)]
struct Names {
    sockets: HashMap<Handle, Named>,
    doors: HashMap<SocketAddr, Door>,
    mail: HashMap<u16, Arc<peers::Letters>>,
    /// Whose a key is that the fake knows a device by.
    devices: Vec<u64>,
    ports: u64,
}

pub(super) struct Shared {
    pub(super) fake: Fake,
    names: Lock<Names>,
}

/// A network in memory, for ports that are to be tried without the system's sockets. Clones name the same network.
#[derive(Clone)]
pub struct Network(Arc<Shared>);

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").finish_non_exhaustive()
    }
}

impl Network {
    /// A network whose faults the seed draws.
    pub fn new(seed: u64) -> Network {
        let faults = Faults { spurious: 48, delayed: 48, empty: 24, late: 128, ..Faults::default() };
        Network(Arc::new(Shared { fake: Fake::with(Rng::with_seed(seed), faults), names: Lock::default() }))
    }

    /// A port of this network; what the options say of sockets does not count.
    ///
    /// # Errors
    ///
    /// Those of [`PortOptions::build`].
    pub fn port<K: Key, C: Context>(&self, options: &PortOptions) -> io::Result<CompletionPort<K, C>> {
        Ok(CompletionPort::from_raw(self.raw(options.config::<K, C>()?)?))
    }

    /// A port of the raw layer.
    ///
    /// # Errors
    ///
    /// Those of [`raw::Port::new`].
    pub fn raw(&self, config: raw::Config) -> io::Result<raw::Port> {
        let port =
            crate::reactor::Port::build(config, |watch| Ok(Engine::of(Arc::new(Wired::new(self.0.clone(), watch)?))))?;
        Ok(raw::Port(port))
    }

    /// Both ends of a connection: a socket for a port, and its peer, each of which leaves up to `room` bytes unread
    /// (`None`: much).
    ///
    /// # Errors
    ///
    /// The system's, of the socket that names it.
    pub fn pair(&self, room: Option<usize>) -> io::Result<(StdStream, Peer)> {
        let (server, end) = names()?;
        let (handle, connection) = self.0.fake.connected(room.unwrap_or(ROOM));
        self.0.know(&server, handle)?;
        Ok((server, Peer::new(self.0.clone(), connection, room.unwrap_or(ROOM), end)?))
    }

    /// Both ends of a connection, each for a port.
    ///
    /// # Errors
    ///
    /// As [`pair`](Network::pair).
    pub fn both(&self) -> io::Result<(StdStream, StdStream)> {
        let (one, two) = names()?;
        let ends = [self.0.fake.connected(ROOM), self.0.fake.connected(ROOM)];
        self.0.fake.net.lock().links.push([ends[0].1, ends[1].1]);
        self.0.know(&one, ends[0].0)?;
        self.0.know(&two, ends[1].0)?;
        Ok((one, two))
    }

    /// Connects to a port's listener.
    ///
    /// # Errors
    ///
    /// Nobody listens there.
    pub fn connect(&self, to: SocketAddr) -> io::Result<Peer> {
        let names = self.0.names.lock();
        let end = StdStream::connect(to)?;
        match names.doors.get(&to) {
            Some(&Door::Port(_, listener)) => {
                let connection = self.0.fake.peer_connects(listener, ROOM);
                Peer::new(self.0.clone(), connection, ROOM, end)
            }
            _ => Err(io::Error::other("who listens there is not of the fake network")),
        }
    }

    /// A peer that listens; if `deaf`, those who connect get no answer before it has been asked twice for who is there.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn listener(&self, deaf: bool) -> io::Result<Listener> {
        let name = StdListener::bind("127.0.0.1:0")?;
        let address = name.local_addr()?;
        let waiting = Arc::new(peers::Waiting::new(name));
        let door = if deaf { Door::Deaf(Vec::new()) } else { Door::Peer(waiting.clone()) };
        self.0.names.lock().doors.insert(address, door);
        Ok(Listener::new(self.0.clone(), address, waiting))
    }

    /// A peer that sends and receives datagrams.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn mail(&self) -> io::Result<Mail> {
        let name = StdUdp::bind("127.0.0.1:0")?;
        let address = name.local_addr()?;
        let letters = Arc::new(peers::Letters::default());
        self.0.names.lock().mail.insert(address.port(), letters.clone());
        Ok(Mail::new(self.0.clone(), name, address, letters))
    }
}

/// A connection of the kernel's, whose ends are names.
fn names() -> io::Result<(StdStream, StdStream)> {
    let listener = StdListener::bind("127.0.0.1:0")?;
    let end = StdStream::connect(listener.local_addr()?)?;
    let (server, _) = listener.accept()?;
    Ok((server, end))
}

/// Waits until the kernel has done for a name what it was asked.
fn until_ready(name: impl AsFd, what: PollFlags) {
    let wait = sys::timespec(NAMES_PATIENCE);
    let _ = poll(&mut [PollFd::new(&name, what)], Some(&wait));
}

/// Connects a name to another one that listens.
fn link_names(name: Handle, to: SocketAddr) {
    let _ = System.connect(name, &to);
    until_ready(borrow(name), PollFlags::OUT);
}

fn own_address(name: impl AsFd) -> Option<SocketAddr> {
    rustix::net::getsockname(name).ok().and_then(|address| SocketAddr::try_from(address).ok())
}

impl Shared {
    /// From now on this descriptor names a socket of the fake's.
    fn know(&self, name: &impl AsRawFd, handle: Handle) -> io::Result<()> {
        let address = own_address(borrow(name.as_raw_fd()));
        self.names.lock().sockets.insert(name.as_raw_fd(), Named { handle, registered: false, address });
        Ok(())
    }

    /// The fake's number for a descriptor's socket; what the network has not made itself gets one if it is a listener
    /// or sends datagrams.
    fn find(&self, names: &mut Names, name: Handle) -> Result<Handle, i32> {
        let fd = borrow(name);
        let address = own_address(fd);
        if let Some(known) = names.sockets.get(&name)
            && (known.address.is_none() || known.address == address)
        {
            return Ok(known.handle);
        }
        let kind = sockopt::socket_type(fd).map_err(|_| errno::EINVAL)?;
        let handle = match kind {
            SocketType::DGRAM => {
                let (handle, mailbox) = self.fake.datagrams(WAITING_MAX, false);
                self.fake.net.lock().mailboxes[mailbox].carries(LONGEST);
                handle
            }
            SocketType::STREAM if sys::is_listening(&fd).is_ok_and(|listens| listens) => {
                let handle = self.fake.listening();
                if let Some(address) = address {
                    names.doors.insert(address, Door::Port(name, handle));
                }
                handle
            }
            // A stream that this network did not make.
            _ => return Err(errno::EOPNOTSUPP),
        };
        // A datagram socket may be bound later.
        let address = address.filter(|_| kind == SocketType::STREAM);
        names.sockets.insert(name, Named { handle, registered: false, address });
        Ok(handle)
    }

    /// Makes a connection of one that still connects, for a peer that listens there.
    fn admit(self: &Arc<Self>, name: Handle, handle: Handle, to: SocketAddr, waiting: &peers::Waiting) {
        let Some(connection) = self.fake.end_connect(handle, true, ROOM) else { return };
        link_names(name, to);
        let (end, from) = waiting.name.accept().expect("a name connects to this one");
        waiting.push(Peer::new(self.clone(), connection, ROOM, end).expect("an end of a name"), from);
    }

    /// Those who got no answer so far get one, unless they have given up.
    pub(super) fn answer(self: &Arc<Self>, address: SocketAddr, waiting: &peers::Waiting) {
        let mut names = self.names.lock();
        let Some(Door::Deaf(connecting)) = names.doors.get_mut(&address) else { return };
        for name in std::mem::take(connecting) {
            if let Some(named) = names.sockets.get(&name) {
                self.admit(name, named.handle, address, waiting);
            }
        }
    }

    /// Takes a listening peer's address from it, or a correspondent's.
    pub(super) fn forget(&self, address: SocketAddr, mail: bool) {
        let mut names = self.names.lock();
        if mail {
            names.mail.remove(&address.port());
        } else {
            names.doors.remove(&address);
        }
    }

    /// What a datagram socket has sent goes where it is addressed to.
    fn carry_mail(&self, name: Handle) {
        let names = self.names.lock();
        let Some(from) = own_address(borrow(name)) else { return };
        let Some(&Named { handle, .. }) = names.sockets.get(&name) else { return };
        let (mailbox, leaving) = {
            let mut net = self.fake.net.lock();
            let State::Mailbox(mailbox) = net.socket(handle).state else { return };
            (mailbox, net.mailboxes[mailbox].leave())
        };
        for (bytes, to) in leaving {
            let peer = || rustix::net::getpeername(borrow(name)).ok().flatten();
            let Some(to) = to.or_else(|| SocketAddr::try_from(peer()?).ok()) else { continue };
            if !self.deliver(&names, from, to, bytes) {
                self.fake.datagram_is_refused(mailbox, to);
            }
        }
        self.fake.wake();
    }

    /// A correspondent's datagram; nobody need be there.
    pub(super) fn post(&self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        self.deliver(&self.names.lock(), from, to, bytes);
        self.fake.wake();
    }

    /// False when nobody is at the address.
    fn deliver(&self, names: &Names, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) -> bool {
        if let Some(letters) = names.mail.get(&to.port()) {
            letters.push(bytes, from);
            return true;
        }
        for (&name, named) in &names.sockets {
            let fd = borrow(name);
            let mut net = self.fake.net.lock();
            let State::Mailbox(mailbox) = net.socket(named.handle).state else { continue };
            if own_address(fd).is_none_or(|own| own.port() != to.port()) {
                continue;
            }
            let peer = rustix::net::getpeername(fd).ok().flatten().and_then(|peer| SocketAddr::try_from(peer).ok());
            let room = sockopt::socket_recv_buffer_size(fd).unwrap_or(0);
            if peer.is_none_or(|peer| peer == from) && net.mailboxes[mailbox].takes(bytes, from, room) {
                net.edge(named.handle, Readiness::RECEIVE);
            }
            return true;
        }
        false
    }
}

/// The engine of one port of the network.
struct Wired {
    network: Arc<Shared>,
    port: u64,
    waker: Arc<OwnedFd>,
    watch: OwnedFd,
    kicked: AtomicBool,
    deadline: Lock<Option<Instant>>,
    polling: AtomicBool,
}

impl Wired {
    fn new(network: Arc<Shared>, watch: BorrowedFd<'_>) -> io::Result<Wired> {
        let waker = Arc::new(sys::event()?);
        network.fake.wakers.lock().push(Arc::downgrade(&waker));
        let port = {
            let mut names = network.names.lock();
            names.ports += 1;
            names.ports
        };
        Ok(Wired {
            network,
            port,
            waker,
            watch: watch.try_clone_to_owned()?,
            kicked: AtomicBool::new(false),
            deadline: Lock::new(None),
            polling: AtomicBool::new(false),
        })
    }

    /// The fake's number for a socket that the port uses.
    fn named(&self, name: Handle) -> Handle {
        let names = self.network.names.lock();
        names.sockets.get(&name).unwrap_or_else(|| panic!("descriptor {name} names no socket of the network")).handle
    }

    /// A call on a connection: what it has sent to another socket of the network arrives there.
    fn on<R>(&self, name: Handle, call: impl FnOnce(&Fake, Handle) -> R) -> R {
        let fake = &self.network.fake;
        let result = call(fake, self.named(name));
        if fake.net.lock().carry() {
            fake.wake();
        }
        result
    }

    /// A call on a datagram socket, which has to know whether it is connected; what it has sent leaves.
    fn by_mail<R>(&self, name: Handle, call: impl FnOnce(&Fake, Handle) -> R) -> R {
        let fake = &self.network.fake;
        let handle = self.named(name);
        let connected = System.has_peer(name);
        {
            let mut net = fake.net.lock();
            if let State::Mailbox(mailbox) = net.socket(handle).state {
                net.mailboxes[mailbox].connects(connected);
            }
        }
        let result = call(fake, handle);
        self.network.carry_mail(name);
        result
    }
}

impl Selector for Wired {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn register(&self, name: Handle, device: u64) -> Result<(), i32> {
        is_open(name)?;
        let mut names = self.network.names.lock();
        let handle = self.network.find(&mut names, name)?;
        let key = self.port << KEY_BITS | names.devices.len() as u64;
        names.devices.push(device);
        let named = names.sockets.get_mut(&name).expect("just found");
        if named.registered {
            return Err(errno::EEXIST);
        }
        self.network.fake.register(handle, key)?;
        named.registered = true;
        Ok(())
    }

    fn deregister(&self, name: Handle) {
        let mut names = self.network.names.lock();
        if let Some(named) = names.sockets.get_mut(&name)
            && std::mem::take(&mut named.registered)
        {
            self.network.fake.deregister(named.handle);
        }
    }

    fn poll(&self, wait: Option<Duration>, events: &mut Events) {
        assert!(!self.polling.swap(true, Ordering::AcqRel), "two threads poll at once");
        let until = wait.map(|wait| Instant::now() + wait);
        loop {
            // Before looking: what comes behind it raises it again.
            sys::lower(&self.waker);
            let kicked = self.kicked.swap(false, Ordering::AcqRel);
            if self.deadline.lock().take_if(|at| *at <= Instant::now()).is_some() {
                events.deadline_passed = true;
            }
            let own = |key: u64| key >> KEY_BITS == self.port;
            let faulted = {
                let mut net = self.network.fake.net.lock();
                let mut sockets = net.sockets.iter().flatten();
                let some = sockets.any(|socket| socket.pending != 0 && socket.device.is_some_and(own));
                net.collect_ready(events, own);
                some && events.ready.is_empty()
            };
            if kicked || events.deadline_passed || faulted || !events.ready.is_empty() {
                break;
            }
            let ends = [until, *self.deadline.lock()].into_iter().flatten().min();
            let left = ends.map(|at| at.saturating_duration_since(Instant::now()));
            if until.is_some_and(|at| at <= Instant::now()) {
                break;
            }
            let mut waits = [PollFd::new(&self.waker, PollFlags::IN), PollFd::new(&self.watch, PollFlags::IN)];
            let interrupted = poll(&mut waits, left.map(sys::timespec).as_ref()).is_err();
            events.ticked |= !waits[1].revents().is_empty() && sys::take_expiry(&self.watch);
            if interrupted || events.ticked {
                break;
            }
        }
        let names = self.network.names.lock();
        for (key, _) in &mut events.ready {
            *key = names.devices[usize::try_from(*key & ((1 << KEY_BITS) - 1)).expect("an index")];
        }
        drop(names);
        self.polling.store(false, Ordering::Release);
    }

    fn kick(&self) {
        self.kicked.store(true, Ordering::Release);
        sys::raise(&self.waker);
    }

    fn set_deadline(&self, at: Option<Instant>) {
        *self.deadline.lock() = at;
        sys::raise(&self.waker);
    }

    fn used(&self, name: Handle, side: Side, outcome: Outcome) {
        self.network.fake.used(self.named(name), side, outcome);
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

impl Calls for Wired {
    fn open_stream(&self, peer: &SocketAddr) -> Result<Handle, i32> {
        let name = System.open_stream(peer)?;
        let handle = self.network.fake.open_stream(peer)?;
        self.network.names.lock().sockets.insert(name, Named { handle, registered: false, address: None });
        Ok(name)
    }

    fn receive(&self, name: Handle, into: &[RawBuffer]) -> Result<usize, i32> {
        self.on(name, |fake, handle| fake.receive(handle, into))
    }

    fn receive_flagged(&self, name: Handle, into: &[RawBuffer], urgent: bool, stays: bool) -> Result<usize, i32> {
        self.on(name, |fake, handle| fake.receive_flagged(handle, into, urgent, stays))
    }

    fn peek(&self, name: Handle) -> Result<(), i32> {
        self.on(name, |fake, handle| fake.peek(handle))
    }

    fn send(&self, name: Handle, from: &[RawBuffer], more: bool) -> Result<usize, i32> {
        self.on(name, |fake, handle| fake.send(handle, from, more))
    }

    fn send_file(&self, name: Handle, file: Handle, offset: u64, count: u64) -> Result<usize, i32> {
        self.on(name, |fake, handle| fake.send_file(handle, file, offset, count))
    }

    fn read(&self, _name: Handle, _into: &[RawBuffer]) -> Result<usize, i32> {
        unreachable!("what is no socket cannot be registered")
    }

    fn write(&self, _name: Handle, _from: &[RawBuffer]) -> Result<usize, i32> {
        unreachable!("what is no socket cannot be registered")
    }

    fn is_readable(&self, _name: Handle) -> Result<(), i32> {
        unreachable!("what is no socket cannot be registered")
    }

    fn exit_status(&self, _name: Handle) -> Result<i32, i32> {
        unreachable!("what is no socket cannot be registered")
    }

    fn receive_from(&self, name: Handle, into: &[RawBuffer]) -> Result<Datagram, i32> {
        self.by_mail(name, |fake, handle| fake.receive_from(handle, into))
    }

    fn send_to(&self, name: Handle, from: &[RawBuffer], to: Option<&SocketAddr>) -> Result<(), i32> {
        if !System.is_bound(name) {
            let any = SocketAddr::from(([0, 0, 0, 0], 0));
            rustix::net::bind(borrow(name), &any).map_err(rustix::io::Errno::raw_os_error)?;
        }
        self.by_mail(name, |fake, handle| fake.send_to(handle, from, to))
    }

    fn receive_many(&self, name: Handle, into: &Pieces, found: &mut Vec<Datagram>) -> Result<(), i32> {
        self.by_mail(name, |fake, handle| fake.receive_many(handle, into, found))
    }

    fn send_many(&self, name: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32> {
        self.by_mail(name, |fake, handle| fake.send_many(handle, from, to))
    }

    fn keep_refusals(&self, name: Handle, keep: bool) -> Result<(), i32> {
        self.by_mail(name, |fake, handle| fake.keep_refusals(handle, keep))
    }

    fn refusal(&self, name: Handle) -> Result<(i32, Option<SocketAddr>), i32> {
        self.by_mail(name, |fake, handle| fake.refusal(handle))
    }

    fn has_peer(&self, name: Handle) -> bool {
        System.has_peer(name)
    }

    fn is_bound(&self, name: Handle) -> bool {
        System.is_bound(name)
    }

    fn accept(&self, name: Handle) -> Result<(Handle, Option<SocketAddr>), i32> {
        // Both queues have the same order, for who connects does so under this lock.
        let mut names = self.network.names.lock();
        let listener = names.sockets[&name].handle;
        let (handle, _) = self.network.fake.accept(listener)?;
        until_ready(borrow(name), PollFlags::IN);
        let (accepted, peer) = System.accept(name)?;
        let address = own_address(borrow(accepted));
        names.sockets.insert(accepted, Named { handle, registered: false, address });
        Ok((accepted, peer))
    }

    fn connect(&self, name: Handle, peer: &SocketAddr) -> Result<(), i32> {
        let fake = &self.network.fake;
        let mut names = self.network.names.lock();
        // A socket with options of its own, that was given to the port.
        let handle = match names.sockets.entry(name) {
            Entry::Occupied(known) => known.get().handle,
            Entry::Vacant(new) => {
                let handle = fake.open_stream(peer)?;
                new.insert(Named { handle, registered: false, address: None }).handle
            }
        };
        let begun = fake.connect(handle, peer);
        assert_eq!(begun, Err(errno::EINPROGRESS), "no connect of this network ends at once");
        match names.doors.get_mut(peer) {
            Some(&mut Door::Port(_, listener)) => {
                link_names(name, *peer);
                let own = fake.end_connect(handle, true, ROOM).expect("it is connecting");
                let other = fake.peer_connects(listener, ROOM);
                fake.net.lock().links.push([own, other]);
            }
            Some(Door::Peer(waiting)) => {
                let waiting = waiting.clone();
                self.network.admit(name, handle, *peer, &waiting);
            }
            Some(Door::Deaf(connecting)) => connecting.push(name),
            None => {
                fake.end_connect(handle, false, ROOM);
            }
        }
        fake.wake();
        Err(errno::EINPROGRESS)
    }

    fn connect_result(&self, name: Handle) -> Result<(), i32> {
        self.on(name, |fake, handle| fake.connect_result(handle))
    }

    fn abort_connect(&self, name: Handle) {
        self.on(name, |fake, handle| fake.abort_connect(handle));
        System.abort_connect(name);
    }

    fn unacknowledged(&self, name: Handle) -> Option<u64> {
        self.on(name, Calls::unacknowledged)
    }

    fn is_broken(&self, name: Handle) -> bool {
        self.on(name, Calls::is_broken)
    }

    fn reset_when_closed(&self, name: Handle) {
        self.on(name, Calls::reset_when_closed);
    }

    fn shutdown(&self, name: Handle, how: Shutdown) -> Result<(), i32> {
        self.on(name, |fake, handle| fake.shutdown(handle, how))
    }

    fn close(&self, name: Handle) {
        let hard = sockopt::socket_linger(borrow(name)) == Ok(Some(Duration::ZERO));
        let mut names = self.network.names.lock();
        let Some(Named { handle, .. }) = names.sockets.remove(&name) else { return System.close(name) };
        names.doors.retain(|_, door| !matches!(door, Door::Port(of, _) if *of == name));
        let fake = &self.network.fake;
        {
            let mut net = fake.net.lock();
            let never_taken = match &mut net.socket(handle).state {
                State::Listener(backlog) => std::mem::take(backlog),
                &mut State::Stream(connection) => {
                    net.connections[connection].hard |= hard;
                    VecDeque::new()
                }
                _ => VecDeque::new(),
            };
            for connection in never_taken {
                let one = &mut net.connections[connection];
                (one.closed, one.broken) = (true, true);
            }
        }
        fake.close(handle);
        fake.net.lock().carry();
        drop(names);
        System.close(name);
        fake.wake();
    }

    fn close_copy(&self, name: Handle) {
        System.close_copy(name);
    }
}

impl super::Net {
    /// What was sent on connections between two sockets arrives, as far as there is room; whether anything did.
    fn carry(&mut self) -> bool {
        let mut moved = false;
        for at in 0..self.links.len() {
            let [one, two] = self.links[at];
            moved |= self.carry_one(one, two) | self.carry_one(two, one);
        }
        moved
    }

    fn carry_one(&mut self, from: usize, to: usize) -> bool {
        let room = ROOM.saturating_sub(usize::try_from(self.connections[to].unread()).unwrap_or(ROOM));
        let bytes = self.connections[from].read_sent(room);
        if !bytes.is_empty() {
            self.space(from);
            let target = &mut self.connections[to];
            target.written += bytes.len() as u64;
            target.given.extend(&bytes);
            self.arrival(to, Readiness::RECEIVE);
        }
        let source = &self.connections[from];
        let (over, broken) = (source.unread_sent() == 0 && (source.shut || source.closed), source.broken);
        let ends = over && !self.connections[to].finished;
        if broken && !self.connections[to].reset {
            self.reset(to, false);
        } else if ends {
            self.connections[to].finished = true;
            self.arrival(to, Readiness::RECEIVE);
        }
        ends || !bytes.is_empty()
    }

    /// What was sent was read: whoever waited for space hears of it.
    pub(super) fn space(&mut self, connection: usize) {
        let one = &mut self.connections[connection];
        if one.space() > 0 && std::mem::take(&mut one.wants_space) {
            self.arrival(connection, Readiness::SEND);
        }
    }
}
