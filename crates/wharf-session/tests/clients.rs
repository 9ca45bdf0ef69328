//! Clients that connect again, sessions on Unix sockets, and servers that drain.

#![cfg_attr(windows, allow(unused_imports, reason = "there are no Unix sockets there"))]

mod common;

use common::theatre::{
    Casting, Theatre, client, fall, next, quiet_panics, read_exactly, read_to_end, round_trip, service,
};
use common::{DEADLINE, dead_address, eventually};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
#[cfg(unix)]
use std::os::unix::net::{UnixListener, UnixStream};
#[cfg(unix)]
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};
use wharf_session::{Closed, GaveUp, Peer, Reconnect, ReconnectState, Reconnecting, Service};

const MS: Duration = Duration::from_millis(1);

/// Tries again at once.
fn hasty() -> Reconnect {
    Reconnect::new().initial_delay(5 * MS).max_delay(20 * MS)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let socket = listener.accept().unwrap().0;
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn gave_up_after(why: &GaveUp) -> (u32, &Closed) {
    match why {
        GaveUp::Failed { attempts, last } => (*attempts, last),
        other => panic!("{other:?}"),
    }
}

// --- Connecting again ---

#[test]
fn a_client_connects_again_whenever_its_connection_ends_with_a_session_for_each() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let casting = theatre.casting();
    let made = Arc::new(AtomicUsize::new(0));
    let count = made.clone();
    let client = service
        .reconnect(listener.local_addr().unwrap(), hasty(), move || {
            let number = count.fetch_add(1, Ordering::SeqCst);
            casting.actor().opened(move |link| link.send(format!("session {number}")).unwrap())
        })
        .unwrap();
    for number in 0..4 {
        let mut socket = accept(&listener);
        assert_eq!(read_exactly(&mut socket, 9), format!("session {number}").as_bytes());
        let link = client.link().expect("it is connected");
        assert_eq!(link.peer(), listener.local_addr().unwrap());
        assert!(matches!(client.state(), ReconnectState::Connected(_)));
        if number % 2 == 0 {
            drop(socket);
        } else {
            common::reset(socket);
        }
        eventually("its session is over", || theatre.closed() > number);
    }
    let (_, connected) = client.counts();
    assert!(connected >= 4, "{connected}");
    client.close();
    assert!(matches!(*client.wait(), GaveUp::Stopped));
    // Nobody comes any more.
    let made = made.load(Ordering::SeqCst);
    assert!(service.shutdown(DEADLINE).aborted == 0);
    assert_eq!(theatre.made(), made);
}

#[test]
fn a_client_waits_for_a_server_that_starts_later() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let casting = theatre.casting();
    let client = service.reconnect(address, hasty(), move || casting.echo()).unwrap();
    eventually("it has failed", || client.counts().0 >= 3);
    assert_eq!(client.counts().1, 0);
    // Somebody else may have taken the number meanwhile: then there is nothing to see.
    let Ok(listener) = TcpListener::bind(address) else { return };
    let mut socket = accept(&listener);
    round_trip(&mut socket, b"at last");
    client.close();
}

#[test]
fn after_so_many_failures_in_a_row_a_client_gives_up_with_the_last_reason() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let casting = theatre.casting();
    let begin = Instant::now();
    let options = Reconnect::new().initial_delay(20 * MS).factor(2.0).jitter(0.0).attempts(4);
    let client = service.reconnect(dead_address(), options, move || casting.actor()).unwrap();
    let why = client.wait();
    let (attempts, last) = gave_up_after(&why);
    assert_eq!(attempts, 4);
    assert!(matches!(last, Closed::Failed(error) if error.kind() == ErrorKind::ConnectionRefused), "{last:?}");
    assert!(why.to_string().starts_with("given up after 4 attempts, the last: "), "{why}");
    // 20, 40 and 80 ms between the four.
    assert!(begin.elapsed() >= 140 * MS, "gave up after {:?}", begin.elapsed());
    assert_eq!((theatre.made(), theatre.closed()), (4, 4));
    assert!(matches!(client.state(), ReconnectState::GaveUp(_)));
    client.stop();
    assert_eq!(gave_up_after(&client.wait()).0, 4, "the first reason stays");
}

