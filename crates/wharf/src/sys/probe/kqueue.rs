//! The systems with kqueue: what the kernel of macOS says of a thread, or, elsewhere, the thread's processor clock.

use super::ThreadState;

/// One thread, seen by the others.
#[derive(Debug)]
pub(crate) struct Probe(told::Thread);

impl Probe {
    /// The calling thread.
    pub(crate) fn current() -> Probe {
        Probe(told::Thread::current())
    }

    pub(crate) fn thread(&self) -> i32 {
        self.0.number()
    }

    pub(crate) fn look(&self) -> ThreadState {
        self.0.look()
    }

    /// In which kernel function the thread sleeps: not told.
    pub(crate) fn sleeps_in(&self) -> Option<String> {
        None
    }
}

#[cfg(target_vendor = "apple")]
mod told {
    use super::ThreadState;

    /// A right to ask for the thread, which keeps its name from being used again.
    #[derive(Debug)]
    pub(super) struct Thread(libc::mach_port_t);

    impl Thread {
        #[allow(unsafe_code)]
        pub(super) fn current() -> Thread {
            // SAFETY: the calling thread is alive. The name is the C library's own, and is not given back by us.
            Thread(unsafe { libc::pthread_mach_thread_np(libc::pthread_self()) })
        }

        pub(super) fn number(&self) -> i32 {
            self.0.cast_signed()
        }

        #[allow(unsafe_code)]
        pub(super) fn look(&self) -> ThreadState {
            const WORD: usize = size_of::<libc::integer_t>();
            // SAFETY: zeros are a value of this plain structure; it is as large as said.
            let (failed, about) = unsafe {
                let mut about: libc::thread_basic_info = std::mem::zeroed();
                let mut words = (size_of_val(&about) / WORD) as libc::mach_msg_type_number_t;
                let flavor = libc::THREAD_BASIC_INFO as libc::thread_flavor_t;
                let failed = libc::thread_info(self.0, flavor, (&raw mut about).cast(), &raw mut words);
                (failed, about)
            };
            match about.run_state {
                _ if failed != libc::KERN_SUCCESS => ThreadState::Gone,
                libc::TH_STATE_RUNNING => ThreadState::Running,
                _ => ThreadState::Blocked,
            }
        }
    }
}

#[cfg(not(target_vendor = "apple"))]
mod told {
    use super::ThreadState;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[derive(Debug)]
    pub(super) struct Thread {
        number: i32,
        clock: libc::clockid_t,
        processor_ns: AtomicU64,
    }

    impl Thread {
        #[allow(unsafe_code)]
        pub(super) fn current() -> Thread {
            let mut clock = libc::CLOCK_MONOTONIC;
            // SAFETY: the calling thread is alive, and the clock's name is ours to be written.
            let number = unsafe {
                libc::pthread_getcpuclockid(libc::pthread_self(), &raw mut clock);
                libc::pthread_getthreadid_np()
            };
            Thread { number, clock, processor_ns: AtomicU64::new(0) }
        }

        pub(super) fn number(&self) -> i32 {
            self.number
        }

        /// No progress between two looks counts as blocked.
        #[allow(unsafe_code)]
        pub(super) fn look(&self) -> ThreadState {
            let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
            // SAFETY: the time is ours to be written; a clock whose thread is gone is an error.
            if unsafe { libc::clock_gettime(self.clock, &raw mut time) } != 0 {
                return ThreadState::Gone;
            }
            let whole = u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000;
            let now = whole + u64::try_from(time.tv_nsec).unwrap_or(0);
            if self.processor_ns.swap(now, Ordering::Relaxed) == now {
                ThreadState::Blocked
            } else {
                ThreadState::Running
            }
        }
    }
}
