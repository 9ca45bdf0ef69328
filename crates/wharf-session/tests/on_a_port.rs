//! Services on a port that the program has: beside its packets, beside each other, and after each other's end.

mod common;

use common::theatre::{Theatre, client, next, read_to_end, round_trip};
use common::{DEADLINE, eventually};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use wharf::{Buffer, CompletionPort, DeviceInfo, DeviceKind, Event, GetError, WorkerPool, Workers};
use wharf_session::{Service, SlowConsumer};

type Own = CompletionPort<String, Box<u32>>;

/// A port with workers, and the sum of what was posted to it.
fn port(workers: Workers) -> (Own, WorkerPool, Arc<AtomicUsize>) {
    let port = Own::new().unwrap();
    let sum = Arc::new(AtomicUsize::new(0));
    let adding = sum.clone();
    let pool = port.start(workers, move |packet| {
        assert_eq!(packet.key, "own");
        assert!(matches!(packet.event, Event::Posted { .. }), "{:?}", packet.event);
        adding.fetch_add(*packet.context as usize, SeqCst);
    });
    (port, pool.unwrap(), sum)
}

fn echo(theatre: &Theatre, service: &Service) -> std::net::SocketAddr {
    let casting = theatre.casting();
    service.listen("127.0.0.1:0", move |_| casting.actor().received(|link, data| link.send(data).unwrap())).unwrap()
}

/// Waits until so many sessions have a receive outstanding: their handlers have returned.
fn at_rest(port: &Own, sessions: usize) {
    let rests = |device: &DeviceInfo| device.kind == DeviceKind::Stream && device.pending.0 > 0;
    eventually("no handler runs", || port.devices().iter().filter(|device| rests(device)).count() == sessions);
}

#[test]
fn sessions_and_the_programs_own_packets_are_served_side_by_side() {
    let theatre = Theatre::new();
    let (port, pool, sum) = port(Workers::new(2));
    let service = Service::options().start_on(&port).unwrap();
    let address = echo(&theatre, &service);
    let mut clients: Vec<_> = (0..20).map(|_| client(address)).collect();
    for number in 0..50 {
        port.post(0, "own".into(), Box::new(number)).unwrap();
        clients.iter_mut().for_each(|client| round_trip(client, &number.to_be_bytes()));
    }
    eventually("all posts are taken", || sum.load(SeqCst) == (0..50).sum::<usize>());
    let stats = service.stats();
    assert_eq!((stats.sessions, stats.accepted, stats.pool), (20, 20, None));
    assert!(service.workers().len() >= 2);
    clients.drain(..).for_each(drop);
    eventually("sessions end with their peers", || service.stats().sessions == 0);
    let report = service.shutdown(DEADLINE);
    assert_eq!((report.aborted, report.workers_left), (0, 0));
    port.post(0, "own".into(), Box::new(1000)).unwrap();
    eventually("the port goes on", || sum.load(SeqCst) == (0..50).sum::<usize>() + 1000);
    assert_eq!(pool.report().panics, 0);
    port.close();
    pool.join();
}

#[test]
fn a_service_that_is_dropped_ends_its_sessions_and_leaves_the_port_as_it_was() {
    let theatre = Theatre::new();
    let (port, pool, sum) = port(Workers::new(2));
    let devices = port.stats().devices;
    for _ in 0..3 {
        let options = Service::options().idle_timeout(Duration::from_secs(3600));
        let service = options.start_on(&port).unwrap();
        let address = echo(&theatre, &service);
        let mut clients: Vec<_> = (0..5).map(|_| client(address)).collect();
        clients.iter_mut().for_each(|client| round_trip(client, b"hello"));
        let _signals = service.signals(&[wharf::signal::SIGTERM]).unwrap();
        at_rest(&port, 5);
        drop(service);
        assert_eq!(theatre.0.made.load(SeqCst), theatre.0.dropped.load(SeqCst), "all were closed and dropped");
        clients.iter_mut().for_each(|client| assert_eq!(read_to_end(client), b""));
    }
    eventually("no device is left", || port.stats().devices == devices);
    port.post(0, "own".into(), Box::new(7)).unwrap();
    eventually("the port goes on", || sum.load(SeqCst) == 7);
    assert_eq!(pool.report().panics, 0);
    port.close();
    pool.join();
}

#[test]
fn a_shutdown_sends_what_was_accepted_and_the_port_goes_on() {
    let theatre = Theatre::new();
    let (port, pool, sum) = port(Workers::new(2));
    let service = Service::options().start_on(&port).unwrap();
    let (casting, (tell, links)) = (theatre.casting(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let tell = tell.clone();
            casting.actor().opened(move |link| tell.send(link.clone()).unwrap())
        })
        .unwrap();
    let mut peer = client(address);
    let link = next(&links);
    link.send(vec![7; 4 << 20]).unwrap_err();
    for _ in 0..8 {
        link.send(vec![7; 100_000]).unwrap();
    }
    let reading = thread::spawn(move || read_to_end(&mut peer).len());
    let report = service.shutdown(DEADLINE);
    assert_eq!((report.graceful, report.aborted, report.lost_bytes), (1, 0, 0));
    assert_eq!(reading.join().unwrap(), 800_000);
    port.post(0, "own".into(), Box::new(3)).unwrap();
    eventually("the port goes on", || sum.load(SeqCst) == 3);
    port.close();
    pool.join();
}

