//! The port of the raw layer: its documents, and one line for each call. The work is done by whatever executes
//! operations here.

use super::execution;
use super::{Device, Waker};
use crate::op::{
    Buffers, Cancel, Completion, Config, DeviceInfo, DeviceKind, Handle, Incoming, Issued, Name, OperationId, Outgoing,
    Part, Post, Ran, RawBuffer, ReceiveFlags, Retain, Sink, Withdrawal,
};
use crate::sync::Arc;
use crate::sys::Owned;
use crate::threads::{Deadline, GetError};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

pub use super::released::Released;
use super::released::released;

/// A completion port of the raw layer. Clones name the same port. When the last one goes, the port is closed
/// ([`close`](Port::close)), and so are its devices.
#[derive(Clone)]
pub struct Port(pub(crate) execution::Port);

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// What was associated, or the source again.
fn given_back<S: Owned>(taken: Result<Arc<execution::DeviceState>, i32>, handle: Handle) -> Result<Device, (i32, S)> {
    taken.map(Device).map_err(|error| {
        #[allow(unsafe_code)]
        // SAFETY: it was taken from a source just before, and what is refused is its giver's again.
        (error, unsafe { S::from_handle(handle) })
    })
}

impl Port {
    /// Makes a port. The engines of `config`, and when a further worker is woken, are no choice on Windows.
    pub fn new(config: Config) -> std::io::Result<Port> {
        execution::Port::new(config).map(Port)
    }

    // --- Devices ---

    /// Associates what `source` owns (an `OwnedFd`, an `OwnedHandle`, one of std's sockets, a file), which becomes the
    /// port's to close. A socket has to be in non-blocking mode; on Windows it and a file were opened for overlapped
    /// use.
    ///
    /// A number is no owner; who has only that promises more ([`adopt_raw`](Port::adopt_raw)):
    ///
    /// ```compile_fail
    /// # use wharf::raw::{DeviceKind, Port};
    /// fn take(port: &Port) {
    ///     let _ = port.adopt(7, DeviceKind::File, 0);
    /// }
    /// ```
    ///
    /// ```compile_fail
    /// # use wharf::raw::{DeviceKind, Port};
    /// fn take(port: &Port) {
    ///     let _ = port.adopt_raw(7, DeviceKind::File, 0);
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// The system's number, and the source, which is as it was.
    pub fn adopt<S: Owned>(&self, source: S, kind: DeviceKind, key: usize) -> Result<Device, (i32, S)> {
        let handle = source.into_handle();
        let taken = self.0.take_over(handle, kind, key);
        given_back(taken, handle)
    }

    /// [`adopt`](Port::adopt), of a number. On failure it stays the caller's.
    ///
    /// # Safety
    ///
    /// The number is that of an open descriptor, and on success nobody but the port uses or closes it any more: it is
    /// closed with the device.
    #[allow(unsafe_code)]
    pub unsafe fn adopt_raw(&self, handle: Handle, kind: DeviceKind, key: usize) -> Result<Device, i32> {
        self.0.take_over(handle, kind, key).map(Device)
    }

    /// Gives a stream socket that is not connected, bound or with options set, to the port for
    /// [`connect`](Port::connect). Otherwise as [`adopt`](Port::adopt).
    pub fn adopt_unconnected<S: Owned>(&self, socket: S, key: usize) -> Result<Device, (i32, S)> {
        let handle = socket.into_handle();
        let taken = self.0.take_over_unconnected(handle, key);
        given_back(taken, handle)
    }

    /// [`adopt_unconnected`](Port::adopt_unconnected), of a number. On failure it stays the caller's.
    ///
    /// # Safety
    ///
    /// As for [`adopt_raw`](Port::adopt_raw).
    #[allow(unsafe_code)]
    pub unsafe fn adopt_unconnected_raw(&self, handle: Handle, key: usize) -> Result<Device, i32> {
        self.0.take_over_unconnected(handle, key).map(Device)
    }

