//! Unix: an operation ends with an errno.

use super::{Class, NtStatus};
use crate::sys::errno::{ECONNRESET, EPIPE};

/// The status of an operation that ended with this error number of the system's.
pub(super) fn status_of(number: i32, class: Class) -> NtStatus {
    super::nt_status(number, class)
}

/// The Winsock code of a call that failed at once with this number.
pub(super) fn winsock_of(number: i32) -> u32 {
    super::winsock_from_errno(number)
}

/// Whether the number says that the peer broke the connection off.
pub(super) fn is_reset(number: i32) -> bool {
    number == ECONNRESET || number == EPIPE
}
