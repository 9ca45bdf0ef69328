//! Cancelling, closing, and ends of threads and processes (K).

use super::driven;
use super::send::reading;
use crate::kit::*;
use crate::row::{How::*, Row, differs, must, only_c, should};
use crate::setting::Engine;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use wharf::raw::Sink;
use wharf::{Cancel, Event};

pub const ROWS: &[Row] = &[
    must(
        "K-01",
        "Every accepted operation ends once, with one packet, however cancel, completion and close race.",
        Test(race),
    ),
    must("K-02", "A thread can cancel what it has issued itself.", Test(own)),
    must("K-03", "Any thread can cancel one operation of a device, or all of them.", Test(one_or_all)),
    must("K-04", "When there is nothing to cancel, the call says so.", Test(nothing)),
    must(
        "K-05",
        "An operation whose packet is queued has ended: cancelling finds nothing, and the packet stays as it is.",
        Test(driven::too_late_to_cancel),
    ),
    must("K-06", "After a cancel the operation ends cancelled or completed, and its packet tells which.", Test(either)),
    must("K-07", "A cancel does not wait, and runs no handler.", Test(no_waiting)),
    should("K-08", "A cancelled receive takes nothing from the stream, which can be used on.", Test(used_on)),
    must("K-09", "Cancelling one operation leaves its neighbours alone.", Test(neighbours)),
    must(
        "K-10",
        "Cancelling on an invalid handle is an error.",
        only_c("handles that may be invalid: an operation's name leads nowhere any more, and K-04 says so"),
    ),
    must(
        "K-11",
        "Closing ends every outstanding operation with its key and context, and no bytes.",
        Test(driven::ended_before_the_close),
    ),
    must("K-12", "The error of closing is 995.", Test(close_code)),
    must(
        "K-13",
        "The packets of a close may come after it has returned, and memory stays theirs till then.",
        Test(memory_till_packet),
    ),
    must("K-14", "Closing does not wait for outstanding operations.", Test(close_at_once)),
    must(
        "K-15",
        "A late packet of a closed device has its old key and context, though its number is in use again.",
        Test(reuse),
    ),
    must(
        "K-16",
        "Closing sends what was taken, then the end; with a linger time of 0 it resets.",
        Test(driven::end_behind_what_was_sent),
    ),
    should("K-17", "Closing while received data is unread resets the connection.", Test(unread)),
    must("K-18", "Dropping one of several handles of a device ends nothing; the last one closes it.", Test(handles)),
    must("K-19", "Closing a pipe or a file ends its operations, one packet each, to the port.", Test(pipes_and_files)),
    must("K-20", "A shutdown cancels nothing: receives stay, sends go out.", Test(driven::shut_send_goes_on)),
    must("K-21", "The end of the issuing thread ends none of its operations.", Test(thread_end)),
    should(
        "K-22",
        "The end of a thread cancels its operations on handles without a port.",
        only_c("overlapped operations on a handle without a port"),
    ),
    should(
        "K-23",
        "The end of a thread cancels its operations that have an event.",
        differs("it cancels nothing: operations do not belong to threads", thread_end_with_event),
    ),
    must("K-25", "The end of the process ends everything, and is not held up by it.", Test(process_end)),
    must("K-27", "The last WSACleanup ends all operations.", only_c("WSAStartup and WSACleanup")),
    should("K-28", "A handler may close the socket whose packet it handles.", Test(inside_handler)),
    must("K-29", "Shutting down in order works: quit packets, workers leave, cancel, drain, close.", Test(recipe)),
];

