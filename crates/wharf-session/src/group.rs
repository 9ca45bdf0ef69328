//! Groups: one message to many sessions, sharing one copy of its bytes.

use crate::ById;
use crate::coalesce::{self, GroupWrite};
use crate::link::Link;
use crate::lock::{Guard, Lock};
use crate::memory::Charge;
use crate::shared_log::SharedLog;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use wharf::{Buffer, Home};

/// A message that fills more of a shared log than the part of so many goes to each member by itself.
const LOG_MESSAGES_LEAST: usize = 4;

/// A set of sessions that receive the same messages. Clones name the same group.
///
/// A session that ends leaves its groups by itself. In a forked child a group has no members, and takes none.
#[derive(Clone, Debug, Default)]
pub struct Group {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    /// A forked child leaves the group alone: a thread of the parent's may have held its lock.
    home: Home,
    members: Lock<Members>,
    broadcasts: AtomicU64,
    accepted: AtomicU64,
    bytes: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
}

impl Default for Inner {
    fn default() -> Self {
        Inner {
            home: Home::here(),
            members: Lock::default(),
            broadcasts: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

/// A group's figures. Totals count since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GroupStats {
    /// Members that there are.
    pub members: usize,
    /// Messages that were broadcast.
    pub broadcasts: u64,
    /// Deliveries that a member accepted: at most the broadcasts times the members then. A message that was accepted
    /// may have been dropped in the same call, see there.
    pub accepted: u64,
    /// Bytes of the deliveries that were accepted, each counted for each member.
    pub bytes: u64,
    /// Deliveries that a member did not accept: it was closed, or has ended for not reading.
    pub refused: u64,
    /// Messages of slow members that were dropped for one of the group's, or were that one themselves
    /// ([`SlowConsumer::DropOldest`](crate::SlowConsumer::DropOldest)).
    pub dropped: u64,
}

#[derive(Debug, Default)]
struct Members {
    by_id: ById<Link>,
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
        if !self.is_home() {
            return;
        }
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
        if !self.is_home() {
            return;
        }
        self.inner.leave(link.id());
        link.forget_group(&Arc::downgrade(&self.inner));
    }

    /// Sends a message to every member; returns how many have accepted it.
    ///
    /// The bytes are copied once and shared. They leave [at once](crate#when-a-send-leaves), or with those of other
    /// frames that came in the same receive. A member whose outbox is full is treated as its service's
    /// [`SlowConsumer`](crate::SlowConsumer) policy says.
    pub fn broadcast(&self, message: &[u8]) -> usize {
        self.deliver(message, None)
    }

    /// Like [`broadcast`](Group::broadcast), to every member but one.
    pub fn broadcast_except(&self, message: &[u8], except: &Link) -> usize {
        self.deliver(message, Some(except.id()))
    }

    fn deliver(&self, message: &[u8], except: Option<u64>) -> usize {
        if !self.is_home() {
            return 0;
        }
        let members = self.inner.list();
        let Told { accepted, refused, dropped } = match self.coalesced(&members, message, except) {
            Some(told) => told,
            None => tell(members.iter().filter(|link| Some(link.id()) != except), message),
        };
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

    /// Says it on a shared log for all members, if the thread coalesces what it sends: see `coalesce.rs`.
    fn coalesced(&self, members: &Arc<[Link]>, message: &[u8], except: Option<u64>) -> Option<Told> {
        // Without members a list is no evidence of the group; an empty message would not be counted.
        if !coalesce::is_on() || members.is_empty() || message.is_empty() {
            return None;
        }
        coalesce::with_group_write(|group_write| {
            if let Some(known) = group_write.as_ref().filter(|known| known.is_to(members, except)) {
                if known.shared_log.say(message) {
                    let mut told = tell(known.others.iter(), message);
                    told.accepted += known.hear;
                    return Some(told);
                }
                if !known.shared_log.is_cut() {
                    // Full, and so is each outbox's share.
                    coalesce::send();
                }
            }
            *group_write = None;
            let new = GroupWrite::begin(members, except, message)?;
            let mut told = tell(new.others.iter(), message);
            told.accepted += new.hear;
            *group_write = Some(new);
            Some(told)
        })
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
        if self.is_home() { self.inner.lock().by_id.len() } else { 0 }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The members at this moment.
    pub fn members(&self) -> Arc<[Link]> {
        if self.is_home() { self.inner.list() } else { Arc::default() }
    }

    fn is_home(&self) -> bool {
        self.inner.home.is_here()
    }
}

/// What became of a message.
#[derive(Default)]
struct Told {
    accepted: u64,
    refused: u64,
    dropped: u64,
}

/// Sends to each by itself.
fn tell<'a>(receivers: impl Iterator<Item = &'a Link>, message: &[u8]) -> Told {
    let mut told = Told::default();
    let mut shared: Option<Arc<[u8]>> = None;
    let mut charge = None;
    for link in receivers {
        let shared = shared.get_or_insert_with(|| Arc::from(message)).clone();
        match link.offer(Buffer::from(shared), Some(&mut charge)) {
            Ok(others) => {
                told.accepted += 1;
                told.dropped += others;
            }
            Err(_) => told.refused += 1,
        }
    }
    told
}

impl GroupWrite {
    fn is_to(&self, members: &Arc<[Link]>, except: Option<u64>) -> bool {
        Arc::ptr_eq(&self.members, members) && self.except == except
    }

    /// A shared log with a first message, at the ends of all outboxes that can take it. `None`: none can.
    fn begin(members: &Arc<[Link]>, except: Option<u64>, message: &[u8]) -> Option<GroupWrite> {
        let room = members.iter().find_map(Link::log_bytes)?;
        if message.len() > room / LOG_MESSAGES_LEAST {
            return None;
        }
        let charge = match members.iter().find_map(|link| link.0.service.upgrade()) {
            Some(service) if service.memory.is_limited() => Some(Charge::reserve(&service, room)?),
            _ => None,
        };
        let shared_log = Arc::new(SharedLog::new(room, charge));
        // Before anybody has it, and can cut it.
        let said = shared_log.say(message);
        debug_assert!(said, "an empty shared_log has room for a message that is smaller");
        let mut others = Vec::new();
        let mut hear = 0;
        for link in members.iter().filter(|link| Some(link.id()) != except) {
            if link.hear(&shared_log) {
                hear += 1;
            } else {
                others.push(link.clone());
            }
        }
        Some(GroupWrite { shared_log, members: members.clone(), except, hear, others })
    }
}

impl Inner {
    fn lock(&self) -> Guard<'_, Members> {
        self.members.lock()
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
