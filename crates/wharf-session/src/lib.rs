//! Servers and clients made of sessions.
//!
//! A [`Session`] is what one connection does: it is opened, receives, and is closed; the same trait serves both ends. A
//! [`Service`] owns a port and its workers, listens and connects. A [`Link`] is how anybody, on any thread, sends to a
//! session or closes it; a [`Group`] is how one message reaches many.
//!
//! ```
//! use wharf::Buffer;
//! use wharf_session::{Group, Link, Service, Session};
//!
//! struct Chat(Group);
//!
//! impl Session for Chat {
//!     fn opened(&mut self, link: &Link) {
//!         self.0.join(link);
//!     }
//!     fn received(&mut self, _link: &Link, data: Buffer) {
//!         self.0.broadcast(&data); // everybody shares one copy
//!     }
//! }
//!
//! let service = Service::options().start()?;
//! let room = Group::new();
//! let address = service.listen("127.0.0.1:0", move |_peer| Chat(room.clone()))?;
//! # use std::io::{Read, Write};
//! # let mut client = std::net::TcpStream::connect(address)?;
//! # client.write_all(b"hello\n")?;
//! # let mut echo = [0; 6];
//! # client.read_exact(&mut echo)?;
//! # assert_eq!(&echo, b"hello\n");
//! # drop(client);
//! let report = service.shutdown(std::time::Duration::from_secs(5));
//! assert_eq!(report.aborted, 0);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! A stream has no message boundaries. [`Framed`] finds them: with [`Lines`], with [`LengthPrefix`], or with a
//! [`Codec`] of your own.
//!
//! With cargo's feature `tls` sessions go over TLS: `Service::listen_tls` with a `ServerTls`, `Service::connect_tls`
//! with a `ClientTls`. `opened` is then called when the handshake is done.
//!
//! # When a send leaves
//!
//! At once, before [`Link::send`] or [`Group::broadcast`] returns, if nothing waits in the outbox. With one exception:
//! when several frames of a [`Framed`] session have come in one receive, what its handler sends from the second on is
//! *coalesced*, and leaves, for each session in one send, when the frames of that receive are done. If the receive was
//! full, so that the peer is ahead of this side, the first frame's is coalesced too, and the sends leave with what
//! comes after it. They leave before that between two frames when a tick of the system's clock (1 to 10 ms) has passed,
//! or as long as the last such sending took, when 64 KiB or an eighth of an outbox have come together, when the handler
//! announces that it blocks ([`blocking`](wharf::blocking)), and by another worker when it blocks without saying so, or
//! while it computes and the port has a slot free. Whatever else is done with such a session, a send from elsewhere, a
//! close, comes after what was coalesced for it. [`LinkStats::sends`] tells how many sends the messages took.
//!
//! # Guaranteed
//!
//! - One handler at a time for each session: the methods of a `Session` never overlap and need no lock. Handlers of
//!   different sessions do run at the same time.
//! - A handler may block: other sessions go on (see [`blocking`](wharf::blocking) for telling the port at once).
//! - A panic in a handler closes that session only, is logged and counted, and costs no worker.
//! - `closed` is called exactly once for each session whose `opened` was called, unless a handler of it panicked; also
//!   when the service is dropped, by the thread that drops it or by the worker that still runs a handler.
//! - What `Link::send` accepted goes out in that order, each message in one piece, or the session ends. It arrives
//!   before the end, within the time that the end may take, or the peer hears a reset, and [`LinkStats::lost_bytes`]
//!   tells what is lost.
//! - A consumer that does not read costs at most its outbox, and what the system has taken of a message under way: see
//!   [`SlowConsumer`]; all of them together at most [`ServiceOptions::memory_limit`].
//! - A session that is paused ([`Link::pause`]), or receives at its [`Rate`], loses nothing: its peer waits.
//! - A peer that breaks the framing, or is silent for longer than [`ServiceOptions::idle_timeout`], ends its own
//!   session only.
//!
//! # Not guaranteed
//!
//! That a message that was accepted for sending has been read by the peer: only the peer can tell. That two members of
//! a group see the messages of two senders in the same order.

