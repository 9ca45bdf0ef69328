//! Sending a file on a stream, with bytes before and behind it: what `TransmitFile` does.

use super::Stream;
use crate::op::buffer::Buffer;
use crate::port::associate::Outcome;
use crate::port::record::Memory;
use crate::port::refused::Refused;
use crate::port::{Context, Key};
use crate::raw::{Part, Sink};
use std::io;
use std::sync::Arc;

/// What [`Stream::send_file`] sends: a head, a part of a file, and a tail, as one run of bytes.
///
/// The file needs no port. Its position is neither used nor changed.
#[derive(Debug)]
pub struct FileMessage {
    /// Sent first; may be empty.
    pub head: Buffer,
    /// The file, open for reading.
    pub file: Arc<std::fs::File>,
    /// Where the part begins.
    pub offset: u64,
    /// How many bytes it has; `None`: up to the end of the file as it is when the send is issued. A file that tells no
    /// size, or more than it has, as those of `/proc` and `/sys` do, is sent up to the end that reading finds (not on
    /// Windows).
    pub length: Option<u64>,
    /// Sent last; may be empty.
    pub tail: Buffer,
}

impl FileMessage {
    /// A whole file.
    pub fn new(file: impl Into<Arc<std::fs::File>>) -> FileMessage {
        FileMessage { head: Buffer::default(), file: file.into(), offset: 0, length: None, tail: Buffer::default() }
    }

    fn parts(&self) -> io::Result<Vec<Part>> {
        let (handle, offset) = (crate::sys::of_file(&self.file), self.offset);
        let file = match self.length {
            Some(length) => Part::File { handle, offset, length },
            None => Part::FileToEnd { handle, offset, told: self.told_behind_offset()? },
        };
        Ok(vec![Part::Memory(self.head.content()), file, Part::Memory(self.tail.content())])
    }

    /// How many bytes the file is told to have behind the offset.
    fn told_behind_offset(&self) -> io::Result<u64> {
        let end = self.file.metadata()?.len();
        end.checked_sub(self.offset).ok_or_else(|| {
            let why = format!("the offset {} lies behind the end of the file, {end}", self.offset);
            io::Error::new(io::ErrorKind::InvalidInput, why)
        })
    }
}

impl<K: Key, C: Context> Stream<K, C> {
    /// Issues a send of a file's bytes, with a head and a tail. Its packet is
    /// [`Event::SentFile`](crate::Event::SentFile) when the system has taken all of them. The bytes go from the
    /// system's cache to the socket without passing through the program; what the cache does not hold is fetched by the
    /// port's internal engine, and no worker waits for the disk meanwhile.
    ///
    /// # Ordering, cancellation
    ///
    /// As for [`send`](Stream::send). While something is being fetched a cancelled send ends when it has come.
    ///
    /// # Errors
    ///
    /// Refused at once, with everything given back, as `send` is, and when the offset lies behind the end of the file.
    /// In the packet: a file that is shorter than `length`, because it was truncated meanwhile, say, is
    /// [`UnexpectedEof`](io::ErrorKind::UnexpectedEof); the peer has got what there was of it, and no tail, so the
    /// connection is usually of no use any more. What the file cannot do (it is a directory, it is not open for
    /// reading) is the system's error.
    #[doc(alias = "TransmitFile")]
    #[doc(alias = "sendfile")]
    pub fn send_file(&self, message: FileMessage, context: C) -> Result<Outcome<K, C>, Refused<C, FileMessage>> {
        let shared = &self.0;
        let parts = match message.parts() {
            Ok(parts) => parts,
            Err(error) => return Err(Refused { error, context, buffer: message }),
        };
        shared
            .issue(context, Memory::File(Box::new(message)), |_, token| {
                #[allow(unsafe_code)]
                // SAFETY: head, tail and file lie in the record, which nobody touches until the completion takes it
                // back; a buffer's bytes do not move with it.
                unsafe {
                    shared.port.send_parts(&shared.device, parts, token, Sink::Port)
                }
            })
            .map_err(|(error, context, memory)| match memory {
                Memory::File(message) => Refused { error, context, buffer: *message },
                _ => unreachable!("given just above"),
            })
    }
}
