//! A device of a raw port: its documents, over what the executing side keeps of it.

use super::execution::DeviceState;
use crate::error::Class;
use crate::op::Handle;
use crate::sync::Arc;

/// A device of a port. Clones name the same device; it stays open until
/// [`Port::close_device`](super::Port::close_device), or until the last handle of the port goes.
#[derive(Clone, Debug)]
pub struct Device(pub(crate) Arc<DeviceState>);

impl Device {
    /// Its number: slot and generation, never 0 and never used again for another device of the port.
    pub fn number(&self) -> u64 {
        self.0.number
    }

    /// The key it was associated with.
    pub fn key(&self) -> usize {
        self.0.key()
    }

    /// The system's descriptor. Valid until the device is closed or released.
    pub fn handle(&self) -> Handle {
        self.0.handle()
    }

    /// An operation that succeeds inside the issuing call returns its result there and queues no packet
    /// (`FILE_SKIP_COMPLETION_PORT_ON_SUCCESS`, row O-17). Cannot be taken back (row O-18).
    pub fn skip_on_success(&self) {
        self.0.skip_on_success();
    }

    /// What it is, as far as the errors of a stream are concerned.
    pub(crate) fn class(&self) -> Class {
        self.0.class()
    }

    /// A listener for streams of the machine's own.
    pub(crate) fn is_local(&self) -> bool {
        self.0.is_local()
    }

    /// A datagram socket is connected from now on.
    pub(crate) fn has_peer(&self) {
        self.0.has_peer();
    }

    /// Gives it another key than it was associated with. Operations that were issued before have the old one or this.
    pub(crate) fn set_key(&self, key: usize) {
        self.0.set_key(key);
    }
}
