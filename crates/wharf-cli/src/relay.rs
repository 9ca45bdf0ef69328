//! A forwarder: what comes to one address goes on to another, both ways, each way to its own end.

use crate::address::resolve;
use crate::listen;
use crate::options::Relay;
use crate::port;
use crate::serving::{Control, Server};
use crate::system;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use wharf::net::{AcceptLimits, Acceptor, Incoming, Permit};
use wharf::{Buffer, CompletionPort, Event, Outcome, Packet, WorkerPool};

type Port = CompletionPort<(), Purpose>;
type Stream = wharf::Stream<(), Purpose>;

/// What an operation is for. A pair lives as long as an operation of it is outstanding; then its streams are closed.
enum Purpose {
    Accept,
    /// The target's address of this number is tried.
    Connect(Arc<Pair>, usize),
    /// Bytes from this end to the other.
    From(Arc<Pair>, End),
}

#[derive(Clone, Copy)]
enum End {
    Client,
    Target,
}

impl End {
    fn other(self) -> End {
        match self {
            End::Client => End::Target,
            End::Target => End::Client,
        }
    }
}

/// A client's connection and the one made for it.
struct Pair {
    client: Stream,
    target: OnceLock<Stream>,
    peer: SocketAddr,
    is_cut: AtomicBool,
    /// Counts the pair as open.
    _permit: Permit,
}

#[derive(Default)]
struct Totals {
    relayed: AtomicU64,
    failed: AtomicU64,
    /// Bytes from clients, and to them.
    bytes: [AtomicU64; 2],
}

impl Pair {
    /// The stream that bytes from `end` come from, and the one they go to.
    fn streams(&self, end: End) -> Option<(&Stream, &Stream)> {
        let target = self.target.get()?;
        Some(match end {
            End::Client => (&self.client, target),
            End::Target => (target, &self.client),
        })
    }

    /// A connection is broken: so is the other one from now on. Its peer hears a reset, and takes no half for the
    /// whole.
    fn cut(&self, broken: Option<(End, &io::Error)>) {
        // Told once: the other operations of both end by this.
        if !self.is_cut.swap(true, Relaxed) {
            if let Some((end, error)) = broken {
                let whose = match end {
                    End::Client => "client's",
                    End::Target => "target's",
                };
                log::warn!("{}: the {whose} connection broke: {error}; the other is reset", self.peer);
            }
        }
        self.client.reset();
        if let Some(target) = self.target.get() {
            target.reset();
        }
    }
}

/// What the handlers share.
struct Forwarder {
    port: Port,
    acceptor: Acceptor<(), Purpose>,
    targets: Vec<SocketAddr>,
    name: String,
    totals: Totals,
}

/// A relay that is running.
struct Relaying {
    forwarder: Arc<Forwarder>,
    pool: WorkerPool,
    /// Connections that had not ended when the time for it was over.
    cut: AtomicUsize,
}

/// Totals at one moment.
struct Figures {
    open: usize,
    relayed: u64,
    failed: u64,
    bytes: [u64; 2],
}

pub fn run(options: &Relay) -> Result<(), String> {
    let targets = resolve(&options.target, "relay to")?;
    let port: Port = port::of(&options.load)?;
    let limits = AcceptLimits { connections: options.load.connections(), ..AcceptLimits::default() };
    let acceptor = Acceptor::new(&port, limits, || Purpose::Accept);
    let places = listen::on_port(&port, &acceptor, &options.listen, "")?;
    refuse_itself(&places, &targets)?;
    let control = Control::new(&options.load)?;
    let name = options.target.clone();
    let forwarder = Arc::new(Forwarder { port: port.clone(), acceptor, targets, name, totals: Totals::default() });
    let handler = forwarder.clone();
    let pool = port.start(port::workers(&options.load), move |packet| handler.handle(packet));
    let pool = pool.map_err(|error| format!("no thread can be started: {error}"))?;
    control.serve(&places, Relaying { forwarder, pool, cut: AtomicUsize::new(0) }, options.ending.drain());
    Ok(())
}

impl Server for Relaying {
    type Totals = Figures;

    fn totals(&self) -> Figures {
        let Forwarder { acceptor, totals, .. } = &*self.forwarder;
        Figures {
            open: acceptor.open(),
            relayed: totals.relayed.load(Relaxed),
            failed: totals.failed.load(Relaxed),
            bytes: [0, 1].map(|way| totals.bytes[way].load(Relaxed)),
        }
    }

    fn figures(before: &Figures, now: &Figures, seconds: f64) -> String {
        let [up, down] = [0, 1].map(|way| (now.bytes[way] - before.bytes[way]) as f64 / seconds);
        let Figures { open, relayed, failed, .. } = now;
        format!(
            "connections {open}  to the target {up:.0} B/s  back {down:.0} B/s  relayed {relayed}  not connected {failed}"
        )
    }

    fn drain(&self, most: Duration) -> usize {
        self.forwarder.acceptor.stop();
        let left = self.forwarder.acceptor.wait(most);
        self.cut.store(left, Relaxed);
        left
    }

    fn end(self) -> String {
        self.forwarder.port.close();
        let cut = self.cut.load(Relaxed);
        let cut = if cut > 0 { format!(", {cut} connections cut off") } else { String::new() };
        let forwarder = self.forwarder;
        self.pool.join();
        let totals = &forwarder.totals;
        let [up, down] = [0, 1].map(|way| totals.bytes[way].load(Relaxed));
        let (relayed, failed) = (totals.relayed.load(Relaxed), totals.failed.load(Relaxed));
        format!(
            "ended: {relayed} connections relayed, {failed} not connected, {up} bytes to the target, {down} back{cut}"
        )
    }
}

