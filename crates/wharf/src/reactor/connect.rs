//! Connecting: the first turn of a stream's send side.

use super::{
    Buffers, EADDRNOTAVAIL, EBADF, ECANCELED, ECONNRESET, EINPROGRESS, EINVAL, EISCONN, ETIMEDOUT, Issued, Kind,
    Payload, Port, Side, Sink, finish,
};
use crate::op::Operation;
use crate::op::phase;
use crate::reactor::device::DeviceState;
use crate::reactor::direction::{Direction, Turn};
use crate::sync::{Arc, Guard};
use crate::sys::errno::{ECONNREFUSED, EHOSTUNREACH, ENETUNREACH};
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How often a connect looks whether the last turn is over before it sleeps between two looks, and how long.
const PATIENCE: u32 = 64;
const PAUSE: Duration = Duration::from_micros(50);

impl Port {
    pub(crate) fn connect(
        &self,
        device: &Arc<DeviceState>,
        peer: &SocketAddr,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        self.check()?;
        if peer.ip().is_unspecified() || peer.port() == 0 {
            return Err(EADDRNOTAVAIL);
        }
        let begun = device.phase.compare_exchange(phase::FRESH, phase::CONNECTING, Ordering::AcqRel, Ordering::Acquire);
        match begun {
            Ok(_) => {}
            Err(phase::CONNECTED) => return Err(EISCONN),
            Err(_) => return Err(EINVAL),
        }
        device.sticky.store(0, Ordering::Release);
        device.failed_receive.store(0, Ordering::Release);
        device.failed_send.store(0, Ordering::Release);
        let mut operation = Operation::new(Kind::Connected, token, sink, Buffers::None);
        // Space is what tells that a connect has ended.
        device.wants_space.store(true, Ordering::SeqCst);
        let serial = {
            let mut direction = match self.after_the_last_turn(device) {
                Ok(direction) => direction,
                Err(error) => {
                    device.phase.store(phase::FRESH, Ordering::Release);
                    return Err(error);
                }
            };
            // From here on a cancel finds it.
            direction.begin();
            operation.serial = direction.next_serial();
            direction.run(operation.serial);
            operation.serial
        };
        let id = Port::id(device, serial);
        let result = self.begin_connecting(device, peer);
        let mut direction = device.send.lock();
        let ended = direction.must_end(&operation);
        let reset = result == Err(ECONNRESET);
        let error = match result {
            Ok(()) | Err(ECONNRESET) if direction.closed => ECANCELED,
            Ok(()) | Err(ECONNRESET) => 0,
            Err(EINPROGRESS) if ended => ECANCELED,
            Err(EINPROGRESS) => {
                direction.operations.push_back(operation);
                let left = direction.let_go(true);
                drop(direction);
                self.turn_over(device, Side::Send, left);
                return Ok(Issued::Pending(id));
            }
            Err(error) => error,
        };
        if error == 0 {
            device.wants_space.store(false, Ordering::SeqCst);
            if reset {
                // The system has told it, and told what had come to nobody.
                device.failed_receive.store(ECONNRESET, Ordering::Release);
                device.failed_send.store(ECONNRESET, Ordering::Release);
            }
        }
        let left = direction.let_go(false);
        drop(direction);
        match error {
            0 => device.phase.store(phase::CONNECTED, Ordering::Release),
            ECANCELED => self.abort_connect(device),
            _ => device.phase.store(phase::FRESH, Ordering::Release),
        }
        self.turn_over(device, Side::Send, left);
        match error {
            // Ends of the attempt, which come as a packet however soon they are known.
            0 | ECANCELED | ECONNREFUSED | ENETUNREACH | EHOSTUNREACH | ETIMEDOUT => {}
            error => return Err(error),
        }
        let at_once = device.skip_on_success.load(Ordering::Relaxed) && operation.is_for_port();
        let (sink, completion) = finish(device, operation, error, Payload::None);
        if error == 0 && at_once {
            return Ok(Issued::Done(completion));
        }
        self.deliver(sink, completion);
        Ok(Issued::Pending(id))
    }

    /// The send side of a device that nothing runs on. The thread that has delivered the last packet may still own it:
    /// the packet comes out first, and a moment later the turn is over (in this order, so that no other's packet comes
    /// before).
    fn after_the_last_turn<'a>(&self, device: &'a DeviceState) -> Result<Guard<'a, Direction>, i32> {
        let mut looks = 0;
        loop {
            let direction = device.send.lock();
            if direction.closed {
                return Err(EBADF);
            }
            if direction.turn != Turn::Running {
                return Ok(direction);
            }
            if direction.pending() > 0 {
                return Err(EINVAL);
            }
            drop(direction);
            // A port that is closed disposes of what cannot be delivered, and runs destructors of the program's.
            self.check()?;
            looks += 1;
            if looks < PATIENCE { std::thread::yield_now() } else { std::thread::sleep(PAUSE) }
        }
    }

    /// Registered only when the system has begun: a fresh socket would report that it is ready, and hung up, at once.
    fn begin_connecting(&self, device: &DeviceState, peer: &SocketAddr) -> Result<(), i32> {
        let result = self.engine().calls().connect(device.handle, peer);
        // From an earlier attempt it may still be registered.
        self.engine().waits_for_connect(device.handle);
        if matches!(result, Ok(()) | Err(EINPROGRESS)) {
            if let Err(error) = self.register(device) {
                self.engine().calls().abort_connect(device.handle);
                return Err(error);
            }
        }
        result
    }

    /// A cancelled connect must not be made after all (row N-11). The socket may connect anew.
    pub(super) fn abort_connect(&self, device: &DeviceState) {
        if device.enter() {
            self.engine().calls().abort_connect(device.handle);
            self.leave(device);
        }
        device.phase.store(phase::FRESH, Ordering::Release);
    }
}
