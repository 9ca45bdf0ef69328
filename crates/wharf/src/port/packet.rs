//! What comes out of a port.

use crate::error::{Class, NtStatus};
use crate::op::buffer::Buffer;
use crate::port::fs::File;
use crate::port::net::{Datagrams, FileMessage, Listener, Stream};
use crate::port::process::Child;
use std::io;
use std::net::SocketAddr;
use std::process::ExitStatus;

/// One completed operation, or one post: taken from the queue by exactly one `get`.
#[derive(Debug)]
#[non_exhaustive]
pub struct Packet<K, C> {
    /// The key of the device it came from, or of the post.
    pub key: K,
    /// What was given along when the operation was issued.
    pub context: C,
    /// What happened.
    pub event: Event<K, C>,
}

/// What a packet reports. It carries the device, so that a handler can issue the next operation, and the buffer.
///
/// A failed operation's error keeps the system's number; [`ErrorExt`](crate::error::ErrorExt) names its NT and Winsock
/// counterparts, and tells the cancelled ones.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<K, C> {
    /// Posted by the program.
    Posted {
        /// The number that was posted.
        bytes: usize,
    },
    /// A listener took a connection.
    Accepted {
        /// The listener, for the next accept.
        listener: Listener<K, C>,
        /// The connection, which belongs to no port yet (associate it), and its other end. It is in non-blocking mode.
        result: io::Result<(std::net::TcpStream, SocketAddr)>,
    },
    /// A listener of the machine's own (a Unix socket) took a connection.
    AcceptedLocal {
        /// The listener, for the next accept.
        listener: Listener<K, C>,
        /// The connection, which belongs to no port yet, in non-blocking mode.
        result: io::Result<crate::sys::UnixStream>,
    },
    /// A child process has ended.
    Exited {
        /// The child.
        child: Child<K, C>,
        /// How it ended.
        result: io::Result<ExitStatus>,
    },
    /// A connection was made, or could not be made.
    Connected {
        /// The stream.
        stream: Stream<K, C>,
        /// How it ended. After a failure the stream may be connected again.
        result: io::Result<()>,
    },
    /// Bytes arrived; `Ok(0)` is the end of the stream.
    Received {
        /// The stream.
        stream: Stream<K, C>,
        /// The buffer, its length the number of bytes received; after a failure as it was given.
        buffer: Buffer,
        /// How many bytes.
        result: io::Result<usize>,
    },
    /// Data, or the end of the stream, is there to be received.
    Readable {
        /// The stream.
        stream: Stream<K, C>,
        /// Whether it is.
        result: io::Result<()>,
    },
    /// The system may take more of what is sent.
    Writable {
        /// The stream.
        stream: Stream<K, C>,
        /// An error when the connection broke.
        result: io::Result<()>,
    },
    /// The system took all bytes of a send, or the send failed.
    Sent {
        /// The stream.
        stream: Stream<K, C>,
        /// The buffer, as it was given.
        buffer: Buffer,
        /// How many bytes; in a failed send unknown to the peer's side, so not told.
        result: io::Result<usize>,
    },
    /// The system took all bytes of a vectored send, or the send failed.
    SentVectored {
        /// The stream.
        stream: Stream<K, C>,
        /// The buffers, as they were given.
        buffers: Vec<Buffer>,
        /// How many bytes in all.
        result: io::Result<usize>,
    },
    /// The system took all bytes of a head, a part of a file and a tail, or the send failed.
    SentFile {
        /// The stream.
        stream: Stream<K, C>,
        /// What was sent, as it was given.
        message: Box<FileMessage>,
        /// How many bytes in all. [`UnexpectedEof`](io::ErrorKind::UnexpectedEof): the file was shorter than that.
        result: io::Result<usize>,
    },
    /// A datagram arrived.
    ReceivedFrom {
        /// The socket.
        socket: Datagrams<K, C>,
        /// The buffer, its length the number of bytes received, also where it was too short (`EMSGSIZE`).
        buffer: Buffer,
        /// Who sent it; with [`report_refusals`](Datagrams::report_refusals), who refused a datagram. `None` when the
        /// receive failed otherwise.
        from: Option<SocketAddr>,
        /// With receive offload: the buffer holds several datagrams of this number of bytes, the last perhaps shorter.
        /// 0: one.
        segment_bytes: usize,
        /// How many bytes. 0 is an empty datagram.
        result: io::Result<usize>,
    },
    /// The system took a datagram, or did not.
    SentTo {
        /// The socket.
        socket: Datagrams<K, C>,
        /// The buffer, as it was given.
        buffer: Buffer,
        /// How many bytes: all.
        result: io::Result<usize>,
    },
    /// All that was sent before has gone out, and the peer sees the end of the stream.
    Disconnected {
        /// The stream.
        stream: Stream<K, C>,
        /// Whether it could be done.
        result: io::Result<()>,
    },
    /// Bytes were read from a file; fewer than asked for, or `Ok(0)`, is its end.
    Read {
        /// The file.
        file: File<K, C>,
        /// The buffer, its length the number of bytes read; after a failure as it was given.
        buffer: Buffer,
        /// How many bytes.
        result: io::Result<usize>,
    },
    /// All bytes are in the file, or the write failed.
    Written {
        /// The file.
        file: File<K, C>,
        /// The buffer, as it was given.
        buffer: Buffer,
        /// How many bytes.
        result: io::Result<usize>,
    },
    /// What was written before is on the disk, or that failed.
    Synced {
        /// The file.
        file: File<K, C>,
        /// Whether it is.
        result: io::Result<()>,
    },
    /// A timer's time has come.
    Elapsed {
        /// How many periods have passed since the last packet (1 for a one-shot timer). An aborted error is the last
        /// packet of a timer that was cancelled.
        result: io::Result<u64>,
    },
    /// A signal was sent to the process.
    Signal {
        /// Its number. An aborted error is the last packet of a registration that was cancelled.
        result: io::Result<i32>,
    },
}

