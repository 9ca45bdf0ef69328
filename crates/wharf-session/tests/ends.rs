//! How sessions end: what was accepted for sending arrives before the end, within the time that the end may take, or
//! the peer hears a reset and the owner is told what is lost. And who is still reading is neither idle, nor slow, nor
//! at an end.
//!
//! Peers here are plain or speak TLS; they read at once or slowly, they type while they read, or they have ended their
//! own side before they read. Their receive buffers are small, so that what they have not read is not theirs yet.

mod common;

use common::theatre::{Gate, Theatre, fall, next, quiet_panics, service};
use common::{DEADLINE, eventually};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle, sleep};
use std::time::{Duration, Instant};
use wharf::{Buffer, Workers};
use wharf_session::rustls::{self, ClientConfig, ClientConnection, StreamOwned};
use wharf_session::{
    ClientTls, Closed, Framed, FramedLink, FramedSession, GaveUp, Group, Lines, Link, Rate, Reconnect, ServerTls,
    Service, ServiceOptions, Session, SlowConsumer, TlsErrorKind,
};

const MS: Duration = Duration::from_millis(1);
const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// --- Peers ---

/// How the stream ended for a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// The end of the stream; over TLS the end of TLS.
    Clean,
    Reset,
    /// Over TLS, the end of the stream without that of TLS.
    Truncated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Reads,
    Slow,
    /// Sends a byte now and then, while it reads slowly.
    Types,
    /// Has ended its side, and reads slowly.
    HalfCloses,
}

const MANNERS: [Manner; 4] = [Manner::Reads, Manner::Slow, Manner::Types, Manner::HalfCloses];

struct Certificates {
    server: ServerTls,
    client: ClientTls,
    config: Arc<ClientConfig>,
}

fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let own = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let pem = own.cert.pem();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(own.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        Certificates {
            server: ServerTls::from_pem(pem.as_bytes(), own.signing_key.serialize_pem().as_bytes()).unwrap(),
            client: ClientTls::from_ca_pem(pem.as_bytes()).unwrap(),
            config: Arc::new(builder.with_root_certificates(roots).with_no_client_auth()),
        }
    })
}

enum Peer {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Peer {
    fn plain(address: SocketAddr) -> Peer {
        let socket = TcpStream::connect(address).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 16 * KIB).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Peer::Plain(socket)
    }

    fn tls(address: SocketAddr) -> Peer {
        let Peer::Plain(socket) = Peer::plain(address) else { unreachable!() };
        let name = "localhost".try_into().unwrap();
        let connection = ClientConnection::new(certificates().config.clone(), name).unwrap();
        let mut stream = StreamOwned::new(connection, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).unwrap();
        }
        Peer::Tls(Box::new(stream))
    }

    fn of(tls: bool, address: SocketAddr) -> Peer {
        if tls { Peer::tls(address) } else { Peer::plain(address) }
    }

    fn read_some(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Peer::Plain(socket) => socket.read(into),
            Peer::Tls(stream) => stream.read(into),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Peer::Plain(socket) => socket.write_all(bytes),
            Peer::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    fn end_side(&mut self) {
        match self {
            Peer::Plain(socket) => socket.shutdown(Shutdown::Write).unwrap(),
            Peer::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.conn.complete_io(&mut stream.sock).unwrap();
                stream.sock.shutdown(Shutdown::Write).unwrap();
            }
        }
    }

    /// Reads to the end, at so many bytes a second; returns how many came and how it ended.
    fn read_to_end(&mut self, rate: Option<usize>, types: bool) -> (usize, End) {
        let begun = Instant::now();
        let mut bytes = 0;
        let mut into = vec![0; rate.map_or(64 * KIB, |rate| rate / 50)];
        let mut typed = Instant::now();
        loop {
            if types && typed.elapsed() > 20 * MS {
                typed = Instant::now();
                // Nobody may be there any more.
                let _ = self.write(b"x");
            }
            match self.read_some(&mut into) {
                Ok(0) => return (bytes, End::Clean),
                Ok(count) => bytes += count,
                Err(error) => {
                    let end = match error.kind() {
                        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => End::Reset,
                        ErrorKind::UnexpectedEof => End::Truncated,
                        _ => panic!("{error}"),
                    };
                    return (bytes, end);
                }
            }
            if let Some(rate) = rate {
                let due = Duration::from_secs_f64(bytes as f64 / rate as f64);
                sleep(due.saturating_sub(begun.elapsed()));
            }
        }
    }
}

