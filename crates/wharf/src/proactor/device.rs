//! A device: a socket, file or the like associated with a port. Its two sides are [directions](super::direction).
//!
//! **Closing.** 1. Both directions are closed, under their locks: nothing is issued any more. 2. What waits ends, and
//! what the kernel has is cancelled; what it is about to end is waited for, for moments. 3. The device leaves the
//! table. 4. The open reference is given up; the last of {it, users} closes the handle. The records' packets come all
//! the same.

use super::direction::Direction;
use crate::error::Class;
use crate::op::{DeviceKind, PortNumber, Side};
use crate::sync::Lock;
use crate::sys::Handle;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering};

pub(crate) mod traits {
    /// A child process: it is waited for, not read.
    pub(crate) const CHILD: u8 = 1;
    /// The socket was made here: one that is used up can be replaced.
    pub(crate) const OURS: u8 = 2;
    /// A file may be read, or written.
    pub(crate) const READ: u8 = 4;
    pub(crate) const WRITE: u8 = 8;
}

pub(crate) mod shut {
    pub(crate) const RECEIVE: u8 = 1;
    pub(crate) const SEND: u8 = 2;
}

/// Most of it never changes, or lies in the directions, under their locks. The rest is atomic:
///
/// | field | who changes it, and when | who reads it | ordering |
/// |---|---|---|---|
/// | `handle`, `users` | a connect that has used up its socket, under the send side's lock; [`enter`](DeviceState::enter), [`leave`](DeviceState::leave) | whoever entered, or holds a direction's lock of an open device | SeqCst, but for leaving (AcqRel). A new handle is written, and then the users are counted; a user is counted, and then reads the handle. So the old one is closed at once only where nobody has read it |
/// | `key` | the program, at any time | whoever ends an operation | Relaxed: nothing else hangs on it |
/// | `skip_on_success` | the program, once, under both directions' locks | under one of them | Release; Acquire |
/// | `phase` | whoever connects takes it from fresh to connecting, by exchange; then the end of the connect | issuers | AcqRel, Release; Acquire. What an earlier attempt has left is gone once it says connected |
/// | `shut` | the bit of receiving: a shutdown; that of sending: under the send side's lock | issuers, those of sends under the lock | AcqRel; Acquire |
/// | `failed`, `failed_receive`, `ended_receive` | the end of a call, under its side's lock; whoever connects | issuers, and ends of other calls | AcqRel, Release; Acquire |
/// | `taken` | the end of a send | anybody | Relaxed: a count by itself |
/// | `released` | whoever gives the handle away, before it gives up its use | the last user | Release; Acquire |
pub(crate) struct DeviceState {
    /// The port it is associated with, by the number that no other port of the process has.
    pub(crate) port: PortNumber,
    pub(crate) number: u64,
    handle: AtomicU64,
    pub(crate) kind: DeviceKind,
    key: AtomicUsize,
    pub(super) receive: Lock<Direction>,
    pub(super) send: Lock<Direction>,
    /// Set under both directions' locks, so that each call knows whether a success of it queues a packet.
    pub(crate) skip_on_success: AtomicBool,
    pub(crate) phase: AtomicU8,
    pub(crate) shut: AtomicU8,
    /// See [`traits`].
    pub(super) traits: u8,
    /// The error that broke the connection; it stays (rows R-13, S-09). Receives hear of it when they have what came
    /// before.
    pub(crate) failed: AtomicI32,
    pub(crate) failed_receive: AtomicI32,
    /// A receive has met the end of the stream; so do those behind it.
    pub(crate) ended_receive: AtomicBool,
    /// Bytes that the system has taken for sending.
    pub(super) taken: AtomicU64,
    users: AtomicU32,
    released: AtomicBool,
    /// Sockets that a connect has used up, closed with the device.
    pub(super) retired: Lock<Vec<Handle>>,
}

impl std::fmt::Debug for DeviceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Device({:#x}, {:?})", self.number, self.kind)
    }
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
        DeviceState {
            port,
            number,
            handle: AtomicU64::new(handle),
            kind,
            key: AtomicUsize::new(key),
            receive: Lock::default(),
            send: Lock::default(),
            skip_on_success: AtomicBool::new(false),
            phase: AtomicU8::new(phase),
            shut: AtomicU8::new(0),
            traits,
            failed: AtomicI32::new(0),
            failed_receive: AtomicI32::new(0),
            ended_receive: AtomicBool::new(false),
            taken: AtomicU64::new(0),
            users: AtomicU32::new(1),
            released: AtomicBool::new(false),
            retired: Lock::default(),
        }
    }

    /// What it is, as far as the errors of a stream are concerned: the system's numbers tell pipes apart themselves.
    pub(crate) fn class(&self) -> Class {
        Class::Stream
    }

    pub(crate) fn is_local(&self) -> bool {
        false
    }

    pub(crate) fn has_peer(&self) {}

    pub(crate) fn skip_on_success(&self) {
        // No call is under way while both are held.
        let receive = self.receive.lock();
        let send = self.send.lock();
        let open = !receive.closed && !send.closed && self.kind != DeviceKind::Handle;
        if open && crate::sys::calls::skip_on_success(self.handle()) {
            self.skip_on_success.store(true, Ordering::Release);
        }
    }

    pub(super) fn direction(&self, side: Side) -> &Lock<Direction> {
        match side {
            Side::Receive => &self.receive,
            Side::Send => &self.send,
        }
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle.load(Ordering::SeqCst)
    }

    /// A fresh socket takes the place of one that is used up.
    pub(super) fn replace_handle(&self, handle: Handle) {
        let old = self.handle.swap(handle, Ordering::SeqCst);
        // Whoever entered before has the old one, perhaps.
        if self.users.load(Ordering::SeqCst) == 1 {
            crate::sys::calls::close_socket(old);
        } else {
            self.retired.lock().push(old);
        }
    }

    pub(crate) fn key(&self) -> usize {
        self.key.load(Ordering::Relaxed)
    }

    pub(crate) fn set_key(&self, key: usize) {
        self.key.store(key, Ordering::Relaxed);
    }

    pub(crate) fn has(&self, traits: u8) -> bool {
        self.traits & traits != 0
    }

    pub(crate) fn is(&self, phase: u8) -> bool {
        self.phase.load(Ordering::Acquire) == phase
    }

    pub(crate) fn is_socket(&self) -> bool {
        matches!(self.kind, DeviceKind::Listener | DeviceKind::Stream | DeviceKind::Datagram)
    }

    /// Keeps the handle open for a call on it. False when the device is closed.
    pub(crate) fn enter(&self) -> bool {
        self.users.fetch_update(Ordering::SeqCst, Ordering::Relaxed, |users| (users > 0).then(|| users + 1)).is_ok()
    }

    /// Ends what `enter` began, or the open reference.
    pub(crate) fn leave(&self) {
        if self.users.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.retired.lock().drain(..).for_each(crate::sys::calls::close_socket);
            if !self.released.load(Ordering::Acquire) {
                if self.is_socket() {
                    crate::sys::calls::close_socket(self.handle());
                } else {
                    crate::sys::calls::close_handle(self.handle());
                }
            }
        }
    }

    /// Keeps the handle from being closed: it goes to another owner.
    pub(crate) fn give_away(&self) {
        self.released.store(true, Ordering::Release);
    }
}
