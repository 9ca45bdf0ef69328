//! A device: a socket, file or the like associated with a port. Its two sides are
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
use crate::op::{DeviceKind, PortNumber, phase};
use crate::reactor::direction::{Direction, Side, Turn, duty};
use crate::reactor::engine::{Engine, Handle, Readiness};
use crate::sync::Lock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

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

/// Most of it never changes, or lies in the directions, under their locks. The rest is atomic:
///
/// | field | who changes it, and when | who reads it | ordering |
/// |---|---|---|---|
/// | `key`, `skip_on_success` | the program, at any time | whoever issues or ends an operation | Relaxed. Nothing else hangs on it: an operation that is issued or ends beside a change has either |
/// | `wants_space` | whoever connects, then the send side's owner | the leader, with each event | SeqCst. The owner sets it, and then tries to send once more; the leader has an event, and then looks. So one of them sees what the other did. The owner itself looks Relaxed: it has written the last word |
/// | `phase` | whoever connects takes it from fresh to connecting, by exchange; then the send side's owner, or whoever gives the attempt up | issuers | AcqRel, Release; Acquire. What an earlier attempt has left is gone once it says connected |
/// | `shut` | the bit of receiving: a shutdown; those of sending: under the send side's lock, or by its owner | issuers, those of sends under the lock; `taken` in a stream's progress without | AcqRel; Acquire. What the system has taken of the stream's end counts in its figure once `TAKEN` says so |
/// | `traits` | whoever finds out | issuers and owners | AcqRel; Acquire. A bit says what was done with the handle before |
/// | `sticky` | the leader adds bits; whoever connects takes them all back, when the handle is not registered or tells nothing any more | the receive side's owner | AcqRel, Release; Acquire. It is set before the direction is told of the event, whose lock the owner takes |
/// | `failed_receive` | the receive side's owner; whoever connects | issuers, the owner | Release; Acquire |
/// | `failed_send` | the first to see a break: the owner of either side, by exchange; whoever connects | issuers, both owners | AcqRel, Release; Acquire. A receive that finds the end of the stream takes it for the reset that a send was told |
/// | `registered` | whoever registers or deregisters the handle, one at a time: see `Port::register`, `deregister` | the same | Release; Acquire. It says so after the engine has heard of it, and until the engine has forgotten it |
/// | `taken` | the send side's owner | anybody | Relaxed: a count by itself |
/// | `users` | [`enter`](DeviceState::enter), [`leave`](DeviceState::leave), [`lend_to_owners`](DeviceState::lend_to_owners), [`leave_alone`](DeviceState::leave_alone) | the same | Acquire to come, AcqRel to go: the last one closes the handle behind all calls. Owners are lent to Relaxed, since whoever lends is a user |
/// | `released` | whoever gives the handle away, before it gives up its use | the last user | Release, AcqRel; Acquire |
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
    pub(crate) registered: AtomicBool,
    /// Bytes that the system has taken for sending. Written by the send side's owner only.
    pub(crate) taken: AtomicU64,
    /// One for being open and one for each [user](DeviceState::enter); at 0 the handle is closed.
    users: AtomicU32,
    /// The handle was given away: it is not ours to close.
    released: AtomicBool,
}

impl DeviceState {
    /// A device of this number, in the state that it comes to the port in.
    pub(crate) fn new(
        port: PortNumber,
        number: u64,
        handle: Handle,
        kind: DeviceKind,
        key: usize,
        phase: u8,
        traits: u8,
    ) -> DeviceState {
        let connected = phase == phase::CONNECTED;
        DeviceState {
            port,
            number,
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
            traits: AtomicU8::new(traits),
            sticky: AtomicU8::new(0),
            failed_receive: AtomicI32::new(0),
            failed_send: AtomicI32::new(0),
            registered: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            users: AtomicU32::new(1),
            released: AtomicBool::new(false),
        }
    }

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
        self.has(traits::LOCAL)
    }

    pub(crate) fn mark_local(&self) {
        self.traits.fetch_or(traits::LOCAL, Ordering::AcqRel);
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
                direction.duties |= duty::HANDLE;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::fake::Fake;
    use std::sync::Arc;

    #[test]
    fn the_handle_is_closed_by_the_last_user() {
        let device = DeviceState::new(PortNumber::default(), 1, 7, DeviceKind::Stream, 0, phase::CONNECTED, 0);
        device.give_away();
        let engine = Engine::of(Arc::new(Fake::quiet()));
        assert!(device.enter());
        assert!(!device.leave(&engine), "a call is under way");
        assert!(device.leave(&engine));
        assert!(!device.enter(), "a closed device takes no calls");
    }

    #[test]
    fn the_owner_of_a_direction_keeps_the_handle_open() {
        let device = DeviceState::new(PortNumber::default(), 1, 7, DeviceKind::Stream, 0, phase::CONNECTED, 0);
        device.give_away();
        let engine = Engine::of(Arc::new(Fake::quiet()));
        device.send.lock().begin();
        device.lend_to_owners();
        assert!(!device.leave(&engine), "somebody may be sending");
        assert_eq!(device.send.lock().let_go(false).duties, duty::HANDLE);
        assert!(device.leave(&engine));
        device.receive.lock().begin();
        assert_eq!(device.receive.lock().let_go(false).duties, 0, "it was closed before");
    }
}
