//! Files (F) and pipes (Q).
//!
//! What the cache holds is done inside the issuing call, whatever the engine. So each row is run twice: as it comes,
//! and with direct I/O, which always goes the engine's way, where the file system offers it.

use crate::kit::*;
use crate::row::{How::*, Row, differs, must, not_offered, only_c, should};
use std::fs::OpenOptions;
use wharf::error::{Class, ErrorExt, win32};
use wharf::raw::{DeviceKind, Sink};
use wharf::{Buffer, Event};

pub const ROWS: &[Row] = &[
    must("F-01", "A read or write works at the offset given; there is no position.", Test(offsets)),
    must("F-02", "A read that meets the end succeeds with fewer bytes.", Test(short)),
    must("F-03", "A read at or behind the end brings 0 bytes, and its status is the end of the file (38).", Test(end)),
    should("F-04", "A read of nothing succeeds with 0 bytes, at the end too.", Test(nothing)),
    must(
        "F-05",
        "An append goes behind the end as it then is: several at once overwrite nothing of each other.",
        Test(append),
    ),
    should("F-06", "An offset that no file can have is refused (87).", Test(bad_offset)),
    must(
        "F-07",
        "A write behind the end lengthens the file, the gap reads as zeros; a write of nothing changes nothing.",
        Test(gap),
    ),
    must("F-08", "Operations outstanding on one file end in any order, each once, each with its own data.", Test(many)),
    should("F-09", "A cached operation may be told as pending or as done.", Test(skip)),
    must("F-10", "What the open mode does not grant is refused at once (5).", Test(not_granted)),
    should("F-11", "Direct I/O that is not aligned fails (87).", Test(alignment)),
    should("F-13", "Scattered reads and gathered writes follow the same rules.", Test(scattered)),
    should(
        "F-14",
        "Locks, changes of directories and control requests complete to the port.",
        not_offered("not offered"),
    ),
    must("F-15", "Flushing, cutting and asking for the length are plain calls.", Test(plain_calls)),
    must("Q-01", "Waiting for a pipe's client is an operation, here of a Unix socket's listener.", Test(local_client)),
    must("Q-02", "A client that is there already is told at once.", only_c("named pipes with instances")),
    must("Q-03", "A client that is gone already is told at once.", only_c("named pipes with instances")),
    must("Q-04", "A message longer than the buffer is read in parts.", only_c("pipes in message mode")),
    must("Q-05", "When the other end of a pipe is closed, reads end with 109 and writes with 232.", Test(broken_pipe)),
    should("Q-06", "Disconnecting a pipe ends its reads with 233.", only_c("named pipes with instances")),
    should(
        "Q-07",
        "Closing the own end ends a read with 109.",
        differs("with 995, as closing any device does", closed_own_end),
    ),
    must("Q-08", "A pipe's read ends with what is there, its write when all was taken.", Test(pipe)),
];

const BLOCK: usize = 4096;

type TestFile = wharf::fs::File<u64, u64>;

/// A file of the port, and whether each transfer has to be aligned.
struct Opened {
    port: Port,
    path: Temporary,
    file: TestFile,
    direct: bool,
}

/// Runs a check on a file as it comes, and on one past the cache. `unit` is what offsets and lengths are multiples of.
fn each(b: &Bench, content: &[u8], check: impl Fn(&Opened, usize)) {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let (port, path) = (b.port(), Temporary::with(content));
    let file = port.open(&path, &options, 7).expect("a plain file opens");
    check(&Opened { port, path, file, direct: false }, 1);
    past_the_cache(&mut options);
    // A file system in memory has none; that of this program's own file mostly has.
    let program = std::env::current_exe().unwrap();
    for directory in [std::env::temp_dir().as_path(), program.parent().expect("it lies in a directory")] {
        let (port, path) = (b.port(), Temporary::in_directory(directory));
        if std::fs::write(&path, content).is_err() {
            continue;
        }
        if let Ok(file) = port.open(&path, &options, 7) {
            return check(&Opened { port, path, file, direct: true }, BLOCK);
        }
    }
    not_tried("a temporary directory whose file system has direct I/O: the half without it passes");
}

impl Opened {
    fn room(&self, length: usize) -> Buffer {
        if self.direct { Buffer::aligned(length, BLOCK) } else { Buffer::with_capacity(length) }
    }

    fn content(&self, bytes: &[u8]) -> Buffer {
        self.room(bytes.len()).filled(bytes)
    }

