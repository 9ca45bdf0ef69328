//! Clients that connect again when their connection ends, and wait longer after each failure.
//!
//! Each attempt makes a session of its own. It is wrapped into a [`Watched`], which tells the [`Control`] how the
//! session ended when it is dropped: so the control hears of it exactly once, after `closed`, and after a handler that
//! panicked too. Waiting is a timer of the port; there is no thread.
//!
//! ```text
//! trying ─→ connected ─→ waiting ─→ trying ─→ …
//!     └────────────────────↗  └─→ ended
//! ```
//!
//! The lock of the control's state is held for none of the program's code and no call into the service. Each attempt
//! has a number, and what comes from an earlier one does nothing.

use crate::closed::Closed;
use crate::dispatch::{Node, Op};
use crate::link::Link;
use crate::lock::{Condition, Guard, Lock};
use crate::service::{Inner, Service};
use crate::{ClientTls, Session, payload, time};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};
use wharf::net::Addresses;
use wharf::{Buffer, OperationId};

/// How a client connects again: see [`Service::reconnect`].
///
/// After the first failure it waits for `initial_delay`, after each further one `factor` times as long, up to
/// `max_delay`; of each wait a random part, up to `jitter`, is taken off, so that a thousand clients of a server that
/// was restarted do not come back in the same instant. After a connection that has held for `steady` it begins with
/// `initial_delay` again.
///
/// ```
/// use std::time::Duration;
/// use wharf_session::Reconnect;
/// let patient = Reconnect::new().initial_delay(Duration::from_millis(200)).max_delay(Duration::from_secs(60));
/// let hasty = Reconnect::new().attempts(3).connect_timeout(Duration::from_secs(2));
/// ```
#[derive(Clone, Debug)]
pub struct Reconnect {
    initial_delay: Duration,
    max_delay: Duration,
    factor: f64,
    jitter: f64,
    steady: Duration,
    attempts: Option<u32>,
    connect_timeout: Duration,
    again_after: fn(&Closed) -> bool,
}

impl Default for Reconnect {
    fn default() -> Self {
        Reconnect {
            initial_delay: Duration::from_millis(100),
            max_delay: Duration::from_secs(30),
            factor: 2.0,
            jitter: 0.5,
            steady: Duration::from_secs(10),
            attempts: None,
            connect_timeout: Duration::from_secs(20),
            again_after: |reason| !matches!(reason, Closed::ByUs | Closed::Shutdown),
        }
    }
}

impl Reconnect {
    /// 100 ms, doubled up to 30 s, up to half of it taken off; for ever.
    pub fn new() -> Reconnect {
        Reconnect::default()
    }

    /// The wait after the first failure. Default: 100 ms. With no time at all it never waits, and tries as often as the
    /// other side refuses: for tests, or with a number of [`attempts`](Reconnect::attempts).
    pub fn initial_delay(mut self, wait: Duration) -> Self {
        self.initial_delay = wait;
        self
    }

    /// The longest wait. Default: 30 s.
    pub fn max_delay(mut self, wait: Duration) -> Self {
        self.max_delay = wait;
        self
    }

    /// How many times longer each wait is than the one before. Default: 2; below 1 counts as 1.
    pub fn factor(mut self, factor: f64) -> Self {
        self.factor = if factor.is_finite() { factor.max(1.0) } else { 1.0 };
        self
    }