    /// Takes the descriptor out of the port, open. Fails with `EBUSY` (16; on Windows `ERROR_BUSY`, 170) while
    /// operations are outstanding, with [`EBADF`](super::EBADF) when the device is closed, and with `EINVAL` when it is
    /// another port's. Where the system cannot end an association (before Windows 8.1) the handle cannot be given to a
    /// port again.
    pub fn release_device(&self, device: &Device) -> Result<Released, i32> {
        let handle = self.0.give_up(&device.0)?;
        #[allow(unsafe_code)]
        // SAFETY: it was the port's, which has given it up, open, and will not close it.
        Ok(unsafe { released(&device.0, handle) })
    }

    /// A stream socket for [`connect`](Port::connect), of the peer's address family.
    pub fn open_stream(&self, peer: &SocketAddr, key: usize) -> Result<Device, i32> {
        self.0.open_stream(peer, key).map(Device)
    }

    /// Ends every outstanding operation of the device, one completion each, and closes its descriptor. Receives and
    /// accepts for which something has come end with that, all others with [`ECANCELED`](super::ECANCELED). Does not
    /// block. Closing it again does nothing. A forked child closes its copy of the descriptor, and does nothing else.
    ///
    /// False when the device is another port's: nothing was done.
    pub fn close_device(&self, device: &Device) -> bool {
        self.0.close_device(&device.0)
    }

    /// The port's devices at this moment. None in a forked child.
    pub fn devices(&self) -> Vec<DeviceInfo> {
        self.0.devices()
    }

    /// How many devices the port has. None in a forked child.
    pub fn device_count(&self) -> usize {
        self.0.device_count()
    }

    /// Shuts one or both sides. The sending side is shut after the sends issued before have gone out; receives that
    /// are outstanding stay and still take data (row R-16), new ones fail with `ESHUTDOWN`.
    pub fn shutdown(&self, device: &Device, how: Shutdown) -> Result<(), i32> {
        self.0.shutdown(&device.0, how)
    }

    /// Asks that one operation ends. It delivers its one completion in any case: cancelled, or as it was. A receive
    /// whose data has come, or an accept whose client has, ends with that: the cancel is too late. Bytes that were
    /// moved already are not taken back; a cancelled send leaves a piece of its bytes in the stream.
    pub fn cancel(&self, id: OperationId) -> Cancel {
        self.0.cancel(id)
    }

    /// Takes an operation back that has not begun, without a completion of it: an operation that waits behind another,
    /// or for data or space of which it has had none, a timer, a signal. What its completion would have said is
    /// returned, and no event is signalled. One that has begun (a send of which a part has gone out, a connect, what is
    /// being executed) is [cancelled](Port::cancel).
    ///
    /// Each operation gives one completion, or is withdrawn: here it is `Withdrawn` once at most, and never both.
    ///
    /// On Windows operations of devices are cancelled; only timers and signals are withdrawn.
    pub fn withdraw(&self, id: OperationId) -> Withdrawal<Completion> {
        self.0.withdraw(id)
    }

    /// Asks that every outstanding operation of a device ends. Returns how many there were: none of a device of another
    /// port, and none in a forked child.
    pub fn cancel_all(&self, device: &Device) -> usize {
        self.0.cancel_all(&device.0)
    }

    /// Asks that those outstanding operations of a device end that have this token. As after a
    /// [`cancel`](Port::cancel), each delivers its one completion. For whoever knows the address of a record, and not
    /// the operation's name.
    ///
    /// Returns how many there were. An operation that is being tried at that very moment, which takes no longer than a
    /// system call that does not wait, ends as well unless it succeeds, but is not counted.
    pub fn cancel_token(&self, device: &Device, token: usize) -> usize {
        self.0.cancel_named(&device.0, Name::Token(token))
    }

