//! Bytes that belong to a value of another type, which is kept as long as they are needed.

use std::ptr::NonNull;

/// The owner, and its bytes as it showed them once. One allocation.
struct Kept<T: ?Sized> {
    bytes: NonNull<[u8]>,
    owner: T,
}

/// Readable memory of any owner.
///
/// The pointer and not a `Box`: the bytes may lie in the owner itself, and moving a `Box` says that nobody else points
/// there.
pub(super) struct Foreign {
    kept: NonNull<Kept<dyn Send>>,
    length: usize,
}

#[allow(unsafe_code)]
// SAFETY: the owner is `Send`, and whoever has this has the owner.
unsafe impl Send for Foreign {}
#[allow(unsafe_code)]
// SAFETY: a shared reference shows the bytes only, which are plain memory behind a shared borrow; nobody reaches the
// owner through it.
unsafe impl Sync for Foreign {}

impl Foreign {
    pub(super) fn new<T: AsRef<[u8]> + Send + 'static>(owner: T) -> Foreign {
        // In its place first: the bytes may lie in the owner.
        let kept = NonNull::from(Box::leak(Box::new(Kept { bytes: NonNull::from(&[]), owner })));
        // Should `as_ref` panic, this drops the owner.
        let mut foreign = Foreign { kept, length: 0 };
        #[allow(unsafe_code)]
        // SAFETY: `kept` was just made, and only this function knows it. The owner is borrowed as shared, and the field
        // beside it written through the pointer.
        unsafe {
            let owner: &T = &(*kept.as_ptr()).owner;
            let bytes = NonNull::from(owner.as_ref());
            (*kept.as_ptr()).bytes = bytes;
            foreign.length = bytes.len();
        }
        foreign
    }

    pub(super) fn truncate(&mut self, length: usize) {
        self.length = self.length.min(length);
    }

    #[allow(unsafe_code)]
    pub(super) fn bytes(&self) -> &[u8] {
        // SAFETY: `kept` is this value's own allocation until it is dropped. Its owner showed these bytes through a
        // shared borrow, and since then nobody has touched the owner: so they are what the borrow promised, for as long
        // as the owner lives, which is as long as `self`. `length` is at most theirs.
        unsafe { &self.kept.as_ref().bytes.as_ref()[..self.length] }
    }
}

impl Drop for Foreign {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it was leaked in `new`, and is taken back here only.
        drop(unsafe { Box::from_raw(self.kept.as_ptr()) });
    }
}
