//! Receiving on streams (R).

use crate::kit::*;
use crate::row::{How::*, Row, information, must, only_c, should};
#[cfg(unix)]
use crate::system::deafen;
use std::io::Write;
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::thread;
use wharf::Event;
use wharf::error::ErrorExt;
use wharf::raw::Sink;

pub const ROWS: &[Row] = &[
    must(
        "R-01",
        "A receive ends as soon as a byte is there, with what is there, and does not wait to fill.",
        Test(what_is_there),
    ),
    must("R-02", "Several buffers are filled in their order, each to its end before the next.", Test(in_order)),
    should("R-03", "A receive can be told to wait until its buffers are full.", Test(until_full)),
    should("R-04", "Peeking is for calls that are not overlapped.", Test(peeks_not)),
    must("R-06", "Data fills the outstanding receives in the order of issue, each byte in one buffer.", Test(several)),
    must("R-07", "The handlers of several receives of one stream may run at the same time.", Alone(handlers_overlap)),
    must(
        "R-08",
        "A receive without space waits for data or the end, takes nothing, and succeeds at once when something is there.",
        Test(zero_bytes),
    ),
    should("R-09", "A receive with no buffers at all is refused.", Test(no_buffers)),
    must("R-10", "The peer's end is a success of 0 bytes, each time anew.", Test(end)),
    must("R-11", "Data that came before the peer's end is received before it.", Test(data_first)),
    must(
        "R-12",
        "A reset ends a pending receive with 0 bytes: 64 port-side, 10054 in Winsock.",
        Test(reset_while_pending),
    ),
    must(
        "R-13",
        "After a reset every receive is refused at once with 10054, and queues nothing.",
        Test(reset_is_remembered),
    ),
    must("R-14", "A reset, or the peer's end, ends all outstanding receives, one packet each.", Test(all_end)),
    must("R-15", "A receive on a stream that is not connected is refused at once with 10057.", Test(not_connected)),
    should(
        "R-16",
        "After its own shutdown of receiving a pending receive still takes data; a new one is refused with 10058.",
        Test(own_shutdown),
    ),
    must("R-18", "A connection that times out ends a pending receive.", Test(times_out)),
    should(
        "R-19",
        "Flags are read at the call, the final ones asked for later.",
        only_c("flags that a receive is told at its end"),
    ),
    must(
        "R-20",
        "Without a receive outstanding neither data nor the peer's end queues anything.",
        Test(no_receive_no_packet),
    ),
    information(
        "R-21",
        "Bytes that came before a reset may be received or dropped: programs take both.",
        Test(before_reset),
    ),
];

fn what_is_there(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    for content in [&b"x"[..], b"hello"] {
        stream.recv(vec![0; 4096], 1).unwrap();
        peer.write_all(content).unwrap();
        assert_eq!(received(&port).1.unwrap(), content);
    }
    peer.write_all(b"123456").unwrap();
    stream.recv(Vec::with_capacity(4), 2).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"1234", "up to the buffer's length");
    stream.recv(vec![0; 64], 3).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"56");
}

fn in_order(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let pieces = [Memory::room(3), Memory::room(0), Memory::room(2), Memory::room(10)];
    raw_receive(&port, &device, Memory::many(&pieces), 1, Sink::Port).unwrap();
    peer.write_all(b"abcdefg").unwrap();
    assert_eq!(raw_next(&port).bytes, 7);
    assert_eq!((&pieces[0].bytes()[..], &pieces[2].bytes()[..]), (&b"abc"[..], &b"de"[..]));
    assert_eq!(&pieces[3].bytes()[..3], b"fg\0");
    port.close_device(&device);
}

fn until_full(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.recv_exact(Vec::with_capacity(6), 1).unwrap();
    peer.write_all(b"abc").unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "it is not full");
    peer.write_all(b"defgh").unwrap();
    assert_eq!(received(&port).1.unwrap(), b"abcdef");
    stream.recv(vec![0; 8], 2).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"gh", "what is behind it");
    // The end of the stream ends it early.
    stream.recv_exact(Vec::with_capacity(6), 3).unwrap();
    peer.write_all(b"ij").unwrap();
    drop(peer);
    assert_eq!(received(&port).1.unwrap(), b"ij");
}

fn peeks_not(b: &Bench) {
    let port = b.raw();
    let (device, _peer) = b.raw_stream(&port, 1);
    assert!(raw_peek(&port, &device, Memory::room(8).one(), 1).is_err(), "it is refused");
    port.close_device(&device);
}

