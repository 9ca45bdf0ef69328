//! The pool of workers: growing, shrinking, exhaustion, panics, shutting down, and doing nothing at all when idle.

mod common;

use common::*;
#[cfg(unix)]
use rustix::process::{Resource, Rlimit};
#[cfg(unix)]
use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use wharf::{Event, GetError, Wake, WorkerPool, WorkerState, Workers, blocking};

/// A gate that handlers wait at until it is opened.
#[derive(Default)]
struct Gate {
    open: Mutex<bool>,
    changed: Condvar,
    waiting: AtomicUsize,
}

impl Gate {
    fn pass(&self) {
        self.waiting.fetch_add(1, SeqCst);
        let open = self.open.lock().unwrap();
        // A test that fails opens it too, so there is no need for a deadline.
        drop(self.changed.wait_while(open, |open| !*open).unwrap());
        self.waiting.fetch_sub(1, SeqCst);
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn waiting(&self) -> usize {
        self.waiting.load(SeqCst)
    }
}

/// Ends the pool of a test that fails too.
struct Closing(Port, Arc<Gate>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.1.open();
        self.0.close();
    }
}

/// An echo server whose handler waits at the gate when the data begins with 'b' (undeclared) or 'd' (declared).
fn echo_server(port: &Port, ledger: &Ledger, workers: Workers, gate: &Arc<Gate>) -> (WorkerPool, SocketAddr) {
    let listener = port.listen("127.0.0.1:0", 0).unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..4 {
        pending(listener.accept(ledger.token(0)).unwrap());
    }
    let (associate, mint, gate) = (port.clone(), ledger.mint(), gate.clone());
    let pool = port.start(workers, move |packet| {
        packet.context.arrive();
        match packet.event {
            Event::Accepted { listener, result } => {
                drop(listener.accept(mint.token(0)));
                if let Ok(stream) = associate.associate(result.unwrap().0, 1) {
                    drop(stream.recv_pooled(mint.token(1)));
                }
            }
            Event::Received { stream, buffer, result: Ok(1..) } => {
                match buffer[0] {
                    b'b' => gate.pass(),
                    b'd' => blocking(|| gate.pass()),
                    b'!' => panic!("on purpose, in a test"),
                    _ => {}
                }
                drop(stream.send(buffer, mint.token(2)));
            }
            Event::Sent { stream, result: Ok(_), .. } => drop(stream.recv_pooled(mint.token(3))),
            _ => {}
        }
    });
    (pool.unwrap(), address)
}

fn client(address: SocketAddr) -> StdStream {
    let client = StdStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

#[track_caller]
fn is_served(client: &mut StdStream) {
    client.write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    client.read_exact(&mut answer).expect("the connection is not served");
    assert_eq!(&answer, b"ping");
}

// --- Growing and shrinking ---

#[test]
fn a_pool_grows_when_all_its_threads_are_blocked_and_serves_other_connections() {
    for block in [b"b", b"d"] {
        let ledger = Ledger::new();
        let port = port(2, Wake::default());
        let gate = Arc::new(Gate::default());
        let _closing = Closing(port.clone(), gate.clone());
        let (pool, address) = echo_server(&port, &ledger, Workers::new(1), &gate);
        assert_eq!(pool.report().workers, 1);
        let mut other = client(address);
        is_served(&mut other);
        let mut stuck = Vec::new();
        for n in 1..=6 {
            let mut client = client(address);
            client.write_all(block).unwrap();
            eventually("the handler blocks", || gate.waiting() == n);
            stuck.push(client);
            is_served(&mut other);
        }
        let report = pool.report();
        assert!(report.workers >= 7 && report.grown >= 6, "{report:?}");
        assert_eq!(report.peak, report.workers);
        assert!(!report.exhausted);
        gate.open();
        for client in &mut stuck {
            client.read_exact(&mut [0; 1]).unwrap();
            is_served(client);
        }
        assert_eq!(pool.report().panics, 0);
    }
}

#[test]
fn new_connections_are_accepted_and_large_answers_go_out_while_every_worker_is_blocked() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let gate = Arc::new(Gate::default());
    let _closing = Closing(port.clone(), gate.clone());
    // No thread may be added: what needs no handler has to go on all the same.
    let (pool, address) = echo_server(&port, &ledger, Workers::exactly(1), &gate);
    let (server, mut peer) = pair();
    small_buffers([&server, &peer]);
    let stream = port.associate(server, 5).unwrap();
    pending(stream.send(vec![7; 4 * 1024 * 1024], ledger.token(50)).unwrap());
    let mut stuck = client(address);
    stuck.write_all(b"b").unwrap();
    eventually("the only handler blocks", || gate.waiting() == 1);
    let mut all = vec![0; 4 * 1024 * 1024];
    peer.read_exact(&mut all).expect("a send stops while the handlers are blocked");
    assert!(all.iter().all(|&byte| byte == 7));
    // The packets of the accepts wait for a handler, but not the connections for the accepts.
    let queued = port.stats().inserted;
    let _clients: Vec<StdStream> = (0..3).map(|_| client(address)).collect();
    eventually("connections are taken", || port.stats().inserted >= queued + 3);
    eventually("the pool tells that it is exhausted", || pool.report().exhausted);
    gate.open();
    stuck.read_exact(&mut [0; 1]).unwrap();
}

