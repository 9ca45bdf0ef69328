//! What all devices of the safe layer have in common: how they come to a port and leave it, and how operations are
//! issued on them.

#[cfg(unix)]
mod unix;
#[cfg(windows)]
mod windows;

#[cfg(unix)]
pub(crate) use unix::by_descriptor;
#[cfg(windows)]
pub(crate) use windows::by_descriptor;

use crate::op::buffer::Buffer;
use crate::port::branch::{Link, Linked};
use crate::port::packet::Packet;
use crate::port::record::{Memory, Record};
use crate::port::refused::{Refused, Rejected};
use crate::port::word;
use crate::port::{Context, Key, assemble};
use crate::raw::{self, Buffers, DeviceKind, Issued, OperationId, RawBuffer};
use crate::sys::{self, Owned};
use rustix::fd::BorrowedFd;
use std::io;
use std::marker::PhantomData;
use std::sync::Arc;

/// What a call that issues an operation came to.
#[derive(Debug)]
pub enum Outcome<K, C> {
    /// Its packet will come, or has come, out of the port.
    Pending(OperationId),
    /// It is done, and this is its packet; none is queued. Only after `skip_on_success`.
    Done(Packet<K, C>),
}

impl<K, C> From<Outcome<K, C>> for Option<OperationId> {
    fn from(outcome: Outcome<K, C>) -> Self {
        match outcome {
            Outcome::Pending(id) => Some(id),
            Outcome::Done(_) => None,
        }
    }
}

/// What can be [associated](crate::CompletionPort::associate) with a port: std's sockets, as they are.
pub trait Associate<K, C>: Sized {
    /// What it is from then on.
    type Device;

    #[doc(hidden)]
    fn associate(self, route: &Route<'_, K, C>, key: K) -> Result<Self::Device, Rejected<Self, K>>;

    /// The same of what an accept has brought, as it was brought.
    #[doc(hidden)]
    fn associate_accepted(self, route: &Route<'_, K, C>, key: K) -> Result<Self::Device, Rejected<Self, K>> {
        self.associate(route, key)
    }
}

/// Where a device's operations and their packets go: to a port, and there to the port's own `get` or to a branch's
/// handler.
#[doc(hidden)]
pub struct Route<'a, K, C> {
    pub(crate) port: &'a raw::Port,
    pub(crate) link: Link<K, C>,
}

/// What all handles to one device share. The last of them closes it.
pub(crate) struct Shared<K, C> {
    pub(crate) port: raw::Port,
    pub(crate) device: raw::Device,
    pub(crate) key: K,
    context: PhantomData<fn() -> C>,
}

impl<K, C> Shared<K, C> {
    /// The first handle to a device.
    pub(crate) fn new(route: &Route<'_, K, C>, device: raw::Device, key: K) -> Arc<Self> {
        let shared = Arc::new(Shared { port: route.port.clone(), device, key, context: PhantomData });
        // No operation has been issued yet.
        shared.device.set_key(Linked::key_of(&route.link, Arc::as_ptr(&shared)));
        shared
    }

    /// A handle for an operation, to be taken back from its completion's key with [`from_key`](Shared::from_key).
    fn hold(self: &Arc<Self>) {
        let _ = Arc::into_raw(self.clone()).expose_provenance();
    }

    /// The handle that an operation held.
    ///
    /// # Safety
    ///
    /// `key` came with the completion of an operation that was issued with [`hold`](Shared::hold), on a device of a
    /// port with these K and C, or is that device's own after the operation was refused; each time it is called for it
    /// once.
    #[allow(unsafe_code)]
    pub(crate) unsafe fn from_key(key: usize) -> Arc<Self> {
        // SAFETY: by the contract the key is a device's, which is there as long as the count.
        let shared = unsafe { Linked::<K, C>::device_of(key) };
        // SAFETY: by the contract there is a count that nobody else gives back.
        unsafe { Arc::from_raw(shared) }
    }
}

