//! A selector on plain `poll(2)`: slow with many sockets, and there on every Unix.
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

use super::{Events, Handle, Outcome, Readiness, Selector};
use crate::op::Side;
use crate::reactor::engine::calls::{borrow, is_open};
use crate::sync::Lock;
use crate::sys;
use crate::sys::errno::EEXIST;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

const BOTH: u8 = Readiness::RECEIVE | Readiness::SEND;

pub(crate) struct Poll {
    state: Lock<State>,
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
        Ok(Poll { state: Lock::default(), wake_pipe, waker, tick, mirror: OnceLock::new() })
    }

    /// A call has perhaps used up what was reported.
    fn arm(&self, handle: Handle, sides: u8) {
        let mut state = self.state.lock();
        let Some(registered) = state.handles.get_mut(&handle) else { return };
        let news = registered.armed & sides != sides;
        registered.armed |= sides;
        if let (true, Some(mirror)) = (news, self.mirror.get()) {
            mirror.set.enter_anew(borrow(handle));
        }
        let polling = state.polling;
        drop(state);
        if news && polling {
            self.kick();
        }
    }

    /// The mirror, if the system can have one.
    fn make_mirror(&self) -> Option<&Mirror> {
        let state = self.state.lock();
        if self.mirror.get().is_none() {
            let mirror = Mirror { set: sys::Set::new().ok()?, deadline: sys::timer().ok()? };
            mirror.set_deadline(state.deadline);
            for own in [&self.wake_pipe, &self.tick, &mirror.deadline] {
                mirror.set.enter(own.as_fd()).ok()?;
            }
            for &handle in state.handles.keys() {
                mirror.set.enter(borrow(handle)).ok()?;
            }
            let _ = self.mirror.set(mirror);
        }
        self.mirror.get()
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

impl Selector for Poll {
    fn name(&self) -> &'static str {
        "poll"
    }

    fn register(&self, handle: Handle, device: u64) -> Result<(), i32> {
        is_open(handle)?;
        sys::without_signal(handle);
        let mut state = self.state.lock();
        if state.handles.contains_key(&handle) {
            return Err(EEXIST);
        }
        if let Some(mirror) = self.mirror.get() {
            mirror.set.enter(borrow(handle)).map_err(rustix::io::Errno::raw_os_error)?;
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
        let mut state = self.state.lock();
        let was_there = state.handles.remove(&handle).is_some();
        if let (true, Some(mirror)) = (was_there, self.mirror.get()) {
            mirror.set.leave(borrow(handle));
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
            let mut state = self.state.lock();
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
        let mut state = self.state.lock();
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
        // A full pipe wakes as well.
        let _ = rustix::io::write(&self.waker, &[0]);
    }

    fn set_deadline(&self, at: Option<Instant>) {
        let mut state = self.state.lock();
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

    fn used(&self, handle: Handle, side: Side, outcome: Outcome) {
        let (bit, is_used_up) = match side {
            // Another error has used nothing up: a listener that finds no free descriptor would be reported for ever;
            // the port tries it again.
            Side::Receive => (Readiness::RECEIVE, outcome != Outcome::Failed),
            // As long as all is taken there is space, and nobody waits for it.
            Side::Send => (Readiness::SEND, matches!(outcome, Outcome::Short | Outcome::NotNow)),
        };
        if is_used_up {
            self.arm(handle, bit);
        }
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        self.make_mirror().map(|mirror| mirror.set.as_fd())
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}