    /// Asks that those outstanding operations of a device end that were issued by threads with this
    /// [tag](super::set_issuer). Returns how many there were, as [`cancel_token`](Port::cancel_token) does.
    pub fn cancel_issued_by(&self, device: &Device, tag: u32) -> usize {
        self.0.cancel_named(&device.0, Name::Issuer(tag))
    }

    /// Queues a packet. A closed port gives it back.
    #[inline]
    pub fn post(&self, post: Post) -> Result<(), Post> {
        self.0.post(post)
    }

    /// Queues a packet that says so: as [`post`](Port::post), with an error of the system's numbers in it. For the
    /// later stages of something that the caller puts together of several operations, which may end on another port
    /// than the one that they began on. 0 is no error.
    ///
    /// ```
    /// # use wharf::raw::{Config, ECANCELED, Port, Post};
    /// let port = Port::new(Config::default())?;
    /// port.post_with_error(Post { key: 1, token: 2, bytes: 3 }, ECANCELED).unwrap();
    /// let packet = port.get(None).unwrap();
    /// assert_eq!((packet.key, packet.token, packet.bytes, packet.error), (1, 2, 3, ECANCELED));
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn post_with_error(&self, post: Post, error: i32) -> Result<(), Post> {
        let completion = Box::new(Completion { error, ..post.into() });
        self.0.post_packet(completion).map_err(|back| Post { key: back.key, token: back.token, bytes: back.bytes })
    }

    /// Queues a function: the thread that takes it from the queue, inside its `get`, calls it with `context`, having a
    /// slot as for a packet, and then takes the next entry. It stands in one order with packets, may block as a handler
    /// may, and nothing is allocated for it. A panic comes out of the `get`; in a pool it is a handler's.
    ///
    /// Each is called once: by a worker ([`Ran::Worker`]), or, where it is still queued when the port is closed, by
    /// whoever closes it ([`Ran::Closed`]), to free what `context` stands for. A `get` with a time-out returns later by
    /// what functions take; once its time is over, it takes no more than 64 of them before it gives up.
    ///
    /// A closed port gives `context` back, and the function is not called.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use wharf::raw::{Config, Port, Ran};
    /// use std::sync::atomic::{AtomicUsize, Ordering};
    /// static SUM: AtomicUsize = AtomicUsize::new(0);
    ///
    /// let port = Port::new(Config::default())?;
    /// let add = |number, ran| {
    ///     if ran == Ran::Worker {
    ///         SUM.fetch_add(number, Ordering::Relaxed);
    ///     }
    /// };
    /// port.run(add, 40).unwrap();
    /// port.run(add, 2).unwrap();
    /// assert!(port.get(Some(Duration::ZERO)).is_err(), "there is no packet");
    /// assert_eq!(SUM.load(Ordering::Relaxed), 42);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    #[inline]
    pub fn run(&self, call: fn(usize, Ran), context: usize) -> Result<(), usize> {
        self.0.run(call, context)
    }

    /// Queues a packet unless `limit` entries are queued. The flag tells whether the port is closed.
    ///
    /// On Windows two that try at the same moment may both succeed: the kernel offers no such call.
    #[inline]
    pub fn try_post(&self, post: Post, limit: usize) -> Result<(), (Post, bool)> {
        self.0.try_post(post, limit)
    }

    /// Takes the next packet. `None` waits for ever, zero does not wait.
    ///
    /// Fails with [`GetError::Interrupted`] when the thread's [`waker`](Port::waker) was used, packets or not.
    #[inline]
    pub fn get(&self, timeout: Option<Duration>) -> Result<Completion, GetError> {
        self.0.get(timeout)
    }

