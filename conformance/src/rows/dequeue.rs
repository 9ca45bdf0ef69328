//! Dequeuing and posting (D).

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
        Test(completion_order),
    ),
    must(
        "D-18",
        "A packet may be handled before the issuing call has returned, and everything it needs is in place then.",
        Test(early_bird),
    ),
    must("D-19", "Once its packet was taken, an operation's memory is never touched again.", Test(memory_is_free)),
    must("D-20", "A plain wait runs no APC and is not ended by one.", only_c("APCs")),
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
    must("D-33", "Posts and I/O share one queue, and n posts wake n waiting threads.", Alone(posts_wake)),
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
        Test(batch_fields),
    ),
    should("D-43", "Each packet of a batch tells its status.", Test(batch_status)),
    should("D-44", "The status of a packet is final, and can be asked for in both codes.", Test(batch_codes)),
    must("D-45", "The packets of a batch are in the order of the queue.", Test(batch_order)),
    should("D-46", "A batch of 0 is refused.", Test(batch_of_none)),
    must("D-47", "A batch that finds nothing in time ends with 258.", Test(batch_time_out)),
    must("D-48", "An alertable wait runs an APC and ends by it.", only_c("APCs")),
    must("D-50", "A wait that is not alertable is not ended by an APC.", only_c("APCs")),
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
            let took = timed(|| assert!(matches!(port.get_timeout(wait), Err(GetError::TimedOut))));
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

fn completion_order(b: &Bench) {
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

fn posts_wake(b: &Bench) {
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
    port.close();
    let unposted = port.post(0, 7, 8).expect_err("the port is closed");
    assert_eq!((unposted.key, unposted.context), (7, 8));
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
    let batch: Vec<u64> = port.get_many(64, None).unwrap().map(|packet| packet.context).collect();
    assert_eq!(batch, [0, 1, 2, 3, 4]);
    (0..5).for_each(|number| port.post(0, 0, number).unwrap());
    assert_eq!(port.get_many(3, None).unwrap().count(), 3, "no more than asked for");
    assert_eq!(port.get_many(3, None).unwrap().count(), 2);
    quickest("a batch that is not full", AT_ONCE, TRIES, || {
        (0..5).for_each(|number| port.post(0, 0, number).unwrap());
        timed(|| assert_eq!(port.get_many(64, Some(DEADLINE)).unwrap().count(), 5))
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
            assert_eq!(port.get_many(64, Some(DEADLINE)).unwrap().count(), 1);
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
        port.get_many(8, Some(DEADLINE)).unwrap().map(|packet| (packet.context, packet.error().is_some())).collect();
    assert_eq!(all, [(2, false), (1, true)]);
    stream.recv(vec![0; 4], 3).unwrap();
    stream.cancel_all();
    let only: Vec<bool> = port.get_many(8, Some(DEADLINE)).unwrap().map(|packet| packet.error().is_some()).collect();
    assert_eq!(only, [true], "also when all of it failed");
}

fn batch_fields(b: &Bench) {
    let port = b.port();
    (1..4).for_each(|number| port.post(number, number as u64 * 10, number as u64 * 100).unwrap());
    let batch = port.get_many(8, None).unwrap();
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
    let batch = port.get_many(8, Some(DEADLINE)).unwrap().collect();
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
    (0..1000).for_each(|number| port.post(0, 0, number).unwrap());
    let mut expected = 0;
    while expected < 1000 {
        for packet in port.get_many(37, Some(DEADLINE)).unwrap() {
            assert_eq!(packet.context, expected);
            expected += 1;
        }
    }
}

fn batch_of_none(b: &Bench) {
    let port = b.port();
    port.post(0, 0, 5).unwrap();
    assert_eq!(port.get_many(0, None).expect_err("no room for any").win32(), 87);
    assert_eq!(next(&port).context, 5, "nothing was taken");
}

fn batch_time_out(b: &Bench) {
    let port = b.port();
    for wait in [Duration::ZERO, Duration::from_millis(5)] {
        quickest("a batch that times out", wait + AT_ONCE, TRIES, || {
            let took = timed(|| assert_eq!(port.get_many(8, Some(wait)).expect_err("nothing is queued").win32(), 258));
            assert!(took >= wait, "it came back before its time");
            took
        });
    }
}

fn batch_is_one(b: &Bench) {
    const PACKETS: usize = 200;
    let port: CompletionPort<u64, u64> = b.limited(2);
    let (running, most, taken) = (Count::default(), Count::default(), Count::default());
    let full = Mutex::new(0);
    (0..PACKETS as u64).for_each(|number| port.post(0, 0, number).unwrap());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Ok(batch) = port.get_many(8, None) {
                    most.raise_to(running.up());
                    let mut seen = 0;
                    for _ in batch {
                        seen += 1;
                        burn(Duration::from_micros(100));
                        if taken.up() == PACKETS {
                            port.close();
                        }
                    }
                    let mut full = full.lock().unwrap();
                    *full = seen.max(*full);
                    running.down();
                }
            });
        }
    });
    assert_eq!(taken.now(), PACKETS);
    assert!(*full.lock().unwrap() > 1, "no batch had more than one packet: nothing was shown");
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
