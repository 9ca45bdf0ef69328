//! A program with a loop of its own waits for the port's notifier and takes what there is: it hears of everything that
//! happens to the port (row P-40), whatever tells the port of its sockets.

#![cfg(target_os = "linux")]

mod common;

use common::{Ledger, Port, Taken, connection, pair, small_buffers};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::thread;
use std::time::{Duration, Instant};
use wharf::raw::SocketEngine;
use wharf::{Buffer, Event, Notifier};

const WHILE: Duration = Duration::from_millis(20);
const MUCH: usize = 4 << 20;

/// Waits until the notifier is readable.
fn is_told(notifier: &Notifier, until: Instant) -> bool {
    let left = until.saturating_duration_since(Instant::now());
    let wait = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
    poll(&mut [PollFd::new(notifier, PollFlags::IN)], Some(&wait)).is_ok_and(|ready| ready == 1)
}

/// The next packet, taken without waiting, after the notifier has told that something is there.
#[track_caller]
fn hear(port: &Port, notifier: &Notifier) -> Taken {
    let until = Instant::now() + common::DEADLINE;
    loop {
        if let Ok(packet) = port.get_timeout(Duration::ZERO) {
            packet.context.arrive();
            return packet;
        }
        assert!(is_told(notifier, until), "the notifier has not told of it");
    }
}

/// Later, in a thread of its own.
fn later<T: Send + 'static>(body: impl FnOnce() -> T + Send + 'static) -> thread::JoinHandle<T> {
    thread::spawn(|| {
        thread::sleep(WHILE);
        body()
    })
}

fn each(test: impl Fn(&Port, &Notifier, &Ledger)) {
    for engine in [SocketEngine::Auto, SocketEngine::Poll] {
        let ledger = Ledger::new();
        let port = Port::options().concurrency(1).socket_engine(engine).build().unwrap();
        let notifier = port.notifier().unwrap();
        test(&port, &notifier, &ledger);
    }
}

#[test]
fn receives_one_after_the_other() {
    each(|port, notifier, ledger| {
        let (stream, mut peer) = connection(port, 1);
        for number in 0..50 {
            stream.recv(Buffer::with_capacity(4), ledger.token(number)).unwrap();
            let writer = later(move || {
                peer.write_all(if number % 2 == 0 { b"x" } else { b"1234" }).unwrap();
                peer
            });
            assert!(matches!(hear(port, notifier).event, Event::Received { result: Ok(1 | 4), .. }));
            peer = writer.join().unwrap();
        }
    });
}

#[test]
fn a_stream_that_was_there_before_the_notifier() {
    for engine in [SocketEngine::Auto, SocketEngine::Poll] {
        let ledger = Ledger::new();
        let port = Port::options().concurrency(1).socket_engine(engine).build().unwrap();
        let (stream, mut peer) = connection(&port, 1);
        port.timer(WHILE, 1, ledger.token(1)).unwrap();
        let notifier = port.notifier().unwrap();
        assert!(matches!(hear(&port, &notifier).event, Event::Elapsed { .. }));
        stream.recv(Buffer::with_capacity(4), ledger.token(2)).unwrap();
        let writer = later(move || {
            peer.write_all(b"x").unwrap();
            peer
        });
        assert!(matches!(hear(&port, &notifier).event, Event::Received { result: Ok(1), .. }));
        drop(writer.join().unwrap());
    }
}

#[test]
fn accepts_and_connects() {
    each(|port, notifier, ledger| {
        let listener = port.listen("127.0.0.1:0", 1).unwrap();
        let address = listener.local_addr().unwrap();
        for number in 0..3 {
            listener.accept(ledger.token(number)).unwrap();
            let client = later(move || StdStream::connect(address).unwrap());
            assert!(matches!(hear(port, notifier).event, Event::Accepted { result: Ok(_), .. }));
            drop(client.join().unwrap());
        }
        let connecting = port.connect(address, 2, ledger.token(9)).unwrap();
        assert!(matches!(hear(port, notifier).event, Event::Connected { result: Ok(()), .. }));
        drop(connecting);
    });
}

#[test]
fn timers_signals_and_files() {
    each(|port, notifier, ledger| {
        port.signal(libc::SIGUSR2, 1, ledger.token(9)).unwrap();
        let sender = later(|| rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR2));
        assert!(matches!(hear(port, notifier).event, Event::Signal { .. }));
        sender.join().unwrap().unwrap();
        for number in 0..3 {
            port.timer(WHILE, 1, ledger.token(number)).unwrap();
            assert!(matches!(hear(port, notifier).event, Event::Elapsed { .. }));
        }
        let path = std::env::temp_dir().join(format!("wharf-notifier-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let file = port.open(&path, std::fs::OpenOptions::new().read(true).write(true), 1).unwrap();
        std::fs::remove_file(&path).unwrap();
        file.sync(ledger.token(5)).unwrap();
        assert!(matches!(hear(port, notifier).event, Event::Synced { .. }));
    });
}

#[test]
fn a_send_that_waits_for_space_and_a_close() {
    each(|port, notifier, ledger| {
        let (server, mut peer) = pair();
        small_buffers([&server, &peer]);
        let stream = port.associate(server, 1).unwrap();
        stream.send(vec![7; MUCH], ledger.token(1)).unwrap();
        let reader = later(move || {
            peer.read_exact(&mut vec![0; MUCH]).unwrap();
            peer
        });
        assert!(matches!(hear(port, notifier).event, Event::Sent { result: Ok(MUCH), .. }));
        let peer = reader.join().unwrap();
        stream.recv(Buffer::with_capacity(4), ledger.token(2)).unwrap();
        assert!(port.get_timeout(Duration::ZERO).is_err());
        let closer = later(move || stream.close());
        assert!(matches!(hear(port, notifier).event, Event::Received { result: Err(_), .. }));
        closer.join().unwrap();
        drop(peer);
    });
}

#[test]
fn nothing_is_told_of_a_port_at_rest() {
    each(|port, notifier, ledger| {
        let (stream, _peer) = connection(port, 1);
        stream.recv(Buffer::with_capacity(4), ledger.token(1)).unwrap();
        // What was there when they were entered has been told by now.
        while port.get_timeout(Duration::ZERO).is_ok() {}
        assert!(!is_told(notifier, Instant::now() + WHILE));
        stream.close();
        drop(hear(port, notifier));
    });
}
