//! A thread that supervises a port does its work while no other thread is inside `get`, and no longer.

mod common;

use common::*;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use wharf::raw::{self, Buffers, CompletionEvent, DeviceKind, GetError, Kind, Post, RawBuffer, Sink};
use wharf::{Wake, Workers};

/// What is sent at once is less than this.
const MANY: usize = 16 * 1024 * 1024;
/// Long enough for many ticks.
#[cfg(unix)]
const A_WHILE: Duration = Duration::from_millis(60);

fn raw_port() -> raw::Port {
    raw::Port::new(raw::Config { concurrency: 1, ..raw::Config::default() }).unwrap()
}

fn supervise(port: &raw::Port) -> JoinHandle<()> {
    let port = port.clone();
    thread::spawn(move || port.supervise())
}

/// The port is closed, and who supervised it comes back.
fn end(port: &raw::Port, supervisors: impl IntoIterator<Item = JoinHandle<()>>) {
    port.close();
    supervisors.into_iter().for_each(|thread| thread.join().unwrap());
}

fn adopt(port: &raw::Port, socket: TcpStream) -> raw::Device {
    socket.set_nonblocking(true).unwrap();
    port.adopt(socket, DeviceKind::Stream, 5).unwrap()
}

fn post(token: usize) -> Post {
    Post { key: 1, token, bytes: 0 }
}

/// Issues a send of [`MANY`] bytes, of which the system cannot take all.
#[allow(unsafe_code)]
fn send_many(port: &raw::Port, device: &raw::Device, sink: Sink) {
    let bytes: &'static mut [u8] = vec![7; MANY].leak();
    let buffer = RawBuffer { pointer: bytes.as_mut_ptr(), length: bytes.len() };
    // SAFETY: the memory is never freed or changed.
    let _ = unsafe { port.send(device, Buffers::One(buffer), 3, sink) }.unwrap();
}

fn read_many(peer: &mut TcpStream) {
    let mut read = 0;
    let mut into = vec![0; 256 * 1024];
    while read < MANY {
        read += peer.read(&mut into).unwrap();
    }
}

#[test]
fn a_half_sent_send_goes_on_and_signals_its_event_with_all_threads_outside() {
    let port = raw_port();
    let supervisor = supervise(&port);
    let (stream, mut peer) = pair();
    let device = adopt(&port, stream);
    let event = CompletionEvent::new();
    send_many(&port, &device, Sink::Event(event.clone()));
    assert!(event.wait(Some(Duration::ZERO)).is_none(), "the system has taken all of it: send more");
    read_many(&mut peer);
    let sent = event.wait(Some(DEADLINE)).expect("it is signalled");
    assert_eq!((sent.token, sent.bytes, sent.error), (3, MANY, 0));
    end(&port, [supervisor]);
}

#[test]
fn connections_are_accepted_and_timers_go_off_with_all_threads_outside() {
    let port = raw_port();
    let supervisor = supervise(&port);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let device = port.adopt(listener, DeviceKind::Listener, 1).unwrap();
    let (accepted, elapsed) = (CompletionEvent::new(), CompletionEvent::new());
    port.accept(&device, 1, Sink::Event(accepted.clone())).unwrap();
    port.timer(Duration::from_millis(5), None, 1, 2, Sink::Event(elapsed.clone()), |_| ()).unwrap();
    let _client = TcpStream::connect(address).unwrap();
    assert_eq!(accepted.wait(Some(DEADLINE)).expect("it is signalled").kind, Kind::Accepted);
    assert_eq!(elapsed.wait(Some(DEADLINE)).expect("it is signalled").token, 2);
    end(&port, [supervisor]);
}

#[test]
fn what_needs_a_thread_waits_for_one() {
    let port = raw_port();
    let supervisor = supervise(&port);
    let (stream, mut peer) = pair();
    let device = adopt(&port, stream);
    for round in 0..20 {
        let mut memory = [0u8; 4];
        let buffer = RawBuffer { pointer: memory.as_mut_ptr(), length: memory.len() };
        #[allow(unsafe_code)]
        // SAFETY: `memory` lives, and is not touched, until the completion was taken.
        unsafe { port.receive(&device, Buffers::One(buffer), round, Sink::Port) }.unwrap();
        if round % 2 == 0 {
            // By now the supervisor leads, mostly; the data come before the thread, or while it is inside.
            thread::sleep(Duration::from_millis(3));
        }
        peer.write_all(b"data").unwrap();
        let packet = port.get(Some(DEADLINE)).unwrap();
        assert_eq!((packet.token, packet.bytes), (round, 4));
    }
    end(&port, [supervisor]);
}

#[test]
fn a_thread_inside_is_reached_while_the_supervisor_leads() {
    let port = raw_port();
    let supervisor = supervise(&port);
    for token in 0..20 {
        thread::sleep(Duration::from_millis(3));
        let worker = thread::spawn({
            let port = port.clone();
            move || port.get(Some(DEADLINE)).unwrap().token
        });
        thread::sleep(Duration::from_millis(if token % 2 == 0 { 2 } else { 0 }));
        port.post(post(token)).unwrap();
        assert_eq!(worker.join().unwrap(), token);
    }
    end(&port, [supervisor]);
}