/// A peer that asks, by a byte, and reads to the end in its own manner.
fn peer(tls: bool, manner: Manner, address: SocketAddr, rate: usize) -> JoinHandle<(usize, End)> {
    thread::spawn(move || {
        let mut peer = Peer::of(tls, address);
        peer.write(b"?").unwrap();
        if manner == Manner::HalfCloses {
            peer.end_side();
        }
        peer.read_to_end((manner != Manner::Reads).then_some(rate), manner == Manner::Types)
    })
}

/// Listens, plain or with TLS, with sessions that are made by `make`.
fn listen<S: Session>(
    service: &Service,
    tls: bool,
    make: impl Fn(SocketAddr) -> S + Send + Sync + 'static,
) -> SocketAddr {
    if tls {
        service.listen_tls("127.0.0.1:0", certificates().server.clone(), make).unwrap()
    } else {
        service.listen("127.0.0.1:0", make).unwrap()
    }
}

/// With room for large messages, and a limit for ends that no test reaches.
fn roomy() -> ServiceOptions {
    Service::options().outbox(64 * MIB, SlowConsumer::Disconnect).linger(2 * DEADLINE)
}

// --- What was accepted arrives before the end ---

#[test]
fn all_that_was_accepted_arrives_before_the_end_at_every_kind_of_peer() {
    // All of it goes into the system's buffer at once; the peers need about a second and a half for it.
    const BYTES: usize = 480 * KIB;
    const RATE: usize = 320 * KIB;
    for tls in [false, true] {
        for how in ["close", "shutdown", "drain", "finish"] {
            let theatre = Theatre::new();
            let service = service(roomy());
            let (casting, sent) = (theatre.casting(), Arc::new(AtomicUsize::new(0)));
            let said = sent.clone();
            let address = listen(&service, tls, move |_| {
                let said = said.clone();
                let mut first = true;
                casting.actor().received(move |link, _| {
                    if !std::mem::replace(&mut first, false) {
                        return;
                    }
                    link.send(vec![7; BYTES]).unwrap();
                    match how {
                        "close" => link.close(),
                        "finish" => link.finish(),
                        _ => {}
                    }
                    said.fetch_add(1, Ordering::SeqCst);
                })
            });
            let peers: Vec<_> = MANNERS.map(|manner| (manner, peer(tls, manner, address, RATE))).into();
            eventually("all were answered", || sent.load(Ordering::SeqCst) == MANNERS.len());
            let report = match how {
                "shutdown" => Some(service.shutdown(DEADLINE)),
                "drain" => {
                    // Nobody ends by itself; but nobody is cut either.
                    service.drain(100 * MS);
                    Some(service.shutdown(DEADLINE))
                }
                _ => {
                    for (manner, peer) in peers {
                        assert_eq!(peer.join().unwrap(), (BYTES, End::Clean), "{how}, tls {tls}, {manner:?}");
                    }
                    eventually("all are over", || service.stats().sessions == 0);
                    assert_eq!((service.stats().cut, service.stats().lost_bytes), (0, 0));
                    continue;
                }
            };
            for (manner, peer) in peers {
                assert_eq!(peer.join().unwrap(), (BYTES, End::Clean), "{how}, tls {tls}, {manner:?}");
            }
            let report = report.unwrap();
            assert_eq!(report.aborted, 0, "{how}, tls {tls}: {report:?}");
            assert_eq!(report.lost_bytes, 0, "{how}, tls {tls}: {report:?}");
            assert_eq!(report.accepted_bytes, report.delivered_bytes);
        }
    }
}

