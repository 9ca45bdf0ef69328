//! Dequeuing and posting (D).

use super::driven;
use crate::kit::*;
use crate::row::{How::*, Row, differs, must, only_c, should};
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use wharf::raw::{Post, Sink};
use wharf::{CompletionPort, Event, GetError};

pub const ROWS: &[Row] = &[
    must(
        "D-01",
        "The packet of a success brings its byte count, the device's key and the operation's context.",
        Test(success),
    ),
    must(
        "D-02",
        "The packet of a failure brings key and context too; its port-side code is the Win32 name of the status, not Winsock's.",
        Test(failure),
    ),
    must("D-03", "When no packet comes in time the wait ends with 258 and no packet.", Test(time_out)),
    must(
        "D-04",
        "When the port is closed during a wait, the wait ends with 735 and no packet.",
        Test(closed_meanwhile),
    ),
    must(
        "D-05",
        "A return without a packet clears the OVERLAPPED pointer.",
        only_c("out parameters: here a Result, which has a packet or an error"),
    ),
    should("D-06", "A return without a packet leaves bytes and key as they were.", only_c("out parameters")),
    should("D-07", "A success leaves the last error alone.", only_c("the thread's last error")),
    must("D-08", "A packet whose context is 0 is a packet like any other, and no failure.", Test(zero_context)),
    should(
        "D-09",
        "Whether a packet is a success follows the status: a warning, as of a cut datagram, is none.",
        Test(severity),
    ),
    should("D-10", "A byte count beyond 32 bits is cut.", differs("it is not cut: counts are usize", large_count)),
    must(
        "D-11",
        "A time-out of 0 never waits, one in milliseconds waits at least that long, and none waits without end.",
        Test(time_outs),
    ),
    must("D-13", "What is queued is returned at once, whatever the time-out.", Test(at_once)),
    must("D-14", "Each packet is returned by one call in one thread.", Test(exactly_one)),
    must("D-15", "Packets leave in the order in which they were queued.", Test(fifo)),
    must("D-16", "Two consumers may handle two packets at the same time.", Alone(two_at_once)),
    must(
        "D-17",
        "I/O packets are queued in the order of completion, whatever the order of issue.",
        Test(driven::order_of_ending),
    ),
    must(
        "D-18",
        "A packet may be handled before the issuing call has returned, and everything it needs is in place then.",
        Test(early_bird),
    ),
    must("D-19", "Once its packet was taken, an operation's memory is never touched again.", Test(memory_is_free)),
    must("D-20", "A plain wait runs no APC and is not ended by one, here by a signal.", Test(interrupted_get)),
    must(
        "D-21",
        "A packet that a thread took and did not handle is not given to anybody else, and the others are not lost.",
        Test(taken_is_taken),
    ),
    should(
        "D-22",
        "A thread that is ended while it waits takes no packet with it.",
        only_c("TerminateThread: a Rust thread ends by returning"),
    ),
    should("D-23", "Threads begin and cease to call without registering.", Test(come_and_go)),
    must("D-30", "A post's three numbers come out as they went in, whatever they are.", Test(post_numbers)),
    must("D-31", "A post never looks at what its token might point to.", Test(post_memory)),
    should(
        "D-32",
        "One token may be posted many times, also while an operation with it is outstanding: a packet each.",
        Test(post_again),
    ),
    must(
        "D-33",
        "Posts and I/O share one queue, and n posts wake n waiting threads.",
        Alone(super::concurrency::posts_wake_at_once),
    ),
    must("D-34", "Any thread may post, and does not belong to the port by it.", Test(post_anywhere)),
    must(
        "D-35",
        "A post does not wait, however much is queued and whoever is at it; it fails when the port is closed.",
        Test(post_never_waits),
    ),
    must("D-36", "The packet of a post is always a success.", Test(post_succeeds)),
    must(
        "D-40",
        "A batch is what is there when the first packet is: it does not wait to fill.",
        Test(batch_is_what_is_there),
    ),
    must(
        "D-41",
        "A batch is a success whatever its packets say; each tells its own failure.",
        Test(batch_with_failures),
    ),
    must(
        "D-42",
        "Each packet of a batch has its key, context and byte count, and their number is known.",
        Test(driven::batch_is_counted),
    ),
    should("D-43", "Each packet of a batch tells its status.", Test(batch_status)),
    should("D-44", "The status of a packet is final, and can be asked for in both codes.", Test(batch_codes)),
    must("D-45", "The packets of a batch are in the order of the queue.", Test(batch_order)),
    should("D-46", "A batch of 0 is refused.", Test(batch_of_none)),
    must("D-47", "A batch that finds nothing in time ends with 258.", Test(batch_time_out)),
    must("D-48", "An alertable wait runs an APC and ends by it.", only_c("APCs")),
    must(
        "D-50",
        "A wait for a batch that is not alertable is not ended by an APC, here by a signal.",
        Test(interrupted_batch),
    ),
    must("D-51", "A batch counts as one running thread, however many packets it has.", Alone(batch_is_one)),
];

