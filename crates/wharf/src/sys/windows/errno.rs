//! Error numbers: Windows's own, under the names that the rest of the crate uses. What Winsock calls an error goes
//! before what Win32 calls it, since std makes the better kinds of it.

/// The operation was cancelled, or its device or port was closed (row E-04): `ERROR_OPERATION_ABORTED`.
pub const ECANCELED: i32 = 995;
/// The device or the port is closed (row E-30): `ERROR_INVALID_HANDLE`.
pub const EBADF: i32 = 6;
pub(crate) const EACCES: i32 = 5;
pub(crate) const EBUSY: i32 = 170;
pub(crate) const EINVAL: i32 = 10022;
pub(crate) const EMSGSIZE: i32 = 10040;
pub(crate) const EWOULDBLOCK: i32 = 10035;
pub(crate) const EOPNOTSUPP: i32 = 10045;
pub(crate) const EADDRNOTAVAIL: i32 = 10049;
pub(crate) const ECONNABORTED: i32 = 10053;
pub(crate) const ECONNRESET: i32 = 10054;
pub(crate) const EISCONN: i32 = 10056;
pub(crate) const ENOTCONN: i32 = 10057;
pub(crate) const ESHUTDOWN: i32 = 10058;
pub(crate) const ETIMEDOUT: i32 = 10060;

/// A file ended before what was to be sent of it: `ERROR_HANDLE_EOF`.
pub(crate) const ENODATA: i32 = 38;
/// A pipe's other end is closed: `ERROR_BROKEN_PIPE`.
pub(crate) const EPIPE: i32 = 109;

/// The connection is broken, and stays so.
pub(crate) fn is_broken(error: i32) -> bool {
    matches!(error, ECONNRESET | ECONNABORTED | ETIMEDOUT | 10052)
}
