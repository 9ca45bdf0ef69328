//! Datagrams (rows U).

mod common;

use common::numbers::{ECANCELED, ECONNREFUSED, EDESTADDRREQ, EMSGSIZE};
use common::{DEADLINE, Ledger, Port, Token, errno, eventually, next, pending, port, quiet};
use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::time::Duration;
use wharf::{Buffer, Event, Outcome, Wake};

type Socket = wharf::Datagrams<u64, Token>;

fn bound() -> (Ledger, Port, Socket, StdSocket) {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let socket = port.bind("127.0.0.1:0", 7).unwrap();
    let peer = StdSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    (ledger, port, socket, peer)
}

#[derive(Debug)]
struct Got {
    number: u64,
    buffer: Buffer,
    from: Option<SocketAddr>,
    segment: usize,
    result: io::Result<usize>,
}

#[track_caller]
fn got(port: &Port) -> Got {
    let packet = next(port);
    assert_eq!(packet.key, 7);
    let number = packet.context.number;
    match packet.event {
        Event::ReceivedFrom { buffer, from, segment_bytes, result, .. } => {
            Got { number, buffer, from, segment: segment_bytes, result }
        }
        other => panic!("a datagram was expected: {other:?}"),
    }
}

#[track_caller]
fn sent(port: &Port) -> (u64, Buffer, io::Result<usize>) {
    let packet = next(port);
    match packet.event {
        Event::SentTo { buffer, result, .. } => (packet.context.number, buffer, result),
        other => panic!("a send was expected to complete: {other:?}"),
    }
}

#[test]
fn each_receive_takes_one_whole_datagram_and_says_who_sent_it() {
    let (ledger, port, socket, peer) = bound();
    for number in 0..3 {
        pending(socket.recv_from(Buffer::with_capacity(100), ledger.token(number)).unwrap());
    }
    let to = socket.local_addr().unwrap();
    for message in ["one", "", "three"] {
        peer.send_to(message.as_bytes(), to).unwrap();
    }
    for (number, message) in (0..).zip(["one", "", "three"]) {
        let got = got(&port);
        assert_eq!((got.number, &got.buffer[..], got.from), (number, message.as_bytes(), peer.local_addr().ok()));
        assert_eq!((got.result.unwrap(), got.segment), (message.len(), 0), "an empty one is no end (row U-01)");
    }
    quiet(&port, &ledger);
}

#[test]
fn datagrams_that_wait_are_all_received_later() {
    let (ledger, port, socket, peer) = bound();
    let to = socket.local_addr().unwrap();
    for number in 0..100_u8 {
        peer.send_to(&[number], to).unwrap();
    }
    for number in 0..100_u8 {
        pending(socket.recv_from_pooled(ledger.token(number.into())).unwrap());
        let got = got(&port);
        assert_eq!((got.number, &got.buffer[..]), (u64::from(number), &[number][..]));
    }
    quiet(&port, &ledger);
}

#[test]
fn a_datagram_that_is_too_long_is_told_with_what_fitted_and_the_next_is_whole() {
    let (ledger, port, socket, peer) = bound();
    let to = socket.local_addr().unwrap();
    for bytes in [4, 0] {
        pending(socket.recv_from(Buffer::with_capacity(bytes), ledger.token(1)).unwrap());
        pending(socket.recv_from(Buffer::with_capacity(100), ledger.token(2)).unwrap());
        peer.send_to(b"too long", to).unwrap();
        peer.send_to(b"next", to).unwrap();
        let cut = got(&port);
        assert_eq!((errno(&cut.result), &cut.buffer[..]), (EMSGSIZE, &b"too long"[..bytes]), "rows U-02, U-04");
        assert_eq!(cut.from, peer.local_addr().ok());
        assert_eq!(&got(&port).buffer[..], b"next");
    }
}

