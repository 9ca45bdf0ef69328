#![cfg(test)]
//! What has to be true, while a schedule is played and at its end.

use super::{Closed, Party, Schedule, SlowConsumer, ms};
use crate::ending::HEAR_OUT;
use crate::lingering::SWEEP;
use crate::lock::Lock;
use crate::shutdown::ShutdownReport;
use crate::stats::Totals;
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How late something may be beside what the documents say: the longest step of time, and a look.
const LATE: Duration = Duration::from_millis(130);

/// What the schedules of this run have come across.
static SEEN: Lock<BTreeMap<&str, u64>> = Lock::new(BTreeMap::new());

pub(super) fn seen(what: &'static str) {
    *SEEN.lock().entry(what).or_default() += 1;
}

/// What a few hundred schedules have to come across, or they prove nothing of it.
const ALL: [&str; 30] = [
    "the peer's end",
    "a close",
    "an abort",
    "a shutdown",
    "a failure",
    "a slow consumer",
    "the memory limit",
    "broken framing",
    "an idle peer",
    "a late handshake",
    "a panic",
    "an end that was heard",
    "a reset that was heard",
    "a reset by the peer",
    "a loss",
    "a loss after the peer's end",
    "all of it after the peer's end",
    "all of it after a close",
    "nothing to send",
    "something at risk",
    "a race",
    "a broadcast that was heard",
    "messages that were dropped",
    "frames",
    "a connect that was made",
    "a connect that failed",
    "a drain",
    "a drain that left some",
    "a shutdown that lost something",
    "a service that was dropped",
];

pub(super) fn assert_all_seen() {
    let seen = SEEN.lock();
    let missing: Vec<_> = ALL.iter().filter(|what| !seen.contains_key(*what)).collect();
    assert!(missing.is_empty(), "no schedule came across {missing:?}: {seen:?}");
    let unknown: Vec<_> = seen.keys().filter(|what| !ALL.contains(what)).collect();
    assert!(unknown.is_empty(), "{unknown:?} is not in the list");
}

/// How a connection ended for its peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    End,
    Reset,
}

/// A message: its length, its number, and bytes by its number.
pub(super) fn message(number: u32, length: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(length);
    message.extend((length as u32).to_le_bytes());
    message.extend(number.to_le_bytes());
    message.extend((8..length).map(|at| (number as usize * 31 + at) as u8));
    message
}

pub(super) fn is_message(number: u32, bytes: &[u8]) -> bool {
    bytes == message(number, bytes.len())
}

/// A number for all of it.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |sum: u64, &byte| sum.rotate_left(5) ^ u64::from(byte))
}

/// The messages that a peer has heard, by their numbers; the last may be a part of one.
struct Messages {
    whole: Vec<u32>,
    part: Option<u32>,
}

impl Messages {
    fn of(heard: &[u8], lengths: &[usize]) -> Messages {
        let (mut whole, mut at) = (Vec::new(), 0);
        while heard.len() - at >= 8 {
            let head = |from: usize| u32::from_le_bytes(heard[from..from + 4].try_into().unwrap());
            let (length, number) = (head(at) as usize, head(at + 4));
            assert_eq!(lengths.get(number as usize), Some(&length), "at {at} the peer heard what is no message");
            let here = &heard[at..heard.len().min(at + length)];
            assert_eq!(here, &message(number, length)[..here.len()], "message {number} was changed");
            if here.len() < length {
                return Messages { whole, part: Some(number) };
            }
            whole.push(number);
            at += length;
        }
        let part = (at < heard.len()).then_some(u32::MAX);
        Messages { whole, part }
    }
}

