//! Connecting: the addresses of a name, one after the other, each with its time.

use crate::conn::{Conn, Phase};
use crate::dispatch::{Node, Op};
use crate::link::Link;
use crate::service::{Inner, Stream, after, full};
use crate::{Session, Tls};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// What a session that is being connected has before it.
#[derive(Debug, Default)]
pub(super) struct Connecting {
    /// Addresses that were not tried yet, the next one last.
    left: Vec<SocketAddr>,
    /// How long each may take. A client that connects again sees to its own limit itself.
    limit: Option<Duration>,
    /// Which address is tried, counted.
    attempt: u32,
    /// It has not answered in time.
    pub(super) late: bool,
}

impl Inner {
    /// A session that is connected to the first address that can be.
    pub(super) fn connect_boxed(
        self: &Arc<Self>,
        addresses: Vec<SocketAddr>,
        limit: Option<Duration>,
        tls: Option<Tls>,
        session: Box<dyn Session>,
    ) -> io::Result<Link> {
        self.at_home()?;
        let Some(&first) = addresses.first() else { return Err(io::ErrorKind::InvalidInput.into()) };
        let conn = self.admit(first.into(), tls, session).ok_or_else(full)?;
        {
            let mut sending = conn.lock();
            sending.connecting.left = addresses;
            sending.connecting.left.reverse();
            sending.connecting.limit = limit;
        }
        match self.connect_next(&conn, io::ErrorKind::NotConnected.into()) {
            Ok(()) => Ok(Link(conn)),
            Err(error) => {
                self.forget(&conn);
                Err(error)
            }
        }
    }

    /// Tries the next address that can be tried. `error`: why the last one failed, which comes back if there is none.
    fn connect_next(self: &Arc<Self>, conn: &Arc<Conn>, mut error: io::Error) -> io::Result<()> {
        loop {
            let (peer, attempt, limited) = {
                let mut sending = conn.lock();
                if sending.phase != Phase::Connecting {
                    return Err(error);
                }
                let Some(peer) = sending.connecting.left.pop() else { return Err(error) };
                sending.stream = None;
                sending.connecting.attempt += 1;
                let limit = sending.connecting.limit.map(after);
                // One that is being closed has a limit for all of it.
                sending.limit = sending.ends_by.into_iter().chain(limit).min();
                (peer, sending.connecting.attempt, limit.is_some())
            };
            conn.set_peer(peer.into());
            // The stream is attached by the packet, too: it may come before this call returns.
            match self.port.connect(peer, Node::Session(conn.clone()), Op::Connect) {
                Ok(stream) => {
                    if conn.lock().connecting.attempt == attempt {
                        self.attach(conn, stream);
                    }
                    if limited {
                        self.sweep_later(conn);
                    }
                    return Ok(());
                }
                Err(refused) => error = refused.error,
            }
        }
    }

    /// An attempt to connect has ended.
    pub(super) fn connected(self: &Arc<Self>, conn: &Arc<Conn>, stream: Stream, result: io::Result<()>) {
        let late = std::mem::take(&mut conn.lock().connecting.late);
        let error = match result {
            Ok(()) if !late => {
                let _ = stream.set_nodelay(self.options.nodelay);
                self.attach(conn, stream.clone());
                return conn.opened(&stream);
            }
            Err(error) if !late => error,
            _ => {
                let peer = conn.peer();
                let what =
                    format!("{peer} has not answered in time; is the address right, and does nothing between drop it?");
                io::Error::new(io::ErrorKind::TimedOut, what)
            }
        };
        if let Err(error) = self.connect_next(conn, error) {
            conn.over(conn.failed(error));
        }
    }
}