impl Forwarder {
    fn handle(&self, packet: Packet<(), Purpose>) {
        match (packet.event, packet.context) {
            (event, Purpose::Accept) => match self.acceptor.completed(event) {
                Some(Incoming::Admitted { socket, peer, permit }) => self.admitted(socket, peer, permit),
                Some(Incoming::Refused { peer, .. }) => {
                    log::info!("{peer} is refused: as many connections are open as --max-sessions allows");
                }
                _ => {}
            },
            (Event::Connected { stream, result }, Purpose::Connect(pair, tried)) => {
                self.connected(&stream, result, pair, tried);
            }
            (Event::Received { buffer, result, .. }, Purpose::From(pair, end)) => {
                self.received(pair, end, buffer, result)
            }
            (Event::Sent { result, .. }, Purpose::From(pair, end)) => match result {
                Ok(_) => self.receive(pair, end),
                Err(error) => pair.cut(Some((end.other(), &error))),
            },
            _ => {}
        }
    }

    fn admitted(&self, socket: std::net::TcpStream, peer: SocketAddr, permit: Permit) {
        let client = match self.port.associate_accepted(socket, ()) {
            Ok(client) => client,
            Err(rejected) => return log::warn!("{peer} cannot be served: {}", rejected.error),
        };
        let _ = client.set_nodelay(true);
        self.connect(
            Arc::new(Pair { client, target: OnceLock::new(), peer, is_cut: AtomicBool::new(false), _permit: permit }),
            0,
            None,
        );
    }

    /// Tries the target's addresses one after the other.
    fn connect(&self, pair: Arc<Pair>, first: usize, error: Option<io::Error>) {
        let (mut error, mut pair) = (error, pair);
        for (tried, &target) in self.targets.iter().enumerate().skip(first) {
            match self.port.connect(target, (), Purpose::Connect(pair, tried)) {
                Ok(_) => return,
                Err(refused) => {
                    error = Some(refused.error);
                    let Purpose::Connect(back, _) = refused.context else { unreachable!("given just above") };
                    pair = back;
                }
            }
        }
        self.totals.failed.fetch_add(1, Relaxed);
        let remedy = match error.as_ref().and_then(system::scarce) {
            // Not the target's fault.
            Some(_) => &format!("{} or lower --max-sessions", system::RAISE_LIMIT),
            None => "is it running, and is the address right?",
        };
        let why = error.map_or_else(|| "it has no address".to_owned(), |error| error.to_string());
        log::warn!("{} cannot be reached for {}: {why}; {remedy}", self.name, pair.peer);
    }

    fn connected(&self, stream: &Stream, result: io::Result<()>, pair: Arc<Pair>, tried: usize) {
        if let Err(error) = result {
            return self.connect(pair, tried + 1, Some(error));
        }
        let _ = stream.set_nodelay(true);
        let _ = pair.target.set(stream.clone());
        self.totals.relayed.fetch_add(1, Relaxed);
        self.receive(pair.clone(), End::Client);
        self.receive(pair, End::Target);
    }

    fn receive(&self, pair: Arc<Pair>, end: End) {
        let Some((from, _)) = pair.streams(end) else { return };
        let from = from.clone();
        // The buffer comes from the port when something is there: a connection that waits has none.
        if let Err(refused) = from.recv_pooled(Purpose::From(pair, end)) {
            refuse(refused.context, end, &refused.error);
        }
    }

    fn received(&self, pair: Arc<Pair>, end: End, buffer: Buffer, result: io::Result<usize>) {
        let Some((_, to)) = pair.streams(end) else { return };
        let to = to.clone();
        match result {
            // This way has ended; the other one may go on.
            Ok(0) => {
                if let Err(refused) = to.disconnect(Purpose::From(pair, end)) {
                    refuse(refused.context, end.other(), &refused.error);
                }
            }
            Ok(bytes) => {
                self.totals.bytes[end as usize].fetch_add(bytes as u64, Relaxed);
                // Reading goes on when the other side has taken it: memory does not grow with a slow one.
                match to.send(buffer, Purpose::From(pair, end)) {
                    Ok(Outcome::Pending(_) | Outcome::Done(_)) => {}
                    Err(refused) => refuse(refused.context, end.other(), &refused.error),
                }
            }
            Err(error) => pair.cut(Some((end, &error))),
        }
    }
}

/// An operation was refused, on the connection of `end`.
fn refuse(purpose: Purpose, end: End, error: &io::Error) {
    if let Purpose::From(pair, _) = purpose {
        pair.cut(Some((end, error)));
    }
}

/// Whoever relays to itself is its own client, until no descriptor is left.
fn refuse_itself(places: &[String], targets: &[SocketAddr]) -> Result<(), String> {
    let places = places.iter().filter_map(|place| place.parse::<SocketAddr>().ok());
    for place in places {
        let leads_back = |target: &&SocketAddr| {
            let here = || std::net::UdpSocket::bind((target.ip(), 0)).is_ok();
            let any = place.ip().is_unspecified() && (target.ip().is_unspecified() || here());
            let same = place.ip() == target.ip() || target.ip().is_unspecified() && place.ip().is_loopback();
            place.port() == target.port() && (any || same)
        };
        if let Some(target) = targets.iter().find(leads_back) {
            return Err(format!(
                "{target} is where the relay itself listens ({place}); give another target or address"
            ));
        }
    }
    Ok(())
}
