//! How a service ends: it stops listening, drains, shuts down, or is dropped.

use crate::closed::Closed;
use crate::conn::Conn;
use crate::lingering::Lingering;
use crate::reconnect::GaveUp;
use crate::service::{Inner, Service, after};
use crate::time;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// How a shutdown went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// Sessions that ended in time, and all that was accepted for them has arrived: was acknowledged by the peer's
    /// system, or, where this system does not tell (Windows), taken by it. Those that had ended before, and were still
    /// sending, count too.
    pub graceful: usize,
    /// Sessions that were closed when the time was over, or whose connection broke before all had arrived. Their peers
    /// have heard a reset if anything is missing.
    pub aborted: usize,
    /// Bytes of messages that were accepted for these sessions, since they began, and not dropped for newer ones.
    pub accepted_bytes: u64,
    /// Bytes of these that have arrived.
    pub delivered_bytes: u64,
    /// Bytes of these that are lost; with those that were delivered they are all that was accepted.
    pub lost_bytes: u64,
    /// Workers whose handler had not returned then.
    pub workers_left: usize,
}

impl Service {
    /// Takes no more connections; sessions go on. Connections that were made already are served, too. Another process
    /// that has the listening socket takes those that come from now on.
    ///
    /// Workers make sessions of those that wait to be accepted (on Windows they are reset).
    pub fn stop_listening(&self) {
        if !self.inner.is_home() {
            return;
        }
        self.inner.stop_listening();
    }

    /// Takes no more connections, and waits until all sessions have ended by themselves, or `deadline` has passed;
    /// returns how many are left. [`shutdown`](Service::shutdown), which comes next, closes those. In a handler of the
    /// service itself it does not wait for the handler's own session.
    ///
    /// So a server is started anew without one connection refused: the new process listens on the same socket (see
    /// [`inherited`](crate::inherited)), and then the old one drains.
    ///
    /// Does nothing in a forked child, which has no sessions.
    pub fn drain(&self, deadline: Duration) -> usize {
        if !self.inner.is_home() {
            return 0;
        }
        self.inner.stop_listening();
        let accepting = || self.inner.accepting.load(Ordering::SeqCst) > 0;
        self.inner.wait_while(after(deadline), |others| others > 0 || accepting())
    }

    /// Ends the service: takes no more connections, closes every session gracefully, and after `deadline` those that
    /// are left at once.
    ///
    /// In a handler of the service itself it waits for the other sessions only: the handler's own cannot end, and its
    /// worker not return, before the call does. That session is then closed at once when the handler returns, and the
    /// worker is among [`ShutdownReport::workers_left`]. Better call it where nobody waits for it, after
    /// [`Signals::wait`](crate::Signals::wait), say.
    pub fn shutdown(mut self, deadline: Duration) -> ShutdownReport {
        if !self.inner.is_home() {
            return ShutdownReport::default();
        }
        let until = after(deadline);
        let inner = &self.inner;
        inner.shutting_down.store(true, Ordering::SeqCst);
        inner.end_clients();
        inner.close_listeners();
        let _ = inner.until.set(until);
        let sessions = inner.all_sessions();
        sessions.iter().for_each(|conn| conn.close_until(until));
        if inner.wait_for_sessions(until) > 0 {
            let late: Vec<Arc<Conn>> = inner.sessions.lock().values().cloned().collect();
            late.iter().for_each(|conn| conn.cut_off(Closed::Shutdown));
            // Their handlers hear of it, if they return.
            inner.wait_for_sessions(time::now() + Duration::from_millis(500));
        }
        inner.finish_lingering(until);
        let left = until.saturating_duration_since(time::now()).max(Duration::from_millis(100));
        // A worker that waits for all of them waits for itself.
        let left = if inner.is_worker() { Duration::ZERO } else { left };
        let workers_left = self.pool.take().map_or(0, |pool| pool.shutdown(left).workers);
        self.inner.end_all();
        let aborted = sessions.iter().filter(|conn| conn.is_cut()).count();
        let add = |(accepted, lost), (more_accepted, more_lost)| (accepted + more_accepted, lost + more_lost);
        let (accepted_bytes, lost_bytes) = sessions.iter().map(|conn| conn.reckoning()).fold((0, 0), add);
        ShutdownReport {
            graceful: sessions.len() - aborted,
            aborted,
            accepted_bytes,
            delivered_bytes: accepted_bytes - lost_bytes,
            lost_bytes,
            workers_left,
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.inner.end_all();
    }
}

impl Inner {
    /// How many are left when the time is over.
    fn wait_for_sessions(&self, until: Instant) -> usize {
        self.wait_while(until, |others| others > 0)
    }

    /// Waits as long as `wait`, given the number of sessions that can end while this thread waits, says so.
    fn wait_while(&self, until: Instant, wait: impl Fn(usize) -> bool) -> usize {
        let own = self.own_session();
        let mut sessions = self.sessions.lock();
        while wait(sessions.len() - usize::from(sessions.contains_key(&own))) {
            let left = until.saturating_duration_since(time::now());
            if left.is_zero() {
                break;
            }
            sessions = time::wait(&self.sessions, sessions, &self.none_left, left);
        }
        sessions.len()
    }

    fn end_clients(&self) {
        let clients = std::mem::take(&mut *self.clients.lock());
        clients.iter().filter_map(Weak::upgrade).for_each(|client| client.end(GaveUp::Stopped));
    }

    /// Everything at once. Whoever runs a handler now is not waited for: see `Conn::tell_closed`.
    ///
    /// A forked child ends nothing: the sessions and the socket files are the parent's.
    fn end_all(&self) {
        if !self.is_home() {
            return;
        }
        self.shutting_down.store(true, Ordering::SeqCst);
        // Before the port is closed: what fails from now on fails for that.
        self.ended.store(true, Ordering::SeqCst);
        self.end_clients();
        self.close_listeners();
        match &self.own {
            Some(port) => port.close(),
            None => {
                let timer = self.timeouts.as_ref().and_then(|timeouts| timeouts.timer.get());
                timer.into_iter().for_each(|&timer| _ = self.port.cancel(timer));
            }
        }
        let sessions = std::mem::take(&mut *self.sessions.lock());
        let Lingering { waiting, in_hands } = std::mem::take(&mut *self.lingering.lock());
        for conn in sessions.into_values().chain(waiting).chain(in_hands) {
            conn.discard();
        }
        self.rates.clear();
        self.memory.clear();
    }
}
