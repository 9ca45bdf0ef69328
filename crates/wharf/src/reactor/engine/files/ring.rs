//! The pump on io_uring: one thread that issues, waits and completes, and runs no handler.
//!
//! The ring is made and used by this thread alone (`SINGLE_ISSUER`, `DEFER_TASKRUN`), so an operation belongs to no
//! worker: workers come, block and end as they like. Others leave jobs in the mailbox and ring a bell, an event
//! descriptor that the ring polls, if the thread is asleep.
//!
//! When the kernel refuses to take entries (memory limits, say), what it has not taken goes to the pool of threads with
//! everything that comes later; the thread stays until the kernel has finished what it has.

use super::jobs::Jobs;
use super::threads::{self, Pool};
use super::{EAGAIN, ECANCELED, EINTR, Job, Mailbox, Work, ended_early};
use io_uring::squeue::Entry;
use io_uring::{IoUring, Probe, opcode, types};
use rustix::event::{EventfdFlags, eventfd};
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
const BELL: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;

/// Starts the thread, if the kernel gives a ring that can do what is needed.
pub(super) fn start<J: Job>(mailbox: &Arc<Mailbox<J>>) -> io::Result<Arc<OwnedFd>> {
    start_with(mailbox, make)
}

/// As `start`; the thread makes its ring by `make`.
pub(super) fn start_with<J: Job>(
    mailbox: &Arc<Mailbox<J>>,
    make: impl FnOnce() -> io::Result<IoUring> + Send + 'static,
) -> io::Result<Arc<OwnedFd>> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (made, hear) = mpsc::channel();
    let (mailbox, event) = (mailbox.clone(), bell.clone());
    thread::Builder::new().name("wharf-pump".into()).spawn(move || match make() {
        Ok(ring) => {
            let _ = made.send(Ok(()));
            Loop::new(ring, event, mailbox).run();
        }
        Err(error) => drop(made.send(Err(error))),
    })?;
    hear.recv().unwrap_or_else(|_| Err(io::Error::other("the pump's thread ended at once")))?;
    Ok(bell)
}

