//! Who issues operations, and what they can be told by beside their numbers.

use std::cell::Cell;

thread_local! {
    static ISSUER: Cell<u32> = const { Cell::new(0) };
}

/// From now on the operations that the calling thread issues have this tag; until it is set they have 0. Returns the
/// one before. [`Port::cancel_issued_by`](crate::raw::Port::cancel_issued_by) ends them by it.
///
/// A tag costs nothing. A number for each thread makes of that call what `CancelIo` is on Windows: only what this
/// thread has issued ends.
pub fn set_issuer(tag: u32) -> u32 {
    ISSUER.replace(tag)
}

/// The calling thread's tag.
#[inline]
pub(super) fn issuer() -> u32 {
    ISSUER.get()
}

/// What several operations may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    Token(usize),
    Issuer(u32),
}

/// What an operation is told by.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(windows, allow(dead_code, reason = "the kernel executes operations there"))]
pub(crate) struct Label {
    pub(crate) serial: u64,
    pub(crate) token: usize,
    pub(crate) issuer: u32,
    /// It is none of the program's.
    pub(crate) nameless: bool,
}

impl Label {
    pub(crate) fn is(&self, name: Name) -> bool {
        let fits = match name {
            Name::Token(token) => self.token == token,
            Name::Issuer(issuer) => self.issuer == issuer,
        };
        fits && !self.nameless
    }
}
