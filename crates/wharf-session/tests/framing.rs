//! Framing and time-outs: what a codec finds however its bytes arrive, and what becomes of peers that break the rules
//! or take their time.
//!
//! The first half needs no socket. What a codec has to find is computed from the whole input by an oracle that is too
//! simple to be wrong.

mod common;

use common::{DEADLINE, eventually, pattern};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};
use wharf::Buffer;
use wharf_session::{
    Closed, Codec, FrameError, Framed, FramedLink, FramedSession, Group, Input, InputStats, LengthPrefix, Lines, Link,
    SendErrorReason, Service, ServiceOptions, Session,
};

// --- Codecs, without sockets ---

/// What was found: the frames, the error that ended it, and the bytes that are left for more.
#[derive(Debug, PartialEq)]
struct Found {
    frames: Vec<Vec<u8>>,
    error: Option<FrameError>,
    left: usize,
}

fn decode<C: Codec>(codec: &C, pieces: &[&[u8]]) -> (Found, InputStats) {
    let (mut codec, mut input) = (codec.clone(), Input::new());
    let mut found = Found { frames: Vec::new(), error: None, left: 0 };
    for piece in pieces {
        input.feed(piece.to_vec());
        loop {
            match codec.decode(&mut input) {
                Ok(Some(frame)) => found.frames.push(frame.to_vec()),
                Ok(None) => break,
                Err(error) => {
                    found.error = Some(error);
                    return (found, input.stats());
                }
            }
        }
    }
    found.left = input.len();
    (found, input.stats())
}

/// What lines there are: from all bytes at once.
fn lines_of(maximum: usize, bytes: &[u8]) -> Found {
    let mut found = Found { frames: Vec::new(), error: None, left: 0 };
    let too_long = Some(FrameError::TooLong { length: None, maximum: maximum as u64 });
    let mut parts: Vec<&[u8]> = bytes.split(|&byte| byte == b'\n').collect();
    let rest = parts.pop().unwrap();
    for part in parts {
        let line = part.strip_suffix(b"\r").unwrap_or(part);
        if line.len() > maximum {
            return Found { error: too_long, ..found };
        }
        found.frames.push(line.to_vec());
    }
    if rest.len() > maximum + 1 {
        return Found { error: too_long, ..found };
    }
    found.left = rest.len();
    found
}

/// Two pieces at every place, three at all pairs of places, single bytes, and random pieces: always the same frames.
#[track_caller]
fn however_it_is_split<C: Codec>(codec: &C, bytes: &[u8], expected: &Found) {
    let check = |pieces: &[&[u8]]| {
        let (found, stats) = decode(codec, pieces);
        assert_eq!(found, *expected, "in pieces {pieces:?}");
        let limit = 3 * stats.fed + 8 * pieces.len() as u64 + 8 * found.frames.len() as u64;
        assert!(stats.examined <= limit && stats.copied <= 2 * stats.fed, "{stats:?} in {} pieces", pieces.len());
    };
    check(&[bytes]);
    check(&bytes.chunks(1).collect::<Vec<_>>());
    for first in 0..=bytes.len() {
        check(&[&bytes[..first], &bytes[first..]]);
        for second in (first..=bytes.len()).take(40) {
            check(&[&bytes[..first], &bytes[first..second], &bytes[second..]]);
        }
    }
    for seed in 0..50 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut rest, mut pieces) = (bytes, Vec::new());
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(random.usize(0..=rest.len().min(20)));
            pieces.push(piece);
            rest = more;
        }
        check(&pieces);
    }
}

#[test]
fn lines_are_the_same_however_they_arrive() {
    let corpus: [&[u8]; 14] = [
        b"",
        b"\n",
        b"\n\n\n\n",
        b"\r\n",
        b"\r\r\n\r",
        b"\n\r\n\r",
        b"hello\nworld\r\nhalf",
        b"12345678\n12345678\r\n",
        b"ok\n123456789\nafter",
        b"12345678\r",
        b"12345678\rx\n",
        b"123456789",
        b"1234567890",
        b"\xff\xfe\n\0\0\n\xc3\r\n\x80",
    ];
    for bytes in corpus {
        however_it_is_split(&Lines::new(8), bytes, &lines_of(8, bytes));
    }
    however_it_is_split(&Lines::new(0), b"\n\r\n\n", &lines_of(0, b"\n\r\n\n"));
    however_it_is_split(&Lines::new(usize::MAX), b"a\nb", &Found { frames: vec![b"a".into()], error: None, left: 1 });
}

