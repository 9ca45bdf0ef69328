//! How far a stream's sends are: what the system has taken of them, and what the peer's system has acknowledged. And
//! the end that tells a peer that not all has come.

use super::Port;
use crate::reactor::device::DeviceState;
use crate::reactor::device::shut;
use crate::sync::Arc;
use std::sync::atomic::Ordering;

impl Port {
    pub(crate) fn bytes_taken(&self, device: &Arc<DeviceState>) -> u64 {
        self.own(device).map_or(0, |device| device.taken.load(Ordering::Relaxed))
    }

    pub(crate) fn unacknowledged(&self, device: &Arc<DeviceState>) -> Option<u64> {
        let device = self.own(device).ok()?;
        if !device.enter() {
            return None;
        }
        let bytes = self.engine().calls().unacknowledged(device.handle);
        self.leave(device);
        bytes
    }

    /// The same without the end of the stream, where the system has taken that: bytes that were sent, and no more.
    pub(crate) fn unacknowledged_bytes(&self, device: &Arc<DeviceState>) -> Option<u64> {
        // Looked at before: what the system is just taking is no byte that was acknowledged.
        let ended = self.own(device).ok()?.shut.load(Ordering::Acquire) & shut::TAKEN != 0;
        Some(self.unacknowledged(device)?.saturating_sub(u64::from(ended)))
    }

    /// Whether a stream's connection is known to be broken, though nobody receives; or is closed.
    pub(crate) fn is_broken(&self, device: &Arc<DeviceState>) -> bool {
        let look = self.with_handle(device, |handle| Ok(self.engine().calls().is_broken(handle)));
        look.unwrap_or(true)
    }

    /// The close of a stream, which comes next, resets its connection.
    pub(crate) fn reset_when_closed(&self, device: &Arc<DeviceState>) {
        let _ = self.with_handle(device, |handle| {
            self.engine().calls().reset_when_closed(handle);
            Ok(())
        });
    }
}
