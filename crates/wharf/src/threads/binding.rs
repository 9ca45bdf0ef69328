//! Which port the calling thread belongs to (rows C-01, C-02, C-12).
//!
//! A thread is bound to one port by one thread-local word: by its first `get`, until it calls `get` on another port,
//! exits, or the port ends. The word is weak: a thread that never comes back keeps no port alive. Its destructor is
//! how the queue learns that a thread exits; a `get` from another thread-local's destructor, after this one ran, is
//! served unbound, registered for the one call only.

use super::types::WorkerId;
use crate::sync::Arc;
#[cfg(not(loom))]
use crate::sys::fork::Home;
use std::cell::RefCell;
use std::sync::Weak;

/// The queue as its bound threads see it, whatever it holds.
pub(crate) trait Bindable: Send + Sync {
    fn enroll(&self) -> WorkerId;
    fn dismiss(&self, worker: usize);
    /// False if the worker is inside `get`, or inside `blocking` already.
    fn enter_blocking(&self, worker: usize) -> bool;
    fn leave_blocking(&self, worker: usize);
}

struct Binding {
    queue: Weak<dyn Bindable>,
    worker: WorkerId,
    #[cfg(not(loom))]
    home: Home,
}

impl Binding {
    /// Is this the process in which the thread was bound? In a forked child the queue is the parent's, whose lock
    /// another thread may have held at the fork: the child leaves it alone.
    #[cfg(not(loom))]
    fn is_home(&self) -> bool {
        self.home.is_here()
    }
    #[cfg(loom)]
    fn is_home(&self) -> bool {
        true
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        if !self.is_home() {
            return;
        }
        if let Some(queue) = self.queue.upgrade() {
            queue.dismiss(self.worker.number);
        }
    }
}

#[cfg(not(loom))]
thread_local! {
    static BINDING: RefCell<Option<Binding>> = const { RefCell::new(None) };
}
#[cfg(loom)]
loom::thread_local! {
    static BINDING: RefCell<Option<Binding>> = RefCell::new(None);
}

/// A function that runs before the calling thread blocks and says so ([`blocking`]): for code in a handler that puts
/// something off until the handler returns, as a buffer that is flushed then. What it has put off does not wait for a
/// handler that blocks.
///
/// A static for each use, which tells it from others:
///
/// ```
/// use std::cell::RefCell;
/// use wharf::BeforeBlocking;
///
/// thread_local!(static LINES: RefCell<Vec<String>> = RefCell::default());
/// static FLUSH: BeforeBlocking = BeforeBlocking::new(|| LINES.with_borrow_mut(|lines| print!("{}", lines.concat())));
///
/// LINES.with_borrow_mut(|lines| lines.push("hello\n".into()));
/// FLUSH.add();
/// wharf::blocking(|| std::thread::sleep(std::time::Duration::from_millis(1))); // printed before it sleeps
/// ```
///
/// A handler that blocks without saying so runs nothing: its thread is found blocked by another one. Where that
/// matters, post a packet as well, whose handler does what was put off.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct BeforeBlocking(fn());

#[cfg(not(loom))]
thread_local! {
    /// The thread's, not the binding's: what was put off stays so when the thread moves to another port.
    static BEFORE_BLOCKING: RefCell<Vec<&'static BeforeBlocking>> = const { RefCell::new(Vec::new()) };
}

#[cfg(not(loom))]
impl BeforeBlocking {
    /// One that runs `function`, in the thread that is about to block.
    pub const fn new(function: fn()) -> BeforeBlocking {
        BeforeBlocking(function)
    }

    /// The function runs, once, before the calling thread next blocks and says so. Adding it again changes nothing.
    pub fn add(&'static self) {
        let _ = BEFORE_BLOCKING.try_with(|hooks| {
            let mut hooks = hooks.borrow_mut();
            if !hooks.iter().any(|hook| std::ptr::eq(*hook, self)) {
                hooks.push(self);
            }
        });
    }

    /// Nothing is put off any more: the function does not run.
    pub fn remove(&'static self) {
        let _ = BEFORE_BLOCKING.try_with(|hooks| hooks.borrow_mut().retain(|hook| !std::ptr::eq(*hook, self)));
    }
}

/// Runs the hooks in the order in which they were added. One that a hook adds is for the next time.
#[cfg(not(loom))]
fn put_nothing_off() {
    let count = BEFORE_BLOCKING.try_with(|hooks| hooks.borrow().len()).unwrap_or(0);
    for _ in 0..count {
        // A hook may add and remove hooks: it runs outside the borrow.
        let next = BEFORE_BLOCKING.with(|hooks| {
            let mut hooks = hooks.borrow_mut();
            (!hooks.is_empty()).then(|| hooks.remove(0))
        });
        let Some(hook) = next else { return };
        (hook.0)();
    }
}
#[cfg(loom)]
fn put_nothing_off() {}