#[test]
fn random_bytes_are_the_lines_that_they_are() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let length = random.usize(0..60);
        let bytes: Vec<u8> = (0..length).map(|_| *random.choice(b"ab\r\n\n\xff").unwrap()).collect();
        let maximum = random.usize(3..12);
        however_it_is_split(&Lines::new(maximum), &bytes, &lines_of(maximum, &bytes));
    }
}

/// Every kind of prefix.
fn prefixes(maximum: usize) -> Vec<LengthPrefix> {
    let widths = [1, 2, 4, 8].map(|bytes| LengthPrefix::new(bytes, maximum));
    let ends = widths.into_iter().flat_map(|codec| [codec, codec.little_endian()]);
    ends.flat_map(|codec| [codec, codec.counting_itself()]).collect()
}

#[test]
fn what_a_codec_makes_it_finds_again_however_it_arrives() {
    let messages: [&[u8]; 6] = [b"", b"x", b"\xff\0\n", b"", b"a longer message", b"1234567890123456"];
    for codec in prefixes(16) {
        let mut bytes = Vec::new();
        messages.iter().for_each(|message| codec.encode(message, &mut bytes).unwrap());
        let whole = bytes.len();
        let frames: Vec<Vec<u8>> = messages.iter().map(|message| message.to_vec()).collect();
        however_it_is_split(&codec, &bytes, &Found { frames: frames.clone(), error: None, left: 0 });
        // Half a frame at the end.
        codec.encode(b"tail", &mut bytes).unwrap();
        bytes.pop();
        let left = bytes.len() - whole;
        however_it_is_split(&codec, &bytes, &Found { frames, error: None, left });
    }
    for codec in [Lines::new(20), Lines::new(20).crlf()] {
        let mut bytes = Vec::new();
        ["", "one", "a\rb"].iter().for_each(|message| codec.encode(message.as_bytes(), &mut bytes).unwrap());
        let frames = vec![b"".to_vec(), b"one".to_vec(), b"a\rb".to_vec()];
        however_it_is_split(&codec, &bytes, &Found { frames, error: None, left: 0 });
    }
}

#[test]
fn prefixes_are_written_as_protocols_write_them() {
    let frame = |codec: LengthPrefix| codec.frame_of(b"abc").unwrap().to_vec();
    assert_eq!(frame(LengthPrefix::new(1, 9)), b"\x03abc");
    assert_eq!(frame(LengthPrefix::new(2, 9)), b"\0\x03abc");
    assert_eq!(frame(LengthPrefix::new(2, 9).little_endian()), b"\x03\0abc");
    assert_eq!(frame(LengthPrefix::new(4, 9).counting_itself()), b"\0\0\0\x07abc");
    assert_eq!(frame(LengthPrefix::new(8, 9).little_endian().counting_itself()), b"\x0b\0\0\0\0\0\0\0abc");
}

#[test]
fn lengths_at_the_limits_are_told_apart_without_waiting_for_the_content() {
    let too_long = |length: u64, maximum: u64| Some(FrameError::TooLong { length: Some(length), maximum });
    let ended = |frames: &[&[u8]], error| Found { frames: frames.iter().map(|f| f.to_vec()).collect(), error, left: 0 };
    let codec = LengthPrefix::new(2, 5);
    // The frame before the one that is too long is found.
    however_it_is_split(&codec, b"\0\x0512345\0\x06", &ended(&[b"12345"], too_long(6, 5)));
    however_it_is_split(&codec, b"\0", &Found { frames: vec![], error: None, left: 1 });
    let codec = LengthPrefix::new(8, 5);
    however_it_is_split(&codec, &[0xff; 8], &ended(&[], too_long(u64::MAX, 5)));
    however_it_is_split(&codec, &[0xff; 7], &Found { frames: vec![], error: None, left: 7 });
    let unlimited = LengthPrefix::new(8, usize::MAX);
    however_it_is_split(&unlimited, &[0xff; 9], &Found { frames: vec![], error: None, left: 9 });
    let codec = LengthPrefix::new(4, 5).counting_itself();
    however_it_is_split(&codec, &[0, 0, 0, 4, 0, 0, 0, 10], &ended(&[b""], too_long(6, 5)));
    for length in 0..4 {
        let short = Some(FrameError::TooShort { length: length.into(), least: 4 });
        however_it_is_split(&codec, &[0, 0, 0, length], &ended(&[], short));
    }
}

