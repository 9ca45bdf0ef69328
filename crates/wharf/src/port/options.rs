//! How a port is made.

use super::branch::free;
use super::{CompletionPort, Context, Key};
use crate::op::engines_from_environment;
use crate::raw::{self, FileEngine, SocketEngine};
use crate::threads::Wake;
use std::io;

/// Options of a port.
#[derive(Clone, Debug)]
pub struct PortOptions {
    concurrency: usize,
    wake: Wake,
    pool_buffer_bytes: usize,
    pool_keep: usize,
    files: Option<FileEngine>,
    sockets: Option<SocketEngine>,
}

impl Default for PortOptions {
    fn default() -> Self {
        let raw::Config { concurrency, wake, pool_buffer_bytes, pool_keep, .. } = raw::Config::default();
        PortOptions { concurrency, wake, pool_buffer_bytes, pool_keep, files: None, sockets: None }
    }
}

impl PortOptions {
    /// How many threads may run at the same time. 0, the default: as many as the machine has processors.
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.concurrency = limit;
        self
    }

    /// How soon a further thread is woken while others are active. Default: [`Wake::Adaptive`].
    pub fn wake(mut self, wake: Wake) -> Self {
        self.wake = wake;
        self
    }

    /// Bytes in a buffer of the port's pool (16 KiB), and how many unused ones it keeps (256).
    pub fn pool(mut self, buffer_bytes: usize, keep: usize) -> Self {
        self.pool_buffer_bytes = buffer_bytes;
        self.pool_keep = keep;
        self
    }

    /// What tells which sockets are ready. Without this call, the environment variable `WHARF_ENGINE` decides (`poll`,
    /// or anything else); without that, [`SocketEngine::Auto`].
    pub fn socket_engine(mut self, engine: SocketEngine) -> Self {
        self.sockets = Some(engine);
        self
    }

    /// What runs file operations that have to wait. Without this call, the environment variable `WHARF_ENGINE` decides
    /// (`auto`, `io_uring` or `threads`); without that, [`FileEngine::Auto`].
    pub fn file_engine(mut self, engine: FileEngine) -> Self {
        self.files = Some(engine);
        self
    }

    /// Makes the port.
    ///
    /// # Errors
    ///
    /// The system's, when descriptors or memory are exhausted: a port needs four descriptors on Linux, and two more
    /// once a file operation had to wait. And a `WHARF_ENGINE` that names no engine; and `InvalidInput`: buffers of no
    /// bytes.
    pub fn build<K: Key, C: Context>(self) -> io::Result<CompletionPort<K, C>> {
        let raw = raw::Port::new(self.config::<K, C>()?)?;
        Ok(CompletionPort::from_raw(raw))
    }

    pub(crate) fn config<K: Key, C: Context>(&self) -> io::Result<raw::Config> {
        if self.pool_buffer_bytes == 0 {
            let what = "buffers of 0 bytes can receive nothing; give pool 1 byte or more";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        }
        let asked = engines_from_environment();
        // A value that names no engine is an error only where it would choose.
        let sockets = asked.as_ref().map_or(SocketEngine::Auto, |(sockets, _)| *sockets);
        let files = self.files.map_or_else(|| asked.map(|(_, files)| files), Ok)?;
        Ok(raw::Config {
            files,
            sockets: self.sockets.unwrap_or(sockets),
            concurrency: self.concurrency,
            wake: self.wake,
            pool_buffer_bytes: self.pool_buffer_bytes,
            pool_keep: self.pool_keep,
            dispose: free::<K, C>,
        })
    }
}
