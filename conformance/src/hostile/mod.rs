//! Hostile surroundings of the whole process, a file for each kind of system, chosen here. Both offer the same names.

#[cfg(unix)]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use linux::*;
#[cfg(windows)]
pub use windows::*;