#[test]
fn what_cannot_be_framed_is_refused_and_leaves_nothing_behind() {
    let refused = |result: Result<Buffer, FrameError>| result.unwrap_err();
    let too_long = |length, maximum| FrameError::TooLong { length: Some(length), maximum };
    assert_eq!(refused(Lines::new(3).sending(3).frame_of(b"1234")), too_long(4, 3));
    assert_eq!(refused(Lines::new(9).frame_of(b"a\nb")), FrameError::Separator);
    assert_eq!(refused(Lines::new(9).frame_of(b"a\r")), FrameError::Separator, "the peer would take it for the end");
    assert_eq!(refused(LengthPrefix::new(4, 3).sending(3).frame_of(b"1234")), too_long(4, 3));
    // More than one byte can tell; and with itself.
    assert_eq!(refused(LengthPrefix::new(1, 1000).frame_of(&[0; 256])), too_long(256, 255));
    assert_eq!(refused(LengthPrefix::new(1, 1000).counting_itself().frame_of(&[0; 255])), too_long(255, 254));
    assert!(LengthPrefix::new(1, 1000).counting_itself().frame_of(&[0; 254]).is_ok());
    let mut out = b"before".to_vec();
    assert!(Lines::new(9).encode(b"\n", &mut out).is_err());
    assert_eq!(out, b"before");
    let message = too_long(4, 3).to_string();
    assert!(message.contains("4 bytes") && message.contains("raise the codec's maximum"), "{message}");
}

#[test]
fn a_line_that_comes_byte_by_byte_costs_no_more_than_its_length() {
    const BYTES: usize = 200_000;
    let mut bytes = vec![b'x'; BYTES];
    bytes.push(b'\n');
    let (found, stats) = decode(&Lines::new(BYTES), &bytes.chunks(1).collect::<Vec<_>>());
    assert_eq!((found.frames.len(), found.left), (1, 0));
    // Searching from the start each time would be twenty thousand million.
    assert!(stats.examined <= 2 * stats.fed && stats.copied <= 2 * stats.fed, "{stats:?}");
}

#[test]
fn frames_that_lie_whole_in_a_buffer_are_not_copied() {
    let codec = LengthPrefix::new(4, 1000);
    let mut bytes = Vec::new();
    (0..100).for_each(|number| codec.encode(&pattern(100, number), &mut bytes).unwrap());
    let (found, stats) = decode(&codec, &[&bytes]);
    assert_eq!((found.frames.len(), stats.copied), (100, 0));
    // One of them in two pieces: that one is copied, and its neighbours are not.
    let (first, second) = bytes.split_at(50 * 104 + 7);
    let (found, stats) = decode(&codec, &[first, second]);
    assert_eq!((found.frames.len(), stats.copied), (100, 104));
}

#[test]
fn a_needle_is_found_where_it_begins_though_it_comes_in_pieces() {
    for seed in 0..500 {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes: Vec<u8> = (0..random.usize(0..40)).map(|_| *random.choice(b"\r\n\nx").unwrap()).collect();
        for needle in [&b"\r\n\r\n"[..], b"\n\n", b"x", b"\r\r\n"] {
            let (mut input, mut fed) = (Input::new(), 0);
            while fed < bytes.len() {
                let more = random.usize(0..=bytes.len() - fed);
                input.feed(bytes[fed..fed + more].to_vec());
                fed += more;
                let expected = bytes[..fed].windows(needle.len()).position(|window| window == needle);
                assert_eq!(input.find(needle), expected, "seed {seed}: {needle:?} in {:?}", &bytes[..fed]);
                assert_eq!(input.find(needle), expected, "and again");
            }
            assert_eq!(input.take(fed), bytes);
        }
    }
}

// --- Sessions, over sockets ---