    /// Waits as [`get`](Port::get) does, and takes up to `most` packets that are there then: they are appended to
    /// `into`, in the order of the queue, and their number is returned. What was taken for them has been done when the
    /// call returns (a receive that was found ready is executed), so none of them can be given back; the thread has one
    /// slot for all. Where what is queued comes to nothing, there are fewer than could be.
    ///
    /// Errors are those of `get`, and [`GetError::NoRoom`] when `most` is 0 (row D-46); nothing is appended then.
    pub fn get_into(
        &self,
        into: &mut Vec<Completion>,
        most: usize,
        timeout: Option<Duration>,
    ) -> Result<usize, GetError> {
        let before = into.len();
        let (first, rest) = self.0.get_many_interruptibly(most, Deadline::after(timeout))?;
        into.push(first);
        into.extend(std::iter::from_fn(|| self.0.next_of(&rest)));
        Ok(into.len() - before)
    }

    /// What ends the calling thread's `get`: see [`Waker`]. The thread belongs to the port from now on, as after a
    /// `get`. `None` in a forked child, and while the thread is being torn down.
    pub fn waker(&self) -> Option<Waker> {
        Waker::here(&self.0)
    }

    /// Makes the calling thread the port's supervisor, until the port is closed: while no thread is inside
    /// [`get`](Port::get), it waits for the sockets in their place. What the port does itself goes on then: sends that
    /// the system has taken a part of, accepting, connecting, timers, and what they signal. A packet waits for a thread
    /// that gets it; none is lost.
    ///
    /// A pool has a supervisor of its own ([`CompletionPort::start`](crate::CompletionPort::start)). Of several threads
    /// that call this, and the pools', one supervises at a time; the others sleep until it ends. The thread leaves the
    /// port if it has called `get` before, and runs nothing of the program's but what a packet carries that is found as
    /// the port is closed, which it frees. It sleeps while nothing happens.
    ///
    /// Returns at once if the port is closed, and in a forked child. On Windows the kernel does the port's work: the
    /// thread keeps the time for timers.
    pub fn supervise(&self) {
        super::supervise::supervise(&self.0);
    }

    /// Ends the port: waiters return *abandoned*, outstanding operations end, and what they and the queued packets
    /// carry is freed. Devices stay open until they are closed; their issuing calls fail from now on.
    pub fn close(&self) {
        self.0.close()
    }

