//! What is not of the network: Unix sockets, pipes, the standard input, and whatever else has a descriptor to wait for.
//!
//! All of them are [`Stream`]s, so a handler need not know which it has. What a kind does not offer (the address of a
//! pipe) fails with the system's error.

use super::super::{Datagrams, Listener, Stream, adopt_socket};
use crate::port::associate::{Associate, Route, adopt};
use crate::port::refused::Rejected;
use crate::port::{Context, Key};
use crate::raw::DeviceKind;
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::io::{self, PipeReader, PipeWriter};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::process::{ChildStderr, ChildStdin, ChildStdout};

impl<K: Key, C: Context> Associate<K, C> for UnixStream {
    type Device = Stream<K, C>;

    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Stream<K, C>, Rejected<Self, K>> {
        adopt_socket(route, self, DeviceKind::Stream, key).map(Stream)
    }

    fn associate_accepted(self, route: &Route<'_, K, C>, key: K) -> Result<Stream<K, C>, Rejected<Self, K>> {
        adopt(route, self, DeviceKind::Stream, key).map(Stream)
    }
}

impl<K: Key, C: Context> Associate<K, C> for UnixListener {
    type Device = Listener<K, C>;

    /// Its accepts bring [`Event::AcceptedLocal`](crate::Event::AcceptedLocal).
    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Listener<K, C>, Rejected<Self, K>> {
        let shared = adopt_socket(route, self, DeviceKind::Listener, key)?;
        shared.device.0.mark_local();
        Ok(Listener(shared))
    }
}

impl<K: Key, C: Context> Associate<K, C> for UnixDatagram {
    type Device = Datagrams<K, C>;

    /// Datagrams without internet addresses: `from` is `None`, and what is sent goes to the connected peer.
    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Datagrams<K, C>, Rejected<Self, K>> {
        adopt_socket(route, self, DeviceKind::Datagram, key).map(Datagrams)
    }
}

macro_rules! handles {
    ($($source:ty),*) => {$(
        impl<K: Key, C: Context> Associate<K, C> for $source {
            type Device = Stream<K, C>;

            fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Stream<K, C>, Rejected<Self, K>> {
                match can_be_waited_for(self.as_fd()) {
                    Ok(()) => adopt_socket(route, self, DeviceKind::Handle, key).map(Stream),
                    Err(error) => Err(Rejected { error, source: self, key }),
                }
            }
        }
    )*};
}

// `OwnedFd` is for what has no type of its own: an event descriptor, a terminal, a signalfd.
handles!(OwnedFd, PipeReader, PipeWriter, ChildStdin, ChildStdout, ChildStderr);

fn can_be_waited_for(fd: BorrowedFd<'_>) -> io::Result<()> {
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    if kind.is_file() || kind.is_dir() || kind.is_block_device() {
        let what = "a file is always ready: associate it as std::fs::File, for reads and writes at offsets";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    if kind.is_socket() {
        let what = "a socket is associated as what it is: std's TcpStream, UnixStream, UdpSocket";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    Ok(())
}

/// The standard input as a descriptor of its own: non-blocking mode belongs to what several processes share.
pub(crate) fn standard_input() -> io::Result<OwnedFd> {
    let input = std::io::stdin();
    can_be_waited_for(input.as_fd())?;
    crate::sys::standard_input()
}
