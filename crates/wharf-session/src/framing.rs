//! Framing: where one message of a byte stream ends and the next begins.
//!
//! A [`Codec`] does no I/O: it is given an [`Input`] and takes frames out of it, so it is tested and fuzzed without any
//! socket. [`Framed`] makes a [`Session`] of a codec and a [`FramedSession`].
//!
//! The input joins what was received. A frame that lies whole in one received buffer is handed out where it lies; of a
//! frame in pieces each byte is copied once or twice. The input also remembers how far it was searched, so a line that
//! comes byte by byte is not searched from its start again and again: the cost is linear, whatever the peer does.
//!
//! The limit on memory is the codec's maximum, and each codec has to have one;
//! [`ServiceOptions::inbox`](crate::ServiceOptions::inbox) can be a lower one for all sessions of a service.

use crate::closed::Closed;
use crate::coalesce;
use crate::link::Link;
use crate::outbox::{SendError, SendErrorReason};
use crate::pausing::Frames;
use crate::{Buffer, Session};
use std::fmt;
use std::ops::Deref;

/// Memory for pieces of frames that an input keeps while it is empty; an idle session should pin next to none.
const KEEP_BYTES: usize = 4096;

/// What a frame has, at most, beside its content: a prefix, an end. One with more is not known to be the last.
const FRAME_EXTRA: usize = 16;

/// Finds frames in a byte stream, and makes them.
///
/// Each session works with a clone. Codecs whose rules stand in the stream itself need no state: the input has it.
///
/// ```
/// use wharf_session::{Codec, FrameError, Input};
///
/// /// Frames of 4 bytes.
/// #[derive(Clone)]
/// struct Fours;
///
/// impl Codec for Fours {
///     fn decode<'a>(&mut self, input: &'a mut Input) -> Result<Option<&'a [u8]>, FrameError> {
///         Ok(if input.len() < 4 { None } else { Some(input.take(4)) })
///     }
///     fn encode(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
///         if message.len() != 4 {
///             return Err(FrameError::Invalid("a frame has 4 bytes"));
///         }
///         out.extend_from_slice(message);
///         Ok(())
///     }
/// }
///
/// let mut input = Input::new();
/// input.feed("abcdef");
/// assert_eq!(Fours.decode(&mut input), Ok(Some(&b"abcd"[..])));
/// assert_eq!(Fours.decode(&mut input), Ok(None));
/// input.feed("gh");
/// assert_eq!(Fours.decode(&mut input), Ok(Some(&b"efgh"[..])));
/// ```
pub trait Codec: Clone + Send + 'static {
    /// Takes the next frame out of the input, and returns its content. `None`: it is not complete, more bytes have to
    /// come. Called again until then.
    ///
    /// # Errors
    ///
    /// The peer broke the rules. Nothing can be found in the stream after that, and the session is closed.
    fn decode<'a>(&mut self, input: &'a mut Input) -> Result<Option<&'a [u8]>, FrameError>;

    /// Appends the frame of a message.
    ///
    /// # Errors
    ///
    /// The message cannot be framed. Nothing was sent, and the session goes on.
    fn encode(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError>;

    /// The frame of a message: for [`Group::broadcast`](crate::Group::broadcast), which then shares it.
    fn frame_of(&self, message: &[u8]) -> Result<Buffer, FrameError> {
        let mut frame = Vec::with_capacity(message.len() + LengthPrefix::BYTES_MAX);
        self.encode(message, &mut frame)?;
        Ok(frame.into())
    }
}

