//! What the kernel's own port does beside sockets: files, sending files, Ctrl+C, child processes, waiting on the port;
//! and what it does not offer, which is said with the remedy. What both systems do alike is tested by the other files.

#![cfg(windows)]

mod common;

use common::*;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::windows::io::{AsHandle, AsRawHandle};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use wharf::error::NtStatus;
use wharf::signal::{SIGINT, SIGTERM};
use wharf::{Buffer, Cancel, Event, FileMessage, GetError, Wake, Workers};

/// A file's name that is the test's own, removed at its end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        Place(std::env::temp_dir().join(format!("wharf-{}-{name}", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn all_rights() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(true);
    options
}

#[test]
fn a_file_is_written_read_and_synced_at_offsets_and_knows_its_end() {
    let (ledger, place) = (Ledger::new(), Place::new("file"));
    let port = port(1, Wake::default());
    let file = port.open(&place.0, &all_rights(), 5).unwrap();
    let bytes = pattern(300_000, 1);
    pending(file.write_at(bytes.clone(), 0, ledger.token(1)).unwrap());
    let Event::Written { result: Ok(300_000), .. } = next(&port).event else { panic!("not written") };
    pending(file.write_at("far", 400_000, ledger.token(2)).unwrap());
    let Event::Written { result: Ok(3), .. } = next(&port).event else { panic!("not written") };
    pending(file.append("end", ledger.token(3)).unwrap());
    let Event::Written { result: Ok(3), .. } = next(&port).event else { panic!("not appended") };
    assert_eq!(file.len().unwrap(), 400_006);
    pending(file.sync(ledger.token(4)).unwrap());
    let Event::Synced { result: Ok(()), .. } = next(&port).event else { panic!("not synced") };
    for (offset, expected) in
        [(0, &bytes[..1000]), (299_500, &[&bytes[299_500..], &[0; 500][..]].concat()), (400_000, b"farend")]
    {
        let buffer = Buffer::with_capacity(expected.len().max(1000));
        pending(file.read_at(buffer, offset, ledger.token(5)).unwrap());
        let Event::Read { buffer, result, .. } = next(&port).event else { panic!("not read") };
        assert_eq!(result.unwrap(), expected.len());
        assert!(buffer[..] == *expected, "at {offset}");
    }
    // Behind the end: nothing, which is no failure (row F-03).
    pending(file.read_at(Buffer::with_capacity(10), 1 << 40, ledger.token(6)).unwrap());
    let packet = next(&port);
    assert_eq!(packet.nt_status(), NtStatus::END_OF_FILE);
    let Event::Read { result: Ok(0), .. } = packet.event else { panic!("{:?}", packet.event) };
    file.set_len(10).unwrap();
    assert_eq!(file.len().unwrap(), 10);
    // Beyond what a file can have (row F-06).
    assert!(file.read_at(Buffer::with_capacity(10), u64::MAX - 5, ledger.token(7)).is_err());
}

#[test]
fn a_file_that_was_opened_for_waiting_calls_is_opened_anew_with_its_rights() {
    let (ledger, place) = (Ledger::new(), Place::new("rights"));
    let port = port(1, Wake::default());
    std::fs::write(&place.0, "content").unwrap();
    let file = port.associate(std::fs::File::open(&place.0).unwrap(), 1).unwrap();
    let refused = file.write_at("x", 0, ledger.token(1)).unwrap_err();
    assert_eq!(refused.error.kind(), io::ErrorKind::PermissionDenied);
    pending(file.read_at(Buffer::with_capacity(4), 3, ledger.token(2)).unwrap());
    let Event::Read { buffer, result: Ok(4), .. } = next(&port).event else { panic!("not read") };
    assert_eq!(&buffer[..], b"tent");
    let mut released = file.release().unwrap();
    let mut text = String::new();
    released.read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
}

#[test]
fn many_reads_of_a_file_are_outstanding_at_once() {
    let (ledger, place) = (Ledger::new(), Place::new("many"));
    let port = port(2, Wake::default());
    let bytes = pattern(1 << 20, 2);
    std::fs::write(&place.0, &bytes).unwrap();
    let file = port.open(&place.0, OpenOptions::new().read(true), 1).unwrap();
    for n in 0..256_u64 {
        pending(file.read_at(Buffer::with_capacity(4096), n * 4096, ledger.token(n)).unwrap());
    }
    for _ in 0..256 {
        let packet = next(&port);
        let at = packet.context.number as usize * 4096;
        let Event::Read { buffer, result: Ok(4096), .. } = packet.event else { panic!("{:?}", packet.event) };
        assert!(buffer[..] == bytes[at..at + 4096]);
    }
}

