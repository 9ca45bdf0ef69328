//! Accepting, connecting, disconnecting; many connections, too few descriptors, and a process that forks. Rows A, N, X
//! and P of the specification.

mod common;

use common::numbers::{EADDRNOTAVAIL, ECANCELED, ECONNREFUSED, ECONNRESET, EINVAL, EISCONN, ENOTCONN, ESHUTDOWN};
use common::*;
use rustix::net::{AddressFamily, SocketType};
#[cfg(unix)]
use rustix::process::{Resource, Rlimit};
#[cfg(unix)]
use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener as StdListener, TcpStream as StdStream};
#[cfg(unix)]
use std::sync::Arc;
#[cfg(unix)]
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use wharf::error::{Class, ErrorExt, NtStatus, winsock};
use wharf::{Buffer, Cancel, Event, Outcome, Wake};
#[cfg(unix)]
use wharf::{GetError, UnpostedReason, Workers};

fn listening() -> (Ledger, Port, Listener, SocketAddr) {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let listener = port.listen("127.0.0.1:0", 3).unwrap();
    let address = listener.local_addr().unwrap();
    (ledger, port, listener, address)
}

fn client(address: SocketAddr) -> StdStream {
    let client = StdStream::connect(address).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client
}

// --- Accepting ---

#[test]
fn an_accept_completes_with_the_connection_under_the_listeners_key() {
    let (ledger, port, listener, address) = listening();
    pending(listener.accept(ledger.token(1)).unwrap());
    quiet(&port, &ledger);
    let mut client = client(address);
    let packet = next(&port);
    assert_eq!((packet.key, packet.context.number), (3, 1));
    assert_eq!(packet.nt_status(), NtStatus::SUCCESS);
    let Event::Accepted { listener: same, result } = packet.event else { panic!("an accept") };
    assert_eq!(same.number(), listener.number());
    let (socket, peer) = result.unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(socket.peer_addr().unwrap(), peer);
    assert_eq!(port.devices().len(), 1, "the connection belongs to no port yet");
    // Data needs no accept to be there first, and the connection may be associated under any key.
    client.write_all(b"hello").unwrap();
    let stream = port.associate(socket, 4).unwrap();
    pending(stream.recv(vec![0; 8], ledger.token(2)).unwrap());
    let packet = next(&port);
    assert_eq!(packet.key, 4);
    assert_eq!(&received(packet).buffer[..], b"hello");
}

#[test]
fn several_accepts_are_served_in_the_order_of_issue() {
    let (ledger, port, listener, address) = listening();
    const COUNT: u64 = 40;
    for n in 0..COUNT {
        pending(listener.accept(ledger.token(n)).unwrap());
    }
    let clients: Vec<StdStream> = (0..COUNT).map(|_| client(address)).collect();
    for (n, client) in clients.iter().enumerate() {
        let (number, result) = next_accepted(&port);
        assert_eq!(number, n as u64);
        assert_eq!(result.unwrap().1, client.local_addr().unwrap());
    }
    quiet(&port, &ledger);
}

#[test]
fn connections_that_wait_are_taken_at_once_and_in_their_order() {
    let (ledger, port, listener, address) = listening();
    let clients: Vec<StdStream> = (0..40).map(|_| client(address)).collect();
    // Without an accept outstanding they wait in the backlog, and nothing is reported.
    quiet(&port, &ledger);
    for (n, client) in clients.iter().enumerate() {
        pending(listener.accept(ledger.token(n as u64)).unwrap());
        let (number, result) = next_accepted(&port);
        assert_eq!((number, result.unwrap().1), (n as u64, client.local_addr().unwrap()));
    }
}

#[test]
fn an_accepted_connection_works_as_std_socket_once_it_is_set_to_block() {
    let (ledger, port, listener, address) = listening();
    pending(listener.accept(ledger.token(1)).unwrap());
    let mut client = client(address);
    let (mut socket, _) = next_accepted(&port).1.unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "as documented");
    socket.set_nonblocking(false).unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 1);
}

