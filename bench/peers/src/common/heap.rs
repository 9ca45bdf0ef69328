//! A global allocator that counts the bytes that are in use.
//!
//! One counter for all threads would be a cache line that every allocation fights for, which the peers with several
//! threads would pay for. So there are many, and a thread keeps to one of them; what one thread allocates and another
//! frees makes one counter too high and the other too low, and their sum right.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering::Relaxed};

const COUNTERS: usize = 64;

#[repr(align(128))]
struct Counter(AtomicIsize);

static LIVE: [Counter; COUNTERS] = [const { Counter(AtomicIsize::new(0)) }; COUNTERS];
static THREADS: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    /// Which counter is this thread's, plus one; 0 when it has none yet. It needs no allocation and no destructor.
    static OWN: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let own = OWN.get();
    let own = if own != 0 {
        own
    } else {
        let new = THREADS.fetch_add(1, Relaxed) % COUNTERS + 1;
        OWN.set(new);
        new
    };
    LIVE[own - 1].0.fetch_add(bytes, Relaxed);
}

/// The bytes that were allocated and not freed, at about this moment.
pub fn live_bytes() -> isize {
    LIVE.iter().map(|counter| counter.0.load(Relaxed)).sum()
}

struct Counting;

#[global_allocator]
static HEAP: Counting = Counting;

// SAFETY: everything is done by the system's allocator, with the arguments as they came; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count(bytes as isize - layout.size() as isize);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(place, layout, bytes) }
    }
}
