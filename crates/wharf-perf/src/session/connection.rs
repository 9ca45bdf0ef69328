//! The control connection as a device of the port: what is said on it, and bytes that come.

use super::purpose::Purpose;
use crate::surroundings::port::{Op, Owner, Stream};
use std::sync::Weak;
use wharf::Buffer;

/// Bytes taken from it at a time.
const RECEIVE_BYTES: usize = 16 * 1024;

/// The control connection of one test, before it is there, while it is, and after it.
pub(crate) struct Connection {
    stream: Option<Stream>,
    owner: Weak<dyn Owner>,
}

impl Connection {
    /// One that is not there yet.
    pub(crate) fn new(owner: Weak<dyn Owner>) -> Connection {
        Connection { stream: None, owner }
    }

    pub(crate) fn set(&mut self, stream: Stream) {
        self.stream = Some(stream);
    }

    pub(crate) fn stream(&self) -> Option<&Stream> {
        self.stream.as_ref()
    }

    pub(crate) fn send(&self, bytes: impl Into<Buffer>) {
        if let Some(stream) = &self.stream {
            let _ = stream.send(bytes, Op::Nothing);
        }
    }

    pub(crate) fn send_state(&self, state: i8) {
        self.send(vec![state as u8]);
    }

    /// The owner gets what comes next.
    pub(crate) fn receive(&self) {
        if let (Some(stream), Some(owner)) = (&self.stream, self.owner.upgrade()) {
            let _ = stream.recv(Buffer::with_capacity(RECEIVE_BYTES), Op::Of(owner, Purpose::Control.tag()));
        }
    }

    /// Nothing more is said.
    pub(crate) fn disconnect(&self) {
        if let Some(stream) = &self.stream {
            let _ = stream.disconnect(Op::Nothing);
        }
    }

    pub(crate) fn close(&mut self) {
        if let Some(stream) = self.stream.take() {
            stream.close();
        }
    }
}