#[test]
fn datagrams_are_sent_whole_or_refused() {
    let (ledger, port, socket, peer) = bound();
    let to = peer.local_addr().unwrap();
    pending(socket.send_to("hello", to, ledger.token(1)).unwrap());
    let (number, buffer, result) = sent(&port);
    assert_eq!((number, &buffer[..], result.unwrap()), (1, &b"hello"[..], 5));
    pending(socket.send_to("", to, ledger.token(2)).unwrap());
    assert_eq!(sent(&port).2.unwrap(), 0);
    let mut buffer = [0; 100];
    assert_eq!(peer.recv_from(&mut buffer).unwrap(), (5, socket.local_addr().unwrap()));
    assert_eq!(peer.recv_from(&mut buffer).unwrap().0, 0);
    let refused = socket.send_to(vec![0; 65_536], to, ledger.token(3)).unwrap_err();
    assert_eq!((refused.error.raw_os_error(), refused.buffer.len()), (Some(EMSGSIZE), 65_536), "row U-07");
    pending(socket.send_to(vec![0; 65_520], to, ledger.token(4)).unwrap());
    assert_eq!(errno(&sent(&port).2), EMSGSIZE, "longer than the protocol below allows");
    pending(socket.send("to nobody", ledger.token(5)).unwrap());
    assert_eq!(errno(&sent(&port).2), EDESTADDRREQ);
    quiet(&port, &ledger);
}

#[test]
fn a_connected_socket_hears_its_peer_only_and_is_told_when_nobody_is_there() {
    let (ledger, port, socket, peer) = bound();
    socket.connect(peer.local_addr().unwrap()).unwrap();
    let stranger = StdSocket::bind("127.0.0.1:0").unwrap();
    pending(socket.recv_from(Buffer::with_capacity(100), ledger.token(1)).unwrap());
    stranger.send_to(b"stranger", socket.local_addr().unwrap()).unwrap();
    peer.send_to(b"peer", socket.local_addr().unwrap()).unwrap();
    assert_eq!(&got(&port).buffer[..], b"peer", "row U-12");
    let address = peer.local_addr().unwrap();
    drop(peer);
    pending(socket.recv_from(Buffer::with_capacity(100), ledger.token(2)).unwrap());
    pending(socket.send("anybody?", ledger.token(3)).unwrap());
    let mut outcomes = [next(&port), next(&port)].map(|packet| match packet.event {
        Event::SentTo { result, .. } => (3, result.map(drop)),
        Event::ReceivedFrom { result, .. } => (2, result.map(drop)),
        other => panic!("{other:?}"),
    });
    outcomes.sort_by_key(|outcome| outcome.0);
    assert_eq!(errno(&outcomes[0].1), ECONNREFUSED, "row U-09");
    outcomes[1].1.as_ref().unwrap();
    let peer = StdSocket::bind(address).unwrap();
    pending(socket.recv_from(Buffer::with_capacity(100), ledger.token(4)).unwrap());
    peer.send_to(b"again", socket.local_addr().unwrap()).unwrap();
    assert_eq!(&got(&port).buffer[..], b"again", "one failure for one message; then it works again");
}

#[test]
fn receives_are_cancelled_and_closing_ends_them() {
    let (ledger, port, socket, _peer) = bound();
    let first = pending(socket.recv_from(Buffer::with_capacity(10), ledger.token(1)).unwrap());
    for number in 2..5 {
        pending(socket.recv_from_pooled(ledger.token(number)).unwrap());
    }
    assert_eq!(socket.cancel(first), wharf::Cancel::Requested);
    let cancelled = got(&port);
    assert_eq!((cancelled.number, errno(&cancelled.result), cancelled.buffer.capacity()), (1, ECANCELED, 10));
    socket.close();
    let mut numbers: Vec<u64> = (0..3)
        .map(|_| got(&port))
        .map(|got| {
            assert_eq!(errno(&got.result), ECANCELED);
            got.number
        })
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [2, 3, 4]);
    let refused = socket.recv_from(Buffer::with_capacity(1), ledger.token(9)).unwrap_err();
    assert!(refused.error.to_string().contains("closed"), "{}", refused.error);
}

