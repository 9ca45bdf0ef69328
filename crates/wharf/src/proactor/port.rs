//! The port over the kernel's.

use super::console::Signals;
use super::device::DeviceState;
use super::queue::{Queue, Ticker};
use crate::op::buffer::Pool;
use crate::op::{Completion, Config, Devices, Handle, OperationId, PortNumber, Timers};
use crate::sync::{Arc, Lock};
use crate::sys::calls as sys;
use crate::sys::errno::{EBADF, EINVAL};
use crate::threads::{QueueStats, WorkerReport};
use std::sync::atomic::{AtomicBool, AtomicUsize};

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
    /// Records in the kernel's hands: changed (AcqRel) by whoever gives one there, before, and by whoever owns it
    /// again. Who drains a closed port reads it (Acquire) before it takes packets.
    pub(super) outstanding: AtomicUsize,
    /// Threads that are about to queue a packet. SeqCst, as the port's being closed is: whoever is counted sees that it
    /// is closed, or who drains it sees the count.
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
