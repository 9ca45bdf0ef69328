//! The file thread on io_uring: one thread that issues, waits and completes, and runs no handler.
//!
//! The ring is made and used by this thread alone (`SINGLE_ISSUER`, `DEFER_TASKRUN`), so an operation belongs to no
//! worker: workers come, block and end as they like. Others leave requests in the queue and raise the waker, an event
//! descriptor that the ring polls, if the thread is asleep.
//!
//! When the kernel refuses to take entries (memory limits, say), what it has not taken goes to the pool of threads with
//! everything that comes later; the thread stays until the kernel has finished what it has.

use crate::reactor::engine::PIECES_MAX;
use crate::reactor::engine::files::requests::Requests;
use crate::reactor::engine::files::threads::{self, Pool};
use crate::reactor::engine::files::{Request, RequestQueue, Work, ended_early};
use crate::sys;
use crate::sys::errno::{EAGAIN, ECANCELED, EINTR};
use io_uring::squeue::Entry;
use io_uring::{IoUring, Probe, opcode, types};
use rustix::fd::{AsRawFd, OwnedFd};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

/// Operations in the kernel's hands at a time; more wait in the thread.
const IN_FLIGHT_MAX: usize = 512;
const ENTRIES: u32 = 256;
/// The kernel refuses for the moment: so often it is asked again, after this time each.
const REFUSALS_MAX: u32 = 8;
const REFUSED_PAUSE: Duration = Duration::from_millis(1);
/// The most that one entry may move; the kernel moves a page less than 2 GiB.
const BYTES_MAX: usize = 0x7fff_f000;

/// Not numbers of slots.
const WAKER: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;

/// Starts the thread, if the kernel gives a ring that can do what is needed.
pub(in super::super) fn start<R: Request>(queue: &Arc<RequestQueue<R>>) -> io::Result<Arc<OwnedFd>> {
    start_with(queue, make)
}

/// As `start`; the thread makes its ring by `make`.
pub(in super::super) fn start_with<R: Request>(
    queue: &Arc<RequestQueue<R>>,
    make: impl FnOnce() -> io::Result<IoUring> + Send + 'static,
) -> io::Result<Arc<OwnedFd>> {
    let waker = Arc::new(sys::event()?);
    let (made, hear) = mpsc::channel();
    let (queue, event) = (queue.clone(), waker.clone());
    thread::Builder::new().name("wharf-ring".into()).spawn(move || match make() {
        Ok(ring) => {
            let _ = made.send(Ok(()));
            Loop::new(ring, event, queue).run();
        }
        Err(error) => drop(made.send(Err(error))),
    })?;
    hear.recv().unwrap_or_else(|_| Err(io::Error::other("the file thread ended at once")))?;
    Ok(waker)
}

fn make() -> io::Result<IoUring> {
    let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(ENTRIES)?;
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe)?;
    let needed = [
        opcode::Readv::CODE,
        opcode::Writev::CODE,
        opcode::Read::CODE,
        opcode::Write::CODE,
        opcode::Fsync::CODE,
        opcode::PollAdd::CODE,
        opcode::AsyncCancel::CODE,
    ];
    if needed.iter().all(|&code| probe.is_supported(code)) {
        return Ok(ring);
    }
    Err(io::Error::new(io::ErrorKind::Unsupported, "it lacks operations that files need"))
}

/// A request in the kernel's hands, and what the kernel reads of it.
struct Slot<R> {
    request: R,
    pieces: Vec<libc::iovec>,
}

struct Loop<R: Request> {
    /// First, so that it is gone before the memory that its operations name.
    ring: IoUring,
    waker: Arc<OwnedFd>,
    queue: Arc<RequestQueue<R>>,
    slots: Vec<Option<Slot<R>>>,
    free: Vec<usize>,
    /// Requests for which there was no room.
    waiting: Requests<R>,
    /// Slots whose entries the kernel has not taken yet, in their order; `None` for the waker or a cancel.
    unsent: VecDeque<Option<usize>>,
    /// The waker is polled, or its entry is among the unsent.
    listening: bool,
}

