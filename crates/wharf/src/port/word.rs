//! Values in one word: how a key or a context of any type travels through the raw layer, whose keys and tokens are
//! numbers. What fits a word is stored in it, so that posting an integer, an `Arc` or a small enum allocates nothing;
//! anything larger is boxed, and on processors other than x86-64 and AArch64 everything.

use std::mem::{ManuallyDrop, MaybeUninit, align_of, size_of};

const fn fits<T>() -> bool {
    size_of::<T>() <= size_of::<usize>() && align_of::<T>() <= align_of::<usize>() && (FREEZES || is_plain::<T>())
}

/// Whether [`freeze`] does what it says. Elsewhere all values are boxed, for any may have padding; but Miri, which
/// cannot run assembly, shall see what becomes of a number and of a pointer.
const FREEZES: bool = cfg!(all(any(target_arch = "x86_64", target_arch = "aarch64"), not(miri)));

const fn is_plain<T>() -> bool {
    cfg!(miri) && size_of::<T>() == size_of::<usize>() && align_of::<T>() == align_of::<usize>()
}

/// The word with whatever its bytes happen to be: those that are a value's padding, or lie behind a small value, were
/// never written, and a number or a pointer must not have such bytes.
#[allow(unsafe_code)]
#[inline]
fn freeze(word: MaybeUninit<*const ()>) -> *const () {
    #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
    if FREEZES {
        let frozen;
        // SAFETY: no instruction at all. A register has a value, whatever it was loaded from.
        unsafe { std::arch::asm!("/* {} */", inlateout(reg) word => frozen, options(nomem, nostack, preserves_flags)) };
        return frozen;
    }
    // SAFETY: only what `is_plain` comes here, in tests: numbers and pointers, all of whose bytes are written.
    unsafe { word.assume_init() }
}

/// The value as a word. It must come back through [`unpack`] with the same type exactly once, or it leaks.
#[allow(unsafe_code)]
#[inline]
pub(crate) fn pack<T>(value: T) -> usize {
    if !fits::<T>() {
        return Box::into_raw(Box::new(value)).expose_provenance();
    }
    let value = ManuallyDrop::new(value);
    let mut word = MaybeUninit::<*const ()>::uninit();
    // SAFETY: T is no larger than the word and needs no stricter alignment. Its bytes, written or not, are moved as a
    // pointer's, so that one inside stays one; `value` is not dropped.
    unsafe { word.as_mut_ptr().cast::<T>().write((&raw const *value).read()) };
    freeze(word).expose_provenance()
}

/// The value that [`pack`] made the word from.
///
/// # Safety
///
/// `word` is a result of `pack::<T>` that was not unpacked before.
#[allow(unsafe_code)]
#[inline]
pub(crate) unsafe fn unpack<T>(word: usize) -> T {
    if fits::<T>() {
        let pointer: *const () = std::ptr::with_exposed_provenance(word);
        // SAFETY: by the contract the word's first bytes are those of a T that nobody else owns any more, and T needs
        // no stricter alignment.
        unsafe { (&raw const pointer).cast::<T>().read() }
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
    fn values_with_padding_come_back() {
        // SAFETY: packed in the same expression.
        assert_eq!(unsafe { unpack::<(u8, u32)>(pack((1u8, 2u32))) }, (1, 2));
        // SAFETY: packed in the same expression.
        assert_eq!(unsafe { unpack::<Option<u32>>(pack(None::<u32>)) }, None);
    }
}
