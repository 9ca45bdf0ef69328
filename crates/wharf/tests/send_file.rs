//! Files sent on streams, with a head and a tail (rows T).

#![cfg(target_os = "linux")]

mod common;

use common::*;
use std::fs::{File as StdFile, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::net::TcpStream as StdStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use wharf::error::{ErrorExt, NtStatus};
use wharf::{Cancel, Event, FileEngine, FileMessage, Outcome, PortOptions, Wake};

const EACCES: i32 = 13;
const EISDIR: i32 = 21;
const ECANCELED: i32 = 125;

/// A file of the test's own: content that differs everywhere. Gone when it is dropped, though whoever has it open keeps
/// it.
struct Content {
    path: PathBuf,
    bytes: Vec<u8>,
}

impl Content {
    fn new(length: usize) -> Content {
        let path = std::env::temp_dir().join(format!("wharf-send-{}-{:x}", std::process::id(), fastrand::u64(..)));
        let bytes: Vec<u8> = (0..length).map(|at| (at ^ at >> 8 ^ at >> 16) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        Content { path, bytes }
    }

    fn open(&self) -> Arc<StdFile> {
        Arc::new(StdFile::open(&self.path).unwrap())
    }

    /// Takes it out of the system's cache. Says whether that is how it is then.
    fn cool(&self) -> bool {
        let file = self.open();
        file.sync_all().unwrap();
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        let mut byte = [0];
        let mut pieces = [io::IoSliceMut::new(&mut byte)];
        let now = rustix::io::preadv2(&file, &mut pieces, 0, rustix::io::ReadWriteFlags::NOWAIT);
        now == Err(rustix::io::Errno::AGAIN)
    }
}

impl Drop for Content {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn message(content: &Content) -> FileMessage {
    FileMessage { head: "head ".into(), tail: " tail".into(), ..FileMessage::new(content.open()) }
}

fn framed(bytes: &[u8]) -> Vec<u8> {
    [b"head ", bytes, b" tail"].concat()
}

struct SentFile {
    number: u64,
    message: Box<FileMessage>,
    result: io::Result<usize>,
    status: NtStatus,
}

#[track_caller]
fn next_sent_file(port: &Port) -> SentFile {
    let packet = next(port);
    let status = packet.nt_status();
    match packet.event {
        Event::SentFile { message, result, .. } => SentFile { number: packet.context.number, message, result, status },
        other => panic!("not a sent file: {other:?}"),
    }
}

/// With io_uring and with threads.
fn each(test: impl Fn(&Port, &Ledger)) {
    for engine in [FileEngine::Ring, FileEngine::Threads] {
        let ledger = Ledger::new();
        let port = PortOptions::default().wake(Wake::default()).file_engine(engine).build().unwrap();
        test(&port, &ledger);
    }
}

fn reader(mut peer: StdStream) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut all = Vec::new();
        // A reset ends it too.
        let _ = peer.read_to_end(&mut all);
        all
    })
}

#[test]
fn head_file_and_tail_arrive_as_one_run_whatever_the_length() {
    each(|port, ledger| {
        for length in [0, 1, 4095, 4096, 4097, 100_000, 3_000_000] {
            let content = Content::new(length);
            let (stream, peer) = connection(port, 7);
            let all = reader(peer);
            pending(stream.send_file(message(&content), ledger.token(1)).unwrap());
            let sent = next_sent_file(port);
            assert_eq!((sent.number, sent.result.unwrap(), sent.status), (1, length + 10, NtStatus::SUCCESS));
            assert_eq!(&sent.message.head[..], b"head ");
            drop((stream, sent.message));
            assert_eq!(all.join().unwrap(), framed(&content.bytes), "{length} bytes");
        }
    });
}

