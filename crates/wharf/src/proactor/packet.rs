//! What the port's packets are, how they go in and come out, and what becomes of those that nobody takes.

use super::direction::finished;
use super::port::Port;
use super::queue::{Queue, Rest, key};
use super::record::Pointer;
use crate::contain::contain;
use crate::op::{Completion, Delivery, Post, RUNS_MAX, Ran, Sink};
use crate::sys::calls::OVERLAPPED_ENTRY;
use crate::threads::{Deadline, GetError, Taken};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a packet is, once it was taken.
#[derive(Debug)]
pub(crate) enum Entry {
    Post(Post),
    /// Finished here, not by the kernel.
    Packet(Box<Completion>),
    /// A completion for a function.
    Call(fn(usize, Completion), usize, Box<Completion>),
    /// A function of the program's own, which is to be called with this number.
    Run(fn(usize, Ran), usize),
    /// A periodic timer whose time has come.
    Tick(u64),
    /// An operation that the kernel has ended, with so many bytes.
    Ended(Ended),
}

/// Owns the record again: it is to be [finished](Port::finished), once.
pub(crate) struct Ended(pub(super) Pointer, pub(super) usize);

impl std::fmt::Debug for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ended({} bytes)", self.1)
    }
}

/// Frees an entry that nobody will take.
pub(super) fn dispose(queue: &Queue, entry: Entry) {
    let dispose = queue.driver().dispose;
    match entry {
        Entry::Post(post) => contain(|| dispose(post.into())),
        Entry::Packet(completion) => contain(|| dispose(*completion)),
        // A function's completion is not the port's to free: it is told, as it would have been.
        Entry::Call(call, context, completion) => contain(|| call(context, *completion)),
        Entry::Run(call, context) => contain(|| call(context, Ran::Closed)),
        Entry::Tick(_) => {}
        Entry::Ended(ended) => {
            let ended = finished(queue, ended, true);
            ended.into_iter().for_each(|(sink, completion)| free(queue, sink, completion));
        }
    }
}

/// Frees a completion of a port that is closed, unless somebody is to be told of it.
pub(super) fn free(queue: &Queue, sink: Sink, completion: Completion) {
    match sink.send(completion) {
        None => {}
        Some(Delivery::Packet(completion)) => contain(|| (queue.driver().dispose)(completion)),
        Some(Delivery::Call(call, context, completion)) => contain(|| call(context, completion)),
    }
}

/// Queues an entry. A closed port frees it, as does one for which the kernel has no memory; that is said.
pub(super) fn post_entry(queue: &Queue, entry: Entry) {
    // Counted before the look: who drains a closed port waits until nobody is on the way.
    queue.driver().posting.fetch_add(1, Ordering::SeqCst);
    if queue.is_closed() {
        queue.driver().posting.fetch_sub(1, Ordering::SeqCst);
        return dispose(queue, entry);
    }
    let (bytes, key, token) = match entry {
        Entry::Post(post) => (0, key::POST, Box::into_raw(Box::new(post)).expose_provenance()),
        Entry::Packet(completion) => (0, key::PACKET, Box::into_raw(completion).expose_provenance()),
        Entry::Call(call, context, completion) => {
            (0, key::CALL, Box::into_raw(Box::new((call, context, completion))).expose_provenance())
        }
        Entry::Run(call, context) => (0, call as usize, context),
        // In two words, for an address may have half of its bits.
        Entry::Tick(serial) => ((serial >> 32) as u32, key::TICK, serial as u32 as usize),
        Entry::Ended(Ended(pointer, bytes)) => (bytes as u32, key::OPERATION, pointer.0.expose_provenance()),
    };
    let posted = queue.completions.post(bytes, key, token);
    queue.driver().posting.fetch_sub(1, Ordering::SeqCst);
    if !posted {
        log::error!("a packet is lost: {}", std::io::Error::last_os_error());
        let mut lost = OVERLAPPED_ENTRY::default();
        (lost.lpCompletionKey, lost.lpOverlapped, lost.dwNumberOfBytesTransferred) =
            (key, std::ptr::with_exposed_provenance_mut(token), bytes);
        dispose(queue, entry_of(&lost));
    }
}

/// What a packet is. Each packet is given here once: it owns what its address names.
#[allow(unsafe_code)]
pub(super) fn entry_of(packet: &OVERLAPPED_ENTRY) -> Entry {
    let token = packet.lpOverlapped.expose_provenance();
    // SAFETY: a key is used for addresses of one kind only: see `post_entry`. A packet is dequeued once, and what it
    // names was leaked for it.
    unsafe {
        match packet.lpCompletionKey {
            key::POST => Entry::Post(*Box::from_raw(std::ptr::with_exposed_provenance_mut::<Post>(token))),
            key::PACKET => Entry::Packet(Box::from_raw(std::ptr::with_exposed_provenance_mut(token))),
            key::CALL => {
                type Call = (fn(usize, Completion), usize, Box<Completion>);
                let (call, context, completion) = *Box::from_raw(std::ptr::with_exposed_provenance_mut::<Call>(token));
                Entry::Call(call, context, completion)
            }
            function @ key::FUNCTION.. => {
                let call = std::ptr::with_exposed_provenance::<()>(function);
                Entry::Run(std::mem::transmute::<*const (), fn(usize, Ran)>(call), token)
            }
            key::TICK => Entry::Tick(u64::from(packet.dwNumberOfBytesTransferred) << 32 | token as u64),
            _ => {
                let pointer = Pointer(packet.lpOverlapped.cast());
                Entry::Ended(Ended(pointer, packet.dwNumberOfBytesTransferred as usize))
            }
        }
    }
}

