//! What an operation is, whoever executes it: its record and its packet, the memory that it names, and the words of the
//! raw layer. The same where this crate executes operations by calls and where the system's kernel does.

pub(crate) mod buffer;
mod devices;
mod engines;
mod flags;
mod foreign;
mod issuer;
mod operation;
mod timers;
mod types;
mod wheel;

pub(crate) use devices::{Devices, phase};
pub(crate) use engines::engines_from_environment;
pub use engines::{FileEngine, SocketEngine};
pub use flags::ReceiveFlags;
#[cfg(unix)]
pub(crate) use issuer::Label;
pub(crate) use issuer::Name;
pub use issuer::set_issuer;
pub use operation::*;
pub(crate) use timers::{Clock, Due, Repeating, Timers};
pub use timers::{PERIOD_LEAST, Retain};
pub(crate) use types::RUNS_MAX;
pub use types::{Config, DeviceInfo, DeviceKind, Incoming, Issued, Outgoing, Post, Ran};
