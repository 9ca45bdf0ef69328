//! The list of sessions that are connected, shake hands or end, and the looks at them: see `ending.rs`.

use crate::conn::Conn;
use crate::dispatch::{Node, Op};
use crate::service::Inner;
use crate::time;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often sessions that linger are looked at; and how often while a shutdown waits for the last of them.
pub(super) const SWEEP: Duration = Duration::from_millis(200);
const FINISH_LOOK: Duration = Duration::from_millis(10);

/// Sessions that are connected, shake hands or end, to be looked at when their time is over.
#[derive(Default)]
pub(super) struct Lingering {
    pub(super) waiting: Vec<Arc<Conn>>,
    /// Those that are just being looked at.
    pub(super) in_hands: Vec<Arc<Conn>>,
}

impl Lingering {
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Conn>> {
        self.waiting.iter().chain(&self.in_hands)
    }
}

impl Inner {
    /// Has a session looked at until its end is there. Under no lock of it.
    pub(super) fn sweep_later(&self, conn: &Arc<Conn>) {
        if !std::mem::replace(&mut conn.lock().swept, true) {
            self.lingering.lock().waiting.push(conn.clone());
        }
        self.arm_sweep();
    }

    fn arm_sweep(&self) {
        if !self.sweeping.swap(true, Ordering::AcqRel) {
            let _ = self.port.timer(SWEEP, Node::Service, Op::Sweep);
        }
    }

    pub(super) fn sweep(&self) {
        self.sweeping.store(false, Ordering::Release);
        self.look_at_lingering(time::now());
        if !self.lingering.lock().waiting.is_empty() {
            self.arm_sweep();
        }
    }

    /// Looks at each session that lingers. While it does, others still find them all in the list.
    pub(super) fn look_at_lingering(&self, now: Instant) {
        let _turn = self.sweep_turn.lock();
        let mut looked_at = {
            let mut lingering = self.lingering.lock();
            lingering.in_hands = std::mem::take(&mut lingering.waiting);
            lingering.in_hands.clone()
        };
        looked_at.retain(|conn| !conn.linger_over(self, now));
        let over = {
            let mut lingering = self.lingering.lock();
            lingering.waiting.append(&mut looked_at);
            std::mem::take(&mut lingering.in_hands)
        };
        // Perhaps the last handles.
        drop(over);
    }

    /// What was accepted for peers that have closed their side still goes out, up to the deadline; then it is cut.
    pub(super) fn finish_lingering(&self, until: Instant) {
        let own = self.own_session();
        loop {
            let now = time::now();
            self.look_at_lingering(now);
            let waiting = self.lingering.lock().all().any(|conn| conn.id() != own && conn.stream().is_some());
            if !waiting || now >= until {
                return;
            }
            time::sleep(FINISH_LOOK.min(until - now));
        }
    }
}
