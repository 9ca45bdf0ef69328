//! Functions of the program's own in the port's queue.

use crate::raw::{self, Ran};
use std::fmt;

/// A function that was not queued, because the port is closed: see [`CompletionPort::run`](super::CompletionPort::run).
pub struct NotRun<F> {
    /// As it was given.
    pub function: F,
}

impl<F> fmt::Debug for NotRun<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotRun").finish_non_exhaustive()
    }
}

impl<F> fmt::Display for NotRun<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the port is closed")
    }
}

impl<F> std::error::Error for NotRun<F> {}

/// Queues a function. A closed port gives it back.
pub(super) fn run<F: FnOnce() + Send + 'static>(port: &raw::Port, function: F) -> Result<(), NotRun<F>> {
    let boxed = Box::into_raw(Box::new(function)).expose_provenance();
    port.run(call::<F>, boxed).map_err(|boxed| NotRun { function: *unboxed(boxed) })
}

fn call<F: FnOnce()>(boxed: usize, ran: Ran) {
    let function = unboxed::<F>(boxed);
    match ran {
        Ran::Worker => function(),
        Ran::Closed => drop(function),
    }
}

#[allow(unsafe_code)]
fn unboxed<F>(boxed: usize) -> Box<F> {
    // SAFETY: `run` has made the number of a box with an F, for a call with the same F. The port calls it once, or
    // gives the number back and does not call it.
    unsafe { Box::from_raw(std::ptr::with_exposed_provenance_mut(boxed)) }
}