#[test]
fn a_shutdown_has_its_deadline_and_not_the_time_of_a_close() {
    const BYTES: usize = 8 * MIB;
    for before in ["nothing", "close", "half-close"] {
        let theatre = Theatre::new();
        let service = service(roomy().linger(if before == "close" { 1000 * MS } else { 200 * MS }));
        let (casting, (tell, links)) = (theatre.casting(), channel());
        let address = listen(&service, false, move |_| {
            let tell = tell.clone();
            casting.actor().received(move |link, _| {
                link.send(vec![7; BYTES]).unwrap();
                tell.send(link.clone()).unwrap();
            })
        });
        let manner = if before == "half-close" { Manner::HalfCloses } else { Manner::Slow };
        let peer = peer(false, manner, address, 4 * MIB);
        let link = next(&links);
        if before == "close" {
            link.close();
        }
        let report = service.shutdown(DEADLINE);
        assert_eq!(peer.join().unwrap(), (BYTES, End::Clean), "{before}: {report:?}");
        assert_eq!((report.graceful, report.aborted), (1, 0), "{before}: {report:?}");
        assert_eq!((report.accepted_bytes, report.delivered_bytes), (BYTES as u64, BYTES as u64));
    }
}

#[test]
fn who_has_ended_its_side_has_as_long_as_it_goes_on_reading() {
    const BYTES: usize = 6 * MIB;
    for tls in [false, true] {
        let theatre = Theatre::new();
        // Less than a fifth of what the peer needs.
        let service = service(roomy().linger(400 * MS));
        let casting = theatre.casting();
        let address =
            listen(&service, tls, move |_| casting.actor().received(|link, _| link.send(vec![7; BYTES]).unwrap()));
        let came = peer(tls, Manner::HalfCloses, address, 3 * MIB).join().unwrap();
        assert_eq!(came, (BYTES, End::Clean), "tls {tls}");
        assert_eq!((service.stats().cut, service.stats().lost_bytes), (0, 0));
    }
}

// --- What does not arrive is lost, and told ---

/// A session that sends more than fits anywhere, and tells how it ended and what was lost then.
fn large<'a>(
    theatre: &Theatre,
    bytes: usize,
    links: &std::sync::mpsc::Sender<Link>,
    ends: &std::sync::mpsc::Sender<(String, u64)>,
) -> impl Fn(SocketAddr) -> common::theatre::Actor + Send + Sync + 'static + use<'a> {
    let (casting, links, ends) = (theatre.casting(), links.clone(), ends.clone());
    move |_| {
        let (links, ends) = (links.clone(), ends.clone());
        let actor = casting.actor().received(move |link, data| {
            if &data[..] == b"!" {
                fall();
            }
            link.send(vec![7; bytes]).unwrap();
            links.send(link.clone()).unwrap();
        });
        actor.closed(move |link, reason| drop(ends.send((format!("{reason:?}"), link.stats().lost_bytes))))
    }
}

#[test]
fn a_cut_in_the_middle_of_a_message_is_a_reset_and_is_told() {
    const BYTES: usize = 16 * MIB;
    quiet_panics();
    for tls in [false, true] {
        for how in ["abort", "slow consumer", "memory", "close", "shutdown", "drop", "half-close", "panic"] {
            let theatre = Theatre::new();
            let mut builder = roomy().linger(200 * MS);
            if how == "slow consumer" {
                builder = builder.outbox(BYTES + 10, SlowConsumer::Disconnect);
            }
            if how == "memory" {
                builder = builder.memory_limit(BYTES + 10);
            }
            let service = service(builder);
            let ((tell, links), (say, ends)) = (channel(), channel());
            let address = listen(&service, tls, large(&theatre, BYTES, &tell, &say));
            let mut peer = Peer::of(tls, address);
            peer.write(b"?").unwrap();
            if how == "half-close" {
                peer.end_side();
            }
            let link = next(&links);
            // The system has taken what it can, and the peer's has acknowledged what it got, which may take it 200 ms:
            // what it has and has not acknowledged would be told as lost.
            let mut before = 0;
            eventually("nothing more is taken", || {
                sleep(250 * MS);
                std::mem::replace(&mut before, link.stats().bytes_sent) == link.stats().bytes_sent && before > 0
            });
            let mut report = None;
            let mut kept = Some(service);
            match how {
                "abort" => link.abort(),
                // There is room for what the system has taken, and not for as much again.
                "slow consumer" => _ = link.send(vec![7; BYTES]).unwrap_err(),
                "memory" => _ = link.send(vec![7; 100]).unwrap_err(),
                "close" => link.close(),
                "shutdown" => report = Some(kept.take().unwrap().shutdown(100 * MS)),
                "drop" => drop(kept.take()),
                "panic" => peer.write(b"!").unwrap(),
                _ => {}
            }
            if how != "panic" {
                let (reason, lost) = next(&ends);
                // It is told when it happens, after `closed` if the peer has ended its side.
                let later = how == "half-close";
                assert!(later || lost == link.stats().lost_bytes, "{how}, tls {tls}: {reason}, {lost}");
            }
            eventually("it is told", || link.stats().lost_bytes > 0);
            eventually("it was told", || kept.as_ref().is_none_or(|service| service.stats().lost_bytes > 0));
            let (bytes, end) = peer.read_to_end(None, false);
            assert_eq!(end, End::Reset, "{how}, tls {tls}: after {bytes} bytes");
            let stats = link.stats();
            assert_eq!(stats.accepted_bytes, BYTES as u64, "{how}, tls {tls}: {stats:?}");
            let delivered = stats.accepted_bytes - stats.lost_bytes;
            // Over TLS what was lost is counted with its records, and a record that did not come whole is no data.
            let (more, less) = if tls { (64 * KIB as u64, 64 * KIB as u64) } else { (0, 0) };
            assert!(bytes as u64 <= delivered + more, "{how}, tls {tls}: {bytes} came, {stats:?}");
            assert!(bytes as u64 + less >= delivered, "{how}, tls {tls}: {bytes} came, {stats:?}");
            if let Some(report) = report {
                assert_eq!((report.graceful, report.aborted), (0, 1), "{report:?}");
                assert_eq!(report.accepted_bytes, BYTES as u64);
                assert_eq!((report.delivered_bytes, report.lost_bytes), (delivered, stats.lost_bytes));
            }
            if let Some(service) = kept {
                assert_eq!((service.stats().cut, service.stats().lost_bytes), (1, stats.lost_bytes), "{how}");
            }
        }
    }
}