#[test]
fn closing_the_listener_ends_every_accept_with_one_packet() {
    let (ledger, port, listener, address) = listening();
    for n in 0..5 {
        pending(listener.accept(ledger.token(n)).unwrap());
    }
    listener.close();
    for n in 0..5 {
        let packet = next(&port);
        assert_eq!((packet.key, packet.context.number), (3, n));
        assert_eq!(packet.nt_status(), NtStatus::CANCELLED);
        let Event::Accepted { result, .. } = packet.event else { panic!("an accept") };
        assert_eq!(errno(&result), ECANCELED);
    }
    quiet(&port, &ledger);
    let refused = listener.accept(ledger.token(9)).unwrap_err();
    assert_eq!(refused.context.number, 9);
    assert_eq!(StdStream::connect(address).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_cancelled_accept_leaves_the_others_and_the_connection_to_them() {
    let (ledger, port, listener, address) = listening();
    let ids: Vec<_> = (0..3).map(|n| pending(listener.accept(ledger.token(n)).unwrap())).collect();
    assert_eq!(listener.cancel(ids[0]), Cancel::Requested);
    assert_eq!(listener.cancel(ids[0]), Cancel::TooLate);
    let (number, result) = next_accepted(&port);
    assert_eq!((number, errno(&result)), (0, ECANCELED));
    let first = client(address);
    let (number, result) = next_accepted(&port);
    assert_eq!((number, result.unwrap().1), (1, first.local_addr().unwrap()));
    assert_eq!(listener.cancel(ids[1]), Cancel::TooLate);
    assert_eq!(listener.cancel_all(), 1);
    let (number, result) = next_accepted(&port);
    assert_eq!((number, errno(&result)), (2, ECANCELED));
    let second = client(address);
    pending(listener.accept(ledger.token(3)).unwrap());
    assert_eq!(next_accepted(&port).1.unwrap().1, second.local_addr().unwrap());
}

#[test]
fn a_connection_that_was_reset_before_it_was_accepted_does_no_harm() {
    let (ledger, port, listener, address) = listening();
    for round in 0..20 {
        if round % 2 == 0 {
            pending(listener.accept(ledger.token(round)).unwrap());
        }
        reset(client(address));
        let honest = client(address);
        if round % 2 == 1 {
            pending(listener.accept(ledger.token(round)).unwrap());
        }
        // The reset one may come out, broken, or not at all.
        loop {
            let (_, result) = next_accepted(&port);
            match result {
                Ok((_, peer)) if peer == honest.local_addr().unwrap() => break,
                Ok((socket, _)) => match port.associate(socket, 0) {
                    Ok(stream) => {
                        if stream.recv(vec![0; 8], ledger.token(100)).is_ok() {
                            assert_eq!(errno(&next_received(&port).result), ECONNRESET);
                        }
                    }
                    Err(rejected) => assert_eq!(rejected.error.raw_os_error(), Some(ENOTCONN)),
                },
                Err(error) => assert!(error.is_reset(), "{error}"),
            }
            pending(listener.accept(ledger.token(round)).unwrap());
        }
    }
}

#[test]
fn a_client_that_leaves_at_once_is_accepted_and_its_data_and_end_are_received() {
    let (ledger, port, listener, address) = listening();
    for round in 0..20 {
        let mut client = client(address);
        if round % 2 == 0 {
            client.write_all(b"bye").unwrap();
        }
        drop(client);
        pending(listener.accept(ledger.token(0)).unwrap());
        let (socket, _) = next_accepted(&port).1.unwrap();
        let stream = port.associate(socket, 0).unwrap();
        let mut all = Vec::new();
        loop {
            pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
            let received = next_received(&port);
            if received.result.unwrap() == 0 {
                break;
            }
            all.extend_from_slice(&received.buffer);
        }
        assert_eq!(all, if round % 2 == 0 { &b"bye"[..] } else { b"" });
    }
}

#[test]
fn sockets_in_the_wrong_state_are_rejected_and_given_back() {
    let port = port(0, Wake::default());
    let fresh = || rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    let rejected = port.associate(StdListener::from(fresh()), 1).unwrap_err();
    assert_eq!(rejected.key, 1);
    rustix::net::listen(&rejected.source, 1).unwrap();
    let listener = port.associate(rejected.source, 2).unwrap();
    assert_eq!(*listener.key(), 2);
    let rejected = port.associate(StdStream::from(fresh()), 3).unwrap_err();
    assert_eq!((rejected.error.raw_os_error(), rejected.key), (Some(ENOTCONN), 3));
    rustix::net::connect(&rejected.source, &listener.local_addr().unwrap()).unwrap();
    let stream = port.associate(rejected.source, 4).unwrap();
    assert_eq!(stream.peer_addr().unwrap().port(), listener.local_addr().unwrap().port());
    // The error converts, for programs that use `?`.
    let error: io::Error = port.associate(StdStream::from(fresh()), 5).unwrap_err().into();
    assert_eq!(error.raw_os_error(), Some(ENOTCONN));
}

#[test]
fn a_released_listener_accepts_as_a_std_socket() {
    let (ledger, port, listener, address) = listening();
    pending(listener.accept(ledger.token(1)).unwrap());
    let rejected = listener.release().unwrap_err();
    rejected.source.cancel_all();
    assert_eq!(errno(&next_accepted(&port).1), ECANCELED);
    let listener = rejected.source.release().unwrap();
    let client = client(address);
    assert_eq!(listener.accept().unwrap().1, client.local_addr().unwrap());
}

#[test]
fn with_skip_on_success_each_accept_is_either_done_or_queued() {
    let (ledger, port, listener, address) = listening();
    listener.skip_on_success();
    for n in 0..20 {
        let client = client(address);
        let peer = match listener.accept(ledger.token(n)).unwrap() {
            Outcome::Done(packet) => {
                packet.context.arrive();
                let Event::Accepted { result, .. } = packet.event else { panic!("an accept") };
                result.unwrap().1
            }
            Outcome::Pending(_) => next_accepted(&port).1.unwrap().1,
        };
        assert_eq!(peer, client.local_addr().unwrap());
        quiet(&port, &ledger);
    }
}

// --- Connecting ---

#[test]
fn a_connect_completes_and_the_stream_works() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let server = StdListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let stream = port.connect(address, 6, ledger.token(1)).unwrap();
    let packet = next(&port);
    assert_eq!((packet.key, packet.context.number), (6, 1));
    assert!(matches!(packet.event, Event::Connected { result: Ok(()), .. }));
    quiet(&port, &ledger);
    let (mut peer, from) = server.accept().unwrap();
    assert_eq!(stream.peer_addr().unwrap(), address);
    assert_eq!(stream.local_addr().unwrap(), from);
    pending(stream.recv(vec![0; 8], ledger.token(2)).unwrap());
    peer.write_all(b"welcome").unwrap();
    assert_eq!(&next_received(&port).buffer[..], b"welcome");
    pending(stream.send("thanks", ledger.token(3)).unwrap());
    assert_eq!(next_sent(&port).2.unwrap(), 6);
    let mut text = [0; 6];
    peer.read_exact(&mut text).unwrap();
    let refused = stream.connect(address, ledger.token(4)).unwrap_err();
    assert_eq!(refused.error.raw_os_error(), Some(EISCONN));
    assert_eq!(refused.error.winsock(), 10056);
    quiet(&port, &ledger);
}

#[test]
fn a_peer_that_speaks_first_and_leaves_is_heard_after_the_connect() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let server = StdListener::bind("127.0.0.1:0").unwrap();
    for _ in 0..30 {
        let stream = port.connect(server.local_addr().unwrap(), 0, ledger.token(1)).unwrap();
        let (mut peer, _) = server.accept().unwrap();
        peer.write_all(b"banner").unwrap();
        drop(peer);
        next_connected(&port).2.unwrap();
        pending(stream.recv(vec![0; 64], ledger.token(2)).unwrap());
        pending(stream.recv(vec![0; 64], ledger.token(3)).unwrap());
        assert_eq!(&next_received(&port).buffer[..], b"banner");
        assert_eq!(next_received(&port).result.unwrap(), 0);
    }
}

