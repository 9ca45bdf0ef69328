//! Sessions that are counted: every session that a test makes is an [`Actor`] of its [`Theatre`], which checks in the
//! end that each was dropped exactly once, that `closed` was called exactly once for each `opened`, and that no two
//! handlers of one overlapped. And what else the tests of sessions share.

use super::{DEADLINE, eventually};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, Once};
use std::thread;
use wharf::Buffer;
use wharf_session::{Closed, Group, Link, Service, ServiceOptions, Session};

// --- Sessions that are counted ---

#[derive(Default)]
pub struct Counts {
    pub made: AtomicUsize,
    pub dropped: AtomicUsize,
    opened: AtomicUsize,
    closed: AtomicUsize,
    /// Broken rules, as sentences.
    violations: Mutex<Vec<String>>,
}

impl Counts {
    pub fn violated(&self, rule: &str) {
        self.violations.lock().unwrap().push(rule.into());
    }
}

/// Makes actors. To be made first and so dropped last.
pub struct Theatre(pub Arc<Counts>);

impl Theatre {
    pub fn new() -> Theatre {
        Theatre(Arc::default())
    }

    pub fn casting(&self) -> Casting {
        Casting(self.0.clone())
    }

    pub fn opened(&self) -> usize {
        self.0.opened.load(Ordering::SeqCst)
    }

    pub fn closed(&self) -> usize {
        self.0.closed.load(Ordering::SeqCst)
    }

    pub fn made(&self) -> usize {
        self.0.made.load(Ordering::SeqCst)
    }

    pub fn dropped(&self) -> usize {
        self.0.dropped.load(Ordering::SeqCst)
    }
}

impl Drop for Theatre {
    fn drop(&mut self) {
        if thread::panicking() {
            return;
        }
        eventually("every session is dropped", || self.dropped() >= self.made());
        assert_eq!(self.dropped(), self.made());
        assert_eq!(*self.0.violations.lock().unwrap(), Vec::<String>::new());
    }
}

/// Makes actors in another thread.
#[derive(Clone)]
pub struct Casting(pub Arc<Counts>);

pub type OnLink = Box<dyn FnMut(&Link) + Send>;
pub type OnData = Box<dyn FnMut(&Link, Buffer) + Send>;
pub type OnClosed = Box<dyn FnMut(&Link, &Closed) + Send>;

pub struct Actor {
    counts: Arc<Counts>,
    inside: AtomicBool,
    was_opened: bool,
    was_closed: bool,
    panicked: bool,
    opened: OnLink,
    pub received: OnData,
    closed: OnClosed,
}

impl Casting {
    /// An actor who does nothing.
    pub fn actor(&self) -> Actor {
        self.0.made.fetch_add(1, Ordering::SeqCst);
        Actor {
            counts: self.0.clone(),
            inside: AtomicBool::new(false),
            was_opened: false,
            was_closed: false,
            panicked: false,
            opened: Box::new(|_| {}),
            received: Box::new(|_, _| {}),
            closed: Box::new(|_, _| {}),
        }
    }

    pub fn echo(&self) -> Actor {
        self.actor().received(|link, data| drop(link.send(data)))
    }

    pub fn member(&self, room: &Group) -> Actor {
        let (joined, room) = (room.clone(), room.clone());
        self.actor().opened(move |link| joined.join(link)).received(move |_, data| _ = room.broadcast(&data))
    }
}

impl Actor {
    pub fn opened(mut self, run: impl FnMut(&Link) + Send + 'static) -> Actor {
        self.opened = Box::new(run);
        self
    }

    pub fn received(mut self, run: impl FnMut(&Link, Buffer) + Send + 'static) -> Actor {
        self.received = Box::new(run);
        self
    }

    pub fn closed(mut self, run: impl FnMut(&Link, &Closed) + Send + 'static) -> Actor {
        self.closed = Box::new(run);
        self
    }