#[test]
fn a_socket_is_adopted_and_released() {
    let (ledger, port, _, peer) = bound();
    let std = StdSocket::bind("[::1]:0").or_else(|_| StdSocket::bind("127.0.0.1:0")).unwrap();
    let address = std.local_addr().unwrap();
    let socket: Socket = port.associate(std, 7).unwrap();
    let id = pending(socket.recv_from_pooled(ledger.token(1)).unwrap());
    let socket = socket.release().expect_err("a receive is outstanding").source;
    let _ = socket.cancel(id);
    got(&port);
    let std = socket.release().unwrap();
    assert_eq!(std.local_addr().unwrap(), address);
    std.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    assert!(std.recv(&mut [0]).is_err(), "it blocks again, for as long as it is told");
    drop(peer);
}

#[test]
fn with_skip_on_success_a_send_and_a_waiting_datagram_return_at_once() {
    let (ledger, port, socket, peer) = bound();
    socket.skip_on_success();
    let done = |outcome: Outcome<u64, Token>| match outcome {
        Outcome::Done(packet) => {
            packet.context.arrive();
            packet.event
        }
        Outcome::Pending(_) => panic!("it could be done at once"),
    };
    let event = done(socket.send_to("ping", peer.local_addr().unwrap(), ledger.token(1)).unwrap());
    assert!(matches!(event, Event::SentTo { result: Ok(4), .. }));
    for message in [b"first", b"later"] {
        peer.send_to(message, socket.local_addr().unwrap()).unwrap();
    }
    // The first one waits until the port has heard that something came.
    pending(socket.recv_from(Buffer::with_capacity(9), ledger.token(2)).unwrap());
    assert_eq!(&got(&port).buffer[..], b"first");
    let event = done(socket.recv_from(Buffer::with_capacity(9), ledger.token(3)).unwrap());
    assert!(matches!(event, Event::ReceivedFrom { result: Ok(5), .. }), "{event:?}");
    quiet(&port, &ledger);
}

#[test]
fn a_segmented_send_arrives_as_datagrams_and_receive_offload_tells_their_length() {
    let (ledger, port, socket, peer) = bound();
    let to = peer.local_addr().unwrap();
    socket.set_segment_bytes(Some(100)).unwrap();
    let message: Vec<u8> = (0..250).collect();
    pending(socket.send_to(message.clone(), to, ledger.token(1)).unwrap());
    assert_eq!(sent(&port).2.unwrap(), 250);
    let mut buffer = [0; 1000];
    for piece in message.chunks(100) {
        let bytes = peer.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], piece);
    }
    // To itself, so that one system's offloads meet.
    socket.set_receive_offload(true).unwrap();
    pending(socket.send_to(message.clone(), socket.local_addr().unwrap(), ledger.token(2)).unwrap());
    assert_eq!(sent(&port).2.unwrap(), 250);
    let mut collected = Vec::new();
    while collected.len() < 250 {
        pending(socket.recv_from(Buffer::with_capacity(65_536), ledger.token(3)).unwrap());
        let got = got(&port);
        assert!(got.result.unwrap() <= 100 || got.segment == 100, "several in one, and their length is not told");
        collected.extend_from_slice(&got.buffer);
    }
    assert_eq!(collected, message);
}

#[test]
fn many_threads_echo_datagrams_and_none_is_handled_twice() {
    let ledger = Ledger::new();
    let port = port(2, Wake::default());
    let socket: Socket = port.bind("127.0.0.1:0", 7).unwrap();
    let address = socket.local_addr().unwrap();
    (0..8).for_each(|number| drop(socket.recv_from(Buffer::with_capacity(2000), ledger.token(number)).unwrap()));
    let mint = ledger.mint();
    let crew = common::Crew::start(&port, 3, move |_, packet| match packet.event {
        Event::ReceivedFrom { socket, buffer, from: Some(from), result: Ok(_), .. } => {
            let _ = socket.send_to(buffer, from, mint.token(0));
        }
        Event::SentTo { socket, buffer, result, .. } => {
            result.unwrap();
            let mut memory = buffer.into_vec();
            memory.clear();
            let _ = socket.recv_from(memory, mint.token(0));
        }
        _ => {}
    });
    let peer = StdSocket::bind("127.0.0.1:0").unwrap();
    peer.set_read_timeout(Some(DEADLINE)).unwrap();
    for number in 0..2000_u32 {
        peer.send_to(&number.to_le_bytes(), address).unwrap();
        let mut answer = [0; 8];
        let (bytes, from) = peer.recv_from(&mut answer).unwrap();
        assert_eq!((&answer[..bytes], from), (&number.to_le_bytes()[..], address));
    }
    eventually("eight receives are outstanding", || port.devices()[0].pending.0 == 8);
    drop(crew);
}

