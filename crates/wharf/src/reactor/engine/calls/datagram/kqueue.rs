//! Where a system call takes one datagram, and no list of refusals is kept.

use crate::op::{Datagram, RawBuffer};
use crate::reactor::engine::calls::Pieces;
use crate::sys::Handle;
use std::net::SocketAddr;

/// One datagram into each of `into`, as many as there are.
pub(crate) fn receive_many(handle: Handle, into: &Pieces, taken: &mut Vec<Datagram>) -> Result<(), i32> {
    let mut rest = into.all();
    for (at, count) in into.counts().enumerate() {
        let (own, others) = rest.split_at(count);
        rest = others;
        match super::receive(handle, own) {
            Ok(one) => taken.push(one),
            Err(error) if at == 0 => return Err(error),
            // Told by the next call, or meant for it: nothing is lost that a call without blocking has not taken.
            Err(_) => break,
        }
    }
    Ok(())
}

/// Each of `from` as one datagram, to the address beside it. Returns how many the system took; an error is the first's.
pub(crate) fn send_many(handle: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32> {
    let mut rest = from.all();
    for (at, (count, to)) in from.counts().zip(to).enumerate() {
        let (own, others): (&[RawBuffer], _) = rest.split_at(count);
        rest = others;
        match super::send(handle, own, to.as_ref()) {
            Ok(()) => {}
            Err(error) if at == 0 => return Err(error),
            Err(_) => return Ok(at),
        }
    }
    Ok(from.len())
}

/// Only Linux keeps a list of refusals.
pub(crate) fn keep_refusals(_handle: Handle, keep: bool) -> Result<(), i32> {
    if keep { Err(libc::EOPNOTSUPP) } else { Ok(()) }
}

pub(crate) fn refusal(_handle: Handle) -> Result<(i32, Option<SocketAddr>), i32> {
    Err(libc::EAGAIN)
}

/// The length of the pieces that receive offload has put together: there is none.
pub(crate) fn segment(_header: &libc::msghdr) -> usize {
    0
}