/// Answers each line, and tells what has happened.
struct Answering {
    told: Sender<String>,
    room: Option<Group>,
}

impl FramedSession for Answering {
    type Codec = Lines;

    fn opened(&mut self, link: &FramedLink<Lines>) {
        if let Some(room) = &self.room {
            room.join(link);
        }
    }

    fn frame(&mut self, link: &FramedLink<Lines>, line: &[u8]) {
        match line {
            b"bye" => link.close(),
            b"bad" => {
                let error = link.send(b"two\nlines").unwrap_err();
                assert_eq!(error.reason, SendErrorReason::Framing(FrameError::Separator));
            }
            _ => link.send(&[b"you said ", line].concat()).unwrap(),
        }
    }

    fn broken(&mut self, link: &FramedLink<Lines>, error: &FrameError) {
        link.send(format!("error: {error}").as_bytes()).unwrap();
    }

    fn closed(&mut self, _link: &FramedLink<Lines>, reason: &Closed) {
        let _ = self.told.send(format!("{reason:?}"));
    }
}

fn answering(builder: ServiceOptions, room: Option<Group>) -> (Service, SocketAddr, Receiver<String>) {
    let service = builder.start().unwrap();
    let (tell, told) = channel();
    let make = move |_| Framed::new(Lines::new(200), Answering { told: tell.clone(), room: room.clone() });
    let address = service.listen("127.0.0.1:0", make).unwrap();
    (service, address, told)
}

fn client(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket.set_nodelay(true).unwrap();
    socket
}

