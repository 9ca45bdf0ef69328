//! Cancelling: of one operation, or of all of a device.

use super::device::DeviceState;
use super::{Cancel, Completion, DeviceKind, ECANCELED, Entry, OperationId, Port, files_under_way, finish};
use crate::op::{Name, Operation, Payload, Withdrawal};
use crate::reactor::direction::Side;
use crate::sync::Arc;

impl Port {
    pub(crate) fn cancel(&self, id: OperationId) -> Cancel {
        if id.port != self.driver().number {
            return Cancel::Foreign;
        }
        if !self.is_home() {
            return Cancel::TooLate;
        }
        if id.device == 0 {
            return self.cancel_repeating(id.serial);
        }
        let device = self.driver().devices.lock().find(id.device).cloned();
        let Some(device) = device else { return Cancel::TooLate };
        self.take_arrived_for(&device, id.serial);
        let mut direction = device.direction(Side::of(id.serial)).lock();
        if direction.is_running(id.serial) {
            direction.cancel(id.serial);
            drop(direction);
            if device.kind == DeviceKind::File {
                self.cancel_files(&device, &[id.serial]);
            }
            return Cancel::Requested;
        }
        let Some(operation) = direction.operations.remove(id.serial) else { return Cancel::TooLate };
        let wanted = direction.wants_no_space();
        drop(direction);
        self.complete(&device, operation, ECANCELED);
        if wanted {
            self.insert_work(Entry::Ready(device, Side::Send));
        }
        Cancel::Requested
    }

    /// Takes an operation back that has not begun: its completion, which nobody else is told. One that has begun is
    /// cancelled.
    pub(crate) fn withdraw(&self, id: OperationId) -> Withdrawal<Completion> {
        if id.port != self.driver().number {
            return Withdrawal::Foreign;
        }
        if !self.is_home() {
            return Withdrawal::TooLate;
        }
        if id.device == 0 {
            let ended = self.end_one_repeating(id.serial);
            return ended.map_or(Withdrawal::TooLate, |(_, completion)| Withdrawal::Withdrawn(completion));
        }
        let device = self.driver().devices.lock().find(id.device).cloned();
        let Some(device) = device else { return Withdrawal::TooLate };
        self.take_arrived_for(&device, id.serial);
        let mut direction = device.direction(Side::of(id.serial)).lock();
        let running = direction.is_running(id.serial);
        let unbegun = if running { None } else { direction.operations.remove_unbegun(id.serial) };
        let Some(operation) = unbegun else {
            drop(direction);
            return self.cancel(id).into();
        };
        let wanted = direction.wants_no_space();
        drop(direction);
        // The event or the function is not told.
        let (_, completion) = finish(&device, operation, ECANCELED, Payload::None);
        if wanted {
            self.insert_work(Entry::Ready(device, Side::Send));
        }
        Withdrawal::Withdrawn(completion)
    }

    /// An operation is about to be ended, for which something may have come.
    fn take_arrived_for(&self, device: &Arc<DeviceState>, serial: u64) {
        if Side::of(serial) == Side::Receive {
            self.take_arrived(device, |receive| !receive.operations.contain(serial));
        }
    }

    /// [`cancel`](Port::cancel), if it is an operation of this device.
    pub(crate) fn cancel_of(&self, device: &Arc<DeviceState>, id: OperationId) -> Cancel {
        if (id.port, id.device) == (device.port, device.number) { self.cancel(id) } else { Cancel::Foreign }
    }

    /// Asks that those outstanding operations of a device end that have a name in common.
    pub(crate) fn cancel_named(&self, device: &Arc<DeviceState>, name: Name) -> usize {
        let Ok(device) = self.own(device) else { return 0 };
        self.take_arrived(device, |receive| !receive.operations.contain_named(name));
        let mut count = 0;
        for side in [Side::Receive, Side::Send] {
            let (running, listed, wanted) = {
                let mut direction = device.direction(side).lock();
                let (running, listed) = direction.cancel_named(name);
                (running, listed, direction.wants_no_space())
            };
            count += running.len() + listed.len();
            if device.kind == DeviceKind::File {
                self.cancel_files(device, &running);
            }
            for operation in listed {
                self.complete(device, operation, ECANCELED);
            }
            if wanted {
                self.insert_work(Entry::Ready(device.clone(), Side::Send));
            }
        }
        count
    }

    pub(crate) fn cancel_all(&self, device: &Arc<DeviceState>) -> usize {
        let Ok(device) = self.own(device) else { return 0 };
        self.take_arrived(device, |_| false);
        let mut count = 0;
        for side in [Side::Receive, Side::Send] {
            let (pending, files, wanted) = {
                let mut direction = device.direction(side).lock();
                count += direction.cancel_running();
                let mut pending: Vec<Operation> = direction.operations.take().collect();
                // A shutdown, which is no operation of the program's, comes all the same. Nothing was issued behind it.
                if let Some(shutdown) = pending.pop_if(|last| last.is_shutdown()) {
                    direction.operations.push_back(shutdown);
                }
                (pending, files_under_way(device, &direction), direction.wants_no_space())
            };
            self.cancel_files(device, &files);
            for operation in pending {
                count += 1;
                self.complete(device, operation, ECANCELED);
            }
            if wanted {
                self.insert_work(Entry::Ready(device.clone(), Side::Send));
            }
        }
        count
    }
}
