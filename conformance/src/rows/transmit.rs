//! Sending files (T).

use super::send::reading;
use crate::kit::*;
use crate::row::{How::*, Row, differs, must, not_offered, only_c, should};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use wharf::error::ErrorExt;
use wharf::raw::{DeviceKind, Part, Sink};
use wharf::{Buffer, Event, FileMessage};

pub const ROWS: &[Row] = &[
    must("T-01", "Head, part of the file and tail arrive as one run of bytes; the count is their sum.", Test(one_run)),
    must("T-02", "Without a length (there it is 0) everything up to the end of the file is sent.", Test(to_the_end)),
    must(
        "T-03",
        "The offset says where the part begins; the file's position is neither used nor moved.",
        Test(position),
    ),
    must("T-04", "Without a file only head and tail are sent.", Test(no_file)),
    must("T-05", "A flag ends the connection behind the data.", differs("issue a `disconnect` behind it", ends_behind)),
    should("T-06", "A flag has the socket reused.", not_offered("not offered, as X-06")),
    should("T-07", "On a datagram socket it fails as not connected.", Test(datagrams)),
    should("T-10", "Hints about scheduling may be ignored.", only_c("flags of TransmitFile")),
    must(
        "T-11",
        "Pieces of memory and files, in any order and number, are one operation; the count is their sum.",
        Test(pieces),
    ),
    should(
        "T-12",
        "Packets of a datagram socket, and the block size, can be chosen.",
        not_offered("not offered; datagrams have segmentation offload"),
    ),
    must("T-13", "An error in the middle ends the operation once; what was sent is not taken back.", Test(error)),
    must("T-14", "File, head and tail are the operation's until its packet, which gives them back.", Test(given_back)),
];

fn one_run(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let content = pattern(3 << 20, 1);
    let path = Temporary::with(&content);
    stream.send("before|", 0).unwrap();
    let mut message = FileMessage::new(File::open(&path).unwrap());
    (message.head, message.tail) = (Buffer::from("head|"), Buffer::from("|tail"));
    (message.offset, message.length) = (1000, Some(2 << 20));
    stream.send_file(message, 1).unwrap();
    stream.send("|after", 2).unwrap();
    let reader = reading(peer);
    assert_eq!(sent(&port).0, 0);
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (1, 10 + (2 << 20)));
    assert_eq!(sent(&port).0, 2);
    stream.close();
    let expected = [&b"before|head|"[..], &content[1000..1000 + (2 << 20)], b"|tail|after"].concat();
    assert!(reader.join().unwrap() == expected);
}

fn to_the_end(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let content = pattern(3 << 20, 7);
    let path = Temporary::with(&content);
    let reader = reading(peer);
    for (context, offset) in [(1, 0), (2, 1_000_003), (3, content.len())] {
        let mut message = FileMessage::new(File::open(&path).unwrap());
        (message.offset, message.length) = (offset as u64, None);
        stream.send_file(message, context).unwrap();
        let (of, result) = sent(&port);
        assert_eq!((of, result.unwrap()), (context, content.len() - offset));
    }
    stream.close();
    assert!(reader.join().unwrap() == [&content[..], &content[1_000_003..]].concat());
}

fn position(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    let path = Temporary::with("0123456789");
    let mut file = File::open(&path).unwrap();
    file.seek(SeekFrom::Start(7)).unwrap();
    let file = Arc::new(file);
    let mut message = FileMessage::new(file.clone());
    (message.offset, message.length) = (2, Some(3));
    stream.send_file(message, 1).unwrap();
    assert_eq!(sent(&port).1.unwrap(), 3);
    let mut bytes = [0; 3];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"234");
    assert_eq!((&*file).stream_position().unwrap(), 7);
}

#[allow(unsafe_code)]
fn send_parts(port: &wharf::raw::Port, device: &wharf::raw::Device, parts: Vec<Part>) {
    // SAFETY: `Memory` is never freed, and the rows keep their files open.
    unsafe { port.send_parts(device, parts, 5, Sink::Port) }.unwrap();
}

fn no_file(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let [head, tail] = [&b"head"[..], b"tail"].map(|text| Part::Memory(Memory::new(text).piece()));
    send_parts(&port, &device, vec![head, tail]);
    let packet = raw_next(&port);
    assert_eq!((packet.token, packet.bytes, packet.error), (5, 8, 0));
    let mut bytes = [0; 8];
    peer.read_exact(&mut bytes).unwrap();
    assert_eq!(&bytes, b"headtail");
    port.close_device(&device);
}

fn datagrams(b: &Bench) {
    let port = b.raw();
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let device = port.adopt(socket, DeviceKind::Datagram, 1).unwrap();
    let part = Part::Memory(Memory::new(b"x").piece());
    #[allow(unsafe_code)]
    // SAFETY: the memory is never freed.
    let refused = unsafe { port.send_parts(&device, vec![part], 1, Sink::Port) }.expect_err("it is no stream");
    assert_eq!(wharf::error::io_error(refused).winsock(), 10057);
    raw_quiet(&port);
    port.close_device(&device);
}