#[test]
fn a_pool_shrinks_to_its_least_when_it_is_idle() {
    let ledger = Ledger::new();
    let port = port(2, Wake::default());
    let gate = Arc::new(Gate::default());
    let _closing = Closing(port.clone(), gate.clone());
    let workers = Workers::new(2).idle(Duration::from_millis(30));
    let (pool, address) = echo_server(&port, &ledger, workers, &gate);
    let mut stuck: Vec<StdStream> = (0..8).map(|_| client(address)).collect();
    for (n, client) in stuck.iter_mut().enumerate() {
        client.write_all(b"b").unwrap();
        eventually("the handler blocks", || gate.waiting() == n + 1);
    }
    assert!(pool.report().workers >= 8);
    gate.open();
    eventually("the threads that are too many end", || pool.report().workers == 2);
    let report = pool.report();
    assert!(report.peak >= 8, "{report:?}");
    eventually("the port forgets them", || port.workers().len() == 2);
    // It serves on, and does not end the last ones.
    thread::sleep(Duration::from_millis(100));
    stuck.iter_mut().for_each(|client| {
        client.read_exact(&mut [0; 1]).unwrap();
        is_served(client);
    });
    assert_eq!(pool.report().workers, 2);
}

#[test]
fn a_pool_that_may_not_grow_says_that_it_is_exhausted_and_loses_nothing() {
    for most in [Workers::exactly(2), Workers::new(1).max(2)] {
        let ledger = Ledger::new();
        let port = port(4, Wake::default());
        let gate = Arc::new(Gate::default());
        let _closing = Closing(port.clone(), gate.clone());
        let (pool, address) = echo_server(&port, &ledger, most, &gate);
        let mut clients: Vec<StdStream> = (0..5).map(|_| client(address)).collect();
        for client in &mut clients {
            client.write_all(b"b").unwrap();
        }
        eventually("two handlers block", || gate.waiting() == 2);
        eventually("the pool tells that it is exhausted", || pool.report().exhausted);
        assert_eq!(pool.report().workers, 2);
        gate.open();
        for client in &mut clients {
            client.read_exact(&mut [0; 1]).unwrap();
        }
        assert_eq!(pool.report().workers, 2);
    }
}

#[test]
fn a_pool_has_as_many_threads_as_asked_for() {
    let port = port(3, Wake::default());
    for (workers, count) in
        [(Workers::default(), 6), (Workers::new(1), 1), (Workers::new(5), 5), (Workers::default().max(2), 2)]
    {
        let pool = port.start(workers, |_: Taken| {}).unwrap();
        eventually("the threads wait", || port.stats().waiting >= count);
        let report = pool.report();
        assert_eq!((report.workers, report.grown), (count, 0), "nothing has blocked yet");
        assert_eq!(pool.shutdown(DEADLINE).workers, 0);
    }
}

#[test]
fn a_pool_of_no_thread_has_one_and_the_most_is_not_below_the_least() {
    let port = port(1, Wake::default());
    for (workers, count) in [
        (Workers::new(0), 1),
        (Workers::exactly(0), 1),
        (Workers::default().max(0), 1),
        (Workers::new(3).max(2), 3),
        (Workers::new(2).max(0), 2),
    ] {
        let pool = port.start(workers, |_: Taken| {}).unwrap();
        assert_eq!(pool.report().workers, count);
        assert_eq!(pool.shutdown(DEADLINE).workers, 0);
    }
}

#[test]
fn a_name_that_no_thread_can_have_is_refused() {
    let port = port(1, Wake::default());
    let refused = port.start(Workers::new(1).name("a\0b"), |_: Taken| {}).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert!(port.workers().is_empty());
}

#[test]
fn the_largest_values_mean_without_a_limit() {
    let port = port(usize::MAX, Wake::default());
    let pool = port.start(Workers::default().max(2).idle(Duration::MAX), |_: Taken| {}).unwrap();
    assert_eq!(pool.report().workers, 2);
    assert_eq!(pool.shutdown(Duration::MAX).workers, 0);
}

