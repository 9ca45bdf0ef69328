//! Datagrams in and out: what the system's `recvmsg` tells beside the bytes (who sent it, whether it was cut off, and
//! with receive offload how long the pieces are) is not to be had through simpler calls. What only Linux offers stands
//! in `linux.rs`, and what takes its place elsewhere in `kqueue.rs`.

#[cfg(not(any(target_os = "linux", target_os = "android")))]
mod kqueue;
#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(super) use kqueue::*;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(super) use linux::*;

use super::PIECES_MAX;
pub(super) use crate::op::Datagram;
use crate::op::RawBuffer;
use crate::sys::{self, Handle};
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

/// A header that names these pieces, and room for an address. It holds pointers only: what they lead to must outlive
/// it.
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
    // until its packet (see `raw`), and the descriptor is open (see `calls::borrow`).
    let bytes = retry(|| unsafe { libc::recvmsg(handle, &mut header, libc::MSG_DONTWAIT) })?;
    Ok(found(bytes, &header, &address))
}

fn found(bytes: usize, header: &libc::msghdr, address: &Address) -> Datagram {
    let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
    Datagram { bytes, from: to_std(address), truncated, segment: segment(header) }
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
    let mut whole: Vec<u8>;
    let one;
    let from = if from.len() <= PIECES_MAX {
        from
    } else {
        // More than one call takes, and a datagram has one call.
        whole = Vec::with_capacity(from.iter().map(|piece| piece.length).sum());
        for piece in from.iter().filter(|piece| piece.length > 0) {
            // SAFETY: the pieces are initialised and unchanged until the operation's packet (see `raw`).
            whole.extend_from_slice(unsafe { std::slice::from_raw_parts(piece.pointer, piece.length) });
        }
        one = [RawBuffer { pointer: whole.as_mut_ptr(), length: whole.len() }];
        &one[..]
    };
    let mut pieces: Vec<libc::iovec> = from.iter().map(iovec).collect();
    let mut to = to.map(from_std);
    let header = header(&mut pieces, to.as_mut().map(|(address, length)| (address, *length)));
    // SAFETY: the header names memory that lives here and is as long as it says; the pieces are unchanged until the
    // operation's packet (see `raw`), and the descriptor is open (see `calls::borrow`).
    retry(|| unsafe { libc::sendmsg(handle, &header, sys::SENDMSG | libc::MSG_DONTWAIT) }).map(drop)
}

/// Whether the socket is connected to a peer.
#[allow(unsafe_code)]
pub(super) fn has_peer(handle: Handle) -> bool {
    let (mut address, mut length) = (no_address(), socklen(size_of::<Address>()));
    // SAFETY: the room lives here and is as long as the call is told.
    unsafe { libc::getpeername(handle, std::ptr::from_mut(&mut address).cast(), &mut length) == 0 }
}

fn socklen(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).unwrap_or(libc::socklen_t::MAX)
}
