//! What a system is, as far as sessions ask for more than their port and std tell: one file for each, with the same
//! names.

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
mod kqueue;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(windows)]
mod windows;

#[cfg(all(unix, not(any(target_os = "linux", target_os = "android"))))]
pub(crate) use kqueue::*;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::*;
#[cfg(windows)]
pub(crate) use windows::*;