fn race(b: &Bench) {
    const ROUNDS: usize = 300;
    const OPERATIONS: usize = 6;
    let port = b.limited(3);
    let packets: std::sync::Arc<Vec<AtomicU32>> =
        std::sync::Arc::new((0..ROUNDS * OPERATIONS).map(|_| AtomicU32::new(0)).collect());
    let own = packets.clone();
    let _crew = Crew::start(&port, 3, move |_, packet| {
        own[packet.context as usize].fetch_add(1, Ordering::SeqCst);
    });
    let mut accepted = vec![false; ROUNDS * OPERATIONS];
    let mut random = fastrand::Rng::with_seed(1);
    for round in 0..ROUNDS {
        let (stream, peer) = b.stream(&port, round as u64);
        let first = round * OPERATIONS;
        let mut names = Vec::new();
        for (number, accepted) in accepted.iter_mut().enumerate().skip(first).take(OPERATIONS) {
            let outcome = match number % 3 {
                0 => stream.send(vec![7; 5000], number as u64),
                _ => stream.recv(vec![0; 100], number as u64),
            };
            *accepted = outcome.is_ok();
            names.extend(outcome.ok().map(pending));
        }
        let closes = random.bool();
        thread::scope(|scope| {
            scope.spawn(|| {
                let _ = (&peer).write_all(&[1; 150]);
                if round % 3 == 0 {
                    peer.reset_when_closed();
                }
            });
            scope.spawn(|| names.iter().for_each(|&name| _ = stream.cancel(name)));
            if closes {
                stream.close();
            } else {
                stream.cancel_all();
            }
        });
        drop((stream, peer));
    }
    let expected = accepted.iter().filter(|&&accepted| accepted).count();
    let total = || packets.iter().map(|count| count.load(Ordering::SeqCst) as usize).sum::<usize>();
    eventually("every operation has its packet", || total() >= expected);
    thread::sleep(WHILE);
    for (count, accepted) in packets.iter().zip(accepted) {
        assert_eq!(count.load(Ordering::SeqCst), u32::from(accepted));
    }
    super::kinds::race_of_ends(b);
}

fn one_or_all(b: &Bench) {
    let port = b.port();
    let (stream, _peer) = b.stream(&port, 1);
    let names: Vec<_> = (0..4).map(|number| pending(stream.recv(vec![0; 4], number).unwrap())).collect();
    let other = stream.clone();
    let name = names[2];
    assert_eq!(thread::spawn(move || other.cancel(name)).join().unwrap(), Cancel::Requested);
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet).0), (2, 995));
    assert_eq!(stream.cancel_all(), 3);
    for number in [0, 1, 3] {
        let packet = next(&port);
        assert_eq!((packet.context, codes(&packet).0), (number, 995));
    }
    quiet(&port);
    super::kinds::each_can_be_cancelled(b);
}

fn own(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.recv(vec![0; 4], 1).unwrap();
    let other = stream.clone();
    let issued = thread::spawn(move || {
        wharf::raw::set_issuer(7);
        other.recv(vec![0; 4], 2).unwrap();
        other.recv(vec![0; 4], 3).unwrap();
        (other.cancel_issued_by(7), other.cancel_issued_by(7))
    });
    assert_eq!(issued.join().unwrap(), (2, 0));
    for number in [2, 3] {
        let packet = next(&port);
        assert_eq!((packet.context, codes(&packet).0), (number, 995));
    }
    peer.write_all(b"x").unwrap();
    assert_eq!(received(&port).0, 1, "what others have issued goes on");
    quiet(&port);
}

fn nothing(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    assert_eq!(stream.cancel_all(), 0);
    let name = pending(stream.recv(vec![0; 4], 1).unwrap());
    peer.write_all(b"x").unwrap();
    assert_eq!(received(&port).0, 1);
    assert_eq!((stream.cancel(name), stream.cancel_all()), (Cancel::TooLate, 0));
    stream.close();
    assert_eq!(stream.cancel(name), Cancel::TooLate);
    quiet(&port);
}

pub fn too_late(b: &Bench) {
    let port = b.port();
    let (stream, _peer) = b.stream(&port, 1);
    let name = pending(stream.send("hello", 5).unwrap());
    assert_eq!(port.stats().queued, 1);
    assert_eq!((stream.cancel(name), stream.cancel_all()), (Cancel::TooLate, 0));
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (5, 5));
    quiet(&port);
}

