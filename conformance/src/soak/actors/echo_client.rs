//! Talks with an echo server over TCP or over a pair of sockets.

use crate::soak::actors::echo_server::EchoServer;
use crate::soak::ledger::Kind;
use crate::soak::stage::{Actor, ECANCELED, Event, Player, Stage, Stream, lock};
use crate::system;
use fastrand::Rng;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use wharf::Buffer;

/// Connects, sends, compares what comes back, ends the connection in one of several ways, and begins anew.
pub(super) struct EchoClient {
    stage: Arc<Stage>,
    address: SocketAddr,
    state: Mutex<Conversation>,
    _player: Player,
}

struct Conversation {
    random: Rng,
    sent: Vec<u8>,
    come_back: usize,
    /// The send's packet has come.
    told: bool,
    messages_left: usize,
}

const CONNECTED: u8 = 0;
const SENT: u8 = 1;
const RECEIVED: u8 = 2;
/// The last operation of a connection, however it ends.
const LAST: u8 = 3;

impl EchoClient {
    pub(super) fn enter(stage: &Arc<Stage>, address: SocketAddr) {
        let random = stage.random();
        let state = Conversation { random, sent: Vec::new(), come_back: 0, told: false, messages_left: 0 };
        Arc::new(EchoClient { stage: stage.clone(), address, state: Mutex::new(state), _player: stage.player() })
            .start();
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        if stage.is_stopping() {
            return;
        }
        let local = {
            let mut state = lock(&self.state);
            state.messages_left = state.random.usize(1..20);
            state.random.u8(..) < 64
        };
        if !local {
            stage.connect(self.address, self.clone(), CONNECTED);
            return;
        }
        let Ok((own, other)) = system::pair() else { return stage.fault("no pair of sockets") };
        match (stage.port.associate(own, ()), stage.port.associate(other, ())) {
            (Ok(own), Ok(other)) => {
                EchoServer::serve(&stage, &other);
                self.speak(&own);
            }
            _ => stage.fault("a pair of sockets was not associated"),
        }
    }

    fn speak(self: Arc<Self>, stream: &Stream) {
        let stage = self.stage.clone();
        let (message, room) = {
            let mut state = lock(&self.state);
            let length =
                if state.random.u8(..) < 16 { state.random.usize(1..200_000) } else { state.random.usize(1..2000) };
            state.sent = vec![0; length];
            let Conversation { random, sent, .. } = &mut *state;
            random.fill(sent);
            (state.come_back, state.told) = (0, false);
            (state.sent.clone(), state.random.usize(1..20_000))
        };
        stage.issued(stream.send(message, stage.op(Kind::Send, self.clone(), SENT)));
        stage.issued(stream.recv(Buffer::with_capacity(room), stage.op(Kind::Receive, self, RECEIVED)));
    }

    /// The conversation is over, if both sides are.
    fn go_on(self: Arc<Self>, stream: &Stream) {
        let stage = self.stage.clone();
        let last = {
            let mut state = lock(&self.state);
            if !state.told || state.come_back < state.sent.len() {
                return;
            }
            // Once only, though two packets may be looked at side by side.
            state.told = false;
            state.messages_left -= 1;
            (state.messages_left == 0).then(|| state.random.u8(0..4))
        };
        let receive = || {
            let op = stage.op(Kind::Receive, self.clone(), LAST);
            stage.issued(stream.recv(Buffer::with_capacity(100), op))
        };
        match last {
            None => self.speak(stream),
            Some(0) => drop(stage.issued(stream.disconnect(stage.op(Kind::Disconnect, self, LAST)))),
            Some(1) => {
                receive();
                stream.close();
            }
            Some(2) => {
                if let Some(id) = receive() {
                    stream.cancel(id);
                }
            }
            // The last handle goes with the packet.
            Some(_) => stage.post(0, self, LAST),
        }
    }
}

impl Actor for EchoClient {
    fn took(self: Arc<Self>, step: u8, event: Event) {
        let stage = self.stage.clone();
        match (step, event) {
            (CONNECTED, Event::Connected { stream, result: Ok(()) }) => self.speak(&stream),
            (SENT, Event::Sent { stream, result: Ok(bytes), .. }) => {
                {
                    let mut state = lock(&self.state);
                    stage.check(bytes == state.sent.len(), "a send took fewer bytes than it had");
                    state.told = true;
                }
                self.go_on(&stream);
            }
            (RECEIVED, Event::Received { stream, buffer, result: Ok(bytes @ 1..) }) => {
                let more = {
                    let mut state = lock(&self.state);
                    let at = state.come_back;
                    let same = state.sent.get(at..at + bytes).is_some_and(|sent| *sent == buffer[..]);
                    stage.check(same, "an echo is not what was sent");
                    state.come_back += bytes;
                    state.come_back < state.sent.len()
                };
                if more {
                    stage.issued(stream.recv(buffer, stage.op(Kind::Receive, self, RECEIVED)));
                } else {
                    self.go_on(&stream);
                }
            }
            (LAST, Event::Received { result: Err(error), .. }) => {
                stage.check(error.raw_os_error() == Some(ECANCELED), &format!("the last receive failed: {error}"));
                self.start();
            }
            (LAST, Event::Disconnected { result: Ok(()), .. } | Event::Posted { .. }) => self.start(),
            (step, event) => stage.fault(format!("an echo's client, step {step}: {event:?}")),
        }
    }
}