pub(super) fn ring_the_bell(bell: &OwnedFd) {
    // Full: it rings already.
    let _ = rustix::io::write(bell, &1_u64.to_ne_bytes());
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

/// A job in the kernel's hands, and what the kernel reads of it.
struct Slot<J> {
    job: J,
    pieces: Vec<libc::iovec>,
}

struct Loop<J: Job> {
    /// First, so that it is gone before the memory that its operations name.
    ring: IoUring,
    bell: Arc<OwnedFd>,
    mailbox: Arc<Mailbox<J>>,
    slots: Vec<Option<Slot<J>>>,
    free: Vec<usize>,
    /// Jobs for which there was no room.
    waiting: Jobs<J>,
    /// Slots whose entries the kernel has not taken yet, in their order; `None` for a bell or a cancel.
    unsent: VecDeque<Option<usize>>,
    /// The bell is heard, or its entry is among the unsent.
    listening: bool,
}

impl<J: Job> Loop<J> {
    fn new(ring: IoUring, bell: Arc<OwnedFd>, mailbox: Arc<Mailbox<J>>) -> Loop<J> {
        Loop {
            ring,
            bell,
            mailbox,
            slots: Vec::new(),
            free: Vec::new(),
            waiting: Jobs::default(),
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
            let (idle, stopping) = self.take_mail();
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
        if self.mailbox.refuses.load(Ordering::Relaxed) {
            const ENOMEM: i32 = 12;
            return Err(io::Error::from_raw_os_error(ENOMEM));
        }
        self.ring.submitter().submit_and_wait(wait_for)
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Hears the bell from now on, if there is room for the entry: each ring is an event, so that it need not be read.
    /// One that came before is an event as well.
    fn listen(&mut self) {
        let bell = types::Fd(self.bell.as_raw_fd());
        let poll = opcode::PollAdd::new(bell, libc::POLLIN as u32).multi(true).build().user_data(BELL);
        self.listening = self.push(poll, None);
    }

    /// Takes new jobs and requests. Returns whether there is nothing to do but wait, and whether this is the end.
    fn take_mail(&mut self) -> (bool, bool) {
        let cancels = {
            let mut mail = self.mailbox.lock();
            self.waiting.append(&mut mail.jobs);
            std::mem::take(&mut mail.cancels)
        };
        self.cancel(cancels);
        while self.in_flight() < IN_FLIGHT_MAX {
            let Some(job) = self.waiting.pop_front() else { break };
            if !job.is_wanted() {
                job.end(ECANCELED);
            } else if !self.issue(job, Vec::new()) {
                break;
            }
        }
        let mut mail = self.mailbox.lock();
        let stopping = self.mailbox.stopping.load(Ordering::Acquire);
        let idle = mail.jobs.is_empty() && mail.cancels.is_empty() && !stopping;
        mail.asleep = idle;
        (idle, stopping)
    }

    /// Ends what waits here, and asks the kernel to end what it has.
    fn cancel(&mut self, ids: Vec<(u64, u64)>) {
        if ids.is_empty() {
            return;
        }
        let in_flight = self.slots.iter().enumerate();
        let slots: HashMap<(u64, u64), usize> =
            in_flight.filter_map(|(at, slot)| Some((slot.as_ref()?.job.id(), at))).collect();
        let mut ended = Vec::new();
        for id in ids {
            if let Some(job) = self.waiting.remove(id) {
                ended.push((job, ECANCELED));
            } else if let Some(&slot) = slots.get(&id) {
                self.push(opcode::AsyncCancel::new(slot as u64).build().user_data(CANCEL), None);
            }
        }
        J::end_all(ended);
    }

    /// False when there is no room, and the job waits.
    fn issue(&mut self, mut job: J, mut pieces: Vec<libc::iovec>) -> bool {
        pieces.clear();
        job.pieces(&mut pieces);
        pieces.truncate(super::super::PIECES_MAX);
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let entry = entry(&job, &pieces).user_data(at as u64);
        self.slots[at] = Some(Slot { job, pieces });
        self.push(entry, Some(at))
    }

    fn push(&mut self, entry: Entry, slot: Option<usize>) -> bool {
        #[allow(unsafe_code)]
        // SAFETY: what the entry names (the job's memory and descriptor, the list of pieces) lies in `slots` until its
        // completion was reaped; the list's heap memory does not move when the slot does.
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
        } else if let Some(Slot { job, .. }) = slot.and_then(|at| self.vacate(at)) {
            self.waiting.push_front(job);
        }
        // A cancel that does not fit is a request that came too late.
        pushed.is_ok()
    }

    fn vacate(&mut self, at: usize) -> Option<Slot<J>> {
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
                BELL => {
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
            J::end_all(done);
        }
    }

    /// The job and its error, unless it goes on.
    fn ended(&mut self, Slot { mut job, pieces }: Slot<J>, result: i32) -> Option<(J, i32)> {
        let again = match (usize::try_from(result), job.work()) {
            (Ok(_), Work::Sync { .. }) => Err(0),
            (Ok(0), work) => Err(ended_early(work)),
            (Ok(bytes), _) if job.advance(bytes) => Err(0),
            (Ok(_), _) => Ok(()),
            (Err(_), _) if -result == EINTR || -result == EAGAIN => Ok(()),
            (Err(_), _) => Err(-result),
        };
        match again {
            Err(error) => Some((job, error)),
            Ok(()) if !job.is_wanted() => Some((job, ECANCELED)),
            Ok(()) => {
                self.issue(job, pieces);
                None
            }
        }
    }

    /// The kernel takes no entries any more: threads go on, and this one waits for what the kernel has.
    fn give_up(mut self, error: &io::Error) {
        log::warn!("files: io_uring takes no more operations ({error}); a pool of threads goes on");
        for at in std::mem::take(&mut self.unsent).into_iter().flatten() {
            if let Some(Slot { job, .. }) = self.vacate(at) {
                self.waiting.push_back(job);
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
    fn ended_without_ring(&mut self, Slot { mut job, .. }: Slot<J>, result: i32) {
        match (usize::try_from(result), job.work()) {
            (Ok(_), Work::Sync { .. }) => job.end(0),
            (Ok(0), work) => job.end(ended_early(work)),
            (Ok(bytes), _) if job.advance(bytes) => job.end(0),
            (Err(_), _) if -result != EINTR && -result != EAGAIN => job.end(-result),
            _ => {
                self.waiting.push_back(job);
                self.hand_over();
            }
        }
    }

    fn hand_over(&mut self) {
        let mut mail = self.mailbox.lock();
        mail.pool.get_or_insert_with(Pool::default);
        // Older ones first.
        mail.jobs.prepend(&mut self.waiting);
        let count = mail.jobs.len();
        drop(mail);
        (0..count).for_each(|_| threads::wake(&self.mailbox, self.mailbox.lock()));
    }
}

/// `IORING_ENTER_GETEVENTS`
const GETEVENTS: u32 = 1;

fn entry(job: &impl Job, pieces: &[libc::iovec]) -> Entry {
    let file = types::Fd(job.handle());
    let count = u32::try_from(pieces.len()).unwrap_or(u32::MAX);
    let length = |piece: &libc::iovec| u32::try_from(piece.iov_len.min(BYTES_MAX)).unwrap_or(u32::MAX);
    match (job.work(), pieces) {
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
    use super::super::Handle;
    use super::*;
    use std::sync::mpsc::{Sender, channel};

    /// Says that it has ended.
    struct Nothing(Arc<OwnedFd>, Sender<i32>);

    impl Job for Nothing {
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
    fn a_pump_that_found_no_room_to_hear_its_bell_hears_it_later() {
        let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap());
        let mailbox: Arc<Mailbox<Nothing>> = Mailbox::new();
        let (event, mail) = (bell.clone(), mailbox.clone());
        let (made, hear) = channel();
        let thread = thread::spawn(move || {
            let Ok(ring) = make() else { return made.send(false).unwrap() };
            let mut pump = Loop::new(ring, event, mail);
            // The queue of entries is full, and the kernel takes none for the moment.
            pump.mailbox.refuses.store(true, Ordering::Relaxed);
            while pump.push(opcode::Nop::new().build().user_data(CANCEL), None) {}
            pump.listen();
            pump.mailbox.refuses.store(false, Ordering::Relaxed);
            let _ = made.send(true);
            pump.run();
        });
        if !hear.recv().unwrap() {
            return eprintln!("SKIPPED: no io_uring here");
        }
        let asleep = || mailbox.lock().asleep;
        while !asleep() {
            thread::yield_now();
        }
        // It goes to sleep now, or does not.
        thread::sleep(Duration::from_millis(50));
        let (ended, told) = channel();
        let file = Arc::new(std::fs::File::open("/proc/self/exe").unwrap().into());
        {
            let mut mail = mailbox.lock();
            mail.jobs.push_back(Nothing(file, ended));
            mail.asleep = false;
        }
        ring_the_bell(&bell);
        assert_eq!(told.recv_timeout(Duration::from_secs(30)), Ok(0), "it does not hear its bell");
        mailbox.stopping.store(true, Ordering::Release);
        ring_the_bell(&bell);
        thread.join().unwrap();
    }
}
