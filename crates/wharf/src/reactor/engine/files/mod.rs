//! What a file has to wait for: reads that the cache does not hold, writes, syncs.
//!
//! A file is always "ready", so readiness does not help; and a worker must not wait for a disk. The issuing call tries
//! without blocking ([`try_now`]); what cannot be done so is a [`Request`] for the **file thread**: one internal thread
//! that owns an io_uring and runs no handler (`ring/`). Where the kernel does not give one, a bounded pool of threads
//! does the same calls, blocking (`threads.rs`). Both take requests from one [`RequestQueue`], so that the pool can
//! take over at any time: a request is in the queue, or in one thread's hands.

mod requests;
mod ring;
mod threads;

use super::Handle;
use crate::op::FileEngine;
use crate::sync::Monitor;
use crate::sys::errno::{EAGAIN, ECANCELED, EINTR, EIO, EOPNOTSUPP};
use crate::sys::{self, Place};
use requests::Requests;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Read {
        offset: u64,
    },
    Write {
        offset: u64,
    },
    /// Behind the end of the file as it then is.
    Append,
    Sync {
        data_only: bool,
    },
}

/// One file operation on its way. Dropping it without `end` loses an operation.
pub(crate) trait Request: Send + 'static {
    /// Open for as long as the request lives.
    fn handle(&self) -> Handle;
    /// The offset is that of the first byte not yet moved.
    fn work(&self) -> Work;
    /// Names it for [`FileThread::cancel`].
    fn id(&self) -> (u64, u64);
    /// Appends the pieces of memory that are still to be read into or written from.
    fn pieces(&mut self, into: &mut Vec<libc::iovec>);
    /// So many bytes were moved. True when that is all.
    fn advance(&mut self, bytes: usize) -> bool;
    /// Nobody has asked that it ends.
    fn is_wanted(&self) -> bool;
    /// Its completion: 0, or the system's error number.
    fn end(self, error: i32);
    /// The completions of several requests of one file thread, in their order. What a ring finishes comes together.
    fn end_all(ended: Vec<(Self, i32)>)
    where
        Self: Sized,
    {
        ended.into_iter().for_each(|(request, error)| request.end(error));
    }
}

/// Requests that wait for the file thread.
struct RequestQueue<R> {
    /// The pool's threads wait for requests.
    state: Monitor<QueueState<R>>,
    /// The port is gone. Apart from the lock, which a forked child may find locked for ever.
    stopping: AtomicBool,
    /// The ring behaves as if the kernel took nothing any more.
    #[cfg(test)]
    refuses: AtomicBool,
}

struct QueueState<R> {
    requests: Requests<R>,
    cancels: Vec<(u64, u64)>,
    /// The ring's thread sleeps in the kernel, or is about to: whoever adds something wakes it.
    asleep: bool,
    /// The ring has given up: the pool's threads take the requests.
    pool: Option<threads::Pool>,
}

impl<R> RequestQueue<R> {
    fn new() -> Arc<RequestQueue<R>> {
        let state = QueueState { requests: Requests::default(), cancels: Vec::new(), asleep: false, pool: None };
        Arc::new(RequestQueue {
            state: Monitor::new(state),
            stopping: AtomicBool::new(false),
            #[cfg(test)]
            refuses: AtomicBool::new(false),
        })
    }
}

/// Where a port's file operations wait. See the top of this file.
pub(crate) struct FileThread<R: Request> {
    queue: Arc<RequestQueue<R>>,
    /// Wakes the ring's thread; `None` where there is no ring.
    waker: Option<Arc<rustix::fd::OwnedFd>>,
    /// What it was started with, and why.
    pub(crate) why: String,
}

impl<R: Request> FileThread<R> {
    /// Starts it. The caller says which engine runs (`why`), when it holds no lock: the logger is the program's, and
    /// may write with a file of the same port.
    pub(crate) fn start(which: FileEngine) -> io::Result<FileThread<R>> {
        FileThread::start_by(which, ring::start)
    }