fn either(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    let (mut cancelled, mut completed, mut bytes) = (0, 0, 0);
    for number in 0..400 {
        let name = pending(stream.recv(vec![0; 16], number).unwrap());
        if number % 2 == 0 {
            peer.write_all(b"x").unwrap();
        }
        if number % 4 == 0 {
            // So that some of them are taken before.
            thread::sleep(Duration::from_micros(200));
        }
        let _ = stream.cancel(name);
        let (context, result) = received(&port);
        assert_eq!(context, number);
        match result {
            Ok(got) => {
                completed += 1;
                bytes += got.len();
            }
            error => {
                assert_eq!(errno(&error), ECANCELED);
                cancelled += 1;
            }
        }
    }
    drop(peer);
    loop {
        stream.recv(vec![0; 64], 0).unwrap();
        match received(&port).1.unwrap().len() {
            0 => break,
            more => bytes += more,
        }
    }
    assert_eq!(bytes, 200, "a cancelled receive has taken bytes, or one that was not has lost some");
    assert!(cancelled > 0);
    b.note(format!("{cancelled} ended cancelled, {completed} completed"));
    either_with_workers(b);
}

/// K-06, K-08 with three workers: data, cancel and the workers that take it race, and no byte is lost or comes twice.
fn either_with_workers(b: &Bench) {
    const RECEIVES: u64 = 400;
    let port = b.limited(3);
    let (stream, mut peer) = b.stream(&port, 1);
    // By the order of issue, which is that of the bytes; None for one that was cancelled.
    let ends: Arc<Mutex<Vec<Option<Vec<u8>>>>> = Arc::new(Mutex::new(vec![None; RECEIVES as usize]));
    let (ended, cancelled) = (Count::default(), Count::default());
    let (all, count, without) = (ends.clone(), ended.clone(), cancelled.clone());
    let crew = Crew::start(&port, 3, move |_, packet| {
        let (context, win32) = (packet.context as usize, codes(&packet).0);
        let Event::Received { buffer, result, .. } = packet.event else { panic!("a receive ends") };
        match result {
            Ok(_) => all.lock().unwrap()[context] = Some(buffer.to_vec()),
            Err(_) => {
                assert_eq!(win32, 995);
                without.up();
            }
        }
        count.up();
    });
    let mut sent = Vec::new();
    for number in 0..RECEIVES {
        let name = pending(stream.recv(vec![0; 16], number).unwrap());
        thread::scope(|scope| {
            let (own, bytes) = (&stream, [number as u8, (number >> 8) as u8]);
            scope.spawn(move || own.cancel(name));
            if number % 2 == 0 {
                peer.write_all(&bytes).unwrap();
                sent.extend(bytes);
            }
        });
    }
    // What is left is taken by one more, which is behind all others.
    eventually("each has ended", || ended.now() == RECEIVES as usize);
    drop(crew);
    let taken: Vec<u8> = ends.lock().unwrap().iter().flatten().flatten().copied().collect();
    assert!(sent.starts_with(&taken), "bytes were lost, came twice, or changed places");
    b.note(format!("with workers: {} of {RECEIVES} ended cancelled, {} bytes taken", cancelled.now(), taken.len()));
}

fn no_waiting(b: &Bench) {
    let port = b.limited(1);
    let (stream, _peer) = b.stream(&port, 1);
    let name = pending(stream.recv(vec![0; 4], 1).unwrap());
    // This thread is the only one: a handler that was run, or waited for, would have to be here.
    assert_eq!(stream.cancel(name), Cancel::Requested);
    assert_eq!(port.stats().queued, 1, "the packet waits for a get");
    assert_eq!(next(&port).context, 1);
    let (wide, peer) = b.narrow(&port, 2);
    wide.send(vec![7; MUCH], 2).unwrap();
    assert_eq!(wide.cancel_all(), 1, "half-sent, and nobody reads");
    assert_eq!(codes(&next(&port)).0, 995);
    drop(peer);
    quickest("a cancel", AT_ONCE, TRIES, || {
        let name = pending(stream.recv(vec![0; 4], 3).unwrap());
        let took = timed(|| assert_eq!(stream.cancel(name), Cancel::Requested));
        assert_eq!(codes(&next(&port)).0, 995);
        took
    });
    quickest("a cancel of everything, beside file operations that are under way", AT_ONCE, TRIES, || {
        let path = Temporary::with(pattern(1 << 20, 1));
        let file = port.open(&path, std::fs::OpenOptions::new().write(true), 4).unwrap();
        (0..8).for_each(|number| drop(file.sync(number).unwrap()));
        (0..8).for_each(|number| drop(stream.recv(vec![0; 4], number).unwrap()));
        let took = timed(|| {
            stream.cancel_all();
            file.cancel_all();
        });
        (0..16).for_each(|_| drop(next(&port)));
        took
    });
}

