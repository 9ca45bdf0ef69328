//! Typed ports on a [`Fake`], whose sockets, peers and time are the test's: for random schedules of what stands on
//! ports.

use super::Fake;
use crate::op::Handle;
use crate::port::associate::Shared;
use crate::port::branch::take_raw;
use crate::port::net::Stream;
use crate::port::{Branch, CompletionPort, Context, Key, PortOptions};
use crate::raw::{self, DeviceKind};
use crate::reactor::engine::{Calls, Engine, Selector};
use crate::threads::GetError;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

impl Fake {
    /// A port on this engine; one for each engine.
    ///
    /// # Errors
    ///
    /// Those of [`PortOptions::build`].
    pub fn port<K: Key, C: Context>(self: &Arc<Self>, options: &PortOptions) -> io::Result<CompletionPort<K, C>> {
        let engine = self.clone();
        let port = crate::reactor::Port::build(options.config::<K, C>()?, |_| Ok(Engine::of(engine)))?;
        Ok(CompletionPort::from_raw(raw::Port(port)))
    }

    /// What time it is for the engine and its ports.
    pub fn time(&self) -> Instant {
        Selector::now(self)
    }

    /// A stream of a branch, of a socket of this engine's. `None`: the port refuses it, and the socket stays the
    /// caller's.
    ///
    /// # Panics
    ///
    /// The port is not on this engine, so that the number would be another's there; or the socket is closed, or a
    /// port's already.
    pub fn stream<K: Key, C: Context>(&self, branch: &Branch<K, C>, handle: Handle, key: K) -> Option<Stream<K, C>> {
        let route = branch.route();
        let port = self.of_this_engine(route.port);
        assert!(self.is_at_rest(handle), "handle {handle} is a port's already");
        let device = port.0.take_over(handle, DeviceKind::Stream, 0).ok()?;
        Some(Stream(Shared::new(&route, raw::Device(device), key)))
    }

    /// Closes a socket that no port has.
    ///
    /// # Panics
    ///
    /// It is closed, or a port's.
    pub fn discard(&self, handle: Handle) {
        Calls::close(self, handle);
    }

    /// Takes one packet of a branch, which its handler handles in this call, if there is one.
    ///
    /// # Errors
    ///
    /// Those of `get`; and there is none.
    ///
    /// # Panics
    ///
    /// The packet is the port's own.
    pub fn step<K: Key, C: Context>(&self, port: &CompletionPort<K, C>) -> Result<(), GetError> {
        let completion = self.raw_of(port).get(Some(Duration::ZERO))?;
        assert!(take_raw(completion).is_none(), "a packet that is no branch's");
        Ok(())
    }

    /// Whether all buffers of the port's pool are back in it.
    pub fn has_all_buffers<K: Key, C: Context>(&self, port: &CompletionPort<K, C>) -> bool {
        Arc::strong_count(self.raw_of(port).0.pool()) == 1
    }

    fn raw_of<'a, K: Key, C: Context>(&self, port: &'a CompletionPort<K, C>) -> &'a raw::Port {
        #[allow(unsafe_code)]
        // SAFETY: a device is made of it, as the typed layer makes it, and nothing is posted.
        let port = unsafe { port.raw() };
        self.of_this_engine(port)
    }

    fn of_this_engine<'a>(&self, port: &'a raw::Port) -> &'a raw::Port {
        assert!(std::ptr::addr_eq(Arc::as_ptr(&port.0.engine().selector), self), "the port is on another engine");
        port
    }
}

/// For this thread the clock of all ports stands still from now on, at that moment, or goes on.
pub fn stand_still(at: Option<Instant>) {
    crate::sync::stand_still(at);
}
