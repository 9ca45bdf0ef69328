//! One side of a device: its outstanding operations, and who works on them.
//!
//! A direction has a list of pending operations and one *owner* at a time:
//!
//! | turn      | meaning                                              | who may change it                          |
//! |-----------|------------------------------------------------------|--------------------------------------------|
//! | `Idle`    | nobody works on it                                   | an issuer or the leader, to take it         |
//! | `Queued`  | it lies in the port's queue                          | the worker that dequeues it, or who ends an operation |
//! | `Running` | one thread executes its head, outside the lock       | that thread only, when it lets go           |
//!
//! An entry in the queue may find the turn taken, by a connect that follows a cancelled one, or by whoever ends an
//! operation ([`Port::take_arrived`](super::Port::take_arrived)): it then comes to nothing.
//!
//! Issuers only append. `edge` records readiness that arrived while somebody owned the direction; the owner looks at
//! it before it lets go, so no edge is lost. `drained` says that the last attempt found nothing more: only an edge
//! clears it. A direction without operations is never parked as drained by an edge: it stays *maybe ready*.
//!
//! Most connections are idle, with one receive outstanding: that state is kept small.

pub(crate) use crate::op::Side;
use crate::op::{Kind, Label, Name, Operation};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    Idle,
    Queued,
    Running,
}

#[derive(Debug)]
pub(crate) struct Direction {
    pub(crate) operations: Operations,
    /// The last one that was given: even on the receive side, odd on the send side, and 0 is none.
    last_serial: u64,
    /// The operation that is being executed, so that a cancel request can tell it from finished ones. 0: none.
    running: u64,
    pub(crate) turn: Turn,
    pub(crate) edge: bool,
    pub(crate) drained: bool,
    pub(crate) closed: bool,
    /// What the owner is left to do when it lets go, as bits: see [`duty`].
    pub(crate) duties: u8,
    /// While it is queued: the entry that counts lies in the engine's work, where it needs no slot.
    pub(crate) in_work: bool,
    /// On the receive side: how many datagrams the next call is to ask for.
    pub(crate) burst: u8,
}

/// What others leave to the owner of a direction.
pub(crate) mod duty {
    /// The device was closed while somebody owned this side: the owner holds the handle open, and has to
    /// [leave](crate::reactor::device::DeviceState::leave) it.
    pub(crate) const HANDLE: u8 = 1;
    /// A receive has found the end of the stream while this side was sending, and waits for what the send has seen: it
    /// is to be tried again.
    pub(crate) const RECEIVE: u8 = 2;
}

/// The least one receiving call asks for: the one that is there, and whether there is another.
pub(crate) const DATAGRAMS_MIN: u8 = 2;

impl Direction {
    pub(crate) fn new(side: Side, drained: bool) -> Direction {
        Direction {
            operations: Operations::default(),
            last_serial: match side {
                Side::Receive => 0,
                Side::Send => 1,
            },
            running: 0,
            turn: Turn::Idle,
            edge: false,
            drained,
            closed: false,
            duties: 0,
            in_work: false,
            burst: DATAGRAMS_MIN,
        }
    }

    /// A number that no other operation of the device has had.
    #[inline]
    pub(crate) fn next_serial(&mut self) -> u64 {
        self.last_serial += 2;
        self.last_serial
    }

    /// The owner executes an operation from here on.
    #[inline]
    pub(crate) fn run(&mut self, serial: u64) {
        self.running = serial;
    }

    /// The owner executes none any more.
    #[inline]
    pub(crate) fn run_none(&mut self) {
        self.running = 0;
        if let Some(cold) = &mut self.operations.cold {
            cold.gathered.clear();
        }
    }

    /// Together with the one that runs these are executed.
    pub(crate) fn run_too(&mut self, operations: impl IntoIterator<Item = Label>) {
        let mut operations = operations.into_iter().peekable();
        if operations.peek().is_some() {
            self.operations.cold().gathered.extend(operations);
        }
    }

    /// An operation of a file is under way, by itself.
    pub(crate) fn start(&mut self, operation: Label) {
        self.operations.cold().under_way.insert(operation.serial, operation);
    }

    /// It has ended.
    pub(crate) fn ended(&mut self, serial: u64) {
        if let Some(cold) = &mut self.operations.cold {
            cold.under_way.remove(&serial);
            cold.cancelled.remove(&serial);
        }
    }

    /// A file's operations, the oldest first.
    pub(crate) fn under_way(&self) -> impl Iterator<Item = u64> {
        self.operations.cold.iter().flat_map(|cold| cold.under_way.keys().copied())
    }