#[test]
fn a_connection_that_has_held_forgives_the_failures_before_it() {
    for steady in [true, false] {
        let theatre = Theatre::new();
        let service = service(Service::options());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let casting = theatre.casting();
        let options = hasty().attempts(3).steady(if steady { Duration::ZERO } else { Duration::from_secs(3600) });
        let client = service.reconnect(listener.local_addr().unwrap(), options, move || casting.actor()).unwrap();
        for _ in 0..3 {
            drop(accept(&listener));
        }
        if steady {
            for _ in 0..3 {
                drop(accept(&listener));
            }
            client.stop();
            assert!(matches!(*client.wait(), GaveUp::Stopped));
        } else {
            assert!(matches!(gave_up_after(&client.wait()), (3, Closed::ByPeer)));
        }
    }
}

#[test]
fn a_session_that_closes_itself_stays_closed_unless_told_otherwise() {
    for again in [false, true] {
        let theatre = Theatre::new();
        let service = service(Service::options());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let casting = theatre.casting();
        let options = if again { hasty().again_after(|_| true) } else { hasty() };
        let make = move || casting.actor().opened(|link| link.close());
        let client = service.reconnect(listener.local_addr().unwrap(), options, make).unwrap();
        assert_eq!(read_to_end(&mut accept(&listener)), b"");
        if again {
            assert_eq!(read_to_end(&mut accept(&listener)), b"");
            client.stop();
        } else {
            let why = client.wait();
            assert!(matches!(&*why, GaveUp::Final(Closed::ByUs)), "{why:?}");
        }
    }
}

#[test]
fn panics_are_failures_like_others() {
    quiet_panics();
    let theatre = Theatre::new();
    let service = service(Service::options());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (casting, mut calls) = (theatre.casting(), 0);
    let make = move || {
        calls += 1;
        match calls {
            1 => fall(),
            2 => casting.actor().opened(|_| fall()),
            3 => casting.actor().closed(|_, _| fall()),
            _ => casting.echo(),
        }
    };
    let client = service.reconnect(listener.local_addr().unwrap(), hasty(), make).unwrap();
    drop(accept(&listener));
    drop(accept(&listener));
    let mut socket = accept(&listener);
    round_trip(&mut socket, b"the fourth one works");
    assert_eq!(service.stats().panics, 3);
    client.close();
}

#[test]
fn of_a_names_addresses_each_is_tried_before_the_first_wait() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addresses = [dead_address(), dead_address(), listener.local_addr().unwrap()];
    let casting = theatre.casting();
    // A wait would last longer than the test.
    let options = Reconnect::new().initial_delay(10 * DEADLINE).max_delay(10 * DEADLINE).attempts(2);
    let client = service.reconnect(&addresses[..], options, move || casting.echo()).unwrap();
    let mut socket = accept(&listener);
    round_trip(&mut socket, b"the last address");
    assert_eq!(client.counts(), (3, 1));
    drop(socket);
    eventually("it waits", || matches!(client.state(), ReconnectState::Waiting { failures: 1 }));
    client.stop();
    assert!(matches!(*client.wait(), GaveUp::Stopped));
}

#[test]
fn an_address_that_does_not_answer_is_given_up_in_time() {
    use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};
    let theatre = Theatre::new();
    let service = service(Service::options());
    // On Windows std's first socket starts what sockets need.
    drop(TcpListener::bind("127.0.0.1:0"));
    // A queue of one, and that is taken: the system answers nobody else.
    let mute = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&mute, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listen(&mute, 0).unwrap();
    let address = SocketAddr::try_from(getsockname(&mute).unwrap()).unwrap();
    let _first = TcpStream::connect(address).unwrap();
    let casting = theatre.casting();
    let options = hasty().connect_timeout(50 * MS).attempts(2);
    let client = service.reconnect(address, options, move || casting.actor()).unwrap();
    let why = client.wait();
    let (attempts, last) = gave_up_after(&why);
    assert_eq!(attempts, 2);
    assert!(matches!(last, Closed::Failed(error) if error.kind() == ErrorKind::TimedOut), "{last:?}");
}

