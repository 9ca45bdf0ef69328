//! Everything is a descriptor.

use crate::raw::execution::DeviceState;
use crate::sys::Handle;
use rustix::fd::{FromRawFd, OwnedFd};

/// What [`Port::release_device`](crate::raw::Port::release_device) gives back.
pub type Released = OwnedFd;

/// # Safety
///
/// The descriptor is open, and nobody else's to close.
#[allow(unsafe_code)]
pub(in crate::raw) unsafe fn released(_device: &DeviceState, handle: Handle) -> Released {
    // SAFETY: by the contract.
    unsafe { OwnedFd::from_raw_fd(handle) }
}
