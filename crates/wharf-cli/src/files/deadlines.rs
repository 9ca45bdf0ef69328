//! Every connection's deadline, without a timer per connection and without a lock on the way of a request.
//!
//! A connection writes its deadline into a word of its own before each operation. One thread looks at all words now and
//! then, marks those that are over, and cancels what the connection waits for; the operation's packet then finds the
//! mark. A connection that went on meanwhile has written another deadline, so the mark fails; one that finds the mark
//! when it wants to go on is too late, and ends. A mark that nobody has found for a while closes the connection.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering::AcqRel, Ordering::Acquire};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use wharf::{Context, Stream};

/// What is done to a connection whose time is over.
pub trait Interrupt: fmt::Debug + Send + Sync {
    /// Ends what it waits for; it may still say why.
    fn cancel(&self);
    fn close(&self);
}

impl<C: Context> Interrupt for Stream<(), C> {
    fn cancel(&self) {
        self.cancel_all();
    }

    fn close(&self) {
        Stream::close(self);
    }
}

/// What a connection is waiting for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// The first byte of a request after another: whoever waits so is closed without a word, and at once when the
    /// server ends.
    Request = 0,
    /// The rest of a request's head: 408.
    Head = 1,
    /// Anything else: closed.
    Other = 2,
    /// The first byte of a connection's first request: as for a later one, but not at once when the server ends, for it
    /// may be on its way.
    First = 3,
}

/// So long a mark may stand: on a busy machine its packet may wait for several looks, and the client is to be told 408.
const MARKED_MS_MAX: u64 = 1000;

/// Time is over.
const OVER: u64 = u64::MAX;

/// A connection's deadline, in milliseconds, and what it waits for.
#[derive(Debug)]
pub struct Deadline(AtomicU64);

impl Deadline {
    /// False: the last one is over. Then nothing may be waited for any more.
    pub fn set(&self, at: u64, wait: Wait) -> bool {
        let next = at << 2 | wait as u64;
        let last = self.0.load(Acquire);
        last != OVER && self.0.compare_exchange(last, next, AcqRel, Acquire).is_ok()
    }

    /// Takes the mark away, to say something about it until `at`; whether there was one.
    pub fn take_over(&self, at: u64) -> bool {
        self.0.compare_exchange(OVER, at << 2 | Wait::Other as u64, AcqRel, Acquire).is_ok()
    }
}

#[derive(Debug)]
struct Entry {
    deadline: Arc<Deadline>,
    stream: Arc<dyn Interrupt>,
    /// When it was marked last.
    marked: u64,
}

/// All connections.
#[derive(Debug, Default)]
pub struct Deadlines {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    slots: Vec<Option<Entry>>,
    free: Vec<usize>,
}

/// Where a connection is in the list.
#[derive(Debug)]
pub struct Slot(usize);

impl Deadlines {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn add(&self, stream: Arc<dyn Interrupt>, at: u64) -> (Slot, Arc<Deadline>) {
        let deadline = Arc::new(Deadline(AtomicU64::new(at << 2 | Wait::First as u64)));
        let entry = Some(Entry { deadline: deadline.clone(), stream, marked: 0 });
        let mut entries = self.lock();
        let slot = match entries.free.pop() {
            Some(slot) => {
                entries.slots[slot] = entry;
                slot
            }
            None => {
                entries.slots.push(entry);
                entries.slots.len() - 1
            }
        };
        (Slot(slot), deadline)
    }

    /// The list's handle of the stream goes; outside of the lock, because it may be the last.
    pub fn remove(&self, slot: &Slot) {
        let entry = {
            let mut entries = self.lock();
            entries.free.push(slot.0);
            entries.slots[slot.0].take()
        };
        drop(entry);
    }

    /// Ends what is over at `now`. When the server is `ending`, also whoever waits for a request after another, and
    /// whoever waits for its first and has no time beyond the given one.
    pub fn sweep(&self, now: u64, ending: Option<u64>) {
        let (mut cancelled, mut closed) = (Vec::new(), Vec::new());
        for entry in self.lock().slots.iter_mut().flatten() {
            let word = entry.deadline.0.load(Acquire);
            if word == OVER {
                if now.saturating_sub(entry.marked) >= MARKED_MS_MAX {
                    closed.push(entry.stream.clone());
                }
                continue;
            }
            let (at, wait) = (word >> 2, word & 3);
            let idle = ending.is_some_and(|first_until| {
                wait == Wait::Request as u64 || wait == Wait::First as u64 && at <= first_until
            });
            if at > now && !idle {
                continue;
            }
            if entry.deadline.0.compare_exchange(word, OVER, AcqRel, Acquire).is_err() {
                continue;
            }
            entry.marked = now;
            // Who is to be told why must not be closed; the operation alone ends.
            let list = if wait == Wait::Head as u64 { &mut cancelled } else { &mut closed };
            list.push(entry.stream.clone());
        }
        cancelled.iter().for_each(|stream| stream.cancel());
        closed.iter().for_each(|stream| stream.close());
    }
}
