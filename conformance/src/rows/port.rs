//! The port object (P).

use crate::kit::*;
use crate::row::{How::*, Row, differs, must, only_c, should};
use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use wharf::raw::{DeviceKind, Sink};
use wharf::{Buffer, CompletionPort, Event, GetError};

pub const ROWS: &[Row] = &[
    must("P-01", "A new port has no devices and an empty queue, and can be used at once.", Test(new_port)),
    must(
        "P-02",
        "A port can be made for a socket: what the socket does then completes there, under its key.",
        Test(made_for_a_socket),
    ),
    must(
        "P-03",
        "Associating adds a device to the port that is there and makes no other: closing it once ends all.",
        Test(one_port),
    ),
    must(
        "P-04",
        "The concurrency limit is that of the port's making, whatever is associated later.",
        Test(limit_stays),
    ),
    must("P-05", "A limit of 0 is the number of processors.", Test(limit_zero)),
    must("P-06", "A port that cannot be made is refused with a number, and leaves nothing behind.", Test(no_port)),
    must(
        "P-07",
        "The invalid handle value together with a port is refused.",
        only_c("INVALID_HANDLE_VALUE as an argument that asks for a bare port"),
    ),
    must(
        "P-08",
        "What is no descriptor, or none that can complete, is refused as an invalid handle and stays the caller's.",
        Test(invalid_file),
    ),
    must(
        "P-09",
        "Nothing can be associated with a port that is closed; the source comes back open.",
        Test(invalid_port),
    ),
    must(
        "P-10",
        "A handle that was opened for synchronous use is refused.",
        only_c("FILE_FLAG_OVERLAPPED: a descriptor has no such kind, the port sets its mode itself"),
    ),
    must("P-11", "Sockets, pipes, terminals and files associate; directories and memory do not.", Test(kinds)),
    must("P-12", "A std socket, and one that was accepted, can be associated as it is.", Test(any_socket)),
    must("P-13", "A file object belongs to one port, once and for all.", Test(super::driven::duplicate_is_refused)),
    must(
        "P-14",
        "After a refused second association the first works as before, under its first key.",
        Test(first_stays),
    ),
    must(
        "P-15",
        "A duplicate of an associated handle is associated with it.",
        Test(super::driven::duplicate_is_refused),
    ),
    must(
        "P-16",
        "Nothing takes a file out of its port again.",
        differs("`release` does, while no operation is outstanding", taken_out),
    ),
    must("P-17", "Devices may share a key, and every bit of it comes back, from none to all.", Test(keys)),
    must(
        "P-18",
        "Associating while an operation is outstanding sends its completion to the port.",
        only_c("overlapped operations on a handle without a port"),
    ),
    should("P-20", "With a port, a completion routine is refused.", only_c("completion routines (APCs)")),
    must(
        "P-22",
        "A stream is associated before it connects, and a failed attempt and the next one keep port and key.",
        Test(before_connect),
    ),
    must(
        "P-23",
        "Plain calls queue nothing: shutdown, options, connecting a datagram socket, a file's length.",
        Test(plain_calls),
    ),
    must(
        "P-24",
        "An accept completes under the listener's key, and leaves the connection associated with nothing.",
        Test(accepted_is_free),
    ),
    must("P-30", "A port lives while a handle to it does, and closing it closes no device.", Test(lifetime)),
    must(
        "P-31",
        "Operations on a file whose port is gone complete for the file.",
        differs(
            "closing the port ends its devices' operations as cancelled; buffers and contexts are freed",
            ends_with_its_port,
        ),
    ),
    should(
        "P-32",
        "A file whose port is gone still counts as associated.",
        differs("devices of a closed port can be closed, but not used or released", after_its_port),
    ),
    must(
        "P-33",
        "A clone of a port's handle keeps queue, waiters and devices when the first is dropped.",
        Test(clones),
    ),
    must("P-34", "Closing the port ends every wait for one packet as abandoned (735).", Test(abandoned_one)),
    must(
        "P-35",
        "Closing the port ends every wait for a batch as abandoned (735), with nothing in it.",
        Test(abandoned_batch),
    ),
    must(
        "P-37",
        "Calls on a handle that is closed fail as invalid (6).",
        differs(
            "they fail at once as abandoned (735): a handle cannot outlive itself, so a closed port is the nearest there is",
            closed_handle,
        ),
    ),
    must(
        "P-38",
        "A port works in the process that made it: a forked child's calls fail (6), the parent is undisturbed.",
        Test(forked),
    ),
    should(
        "P-39",
        "An associated handle that another process inherits completes to the port of the one that made it.",
        differs("descriptors of devices are closed on exec, and a forked child's calls fail", not_inherited),
    ),
    should(
        "P-40",
        "One can wait for the port itself: readable while something is queued, and waiting takes nothing.",
        Test(notifier),
    ),
    must("P-43", "Ports that are made and closed leak neither what was queued nor descriptors.", Alone(no_leaks)),
];