    /// The part of a wait that may be taken off at random: 0 is none, 1 all of it. Default: 0.5.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = if part.is_finite() { part.clamp(0.0, 1.0) } else { 0.0 };
        self
    }

    /// How long a connection has to hold so that its end counts as the first failure. Default: 10 s.
    pub fn steady(mut self, time: Duration) -> Self {
        self.steady = time;
        self
    }

    /// How many failures in a row it takes to give up. Default: never. An attempt goes through all of a name's
    /// addresses; a connection that has not held for [`steady`](Reconnect::steady) is a failure too. 0 counts as 1.
    pub fn attempts(mut self, count: u32) -> Self {
        self.attempts = Some(count.max(1));
        self
    }

    /// How long an address may take to answer ([`io::ErrorKind::TimedOut`]), if the service's
    /// [`handshake_timeout`](crate::ServiceOptions::handshake_timeout) is not shorter. Default: 20 s; the system's own
    /// limit is about two minutes.
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.connect_timeout = time;
        self
    }

    /// After which ends it connects again; one for which `which` panics is not among them. Default: all but
    /// [`Closed::ByUs`] and [`Closed::Shutdown`]; a session that was refused at login, say, closes itself and stays
    /// closed.
    pub fn again_after(mut self, which: fn(&Closed) -> bool) -> Self {
        self.again_after = which;
        self
    }

    /// The wait after so many failures in a row, at least 1; `random` is in 0..1.
    fn wait(&self, failures: u32, random: f64) -> Duration {
        if self.initial_delay.is_zero() {
            return Duration::ZERO;
        }
        // In seconds: a `Duration` overflows, a float does not.
        let grown =
            self.initial_delay.as_secs_f64() * self.factor.powi(i32::try_from(failures - 1).unwrap_or(i32::MAX));
        let bounded = grown.min(self.max_delay.as_secs_f64());
        Duration::try_from_secs_f64(bounded * (1.0 - self.jitter * random)).unwrap_or(self.max_delay)
    }
}

/// Why a client does not connect any more.
#[derive(Debug)]
#[non_exhaustive]
pub enum GaveUp {
    /// [`Reconnecting::stop`], or the service was shut down.
    Stopped,
    /// So many attempts have failed in a row, the last one for that reason.
    Failed {
        /// How many.
        attempts: u32,
        /// The last one's end.
        last: Closed,
    },
    /// A session ended in a way after which it is not to connect again: see [`Reconnect::again_after`].
    Final(Closed),
}

impl fmt::Display for GaveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            GaveUp::Stopped => f.write_str("stopped"),
            GaveUp::Failed { attempts: 1, last } => write!(f, "given up after an attempt: {last}"),
            GaveUp::Failed { attempts, last } => write!(f, "given up after {attempts} attempts, the last: {last}"),
            GaveUp::Final(reason) => write!(f, "not connected again: {reason}"),
        }
    }
}

/// A client that connects again: where it stands, and how to stop it. Clones name the same client. In a forked child it
/// has stopped.
///
/// Dropping it changes nothing: the client goes on until it gives up, or the service ends.
#[derive(Clone)]
pub struct Reconnecting(Arc<Control>);

/// Where a [`Reconnecting`] client stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ReconnectState {
    /// It tries to connect.
    Connecting,
    /// It is connected.
    Connected(Link),
    /// It waits before the next attempt, after so many failures in a row.
    Waiting {
        /// How many.
        failures: u32,
    },
    /// It connects no more.
    GaveUp(Arc<GaveUp>),
}

impl Reconnecting {
    /// Where it stands now.
    pub fn state(&self) -> ReconnectState {
        if !self.0.is_home() {
            return ReconnectState::GaveUp(Arc::new(GaveUp::Stopped));
        }
        self.0.lock().state()
    }

    /// The link of the session that is connected, if one is.
    pub fn link(&self) -> Option<Link> {
        match self.state() {
            ReconnectState::Connected(link) => Some(link),
            _ => None,
        }
    }

    /// How many connections were tried, of all addresses, and how many of them were made.
    pub fn counts(&self) -> (u64, u64) {
        if !self.0.is_home() {
            return (0, 0);
        }
        let state = self.0.lock();
        (state.attempt, state.connected_count)
    }

    /// Connects no more. A session that is connected goes on; an attempt that is under way is given up.
    pub fn stop(&self) {
        if !self.0.is_home() {
            return;
        }
        self.0.end(GaveUp::Stopped);
    }

    /// Connects no more, and closes the session that is connected, gracefully.
    pub fn close(&self) {
        if !self.0.is_home() {
            return;
        }
        let link = self.0.lock().link.clone();
        self.stop();
        if let Some(link) = link {
            link.close();
        }
    }

    /// Waits until it connects no more, and says why. Ends for sure only with a number of attempts, with
    /// [`stop`](Reconnecting::stop), or with the service. Not for handlers: it may wait for the worker that it runs on.
    pub fn wait(&self) -> Arc<GaveUp> {
        if !self.0.is_home() {
            return Arc::new(GaveUp::Stopped);
        }
        let mut state = self.0.lock();
        loop {
            if let Some(why) = &state.ended {
                return why.clone();
            }
            state = self.0.changed.wait(state);
        }
    }
}

impl fmt::Debug for Reconnecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reconnecting").field(&self.state()).finish()
    }
}