impl<R: Request> Loop<R> {
    fn new(ring: IoUring, waker: Arc<OwnedFd>, queue: Arc<RequestQueue<R>>) -> Loop<R> {
        Loop {
            ring,
            waker,
            queue,
            slots: Vec::new(),
            free: Vec::new(),
            waiting: Requests::default(),
            unsent: VecDeque::new(),
            listening: false,
        }
    }

    fn run(mut self) {
        let mut refusals = 0;
        loop {
            if !self.listening {
                self.listen();
            }
            let (idle, stopping) = self.take_requests();
            if stopping && self.in_flight() == 0 && self.waiting.is_empty() {
                return;
            }
            // Who cannot hear must not sleep.
            match self.submit(usize::from(idle && self.listening)) {
                Ok(taken) => {
                    refusals = 0;
                    self.unsent.drain(..taken.min(self.unsent.len()));
                }
                Err(error) if error.raw_os_error() == Some(EINTR) => {}
                Err(error) => {
                    refusals += 1;
                    if refusals > REFUSALS_MAX {
                        return self.give_up(&error);
                    }
                    thread::sleep(REFUSED_PAUSE);
                }
            }
            self.reap();
        }
    }

    /// How many entries the kernel took.
    fn submit(&mut self, wait_for: usize) -> io::Result<usize> {
        #[cfg(test)]
        if self.queue.refuses.load(Ordering::Relaxed) {
            const ENOMEM: i32 = 12;
            return Err(io::Error::from_raw_os_error(ENOMEM));
        }
        self.ring.submitter().submit_and_wait(wait_for)
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Polls the waker from now on, if there is room for the entry: each raise is an event, so that it need not be
    /// read. One that came before is an event as well.
    fn listen(&mut self) {
        let waker = types::Fd(self.waker.as_raw_fd());
        let poll = opcode::PollAdd::new(waker, libc::POLLIN as u32).multi(true).build().user_data(WAKER);
        self.listening = self.push(poll, None);
    }

    /// Takes new requests, and cancels. Returns whether there is nothing to do but wait, and whether this is the end.
    fn take_requests(&mut self) -> (bool, bool) {
        let cancels = {
            let mut state = self.queue.state.lock();
            self.waiting.append(&mut state.requests);
            std::mem::take(&mut state.cancels)
        };
        self.cancel(cancels);
        while self.in_flight() < IN_FLIGHT_MAX {
            let Some(request) = self.waiting.pop_front() else { break };
            if !request.is_wanted() {
                request.end(ECANCELED);
            } else if !self.issue(request, Vec::new()) {
                break;
            }
        }
        let mut state = self.queue.state.lock();
        let stopping = self.queue.stopping.load(Ordering::Acquire);
        let idle = state.requests.is_empty() && state.cancels.is_empty() && !stopping;
        state.asleep = idle;
        (idle, stopping)
    }

    /// Ends what waits here, and asks the kernel to end what it has.
    fn cancel(&mut self, ids: Vec<(u64, u64)>) {
        if ids.is_empty() {
            return;
        }
        let in_flight = self.slots.iter().enumerate();
        let slots: HashMap<(u64, u64), usize> =
            in_flight.filter_map(|(at, slot)| Some((slot.as_ref()?.request.id(), at))).collect();
        let mut ended = Vec::new();
        for id in ids {
            if let Some(request) = self.waiting.remove(id) {
                ended.push((request, ECANCELED));
            } else if let Some(&slot) = slots.get(&id) {
                self.push(opcode::AsyncCancel::new(slot as u64).build().user_data(CANCEL), None);
            }
        }
        R::end_all(ended);
    }

    /// False when there is no room, and the request waits.
    fn issue(&mut self, mut request: R, mut pieces: Vec<libc::iovec>) -> bool {
        pieces.clear();
        request.pieces(&mut pieces);
        pieces.truncate(PIECES_MAX);
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let entry = entry(&request, &pieces).user_data(at as u64);
        self.slots[at] = Some(Slot { request, pieces });
        self.push(entry, Some(at))
    }

    fn push(&mut self, entry: Entry, slot: Option<usize>) -> bool {
        #[allow(unsafe_code)]
        // SAFETY: what the entry names (the request's memory and descriptor, the list of pieces) lies in `slots` until
        // its completion was reaped; the list's heap memory does not move when the slot does.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_ok() {
            self.unsent.push_back(slot);
            return true;
        }
        // Full. What cannot be submitted now is submitted by the loop, which gives up if the kernel goes on refusing.
        if let Ok(taken) = self.submit(0) {
            self.unsent.drain(..taken.min(self.unsent.len()));
        }
        #[allow(unsafe_code)]
        // SAFETY: as above.
        let pushed = unsafe { self.ring.submission().push(&entry) };
        if pushed.is_ok() {
            self.unsent.push_back(slot);
        } else if let Some(Slot { request, .. }) = slot.and_then(|at| self.vacate(at)) {
            self.waiting.push_front(request);
        }
        // A cancel that does not fit comes too late.
        pushed.is_ok()
    }

