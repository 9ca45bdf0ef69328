//! Files through the port, with each engine that runs what has to wait (rows F).

#![cfg(target_os = "linux")]

mod common;

use common::{Ledger, Port, Token, errno, eventually, next, pending};
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use wharf::error::NtStatus;
use wharf::fs::File;
use wharf::{Buffer, Event, FileEngine, Outcome, PortOptions, Wake};

const EACCES: i32 = 13;
const EINVAL: i32 = 22;
const ENOSPC: i32 = 28;
const EISDIR: i32 = 21;

/// A path of the test's own, whose file is gone when it ends.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Temporary {
        Temporary(std::env::temp_dir().join(format!("wharf-files-{}-{:x}", std::process::id(), fastrand::u64(..))))
    }

    fn with(content: impl AsRef<[u8]>) -> Temporary {
        let path = Temporary::new();
        std::fs::write(&path.0, content).unwrap();
        path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

impl AsRef<Path> for Temporary {
    fn as_ref(&self) -> &Path {
        &self.0
    }
}

fn port(engine: FileEngine) -> Port {
    PortOptions::default().concurrency(2).wake(Wake::default()).file_engine(engine).build().unwrap()
}

/// Runs a test with io_uring and with threads.
#[track_caller]
fn each(test: impl Fn(&Port, &Ledger)) {
    for engine in [FileEngine::Ring, FileEngine::Threads] {
        let ledger = Ledger::new();
        let port = port(engine);
        test(&port, &ledger);
    }
}

fn read_write() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true);
    options
}

/// Past the cache, so that nothing is done at once.
fn direct() -> OpenOptions {
    let mut options = read_write();
    options.custom_flags(libc::O_DIRECT);
    options
}

type TestFile = File<u64, Token>;

#[derive(Debug)]
struct Done {
    number: u64,
    buffer: Buffer,
    result: io::Result<usize>,
}

#[track_caller]
fn done(port: &Port) -> Done {
    let packet = next(port);
    let number = packet.context.number;
    match packet.event {
        Event::Read { buffer, result, .. } | Event::Written { buffer, result, .. } => Done { number, buffer, result },
        Event::Synced { result, .. } => Done { number, buffer: Buffer::default(), result: result.map(|()| 0) },
        other => panic!("a file operation was expected to complete: {other:?}"),
    }
}

#[track_caller]
fn read(port: &Port, ledger: &Ledger, file: &TestFile, bytes: usize, offset: u64) -> Vec<u8> {
    pending(file.read_at(Buffer::with_capacity(bytes), offset, ledger.token(offset)).unwrap());
    let done = done(port);
    assert_eq!(done.result.unwrap(), done.buffer.len());
    done.buffer.to_vec()
}

#[test]
fn what_is_written_is_read_and_the_end_is_told() {
    each(|port, ledger| {
        let path = Temporary::new();
        let file = port.open(&path, &read_write(), 7).unwrap();
        pending(file.write_at("hello, port", 0, ledger.token(1)).unwrap());
        let written = done(port);
        assert_eq!((written.number, written.result.unwrap(), &written.buffer[..]), (1, 11, &b"hello, port"[..]));
        assert_eq!(read(port, ledger, &file, 5, 7), b"port");
        assert_eq!(read(port, ledger, &file, 100, 0), b"hello, port");
        assert_eq!(read(port, ledger, &file, 100, 11), b"", "at the end (row F-03)");
        assert_eq!(read(port, ledger, &file, 100, 1 << 40), b"", "behind it");
        assert_eq!(read(port, ledger, &file, 0, 3), b"", "nothing asked for (row F-04)");
        assert_eq!(file.len().unwrap(), 11);
    });
}

#[test]
fn windows_would_call_the_end_an_error_and_the_packet_says_so() {
    let ledger = Ledger::new();
    let port = port(FileEngine::Auto);
    let path = Temporary::with("12");
    let file = port.open(&path, &read_write(), 7).unwrap();
    for (bytes, offset, status) in [(9, 0, NtStatus::SUCCESS), (9, 2, NtStatus::END_OF_FILE), (0, 2, NtStatus::SUCCESS)]
    {
        pending(file.read_at(Buffer::with_capacity(bytes), offset, ledger.token(1)).unwrap());
        assert_eq!(next(&port).nt_status(), status, "{bytes} bytes at {offset}");
    }
}

