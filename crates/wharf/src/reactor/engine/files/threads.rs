//! The pool of threads: the same system calls, blocking. Slower than a ring, and everywhere to be had.

use super::{Job, Mail, Mailbox, Work, ended_early, transfer};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// Calls that are under way at the same time: what a disk can use, and far from what a process may start.
const THREADS_MAX: usize = 16;
/// An idle thread ends after that time.
const IDLE: Duration = Duration::from_secs(10);

#[derive(Debug, Default)]
pub(super) struct Pool {
    live: usize,
    idle: usize,
}

/// Has a thread come for the job that was added, starting one if all are busy.
pub(super) fn wake<J: Job>(mailbox: &Arc<Mailbox<J>>, mut mail: MutexGuard<'_, Mail<J>>) {
    let jobs = mail.jobs.len();
    let Some(pool) = &mut mail.pool else { return };
    if pool.idle >= jobs {
        drop(mail);
        mailbox.arrived.notify_one();
        return;
    }
    if pool.live == THREADS_MAX {
        return;
    }
    pool.live += 1;
    let alone = pool.live == 1;
    drop(mail);
    let shared = mailbox.clone();
    let started = thread::Builder::new().name("wharf-file".into()).spawn(move || run(&shared));
    if let Err(error) = started {
        if let Some(pool) = &mut mailbox.lock().pool {
            pool.live -= 1;
        }
        if alone {
            log::warn!("files: no thread can be started ({error}); the caller waits for the disk itself");
            crate::threads::blocking(|| drain(mailbox));
        }
    }
}

fn run<J: Job>(mailbox: &Mailbox<J>) {
    loop {
        drain(mailbox);
        let mut mail = mailbox.lock();
        if !mail.jobs.is_empty() {
            continue;
        }
        let Some(pool) = &mut mail.pool else { return };
        if mailbox.stopping.load(Ordering::Acquire) {
            pool.live -= 1;
            return;
        }
        pool.idle += 1;
        let (mut mail, waited) = mailbox
            .arrived
            .wait_timeout_while(mail, IDLE, |mail| mail.jobs.is_empty() && !mailbox.stopping.load(Ordering::Acquire))
            .unwrap_or_else(PoisonError::into_inner);
        let Some(pool) = &mut mail.pool else { return };
        pool.idle -= 1;
        if waited.timed_out() {
            pool.live -= 1;
            return;
        }
    }
}

/// Does jobs until there are none.
fn drain<J: Job>(mailbox: &Mailbox<J>) {
    loop {
        let job = mailbox.lock().jobs.pop_front();
        let Some(job) = job else { return };
        perform(job);
    }
}

/// Does a job to its end.
fn perform<J: Job>(mut job: J) {
    let mut pieces = Vec::new();
    loop {
        if !job.is_wanted() {
            return job.end(super::ECANCELED);
        }
        pieces.clear();
        job.pieces(&mut pieces);
        match (transfer(job.handle(), job.work(), &pieces, false), job.work()) {
            (Ok(_), Work::Sync { .. }) => return job.end(0),
            (Ok(0), work) => return job.end(ended_early(work)),
            (Ok(bytes), _) if job.advance(bytes) => return job.end(0),
            (Ok(_), _) => {}
            (Err(error), _) => return job.end(error),
        }
    }
}
