//! A listener that accepts until it is stopped: its limit, its count, and an end that loses no connection.

mod common;

use common::DEADLINE;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use wharf::CompletionPort;
use wharf::net::{AcceptLimits, Acceptor, Incoming, Permit};

type Port = CompletionPort<(), ()>;

fn acceptor(limits: AcceptLimits) -> (Port, Acceptor<(), ()>, SocketAddr) {
    let port = Port::new().unwrap();
    let listener = port.listen("127.0.0.1:0", ()).unwrap();
    let address = listener.local_addr().unwrap();
    let acceptor = Acceptor::new(&port, limits, || ());
    acceptor.listen(listener).unwrap();
    (port, acceptor, address)
}

/// Handles packets until one brings a connection.
fn next(port: &Port, acceptor: &Acceptor<(), ()>) -> Incoming {
    loop {
        let packet = port.get_timeout(DEADLINE).expect("a connection comes");
        if let Some(incoming) = acceptor.completed(packet.event) {
            return incoming;
        }
    }
}

fn admitted(port: &Port, acceptor: &Acceptor<(), ()>) -> (TcpStream, Permit) {
    match next(port, acceptor) {
        Incoming::Admitted { socket, permit, .. } => (socket, permit),
        other => panic!("{other:?}"),
    }
}

#[test]
fn more_connections_come_than_accepts_are_outstanding() {
    let (port, acceptor, address) = acceptor(AcceptLimits { outstanding: 2, ..AcceptLimits::default() });
    let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    let taken: Vec<_> = clients.iter().map(|_| admitted(&port, &acceptor)).collect();
    let mut numbers: Vec<_> = taken.iter().map(|(_, permit)| permit.number()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    assert_eq!(acceptor.open(), 20);
    drop(taken);
    assert_eq!(acceptor.open(), 0);
    port.close();
}

#[test]
fn with_one_accept_outstanding_connections_come_in_their_order() {
    let (port, acceptor, address) = acceptor(AcceptLimits { outstanding: 1, ..AcceptLimits::default() });
    let clients: Vec<_> = (0..20).map(|_| TcpStream::connect(address).unwrap()).collect();
    for (at, client) in clients.iter().enumerate() {
        let (socket, permit) = admitted(&port, &acceptor);
        assert_eq!(socket.peer_addr().unwrap(), client.local_addr().unwrap());
        assert_eq!(permit.number(), at as u64 + 1);
    }
    port.close();
}

#[test]
fn a_connection_too_many_is_refused_until_another_has_ended() {
    let (port, acceptor, address) = acceptor(AcceptLimits { connections: 2, ..AcceptLimits::default() });
    let clients = [(); 3].map(|()| TcpStream::connect(address).unwrap());
    let (first, _second) = (admitted(&port, &acceptor), admitted(&port, &acceptor));
    let refused = next(&port, &acceptor);
    let Incoming::Refused { peer, .. } = refused else { panic!("{refused:?}") };
    assert_eq!(peer, clients[2].local_addr().unwrap());
    assert_eq!(acceptor.open(), 2, "who is refused does not count");
    drop(first);
    let _client = TcpStream::connect(address).unwrap();
    let (_socket, permit) = admitted(&port, &acceptor);
    assert_eq!(permit.number(), 3);
    port.close();
}

#[cfg(unix)]
#[test]
fn what_the_system_has_accepted_before_the_stop_comes_and_is_waited_for() {
    const CLIENTS: usize = 60;
    let (port, acceptor, address) = acceptor(AcceptLimits { outstanding: 4, ..AcceptLimits::default() });
    let clients: Vec<_> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
    acceptor.stop();
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    assert!(acceptor.wait(Duration::ZERO) >= CLIENTS, "nobody has seen them, and they count");
    let taken: Vec<_> = clients.iter().map(|_| admitted(&port, &acceptor)).collect();
    // The accepts that were outstanding end, too.
    while let Ok(packet) = port.get_timeout(Duration::ZERO) {
        assert!(acceptor.completed(packet.event).is_none());
    }
    assert_eq!(acceptor.wait(Duration::ZERO), CLIENTS);
    let waiting = std::thread::spawn(move || acceptor.wait(DEADLINE));
    drop(taken);
    assert_eq!(waiting.join().unwrap(), 0);
    port.close();
}

#[test]
fn a_listener_that_was_stopped_takes_no_other() {
    let (port, acceptor, _) = acceptor(AcceptLimits::default());
    acceptor.stop();
    acceptor.stop();
    let late = port.listen("127.0.0.1:0", ()).unwrap();
    let address = late.local_addr().unwrap();
    assert!(acceptor.listen(late).is_err());
    assert!(TcpStream::connect(address).is_err(), "it is closed");
    while acceptor.wait(Duration::ZERO) > 0 {
        let packet = port.get_timeout(DEADLINE).unwrap();
        assert!(acceptor.completed(packet.event).is_none());
    }
    port.close();
}

#[cfg(target_os = "linux")]
#[test]
fn a_listener_that_listens_no_more_is_given_up() {
    use std::os::fd::AsFd;
    use wharf::Event;
    let (port, acceptor, _) = acceptor(AcceptLimits { outstanding: 2, ..AcceptLimits::default() });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let same = listener.try_clone().unwrap();
    acceptor.listen(port.associate(listener, ()).unwrap()).unwrap();
    rustix::net::shutdown(same.as_fd(), rustix::net::Shutdown::Both).unwrap();
    for _ in 0..2 {
        let packet = port.get_timeout(DEADLINE).unwrap();
        assert!(matches!(packet.event, Event::Accepted { result: Err(_), .. }), "{:?}", packet.event);
        assert!(acceptor.completed(packet.event).is_none());
    }
    assert_eq!(acceptor.wait(Duration::ZERO), 2, "those of the other listener");
    assert!(port.get_timeout(Duration::from_millis(300)).is_err(), "it is not tried again");
    port.close();
}
