//! How devices come to the port and leave it.

use super::device::DeviceState;
use super::{DeviceInfo, DeviceKind, EBADF, ECANCELED, EINVAL, ENOTCONN, Handle, Port, file, files_under_way};
use crate::op::phase;
use crate::reactor::device::{shut, traits};
use crate::reactor::direction::{Direction, Side};
use crate::sync::Arc;
use crate::sys::errno;
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::Ordering;

impl Port {
    /// The caller owns the handle, and gives it to the port. On failure it stays the caller's.
    pub(crate) fn take_over(&self, handle: Handle, kind: DeviceKind, key: usize) -> Result<Arc<DeviceState>, i32> {
        let phase = match kind {
            DeviceKind::Listener => phase::LISTENING,
            DeviceKind::Stream | DeviceKind::Datagram | DeviceKind::Handle | DeviceKind::File => phase::CONNECTED,
        };
        self.check()?;
        let traits = match kind {
            DeviceKind::File => file::traits_of(handle).map_err(|error| error.raw_os_error().unwrap_or(EINVAL))?,
            DeviceKind::Datagram => {
                let calls = self.engine().calls();
                let peer = if calls.has_peer(handle) { traits::PEER } else { 0 };
                peer | if calls.is_bound(handle) { 0 } else { traits::UNBOUND }
            }
            _ => 0,
        };
        let device = self.list(handle, kind, key, phase, traits);
        if kind == DeviceKind::File {
            // An engine of readiness has nothing to say of it.
            return Ok(device);
        }
        if let Err(error) = self.register(&device) {
            self.driver().devices.lock().remove(device.number);
            return Err(error);
        }
        Ok(device)
    }

    fn list(&self, handle: Handle, kind: DeviceKind, key: usize, phase: u8, traits: u8) -> Arc<DeviceState> {
        let make = |port, number| DeviceState::new(port, number, handle, kind, key, phase, traits);
        self.driver().devices.lock().add(make)
    }

    pub(crate) fn open_stream(&self, peer: &SocketAddr, key: usize) -> Result<Arc<DeviceState>, i32> {
        self.check()?;
        let handle = self.engine().calls().open_stream(peer)?;
        Ok(self.list(handle, DeviceKind::Stream, key, phase::FRESH, 0))
    }

    pub(crate) fn take_over_unconnected(&self, handle: Handle, key: usize) -> Result<Arc<DeviceState>, i32> {
        self.check()?;
        Ok(self.list(handle, DeviceKind::Stream, key, phase::FRESH, 0))
    }

    pub(super) fn register(&self, device: &DeviceState) -> Result<(), i32> {
        // Nobody else registers it at the same time: it is being adopted, or connected by this call. The mark is set
        // afterwards, so that whoever closes the handle, be it meanwhile, deregisters it (`DeviceState::leave`).
        if !device.registered.load(Ordering::Acquire) {
            self.driver().sources.store(true, Ordering::Relaxed);
            self.engine().selector.register(device.handle, device.number)?;
            device.registered.store(true, Ordering::Release);
        }
        Ok(())
    }

    pub(crate) fn close_device(&self, device: &Arc<DeviceState>) -> bool {
        let device = match self.own(device) {
            Ok(device) => device,
            Err(EBADF) => {
                device.close_copy(self.engine());
                return true;
            }
            Err(_) => return false,
        };
        self.abandon(device);
        let open = self.driver().devices.lock().remove(device.number);
        if open {
            device.deregister(self.engine());
            device.lend_to_owners();
            self.leave(device);
        }
        true
    }

    /// Ends a use of a device's handle.
    pub(super) fn leave(&self, device: &DeviceState) {
        if device.leave(self.engine()) {
            self.resume_accepting();
        }
    }

    /// Takes the descriptor out of the port: a number that is the caller's to close.
    pub(crate) fn give_up(&self, device: &Arc<DeviceState>) -> Result<Handle, i32> {
        use errno::EBUSY;
        let device = self.own(device)?;
        {
            let mut receive = device.receive.lock();
            let mut send = device.send.lock();
            // Who owns a side on which nothing is outstanding has delivered the last packet, and calls the system no
            // more.
            let busy = |side: &Direction| side.pending() > 0;
            if receive.closed {
                return Err(EBADF);
            }
            // While connecting: the operation may have been cancelled, and the attempt is just being given up.
            if busy(&receive) || busy(&send) || device.is(phase::CONNECTING) {
                return Err(EBUSY);
            }
            receive.closed = true;
            send.closed = true;
        }
        if !self.driver().devices.lock().remove(device.number) {
            return Err(EBADF);
        }
        device.deregister(self.engine());
        device.give_away();
        // A plain call of another thread (an address, an option) may be under way on the handle, which its next owner
        // may close. Such calls do not wait.
        while !device.leave_alone() {
            std::thread::yield_now();
        }
        Ok(device.handle)
    }

    /// Marks both directions closed and completes what they hold: what has come for it, else as cancelled.
    pub(super) fn abandon(&self, device: &Arc<DeviceState>) {
        // From now on none is issued, and one that finds nothing ends.
        for side in [Side::Receive, Side::Send] {
            device.direction(side).lock().closed = true;
        }
        self.take_arrived(device, |_| false);
        for side in [Side::Receive, Side::Send] {
            let (pending, files) = {
                let mut direction = device.direction(side).lock();
                (direction.operations.take(), files_under_way(device, &direction))
            };
            self.cancel_files(device, &files);
            for operation in pending {
                self.complete(device, operation, ECANCELED);
            }
        }
    }

    /// Calls `call` with the device's descriptor, which stays open meanwhile.
    pub(crate) fn with_handle<R>(
        &self,
        device: &Arc<DeviceState>,
        call: impl FnOnce(i32) -> std::io::Result<R>,
    ) -> std::io::Result<R> {
        let device = match self.own(device) {
            Ok(device) => device,
            Err(EBADF) => return Err(crate::error::forked()),
            Err(error) => return Err(std::io::Error::from_raw_os_error(error)),
        };
        if !device.enter() {
            return Err(std::io::Error::new(std::io::ErrorKind::NotConnected, "the device is closed"));
        }
        let result = call(device.handle);
        self.leave(device);
        result
    }

    pub(crate) fn devices(&self) -> Vec<DeviceInfo> {
        if !self.is_home() {
            return Vec::new();
        }
        let devices: Vec<Arc<DeviceState>> = self.driver().devices.lock().iter().cloned().collect();
        devices
            .iter()
            .map(|device| DeviceInfo {
                number: device.number,
                kind: device.kind,
                handle: device.handle,
                pending: (device.receive.lock().pending(), device.send.lock().pending()),
            })
            .collect()
    }

    pub(crate) fn device_count(&self) -> usize {
        if self.is_home() { self.driver().devices.lock().len() } else { 0 }
    }

    pub(crate) fn shutdown(&self, device: &Arc<DeviceState>, how: Shutdown) -> Result<(), i32> {
        let device = self.own(device)?;
        self.check()?;
        if device.receive.lock().closed {
            return Err(EBADF);
        }
        if !device.is(phase::CONNECTED) {
            return Err(ENOTCONN);
        }
        if device.kind == DeviceKind::Handle && how != Shutdown::Read {
            return Err(errno::ENOTSOCK);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            device.shut.fetch_or(shut::RECEIVE, Ordering::AcqRel);
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            self.shut_sending(device)?;
        }
        Ok(())
    }
}