#[test]
fn a_write_behind_the_end_leaves_a_gap_of_zeros() {
    each(|port, ledger| {
        let path = Temporary::with("ab");
        let file = port.open(&path, &read_write(), 7).unwrap();
        pending(file.write_at("z", 6, ledger.token(1)).unwrap());
        assert_eq!(done(port).result.unwrap(), 1);
        assert_eq!(read(port, ledger, &file, 100, 0), b"ab\0\0\0\0z");
        pending(file.write_at("", 100, ledger.token(2)).unwrap());
        assert_eq!(done(port).result.unwrap(), 0);
        assert_eq!(file.len().unwrap(), 7, "a write of nothing changes nothing (row F-07)");
    });
}

#[test]
fn appends_do_not_overwrite_each_other() {
    each(|port, ledger| {
        let path = Temporary::with("0\n");
        let files = [0, 1].map(|key| port.open(&path, &read_write(), key).unwrap());
        for number in 0..200_u64 {
            pending(files[(number % 2) as usize].append(format!("{number:04}\n"), ledger.token(number)).unwrap());
        }
        (0..200).for_each(|_| assert_eq!(done(port).result.unwrap(), 5));
        let content = std::fs::read_to_string(&path).unwrap();
        let mut lines: Vec<&str> = content.lines().skip(1).collect();
        lines.sort_unstable();
        assert_eq!(lines.len(), 200);
        assert!(lines.iter().enumerate().all(|(number, line)| line.parse() == Ok(number)), "{lines:?}");
    });
}

#[test]
fn syncs_complete_and_the_length_can_be_set() {
    each(|port, ledger| {
        let path = Temporary::with("0123456789");
        let file = port.open(&path, &read_write(), 7).unwrap();
        pending(file.sync(ledger.token(1)).unwrap());
        pending(file.sync_data(ledger.token(2)).unwrap());
        let numbers = [done(port), done(port)].map(|done| done.result.map(|_| done.number).unwrap());
        assert!(numbers == [1, 2] || numbers == [2, 1], "{numbers:?}");
        file.set_len(4).unwrap();
        assert_eq!(read(port, ledger, &file, 100, 0), b"0123");
        file.set_len(6).unwrap();
        assert_eq!(read(port, ledger, &file, 100, 0), b"0123\0\0");
    });
}

#[test]
fn the_chosen_engine_runs_what_has_to_wait() {
    for (engine, name) in [(FileEngine::Ring, "io_uring"), (FileEngine::Threads, "threads")] {
        let ledger = Ledger::new();
        let port = port(engine);
        let path = Temporary::with("x");
        let file = port.open(&path, &read_write(), 7).unwrap();
        assert_eq!(port.stats().files, None, "nothing had to wait yet");
        pending(file.sync(ledger.token(1)).unwrap());
        let result = done(&port).result;
        if let (Err(error), FileEngine::Ring) = (&result, engine) {
            assert!(std::env::var_os("CI").is_none(), "no io_uring on a machine for CI: {error}");
            eprintln!("SKIPPED, LOUDLY: the kernel gives no io_uring ({error})");
            continue;
        }
        result.unwrap();
        assert_eq!(port.stats().files, Some(name));
    }
}

#[test]
fn a_thousand_outstanding_reads_of_the_disk_all_come_back() {
    each(|port, ledger| {
        const BLOCK: usize = 4096;
        let content: Vec<u8> = (0..256_u32).flat_map(|block| [block as u8; BLOCK]).collect();
        let path = Temporary::with(&content);
        // What the file system's direct I/O does not take is refused by it: then through the cache.
        let file = port.open(&path, &direct(), 7).or_else(|_| port.open(&path, &read_write(), 7)).unwrap();
        drop_from_cache(&path);
        for number in 0..1000 {
            let offset = number % 256 * BLOCK as u64;
            let buffer = Buffer::aligned(2 * BLOCK, BLOCK);
            pending(file.read_at(buffer, offset, ledger.token(number)).unwrap());
        }
        for _ in 0..1000 {
            let done = done(port);
            let bytes = done.result.unwrap();
            assert!(bytes == 2 * BLOCK || done.number % 256 == 255);
            assert_eq!(done.buffer[0], (done.number % 256) as u8);
        }
        eventually("nothing is outstanding", || port.devices()[0].pending == (0, 0));
    });
}