fn success(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 9);
    stream.recv(vec![0; 16], 10).unwrap();
    peer.write_all(b"hello").unwrap();
    let packet = next(&port);
    assert_eq!((packet.key, packet.context, packet.nt_status().0), (9, 10, 0));
    let Event::Received { buffer, result: Ok(5), .. } = packet.event else { panic!("{packet:?}") };
    assert_eq!(&buffer[..], b"hello");
}

fn failure(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.stream(&port, 9);
    stream.recv(vec![0; 16], 10).unwrap();
    reset(peer);
    let packet = next(&port);
    assert_eq!((packet.key, packet.context), (9, 10));
    assert_eq!(codes(&packet), (64, 10054));
    assert!(packet.error().is_some());
}

fn time_out(b: &Bench) {
    let port = b.port();
    for wait in [Duration::ZERO, Duration::from_millis(5)] {
        quickest("until it has timed out", wait + AT_ONCE, TRIES, || {
            timed(|| assert_eq!(port.get_timeout(wait).expect_err("nothing is queued").win32(), 258))
        });
    }
}

fn closed_meanwhile(b: &Bench) {
    let port = b.port();
    let waiting = port.clone();
    let thread = thread::spawn(move || waiting.get().expect_err("nothing is queued").win32());
    eventually("it waits", || port.stats().waiting == 1);
    port.close();
    assert_eq!(thread.join().unwrap(), 735);
    // Whatever they wait with, and though something is outstanding.
    let port = b.port();
    let (stream, _peer) = b.stream(&port, 1);
    stream.recv(vec![0; 4], 1).unwrap();
    let waits: [fn(&Port) -> u32; 4] = [
        |port| port.get().expect_err("nothing ends").win32(),
        |port| port.get_timeout(DEADLINE).expect_err("nothing ends").win32(),
        |port| port.get_many(4).expect_err("nothing ends").win32(),
        |port| port.get_many_timeout(4, DEADLINE).expect_err("nothing ends").win32(),
    ];
    let threads = waits.map(|wait| {
        let port = port.clone();
        thread::spawn(move || wait(&port))
    });
    eventually("all wait", || port.stats().waiting == 4);
    quickest("until they are released", AT_ONCE, 1, || timed(|| port.close()));
    threads.into_iter().for_each(|thread| assert_eq!(thread.join().unwrap(), 735));
}

fn zero_context(b: &Bench) {
    let port = b.raw();
    port.post(Post { key: 0, token: 0, bytes: 0 }).unwrap();
    let packet = raw_next(&port);
    assert_eq!((packet.key, packet.token, packet.bytes, packet.error), (0, 0, 0, 0));
    quickest("a packet whose context is 0", AT_ONCE, TRIES, || {
        port.post(Post { key: 0, token: 0, bytes: 0 }).unwrap();
        timed(|| assert_eq!(raw_next(&port).token, 0))
    });
}

fn severity(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 0).unwrap();
    let to = socket.local_addr().unwrap();
    socket.recv_from(vec![0; 4], 1).unwrap();
    let sender = b.mail();
    sender.send_to(b"too long", to);
    let packet = next(&port);
    assert!(packet.nt_status().is_warning() && packet.error().is_some());
    socket.recv_from(vec![0; 4], 2).unwrap();
    sender.send_to(b"ok", to);
    let packet = next(&port);
    assert!(packet.nt_status().is_success() && packet.error().is_none());
}