#[test]
fn a_client_ends_with_its_service_wherever_it_stands() {
    for (how, connected) in [("shutdown", true), ("shutdown", false), ("drop", true), ("drop", false)] {
        let theatre = Theatre::new();
        let service = service(Service::options());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = if connected { listener.local_addr().unwrap() } else { dead_address() };
        let casting = theatre.casting();
        let options = Reconnect::new().initial_delay(DEADLINE * 10).max_delay(DEADLINE * 10);
        let client = service.reconnect(address, options, move || casting.actor()).unwrap();
        let socket = connected.then(|| accept(&listener));
        eventually("it stands where it should", || match client.state() {
            ReconnectState::Connected(_) => connected,
            ReconnectState::Waiting { .. } => !connected,
            _ => false,
        });
        if how == "drop" {
            drop(service);
        } else {
            let shutdown = thread::spawn(move || service.shutdown(DEADLINE));
            if let Some(mut socket) = socket {
                read_to_end(&mut socket);
            }
            shutdown.join().unwrap();
        }
        assert!(matches!(*client.wait(), GaveUp::Stopped), "{how}, {connected}");
        assert_eq!(theatre.closed(), 1);
    }
}

#[test]
fn clients_that_are_stopped_while_they_connect_leave_nothing_behind() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let taker = thread::spawn(move || {
        listener.set_nonblocking(true).unwrap();
        let until = Instant::now() + Duration::from_millis(600);
        while Instant::now() < until {
            if listener.accept().is_err() {
                thread::sleep(MS);
            }
        }
    });
    let mut random = fastrand::Rng::with_seed(4);
    for round in 0..200 {
        let casting = theatre.casting();
        let target = if round % 2 == 0 { address } else { dead_address() };
        let client = service.reconnect(target, hasty().initial_delay(Duration::ZERO), move || casting.actor()).unwrap();
        thread::sleep(Duration::from_micros(random.u64(0..3000)));
        if round % 3 == 0 {
            client.stop()
        } else {
            client.close()
        }
        assert!(matches!(*client.wait(), GaveUp::Stopped));
    }
    taker.join().unwrap();
    eventually("every session is gone", || service.stats().sessions == 0);
    eventually("every session was closed", || theatre.closed() == theatre.made());
}

#[test]
fn what_decides_whether_to_connect_again_may_ask_the_client_itself_and_may_panic() {
    static CLIENT: OnceLock<Reconnecting> = OnceLock::new();
    fn ask(_: &Closed) -> bool {
        CLIENT.get().is_none_or(|client| client.counts().0 < 3)
    }
    fn fail(_: &Closed) -> bool {
        fall()
    }
    quiet_panics();
    let theatre = Theatre::new();
    let service = service(Service::options());
    let casting = theatre.casting();
    let client = service.reconnect(dead_address(), hasty().again_after(ask), move || casting.actor()).unwrap();
    CLIENT.set(client.clone()).unwrap();
    assert!(matches!(&*client.wait(), GaveUp::Final(Closed::Failed(_))));
    assert!(client.counts().0 >= 3);
    let casting = theatre.casting();
    let client = service.reconnect(dead_address(), hasty().again_after(fail), move || casting.actor()).unwrap();
    assert!(matches!(&*client.wait(), GaveUp::Final(Closed::Failed(_))));
    assert_eq!(service.stats().panics, 1);
}

// --- Unix sockets ---

#[cfg(unix)]
/// A path that nobody else has, gone after the test.
struct Place(PathBuf);

#[cfg(unix)]
impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("wharf-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        Place(path)
    }
}

#[cfg(unix)]
impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[cfg(unix)]
fn local_round_trip(socket: &mut UnixStream, message: &[u8]) {
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(message).unwrap();
    let mut got = vec![0; message.len()];
    socket.read_exact(&mut got).unwrap();
    assert_eq!(got, message);
}

#[cfg(unix)]
fn listen_echo(service: &Service, casting: Casting, place: &PathBuf) -> std::io::Result<()> {
    service.listen_local(place, move |_| casting.echo())
}

