//! Accepting (A).

use crate::kit::*;
use crate::row::{How::*, Row, differs, information, must, not_offered, only_c, should};
use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::thread;
use wharf::raw::{DeviceKind, Sink};

pub const ROWS: &[Row] = &[
    must("A-01", "The function is found by a control request.", only_c("extension functions and their pointers")),
    must("A-02", "An accept's packet has the listener's key and the call's context.", Test(key)),
    must("A-03", "An accept ends as soon as a connection is there, and takes no data.", Test(at_once)),
    must(
        "A-04",
        "An accept can wait for the first data.",
        not_offered("not offered: issue a receive on the accepted stream"),
    ),
    must(
        "A-05",
        "An accept that waits for data ends with 0 bytes when the client closes.",
        not_offered("not offered, as A-04: the receive says so"),
    ),
    must(
        "A-06",
        "An accept that waits for data fails when the client resets.",
        not_offered("not offered, as A-04: the receive says so"),
    ),
    must(
        "A-07",
        "A connection that was reset before it was accepted fails that accept; the listener goes on.",
        differs(
            "the accept brings it, and its first receive says that it was reset; the listener goes on",
            reset_before,
        ),
    ),
    must(
        "A-08",
        "Each address area has 16 bytes more than the largest address.",
        only_c("the output buffer of AcceptEx"),
    ),
    should("A-09", "A remote area of 0 bytes is refused.", only_c("the output buffer of AcceptEx")),
    should(
        "A-10",
        "An address area that is too small fails when a connection comes.",
        only_c("the output buffer of AcceptEx"),
    ),
    must(
        "A-11",
        "The output buffer holds data and both addresses, in a private form.",
        only_c("the output buffer of AcceptEx"),
    ),
    must(
        "A-12",
        "A helper finds the addresses in the buffer.",
        only_c("the output buffer of AcceptEx: the packet has the peer's address"),
    ),
    must("A-13", "Without OVERLAPPED the call is refused.", only_c("an OVERLAPPED pointer that may be null")),
    must(
        "A-14",
        "An accept on a listener that is closed is refused as on no socket (10038), and queues nothing.",
        Test(closed),
    ),
    must("A-15", "A socket that does not listen takes no accepts.", Test(not_listening)),
    must(
        "A-16",
        "The acceptor is a fresh socket of the same family.",
        only_c("an acceptor socket that the caller gives: the packet brings the connection"),
    ),
    should("A-17", "Without an output buffer the call is refused.", only_c("the output buffer of AcceptEx")),
    must("A-18", "Outstanding accepts are served in the order of issue.", Test(order)),
    must("A-19", "A connection that waits already is taken at once.", Test(waiting)),
    should(
        "A-20",
        "A pending accept's acceptor refuses to connect.",
        only_c("an acceptor socket that the caller gives"),
    ),
    must("A-21", "Closing the listener ends its accepts with 995, one packet each.", Test(close)),
    must("A-22", "Closing the acceptor ends its accept.", only_c("an acceptor socket that the caller gives")),
    should("A-23", "An accept is the listener's operation, to be cancelled there.", Test(cancel)),
    must(
        "A-24",
        "An option makes the accepted socket complete.",
        only_c("SO_UPDATE_ACCEPT_CONTEXT: it is complete, see A-25"),
    ),
    must("A-25", "Right after the accept addresses, options and shutdown work.", Test(complete)),
    should(
        "A-26",
        "How long a connection is there can be asked for.",
        only_c("SO_CONNECT_TIME; a session's `stats` tell it"),
    ),
    must(
        "A-27",
        "Closing an acceptor whose client is silent drops the client.",
        only_c("an acceptor socket that the caller gives"),
    ),
    information("A-29", "Without an accept connections wait in the backlog.", Test(backlog)),
    must("A-30", "Options set on the listener, as buffer sizes, hold for the connection.", Test(options)),
];

fn key(b: &Bench) {
    let port = b.port();
    let one = port.listen("127.0.0.1:0", 11).unwrap();
    let two = port.listen("127.0.0.1:0", 22).unwrap();
    one.accept(1).unwrap();
    two.accept(2).unwrap();
    for (listener, expected) in [(&two, (22, 2)), (&one, (11, 1))] {
        let client = b.connect(listener.local_addr().unwrap()).unwrap();
        let packet = next(&port);
        assert_eq!((packet.key, packet.context), expected);
        drop(client);
    }
}

fn at_once(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    listener.accept(1).unwrap();
    let mut client = b.connect(listener.local_addr().unwrap()).unwrap();
    let (socket, peer) = accepted(&port).1.expect("the client has sent nothing");
    assert_eq!(peer, client.local_addr().unwrap());
    client.write_all(b"data").unwrap();
    let stream = port.associate(socket, 2).unwrap();
    stream.recv(vec![0; 16], 2).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"data", "the accept took none of it");
}