#[test]
fn a_part_of_a_file_is_sent_between_other_sends() {
    each(|port, ledger| {
        let content = Content::new(2_000_000);
        let (server, peer) = pair();
        small_buffers([&server, &peer]);
        let stream = port.associate(server, 7).unwrap();
        pending(stream.send("before ", ledger.token(1)).unwrap());
        let part = FileMessage { offset: 1000, length: Some(1_500_000), ..message(&content) };
        pending(stream.send_file(part, ledger.token(2)).unwrap());
        pending(stream.send(" behind", ledger.token(3)).unwrap());
        pending(stream.disconnect(ledger.token(4)).unwrap());
        let all = reader(peer);
        assert_eq!(next_sent(port).0, 1);
        assert_eq!(next_sent_file(port).result.unwrap(), 1_500_010);
        assert_eq!(next_sent(port).0, 3);
        assert!(matches!(next(port).event, Event::Disconnected { result: Ok(()), .. }));
        let expected = [b"before ", &framed(&content.bytes[1000..1_501_000])[..], b" behind"].concat();
        assert_eq!(all.join().unwrap(), expected);
    });
}

#[test]
fn what_the_cache_does_not_hold_is_fetched_by_the_internal_engine() {
    each(|port, ledger| {
        let content = Content::new(3_000_000);
        if !content.cool() {
            // A file system in memory, say. `.ci/run` has a disk.
            assert!(std::env::var_os("CI").is_none(), "the temporary folder's files cannot be taken out of the cache");
            return eprintln!("SKIPPED: the temporary folder's files cannot be taken out of the cache");
        }
        let (stream, peer) = connection(port, 7);
        let all = reader(peer);
        assert_eq!(port.stats().files, None, "nothing has needed it yet");
        pending(stream.send_file(message(&content), ledger.token(1)).unwrap());
        assert_eq!(next_sent_file(port).result.unwrap(), 3_000_010);
        assert!(port.stats().files.is_some(), "a worker has waited for the disk");
        drop(stream);
        assert_eq!(all.join().unwrap(), framed(&content.bytes));
    });
}

#[test]
fn an_operation_that_ends_at_once_can_skip_the_queue() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let content = Content::new(1000);
    let (stream, peer) = connection(&port, 7);
    stream.skip_on_success();
    let Outcome::Done(packet) = stream.send_file(message(&content), ledger.token(1)).unwrap() else {
        panic!("a thousand bytes from the cache fit")
    };
    assert!(matches!(packet.event, Event::SentFile { result: Ok(1010), .. }));
    drop(packet);
    quiet(&port, &ledger);
    drop(stream);
    assert_eq!(reader(peer).join().unwrap(), framed(&content.bytes));
}

