//! Sending on streams (S).

use super::driven;
use super::receive::unconnected;
use crate::kit::*;
use crate::row::{How::*, Row, differs, must, should};
use std::io::Read;
use std::net::Shutdown;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use wharf::error::ErrorExt;
use wharf::{Buffer, Event};

pub const ROWS: &[Row] = &[
    must(
        "S-01",
        "A send ends when all its bytes were taken: never before, never with a part of them.",
        Test(driven::send_goes_on),
    ),
    must("S-02", "A send that cannot be finished ends once, with an error, and tells no count.", Test(broken_off)),
    must(
        "S-03",
        "A send ends when the system has taken it, though the peer has read nothing.",
        Test(taken_not_received),
    ),
    must("S-04", "One thread's sends arrive in its order, each in one piece.", Test(order)),
    must("S-05", "Sends of two threads at once stay in one piece each.", Test(two_threads)),
    must("S-06", "Several buffers go out in their order, as one run of bytes.", Test(vectored)),
    must("S-07", "A send of nothing succeeds with 0 bytes; as a datagram it is an empty one.", Test(empty)),
    must("S-08", "After the peer's end sends go on.", Test(after_peers_end)),
    must("S-09", "After a reset every send is refused at once with 10054, and queues nothing.", Test(after_reset)),
    must("S-10", "A reset ends the pending sends: 64 port-side, 10054 in Winsock.", Test(reset_while_pending)),
    must(
        "S-11",
        "After its own shutdown a send is refused at once with 10058, and one never connected with 10057.",
        Test(own_shutdown),
    ),
    should(
        "S-12",
        "With no send buffer a send ends when the peer has acknowledged.",
        differs("Linux keeps a least send buffer: a send ends when the system has taken it", no_send_buffer),
    ),
    should(
        "S-13",
        "Sends that were accepted are delivered after the close.",
        differs(
            "`close` ends outstanding sends as cancelled; `disconnect` first, or use a session's `close`, to have them delivered",
            close_drops,
        ),
    ),
    must("S-14", "A send into a broken connection raises no signal.", Test(no_signal)),
];

/// Reads all that comes, in a thread.
pub fn reading(mut peer: Peer) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = peer.read_to_end(&mut all);
        all
    })
}

pub fn all_or_waiting(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let content = pattern(MUCH, 3);
    stream.send(content.clone(), 1).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "it does not fit, so it waits");
    let reader = reading(peer);
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (1, MUCH));
    quiet(&port);
    stream.close();
    assert!(reader.join().unwrap() == content);
}

fn broken_off(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    stream.send(vec![7; MUCH], 1).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "it is half out");
    reset(peer);
    let packet = next(&port);
    assert_eq!(packet.context, 1);
    assert!(matches!(packet.event, Event::Sent { result: Err(_), ref buffer, .. } if buffer.len() == MUCH));
    quiet(&port);
}

fn taken_not_received(b: &Bench) {
    let port = b.port();
    // Not one byte is read before: that it has been sent says that it was taken.
    let (stream, mut peer) = b.stream(&port, 1);
    for number in 0..10_u8 {
        stream.send(vec![number; 1000], number.into()).unwrap();
        let (context, result) = sent(&port);
        assert_eq!((context, result.unwrap()), (number.into(), 1000));
    }
    let mut all = vec![0; 10_000];
    peer.read_exact(&mut all).unwrap();
    assert!(all.chunks(1000).enumerate().all(|(number, chunk)| chunk == [number as u8; 1000]));
    // Nor does it matter that the peer goes without having read it.
    let (stream, peer) = b.stream(&port, 2);
    stream.send("unread", 20).unwrap();
    drop(peer);
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (20, 6));
}

fn order(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let mut expected: Vec<u8> = Vec::new();
    for number in 0..40_u8 {
        // Some larger than what fits.
        let content = vec![number; if number % 4 == 0 { 300_000 } else { 10 + usize::from(number) }];
        expected.extend(&content);
        stream.send(content, number.into()).unwrap();
    }
    let reader = reading(peer);
    (0..40).for_each(|number| assert_eq!(sent(&port).0, number));
    stream.close();
    assert!(reader.join().unwrap() == expected);
}

