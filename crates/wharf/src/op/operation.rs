//! One overlapped operation, from the issuing call to its packet.
//!
//! An operation is *issued* (it has a serial number and lies in its direction's list), *executed* (a worker has taken
//! it out of the list and tries it without blocking), and *completed* (its [`Completion`] goes to its sink). Between
//! issue and completion exactly one place owns the record: the list, or the worker that executes it. Completing
//! consumes it, so it cannot end twice.
//!
//! Identity is the port's number, the device's slot and generation, and the serial number; none of them is ever used
//! again. An address or a descriptor number never identifies anything.

use crate::op::buffer::PoolBuffer;
use crate::op::flags::ReceiveFlags;
use crate::op::issuer::{Label, issuer};
use crate::sync::Monitor;
use crate::sys::fork::Home;
pub use crate::sys::{Handle, RawBuffer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// What a packet reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Posted by the program.
    Posted,
    /// A listener took a connection.
    Accepted,
    /// A connection was made, or could not be made.
    Connected,
    /// Bytes arrived, or the end of the stream.
    Received,
    /// A zero-byte receive: data or the end of the stream is there.
    Readable,
    /// A wait for space: the system may take more of what is sent.
    Writable,
    /// All bytes of a send were taken by the system.
    Sent,
    /// A child process has ended.
    Exited,
    /// A datagram arrived.
    ReceivedFrom,
    /// The system took a datagram.
    SentTo,
    /// The system took all bytes of a send of memory and parts of files.
    SentFile,
    /// Everything sent before has gone out, and the sending side is shut.
    Disconnected,
    /// Bytes were read from a file, or its end was found.
    Read,
    /// All bytes of a write are in the file.
    Written,
    /// What was written before is on the disk.
    Synced,
    /// A timer's time has come.
    Elapsed,
    /// A signal was sent to the process.
    Signal,
}

/// Pieces of memory in one call, as many as every system takes (`IOV_MAX`). More take further calls: a full transfer of
/// these is no short one.
pub(crate) const PIECES_MAX: usize = 1024;

/// Which side of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Receive,
    Send,
}

impl Side {
    /// The side of an operation's serial number.
    pub(crate) fn of(serial: u64) -> Side {
        if serial & 1 == 0 { Side::Receive } else { Side::Send }
    }
}

/// Where the bytes of an operation are.
#[derive(Debug)]
pub enum Buffers {
    /// The operation moves no bytes.
    None,
    /// One piece.
    One(RawBuffer),
    /// Several pieces, used in order. A receive needs one at least, be it without space (row R-09).
    Many(Box<[RawBuffer]>),
    /// The port's pool gives one when data has arrived.
    Pooled,
}

/// A piece of what [`send_parts`](crate::raw::Port::send_parts) sends.
#[derive(Clone, Copy, Debug)]
pub enum Part {
    /// Bytes of memory.
    Memory(RawBuffer),
    /// Bytes of a regular file or block device.
    File {
        /// Its descriptor, open for reading. Its position is neither used nor changed.
        handle: Handle,
        /// Where they begin.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// What a file has from an offset on. A size that the file system tells is not believed further than that: a file
    /// that has less than it tells (one of `/sys`) ends where reading finds its end, and one that tells none (one of
    /// `/proc`) is read until it ends. A file that becomes shorter meanwhile fails as a part of it does. On Windows
    /// what is told counts.
    FileToEnd {
        /// As for a part.
        handle: Handle,
        /// Where it begins.
        offset: u64,
        /// How many bytes there are behind it, as the file system tells.
        told: u64,
    },
}

impl Part {
    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        match self {
            Part::Memory(piece) => piece.length as u64,
            Part::File { length, .. } | Part::FileToEnd { told: length, .. } => *length,
        }
    }

    /// How many bytes it has is found out when it is read.
    fn is_open(&self) -> bool {
        matches!(self, Part::FileToEnd { told: 0, .. })
    }
}

impl Buffers {
    /// Calls `call` with each piece, in order.
    pub(crate) fn each(&self, mut call: impl FnMut(&RawBuffer)) {
        match self {
            Buffers::One(one) => call(one),
            Buffers::Many(many) => many.iter().for_each(call),
            Buffers::None | Buffers::Pooled => {}
        }
    }