#[cfg(unix)]
#[test]
fn sessions_on_a_unix_socket_know_who_is_at_the_other_end() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let place = Place::new("echo");
    let (casting, (tell, peers)) = (theatre.casting(), channel());
    let made_for = Arc::new(Mutex::new(None));
    let note = made_for.clone();
    service
        .listen_local(&place.0, move |peer| {
            *note.lock().unwrap() = Some(peer.clone());
            let tell = tell.clone();
            casting.echo().opened(move |link| tell.send(link.peer()).unwrap())
        })
        .unwrap();
    let mut plain = UnixStream::connect(&place.0).unwrap();
    local_round_trip(&mut plain, b"hello");
    let peer = next(&peers);
    let local = peer.local().expect("it is of this machine");
    assert_eq!(made_for.lock().unwrap().as_ref(), Some(local));
    assert_eq!((local.path(), local.abstract_name(), peer.tcp()), (None, None, None));
    let who = local.credentials().unwrap();
    assert_eq!(who.process, std::process::id());
    assert_eq!(who.user, rustix::process::geteuid().as_raw());
    assert!(peer.to_string().contains(&format!("process {}", std::process::id())), "{peer}");

    // And as a session at both ends.
    let (answer, answers) = channel();
    let session = theatre.casting().actor().received(move |_, data| drop(answer.send(data.to_vec())));
    let link = service.connect_local(&place.0, session).unwrap();
    link.send("from a session").unwrap();
    assert_eq!(next(&answers), b"from a session");
    assert_eq!(link.peer().local().unwrap().path(), Some(&*place.0));
    assert_eq!(link.peer().to_string(), format!("unix:{}", place.0.display()));
    link.finish();
    eventually("its other end is closed", || theatre.closed() == 2);
    plain.shutdown(Shutdown::Both).unwrap();
    let report = service.shutdown(DEADLINE);
    assert_eq!(report.aborted, 0);
    assert!(!place.0.exists(), "the server takes its socket file away");
}

#[test]
fn a_tcp_peer_compares_and_prints_as_its_address() {
    let address = SocketAddr::from(([127, 0, 0, 1], 9));
    let peer = Peer::from(address);
    assert_eq!(peer, address);
    assert_eq!((peer.tcp(), peer.local(), peer.to_string()), (Some(address), None, address.to_string()));
}

#[cfg(unix)]
#[test]
fn abstract_names_need_no_file() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let name = format!("@wharf-test-{}", std::process::id());
    let casting = theatre.casting();
    service.listen_local(&name, move |_| casting.echo()).unwrap();
    let casting = theatre.casting();
    let taken = service.listen_local(&name, move |_| casting.echo()).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    let (answer, answers) = channel();
    let session = theatre.casting().actor().received(move |_, data| drop(answer.send(data.to_vec())));
    let link = service.connect_local(&name, session).unwrap();
    link.send("hello").unwrap();
    assert_eq!(next(&answers), b"hello");
    assert_eq!(link.peer().local().unwrap().abstract_name(), Some(&name.as_bytes()[1..]));
    assert_eq!(link.peer().to_string(), format!("unix:{name}"));
}

#[cfg(unix)]
#[test]
fn a_stale_socket_file_is_replaced_and_everything_else_is_left_alone() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let place = Place::new("stale");
    // What a server that was killed leaves behind.
    drop(UnixListener::bind(&place.0).unwrap());
    assert!(place.0.exists());
    listen_echo(&service, theatre.casting(), &place.0).unwrap();
    local_round_trip(&mut UnixStream::connect(&place.0).unwrap(), b"replaced");
    let taken = listen_echo(&service, theatre.casting(), &place.0).unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    local_round_trip(&mut UnixStream::connect(&place.0).unwrap(), b"still there");

    let file = Place::new("file");
    std::fs::write(&file.0, "precious").unwrap();
    let refused = listen_echo(&service, theatre.casting(), &file.0).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    assert!(refused.to_string().contains("is no socket; remove it"), "{refused}");
    assert_eq!(std::fs::read(&file.0).unwrap(), b"precious");

    let long = PathBuf::from(format!("/tmp/{}", "x".repeat(200)));
    let refused = listen_echo(&service, theatre.casting(), &long).unwrap_err();
    assert!(refused.kind() == ErrorKind::InvalidInput && refused.to_string().contains("107"), "{refused}");
    let missing = listen_echo(&service, theatre.casting(), &PathBuf::from("/nowhere/at/all")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}

#[cfg(unix)]
#[test]
fn a_server_takes_away_only_its_own_socket_file() {
    let theatre = Theatre::new();
    let place = Place::new("taken-over");
    let old = service(Service::options());
    listen_echo(&old, theatre.casting(), &place.0).unwrap();
    std::fs::remove_file(&place.0).unwrap();
    let new = service(Service::options());
    listen_echo(&new, theatre.casting(), &place.0).unwrap();
    old.shutdown(DEADLINE);
    local_round_trip(&mut UnixStream::connect(&place.0).unwrap(), b"the new one is still there");
}

