//! Connections that have not said what they are. The first 37 bytes of each, its cookie, tell whether it is a new test
//! or a stream of one. For its cookie a connection has five seconds, all at the same time, and of too many the oldest
//! has to go.

use super::options::Options;
use crate::protocol::COOKIE_BYTES;
use crate::report::log::Log;
use crate::surroundings::port::{Op, Owner, Port, Stream};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use wharf::net::Permit;
use wharf::{Buffer, Event, OperationId};

/// A connection that has said what it is, or all that it ever will.
pub(super) struct Arrival {
    pub(super) stream: Stream,
    pub(super) peer: SocketAddr,
    /// Counts it as open; its number is that of the connections, in the order in which they came.
    pub(super) permit: Permit,
    /// The cookie, if the bytes are one.
    pub(super) bytes: Vec<u8>,
}

/// Takes connections that have said what they are.
pub(super) trait Admission: Send + Sync {
    fn arrived(self: Arc<Self>, arrival: Arrival);
}

/// The connections that have not said what they are.
pub(super) struct PendingConnections {
    port: Port,
    log: Arc<Log>,
    max: usize,
    /// What a cookie may take, from its connection on.
    timeout: Duration,
    /// The oldest first.
    list: Mutex<VecDeque<Arc<PendingConnection>>>,
}

struct PendingConnection {
    all: Arc<PendingConnections>,
    admission: Arc<dyn Admission>,
    stream: Stream,
    peer: SocketAddr,
    /// Until it has said what it is, or is given up.
    permit: Mutex<Option<Permit>>,
    cookie: Mutex<Vec<u8>>,
    /// The end of its time.
    timer: Mutex<Option<OperationId>>,
}

impl PendingConnections {
    pub(super) fn new(port: &Port, log: &Arc<Log>, options: &Options) -> Arc<PendingConnections> {
        Arc::new(PendingConnections {
            port: port.clone(),
            log: log.clone(),
            max: options.max_pending,
            timeout: options.handshake_timeout,
            list: Mutex::default(),
        })
    }

    fn list(&self) -> MutexGuard<'_, VecDeque<Arc<PendingConnection>>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection has come, and its cookie is waited for.
    pub(super) fn add(
        self: &Arc<Self>,
        stream: Stream,
        peer: SocketAddr,
        permit: Permit,
        admission: Arc<dyn Admission>,
    ) {
        let (cookie, timer, permit) = (Mutex::default(), Mutex::default(), Mutex::new(Some(permit)));
        let pending = PendingConnection { all: self.clone(), admission, stream, peer, permit, cookie, timer };
        let pending = Arc::new(pending);
        let oldest = {
            let mut list = self.list();
            list.push_back(pending.clone());
            if list.len() > self.max { list.pop_front() } else { None }
        };
        if let Some(oldest) = oldest {
            self.log.error(format!("{}: closed, too many connections have not said what they want", oldest.peer));
            oldest.forget_time();
            oldest.give_up();
        }
        let timer = self.port.timer(self.timeout, (), Op::of(pending.clone())).ok();
        *pending.timer.lock().unwrap_or_else(PoisonError::into_inner) = timer;
        pending.receive(COOKIE_BYTES);
        self.log.flush();
    }
}

impl PendingConnection {
    fn receive(self: &Arc<Self>, bytes: usize) {
        // No more than the cookie: what follows belongs to whoever it turns out to be.
        let _ = self.stream.recv(Buffer::with_capacity(bytes), Op::of(self.clone()));
    }

    /// Takes it off the list; false: somebody else has.
    fn take(self: &Arc<Self>) -> bool {
        let mut list = self.all.list();
        let at = list.iter().position(|other| Arc::ptr_eq(other, self));
        let taken = at.map(|at| list.remove(at)).is_some();
        drop(list);
        self.forget_time();
        taken
    }

    fn permit(&self) -> Option<Permit> {
        self.permit.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn give_up(&self) {
        self.stream.close();
        drop(self.permit());
    }

    fn forget_time(&self) {
        if let Some(timer) = self.timer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            self.all.port.cancel(timer);
        }
    }

    fn received(self: &Arc<Self>, buffer: &[u8], result: io::Result<usize>) {
        let cookie = {
            let mut cookie = self.cookie.lock().unwrap_or_else(PoisonError::into_inner);
            cookie.extend_from_slice(buffer);
            cookie.clone()
        };
        match result {
            Ok(1..) if cookie.len() < COOKIE_BYTES => self.receive(COOKIE_BYTES - cookie.len()),
            // Connected and gone without a word: a look whether somebody is there.
            Ok(0) if cookie.is_empty() => {
                self.take();
                self.give_up();
            }
            _ => {
                if self.take() {
                    let Some(permit) = self.permit() else { return };
                    let (stream, peer) = (self.stream.clone(), self.peer);
                    self.admission.clone().arrived(Arrival { stream, peer, permit, bytes: cookie });
                }
            }
        }
    }

    fn late(self: &Arc<Self>) {
        if self.take() {
            let seconds = self.all.timeout.as_secs_f64();
            self.all.log.error(format!("{}: closed, no cookie came in {seconds} s", self.peer));
            self.give_up();
        }
    }
}

impl Owner for PendingConnection {
    fn completed(self: Arc<Self>, _: &Port, _: u64, event: Event<(), Op>) {
        match event {
            Event::Received { buffer, result, .. } => self.received(&buffer, result),
            Event::Elapsed { result: Ok(_) } => self.late(),
            _ => {}
        }
        self.all.log.flush();
    }
}
