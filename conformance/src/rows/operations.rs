//! What all operations have in common (O).

use super::driven;
use crate::kit::*;
use crate::row::{How::*, Row, differs, must, only_c, should};
use std::io::{Read, Write};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use wharf::raw::{CompletionEvent, Issued, Sink};
use wharf::{Buffer, CompletionPort, Event, Outcome};

pub const ROWS: &[Row] = &[
    must("O-01", "A call that issues an operation has three ends: done at once, pending, refused.", Test(three_ends)),
    must("O-02", "Pending means exactly one packet later, whatever it says.", Test(one_packet)),
    must("O-03", "A success inside the call queues its one packet, too.", Test(success_is_queued)),
    must("O-04", "A refused call queues nothing, and everything given comes back.", Test(refused_is_not_queued)),
    should("O-06", "Without the skip flag every accepted operation is told as pending.", Test(all_pending)),
    must(
        "O-07",
        "Without OVERLAPPED a socket call is synchronous and queues nothing.",
        only_c("an OVERLAPPED pointer that may be null"),
    ),
    must(
        "O-08",
        "Without OVERLAPPED a call on an overlapped file is refused.",
        only_c("an OVERLAPPED pointer that may be null"),
    ),
    must("O-09", "Using one token for two operations mixes up neither them nor others.", Test(same_token)),
    must(
        "O-10",
        "The array that names several buffers may live on the caller's stack.",
        only_c("an array of WSABUF that is the caller's: here it is moved into the operation"),
    ),
    must(
        "O-11",
        "The OVERLAPPED holds the pending status, then the final one and the byte count.",
        only_c("the fields of OVERLAPPED"),
    ),
    should("O-13", "The OVERLAPPED is written when the packet is dequeued.", only_c("the fields of OVERLAPPED")),
    must(
        "O-14",
        "When a packet is taken, count, buffer and address are final and visible to that thread.",
        Test(final_in_every_thread),
    ),
    should("O-15", "The call's own byte count counts only on immediate success.", only_c("out parameters")),
    should("O-16", "Immediate success sets the last error to 0.", only_c("the thread's last error")),
    must("O-17", "With the skip flag an immediate success queues no packet; what pends queues its own.", Test(skip)),
    must("O-18", "The skip flag can be set, and set again, and stays.", Test(skip_stays)),
    should(
        "O-19",
        "A flag keeps completions from signalling the handle itself.",
        only_c("handles that are events themselves"),
    ),
    must(
        "O-20",
        "An operation that asks for an event signals it and queues no packet, for success and failure.",
        differs(
            "a thread inside `get` signals it, or the call itself; with none there, and none that supervises the port (`supervise`, or a pool's), whoever waits for the event alone waits for ever",
            driven::event_only,
        ),
    ),
    must(
        "O-21",
        "An operation may have both an event and a packet.",
        differs(
            "so it is; an event holds its completion until one waiter takes it, so that one of several is released",
            driven::one_is_released,
        ),
    ),
    must(
        "O-22",
        "An event is not signalled while its operation is outstanding, and is when it has ended, also at once.",
        differs(
            "an event holds its completion until one waiter takes it: issuing does not reset it, and it then tells of the operation before",
            driven::event_is_not_reset,
        ),
    ),
    must("O-24", "The mode a socket was in, blocking or not, does not matter to its operations.", Test(mode)),
    must("O-25", "A socket's own time-outs do not end operations.", Test(socket_time_outs)),
    should("O-26", "Control requests follow the same rules.", only_c("WSAIoctl")),
    must(
        "O-28",
        "A call for which the system has no resources left is refused at once, and queues nothing.",
        Test(no_resources),
    ),
    should(
        "O-29",
        "One thread's operations of a socket, in one direction, start in the order of its calls.",
        Test(issue_order),
    ),
    must("O-30", "Any number of operations may be outstanding on a device, in both directions.", Test(many)),
    should(
        "O-31",
        "A bad address is told by an error.",
        only_c("addresses of memory that may be bad: buffers are owned"),
    ),
    must(
        "O-32",
        "A call on what is no socket is refused as such.",
        differs(
            "the wrong call does not compile; the raw layer, which takes any device, refuses it as an invalid argument (EINVAL), but for a disconnect, whose packet says 10038",
            wrong_kind,
        ),
    ),
    should("O-34", "Without an event the handle itself is signalled.", only_c("handles that are events themselves")),
];