#[cfg(unix)]
#[test]
fn connecting_to_a_unix_socket_that_is_not_there_is_told_at_once() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let place = Place::new("nobody");
    let refused = service.connect_local(&place.0, theatre.casting().actor()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    drop(UnixListener::bind(&place.0).unwrap());
    let refused = service.connect_local(&place.0, theatre.casting().actor()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(theatre.closed(), 0);
}

#[cfg(unix)]
#[test]
fn unix_sockets_made_elsewhere_can_be_adopted_and_count_as_sessions() {
    let theatre = Theatre::new();
    let service = service(Service::options().max_sessions(2));
    let place = Place::new("adopted");
    let casting = theatre.casting();
    service.adopt_local_listener(UnixListener::bind(&place.0).unwrap(), move |_| casting.echo()).unwrap();
    let (mine, theirs) = UnixStream::pair().unwrap();
    let _link = service.adopt_local(theirs, theatre.casting().echo()).unwrap();
    let mut mine = mine;
    local_round_trip(&mut mine, b"a pair");
    let mut second = UnixStream::connect(&place.0).unwrap();
    local_round_trip(&mut second, b"accepted");
    let mut third = UnixStream::connect(&place.0).unwrap();
    assert_eq!(third.read(&mut [0; 8]).unwrap(), 0, "there are as many as there may be");
    let stats = service.stats();
    assert_eq!((stats.sessions, stats.accepted, stats.refused), (2, 1, 1));
    let (_, another) = UnixStream::pair().unwrap();
    let full = service.adopt_local(another, theatre.casting().actor()).unwrap_err();
    assert_eq!(full.kind(), ErrorKind::QuotaExceeded);
    service.shutdown(Duration::from_millis(100));
    assert!(place.0.exists(), "it was not the service that made it");
}

#[cfg(unix)]
#[test]
fn a_local_client_connects_again_when_its_server_comes_back() {
    let theatre = Theatre::new();
    let clients = service(Service::options());
    let place = Place::new("comes-back");
    let (casting, (answer, answers)) = (theatre.casting(), channel());
    let client = clients.reconnect_local(&place.0, hasty(), move || {
        let answer = answer.clone();
        let actor = casting.actor().opened(|link| link.send("hello").unwrap());
        actor.received(move |_, data| drop(answer.send(data.to_vec())))
    });
    eventually("it has failed", || client.counts().0 >= 2);
    for _ in 0..3 {
        let server = service(Service::options());
        listen_echo(&server, theatre.casting(), &place.0).unwrap();
        assert_eq!(next(&answers), b"hello");
        server.shutdown(DEADLINE);
    }
    client.stop();
}

// --- Draining ---

#[test]
fn a_server_that_drains_serves_what_it_has_and_takes_nothing_more() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let casting = theatre.casting();
    let address = service.listen("127.0.0.1:0", move |_| casting.echo()).unwrap();
    let mut socket = client(address);
    round_trip(&mut socket, b"before");
    assert_eq!(service.drain(20 * MS), 1, "it is still there");
    assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::ConnectionRefused);
    round_trip(&mut socket, b"while it drains");
    let leaving = thread::spawn(move || {
        thread::sleep(50 * MS);
        drop(socket);
    });
    assert_eq!(service.drain(DEADLINE), 0);
    leaving.join().unwrap();
    let report = service.shutdown(DEADLINE);
    assert_eq!((report.graceful, report.aborted), (0, 0));
}

#[test]
fn whoever_was_accepted_before_the_listener_closed_is_served() {
    let theatre = Theatre::new();
    for _ in 0..30 {
        let old = service(Service::options());
        let new = service(Service::options());
        // One socket, two listeners: as two processes have it.
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let casting = theatre.casting();
        let again = casting.clone();
        old.adopt_listener(listener.try_clone().unwrap(), move |_| casting.echo()).unwrap();
        new.adopt_listener(listener, move |_| again.echo()).unwrap();
        let clients = thread::spawn(move || {
            for _ in 0..40 {
                round_trip(&mut client(address), b"served by one of the two");
            }
        });
        thread::sleep(2 * MS);
        assert_eq!(old.drain(DEADLINE), 0);
        old.shutdown(DEADLINE);
        clients.join().unwrap();
    }
}