    /// A list of pieces that has none.
    pub(crate) fn is_empty_list(&self) -> bool {
        matches!(self, Buffers::Many(pieces) if pieces.is_empty())
    }

    /// Bytes in all.
    #[inline]
    pub fn total(&self) -> usize {
        match self {
            Buffers::None => 0,
            Buffers::One(one) => one.length,
            Buffers::Many(many) => many.iter().map(|piece| piece.length).sum(),
            Buffers::Pooled => usize::MAX,
        }
    }
}

/// Where a completion goes.
#[derive(Clone, Debug)]
pub enum Sink {
    /// To the port's queue.
    Port,
    /// To an event; no packet is queued (row O-20). The event is signalled by a thread that is inside the port's `get`,
    /// or [supervises](crate::raw::Port::supervise) it, for such threads do the port's work: with none there, whoever
    /// waits for the event alone waits for ever.
    Event(Arc<CompletionEvent>),
    /// To an event, and then to the port's queue (row O-21). What only one can own (an accepted connection, a pooled
    /// buffer) is the packet's; the event is told the rest. Of a signal, which comes many times, only the packets come.
    /// The packet is queued also after `skip_on_success`.
    Both(Arc<CompletionEvent>),
    /// To a function that a worker of the port calls from inside its `get`, with the number given here. Never from
    /// inside the issuing call.
    Callback(fn(usize, Completion), usize),
}

/// What is still to be done with a completion whose event, if there is one, was told.
#[derive(Debug)]
pub(crate) enum Delivery {
    /// A packet is to be queued, or handed out.
    Packet(Completion),
    /// A function is to be called.
    Call(fn(usize, Completion), usize, Completion),
}

impl Sink {
    /// The one way out: tells the event, before the packet can be seen, and returns what is still to be done.
    #[inline]
    pub(crate) fn send(self, completion: Completion) -> Option<Delivery> {
        match self {
            Sink::Port => Some(Delivery::Packet(completion)),
            Sink::Callback(call, context) => Some(Delivery::Call(call, context, completion)),
            Sink::Event(event) => {
                event.signal(completion);
                None
            }
            Sink::Both(event) => {
                event.signal(Completion { payload: Payload::None, ..completion });
                Some(Delivery::Packet(completion))
            }
        }
    }
}

/// A place where one completion can be waited for: the event of the Win32 `OVERLAPPED` structure.
#[derive(Debug)]
pub struct CompletionEvent {
    completion: Monitor<Option<Completion>>,
    home: Home,
}

impl Default for CompletionEvent {
    fn default() -> Self {
        CompletionEvent { completion: Monitor::default(), home: Home::here() }
    }
}

impl CompletionEvent {
    /// An event that is not signalled.
    pub fn new() -> Arc<CompletionEvent> {
        Arc::new(CompletionEvent::default())
    }

    /// Waits for the completion and takes it; `None` when the time is over, and at once in a forked child, where nobody
    /// completes anything.
    pub fn wait(&self, timeout: Option<Duration>) -> Option<Completion> {
        if !self.home.is_here() {
            return None;
        }
        self.completion.wait_while(self.completion.lock(), timeout, |completion| completion.is_none()).take()
    }

    pub(crate) fn signal(&self, completion: Completion) {
        *self.completion.lock() = Some(completion);
        self.completion.notify_all();
    }
}

/// What an operation brings beside its byte count.
#[derive(Debug)]
pub enum Payload {
    /// Nothing more.
    None,
    /// The connection an accept took: its descriptor, owned by the receiver of the packet, and the peer.
    Accepted(Box<Accepted>),
    /// The pool's buffer that a pooled receive filled.
    Pooled(PoolBuffer),
    /// What is known of a datagram, and the pool's buffer if it was taken into one.
    Datagram(Box<(Datagram, Option<PoolBuffer>)>),
}