mod accepting;
mod closed;
mod coalesce;
mod conn;
mod connecting;
mod dispatch;
mod ending;
mod framing;
mod group;
mod inherit;
mod lingering;
mod link;
mod local;
mod lock;
mod memory;
#[cfg(not(feature = "tls"))]
mod no_tls;
mod options;
mod outbox;
mod pausing;
mod payload;
mod peer;
mod rate;
mod receiving;
mod reconnect;
mod room;
#[cfg(all(test, unix))]
mod schedules;
mod sending;
mod service;
mod shared_log;
mod shutdown;
mod signals;
mod stats;
mod sys;
mod time;
mod timeouts;
#[cfg(feature = "tls")]
mod tls;
mod waiting;

pub use closed::Closed;
pub use framing::{Codec, FrameError, Framed, FramedLink, FramedSession, Input, InputStats, LengthPrefix, Lines};
pub use group::{Group, GroupStats};
pub use inherit::{Inherited, InheritedSocket, inherited};
pub use link::{Link, LinkStats};
pub use options::ServiceOptions;
pub use outbox::{SendError, SendErrorReason, SlowConsumer};
pub use peer::{Credentials, LocalPeer, Peer};
pub use rate::Rate;
pub use reconnect::{GaveUp, Reconnect, ReconnectState, Reconnecting};
pub use service::Service;
pub use shutdown::ShutdownReport;
pub use signals::Signals;
pub use stats::{MemoryStats, ServiceStats};
#[cfg(feature = "tls")]
pub use tls::{ClientTls, ServerTls, TlsError, TlsErrorKind, TlsInfo};

/// The library that does TLS, for configurations of your own. Its version is part of this interface.
#[cfg(feature = "tls")]
pub use rustls;

#[cfg(not(feature = "tls"))]
use no_tls::{ClientTls, ServerTls, Tls};
#[cfg(feature = "tls")]
use tls::Tls;

use wharf::Buffer;

/// The code in the documents, compiled and run as tests: here, where both crates are at hand.
#[cfg(doctest)]
mod documents {
    #[doc = include_str!("../../../README.md")]
    struct Readme;
    #[doc = include_str!("../../../README.ko.md")]
    struct ReadmeKo;
    #[doc = include_str!("../../../docs/guide.md")]
    struct Guide;
}

/// By the sessions' numbers.
type ById<T> = std::collections::HashMap<u64, T, Hashing>;

#[cfg(not(test))]
type Hashing = std::hash::RandomState;
/// In the same order in each run, so that a schedule can be repeated.
#[cfg(test)]
type Hashing = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;

/// What one connection does, at either end. See the [crate]'s page.
pub trait Session: Send + 'static {
    /// The connection is made, over TLS its handshake too; sending is possible from now on. (What [`Link::send`]
    /// accepted before goes out now.)
    fn opened(&mut self, link: &Link) {
        let _ = link;
    }

    /// Bytes have arrived: as many as were there, at least one. Streams have no message boundaries.
    ///
    /// The buffer is the session's to keep or to send on, without a copy.
    fn received(&mut self, link: &Link, data: Buffer);

    /// Receiving goes on after it was paused ([`Link::pause`], the rate limit, …), when the session was stopped before
    /// it had gone through all that it was given. Only for a session that takes messages out of what it receives and
    /// has the link count them, as [`Framed`] does; others are simply called with the next `received`.
    #[doc(hidden)]
    fn resumed(&mut self, link: &Link) {
        let _ = link;
    }

    /// The connection is over; nothing more comes. What was accepted for sending before still goes out if the
    /// connection ended well.
    ///
    /// Not called after a handler of this session has panicked: what it left behind may be in any state, and is only
    /// dropped. What has to be done in any case belongs into a `Drop` of the session, or of a part of it.
    fn closed(&mut self, link: &Link, reason: &Closed) {
        let _ = (link, reason);
    }
}
