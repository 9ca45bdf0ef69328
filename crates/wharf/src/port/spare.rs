//! A box's memory, kept by its thread for the next box of the same size.
//!
//! An operation's record is freed when its packet is taken, and the handler that takes it issues the next operation, on
//! the same thread: most records are made in the memory of the last. One piece is kept for each thread, until it exits.

use std::alloc::{Layout, dealloc};
use std::cell::Cell;
use std::ptr::NonNull;

/// What is larger goes back to the allocator: a context of the program's own, say.
const KEPT_BYTES_MAX: usize = 256;

/// Memory of the global allocator, of this layout, that nothing is in.
struct Block {
    memory: NonNull<u8>,
    layout: Layout,
}

impl Drop for Block {
    #[allow(unsafe_code)]
    fn drop(&mut self) {
        // SAFETY: it was a box's, with this layout, and nobody else has it.
        unsafe { dealloc(self.memory.as_ptr(), self.layout) };
    }
}

thread_local! {
    static SPARE: Cell<Option<Block>> = const { Cell::new(None) };
}

/// `Box::new`.
#[allow(unsafe_code)]
#[inline]
pub(crate) fn boxed<T>(value: T) -> Box<T> {
    // While the thread's own variables are being dropped there is none.
    let spare = SPARE.try_with(Cell::take).ok().flatten();
    match spare {
        Some(block) if block.layout == Layout::new::<T>() => {
            let memory = std::mem::ManuallyDrop::new(block).memory.cast::<T>();
            // SAFETY: the block is memory of the global allocator with the layout of a T, and ours alone; so it can be
            // written, and is a box's when it was.
            unsafe {
                memory.write(value);
                Box::from_raw(memory.as_ptr())
            }
        }
        // Another type's: the program uses both, and the last one is kept.
        _ => Box::new(value),
    }
}

/// `*value`.
#[allow(unsafe_code)]
#[inline]
pub(crate) fn unboxed<T>(value: Box<T>) -> T {
    let layout = Layout::new::<T>();
    if layout.size() == 0 || layout.size() > KEPT_BYTES_MAX {
        return *value;
    }
    let memory = NonNull::from(Box::leak(value));
    // SAFETY: the box was ours. Its value is taken out once, and from then on there is only memory.
    let value = unsafe { memory.read() };
    let block = Block { memory: memory.cast(), layout };
    // What was kept before is freed, as is the block where the thread is about to exit.
    drop(SPARE.try_with(|spare| spare.replace(Some(block))));
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn values_come_back_and_memory_is_used_again() {
        let shared = Arc::new(7);
        let first = boxed((shared.clone(), 1_u64));
        let place = &raw const *first as usize;
        assert_eq!(unboxed(first).1, 1);
        let second = boxed((shared.clone(), 2_u64));
        assert_eq!(&raw const *second as usize, place, "the memory was kept");
        let third = boxed((shared.clone(), 3_u64));
        assert_ne!(&raw const *third as usize, place, "it is kept once");
        assert_eq!((unboxed(second).1, unboxed(third).1), (2, 3));
        assert_eq!(unboxed(boxed([1_u8; 3])), [1; 3]);
        unboxed(boxed(()));
        assert_eq!(unboxed(boxed([5_u8; KEPT_BYTES_MAX + 1])), [5; KEPT_BYTES_MAX + 1]);
        assert_eq!(Arc::strong_count(&shared), 1);
    }

    #[test]
    fn a_box_may_be_made_while_the_thread_exits() {
        struct Last;
        impl Drop for Last {
            fn drop(&mut self) {
                assert_eq!(unboxed(boxed(5_u32)), 5);
            }
        }
        thread_local! {
            static LAST: Last = const { Last };
        }
        let thread = std::thread::spawn(|| {
            LAST.with(|_| ());
            assert_eq!(unboxed(boxed(6_u32)), 6);
        });
        thread.join().unwrap();
    }
}
