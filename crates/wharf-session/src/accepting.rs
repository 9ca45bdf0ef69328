//! Accepting: how connections come from listeners to sessions.
//!
//! Each listener has a few accepts outstanding, and whoever takes the packet of one issues the next. One that failed is
//! not issued again at once, for the reason may stay: a listener that listens no more is given up, anything else is
//! tried again after a while.

use crate::conn::Conn;
use crate::dispatch::{Node, Op};
use crate::local::SocketFile;
use crate::lock::Lock;
use crate::peer::Peer;
use crate::service::{Inner, Listening, Make, Stream};
use crate::{ServerTls, Session, Tls, payload};
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use wharf::Event;
use wharf::error::ErrorExt;

/// Accepts outstanding for each listener: a flood of connections is then taken in few turns.
const ACCEPTS: usize = 16;
/// Connections that may wait at a listener: the backlog that listeners are made with.
const WAITING_MOST: usize = 4096;
/// How long an accept that failed rests before the next is issued in its place.
const REST: Duration = Duration::from_millis(100);

pub(super) type Listener = wharf::Listener<Node, Op>;

/// An accept that is outstanding, or whose connection is just being made a session. However that ends, by a panic too,
/// it is counted no more.
pub(super) struct Accepting<'a>(&'a Inner);

/// A connection that was taken when listening stopped, until a worker makes a session of it.
pub(super) struct Taken {
    listening: Arc<Listening>,
    accepted: Lock<Option<Event<Node, Op>>>,
}

impl Drop for Accepting<'_> {
    fn drop(&mut self) {
        if self.0.accepting.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Under the lock, so that who has looked and is about to wait hears of it.
            let _sessions = self.0.sessions.lock();
            self.0.none_left.notify_all();
        }
    }
}

impl Inner {
    /// Issues the accepts of a new listener.
    pub(super) fn begin_accepting(&self, listener: Listener, file: Option<SocketFile>) -> io::Result<()> {
        self.socket_files.lock().extend(file);
        for _ in 0..ACCEPTS {
            self.accept(&listener)?;
        }
        self.listeners.lock().push(listener);
        if self.shutting_down.load(Ordering::SeqCst) {
            self.close_listeners();
        }
        Ok(())
    }

    /// Issues an accept.
    pub(super) fn accept(&self, listener: &Listener) -> io::Result<()> {
        self.accepting.fetch_add(1, Ordering::SeqCst);
        let counted = Accepting(self);
        listener.accept(Op::Accept).map_err(|refused| refused.error)?;
        // Its packet goes on counting.
        std::mem::forget(counted);
        Ok(())
    }