impl<K, C> Drop for Shared<K, C> {
    fn drop(&mut self) {
        self.port.close_device(&self.device);
        #[allow(unsafe_code)]
        // SAFETY: it is this device's key, and no operation is outstanding whose completion would bring it: each holds
        // a handle.
        unsafe {
            Linked::<K, C>::free(self.device.key());
        }
    }
}

/// What all kinds of devices have in common: `$device` holds an `Arc<Shared>`.
macro_rules! device {
    ($device:ident) => {
        $crate::port::associate::by_descriptor!($device);

        impl<K, C> Clone for $device<K, C> {
            fn clone(&self) -> Self {
                $device(self.0.clone())
            }
        }

        impl<K, C> std::fmt::Debug for $device<K, C> {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, concat!(stringify!($device), "(device {:#x})"), self.0.device.number())
            }
        }

        impl<K: $crate::Key, C: $crate::Context> $device<K, C> {
            /// The key it was associated with.
            pub fn key(&self) -> &K {
                &self.0.key
            }

            /// Its number in the port's device list: never 0, and never used again for another device of the port.
            pub fn number(&self) -> u64 {
                self.0.device.number()
            }

            /// From now on an operation that succeeds inside the issuing call returns its packet there
            /// ([`Outcome::Done`]($crate::Outcome::Done)), and none is queued. Cannot be taken back.
            #[doc(alias = "FILE_SKIP_COMPLETION_PORT_ON_SUCCESS")]
            pub fn skip_on_success(&self) {
                self.0.device.skip_on_success();
            }

            /// Asks that one operation ends. Whatever the answer, its one packet comes: cancelled, or as it was. What a
            /// disk is at work on is seldom given up. An operation of another device is
            /// [`Foreign`]($crate::Cancel::Foreign), and goes on.
            #[doc(alias = "CancelIoEx")]
            pub fn cancel(&self, operation: $crate::OperationId) -> $crate::Cancel {
                self.0.port.0.cancel_of(&self.0.device.0, operation)
            }

            /// Asks that every outstanding operation of this device ends; returns how many there were.
            #[doc(alias = "CancelIoEx")]
            pub fn cancel_all(&self) -> usize {
                self.0.port.cancel_all(&self.0.device)
            }

            /// Asks that those outstanding operations of this device end that were issued by threads with this
            /// [tag](crate::raw::set_issuer); returns how many there were.
            #[doc(alias = "CancelIo")]
            pub fn cancel_issued_by(&self, tag: u32) -> usize {
                self.0.port.cancel_issued_by(&self.0.device, tag)
            }

            /// Closes it now, whoever else holds a handle: outstanding operations end as cancelled, those of a file
            /// perhaps as they were, one packet each. Does not block. Sends that the system has not taken yet are lost;
            /// a stream has `disconnect`.
            #[doc(alias = "closesocket")]
            #[doc(alias = "CloseHandle")]
            pub fn close(&self) {
                self.0.port.close_device(&self.0.device);
            }

            /// The raw layer's name for it.
            pub fn raw(&self) -> &$crate::raw::Device {
                &self.0.device
            }
        }
    };
}
pub(crate) use device;

/// Gives a descriptor to the port, or back to the caller.
pub(crate) fn adopt<K, C, S: Owned>(
    route: &Route<'_, K, C>,
    source: S,
    kind: DeviceKind,
    key: K,
) -> Result<Arc<Shared<K, C>>, Rejected<S, K>> {
    match route.port.adopt(source, kind, 0) {
        Ok(device) => Ok(Shared::new(route, device, key)),
        Err((error, source)) => Err(Rejected { error: refusal(route.port, error), source, key }),
    }
}

/// The error of a call that was not accepted, with its cause where the number alone would mislead.
pub(crate) fn refusal(port: &raw::Port, error: i32) -> io::Error {
    if error == raw::EBADF && !port.0.is_home() {
        return crate::error::forked();
    }
    if error == raw::EBADF {
        let what = if port.is_closed() { "the port is closed" } else { "the device is closed" };
        return io::Error::new(io::ErrorKind::NotConnected, what);
    }
    io::Error::from_raw_os_error(error)
}

