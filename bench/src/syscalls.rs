//! System calls of a process, counted by the kernel's tracepoint where it has one and lets us (as root, mostly).
//! Counting costs the process something, so it is done in a slice of its own, which is not measured otherwise.

use crate::usage::threads;
use perf_event::events::Tracepoint;
use perf_event::{Builder, Counter};
use std::io;

/// Counts from now on.
pub struct Syscalls {
    counters: Vec<Counter>,
}

/// Where the kernel's trace events are: by itself, or, as once, below its debugging files.
const EVENTS: [&str; 2] = ["/sys/kernel/tracing/events", "/sys/kernel/debug/tracing/events"];

fn tracepoint() -> io::Result<Tracepoint> {
    let read = |events: &&str| std::fs::read_to_string(format!("{events}/raw_syscalls/sys_enter/id")).ok();
    let id = EVENTS.iter().find_map(read).and_then(|text| text.trim().parse().ok());
    id.map(Tracepoint::with_id)
        .ok_or_else(|| io::Error::other(format!("{} cannot be read (root may; tracefs has to be mounted)", EVENTS[0])))
}

impl Syscalls {
    /// Of a process with the threads that it has now.
    pub fn of(process: u32) -> io::Result<Syscalls> {
        let tracepoint = tracepoint()?;
        let counters = threads(process)
            .into_iter()
            .map(|thread| {
                let mut counter = Builder::new(tracepoint).observe_pid(thread).any_cpu().include_kernel().build()?;
                counter.enable()?;
                Ok(counter)
            })
            .collect::<io::Result<_>>()?;
        Ok(Syscalls { counters })
    }

    pub fn count(&mut self) -> io::Result<u64> {
        self.counters.iter_mut().map(Counter::read).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_counted_where_the_kernel_lets_us() {
        let calls = || (0..1000).for_each(|_| _ = std::hint::black_box(rustix::process::getppid()));
        match Syscalls::of(std::process::id()) {
            Ok(mut counter) => {
                calls();
                let count = counter.count().unwrap();
                assert!(count >= 1000, "{count}");
            }
            // Then the error says what to do.
            Err(error) => eprintln!("not counted here: {error}"),
        }
    }
}
