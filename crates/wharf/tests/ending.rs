//! How the sending side of a stream ends: disconnects, shutdowns and closes beside cancelled sends and a linger time.

#![cfg(unix)]

mod common;

use common::{Ledger, errno, next, next_sent, pair, pending, port, small_buffers};
use std::io::Read;
use std::net::Shutdown;
use std::thread;
use std::time::{Duration, Instant};
use wharf::{Cancel, Event, Wake};

/// More than a connection with small buffers takes.
const MUCH: usize = 4 << 20;

#[test]
fn a_cancelled_disconnect_leaves_sending_and_disconnecting_possible() {
    let (ledger, port) = (Ledger::new(), port(1, Wake::default()));
    let (server, mut peer) = pair();
    small_buffers([&server, &peer]);
    let stream = port.associate(server, 1).unwrap();
    pending(stream.send(vec![7; MUCH], ledger.token(1)).unwrap());
    let disconnect = pending(stream.disconnect(ledger.token(2)).unwrap());
    assert_eq!(stream.send("behind it", ledger.token(3)).unwrap_err().error.raw_os_error(), Some(108));
    assert_eq!(stream.cancel(disconnect), Cancel::Requested);
    assert!(matches!(next(&port).event, Event::Disconnected { result: Err(_), .. }));
    pending(stream.send("more", ledger.token(4)).unwrap());
    let send = pending(stream.send(vec![8; MUCH], ledger.token(5)).unwrap());
    pending(stream.disconnect(ledger.token(6)).unwrap());
    stream.cancel(send);
    assert_eq!(errno(&next_sent(&port).2), 125);
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        peer.read_to_end(&mut bytes).unwrap();
        bytes
    });
    assert_eq!(next_sent(&port).2.unwrap(), MUCH);
    assert_eq!(next_sent(&port).2.unwrap(), 4);
    assert!(matches!(next(&port).event, Event::Disconnected { result: Ok(()), .. }));
    let bytes = reader.join().unwrap();
    assert_eq!((bytes.len(), &bytes[MUCH..]), (MUCH + 4, &b"more"[..]));
}

#[test]
fn a_shutdown_beside_a_disconnect_that_is_cancelled_comes_all_the_same() {
    let (ledger, port) = (Ledger::new(), port(1, Wake::default()));
    let (server, mut peer) = pair();
    small_buffers([&server, &peer]);
    let stream = port.associate(server, 1).unwrap();
    pending(stream.send(vec![7; MUCH], ledger.token(1)).unwrap());
    let disconnect = pending(stream.disconnect(ledger.token(2)).unwrap());
    stream.shutdown(Shutdown::Write).unwrap();
    stream.cancel(disconnect);
    assert!(matches!(next(&port).event, Event::Disconnected { result: Err(_), .. }));
    assert_eq!(stream.send("behind it", ledger.token(3)).unwrap_err().error.raw_os_error(), Some(108));
    let reader = thread::spawn(move || peer.read_to_end(&mut Vec::new()).unwrap());
    assert_eq!(next_sent(&port).2.unwrap(), MUCH);
    eventually_ends(&port, reader);
}

/// The peer sees the end of the stream, behind all that was sent.
fn eventually_ends(port: &common::Port, reader: thread::JoinHandle<usize>) {
    while !reader.is_finished() {
        assert!(port.get_timeout(Duration::from_millis(1)).is_err());
    }
    assert_eq!(reader.join().unwrap(), MUCH);
}

#[test]
fn what_waits_for_sends_that_are_cancelled_comes_without_space() {
    for shutdown in [false, true] {
        let (ledger, port) = (Ledger::new(), port(1, Wake::default()));
        let (server, mut peer) = pair();
        small_buffers([&server, &peer]);
        let stream = port.associate(server, 1).unwrap();
        let send = pending(stream.send(vec![7; MUCH], ledger.token(1)).unwrap());
        if shutdown {
            stream.shutdown(Shutdown::Write).unwrap();
            assert_eq!(stream.cancel_all(), 1);
        } else {
            pending(stream.disconnect(ledger.token(2)).unwrap());
            stream.cancel(send);
        }
        assert_eq!(errno(&next_sent(&port).2), 125);
        if !shutdown {
            // The peer has read nothing so far.
            assert!(matches!(next(&port).event, Event::Disconnected { result: Ok(()), .. }));
        }
        assert!(port.get_timeout(Duration::ZERO).is_err());
        let read = peer.read_to_end(&mut Vec::new()).unwrap();
        assert!(read < MUCH, "the end came behind what had gone out");
    }
}

#[test]
fn a_close_does_not_wait_for_a_linger_time_and_loses_nothing() {
    const LINGER: Duration = Duration::from_secs(60);
    let (ledger, port) = (Ledger::new(), port(1, Wake::default()));
    let (server, mut peer) = pair();
    small_buffers([&server, &peer]);
    rustix::net::sockopt::set_socket_linger(&server, Some(LINGER)).unwrap();
    let stream = port.associate(server, 1).unwrap();
    let mut sent = 0;
    // More than the peer's buffer: taken by the system, and not gone.
    for _ in 0..4 {
        stream.send(vec![7; 60_000], ledger.token(1)).unwrap();
        match port.get_timeout(Duration::from_millis(20)) {
            Ok(packet) => {
                packet.context.arrive();
                sent += 60_000;
            }
            Err(_) => break,
        }
    }
    let begun = Instant::now();
    stream.close();
    assert!(begun.elapsed() < LINGER / 3, "close waits");
    while let Ok(packet) = port.get_timeout(Duration::ZERO) {
        packet.context.arrive();
    }
    assert!(peer.read_to_end(&mut Vec::new()).unwrap() >= sent);
}