/// Why there is no frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// It is longer than the codec's maximum.
    TooLong {
        /// Its length in bytes, where it was known before its end came.
        length: Option<u64>,
        /// The maximum in bytes.
        maximum: u64,
    },
    /// The length counts the prefix, and is less than the prefix alone.
    TooShort {
        /// The length that the prefix tells.
        length: u64,
        /// The least it may tell.
        least: u64,
    },
    /// The message contains what ends a frame. Only when encoding.
    Separator,
    /// The stream ended inside a frame.
    Truncated {
        /// Bytes of the frame that had come.
        bytes: usize,
    },
    /// What a codec of your own has to say.
    Invalid(&'static str),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::TooLong { length, maximum } => {
                match length {
                    Some(length) => write!(f, "a frame of {length} bytes is longer than the {maximum} bytes allowed")?,
                    None => write!(f, "a frame is longer than the {maximum} bytes allowed")?,
                }
                f.write_str("; raise the codec's maximum, or see whether the peer speaks another protocol")
            }
            FrameError::TooShort { length, least } => {
                write!(f, "a frame's length is {length} but counts its own prefix of {least} bytes; ")?;
                f.write_str("see whether the peer counts it too")
            }
            FrameError::Separator => f.write_str("the message contains the end of a frame; send it in pieces"),
            FrameError::Truncated { bytes } => {
                write!(f, "the stream ended inside a frame, after {bytes} bytes of it; the peer may have been ended")
            }
            FrameError::Invalid(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for FrameError {}

/// What was received and is not yet taken: looks like one run of bytes.
#[derive(Debug, Default)]
pub struct Input {
    /// Bytes that came with earlier receives; those before `carry_taken` are taken.
    carry: Vec<u8>,
    carry_taken: usize,
    /// What came last.
    fresh: Buffer,
    fresh_taken: usize,
    /// There is no `sought` that begins before this place.
    searched: usize,
    sought: Vec<u8>,
    stats: InputStats,
}

/// What finding frames has cost so far, in bytes: for tests that show that a codec's cost is linear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InputStats {
    /// Bytes fed.
    pub fed: u64,
    /// Bytes that [`Input::find`] and [`Input::peek`] looked at.
    pub examined: u64,
    /// Bytes copied.
    pub copied: u64,
}

impl Input {
    /// An empty input.
    pub fn new() -> Input {
        Input::default()
    }

    /// Appends what was received.
    pub fn feed(&mut self, received: impl Into<Buffer>) {
        self.settle();
        self.fresh = received.into();
        self.stats.fed += self.fresh.len() as u64;
    }