#[test]
fn a_socket_that_was_bound_before_connects_from_there() {
    let (ledger, port, _listener, _) = listening();
    let peer = StdListener::bind("127.0.0.1:0").unwrap();
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 2], 0))).unwrap();
    let stream = port.connect_with(socket.into(), peer.local_addr().unwrap(), 4, ledger.token(1)).unwrap();
    let packet = next(&port);
    assert!(matches!(packet.event, Event::Connected { result: Ok(()), .. }), "{packet:?}");
    let (_, from) = peer.accept().unwrap();
    assert_eq!(from.ip().to_string(), "127.0.0.2");
    assert_eq!(stream.local_addr().unwrap(), from);
}

#[test]
fn a_refused_connect_comes_as_a_packet_and_the_stream_may_be_connected_again() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let stream = port.connect(dead_address(), 6, ledger.token(1)).unwrap();
    for n in 1..4 {
        let packet = next(&port);
        assert_eq!((packet.key, packet.context.number), (6, n));
        assert_eq!(packet.nt_status(), NtStatus::CONNECTION_REFUSED);
        assert_eq!(winsock(packet.nt_status()), 10061);
        let Event::Connected { stream: same, result } = packet.event else { panic!("a connect") };
        assert_eq!((same.number(), errno(&result)), (stream.number(), ECONNREFUSED));
        assert_eq!(result.unwrap_err().win32(Class::Connect), 1225);
        let refused = stream.recv(vec![0; 8], ledger.token(9)).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(ENOTCONN));
        assert_eq!(refused.error.winsock(), 10057);
        let refused = stream.send("x", ledger.token(9)).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(ENOTCONN));
        if n < 3 {
            pending(stream.connect(dead_address(), ledger.token(n + 1)).unwrap());
        }
    }
    let server = StdListener::bind("127.0.0.1:0").unwrap();
    pending(stream.connect(server.local_addr().unwrap(), ledger.token(4)).unwrap());
    let (number, _, result) = next_connected(&port);
    assert_eq!(number, 4);
    result.unwrap();
    let (mut peer, _) = server.accept().unwrap();
    // Nothing of the failed attempts may stick to the stream.
    pending(stream.recv(vec![0; 8], ledger.token(5)).unwrap());
    quiet(&port, &ledger);
    peer.write_all(b"at last").unwrap();
    assert_eq!(&next_received(&port).buffer[..], b"at last");
    pending(stream.send("yes", ledger.token(6)).unwrap());
    assert_eq!(next_sent(&port).2.unwrap(), 3);
    for n in 7..20 {
        pending(stream.recv(vec![0; 8], ledger.token(n)).unwrap());
        peer.write_all(&[n as u8]).unwrap();
        assert_eq!(&next_received(&port).buffer[..], [n as u8]);
    }
}

#[test]
fn what_cannot_be_connected_is_refused_at_once() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    for address in ["0.0.0.0:80", "127.0.0.1:0", "[::]:80"] {
        let refused = match port.connect(address.parse().unwrap(), 0, ledger.token(1)) {
            Err(refused) => refused,
            Ok(_) => panic!("{address} was accepted"),
        };
        assert_eq!(refused.error.raw_os_error(), Some(EADDRNOTAVAIL), "{address}");
        assert_eq!(refused.error.winsock(), 10049);
        assert_eq!(refused.context.number, 1);
    }
    quiet(&port, &ledger);
    assert!(port.devices().is_empty(), "a refused connect leaves no device");
    port.close();
    assert!(port.connect(dead_address(), 0, ledger.token(2)).is_err());
}

#[test]
fn connecting_over_ipv6_works() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let listener = match port.listen("[::1]:0", 1) {
        Ok(listener) => listener,
        Err(error) => return skipped("connecting over IPv6", &format!("no [::1] on this machine ({error})")),
    };
    pending(listener.accept(ledger.token(1)).unwrap());
    let stream = port.connect(listener.local_addr().unwrap(), 2, ledger.token(2)).unwrap();
    let mut numbers = [0; 2];
    for number in &mut numbers {
        let packet = next(&port);
        assert!(packet.error().is_none());
        *number = packet.context.number;
    }
    numbers.sort_unstable();
    assert_eq!(numbers, [1, 2]);
    assert!(stream.peer_addr().unwrap().is_ipv6());
}

/// A listener whose queue is full, so that further connects stay without an answer; the clients that fill it.
fn full_listener() -> (StdListener, Vec<StdStream>) {
    // On Windows std's first socket starts what sockets need.
    drop(StdListener::bind("127.0.0.1:0"));
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = StdListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut clients = Vec::new();
    // A connect that is not answered in this time is taken for one that will not be; see the users of this.
    while let Ok(client) = StdStream::connect_timeout(&address, Duration::from_millis(300)) {
        clients.push(client);
        assert!(clients.len() < 100, "the queue does not fill");
    }
    (listener, clients)
}

