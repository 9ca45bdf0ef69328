//! Room in an outbox, and in the service's memory, for a message; and what is done where there is none.

use crate::closed::Closed;
use crate::coalesce;
use crate::conn::{Conn, Sending};
use crate::lock::Guard;
use crate::memory::Charge;
use crate::outbox::{SendErrorReason, SlowConsumer};
use crate::service::Inner;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why a message is not put into an outbox.
pub(super) enum NoRoom {
    Refused(SendErrorReason),
    /// It was dropped itself, as the oldest that has not begun; and so many messages were in all.
    Dropped(u64),
}

impl Conn {
    /// Room for a message of this cost, counted in the service's memory: by what counts it for all, if it is shared.
    pub(super) fn reserve<'a>(
        self: &'a Arc<Self>,
        service: &Arc<Inner>,
        mut sending: Guard<'a, Sending>,
        cost: usize,
        mut shared: Option<&mut Option<Arc<Charge>>>,
    ) -> Result<Guard<'a, Sending>, NoRoom> {
        // Each turn that does not end here has made room, or waited for it.
        loop {
            if !sending.accepts() {
                return Err(NoRoom::Refused(sending.refusal()));
            }
            let here = self.has_room(&sending, cost, service.options.outbox_bytes);
            if here && self.is_counted(service, cost, shared.as_deref_mut()) {
                return Ok(sending);
            }
            // What could have gone out already is nobody's slowness.
            if sending.left {
                sending = self.send_waiting(sending);
                continue;
            }
            if here {
                drop(sending);
                let left = coalesce::send_all();
                sending = self.lock();
                if left {
                    continue;
                }
            }
            sending = match service.options.slow_consumer {
                SlowConsumer::Disconnect => {
                    drop(sending);
                    self.end_for_room(service, cost, here)?;
                    self.lock()
                }
                SlowConsumer::DropOldest => self.drop_for_room(service, sending, cost, here)?,
                SlowConsumer::Wait => {
                    drop(sending);
                    self.wait_or_end(service, cost, here)?
                }
            };
        }
    }

    /// Whether the service's memory has room for it, which it takes.
    fn is_counted(&self, service: &Arc<Inner>, cost: usize, shared: Option<&mut Option<Arc<Charge>>>) -> bool {
        match shared.filter(|_| self.limited) {
            Some(Some(charge)) if charge.is_of(service) => true,
            Some(charge) => {
                *charge = Charge::reserve(service, cost);
                charge.is_some()
            }
            None => service.memory.reserve(cost),
        }
    }

    /// Ends the session that is slow: this one, if its outbox is full, else, `here`, the one that holds most memory.
    fn end_for_room(self: &Arc<Self>, service: &Arc<Inner>, cost: usize, here: bool) -> Result<(), NoRoom> {
        if !here {
            self.end(Closed::SlowConsumer);
            return Err(NoRoom::Refused(SendErrorReason::SlowConsumer));
        }
        if !service.end_largest(Some((self, cost))) {
            return Err(NoRoom::Refused(SendErrorReason::MemoryLimit));
        }
        Ok(())
    }

    /// Drops the oldest messages, of this session or, `here`, of the one that holds most.
    fn drop_for_room<'a>(
        self: &'a Arc<Self>,
        service: &Arc<Inner>,
        mut sending: Guard<'a, Sending>,
        cost: usize,
        here: bool,
    ) -> Result<Guard<'a, Sending>, NoRoom> {
        if here {
            drop(sending);
            let dropped = service.drop_oldest(self, cost);
            sending = self.lock();
            if dropped {
                return Ok(sending);
            }
        } else {
            let limit = service.options.outbox_bytes + self.taken_of_flight(&sending);
            sending.outbox.drop_oldest(cost, limit);
            self.account(&mut sending);
            if sending.outbox.has_room(cost, limit) {
                return Ok(sending);
            }
        }
        // All of it is on its way: the newest is the oldest that has not begun.
        sending.outbox.dropped += 1;
        Err(NoRoom::Dropped(sending.outbox.dropped))
    }

    /// Waits until there may be room. A sender that may not wait ends a session instead.
    fn wait_or_end<'a>(
        self: &'a Arc<Self>,
        service: &Arc<Inner>,
        cost: usize,
        here: bool,
    ) -> Result<Guard<'a, Sending>, NoRoom> {
        let Some(_waiting) = service.may_wait() else {
            self.end_for_room(service, cost, here)?;
            return Ok(self.lock());
        };
        Ok(wharf::blocking(|| self.wait_for_room(service, cost, service.options.outbox_bytes)))
    }

    /// Whether a message fits. What the system has taken of a long send does not count: its peer reads, though the send
    /// is not complete.
    fn has_room(&self, sending: &Sending, cost: usize, limit: usize) -> bool {
        sending.outbox.has_room(cost, limit) || sending.outbox.has_room(cost, limit + self.taken_of_flight(sending))
    }

    /// Bytes that the system has taken of the send under way.
    pub(super) fn taken_of_flight(&self, sending: &Sending) -> usize {
        match &sending.stream {
            Some(stream) if sending.busy && sending.sealing == 0 => {
                let given = self.given.load(Ordering::Relaxed);
                sending.outbox.taken_bytes(given.saturating_sub(stream.bytes_taken()))
            }
            _ => 0,
        }
    }

    /// Waits until a message may fit, or the session ends: the caller looks which. Not under any lock.
    fn wait_for_room(self: &Arc<Self>, service: &Arc<Inner>, cost: usize, limit: usize) -> Guard<'_, Sending> {
        let mut sending = self.lock();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        while sending.accepts() {
            self.settle(&mut sending);
            let for_memory = self.has_room(&sending, cost, limit);
            if for_memory {
                // In the list first, then the look: see `memory.rs`. One that is told for nothing enters the list
                // again. One that is in the list, or has just been taken out of it, is told when it waits.
                let memory = &service.memory;
                if memory.fits(cost) {
                    break;
                }
                let enters = !std::mem::replace(&mut sending.listed, true);
                if enters && memory.enlist_sender(self, cost) {
                    break;
                }
                service.look_at_memory();
            }
            sending.starved += u32::from(for_memory);
            sending = self.room.wait(sending);
            sending.starved -= u32::from(for_memory);
        }
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        sending
    }

    /// Memory was freed, and its senders look whether it is enough.
    pub(super) fn have_senders_look(&self) {
        // The lock was held: a sender entered the list under it, so by now it waits on the condition.
        self.lock().listed = false;
        self.made_room();
    }

    /// Whether a sender waits for memory. One that does not is not in the list any more.
    pub(super) fn has_starved_senders(&self) -> bool {
        let mut sending = self.lock();
        sending.listed &= sending.starved > 0;
        sending.listed
    }

    /// Something changed, under the lock, that a waiting sender may wait for. It counted itself under the same lock.
    pub(super) fn made_room(&self) {
        if self.waiting.load(Ordering::Relaxed) > 0 {
            self.room.notify_all();
        }
    }

    /// Drops the oldest messages that have not begun to go out, for so many bytes; returns how many were dropped.
    pub(super) fn drop_oldest(&self, bytes: usize) -> usize {
        let mut sending = self.lock();
        let (pieces, dropped) = sending.outbox.drop_bytes(bytes);
        self.account(&mut sending);
        drop(sending);
        drop(pieces);
        dropped
    }
}
