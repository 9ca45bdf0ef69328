//! What is not of the network does not complete into a port on Windows: pipes that a program inherits and the console
//! were not opened for overlapped use, and cannot be opened anew. Association says so.

use super::super::Stream;
use crate::port::associate::{Associate, Route};
use crate::port::refused::Rejected;
use crate::port::{Context, Key};
use std::io::{self, PipeReader, PipeWriter};
use std::os::windows::io::OwnedHandle;
use std::process::{ChildStderr, ChildStdin, ChildStdout};

const REMEDY: &str = "on Windows a pipe or a console was not opened for overlapped use and cannot complete into a port: read \
    and write it in a thread of its own, which posts what it gets";

fn unsupported() -> io::Error {
    io::Error::new(io::ErrorKind::Unsupported, REMEDY)
}

macro_rules! handles {
    ($($source:ty),*) => {$(
        impl<K: Key, C: Context> Associate<K, C> for $source {
            type Device = Stream<K, C>;

            fn associate(self, _: &Route<'_, K, C>, key: K) -> Result<Stream<K, C>, Rejected<Self, K>> {
                Err(Rejected { error: unsupported(), source: self, key })
            }
        }
    )*};
}
handles!(OwnedHandle, PipeReader, PipeWriter, ChildStdin, ChildStdout, ChildStderr);

/// The standard input, which cannot be had.
pub(crate) fn standard_input() -> io::Result<OwnedHandle> {
    Err(unsupported())
}