fn used_on(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    for number in 0..20 {
        let name = pending(stream.recv(vec![0; 4], number).unwrap());
        stream.cancel(name);
        assert_eq!(errno(&received(&port).1), ECANCELED);
    }
    peer.write_all(b"all of it").unwrap();
    stream.recv(vec![0; 64], 99).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"all of it");
}

fn neighbours(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    let names: Vec<_> = (0..3).map(|number| pending(stream.recv(vec![0; 1], number).unwrap())).collect();
    stream.cancel(names[1]);
    assert_eq!(next(&port).context, 1);
    assert!(port.get_timeout(WHILE).is_err());
    peer.write_all(b"ab").unwrap();
    let (first, second) = (received(&port), received(&port));
    assert_eq!((first.0, first.1.unwrap(), second.0, second.1.unwrap()), (0, b"a".to_vec(), 2, b"b".to_vec()));
    // The same for sends, accepts and datagrams.
    let (stream, peer) = b.narrow(&port, 2);
    let names = [
        pending(stream.send(vec![1; MUCH], 10).unwrap()),
        pending(stream.send(vec![2; 1000], 11).unwrap()),
        pending(stream.send(vec![3; 1000], 12).unwrap()),
    ];
    assert_eq!(stream.cancel(names[1]), Cancel::Requested);
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet).0), (11, 995));
    let reader = reading(peer);
    assert_eq!(
        [sent(&port), sent(&port)].map(|(context, result)| (context, result.unwrap())),
        [(10, MUCH), (12, 1000)]
    );
    stream.close();
    let all = reader.join().unwrap();
    assert!(all.len() == MUCH + 1000 && all[MUCH..] == [3; 1000], "one byte of the cancelled send came");
    let listener = port.listen("127.0.0.1:0", 3).unwrap();
    let names: Vec<_> = (20..23).map(|number| pending(listener.accept(number).unwrap())).collect();
    assert_eq!(listener.cancel(names[1]), Cancel::Requested);
    assert_eq!(next(&port).context, 21);
    let _clients = [20, 22].map(|number| {
        let client = b.connect(listener.local_addr().unwrap()).unwrap();
        let (context, result) = accepted(&port);
        assert!(context == number && result.is_ok());
        client
    });
    let socket = port.bind("127.0.0.1:0", 4).unwrap();
    let names: Vec<_> = (30..33).map(|number| pending(socket.recv_from(vec![0; 4], number).unwrap())).collect();
    assert_eq!(socket.cancel(names[1]), Cancel::Requested);
    assert_eq!(next(&port).context, 31);
    for number in [30, 32] {
        b.mail().send_to(b"x", socket.local_addr().unwrap());
        let packet = next(&port);
        assert!(packet.context == number && packet.error().is_none(), "{packet:?}");
    }
}

/// A stream with operations outstanding in both directions, closed; their packets.
fn closed(b: &Bench) -> Vec<Taken> {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 33);
    (0..3).for_each(|number| drop(stream.recv(vec![0; 4], number).unwrap()));
    (3..6).for_each(|number| drop(stream.send(vec![7; MUCH], number).unwrap()));
    stream.close();
    let mut packets: Vec<Taken> = (0..6).map(|_| next(&port)).collect();
    quiet(&port);
    packets.sort_by_key(|packet| packet.context);
    drop(peer);
    packets
}

