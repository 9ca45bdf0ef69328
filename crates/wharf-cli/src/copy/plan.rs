//! The blocks of a copy on their way through the port.
//!
//! There are `--depth` **slots**, each with the memory of one block, so that memory is bounded whatever is copied. A
//! slot does one thing after another: the next block of an open file, or else opening the next file. A read that
//! completes issues the write with the same buffer, and a write that completes lets its slot look for more. A slot that
//! finds nothing is idle until a file has more to do; when all are idle, everything is done.
//!
//! A file goes through **phases**: what was there is compared (`--resume`), the rest is copied, synced (`--sync`), and
//! compared again (`--verify`). The next begins when no block of the one before is under way.
//!
//! The length of a source at its opening is only a plan. A block that comes back shorter than planned means that the
//! source became shorter. A last block that comes back full is followed by one more, until one is not full: so what was
//! added meanwhile is copied, too.
//!
//! Blocks are written in any order, so an interrupted copy has gaps, which read as zeros. `--resume` therefore takes
//! zeros for what has not been written yet, and refuses every other difference before it changes anything.
//!
//! A longer file than others, because slots, phases and blocks are one state machine.

use super::compare::{Compared, compare};
use super::failure::{Failure, Weight, cannot};
use super::open::{ALIGNMENT, Ends, File, open};
use super::walk::{Entry, Walk};
use crate::options::Copy;
use crate::system;
use indicatif::ProgressBar;
use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use wharf::{Buffer, CompletionPort, Event, Packet};

/// Handlers issue the next operation and open files; two of them, because opening may wait for the disk.
pub(super) const THREADS: usize = 2;

/// Until something is tried again for which there were too few descriptors.
const RETRY: Duration = Duration::from_millis(1);
/// So often it is tried though nothing is open.
const TRIES: usize = 200;

/// What the main thread waits for.
#[derive(Clone, Copy)]
pub(super) enum Control {
    /// There is nothing more to do.
    Ended,
    /// Ctrl+C, or the like.
    Signal(i32),
}

/// The memory of one block, and of a second one where two are compared. `None` while an operation has it.
#[derive(Default)]
struct Slot {
    first: Option<Buffer>,
    second: Option<Buffer>,
}

/// A block of a file.
struct Piece {
    file: Arc<Copying>,
    offset: u64,
    /// So much the source held when it was opened.
    planned: usize,
    /// So much is asked for.
    room: usize,
    /// Around the cache.
    direct: bool,
}

/// What a packet is about.
enum Work {
    /// An idle slot shall look for something to do.
    Look(Slot),
    /// A block is read, and then written.
    Copy(Slot, Piece),
    /// The source's block of a comparison.
    Source(Slot, Piece),
    /// The target's, with the source's.
    Target(Slot, Piece, Buffer),
    /// The copy is synced.
    Sync(Slot, Arc<Copying>),
}

/// A file that is being copied.
struct Copying {
    entry: Entry,
    ends: Ends<Work>,
    progress: Mutex<Progress>,
    /// The last field: its descriptors are closed before it is counted as gone.
    _open: Counted,
}

/// Of the files that are open.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Compare,
    Copy,
    Sync,
    Verify,
    Done,
}

struct Progress {
    phase: Phase,
    /// The phase's blocks from here up to `end` are still to come,
    next: u64,
    end: u64,
    /// and so are these.
    extra: Vec<u64>,
    /// Blocks that an earlier copy has not come to.
    gaps: Vec<u64>,
    under_way: usize,
    /// How far it was copied.
    copied: u64,
    /// Where the source ended, if it said that it is longer and still says so.
    end_found: Option<u64>,
    /// It is left as it is; blocks that are under way are let go.
    failed: bool,
}

impl Progress {
    fn has_more(&self) -> bool {
        !self.extra.is_empty() || self.next < self.end
    }
}

/// What the slots share.
struct Plan {
    walk: Walk,
    /// A file that could not be opened while so many others were.
    again: Vec<Entry>,
    /// Open files with blocks to come.
    ready: VecDeque<Arc<Copying>>,
    idle: Vec<Slot>,
    failure: Option<Failure>,
}