/// R-04 here.
pub fn peeks(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    peer.write_all(b"abc").unwrap();
    let memory = Memory::room(8);
    raw_peek(&port, &device, memory.one(), 1).unwrap();
    assert_eq!((raw_next(&port).bytes, &memory.bytes()[..3]), (3, &b"abc"[..]));
    raw_receive(&port, &device, memory.one(), 2, Sink::Port).unwrap();
    assert_eq!(raw_next(&port).bytes, 3, "it stayed");
    port.close_device(&device);
}

fn several(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    let sent = pattern(64 * 100, 1);
    for number in 0..64 {
        stream.recv(Vec::with_capacity(100), number).unwrap();
    }
    // In pieces that fit nothing.
    let own = sent.clone();
    let writer = thread::spawn(move || own.chunks(37).for_each(|chunk| peer.write_all(chunk).unwrap()));
    let mut came = Vec::new();
    let mut issued = 64;
    let mut expected = 0;
    while came.len() < sent.len() {
        let (number, bytes) = received(&port);
        assert_eq!(number, expected, "in the order of issue");
        expected += 1;
        came.extend(bytes.unwrap());
        stream.recv(Vec::with_capacity(100), issued).unwrap();
        issued += 1;
    }
    assert!(came == sent);
    writer.join().unwrap();
    several_workers(b);
}

/// R-06 with four workers that issue anew: whoever handles them, by the order of issue the bytes are those that were
/// sent.
fn several_workers(b: &Bench) {
    const BYTES: usize = 300_000;
    let port = b.limited(4);
    let (stream, mut peer) = b.stream(&port, 1);
    let content = pattern(BYTES, 8);
    let own = content.clone();
    let writer = thread::spawn(move || own.chunks(777).for_each(|chunk| peer.write_all(chunk).unwrap()));
    // The place of a receive is that of its issue: both under one lock.
    let issued = Arc::new(Mutex::new(0_u64));
    let came: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let bytes = Count::default();
    let (pieces, count, next_issue) = (came.clone(), bytes.clone(), issued.clone());
    let crew = Crew::start(&port, 4, move |_, packet| {
        let Event::Received { stream, buffer, result: Ok(1..), .. } = packet.event else { return };
        let mut pieces = pieces.lock().unwrap();
        let at = packet.context as usize;
        if pieces.len() <= at {
            pieces.resize(at + 1, Vec::new());
        }
        pieces[at] = buffer.to_vec();
        drop(pieces);
        (0..buffer.len()).for_each(|_| _ = count.up());
        let mut issued = next_issue.lock().unwrap();
        if stream.recv(Vec::with_capacity(100), *issued).is_ok() {
            *issued += 1;
        }
    });
    {
        let mut issued = issued.lock().unwrap();
        for _ in 0..32 {
            stream.recv(Vec::with_capacity(100), *issued).unwrap();
            *issued += 1;
        }
    }
    eventually("all of it came", || bytes.now() >= BYTES);
    writer.join().unwrap();
    drop(crew);
    assert!(came.lock().unwrap().concat() == content, "in the order of issue these are other bytes");
}

fn handlers_overlap(b: &Bench) {
    let port = b.limited(2);
    let (stream, mut peer) = b.stream(&port, 1);
    let inside = Count::default();
    let met = inside.clone();
    let _crew = Crew::start(&port, 2, move |_, _| {
        met.up();
        spin_until("the other receive's handler runs too", || met.now() == 2);
    });
    stream.recv(vec![0; 1], 1).unwrap();
    stream.recv(vec![0; 1], 2).unwrap();
    peer.write_all(b"ab").unwrap();
    eventually("both run", || inside.now() == 2);
}

#[cfg(windows)]
fn deafen(_: &std::net::TcpStream) -> bool {
    false
}

fn times_out(b: &Bench) {
    use rustix::net::sockopt;
    if cfg!(not(target_os = "linux")) {
        not_tried("a system that can be made to lose packets");
    }
    let port = b.port();
    let (server, peer) = b.pair();
    sockopt::set_socket_keepalive(&server, true).unwrap();
    // The shortest there are: a question after a second of silence, and no second one.
    sockopt::set_tcp_keepidle(&server, std::time::Duration::from_secs(1)).unwrap();
    sockopt::set_tcp_keepintvl(&server, std::time::Duration::from_secs(1)).unwrap();
    sockopt::set_tcp_keepcnt(&server, 1).unwrap();
    let stream = port.associate(server, 1).unwrap();
    stream.recv(vec![0; 16], 1).unwrap();
    let peer = peer.std().expect("a system's socket");
    assert!(deafen(&peer));
    let packet = next(&port);
    assert_eq!(packet.context, 1);
    let (win32, winsock) = codes(&packet);
    assert!(matches!(win32, 64 | 121) && matches!(winsock, 10052 | 10053 | 10060), "{win32} {winsock}");
    quiet(&port);
}

