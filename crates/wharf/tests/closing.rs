//! A port that ends frees what is queued and outstanding, whatever the program's destructors do.
#![cfg(unix)]

mod common;

use common::*;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use wharf::raw::{self, CompletionEvent, DeviceKind, Post, Sink};
use wharf::{Buffer, CompletionPort};

static MADE: AtomicUsize = AtomicUsize::new(0);
static FREED: AtomicUsize = AtomicUsize::new(0);
static FREED_RAW: AtomicUsize = AtomicUsize::new(0);

/// A context whose destructor panics.
struct Bomb;

impl Bomb {
    fn new() -> Bomb {
        MADE.fetch_add(1, SeqCst);
        Bomb
    }
}

impl Clone for Bomb {
    fn clone(&self) -> Bomb {
        Bomb::new()
    }
}

impl Drop for Bomb {
    fn drop(&mut self) {
        match FREED.fetch_add(1, SeqCst) % 2 {
            0 => panic!("a context's destructor"),
            _ => panic_any(Fuse),
        }
    }
}

/// A panic's payload that panics when it is dropped, too.
struct Fuse;

impl Drop for Fuse {
    fn drop(&mut self) {
        panic!("a payload's destructor");
    }
}

fn only_assertions_are_told() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if panic.payload().is::<String>() {
            told(panic);
        }
    }));
}

fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

type BombPort = CompletionPort<(), Bomb>;

/// How a port ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Close,
    DropLast,
    /// A batch that was not walked through comes back to a port that is closed.
    CloseInBatch,
    /// As `CloseInBatch`, and the batch is dropped by a panic.
    PanicInBatch,
}

/// Fills a port with operations of every kind, and ends it.
fn fill_and_end(ending: Ending) {
    let port = BombPort::options().concurrency(2).build::<(), Bomb>().unwrap();
    let listener = port.listen("127.0.0.1:0", ()).unwrap();
    listener.accept(Bomb::new()).unwrap();
    listener.accept(Bomb::new()).unwrap();
    let mut peers = Vec::new();
    for _ in 0..10 {
        let (server, peer) = pair();
        small_buffers([&server, &peer]);
        let stream = port.associate(server, ()).unwrap();
        stream.recv(Buffer::with_capacity(1 << 20), Bomb::new()).unwrap();
        stream.recv_pooled(Bomb::new()).unwrap();
        stream.send(vec![0; 4 << 20], Bomb::new()).unwrap();
        stream.send_vectored(vec!["more".into(), "behind".into()], Bomb::new()).unwrap();
        stream.disconnect(Bomb::new()).unwrap();
        peers.push(peer);
    }
    let socket = port.bind("127.0.0.1:0", ()).unwrap();
    (0..5).for_each(|_| drop(socket.recv_from(Buffer::with_capacity(10), Bomb::new()).unwrap()));
    let path = std::env::temp_dir().join(format!("wharf-closing-{}", std::process::id()));
    let file = port.open(&path, std::fs::OpenOptions::new().read(true).write(true).create(true), ()).unwrap();
    // Files are worked on by others meanwhile, and come back to a port that is closed, or not.
    (0..20).for_each(|_| drop(file.sync(Bomb::new()).unwrap()));
    (0..10).for_each(|_| drop(port.post(0, (), Bomb::new())));
    port.timer(Duration::from_secs(1000), (), Bomb::new()).unwrap();
    port.interval(Duration::from_secs(1000), (), Bomb::new()).unwrap();
    port.signal(libc::SIGUSR2, (), Bomb::new()).unwrap();
    drop((listener, socket, file));
    match ending {
        Ending::Close => port.close(),
        Ending::DropLast => {}
        Ending::CloseInBatch => {
            let batch = port.get_many(8).unwrap();
            port.close();
            drop(batch);
        }
        Ending::PanicInBatch => {
            let mut batch = port.get_many(8).unwrap();
            let caught = catch_unwind(AssertUnwindSafe(|| {
                port.close();
                // The packet in hand is the program's own: its destructor panics here.
                drop(batch.next());
                drop(batch);
            }));
            std::mem::forget(caught);
        }
    }
    drop(port);
    std::fs::remove_file(&path).unwrap();
    drop(peers);
}

