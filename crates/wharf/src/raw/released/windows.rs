//! Sockets and other handles have owners of their own.

use crate::raw::execution::DeviceState;
use crate::sys::{Handle, Owned};
use std::os::windows::io::{FromRawSocket, OwnedHandle, OwnedSocket};

/// What [`Port::release_device`](crate::raw::Port::release_device) gives back.
#[derive(Debug)]
pub enum Released {
    /// A socket.
    Socket(OwnedSocket),
    /// A file, or a process.
    Handle(OwnedHandle),
}

/// # Safety
///
/// The handle is open, and nobody else's to close.
#[allow(unsafe_code)]
pub(in crate::raw) unsafe fn released(device: &DeviceState, handle: Handle) -> Released {
    // SAFETY: by the contract.
    unsafe {
        if device.is_socket() {
            Released::Socket(OwnedSocket::from_raw_socket(handle))
        } else {
            Released::Handle(OwnedHandle::from_handle(handle))
        }
    }
}
