//! A forwarder: what comes to one address goes on to another, both ways, each way to its own end.

use crate::listen;
use crate::options::Relay;
use crate::serve::{no_port, resolve};
use crate::system;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};
use wharf::{Buffer, CompletionPort, Event, Outcome, Packet, TcpListener, TcpStream, Workers};

/// Connections that are waited for at a time.
const ACCEPTS: usize = 16;

type Port = CompletionPort<(), Purpose>;
type Stream = TcpStream<(), Purpose>;

/// What an operation is for. A pair lives as long as an operation of it is outstanding; then its streams are closed.
enum Purpose {
    Accept,
    /// A listener that failed is tried again.
    Rested(TcpListener<(), Purpose>),
    /// The target's address of this number is tried.
    Connect(Arc<Pair>, usize),
    /// Bytes from this end to the other.
    From(Arc<Pair>, End),
}

/// What the main thread waits for.
#[derive(Clone)]
enum Control {
    Signal,
    Figures,
}

#[derive(Clone, Copy)]
enum End {
    Client,
    Target,
}

/// A client's connection and the one made for it.
struct Pair {
    client: Stream,
    target: OnceLock<Stream>,
    peer: SocketAddr,
    totals: Arc<Totals>,
}

#[derive(Default)]
struct Totals {
    relayed: AtomicU64,
    failed: AtomicU64,
    open: AtomicUsize,
    /// Bytes from clients, and to them.
    bytes: [AtomicU64; 2],
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.totals.open.fetch_sub(1, Relaxed);
    }
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

    /// An end is broken: so is the other one from now on.
    fn cut(&self) {
        self.client.close();
        if let Some(target) = self.target.get() {
            target.close();
        }
    }
}

struct Forwarder {
    port: Port,
    targets: Vec<SocketAddr>,
    name: String,
    totals: Arc<Totals>,
    most: usize,
}

pub fn run(options: &Relay) -> Result<(), String> {
    let targets = resolve(&options.target, "relay to")?;
    let builder = CompletionPort::<(), Purpose>::builder().concurrency(options.load.concurrency.map_or(0, usize::from));
    let port: Port = builder.build().map_err(|error| no_port(&error))?;
    let listeners = listen::on_port(&port, &options.listen, "")?;
    let forwarder = Arc::new(Forwarder {
        port: port.clone(),
        targets,
        name: options.target.clone(),
        totals: Arc::default(),
        most: options.load.max_sessions.map_or(usize::MAX, |most| most as usize),
    });
    // A port of its own, so that the handlers' port can be closed from outside.
    let control = CompletionPort::<(), Control>::new().map_err(|error| no_port(&error))?;
    let signals = system::ENDING.map(|number| control.signal(number, (), Control::Signal));
    for signal in signals {
        signal.map_err(|error| format!("Ctrl+C cannot be waited for: {error}"))?;
    }
    for (listener, _) in std::iter::repeat_n(&listeners, ACCEPTS).flatten() {
        listener.accept(Purpose::Accept).map_err(|refused| format!("nothing can be accepted: {}", refused.error))?;
    }
    if let Some(seconds) = options.load.stats {
        let figures = control.interval(Duration::from_secs(seconds.into()), (), Control::Figures);
        figures.map_err(|error| format!("the figures' timer cannot be set: {error}"))?;
    }
    let handler = forwarder.clone();
    let workers = options.load.workers.map_or_else(Workers::default, |count| Workers::new(count.into()));
    let pool = port.run(workers, move |packet| handler.handle(packet));
    let pool = pool.map_err(|error| format!("no thread can be started: {error}"))?;
    let mut out = io::stdout();
    for (_, address) in &listeners {
        let _ = writeln!(out, "listening on {address}").and_then(|()| out.flush());
    }

    let mut last = (Instant::now(), [0, 0]);
    while let Ok(packet) = control.get() {
        match packet.context {
            Control::Figures => last = forwarder.print_figures(last),
            Control::Signal => break,
        }
    }
    drop(listeners);
    port.close();
    pool.join();
    let totals = &forwarder.totals;
    let [up, down] = [0, 1].map(|way| totals.bytes[way].load(Relaxed));
    let (relayed, failed) = (totals.relayed.load(Relaxed), totals.failed.load(Relaxed));
    eprintln!("ended: {relayed} connections relayed, {failed} not connected, {up} bytes to the target, {down} back");
    Ok(())
}