#[test]
fn a_file_goes_out_with_head_and_tail_and_nothing_comes_between() {
    let (ledger, place) = (Ledger::new(), Place::new("sent"));
    let port = port(1, Wake::default());
    let bytes = pattern(500_000, 3);
    std::fs::write(&place.0, &bytes).unwrap();
    let (stream, mut peer) = connection(&port, 1);
    let file = Arc::new(std::fs::File::open(&place.0).unwrap());
    let message = FileMessage {
        head: "head".into(),
        offset: 1000,
        length: Some(400_000),
        tail: "tail".into(),
        ..FileMessage::new(file.clone())
    };
    pending(stream.send("before", ledger.token(1)).unwrap());
    pending(stream.send_file(message, ledger.token(2)).unwrap());
    pending(stream.send("behind", ledger.token(3)).unwrap());
    pending(stream.send_file(FileMessage::new(file), ledger.token(4)).unwrap());
    pending(stream.disconnect(ledger.token(5)).unwrap());
    let reader = std::thread::spawn(move || {
        let mut all = Vec::new();
        peer.read_to_end(&mut all).unwrap();
        all
    });
    let mut sums = Vec::new();
    for _ in 0..5 {
        match next(&port).event {
            Event::Sent { result, .. } | Event::SentFile { result, .. } => sums.push(result.unwrap()),
            Event::Disconnected { result, .. } => result.unwrap(),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sums, [6, 400_008, 6, 500_000]);
    let expected = [b"beforehead", &bytes[1000..401_000], b"tailbehind", &bytes[..]].concat();
    assert!(reader.join().unwrap() == expected);
}

#[test]
fn a_file_that_is_shorter_than_what_is_sent_of_it_ends_the_operation() {
    let (ledger, place) = (Ledger::new(), Place::new("short"));
    let port = port(1, Wake::default());
    std::fs::write(&place.0, "ten bytes.").unwrap();
    let (stream, mut peer) = connection(&port, 1);
    let file = std::fs::File::open(&place.0).unwrap();
    let message = FileMessage { head: "head".into(), length: Some(11), tail: "tail".into(), ..FileMessage::new(file) };
    pending(stream.send_file(message, ledger.token(1)).unwrap());
    let packet = next(&port);
    assert_eq!(packet.nt_status(), NtStatus::END_OF_FILE);
    let Event::SentFile { result, .. } = packet.event else { panic!("not sent") };
    assert_eq!(result.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    stream.close();
    let mut all = String::new();
    peer.read_to_string(&mut all).unwrap();
    assert_eq!(all, "headten bytes.", "no tail");
}

#[test]
fn ctrl_c_is_a_packet() {
    // In a process of its own: the event goes to all that share the console.
    in_child("ctrl_c_is_a_packet", || {
        let ledger = Ledger::new();
        let port = port(1, Wake::default());
        let id = port.signal(SIGINT, 9, ledger.token(1)).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: numbers only; group 0 is that of this process's console.
        let raised = unsafe { windows_sys::Win32::System::Console::GenerateConsoleCtrlEvent(0, 0) } != 0;
        if raised {
            let packet = next(&port);
            assert_eq!(packet.key, 9);
            assert!(matches!(packet.event, Event::Signal { result: Ok(2) }), "{:?}", packet.event);
        } else {
            skipped("raising Ctrl+C", &io::Error::last_os_error().to_string());
        }
        assert_eq!(port.cancel(id), Cancel::Requested);
        let Event::Signal { result: Err(_) } = next(&port).event else { panic!("its last packet") };
        assert_eq!(port.cancel(id), Cancel::TooLate);
        assert!(port.signal(9, 9, ledger.token(2)).is_err(), "not a signal of Windows");
    });
}

#[test]
fn the_end_of_a_child_is_a_packet() {
    const CODE: &str = "WHARF_TEST_EXIT";
    if let Ok(code) = std::env::var(CODE) {
        std::thread::sleep(Duration::from_millis(200));
        std::process::exit(code.parse().unwrap());
    }
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["the_end_of_a_child_is_a_packet", "--exact"]).stdout(std::process::Stdio::null());
    let child = port.associate(command.env(CODE, "7").spawn().unwrap(), 3).unwrap();
    pending(child.wait(ledger.token(1)).unwrap());
    let Event::Exited { result, .. } = next(&port).event else { panic!("not ended") };
    assert_eq!(result.unwrap().code(), Some(7));
    // One that is cancelled, and one that is closed under the wait.
    let child = port.associate(command.env(CODE, "8").spawn().unwrap(), 3).unwrap();
    let wharf::Outcome::Pending(id) = child.wait(ledger.token(2)).unwrap() else { panic!("done at once") };
    assert_eq!(port.cancel(id), Cancel::Requested);
    let Event::Exited { result: Err(_), .. } = next(&port).event else { panic!("not cancelled") };
    pending(child.wait(ledger.token(3)).unwrap());
    child.signal(SIGTERM).unwrap();
    let Event::Exited { result, .. } = next(&port).event else { panic!("not ended") };
    assert_eq!(result.unwrap().code(), Some(1));
}

/// A child that has ended, a wait for it whose packet lies in the queue, and which wait that is.
fn an_ended_child(port: &Port, ledger: &Ledger) -> (wharf::process::Child<u64, Token>, wharf::OperationId) {
    let process = std::process::Command::new("cmd").args(["/c", "exit 3"]).spawn().unwrap();
    let child = port.associate(process, 7).unwrap();
    let wharf::Outcome::Pending(id) = child.wait(ledger.token(1)).unwrap() else { panic!("done at once") };
    eventually("the packet of its end is queued", || port.stats().queued == 1);
    (child, id)
}

#[test]
fn a_child_that_has_ended_is_cancelled_too_late_and_told_once() {
    for all in [false, true] {
        let ledger = Ledger::new();
        let port = port(1, Wake::default());
        let (child, id) = an_ended_child(&port, &ledger);
        if all {
            assert_eq!(child.cancel_all(), 0);
        } else {
            assert_eq!(child.cancel(id), Cancel::TooLate);
        }
        let Event::Exited { result, .. } = next(&port).event else { panic!("not ended") };
        assert_eq!(result.unwrap().code(), Some(3));
        assert_eq!(port.get_timeout(Duration::from_millis(50)).unwrap_err(), GetError::TimedOut);
    }
}

#[test]
fn a_child_that_has_ended_is_closed_before_its_packet_is_taken() {
    for close_port in [false, true] {
        let ledger = Ledger::new();
        let port = port(1, Wake::default());
        let (child, _) = an_ended_child(&port, &ledger);
        if close_port {
            port.close();
        } else {
            child.close();
            let Event::Exited { result, .. } = next(&port).event else { panic!("not ended") };
            assert_eq!(result.unwrap().code(), Some(3));
            assert_eq!(port.get_timeout(Duration::from_millis(50)).unwrap_err(), GetError::TimedOut);
        }
        drop(child);
        eventually("all is freed", || ledger.live() == 0);
    }
}

#[test]
fn a_wait_that_is_cancelled_while_the_child_ends_has_one_packet() {
    for round in 0..30_u64 {
        let ledger = Ledger::new();
        let port = port(1, Wake::default());
        let process = std::process::Command::new("cmd").args(["/c", "exit 3"]).spawn().unwrap();
        let child = port.associate(process, 7).unwrap();
        let wharf::Outcome::Pending(id) = child.wait(ledger.token(1)).unwrap() else { panic!("done at once") };
        std::thread::sleep(Duration::from_micros(round * 500));
        let killer = {
            let child = child.clone();
            std::thread::spawn(move || drop(child.signal(SIGTERM)))
        };
        let asked = child.cancel(id);
        let Event::Exited { result, .. } = next(&port).event else { panic!("not ended") };
        assert_eq!(result.is_err(), asked == Cancel::Requested, "{asked:?}: {result:?}");
        assert_eq!(port.get_timeout(Duration::from_millis(5)).unwrap_err(), GetError::TimedOut);
        killer.join().unwrap();
    }
}

#[test]
fn the_ports_handle_can_be_waited_on() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let notifier = port.notifier().unwrap();
    let is_set = || {
        let handle = notifier.as_handle().as_raw_handle();
        #[allow(unsafe_code)]
        // SAFETY: the notifier keeps the handle open.
        let result = unsafe { windows_sys::Win32::System::Threading::WaitForSingleObject(handle, 0) };
        result == 0
    };
    assert!(!is_set());
    port.post(1, 2, ledger.token(1)).unwrap();
    assert!(is_set());
    assert!(is_set(), "waiting takes no packet");
    drop(next(&port));
    assert!(!is_set());
}

