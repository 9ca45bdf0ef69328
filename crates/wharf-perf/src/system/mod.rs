//! What only the system can say or do: one file for each, chosen here; both offer the same names. Nothing else in this crate
//! asks which system it runs on.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;
