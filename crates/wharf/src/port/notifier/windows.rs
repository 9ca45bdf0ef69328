//! The port's own handle.

use crate::raw;
use crate::sys;
use std::io;
use std::os::windows::io::{AsHandle, BorrowedHandle};

/// See [`CompletionPort::notifier`](crate::CompletionPort::notifier).
#[derive(Debug)]
pub struct Notifier(raw::Port);

impl Notifier {
    pub(crate) fn new(port: &raw::Port) -> io::Result<Notifier> {
        Ok(Notifier(port.clone()))
    }
}

/// The port's own handle (row P-40): for waiting, and for nothing else.
impl AsHandle for Notifier {
    #[allow(unsafe_code)]
    fn as_handle(&self) -> BorrowedHandle<'_> {
        // SAFETY: the port is open as long as it is held here.
        unsafe { BorrowedHandle::borrow_raw(sys::to_handle(self.0.0.notifier_handle())) }
    }
}