fn time_outs(b: &Bench) {
    let port = b.port();
    // Each of them at least, and the quickest of them not much longer: alone, five at once, and at the limit.
    let exact = |port: &Port, milliseconds| {
        let wait = Duration::from_millis(milliseconds);
        quickest("a wait that times out", wait + AT_ONCE, TRIES, || {
            let took = timed(|| {
                let got = port.get_timeout(wait);
                assert!(matches!(got, Err(GetError::TimedOut)), "it has found a packet: {got:?}");
            });
            assert!(took >= wait, "it came back before its time");
            took
        });
    };
    [0, 1, 7, 30].into_iter().for_each(|milliseconds| exact(&port, milliseconds));
    thread::scope(|scope| {
        let (port, exact) = (&port, &exact);
        (0..5).for_each(|number| _ = scope.spawn(move || exact(port, 5 + 5 * number)));
    });
    let port = b.limited(1);
    let leave = Flag::default();
    let (own, entered, go) = (port.clone(), Flag::default(), leave.clone());
    let inside = entered.clone();
    let busy = thread::spawn(move || {
        next(&own);
        entered.set();
        spin_until("the row lets the thread go", || go.is_set());
    });
    port.post(0, 0, 1).unwrap();
    eventually("the slot is taken", || inside.is_set());
    port.post(0, 0, 2).unwrap();
    [0, 10].into_iter().for_each(|milliseconds| exact(&port, milliseconds));
    leave.set();
    busy.join().unwrap();
    assert_eq!(next(&port).context, 2);
    let waiting = port.clone();
    let thread = thread::spawn(move || waiting.get().map(|packet| packet.context));
    thread::sleep(Duration::from_millis(60));
    assert!(!thread.is_finished(), "without a time-out it waits on");
    port.post(0, 0, 5).unwrap();
    assert_eq!(thread.join().unwrap(), Ok(5));
}

fn at_once(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    for wait in [Some(Duration::ZERO), Some(Duration::from_secs(3600)), None] {
        let get = || match wait {
            Some(wait) => port.get_timeout(wait),
            None => port.get(),
        };
        quickest("a packet that is queued", AT_ONCE, TRIES, || {
            port.post(0, 0, 1).unwrap();
            timed(|| assert_eq!(get().unwrap().context, 1))
        });
        quickest("a receive whose data is there", AT_ONCE, TRIES, || {
            peer.write_all(b"x").unwrap();
            thread::sleep(Duration::from_millis(2));
            stream.recv(vec![0; 1], 2).unwrap();
            // Of no time is a wait that may be too short for data that nobody has looked for.
            let wait = wait.filter(|wait| !wait.is_zero());
            timed(|| assert_eq!(wait.map_or_else(|| port.get(), |wait| port.get_timeout(wait)).unwrap().context, 2))
        });
    }
}

fn exactly_one(b: &Bench) {
    const PACKETS: u64 = 20_000;
    let port = b.limited(4);
    let seen: Vec<AtomicU64> = (0..PACKETS).map(|_| AtomicU64::new(0)).collect();
    let taken = Count::default();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Ok(packet) = port.get() {
                    seen[packet.context as usize].fetch_add(1, Ordering::Relaxed);
                    if taken.up() == PACKETS as usize {
                        port.close();
                    }
                }
            });
        }
        for half in 0..2 {
            let (port, range) = (&port, half * PACKETS / 2..(half + 1) * PACKETS / 2);
            scope.spawn(move || range.for_each(|number| port.post(0, 0, number).unwrap()));
        }
    });
    assert!(seen.iter().all(|times| times.load(Ordering::Relaxed) == 1), "a packet was lost, or came twice");
}

fn fifo(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 0);
    // I/O in the middle of posts: a send that fits is complete, and queued, when its call returns.
    for number in 0..3000 {
        if number % 100 == 50 {
            stream.send("x", number).unwrap();
        } else {
            port.post(0, 0, number).unwrap();
        }
    }
    for number in 0..3000 {
        assert_eq!(next(&port).context, number);
    }
    peer.write_all(b"x").unwrap();
}