impl From<Delivery> for Entry {
    fn from(delivery: Delivery) -> Entry {
        match delivery {
            Delivery::Packet(completion) => Entry::Packet(Box::new(completion)),
            Delivery::Call(call, context, completion) => Entry::Call(call, context, Box::new(completion)),
        }
    }
}

impl Port {
    // --- Packets ---

    #[inline]
    pub(crate) fn post(&self, post: Post) -> Result<(), Post> {
        if self.queue.is_closed() {
            return Err(post);
        }
        post_entry(&self.queue, Entry::Post(post));
        Ok(())
    }

    /// Queues a finished packet of the caller's own.
    pub(crate) fn post_packet(&self, completion: Box<Completion>) -> Result<(), Box<Completion>> {
        if self.queue.is_closed() {
            return Err(completion);
        }
        post_entry(&self.queue, Entry::Packet(completion));
        Ok(())
    }

    pub(crate) fn try_post(&self, post: Post, limit: usize) -> Result<(), (Post, bool)> {
        if !self.queue.is_closed() && self.queue.stats().queued >= limit {
            return Err((post, false));
        }
        self.post(post).map_err(|post| (post, true))
    }

    /// The common case elsewhere: the calling worker comes back, and something is there for it. Here only the kernel
    /// knows.
    #[inline]
    pub(crate) fn take_again(&self) -> Option<Entry> {
        None
    }

    #[inline]
    pub(crate) fn take_again_as(&self, _me: crate::threads::WorkerId) -> Option<Entry> {
        None
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
            let Taken::Entry(entry) = take()?.ok_or(GetError::Interrupted)? else {
                unreachable!("there is no other work here")
            };
            ran += usize::from(matches!(entry, Entry::Run(..)));
            if let Some(completion) = self.execute(entry) {
                return Ok(completion);
            }
            if ran >= RUNS_MAX && deadline.has_passed() {
                return Err(GetError::TimedOut);
            }
        }
    }

    /// Queues a function that is called by whoever takes it.
    pub(crate) fn run(&self, call: fn(usize, Ran), context: usize) -> Result<(), usize> {
        if self.queue.is_closed() {
            return Err(context);
        }
        post_entry(&self.queue, Entry::Run(call, context));
        Ok(())
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
            if most == 0 {
                return Err(GetError::NoRoom);
            }
            let (taken, rest) = take()?.ok_or(GetError::Interrupted)?;
            let Taken::Entry(entry) = taken else { unreachable!("there is no other work here") };
            ran += usize::from(matches!(entry, Entry::Run(..)));
            if let Some(first) = self.execute(entry).or_else(|| self.next_of(&rest)) {
                return Ok((first, rest));
            }
            if ran >= RUNS_MAX && deadline.has_passed() {
                return Err(GetError::TimedOut);
            }
        }
    }

    /// The next packet of a batch.
    pub(crate) fn next_of(&self, rest: &Rest<Entry>) -> Option<Completion> {
        while let Some(entry) = rest.next() {
            if let Some(completion) = self.execute(entry) {
                return Some(completion);
            }
        }
        None
    }

    /// What an entry comes to. `None`: nothing for the program, take the next one.
    pub(crate) fn execute(&self, entry: Entry) -> Option<Completion> {
        if self.queue.is_closed() {
            dispose(&self.queue, entry);
            return None;
        }
        match entry {
            Entry::Post(post) => Some(post.into()),
            Entry::Packet(completion) => Some(*completion),
            // Serial numbers of signals are odd.
            Entry::Tick(serial) if serial % 2 == 1 => self.signal_taken(serial),
            Entry::Tick(serial) => self.tick_taken(serial),
            Entry::Run(call, context) => {
                call(context, Ran::Worker);
                None
            }
            Entry::Call(call, context, completion) => {
                call(context, *completion);
                None
            }
            Entry::Ended(ended) => {
                let mut ended = finished(&self.queue, ended, false).into_iter();
                let first = ended.next().and_then(|(sink, completion)| self.hand_out(sink, completion));
                ended.for_each(|(sink, completion)| self.deliver(sink, completion));
                first
            }
        }
    }

    pub(crate) fn do_work(&self, entry: Entry) {
        post_entry(&self.queue, entry);
    }

    pub(crate) fn deliver(&self, sink: Sink, completion: Completion) {
        if let Some(delivery) = sink.send(completion) {
            post_entry(&self.queue, delivery.into());
        }
    }

    /// Like [`deliver`](Port::deliver), but a packet for the queue is returned, and a function called: the caller is
    /// inside `get`.
    pub(super) fn hand_out(&self, sink: Sink, completion: Completion) -> Option<Completion> {
        match sink.send(completion)? {
            Delivery::Packet(completion) => Some(completion),
            Delivery::Call(call, context, completion) => {
                call(context, completion);
                None
            }
        }
    }
}
