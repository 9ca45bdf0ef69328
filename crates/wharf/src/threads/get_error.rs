//! Why there is no packet: the same for the queue, the raw port and the typed one.

use std::fmt;
use std::io;

/// Why a `get` brings no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetError {
    /// The time is over (258, `WAIT_TIMEOUT`).
    TimedOut,
    /// The port was closed (735, `ERROR_ABANDONED_WAIT_0`).
    Abandoned,
    /// The process is a forked child and the port its parent's (6, `ERROR_INVALID_HANDLE`).
    Forked,
    /// A batch of no packets was asked for (87, `ERROR_INVALID_PARAMETER`).
    NoRoom,
    /// The thread's [`Waker`](crate::raw::Waker) was used (192, `WAIT_IO_COMPLETION`). Only from a raw port.
    Interrupted,
}

impl GetError {
    /// The code that `GetLastError` gives on Windows.
    pub fn win32(self) -> u32 {
        match self {
            GetError::TimedOut => 258,
            GetError::Abandoned => 735,
            GetError::Forked => 6,
            GetError::NoRoom => 87,
            GetError::Interrupted => 192,
        }
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GetError::TimedOut => "no packet came in time",
            GetError::Abandoned => "the port was closed",
            GetError::Forked => "the port belongs to the parent process; make a new one after fork",
            GetError::NoRoom => "a batch of 0 packets was asked for; ask for 1 or more",
            GetError::Interrupted => "another thread has interrupted the wait",
        })
    }
}

impl std::error::Error for GetError {}

impl From<GetError> for io::Error {
    fn from(error: GetError) -> io::Error {
        let kind = match error {
            GetError::TimedOut => io::ErrorKind::TimedOut,
            GetError::NoRoom => io::ErrorKind::InvalidInput,
            GetError::Interrupted => io::ErrorKind::Interrupted,
            _ => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, error)
    }
}
