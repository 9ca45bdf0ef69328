//! Is this still the process that made something that a fork does not give to a child?
//!
//! After `fork` the child shares the parent's epoll set: a `DEL` from the child would edit the parent's. The check has
//! to be cheap, because it stands before every call: a page that the kernel wipes in the child (`MADV_WIPEONFORK`),
//! read with one load. Where that is not offered, the process number is compared.
//!
//! It comes before any lock: another thread of the parent may have held the lock at the moment of the fork, and the
//! child has no thread that would release it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

#[derive(Clone, Copy, Debug)]
enum Mark {
    /// A word that reads 1 in the process that made it, and 0 in its children.
    Page(&'static AtomicU32),
    Process(u32),
}

/// A process, told apart from the children that it forks.
///
/// For code that keeps locks beside a port's. In a forked child a port's calls fail without taking a lock, because
/// another thread of the parent may have held it at the moment of the fork, and nobody in the child releases it. Locks
/// of your own need the same care: note the process where they are made, and look before you take one.
///
/// ```
/// let home = wharf::Home::here();
/// assert!(home.is_here()); // false in a child that this process forks
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Home(Mark);

impl Home {
    /// This process. A child that makes ports of its own gets a mark of its own.
    pub fn here() -> Home {
        // A process that was forked after this was filled finds a wiped word, and falls back to its number.
        static MARK: OnceLock<Option<&'static AtomicU32>> = OnceLock::new();
        match MARK.get_or_init(page) {
            Some(word) if word.load(Ordering::Relaxed) == 1 => Home(Mark::Page(word)),
            _ => Home(Mark::Process(std::process::id())),
        }
    }

    /// Whether this is the process that the mark was made in. Costs one load; a system call where the system has no
    /// memory that a child does not inherit.
    #[inline]
    pub fn is_here(&self) -> bool {
        match self.0 {
            Mark::Page(word) => word.load(Ordering::Relaxed) == 1,
            Mark::Process(number) => number == std::process::id(),
        }
    }
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
#[allow(unsafe_code)]
fn page() -> Option<&'static AtomicU32> {
    const BYTES: usize = 4096;
    // SAFETY: an anonymous private mapping at an address of the kernel's choice touches no memory of ours.
    let address = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            BYTES,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        )
    };
    if address == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the range is the mapping just made.
    if unsafe { libc::madvise(address, BYTES, libc::MADV_WIPEONFORK) } != 0 {
        // SAFETY: the range is the mapping just made, and nobody refers to it.
        unsafe { libc::munmap(address, BYTES) };
        return None;
    }
    // SAFETY: the mapping is page aligned, zeroed (a valid AtomicU32) and never unmapped from here on.
    let word: &'static AtomicU32 = unsafe { &*address.cast::<AtomicU32>() };
    word.store(1, Ordering::Relaxed);
    Some(word)
}

// Miri does not know the call.
#[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
fn page() -> Option<&'static AtomicU32> {
    None
}
