//! Datagrams in and out: what the system's `recvmsg` tells beside the bytes (who sent it, whether it was cut off, and with
//! receive offload how long the pieces are) is not to be had through simpler calls. Several go through one `recvmmsg` or
//! `sendmmsg`.
//!
//! Both of these end early when something goes wrong behind the first datagram. `recvmmsg` keeps the error for the next
//! call; `sendmmsg` forgets it, so the next call meets it again, unless it was one that a socket tells once: a refusal by a
//! peer. Whoever calls [`send_many`] has to know that.

use super::{Handle, Pieces};
use crate::operation::{Datagram, RawBuffer};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Enough for the one number that receive offload adds, and for what a program may have asked for beside.
const CONTROL_BYTES: usize = 128;

#[repr(align(8))]
#[derive(Clone, Copy)]
struct Control([MaybeUninit<u8>; CONTROL_BYTES]);

const NO_CONTROL: Control = Control([MaybeUninit::uninit(); CONTROL_BYTES]);

/// Room for an internet address of either family. Of others only the family is looked at, which always fits.
type Address = libc::sockaddr_in6;

#[allow(unsafe_code)]
fn no_address() -> Address {
    // SAFETY: all-zero is a valid value of this plain C structure.
    unsafe { std::mem::zeroed() }
}

fn iovec(piece: &RawBuffer) -> libc::iovec {
    libc::iovec { iov_base: piece.pointer.cast(), iov_len: piece.length }
}

/// A header that names these pieces, and room for an address. It holds pointers only: what they lead to must outlive it.
#[allow(unsafe_code)]
fn header(pieces: &mut [libc::iovec], address: Option<(&mut Address, usize)>) -> libc::msghdr {
    // SAFETY: all-zero is a valid value of this plain C structure.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    if let Some((address, length)) = address {
        header.msg_name = std::ptr::from_mut(address).cast();
        header.msg_namelen = socklen(length);
    }
    header.msg_iov = pieces.as_mut_ptr();
    // Its type differs between C libraries.
    header.msg_iovlen = pieces.len() as _;
    header
}

fn control(header: &mut libc::msghdr, control: &mut Control) {
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES as _;
}

/// Repeats a call that a signal interrupts.
fn retry(mut call: impl FnMut() -> isize) -> Result<usize, i32> {
    loop {
        if let Ok(count) = usize::try_from(call()) {
            return Ok(count);
        }
        match io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            error => return Err(error.unwrap_or(libc::EIO)),
        }
    }
}

#[allow(unsafe_code)]
pub(super) fn receive(handle: Handle, into: &[RawBuffer]) -> Result<Datagram, i32> {
    let (mut one, mut many): ([libc::iovec; 1], Vec<libc::iovec>);
    let pieces: &mut [libc::iovec] = match into {
        [piece] => {
            one = [iovec(piece)];
            &mut one
        }
        _ => {
            many = into.iter().map(iovec).collect();
            &mut many
        }
    };
    let (mut address, mut room) = (no_address(), NO_CONTROL);
    let mut header = header(pieces, Some((&mut address, size_of::<Address>())));
    control(&mut header, &mut room);
    // SAFETY: the header names memory that lives here and is as long as it says; the pieces are the operation's own
    // until its packet (see `raw`), and the descriptor is open (`Device::enter`).
    let bytes = retry(|| unsafe { libc::recvmsg(handle, &mut header, 0) })?;
    Ok(found(bytes, &header, &address))
}

fn found(bytes: usize, header: &libc::msghdr, address: &Address) -> Datagram {
    let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
    Datagram { bytes, from: to_std(address), truncated, segment: segment(header) }
}

/// One datagram into each of `into`, as many as there are.
#[allow(unsafe_code)]
pub(super) fn receive_many(handle: Handle, into: &Pieces, taken: &mut Vec<Datagram>) -> Result<(), i32> {
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
        libc::recvmmsg(handle, headers.as_mut_ptr(), headers.len() as _, 0, std::ptr::null_mut()) as isize
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
fn segment(header: &libc::msghdr) -> usize {
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

#[allow(unsafe_code)]
fn to_std(address: &Address) -> Option<SocketAddr> {
    match i32::from(address.sin6_family) {
        libc::AF_INET => {
            // SAFETY: the room is larger than this, aligned alike, and the family says that it is this.
            let v4 = unsafe { &*std::ptr::from_ref(address).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            let (port, flow) = (u16::from_be(address.sin6_port), u32::from_be(address.sin6_flowinfo));
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, flow, address.sin6_scope_id)))
        }
        _ => None,
    }
}