fn new_port(b: &Bench) {
    let port = b.port();
    assert_eq!(port.stats().engine, b.engine.sockets(), "another engine would be tested");
    assert!(port.devices().is_empty());
    assert_eq!((port.stats().queued, port.stats().devices), (0, 0));
    assert!(matches!(port.get_timeout(Duration::ZERO), Err(GetError::TimedOut)));
    port.post(3, 4, 5).unwrap();
    assert_eq!(next(&port).context, 5);
}

fn made_for_a_socket(b: &Bench) {
    let (server, mut peer) = b.pair();
    let port = b.port();
    let stream = port.associate(server, 42).unwrap();
    stream.recv(vec![0; 8], 1).unwrap();
    peer.write_all(b"x").unwrap();
    let packet = next(&port);
    assert_eq!((packet.key, packet.context), (42, 1));
    assert!(matches!(packet.event, Event::Received { result: Ok(1), .. }));
}

fn one_port(b: &Bench) {
    let port = b.port();
    let (one, _peer) = b.stream(&port, 1);
    let (two, _other) = b.stream(&port, 2);
    assert_eq!(port.stats().devices, 2);
    let own: Vec<u64> = port.devices().iter().map(|device| device.number).collect();
    assert!(own.contains(&one.number()) && own.contains(&two.number()));
    // Traffic on both, which ends in the middle.
    let (done, ended) = (Count::default(), Count::default());
    let (count, ends) = (done.clone(), ended.clone());
    let crew = Crew::start(&port, 2, move |_, packet| {
        if let Event::Received { stream, result: Ok(1..), .. } = packet.event {
            count.up();
            // Refused once the port is closed, which is the end of it.
            if stream.recv(vec![0; 64], packet.context).is_err() || stream.send("x", packet.context).is_err() {
                ends.up();
            }
        }
    });
    for (stream, peer) in [(&one, &_peer), (&two, &_other)] {
        stream.recv(vec![0; 64], 1).unwrap();
        (&mut &*peer).write_all(b"x").unwrap();
    }
    let stop = Flag::default();
    let pumps = [_peer, _other].map(|mut peer| {
        let stop = stop.clone();
        thread::spawn(move || {
            while !stop.is_set() && peer.write_all(b"x").is_ok() {
                thread::sleep(Duration::from_micros(200));
            }
        })
    });
    eventually("both have traffic", || done.now() > 100);
    port.close();
    assert!(one.readable(0).is_err() && two.readable(0).is_err(), "one close is enough for both");
    drop(crew);
    let at_the_end = done.now();
    thread::sleep(WHILE);
    assert_eq!(done.now(), at_the_end, "a packet was handled after the close");
    stop.set();
    pumps.into_iter().for_each(|pump| pump.join().unwrap());
}

fn limit_stays(b: &Bench) {
    let port = b.limited(3);
    for key in 0..5 {
        let _ = b.stream(&port, key);
        assert_eq!(port.stats().concurrency, 3);
    }
    let devices: Vec<_> = (0..5).map(|key| b.stream(&port, key)).collect();
    let peak = super::concurrency::computing(&port, 3, 6);
    assert_eq!(peak, 3, "so many compute at once, with {} devices", devices.len());
}

fn limit_zero(b: &Bench) {
    assert_eq!(b.limited(0).stats().concurrency, thread::available_parallelism().unwrap().get());
}

fn no_port(b: &Bench) {
    if cfg!(windows) {
        not_tried("a limit of handles that a program can lower");
    }
    b.in_child("no-port");
}

#[cfg(windows)]
pub fn none_left(_: &Bench) {}

