//! Talks with the datagram service.

use crate::soak::ledger::Kind;
use crate::soak::stage::{Actor, Event, Player, Socket, Stage, lock};
use fastrand::Rng;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use wharf::Buffer;

/// One datagram there and back at a time, so that the system has no reason to lose one.
pub(super) struct Pinger {
    stage: Arc<Stage>,
    to: SocketAddr,
    state: Mutex<(Rng, Vec<u8>, usize)>,
    _player: Player,
}

impl Pinger {
    pub(super) fn enter(stage: &Arc<Stage>, to: SocketAddr) {
        let state = Mutex::new((stage.random(), Vec::new(), 0));
        Arc::new(Pinger { stage: stage.clone(), to, state, _player: stage.player() }).start();
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        if stage.is_stopping() {
            return;
        }
        match stage.port.bind("127.0.0.1:0", ()) {
            Ok(socket) => {
                lock(&self.state).2 = 100;
                self.ping(&socket);
            }
            Err(error) => stage.fault(format!("no socket for datagrams: {error}")),
        }
    }

    fn ping(self: Arc<Self>, socket: &Socket) {
        let stage = self.stage.clone();
        let message = {
            let (random, sent, _) = &mut *lock(&self.state);
            *sent = vec![0; random.usize(..1500)];
            random.fill(sent);
            sent.clone()
        };
        stage.issued(socket.recv_from(Buffer::with_capacity(2048), stage.op(Kind::Datagram, self.clone(), 0)));
        stage.issued(socket.send_to(message, self.to, stage.op(Kind::Datagram, self, 1)));
    }
}

impl Actor for Pinger {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        match event {
            Event::SentTo { result: Ok(_), .. } => {}
            Event::ReceivedFrom { socket, buffer, result: Ok(_), .. } => {
                let more = {
                    let (_, sent, left) = &mut *lock(&self.state);
                    stage.check(buffer[..] == sent[..], "a datagram is not what was sent");
                    *left -= 1;
                    *left > 0
                };
                if more {
                    self.ping(&socket);
                } else {
                    socket.close();
                    self.start();
                }
            }
            other => stage.fault(format!("a datagram: {other:?}")),
        }
    }
}
