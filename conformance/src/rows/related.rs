//! Results asked for in other ways, and other sources of packets (G).

use super::driven;
use crate::kit::*;
use crate::row::{How::*, Row, differs, must, not_offered, only_c, should};
use std::io::Write;
use std::thread;
use std::time::Duration;
use wharf::Event;
use wharf::error::{Class, nt_status_of_number, win32, winsock};
use wharf::raw::{CompletionEvent, Sink};

pub const ROWS: &[Row] = &[
    must(
        "G-01",
        "Asking for the result of an operation without waiting tells that it is outstanding, or how it ended.",
        differs(
            "an event holds its completion until one waiter takes it: a second ask finds nothing, as if it were outstanding",
            driven::told_once,
        ),
    ),
    must(
        "G-02",
        "One can wait for one operation by its event, whatever else ends meanwhile.",
        differs("so while a thread is inside `get` or supervises, as O-20", driven::wait),
    ),
    must("G-03", "Asking for the result leaves the packet in the queue.", Test(ask_beside)),
    should("G-04", "Waiting for one operation can have a time-out.", Test(wait_some)),
    must("G-05", "A result has two names, the port's and Winsock's.", Test(two_names)),
    must("G-06", "After the packet was taken its result can be asked for in Winsock's codes.", Test(names_of_packets)),
    should("G-07", "Asking for a result on what is no socket is refused.", only_c("handles without a type")),
    should(
        "G-10",
        "A hidden port of the process calls functions on pool threads.",
        not_offered("a port is made, and `start` starts its pool"),
    ),
    should("G-11", "A second binding is refused.", not_offered("as G-10")),
    should(
        "G-13",
        "An object for I/O is started before each operation.",
        not_offered("as G-10: nothing has to be started"),
    ),
    should("G-14", "An object for I/O is told of immediate ends.", not_offered("as G-10")),
    should("G-15", "The pool's function gets the result.", not_offered("as G-10: the handler gets the packet")),
    should(
        "G-16",
        "One can wait until all callbacks of an object are done.",
        not_offered("as G-10: `shutdown` and `join` wait for the pool"),
    ),
    should("G-17", "Closing an object waits for its callbacks.", not_offered("as G-10")),
    should(
        "G-20",
        "A queue of registered I/O posts one packet for each request to be notified.",
        not_offered("registered I/O is not offered"),
    ),
    should("G-21", "That notification is one-shot.", not_offered("registered I/O is not offered")),
    should("G-22", "Registered queues have fixed capacities.", not_offered("registered I/O is not offered")),
    should(
        "G-23",
        "Registered operations always put a result into their queue.",
        not_offered("registered I/O is not offered"),
    ),
    should(
        "G-25",
        "A job's events are packets.",
        not_offered("there are no jobs; the end of each child process is a packet"),
    ),
    should("G-26", "A job has one port.", not_offered("there are no jobs")),
    should("G-27", "A job's events may be lost.", not_offered("there are no jobs")),
    should(
        "G-29",
        "The signalling of an event, timer or process can be a packet.",
        not_offered("timers, signals and child processes are operations; an event descriptor is a stream"),
    ),
    should("G-30", "Such a wait on what is signalled already is a packet at once.", not_offered("as G-29")),
    should(
        "G-31",
        "Such a wait can be cancelled, and its packet taken back.",
        differs("it can be cancelled; a queued packet stays, as for every operation", queued_stays),
    ),
    should(
        "G-32",
        "Readiness of sockets can be packets.",
        differs("`readable` is one, for one direction, one-shot", one_direction),
    ),
    should("G-40", "Results can be waited for by events, up to 64 at a time.", only_c("WaitForMultipleObjects")),
    should("G-41", "A completion routine runs in the issuing thread.", only_c("completion routines (APCs)")),
    should("G-42", "A completion routine gets the result.", only_c("completion routines (APCs)")),
    should("G-43", "Port and completion routine exclude each other.", only_c("completion routines (APCs)")),
    should("G-44", "Readiness can be reported by events and messages.", only_c("WSAEventSelect and WSAAsyncSelect")),
    should(
        "G-45",
        "A receive that takes the data leaves nothing to report.",
        only_c("WSAEventSelect and WSAAsyncSelect"),
    ),
    must("G-47", "A packet is never there before its buffer is filled.", Test(filled)),
];

pub fn ask(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let event = CompletionEvent::new();
    raw_receive(&port, &device, Memory::room(4).one(), 1, Sink::Event(event.clone())).unwrap();
    for _ in 0..3 {
        assert!(event.wait(Some(Duration::ZERO)).is_none(), "it is outstanding");
    }
    peer.write_all(b"ab").unwrap();
    raw_quiet(&port);
    let ended = event.wait(Some(Duration::ZERO)).expect("it has ended");
    assert_eq!((ended.bytes, ended.error), (2, 0));
    port.close_device(&device);
}

fn ask_beside(b: &Bench) {
    let port = b.raw();
    let (device, _peer) = b.raw_stream(&port, 7);
    let event = CompletionEvent::new();
    #[allow(unsafe_code)]
    // SAFETY: the memory is never freed.
    unsafe { port.send(&device, Memory::new(b"hello").one(), 1, Sink::Both(event.clone())) }.unwrap();
    let told = event.wait(Some(DEADLINE)).expect("it has ended");
    assert_eq!((told.token, told.bytes, told.error), (1, 5, 0));
    let packet = raw_next(&port);
    assert_eq!((packet.key, packet.token, packet.bytes, packet.error), (7, 1, 5, 0));
    raw_quiet(&port);
    port.close_device(&device);
}

