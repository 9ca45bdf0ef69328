//! What a process has used so far: processor time to the nanosecond, by its clock; and by `/proc` how often its threads
//! were switched away and how often they began to run, and resident memory.

use std::fs::{read_dir, read_to_string};

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// User and system, of threads that have ended, too.
    pub cpu_nanos: u64,
    /// Of the threads that there are.
    pub switches: u64,
    /// How often a thread began to run: woken, or after another one.
    pub wakeups: u64,
}

impl Usage {
    pub fn of(process: u32) -> Usage {
        let mut total = Usage { cpu_nanos: cpu_nanos(process), ..Usage::default() };
        for task in read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten() {
            let read = |file: &str| read_to_string(task.path().join(file)).unwrap_or_default();
            total.add(&read("schedstat"), &read("status"));
        }
        total
    }

    pub fn own() -> Usage {
        Usage::of(std::process::id())
    }

    fn add(&mut self, schedstat: &str, status: &str) {
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse::<u64>().ok()).unwrap_or(0);
        // Nanoseconds on a processor, nanoseconds waiting for one, times on a processor.
        self.wakeups += number(schedstat.split_whitespace().nth(2));
        for line in status.lines().filter(|line| line.contains("ctxt_switches")) {
            self.switches += number(line.rsplit('\t').next());
        }
    }

    pub fn since(self, before: Usage) -> Usage {
        // A thread that has ended takes its switches with it.
        Usage {
            cpu_nanos: self.cpu_nanos.saturating_sub(before.cpu_nanos),
            switches: self.switches.saturating_sub(before.switches),
            wakeups: self.wakeups.saturating_sub(before.wakeups),
        }
    }

    pub fn cpu_us(self) -> f64 {
        self.cpu_nanos as f64 / 1000.0
    }
}

/// The clock of a process that runs; 0 of one that does not.
#[allow(unsafe_code)]
fn cpu_nanos(process: u32) -> u64 {
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: plain numbers, which the system writes into places of our own.
    let found = unsafe {
        libc::clock_getcpuclockid(process.cast_signed(), &raw mut clock) == 0
            && libc::clock_gettime(clock, &raw mut time) == 0
    };
    if found { time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs() } else { 0 }
}

/// Of a process, in bytes.
pub fn resident_bytes(process: u32) -> Option<f64> {
    let status = read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().trim_end_matches(" kB").trim().parse::<f64>().ok()? * 1024.0)
}

/// Context switches of our own threads, those that have ended among them.
pub fn own_switches() -> u64 {
    let usage = rusage(libc::RUSAGE_SELF);
    (usage.ru_nvcsw + usage.ru_nivcsw).unsigned_abs()
}

/// The processor time of the children that have ended.
pub fn children_cpu_us() -> f64 {
    let usage = rusage(libc::RUSAGE_CHILDREN);
    let us = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    us(usage.ru_utime) + us(usage.ru_stime)
}

#[allow(unsafe_code)]
fn rusage(who: libc::c_int) -> libc::rusage {
    // SAFETY: plain data, for which zeros are valid; and the system writes into a place of our own.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(who, &raw mut usage);
        usage
    }
}

/// The threads of a process.
pub fn threads(process: u32) -> Vec<i32> {
    let tasks = read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::thread_cpu_us;

    #[test]
    fn the_systems_files_are_read_as_they_are() {
        let mut usage = Usage::default();
        usage.add("1500 99 7\n", "Name:\tx\nvoluntary_ctxt_switches:\t4\nnonvoluntary_ctxt_switches:\t2\n");
        usage.add("500 1 3\n", "");
        assert_eq!((usage.wakeups, usage.switches), (10, 6));
        assert_eq!(Usage::default().since(usage).wakeups, 0);
    }

    #[test]
    fn our_own_process_has_used_something() {
        let before = Usage::own();
        let used = std::thread::spawn(|| {
            let before = thread_cpu_us();
            while thread_cpu_us() - before < 5000.0 {}
            thread_cpu_us() - before
        });
        let used = used.join().unwrap();
        assert!(Usage::own().since(before).cpu_us() >= used, "a thread that has ended counts");
        assert_eq!(Usage::of(5_000_000).cpu_nanos, 0, "above the highest number of a process");
        assert!(resident_bytes(std::process::id()).unwrap() > 100_000.0);
        assert!(!threads(std::process::id()).is_empty());
        let before = own_switches();
        std::thread::spawn(|| std::thread::sleep(std::time::Duration::from_millis(1))).join().unwrap();
        assert!(own_switches() > before, "a thread that has ended counts");
    }
}
