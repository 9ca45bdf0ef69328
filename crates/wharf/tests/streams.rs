//! Receiving, sending, cancelling, closing and releasing streams, over real sockets. Rows R, S, O and K of the
//! specification.

mod common;

use common::numbers::{EBUSY, ECANCELED, ECONNRESET, ENOTCONN, ESHUTDOWN};
use common::*;
use rustix::net::{SendFlags, sockopt};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream as StdStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use wharf::error::{Class, ErrorExt, NtStatus, winsock};
use wharf::raw::{self, Buffers, CompletionEvent, DeviceKind, RawBuffer, Sink};
use wharf::{Buffer, Cancel, Event, Outcome, Wake};

fn one_stream() -> (Ledger, Port, Stream, StdStream) {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (stream, peer) = connection(&port, 7);
    (ledger, port, stream, peer)
}

/// A stream whose sends do not fit into the system's buffers for long.
fn narrow_stream() -> (Ledger, Port, Stream, StdStream) {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (server, peer) = pair();
    small_buffers([&server, &peer]);
    (ledger, port.clone(), port.associate(server, 7).unwrap(), peer)
}

/// Issues receives into `buffer_bytes` each until `wanted` bytes, the end or an error came.
fn receive_all(port: &Port, ledger: &Ledger, stream: &Stream, buffer_bytes: usize, wanted: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < wanted {
        pending(stream.recv(vec![0; buffer_bytes], ledger.token(0)).unwrap());
        let received = next_received(port);
        match received.result {
            Ok(0) => break,
            Ok(bytes) => {
                assert_eq!(bytes, received.buffer.len());
                all.extend_from_slice(&received.buffer);
            }
            Err(error) => panic!("after {} bytes: {error}", all.len()),
        }
    }
    all
}

// --- Receiving ---

#[test]
fn a_receive_completes_with_what_is_there() {
    let (ledger, port, stream, mut peer) = one_stream();
    pending(stream.recv(Buffer::with_capacity(100), ledger.token(1)).unwrap());
    quiet(&port, &ledger);
    peer.write_all(b"some").unwrap();
    let packet = next(&port);
    assert_eq!(packet.key, 7);
    assert_eq!(packet.nt_status(), NtStatus::SUCCESS);
    let received = received(packet);
    assert_eq!((received.number, received.result.unwrap()), (1, 4));
    assert_eq!(&received.buffer[..], b"some");
    assert_eq!(received.stream.number(), stream.number());
    quiet(&port, &ledger);
}

#[test]
fn data_that_was_there_before_the_receive_is_received() {
    let (ledger, port, stream, mut peer) = one_stream();
    peer.write_all(b"early").unwrap();
    // The port has heard of the data, and nobody wanted it.
    quiet(&port, &ledger);
    assert_eq!(receive_all(&port, &ledger, &stream, 3, 5), b"early");
}

#[test]
fn a_receive_never_gives_more_than_the_buffer_takes() {
    let (ledger, port, stream, mut peer) = one_stream();
    let sent = pattern(10_000, 1);
    peer.write_all(&sent).unwrap();
    assert_eq!(receive_all(&port, &ledger, &stream, 7, sent.len()), sent);
}

#[test]
fn several_receives_are_filled_in_the_order_of_issue() {
    let (ledger, port, stream, mut peer) = one_stream();
    for n in 0..6 {
        pending(stream.recv(Vec::with_capacity(4), ledger.token(n)).unwrap());
    }
    peer.write_all(b"aaaabbbbccccddddee").unwrap();
    for (n, expected) in [&b"aaaa"[..], b"bbbb", b"cccc", b"dddd", b"ee"].into_iter().enumerate() {
        let received = next_received(&port);
        assert_eq!((received.number, &received.buffer[..]), (n as u64, expected));
    }
    quiet(&port, &ledger);
    peer.write_all(b"ff").unwrap();
    let received = next_received(&port);
    assert_eq!((received.number, &received.buffer[..]), (5, &b"ff"[..]));
}

#[test]
fn receives_of_one_stream_served_by_many_threads_lose_and_swap_nothing() {
    const TOTAL: usize = 2 * 1024 * 1024;
    for wake in [Wake::Eager, Wake::Adaptive] {
        let ledger = Ledger::new();
        let port = port(3, wake);
        let (stream, mut peer) = connection(&port, 0);
        let sent = pattern(TOTAL, 2);
        type Pieces = Vec<(u64, Vec<u8>)>;
        let pieces: Arc<Mutex<Pieces>> = Arc::default();
        // The number of a receive is its place in the order of issue: both are taken under one lock.
        let issue = Arc::new(Mutex::new(0u64));
        let ended = Arc::new(AtomicUsize::new(0));
        const OUTSTANDING: usize = 8;
        let mint = ledger.mint();
        let issue_next = {
            let issue = issue.clone();
            move |stream: &Stream| {
                let mut number = issue.lock().unwrap();
                let size = 1 + (*number as usize * 7919) % 5000;
                pending(stream.recv(Vec::with_capacity(size), mint.token(*number)).unwrap());
                *number += 1;
            }
        };
        let (again, filled, ends) = (issue_next.clone(), pieces.clone(), ended.clone());
        let _crew = Crew::start(&port, 4, move |_, packet| {
            let received = received(packet);
            if received.result.unwrap() == 0 {
                ends.fetch_add(1, SeqCst);
                return;
            }
            // Before the next receive is issued, and so before the end can be seen by all.
            filled.lock().unwrap().push((received.number, received.buffer.into_vec()));
            again(&received.stream);
        });
        (0..OUTSTANDING).for_each(|_| issue_next(&stream));
        let writer = thread::spawn(move || {
            peer.write_all(&sent).unwrap();
            peer.shutdown(Shutdown::Write).unwrap();
            (peer, sent)
        });
        eventually("every outstanding receive sees the end", || ended.load(SeqCst) == OUTSTANDING);
        let (_peer, sent) = writer.join().unwrap();
        let mut pieces = pieces.lock().unwrap();
        pieces.sort_unstable_by_key(|(number, _)| *number);
        let all: Vec<u8> = pieces.iter().flat_map(|(_, bytes)| bytes).copied().collect();
        assert!(all == sent, "{wake:?}: the stream came out changed");
    }
}

#[test]
fn a_zero_byte_receive_waits_for_data_and_takes_none() {
    let (ledger, port, stream, mut peer) = one_stream();
    pending(stream.readable(ledger.token(1)).unwrap());
    pending(stream.recv(Buffer::with_capacity(0), ledger.token(2)).unwrap());
    quiet(&port, &ledger);
    peer.write_all(b"data").unwrap();
    for n in [1, 2] {
        let packet = next(&port);
        assert_eq!(packet.context.number, n);
        match packet.event {
            Event::Readable { result, .. } => result.unwrap(),
            Event::Received { buffer, result, .. } => assert_eq!((result.unwrap(), buffer.len()), (0, 0)),
            other => panic!("{other:?}"),
        }
    }
    // With data there already it completes at once.
    pending(stream.readable(ledger.token(3)).unwrap());
    assert!(matches!(next(&port).event, Event::Readable { result: Ok(()), .. }));
    assert_eq!(receive_all(&port, &ledger, &stream, 16, 4), b"data");
    pending(stream.readable(ledger.token(4)).unwrap());
    quiet(&port, &ledger);
    drop(peer);
    assert!(
        matches!(next(&port).event, Event::Readable { result: Ok(()), .. }),
        "the end of the stream is an event too"
    );
}

