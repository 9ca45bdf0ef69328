//! What a test runs on at this end, whichever its role is: threads, engines, and the care for control connections.

use super::port::{Op, Port};
use super::socket::KeepAlive;
use std::io;
use wharf::{CompletionPort, FileEngine, SocketEngine};

/// A client's or a server's port.
#[derive(Clone, Debug, Default)]
pub struct Machinery {
    /// Threads that serve the port; `None`: as the port sees fit.
    pub threads: Option<usize>,
    /// Threads that run at the same time; 0: as many as there are processors.
    pub concurrency: usize,
    /// What tells which sockets are ready; `None`: as the port sees fit.
    pub socket_engine: Option<SocketEngine>,
    /// What reads and writes a file that is sent or received; `None`: as the port sees fit.
    pub file_engine: Option<FileEngine>,
    /// For control connections.
    pub keep_alive: KeepAlive,
}

impl Machinery {
    pub(crate) fn port(&self) -> io::Result<Port> {
        let mut options = CompletionPort::<(), Op>::options().concurrency(self.concurrency);
        if let Some(engine) = self.socket_engine {
            options = options.socket_engine(engine);
        }
        if let Some(engine) = self.file_engine {
            options = options.file_engine(engine);
        }
        options.build()
    }
}