#[test]
fn a_connect_that_is_cancelled_or_closed_ends_once_and_leaves_no_connection() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (listener, mut clients) = full_listener();
    let address = listener.local_addr().unwrap();
    let cancelled = port.connect(address, 1, ledger.token(1)).unwrap();
    let closed = port.connect(address, 2, ledger.token(2)).unwrap();
    quiet(&port, &ledger);
    // While it is pending the stream takes nothing else.
    assert_eq!(cancelled.send("x", ledger.token(9)).unwrap_err().error.raw_os_error(), Some(ENOTCONN));
    assert_eq!(cancelled.connect(address, ledger.token(9)).unwrap_err().error.raw_os_error(), Some(EINVAL));
    let mine = [cancelled.local_addr().unwrap(), closed.local_addr().unwrap()];
    assert_eq!(cancelled.cancel_all(), 1);
    let (number, _, result) = next_connected(&port);
    assert_eq!((number, errno(&result)), (1, ECANCELED));
    closed.close();
    let (number, _, result) = next_connected(&port);
    assert_eq!((number, errno(&result)), (2, ECANCELED));
    quiet(&port, &ledger);
    assert!(cancelled.send("x", ledger.token(9)).is_err());
    assert!(cancelled.recv(vec![0; 8], ledger.token(9)).is_err());
    // There is room for them now. The system repeats its attempts after 1 and 3 s, if it still makes them.
    listener.set_nonblocking(true).unwrap();
    let until = Instant::now() + Duration::from_millis(3500);
    let mut came = 0;
    while Instant::now() < until {
        match listener.accept() {
            Ok((_, peer)) => {
                assert!(!mine.contains(&peer), "a cancelled connect has made a connection");
                came += 1;
            }
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    }
    assert!(came >= clients.len().min(1), "those that were connected before are accepted");
    clients.clear();
    assert!(port.get_timeout(Duration::ZERO).is_err());
}

#[test]
fn a_cancelled_connect_may_be_tried_again() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (listener, _clients) = full_listener();
    let stream = port.connect(listener.local_addr().unwrap(), 1, ledger.token(1)).unwrap();
    assert_eq!(stream.cancel_all(), 1);
    assert_eq!(errno(&next_connected(&port).2), ECANCELED);
    // "After a failure the stream may be connected again."
    let server = StdListener::bind("127.0.0.1:0").unwrap();
    match stream.connect(server.local_addr().unwrap(), ledger.token(2)) {
        Ok(outcome) => {
            pending(outcome);
            next_connected(&port).2.unwrap();
            assert_eq!(stream.peer_addr().unwrap(), server.local_addr().unwrap());
        }
        Err(refused) => panic!("a stream whose connect was cancelled cannot be used again: {}", refused.error),
    }
}

#[test]
fn a_connect_that_is_under_way_completes_when_there_is_room() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (listener, clients) = full_listener();
    let stream = port.connect(listener.local_addr().unwrap(), 1, ledger.token(1)).unwrap();
    quiet(&port, &ledger);
    for _ in 0..clients.len() {
        listener.accept().unwrap();
    }
    next_connected(&port).2.unwrap();
    loop {
        let (mut peer, from) = listener.accept().unwrap();
        if from == stream.local_addr().unwrap() {
            pending(stream.recv(vec![0; 8], ledger.token(2)).unwrap());
            peer.write_all(b"x").unwrap();
            assert_eq!(next_received(&port).result.unwrap(), 1);
            break;
        }
    }
}

// --- Disconnecting ---

#[test]
fn a_disconnect_ends_the_sending_side_only() {
    let (ledger, port, listener, address) = listening();
    pending(listener.accept(ledger.token(0)).unwrap());
    let mut peer = client(address);
    let stream = port.associate(next_accepted(&port).1.unwrap().0, 8).unwrap();
    pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
    pending(stream.disconnect(ledger.token(2)).unwrap());
    let packet = next(&port);
    assert_eq!((packet.key, packet.context.number), (8, 2));
    assert!(matches!(packet.event, Event::Disconnected { result: Ok(()), .. }));
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the peer sees the end of the stream");
    assert_eq!(stream.send("x", ledger.token(3)).unwrap_err().error.raw_os_error(), Some(ESHUTDOWN));
    assert_eq!(stream.send("x", ledger.token(3)).unwrap_err().error.winsock(), 10058);
    assert_eq!(stream.disconnect(ledger.token(4)).unwrap_err().error.raw_os_error(), Some(ESHUTDOWN));
    assert_eq!(stream.connect(address, ledger.token(4)).unwrap_err().error.winsock(), 10056);
    assert_eq!(stream.peer_addr().unwrap(), peer.local_addr().unwrap());
    peer.write_all(b"go on").unwrap();
    assert_eq!(&next_received(&port).buffer[..], b"go on");
    pending(stream.recv(vec![0; 8], ledger.token(5)).unwrap());
    drop(peer);
    assert_eq!(next_received(&port).result.unwrap(), 0);
    quiet(&port, &ledger);
}

#[test]
fn a_disconnect_waits_for_the_sends_before_it() {
    const BYTES: usize = 4 * 1024 * 1024;
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (server, mut peer) = pair();
    small_buffers([&server, &peer]);
    let stream = port.associate(server, 0).unwrap();
    for n in 0..3 {
        pending(stream.send(vec![n as u8; BYTES], ledger.token(n)).unwrap());
    }
    pending(stream.disconnect(ledger.token(3)).unwrap());
    assert_eq!(stream.send("late", ledger.token(4)).unwrap_err().error.raw_os_error(), Some(ESHUTDOWN));
    quiet(&port, &ledger);
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    for n in 0..3 {
        assert_eq!(next_sent(&port).0, n);
    }
    assert!(matches!(next(&port).event, Event::Disconnected { result: Ok(()), .. }));
    let all = reader.join().unwrap();
    assert_eq!(all.len(), 3 * BYTES);
    assert!(all.chunks(BYTES).enumerate().all(|(n, chunk)| chunk.iter().all(|&byte| usize::from(byte) == n)));
}

