//! Calls on borrowed memory: they move what can be moved now, in the stream's turn, and leave no packet.

mod common;

use common::*;
use std::io::{ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Shutdown, TcpStream as StdStream};
use std::thread;
use std::time::Duration;
use wharf::{Buffer, Event, Wake};

#[track_caller]
fn would_block<T: std::fmt::Debug>(result: std::io::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::WouldBlock);
}

#[test]
fn bytes_go_and_come_without_an_operation() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (stream, mut peer) = connection(&port, 7);
    assert_eq!(stream.try_send(b"one").unwrap(), 3);
    let pieces = [IoSlice::new(b"tw"), IoSlice::new(b""), IoSlice::new(b"o")];
    assert_eq!(stream.try_send_vectored(&pieces).unwrap(), 3);
    assert_eq!(stream.try_send(b"").unwrap(), 0);
    let mut six = [0; 6];
    peer.read_exact(&mut six).unwrap();
    assert_eq!(&six, b"onetwo");
    assert_eq!(stream.bytes_taken(), 6);

    let mut buffer = [0; 4];
    would_block(stream.try_recv(&mut buffer));
    peer.write_all(b"abcdefgh").unwrap();
    eventually("it came", || stream.try_recv(&mut buffer).is_ok_and(|bytes| bytes == 4));
    assert_eq!(&buffer, b"abcd");
    let (mut first, mut second) = ([0; 1], [0; 9]);
    let mut into = [IoSliceMut::new(&mut first), IoSliceMut::new(&mut []), IoSliceMut::new(&mut second)];
    assert_eq!(stream.try_recv_vectored(&mut into).unwrap(), 4);
    assert_eq!((&first, &second[..3]), (b"e", &b"fgh"[..]));
    would_block(stream.try_recv_uninit(&mut [MaybeUninit::uninit(); 3]));
    assert_eq!(stream.try_recv(&mut []).unwrap(), 0);
    drop(peer);
    eventually("the end", || stream.try_recv(&mut buffer).is_ok_and(|bytes| bytes == 0));
    assert_eq!(stream.try_recv(&mut buffer).unwrap(), 0, "the end stays");
    quiet(&port, &ledger);
}

#[test]
fn a_send_that_is_half_out_is_not_torn() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (stream, mut peer) = connection(&port, 7);
    let large = 16 << 20;
    stream.send(vec![1; large], ledger.token(1)).unwrap();
    would_block(stream.try_send(b"between"));
    stream.send(vec![2; 5], ledger.token(2)).unwrap();
    would_block(stream.try_send(b"between"));
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    assert_eq!(next_sent(&port).0, 1);
    assert_eq!(next_sent(&port).0, 2);
    assert_eq!(stream.try_send(b"behind").unwrap(), 6);
    stream.close();
    let all = reader.join().unwrap();
    assert!(all[..large].iter().all(|&byte| byte == 1) && all[large..large + 5] == [2; 5]);
    assert_eq!(&all[large + 5..], b"behind");
}

#[test]
fn receives_that_are_outstanding_have_what_comes() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (stream, mut peer) = connection(&port, 7);
    stream.recv(Buffer::with_capacity(4), ledger.token(1)).unwrap();
    peer.write_all(b"abcdefgh").unwrap();
    let mut buffer = [0; 16];
    for _ in 0..20 {
        would_block(stream.try_recv(&mut buffer));
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(&next_received(&port).buffer[..], b"abcd");
    eventually("the rest", || stream.try_recv(&mut buffer).is_ok_and(|bytes| bytes == 4));
    assert_eq!(&buffer[..4], b"efgh");
    // Afterwards a receive waits for what comes next, and hears of it.
    would_block(stream.try_recv(&mut buffer));
    stream.recv(Buffer::with_capacity(4), ledger.token(2)).unwrap();
    peer.write_all(b"xy").unwrap();
    assert_eq!(&next_received(&port).buffer[..], b"xy");
    quiet(&port, &ledger);
}