#[test]
fn a_zero_byte_receive_gives_its_buffer_back() {
    let (ledger, port, stream, mut peer) = one_stream();
    let outcome = stream.recv(Buffer::with_capacity(0), ledger.token(1)).unwrap();
    pending(outcome);
    peer.write_all(b"x").unwrap();
    match next(&port).event {
        // The documents say that it does as `readable` does; either packet is one.
        Event::Readable { result, .. } => result.unwrap(),
        Event::Received { result, .. } => assert_eq!(result.unwrap(), 0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_end_of_a_stream_is_a_success_with_no_bytes_each_time() {
    let (ledger, port, stream, peer) = one_stream();
    peer.shutdown(Shutdown::Write).unwrap();
    for n in 0..5 {
        pending(stream.recv(vec![0; 8], ledger.token(n)).unwrap());
        let received = next_received(&port);
        assert_eq!((received.number, received.result.unwrap(), received.buffer.len()), (n, 0, 0));
    }
}

#[test]
fn the_end_of_a_stream_ends_every_receive_that_is_outstanding() {
    let (ledger, port, stream, peer) = one_stream();
    for n in 0..5 {
        pending(stream.recv(vec![0; 8], ledger.token(n)).unwrap());
    }
    quiet(&port, &ledger);
    drop(peer);
    for n in 0..5 {
        let received = next_received(&port);
        assert_eq!((received.number, received.result.unwrap()), (n, 0));
    }
    quiet(&port, &ledger);
}

#[cfg(unix)]
#[test]
fn data_and_the_end_in_one_segment_are_both_received() {
    // One event for both: whoever stops after the short read waits for an event that never comes.
    for round in 0..100 {
        let (ledger, port, stream, peer) = one_stream();
        if round % 2 == 0 {
            pending(stream.recv(vec![0; 100], ledger.token(0)).unwrap());
            quiet_unless_even_slower(&port);
        }
        sockopt::set_tcp_cork(&peer, true).unwrap();
        (&peer).write_all(b"last words").unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        if round % 2 == 1 {
            pending(stream.recv(vec![0; 100], ledger.token(0)).unwrap());
        }
        let received = next_received(&port);
        assert_eq!(&received.buffer[..], b"last words");
        pending(stream.recv(vec![0; 100], ledger.token(1)).unwrap());
        assert_eq!(next_received(&port).result.unwrap(), 0);
        // The other direction lives on.
        pending(stream.send("answer", ledger.token(2)).unwrap());
        assert_eq!(next_sent(&port).2.unwrap(), 6);
        drop(received);
        stream.close();
        let mut answer = String::new();
        (&peer).read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "answer");
    }
}

/// Lets the port look at its sockets once.
fn quiet_unless_even_slower(port: &Port) {
    assert!(port.get_timeout(Duration::ZERO).is_err());
}

#[test]
fn data_before_a_close_is_received_before_the_end() {
    let (ledger, port, stream, mut peer) = one_stream();
    let sent = pattern(100_000, 3);
    let copy = sent.clone();
    let writer = thread::spawn(move || {
        peer.write_all(&copy).unwrap();
        drop(peer);
    });
    assert!(receive_all(&port, &ledger, &stream, 4096, usize::MAX) == sent);
    writer.join().unwrap();
}

#[test]
fn without_a_receive_outstanding_nothing_is_reported() {
    let (ledger, port, _stream, mut peer) = one_stream();
    peer.write_all(b"data").unwrap();
    quiet(&port, &ledger);
    drop(peer);
    quiet(&port, &ledger);
}

#[test]
fn a_reset_ends_every_outstanding_receive_and_fails_every_later_one_at_once() {
    let (ledger, port, stream, peer) = one_stream();
    for n in 0..4 {
        pending(stream.recv(vec![0; 8], ledger.token(n)).unwrap());
    }
    quiet(&port, &ledger);
    reset(peer);
    for n in 0..4 {
        let packet = next(&port);
        assert_eq!(packet.nt_status(), NtStatus::CONNECTION_RESET);
        assert_eq!(winsock(packet.nt_status()), 10054);
        let received = received(packet);
        assert_eq!((received.number, errno(&received.result)), (n, ECONNRESET));
        let error = received.result.unwrap_err();
        assert!(error.is_reset());
        assert_eq!(error.win32(Class::Stream), 64);
        assert_eq!(received.buffer.len(), 8, "the buffer comes back as it was");
    }
    for n in 4..8 {
        let refused = stream.recv(vec![0; 8], ledger.token(n)).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(ECONNRESET));
        assert_eq!(refused.error.winsock(), 10054);
        assert_eq!((refused.context.number, refused.buffer.capacity()), (n, 8));
    }
    // A send fails at once too (row S-09).
    let refused = stream.send("x", ledger.token(9)).unwrap_err();
    assert_eq!(refused.error.winsock(), 10054);
    quiet(&port, &ledger);
}

/// Calls `issue` in a thread that computes afterwards, and then `meanwhile`, while others keep the processors busy:
/// whoever issued is in no call, and perhaps not even running, when its operation ends.
fn issued_by_a_busy_thread(issue: impl FnOnce() + Send, meanwhile: impl FnOnce()) {
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }
    let (issued, over) = (AtomicBool::new(false), AtomicBool::new(false));
    let compute = || {
        while !over.load(SeqCst) {
            std::hint::spin_loop();
        }
    };
    thread::scope(|scope| {
        // A failure ends them, too.
        let _over = Over(&over);
        for _ in 0..4 {
            scope.spawn(compute);
        }
        scope.spawn(|| {
            issue();
            issued.store(true, SeqCst);
            compute();
        });
        eventually("it is issued", || issued.load(SeqCst));
        meanwhile();
    });
}

#[test]
fn a_receive_that_is_closed_while_its_bytes_come_is_reported_whatever_is_opened_at_once() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    for n in 0..20 {
        let (stream, mut peer) = connection(&port, 7);
        let issue = || _ = pending(stream.recv(vec![0; 8], ledger.token(n)).unwrap());
        issued_by_a_busy_thread(issue, || {
            peer.write_all(b"x").unwrap();
            stream.close();
            // One of them has the closed one's number, perhaps.
            let _others: Vec<_> = (0..4).map(|_| std::net::UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            let received = next_received(&port);
            assert_eq!(received.number, n);
            let known = matches!(received.result, Ok(1)) || errno(&received.result) == ECANCELED;
            assert!(known, "{:?}", received.result);
        });
    }
    quiet(&port, &ledger);
}

#[test]
fn a_receive_that_is_issued_while_a_reset_ends_another_ends_with_it() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    for _ in 0..20 {
        let (stream, peer) = connection(&port, 7);
        let issue = || _ = pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
        issued_by_a_busy_thread(issue, || {
            reset(peer);
            let second = stream.recv(vec![0; 8], ledger.token(2));
            for _ in 0..1 + usize::from(second.is_ok()) {
                let received = next_received(&port);
                // Wine takes the reset for the end of the stream, sometimes.
                let known = cfg!(windows) && matches!(received.result, Ok(0)) || errno(&received.result) == ECONNRESET;
                assert!(known, "{:?}", received.result);
            }
        });
    }
    quiet(&port, &ledger);
}

#[test]
fn a_reset_before_the_receive_is_reported_and_stays() {
    let (ledger, port, stream, peer) = one_stream();
    reset(peer);
    quiet(&port, &ledger);
    // Row R-13: the first may fail at once or by its packet, the later ones fail at once.
    match stream.recv(vec![0; 8], ledger.token(0)) {
        Ok(outcome) => {
            pending(outcome);
            assert_eq!(errno(&next_received(&port).result), ECONNRESET);
        }
        Err(refused) => assert_eq!(refused.error.raw_os_error(), Some(ECONNRESET)),
    }
    for n in 1..4 {
        let refused = stream.recv(vec![0; 8], ledger.token(n)).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(ECONNRESET));
        let refused = stream.readable(ledger.token(n)).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(ECONNRESET));
    }
    quiet(&port, &ledger);
}

#[test]
fn a_reset_ends_a_zero_byte_receive() {
    let (ledger, port, stream, peer) = one_stream();
    pending(stream.readable(ledger.token(1)).unwrap());
    reset(peer);
    match next(&port).event {
        // Readiness may be all it tells (there is something to be had); then the receive has the error.
        Event::Readable { result: Ok(()), .. } => match stream.recv(vec![0; 8], ledger.token(2)) {
            Ok(_) => assert_eq!(errno(&next_received(&port).result), ECONNRESET),
            Err(refused) => assert_eq!(refused.error.raw_os_error(), Some(ECONNRESET)),
        },
        Event::Readable { result, .. } => assert_eq!(errno(&result), ECONNRESET),
        other => panic!("{other:?}"),
    }
}

#[test]
fn after_its_own_shutdown_a_pending_receive_goes_on_and_a_new_one_fails() {
    let (ledger, port, stream, mut peer) = one_stream();
    pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
    stream.shutdown(Shutdown::Read).unwrap();
    let refused = stream.recv(vec![0; 8], ledger.token(2)).unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(ESHUTDOWN));
    assert_eq!(refused.error.winsock(), 10058);
    quiet(&port, &ledger);
    peer.write_all(b"late").unwrap();
    assert_eq!(&next_received(&port).buffer[..], b"late");
    // Sending is another direction.
    pending(stream.send("x", ledger.token(3)).unwrap());
    assert_eq!(next_sent(&port).2.unwrap(), 1);
}