#[test]
fn the_end_of_an_exhaustion_is_seen() {
    let ledger = Ledger::new();
    let port = port(2, Wake::default());
    let gate = Arc::new(Gate::default());
    let _closing = Closing(port.clone(), gate.clone());
    let handler_gate = gate.clone();
    let pool = port
        .start(Workers::exactly(1), move |packet: Taken| {
            packet.context.arrive();
            blocking(|| handler_gate.pass());
        })
        .unwrap();
    (0..3).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
    eventually("the pool tells that it is exhausted", || pool.report().exhausted);
    gate.open();
    eventually("all packets are handled", || ledger.live() == 0);
    eventually("the pool tells that it is not any more", || !pool.report().exhausted);
}

#[test]
fn a_pool_does_not_grow_because_its_handlers_compute() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let done = Arc::new(AtomicUsize::new(0));
    let count = done.clone();
    let pool = port
        .start(Workers::new(1), move |packet: Taken| {
            packet.context.arrive();
            burn(Duration::from_millis(10));
            count.fetch_add(1, SeqCst);
        })
        .unwrap();
    eventually("the thread waits", || port.stats().waiting == 1);
    let before = pool.report().grown;
    (0..20).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
    eventually("all packets are handled", || done.load(SeqCst) == 20);
    let report = pool.report();
    assert_eq!(report.grown, before, "a thread was started although the handler was computing: {report:?}");
    pool.shutdown(DEADLINE);
}

#[test]
fn no_more_handlers_of_a_pool_run_than_the_limit_allows() {
    for (limit, threads, wake) in [(1, 4, Wake::Adaptive), (2, 4, Wake::Eager)] {
        let ledger = Ledger::new();
        let port = port(limit, wake);
        let counters = Arc::new([const { AtomicUsize::new(0) }; 3]);
        let mine = counters.clone();
        let pool = port
            .start(Workers::exactly(threads), move |packet: Taken| {
                packet.context.arrive();
                let [running, most, done] = &*mine;
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                burn(Duration::from_micros(500));
                running.fetch_sub(1, SeqCst);
                done.fetch_add(1, SeqCst);
            })
            .unwrap();
        (0..200).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
        eventually("all packets are handled", || counters[2].load(SeqCst) == 200);
        assert_eq!(counters[1].load(SeqCst), limit, "{wake:?}");
        pool.shutdown(DEADLINE);
    }
}

#[test]
fn the_report_names_the_blocked_worker_and_the_device_whose_packet_it_handles() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let gate = Arc::new(Gate::default());
    let _closing = Closing(port.clone(), gate.clone());
    let (_pool, address) = echo_server(&port, &ledger, Workers::new(2), &gate);
    let before: Vec<u64> = port.devices().iter().map(|device| device.number).collect();
    let mut stuck = client(address);
    is_served(&mut stuck);
    let device = port.devices().iter().find(|device| !before.contains(&device.number)).unwrap().number;
    stuck.write_all(b"b").unwrap();
    eventually("a handler blocks", || gate.waiting() == 1);
    let mut other = client(address);
    is_served(&mut other);
    let report = port.workers();
    let blocked: Vec<_> = report.iter().filter(|worker| worker.state == WorkerState::Blocked).collect();
    assert_eq!(blocked.len(), 1, "{report:?}");
    assert_eq!(blocked[0].device, device);
    assert!(blocked[0].blocked_for.is_some());
    if std::fs::read_to_string("/proc/self/wchan").is_ok() {
        assert!(blocked[0].sleeps_in.is_some(), "{report:?}");
    } else {
        skipped("the kernel function a worker sleeps in", "the system has no /proc/self/wchan");
    }
}

// --- Panics ---

#[test]
fn a_handler_that_panics_costs_neither_a_thread_nor_another_packet() {
    let ledger = Ledger::new();
    let port = port(2, Wake::default());
    let done = Arc::new(AtomicUsize::new(0));
    let count = done.clone();
    let pool = port
        .start(Workers::exactly(2), move |packet: Taken| {
            packet.context.arrive();
            if packet.context.number % 10 == 3 {
                panic!("on purpose, in a test");
            }
            if packet.context.number % 10 == 4 {
                blocking(|| panic!("on purpose, in a test, while it blocks"));
            }
            count.fetch_add(1, SeqCst);
        })
        .unwrap();
    (0..200).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
    eventually("all other packets are handled", || done.load(SeqCst) == 160);
    eventually("all packets are freed", || ledger.live() == 0);
    let report = pool.report();
    assert_eq!((report.workers, report.panics), (2, 40));
    eventually("no slot is lost", || port.stats().waiting == 2 && port.stats().active == 0);
    assert_eq!(pool.shutdown(DEADLINE).workers, 0);
}

/// What a handler throws: its destructor panics, too.
struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        std::panic::panic_any(Bomb);
    }
}

