//! The system's error numbers by name: each system has its own.

pub(crate) use libc::{
    EACCES, EADDRNOTAVAIL, EAGAIN, EBADF, EBUSY, ECANCELED, ECONNABORTED, ECONNREFUSED, ECONNRESET, EEXIST, EHOSTDOWN,
    EHOSTUNREACH, EINPROGRESS, EINTR, EINVAL, EIO, EISCONN, EMFILE, EMSGSIZE, ENETUNREACH, ENFILE, ENOBUFS, ENOMEM,
    ENOPROTOOPT, ENOSYS, ENOTCONN, ENOTSOCK, EOPNOTSUPP, EPERM, EPIPE, EPROTO, ESHUTDOWN, ETIMEDOUT,
};

#[cfg(target_os = "freebsd")]
pub(crate) use libc::ENOATTR as ENODATA;
/// A part of a file is not there. FreeBSD has the number for attributes only.
#[cfg(not(target_os = "freebsd"))]
pub(crate) use libc::ENODATA;

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) use libc::ENETDOWN as ENONET;
/// The machine is not on the network, which only Linux tells apart.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use libc::ENONET;
