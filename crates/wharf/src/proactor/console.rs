//! Signals as packets: what Windows tells a program of its console, under the numbers that C gives it there.
//!
//! `SIGINT` (2) is Ctrl+C, `SIGBREAK` (21) Ctrl+Break, and `SIGTERM` (15) the end of the console, the session or the
//! system. The system tells by a thread of its own. Handlers that the program had before are not called for what a port
//! has asked for. After the last kind the system ends the process as soon as that thread returns, so it stays, for the
//! few seconds that the system gives: the program ends by itself.

use super::port::Port;
use crate::op::{Completion, Kind, OperationId, Repeating, Retain, Sink};
use crate::sync::Lock;
use crate::sys::calls::Completions;
use crate::sys::signals::{SIGBREAK, SIGINT, SIGTERM};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Once, Weak};
use windows_sys::Win32::System::Console as console;

/// What the system gives a program to end by itself.
const ENDING: std::time::Duration = std::time::Duration::from_secs(20);

/// Who is to be told, of all ports of the process.
static TOLD: Lock<Vec<Weak<Hook>>> = Lock::new(Vec::new());

/// A registration, as the system's thread sees it.
#[derive(Debug)]
struct Hook {
    signal: i32,
    count: AtomicU32,
    completions: Arc<Completions>,
    serial: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Signals {
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
    hook: Arc<Hook>,
    operation: Repeating,
}

#[allow(unsafe_code)]
unsafe extern "system" fn told(event: u32) -> i32 {
    let signal = match event {
        console::CTRL_C_EVENT => SIGINT,
        console::CTRL_BREAK_EVENT => SIGBREAK,
        _ => SIGTERM,
    };
    let hooks = TOLD.lock();
    let mut anybody = false;
    for hook in hooks.iter().filter_map(Weak::upgrade).filter(|hook| hook.signal == signal) {
        anybody = true;
        // Those that come before the packet is taken are one with it, as POSIX merges them.
        if hook.count.fetch_add(1, Ordering::AcqRel) == 0 {
            hook.completions.post(0, super::queue::key::TICK, hook.serial as usize);
        }
    }
    drop(hooks);
    if anybody && signal == SIGTERM {
        std::thread::sleep(ENDING);
    }
    i32::from(anybody)
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
        static HANDLER: Once = Once::new();
        self.check().map_err(std::io::Error::from_raw_os_error)?;
        if !matches!(signal, SIGINT | SIGTERM | SIGBREAK) {
            return Err(std::io::Error::new(
                std::io::ErrorKind::InvalidInput,
                format!("Windows does not tell of signal {signal}; use SIGINT (2), SIGTERM (15) or SIGBREAK (21)"),
            ));
        }
        HANDLER.call_once(|| {
            // SAFETY: the function may be called by any thread at any time: it takes a lock that nobody holds for long.
            if unsafe { console::SetConsoleCtrlHandler(Some(told), 1) } == 0 {
                log::warn!("Ctrl+C cannot be handled: {}", std::io::Error::last_os_error());
            }
        });
        let mut sources = self.driver().signals.sources.lock();
        if sources.closed {
            return Err(std::io::Error::from_raw_os_error(crate::sys::errno::EBADF));
        }
        sources.last_serial += 2;
        let serial = sources.last_serial + 1;
        let completions = self.queue.completions.clone();
        let hook = Arc::new(Hook { signal, count: AtomicU32::new(0), completions, serial });
        {
            let mut told = TOLD.lock();
            told.retain(|hook| hook.strong_count() > 0);
            told.push(Arc::downgrade(&hook));
        }
        sources.list.push(Source { hook, operation: Repeating { key, token, sink, retain } });
        Ok(self.repeating_id(serial))
    }

    /// The packet of a signal is handed out.
    pub(super) fn signal_taken(&self, serial: u64) -> Option<Completion> {
        let (sink, completion) = {
            let sources = self.driver().signals.sources.lock();
            let source = sources.list.iter().find(|source| source.hook.serial == serial)?;
            source.hook.count.store(0, Ordering::Release);
            let number = usize::try_from(source.hook.signal).unwrap_or(0);
            (source.operation.sink.clone(), source.operation.packet(Kind::Signal, number, true))
        };
        self.hand_out(sink, completion)
    }

    /// Takes a signal out: its last packet.
    pub(super) fn end_signal(&self, serial: u64) -> Option<(Sink, Completion)> {
        let mut sources = self.driver().signals.sources.lock();
        let at = sources.list.iter().position(|source| source.hook.serial == serial)?;
        Some(sources.list.remove(at).operation.ended(Kind::Signal))
    }

    pub(super) fn end_signals(&self) {
        let sources = {
            let mut sources = self.driver().signals.sources.lock();
            sources.closed = true;
            std::mem::take(&mut sources.list)
        };
        for source in sources {
            let (sink, completion) = source.operation.ended(Kind::Signal);
            self.deliver(sink, completion);
        }
    }
}