#[test]
fn a_panic_whose_payload_panics_costs_no_thread() {
    let ledger = Ledger::new();
    let port = port(2, Wake::default());
    let ids = Arc::new(Mutex::new(std::collections::HashSet::new()));
    let seen = ids.clone();
    let pool = port
        .start(Workers::exactly(2), move |packet: Taken| {
            packet.context.arrive();
            seen.lock().unwrap().insert(thread::current().id());
            if packet.context.number.is_multiple_of(2) {
                std::panic::panic_any(Bomb);
            }
        })
        .unwrap();
    (0..20).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
    eventually("all packets are handled", || ledger.live() == 0 && port.stats().waiting == 2);
    let report = pool.report();
    assert_eq!((report.workers, report.panics, report.grown), (2, 10, 0));
    assert!(ids.lock().unwrap().len() <= 2, "a thread has ended, and another was started for it");
}

#[test]
fn a_connection_whose_handler_panics_is_closed_and_others_are_served() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let gate = Arc::new(Gate::default());
    let _closing = Closing(port.clone(), gate.clone());
    let (pool, address) = echo_server(&port, &ledger, Workers::exactly(2), &gate);
    let mut other = client(address);
    for n in 1..6 {
        let mut unlucky = client(address);
        unlucky.write_all(b"!").unwrap();
        assert_eq!(unlucky.read(&mut [0; 1]).unwrap(), 0, "the last handle went with the packet");
        is_served(&mut other);
        eventually("the panic is counted", || pool.report().panics == n);
    }
    assert_eq!(pool.report().workers, 2);
}

// --- The end ---

#[test]
fn shutting_down_lets_handlers_finish_and_leaves_the_queue() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let gate = Arc::new(Gate::default());
    let _closing = Closing(port.clone(), gate.clone());
    let (seen, handler_gate) = (Arc::new(AtomicUsize::new(0)), gate.clone());
    let count = seen.clone();
    let pool = port
        .start(Workers::exactly(1), move |packet: Taken| {
            packet.context.arrive();
            handler_gate.pass();
            count.fetch_add(1, SeqCst);
        })
        .unwrap();
    port.post(0, 0, ledger.token(1)).unwrap();
    eventually("a handler is at work", || gate.waiting() == 1);
    (2..5).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
    // A deadline that passes: the report says who is still at it.
    let begin = Instant::now();
    let report = pool.shutdown(Duration::from_millis(50));
    assert!(begin.elapsed() >= Duration::from_millis(50));
    assert_eq!(report.workers, 1);
    gate.open();
    eventually("the thread ends after its handler", || port.workers().is_empty());
    assert_eq!(seen.load(SeqCst), 1);
    // The packets are still there, for this thread or another pool.
    assert_eq!(next(&port).context.number, 2);
    let count = seen.clone();
    let pool = port
        .start(Workers::new(2), move |packet: Taken| {
            packet.context.arrive();
            count.fetch_add(1, SeqCst);
        })
        .unwrap();
    eventually("another pool takes the rest", || seen.load(SeqCst) == 3);
    assert_eq!(pool.shutdown(DEADLINE).workers, 0);
    eventually("no nudge stays for others to find", || {
        assert_eq!(port.get_timeout(Duration::ZERO).unwrap_err(), GetError::TimedOut);
        port.stats().queued == 0
    });
}

#[test]
fn shutting_down_an_idle_pool_ends_every_thread() {
    for count in [1, 2, 9] {
        for limit in [1, 4] {
            let port = port(limit, Wake::default());
            let pool = port.start(Workers::exactly(count), |_: Taken| {}).unwrap();
            eventually("all wait", || port.stats().waiting == count);
            let begin = Instant::now();
            assert_eq!(pool.shutdown(DEADLINE).workers, 0);
            assert!(begin.elapsed() < DEADLINE / 2, "the shutdown took as long as it was given");
            assert!(port.workers().is_empty());
            assert_eq!((port.stats().active, port.stats().waiting), (0, 0));
        }
    }
}