/// The timer does not go off for nothing: in one of a few tries it did not. A figure that moves once has a reason, as
/// a thread that left.
#[track_caller]
#[cfg(unix)]
fn assert_no_ticks(port: &Port) {
    let figures = || (port.stats().ticks, port.stats().polls);
    let quiet = (0..10).any(|_| {
        let before = figures();
        thread::sleep(A_WHILE);
        figures() == before
    });
    assert!(quiet, "it wakes up again and again: {:?}", figures());
}

fn supervise_typed(port: &Port) -> JoinHandle<()> {
    let port = port.clone();
    thread::spawn(move || port.supervise())
}

#[test]
#[cfg(unix)]
fn the_supervisor_of_a_port_where_nothing_happens_sleeps() {
    let port = port(1, Wake::default());
    let ledger = Ledger::new();
    let supervisor = supervise_typed(&port);
    assert_no_ticks(&port);
    // With something outstanding.
    let (stream, mut peer) = connection(&port, 1);
    let _ = stream.send(vec![1; MANY], ledger.token(1)).unwrap();
    assert_no_ticks(&port);
    read_many(&mut peer);
    eventually("it is sent", || port.stats().queued == 1);
    // With a packet that nobody takes.
    assert_no_ticks(&port);
    assert_eq!(next_sent(&port).0, 1);
    // After a thread that was inside, with a packet for the next one.
    port.post(0, 2, ledger.token(2)).unwrap();
    assert_no_ticks(&port);
    let packet = next(&port);
    assert_eq!(packet.key, 2);
    drop((stream, packet));
    port.close();
    supervisor.join().unwrap();
}

#[test]
fn of_several_supervisors_another_goes_on_when_a_pool_ends() {
    let typed = port(1, Wake::default());
    let ledger = Ledger::new();
    let workers = typed.start(Workers::exactly(1), drop).unwrap();
    let supervisors = [(); 2].map(|()| supervise_typed(&typed));
    assert_eq!(workers.shutdown(DEADLINE).workers, 0);
    let (stream, mut peer) = connection(&typed, 1);
    let _ = stream.send(vec![1; MANY], ledger.token(1)).unwrap();
    // Without a thread inside `get` until all has gone out.
    read_many(&mut peer);
    let (_, _, result) = next_sent(&typed);
    assert_eq!(result.unwrap(), MANY);
    drop(stream);
    typed.close();
    supervisors.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(ledger.live(), 0);
}

#[test]
fn who_supervises_a_closed_port_comes_back_at_once() {
    let port = raw_port();
    port.close();
    port.supervise();
    assert_eq!(port.get(None).err(), Some(GetError::Abandoned));
}

#[test]
fn a_supervisor_that_was_a_worker_leaves_its_slot_to_others() {
    let port = port(1, Wake::default());
    let ledger = Ledger::new();
    port.post(0, 1, ledger.token(1)).unwrap();
    let supervisor = thread::spawn({
        let port = port.clone();
        move || {
            drop(port.get().unwrap());
            port.supervise();
        }
    });
    eventually("the thread has left the port", || ledger.live() == 0 && port.workers().is_empty());
    assert_eq!(port.stats().active, 0);
    port.close();
    supervisor.join().unwrap();
}

#[test]
fn what_is_found_as_the_port_is_closed_is_freed_once() {
    for _ in 0..50 {
        let ledger = Ledger::new();
        let typed = port(1, Wake::default());
        let supervisor = supervise_typed(&typed);
        let (stream, mut peer) = connection(&typed, 1);
        let _ = typed.timer(Duration::from_millis(2), 1, ledger.token(1)).unwrap();
        pending(stream.recv(vec![0; 8], ledger.token(2)).unwrap());
        thread::sleep(Duration::from_millis(2));
        peer.write_all(b"x").unwrap();
        typed.close();
        supervisor.join().unwrap();
        assert_eq!((ledger.made(), ledger.live()), (2, 0));
    }
}

#[test]
#[allow(unsafe_code)]
fn a_receive_with_an_event_needs_neither_a_slot_nor_a_thread_inside_get() {
    let port = raw_port();
    let supervisor = supervise(&port);
    let (stream, mut peer) = pair();
    let device = adopt(&port, stream);
    let receive = |token, sink| {
        let memory: &'static mut [u8] = vec![0; 4].leak();
        let buffer = RawBuffer { pointer: memory.as_mut_ptr(), length: memory.len() };
        // SAFETY: the memory is never freed, and nobody else touches it.
        let _ = unsafe { port.receive(&device, Buffers::One(buffer), token, sink) }.unwrap();
    };
    // The one slot is taken, by this thread.
    port.post(post(1)).unwrap();
    assert_eq!(port.get(Some(DEADLINE)).unwrap().token, 1);
    let event = CompletionEvent::new();
    receive(2, Sink::Event(event.clone()));
    peer.write_all(b"abcd").unwrap();
    let received = event.wait(Some(DEADLINE)).expect("it is signalled");
    assert_eq!((received.token, received.bytes, received.error), (2, 4, 0));
    // Behind one for the queue, whose data comes at the same moment.
    receive(3, Sink::Port);
    receive(4, Sink::Event(event.clone()));
    peer.write_all(b"efghijkl").unwrap();
    let received = event.wait(Some(DEADLINE)).expect("it is signalled");
    assert_eq!((received.token, received.bytes), (4, 4));
    assert_eq!(port.get(Some(DEADLINE)).unwrap().token, 3);
    end(&port, [supervisor]);
}