#[test]
fn urgent_data_neither_mixes_into_the_stream_nor_stops_it() {
    let (ledger, port, stream, mut peer) = one_stream();
    let urgent = |peer: &StdStream, byte: &[u8]| rustix::net::send(peer, byte, SendFlags::OOB).unwrap();
    // A read stops at the urgent mark although more is there.
    peer.write_all(b"ab").unwrap();
    urgent(&peer, b"!");
    peer.write_all(b"cd").unwrap();
    assert_eq!(receive_all(&port, &ledger, &stream, 100, 4), b"abcd");
    pending(stream.recv(vec![0; 100], ledger.token(1)).unwrap());
    quiet(&port, &ledger);
    urgent(&peer, b"?");
    quiet(&port, &ledger);
    peer.write_all(b"ef").unwrap();
    assert_eq!(&next_received(&port).buffer[..], b"ef");
    for round in 0..50u8 {
        pending(stream.recv(vec![0; 100], ledger.token(2)).unwrap());
        peer.write_all(&[round, 1]).unwrap();
        urgent(&peer, b"!");
        peer.write_all(&[round, 2]).unwrap();
        let mut came = next_received(&port).buffer.to_vec();
        came.extend(receive_all(&port, &ledger, &stream, 100, 4 - came.len()));
        assert_eq!(came, [round, 1, round, 2]);
    }
    drop(peer);
    pending(stream.recv(vec![0; 100], ledger.token(3)).unwrap());
    assert_eq!(next_received(&port).result.unwrap(), 0);
}

#[test]
fn much_data_without_a_line_end_goes_through() {
    const TOTAL: usize = 64 * 1024 * 1024;
    let (ledger, port, stream, mut peer) = one_stream();
    let writer = thread::spawn(move || {
        let block = vec![b'x'; 256 * 1024];
        for _ in 0..TOTAL / block.len() {
            peer.write_all(&block).unwrap();
        }
    });
    let mut total = 0;
    let mut buffer = Buffer::with_capacity(128 * 1024);
    loop {
        pending(stream.recv(buffer, ledger.token(0)).unwrap());
        let received = next_received(&port);
        match received.result.unwrap() {
            0 => break,
            bytes => total += bytes,
        }
        assert!(received.buffer.first() == Some(&b'x') && received.buffer.last() == Some(&b'x'));
        buffer = received.buffer;
    }
    assert_eq!(total, TOTAL);
    writer.join().unwrap();
}

#[test]
fn a_receive_into_memory_that_is_shared_is_refused_and_everything_comes_back() {
    let (ledger, port, stream, _peer) = one_stream();
    let shared: Arc<[u8]> = Arc::from(&b"shared"[..]);
    let refused = stream.recv(shared, ledger.token(1)).unwrap_err();
    assert_eq!(refused.error.kind(), io::ErrorKind::InvalidInput);
    assert_eq!((refused.context.number, &refused.buffer[..]), (1, &b"shared"[..]));
    assert!(stream.recv("static", ledger.token(2)).is_err());
    quiet(&port, &ledger);
}

#[test]
fn a_socket_time_out_does_not_end_an_operation() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (server, mut peer) = pair();
    server.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
    let stream = port.associate(server, 0).unwrap();
    pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
    assert!(port.get_timeout(Duration::from_millis(60)).is_err());
    peer.write_all(b"x").unwrap();
    assert_eq!(next_received(&port).result.unwrap(), 1);
}

// --- Pooled receives ---

#[test]
fn a_pooled_receive_brings_a_buffer_with_what_is_there() {
    let ledger = Ledger::new();
    let port: Port = Port::options().pool(1000, 4).build().unwrap();
    let (stream, mut peer) = connection(&port, 0);
    for n in 0..3 {
        pending(stream.recv_pooled(ledger.token(n)).unwrap());
    }
    quiet(&port, &ledger);
    let sent = pattern(2500, 4);
    peer.write_all(&sent).unwrap();
    let mut came = Vec::new();
    let mut buffers = Vec::new();
    for n in 0..3 {
        let received = next_received(&port);
        assert_eq!(received.number, n);
        assert_eq!(received.result.unwrap(), received.buffer.len());
        came.extend_from_slice(&received.buffer);
        buffers.push(received.buffer);
    }
    assert_eq!(came, sent);
    assert_eq!(buffers.iter().map(|buffer| buffer.len()).collect::<Vec<_>>(), [1000, 1000, 500]);
    // The buffer may be sent on, and received into again.
    let first = buffers.swap_remove(0);
    pending(stream.send(first, ledger.token(9)).unwrap());
    let (_, buffer, result) = next_sent(&port);
    assert_eq!(result.unwrap(), 1000);
    let mut echo = vec![0; 1000];
    peer.read_exact(&mut echo).unwrap();
    assert_eq!(echo, sent[..1000]);
    pending(stream.recv(buffer, ledger.token(10)).unwrap());
    peer.write_all(b"again").unwrap();
    assert_eq!(&next_received(&port).buffer[..], b"again");
    // Buffers outlive the port.
    drop((stream, port));
    assert_eq!(buffers[0].len() + buffers[1].len(), 1500);
}

#[test]
fn a_pooled_receive_that_is_cancelled_or_reset_brings_an_empty_buffer() {
    let (ledger, port, stream, peer) = one_stream();
    let id = pending(stream.recv_pooled(ledger.token(1)).unwrap());
    assert_eq!(stream.cancel(id), Cancel::Requested);
    let received = next_received(&port);
    assert_eq!((errno(&received.result), received.buffer.len()), (ECANCELED, 0));
    pending(stream.recv_pooled(ledger.token(2)).unwrap());
    reset(peer);
    let received = next_received(&port);
    assert_eq!((errno(&received.result), received.buffer.len()), (ECONNRESET, 0));
}

#[test]
fn pooled_and_plain_receives_may_be_mixed() {
    let (ledger, port, stream, mut peer) = one_stream();
    for n in 0..20 {
        let outcome = if n % 3 == 0 {
            stream.recv_pooled(ledger.token(n)).unwrap()
        } else if n % 3 == 1 {
            stream.recv(Vec::with_capacity(1), ledger.token(n)).unwrap()
        } else {
            stream.readable(ledger.token(n)).unwrap()
        };
        pending(outcome);
    }
    let mut came = Vec::new();
    for n in 0..20u8 {
        if came.len() < usize::from(n) + 1 {
            peer.write_all(&[n]).unwrap();
        }
        let packet = next(&port);
        assert_eq!(packet.context.number, u64::from(n));
        if let Event::Received { buffer, result, .. } = packet.event {
            assert_eq!(result.unwrap(), buffer.len());
            came.extend_from_slice(&buffer);
        }
    }
    assert!(came.iter().enumerate().all(|(at, byte)| at == usize::from(*byte)), "{came:?}");
}

// --- Sending ---

#[test]
fn a_send_completes_when_all_bytes_were_taken_and_not_before() {
    const TOTAL: usize = 8 * 1024 * 1024;
    let (ledger, port, stream, mut peer) = narrow_stream();
    let content: Arc<[u8]> = pattern(TOTAL, 5).into();
    pending(stream.send(content.clone(), ledger.token(1)).unwrap());
    quiet(&port, &ledger);
    let read = Arc::new(AtomicUsize::new(0));
    let counter = read.clone();
    let expected = content.clone();
    let reader = thread::spawn(move || {
        let mut all = Vec::with_capacity(TOTAL);
        let mut buffer = vec![0; 64 * 1024];
        while all.len() < TOTAL {
            let bytes = peer.read(&mut buffer).unwrap();
            assert_ne!(bytes, 0, "the stream ended early");
            all.extend_from_slice(&buffer[..bytes]);
            counter.store(all.len(), SeqCst);
        }
        assert!(all[..] == expected[..], "the stream came out changed");
        peer
    });
    let (number, buffer, result) = next_sent(&port);
    let read_by_then = read.load(SeqCst);
    assert_eq!((number, result.unwrap(), buffer.len()), (1, TOTAL, TOTAL));
    assert!(read_by_then > TOTAL / 2, "only {read_by_then} bytes were read when the send was called complete");
    quiet(&port, &ledger);
    let _peer = reader.join().unwrap();
    drop(buffer);
    assert_eq!(Arc::strong_count(&content), 1, "the port keeps a buffer");
}

#[test]
fn a_send_that_fits_goes_out_although_nobody_takes_packets() {
    // On Windows the system sends, whoever waits for packets or not.
    let (ledger, port, stream, mut peer) = one_stream();
    pending(stream.send("first", ledger.token(1)).unwrap());
    peer.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut text = [0; 5];
    peer.read_exact(&mut text).expect("the first send of a stream waits for a thread that calls get");
    pending(stream.send("other", ledger.token(2)).unwrap());
    peer.read_exact(&mut text).unwrap();
    drop(port);
}

