//! What comes out of a port.

use crate::buffer::Buffer;
use crate::error::{Class, NtStatus};
use crate::fs::File;
use crate::net::{FileMessage, Stream, TcpListener, UdpSocket};
use crate::process::Child;
use crate::raw;
use std::fmt;
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
        listener: TcpListener<K, C>,
        /// The connection, which belongs to no port yet (associate it), and its other end. It is in non-blocking mode.
        result: io::Result<(std::net::TcpStream, SocketAddr)>,
    },
    /// A listener of the machine's own (a Unix socket) took a connection.
    AcceptedLocal {
        /// The listener, for the next accept.
        listener: TcpListener<K, C>,
        /// The connection, which belongs to no port yet, in non-blocking mode.
        result: io::Result<crate::os::UnixStream>,
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
        socket: UdpSocket<K, C>,
        /// The buffer, its length the number of bytes received, also where it was too short (`EMSGSIZE`).
        buffer: Buffer,
        /// Who sent it; with [`report_refusals`](UdpSocket::report_refusals), who refused a datagram. `None` when the receive
        /// failed otherwise.
        from: Option<SocketAddr>,
        /// With receive offload: the buffer holds several datagrams of so many bytes, the last perhaps shorter. 0: one.
        segment_bytes: usize,
        /// How many bytes. 0 is an empty datagram.
        result: io::Result<usize>,
    },
    /// The system took a datagram, or did not.
    SentTo {
        /// The socket.
        socket: UdpSocket<K, C>,
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
            && error.raw_os_error() == Some(raw::EMSGSIZE)
            && buffer.len() == buffer.capacity()
        {
            return NtStatus::BUFFER_OVERFLOW;
        }
        // A pipe's end is a success of 0 bytes here, and a broken pipe there (row Q-05).
        if let Event::Received { stream, buffer, result: Ok(0) } = &self.event
            && buffer.capacity() > 0
            && crate::os::class_of(&stream.0.device) == Class::Pipe
        {
            return NtStatus::PIPE_BROKEN;
        }
        let class = match &self.event {
            Event::Sent { stream, .. } | Event::SentVectored { stream, .. } | Event::Received { stream, .. } => {
                crate::os::class_of(&stream.0.device)
            }
            Event::Connected { .. } => Class::Connect,
            Event::Read { .. } | Event::Written { .. } | Event::Synced { .. } => Class::File,
            Event::ReceivedFrom { .. } | Event::SentTo { .. } => Class::Datagram,
            Event::Posted { .. } | Event::Elapsed { .. } | Event::Signal { .. } => Class::Any,
            _ => Class::Stream,
        };
        match self.error() {
            None => NtStatus::SUCCESS,
            Some(error) => crate::os::nt_status(error.raw_os_error().unwrap_or(0), class),
        }
    }

    /// The operation's error, if it failed.
    pub fn error(&self) -> Option<&io::Error> {
        match &self.event {
            Event::Posted { .. } => None,
            Event::Accepted { result, .. } => result.as_ref().err(),
            Event::AcceptedLocal { result, .. } => result.as_ref().err(),
            Event::Exited { result, .. } => result.as_ref().err(),
            Event::Connected { result, .. } | Event::Readable { result, .. } | Event::Disconnected { result, .. } => {
                result.as_ref().err()
            }
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

/// An operation that was not accepted: the error, and everything that was given. No packet will come.
pub struct Refused<C, B = Buffer> {
    /// Why.
    pub error: io::Error,
    /// The context.
    pub context: C,
    /// The buffer or buffers.
    pub buffer: B,
}

impl<C, B> fmt::Debug for Refused<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Refused").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<C, B> fmt::Display for Refused<C, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the operation was not accepted: {}", self.error)
    }
}

impl<C, B> std::error::Error for Refused<C, B> {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.error)
    }
}

impl<C, B> From<Refused<C, B>> for io::Error {
    fn from(refused: Refused<C, B>) -> io::Error {
        refused.error
    }
}

/// A source that could not be associated, with its key.
pub struct Rejected<S, K> {
    /// Why.
    pub error: io::Error,
    /// What was to be associated, still open.
    pub source: S,
    /// Its key.
    pub key: K,
}

impl<S, K> fmt::Debug for Rejected<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rejected").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<S, K> fmt::Display for Rejected<S, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot be associated with the port: {}", self.error)
    }
}

impl<S, K> std::error::Error for Rejected<S, K> {}

impl<S, K> From<Rejected<S, K>> for io::Error {
    fn from(rejected: Rejected<S, K>) -> io::Error {
        rejected.error
    }
}

/// A post that the port did not take: why, and what was posted.
pub struct Unposted<K, C> {
    /// Why.
    pub reason: UnpostedReason,
    /// The key.
    pub key: K,
    /// The context.
    pub context: C,
}

/// Why a post was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum UnpostedReason {
    /// The port is closed.
    Closed,
    /// As many packets are queued as the caller of `try_post` allows.
    Full,
}

impl fmt::Display for UnpostedReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            UnpostedReason::Closed => "the port is closed",
            UnpostedReason::Full => "the queue holds as many packets as the caller allows; take some out, or wait",
        })
    }
}

impl<K, C> fmt::Display for Unposted<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.reason.fmt(f)
    }
}

impl<K, C> fmt::Debug for Unposted<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Unposted").field("reason", &self.reason).finish_non_exhaustive()
    }
}

impl<K, C> std::error::Error for Unposted<K, C> {}

/// Why a `get` brings no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GetError {
    /// The time is over (258, `WAIT_TIMEOUT`).
    TimedOut,
    /// The port was closed (735, `ERROR_ABANDONED_WAIT_0`).
    Abandoned,
    /// The process is a forked child and the port its parent's (6, `ERROR_INVALID_HANDLE`).
    Forked,
    /// A batch of no packets was asked for (87, `ERROR_INVALID_PARAMETER`).
    NoRoom,
}

impl GetError {
    /// The code that `GetLastError` gives on Windows.
    pub fn win32(self) -> u32 {
        match self {
            GetError::TimedOut => 258,
            GetError::Abandoned => 735,
            GetError::Forked => 6,
            GetError::NoRoom => 87,
        }
    }
}

impl fmt::Display for GetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GetError::TimedOut => "no packet came in time",
            GetError::Abandoned => "the port was closed",
            GetError::Forked => "the port belongs to the parent process; make a new one after fork",
            GetError::NoRoom => "a batch of 0 packets was asked for; ask for 1 or more",
        })
    }
}

impl std::error::Error for GetError {}

impl From<GetError> for io::Error {
    fn from(error: GetError) -> io::Error {
        let kind = match error {
            GetError::TimedOut => io::ErrorKind::TimedOut,
            GetError::NoRoom => io::ErrorKind::InvalidInput,
            _ => io::ErrorKind::NotConnected,
        };
        io::Error::new(kind, error)
    }
}
