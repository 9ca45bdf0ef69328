//! How a service is to be.

use crate::outbox::SlowConsumer;
use crate::rate::Rate;
use std::io;
use std::time::Duration;
use wharf::{Wake, Workers};

const OUTBOX_BYTES: usize = 1024 * 1024;
const MAX_SESSIONS: usize = 1_000_000;
const LINGER: Duration = Duration::from_secs(5);
/// For a TLS handshake: a few round trips, on a bad line, by a slow machine. Who needs longer will not be served well.
const TLS_HANDSHAKE: Duration = Duration::from_secs(10);
/// For an address to answer. The system's own limit is about two minutes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Options of a service.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    pub(super) workers: Workers,
    pub(super) concurrency: usize,
    pub(super) wake: Wake,
    pub(super) options: Options,
}

#[derive(Clone, Debug)]
pub(super) struct Options {
    pub(super) max_sessions: usize,
    pub(super) outbox_bytes: usize,
    pub(super) slow_consumer: SlowConsumer,
    pub(super) linger: Duration,
    pub(super) nodelay: bool,
    pub(super) idle_timeout: Option<Duration>,
    pub(super) handshake_timeout: Option<Duration>,
    pub(super) connect_timeout: Duration,
    pub(super) rate: Option<Rate>,
    pub(super) inbox_bytes: usize,
    pub(super) memory_bytes: usize,
}

impl Default for ServiceOptions {
    fn default() -> ServiceOptions {
        ServiceOptions {
            workers: Workers::default(),
            concurrency: 0,
            wake: Wake::default(),
            options: Options {
                max_sessions: MAX_SESSIONS,
                outbox_bytes: OUTBOX_BYTES,
                slow_consumer: SlowConsumer::default(),
                linger: LINGER,
                nodelay: true,
                idle_timeout: None,
                handshake_timeout: None,
                connect_timeout: CONNECT_TIMEOUT,
                rate: None,
                inbox_bytes: usize::MAX,
                memory_bytes: usize::MAX,
            },
        }
    }
}

impl Options {
    /// Values that nobody can mean are refused: each would be found out only when the first session ends for it.
    pub(super) fn check(&self) -> io::Result<()> {
        let refuse = |what: &str| Err(io::Error::new(io::ErrorKind::InvalidInput, what));
        if self.max_sessions == 0 {
            return refuse("max_sessions(0) would refuse every session; give 1 or more");
        }
        if self.outbox_bytes == 0 {
            return refuse("an outbox of 0 bytes takes no message; give outbox the length of the longest one or more");
        }
        if self.inbox_bytes == 0 {
            return refuse("inbox(0) would end every session at the first piece of a frame; give it a frame's length");
        }
        if self.memory_bytes == 0 {
            return refuse("memory_limit(0) takes no message; give it some outboxes, or leave it out for no limit");
        }
        if self.idle_timeout.is_some_and(|time| time.is_zero()) {
            return refuse("an idle_timeout of no time would end every session at once; leave it out for never");
        }
        if self.connect_timeout.is_zero() {
            return refuse(
                "a connect_timeout of no time gives nobody time to answer; Duration::MAX is the system's limit",
            );
        }
        if self.handshake_timeout.is_some_and(|time| time.is_zero()) {
            return refuse("a handshake_timeout of no time would end every session at once; leave it out for never");
        }
        Ok(())
    }

    pub(super) fn tls_handshake_timeout(&self) -> Duration {
        self.handshake_timeout.unwrap_or(TLS_HANDSHAKE)
    }

    /// How long an address may take to answer.
    pub(super) fn connect_limit(&self) -> Duration {
        self.handshake_timeout.map_or(self.connect_timeout, |time| time.min(self.connect_timeout))
    }
}

impl ServiceOptions {
    /// How many threads serve it. Default: twice the processors, growing when all are blocked.
    pub fn workers(mut self, workers: Workers) -> Self {
        self.workers = workers;
        self
    }

    /// How many of them may run at the same time. 0, the default: as many as there are processors.
    pub fn concurrency(mut self, limit: usize) -> Self {
        self.concurrency = limit;
        self
    }

    /// How soon a further thread is woken while others are active.
    pub fn wake(mut self, wake: Wake) -> Self {
        self.wake = wake;
        self
    }

    /// How many sessions there may be at a time, at least 1. A connection beyond it is closed at once, and counted as
    /// refused.
    pub fn max_sessions(mut self, count: usize) -> Self {
        self.options.max_sessions = count;
        self
    }

    /// How many bytes may wait for one session (1 MiB), at least 1, and what happens when they are reached. What the
    /// system has taken of a message does not wait any more.
    pub fn outbox(mut self, bytes: usize, policy: SlowConsumer) -> Self {
        self.options.outbox_bytes = bytes;
        self.options.slow_consumer = policy;
        self
    }

