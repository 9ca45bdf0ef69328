//! The port over the kernel's, and how devices come to it and leave it.

use super::console::Signals;
use super::device::{DeviceState, shut, traits};
use super::queue::{Queue, Ticker, key};
use crate::op::buffer::Pool;
use crate::op::{
    Completion, Config, DeviceInfo, DeviceKind, Devices, Handle, OperationId, PortNumber, Sink, Timers, phase,
};
use crate::sync::{Arc, Lock};
use crate::sys::calls as sys;
use crate::sys::errno::{EBADF, EBUSY, EINVAL, ENOTCONN, ESHUTDOWN};
use crate::threads::{QueueStats, WorkerReport};
use std::net::{Shutdown, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// What timers and devices need of the port.
pub(crate) struct PortDriver {
    /// No other port of the process has it, or had it.
    pub(super) number: PortNumber,
    pub(super) engine: Arc<Ticker>,
    pub(super) timers: Lock<Timers>,
    pub(super) signals: Signals,
    pub(super) sources: AtomicBool,
    pub(super) devices: Lock<Devices<DeviceState>>,
    pub(super) pool: std::sync::Arc<Pool>,
    /// Records in the kernel's hands.
    pub(super) outstanding: AtomicUsize,
    /// Threads that are about to queue a packet.
    pub(super) posting: AtomicUsize,
    pub(super) dispose: fn(Completion),
}

/// A completion port of the raw layer. Clones name the same port. When the last one goes, the port is closed
/// ([`close`](Port::close)), and so are its devices.
#[derive(Clone)]
pub(crate) struct Port {
    pub(crate) queue: Arc<Queue>,
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Port").field("engine", &self.engine_name()).field("stats", &self.stats()).finish()
    }
}

impl Port {
    pub(crate) fn new(config: Config) -> std::io::Result<Port> {
        let limit = match config.concurrency {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            limit => limit,
        };
        sys::start_winsock();
        let number = PortNumber::next()?;
        let queue = Queue::new(limit, |engine| {
            Ok(PortDriver {
                number,
                engine,
                timers: Lock::default(),
                signals: Signals::default(),
                sources: AtomicBool::new(false),
                devices: Lock::new(Devices::of(number)),
                pool: Pool::new(config.pool_buffer_bytes, config.pool_keep),
                outstanding: AtomicUsize::new(0),
                posting: AtomicUsize::new(0),
                dispose: config.dispose,
            })
        })?;
        Ok(Port { queue: Arc::new(queue) })
    }

    pub(super) fn driver(&self) -> &PortDriver {
        self.queue.driver()
    }

    /// What drives the port.
    pub(crate) fn engine_name(&self) -> &'static str {
        "iocp"
    }

    /// The kernel's port, to be waited on.
    pub(crate) fn notifier_handle(&self) -> Handle {
        self.queue.completions.number()
    }

    pub(crate) fn file_engine(&self) -> Option<&'static str> {
        None
    }

    // --- Devices ---

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

    /// Whether the calling thread is bound to this port.
    pub(crate) fn is_worker(&self) -> bool {
        crate::threads::bound(&self.queue).is_some()
    }

    /// There are no forked children here.
    #[inline]
    pub(crate) fn is_home(&self) -> bool {
        true
    }

    /// The device, if it is this port's. At the head of every call that is given a device.
    #[inline]
    pub(super) fn own<'a>(&self, device: &'a Arc<DeviceState>) -> Result<&'a Arc<DeviceState>, i32> {
        if device.port == self.driver().number { Ok(device) } else { Err(EINVAL) }
    }

    /// Names a timer or a signal.
    pub(super) fn repeating_id(&self, serial: u64) -> OperationId {
        OperationId { port: self.driver().number, device: 0, serial }
    }

    pub(super) fn check(&self) -> Result<(), i32> {
        if self.queue.is_closed() { Err(EBADF) } else { Ok(()) }
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

    pub(crate) fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    pub(crate) fn stats(&self) -> QueueStats {
        self.queue.stats()
    }

    pub(crate) fn workers(&self) -> Vec<WorkerReport> {
        self.queue.workers()
    }
}
