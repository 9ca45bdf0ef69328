//! Packets in and out: posts, and what a thread takes.

use super::{Completion, Entry, Port, Post, Rest};
use crate::op::{RUNS_MAX, Ran};
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

    /// Queues a function that is called by whoever takes it.
    pub(crate) fn run(&self, call: fn(usize, Ran), context: usize) -> Result<(), usize> {
        let taken = self.is_home() && self.queue.insert_with(|| Entry::Run(call, context));
        if taken { Ok(()) } else { Err(context) }
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

    /// Waits for a packet; a [waker](Port::waker) ends the wait.
    pub(crate) fn get(&self, timeout: Option<Duration>) -> Result<Completion, GetError> {
        let deadline = Deadline::after(timeout);
        self.take_one(deadline, || self.queue.get_interruptibly(deadline))
    }

    /// Waits for a packet, whoever uses a waker.
    pub(crate) fn get_until(&self, deadline: Deadline) -> Result<Completion, GetError> {
        self.take_one(deadline, || self.queue.get(deadline).map(Some))
    }

    fn take_one(
        &self,
        deadline: Deadline,
        mut take: impl FnMut() -> Result<Option<Taken<Entry>>, GetError>,
    ) -> Result<Completion, GetError> {
        let mut ran = 0;
        loop {
            if !self.is_home() {
                return Err(GetError::Forked);
            }
            match take()? {
                None => return Err(GetError::Interrupted),
                Some(Taken::Entry(Entry::Run(call, context))) => {
                    call(context, Ran::Worker);
                    ran += 1;
                    if ran >= RUNS_MAX && deadline.has_passed() {
                        return Err(GetError::TimedOut);
                    }
                }
                Some(Taken::Entry(entry)) => {
                    if let Some(completion) = self.execute(entry) {
                        return Ok(completion);
                    }
                }
                Some(Taken::EngineWork(entry)) => self.do_work(entry),
            }
        }
    }

    /// Waits for a packet, and takes up to `most` entries that are there then; of none is refused (row D-46).
    pub(crate) fn get_many(&self, most: usize, deadline: Deadline) -> Result<(Completion, Rest<Entry>), GetError> {
        self.take_many(most, deadline, || self.queue.get_many(deadline, most).map(Some))
    }

    /// [`get_many`](Port::get_many), which a [waker](Port::waker) ends.
    pub(crate) fn get_many_interruptibly(
        &self,
        most: usize,
        deadline: Deadline,
    ) -> Result<(Completion, Rest<Entry>), GetError> {
        self.take_many(most, deadline, || self.queue.get_many_interruptibly(deadline, most))
    }

    fn take_many(
        &self,
        most: usize,
        deadline: Deadline,
        mut take: impl FnMut() -> Result<Option<(Taken<Entry>, Rest<Entry>)>, GetError>,
    ) -> Result<(Completion, Rest<Entry>), GetError> {
        let mut ran = 0;
        loop {
            if !self.is_home() {
                return Err(GetError::Forked);
            }
            if most == 0 {
                return Err(GetError::NoRoom);
            }
            let (taken, rest) = take()?.ok_or(GetError::Interrupted)?;
            match taken {
                Taken::EngineWork(entry) => self.do_work(entry),
                Taken::Entry(entry) => {
                    ran += usize::from(matches!(entry, Entry::Run(..)));
                    let first = self.execute(entry).or_else(|| self.next_of(&rest));
                    if let Some(first) = first {
                        return Ok((first, rest));
                    }
                    if ran >= RUNS_MAX && deadline.has_passed() {
                        return Err(GetError::TimedOut);
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
