//! A hierarchical timer wheel: what is to happen at a time, kept so that adding and removing cost the same however much
//! there is.
//!
//! Time is counted in ticks of a millisecond. Level 0 has a slot for each of the 64 ticks around now, level 1 one for
//! each 64 of them, and so on: six levels reach over two years, and what is farther lies in the last slots until it is
//! nearer. When time enters a slot of an upper level, what lies there moves down. A slot is a list through the nodes;
//! a bit for each slot tells which have something.
//!
//! The exact time stays with each node, so that nothing is early, and a single timer is no tick late: a slot is asked
//! for the earliest in it, as long as its list is short.

use std::time::{Duration, Instant};

pub(super) const TICK: Duration = Duration::from_millis(1);

const SLOT_BITS: u32 = 6;
const SLOTS: u64 = 1 << SLOT_BITS;
const LEVELS: usize = 6;
/// How far ahead the wheel reaches: all slots of the last level but the one that time is in.
const REACH: u64 = (SLOTS - 1) << (SLOT_BITS * (LEVELS as u32 - 1));
/// Of a longer list nobody looks for the earliest: its slot's time is taken.
const LOOK_AT: usize = 32;
/// Names end with the node's place in the table; before it is a part of the node's number.
const PLACE_BITS: u32 = 28;
/// The highest bit of a name is the caller's.
const NUMBER_BITS: u32 = 63 - PLACE_BITS;

const NOBODY: u32 = u32::MAX;
/// Not a slot: the node is kept, and its time does not count.
const PARKED: u16 = u16::MAX;

#[derive(Debug)]
struct Node<T> {
    /// `None`: the node is free, and `next` is the next that is.
    value: Option<T>,
    at: Instant,
    /// Of all nodes that ever were; no two have the same.
    number: u64,
    slot: u16,
    previous: u32,
    next: u32,
}

#[derive(Debug)]
pub(super) struct Wheel<T> {
    nodes: Vec<Node<T>>,
    free: u32,
    numbers: u64,
    /// The first node of each slot, level by level.
    slots: Box<[u32; LEVELS * SLOTS as usize]>,
    /// Which slots of a level have nodes.
    occupied: [u64; LEVELS],
    /// The time of tick 0.
    origin: Option<Instant>,
    /// Everything before it is over.
    now: u64,
}

impl<T> Default for Wheel<T> {
    fn default() -> Self {
        let slots = Box::new([NOBODY; LEVELS * SLOTS as usize]);
        Wheel { nodes: Vec::new(), free: NOBODY, numbers: 0, slots, occupied: [0; LEVELS], origin: None, now: 0 }
    }
}

/// Whole ticks of a time.
fn ticks(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1000).saturating_add(u64::from(time.subsec_millis()))
}

impl<T> Wheel<T> {
    /// The tick that a time lies in.
    fn tick(&self, at: Instant) -> u64 {
        self.origin.map_or(0, |origin| ticks(at.saturating_duration_since(origin)))
    }

    /// When a tick begins. `None`: never, as far as the clock can tell.
    fn begins(&self, tick: u64) -> Option<Instant> {
        self.origin?.checked_add(Duration::from_millis(tick))
    }

    fn name(&self, place: u32) -> u64 {
        let number = self.nodes[place as usize].number & ((1 << NUMBER_BITS) - 1);
        (number << PLACE_BITS) | u64::from(place)
    }

    /// The place of a node. `None`: its value was removed.
    fn place(&self, name: u64) -> Option<u32> {
        let place = (name & ((1 << PLACE_BITS) - 1)) as u32;
        let node = self.nodes.get(place as usize)?;
        (node.value.is_some() && self.name(place) == name).then_some(place)
    }

