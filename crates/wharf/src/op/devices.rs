//! The port's list of its devices, by numbers that are never used again: what Windows keeps and does not show.

use super::PortNumber;
use std::collections::VecDeque;
use std::sync::Arc;

/// How far a stream is.
pub(crate) mod phase {
    pub(crate) const FRESH: u8 = 0;
    pub(crate) const CONNECTING: u8 = 1;
    pub(crate) const CONNECTED: u8 = 2;
    pub(crate) const LISTENING: u8 = 3;
}

/// A device's number is its slot, and how many devices the slot has had, this one counted.
#[derive(Debug)]
pub(crate) struct Devices<D> {
    port: PortNumber,
    slots: Vec<Slot<D>>,
    /// The one that has been free for longest comes first.
    free: VecDeque<u32>,
    count: usize,
}

#[derive(Debug)]
struct Slot<D> {
    generation: u32,
    device: Option<Arc<D>>,
}

impl<D> Devices<D> {
    /// The limit keeps an engine's own numbers apart from the devices'.
    const SLOTS_MAX: u32 = u32::MAX - 8;

    /// The list of the port with this number.
    pub(crate) fn of(port: PortNumber) -> Devices<D> {
        Devices { port, slots: Vec::new(), free: VecDeque::new(), count: 0 }
    }

    /// Free slots that this number of generations has used.
    #[cfg(all(test, unix))]
    pub(crate) fn wear(&mut self, slots: usize, generation: u32) {
        for _ in 0..slots {
            assert!(generation < u32::MAX, "it would be used up");
            self.free.push_back(u32::try_from(self.slots.len()).unwrap());
            self.slots.push(Slot { generation, device: None });
        }
    }

    /// Lists the device that `make` makes, of the port and of this number.
    pub(crate) fn add(&mut self, make: impl FnOnce(PortNumber, u64) -> D) -> Arc<D> {
        let slot = self.free.pop_front().unwrap_or_else(|| {
            let slot = u32::try_from(self.slots.len()).ok().filter(|&slot| slot < Self::SLOTS_MAX);
            self.slots.push(Slot { generation: 0, device: None });
            slot.expect("fewer devices than four thousand million")
        });
        let entry = &mut self.slots[slot as usize];
        // Never 0, and never again: see `remove`.
        entry.generation += 1;
        let device = Arc::new(make(self.port, u64::from(slot) << 32 | u64::from(entry.generation)));
        entry.device = Some(device.clone());
        self.count += 1;
        device
    }

    pub(crate) fn find(&self, number: u64) -> Option<&Arc<D>> {
        let slot = self.slots.get(usize::try_from(number >> 32).ok()?)?;
        slot.device.as_ref().filter(|_| slot.generation == number as u32)
    }

    /// True when it was there: of several closers one goes on.
    pub(crate) fn remove(&mut self, number: u64) -> bool {
        let Some(slot) = self.slots.get_mut((number >> 32) as usize) else { return false };
        if slot.device.is_none() || slot.generation != number as u32 {
            return false;
        }
        slot.device = None;
        // A slot whose generations are used up is not used again: its next device would have the number of an earlier
        // one.
        if slot.generation < u32::MAX {
            self.free.push_back((number >> 32) as u32);
        }
        self.count -= 1;
        true
    }

    pub(crate) fn len(&self) -> usize {
        self.count
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<D>> {
        self.slots.iter().filter_map(|slot| slot.device.as_ref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_reused_under_another_number() {
        let mut devices = Devices::of(PortNumber::default());
        let first = devices.add(|_, number| number);
        assert!(devices.remove(*first));
        let second = devices.add(|_, number| number);
        assert_ne!(*first, *second);
        assert!(devices.find(*first).is_none(), "a late event must not reach the slot's next device");
        assert!(!devices.remove(*first), "a device is removed once");
        assert_eq!(devices.len(), 1);
    }

    #[test]
    fn a_number_never_comes_again() {
        let mut devices = Devices::of(PortNumber::default());
        let add = |devices: &mut Devices<u64>| *devices.add(|_, number| number);
        let first = add(&mut devices);
        assert!(devices.remove(first));
        devices.slots[0].generation = u32::MAX - 3;
        let mut seen = std::collections::HashSet::from([first]);
        for _ in 0..10 {
            let number = add(&mut devices);
            assert!(number != 0 && number as u32 != 0, "0 is no device, and a timer's");
            assert!(seen.insert(number), "the number {number:#x} has come again");
            assert!(devices.remove(number));
            assert!(devices.find(number).is_none() && !devices.remove(number));
        }
        assert_eq!(devices.slots.len(), 2, "the first slot was used up, and the second is in use");
        assert_eq!(devices.len(), 0);
    }

    #[test]
    fn the_slot_that_was_free_for_longest_is_used_first() {
        let mut devices = Devices::of(PortNumber::default());
        let numbers: Vec<u64> = (0..3).map(|_| *devices.add(|_, number| number)).collect();
        let order = [2, 0, 1];
        order.iter().for_each(|&at: &usize| assert!(devices.remove(numbers[at])));
        for at in order {
            let number = *devices.add(|_, number| number);
            assert_eq!(number >> 32, at as u64);
        }
    }
}
