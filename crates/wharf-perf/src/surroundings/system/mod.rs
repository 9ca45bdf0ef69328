//! What only the system can say or do: one file for each, chosen here; both offer the same names. But for the numbers
//! of errors on the wire (`protocol/errno/`) nothing else in this crate asks which system it runs on.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::*;
#[cfg(windows)]
pub(crate) use windows::*;