fn three_ends(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    assert!(matches!(stream.recv(vec![0; 4], 1).unwrap(), Outcome::Pending(_)));
    peer.write_all(b"x").unwrap();
    assert_eq!(received(&port).0, 1);
    stream.skip_on_success();
    let done = stream.send("hello", 2).unwrap();
    assert!(matches!(done, Outcome::Done(packet) if packet.context == 2 && packet.error().is_none()));
    stream.close();
    assert_eq!(stream.recv(vec![0; 4], 3).expect_err("it is closed").context, 3);
    quiet(&port);
}

fn one_packet(b: &Bench) {
    let port = b.port();
    for end in 0..4 {
        let (stream, mut peer) = b.stream(&port, 1);
        pending(stream.recv(vec![0; 4], end).unwrap());
        match end {
            0 => peer.write_all(b"x").unwrap(),
            1 => drop(peer),
            2 => reset(peer),
            _ => drop(stream.cancel_all()),
        }
        assert_eq!(next(&port).context, end);
        quiet(&port);
    }
    super::kinds::each_can_be_cancelled(b);
    super::kinds::each_ends_by_closing(b);
}

fn success_is_queued(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    // It fits, so it is done when the call returns: the peer can read it although nobody serves the port.
    pending(stream.send("hello", 7).unwrap());
    peer.read_exact(&mut [0; 5]).unwrap();
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (7, 5));
    quiet(&port);
    peer.write_all(b"ready").unwrap();
    thread::sleep(WHILE);
    pending(stream.recv(vec![0; 16], 8).unwrap());
    assert_eq!(received(&port).1.unwrap(), b"ready");
    quiet(&port);
}

fn refused_is_not_queued(b: &Bench) {
    let port: CompletionPort<u64, Arc<()>> = b.build(b.options()).unwrap();
    let (server, _peer) = b.pair();
    let stream = port.associate(server, 1).unwrap();
    let mark = Arc::new(());
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    let refused = stream.send("mine", mark.clone()).expect_err("it was shut");
    assert_eq!(&refused.buffer[..], b"mine");
    // Memory that cannot be received into.
    assert!(stream.recv(Buffer::from("static"), mark.clone()).is_err());
    stream.close();
    assert!(stream.recv(vec![0; 4], mark.clone()).is_err() && stream.send("x", mark.clone()).is_err());
    drop(refused);
    assert_eq!(Arc::strong_count(&mark), 1, "contexts of refused calls are the caller's again");
    assert!(port.get_timeout(WHILE).is_err(), "nothing is queued");
    super::kinds::each_call_is_refused(b);
}

fn all_pending(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    peer.write_all(b"ready").unwrap();
    thread::sleep(WHILE);
    pending(stream.send("at once", 1).unwrap());
    pending(stream.recv(vec![0; 16], 2).unwrap());
    pending(stream.disconnect(3).unwrap());
    let socket = port.bind("127.0.0.1:0", 2).unwrap();
    pending(socket.send_to("x", socket.local_addr().unwrap(), 4).unwrap());
    let path = Temporary::with("content");
    let file = port.open(&path, std::fs::OpenOptions::new().read(true), 3).unwrap();
    pending(file.read_at(vec![0; 4], 0, 5).unwrap());
    let mut contexts: Vec<u64> = (0..5).map(|_| next(&port).context).collect();
    contexts.sort_unstable();
    assert_eq!(contexts, [1, 2, 3, 4, 5]);
}

fn same_token(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let memory = [Memory::room(1), Memory::room(1), Memory::room(1)];
    for piece in &memory {
        raw_receive(&port, &device, piece.one(), 5, Sink::Port).unwrap();
    }
    peer.write_all(b"abc").unwrap();
    for _ in 0..3 {
        let packet = raw_next(&port);
        assert_eq!((packet.token, packet.bytes), (5, 1));
    }
    raw_quiet(&port);
    assert_eq!(memory.map(|piece| piece.bytes()[0]), *b"abc");
    port.close_device(&device);
}

fn final_in_every_thread(b: &Bench) {
    const ROUNDS: u64 = 500;
    let port = b.limited(3);
    let socket = port.bind("127.0.0.1:0", 0).unwrap();
    let to = socket.local_addr().unwrap();
    let sender = b.mail();
    let from = sender.local_addr();
    let (tell, told) = mpsc::channel();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let (port, tell) = (port.clone(), tell.clone());
            thread::spawn(move || {
                while let Ok(packet) = port.get() {
                    let Event::ReceivedFrom { socket, buffer, from, result, .. } = packet.event else { continue };
                    let good = result.is_ok_and(|bytes| bytes == buffer.len());
                    tell.send((good, buffer.to_vec(), from)).unwrap();
                    let _ = socket.recv_from(vec![0; 64], 0);
                }
            })
        })
        .collect();
    socket.recv_from(vec![0; 64], 0).unwrap();
    for round in 0..ROUNDS {
        let content = pattern(1 + round as usize % 60, round);
        sender.send_to(&content, to);
        let (good, bytes, peer) = told.recv_timeout(DEADLINE).unwrap();
        assert!(good && bytes == content && peer == Some(from), "round {round}");
    }
    port.close();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