#[test]
fn a_stream_that_is_not_connected_has_nothing_to_disconnect() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let stream = port.connect(dead_address(), 0, ledger.token(1)).unwrap();
    assert_eq!(errno(&next_connected(&port).2), ECONNREFUSED);
    let refused = stream.disconnect(ledger.token(2)).unwrap_err();
    assert_eq!((refused.error.raw_os_error(), refused.error.winsock()), (Some(ENOTCONN), 10057));
    assert_eq!(stream.shutdown(Shutdown::Both).unwrap_err().raw_os_error(), Some(ENOTCONN));
    quiet(&port, &ledger);
}

#[test]
fn a_reset_ends_a_disconnect_that_waits() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (server, peer) = pair();
    small_buffers([&server, &peer]);
    let stream = port.associate(server, 0).unwrap();
    pending(stream.send(vec![0; 4 * 1024 * 1024], ledger.token(1)).unwrap());
    pending(stream.disconnect(ledger.token(2)).unwrap());
    quiet(&port, &ledger);
    reset(peer);
    assert_eq!(errno(&next_sent(&port).2), ECONNRESET);
    let packet = next(&port);
    assert_eq!(packet.context.number, 2);
    assert!(matches!(packet.event, Event::Disconnected { .. }));
}

// --- Many ---

#[cfg(unix)]
#[test]
fn thousands_of_connections_open_and_close_at_once() {
    // A process of its own: it takes nearly all descriptors there may be.
    in_child("thousands_of_connections_open_and_close_at_once", || {
        const WANTED: usize = 10_000;
        let limit = rustix::process::getrlimit(Resource::Nofile);
        let _ = rustix::process::setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
        let limit = rustix::process::getrlimit(Resource::Nofile).current.unwrap_or(1 << 20) as usize;
        // Both ends are in this process.
        let count = WANTED.min((limit - 60) / 2);
        if count < WANTED {
            skipped(
                &format!("{WANTED} connections"),
                &format!("{count} is what {limit} descriptors allow (ulimit -n)"),
            );
        }
        assert!(count >= 100, "a limit of {limit} descriptors is too low for this test; raise it (ulimit -n)");
        let ledger = Ledger::new();
        let port: Port = Port::options().concurrency(2).build().unwrap();
        let listener = port.listen("127.0.0.1:0", 0).unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, ended, served) =
            (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let counters = (accepted.clone(), ended.clone(), served.clone());
        let (associate, mint) = (port.clone(), ledger.mint());
        let pool = port
            .start(Workers::new(3), move |packet| {
                packet.context.arrive();
                match packet.event {
                    Event::Accepted { listener, result } => {
                        drop(listener.accept(mint.token(0)));
                        let Ok((socket, _)) = result else { return };
                        counters.0.fetch_add(1, SeqCst);
                        match associate.associate(socket, 1) {
                            Ok(stream) => drop(pending(stream.recv(vec![0; 64], mint.token(1)).unwrap())),
                            Err(_) => drop(counters.1.fetch_add(1, SeqCst)),
                        }
                    }
                    Event::Received { stream, result: Ok(1..), buffer } => {
                        counters.2.fetch_add(1, SeqCst);
                        drop(stream.send(buffer, mint.token(2)));
                    }
                    Event::Sent { stream, result: Ok(_), buffer } => {
                        if stream.recv(buffer, mint.token(3)).is_err() {
                            counters.1.fetch_add(1, SeqCst);
                        }
                    }
                    Event::Received { .. } | Event::Sent { .. } => drop(counters.1.fetch_add(1, SeqCst)),
                    other => panic!("{other:?}"),
                }
            })
            .unwrap();
        for _ in 0..32 {
            pending(listener.accept(ledger.token(0)).unwrap());
        }
        for round in 0..2 {
            for counter in [&accepted, &ended, &served] {
                counter.store(0, SeqCst);
            }
            let mut clients: Vec<StdStream> = (0..count).map(|_| client(address)).collect();
            eventually("all connections are accepted", || accepted.load(SeqCst) == count);
            for client in &mut clients {
                client.write_all(b"hello").unwrap();
            }
            for client in &mut clients {
                client.read_exact(&mut [0; 5]).unwrap();
            }
            assert_eq!(served.load(SeqCst), count);
            assert!(port.stats().devices > count);
            for (n, client) in clients.into_iter().enumerate() {
                if n % 2 == 0 { drop(client) } else { reset(client) }
            }
            eventually(&format!("round {round}: all connections have ended"), || ended.load(SeqCst) == count);
            eventually("their devices are gone", || port.stats().devices == 1);
        }
        port.close();
        pool.join();
    });
}

/// Opens descriptors until there is none left.
#[cfg(unix)]
fn take_all_descriptors() -> Vec<std::fs::File> {
    let mut files = Vec::new();
    while let Ok(file) = std::fs::File::open("/dev/null") {
        files.push(file);
    }
    files
}

#[cfg(unix)]
fn lower_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    rustix::process::setrlimit(Resource::Nofile, Rlimit { current: Some(64), ..limit }).unwrap();
}