/// A datagram that was taken from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Datagram {
    /// Bytes in the buffers.
    pub bytes: usize,
    /// Who sent it, where that is an internet address.
    pub from: Option<SocketAddr>,
    /// It was longer than the buffers, and the rest is lost.
    pub truncated: bool,
    /// With receive offload: several datagrams of this many bytes lie one behind the other, the last perhaps shorter.
    /// 0: it is one datagram.
    pub segment: usize,
}

/// A connection that was taken from a listener and belongs to no port yet.
#[derive(Debug)]
pub struct Accepted {
    /// The descriptor. The fake engine's are not the system's.
    pub handle: Handle,
    /// The other end; `None` for a stream of the machine's own (a Unix socket).
    pub peer: Option<SocketAddr>,
}

/// A packet of the raw layer: one finished operation, or one post.
#[derive(Debug)]
pub struct Completion {
    /// The key of the device, or of the post.
    pub key: usize,
    /// What the issuer gave along: the address of its own record, say.
    pub token: usize,
    /// Bytes moved; for a timer how many periods have elapsed; for a signal its number.
    pub bytes: usize,
    /// 0, or the system's error number. [`ECANCELED`](crate::raw::ECANCELED) when cancelled or closed.
    pub error: i32,
    /// What it reports.
    pub kind: Kind,
    /// The number of the device it came from, 0 for a post or a timer.
    pub device: u64,
    /// Further packets of the same operation will follow: a periodic timer, a signal. The token is then still in use.
    pub more: bool,
    /// What comes along.
    pub payload: Payload,
    /// The operation had memory: see `Operation::names_memory`.
    pub(crate) named_memory: bool,
}

/// The record of an operation that was issued and has not completed. Kept small: an idle connection has one.
#[derive(Debug)]
pub(crate) struct Operation {
    pub(crate) serial: u64,
    pub(crate) token: usize,
    pub(crate) buffers: Buffers,
    /// Bytes moved so far.
    pub(crate) done: usize,
    /// The tag of the thread that has issued it.
    issuer: u32,
    /// Of a receive.
    pub(crate) flags: ReceiveFlags,
    pub(crate) kind: Kind,
    rare: Option<Box<Rare>>,
}

/// What few operations have.
#[derive(Debug, Default)]
#[cfg_attr(windows, allow(dead_code, reason = "the kernel executes operations there"))]
struct Rare {
    /// Another sink than the port.
    sink: Option<Sink>,
    /// Where a datagram goes.
    to: Option<SocketAddr>,
    /// What a send of parts sends, instead of buffers.
    parts: Option<Parts>,
    /// How far it is in more pieces than one call takes.
    place: Option<Place>,
    /// See [`Operation::shutdown`].
    shutdown: bool,
}

impl Rare {
    fn of(sink: Sink, buffers: &Buffers) -> Option<Box<Rare>> {
        let sink = Some(sink).filter(|sink| !matches!(sink, Sink::Port));
        let place = match buffers {
            Buffers::Many(pieces) if pieces.len() > PIECES_MAX => {
                Some(Place { total: buffers.total(), ..Place::default() })
            }
            _ => None,
        };
        (sink.is_some() || place.is_some()).then(|| Box::new(Rare { sink, place, ..Rare::default() }))
    }
}

/// How far an operation is in its list of pieces or parts: without it, each call would start over from the first.
#[derive(Clone, Copy, Debug, Default)]
#[cfg_attr(windows, allow(dead_code, reason = "the kernel executes operations there"))]
pub(crate) struct Place {
    /// The first that is not done with.
    pub(crate) at: usize,
    /// Bytes of those before.
    pub(crate) before: usize,
    /// Bytes of all.
    total: usize,
}

#[cfg_attr(windows, allow(dead_code, reason = "the kernel executes operations there"))]
impl Place {
    /// So many bytes are done; `length` tells each one's.
    fn move_to(&mut self, done: usize, length: impl Fn(usize) -> Option<usize>) {
        while let Some(end) = length(self.at).and_then(|length| self.before.checked_add(length)) {
            if end > done || end == usize::MAX {
                break;
            }
            self.before = end;
            self.at += 1;
        }
    }
}