#[test]
fn shutting_down_reaches_a_worker_that_has_used_another_port_and_nobody_who_has_its_place() {
    let ledger = Ledger::new();
    let (served, other) = (port(2, Wake::default()), port(1, Wake::default()));
    let gate = Arc::new(Gate::default());
    let _closing = Closing(served.clone(), gate.clone());
    let (elsewhere, handler_gate) = (other.clone(), gate.clone());
    let pool = served
        .start(Workers::exactly(1), move |packet: Taken| {
            packet.context.arrive();
            assert_eq!(elsewhere.get_timeout(Duration::ZERO).unwrap_err(), GetError::TimedOut);
            handler_gate.pass();
        })
        .unwrap();
    served.post(0, 0, ledger.token(1)).unwrap();
    eventually("the handler has used the other port", || gate.waiting() == 1);
    // Whoever calls `get` now has the place that the worker had before.
    let (begun, began) = mpsc::channel();
    let waits = served.clone();
    let thread = thread::spawn(move || {
        assert_eq!(waits.get_timeout(Duration::ZERO).unwrap_err(), GetError::TimedOut);
        begun.send(()).unwrap();
        waits.get().map(|packet| packet.context.arrive())
    });
    began.recv_timeout(DEADLINE).unwrap();
    gate.open();
    eventually("the worker waits, and the other thread", || served.stats().waiting == 2);
    assert_eq!(pool.shutdown(DEADLINE).workers, 0);
    served.post(0, 0, ledger.token(2)).unwrap();
    assert!(thread.join().unwrap().is_ok(), "a `get` without a time-out was ended by another's shutdown");
}

#[test]
fn shutting_down_ends_no_get_inside_a_handler() {
    let ledger = Ledger::new();
    let port = port(2, Wake::default());
    let (inner, (tell, told)) = (port.clone(), mpsc::channel());
    let pool = port
        .start(Workers::exactly(1), move |packet: Taken| {
            packet.context.arrive();
            tell.send(None).unwrap();
            tell.send(Some(inner.get().map(|packet| packet.context.arrive()))).unwrap();
        })
        .unwrap();
    port.post(0, 0, ledger.token(1)).unwrap();
    assert!(told.recv_timeout(DEADLINE).unwrap().is_none());
    eventually("the handler waits for a packet", || port.stats().waiting == 1);
    assert_eq!(pool.shutdown(Duration::from_millis(50)).workers, 1);
    assert_eq!(port.stats().waiting, 1);
    port.post(0, 0, ledger.token(2)).unwrap();
    let inner = told.recv_timeout(DEADLINE).unwrap().expect("what the handler's `get` said");
    assert!(inner.is_ok(), "the handler's `get` said {inner:?}");
    eventually("the thread ends after its handler", || port.workers().is_empty());
}

#[test]
fn shutting_down_beside_threads_that_call_get_themselves_works() {
    // They take nudges that are meant for the pool's threads.
    let ledger = Ledger::new();
    let port = port(4, Wake::Eager);
    let taken = Arc::new(AtomicUsize::new(0));
    let count = taken.clone();
    let _crew = Crew::start(&port, 3, move |_, _| {
        count.fetch_add(1, SeqCst);
    });
    for round in 1..20 {
        let count = taken.clone();
        let pool = port
            .start(Workers::exactly(3), move |packet: Taken| {
                packet.context.arrive();
                count.fetch_add(1, SeqCst);
            })
            .unwrap();
        (0..10).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
        assert_eq!(pool.shutdown(DEADLINE).workers, 0);
        eventually("the others take what is left", || taken.load(SeqCst) == 10 * round);
    }
    eventually("the threads of this test wait", || port.stats().waiting == 3);
}

#[test]
fn closing_the_port_ends_the_pool() {
    let ledger = Ledger::new();
    let port = port(2, Wake::default());
    let gate = Arc::new(Gate::default());
    let closing = Closing(port.clone(), gate.clone());
    let (pool, address) = echo_server(&port, &ledger, Workers::new(3), &gate);
    let mut clients: Vec<StdStream> = (0..10).map(|_| client(address)).collect();
    clients.iter_mut().for_each(is_served);
    clients[0].write_all(b"b").unwrap();
    eventually("a handler blocks", || gate.waiting() == 1);
    port.close();
    eventually("the idle threads end", || pool.report().workers == 1);
    gate.open();
    assert_eq!(pool.join().workers, 0);
    drop(closing);
}

#[test]
fn a_handler_may_close_the_port_or_drop_its_pool() {
    for close in [false, true] {
        let ledger = Ledger::new();
        let port = port(2, Wake::default());
        let slot: Arc<Mutex<Option<WorkerPool>>> = Arc::default();
        let (own, closing) = (slot.clone(), port.clone());
        let mut guard = slot.lock().unwrap();
        *guard = Some(
            port.start(Workers::new(3), move |packet: Taken| {
                packet.context.arrive();
                if close { closing.close() } else { drop(own.lock().unwrap().take()) }
            })
            .unwrap(),
        );
        drop(guard);
        eventually("the pool's threads wait", || port.stats().waiting == 3);
        port.post(0, 0, ledger.token(1)).unwrap();
        eventually("the pool ends", || port.workers().is_empty());
        assert_eq!(port.post(0, 0, ledger.token(2)).is_err(), close);
        if let Some(pool) = slot.lock().unwrap().take() {
            assert_eq!(pool.join().workers, 0);
        }
    }
}