fn zero_bytes(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    let readable = |packet: Taken, context| {
        assert_eq!(packet.context, context);
        assert!(matches!(packet.event, Event::Readable { result: Ok(()), .. }), "{packet:?}");
    };
    stream.readable(1).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "it waits");
    peer.write_all(b"data").unwrap();
    readable(next(&port), 1);
    stream.readable(2).unwrap();
    readable(next(&port), 2);
    stream.recv(vec![0; 16], 3).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"data", "nothing was taken");
    stream.readable(4).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "nothing is there any more");
    drop(peer);
    readable(next(&port), 4);
    // Between receives: it waits for what is left behind the one before it, and takes nothing of the one behind it.
    let (stream, mut peer) = b.stream(&port, 2);
    stream.recv(Vec::with_capacity(2), 5).unwrap();
    stream.readable(6).unwrap();
    stream.recv(vec![0; 8], 7).unwrap();
    peer.write_all(b"abcd").unwrap();
    let (context, bytes) = received(&port);
    assert_eq!((context, &bytes.unwrap()[..]), (5, &b"ab"[..]));
    readable(next(&port), 6);
    let (context, bytes) = received(&port);
    assert_eq!((context, &bytes.unwrap()[..]), (7, &b"cd"[..]));
    // A reset ends it with an error.
    stream.readable(8).unwrap();
    reset(peer);
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet)), (8, (64, 10054)));
    quiet(&port);
}

fn no_buffers(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let error = raw_receive(&port, &device, Memory::many(&[]), 1, Sink::Port).expect_err("no buffer is named");
    assert_eq!(wharf::error::io_error(error).winsock(), 10022);
    peer.write_all(b"x").unwrap();
    raw_quiet(&port);
    port.close_device(&device);
}

fn end(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.stream(&port, 1);
    stream.recv(vec![0; 4], 0).unwrap();
    drop(peer);
    assert_eq!(received(&port).1.unwrap(), b"");
    for number in 1..4 {
        stream.recv(vec![0; 4], number).unwrap();
        let packet = next(&port);
        assert!(packet.error().is_none());
        assert!(matches!(packet.event, Event::Received { result: Ok(0), .. }));
    }
}

fn data_first(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    peer.write_all(&pattern(5000, 2)).unwrap();
    drop(peer);
    thread::sleep(WHILE);
    let mut came = Vec::new();
    loop {
        stream.recv(Vec::with_capacity(700), 0).unwrap();
        let bytes = received(&port).1.unwrap();
        if bytes.is_empty() {
            break;
        }
        came.extend(bytes);
    }
    assert!(came == pattern(5000, 2));
    // More than the buffers hold, and several workers: the end is what comes last.
    let port = b.limited(3);
    let (stream, peer) = b.narrow(&port, 1);
    let content = pattern(MUCH / 4, 4);
    let own = content.clone();
    let writer = thread::spawn(move || (&peer).write_all(&own).unwrap());
    let (came, ended) = (Arc::new(Mutex::new(Vec::new())), Flag::default());
    let (all, end) = (came.clone(), ended.clone());
    // One receive at a time, so that the place of its bytes is known.
    let _crew = Crew::start(&port, 3, move |_, packet| match packet.event {
        Event::Received { stream, buffer, result: Ok(1..), .. } => {
            assert!(!end.is_set(), "data behind the end");
            all.lock().unwrap().extend_from_slice(&buffer);
            stream.recv(Vec::with_capacity(7000), 0).unwrap();
        }
        Event::Received { result: Ok(0), .. } => end.set(),
        other => panic!("{other:?}"),
    });
    stream.recv(Vec::with_capacity(7000), 0).unwrap();
    writer.join().unwrap();
    eventually("it ends", || ended.is_set());
    assert!(*came.lock().unwrap() == content, "the data came before its end");
}

fn reset_while_pending(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.stream(&port, 1);
    stream.recv(vec![0; 4], 5).unwrap();
    reset(peer);
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet)), (5, (64, 10054)));
    assert_eq!(packet.nt_status().0, 0xC000_020D);
    // The count, which a failure of the typed layer does not tell.
    let port = b.raw();
    let (device, peer) = b.raw_stream(&port, 1);
    raw_receive(&port, &device, Memory::room(4).one(), 6, Sink::Port).unwrap();
    reset(peer);
    let packet = raw_next(&port);
    assert_eq!((packet.token, packet.bytes, packet.error), (6, 0, ECONNRESET));
}

