//! `wharf serve files`: a directory over HTTP/1.1, for GET and HEAD.
//!
//! What is said and meant is decided without a socket or a disk ([`request`], [`body`], [`path`], [`range`],
//! [`response`]); [`open`] and [`answer`] look at the disk; [`connection`] speaks with the port. Of several ranges at once
//! the whole file is sent, which the standard allows. There is no multipart answer, no compression, no TLS, and a file's
//! name has to be UTF-8 without control characters and backslashes.

mod access_log;
mod answer;
mod body;
mod clock;
mod connection;
mod deadlines;
#[cfg(test)]
mod fuzz;
mod input;
mod listing;
mod open;
mod output;
mod path;
mod range;
mod request;
mod response;
mod server;
mod status;

use crate::listen;
use crate::options::Files;
use crate::serve::{SHUTDOWN, end_at_once, no_port};
use crate::system;
use access_log::AccessLog;
use answer::Site;
use connection::{Port, Purpose};
use open::Root;
use server::{Server, Totals};
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use wharf::{CompletionPort, GetError, Workers};

/// Connections that are waited for at a time.
const ACCEPTS: usize = 16;
/// How often it is looked whether connections have ended, when the server does.
const DRAIN_LOOK: Duration = Duration::from_millis(10);

/// What the main thread waits for.
#[derive(Clone, Copy)]
enum Control {
    Signal,
    Figures,
    Deadlines,
}

pub fn run(options: &Files) -> Result<(), String> {
    let directory = options.directory.display();
    let root = Root::open(&options.directory)
        .map_err(|error| format!("{directory} cannot be served: {error}; give a directory that can be read"))?;
    if let Some(warning) = root.warning() {
        log::warn!("{warning}");
    }
    let (access_log, log_writer) = match &options.access_log {
        None => (None, None),
        Some(path) => {
            let opened = AccessLog::open(path).map_err(|error| {
                format!(
                    "the access log {} cannot be written: {error}; give another file, or - for stdout",
                    path.display()
                )
            })?;
            (Some(opened.0), Some(opened.1))
        }
    };
    let load = &options.load;
    let builder = CompletionPort::<(), Purpose>::builder().concurrency(load.concurrency.map_or(0, usize::from));
    let port: Port = builder.build().map_err(|error| no_port(&error))?;
    let listeners = listen::on_port(&port, &options.listen, " with --listen")?;
    let server = Arc::new(Server {
        port: port.clone(),
        site: Site { root, list: options.list, hidden: options.hidden },
        deadlines: deadlines::Deadlines::default(),
        totals: Totals::default(),
        access_log,
        stopping: AtomicBool::new(false),
        connections_max: load.max_sessions.map_or(usize::MAX, |most| most as usize),
        header_timeout_ms: milliseconds(options.header_timeout),
        idle_timeout_ms: milliseconds(options.idle_timeout),
        send_timeout_ms: milliseconds(options.send_timeout),
    });

    // A port of its own, so that the handlers' port can be closed from outside.
    let control = CompletionPort::<(), Control>::new().map_err(|error| no_port(&error))?;
    for signal in system::ENDING {
        let waiting = control.signal(signal, (), Control::Signal);
        waiting.map_err(|error| format!("Ctrl+C cannot be waited for: {error}"))?;
    }
    let no_timer = |error: io::Error| format!("a timer cannot be set: {error}");
    let shortest = options.header_timeout.min(options.idle_timeout).min(options.send_timeout);
    let look = (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1));
    control.interval(look, (), Control::Deadlines).map_err(no_timer)?;
    if let Some(seconds) = load.stats {
        control.interval(Duration::from_secs(seconds.into()), (), Control::Figures).map_err(no_timer)?;
    }
    for (listener, _) in std::iter::repeat_n(&listeners, ACCEPTS).flatten() {
        listener.accept(Purpose::Accept).map_err(|refused| format!("nothing can be accepted: {}", refused.error))?;
    }
    let handler = server.clone();
    let workers = load.workers.map_or_else(Workers::default, |count| Workers::new(count.into()));
    let pool = port.run(workers, move |packet| handler.handle(packet));
    let pool = pool.map_err(|error| format!("no thread can be started: {error}"))?;
    // For people and for scripts: the first line, with the real port. Serving does not depend on who reads it.
    let mut out = io::stdout();
    for (_, address) in &listeners {
        let _ = writeln!(out, "listening on {address}").and_then(|()| out.flush());
    }

    let mut last = (Instant::now(), Figures::of(&server.totals));
    while let Ok(packet) = control.get() {
        match packet.context {
            Control::Deadlines => server.deadlines.sweep(clock::milliseconds(), false),
            Control::Figures => {
                let next = (Instant::now(), Figures::of(&server.totals));
                eprintln!("{}", next.1.line(&last.1, next.0.duration_since(last.0), server.totals.open.load(Relaxed)));
                last = next;
            }
            Control::Signal => break,
        }
    }

    // Nobody new; who waits for a request is closed, who is being answered is answered.
    server.stopping.store(true, Relaxed);
    listeners.iter().for_each(|(listener, _)| listener.close());
    let until = Instant::now() + SHUTDOWN;
    while server.totals.open.load(Relaxed) > 0 && Instant::now() < until {
        server.deadlines.sweep(clock::milliseconds(), true);
        match control.get_timeout(DRAIN_LOOK) {
            Ok(packet) if matches!(packet.context, Control::Signal) => end_at_once(),
            Ok(_) | Err(GetError::TimedOut) => {}
            Err(_) => break,
        }
    }
    let cut = server.totals.open.load(Relaxed);
    port.close();
    // A worker that waits for a disk is not waited for.
    pool.shutdown(until.saturating_duration_since(Instant::now()).max(DRAIN_LOOK));
    let figures = Figures::of(&server.totals);
    let totals = &server.totals;
    log::info!("{totals:?}");
    eprintln!(
        "ended: {} requests on {} connections, {} bytes sent, {} too late, {} refused{}",
        figures.requests,
        totals.accepted.load(Relaxed),
        figures.bytes,
        totals.late.load(Relaxed),
        totals.refused.load(Relaxed),
        if cut > 0 { format!(", {cut} connections cut off") } else { String::new() },
    );
    // The log's writer ends when nobody can log any more.
    drop(server);
    if let Some(writer) = log_writer {
        writer.finish();
    }
    Ok(())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(u64::MAX / 8)
}

/// Totals at one moment.
struct Figures {
    requests: u64,
    bytes: u64,
}

impl Figures {
    fn of(totals: &Totals) -> Figures {
        Figures { requests: totals.requests.load(Relaxed), bytes: totals.bytes.load(Relaxed) }
    }

    /// One line of `--stats`.
    fn line(&self, before: &Figures, time: Duration, open: usize) -> String {
        let per_second = |now: u64, then: u64| now.saturating_sub(then) as f64 / time.as_secs_f64().max(1e-9);
        format!(
            "connections {open}  requests/s {:.0}  sent {:.0} B/s  requests {}",
            per_second(self.requests, before.requests),
            per_second(self.bytes, before.bytes),
            self.requests,
        )
    }
}