pub fn wait(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let events = [CompletionEvent::new(), CompletionEvent::new()];
    for (event, token) in events.iter().zip(1..) {
        raw_receive(&port, &device, Memory::room(1).one(), token, Sink::Event(event.clone())).unwrap();
    }
    let serving = port.clone();
    let server = thread::spawn(move || serving.get(None).is_err());
    peer.write_all(b"a").unwrap();
    assert_eq!(events[0].wait(Some(DEADLINE)).expect("the first").token, 1);
    assert!(events[1].wait(Some(WHILE)).is_none(), "the other is outstanding");
    peer.write_all(b"b").unwrap();
    assert_eq!(events[1].wait(None).expect("the second").token, 2);
    port.close();
    assert!(server.join().unwrap());
}

fn wait_some(b: &Bench) {
    let port = b.raw();
    let (device, _peer) = b.raw_stream(&port, 1);
    let event = CompletionEvent::new();
    raw_receive(&port, &device, Memory::room(4).one(), 1, Sink::Event(event.clone())).unwrap();
    quickest("a wait for an event that times out", WHILE + AT_ONCE, TRIES, || {
        let took = timed(|| assert!(event.wait(Some(WHILE)).is_none()));
        assert!(took >= WHILE);
        took
    });
    port.close_device(&device);
    assert!(event.wait(Some(DEADLINE)).is_some(), "it has ended");
}

fn two_names(_: &Bench) {
    // What the specification says, not what the table holds: errno, class, port-side, Winsock.
    let specified = [
        (104, Class::Stream, 64, 10054),
        (32, Class::Stream, 64, 10054),
        (111, Class::Connect, 1225, 10061),
        (111, Class::Datagram, 1234, 10054),
        (90, Class::Datagram, 234, 10040),
        (125, Class::Stream, 995, 995),
        (110, Class::Connect, 121, 10060),
        (101, Class::Connect, 1231, 10051),
        (113, Class::Connect, 1232, 10065),
    ];
    for (errno, class, port_side, sockets) in specified {
        let status = nt_status_of_number(errno, class);
        // A datagram's EMSGSIZE is that of a send; a receive's cut is told by its packet (U-02).
        if (errno, class) != (90, Class::Datagram) {
            assert_eq!((win32(status), winsock(status)), (port_side, sockets), "errno {errno}, {class:?}");
        }
    }
}

fn names_of_packets(b: &Bench) {
    let port = b.port();
    let (one, peer) = b.stream(&port, 1);
    one.recv(vec![0; 4], 1).unwrap();
    reset(peer);
    let packet = next(&port);
    assert_eq!(codes(&packet), (64, 10054));
    let (two, _peer) = b.stream(&port, 2);
    two.recv(vec![0; 4], 2).unwrap();
    two.cancel_all();
    let cancelled = next(&port);
    assert_eq!(codes(&cancelled), (995, 995));
    assert_eq!(codes(&packet), (64, 10054), "and it stays so");
}

fn filled(b: &Bench) {
    const BYTES: usize = 1 << 20;
    let port = b.limited(3);
    let (stream, mut peer) = b.stream(&port, 1);
    let content = pattern(BYTES, 9);
    let sent = content.clone();
    let writer = thread::spawn(move || peer.write_all(&sent));
    let good = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let (own, done) = (good.clone(), Count::default());
    let count = done.clone();
    // One receive at a time: the place of its bytes is known.
    let crew = Crew::start(&port, 3, move |_, packet| {
        if let Event::Received { stream, buffer, result: Ok(1..), .. } = packet.event {
            own.lock().unwrap().extend_from_slice(&buffer);
            (0..buffer.len()).for_each(|_| _ = count.up());
            let _ = stream.recv(vec![0xCC; 3000], 0);
        }
    });
    stream.recv(vec![0xCC; 3000], 0).unwrap();
    eventually("all of it came", || done.now() == BYTES);
    writer.join().unwrap().unwrap();
    assert!(*good.lock().unwrap() == content, "a packet came before its bytes");
    drop(crew);
}

// --- What is done instead ---

/// G-31: a wait that has ended is too late to be cancelled, and its packet stays.
fn queued_stays(b: &Bench) {
    let port = b.port();
    let running = port.timer(Duration::from_secs(600), 1, 1).unwrap();
    assert_eq!(port.cancel(running), wharf::Cancel::Requested);
    assert_eq!(codes(&next(&port)).0, 995, "one that runs can be cancelled");
    let (stream, _peer) = b.stream(&port, 2);
    let wharf::Outcome::Pending(done) = stream.send("x", 3).unwrap() else { panic!("without the skip flag") };
    assert_eq!(port.cancel(done), wharf::Cancel::TooLate);
    let packet = next(&port);
    assert!(packet.context == 3 && packet.error().is_none(), "{packet:?}");
}

/// G-32: one direction, once.
fn one_direction(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.readable(1).unwrap();
    peer.write_all(b"x").unwrap();
    let packet = next(&port);
    assert!(matches!(packet.event, Event::Readable { result: Ok(()), .. }), "{packet:?}");
    peer.write_all(b"y").unwrap();
    quiet(&port);
}
