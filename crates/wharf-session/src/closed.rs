//! Why a session ended.

use crate::framing::FrameError;
#[cfg(feature = "tls")]
use crate::tls::{TlsError, TlsErrorKind};
use std::fmt;
use std::io;

/// Why a session ended.
#[derive(Debug)]
#[non_exhaustive]
pub enum Closed {
    /// The peer ended the stream.
    ByPeer,
    /// This side closed it: [`Link::close`](crate::Link::close) or [`Link::abort`](crate::Link::abort).
    ByUs,
    /// The service was shut down.
    Shutdown,
    /// The connection broke, or could not be made.
    Failed(io::Error),
    /// The peer did not read, and its outbox was full.
    SlowConsumer,
    /// The service's memory limit was reached, and this session held most of it: see
    /// [`ServiceOptions::memory_limit`](crate::ServiceOptions::memory_limit).
    MemoryLimit,
    /// The peer broke the framing, or ended the stream inside a frame. Only for a [`Framed`](crate::Framed) session.
    Framing(FrameError),
    /// Nothing was received, and no send completed, for as long as
    /// [`ServiceOptions::idle_timeout`](crate::ServiceOptions::idle_timeout) says.
    IdleTimeout,
    /// [`Link::ready`](crate::Link::ready) was not called within
    /// [`ServiceOptions::handshake_timeout`](crate::ServiceOptions::handshake_timeout), or the TLS handshake was not
    /// done.
    HandshakeTimeout,
    /// TLS failed: in the handshake, then `opened` was not called, or later; or the peer ended the stream without the
    /// end of TLS.
    #[cfg(feature = "tls")]
    Tls(TlsError),
    /// A handler of the session panicked.
    Panicked,
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::ByPeer => f.write_str("the peer closed the connection"),
            Closed::ByUs => f.write_str("closed"),
            Closed::Shutdown => f.write_str("the service was shut down"),
            Closed::Failed(error) => write!(f, "{error}"),
            Closed::SlowConsumer => f.write_str("the peer does not read what it is sent"),
            Closed::MemoryLimit => {
                f.write_str("the service's memory limit was reached, and this session held most of the memory")
            }
            Closed::Framing(error) => write!(f, "{error}"),
            Closed::IdleTimeout => f.write_str("the peer has neither sent nor taken anything for too long"),
            Closed::HandshakeTimeout => f.write_str("the handshake took too long"),
            #[cfg(feature = "tls")]
            Closed::Tls(error) => write!(f, "{error}"),
            Closed::Panicked => f.write_str("a handler panicked"),
        }
    }
}

impl Closed {
    /// Whether the peer has ended its side, well or not: it may still read what was accepted for it.
    pub(super) fn is_peers_end(&self) -> bool {
        match self {
            Closed::ByPeer => true,
            #[cfg(feature = "tls")]
            Closed::Tls(error) => error.kind() == TlsErrorKind::Truncated,
            _ => false,
        }
    }
}
