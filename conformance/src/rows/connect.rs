//! Connecting (N) and disconnecting (X).

use super::receive::unconnected;
use super::send::reading;
use crate::kit::*;
use crate::row::{How::*, Row, differs, must, not_offered, only_c, should};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;
use wharf::error::ErrorExt;
use wharf::raw::{Issued, Sink};
use wharf::{Event, Outcome};

pub const ROWS: &[Row] = &[
    must("N-01", "A socket is bound before it connects.", differs("connecting binds it", binds_itself)),
    must("N-02", "Without OVERLAPPED the call is refused.", only_c("an OVERLAPPED pointer that may be null")),
    must(
        "N-03",
        "A stream that is connected refuses to connect (10056), and so does one whose connect is outstanding (10022).",
        Test(twice),
    ),
    must("N-04", "A connect that succeeds says so once, with 0 bytes when nothing was to be sent.", Test(success)),
    must("N-05", "A refused connect pends, then fails: 1225 port-side, 10061 in Winsock.", Test(refused)),
    must(
        "N-06",
        "A connect fails when nobody answers (121, 10060) or no way leads there (1231, 10051).",
        Test(unreachable),
    ),
    should("N-07", "After a failure the same stream may connect again.", Test(again)),
    must(
        "N-08",
        "An option makes the connected socket complete.",
        only_c("SO_UPDATE_CONNECT_CONTEXT: it is complete at once"),
    ),
    should("N-09", "The unspecified address is refused with 10049.", Test(unspecified)),
    should(
        "N-10",
        "How long a connection is there can be asked for.",
        only_c("SO_CONNECT_TIME; a session's `stats` tell it"),
    ),
    must(
        "N-11",
        "Cancelling or closing while connecting gives one packet with 995, and no connection.",
        Test(broken_off),
    ),
    must(
        "X-01",
        "A disconnect gives one packet without bytes, under the skip flag also when it had to wait.",
        Test(disconnect),
    ),
    must("X-02", "A plain shutdown queues nothing, and may be called again.", Test(plain)),
    must("X-03", "A disconnect of what is not connected is refused with 10057.", Test(not_connected)),
    should("X-04", "Unknown flags are refused.", only_c("flags of DisconnectEx")),
    must(
        "X-05",
        "After a disconnect the peer sees the end; own sends are refused, receiving goes on, the peer's address is known, a connect is refused.",
        Test(half),
    ),
    must(
        "X-06",
        "A disconnected socket can be used for another connection.",
        not_offered("not offered: sockets are cheap here"),
    ),
    should("X-07", "Reuse may have to wait for the old connection.", not_offered("not offered, as X-06")),
    must(
        "X-08",
        "Port and key survive the reuse of a socket.",
        not_offered("not offered, as X-06; they survive failed connects (P-22)"),
    ),
    must("X-09", "A reused socket never delivers data of its old connection.", not_offered("not offered, as X-06")),
    must("X-10", "A disconnect waits for the sends before it, and loses none of their bytes.", Test(waits)),
];

fn twice(b: &Bench) {
    let port = b.port();
    let listener = b.listener();
    let address = listener.local_addr();
    let stream = port.connect(address, 1, 1).unwrap();
    assert!(next(&port).error().is_none());
    let refused = stream.connect(address, 2).expect_err("it is connected");
    assert_eq!((refused.context, refused.error.winsock()), (2, 10056));
    let deaf = b.deaf();
    let stream = port.connect(deaf.address, 2, 3).unwrap();
    let refused = stream.connect(address, 4).expect_err("it is connecting");
    assert_eq!((refused.context, refused.error.winsock()), (4, 10022));
    assert!(port.get_timeout(WHILE).is_err(), "neither has queued anything");
    stream.close();
    assert_eq!(next(&port).context, 3);
}

fn success(b: &Bench) {
    let port = b.raw();
    let listener = b.listener();
    let address = listener.local_addr();
    let device = port.open_stream(&address, 5).unwrap();
    assert!(matches!(port.connect(&device, &address, 6, Sink::Port), Ok(Issued::Pending(_))));
    let packet = raw_next(&port);
    assert_eq!((packet.key, packet.token, packet.bytes, packet.error), (5, 6, 0, 0));
    raw_quiet(&port);
    let mut peer = listener.accept();
    raw_send(&port, &device, Memory::new(b"works").one(), 7).unwrap();
    peer.read_exact(&mut [0; 5]).unwrap();
    port.close_device(&device);
}