#[cfg(unix)]
#[test]
fn without_free_descriptors_accepting_pauses_without_spinning_and_resumes() {
    in_child("without_free_descriptors_accepting_pauses_without_spinning_and_resumes", || {
        lower_descriptor_limit();
        for with_pool in [false, true] {
            let (ledger, port, listener, address) = listening();
            const CLIENTS: usize = 12;
            let clients: Vec<StdStream> = (0..CLIENTS).map(|_| client(address)).collect();
            let accepted = Arc::new(AtomicUsize::new(0));
            let kept: Arc<std::sync::Mutex<Vec<StdStream>>> = Arc::default();
            let handle = {
                let (accepted, kept) = (accepted.clone(), kept.clone());
                move |packet: Taken| {
                    packet.context.arrive();
                    let Event::Accepted { result, .. } = packet.event else { panic!("an accept") };
                    kept.lock().unwrap().push(result.unwrap().0);
                    accepted.fetch_add(1, SeqCst);
                }
            };
            let pool = with_pool.then(|| port.start(Workers::exactly(2), handle.clone()).unwrap());
            let serve = |time: Duration| {
                let until = Instant::now() + time;
                while Instant::now() < until {
                    if with_pool {
                        thread::sleep(Duration::from_millis(1));
                    } else if let Ok(packet) = port.get_timeout(time) {
                        handle(packet);
                    }
                }
            };
            if with_pool {
                // Their own descriptors, made when they first need them, are there before all are taken.
                (0..4).for_each(|_| serve(Duration::from_millis(10)));
            }
            let mut files = take_all_descriptors();
            for n in 0..CLIENTS as u64 {
                pending(listener.accept(ledger.token(n)).unwrap());
            }
            let (processor, wall) = (processor_time(), Instant::now());
            serve(Duration::from_secs(1));
            let (processor, wall) = (processor_time() - processor, wall.elapsed());
            assert_eq!(accepted.load(SeqCst), 0, "there was no descriptor for a connection");
            assert!(processor < wall / 5, "waiting for a descriptor took {processor:?} of processor time in {wall:?}");
            // Posted packets go their way meanwhile; so does the rest of the port.
            if !with_pool {
                port.post(0, 0, ledger.token(77)).unwrap();
                assert_eq!(next(&port).context.number, 77);
            }
            let until = Instant::now() + DEADLINE;
            let mut given = 0;
            while accepted.load(SeqCst) < CLIENTS {
                assert!(Instant::now() < until, "{given} descriptors are free and {accepted:?} connections accepted");
                // The port does not hear of it when somebody else closes a descriptor.
                if accepted.load(SeqCst) == given {
                    drop(files.pop().expect("there are more files than clients"));
                    given += 1;
                }
                serve(Duration::from_millis(20));
                assert!(accepted.load(SeqCst) <= given);
            }
            drop(files);
            assert_eq!(kept.lock().unwrap().len(), CLIENTS);
            port.close();
            if let Some(pool) = pool {
                pool.join();
            }
            drop(clients);
        }
    });
}

#[cfg(unix)]
#[test]
fn accepting_resumes_when_a_connection_of_the_port_is_closed() {
    in_child("accepting_resumes_when_a_connection_of_the_port_is_closed", || {
        lower_descriptor_limit();
        let (ledger, port, listener, address) = listening();
        let clients: Vec<StdStream> = (0..20).map(|_| client(address)).collect();
        let mut spare = take_all_descriptors();
        spare.truncate(spare.len() - 3);
        // One at a time is what a server has outstanding.
        let mut streams: Vec<Stream> = Vec::new();
        let mut seen = HashSet::new();
        pending(listener.accept(ledger.token(0)).unwrap());
        while seen.len() < clients.len() {
            match port.get_timeout(if streams.is_empty() { DEADLINE } else { Duration::from_millis(30) }) {
                Ok(packet) => {
                    packet.context.arrive();
                    match packet.event {
                        Event::Accepted { listener, result } => {
                            let (socket, peer) = result.unwrap();
                            assert!(seen.insert(peer), "accepted twice");
                            streams.push(port.associate(socket, 1).unwrap());
                            pending(listener.accept(ledger.token(0)).unwrap());
                        }
                        other => panic!("{other:?}"),
                    }
                }
                Err(GetError::TimedOut) if !streams.is_empty() => drop(streams.remove(0)),
                Err(error) => panic!("accepting does not go on: {error}, {} accepted", seen.len()),
            }
        }
    });
}

#[cfg(unix)]
#[test]
fn operations_that_need_a_descriptor_fail_with_the_systems_error() {
    in_child("operations_that_need_a_descriptor_fail_with_the_systems_error", || {
        const EMFILE: i32 = 24;
        lower_descriptor_limit();
        let (ledger, port, _listener, address) = listening();
        let (stream, mut peer) = connection(&port, 0);
        pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
        let files = take_all_descriptors();
        let refused = match port.connect(address, 0, ledger.token(2)) {
            Err(refused) => refused,
            Ok(_) => panic!("there was no descriptor for a socket"),
        };
        assert_eq!((refused.error.raw_os_error(), refused.context.number), (Some(EMFILE), 2));
        assert_eq!(port.listen("127.0.0.1:0", 0).unwrap_err().raw_os_error(), Some(EMFILE));
        assert_eq!(wharf::CompletionPort::<(), ()>::new().unwrap_err().raw_os_error(), Some(EMFILE));
        assert_eq!(port.notifier().unwrap_err().raw_os_error(), Some(EMFILE));
        // What is there goes on, with several threads too: their way to sleep may need a descriptor.
        let done = Arc::new(AtomicUsize::new(0));
        let count = done.clone();
        let mint = ledger.mint();
        {
            let _crew = Crew::start(&port, 4, move |_, packet| {
                if let Event::Received { stream, buffer, result: Ok(1..) } = packet.event {
                    pending(stream.recv(buffer, mint.token(3)).unwrap());
                }
                count.fetch_add(1, SeqCst);
            });
            for n in 0..50 {
                peer.write_all(b"x").unwrap();
                port.post(0, 0, ledger.token(4)).unwrap();
                port.post(0, 0, ledger.token(5)).unwrap();
                eventually("packets are taken without a free descriptor", || done.load(SeqCst) >= 3 * n + 3);
            }
        }
        drop(files);
    });
}

