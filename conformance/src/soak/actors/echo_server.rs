//! Serves a connection by sending back what comes.

use crate::soak::ledger::Kind;
use crate::soak::stage::{Actor, Event, Stage, Stream, peer_is_gone};
use std::sync::Arc;

/// Sends back what it gets.
pub(super) struct EchoServer(Arc<Stage>);

impl EchoServer {
    pub(super) fn serve(stage: &Arc<Stage>, stream: &Stream) {
        Arc::new(EchoServer(stage.clone())).receive(stream);
    }

    fn receive(self: Arc<Self>, stream: &Stream) {
        let stage = self.0.clone();
        stage.perhaps(stream.recv_pooled(stage.op(Kind::Receive, self, 0)));
    }
}

impl Actor for EchoServer {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.0.clone();
        match event {
            Event::Received { stream, buffer, result: Ok(1..) } => {
                stage.perhaps(stream.send(buffer, stage.op(Kind::Send, self, 0)));
            }
            Event::Received { result: Ok(_), .. } => {}
            Event::Sent { stream, result: Ok(_), .. } => self.receive(&stream),
            Event::Received { result: Err(error), .. } | Event::Sent { result: Err(error), .. } => {
                stage.check(peer_is_gone(&error), &format!("the echo's server failed: {error}"));
            }
            _ => stage.fault("a stream's operation ended as something else"),
        }
    }
}
