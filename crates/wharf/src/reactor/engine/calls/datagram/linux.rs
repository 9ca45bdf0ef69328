//! Many datagrams in one system call, refusals in a list, and offload.
//!
//! `recvmmsg` and `sendmmsg` end early when something goes wrong behind the first datagram. `recvmmsg` keeps the error
//! for the next call; `sendmmsg` forgets it, so the next call meets it again, unless it was one that a socket tells
//! once: a refusal by a peer. Whoever calls [`send_many`] has to know that.
//!
//! They are called by number: not every C library of the kernel has them by name.

use super::{Address, NO_CONTROL};
use super::{control, found, from_std, header, iovec, no_address, retry, socklen, to_std};
use crate::op::Datagram;
use crate::reactor::engine::calls::Pieces;
use crate::sys::Handle;
use std::net::SocketAddr;

/// One datagram into each of `into`, as many as there are.
#[allow(unsafe_code)]
pub(crate) fn receive_many(handle: Handle, into: &Pieces, taken: &mut Vec<Datagram>) -> Result<(), i32> {
    let mut pieces: Vec<libc::iovec> = into.all().iter().map(iovec).collect();
    let mut addresses = vec![no_address(); into.len()];
    let mut rooms = vec![NO_CONTROL; into.len()];
    let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(into.len());
    let mut rest = &mut pieces[..];
    for ((count, address), room) in into.counts().zip(&mut addresses).zip(&mut rooms) {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(count);
        rest = others;
        let mut msg_hdr = header(own, Some((address, size_of::<Address>())));
        control(&mut msg_hdr, room);
        headers.push(libc::mmsghdr { msg_hdr, msg_len: 0 });
    }
    // SAFETY: as in `receive`, for each header; there are as many as the call is told. A null time is none.
    let count = retry(|| unsafe {
        let (list, count) = (headers.as_mut_ptr(), headers.len());
        let no_time = std::ptr::null_mut::<libc::timespec>();
        libc::syscall(libc::SYS_recvmmsg, handle, list, count, libc::MSG_DONTWAIT, no_time) as isize
    })?;
    let each = headers.iter().zip(&addresses).take(count);
    taken.extend(each.map(|(one, address)| found(one.msg_len as usize, &one.msg_hdr, address)));
    Ok(())
}

/// Calls `call` with each message that came beside a datagram, until it gives something.
#[allow(unsafe_code)]
fn beside<R>(header: &libc::msghdr, mut call: impl FnMut(&libc::cmsghdr, *const u8) -> Option<R>) -> Option<R> {
    // SAFETY: the kernel has filled the control memory that the header names, as these macros expect it, and
    // `msg_controllen` says how far.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: as above, the macros return null or a whole header within the memory.
        let (one, data) = unsafe { (&*message, libc::CMSG_DATA(message)) };
        if let Some(result) = call(one, data) {
            return Some(result);
        }
        // SAFETY: as above.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

/// The length of the pieces that receive offload has put together.
pub(crate) fn segment(header: &libc::msghdr) -> usize {
    let length = beside(header, |message, data| {
        if (message.cmsg_level, message.cmsg_type) != (libc::SOL_UDP, libc::UDP_GRO) {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: this message carries an int.
        Some(unsafe { data.cast::<libc::c_int>().read_unaligned() })
    });
    length.map_or(0, |length| usize::try_from(length).unwrap_or(0))
}

/// Each of `from` as one datagram, to the address beside it. Returns how many the system took; an error is the first's.
#[allow(unsafe_code)]
pub(crate) fn send_many(handle: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32> {
    debug_assert_eq!(from.len(), to.len());
    let mut pieces: Vec<libc::iovec> = from.all().iter().map(iovec).collect();
    let mut addresses: Vec<Option<(Address, usize)>> = to.iter().map(|to| to.as_ref().map(from_std)).collect();
    let mut headers: Vec<libc::mmsghdr> = Vec::with_capacity(from.len());
    let mut rest = &mut pieces[..];
    for (count, address) in from.counts().zip(&mut addresses) {
        let (own, others) = std::mem::take(&mut rest).split_at_mut(count);
        rest = others;
        let msg_hdr = header(own, address.as_mut().map(|(address, length)| (address, *length)));
        headers.push(libc::mmsghdr { msg_hdr, msg_len: 0 });
    }
    // SAFETY: as in `send`, for each header; there are as many as the call is told.
    retry(|| unsafe {
        let (list, count) = (headers.as_mut_ptr(), headers.len());
        libc::syscall(libc::SYS_sendmmsg, handle, list, count, libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT) as isize
    })
}

/// Has the system keep a list of refusals for the socket, with the address that each came from, or stop doing so.
pub(crate) fn keep_refusals(handle: Handle, keep: bool) -> Result<(), i32> {
    let on = i32::from(keep);
    match set(handle, libc::SOL_IPV6, libc::IPV6_RECVERR, on) {
        // A socket of IPv6 can have peers of IPv4, whose refusals are a matter of that option. Older kernels have none
        // for such a socket.
        Ok(()) => drop(set(handle, libc::SOL_IP, libc::IP_RECVERR, on)),
        Err(_) => set(handle, libc::SOL_IP, libc::IP_RECVERR, on)?,
    }
    Ok(())
}

/// Takes the next refusal off the list: what it says, and about a datagram to whom. `EAGAIN`: there is none.
///
/// The list also has what a send was told in its call already (too long, say): that is passed over.
#[allow(unsafe_code)]
pub(crate) fn refusal(handle: Handle) -> Result<(i32, Option<SocketAddr>), i32> {
    loop {
        let (mut address, mut room) = (no_address(), NO_CONTROL);
        // No memory for the datagram that was refused: it was the program's own.
        let mut header = header(&mut [], Some((&mut address, size_of::<Address>())));
        control(&mut header, &mut room);
        // SAFETY: as in `receive`; there are no pieces.
        retry(|| unsafe { libc::recvmsg(handle, &mut header, libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT) })?;
        let error = beside(&header, |message, data| match (message.cmsg_level, message.cmsg_type) {
            (libc::SOL_IP, libc::IP_RECVERR) | (libc::SOL_IPV6, libc::IPV6_RECVERR) => {
                // SAFETY: this message begins with this structure.
                Some(unsafe { data.cast::<libc::sock_extended_err>().read_unaligned() })
            }
            _ => None,
        });
        let from_network = |error: &libc::sock_extended_err| {
            matches!(error.ee_origin, libc::SO_EE_ORIGIN_ICMP | libc::SO_EE_ORIGIN_ICMP6)
        };
        if let Some(error) = error.filter(from_network) {
            return Ok((i32::try_from(error.ee_errno).unwrap_or(libc::EIO), to_std(&address)));
        }
    }
}

#[allow(unsafe_code)]
fn set(handle: Handle, level: i32, option: i32, value: i32) -> Result<(), i32> {
    let length = socklen(size_of_val(&value));
    // SAFETY: the value is an int that lives for the length of the call, and the descriptor is open.
    let set = || unsafe { libc::setsockopt(handle, level, option, std::ptr::from_ref(&value).cast(), length) as isize };
    retry(set).map(drop)
}
