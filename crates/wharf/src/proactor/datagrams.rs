//! Datagrams: one call for each; the kernel has no call for several.

use super::device::DeviceState;
use super::direction::Concluded;
use super::port::Port;
use super::record::{Extra, Record};
use super::streams::{pieces_left, pieces_or_nothing};
use crate::op::{Buffers, Datagram, Issued, Kind, Operation, Payload, Side, Sink};
use crate::op::{DeviceKind, Incoming, Outgoing};
use crate::sync::Arc;
use crate::sys::calls::{self as sys, Called, FromRoom, OVERLAPPED};
use crate::sys::errno::{EBADF, EINVAL, EMSGSIZE};
use std::net::SocketAddr;

/// The longest datagram: what a length of 16 bits can say, without UDP's own header.
const DATAGRAM_MAX: usize = 65535 - 8;
/// An IPv4 header is counted, too. Nothing longer is given to the system: some say so twice, by the call and by a
/// packet.
const DATAGRAM_MAX_V4: usize = DATAGRAM_MAX - 20;

impl Port {
    #[allow(unsafe_code)]
    pub(crate) unsafe fn receive_from(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::Datagram || buffers.is_empty_list() {
            return Err(EINVAL);
        }
        let pooled = matches!(buffers, Buffers::Pooled).then(|| self.driver().pool.take());
        let operation = Operation::new(Kind::ReceivedFrom, token, sink, buffers);
        self.issue(device, Side::Receive, operation, Extra::From(FromRoom::new(), pooled))
    }

    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_to(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        to: Option<SocketAddr>,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::Datagram || matches!(buffers, Buffers::Pooled) {
            return Err(EINVAL);
        }
        if buffers.total() > DATAGRAM_MAX {
            return Err(EMSGSIZE);
        }
        let operation = Operation::new(Kind::SentTo, token, sink, buffers).with_address(to);
        self.issue(device, Side::Send, operation, Extra::None)
    }

    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_to_many(
        &self,
        device: &Arc<DeviceState>,
        datagrams: Vec<Outgoing>,
    ) -> Vec<Result<Issued, i32>> {
        let issue = |Outgoing { buffers, to, token, sink }| {
            // SAFETY: by the contract.
            unsafe { self.send_to(device, buffers, to, token, sink) }
        };
        datagrams.into_iter().map(issue).collect()
    }

    #[allow(unsafe_code)]
    pub(crate) unsafe fn receive_from_many(
        &self,
        device: &Arc<DeviceState>,
        receives: Vec<Incoming>,
    ) -> Vec<Result<Issued, i32>> {
        let issue = |Incoming { buffers, token, sink }| {
            // SAFETY: by the contract.
            unsafe { self.receive_from(device, buffers, token, sink) }
        };
        receives.into_iter().map(issue).collect()
    }

    pub(crate) fn report_refusals(&self, device: &Arc<DeviceState>, on: bool) -> Result<(), i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::Datagram {
            return Err(EINVAL);
        }
        if !device.enter() {
            return Err(EBADF);
        }
        let result = sys::report_refusals(device.handle(), on);
        device.leave();
        result
    }
}

#[allow(unsafe_code)]
pub(super) unsafe fn receive(device: &DeviceState, record: &mut Record, overlapped: *mut OVERLAPPED) -> Called {
    let mut pieces = pieces_left(&record.operation);
    let Extra::From(from, pooled) = &mut record.extra else { return Called::Failed(EINVAL) };
    pieces.extend(pooled.as_mut().map(|buffer| buffer.space()));
    let pieces = pieces_or_nothing(pieces);
    // SAFETY: the record stays, with what the operation names, the pool's buffer and the boxed room.
    unsafe { sys::receive_from(device.handle(), &pieces, &raw mut **from, overlapped) }
}

#[allow(unsafe_code)]
pub(super) unsafe fn send(device: &DeviceState, record: &mut Record, overlapped: *mut OVERLAPPED) -> Called {
    let pieces = pieces_or_nothing(pieces_left(&record.operation));
    let family = record.operation.address().copied().or_else(|| sys::address_of(device.handle()));
    if family.is_some_and(|address| address.is_ipv4()) && record.operation.total() > DATAGRAM_MAX_V4 {
        return Called::Failed(EMSGSIZE);
    }
    // SAFETY: the record stays, with what the operation names.
    unsafe { sys::send_to(device.handle(), &pieces, record.operation.address(), overlapped) }
}

pub(super) fn received(mut record: Box<Record>, bytes: usize, error: i32) -> Concluded {
    let Extra::From(from, pooled) = std::mem::replace(&mut record.extra, Extra::None) else {
        unreachable!("a datagram receive has its room")
    };
    let cut = error == EMSGSIZE;
    if error != 0 && !cut {
        return Concluded::Ended(record, error, Payload::None);
    }
    let space = pooled.as_ref().map_or_else(|| record.operation.buffers.total(), |_| usize::MAX);
    let bytes = bytes.min(space);
    record.operation.done = bytes;
    let datagram = Datagram { bytes, from: from.address.get(), truncated: cut, segment: 0 };
    Concluded::Ended(record, error, Payload::Datagram(Box::new((datagram, pooled))))
}