#[test]
fn sends_of_one_thread_arrive_in_their_order_and_each_completes_once() {
    let (ledger, port, stream, mut peer) = narrow_stream();
    let mut random = fastrand::Rng::with_seed(6);
    let mut expected = Vec::new();
    for n in 0..200u64 {
        let content = pattern(random.usize(0..4000), n);
        expected.extend_from_slice(&content);
        pending(stream.send(content, ledger.token(n)).unwrap());
    }
    let total = expected.len();
    let reader = thread::spawn(move || {
        let mut all = vec![0; total];
        peer.read_exact(&mut all).unwrap();
        (peer, all)
    });
    for expected in 0..200 {
        let (number, buffer, result) = next_sent(&port);
        assert_eq!(number, expected);
        assert_eq!(result.unwrap(), buffer.len());
    }
    let (_peer, all) = reader.join().unwrap();
    assert!(all == expected);
}

#[test]
fn sends_of_several_threads_are_not_interleaved() {
    const THREADS: u8 = 3;
    const EACH: usize = 40;
    let (ledger, port, stream, mut peer) = narrow_stream();
    let done = Arc::new(AtomicUsize::new(0));
    let count = done.clone();
    let _crew = Crew::start(&port, 3, move |_, packet| match packet.event {
        Event::Sent { buffer, result, .. } => {
            assert_eq!(result.unwrap(), buffer.len());
            count.fetch_add(1, SeqCst);
        }
        Event::SentVectored { result, .. } => {
            result.unwrap();
            count.fetch_add(1, SeqCst);
        }
        other => panic!("{other:?}"),
    });
    // Each message: its thread, its number, its length, and so many copies of (thread ^ number).
    let message = |thread: u8, n: usize| {
        let length = (n * 9973 + usize::from(thread) * 77) % 50_000 + 1;
        let mut bytes = vec![thread, n as u8];
        bytes.extend_from_slice(&(length as u32).to_be_bytes());
        bytes.resize(6 + length, thread ^ n as u8);
        bytes
    };
    let stream = &stream;
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let mint = ledger.mint();
            scope.spawn(move || {
                for n in 0..EACH {
                    let bytes = message(thread, n);
                    if n % 2 == 0 {
                        pending(stream.send(bytes, mint.token(0)).unwrap());
                    } else {
                        let pieces = bytes.chunks(1000).map(|piece| Buffer::from(piece.to_vec())).collect();
                        pending(stream.send_vectored(pieces, mint.token(0)).unwrap());
                    }
                }
            });
        }
        let mut seen = [0; THREADS as usize];
        for _ in 0..usize::from(THREADS) * EACH {
            let mut head = [0; 6];
            peer.read_exact(&mut head).unwrap();
            let [thread, n, length @ ..] = head;
            let mut body = vec![0; u32::from_be_bytes(length) as usize];
            assert!(thread < THREADS && body.len() <= 50_000, "not the head of a message: {head:?}");
            peer.read_exact(&mut body).unwrap();
            assert!(body.iter().all(|&byte| byte == thread ^ n), "another send's bytes lie within message {head:?}");
            assert_eq!(usize::from(n), seen[usize::from(thread)], "a thread's sends arrive in their order");
            seen[usize::from(thread)] += 1;
        }
    });
    eventually("every send completes", || done.load(SeqCst) == usize::from(THREADS) * EACH);
}

#[test]
fn a_vectored_send_is_one_run_of_bytes_however_many_pieces_it_has() {
    let (ledger, port, stream, mut peer) = narrow_stream();
    for (n, pieces) in [1usize, 2, 63, 64, 65, 200, 3000].into_iter().enumerate() {
        let contents: Vec<Vec<u8>> = (0..pieces).map(|at| pattern(at * 31 % 500, at as u64)).collect();
        let expected = contents.concat();
        let buffers: Vec<Buffer> = contents.into_iter().map(Buffer::from).collect();
        pending(stream.send_vectored(buffers, ledger.token(n as u64)).unwrap());
        let total = expected.len();
        let mut reading = peer.try_clone().unwrap();
        let reader = thread::spawn(move || {
            let mut all = vec![0; total];
            reading.read_exact(&mut all).unwrap();
            all
        });
        let packet = next(&port);
        assert_eq!(packet.context.number, n as u64);
        match packet.event {
            Event::SentVectored { buffers, result, .. } => {
                assert_eq!(result.unwrap(), total);
                assert_eq!(buffers.len(), pieces, "the buffers come back");
            }
            other => panic!("{other:?}"),
        }
        assert!(reader.join().unwrap() == expected, "{pieces} pieces came out changed");
    }
    quiet(&port, &ledger);
    drop(stream);
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn an_empty_send_succeeds_and_sends_nothing() {
    let (ledger, port, stream, mut peer) = one_stream();
    pending(stream.send("", ledger.token(1)).unwrap());
    let (number, buffer, result) = next_sent(&port);
    assert_eq!((number, buffer.len(), result.unwrap()), (1, 0, 0));
    pending(stream.send_vectored(Vec::new(), ledger.token(2)).unwrap());
    assert!(matches!(next(&port).event, Event::SentVectored { result: Ok(0), .. }));
    pending(stream.send_vectored(vec!["".into(), "".into()], ledger.token(3)).unwrap());
    assert!(matches!(next(&port).event, Event::SentVectored { result: Ok(0), .. }));
    quiet(&port, &ledger);
    pending(stream.send("x", ledger.token(4)).unwrap());
    assert_eq!(next_sent(&port).2.unwrap(), 1);
    let mut byte = [0; 2];
    assert_eq!(peer.read(&mut byte).unwrap(), 1);
}

#[test]
fn empty_sends_among_others_keep_their_place() {
    let (ledger, port, stream, mut peer) = narrow_stream();
    // The first fills the way, so that the others queue up and are gathered.
    pending(stream.send(vec![1; 1024 * 1024], ledger.token(0)).unwrap());
    for n in 1..100 {
        let content = if n % 3 == 0 { Vec::new() } else { vec![n as u8; 10] };
        pending(stream.send(content, ledger.token(n)).unwrap());
    }
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    for n in 0..100 {
        let (number, buffer, result) = next_sent(&port);
        assert_eq!((number, result.unwrap()), (n, buffer.len()));
    }
    drop(stream);
    let all = reader.join().unwrap();
    assert_eq!(all.len(), 1024 * 1024 + 66 * 10);
}

#[test]
fn sends_go_on_after_the_peer_has_ended_its_side() {
    let (ledger, port, stream, mut peer) = one_stream();
    peer.shutdown(Shutdown::Write).unwrap();
    pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
    assert_eq!(next_received(&port).result.unwrap(), 0);
    for n in 0..5u64 {
        pending(stream.send("still here", ledger.token(n)).unwrap());
        assert_eq!(next_sent(&port).2.unwrap(), 10);
        let mut text = [0; 10];
        peer.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"still here");
    }
}

#[test]
fn a_reset_ends_a_send_that_is_outstanding_and_those_behind_it() {
    let (ledger, port, stream, peer) = narrow_stream();
    for n in 0..5 {
        pending(stream.send(vec![0; 4 * 1024 * 1024], ledger.token(n)).unwrap());
    }
    quiet(&port, &ledger);
    reset(peer);
    for n in 0..5 {
        let packet = next(&port);
        assert_eq!(packet.context.number, n);
        assert_eq!(packet.nt_status(), NtStatus::CONNECTION_RESET);
        match packet.event {
            Event::Sent { buffer, result, .. } => {
                assert_eq!((buffer.len(), errno(&result)), (4 * 1024 * 1024, ECONNRESET));
            }
            other => panic!("{other:?}"),
        }
    }
    let refused = stream.send("x", ledger.token(9)).unwrap_err();
    assert_eq!((refused.error.winsock(), refused.context.number, &refused.buffer[..]), (10054, 9, &b"x"[..]));
    let refused = stream.send_vectored(vec!["x".into()], ledger.token(9)).unwrap_err();
    assert_eq!((refused.error.winsock(), refused.buffer.len()), (10054, 1));
    quiet(&port, &ledger);
}

#[test]
fn a_reset_that_a_send_has_seen_is_not_taken_for_the_end_of_the_stream() {
    // Linux tells the reset once: to whom of the two directions is chance.
    for _ in 0..20 {
        let (ledger, port, stream, peer) = one_stream();
        reset(peer);
        quiet_unless_even_slower(&port);
        let mut failed = false;
        for n in 0..3 {
            match stream.send("x", ledger.token(n)) {
                Ok(outcome) => {
                    pending(outcome);
                    failed |= next_sent(&port).2.is_err();
                }
                Err(refused) => failed |= refused.error.winsock() == 10054,
            }
        }
        assert!(failed);
        match stream.recv(vec![0; 8], ledger.token(9)) {
            Ok(outcome) => {
                pending(outcome);
                assert_eq!(errno(&next_received(&port).result), ECONNRESET);
            }
            Err(refused) => assert_eq!(refused.error.raw_os_error(), Some(ECONNRESET)),
        }
    }
}