    /// How many bytes of an unfinished frame one [`Framed`](crate::Framed) session may keep, beside its codec's own
    /// maximum. One with more is closed ([`FrameError::TooLong`](crate::FrameError::TooLong)). Default: as the codec
    /// says.
    ///
    /// A session without framing keeps what it is given itself. Beside a frame one receive (16 KiB) may wait, when a
    /// session was paused as it came.
    pub fn inbox(mut self, bytes: usize) -> Self {
        self.options.inbox_bytes = bytes;
        self
    }

    /// How many bytes all sessions together may keep: what waits to be sent, and what was received and waits to be
    /// handled (see [`outbox`](ServiceOptions::outbox) and [`inbox`](ServiceOptions::inbox)). Default: no limit.
    ///
    /// - A send that would exceed it is treated as the policy for slow consumers says, with *the session that holds
    ///   most*, the new message counted, as the slow one: it ends
    ///   ([`Closed::MemoryLimit`](crate::Closed::MemoryLimit)), or loses its oldest messages, or the sender waits.
    /// - While three quarters are used, nothing is received, until no more than half is: peers then wait, by TCP's own
    ///   means.
    /// - While anybody waits for memory, and in a second less than a hundredth of the limit is freed, or taken by the
    ///   peers of what is on its way, the largest of those whose peers take nothing end, as many as it takes until
    ///   those that wait may go on, and at least as many as hold a hundredth. So a service whose memory is full of what
    ///   nobody reads gets on again by itself.
    ///
    /// Sends never exceed it. Receives that were outstanding when memory became short may, by a quarter: if their
    /// unfinished frames come to more, the session that holds most ends at once. What came as a session was just paused
    /// is not bounded by it, but by one receive (16 KiB) for each such session. The bytes of a broadcast count once,
    /// however many members have not read it yet. Not counted: what a session keeps itself, the system's own buffers,
    /// and some hundred bytes for each session. Everything that is ended for it is logged, and counted in
    /// [`ServiceStats::memory`](crate::ServiceStats::memory).
    pub fn memory_limit(mut self, bytes: usize) -> Self {
        self.options.memory_bytes = bytes;
        self
    }

    /// How fast each session may receive: see [`Rate`]. [`Link::set_rate_limit`](crate::Link::set_rate_limit) says
    /// otherwise for one. Default: no limit.
    ///
    /// Nothing is lost, and nobody is ended: a session that has used up its rate is not received from until it may
    /// again. Its time in waiting does not count as idle.
    pub fn rate_limit(mut self, rate: Rate) -> Self {
        self.options.rate = Some(rate);
        self
    }

    /// How long a session that is being closed may take until what was accepted has arrived, and the peer has ended its
    /// side (5 s); in a shutdown its deadline counts instead. A peer that has ended its side and still reads what was
    /// accepted for it has as long as this since it last took something. What has not arrived then is lost, and the
    /// peer hears a reset. With no time at all a close is an [abort](crate::Link::abort) as soon as something has to be
    /// waited for.
    pub fn linger(mut self, time: Duration) -> Self {
        self.options.linger = time;
        self
    }

    /// Whether small messages go out at once (`TCP_NODELAY`). Default: yes.
    pub fn nodelay(mut self, on: bool) -> Self {
        self.options.nodelay = on;
        self
    }

    /// Closes a session that for that long has received nothing, and of which no send has completed and nothing was
    /// acknowledged ([`Closed::IdleTimeout`](crate::Closed::IdleTimeout)): its peer is silent, and does not read
    /// either. Default: never.
    ///
    /// Sessions are looked at eight times in the smallest time-out, but not more often than every 5 ms, so one is
    /// closed up to half of it, or 20 ms, later, never earlier. Time in which a handler of the session runs does not
    /// count.
    pub fn idle_timeout(mut self, time: Duration) -> Self {
        self.options.idle_timeout = Some(time);
        self
    }

    /// Closes a session that has not called [`Link::ready`](crate::Link::ready) that long after it was opened
    /// ([`Closed::HandshakeTimeout`](crate::Closed::HandshakeTimeout)), whatever it receives. Default: never. As exact
    /// as [`idle_timeout`](ServiceOptions::idle_timeout).
    ///
    /// A TLS handshake, before `opened`, may take as long, and 10 s if nothing is said here; sessions that are at it
    /// are looked at every 0.2 s.
    pub fn handshake_timeout(mut self, time: Duration) -> Self {
        self.options.handshake_timeout = Some(time);
        self
    }

    /// How long an address may take to answer, for sessions that this side connects: then the name's next address is
    /// tried, or the session's `closed` is called ([`Closed::Failed`](crate::Closed::Failed),
    /// [`TimedOut`](io::ErrorKind::TimedOut)). Default: 20 s; the system's own limit is about two minutes.
    /// [`handshake_timeout`](ServiceOptions::handshake_timeout), if it is shorter, counts for this, too. Looked at
    /// every 0.2 s. A client that connects again has [its own](crate::Reconnect::connect_timeout).
    pub fn connect_timeout(mut self, time: Duration) -> Self {
        self.options.connect_timeout = time;
        self
    }
}