    /// What is executed beside the one that runs.
    fn beside(&self) -> impl Iterator<Item = &Label> {
        self.operations.cold.iter().flat_map(|cold| cold.gathered.iter().chain(cold.under_way.values()))
    }

    pub(crate) fn is_running(&self, serial: u64) -> bool {
        let beside = |cold: &Cold| {
            cold.under_way.contains_key(&serial) || cold.gathered.iter().any(|other| other.serial == serial)
        };
        self.running == serial || self.operations.cold.as_deref().is_some_and(beside)
    }

    /// Operations issued and not completed.
    pub(crate) fn pending(&self) -> usize {
        self.operations.len() + self.running_count()
    }

    fn running_count(&self) -> usize {
        let beside = |cold: &Cold| cold.gathered.len() + cold.under_way.len();
        usize::from(self.running != 0) + self.operations.cold.as_deref().map_or(0, beside)
    }

    /// Asks an operation that is being executed to end when it cannot go on.
    pub(crate) fn cancel(&mut self, serial: u64) {
        self.operations.cold().cancelled.insert(serial);
    }

    /// Asks all of them. Returns how many there are.
    pub(crate) fn cancel_running(&mut self) -> usize {
        let running = (self.running != 0).then_some(self.running);
        let serials: Vec<u64> = running.into_iter().chain(self.beside().map(|other| other.serial)).collect();
        self.cancel_these(&serials);
        serials.len()
    }

    fn cancel_these(&mut self, running: &[u64]) {
        if !running.is_empty() {
            self.operations.cold().cancelled.extend(running);
        }
    }

    /// Asks those of a name that are executed, and takes those that are listed out. Whether the one that runs has the
    /// name only its owner knows, who looks when it cannot go on: it is not told here.
    pub(crate) fn cancel_named(&mut self, name: Name) -> (Vec<u64>, Vec<Operation>) {
        if self.running != 0 {
            let last = self.last_serial;
            self.operations.cold().names.push((name, last));
        }
        let beside: Vec<u64> = self.beside().filter(|label| label.is(name)).map(|label| label.serial).collect();
        self.cancel_these(&beside);
        let listed = self.operations.iter().map(Operation::label).filter(|label| label.is(name));
        let listed: Vec<u64> = listed.map(|label| label.serial).collect();
        (beside, listed.into_iter().filter_map(|serial| self.operations.remove(serial)).collect())
    }

    /// Whether it has to end if it cannot go on.
    #[inline]
    pub(crate) fn must_end(&self, operation: &Operation) -> bool {
        self.closed || self.operations.cold.as_ref().is_some_and(|cold| cold.asks_to_end(operation.label()))
    }

    /// An attempt is over: requests that came for it are answered.
    #[inline]
    pub(crate) fn forget_cancelled(&mut self) {
        if let Some(cold) = &mut self.operations.cold {
            cold.cancelled.clear();
            cold.names.clear();
        }
    }

    /// Readiness arrived. True when the caller has to queue the direction.
    pub(crate) fn ready(&mut self) -> bool {
        if self.turn != Turn::Idle {
            self.edge = true;
            return false;
        }
        self.drained = false;
        let wanted = !self.operations.is_empty();
        if wanted {
            self.be_queued();
        }
        wanted
    }

    #[inline(never)]
    fn be_queued(&mut self) {
        self.turn = Turn::Queued;
        self.in_work = self.needs_no_slot();
    }

    /// An operation among these has another end than a packet, so that no worker with a slot has to come for it.
    #[inline]
    fn needs_no_slot(&self) -> bool {
        let behind = |cold: &Cold| cold.more.iter().any(|operation| !operation.is_for_port());
        let first = self.operations.front().is_some_and(|operation| !operation.is_for_port());
        first || self.operations.cold.as_deref().is_some_and(behind)
    }

    /// An operation was appended that needs no slot, and an entry that needs one lies in the queue. True when the
    /// caller has to queue the direction as the engine's work, in place of that.
    pub(crate) fn moves_to_work(&mut self) -> bool {
        let moves = self.turn == Turn::Queued && !self.in_work && self.needs_no_slot();
        if moves {
            self.pass_over_entry();
            self.in_work = true;
        }
        moves
    }

    /// An operation was appended. True when the caller has to queue the direction.
    #[inline(always)]
    pub(crate) fn wants_a_turn(&mut self) -> bool {
        let wanted = self.turn == Turn::Idle && !self.drained && !self.operations.is_empty();
        if wanted {
            self.be_queued();
        }
        wanted
    }

    /// The head of the list can go on without space: what stood before it has ended.
    pub(crate) fn needs_no_space(&self) -> bool {
        self.operations.front().is_some_and(|head| head.kind == Kind::Disconnected)
    }