fn two_at_once(b: &Bench) {
    let port = b.limited(2);
    let inside = Count::default();
    let met = inside.clone();
    let _crew = Crew::start(&port, 2, move |_, _| {
        met.up();
        spin_until("the other handler runs too", || met.now() == 2);
    });
    port.post(0, 0, 1).unwrap();
    port.post(0, 0, 2).unwrap();
    eventually("both run", || inside.now() == 2);
}

pub fn completion_order(b: &Bench) {
    let port = b.port();
    let streams: Vec<_> = (0..4).map(|key| b.stream(&port, key)).collect();
    for (number, (stream, _)) in streams.iter().enumerate() {
        stream.recv(vec![0; 4], number as u64).unwrap();
    }
    for number in [2, 0, 3, 1] {
        (&streams[number].1).write_all(b"x").unwrap();
        assert_eq!(received(&port).0, number as u64);
    }
}

fn early_bird(b: &Bench) {
    const SENDS: u64 = 3000;
    let port = b.limited(4);
    let (stream, peer) = b.stream(&port, 0);
    let drain = thread::spawn(move || std::io::copy(&mut &peer, &mut std::io::sink()));
    // What the handler needs is written down before the call, and whether the call has returned behind it.
    let place: std::sync::Arc<Vec<AtomicU64>> = std::sync::Arc::new((0..SENDS).map(|_| AtomicU64::new(0)).collect());
    let (early, missing, done) = (Count::default(), Count::default(), Count::default());
    let (seen, gone, all, own) = (early.clone(), missing.clone(), done.clone(), place.clone());
    let handler = port.clone();
    let thread = thread::spawn(move || {
        while all.now() < SENDS as usize {
            // Not asleep, so that it is quick.
            if let Ok(packet) = handler.get_timeout(Duration::ZERO) {
                match own[packet.context as usize].load(Ordering::SeqCst) {
                    0 => _ = gone.up(),
                    1 => _ = seen.up(),
                    _ => {}
                }
                all.up();
            }
        }
    });
    for number in 0..SENDS {
        place[number as usize].store(1, Ordering::SeqCst);
        stream.send("x", number).unwrap();
        place[number as usize].store(2, Ordering::SeqCst);
    }
    eventually("every send has its packet", || done.now() == SENDS as usize);
    thread.join().unwrap();
    assert_eq!(missing.now(), 0);
    b.note(format!("{} of {SENDS} handled before the call had returned", early.now()));
    stream.close();
    drain.join().unwrap().unwrap();
}

fn memory_is_free(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 0);
    let (old, new) = (Memory::room(16), Memory::room(16));
    raw_receive(&port, &device, old.one(), 1, Sink::Port).unwrap();
    peer.write_all(b"first").unwrap();
    assert_eq!(raw_next(&port).bytes, 5);
    old.fill(0xEE);
    peer.write_all(b"second").unwrap();
    raw_receive(&port, &device, new.one(), 2, Sink::Port).unwrap();
    assert_eq!(raw_next(&port).token, 2);
    assert_eq!(&new.bytes()[..6], b"second");
    assert!(old.bytes().iter().all(|&byte| byte == 0xEE), "memory was written after its packet");
    // The same for a cancelled one.
    raw_receive(&port, &device, old.one(), 3, Sink::Port).unwrap();
    port.cancel_all(&device);
    assert_eq!(raw_next(&port).error, ECANCELED);
    peer.write_all(b"third").unwrap();
    raw_quiet(&port);
    assert!(old.bytes().iter().all(|&byte| byte == 0xEE), "a cancelled operation has written");
    port.close_device(&device);
    // And those of sends, datagrams and files, which others issue and take at the same time.
    memory_of_each_kind(b);
}