/// Part of P-06, in a process of its own: it uses all descriptors up.
#[cfg(unix)]
pub fn none_left(b: &Bench) {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let first = b.port();
    setrlimit(Resource::Nofile, Rlimit { current: Some(64), maximum: Some(64) }).unwrap();
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        held.push(file);
    }
    let mut made = 0;
    // With no descriptor, with one, and so on: whatever it is that is missing.
    while made == 0 {
        match b.build::<u64, u64>(b.options()) {
            Ok(port) => {
                made += 1;
                assert!(!held.is_empty(), "a port needs a descriptor");
                port.post(0, 0, 5).unwrap();
                assert_eq!(next(&port).context, 5, "it is a whole one");
            }
            Err(error) => {
                assert_eq!(error.raw_os_error(), Some(24), "{error}");
                let free = || std::iter::from_fn(|| std::fs::File::open("/dev/null").ok()).collect::<Vec<_>>().len();
                let before = free();
                assert!(b.build::<u64, u64>(b.options()).is_err());
                assert_eq!(free(), before, "a port that could not be made has left a descriptor behind");
                drop(held.pop().expect("a port can be made some time"));
            }
        }
    }
    first.post(0, 0, 6).unwrap();
    assert_eq!(next(&first).context, 6, "the one that was there works on");
}

fn invalid_file(b: &Bench) {
    let port = b.raw();
    // Nobody has this number: the highest that the system gives is far below.
    #[allow(unsafe_code)]
    // SAFETY: it is nobody's, and is refused.
    let error = unsafe { port.adopt_raw(NO_HANDLE, DeviceKind::Stream, 1) }.expect_err("that is no descriptor");
    assert_eq!(wharf::error::win32(wharf::error::nt_status_of_number(error, wharf::error::Class::Any)), 6);
    assert_eq!(port.device_count(), 0);
    // An object of a kind that completes nothing.
    let path = Temporary::with("x");
    let port = b.port();
    let file = whatever(std::fs::File::open(&path).unwrap());
    let rejected = port.associate(file, 9).expect_err("a file is no stream");
    assert!(matches!(rejected.error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported));
    let file = std::fs::File::from(rejected.source);
    assert!(file.metadata().is_ok(), "it stays the caller's, and open");
    assert_eq!((rejected.key, port.stats().devices), (9, 0));
}

fn invalid_port(b: &Bench) {
    let port = b.port();
    port.close();
    let (server, mut peer) = b.pair();
    let mut rejected = port.associate(server, 3).expect_err("the port is closed");
    rejected.source.write_all(b"open").unwrap();
    peer.read_exact(&mut [0; 4]).unwrap();
    let raw = b.raw();
    raw.close();
    let (server, _peer) = b.pair();
    let (error, _server) = raw.adopt(server, DeviceKind::Stream, 0).expect_err("the port is closed");
    assert_eq!(wharf::error::win32(wharf::error::nt_status_of_number(error, wharf::error::Class::Any)), 6);
    // In a race with the close a source is associated or comes back, and nothing is lost.
    for round in 0..200 {
        let port = b.port();
        let (server, mut peer) = b.pair();
        thread::scope(|scope| {
            let closer = scope.spawn(|| {
                (0..round % 7 * 20).for_each(|_| std::hint::spin_loop());
                port.close();
            });
            match port.associate(server, 1) {
                Ok(stream) => drop(stream),
                Err(rejected) => drop(rejected.source),
            }
            closer.join().unwrap();
        });
        drop(port);
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the socket is closed once, by whoever had it");
    }
}

#[cfg(windows)]
fn kinds(_: &Bench) {
    not_here("Unix sockets and pipes do not complete into a port there")
}

