//! A device: a socket, file or the like associated with a port, and the port's list of them. Its two sides are
//! [directions](crate::reactor::direction).
//!
//! **Closing.** 1. Both directions are marked closed, and their listed operations taken out, under their locks; from
//! then on issuing fails and an executing owner that finds nothing completes its operation as cancelled instead of
//! putting it back. 2. The engine forgets the handle. 3. The device leaves the table, so late events find nobody.
//! 4. For each direction that has an owner just now, the owner is made a *user* of the handle; none can come any more
//! that calls the system. 5. The open reference is given up; the last of {it, users} closes the handle. So no operation
//! remains, and the number is not reused while a system call on it is under way; and owning a direction is all that it
//! takes to call the system, without a count that every call would have to change.

use crate::error::Class;
use crate::op::DeviceKind;
use crate::op::PortNumber;
use crate::reactor::direction::{Direction, Side, Turn};
use crate::reactor::engine::{Engine, Handle, Readiness};
use crate::sync::Lock;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

/// How far a stream is.
pub(crate) mod phase {
    pub(crate) const FRESH: u8 = 0;
    pub(crate) const CONNECTING: u8 = 1;
    pub(crate) const CONNECTED: u8 = 2;
    pub(crate) const LISTENING: u8 = 3;
}

/// What is known of a device beside its kind, as bits.
pub(crate) mod traits {
    /// A listener for streams of the machine's own.
    pub(crate) const LOCAL: u8 = 16;
    /// A file may be read, or written.
    pub(crate) const READ: u8 = 1;
    pub(crate) const WRITE: u8 = 2;
    /// Past the cache: nothing can be done at once.
    pub(crate) const DIRECT: u8 = 4;
    /// Its file system does not offer to try without blocking.
    pub(crate) const NO_TRYING: u8 = 8;
    /// A datagram socket is connected, so that a call on it may be told of a refusal by its peer.
    pub(crate) const PEER: u8 = 32;
    /// A datagram socket's refusals are kept in a list.
    pub(crate) const REFUSALS: u8 = 64;
    /// A datagram socket had no address when it was last looked at.
    pub(crate) const UNBOUND: u8 = 128;
}

/// Own shutdown, as bits.
pub(crate) mod shut {
    pub(crate) const RECEIVE: u8 = 1;
    pub(crate) const SEND: u8 = 2;
    /// A disconnect is outstanding, and a shutdown was asked for beside it: it comes also if the disconnect is
    /// cancelled.
    pub(crate) const SEND_IN_ANY_CASE: u8 = 4;
    /// The system has taken the end of the stream.
    pub(crate) const TAKEN: u8 = 8;
}

#[derive(Debug)]
pub(crate) struct DeviceState {
    /// The port it is associated with, by the number that no other port of the process has.
    pub(crate) port: PortNumber,
    /// Slot and generation: what the engine knows it by.
    pub(crate) number: u64,
    pub(crate) handle: Handle,
    pub(crate) kind: DeviceKind,
    key: AtomicUsize,
    pub(crate) receive: Lock<Direction>,
    pub(crate) send: Lock<Direction>,
    pub(crate) skip_on_success: AtomicBool,
    /// A send has found no space before, or a connect waits for it: from then on space is heard of. Whoever sets it
    /// tries once more afterwards. Most connections never need it, and spare the leader the send side's lock.
    pub(crate) wants_space: AtomicBool,
    pub(crate) phase: AtomicU8,
    pub(crate) shut: AtomicU8,
    /// See [`traits`].
    pub(crate) traits: AtomicU8,
    /// Readiness bits that stay.
    pub(crate) sticky: AtomicU8,
    /// The error that ended the connection; Linux reports it once, the port for ever (rows ). One for each
    /// side: data that came before a reset may still be received after a send has seen it.
    pub(crate) failed_receive: AtomicI32,
    pub(crate) failed_send: AtomicI32,
    /// A receive has found the end of the stream while a send was under way, and waits for what the send has seen.
    pub(crate) end_waits: AtomicBool,
    pub(crate) registered: AtomicBool,
    /// Bytes that the system has taken for sending. Written by the send side's owner only.
    pub(crate) taken: AtomicU64,
    /// How many datagrams the next call is to ask for.
    pub(crate) burst: AtomicU8,
    /// One for being open and one for each [user](DeviceState::enter); at 0 the handle is closed.
    users: AtomicU32,
    /// The handle was given away: it is not ours to close.
    released: AtomicBool,
}

