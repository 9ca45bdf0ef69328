//! Memory for operations: owned while an operation is outstanding, returned with its packet.
//!
//! A [`Buffer`] is given away when an operation is issued and comes back in the packet, so the borrow checker sees to
//! it that nobody touches it in between; nothing is copied. A receive fills a buffer from its start up to its
//! *capacity*, and its length is then the number of bytes received; a send sends its *length*.

use super::foreign::Foreign;
use crate::sync::Lock;
use crate::sys::fork::Home;
use std::alloc::Layout;
use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

/// The memory of an operation. Made from a `Vec<u8>`, a `Box<[u8]>`, an `Arc<[u8]>`, a `&'static [u8]` or text;
/// derefs to its bytes.
///
/// Shared and static memory can be sent, not received into; so can what another type owns
/// ([`from_owner`](Buffer::from_owner)).
///
/// ```
/// use wharf::Buffer;
/// let to_receive = Buffer::with_capacity(4096);
/// assert_eq!((to_receive.len(), to_receive.capacity()), (0, 4096));
/// let to_send = Buffer::from("hello\n");
/// assert_eq!(&to_send[..], b"hello\n");
/// ```
pub struct Buffer(Memory);

enum Memory {
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    Static(&'static [u8]),
    Pooled(PoolBuffer),
    Aligned(Aligned),
    Foreign(Foreign),
}

impl Buffer {
    /// An empty buffer that can receive `bytes` bytes. With 0, a receive into it waits for data and takes none.
    pub fn with_capacity(bytes: usize) -> Buffer {
        Buffer(Memory::Owned(Vec::with_capacity(bytes)))
    }

    /// An empty buffer for `bytes` bytes at an address that is a multiple of `alignment`, for direct I/O. With 4096 it
    /// fits every disk.
    ///
    /// # Panics
    ///
    /// When `alignment` is no power of two, or `bytes` more than memory can have.
    pub fn aligned(bytes: usize, alignment: usize) -> Buffer {
        Buffer(Memory::Aligned(Aligned::new(bytes, alignment)))
    }

    /// The bytes of a value that owns them, without copying them: to send, or to write. The value is dropped with the
    /// buffer, by whichever thread that is. It is asked for its bytes once, here.
    ///
    /// ```
    /// use wharf::Buffer;
    /// let page: std::sync::Arc<String> = std::sync::Arc::new("hello".into());
    /// struct Page(std::sync::Arc<String>);
    /// impl AsRef<[u8]> for Page {
    ///     fn as_ref(&self) -> &[u8] {
    ///         self.0.as_bytes()
    ///     }
    /// }
    /// let buffer = Buffer::from_owner(Page(page.clone()));
    /// assert_eq!((&buffer[..], buffer.is_writable()), (&b"hello"[..], false));
    /// drop(buffer);
    /// assert_eq!(std::sync::Arc::strong_count(&page), 1);
    /// ```
    pub fn from_owner<T: AsRef<[u8]> + Send + 'static>(owner: T) -> Buffer {
        Buffer(Memory::Foreign(Foreign::new(owner)))
    }

