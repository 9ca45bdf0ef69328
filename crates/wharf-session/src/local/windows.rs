//! Sessions on Unix sockets: not on Windows, where a Unix socket cannot be connected by a completion port. A name that
//! is refused here is one to listen at on `127.0.0.1`.

use crate::Session;
use crate::link::Link;
use crate::peer::LocalPeer;
use crate::service::{Inner, Listening, Service};
use std::io;
use std::path::Path;
use std::sync::Arc;

fn unsupported() -> io::Error {
    let what = "Unix sockets do not complete into a port on Windows; use TCP on 127.0.0.1 instead";
    io::Error::new(io::ErrorKind::Unsupported, what)
}

impl Service {
    /// Not on Windows: see the error.
    ///
    /// # Errors
    ///
    /// `Unsupported`.
    pub fn listen_local<S: Session>(
        &self,
        name: impl AsRef<Path>,
        make: impl Fn(&LocalPeer) -> S + Send + Sync + 'static,
    ) -> io::Result<()> {
        let _ = (name, make);
        Err(unsupported())
    }

    /// Not on Windows: see the error.
    ///
    /// # Errors
    ///
    /// `Unsupported`.
    pub fn connect_local(&self, name: impl AsRef<Path>, session: impl Session) -> io::Result<Link> {
        self.inner.connect_local(name.as_ref(), Box::new(session))
    }
}

impl Inner {
    pub(crate) fn connect_local(self: &Arc<Self>, _: &Path, _: Box<dyn Session>) -> io::Result<Link> {
        Err(unsupported())
    }

    pub(crate) fn accepted_local<S>(self: &Arc<Self>, _: &Listening, socket: S) {
        drop(socket);
    }

    pub(crate) fn remove_socket_files(&self) {}
}

/// There is none.
#[derive(Debug)]
pub(crate) enum SocketFile {}