pub fn close(b: &Bench) {
    close_raw(b);
    for (packet, number) in closed(b).into_iter().zip(0..) {
        assert_eq!((packet.key, packet.context), (33, number));
        match packet.event {
            Event::Received { buffer, result, .. } => assert!(result.is_err() && buffer.capacity() == 4),
            Event::Sent { buffer, result, .. } => assert!(result.is_err() && buffer.len() == MUCH),
            other => panic!("{other:?}"),
        }
    }
    super::kinds::each_ends_by_closing(b);
}

fn close_raw(b: &Bench) {
    let port = b.raw();
    let (device, _peer) = b.raw_stream(&port, 7);
    (0..3).for_each(|token| drop(raw_receive(&port, &device, Memory::room(4).one(), token, Sink::Port).unwrap()));
    port.close_device(&device);
    for token in 0..3 {
        let packet = raw_next(&port);
        assert_eq!((packet.key, packet.token, packet.bytes, packet.error), (7, token, 0, ECANCELED));
    }
}

fn close_code(b: &Bench) {
    assert!(closed(b).iter().all(|packet| codes(packet) == (995, 995) && packet.nt_status().0 == 0xC000_0120));
}

fn memory_till_packet(b: &Bench) {
    let port = b.port();
    let (stream, _peer) = b.stream(&port, 1);
    let buffer = vec![7_u8; 4096];
    let address = buffer.as_ptr().addr();
    stream.recv(buffer, 1).unwrap();
    stream.close();
    drop(stream);
    let Event::Received { buffer, .. } = next(&port).event else { panic!("a receive was outstanding") };
    assert_eq!((buffer.as_ptr().addr(), buffer.capacity()), (address, 4096), "it comes back with the packet");
}

fn close_at_once(b: &Bench) {
    let port = b.port();
    quickest("a close, though nobody reads", AT_ONCE, TRIES, || {
        let (stream, peer) = b.narrow(&port, 1);
        stream.send(vec![7; MUCH], 1).unwrap();
        stream.recv(vec![0; 4], 2).unwrap();
        let took = timed(|| stream.close());
        let mut contexts = [next(&port).context, next(&port).context];
        contexts.sort_unstable();
        assert_eq!(contexts, [1, 2]);
        drop(peer);
        took
    });
    // Nor for what is unsent, with a linger time: the caller would be held up for all of it.
    if b.engine == Engine::Fake {
        // Whose connections have no such option.
        return;
    }
    let (server, peer) = pair();
    small_buffers([&server, &peer]);
    rustix::net::sockopt::set_socket_linger(&server, Some(Duration::from_secs(20))).unwrap();
    let stream = port.associate(server, 3).unwrap();
    // More than the peer takes: taken by the system, and not gone.
    (0..3).for_each(|number| drop(stream.send(vec![7; 60_000], number).unwrap()));
    let took = timed(|| {
        stream.close();
        drop(stream);
    });
    assert!(took < Duration::from_secs(5), "a close with a linger time of 20 s took {took:?}");
    drop(peer);
}

fn reuse(b: &Bench) {
    let port = b.raw();
    let (old, _peer) = b.raw_stream(&port, 111);
    raw_receive(&port, &old, Memory::room(4).one(), 1, Sink::Port).unwrap();
    port.close_device(&old);
    // The same descriptor number, most likely, before the packet is taken.
    let (new, mut peer) = b.raw_stream(&port, 222);
    raw_receive(&port, &new, Memory::room(4).one(), 2, Sink::Port).unwrap();
    peer.write_all(b"x").unwrap();
    let packet = raw_next(&port);
    assert_eq!((packet.key, packet.token, packet.error, packet.device), (111, 1, ECANCELED, old.number()));
    let packet = raw_next(&port);
    assert_eq!((packet.key, packet.token, packet.error, packet.device), (222, 2, 0, new.number()));
    assert_ne!(old.number(), new.number());
    const DEAD: i32 = if cfg!(windows) { 6 } else { 9 };
    assert_eq!(raw_receive(&port, &old, Memory::room(4).one(), 3, Sink::Port).err(), Some(DEAD), "the old one is dead");
    port.close_device(&new);
}

