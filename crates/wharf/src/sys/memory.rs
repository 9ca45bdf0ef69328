//! Memory that the system reads or fills for somebody who does not hold it.

/// A piece of memory: what an operation's is is the operation's until its packet was taken.
#[derive(Clone, Copy, Debug)]
pub struct RawBuffer {
    /// Its first byte.
    pub pointer: *mut u8,
    /// How many bytes may be read (send) or written (receive).
    pub length: usize,
}

#[cfg_attr(windows, allow(dead_code, reason = "the kernel executes operations there"))]
impl RawBuffer {
    /// What is left of it behind its first `done` bytes.
    #[inline]
    pub(crate) fn rest(&self, done: usize) -> RawBuffer {
        RawBuffer { pointer: self.pointer.wrapping_add(done), length: self.length - done }
    }

    /// Its first bytes, as many as that at most.
    #[inline]
    pub(crate) fn first(&self, most: usize) -> RawBuffer {
        RawBuffer { pointer: self.pointer, length: self.length.min(most) }
    }
}

#[allow(unsafe_code)]
// SAFETY: a RawBuffer is an address and a length. Whoever issues an operation with it promises (see `raw`) that the
// memory is the operation's alone, or shared and read only, until the packet; so any thread may touch it for it.
unsafe impl Send for RawBuffer {}