    /// `ring` starts the thread with the ring, and returns its waker.
    fn start_by(
        which: FileEngine,
        ring: impl FnOnce(&Arc<RequestQueue<R>>) -> io::Result<Arc<rustix::fd::OwnedFd>>,
    ) -> io::Result<FileThread<R>> {
        let queue = RequestQueue::new();
        let why = match which {
            FileEngine::Threads => "a pool of threads (chosen by the program or WHARF_ENGINE)".to_owned(),
            FileEngine::Auto | FileEngine::Ring => match ring(&queue) {
                Ok(waker) => return Ok(FileThread { queue, waker: Some(waker), why: "io_uring".to_owned() }),
                Err(error) if which == FileEngine::Ring => return Err(error),
                Err(error) => format!("a pool of threads (the kernel gives no io_uring: {error})"),
            },
        };
        queue.state.lock().pool = Some(threads::Pool::default());
        Ok(FileThread { queue, waker: None, why })
    }

    /// What it runs on.
    pub(crate) fn name(&self) -> &'static str {
        if self.queue.state.lock().pool.is_some() { "threads" } else { "io_uring" }
    }

    /// Takes a request over.
    pub(crate) fn submit(&self, request: R) {
        let mut state = self.queue.state.lock();
        state.requests.push_back(request);
        if state.pool.is_some() {
            threads::wake(&self.queue, state);
            return;
        }
        let asleep = std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.wake_ring();
        }
    }

    /// Asks that requests end. They end in any case: cancelled, or as they were.
    pub(crate) fn cancel(&self, ids: impl IntoIterator<Item = (u64, u64)>) {
        let mut waiting = Vec::new();
        let mut state = self.queue.state.lock();
        for id in ids {
            match state.requests.remove(id) {
                Some(request) => waiting.push((request, ECANCELED)),
                None if state.pool.is_none() => state.cancels.push(id),
                // A thread has it, and looks when it can.
                None => {}
            }
        }
        let asleep = !state.cancels.is_empty() && std::mem::take(&mut state.asleep);
        drop(state);
        if asleep {
            self.wake_ring();
        }
        R::end_all(waiting);
    }

    fn wake_ring(&self) {
        if let Some(waker) = &self.waker {
            sys::raise(waker);
        }
    }
}

impl<R: Request> Drop for FileThread<R> {
    fn drop(&mut self) {
        // Requests hold their port, and the port the file thread: there are none left. The thread may be this one, so
        // it is not waited for.
        self.queue.stopping.store(true, Ordering::Release);
        self.queue.state.notify_all();
        self.wake_ring();
    }
}

/// What a try without blocking came to.
pub(crate) enum Tried {
    Moved(usize),
    Ended(i32),
    /// It would block: a request for the file thread.
    WouldBlock,
    /// The file system does not offer this way.
    Unsupported,
}

/// Does as much of a read or write, with one call, as does not block.
pub(crate) fn try_now(handle: Handle, work: Work, pieces: &[libc::iovec]) -> Tried {
    judge(handle, work, transfer(handle, work, pieces, true))
}

fn judge(handle: Handle, work: Work, result: Result<usize, i32>) -> Tried {
    match result {
        Ok(0) if is_no_end(handle, work) => Tried::WouldBlock,
        Ok(0) => Tried::Ended(ended_early(work)),
        Ok(bytes) => Tried::Moved(bytes),
        Err(EAGAIN) => Tried::WouldBlock,
        Err(EOPNOTSUPP) => Tried::Unsupported,
        Err(error) => Tried::Ended(error),
    }
}

/// Linux 5.9 and 5.10 return 0 for a read without waiting also before the end (preadv2(2), "Bugs"): there, and where a
/// size is told that the file has not, a read that waits tells.
fn is_no_end(handle: Handle, work: Work) -> bool {
    matches!(work, Work::Read { offset } if offset < size_told(handle))
}

/// What a look at a byte of a file came to.
pub(crate) enum Look {
    /// It can be read without waiting, or is not there.
    Cached,
    /// The disk would have to be waited for, or that is not known.
    Away,
    Failed(i32),
}

/// Whether a byte of a file is in the system's cache: it is read, without waiting.
pub(crate) fn look(handle: Handle, offset: u64) -> Look {
    let mut byte = 0_u8;
    let piece = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let work = Work::Read { offset };
    match transfer(handle, work, &[piece], true) {
        Ok(0) if is_no_end(handle, work) => Look::Away,
        // 0: the file ends before.
        Ok(_) => Look::Cached,
        Err(EAGAIN | EOPNOTSUPP) => Look::Away,
        Err(error) => Look::Failed(error),
    }
}

