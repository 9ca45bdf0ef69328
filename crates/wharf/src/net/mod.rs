//! Sockets that complete into a port.

/// What all kinds of sockets have in common.
macro_rules! device {
    ($device:ident, $std:ty) => {
        impl<K, C> Clone for $device<K, C> {
            fn clone(&self) -> Self {
                $device(self.0.clone())
            }
        }

        impl<K, C> fmt::Debug for $device<K, C> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($device), "(device {:#x})"), self.0.device.number())
            }
        }

        impl<K: Key, C: Context> $device<K, C> {
            /// The key it was associated with.
            pub fn key(&self) -> &K {
                &self.0.key
            }

            /// Its number in the port's device list: never 0, and never used again for another device of the port.
            pub fn number(&self) -> u64 {
                self.0.device.number()
            }

            /// This end's address.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.0.with_fd(|fd| Ok(SocketAddr::try_from(rustix::net::getsockname(fd)?)?))
            }

            /// From now on an operation that succeeds inside the issuing call returns its packet there
            /// ([`Outcome::Done`]), and none is queued. Cannot be taken back.
            #[doc(alias = "FILE_SKIP_COMPLETION_PORT_ON_SUCCESS")]
            pub fn skip_on_success(&self) {
                self.0.device.skip_on_success();
            }

            /// Asks that one operation ends. Whatever the answer, its one packet comes: cancelled, or as it was.
            #[doc(alias = "CancelIoEx")]
            pub fn cancel(&self, operation: OperationId) -> Cancel {
                self.0.port.cancel(operation)
            }

            /// Asks that every outstanding operation of this device ends; returns how many there were.
            #[doc(alias = "CancelIoEx")]
            pub fn cancel_all(&self) -> usize {
                self.0.port.cancel_all(&self.0.device)
            }

            /// Closes it now, whoever else holds a handle: outstanding operations end as cancelled, one packet each.
            /// Does not block. Sends that the system has not taken yet are lost; see `disconnect`.
            #[doc(alias = "closesocket")]
            pub fn close(&self) {
                self.0.port.close_device(&self.0.device);
            }

            /// Takes the socket out of the port again, in blocking mode.
            ///
            /// # Errors
            ///
            /// Operations are outstanding (cancel them and take their packets first), or it is closed.
            pub fn release(self) -> Result<$std, Rejected<Self, ()>> {
                let socket: OwnedFd =
                    self.0.release().map_err(|(error, shared)| Rejected { error, source: $device(shared), key: () })?;
                // std's sockets block.
                let _ = rustix::io::ioctl_fionbio(&socket, false);
                Ok(socket.into())
            }

            /// Takes the descriptor out of the port again, whatever it is, as it is: in non-blocking mode.
            ///
            /// # Errors
            ///
            /// As [`release`](Self::release).
            pub fn release_fd(self) -> Result<OwnedFd, Rejected<Self, ()>> {
                self.0.release().map_err(|(error, shared)| Rejected { error, source: $device(shared), key: () })
            }

            /// The raw layer's name for it.
            pub fn raw(&self) -> &raw::Device {
                &self.0.device
            }
        }
    };
}

mod local;
mod tcp;
mod udp;

pub(crate) use local::standard_input;
pub use tcp::{Stream, TcpListener, TcpStream};
pub(crate) use tcp::{from_handle, listen};
pub use udp::UdpSocket;

use crate::associate::{Shared, adopt};
use crate::packet::Rejected;
use crate::raw::{self, DeviceKind};
use rustix::fd::{AsFd, OwnedFd};
use std::sync::Arc;

fn adopt_socket<K, C, S: AsFd + Into<OwnedFd> + From<OwnedFd>>(
    port: &raw::Port,
    source: S,
    kind: DeviceKind,
    key: K,
) -> Result<Arc<Shared<K, C>>, Rejected<S, K>> {
    match rustix::io::ioctl_fionbio(&source, true) {
        Ok(()) => adopt(port, source, kind, key),
        Err(error) => Err(Rejected { error: error.into(), source, key }),
    }
}
