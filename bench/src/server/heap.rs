//! Counts what is allocated and not freed.
//!
//! The lab itself is a child's program, too, so it counts only where it was asked to, from a server's first moment on.
//! The count is kept in several places, one for each of the first threads, so that counting does not make two workers
//! share a cache line.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicUsize, Ordering::Relaxed};

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

#[repr(align(128))]
struct Place(AtomicIsize);

static PLACES: [Place; 16] = [const { Place(AtomicIsize::new(0)) }; 16];
static NEXT: AtomicUsize = AtomicUsize::new(0);
static ON: AtomicBool = AtomicBool::new(false);

thread_local! {
    // Const and without a destructor: using it never allocates.
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// From now on. What was allocated before and is freed later makes the count too small by as much: a few kilobytes,
/// when this is the first thing that a program does.
pub fn count() {
    ON.store(true, Relaxed);
}

/// Allocated since [`count`], and not freed.
pub fn live_bytes() -> usize {
    PLACES.iter().map(|place| place.0.load(Relaxed)).sum::<isize>().max(0).unsigned_abs()
}

fn add(bytes: isize) {
    if !ON.load(Relaxed) {
        return;
    }
    let place = MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed) % PLACES.len());
        }
        mine.get()
    });
    PLACES[place].0.fetch_add(bytes, Relaxed);
}

#[allow(unsafe_code)]
// SAFETY: all is done by the system's allocator; beside it numbers are added, which neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: the caller keeps the same rules.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(-(layout.size() as isize));
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        add(size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allocated_is_counted_until_it_is_freed_also_by_another_thread() {
        const BYTES: usize = 64 << 20;
        count();
        let before = live_bytes();
        let memory = vec![1_u8; BYTES];
        // Other tests allocate at the same time, but not such sizes.
        assert!(live_bytes() > before + BYTES / 2);
        std::thread::spawn(move || drop(memory)).join().unwrap();
        assert!(live_bytes() < before + BYTES / 2);
    }
}
