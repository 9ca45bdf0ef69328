//! One test at the client as the owner of its operations: each packet is handled under the test's lock, and what has to
//! happen without it is done afterwards.

use super::options::Options;
use super::state::State;
use crate::measure::figures::Role;
use crate::protocol::{Cookie, Failure};
use crate::report::log::Log;
use crate::report::outcome::Outcome;
use crate::report::printer::Printer;
use crate::session::purpose::Purpose;
use crate::session::test::TestSession;
use crate::stream::send_control::{News, Watcher};
use crate::surroundings::port::{File, Op, Owner, Port};
use std::net::SocketAddr;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wharf::Event;

/// One test at the client.
pub(super) struct ClientTest {
    log: Arc<Log>,
    state: Mutex<State>,
    done: Sender<()>,
}

impl ClientTest {
    pub(super) fn new(
        port: &Port,
        options: &Options,
        log: &Arc<Log>,
        printer: Printer,
        addresses: Vec<SocketAddr>,
        file: Option<(File, String)>,
        done: Sender<()>,
    ) -> Arc<ClientTest> {
        Arc::new_cyclic(|test| {
            let mut session = TestSession::new(port, Role::Client, Cookie::random(), log, printer, test);
            session.parameters = options.parameters.clone();
            session.host.clone_from(&options.host);
            session.host_port = options.port;
            session.interval = options.interval;
            session.receive_timeout = options.receive_timeout;
            session.file = file;
            let state = State::new(session, options, addresses);
            ClientTest { log: log.clone(), state: Mutex::new(state), done }
        })
    }

    /// There are no threads for it.
    pub(super) fn cannot_run(&self, failure: Failure) -> Outcome {
        self.lock().session.printer.failed(None, None, &failure);
        Outcome::failed(failure)
    }

    pub(super) fn begin(&self) {
        self.with(|state| state.connect_next(None));
    }

    /// The context of an operation for this purpose.
    pub(super) fn op(self: &Arc<Self>, purpose: Purpose) -> Op {
        Op::Of(self.clone(), purpose.tag())
    }

    /// What the test came to, when it is over.
    pub(super) fn outcome(&self) -> Outcome {
        let session = &mut self.lock().session;
        let engine = session.engine.clone();
        let first = session.first.take().map(|told| {
            let (start, end, intervals) = (Some(told.start), Some(told.end), told.intervals);
            Box::new(Outcome { start, intervals, end, failure: None, first: None, engine: engine.clone() })
        });
        Outcome {
            start: session.start.take(),
            intervals: session.take_intervals(),
            end: session.end.take(),
            failure: session.failure.take(),
            first,
            engine,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something under the lock, and then, without it, what had to wait for that.
    fn with(&self, act: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        act(&mut state);
        let over = std::mem::take(&mut state.over);
        drop(state);
        self.log.flush();
        if over {
            let _ = self.done.send(());
        }
    }
}

impl Owner for ClientTest {
    fn completed(self: Arc<Self>, _: &Port, tag: u64, event: Event<(), Op>) {
        self.with(|state| match (Purpose::of_tag(tag), event) {
            (Purpose::Control, Event::Connected { stream, result }) => state.connected(stream, result),
            (Purpose::Control, Event::Received { buffer, result, .. }) => state.received(&buffer, result),
            (Purpose::Control, Event::Signal { result: Ok(_) }) => state.interrupted(),
            (Purpose::Stream, Event::Connected { stream, result }) => state.stream_connected(stream, result),
            (Purpose::Stream, Event::ReceivedFrom { socket, buffer, result, .. }) => {
                state.hello_answered(socket, buffer, result);
            }
            (Purpose::Reached(round), _) => state.reached(round),
            (Purpose::Quiet(round), _) => state.quiet(round),
            (Purpose::Alarm(alarm, number), Event::Elapsed { result: Ok(_) }) => state.alarm(alarm, number),
            _ => {}
        });
    }
}

impl Watcher for ClientTest {
    fn post(self: Arc<Self>, port: &Port, news: News, round: u32) {
        let purpose = match news {
            News::Reached => Purpose::Reached(round),
            News::Quiet => Purpose::Quiet(round),
        };
        let _ = port.post(0, (), self.op(purpose));
    }

    fn stray_hello(&self, _: SocketAddr) {
        // Nobody says hello to a client.
    }
}
