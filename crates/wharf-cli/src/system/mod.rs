//! The corners where systems differ, for the whole program: one file for each, chosen here; both offer the same names.
//! `doctor/system/` and `files/open/` do the same for the doctor and for the files that are served.

mod scarce;
#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

pub use scarce::Scarce;
#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;
