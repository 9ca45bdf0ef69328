//! Receives that take their bytes otherwise than most: until the buffers are full, as a look, or the urgent byte.

mod common;

use common::numbers::{ECANCELED, EINVAL};
use common::*;
use std::io::Write;
use std::thread;
use std::time::Duration;
use wharf::raw::{self, Buffers, Completion, DeviceKind, Issued, RawBuffer, ReceiveFlags, Sink};
use wharf::{Buffer, Wake};

// --- Until the buffers are full ---

#[test]
fn a_receive_that_waits_for_all_completes_when_it_is_full() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (stream, mut peer) = connection(&port, 7);
    stream.recv_exact(Buffer::with_capacity(10), ledger.token(1)).unwrap();
    stream.recv(Buffer::with_capacity(10), ledger.token(2)).unwrap();
    for piece in [&b"abc"[..], b"d", b"efghi"] {
        peer.write_all(piece).unwrap();
        if let Ok(packet) = port.get_timeout(Duration::from_millis(5)) {
            panic!("it is not full: {packet:?}");
        }
    }
    peer.write_all(b"jklm").unwrap();
    let (first, second) = (next_received(&port), next_received(&port));
    assert_eq!((first.number, &first.buffer[..], first.result.unwrap()), (1, &b"abcdefghij"[..], 10));
    assert_eq!((second.number, &second.buffer[..]), (2, &b"klm"[..]), "the next begins behind it");
    quiet(&port, &ledger);
}

#[test]
fn it_ends_with_the_stream_and_with_what_came_before() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (stream, mut peer) = connection(&port, 7);
    stream.recv_exact(Buffer::with_capacity(10), ledger.token(1)).unwrap();
    peer.write_all(b"abc").unwrap();
    drop(peer);
    let ended = next_received(&port);
    assert_eq!((&ended.buffer[..], ended.result.unwrap()), (&b"abc"[..], 3));
    stream.recv_exact(Buffer::with_capacity(10), ledger.token(2)).unwrap();
    assert_eq!(next_received(&port).result.unwrap(), 0);
}

#[test]
fn a_cancel_loses_no_byte() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (stream, mut peer) = connection(&port, 7);
    let receive = pending(stream.recv_exact(Buffer::with_capacity(10), ledger.token(1)).unwrap());
    peer.write_all(b"abcd").unwrap();
    let mut tries = 0;
    loop {
        // Until it has them.
        assert!(port.get_timeout(Duration::from_millis(5)).is_err());
        tries += 1;
        if tries == 10 {
            break;
        }
    }
    stream.cancel(receive);
    let ended = next_received(&port);
    assert_eq!(errno(&ended.result), ECANCELED);
    let had = ended.buffer.to_vec();
    stream.recv(Buffer::with_capacity(10), ledger.token(2)).unwrap();
    peer.write_all(b"e").unwrap();
    let mut all = had;
    all.extend_from_slice(&next_received(&port).buffer);
    while all.len() < 5 {
        stream.recv(Buffer::with_capacity(10), ledger.token(2)).unwrap();
        all.extend_from_slice(&next_received(&port).buffer);
    }
    assert_eq!(&all, b"abcde");
}

#[test]
fn very_much_comes_in_whole_while_others_have_their_turn() {
    let ledger = Ledger::new();
    let port = port(1, Wake::Eager);
    let (stream, mut peer) = connection(&port, 7);
    let sent = pattern(8 << 20, 3);
    let writer = thread::spawn({
        let sent = sent.clone();
        move || peer.write_all(&sent).map(|()| peer)
    });
    stream.recv_exact(Buffer::with_capacity(sent.len()), ledger.token(1)).unwrap();
    let came = next_received(&port);
    assert_eq!(came.result.unwrap(), sent.len());
    assert!(came.buffer[..] == sent[..]);
    drop(writer.join().unwrap());
}

// --- The raw layer's ---

fn raw_port() -> raw::Port {
    raw::Port::new(raw::Config::default()).unwrap()
}

fn device(port: &raw::Port) -> (raw::Device, std::net::TcpStream) {
    let (server, peer) = pair();
    server.set_nonblocking(true).unwrap();
    (port.adopt(server, DeviceKind::Stream, 5).unwrap(), peer)
}

