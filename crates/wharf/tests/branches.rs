//! Branches: parts of a port whose packets go to a handler, beside packets of the port's own.

mod common;

use common::{DEADLINE, eventually, pair};
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use wharf::{Branch, Buffer, CompletionPort, Event, GetError, Packet, UnpostedReason, Workers};

/// A key or a context that is counted, and no number, so that a mistaken type would be found out.
#[derive(Clone, Debug)]
struct Counted(#[allow(dead_code)] Arc<()>, &'static str);

type Own = CompletionPort<String, Vec<u8>>;

type Told = Receiver<Packet<Counted, Counted>>;

/// A branch that passes on what its handler gets, and what counts its keys and contexts.
fn told(port: &Own) -> (Branch<Counted, Counted>, Told, Arc<()>) {
    let (tell, told) = channel();
    let branch = port.branch(move |packet| {
        let _ = tell.send(packet);
    });
    (branch, told, Arc::new(()))
}

fn named(count: &Arc<()>, name: &'static str) -> Counted {
    Counted(count.clone(), name)
}

fn all_are_freed(count: &Arc<()>) {
    eventually("keys and contexts are freed", || Arc::strong_count(count) == 1);
}

#[test]
fn packets_of_a_branch_go_to_its_handler_and_the_ports_own_come_out_of_get() {
    let port = Own::new().unwrap();
    let (branch, told, count) = told(&port);
    branch.post(1, named(&count, "key"), named(&count, "context")).unwrap();
    port.post(2, "own".into(), vec![3]).unwrap();
    branch.post(4, named(&count, "last"), named(&count, "")).unwrap();
    let packet = port.get().unwrap();
    assert_eq!((packet.key.as_str(), &packet.context[..]), ("own", &[3][..]));
    assert!(matches!(packet.event, Event::Posted { bytes: 2 }));
    let first = told.try_recv().expect("it was handled in the call");
    assert_eq!((first.key.1, first.context.1), ("key", "context"));
    assert!(matches!(first.event, Event::Posted { bytes: 1 }));
    assert!(told.try_recv().is_err(), "the last was not looked at");
    assert_eq!(port.get_timeout(Duration::ZERO).unwrap_err(), GetError::TimedOut);
    assert_eq!(told.try_recv().unwrap().key.1, "last");
    drop(first);
    all_are_freed(&count);
}

#[test]
fn devices_timers_and_intervals_of_a_branch_complete_into_it() {
    let port = Own::new().unwrap();
    let (branch, told, count) = told(&port);
    let (server, mut client) = pair();
    let stream = branch.associate(server, named(&count, "stream")).unwrap();
    stream.recv(Buffer::with_capacity(16), named(&count, "receive")).unwrap();
    client.write_all(b"hello").unwrap();
    let serve = || assert_eq!(port.get_timeout(Duration::from_millis(20)).unwrap_err(), GetError::TimedOut);
    let next = || loop {
        if let Ok(packet) = told.try_recv() {
            return ((packet.key.1, packet.context.1), packet.event);
        }
        serve();
    };
    let (names, event) = next();
    assert_eq!(names, ("stream", "receive"));
    let Event::Received { buffer, result: Ok(5), stream: again } = event else { panic!("{event:?}") };
    assert_eq!(&buffer[..], b"hello");
    assert_eq!(again.number(), stream.number());
    again.send(buffer, named(&count, "send")).unwrap();
    assert!(matches!(next().1, Event::Sent { result: Ok(5), .. }));
    client.read_exact(&mut [0; 5]).unwrap();

    branch.timer(Duration::from_millis(1), named(&count, "timer"), named(&count, "once")).unwrap();
    let (names, event) = next();
    assert_eq!(names, ("timer", "once"));
    assert!(matches!(event, Event::Elapsed { result: Ok(1) }));
    let every = branch.interval(Duration::from_millis(1), named(&count, "every"), named(&count, "tick")).unwrap();
    let ticks = [next().0, next().0];
    assert_eq!(ticks, [("every", "tick"); 2]);
    branch.cancel(every);
    while !matches!(next().1, Event::Elapsed { result: Err(_) }) {}
    let listener = branch.listen("127.0.0.1:0", named(&count, "listener")).unwrap();
    listener.accept(named(&count, "accept")).unwrap();
    let address = listener.local_addr().unwrap();
    let connected = branch.connect(address, named(&count, "client"), named(&count, "connect")).unwrap();
    let mut names = [next().0.1, next().0.1];
    names.sort_unstable();
    assert_eq!(names, ["accept", "connect"]);
    drop((stream, again, listener, connected));
    all_are_freed(&count);
}

#[test]
fn a_batch_has_the_ports_own_packets_alone() {
    let port = Own::new().unwrap();
    let (branch, told, count) = told(&port);
    for number in 0..3 {
        branch.post(number, named(&count, ""), named(&count, "")).unwrap();
        port.post(number, "own".into(), Vec::new()).unwrap();
    }
    branch.post(3, named(&count, ""), named(&count, "")).unwrap();
    let batch = port.get_many(16).unwrap();
    assert_eq!(batch.map(|packet| packet.key).collect::<Vec<_>>(), ["own"; 3]);
    assert_eq!(told.try_iter().count(), 4);
    branch.post(4, named(&count, ""), named(&count, "")).unwrap();
    assert_eq!(port.get_many_timeout(16, Duration::ZERO).map(drop).unwrap_err(), GetError::TimedOut);
    assert_eq!(told.try_iter().count(), 1);
    all_are_freed(&count);
}

#[test]
fn branches_and_the_port_share_a_pool() {
    const EACH: usize = 1000;
    let port = Own::new().unwrap();
    let (own, first, second) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)), channel());
    let counting = first.clone();
    let one = port.branch::<u8, ()>(move |packet| _ = counting.fetch_add(usize::from(packet.key), SeqCst));
    let tell = second.0;
    let two = port.branch::<(), Box<usize>>(move |packet| tell.send(*packet.context).unwrap());
    let counting = own.clone();
    let pool = port.start(Workers::new(2), move |packet| _ = counting.fetch_add(packet.context.len(), SeqCst)).unwrap();
    for number in 0..EACH {
        port.post(0, String::new(), vec![0; 3]).unwrap();
        one.post(0, 2, ()).unwrap();
        two.post(0, (), Box::new(number)).unwrap();
    }
    eventually("all are handled", || (own.load(SeqCst), first.load(SeqCst)) == (3 * EACH, 2 * EACH));
    let mut numbers: Vec<usize> = (0..EACH).map(|_| second.1.recv_timeout(DEADLINE).unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..EACH), "each once");
    assert!(one.shares_port(&two) && !one.shares_port(&Own::new().unwrap().branch::<(), ()>(drop)));
    assert!(!one.is_worker(), "this thread has never called get");
    port.close();
    pool.join();
}

