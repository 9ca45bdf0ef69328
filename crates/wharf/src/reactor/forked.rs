#![cfg(all(test, unix))]
//! A forked child's calls while threads of the parent hold the port's locks: none of them hangs (row P-38). That they
//! fail as they should, and leave the parent alone, is tested in `tests/fork.rs`.

use super::*;
use crate::op::CompletionEvent;
use crate::port::CompletionPort;
use crate::raw;
use std::net::Shutdown;
use std::sync::mpsc::channel;
use std::time::Duration;

/// Set in the process that is to run the test, alone: it forks.
const ALONE: &str = "WHARF_FORK_TEST";
const NAME: &str = "reactor::forked::no_call_of_a_forked_child_waits_for_a_lock";
/// A call in the child that takes longer hangs.
const CALL_SECONDS_MAX: u32 = 10;

fn port() -> raw::Port {
    let config = Config { concurrency: 2, ..Config::default() };
    raw::Port::new(config).unwrap()
}

/// Runs `call` in a forked child, which has to come to its end.
#[allow(unsafe_code)]
fn in_fork(what: &str, call: &dyn Fn()) {
    // SAFETY: the child runs the call, which takes no lock that another thread may have, and leaves by _exit.
    let child = match unsafe { libc::fork() } {
        0 => {
            // SAFETY: sets the process's timer, whose signal ends it; then ends the process.
            unsafe {
                libc::alarm(CALL_SECONDS_MAX);
                call();
                libc::_exit(0)
            }
        }
        child => child,
    };
    let mut status = 0;
    // SAFETY: `status` is ours to be written.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0, "{what}: does not come to an end in a forked child");
}