/// Memory and parts of files, to be sent in order.
#[derive(Debug)]
#[cfg_attr(windows, allow(dead_code, reason = "the kernel executes operations there"))]
pub(crate) struct Parts {
    /// None is empty, and their sum is a usize.
    pub(crate) list: Vec<Part>,
    /// So many bytes, from the first on, need no look whether they are in the system's cache.
    pub(crate) fetched: usize,
    pub(crate) place: Place,
    /// How many of them are open.
    open: usize,
}

#[cfg_attr(windows, allow(dead_code, reason = "the kernel executes operations there"))]
impl Parts {
    /// `None` when a part of a file lies beyond what a file can have, or the sum beyond what can be counted.
    pub(crate) fn new(mut list: Vec<Part>) -> Option<Parts> {
        let mut total = 0_usize;
        for part in &list {
            if let Part::File { offset, length, .. } | Part::FileToEnd { offset, told: length, .. } = *part {
                i64::try_from(offset.checked_add(length)?).ok()?;
            }
            total = total.checked_add(usize::try_from(part.length()).ok()?)?;
        }
        if cfg!(windows) {
            for part in &mut list {
                if let Part::FileToEnd { handle, offset, told: length } = *part {
                    *part = Part::File { handle, offset, length };
                }
            }
        }
        list.retain(|part| part.length() > 0 || part.is_open());
        let open = list.iter().filter(|part| part.is_open()).count();
        Some(Parts { list, fetched: 0, place: Place { total, ..Place::default() }, open })
    }

    /// The file that is being sent has ended, with `done` bytes sent in all: the part has as many as were found.
    pub(crate) fn file_ended(&mut self, done: usize) {
        let found = done - self.place.before;
        let Some(part) = self.list.get_mut(self.place.at) else { return };
        if let Part::FileToEnd { handle, offset, told } = *part {
            self.open -= usize::from(part.is_open());
            *part = Part::File { handle, offset, length: found as u64 };
            self.place.total = self.place.total - told as usize + found;
            self.move_to(done);
        }
    }

    fn move_to(&mut self, done: usize) {
        let list = &self.list;
        let length = |part: &Part| if part.is_open() { usize::MAX } else { part.length() as usize };
        self.place.move_to(done, |at| list.get(at).map(length));
    }

    /// Bytes in all; more than any, as long as that is not known.
    pub(crate) fn total(&self) -> usize {
        if self.open == 0 { self.place.total } else { usize::MAX }
    }
}

#[cfg_attr(windows, allow(dead_code, reason = "the kernel executes operations there"))]
impl Operation {
    // Always: built in its place, once a message.
    #[inline(always)]
    pub(crate) fn new(kind: Kind, token: usize, sink: Sink, buffers: Buffers) -> Operation {
        let rare = match (&sink, &buffers) {
            (Sink::Port, Buffers::None | Buffers::One(_) | Buffers::Pooled) => None,
            _ => Rare::of(sink, &buffers),
        };
        Operation { serial: 0, token, buffers, done: 0, issuer: issuer(), flags: ReceiveFlags::default(), kind, rare }
    }

    /// A datagram that goes to an address.
    pub(crate) fn with_address(mut self, to: Option<SocketAddr>) -> Operation {
        if to.is_some() {
            self.rare.get_or_insert_default().to = to;
        }
        self
    }

    pub(crate) fn with_parts(mut self, parts: Parts) -> Operation {
        self.rare.get_or_insert_default().parts = Some(parts);
        self
    }

    /// The shutdown of a sending side: like a disconnect, and nobody hears of it.
    pub(crate) fn shutdown() -> Operation {
        let mut operation = Operation::new(Kind::Disconnected, 0, Sink::Callback(|_, _| {}, 0), Buffers::None);
        operation.rare.get_or_insert_default().shutdown = true;
        operation
    }

    /// A receive that completes when its buffers are full.
    #[inline]
    pub(crate) fn waits_for_all(&self) -> bool {
        self.flags.contains(ReceiveFlags::WAIT_ALL)
    }

