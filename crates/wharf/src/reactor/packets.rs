//! Packets in and out: posts, and what a thread takes.

use super::{Completion, Entry, Port, Post, Rest};
use crate::threads::{Deadline, GetError, Taken};
use std::hint::black_box;
use std::time::Duration;

impl Port {
    #[inline]
    pub(crate) fn post(&self, post: Post) -> Result<(), Post> {
        // Loaded as words: two that the caller has just stored are else loaded as a pair, which the processor cannot
        // forward from two stores, and a post takes twice as long.
        let (key, token, bytes) = (black_box(post.key), black_box(post.token), black_box(post.bytes));
        let taken = self.is_home() && self.queue.insert_with(move || Entry::Post(Post { key, token, bytes }));
        if taken { Ok(()) } else { Err(Post { key, token, bytes }) }
    }

    /// Queues a finished packet of the caller's own.
    pub(crate) fn post_packet(&self, completion: Box<Completion>) -> Result<(), Box<Completion>> {
        if !self.is_home() {
            return Err(completion);
        }
        match self.queue.try_insert(Entry::Packet(completion), usize::MAX) {
            Err((Entry::Packet(completion), _)) => Err(completion),
            _ => Ok(()),
        }
    }

    pub(crate) fn try_post(&self, post: Post, limit: usize) -> Result<(), (Post, bool)> {
        if !self.is_home() {
            return Err((post, true));
        }
        self.queue.try_insert(Entry::Post(post), limit).map_err(|(_, closed)| (post, closed))
    }

    /// The common case: the calling worker comes back, and something is there for it.
    #[inline]
    pub(crate) fn take_again(&self) -> Option<Entry> {
        if self.is_home() { self.queue.take_again() } else { None }
    }

    /// [`take_again`](Port::take_again) by a worker that has just [bound](crate::threads::bind) itself, at home.
    #[inline]
    pub(crate) fn take_again_as(&self, me: crate::threads::WorkerId) -> Option<Entry> {
        self.queue.take_again_as(me)
    }

    pub(crate) fn get(&self, timeout: Option<Duration>) -> Result<Completion, GetError> {
        self.get_until(Deadline::after(timeout))
    }

    pub(crate) fn get_until(&self, deadline: Deadline) -> Result<Completion, GetError> {
        loop {
            if !self.is_home() {
                return Err(GetError::Forked);
            }
            match self.queue.get(deadline)? {
                Taken::Entry(entry) => {
                    if let Some(completion) = self.execute(entry) {
                        return Ok(completion);
                    }
                }
                Taken::EngineWork(entry) => self.do_work(entry),
            }
        }
    }

    /// Waits for a packet, and takes up to `most` entries that are there then; of none is refused (row D-46).
    pub(crate) fn get_many(&self, most: usize, deadline: Deadline) -> Result<(Completion, Rest<Entry>), GetError> {
        loop {
            if !self.is_home() {
                return Err(GetError::Forked);
            }
            if most == 0 {
                return Err(GetError::NoRoom);
            }
            let (taken, rest) = self.queue.get_many(deadline, most)?;
            match taken {
                Taken::EngineWork(entry) => self.do_work(entry),
                Taken::Entry(entry) => {
                    let first = self.execute(entry).or_else(|| self.next_of(&rest));
                    if let Some(first) = first {
                        return Ok((first, rest));
                    }
                }
            }
        }
    }

    /// The next packet of a batch: operations are executed as the worker comes to them.
    pub(crate) fn next_of(&self, rest: &Rest<Entry>) -> Option<Completion> {
        while let Some(entry) = rest.next() {
            if let Some(completion) = self.execute(entry) {
                return Some(completion);
            }
        }
        None
    }
}
