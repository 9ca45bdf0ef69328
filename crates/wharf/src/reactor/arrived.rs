//! What has come for operations that are outstanding, before somebody ends them.
//!
//! On Windows a receive has ended as soon as its data is there, and an accept as soon as its client is. Here a worker
//! executes it when the queue comes to it, into memory that it looks at next. Nobody can tell the difference, because
//! whoever cancels, withdraws or closes first executes what can be executed: what has come is delivered, and it was too
//! late to end it (rows K-05, K-11, K-16). That costs one call that does not block, and those alone who end something.

use super::Port;
use super::receive::Out;
use crate::op::{DeviceKind, Operation};
use crate::reactor::device::DeviceState;
use crate::reactor::direction::{Direction, Turn};
use crate::sync::Arc;

impl Port {
    /// Executes operations of the receive side in the order of issue, until one finds nothing, or `enough` is said.
    /// Their packets are queued. What another thread just executes is left to that.
    pub(super) fn take_arrived(&self, device: &Arc<DeviceState>, enough: impl Fn(&Direction) -> bool) {
        // Nobody gets a packet of a closed port, and a file is no matter of readiness.
        if device.kind == DeviceKind::File || self.queue.is_closed() {
            return;
        }
        // Not for ever, where others issue one after the other.
        let outstanding = device.receive.lock().operations.len();
        for tried in 0..outstanding {
            let mut direction = device.receive.lock();
            // A wait without a look is over with its turn: it has one when something was heard of.
            let unheard = direction.operations.front().is_some_and(Operation::is_watch);
            let found_nothing = direction.drained && (tried > 0 || unheard);
            if direction.turn == Turn::Running || direction.operations.is_empty() || found_nothing || enough(&direction)
            {
                return;
            }
            direction.pass_over_entry();
            if device.kind == DeviceKind::Listener {
                self.accept_turn_of(device, direction);
            } else {
                let queued = self.receive_turn_of(device, direction, Out::Queue);
                debug_assert!(queued.is_none(), "its packet was queued");
            }
        }
    }
}
