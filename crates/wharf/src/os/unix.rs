//! Unix: everything is a file descriptor.

use super::{LocalName, Owned};
use crate::engine::system;
use crate::error::{Class, NtStatus};
use crate::raw;
use rustix::fd::{AsFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use rustix::net::{AddressFamily, SocketType, sockopt};
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::sync::Arc;

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

/// What a device has where descriptors are all of one kind.
macro_rules! by_descriptor {
    ($device:ident) => {
        impl<K: $crate::Key, C: $crate::Context> $device<K, C> {
            /// Takes the descriptor out of the port again, in the mode it is in: non-blocking, but for a file.
            ///
            /// # Errors
            ///
            /// Operations are outstanding (cancel them and take their packets first), or it is closed.
            pub fn release_fd(self) -> Result<rustix::fd::OwnedFd, $crate::Rejected<Self, ()>> {
                self.0.release().map_err(|(error, shared)| $crate::Rejected { error, source: $device(shared), key: () })
            }
        }
    };
}
pub(crate) use by_descriptor;

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

/// The file as a port can use it.
pub(crate) fn for_port(file: std::fs::File) -> Result<std::fs::File, (io::Error, std::fs::File)> {
    Ok(file)
}

/// The file as everybody else can use it.
pub(crate) fn from_port(file: std::fs::File) -> std::fs::File {
    file
}

/// A listening socket.
pub(crate) fn listen(address: &SocketAddr, backlog: i32) -> io::Result<std::net::TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = system::socket(family, SocketType::STREAM, true)?;
    // A restarted server must not wait for its old connections to time out.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, address)?;
    rustix::net::listen(&socket, backlog)?;
    Ok(socket.into())
}

/// Whether a socket listens.
pub(crate) fn is_listening(socket: &impl AsFd) -> io::Result<bool> {
    Ok(system::is_listening(socket)?)
}

/// Segmentation offload of a datagram socket; 0 ends it.
pub(crate) fn set_segment_bytes(socket: BorrowedFd<'_>, bytes: u16) -> io::Result<()> {
    system::set_segment_bytes(socket, bytes)
}

/// Receive offload of a datagram socket.
pub(crate) fn set_receive_offload(socket: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    system::set_receive_offload(socket, on)
}

/// The system's coarse clock in milliseconds: its reading costs next to nothing, and it moves 100 to 1000 times a second.
pub(crate) fn coarse_ms() -> u64 {
    system::coarse_ms()
}

/// How a child ended, of the number in its completion.
pub(crate) fn exit_status(number: usize) -> ExitStatus {
    ExitStatus::from_raw(i32::try_from(number).unwrap_or(0))
}

/// What a stream is, as far as its errors are concerned.
pub(crate) fn class_of(stream: &raw::Device) -> Class {
    if stream.0.kind == raw::DeviceKind::Handle { Class::Pipe } else { Class::Stream }
}

/// The status of an operation that ended with this error number of the system's.
pub(crate) fn nt_status(number: i32, class: Class) -> NtStatus {
    crate::error::nt_status(number, class)
}

/// The Winsock code of a call that failed at once with this number.
pub(crate) fn winsock(number: i32) -> u32 {
    crate::error::winsock_from_errno(number)
}

/// Whether the number says that the peer broke the connection off.
pub(crate) fn is_reset(number: i32) -> bool {
    number == raw::ECONNRESET || number == raw::EPIPE
}

/// Where a socket of the machine's own comes from: its name, and its process, user and group.
pub(crate) fn local_peer(socket: &UnixStream) -> (Option<LocalName>, Option<[u32; 3]>) {
    let name =
        socket.peer_addr().ok().and_then(|address| match (address.as_pathname(), system::abstract_name_of(&address)) {
            (Some(path), _) => Some(LocalName::Path(path.into())),
            (_, Some(name)) => Some(LocalName::Abstract(name.into())),
            _ => None,
        });
    (name, system::credentials(socket))
}

/// See [`CompletionPort::notifier`](crate::CompletionPort::notifier).
#[derive(Debug)]
pub struct Notifier {
    both: OwnedFd,
    /// Kept open for the descriptor above.
    _bell: Arc<OwnedFd>,
}

impl Notifier {
    pub(crate) fn new(port: &raw::Port) -> io::Result<Notifier> {
        if !port.is_home() {
            return Err(crate::fork::refusal());
        }
        let bell = port.queue.bell()?;
        let both = system::either(&bell, port.engine().pollable())?;
        Ok(Notifier { both, _bell: bell })
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.both.as_fd()
    }
}