#[test]
fn a_file_that_is_shorter_than_asked_for_fails_with_what_there_was() {
    each(|port, ledger| {
        let content = Content::new(50_000);
        let (stream, peer) = connection(port, 7);
        let all = reader(peer);
        let part = FileMessage { length: Some(50_001), ..message(&content) };
        pending(stream.send_file(part, ledger.token(1)).unwrap());
        let sent = next_sent_file(port);
        assert_eq!(sent.result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        assert_eq!(sent.status, NtStatus::END_OF_FILE);
        // The connection itself is sound.
        pending(stream.send("!", ledger.token(2)).unwrap());
        assert_eq!(next_sent(port).2.unwrap(), 1);
        drop((stream, sent.message));
        assert_eq!(all.join().unwrap(), [b"head ", &content.bytes[..], b"!"].concat());
    });
}

#[test]
fn a_file_that_is_truncated_while_it_is_sent_fails() {
    each(|port, ledger| {
        let content = Content::new(4_000_000);
        let (server, peer) = pair();
        small_buffers([&server, &peer]);
        let stream = port.associate(server, 7).unwrap();
        pending(stream.send_file(message(&content), ledger.token(1)).unwrap());
        quiet(port, ledger);
        OpenOptions::new().write(true).open(&content.path).unwrap().set_len(1_000_000).unwrap();
        let all = reader(peer);
        let sent = next_sent_file(port);
        assert_eq!(sent.result.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        drop((stream, sent.message));
        let all = all.join().unwrap();
        assert!(all.len() >= 5 && all.len() <= 4_000_005, "{}", all.len());
    });
}

#[test]
#[cfg(target_os = "linux")]
fn a_file_that_tells_another_size_than_it_has_is_sent_to_its_end() {
    each(|port, ledger| {
        for path in ["/proc/version", "/proc/self/limits", "/sys/class/net/lo/mtu"] {
            let there = std::fs::read(path).unwrap();
            let told = std::fs::metadata(path).unwrap().len();
            assert!(there.len() as u64 != told, "{path} tells its size");
            let (stream, peer) = connection(port, 7);
            let all = reader(peer);
            let file = StdFile::open(path).unwrap();
            let message = FileMessage { head: "head ".into(), tail: " tail".into(), ..FileMessage::new(file) };
            pending(stream.send_file(message, ledger.token(1)).unwrap());
            assert_eq!(next_sent_file(port).result.unwrap(), there.len() + 10, "{path}");
            let part = FileMessage { offset: 0, length: Some(3), ..FileMessage::new(StdFile::open(path).unwrap()) };
            pending(stream.send_file(part, ledger.token(2)).unwrap());
            assert_eq!(next_sent_file(port).result.unwrap(), 3);
            drop(stream);
            assert_eq!(all.join().unwrap(), [&framed(&there), &there[..3]].concat(), "{path}");
        }
    });
}

#[test]
fn an_empty_file_is_sent_between_its_head_and_its_tail() {
    each(|port, ledger| {
        let content = Content::new(0);
        let (stream, peer) = connection(port, 7);
        let all = reader(peer);
        pending(stream.send_file(message(&content), ledger.token(1)).unwrap());
        assert_eq!(next_sent_file(port).result.unwrap(), 10);
        drop(stream);
        assert_eq!(all.join().unwrap(), framed(&[]));
    });
}

#[test]
fn a_file_that_has_vanished_from_its_folder_is_sent_as_long_as_it_is_open() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let content = Content::new(200_000);
    let (stream, peer) = connection(&port, 7);
    let message = message(&content);
    std::fs::remove_file(&content.path).unwrap();
    let all = reader(peer);
    pending(stream.send_file(message, ledger.token(1)).unwrap());
    assert_eq!(next_sent_file(&port).result.unwrap(), 200_010);
    drop(stream);
    assert_eq!(all.join().unwrap(), framed(&content.bytes));
}

#[test]
fn what_cannot_be_sent_is_said_and_given_back() {
    each(|port, ledger| {
        let content = Content::new(1000);
        let (stream, peer) = connection(port, 7);
        let refused = stream.send_file(FileMessage { offset: 1001, ..message(&content) }, ledger.token(1)).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::InvalidInput);
        assert!(refused.error.to_string().contains("1001"), "{}", refused.error);
        assert_eq!(&refused.buffer.tail[..], b" tail");
        let beyond = FileMessage { length: Some(u64::MAX), ..message(&content) };
        assert_eq!(stream.send_file(beyond, ledger.token(1)).unwrap_err().error.raw_os_error(), Some(22));

        let folder = StdFile::open(std::env::temp_dir()).unwrap();
        let folder = FileMessage { length: Some(10), ..FileMessage::new(folder) };
        pending(stream.send_file(folder, ledger.token(2)).unwrap());
        assert_eq!(errno(&next_sent_file(port).result), EISDIR);
        let unreadable = OpenOptions::new().write(true).open(&content.path).unwrap();
        pending(stream.send_file(FileMessage::new(unreadable), ledger.token(3)).unwrap());
        assert_eq!(errno(&next_sent_file(port).result), EACCES);

        // Nothing of it has hurt the stream.
        pending(stream.send_file(message(&content), ledger.token(4)).unwrap());
        assert_eq!(next_sent_file(port).result.unwrap(), 1010);
        stream.close();
        let refused = stream.send_file(message(&content), ledger.token(5)).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::NotConnected);
        assert_eq!(reader(peer).join().unwrap(), framed(&content.bytes));
    });
}

