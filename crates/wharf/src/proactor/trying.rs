//! Calls on borrowed memory: they move what can be moved now, and are no operations. They are made only where the
//! kernel has no operation of that side, under the side's lock, so that none is given to it meanwhile.

use super::device::{DeviceState, shut};
use super::direction::Direction;
use super::port::Port;
use super::streams::{PIECES_MAX, may_issue, note_broken, note_broken_receive, note_end};
use crate::op::{RawBuffer, Side};
use crate::sync::{Arc, Guard};
use crate::sys::calls as sys;
use crate::sys::errno::{EBADF, ESHUTDOWN, EWOULDBLOCK};
use std::sync::atomic::Ordering;

/// The pieces that one call takes.
fn pieces(given: &[RawBuffer]) -> Vec<RawBuffer> {
    given.iter().filter(|piece| piece.length > 0).take(PIECES_MAX).copied().collect()
}

impl Port {
    /// The side of a stream for a call of the caller's own, if nothing is outstanding there.
    fn free_side<'a>(&self, device: &'a Arc<DeviceState>, side: Side) -> Result<Guard<'a, Direction>, i32> {
        let device = self.own(device)?;
        self.check()?;
        may_issue(device, side)?;
        let direction = device.direction(side).lock();
        if direction.closed {
            return Err(EBADF);
        }
        if side == Side::Send && device.shut.load(Ordering::Acquire) & shut::SEND != 0 {
            return Err(ESHUTDOWN);
        }
        if direction.pending() > 0 {
            return Err(EWOULDBLOCK);
        }
        Ok(direction)
    }

    /// # Safety
    ///
    /// The memory is valid for reading and initialised during the call.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_borrowed(&self, device: &Arc<DeviceState>, from: &[RawBuffer]) -> Result<usize, i32> {
        let _side = self.free_side(device, Side::Send)?;
        let from = pieces(from);
        if from.is_empty() {
            return Ok(0);
        }
        if !device.enter() {
            return Err(EBADF);
        }
        // SAFETY: by the contract; the handle is kept open.
        let result = unsafe { sys::send_now(device.handle(), &from) };
        device.leave();
        match result {
            Ok(bytes) => drop(device.taken.fetch_add(bytes as u64, Ordering::Relaxed)),
            Err(error) => note_broken(device, error),
        }
        result
    }

    /// # Safety
    ///
    /// The memory is valid for writing during the call, and nobody else's.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn receive_borrowed(&self, device: &Arc<DeviceState>, into: &[RawBuffer]) -> Result<usize, i32> {
        let _side = self.free_side(device, Side::Receive)?;
        let into = pieces(into);
        if into.is_empty() {
            return Ok(0);
        }
        if !device.enter() {
            return Err(EBADF);
        }
        // SAFETY: as above.
        let result = unsafe { sys::receive_now(device.handle(), &into) };
        device.leave();
        match result {
            Ok(bytes) => note_end(device, bytes),
            Err(error) => note_broken_receive(device, error),
        }
        result
    }
}