    fn vacate(&mut self, at: usize) -> Option<Slot<R>> {
        let slot = self.slots.get_mut(at)?.take()?;
        self.free.push(at);
        Some(slot)
    }

    fn next_completion(&mut self) -> Option<io_uring::cqueue::Entry> {
        self.ring.completion().next()
    }

    fn reap(&mut self) {
        let mut done = Vec::new();
        while let Some(completion) = self.next_completion() {
            match completion.user_data() {
                WAKER => {
                    // The kernel had no room for an event, say. The loop listens anew: here there may be no room,
                    // either.
                    self.listening = io_uring::cqueue::more(completion.flags());
                }
                CANCEL => {}
                at => {
                    let at = usize::try_from(at).unwrap_or(usize::MAX);
                    if let Some(slot) = self.vacate(at) {
                        done.extend(self.ended(slot, completion.result()));
                    }
                }
            }
        }
        // Together: each by itself would wake a worker that then waits for the queue's lock.
        if !done.is_empty() {
            R::end_all(done);
        }
    }

    /// The request and its error, unless it goes on.
    fn ended(&mut self, Slot { mut request, pieces }: Slot<R>, result: i32) -> Option<(R, i32)> {
        let again = match (usize::try_from(result), request.work()) {
            (Ok(_), Work::Sync { .. }) => Err(0),
            (Ok(0), work) => Err(ended_early(work)),
            (Ok(bytes), _) if request.advance(bytes) => Err(0),
            (Ok(_), _) => Ok(()),
            (Err(_), _) if -result == EINTR || -result == EAGAIN => Ok(()),
            (Err(_), _) => Err(-result),
        };
        match again {
            Err(error) => Some((request, error)),
            Ok(()) if !request.is_wanted() => Some((request, ECANCELED)),
            Ok(()) => {
                self.issue(request, pieces);
                None
            }
        }
    }

    /// The kernel takes no entries any more: threads go on, and this one waits for what the kernel has.
    fn give_up(mut self, error: &io::Error) {
        log::warn!("files: io_uring takes no more operations ({error}); a pool of threads goes on");
        for at in std::mem::take(&mut self.unsent).into_iter().flatten() {
            if let Some(Slot { request, .. }) = self.vacate(at) {
                self.waiting.push_back(request);
            }
        }
        self.hand_over();
        while self.in_flight() > 0 {
            #[allow(unsafe_code)]
            // SAFETY: nothing is submitted, no argument is passed.
            let waited = unsafe { self.ring.submitter().enter::<()>(0, 1, GETEVENTS, None) };
            if waited.is_err() {
                thread::sleep(REFUSED_PAUSE);
            }
            while let Some(completion) = self.next_completion() {
                let at = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
                if let Some(slot) = self.vacate(at) {
                    self.ended_without_ring(slot, completion.result());
                }
            }
        }
    }

    /// Like `ended`, but what is not finished goes to the threads.
    fn ended_without_ring(&mut self, Slot { mut request, .. }: Slot<R>, result: i32) {
        match (usize::try_from(result), request.work()) {
            (Ok(_), Work::Sync { .. }) => request.end(0),
            (Ok(0), work) => request.end(ended_early(work)),
            (Ok(bytes), _) if request.advance(bytes) => request.end(0),
            (Err(_), _) if -result != EINTR && -result != EAGAIN => request.end(-result),
            _ => {
                self.waiting.push_back(request);
                self.hand_over();
            }
        }
    }

