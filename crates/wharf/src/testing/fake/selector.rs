//! The fake engine tells what is ready: what has been reported, and the faults of telling.

use super::{Call, Fake, TICK, When};
use crate::op::Side;
use crate::reactor::engine::{Events, Handle, Outcome, Readiness, Selector};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

impl Selector for Fake {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn register(&self, handle: Handle, device: u64) -> Result<(), i32> {
        self.call(Call::Register, handle, |net| {
            net.scripted(Call::Register)?;
            let register = net.faults.register;
            if net.chance(register) {
                return Err(libc::ENOSPC);
            }
            let bits = net.state_bits(handle);
            let socket = net.socket(handle);
            assert!(socket.device.is_none(), "handle {handle} is registered twice");
            socket.device = Some(device);
            socket.pending = bits;
            socket.reported = 0;
            Ok(())
        })
    }

    fn deregister(&self, handle: Handle) {
        self.call(Call::Deregister, handle, |net| {
            let bits = net.state_bits(handle);
            let socket = net.socket(handle);
            let pending = std::mem::take(&mut socket.pending);
            if let Some(device) = socket.device.take() {
                let late = net.faults.late;
                if (pending != 0 || bits != 0) && net.chance(late) {
                    net.late.push((device, Readiness(pending | bits)));
                }
            }
        });
    }

    fn poll(&self, wait: Option<Duration>, events: &mut Events) {
        assert!(!self.polling.swap(true, Ordering::AcqRel), "two threads poll at once");
        self.tell(Call::Poll, When::Before);
        let mut net = self.net.lock();
        if wait != Some(Duration::ZERO) && !net.has_events() {
            let most = wait.map_or(TICK, |wait| wait.min(TICK));
            net = self.net.wait_while(net, Some(most), |net| !net.has_events());
            events.ticked = !net.has_events();
        }
        net.collect(events);
        drop(net);
        self.tell(Call::Poll, When::After);
        self.polling.store(false, Ordering::Release);
    }

    fn kick(&self) {
        self.net.lock().kicked = true;
        self.wake();
    }

    fn set_deadline(&self, at: Option<Instant>) {
        self.net.lock().deadline = at;
        self.wake();
    }

    fn used(&self, handle: Handle, side: Side, _outcome: Outcome) {
        self.net.lock().socket(handle).untold[side as usize] = None;
    }

    fn pollable(&self) -> Option<rustix::fd::BorrowedFd<'_>> {
        None
    }

    fn now(&self) -> Instant {
        self.net.lock().time
    }
}
