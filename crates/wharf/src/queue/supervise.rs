//! The supervisor: a pool's own thread sleeps on the watchdog timer, so that no worker has to. And what the timer is
//! for: a look at the workers outside `get`, which takes the slots of those that are blocked.
//!
//! A port has one supervisor at a time. While it has one, no worker stands by. Other pools' supervisors are
//! *candidates*: they sleep until the supervision ends, and one of them takes over.
//!
//! Each time the timer goes off the supervisor looks at the workers ([`Queue::look`]), then, in this order:
//!
//! 1. If somebody is inside `get` it wakes a worker: for an entry that a free slot could take, or to lead.
//! 2. If everybody is outside it asks for a further thread where entries wait or all workers are blocked. Otherwise it
//!    is the leader of last resort: it sleeps in the engine instead of on the timer, which the engine shows as well,
//!    and does the engine work that comes, a piece at a time. It never takes an entry: it has no slot. A worker that
//!    comes lies down while the supervisor leads; with the next event that one leaves the engine to it.
//!
//! It does not begin to lead before the timer has gone off: a worker that comes back soon leads itself.

use super::park::{Park, Woke};
use super::state::{Leader, State};
use super::{Driver, Queue};
use crate::sync::{Arc, Guard};
use crate::sys::probe::ThreadState;
use crate::threads::{Deadline, Grow, Tended};
use std::sync::Weak;

impl<T: Send, D: Driver<T>> Queue<T, D> {
    /// Makes the calling thread the one that the watchdog timer wakes. `None` if the port has a supervisor already, or
    /// is closed.
    pub(crate) fn supervise(&self) -> Option<Arc<Park>> {
        let mut state = self.state.lock();
        if state.supervisor.is_some() || state.closed {
            return None;
        }
        let park = Arc::new(Park::default());
        park.prepare();
        state.supervisor = Some(park.clone());
        state.unattended = false;
        // Who stands by now sleeps on the same timer; woken, it lies down like the others.
        let mut nudge = None;
        if let Some(standby) = state.standby.take() {
            nudge = Some(state.worker(standby).shared.park.clone());
        }
        self.release(state, false);
        if let Some(standby) = nudge {
            standby.signal(true); // guard: a worker that stood by learns of the supervisor
        }
        Some(park)
    }

    /// A pool serves the port from now on, which may start further workers.
    pub(crate) fn add_pool(&self, pool: Weak<dyn Grow>) {
        let mut state = self.state.lock();
        self.pools.add(pool);
        state.may_grow = true;
        self.release(state, false);
    }

    /// The pool starts no workers any more.
    pub(crate) fn remove_pool(&self, pool: *const impl Grow) {
        let mut state = self.state.lock();
        state.may_grow = self.pools.remove(pool);
        self.release(state, false);
    }

    /// Sleeps until the supervisor ends, unless there is none; `park` is signalled to end the sleep.
    pub(crate) fn await_supervision(&self, park: &Arc<Park>) {
        {
            let mut state = self.state.lock();
            if state.closed || state.supervisor.is_none() {
                return;
            }
            state.candidates.push(park.clone());
            self.release(state, false);
        }
        park.wait(None);
        self.state.lock().candidates.retain(|other| !Arc::ptr_eq(other, park)); // guard: a candidate that gives up is forgotten
    }

    /// Ends the supervision: a waiting worker stands by again.
    pub(crate) fn end_supervision(&self) {
        let mut state = self.state.lock();
        if let Some(park) = state.supervisor.take() {
            park.signal(true); // guard: a supervisor learns that it is to stop
        }
        state.candidates.drain(..).for_each(|park| park.signal(false)); // guard: a candidate learns that it may supervise
        let leads = state.leader == Leader::Supervisor;
        self.release(state, false); // guard: the end of supervision settles
        if leads {
            self.driver.kick(); // guard: a supervisor that leads learns that it is to stop
        }
    }

    /// Sleeps until there is something to do, and does it: on the watchdog timer, or as the leader in the engine.
    pub(crate) fn tend(&self, park: &Arc<Park>) -> Tended<T> {
        let mut state = self.state.lock();
        if !state.is_supervised_by(park) {
            return Tended::Stopped;
        }
        state.unattended &= !state.anybody_inside();
        // Who supervised before may be about to leave the engine.
        if !state.unattended || state.leader != Leader::Nobody {
            drop(state);
            return self.tend_beside_workers(park);
        }
        if let Some(work) = state.take_engine_work() {
            // What was found earlier. A poll comes after that work.
            self.release(state, false);
            return Tended::EngineWork(work);
        }
        self.tend_alone(state, park)
    }