// --- Refused sources ---

#[cfg(unix)]
#[test]
fn a_source_that_is_refused_comes_back_in_the_mode_it_had() {
    use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
    let closed = port(1, Wake::default());
    closed.close();
    macro_rules! refused {
        ($source:expr) => {
            let mut source = $source;
            for nonblocking in [false, true, false] {
                rustix::io::ioctl_fionbio(&source, nonblocking).unwrap();
                let Err(rejected) = closed.associate(source, 7) else { panic!("a closed port took a source") };
                assert_eq!(rejected.key, 7);
                source = rejected.source;
                let flags = rustix::fs::fcntl_getfl(&source).unwrap();
                assert_eq!(flags.contains(rustix::fs::OFlags::NONBLOCK), nonblocking, stringify!($source));
            }
        };
    }
    let path = std::env::temp_dir().join(format!("wharf-refused-{}", std::process::id()));
    let (reader, writer) = std::io::pipe().unwrap();
    refused!(pair().0);
    refused!(StdListener::bind("127.0.0.1:0").unwrap());
    refused!(std::net::UdpSocket::bind("127.0.0.1:0").unwrap());
    refused!(UnixStream::pair().unwrap().0);
    refused!(UnixListener::bind(&path).unwrap());
    refused!(UnixDatagram::pair().unwrap().0);
    refused!(reader);
    refused!(std::os::fd::OwnedFd::from(writer));
    std::fs::remove_file(&path).unwrap();
}

// --- Forking ---