/// Which worker of `queue` the calling thread is, if it is bound to it.
#[inline]
pub(crate) fn bound<Q: Bindable + 'static>(queue: &Arc<Q>) -> Option<WorkerId> {
    BINDING
        .try_with(|binding| {
            let binding = binding.try_borrow().ok()?;
            let binding = binding.as_ref()?;
            // The weak count keeps the allocation, so the address cannot belong to a later queue.
            std::ptr::addr_eq(binding.queue.as_ptr(), Arc::as_ptr(queue)).then_some(binding.worker)
        })
        .ok()?
}

/// Which worker of `queue` the calling thread is from now on. `None`: the thread is being torn down, enroll for the one
/// call.
#[inline]
pub(crate) fn bind<Q: Bindable + 'static>(queue: &Arc<Q>) -> Option<WorkerId> {
    bound(queue).or_else(|| bind_anew(queue))
}

#[cold]
fn bind_anew<Q: Bindable + 'static>(queue: &Arc<Q>) -> Option<WorkerId> {
    BINDING.try_with(|_| ()).ok()?;
    let worker = queue.enroll();
    let weak: Weak<dyn Bindable> = Arc::downgrade(&(queue.clone() as Arc<dyn Bindable>));
    let next = Binding {
        queue: weak,
        worker,
        #[cfg(not(loom))]
        home: Home::here(),
    };
    // The old binding is dropped, and its slot given back, outside the borrow.
    let old = BINDING.with(|binding| binding.borrow_mut().replace(next));
    drop(old);
    Some(worker)
}

/// Ends the calling thread's binding, if it has one.
pub(crate) fn unbind() {
    let old = BINDING.try_with(|binding| binding.borrow_mut().take());
    drop(old);
}

/// Runs `f`, which may block, without occupying a slot of the port that the calling thread belongs to: another
/// worker takes the next packet meanwhile.
///
/// Without this the port notices by itself, after one or two ticks (1 ms each), that a worker is blocked; this
/// function tells it at once. In a thread that belongs to no port it just calls `f`. Calls may nest: the worker counts
/// as running when the outermost one ends, or when `f` calls `get`, after which a further call counts. When `f` returns
/// or panics the worker counts as running again, which may exceed the concurrency limit for a while, as on Windows (row
/// C-09). What the thread has put off until its handler returns ([`BeforeBlocking`]) is done before `f` runs.
///
/// Windows sees for itself, and at once, when a thread blocks; there this makes the thread's
/// [report](crate::CompletionPort::workers) say so, and gives the rest of its batch to others.
///
/// ```
/// let answer = wharf::blocking(|| {
///     std::thread::sleep(std::time::Duration::from_millis(1));
///     42
/// });
/// assert_eq!(answer, 42);
/// ```
pub fn blocking<R>(f: impl FnOnce() -> R) -> R {
    /// Leaves what this call has entered. The queue knows whether the thread is in it still: a `get` inside the closure
    /// ends it, and a move to another port does.
    struct Leave(bool);
    impl Drop for Leave {
        fn drop(&mut self) {
            if let (true, Some((queue, worker))) = (self.0, binding()) {
                queue.leave_blocking(worker);
            }
        }
    }
    if is_forked() {
        return f();
    }
    put_nothing_off();
    let entered = binding().is_some_and(|(queue, worker)| queue.enter_blocking(worker));
    let _leave = Leave(entered);
    f()
}

/// The calling thread was bound, or has put something off, in the parent process.
fn is_forked() -> bool {
    BINDING.try_with(|binding| binding.borrow().as_ref().is_some_and(|binding| !binding.is_home())).unwrap_or(false)
}

/// The port that the calling thread belongs to, and its number there.
fn binding() -> Option<(Arc<dyn Bindable>, usize)> {
    let of = |binding: &RefCell<Option<Binding>>| {
        let binding = binding.borrow();
        // What was entered before a fork is not left in the child.
        let binding = binding.as_ref().filter(|binding| binding.is_home())?;
        Some((binding.queue.upgrade()?, binding.worker.number))
    };
    BINDING.try_with(of).ok().flatten()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::cell::Cell;

    thread_local! {
        static RUNS: Cell<(u32, u32)> = const { Cell::new((0, 0)) };
    }

    static FIRST: BeforeBlocking = BeforeBlocking::new(|| {
        RUNS.set((RUNS.get().0 + 1, RUNS.get().1));
    });
    static SECOND: BeforeBlocking = BeforeBlocking::new(|| {
        RUNS.set((RUNS.get().0, RUNS.get().1 + 1));
    });

    #[test]
    fn the_hooks_of_two_users_run_once_each_before_the_thread_blocks() {
        FIRST.add();
        SECOND.add();
        FIRST.add();
        assert_eq!(RUNS.get(), (0, 0));
        blocking(|| assert_eq!(RUNS.get(), (1, 1), "before it blocks"));
        blocking(|| assert_eq!(RUNS.get(), (1, 1), "once"));
    }

    #[test]
    fn a_hook_that_was_removed_does_not_run() {
        FIRST.add();
        SECOND.add();
        FIRST.remove();
        blocking(|| assert_eq!(RUNS.get(), (0, 1)));
    }
}
