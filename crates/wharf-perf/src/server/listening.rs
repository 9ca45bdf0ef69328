//! Where connections come in, one after the other, until the server ends.

use super::host::Host;
use crate::surroundings::port::{Listener, Op, Owner, Port};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use wharf::Event;
use wharf::net::{AcceptLimits, Acceptor, Incoming};

/// When the server ends: what connections that were made before have, to say what they are and to hear that there is no
/// place for them.
const ENDING: Duration = Duration::from_secs(1);

/// The listener of a server.
pub(super) struct Listening {
    acceptor: Acceptor<(), Op>,
    host: Arc<Host>,
}

impl Listening {
    pub(super) fn open(port: &Port, listener: Listener, host: &Arc<Host>) -> io::Result<Arc<Listening>> {
        // Which stream is whose is known by the order in which they came, so one accept is outstanding at a time.
        let limits = AcceptLimits { outstanding: 1, ..AcceptLimits::default() };
        let listening = Arc::new_cyclic(|listening: &std::sync::Weak<Listening>| {
            let listening = listening.clone();
            let context = move || listening.upgrade().map_or(Op::Nothing, |listening| Op::of(listening));
            Listening { acceptor: Acceptor::new(port, limits, context), host: host.clone() }
        });
        listening.acceptor.listen(listener)?;
        Ok(listening)
    }

    /// Takes no more connections. Who is connected already hears that there is no place.
    pub(super) fn close(&self) {
        self.acceptor.stop();
        self.acceptor.wait(ENDING);
    }
}

impl Owner for Listening {
    fn completed(self: Arc<Self>, _: &Port, _: u64, event: Event<(), Op>) {
        if let Some(Incoming::Admitted { socket, peer, permit }) = self.acceptor.completed(event) {
            self.host.connected(socket, peer, permit);
        }
    }
}