/// A Unix socket has no resets, and what the system has taken is the peer's, also after this end is closed.
#[cfg(unix)]
#[test]
fn a_peer_on_this_machine_gets_what_was_accepted_and_hears_an_end_in_any_case() {
    use std::os::unix::net::UnixStream;
    const BYTES: usize = 4 * MIB;
    for how in ["close", "shutdown", "abort"] {
        let theatre = Theatre::new();
        let service = service(roomy());
        let (casting, (tell, sent)) = (theatre.casting(), channel());
        let (one, mut other) = UnixStream::pair().unwrap();
        let actor = casting.actor().received(move |link, _| {
            link.send(vec![7; BYTES]).unwrap();
            tell.send(()).unwrap();
        });
        let link = service.adopt_local(one, actor).unwrap();
        other.write_all(b"?").unwrap();
        next(&sent);
        let reader = thread::spawn(move || {
            let (mut bytes, mut into) = (0, vec![0; 64 * KIB]);
            loop {
                sleep(5 * MS);
                match other.read(&mut into).unwrap() {
                    0 => return bytes as u64,
                    count => bytes += count,
                }
            }
        });
        match how {
            "abort" => link.abort(),
            "close" => link.close(),
            _ => assert_eq!(service.shutdown(DEADLINE).delivered_bytes, BYTES as u64),
        }
        let came = reader.join().unwrap();
        let stats = link.stats();
        assert_eq!(came, stats.accepted_bytes - stats.lost_bytes, "{how}: {stats:?}");
        assert_eq!(stats.lost_bytes > 0, how == "abort", "{how}: {stats:?}");
    }
}

#[test]
fn a_shutdown_waits_for_sessions_that_linger_whoever_looks_at_them() {
    const SESSIONS: usize = 200;
    const DEADLINES: Duration = Duration::from_millis(700);
    let big: Arc<[u8]> = vec![7; 8 * MIB].into();
    for _ in 0..3 {
        let theatre = Theatre::new();
        let service = service(roomy());
        let (casting, big) = (theatre.casting(), big.clone());
        let address = listen(&service, false, move |_| {
            let big = big.clone();
            casting.actor().received(move |link, _| _ = link.send(Buffer::from(big.clone())))
        });
        let peers: Vec<Peer> = (0..SESSIONS)
            .map(|_| {
                let mut peer = Peer::plain(address);
                peer.write(b"?").unwrap();
                peer.end_side();
                peer
            })
            .collect();
        eventually("all are over", || service.stats().accepted == SESSIONS as u64 && service.stats().sessions == 0);
        let begun = Instant::now();
        let report = service.shutdown(DEADLINES);
        assert!(begun.elapsed() >= DEADLINES, "it came back after {:?}: {report:?}", begun.elapsed());
        assert_eq!((report.graceful, report.aborted), (0, SESSIONS), "{report:?}");
        assert_eq!(report.accepted_bytes, report.delivered_bytes + report.lost_bytes);
        assert_eq!(report.accepted_bytes, (SESSIONS * 8 * MIB) as u64);
        assert!(report.lost_bytes > 0);
        drop(peers);
    }
}