    /// The packet of an accept was taken: it counts until the guard is dropped.
    pub(super) fn accepted_one(&self) -> Accepting<'_> {
        Accepting(self)
    }

    /// An accept has brought a connection, or failed. The next one is issued first of all: what follows may block.
    pub(super) fn next_accept<T>(
        &self,
        listening: &Listening,
        listener: &Listener,
        result: io::Result<T>,
    ) -> Option<T> {
        match result {
            Ok(connection) => {
                listening.failed.store(false, Ordering::Relaxed);
                let _ = self.accept(listener);
                Some(connection)
            }
            // The listener or the port was closed.
            Err(error) if error.is_aborted() => None,
            Err(error) => {
                let said = listening.failed.swap(true, Ordering::Relaxed);
                let address =
                    listener.local_addr().map_or_else(|_| "a socket".to_owned(), |address| address.to_string());
                if listens_no_more(&error) {
                    if !said {
                        log::error!(
                            "no more connections are taken on {address}: {error}; somebody has shut its listening \
                             socket down, listen anew"
                        );
                    }
                    return None;
                }
                if !said {
                    log::warn!("no connection can be taken on {address}: {error}; it is tried again every 0.1 s");
                }
                // A closed port sets no timer, and takes no connections.
                let _ = self.port.timer(REST, Node::Resting(listener.clone()), Op::Accept);
                None
            }
        }
    }

    /// Closes the service's listeners. Connections that wait to be accepted are reset.
    pub(super) fn close_listeners(&self) {
        let listeners = std::mem::take(&mut *self.listeners.lock());
        listeners.iter().for_each(Listener::close);
        self.remove_socket_files();
    }

    /// Closes the service's listeners. Connections that wait to be accepted are served: the system has made them, and
    /// their clients may be sending. Workers make sessions of them, for whoever calls this may hold what a handler
    /// needs.
    pub(super) fn stop_listening(&self) {
        let listeners = std::mem::take(&mut *self.listeners.lock());
        for listener in &listeners {
            let Node::Listener(listening) = listener.key() else { continue };
            // Not without end: where others listen on the same socket, more may come all the time.
            for event in std::iter::from_fn(|| listener.accept_now()).take(WAITING_MOST) {
                let taken = Taken { listening: listening.clone(), accepted: Lock::new(Some(event)) };
                self.accepting.fetch_add(1, Ordering::SeqCst);
                let counted = Accepting(self);
                if self.port.post(0, Node::Taken(Arc::new(taken)), Op::Accept).is_ok() {
                    // Its packet goes on counting.
                    std::mem::forget(counted);
                }
            }
        }
        listeners.iter().for_each(Listener::close);
        self.remove_socket_files();
    }

    /// A connection that was taken when listening stopped is made a session.
    pub(super) fn serve_taken(self: &Arc<Self>, taken: &Taken) {
        let _counted = Accepting(self);
        let accepted = taken.accepted.lock().take();
        match accepted {
            Some(Event::Accepted { result: Ok((socket, peer)), .. }) => {
                self.accepted(&taken.listening, socket, peer);
            }
            Some(Event::AcceptedLocal { result: Ok(socket), .. }) => self.accepted_local(&taken.listening, socket),
            _ => {}
        }
    }

    pub(super) fn accepted(self: &Arc<Self>, listening: &Listening, socket: StdStream, peer: SocketAddr) {
        let Make::Tcp(make) = &listening.make else { unreachable!("a listener takes one kind of connections") };
        let tls = match listening.tls.as_ref().map(ServerTls::accept).transpose() {
            Ok(tls) => tls,
            Err(error) => return log::error!("a connection from {peer} could not be served: {error}"),
        };
        if let Some(conn) = self.welcome(peer.into(), tls, || make(peer)) {
            self.served(&conn, self.associate_accepted(socket, &conn));
        }
    }

    /// A session for a connection that was accepted, unless there are enough.
    pub(super) fn welcome(
        self: &Arc<Self>,
        peer: Peer,
        tls: Option<Tls>,
        make: impl FnOnce() -> Box<dyn Session>,
    ) -> Option<Arc<Conn>> {
        // Looked at before a session is made for nothing; `admit` decides.
        let session = if self.has_room(&self.sessions.lock()) {
            let made = catch_unwind(AssertUnwindSafe(make));
            let made = made.map_err(|panic| {
                let words = payload::words(panic);
                log::error!("the session for {peer} could not be made: its constructor panicked: {words}");
                self.totals.panics.fetch_add(1, Ordering::Relaxed);
            });
            Some(made.ok()?)
        } else {
            None
        };
        let conn = session.and_then(|session| self.admit(peer.clone(), tls, session));
        let totals = &self.totals;
        let count = if conn.is_some() { &totals.accepted } else { &totals.refused };
        count.fetch_add(1, Ordering::Relaxed);
        if conn.is_none() {
            log::debug!("a connection from {peer} was refused: there are as many sessions as there may be");
        }
        conn
    }

    pub(super) fn served(&self, conn: &Arc<Conn>, stream: io::Result<Stream>) {
        match stream {
            Ok(stream) => conn.opened(&stream),
            Err(error) => log::warn!("a connection from {} could not be served: {error}", conn.peer()),
        }
    }
}

/// Whether a listener that fails so will never again take a connection: it listens no more, or is no socket.
fn listens_no_more(error: &io::Error) -> bool {
    const WSAEINVAL: u32 = 10022;
    const WSAENOTSOCK: u32 = 10038;
    matches!(error.winsock(), WSAEINVAL | WSAENOTSOCK)
}
