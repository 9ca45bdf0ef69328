//! What a program without `unsafe` might do to a port, and must not: each attempt is refused, and what it was aimed at
//! goes on. What the compiler refuses stands beside the functions themselves (`raw::Port::adopt`,
//! `CompletionPort::raw`).
#![forbid(unsafe_code)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener as StdListener, TcpStream as StdStream, UdpSocket as StdUdpSocket};
use std::time::Duration;
use wharf::raw::{self, Cancel, CompletionEvent, DeviceKind, GetError, Issued, Sink};
use wharf::{Buffer, CompletionPort, Event, OperationId, Outcome};

/// A test that waits for longer is stuck.
const DEADLINE: Duration = Duration::from_secs(30);
/// `WSAEINVAL` where the system's numbers are Windows'.
const EINVAL: i32 = if cfg!(windows) { 10022 } else { 22 };
/// What no packet may carry: an address, if somebody took it for one.
const TOKEN: usize = 0x1234;

type Port = CompletionPort<u32, Vec<u8>>;

fn raw_port() -> raw::Port {
    raw::Port::new(raw::Config::default()).unwrap()
}

fn pair() -> (StdStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, client)
}

fn pending(outcome: Outcome<u32, Vec<u8>>) -> OperationId {
    match outcome {
        Outcome::Pending(id) => id,
        Outcome::Done(packet) => panic!("nothing was there: {packet:?}"),
    }
}

fn issued(result: Result<Issued, i32>) -> OperationId {
    match result.unwrap() {
        Issued::Pending(id) => id,
        Issued::Done(completion) => panic!("nobody has asked for that: {completion:?}"),
    }
}

/// The sinks that a call could name.
fn sinks() -> [Sink; 4] {
    let event = CompletionEvent::new();
    [Sink::Port, Sink::Event(event.clone()), Sink::Both(event), Sink::Callback(|_, _| panic!("called"), 7)]
}

