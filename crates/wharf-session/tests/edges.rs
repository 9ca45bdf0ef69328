//! Values and moments at the edge: options that cannot be meant, the longest time, a listener that is dead, a panic
//! whose payload panics, a shutdown from inside.

mod common;

use common::theatre::{Theatre, client, next, quiet_panics, read_exactly, round_trip, service};
use common::{DEADLINE, eventually};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use wharf::{CompletionPort, Workers};
use wharf_session::{Codec, GaveUp, LengthPrefix, Lines, Reconnect, Service, ServiceOptions, SlowConsumer};

const MS: Duration = Duration::from_millis(1);

// --- Values that cannot be meant ---

#[test]
fn options_that_let_nothing_happen_are_refused_with_the_remedy() {
    let never = Duration::ZERO;
    type Change = fn(ServiceOptions) -> ServiceOptions;
    let options: [(&str, Change); 7] = [
        ("connect_timeout", |builder| builder.connect_timeout(Duration::ZERO)),
        ("max_sessions", |builder| builder.max_sessions(0)),
        ("outbox", |builder| builder.outbox(0, SlowConsumer::Disconnect)),
        ("inbox", |builder| builder.inbox(0)),
        ("memory_limit", |builder| builder.memory_limit(0)),
        ("idle_timeout", |builder| builder.idle_timeout(Duration::ZERO)),
        ("handshake_timeout", |builder| builder.handshake_timeout(Duration::ZERO)),
    ];
    for (name, option) in options {
        let error = option(Service::options()).start().map(drop).expect_err(name);
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(';'), "{name}: no name or no remedy in: {text}");
    }
    let again = service(Service::options()).reconnect(
        "127.0.0.1:9",
        Reconnect::new().connect_timeout(never),
        || -> wharf_session::Framed<Silent> { unreachable!("nothing is tried") },
    );
    assert_eq!(again.map(drop).unwrap_err().kind(), ErrorKind::InvalidInput);
    assert!(service(Service::options().linger(never).max_sessions(1)).stats().sessions == 0);
    let error = CompletionPort::<(), ()>::options().pool(0, 1).build::<(), ()>().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
}

