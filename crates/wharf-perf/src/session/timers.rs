//! The timers of a test, one of each kind at a time. A timer that was armed anew or disarmed may have fired already;
//! its number tells that it is none of those that count.

use super::purpose::{Alarm, Purpose};
use crate::surroundings::port::{Op, Owner, Port};
use std::sync::Weak;
use std::time::Duration;
use wharf::OperationId;

/// All timers of one test.
pub(crate) struct Timers {
    port: Port,
    owner: Weak<dyn Owner>,
    /// Of each alarm its number, 0 for none, and its operation.
    armed: [(u32, Option<OperationId>); Alarm::ALL.len()],
    last_number: u32,
}

impl Timers {
    pub(crate) fn new(port: &Port, owner: Weak<dyn Owner>) -> Timers {
        Timers { port: port.clone(), owner, armed: Default::default(), last_number: 0 }
    }

    pub(crate) fn arm(&mut self, alarm: Alarm, after: Duration) {
        self.disarm(alarm);
        let Some(owner) = self.owner.upgrade() else { return };
        self.last_number = self.last_number.checked_add(1).unwrap_or(1);
        let purpose = Purpose::Alarm(alarm, self.last_number);
        let id = self.port.timer(after, (), Op::Of(owner, purpose.tag())).ok();
        self.armed[alarm as usize] = (self.last_number, id);
    }

    pub(crate) fn disarm(&mut self, alarm: Alarm) {
        if let (_, Some(id)) = std::mem::take(&mut self.armed[alarm as usize]) {
            self.port.cancel(id);
        }
    }

    pub(crate) fn disarm_all(&mut self) {
        Alarm::ALL.into_iter().for_each(|alarm| self.disarm(alarm));
    }

    /// A timer has fired. Whether it counts; it does no more.
    pub(crate) fn fires(&mut self, alarm: Alarm, number: u32) -> bool {
        let counts = self.armed[alarm as usize].0 == number;
        if counts {
            self.armed[alarm as usize] = (0, None);
        }
        counts
    }
}