#[test]
fn a_port_refuses_the_devices_of_another() {
    let port = Port::new().unwrap();
    let own = raw_port();
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    let address = listener.local_addr().unwrap();
    let (server, mut peer) = pair();
    let stream = port.associate(server, 2).unwrap();
    let socket = port.bind("127.0.0.1:0", 3).unwrap();
    let path = std::env::temp_dir().join(format!("wharf-safe-{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let file = port.open(&path, options.read(true).write(true).create(true), 4).unwrap();
    // A device of the port's own for each of theirs, with the same numbers.
    let mine: Vec<raw::Device> = (0..4).map(|_| own.open_stream(&address, 5).unwrap()).collect();
    let numbers: Vec<u64> = mine.iter().map(raw::Device::number).collect();
    assert_eq!(
        numbers,
        [listener.number(), stream.number(), socket.number(), file.number()],
        "a device is told by more than its number"
    );

    for sink in sinks() {
        for device in [listener.raw(), stream.raw(), socket.raw(), file.raw()] {
            let token = TOKEN;
            assert_eq!(own.accept(device, token, sink.clone()).unwrap_err(), EINVAL);
            assert_eq!(own.disconnect(device, token, sink.clone()).unwrap_err(), EINVAL);
            assert_eq!(own.connect(device, &address, token, sink.clone()).unwrap_err(), EINVAL);
            assert_eq!(own.wait_child(device, token, sink.clone()).unwrap_err(), EINVAL);
            assert_eq!(own.sync_file(device, false, token, sink.clone()).unwrap_err(), EINVAL);
            assert_eq!(own.shutdown(device, Shutdown::Both).unwrap_err(), EINVAL);
            assert_eq!(own.report_refusals(device, true).unwrap_err(), EINVAL);
        }
    }
    for device in [listener.raw(), stream.raw(), socket.raw(), file.raw()] {
        assert_eq!(own.release_device(device).map(drop).unwrap_err(), EINVAL);
        assert_eq!((own.cancel_all(device), own.bytes_taken(device), own.unacknowledged(device)), (0, 0, None));
        assert!(!own.close_device(device), "the port says that the device is not its own");
    }
    assert_eq!(own.device_count(), 4, "no device of its own was taken for theirs");

    // All of theirs go on.
    listener.accept(b"accept".to_vec()).unwrap();
    let mut client = StdStream::connect(address).unwrap();
    let packet = port.get_timeout(DEADLINE).unwrap();
    assert_eq!((packet.key, &packet.context[..]), (1, &b"accept"[..]));
    let Event::Accepted { result: Ok((mut accepted, _)), .. } = packet.event else { panic!("{packet:?}") };
    client.write_all(b"x").unwrap();
    accepted.read_exact(&mut [0]).unwrap();
    stream.recv(Buffer::with_capacity(8), b"receive".to_vec()).unwrap();
    peer.write_all(b"data").unwrap();
    let packet = port.get_timeout(DEADLINE).unwrap();
    assert_eq!((packet.key, &packet.context[..]), (2, &b"receive"[..]));
    assert!(matches!(packet.event, Event::Received { result: Ok(4), .. }));
    file.sync(b"sync".to_vec()).unwrap();
    assert_eq!(port.get_timeout(DEADLINE).unwrap().context, b"sync");
    assert!(socket.local_addr().is_ok());
    assert_eq!(own.get(Some(Duration::ZERO)).unwrap_err(), GetError::TimedOut);
    mine.iter().for_each(|device| assert!(own.close_device(device)));
    std::fs::remove_file(&path).unwrap();
}

#[test]
fn a_cancel_reaches_no_operation_of_another_port() {
    let (one, two) = (raw_port(), raw_port());
    let adopt = |port: &raw::Port| {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        port.adopt(listener, DeviceKind::Listener, 1).unwrap()
    };
    let (first, second) = (adopt(&one), adopt(&two));
    let of_one = issued(one.accept(&first, 1, Sink::Port));
    let of_two = issued(two.accept(&second, 2, Sink::Port));
    let timer_of_one = one.timer(DEADLINE * 100, None, 0, 3, Sink::Port, |_| {}).unwrap();
    let timer_of_two = two.timer(DEADLINE * 100, None, 0, 4, Sink::Port, |_| {}).unwrap();
    assert_ne!(of_one, of_two, "the name of an operation is unique in the process");
    assert_ne!(timer_of_one, timer_of_two);
    assert_eq!((two.cancel(of_one), two.cancel(timer_of_one)), (Cancel::Foreign, Cancel::Foreign));
    assert_eq!((one.cancel(of_two), one.cancel(timer_of_two)), (Cancel::Foreign, Cancel::Foreign));
    assert_eq!(one.get(Some(Duration::ZERO)).unwrap_err(), GetError::TimedOut);
    assert_eq!(two.get(Some(Duration::ZERO)).unwrap_err(), GetError::TimedOut);
    for (port, ids) in [(&one, [of_one, timer_of_one]), (&two, [of_two, timer_of_two])] {
        ids.into_iter().for_each(|id| assert_eq!(port.cancel(id), Cancel::Requested));
        (0..2).for_each(|_| assert_eq!(port.get(Some(DEADLINE)).unwrap().error, raw::ECANCELED));
    }
    one.close_device(&first);
    two.close_device(&second);
}

#[test]
fn a_typed_cancel_reaches_no_operation_of_another_port_or_device() {
    let (one, two) = (Port::new().unwrap(), Port::new().unwrap());
    let (server, _peer) = pair();
    let (other, _other_peer) = pair();
    let (foreign, _foreign_peer) = pair();
    let (server, other) = (one.associate(server, 1).unwrap(), one.associate(other, 2).unwrap());
    let foreign = two.associate(foreign, 1).unwrap();
    let id = pending(server.recv(vec![0; 8], vec![1]).unwrap());
    let other_id = pending(other.recv(vec![0; 8], vec![2]).unwrap());
    let foreign_id = pending(foreign.recv(vec![0; 8], vec![3]).unwrap());
    let timer = one.timer(DEADLINE * 100, 4, vec![4]).unwrap();
    let interval = one.interval(DEADLINE * 100, 5, vec![5]).unwrap();
    for attempt in [
        two.cancel(id),
        two.cancel(timer),
        two.cancel(interval),
        one.cancel(foreign_id),
        other.cancel(id),
        server.cancel(other_id),
        server.cancel(foreign_id),
        foreign.cancel(id),
        server.cancel(timer),
    ] {
        assert_eq!(attempt, Cancel::Foreign);
    }
    assert!(one.get_timeout(Duration::ZERO).is_err() && two.get_timeout(Duration::ZERO).is_err());
    assert_eq!(one.cancel(id), Cancel::Requested);
    assert_eq!(other.cancel(other_id), Cancel::Requested);
    assert_eq!(one.cancel(timer), Cancel::Requested);
    assert_eq!(two.cancel(foreign_id), Cancel::Requested);
}

#[test]
fn a_descriptor_has_one_owner_at_a_time() {
    let port = raw_port();
    let (server, mut peer) = pair();
    server.set_nonblocking(true).unwrap();
    let device = port.adopt(server, DeviceKind::Stream, 1).unwrap();
    #[cfg(unix)]
    let mut released = StdStream::from(port.release_device(&device).unwrap());
    #[cfg(windows)]
    let mut released = match port.release_device(&device).unwrap() {
        raw::Released::Socket(socket) => StdStream::from(socket),
        raw::Released::Handle(handle) => panic!("a socket was associated: {handle:?}"),
    };
    // What the device's last handles do is not the released socket's affair.
    assert!(port.close_device(&device));
    assert_eq!(port.release_device(&device).map(drop).unwrap_err(), raw::EBADF);
    drop(device);
    released.write_all(b"x").unwrap();
    peer.read_exact(&mut [0]).unwrap();

    // A port that refuses gives back what it was given, open.
    port.close();
    let (error, mut refused) = port.adopt(released, DeviceKind::Stream, 1).unwrap_err();
    assert_eq!(error, raw::EBADF);
    refused.write_all(b"y").unwrap();
    peer.read_exact(&mut [0]).unwrap();
    let (_, refused) = port.adopt_unconnected(refused, 1).unwrap_err();
    assert!(refused.peer_addr().is_ok());
    let (_, socket) = port.adopt(StdUdpSocket::bind("127.0.0.1:0").unwrap(), DeviceKind::Datagram, 1).unwrap_err();
    assert!(socket.local_addr().is_ok());
}

#[test]
fn an_operation_that_a_foreign_port_refused_leaves_no_handle_behind() {
    // A device is closed with the last handle to it; a refused operation of another port must not hold one.
    let port = Port::new().unwrap();
    let (server, mut peer) = pair();
    let stream = port.associate(server, 1).unwrap();
    let own = raw_port();
    (0..100).for_each(|_| assert!(own.disconnect(stream.raw(), TOKEN, Sink::Port).is_err()));
    drop(stream);
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the last handle has closed the connection");
}