#[test]
fn after_its_own_shutdown_a_send_fails_at_once() {
    for how in [Shutdown::Write, Shutdown::Both] {
        let (ledger, port, stream, mut peer) = one_stream();
        stream.shutdown(how).unwrap();
        stream.shutdown(how).unwrap();
        let refused = stream.send("x", ledger.token(1)).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(ESHUTDOWN));
        assert_eq!(refused.error.winsock(), 10058);
        let refused = stream.send_vectored(vec!["x".into()], ledger.token(1)).unwrap_err();
        assert_eq!(refused.error.winsock(), 10058);
        quiet(&port, &ledger);
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the peer sees the end");
    }
}

#[test]
fn a_shutdown_waits_for_the_sends_before_it_and_queues_no_packet() {
    let (ledger, port, stream, mut peer) = narrow_stream();
    pending(stream.send(vec![5; 3 * 1024 * 1024], ledger.token(1)).unwrap());
    stream.shutdown(Shutdown::Write).unwrap();
    assert!(stream.send("late", ledger.token(2)).is_err());
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all.len()
    });
    let (number, _, result) = next_sent(&port);
    assert_eq!((number, result.unwrap()), (1, 3 * 1024 * 1024));
    quiet(&port, &ledger);
    assert_eq!(reader.join().unwrap(), 3 * 1024 * 1024);
}

#[cfg(unix)]
#[test]
#[allow(unsafe_code)]
fn a_send_into_a_broken_connection_raises_no_signal() {
    in_child("a_send_into_a_broken_connection_raises_no_signal", || {
        // Rust programs ignore SIGPIPE from their start; the library must not rely on it.
        // SAFETY: the default action is set in a process that does nothing else at the moment.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        for vectored in [false, true] {
            let (ledger, port, stream, peer) = one_stream();
            // The port must not hear of the reset first, or it would not try: so nobody polls here.
            reset(peer);
            let mut tried = 0;
            for n in 0..10 {
                let refused = if vectored {
                    stream.send_vectored(vec!["x".into(), "y".into()], ledger.token(n)).is_err()
                } else {
                    stream.send("x", ledger.token(n)).is_err()
                };
                tried += u32::from(!refused);
            }
            assert!(tried > 0);
            for _ in 0..tried {
                assert!(next(&port).error().is_some());
            }
        }
        for shut in [Shutdown::Read, Shutdown::Both] {
            let (ledger, port, stream, peer) = narrow_stream();
            pending(stream.send(vec![0; 4 * 1024 * 1024], ledger.token(0)).unwrap());
            let _ = peer.shutdown(shut);
            drop(peer);
            assert!(next_sent(&port).2.is_err());
        }
    });
}

// --- Skipping packets ---

#[test]
fn with_skip_on_success_an_operation_is_either_done_or_queued_never_both() {
    let (ledger, port, stream, mut peer) = one_stream();
    stream.skip_on_success();
    let mut done = 0;
    for n in 0..20 {
        match stream.send("hello", ledger.token(n)).unwrap() {
            Outcome::Done(packet) => {
                packet.context.arrive();
                assert_eq!((packet.key, packet.context.number), (7, n));
                assert!(matches!(packet.event, Event::Sent { result: Ok(5), .. }));
                done += 1;
            }
            Outcome::Pending(_) => assert_eq!(next_sent(&port).0, n),
        }
    }
    assert!(done > 0, "nothing is ever done at once");
    quiet(&port, &ledger);
    let mut all = [0; 100];
    peer.read_exact(&mut all).unwrap();

    // A receive that has to wait is queued.
    pending(stream.recv(vec![0; 8], ledger.token(100)).unwrap());
    peer.write_all(b"12").unwrap();
    assert_eq!(next_received(&port).result.unwrap(), 2);
    // With data there it may be either; the data comes once.
    peer.write_all(b"abcdefgh").unwrap();
    let mut came = Vec::new();
    let mut at_once = 0;
    while came.len() < 8 {
        match stream.recv(Vec::with_capacity(1), ledger.token(101)).unwrap() {
            Outcome::Done(packet) => {
                packet.context.arrive();
                at_once += 1;
                came.extend_from_slice(&received(packet).buffer);
            }
            Outcome::Pending(_) => came.extend_from_slice(&next_received(&port).buffer),
        }
    }
    assert_eq!(came, b"abcdefgh");
    assert!(at_once > 0, "a receive with data waiting is never done at once");
    quiet(&port, &ledger);
    drop(peer);
    let ended = match stream.recv(vec![0; 8], ledger.token(102)).unwrap() {
        Outcome::Done(packet) => received(packet),
        Outcome::Pending(_) => next_received(&port),
    };
    assert_eq!(ended.result.unwrap(), 0);
}

#[test]
fn with_skip_on_success_sends_of_several_threads_go_out_whole_and_end_once() {
    const SENDERS: u64 = 3;
    const EACH: u64 = 150;
    const BYTES: usize = 3000;
    let (ledger, port, stream, mut peer) = narrow_stream();
    stream.skip_on_success();
    let done = AtomicU64::new(0);
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (stream, ledger, done) = (&stream, &ledger, &done);
            scope.spawn(move || {
                for n in 0..EACH {
                    // The system's buffers fill, so some go on behind others.
                    let message = vec![(sender * 64 + n % 64) as u8; BYTES];
                    if let Outcome::Done(packet) = stream.send(message, ledger.token(n)).unwrap() {
                        assert_eq!(packet.context.number, n);
                        assert!(matches!(packet.event, Event::Sent { buffer, result: Ok(BYTES), .. } if buffer.len() == BYTES));
                        packet.context.arrive();
                        done.fetch_add(1, SeqCst);
                    }
                }
            });
        }
        scope.spawn(|| {
            let mut next = [0; SENDERS as usize];
            let mut message = vec![0; BYTES];
            for _ in 0..SENDERS * EACH {
                peer.read_exact(&mut message).unwrap();
                let (sender, number) = (usize::from(message[0] / 64), u64::from(message[0] % 64));
                assert!(message.iter().all(|&byte| byte == message[0]), "two messages are mixed");
                assert_eq!(number, next[sender] % 64, "sender {sender} is out of order");
                next[sender] += 1;
            }
        });
        let mut queued = 0;
        while done.load(SeqCst) + queued < SENDERS * EACH {
            if let Ok(packet) = port.get_timeout(Duration::from_millis(5)) {
                packet.context.arrive();
                assert!(matches!(packet.event, Event::Sent { result: Ok(BYTES), .. }), "{packet:?}");
                queued += 1;
            }
        }
    });
    quiet(&port, &ledger);
    let at_once = done.load(SeqCst);
    assert!(at_once > 0, "nothing is ever done at once");
    if cfg!(unix) {
        assert!(at_once < SENDERS * EACH, "all were done at once: the others are not tested");
    }
}

#[test]
fn with_skip_on_success_a_failure_still_comes_as_a_packet_or_a_refusal() {
    let (ledger, port, stream, peer) = narrow_stream();
    stream.skip_on_success();
    let id = match stream.send(vec![0; 8 * 1024 * 1024], ledger.token(1)).unwrap() {
        Outcome::Pending(id) => id,
        Outcome::Done(_) => panic!("8 MiB do not fit"),
    };
    assert_eq!(stream.cancel(id), Cancel::Requested);
    assert_eq!(errno(&next_sent(&port).2), ECANCELED);
    pending(stream.recv(vec![0; 8], ledger.token(2)).unwrap());
    reset(peer);
    assert_eq!(errno(&next_received(&port).result), ECONNRESET);
    assert!(stream.recv(vec![0; 8], ledger.token(3)).is_err());
}

// --- Cancelling ---

#[test]
fn a_cancelled_receive_ends_alone() {
    let (ledger, port, stream, mut peer) = one_stream();
    let ids: Vec<_> = (0..4).map(|n| pending(stream.recv(Vec::with_capacity(4), ledger.token(n)).unwrap())).collect();
    assert_eq!(stream.cancel(ids[1]), Cancel::Requested);
    let packet = next(&port);
    assert_eq!((packet.key, packet.context.number), (7, 1));
    assert_eq!(packet.nt_status(), NtStatus::CANCELLED);
    let cancelled = received(packet);
    assert_eq!(errno(&cancelled.result), ECANCELED);
    let error = cancelled.result.unwrap_err();
    assert!(error.is_aborted());
    assert_eq!(error.win32(Class::Stream), 995);
    assert_eq!(cancelled.buffer.capacity(), 4);
    quiet(&port, &ledger);
    assert_eq!(port.cancel(ids[1]), Cancel::TooLate, "it is over");
    peer.write_all(b"aaaabbbb").unwrap();
    for (n, expected) in [(0, b"aaaa"), (2, b"bbbb")] {
        let received = next_received(&port);
        assert_eq!((received.number, &received.buffer[..]), (n, &expected[..]));
    }
    assert_eq!(port.cancel(ids[3]), Cancel::Requested, "the port may be asked as well");
    assert_eq!(errno(&next_received(&port).result), ECANCELED);
    // The socket is as good as before (row K-08).
    assert!(ids.iter().all(|&id| stream.cancel(id) == Cancel::TooLate));
    peer.write_all(b"more").unwrap();
    assert_eq!(receive_all(&port, &ledger, &stream, 16, 4), b"more");
}

