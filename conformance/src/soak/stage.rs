//! What the actors of a round share: the port, the count of those that are still at it, random numbers, and issuing
//! with a ticket for each operation. Players begin things; services answer them, and are closed when the last player
//! has left.

use crate::soak::ledger::{Kind, Ledger, Ticket};
use fastrand::Rng;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wharf::{CompletionPort, OperationId, Outcome, Packet, Refused};

pub(super) type Port = CompletionPort<(), Op>;
pub(super) type Event = wharf::Event<(), Op>;
pub(super) type Stream = wharf::Stream<(), Op>;
pub(super) type Listener = wharf::Listener<(), Op>;
pub(super) type Socket = wharf::Datagrams<(), Op>;
pub(super) type File = wharf::fs::File<(), Op>;

pub(super) const ECANCELED: i32 = wharf::raw::ECANCELED;

/// The context of every operation.
pub(super) struct Op {
    ticket: Ticket,
    actor: Arc<dyn Actor>,
    step: u8,
}

impl std::fmt::Debug for Op {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}, step {}", self.ticket.kind, self.step)
    }
}

pub(super) trait Actor: Send + Sync {
    /// The packet of the operation that was issued as `step` has come.
    fn took(self: Arc<Self>, step: u8, event: Event);
}

/// What the workers do with each packet.
pub(super) fn dispatch(packet: Packet<(), Op>) {
    let cancelled = packet.error().is_some_and(|error| error.raw_os_error() == Some(ECANCELED));
    let Packet { context: Op { ticket, actor, step }, event, .. } = packet;
    if cancelled {
        ticket.cancelled();
    }
    ticket.arrive();
    actor.took(step, event);
}

/// A round: what its actors share.
pub(super) struct Stage {
    pub(super) port: Port,
    ledger: Ledger,
    stopping: AtomicBool,
    players: AtomicUsize,
    seeds: AtomicU64,
    services: Mutex<Vec<Box<dyn FnOnce() + Send>>>,
    /// The services are being closed, or are.
    closed: AtomicBool,
    /// What is downloaded, and what it holds.
    pub(super) shown: (Arc<std::fs::File>, Arc<Vec<u8>>),
    pub(super) directory: PathBuf,
    /// The last field: all others are freed when it goes.
    gone: Gone,
}

/// Tells that it was dropped.
#[derive(Default)]
struct Gone(Arc<AtomicBool>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Counts an actor as long as it lives on.
pub(super) struct Player(Arc<Stage>);

impl Drop for Player {
    fn drop(&mut self) {
        self.0.players.fetch_sub(1, Ordering::SeqCst);
    }
}

pub(super) const SHOWN_BYTES: usize = 1 << 20;

impl Stage {
    pub(super) fn new(port: &Port, ledger: &Ledger, directory: PathBuf, seed: u64) -> io::Result<Arc<Stage>> {
        let content = pattern(SHOWN_BYTES, seed);
        let path = directory.join("shown");
        std::fs::write(&path, &content)?;
        Ok(Arc::new(Stage {
            port: port.clone(),
            ledger: ledger.clone(),
            stopping: AtomicBool::new(false),
            players: AtomicUsize::new(0),
            seeds: AtomicU64::new(seed),
            services: Mutex::default(),
            closed: AtomicBool::new(false),
            shown: (Arc::new(std::fs::File::open(path)?), Arc::new(content)),
            directory,
            gone: Gone::default(),
        }))
    }

    /// No player begins anything new.
    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    pub(super) fn players(&self) -> usize {
        self.players.load(Ordering::SeqCst)
    }

    /// The services are closed with what is outstanding on them.
    pub(super) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        std::mem::take(&mut *lock(&self.services)).into_iter().for_each(|close| close());
    }

    /// Becomes true when the stage is freed, with all that it has.
    pub(super) fn gone(&self) -> Arc<AtomicBool> {
        self.gone.0.clone()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    pub(super) fn player(self: &Arc<Self>) -> Player {
        self.players.fetch_add(1, Ordering::SeqCst);
        Player(self.clone())
    }

    pub(super) fn random(&self) -> Rng {
        Rng::with_seed(self.seeds.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub(super) fn service(&self, close: impl FnOnce() + Send + 'static) {
        lock(&self.services).push(Box::new(close));
    }

    pub(super) fn fault(&self, what: impl Into<String>) {
        self.ledger.fault(what.into());
    }

    pub(super) fn check(&self, holds: bool, what: &str) {
        if !holds {
            self.fault(what);
        }
    }

    pub(super) fn op(&self, kind: Kind, actor: Arc<dyn Actor>, step: u8) -> Op {
        Op { ticket: self.ledger.ticket(kind), actor, step }
    }

    /// The operation's name, unless the port has not accepted it, which nobody here gives it a reason for.
    pub(super) fn issued<B>(&self, result: Result<Outcome<(), Op>, Refused<Op, B>>) -> Option<OperationId> {
        match result {
            Ok(Outcome::Pending(id)) => Some(id),
            Ok(Outcome::Done(_)) => {
                self.fault("an operation was done at once, and nobody had asked for that");
                None
            }
            Err(refused) => {
                self.fault(format!("{:?} was not accepted: {}", refused.context.ticket.kind, refused.error));
                refused.context.ticket.withdraw();
                None
            }
        }
    }

    /// As `issued`, where the other end may have gone.
    pub(super) fn perhaps<B>(&self, result: Result<Outcome<(), Op>, Refused<Op, B>>) {
        match result {
            Err(refused) if peer_is_gone(&refused.error) => refused.context.ticket.withdraw(),
            other => drop(self.issued(other)),
        }
    }

    /// As `issued`, for a service: it may go on with something when the last player has left, and is closed then.
    pub(super) fn of_service<B>(&self, result: Result<Outcome<(), Op>, Refused<Op, B>>) {
        match result {
            Err(refused) if self.closed.load(Ordering::SeqCst) => refused.context.ticket.withdraw(),
            other => drop(self.issued(other)),
        }
    }

    pub(super) fn post(&self, bytes: usize, actor: Arc<dyn Actor>, step: u8) {
        if let Err(unposted) = self.port.post(bytes, (), self.op(Kind::Post, actor, step)) {
            self.fault("a post was not accepted");
            unposted.context.ticket.withdraw();
        }
    }

    pub(super) fn connect(&self, address: SocketAddr, actor: Arc<dyn Actor>, step: u8) {
        if let Err(refused) = self.port.connect(address, (), self.op(Kind::Connect, actor, step)) {
            self.fault(format!("a connect was not accepted: {}", refused.error));
            refused.context.ticket.withdraw();
        }
    }

    pub(super) fn timer(&self, after: Duration, actor: Arc<dyn Actor>, step: u8) -> Option<OperationId> {
        match self.port.timer(after, (), self.op(Kind::Timer, actor, step)) {
            Ok(id) => Some(id),
            Err(refused) => {
                self.fault(format!("a timer was not accepted: {}", refused.error));
                refused.context.ticket.withdraw();
                None
            }
        }
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    Rng::with_seed(seed).fill(&mut bytes);
    bytes
}

pub(super) fn peer_is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionReset, NotConnected};
    error.raw_os_error() == Some(ECANCELED) || matches!(error.kind(), BrokenPipe | ConnectionReset | NotConnected)
}