#[test]
fn a_period_that_cannot_be_kept_is_refused() {
    let port = CompletionPort::<(), ()>::new().unwrap();
    for period in [Duration::ZERO, Duration::from_nanos(1), Duration::from_nanos(999)] {
        let error = port.interval(period, (), ()).expect_err("it cannot be kept");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
    port.interval(Duration::from_micros(1), (), ()).unwrap();
    port.interval(Duration::MAX, (), ()).unwrap();
}

#[test]
fn the_limit_for_lines_that_come_does_not_swallow_the_sentence_that_says_why_the_peer_is_ended() {
    let sentence = "a frame is longer than the 16 bytes allowed; see whether the peer speaks another protocol";
    assert!(Lines::new(16).frame_of(sentence.as_bytes()).is_ok());
    assert!(LengthPrefix::new(4, 16).frame_of(sentence.as_bytes()).is_ok());
    // Each way has its own.
    let lines = Lines::new(16).sending(20);
    assert!(lines.frame_of(&[b'x'; 20]).is_ok() && lines.frame_of(&[b'x'; 21]).is_err());
    let prefix = LengthPrefix::new(2, 5000).sending(20);
    assert!(prefix.frame_of(&[0; 20]).is_ok() && prefix.frame_of(&[0; 21]).is_err());
    assert!(Lines::new(5000).frame_of(&[b'x'; 5000]).is_ok() && Lines::new(5000).frame_of(&[b'x'; 5001]).is_err());
}

#[cfg(unix)]
#[test]
fn an_empty_name_of_a_unix_socket_is_refused() {
    let service = service(Service::options());
    let theatre = Theatre::new();
    for name in ["", "@"] {
        let casting = theatre.casting();
        let error = service.listen_local(name, move |_| casting.echo()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        let error = service.connect_local(name, theatre.casting().echo()).map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

// --- The longest time ---

#[test]
fn a_linger_without_end_loses_nothing() {
    const BYTES: usize = 8 << 20;
    let theatre = Theatre::new();
    let service = service(Service::options().outbox(2 * BYTES, SlowConsumer::Disconnect).linger(Duration::MAX));
    let casting = theatre.casting();
    let address = service
        .listen("127.0.0.1:0", move |_| {
            casting.actor().opened(|link| {
                link.send(vec![7; BYTES]).unwrap();
                link.close();
            })
        })
        .unwrap();
    let mut socket = client(address);
    assert!(read_exactly(&mut socket, BYTES).iter().all(|&byte| byte == 7));
    assert_eq!(socket.read(&mut [0; 1]).unwrap(), 0);
    drop(socket);
    eventually("it is over", || service.stats().sessions == 0);
    assert_eq!(service.stats().panics, 0);
    assert_eq!(theatre.closed(), 1);
}

// --- A listener that is dead ---

#[cfg(unix)]
#[test]
fn a_listener_that_another_holder_has_shut_down_is_not_asked_for_ever() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let twin = listener.try_clone().unwrap();
    let casting = theatre.casting();
    let address = service.adopt_listener(listener, move |_| casting.echo()).unwrap();
    round_trip(&mut client(address), b"it is well");
    rustix::net::shutdown(&twin, rustix::net::Shutdown::Both).unwrap();
    // The accepts end; then nothing more happens.
    thread::sleep(100 * MS);
    let packets = service.stats().port.removed;
    thread::sleep(300 * MS);
    let more = service.stats().port.removed - packets;
    assert!(more < 100, "{more} packets in 0.3 s");
}

// --- Payloads ---

#[test]
fn a_constructor_whose_panic_panics_again_when_dropped_costs_only_its_session() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            common::theatre::fall();
        }
    }
    quiet_panics();
    let service = service(Service::options());
    let make = |_| -> wharf_session::Framed<Silent> { std::panic::panic_any(Bomb) };
    let address = service.listen("127.0.0.1:0", make).unwrap();
    for _ in 0..20 {
        assert_eq!(client(address).read(&mut [0; 1]).unwrap_or(0), 0);
    }
    eventually("all have failed", || service.stats().panics == 20);
    let begun = Instant::now();
    assert_eq!(service.drain(DEADLINE), 0);
    assert!(begun.elapsed() < DEADLINE, "it counts connections that are gone");
    let pool = service.stats().pool.unwrap();
    assert_eq!(pool.panics, 0, "it reached the workers");
}

struct Silent;

impl wharf_session::FramedSession for Silent {
    type Codec = Lines;
    fn frame(&mut self, _: &wharf_session::FramedLink<Lines>, _: &[u8]) {}
}

// --- From inside ---

#[test]
fn a_shutdown_in_a_handler_waits_for_the_others_and_not_for_itself() {
    let theatre = Theatre::new();
    let service = service(Service::options().workers(Workers::exactly(3)));
    let (casting, (tell, told)) = (theatre.casting(), channel());
    let whole = std::sync::Arc::new(Mutex::new(None::<Service>));
    let inside = whole.clone();
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let (inside, tell) = (inside.clone(), tell.clone());
            casting.actor().received(move |_, _| {
                if let Some(service) = inside.lock().unwrap().take() {
                    let begun = Instant::now();
                    let report = service.shutdown(DEADLINE);
                    tell.send((report, begun.elapsed())).unwrap();
                }
            })
        })
        .unwrap();
    let (mut one, mut other) = (client(address), client(address));
    eventually("both are served", || service.stats().sessions == 2);
    *whole.lock().unwrap() = Some(service);
    one.write_all(b"end").unwrap();
    assert_eq!(other.read(&mut [0; 1]).unwrap(), 0);
    other.shutdown(Shutdown::Both).unwrap();
    let (report, took) = next(&told);
    assert!(took < DEADLINE, "it waited for itself: {report:?}");
    assert_eq!(one.read(&mut [0; 1]).unwrap_or(0), 0);
}

// --- The second address ---

