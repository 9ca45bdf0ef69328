//! Sends that are done at once.
//!
//! Nearly every send ends in the call that issues it, and a program that has asked for it gets the result there. Such a
//! send is tried before there is an operation, with nothing but the address of its bytes: no record is made, and no
//! completion. The turn is the same as any other's, so the order of issue is kept; and where not all of the bytes went,
//! the record is made then, and the operation goes on as if it had been tried by the call that issues it.

use super::send::{Attempt, Batch, take_batch};
use super::{Buffers, Completion, DeviceKind, EINVAL, Issued, Kind, Payload};
use super::{Port, RawBuffer, Side, Sink};
use crate::op::Operation;
use crate::reactor::device::DeviceState;
use crate::reactor::direction::Turn;
use crate::sync::Arc;
use std::sync::atomic::Ordering;

/// What came of a send that has no record.
pub(crate) enum TrySend {
    /// All bytes were taken. It is over: nobody else hears of it.
    Done,
    /// The caller owns the device's send side, until it passes this to [`Port::send_on`].
    Started(Started),
    /// Others are to go first, or a packet is wanted: nothing was done.
    NotTried,
}

/// A send that was tried and is not over.
#[must_use]
pub(crate) struct Started {
    serial: u64,
    attempt: Attempt,
}

impl Port {
    /// Tries to send one piece of memory, if that may end here (`skip_on_success`). Fails as [`send`](Port::send) does.
    ///
    /// # Safety
    ///
    /// The memory is valid for reading and initialised during the call.
    #[allow(unsafe_code)]
    #[inline]
    pub(crate) unsafe fn send_inline(&self, device: &Arc<DeviceState>, piece: RawBuffer) -> Result<TrySend, i32> {
        let device = self.own(device)?;
        if !device.skip_on_success.load(Ordering::Relaxed) {
            return Ok(TrySend::NotTried);
        }
        self.try_inline(device, piece)
    }

    fn try_inline(&self, device: &Arc<DeviceState>, piece: RawBuffer) -> Result<TrySend, i32> {
        if !matches!(device.kind, DeviceKind::Stream | DeviceKind::Handle) {
            return Err(EINVAL);
        }
        self.may_send(device)?;
        let mut direction = self.open_send_side(device)?;
        if direction.turn != Turn::Idle || direction.drained || !direction.operations.is_empty() {
            return Ok(TrySend::NotTried);
        }
        let serial = direction.next_serial();
        direction.begin();
        direction.run(serial);
        drop(direction);
        let attempt = self.try_pieces(device, &[piece]);
        match attempt {
            Attempt::Done { bytes, short: false } if bytes == piece.length => {}
            attempt => return Ok(TrySend::Started(Started { serial, attempt })),
        }
        let mut direction = device.send.lock();
        direction.forget_cancelled();
        let others = if direction.operations.is_empty() { None } else { take_batch(device, &mut direction) };
        if let Some(others) = others {
            drop(direction);
            // Issued meanwhile, by other threads.
            self.execute_sends(device, others, None, 0..0, &mut |_, _| {});
        } else {
            let left = direction.let_go(false);
            drop(direction);
            self.turn_over(device, Side::Send, left);
        }
        Ok(TrySend::Done)
    }

    /// A send that was started has a token now, and goes on. `buffers` names the memory that was tried.
    ///
    /// # Safety
    ///
    /// As for [`send`](Port::send).
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_on(
        &self,
        device: &Arc<DeviceState>,
        started: Started,
        buffers: Buffers,
        token: usize,
    ) -> Issued {
        let Started { serial, attempt } = started;
        let mut operation = Operation::new(Kind::Sent, token, Sink::Port, buffers);
        operation.serial = serial;
        let mut done = None;
        let wanted = serial..serial + 1;
        let batch = Batch::of(operation);
        self.execute_sends(device, batch, Some(attempt), wanted, &mut |_, completion| done = Some(completion));
        done.map_or(Issued::Pending(Port::id(device, serial)), Issued::Done)
    }
}

/// What [`Port::send`] returns for a send that is over.
pub(super) fn completion(device: &DeviceState, bytes: usize, token: usize) -> Completion {
    Completion {
        key: device.key(),
        token,
        bytes,
        error: 0,
        kind: Kind::Sent,
        device: device.number,
        more: false,
        payload: Payload::None,
        named_memory: true,
    }
}
