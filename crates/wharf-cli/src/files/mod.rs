//! `wharf serve files`: a directory over HTTP/1.1, for GET and HEAD.
//!
//! What is said and meant is decided without a socket or a disk ([`request`], [`body`], [`path`], [`range`],
//! [`response`]); [`open`] and [`answer`] look at the disk; [`connection`] speaks with the port; [`server`]
//! begins connections and ends them. Of several ranges at once
//! the whole file is sent, which the standard allows. There is no multipart answer, no compression, no TLS, and a
//! file's name has to be UTF-8 without control characters and backslashes.

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
mod shared;
mod status;

use crate::listen;
use crate::options::Files;
use crate::port;
use crate::serving::{Control, SHUTDOWN};
use access_log::{AccessLog, Writer};
use answer::Site;
use connection::{Port, Purpose};
use open::Root;
use server::{Handler, Running};
use shared::{Shared, Totals};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;
use wharf::net::{AcceptLimits, Acceptor};

pub fn run(options: &Files) -> Result<(), String> {
    let root = root(options)?;
    let (access_log, log_writer) = access_log(options)?;
    let port: Port = port::of(&options.load)?;
    let limits = AcceptLimits { connections: options.load.connections(), ..AcceptLimits::default() };
    let acceptor = Acceptor::new(&port, limits, || Purpose::Accept);
    let places = listen::on_port(&port, &acceptor, &options.listen, " with --listen")?;
    let shared = Arc::new(Shared {
        site: Site { root, list: options.list, hidden: options.hidden },
        deadlines: deadlines::Deadlines::default(),
        totals: Totals::default(),
        access_log,
        stopping: AtomicBool::new(false),
        header_timeout_ms: milliseconds(options.header_timeout),
        idle_timeout_ms: milliseconds(options.idle_timeout),
        send_timeout_ms: milliseconds(options.send_timeout),
    });
    let control = Control::new(&options.load)?;
    let shortest = options.header_timeout.min(options.idle_timeout).min(options.send_timeout);
    control.tick_every((shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(1)))?;
    let handler = Handler { port: port.clone(), acceptor, shared };
    let handling = handler.clone();
    let pool = port.start(port::workers(&options.load), move |packet| handling.handle(packet));
    let pool = pool.map_err(|error| format!("no thread can be started: {error}"))?;
    control.serve(&places, Running::new(handler, pool), Some(SHUTDOWN));
    // It ends when nobody can log any more.
    if let Some(writer) = log_writer {
        writer.finish();
    }
    Ok(())
}

fn root(options: &Files) -> Result<Root, String> {
    let root = Root::open(&options.directory).map_err(|error| {
        let directory = options.directory.display();
        format!("{directory} cannot be served: {error}; give a directory that can be read")
    })?;
    if let Some(warning) = root.warning() {
        log::warn!("{warning}");
    }
    Ok(root)
}

fn access_log(options: &Files) -> Result<(Option<AccessLog>, Option<Writer>), String> {
    let Some(path) = &options.access_log else { return Ok((None, None)) };
    let (log, writer) = AccessLog::open(path).map_err(|error| {
        let path = path.display();
        format!("the access log {path} cannot be written: {error}; give another file, or - for stdout")
    })?;
    Ok((Some(log), Some(writer)))
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).min(u64::MAX / 8)
}
