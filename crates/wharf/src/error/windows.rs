//! Windows: an operation ends with a code of Winsock's or Win32's.

use super::{Class, NtStatus};
use crate::sys::errno::{ECONNRESET, EPIPE};

/// The status of an operation that ended with this error number of the system's.
pub(super) fn status_of(number: i32, class: Class) -> NtStatus {
    super::nt_status_of_code(number.cast_unsigned(), class)
}

/// The Winsock code of a call that failed at once with this number.
pub(super) fn winsock_of(number: i32) -> u32 {
    match number.cast_unsigned() {
        code @ 10_000..12_000 => code,
        code => super::winsock(super::nt_status_of_code(code, Class::Any)),
    }
}

/// Whether the number says that the peer broke the connection off.
pub(super) fn is_reset(number: i32) -> bool {
    number == ECONNRESET || number == EPIPE
}

/// What a completed operation's status is called.
pub(crate) fn of_status(status: u32, is_socket: bool) -> i32 {
    let status = NtStatus(status);
    if status.is_success() {
        return 0;
    }
    let code = match (status.name(), is_socket) {
        (Some(_), true) => super::winsock(status),
        (Some(_), false) => super::win32(status),
        (None, _) => crate::sys::calls::code_of(status.0),
    };
    code.cast_signed()
}
