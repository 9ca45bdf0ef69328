//! Files: reads and writes at offsets, and syncs.
//!
//! The issuing call does what can be done without blocking; the rest is the file thread's (`engine::files`). Operations
//! of one file know no order among each other (row F-08): each is on its way by itself, listed in the device so that it
//! can be counted and cancelled.

use super::parts::Fetch;
use super::{
    Buffers, DeviceKind, EBADF, ECANCELED, EINVAL, Issued, Kind, Payload, Port, RawBuffer, Sink, entry, finish,
};
use crate::contain::contain;
use crate::op::Operation;
use crate::reactor::device::{DeviceState, traits};
use crate::reactor::engine::files::{FileThread, Request, Tried, Work, try_now};
use crate::reactor::engine::{Handle, PIECES_MAX};
use crate::sys::errno::{EACCES, ENOSYS};
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// A file operation on its way.
pub(crate) struct Transfer {
    port: Port,
    device: Arc<DeviceState>,
    operation: Operation,
    work: Work,
}

/// What a port's file thread is given.
pub(crate) enum FileRequest {
    /// An operation of a file.
    Transfer(Transfer),
    /// Bytes of a file that a send waits for.
    Fetch(Fetch),
}

/// Calls the request's method.
macro_rules! either {
    ($one:expr, $request:ident => $call:expr) => {
        match $one {
            FileRequest::Transfer($request) => $call,
            FileRequest::Fetch($request) => $call,
        }
    };
}

impl Request for FileRequest {
    fn handle(&self) -> Handle {
        either!(self, request => request.handle())
    }

    fn work(&self) -> Work {
        either!(self, request => request.work())
    }

    fn id(&self) -> (u64, u64) {
        either!(self, request => request.id())
    }

    fn pieces(&mut self, into: &mut Vec<libc::iovec>) {
        either!(self, request => request.pieces(into));
    }

    fn advance(&mut self, bytes: usize) -> bool {
        either!(self, request => request.advance(bytes))
    }

    fn is_wanted(&self) -> bool {
        either!(self, request => request.is_wanted())
    }

    fn end(self, error: i32) {
        either!(self, request => request.end(error));
    }

    fn end_all(ended: Vec<(FileRequest, i32)>) {
        let mut port = None;
        let mut entries = Vec::with_capacity(ended.len());
        for (request, error) in ended {
            match request {
                FileRequest::Transfer(request) => {
                    // A file thread has one port.
                    port.get_or_insert_with(|| request.port.clone());
                    let (sink, completion) = request.finish(error);
                    entries.extend(entry(sink, completion));
                }
                FileRequest::Fetch(request) => request.end(error),
            }
        }
        if let Some(port) = port {
            contain(|| port.queue.insert_all(entries));
        }
    }
}

impl Port {
    #[allow(unsafe_code)]
    pub(crate) unsafe fn read_file(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        offset: u64,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let operation = Operation::new(Kind::Read, token, sink, buffers);
        self.issue_file(device, operation, Work::Read { offset }, traits::READ)
    }

    #[allow(unsafe_code)]
    pub(crate) unsafe fn write_file(
        &self,
        device: &Arc<DeviceState>,
        buffers: Buffers,
        offset: Option<u64>,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let work = offset.map_or(Work::Append, |offset| Work::Write { offset });
        self.issue_file(device, Operation::new(Kind::Written, token, sink, buffers), work, traits::WRITE)
    }

    pub(crate) fn sync_file(
        &self,
        device: &Arc<DeviceState>,
        data_only: bool,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let operation = Operation::new(Kind::Synced, token, sink, Buffers::None);
        self.issue_file(device, operation, Work::Sync { data_only }, 0)
    }

    fn issue_file(
        &self,
        device: &Arc<DeviceState>,
        mut operation: Operation,
        work: Work,
        needs: u8,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind != DeviceKind::File || matches!(operation.buffers, Buffers::Pooled) {
            return Err(EINVAL);
        }
        if let Work::Read { offset } | Work::Write { offset } = work {
            let bytes = u64::try_from(operation.buffers.total()).unwrap_or(u64::MAX);
            if offset.checked_add(bytes).is_none_or(|end| i64::try_from(end).is_err()) {
                return Err(EINVAL);
            }
        }
        let known = device.traits.load(Ordering::Acquire);
        if known & needs != needs {
            return Err(EACCES);
        }
        self.check()?;
        if !device.enter() {
            return Err(EBADF);
        }
        // Listed only if it has to wait: nobody can name it before this call has returned.
        let ended = at_once(device, &mut operation, work, known);
        let skip = device.skip_on_success.load(Ordering::Relaxed) && operation.is_for_port();
        if ended == Some(0) && skip {
            self.leave(device);
            return Ok(Issued::Done(finish(device, operation, 0, Payload::None).1));
        }
        let mut direction = device.receive.lock();
        operation.serial = direction.next_serial();
        let id = Port::id(device, operation.serial);
        let ended = ended.or(direction.closed.then_some(ECANCELED));
        if ended.is_none() {
            direction.start(operation.label());
        }
        drop(direction);
        match ended {
            Some(error) => {
                self.leave(device);
                let (sink, completion) = finish(device, operation, error, Payload::None);
                self.deliver(sink, completion);
            }
            None => {
                let request = Transfer { port: self.clone(), device: device.clone(), operation, work };
                match self.driver().file_thread() {
                    Ok(thread) => thread.submit(FileRequest::Transfer(request)),
                    // What the kernel lacks has no number of its own.
                    Err(error) => request.end(error.raw_os_error().unwrap_or(ENOSYS)),
                }
            }
        }
        Ok(Issued::Pending(id))
    }