impl Schedule {
    /// Looks at what each peer has heard, and at whether messages are still accepted.
    pub(super) fn observe(&self) {
        let now = self.time();
        let count = self.model().parties.len();
        for index in 0..count {
            self.find_connection(index);
            let mut model = self.model();
            let party = &mut model.parties[index];
            if party.decided.is_none() && party.link.as_ref().is_some_and(|link| link.0.is_to_end()) {
                party.decided = Some((now, party.stirred_until(now)));
            }
            let Some(connection) = party.connection else { continue };
            let view = self.fake.view(connection);
            // Some are reset as they are made.
            party.peer_reset |= view.reset;
            if view.closed && party.gone.is_none() {
                party.gone = Some((now, party.stirred_until(now)));
            }
            if party.heard.is_none() && !party.peer_reset {
                if view.broken {
                    party.heard = Some(Heard::Reset);
                } else if view.read == view.sent && (view.shut || view.closed) {
                    party.heard = Some(Heard::End);
                }
            }
        }
    }

    /// The session's handler is told that it is over.
    pub(super) fn is_closed(&self, index: usize, reason: &Closed) {
        let now = self.time();
        let mut model = self.model();
        let party = &mut model.parties[index];
        assert!(party.closed.is_none(), "closed twice: {:?}, {reason:?}", party.closed);
        assert!(!party.panicked, "closed after a panic");
        let (decided, stirred) = party.decided.unwrap_or((now, party.stirred_before.min(party.stirred)));
        match reason {
            Closed::IdleTimeout => {
                let idle = self.limits.idle.expect("there is an idle time-out");
                let silent = decided.saturating_duration_since(stirred);
                assert!(silent >= idle, "ended as idle after {silent:?} instead of {idle:?}");
            }
            Closed::HandshakeTimeout => {
                let limit = self.limits.handshake.expect("there is a handshake time-out");
                let open = decided.saturating_duration_since(party.opened.unwrap_or(party.began));
                let ready = party.ready.is_some_and(|ready| ready < decided);
                assert!(open >= limit && !ready, "ended for its handshake after {open:?} instead of {limit:?}");
            }
            Closed::MemoryLimit => assert!(self.limits.memory.is_some(), "there is no memory limit"),
            Closed::Framing(_) => assert!(party.is_framed, "a session without frames"),
            Closed::ByPeer => assert!(party.peer_finished || party.peer_reset, "the peer has not ended it"),
            Closed::ByUs => assert!(party.closing.is_some() || party.aborted, "nobody has closed it"),
            Closed::Shutdown => assert!(model.ending, "nobody has shut the service down"),
            _ => {}
        }
        let party = &mut model.parties[index];
        party.is_over = true;
        if let Closed::Failed(error) = reason {
            assert_ne!(error.to_string(), "the port is closed", "the end of the service is told as the connection's");
        }
        party.closed = Some(match reason {
            Closed::Failed(error) => Closed::Failed(std::io::Error::new(error.kind(), error.to_string())),
            Closed::Framing(error) => Closed::Framing(*error),
            Closed::ByPeer => Closed::ByPeer,
            Closed::ByUs => Closed::ByUs,
            Closed::Shutdown => Closed::Shutdown,
            Closed::SlowConsumer => Closed::SlowConsumer,
            Closed::MemoryLimit => Closed::MemoryLimit,
            Closed::IdleTimeout => Closed::IdleTimeout,
            Closed::HandshakeTimeout => Closed::HandshakeTimeout,
            _ => Closed::Panicked,
        });
    }

