//! What the tasks of one thread have to say on one connection. Whoever comes while nobody writes gets the writer, the
//! others' bytes go with its next write: so no two writes are under way at once, and what has gathered goes out
//! together.

use std::cell::{Cell, RefCell};

pub struct Outbox<W> {
    bytes: RefCell<Vec<u8>>,
    /// Not there while somebody writes, and not any more when a write failed.
    writer: Cell<Option<W>>,
}

impl<W> Outbox<W> {
    pub fn new(writer: W) -> Outbox<W> {
        Outbox { bytes: RefCell::default(), writer: Cell::new(Some(writer)) }
    }

    /// Leaves `bytes` to be written. Who gets the writer writes what [`next`](Outbox::next) hands out.
    pub fn put(&self, bytes: &[u8]) -> Option<W> {
        self.bytes.borrow_mut().extend_from_slice(bytes);
        self.writer.take()
    }

    /// Puts what is to be written now in place of what was written. `None` when that was all: the writer is back here.
    pub fn next(&self, writer: W, bytes: &mut Vec<u8>) -> Option<W> {
        bytes.clear();
        std::mem::swap(&mut *self.bytes.borrow_mut(), bytes);
        if bytes.is_empty() {
            self.writer.set(Some(writer));
            return None;
        }
        Some(writer)
    }
}
