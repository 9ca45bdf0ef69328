//! The pool of threads: the same system calls, blocking. Slower than a ring, and everywhere to be had.

use super::{QueueState, Request, RequestQueue, Work, ended_early, transfer};
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
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

/// Has a thread come for the request that was added, starting one if all are busy.
pub(super) fn wake<R: Request>(queue: &Arc<RequestQueue<R>>, mut state: MutexGuard<'_, QueueState<R>>) {
    let requests = state.requests.len();
    let Some(pool) = &mut state.pool else { return };
    if pool.idle >= requests {
        drop(state);
        queue.state.notify_one();
        return;
    }
    if pool.live == THREADS_MAX {
        return;
    }
    pool.live += 1;
    let alone = pool.live == 1;
    drop(state);
    let shared = queue.clone();
    let started = thread::Builder::new().name("wharf-file".into()).spawn(move || run(&shared));
    if let Err(error) = started {
        if let Some(pool) = &mut queue.state.lock().pool {
            pool.live -= 1;
        }
        if alone {
            log::warn!("files: no thread can be started ({error}); the caller waits for the disk itself");
            crate::threads::blocking(|| drain(queue));
        }
    }
}

fn run<R: Request>(queue: &RequestQueue<R>) {
    loop {
        drain(queue);
        let mut state = queue.state.lock();
        if !state.requests.is_empty() {
            continue;
        }
        let Some(pool) = &mut state.pool else { return };
        if queue.stopping.load(Ordering::Acquire) {
            pool.live -= 1;
            return;
        }
        pool.idle += 1;
        let nothing = |state: &mut QueueState<R>| state.requests.is_empty() && !queue.stopping.load(Ordering::Acquire);
        let mut state = queue.state.wait_while(state, Some(IDLE), nothing);
        let is_over = nothing(&mut state);
        let Some(pool) = &mut state.pool else { return };
        pool.idle -= 1;
        if is_over {
            pool.live -= 1;
            return;
        }
    }
}

/// Does requests until there are none.
fn drain<R: Request>(queue: &RequestQueue<R>) {
    loop {
        let request = queue.state.lock().requests.pop_front();
        let Some(request) = request else { return };
        perform(request);
    }
}

/// Does a request to its end.
fn perform<R: Request>(mut request: R) {
    let mut pieces = Vec::new();
    loop {
        if !request.is_wanted() {
            return request.end(super::ECANCELED);
        }
        pieces.clear();
        request.pieces(&mut pieces);
        match (transfer(request.handle(), request.work(), &pieces, false), request.work()) {
            (Ok(_), Work::Sync { .. }) => return request.end(0),
            (Ok(0), work) => return request.end(ended_early(work)),
            (Ok(bytes), _) if request.advance(bytes) => return request.end(0),
            (Ok(_), _) => {}
            (Err(error), _) => return request.end(error),
        }
    }
}