    /// A wait for an edge.
    #[cfg_attr(windows, allow(dead_code, reason = "the kernel tells no edges"))]
    pub(crate) fn watch(kind: Kind, token: usize, sink: Sink) -> Operation {
        let mut operation = Operation::new(kind, token, sink, Buffers::None);
        operation.flags = ReceiveFlags::EDGE;
        operation
    }

    /// It moves nothing, and whoever moves something may go before it.
    pub(crate) fn is_watch(&self) -> bool {
        self.flags.contains(ReceiveFlags::EDGE)
    }

    /// What it is told by, also while it is executed.
    #[inline]
    pub(crate) fn label(&self) -> Label {
        Label { serial: self.serial, token: self.token, issuer: self.issuer, nameless: self.is_shutdown() }
    }

    /// Something has happened of it: bytes were moved, or the system is at it.
    pub(crate) fn has_begun(&self) -> bool {
        self.done > 0 || matches!(self.kind, Kind::Connected | Kind::Disconnected)
    }

    pub(crate) fn is_shutdown(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.shutdown)
    }

    pub(crate) fn address(&self) -> Option<&SocketAddr> {
        self.rare.as_ref()?.to.as_ref()
    }

    pub(crate) fn parts(&self) -> Option<&Parts> {
        self.rare.as_ref()?.parts.as_ref()
    }

    pub(crate) fn parts_mut(&mut self) -> Option<&mut Parts> {
        self.rare.as_mut()?.parts.as_mut()
    }

    /// Its completion goes to the queue.
    #[inline]
    pub(crate) fn is_for_port(&self) -> bool {
        self.rare.as_ref().is_none_or(|rare| rare.sink.is_none())
    }

    // Always: once a message, where there is nothing to take.
    #[inline(always)]
    pub(crate) fn take_sink(&mut self) -> Sink {
        if self.rare.is_none() { Sink::Port } else { self.take_rare_sink() }
    }

    #[inline(never)]
    fn take_rare_sink(&mut self) -> Sink {
        self.rare.take().and_then(|rare| rare.sink).unwrap_or(Sink::Port)
    }

    /// The safe layer has a record for it, whose address the token is: it has memory of its own.
    #[inline]
    pub(crate) fn names_memory(&self) -> bool {
        matches!(self.buffers, Buffers::One(_) | Buffers::Many(_)) || self.parts().is_some()
    }

    /// Bytes that it moves in all.
    #[inline]
    pub(crate) fn total(&self) -> usize {
        match self.rare.as_deref() {
            Some(Rare { parts: Some(parts), .. }) => parts.total(),
            Some(Rare { place: Some(place), .. }) => place.total,
            _ => self.buffers.total(),
        }
    }

    /// So many more bytes were moved.
    #[inline]
    pub(crate) fn advance(&mut self, bytes: usize) {
        self.done += bytes;
        if self.rare.is_some() {
            self.move_place();
        }
    }

    /// The file that is being sent has ended.
    pub(crate) fn file_ended(&mut self) {
        let done = self.done;
        if let Some(parts) = self.parts_mut() {
            parts.file_ended(done);
        }
    }

    fn move_place(&mut self) {
        let Some(rare) = self.rare.as_deref_mut() else { return };
        if let Some(parts) = &mut rare.parts {
            parts.move_to(self.done);
        } else if let (Some(place), Buffers::Many(pieces)) = (&mut rare.place, &self.buffers) {
            place.move_to(self.done, |at| pieces.get(at).map(|piece| piece.length));
        }
    }

    /// The pieces that are not done with, the empty ones among them.
    fn left(&self) -> (&[RawBuffer], usize) {
        let place = self.rare.as_deref().and_then(|rare| rare.place).unwrap_or_default();
        let pieces = match &self.buffers {
            Buffers::One(piece) => std::slice::from_ref(piece),
            Buffers::Many(pieces) => &pieces[place.at..],
            Buffers::None | Buffers::Pooled => &[],
        };
        (pieces, self.done - place.before)
    }

    /// How many pieces they are.
    pub(crate) fn pieces_left(&self) -> usize {
        self.left().0.len()
    }

    /// Calls `call` with the memory that was not moved yet, in order: with up to `most` pieces that are not empty.
    pub(crate) fn each_left(&self, most: usize, mut call: impl FnMut(RawBuffer)) {
        let (pieces, mut skip) = self.left();
        let rests = pieces.iter().filter_map(|piece| {
            let skipped = skip.min(piece.length);
            skip -= skipped;
            (skipped < piece.length).then(|| piece.rest(skipped))
        });
        rests.take(most).for_each(&mut call);
    }
}

