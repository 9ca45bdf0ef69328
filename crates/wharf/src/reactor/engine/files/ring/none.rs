//! Where there is no io_uring: the pool of threads does everything.

use crate::reactor::engine::files::{Request, RequestQueue};
use rustix::fd::OwnedFd;
use std::io;
use std::sync::Arc;

pub(in super::super) fn start<R: Request>(_queue: &Arc<RequestQueue<R>>) -> io::Result<Arc<OwnedFd>> {
    Err(io::Error::new(io::ErrorKind::Unsupported, "this system has none"))
}