#[test]
fn direct_io_that_is_not_aligned_fails_and_the_next_goes_on() {
    each(|port, ledger| {
        let path = Temporary::with(vec![b'x'; 8192]);
        let Ok(file) = port.open(&path, &direct(), 7) else {
            return eprintln!("SKIPPED: the temporary directory's file system offers no direct I/O");
        };
        pending(file.read_at(Buffer::aligned(4096, 4096), 1, ledger.token(1)).unwrap());
        assert_eq!(errno(&done(port).result), EINVAL, "row F-11");
        pending(file.read_at(Buffer::aligned(4096, 4096), 4096, ledger.token(2)).unwrap());
        assert_eq!(done(port).result.unwrap(), 4096);
        pending(file.write_at(Buffer::aligned(4096, 4096).filled(&[b'y'; 4096]), 0, ledger.token(3)).unwrap());
        assert_eq!(done(port).result.unwrap(), 4096);
        assert_eq!(std::fs::read(&path).unwrap()[..4097], [&[b'y'; 4096][..], b"x"].concat());
    });
}

fn drop_from_cache(path: impl AsRef<Path>) {
    let file = std::fs::File::open(path).unwrap();
    file.sync_all().unwrap();
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
}

#[test]
fn cold_and_cached_parts_of_one_read_come_together() {
    each(|port, ledger| {
        let content: Vec<u8> = (0..1 << 20).map(|at: u32| (at / 1000) as u8).collect();
        let path = Temporary::with(&content);
        let file = port.open(&path, &read_write(), 7).unwrap();
        drop_from_cache(&path);
        // The beginning is in the cache again, the rest is not.
        std::fs::File::open(&path).unwrap().read_at(&mut [0; 100], 0).unwrap();
        assert_eq!(read(port, ledger, &file, 2 << 20, 0), content);
    });
}

#[test]
fn what_the_cache_holds_is_done_inside_the_issuing_call() {
    let ledger = Ledger::new();
    let port = port(FileEngine::Threads);
    let path = Temporary::with("cached");
    let file = port.open(&path, &read_write(), 7).unwrap();
    file.skip_on_success();
    std::fs::read(&path).unwrap();
    match file.read_at(Buffer::with_capacity(100), 0, ledger.token(1)).unwrap() {
        Outcome::Done(packet) => {
            packet.context.arrive();
            assert!(matches!(packet.event, Event::Read { result: Ok(6), .. }));
        }
        Outcome::Pending(_) => {
            // A file system that does not offer to try.
            assert_eq!(done(&port).result.unwrap(), 6);
        }
    }
    common::quiet(&port, &ledger);
}

#[test]
fn what_cannot_be_is_refused_with_everything_given_back() {
    let ledger = Ledger::new();
    let port = port(FileEngine::Auto);
    let path = Temporary::with("content");
    let only_read = port.open(&path, OpenOptions::new().read(true), 7).unwrap();
    let refused = only_read.write_at("x", 0, ledger.token(1)).unwrap_err();
    assert_eq!(
        (refused.error.raw_os_error(), refused.context.number, &refused.buffer[..]),
        (Some(EACCES), 1, &b"x"[..])
    );
    let only_write = port.open(&path, OpenOptions::new().write(true), 7).unwrap();
    let refused = only_write.read_at(Buffer::with_capacity(9), 0, ledger.token(2)).unwrap_err();
    assert_eq!((refused.error.raw_os_error(), refused.buffer.capacity()), (Some(EACCES), 9));
    for offset in [u64::MAX, u64::MAX - 1, 1 << 63] {
        let refused = only_read.read_at(Buffer::with_capacity(9), offset, ledger.token(3)).unwrap_err();
        assert_eq!(refused.error.raw_os_error(), Some(EINVAL), "row F-06");
    }
    let refused = only_read.read_at(Buffer::from("static"), 0, ledger.token(4)).unwrap_err();
    assert!(refused.error.to_string().contains("cannot be received into"), "{}", refused.error);
    only_read.close();
    let refused = only_read.read_at(Buffer::with_capacity(9), 0, ledger.token(5)).unwrap_err();
    assert!(refused.error.to_string().contains("closed"), "{}", refused.error);
}