    #[track_caller]
    fn read(&self, length: usize, offset: usize) -> (u32, Vec<u8>) {
        pending(self.file.read_at(self.room(length), offset as u64, 1).unwrap());
        let packet = next(&self.port);
        let status = packet.nt_status();
        let Event::Read { buffer, result, .. } = packet.event else { panic!("a read was expected to end") };
        assert_eq!(result.unwrap(), buffer.len());
        (win32(status), buffer.to_vec())
    }

    #[track_caller]
    fn write(&self, bytes: &[u8], offset: usize) {
        pending(self.file.write_at(self.content(bytes), offset as u64, 2).unwrap());
        let packet = next(&self.port);
        assert!(matches!(packet.event, Event::Written { result: Ok(all), .. } if all == bytes.len()), "{packet:?}");
    }

    /// The engine under test has done something for this port.
    fn engine_ran(&self, b: &Bench) {
        self.file.sync(3).unwrap();
        assert!(matches!(next(&self.port).event, Event::Synced { result: Ok(()), .. }));
        let ran = self.port.stats().files;
        assert!(ran.is_some(), "no engine ran");
        assert!(b.engine.files().is_none_or(|files| ran == Some(files)), "{ran:?}");
    }
}

fn offsets(b: &Bench) {
    each(b, &[0; 8 * BLOCK], |opened, unit| {
        let (one, two) = (vec![1; 2 * unit], vec![2; unit]);
        opened.write(&one, 4 * unit);
        opened.write(&two, unit);
        assert_eq!(opened.read(unit, unit).1, two);
        assert_eq!(opened.read(2 * unit, 4 * unit).1, one, "no call has moved anything");
        assert_eq!(opened.read(unit, 0).1, vec![0; unit]);
        // Several at a time, in any order: each has the place that it names.
        for number in [5, 2, 7, 0, 3, 6, 1, 4] {
            let content = opened.content(&vec![10 + number as u8; unit]);
            opened.file.write_at(content, (number * unit) as u64, number as u64).unwrap();
        }
        (0..8).for_each(|_| assert!(matches!(next(&opened.port).event, Event::Written { result: Ok(_), .. })));
        let all: Vec<u8> = (0..8).flat_map(|number| vec![10 + number; unit]).collect();
        assert_eq!(opened.read(8 * unit, 0).1, all);
        opened.engine_ran(b);
    });
}

fn short(b: &Bench) {
    let content = pattern(BLOCK + 100, 1);
    each(b, &content, |opened, _| {
        assert_eq!(opened.read(4 * BLOCK, 0), (0, content.clone()));
        assert_eq!(opened.read(BLOCK, BLOCK).1, content[BLOCK..]);
    });
}

fn end(b: &Bench) {
    each(b, &[1; BLOCK], |opened, _| {
        for offset in [BLOCK, 4 * BLOCK, 1 << 40] {
            assert_eq!(opened.read(BLOCK, offset), (38, Vec::new()));
        }
    });
}

fn nothing(b: &Bench) {
    each(b, &[1; BLOCK], |opened, _| {
        for offset in [0, BLOCK, 4 * BLOCK] {
            assert_eq!(opened.read(0, offset), (0, Vec::new()));
        }
    });
}

fn append(b: &Bench) {
    const WRITES: u8 = 60;
    each(b, &[0; BLOCK], |opened, unit| {
        let length = unit.max(100);
        std::thread::scope(|scope| {
            for half in [0..WRITES / 2, WRITES / 2..WRITES] {
                scope.spawn(|| {
                    half.for_each(|number| {
                        opened.file.append(opened.content(&vec![number + 1; length]), number.into()).unwrap();
                    });
                });
            }
        });
        for _ in 0..WRITES {
            let packet = next(&opened.port);
            assert!(matches!(packet.event, Event::Written { result: Ok(all), .. } if all == length));
        }
        let all = std::fs::read(&opened.path).unwrap();
        assert_eq!(all.len(), BLOCK + usize::from(WRITES) * length);
        let mut seen = vec![0; usize::from(WRITES) + 1];
        for piece in all[BLOCK..].chunks(length) {
            assert!(piece.iter().all(|&byte| byte == piece[0]), "two appends lie over each other");
            seen[usize::from(piece[0])] += 1;
        }
        assert!(seen[1..].iter().all(|&times| times == 1), "an append is missing");
    });
    // Two handles of two ports, each with its own engine.
    const LARGE: usize = 300_000;
    let path = Temporary::with("");
    let ports = [b.port(), b.port()];
    let files = [0, 1].map(|at: usize| ports[at].open(&path, OpenOptions::new().read(true).write(true), 1).unwrap());
    for number in 0..6_u8 {
        files[usize::from(number) % 2].append(vec![number + 1; LARGE], number.into()).unwrap();
    }
    for port in &ports {
        for _ in 0..3 {
            assert!(matches!(next(port).event, Event::Written { result: Ok(LARGE), .. }));
        }
    }
    let all = std::fs::read(&path).unwrap();
    assert_eq!(all.len(), 6 * LARGE);
    let mut first: Vec<u8> = all.chunks(LARGE).map(|piece| piece[0]).collect();
    assert!(
        all.chunks(LARGE).all(|piece| piece.iter().all(|&byte| byte == piece[0])),
        "two appends lie over each other"
    );
    first.sort_unstable();
    assert_eq!(first, [1, 2, 3, 4, 5, 6], "an append is missing");
}

