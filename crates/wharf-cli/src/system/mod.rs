//! The corners where systems differ, for the whole program: one file for each, chosen here; both offer the same names.
//! `doctor/system/` and `files/open/` do the same for the doctor and for the files that are served.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;

/// What has run out when nothing more can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scarce {
    /// What this process may have.
    Here,
    /// What the whole system has.
    Everywhere,
}