/// The system's form of an address, and how long it is.
#[allow(unsafe_code)]
fn from_std(address: &SocketAddr) -> (Address, usize) {
    let mut room = no_address();
    match address {
        SocketAddr::V4(v4) => {
            // SAFETY: the room is larger than this, aligned alike, and all-zero is a value of it.
            let own = unsafe { &mut *std::ptr::from_mut(&mut room).cast::<libc::sockaddr_in>() };
            own.sin_family = libc::AF_INET as libc::sa_family_t;
            own.sin_port = v4.port().to_be();
            own.sin_addr.s_addr = u32::from(*v4.ip()).to_be();
            (room, size_of::<libc::sockaddr_in>())
        }
        SocketAddr::V6(v6) => {
            room.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            room.sin6_port = v6.port().to_be();
            room.sin6_flowinfo = v6.flowinfo().to_be();
            room.sin6_addr.s6_addr = v6.ip().octets();
            room.sin6_scope_id = v6.scope_id();
            (room, size_of::<Address>())
        }
    }
}

#[allow(unsafe_code)]
pub(super) fn send(handle: Handle, from: &[RawBuffer], to: Option<&SocketAddr>) -> Result<(), i32> {
    let mut pieces: Vec<libc::iovec> = from.iter().map(iovec).collect();
    let mut to = to.map(from_std);
    let header = header(&mut pieces, to.as_mut().map(|(address, length)| (address, *length)));
    // SAFETY: the header names memory that lives here and is as long as it says; the pieces are unchanged until the
    // operation's packet (see `raw`), and the descriptor is open (`Device::enter`).
    retry(|| unsafe { libc::sendmsg(handle, &header, libc::MSG_NOSIGNAL) }).map(drop)
}

/// Each of `from` as one datagram, to the address beside it. Returns how many the system took; an error is the first's.
#[allow(unsafe_code)]
pub(super) fn send_many(handle: Handle, from: &Pieces, to: &[Option<SocketAddr>]) -> Result<usize, i32> {
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
    retry(|| unsafe { libc::sendmmsg(handle, headers.as_mut_ptr(), headers.len() as _, libc::MSG_NOSIGNAL) as isize })
}

/// Has the system keep a list of refusals for the socket, with the address that each came from, or stop doing so.
pub(super) fn keep_refusals(handle: Handle, keep: bool) -> Result<(), i32> {
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
pub(super) fn refusal(handle: Handle) -> Result<(i32, Option<SocketAddr>), i32> {
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

/// Whether the socket is connected to a peer.
#[allow(unsafe_code)]
pub(super) fn has_peer(handle: Handle) -> bool {
    let (mut address, mut length) = (no_address(), socklen(size_of::<Address>()));
    // SAFETY: the room lives here and is as long as the call is told.
    unsafe { libc::getpeername(handle, std::ptr::from_mut(&mut address).cast(), &mut length) == 0 }
}

/// Sets a number of UDP's own on a socket.
pub(crate) fn set_option(fd: rustix::fd::BorrowedFd<'_>, option: i32, value: i32) -> io::Result<()> {
    use rustix::fd::AsRawFd;
    set(fd.as_raw_fd(), libc::SOL_UDP, option, value).map_err(io::Error::from_raw_os_error)
}

#[allow(unsafe_code)]
fn set(handle: Handle, level: i32, option: i32, value: i32) -> Result<(), i32> {
    let length = socklen(size_of_val(&value));
    // SAFETY: the value is an int that lives for the length of the call, and the descriptor is open.
    let set = || unsafe { libc::setsockopt(handle, level, option, std::ptr::from_ref(&value).cast(), length) as isize };
    retry(set).map(drop)
}

fn socklen(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).unwrap_or(libc::socklen_t::MAX)
}