#[cfg(unix)]
fn kinds(b: &Bench) {
    let port = b.port();
    let path = Temporary::with("x");
    let (reader, writer) = std::io::pipe().unwrap();
    let (local, _peer) = std::os::unix::net::UnixStream::pair().unwrap();
    port.associate(b.pair().0, 0).unwrap();
    port.associate(local, 0).unwrap();
    port.associate(reader, 0).unwrap();
    port.associate(writer, 0).unwrap();
    port.associate(std::fs::File::open(&path).unwrap(), 0).unwrap();
    port.associate(std::net::UdpSocket::bind("127.0.0.1:0").unwrap(), 0).unwrap();
    port.associate(std::net::TcpListener::bind("127.0.0.1:0").unwrap(), 0).unwrap();
    let directory = std::fs::File::open(std::env::temp_dir()).unwrap();
    assert_eq!(port.associate(directory, 0).expect_err("a directory").error.kind(), ErrorKind::InvalidInput);
    if let Some(memory) = crate::system::memory() {
        assert_eq!(port.associate(memory, 0).expect_err("memory").error.kind(), ErrorKind::InvalidInput);
    }
    // And they work: what goes in on one side comes out on the other.
    let (local, mut peer) = std::os::unix::net::UnixStream::pair().unwrap();
    let local = port.associate(local, 1).unwrap();
    local.recv(vec![0; 8], 1).unwrap();
    peer.write_all(b"local").unwrap();
    assert_eq!(received(&port).1.unwrap(), b"local");
    local.send("back", 2).unwrap();
    assert_eq!(sent(&port).1.unwrap(), 4);
    peer.read_exact(&mut [0; 4]).unwrap();
    if let Some((terminal, mut master)) = crate::system::terminal() {
        let terminal = port.associate(terminal, 1).unwrap();
        terminal.recv(vec![0; 64], 3).unwrap();
        master.write_all(b"typed\n").unwrap();
        assert_eq!(received(&port).1.unwrap(), b"typed\n");
        terminal.send("said", 4).unwrap();
        assert_eq!(sent(&port).1.unwrap(), 4);
    }
}

fn any_socket(b: &Bench) {
    let port = b.port();
    let (client, server) = b.both();
    let (one, two) = (port.associate(client, 1).unwrap(), port.associate(server, 2).unwrap());
    two.recv(vec![0; 8], 7).unwrap();
    one.send("hello", 8).unwrap();
    let contexts = [next(&port), next(&port)].map(|packet| (packet.key, packet.context));
    assert!(contexts.contains(&(2, 7)) && contexts.contains(&(1, 8)));
}

fn first_stays(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 11);
    #[allow(unsafe_code)]
    // SAFETY: the device has it, and it is refused: the device keeps it.
    let again = unsafe { port.adopt_raw(device.handle(), DeviceKind::Stream, 22) };
    assert!(again.is_err(), "it is associated already");
    assert_eq!(port.device_count(), 1);
    let memory = Memory::room(4);
    raw_receive(&port, &device, memory.one(), 1, Sink::Port).unwrap();
    #[allow(unsafe_code)]
    // SAFETY: as above.
    let again = unsafe { port.adopt_raw(device.handle(), DeviceKind::Stream, 33) };
    assert!(again.is_err(), "also while it is busy");
    peer.write_all(b"x").unwrap();
    let packet = raw_next(&port);
    assert_eq!((packet.key, packet.token, packet.bytes), (11, 1, 1));
    port.close_device(&device);
}

fn keys(b: &Bench) {
    let port = b.raw();
    let keys = [0, usize::MAX, 77, 77, 1 << 63];
    let streams: Vec<_> = keys.iter().map(|&key| b.raw_stream(&port, key)).collect();
    for ((device, peer), key) in streams.iter().zip(keys) {
        raw_receive(&port, device, Memory::room(4).one(), 5, Sink::Port).unwrap();
        (&mut &*peer).write_all(b"x").unwrap();
        let packet = raw_next(&port);
        assert_eq!((packet.key, packet.device), (key, device.number()));
    }
}

fn before_connect(b: &Bench) {
    let port = b.port();
    let (_held, nobody) = dead_address();
    let stream = port.connect(nobody, 31, 1).unwrap();
    let packet = next(&port);
    assert_eq!(packet.key, 31);
    assert!(packet.error().is_some(), "nobody listens there");
    let listener = b.listener();
    stream.connect(listener.local_addr(), 2).unwrap();
    let packet = next(&port);
    assert_eq!((packet.key, packet.context), (31, 2));
    assert!(packet.error().is_none());
    let mut peer = listener.accept();
    stream.recv(vec![0; 4], 3).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(next(&port).key, 31, "the same key through failure and success");
}

