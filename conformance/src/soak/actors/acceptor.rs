//! The listener of the round's services: each connection that it accepts gets a server.

use crate::soak::actors::echo_server::EchoServer;
use crate::soak::actors::shower::Shower;
use crate::soak::ledger::Kind;
use crate::soak::stage::{Actor, ECANCELED, Event, Listener, Stage};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// A listener, and what becomes of its connections.
pub(super) struct Acceptor {
    stage: Arc<Stage>,
    shows: bool,
}

impl Acceptor {
    pub(super) fn open(stage: &Arc<Stage>, shows: bool) -> io::Result<SocketAddr> {
        let listener: Listener = stage.port.listen("127.0.0.1:0", ())?;
        let address = listener.local_addr()?;
        let acceptor = Arc::new(Acceptor { stage: stage.clone(), shows });
        for _ in 0..4 {
            stage.issued(listener.accept(stage.op(Kind::Accept, acceptor.clone(), 0)));
        }
        stage.service(move || listener.close());
        Ok(address)
    }
}

impl Actor for Acceptor {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        let Event::Accepted { listener, result } = event else {
            return stage.fault("an accept ended as something else");
        };
        match result {
            Ok((socket, _)) => {
                stage.of_service(listener.accept(stage.op(Kind::Accept, self.clone(), 0)));
                match stage.port.associate(socket, ()) {
                    Ok(stream) if self.shows => Shower::serve(&stage, &stream),
                    Ok(stream) => EchoServer::serve(&stage, &stream),
                    Err(rejected) => stage.fault(format!("a connection was not associated: {}", rejected.error)),
                }
            }
            Err(error) => stage.check(error.raw_os_error() == Some(ECANCELED), &format!("an accept failed: {error}")),
        }
    }
}