#[derive(Clone, Debug)]
enum Target {
    Tcp(SocketAddr),
    Local(PathBuf),
}

type MakeSession = dyn FnMut() -> Box<dyn Session> + Send;

pub(super) struct Control {
    options: Reconnect,
    targets: Vec<Target>,
    /// Over TLS, and the name that the server's certificate has to be for.
    tls: Option<(ClientTls, String)>,
    service: Weak<Inner>,
    /// Locked while a session is made, by the one thread that tries.
    make: Lock<Option<Box<MakeSession>>>,
    state: Lock<State>,
    changed: Condition,
}

struct State {
    /// The number of the attempt that runs, or ran last.
    attempt: u64,
    /// A session of that attempt exists, or is being made.
    alive: bool,
    connected_count: u64,
    /// The target of the next attempt.
    target: usize,
    /// Failures in a row.
    failures: u32,
    opened: Option<Instant>,
    /// The session that connects, or is connected.
    link: Option<Link>,
    timer: Option<OperationId>,
    ended: Option<Arc<GaveUp>>,
}

impl State {
    fn state(&self) -> ReconnectState {
        match (&self.ended, &self.link, self.opened) {
            (Some(why), ..) => ReconnectState::GaveUp(why.clone()),
            (None, Some(link), Some(_)) => ReconnectState::Connected(link.clone()),
            _ if self.alive => ReconnectState::Connecting,
            _ => ReconnectState::Waiting { failures: self.failures },
        }
    }
}

impl Service {
    /// Connects to an address, and again whenever the connection ends or cannot be made, with longer and longer waits:
    /// see [`Reconnect`]. `make` makes a session for each connection that is tried; it runs on a worker, or, the first
    /// time, in this call. A session's `closed` tells how it went, unless the connection could not even be begun (no
    /// descriptor, a Unix socket on which nobody listens): then no handler is called. The next session is made after
    /// the last one was dropped.
    ///
    /// The name is resolved once, now. Of its addresses each is tried in turn before the first wait.
    ///
    /// ```
    /// # use wharf::Buffer;
    /// # use wharf_session::{Link, Reconnect, Service, Session};
    /// struct Client;
    /// impl Session for Client {
    ///     fn opened(&mut self, link: &Link) {
    ///         let _ = link.send("hello\n");
    ///     }
    ///     fn received(&mut self, _link: &Link, _data: Buffer) {}
    /// }
    /// let service = Service::options().start()?;
    /// let client = service.reconnect("127.0.0.1:9", Reconnect::new(), || Client)?;
    /// client.stop();
    /// assert_eq!(client.wait().to_string(), "stopped");
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// The name has no address, or an address would have no time to answer (`InvalidInput`). That nobody answers is no
    /// error: it is tried again.
    pub fn reconnect<S: Session>(
        &self,
        address: impl Addresses,
        options: Reconnect,
        make: impl FnMut() -> S + Send + 'static,
    ) -> io::Result<Reconnecting> {
        let targets = tcp_targets(address, &options)?;
        Ok(self.reconnect_to(targets, None, options, make))
    }

    /// Like [`reconnect`](Service::reconnect), over TLS, as [`connect_tls`](Service::connect_tls) does. An attempt
    /// counts as connected when the TLS handshake is done; [`Reconnect::connect_timeout`] covers it too.
    ///
    /// # Errors
    ///
    /// As `reconnect`; and `InvalidInput`: `server_name` can be nobody's name. That a handshake fails is no error, it
    /// is tried again: servers are given new certificates. [`Reconnect::again_after`] can say otherwise.
    #[cfg(feature = "tls")]
    pub fn reconnect_tls<S: Session>(
        &self,
        address: impl Addresses,
        server_name: &str,
        tls: &ClientTls,
        options: Reconnect,
        make: impl FnMut() -> S + Send + 'static,
    ) -> io::Result<Reconnecting> {
        tls.connect(server_name)?;
        let targets = tcp_targets(address, &options)?;
        Ok(self.reconnect_to(targets, Some((tls.clone(), server_name.to_owned())), options, make))
    }

    /// Like [`reconnect`](Service::reconnect), to a Unix socket: a path, or with `@` before it an abstract name.
    pub fn reconnect_local<S: Session>(
        &self,
        name: impl AsRef<Path>,
        options: Reconnect,
        make: impl FnMut() -> S + Send + 'static,
    ) -> Reconnecting {
        self.reconnect_to(vec![Target::Local(name.as_ref().to_owned())], None, options, make)
    }