/// Memory that a packet gave back is filled anew at once; nobody writes to it any more, and nobody reads from it: what
/// the other end gets is what was there when the operation was issued.
#[allow(unsafe_code)]
fn memory_of_each_kind(b: &Bench) {
    const ROUNDS: usize = 60;
    const BYTES: usize = 3000;
    let port = b.raw();
    let workers: Vec<_> = (0..2)
        .map(|_| {
            let port = port.clone();
            let (tell, told) = std::sync::mpsc::channel();
            let thread = thread::spawn(move || {
                while let Ok(packet) = port.get(None) {
                    tell.send(packet.token).unwrap();
                }
            });
            (thread, told)
        })
        .collect();
    let (device, peer) = b.raw_stream(&port, 1);
    let reader = thread::spawn({
        let mut peer = peer.try_clone().unwrap();
        move || {
            let mut all = Vec::new();
            let _ = std::io::Read::read_to_end(&mut peer, &mut all);
            all
        }
    });
    let path = Temporary::with(vec![9; BYTES]);
    let file = for_ports(std::fs::OpenOptions::new().read(true).write(true)).open(&path).unwrap();
    let file = port.adopt(file, wharf::raw::DeviceKind::File, 2).unwrap();
    let memory: Vec<Memory> = (0..4 * ROUNDS).map(|number| Memory::new(&[number as u8; BYTES])).collect();
    for round in 0..ROUNDS {
        let at = |kind| 4 * round + kind;
        raw_send(&port, &device, memory[at(0)].one(), at(0)).unwrap();
        raw_receive(&port, &device, memory[at(1)].one(), at(1), Sink::Port).unwrap();
        (&peer).write_all(b"x").unwrap();
        // SAFETY: `Memory` is never freed, and not looked at before the packet.
        unsafe {
            port.read_file(&file, memory[at(2)].one(), 0, at(2), Sink::Port).unwrap();
            port.write_file(&file, memory[at(3)].one(), Some(BYTES as u64), at(3), Sink::Port).unwrap();
        }
        let mut ended = 0;
        eventually("all four have ended", || {
            for token in workers.iter().flat_map(|(_, told)| told.try_iter()) {
                memory[token].fill(0xEE);
                ended += 1;
            }
            ended == 4
        });
        assert_eq!(std::fs::read(&path).unwrap()[BYTES..], vec![at(3) as u8; BYTES], "another memory was written out");
    }
    port.close_device(&file);
    port.close_device(&device);
    drop(peer);
    port.close();
    workers.into_iter().for_each(|(thread, _)| thread.join().unwrap());
    assert!(memory.iter().all(|piece| piece.bytes() == [0xEE; BYTES]), "memory was written after its packet");
    let all = reader.join().unwrap();
    let sent: Vec<u8> = (0..ROUNDS).flat_map(|round| vec![(4 * round) as u8; BYTES]).collect();
    assert!(all == sent, "memory was read after its packet");
}

fn taken_is_taken(b: &Bench) {
    let port = b.port();
    for number in 0..4 {
        port.post(0, 0, number).unwrap();
    }
    let other = port.clone();
    // Ends with the packet in its hands.
    assert_eq!(thread::spawn(move || std::mem::forget(next(&other))).join().ok(), Some(()));
    for number in 1..4 {
        assert_eq!(next(&port).context, number);
    }
    quiet(&port);
}

fn come_and_go(b: &Bench) {
    let port = b.limited(2);
    for number in 0..50 {
        port.post(0, 0, number).unwrap();
        let own = port.clone();
        assert_eq!(thread::spawn(move || next(&own).context).join().unwrap(), number);
    }
    eventually("those that have ended are forgotten", || port.workers().is_empty());
}

fn post_numbers(b: &Bench) {
    let port = b.raw();
    let numbers = [0, 1, 0xFFFF_FFFF, usize::MAX, 1 << 63, 0xDEAD_BEEF];
    for key in numbers {
        for token in numbers {
            for bytes in numbers {
                port.post(Post { key, token, bytes }).unwrap();
                let packet = raw_next(&port);
                assert_eq!((packet.key, packet.token, packet.bytes), (key, token, bytes));
            }
        }
    }
}

fn post_memory(b: &Bench) {
    let port = b.raw();
    let memory = Memory::new(&[0xA5; 64]);
    // The last one is no address at all: touching it would end the process.
    for token in [memory.address(), memory.address() | 1, 1, usize::MAX] {
        port.post(Post { key: 0, token, bytes: 64 }).unwrap();
        assert_eq!(raw_next(&port).token, token);
    }
    assert_eq!(memory.bytes(), [0xA5; 64]);
}

