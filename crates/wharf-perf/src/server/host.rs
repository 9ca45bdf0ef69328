//! What the tests of a server share: the listener, the place that each test takes, the socket that hears hellos, and
//! the processors that a client may choose.

use super::options::Options;
use super::pending::{Admission, Arrival, PendingConnections};
use super::refused::refuse;
use super::sockets;
use super::state::Resources;
use super::test::{ServerTest, TestHost};
use crate::protocol::{Cookie, Failure, code, datagram, describe, state};
use crate::report::human::SERVER_RULE;
use crate::report::log::Log;
use crate::report::printer::Printer;
use crate::report::text::plain;
use crate::surroundings::port::{Datagrams, Op, Owner, Port};
use crate::surroundings::processor::use_processor;
use crate::surroundings::system::Processors;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wharf::net::Permit;
use wharf::{Buffer, Event};

/// A hello's bytes, and more.
const HELLO_BYTES: usize = 2048;

/// The server while it runs.
pub(super) struct Host {
    port: Port,
    options: Options,
    address: SocketAddr,
    log: Arc<Log>,
    pending: Arc<PendingConnections>,
    state: Mutex<State>,
    done: Sender<()>,
}

#[derive(Default)]
struct State {
    /// Tests that take a place.
    tests: Vec<Arc<ServerTest>>,
    /// How many tests have been begun.
    begun: u64,
    /// The processors before a client chose one.
    processors: Option<Processors>,
    /// Where hellos arrive, while a test waits for datagram streams.
    hellos: Option<Datagrams>,
    stopping: bool,
}

impl Host {
    pub(super) fn new(
        port: &Port,
        options: &Options,
        address: SocketAddr,
        log: &Arc<Log>,
        done: Sender<()>,
    ) -> Arc<Host> {
        Arc::new(Host {
            port: port.clone(),
            options: options.clone(),
            address,
            log: log.clone(),
            pending: PendingConnections::new(port, log, options),
            state: Mutex::default(),
            done,
        })
    }