    /// Tells each link that is opened, and why each was closed, in words.
    pub fn telling(self, links: &Sender<Link>, reasons: &Sender<String>) -> Actor {
        let (links, reasons) = (links.clone(), reasons.clone());
        let tell = move |_: &Link, reason: &Closed| drop(reasons.send(format!("{reason:?}")));
        self.opened(move |link| drop(links.send(link.clone()))).closed(tell)
    }

    fn enter(&mut self, handler: impl FnOnce(&mut Actor)) {
        if self.inside.swap(true, Ordering::SeqCst) {
            self.counts.violated("two handlers of one session overlapped");
        }
        if self.was_closed {
            self.counts.violated("a handler was called after closed");
        }
        self.panicked = true;
        handler(self);
        self.panicked = false;
        self.inside.store(false, Ordering::SeqCst);
    }
}

impl Session for Actor {
    fn opened(&mut self, link: &Link) {
        self.enter(|actor| {
            if std::mem::replace(&mut actor.was_opened, true) {
                actor.counts.violated("opened was called twice");
            }
            actor.counts.opened.fetch_add(1, Ordering::SeqCst);
            (actor.opened)(link);
        });
    }

    fn received(&mut self, link: &Link, data: Buffer) {
        self.enter(|actor| {
            if !actor.was_opened || data.is_empty() {
                actor.counts.violated("received was called before opened, or without data");
            }
            (actor.received)(link, data);
        });
    }

    fn closed(&mut self, link: &Link, reason: &Closed) {
        self.enter(|actor| {
            actor.counts.closed.fetch_add(1, Ordering::SeqCst);
            (actor.closed)(link, reason);
            actor.was_closed = true;
        });
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        if self.was_opened && !self.was_closed && !self.panicked {
            self.counts.violated("a session that was opened was dropped without closed");
        }
        self.counts.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

// --- Tools ---

pub fn service(builder: ServiceOptions) -> Service {
    builder.start().unwrap()
}

pub fn client(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

pub fn read_exactly(socket: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut read = vec![0; bytes];
    socket.read_exact(&mut read).unwrap();
    read
}

pub fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    socket.read_to_end(&mut read).unwrap();
    read
}

pub fn round_trip(socket: &mut TcpStream, message: &[u8]) {
    socket.write_all(message).unwrap();
    assert_eq!(read_exactly(socket, message.len()), message);
}

#[track_caller]
pub fn next<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(DEADLINE).expect("something was to be told in time")
}

pub const ON_PURPOSE: &str = "on purpose";

/// Panics that belong to a test print nothing.
pub fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if info.payload().downcast_ref::<&str>() != Some(&ON_PURPOSE) {
                usual(info);
            }
        }));
    });
}

pub fn fall() -> ! {
    std::panic::panic_any(ON_PURPOSE)
}

/// A place where a handler stops until the test lets it go.
#[derive(Clone, Default)]
pub struct Gate(Arc<(Mutex<(usize, bool)>, Condvar)>);

impl Gate {
    pub fn pass(&self) {
        let mut state = self.0.0.lock().unwrap();
        state.0 += 1;
        self.0.1.notify_all();
        let open = |state: &mut (usize, bool)| !state.1;
        let (_state, late) = self.0.1.wait_timeout_while(state, DEADLINE, open).unwrap();
        assert!(!late.timed_out(), "nobody has opened the gate");
    }

    pub fn wait_for(&self, count: usize) {
        let state = self.0.0.lock().unwrap();
        let late = self.0.1.wait_timeout_while(state, DEADLINE, |state| state.0 < count).unwrap().1;
        assert!(!late.timed_out(), "nobody has come to the gate");
    }

    /// Whoever comes from now on stops.
    pub fn close(&self) {
        self.0.0.lock().unwrap().1 = false;
    }

    pub fn open(&self) {
        self.0.0.lock().unwrap().1 = true;
        self.0.1.notify_all();
    }
}