fn closed(b: &Bench) {
    let port = b.raw();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let copy = listener.try_clone().unwrap();
    let device = port.adopt(copy, DeviceKind::Listener, 1).unwrap();
    port.close_device(&device);
    let error = port.accept(&device, 1, Sink::Port).expect_err("it is closed");
    assert_eq!(wharf::error::ErrorExt::winsock(&wharf::error::io_error(error)), 10038);
    raw_quiet(&port);
    assert!(listener.local_addr().is_ok(), "the copy was closed, not this one");
}

fn not_listening(b: &Bench) {
    let port = b.port();
    let (socket, _) = dead_address();
    let rejected = port.associate(std::net::TcpListener::from(socket), 1).expect_err("it does not listen");
    assert_eq!(rejected.error.kind(), std::io::ErrorKind::InvalidInput);
    let raw = b.raw();
    let (device, _peer) = b.raw_stream(&raw, 1);
    let error = raw.accept(&device, 1, Sink::Port).expect_err("a stream does not listen");
    assert_eq!(wharf::error::ErrorExt::winsock(&wharf::error::io_error(error)), 10022);
    raw_quiet(&raw);
}

fn order(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    (0..8).for_each(|number| drop(listener.accept(number).unwrap()));
    for number in 0..8 {
        let client = b.connect(listener.local_addr().unwrap()).unwrap();
        let (context, result) = accepted(&port);
        assert_eq!((context, result.unwrap().1), (number, client.local_addr().unwrap()));
    }
    // Two hundred at once, whose clients come from several threads: by their packets the accepts are in the order of
    // issue.
    let count = crate::hostile::at_once(200);
    let listener = port.listen("127.0.0.1:0", 2).unwrap();
    (0..count).for_each(|number| drop(listener.accept(number).unwrap()));
    let address = listener.local_addr().unwrap();
    let clients: Vec<Peer> = thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| scope.spawn(move || (0..count / 4).map(|_| b.connect(address).unwrap()).collect::<Vec<_>>()))
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    let mut addresses: Vec<_> = (0..count)
        .map(|number| {
            let (context, result) = accepted(&port);
            assert_eq!(context, number);
            result.unwrap().1
        })
        .collect();
    let mut own: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
    addresses.sort_unstable();
    own.sort_unstable();
    assert!(addresses == own, "each client once");
}

fn waiting(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    let clients: Vec<_> = (0..3).map(|_| b.connect(listener.local_addr().unwrap()).unwrap()).collect();
    quiet(&port);
    for client in &clients {
        listener.accept(7).unwrap();
        assert_eq!(accepted(&port).1.unwrap().1, client.local_addr().unwrap());
    }
}

fn close(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    let address = listener.local_addr().unwrap();
    (0..3).for_each(|number| drop(listener.accept(number).unwrap()));
    listener.close();
    let mut contexts: Vec<u64> = (0..3)
        .map(|_| {
            let packet = next(&port);
            assert_eq!(codes(&packet), (995, 995));
            packet.context
        })
        .collect();
    contexts.sort_unstable();
    assert_eq!(contexts, [0, 1, 2]);
    quiet(&port);
    assert!(b.connect(address).is_err(), "nobody listens there any more");
    close_while_they_come(b);
}

/// A-21 while clients connect: each accept has one packet, and no connection stays open that nobody got.
fn close_while_they_come(b: &Bench) {
    const ROUNDS: u64 = 20;
    const ACCEPTS: u64 = 8;
    let port = b.limited(2);
    let (counts, got) = (Arc::new(Mutex::new(vec![0; (ROUNDS * ACCEPTS) as usize])), Count::default());
    let (seen, connections) = (counts.clone(), got.clone());
    let crew = Crew::start(&port, 2, move |_, packet| {
        seen.lock().unwrap()[packet.context as usize] += 1;
        if packet.error().is_none() {
            connections.up();
        }
    });
    for round in 0..ROUNDS {
        let listener = port.listen("127.0.0.1:0", 1).unwrap();
        let address = listener.local_addr().unwrap();
        (0..ACCEPTS).for_each(|number| drop(listener.accept(round * ACCEPTS + number).unwrap()));
        let mut clients: Vec<Peer> = thread::scope(|scope| {
            let clients = scope.spawn(|| (0..ACCEPTS).filter_map(|_| b.connect(address).ok()).collect());
            thread::sleep(std::time::Duration::from_micros(30 * round));
            listener.close();
            clients.join().unwrap()
        });
        // The handler drops what it got, and the listener's end resets what was waiting. Linux's system at times gives
        // up a connection that comes in the moment of the listener's end without telling its client, so what is open is
        // asked.
        let real = matches!(clients.first(), Some(Peer::Std(_)));
        if real && crate::system::has_connections(address.port()).is_some() {
            let closed = || crate::system::has_connections(address.port()) == Some(false);
            eventually("no connection stays open that nobody got", closed);
            continue;
        }
        for client in &mut clients {
            let read = client.read(&mut [0; 1]);
            assert!(read.map_or_else(|error| error.raw_os_error() == Some(ECONNRESET), |bytes| bytes == 0));
        }
    }
    eventually("each accept has its packet", || counts.lock().unwrap().iter().all(|&packets| packets > 0));
    thread::sleep(WHILE);
    assert!(counts.lock().unwrap().iter().all(|&packets| packets == 1));
    b.note(format!("{} of {} accepts got a connection", got.now(), ROUNDS * ACCEPTS));
    drop(crew);
}