#[test]
#[allow(unsafe_code)]
fn no_call_of_a_forked_child_waits_for_a_lock() {
    if std::env::var_os(ALONE).is_none() {
        let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
        let output = alone.args([NAME, "--exact", "--nocapture"]).env(ALONE, "1").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "is the name right? {said}");
        return;
    }
    let port = port();
    let waker = port.waker().unwrap();
    let typed = CompletionPort::<(), ()>::from_raw(port.clone());
    let listener = typed.listen("127.0.0.1:0", ()).unwrap();
    let address = listener.local_addr().unwrap();
    let connect = || std::net::TcpStream::connect(address).unwrap();
    let (stream, socket) = (typed.associate(connect(), ()).unwrap(), typed.bind("127.0.0.1:0", ()).unwrap());
    let other = typed.listen("127.0.0.1:0", ()).unwrap();
    let accept = issued(port.accept(other.raw(), 0, Sink::Port));
    let timer = port.timer(Duration::from_secs(3600), None, 0, 0, Sink::Port, |_| {}).unwrap();

    // A leader has the lists of what it finds, for as long as it waits.
    let leader = port.clone();
    let leading = std::thread::spawn(move || drop(leader.get(None)));
    while port.0.stats().waiting == 0 {
        std::thread::yield_now();
    }
    // Somebody is in the middle of an insertion.
    let (begun, has_begun) = channel();
    let (end, may_end) = channel();
    let inserting = port.clone();
    let inserts = std::thread::spawn(move || {
        inserting.0.queue.insert_with(|| {
            begun.send(()).unwrap();
            may_end.recv().unwrap();
            Entry::Tick(0)
        })
    });
    has_begun.recv().unwrap();
    let devices = [listener.raw(), stream.raw(), socket.raw()];
    {
        // And this thread has all the rest.
        let driver = port.0.driver();
        let _guards = (driver.devices.lock(), driver.timers.lock(), driver.starved.lock(), driver.starving_said.lock());
        let _sides: Vec<_> = devices.iter().map(|device| (device.0.receive.lock(), device.0.send.lock())).collect();
        let event = || Sink::Event(CompletionEvent::new());
        let calls: &[(&str, &dyn Fn())] = &[
            ("get", &|| over(port.get(None))),
            ("post", &|| over(port.post(Post { key: 0, token: 0, bytes: 0 }))),
            ("try_post", &|| over(port.try_post(Post { key: 0, token: 0, bytes: 0 }, 9))),
            ("post_with_error", &|| over(port.post_with_error(Post { key: 0, token: 0, bytes: 0 }, 9))),
            ("run", &|| over(port.run(|_, _| {}, 0))),
            ("get_into", &|| over(port.get_into(&mut Vec::new(), 4, None))),
            ("waker", &|| over((port.waker(), waker.wake()))),
            ("reset_timer", &|| over(port.reset_timer(timer, Duration::ZERO))),
            ("leave_port", &|| raw::leave_port()),
            ("adopt", &|| over(port.adopt(connect(), DeviceKind::Stream, 0))),
            ("adopt_unconnected", &|| over(port.adopt_unconnected(connect(), 0))),
            ("open_stream", &|| over(port.open_stream(&address, 0))),
            ("devices", &|| over((port.devices(), port.device_count()))),
            ("cancel", &|| over((port.cancel(accept), port.cancel(timer)))),
            ("timer", &|| over(port.timer(Duration::ZERO, None, 0, 0, Sink::Port, |_| {}))),
            ("signal", &|| over(port.signal(libc::SIGUSR1, 0, 0, Sink::Port, |_| {}))),
            ("close", &|| port.close()),
            ("file_engine", &|| over(port.file_engine())),
            ("is_closed", &|| over(port.is_closed())),
            ("typed get", &|| over(typed.get())),
            ("typed get_many", &|| over(typed.get_many(4))),
            ("typed stats", &|| over((typed.stats(), typed.workers(), format!("{typed:?}")))),
            ("typed notifier", &|| over(typed.notifier())),
            ("typed start", &|| over(typed.start(crate::Workers::new(1), drop))),
            ("typed close", &|| typed.close()),
            ("blocking", &|| crate::blocking(|| {})),
        ];
        calls.iter().for_each(|(what, call)| in_fork(what, call));
        for device in devices {
            let calls: &[(&str, &dyn Fn())] = &[
                ("accept", &|| over(port.accept(device, 0, event()))),
                ("connect", &|| over(port.connect(device, &address, 0, event()))),
                ("disconnect", &|| over(port.disconnect(device, 0, event()))),
                ("wait_child", &|| over(port.wait_child(device, 0, event()))),
                ("sync_file", &|| over(port.sync_file(device, false, 0, event()))),
                ("shutdown", &|| over(port.shutdown(device, Shutdown::Both))),
                ("report_refusals", &|| over(port.report_refusals(device, true))),
                ("cancel_all", &|| over(port.cancel_all(device))),
                ("cancel_token", &|| over((port.cancel_token(device, 0), port.cancel_issued_by(device, 0)))),
                ("watch", &|| over((port.watch_readable(device, 0, event()), port.watch_writable(device, 0, event())))),
                // SAFETY: they name no memory.
                ("try", &|| over(unsafe { (port.try_send(device, &[]), port.try_receive(device, &[])) })),
                ("unacknowledged", &|| over((port.unacknowledged(device), port.bytes_taken(device)))),
                ("with_handle", &|| over(port.0.with_handle(&device.0, |_| Ok(())))),
                ("release_device", &|| over(port.release_device(device))),
                ("close_device", &|| over(port.close_device(device))),
            ];
            calls.iter().for_each(|(what, call)| in_fork(what, call));
        }
        let calls: &[(&str, &dyn Fn())] = &[
            ("recv", &|| over(stream.recv(vec![0; 8], ()))),
            ("recv_pooled", &|| over(stream.recv_pooled(()))),
            ("send", &|| over(stream.send("x", ()))),
            ("send after skip_on_success", &|| {
                stream.skip_on_success();
                over(stream.send("x", ()));
            }),
            ("send_vectored", &|| over(stream.send_vectored(vec!["x".into()], ()))),
            ("reset", &|| stream.reset()),
            ("recv_from", &|| over(socket.recv_from(vec![0; 8], ()))),
            ("recv_from_many", &|| over(socket.recv_from_many(vec![(vec![0; 8], ())]))),
            ("send_to", &|| over(socket.send_to("x", address, ()))),
            ("send_to_many", &|| over(socket.send_to_many(vec![("x", address, ())]))),
        ];
        calls.iter().for_each(|(what, call)| in_fork(what, call));
    }
    end.send(()).unwrap();
    assert!(inserts.join().unwrap(), "the parent's insertion goes on");
    port.close();
    leading.join().unwrap();
    drop(other);
}

/// The call has come back, with whatever.
fn over<T>(_: T) {}

fn issued(result: Result<Issued, i32>) -> OperationId {
    match result {
        Ok(Issued::Pending(id)) => id,
        other => panic!("nothing was there: {other:?}"),
    }
}
