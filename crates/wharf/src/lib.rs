//! **wharf**: the I/O completion port of Windows NT as a portable library.
//!
//! Any number of sockets, files, pipes, timers, signals, child processes and posted packets complete into one queue. A
//! small pool of threads takes the packets out; the port keeps as many of them *running* as it is told, and replaces
//! those that block.
//!
//! ```
//! use wharf::{Buffer, CompletionPort, Event, Workers};
//! use std::io::{Read, Write};
//!
//! let port = CompletionPort::<(), ()>::new()?;
//! let listener = port.listen("127.0.0.1:0", ())?;
//! let address = listener.local_addr()?;
//! listener.accept(())?;
//! let workers = port.start(Workers::default(), {
//!     let port = port.clone();
//!     move |packet| match packet.event {
//!         Event::Accepted { listener, result } => {
//!             let _ = listener.accept(());
//!             if let Ok((socket, _peer)) = result {
//!                 match port.associate(socket, ()) {
//!                     Ok(stream) => drop(stream.recv(Buffer::with_capacity(4096), ())),
//!                     Err(refused) => eprintln!("a connection is closed: {}", refused.error),
//!                 }
//!             }
//!         }
//!         Event::Received { stream, buffer, result: Ok(1..) } => drop(stream.send(buffer, ())),
//!         Event::Sent { stream, buffer, result: Ok(_) } => drop(stream.recv(buffer, ())),
//!         _ => {} // the end of a stream, or an error: the last handle goes, and the socket is closed
//!     }
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
//!
//! # Levels
//!
//! - [`CompletionPort`]: operations with types. Start here; the [`Event`]s are the list of what completes.
//! - The crate `wharf-session`, above it: servers and clients made of connections, framing, groups, TLS.
//! - [`raw`], below it: operations with numbers and addresses, for a C interface or futures.
//!
//! [`error`] has the system's numbers beside their NTSTATUS, Win32 and Winsock counterparts.
//!
//! # Platforms
//!
//! - Linux: sockets by epoll, files by io_uring or threads. [`SocketEngine`] and [`FileEngine`] choose others.
//! - Windows: the kernel's own completion port. Unix sockets, pipes and the standard input are refused there. Tested
//!   under Wine only.
//! - macOS, FreeBSD, Android: compiled, and run by nobody yet. Sockets by `poll(2)`, files by threads.
//!
//! Rust 1.88 or later. There are no features to choose: `fake` is for the project's own tests.
//!
//! # Not done here
//!
//! No futures and no executor, no C interface, no reuse of sockets after a disconnect. One short lock guards a port's
//! queue, so one port is not meant for hundreds of processors.

// Under `--cfg loom` only the queue and what it stands on are compiled, for the models in `queue/model.rs`, which do
// not use all of it.
#![cfg_attr(loom, allow(dead_code, unused_imports))]

#[cfg(not(loom))]
mod contain;
#[cfg(not(loom))]
pub mod error;
/// Ports over a network in memory, for the project's own tests of what stands on ports. No part of the interface.
#[cfg(all(unix, feature = "fake", not(loom)))]
#[doc(hidden)]
pub mod fake {
    pub use crate::testing::fake::{Call, Fake, Faults, Listener, Mail, Network, Peer, View, When, stand_still};
}
#[cfg(not(loom))]
mod op;
#[cfg(not(loom))]
mod port;
#[cfg(windows)]
mod proactor;
#[cfg(unix)]
mod queue;
#[cfg(not(loom))]
pub mod raw;
#[cfg(all(unix, not(loom)))]
mod reactor;
/// Numbers of signals, as [`CompletionPort::signal`], `Service::signals` of sessions and `process::Child::signal` take
/// them.
#[cfg(not(loom))]
pub mod signal {
    pub use crate::sys::signals::*;
}
mod sync;
mod sys;
// In the library's own tests, and for those of the crates above it.
#[cfg(all(unix, any(test, feature = "fake"), not(loom)))]
#[cfg_attr(not(test), allow(dead_code))]
#[allow(missing_docs, reason = "no part of the interface")]
mod testing;
mod threads;
#[cfg(not(loom))]
mod worker;

#[cfg(not(loom))]
pub use op::buffer::Buffer;
#[cfg(not(loom))]
pub use op::{Cancel, OperationId, Withdrawal};
#[cfg(not(loom))]
pub use port::associate::Outcome;
#[cfg(not(loom))]
pub use port::net::{Datagrams, FileMessage, Listener, Stream};
#[cfg(not(loom))]
pub use port::packet::{Event, Packet};
#[cfg(not(loom))]
pub use port::refused::{Refused, Rejected, Unposted, UnpostedReason};
#[cfg(not(loom))]
pub use port::{Batch, Branch, CompletionPort, Context, Key, NotRun, Notifier, PortOptions, PortStats};
#[cfg(not(loom))]
pub use port::{fs, net, process};
#[cfg(not(loom))]
pub use raw::{DeviceInfo, DeviceKind, FileEngine, SocketEngine};
#[cfg(not(loom))]
pub use sys::fork::Home;
#[cfg(not(loom))]
pub use threads::BeforeBlocking;
pub use threads::{GetError, Wake, WorkerReport, WorkerState, blocking};
#[cfg(not(loom))]
pub use worker::{PoolReport, WorkerPool, Workers};