/// Receives into some memory, which is never freed.
#[allow(unsafe_code)]
fn receive(port: &raw::Port, device: &raw::Device, bytes: usize, flags: ReceiveFlags) -> Result<&'static [u8], i32> {
    let memory = Vec::leak(vec![0_u8; bytes]);
    let piece = RawBuffer { pointer: memory.as_mut_ptr(), length: bytes };
    // SAFETY: the memory is this operation's, and is looked at behind its completion.
    let issued = unsafe { port.receive_with(device, Buffers::One(piece), flags, 1, Sink::Port) };
    issued.map(|issued| {
        assert!(matches!(issued, Issued::Pending(_)));
        &*memory
    })
}

fn got(port: &raw::Port) -> (usize, i32) {
    let Completion { bytes, error, .. } = port.get(Some(DEADLINE)).unwrap();
    (bytes, error)
}

#[test]
#[allow(unsafe_code)]
fn what_goes_not_together_is_refused() {
    let port = raw_port();
    let (device, _peer) = device(&port);
    for other in [ReceiveFlags::PEEK, ReceiveFlags::OUT_OF_BAND] {
        assert_eq!(receive(&port, &device, 4, ReceiveFlags::WAIT_ALL | other), Err(EINVAL));
    }
    for flags in [ReceiveFlags::WAIT_ALL, ReceiveFlags::OUT_OF_BAND] {
        // SAFETY: it names no memory.
        let issued = unsafe { port.receive_with(&device, Buffers::Pooled, flags, 1, Sink::Port) };
        assert_eq!(issued.unwrap_err(), EINVAL);
    }
    port.close_device(&device);
}

#[test]
fn what_a_peek_brings_stays() {
    let port = raw_port();
    let (device, mut peer) = device(&port);
    if cfg!(windows) {
        assert_eq!(receive(&port, &device, 4, ReceiveFlags::PEEK), Err(10045));
        return;
    }
    let looked = receive(&port, &device, 4, ReceiveFlags::PEEK).unwrap();
    let again = receive(&port, &device, 16, ReceiveFlags::PEEK).unwrap();
    let taken = receive(&port, &device, 16, ReceiveFlags::default()).unwrap();
    let behind = receive(&port, &device, 16, ReceiveFlags::PEEK).unwrap();
    peer.write_all(b"abcdef").unwrap();
    assert_eq!((got(&port), got(&port), got(&port)), ((4, 0), (6, 0), (6, 0)));
    assert_eq!((looked, &again[..6], &taken[..6]), (&b"abcd"[..], &b"abcdef"[..], &b"abcdef"[..]));
    assert!(port.get(Some(Duration::from_millis(5))).is_err(), "there is nothing to look at");
    peer.write_all(b"g").unwrap();
    assert_eq!((got(&port), behind[0]), ((1, 0), b'g'));
    drop(peer);
    let last = receive(&port, &device, 16, ReceiveFlags::default()).unwrap();
    assert_eq!((got(&port), last[0]), ((1, 0), b'g'));
    receive(&port, &device, 16, ReceiveFlags::PEEK).unwrap();
    assert_eq!(got(&port), (0, 0), "the end of the stream");
    port.close_device(&device);
}

#[cfg(unix)]
#[test]
fn the_urgent_byte_is_waited_for() {
    let port = raw_port();
    let (device, peer) = device(&port);
    let urgent = receive(&port, &device, 4, ReceiveFlags::OUT_OF_BAND).unwrap();
    assert!(port.get(Some(Duration::from_millis(5))).is_err());
    let sent = rustix::net::send(&peer, b"xy!", rustix::net::SendFlags::OOB);
    assert_eq!(sent, Ok(3));
    assert_eq!((got(&port), urgent[0]), ((1, 0), b'!'));
    let plain = receive(&port, &device, 4, ReceiveFlags::default()).unwrap();
    assert_eq!((got(&port), &plain[..2]), ((2, 0), &b"xy"[..]));
    receive(&port, &device, 4, ReceiveFlags::OUT_OF_BAND).unwrap();
    assert!(port.get(Some(Duration::from_millis(5))).is_err());
    drop(peer);
    assert_eq!(got(&port), (0, 0), "none will come");
    port.close_device(&device);
}
