//! Windows: the kernel's own completion port.
//!
//! Elsewhere this crate keeps the queue, and an engine tells it of readiness. Here both are the kernel's: it queues
//! what completes, hands it to the thread that began to wait last, and lets no more of a port's threads run than the
//! port's concurrency says. So this module stands in the place of `queue` and `reactor`, and offers the same names to
//! [`raw`](crate::raw); everything above (typed port, sockets, files, sessions, pools) is the same for both systems.
//!
//! What differs for a program is what the kernel does not do, or does not tell:
//!
//! - [`stats`](crate::CompletionPort::stats) says `None` for wake-ups, ticks and threads found blocked, and counts as
//!   running who blocks without a word.
//! - Packets of a batch that were not walked through go to the *end* of the queue, and only when the thread says so
//!   (`blocking`, the next `get`, the batch's end).
//! - [`Wake`](crate::Wake) and the engines are not a choice.
//! - A datagram receive from the pool takes its buffer when it is issued: a datagram cannot be waited for without one.
//! - Unix sockets, pipes and terminals do not complete into a port. Association says so, with the remedy.
//!
//! **An operation's memory.** Each outstanding operation is a boxed [`Record`](record::Record), which begins with the
//! `OVERLAPPED` structure: its address is the kernel's token, and the operation's list of them is its device's
//! [`Direction`](direction::Direction). From the call until its packet is dequeued the record is in the kernel's hands
//! and never freed; whoever dequeues the packet owns it again. A call that says that no packet will come gives it back
//! at once. The direction's lock is held during the call, which does not block, so that the packet's taker finds the
//! record listed.
//!
//! **Closing a device** cancels, and waits for moments until what the kernel is just about to end has ended, because
//! the handle's number is soon another's: see `closing.rs`.
//!
//! **Closing the port** cancels what is outstanding and takes the packets, so that no memory is freed under the kernel:
//! by the closing thread, and, for what a driver does not give up in time, by a thread that stays for it.
//!
//! **Files here**: `record.rs`, `device.rs` and `direction.rs` the memory and the way of an operation, `packet.rs` what
//! the kernel queues, `queue.rs` threads and waiting, `port.rs` the port, `devices.rs` how devices come and go,
//! `closing.rs` the end of all, then one file for each kind of operation. The system's calls are those of
//! [`sys`](crate::sys).

mod children;
mod closing;
mod console;
mod datagrams;
mod device;
mod devices;
mod direction;
mod files;
mod packet;
mod port;
pub(crate) mod queue;
mod record;
mod streams;
mod timers;
mod transmit;
mod trying;

pub(crate) use device::DeviceState;
pub(crate) use files::file_traits;
pub(crate) use packet::Entry;
pub(crate) use port::Port;
pub(crate) use queue::{Note, Park, Queue as PortQueue, Rest};
pub(crate) use streams::TrySend;
