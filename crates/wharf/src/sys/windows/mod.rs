//! Windows: sockets and files are of two kinds, each with handles of its own.

pub(crate) mod calls;
pub(crate) mod errno;
pub mod signals;

use super::Owned;
use rustix::fd::{AsFd, BorrowedFd};
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::windows::io::{
    AsRawHandle, AsRawSocket, BorrowedSocket, FromRawHandle, FromRawSocket, IntoRawHandle, IntoRawSocket, OwnedHandle,
    RawHandle,
};
use std::os::windows::process::ExitStatusExt;
use std::process::ExitStatus;
use windows_sys::Win32::Networking::WinSock as ws;

/// The system's number for what a device is: a `SOCKET` or a `HANDLE`.
pub type Handle = u64;

/// A stream of the machine's own. There is none: Unix sockets do not complete into a port on Windows.
#[derive(Debug)]
pub struct UnixStream(());

fn of_handle(handle: RawHandle) -> Handle {
    handle.expose_provenance() as Handle
}

pub(crate) fn to_handle(handle: Handle) -> RawHandle {
    std::ptr::with_exposed_provenance_mut(handle as usize)
}

macro_rules! owned {
    ($($socket:ty),*; $($file:ty),*) => {
        $(impl Owned for $socket {
            fn into_handle(self) -> Handle {
                self.into_raw_socket()
            }

            #[allow(unsafe_code)]
            unsafe fn from_handle(handle: Handle) -> Self {
                // SAFETY: by the contract.
                unsafe { Self::from_raw_socket(handle) }
            }
        })*
        $(impl Owned for $file {
            fn into_handle(self) -> Handle {
                of_handle(self.into_raw_handle())
            }

            #[allow(unsafe_code)]
            unsafe fn from_handle(handle: Handle) -> Self {
                // SAFETY: by the contract.
                unsafe { Self::from_raw_handle(to_handle(handle)) }
            }
        })*
    };
}
owned!(std::net::TcpStream, std::net::TcpListener, std::net::UdpSocket; std::fs::File, OwnedHandle);

impl Owned for UnixStream {
    fn into_handle(self) -> Handle {
        unreachable!("there is none")
    }

    #[allow(unsafe_code)]
    unsafe fn from_handle(_: Handle) -> Self {
        unreachable!("no listener of the machine's own can be made")
    }
}

/// # Safety
///
/// The socket stays open as long as the borrow is used.
#[allow(unsafe_code)]
pub(crate) unsafe fn borrow<'a>(handle: Handle) -> BorrowedFd<'a> {
    // SAFETY: by the contract.
    unsafe { BorrowedSocket::borrow_raw(handle) }
}

/// Calls `call` with the file behind a handle, which stays open.
///
/// # Safety
///
/// The handle is open until the call returns.
#[allow(unsafe_code)]
pub(crate) unsafe fn with_file<R>(handle: Handle, call: impl FnOnce(&std::fs::File) -> R) -> R {
    // SAFETY: by the contract it is open; it is not closed here.
    let file = ManuallyDrop::new(unsafe { std::fs::File::from_raw_handle(to_handle(handle)) });
    call(&file)
}

/// The handle of a file that is only looked at.
pub(crate) fn of_file(file: &std::fs::File) -> Handle {
    of_handle(file.as_raw_handle())
}

/// Another handle for a file that was opened for operations that wait; none for one that was not.
fn overlapped(handle: Handle) -> Result<Option<Handle>, i32> {
    if calls::waits(handle) { calls::reopen(handle, true).map(Some) } else { Ok(None) }
}

/// The file as calls that do not wait can use it: opened once more, for operations that do not wait, if it was opened
/// for others.
pub(crate) fn for_overlapped(file: std::fs::File) -> Result<std::fs::File, (io::Error, std::fs::File)> {
    match overlapped(of_file(&file)) {
        Ok(None) => Ok(file),
        #[allow(unsafe_code)]
        // SAFETY: it was opened just now, and is nobody else's.
        Ok(Some(handle)) => Ok(unsafe { std::fs::File::from_handle(handle) }),
        Err(error) => Err((io::Error::from_raw_os_error(error), file)),
    }
}

/// The file as everybody else can use it: opened once more, for operations that wait. Should that fail it is given as
/// it is.
pub(crate) fn for_waiting(file: std::fs::File) -> std::fs::File {
    match calls::reopen(of_file(&file), false) {
        #[allow(unsafe_code)]
        // SAFETY: it was opened just now, and is nobody else's.
        Ok(handle) => unsafe { std::fs::File::from_handle(handle) },
        Err(_) => file,
    }
}

/// A listening socket. Without reuse of the address, which here would let another program take it over.
pub(crate) fn listen(address: &SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    use rustix::net::{AddressFamily, SocketType};
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    // std starts Winsock, and its sockets are not inherited.
    drop(std::net::UdpSocket::bind("127.0.0.1:0"));
    let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::net::bind(&socket, address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket.into())
}

/// A number that the system keeps of a socket.
#[allow(unsafe_code)]
fn option(socket: &impl AsFd, level: i32, name: i32) -> io::Result<i32> {
    let (mut value, mut length) = (0_i32, 4_i32);
    let socket = socket.as_fd().as_raw_socket() as ws::SOCKET;
    // SAFETY: the room is as large as said.
    match unsafe { ws::getsockopt(socket, level, name, (&raw mut value).cast(), &raw mut length) } {
        0 => Ok(value),
        _ => Err(io::Error::last_os_error()),
    }
}

#[allow(unsafe_code)]
fn set_option(socket: &impl AsFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let socket = socket.as_fd().as_raw_socket() as ws::SOCKET;
    // SAFETY: the value is as large as said.
    match unsafe { ws::setsockopt(socket, level, name, (&raw const value).cast(), 4) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Whether a socket listens.
pub(crate) fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    Ok(option(socket, ws::SOL_SOCKET, ws::SO_ACCEPTCONN)? & 0xFF != 0)
}

/// Segmentation offload of a datagram socket; 0 ends it.
pub(crate) fn set_segment_bytes(socket: BorrowedFd<'_>, bytes: u16) -> io::Result<()> {
    set_option(&socket, ws::IPPROTO_UDP, ws::UDP_SEND_MSG_SIZE, i32::from(bytes))
}

/// Receive offload of a datagram socket.
pub(crate) fn set_receive_offload(_: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    if on {
        let what = "receive offload is not offered on Windows; receives take one datagram each without it";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(())
}

/// How a child ended, of the number in its completion.
pub(crate) fn child_status(number: usize) -> ExitStatus {
    ExitStatus::from_raw(number as u32)
}
