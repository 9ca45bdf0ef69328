//! One outstanding operation, as the kernel and this crate share it.

use super::children::Wait;
use super::device::DeviceState;
use crate::op::buffer::PoolBuffer;
use crate::op::{Kind, Operation, Side};
use crate::sync::Arc;
use crate::sys::calls::{AcceptRoom, Around, Completions, FromRoom, OVERLAPPED};
use std::net::SocketAddr;

/// See [`super`]. The kernel knows it by the address of its first field.
#[repr(C)]
pub(super) struct Record {
    pub(super) overlapped: OVERLAPPED,
    pub(super) device: Arc<DeviceState>,
    pub(super) operation: Operation,
    pub(super) extra: Extra,
    /// Asked to end: it does not go on when the present call has ended.
    pub(super) cancelled: bool,
}

const _: () = assert!(std::mem::offset_of!(Record, overlapped) == 0);

/// What kinds of operations have beside what all have. What the kernel writes to is boxed, so that it does not move.
pub(super) enum Extra {
    None,
    /// A connection's socket, made beforehand, and the room for its addresses.
    Accept(Box<AcceptRoom>),
    Connect(SocketAddr),
    /// Who sent a datagram; and the pool's buffer, if it goes there.
    From(Box<FromRoom>, Option<PoolBuffer>),
    /// Where in a file; `None`: behind its end.
    At(Option<u64>),
    /// A sync, until one of the system's threads has it.
    Sync(Option<Box<super::files::Work>>),
    /// The last step of a send of parts: so many bytes of the file, of so many in all.
    Step {
        bytes: usize,
        ends_early: bool,
        /// Memory that the call names: kept, and not looked at.
        _around: Option<Box<Around>>,
    },
    /// A wait for a process: where its packet goes, and the wait, once the system has it.
    Child(Arc<Completions>, Option<Wait>),
}

impl Record {
    pub(super) fn new(device: &Arc<DeviceState>, operation: Operation, extra: Extra) -> Box<Record> {
        Box::new(Record {
            overlapped: OVERLAPPED::default(),
            device: device.clone(),
            operation,
            extra,
            cancelled: false,
        })
    }

    pub(super) fn side(&self) -> Side {
        Side::of(self.operation.serial)
    }

    /// It may take several calls.
    pub(super) fn goes_on(&self) -> bool {
        self.is_alone() && self.operation.kind != Kind::Disconnected
    }

    /// No other operation of its side may be in the kernel's hands beside it: it takes several calls, or it ends what
    /// goes before it.
    pub(super) fn is_alone(&self) -> bool {
        match self.operation.kind {
            Kind::SentFile | Kind::Disconnected => true,
            Kind::Sent => !super::streams::fits_one_call(&self.operation),
            Kind::Received => {
                matches!(self.operation.buffers, crate::op::Buffers::Pooled) || self.operation.waits_for_all()
            }
            _ => false,
        }
    }
}

#[allow(unsafe_code)]
// SAFETY: its raw addresses are of the operation's own memory, and of a structure that the kernel uses; whoever owns
// the record, in whatever thread, owns both.
unsafe impl Send for Record {}

/// A record in the kernel's hands.
#[derive(Clone, Copy)]
pub(super) struct Pointer(pub(super) *mut Record);

#[allow(unsafe_code)]
// SAFETY: a record is owned by whoever dequeues its packet, in any thread; until then it is only named, under its
// direction's lock.
unsafe impl Send for Pointer {}
