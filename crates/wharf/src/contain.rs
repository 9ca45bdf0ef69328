//! Freeing what the program hung on an entry that nobody will take.
//!
//! A destructor of the program's may panic. It must not keep the entries behind it, and the devices that their records
//! hold, from being freed: each is freed by itself, and a panic ends there, with a line in the log.

use std::any::Any;
use std::mem::forget;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `free`, which may run the program's code. A panic in there is logged and goes no further.
pub(crate) fn contain(free: impl FnOnce()) {
    let Err(payload) = catch_unwind(AssertUnwindSafe(free)) else { return };
    say(|| log::error!("a closed port freed a context whose destructor panicked"));
    discard(payload);
}

/// Tells the log, where a panic would end more than the line: the program's logger may panic as well.
pub(crate) fn say(line: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(line)) {
        discard(payload);
    }
}

/// Drops what a panic carried. That is the program's as well, and what it panics with when it is dropped, too: the
/// latter is never freed.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        forget(second);
    }
}
