//! A descriptor by which a program's own loop learns that a port has packets (row P-40).

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::Notifier;
#[cfg(windows)]
pub use windows::Notifier;
