//! A descriptor that is readable while something is queued, or while the engine may find something.

use crate::raw;
use crate::sys;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io;
use std::sync::Arc;

/// See [`CompletionPort::notifier`](crate::CompletionPort::notifier).
#[derive(Debug)]
pub struct Notifier {
    both: OwnedFd,
    /// Kept open for the descriptor above.
    _waker: Arc<OwnedFd>,
}

impl Notifier {
    pub(crate) fn new(port: &raw::Port) -> io::Result<Notifier> {
        if !port.0.is_home() {
            return Err(crate::error::forked());
        }
        let waker = port.0.queue.waker()?;
        let both = sys::either(&waker, port.0.engine().selector.pollable())?;
        Ok(Notifier { both, _waker: waker })
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}