#[test]
fn behind_an_address_that_accepts_and_closes_the_next_is_tried() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (empty, well) = (TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let addresses = [empty.local_addr().unwrap(), well.local_addr().unwrap()];
    // A balancer that has nobody to give its connections to.
    thread::spawn(move || empty.incoming().for_each(drop));
    let casting = theatre.casting();
    let options = Reconnect::new().initial_delay(MS).max_delay(MS).attempts(20);
    let client = service.reconnect(&addresses[..], options, move || casting.echo()).unwrap();
    let served = thread::spawn(move || round_trip(&mut well.accept().unwrap().0, b"the second address"));
    eventually("it is served or gives up", || {
        served.is_finished() || matches!(client.state(), wharf_session::ReconnectState::GaveUp(_))
    });
    assert!(served.is_finished(), "{:?}", client.state());
    served.join().unwrap();
    client.stop();
    assert!(matches!(*client.wait(), GaveUp::Stopped));
}

// --- An end beside a send ---

#[test]
fn whatever_a_sender_is_at_when_another_thread_aborts_arrives_or_is_told_as_lost() {
    const ROUNDS: u64 = 300;
    const BYTES: usize = 100;
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, (tell, links), (say, ends)) = (theatre.casting(), channel(), channel());
    let address = service.listen("127.0.0.1:0", move |_| {
        let (tell, say) = (tell.clone(), say.clone());
        let actor = casting.actor().opened(move |link| tell.send(link.clone()).unwrap());
        actor.closed(move |_, _| _ = say.send(()))
    });
    let address = address.unwrap();
    for round in 0..ROUNDS {
        let mut peer = client(address);
        let link = next(&links);
        let reader = thread::spawn(move || {
            let (mut received, mut into) = (0_u64, [0; 4096]);
            loop {
                match peer.read(&mut into) {
                    Ok(0) => return (received, true),
                    Ok(bytes) => received += bytes as u64,
                    Err(_) => return (received, false),
                }
            }
        });
        let senders = [(); 2].map(|()| {
            let link = link.clone();
            thread::spawn(move || {
                let sent = std::iter::repeat_with(|| link.send(vec![7; BYTES])).take_while(Result::is_ok).count();
                (sent * BYTES) as u64
            })
        });
        while link.stats().messages_sent < 5 && link.is_open() {
            thread::yield_now();
        }
        let moment = Instant::now();
        while moment.elapsed() < Duration::from_micros(round % 50) {
            std::hint::spin_loop();
        }
        link.abort();
        let accepted: u64 = senders.into_iter().map(|sender| sender.join().unwrap()).sum();
        next(&ends);
        let (received, clean) = reader.join().unwrap();
        let lost = link.stats().lost_bytes;
        assert_eq!(link.stats().accepted_bytes, accepted);
        let what = format!("{accepted} bytes were accepted, {received} came, {lost} are told as lost (round {round})");
        assert!(received + lost >= accepted, "{what}");
        assert!(!clean || (received, lost) == (accepted, 0), "the peer hears a clean end: {what}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_has_not_arrived_is_counted_to_the_byte_whatever_meets_the_reset_first() {
    use rustix::net::sockopt::{set_socket_linger, set_socket_recv_buffer_size};
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, (tell, links), (say, ends)) = (theatre.casting(), channel(), channel());
    let address = service.listen("127.0.0.1:0", move |_| {
        let (tell, say) = (tell.clone(), say.clone());
        let actor = casting.actor().received(move |link, _| {
            // Nobody receives from now on, who could hear of it.
            link.pause();
            tell.send(link.clone()).unwrap();
        });
        actor.closed(move |_, _| _ = say.send(()))
    });
    let address = address.unwrap();
    for first in ["send", "close"] {
        let mut peer = client(address);
        set_socket_recv_buffer_size(&peer, 16 * 1024).unwrap();
        peer.write_all(b"?").unwrap();
        let link = next(&links);
        link.send(vec![7; 200_000]).unwrap();
        let there = || rustix::io::ioctl_fionread(&peer).unwrap();
        let mut before = 0;
        eventually("the peer's system takes no more", || {
            thread::sleep(100 * MS);
            let now = there();
            now > 0 && std::mem::replace(&mut before, now) == now
        });
        set_socket_linger(&peer, Some(Duration::ZERO)).unwrap();
        drop(peer);
        match first {
            "send" => eventually("a send hears of the reset", || link.send(vec![7; 10]).is_err()),
            _ => link.close(),
        }
        link.resume();
        next(&ends);
        eventually("the session is over", || service.stats().sessions == 0);
        let stats = link.stats();
        assert_eq!(stats.accepted_bytes - stats.lost_bytes, before, "{first}: {stats:?}");
    }
}