fn skip(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.skip_on_success();
    assert!(matches!(stream.send("x", 1).unwrap(), Outcome::Done(packet) if packet.context == 1));
    pending(stream.recv(vec![0; 4], 2).unwrap());
    quiet(&port);
    peer.write_all(b"y").unwrap();
    assert_eq!(received(&port).0, 2, "what pended queues its packet");
    // What is there already: done, or queued, and never both.
    peer.write_all(b"z").unwrap();
    thread::sleep(WHILE);
    match stream.recv(vec![0; 4], 3).unwrap() {
        Outcome::Done(packet) => assert_eq!(packet.context, 3),
        Outcome::Pending(_) => assert_eq!(received(&port).0, 3),
    }
    quiet(&port);
    // For receives the flag is of use, too: of several whose data is there, some are done at once.
    let mut done = 0;
    for number in 4..24 {
        peer.write_all(b"z").unwrap();
        thread::sleep(Duration::from_millis(2));
        match stream.recv(vec![0; 1], number).unwrap() {
            Outcome::Done(packet) => {
                assert_eq!(packet.context, number);
                done += 1;
            }
            Outcome::Pending(_) => assert_eq!(received(&port).0, number),
        }
    }
    quiet(&port);
    assert!(done > 0, "no receive was done at once, with the skip flag and its data there");
}

fn skip_stays(b: &Bench) {
    let port = b.raw();
    let (device, _peer) = b.raw_stream(&port, 1);
    device.skip_on_success();
    device.skip_on_success();
    for token in 0..3 {
        assert!(matches!(raw_send(&port, &device, Memory::new(b"x").one(), token), Ok(Issued::Done(_))));
    }
    raw_quiet(&port);
}

pub fn event_only(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let event = CompletionEvent::new();
    raw_receive(&port, &device, Memory::room(4).one(), 1, Sink::Event(event.clone())).unwrap();
    peer.write_all(b"x").unwrap();
    raw_quiet(&port);
    let ended = event.wait(Some(DEADLINE)).expect("the event is signalled");
    assert_eq!((ended.token, ended.bytes, ended.error), (1, 1, 0));
    raw_receive(&port, &device, Memory::room(4).one(), 2, Sink::Event(event.clone())).unwrap();
    port.close_device(&device);
    let ended = event.wait(Some(DEADLINE)).expect("the event is signalled");
    assert_eq!((ended.token, ended.error), (2, ECANCELED));
    raw_quiet(&port);
}

pub fn event_and_packet(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let event = CompletionEvent::new();
    for (token, closes) in [(1, false), (2, true)] {
        raw_receive(&port, &device, Memory::room(4).one(), token, Sink::Both(event.clone())).unwrap();
        assert!(event.wait(Some(Duration::ZERO)).is_none(), "it is outstanding");
        let expected = if closes {
            port.close_device(&device);
            (token, 0, ECANCELED)
        } else {
            peer.write_all(b"x").unwrap();
            (token, 1, 0)
        };
        let packet = raw_next(&port);
        assert_eq!((packet.token, packet.bytes, packet.error), expected);
        let told = event.wait(Some(DEADLINE)).expect("the event is signalled");
        assert_eq!((told.token, told.bytes, told.error), expected);
        raw_quiet(&port);
    }
}

pub fn event_is_set(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let event = CompletionEvent::new();
    raw_receive(&port, &device, Memory::room(4).one(), 1, Sink::Event(event.clone())).unwrap();
    let serving = port.clone();
    let thread = thread::spawn(move || serving.get(None).map(drop));
    thread::sleep(WHILE);
    assert!(event.wait(Some(Duration::ZERO)).is_none(), "it is outstanding");
    peer.write_all(b"x").unwrap();
    assert!(event.wait(Some(DEADLINE)).is_some());
    assert!(event.wait(Some(Duration::ZERO)).is_none(), "taken once");
    #[allow(unsafe_code)]
    // SAFETY: the memory is never freed.
    let at_once = unsafe { port.send(&device, Memory::new(b"x").one(), 2, Sink::Event(event.clone())) };
    at_once.unwrap();
    assert!(event.wait(Some(Duration::ZERO)).is_some(), "what is done at once has signalled when the call returns");
    port.close();
    assert!(thread.join().unwrap().is_err());
}