    fn reconnect_to<S: Session>(
        &self,
        targets: Vec<Target>,
        tls: Option<(ClientTls, String)>,
        options: Reconnect,
        mut make: impl FnMut() -> S + Send + 'static,
    ) -> Reconnecting {
        let state = State {
            attempt: 0,
            alive: false,
            connected_count: 0,
            target: 0,
            failures: 0,
            opened: None,
            link: None,
            timer: None,
            ended: None,
        };
        let control = Arc::new(Control {
            options,
            targets,
            tls,
            service: Arc::downgrade(&self.inner),
            make: Lock::new(Some(Box::new(move || Box::new(make())))),
            state: Lock::new(state),
            changed: Condition::new(),
        });
        if !self.inner.is_home() {
            return Reconnecting(control);
        }
        self.inner.note_client(&control);
        control.attempt();
        Reconnecting(control)
    }
}

fn tcp_targets(address: impl Addresses, options: &Reconnect) -> io::Result<Vec<Target>> {
    if options.connect_timeout.is_zero() {
        let what = "a connect_timeout of no time gives nobody time to answer; Duration::MAX is the system's limit";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(address.addresses()?.into_iter().map(Target::Tcp).collect())
}

impl Control {
    /// In a forked child the client, and its locks, are the parent's.
    fn is_home(&self) -> bool {
        self.service.upgrade().is_none_or(|service| service.is_home())
    }

    fn lock(&self) -> Guard<'_, State> {
        self.state.lock()
    }

    /// The time has come: makes a session and connects it.
    pub(super) fn attempt(self: &Arc<Self>) {
        let Some(service) = self.service.upgrade() else { return self.end(GaveUp::Stopped) };
        let (number, target) = {
            let mut state = self.lock();
            if state.ended.is_some() || state.alive {
                return;
            }
            state.attempt += 1;
            state.alive = true;
            state.timer = None;
            let target = self.targets[state.target].clone();
            state.target = (state.target + 1) % self.targets.len();
            (state.attempt, target)
        };
        let made = {
            let mut make = self.make.lock();
            let Some(make) = make.as_mut() else { return };
            catch_unwind(AssertUnwindSafe(make))
        };
        let session = match made {
            Ok(session) => session,
            Err(panic) => {
                let words = payload::words(panic);
                log::error!("a session could not be made: its constructor panicked: {words}");
                service.totals.panics.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                return self.over(number, Closed::Panicked);
            }
        };
        let watched =
            Box::new(Watched { session: Some(session), control: self.clone(), number, reason: None, begun: false });
        let connected = match &target {
            Target::Tcp(peer) => {
                let tls = self.tls.as_ref().map(|(tls, name)| tls.connect(name)).transpose();
                let limit = service.options.handshake_timeout;
                tls.and_then(|tls| service.connect_boxed(vec![*peer], limit, tls, watched))
            }
            Target::Local(name) => service.connect_local(name, watched),
        };
        let link = match connected {
            Ok(link) => link,
            Err(error) => return self.over(number, Closed::Failed(error)),
        };
        let stopped = {
            let mut state = self.lock();
            let current = state.attempt == number && state.alive;
            if current && state.link.is_none() {
                state.link = Some(link.clone());
            }
            // Stopped meanwhile, when there was no link to end yet; unless it was connected before that.
            state.ended.is_some() && current && state.opened.is_none()
        };
        if stopped {
            return link.abort();
        }
        let timer =
            service.port.timer(self.options.connect_timeout, Node::Client(self.clone()), Op::ConnectLate(number as u8));
        if let Ok(timer) = timer {
            self.keep_timer(&service, number, timer);
        }
    }

    /// The timer of an attempt that is over, or has come so far, is not needed.
    fn keep_timer(&self, service: &Inner, number: u64, timer: OperationId) {
        let unused = {
            let mut state = self.lock();
            let needed = state.attempt == number && state.alive && state.opened.is_none() && state.ended.is_none();
            if needed { state.timer.replace(timer) } else { Some(timer) }
        };
        if let Some(timer) = unused {
            service.port.cancel(timer);
        }
    }

    /// An address has not answered in time.
    pub(super) fn connect_late(&self, number: u8) {
        let link = {
            let state = self.lock();
            let late = state.attempt as u8 == number && state.alive && state.opened.is_none();
            if late { state.link.clone() } else { None }
        };
        if let Some(link) = link {
            let error = io::Error::new(io::ErrorKind::TimedOut, "the address has not answered in time");
            link.0.end(Closed::Failed(error));
        }
    }

    fn opened(&self, number: u64, link: &Link) {
        let timer = {
            let mut state = self.lock();
            if state.attempt != number {
                return;
            }
            state.opened = Some(time::now());
            state.connected_count += 1;
            state.link = Some(link.clone());
            state.timer.take()
        };
        self.changed.notify_all();
        self.cancel(timer);
    }

    /// An attempt's session is gone.
    fn over(self: &Arc<Self>, number: u64, reason: Closed) {
        let Some(service) = self.service.upgrade() else { return self.end(GaveUp::Stopped) };
        let again = !matches!(reason, Closed::Shutdown) && self.again_after(&service, &reason);
        let words = log::log_enabled!(log::Level::Debug).then(|| reason.to_string());
        let (timer, next, failures) = {
            let mut state = self.lock();
            if state.attempt != number || !state.alive {
                return;
            }
            state.alive = false;
            let held = state.opened.take().map(time::since);
            let link = state.link.take();
            let timer = state.timer.take();
            let next = if state.ended.is_some() {
                Next::Nothing
            } else if !again {
                Next::End(match reason {
                    Closed::Shutdown => GaveUp::Stopped,
                    reason => GaveUp::Final(reason),
                })
            } else {
                self.after_failure(&mut state, held, reason)
            };
            let failures = state.failures;
            drop(state);
            drop(link);
            (timer, next, failures)
        };
        self.cancel(timer);
        match next {
            Next::Nothing => {}
            Next::End(why) => self.end(why),
            Next::Wait(wait) => {
                if let Some(words) = words {
                    log::debug!("not connected: {words}; the next attempt, after {failures} failures, is in {wait:?}");
                }
                self.changed.notify_all();
                // A closed port sets no timer: the service has ended.
                match service.port.timer(wait, Node::Client(self.clone()), Op::ConnectAgain) {
                    Ok(timer) => {
                        let unused = {
                            let mut state = self.lock();
                            let needed = state.attempt == number && !state.alive && state.ended.is_none();
                            if needed { state.timer.replace(timer) } else { Some(timer) }
                        };
                        self.cancel(unused);
                    }
                    Err(_) => self.end(GaveUp::Stopped),
                }
            }
        }
    }

    /// Asks the program whether this end is to be followed by another attempt: under no lock, and once.
    fn again_after(&self, service: &Inner, reason: &Closed) -> bool {
        catch_unwind(AssertUnwindSafe(|| (self.options.again_after)(reason))).unwrap_or_else(|panic| {
            let words = payload::words(panic);
            log::error!("what decides whether to connect again panicked: {words}");
            service.totals.panics.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            false
        })
    }

    fn after_failure(&self, state: &mut State, held: Option<Duration>, reason: Closed) -> Next {
        if held.is_some_and(|held| held >= self.options.steady) {
            state.failures = 0;
            state.target = 0;
        } else if state.target != 0 {
            // The name has further addresses, which may be well where one accepts and closes.
            return Next::Wait(Duration::ZERO);
        }
        state.target = 0;
        state.failures = state.failures.saturating_add(1);
        if self.options.attempts.is_some_and(|most| state.failures >= most) {
            return Next::End(GaveUp::Failed { attempts: state.failures, last: reason });
        }
        Next::Wait(self.options.wait(state.failures, fastrand::f64()))
    }

    /// Connects no more. The first reason stays.
    pub(super) fn end(&self, why: GaveUp) {
        let (timer, link) = {
            let mut state = self.lock();
            if state.ended.is_some() {
                return;
            }
            state.ended = Some(Arc::new(why));
            // An attempt that is under way is given up, a connection is not.
            let link = if state.opened.is_none() { state.link.clone() } else { None };
            (state.timer.take(), link)
        };
        self.changed.notify_all();
        self.cancel(timer);
        if let Some(link) = link {
            link.abort();
        }
        // What the program gave is dropped, unless a session is being made just now; it then goes with the last handle.
        let make = self.make.try_lock().and_then(|mut make| make.take());
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| drop(make))) {
            payload::discard(panic);
        }
    }

    fn cancel(&self, timer: Option<OperationId>) {
        if let (Some(timer), Some(service)) = (timer, self.service.upgrade()) {
            service.port.cancel(timer);
        }
    }
}

