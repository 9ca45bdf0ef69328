//! How devices come to the port and leave it.

use super::device::{DeviceState, shut, traits};
use super::port::Port;
use super::queue::key;
use crate::op::{DeviceInfo, DeviceKind, Handle, Sink, phase};
use crate::sync::Arc;
use crate::sys::calls as sys;
use crate::sys::errno::{EBADF, EBUSY, ENOTCONN, ESHUTDOWN};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::Ordering;

impl Port {
    /// The caller owns the handle, and gives it to the port. On failure it stays the caller's.
    pub(crate) fn take_over(&self, handle: Handle, kind: DeviceKind, key: usize) -> Result<Arc<DeviceState>, i32> {
        let phase = match kind {
            DeviceKind::Listener => phase::LISTENING,
            DeviceKind::Stream | DeviceKind::Datagram | DeviceKind::Handle | DeviceKind::File => phase::CONNECTED,
        };
        let traits = match kind {
            DeviceKind::File => super::files::traits_of(handle)?,
            _ => 0,
        };
        if kind == DeviceKind::Datagram {
            // Off at first (row U-09); a system that cannot be asked does not report them either.
            let _ = sys::report_refusals(handle, false);
        }
        self.add(handle, kind, key, phase, traits)
    }

    fn add(
        &self,
        handle: Handle,
        kind: DeviceKind,
        key: usize,
        phase: u8,
        traits: u8,
    ) -> Result<Arc<DeviceState>, i32> {
        self.check()?;
        // A process is no file: it is waited for otherwise.
        if traits & traits::CHILD == 0 || kind != DeviceKind::Handle {
            self.queue.completions.associate(handle, key::OPERATION)?;
        }
        Ok(self
            .driver()
            .devices
            .lock()
            .add(|port, number| DeviceState::new(port, number, handle, kind, key, phase, traits)))
    }

    /// Takes a process's handle, to be waited for.
    pub(crate) fn adopt_process(&self, handle: Handle) -> Result<Arc<DeviceState>, i32> {
        self.add(handle, DeviceKind::Handle, 0, phase::CONNECTED, traits::CHILD)
    }

    /// Ends the process behind a device.
    pub(crate) fn terminate(&self, device: &Arc<DeviceState>) -> std::io::Result<()> {
        self.with_handle(device, |process| sys::terminate(process).map_err(std::io::Error::from_raw_os_error))
    }

    pub(crate) fn open_stream(&self, peer: &SocketAddr, key: usize) -> Result<Arc<DeviceState>, i32> {
        let handle = sys::open_socket(sys::family_of(peer))?;
        self.add(handle, DeviceKind::Stream, key, phase::FRESH, traits::OURS).inspect_err(|_| sys::close_socket(handle))
    }

    pub(crate) fn take_over_unconnected(&self, handle: Handle, key: usize) -> Result<Arc<DeviceState>, i32> {
        self.add(handle, DeviceKind::Stream, key, phase::FRESH, 0)
    }

    pub(crate) fn close_device(&self, device: &Arc<DeviceState>) -> bool {
        let Ok(device) = self.own(device) else { return false };
        self.abandon(device);
        if self.driver().devices.lock().remove(device.number) {
            device.leave();
        }
        true
    }

    /// Takes the descriptor out of the port: a number that is the caller's to close.
    pub(crate) fn give_up(&self, device: &Arc<DeviceState>) -> Result<Handle, i32> {
        let device = self.own(device)?;
        {
            let mut receive = device.receive.lock();
            let mut send = device.send.lock();
            if receive.closed {
                return Err(EBADF);
            }
            if receive.pending() > 0 || send.pending() > 0 || device.is(phase::CONNECTING) {
                return Err(EBUSY);
            }
            receive.closed = true;
            send.closed = true;
        }
        if !self.driver().devices.lock().remove(device.number) {
            return Err(EBADF);
        }
        device.give_away();
        device.leave();
        // Where the system can, the association ends (row P-16).
        sys::dissociate(device.handle());
        Ok(device.handle())
    }

    /// Calls `call` with the device's handle, which stays open meanwhile.
    pub(crate) fn with_handle<R>(
        &self,
        device: &Arc<DeviceState>,
        call: impl FnOnce(Handle) -> std::io::Result<R>,
    ) -> std::io::Result<R> {
        let device = self.own(device).map_err(std::io::Error::from_raw_os_error)?;
        if !device.enter() {
            return Err(std::io::Error::new(std::io::ErrorKind::NotConnected, "the device is closed"));
        }
        let result = call(device.handle());
        device.leave();
        result
    }

    pub(crate) fn devices(&self) -> Vec<DeviceInfo> {
        let devices: Vec<Arc<DeviceState>> = self.driver().devices.lock().iter().cloned().collect();
        devices
            .iter()
            .map(|device| DeviceInfo {
                number: device.number,
                kind: device.kind,
                handle: device.handle(),
                pending: (device.receive.lock().pending(), device.send.lock().pending()),
            })
            .collect()
    }

    pub(crate) fn device_count(&self) -> usize {
        self.driver().devices.lock().len()
    }

    pub(crate) fn shutdown(&self, device: &Arc<DeviceState>, how: Shutdown) -> Result<(), i32> {
        self.own(device)?;
        self.check()?;
        if device.receive.lock().closed {
            return Err(EBADF);
        }
        if !device.is(phase::CONNECTED) {
            return Err(ENOTCONN);
        }
        if matches!(how, Shutdown::Read | Shutdown::Both) {
            device.shut.fetch_or(shut::RECEIVE, Ordering::AcqRel);
        }
        if matches!(how, Shutdown::Write | Shutdown::Both) {
            // An operation like a disconnect, that nobody hears of.
            match self.disconnect(device, 0, Sink::Callback(|_, _| {}, 0)) {
                Ok(_) | Err(ESHUTDOWN) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
