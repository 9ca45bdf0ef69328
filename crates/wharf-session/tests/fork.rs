//! Services in a forked child (row P-38): every call fails there or does nothing, none hangs, whatever lock another
//! thread of the parent held at the moment of the fork, and the parent is undisturbed.
#![cfg(unix)]

mod common;

use common::*;
use std::cell::RefCell;
use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::Duration;
use wharf::{Buffer, Workers};
use wharf_session::{Closed, Group, Link, Reconnect, ReconnectState, Service, Session};
use wharf_testkit::fork::{FORKS, Hammer, call, in_fork};

static CLOSED: AtomicUsize = AtomicUsize::new(0);

struct Echo;

impl Session for Echo {
    fn received(&mut self, link: &Link, data: Buffer) {
        let _ = link.send(data);
    }

    fn closed(&mut self, _: &Link, _: &Closed) {
        CLOSED.fetch_add(1, SeqCst);
    }
}

struct Quiet;

impl Session for Quiet {
    fn received(&mut self, _: &Link, _: Buffer) {}
}

#[test]
fn every_call_of_a_service_fails_in_a_forked_child_and_none_hangs() {
    in_child("every_call_of_a_service_fails_in_a_forked_child_and_none_hangs", || {
        let socket_file = std::env::temp_dir().join(format!("wharf-fork-{}.sock", std::process::id()));
        let other_file = socket_file.with_extension("other");
        let service = RefCell::new(Some(Service::options().start().unwrap()));
        let with = |act: &dyn Fn(&Service) -> bool| act(service.borrow().as_ref().unwrap());
        let mut local = None;
        let mut address = None;
        let (mut link, mut client) = (None, None);
        let group = Group::new();
        with(&|service| {
            service.listen_local(&socket_file, |_| Echo).unwrap();
            true
        });
        {
            let service = service.borrow();
            let service = service.as_ref().unwrap();
            address = address.or_else(|| service.listen("127.0.0.1:0", |_| Echo).ok());
            local = local.or_else(|| UnixStream::connect(&socket_file).ok());
            let address = address.unwrap();
            link = link.or_else(|| service.connect(address, Quiet).ok());
            client = client.or_else(|| service.reconnect(address, Reconnect::new(), || Quiet).ok());
        }
        let (address, mut local, link, client) = (address.unwrap(), local.unwrap(), link.unwrap(), client.unwrap());
        let signals = RefCell::new(Some(service.borrow().as_ref().unwrap().signals(&[libc::SIGUSR1]).unwrap()));
        group.join(&link);
        // Both ends of the link and of the client, and the local one.
        eventually("all sessions are there", || with(&|service| service.stats().sessions == 5));

        let hammer = {
            let (sending, pausing, asking) = (link.clone(), link.clone(), link.clone());
            let (joining, group_write, member) = (group.clone(), group.clone(), link.clone());
            let state = client.clone();
            Hammer::start(vec![
                Box::new(move || {
                    let _ = sending.send("x");
                    // The other end is to follow.
                    thread::sleep(Duration::from_micros(100));
                }),
                Box::new(move || {
                    pausing.pause();
                    pausing.resume();
                }),
                Box::new(move || {
                    let _ = (asking.stats(), asking.is_open());
                }),
                Box::new(move || {
                    joining.join(&member);
                    joining.leave(&member);
                }),
                Box::new(move || {
                    drop((group_write.broadcast(b"y"), group_write.members(), group_write.len()));
                    thread::sleep(Duration::from_micros(100));
                }),
                Box::new(move || drop((state.state(), state.counts()))),
                Box::new(move || {
                    let mut stream = StdStream::connect(address).unwrap();
                    let _ = stream.write_all(b"z");
                    let _ = stream.read(&mut [0]);
                }),
            ])
        };
        let connected = || StdStream::connect(address).unwrap();
        let calls = vec![
            call("listen", || with(&|service| service.listen("127.0.0.1:0", |_| Echo).is_err())),
            call("adopt_listener", || {
                let listener = StdListener::bind("127.0.0.1:0").unwrap();
                with(&|service| service.adopt_listener(listener.try_clone().unwrap(), |_| Echo).is_err())
            }),
            call("listen_local", || {
                with(&|service| service.listen_local(&other_file, |_| Echo).is_err()) && !other_file.exists()
            }),
            call("adopt_local_listener", || {
                let listener = UnixListener::bind(&other_file).unwrap();
                std::fs::remove_file(&other_file).unwrap();
                with(&|service| service.adopt_local_listener(listener.try_clone().unwrap(), |_| Echo).is_err())
            }),
            call("connect", || with(&|service| service.connect(address, Echo).is_err())),
            call("adopt", || with(&|service| service.adopt(connected(), Echo).is_err())),
            call("connect_local", || with(&|service| service.connect_local(&socket_file, Echo).is_err())),
            call("adopt_local", || with(&|service| service.adopt_local(UnixStream::pair().unwrap().0, Echo).is_err())),
            call("reconnect", || {
                with(&|service| {
                    let client = service.reconnect(address, Reconnect::new(), || Echo).unwrap();
                    matches!(client.state(), ReconnectState::GaveUp(_)) && client.wait().to_string() == "stopped"
                })
            }),
            call("reconnect_local", || {
                with(&|service| service.reconnect_local(&socket_file, Reconnect::new(), || Echo).link().is_none())
            }),
            call("signals", || with(&|service| service.signals(&[libc::SIGUSR2]).is_err())),
            call("wait_for_signal", || with(&|service| service.wait_for_signal(&[libc::SIGUSR2]).is_err())),
            call("stats of a service", || with(&|service| service.stats().pool.unwrap().workers == 0)),
            call("workers of a service", || with(&|service| service.workers().is_empty())),
            call("stop_listening", || {
                with(&|service| {
                    service.stop_listening();
                    true
                })
            }),
            call("drain", || with(&|service| service.drain(Duration::from_secs(3600)) == 0)),
            call("shutdown of a service", || {
                let report = service.borrow_mut().take().unwrap().shutdown(Duration::from_secs(3600));
                report.graceful == 0 && report.aborted == 0
            }),
            call("drop of a service", || {
                let before = CLOSED.load(SeqCst);
                drop(service.borrow_mut().take());
                CLOSED.load(SeqCst) == before
            }),
            call("Signals::wait", || signals.borrow().as_ref().unwrap().wait() == 0),
            call("drop of Signals", || {
                drop(signals.borrow_mut().take());
                true
            }),
            call("send of a link", || link.send("from the child").is_err()),
            call("a link's calls", || {
                link.finish();
                link.pause();
                link.resume();
                link.set_rate_limit(None);
                link.ready();
                !link.is_open() && link.stats().bytes_sent == 0
            }),
            call("close of a link", || {
                link.close();
                link.abort();
                true
            }),
            call("a group's calls", || {
                group.leave(&link);
                group.join(&link);
                let told = group.broadcast(b"from the child") + group.broadcast_except(b"from the child", &link);
                told == 0 && group.is_empty() && group.members().is_empty() && group.stats().members == 0
            }),
            call("a client's calls", || {
                client.stop();
                client.close();
                let ended = matches!(client.state(), ReconnectState::GaveUp(_));
                ended && client.link().is_none() && client.counts() == (0, 0) && client.wait().to_string() == "stopped"
            }),
            call("a service of the child's own", || {
                let own = Service::options().workers(Workers::new(1)).start().unwrap();
                let address = own.listen("127.0.0.1:0", |_| Echo).unwrap();
                let mut peer = StdStream::connect(address).unwrap();
                peer.write_all(b"x").unwrap();
                peer.read_exact(&mut [0]).unwrap();
                own.shutdown(DEADLINE).workers_left == 0
            }),
        ];
        for (what, call) in &calls {
            (0..FORKS).for_each(|_| in_fork(what, call));
        }
        drop(calls);
        drop(hammer);

        // The parent.
        link.resume();
        local.write_all(b"hello").unwrap();
        local.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut answer = [0; 5];
        local.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"hello");
        assert!(link.is_open() && matches!(client.state(), ReconnectState::Connected(_)));
        assert!(UnixStream::connect(&socket_file).is_ok(), "the socket file is there, and somebody listens");
        group.join(&link);
        assert_eq!(group.broadcast(b"to the members"), 1);
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
        assert_eq!(signals.borrow().as_ref().unwrap().wait(), libc::SIGUSR1);
        client.close();
        let report = service.borrow_mut().take().unwrap().shutdown(DEADLINE);
        assert_eq!(report.workers_left, 0);
        assert!(!socket_file.exists());
    });
}
