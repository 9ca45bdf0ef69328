//! The threads that serve a port, whoever keeps its queue: which port a thread belongs to, and the words that a queue
//! is spoken to with. The same where this crate keeps the queue and where the system's kernel does.

mod binding;
mod get_error;
mod types;

#[cfg(not(loom))]
pub use binding::BeforeBlocking;
pub use binding::blocking;
pub(crate) use binding::{Bindable, bind, bound, unbind};
pub use get_error::GetError;
pub(crate) use types::{Deadline, Grow, Pools, QueueStats, Taken, Tended, WorkerId};
pub use types::{Wake, WorkerReport, WorkerState};
