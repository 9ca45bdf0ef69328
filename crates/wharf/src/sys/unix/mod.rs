//! Unix: everything is a file descriptor.

pub(crate) mod errno;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kqueue;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
pub mod signals;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use kqueue::*;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::*;

use super::Owned;
use rustix::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

pub use std::os::unix::net::UnixStream;

/// The system's number for what a device is: a file descriptor.
pub type Handle = i32;

impl<T: Into<OwnedFd> + From<OwnedFd>> Owned for T {
    fn into_handle(self) -> Handle {
        self.into().into_raw_fd()
    }

    #[allow(unsafe_code)]
    unsafe fn from_handle(handle: Handle) -> Self {
        // SAFETY: by the contract the descriptor is open, and nobody else's.
        Self::from(unsafe { OwnedFd::from_raw_fd(handle) })
    }
}

/// # Safety
///
/// The descriptor stays open as long as the borrow is used.
#[allow(unsafe_code)]
pub(crate) unsafe fn borrow<'a>(handle: Handle) -> BorrowedFd<'a> {
    // SAFETY: by the contract.
    unsafe { BorrowedFd::borrow_raw(handle) }
}

/// Calls `call` with the file behind a descriptor, which stays open.
///
/// # Safety
///
/// The descriptor is open until the call returns.
#[allow(unsafe_code)]
pub(crate) unsafe fn with_file<R>(handle: Handle, call: impl FnOnce(&std::fs::File) -> R) -> R {
    // SAFETY: by the contract it is open; it is not closed here.
    let file = ManuallyDrop::new(unsafe { std::fs::File::from_raw_fd(handle) });
    call(&file)
}

/// The descriptor of a file that is only looked at.
pub(crate) fn of_file(file: &std::fs::File) -> Handle {
    use rustix::fd::AsRawFd;
    file.as_raw_fd()
}

/// The file as calls that do not wait can use it.
pub(crate) fn for_overlapped(file: std::fs::File) -> Result<std::fs::File, (io::Error, std::fs::File)> {
    Ok(file)
}

/// The file as everybody else can use it.
pub(crate) fn for_waiting(file: std::fs::File) -> std::fs::File {
    file
}

/// A listening socket.
pub(crate) fn listen(address: &SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = socket(family, SocketType::STREAM, true)?;
    // A restarted server must not wait for its old connections to time out.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket.into())
}

/// How a child ended, of the number in its completion.
pub(crate) fn child_status(number: usize) -> ExitStatus {
    ExitStatus::from_raw(i32::try_from(number).unwrap_or(0))
}
