//! A part of a port with keys, contexts and a handler of its own.
//!
//! A branch's operations are the port's like all others: in its queue, under its limit, taken by its threads. Whoever
//! takes a completion first looks whose it is. It leads to a record that begins with a [`Link`], to the branch's
//! [`Body`], which begins with the functions that know the branch's types. So the port's `get` can hand the completion
//! over without knowing them. The record is the timer's or the post's own (there the port's own have a link to
//! nothing), and for a device a [`Linked`], whose address, with the lowest bit set, is the device's key: the port's own
//! devices have none, and pay for one look at that bit.

use super::assemble::assemble;
use super::associate::{Associate, Route, Shared};
use super::net::{Addresses, Listener, Stream};
use super::packet::Packet;
use super::record::TimerRecord;
use super::refused::{Refused, Rejected, Unposted, UnpostedReason};
use super::stats::PortStats;
use super::{Context, Key, timing};
use crate::op::{Completion, Kind, Payload};
use crate::raw::{self, Cancel, OperationId, Sink, Withdrawal};
use crate::threads::WorkerReport;
use std::fmt;
use std::io;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// A part of a port: its devices, timers and posts have keys and contexts of types of their own, and their packets go
/// to a handler, not out of the port's [`get`](crate::CompletionPort::get). For libraries that are to stand on a port
/// that the program has, whatever its types are.
///
/// ```
/// use wharf::{CompletionPort, Event};
/// use std::sync::mpsc::channel;
///
/// let port = CompletionPort::<&str, ()>::new()?; // the program's
/// let (tell, told) = channel();
/// let branch = port.branch::<u32, u32>(move |packet| tell.send((packet.key, packet.context)).unwrap());
/// branch.post(0, 1, 2).unwrap();
/// port.post(0, "the program's own", ()).unwrap();
/// assert_eq!(port.get()?.key, "the program's own"); // the first was handled in this call
/// assert_eq!(told.recv(), Ok((1, 2)));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// Clones name the same branch. It does not keep the port open, and has no end of its own: close its devices, and
/// cancel its timers, signals and intervals. When the port is closed, what is outstanding of the branch is freed like
/// everything else, and the handler does not hear of it.
///
/// # Who calls the handler
///
/// A thread of the port: inside [`get`](crate::CompletionPort::get), or in a pool in the place of the port's own
/// handler, with the slot that a packet's taker has. It may block, and is replaced as others are. Several threads may
/// call it at the same time. A `get` with a time-out returns later by what handlers take; once its time is over, it
/// handles no more than 64 packets of branches before it gives up. A panic comes out of the `get`; a pool goes on, as
/// after any handler's.
pub struct Branch<K, C> {
    port: raw::Port,
    link: Link<K, C>,
}

/// What is known of a branch without its types. At the beginning of a [`Body`].
#[repr(C)]
pub(super) struct Head {
    /// Has the handler take the packet of a completion of the branch's.
    run: unsafe fn(Completion),
    /// Frees what a completion of the branch's carries.
    free: unsafe fn(Completion),
}

#[repr(C)]
struct Body<K, C> {
    head: Head,
    handler: Box<dyn Fn(Packet<K, C>) + Send + Sync>,
}

/// To a branch, or to nothing: the port's own.
#[repr(transparent)]
pub struct Link<K, C>(*const Body<K, C>);

#[allow(unsafe_code)]
// SAFETY: it stands for an `Arc<Body>`, whose handler is Send and Sync, and which has nothing else.
unsafe impl<K, C> Send for Link<K, C> {}
#[allow(unsafe_code)]
// SAFETY: as above.
unsafe impl<K, C> Sync for Link<K, C> {}

impl<K, C> Link<K, C> {
    pub(crate) const NONE: Link<K, C> = Link(std::ptr::null());

    fn body(&self) -> Option<ManuallyDrop<Arc<Body<K, C>>>> {
        if self.0.is_null() {
            return None;
        }
        #[allow(unsafe_code)]
        // SAFETY: made by `Arc::into_raw`, with a count that lives as long as this value; it is not given back here.
        Some(ManuallyDrop::new(unsafe { Arc::from_raw(self.0) }))
    }
}

impl<K, C> Clone for Link<K, C> {
    fn clone(&self) -> Self {
        self.body().map_or(Link::NONE, |body| Link(Arc::into_raw(Arc::clone(&body))))
    }
}

impl<K, C> Drop for Link<K, C> {
    fn drop(&mut self) {
        drop(self.body().map(ManuallyDrop::into_inner));
    }
}

/// A branch's device: what its key leads to.
#[repr(C)]
pub(crate) struct Linked<K, C> {
    link: Link<K, C>,
    device: *const Shared<K, C>,
}

impl<K, C> Linked<K, C> {
    /// The key in the raw layer of a device.
    pub(super) fn key_of(link: &Link<K, C>, device: *const Shared<K, C>) -> usize {
        if link.0.is_null() {
            return device.expose_provenance();
        }
        Box::into_raw(Box::new(Linked { link: link.clone(), device })).expose_provenance() | 1
    }

