//! How far a stream's sends are: what the system has taken of them, and what the peer's system has acknowledged. And
//! the end that tells a peer that not all has come.

use super::{Device, Port};
use crate::reactor::device::shut;
use std::sync::atomic::Ordering;

impl Port {
    /// Bytes that the system has taken for sending on a stream since it belongs to the port, with what it has taken of
    /// a send that is not complete. Costs no system call.
    pub fn bytes_taken(&self, device: &Device) -> u64 {
        self.own(device).map_or(0, |device| device.taken.load(Ordering::Relaxed))
    }

    /// Bytes that the system has taken for sending and that the peer's system has not acknowledged (`SIOCOUTQ`); the
    /// end of the stream counts as one. Of a stream of the machine's own: the memory of what the peer has not read.
    /// `None`: the system does not tell, or the device is closed.
    pub fn unacknowledged(&self, device: &Device) -> Option<u64> {
        let device = self.own(device).ok()?;
        if !device.enter() {
            return None;
        }
        let bytes = self.engine().unacknowledged(device.handle);
        self.leave(device);
        bytes
    }

    /// The same without the end of the stream, where the system has taken that: bytes that were sent, and no more.
    pub(crate) fn unacknowledged_bytes(&self, device: &Device) -> Option<u64> {
        // Looked at before: what the system is just taking is no byte that was acknowledged.
        let ended = self.own(device).ok()?.shut.load(Ordering::Acquire) & shut::TAKEN != 0;
        Some(self.unacknowledged(device)?.saturating_sub(u64::from(ended)))
    }

    /// Whether a stream's connection is known to be broken, though nobody receives; or is closed.
    pub(crate) fn is_broken(&self, device: &Device) -> bool {
        let look = self.with_handle(device, |handle| Ok(self.engine().is_broken(handle)));
        look.unwrap_or(true)
    }

    /// The close of a stream, which comes next, resets its connection.
    pub(crate) fn reset_when_closed(&self, device: &Device) {
        let _ = self.with_handle(device, |handle| {
            self.engine().reset_when_closed(handle);
            Ok(())
        });
    }
}