    /// What is due has happened.
    pub(super) fn check_limits(&self) {
        let now = self.time();
        let model = self.model();
        if model.ending {
            return;
        }
        let is_alive = |party: &&Party| party.link.is_some() && !party.is_over && !party.panicked;
        let alive = model.parties.iter().filter(is_alive).count();
        let open = self.running().map_or(0, |inner| inner.open_sessions());
        assert!(open <= alive, "the service has {open} sessions, and {alive} are not over");
        let smallest = self.limits.idle.into_iter().chain(self.limits.handshake).min().unwrap_or_default();
        let looks = (smallest / 8).max(ms(5)) * 5;
        for (index, party) in model.parties.iter().enumerate() {
            if party.conn.strong_count() == 0 {
                continue;
            }
            let closed = party.connection.is_none_or(|connection| self.fake.view(connection).closed);
            if let Some(closing) = party.closing {
                let due = closing + self.limits.linger + HEAR_OUT + 2 * SWEEP + LATE;
                let done = closed && (party.is_over || party.panicked);
                assert!(now < due || done, "session {index} was closed {:?} ago, and is not over", now - closing);
            }
            let open = party.decided.is_none() && !party.panicked;
            if let (Some(opened), Some(limit), false) = (party.opened, self.limits.handshake, party.ready.is_some()) {
                let due = opened + limit + looks + LATE;
                assert!(now < due || !open, "session {index} is not ready, and goes on {:?} after", now - opened);
            }
            let hears = !party.paused && !self.limits.rated && self.limits.memory.is_none();
            if let (Some(_), Some(limit), true) = (party.opened, self.limits.idle, hears) {
                let last = party.stirred.max(party.moved);
                let due = last + limit + looks + LATE;
                assert!(
                    now < due || !open,
                    "session {index} is idle for {:?}, and goes on: {}",
                    now - last,
                    self.about(party)
                );
            }
            if party.opened.is_none() && party.connection.is_none() && !party.is_over && !party.targets.is_empty() {
                let due = party.began + self.limits.connect * party.targets.len() as u32 + 4 * SWEEP + LATE;
                assert!(now < due, "session {index} connects for {:?}", now - party.began);
            }
        }
    }

    /// The service's figures are the sums of its sessions'.
    pub(super) fn check_totals(&self, totals: &Totals) {
        let model = self.model();
        let lost = || model.parties.iter().filter_map(|party| party.link.as_ref()).map(|link| link.0.reckoning().1);
        let told = (totals.lost_bytes.load(Ordering::Relaxed), totals.cut.load(Ordering::Relaxed));
        let lost = (lost().sum::<u64>(), lost().filter(|&lost| lost > 0).count() as u64);
        assert_eq!(told, lost, "the service tells of other losses than its sessions");
        // What is found to be wrong in a handler panics there, is said, and is caught by the session.
        let panicked = model.parties.iter().filter(|party| party.panicked).count() as u64;
        assert_eq!(totals.panics.load(Ordering::Relaxed), panicked, "a handler has panicked that was not to");
    }

    pub(super) fn check_shutdown(
        &self,
        all: &[(u64, u64)],
        report: &ShutdownReport,
        took: Duration,
        deadline: Duration,
    ) {
        assert!(took <= deadline + ms(500) + LATE, "a shutdown within {deadline:?} took {took:?}");
        let model = self.model();
        let of = |party: &&Party| party.link.as_ref().is_some_and(|link| all.iter().any(|(id, _)| *id == link.id()));
        let conns = || model.parties.iter().filter(of).map(|party| party.link.as_ref().unwrap().0.reckoning());
        let (accepted, lost) = conns().fold((0, 0), |sum, (accepted, lost)| (sum.0 + accepted, sum.1 + lost));
        assert_eq!((report.accepted_bytes, report.lost_bytes), (accepted, lost), "{report:?}");
        assert_eq!(report.delivered_bytes + report.lost_bytes, report.accepted_bytes, "{report:?}");
        assert_eq!(report.graceful + report.aborted, all.len(), "{report:?}");
        let losers = conns().filter(|&(_, lost)| lost > 0).count();
        assert!(report.aborted >= losers, "{losers} sessions have lost something: {report:?}");
        for party in model.parties.iter().filter(of).filter(|_| took + LATE < deadline) {
            let link = party.link.as_ref().unwrap();
            let before = all.iter().find(|(id, _)| *id == link.id()).map_or(0, |&(_, lost)| lost);
            let (_, lost) = link.0.reckoning();
            let unmade = party.connection.is_none() || party.opened.is_none();
            let explained = party.peer_reset || party.is_abrupt() || unmade;
            assert!(
                lost == before || explained,
                "{lost} bytes are lost, {before} before, {:?} ahead of the deadline: {}",
                deadline - took,
                self.about(party)
            );
        }
        if report.lost_bytes > 0 {
            seen("a shutdown that lost something");
        }
    }