    fn at(key: usize) -> Option<*mut Linked<K, C>> {
        (key & 1 == 1).then(|| std::ptr::with_exposed_provenance_mut(key & !1))
    }

    /// The device that has this key.
    ///
    /// # Safety
    ///
    /// [`key_of`](Linked::key_of) has made it for a device that is still there, with these K and C.
    #[allow(unsafe_code)]
    pub(super) unsafe fn device_of(key: usize) -> *const Shared<K, C> {
        match Linked::<K, C>::at(key) {
            // SAFETY: by the contract it is there as long as the device.
            Some(linked) => unsafe { (*linked).device },
            None => std::ptr::with_exposed_provenance(key),
        }
    }

    /// The device goes.
    ///
    /// # Safety
    ///
    /// [`key_of`](Linked::key_of) has made the key, with these K and C, and nobody uses it any more.
    #[allow(unsafe_code)]
    pub(super) unsafe fn free(key: usize) {
        if let Some(linked) = Linked::<K, C>::at(key) {
            // SAFETY: by the contract the box is nobody else's.
            let Linked { link, .. } = *unsafe { Box::from_raw(linked) };
            drop(link);
        }
    }
}

/// Whose a completion of a typed port is: a branch's, or the port's own.
#[inline]
#[allow(unsafe_code)]
pub(super) fn branch_of(completion: &Completion) -> Option<NonNull<Head>> {
    // First what most are: an operation of one of the port's own devices.
    if completion.device != 0 && completion.key & 1 == 0 {
        return None;
    }
    let record = match completion.kind {
        // Of a post only a branch's has a record.
        Kind::Posted if !completion.named_memory => return None,
        Kind::Posted => completion.token,
        Kind::Elapsed | Kind::Signal => completion.token & !1,
        _ if completion.key & 1 == 0 => return None,
        _ => completion.key & !1,
    };
    // SAFETY: the completion holds a count of its record, or owns it: a device's `Linked`, a `TimerRecord` or a
    // `RepeatRecord`. Each begins, by `repr(C)`, with a `Link`, which is a pointer to a `Body`, whose head comes first,
    // or null. The body lives as long as the record.
    NonNull::new(unsafe { *std::ptr::with_exposed_provenance::<*mut Head>(record) })
}

/// Whether a completion is the port's own, and no branch's.
#[inline]
pub(super) fn is_own(completion: &Completion) -> bool {
    branch_of(completion).is_none()
}

/// The port's own completion. A branch's goes to its handler.
#[inline]
pub(crate) fn take_raw(completion: Completion) -> Option<Completion> {
    let Some(head) = branch_of(&completion) else { return Some(completion) };
    #[allow(unsafe_code)]
    // SAFETY: the completion is of the branch whose head this is, and keeps it alive up to here.
    unsafe {
        (head.as_ref().run)(completion);
    }
    None
}

/// The port's own packet. A branch's goes to its handler.
#[inline]
pub(crate) fn take<K: Key, C: Context>(completion: Completion) -> Option<Packet<K, C>> {
    take_raw(completion).map(assemble)
}

/// Withdraws an operation of those that ask, whose types are K and C: of others the last packet is queued for them, as
/// if it had been cancelled.
pub(super) fn withdraw<K: Key, C: Context>(
    port: &raw::Port,
    operation: OperationId,
    is_theirs: impl Fn(&Completion) -> bool,
) -> Withdrawal<Packet<K, C>> {
    match port.withdraw(operation) {
        Withdrawal::Withdrawn(completion) if is_theirs(&completion) => Withdrawal::Withdrawn(assemble(completion)),
        Withdrawal::Withdrawn(completion) => {
            port.0.deliver(Sink::Port, completion);
            Withdrawal::Requested
        }
        Withdrawal::Requested => Withdrawal::Requested,
        Withdrawal::TooLate => Withdrawal::TooLate,
        Withdrawal::Foreign => Withdrawal::Foreign,
    }
}

/// Frees what a completion carries that nobody will take.
pub(super) fn free<K: Key, C: Context>(completion: Completion) {
    match branch_of(&completion) {
        None => drop(assemble::<K, C>(completion)),
        #[allow(unsafe_code)]
        // SAFETY: the completion is of the branch whose head this is, and keeps it alive up to here.
        Some(head) => unsafe { (head.as_ref().free)(completion) },
    }
}

/// # Safety
///
/// The completion is of a branch with these K and C.
#[allow(unsafe_code)]
unsafe fn run<K: Key, C: Context>(completion: Completion) {
    let Some(head) = branch_of(&completion) else { return };
    // SAFETY: by the contract the head is the beginning of a body with these types, which the completion's record holds
    // a count of. With one more it outlives the record.
    let body = unsafe {
        let body: *const Body<K, C> = head.as_ptr().cast();
        Arc::increment_strong_count(body);
        Arc::from_raw(body)
    };
    (body.handler)(assemble(completion));
}

/// # Safety
///
/// The completion is of a branch with these K and C.
#[allow(unsafe_code)]
unsafe fn release<K: Key, C: Context>(completion: Completion) {
    drop(assemble::<K, C>(completion));
}

