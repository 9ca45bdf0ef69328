//! Calls on borrowed memory, in the stream's turn: they move what can be moved now, and are no operations.
//!
//! They take the direction's turn as an operation does, and only where nothing is outstanding on it: so they tear no
//! send that is half out, and take no byte that an outstanding receive is to have. What is issued during the call waits
//! for its end, as behind any owner of the turn.

use super::send::{Attempt, take_batch};
use super::{
    DeviceKind, DeviceState, EAGAIN, EBADF, EINVAL, PIECES_MAX, Port, RawBuffer, Side,
    receive::{Attempt as Received, may_receive},
};
use crate::sync::Arc;
use std::sync::atomic::Ordering;

/// The pieces that one call takes.
fn pieces(given: &[RawBuffer]) -> impl Iterator<Item = RawBuffer> {
    given.iter().filter(|piece| piece.length > 0).take(PIECES_MAX).copied()
}

impl Port {
    /// # Safety
    ///
    /// The memory is valid for reading and initialised during the call.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_borrowed(&self, device: &Arc<DeviceState>, from: &[RawBuffer]) -> Result<usize, i32> {
        let device = self.own(device)?;
        if !matches!(device.kind, DeviceKind::Stream | DeviceKind::Handle) {
            return Err(EINVAL);
        }
        self.may_send(device)?;
        let nothing = from.iter().all(|piece| piece.length == 0);
        let mut direction = self.open_send_side(device)?;
        if !direction.is_free() {
            return Err(EAGAIN);
        }
        if nothing {
            return Ok(0);
        }
        let serial = direction.next_serial();
        direction.begin();
        direction.run(serial);
        drop(direction);
        let attempt = match from {
            [one] => self.try_pieces(device, &[*one]),
            _ => self.try_pieces(device, &pieces(from).collect::<Vec<_>>()),
        };
        let (result, mut drained) = match attempt {
            Attempt::Done { bytes, short } => (Ok(bytes), short),
            Attempt::Failed(error) => (Err(error), false),
            _ => (Err(EAGAIN), true),
        };
        let mut direction = device.send.lock();
        if drained && !device.wants_space.load(Ordering::Relaxed) {
            // Space that came until now went unheard: the next attempt looks for itself.
            device.wants_space.store(true, Ordering::SeqCst);
            drained = false;
        }
        drained &= !direction.edge && !direction.needs_no_space();
        direction.forget_cancelled();
        // Issued meanwhile, by other threads: they would have been tried in the call.
        let others = if drained || direction.closed { None } else { take_batch(device, &mut direction) };
        if let Some(others) = others {
            drop(direction);
            self.execute_sends(device, others, None, 0..0, &mut |_, _| {});
        } else {
            let left = direction.let_go(drained);
            drop(direction);
            self.turn_over(device, Side::Send, left);
        }
        result
    }

    /// # Safety
    ///
    /// The memory is valid for writing during the call, and nobody else's.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn receive_borrowed(&self, device: &Arc<DeviceState>, into: &[RawBuffer]) -> Result<usize, i32> {
        let device = self.own(device)?;
        may_receive(device)?;
        self.is_open()?;
        let mut direction = device.receive.lock();
        if direction.closed {
            return Err(EBADF);
        }
        if !direction.is_free() {
            return Err(EAGAIN);
        }
        let several: Vec<RawBuffer>;
        let into = match into {
            [one] if one.length > 0 => std::slice::from_ref(one),
            _ => {
                several = pieces(into).collect();
                &several
            }
        };
        let space: usize = into.iter().map(|piece| piece.length).sum();
        if space == 0 {
            return Ok(0);
        }
        let serial = direction.next_serial();
        direction.begin();
        direction.run(serial);
        drop(direction);
        let (result, drained) = match self.receive_into(device, into, None) {
            Received::Done { bytes, more_likely, .. } => (Ok(bytes), !more_likely),
            Received::NotNow => (Err(EAGAIN), true),
            Received::Failed(error) | Received::Refused(error, _) => (Err(error), false),
        };
        let left = device.receive.lock().let_go(drained);
        self.turn_over(device, Side::Receive, left);
        result
    }
}
