//! Datagrams (rows U).

mod common;

use common::{DEADLINE, Ledger, Port, Token, errno, eventually, next, pending, port, quiet};
use std::io;
use std::net::{SocketAddr, UdpSocket as StdSocket};
use std::time::Duration;
use wharf::{Buffer, Event, Outcome, UdpSocket, Wake};

type Socket = UdpSocket<u64, Token>;

const EMSGSIZE: i32 = 90;
const EDESTADDRREQ: i32 = 89;
const ECONNREFUSED: i32 = 111;
const ECANCELED: i32 = 125;

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
