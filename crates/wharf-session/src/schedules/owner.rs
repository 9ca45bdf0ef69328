#![cfg(test)]
//! What the service's owner does: to one session, from a handler or from elsewhere, and to the service.

use super::{Link, Schedule, ms, oracle};
use crate::Rate;
use std::time::{Duration, Instant};

impl Schedule {
    /// One step of the schedule.
    pub(super) fn step(&self) {
        let what = self.model().rng.u8(..100);
        match what {
            0..6 => self.adopt(),
            6..9 => self.connect(),
            9..34 => self.owner_acts(),
            34..38 => self.broadcast(),
            38..58 => self.one_peer_acts(),
            58..76 => self.work_once(),
            76..92 => self.work(),
            92..98 => self.a_moment(),
            _ => {
                let time = self.model().rng.u64(..600);
                self.pass_time(ms(time));
            }
        }
    }

    fn owner_acts(&self) {
        let Some(index) = self.model().pick() else { return };
        self.acts_on(index);
    }

    /// The same from another thread, while a call of the engine is under way.
    pub(super) fn owner_in_between(&self) {
        let Some(index) = self.model().pick() else { return };
        // The lock may be held by who made the call, and is not to be waited for on this thread.
        let is_free = {
            let model = self.model();
            let conn = model.parties[index].conn.upgrade();
            !model.broadcasting && conn.is_some_and(|conn| conn.is_unlocked())
        };
        if is_free {
            self.acts_on(index);
        }
    }

    /// Something is done with a session.
    pub(super) fn acts_on(&self, index: usize) {
        let (what, link) = {
            let mut model = self.model();
            let Some(link) = model.parties[index].link.clone() else { return };
            (model.rng.u8(..128), link)
        };
        match what {
            0..70 => self.send(index, &link),
            70..78 => {
                self.model().parties[index].joined = true;
                self.group.join(&link);
            }
            78..82 => self.group.leave(&link),
            82..90 => {
                link.pause();
                self.model().parties[index].paused = true;
            }
            90..100 => link.resume(),
            100..106 => {
                let now = self.time();
                self.model().parties[index].ready.get_or_insert(now);
                link.ready();
            }
            106..109 => {
                let rate = {
                    let mut model = self.model();
                    model.parties[index].paused = true;
                    model.rng.bool().then(|| Rate::bytes(model.rng.u64(100..5000), model.rng.u64(1..200)))
                };
                link.set_rate_limit(rate);
            }
            109..115 => link.finish(),
            115..122 => {
                let now = self.time();
                {
                    let mut model = self.model();
                    let party = &mut model.parties[index];
                    if !link.0.is_to_end() {
                        party.closing.get_or_insert(now);
                    }
                }
                link.close();
            }
            122..125 => {
                self.model().parties[index].aborted = true;
                link.abort();
            }
            _ => {
                let stats = link.stats();
                assert!(stats.lost_bytes <= stats.accepted_bytes, "{stats:?}");
            }
        }
    }

    fn send(&self, index: usize, link: &Link) {
        // Which of two that are sent at the same time comes first is nobody's to say.
        if std::mem::replace(&mut self.model().parties[index].sending, true) {
            return;
        }
        self.send_message(index, link);
        self.model().parties[index].sending = false;
    }

    fn send_message(&self, index: usize, link: &Link) {
        let (number, message) = {
            let mut model = self.model();
            let length = match model.rng.u8(..16) {
                0..10 => model.rng.usize(8..120),
                10..15 => model.rng.usize(100..1500),
                _ => model.rng.usize(1000..12_000),
            };
            model.message(length)
        };
        match link.send(message) {
            Ok(()) => {
                let now = self.time();
                let mut model = self.model();
                model.parties[index].accepted.push(number);
                model.parties[index].moved = now;
            }
            Err(refused) => {
                assert!(oracle::is_message(number, &refused.buffer), "another message comes back than was refused");
            }
        }
    }

    fn broadcast(&self) {
        let message = {
            let mut model = self.model();
            let length = model.rng.usize(8..200);
            let (number, message) = model.message(length);
            model.broadcasting = true;
            let now = self.time();
            for party in model.parties.iter_mut().filter(|party| party.joined) {
                party.offered.push(number);
                party.moved = now;
            }
            message
        };
        self.group.broadcast(&message);
        self.model().broadcasting = false;
    }

    /// The service ends, in one way or another, and then all is looked at.
    pub(super) fn end(&self) {
        let (how, drained, deadline) = {
            let mut model = self.model();
            let mut time = || if model.rng.u8(..6) == 0 { Duration::ZERO } else { ms(model.rng.u64(..3000)) };
            let (drained, deadline) = (time(), time());
            (model.rng.u8(..8), drained, deadline)
        };
        if how >= 5 {
            self.drain(drained);
        }
        if how == 0 {
            self.ends(self.time());
            self.model().dropped = true;
            let service = self.service.take().expect("it has not ended");
            let inner = service.inner.clone();
            drop(service);
            self.check_totals(&inner.totals);
            oracle::seen("a service that was dropped");
        } else {
            self.shut_down(deadline);
        }
        self.silent.set(true);
        self.all_peers_read_on();
        self.check_all();
    }

    /// From now on the service is being ended.
    fn ends(&self, now: Instant) {
        let mut model = self.model();
        model.ending = true;
        model.parties.iter_mut().for_each(|party| party.ending = Some(now));
    }

    fn drain(&self, time: Duration) {
        let service = self.service.take().expect("it has not ended");
        let began = self.time();
        let left = service.drain(time);
        let took = self.time() - began;
        assert_eq!(left, service.inner.open_sessions(), "a drain tells how many sessions are left");
        assert!(left == 0 || took >= time, "a drain has not waited: {took:?} of {time:?}");
        assert!(took <= time + ms(70), "a drain has waited for {took:?} instead of {time:?}");
        oracle::seen(if left == 0 { "a drain" } else { "a drain that left some" });
        self.service.set(Some(service));
    }

    pub(super) fn shut_down(&self, deadline: Duration) {
        let service = self.service.take().expect("it has not ended");
        let inner = service.inner.clone();
        let all: Vec<_> = inner.all_sessions().iter().map(|conn| (conn.id(), conn.reckoning().1)).collect();
        let began = self.time();
        self.ends(began);
        let report = service.shutdown(deadline);
        let took = self.time() - began;
        self.check_shutdown(&all, &report, took, deadline);
        self.check_totals(&inner.totals);
    }
}