#[test]
fn a_context_that_panics_when_it_is_dropped_keeps_nothing_else_from_being_freed() {
    in_child("a_context_that_panics_when_it_is_dropped_keeps_nothing_else_from_being_freed", || {
        only_assertions_are_told();
        for ending in [Ending::Close, Ending::DropLast, Ending::CloseInBatch, Ending::PanicInBatch] {
            let before = descriptors();
            let ended = catch_unwind(|| fill_and_end(ending));
            let unwound = ended.is_err();
            std::mem::forget(ended);
            assert!(!unwound, "{ending:?}: the panic of a destructor came out of the port");
            eventually(&format!("{ending:?}: every context is freed"), || FREED.load(SeqCst) == MADE.load(SeqCst));
            eventually(&format!("{ending:?}: every descriptor is closed"), || descriptors() == before);
        }
    });
}

#[test]
fn an_operation_that_a_closed_port_ends_later_is_freed_beside_others_that_panic() {
    in_child("an_operation_that_a_closed_port_ends_later_is_freed_beside_others_that_panic", || {
        only_assertions_are_told();
        let before = descriptors();
        {
            let port = BombPort::new().unwrap();
            let (server, peer) = pair();
            let stream = port.associate(server, ()).unwrap();
            let (other, _other_peer) = pair();
            let other = port.associate(other, ()).unwrap();
            (0..5).for_each(|_| drop(stream.recv(vec![0; 8], Bomb::new()).unwrap()));
            (0..5).for_each(|_| drop(other.recv(vec![0; 8], Bomb::new()).unwrap()));
            // Queued packets, each with a handle of its device: freeing one closes the other device.
            stream.cancel_all();
            drop((stream, other));
            port.close();
            assert!(port.get_timeout(Duration::ZERO).is_err());
            drop(peer);
        }
        eventually("every context is freed", || FREED.load(SeqCst) == MADE.load(SeqCst));
        eventually("every descriptor is closed", || descriptors() == before);
    });
}

#[test]
fn the_last_handle_of_a_raw_port_closes_it_and_its_devices() {
    in_child("the_last_handle_of_a_raw_port_closes_it_and_its_devices", || {
        let wait = CompletionEvent::new();
        for closed_before in [false, true] {
            let before = descriptors();
            let freed = FREED_RAW.load(SeqCst);
            let port = raw::Port::new(raw::Config {
                concurrency: 1,
                dispose: |_| {
                    FREED_RAW.fetch_add(1, SeqCst);
                },
                ..raw::Config::default()
            })
            .unwrap();
            let (server, mut peer) = pair();
            server.set_nonblocking(true).unwrap();
            port.adopt(server, DeviceKind::Stream, 1).unwrap();
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = port.adopt(listener, DeviceKind::Listener, 1).unwrap();
            let clone = port.clone();
            port.post(Post { key: 1, token: 1, bytes: 0 }).unwrap();
            port.accept(&listener, 2, Sink::Event(wait.clone())).unwrap();
            if closed_before {
                port.close();
            }
            drop(port);
            peer.set_nonblocking(true).unwrap();
            let open = std::io::Read::read(&mut peer, &mut [0; 4]).unwrap_err();
            assert_eq!(open.kind(), std::io::ErrorKind::WouldBlock, "another handle is there");
            peer.set_nonblocking(false).unwrap();
            drop(clone);
            assert_eq!(FREED_RAW.load(SeqCst), freed + 1, "the packet that was queued");
            let ended = wait.wait(Some(DEADLINE)).expect("the accept that was outstanding has ended");
            assert_eq!((ended.token, ended.error), (2, wharf::raw::ECANCELED));
            assert_eq!(std::io::Read::read(&mut peer, &mut [0; 4]).unwrap(), 0, "the socket is closed");
            drop(peer);
            assert_eq!(descriptors(), before, "closed before: {closed_before}");
        }
    });
}