    /// Bytes that are not taken.
    pub fn len(&self) -> usize {
        self.carried().len() + self.unread().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The first `count` bytes, if there are so many. They are not taken.
    pub fn peek(&mut self, count: usize) -> Option<&[u8]> {
        if self.len() < count {
            return None;
        }
        self.stats.examined += count as u64;
        if !self.join(count) {
            return Some(&self.unread()[..count]);
        }
        Some(&self.carried()[..count])
    }

    /// How many bytes are before the first `needle`, if there is one.
    ///
    /// What was searched is remembered, for one needle at a time: asked again when more has come, it goes on from
    /// there.
    ///
    /// # Panics
    ///
    /// When the needle is empty.
    pub fn find(&mut self, needle: &[u8]) -> Option<usize> {
        let first = needle[0];
        if self.sought != needle {
            self.sought = needle.to_vec();
            self.searched = 0;
        }
        let carried = self.carried().len();
        loop {
            let from = self.searched;
            let (bytes, base) = if from < carried {
                (&self.carried()[from..], from)
            } else {
                (self.unread().get(from - carried..).unwrap_or_default(), from)
            };
            let found = position(bytes, first);
            let looked_at = found.map_or(bytes.len(), |at| at + 1);
            let none_left = base + bytes.len() == self.len();
            self.stats.examined += looked_at as u64;
            let Some(at) = found else {
                self.searched = base + looked_at;
                if none_left {
                    return None;
                }
                continue;
            };
            self.searched = base + at;
            if self.len() - self.searched < needle.len() {
                // Its rest may come.
                return None;
            }
            self.stats.examined += needle.len() as u64 - 1;
            if needle.iter().enumerate().all(|(offset, &byte)| self.at(self.searched + offset) == byte) {
                return Some(self.searched);
            }
            self.searched += 1;
        }
    }

    /// Takes the first `count` bytes.
    ///
    /// # Panics
    ///
    /// When there are not so many.
    pub fn take(&mut self, count: usize) -> &[u8] {
        assert!(count <= self.len(), "{count} bytes are to be taken from {}", self.len());
        self.searched = self.searched.saturating_sub(count);
        if self.join(count) {
            let from = self.carry_taken;
            self.carry_taken += count;
            &self.carry[from..from + count]
        } else {
            let from = self.fresh_taken;
            self.fresh_taken += count;
            &self.fresh[from..from + count]
        }
    }

    /// The cost so far.
    pub fn stats(&self) -> InputStats {
        self.stats
    }

    /// Bytes of memory that it keeps, when there is something in it.
    fn memory(&self) -> usize {
        let carried = if self.carried().is_empty() { 0 } else { self.carry.capacity() };
        let fresh = if self.unread().is_empty() { 0 } else { self.fresh.capacity().max(self.fresh.len()) };
        carried + fresh
    }

    fn carried(&self) -> &[u8] {
        &self.carry[self.carry_taken..]
    }

    fn unread(&self) -> &[u8] {
        &self.fresh[self.fresh_taken..]
    }

    fn at(&self, place: usize) -> u8 {
        let carried = self.carried();
        carried.get(place).copied().unwrap_or_else(|| self.unread()[place - carried.len()])
    }

    /// Makes the first `count` bytes, which are there, lie side by side. False: they do already, in what came last.
    fn join(&mut self, count: usize) -> bool {
        let carried = self.carried().len();
        if carried == 0 {
            return false;
        }
        if carried < count {
            self.carry_over(count - carried);
        }
        true
    }

    /// Copies bytes of what came last behind what came earlier.
    fn carry_over(&mut self, count: usize) {
        if self.carry_taken > self.carry.len() / 2 {
            // Fewer are moved than were taken since the last time: so no byte pays for more than one move.
            self.stats.copied += self.carried().len() as u64;
            self.carry.drain(..self.carry_taken);
            self.carry_taken = 0;
            if self.carry.is_empty() && self.carry.capacity() > KEEP_BYTES {
                self.carry = Vec::new();
            }
        }
        self.stats.copied += count as u64;
        self.carry.extend_from_slice(&self.fresh[self.fresh_taken..self.fresh_taken + count]);
        self.fresh_taken += count;
    }

    /// Lets go of the buffer that came last, which may belong to a pool and be much larger than what is left in it.
    fn settle(&mut self) {
        self.carry_over(self.unread().len());
        self.fresh = Buffer::default();
        self.fresh_taken = 0;
    }
}

/// Where a byte is. `contains` looks at many bytes at a time, `position` at one.
fn position(bytes: &[u8], wanted: u8) -> Option<usize> {
    const AT_A_TIME: usize = 64;
    for (number, chunk) in bytes.chunks(AT_A_TIME).enumerate() {
        if chunk.contains(&wanted) {
            return chunk.iter().position(|&byte| byte == wanted).map(|at| number * AT_A_TIME + at);
        }
    }
    None
}

/// Lines: each ends with `\n`, and a `\r` before it is removed. Bytes that are no UTF-8 pass as they are.
///
/// What comes after the last `\n` when the stream ends is no line: see [`FrameError::Truncated`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lines {
    maximum: usize,
    sent_maximum: usize,
    crlf: bool,
}

/// What may be sent in any case, whatever the limit for what is received: a sentence that says why a peer is ended, for
/// one.
const SENT_LEAST: usize = 1024;

/// The limit for what is sent that goes with one for what is received.
const fn sent_maximum(maximum: usize) -> usize {
    if maximum < SENT_LEAST { SENT_LEAST } else { maximum }
}

