//! Groups: one message to many sessions, sharing one copy of its bytes.

use super::conn::Link;
use crate::buffer::Buffer;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// A set of sessions that receive the same messages. Clones name the same group.
///
/// A session that ends leaves its groups by itself.
#[derive(Clone, Debug, Default)]
pub struct Group {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
pub(super) struct Inner {
    members: Mutex<Members>,
    broadcasts: AtomicU64,
    accepted: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
}

/// A group's figures. Totals count since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Members that there are.
    pub members: usize,
    /// Messages that were broadcast.
    pub broadcasts: u64,
    /// Deliveries that a member accepted: at most the broadcasts times the members then. A message that was accepted may
    /// have been dropped in the same call, see there.
    pub accepted: u64,
    /// Bytes of the deliveries that were accepted, each counted for each member.
    pub bytes: u64,
    /// Deliveries that a member did not accept: it was closed, or has ended for not reading.
    pub refused: u64,
    /// Messages of slow members that were dropped for one of the group's, or were that one themselves
    /// ([`SlowConsumer::DropOldest`](super::SlowConsumer::DropOldest)).
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Members {
    by_id: HashMap<u64, Link>,
    /// The members as a list, made when first needed after a change: broadcasting must not hold the lock while it
    /// sends, and copying the map for each message would cost more than the sends.
    list: Option<Arc<[Link]>>,
}

impl Group {
    /// A group without members.
    pub fn new() -> Group {
        Group::default()
    }

    /// Adds a session. Joining again does nothing; a session that has ended does not join.
    pub fn join(&self, link: &Link) {
        {
            let mut members = self.inner.lock();
            members.list = None;
            members.by_id.insert(link.id(), link.clone());
        }
        // In this order: a session that ends in between finds the group in its list, or is found ended here.
        if !link.note_group(Arc::downgrade(&self.inner)) {
            self.inner.leave(link.id());
        }
    }

    /// Removes a session.
    pub fn leave(&self, link: &Link) {
        self.inner.leave(link.id());
        link.forget_group(&Arc::downgrade(&self.inner));
    }

    /// Sends a message to every member; returns how many have accepted it.
    ///
    /// The bytes are copied once and shared. A member whose outbox is full is treated as its service's
    /// [`SlowConsumer`](super::SlowConsumer) policy says.
    pub fn broadcast(&self, message: &[u8]) -> usize {
        self.deliver(message, None)
    }

    /// Like [`broadcast`](Group::broadcast), to every member but one.
    pub fn broadcast_except(&self, message: &[u8], except: &Link) -> usize {
        self.deliver(message, Some(except.id()))
    }

    fn deliver(&self, message: &[u8], except: Option<u64>) -> usize {
        let members = self.inner.list();
        let shared: Arc<[u8]> = Arc::from(message);
        let receivers = members.iter().filter(|link| Some(link.id()) != except);
        let (mut accepted, mut refused, mut dropped) = (0, 0, 0);
        for link in receivers {
            match link.offer(Buffer::from(shared.clone())) {
                Ok(others) => {
                    accepted += 1;
                    dropped += others;
                }
                Err(_) => refused += 1,
            }
        }
        let inner = &self.inner;
        for (total, count) in [
            (&inner.broadcasts, 1),
            (&inner.accepted, accepted),
            (&inner.bytes, accepted * message.len() as u64),
            (&inner.refused, refused),
            (&inner.dropped, dropped),
        ] {
            if count > 0 {
                total.fetch_add(count, Ordering::Relaxed);
            }
        }
        usize::try_from(accepted).unwrap_or(usize::MAX)
    }

    /// The group's figures.
    pub fn stats(&self) -> GroupStats {
        let inner = &self.inner;
        GroupStats {
            members: self.len(),
            broadcasts: inner.broadcasts.load(Ordering::Relaxed),
            accepted: inner.accepted.load(Ordering::Relaxed),
            bytes: inner.bytes.load(Ordering::Relaxed),
            refused: inner.refused.load(Ordering::Relaxed),
            dropped: inner.dropped.load(Ordering::Relaxed),
        }
    }

    /// How many members there are.
    pub fn len(&self) -> usize {
        self.inner.lock().by_id.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members at this moment.
    pub fn members(&self) -> Arc<[Link]> {
        self.inner.list()
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Members> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn list(&self) -> Arc<[Link]> {
        let mut members = self.lock();
        let Members { by_id, list } = &mut *members;
        list.get_or_insert_with(|| by_id.values().cloned().collect()).clone()
    }

    pub(super) fn leave(&self, id: u64) {
        let left = {
            let mut members = self.lock();
            let list = members.list.take();
            (members.by_id.remove(&id), list)
        };
        // Links may be the last ones to their sessions: dropped outside the lock.
        drop(left);
    }
}

/// A session's note of a group it is in.
pub(super) type Membership = Weak<Inner>;
