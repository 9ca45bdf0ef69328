//! Child processes: their end is a packet.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::Child;
#[cfg(windows)]
pub use windows::Child;
