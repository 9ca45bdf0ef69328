//! The corners where systems differ, for the whole program: one file for each, chosen here; both offer the same names.
//! Beside it stand, chosen where their module is declared: `doctor/linux.rs` and `doctor/windows.rs`, `files/open*.rs`.

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
