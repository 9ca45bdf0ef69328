//! One datagram in, one out: what the system's `recvmsg` tells beside the bytes (who sent it, whether it was cut off, and
//! with receive offload how long the pieces are) is not to be had through simpler calls.

use super::Handle;
use crate::operation::{Datagram, RawBuffer};
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

/// Enough for the one number that receive offload adds, and for what a program may have asked for beside.
const CONTROL_BYTES: usize = 128;

#[repr(align(8))]
struct Control([MaybeUninit<u8>; CONTROL_BYTES]);

#[allow(unsafe_code)]
pub(super) fn receive(handle: Handle, into: &[RawBuffer]) -> Result<Datagram, i32> {
    let mut pieces: Vec<libc::iovec> =
        into.iter().map(|piece| libc::iovec { iov_base: piece.pointer.cast(), iov_len: piece.length }).collect();
    let mut control = Control([MaybeUninit::uninit(); CONTROL_BYTES]);
    // SAFETY: all-zero is a valid value of these plain C structures.
    let (mut address, mut header): (libc::sockaddr_storage, libc::msghdr) = unsafe { std::mem::zeroed() };
    header.msg_name = std::ptr::from_mut(&mut address).cast();
    header.msg_namelen = socklen(size_of_val(&address));
    header.msg_iov = pieces.as_mut_ptr();
    header.msg_iovlen = pieces.len();
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = CONTROL_BYTES;
    let bytes = loop {
        // SAFETY: the header names memory that lives here and is as long as it says; the pieces are the operation's own
        // until its packet (see `raw`), and the descriptor is open (`Device::enter`).
        match usize::try_from(unsafe { libc::recvmsg(handle, &mut header, 0) }) {
            Ok(bytes) => break bytes,
            Err(_) => match io::Error::last_os_error().raw_os_error() {
                Some(libc::EINTR) => {}
                error => return Err(error.unwrap_or(libc::EIO)),
            },
        }
    };
    let truncated = header.msg_flags & libc::MSG_TRUNC != 0;
    Ok(Datagram { bytes, from: to_std(&address), truncated, segment: segment(&header) })
}

/// The length of the pieces that receive offload has put together.
#[allow(unsafe_code)]
fn segment(header: &libc::msghdr) -> usize {
    // SAFETY: the kernel has filled the control memory that the header names, as these macros expect it, and
    // `msg_controllen` says how far.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: as above, the macros return null or a whole header within the memory.
        let one = unsafe { &*message };
        if (one.cmsg_level, one.cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO) {
            // SAFETY: this message carries an int.
            let length: libc::c_int = unsafe { libc::CMSG_DATA(message).cast::<libc::c_int>().read_unaligned() };
            return usize::try_from(length).unwrap_or(0);
        }
        // SAFETY: as above.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    0
}

#[allow(unsafe_code)]
fn to_std(address: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let address = std::ptr::from_ref(address);
    // SAFETY: the storage is large enough and aligned for every kind of address, and the family says which it is.
    match i32::from(unsafe { (*address).ss_family }) {
        libc::AF_INET => {
            // SAFETY: as above.
            let v4 = unsafe { &*address.cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddr::new(IpAddr::V4(ip), u16::from_be(v4.sin_port)))
        }
        libc::AF_INET6 => {
            // SAFETY: as above.
            let v6 = unsafe { &*address.cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddr::V6(SocketAddrV6::new(ip, port, u32::from_be(v6.sin6_flowinfo), v6.sin6_scope_id)))
        }
        _ => None,
    }
}

pub(super) fn send(fd: BorrowedFd<'_>, pieces: &[IoSlice<'_>], to: Option<&SocketAddr>) -> Result<(), i32> {
    loop {
        let mut control = SendAncillaryBuffer::default();
        let sent = match to {
            Some(to) => rustix::net::sendmsg_addr(fd, to, pieces, &mut control, SendFlags::NOSIGNAL),
            None => rustix::net::sendmsg(fd, pieces, &mut control, SendFlags::NOSIGNAL),
        };
        match sent {
            Err(Errno::INTR) => {}
            other => return other.map(drop).map_err(Errno::raw_os_error),
        }
    }
}

/// Sets a number of UDP's own on a socket.
#[allow(unsafe_code)]
pub(crate) fn set_option(fd: BorrowedFd<'_>, option: i32, value: i32) -> io::Result<()> {
    use rustix::fd::AsRawFd;
    let length = socklen(size_of_val(&value));
    // SAFETY: the value is an int that lives for the length of the call, and the descriptor is borrowed.
    let set =
        unsafe { libc::setsockopt(fd.as_raw_fd(), libc::SOL_UDP, option, std::ptr::from_ref(&value).cast(), length) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn socklen(bytes: usize) -> libc::socklen_t {
    libc::socklen_t::try_from(bytes).unwrap_or(libc::socklen_t::MAX)
}