fn bad_offset(b: &Bench) {
    each(b, b"x", |opened, _| {
        for offset in [u64::MAX, u64::MAX - 1, 1 << 63] {
            let refused = opened.file.read_at(opened.room(BLOCK), offset, 5).expect_err("no file is so long");
            assert_eq!((refused.context, refused.error.win32(Class::File)), (5, 87));
            assert!(opened.file.write_at(opened.content(&[0; BLOCK]), offset, 6).is_err());
        }
        quiet(&opened.port);
    });
}

fn gap(b: &Bench) {
    each(b, &[1; BLOCK], |opened, unit| {
        opened.write(&vec![2; unit], 3 * BLOCK);
        assert_eq!(opened.file.len().unwrap() as usize, 3 * BLOCK + unit);
        assert_eq!(opened.read(BLOCK, BLOCK).1, vec![0; BLOCK]);
        opened.write(&[], 100 * BLOCK);
        assert_eq!(opened.file.len().unwrap() as usize, 3 * BLOCK + unit, "a write of nothing changes nothing");
    });
}

fn many(b: &Bench) {
    const BLOCKS: usize = 300;
    let content = pattern(BLOCKS * BLOCK, 2);
    each(b, &content, |opened, _| {
        for number in 0..BLOCKS {
            opened.file.read_at(opened.room(BLOCK), (number * BLOCK) as u64, number as u64).unwrap();
        }
        let mut seen = vec![false; BLOCKS];
        for _ in 0..BLOCKS {
            let packet = next(&opened.port);
            let number = packet.context as usize;
            let Event::Read { buffer, result: Ok(BLOCK), .. } = packet.event else { panic!("a read of a block") };
            assert!(buffer[..] == content[number * BLOCK..][..BLOCK], "another block's data");
            assert!(!std::mem::replace(&mut seen[number], true), "{number} ended twice");
        }
        quiet(&opened.port);
        // Writes, reads, appends and syncs together.
        let end = opened.file.len().unwrap() as usize;
        for number in 0..50_usize {
            let context = 4 * number as u64;
            let block = opened.content(&vec![number as u8; BLOCK]);
            opened.file.write_at(block, (2 * number * BLOCK) as u64, context).unwrap();
            opened.file.read_at(opened.room(BLOCK), ((2 * number + 1) * BLOCK) as u64, context + 1).unwrap();
            opened.file.append(opened.content(&vec![number as u8; BLOCK]), context + 2).unwrap();
            opened.file.sync(context + 3).unwrap();
        }
        let mut seen = [false; 200];
        for _ in 0..200 {
            let packet = next(&opened.port);
            let number = packet.context as usize;
            assert!(!std::mem::replace(&mut seen[number], true), "{number} ended twice");
            match (number % 4, packet.event) {
                (0 | 2, Event::Written { result: Ok(BLOCK), .. }) | (3, Event::Synced { result: Ok(()), .. }) => {}
                (1, Event::Read { buffer, result: Ok(BLOCK), .. }) => {
                    let at = (2 * (number / 4) + 1) * BLOCK;
                    assert!(buffer[..] == content[at..][..BLOCK], "another block's data");
                }
                (_, other) => panic!("{number} ended as {other:?}"),
            }
        }
        let all = std::fs::read(&opened.path).unwrap();
        assert_eq!(all.len(), end + 50 * BLOCK);
        for number in 0..50_usize {
            assert_eq!(all[2 * number * BLOCK..][..BLOCK], [number as u8; BLOCK]);
        }
        let mut appended: Vec<u8> = all[end..].chunks(BLOCK).map(|block| block[0]).collect();
        appended.sort_unstable();
        assert!(appended.into_iter().eq(0..50), "each append once");
        opened.engine_ran(b);
    });
}