    /// Keeps a value until a time, and names it. The present time is needed once.
    pub(super) fn add(&mut self, time: Instant, at: Instant, value: T) -> u64 {
        self.origin.get_or_insert(time);
        self.numbers += 1;
        let node = Node { value: Some(value), at, number: self.numbers, slot: PARKED, previous: NOBODY, next: NOBODY };
        let place = match self.free {
            NOBODY => {
                assert!(self.nodes.len() < 1 << PLACE_BITS, "a port has at most 2^28 timers");
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
            place => {
                self.free = self.nodes[place as usize].next;
                self.nodes[place as usize] = node;
                place
            }
        };
        self.link(place);
        self.name(place)
    }

    /// Puts a node where its time is.
    fn link(&mut self, place: u32) {
        let at = self.nodes[place as usize].at;
        // What is over already is found with what is now; what is too far, with the farthest.
        let tick = self.tick(at).clamp(self.now, self.now.saturating_add(REACH));
        // The level is that of the highest digit in which the two differ. The last level is a ring.
        let differ = (tick ^ self.now) | (SLOTS - 1);
        let level = (((63 - differ.leading_zeros()) / SLOT_BITS) as usize).min(LEVELS - 1);
        let digit = (tick >> (SLOT_BITS * level as u32)) & (SLOTS - 1);
        let slot = level * SLOTS as usize + digit as usize;
        let next = std::mem::replace(&mut self.slots[slot], place);
        self.occupied[level] |= 1 << digit;
        if next != NOBODY {
            self.nodes[next as usize].previous = place;
        }
        let node = &mut self.nodes[place as usize];
        (node.slot, node.previous, node.next) = (slot as u16, NOBODY, next);
    }

    /// Takes a node out of its list, if it is in one.
    fn unlink(&mut self, place: u32) {
        let node = &mut self.nodes[place as usize];
        let slot = std::mem::replace(&mut node.slot, PARKED);
        if slot == PARKED {
            return;
        }
        let (previous, next) = (node.previous, node.next);
        match previous {
            NOBODY => self.slots[slot as usize] = next,
            previous => self.nodes[previous as usize].next = next,
        }
        if next != NOBODY {
            self.nodes[next as usize].previous = previous;
        }
        if self.slots[slot as usize] == NOBODY {
            self.occupied[slot as usize / SLOTS as usize] &= !(1 << (slot as u64 % SLOTS));
        }
    }

    /// Takes a value out, whether its time has come or not.
    pub(super) fn remove(&mut self, name: u64) -> Option<T> {
        let place = self.place(name)?;
        self.unlink(place);
        let node = &mut self.nodes[place as usize];
        node.next = std::mem::replace(&mut self.free, place);
        node.value.take()
    }

    pub(super) fn get_mut(&mut self, name: u64) -> Option<&mut T> {
        let place = self.place(name)?;
        self.nodes[place as usize].value.as_mut()
    }

    /// A value whose time does not count at the moment.
    pub(super) fn parked(&mut self, name: u64) -> Option<&mut T> {
        let place = self.place(name)?;
        let node = &mut self.nodes[place as usize];
        if node.slot == PARKED { node.value.as_mut() } else { None }
    }

    /// From now on the value of a parked node waits for this time.
    pub(super) fn wait_again(&mut self, name: u64, at: Instant) {
        if let Some(place) = self.place(name) {
            self.nodes[place as usize].at = at;
            self.link(place);
        }
    }

    /// A value waits for another time. One that is later leaves the node where it is, to be moved when its slot is gone
    /// through; of a parked node only the time changes. Returns false if there is no such node.
    pub(super) fn move_to(&mut self, name: u64, at: Instant) -> bool {
        let Some(place) = self.place(name) else { return false };
        let node = &mut self.nodes[place as usize];
        let earlier = at < std::mem::replace(&mut node.at, at);
        if earlier && node.slot != PARKED {
            self.unlink(place);
            self.link(place);
        }
        true
    }

    /// The first slot that has something: its level and the tick at which it begins.
    fn first(&self) -> Option<(usize, u64)> {
        (0..LEVELS).find_map(|level| {
            if self.occupied[level] == 0 {
                return None;
            }
            let shift = SLOT_BITS * level as u32;
            let digit = (self.now >> shift) & (SLOTS - 1);
            // The slots of a level from now on, round the ring. Only the last level has some behind its end.
            let ahead = u64::from(self.occupied[level].rotate_right(digit as u32).trailing_zeros());
            let turn = self.now >> shift << shift;
            Some((level, turn.saturating_add(ahead << shift).max(self.now)))
        })
    }

    fn slot(level: usize, tick: u64) -> usize {
        level * SLOTS as usize + ((tick >> (SLOT_BITS * level as u32)) & (SLOTS - 1)) as usize
    }

    /// When to ask [`due`](Wheel::due) again: at the earliest time, or when a slot is to be gone through: for many in
    /// one tick that is its end.
    pub(super) fn earliest(&self) -> Option<Instant> {
        let (level, tick) = self.first()?;
        let shift = SLOT_BITS * level as u32;
        let mut place = self.slots[Self::slot(level, tick)];
        let mut earliest = None::<Instant>;
        for _ in 0..LOOK_AT {
            let Some(node) = self.nodes.get(place as usize) else { return earliest };
            // It lies here because the wheel does not reach farther.
            if self.tick(node.at) >> shift > tick >> shift {
                break;
            }
            earliest = Some(earliest.map_or(node.at, |earliest| earliest.min(node.at)));
            place = node.next;
        }
        if place == NOBODY { earliest } else { self.begins(if level == 0 { tick + 1 } else { tick }) }
    }

    /// Parks all whose time has come, and tells their names in the order of their times, those of one time in that of
    /// their beginning.
    pub(super) fn due(&mut self, time: Instant) -> Vec<u64> {
        let mut due = Vec::new();
        let until = self.tick(time);
        while let Some((level, tick)) = self.first().filter(|&(_, tick)| tick <= until) {
            self.now = tick;
            let mut place = self.slots[Self::slot(level, tick)];
            let mut some_are_later = false;
            while let Some(node) = self.nodes.get(place as usize) {
                let (this, at, number) = (place, node.at, node.number);
                place = node.next;
                if at <= time {
                    self.unlink(this);
                    due.push((at, number, this));
                } else if level > 0 || self.tick(at) > tick {
                    self.unlink(this);
                    self.link(this);
                } else {
                    some_are_later = true;
                }
            }
            // Later, but within the tick that the time lies in.
            if some_are_later {
                break;
            }
        }
        // Whatever began before has been gone through.
        self.now = self.now.max(until);
        due.sort_unstable_by_key(|&(at, number, _)| (at, number));
        due.into_iter().map(|(_, _, place)| self.name(place)).collect()
    }

    /// Takes everything out, in the order of the beginnings.
    pub(super) fn clear(&mut self) -> Vec<T> {
        self.slots.fill(NOBODY);
        self.occupied = [0; LEVELS];
        self.free = NOBODY;
        let mut nodes = std::mem::take(&mut self.nodes);
        nodes.sort_unstable_by_key(|node| node.number);
        nodes.into_iter().filter_map(|node| node.value).collect()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A wheel beside an ordered list that says what it should do.
    struct Both {
        start: Instant,
        time: Instant,
        wheel: Wheel<u64>,
        list: BTreeMap<(Instant, u64), u64>,
        names: Vec<(u64, Instant, u64)>,
        begun: u64,
    }

    impl Both {
        fn new() -> Self {
            let start = Instant::now();
            let (wheel, list) = (Wheel::default(), BTreeMap::new());
            Both { start, time: start, wheel, list, names: Vec::new(), begun: 0 }
        }

        fn add(&mut self, after: Duration) {
            let at = self.time + after;
            self.begun += 1;
            let name = self.wheel.add(self.time, at, self.begun);
            self.list.insert((at, self.begun), name);
            self.names.push((name, at, self.begun));
        }

        fn remove(&mut self, which: usize) {
            let (name, at, value) = self.names.swap_remove(which);
            assert_eq!(self.wheel.remove(name), Some(value));
            assert_eq!(self.wheel.remove(name), None, "a name is used once");
            assert_eq!(self.list.remove(&(at, value)), Some(name));
        }

        fn move_to(&mut self, which: usize, after: Duration) {
            let at = self.time + after;
            let (name, before, value) = self.names[which];
            assert!(self.wheel.move_to(name, at));
            self.list.remove(&(before, value));
            self.list.insert((at, value), name);
            self.names[which] = (name, at, value);
        }

        /// What the list says that is due, in this order, is what the wheel gives.
        fn pass(&mut self, time: Instant) {
            self.time = time;
            let mut expected = Vec::new();
            while let Some(first) = self.list.first_entry().filter(|first| first.key().0 <= time) {
                expected.push(first.remove());
            }
            assert_eq!(self.wheel.due(time), expected, "{:?} after the start", time - self.start);
            for name in expected {
                self.names.retain(|&(one, ..)| one != name);
                assert!(self.wheel.remove(name).is_some());
            }
            // It is asked again in time, and not for ever at once.
            match (self.wheel.earliest(), self.list.first_key_value()) {
                (None, None) => {}
                (Some(again), Some((&(first, _), _))) => {
                    assert!(again > time, "asked again at once");
                    assert!(again <= first + TICK, "{:?} late", again - first);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    fn random() -> fastrand::Rng {
        let seed =
            std::env::var("WHARF_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
        println!("WHARF_SEED={seed}");
        fastrand::Rng::with_seed(seed)
    }

    /// Times of all sizes: now, within a tick, some milliseconds, up to farther than the wheel reaches.
    fn some_time(random: &mut fastrand::Rng) -> Duration {
        match random.u32(..12) {
            0 => Duration::ZERO,
            1 => Duration::from_nanos(random.u64(..2_000_000)),
            2 => Duration::from_millis(random.u64(..4)),
            size => Duration::from_nanos(random.u64(..1 << (20 + 4 * size).min(62))),
        }
    }

    #[test]
    fn what_is_due_is_what_an_ordered_list_says() {
        let mut random = random();
        for _ in 0..200 {
            let mut both = Both::new();
            for _ in 0..300 {
                match random.u32(..8) {
                    0..4 => {
                        let after = some_time(&mut random);
                        both.add(after);
                    }
                    4 if both.names.is_empty() => {}
                    4 if random.bool() => both.remove(random.usize(..both.names.len())),
                    4 => {
                        let after = some_time(&mut random);
                        both.move_to(random.usize(..both.names.len()), after);
                    }
                    5 => both.pass(both.time + some_time(&mut random).min(Duration::from_secs(1 << 28))),
                    // As a port does it: it sleeps until it is to ask again.
                    _ => {
                        if let Some(again) = both.wheel.earliest() {
                            both.pass(again.max(both.time));
                        }
                    }
                }
            }
            // All come in the end, and nothing asks for ever.
            let mut asked = 0;
            while let Some(again) = both.wheel.earliest() {
                both.pass(again.max(both.time));
                asked += 1;
                assert!(asked < 10_000);
            }
            assert!(both.list.is_empty());
        }
    }

    #[test]
    fn many_in_one_tick_come_together_and_none_is_early() {
        let mut both = Both::new();
        for nanoseconds in (0..10_000).rev() {
            both.add(Duration::from_millis(70) + Duration::from_nanos(nanoseconds * 90));
        }
        let mut asked = 0;
        while let Some(again) = both.wheel.earliest() {
            both.pass(again.max(both.time));
            asked += 1;
        }
        // At the slots above, then once for all of them.
        assert!(asked <= 3, "{asked}");
    }

    #[test]
    fn a_single_one_is_asked_for_at_its_very_time() {
        for after in [1, 999_999, 1_000_001, 63_999_999, 64_000_001, 5_000_000_003, 50_000_000_000_000_001] {
            let mut both = Both::new();
            both.add(Duration::from_nanos(after));
            assert_eq!(both.wheel.earliest(), Some(both.start + Duration::from_nanos(after)));
            both.pass(both.start + Duration::from_nanos(after));
            assert!(both.list.is_empty());
        }
    }

    #[test]
    fn a_place_that_is_used_again_has_another_name() {
        let mut wheel = Wheel::default();
        let time = Instant::now();
        let first = wheel.add(time, time, 1);
        assert_eq!(wheel.remove(first), Some(1));
        let second = wheel.add(time, time, 2);
        assert_ne!(first, second);
        assert_eq!((wheel.remove(first), wheel.remove(second)), (None, Some(2)));
        assert_eq!(wheel.nodes.len(), 1, "the place is used again");
    }

    #[test]
    fn a_parked_value_waits_for_nothing_until_it_is_told_to() {
        let mut wheel = Wheel::default();
        let time = Instant::now();
        let name = wheel.add(time, time, 1);
        assert!(wheel.parked(name).is_none());
        assert_eq!(wheel.due(time), [name]);
        assert_eq!((wheel.earliest(), wheel.parked(name)), (None, Some(&mut 1)));
        assert_eq!(wheel.due(time + Duration::from_secs(9)), []);
        wheel.wait_again(name, time + Duration::from_secs(10));
        assert!(wheel.parked(name).is_none());
        assert_eq!(wheel.due(time + Duration::from_secs(10)), [name]);
    }
}