// --- Stopping to listen ---

#[test]
fn connections_that_were_made_before_listening_stops_are_served() {
    const CLIENTS: usize = 60;
    for round in 0..8 {
        let theatre = Theatre::new();
        let service = service(Service::options());
        let casting = theatre.casting();
        let address = listen(&service, false, move |_| casting.echo());
        let clients: Vec<TcpStream> = (0..CLIENTS).map(|_| TcpStream::connect(address).unwrap()).collect();
        let drains = round % 2 == 1;
        let service = Arc::new(service);
        let draining = service.clone();
        let draining = thread::spawn(move || {
            if drains {
                draining.drain(DEADLINE)
            } else {
                draining.stop_listening();
                0
            }
        });
        for (number, mut socket) in clients.into_iter().enumerate() {
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.write_all(b"ping").unwrap();
            let mut echo = [0; 4];
            let read = socket.read_exact(&mut echo);
            assert!(read.is_ok() && &echo == b"ping", "round {round}, client {number}: {read:?}");
        }
        assert_eq!(draining.join().unwrap(), 0);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }
}

#[test]
fn a_listener_that_is_handed_over_loses_no_connection() {
    let theatre = Theatre::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serve = |casting: common::theatre::Casting| {
        let service = service(Service::options());
        service.adopt_listener(listener.try_clone().unwrap(), move |_| casting.echo()).unwrap();
        service
    };
    let over = Arc::new(AtomicBool::new(false));
    let clients: Vec<_> = (0..3)
        .map(|_| {
            let over = over.clone();
            thread::spawn(move || {
                let mut served = 0;
                while !over.load(Ordering::SeqCst) {
                    let mut socket = TcpStream::connect(address).unwrap();
                    socket.set_read_timeout(Some(DEADLINE)).unwrap();
                    socket.write_all(b"ping").unwrap();
                    socket.read_exact(&mut [0; 4]).unwrap();
                    served += 1;
                }
                served
            })
        })
        .collect();
    let mut service = serve(theatre.casting());
    for _ in 0..10 {
        let next = serve(theatre.casting());
        assert_eq!(service.drain(DEADLINE), 0);
        service.shutdown(DEADLINE);
        service = next;
    }
    over.store(true, Ordering::SeqCst);
    assert!(clients.into_iter().map(|client| client.join().unwrap()).sum::<usize>() > 10);
}

// --- Who takes something is not idle ---

#[test]
fn a_peer_that_reads_all_the_time_is_not_idle() {
    // Some of it waits, or all of it fits into the system's buffer: the peer needs ten times the time-out for it.
    for (tls, bytes, rate) in [(false, 16 * MIB, 3 * MIB), (true, 16 * MIB, 3 * MIB), (false, 2 * MIB, 400 * KIB)] {
        let theatre = Theatre::new();
        let service = service(roomy().idle_timeout(500 * MS));
        let ((tell, links), (say, ends)) = (channel(), channel());
        let address = listen(&service, tls, large(&theatre, bytes, &tell, &say));
        let mut peer = Peer::of(tls, address);
        peer.write(b"?").unwrap();
        let link = next(&links);
        let (mut came, begun) = (0, Instant::now());
        let mut into = vec![0; rate / 50];
        while came < bytes {
            match peer.read_some(&mut into) {
                Ok(count @ 1..) => came += count,
                other => panic!("{other:?} after {came} of {bytes} bytes: {:?}", ends.try_recv()),
            }
            assert!(link.is_open(), "{came} of {bytes} bytes were read, tls {tls}");
            sleep(Duration::from_secs_f64(came as f64 / rate as f64).saturating_sub(begun.elapsed()));
        }
        // From now on it is.
        assert_eq!(next(&ends).0, "IdleTimeout");
    }
}

