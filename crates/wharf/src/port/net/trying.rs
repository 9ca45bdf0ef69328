//! Calls on borrowed memory: what can be moved now, and no packet.

use super::Stream;
use crate::port::associate::{Outcome, refusal};
use crate::port::refused::Refused;
use crate::port::{Context, Key};
use crate::raw::{RawBuffer, Sink};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;

/// Pieces that one call hands to the system: those behind them are for the next.
const PIECES: usize = 32;

const EMPTY: RawBuffer = RawBuffer { pointer: std::ptr::null_mut(), length: 0 };

impl<K: Key, C: Context> Stream<K, C> {
    /// Sends what the system takes now, and returns how many bytes went: no operation, and no packet. It stands in the
    /// order of the stream's sends and tears none of them, so it moves nothing while sends are outstanding.
    ///
    /// ```
    /// use std::io::ErrorKind;
    /// use wharf::CompletionPort;
    /// let port = CompletionPort::<(), ()>::new()?;
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let peer = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let stream = port.associate(listener.accept()?.0, ())?;
    /// assert_eq!(stream.try_send(b"now")?, 3);
    /// let mut buffer = [0; 16];
    /// assert_eq!(stream.try_recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    /// # drop(peer);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): sends are outstanding, or another thread is just sending, or the
    /// system takes nothing. Otherwise those of [`send`](Stream::send) and of its packet.
    pub fn try_send(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_send_pieces(&[piece(bytes)])
    }

    /// As [`try_send`](Stream::try_send), of several pieces in their order. No more than 32 of them are looked at.
    pub fn try_send_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut all = [EMPTY; PIECES];
        let taken = all.iter_mut().zip(pieces.iter().filter(|piece| !piece.is_empty()));
        let count = taken.map(|(to, from)| *to = piece(from)).count();
        self.try_send_pieces(&all[..count])
    }

    fn try_send_pieces(&self, pieces: &[RawBuffer]) -> io::Result<usize> {
        let shared = &self.0;
        #[allow(unsafe_code)]
        // SAFETY: the callers borrow the memory for the length of this call.
        let sent = unsafe { shared.port.try_send(&shared.device, pieces) };
        sent.map_err(|error| refusal(&shared.port, error))
    }

    /// Receives what is there now, and returns how many bytes came: no operation, and no packet. 0 is the end of the
    /// stream, unless the buffer is empty. Receives that are outstanding are to have what comes: while there are any it
    /// takes nothing.
    ///
    /// # Errors
    ///
    /// [`WouldBlock`](io::ErrorKind::WouldBlock): receives are outstanding, or nothing is there. Otherwise those of
    /// [`recv`](Stream::recv) and of its packet.
    pub fn try_recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.try_receive_pieces(&[RawBuffer { pointer: buffer.as_mut_ptr(), length: buffer.len() }])
    }

    /// As [`try_recv`](Stream::try_recv), into memory that need not be initialised: as many bytes of it are as were
    /// received.
    pub fn try_recv_uninit(&self, buffer: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        self.try_receive_pieces(&[RawBuffer { pointer: buffer.as_mut_ptr().cast(), length: buffer.len() }])
    }

    /// As [`try_recv`](Stream::try_recv), into several buffers in their order. No more than 32 of them are looked at.
    pub fn try_recv_vectored(&self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        let mut all = [EMPTY; PIECES];
        let taken = all.iter_mut().zip(buffers.iter_mut().filter(|buffer| !buffer.is_empty()));
        let piece = |from: &mut IoSliceMut<'_>| RawBuffer { pointer: from.as_mut_ptr(), length: from.len() };
        let count = taken.map(|(to, from)| *to = piece(from)).count();
        self.try_receive_pieces(&all[..count])
    }

    /// Issues a wait that completes ([`Event::Readable`](crate::Event::Readable)) when data, or the end of the stream,
    /// may be there, and makes no system call: at once if nobody has found the stream empty since something last came.
    /// It may complete though there is nothing: then [`try_recv`](Stream::try_recv), which goes before it, says so, and
    /// the next wait does wait. [`readable`](Stream::readable) looks.
    ///
    /// # Ordering
    ///
    /// Receives that are issued behind it wait for it.
    ///
    /// # Errors
    ///
    /// As those of [`readable`](Stream::readable).
    ///
    /// # Platform notes
    ///
    /// On Windows it is [`readable`](Stream::readable).
    pub fn watch_readable(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        shared.issue_plain(context, |token| shared.port.watch_readable(&shared.device, token, Sink::Port))
    }

    /// Issues a wait that completes ([`Event::Writable`](crate::Event::Writable)) when the system may take more of what
    /// is sent, and makes no system call: behind the sends that were issued before, at once if nobody has found it full
    /// since, otherwise when space comes. It may complete though there is no space. For [`try_send`](Stream::try_send),
    /// which goes before it.
    ///
    /// ```
    /// use wharf::{CompletionPort, Event};
    /// # if cfg!(windows) { return Ok(()); }
    /// let port = CompletionPort::<(), ()>::new()?;
    /// let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    /// let peer = std::net::TcpStream::connect(listener.local_addr()?)?;
    /// let stream = port.associate(listener.accept()?.0, ())?;
    /// stream.watch_writable(())?;
    /// assert!(matches!(port.get()?.event, Event::Writable { result: Ok(()), .. }));
    /// # drop(peer);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// # Ordering
    ///
    /// What is issued behind it waits for it.
    ///
    /// # Errors
    ///
    /// As those of [`send`](Stream::send).
    ///
    /// # Platform notes
    ///
    /// On Windows it is refused ([`Unsupported`](io::ErrorKind::Unsupported)): send a copy instead.
    pub fn watch_writable(&self, context: C) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let shared = &self.0;
        if cfg!(windows) {
            let error =
                io::Error::new(io::ErrorKind::Unsupported, "Windows tells no space; send, and wait for the packet");
            return Err(Refused { error, context, buffer: () });
        }
        shared.issue_plain(context, |token| shared.port.watch_writable(&shared.device, token, Sink::Port))
    }

    fn try_receive_pieces(&self, pieces: &[RawBuffer]) -> io::Result<usize> {
        let shared = &self.0;
        #[allow(unsafe_code)]
        // SAFETY: the callers borrow the memory for the length of this call, each for itself alone.
        let came = unsafe { shared.port.try_receive(&shared.device, pieces) };
        came.map_err(|error| refusal(&shared.port, error))
    }
}

fn piece(bytes: &[u8]) -> RawBuffer {
    RawBuffer { pointer: bytes.as_ptr().cast_mut(), length: bytes.len() }
}
