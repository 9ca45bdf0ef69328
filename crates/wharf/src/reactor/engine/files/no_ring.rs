//! Where there is no io_uring: the pool of threads does everything.

use super::{Job, Mailbox};
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;

pub(super) fn start<J: Job>(_mailbox: &Arc<Mailbox<J>>) -> io::Result<Arc<OwnedFd>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has none"))
}

pub(super) fn ring_the_bell(_bell: &OwnedFd) {}