fn skip(b: &Bench) {
    each(b, &[5; BLOCK], |opened, _| {
        opened.file.skip_on_success();
        let packet = match opened.file.read_at(opened.room(BLOCK), 0, 9).unwrap() {
            wharf::Outcome::Done(packet) => packet,
            wharf::Outcome::Pending(_) => next(&opened.port),
        };
        assert_eq!(packet.context, 9);
        assert!(matches!(packet.event, Event::Read { result: Ok(BLOCK), .. }));
        quiet(&opened.port);
        // What the cache holds is mostly done in the call; without the flag everything is told as pending.
        let mut done = 0;
        for context in 10..40 {
            match opened.file.read_at(opened.room(BLOCK), 0, context).unwrap() {
                wharf::Outcome::Done(packet) => {
                    assert_eq!(packet.context, context);
                    done += 1;
                }
                wharf::Outcome::Pending(_) => assert_eq!(next(&opened.port).context, context),
            }
        }
        quiet(&opened.port);
        assert!(opened.direct || done > 0, "no cached read was done at once, with the skip flag");
        let plain = opened.port.open(&opened.path, OpenOptions::new().read(true), 8).unwrap();
        pending(plain.read_at(vec![0; BLOCK], 0, 50).unwrap());
        assert_eq!(next(&opened.port).context, 50);
    });
}

fn not_granted(b: &Bench) {
    let (port, path) = (b.port(), Temporary::with("content"));
    let reader = port.open(&path, OpenOptions::new().read(true), 1).unwrap();
    let writer = port.open(&path, OpenOptions::new().write(true), 2).unwrap();
    let refused = reader.write_at("x", 0, 1).expect_err("not open for writing");
    assert_eq!((refused.context, refused.error.win32(Class::File)), (1, 5));
    let refused = writer.read_at(vec![0; 4], 0, 2).expect_err("not open for reading");
    assert_eq!((refused.context, refused.error.win32(Class::File)), (2, 5));
    quiet(&port);
    assert_eq!(std::fs::read(&path).unwrap(), b"content");
    // What a full disk says has the name that Windows has for it.
    #[cfg(unix)]
    assert_eq!(win32(wharf::error::nt_status_of_number(libc::ENOSPC, Class::File)), 112);
}

fn alignment(b: &Bench) {
    each(b, &[1; 4 * BLOCK], |opened, _| {
        if opened.direct {
            opened.file.read_at(Buffer::aligned(BLOCK, BLOCK), 7, 1).unwrap();
            let packet = next(&opened.port);
            assert_eq!(codes(&packet).0, 87);
            assert_eq!(opened.read(BLOCK, BLOCK).0, 0, "the next works");
        }
    });
}

#[allow(unsafe_code)]
fn scattered(b: &Bench) {
    let port = b.raw();
    let path = Temporary::with("0123456789");
    let file = for_ports(OpenOptions::new().read(true).write(true)).open(&path).unwrap();
    let device = port.adopt(file, DeviceKind::File, 1).unwrap();
    let rooms = [Memory::room(3), Memory::room(4), Memory::room(10)];
    // SAFETY: `Memory` is never freed, and not looked at before the packet.
    unsafe { port.read_file(&device, Memory::many(&rooms), 1, 5, Sink::Port) }.unwrap();
    let packet = raw_next(&port);
    assert_eq!((packet.token, packet.bytes, packet.error), (5, 9, 0));
    assert_eq!((&rooms[0].bytes()[..], &rooms[1].bytes()[..]), (&b"123"[..], &b"4567"[..]));
    assert_eq!(&rooms[2].bytes()[..2], b"89");
    let pieces = [Memory::new(b"ab"), Memory::new(b"cde")];
    // SAFETY: as above.
    unsafe { port.write_file(&device, Memory::many(&pieces), Some(2), 6, Sink::Port) }.unwrap();
    assert_eq!(raw_next(&port).bytes, 5);
    assert_eq!(std::fs::read(&path).unwrap(), b"01abcde789");
    port.close_device(&device);
}