impl DeviceState {
    /// The system's descriptor. Valid until the device is closed or released.
    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    /// What it is, as far as the errors of a stream are concerned.
    pub(crate) fn class(&self) -> Class {
        if self.kind == DeviceKind::Handle { Class::Pipe } else { Class::Stream }
    }

    /// A listener for streams of the machine's own.
    pub(crate) fn is_local(&self) -> bool {
        self.traits.load(Ordering::Relaxed) & traits::LOCAL != 0
    }

    pub(crate) fn mark_local(&self) {
        self.traits.fetch_or(traits::LOCAL, Ordering::Relaxed);
    }

    /// A datagram socket is connected from now on.
    pub(crate) fn has_peer(&self) {
        self.traits.fetch_or(traits::PEER, Ordering::AcqRel);
    }

    pub(crate) fn skip_on_success(&self) {
        self.skip_on_success.store(true, Ordering::Relaxed);
    }

    pub(crate) fn direction(&self, side: Side) -> &Lock<Direction> {
        match side {
            Side::Receive => &self.receive,
            Side::Send => &self.send,
        }
    }

    pub(crate) fn key(&self) -> usize {
        self.key.load(Ordering::Relaxed)
    }

    pub(crate) fn set_key(&self, key: usize) {
        self.key.store(key, Ordering::Relaxed);
    }

    pub(crate) fn has(&self, traits: u8) -> bool {
        self.traits.load(Ordering::Acquire) & traits != 0
    }

    /// Keeps the handle open for a call on it, for those who own no direction. False when the device is closed.
    pub(crate) fn enter(&self) -> bool {
        self.users.fetch_update(Ordering::Acquire, Ordering::Relaxed, |users| (users > 0).then(|| users + 1)).is_ok()
    }

    /// Ends what `enter` began, or the open reference. True when the handle was closed by it.
    pub(crate) fn leave(&self, engine: &Engine) -> bool {
        let last = self.users.fetch_sub(1, Ordering::AcqRel) == 1;
        if last && !self.released.load(Ordering::Acquire) {
            // A connect that was under way may have registered it after it was closed.
            self.deregister(engine);
            engine.calls().close(self.handle);
        }
        last
    }

