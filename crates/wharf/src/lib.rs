//! **wharf**: the I/O completion port of Windows NT as a portable system.
//!
//! Any number of sockets, timers, signals and posted packets complete into one queue. A small pool of threads takes
//! the packets out; the port keeps the number of *running* threads right, and replaces those that block.
//!
//! ```
//! use wharf::{Buffer, CompletionPort, Event, Workers};
//! use std::io::{Read, Write};
//!
//! let port = CompletionPort::<(), ()>::new()?;
//! let listener = port.listen("127.0.0.1:0", ())?;
//! let address = listener.local_addr()?;
//! listener.accept(())?;
//! let associate = port.clone();
//! let workers = port.run(Workers::default(), move |packet| match packet.event {
//!     Event::Accepted { listener, result } => {
//!         let _ = listener.accept(());
//!         if let Ok((socket, _peer)) = result {
//!             let stream = associate.associate(socket, ()).unwrap();
//!             let _ = stream.recv(Buffer::with_capacity(4096), ());
//!         }
//!     }
//!     Event::Received { stream, buffer, result: Ok(1..) } => drop(stream.send(buffer, ())),
//!     Event::Sent { stream, buffer, result: Ok(_) } => drop(stream.recv(buffer, ())),
//!     _ => {} // the end of a stream, or an error: the last handle goes, and the socket is closed
//! })?;
//!
//! let mut client = std::net::TcpStream::connect(address)?;
//! client.write_all(b"hello")?;
//! let mut answer = [0; 5];
//! client.read_exact(&mut answer)?;
//! assert_eq!(&answer, b"hello");
//! port.close();
//! workers.join();
//! # Ok::<(), std::io::Error>(())
//! ```

mod buffer;
mod device;
mod engine;
pub mod error;
mod fork;
pub mod net;
mod operation;
mod packet;
mod port;
mod queue;
pub mod raw;
mod record;
pub mod session;
mod sync;
mod word;
mod worker;

pub use buffer::Buffer;
pub use net::{TcpListener, TcpStream};
pub use net::Outcome;
pub use operation::{Cancel, OperationId};
pub use packet::{Event, GetError, Packet, Refused, Rejected, Unposted, UnpostedReason};
pub use port::{Batch, Builder, CompletionPort, Context, Key, Notifier, PortStats};
pub use queue::{Wake, WorkerReport, WorkerState, blocking};
pub use raw::{DeviceInfo, DeviceKind};
pub use worker::{PoolReport, WorkerPool, Workers};