#[test]
fn a_send_behind_a_full_socket_goes_on_when_the_peer_reads() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (stream, mut peer) = connection(&port, 7);
    let piece = vec![3; 64 << 10];
    let mut sent = 0;
    // The system may take a little more a moment later.
    let mut full = 0;
    while full < 20 {
        match stream.try_send(&piece) {
            Ok(bytes) => (sent, full) = (sent + bytes, 0),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::WouldBlock);
                full += 1;
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
    stream.send(vec![4; 100], ledger.token(1)).unwrap();
    let reader = thread::spawn(move || {
        let mut all = vec![0; sent + 100];
        peer.read_exact(&mut all).unwrap();
        all
    });
    assert_eq!(next_sent(&port).2.unwrap(), 100);
    let all = reader.join().unwrap();
    assert!(all[..sent].iter().all(|&byte| byte == 3) && all[sent..].iter().all(|&byte| byte == 4));
}

#[test]
fn pieces_of_threads_that_send_in_both_ways_stay_whole_and_in_order() {
    const EACH: usize = 400;
    let ledger = Ledger::new();
    let port = port(2, Wake::Eager);
    let (stream, mut peer) = connection(&port, 7);
    let crew = Crew::start(&port, 2, |_, packet| {
        let Event::Sent { result, .. } = packet.event else { panic!("{:?}", packet.event) };
        assert_eq!(result.unwrap(), 8);
    });
    let reader = thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    thread::scope(|scope| {
        for who in 0..4_u8 {
            let (stream, mint) = (&stream, ledger.mint());
            scope.spawn(move || {
                for number in 0..EACH as u32 {
                    let mut piece = [who; 8];
                    piece[4..].copy_from_slice(&number.to_be_bytes());
                    if who % 2 == 0 {
                        stream.send(piece.to_vec(), mint.token(0)).unwrap();
                        continue;
                    }
                    // Eight bytes fit, or nothing does.
                    while stream.try_send(&piece).map_or(true, |bytes| bytes != 8) {
                        thread::yield_now();
                    }
                }
            });
        }
    });
    eventually("all were sent", || stream.bytes_taken() == 4 * 8 * EACH as u64);
    eventually("all packets were taken", || ledger.arrived() == 2 * EACH);
    stream.close();
    let all = reader.join().unwrap();
    let mut next = [0; 4];
    for piece in all.chunks(8) {
        let who = usize::from(piece[0]);
        assert_eq!(piece[..4], [piece[0]; 4]);
        assert_eq!(u32::from_be_bytes(piece[4..].try_into().unwrap()), next[who]);
        next[who] += 1;
    }
    assert_eq!(next, [EACH as u32; 4]);
    drop(crew);
}