#[test]
fn a_cancel_that_comes_after_the_completion_changes_nothing() {
    let (ledger, port, stream, mut peer) = one_stream();
    pending(stream.send("x", ledger.token(0)).unwrap());
    assert_eq!(next_sent(&port).2.unwrap(), 1);
    let send = pending(stream.send("x", ledger.token(1)).unwrap());
    // Its packet is queued and was not taken: the operation is over all the same (row K-05).
    assert_eq!(stream.cancel(send), Cancel::TooLate);
    assert_eq!(next_sent(&port).2.unwrap(), 1);
    let receive = pending(stream.recv(vec![0; 8], ledger.token(2)).unwrap());
    peer.write_all(b"x").unwrap();
    assert_eq!(next_received(&port).result.unwrap(), 1);
    assert_eq!(stream.cancel(receive), Cancel::TooLate);
    assert_eq!(stream.cancel_all(), 0);
    quiet(&port, &ledger);
}

#[test]
fn cancelling_all_ends_both_directions() {
    let (ledger, port, stream, mut peer) = narrow_stream();
    for n in 0..3 {
        pending(stream.recv(vec![0; 8], ledger.token(n)).unwrap());
    }
    for n in 3..6 {
        pending(stream.send(vec![0; 4 * 1024 * 1024], ledger.token(n)).unwrap());
    }
    quiet(&port, &ledger);
    assert_eq!(stream.cancel_all(), 6);
    let mut numbers: Vec<u64> = (0..6)
        .map(|_| {
            let packet = next(&port);
            assert_eq!(packet.error().and_then(io::Error::raw_os_error), Some(ECANCELED));
            packet.context.number
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    assert_eq!(stream.cancel_all(), 0);
    quiet(&port, &ledger);
    peer.write_all(b"still open").unwrap();
    assert_eq!(receive_all(&port, &ledger, &stream, 16, 10), b"still open");
}

#[test]
fn cancelling_one_send_leaves_those_behind_it() {
    let (ledger, port, stream, mut peer) = narrow_stream();
    pending(stream.send(vec![1; 2 * 1024 * 1024], ledger.token(0)).unwrap());
    let second = pending(stream.send(vec![2; 1000], ledger.token(1)).unwrap());
    pending(stream.send(vec![3; 1000], ledger.token(2)).unwrap());
    assert_eq!(stream.cancel(second), Cancel::Requested);
    let (number, buffer, result) = next_sent(&port);
    assert_eq!((number, buffer.len(), errno(&result)), (1, 1000, ECANCELED));
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    assert_eq!(next_sent(&port).0, 0);
    assert_eq!(next_sent(&port).0, 2);
    drop(stream);
    let all = reader.join().unwrap();
    assert!(!all.contains(&2), "a send that was cancelled before it began sends nothing");
    assert_eq!(all.len(), 2 * 1024 * 1024 + 1000);
}

#[test]
fn cancelling_while_others_receive_gives_each_operation_one_packet() {
    let ledger = Ledger::new();
    let port = port(2, Wake::Eager);
    let (stream, mut peer) = connection(&port, 0);
    let (ok, cancelled) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let bytes = Arc::new(AtomicU64::new(0));
    let counters = (ok.clone(), cancelled.clone(), bytes.clone());
    let _crew = Crew::start(&port, 3, move |_, packet| match received(packet).result {
        Ok(count) => {
            counters.2.fetch_add(count as u64, SeqCst);
            counters.0.fetch_add(1, SeqCst);
        }
        Err(error) => {
            assert!(error.is_aborted(), "{error}");
            counters.1.fetch_add(1, SeqCst);
        }
    });
    const COUNT: u64 = 3000;
    let mut requested = 0;
    let mut written = 0;
    let mut random = fastrand::Rng::with_seed(8);
    for n in 0..COUNT {
        let id = pending(stream.recv(vec![0; 4], ledger.token(n)).unwrap());
        if random.bool() {
            peer.write_all(b"abc").unwrap();
            written += 3;
        }
        if random.bool() {
            requested += u64::from(stream.cancel(id) == Cancel::Requested);
        }
    }
    // Whoever is left over takes the rest, or is cancelled.
    eventually("what was written is received", || {
        if port.devices()[0].pending.0 == 0 && bytes.load(SeqCst) < written {
            pending(stream.recv(vec![0; 4], ledger.token(COUNT)).unwrap());
        }
        bytes.load(SeqCst) == written
    });
    stream.cancel_all();
    eventually("every operation has ended", || ledger.arrived() == ledger.made());
    assert_eq!(ok.load(SeqCst) + cancelled.load(SeqCst), ledger.made() as u64);
    assert!(requested > 0 && ok.load(SeqCst) > 0);
}

// --- Threads that come and go ---

#[test]
fn operations_survive_the_thread_that_issued_them() {
    let (ledger, port, stream, mut peer) = narrow_stream();
    let (issuer, mint) = (stream.clone(), ledger.mint());
    thread::spawn(move || {
        pending(issuer.recv(vec![0; 8], mint.token(1)).unwrap());
        pending(issuer.send(vec![9; 1024 * 1024], mint.token(2)).unwrap());
    })
    .join()
    .unwrap();
    quiet(&port, &ledger);
    peer.write_all(b"x").unwrap();
    assert_eq!(next_received(&port).number, 1);
    let reader = thread::spawn(move || peer.read_exact(&mut vec![0; 1024 * 1024]).map(|()| peer));
    assert_eq!(next_sent(&port).2.unwrap(), 1024 * 1024);
    let _peer = reader.join().unwrap().unwrap();
}

// --- Closing ---

#[test]
fn closing_ends_what_is_outstanding_with_one_packet_each() {
    let (ledger, port, stream, mut peer) = narrow_stream();
    for n in 0..3 {
        pending(stream.recv(vec![0; 8], ledger.token(n)).unwrap());
    }
    pending(stream.send(vec![0; 4 * 1024 * 1024], ledger.token(3)).unwrap());
    pending(stream.readable(ledger.token(4)).unwrap());
    pending(stream.recv_pooled(ledger.token(5)).unwrap());
    pending(stream.disconnect(ledger.token(6)).unwrap());
    quiet(&port, &ledger);
    assert_eq!(port.devices().len(), 1);
    stream.close();
    stream.close();
    let mut numbers: Vec<u64> = (0..7)
        .map(|_| {
            let packet = next(&port);
            assert_eq!(packet.key, 7);
            assert_eq!(packet.error().and_then(io::Error::raw_os_error), Some(ECANCELED));
            packet.context.number
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5, 6]);
    quiet(&port, &ledger);
    assert!(port.devices().is_empty());
    assert_eq!(stream.cancel_all(), 0);
    let mut rest = Vec::new();
    // What was sent before may come; then the connection is gone, by an end or a reset.
    let _ = peer.read_to_end(&mut rest);
    assert!(rest.len() < 4 * 1024 * 1024);
}

#[test]
fn a_closed_stream_takes_no_calls() {
    for disconnect_first in [false, true] {
        let (ledger, port, stream, _peer) = one_stream();
        if disconnect_first {
            pending(stream.disconnect(ledger.token(0)).unwrap());
            next(&port);
        }
        stream.close();
        let token = || ledger.token(1);
        let calls = [
            ("recv", stream.recv(vec![0; 8], token()).map(drop).map_err(|refused| refused.error)),
            ("recv_pooled", stream.recv_pooled(token()).map(drop).map_err(|refused| refused.error)),
            ("readable", stream.readable(token()).map(drop).map_err(|refused| refused.error)),
            ("send", stream.send("x", token()).map(drop).map_err(|refused| refused.error)),
            ("disconnect", stream.disconnect(token()).map(drop).map_err(|refused| refused.error)),
            ("shutdown of the receiving side", stream.shutdown(Shutdown::Read)),
            ("shutdown of the sending side", stream.shutdown(Shutdown::Write)),
            ("local_addr", stream.local_addr().map(drop)),
            ("peer_addr", stream.peer_addr().map(drop)),
            ("set_nodelay", stream.set_nodelay(true)),
        ];
        let taken: Vec<_> = calls.iter().filter(|(_, result)| result.is_ok()).map(|(name, _)| name).collect();
        assert!(taken.is_empty(), "a closed stream takes {taken:?} (after a disconnect: {disconnect_first})");
        quiet(&port, &ledger);
    }
}

#[test]
fn dropping_the_last_handle_closes_and_an_outstanding_operation_holds_one() {
    let (ledger, port, stream, mut peer) = one_stream();
    pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
    drop(stream);
    quiet(&port, &ledger);
    assert_eq!(port.devices().len(), 1, "the operation keeps the device open");
    peer.write_all(b"x").unwrap();
    let received = next_received(&port);
    assert_eq!(received.result.unwrap(), 1);
    drop(received.stream);
    assert!(port.devices().is_empty());
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
}

#[test]
fn what_was_sent_before_a_close_arrives() {
    let (ledger, port, stream, mut peer) = one_stream();
    let content = pattern(50_000, 9);
    pending(stream.send(content.clone(), ledger.token(1)).unwrap());
    assert_eq!(next_sent(&port).2.unwrap(), content.len());
    stream.close();
    let mut all = Vec::new();
    peer.read_to_end(&mut all).unwrap();
    assert!(all == content);
}

#[test]
fn closing_with_data_unread_tells_the_peer_by_a_reset() {
    let (ledger, port, stream, mut peer) = one_stream();
    peer.write_all(b"never read").unwrap();
    quiet(&port, &ledger);
    stream.close();
    assert_eq!(peer.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_stream_may_be_closed_in_any_state() {
    type Prepare = fn(&Ledger, &Port, &Stream, &StdStream);
    let states: [(&str, Prepare); 11] = [
        ("untouched", |_, _, _, _| {}),
        ("with data unread", |_, _, _, mut peer| peer.write_all(b"unread").unwrap()),
        ("with data unread and a receive not yet tried", |ledger, _, stream, mut peer| {
            peer.write_all(b"unread").unwrap();
            stream.recv(vec![0; 2], ledger.token(0)).unwrap();
        }),
        ("with data announced and not fetched", |ledger, port, stream, mut peer| {
            stream.recv(vec![0; 2], ledger.token(0)).unwrap();
            peer.write_all(b"unread").unwrap();
            let mut batch = port.get_many_timeout(1, DEADLINE).unwrap();
            batch.next().unwrap();
            stream.recv(vec![0; 2], ledger.token(1)).unwrap();
        }),
        ("at its end", |ledger, port, stream, peer| {
            peer.shutdown(Shutdown::Both).unwrap();
            stream.recv(vec![0; 2], ledger.token(0)).unwrap();
            next_received(port);
        }),
        ("half closed by itself", |_, _, stream, _| stream.shutdown(Shutdown::Write).unwrap()),
        ("reset", |ledger, port, stream, peer| {
            sockopt::set_socket_linger(peer, Some(Duration::ZERO)).unwrap();
            peer.shutdown(Shutdown::Both).unwrap();
            let _ = stream.send("x", ledger.token(0));
            let _ = stream.send("y", ledger.token(0));
            let _ = port;
        }),
        ("with a receive outstanding", |ledger, _, stream, _| {
            stream.recv(vec![0; 2], ledger.token(0)).unwrap();
        }),
        ("with a send outstanding", |ledger, _, stream, _| {
            stream.send(vec![0; 4 * 1024 * 1024], ledger.token(0)).unwrap();
        }),
        ("with a disconnect outstanding", |ledger, _, stream, _| {
            stream.send(vec![0; 4 * 1024 * 1024], ledger.token(0)).unwrap();
            stream.disconnect(ledger.token(1)).unwrap();
        }),
        ("with cancelled operations", |ledger, _, stream, _| {
            stream.recv(vec![0; 2], ledger.token(0)).unwrap();
            stream.cancel_all();
        }),
    ];
    for (state, prepare) in states {
        for by_drop in [false, true] {
            let (ledger, port, stream, peer) = narrow_stream();
            prepare(&ledger, &port, &stream, &peer);
            if by_drop {
                // Operations hold handles, so this closes only what has none.
                stream.cancel_all();
            } else {
                stream.close();
            }
            drop(stream);
            let until = Instant::now() + DEADLINE;
            while ledger.arrived() < 1 && ledger.live() > 0 || !port.devices().is_empty() {
                assert!(Instant::now() < until, "{state}: {:?} live {}", port.devices(), ledger.live());
                if let Ok(packet) = port.get_timeout(Duration::from_millis(5)) {
                    drop(packet);
                }
            }
            while let Ok(packet) = port.get_timeout(Duration::ZERO) {
                drop(packet);
            }
            assert_eq!(ledger.live(), 0, "{state}: an operation has not ended");
        }
    }
}

#[test]
fn a_handler_may_close_the_stream_whose_packet_it_handles() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let closed = Arc::new(AtomicUsize::new(0));
    let count = closed.clone();
    let _crew = Crew::start(&port, 2, move |_, packet| {
        let received = received(packet);
        received.stream.close();
        if received.result.is_ok() {
            count.fetch_add(1, SeqCst);
        }
    });
    let mut peers = Vec::new();
    for n in 0..20 {
        let (stream, mut peer) = connection(&port, n);
        for m in 0..3 {
            pending(stream.recv(vec![0; 8], ledger.token(m)).unwrap());
        }
        peer.write_all(b"x").unwrap();
        peers.push(peer);
    }
    eventually("every stream is closed", || port.devices().is_empty());
    eventually("every operation has ended", || ledger.arrived() == 60);
    assert!(closed.load(SeqCst) >= 20);
}

#[test]
fn closing_while_data_flows_both_ways_ends_everything_once() {
    for round in 0..30 {
        let ledger = Ledger::new();
        let port = port(2, Wake::Eager);
        let (stream, peer) = connection(&port, 0);
        let mint = ledger.mint();
        let errors: Arc<Mutex<Vec<String>>> = Arc::default();
        let problems = errors.clone();
        let crew = Crew::start(&port, 3, move |_, packet| match packet.event {
            Event::Received { stream, buffer, result } => match result {
                Ok(0) => {}
                Ok(_) => drop(stream.send(buffer, mint.token(0))),
                Err(error) if error.is_aborted() || error.is_reset() => {}
                Err(error) => problems.lock().unwrap().push(error.to_string()),
            },
            Event::Sent { stream, buffer, result } => match result {
                Ok(_) => drop(stream.recv(buffer, mint.token(1))),
                Err(error) if error.is_aborted() || error.is_reset() => {}
                Err(error) => problems.lock().unwrap().push(error.to_string()),
            },
            other => problems.lock().unwrap().push(format!("{other:?}")),
        });
        for n in 0..4 {
            pending(stream.recv(vec![0; 1000], ledger.token(n)).unwrap());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        let mut writing = peer.try_clone().unwrap();
        let mut reading = peer;
        let writer = thread::spawn(move || while writing.write_all(&[7; 500]).is_ok() {});
        let reader = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(1..) = reading.read(&mut buffer) {
                flag.store(true, SeqCst);
            }
        });
        eventually("data flows", || stop.load(SeqCst));
        burn(Duration::from_micros(round * 37));
        stream.close();
        writer.join().unwrap();
        reader.join().unwrap();
        drop(stream);
        eventually("every context is freed", || ledger.live() == 0);
        drop(crew);
        assert_eq!(*errors.lock().unwrap(), [""; 0]);
    }
}

// --- Leaving the port, and coming to it ---

#[test]
fn a_released_stream_is_a_blocking_std_socket_again() {
    let (ledger, port, stream, mut peer) = one_stream();
    pending(stream.send("before", ledger.token(1)).unwrap());
    assert_eq!(next_sent(&port).2.unwrap(), 6);
    let mut socket = stream.release().unwrap();
    assert!(port.devices().is_empty());
    socket.write_all(b"after").unwrap();
    let mut text = [0; 11];
    peer.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"beforeafter");
    let mut writing = peer.try_clone().unwrap();
    let writer = thread::spawn(move || {
        thread::sleep(Duration::from_millis(20));
        writing.write_all(b"x").unwrap();
    });
    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 1, "the socket blocks until there is data");
    writer.join().unwrap();
    // Into another port, with data waiting.
    peer.write_all(b"waiting").unwrap();
    let other = common::port(1, Wake::default());
    let stream = other.associate(socket, 8).unwrap();
    assert_eq!(*stream.key(), 8);
    assert_eq!(receive_all(&other, &ledger, &stream, 16, 7), b"waiting");
    quiet(&port, &ledger);
}