    /// At the end, when nothing can happen any more.
    pub(super) fn check_all(&self) {
        let links: Vec<_> = self.model().parties.iter().map(|party| party.link.clone()).collect();
        for (index, link) in links.iter().enumerate() {
            if let Some(link) = link {
                self.check_party(index, link);
            }
        }
        drop(links);
        self.check_nothing_is_left();
    }

    fn about(&self, party: &Party) -> String {
        let view = party.connection.map(|connection| self.fake.view(connection));
        let stats = party.link.as_ref().map(super::Link::stats);
        format!("{:?}, heard {:?}, {:?}, {stats:?}, {view:?}", party.closed, party.heard, party.habits)
    }

    fn check_party(&self, index: usize, link: &super::Link) {
        let model = self.model();
        let party = &model.parties[index];
        let (accepted, lost) = link.0.reckoning();
        let stats = link.stats();
        let about = || self.about(party);
        assert!(party.is_over != party.panicked, "closed is called once, but after a panic: {}", about());
        assert!(accepted >= lost, "more is lost than was accepted: {}", about());
        assert_eq!((stats.accepted_bytes, stats.lost_bytes), (accepted, lost), "{}", about());
        // What was received is what the peer wrote.
        assert!(party.script.starts_with(&party.received), "something else was received: {}", about());
        let mut own = party.accepted.clone();
        own.sort_unstable();
        let bytes_of =
            |numbers: &[u32]| numbers.iter().map(|&number| model.lengths[number as usize] as u64).sum::<u64>();
        let drops = self.limits.policy == SlowConsumer::DropOldest;
        if !party.joined && !drops {
            assert_eq!(accepted, bytes_of(&own), "what was accepted is counted: {}", about());
        }
        let Some(connection) = party.connection else {
            assert_eq!(accepted, lost, "without a connection all is lost: {}", about());
            return self.note(party, lost, accepted, 0, &Messages { whole: Vec::new(), part: None });
        };
        let view = self.fake.view(connection);
        assert!(view.closed, "the connection is still open: {}", about());
        // What a send takes that is under way at the end is counted no more.
        let uncounted = (view.sent as u64).checked_sub(stats.bytes_sent);
        assert!(uncounted.is_some_and(|bytes| bytes <= party.raced || bytes <= lost), "{}", about());
        // What the peer heard.
        let sent = self.fake.sent(connection);
        let heard = Messages::of(&sent[..view.read], &model.lengths);
        assert!(heard.whole.is_sorted_by(|one, next| one < next), "messages came out of order: {}", about());
        let offered: HashSet<u32> = party.offered.iter().copied().collect();
        let heard_own = heard.whole.iter().chain(&heard.part).copied().filter(|number| !offered.contains(number));
        let heard_own: Vec<u32> = heard_own.filter(|&number| number != u32::MAX).collect();
        if drops {
            assert!(heard_own.iter().all(|number| own.binary_search(number).is_ok()), "{}", about());
        } else {
            assert_eq!(heard_own, own[..heard_own.len()], "messages are missing between others: {}", about());
        }
        // To the byte: delivered, or told as lost.
        let delivered = view.read as u64;
        let abrupt = model.dropped || party.is_abrupt();
        let at_risk = match party.heard {
            // It was closed with something on its way, which the system delivers, unless the peer says something.
            Some(Heard::Reset) if abrupt && !view.hard => view.unread_when_closed as u64,
            None if abrupt && party.peer_reset => view.unread_when_closed as u64,
            _ => 0,
        };
        let told = accepted - lost;
        assert!(
            delivered <= told + party.raced && told <= delivered + at_risk,
            "{told} of {accepted} bytes are told as delivered, and {delivered} are: {}",
            about()
        );
        match party.heard {
            Some(Heard::End) => {
                assert!(lost == 0 && heard.part.is_none(), "the peer heard an end, and not all: {}", about());
            }
            Some(Heard::Reset) if view.hard && party.opened.is_some() => {
                assert!(lost > 0, "a reset, and nothing is lost: {}", about())
            }
            Some(Heard::Reset) => {}
            None => assert!(party.peer_reset, "the peer has heard nothing: {}", about()),
        }
        if lost > 0 && !abrupt && !party.peer_reset && self.limits.memory.is_none() {
            self.check_patience(party, &about);
        }
        if stats.dropped > 0 {
            seen("messages that were dropped");
        }
        self.note(party, lost, accepted, at_risk, &heard);
        assert!(
            abrupt || view.hard || view.unread_when_closed == 0 || party.peer_reset,
            "closed with something on its way: {}",
            about()
        );
    }

