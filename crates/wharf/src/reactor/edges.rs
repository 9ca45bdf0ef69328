//! Waits for a side of a stream that make no system call: they complete when something may have come, or space may be
//! there, since the side was drained.
//!
//! Such a wait is an operation of its side, in the order of issue. A side has a turn only while it is not drained, so
//! a wait that comes to its turn is over: whether there is something a later call finds out, and drains the side if
//! there is nothing.

use super::receive::may_receive;
use super::{DeviceKind, DeviceState, EINVAL, Issued, Kind, Port, Sink};
use crate::op::Operation;
use crate::sync::Arc;

impl Port {
    pub(crate) fn watch_readable(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        let device = self.own(device)?;
        may_receive(device)?;
        self.issue_receive(device, Operation::watch(Kind::Readable, token, sink))
    }

    pub(crate) fn watch_writable(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if !matches!(device.kind, DeviceKind::Stream | DeviceKind::Handle) {
            return Err(EINVAL);
        }
        self.may_send(device)?;
        self.issue_send(device, Operation::watch(Kind::Writable, token, sink))
    }
}