fn two_threads(b: &Bench) {
    const BYTES: usize = 200_000;
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let reader = reading(peer);
    thread::scope(|scope| {
        for thread in 0..3_u8 {
            let stream = &stream;
            scope.spawn(move || (0..8).for_each(|_| drop(stream.send(vec![thread; BYTES], 0).unwrap())));
        }
    });
    (0..24).for_each(|_| assert_eq!(sent(&port).1.unwrap(), BYTES));
    stream.close();
    let all = reader.join().unwrap();
    assert_eq!(all.len(), 24 * BYTES);
    assert!(all.chunks(BYTES).all(|piece| piece.iter().all(|&byte| byte == piece[0])), "two sends were interleaved");
    // Three that issue, while another takes: bytes and packets are in the order of each one's calls.
    let port = b.limited(2);
    let (stream, peer) = b.narrow(&port, 1);
    let reader = reading(peer);
    let order: Arc<Mutex<Vec<u64>>> = Arc::default();
    let (seen, done) = (order.clone(), Count::default());
    let count = done.clone();
    // One handler at a time, so that the order in which they come is that in which they are written down.
    let _crew = Crew::start(&port, 1, move |_, packet| {
        assert!(packet.error().is_none(), "{packet:?}");
        seen.lock().unwrap().push(packet.context);
        count.up();
    });
    thread::scope(|scope| {
        for issuer in 0..3_u64 {
            let stream = &stream;
            scope.spawn(move || {
                for number in 0..60 {
                    let content = [issuer as u8, number as u8].repeat(1 + number as usize * 300);
                    stream.send(content, issuer * 1000 + number).unwrap();
                }
            });
        }
    });
    eventually("each has its packet", || done.now() == 180);
    stream.close();
    let all = reader.join().unwrap();
    let order = order.lock().unwrap();
    for issuer in 0..3 {
        let own: Vec<u64> = order.iter().filter(|&&context| context / 1000 == issuer).map(|c| c % 1000).collect();
        assert!(own.iter().copied().eq(0..60), "packets of issuer {issuer}: {own:?}");
    }
    let mut at = 0;
    let mut next = [0_u8; 3];
    while at < all.len() {
        let (issuer, number) = (all[at], all[at + 1]);
        assert_eq!(number, next[usize::from(issuer)], "bytes of issuer {issuer}");
        next[usize::from(issuer)] += 1;
        let bytes = 2 + usize::from(number) * 600;
        assert!(all[at..at + bytes].chunks(2).all(|pair| pair == [issuer, number]), "two sends were interleaved");
        at += bytes;
    }
    assert_eq!(next, [60; 3]);
}

fn vectored(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let pieces: Vec<Vec<u8>> = (0..150).map(|number| pattern(number * 37 % 5000, number as u64)).collect();
    let expected = pieces.concat();
    stream.send_vectored(pieces.into_iter().map(Buffer::from).collect(), 1).unwrap();
    let reader = reading(peer);
    assert_eq!(sent(&port).1.unwrap(), expected.len());
    stream.close();
    assert!(reader.join().unwrap() == expected);
}

fn empty(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.send("", 1).unwrap();
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (1, 0));
    stream.send("x", 2).unwrap();
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (2, 1));
    let mut all = [0; 8];
    assert_eq!(peer.read(&mut all).unwrap(), 1);
    let socket = port.bind("127.0.0.1:0", 2).unwrap();
    let receiver = b.mail();
    socket.send_to("", receiver.local_addr(), 3).unwrap();
    assert!(receiver.receive().is_empty(), "an empty datagram arrives");
    let packet = next(&port);
    assert_eq!(packet.context, 3);
    assert!(matches!(packet.event, Event::SentTo { result: Ok(0), .. }), "{packet:?}");
    // Behind one that waits it waits, too.
    let (stream, peer) = b.narrow(&port, 3);
    stream.send(vec![7; MUCH], 4).unwrap();
    stream.send("", 5).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "an empty send has overtaken another");
    let reader = reading(peer);
    let ended = [sent(&port), sent(&port)].map(|(context, result)| (context, result.unwrap()));
    assert_eq!(ended, [(4, MUCH), (5, 0)]);
    stream.close();
    reader.join().unwrap();
}

fn after_peers_end(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    peer.shutdown(Shutdown::Write).unwrap();
    stream.recv(vec![0; 4], 1).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"");
    for number in 0..3 {
        stream.send("still there", number).unwrap();
        assert_eq!(sent(&port).1.unwrap(), 11);
    }
    peer.read_exact(&mut [0; 33]).unwrap();
}