// --- Batches ---

#[track_caller]
fn all_pending<B>(outcomes: Vec<Result<Outcome<u64, Token>, wharf::Refused<Token, B>>>) -> Vec<wharf::OperationId> {
    outcomes.into_iter().map(|outcome| pending(outcome.unwrap())).collect()
}

/// A payload that tells its number.
fn numbered(number: u64) -> Vec<u8> {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + number as usize % 40, number as u8);
    payload
}

/// Sends a thousand datagrams from one socket of a port to another in batches, while all receives are outstanding.
fn a_thousand(address: &str) {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let Ok(receiver) = port.bind(address, 7) else { return common::skipped("datagrams of that family", address) };
    let sender: Socket = port.bind(address, 7).unwrap();
    let to = receiver.local_addr().unwrap();
    let mut receives = Vec::new();
    for batch in 0..10 {
        let numbers = batch * 100..batch * 100 + 100;
        receives.extend(match batch % 2 {
            0 => all_pending(receiver.recv_from_many(
                numbers.map(|number| (Buffer::with_capacity(100), ledger.token(number))).collect::<Vec<_>>(),
            )),
            _ => all_pending(
                receiver.recv_from_many_pooled(numbers.map(|number| ledger.token(number)).collect::<Vec<_>>()),
            ),
        });
    }
    let mut expected = 0;
    for batch in 0..10_u64 {
        // No more at once than a receive buffer holds.
        let numbers = batch * 100..batch * 100 + 100;
        all_pending(sender.send_to_many(numbers.clone().map(|number| (numbered(number), to, ledger.token(number)))));
        let mut sent = numbers.start;
        for _ in 0..200 {
            let packet = next(&port);
            let number = packet.context.number;
            match packet.event {
                Event::SentTo { buffer, result, .. } => {
                    assert_eq!((number, result.unwrap()), (sent, numbered(number).len()));
                    assert_eq!(&buffer[..], numbered(number));
                    sent += 1;
                }
                Event::ReceivedFrom { buffer, from, result, .. } => {
                    assert_eq!((number, result.unwrap()), (expected, numbered(number).len()), "in the order of issue");
                    assert_eq!((&buffer[..], from), (&numbered(number)[..], sender.local_addr().ok()));
                    expected += 1;
                }
                other => panic!("{other:?}"),
            }
        }
        assert_eq!((sent, expected), (numbers.end, numbers.end));
    }
    assert_eq!(receives.len(), 1000);
    quiet(&port, &ledger);
}

#[test]
fn a_thousand_sends_and_receives_go_in_batches_each_with_its_packet_in_order() {
    a_thousand("127.0.0.1:0");
}

#[test]
fn a_thousand_sends_and_receives_go_in_batches_over_ipv6() {
    a_thousand("[::1]:0");
}

#[test]
fn an_error_in_the_middle_of_a_batch_ends_the_operation_that_failed_and_no_other() {
    let (ledger, port, socket, peer) = bound();
    let to = peer.local_addr().unwrap();
    // Longer than IPv4 can carry, and than any datagram; and an address of the other family.
    let elsewhere: SocketAddr = "[::1]:9".parse().unwrap();
    let datagram = |number: u64| match number {
        10 | 40 => (vec![0; 65_520], to),
        20 => (vec![0; 70_000], to),
        30 => (numbered(number), elsewhere),
        _ => (numbered(number), to),
    };
    let outcomes = socket.send_to_many((0..50).map(|number| {
        let (payload, to) = datagram(number);
        (payload, to, ledger.token(number))
    }));
    for (number, outcome) in (0..50).zip(outcomes) {
        match number {
            20 => {
                let refused = outcome.unwrap_err();
                assert_eq!((refused.error.raw_os_error(), refused.buffer.len()), (Some(EMSGSIZE), 70_000));
            }
            _ => drop(pending(outcome.unwrap())),
        }
    }
    for number in (0..50).filter(|&number| number != 20) {
        let (got, buffer, result) = sent(&port);
        assert_eq!((got, buffer.len()), (number, datagram(number).0.len()), "in order, and the buffer comes back");
        match number {
            10 | 40 => assert_eq!(errno(&result), EMSGSIZE),
            30 => assert_ne!(errno(&result), 0),
            _ => assert_eq!(result.unwrap(), buffer.len()),
        }
    }
    let mut buffer = [0; 100];
    for number in (0..50).filter(|number| ![10, 20, 30, 40].contains(number)) {
        let bytes = peer.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], numbered(number), "once, in order");
    }
    peer.set_nonblocking(true).unwrap();
    assert!(peer.recv(&mut buffer).is_err(), "one was sent twice");
    quiet(&port, &ledger);
}

