//! Sockets that complete into a port.

mod tcp;

pub use tcp::{Outcome, TcpListener, TcpStream};
pub(crate) use tcp::{from_handle, listen};

use crate::packet::Rejected;
use crate::raw;
use std::marker::PhantomData;

/// What can be [associated](crate::CompletionPort::associate) with a port: std's sockets, as they are.
pub trait Associate<K, C>: Sized {
    /// What it is from then on.
    type Device;

    #[doc(hidden)]
    fn associate(self, port: &raw::Port, key: K) -> Result<Self::Device, Rejected<Self, K>>;
}

/// What all handles to one device share. The last of them closes it.
pub(crate) struct Shared<K, C> {
    pub(crate) port: raw::Port,
    pub(crate) device: raw::Device,
    pub(crate) key: K,
    pub(crate) context: PhantomData<fn() -> C>,
}

impl<K, C> Drop for Shared<K, C> {
    fn drop(&mut self) {
        self.port.close_device(&self.device);
    }
}
