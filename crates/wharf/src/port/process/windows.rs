//! A child is named by a handle, which the system waits for.

use crate::port::associate::{Associate, Outcome, Route, Shared, device, refusal};
use crate::port::refused::{Refused, Rejected};
use crate::port::{Context, Key};
use crate::raw::{self, Sink};
use crate::sys::Owned;
use crate::sys::signals::{SIGKILL, SIGTERM};
use std::io;
use std::os::windows::io::{AsHandle, OwnedHandle};
use std::sync::Arc;

/// A child process of a port. Clones name the same one.
///
/// Made from a [`std::process::Child`], whose pipes are to be taken out before. The process is named by a handle, so
/// its number may be used again without harm.
pub struct Child<K, C>(pub(crate) Arc<Shared<K, C>>);

device!(Child);

impl<K: Key, C: Context> Associate<K, C> for std::process::Child {
    type Device = Child<K, C>;

    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Child<K, C>, Rejected<Self, K>> {
        let handle = match self.as_handle().try_clone_to_owned() {
            Ok(own) => own.into_handle(),
            Err(error) => return Err(Rejected { error, source: self, key }),
        };
        match route.port.0.adopt_process(handle) {
            Ok(device) => Ok(Child(Shared::new(route, raw::Device(device), key))),
            Err(error) => {
                #[allow(unsafe_code)]
                // SAFETY: it was duplicated just above, and a refused adoption leaves it ours.
                drop(unsafe { OwnedHandle::from_handle(handle) });
                Err(Rejected { error: refusal(route.port, error), source: self, key })
            }
        }
    }
}

impl<K: Key, C: Context> Child<K, C> {
    /// Issues a wait for its end: the packet is [`Event::Exited`](crate::Event::Exited). Unlike elsewhere Windows tells
    /// the status as often as it is asked.
    pub fn wait(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| shared.port.wait_child(&shared.device, token, Sink::Port))
    }

    /// Ends it: Windows knows no signals, so [`SIGTERM`](crate::signal::SIGTERM) and
    /// [`SIGKILL`](crate::signal::SIGKILL) both terminate it, with exit code 1.
    ///
    /// # Errors
    ///
    /// It has ended, or it is another signal.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        if !matches!(number, SIGKILL | SIGTERM) {
            let what = format!("Windows cannot send signal {number}; SIGTERM and SIGKILL terminate the process");
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        self.0.port.0.terminate(&self.0.device.0)
    }
}