    /// Whether [`close`](Port::close) was called.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed()
    }

    // --- Sending ---

    /// Issues a send. It completes when the system has taken all bytes (row S-01).
    ///
    /// Fails at once with `ENOTCONN`, `ESHUTDOWN` (this side was shut), `ECONNRESET` (the connection is known to be
    /// broken), [`EBADF`](super::EBADF) or `EINVAL` (not a stream).
    ///
    /// # Safety
    ///
    /// Until the completion was delivered, the memory that `buffers` names must stay valid for reading, initialised
    /// and unchanged.
    #[allow(unsafe_code)]
    #[inline]
    pub unsafe fn send(&self, device: &Device, buffers: Buffers, token: usize, sink: Sink) -> Result<Issued, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.send(&device.0, buffers, token, sink) }
    }

    /// Sends what the system takes now of borrowed memory, if nothing is outstanding on the sending side: no operation,
    /// no packet. It stands in the order of the stream's sends and tears none of them. Returns how many bytes went.
    ///
    /// Fails with `EAGAIN` (`WSAEWOULDBLOCK` on Windows) when sends are outstanding or another thread is just sending,
    /// and when the system takes nothing; otherwise as [`send`](Port::send) does, and with the error that a send's
    /// packet would have.
    ///
    /// # Safety
    ///
    /// During the call the memory that `from` names is valid for reading, initialised and unchanged.
    #[allow(unsafe_code)]
    pub unsafe fn try_send(&self, device: &Device, from: &[RawBuffer]) -> Result<usize, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.send_borrowed(&device.0, from) }
    }

    /// Issues a send of one datagram, to an address or, without one, to the one the socket is connected to. It goes
    /// whole or not at all (row U-08).
    ///
    /// Fails at once with `EMSGSIZE` (90: longer than any datagram, row U-07), `EINVAL` (not a datagram socket) or
    /// [`EBADF`](super::EBADF).
    ///
    /// # Safety
    ///
    /// As for [`send`](Port::send).
    #[allow(unsafe_code)]
    pub unsafe fn send_to(
        &self,
        device: &Device,
        buffers: Buffers,
        to: Option<SocketAddr>,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.send_to(&device.0, buffers, to, token, sink) }
    }

    /// Issues the graceful end of the sending side: after everything sent before has gone out, the peer sees the end
    /// of the stream. Receiving goes on (row X-05).
    pub fn disconnect(&self, device: &Device, token: usize, sink: Sink) -> Result<Issued, i32> {
        self.0.disconnect(&device.0, token, sink)
    }

    /// Issues a connect of a device that [`open_stream`](Port::open_stream) made. An end that is known at once
    /// (refused, unreachable) still comes as a packet. After a failure the device may be connected again.
    ///
    /// Fails at once with `EISCONN`, `EINVAL` (a connect is outstanding, or not a stream), `EADDRNOTAVAIL` (the
    /// unspecified address, row N-09) and with what the system refuses to try.
    pub fn connect(&self, device: &Device, peer: &SocketAddr, token: usize, sink: Sink) -> Result<Issued, i32> {
        self.0.connect(&device.0, peer, token, sink)
    }

    // --- Receiving ---

    /// Issues a receive. With [`Buffers::Pooled`] the buffer is taken from the port's pool when data is there. With no
    /// space in the buffers (or [`Kind::Readable`](super::Kind::Readable)) it waits for data, and takes none (row
    /// R-08).
    ///
    /// Fails at once with `ENOTCONN`, `ESHUTDOWN`, `ECONNRESET` (the connection is known to be reset),
    /// [`EBADF`](super::EBADF) (the device or port is closed) or `EINVAL` (neither a stream nor a pipe or the like, or
    /// a list of buffers that is empty).
    ///
    /// # Safety
    ///
    /// Until the completion was delivered, the memory that `buffers` names must stay valid for writing, and nobody
    /// else may read or write it.
    #[allow(unsafe_code)]
    #[inline]
    pub unsafe fn receive(&self, device: &Device, buffers: Buffers, token: usize, sink: Sink) -> Result<Issued, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.receive(&device.0, buffers, token, sink) }
    }

    /// Issues a receive that takes its bytes as `flags` say. Otherwise as [`receive`](Port::receive), in one order with
    /// the others: each waits for those before it.
    ///
    /// - [`WAIT_ALL`](ReceiveFlags::WAIT_ALL): it completes when the buffers are full (row R-03), at the end of the
    ///   stream with the bytes before it, and with what it has when it fails or is cancelled: `bytes` counts them
    ///   beside the error, and none is lost. It is *begun* with the first byte.
    /// - [`PEEK`](ReceiveFlags::PEEK): as a receive, and the bytes stay, for the next one.
    /// - [`OUT_OF_BAND`](ReceiveFlags::OUT_OF_BAND): it waits for urgent data and brings the byte; at the end of the
    ///   stream it completes with 0 bytes.
    ///
    /// Fails at once with `EINVAL` also when `WAIT_ALL` stands beside another flag, when there is a flag and the buffer
    /// is to be the pool's, and for `PEEK` and `OUT_OF_BAND` on what is no stream socket.
    ///
    /// On Windows a peek is refused (`WSAEOPNOTSUPP`): only calls that are not overlapped peek there (row R-04).
    ///
    /// # Safety
    ///
    /// As for [`receive`](Port::receive).
    #[allow(unsafe_code)]
    pub unsafe fn receive_with(
        &self,
        device: &Device,
        buffers: Buffers,
        flags: ReceiveFlags,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.receive_with(&device.0, buffers, flags, token, sink) }
    }

    /// Receives what is there now into borrowed memory, if no receive is outstanding: no operation, no packet. Returns
    /// how many bytes came; 0 is the end of the stream, unless there is no space, in which case nothing is done.
    ///
    /// Fails with `EAGAIN` (`WSAEWOULDBLOCK` on Windows) when receives are outstanding, which it does not overtake, and
    /// when nothing is there; otherwise as [`receive`](Port::receive) does, and with the error that a receive's packet
    /// would have.
    ///
    /// # Safety
    ///
    /// During the call the memory that `into` names is valid for writing, and nobody else reads or writes it.
    #[allow(unsafe_code)]
    pub unsafe fn try_receive(&self, device: &Device, into: &[RawBuffer]) -> Result<usize, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.receive_borrowed(&device.0, into) }
    }

    /// Issues a wait that completes ([`Kind::Readable`](super::Kind::Readable)) when data, or the end of the stream,
    /// may be there: at once if nobody has found the stream empty since something last came, otherwise when something
    /// comes. It makes no system call, and may complete though there is nothing; then the next receive finds that, and
    /// the next wait does wait. For [`try_receive`](Port::try_receive), which goes before it. Receives that are issued
    /// behind it wait for it.
    ///
    /// Fails as [`receive`](Port::receive) does. On Windows it is a receive of no bytes.
    pub fn watch_readable(&self, device: &Device, token: usize, sink: Sink) -> Result<Issued, i32> {
        self.0.watch_readable(&device.0, token, sink)
    }

    /// Issues a wait that completes ([`Kind::Writable`](super::Kind::Writable)) when the system may take more of what
    /// is sent: behind the sends that were issued before, at once if nobody has found it full since, otherwise when
    /// space comes. It makes no system call, and may complete though there is no space. For
    /// [`try_send`](Port::try_send), which goes before it. What is issued behind it waits for it.
    ///
    /// Fails as [`send`](Port::send) does. On Windows it is refused (`WSAEOPNOTSUPP`): the kernel has no such
    /// operation.
    pub fn watch_writable(&self, device: &Device, token: usize, sink: Sink) -> Result<Issued, i32> {
        self.0.watch_writable(&device.0, token, sink)
    }

    /// Issues a receive of one datagram; its packet says who sent it ([`Payload::Datagram`](super::Payload::Datagram)).
    /// A datagram longer than the buffers fills them, loses the rest and fails with `EMSGSIZE` (90) and the bytes that
    /// fitted (row U-02). Without buffers it takes a datagram and all of it is lost (row U-04). Of more than 1024
    /// pieces the first 1024 are used.
    ///
    /// On Windows with [`Buffers::Pooled`] the buffer is taken from the pool when the receive is issued, and a socket
    /// that is not bound is refused with `EINVAL`.
    ///
    /// Fails at once with `EINVAL` (not a datagram socket, or a list of buffers that is empty) or
    /// [`EBADF`](super::EBADF).
    ///
    /// # Safety
    ///
    /// As for [`receive`](Port::receive).
    #[allow(unsafe_code)]
    pub unsafe fn receive_from(
        &self,
        device: &Device,
        buffers: Buffers,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.receive_from(&device.0, buffers, token, sink) }
    }

    /// Issues a wait for the child process behind a device ([`DeviceKind::Handle`](super::DeviceKind::Handle), a
    /// `pidfd`) to end: the completion's byte count is its status, as `waitpid` tells it. The status is told once; a
    /// later wait fails with `ECHILD`.
    ///
    /// On Windows the byte count is the exit code.
    pub fn wait_child(&self, device: &Device, token: usize, sink: Sink) -> Result<Issued, i32> {
        self.0.wait_child(&device.0, token, sink)
    }

    /// Issues an accept; its packet carries the connection ([`Payload::Accepted`](super::Payload::Accepted)), which
    /// belongs to no port yet.
    ///
    /// While the process has no free descriptor the operation stays outstanding; it goes on when one is closed here,
    /// and is tried every 100 ms.
    ///
    /// A socket that listens no more (another holder of it has shut it down) ends the accepts that are outstanding with
    /// `EINVAL`; every later one is refused with it, so that a loop that issues one accept for each packet comes to an
    /// end.
    pub fn accept(&self, device: &Device, token: usize, sink: Sink) -> Result<Issued, i32> {
        self.0.accept(&device.0, token, sink)
    }

    // --- Datagrams ---

    /// Issues sends of one datagram each, as [`send_to`](Port::send_to) does, but all under one lock and before the
    /// first is tried: several go out with one system call. The results are in the order of the datagrams; one that is
    /// refused says nothing about the others.
    ///
    /// # Safety
    ///
    /// As for [`send`](Port::send), for each of them.
    #[allow(unsafe_code)]
    pub unsafe fn send_to_many(&self, device: &Device, datagrams: Vec<Outgoing>) -> Vec<Result<Issued, i32>> {
        // SAFETY: the same contract.
        unsafe { self.0.send_to_many(&device.0, datagrams) }
    }

    /// Issues receives of one datagram each, as [`receive_from`](Port::receive_from) does, but all under one lock. The
    /// results are in the order of the receives. None is tried inside the call.
    ///
    /// # Safety
    ///
    /// As for [`receive`](Port::receive), for each of them.
    #[allow(unsafe_code)]
    pub unsafe fn receive_from_many(&self, device: &Device, receives: Vec<Incoming>) -> Vec<Result<Issued, i32>> {
        // SAFETY: the same contract.
        unsafe { self.0.receive_from_many(&device.0, receives) }
    }

    /// Has refusals of datagrams reported to receives, one each, with the address that the datagram was sent to; or
    /// not. Then no send is told of one.
    ///
    /// On Windows (`SIO_UDP_CONNRESET`) nothing says which datagram was refused.
    pub fn report_refusals(&self, device: &Device, on: bool) -> Result<(), i32> {
        self.0.report_refusals(&device.0, on)
    }

    // --- Files and streams ---

    /// Issues a send of memory and parts of files, in order, as one run of bytes. It completes when the system has
    /// taken all of them; `bytes` is their sum. It does not wait for a disk.
    ///
    /// Fails at once as [`send`](Port::send) does, and with `EINVAL` when a part of a file lies beyond what a file can
    /// have, and with `ENOTCONN` on a datagram socket (row T-07). A file that turns out shorter ends the operation with
    /// `ENODATA` (61); what was sent before is not taken back (row T-13).
    ///
    /// # Safety
    ///
    /// As for [`send`](Port::send); and until the completion was delivered, the files' descriptors stay open (row
    /// T-14).
    #[allow(unsafe_code)]
    pub unsafe fn send_parts(
        &self,
        device: &Device,
        parts: Vec<Part>,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.send_parts(&device.0, parts, token, sink) }
    }

    /// Issues a read at an offset. It completes when the buffers are full or the end of the file was met: with fewer
    /// bytes, or none (row F-02).
    ///
    /// Fails at once with `EACCES` (not open for reading, row F-10), `EINVAL` (not a file, or an offset beyond what a
    /// file can have, row F-06) or [`EBADF`](super::EBADF) (the device or port is closed).
    ///
    /// # Safety
    ///
    /// Until the completion was delivered, the memory that `buffers` names must stay valid for writing, and nobody
    /// else may read or write it.
    #[allow(unsafe_code)]
    pub unsafe fn read_file(
        &self,
        device: &Device,
        buffers: Buffers,
        offset: u64,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.read_file(&device.0, buffers, offset, token, sink) }
    }

    /// Issues a write at an offset, or, with `None`, behind the end of the file (row F-05). It completes when all bytes
    /// are in the file, though not on the disk: see [`sync_file`](Port::sync_file). A gap reads as zeros (row F-07).
    ///
    /// Fails at once as [`read_file`](Port::read_file) does.
    ///
    /// # Safety
    ///
    /// Until the completion was delivered, the memory that `buffers` names must stay valid for reading, initialised
    /// and unchanged.
    #[allow(unsafe_code)]
    pub unsafe fn write_file(
        &self,
        device: &Device,
        buffers: Buffers,
        offset: Option<u64>,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        // SAFETY: the same contract.
        unsafe { self.0.write_file(&device.0, buffers, offset, token, sink) }
    }

    /// Issues a sync: it completes when what was written before is on the disk, with the file's metadata or,
    /// `data_only`, with as much of it as is needed to read the data.
    ///
    /// On Windows there is no difference, and one of the system's threads waits for it.
    pub fn sync_file(&self, device: &Device, data_only: bool, token: usize, sink: Sink) -> Result<Issued, i32> {
        self.0.sync_file(&device.0, data_only, token, sink)
    }

    /// What runs file operations that wait, once one has.
    pub fn file_engine(&self) -> Option<&'static str> {
        self.0.file_engine()
    }

    // --- Progress ---

    /// Bytes that the system has taken for sending on a stream since it belongs to the port, with what it has taken of
    /// a send that is not complete. Costs no system call.
    ///
    /// On Windows only sends that are complete count.
    pub fn bytes_taken(&self, device: &Device) -> u64 {
        self.0.bytes_taken(&device.0)
    }

    /// Bytes that the system has taken for sending and that the peer's system has not acknowledged (`SIOCOUTQ`); the
    /// end of the stream counts as one. Of a stream of the machine's own: the memory of what the peer has not read.
    /// `None`: the system does not tell, or the device is closed.
    ///
    /// On Windows it is always `None`.
    pub fn unacknowledged(&self, device: &Device) -> Option<u64> {
        self.0.unacknowledged(&device.0)
    }

    // --- Timers and signals ---

    /// Issues a timer: one packet after `after`, and then, with a `period`, one packet every `period`, until it is
    /// cancelled; the last packet of a periodic timer says [`ECANCELED`](super::ECANCELED). The byte count says how
    /// many periods have elapsed since the last packet: while one is queued no further one is.
    ///
    /// Fails at once with `EINVAL` when the period is shorter than [`PERIOD_LEAST`](super::PERIOD_LEAST), and with
    /// [`EBADF`](super::EBADF).
    pub fn timer(
        &self,
        after: Duration,
        period: Option<Duration>,
        key: usize,
        token: usize,
        sink: Sink,
        retain: Retain,
    ) -> Result<OperationId, i32> {
        self.0.timer(after, period, key, token, sink, retain)
    }

    /// A timer that is outstanding elapses `after` from now instead of when it would have; a periodic one does, and
    /// then each period from there. One packet that a periodic timer has queued already comes all the same. Returns
    /// whether the timer was outstanding: if not, its packet is queued or was taken, it was cancelled, or it is no
    /// timer of this port, and nothing was done.
    ///
    /// Putting it off touches nothing but its time, so that a time-out which is put off with each message costs next to
    /// nothing.
    pub fn reset_timer(&self, id: OperationId, after: Duration) -> bool {
        self.0.reset_timer(id, after)
    }

    /// From now on each arrival of `signal` in the process is a packet, until the operation is cancelled; its last
    /// packet says [`ECANCELED`](super::ECANCELED). Fails for a signal that cannot be caught.
    ///
    /// On Windows these are `SIGINT`, `SIGBREAK` and `SIGTERM` ([`signal`](crate::signal)), which the system tells of
    /// the console; others fail.
    pub fn signal(
        &self,
        signal: i32,
        key: usize,
        token: usize,
        sink: Sink,
        retain: Retain,
    ) -> std::io::Result<OperationId> {
        self.0.signal(signal, key, token, sink, retain)
    }
}