fn refused(b: &Bench) {
    let port = b.port();
    let (_held, nobody) = dead_address();
    let _stream = port.connect(nobody, 1, 2).unwrap();
    let packet = next(&port);
    assert_eq!((packet.key, packet.context, codes(&packet)), (1, 2, (1225, 10061)));
    quiet(&port);
}

#[cfg(windows)]
fn unreachable(_: &Bench) {
    not_tried("an attempt to connect cannot be shortened")
}

#[cfg(unix)]
fn unreachable(b: &Bench) {
    use wharf::error::{Class, nt_status_of_number, win32, winsock};
    // No connection leads to a group.
    let port = b.port();
    let _stream = port.connect(SocketAddr::from(([224, 0, 0, 1], 9)), 1, 2).unwrap();
    let packet = next(&port);
    assert_eq!(codes(&packet), (1231, 10051));
    // Nobody answers. Asked once more instead of six times, the system gives up after three seconds.
    let deaf = b.deaf();
    let port = b.raw();
    let device = port.open_stream(&deaf.address, 1).unwrap();
    crate::system::give_up_soon(device.handle());
    port.connect(&device, &deaf.address, 3, Sink::Port).unwrap();
    let packet = raw_next(&port);
    let status = nt_status_of_number(packet.error, Class::Connect);
    assert_eq!((packet.token, win32(status), winsock(status)), (3, 121, 10060));
    port.close_device(&device);
}

fn again(b: &Bench) {
    let port = b.port();
    let stream = unconnected(&port);
    let (_held, nobody) = dead_address();
    stream.connect(nobody, 1).unwrap();
    assert_eq!(codes(&next(&port)).0, 1225);
    let listener = b.listener();
    stream.connect(listener.local_addr(), 2).unwrap();
    assert!(next(&port).error().is_none());
    let mut peer = listener.accept();
    stream.send("works", 3).unwrap();
    peer.read_exact(&mut [0; 5]).unwrap();
    // A hundred times, by the handlers of threads that are busy with it: the port and the key stay.
    const STREAMS: u64 = 5;
    let port = b.limited(3);
    let (connected, wrong) = (Count::default(), Count::default());
    let (up, other) = (connected.clone(), wrong.clone());
    let address = listener.local_addr();
    let _crew = Crew::start(&port, 3, move |_, packet| {
        let (key, left) = (packet.key, packet.context);
        let failed = codes(&packet);
        let Event::Connected { stream, result } = packet.event else { return };
        match result {
            Ok(()) => _ = up.up(),
            Err(_) if failed == (1225, 10061) && key == 40 => {
                let to = if left == 0 { address } else { nobody };
                stream.connect(to, left.saturating_sub(1)).unwrap();
            }
            Err(_) => _ = other.up(),
        }
    });
    let _streams: Vec<_> = (0..STREAMS).map(|_| port.connect(nobody, 40, 20).unwrap()).collect();
    eventually("each is connected in the end", || connected.now() + wrong.now() == STREAMS as usize);
    assert_eq!(wrong.now(), 0);
}

fn unspecified(b: &Bench) {
    let port = b.port();
    let refused = port.connect(SocketAddr::from(([0, 0, 0, 0], 80)), 1, 2).expect_err("that is no address");
    assert_eq!((refused.context, refused.error.winsock()), (2, 10049));
    quiet(&port);
}

fn broken_off(b: &Bench) {
    for close in [false, true] {
        let deaf = b.deaf();
        let port = b.port();
        let stream = port.connect(deaf.address, 1, 2).unwrap();
        assert!(port.get_timeout(WHILE).is_err(), "nobody answers");
        if close {
            stream.close();
        } else {
            assert_eq!(stream.cancel_all(), 1);
        }
        let packet = next(&port);
        assert_eq!((packet.context, codes(&packet)), (2, (995, 995)));
        quiet(&port);
        // Those before it are taken out, so that it could come now.
        while deaf.listener.try_accept().is_some() {}
        std::thread::sleep(Duration::from_millis(1200));
        assert!(deaf.listener.try_accept().is_none(), "no connection is made");
    }
}

