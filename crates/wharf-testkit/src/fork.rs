//! Calls in a forked child, while the parent's threads take every lock that they find.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

/// A call in the child that takes longer hangs.
pub const CALL_SECONDS_MAX: u32 = 20;
/// Forks for each call: another thread holds some lock in one of them, or in none.
pub const FORKS: usize = 4;

/// What the child ends with.
const AS_IT_SHOULD: i32 = 0;
const OTHERWISE: i32 = 1;
const PANICKED: i32 = 101;

/// Runs `call` in a forked child and waits for its end.
///
/// # Panics
///
/// When the call is not true there, panics, or hangs.
#[track_caller]
#[allow(unsafe_code)]
pub fn in_fork(what: &str, call: impl FnOnce() -> bool) {
    // SAFETY: the child calls the library, which is to get on without the parent's threads, and what the C library
    // keeps usable after fork (memory, descriptors). It leaves by _exit.
    let child = match unsafe { libc::fork() } {
        0 => {
            // SAFETY: sets the process's timer, whose signal ends it.
            unsafe { libc::alarm(CALL_SECONDS_MAX) };
            let code = match catch_unwind(AssertUnwindSafe(call)) {
                Ok(true) => AS_IT_SHOULD,
                Ok(false) => OTHERWISE,
                Err(_) => PANICKED,
            };
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        child => child,
    };
    let mut status = 0;
    // SAFETY: `status` is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert!(!libc::WIFSIGNALED(status), "{what}: hangs in a forked child (signal {})", libc::WTERMSIG(status));
    match libc::WEXITSTATUS(status) {
        AS_IT_SHOULD => {}
        OTHERWISE => panic!("{what}: a forked child's call did otherwise than fail"),
        code => panic!("{what}: a forked child's call panicked ({code})"),
    }
}

/// A call and its name.
pub type Call<'a> = (&'static str, Box<dyn Fn() -> bool + 'a>);

/// Names a call, which is true if the child gets from it what it should.
pub fn call<'a>(what: &'static str, call: impl Fn() -> bool + 'a) -> Call<'a> {
    (what, Box::new(call))
}

/// Threads that take a port's locks, one after the other, until it is dropped.
pub struct Hammer {
    stop: Arc<AtomicBool>,
    threads: Vec<thread::JoinHandle<()>>,
}

impl Hammer {
    /// Starts a thread for each.
    pub fn start(blows: Vec<Box<dyn FnMut() + Send>>) -> Hammer {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = blows.into_iter().map(|mut blow| {
            let stop = stop.clone();
            thread::spawn(move || {
                while !stop.load(SeqCst) {
                    blow();
                    // The ledger has a limit.
                    thread::sleep(Duration::from_micros(20));
                }
            })
        });
        Hammer { threads: threads.collect(), stop }
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}
