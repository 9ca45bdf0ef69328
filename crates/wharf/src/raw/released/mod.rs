//! What a device that left its port is given back as.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::Released;
#[cfg(unix)]
pub(super) use unix::released;
#[cfg(windows)]
pub use windows::Released;
#[cfg(windows)]
pub(super) use windows::released;
