//! A child is named by a descriptor, which is readable when it has ended.

use crate::port::associate::{Associate, Outcome, Route, Shared, adopt, device};
use crate::port::refused::{Refused, Rejected};
use crate::port::{Context, Key};
use crate::raw::{DeviceKind, Sink};
use crate::sys;
use rustix::fd::OwnedFd;
use rustix::process::Signal;
use std::io;
use std::sync::Arc;

/// A child process of a port. Clones name the same one.
///
/// Made from a [`std::process::Child`], whose pipes are to be taken out before (they can be associated, too). The
/// process is named by a descriptor, so its number may be used again without harm. A child that nobody waits for stays
/// in the system's table until this process ends, as with std.
///
/// ```
/// use wharf::{CompletionPort, Event};
/// let port = CompletionPort::<(), ()>::new()?;
/// let child = port.associate(std::process::Command::new("true").spawn()?, ())?;
/// child.wait(())?;
/// let Event::Exited { result, .. } = port.get()?.event else { panic!("nothing else was issued") };
/// assert!(result?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Child<K, C>(pub(crate) Arc<Shared<K, C>>);

device!(Child);

impl<K: Key, C: Context> Associate<K, C> for std::process::Child {
    type Device = Child<K, C>;

    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Child<K, C>, Rejected<Self, K>> {
        match sys::child(self.id()) {
            Ok(fd) => match adopt::<K, C, OwnedFd>(route, fd, DeviceKind::Handle, key) {
                Ok(shared) => Ok(Child(shared)),
                Err(rejected) => Err(Rejected { error: rejected.error, source: self, key: rejected.key }),
            },
            Err(error) => Err(Rejected { error, source: self, key }),
        }
    }
}

impl<K: Key, C: Context> Child<K, C> {
    /// Issues a wait for its end: the packet is [`Event::Exited`](crate::Event::Exited). The status is told once; a
    /// later wait fails with `ECHILD`.
    pub fn wait(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| shared.port.wait_child(&shared.device, token, Sink::Port))
    }

    /// Sends it a signal, [`SIGTERM`](crate::signal::SIGTERM) say.
    ///
    /// # Errors
    ///
    /// It has ended, or there is no such signal.
    pub fn signal(&self, number: i32) -> io::Result<()> {
        let signal = Signal::from_named_raw(number).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidInput, format!("{number} is no signal's number; SIGTERM is 15"))
        })?;
        self.0.with_fd(|fd| Ok(sys::signal(fd, signal)?))
    }
}
