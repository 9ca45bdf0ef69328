//! Waits for a side of a stream that make no system call: they complete when something may have come, or space may be
//! there, since the side was drained.
//!
//! Such a wait is an operation of its side, in the order of issue. A side has a turn only while it is not drained, so
//! a wait that comes to its turn is over: whether there is something a later call finds out, and drains the side if
//! there is nothing.

use super::{DeviceKind, DeviceState, EINVAL, ENOTCONN, ESHUTDOWN, Issued, Kind, Port, Sink};
use crate::op::{Operation, phase};
use crate::reactor::device::shut;
use crate::sync::Arc;
use std::sync::atomic::Ordering;

impl Port {
    pub(crate) fn watch_readable(&self, device: &Arc<DeviceState>, token: usize, sink: Sink) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if !matches!(device.kind, DeviceKind::Stream | DeviceKind::Handle) {
            return Err(EINVAL);
        }
        if !device.is(phase::CONNECTED) {
            return Err(ENOTCONN);
        }
        if device.shut.load(Ordering::Acquire) & shut::RECEIVE != 0 {
            return Err(ESHUTDOWN);
        }
        match device.failed_receive.load(Ordering::Acquire) {
            0 => self.issue_receive(device, Operation::watch(Kind::Readable, token, sink)),
            error => Err(error),
        }
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