impl<K, C> Packet<K, C> {
    /// The operation's NTSTATUS, as Windows would report it (`Internal` of the OVERLAPPED structure).
    pub fn nt_status(&self) -> NtStatus {
        // Asked for something, and got the end (row F-03).
        if matches!(&self.event, Event::Read { buffer, result: Ok(0), .. } if buffer.capacity() > 0) {
            return NtStatus::END_OF_FILE;
        }
        if let Event::SentFile { result: Err(error), .. } = &self.event
            && error.kind() == io::ErrorKind::UnexpectedEof
        {
            return NtStatus::END_OF_FILE;
        }
        // The number is that of a send which is too long; here it was the buffer that was too short (row U-02).
        if let Event::ReceivedFrom { buffer, result: Err(error), .. } = &self.event
            && error.raw_os_error() == Some(crate::sys::errno::EMSGSIZE)
            && buffer.len() == buffer.capacity()
        {
            return NtStatus::BUFFER_OVERFLOW;
        }
        // A pipe's end is a success of 0 bytes here, and a broken pipe there (row Q-05).
        if let Event::Received { stream, buffer, result: Ok(0) } = &self.event
            && buffer.capacity() > 0
            && stream.0.device.class() == Class::Pipe
        {
            return NtStatus::PIPE_BROKEN;
        }
        let class = match &self.event {
            Event::Sent { stream, .. } | Event::SentVectored { stream, .. } | Event::Received { stream, .. } => {
                stream.0.device.class()
            }
            Event::Connected { .. } => Class::Connect,
            Event::Read { .. } | Event::Written { .. } | Event::Synced { .. } => Class::File,
            Event::ReceivedFrom { .. } | Event::SentTo { .. } => Class::Datagram,
            Event::Posted { .. } | Event::Elapsed { .. } | Event::Signal { .. } => Class::Any,
            _ => Class::Stream,
        };
        match self.error() {
            None => NtStatus::SUCCESS,
            Some(error) => crate::error::nt_status_of_number(error.raw_os_error().unwrap_or(0), class),
        }
    }

    /// The operation's error, if it failed.
    pub fn error(&self) -> Option<&io::Error> {
        match &self.event {
            Event::Posted { .. } => None,
            Event::Accepted { result, .. } => result.as_ref().err(),
            Event::AcceptedLocal { result, .. } => result.as_ref().err(),
            Event::Exited { result, .. } => result.as_ref().err(),
            Event::Connected { result, .. }
            | Event::Readable { result, .. }
            | Event::Writable { result, .. }
            | Event::Disconnected { result, .. } => result.as_ref().err(),
            Event::Received { result, .. } | Event::Sent { result, .. } | Event::SentVectored { result, .. } => {
                result.as_ref().err()
            }
            Event::SentFile { result, .. } => result.as_ref().err(),
            Event::Read { result, .. } | Event::Written { result, .. } => result.as_ref().err(),
            Event::Synced { result, .. } => result.as_ref().err(),
            Event::ReceivedFrom { result, .. } | Event::SentTo { result, .. } => result.as_ref().err(),
            Event::Elapsed { result } => result.as_ref().err(),
            Event::Signal { result } => result.as_ref().err(),
        }
    }
}
