//! The payload of a panic that was caught: read, and dropped. Its destructor is the program's code, and may panic too.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What the panic said. The payload is gone then.
pub(super) fn words(panic: Box<dyn Any + Send>) -> String {
    let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let words = text.unwrap_or("without a message").to_owned();
    discard(panic);
    words
}

/// Drops the payload; one that panics in its destructor leaks what it panicked with.
pub(super) fn discard(panic: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(panic))) {
        std::mem::forget(again);
    }
}