#[test]
fn what_windows_does_not_offer_is_refused_with_the_remedy() {
    let port = port(1, Wake::default());
    let (reader, writer) = io::pipe().unwrap();
    for error in [
        port.associate(reader, 1).unwrap_err().error,
        port.associate(writer, 1).unwrap_err().error,
        port.stdin(1).unwrap_err(),
    ] {
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(error.to_string().contains("thread of its own"), "{error}");
    }
}

#[test]
fn a_pool_keeps_the_time_and_a_lone_thread_does_too() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    port.timer(Duration::from_millis(30), 1, ledger.token(1)).unwrap();
    let Event::Elapsed { result: Ok(1) } = next(&port).event else { panic!("not elapsed") };
    let (sender, elapsed) = std::sync::mpsc::channel();
    let pool = port
        .start(Workers::exactly(2), move |packet: Taken| {
            sender.send(matches!(packet.event, Event::Elapsed { result: Ok(_) })).unwrap();
        })
        .unwrap();
    port.timer(Duration::from_millis(50), 1, ledger.token(2)).unwrap();
    port.timer(Duration::from_millis(10), 1, ledger.token(3)).unwrap();
    for _ in 0..2 {
        assert!(elapsed.recv_timeout(DEADLINE).unwrap());
    }
    assert_eq!(pool.shutdown(DEADLINE).workers, 0);
    port.timer(Duration::from_millis(10), 1, ledger.token(4)).unwrap();
    let Event::Elapsed { result: Ok(1) } = next(&port).event else { panic!("not elapsed") };
}