    /// The context of the server's own operations.
    pub(super) fn op(self: &Arc<Self>) -> Op {
        Op::of(self.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tests(&self) -> Vec<Arc<ServerTest>> {
        self.state().tests.clone()
    }

    pub(super) fn announce(&self) {
        if self.options.form.json || self.options.form.json_stream {
            return;
        }
        let number = self.state().begun + 1;
        self.log.line(SERVER_RULE);
        self.log.line(format!("Server listening on {} (test #{number})", self.address.port()));
        self.log.line(SERVER_RULE);
    }

    /// So long after the start a server for one test ends if it has none.
    fn idle(&self) {
        if self.tests().is_empty() {
            self.end();
        }
    }

    fn end(&self) {
        let _ = self.done.send(());
    }

    /// A signal has come: all tests end, and the server with them.
    fn stop(&self) {
        let tests = {
            let mut state = self.state();
            state.stopping = true;
            state.tests.clone()
        };
        for test in tests {
            test.stop();
        }
        self.end();
    }

    // --- Connections ---

    pub(super) fn connected(self: &Arc<Self>, socket: TcpStream, peer: SocketAddr, permit: Permit) {
        let _ = socket.set_nodelay(true);
        let Ok(stream) = self.port.associate(socket, ()) else { return };
        self.pending.add(stream, plain(peer), permit, self.clone());
    }

    /// A place for a new test; `None`: there is none.
    fn new_test(self: &Arc<Self>, cookie: Cookie) -> Option<Arc<ServerTest>> {
        let mut state = self.state();
        // A server for one test ends with it: another one would be cut off.
        let had_its_one = self.options.one_off && state.begun > 0;
        if state.stopping || had_its_one || state.tests.len() >= self.options.max_clients {
            return None;
        }
        state.begun += 1;
        let mut printer = Printer::new(self.options.form.clone(), self.log.clone());
        if self.options.max_clients > 1 {
            printer.set_prefix(format!("#{} ", state.begun));
        }
        let test = ServerTest::new(&self.port, cookie, &self.log, printer, &self.options, self.clone());
        state.tests.push(test.clone());
        Some(test)
    }

    // --- Datagrams ---

    fn hello(
        self: &Arc<Self>,
        socket: &Datagrams,
        buffer: Buffer,
        from: Option<SocketAddr>,
        result: io::Result<usize>,
    ) {
        if let (Some(from), true) = (from, result.is_ok() && datagram::is_hello(&buffer)) {
            self.hello_of(from);
        }
        let _ = socket.recv_from(buffer, self.op());
    }
}

impl Owner for Host {
    fn completed(self: Arc<Self>, _: &Port, _: u64, event: Event<(), Op>) {
        match event {
            Event::ReceivedFrom { socket, buffer, from, result, .. } => self.hello(&socket, buffer, from, result),
            Event::Elapsed { result: Ok(_) } => self.idle(),
            Event::Signal { result: Ok(_) } => self.stop(),
            _ => {}
        }
    }
}

impl Admission for Host {
    fn arrived(self: Arc<Self>, arrival: Arrival) {
        let Arrival { stream, peer, permit, bytes } = arrival;
        let Some(cookie) = Cookie::parse(&bytes) else {
            let failure = Failure::new(code::COOKIE, describe(code::COOKIE));
            self.log.error(format!("{peer}: {failure}"));
            return refuse(&self.port, &stream, permit, &failure.frame());
        };
        let busy = [state::ACCESS_DENIED as u8];
        let mut tests = self.tests();
        // A client that has just heard the end of one test may be faster with the next than the list is with forgetting
        // it.
        tests.retain(|test| {
            let past = test.is_past();
            if past {
                self.free(test);
            }
            !past
        });
        if let Some(test) = tests.iter().find(|test| test.cookie() == cookie) {
            if let Err(stream) = test.offer(stream, peer, permit.number()) {
                refuse(&self.port, &stream, permit, &busy);
            }
            return;
        }
        match self.new_test(cookie) {
            Some(test) => test.greet(stream, peer),
            None => {
                refuse(&self.port, &stream, permit, &busy);
                tests.iter().for_each(|test| test.foreign_stream());
            }
        }
    }
}

impl Resources for Host {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn use_processor(&self, number: u32) -> io::Result<()> {
        let before = Processors::now()?;
        self.state().processors.get_or_insert(before);
        use_processor(number)
    }

    fn listen_for_hellos(self: Arc<Self>) -> io::Result<()> {
        let mut state = self.state();
        if state.hellos.is_some() {
            return Ok(());
        }
        let socket: Datagrams = self.port.associate(sockets::hellos(&self.options, self.address)?, ())?;
        let _ = socket.recv_from(Buffer::with_capacity(HELLO_BYTES), self.op());
        state.hellos = Some(socket);
        Ok(())
    }
}

impl TestHost for Host {
    fn hello_of(&self, from: SocketAddr) {
        let from = plain(from);
        let _ = self.tests().iter().find(|test| test.hello_from(from));
    }

    fn free(&self, test: &ServerTest) {
        let (gone, hellos, processors) = {
            let mut state = self.state();
            let before = state.tests.len();
            state.tests.retain(|other| !std::ptr::eq(Arc::as_ptr(other), test));
            let (mut hellos, mut processors) = (None, None);
            if state.tests.is_empty() {
                (hellos, processors) = (state.hellos.take(), state.processors.take());
            }
            (state.tests.len() < before, hellos, processors)
        };
        if let Some(hellos) = hellos {
            hellos.close();
        }
        if let Some(Err(error)) = processors.map(|processors| processors.choose()) {
            log::warn!("the processor that a client chose stays the only one: {error}");
        }
        if gone && !self.options.one_off {
            self.announce();
            self.log.flush();
        }
    }

    fn over(&self) {
        if self.options.one_off {
            self.end();
        }
    }
}