#[test]
fn what_is_no_file_is_not_associated() {
    let port = port(FileEngine::Auto);
    let directory = port.open(std::env::temp_dir(), OpenOptions::new().read(true), 7).unwrap_err();
    assert!(directory.to_string().contains("a directory"), "{directory}");
    assert_eq!(
        port.open(std::env::temp_dir(), &read_write(), 7).unwrap_err().raw_os_error(),
        Some(EISDIR),
        "the system says it first"
    );
    let device = port.open("/dev/null", &read_write(), 7).unwrap_err();
    assert!(device.to_string().contains("a character device"), "{device}");
    let missing = port.open("/does/not/exist", OpenOptions::new().read(true), 7).unwrap_err();
    assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    assert_eq!(port.stats().devices, 0);
}

#[test]
fn a_file_that_is_truncated_or_removed_meanwhile_is_read_as_it_is() {
    each(|port, ledger| {
        let path = Temporary::with([b'x'; 100_000]);
        let file = port.open(&path, &read_write(), 7).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(10).unwrap();
        assert_eq!(read(port, ledger, &file, 100_000, 0), b"xxxxxxxxxx");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(read(port, ledger, &file, 100, 8), b"xx", "an open file outlives its name");
    });
}

#[test]
fn a_closed_file_keeps_its_promises_and_its_descriptor_goes_last() {
    each(|port, ledger| {
        let path = Temporary::new();
        let file = port.open(&path, &read_write(), 7).unwrap();
        for number in 0..50 {
            pending(file.write_at(vec![1_u8; 1 << 16], number << 16, ledger.token(number)).unwrap());
            pending(file.sync(ledger.token(1000 + number)).unwrap());
        }
        file.close();
        for _ in 0..100 {
            let done = done(port);
            if let Err(error) = &done.result {
                assert_eq!(error.raw_os_error(), Some(libc::ECANCELED), "{done:?}");
            }
        }
        common::quiet(port, ledger);
    });
}

#[test]
fn operations_are_cancelled_or_end_as_they_were() {
    each(|port, ledger| {
        let path = Temporary::new();
        let file = port.open(&path, &read_write(), 7).unwrap();
        let ids: Vec<_> = (0..100).map(|number| pending(file.sync(ledger.token(number)).unwrap())).collect();
        for &id in &ids {
            let _ = file.cancel(id);
        }
        assert!(file.cancel_all() <= 100);
        for _ in 0..100 {
            let result = done(port).result;
            assert!(result.is_ok() || errno(&result) == libc::ECANCELED, "{result:?}");
        }
        assert_eq!(file.cancel(ids[0]), wharf::Cancel::TooLate);
    });
}

#[test]
fn a_file_is_released_only_without_operations() {
    each(|port, ledger| {
        let path = Temporary::with("kept");
        let file = port.open(&path, &read_write(), 7).unwrap();
        let mut held = Some(file);
        // Whether it is still under way is a race; that it is refused then, and no operation lost, is not.
        for number in 0..50 {
            let Some(file) = held.take() else { break };
            pending(file.sync(ledger.token(number)).unwrap());
            held = match file.release() {
                Ok(std) => {
                    assert_eq!(std.metadata().unwrap().len(), 4);
                    None
                }
                Err(rejected) => {
                    assert_eq!(rejected.error.raw_os_error(), Some(16), "{}", rejected.error);
                    Some(rejected.source)
                }
            };
            done(port).result.unwrap();
        }
        if let Some(file) = held {
            let mut std = file.release().unwrap();
            std.write_all(b"K").unwrap();
        }
    });
}

#[test]
fn a_port_closed_with_file_operations_under_way_frees_them() {
    each(|port, ledger| {
        let path = Temporary::new();
        let file = port.open(&path, &read_write(), 7).unwrap();
        for number in 0..100 {
            pending(file.write_at(vec![7_u8; 1 << 16], number << 16, ledger.token(number)).unwrap());
            pending(file.sync_data(ledger.token(number)).unwrap());
        }
        port.close();
        drop(file);
        eventually("all contexts and buffers are freed", || ledger.live() == 0);
    });
}

