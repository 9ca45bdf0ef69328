#![cfg(test)]
//! What the sessions do in their handlers.

use super::{Closed, FRAME_MOST, LengthPrefix, Link, Schedule, current};
use crate::{Buffer, Framed, FramedLink, FramedSession, Session};
use std::panic::resume_unwind;

/// The session of a party.
struct Actor(usize);

pub(super) fn boxed(index: usize, framed: bool) -> Box<dyn Session> {
    if framed { Box::new(Framed::new(LengthPrefix::new(2, FRAME_MOST), Actor(index))) } else { Box::new(Actor(index)) }
}

impl Actor {
    fn begins(&self, link: &Link) {
        let Some(schedule) = current() else { return };
        let now = schedule.time();
        {
            let mut model = schedule.model();
            let party = &mut model.parties[self.0];
            assert!(party.opened.is_none() && party.closed.is_none(), "opened after {:?}", party.closed);
            party.opened = Some(now);
            party.stir(now);
            party.link.get_or_insert_with(|| link.clone());
        }
        self.reacts(&schedule, 90);
    }

    fn is_given(&self, bytes: &[u8]) {
        let Some(schedule) = current() else { return };
        let now = schedule.time();
        {
            let mut model = schedule.model();
            let party = &mut model.parties[self.0];
            assert!(party.opened.is_some() && party.closed.is_none(), "received after {:?}", party.closed);
            assert!(!party.panicked, "received after a panic");
            party.received.extend(bytes);
            party.stir(now);
        }
        self.reacts(&schedule, 40);
    }

    fn ends(&self, link: &Link, reason: &Closed) {
        let Some(schedule) = current() else { return };
        schedule.is_closed(self.0, reason);
        let refused = link.send(vec![1; 8]);
        assert!(refused.is_err(), "a session that is over has accepted a message");
    }

    fn reacts(&self, schedule: &Schedule, of_256: u8) {
        if schedule.model().calm || !schedule.model().chance(of_256) {
            return;
        }
        let panics = schedule.model().chance(4);
        if panics {
            schedule.model().parties[self.0].panicked = true;
            // Without the panic hook, which would say so thousands of times.
            resume_unwind(Box::new("a handler that panics"));
        }
        schedule.acts_on(self.0);
    }
}

impl Session for Actor {
    fn opened(&mut self, link: &Link) {
        self.begins(link);
    }

    fn received(&mut self, _link: &Link, data: Buffer) {
        self.is_given(&data);
    }

    fn closed(&mut self, link: &Link, reason: &Closed) {
        self.ends(link, reason);
    }
}

impl FramedSession for Actor {
    type Codec = LengthPrefix;

    fn opened(&mut self, link: &FramedLink<LengthPrefix>) {
        self.begins(link);
    }

    fn frame(&mut self, _link: &FramedLink<LengthPrefix>, frame: &[u8]) {
        let mut whole = (frame.len() as u16).to_be_bytes().to_vec();
        whole.extend(frame);
        self.is_given(&whole);
    }

    fn closed(&mut self, link: &FramedLink<LengthPrefix>, reason: &Closed) {
        self.ends(link, reason);
    }
}
