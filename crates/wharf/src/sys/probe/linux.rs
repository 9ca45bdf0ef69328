//! Linux: `/proc`, or the thread's processor clock.

use super::ThreadState;
use std::fs::File;
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// One thread, seen by the others.
#[derive(Debug)]
pub(crate) struct Probe {
    thread: i32,
    stat: OnceLock<Option<File>>,
    processor_ns: AtomicU64,
}

impl Probe {
    /// The calling thread.
    pub(crate) fn current() -> Probe {
        let thread = rustix::thread::gettid().as_raw_nonzero().get();
        Probe { thread, stat: OnceLock::new(), processor_ns: AtomicU64::new(0) }
    }

    pub(crate) fn thread(&self) -> i32 {
        self.thread
    }

    pub(crate) fn look(&self) -> ThreadState {
        let stat = self.stat.get_or_init(|| File::open(format!("/proc/self/task/{}/stat", self.thread)).ok());
        let Some(stat) = stat else { return self.look_at_the_clock() };
        let mut text = [0u8; 128];
        match stat.read_at(&mut text, 0) {
            Ok(length) => match state_letter(&text[..length]) {
                // `t`: a debugger or strace holds it for a moment; what it does is not blocking.
                Some(b'R' | b't') => ThreadState::Running,
                Some(b'Z' | b'X') => ThreadState::Gone,
                Some(_) => ThreadState::Blocked,
                None => self.look_at_the_clock(),
            },
            // ESRCH: the thread is gone.
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) || error.kind() == ErrorKind::NotFound => {
                ThreadState::Gone
            }
            Err(_) => self.look_at_the_clock(),
        }
    }

    /// In which kernel function the thread sleeps, for people: `futex_wait_queue`, `do_nanosleep` and so on.
    pub(crate) fn sleeps_in(&self) -> Option<String> {
        let name = std::fs::read_to_string(format!("/proc/self/task/{}/wchan", self.thread)).ok()?;
        (name != "0" && !name.is_empty()).then_some(name)
    }

    #[allow(unsafe_code)]
    fn look_at_the_clock(&self) -> ThreadState {
        // The id of another thread's processor clock: see `CPUCLOCK_PERTHREAD_MASK` in the kernel's
        // posix-timers.h. libc offers it through a pthread_t only, which may be dead.
        let clock = (!self.thread << 3) | 6;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` is a valid timespec for the kernel to write; a bad clock id gives EINVAL.
        if unsafe { libc::clock_gettime(clock, &raw mut time) } != 0 {
            return ThreadState::Gone;
        }
        let now = u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0);
        if self.processor_ns.swap(now, Ordering::Relaxed) == now { ThreadState::Blocked } else { ThreadState::Running }
    }
}

/// The third field of `stat`; the second, the thread's name in brackets, may itself hold brackets and spaces.
fn state_letter(stat: &[u8]) -> Option<u8> {
    let name_end = stat.iter().rposition(|&byte| byte == b')')?;
    stat.get(name_end + 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn the_state_letter_is_found_behind_any_name() {
        assert_eq!(state_letter(b"12 (a) R) S 1 2"), Some(b'S'));
        assert_eq!(state_letter(b"12 (worker) D 1"), Some(b'D'));
        assert_eq!(state_letter(b"12"), None);
    }

    #[test]
    fn a_sleeping_thread_is_blocked_a_spinning_one_runs_an_ended_one_is_gone() {
        let (tell, told) = mpsc::channel();
        let (go, gone) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(Probe::current()).unwrap();
            let _ = gone.recv();
        });
        let sleeper = told.recv().unwrap();
        while sleeper.look() != ThreadState::Blocked {
            std::thread::yield_now();
        }
        assert_eq!(Probe::current().look(), ThreadState::Running);
        drop(go);
        thread.join().unwrap();
        while sleeper.look() != ThreadState::Gone {
            std::thread::yield_now();
        }
    }
}