#[test]
fn what_a_closed_port_has_of_a_branch_is_freed_and_its_handler_does_not_hear_of_it() {
    let port = Own::new().unwrap();
    let (branch, told, count) = told(&port);
    let (server, _client) = pair();
    let stream = branch.associate(server, named(&count, "")).unwrap();
    stream.recv(Buffer::with_capacity(16), named(&count, "")).unwrap();
    branch.post(0, named(&count, ""), named(&count, "")).unwrap();
    branch.timer(Duration::from_secs(3600), named(&count, ""), named(&count, "")).unwrap();
    branch.interval(Duration::from_secs(3600), named(&count, ""), named(&count, "")).unwrap();
    drop(stream);
    // The last handle of the port.
    drop(port);
    all_are_freed(&count);
    assert!(told.try_recv().is_err());
    let unposted = branch.post(0, named(&count, "back"), named(&count, "")).unwrap_err();
    assert_eq!((unposted.key.1, unposted.reason), ("back", UnpostedReason::Closed));
    assert!(branch.timer(Duration::ZERO, named(&count, ""), named(&count, "")).is_err());
    drop(unposted);
    all_are_freed(&count);
}

#[test]
fn a_get_that_does_not_wait_returns_though_a_branch_is_flooded() {
    let port = Own::new().unwrap();
    let handled = Arc::new(AtomicUsize::new(0));
    let counting = handled.clone();
    let branch = Arc::new(std::sync::OnceLock::<Branch<(), ()>>::new());
    let again = branch.clone();
    let made = port.branch(move |_| {
        counting.fetch_add(1, SeqCst);
        again.get().unwrap().post(0, (), ()).unwrap();
    });
    branch.set(made).unwrap();
    branch.get().unwrap().post(0, (), ()).unwrap();
    assert_eq!(port.get_timeout(Duration::ZERO).unwrap_err(), GetError::TimedOut);
    assert_eq!(port.get_many_timeout(4, Duration::ZERO).map(drop).unwrap_err(), GetError::TimedOut);
    assert!((2..1000).contains(&handled.load(SeqCst)), "{} were handled", handled.load(SeqCst));
    assert!(branch.get().unwrap().is_worker());
    port.close();
}