fn plain_calls(b: &Bench) {
    let port = b.port();
    let (stream, _peer) = b.stream(&port, 1);
    stream.set_nodelay(true).unwrap();
    stream.peer_addr().unwrap();
    stream.local_addr().unwrap();
    stream.shutdown(std::net::Shutdown::Both).unwrap();
    // Those of a duplicate, too.
    let (server, _other) = b.pair();
    let copy = server.try_clone().unwrap();
    let _stream = port.associate(server, 1).unwrap();
    copy.set_nodelay(true).unwrap();
    copy.set_read_timeout(Some(WHILE)).unwrap();
    assert!(copy.take_error().unwrap().is_none());
    copy.set_nonblocking(true).unwrap();
    let socket = port.bind("127.0.0.1:0", 2).unwrap();
    socket.connect(socket.local_addr().unwrap()).unwrap();
    let path = Temporary::with("x");
    let file = port.open(&path, std::fs::OpenOptions::new().write(true), 3).unwrap();
    file.set_len(10).unwrap();
    assert_eq!(file.len().unwrap(), 10);
    quiet(&port);
}

fn accepted_is_free(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 55).unwrap();
    listener.accept(1).unwrap();
    let mut client = b.connect(listener.local_addr().unwrap()).unwrap();
    let packet = next(&port);
    assert_eq!((packet.key, packet.context), (55, 1));
    let Event::Accepted { result: Ok((socket, _)), .. } = packet.event else { panic!("not accepted") };
    assert_eq!(port.stats().devices, 1, "the listener alone");
    client.write_all(b"x").unwrap();
    quiet(&port);
    // It may go to another port.
    let other = b.port();
    let stream = other.associate(socket, 66).unwrap();
    stream.recv(vec![0; 4], 2).unwrap();
    assert_eq!(next(&other).key, 66);
}

fn lifetime(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    let other = port.clone();
    drop(port);
    stream.recv(vec![0; 4], 1).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(received(&other).1.unwrap(), b"x");
    // At that moment something is outstanding in both directions.
    let (busy, far) = b.narrow(&other, 2);
    busy.send(vec![7; MUCH], 2).unwrap();
    busy.recv(vec![0; 4], 3).unwrap();
    stream.recv(vec![0; 4], 4).unwrap();
    drop(other);
    far.set_read_timeout(Some(WHILE)).unwrap();
    let mut space = vec![0; MUCH];
    while (&far).read(&mut space).is_ok_and(|bytes| bytes > 0) {}
    let error = (&far).read(&mut space).expect_err("neither the end nor a reset");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    drop(busy);
    // The port is gone; the connection is not.
    peer.set_read_timeout(Some(WHILE)).unwrap();
    let error = peer.read(&mut [0; 1]).expect_err("the connection is still open");
    assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    drop(stream);
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "it ends with its last handle");
}

fn clones(b: &Bench) {
    let port = b.port();
    let other = port.clone();
    let (stream, mut peer) = b.stream(&port, 1);
    port.post(0, 0, 1).unwrap();
    let waiter = other.clone();
    assert_eq!(next(&port).context, 1);
    let thread = thread::spawn(move || next(&waiter).context);
    eventually("the thread waits", || other.stats().waiting == 1);
    drop(port);
    stream.recv(vec![0; 4], 2).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(thread.join().unwrap(), 2);
}

fn abandoned(b: &Bench, wait: impl Fn(&Port) -> GetError + Send + Copy + 'static) {
    let port = b.port();
    let threads: Vec<_> = (0..3)
        .map(|_| {
            let port = port.clone();
            thread::spawn(move || wait(&port))
        })
        .collect();
    eventually("all wait", || port.stats().waiting == 3);
    port.close();
    for thread in threads {
        assert_eq!(thread.join().unwrap().win32(), 735);
    }
}

/// The same while posts and I/O come without end: none of five takers is forgotten, and none takes anything any more.
fn abandoned_in_a_flood(b: &Bench, take: impl Fn(&Port) -> Result<usize, GetError> + Send + Copy + 'static) {
    let port = b.limited(3);
    let (stream, mut peer) = b.stream(&port, 1);
    let (stop, taken) = (Flag::default(), Count::default());
    let takers: Vec<_> = (0..5)
        .map(|_| {
            let (port, taken) = (port.clone(), taken.clone());
            thread::spawn(move || {
                loop {
                    match take(&port) {
                        Ok(_) => _ = taken.up(),
                        Err(GetError::TimedOut) => {}
                        Err(error) => break error.win32(),
                    }
                }
            })
        })
        .collect();
    let flood = {
        let (port, stop) = (port.clone(), stop.clone());
        thread::spawn(move || {
            while !stop.is_set() {
                let _ = port.post(0, 0, 1);
                let _ = stream.recv(vec![0; 16], 2);
                let _ = stream.send("x", 3);
                if peer.write_all(b"x").is_err() {
                    break;
                }
                let mut space = [0; 64];
                peer.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                let _ = peer.read(&mut space);
            }
        })
    };
    eventually("packets flow", || taken.now() > 300);
    port.close();
    takers.into_iter().for_each(|taker| assert_eq!(taker.join().unwrap(), 735));
    assert!(matches!(port.get_timeout(Duration::ZERO), Err(error) if error.win32() == 735), "and so it stays");
    stop.set();
    flood.join().unwrap();
}

