//! Sockets that complete into a port.

mod tcp;

pub use tcp::{TcpListener, TcpStream};
pub(crate) use tcp::{from_handle, listen};