#[test]
fn of_a_batch_of_receives_each_tells_what_was_cut_off() {
    let (ledger, port, socket, peer) = bound();
    let to = socket.local_addr().unwrap();
    for number in 0..40_u64 {
        peer.send_to(&numbered(number), to).unwrap();
    }
    let outcomes = socket.recv_from_many((0..40).map(|number| {
        // Every third is too small, one of them without any space.
        let space = if number == 9 { 0 } else { 7 };
        (Buffer::with_capacity(if number % 3 == 0 { space } else { 100 }), ledger.token(number))
    }));
    all_pending(outcomes);
    for number in 0..40_u64 {
        let got = got(&port);
        assert_eq!((got.number, got.from), (number, peer.local_addr().ok()));
        let payload = numbered(number);
        match (number, number % 3) {
            (9, _) => assert_eq!((errno(&got.result), got.buffer.len()), (EMSGSIZE, 0)),
            (_, 0) => assert_eq!((errno(&got.result), &got.buffer[..]), (EMSGSIZE, &payload[..7])),
            _ => assert_eq!((got.result.unwrap(), &got.buffer[..]), (payload.len(), &payload[..])),
        }
    }
    quiet(&port, &ledger);
}

#[test]
fn unusable_buffers_of_a_batch_come_back_and_the_others_are_issued() {
    let (ledger, port, socket, peer) = bound();
    let buffers = [Buffer::with_capacity(10), Buffer::from("static"), Buffer::with_capacity(10)];
    let mut outcomes =
        socket.recv_from_many(buffers.into_iter().zip(0..).map(|(buffer, number)| (buffer, ledger.token(number))));
    let last = pending(outcomes.pop().unwrap().unwrap());
    let refused = outcomes.pop().unwrap().unwrap_err();
    assert_eq!((&refused.buffer[..], refused.context.number), (&b"static"[..], 1));
    peer.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
    assert_eq!(got(&port).number, 0);
    assert_eq!(socket.cancel(last), wharf::Cancel::Requested);
    assert_eq!(errno(&got(&port).result), ECANCELED);
    socket.close();
    for outcome in socket.recv_from_many_pooled((0..3).map(|number| ledger.token(number))) {
        assert!(outcome.unwrap_err().error.to_string().contains("closed"));
    }
    for outcome in socket.send_to_many((0..3).map(|number| ("hello", peer.local_addr().unwrap(), ledger.token(number))))
    {
        let refused = outcome.unwrap_err();
        assert_eq!(&refused.buffer[..], b"hello");
    }
}

#[test]
fn a_batch_is_cancelled_and_closed_in_the_middle() {
    let (ledger, port, socket, peer) = bound();
    let to = socket.local_addr().unwrap();
    let ids =
        all_pending(socket.recv_from_many((0..60).map(|number| (Buffer::with_capacity(100), ledger.token(number)))));
    for number in (0..60).step_by(2) {
        assert_eq!(socket.cancel(ids[number]), wharf::Cancel::Requested);
        let cancelled = got(&port);
        assert_eq!((cancelled.number, errno(&cancelled.result)), (number as u64, ECANCELED));
    }
    for number in 0..10_u64 {
        peer.send_to(&numbered(number), to).unwrap();
    }
    for number in 0..10_u64 {
        let got = got(&port);
        assert_eq!((got.number, &got.buffer[..]), (number * 2 + 1, &numbered(number)[..]), "the odd ones are left");
    }
    socket.close();
    let mut left: Vec<u64> = (0..20)
        .map(|_| got(&port))
        .map(|got| {
            assert_eq!(errno(&got.result), ECANCELED);
            got.number
        })
        .collect();
    left.sort_unstable();
    assert!(left.into_iter().eq((21..60).step_by(2)));
    quiet(&port, &ledger);
}

