//! What a group says to all its members, written once: messages one behind the other, at the ends of many outboxes.
//!
//! A shared log *grows* while one thread goes on saying something to the same members. Whatever else is done with one
//! of their outboxes, a send from elsewhere, a close, a send to the system, *cuts* it first: then it is finished, for
//! all of them, and who wants to say more begins another. So a message is on a shared log before whatever comes after
//! it in any outbox, and what was said has been accepted by exactly those that have the shared log. Saying a line costs
//! one lock and one copy, however many members there are.
//!
//! Its lock is taken under the locks of sessions, and nothing else is taken under it.

use crate::lock::{Guard, Lock};
use crate::memory::Charge;
use std::sync::{Arc, OnceLock};
use wharf::Buffer;

#[derive(Debug)]
pub(super) struct SharedLog {
    /// Bytes that it may hold.
    room: usize,
    /// Counts it where memory has a limit: as large as it may become, and then as it is.
    charge: Option<Arc<Charge>>,
    growing: Lock<Growing>,
    text: OnceLock<Text>,
}

#[derive(Debug, Default)]
struct Growing {
    bytes: Vec<u8>,
    /// Where each message ends.
    ends: Vec<usize>,
    is_cut: bool,
}

/// What is on a shared log that grows no more.
#[derive(Debug)]
pub(super) struct Text {
    bytes: Arc<[u8]>,
    ends: Vec<usize>,
}

impl SharedLog {
    pub(super) fn new(room: usize, charge: Option<Arc<Charge>>) -> SharedLog {
        SharedLog { room, charge, growing: Lock::default(), text: OnceLock::new() }
    }

    fn lock(&self) -> Guard<'_, Growing> {
        self.growing.lock()
    }

    pub(super) fn charge(&self) -> Option<&Arc<Charge>> {
        self.charge.as_ref()
    }

    pub(super) fn room(&self) -> usize {
        self.room
    }

    /// Puts a message on it. False when it was cut, or has no room.
    pub(super) fn say(&self, message: &[u8]) -> bool {
        let mut growing = self.lock();
        if growing.is_cut || growing.bytes.len() + message.len() > self.room {
            return false;
        }
        growing.bytes.extend_from_slice(message);
        let end = growing.bytes.len();
        growing.ends.push(end);
        true
    }

    /// Bytes that are on it.
    pub(super) fn bytes(&self) -> usize {
        match self.text.get() {
            Some(text) => text.bytes.len(),
            None => self.lock().bytes.len(),
        }
    }

    /// Whether more can be said on it.
    pub(super) fn is_cut(&self) -> bool {
        self.text.get().is_some()
    }

    /// Nothing more is said on it. Any number of times, by anybody.
    pub(super) fn cut(&self) -> &Text {
        self.text.get_or_init(|| {
            let mut growing = self.lock();
            growing.is_cut = true;
            let (bytes, ends) = (std::mem::take(&mut growing.bytes), std::mem::take(&mut growing.ends));
            drop(growing);
            if let Some(charge) = &self.charge {
                charge.shrink_to(bytes.len());
            }
            Text { bytes: bytes.into(), ends }
        })
    }
}

impl Text {
    pub(super) fn messages(&self) -> usize {
        self.ends.len()
    }

    fn begin_of(&self, message: usize) -> usize {
        if message == 0 { 0 } else { self.ends[message - 1] }
    }

    /// Bytes behind the first so many messages.
    pub(super) fn bytes_after(&self, messages: usize) -> usize {
        self.bytes.len() - self.begin_of(messages)
    }

    /// What is behind the first so many messages: shared, if that is all.
    pub(super) fn after(&self, messages: usize) -> Buffer {
        match self.begin_of(messages) {
            0 => self.bytes.clone().into(),
            from => self.bytes[from..].to_vec().into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_log_takes_what_fits_until_it_is_cut() {
        let shared_log = SharedLog::new(7, None);
        assert!(shared_log.say(b"one") && shared_log.say(b"two"));
        assert!(!shared_log.say(b"xx"), "8 bytes do not fit into 7");
        assert!(shared_log.say(b"x"));
        assert_eq!(shared_log.bytes(), 7);
        assert_eq!((shared_log.cut().messages(), shared_log.cut().bytes_after(1)), (3, 4));
        assert!(!shared_log.say(b""));
        assert_eq!(&shared_log.cut().after(2)[..], b"x");
        assert_eq!(&shared_log.cut().after(0)[..], b"onetwox");
    }

    #[test]
    fn no_message_is_said_on_a_shared_log_that_another_thread_has_cut() {
        for _ in 0..200 {
            let shared_log = Arc::new(SharedLog::new(1 << 20, None));
            let other = shared_log.clone();
            let cutter = std::thread::spawn(move || other.cut().messages());
            let said = (0..1000).take_while(|_| shared_log.say(b"x")).count();
            let seen = cutter.join().unwrap();
            assert!(seen == said || (said == 1000 && seen <= said), "{seen} of {said} messages were seen");
            assert_eq!(shared_log.cut().messages(), said);
        }
    }
}