#[test]
fn what_a_stream_refuses_is_refused_here_too() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let mut buffer = [0; 4];
    let (stream, peer) = connection(&port, 7);
    stream.shutdown(Shutdown::Both).unwrap();
    assert!(!matches!(stream.try_send(b"x").unwrap_err().kind(), ErrorKind::WouldBlock));
    assert!(!matches!(stream.try_recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock));
    drop(peer);
    let (stream, peer) = connection(&port, 8);
    reset(peer);
    let mut reset = || match stream.try_recv(&mut buffer) {
        Err(error) if error.kind() == ErrorKind::WouldBlock => false,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
        Ok(bytes) => panic!("{bytes} bytes"),
    };
    eventually("the reset", &mut reset);
    assert!(reset(), "it is remembered");
    assert!(stream.recv(vec![0; 4], ledger.token(1)).is_err());
    assert!(stream.try_send(b"x").is_err());
    let (stream, _peer) = connection(&port, 9);
    stream.close();
    assert_eq!(stream.try_send(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
    let (stream, _peer) = connection(&port, 9);
    port.close();
    assert_eq!(stream.try_recv(&mut buffer).unwrap_err().kind(), ErrorKind::NotConnected);
    assert_eq!(stream.try_send(b"x").unwrap_err().kind(), ErrorKind::NotConnected);
}

// --- Waits for edges ---

#[cfg(unix)]
mod edges {
    use super::*;

    fn is_readable(port: &Port, number: u64) {
        let packet = next(port);
        assert_eq!(packet.context.number, number);
        assert!(matches!(packet.event, Event::Readable { result: Ok(()), .. }), "{packet:?}");
    }

    fn is_writable(port: &Port, number: u64) {
        let packet = next(port);
        assert_eq!(packet.context.number, number);
        assert!(matches!(packet.event, Event::Writable { result: Ok(()), .. }), "{packet:?}");
    }

    /// Takes what there is, so that the stream is found empty.
    fn take_all(stream: &Stream) -> usize {
        let mut buffer = [0; 64];
        let mut all = 0;
        loop {
            match stream.try_recv(&mut buffer) {
                Ok(0) => return all,
                Ok(bytes) => all += bytes,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    return all;
                }
            }
        }
    }

    #[test]
    fn a_watch_tells_of_what_comes_and_borrowed_memory_goes_before_it() {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let (stream, mut peer) = connection(&port, 7);
        take_all(&stream);
        // Everything that the system tells of a new socket was told.
        while port.get_timeout(Duration::from_millis(5)).is_ok() {}
        take_all(&stream);
        for number in 0..20 {
            stream.watch_readable(ledger.token(number)).unwrap();
            assert!(port.get_timeout(Duration::from_millis(2)).is_err(), "nothing came");
            peer.write_all(b"abc").unwrap();
            is_readable(&port, number);
            assert_eq!(take_all(&stream), 3);
        }
        stream.watch_readable(ledger.token(30)).unwrap();
        peer.write_all(b"de").unwrap();
        eventually("it is there, and taken before the watch's packet", || take_all(&stream) == 2);
        peer.write_all(b"f").unwrap();
        is_readable(&port, 30);
        take_all(&stream);
        stream.watch_readable(ledger.token(31)).unwrap();
        drop(peer);
        is_readable(&port, 31);
        assert_eq!(stream.try_recv(&mut [0; 4]).unwrap(), 0);
        stream.watch_readable(ledger.token(32)).unwrap();
        is_readable(&port, 32);
        quiet(&port, &ledger);
    }

    #[test]
    fn a_watch_for_space_waits_until_the_peer_reads() {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let (stream, mut peer) = connection(&port, 7);
        stream.watch_writable(ledger.token(1)).unwrap();
        is_writable(&port, 1);
        let piece = vec![3; 64 << 10];
        let mut sent = 0;
        let mut rounds = 0;
        while sent < 32 << 20 {
            match stream.try_send(&piece) {
                Ok(bytes) => sent += bytes,
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::WouldBlock);
                    rounds += 1;
                    stream.watch_writable(ledger.token(2)).unwrap();
                    let mut some = vec![0; 256 << 10];
                    let mut read = 0;
                    let packet = loop {
                        if let Ok(packet) = port.get_timeout(Duration::from_millis(1)) {
                            break packet;
                        }
                        read += peer.read(&mut some).unwrap();
                    };
                    packet.context.arrive();
                    assert!(matches!(packet.event, Event::Writable { result: Ok(()), .. }), "{packet:?}, {read}");
                }
            }
        }
        assert!(rounds > 1, "it was full now and then");
    }

    #[test]
    fn a_watch_for_space_comes_when_the_sends_before_it_are_out() {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let (stream, mut peer) = connection(&port, 7);
        stream.send(vec![1; 16 << 20], ledger.token(1)).unwrap();
        stream.watch_writable(ledger.token(2)).unwrap();
        assert!(port.get_timeout(Duration::from_millis(5)).is_err(), "the send is half out");
        let reader = thread::spawn(move || {
            let mut all = vec![0; 16 << 20];
            peer.read_exact(&mut all).unwrap();
            peer
        });
        assert_eq!(next_sent(&port).0, 1);
        is_writable(&port, 2);
        stream.watch_readable(ledger.token(3)).unwrap();
        drop(reader.join().unwrap());
        is_readable(&port, 3);
    }
}

#[test]
fn what_was_accepted_is_associated_as_it_came() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    listener.accept(ledger.token(1)).unwrap();
    let mut client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (_, accepted) = next_accepted(&port);
    let (socket, peer) = accepted.unwrap();
    let stream = port.associate_accepted(socket, 2).unwrap();
    assert_eq!((stream.peer_addr().unwrap(), *stream.key()), (peer, 2));
    client.write_all(b"hello").unwrap();
    stream.recv(Buffer::with_capacity(8), ledger.token(2)).unwrap();
    assert_eq!(&next_received(&port).buffer[..], b"hello");
    // It was accepted in non-blocking mode, and so it goes to whoever has it next.
    would_block(stream.try_recv(&mut [0; 4]));
    port.close();
    let (other, _client) = pair();
    let rejected = port.associate_accepted(other, 3).unwrap_err();
    assert_eq!(rejected.key, 3);
}