    /// The buffer with these bytes as its content, which fit into its capacity: to write from aligned memory, say.
    ///
    /// # Panics
    ///
    /// When they do not fit, or when nothing can be received into the memory.
    pub fn filled(mut self, bytes: &[u8]) -> Buffer {
        let space = self.space().expect("the memory is its own");
        assert!(bytes.len() <= space.length, "{} bytes do not fit into {}", bytes.len(), space.length);
        #[allow(unsafe_code)]
        // SAFETY: `space` is this buffer's own memory and large enough; `bytes` is borrowed, so it is other memory.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), space.pointer, bytes.len());
        }
        self.received(bytes.len());
        self
    }

    /// How many bytes a receive may put here; 0 for shared and static memory.
    pub fn capacity(&self) -> usize {
        match &self.0 {
            Memory::Owned(vec) => vec.capacity(),
            Memory::Pooled(pooled) => pooled.0.memory.capacity(),
            Memory::Aligned(aligned) => aligned.capacity,
            Memory::Shared(_) | Memory::Static(_) | Memory::Foreign(_) => 0,
        }
    }

    /// Whether a receive may use it.
    #[inline]
    pub fn is_writable(&self) -> bool {
        matches!(self.0, Memory::Owned(_) | Memory::Pooled(_) | Memory::Aligned(_))
    }

    /// The bytes as a vector; copies memory that no vector owns.
    pub fn into_vec(self) -> Vec<u8> {
        match self.0 {
            Memory::Owned(vec) => vec,
            other => Buffer(other).to_vec(),
        }
    }

    /// Keeps the first `length` bytes.
    pub fn truncate(&mut self, length: usize) {
        match &mut self.0 {
            Memory::Owned(vec) => vec.truncate(length),
            Memory::Pooled(pooled) => pooled.0.memory.truncate(length),
            Memory::Aligned(aligned) => aligned.length = aligned.length.min(length),
            Memory::Shared(shared) if length < shared.len() => self.0 = Memory::Owned(shared[..length].to_vec()),
            Memory::Static(bytes) => *bytes = &bytes[..length.min(bytes.len())],
            Memory::Shared(_) => {}
            Memory::Foreign(foreign) => foreign.truncate(length),
        }
    }

    pub(crate) fn pooled(buffer: PoolBuffer) -> Buffer {
        Buffer(Memory::Pooled(buffer))
    }

    /// Where a receive may write, for as long as the buffer is neither moved from nor dropped.
    #[inline]
    pub(crate) fn space(&mut self) -> Option<crate::op::RawBuffer> {
        let vec = match &mut self.0 {
            Memory::Owned(vec) => vec,
            Memory::Pooled(pooled) => &mut pooled.0.memory,
            Memory::Aligned(aligned) => {
                let (pointer, length) = (aligned.pointer.as_ptr(), aligned.capacity);
                return Some(crate::op::RawBuffer { pointer, length });
            }
            Memory::Shared(_) | Memory::Static(_) | Memory::Foreign(_) => return None,
        };
        Some(crate::op::RawBuffer { pointer: vec.as_mut_ptr(), length: vec.capacity() })
    }

    /// What a send reads.
    #[inline]
    pub(crate) fn content(&self) -> crate::op::RawBuffer {
        crate::op::RawBuffer { pointer: self.as_ptr().cast_mut(), length: self.len() }
    }

    /// A receive has written `length` bytes at the start.
    #[allow(unsafe_code)]
    #[inline]
    pub(crate) fn received(&mut self, length: usize) {
        let vec = match &mut self.0 {
            Memory::Owned(vec) => vec,
            Memory::Pooled(pooled) => &mut pooled.0.memory,
            Memory::Aligned(aligned) => {
                assert!(length <= aligned.capacity, "the engine reported more bytes than the buffer holds");
                aligned.length = length;
                return;
            }
            Memory::Shared(_) | Memory::Static(_) | Memory::Foreign(_) => return,
        };
        assert!(length <= vec.capacity(), "the engine reported more bytes than the buffer holds");
        // SAFETY: `length` is within the capacity, and the engine initialised that many bytes from the start of the
        // very memory that `space` named, before it reported them.
        unsafe { vec.set_len(length) };
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match &self.0 {
            Memory::Owned(vec) => vec,
            Memory::Shared(shared) => shared,
            Memory::Static(bytes) => bytes,
            Memory::Pooled(pooled) => &pooled.0.memory,
            Memory::Aligned(aligned) => aligned.bytes(),
            Memory::Foreign(foreign) => foreign.bytes(),
        }
    }
}

/// Memory at a multiple of some number.
struct Aligned {
    pointer: NonNull<u8>,
    layout: Layout,
    capacity: usize,
    length: usize,
}

#[allow(unsafe_code)]
// SAFETY: the memory is owned by the value alone, as a Vec's is.
unsafe impl Send for Aligned {}
#[allow(unsafe_code)]
// SAFETY: through a shared reference it can only be read.
unsafe impl Sync for Aligned {}