fn cancel(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    let ids: Vec<_> = (0..3).map(|number| pending(listener.accept(number).unwrap())).collect();
    assert_eq!(listener.cancel(ids[1]), wharf::Cancel::Requested);
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet).0), (1, 995));
    for number in [0, 2] {
        let _client = b.connect(listener.local_addr().unwrap()).unwrap();
        let (context, result) = accepted(&port);
        assert_eq!(context, number);
        result.unwrap();
    }
    // In a burst of clients, with three workers: each accept ends once, with a connection or as cancelled, and each
    // connection goes to one of them.
    let accepts = crate::hostile::at_once(120);
    let port = b.limited(3);
    let listener = port.listen("127.0.0.1:0", 2).unwrap();
    let address = listener.local_addr().unwrap();
    let ends: Arc<Mutex<Vec<(u64, bool)>>> = Arc::default();
    let seen = ends.clone();
    let crew = Crew::start(&port, 3, move |_, packet| {
        let win32 = codes(&packet).0;
        assert!(matches!(win32, 0 | 995), "{packet:?}");
        seen.lock().unwrap().push((packet.context, win32 == 0));
    });
    let ids: Vec<_> = (0..accepts).map(|number| pending(listener.accept(number).unwrap())).collect();
    let clients = thread::scope(|scope| {
        let clients = scope.spawn(|| (0..accepts / 2).map(|_| b.connect(address).unwrap()).collect::<Vec<_>>());
        ids.iter().rev().step_by(2).for_each(|&id| _ = listener.cancel(id));
        clients.join().unwrap()
    });
    eventually("each client was accepted", || {
        ends.lock().unwrap().iter().filter(|(_, connected)| *connected).count() == clients.len()
    });
    listener.cancel_all();
    eventually("each accept has ended", || ends.lock().unwrap().len() == accepts as usize);
    let mut contexts: Vec<u64> = ends.lock().unwrap().iter().map(|(context, _)| *context).collect();
    contexts.sort_unstable();
    assert!(contexts.into_iter().eq(0..accepts), "each once");
    drop(crew);
}

fn complete(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    listener.accept(1).unwrap();
    let mut client = b.connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = accepted(&port).1.unwrap();
    assert_eq!(socket.peer_addr().unwrap(), client.local_addr().unwrap());
    assert_eq!(socket.local_addr().unwrap(), client.peer_addr().unwrap());
    socket.set_nodelay(true).unwrap();
    assert!(socket.nodelay().unwrap());
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
}

fn backlog(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    let mut client = b.connect(listener.local_addr().unwrap()).unwrap();
    client.write_all(b"early").unwrap();
    quiet(&port);
    listener.accept(1).unwrap();
    let (socket, _) = accepted(&port).1.unwrap();
    thread::sleep(WHILE);
    let stream = port.associate(socket, 2).unwrap();
    stream.recv(vec![0; 16], 2).unwrap();
    assert_eq!(received(&port).1.unwrap(), b"early");
}

fn options(b: &Bench) {
    use rustix::net::sockopt::{self, set_socket_recv_buffer_size, socket_recv_buffer_size};
    let port = b.port();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    set_socket_recv_buffer_size(&listener, 30_000).unwrap();
    let size = socket_recv_buffer_size(&listener).unwrap();
    sockopt::set_socket_keepalive(&listener, true).unwrap();
    sockopt::set_tcp_nodelay(&listener, true).unwrap();
    sockopt::set_ip_ttl(&listener, 77).unwrap();
    let listener = port.associate(listener, 1).unwrap();
    listener.accept(1).unwrap();
    let _client = b.connect(listener.local_addr().unwrap()).unwrap();
    let (socket, _) = accepted(&port).1.unwrap();
    assert_eq!(socket_recv_buffer_size(&socket).unwrap(), size);
    assert!(sockopt::socket_keepalive(&socket).unwrap() && sockopt::tcp_nodelay(&socket).unwrap());
    assert_eq!(sockopt::ip_ttl(&socket).unwrap(), 77);
}

/// the accept brings it, its first receive says that it was reset, and the listener goes on.
fn reset_before(b: &Bench) {
    let port = b.port();
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    reset(b.connect(listener.local_addr().unwrap()).unwrap());
    thread::sleep(WHILE);
    listener.accept(1).unwrap();
    let (context, result) = accepted(&port);
    let (socket, _) = result.expect("it is accepted");
    assert_eq!(context, 1);
    let stream = port.associate(socket, 2).unwrap();
    if stream.recv(vec![0; 4], 2).is_ok() {
        assert_eq!(errno(&received(&port).1), ECONNRESET);
    }
    listener.accept(3).unwrap();
    let client = b.connect(listener.local_addr().unwrap()).unwrap();
    assert_eq!(accepted(&port).1.unwrap().1, client.local_addr().unwrap());
}