impl Lines {
    /// Lines of at most `maximum` bytes, without their end: those that are received, and, if that is more than 1024,
    /// those that are sent. See [`sending`](Lines::sending).
    pub const fn new(maximum: usize) -> Lines {
        Lines { maximum, sent_maximum: sent_maximum(maximum), crlf: false }
    }

    /// Lines that are sent have at most so many bytes. Default: as those that are received, and at least 1024.
    pub const fn sending(mut self, maximum: usize) -> Lines {
        self.sent_maximum = maximum;
        self
    }

    /// Ends lines that are sent with `\r\n`. Both ends are understood anyway.
    pub const fn crlf(mut self) -> Lines {
        self.crlf = true;
        self
    }

    const fn too_long(&self) -> FrameError {
        FrameError::TooLong { length: None, maximum: self.maximum as u64 }
    }
}

impl Codec for Lines {
    fn decode<'a>(&mut self, input: &'a mut Input) -> Result<Option<&'a [u8]>, FrameError> {
        let Some(length) = input.find(b"\n") else {
            // One more may be the `\r`.
            return if input.len() > self.maximum.saturating_add(1) { Err(self.too_long()) } else { Ok(None) };
        };
        let line = &input.take(length + 1)[..length];
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.len() > self.maximum { Err(self.too_long()) } else { Ok(Some(line)) }
    }

    fn encode(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        if message.len() > self.sent_maximum {
            return Err(FrameError::TooLong { length: Some(message.len() as u64), maximum: self.sent_maximum as u64 });
        }
        if message.contains(&b'\n') || message.ends_with(b"\r") {
            return Err(FrameError::Separator);
        }
        out.extend_from_slice(message);
        out.extend_from_slice(if self.crlf { b"\r\n" } else { b"\n" });
        Ok(())
    }
}

/// Frames that begin with their length. Big-endian, the network's order, unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LengthPrefix {
    bytes: usize,
    maximum: usize,
    sent_maximum: usize,
    little_endian: bool,
    counts_itself: bool,
}

impl LengthPrefix {
    const BYTES_MAX: usize = 8;

    /// A prefix of `bytes` bytes, before contents of at most `maximum` bytes: those that are received, and, if that is
    /// more than 1024, those that are sent. See [`sending`](LengthPrefix::sending).
    ///
    /// # Panics
    ///
    /// When `bytes` is not 1, 2, 4 or 8.
    pub const fn new(bytes: usize, maximum: usize) -> LengthPrefix {
        assert!(matches!(bytes, 1 | 2 | 4 | 8), "a length has 1, 2, 4 or 8 bytes");
        let sent_maximum = sent_maximum(maximum);
        LengthPrefix { bytes, maximum, sent_maximum, little_endian: false, counts_itself: false }
    }

    /// Contents that are sent have at most so many bytes. Default: as those that are received, and at least 1024; and
    /// never more than the prefix can tell.
    pub const fn sending(mut self, maximum: usize) -> LengthPrefix {
        self.sent_maximum = maximum;
        self
    }

    /// The least significant byte comes first.
    pub const fn little_endian(mut self) -> LengthPrefix {
        self.little_endian = true;
        self
    }

    /// The length counts the prefix too.
    pub const fn counting_itself(mut self) -> LengthPrefix {
        self.counts_itself = true;
        self
    }

    /// What the length counts besides the content.
    const fn counted(&self) -> u64 {
        if self.counts_itself { self.bytes as u64 } else { 0 }
    }

    fn number(&self, prefix: &[u8]) -> u64 {
        let join = |number: u64, &byte: &u8| number << 8 | u64::from(byte);
        if self.little_endian { prefix.iter().rev().fold(0, join) } else { prefix.iter().fold(0, join) }
    }
}