#[test]
fn a_send_that_waits_for_space_is_cancelled() {
    each(|port, ledger| {
        let content = Content::new(4_000_000);
        let (server, peer) = pair();
        small_buffers([&server, &peer]);
        let stream = port.associate(server, 7).unwrap();
        let id = pending(stream.send_file(message(&content), ledger.token(1)).unwrap());
        quiet(port, ledger);
        assert_eq!(stream.cancel(id), Cancel::Requested);
        let sent = next_sent_file(port);
        assert_eq!(errno(&sent.result), ECANCELED);
        assert_eq!(stream.cancel(id), Cancel::TooLate);
        drop(peer);
    });
}

/// Without a handler for it, the signal ends the process: then this test does not come back.
#[test]
#[allow(unsafe_code)]
fn a_peer_that_is_gone_raises_no_signal() {
    // SAFETY: sets a disposition; nobody else in this process sets it.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    each(|port, ledger| {
        let content = Content::new(1_000_000);
        let (stream, peer) = connection(port, 7);
        // Its end comes before its reset: only so the system says EPIPE, which raises the signal.
        drop(peer);
        let mut error = None;
        for number in 0.. {
            assert!(number < 1000, "the peer is gone");
            match stream.send_file(FileMessage::new(content.open()), ledger.token(number)) {
                Err(refused) => error = Some(refused.error),
                Ok(_) => {
                    if let Err(failed) = next_sent_file(port).result {
                        error = Some(failed);
                    }
                }
            }
            if error.as_ref().is_some_and(ErrorExt::is_reset) {
                break;
            }
        }
    });
}

#[test]
fn whenever_streams_are_closed_or_sends_cancelled_each_send_ends_once() {
    each(|port, ledger| {
        let content = Content::new(1_500_000);
        let mut random = fastrand::Rng::with_seed(7);
        let mut issued = 0;
        let mut readers = Vec::new();
        for round in 0..60 {
            // Most of them have to be fetched.
            content.cool();
            let (stream, peer) = connection(port, round);
            let all = reader(peer);
            let ids: Vec<_> = (0..3)
                .map(|number| pending(stream.send_file(message(&content), ledger.token(number)).unwrap()))
                .collect();
            issued += ids.len();
            if random.bool() {
                thread::sleep(std::time::Duration::from_micros(random.u64(..2000)));
            }
            let cancels = match random.u8(..3) {
                0 => {
                    stream.close();
                    false
                }
                1 => stream.cancel(ids[random.usize(..3)]) == Cancel::Requested,
                _ => false,
            };
            readers.push((all, cancels));
        }
        for _ in 0..issued {
            let sent = next_sent_file(port);
            match sent.result {
                Ok(bytes) => assert_eq!(bytes, 1_500_010),
                Err(error) => assert_eq!(error.raw_os_error(), Some(ECANCELED)),
            }
        }
        assert_eq!(ledger.live(), 0);
        let whole = framed(&content.bytes).repeat(3);
        for (all, cancelled) in readers {
            let all = all.join().unwrap();
            // What was closed is cut off somewhere; what was cancelled leaves a piece in the middle.
            assert!(cancelled || whole.starts_with(&all), "{} bytes", all.len());
        }
    });
}

#[test]
fn a_port_that_is_closed_while_files_are_fetched_frees_everything() {
    each(|port, ledger| {
        let content = Content::new(1_500_000);
        let streams: Vec<_> = (0..20).map(|key| connection(port, key)).collect();
        content.cool();
        for (stream, _) in &streams {
            pending(stream.send_file(message(&content), ledger.token(1)).unwrap());
        }
        port.close();
        drop(streams);
        eventually("the last fetch has ended", || ledger.live() == 0);
    });
}

#[test]
fn unix_streams_send_files_too() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let content = Content::new(300_000);
    let (ours, mut theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let stream = port.associate(ours, 7).unwrap();
    let all = thread::spawn(move || {
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).unwrap();
        all
    });
    pending(stream.send_file(message(&content), ledger.token(1)).unwrap());
    assert_eq!(next_sent_file(&port).result.unwrap(), 300_010);
    drop(stream);
    assert_eq!(all.join().unwrap(), framed(&content.bytes));
}
