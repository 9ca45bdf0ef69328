//! The servers.

use crate::listen::listen;
use crate::options::Server;
use crate::system::{self, Scarce};
use std::io::{self, Write};
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};
use wharf::Buffer;
use wharf::session::{Closed, Group, Link, ServiceStats, Session};

/// How long sessions may take to end when the server does.
pub const SHUTDOWN: Duration = Duration::from_secs(5);
/// A line that grows beyond this is passed on as it is: nobody's memory pays for a missing newline.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// What a shell reports of a program that Ctrl+C has ended.
pub const ENDED_BY_SIGNAL: i32 = 130;

/// Every line goes to everybody.
pub fn chat(options: &Server) -> Result<(), String> {
    let room = Group::new();
    run(options, move || Chat { room: room.clone(), begun: Vec::new() })
}

/// What comes goes back.
pub fn echo(options: &Server) -> Result<(), String> {
    run(options, || Echo)
}

/// What comes is thrown away.
pub fn discard(options: &Server) -> Result<(), String> {
    run(options, || Discard)
}

struct Chat {
    room: Group,
    /// The line that has not ended yet.
    begun: Vec<u8>,
}

impl Session for Chat {
    fn opened(&mut self, link: &Link) {
        self.room.join(link);
    }

    fn received(&mut self, _link: &Link, data: Buffer) {
        if self.begun.is_empty() && data.ends_with(b"\n") {
            self.room.broadcast(&data);
            return;
        }
        self.begun.extend_from_slice(&data);
        let whole = match self.begun.iter().rposition(|&byte| byte == b'\n') {
            Some(newline) => newline + 1,
            None if self.begun.len() > LINE_BYTES_MAX => self.begun.len(),
            None => return,
        };
        let rest = self.begun.split_off(whole);
        self.room.broadcast(&std::mem::replace(&mut self.begun, rest));
    }

    fn closed(&mut self, _link: &Link, _reason: &Closed) {
        if !self.begun.is_empty() {
            self.begun.push(b'\n');
            self.room.broadcast(&self.begun);
        }
    }
}

struct Echo;

impl Session for Echo {
    fn received(&mut self, link: &Link, data: Buffer) {
        // Refused only when the session is over.
        let _ = link.send(data);
    }
}

struct Discard;

impl Session for Discard {
    fn received(&mut self, _link: &Link, _data: Buffer) {}
}

fn run<S: Session>(options: &Server, session: impl Fn() -> S + Clone + Send + Sync + 'static) -> Result<(), String> {
    let acceptor = options.tls.acceptor()?;
    let service = options.service().start().map_err(|error| no_port(&error))?;
    let service = Arc::new(service);
    let places = listen(&service, &options.listen, &acceptor, session)?;
    // First of all: who reads the line below may end the server at once.
    let signals = service.signals(&system::ENDING);
    let signals = signals.map_err(|error| format!("Ctrl+C cannot be waited for: {error}"))?;
    // For people and for scripts: the first line, with the real port. Serving does not depend on who reads it.
    let mut out = io::stdout();
    for place in places {
        let _ = writeln!(out, "listening on {place}").and_then(|()| out.flush());
    }

    let (stop, stopped) = channel::<()>();
    let printer = options.load.stats.map(|seconds| {
        let service = service.clone();
        std::thread::spawn(move || {
            let period = Duration::from_secs(seconds.into());
            let mut last = (Instant::now(), service.stats());
            while stopped.recv_timeout(period) == Err(RecvTimeoutError::Timeout) {
                let next = (Instant::now(), service.stats());
                eprintln!("{}", figures(&last, &next));
                last = next;
            }
        })
    });
    let signal = signals.wait();
    std::thread::spawn(move || {
        signals.wait();
        end_at_once()
    });
    if let Some(seconds) = options.drain {
        let left = service.drain(Duration::from_secs(seconds.into()));
        log::info!("drained: {left} sessions are left");
    }
    drop(stop);
    if let Some(printer) = printer {
        let _ = printer.join();
    }
    let stats = service.stats();
    let service = Arc::into_inner(service).expect("the printer has ended");
    let report = service.shutdown(SHUTDOWN);
    log::info!("signal {signal}: {report:?}, {stats:?}");
    let cut = if report.aborted > 0 { format!(", {} of them cut off", report.aborted) } else { String::new() };
    let lost = if report.lost_bytes > 0 { format!(", {} bytes lost", report.lost_bytes) } else { String::new() };
    eprintln!("ended: {} sessions served, {} at the end{cut}{lost}", stats.accepted, stats.sessions);
    Ok(())
}

/// Who asks again does not want to wait.
pub fn end_at_once() -> ! {
    eprintln!("wharf: ended at once by a second signal");
    std::process::exit(ENDED_BY_SIGNAL);
}

/// The port's descriptors are the first that a program needs, and the ones that a low limit refuses.
pub fn no_port(error: &io::Error) -> String {
    let remedy = match system::scarce(error) {
        Some(Scarce::Here) => format!("; {}", system::RAISE_LIMIT),
        Some(Scarce::Everywhere) => format!("; {}", system::RAISE_SYSTEMS),
        None => String::new(),
    };
    format!("the port cannot be made: {error}{remedy}")
}

/// One line of `--stats`.
fn figures((then, before): &(Instant, ServiceStats), (now, after): &(Instant, ServiceStats)) -> String {
    let seconds = now.duration_since(*then).as_secs_f64().max(1e-9);
    let packets = after.port.removed.saturating_sub(before.port.removed);
    let wakes = match (before.port.wakes, after.port.wakes) {
        (Some(before), Some(after)) => format!("{:.3}", after.saturating_sub(before) as f64 / packets.max(1) as f64),
        _ => "unknown".into(),
    };
    format!(
        "sessions {}  packets/s {:.0}  queued {}  active {}  waiting {}  blocked {}  wake-ups/packet {}  memory {}  refused {}",
        after.sessions,
        packets as f64 / seconds,
        after.port.queued,
        after.port.active,
        after.port.waiting,
        after.port.blocked,
        wakes,
        after.memory.used_bytes,
        after.refused,
    )
}

/// `what`: what the address is for.
pub fn resolve(address: &str, what: &str) -> Result<Vec<SocketAddr>, String> {
    address.to_socket_addrs().map(Iterator::collect).map_err(|error| {
        format!("{address:?} is not an address to {what} ({error}); give ADDRESS:PORT, such as 127.0.0.1:25000")
    })
}

/// `place`: where another one can be given.
pub fn cannot_listen(address: &str, error: &io::Error, place: &str) -> String {
    let remedy = match error.kind() {
        io::ErrorKind::AddrInUse => &format!("another program listens there; end it, or choose another port{place}"),
        io::ErrorKind::PermissionDenied => &format!("ports below 1024 need privileges; choose a higher one{place}"),
        io::ErrorKind::AddrNotAvailable => "it is not an address of this machine; 0.0.0.0 stands for all of them",
        _ => &format!("choose another address{place}"),
    };
    format!("cannot listen on {address}: {error}; {remedy}")
}