impl Forwarder {
    fn handle(&self, packet: Packet<(), Purpose>) {
        match (packet.event, packet.context) {
            (Event::Accepted { listener, result }, _) => self.accepted(&listener, result),
            (Event::Elapsed { result: Ok(_) }, Purpose::Rested(listener)) => drop(listener.accept(Purpose::Accept)),
            (Event::Connected { stream, result }, Purpose::Connect(pair, tried)) => {
                self.connected(&stream, result, pair, tried);
            }
            (Event::Received { buffer, result, .. }, Purpose::From(pair, end)) => {
                self.received(pair, end, buffer, result)
            }
            (Event::Sent { result, .. }, Purpose::From(pair, end)) => match result {
                Ok(_) => self.receive(pair, end),
                Err(_) => pair.cut(),
            },
            _ => {}
        }
    }

    fn accepted(&self, listener: &TcpListener<(), Purpose>, result: io::Result<(std::net::TcpStream, SocketAddr)>) {
        let accepted = listen::next_accept(&self.port, listener, result, Purpose::Accept, Purpose::Rested);
        let Some((socket, peer)) = accepted else { return };
        let totals = &self.totals;
        if totals.open.fetch_add(1, Relaxed) >= self.most {
            totals.open.fetch_sub(1, Relaxed);
            log::info!("{peer} is refused: as many connections are open as --max-sessions allows");
            return;
        }
        let client = match self.port.associate(socket, ()) {
            Ok(client) => client,
            Err(rejected) => {
                totals.open.fetch_sub(1, Relaxed);
                return log::warn!("{peer} cannot be served: {}", rejected.error);
            }
        };
        let _ = client.set_nodelay(true);
        let pair = Arc::new(Pair { client, target: OnceLock::new(), peer, totals: totals.clone() });
        self.connect(pair, 0, None);
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
            self.refused(refused.context);
        }
    }

    fn received(&self, pair: Arc<Pair>, end: End, buffer: Buffer, result: io::Result<usize>) {
        let Some((_, to)) = pair.streams(end) else { return };
        let to = to.clone();
        match result {
            // This way has ended; the other one may go on.
            Ok(0) => {
                if let Err(refused) = to.disconnect(Purpose::From(pair, end)) {
                    self.refused(refused.context);
                }
            }
            Ok(bytes) => {
                self.totals.bytes[end as usize].fetch_add(bytes as u64, Relaxed);
                // Reading goes on when the other side has taken it: memory does not grow with a slow one.
                match to.send(buffer, Purpose::From(pair, end)) {
                    Ok(Outcome::Pending(_) | Outcome::Done(_)) => {}
                    Err(refused) => self.refused(refused.context),
                }
            }
            Err(_) => pair.cut(),
        }
    }

    fn refused(&self, purpose: Purpose) {
        if let Purpose::From(pair, _) = purpose {
            pair.cut();
        }
    }

    fn print_figures(&self, (then, before): (Instant, [u64; 2])) -> (Instant, [u64; 2]) {
        let now = Instant::now();
        let bytes = [0, 1].map(|way| self.totals.bytes[way].load(Relaxed));
        let seconds = now.duration_since(then).as_secs_f64().max(1e-9);
        let [up, down] = [0, 1].map(|way| (bytes[way] - before[way]) as f64 / seconds);
        eprintln!(
            "connections {}  to the target {up:.0} B/s  back {down:.0} B/s  relayed {}  not connected {}",
            self.totals.open.load(Relaxed),
            self.totals.relayed.load(Relaxed),
            self.totals.failed.load(Relaxed),
        );
        (now, bytes)
    }
}