impl Codec for LengthPrefix {
    fn decode<'a>(&mut self, input: &'a mut Input) -> Result<Option<&'a [u8]>, FrameError> {
        let Some(prefix) = input.peek(self.bytes) else { return Ok(None) };
        let (length, least) = (self.number(prefix), self.counted());
        let content = length.checked_sub(least).ok_or(FrameError::TooShort { length, least })?;
        if content > self.maximum as u64 {
            return Err(FrameError::TooLong { length: Some(content), maximum: self.maximum as u64 });
        }
        // Not more than the maximum, so it fits.
        let content = content as usize;
        if input.len() - self.bytes < content {
            return Ok(None);
        }
        Ok(Some(&input.take(self.bytes + content)[self.bytes..]))
    }

    fn encode(&self, message: &[u8], out: &mut Vec<u8>) -> Result<(), FrameError> {
        let content = message.len() as u64;
        let representable = (u64::MAX >> (64 - 8 * self.bytes)) - self.counted();
        let maximum = representable.min(self.sent_maximum as u64);
        if content > maximum {
            return Err(FrameError::TooLong { length: Some(content), maximum });
        }
        let length = content + self.counted();
        if self.little_endian {
            out.extend_from_slice(&length.to_le_bytes()[..self.bytes]);
        } else {
            out.extend_from_slice(&length.to_be_bytes()[8 - self.bytes..]);
        }
        out.extend_from_slice(message);
        Ok(())
    }
}

/// What one connection of frames does, at either end. [`Framed`] makes a [`Session`] of it.
///
/// ```
/// use wharf_session::{Framed, FramedLink, FramedSession, Lines, Service};
///
/// struct Shout;
///
/// impl FramedSession for Shout {
///     type Codec = Lines;
///     fn frame(&mut self, link: &FramedLink<Lines>, line: &[u8]) {
///         let _ = link.send(&line.to_ascii_uppercase());
///     }
/// }
///
/// let service = Service::options().start()?;
/// let address = service.listen("127.0.0.1:0", |_peer| Framed::new(Lines::new(1024), Shout))?;
/// # use std::io::{Read, Write};
/// # let mut client = std::net::TcpStream::connect(address)?;
/// # client.write_all(b"hello\r\n")?;
/// # let mut answer = [0; 6];
/// # client.read_exact(&mut answer)?;
/// # assert_eq!(&answer, b"HELLO\n");
/// # Ok::<(), std::io::Error>(())
/// ```
pub trait FramedSession: Send + 'static {
    /// How its frames are found and made.
    type Codec: Codec;

    /// The connection is made; sending is possible from now on.
    fn opened(&mut self, link: &FramedLink<Self::Codec>) {
        let _ = link;
    }

    /// A frame has arrived. Its bytes are to be copied if they are to be kept.
    ///
    /// Not called any more once the session is being closed.
    fn frame(&mut self, link: &FramedLink<Self::Codec>, frame: &[u8]);

    /// The peer broke the framing, and the session is closed next. A last message still goes out: one that says why.
    fn broken(&mut self, link: &FramedLink<Self::Codec>, error: &FrameError) {
        let _ = (link, error);
    }

    /// The connection is over. A broken framing, and a stream that ended inside a frame, is [`Closed::Framing`].
    fn closed(&mut self, link: &FramedLink<Self::Codec>, reason: &Closed) {
        let _ = (link, reason);
    }
}

/// A [`Link`] whose [`send`](FramedLink::send) makes frames. It derefs to the link itself, to join groups, say.
///
/// `Link::send` of the link itself sends what is framed already.
#[derive(Clone, Debug)]
pub struct FramedLink<C> {
    link: Link,
    codec: C,
}

impl<C: Codec> FramedLink<C> {
    /// A link whose messages a codec frames: for a link that `Service::connect` gave, say.
    pub fn new(codec: C, link: Link) -> FramedLink<C> {
        FramedLink { link, codec }
    }

    /// Sends a message as a frame, in one piece. See [`Link::send`].
    ///
    /// # Errors
    ///
    /// As `Link::send`, with the frame in the error; and [`SendErrorReason::Framing`], with nothing in it, when the
    /// message cannot be framed.
    pub fn send(&self, message: &[u8]) -> Result<(), SendError> {
        match self.codec.frame_of(message) {
            Ok(frame) => self.link.send(frame),
            Err(error) => Err(SendError { reason: SendErrorReason::Framing(error), buffer: Buffer::default() }),
        }
    }

