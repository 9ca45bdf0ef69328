//! Send-file: memory and parts of files, sent in order as one operation (rows T).
//!
//! It is a send like the others: it waits for its turn among them, and nothing comes between its bytes. A socket that
//! has space takes a file's bytes from the system's cache (`sendfile`). What the cache does not hold would make the
//! calling worker wait for the disk; so each *window* is looked at first, and one that is not there is read by the file
//! thread, while the send side stays owned: the turn goes on when the window has come. The look is at its ends: files
//! come into the cache, and leave it, in long runs. It is a guess; what was evicted in between has to be waited for
//! after all. To look closer, at every page or by asking for a count of them (`cachestat`), costs up to a tenth of
//! sending.

use super::send::{Attempt, BYTES_PER_TURN, failed_send};
use super::{Buffers, DeviceKind, EAGAIN, EBADF, EINVAL, Issued, Kind, PIECES_MAX, Port, Sink};
use crate::contain::contain;
use crate::op::{Operation, Part, Parts};
use crate::reactor::device::DeviceState;
use crate::reactor::engine::Calls;
use crate::reactor::engine::files::{Look, Request, Work, look, size_told};
use crate::sync::Arc;
use crate::sys::errno::{self, EACCES, ENOSYS, ENOTCONN};

/// Bytes of a file that are looked at and sent at a time, and that are fetched at a time.
const WINDOW: u64 = BYTES_PER_TURN as u64;
const FETCHED: u64 = 512 * 1024;

/// `ENODATA`: the file was shorter than what was to be sent of it.
pub(crate) use errno::ENODATA;

impl Port {
    #[allow(unsafe_code)]
    pub(crate) unsafe fn send_parts(
        &self,
        device: &Arc<DeviceState>,
        parts: Vec<Part>,
        token: usize,
        sink: Sink,
    ) -> Result<Issued, i32> {
        let device = self.own(device)?;
        if device.kind == DeviceKind::Datagram {
            return Err(ENOTCONN); // row T-07
        }
        let parts = Parts::new(parts).filter(|_| device.kind == DeviceKind::Stream).ok_or(EINVAL)?;
        self.may_send(device)?;
        let operation = Operation::new(Kind::SentFile, token, sink, Buffers::None);
        self.issue_send(device, operation.with_parts(parts))
    }

    /// Tries to send more of an operation's parts, `done` bytes of which have gone. The calling thread owns the send
    /// side.
    pub(super) fn try_parts(&self, device: &DeviceState, parts: &Parts, done: usize) -> Attempt {
        let Parts { list, fetched, place, .. } = parts;
        let Some(&part) = list.get(place.at) else { return Attempt::Done { bytes: 0, short: false } };
        let skip = done - place.before;
        let engine = self.engine();
        let sent = |result, offered| match result {
            Ok(bytes) => {
                device.count_taken(bytes);
                Attempt::Done { bytes, short: bytes < offered }
            }
            Err(EAGAIN) => Attempt::NotNow,
            Err(error) => Attempt::Failed(failed_send(device, error)),
        };
        match part {
            Part::Memory(piece) => {
                let mut pieces = vec![piece.rest(skip).first(BYTES_PER_TURN)];
                let mut bytes = pieces[0].length;
                // What lies in memory behind it goes along.
                for part in &list[place.at + 1..] {
                    let Part::Memory(piece) = part else { break };
                    if pieces.len() == PIECES_MAX || piece.length > BYTES_PER_TURN - bytes {
                        break;
                    }
                    pieces.push(*piece);
                    bytes += piece.length;
                }
                let more = place.at + pieces.len() < list.len();
                sent(engine.sending(device.handle, bytes, |calls| calls.send(device.handle, &pieces, more)), bytes)
            }
            Part::File { handle, offset, length } | Part::FileToEnd { handle, offset, told: length } => {
                let from = offset + skip as u64;
                let to_end = matches!(part, Part::FileToEnd { .. });
                // What tells no size may have any.
                let left = if to_end && length == 0 { WINDOW } else { length - skip as u64 };
                let mut count = left.min(WINDOW);
                // What was fetched is sent without another look, so that each fetch gets the operation on.
                if *fetched > done {
                    count = count.min((fetched - done) as u64);
                } else {
                    // The first byte of a further window lies beside one that was just sent.
                    let first = (skip == 0).then_some(from);
                    for at in first.into_iter().chain([from + count - 1]) {
                        match look(handle, at) {
                            Look::Cached => {}
                            Look::Away => {
                                let length = count.min(FETCHED);
                                return Attempt::Fetch(Window { handle, offset: from, length });
                            }
                            Look::Failed(error) => return Attempt::Failed(of_file(error)),
                        }
                    }
                }
                let offered = usize::try_from(count).unwrap_or(usize::MAX);
                let call = |calls: &dyn Calls| calls.send_file(device.handle, handle, from, count);
                match engine.sending(device.handle, offered, call) {
                    // Without having become shorter, it has less than it tells, or told nothing.
                    Ok(0) if to_end && (length == 0 || size_told(handle) >= offset + length) => Attempt::FileEnded,
                    Ok(0) => Attempt::Failed(ENODATA),
                    // Fewer bytes than asked for may be the file's doing: only a refusal says that there is no space.
                    result => sent(result, 0),
                }
            }
        }
    }