#[cfg(unix)]
/// Runs `child` in a forked process; returns its number.
#[allow(unsafe_code)]
fn fork(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the callers' processes run this test alone and have no thread that could hold a lock at this point, so
    // the child may do whatever the parent could; it leaves by _exit and runs none of the parent's destructors.
    match unsafe { libc::fork() } {
        0 => {
            alarm();
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(101);
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        -1 => panic!("fork: {}", io::Error::last_os_error()),
        number => number,
    }
}

#[cfg(unix)]
/// Waits for a forked child and returns its exit code.
#[allow(unsafe_code)]
fn exit_code(number: i32) -> i32 {
    let mut status = 0;
    // SAFETY: `status` is ours to be written.
    assert_eq!(unsafe { libc::waitpid(number, &raw mut status, 0) }, number);
    assert!(libc::WIFEXITED(status), "the forked child was killed by signal {}", libc::WTERMSIG(status));
    libc::WEXITSTATUS(status)
}

#[cfg(unix)]
#[test]
fn a_forked_child_cannot_use_the_port() {
    in_child("a_forked_child_cannot_use_the_port", || {
        let (ledger, port, listener, address) = listening();
        let (stream, mut peer) = connection(&port, 1);
        pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
        pending(listener.accept(ledger.token(2)).unwrap());
        port.timer(Duration::from_millis(100), 0, ledger.token(3)).unwrap();
        port.post(0, 0, ledger.token(4)).unwrap();
        let child = fork(|| {
            let checks = [
                port.get_timeout(Duration::ZERO).unwrap_err() == GetError::Forked,
                port.get().unwrap_err() == GetError::Forked,
                port.get_many(4).unwrap_err() == GetError::Forked,
                port.post(0, 0, ledger.token(9)).is_err_and(|unposted| unposted.reason == UnpostedReason::Closed),
                port.try_post(0, 0, ledger.token(9), 9).is_err(),
                stream.recv(vec![0; 8], ledger.token(9)).is_err(),
                stream.send("from the child", ledger.token(9)).is_err(),
                stream.disconnect(ledger.token(9)).is_err(),
                stream.shutdown(Shutdown::Both).is_err(),
                listener.accept(ledger.token(9)).is_err(),
                port.timer(Duration::ZERO, 0, ledger.token(9)).is_err(),
                port.listen("127.0.0.1:0", 0).is_err(),
                port.connect(address, 0, ledger.token(9)).is_err(),
                port.associate(client(address), 0).is_err(),
                GetError::Forked.win32() == 6,
            ];
            if let Some(at) = checks.iter().position(|holds| !holds) {
                return 10 + at as i32;
            }
            // A port of the child's own.
            let own: Port = Port::new().unwrap();
            own.post(0, 5, ledger.token(8)).unwrap();
            if own.get_timeout(DEADLINE).unwrap().key != 5 {
                return 2;
            }
            let (stream, mut peer) = connection(&own, 6);
            stream.recv(vec![0; 8], ledger.token(8)).unwrap();
            peer.write_all(b"x").unwrap();
            if own.get_timeout(DEADLINE).unwrap().key != 6 {
                return 3;
            }
            0
        });
        assert_eq!(exit_code(child), 0, "10 and more: which of the child's calls did otherwise than fail");
        let mut seen = HashSet::new();
        peer.write_all(b"data").unwrap();
        let _client = client(address);
        for _ in 0..4 {
            let packet = next(&port);
            assert!(packet.error().is_none(), "{packet:?}");
            seen.insert(packet.context.number);
        }
        assert_eq!(seen, HashSet::from([1, 2, 3, 4]));
    });
}

#[cfg(unix)]
#[test]
fn a_forked_child_that_closes_its_sockets_leaves_the_parents_alone() {
    in_child("a_forked_child_that_closes_its_sockets_leaves_the_parents_alone", || {
        let (ledger, port, listener, address) = listening();
        let (stream, mut peer) = connection(&port, 1);
        pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
        pending(listener.accept(ledger.token(2)).unwrap());
        let child = fork(|| {
            stream.cancel_all();
            stream.close();
            listener.close();
            drop((stream.clone(), listener.clone()));
            0
        });
        assert_eq!(exit_code(child), 0);
        peer.write_all(b"data").unwrap();
        let _client = client(address);
        let mut seen = HashSet::new();
        for _ in 0..2 {
            let packet = next(&port);
            assert!(packet.error().is_none(), "{packet:?}");
            seen.insert(packet.context.number);
        }
        assert_eq!(seen, HashSet::from([1, 2]));
        // And again, for later edges of the same socket.
        for n in 0..5 {
            pending(stream.recv(vec![0; 8], ledger.token(n)).unwrap());
            peer.write_all(b"more").unwrap();
            assert_eq!(next_received(&port).result.unwrap(), 4);
        }
        pending(stream.send("and back", ledger.token(5)).unwrap());
        assert_eq!(next_sent(&port).2.unwrap(), 8);
        let mut text = [0; 8];
        peer.read_exact(&mut text).unwrap();
    });
}

#[cfg(unix)]
#[test]
fn a_forked_child_that_cancels_a_timer_leaves_the_parents_alone() {
    in_child("a_forked_child_that_cancels_a_timer_leaves_the_parents_alone", || {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let timer = port.timer(Duration::from_millis(200), 0, ledger.token(1)).unwrap();
        let child = fork(|| {
            port.cancel(timer);
            0
        });
        assert_eq!(exit_code(child), 0);
        assert!(next(&port).error().is_none());
    });
}

#[cfg(unix)]
#[test]
fn a_forked_child_that_closes_the_port_leaves_the_parents_alone() {
    in_child("a_forked_child_that_closes_the_port_leaves_the_parents_alone", || {
        let (ledger, port, listener, address) = listening();
        pending(listener.accept(ledger.token(1)).unwrap());
        port.timer(Duration::from_millis(200), 0, ledger.token(2)).unwrap();
        // As it happens without a word when the child returns from main and drops what it has.
        let child = fork(|| {
            port.close();
            0
        });
        assert_eq!(exit_code(child), 0);
        let _client = client(address);
        for expected in [1, 2] {
            let packet = next(&port);
            assert!(packet.error().is_none());
            assert_eq!(packet.context.number, expected);
        }
    });
}

#[cfg(unix)]
#[test]
fn a_child_that_lives_on_with_copies_of_all_descriptors_disturbs_nothing() {
    in_child("a_child_that_lives_on_with_copies_of_all_descriptors_disturbs_nothing", || {
        let (ledger, port, _listener, _address) = listening();
        let (stream, peer) = connection(&port, 1);
        let (mut mine, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
        let child = fork(|| {
            let _ = theirs.read(&mut [0; 1]);
            0
        });
        // The child's copy keeps the socket alive; the port must not hear of it under a number that it gave up.
        pending(stream.recv(vec![0; 8], ledger.token(1)).unwrap());
        stream.close();
        assert_eq!(errno(&next_received(&port).result), ECANCELED);
        (&peer).write_all(b"late").unwrap();
        quiet(&port, &ledger);
        let (stream, mut peer) = connection(&port, 2);
        pending(stream.recv(vec![0; 8], ledger.token(2)).unwrap());
        peer.write_all(b"x").unwrap();
        assert_eq!(next_received(&port).number, 2);
        port.timer(Duration::from_millis(1), 0, ledger.token(3)).unwrap();
        assert_eq!(next(&port).context.number, 3);
        mine.write_all(b"x").unwrap();
        assert_eq!(exit_code(child), 0);
    });
}

#[test]
fn buffers_of_a_refused_operation_come_back_whole() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let stream = port.connect(dead_address(), 0, ledger.token(1)).unwrap();
    assert!(next_connected(&port).2.is_err());
    let refused = stream.recv(Buffer::with_capacity(33), ledger.token(2)).unwrap_err();
    assert_eq!((refused.buffer.capacity(), refused.context.number), (33, 2));
    let refused = stream.send_vectored(vec!["ab".into(), vec![1, 2, 3].into()], ledger.token(3)).unwrap_err();
    assert_eq!(refused.buffer.iter().map(|buffer| buffer.len()).sum::<usize>(), 5);
    assert!(stream.recv_pooled(ledger.token(4)).is_err());
    assert!(stream.readable(ledger.token(5)).is_err());
}

#[test]
fn what_a_peer_sent_before_it_reset_is_received_even_if_the_stream_is_associated_later() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut peer = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (accepted, _) = listener.accept().unwrap();
    peer.write_all(b"last words").unwrap();
    reset(peer);
    eventually("the reset has arrived", || accepted.peer_addr().is_err());
    let stream = port.associate(accepted, 5).unwrap();
    for (number, expected) in [(1, Ok(10)), (2, Err(104))] {
        let buffer = Buffer::with_capacity(100);
        match stream.recv(buffer, ledger.token(number)) {
            Ok(outcome) => {
                pending(outcome);
                let received = next_received(&port);
                assert_eq!(received.result.map_err(|error| error.raw_os_error().unwrap()), expected);
            }
            Err(refused) => assert_eq!(Err(refused.error.raw_os_error().unwrap()), expected),
        }
    }
}
