//! Files that complete into a port.
//!
//! ```
//! use wharf::{Buffer, CompletionPort, Event};
//! # let path = std::env::temp_dir().join(format!("wharf-fs-{}", std::process::id()));
//! let port = CompletionPort::<(), &str>::new()?;
//! let mut options = std::fs::OpenOptions::new();
//! let file = port.open(&path, options.read(true).write(true).create(true), ())?;
//! file.write_at("hello", 0, "first")?;
//! let Event::Written { file, result: Ok(5), .. } = port.get()?.event else { panic!("not written") };
//! file.read_at(Buffer::with_capacity(4), 1, "second")?;
//! let Event::Read { buffer, .. } = port.get()?.event else { panic!("not read") };
//! assert_eq!(&buffer[..], b"ello");
//! # std::fs::remove_file(&path)?;
//! # Ok::<(), std::io::Error>(())
//! ```

use crate::op::buffer::Buffer;
use crate::port::associate::{Associate, Outcome, Route, Shared, adopt, device};
use crate::port::refused::{Refused, Rejected};
use crate::port::{Context, Key};
use crate::raw::{self, DeviceKind, Sink};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A regular file or block device of a port. Clones name the same device.
///
/// Reads and writes name their offset; there is no file position. Any number may be outstanding, and they complete in
/// any order; what overlapping ones leave is not defined (row F-08). What the cache holds is read inside the issuing
/// call; for the rest nobody but an internal thread waits.
///
/// It is closed by [`close`](File::close) or when its last handle is dropped; an outstanding operation holds a handle.
/// Closing does not write to the disk: see [`sync`](File::sync).
pub struct File<K, C>(pub(crate) Arc<Shared<K, C>>);

device!(File);

impl<K: Key, C: Context> Associate<K, C> for std::fs::File {
    type Device = File<K, C>;

    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<File<K, C>, Rejected<Self, K>> {
        // Here for the sake of the words; the raw layer has only a number for it.
        if let Err(error) = raw::file_traits(crate::sys::of_file(&self)) {
            return Err(Rejected { error, source: self, key });
        }
        match crate::sys::for_overlapped(self) {
            Ok(file) => adopt(route, file, DeviceKind::File, key).map(File),
            Err((error, source)) => Err(Rejected { error, source, key }),
        }
    }
}

/// See [`CompletionPort::open`](crate::CompletionPort::open).
pub(crate) fn open<K: Key, C: Context>(
    route: &Route<'_, K, C>,
    path: &Path,
    options: &std::fs::OpenOptions,
    key: K,
) -> io::Result<File<K, C>> {
    let file = crate::blocking(|| options.open(path))?;
    Ok(file.associate(route, key)?)
}

impl<K: Key, C: Context> File<K, C> {
    /// Issues a read into a buffer, from its start up to its capacity, of what is in the file from `offset` on. Its
    /// packet is [`Event::Read`](crate::Event::Read), with fewer bytes where the file ends, and with 0 at or behind its
    /// end.
    ///
    /// # Errors
    ///
    /// The buffer and the context come back, and no packet will come, when the file was not opened for reading, the
    /// offset is beyond what a file can have, the file or the port is closed, or the buffer is shared memory. With
    /// direct I/O, an offset, length or address that is not aligned comes as a packet (`EINVAL`).
    #[doc(alias = "ReadFile")]
    pub fn read_at(&self, buffer: impl Into<Buffer>, offset: u64, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        let shared = &self.0;
        shared.issue_into(buffer.into(), context, |into, token| {
            #[allow(unsafe_code)]
            // SAFETY: the buffer lies in the record, which nobody touches until the completion takes it back.
            unsafe {
                shared.port.read_file(&shared.device, into, offset, token, Sink::Port)
            }
        })
    }

    /// Issues a write of a buffer's bytes at `offset`. Its packet is [`Event::Written`](crate::Event::Written) when all
    /// of them are in the file: seen by every reader, not yet on the disk. A gap between the end of the file and
    /// `offset` reads as zeros.
    ///
    /// # Errors
    ///
    /// As [`read_at`](File::read_at), when it was not opened for writing. A full disk comes as a packet (`ENOSPC`).
    #[doc(alias = "WriteFile")]
    pub fn write_at(&self, buffer: impl Into<Buffer>, offset: u64, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        self.write(buffer.into(), Some(offset), context)
    }

    /// Issues a write behind the end of the file as it then is. Several writers do not overwrite each other (row F-05).
    pub fn append(&self, buffer: impl Into<Buffer>, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        self.write(buffer.into(), None, context)
    }

    fn write(&self, buffer: Buffer, offset: Option<u64>, context: C) -> Result<Outcome<K, C>, Refused<C>> {
        let shared = &self.0;
        shared.issue_from(buffer, context, |from, token| {
            #[allow(unsafe_code)]
            // SAFETY: as in `read_at`; the memory is only read.
            unsafe {
                shared.port.write_file(&shared.device, from, offset, token, Sink::Port)
            }
        })
    }

    /// Issues a sync: its packet ([`Event::Synced`](crate::Event::Synced)) comes when everything that was written
    /// before, and the file's metadata, is on the disk.
    #[doc(alias = "FlushFileBuffers")]
    pub fn sync(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| shared.port.sync_file(&shared.device, false, token, Sink::Port))
    }

    /// Like [`sync`](File::sync), with no more of the metadata than reading the data needs.
    pub fn sync_data(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| shared.port.sync_file(&shared.device, true, token, Sink::Port))
    }

    /// Waits until everything that was written before is on the disk: [`sync`](File::sync) as a plain call (row F-15),
    /// which queues nothing.
    #[doc(alias = "FlushFileBuffers")]
    pub fn flush(&self) -> io::Result<()> {
        self.0.with_file(|file| crate::blocking(|| file.sync_all()))
    }

    /// How long the file is. A plain call, as on Windows (row F-15): it queues nothing.
    pub fn len(&self) -> io::Result<u64> {
        self.0.with_file(|file| Ok(file.metadata()?.len()))
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file off, or lengthens it with zeros. A plain call (row F-15), which may wait for the disk.
    #[doc(alias = "SetEndOfFile")]
    pub fn set_len(&self, length: u64) -> io::Result<()> {
        self.0.with_file(|file| crate::blocking(|| file.set_len(length)))
    }

    /// Takes the file out of the port again.
    ///
    /// # Errors
    ///
    /// Operations are outstanding, or it is closed.
    pub fn release(self) -> Result<std::fs::File, Rejected<Self, ()>> {
        let release = |(error, shared)| Rejected { error, source: File(shared), key: () };
        self.0.release().map(crate::sys::for_waiting).map_err(release)
    }
}
