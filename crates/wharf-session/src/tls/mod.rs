//! TLS inside a session: its bytes go through the port like all others, and no thread is added.
//!
//! rustls does the protocol and no I/O. [`Tls`] holds its connection, between a session's stream and its handler:
//!
//! - *Receiving.* What the stream brought is given to [`Tls::unseal`], by the one worker that has the session's
//!   receive. It returns the plaintext for the handler, whether the handshake is done now, and how the stream ended if
//!   it did.
//! - *Sending.* The outbox holds messages as they were sent: they can still be dropped, and those of a group share
//!   their memory. They are encrypted by [`Tls::seal`] when it is their turn to go out, by whoever sends. There is at
//!   most one such sender at a time (`Sending::busy`), so records go out in the order in which they were made.
//! - *What TLS itself has to say* (its handshake, answers to the peer, alerts) is made while receiving, but goes out
//!   with `seal` only. The receiving side notes it (`Sending::answers`), and then sends, or leaves it to the sender
//!   that is at work, which looks for the note under the lock under which it stops being busy: so none is forgotten.
//!
//! # Locks
//!
//! One lock guards rustls's connection, for both directions: records of one can demand some of the other. It is never
//! held together with another lock of ours: neither is `sending` held when it is taken, nor does anything under it
//! send, receive, wait, or call a session. So there is no order to keep. It is held for the encryption of a send, or
//! for the decryption of one received buffer. The callbacks of a configuration of the program's own (verifiers,
//! resolvers) run under it, as rustls demands; they run in the handshake, while no sender asks for it: messages wait
//! until it is done.
//!
//! # Memory
//!
//! A message counts in the outbox with what it keeps in memory, before and after it is encrypted. Records add 22 bytes
//! to each 16 KiB, or to what goes out together if that is less. For the time of the encryption both forms exist. What
//! rustls keeps for itself, some ten kilobytes a session and at most a record that has not come whole, is not counted.

mod config;
mod error;

pub use config::{ClientTls, ServerTls};
pub use error::{TlsError, TlsErrorKind};

use crate::closed::Closed;
use crate::lock::{Guard, Lock};
use crate::payload;
use crate::receiving::Unsealed;
use error::Peer;
use rustls::{Connection, IoState};
use std::fmt;
use std::io::{self, BufRead, IoSlice, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use wharf::Buffer;

/// How much is encrypted before it is moved to its place in the send, so that not all of a large message is there three
/// times.
const PIECE_BYTES: usize = 64 * 1024;

/// What a record adds to its content, at most, and how much content it has, at most (RFC 8446, 5.1 and 5.2, and TLS 1.2
/// with an explicit nonce): to reserve memory, nothing else depends on it.
const RECORD_EXTRA_BYTES: usize = 32;
const RECORD_BYTES: usize = 16 * 1024;

/// The first byte of a stream of TLS: of a record with a handshake message, or with an alert.
const HANDSHAKE_RECORD: u8 = 22;
const ALERT_RECORD: u8 = 21;

/// What was agreed in the handshake: see [`Link::tls`](crate::Link::tls).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The version: `TLS 1.2` or `TLS 1.3`.
    pub version: &'static str,
    /// The cipher suite, by the name that standards give it: `TLS13_AES_256_GCM_SHA384`, say.
    pub cipher_suite: String,
    /// The protocol that both sides agreed on (ALPN), if they did.
    pub alpn: Option<Vec<u8>>,
    /// At a server, the name by which the client asked for it (SNI), if it did.
    pub server_name: Option<String>,
    /// The peer's certificates in DER, its own first. Empty when it showed none, as clients usually do not.
    pub peer_certificates: Vec<Vec<u8>>,
}

/// One session's TLS.
pub(super) struct Tls {
    state: Lock<State>,
    /// Set when the handshake is done.
    info: OnceLock<Arc<TlsInfo>>,
    peer: Peer,
}

struct State {
    connection: Connection,
    /// Something has come from the peer.
    begun: bool,
    /// This side has said that nothing more comes.
    ended: bool,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tls").field(&self.info.get()).finish()
    }
}

