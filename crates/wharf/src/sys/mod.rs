//! What a system is, and no word of wharf: the ground that the queue and the engines stand on.
//!
//! One folder for Unix and one for Windows, chosen here, with the same names where both have the thing. In `unix/`
//! stand two files more with the same names: `linux.rs` (Android has the same kernel) and `kqueue.rs` (macOS and its
//! relatives, FreeBSD): descriptors that are raised and lowered, timers that are descriptors, waiting on a word,
//! sockets made right at once, children, transfers of files. Whoever brings wharf to a further Unix writes a third;
//! everything else asks for nothing but POSIX.
//!
//! Beside them: `probe/` (is a thread blocked?) and `fork.rs` (a mark that a forked child lacks).

#[cfg(not(loom))]
pub(crate) mod fork;
#[cfg(not(loom))]
mod memory;
#[cfg(unix)]
pub(crate) mod probe;
#[cfg(all(unix, not(loom)))]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(not(loom))]
pub use memory::RawBuffer;
#[cfg(all(unix, not(loom)))]
pub use unix::*;
#[cfg(windows)]
pub use windows::*;

/// What owns one descriptor, and nothing else.
#[cfg(not(loom))]
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