    /// Gives up the open reference of a device that was given away, unless somebody still uses the handle.
    pub(crate) fn leave_alone(&self) -> bool {
        self.users.compare_exchange(1, 0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Whoever owns a direction now keeps the handle open until it lets go. Called once the directions are closed.
    pub(crate) fn lend_to_owners(&self) {
        for direction in [&self.receive, &self.send] {
            let mut direction = direction.lock();
            if direction.turn == Turn::Running {
                // The open reference is still there.
                self.users.fetch_add(1, Ordering::Relaxed);
                direction.holds_handle = true;
            }
        }
    }

    /// Ends the engine's interest, before the descriptor is closed: a duplicate of it would keep the entry alive.
    pub(crate) fn deregister(&self, engine: &Engine) {
        // One at a time: who took the device out of the table, or the last user. The mark goes last, or a connect that
        // is under way would register what still is.
        if self.registered.load(Ordering::Acquire) {
            engine.selector.deregister(self.handle);
            self.registered.store(false, Ordering::Release);
        }
    }

    /// Keeps the handle from being closed: it goes to another owner.
    pub(crate) fn give_away(&self) {
        self.released.store(true, Ordering::Release);
    }

    /// In a forked child: closes the child's copy of the handle, once. The engine, the locks and the count of users are
    /// the parent's, and are left alone.
    pub(crate) fn close_copy(&self, engine: &Engine) {
        let open = self.users.load(Ordering::Acquire) > 0;
        if open && !self.released.swap(true, Ordering::AcqRel) {
            engine.calls().close_copy(self.handle);
        }
    }

    /// The system has taken so many bytes more. One thread at a time sends, so the addition need not be atomic.
    pub(crate) fn count_taken(&self, bytes: usize) {
        self.taken.store(self.taken.load(Ordering::Relaxed).wrapping_add(bytes as u64), Ordering::Relaxed);
    }

    pub(crate) fn is(&self, phase: u8) -> bool {
        self.phase.load(Ordering::Acquire) == phase
    }

    /// May a short transfer be taken for "nothing more is there"? Not once the peer has hung up, an error is pending
    /// or urgent data came: none of these gives another edge.
    pub(crate) fn short_means_drained(&self) -> bool {
        self.sticky.load(Ordering::Acquire) & Readiness::STICKY == 0
    }
}

/// The port's device list: what Windows keeps and does not show.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    port: PortNumber,
    slots: Vec<Slot>,
    /// The one that has been free for longest comes first.
    free: VecDeque<u32>,
    count: usize,
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    device: Option<Arc<DeviceState>>,
}

impl Devices {
    /// The limit keeps the engine's own numbers apart from the devices'.
    const SLOTS_MAX: u32 = u32::MAX - 8;

    /// The list of the port with this number.
    pub(crate) fn of(port: PortNumber) -> Devices {
        Devices { port, ..Devices::default() }
    }

    /// Free slots that so many generations have used.
    #[cfg(test)]
    pub(crate) fn wear(&mut self, slots: usize, generation: u32) {
        for _ in 0..slots {
            assert!(generation < u32::MAX, "it would be used up");
            self.free.push_back(u32::try_from(self.slots.len()).unwrap());
            self.slots.push(Slot { generation, device: None });
        }
    }

    pub(crate) fn add(&mut self, handle: Handle, kind: DeviceKind, key: usize, phase: u8) -> Arc<DeviceState> {
        let slot = self.free.pop_front().unwrap_or_else(|| {
            let slot = u32::try_from(self.slots.len()).ok().filter(|&slot| slot < Self::SLOTS_MAX);
            self.slots.push(Slot { generation: 0, device: None });
            slot.expect("fewer devices than four thousand million")
        });
        let entry = &mut self.slots[slot as usize];
        // Never 0, and never again: see `remove`.
        entry.generation += 1;
        let connected = phase == phase::CONNECTED;
        let device = Arc::new(DeviceState {
            port: self.port,
            number: u64::from(slot) << 32 | u64::from(entry.generation),
            handle,
            kind,
            key: AtomicUsize::new(key),
            // The engine reports what is there to receive; whether there is space is tried first.
            receive: Lock::new(Direction::new(Side::Receive, true)),
            send: Lock::new(Direction::new(Side::Send, !connected)),
            skip_on_success: AtomicBool::new(false),
            wants_space: AtomicBool::new(!connected),
            phase: AtomicU8::new(phase),
            shut: AtomicU8::new(0),
            traits: AtomicU8::new(0),
            sticky: AtomicU8::new(0),
            failed_receive: AtomicI32::new(0),
            failed_send: AtomicI32::new(0),
            end_waits: AtomicBool::new(false),
            registered: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            burst: AtomicU8::new(2),
            users: AtomicU32::new(1),
            released: AtomicBool::new(false),
        });
        entry.device = Some(device.clone());
        self.count += 1;
        device
    }