    /// A session was cut, though nobody wanted it to end at once: its time was over.
    fn check_patience(&self, party: &Party, about: &dyn Fn() -> String) {
        // A connect has a limit of its own.
        if party.opened.is_none() {
            return;
        }
        let Some((gone, stirred)) = party.gone.filter(|&(gone, _)| party.ending.is_none_or(|ending| gone < ending))
        else {
            return;
        };
        match (&party.closed, party.closing) {
            (_, Some(closing)) => {
                let waited = gone - closing;
                assert!(waited >= self.limits.linger, "cut {waited:?} after its close: {}", about());
            }
            (Some(Closed::ByPeer), None) => {
                let waited = gone - stirred;
                assert!(waited >= self.limits.linger, "cut {waited:?} after it has read: {}", about());
            }
            _ => {}
        }
    }

    /// What this one has shown.
    fn note(&self, party: &Party, lost: u64, accepted: u64, at_risk: u64, heard: &Messages) {
        let such = |what, is_so| {
            if is_so {
                seen(what);
            }
        };
        such(
            match &party.closed {
                Some(Closed::ByPeer) => "the peer's end",
                Some(Closed::ByUs) if party.aborted => "an abort",
                Some(Closed::ByUs) => "a close",
                Some(Closed::Shutdown) => "a shutdown",
                Some(Closed::Failed(_)) => "a failure",
                Some(Closed::SlowConsumer) => "a slow consumer",
                Some(Closed::MemoryLimit) => "the memory limit",
                Some(Closed::Framing(_)) => "broken framing",
                Some(Closed::IdleTimeout) => "an idle peer",
                Some(Closed::HandshakeTimeout) => "a late handshake",
                _ => "a panic",
            },
            true,
        );
        such("an end that was heard", party.heard == Some(Heard::End));
        such("a reset that was heard", party.heard == Some(Heard::Reset));
        such("a reset by the peer", party.peer_reset);
        such("a loss", lost > 0);
        let all = accepted > 0 && lost == 0;
        such("nothing to send", accepted == 0);
        let by_peer = matches!(party.closed, Some(Closed::ByPeer));
        such("a loss after the peer's end", by_peer && lost > 0);
        such("all of it after the peer's end", by_peer && all);
        such("all of it after a close", matches!(party.closed, Some(Closed::ByUs)) && all && !party.aborted);
        such("something at risk", at_risk > 0);
        such("a race", party.raced > 0);
        such("a broadcast that was heard", heard.whole.iter().any(|number| party.offered.contains(number)));
        such("frames", party.is_framed && !party.received.is_empty());
        such("a connect that was made", !party.targets.is_empty() && party.opened.is_some());
        such("a connect that failed", !party.targets.is_empty() && party.opened.is_none());
    }

    fn check_nothing_is_left(&self) {
        self.model().parties.iter_mut().for_each(|party| party.link = None);
        assert!(self.running().is_none(), "somebody holds the service");
        assert!(self.group.is_empty(), "sessions that are over are in a group");
        let model = self.model();
        let left = model.parties.iter().position(|party| party.conn.upgrade().is_some());
        assert_eq!(left, None, "somebody holds a session that is over");
        assert!(self.port.devices().is_empty());
        assert_eq!(self.port.stats().devices, 0);
        assert_eq!(self.fake.open_handles(), [], "descriptors that nobody closed");
        assert!(self.fake.has_all_buffers(&self.port), "buffers are missing in the pool");
    }
}
