//! Signals that a service catches.

use crate::dispatch::{Node, Op};
use crate::service::{Inner, Service};
use std::fmt;
use std::io;
use std::sync::Arc;
use wharf::OperationId;

/// Signals that a service catches: see [`Service::signals`]. Dropping it, they are caught no longer.
pub struct Signals {
    inner: Arc<Inner>,
    registered: Vec<OperationId>,
}

impl Signals {
    /// Waits until one of them comes, or came before, and returns its number.
    ///
    /// In a forked child, where none comes, it returns 0 at once.
    pub fn wait(&self) -> i32 {
        if !self.inner.is_home() {
            return 0;
        }
        let mut signals = self.inner.signals.lock();
        while signals.is_empty() {
            signals = self.inner.signalled.wait(signals);
        }
        signals.remove(0)
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signals({} caught)", self.registered.len())
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.registered.drain(..) {
            self.inner.port.cancel(id);
        }
    }
}

impl Service {
    /// Catches signals from now on: they do not end the process any more, but [`Signals::wait`]. To be called before
    /// the program says that it is ready, or whoever ends it at once ends it the hard way.
    ///
    /// Signals are packets of the port like everything else; a worker takes them.
    pub fn signals(&self, numbers: &[i32]) -> io::Result<Signals> {
        let mut signals = Signals { inner: self.inner.clone(), registered: Vec::new() };
        for &number in numbers {
            signals.registered.push(self.inner.port.signal(number, Node::Service, Op::Signal)?);
        }
        Ok(signals)
    }

    /// Catches the signals and waits for one of them: see [`signals`](Service::signals).
    pub fn wait_for_signal(&self, numbers: &[i32]) -> io::Result<i32> {
        Ok(self.signals(numbers)?.wait())
    }
}