fn post_again(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    raw_receive(&port, &device, Memory::room(4).one(), 99, Sink::Port).unwrap();
    for bytes in 0..5 {
        port.post(Post { key: 2, token: 99, bytes }).unwrap();
    }
    for bytes in 0..5 {
        let packet = raw_next(&port);
        assert_eq!((packet.key, packet.token, packet.bytes), (2, 99, bytes));
    }
    peer.write_all(b"x").unwrap();
    let packet = raw_next(&port);
    assert_eq!((packet.key, packet.token, packet.bytes), (1, 99, 1), "the operation has a packet of its own");
}

pub fn posts_wake(b: &Bench) {
    let port = b.limited(4);
    let inside = Count::default();
    let met = inside.clone();
    let _crew = Crew::start(&port, 4, move |_, _| {
        met.up();
        spin_until("each thread has a packet", || met.now() == 4);
    });
    (0..4).for_each(|number| port.post(0, 0, number).unwrap());
    eventually("each thread has a packet", || inside.now() == 4);
    fifo(b);
    super::flow::others_have_their_turn(b);
}

fn post_anywhere(b: &Bench) {
    let port = b.port();
    let poster = port.clone();
    thread::spawn(move || {
        poster.post(0, 0, 1).unwrap();
        assert!(poster.workers().is_empty(), "posting does not make a worker");
        assert_eq!(poster.stats().active, 0);
    })
    .join()
    .unwrap();
    assert_eq!(next(&port).context, 1);
}

fn post_never_waits(b: &Bench) {
    let port = b.limited(1);
    let (inside, leave) = (Flag::default(), Flag::default());
    let (entered, go) = (inside.clone(), leave.clone());
    let _crew = Crew::start(&port, 1, move |_, packet| {
        if packet.context == 0 {
            entered.set();
            spin_until("the posts are done", || go.is_set());
        }
    });
    port.post(0, 0, 0).unwrap();
    eventually("the only thread is busy", || inside.is_set());
    (1..=50_000).for_each(|number| port.post(0, 0, number).unwrap());
    assert_eq!(port.stats().queued, 50_000, "all were queued while nobody took any");
    leave.set();
    posts_are_quick(b);
    port.close();
    let unposted = port.post(0, 7, 8).expect_err("the port is closed");
    assert_eq!((unposted.key, unposted.context), (7, 8));
}

/// Eight threads post while four take, and each post takes no longer than one that meets nobody.
fn posts_are_quick(b: &Bench) {
    const POSTS: u64 = 2000;
    let port = b.limited(4);
    let taken = Count::default();
    let count = taken.clone();
    let crew = Crew::start(&port, 4, move |_, _| {
        count.up();
        burn(Duration::from_micros(5));
    });
    let times = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let own: Vec<Duration> = (0..POSTS).map(|number| timed(|| port.post(0, 0, number).unwrap())).collect();
                times.lock().unwrap().extend(own);
            });
        }
    });
    let times = times.into_inner().unwrap();
    eventually("each is taken", || taken.now() == 8 * POSTS as usize);
    drop(crew);
    b.note(format!("longest of {} posts: {:.1?}", times.len(), times.iter().max().expect("there are some")));
    let median = median(times);
    // A wait for anybody would be a tick, or a handler, at least.
    assert!(median < Duration::from_micros(500), "half of the posts took more than {median:?}");
}

fn post_succeeds(b: &Bench) {
    let port = b.port();
    for bytes in [0, 1, usize::MAX] {
        port.post(bytes, 0, 0).unwrap();
        let packet = next(&port);
        assert!(packet.error().is_none());
        assert_eq!(packet.nt_status().0, 0);
        assert!(matches!(packet.event, Event::Posted { bytes: same } if same == bytes));
    }
}

