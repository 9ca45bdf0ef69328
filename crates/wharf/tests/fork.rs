//! A forked child (row P-38): every call of the library fails there or does nothing, none hangs, whatever lock another
//! thread of the parent held at the moment of the fork, and the parent is undisturbed.
#![cfg(unix)]

mod common;

use common::numbers::EINVAL;
use common::*;
use std::cell::RefCell;
use std::io::Write;
use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;
use wharf::raw::{self, CompletionEvent, DeviceKind, Post};
use wharf::signal::{SIGKILL, SIGTERM};
use wharf::{Buffer, Cancel, Event, FileMessage, GetError, UnpostedReason, Wake, Workers};
use wharf_testkit::fork::{CALL_SECONDS_MAX, FORKS, Hammer, call, in_fork};

fn raw_port() -> raw::Port {
    raw::Port::new(raw::Config::default()).unwrap()
}

#[test]
#[allow(unsafe_code)]
fn every_call_of_a_port_and_its_devices_fails_in_a_forked_child_and_none_hangs() {
    in_child("every_call_of_a_port_and_its_devices_fails_in_a_forked_child_and_none_hangs", || {
        let ledger = Ledger::new();
        let mint = ledger.mint();
        let token = || mint.token(9);
        let port = port(0, Wake::default());
        let listener = port.listen("127.0.0.1:0", 1).unwrap();
        let address = listener.local_addr().unwrap();
        listener.accept(ledger.token(1)).unwrap();
        let (stream, mut peer) = connection(&port, 2);
        stream.recv(vec![0; 8], ledger.token(2)).unwrap();
        let (idle, _idle_peer) = connection(&port, 3);
        let socket = port.bind("127.0.0.1:0", 4).unwrap();
        let socket_address = socket.local_addr().unwrap();
        socket.recv_from(vec![0; 8], ledger.token(3)).unwrap();
        let path = std::env::temp_dir().join(format!("wharf-fork-{}", std::process::id()));
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true);
        let file = port.open(&path, &options, 5).unwrap();
        let mut sleep = std::process::Command::new("sleep");
        // Not with the test's own output, which would be read to its end.
        sleep.arg("120").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = port.associate(sleep.spawn().unwrap(), 6).unwrap();
        process.wait(ledger.token(4)).unwrap();
        let timer = port.timer(Duration::from_secs(3600), 0, ledger.token(5)).unwrap();
        // A buffer of the pool.
        let (pooled_stream, mut pooled_peer) = connection(&port, 7);
        pooled_stream.recv_pooled(ledger.token(6)).unwrap();
        pooled_peer.write_all(b"x").unwrap();
        let pooled = RefCell::new(Some(received(next(&port)).buffer));
        // A batch that this thread has come half through.
        (0..4).for_each(|_| port.post(0, 0, ledger.token(7)).unwrap());
        let mut batch = port.get_many(4).unwrap();
        drop(batch.next());
        let batch = RefCell::new(Some(batch));
        let pool_port = self::port(2, Wake::default());
        let pool = RefCell::new(Some(pool_port.start(Workers::new(2), drop).unwrap()));
        let event = CompletionEvent::new();
        let own_raw = raw_port();
        let raw_device = {
            let device = own_raw.open_stream(&address, 8).unwrap();
            own_raw.connect(&device, &address, 8, raw::Sink::Event(event.clone())).unwrap();
            while event.wait(Some(Duration::ZERO)).is_none() {
                let _ = own_raw.get(Some(Duration::ZERO));
            }
            device
        };

        let hammer = {
            let (posting, getting, stats) = (port.clone(), port.clone(), port.clone());
            let (associating, timing, receiving) = (port.clone(), port.clone(), port.clone());
            let (recv, synced, pools) = (stream.clone(), file.clone(), pool_port.clone());
            let mints: Vec<Mint> = (0..8).map(|_| ledger.mint()).collect();
            let mint = |at: usize| mints[at].clone();
            let (m0, m2, m3, m4, m5) = (mint(0), mint(2), mint(3), mint(4), mint(5));
            let (m6, raw, event) = (mint(6), own_raw.clone(), event.clone());
            let raw_token = raw_device.clone();
            Hammer::start(vec![
                Box::new(move || {
                    let _ = posting.post(0, 0, m0.token(0));
                }),
                Box::new(move || drop(getting.get_timeout(Duration::ZERO))),
                Box::new(move || drop((stats.stats(), stats.workers(), stats.devices()))),
                Box::new(move || {
                    let (stream, mut peer) = connection(&associating, 0);
                    stream.recv_pooled(m2.token(0)).unwrap();
                    peer.write_all(b"x").unwrap();
                    stream.close();
                }),
                Box::new(move || {
                    let id = timing.timer(Duration::from_secs(9), 0, m3.token(0)).unwrap();
                    timing.cancel(id);
                    let id = timing.signal(libc::SIGUSR2, 0, m3.token(0)).unwrap();
                    timing.cancel(id);
                }),
                Box::new(move || {
                    let wharf::Outcome::Pending(id) = recv.recv(vec![0; 8], m4.token(0)).unwrap() else { return };
                    recv.cancel(id);
                }),
                Box::new(move || {
                    drop(synced.sync_data(m5.token(0)).unwrap());
                    let _ = receiving.get_timeout(Duration::ZERO);
                }),
                Box::new(move || {
                    let _ = pools.post(0, 0, m6.token(0));
                    let _ = pools.stats();
                }),
                Box::new(move || {
                    let _ = raw.post(Post { key: 0, token: 0, bytes: 0 });
                    let _ = raw.get(Some(Duration::ZERO));
                    raw.cancel_all(&raw_token);
                    drop(event.wait(Some(Duration::ZERO)));
                }),
            ])
        };

        let closed = GetError::Forked;
        let connected = || StdStream::connect(address).unwrap();
        let buffer = || Buffer::from("from the child");
        let calls = vec![
            call("get", || port.get().unwrap_err() == closed),
            call("get_timeout", || port.get_timeout(Duration::ZERO).unwrap_err() == closed),
            call("get_many", || port.get_many(4).unwrap_err() == closed),
            call("post", || port.post(0, 0, token()).is_err_and(|refused| refused.reason == UnpostedReason::Closed)),
            call("try_post", || port.try_post(0, 0, token(), 9).is_err()),
            call("associate", || port.associate(connected(), 0).is_err()),
            call("listen", || port.listen("127.0.0.1:0", 0).is_err()),
            call("bind", || port.bind("127.0.0.1:0", 0).is_err()),
            call("connect", || port.connect(address, 0, token()).is_err()),
            call("open", || port.open(&path, &options, 0).is_err()),
            call("stdin", || port.stdin(0).is_err()),
            call("devices", || port.devices().is_empty()),
            call("start", || port.start(Workers::new(1), drop).is_err()),
            call("timer", || port.timer(Duration::ZERO, 0, token()).is_err()),
            call("interval", || port.interval(Duration::from_secs(1), 0, token()).is_err()),
            call("signal", || port.signal(libc::SIGUSR1, 0, token()).is_err()),
            call("cancel", || port.cancel(timer) == Cancel::TooLate),
            call("stats", || port.stats().queued == 0),
            call("workers", || port.workers().is_empty()),
            call("notifier", || port.notifier().is_err()),
            call("Debug", || !format!("{port:?}{stream:?}").is_empty()),
            call("close of the port", || {
                port.close();
                true
            }),
            call("drop of the port's last handle", || {
                // This thread has all of them but the hammer's; so a port that nobody hammers at.
                drop(pool_port.clone());
                true
            }),
            call("recv", || stream.recv(vec![0; 8], token()).is_err()),
            call("recv_pooled", || stream.recv_pooled(token()).is_err()),
            call("readable", || stream.readable(token()).is_err()),
            call("send", || stream.send(buffer(), token()).is_err()),
            call("send after skip_on_success", || {
                stream.skip_on_success();
                stream.send(buffer(), token()).is_err()
            }),
            call("send_vectored", || stream.send_vectored(vec![buffer()], token()).is_err()),
            call("send_file", || {
                let message = FileMessage::new(std::fs::File::open(&path).unwrap());
                stream.send_file(message, token()).is_err()
            }),
            call("disconnect", || stream.disconnect(token()).is_err()),
            call("shutdown", || stream.shutdown(Shutdown::Both).is_err()),
            call("connect of a stream", || stream.connect(address, token()).is_err()),
            call("cancel_all", || stream.cancel_all() == 0),
            call("local_addr", || stream.local_addr().is_err()),
            call("peer_addr", || stream.peer_addr().is_err()),
            call("unacknowledged", || stream.unacknowledged().is_none() && stream.bytes_taken() == 0),
            call("reset", || {
                idle.reset();
                true
            }),
            call("set_nodelay", || stream.set_nodelay(true).is_err()),
            call("release", || idle.clone().release().is_err()),
            call("release_fd", || idle.clone().release_fd().is_err()),
            call("close of a stream", || {
                use std::os::fd::BorrowedFd;
                let handle = stream.raw().handle();
                // SAFETY: only asked whether it is open.
                let open = || rustix::io::fcntl_getfd(unsafe { BorrowedFd::borrow_raw(handle) }).is_ok();
                let before = open();
                stream.close();
                let after = open();
                stream.close();
                before && !after
            }),
            call("accept", || listener.accept(token()).is_err()),
            call("release of a listener", || listener.clone().release().is_err()),
            call("close of a listener", || {
                listener.close();
                true
            }),
            call("recv_from", || socket.recv_from(vec![0; 8], token()).is_err()),
            call("recv_from_pooled", || socket.recv_from_pooled(token()).is_err()),
            call("recv_from_many", || socket.recv_from_many(vec![(vec![0; 8], token())]).iter().all(Result::is_err)),
            call("send_to", || socket.send_to(buffer(), socket_address, token()).is_err()),
            call("send_to_many", || {
                socket.send_to_many(vec![(buffer(), socket_address, token())]).iter().all(Result::is_err)
            }),
            call("report_refusals", || socket.report_refusals(true).is_err()),
            call("connect of a datagram socket", || socket.connect(socket_address).is_err()),
            call("set_segment_bytes", || socket.set_segment_bytes(Some(100)).is_err()),
            call("read_at", || file.read_at(vec![0; 8], 0, token()).is_err()),
            call("write_at", || file.write_at(buffer(), 0, token()).is_err()),
            call("append", || file.append(buffer(), token()).is_err()),
            call("sync", || file.sync(token()).is_err()),
            call("sync_data", || file.sync_data(token()).is_err()),
            call("flush", || file.flush().is_err()),
            call("len", || file.len().is_err()),
            call("set_len", || file.set_len(1).is_err()),
            call("release of a file", || file.clone().release().is_err()),
            call("close of a file", || {
                file.close();
                true
            }),
            call("wait for a child process", || process.wait(token()).is_err()),
            call("signal to a child process", || process.signal(SIGTERM).is_err()),
            call("a batch", || {
                let mut batch = batch.borrow_mut().take().unwrap();
                let empty = batch.is_empty() && batch.next().is_none();
                drop(batch);
                empty
            }),
            call("a pooled buffer", || {
                drop(pooled.borrow_mut().take());
                true
            }),
            call("report of a pool", || pool.borrow().as_ref().unwrap().report().workers == 0),
            call("join of a pool", || pool.borrow_mut().take().unwrap().join().workers == 0),
            call("shutdown of a pool", || {
                pool.borrow_mut().take().unwrap().shutdown(Duration::from_secs(3600)).workers == 0
            }),
            call("drop of a pool", || {
                drop(pool.borrow_mut().take());
                true
            }),
            call("blocking", || wharf::blocking(|| true)),
            call("a port of the child's own", || {
                let own = self::port(1, Wake::default());
                own.post(0, 5, token()).unwrap();
                let (stream, mut peer) = connection(&own, 6);
                stream.recv(vec![0; 8], token()).unwrap();
                peer.write_all(b"x").unwrap();
                own.get().unwrap().key == 5 && own.get().unwrap().key == 6 && wharf::blocking(|| true)
            }),
            call("an event", || event.wait(None).is_none()),
            call("raw get", || own_raw.get(None).unwrap_err() == raw::GetError::Forked),
            call("raw post", || own_raw.post(Post { key: 0, token: 0, bytes: 0 }).is_err()),
            call("raw devices", || own_raw.devices().is_empty() && own_raw.device_count() == 0),
            call("raw file_engine", || own_raw.file_engine().is_none()),
            call("raw open_stream", || own_raw.open_stream(&address, 0).is_err()),
            call("raw shutdown", || own_raw.shutdown(&raw_device, Shutdown::Both).is_err()),
            call("raw release_device", || own_raw.release_device(&raw_device).is_err()),
            call("raw close_device", || own_raw.close_device(&raw_device) && own_raw.close_device(&raw_device)),
            call("raw timer", || own_raw.timer(Duration::ZERO, None, 0, 0, raw::Sink::Port, |_| {}).is_err()),
            call("raw adopt", || own_raw.adopt(connected(), DeviceKind::Stream, 0).is_err()),
            call("raw adopt_unconnected", || own_raw.adopt_unconnected(connected(), 0).is_err()),
            call("raw foreign device", || own_raw.accept(listener.raw(), 0, raw::Sink::Port).unwrap_err() == EINVAL),
        ];
        for (what, call) in &calls {
            (0..FORKS).for_each(|_| in_fork(what, call));
        }
        drop(calls);
        drop(hammer);

        // The parent.
        drop(batch.into_inner());
        // The hammer's packets, and receives of its own on the same stream.
        stream.cancel_all();
        while port.get_timeout(Duration::ZERO).is_ok() {}
        stream.recv(vec![0; 8], ledger.token(2)).unwrap();
        peer.write_all(b"data").unwrap();
        socket.send_to("itself", socket_address, ledger.token(10)).unwrap();
        listener.accept(ledger.token(1)).unwrap();
        let _client = connected();
        process.signal(SIGKILL).unwrap();
        port.timer(Duration::from_millis(50), 0, ledger.token(11)).unwrap();
        let mut missing = vec![1, 2, 3, 4, 10, 11];
        while !missing.is_empty() {
            let packet = next(&port);
            assert!(packet.error().is_none(), "{packet:?}");
            missing.retain(|&number| number != packet.context.number);
        }
        assert!(stream.set_nodelay(true).is_ok() && file.len().is_ok());
        assert_eq!(port.cancel(timer), Cancel::Requested);
        let report = pool.into_inner().unwrap().shutdown(DEADLINE);
        assert_eq!((report.workers, report.panics), (0, 0));
        std::fs::remove_file(&path).unwrap();
    });
}

