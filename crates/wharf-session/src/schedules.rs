#![cfg(test)]
//! Random schedules of whole sessions on the [fake engine](wharf::fake): a service without workers, whose
//! packets the schedule handles itself, its peers, and its owner, in a time of their own. All on one thread: a seed
//! always gives the same schedule. (`testing/schedules.rs` of wharf does the same for the raw
//! layer.)
//!
//! - *Peers* (`peers.rs`) read all, slowly, or not at all, type byte by byte or flood, end their side, reset, or never
//!   answer a connect.
//! - *The owner* (`owner.rs`) sends, broadcasts, pauses, finishes, closes, aborts, drains, shuts down and drops the
//!   service, in handlers, between packets, and in the middle of the engine's calls, as another thread would.
//! - *The oracle* (`oracle.rs`) compares what was accepted with what each peer heard and what was told as lost, to the
//!   byte. Who heard an end has heard all, and no part of a message alone. `closed` is called once, and last. Limits
//!   are kept, and none comes early. After the end nothing is left, and the reports add up.
//!
//! A failure prints its seed. To replay it, and to run many schedules:
//!
//! ```text
//! WHARF_SEED=123 cargo test -p wharf-session --lib schedules
//! WHARF_SCHEDULES=100000 cargo test --release -p wharf-session --lib schedules
//! ```

mod actor;
mod oracle;
mod owner;
mod peers;
mod scenarios;

use crate::closed::Closed;
use crate::conn::Conn;
use crate::dispatch::{Node, Op};
use crate::group::Group;
use crate::link::Link;
use crate::options::ServiceOptions;
use crate::outbox::SlowConsumer;
use crate::rate::Rate;
use crate::service::{Inner, Service};
use crate::{framing::LengthPrefix, time};
use fastrand::Rng;
use oracle::Heard;
use peers::Habits;
use std::cell::{Cell, RefCell, RefMut};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Weak as ArcWeak};
use std::time::{Duration, Instant};
use wharf::fake::{Call, Fake, When};
use wharf::{CompletionPort, PortOptions, Wake, Workers};
use wharf_testkit::seeds;

/// Packets that must be enough for everything that can be done at one moment.
const PACKETS_MAX: usize = 20_000;
/// Polls that bring nothing before a port counts as idle: events may be delayed.
const EMPTY_POLLS: usize = 4;
/// The longest frame that sessions with frames take.
const FRAME_MOST: usize = 300;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

