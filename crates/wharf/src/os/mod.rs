//! The corners where systems differ and that are no engine: what a descriptor is, who is at the other end of a socket of
//! the machine's own, how a child ended. One file for each system, chosen here; both offer the same names.
//!
//! Beside these corners stand, chosen where their module is declared: `net/local*` (what is not of the network),
//! `process*` (child processes), `session/local*` and `session/inherit*`.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::by_descriptor;
#[cfg(unix)]
pub use unix::*;
#[cfg(windows)]
pub(crate) use windows::by_descriptor;
#[cfg(windows)]
pub use windows::*;

use std::path::Path;

/// What a port can take over and give back: it is one descriptor, and nothing else.
pub trait Owned: Sized {
    /// The descriptor, which is the caller's to close from then on.
    fn into_handle(self) -> Handle;

    /// What owns the descriptor.
    ///
    /// # Safety
    ///
    /// The descriptor is open, of this kind, and nobody else's to close.
    #[allow(unsafe_code)]
    unsafe fn from_handle(handle: Handle) -> Self;
}

/// The name of a socket of the machine's own.
#[derive(PartialEq, Eq, Hash)]
pub(crate) enum LocalName {
    Path(Box<Path>),
    Abstract(Box<[u8]>),
}
