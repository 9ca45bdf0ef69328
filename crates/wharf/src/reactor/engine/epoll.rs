//! The Linux engine for sockets: one edge-triggered epoll for each port.
//!
//! Sockets are registered once, for both directions, and never modified: an `epoll_ctl(MOD)` for each operation would
//! cost more than the spurious events it saves. Beside the sockets the epoll holds an event descriptor (`kick`), a
//! timer descriptor (deadlines; it can be moved while a leader sleeps) and the queue's watchdog timer.

use super::calls::{self, borrow};
use super::{Engine, Events, Handle, Pieces, Readiness};
use crate::op::{Datagram, RawBuffer};
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use std::mem::MaybeUninit;
use std::net::{Shutdown, SocketAddr};
use std::time::{Duration, Instant};

/// Numbers that no device has: slots stay below `u32::MAX`.
const KICK: u64 = u64::MAX;
const DEADLINE: u64 = u64::MAX - 1;
const TICK: u64 = u64::MAX - 2;

/// Events taken by one `epoll_wait`. Larger batches delay the first packet, smaller ones cost calls.
const EVENTS_PER_POLL: usize = 128;

pub(crate) struct Epoll {
    epoll: OwnedFd,
    kick: OwnedFd,
    deadline: OwnedFd,
}

impl Epoll {
    pub(crate) fn new(tick: BorrowedFd<'_>) -> std::io::Result<Epoll> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let kick = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let deadline = timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK)?;
        // Edge triggered, so that none of them has to be read to fall silent.
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &kick, EventData::new_u64(KICK), edge)?;
        epoll::add(&epoll, &deadline, EventData::new_u64(DEADLINE), edge)?;
        epoll::add(&epoll, tick, EventData::new_u64(TICK), edge)?;
        Ok(Epoll { epoll, kick, deadline })
    }
}

impl Engine for Epoll {
    fn name(&self) -> &'static str {
        "epoll"
    }

    fn register(&self, handle: Handle, device: u64) -> Result<(), i32> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::PRI | EventFlags::ET;
        epoll::add(&self.epoll, borrow(handle), EventData::new_u64(device), flags).map_err(Errno::raw_os_error)
    }

    fn deregister(&self, handle: Handle) {
        // ENOENT: it was never registered, as a stream that did not get as far as connecting.
        let _ = epoll::delete(&self.epoll, borrow(handle));
    }

    fn poll(&self, wait: Option<Duration>, found: &mut Events) {
        let mut events = [const { MaybeUninit::<Event>::uninit() }; EVENTS_PER_POLL];
        let timeout = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: wait.subsec_nanos().into(),
        });
        let Ok((events, _)) = epoll::wait(&self.epoll, &mut events, timeout.as_ref()) else {
            // EINTR: no events. Nothing else can happen with a valid descriptor and buffer.
            return;
        };
        for event in events {
            let (flags, device) = (event.flags, event.data.u64());
            match device {
                KICK => {}
                DEADLINE => found.deadline_passed = true,
                TICK => found.ticked = true,
                device => {
                    let mut ready = 0;
                    let failed = flags.intersects(EventFlags::ERR | EventFlags::HUP);
                    if failed || flags.intersects(EventFlags::IN | EventFlags::RDHUP | EventFlags::PRI) {
                        ready |= Readiness::RECEIVE;
                    }
                    if failed || flags.contains(EventFlags::OUT) {
                        ready |= Readiness::SEND;
                    }
                    if flags.intersects(EventFlags::RDHUP | EventFlags::HUP) {
                        ready |= Readiness::HANG_UP;
                    }
                    if flags.contains(EventFlags::ERR) {
                        ready |= Readiness::ERROR;
                    }
                    if flags.contains(EventFlags::PRI) {
                        ready |= Readiness::URGENT;
                    }
                    found.ready.push((device, Readiness(ready)));
                }
            }
        }
    }

    fn kick(&self) {
        // Each write is an edge, whatever the counter says; it cannot overflow in a process's life.
        let _ = rustix::io::write(&self.kick, &1u64.to_ne_bytes());
    }

    fn set_deadline(&self, at: Option<Instant>) {
        let after = match at {
            None => Duration::ZERO,
            // A zero would disarm it.
            Some(at) => at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1)),
        };
        let time = |duration: Duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        };
        let value = Itimerspec { it_interval: time(Duration::ZERO), it_value: time(after) };
        // Cannot fail with a valid descriptor and time.
        let _ = timerfd_settime(&self.deadline, TimerfdTimerFlags::empty(), &value);
    }

    fn open_stream(&self, peer: &SocketAddr) -> Result<Handle, i32> {
        calls::open_stream(peer)
    }

    fn receive(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32> {
        calls::receive(handle, into)
    }

    fn peek(&self, handle: Handle) -> Result<(), i32> {
        calls::peek(handle)
    }

    fn send(&self, handle: Handle, from: &[RawBuffer], more: bool) -> Result<usize, i32> {
        calls::send(handle, from, more)
    }

    fn send_file(&self, handle: Handle, file: Handle, offset: u64, count: u64) -> Result<usize, i32> {
        calls::send_file(handle, file, offset, count)
    }

    fn receive_from(&self, handle: Handle, into: &[RawBuffer]) -> Result<Datagram, i32> {
        calls::receive_from(handle, into)
    }

    fn send_to(&self, handle: Handle, from: &[RawBuffer], to: Option<&SocketAddr>) -> Result<(), i32> {
        calls::send_to(handle, from, to)
    }

    fn receive_many(&self, handle: Handle, into: &Pieces, found: &mut Vec<Datagram>) -> Result<(), i32> {
        calls::receive_many(handle, into, found)
    }

    fn send_many(&self, handle: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32> {
        calls::send_many(handle, from, to)
    }

    fn keep_refusals(&self, handle: Handle, keep: bool) -> Result<(), i32> {
        calls::keep_refusals(handle, keep)
    }

    fn refusal(&self, handle: Handle) -> Result<(i32, Option<SocketAddr>), i32> {
        calls::refusal(handle)
    }

    fn has_peer(&self, handle: Handle) -> bool {
        calls::has_peer(handle)
    }

    fn is_bound(&self, handle: Handle) -> bool {
        calls::is_bound(handle)
    }

    fn read(&self, handle: Handle, into: &[RawBuffer]) -> Result<usize, i32> {
        calls::read(handle, into)
    }

    fn write(&self, handle: Handle, from: &[RawBuffer]) -> Result<usize, i32> {
        calls::write(handle, from)
    }

    fn is_readable(&self, handle: Handle) -> Result<(), i32> {
        calls::is_readable(handle)
    }

    fn exit_status(&self, handle: Handle) -> Result<i32, i32> {
        calls::exit_status(handle)
    }

    fn unacknowledged(&self, handle: Handle) -> Option<u64> {
        crate::sys::unacknowledged(borrow(handle))
    }

    fn accept(&self, handle: Handle) -> Result<(Handle, Option<SocketAddr>), i32> {
        calls::accept(handle)
    }

    fn connect(&self, handle: Handle, peer: &SocketAddr) -> Result<(), i32> {
        calls::connect(handle, peer)
    }

    fn connect_result(&self, handle: Handle) -> Result<(), i32> {
        calls::connect_result(handle)
    }

    fn abort_connect(&self, handle: Handle) {
        calls::abort_connect(handle)
    }

    fn shutdown(&self, handle: Handle, how: Shutdown) -> Result<(), i32> {
        calls::shutdown(handle, how)
    }

    fn close(&self, handle: Handle) {
        calls::close(handle)
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}