enum Next {
    Nothing,
    Wait(Duration),
    End(GaveUp),
}

impl Closed {
    /// The same again: an `io::Error` cannot be cloned, but its number, or its kind and words, can.
    fn again(&self) -> Closed {
        match self {
            Closed::Failed(error) => Closed::Failed(match error.raw_os_error() {
                Some(number) => io::Error::from_raw_os_error(number),
                None => io::Error::new(error.kind(), error.to_string()),
            }),
            Closed::Framing(error) => Closed::Framing(*error),
            Closed::ByPeer => Closed::ByPeer,
            Closed::ByUs => Closed::ByUs,
            Closed::Shutdown => Closed::Shutdown,
            Closed::SlowConsumer => Closed::SlowConsumer,
            Closed::MemoryLimit => Closed::MemoryLimit,
            Closed::IdleTimeout => Closed::IdleTimeout,
            Closed::HandshakeTimeout => Closed::HandshakeTimeout,
            #[cfg(feature = "tls")]
            Closed::Tls(error) => Closed::Tls(error.clone()),
            Closed::Panicked => Closed::Panicked,
        }
    }
}

/// A session whose end is told to the control.
struct Watched {
    session: Option<Box<dyn Session>>,
    control: Arc<Control>,
    number: u64,
    reason: Option<Closed>,
    /// A handler was called. A session of which none was is dropped by the call that refused to connect it, and that
    /// call tells.
    begun: bool,
}