#[test]
fn sessions_on_a_port_that_is_closed_first_are_told_when_their_service_ends() {
    let theatre = Theatre::new();
    let (port, pool, _) = port(Workers::new(2));
    let service = Service::options().start_on(&port).unwrap();
    let (casting, reasons) = (theatre.casting(), Arc::new(Mutex::new(Vec::new())));
    let telling = reasons.clone();
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let telling = telling.clone();
            let actor = casting.actor().received(|link, data| link.send(data).unwrap());
            actor.closed(move |_, reason| telling.lock().unwrap().push(reason.to_string()))
        })
        .unwrap();
    let mut peer = client(address);
    round_trip(&mut peer, b"hello");
    at_rest(&port, 1);
    port.close();
    pool.join();
    assert!(service.connect(address, theatre.casting().actor()).is_err());
    assert!(service.listen("127.0.0.1:0", |_| -> common::theatre::Actor { unreachable!() }).is_err());
    assert!(reasons.lock().unwrap().is_empty());
    let report = service.shutdown(Duration::from_millis(50));
    assert_eq!((report.graceful, report.aborted), (0, 1));
    assert_eq!(*reasons.lock().unwrap(), ["the service was shut down"]);
    let error = Service::options().start_on(&port).map(drop).unwrap_err();
    assert_eq!(error.to_string(), GetError::Abandoned.to_string());
}

#[test]
fn of_two_services_on_one_port_one_can_end() {
    let theatre = Theatre::new();
    let (port, pool, sum) = port(Workers::new(2));
    let first = Service::options().start_on(&port).unwrap();
    let second = Service::options().start_on(&port).unwrap();
    let (one, two) = (echo(&theatre, &first), echo(&theatre, &second));
    let (mut peer_of_one, mut peer_of_two) = (client(one), client(two));
    round_trip(&mut peer_of_one, b"one");
    round_trip(&mut peer_of_two, b"two");
    assert_eq!((first.stats().sessions, second.stats().sessions), (1, 1));
    at_rest(&port, 2);
    drop(first);
    assert_eq!(read_to_end(&mut peer_of_one), b"");
    round_trip(&mut peer_of_two, b"still here");
    // Connected by the service that is left to itself.
    let (casting, (tell, told)) = (theatre.casting(), channel());
    let actor = casting.actor().opened(|link| link.send("hello").unwrap());
    let _link = second.connect(two, actor.received(move |_, data: Buffer| tell.send(data.to_vec()).unwrap())).unwrap();
    assert_eq!(next(&told), b"hello");
    assert_eq!(second.shutdown(DEADLINE).aborted, 0);
    port.post(0, "own".into(), Box::new(5)).unwrap();
    eventually("the port goes on", || sum.load(SeqCst) == 5);
    port.close();
    pool.join();
}

#[test]
fn a_thread_of_the_programs_own_serves_sessions_inside_get() {
    let theatre = Theatre::new();
    let port = Own::new().unwrap();
    let service = Service::options().start_on(&port).unwrap();
    let address = echo(&theatre, &service);
    let talking = thread::spawn(move || round_trip(&mut client(address), b"hello"));
    while !talking.is_finished() {
        assert_eq!(port.get_timeout(Duration::from_millis(5)).map(drop).unwrap_err(), GetError::TimedOut);
    }
    talking.join().unwrap();
    drop(service);
    assert_eq!(port.get_timeout(Duration::ZERO).map(drop).unwrap_err(), GetError::TimedOut);
}

#[test]
fn services_that_share_a_port_leave_it_a_thread_that_does_not_wait() {
    // Two threads, and a session of each service whose peer reads nothing: the handlers of both fill them.
    let theatre = Theatre::new();
    let (port, pool, sum) = port(Workers::exactly(2));
    eventually("both threads are there", || port.workers().len() == 2);
    let service = || {
        let options = Service::options().outbox(64 * 1024, SlowConsumer::Wait);
        options.start_on(&port).unwrap()
    };
    let services = [service(), service()];
    let peers: Vec<_> = services
        .iter()
        .map(|service| {
            let casting = theatre.casting();
            let address = service.listen("127.0.0.1:0", move |_| {
                casting.actor().received(|link, _| while link.send(vec![0; 16 * 1024]).is_ok() {})
            });
            let mut peer = client(address.unwrap());
            std::io::Write::write_all(&mut peer, b"fill").unwrap();
            peer
        })
        .collect();
    // One of the two is ended for it, and its thread goes on.
    let ended = || services.iter().filter(|service| service.stats().accepted == 1 && service.stats().sessions == 0);
    eventually("a slow session is ended", || ended().count() == 1);
    port.post(0, "own".into(), Box::new(9)).unwrap();
    eventually("the port goes on", || sum.load(SeqCst) == 9);
    drop(peers);
    drop(services);
    port.close();
    pool.join();
}