impl Aligned {
    fn new(bytes: usize, alignment: usize) -> Aligned {
        // One byte at least: an allocation of none is not allowed.
        let layout = Layout::from_size_align(bytes.max(1), alignment).expect("a power of two, and a size that exists");
        #[allow(unsafe_code)]
        // SAFETY: the size is not 0.
        let pointer = unsafe { std::alloc::alloc_zeroed(layout) };
        let Some(pointer) = NonNull::new(pointer) else { std::alloc::handle_alloc_error(layout) };
        Aligned { pointer, layout, capacity: bytes, length: 0 }
    }

    fn bytes(&self) -> &[u8] {
        #[allow(unsafe_code)]
        // SAFETY: the memory was zeroed when it was allocated, `length` is within it, and it lives as long as `self`.
        unsafe {
            std::slice::from_raw_parts(self.pointer.as_ptr(), self.length)
        }
    }
}

impl Drop for Aligned {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout, and freed here only.
        unsafe { std::alloc::dealloc(self.pointer.as_ptr(), self.layout) };
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for Buffer {
    fn default() -> Self {
        Buffer(Memory::Static(&[]))
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.0 {
            Memory::Owned(_) => "owned",
            Memory::Shared(_) => "shared",
            Memory::Static(_) => "static",
            Memory::Pooled(_) => "pooled",
            Memory::Aligned(_) => "aligned",
            Memory::Foreign(_) => "foreign",
        };
        write!(f, "Buffer({kind}, {} of {} bytes)", self.len(), self.capacity().max(self.len()))
    }
}

impl From<Vec<u8>> for Buffer {
    fn from(vec: Vec<u8>) -> Self {
        Buffer(Memory::Owned(vec))
    }
}

impl From<Box<[u8]>> for Buffer {
    fn from(bytes: Box<[u8]>) -> Self {
        Buffer(Memory::Owned(bytes.into_vec()))
    }
}

impl From<Arc<[u8]>> for Buffer {
    fn from(shared: Arc<[u8]>) -> Self {
        Buffer(Memory::Shared(shared))
    }
}

impl From<&'static [u8]> for Buffer {
    fn from(bytes: &'static [u8]) -> Self {
        Buffer(Memory::Static(bytes))
    }
}

impl<const N: usize> From<&'static [u8; N]> for Buffer {
    fn from(bytes: &'static [u8; N]) -> Self {
        Buffer(Memory::Static(bytes))
    }
}

impl From<&'static str> for Buffer {
    fn from(text: &'static str) -> Self {
        Buffer(Memory::Static(text.as_bytes()))
    }
}

impl From<String> for Buffer {
    fn from(text: String) -> Self {
        Buffer(Memory::Owned(text.into_bytes()))
    }
}

/// A port's store of receive buffers of one size, so that an idle connection pins none.
#[derive(Debug)]
pub(crate) struct Pool {
    // Boxed, because they are handed out as they lie here.
    #[allow(clippy::vec_box)]
    free: Lock<Vec<Box<Slab>>>,
    size: usize,
    keep: usize,
    home: Home,
}

/// A buffer and the way home; boxed once, so that it travels in packets as one word.
#[derive(Debug)]
struct Slab {
    memory: Vec<u8>,
    /// `None` while it lies in the pool, which would otherwise hold itself.
    home: Option<Arc<Pool>>,
}

impl Pool {
    /// Buffers of `size` bytes, of which up to `keep` are kept when nobody uses them.
    pub(crate) fn new(size: usize, keep: usize) -> Arc<Pool> {
        Arc::new(Pool { free: Lock::new(Vec::new()), size, keep, home: Home::here() })
    }

    pub(crate) fn take(self: &Arc<Self>) -> PoolBuffer {
        let kept = self.free.lock().pop();
        let mut slab = kept.unwrap_or_else(|| Box::new(Slab { memory: Vec::with_capacity(self.size), home: None }));
        slab.home = Some(self.clone());
        PoolBuffer(ManuallyDrop::new(slab))
    }

    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.free.lock().len()
    }
}

/// A buffer of a port's pool; goes back there when dropped.
pub struct PoolBuffer(ManuallyDrop<Box<Slab>>);