    fn hand_over(&mut self) {
        let mut state = self.queue.state.lock();
        state.pool.get_or_insert_with(Pool::default);
        // Older ones first.
        state.requests.prepend(&mut self.waiting);
        let count = state.requests.len();
        drop(state);
        (0..count).for_each(|_| threads::wake(&self.queue, self.queue.state.lock()));
    }
}

/// `IORING_ENTER_GETEVENTS`
const GETEVENTS: u32 = 1;

fn entry(request: &impl Request, pieces: &[libc::iovec]) -> Entry {
    let file = types::Fd(request.handle());
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let length = |piece: &libc::iovec| u32::try_from(piece.iov_len.min(BYTES_MAX)).unwrap_or(u32::MAX);
    match (request.work(), pieces) {
        (Work::Read { offset }, [one]) => {
            opcode::Read::new(file, one.iov_base.cast(), length(one)).offset(offset).build()
        }
        (Work::Read { offset }, _) => opcode::Readv::new(file, pieces.as_ptr(), count).offset(offset).build(),
        (Work::Write { offset }, [one]) => {
            opcode::Write::new(file, one.iov_base.cast(), length(one)).offset(offset).build()
        }
        (Work::Write { offset }, _) => opcode::Writev::new(file, pieces.as_ptr(), count).offset(offset).build(),
        (Work::Append, _) => {
            opcode::Writev::new(file, pieces.as_ptr(), count).offset(0).rw_flags(libc::RWF_APPEND).build()
        }
        (Work::Sync { data_only: false }, _) => opcode::Fsync::new(file).build(),
        (Work::Sync { data_only: true }, _) => opcode::Fsync::new(file).flags(types::FsyncFlags::DATASYNC).build(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Handle;
    use std::sync::mpsc::{Sender, channel};

    /// Says that it has ended.
    struct Nothing(Arc<OwnedFd>, Sender<i32>);

    impl Request for Nothing {
        fn handle(&self) -> Handle {
            self.0.as_raw_fd()
        }

        fn work(&self) -> Work {
            Work::Sync { data_only: true }
        }

        fn id(&self) -> (u64, u64) {
            (1, 2)
        }

        fn pieces(&mut self, _into: &mut Vec<libc::iovec>) {}

        fn advance(&mut self, _bytes: usize) -> bool {
            true
        }

        fn is_wanted(&self) -> bool {
            true
        }

        fn end(self, error: i32) {
            let _ = self.1.send(error);
        }
    }

    #[test]
    fn a_file_thread_that_found_no_room_to_hear_its_waker_hears_it_later() {
        let waker = Arc::new(sys::event().unwrap());
        let queue: Arc<RequestQueue<Nothing>> = RequestQueue::new();
        let (event, requests) = (waker.clone(), queue.clone());
        let (made, hear) = channel();
        let thread = thread::spawn(move || {
            let Ok(ring) = make() else { return made.send(false).unwrap() };
            let mut own = Loop::new(ring, event, requests);
            // The queue of entries is full, and the kernel takes none for the moment.
            own.queue.refuses.store(true, Ordering::Relaxed);
            while own.push(opcode::Nop::new().build().user_data(CANCEL), None) {}
            own.listen();
            own.queue.refuses.store(false, Ordering::Relaxed);
            let _ = made.send(true);
            own.run();
        });
        if !hear.recv().unwrap() {
            return eprintln!("SKIPPED: no io_uring here");
        }
        let asleep = || queue.state.lock().asleep;
        while !asleep() {
            thread::yield_now();
        }
        // It goes to sleep now, or does not.
        thread::sleep(Duration::from_millis(50));
        let (ended, told) = channel();
        let file = Arc::new(std::fs::File::open("/proc/self/exe").unwrap().into());
        {
            let mut state = queue.state.lock();
            state.requests.push_back(Nothing(file, ended));
            state.asleep = false;
        }
        sys::raise(&waker);
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(0), "it does not hear its waker");
        queue.stopping.store(true, Ordering::Release);
        sys::raise(&waker);
        thread.join().unwrap();
    }
}