    /// Sleeps on the watchdog timer, then wakes a worker where one is needed.
    fn tend_beside_workers(&self, park: &Arc<Park>) -> Tended<T> {
        if self.watchdog.wait(park, None) == Woke::Signalled {
            return Tended::Stopped;
        }
        let mut state = self.state.lock();
        state.tick();
        if state.leader != Leader::Nobody
            && state.fifo.is_empty()
            && state.engine_work.is_empty()
            && state.batches == 0
            && state.written_off == 0
        {
            self.release(state, false);
            return Tended::Nothing;
        }
        state = self.look(state).0;
        if !state.is_supervised_by(park) {
            self.release(state, false);
            return Tended::Stopped;
        }
        if !state.anybody_inside() {
            state.unattended = true; // guard: a supervisor leads where all are outside
            return self.tend_to_what_waits(state, true);
        }
        if !state.fifo.is_empty() && state.has_room() {
            self.release(state, true); // guard: a supervisor wakes a worker for what was stuck
        } else {
            // If nobody leads, the active workers have been out for a tick: a waiting one leads.
            self.have_one_lead(state);
        }
        Tended::Nothing
    }

    /// Everybody is outside: leads. What is found and needs a slot is left to workers that come.
    fn tend_alone<'a>(&'a self, state: Guard<'a, State<T>>, park: &Arc<Park>) -> Tended<T> {
        let (mut state, ticked) = self.lead(state, Leader::Supervisor, Deadline::Never);
        if ticked && !state.closed {
            state = self.look(state).0;
        }
        if state.closed {
            drop(state);
            self.dispose_found();
            return Tended::Stopped;
        }
        if state.anybody_inside() || !state.is_supervised_by(park) {
            // Who came meanwhile lies down, because somebody led.
            self.have_one_lead(state); // guard: a supervisor leaves the engine to a worker
            return Tended::Nothing;
        }
        // A poll was made, and entries are not the supervisor's to take: work comes again.
        state.works_in_a_row = 0;
        self.tend_to_what_waits(state, ticked)
    }

    /// Everybody is outside. What the engine has goes on without a slot; entries need a further thread, at most one in
    /// a tick.
    fn tend_to_what_waits(&self, mut state: Guard<'_, State<T>>, ticked: bool) -> Tended<T> {
        // Not who has just started, nor who does the engine's work.
        let mut workers = state.workers.iter().flatten().peekable();
        let all_blocked = workers.peek().is_some() && workers.all(|worker| worker.blocking || worker.written_off);
        let wanted = ticked && state.has_room() && (state.has_entries_left() || all_blocked);
        // Work that is left is taken in the next turn.
        let work = if wanted { None } else { state.take_engine_work() };
        self.release(state, false);
        match work {
            Some(work) => Tended::EngineWork(work),
            None if wanted => Tended::Grow,
            None => Tended::Nothing,
        }
    }

    /// Wakes whom the queue's rules name, or a waiting worker that leads.
    fn have_one_lead(&self, mut state: Guard<'_, State<T>>) {
        let mut wakes = state.settle(&self.watchdog, false);
        if state.leader == Leader::Nobody && wakes.is_empty() && !state.does_without_leader() {
            state.nudge_top(&mut wakes); // guard: a supervisor has somebody lead
        }
        drop(state);
        wakes.signal();
        if wakes.kick {
            self.driver.kick();
        }
    }

    /// Looks at the workers outside `get` that it matters of and that were not seen for a tick: who is blocked loses
    /// the slot (C-08) and the rest of its batch, who computes again gets it back (C-09), who is gone is forgotten. The
    /// looking is done without the lock; a worker that has come back meanwhile is left alone, because its stay has
    /// another number. Returns whether a slot became free.
    pub(super) fn look<'a>(&'a self, mut state: Guard<'a, State<T>>) -> (Guard<'a, State<T>>, bool) {
        let suspects = state.suspects(self.watchdog.tick());
        if suspects.is_empty() {
            return (state, false);
        }
        drop(state);
        let seen: Vec<ThreadState> = suspects.iter().map(|(_, _, shared)| shared.probe.look()).collect();
        let mut state = self.state.lock();
        state.read_clock();
        let clock = state.clock;
        let mut freed = false;
        for ((index, stay, _), seen) in suspects.into_iter().zip(seen) {
            let Some(worker) = state.workers[index].as_mut() else { continue };
            // guard: a look that comes late does not hit the worker's next stay [without: if false {]
            if worker.stay != stay {
                continue;
            }
            worker.seen = clock;
            match seen {
                ThreadState::Blocked | ThreadState::Gone => {
                    // guard: a slot is not taken away twice [without: if std::mem::take(&mut worker.counted) || true {]
                    if std::mem::take(&mut worker.counted) {
                        worker.written_off = true;
                        worker.left_at = None;
                        worker.blocked_since = Some(clock);
                        state.active -= 1;
                        state.written_off += 1;
                        state.totals.write_offs += 1;
                        freed = true;
                    }
                    // Even one that was written off before: it may have got the batch since.
                    self.take_back_batch(&mut state, index); // guard: a worker found blocked holds nothing hostage
                }
                ThreadState::Running if worker.written_off => {
                    worker.written_off = false;
                    worker.blocked_since = None;
                    worker.counted = true; // guard: a worker that computes again counts again
                    state.written_off -= 1;
                    state.active += 1;
                }
                ThreadState::Running => {}
            }
        }
        (state, freed)
    }
}
