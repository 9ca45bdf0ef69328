//! What the safe layer hangs on an operation: the context, the device and the buffers, in a box whose address is the
//! operation's token. Exactly one packet comes for it, so exactly one side takes the box back.

use crate::associate::Shared;
use crate::buffer::Buffer;
use crate::net::FileMessage;
use std::sync::Arc;

pub(crate) enum Memory {
    None,
    One(Buffer),
    Many(Vec<Buffer>),
    File(Box<FileMessage>),
}

impl Memory {
    pub(crate) fn into_one(self) -> Buffer {
        match self {
            Memory::One(buffer) => buffer,
            Memory::None => Buffer::default(),
            Memory::Many(_) | Memory::File(_) => unreachable!("a vectored operation gives its buffers back together"),
        }
    }
}

/// Aligned to 2 at least, so that the lowest bit of its address is free to tell it from a [`RepeatRecord`].
#[repr(align(8))]
pub(crate) struct Record<K, C> {
    context: C,
    from: From<K, C>,
    memory: Memory,
}

enum From<K, C> {
    Device(Arc<Shared<K, C>>),
    Key(K),
}

impl<K: Clone, C> Record<K, C> {
    pub(crate) fn new(context: C, device: Arc<Shared<K, C>>, memory: Memory) -> Box<Record<K, C>> {
        Box::new(Record { context, from: From::Device(device), memory })
    }

    pub(crate) fn without_device(key: K, context: C) -> Box<Record<K, C>> {
        Box::new(Record { context, from: From::Key(key), memory: Memory::None })
    }

    /// The buffers, to name them to the raw layer. The record does not move any more.
    pub(crate) fn memory(&mut self) -> &mut Memory {
        &mut self.memory
    }

    pub(crate) fn into_token(self: Box<Self>) -> usize {
        Box::into_raw(self).expose_provenance()
    }

    /// Takes the record back: from the one completion that carried the token, or from a call that was refused.
    #[allow(unsafe_code)]
    pub(crate) fn from_token(token: usize) -> Box<Record<K, C>> {
        debug_assert!(token & 1 == 0 && token != 0);
        // SAFETY: tokens of the safe layer's operations are made by `into_token` with the port's own K and C, and the
        // raw layer delivers each exactly once (or returns an error and delivers none), so the box is ours.
        unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut(token)) }
    }

    pub(crate) fn key(&self) -> K {
        match &self.from {
            From::Device(device) => device.key.clone(),
            From::Key(key) => key.clone(),
        }
    }

    pub(crate) fn into_parts(self) -> (C, Option<Arc<Shared<K, C>>>, Memory) {
        let device = match self.from {
            From::Device(device) => Some(device),
            From::Key(_) => None,
        };
        (self.context, device, self.memory)
    }

    pub(crate) fn refused_without_device(token: usize) -> (K, C) {
        let record = Self::from_token(token);
        let key = record.key();
        (key, record.into_parts().0)
    }
}

/// The record of a timer or signal that delivers several packets: counted, because one packet may still be on its way
/// to a handler while the last one is delivered. Its token is told by the lowest bit.
#[repr(align(8))]
pub(crate) struct RepeatRecord<K, C> {
    key: K,
    context: C,
    clone: fn(&C) -> C,
}

impl<K: Clone, C> RepeatRecord<K, C> {
    pub(crate) fn new(key: K, context: C) -> Arc<Self>
    where
        C: Clone + Sync,
    {
        Arc::new(RepeatRecord { key, context, clone: C::clone })
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
        (record.key.clone(), (record.clone)(&record.context))
    }
}
