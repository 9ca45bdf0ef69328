//! What a call says that was refused, or that has no packet: it gives back what it was given.

use crate::op::buffer::Buffer;
use crate::raw::Empty;
use std::fmt;
use std::io;

/// An operation that was not accepted: the error, and everything that was given. No packet will come.
pub struct Refused<C, B = Buffer> {
    /// Why.
    pub error: io::Error,
    /// The context.
    pub context: C,
    /// The buffer or buffers.
    pub buffer: B,
}

impl<C, B> fmt::Debug for Refused<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<C, B> fmt::Display for Refused<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operation was not accepted: {}", self.error)
    }
}

impl<C, B> std::error::Error for Refused<C, B> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<C, B> From<Refused<C, B>> for io::Error {
    fn from(refused: Refused<C, B>) -> io::Error {
        refused.error
    }
}

/// A source that could not be associated, with its key.
pub struct Rejected<S, K> {
    /// Why.
    pub error: io::Error,
    /// What was to be associated, still open.
    pub source: S,
    /// Its key.
    pub key: K,
}

impl<S, K> fmt::Debug for Rejected<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<S, K> fmt::Display for Rejected<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot be associated with the port: {}", self.error)
    }
}

impl<S, K> std::error::Error for Rejected<S, K> {}

impl<S, K> From<Rejected<S, K>> for io::Error {
    fn from(rejected: Rejected<S, K>) -> io::Error {
        rejected.error
    }
}

/// A post that the port did not take: why, and what was posted.
pub struct Unposted<K, C> {
    /// Why.
    pub reason: UnpostedReason,
    /// The key.
    pub key: K,
    /// The context.
    pub context: C,
}

/// Why a post was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnpostedReason {
    /// The port is closed.
    Closed,
    /// As many packets are queued as the caller of `try_post` allows.
    Full,
}

impl fmt::Display for UnpostedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnpostedReason::Closed => "the port is closed",
            UnpostedReason::Full => "the queue holds as many packets as the caller allows; take some out, or wait",
        })
    }
}

impl<K, C> fmt::Display for Unposted<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<K, C> fmt::Debug for Unposted<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unposted").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<K, C> std::error::Error for Unposted<K, C> {}

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
}

impl GetError {
    /// The code that `GetLastError` gives on Windows.
    pub fn win32(self) -> u32 {
        match self {
            GetError::TimedOut => 258,
            GetError::Abandoned => 735,
            GetError::Forked => 6,
            GetError::NoRoom => 87,
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
        })
    }
}

impl std::error::Error for GetError {}

impl From<GetError> for io::Error {
    fn from(error: GetError) -> io::Error {
        let kind = match error {
            GetError::TimedOut => io::ErrorKind::TimedOut,
            GetError::NoRoom => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, error)
    }
}

impl From<Empty> for GetError {
    fn from(empty: Empty) -> GetError {
        match empty {
            Empty::TimedOut => GetError::TimedOut,
            Empty::Abandoned => GetError::Abandoned,
            Empty::Forked => GetError::Forked,
            Empty::NoRoom => GetError::NoRoom,
        }
    }
}