fn not_writable() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidInput,
        "shared or static memory cannot be received into; give a Vec or Buffer::with_capacity",
    )
}

impl<K: Key, C: Context> Shared<K, C> {
    /// The descriptor, for a call that does not outlive this borrow of the handle.
    pub(crate) fn with_fd<R>(&self, call: impl FnOnce(BorrowedFd<'_>) -> io::Result<R>) -> io::Result<R> {
        self.port.0.with_handle(&self.device.0, |handle| {
            #[allow(unsafe_code)]
            // SAFETY: `with_handle` keeps the descriptor open for the length of the call.
            call(unsafe { sys::borrow(handle) })
        })
    }

    /// The file, for a call that does not outlive this borrow of the handle.
    pub(crate) fn with_file<R>(&self, call: impl FnOnce(&std::fs::File) -> io::Result<R>) -> io::Result<R> {
        self.port.0.with_handle(&self.device.0, |handle| {
            #[allow(unsafe_code)]
            // SAFETY: `with_handle` keeps the descriptor open for the length of the call.
            unsafe {
                sys::with_file(handle, call)
            }
        })
    }

    pub(crate) fn release<S: Owned>(self: Arc<Self>) -> Result<S, (io::Error, Arc<Self>)> {
        match self.port.0.give_up(&self.device.0) {
            Ok(handle) => {
                #[allow(unsafe_code)]
                // SAFETY: the port has given the descriptor away, and will not close it.
                Ok(unsafe { S::from_handle(handle) })
            }
            Err(error) => Err((refusal(&self.port, error), self)),
        }
    }

    /// Issues an operation that has memory.
    pub(crate) fn issue(
        self: &Arc<Self>,
        context: C,
        memory: Memory,
        issue: impl FnOnce(&mut Memory, usize) -> Result<Issued, i32>,
    ) -> Result<Outcome<K, C>, (io::Error, C, Memory)> {
        let mut record = Record::new(context, memory);
        let memory: *mut Memory = record.memory();
        let token = record.into_token();
        self.hold();
        #[allow(unsafe_code)]
        // SAFETY: the record lives on at its token's address. Until `issue` passes the operation on nobody else knows
        // the token, and the closures below read the buffers' addresses before they do; they do not touch `memory`
        // afterwards.
        let memory = unsafe { &mut *memory };
        self.outcome(issue(memory, token)).map_err(|error| {
            let (context, memory) = Record::from_token(token);
            (error, context, memory)
        })
    }

    /// After `hold`: what the call came to.
    fn outcome(&self, issued: Result<Issued, i32>) -> Result<Outcome<K, C>, io::Error> {
        match issued {
            Ok(Issued::Pending(id)) => Ok(Outcome::Pending(id)),
            Ok(Issued::Done(completion)) => Ok(Outcome::Done(assemble(completion))),
            Err(error) => {
                #[allow(unsafe_code)]
                // SAFETY: the operation was refused, so no completion will bring the handle back.
                drop(unsafe { Self::from_key(self.device.key()) });
                Err(refusal(&self.port, error))
            }
        }
    }

    /// Issues many operations that have a buffer each, with one call. `name` tells a buffer's memory, or that it cannot
    /// be used; the rest of each operation goes to `issue` as it is. The outcomes are in the order of the operations.
    pub(crate) fn issue_many<T>(
        self: &Arc<Self>,
        operations: Vec<(Buffer, T, C)>,
        name: impl Fn(&mut Buffer) -> Option<RawBuffer>,
        issue: impl FnOnce(Vec<(Buffers, T, usize)>) -> Vec<Result<Issued, i32>>,
    ) -> Vec<Result<Outcome<K, C>, Refused<C>>> {
        let mut tokens = Vec::with_capacity(operations.len());
        let mut named = Vec::with_capacity(operations.len());
        for (buffer, rest, context) in operations {
            let mut record = Record::new(context, Memory::One(buffer));
            let Memory::One(buffer) = record.memory() else { unreachable!("given just above") };
            let memory = name(buffer);
            let token = record.into_token();
            tokens.push((token, memory.is_some()));
            named.extend(memory.map(|memory| (Buffers::One(memory), rest, token)));
        }
        named.iter().for_each(|_| self.hold());
        let mut results = issue(named).into_iter();
        let refused = |token, error| {
            let (context, memory) = Record::from_token(token);
            Refused { error, context, buffer: memory.into_one() }
        };
        let outcome = |(token, named): (usize, bool)| {
            if !named {
                return Err(refused(token, not_writable()));
            }
            let issued = results.next().expect("one for each operation");
            self.outcome(issued).map_err(|error| refused(token, error))
        };
        tokens.into_iter().map(outcome).collect()
    }

    /// Issues many operations without memory of their own.
    pub(crate) fn issue_many_plain(
        self: &Arc<Self>,
        contexts: Vec<C>,
        issue: impl FnOnce(&[usize]) -> Vec<Result<Issued, i32>>,
    ) -> Vec<Result<Outcome<K, C>, Refused<C, ()>>> {
        let tokens: Vec<usize> = contexts.into_iter().map(word::pack).collect();
        tokens.iter().for_each(|_| self.hold());
        let outcome = |(issued, token): (Result<Issued, i32>, usize)| {
            self.outcome(issued).map_err(|error| {
                #[allow(unsafe_code)]
                // SAFETY: packed just above, and no completion will bring it back.
                let context = unsafe { word::unpack(token) };
                Refused { error, context, buffer: () }
            })
        };
        issue(&tokens).into_iter().zip(tokens).map(outcome).collect()
    }

    /// Issues an operation that fills a buffer, from its start up to its capacity.
    pub(crate) fn issue_into(
        self: &Arc<Self>,
        buffer: Buffer,
        context: C,
        issue: impl FnOnce(Buffers, usize) -> Result<Issued, i32>,
    ) -> Result<Outcome<K, C>, Refused<C>> {
        if !buffer.is_writable() {
            return Err(Refused { error: not_writable(), context, buffer });
        }
        self.issue_one(buffer, context, |buffer, token| {
            issue(Buffers::One(buffer.space().expect("looked at above")), token)
        })
    }

    /// Issues an operation that reads a buffer's bytes.
    pub(crate) fn issue_from(
        self: &Arc<Self>,
        buffer: Buffer,
        context: C,
        issue: impl FnOnce(Buffers, usize) -> Result<Issued, i32>,
    ) -> Result<Outcome<K, C>, Refused<C>> {
        self.issue_one(buffer, context, |buffer, token| issue(Buffers::One(buffer.content()), token))
    }

    fn issue_one(
        self: &Arc<Self>,
        buffer: Buffer,
        context: C,
        issue: impl FnOnce(&mut Buffer, usize) -> Result<Issued, i32>,
    ) -> Result<Outcome<K, C>, Refused<C>> {
        self.issue(context, Memory::One(buffer), |memory, token| {
            let Memory::One(buffer) = memory else { unreachable!("given just above") };
            issue(buffer, token)
        })
        .map_err(|(error, context, memory)| Refused { error, context, buffer: memory.into_one() })
    }

    /// Issues an operation without memory of its own.
    pub(crate) fn issue_plain(
        self: &Arc<Self>,
        context: C,
        issue: impl FnOnce(usize) -> Result<Issued, i32>,
    ) -> Result<Outcome<K, C>, Refused<C, ()>> {
        let token = word::pack(context);
        self.hold();
        self.outcome(issue(token)).map_err(|error| {
            #[allow(unsafe_code)]
            // SAFETY: packed just above, and no completion will bring it back.
            let context = unsafe { word::unpack(token) };
            Refused { error, context, buffer: () }
        })
    }
}