fn batch_is_what_is_there(b: &Bench) {
    let port = b.port();
    (0..5).for_each(|number| port.post(0, 0, number).unwrap());
    let batch: Vec<u64> = port.get_many(64).unwrap().map(|packet| packet.context).collect();
    assert_eq!(batch, [0, 1, 2, 3, 4]);
    (0..5).for_each(|number| port.post(0, 0, number).unwrap());
    assert_eq!(port.get_many(3).unwrap().count(), 3, "no more than asked for");
    assert_eq!(port.get_many(3).unwrap().count(), 2);
    quickest("a batch that is not full", AT_ONCE, TRIES, || {
        (0..5).for_each(|number| port.post(0, 0, number).unwrap());
        timed(|| assert_eq!(port.get_many_timeout(64, DEADLINE).unwrap().count(), 5))
    });
    // Of what comes by itself, too: the first has it end.
    let (stream, mut peer) = b.stream(&port, 1);
    quickest("a batch of one receive", AT_ONCE, TRIES, || {
        stream.recv(vec![0; 1], 1).unwrap();
        thread::scope(|scope| {
            let writer = scope.spawn(|| {
                thread::sleep(Duration::from_millis(5));
                peer.write_all(b"x").unwrap();
                Instant::now()
            });
            assert_eq!(port.get_many_timeout(64, DEADLINE).unwrap().count(), 1);
            let ended = Instant::now();
            ended.saturating_duration_since(writer.join().unwrap())
        })
    });
}

fn batch_with_failures(b: &Bench) {
    let port = b.port();
    let (stream, _peer) = b.stream(&port, 1);
    stream.recv(vec![0; 4], 1).unwrap();
    port.post(0, 0, 2).unwrap();
    stream.cancel_all();
    let all: Vec<(u64, bool)> =
        port.get_many_timeout(8, DEADLINE).unwrap().map(|packet| (packet.context, packet.error().is_some())).collect();
    assert_eq!(all, [(2, false), (1, true)]);
    stream.recv(vec![0; 4], 3).unwrap();
    stream.cancel_all();
    let only: Vec<bool> = port.get_many_timeout(8, DEADLINE).unwrap().map(|packet| packet.error().is_some()).collect();
    assert_eq!(only, [true], "also when all of it failed");
}

pub fn batch_fields(b: &Bench) {
    let port = b.port();
    (1..4).for_each(|number| port.post(number, number as u64 * 10, number as u64 * 100).unwrap());
    let batch = port.get_many(8).unwrap();
    assert_eq!(batch.len(), 3);
    for (packet, number) in batch.zip(1..) {
        assert_eq!((packet.key, packet.context), (number * 10, number * 100));
        assert!(matches!(packet.event, Event::Posted { bytes } if bytes as u64 == number));
    }
}

fn two_ends(b: &Bench) -> (Port, Vec<Taken>) {
    let port = b.port();
    let (stream, peer) = b.stream(&port, 1);
    stream.send("x", 1).unwrap();
    stream.recv(vec![0; 4], 2).unwrap();
    stream.cancel_all();
    let batch = port.get_many_timeout(8, DEADLINE).unwrap().collect();
    drop(peer);
    (port, batch)
}

fn batch_status(b: &Bench) {
    let (_port, batch) = two_ends(b);
    let statuses: Vec<u32> = batch.iter().map(|packet| packet.nt_status().0).collect();
    assert_eq!(statuses, [0, 0xC000_0120]);
}

fn batch_codes(b: &Bench) {
    let (_port, batch) = two_ends(b);
    assert_eq!(codes(&batch[0]), (0, 0));
    assert_eq!(codes(&batch[1]), (995, 995));
    assert_eq!(codes(&batch[1]), (995, 995), "and it stays so");
}

fn batch_order(b: &Bench) {
    let port = b.port();
    // I/O in the middle: a send that fits is complete, and queued, when its call returns.
    let (stream, _peer) = b.stream(&port, 0);
    for number in 0..1000 {
        match number % 10 {
            5 => drop(stream.send("x", number).unwrap()),
            _ => port.post(0, 0, number).unwrap(),
        }
    }
    let mut expected = 0;
    while expected < 1000 {
        for packet in port.get_many_timeout(37, DEADLINE).unwrap() {
            assert_eq!(packet.context, expected);
            expected += 1;
        }
    }
}

fn batch_of_none(b: &Bench) {
    let port = b.port();
    port.post(0, 0, 5).unwrap();
    assert_eq!(port.get_many(0).expect_err("no room for any").win32(), 87);
    assert_eq!(next(&port).context, 5, "nothing was taken");
}

fn batch_time_out(b: &Bench) {
    let port = b.port();
    for wait in [Duration::ZERO, Duration::from_millis(5)] {
        quickest("a batch that times out", wait + AT_ONCE, TRIES, || {
            let took =
                timed(|| assert_eq!(port.get_many_timeout(8, wait).expect_err("nothing is queued").win32(), 258));
            assert!(took >= wait, "it came back before its time");
            took
        });
    }
}

