//! The server: [`serve`] measures with whoever comes, ours or iperf3's clients.
//!
//! All connections arrive at one listener. They are pending until their cookie tells whether they are a new test or a
//! stream of one; then the host hands them to the test, makes a new one, or refuses them.

mod host;
mod limits;
mod listening;
mod options;
mod pending;
mod refused;
mod sockets;
mod state;
mod test;

pub use options::{Options, PENDING_MAX};

use crate::protocol::{Failure, code};
use crate::report::log::{Log, Sink};
use crate::surroundings::port::Port;
use crate::surroundings::{port, system};
use host::Host;
use listening::Listening;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;

/// Serves until a signal comes, or, with `one_off`, one test is over.
///
/// # Errors
///
/// The port cannot be listened on.
pub fn serve(options: &Options, sink: Box<dyn Sink>) -> Result<(), Failure> {
    let log = Log::new(sink);
    let result = serve_with(options, &log);
    log.finish();
    result
}

fn serve_with(options: &Options, log: &Arc<Log>) -> Result<(), Failure> {
    let cannot = |error: &io::Error| {
        let text = format!("unable to start listener for connections on port {}: {error}", options.port);
        let remedy = if error.kind() == io::ErrorKind::AddrInUse {
            "; another server is there, choose another with -p"
        } else {
            ""
        };
        Failure::new(code::LISTEN, format!("{text}{remedy}"))
    };
    let port: Port = options.machinery.port().map_err(|error| Failure::system(code::INIT, &error))?;
    let socket = sockets::listen(options).map_err(|error| cannot(&error))?;
    let address = socket.local_addr().map_err(|error| cannot(&error))?;
    let listener = port.associate(socket, ()).map_err(|rejected| Failure::system(code::LISTEN, &rejected.error))?;
    let (done, over) = channel();
    let host = Host::new(&port, options, address, log, done);
    for signal in system::ENDING {
        let _ = port.signal(signal, (), host.op());
    }
    let listening = Listening::open(&port, listener, &host).map_err(|error| cannot(&error))?;
    let pool = port::run(&port, options.machinery.threads).map_err(|error| Failure::system(code::INIT, &error))?;
    log.listening(address.port());
    host.announce();
    log.flush();
    // A server that goes on stays as it is when nobody comes: its listener needs no renewal.
    if let (true, Some(timeout)) = (options.one_off, options.idle_timeout) {
        let _ = port.timer(timeout, (), host.op());
    }
    let _ = over.recv();
    listening.close();
    port.close();
    pool.join();
    Ok(())
}