thread_local! {
    /// The schedule that this thread plays.
    static CURRENT: RefCell<Weak<Schedule>> = const { RefCell::new(Weak::new()) };
    /// How long the thread is kept while a schedule is made, as on a busy machine.
    static PAUSE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

fn current() -> Option<Rc<Schedule>> {
    CURRENT.with_borrow(Weak::upgrade)
}

/// One session, its peer, and what is known of both.
struct Party {
    /// None before the service has made it.
    conn: ArcWeak<Conn>,
    link: Option<Link>,
    /// The fake's number; None while it is being connected.
    connection: Option<usize>,
    /// What is connected to, if it is.
    targets: Vec<SocketAddr>,
    began: Instant,
    habits: Habits,
    /// What its peer is going to write, and how much of it was written; and when.
    script: Vec<u8>,
    said: usize,
    is_framed: bool,
    /// What its handler was given.
    received: Vec<u8>,
    opened: Option<Instant>,
    closed: Option<Closed>,
    is_over: bool,
    panicked: bool,
    /// Messages that `send` has accepted, by their numbers, in order; and that could have been accepted by a broadcast.
    accepted: Vec<u32>,
    offered: Vec<u32>,
    /// A message is just being sent to it.
    sending: bool,
    /// It was in the group.
    joined: bool,
    /// The owner has closed it, and its connection was made and its handshake done then.
    closing: Option<Instant>,
    aborted: bool,
    ready: Option<Instant>,
    paused: bool,
    /// When the peer last read something, or the handler was last given something.
    stirred: Instant,
    /// When it did so at a moment before that.
    stirred_before: Instant,
    /// When it was found that it is to end; and when the peer had last done something then.
    decided: Option<(Instant, Instant)>,
    /// When something was last sent to it, or it wrote something.
    moved: Instant,
    /// When its connection was found closed; and when the peer had last done something then.
    gone: Option<(Instant, Instant)>,
    /// When the service began to end.
    ending: Option<Instant>,
    heard: Option<Heard>,
    /// Bytes that the peer has read when it was known already what is lost.
    raced: u64,
    peer_finished: bool,
    peer_reset: bool,
}

struct Model {
    rng: Rng,
    parties: Vec<Party>,
    /// The lengths of all messages, by their numbers.
    lengths: Vec<usize>,
    /// A broadcast is being made.
    broadcasting: bool,
    /// How often, of 256 times, somebody acts in the middle of an engine's call.
    interrupt: u8,
    /// Handlers do nothing of their own.
    calm: bool,
    /// The service is being shut down, or was dropped.
    ending: bool,
    dropped: bool,
}

/// What the service was built with.
#[derive(Clone, Copy, Debug)]
struct Limits {
    linger: Duration,
    idle: Option<Duration>,
    handshake: Option<Duration>,
    connect: Duration,
    policy: SlowConsumer,
    memory: Option<usize>,
    rated: bool,
    outbox: usize,
}

impl Limits {
    fn drawn(rng: &mut Rng) -> Limits {
        Limits {
            linger: ms(rng.u64(20..1500)),
            idle: (rng.u8(..3) == 0).then(|| ms(rng.u64(40..1500))),
            handshake: (rng.u8(..4) == 0).then(|| ms(rng.u64(40..1500))),
            connect: ms(rng.u64(20..1000)),
            policy: match rng.u8(..4) {
                0..2 => SlowConsumer::Disconnect,
                2 => SlowConsumer::DropOldest,
                _ => SlowConsumer::Wait,
            },
            memory: (rng.u8(..3) == 0).then(|| rng.usize(300..20_000) / rng.usize(1..5)),
            rated: rng.u8(..4) == 0,
            outbox: if rng.bool() { rng.usize(200..4000) } else { rng.usize(4000..40_000) },
        }
    }
}

struct Schedule {
    fake: Arc<Fake>,
    port: CompletionPort<(), ()>,
    service: Cell<Option<Service>>,
    inner: RefCell<ArcWeak<Inner>>,
    limits: Limits,
    model: RefCell<Model>,
    group: Group,
    born: Instant,
    /// Nobody acts in the middle of calls.
    silent: Cell<bool>,
}

impl time::World for Schedule {
    fn now(&self) -> Instant {
        self.time()
    }

    fn age(&self) -> Duration {
        self.time() - self.born
    }

    fn pass(&self, at_most: Duration) {
        self.go_on(at_most);
    }
}

impl Party {
    /// It was not to end gracefully.
    fn is_abrupt(&self) -> bool {
        // One that was ending for another reason may be ended at once for its memory.
        let for_memory = self.link.as_ref().is_some_and(|link| link.0.is_written_off());
        self.aborted || self.panicked || for_memory || matches!(self.closed, Some(Closed::SlowConsumer))
    }

    /// When the peer last did something before that was found out. Who does something at this very moment may do so
    /// behind it.
    fn stirred_until(&self, now: Instant) -> Instant {
        if self.stirred == now { self.stirred_before } else { self.stirred }
    }

    /// The peer did something, now.
    fn stir(&mut self, now: Instant) {
        if self.stirred != now {
            self.stirred_before = std::mem::replace(&mut self.stirred, now);
        }
    }
}

impl Model {
    fn chance(&mut self, of_256: u8) -> bool {
        self.rng.u8(..) < of_256
    }

    /// A party that has a link.
    fn pick(&mut self) -> Option<usize> {
        let count = self.parties.len();
        (count > 0).then(|| self.rng.usize(..count)).filter(|&index| self.parties[index].link.is_some())
    }

    /// The next message, and its number: its length, its number, and bytes by its number.
    fn message(&mut self, length: usize) -> (u32, Vec<u8>) {
        let number = self.lengths.len() as u32;
        self.lengths.push(length.max(8));
        (number, oracle::message(number, length.max(8)))
    }
}

impl Schedule {
    fn new(seed: u64) -> Rc<Schedule> {
        let mut rng = Rng::with_seed(seed ^ 0x5E55_1045);
        let limits = Limits::drawn(&mut rng);
        let interrupt = if rng.u8(..4) == 0 { 0 } else { rng.u8(..60) };
        Schedule::with(Fake::new(seed), limits, interrupt, rng)
    }

    fn with(fake: Fake, limits: Limits, interrupt: u8, mut rng: Rng) -> Rc<Schedule> {
        let fake = Arc::new(fake);
        // Before the port is made: its clock begins then.
        let born = fake.time();
        wharf::fake::stand_still(Some(born));
        std::thread::sleep(PAUSE.get());
        let mut builder = Service::options()
            .workers(Workers::exactly(1))
            .concurrency(1)
            .outbox(limits.outbox, limits.policy)
            .linger(limits.linger)
            .max_sessions(rng.usize(2..8))
            .connect_timeout(limits.connect);
        builder = limits.idle.into_iter().fold(builder, ServiceOptions::idle_timeout);
        builder = limits.handshake.into_iter().fold(builder, ServiceOptions::handshake_timeout);
        builder = limits.memory.into_iter().fold(builder, ServiceOptions::memory_limit);
        if limits.rated {
            builder = builder.rate_limit(Rate::bytes(rng.u64(200..20_000), rng.u64(1..500)));
        }
        let port = PortOptions::default()
            .concurrency(1)
            .wake(if rng.bool() { Wake::Eager } else { Wake::Adaptive })
            .pool(rng.usize(8..600), 4);
        let port: CompletionPort<(), ()> = fake.port(&port).expect("a timer descriptor");
        let schedule = Rc::new(Schedule {
            fake: fake.clone(),
            port: port.clone(),
            service: Cell::new(None),
            inner: RefCell::default(),
            limits,
            model: RefCell::new(Model {
                rng,
                parties: Vec::new(),
                lengths: Vec::new(),
                broadcasting: false,
                interrupt,
                calm: false,
                ending: false,
                dropped: false,
            }),
            group: Group::new(),
            born,
            silent: Cell::new(true),
        });
        CURRENT.set(Rc::downgrade(&schedule));
        time::enter(Some(schedule.clone()));
        let service = Service::without_workers(builder.over(&port, Some(port.clone())));
        service.inner.begin().unwrap();
        // The thread is a worker of the service from its first packet on: it never waits for room.
        service.inner.port.post(0, Node::Service, Op::Signal).unwrap();
        *schedule.inner.borrow_mut() = Arc::downgrade(&service.inner);
        schedule.service.set(Some(service));
        fake.hook(|call, when| {
            if let Some(schedule) = current() {
                schedule.interrupted(call, when);
            }
        });
        schedule.silent.set(false);
        schedule.work();
        schedule
    }

    /// What time it is.
    fn time(&self) -> Instant {
        self.fake.time()
    }

    fn model(&self) -> RefMut<'_, Model> {
        self.model.borrow_mut()
    }

    /// The service's inside. There is none when it has ended.
    fn running(&self) -> Option<Arc<Inner>> {
        self.inner.borrow().upgrade()
    }

    /// The engine's call is about to be made, or was made: somebody else acts.
    fn interrupted(&self, _call: Call, _when: When) {
        if self.silent.get() {
            return;
        }
        let Ok(mut model) = self.model.try_borrow_mut() else { return };
        let interrupt = model.interrupt;
        if !model.chance(interrupt) {
            return;
        }
        drop(model);
        self.silent.set(true);
        let owner = self.model().chance(100);
        if owner {
            let uncounted = self.uncounted();
            self.owner_in_between();
            let mut model = self.model();
            for (index, bytes) in uncounted {
                let party = &mut model.parties[index];
                if party.conn.upgrade().is_some_and(|conn| conn.is_reckoned()) {
                    party.raced += bytes;
                }
            }
        } else {
            self.one_peer_acts();
        }
        self.silent.set(false);
    }

    /// What the system has taken in a send that has not returned: whoever ends the session now counts it as lost,
    /// though the peer may have it.
    fn uncounted(&self) -> Vec<(usize, u64)> {
        let model = self.model();
        let of = |(index, party): (usize, &Party)| {
            let conn = party.conn.upgrade().filter(|conn| !conn.is_reckoned())?;
            let sent = self.fake.view(party.connection?).sent as u64;
            let more = sent - conn.stream()?.bytes_taken();
            (more > 0).then_some((index, more))
        };
        model.parties.iter().enumerate().filter_map(of).collect()
    }

    // --- Time ---

    /// Handles packets until none comes. With workers that are late, this would be later.
    fn work(&self) {
        // Nobody drops the service in the middle.
        let Some(_inner) = self.running() else { return };
        let (mut empty, mut packets) = (0, 0);
        while empty < EMPTY_POLLS {
            match self.fake.step(&self.port) {
                Ok(()) => empty = 0,
                Err(wharf::GetError::TimedOut) => empty += 1,
                Err(_) => return,
            }
            packets += 1;
            assert!(packets < PACKETS_MAX, "the service does not come to rest");
        }
        self.observe();
    }

    /// Handles one packet, perhaps.
    fn work_once(&self) {
        let Some(_inner) = self.running() else { return };
        let _ = self.fake.step(&self.port);
        self.observe();
    }

    /// Time passes until something is due, or for so long; peers act, and packets are handled.
    fn go_on(&self, at_most: Duration) {
        let now = self.time();
        let pace = ms(self.model().rng.u64(1..60));
        let due = self.fake.deadline().map_or(at_most, |due| due.saturating_duration_since(now));
        let step = at_most.min(pace).min(due.max(Duration::from_micros(1)));
        self.fake.advance(step);
        wharf::fake::stand_still(Some(self.time()));
        self.connects_end();
        self.all_peers_act();
        self.work();
        self.check_limits();
    }

    fn pass_time(&self, time: Duration) {
        let until = self.time() + time;
        loop {
            let left = until.saturating_duration_since(self.time());
            if left.is_zero() {
                return;
            }
            self.go_on(left);
        }
    }

    // --- Sessions ---

    fn new_party(&self, targets: Vec<SocketAddr>) -> usize {
        let now = self.time();
        let mut model = self.model();
        let is_framed = model.rng.u8(..3) == 0;
        let habits = Habits::drawn(&mut model.rng);
        let script = peers::script(&mut model.rng, is_framed);
        let index = model.parties.len();
        model.parties.push(Party {
            conn: ArcWeak::new(),
            link: None,
            connection: None,
            targets,
            began: now,
            habits,
            script,
            said: 0,
            is_framed,
            received: Vec::new(),
            opened: None,
            closed: None,
            is_over: false,
            panicked: false,
            accepted: Vec::new(),
            offered: Vec::new(),
            sending: false,
            joined: false,
            closing: None,
            aborted: false,
            ready: None,
            paused: false,
            stirred: now,
            stirred_before: now,
            decided: None,
            moved: now,
            gone: None,
            ending: None,
            heard: None,
            raced: 0,
            peer_finished: false,
            peer_reset: false,
        });
        index
    }

    /// A connection that was made elsewhere becomes a session's.
    fn adopt(&self) {
        let capacity = {
            let rng = &mut self.model().rng;
            if rng.bool() { rng.usize(8..200) } else { rng.usize(200..4000) }
        };
        let index = self.new_party(Vec::new());
        self.adopt_for(index, capacity, |_| {});
    }

    /// `before`: what is done before the session has its stream.
    fn adopt_for(&self, index: usize, capacity: usize, before: impl FnOnce(&Link)) {
        let Some(inner) = self.running() else { return };
        let (framed, served) = {
            let mut model = self.model();
            (model.parties[index].is_framed, model.rng.bool())
        };
        let (handle, connection) = self.fake.connected(capacity);
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let Some(conn) = inner.admit(peer.into(), None, actor::boxed(index, framed)) else {
            self.fake.discard(handle);
            return self.forget_party(index);
        };
        match self.fake.stream(&inner.port, handle, Node::Session(conn.clone())) {
            Some(stream) => {
                {
                    let mut model = self.model();
                    let party = &mut model.parties[index];
                    party.conn = Arc::downgrade(&conn);
                    party.link = Some(Link(conn.clone()));
                    party.connection = Some(connection);
                }
                before(&Link(conn.clone()));
                inner.attach(&conn, stream.clone());
                if served {
                    conn.opened(&stream);
                } else {
                    inner.port.post(0, Node::Session(conn), Op::Start).unwrap();
                }
            }
            None => {
                inner.forget(&conn);
                self.fake.discard(handle);
                self.forget_party(index);
            }
        }
    }

    /// A session that is connected to one of one or two addresses.
    fn connect(&self) {
        let count = self.model().rng.usize(1..3);
        let first = self.model().parties.len() * 2 + 10;
        let targets: Vec<_> =
            (first..first + count).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16))).collect();
        let index = self.new_party(targets);
        self.connect_for(index);
    }

    fn connect_for(&self, index: usize) {
        let Some(inner) = self.running() else { return };
        let targets = self.model().parties[index].targets.clone();
        let framed = self.model().parties[index].is_framed;
        let limit = Some(self.limits.connect);
        match inner.connect_boxed(targets, limit, None, actor::boxed(index, framed)) {
            Ok(link) => {
                let mut model = self.model();
                let party = &mut model.parties[index];
                party.conn = Arc::downgrade(&link.0);
                party.link = Some(link);
            }
            Err(_) => self.forget_party(index),
        }
    }

    /// No session was made of it.
    fn forget_party(&self, index: usize) {
        let mut model = self.model();
        let party = &mut model.parties[index];
        party.link = None;
        party.connection = None;
        party.targets.clear();
    }
}

