//! A peer that takes whatever it is sent: a send to it never has to wait, and would go on for as long as there are
//! bytes.
//!
//! Checked is that neither the call that issues it nor a `get` for which a packet is queued sends more than a few
//! turns' bytes for each entry that it takes: then it is somebody else's turn.

use super::*;

/// What is sent, many times the bound.
const BYTES: usize = 8 << 20;
/// A turn is a mebibyte at most; two pieces of work may come before an entry, and the poll between may begin one.
const MOST: usize = 3 << 20;

impl Schedule {
    #[allow(unsafe_code)]
    pub(super) fn send_without_end(&self) {
        let (device, buffers, token, sink, connection) = {
            let (handle, connection) = self.fake.connected(usize::MAX / 2);
            let Ok(device) = self.port.take_over(handle, DeviceKind::Stream, 0) else {
                return self.fake.close(handle);
            };
            let socket = self.add_socket(device.clone(), false, Some(connection));
            let mut model = self.model.lock();
            model.connections.push(connection);
            model.sockets[socket].connected = true;
            let token = model.add(Kind::Sent, Some(socket), SEND, self.fake.now());
            let sink = model.sink(token);
            let pieces = model.memory(token, &[BYTES]);
            (device, to_buffers(pieces, false), token, sink, connection)
        };
        self.silently(|| {
            // What is left of a batch goes back, and is not counted below.
            self.get();
            let sent = |before: usize| self.fake.sent_bytes(connection) - before;
            // SAFETY: the memory is the operation's, lives as long as the schedule, and does not change.
            let issued = unsafe { self.port.send(&device, buffers, token, sink) };
            self.issued(token, issued, false);
            assert!(sent(0) <= MOST, "the issuing call sent {} bytes", sent(0));
            let packet = self.model.lock().operations.len();
            // A packet, for which a `get` ends.
            self.post_in_way(2);
            let waits = || self.model.lock().operations[packet].is_outstanding();
            // Unless it was refused. Before it come what is queued already, and functions to call.
            while waits() {
                let (before, taken) = (sent(0), self.port.stats().removed);
                self.get();
                let entries = self.port.stats().removed.saturating_sub(taken).max(1) as usize;
                assert!(sent(before) <= MOST * entries, "{} bytes were sent before {entries} entries", sent(before));
            }
        });
    }
}