fn plain_calls(b: &Bench) {
    let port = b.port();
    let path = Temporary::with("0123456789");
    let file = port.open(&path, OpenOptions::new().read(true).write(true), 1).unwrap();
    assert_eq!(file.len().unwrap(), 10);
    file.write_at("abc", 0, 1).unwrap();
    assert_eq!(next(&port).context, 1);
    file.flush().unwrap();
    file.set_len(4).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    file.flush().unwrap();
    quiet(&port);
    assert_eq!(std::fs::read(&path).unwrap(), b"abc3");
    // A file that is open for reading can be asked, and not cut.
    let file = port.open(&path, OpenOptions::new().read(true), 2).unwrap();
    assert_eq!(file.len().unwrap(), 4);
    assert!(file.set_len(1).is_err());
    quiet(&port);
}

/// The codes that Windows would tell; the result of a read is a success of 0 bytes, as everywhere in Rust.
fn broken_pipe(b: &Bench) {
    let port = b.port();
    let (reader, writer) = std::io::pipe().unwrap();
    let pipe = port.associate(reader, 1).unwrap();
    pipe.recv(vec![0; 16], 1).unwrap();
    drop(writer);
    for context in 1..3 {
        let packet = next(&port);
        assert_eq!((packet.context, win32(packet.nt_status())), (context, 109));
        assert!(matches!(packet.event, Event::Received { result: Ok(0), .. }), "{packet:?}");
        if context == 1 {
            pipe.recv(vec![0; 16], 2).unwrap();
        }
    }
    let (reader, writer) = std::io::pipe().unwrap();
    let pipe = port.associate(writer, 2).unwrap();
    drop(reader);
    pipe.send("nobody reads", 3).unwrap();
    let packet = next(&port);
    assert_eq!((packet.context, win32(packet.nt_status())), (3, 232));
    assert!(packet.error().is_some());
    quiet(&port);
}

fn pipe(b: &Bench) {
    use std::io::Write;
    let port = b.port();
    let (reader, mut writer) = std::io::pipe().unwrap();
    let pipe = port.associate(reader, 1).unwrap();
    pipe.recv(vec![0; 4096], 1).unwrap();
    writer.write_all(b"some").unwrap();
    assert_eq!(received(&port).1.unwrap(), b"some");
    let (mut reader, writer) = std::io::pipe().unwrap();
    let pipe = port.associate(writer, 2).unwrap();
    let content = pattern(MUCH, 6);
    pipe.send(content.clone(), 2).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "a pipe does not take so much");
    let thread = std::thread::spawn(move || {
        let mut all = vec![0; MUCH];
        std::io::Read::read_exact(&mut reader, &mut all).unwrap();
        all
    });
    let (context, result) = sent(&port);
    assert_eq!((context, result.unwrap()), (2, MUCH));
    assert!(thread.join().unwrap() == content);
}

/// with 995.
fn closed_own_end(b: &Bench) {
    let port = b.port();
    let (reader, _writer) = std::io::pipe().unwrap();
    let pipe = port.associate(reader, 1).unwrap();
    pipe.recv(vec![0; 16], 1).unwrap();
    pipe.close();
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet)), (1, (995, 995)));
}

/// a Unix socket's listener accepts as others do.
#[cfg(unix)]
fn local_client(b: &Bench) {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};
    let port = b.port();
    let path = Temporary::new();
    let listener = port.associate(UnixListener::bind(&path).unwrap(), 7).unwrap();
    let ids: Vec<_> = (0..3).map(|number| pending(listener.accept(number).unwrap())).collect();
    assert!(port.get_timeout(WHILE).is_err(), "nobody has connected");
    assert_eq!(listener.cancel(ids[1]), wharf::Cancel::Requested);
    let packet = next(&port);
    assert_eq!((packet.key, packet.context, codes(&packet).0), (7, 1, 995));
    let mut client = UnixStream::connect(&path).unwrap();
    let packet = next(&port);
    assert_eq!((packet.key, packet.context), (7, 0));
    let Event::AcceptedLocal { result, .. } = packet.event else { panic!("a client was accepted: {packet:?}") };
    let server = port.associate(result.unwrap(), 8).unwrap();
    server.recv(vec![0; 16], 10).unwrap();
    client.write_all(b"local").unwrap();
    assert_eq!(received(&port).1.unwrap(), b"local");
    server.send("back", 11).unwrap();
    assert_eq!(sent(&port).1.unwrap(), 4);
    client.read_exact(&mut [0; 4]).unwrap();
    listener.close();
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet).0), (2, 995), "closing ends what is outstanding");
    quiet(&port);
}

#[cfg(windows)]
fn local_client(_: &Bench) {
    not_here("Unix sockets do not complete into a port there, and named pipes are not offered")
}