fn reset_is_remembered(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.stream(&port, 1);
    reset(peer);
    thread::sleep(WHILE);
    // Linux tells it with the first operation; from then on the port does.
    if stream.recv(vec![0; 4], 0).is_ok() {
        assert_eq!(errno(&received(&port).1), ECONNRESET);
    }
    for number in 1..4 {
        let refused = stream.recv(vec![0; 4], number).expect_err("the connection is reset");
        assert_eq!((refused.context, refused.error.winsock()), (number, 10054));
    }
    quiet(&port);
    // First told by a send: what came before the reset may still be there, so that one receive looks, and the others
    // know.
    let (stream, peer) = b.narrow(&port, 2);
    stream.send(vec![7; MUCH], 1).unwrap();
    assert!(port.get_timeout(WHILE).is_err());
    reset(peer);
    assert_eq!(errno(&sent(&port).1), ECONNRESET);
    if stream.recv(vec![0; 4], 2).is_ok() {
        assert_eq!(errno(&received(&port).1), ECONNRESET);
    }
    for number in 3..6 {
        let refused = stream.recv(vec![0; 4], number).expect_err("the connection is reset");
        assert_eq!((refused.context, refused.error.winsock()), (number, 10054));
        assert_eq!(stream.readable(number).expect_err("the connection is reset").error.winsock(), 10054);
    }
    quiet(&port);
}

fn all_end(b: &Bench) {
    for by_reset in [false, true] {
        let port = b.port();
        let (stream, peer) = b.stream(&port, 1);
        (0..5).for_each(|number| drop(stream.recv(vec![0; 4], number).unwrap()));
        if by_reset {
            reset(peer);
        } else {
            drop(peer);
        }
        for number in 0..5 {
            let (context, result) = received(&port);
            assert_eq!(context, number);
            match by_reset {
                true => assert_eq!(errno(&result), ECONNRESET),
                false => assert_eq!(result.unwrap(), b""),
            }
        }
        quiet(&port);
    }
    // Two hundred in each direction, taken by workers.
    const EACH: u64 = 200;
    let port = b.limited(3);
    let (failed, count) = (Count::default(), Arc::new(Mutex::new(vec![0; 2 * EACH as usize])));
    let (fails, seen) = (failed.clone(), count.clone());
    let _crew = Crew::start(&port, 3, move |_, packet| {
        seen.lock().unwrap()[packet.context as usize] += 1;
        if codes(&packet) == (64, 10054) {
            fails.up();
        }
    });
    let (stream, peer) = b.narrow(&port, 1);
    for number in 0..EACH {
        stream.recv(vec![0; 4], number).unwrap();
        stream.send(vec![7; 100_000], EACH + number).unwrap();
    }
    thread::sleep(WHILE);
    reset(peer);
    eventually("each has its packet", || count.lock().unwrap().iter().all(|&packets| packets > 0));
    thread::sleep(WHILE);
    assert!(count.lock().unwrap().iter().all(|&packets| packets == 1));
    // But for the sends that were taken before.
    assert!(failed.now() as u64 > EACH + EACH / 2, "{} ended by the reset", failed.now());
}

/// A stream whose connect has failed.
pub fn unconnected(port: &Port) -> Stream {
    let (_held, nobody) = dead_address();
    let stream = port.connect(nobody, 1, 77).unwrap();
    assert!(next(port).error().is_some());
    stream
}

fn not_connected(b: &Bench) {
    let port = b.port();
    let stream = unconnected(&port);
    let refused = stream.recv(vec![0; 4], 3).expect_err("it is not connected");
    assert_eq!((refused.context, refused.error.winsock()), (3, 10057));
    assert!(stream.readable(4).is_err());
    quiet(&port);
}

fn own_shutdown(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.recv(vec![0; 4], 1).unwrap();
    stream.shutdown(Shutdown::Read).unwrap();
    assert_eq!(stream.recv(vec![0; 4], 2).expect_err("it was shut").error.winsock(), 10058);
    assert!(port.get_timeout(WHILE).is_err(), "the pending one stays");
    peer.write_all(b"data").unwrap();
    assert_eq!(received(&port).1.unwrap(), b"data");
}

fn no_receive_no_packet(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    peer.write_all(b"data").unwrap();
    quiet(&port);
    drop(peer);
    quiet(&port);
    stream.recv(vec![0; 16], 1).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"data");
    stream.recv(vec![0; 16], 2).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"");
}

fn before_reset(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    peer.write_all(b"data").unwrap();
    thread::sleep(WHILE);
    reset(peer);
    thread::sleep(WHILE);
    stream.recv(vec![0; 16], 1).unwrap();
    match received(&port).1 {
        Ok(bytes) => {
            b.note("delivered".into());
            assert_eq!(bytes, b"data", "all of it or none");
            if stream.recv(vec![0; 16], 2).is_ok() {
                assert_eq!(errno(&received(&port).1), ECONNRESET);
            }
        }
        other => assert_eq!(errno(&other), ECONNRESET),
    }
}
