//! The servers of sessions: `wharf serve chat`, `echo` and `discard`.

use crate::listen::listen;
use crate::options::Server;
use crate::port::no_port;
use crate::serving::{self, Control, SHUTDOWN};
use std::time::Duration;
use wharf::Buffer;
use wharf_session::{Closed, Group, Link, Service, ServiceStats, Session};

/// A line that grows beyond this is passed on as it is: nobody's memory pays for a missing newline.
const LINE_BYTES_MAX: usize = 8 * 1024;

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
    let places = listen(&service, &options.listen, &acceptor, session)?;
    let control = Control::new(&options.load)?;
    control.serve(&places, Sessions(service), options.ending.drain());
    Ok(())
}

struct Sessions(Service);

impl serving::Server for Sessions {
    type Totals = ServiceStats;

    fn totals(&self) -> ServiceStats {
        self.0.stats()
    }

    fn figures(before: &ServiceStats, now: &ServiceStats, seconds: f64) -> String {
        let packets = now.port.removed.saturating_sub(before.port.removed);
        let wakes = match (before.port.wakes, now.port.wakes) {
            (Some(before), Some(now)) => format!("{:.3}", now.saturating_sub(before) as f64 / packets.max(1) as f64),
            _ => "unknown".into(),
        };
        format!(
            "sessions {}  packets/s {:.0}  queued {}  active {}  waiting {}  blocked {}  wake-ups/packet {}  memory {}  refused {}",
            now.sessions,
            packets as f64 / seconds,
            now.port.queued,
            now.port.active,
            now.port.waiting,
            now.port.blocked,
            wakes,
            now.memory.used_bytes,
            now.refused,
        )
    }

    fn drain(&self, most: Duration) -> usize {
        self.0.drain(most)
    }

    fn end(self) -> String {
        let stats = self.0.stats();
        let report = self.0.shutdown(SHUTDOWN);
        log::info!("{report:?}, {stats:?}");
        let cut = if report.aborted > 0 { format!(", {} of them cut off", report.aborted) } else { String::new() };
        let lost = if report.lost_bytes > 0 { format!(", {} bytes lost", report.lost_bytes) } else { String::new() };
        format!("ended: {} sessions served, {} at the end{cut}{lost}", stats.accepted, stats.sessions)
    }
}