#[test]
fn a_forked_child_that_closes_a_connecting_stream_leaves_the_parents_connect_alone() {
    in_child("a_forked_child_that_closes_a_connecting_stream_leaves_the_parents_connect_alone", || {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        // The queue of connections that wait to be accepted is full: further connects stay under way.
        rustix::net::listen(&listener, 0).unwrap();
        let address = listener.local_addr().unwrap();
        let _first = StdStream::connect(address).unwrap();
        let stream = port.connect(address, 0, ledger.token(1)).unwrap();
        assert!(port.get_timeout(Duration::from_millis(100)).is_err(), "the connect is under way");
        in_fork("close of a stream that connects", || {
            stream.close();
            drop(stream.clone());
            true
        });
        let _taken = listener.accept().unwrap();
        let (number, _stream, result) = next_connected(&port);
        assert_eq!(number, 1);
        result.unwrap();
    });
}

#[test]
fn a_forked_child_that_closes_many_streams_wakes_nobody_in_the_parent() {
    in_child("a_forked_child_that_closes_many_streams_wakes_nobody_in_the_parent", || {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let (server, _peer) = pair();
        rustix::net::sockopt::set_socket_linger(&server, Some(Duration::from_secs(7))).unwrap();
        let twin = server.try_clone().unwrap();
        let lingers = port.associate(server, 1).unwrap();
        let mut all: Vec<(Stream, StdStream)> = (0..50).map(|_| connection(&port, 0)).collect();
        all.iter().for_each(|(stream, _)| drop(stream.recv(vec![0; 8], ledger.token(1)).unwrap()));
        port.signal(libc::SIGUSR1, 0, ledger.token(2)).unwrap();
        let waits = port.clone();
        let taker = thread::spawn(move || while waits.get().is_ok() {});
        // Quiet: nothing is waited for but the first readiness of each socket, and then nothing at all.
        let polls = || port.stats().polls;
        let mut before = polls();
        eventually("the port is idle", || {
            thread::sleep(Duration::from_millis(50));
            std::mem::replace(&mut before, polls()) == before
        });
        let ticks = port.stats().ticks;
        in_fork("close of many streams", || {
            lingers.close();
            for (stream, _) in &all {
                stream.close();
                thread::sleep(Duration::from_millis(1));
            }
            // The handler that the parent has set up runs in the child, too.
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
            true
        });
        // What a child's write would have caused has happened by then: a wait in the engine is begun again at once.
        thread::sleep(Duration::from_millis(100));
        assert_eq!((polls(), port.stats().ticks), (before, ticks), "the idle parent was woken");
        let time = rustix::net::sockopt::socket_linger(&twin).unwrap();
        assert_eq!(time, Some(Duration::from_secs(7)), "a socket of the parent's was changed");
        port.close();
        taker.join().unwrap();
        all.clear();
    });
}