impl Watched {
    fn session(&mut self) -> &mut dyn Session {
        self.begun = true;
        &mut **self.session.as_mut().expect("taken when dropped only")
    }
}

impl Session for Watched {
    fn opened(&mut self, link: &Link) {
        self.begun = true;
        self.control.opened(self.number, link);
        self.session().opened(link);
    }

    fn received(&mut self, link: &Link, data: Buffer) {
        self.session().received(link, data);
    }

    fn resumed(&mut self, link: &Link) {
        self.session().resumed(link);
    }

    fn closed(&mut self, link: &Link, reason: &Closed) {
        self.reason = Some(reason.again());
        self.session().closed(link, reason);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // The program's own destructor first: what it holds is free for the next session.
        let session = self.session.take();
        let well = catch_unwind(AssertUnwindSafe(|| drop(session)));
        if self.begun {
            self.control.over(self.number, self.reason.take().unwrap_or(Closed::Panicked));
        }
        if let Err(panic) = well {
            if !std::thread::panicking() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_by_the_factor_up_to_the_most() {
        let options =
            Reconnect::new().initial_delay(Duration::from_secs(1)).max_delay(Duration::from_secs(10)).jitter(0.0);
        let waits: Vec<u64> = (1..=6).map(|failures| options.wait(failures, 0.7).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(options.wait(u32::MAX, 0.0), Duration::from_secs(10));
    }

    #[test]
    fn jitter_takes_off_a_part_and_never_adds() {
        let options = Reconnect::new().initial_delay(Duration::from_secs(8)).jitter(0.5);
        assert_eq!(options.wait(1, 0.0), Duration::from_secs(8));
        assert_eq!(options.wait(1, 0.5), Duration::from_secs(6));
        assert!(options.wait(1, 0.999) > Duration::from_secs(4));
        assert_eq!(options.jitter(7.0).wait(1, 1.0), Duration::ZERO);
    }

    #[test]
    fn nonsense_makes_waits_that_can_be_waited_for() {
        let options =
            Reconnect::new().factor(f64::NAN).jitter(f64::NAN).max_delay(Duration::MAX).initial_delay(Duration::MAX);
        assert!(options.wait(1, 0.5) <= Duration::MAX);
        let options = Reconnect::new().factor(f64::INFINITY).max_delay(Duration::from_secs(5));
        assert!(options.wait(1000, 0.5) <= Duration::from_secs(5));
        assert_eq!(Reconnect::new().initial_delay(Duration::ZERO).factor(1e300).wait(u32::MAX, 0.5), Duration::ZERO);
    }
}