#[track_caller]
fn read_line(socket: &mut TcpStream) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    while byte != *b"\n" {
        socket.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn read_to_end(socket: &mut TcpStream) -> String {
    let mut read = String::new();
    socket.read_to_string(&mut read).unwrap();
    read
}

#[track_caller]
fn next<T>(told: &Receiver<T>) -> T {
    told.recv_timeout(DEADLINE).expect("something was to be told in time")
}

#[test]
fn a_line_that_is_too_long_ends_its_session_only_and_says_why() {
    let (_service, address, told) = answering(Service::options(), None);
    let mut witness = client(address);
    witness.write_all(b"one\n").unwrap();
    assert_eq!(read_line(&mut witness), "you said one\n");
    let mut faulty = client(address);
    // Lines before it, in the same segment, are answered.
    faulty.write_all(&[b"first\nsecond\r\n", &[b'x'; 300][..]].concat()).unwrap();
    let heard = read_to_end(&mut faulty);
    assert!(heard.starts_with("you said first\nyou said second\nerror: "), "{heard}");
    assert!(heard.contains("longer than the 200 bytes allowed; raise the codec's maximum"), "{heard}");
    drop(faulty);
    assert_eq!(next(&told), "Framing(TooLong { length: None, maximum: 200 })");
    witness.write_all(b"two\nbad\nthree\n").unwrap();
    assert_eq!(read_line(&mut witness), "you said two\n");
    assert_eq!(read_line(&mut witness), "you said three\n", "what cannot be framed ends no session");
    drop(witness);
    assert_eq!(next(&told), "ByPeer");
}

#[test]
fn an_end_inside_a_frame_is_told_apart_from_one_between_frames() {
    let (_service, address, told) = answering(Service::options(), None);
    for (bytes, reason) in [
        (&b"whole\nhalf"[..], "Framing(Truncated { bytes: 4 })"),
        (b"h", "Framing(Truncated { bytes: 1 })"),
        (b"whole\n", "ByPeer"),
        (b"", "ByPeer"),
    ] {
        let mut socket = client(address);
        socket.write_all(bytes).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        let expected = if bytes.len() > 5 { "you said whole\n" } else { "" };
        assert_eq!(read_to_end(&mut socket), expected);
        assert_eq!(next(&told), reason);
    }
}

#[test]
fn a_session_that_closes_itself_hears_no_more_frames() {
    let (_service, address, told) = answering(Service::options(), None);
    let mut socket = client(address);
    socket.write_all(b"before\nbye\nafter\nhalf").unwrap();
    assert_eq!(read_to_end(&mut socket), "you said before\n");
    drop(socket);
    assert_eq!(next(&told), "ByUs");
}

#[test]
fn frames_of_any_size_come_back_over_a_connection_as_they_were() {
    struct Echo;
    impl FramedSession for Echo {
        type Codec = LengthPrefix;
        fn frame(&mut self, link: &FramedLink<LengthPrefix>, frame: &[u8]) {
            link.send(frame).unwrap();
        }
    }
    struct Collect(Sender<Vec<u8>>);
    impl FramedSession for Collect {
        type Codec = LengthPrefix;
        fn frame(&mut self, _link: &FramedLink<LengthPrefix>, frame: &[u8]) {
            self.0.send(frame.to_vec()).unwrap();
        }
    }
    let codec = LengthPrefix::new(4, 500_000).little_endian();
    let service = Service::options().start().unwrap();
    let address = service.listen("127.0.0.1:0", move |_| Framed::new(codec, Echo)).unwrap();
    let (tell, told) = channel();
    let link = FramedLink::new(codec, service.connect(address, Framed::new(codec, Collect(tell))).unwrap());
    for size in [0, 1, 4, 4095, 65_536, 500_000, 0, 70_000, 3] {
        let message = pattern(size, size as u64);
        link.send(&message).unwrap();
        assert!(next(&told) == message, "{size} bytes");
    }
    assert!(matches!(link.send(&[0; 500_001]).unwrap_err().reason, SendErrorReason::Framing(_)));
    assert!(link.is_open());
}

#[test]
fn a_frame_made_once_goes_to_a_whole_group() {
    let room = Group::new();
    let (_service, address, _told) = answering(Service::options(), Some(room.clone()));
    let mut members: Vec<_> = (0..3).map(|_| client(address)).collect();
    eventually("all have joined", || room.len() == 3);
    assert_eq!(room.broadcast(&Lines::new(200).frame_of(b"to all").unwrap()), 3);
    members.iter_mut().for_each(|socket| assert_eq!(read_line(socket), "to all\n"));
}

// --- Time-outs ---

const TIMEOUT: Duration = Duration::from_secs(1);

#[test]
fn who_is_silent_is_closed_and_who_speaks_stays() {
    let (service, address, told) = answering(Service::options().idle_timeout(TIMEOUT), None);
    let mut active = client(address);
    let mut silent = client(address);
    silent.write_all(b"half a li").unwrap();
    let begin = Instant::now();
    let closed = thread::spawn(move || {
        assert_eq!(read_to_end(&mut silent), "");
        begin.elapsed()
    });
    // Slowly, but long past the time-out in sum. A machine that stops this thread for so long has closed it rightly.
    while begin.elapsed() < 4 * TIMEOUT {
        active.write_all(b"alive\n").unwrap();
        assert_eq!(read_line(&mut active), "you said alive\n");
        thread::sleep(TIMEOUT / 50);
    }
    let lasted = closed.join().unwrap();
    assert!(lasted >= TIMEOUT - Duration::from_millis(50), "closed too early: after {lasted:?}");
    assert_eq!(next(&told), "IdleTimeout");
    assert_eq!(service.stats().sessions, 1);
    drop(active);
    assert_eq!(next(&told), "ByPeer");
}

/// Is ready when it was told the password.
struct Login {
    told: Sender<String>,
}

impl Session for Login {
    fn received(&mut self, link: &Link, data: Buffer) {
        if data.contains(&b'!') {
            link.ready();
        }
        let _ = link.send(data);
    }

    fn closed(&mut self, _link: &Link, reason: &Closed) {
        let _ = self.told.send(format!("{reason:?}"));
    }
}

#[test]
fn a_handshake_that_drips_is_closed_and_one_that_is_done_is_not() {
    let service = Service::options().handshake_timeout(TIMEOUT).start().unwrap();
    let (told, why) = channel();
    let address = service.listen("127.0.0.1:0", move |_| Login { told: told.clone() }).unwrap();
    let mut done = client(address);
    let mut byte = [0];
    done.write_all(b"!").unwrap();
    done.read_exact(&mut byte).unwrap();
    let mut dripping = client(address);
    let until = Instant::now() + DEADLINE;
    // Active all the time, and never ready.
    while dripping.write_all(b".").is_ok() && dripping.read(&mut byte).is_ok_and(|bytes| bytes == 1) {
        assert!(Instant::now() < until, "nobody has closed it");
        thread::sleep(TIMEOUT / 50);
    }
    drop(dripping);
    assert_eq!(next(&why), "HandshakeTimeout");
    // Silent, but there is no time-out for that here.
    done.write_all(b"x").unwrap();
    done.read_exact(&mut byte).unwrap();
    assert_eq!(&byte, b"x");
    assert_eq!(service.stats().sessions, 1);
}

#[test]
fn time_in_which_a_handler_runs_is_not_the_peers() {
    struct Slow(Sender<String>);
    impl Session for Slow {
        fn received(&mut self, link: &Link, data: Buffer) {
            thread::sleep(2 * TIMEOUT);
            let _ = link.send(data);
        }
        fn closed(&mut self, _link: &Link, reason: &Closed) {
            let _ = self.0.send(format!("{reason:?}"));
        }
    }
    let service = Service::options().idle_timeout(TIMEOUT).start().unwrap();
    let (told, why) = channel();
    let address = service.listen("127.0.0.1:0", move |_| Slow(told.clone())).unwrap();
    let mut socket = client(address);
    socket.write_all(b"?").unwrap();
    let mut answer = [0];
    socket.read_exact(&mut answer).unwrap();
    // And then it is.
    assert_eq!(read_to_end(&mut socket), "");
    drop(socket);
    assert_eq!(next(&why), "IdleTimeout");
}

#[test]
fn a_service_with_time_outs_shuts_down_like_any_other() {
    let builder = Service::options().idle_timeout(Duration::from_millis(1)).handshake_timeout(Duration::MAX);
    let (service, address, told) = answering(builder, None);
    let mut socket = client(address);
    assert_eq!(read_to_end(&mut socket), "");
    drop(socket);
    assert_eq!(next(&told), "IdleTimeout");
    let report = service.shutdown(DEADLINE);
    assert_eq!((report.aborted, report.workers_left), (0, 0));
}

#[test]
fn time_outs_that_nobody_lives_to_see_are_no_error() {
    for time in [Duration::MAX, Duration::from_secs(1 << 40), Duration::from_secs(86_400 * 365)] {
        let (service, address, _told) = answering(Service::options().idle_timeout(time), None);
        let mut socket = client(address);
        socket.write_all(b"hello\n").unwrap();
        assert_eq!(read_line(&mut socket), "you said hello\n");
        drop(socket);
        service.shutdown(DEADLINE);
    }
}

#[test]
fn who_takes_what_it_is_sent_is_not_idle_and_who_takes_nothing_is() {
    /// Sends a line every tenth of the time-out, to a peer that says nothing; small, so that each send completes.
    struct Talking;
    impl Session for Talking {
        fn opened(&mut self, link: &Link) {
            let link = link.clone();
            thread::spawn(move || {
                while link.send("still here\n").is_ok() {
                    thread::sleep(TIMEOUT / 10);
                }
            });
        }
        fn received(&mut self, _: &Link, _: Buffer) {}
    }
    let service = Service::options().idle_timeout(TIMEOUT).start().unwrap();
    let mut listens = client(service.listen("127.0.0.1:0", |_| Talking).unwrap());
    let begin = std::time::Instant::now();
    while begin.elapsed() < 3 * TIMEOUT {
        assert_eq!(read_line(&mut listens), "still here\n");
    }
    // Much for one that reads nothing: the send does not complete, and nothing comes from it.
    let (tell, told) = channel();
    struct Flooding(std::sync::mpsc::Sender<String>);
    impl Session for Flooding {
        fn opened(&mut self, link: &Link) {
            let _ = link.send(vec![0; 32 << 20]);
        }
        fn received(&mut self, _: &Link, _: Buffer) {}
        fn closed(&mut self, _: &Link, reason: &Closed) {
            let _ = self.0.send(format!("{reason:?}"));
        }
    }
    let builder = Service::options().idle_timeout(TIMEOUT).outbox(64 << 20, wharf_session::SlowConsumer::Wait);
    let flooding = builder.start().unwrap();
    let _deaf = client(flooding.listen("127.0.0.1:0", move |_| Flooding(tell.clone())).unwrap());
    assert_eq!(next(&told), "IdleTimeout");
}