#[test]
fn a_member_that_reads_slowly_is_not_idle() {
    let theatre = Theatre::new();
    let service = service(
        Service::options().outbox(256 * KIB, SlowConsumer::DropOldest).idle_timeout(1000 * MS).linger(2 * DEADLINE),
    );
    let (room, casting, (say, ends)) = (Group::new(), theatre.casting(), channel());
    let joined = room.clone();
    let address = listen(&service, false, move |_| {
        let (joined, say) = (joined.clone(), say.clone());
        let actor = casting.actor().opened(move |link| joined.join(link));
        actor.closed(move |_, reason| say.send(format!("{reason:?}")).unwrap())
    });
    let mut peer = Peer::plain(address);
    eventually("it is a member", || room.len() == 1);
    // The system has taken megabytes, and takes more only when a third of them was read.
    while room.stats().dropped == 0 {
        room.broadcast(&[7; 1000]);
    }
    let (begun, mut came) = (Instant::now(), 0);
    let mut into = vec![0; 2 * KIB];
    while begun.elapsed() < 5000 * MS {
        (0..20).for_each(|_| _ = room.broadcast(&[7; 1000]));
        came += peer.read_some(&mut into).unwrap();
        sleep(Duration::from_secs_f64(came as f64 / 80_000.0).saturating_sub(begun.elapsed()));
    }
    assert!(ends.try_recv().is_err(), "it reads 80 KB/s");
    assert_eq!(room.len(), 1);
    assert!(room.members()[0].is_open());
}

#[test]
fn a_peer_that_takes_nothing_is_idle_though_it_was_sent_something() {
    let theatre = Theatre::new();
    let service = service(roomy().linger(200 * MS).idle_timeout(400 * MS));
    let ((tell, links), (say, ends)) = (channel(), channel());
    let address = listen(&service, false, large(&theatre, 16 * MIB, &tell, &say));
    let mut peer = Peer::plain(address);
    peer.write(b"?").unwrap();
    let _link = next(&links);
    let (reason, lost) = next(&ends);
    assert_eq!(reason, "IdleTimeout");
    assert!(lost > 0);
    assert_eq!(peer.read_to_end(None, false).1, End::Reset);
}

#[test]
fn what_the_system_has_taken_of_a_send_is_counted_before_it_is_complete() {
    const BYTES: usize = 32 * MIB;
    let theatre = Theatre::new();
    let service = service(roomy());
    let ((tell, links), (say, _ends)) = (channel(), channel());
    let address = listen(&service, false, large(&theatre, BYTES, &tell, &say));
    let mut peer = Peer::plain(address);
    peer.write(b"?").unwrap();
    let link = next(&links);
    let mut into = vec![0; 64 * KIB];
    let mut came = 0;
    while came < BYTES / 2 {
        came += peer.read_some(&mut into).unwrap();
        // The peer may have read it before the thread that has sent it could count.
        common::spin_until("they are counted", || link.stats().bytes_sent >= came as u64);
        let (sent, all) = (link.stats().bytes_sent, service.stats().bytes_sent);
        assert!(all >= sent);
    }
    assert!(link.stats().bytes_sent < BYTES as u64);
    drop(peer);
    eventually("it is over", || service.stats().sessions == 0);
    let all = service.stats().bytes_sent;
    assert!(all >= came as u64 && all < BYTES as u64, "{all}");
}

// --- Memory ---

#[test]
fn who_reads_a_large_message_is_not_ended_for_memory() {
    const LARGE: usize = 16 * MIB;
    let theatre = Theatre::new();
    let service =
        service(Service::options().outbox(64 * MIB, SlowConsumer::Wait).memory_limit(20 * MIB).linger(2 * DEADLINE));
    let ((tell, links), (say, _ends)) = (channel(), channel());
    let address = listen(&service, false, large(&theatre, LARGE, &tell, &say));
    let reader = peer(false, Manner::Slow, address, 4 * MIB);
    let _first = next(&links);
    let casting = theatre.casting();
    let (tell, links) = channel();
    let other = listen(&service, false, move |_| {
        let tell = tell.clone();
        casting.actor().opened(move |link| tell.send(link.clone()).unwrap())
    });
    let _deaf = Peer::plain(other);
    let link = next(&links);
    // Waits until the reader has all.
    link.send(vec![1; 8 * MIB]).unwrap();
    assert_eq!(service.stats().memory.ended, 0);
    drop(service);
    assert_eq!(reader.join().unwrap().0, LARGE);
}

