//! One test at the server as the owner of its operations: each packet is handled under the test's lock, and what has to
//! happen without it is done afterwards.

use super::options::Options;
use super::state::{Resources, State};
use crate::measure::figures::Role;
use crate::protocol::{Cookie, Failure, code};
use crate::report::log::Log;
use crate::report::printer::Printer;
use crate::session::purpose::Purpose;
use crate::session::test::TestSession;
use crate::stream::send_control::{News, Watcher};
use crate::surroundings::port::{Op, Owner, Port, Stream};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wharf::Event;

/// The server that a test belongs to. Told under no test's lock.
pub(super) trait TestHost: Resources {
    /// A client asks for a datagram stream. It is that of the first test that waits for one from there; anything else
    /// is a stranger's.
    fn hello_of(&self, from: SocketAddr);
    /// A test needs its place no longer.
    fn free(&self, test: &ServerTest);
    /// A test is over.
    fn over(&self);
}

/// One test at the server.
pub(super) struct ServerTest {
    cookie: Cookie,
    log: Arc<Log>,
    host: Arc<dyn TestHost>,
    state: Mutex<State>,
}

impl ServerTest {
    pub(super) fn new(
        port: &Port,
        cookie: Cookie,
        log: &Arc<Log>,
        printer: Printer,
        options: &Options,
        host: Arc<dyn TestHost>,
    ) -> Arc<ServerTest> {
        Arc::new_cyclic(|test| {
            let mut session = TestSession::new(port, Role::Server, cookie, log, printer, test);
            session.interval = options.interval;
            session.receive_timeout = options.receive_timeout;
            let state = State::new(session, options, host.clone());
            ServerTest { cookie, log: log.clone(), host, state: Mutex::new(state) }
        })
    }

    pub(super) fn cookie(&self) -> Cookie {
        self.cookie
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something under the lock, and then, without it, what had to wait for that.
    fn with<R>(&self, act: impl FnOnce(&mut State) -> R) -> R {
        let mut state = self.lock();
        let result = act(&mut state);
        let (frees_place, over) = (std::mem::take(&mut state.frees_place), std::mem::take(&mut state.over));
        drop(state);
        self.log.flush();
        if frees_place {
            self.host.free(self);
        }
        if over {
            self.host.over();
        }
        result
    }

    /// A new test: its control connection.
    pub(super) fn greet(&self, stream: Stream, peer: SocketAddr) {
        self.with(|state| state.greet(stream, peer));
    }

    /// A connection with this test's cookie. Comes back if it has no place here.
    pub(super) fn offer(&self, stream: Stream, peer: SocketAddr, number: u64) -> Result<(), Stream> {
        self.with(|state| state.offer(stream, peer, number))
    }

    /// A hello; true if it is for this test.
    pub(super) fn hello_from(&self, from: SocketAddr) -> bool {
        self.with(|state| state.hello_from(from))
    }

    /// Whether it needs no place any more.
    pub(super) fn is_past(&self) -> bool {
        self.lock().is_past()
    }

    /// A connection with a cookie that nobody knows.
    pub(super) fn foreign_stream(&self) {
        self.with(State::foreign_stream);
    }

    /// The server ends.
    pub(super) fn stop(&self) {
        self.with(|state| {
            state.fail(Failure::new(code::SERVER_TERMINATED, "interrupt - the server has terminated"));
            state.close();
        });
    }
}

impl Owner for ServerTest {
    fn completed(self: Arc<Self>, _: &Port, tag: u64, event: Event<(), Op>) {
        self.with(|state| match (Purpose::of_tag(tag), event) {
            (Purpose::Control, Event::Received { buffer, result, .. }) => state.received(&buffer, result),
            (Purpose::Alarm(alarm, number), Event::Elapsed { result: Ok(_) }) => state.alarm(alarm, number),
            _ => {}
        });
    }
}

impl Watcher for ServerTest {
    fn post(self: Arc<Self>, _: &Port, _: News, _: u32) {
        // The client ends the test.
    }

    fn stray_hello(&self, from: SocketAddr) {
        self.host.hello_of(from);
    }
}