#[test]
fn a_stream_with_operations_outstanding_is_not_released() {
    let (ledger, port, stream, mut peer) = one_stream();
    pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
    let rejected = stream.release().unwrap_err();
    assert_eq!(rejected.error.raw_os_error(), Some(EBUSY));
    let stream = rejected.source;
    assert_eq!(stream.cancel_all(), 1);
    assert_eq!(errno(&next_received(&port).result), ECANCELED);
    peer.write_all(b"y").unwrap();
    let mut socket = stream.release().unwrap();
    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 1);
}

#[test]
fn a_closed_stream_is_not_released() {
    let (_ledger, _port, stream, _peer) = one_stream();
    stream.close();
    assert!(stream.release().is_err());
}

#[test]
fn other_handles_of_a_released_stream_are_closed_and_leave_the_socket_alone() {
    let (ledger, port, stream, mut peer) = one_stream();
    let clone = stream.clone();
    let mut socket = stream.release().unwrap();
    assert!(clone.recv(vec![0; 8], ledger.token(1)).is_err());
    clone.close();
    drop(clone);
    drop(port);
    socket.write_all(b"open").unwrap();
    let mut text = [0; 4];
    peer.read_exact(&mut text).unwrap();
}

#[test]
fn a_socket_is_adopted_in_whatever_state_it_is() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    // With its end already there.
    let (server, peer) = pair();
    drop(peer);
    let stream = port.associate(server, 1).unwrap();
    assert_eq!(receive_all(&port, &ledger, &stream, 8, 1), b"");
    // With data and the end.
    let (server, mut peer) = pair();
    peer.write_all(b"hello").unwrap();
    drop(peer);
    let stream = port.associate(server, 2).unwrap();
    assert_eq!(receive_all(&port, &ledger, &stream, 8, usize::MAX), b"hello");
    // Reset: it has no peer any more, and is rejected or fails with its first operation.
    let (server, peer) = pair();
    reset(peer);
    match port.associate(server, 3) {
        Ok(stream) => match stream.recv(vec![0; 8], ledger.token(0)) {
            Ok(_) => assert_eq!(errno(&next_received(&port).result), ECONNRESET),
            Err(refused) => assert!(refused.error.is_reset()),
        },
        Err(rejected) => assert_eq!((rejected.error.raw_os_error(), rejected.key), (Some(ENOTCONN), 3)),
    }
    // With a full send buffer.
    let (server, mut peer) = pair();
    small_buffers([&server, &peer]);
    server.set_nonblocking(true).unwrap();
    let (mut written, mut full) = (0, 0);
    while full < 20 {
        match (&server).write(&[0; 4096]) {
            Ok(bytes) => written += bytes,
            Err(_) => {
                full += 1;
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    let stream = port.associate(server, 4).unwrap();
    pending(stream.send("end", ledger.token(1)).unwrap());
    let mut all = vec![0; written + 3];
    let reader = thread::spawn(move || {
        peer.read_exact(&mut all).unwrap();
        assert!(all.ends_with(b"end"));
    });
    assert_eq!(next_sent(&port).2.unwrap(), 3);
    reader.join().unwrap();
}

#[test]
fn a_rejected_socket_comes_back_open() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    port.close();
    let (server, mut peer) = pair();
    let rejected = port.associate(server, 5).unwrap_err();
    assert_eq!(rejected.key, 5);
    (&rejected.source).write_all(b"open").unwrap();
    let mut text = [0; 4];
    peer.read_exact(&mut text).unwrap();
    drop(ledger);
}

#[test]
fn a_socket_belongs_to_one_port_under_one_key() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let streams: Vec<_> = [0, u64::MAX, 3, 3].into_iter().map(|key| (key, connection(&port, key))).collect();
    for (n, (_, (stream, peer))) in streams.iter().enumerate() {
        let mut peer = peer;
        pending(stream.recv(vec![0; 8], ledger.token(n as u64)).unwrap());
        peer.write_all(b"x").unwrap();
    }
    let mut numbers: Vec<u64> = streams.iter().map(|(_, (stream, _))| stream.number()).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), 4);
    for _ in 0..4 {
        let packet = next(&port);
        assert_eq!(packet.key, streams[packet.context.number as usize].0);
    }
}