impl Tls {
    fn new(mut connection: Connection) -> Tls {
        // The outbox has a limit; rustls's own would cut a message in two.
        connection.set_buffer_limit(None);
        let peer = match connection {
            Connection::Client(_) => Peer::Server,
            Connection::Server(_) => Peer::Client,
        };
        Tls { state: Lock::new(State { connection, begun: false, ended: false }), info: OnceLock::new(), peer }
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    /// What was agreed on, once the handshake is done.
    pub(super) fn info(&self) -> Option<&Arc<TlsInfo>> {
        self.info.get()
    }

    /// Takes what the stream brought.
    pub(super) fn unseal(&self, received: &[u8]) -> Unsealed {
        let mut state = self.lock();
        let mut came = Unsealed::default();
        let first = !std::mem::replace(&mut state.begun, true);
        let ended = state.ended;
        let connection = &mut state.connection;
        let strange = first && received.first().is_some_and(|&byte| !self.may_begin_with(byte));
        let shaking = connection.is_handshaking();
        let mut left = received;
        while !left.is_empty() && came.end.is_none() {
            match connection.read_tls(&mut left) {
                // The peer has said that nothing more comes.
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => came.end = Some(TlsError::broken(self.peer, &error).into()),
            }
            match process(connection, ended) {
                Ok(state) if state.peer_has_closed() => {
                    let early = connection.is_handshaking();
                    came.end =
                        Some(if early { TlsError::ended_in_handshake(self.peer).into() } else { Closed::ByPeer });
                }
                Ok(_) => {}
                Err(error) => came.end = Some(TlsError::of(error, self.peer).into()),
            }
            // After a failure, too: what came before it is as good as any.
            let mut reader = connection.reader();
            while let Ok(piece @ [_, ..]) = reader.fill_buf() {
                let bytes = piece.len();
                came.plain.extend_from_slice(piece);
                reader.consume(bytes);
            }
        }
        // A handler may send it on, and the outbox counts what a buffer keeps.
        came.plain.shrink_to_fit();
        if strange {
            // At once, and not when there is enough of it to be no record: a person may have typed two letters.
            came.end = Some(TlsError::not_tls(self.peer, received).into());
        }
        came.answers = connection.wants_write();
        if shaking && !connection.is_handshaking() {
            came.established = true;
            let _ = self.info.set(Arc::new(info(connection)));
        }
        came
    }

    fn may_begin_with(&self, byte: u8) -> bool {
        byte == HANDSHAKE_RECORD || (byte == ALERT_RECORD && self.peer == Peer::Server)
    }

    /// What it means that the stream has ended, though TLS had not.
    pub(super) fn ended(&self) -> Closed {
        let error = match self.info.get() {
            Some(_) => TlsError::truncated(self.peer),
            None => TlsError::ended_in_handshake(self.peer),
        };
        error.into()
    }

    /// Encrypts messages, and with the `last` says that nothing follows them. What TLS itself has to say goes first.
    /// Returns what is to be sent, in one buffer; none when there is nothing.
    pub(super) fn seal(&self, messages: Vec<Buffer>, last: bool) -> io::Result<Vec<Buffer>> {
        let mut state = self.lock();
        let connection = &mut state.connection;
        let plain: usize = messages.iter().map(|message| message.len()).sum();
        let records = plain / RECORD_BYTES + 2;
        let mut sealed = Vec::with_capacity(if plain == 0 { 0 } else { plain + records * RECORD_EXTRA_BYTES });
        match &messages[..] {
            [] => {}
            [large] => {
                for piece in large.chunks(PIECE_BYTES) {
                    connection.writer().write_all(piece)?;
                    drain(connection, &mut sealed)?;
                }
            }
            // Small ones share records. Without a limit all of them are taken.
            many => {
                let slices: Vec<IoSlice<'_>> = many.iter().map(|message| IoSlice::new(message)).collect();
                let taken = connection.writer().write_vectored(&slices)?;
                debug_assert_eq!(taken, plain);
            }
        }
        if last {
            connection.send_close_notify();
        }
        drain(connection, &mut sealed)?;
        state.ended |= last;
        drop(state);
        Ok(if sealed.is_empty() { Vec::new() } else { vec![sealed.into()] })
    }
}

/// Has rustls look at what it has read.
fn process(connection: &mut Connection, ended: bool) -> Result<IoState, rustls::Error> {
    if !ended || !cfg!(debug_assertions) {
        return connection.process_new_packets();
    }
    // A debug build of rustls asserts that it sends no alert after the end that it has said itself, which what a peer
    // sends can make it do.
    let processed = catch_unwind(AssertUnwindSafe(|| connection.process_new_packets()));
    processed.unwrap_or_else(|panic| Err(rustls::Error::General(payload::words(panic))))
}

fn drain(connection: &mut Connection, into: &mut Vec<u8>) -> io::Result<()> {
    while connection.wants_write() {
        connection.write_tls(into)?;
    }
    Ok(())
}

fn info(connection: &Connection) -> TlsInfo {
    let version = match connection.protocol_version() {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        Some(rustls::ProtocolVersion::TLSv1_3) => "TLS 1.3",
        _ => "unknown",
    };
    let suite = connection.negotiated_cipher_suite();
    let server_name = match connection {
        Connection::Server(server) => server.server_name().map(str::to_owned),
        Connection::Client(_) => None,
    };
    TlsInfo {
        version,
        cipher_suite: suite.map_or_else(String::new, |suite| format!("{:?}", suite.suite())),
        alpn: connection.alpn_protocol().map(<[u8]>::to_vec),
        server_name,
        peer_certificates: connection.peer_certificates().unwrap_or_default().iter().map(|der| der.to_vec()).collect(),
    }
}