// --- The test ---

/// Says how to repeat what has just failed.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("to replay: WHARF_SEED={} cargo test -p wharf-session --lib schedules", self.0);
        }
        // What is left of a schedule that failed is not played any more.
        CURRENT.set(Weak::new());
        time::enter(None);
        wharf::fake::stand_still(None);
    }
}

/// Returns all that can be told of it.
fn run(seed: u64) -> String {
    let _replay = Replay(seed);
    let schedule = Schedule::new(seed);
    let steps = schedule.model().rng.u32(10..=60);
    schedule.adopt();
    for _ in 0..steps {
        schedule.step();
    }
    schedule.end();
    let model = schedule.model();
    let told = |party: &Party| {
        let sent = party
            .connection
            .map(|connection| (self::oracle::digest(&schedule.fake.sent(connection)), schedule.fake.view(connection)));
        let gone = party.gone.map(|(gone, _)| gone - schedule.born);
        format!("{:?} {:?} {gone:?} {sent:?}\n", party.closed, party.heard)
    };
    model.parties.iter().map(told).collect()
}

#[test]
fn a_seed_gives_the_same_schedule_again() {
    for seed in 0..20 {
        let play = |pause| {
            let played = std::thread::spawn(move || {
                PAUSE.set(pause);
                run(seed)
            });
            played.join().unwrap()
        };
        assert_eq!(play(Duration::ZERO), play(ms(20)), "the schedule of seed {seed}");
    }
}

#[test]
fn every_session_keeps_what_it_promises() {
    let count = seeds::play(500, |seed| drop(run(seed)));
    if count >= 2000 {
        oracle::assert_all_seen();
    }
}