/// In a thread of its own, which a call that blocks would hold up.
fn in_time(what: &str, b: &Bench, check: impl FnOnce(&Bench) + Send + 'static) {
    let (tell, told) = mpsc::channel();
    let own = b.another();
    let thread = thread::spawn(move || {
        check(&own);
        let _ = tell.send(());
    });
    match told.recv_timeout(DEADLINE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("{what} blocked the calling thread"),
        _ => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
    }
}

fn mode(b: &Bench) {
    for nonblocking in [false, true] {
        let port = b.port();
        let (server, mut peer) = b.pair();
        server.set_nonblocking(nonblocking).unwrap();
        let stream = port.associate(server, 1).unwrap();
        pending(stream.recv(vec![0; 4], 1).unwrap());
        assert!(port.get_timeout(WHILE).is_err(), "it pends");
        peer.write_all(b"x").unwrap();
        assert_eq!(received(&port).1.unwrap(), b"x");
    }
    // Set to blocking afterwards, by a duplicate or a process that has inherited it: no call of the port waits.
    in_time("a receive, and a get with a time-out,", b, |b| {
        let port = b.port();
        let (server, mut peer) = b.pair();
        let copy = server.try_clone().unwrap();
        let stream = port.associate(server, 1).unwrap();
        copy.set_nonblocking(false).unwrap();
        peer.write_all(b"1234").unwrap();
        // The first is filled, so that more may be there.
        stream.recv(Vec::with_capacity(4), 1).unwrap();
        assert_eq!(received(&port).1.unwrap(), b"1234");
        stream.recv(vec![0; 4], 2).unwrap();
        assert!(port.get_timeout(WHILE).is_err());
        peer.write_all(b"x").unwrap();
        assert_eq!(received(&port).1.unwrap(), b"x");
    });
    in_time("an accept, and a get with a time-out,", b, |b| {
        let port = b.port();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let copy = listener.try_clone().unwrap();
        let address = listener.local_addr().unwrap();
        let listener = port.associate(listener, 1).unwrap();
        copy.set_nonblocking(false).unwrap();
        let _first = b.connect(address).unwrap();
        listener.accept(1).unwrap();
        listener.accept(2).unwrap();
        assert_eq!(accepted(&port).0, 1);
        assert!(port.get_timeout(WHILE).is_err());
        let _second = b.connect(address).unwrap();
        assert_eq!(accepted(&port).0, 2);
    });
    in_time("a send that does not fit", b, |b| {
        let port = b.port();
        let (server, peer) = pair();
        small_buffers([&server, &peer]);
        let copy = server.try_clone().unwrap();
        let stream = port.associate(server, 1).unwrap();
        copy.set_nonblocking(false).unwrap();
        stream.send(vec![7; MUCH], 1).unwrap();
        assert!(port.get_timeout(WHILE).is_err());
        let reader = super::send::reading(Peer::Std(peer));
        assert_eq!(sent(&port).1.unwrap(), MUCH);
        stream.close();
        drop(copy);
        assert_eq!(reader.join().unwrap().len(), MUCH);
    });
    in_time("a receive of a datagram, and a get with a time-out,", b, |b| {
        let port = b.port();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let copy = socket.try_clone().unwrap();
        let to = copy.local_addr().unwrap();
        let socket = port.associate(socket, 1).unwrap();
        copy.set_nonblocking(false).unwrap();
        copy.send_to(b"y", to).unwrap();
        socket.recv_from(vec![0; 4], 1).unwrap();
        socket.recv_from(vec![0; 4], 2).unwrap();
        assert_eq!(next(&port).context, 1);
        assert!(port.get_timeout(WHILE).is_err());
        copy.send_to(b"x", to).unwrap();
        assert_eq!(next(&port).context, 2);
    });
}

fn socket_time_outs(b: &Bench) {
    let port = b.port();
    let (server, mut peer) = b.pair();
    server.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    server.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
    let stream = port.associate(server, 1).unwrap();
    stream.recv(vec![0; 4], 1).unwrap();
    assert!(port.get_timeout(WHILE * 2).is_err(), "the socket's time-out is long over");
    peer.write_all(b"x").unwrap();
    assert_eq!(received(&port).1.unwrap(), b"x");
    // A send that waits for the peer.
    let (server, peer) = pair();
    small_buffers([&server, &peer]);
    server.set_write_timeout(Some(Duration::from_millis(1))).unwrap();
    let stream = port.associate(server, 2).unwrap();
    stream.send(vec![7; MUCH], 3).unwrap();
    assert!(port.get_timeout(WHILE * 2).is_err(), "the socket's time-out is long over");
    let reader = super::send::reading(Peer::Std(peer));
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (3, MUCH));
    stream.close();
    assert_eq!(reader.join().unwrap().len(), MUCH);
}

