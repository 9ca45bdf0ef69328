//! Serves a connection by sending a part of a file, and ending it.

use crate::soak::ledger::Kind;
use crate::soak::stage::{Actor, Event, SHOWN_BYTES, Stage, Stream};
use std::sync::Arc;
use wharf::net::FileMessage;

/// Sends a part of the file that is shown: where it lies, the part, and an end.
pub(super) struct Shower(Arc<Stage>);

pub(super) const END: &[u8] = b"end of the part";

impl Shower {
    pub(super) fn serve(stage: &Arc<Stage>, stream: &Stream) {
        let mut random = stage.random();
        let offset = random.usize(..SHOWN_BYTES);
        let length = random.usize(..=SHOWN_BYTES - offset).min(300_000);
        let head: Vec<u8> = [offset as u64, length as u64].into_iter().flat_map(u64::to_le_bytes).collect();
        let message = FileMessage {
            head: head.into(),
            offset: offset as u64,
            length: Some(length as u64),
            tail: END.into(),
            ..FileMessage::new(stage.shown.0.clone())
        };
        let shower = Arc::new(Shower(stage.clone()));
        stage.issued(stream.send_file(message, stage.op(Kind::SendFile, shower.clone(), 0)));
        stage.issued(stream.disconnect(stage.op(Kind::Disconnect, shower, 0)));
    }
}

impl Actor for Shower {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        if !matches!(event, Event::SentFile { result: Ok(_), .. } | Event::Disconnected { result: Ok(()), .. }) {
            self.0.fault(format!("sending a file: {event:?}"));
        }
    }
}
