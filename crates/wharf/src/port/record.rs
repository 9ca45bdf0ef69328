//! What the safe layer hangs on an operation, and gets back with its one packet.
//!
//! The operation of a device holds a handle of it: the device's key in the raw layer is the handle's address. Its token
//! is the context, as a word, or, where the operation has memory of its own, the address of a [`Record`] with both.
//! A timer has no device: its token is the address of a [`TimerRecord`], or of a counted [`RepeatRecord`].

use crate::op::buffer::Buffer;
use crate::port::branch::Link;
use crate::port::net::FileMessage;
use crate::port::spare;
use std::sync::Arc;

pub(crate) enum Memory {
    None,
    One(Buffer),
    Many(Vec<Buffer>),
    File(Box<FileMessage>),
}

impl Memory {
    #[inline]
    pub(crate) fn into_one(self) -> Buffer {
        match self {
            Memory::One(buffer) => buffer,
            Memory::None => Buffer::default(),
            Memory::Many(_) | Memory::File(_) => unreachable!("a vectored operation gives its buffers back together"),
        }
    }
}

/// The context and the memory of an operation.
pub(crate) struct Record<C> {
    context: C,
    memory: Memory,
}

impl<C> Record<C> {
    pub(crate) fn new(context: C, memory: Memory) -> Box<Record<C>> {
        spare::boxed(Record { context, memory })
    }

    /// The memory, to name it to the raw layer. The record does not move any more.
    pub(crate) fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    pub(crate) fn into_token(self: Box<Self>) -> usize {
        Box::into_raw(self).expose_provenance()
    }

    /// Takes the record back: from the one completion that carried the token, or from a call that was refused.
    #[allow(unsafe_code)]
    pub(crate) fn from_token(token: usize) -> (C, Memory) {
        // SAFETY: tokens of the safe layer's operations with memory are made by `into_token` with the port's own C, and
        // the raw layer delivers each exactly once (or returns an error and delivers none), so the box is ours.
        let record = unsafe { Box::<Self>::from_raw(std::ptr::with_exposed_provenance_mut(token)) };
        let Record { context, memory } = spare::unboxed(record);
        (context, memory)
    }
}

/// The record of a timer that delivers one packet, or of a branch's post. Aligned, so that the lowest bit of its
/// address is free to tell it from a [`RepeatRecord`]. It begins with the link, which `branch.rs` looks at.
#[repr(C, align(8))]
pub(crate) struct TimerRecord<K, C> {
    _link: Link<K, C>,
    key: K,
    context: C,
}

impl<K, C> TimerRecord<K, C> {
    pub(crate) fn into_token(link: Link<K, C>, key: K, context: C) -> usize {
        Box::into_raw(Box::new(TimerRecord { _link: link, key, context })).expose_provenance()
    }

    /// As [`Record::from_token`].
    #[allow(unsafe_code)]
    pub(crate) fn from_token(token: usize) -> (K, C) {
        debug_assert!(token & 1 == 0 && token != 0);
        // SAFETY: as in `Record::from_token`, for timers that `into_token` made the token of.
        let record = *unsafe { Box::<Self>::from_raw(std::ptr::with_exposed_provenance_mut(token)) };
        (record.key, record.context)
    }
}

/// The record of a timer or signal that delivers several packets: counted, because one packet may still be on its way
/// to a handler while the last one is delivered. Its token is told by the lowest bit. It begins with the link, which
/// `branch.rs` looks at.
#[repr(C, align(8))]
pub(crate) struct RepeatRecord<K, C> {
    _link: Link<K, C>,
    key: K,
    context: C,
    clone: fn(&C) -> C,
}

impl<K: Clone, C> RepeatRecord<K, C> {
    pub(crate) fn new(link: Link<K, C>, key: K, context: C) -> Arc<Self>
    where
        C: Clone + Sync,
    {
        Arc::new(RepeatRecord { _link: link, key, context, clone: C::clone })
    }

    pub(crate) fn into_token(self: Arc<Self>) -> usize {
        Arc::into_raw(self).expose_provenance() | 1
    }

    pub(crate) fn is_token(token: usize) -> bool {
        token & 1 == 1
    }

    fn pointer(token: usize) -> *const Self {
        std::ptr::with_exposed_provenance(token & !1)
    }

    /// One more packet will carry the token.
    #[allow(unsafe_code)]
    pub(crate) fn retain(token: usize) {
        // SAFETY: the operation still holds the count that `into_token` leaked, so the record is alive.
        unsafe { Arc::increment_strong_count(Self::pointer(token)) };
    }

    #[allow(unsafe_code)]
    pub(crate) fn release(token: usize) {
        // SAFETY: called once for each count: for a packet that was taken, or for an operation that was refused.
        drop(unsafe { Arc::from_raw(Self::pointer(token)) });
    }

    /// Key and context for one packet, whose count is given back.
    #[allow(unsafe_code)]
    pub(crate) fn take(token: usize) -> (K, C) {
        // SAFETY: each packet carries one count (`retain`), the last one the operation's own.
        let record = unsafe { Arc::from_raw(Self::pointer(token)) };
        match Arc::try_unwrap(record) {
            Ok(last) => (last.key, last.context),
            Err(record) => (record.key.clone(), (record.clone)(&record.context)),
        }
    }
}