#[test]
fn a_pool_that_is_dropped_stops_without_waiting() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let gate = Arc::new(Gate::default());
    let _closing = Closing(port.clone(), gate.clone());
    let handler_gate = gate.clone();
    let pool = port
        .start(Workers::exactly(3), move |packet: Taken| {
            packet.context.arrive();
            handler_gate.pass();
        })
        .unwrap();
    port.post(0, 0, ledger.token(1)).unwrap();
    eventually("a handler blocks", || gate.waiting() == 1);
    drop(pool);
    eventually("the other threads end", || port.workers().len() == 1);
    gate.open();
    eventually("the last one ends", || port.workers().is_empty());
}

#[test]
fn two_pools_may_serve_one_port() {
    let ledger = Ledger::new();
    let port = port(4, Wake::Eager);
    let counts = Arc::new([const { AtomicUsize::new(0) }; 2]);
    let pools: Vec<WorkerPool> = (0..2)
        .map(|pool| {
            let counts = counts.clone();
            port.start(Workers::exactly(2).name(format!("pool-{pool}")), move |packet: Taken| {
                packet.context.arrive();
                counts[pool].fetch_add(1, SeqCst);
                blocking(|| thread::sleep(Duration::from_millis(1)));
            })
            .unwrap()
        })
        .collect();
    (0..200).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
    let total = || counts.iter().map(|count| count.load(SeqCst)).sum::<usize>();
    eventually("all packets are handled", || total() == 200);
    assert!(counts.iter().all(|count| count.load(SeqCst) > 0), "one pool has done all: {counts:?}");
    for pool in pools {
        assert_eq!(pool.shutdown(DEADLINE).workers, 0);
    }
}

#[test]
fn of_two_pools_the_one_that_may_grow_does() {
    // The first to start is the one that sees that a thread is wanted.
    for growing_first in [false, true] {
        let ledger = Ledger::new();
        let port = port(2, Wake::default());
        let gate = Arc::new(Gate::default());
        let _closing = Closing(port.clone(), gate.clone());
        let run = |workers| {
            let gate = gate.clone();
            let handler = move |packet: Taken| {
                packet.context.arrive();
                blocking(|| gate.pass());
            };
            port.start(workers, handler).unwrap()
        };
        let (fixed, grows) = if growing_first {
            let grows = run(Workers::new(1).max(4));
            (run(Workers::exactly(1)), grows)
        } else {
            (run(Workers::exactly(1)), run(Workers::new(1).max(4)))
        };
        (0..6).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
        eventually("five handlers block", || gate.waiting() == 5);
        assert_eq!((fixed.report().workers, grows.report().workers), (1, 4));
        assert_eq!((fixed.report().grown, grows.report().grown), (0, 3));
        eventually("both tell that they are exhausted", || fixed.report().exhausted && grows.report().exhausted);
        gate.open();
        eventually("the last packet is handled", || ledger.live() == 0);
        // One that has stopped is asked no more.
        assert_eq!(fixed.shutdown(DEADLINE).workers, 0);
        assert_eq!(grows.shutdown(DEADLINE).workers, 0);
    }
}

#[test]
fn a_pool_still_replaces_blocked_threads_after_an_earlier_pool_has_ended() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let first = port.start(Workers::new(1), |_: Taken| {}).unwrap();
    assert_eq!(first.shutdown(DEADLINE).workers, 0);
    let gate = Arc::new(Gate::default());
    let _closing = Closing(port.clone(), gate.clone());
    let (pool, address) = echo_server(&port, &ledger, Workers::new(1), &gate);
    let mut stuck = client(address);
    stuck.write_all(b"b").unwrap();
    eventually("the handler blocks", || gate.waiting() == 1);
    is_served(&mut client(address));
    assert!(pool.report().grown >= 1);
}

#[test]
fn a_second_pool_replaces_blocked_threads_when_the_first_one_ends() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let gate = Arc::new(Gate::default());
    let _closing = Closing(port.clone(), gate.clone());
    let first = port.start(Workers::exactly(1), |_: Taken| {}).unwrap();
    let (pool, address) = echo_server(&port, &ledger, Workers::new(1), &gate);
    assert_eq!(first.shutdown(DEADLINE).workers, 0);
    let mut stuck = client(address);
    stuck.write_all(b"b").unwrap();
    eventually("the handler blocks", || gate.waiting() == 1);
    is_served(&mut client(address));
    assert!(pool.report().grown >= 1);
}

// --- Shortage ---

/// What the log was told of workers that could not be started.
#[cfg(unix)]
static COMPLAINTS: AtomicUsize = AtomicUsize::new(0);

#[cfg(unix)]
struct CountComplaints;

#[cfg(unix)]
impl log::Log for CountComplaints {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.args().to_string().starts_with("no further worker") {
            COMPLAINTS.fetch_add(1, SeqCst);
        }
    }

    fn flush(&self) {}
}

