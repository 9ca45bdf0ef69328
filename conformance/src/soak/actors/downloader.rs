//! Takes what a shower sends.

use crate::soak::actors::shower::END;
use crate::soak::ledger::Kind;
use crate::soak::stage::{Actor, Event, Player, Stage, lock};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use wharf::Buffer;

/// Takes a part of the file and compares it.
pub(super) struct Downloader {
    stage: Arc<Stage>,
    address: SocketAddr,
    got: Mutex<Vec<u8>>,
    _player: Player,
}

impl Downloader {
    pub(super) fn enter(stage: &Arc<Stage>, address: SocketAddr) {
        let got = Mutex::default();
        Arc::new(Downloader { stage: stage.clone(), address, got, _player: stage.player() }).start();
    }

    fn start(self: Arc<Self>) {
        let stage = self.stage.clone();
        lock(&self.got).clear();
        if stage.is_stopping() {
            return;
        }
        stage.connect(self.address, self.clone(), 0);
    }

    fn judge(&self) {
        let got = lock(&self.got);
        let word =
            |at: usize| got.get(at..at + 8).and_then(|bytes| Some(u64::from_le_bytes(bytes.try_into().ok()?) as usize));
        let whole = word(0).zip(word(8)).is_some_and(|(offset, length)| {
            let part = self.stage.shown.1.get(offset..offset + length);
            got.get(16..16 + length) == part && got.get(16 + length..) == Some(END)
        });
        self.stage.check(whole, "a file that was sent is not what it holds");
    }
}

impl Actor for Downloader {
    fn took(self: Arc<Self>, _step: u8, event: Event) {
        let stage = self.stage.clone();
        let (stream, buffer) = match event {
            Event::Connected { stream, result: Ok(()) } => (stream, Buffer::with_capacity(64 * 1024)),
            Event::Received { result: Ok(0), .. } => {
                self.judge();
                return self.start();
            }
            Event::Received { stream, buffer, result: Ok(_) } => {
                lock(&self.got).extend_from_slice(&buffer);
                (stream, buffer)
            }
            other => return stage.fault(format!("taking a file: {other:?}")),
        };
        stage.issued(stream.recv(buffer, stage.op(Kind::Receive, self, 0)));
    }
}
