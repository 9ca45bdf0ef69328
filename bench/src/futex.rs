//! A word that one thread sets and another one sleeps on: the least that waking somebody can cost.

use rustix::thread::futex;
use std::sync::atomic::{AtomicU32, Ordering};

/// Sets the word, to anything but 0, and wakes who waits for it.
pub fn wake(word: &AtomicU32, value: u32) {
    word.store(value, Ordering::Release);
    let _ = futex::wake(word, futex::Flags::PRIVATE, 1);
}

/// Sleeps until the word is set, and uses that up.
pub fn wait(word: &AtomicU32) -> u32 {
    loop {
        match word.swap(0, Ordering::AcqRel) {
            0 => drop(futex::wait(word, futex::Flags::PRIVATE, 0, None)),
            value => return value,
        }
    }
}