#[cfg(target_os = "linux")]
#[test]
fn a_thread_that_cannot_be_started_is_tried_again_and_told_once_a_second() {
    in_child("a_thread_that_cannot_be_started_is_tried_again_and_told_once_a_second", || {
        log::set_logger(&CountComplaints).unwrap();
        log::set_max_level(log::LevelFilter::Warn);
        let ledger = Ledger::new();
        let port = port(2, Wake::default());
        let gate = Arc::new(Gate::default());
        let _closing = Closing(port.clone(), gate.clone());
        let handler_gate = gate.clone();
        let pool = port
            .start(Workers::new(2), move |packet: Taken| {
                packet.context.arrive();
                blocking(|| handler_gate.pass());
            })
            .unwrap();
        eventually("the threads wait", || port.stats().waiting == 2);
        // There is no room for a further stack.
        let limit = rustix::process::getrlimit(Resource::As);
        let kilobytes = || -> u64 {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
            size.trim().trim_end_matches(" kB").parse().unwrap()
        };
        // A thread that has just started maps much, and gives most of it back: there would be room later.
        eventually("no thread maps memory", || {
            let before = kilobytes();
            thread::sleep(Duration::from_millis(20));
            kilobytes() == before
        });
        let little = (kilobytes() + 1024) * 1024;
        rustix::process::setrlimit(Resource::As, Rlimit { current: Some(little), ..limit }).unwrap();
        let begin = Instant::now();
        (0..3).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
        eventually("it is told", || COMPLAINTS.load(SeqCst) > 0);
        thread::sleep(Duration::from_millis(1500));
        let report = pool.report();
        let (told, most) = (COMPLAINTS.load(SeqCst), begin.elapsed().as_secs() as usize + 1);
        assert!(told <= most, "it was told {told} times in {:?}", begin.elapsed());
        assert_eq!((report.workers, report.peak, report.grown), (2, 2, 0), "what was not started is not counted");
        rustix::process::setrlimit(Resource::As, limit).unwrap();
        eventually("the third packet is handled", || gate.waiting() == 3);
        assert!(pool.report().grown >= 1);
    });
}

#[cfg(unix)]
struct Fragile;

#[cfg(unix)]
impl log::Log for Fragile {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, _: &log::Record<'_>) {
        panic!("a logger that panics");
    }

    fn flush(&self) {}
}

#[cfg(unix)]
#[test]
fn a_logger_that_panics_costs_a_pool_no_thread_and_no_growth() {
    in_child("a_logger_that_panics_costs_a_pool_no_thread_and_no_growth", || {
        log::set_logger(&Fragile).unwrap();
        log::set_max_level(log::LevelFilter::Trace);
        let ledger = Ledger::new();
        let port = port(2, Wake::default());
        let gate = Arc::new(Gate::default());
        let _closing = Closing(port.clone(), gate.clone());
        let handler_gate = gate.clone();
        let pool = port
            .start(Workers::new(1).max(2), move |packet: Taken| {
                packet.context.arrive();
                assert_ne!(packet.context.number, 0, "the handler of this packet panics");
                blocking(|| handler_gate.pass());
            })
            .unwrap();
        (0..4).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
        eventually("the pool has grown, and is exhausted", || gate.waiting() == 2 && pool.report().exhausted);
        gate.open();
        eventually("all packets are handled", || port.stats().queued == 0 && port.stats().waiting == 2);
        let report = pool.report();
        assert_eq!((report.workers, report.panics), (2, 1));
        pool.shutdown(DEADLINE);
    });
}

#[cfg(unix)]
#[test]
fn descriptors_that_were_short_for_a_while_leave_no_ticking() {
    in_child("descriptors_that_were_short_for_a_while_leave_no_ticking", || {
        for with_pool in [true, false] {
            let port = port(2, Wake::default());
            let limit = rustix::process::getrlimit(Resource::Nofile);
            rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..limit }).unwrap();
            let pool = with_pool.then(|| port.start(Workers::exactly(2), |_: Taken| {}).unwrap());
            let _crew = (!with_pool).then(|| Crew::start(&port, 3, |_, packet| drop(packet)));
            let ticks = || port.stats().ticks.unwrap();
            let before = ticks();
            if with_pool {
                eventually("it ticks while there is no descriptor", || ticks() > before + 5);
            }
            rustix::process::setrlimit(Resource::Nofile, limit).unwrap();
            eventually("the idle port is silent", || {
                let before = ticks();
                thread::sleep(Duration::from_millis(100));
                ticks() == before
            });
            // Whoever sleeps otherwise now is reached.
            let ledger = Ledger::new();
            (0..10).for_each(|n| port.post(0, 0, ledger.token(n)).unwrap());
            eventually("the packets are handled", || ledger.live() == 0);
            drop(pool);
        }
    });
}

