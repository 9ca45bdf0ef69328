//! The datagram service.

use crate::soak::ledger::Kind;
use crate::soak::stage::{Actor, ECANCELED, Event, Socket, Stage};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use wharf::Buffer;

/// Sends datagrams back to where they came from.
pub(super) struct Pong(Arc<Stage>);

impl Pong {
    pub(super) fn open(stage: &Arc<Stage>) -> io::Result<SocketAddr> {
        let socket: Socket = stage.port.bind("127.0.0.1:0", ())?;
        let address = socket.local_addr()?;
        let pong = Arc::new(Pong(stage.clone()));
        for _ in 0..4 {
            stage.issued(socket.recv_from(Buffer::with_capacity(2048), stage.op(Kind::Datagram, pong.clone(), 0)));
        }
        stage.service(move || socket.close());
        Ok(address)
    }
}

impl Actor for Pong {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.0.clone();
        match event {
            Event::ReceivedFrom { socket, buffer, from: Some(from), result: Ok(_), .. } => {
                stage.of_service(socket.send_to(buffer, from, stage.op(Kind::Datagram, self, 0)));
            }
            Event::SentTo { socket, result: Ok(_), .. } => {
                stage.of_service(socket.recv_from(Buffer::with_capacity(2048), stage.op(Kind::Datagram, self, 0)));
            }
            Event::ReceivedFrom { result: Err(error), .. } if error.raw_os_error() == Some(ECANCELED) => {}
            other => stage.fault(format!("the datagrams' server: {other:?}")),
        }
    }
}