pub fn linger(b: &Bench) {
    let port = b.port();
    let (gentle, peer) = b.stream(&port, 1);
    gentle.send(pattern(50_000, 7), 1).unwrap();
    assert_eq!(sent(&port).1.unwrap(), 50_000);
    gentle.close();
    assert!(reading(peer).join().unwrap() == pattern(50_000, 7), "all of it, then the end");
    let (server, mut peer) = b.pair();
    rustix::net::sockopt::set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
    let hard = port.associate(server, 2).unwrap();
    hard.close();
    assert_eq!(peer.read(&mut [0; 1]).expect_err("a reset").raw_os_error(), Some(ECONNRESET));
}

fn unread(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    peer.write_all(b"unread").unwrap();
    thread::sleep(WHILE);
    stream.close();
    assert_eq!(peer.read(&mut [0; 1]).expect_err("a reset").raw_os_error(), Some(ECONNRESET));
}

fn handles(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    let other = stream.clone();
    stream.recv(vec![0; 4], 1).unwrap();
    drop(stream);
    assert!(port.get_timeout(WHILE).is_err(), "a handle is left");
    drop(other);
    assert!(port.get_timeout(WHILE).is_err(), "the operation holds one");
    peer.write_all(b"x").unwrap();
    let packet = next(&port);
    assert!(packet.error().is_none());
    drop(packet);
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the last one has gone, and the connection with it");
    assert_eq!(port.stats().devices, 0);
}

fn pipes_and_files(b: &Bench) {
    let port = b.port();
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = port.associate(reader, 5).unwrap();
    (0..3).for_each(|number| drop(pipe.recv(vec![0; 4], number).unwrap()));
    pipe.close();
    for number in 0..3 {
        let packet = next(&port);
        assert_eq!((packet.key, packet.context, codes(&packet).0), (5, number, 995));
    }
    let path = Temporary::with(pattern(64 * 4096, 1));
    let file = port.open(&path, std::fs::OpenOptions::new().read(true).write(true), 6).unwrap();
    for number in 0..20 {
        file.sync(number).unwrap();
        file.read_at(vec![0; 4096], number * 4096, 100 + number).unwrap();
    }
    file.close();
    let mut contexts: Vec<u64> = (0..40)
        .map(|_| {
            let packet = next(&port);
            assert!(matches!(codes(&packet).0, 0 | 995), "as it was, or cancelled");
            packet.context
        })
        .collect();
    contexts.sort_unstable();
    assert!(contexts.into_iter().eq((0..20).chain(100..120)));
    quiet(&port);
}

pub fn shutdown(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    stream.recv(vec![0; 16], 1).unwrap();
    stream.send(vec![7; MUCH], 2).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "nothing was cancelled");
    (&peer).write_all(b"data").unwrap();
    assert_eq!(received(&port).1.unwrap(), b"data");
    let reader = reading(peer);
    assert_eq!(sent(&port).1.unwrap(), MUCH);
    assert_eq!(reader.join().unwrap().len(), MUCH);
}

fn thread_end(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let path = Temporary::with("x");
    let file = port.open(&path, std::fs::OpenOptions::new().read(true).write(true), 2).unwrap();
    let (own, other, files) = (stream.clone(), port.clone(), file.clone());
    thread::spawn(move || {
        own.recv(vec![0; 16], 1).unwrap();
        own.send(vec![7; MUCH], 2).unwrap();
        other.timer(WHILE * 2, 9, 3).unwrap();
        files.sync(4).unwrap();
    })
    .join()
    .unwrap();
    thread::sleep(WHILE);
    let reader = reading(peer.try_clone().unwrap());
    (&peer).write_all(b"data").unwrap();
    let mut contexts: Vec<u64> = (0..4)
        .map(|_| {
            let packet = next(&port);
            assert!(packet.error().is_none(), "{packet:?}");
            packet.context
        })
        .collect();
    contexts.sort_unstable();
    assert_eq!(contexts, [1, 2, 3, 4]);
    stream.close();
    reader.join().unwrap();
}