#[test]
fn batches_survive_cancelling_and_closing_from_other_threads() {
    // Whoever wins, each operation gives one packet: the ledger tells.
    for round in 0..40 {
        let ledger = Ledger::new();
        let port = port(2, Wake::default());
        let socket: Socket = port.bind("127.0.0.1:0", 7).unwrap();
        let to = socket.local_addr().unwrap();
        let crew = common::Crew::start(&port, 2, |_, _| {});
        std::thread::scope(|scope| {
            let ids = all_pending(
                socket.recv_from_many((0..200).map(|number| (Buffer::with_capacity(64), ledger.token(number)))),
            );
            let (sender, mint) = (socket.clone(), ledger.mint());
            scope.spawn(move || {
                for batch in 0..4 {
                    sender.send_to_many((0..50).map(|number| (numbered(number), to, mint.token(batch * 50 + number))));
                }
            });
            let socket = &socket;
            scope.spawn(move || {
                ids.iter().rev().step_by(3).for_each(|&id| {
                    let _ = socket.cancel(id);
                })
            });
            if round % 2 == 0 {
                scope.spawn(|| socket.close());
            } else {
                scope.spawn(|| socket.cancel_all());
            }
        });
        socket.close();
        eventually("every operation has given its packet", || ledger.live() == 0);
        drop(crew);
    }
}

#[test]
fn with_skip_on_success_a_batch_returns_what_was_sent() {
    let (ledger, port, socket, peer) = bound();
    socket.skip_on_success();
    let to = peer.local_addr().unwrap();
    let outcomes = socket.send_to_many((0..100).map(|number| {
        let payload = if number == 50 { vec![0; 65_520] } else { numbered(number) };
        (payload, to, ledger.token(number))
    }));
    for (number, outcome) in (0..100).zip(outcomes) {
        match outcome.unwrap() {
            Outcome::Done(packet) => {
                packet.context.arrive();
                assert_eq!(packet.context.number, number);
                assert!(
                    matches!(packet.event, Event::SentTo { result: Ok(bytes), .. } if bytes == numbered(number).len())
                );
            }
            Outcome::Pending(_) => assert_eq!(number, 50, "only a failure comes as a packet"),
        }
    }
    let (number, _, result) = sent(&port);
    assert_eq!((number, errno(&result)), (50, EMSGSIZE));
    let mut buffer = [0; 100];
    for number in (0..100).filter(|&number| number != 50) {
        let bytes = peer.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..bytes], numbered(number));
    }
    quiet(&port, &ledger);
}