/// Tells the ports of a process apart. Never used again. Each device has one, so it is kept small.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct PortNumber(u32);

impl PortNumber {
    pub(crate) fn next() -> std::io::Result<PortNumber> {
        static LAST: AtomicU32 = AtomicU32::new(0);
        let last = LAST.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| last.checked_add(1));
        last.map(|last| PortNumber(last + 1))
            .map_err(|_| std::io::Error::other("the process has made four thousand million ports; start it anew"))
    }
}

/// Names an operation that was issued, for [`cancel`](crate::raw::Port::cancel). Never used again for another, of this
/// or any other port of the process. Only a port makes one:
///
/// ```compile_fail
/// let _ = wharf::OperationId { port: 1, device: 1, serial: 2 };
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperationId {
    pub(crate) port: PortNumber,
    /// 0: a timer or a signal.
    pub(crate) device: u64,
    pub(crate) serial: u64,
}

/// What a cancel request came to. Whatever it was, the operation delivers its one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancel {
    /// The operation was outstanding. It ends cancelled, or completed if it was just being executed.
    Requested,
    /// There is no such operation any more: its packet is queued or was taken.
    TooLate,
    /// It is an operation of another port, or of another device than the one that was asked: nothing was done
    /// (`EINVAL`).
    Foreign,
}

/// What a request to withdraw an operation came to.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "what was withdrawn gives no packet: its context and its buffers are in here"]
#[non_exhaustive]
pub enum Withdrawal<P> {
    /// It had not begun, and ends here: there is no packet of it. This is what the packet would have been, with
    /// `ECANCELED`.
    Withdrawn(P),
    /// It has begun, or only the system knows. It was cancelled, and delivers its one packet, as with
    /// [`Cancel::Requested`].
    Requested,
    /// There is no such operation any more: its packet is queued or was taken.
    TooLate,
    /// It is an operation of another port, or of another part of it: nothing was done (`EINVAL`).
    Foreign,
}

impl<P> From<Cancel> for Withdrawal<P> {
    fn from(cancel: Cancel) -> Self {
        match cancel {
            Cancel::Requested => Withdrawal::Requested,
            Cancel::TooLate => Withdrawal::TooLate,
            Cancel::Foreign => Withdrawal::Foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_of_many_pieces_goes_on_where_it_is() {
        let piece = |length| RawBuffer { pointer: std::ptr::null_mut(), length };
        // Of no more than PIECES_MAX each is looked at anew. Miri is slow.
        let count = PIECES_MAX + if cfg!(miri) { 50 } else { 2 * PIECES_MAX };
        let pieces: Box<[RawBuffer]> = (0..count).map(|at| piece(at % 3)).collect();
        let total = pieces.iter().map(|piece| piece.length).sum::<usize>();
        let mut operation = Operation::new(Kind::Sent, 0, Sink::Port, Buffers::Many(pieces));
        let mut random = fastrand::Rng::with_seed(3);
        while operation.done < total {
            let mut next = Vec::new();
            operation.each_left(8, |piece| next.push(piece.length));
            let offered: usize = next.iter().sum();
            let mut all = 0;
            operation.each_left(usize::MAX, |piece| all += piece.length);
            assert_eq!(all, total - operation.done);
            assert!(offered > 0 && next.iter().all(|&length| length > 0));
            // A part of the last piece is left at times.
            let moved = if random.bool() { offered } else { offered - next.last().copied().unwrap_or(0) + 1 };
            operation.advance(moved);
            let (left, skip) = operation.left();
            assert!(left.first().is_none_or(|first| skip < first.length), "what is done with is looked at again");
        }
        assert_eq!((operation.done, operation.total()), (total, total));
        operation.each_left(1, |_| panic!("nothing is left"));
    }
}