fn abandoned_one(b: &Bench) {
    abandoned(b, |port| port.get().expect_err("nothing was queued"));
    abandoned(b, |port| port.get_timeout(DEADLINE).expect_err("nothing was queued"));
    abandoned_in_a_flood(b, |port| port.get().map(|_| 1));
    abandoned_in_a_flood(b, |port| port.get_timeout(Duration::from_millis(2)).map(|_| 1));
}

fn abandoned_batch(b: &Bench) {
    abandoned(b, |port| port.get_many(8).expect_err("nothing was queued"));
    abandoned_in_a_flood(b, |port| port.get_many(8).map(Iterator::count));
}

fn forked(b: &Bench) {
    if cfg!(windows) {
        not_here("there is no fork");
    }
    b.in_child("fork");
}

#[cfg(windows)]
fn notifier(_: &Bench) {
    not_tried("its notifier is no descriptor; crates/wharf/tests/windows.rs has it")
}

#[cfg(unix)]
fn readable_within(notifier: &wharf::Notifier, wait: Duration) -> bool {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let wait = Timespec { tv_sec: wait.as_secs().cast_signed(), tv_nsec: wait.subsec_nanos().into() };
    poll(&mut [PollFd::new(notifier, PollFlags::IN)], Some(&wait)).unwrap() == 1
}

#[cfg(unix)]
fn hears_posts(b: &Bench) {
    let port = b.port();
    let notifier = port.notifier().unwrap();
    let readable = |wait| readable_within(&notifier, wait);
    assert!(!readable(WHILE), "nothing is queued");
    port.post(0, 0, 1).unwrap();
    assert!(readable(DEADLINE));
    assert!(readable(Duration::ZERO), "waiting takes nothing");
    assert_eq!(next(&port).context, 1);
    let _ = port.get_timeout(Duration::ZERO);
    assert!(!readable(WHILE), "nothing is queued any more");
}

/// What a program's own loop does not hear of that waits for the notifier only, and then takes what there is.
#[cfg(unix)]
fn not_heard_of(b: &Bench) -> Vec<&'static str> {
    /// Far more than anything here takes.
    const LONG: Duration = Duration::from_secs(1);
    let mut missing = Vec::new();
    let mut check = |what, begin: &dyn Fn(&Port) -> Box<dyn FnOnce() + Send>| {
        let port = b.port();
        let notifier = port.notifier().unwrap();
        let happens = begin(&port);
        let thread = thread::spawn(move || {
            thread::sleep(WHILE);
            happens();
        });
        let until = std::time::Instant::now() + LONG;
        while port.get_timeout(Duration::ZERO).is_err() {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() || !readable_within(&notifier, left) {
                missing.push(what);
                break;
            }
        }
        port.close();
        thread.join().unwrap();
    };
    check("receive", &|port| {
        let (stream, mut peer) = b.stream(port, 1);
        stream.recv(vec![0; 4], 1).unwrap();
        Box::new(move || peer.write_all(b"x").unwrap())
    });
    check("accept", &|port| {
        let listener = port.listen("127.0.0.1:0", 1).unwrap();
        listener.accept(1).unwrap();
        let (address, own) = (listener.local_addr().unwrap(), b.another());
        Box::new(move || drop((own.connect(address), listener)))
    });
    check("timer", &|port| {
        port.timer(WHILE, 1, 1).unwrap();
        Box::new(|| {})
    });
    check("send that waits", &|port| {
        let (stream, peer) = b.narrow(port, 1);
        stream.send(vec![7; MUCH], 1).unwrap();
        let _ = port.get_timeout(Duration::ZERO);
        Box::new(move || {
            let mut space = vec![0; MUCH];
            peer.set_read_timeout(Some(WHILE * 5)).unwrap();
            while (&peer).read(&mut space).is_ok_and(|bytes| bytes > 0) {}
            drop(stream);
        })
    });
    check("close", &|port| {
        let (stream, peer) = b.stream(port, 1);
        stream.recv(vec![0; 4], 1).unwrap();
        let _ = port.get_timeout(Duration::ZERO);
        Box::new(move || {
            stream.close();
            drop(peer);
        })
    });
    missing
}

