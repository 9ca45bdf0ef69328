//! The layer under the safe one: keys and tokens are numbers, buffers are addresses.
//!
//! [`CompletionPort`](crate::CompletionPort) is its first user. A C interface with Win32 shapes, or futures, can be
//! built on it; the port's figures and its notifier are the typed port's alone. It has no types of its own for
//! contexts: an operation carries a *token* (the address of the caller's record, say), which comes back in the
//! [`Completion`]. An operation's completion goes to its [`Sink`]: the queue, an event, or a function.
//!
//! A device belongs to the port that took it, and so does an operation's name: another port refuses them.
//!
//! Errors are the system's numbers, unchanged; [`crate::error`] translates them. An issuing call either fails (`Err`:
//! no packet will come, everything stays the caller's) or is accepted, and then exactly one completion follows, however
//! cancel, close and the operation itself race; possibly before the call has returned, in another thread.
//!
//! The documents name errors as POSIX does. On Windows they are Winsock's of the same name (`WSAEINVAL` for `EINVAL`),
//! and Win32's where Winsock has none.
//!
//! This layer may change between minor versions until 1.0.

#[cfg(windows)]
use crate::proactor as execution;
#[cfg(unix)]
use crate::reactor as execution;

mod device;
mod port;
mod released;
mod supervise;
mod waker;

pub use device::Device;
pub use port::Port;
pub use released::Released;

pub use crate::op::{
    Accepted, Buffers, Cancel, Completion, CompletionEvent, Config, Datagram, DeviceInfo, DeviceKind, FileEngine,
    Handle, Incoming, Issued, Kind, OperationId, Outgoing, PERIOD_LEAST, Part, Payload, Post, Ran, RawBuffer,
    ReceiveFlags, Sink, SocketEngine, Withdrawal, set_issuer,
};
pub use crate::threads::GetError;
pub(crate) use execution::{Entry, Note, Park, Rest, TrySend, file_traits};
pub(crate) use supervise::tend;
pub use waker::Waker;

use crate::sys::errno;

/// The calling thread leaves the port that it belongs to since its first `get` there: its slot and the rest of its
/// batch are given back now, as its end would do it. A later `get` has it belong to a port again. In a thread that
/// belongs to none this does nothing, and in a forked child it only forgets the parent's port.
///
/// For a thread that goes on with something else, and for an interface that ends threads without running their
/// destructors in time.
pub fn leave_port() {
    crate::threads::unbind();
}

/// The operation was cancelled, or its device or port was closed (row E-04): `ERROR_OPERATION_ABORTED` on Windows.
pub const ECANCELED: i32 = errno::ECANCELED;
/// The device or the port is closed (row E-30): `ERROR_INVALID_HANDLE` on Windows.
pub const EBADF: i32 = errno::EBADF;