pub(super) struct Copier {
    port: CompletionPort<(), Work>,
    options: Copy,
    plan: Mutex<Plan>,
    control: CompletionPort<(), Control>,
    pub(super) outcome: Mutex<Option<Result<(), Failure>>>,
    /// Written.
    pub(super) bytes: AtomicU64,
    /// Written by an earlier copy, and found equal. Whole blocks only: what is there by halves is copied again.
    pub(super) kept: AtomicU64,
    pub(super) files: AtomicU64,
    /// Names of a tree that were not copied.
    pub(super) left: AtomicU64,
    /// Files that are open.
    open: Arc<AtomicUsize>,
    /// So often something was tried for which there were too few descriptors, since something was opened.
    tries: AtomicUsize,
    bar: ProgressBar,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Copier {
    /// `control` is told of the end. What is said meanwhile does not disturb the bar.
    pub(super) fn new(
        options: Copy,
        walk: Walk,
        control: CompletionPort<(), Control>,
        bar: ProgressBar,
    ) -> io::Result<Copier> {
        let port = CompletionPort::<(), Work>::options().concurrency(THREADS).build()?;
        let plan =
            Mutex::new(Plan { walk, again: Vec::new(), ready: VecDeque::new(), idle: Vec::new(), failure: None });
        let [bytes, kept, files, left] = [const { AtomicU64::new(0) }; 4];
        let open = Arc::default();
        Ok(Copier {
            port,
            options,
            plan,
            control,
            outcome: Mutex::new(None),
            bytes,
            kept,
            files,
            left,
            open,
            tries: AtomicUsize::new(0),
            bar,
        })
    }

    /// Sets the slots off.
    pub(super) fn start(&self) {
        (0..self.options.depth).for_each(|_| self.set_off(Slot::default()));
    }

    /// Begins nothing more; it ends when what is under way has ended.
    pub(super) fn stop(&self, failure: Failure) {
        lock(&self.plan).failure.get_or_insert(failure);
    }

    /// Ends the threads.
    pub(super) fn close(&self) {
        self.port.close();
    }

    /// Takes packets until the port is closed.
    pub(super) fn work(&self) {
        while let Ok(packet) = self.port.get() {
            self.step(packet);
        }
    }

    fn set_off(&self, slot: Slot) {
        // Refused when the port was closed: then nothing is to be done.
        let _ = self.port.post(0, (), Work::Look(slot));
    }

    fn step(&self, packet: Packet<(), Work>) {
        match (packet.context, packet.event) {
            (Work::Look(slot), _) => self.look(slot),
            (Work::Copy(slot, piece), Event::Read { buffer, result, .. }) => self.was_read(slot, piece, buffer, result),
            (Work::Copy(slot, piece), Event::Written { buffer, result, .. }) => {
                self.was_written(slot, &piece, buffer, result);
            }
            (Work::Source(slot, piece), Event::Read { buffer, result, .. }) => {
                self.source_was_read(slot, piece, buffer, result);
            }
            (Work::Target(slot, piece, source), Event::Read { buffer, result, .. }) => {
                self.target_was_read(slot, &piece, source, buffer, result);
            }
            (Work::Sync(slot, file), Event::Synced { result, .. }) => match result {
                Ok(()) => self.go_on(slot, &file),
                Err(error) => self.give_up(slot, &file, of("sync", &file.entry.target, &error)),
            },
            _ => unreachable!("each context is issued with its operation alone"),
        }
    }

    // --- Slots ---

    /// Finds something to do for a slot.
    fn look(&self, mut slot: Slot) {
        loop {
            let mut plan = lock(&self.plan);
            if plan.failure.is_some() {
                return self.park(plan, slot);
            }
            if let Some((phase, piece)) = self.next_piece(&mut plan) {
                drop(plan);
                return self.issue_read(slot, phase, piece);
            }
            let next = match plan.again.pop() {
                Some(entry) => Ok(Some(entry)),
                None => plan.walk.next(),
            };
            let tree = plan.walk.is_under_way();
            drop(plan);
            let failure = match next {
                Ok(Some(entry)) => match open(&self.port, &self.options, &entry) {
                    Ok(ends) => match self.begin(slot, entry, ends) {
                        Some(back) => {
                            slot = back;
                            continue;
                        }
                        None => return,
                    },
                    Err(failure) => {
                        if tree && failure.weight == Weight::Scarce {
                            lock(&self.plan).again.push(entry);
                        }
                        failure
                    }
                },
                Ok(None) => return self.park(lock(&self.plan), slot),
                Err(failure) => failure,
            };
            match failure.weight {
                Weight::Leaves if tree => self.leave(&failure),
                // Others close theirs when they are done. Nothing tells when the kernel has them back.
                Weight::Scarce if tree && self.may_try_again() => {
                    wharf::blocking(|| thread::sleep(RETRY));
                    return self.set_off(slot);
                }
                _ => return self.fail(slot, failure),
            }
        }
    }

    /// Whether others are open, or are just being opened or closed.
    fn may_try_again(&self) -> bool {
        let tries = self.tries.fetch_add(1, Ordering::Relaxed);
        self.open.load(Ordering::Relaxed) > 0 || tries < TRIES
    }

    /// Says what is not copied, and goes on with the rest of the tree.
    fn leave(&self, failure: &Failure) {
        self.left.fetch_add(1, Ordering::Relaxed);
        self.bar.suspend(|| eprintln!("wharf: {}", failure.sentence));
    }

    /// A file cannot be copied. What is under way of it comes back and is let go.
    fn give_up(&self, slot: Slot, file: &Arc<Copying>, failure: Failure) {
        if file.entry.inside.is_none() || failure.weight == Weight::Ends {
            return self.fail(slot, failure);
        }
        let mut progress = lock(&file.progress);
        let first = !std::mem::replace(&mut progress.failed, true);
        progress.next = progress.end;
        progress.extra.clear();
        drop(progress);
        if first {
            self.leave(&failure);
        }
        self.look(slot);
    }

    /// A slot has nothing to do. The last one ends the copy.
    fn park(&self, mut plan: MutexGuard<'_, Plan>, slot: Slot) {
        plan.idle.push(slot);
        if plan.idle.len() < usize::from(self.options.depth) {
            return;
        }
        let mut outcome = plan.failure.take().map_or(Ok(()), Err);
        if outcome.is_ok() {
            let failures = plan.walk.finish(self.options.sync);
            if plan.walk.is_under_way() {
                failures.iter().for_each(|failure| self.leave(failure));
            } else {
                outcome = failures.into_iter().next().map_or(Ok(()), Err);
            }
        }
        drop(plan);
        *lock(&self.outcome) = Some(outcome);
        let _ = self.control.post(0, (), Control::Ended);
    }

    fn fail(&self, slot: Slot, failure: Failure) {
        let mut plan = lock(&self.plan);
        plan.failure.get_or_insert(failure);
        self.park(plan, slot);
    }

    /// A file has blocks to come: idle slots are set off for them.
    fn offer(&self, file: &Arc<Copying>, blocks: u64) {
        let mut plan = lock(&self.plan);
        plan.ready.push_back(file.clone());
        let wanted = usize::try_from(blocks).unwrap_or(usize::MAX).min(plan.idle.len());
        let from = plan.idle.len() - wanted;
        let slots = plan.idle.split_off(from);
        drop(plan);
        slots.into_iter().for_each(|slot| self.set_off(slot));
    }

    // --- Files ---

    /// A file was opened: its first phase begins. Gives the slot back if it is not needed for that.
    fn begin(&self, slot: Slot, entry: Entry, ends: Ends<Work>) -> Option<Slot> {
        self.open.fetch_add(1, Ordering::Relaxed);
        self.tries.store(0, Ordering::Relaxed);
        let (there, length) = (ends.there, ends.length);
        let progress = Progress {
            phase: Phase::Compare,
            next: 0,
            end: there,
            extra: Vec::new(),
            gaps: Vec::new(),
            under_way: 0,
            copied: length,
            end_found: None,
            failed: false,
        };
        let file = Arc::new(Copying { entry, ends, progress: Mutex::new(progress), _open: Counted(self.open.clone()) });
        if there > 0 {
            self.offer(&file, there.div_ceil(self.block()));
            return Some(slot);
        }
        self.go_on(slot, &file);
        None
    }

    fn block(&self) -> u64 {
        self.options.block as u64
    }

    /// The next block of the file whose turn it is.
    fn next_piece(&self, plan: &mut Plan) -> Option<(Phase, Piece)> {
        while let Some(file) = plan.ready.front() {
            let mut progress = lock(&file.progress);
            let extra = progress.extra.pop();
            if extra.is_none() && progress.next >= progress.end {
                drop(progress);
                plan.ready.pop_front();
                continue;
            }
            if extra.is_none() && progress.phase == Phase::Copy {
                self.skip_hole(&file.ends, &mut progress);
            }
            let offset = extra.unwrap_or(progress.next);
            let body = file.ends.length - file.ends.length % ALIGNMENT as u64;
            let direct = progress.phase == Phase::Copy && file.ends.direct.is_some() && offset < body;
            let end = if direct { body } else { progress.end };
            let planned = self.block().min(end.saturating_sub(offset));
            if extra.is_none() {
                progress.next = offset + planned;
            }
            progress.under_way += 1;
            let phase = progress.phase;
            drop(progress);
            let planned = usize::try_from(planned).expect("a block fits into memory");
            let room = if direct { planned } else { self.options.block };
            return Some((phase, Piece { file: file.clone(), offset, planned, room, direct }));
        }
        None
    }

    /// Blocks of nothing but a hole are not read, but for the last one of the file.
    fn skip_hole(&self, ends: &Ends<Work>, progress: &mut Progress) {
        let Some(source) = &ends.sparse else { return };
        let last = (progress.end - 1) / self.block() * self.block();
        // What cannot tell has none.
        let data = system::data_from(source, progress.next).unwrap_or(Some(progress.next)).unwrap_or(last);
        let skipped = (data / self.block() * self.block()).min(last).saturating_sub(progress.next);
        progress.next += skipped;
        self.bytes.fetch_add(skipped, Ordering::Relaxed);
    }

    /// A block is done. `more` is one that was not planned.
    fn finish_piece(&self, slot: Slot, piece: &Piece, more: Option<u64>) {
        let file = &piece.file;
        let mut progress = lock(&file.progress);
        progress.under_way -= 1;
        if progress.failed {
            drop(progress);
            return self.look(slot);
        }
        progress.extra.extend(more);
        let (has_more, under_way) = (progress.has_more(), progress.under_way);
        drop(progress);
        if more.is_some() {
            self.offer(file, 1);
        } else if !has_more && under_way == 0 && lock(&self.plan).failure.is_none() {
            // Nobody else can see this: the last block is counted once.
            return self.go_on(slot, file);
        }
        self.look(slot);
    }

    /// A phase is over: the next one that has something to do.
    fn go_on(&self, slot: Slot, file: &Arc<Copying>) {
        loop {
            let mut progress = lock(&file.progress);
            match progress.phase {
                Phase::Compare => {
                    let Ends { there, length, .. } = file.ends;
                    progress.phase = Phase::Copy;
                    // Blocks that are there by halves are copied from their beginning.
                    progress.next = there - there % self.block();
                    progress.end = length;
                    let begin = progress.next;
                    let mut gaps = std::mem::take(&mut progress.gaps);
                    let complete = there == length && there > 0 && gaps.is_empty();
                    gaps.retain(|&gap| gap < begin);
                    progress.extra = gaps;
                    if complete {
                        progress.next = progress.end;
                    } else if !progress.has_more() {
                        // Empty, or so it says: one look whether that is its end.
                        progress.extra.push(begin);
                    }
                }
                Phase::Copy => {
                    progress.phase = Phase::Sync;
                    drop(progress);
                    let target = &file.entry.target;
                    if let Err(error) = self.end_copy(file) {
                        return self.give_up(slot, file, of("finish", target, &error));
                    }
                    if !self.options.sync {
                        continue;
                    }
                    return match file.ends.target.sync(Work::Sync(slot, file.clone())) {
                        Ok(_) => {}
                        Err(refused) => {
                            let Work::Sync(slot, _) = refused.context else { unreachable!("given just above") };
                            self.give_up(slot, file, of("sync", target, &refused.error));
                        }
                    };
                }
                Phase::Sync => {
                    progress.phase = Phase::Verify;
                    if self.options.sync && self.options.verify {
                        system::drop_from_cache(&file.ends.copy);
                    }
                    progress.next = 0;
                    let copied = progress.end_found.unwrap_or(progress.copied);
                    progress.end = if self.options.verify { copied } else { 0 };
                }
                Phase::Verify | Phase::Done => {
                    progress.phase = Phase::Done;
                    drop(progress);
                    self.files.fetch_add(1, Ordering::Relaxed);
                    return self.look(slot);
                }
            }
            if progress.has_more() {
                let blocks =
                    progress.end.saturating_sub(progress.next).div_ceil(self.block()) + progress.extra.len() as u64;
                drop(progress);
                self.offer(file, blocks);
                return self.look(slot);
            }
        }
    }

    /// All blocks of a copy are written.
    fn end_copy(&self, file: &Copying) -> io::Result<()> {
        let progress = lock(&file.progress);
        let length = progress.end_found.unwrap_or(progress.copied);
        drop(progress);
        // It ends with a hole, or what it has at its end is what was begun to be written.
        if file.ends.sparse.is_some() && file.ends.target.len()? < length {
            file.ends.target.set_len(length)?;
        }
        file.ends.copy.set_permissions(file.ends.permissions.clone())
    }

    // --- Blocks ---

    fn issue_read(&self, mut slot: Slot, phase: Phase, piece: Piece) {
        let buffer = self.memory(slot.first.take(), piece.room);
        let file = piece.file.clone();
        let source = match &file.ends.direct {
            Some((source, _)) if piece.direct => source,
            _ => &file.ends.source,
        };
        let offset = piece.offset;
        let work = if phase == Phase::Copy { Work::Copy(slot, piece) } else { Work::Source(slot, piece) };
        self.read(source, buffer, offset, work);
    }

    /// A block's memory: the slot's, if it fits.
    fn memory(&self, kept: Option<Buffer>, bytes: usize) -> Buffer {
        match kept {
            Some(buffer) if buffer.capacity() == bytes => buffer,
            _ if self.options.direct => Buffer::aligned(bytes, ALIGNMENT),
            _ => Buffer::with_capacity(bytes),
        }
    }

    fn read(&self, file: &File<Work>, buffer: Buffer, offset: u64, work: Work) {
        if let Err(refused) = file.read_at(buffer, offset, work) {
            self.was_refused(refused.context, "read", &refused.error);
        }
    }

    fn was_refused(&self, work: Work, verb: &str, error: &io::Error) {
        let (Work::Copy(slot, piece) | Work::Source(slot, piece) | Work::Target(slot, piece, _)) = work else {
            unreachable!("the work of a block")
        };
        let Entry { source, target, .. } = &piece.file.entry;
        self.give_up(slot, &piece.file, of(verb, if verb == "write" { target } else { source }, error));
    }

    fn was_read(&self, mut slot: Slot, piece: Piece, buffer: Buffer, result: io::Result<usize>) {
        let source = &piece.file.entry.source;
        match result {
            Err(error) => self.give_up(slot, &piece.file, of("read", source, &error)),
            Ok(bytes) if bytes < piece.planned && self.became_shorter(&piece) => {
                self.give_up(slot, &piece.file, shorter(source));
            }
            Ok(bytes) if bytes < piece.planned => {
                // It says more than it has: this is its end, as for everybody who reads it.
                let mut progress = lock(&piece.file.progress);
                let end = piece.offset + bytes as u64;
                progress.end_found = Some(progress.end_found.map_or(end, |found| found.min(end)));
                progress.next = progress.end;
                progress.extra.clear();
                drop(progress);
                if bytes == 0 {
                    slot.first = Some(buffer);
                    return self.finish_piece(slot, &piece, None);
                }
                self.write(slot, piece, buffer);
            }
            Ok(0) => {
                slot.first = Some(buffer);
                self.finish_piece(slot, &piece, None);
            }
            Ok(_) => self.write(slot, piece, buffer),
        }
    }

    /// A block was read. Where the source has holes, one of zeros becomes one.
    fn write(&self, mut slot: Slot, piece: Piece, mut buffer: Buffer) {
        // Memory may be larger than it was asked to be, and the next block is another's.
        buffer.truncate(piece.room);
        if piece.file.ends.sparse.is_some() && !piece.direct && buffer.iter().all(|&byte| byte == 0) {
            let bytes = buffer.len();
            let there = piece.file.ends.there > piece.offset;
            if !there {
                slot.first = Some(buffer);
                return self.was_moved(slot, &piece, bytes);
            }
        }
        let file = piece.file.clone();
        let target = match &file.ends.direct {
            Some((_, target)) if piece.direct => target,
            _ => &file.ends.target,
        };
        let offset = piece.offset;
        if let Err(refused) = target.write_at(buffer, offset, Work::Copy(slot, piece)) {
            self.was_refused(refused.context, "write", &refused.error);
        }
    }

    /// A block came back shorter than planned. What tells its length wrongly still tells the same.
    fn became_shorter(&self, piece: &Piece) -> bool {
        piece.file.ends.source.len().map_or(true, |length| length != piece.file.ends.length)
    }

    fn was_written(&self, mut slot: Slot, piece: &Piece, buffer: Buffer, result: io::Result<usize>) {
        slot.first = Some(buffer);
        let bytes = match result {
            Err(error) => return self.give_up(slot, &piece.file, of("write", &piece.file.entry.target, &error)),
            Ok(bytes) => bytes,
        };
        self.was_moved(slot, piece, bytes);
    }

    fn was_moved(&self, slot: Slot, piece: &Piece, bytes: usize) {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        let end = piece.offset + bytes as u64;
        {
            let mut progress = lock(&piece.file.progress);
            progress.copied = progress.copied.max(end);
        }
        // Full, and the last as far as was known: perhaps there is more by now.
        let more = (bytes == piece.room && end >= piece.file.ends.length).then_some(end);
        self.finish_piece(slot, piece, more);
    }

    fn source_was_read(&self, mut slot: Slot, piece: Piece, buffer: Buffer, result: io::Result<usize>) {
        let source = &piece.file.entry.source;
        match result {
            Err(error) => self.give_up(slot, &piece.file, of("read", source, &error)),
            Ok(bytes) if bytes < piece.planned => self.give_up(slot, &piece.file, shorter(source)),
            Ok(_) => {
                let second = self.memory(slot.second.take(), piece.room);
                let (file, offset) = (piece.file.clone(), piece.offset);
                self.read(&file.ends.target, second, offset, Work::Target(slot, piece, buffer));
            }
        }
    }

    fn target_was_read(&self, mut slot: Slot, piece: &Piece, first: Buffer, second: Buffer, result: io::Result<usize>) {
        let failure = match result {
            Err(error) => Some(cannot("read back", &piece.file.entry.target, &error)),
            Ok(bytes) if bytes < piece.planned => Some(format!(
                "{} became shorter while it was copied; let nobody else write to it, and copy it again with --force",
                piece.file.entry.target.display()
            )),
            Ok(_) => match judge(piece, &first[..piece.planned], &second[..piece.planned]) {
                Ok(kept) => {
                    self.kept.fetch_add(kept as u64, Ordering::Relaxed);
                    None
                }
                Err(sentence) => Some(sentence),
            },
        };
        (slot.first, slot.second) = (Some(first), Some(second));
        match failure {
            Some(sentence) => self.give_up(slot, &piece.file, sentence.into()),
            None => self.finish_piece(slot, piece, None),
        }
    }
}

/// Compares a block, and says what is wrong, or how many bytes need not be copied any more. Gaps are noted, to be
/// filled.
fn judge(piece: &Piece, ours: &[u8], theirs: &[u8]) -> Result<usize, String> {
    let Entry { source, target, .. } = &piece.file.entry;
    let continued = lock(&piece.file.progress).phase == Phase::Compare;
    let at = match compare(ours, theirs, continued) {
        Compared::Equal => return Ok(if continued && piece.planned == piece.room { piece.planned } else { 0 }),
        Compared::Gap => {
            lock(&piece.file.progress).gaps.push(piece.offset);
            return Ok(0);
        }
        Compared::Differs(at) => piece.offset + at as u64,
    };
    let differs = format!("{} differs from {} at byte {at}", target.display(), source.display());
    Err(if continued {
        format!("{differs}, so it cannot be continued; --force copies it anew")
    } else {
        format!("{differs}; if nobody wrote to either, look at the disk, and copy it again with --force")
    })
}

/// What was copied can be continued.
fn of(verb: &str, path: &Path, error: &io::Error) -> Failure {
    Failure::of(verb, path, error, true)
}

fn shorter(source: &Path) -> Failure {
    let source = source.display();
    format!("{source}: the source became shorter while it was copied; copy it again with --force").into()
}
