//! An engine on plain `poll(2)`: slow with many sockets, and there on every Unix.
//!
//! The contract asks for edges, `poll` tells levels. So each side of a handle is *armed* or not. Only armed sides are
//! asked for; a side that was reported is disarmed, and every call that may have used up what was reported arms it
//! again. What arrived before that is seen by the next `poll`, because it asks for the level; so no arrival is lost,
//! and a handle that stays ready is reported once for each call instead of for ever. `poll` tells errors and hang-ups
//! without being asked: either disarms both sides, and a handle without an armed side is left out.
//!
//! Arming, and taking a handle out, has to interrupt a `poll` that is under way: it would not know of the one, and
//! keeps the other's socket open until it returns.
//!
//! Chosen by [`SocketEngine::Poll`](crate::raw::SocketEngine). A program with a loop of its own wants a descriptor to
//! wait on (`pollable`), which `poll` does not have. Where the system has sets of descriptors that are descriptors
//! themselves (epoll), a *mirror* is made when it is asked for, and holds what is registered. It only tells that a
//! `poll` may find something, and is emptied by each. An armed side is entered anew, so that what is there already is
//! told; else the mirror would miss what came between a call that found nothing and its arming.

use super::calls;
use super::{Engine, Events, Handle, Pieces, Readiness};
use crate::op::{Datagram, RawBuffer};
use crate::sys;
use crate::sys::errno::{EAGAIN, EEXIST};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

const BOTH: u8 = Readiness::RECEIVE | Readiness::SEND;

pub(crate) struct Poll {
    state: Mutex<State>,
    /// A byte that comes out of it ends a `poll`.
    wake_pipe: OwnedFd,
    /// The other end, where it is put in.
    waker: OwnedFd,
    /// The queue's watchdog timer.
    tick: OwnedFd,
    /// Made under the lock.
    mirror: OnceLock<Mirror>,
}

struct Mirror {
    set: sys::Set,
    /// Goes off at the deadline.
    deadline: OwnedFd,
}

impl Mirror {
    fn set_deadline(&self, at: Option<Instant>) {
        // A zero would disarm it.
        let after = |at: Instant| at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        sys::set_timer(&self.deadline, at.map_or(Duration::ZERO, after));
    }
}

#[derive(Default)]
struct State {
    handles: HashMap<Handle, Registered>,
    deadline: Option<Instant>,
    /// A `poll` is under way, or about to be.
    polling: bool,
}

struct Registered {
    device: u64,
    /// The sides that are asked for.
    armed: u8,
}