#[test]
fn segmented_sends_go_in_a_batch_and_receive_offload_fills_several_receives() {
    let (ledger, port, socket, _) = bound();
    let receiver: Socket = port.bind("127.0.0.1:0", 7).unwrap();
    let to = receiver.local_addr().unwrap();
    socket.set_segment_bytes(Some(500)).unwrap();
    receiver.set_receive_offload(true).unwrap();
    let message = |number: u64| -> Vec<u8> { (0..2750_u64).map(|at| (at / 7 + number * 31) as u8).collect() };
    all_pending(receiver.recv_from_many((0..48).map(|number| (Buffer::with_capacity(65_536), ledger.token(number)))));
    all_pending(socket.send_to_many((0..8).map(|number| (message(number), to, ledger.token(number)))));
    let mut collected: Vec<u8> = Vec::new();
    let mut sends = 0;
    while collected.len() < 8 * 2750 || sends < 8 {
        match next(&port).event {
            Event::SentTo { result, .. } => {
                assert_eq!(result.unwrap(), 2750);
                sends += 1;
            }
            Event::ReceivedFrom { buffer, segment_bytes, result, .. } => {
                assert!(result.unwrap() <= 500 || segment_bytes == 500, "several in one, and their length is not told");
                collected.extend_from_slice(&buffer);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(collected.into_iter().eq((0..8).flat_map(message)));
    receiver.close();
}

#[test]
fn a_batch_that_meets_a_refusing_peer_tells_each_refusal_once() {
    // On this machine the answer to a datagram comes before its send returns.
    let (ledger, port, socket, peer) = bound();
    let address = peer.local_addr().unwrap();
    socket.connect(address).unwrap();
    drop(peer);
    all_pending(
        socket.send_to_many((0..20).map(|number| (numbered(number), None::<SocketAddr>, ledger.token(number)))),
    );
    for number in 0..20 {
        let (got, _, result) = sent(&port);
        assert_eq!(got, number);
        // The first goes, its refusal fails the second, which does not go, and so on.
        assert_eq!(
            if number % 2 == 0 { i32::from(result.is_err()) } else { errno(&result) },
            if number % 2 == 0 { 0 } else { ECONNREFUSED }
        );
    }
}

// --- Refusals of unconnected sockets (rows U-09, U-10) ---

/// Addresses at which nobody listens, and a socket that does.
fn deserted(count: usize) -> Vec<SocketAddr> {
    let sockets: Vec<StdSocket> = (0..count).map(|_| StdSocket::bind("127.0.0.1:0").unwrap()).collect();
    sockets.iter().map(|socket| socket.local_addr().unwrap()).collect()
}

#[test]
fn an_unconnected_socket_hears_of_refusals_only_if_asked_to() {
    let (ledger, port, socket, peer) = bound();
    let nobody = deserted(1)[0];
    pending(socket.recv_from(Buffer::with_capacity(100), ledger.token(1)).unwrap());
    pending(socket.send_to("anybody?", nobody, ledger.token(2)).unwrap());
    assert_eq!(sent(&port).2.unwrap(), 8);
    peer.send_to(b"hello", socket.local_addr().unwrap()).unwrap();
    assert_eq!(&got(&port).buffer[..], b"hello", "it is off at first");

    socket.report_refusals(true).unwrap();
    pending(socket.recv_from(Buffer::with_capacity(100), ledger.token(3)).unwrap());
    pending(socket.send_to("anybody?", nobody, ledger.token(4)).unwrap());
    let mut seen = [next(&port), next(&port)].map(|packet| match packet.event {
        Event::SentTo { result, .. } => (4, None, result),
        Event::ReceivedFrom { from, result, .. } => (3, from, result),
        other => panic!("{other:?}"),
    });
    seen.sort_by_key(|seen| seen.0);
    assert_eq!(
        (errno(&seen[0].2), seen[0].1),
        (ECONNREFUSED, Some(nobody)),
        "row U-09: a receive hears of it, and whose"
    );
    assert_eq!(*seen[1].2.as_ref().unwrap(), 8);
    pending(socket.recv_from_pooled(ledger.token(5)).unwrap());
    peer.send_to(b"again", socket.local_addr().unwrap()).unwrap();
    assert_eq!(&got(&port).buffer[..], b"again", "one failure for each refusal");

    socket.report_refusals(false).unwrap();
    pending(socket.recv_from_pooled(ledger.token(6)).unwrap());
    pending(socket.send_to("anybody?", nobody, ledger.token(7)).unwrap());
    sent(&port).2.unwrap();
    peer.send_to(b"off", socket.local_addr().unwrap()).unwrap();
    assert_eq!(&got(&port).buffer[..], b"off", "row U-10");
    quiet(&port, &ledger);
}

#[test]
fn every_refusal_is_told_once_and_no_datagram_is_lost_whatever_goes_in_one_batch() {
    for one_receive_at_a_time in [true, false] {
        let (ledger, port, socket, peer) = bound();
        socket.report_refusals(true).unwrap();
        let (to, here) = (peer.local_addr().unwrap(), socket.local_addr().unwrap());
        let nobody = deserted(5);
        let receive = |count: u64| {
            all_pending(
                socket.recv_from_many((0..count).map(|number| (Buffer::with_capacity(100), ledger.token(number)))),
            );
        };
        if !one_receive_at_a_time {
            receive(40);
        }
        // Refused ones among good ones, and one that no send can carry: that one is told by its send alone.
        all_pending(socket.send_to_many((0..31_u64).map(|number| match number {
            30 => (vec![0; 65_520], to, ledger.token(number)),
            _ if number % 3 == 1 => (numbered(number), nobody[number as usize / 3 % 5], ledger.token(number)),
            _ => (numbered(number), to, ledger.token(number)),
        })));
        for number in 0..20 {
            peer.send_to(&numbered(number), here).unwrap();
        }
        let (mut refused, mut received, mut sends) = (Vec::new(), 0, 0);
        while refused.len() + received < 30 || sends < 31 {
            if one_receive_at_a_time && refused.len() + received < 30 && port.devices()[0].pending.0 == 0 {
                receive(1);
            }
            let packet = next(&port);
            match packet.event {
                Event::SentTo { result, .. } => {
                    sends += 1;
                    match packet.context.number {
                        30 => assert_eq!(errno(&result), EMSGSIZE),
                        _ => drop(result.expect("a refusal of another datagram is not its own")),
                    }
                }
                Event::ReceivedFrom { buffer, from, result: Ok(_), .. } => {
                    assert_eq!((&buffer[..], from), (&numbered(received as u64)[..], Some(to)), "in order, none lost");
                    received += 1;
                }
                Event::ReceivedFrom { buffer, from, result, .. } => {
                    assert_eq!((errno(&result), buffer.len()), (ECONNREFUSED, 0));
                    refused.push(from.expect("whose it is"));
                }
                other => panic!("{other:?}"),
            }
        }
        let expected: Vec<SocketAddr> = (0..10).map(|nth| nobody[nth % 5]).collect();
        assert_eq!((refused, received), (expected, 20), "each once, in order");
        let mut buffer = [0; 100];
        for number in (0..30).filter(|number| number % 3 != 1) {
            let bytes = peer.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..bytes], numbered(number), "each good one arrives once");
        }
        if one_receive_at_a_time {
            quiet(&port, &ledger);
        }
    }
}

#[test]
fn a_connected_socket_that_reports_refusals_fails_receives_only() {
    let (ledger, port, socket, peer) = bound();
    let address = peer.local_addr().unwrap();
    socket.connect(address).unwrap();
    socket.report_refusals(true).unwrap();
    drop(peer);
    all_pending(
        socket.send_to_many((0..10).map(|number| (numbered(number), None::<SocketAddr>, ledger.token(number)))),
    );
    for _ in 0..10 {
        sent(&port).2.unwrap();
    }
    for number in 0..10 {
        pending(socket.recv_from(Buffer::with_capacity(10), ledger.token(number)).unwrap());
        let got = got(&port);
        assert_eq!((errno(&got.result), got.from), (ECONNREFUSED, Some(address)));
    }
    let peer = StdSocket::bind(address).unwrap();
    pending(socket.recv_from(Buffer::with_capacity(10), ledger.token(11)).unwrap());
    peer.send_to(b"again", socket.local_addr().unwrap()).unwrap();
    assert_eq!(&got(&port).buffer[..], b"again");
}

#[test]
fn refusals_reach_sockets_of_ipv6_too() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let Ok(socket) = port.bind("[::1]:0", 7) else { return common::skipped("IPv6", "this machine has none") };
    socket.report_refusals(true).unwrap();
    let nobody = StdSocket::bind("[::1]:0").unwrap().local_addr().unwrap();
    pending(socket.recv_from(Buffer::with_capacity(10), ledger.token(1)).unwrap());
    pending(socket.send_to("anybody?", nobody, ledger.token(2)).unwrap());
    for _ in 0..2 {
        match next(&port).event {
            Event::SentTo { result, .. } => drop(result.unwrap()),
            Event::ReceivedFrom { from, result, .. } => {
                assert_eq!((errno(&result), from), (ECONNREFUSED, Some(nobody)));
            }
            other => panic!("{other:?}"),
        }
    }
    quiet(&port, &ledger);
}
