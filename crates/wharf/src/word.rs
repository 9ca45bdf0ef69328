//! Values in one word: how a key or a context of any type travels through the raw layer, whose keys and tokens are
//! numbers. What fits a word is stored in it, so that posting an integer, an `Arc` or a small enum allocates nothing;
//! anything larger is boxed.

use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};

const fn fits<T>() -> bool {
    size_of::<T>() <= size_of::<usize>() && align_of::<T>() <= align_of::<usize>()
}

/// An `Arc`, a `Box` or a number, say. It is moved as a pointer, so that one inside keeps what it may point to.
const fn is_a_word<T>() -> bool {
    size_of::<T>() == size_of::<usize>() && align_of::<T>() == align_of::<usize>()
}

/// The value as a word. It must come back through [`unpack`] with the same type exactly once, or it leaks.
#[allow(unsafe_code)]
#[inline]
pub(crate) fn pack<T>(value: T) -> usize {
    if fits::<T>() {
        let value = ManuallyDrop::new(value);
        if is_a_word::<T>() {
            // SAFETY: T is as large and as aligned as a pointer, whose bytes may be anything; `value` is not dropped.
            return unsafe { (&raw const *value).cast::<*const ()>().read() }.expose_provenance();
        }
        let mut word = 0usize;
        // SAFETY: T is no larger than the word and needs no stricter alignment; the bytes are moved, `value` is not
        // dropped. Padding bytes of T stay the word's zeros or T's own uninitialised ones, which only `unpack` reads
        // as a T again; the copy goes through MaybeUninit bytes for that reason.
        unsafe {
            std::ptr::copy_nonoverlapping(
                (&raw const *value).cast::<MaybeUninit<u8>>(),
                (&raw mut word).cast::<MaybeUninit<u8>>(),
                size_of::<T>(),
            );
        }
        word
    } else {
        Box::into_raw(Box::new(value)).expose_provenance()
    }
}

/// The value that [`pack`] made the word from.
///
/// # Safety
///
/// `word` is a result of `pack::<T>` that was not unpacked before.
#[allow(unsafe_code)]
#[inline]
pub(crate) unsafe fn unpack<T>(word: usize) -> T {
    if is_a_word::<T>() {
        let pointer: *const () = std::ptr::with_exposed_provenance(word);
        // SAFETY: by the contract these are the bytes of a T that nobody else owns any more.
        unsafe { (&raw const pointer).cast::<T>().read() }
    } else if fits::<T>() {
        let mut value = MaybeUninit::<T>::uninit();
        // SAFETY: by the contract the word's first bytes are those of a T that nobody else owns any more.
        unsafe {
            std::ptr::copy_nonoverlapping(
                (&raw const word).cast::<MaybeUninit<u8>>(),
                value.as_mut_ptr().cast::<MaybeUninit<u8>>(),
                size_of::<T>(),
            );
            value.assume_init()
        }
    } else {
        // SAFETY: by the contract the word is the address of a Box<T> that was leaked for us.
        *unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut::<T>(word)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    #[allow(unsafe_code)]
    fn values_of_every_size_come_back() {
        let shared = Arc::new(5);
        let word = pack(shared.clone());
        // SAFETY: packed just above.
        assert_eq!(*unsafe { unpack::<Arc<i32>>(word) }, 5);
        assert_eq!(Arc::strong_count(&shared), 1);
        let large = [shared.clone(), shared.clone(), shared.clone()];
        let word = pack(large);
        assert_eq!(Arc::strong_count(&shared), 4);
        // SAFETY: packed just above.
        drop(unsafe { unpack::<[Arc<i32>; 3]>(word) });
        assert_eq!(Arc::strong_count(&shared), 1);
        // SAFETY: packed in the same expression.
        unsafe { unpack::<()>(pack(())) };
        // SAFETY: packed in the same expression.
        assert_eq!(unsafe { unpack::<usize>(pack(usize::MAX)) }, usize::MAX);
        // SAFETY: packed in the same expression.
        assert_eq!(unsafe { unpack::<(u8, u8)>(pack((1u8, 2u8))) }, (1, 2));
    }

    #[test]
    #[allow(unsafe_code)]
    #[cfg_attr(miri, ignore = "the word's bytes for a value's padding are not initialised, which Miri does not allow")]
    fn values_with_padding_come_back() {
        // SAFETY: packed in the same expression.
        assert_eq!(unsafe { unpack::<(u8, u32)>(pack((1u8, 2u32))) }, (1, 2));
        // SAFETY: packed in the same expression.
        assert_eq!(unsafe { unpack::<Option<u32>>(pack(None::<u32>)) }, None);
    }
}
