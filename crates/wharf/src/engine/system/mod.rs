//! The corners where Unixes differ, apart from the engines: descriptors that are raised and lowered, timers that are
//! descriptors, waiting on a word, sockets made right at once, children, transfers of files. One file for Linux, which is
//! Android's kernel too, and one for the systems with kqueue (macOS and its relatives, FreeBSD), with the same names.
//!
//! Whoever brings wharf to a further Unix writes a third; everything else asks for nothing but POSIX.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kqueue;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use kqueue::*;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::*;