#[cfg(unix)]
fn notifier(b: &Bench) {
    hears_posts(b);
    let missing = not_heard_of(b);
    assert!(missing.is_empty(), "not heard of: {missing:?}");
}

/// P-40 with an engine that only looks when a thread is inside `get`.
#[cfg(unix)]
pub fn hears_posts_only(b: &Bench) {
    hears_posts(b);
    assert_eq!(not_heard_of(b), ["receive", "accept", "timer", "send that waits"]);
}

#[cfg(windows)]
pub fn hears_posts_only(_: &Bench) {}

/// The connection has ended on the other side, however.
fn assert_ended(peer: &mut Peer) {
    let read = peer.read(&mut [0; 1]);
    assert!(
        read.as_ref().map_or_else(|error| error.raw_os_error() == Some(ECONNRESET), |&bytes| bytes == 0),
        "nobody has closed it: {read:?}"
    );
}

fn no_leaks(b: &Bench) {
    #[cfg(unix)]
    let descriptors = || crate::system::descriptors().unwrap();
    #[cfg(windows)]
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let one = || {
        let port: CompletionPort<Arc<()>, Arc<()>> = b.build(b.options()).unwrap();
        let mark = Arc::new(());
        for _ in 0..100 {
            port.post(0, mark.clone(), mark.clone()).unwrap();
        }
        let (server, peer) = b.pair();
        let stream = port.associate(server, mark.clone()).unwrap();
        for _ in 0..3 {
            stream.recv(vec![0; 64], mark.clone()).unwrap();
        }
        stream.send(Buffer::from("x"), mark.clone()).unwrap();
        port.timer(Duration::from_secs(600), mark.clone(), mark.clone()).unwrap();
        drop((port, stream, peer));
        assert_eq!(Arc::strong_count(&mark), 1, "contexts and keys of a closed port are freed, once each");
    };
    one();
    let before = descriptors();
    (0..50).for_each(|_| one());
    eventually("every descriptor is closed", || descriptors() <= before);
    // And what was queued of others' descriptors: connections that were accepted, and that nobody took.
    let untaken = || {
        let port = b.port();
        let listener = port.listen("127.0.0.1:0", 1).unwrap();
        let address = listener.local_addr().unwrap();
        (0..4).for_each(|number| drop(listener.accept(number).unwrap()));
        let mut clients: Vec<_> = (0..4).map(|_| b.connect(address).unwrap()).collect();
        // The first has the others looked for, too: they are queued behind it.
        assert!(accepted(&port).1.is_ok());
        eventually("they are accepted", || {
            let left = port.stats().queued;
            left == 3 || (port.get_timeout(Duration::ZERO).is_ok() && left == 1)
        });
        drop((port, listener));
        for client in &mut clients {
            assert_ended(client);
        }
    };
    untaken();
    let before = descriptors();
    (0..20).for_each(|_| untaken());
    eventually("every descriptor is closed", || descriptors() <= before);
}

#[cfg(windows)]
pub fn fork(_: &Bench) {}

#[cfg(unix)]
/// Part of P-38, in a process of its own: it forks.
#[allow(unsafe_code)]
pub fn fork(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.recv(vec![0; 4], 1).unwrap();
    // SAFETY: this process has one thread that matters; the child calls into the port, whose calls fail at once, and
    // ends.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let refused = matches!(port.get_timeout(Duration::ZERO), Err(error) if error.win32() == 6)
            && port.post(0, 0, 0).is_err()
            && stream.recv(vec![0; 4], 2).is_err();
        // The child has the handles as well, and lets go of them all, by every destructor.
        drop((stream, port, peer));
        std::process::exit(if refused { 0 } else { 1 });
    }
    assert!(child > 0, "fork: {}", std::io::Error::last_os_error());
    let mut status = 0;
    // SAFETY: waits for the child just made, into a place of our own.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "a call of the child was not refused");
    peer.write_all(b"x").unwrap();
    assert_eq!(received(&port).1.unwrap(), b"x", "the parent's port goes on");
    for number in 0..3 {
        stream.recv(vec![0; 4], number).unwrap();
        peer.write_all(b"y").unwrap();
        assert_eq!(received(&port).1.unwrap(), b"y", "and hears of what comes");
        stream.send("z", number).unwrap();
        assert_eq!(sent(&port).1.unwrap(), 1);
        peer.read_exact(&mut [0; 1]).unwrap();
    }
}