impl PoolBuffer {
    /// Where a receive may write.
    pub(crate) fn space(&mut self) -> crate::op::RawBuffer {
        let memory = &mut self.0.memory;
        crate::op::RawBuffer { pointer: memory.as_mut_ptr(), length: memory.capacity() }
    }
}

impl Drop for PoolBuffer {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: taken once, here, by the destructor; nothing uses `self.0` afterwards.
        let mut slab = unsafe { ManuallyDrop::take(&mut self.0) };
        slab.memory.clear();
        // In a forked child somebody may hold the pool's lock for ever: the buffer is freed.
        let Some(pool) = slab.home.take().filter(|pool| pool.home.is_here()) else { return };
        let mut free = pool.free.lock();
        if free.len() < pool.keep {
            free.push(slab);
        }
    }
}

impl fmt::Debug for PoolBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PoolBuffer({} bytes)", self.0.memory.capacity())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_pool_buffer_goes_back_and_is_reused_empty() {
        let pool = Pool::new(64, 1);
        let mut first = Buffer::pooled(pool.take());
        let second = pool.take();
        first.received(3);
        assert_eq!(first.len(), 3);
        drop(first);
        assert_eq!(pool.free(), 1);
        drop(second);
        assert_eq!(pool.free(), 1, "no more are kept than asked for");
        assert_eq!(Buffer::pooled(pool.take()).len(), 0);
    }

    #[test]
    fn aligned_memory_is_at_a_multiple_and_holds_what_it_is_filled_with() {
        for alignment in [1, 512, 4096, 1 << 16] {
            let buffer = Buffer::aligned(5000, alignment).filled(b"content");
            assert_eq!(buffer.as_ptr().addr() % alignment, 0);
            assert_eq!((buffer.capacity(), &buffer[..]), (5000, &b"content"[..]));
        }
        let none = Buffer::aligned(0, 4096);
        assert_eq!((none.len(), none.capacity()), (0, 0));
    }

    #[test]
    fn shared_memory_is_not_received_into() {
        let shared: Arc<[u8]> = Arc::from(&b"abc"[..]);
        let mut buffer = Buffer::from(shared);
        assert!(!buffer.is_writable());
        assert!(buffer.space().is_none());
        buffer.truncate(2);
        assert_eq!(&buffer[..], b"ab");
    }

    #[test]
    fn bytes_of_another_owner_stay_where_they_are_and_go_with_it() {
        // Bytes in the owner itself, which moves into the buffer, and bytes elsewhere.
        struct Counted<T>(T, #[allow(dead_code)] Arc<()>);
        impl<T: AsRef<[u8]>> AsRef<[u8]> for Counted<T> {
            fn as_ref(&self) -> &[u8] {
                self.0.as_ref()
            }
        }
        let alive = Arc::new(());
        let mut inside = Buffer::from_owner(Counted(*b"inside", alive.clone()));
        let text = b"elsewhere".to_vec();
        let address = text.as_ptr();
        let elsewhere = Buffer::from_owner(Counted(text, alive.clone()));
        assert_eq!((&inside[..], elsewhere.as_ptr()), (&b"inside"[..], address));
        assert_eq!((inside.capacity(), inside.is_writable(), inside.space().is_none()), (0, false, true));
        inside.truncate(2);
        inside.truncate(4);
        let moved = std::thread::spawn(move || inside.to_vec()).join().unwrap();
        assert_eq!((moved, elsewhere.into_vec()), (b"in".to_vec(), b"elsewhere".to_vec()));
        assert_eq!(Arc::strong_count(&alive), 1, "both owners are gone");
    }

    #[test]
    fn an_owner_that_panics_when_it_is_asked_is_dropped() {
        struct Bad(#[allow(dead_code)] Arc<()>);
        impl AsRef<[u8]> for Bad {
            fn as_ref(&self) -> &[u8] {
                std::panic::resume_unwind(Box::new("on purpose"))
            }
        }
        let alive = Arc::new(());
        let bad = Bad(alive.clone());
        assert!(std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| Buffer::from_owner(bad))).is_err());
        assert_eq!(Arc::strong_count(&alive), 1);
    }
}