    /// Operations were taken out. True when the caller has to queue the direction, for one that waited for them alone.
    pub(crate) fn wants_no_space(&mut self) -> bool {
        let wanted = self.needs_no_space();
        if wanted && self.turn == Turn::Idle {
            self.drained = false;
        }
        wanted && self.wants_a_turn()
    }

    /// Nobody is at work here, and nothing is outstanding that moves bytes: whoever takes the turn overtakes nobody.
    pub(crate) fn is_free(&self) -> bool {
        self.turn == Turn::Idle && self.operations.iter().all(Operation::is_watch)
    }

    /// Somebody takes the turn beside the queue. An entry that lies there comes to nothing: its packet, or the entry of
    /// who owns the side then, comes behind.
    pub(crate) fn pass_over_entry(&mut self) {
        if self.turn == Turn::Queued {
            let in_work = usize::from(self.in_work);
            self.operations.cold().passed_over[in_work] += 1;
        }
    }

    /// An entry is about to become a turn, one of the engine's work or one that has a slot. False when it comes to
    /// nothing.
    #[inline]
    pub(crate) fn entry_counts(&mut self, in_work: bool) -> bool {
        match &mut self.operations.cold {
            Some(cold) if cold.passed_over[usize::from(in_work)] > 0 => {
                cold.passed_over[usize::from(in_work)] -= 1;
                false
            }
            _ => true,
        }
    }

    /// The owner begins.
    #[inline]
    pub(crate) fn begin(&mut self) {
        debug_assert_ne!(self.turn, Turn::Running, "two owners of one direction");
        self.turn = Turn::Running;
        self.edge = false;
    }

    /// The owner lets go, after an attempt that showed whether more is there.
    #[inline(always)]
    pub(crate) fn let_go(&mut self, drained: bool) -> Left {
        debug_assert_eq!(self.turn, Turn::Running, "only the owner of a direction lets go of it");
        self.drained = drained && !std::mem::take(&mut self.edge);
        self.run_none();
        self.forget_cancelled();
        self.turn = Turn::Idle;
        let goes_on = self.wants_a_turn();
        Left { goes_on, in_work: self.in_work, duties: std::mem::take(&mut self.duties) }
    }
}

/// What is left to do for whoever has let go of a direction.
#[must_use]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Left {
    /// The direction goes on, and has to be queued.
    pub(crate) goes_on: bool,
    /// As the engine's work, that is.
    pub(crate) in_work: bool,
    /// See [`duty`].
    pub(crate) duties: u8,
}

/// Operations in the order of issue, which is that of their serial numbers. One needs no more than its own memory,
/// which is kept for the next.
#[derive(Debug, Default)]
pub(crate) struct Operations {
    /// The first; if there is none the list is empty.
    first: Option<Box<Option<Operation>>>,
    cold: Option<Box<Cold>>,
}

/// What few directions need.
#[derive(Debug, Default)]
struct Cold {
    /// Operations behind the first.
    more: VecDeque<Operation>,
    /// Operations that are being executed and were asked to end when they cannot go on.
    cancelled: BTreeSet<u64>,
    /// What the one that runs was asked by beside, and the last operation that was issued then.
    names: Vec<(Name, u64)>,
    /// Operations that are executed together with the one that runs.
    gathered: Vec<Label>,
    /// Operations of a file, each of which is on its way by itself.
    under_way: BTreeMap<u64, Label>,
    /// Entries that come to nothing, of those with a slot and of the engine's work. They lie there before the one that
    /// counts, if there is one.
    passed_over: [u32; 2],
}

impl Cold {
    fn asks_to_end(&self, label: Label) -> bool {
        self.cancelled.contains(&label.serial)
            || self.names.iter().any(|&(name, last)| label.serial <= last && label.is(name))
    }
}

impl Operations {
    fn cold(&mut self) -> &mut Cold {
        self.cold.get_or_insert_default()
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.front().is_none()
    }

    pub(crate) fn len(&self) -> usize {
        usize::from(!self.is_empty()) + self.cold.as_ref().map_or(0, |cold| cold.more.len())
    }

    #[inline]
    pub(crate) fn front(&self) -> Option<&Operation> {
        self.first.as_deref()?.as_ref()
    }

    #[inline]
    pub(crate) fn push_back(&mut self, operation: Operation) {
        match self.first.as_deref_mut() {
            None => self.first = Some(Box::new(Some(operation))),
            Some(first @ None) => *first = Some(operation),
            Some(Some(_)) => self.cold().more.push_back(operation),
        }
    }