fn batch_is_one(b: &Bench) {
    const PACKETS: usize = 200;
    let port: CompletionPort<u64, u64> = b.limited(2);
    // Only what computes counts: nothing inside of it may block.
    let (running, most, taken, full) = (Count::default(), Count::default(), Count::default(), Count::default());
    (0..PACKETS as u64).for_each(|number| port.post(0, 0, number).unwrap());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Ok(batch) = port.get_many(8) {
                    let mut seen = 0;
                    most.raise_to(running.up());
                    for _ in batch {
                        seen += 1;
                        burn(Duration::from_micros(100));
                        taken.up();
                    }
                    running.down();
                    full.raise_to(seen);
                    if taken.now() == PACKETS {
                        port.close();
                    }
                }
            });
        }
    });
    assert_eq!(taken.now(), PACKETS);
    assert!(full.now() > 1, "no batch had more than one packet: nothing was shown");
    assert_eq!(most.now(), 2, "two batches run at a time at limit 2");
}

/// D-10: it is not.
fn large_count(b: &Bench) {
    let port = b.port();
    for bytes in [1 << 32, (1 << 32) + 5, usize::MAX] {
        port.post(bytes, 0, 1).unwrap();
        assert!(matches!(next(&port).event, Event::Posted { bytes: same } if same == bytes));
    }
}

/// D-20, D-50: signals that come all the while end no wait, neither early nor late.
#[cfg(unix)]
fn interrupted(b: &Bench, take: fn(&Port, Option<Duration>) -> Result<u64, GetError>) {
    use std::os::unix::thread::JoinHandleExt;
    /// Of no consequence, and nobody else here uses it.
    const SIGNAL: i32 = libc::SIGURG;
    #[allow(unsafe_code)]
    extern "C" fn nothing(_: i32) {}
    #[allow(unsafe_code)]
    // SAFETY: the handler does nothing, so that it may run anywhere; without SA_RESTART each blocking call is
    // interrupted.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(SIGNAL, &raw const action, std::ptr::null_mut()), 0);
    }
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    for turn in 0..3 {
        let (own, wait) = (port.clone(), Duration::from_millis(100));
        let thread = thread::spawn(move || {
            let begun = Instant::now();
            let got = take(&own, (turn == 0).then_some(wait));
            (got, begun.elapsed())
        });
        eventually("it waits", || port.stats().waiting == 1 || thread.is_finished());
        for _ in 0..100 {
            if !thread.is_finished() {
                #[allow(unsafe_code)]
                // SAFETY: the thread has not been joined, so that its name is good.
                unsafe {
                    libc::pthread_kill(thread.as_pthread_t(), SIGNAL);
                }
            }
            thread::sleep(Duration::from_micros(500));
        }
        match turn {
            0 => {}
            1 => port.post(0, 0, 5).unwrap(),
            _ => {
                stream.recv(vec![0; 4], 5).unwrap();
                peer.write_all(b"x").unwrap();
            }
        }
        let (got, took) = thread.join().unwrap();
        if turn == 0 {
            assert_eq!(got, Err(GetError::TimedOut));
            assert!(took >= wait, "a signal has ended it after {took:?}");
            assert!(took < wait + Duration::from_secs(1), "signals have held it up: {took:?}");
        } else {
            assert_eq!(got, Ok(5), "turn {turn}");
        }
    }
}

#[cfg(windows)]
fn interrupted(_: &Bench, _: fn(&Port, Option<Duration>) -> Result<u64, GetError>) {
    not_here("there are no signals, and the library queues no APC")
}

fn interrupted_get(b: &Bench) {
    interrupted(b, |port, wait| match wait {
        Some(wait) => port.get_timeout(wait).map(|packet| packet.context),
        None => port.get().map(|packet| packet.context),
    });
}

fn interrupted_batch(b: &Bench) {
    interrupted(b, |port, wait| {
        let batch = match wait {
            Some(wait) => port.get_many_timeout(4, wait),
            None => port.get_many(4),
        };
        batch.map(|mut batch| batch.next().expect("a packet").context)
    });
}
