//! Sockets that complete into a port.

/// What sockets have beyond other devices.
macro_rules! socket {
    ($device:ident, $std:ty) => {
        impl<K: Key, C: Context> $device<K, C> {
            /// This end's address.
            pub fn local_addr(&self) -> io::Result<SocketAddr> {
                self.0.with_fd(|fd| Ok(SocketAddr::try_from(rustix::net::getsockname(fd)?)?))
            }

            /// Takes the socket out of the port again, in blocking mode.
            ///
            /// # Errors
            ///
            /// Operations are outstanding (cancel them and take their packets first), or it is closed.
            pub fn release(self) -> Result<$std, Rejected<Self, ()>> {
                let release = |(error, shared)| Rejected { error, source: $device(shared), key: () };
                let socket: $std = self.0.release().map_err(release)?;
                // std's sockets block.
                let _ = socket.set_nonblocking(false);
                Ok(socket)
            }
        }
    };
}

#[cfg_attr(windows, path = "local_windows.rs")]
mod local;
mod send_file;
mod tcp;
mod udp;

pub(crate) use local::standard_input;
pub use send_file::FileMessage;
pub(crate) use tcp::listen;
pub use tcp::{Stream, TcpListener, TcpStream};
pub use udp::UdpSocket;

use crate::associate::{Shared, adopt};
use crate::os::Owned;
use crate::packet::Rejected;
use crate::raw::{self, DeviceKind};
use rustix::fd::AsFd;
use std::sync::Arc;

fn adopt_socket<K, C, S: AsFd + Owned>(
    port: &raw::Port,
    source: S,
    kind: DeviceKind,
    key: K,
) -> Result<Arc<Shared<K, C>>, Rejected<S, K>> {
    match rustix::io::ioctl_fionbio(source.as_fd(), true) {
        Ok(()) => adopt(port, source, kind, key),
        Err(error) => Err(Rejected { error: error.into(), source, key }),
    }
}
