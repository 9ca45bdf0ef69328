//! Signals as packets.
//!
//! The handler, which may run at any point of any thread, counts and kicks the engine; the leader makes the packets.
//! Handlers are chained by `signal-hook-registry`, so a handler that the program had before still runs.

use super::{Completion, Entry, Kind, OperationId, Port, Sink};
use crate::op::{Repeating, Retain};
use crate::sync::Lock;
use signal_hook_registry::SigId;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

#[derive(Debug, Default)]
pub(super) struct Signals {
    pending: Arc<AtomicBool>,
    sources: Lock<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    list: Vec<Source>,
    last_serial: u64,
    closed: bool,
}

#[derive(Debug)]
struct Source {
    serial: u64,
    signal: i32,
    count: Arc<AtomicU32>,
    hook: SigId,
    operation: Repeating,
}

impl Signals {
    /// The port is closed: the last packets of all, and no further signal is waited for.
    pub(super) fn close(&self) -> Vec<(Sink, Completion)> {
        let sources = {
            let mut sources = self.sources.lock();
            sources.closed = true;
            std::mem::take(&mut sources.list)
        };
        sources.into_iter().map(Source::end).collect()
    }

    pub(super) fn is_pending(&self) -> bool {
        self.pending.load(Ordering::Relaxed)
    }

    /// Called by the leader after each wait. Signals of one number that came since the last time are one packet, as
    /// POSIX merges them anyhow.
    pub(super) fn collect(&self, entries: &mut Vec<Entry>) {
        if !self.is_pending() || !self.pending.swap(false, Ordering::AcqRel) {
            return;
        }
        let sources = self.sources.lock();
        for source in &sources.list {
            if source.count.swap(0, Ordering::AcqRel) == 0 {
                continue;
            }
            let number = usize::try_from(source.signal).unwrap_or(0);
            let completion = source.operation.packet(Kind::Signal, number, true);
            entries.push(match &source.operation.sink {
                Sink::Callback(call, context) => Entry::Call(*call, *context, Box::new(completion)),
                Sink::Event(_) | Sink::Port | Sink::Both(_) => Entry::Packet(Box::new(completion)),
            });
        }
    }
}

impl Source {
    /// Its last packet.
    fn end(self) -> (Sink, Completion) {
        signal_hook_registry::unregister(self.hook);
        self.operation.ended(Kind::Signal)
    }
}

impl Port {
    #[allow(unsafe_code)]
    pub(crate) fn signal(
        &self,
        signal: i32,
        key: usize,
        token: usize,
        sink: Sink,
        retain: Retain,
    ) -> std::io::Result<OperationId> {
        self.check().map_err(std::io::Error::from_raw_os_error)?;
        if signal_hook_registry::FORBIDDEN.contains(&signal) || signal <= 0 {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("signal {signal} cannot be caught; use SIGINT, SIGTERM, SIGHUP or the like"),
            ));
        }
        let signals = &self.driver().signals;
        let mut sources = signals.sources.lock();
        if sources.closed {
            return Err(std::io::Error::from_raw_os_error(super::EBADF));
        }
        let count = Arc::new(AtomicU32::new(0));
        let (counter, pending) = (count.clone(), signals.pending.clone());
        let selector = self.engine().selector.clone();
        let home = self.driver().home;
        // SAFETY: the action reads and adds to atomics, asks for the process's number and writes to an event
        // descriptor, all of which is async-signal-safe; it neither allocates, locks nor panics.
        let hook = unsafe {
            signal_hook_registry::register(signal, move || {
                // A forked child has the action too, and the descriptor in it is the parent's.
                if !home.is_here() {
                    return;
                }
                counter.fetch_add(1, Ordering::AcqRel);
                pending.store(true, Ordering::Release);
                selector.kick();
            })
        }?;
        sources.last_serial += 2;
        let serial = sources.last_serial + 1;
        sources.list.push(Source { serial, signal, count, hook, operation: Repeating { key, token, sink, retain } });
        Ok(self.repeating_id(serial))
    }

    /// Takes a signal out: its last packet.
    pub(super) fn end_signal(&self, serial: u64) -> Option<(Sink, Completion)> {
        let removed = {
            let mut sources = self.driver().signals.sources.lock();
            let at = sources.list.iter().position(|source| source.serial == serial);
            at.map(|at| sources.list.remove(at))
        };
        removed.map(Source::end)
    }

    pub(super) fn end_signals(&self) {
        for (sink, completion) in self.driver().signals.close() {
            self.deliver(sink, completion);
        }
    }
}