// --- Rates ---

#[test]
fn frames_that_were_received_at_once_are_not_held_for_their_bytes() {
    struct Counting(Arc<AtomicUsize>, std::sync::mpsc::Sender<String>);
    impl FramedSession for Counting {
        type Codec = Lines;
        fn frame(&mut self, link: &FramedLink<Lines>, _: &[u8]) {
            link.ready();
            self.0.fetch_add(1, Ordering::SeqCst);
        }
        fn closed(&mut self, _: &FramedLink<Lines>, reason: &Closed) {
            let _ = self.1.send(format!("{reason:?}"));
        }
    }
    // What comes at once costs a minute and more at this rate.
    let service = service(Service::options().rate_limit(Rate::bytes(100, 100)).handshake_timeout(2000 * MS));
    let (count, (say, ends)) = (Arc::new(AtomicUsize::new(0)), channel());
    let frames = count.clone();
    let address = service
        .listen("127.0.0.1:0", move |_| Framed::new(Lines::new(100), Counting(frames.clone(), say.clone())))
        .unwrap();
    let mut socket = TcpStream::connect(address).unwrap();
    socket.write_all(&b"12345678\n".repeat(900)).unwrap();
    eventually("they are handled", || count.load(Ordering::SeqCst) == 900 || ends.try_recv().is_ok());
    assert_eq!(count.load(Ordering::SeqCst), 900);
    // And yet the rate is kept: the next line waits.
    socket.write_all(b"12345678\n").unwrap();
    sleep(500 * MS);
    assert_eq!(count.load(Ordering::SeqCst), 900);
}

// --- TLS ---

#[test]
fn a_handshake_with_all_the_time_there_is_can_be_done() {
    let theatre = Theatre::new();
    let service = service(Service::options().handshake_timeout(Duration::MAX).connect_timeout(Duration::MAX));
    let casting = theatre.casting();
    let address = listen(&service, true, move |_| casting.echo());
    let mut peer = Peer::tls(address);
    peer.write(b"ping").unwrap();
    let mut echo = [0; 4];
    assert_eq!(peer.read_some(&mut echo).unwrap(), 4);
    assert_eq!(service.stats().panics, 0);
}

#[test]
fn a_broken_record_after_the_own_end_is_a_failure_of_tls() {
    let theatre = Theatre::new();
    let service = service(roomy());
    let (casting, (say, ends)) = (theatre.casting(), channel());
    let address = listen(&service, true, move |_| {
        let say = say.clone();
        let actor = casting.actor().opened(Link::finish);
        actor.closed(move |_, reason| {
            let kind = if let Closed::Tls(error) = reason { Some(error.kind()) } else { None };
            say.send((format!("{reason:?}"), kind)).unwrap();
        })
    });
    let Peer::Tls(mut stream) = Peer::tls(address) else { unreachable!() };
    // The end of the other side.
    assert_eq!(stream.read(&mut [0; 1]).unwrap(), 0);
    // A record of application data that nobody has encrypted.
    stream.sock.write_all(&[23, 3, 3, 0, 32]).unwrap();
    stream.sock.write_all(&[7; 32]).unwrap();
    let (reason, kind) = next(&ends);
    assert_eq!(kind, Some(TlsErrorKind::Broken), "{reason}");
    assert_eq!(service.stats().panics, 0);
}

#[test]
fn a_close_gives_a_handshake_no_more_time_than_it_has() {
    let theatre = Theatre::new();
    let service = service(roomy().handshake_timeout(300 * MS));
    // Takes the connection, and says nothing.
    let mute = TcpListener::bind("127.0.0.1:0").unwrap();
    let (say, ends) = channel();
    let actor = theatre.casting().actor().closed(move |link, reason| {
        say.send((format!("{reason:?}"), link.stats().lost_bytes)).unwrap();
    });
    let address = mute.local_addr().unwrap();
    let link = service.connect_tls(address, "localhost", &certificates().client, actor).unwrap();
    let _taken = mute.accept().unwrap();
    link.send("x").unwrap();
    link.close();
    // The linger of this service is longer than the test.
    assert_eq!(next(&ends), ("HandshakeTimeout".into(), 1));
}