/// The size that the file system tells of a file: 0 where it tells none.
pub(crate) fn size_told(handle: Handle) -> u64 {
    rustix::fs::fstat(super::calls::borrow(handle)).map_or(0, |about| u64::try_from(about.st_size).unwrap_or(0))
}

/// No byte was moved though some were wanted: the end of the file for a read, and nothing a file does for a write.
fn ended_early(work: Work) -> i32 {
    match work {
        Work::Read { .. } => 0,
        _ => EIO,
    }
}

/// One system call, which may block unless it has to be done `now`.
fn transfer(handle: Handle, work: Work, pieces: &[libc::iovec], now: bool) -> Result<usize, i32> {
    let pieces = &pieces[..pieces.len().min(super::PIECES_MAX)];
    loop {
        #[allow(unsafe_code)]
        // SAFETY: the issuer promised that the memory of a read may be written, and that of a write be read, until its
        // completion (see `raw`), which the request's owner, the caller, has not sent; the descriptor is open
        // meanwhile.
        let done = unsafe {
            match work {
                Work::Read { offset } => sys::read_file(handle, pieces, offset, now),
                Work::Write { offset } => sys::write_file(handle, pieces, Place::At(offset), now),
                Work::Append => sys::write_file(handle, pieces, Place::End, now),
                Work::Sync { data_only: false } => sys::sync(handle),
                Work::Sync { data_only: true } => sys::sync_data(handle),
            }
        };
        match usize::try_from(done) {
            Ok(done) => return Ok(done),
            Err(_) => match io::Error::last_os_error().raw_os_error().unwrap_or(EIO) {
                EINTR => {}
                error => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::time::Duration;

    struct Piece {
        file: Arc<std::fs::File>,
        number: u64,
        bytes: Vec<u8>,
        done: usize,
        ended: Sender<(u64, i32, Vec<u8>)>,
    }

    const BYTES: usize = 512;

    fn filling(number: u64) -> u8 {
        number.to_le_bytes()[0]
    }

    impl Request for Piece {
        fn handle(&self) -> Handle {
            self.file.as_raw_fd()
        }

        fn work(&self) -> Work {
            Work::Read { offset: self.number * BYTES as u64 + self.done as u64 }
        }

        fn id(&self) -> (u64, u64) {
            (1, self.number)
        }

        fn pieces(&mut self, into: &mut Vec<libc::iovec>) {
            // Odd ones in two, so that both shapes of entry are used.
            let start = self.bytes.as_mut_ptr();
            let half = if self.number.is_multiple_of(2) { BYTES } else { BYTES / 2 };
            for (from, to) in [(self.done, half), (self.done.max(half), BYTES)] {
                if from < to {
                    into.push(libc::iovec { iov_base: start.wrapping_add(from).cast(), iov_len: to - from });
                }
            }
        }

        fn advance(&mut self, bytes: usize) -> bool {
            self.done += bytes;
            self.done == BYTES
        }

        fn is_wanted(&self) -> bool {
            true
        }

        fn end(self, error: i32) {
            let _ = self.ended.send((self.number, error, self.bytes));
        }
    }

    struct Bench {
        file: Arc<std::fs::File>,
        ended: Sender<(u64, i32, Vec<u8>)>,
        hear: Receiver<(u64, i32, Vec<u8>)>,
    }

    impl Bench {
        /// A file in which each piece is filled with its number.
        fn new(pieces: u64) -> Bench {
            let path = std::env::temp_dir().join(format!("wharf-files-{}-{:x}", std::process::id(), fastrand::u64(..)));
            let content: Vec<u8> = (0..pieces).flat_map(|number| [filling(number); BYTES]).collect();
            std::fs::write(&path, content).unwrap();
            let file = Arc::new(std::fs::File::open(&path).unwrap());
            std::fs::remove_file(&path).unwrap();
            let (ended, hear) = channel();
            Bench { file, ended, hear }
        }

        fn request(&self, number: u64) -> Piece {
            Piece { file: self.file.clone(), number, bytes: vec![0; BYTES], done: 0, ended: self.ended.clone() }
        }

        fn expect(&self, pieces: u64) {
            let mut seen = vec![false; usize::try_from(pieces).unwrap()];
            for _ in 0..pieces {
                let (number, error, bytes) =
                    self.hear.recv_timeout(Duration::from_secs(30)).expect("a request was lost");
                assert_eq!(error, 0);
                assert!(bytes.iter().all(|&byte| byte == filling(number)), "piece {number} is not what the file holds");
                assert!(!std::mem::replace(&mut seen[usize::try_from(number).unwrap()], true), "{number} ended twice");
            }
            assert!(self.hear.try_recv().is_err());
        }
    }

    #[test]
    fn more_jobs_than_fit_into_the_ring_all_end_whatever_runs_them() {
        for which in [FileEngine::Auto, FileEngine::Threads] {
            let bench = Bench::new(3000);
            let thread = FileThread::start(which).unwrap();
            (0..3000).for_each(|number| thread.submit(bench.request(number)));
            bench.expect(3000);
        }
    }

    #[test]
    fn when_the_kernel_takes_no_more_threads_go_on_and_no_job_is_lost() {
        let bench = Bench::new(2000);
        let Ok(thread) = FileThread::start(FileEngine::Ring) else {
            // `tests/files.rs` says so loudly, and requires a ring in CI.
            return eprintln!("SKIPPED: no io_uring here");
        };
        (0..1000).for_each(|number| thread.submit(bench.request(number)));
        thread.queue.refuses.store(true, Ordering::Relaxed);
        (1000..2000).for_each(|number| thread.submit(bench.request(number)));
        bench.expect(2000);
        assert_eq!(thread.name(), "threads");
    }

    #[test]
    fn a_ring_that_is_refused_with_whatever_number_leaves_the_work_to_threads() {
        // What io_uring_setup(2) gives, and what filters of system calls are made to give.
        const NUMBERS: [i32; 11] = [
            libc::ENOSYS,
            libc::EPERM,
            libc::EACCES,
            libc::EINVAL,
            libc::ENOMEM,
            libc::EMFILE,
            libc::ENFILE,
            libc::EFAULT,
            libc::EOPNOTSUPP,
            libc::EBUSY,
            libc::EAGAIN,
        ];
        for number in NUMBERS {
            let start = |which| {
                let refused = move || Err(io::Error::from_raw_os_error(number));
                FileThread::start_by(which, move |queue| ring::start_with(queue, refused))
            };
            let bench = Bench::new(50);
            let thread = start(FileEngine::Auto).unwrap();
            assert_eq!(thread.name(), "threads", "{number}");
            (0..50).for_each(|piece| thread.submit(bench.request(piece)));
            bench.expect(50);
            let Err(error) = start(FileEngine::Ring) else { panic!("{number}: whoever insists on a ring is told") };
            assert_eq!(error.raw_os_error(), Some(number));
        }
    }

    #[test]
    fn a_read_that_finds_nothing_before_the_end_is_read_again_by_the_file_thread() {
        let bench = Bench::new(2);
        let (handle, end) = (bench.file.as_raw_fd(), 2 * BYTES as u64);
        let nothing = |offset| judge(handle, Work::Read { offset }, Ok(0));
        assert!(matches!(nothing(0), Tried::WouldBlock));
        assert!(matches!(nothing(end - 1), Tried::WouldBlock));
        assert!(matches!(nothing(end), Tried::Ended(0)));
        assert!(matches!(nothing(end + 1), Tried::Ended(0)));
        assert!(matches!(judge(handle, Work::Write { offset: 0 }, Ok(0)), Tried::Ended(EIO)));
    }

    #[test]
    fn a_job_that_still_waits_is_cancelled_at_once() {
        let bench = Bench::new(1);
        let thread = FileThread::start(FileEngine::Threads).unwrap();
        // Nobody takes it out.
        thread.queue.state.lock().requests.push_back(bench.request(0));
        thread.cancel([(1, 0)]);
        assert_eq!(bench.hear.recv_timeout(Duration::from_secs(30)).unwrap().1, ECANCELED);
    }
}