fn disconnect(b: &Bench) {
    let port = b.port();
    let (one, mut peer) = b.stream(&port, 1);
    assert!(matches!(one.disconnect(5).unwrap(), Outcome::Pending(_)));
    let packet = next(&port);
    assert_eq!((packet.key, packet.context), (1, 5));
    assert!(matches!(packet.event, Event::Disconnected { result: Ok(()), .. }));
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    quiet(&port);
    let (two, peer) = b.narrow(&port, 2);
    two.skip_on_success();
    two.send(vec![7; MUCH], 6).unwrap();
    assert!(matches!(two.disconnect(7).unwrap(), Outcome::Pending(_)), "it waits for the send");
    let reader = reading(peer);
    assert_eq!([next(&port).context, next(&port).context], [6, 7]);
    assert_eq!(reader.join().unwrap().len(), MUCH);
    quiet(&port);
}

fn plain(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0);
    stream.shutdown(Shutdown::Write).unwrap();
    stream.shutdown(Shutdown::Both).unwrap();
    quiet(&port);
}

fn not_connected(b: &Bench) {
    let port = b.port();
    let refused = unconnected(&port).disconnect(3).expect_err("it is not connected");
    assert_eq!((refused.context, refused.error.winsock()), (3, 10057));
    quiet(&port);
}

fn half(b: &Bench) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.disconnect(1).unwrap();
    assert_eq!(next(&port).context, 1);
    assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "the peer sees the end");
    assert_eq!(stream.send("x", 2).expect_err("it is disconnected").error.winsock(), 10058);
    assert_eq!(stream.peer_addr().unwrap(), peer.local_addr().unwrap());
    let address = peer.local_addr().unwrap();
    assert_eq!(stream.connect(address, 3).expect_err("it is connected").error.winsock(), 10056);
    stream.recv(vec![0; 16], 4).unwrap();
    peer.write_all(b"goes on").unwrap();
    assert_eq!(received(&port).1.unwrap(), b"goes on");
    quiet(&port);
    // One that is cancelled while it waits for a send has disconnected nothing.
    let (stream, peer) = b.narrow(&port, 2);
    stream.send(vec![7; MUCH], 5).unwrap();
    let Outcome::Pending(id) = stream.disconnect(6).unwrap() else { panic!("it waits for the send") };
    assert_eq!(stream.cancel(id), wharf::Cancel::Requested);
    let packet = next(&port);
    assert_eq!((packet.context, codes(&packet).0), (6, 995));
    stream.send("goes on", 7).expect("nothing was shut");
    stream.disconnect(8).expect("nothing was shut");
    let reader = reading(peer);
    assert_eq!([5, 7, 8].map(|_| next(&port).context), [5, 7, 8]);
    assert_eq!(reader.join().unwrap().len(), MUCH + 7);
}

fn waits(b: &Bench) {
    let port = b.port();
    let (stream, peer) = b.narrow(&port, 1);
    let content = pattern(MUCH, 5);
    stream.send(content.clone(), 1).unwrap();
    stream.send("last", 2).unwrap();
    stream.disconnect(3).unwrap();
    assert!(port.get_timeout(WHILE).is_err(), "the sends are not out");
    let reader = reading(peer);
    assert_eq!([1, 2, 3].map(|_| next(&port).context), [1, 2, 3]);
    let all = reader.join().unwrap();
    assert!(all[..MUCH] == content && &all[MUCH..] == b"last");
}

/// N-01: connecting binds it.
fn binds_itself(b: &Bench) {
    let port = b.port();
    let listener = b.listener();
    let stream = port.connect(listener.local_addr(), 1, 1).unwrap();
    assert!(next(&port).error().is_none(), "nobody has bound it");
    let own = stream.local_addr().unwrap();
    assert_eq!(own, listener.accept().peer_addr().unwrap());
}
