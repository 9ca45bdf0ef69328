//! The client: [`run`] makes one test against a server, ours or iperf3's.

mod hello;
mod options;
mod progress;
mod resolve;
mod state;
mod test;

pub use crate::report::outcome::Outcome;
pub use crate::surroundings::machinery::Machinery;
pub use crate::surroundings::processor::use_processor;
pub use crate::surroundings::socket::{KeepAlive, Origin};
pub use options::Options;

use crate::protocol::{Failure, code};
use crate::report::log::{Log, Sink};
use crate::report::printer::Printer;
use crate::session::purpose::Purpose;
use crate::surroundings::{file, port, system};
use std::sync::Arc;
use std::sync::mpsc::channel;
use test::ClientTest;

/// Makes a test, and reports to `sink` while it runs. Returns when it is over.
///
/// Ctrl+C ends the test early: what is known is reported, and the server is told.
pub fn run(options: &Options, sink: Box<dyn Sink>) -> Outcome {
    let log = Log::new(sink);
    let outcome = run_with(options, &log);
    log.finish();
    outcome
}

fn run_with(options: &Options, log: &Arc<Log>) -> Outcome {
    let mut printer = Printer::new(options.form.clone(), log.clone());
    let fail = |mut printer: Printer, failure: Failure| {
        printer.failed(None, None, &failure);
        Outcome::failed(failure)
    };
    let parameters = &options.parameters;
    if let Some(title) = &parameters.title {
        printer.extra("title", title.as_str().into());
        printer.set_prefix(format!("{title}:  "));
    }
    if let Some(text) = &parameters.extra_data {
        printer.extra("extra_data", text.as_str().into());
    }
    let addresses = match resolve::resolve(options) {
        Ok(addresses) => addresses,
        Err(failure) => return fail(printer, failure),
    };
    let port = match options.machinery.port() {
        Ok(port) => port,
        Err(error) => return fail(printer, Failure::system(code::INIT, &error)),
    };
    let file = match &options.file {
        None => None,
        Some(path) => match file::open(&port, path, parameters, !parameters.reverse) {
            Ok(file) => Some(file),
            Err(failure) => return fail(printer, failure),
        },
    };
    if let Some(text) = &options.announce {
        printer.line(text);
    }
    printer.line(&format!("Connecting to host {}, port {}", options.host, options.port));
    let (done, over) = channel();
    let test = ClientTest::new(&port, options, log, printer, addresses, file, done);
    let pool = match port::run(&port, options.machinery.threads) {
        Ok(pool) => pool,
        Err(error) => return test.cannot_run(Failure::system(code::INIT, &error)),
    };
    for signal in system::ENDING {
        let _ = port.signal(signal, (), test.op(Purpose::Control));
    }
    test.begin();
    let _ = over.recv();
    port.close();
    pool.join();
    test.outcome()
}
