//! Unix: its numbers for errors are those that peers know.

use std::io;

/// What a peer's error number says, whose system is taken for one like this.
pub(crate) fn text(errno: i32) -> String {
    io::Error::from_raw_os_error(errno).to_string()
}

/// This system's error number, as peers understand it.
pub(crate) fn number(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(0)
}
