//! The Linux selector: one edge-triggered epoll for each port.
//!
//! Sockets are registered once, for both directions, and never modified: an `epoll_ctl(MOD)` for each operation would
//! cost more than the spurious events it saves. Beside the sockets the epoll holds an event descriptor (`kick`), a
//! timer descriptor (deadlines; it can be moved while a leader sleeps) and the queue's watchdog timer.

use super::{Events, Handle, Readiness, Selector};
use crate::reactor::engine::calls::borrow;
use crate::sys;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use std::mem::MaybeUninit;
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
        let (kick, deadline) = (sys::event()?, sys::timer()?);
        // Edge triggered, so that none of them has to be read to fall silent.
        let edge = EventFlags::IN | EventFlags::ET;
        epoll::add(&epoll, &kick, EventData::new_u64(KICK), edge)?;
        epoll::add(&epoll, &deadline, EventData::new_u64(DEADLINE), edge)?;
        epoll::add(&epoll, tick, EventData::new_u64(TICK), edge)?;
        Ok(Epoll { epoll, kick, deadline })
    }
}

impl Selector for Epoll {
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
        let timeout = wait.map(sys::timespec);
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
        // Each time is an edge, whatever the counter says; it cannot overflow in a process's life.
        sys::raise(&self.kick);
    }

    fn set_deadline(&self, at: Option<Instant>) {
        // A zero would disarm it.
        let after = |at: Instant| at.saturating_duration_since(Instant::now()).max(Duration::from_nanos(1));
        sys::set_timer(&self.deadline, at.map_or(Duration::ZERO, after));
    }

    fn pollable(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_fd())
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}