fn after_reset(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.stream(&port, 1);
    stream.recv(vec![0; 4], 0).unwrap();
    reset(peer);
    assert_eq!(errno(&received(&port).1), ECONNRESET);
    for number in 1..4 {
        let refused = stream.send("x", number).expect_err("the connection is reset");
        assert_eq!((refused.context, refused.error.winsock()), (number, 10054));
    }
    quiet(&port);
    // First told by a send.
    let (stream, peer) = b.narrow(&port, 2);
    stream.send(vec![7; MUCH], 4).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "it is half out");
    reset(peer);
    assert_eq!(errno(&sent(&port).1), ECONNRESET);
    for number in 5..8 {
        let refused = stream.send("x", number).expect_err("the connection is reset");
        assert_eq!((refused.context, refused.error.winsock()), (number, 10054));
        assert_eq!(stream.disconnect(number).expect_err("the connection is reset").error.winsock(), 10054);
    }
    quiet(&port);
}

fn reset_while_pending(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    stream.send(vec![7; MUCH], 1).unwrap();
    stream.send("behind it", 2).unwrap();
    assert!(port.get_timeout(WHILE).is_err());
    reset(peer);
    for number in 1..3 {
        let packet = next(&port);
        assert_eq!((packet.context, codes(&packet)), (number, (64, 10054)));
    }
    quiet(&port);
}

fn own_shutdown(b: &Bench) {
    let port = b.port();
    let (stream, _peer) = b.stream(&port, 1);
    stream.shutdown(Shutdown::Write).unwrap();
    let refused = stream.send("x", 1).expect_err("it was shut");
    assert_eq!((refused.context, refused.error.winsock()), (1, 10058));
    quiet(&port);
    let refused = unconnected(&port).send("x", 2).expect_err("it is not connected");
    assert_eq!((refused.context, refused.error.winsock()), (2, 10057));
    quiet(&port);
}

fn no_signal(b: &Bench) {
    if cfg!(windows) {
        not_here("there are no signals");
    }
    b.in_child("sigpipe");
}

#[cfg(windows)]
pub fn sigpipe(_: &Bench) {}

#[cfg(unix)]
/// Part of S-14, in a process of its own: a signal would end it.
#[allow(unsafe_code)]
pub fn sigpipe(b: &Bench) {
    // SAFETY: sets the default action, which ends the process; std has it ignored.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let port = b.port();
    let (broken, peer) = b.stream(&port, 1);
    drop(peer);
    // The first is answered by a reset, which the later ones meet.
    for number in 0..20 {
        if broken.send("into the void", number).is_ok() {
            let _ = sent(&port);
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    let path = Temporary::with(pattern(100_000, 1));
    let (broken, peer) = b.stream(&port, 2);
    drop(peer);
    for number in 0..20 {
        let file = std::fs::File::open(&path).unwrap();
        if broken.send_file(wharf::FileMessage::new(file), number).is_ok() {
            let _ = sent(&port);
        }
        thread::sleep(std::time::Duration::from_millis(1));
    }
    let (reader, writer) = std::io::pipe().unwrap();
    let pipe = port.associate(writer, 3).unwrap();
    drop(reader);
    if pipe.send("x", 1).is_ok() {
        assert!(sent(&port).1.is_err());
    }
    // One that waits for its reader, which goes: whoever serves the port meets the broken pipe.
    let (reader, writer) = std::io::pipe().unwrap();
    let pipe = port.associate(writer, 4).unwrap();
    pipe.send(vec![7; MUCH], 2).unwrap();
    let server = port.clone();
    let thread = thread::spawn(move || sent(&server));
    eventually("it is waited for", || port.stats().waiting == 1);
    drop(reader);
    let (context, result) = thread.join().unwrap();
    assert!(context == 2 && result.is_err());
}

// --- What is done instead ---

/// S-12: it ends when the system has taken it, though nobody can have read it.
fn no_send_buffer(b: &Bench) {
    let port = b.port();
    let (server, mut peer) = b.pair();
    rustix::net::sockopt::set_socket_send_buffer_size(&server, 0).unwrap();
    let stream = port.associate(server, 1).unwrap();
    stream.send("hello", 1).unwrap();
    assert_eq!(sent(&port).1.unwrap(), 5);
    peer.read_exact(&mut [0; 5]).unwrap();
}

/// S-13: what does not fit ends as cancelled, and does not arrive.
fn close_drops(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    stream.send(pattern(MUCH, 1), 1).unwrap();
    stream.close();
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet)), (1, (995, 995)));
    let all = reading(peer).join().unwrap();
    assert!(all.len() < MUCH, "all of it arrived");
    assert!(all == pattern(MUCH, 1)[..all.len()], "what arrives is the beginning");
}