    /// Gives the file thread a window to read; the operation goes along. The calling thread owned the send side; the
    /// window's request owns it from now on.
    pub(super) fn fetch(&self, device: &Arc<DeviceState>, operation: Operation, window: Window) {
        let request =
            Fetch { port: self.clone(), device: device.clone(), operation, window, read: Vec::new(), done: 0 };
        match self.driver().file_thread() {
            Ok(thread) => thread.submit(super::file::FileRequest::Fetch(request)),
            // What the kernel lacks has no number of its own.
            Err(error) => request.end(error.raw_os_error().unwrap_or(ENOSYS)),
        }
    }
}

/// The socket is open; what is not is the file, for reading (row F-10).
fn of_file(error: i32) -> i32 {
    if error == EBADF { EACCES } else { error }
}

/// Bytes of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    handle: i32,
    offset: u64,
    length: u64,
}

/// A window that is being read, and the send that waits for it.
pub(crate) struct Fetch {
    port: Port,
    device: Arc<DeviceState>,
    operation: Operation,
    window: Window,
    /// Where it is read to, allocated when the reading begins. Nobody looks at it: it is the cache that counts.
    read: Vec<u8>,
    done: u64,
}

impl Request for Fetch {
    fn handle(&self) -> i32 {
        self.window.handle
    }

    fn work(&self) -> Work {
        Work::Read { offset: self.window.offset + self.done }
    }

    fn id(&self) -> (u64, u64) {
        (self.device.number, self.operation.serial)
    }

    fn pieces(&mut self, into: &mut Vec<libc::iovec>) {
        let left = usize::try_from(self.window.length - self.done).unwrap_or(usize::MAX);
        self.read.reserve(left);
        into.push(libc::iovec { iov_base: self.read.as_mut_ptr().cast(), iov_len: left });
    }

    fn advance(&mut self, bytes: usize) -> bool {
        self.done += bytes as u64;
        self.done >= self.window.length
    }

    fn is_wanted(&self) -> bool {
        !self.device.send.lock().must_end(&self.operation)
    }

    fn end(self, error: i32) {
        let Fetch { port, device, mut operation, done, .. } = self;
        let moved = operation.done;
        if let Some(parts) = operation.parts_mut() {
            // Nothing at all: the file has become shorter. The next attempt finds the end, and says so.
            parts.fetched = moved + usize::try_from(done.max(1)).unwrap_or(usize::MAX);
        }
        contain(|| port.end_interrupted_turn(&device, operation, error));
    }
}