impl<K, C> Clone for Branch<K, C> {
    fn clone(&self) -> Self {
        Branch { port: self.port.clone(), link: self.link.clone() }
    }
}

impl<K, C> fmt::Debug for Branch<K, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Branch").field(&self.port).finish()
    }
}

impl<K: Key, C: Context> Branch<K, C> {
    pub(super) fn new(port: &raw::Port, handler: impl Fn(Packet<K, C>) + Send + Sync + 'static) -> Branch<K, C> {
        let head = Head { run: run::<K, C>, free: release::<K, C> };
        let body = Arc::new(Body { head, handler: Box::new(handler) });
        Branch { port: port.clone(), link: Link(Arc::into_raw(body)) }
    }

    pub(crate) fn route(&self) -> Route<'_, K, C> {
        Route { port: &self.port, link: self.link.clone() }
    }

    /// As [`CompletionPort::associate`](crate::CompletionPort::associate).
    pub fn associate<S: Associate<K, C>>(&self, source: S, key: K) -> Result<S::Device, Rejected<S, K>> {
        source.associate(&self.route(), key)
    }

    /// As [`CompletionPort::associate_accepted`](crate::CompletionPort::associate_accepted).
    pub fn associate_accepted<S: Associate<K, C>>(&self, source: S, key: K) -> Result<S::Device, Rejected<S, K>> {
        source.associate_accepted(&self.route(), key)
    }

    /// As [`CompletionPort::listen`](crate::CompletionPort::listen).
    pub fn listen(&self, address: impl Addresses, key: K) -> io::Result<Listener<K, C>> {
        Ok(self.associate(super::net::listen(address)?, key)?)
    }

    /// As [`CompletionPort::connect`](crate::CompletionPort::connect).
    pub fn connect(&self, peer: SocketAddr, key: K, context: C) -> Result<Stream<K, C>, Refused<C, ()>> {
        Stream::connecting(&self.route(), peer, key, context)
    }

    /// As [`CompletionPort::post`](crate::CompletionPort::post).
    pub fn post(&self, bytes: usize, key: K, context: C) -> Result<(), Unposted<K, C>> {
        let token = TimerRecord::into_token(self.link.clone(), key, context);
        let (kind, payload) = (Kind::Posted, Payload::None);
        let completion =
            Completion { key: 0, token, bytes, error: 0, kind, device: 0, more: false, payload, named_memory: true };
        self.port.0.post_packet(Box::new(completion)).map_err(|completion| {
            let (key, context) = TimerRecord::from_token(completion.token);
            Unposted { reason: UnpostedReason::Closed, key, context }
        })
    }

    /// As [`CompletionPort::timer`](crate::CompletionPort::timer).
    pub fn timer(&self, after: Duration, key: K, context: C) -> Result<OperationId, Refused<C, ()>> {
        timing::timer(&self.route(), after, key, context)
    }

    /// As [`CompletionPort::reset_timer`](crate::CompletionPort::reset_timer).
    pub fn reset_timer(&self, timer: OperationId, after: Duration) -> bool {
        self.port.reset_timer(timer, after)
    }

    /// As [`CompletionPort::interval`](crate::CompletionPort::interval).
    pub fn interval(&self, period: Duration, key: K, context: C) -> io::Result<OperationId>
    where
        C: Clone + Sync,
    {
        timing::interval(&self.route(), period, key, context)
    }

    /// As [`CompletionPort::signal`](crate::CompletionPort::signal).
    pub fn signal(&self, number: i32, key: K, context: C) -> io::Result<OperationId>
    where
        C: Clone + Sync,
    {
        timing::signal(&self.route(), number, key, context)
    }

    /// As [`CompletionPort::cancel`](crate::CompletionPort::cancel).
    pub fn cancel(&self, operation: OperationId) -> Cancel {
        self.port.cancel(operation)
    }

    /// As [`CompletionPort::withdraw`](crate::CompletionPort::withdraw), of the branch's own operations: others are
    /// cancelled.
    pub fn withdraw(&self, operation: OperationId) -> Withdrawal<Packet<K, C>> {
        let own = |completion: &Completion| {
            branch_of(completion).is_some_and(|head| std::ptr::addr_eq(head.as_ptr(), self.link.0))
        };
        withdraw(&self.port, operation, own)
    }

    /// The figures of the whole port.
    pub fn stats(&self) -> PortStats {
        PortStats::of(&self.port)
    }

    /// The threads that belong to the port, whatever they handle.
    pub fn workers(&self) -> Vec<WorkerReport> {
        self.port.0.workers()
    }

    /// Whether the calling thread belongs to the port: it has called its `get`, and none of another port since.
    pub fn is_worker(&self) -> bool {
        self.port.0.is_worker()
    }

    /// Whether both are branches of one port.
    pub fn shares_port<K2, C2>(&self, other: &Branch<K2, C2>) -> bool {
        Arc::ptr_eq(&self.port.0.queue, &other.port.0.queue)
    }
}