    pub(crate) fn push_front(&mut self, operation: Operation) {
        match self.first.as_deref_mut() {
            None => self.first = Some(Box::new(Some(operation))),
            Some(first) => {
                if let Some(second) = first.replace(operation) {
                    self.cold().more.push_front(second);
                }
            }
        }
    }

    #[inline]
    pub(crate) fn pop_front(&mut self) -> Option<Operation> {
        let second = self.cold.as_mut().and_then(|cold| cold.more.pop_front());
        // Into the first's memory.
        let first = self.first.as_deref_mut()?;
        std::mem::replace(first, second)
    }

    /// Whether one is among them.
    pub(crate) fn contain(&self, serial: u64) -> bool {
        let more = |cold: &Cold| cold.more.binary_search_by_key(&serial, |operation| operation.serial).is_ok();
        self.front().is_some_and(|first| first.serial == serial || self.cold.as_deref().is_some_and(more))
    }

    /// Whether one with this name is among them.
    pub(crate) fn contain_named(&self, name: Name) -> bool {
        self.iter().any(|operation| operation.label().is(name))
    }

    /// Takes one out of the middle.
    pub(crate) fn remove(&mut self, serial: u64) -> Option<Operation> {
        if self.front()?.serial == serial {
            return self.pop_front();
        }
        let more = &mut self.cold.as_mut()?.more;
        let at = more.binary_search_by_key(&serial, |operation| operation.serial).ok()?;
        more.remove(at)
    }

    /// Takes one out, if nothing has happened of it yet.
    pub(crate) fn remove_unbegun(&mut self, serial: u64) -> Option<Operation> {
        let begun = |operation: &Operation| operation.serial == serial && operation.has_begun();
        if self.front().is_some_and(begun) {
            return None;
        }
        let more = self.cold.as_ref().map(|cold| &cold.more);
        if more.into_iter().flatten().any(begun) {
            return None;
        }
        self.remove(serial)
    }

    fn iter(&self) -> impl Iterator<Item = &Operation> {
        self.front().into_iter().chain(self.cold.iter().flat_map(|cold| &cold.more))
    }

    /// Takes all of them out.
    pub(crate) fn take(&mut self) -> impl Iterator<Item = Operation> + use<> {
        let first = self.first.take().and_then(|first| *first);
        let more = self.cold.as_mut().map(|cold| std::mem::take(&mut cold.more));
        first.into_iter().chain(more.into_iter().flatten())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Buffers, Sink};

    #[test]
    fn readiness_that_arrives_during_a_turn_is_not_lost() {
        let mut direction = Direction::new(Side::Receive, true);
        direction.begin();
        assert!(!direction.ready());
        assert!(!direction.let_go(true).goes_on, "no operation waits");
        assert!(!direction.drained, "the edge keeps the direction maybe ready");
    }

    fn operation(serial: u64) -> Operation {
        let mut operation = Operation::new(Kind::Sent, 0, Sink::Port, Buffers::None);
        operation.serial = serial;
        operation
    }

    #[test]
    fn the_list_is_a_queue_whatever_is_done_with_it() {
        let mut model = VecDeque::new();
        let mut list = Operations::default();
        let mut random = fastrand::Rng::with_seed(5);
        const MIDDLE: u64 = 1 << 32;
        for step in 1..20_000 {
            // What goes to the front was issued before the others.
            let (serial, older) = (MIDDLE + step, MIDDLE - step);
            match random.u8(..if model.len() > 6 { 5 } else { 4 }) {
                0 | 1 => {
                    list.push_back(operation(serial));
                    model.push_back(serial);
                }
                2 => {
                    list.push_front(operation(older));
                    model.push_front(older);
                }
                3 => assert_eq!(list.pop_front().map(|taken| taken.serial), model.pop_front()),
                _ => {
                    let at = random.usize(..model.len());
                    let removed = model.remove(at);
                    assert_eq!(list.remove(removed.unwrap()).map(|taken| taken.serial), removed);
                }
            }
            assert_eq!(list.len(), model.len());
            assert_eq!(list.front().map(|first| first.serial), model.front().copied());
            assert_eq!(list.is_empty(), model.is_empty());
        }
        assert!(list.remove(u64::MAX).is_none());
        assert!(list.take().map(|taken| taken.serial).eq(model));
        assert!(list.is_empty());
    }

    #[test]
    fn serial_numbers_tell_their_side() {
        for side in [Side::Receive, Side::Send] {
            let mut direction = Direction::new(side, true);
            let (first, second) = (direction.next_serial(), direction.next_serial());
            assert!(first > 0 && second > first);
            assert_eq!((Side::of(first), Side::of(second)), (side, side));
        }
    }
}