fn pieces(b: &Bench) {
    let port = b.raw();
    let (device, peer) = b.raw_stream(&port, 1);
    let (one, two) = (Temporary::with(pattern(50_000, 1)), Temporary::with(pattern(700_000, 2)));
    let files = [File::open(&one).unwrap(), File::open(&two).unwrap()];
    let part = |file: usize, offset, length| Part::File { handle: raw_of(&files[file]), offset, length };
    let text = |text: &[u8]| Part::Memory(Memory::new(text).piece());
    let parts = vec![text(b"a"), part(0, 0, 50_000), part(1, 5, 600_000), text(b"b"), text(b"c"), part(0, 49_999, 1)];
    let (content, more) = (pattern(50_000, 1), pattern(700_000, 2));
    let expected = [b"a", &content[..], &more[5..600_005], b"bc", &content[49_999..]].concat();
    send_parts(&port, &device, parts);
    let reader = reading(peer);
    let packet = raw_next(&port);
    assert_eq!((packet.bytes, packet.error), (expected.len(), 0));
    raw_quiet(&port);
    port.close_device(&device);
    assert!(reader.join().unwrap() == expected);
}

fn error(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.stream(&port, 1);
    let path = Temporary::with(pattern(5000, 3));
    let mut message = FileMessage::new(File::open(&path).unwrap());
    // More than there is.
    (message.head, message.tail, message.length) = (Buffer::from("head"), Buffer::from("tail"), Some(9000));
    stream.send_file(message, 1).unwrap();
    let packet = next(&port);
    assert_eq!(packet.context, 1);
    assert!(packet.error().is_some());
    quiet(&port);
    stream.close();
    let all = reading(peer).join().unwrap();
    assert!(all.len() == 5004 && all[..4] == *b"head" && all[4..] == pattern(5000, 3), "what was sent stays, no tail");
    // A reset in the middle ends it once, and file and memory come back.
    let path = Temporary::with(pattern(MUCH, 3));
    let (stream, peer) = b.narrow(&port, 2);
    let file = Arc::new(File::open(&path).unwrap());
    let mut message = FileMessage::new(file.clone());
    (message.head, message.tail) = (Buffer::from("head"), Buffer::from("tail"));
    stream.send_file(message, 2).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "it does not fit");
    reset(peer);
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet)), (2, (64, 10054)));
    let Event::SentFile { message, .. } = packet.event else { panic!("a file was sent") };
    assert_eq!((&message.head[..], &message.tail[..]), (&b"head"[..], &b"tail"[..]));
    drop(message);
    assert_eq!(Arc::strong_count(&file), 1);
    quiet(&port);
}

fn given_back(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let path = Temporary::with(pattern(MUCH, 3));
    let file = Arc::new(File::open(&path).unwrap());
    let mut message = FileMessage::new(file.clone());
    message.head = Buffer::from(vec![1; 100]);
    stream.send_file(message, 1).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "it does not fit");
    assert_eq!(Arc::strong_count(&file), 2, "the operation holds the file");
    let reader = reading(peer);
    let Event::SentFile { message, result, .. } = next(&port).event else { panic!("a file was sent") };
    assert_eq!(result.unwrap(), MUCH + 100);
    assert_eq!(message.head.len(), 100);
    drop(message);
    assert_eq!(Arc::strong_count(&file), 1);
    stream.close();
    assert_eq!(reader.join().unwrap().len(), MUCH + 100);
    // Also by a cancel, and by a close.
    for closes in [false, true] {
        let (stream, peer) = b.narrow(&port, 2);
        let mut message = FileMessage::new(file.clone());
        message.head = Buffer::from(vec![1; 100]);
        stream.send_file(message, 2).unwrap();
        assert!(port.get_timeout(WHILE).is_err(), "it does not fit");
        if closes {
            stream.close();
        } else {
            assert_eq!(stream.cancel_all(), 1);
        }
        let packet = next(&port);
        assert_eq!((packet.context, codes(&packet).0), (2, 995));
        let Event::SentFile { message, .. } = packet.event else { panic!("a file was sent") };
        assert_eq!(message.head[..], [1; 100]);
        drop(message);
        assert_eq!(Arc::strong_count(&file), 1);
        drop(peer);
    }
}

/// T-05: a `disconnect` behind it does, with a packet of its own.
fn ends_behind(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let content = pattern(3 << 20, 3);
    let path = Temporary::with(&content);
    stream.send_file(FileMessage::new(File::open(&path).unwrap()), 1).unwrap();
    stream.disconnect(2).unwrap();
    let reader = reading(peer);
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (1, content.len()));
    let packet = next(&port);
    assert_eq!(packet.context, 2);
    assert!(matches!(packet.event, Event::Disconnected { result: Ok(()), .. }));
    assert!(reader.join().unwrap() == content, "all of it, then the end");
}