    pub(crate) fn find(&self, number: u64) -> Option<&Arc<DeviceState>> {
        let slot = self.slots.get(usize::try_from(number >> 32).ok()?)?;
        slot.device.as_ref().filter(|device| device.number == number)
    }

    /// True when it was there: of several closers one goes on.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let Some(slot) = self.slots.get_mut((number >> 32) as usize) else { return false };
        if slot.device.as_ref().is_none_or(|device| device.number != number) {
            return false;
        }
        slot.device = None;
        // A slot whose generations are used up is not used again: its next device would have the number of an earlier
        // one.
        if slot.generation < u32::MAX {
            self.free.push_back((number >> 32) as u32);
        }
        self.count -= 1;
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<DeviceState>> {
        self.slots.iter().filter_map(|slot| slot.device.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_reused_under_another_number() {
        let mut devices = Devices::default();
        let first = devices.add(3, DeviceKind::Stream, 0, phase::CONNECTED);
        assert!(devices.remove(first.number));
        let second = devices.add(3, DeviceKind::Stream, 0, phase::CONNECTED);
        assert_ne!(first.number, second.number);
        assert!(devices.find(first.number).is_none(), "a late event must not reach the slot's next device");
        assert!(!devices.remove(first.number), "a device is removed once");
        assert_eq!(devices.len(), 1);
    }

    #[test]
    fn a_number_never_comes_again() {
        let mut devices = Devices::default();
        let add = |devices: &mut Devices| devices.add(3, DeviceKind::Stream, 0, phase::CONNECTED).number;
        let first = add(&mut devices);
        assert!(devices.remove(first));
        devices.slots[0].generation = u32::MAX - 3;
        let mut seen = std::collections::HashSet::from([first]);
        for _ in 0..10 {
            let number = add(&mut devices);
            assert!(number != 0 && number as u32 != 0, "0 is no device, and a timer's");
            assert!(seen.insert(number), "the number {number:#x} has come again");
            assert!(devices.remove(number));
            assert!(devices.find(number).is_none() && !devices.remove(number));
        }
        assert_eq!(devices.slots.len(), 2, "the first slot was used up, and the second is in use");
        assert_eq!(devices.len(), 0);
    }

    #[test]
    fn the_slot_that_was_free_for_longest_is_used_first() {
        let mut devices = Devices::default();
        let numbers: Vec<u64> =
            (0..3).map(|_| devices.add(3, DeviceKind::Stream, 0, phase::CONNECTED).number).collect();
        let order = [2, 0, 1];
        order.iter().for_each(|&at: &usize| assert!(devices.remove(numbers[at])));
        for at in order {
            let number = devices.add(3, DeviceKind::Stream, 0, phase::CONNECTED).number;
            assert_eq!(number >> 32, at as u64);
        }
    }

    #[test]
    fn the_handle_is_closed_by_the_last_user() {
        let mut devices = Devices::default();
        let device = devices.add(7, DeviceKind::Stream, 0, phase::CONNECTED);
        device.give_away();
        let engine = Engine::of(Arc::new(crate::testing::fake::Fake::quiet()));
        assert!(device.enter());
        assert!(!device.leave(&engine), "a call is under way");
        assert!(device.leave(&engine));
        assert!(!device.enter(), "a closed device takes no calls");
    }

    #[test]
    fn the_owner_of_a_direction_keeps_the_handle_open() {
        let mut devices = Devices::default();
        let device = devices.add(7, DeviceKind::Stream, 0, phase::CONNECTED);
        device.give_away();
        let engine = Engine::of(Arc::new(crate::testing::fake::Fake::quiet()));
        device.send.lock().begin();
        device.lend_to_owners();
        assert!(!device.leave(&engine), "somebody may be sending");
        assert!(device.send.lock().let_go(false).handle);
        assert!(device.leave(&engine));
        device.receive.lock().begin();
        assert!(!device.receive.lock().let_go(false).handle, "it was closed before");
    }
}