fn process_end(b: &Bench) {
    b.in_child("exit");
}

/// Part of K-25, in a process of its own: it ends with everything outstanding.
pub fn exit(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 0).unwrap();
    listener.accept(0).unwrap();
    let (stream, peer) = b.narrow(&port, 1);
    stream.recv(vec![0; 4], 1).unwrap();
    stream.send(vec![7; MUCH], 2).unwrap();
    port.timer(Duration::from_secs(3600), 0, 3).unwrap();
    let path = Temporary::with("x");
    let file = port.open(&path, std::fs::OpenOptions::new().write(true), 2).unwrap();
    (0..50).for_each(|number| drop(file.sync(number).unwrap()));
    let waiting = port.clone();
    thread::spawn(move || {
        while waiting.get().is_ok() {
            thread::sleep(Duration::from_millis(1));
        }
    });
    std::mem::forget((listener, stream, peer, file));
    drop(path);
    std::process::exit(0);
}

fn inside_handler(b: &Bench) {
    let port = b.port();
    let done = Count::default();
    let count = done.clone();
    let _crew = Crew::start(&port, 2, move |_, packet| {
        if let Event::Received { stream, .. } = packet.event {
            stream.close();
            count.up();
        }
    });
    let mut peers = Vec::new();
    for number in 0..20 {
        let (stream, mut peer) = b.stream(&port, number);
        (0..2).for_each(|_| drop(stream.recv(vec![0; 4], number).unwrap()));
        peer.write_all(b"x").unwrap();
        peers.push(peer);
    }
    eventually("both receives of each stream have ended", || done.now() == 40);
    for mut peer in peers {
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    }
}

fn recipe(b: &Bench) {
    const QUIT: u64 = u64::MAX;
    let port = b.limited(2);
    let streams: Vec<_> = (0..10).map(|key| b.stream(&port, key)).collect();
    let handled = Count::default();
    let workers: Vec<_> = (0..4)
        .map(|_| {
            let (port, handled) = (port.clone(), handled.clone());
            thread::spawn(move || {
                while let Ok(packet) = port.get() {
                    if packet.key == QUIT {
                        break;
                    }
                    handled.up();
                    if let Event::Received { stream, result: Ok(1..), .. } = packet.event {
                        stream.recv(vec![0; 4], packet.context).unwrap();
                    }
                }
            })
        })
        .collect();
    for (stream, peer) in &streams {
        (0..3).for_each(|number| drop(stream.recv(vec![0; 4], number).unwrap()));
        (&mut &*peer).write_all(b"x").unwrap();
    }
    eventually("the data is handled", || handled.now() == 10);
    (0..4).for_each(|_| port.post(0, QUIT, 0).unwrap());
    workers.into_iter().for_each(|worker| worker.join().unwrap());
    let outstanding: usize = streams.iter().map(|(stream, _)| stream.cancel_all()).sum();
    assert_eq!(outstanding, 30, "three on each");
    for _ in 0..outstanding {
        assert_eq!(codes(&next(&port)).0, 995);
    }
    quiet(&port);
    port.close();
    assert_eq!(port.get().expect_err("it is closed").win32(), 735);
}

/// K-23: they go on.
fn thread_end_with_event(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let event = wharf::raw::CompletionEvent::new();
    thread::scope(|scope| {
        let issued = scope.spawn(|| {
            raw_receive(&port, &device, Memory::room(4).one(), 5, Sink::Both(event.clone())).unwrap();
        });
        issued.join().unwrap();
    });
    raw_quiet(&port);
    peer.write_all(b"x").unwrap();
    let packet = raw_next(&port);
    assert_eq!((packet.token, packet.bytes, packet.error), (5, 1, 0));
    assert_eq!(event.wait(Some(DEADLINE)).map(|told| told.token), Some(5));
}