    /// The codec.
    pub fn codec(&self) -> &C {
        &self.codec
    }

    /// The link itself.
    pub fn link(&self) -> &Link {
        &self.link
    }
}

impl<C> Deref for FramedLink<C> {
    type Target = Link;

    fn deref(&self) -> &Link {
        &self.link
    }
}

/// A [`Session`] that finds the frames for a [`FramedSession`].
#[derive(Debug)]
pub struct Framed<S: FramedSession> {
    decoder: S::Codec,
    encoder: S::Codec,
    input: Input,
    session: S,
    /// How many bytes the session was told that the input keeps.
    told: usize,
}

impl<S: FramedSession> Framed<S> {
    /// A session whose frames a codec finds.
    pub fn new(codec: S::Codec, session: S) -> Framed<S> {
        Framed { encoder: codec.clone(), decoder: codec, input: Input::new(), session, told: 0 }
    }

    // Made for each call: kept, it would be a circle, for the link holds the session.
    fn link(&self, link: &Link) -> FramedLink<S::Codec> {
        FramedLink::new(self.encoder.clone(), link.clone())
    }

    /// Hands on the frames that are there, unless the session is closed, or held: then the rest comes with `resumed`. A
    /// handler that closes or pauses the session hears no more frames, as it would hear no more receives.
    fn hand_on(&mut self, link: &Link) {
        let conn = link.0.clone();
        let link = self.link(link);
        let Some(service) = conn.service.upgrade() else { return };
        let mut is_first = true;
        loop {
            let before = self.input.len();
            let is_rated = match conn.next_frame(&service) {
                Frames::Next { is_rated } => is_rated,
                Frames::Later => break,
                Frames::Over => {
                    self.input = Input::new();
                    break;
                }
            };
            let error = match self.decoder.decode(&mut self.input) {
                Ok(Some(frame)) => {
                    conn.count_frame(&service, is_rated);
                    // See `coalesce.rs`. The last is known by what is left in the input, which is more than a prefix.
                    let is_last = before.saturating_sub(frame.len()) <= FRAME_EXTRA;
                    coalesce::set(coalesce::is_behind() || !(is_first || is_last && !coalesce::has_left()));
                    self.session.frame(&link, frame);
                    is_first = false;
                    coalesce::send_if_late();
                    continue;
                }
                Ok(None) => {
                    self.input.settle();
                    let limit = service.options.inbox_bytes;
                    if self.input.len() <= limit {
                        break;
                    }
                    FrameError::TooLong { length: None, maximum: limit as u64 }
                }
                Err(error) => error,
            };
            self.session.broken(&link, &error);
            conn.close(Closed::Framing(error));
        }
        coalesce::set(false);
        if !coalesce::is_behind() {
            coalesce::send();
        }
        let keeps = self.input.memory();
        if keeps != self.told {
            self.told = keeps;
            conn.framing_keeps(&service, keeps);
        }
    }
}

impl<S: FramedSession> Session for Framed<S> {
    fn opened(&mut self, link: &Link) {
        link.0.is_framed();
        self.session.opened(&self.link(link));
    }

    fn received(&mut self, link: &Link, data: Buffer) {
        self.input.feed(data);
        self.hand_on(link);
    }

    fn resumed(&mut self, link: &Link) {
        self.hand_on(link);
    }

    fn closed(&mut self, link: &Link, reason: &Closed) {
        let link = self.link(link);
        if matches!(reason, Closed::ByPeer) && !self.input.is_empty() {
            let truncated = Closed::Framing(FrameError::Truncated { bytes: self.input.len() });
            return self.session.closed(&link, &truncated);
        }
        self.session.closed(&link, reason);
    }
}