// --- Connecting ---

/// An address that answers nobody: its queue has one place, and that is taken.
fn mute() -> (rustix::fd::OwnedFd, SocketAddr, TcpStream) {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let listener = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&listener, 0).unwrap();
    let address = SocketAddr::try_from(getsockname(&listener).unwrap()).unwrap();
    let first = TcpStream::connect(address).unwrap();
    (listener, address, first)
}

#[test]
fn an_address_that_does_not_answer_has_its_time_and_then_the_next_is_tried() {
    let options: [fn(ServiceOptions) -> ServiceOptions; 2] =
        [|builder| builder.connect_timeout(100 * MS), |builder| builder.handshake_timeout(100 * MS)];
    for option in options {
        let theatre = Theatre::new();
        let service = service(option(Service::options()));
        let (_listener, silent, _first) = mute();
        let (say, ends) = channel();
        let told = say.clone();
        let actor = theatre.casting().actor().closed(move |_, reason| {
            let late = matches!(reason, Closed::Failed(error) if error.kind() == ErrorKind::TimedOut);
            told.send((late, format!("{reason}"))).unwrap();
        });
        let link = service.connect(silent, actor).unwrap();
        let (late, words) = next(&ends);
        assert!(late && words.contains(&silent.to_string()), "{words}");
        assert!(!link.is_open());
        // Of several addresses the next is tried.
        let well = TcpListener::bind("127.0.0.1:0").unwrap();
        let addresses = vec![silent, common::dead_address(), well.local_addr().unwrap()];
        let link = service.connect(addresses, theatre.casting().actor().opened(Link::ready)).unwrap();
        link.send("hello").unwrap();
        let (mut socket, _) = well.accept().unwrap();
        let mut hello = [0; 5];
        socket.read_exact(&mut hello).unwrap();
        assert_eq!(link.peer(), well.local_addr().unwrap());
        service.shutdown(Duration::ZERO);
    }
}

#[test]
fn a_client_that_connects_again_has_no_more_time_than_a_handshake() {
    let theatre = Theatre::new();
    let service = service(Service::options().handshake_timeout(100 * MS));
    let (_listener, silent, _first) = mute();
    let casting = theatre.casting();
    // Its own limit is longer than the test.
    let options = Reconnect::new().attempts(1).connect_timeout(10 * DEADLINE);
    let client = service.reconnect(silent, options, move || casting.actor()).unwrap();
    let why = client.wait();
    let GaveUp::Failed { last: Closed::Failed(error), .. } = &*why else { panic!("{why:?}") };
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[test]
fn names_are_connected_to_as_they_are_listened_on() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let casting = theatre.casting();
    let port = service.listen("localhost:0", move |_| casting.echo()).unwrap().port();
    let (say, news) = channel();
    let actor = theatre.casting().actor().received(move |_, data| say.send(data.to_vec()).unwrap());
    let link = service.connect(format!("localhost:{port}"), actor).unwrap();
    link.send("ping").unwrap();
    assert_eq!(next(&news), b"ping");
    let none = service.connect(&[][..], theatre.casting().actor()).map(drop).unwrap_err();
    assert_eq!(none.kind(), ErrorKind::InvalidInput);
}

#[test]
fn a_session_that_was_aborted_before_anybody_heard_of_it_is_not_opened() {
    let theatre = Theatre::new();
    let service = service(Service::options().workers(Workers::exactly(1)));
    let (casting, gate) = (theatre.casting(), Gate::default());
    let at_work = gate.clone();
    let address = listen(&service, false, move |_| {
        let at_work = at_work.clone();
        casting.actor().received(move |_, _| at_work.pass())
    });
    let mut peer = Peer::plain(address);
    peer.write(b"?").unwrap();
    gate.wait_for(1);
    // The only worker is in a handler.
    let (one, mut other) = common::pair();
    service.adopt(one, theatre.casting().actor()).unwrap().abort();
    gate.open();
    eventually("it is gone", || theatre.dropped() == 1);
    assert_eq!(theatre.opened(), 1, "the one at work");
    assert_eq!(other.read(&mut [0; 1]).unwrap(), 0, "nothing was sent, and nothing is missing");
}