#[test]
fn files_sockets_and_posts_share_the_queue() {
    let ledger = Ledger::new();
    let port = port(FileEngine::Auto);
    let path = Temporary::with("file");
    let file = port.open(&path, &read_write(), 1).unwrap();
    let listener = port.listen("127.0.0.1:0", 2).unwrap();
    pending(listener.accept(ledger.token(2)).unwrap());
    pending(file.sync(ledger.token(1)).unwrap());
    port.post(0, 3, ledger.token(3)).unwrap();
    let _client = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut keys: Vec<u64> = (0..3).map(|_| next(&port).key).collect();
    keys.sort_unstable();
    assert_eq!(keys, [1, 2, 3]);
}

/// Needs a file system of its own, which only root (of a user namespace, too) may mount.
#[test]
fn a_full_disk_is_told_and_everything_else_goes_on() {
    const CHILD: &str = "WHARF_TEST_FULL_DISK";
    if std::env::var_os(CHILD).is_some() {
        return full_disk();
    }
    let program = std::env::current_exe().unwrap();
    let mount = "mount -t tmpfs -o size=64k none /mnt && exec \"$0\" --exact a_full_disk_is_told_and_everything_else_goes_on --nocapture";
    let run = std::process::Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", mount])
        .arg(program)
        .env(CHILD, "1")
        .output();
    match run {
        Ok(output) if output.status.success() => {
            assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "{output:?}");
        }
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("running 1 test") => {
            panic!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        }
        other => {
            assert!(std::env::var_os("CI").is_none(), "a small file system cannot be mounted: {other:?}");
            eprintln!("SKIPPED, LOUDLY: a small file system cannot be mounted here: {other:?}");
        }
    }
}

fn full_disk() {
    each(|port, ledger| {
        let path = Path::new("/mnt/full");
        let file = port.open(path, &read_write(), 7).unwrap();
        pending(file.write_at(vec![1_u8; 1 << 20], 0, ledger.token(1)).unwrap());
        assert_eq!(errno(&done(port).result), ENOSPC);
        file.set_len(0).unwrap();
        pending(file.write_at("room again", 0, ledger.token(2)).unwrap());
        assert_eq!(done(port).result.unwrap(), 10);
        std::fs::remove_file(path).unwrap();
    });
}

#[test]
fn a_wrong_engine_in_the_environment_is_an_error_that_says_what_to_do() {
    const CHILD: &str = "WHARF_TEST_WRONG_ENGINE";
    if std::env::var_os(CHILD).is_some() {
        let error = PortOptions::default().build::<u64, Token>().unwrap_err();
        assert!(error.to_string().contains("give auto, io_uring or threads"), "{error}");
        return;
    }
    let test = "a_wrong_engine_in_the_environment_is_an_error_that_says_what_to_do";
    let run = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test])
        .env(CHILD, "1")
        .env("WHARF_ENGINE", "steam")
        .status();
    assert!(run.unwrap().success());
}

#[test]
fn handlers_in_many_threads_read_and_write_and_nothing_is_lost() {
    for engine in [FileEngine::Ring, FileEngine::Threads] {
        let ledger = Ledger::new();
        let port = port(engine);
        let path = Temporary::with(vec![0; 1 << 20]);
        let file = port.open(&path, &read_write(), 7).unwrap();
        let mint = ledger.mint();
        let crew = common::Crew::start(&port, 3, move |_, packet| match packet.event {
            Event::Read { file, buffer, result } => {
                assert_eq!(result.unwrap(), 4096);
                let number = packet.context.number;
                file.write_at(buffer, (number % 256) * 4096, mint.token(number)).unwrap();
            }
            Event::Written { file, result, .. } => {
                assert_eq!(result.unwrap(), 4096);
                file.sync_data(mint.token(packet.context.number)).unwrap();
            }
            Event::Synced { result, .. } => result.unwrap(),
            other => panic!("{other:?}"),
        });
        for number in 0..300 {
            file.read_at(Buffer::with_capacity(4096), (number % 256) * 4096, ledger.token(number)).unwrap();
        }
        eventually("three packets for each number", || ledger.arrived() == 900);
        drop(crew);
    }
}