// --- Idleness ---

#[cfg(unix)]
/// For each thread of the process but the calling one: how often it was given a processor, and its time there.
fn schedule() -> BTreeMap<i32, (String, u64, u64)> {
    let me = rustix::thread::gettid().as_raw_nonzero().get();
    let mut threads = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        let path = entry.unwrap().path();
        let number: i32 = path.file_name().unwrap().to_str().unwrap().parse().unwrap();
        if number == me {
            continue;
        }
        let name = std::fs::read_to_string(path.join("comm")).unwrap();
        let schedstat = std::fs::read_to_string(path.join("schedstat")).unwrap();
        let fields: Vec<u64> = schedstat.split_whitespace().map(|field| field.parse().unwrap()).collect();
        threads.insert(number, (name.trim().to_owned(), fields[2], fields[0]));
    }
    threads
}

#[cfg(unix)]
#[test]
fn an_idle_port_makes_no_system_call_at_all() {
    in_child("an_idle_port_makes_no_system_call_at_all", || {
        if std::fs::read_to_string("/proc/self/schedstat").map_or(true, |text| text.split_whitespace().count() != 3) {
            return skipped("that an idle port makes no system call", "the kernel has no /proc/self/schedstat");
        }
        let ledger = Ledger::new();
        let gate = Arc::new(Gate::default());
        let with_pool = port(2, Wake::default());
        let (pool, address) = echo_server(&with_pool, &ledger, Workers::new(3), &gate);
        with_pool.timer(Duration::from_secs(3600), 0, ledger.token(9)).unwrap();
        // A port that is served by threads of the program: a leader, one that stands by, and others.
        let bare = port(2, Wake::default());
        let _crew = Crew::start(&bare, 4, |_, packet| drop(packet));
        // Some work first, in which threads block and slots change hands.
        let mut clients: Vec<StdStream> = (0..20).map(|_| client(address)).collect();
        for _ in 0..20 {
            clients.iter_mut().for_each(is_served);
        }
        clients[0].write_all(b"b").unwrap();
        eventually("a handler blocks", || gate.waiting() == 1);
        is_served(&mut clients[1]);
        gate.open();
        clients[0].read_exact(&mut [0; 1]).unwrap();
        (0..100).for_each(|n| bare.post(0, 0, ledger.token(n)).unwrap());
        eventually("all threads wait", || bare.stats().waiting == 4 && with_pool.stats().active == 0);
        // The watching ends by itself some ticks later; and a pool that grew shrinks only after 10 s of idleness.
        let mut before = schedule();
        eventually("the port falls silent", || {
            thread::sleep(Duration::from_millis(100));
            let silent = schedule() == before;
            before = schedule();
            silent
        });
        thread::sleep(Duration::from_secs(2));
        let after = schedule();
        assert!(before.len() >= 8, "the pool's threads, the supervisor and the program's own are all looked at");
        let ran: HashMap<_, _> = after.iter().filter(|(number, state)| before.get(number) != Some(state)).collect();
        assert!(ran.is_empty(), "threads ran although there was nothing to do (name, times, ns): {ran:?}");
        is_served(&mut clients[2]);
        with_pool.close();
        pool.join();
    });
}

#[cfg(unix)]
#[test]
fn a_pool_that_waits_for_its_surplus_threads_to_end_does_so_without_spinning() {
    in_child("a_pool_that_waits_for_its_surplus_threads_to_end_does_so_without_spinning", || {
        let ledger = Ledger::new();
        let port = port(1, Wake::default());
        let gate = Arc::new(Gate::default());
        let _closing = Closing(port.clone(), gate.clone());
        let workers = Workers::new(1).idle(Duration::from_millis(700));
        let (pool, address) = echo_server(&port, &ledger, workers, &gate);
        let mut stuck: Vec<StdStream> = (0..5).map(|_| client(address)).collect();
        stuck.iter_mut().for_each(|client| client.write_all(b"b").unwrap());
        eventually("all handlers block", || gate.waiting() == 5);
        // Blocked for a while: the supervisor must not look every millisecond for ever.
        let (processor, wall) = (processor_time(), Instant::now());
        thread::sleep(Duration::from_secs(1));
        let (used, time) = (processor_time() - processor, wall.elapsed());
        assert!(used < time / 5, "{used:?} of processor time in {time:?} while all handlers were blocked");
        gate.open();
        let (processor, wall) = (processor_time(), Instant::now());
        eventually("the surplus threads end", || pool.report().workers == 1);
        let (used, time) = (processor_time() - processor, wall.elapsed());
        assert!(used < time / 2, "{used:?} of processor time in {time:?} for waiting");
    });
}
