//! Connections that are refused: they hear why, and are read for a moment before they are closed, so that no reset
//! destroys what was said.

use crate::session::test::LINGER;
use crate::surroundings::port::{Op, Owner, Port, Stream};
use std::sync::{Arc, Mutex, PoisonError};
use wharf::net::Permit;
use wharf::{Buffer, Event};

/// Bytes taken at a time, and thrown away.
const RECEIVE_BYTES: usize = 256;

struct RefusedConnection {
    stream: Stream,
    /// Counts it as open, until it is closed.
    permit: Mutex<Option<Permit>>,
}

/// Sends the last word, and closes the connection when the peer has, or after a while.
pub(super) fn refuse(port: &Port, stream: &Stream, permit: Permit, word: &[u8]) {
    let _ = stream.send(word.to_vec(), Op::Nothing);
    let _ = stream.disconnect(Op::Nothing);
    let refused = Arc::new(RefusedConnection { stream: stream.clone(), permit: Mutex::new(Some(permit)) });
    let _ = stream.recv(Buffer::with_capacity(RECEIVE_BYTES), Op::of(refused.clone()));
    let _ = port.timer(LINGER, (), Op::of(refused));
}

impl Owner for RefusedConnection {
    fn completed(self: Arc<Self>, _: &Port, _: u64, event: Event<(), Op>) {
        match event {
            Event::Received { buffer, result: Ok(1..), .. } => {
                let stream = self.stream.clone();
                let _ = stream.recv(buffer, Op::of(self));
            }
            // The end of the connection, or of the time.
            _ => {
                self.stream.close();
                drop(self.permit.lock().unwrap_or_else(PoisonError::into_inner).take());
            }
        }
    }
}