#[test]
fn a_closed_port_ends_its_streams_operations_and_takes_no_new_ones() {
    let (ledger, port, stream, mut peer) = narrow_stream();
    for n in 0..3 {
        pending(stream.recv(vec![0; 8], ledger.token(n)).unwrap());
    }
    pending(stream.send(vec![0; 4 * 1024 * 1024], ledger.token(3)).unwrap());
    port.close();
    assert_eq!(ledger.live(), 0, "what was outstanding is freed");
    assert!(stream.recv(vec![0; 8], ledger.token(4)).is_err());
    assert!(stream.send("x", ledger.token(5)).is_err());
    // The device is open until it is closed.
    assert!(stream.peer_addr().is_ok());
    drop(stream);
    let mut rest = Vec::new();
    let _ = peer.read_to_end(&mut rest);
    assert!(rest.len() < 4 * 1024 * 1024);
}

// --- The raw layer ---

fn raw_port() -> raw::Port {
    raw::Port::new(raw::Config::default()).unwrap()
}

fn adopt(port: &raw::Port, socket: StdStream) -> raw::Device {
    socket.set_nonblocking(true).unwrap();
    port.adopt(socket, DeviceKind::Stream, 5).unwrap()
}

#[test]
#[allow(unsafe_code)]
fn several_buffers_are_filled_in_their_order() {
    let port = raw_port();
    let (server, mut peer) = pair();
    let device = adopt(&port, server);
    let mut memory = [vec![0u8; 3], vec![0; 0], vec![0; 2], vec![0; 10]];
    let pieces = memory.iter_mut().map(|m| RawBuffer { pointer: m.as_mut_ptr(), length: m.len() }).collect();
    // SAFETY: `memory` lives, and is not touched, until the completion was taken.
    unsafe { port.receive(&device, Buffers::Many(pieces), 77, Sink::Port) }.unwrap();
    peer.write_all(b"abcdefg").unwrap();
    let completion = port.get(Some(DEADLINE)).unwrap();
    assert_eq!((completion.key, completion.token, completion.bytes, completion.error), (5, 77, 7, 0));
    assert_eq!((&memory[0][..], &memory[2][..], &memory[3][..2]), (&b"abc"[..], &b"de"[..], &b"fg"[..]));
    port.close_device(&device);
}

#[test]
#[allow(unsafe_code)]
fn a_receive_into_very_many_buffers_leaves_no_data_behind() {
    // More pieces than one system call takes: a call that could not have taken more says nothing about what is left.
    let port = raw_port();
    let (server, mut peer) = pair();
    let device = adopt(&port, server);
    let sent = pattern(3000, 10);
    peer.write_all(&sent).unwrap();
    let mut came = Vec::new();
    while came.len() < sent.len() {
        let mut memory = vec![[0u8; 2]; 500];
        let pieces = memory.iter_mut().map(|m| RawBuffer { pointer: m.as_mut_ptr(), length: m.len() }).collect();
        // SAFETY: `memory` lives, and is not touched, until the completion was taken (or the test fails for good).
        unsafe { port.receive(&device, Buffers::Many(pieces), 0, Sink::Port) }.unwrap();
        match port.get(Some(DEADLINE)) {
            Ok(completion) => came.extend_from_slice(&memory.concat()[..completion.bytes]),
            Err(error) => {
                std::mem::forget(memory);
                panic!("{error:?} with {} of {} bytes received", came.len(), sent.len());
            }
        }
    }
    assert!(came == sent);
    port.close_device(&device);
}

#[test]
#[allow(unsafe_code)]
fn an_operation_with_an_event_signals_it_and_queues_no_packet() {
    let port = raw_port();
    let (server, mut peer) = pair();
    let device = adopt(&port, server);
    let mut memory = [0u8; 16];
    let event = CompletionEvent::new();
    let one = RawBuffer { pointer: memory.as_mut_ptr(), length: memory.len() };
    let two = one;
    // SAFETY: `memory` lives, and is not touched, until the completion was waited for.
    unsafe { port.receive(&device, Buffers::One(one), 1, Sink::Event(event.clone())) }.unwrap();
    assert!(event.wait(Some(Duration::ZERO)).is_none());
    peer.write_all(b"x").unwrap();
    // Somebody has to serve the port for it.
    assert!(port.get(Some(Duration::from_millis(50))).is_err(), "no packet is queued");
    let completion = event.wait(Some(DEADLINE)).unwrap();
    assert_eq!((completion.token, completion.bytes), (1, 1));
    // A failure does the same (row O-20).
    // SAFETY: as above.
    unsafe { port.receive(&device, Buffers::One(two), 2, Sink::Event(event.clone())) }.unwrap();
    port.close_device(&device);
    let completion = event.wait(Some(DEADLINE)).unwrap();
    assert_eq!((completion.token, completion.error), (2, ECANCELED));
    assert!(port.get(Some(Duration::ZERO)).is_err());
}