    pub(crate) fn file_engine(&self) -> Option<&'static str> {
        if !self.is_home() {
            return None;
        }
        self.driver().file_thread.get().and_then(|thread| thread.as_ref().ok()).map(FileThread::name)
    }

    /// The operations under way in the file thread are asked to end.
    pub(super) fn cancel_files(&self, device: &DeviceState, serials: &[u64]) {
        if let Some(Ok(thread)) = self.driver().file_thread.get() {
            thread.cancel(serials.iter().map(|&serial| (device.number, serial)));
        }
    }
}

/// The operation's error if it could be ended without blocking.
fn at_once(device: &DeviceState, operation: &mut Operation, work: Work, known: u8) -> Option<i32> {
    if matches!(work, Work::Sync { .. }) {
        return None;
    }
    let total = operation.total();
    if total == 0 {
        return Some(0);
    }
    if known & (traits::DIRECT | traits::NO_TRYING) != 0 {
        return None;
    }
    let mut several = Vec::new();
    loop {
        let one =
            if let Buffers::One(piece) = &operation.buffers { Some(vector(&piece.rest(operation.done))) } else { None };
        let pieces = match &one {
            Some(one) => std::slice::from_ref(one),
            None => {
                several.clear();
                pieces_left(operation, &mut several);
                &several
            }
        };
        match try_now(device.handle, work_left(work, operation.done), pieces) {
            Tried::Moved(bytes) => {
                operation.advance(bytes);
                if operation.done >= total {
                    return Some(0);
                }
            }
            Tried::Ended(error) => return Some(error),
            Tried::WouldBlock => return None,
            Tried::Unsupported => {
                device.traits.fetch_or(traits::NO_TRYING, Ordering::AcqRel);
                return None;
            }
        }
    }
}

fn vector(piece: &RawBuffer) -> libc::iovec {
    libc::iovec { iov_base: piece.pointer.cast(), iov_len: piece.length }
}

/// The memory that has not been moved yet, as much of it as one call takes.
fn pieces_left(operation: &Operation, into: &mut Vec<libc::iovec>) {
    operation.each_left(PIECES_MAX, |piece| into.push(vector(&piece)));
}

fn work_left(work: Work, done: usize) -> Work {
    let done = done as u64;
    match work {
        Work::Read { offset } => Work::Read { offset: offset + done },
        Work::Write { offset } => Work::Write { offset: offset + done },
        other => other,
    }
}

/// What a descriptor permits; an error if it is no file.
pub(crate) fn traits_of(handle: i32) -> io::Result<u8> {
    #[allow(unsafe_code)]
    // SAFETY: the caller owns the descriptor; it is borrowed for these calls only.
    let fd = unsafe { rustix::fd::BorrowedFd::borrow_raw(handle) };
    let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
    if !kind.is_file() && !kind.is_block_device() {
        let what = format!("it is no regular file but {}", name(kind));
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    let flags = rustix::fs::fcntl_getfl(fd)?;
    let access = flags & rustix::fs::OFlags::RWMODE;
    let mut found = if crate::sys::is_direct(flags) { traits::DIRECT } else { 0 };
    if access != rustix::fs::OFlags::WRONLY {
        found |= traits::READ;
    }
    if access != rustix::fs::OFlags::RDONLY {
        found |= traits::WRITE;
    }
    Ok(found)
}

fn name(kind: rustix::fs::FileType) -> &'static str {
    match kind {
        _ if kind.is_dir() => "a directory",
        _ if kind.is_fifo() => "a pipe",
        _ if kind.is_socket() => "a socket",
        _ if kind.is_char_device() => "a character device",
        _ => "something else",
    }
}

impl Transfer {
    /// The operation leaves the device's list and gives up its hold on the descriptor.
    fn finish(self, error: i32) -> (Sink, super::Completion) {
        // A read that was asked to end after it had got something reports what it has.
        let error =
            if error == ECANCELED && self.operation.done > 0 && self.operation.kind == Kind::Read { 0 } else { error };
        let serial = self.operation.serial;
        self.device.receive.lock().ended(serial);
        self.port.leave(&self.device);
        finish(&self.device, self.operation, error, Payload::None)
    }
}

impl Request for Transfer {
    fn handle(&self) -> i32 {
        self.device.handle
    }

    fn work(&self) -> Work {
        work_left(self.work, self.operation.done)
    }

    fn id(&self) -> (u64, u64) {
        (self.device.number, self.operation.serial)
    }

    fn pieces(&mut self, into: &mut Vec<libc::iovec>) {
        pieces_left(&self.operation, into);
    }

    fn advance(&mut self, bytes: usize) -> bool {
        self.operation.advance(bytes);
        self.operation.done >= self.operation.total()
    }

    fn is_wanted(&self) -> bool {
        !self.device.receive.lock().must_end(&self.operation)
    }

    fn end(self, error: i32) {
        let port = self.port.clone();
        let (sink, completion) = self.finish(error);
        contain(|| port.deliver(sink, completion));
    }
}
