//! Is a worker that has been outside `get` for a while blocked, or computing?
//!
//! The kernel tells nobody that a thread blocks, so the queue looks: when the watchdog timer went off, or just before,
//! in passing. Reading `/proc/self/task/TID/stat` costs about 3 us. A thread that lost the processor to another shows
//! `R` and keeps its slot; one that sleeps, waits for the disk or is stopped gives it up (rows C-08, C-13). Where
//! `/proc` is not mounted the thread's processor clock stands in for it: no progress between two looks counts as
//! blocked.

/// What a look at a thread showed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadState {
    Running,
    Blocked,
    Gone,
}

#[cfg(all(not(any(target_os = "linux", target_os = "android")), not(loom)))]
mod kqueue;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(loom)))]
mod linux;
#[cfg(loom)]
mod model;

#[cfg(all(not(any(target_os = "linux", target_os = "android")), not(loom)))]
pub(crate) use kqueue::Probe;
#[cfg(all(any(target_os = "linux", target_os = "android"), not(loom)))]
pub(crate) use linux::Probe;
#[cfg(loom)]
pub(crate) use model::Probe;
#[cfg(all(test, loom))]
pub(crate) use model::compute;
