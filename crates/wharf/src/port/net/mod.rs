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
            /// The mode belongs to what all duplicates of a descriptor share. Where one is associated with another
            /// port, its operations go on as before; but that port sets a listener, and a stream that sends files, to
            /// non-blocking mode whenever it needs that.
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

mod acceptor;
mod address;
mod local;
mod send_file;
mod tcp;
mod trying;
mod udp;

pub use acceptor::{AcceptLimits, Acceptor, Incoming, Permit};
pub use address::Addresses;
pub(crate) use local::standard_input;
pub use send_file::FileMessage;
pub(crate) use tcp::listen;
pub use tcp::{Listener, Stream};
pub use udp::Datagrams;

use crate::port::associate::{Route, Shared, adopt};
use crate::port::refused::Rejected;
use crate::port::{Context, Key};
use crate::raw::DeviceKind;
use crate::sys::Owned;
use std::sync::Arc;

/// Associates a socket, and then puts it into non-blocking mode: a source that is refused comes back in the mode it
/// had. No operation can be issued in between.
fn adopt_socket<K: Key, C: Context, S: Owned>(
    route: &Route<'_, K, C>,
    source: S,
    kind: DeviceKind,
    key: K,
) -> Result<Arc<Shared<K, C>>, Rejected<S, K>> {
    let shared = adopt(route, source, kind, key)?;
    if let Err(error) = shared.with_fd(|fd| Ok(rustix::io::ioctl_fionbio(fd, true)?)) {
        let key = shared.key.clone();
        let source = shared.release().unwrap_or_else(|_| unreachable!("nobody else knows the device yet"));
        return Err(Rejected { error, source, key });
    }
    Ok(shared)
}