fn no_resources(b: &Bench) {
    if cfg!(windows) {
        not_tried("a limit of handles that a program can lower");
    }
    b.in_child("no-descriptors");
}

#[cfg(windows)]
pub fn no_descriptors(_: &Bench) {}

#[cfg(unix)]
/// Part of O-28, in a process of its own: it uses all descriptors up.
pub fn no_descriptors(b: &Bench) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let port = b.port();
    let _ = port.get_timeout(Duration::ZERO);
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    let (nowhere, context) = (std::net::SocketAddr::from(([127, 0, 0, 1], 9)), 5);
    let refused = port.connect(nowhere, 1, context).expect_err("there is no descriptor for it");
    assert_eq!((refused.context, refused.error.raw_os_error()), (5, Some(24)));
    let numbers = [
        port.listen("127.0.0.1:0", 1).err(),
        port.bind("127.0.0.1:0", 1).err(),
        port.open("/dev/null", std::fs::OpenOptions::new().read(true), 1).err(),
    ];
    assert!(
        numbers.iter().all(|error| error.as_ref().and_then(std::io::Error::raw_os_error) == Some(24)),
        "{numbers:?}"
    );
    // What needs none goes on.
    port.timer(Duration::from_millis(1), 1, 7).unwrap();
    assert_eq!(next(&port).context, 7);
    assert!(port.get_timeout(WHILE).is_err(), "nothing is queued");
    drop(held);
    let listener = b.listener();
    port.connect(listener.local_addr(), 1, 6).unwrap();
    assert_eq!(next(&port).context, 6, "with resources it works again");
}

fn issue_order(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    (0..50_u8).for_each(|number| drop(stream.send(vec![number; 3], number.into()).unwrap()));
    let mut all = [0; 150];
    peer.read_exact(&mut all).unwrap();
    assert!(all.chunks(3).enumerate().all(|(number, chunk)| chunk == [number as u8; 3]));
    (0..50).for_each(|number| assert_eq!(sent(&port).0, number));
}

fn many(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    for number in 0..200 {
        pending(stream.recv(vec![0; 1], number).unwrap());
        pending(stream.send(vec![7; 8192], 1000 + number).unwrap());
    }
    let busy = port.devices()[0].pending;
    assert!(busy.0 == 200 && busy.1 > 0, "outstanding in both directions: {busy:?}");
    let mut reader = peer.try_clone().unwrap();
    let thread = thread::spawn(move || reader.read_exact(&mut vec![0; 200 * 8192]));
    (&peer).write_all(&[1; 200]).unwrap();
    let mut contexts: Vec<u64> = (0..400).map(|_| next(&port).context).collect();
    contexts.sort_unstable();
    assert!(contexts.into_iter().eq((0..200).chain(1000..1200)), "each has its one packet");
    thread.join().unwrap().unwrap();
}

/// O-32, in the raw layer.
#[allow(unsafe_code)]
fn wrong_kind(b: &Bench) {
    use wharf::error::ErrorExt;
    use wharf::raw::DeviceKind;
    let port = b.raw();
    let path = Temporary::with("content");
    let file = for_ports(std::fs::OpenOptions::new().read(true).write(true)).open(&path).unwrap();
    let file = port.adopt(file, DeviceKind::File, 1).unwrap();
    let (stream, _peer) = b.raw_stream(&port, 2);
    let into = Memory::room(4);
    // SAFETY: `Memory` is never freed.
    let refused = unsafe {
        [
            ("receive on a file", raw_receive(&port, &file, into.one(), 1, Sink::Port)),
            ("send on a file", raw_send(&port, &file, into.one(), 2)),
            ("accept on a file", port.accept(&file, 3, Sink::Port)),
            ("read of a stream", port.read_file(&stream, into.one(), 0, 5, Sink::Port)),
            ("write of a stream", port.write_file(&stream, into.one(), Some(0), 6, Sink::Port)),
        ]
    };
    for (what, refused) in refused {
        let number = refused.err().unwrap_or_else(|| panic!("{what} was accepted"));
        assert_eq!(wharf::error::io_error(number).winsock(), 10022, "{what}");
    }
    // The system is asked to disconnect, and its number comes with the packet.
    if port.disconnect(&file, 4, Sink::Port).is_ok() {
        let packet = raw_next(&port);
        assert_eq!((packet.token, wharf::error::io_error(packet.error).winsock()), (4, 10038));
    }
    raw_quiet(&port);
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    port.close_device(&file);
    port.close_device(&stream);
}