impl Poll {
    pub(crate) fn new(tick: BorrowedFd<'_>) -> std::io::Result<Poll> {
        let (wake_pipe, waker) = sys::pipe()?;
        let tick = tick.try_clone_to_owned()?;
        Ok(Poll { state: Mutex::default(), wake_pipe, waker, tick, mirror: OnceLock::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A call has perhaps used up what was reported.
    fn arm(&self, handle: Handle, sides: u8) {
        let mut state = self.lock();
        let Some(registered) = state.handles.get_mut(&handle) else { return };
        let news = registered.armed & sides != sides;
        registered.armed |= sides;
        if let (true, Some(mirror)) = (news, self.mirror.get()) {
            mirror.set.enter_anew(calls::borrow(handle));
        }
        let polling = state.polling;
        drop(state);
        if news && polling {
            self.kick();
        }
    }

    /// The mirror, if the system can have one.
    fn make_mirror(&self) -> Option<&Mirror> {
        let state = self.lock();
        if self.mirror.get().is_none() {
            let mirror = Mirror { set: sys::Set::new().ok()?, deadline: sys::timer().ok()? };
            mirror.set_deadline(state.deadline);
            for own in [&self.wake_pipe, &self.tick, &mirror.deadline] {
                mirror.set.enter(own.as_fd()).ok()?;
            }
            for &handle in state.handles.keys() {
                mirror.set.enter(calls::borrow(handle)).ok()?;
            }
            let _ = self.mirror.set(mirror);
        }
        self.mirror.get()
    }

    /// Something was received, or nothing was there. Another error has used nothing up: a listener that finds no free
    /// descriptor would be reported for ever; the port tries it again.
    fn received<T>(&self, handle: Handle, result: Result<T, i32>) -> Result<T, i32> {
        if matches!(result, Ok(_) | Err(EAGAIN)) {
            self.arm(handle, Readiness::RECEIVE);
        }
        result
    }

    /// What was sent, of how much: less means that space is waited for.
    fn sent(&self, handle: Handle, result: Result<usize, i32>, of: usize) -> Result<usize, i32> {
        match result {
            Ok(sent) if sent >= of => {}
            Ok(_) | Err(EAGAIN) => self.arm(handle, Readiness::SEND),
            Err(_) => {}
        }
        result
    }
}

/// `POLLRDHUP` where the system has it; elsewhere the end of the stream is readiness to receive, no more.
#[cfg(any(target_os = "linux", target_os = "android"))]
const PEER_HUNG_UP: i16 = libc::POLLRDHUP;
#[cfg(not(any(target_os = "linux", target_os = "android")))]
const PEER_HUNG_UP: i16 = 0;

fn asked(armed: u8) -> i16 {
    let receive = if armed & Readiness::RECEIVE != 0 { libc::POLLIN | libc::POLLPRI | PEER_HUNG_UP } else { 0 };
    let send = if armed & Readiness::SEND != 0 { libc::POLLOUT } else { 0 };
    receive | send
}

fn told(events: i16) -> u8 {
    let mut ready = 0;
    let failed = events & (libc::POLLERR | libc::POLLHUP) != 0;
    if failed || events & (libc::POLLIN | libc::POLLPRI | PEER_HUNG_UP) != 0 {
        ready |= Readiness::RECEIVE;
    }
    if failed || events & libc::POLLOUT != 0 {
        ready |= Readiness::SEND;
    }
    if events & (libc::POLLHUP | PEER_HUNG_UP) != 0 {
        ready |= Readiness::HANG_UP;
    }
    if events & libc::POLLERR != 0 {
        ready |= Readiness::ERROR;
    }
    if events & libc::POLLPRI != 0 {
        ready |= Readiness::URGENT;
    }
    ready
}

/// Milliseconds, rounded up: what waits must not come back before its time. -1 is for ever.
fn milliseconds(wait: Option<Duration>) -> i32 {
    wait.map_or(-1, |wait| i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX))
}

fn total(pieces: &[RawBuffer]) -> usize {
    pieces.iter().map(|piece| piece.length).sum()
}

impl Engine for Poll {
    fn name(&self) -> &'static str {
        "poll"
    }

    fn register(&self, handle: Handle, device: u64) -> Result<(), i32> {
        calls::is_open(handle)?;
        sys::without_signal(handle);
        let mut state = self.lock();
        if state.handles.contains_key(&handle) {
            return Err(EEXIST);
        }
        if let Some(mirror) = self.mirror.get() {
            mirror.set.enter(calls::borrow(handle)).map_err(rustix::io::Errno::raw_os_error)?;
        }
        state.handles.insert(handle, Registered { device, armed: BOTH });
        let polling = state.polling;
        drop(state);
        if polling {
            self.kick();
        }
        Ok(())
    }

    fn deregister(&self, handle: Handle) {
        let mut state = self.lock();
        let was_there = state.handles.remove(&handle).is_some();
        if let (true, Some(mirror)) = (was_there, self.mirror.get()) {
            mirror.set.leave(calls::borrow(handle));
        }
        let polling = state.polling;
        drop(state);
        if was_there && polling {
            self.kick();
        }
    }

    fn poll(&self, wait: Option<Duration>, found: &mut Events) {
        let entry = |fd: i32, events: i16| libc::pollfd { fd, events, revents: 0 };
        let mut asking =
            vec![entry(self.wake_pipe.as_raw_fd(), libc::POLLIN), entry(self.tick.as_raw_fd(), libc::POLLIN)];
        let own = asking.len();
        // Whose they are: a number may be another device's when the call returns.
        let mut devices = Vec::new();
        let wait = {
            let mut state = self.lock();
            // Before asking: what comes behind it is told again.
            if let Some(mirror) = self.mirror.get() {
                mirror.set.empty();
            }
            for (&handle, registered) in &state.handles {
                if registered.armed != 0 {
                    asking.push(entry(handle, asked(registered.armed)));
                    devices.push(registered.device);
                }
            }
            state.polling = true;
            let until_deadline = state.deadline.map(|at| at.saturating_duration_since(Instant::now()));
            [wait, until_deadline].into_iter().flatten().min()
        };
        #[allow(unsafe_code)]
        // SAFETY: the list lives here and is as long as the call is told. A handle in it that was closed meanwhile is
        // told as such, or stands for another socket, whose events nobody takes for this device's.
        let count = unsafe { libc::poll(asking.as_mut_ptr(), asking.len() as _, milliseconds(wait)) };
        let mut state = self.lock();
        state.polling = false;
        if state.deadline.is_some_and(|at| at <= Instant::now()) {
            state.deadline = None;
            found.deadline_passed = true;
        }
        if count <= 0 {
            // The time is over; or EINTR: no events.
            return;
        }
        for (entry, device) in asking[own..].iter().zip(devices) {
            let ready = told(entry.revents);
            let registered = state.handles.get_mut(&entry.fd).filter(|registered| registered.device == device);
            if let (Some(registered), true) = (registered, ready != 0) {
                registered.armed &= !ready;
                found.ready.push((device, Readiness(ready)));
            }
        }
        drop(state);
        if asking[0].revents != 0 {
            while rustix::io::read(&self.wake_pipe, &mut [0_u8; 64]).is_ok_and(|bytes| bytes == 64) {}
        }
        // Taken, so that it falls silent; unless somebody has armed it anew in between.
        if asking[1].revents != 0 && sys::take_expiry(&self.tick) {
            found.ticked = true;
        }
    }

    fn kick(&self) {
        // A full pipe rings as well.
        let _ = rustix::io::write(&self.waker, &[0]);
    }

    fn set_deadline(&self, at: Option<Instant>) {
        let mut state = self.lock();
        state.deadline = at;
        if let Some(mirror) = self.mirror.get() {
            mirror.set_deadline(at);
        }
        let polling = state.polling;
        drop(state);
        if polling {
            self.kick();
        }
    }

    fn open_stream(&self, peer: &SocketAddr) -> Result<Handle, i32> {
        calls::open_stream(peer)
    }

    fn receive(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32> {
        self.received(handle, calls::receive(handle, into))
    }

    fn peek(&self, handle: Handle) -> Result<(), i32> {
        self.received(handle, calls::peek(handle))
    }

    fn send(&self, handle: Handle, from: &[RawBuffer], more: bool) -> Result<usize, i32> {
        self.sent(handle, calls::send(handle, from, more), total(from))
    }

    fn send_file(&self, handle: Handle, file: Handle, offset: u64, count: u64) -> Result<usize, i32> {
        let of = usize::try_from(count).unwrap_or(usize::MAX);
        self.sent(handle, calls::send_file(handle, file, offset, count), of)
    }

    fn read(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32> {
        self.received(handle, calls::read(handle, into))
    }

    fn write(&self, handle: Handle, from: &[RawBuffer]) -> Result<usize, i32> {
        self.sent(handle, calls::write(handle, from), total(from))
    }

    fn is_readable(&self, handle: Handle) -> Result<(), i32> {
        self.received(handle, calls::is_readable(handle))
    }

    fn exit_status(&self, handle: Handle) -> Result<i32, i32> {
        self.received(handle, calls::exit_status(handle))
    }

    fn receive_from(&self, handle: Handle, into: &[RawBuffer]) -> Result<Datagram, i32> {
        self.received(handle, calls::receive_from(handle, into))
    }

    fn send_to(&self, handle: Handle, from: &[RawBuffer], to: Option<&SocketAddr>) -> Result<(), i32> {
        let result = calls::send_to(handle, from, to);
        if result == Err(EAGAIN) {
            self.arm(handle, Readiness::SEND);
        }
        result
    }

    fn receive_many(&self, handle: Handle, into: &Pieces, found: &mut Vec<Datagram>) -> Result<(), i32> {
        self.received(handle, calls::receive_many(handle, into, found))
    }

    fn send_many(&self, handle: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32> {
        self.sent(handle, calls::send_many(handle, from, to), from.len())
    }

    fn keep_refusals(&self, handle: Handle, keep: bool) -> Result<(), i32> {
        calls::keep_refusals(handle, keep)
    }

    fn refusal(&self, handle: Handle) -> Result<(i32, Option<SocketAddr>), i32> {
        self.received(handle, calls::refusal(handle))
    }

    fn has_peer(&self, handle: Handle) -> bool {
        calls::has_peer(handle)
    }

    fn is_bound(&self, handle: Handle) -> bool {
        calls::is_bound(handle)
    }

    fn unacknowledged(&self, handle: Handle) -> Option<u64> {
        sys::unacknowledged(calls::borrow(handle))
    }

    fn accept(&self, handle: Handle) -> Result<(Handle, Option<SocketAddr>), i32> {
        self.received(handle, calls::accept(handle))
    }

    fn connect(&self, handle: Handle, peer: &SocketAddr) -> Result<(), i32> {
        let result = calls::connect(handle, peer);
        // From an earlier attempt it may still be registered, with nothing armed.
        self.arm(handle, BOTH);
        result
    }

    fn connect_result(&self, handle: Handle) -> Result<(), i32> {
        let result = calls::connect_result(handle);
        if result == Err(EAGAIN) {
            self.arm(handle, BOTH);
        }
        result
    }

    fn abort_connect(&self, handle: Handle) {
        calls::abort_connect(handle);
    }

    fn shutdown(&self, handle: Handle, how: Shutdown) -> Result<(), i32> {
        calls::shutdown(handle, how)
    }

    fn close(&self, handle: Handle) {
        calls::close(handle);
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.make_mirror().map(|mirror| mirror.set.as_fd())
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}
