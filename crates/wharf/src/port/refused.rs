//! What a call says that was refused: it gives back what it was given.

use crate::op::buffer::Buffer;
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