/// A context that is lost with the child: nobody counts it there.
fn worker_forks() -> &'static AtomicUsize {
    static FORKED: AtomicUsize = AtomicUsize::new(0);
    &FORKED
}

#[test]
#[allow(unsafe_code)]
fn a_handler_that_forks_and_returns_in_the_child_takes_nothing_from_the_parent() {
    in_child("a_handler_that_forks_and_returns_in_the_child_takes_nothing_from_the_parent", || {
        let port = port(2, Wake::default());
        let ledger = Ledger::new();
        let mint = ledger.mint();
        let (stream, mut peer) = connection(&port, 1);
        let received = Arc::new(AtomicUsize::new(0));
        let (count, parent) = (received.clone(), std::process::id());
        let pool = port
            .start(Workers::exactly(1), move |packet| match packet.event {
                Event::Posted { .. } => {
                    // SAFETY: the child returns from here and does not call anything but the library.
                    let child = unsafe { libc::fork() };
                    if child != 0 {
                        worker_forks().store(usize::try_from(child).unwrap(), SeqCst);
                    } else {
                        // SAFETY: ends the child should it stay.
                        unsafe { libc::alarm(CALL_SECONDS_MAX) };
                        std::mem::forget(packet.context);
                    }
                }
                Event::Received { stream, .. } => {
                    assert_eq!(std::process::id(), parent, "a forked child took a packet");
                    count.fetch_add(1, SeqCst);
                    drop(stream.recv(vec![0; 1], mint.token(1)));
                }
                _ => {}
            })
            .unwrap();
        stream.recv(vec![0; 1], ledger.token(1)).unwrap();
        port.post(0, 0, ledger.token(2)).unwrap();
        eventually("the handler has forked", || worker_forks().load(SeqCst) != 0);
        let child = i32::try_from(worker_forks().load(SeqCst)).unwrap();
        let mut status = 0;
        // SAFETY: `status` is ours to be written.
        assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
        assert!(libc::WIFEXITED(status), "the child's worker ends: {status:#x}");
        for n in 1..=20 {
            peer.write_all(b"x").unwrap();
            eventually("the parent receives", || received.load(SeqCst) == n);
        }
        port.close();
        pool.join();
    });
}
