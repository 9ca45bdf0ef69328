//! What the queue and the operations need of the port: its engine, its devices, its timers.

use super::device::DeviceState;
use super::{Completion, DeviceKind, ECANCELED, Entry, FileEngine, Payload, Sink, entry, file, finish, signal};
use crate::contain::contain;
use crate::op::buffer::Pool;
use crate::op::{Devices, PortNumber, Ran, Timers};
use crate::queue::{Driver, Found};
use crate::reactor::direction::Side;
use crate::reactor::engine::files::FileThread;
use crate::reactor::engine::{Engine, Events, Readiness};
use crate::sync::{Arc, Lock};
use crate::sys::fork::Home;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub(crate) struct PortDriver {
    pub(super) home: Home,
    /// No other port of the process has it, or had it.
    pub(super) number: PortNumber,
    pub(super) engine: Engine,
    pub(super) events: Lock<Events>,
    pub(super) devices: Lock<Devices<DeviceState>>,
    pub(super) timers: Lock<Timers>,
    pub(super) signals: signal::Signals,
    /// A device or a timer has been there: events may come.
    pub(super) sources: AtomicBool,
    /// Listeners that found no free descriptor.
    pub(super) starved: Lock<Vec<Arc<DeviceState>>>,
    /// That was said, and no connection was taken since.
    pub(super) starving: AtomicBool,
    /// When it was last said: where descriptors come and go at the limit, it would be said with each of them.
    pub(super) starving_said: Lock<Option<std::time::Instant>>,
    pub(super) pool: std::sync::Arc<Pool>,
    /// Where file operations wait, from the first on that has to.
    pub(super) file_thread: OnceLock<std::io::Result<FileThread<file::FileRequest>>>,
    pub(super) files: FileEngine,
    pub(super) dispose: fn(Completion),
}

impl Drop for PortDriver {
    fn drop(&mut self) {
        let devices: Vec<Arc<DeviceState>> = self.devices.get_mut().iter().cloned().collect();
        if self.home.is_here() {
            self.end(&devices);
            return;
        }
        // No lock is taken in a child: it may be held for good.
        for device in devices {
            device.close_copy(&self.engine);
        }
        // The thread that it would end, and what wakes that, are the parent's.
        std::mem::forget(self.file_thread.take());
    }
}

impl PortDriver {
    /// Nobody has the port any more, so nobody works on a device: what nobody has closed ends.
    fn end(&self, devices: &[Arc<DeviceState>]) {
        let mut ended: Vec<(Sink, Completion)> = Vec::new();
        for device in devices {
            for side in [Side::Receive, Side::Send] {
                let pending = {
                    let mut direction = device.direction(side).lock();
                    direction.closed = true;
                    direction.operations.take()
                };
                let pending = pending.into_iter();
                ended.extend(pending.map(|operation| finish(device, operation, ECANCELED, Payload::None)));
            }
            device.deregister(&self.engine);
            device.leave(&self.engine);
        }
        ended.extend(self.timers.lock().close(self));
        ended.extend(self.signals.close());
        for (sink, completion) in ended {
            if let Some(entry) = entry(sink, completion) {
                self.dispose(entry);
            }
        }
    }

    pub(super) fn file_thread(&self) -> Result<&FileThread<file::FileRequest>, &std::io::Error> {
        let mut is_new = false;
        let thread = self.file_thread.get_or_init(|| {
            is_new = true;
            FileThread::start(self.files)
        });
        if let (true, Ok(thread)) = (is_new, thread) {
            log::info!("files: {}", thread.why);
        }
        thread.as_ref()
    }

    /// An engine reported readiness: remember what stays, and queue the directions that wait for it.
    pub(super) fn ready(&self, device: &Arc<DeviceState>, readiness: Readiness, found: &mut Found<Entry>) {
        let sticky = readiness.0 & Readiness::STICKY;
        if sticky != 0 {
            device.sticky.fetch_or(sticky, Ordering::AcqRel);
        }
        if readiness.has(Readiness::RECEIVE) {
            let mut direction = device.receive.lock();
            if direction.ready() {
                let entry = Entry::Ready(device.clone(), Side::Receive);
                // A receive is executed by the worker that dequeues it, into a buffer it will look at at once.
                // Accepting, and what only an event or a function hears of, is the engine's own progress and needs no
                // slot.
                if direction.in_work || device.kind == DeviceKind::Listener {
                    found.engine_work.push(entry);
                } else {
                    found.entries.push(entry);
                }
            }
        }
        // An engine reports space with every event; only who found none, or is sending just now, wants to know.
        let wanted = device.wants_space.load(Ordering::SeqCst);
        if wanted && readiness.has(Readiness::SEND) && device.send.lock().ready() {
            found.engine_work.push(Entry::Ready(device.clone(), Side::Send));
        }
    }

    pub(super) fn resume_starved(&self, mut queue: impl FnMut(Entry)) {
        let starved = std::mem::take(&mut *self.starved.lock());
        for device in starved {
            if device.receive.lock().ready() {
                queue(Entry::Ready(device, Side::Receive));
            }
        }
    }
}

impl Driver<Entry> for PortDriver {
    fn poll(&self, wait: Option<Duration>, found: &mut Found<Entry>) {
        let mut events = self.events.lock();
        self.engine.selector.poll(wait, &mut events);
        found.ticked |= std::mem::take(&mut events.ticked);
        if std::mem::take(&mut events.deadline_passed) {
            self.timers_due(found);
        }
        self.signals.collect(&mut found.entries);
        if !events.ready.is_empty() {
            let devices = self.devices.lock();
            for (number, readiness) in events.ready.drain(..) {
                if let Some(device) = devices.find(number) {
                    self.ready(device, readiness, found);
                }
            }
        }
    }

    fn has_sources(&self) -> bool {
        self.sources.load(Ordering::Relaxed) || self.signals.is_pending()
    }

    fn kick(&self) {
        self.engine.selector.kick();
    }

    fn is_here(&self) -> bool {
        self.home.is_here()
    }

    fn dispose(&self, entry: Entry) {
        match entry {
            Entry::Post(post) => contain(|| (self.dispose)(post.into())),
            Entry::Packet(completion) => contain(|| (self.dispose)(*completion)),
            // A function's completion is not the port's to free: it is told, as it would have been.
            Entry::Call(call, context, completion) => contain(|| call(context, *completion)),
            Entry::Run(call, context) => contain(|| call(context, Ran::Closed)),
            Entry::Ready(..) | Entry::Tick(_) => {}
        }
    }
}