// --- What is done instead ---

/// P-13, P-15: the bytes of the one stream are shared out between the two ports.
pub fn duplicate_elsewhere(b: &Bench) {
    let (one, two) = (b.port(), b.port());
    let (server, mut peer) = pair();
    let copy = server.try_clone().unwrap();
    let first = one.associate(server, 1).unwrap();
    let second = two.associate(copy, 2).expect("nobody knows that it is the same connection");
    for (port, stream, key) in [(&one, &first, 1), (&two, &second, 2)] {
        stream.recv(vec![0; 4], key).unwrap();
        peer.write_all(b"x").unwrap();
        let packet = next(port);
        assert_eq!((packet.key, packet.context), (key, key));
        quiet(port);
    }
}

/// P-16: `release` does.
fn taken_out(b: &Bench) {
    let (one, two) = (b.port(), b.port());
    let (stream, mut peer) = b.stream(&one, 1);
    let id = pending(stream.recv(vec![0; 4], 1).unwrap());
    let stream = stream.release().expect_err("a receive is outstanding").source;
    stream.cancel(id);
    assert_eq!(next(&one).context, 1);
    let socket = stream.release().expect("nothing is outstanding any more");
    assert_eq!(one.stats().devices, 0);
    let stream = two.associate(socket, 2).expect("another port takes it");
    stream.recv(vec![0; 4], 2).unwrap();
    peer.write_all(b"x").unwrap();
    assert_eq!(next(&two).key, 2, "another port has it now");
}

/// P-31: they end with the port, as cancelled, and nobody is told; what they had is freed.
fn ends_with_its_port(b: &Bench) {
    let port: CompletionPort<Arc<()>, Arc<()>> = b.build(b.options()).unwrap();
    let mark = Arc::new(());
    let (server, peer) = b.pair();
    let stream = port.associate(server, Arc::new(())).unwrap();
    stream.recv(vec![0; 64], mark.clone()).unwrap();
    stream.send(vec![7; MUCH], mark.clone()).unwrap();
    port.close();
    assert!(port.get().is_err(), "no packet says so");
    drop((port, stream, peer));
    assert_eq!(Arc::strong_count(&mark), 1, "contexts of what was outstanding are freed");
}

/// P-32: it can be closed, and nothing else.
fn after_its_port(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    port.close();
    assert!(stream.recv(vec![0; 4], 1).is_err() && stream.send("x", 2).is_err());
    let stream = match stream.release() {
        Ok(_) => panic!("it was released from a closed port"),
        Err(rejected) => rejected.source,
    };
    stream.close();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "it is closed");
}

/// P-37: 735, as for those that waited.
fn closed_handle(b: &Bench) {
    let port = b.port();
    port.close();
    assert_eq!(port.get().expect_err("it is closed").win32(), 735);
    assert_eq!(port.get_timeout(Duration::ZERO).expect_err("it is closed").win32(), 735);
    assert_eq!(port.get_many(4).expect_err("it is closed").win32(), 735);
    assert!(port.post(0, 0, 0).is_err());
}

/// P-39: no other program inherits it.
fn not_inherited(b: &Bench) {
    #[cfg(windows)]
    {
        let _ = b;
        not_tried("a look at the flags of a handle");
    }
    #[cfg(unix)]
    {
        use rustix::io::{FdFlags, fcntl_getfd};
        let port = b.port();
        let listener = port.listen("127.0.0.1:0", 1).unwrap();
        listener.accept(1).unwrap();
        let _client = b.connect(listener.local_addr().unwrap()).unwrap();
        let (socket, _) = accepted(&port).1.unwrap();
        assert!(fcntl_getfd(&socket).unwrap().contains(FdFlags::CLOEXEC), "a program that is started has it");
        let notifier = port.notifier().unwrap();
        assert!(fcntl_getfd(&notifier).unwrap().contains(FdFlags::CLOEXEC));
    }
}
