//! `wharf relay`: both ways, each to its own end.

mod common;

use common::{DEADLINE, Wharf, command};
use rustix::process::Signal;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

struct Relay {
    wharf: Wharf,
    address: SocketAddr,
}

impl Relay {
    fn start(target: &str, more: &[&str]) -> Relay {
        Relay::spawn(command(&["relay", "127.0.0.1:0", target]).args(more))
    }

    fn spawn(command: &mut Command) -> Relay {
        let wharf = Wharf::spawn(command).unwrap();
        let address = wharf.address();
        Relay { wharf, address }
    }

    fn client(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket.set_write_timeout(Some(DEADLINE)).unwrap();
        socket
    }

    /// Ends it, and returns what it said on its way.
    fn end(self) -> String {
        let end = self.wharf.end_by(Signal::TERM);
        assert!(end.status.success(), "{:?}", end.errors);
        end.errors.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Answers each connection by `answer`, in a thread of its own.
fn target(answer: impl Fn(TcpStream) + Send + Sync + Clone + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            let answer = answer.clone();
            thread::spawn(move || answer(socket));
        }
    });
    address
}

#[test]
fn megabytes_go_both_ways_and_each_way_ends_by_itself() {
    // Counts to the end of what it gets, and only then answers: the client's end must get through, and the answer back.
    let target = target(|mut socket| {
        let mut all = Vec::new();
        socket.read_to_end(&mut all).unwrap();
        all.reverse();
        socket.write_all(&all).unwrap();
    });
    let relay = Relay::start(&target, &[]);
    let clients: Vec<_> = (0..8_u8)
        .map(|seed| {
            let mut socket = relay.client();
            thread::spawn(move || {
                let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at / 7) as u8 ^ seed).collect();
                socket.write_all(&sent).unwrap();
                socket.shutdown(Shutdown::Write).unwrap();
                let mut back = Vec::new();
                socket.read_to_end(&mut back).unwrap();
                back.reverse();
                assert!(back == sent, "client {seed}: {} bytes came back", back.len());
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    let said = relay.end();
    assert_eq!(said, "ended: 8 connections relayed, 0 not connected, 24000000 bytes to the target, 24000000 back\n");
}

#[test]
fn a_target_that_is_not_there_closes_that_client_and_is_told() {
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let relay = Relay::start(&nobody, &[]);
    for _ in 0..3 {
        assert_eq!(relay.client().read(&mut [0]).unwrap_or(0), 0, "closed, without a byte");
    }
    let said = relay.end();
    assert_eq!(said.matches("cannot be reached").count(), 3, "{said}");
    assert!(said.ends_with("ended: 0 connections relayed, 3 not connected, 0 bytes to the target, 0 back\n"), "{said}");
}

#[test]
fn too_few_descriptors_are_not_blamed_on_the_target() {
    let target = target(|mut socket| drop(socket.read_to_end(&mut Vec::new())));
    let script = format!("ulimit -n 40; exec \"$0\" relay 127.0.0.1:0 {target}");
    let mut command = Command::new("/bin/sh");
    command.args(["-c", &script, env!("CARGO_BIN_EXE_wharf")]).env_remove("RUST_LOG");
    let relay = Relay::spawn(&mut command);
    let mut clients: Vec<_> = (0..60).map(|_| relay.client()).collect();
    // Whom it finds no descriptor for it closes, and says so before.
    clients.iter().for_each(|client| client.set_read_timeout(Some(Duration::from_millis(1))).unwrap());
    let until = Instant::now() + DEADLINE;
    let is_waiting = |client: &mut TcpStream| {
        let error = client.read(&mut [0]).err();
        error.is_some_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut))
    };
    while clients.iter_mut().all(is_waiting) {
        assert!(Instant::now() < until, "nobody is closed");
    }
    let said = relay.end();
    assert!(said.contains("Too many open files") && said.contains("raise the limit (ulimit -n)"), "{said}");
    assert!(!said.contains("is it running"), "{said}");
}

#[test]
fn an_end_that_breaks_breaks_the_other_and_the_rest_goes_on() {
    let target = target(|mut socket| {
        let mut first = [0];
        while socket.read_exact(&mut first).is_ok() && first != *b"x" {
            socket.write_all(&first).unwrap();
        }
        // Gone with something unread, which resets the connection.
        thread::sleep(Duration::from_millis(1));
    });
    let relay = Relay::start(&target, &[]);
    let (mut stays, mut breaks) = (relay.client(), relay.client());
    breaks.write_all(b"x and more than it reads").unwrap();
    let mut rest = Vec::new();
    let _ = breaks.read_to_end(&mut rest);
    assert!(rest.is_empty());
    stays.write_all(b"a").unwrap();
    let mut echo = [0];
    stays.read_exact(&mut echo).unwrap();
    assert_eq!(&echo, b"a");
}

/// Half of something must not look like the whole.
#[test]
fn a_reset_on_one_side_is_a_reset_on_the_other_and_is_told() {
    use rustix::net::sockopt::set_socket_linger;
    let (arrived, goes_on) = channel();
    let target = target(move |mut socket| {
        socket.write_all(b"half").unwrap();
        let mut first = [0];
        socket.read_exact(&mut first).unwrap();
        if first == *b"t" {
            set_socket_linger(&socket, Some(Duration::ZERO)).unwrap();
            return;
        }
        let error = socket.read(&mut [0]).map_err(|error| error.kind());
        arrived.send(error).unwrap();
    });
    let relay = Relay::start(&target, &[]);
    let mut client = relay.client();
    client.read_exact(&mut [0; 4]).unwrap();
    client.write_all(b"t").unwrap();
    assert_eq!(client.read(&mut [0]).map_err(|error| error.kind()), Err(ErrorKind::ConnectionReset));
    relay.wharf.complains("the target's connection broke");
    let mut client = relay.client();
    client.read_exact(&mut [0; 4]).unwrap();
    client.write_all(b"c").unwrap();
    // It has got there before the reset, which would overtake it.
    thread::sleep(Duration::from_millis(100));
    set_socket_linger(&client, Some(Duration::ZERO)).unwrap();
    drop(client);
    assert_eq!(goes_on.recv_timeout(DEADLINE).unwrap(), Err(ErrorKind::ConnectionReset));
    relay.wharf.complains("the client's connection broke");
}

#[test]
fn a_relay_to_itself_is_refused() {
    for any in ["127.0.0.1", "0.0.0.0"] {
        // A port that nobody has, a moment ago at least.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let (listen, itself) = (format!("{any}:{port}"), format!("127.0.0.1:{port}"));
        let relay = Wharf::start(&["relay", &listen, &itself]);
        relay.complains("is where the relay itself listens");
        assert_eq!(relay.end().code, Some(1));
    }
}

#[test]
fn a_client_that_does_not_read_makes_no_memory_grow() {
    const ALL: usize = 64 << 20;
    let (stuck, taken) = channel();
    let target = target(move |mut socket| {
        socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
        let (piece, mut sent) = (vec![7; 64 << 10], 0);
        while let (true, Ok(bytes)) = (sent < ALL, socket.write(&piece)) {
            sent += bytes;
        }
        stuck.send(sent).unwrap();
        // Until the test is over: the relay holds what it has.
        let _ = socket.read(&mut [0]);
    });
    let relay = Relay::start(&target, &[]);
    let mut slow = relay.client();
    // The way is open, and full.
    slow.read_exact(&mut [0; 1000]).unwrap();
    let sent = taken.recv_timeout(DEADLINE).unwrap();
    assert!(sent < ALL, "the relay took all of it");
    let status = std::fs::read_to_string(format!("/proc/{}/status", relay.wharf.child.id())).unwrap();
    let kilobytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let kilobytes: u64 = kilobytes.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(kilobytes < 40_000, "{kilobytes} kB");
    drop(slow);
}

/// Sends back what comes.
fn echo() -> String {
    target(|mut socket| {
        let mut piece = [0; 1000];
        while let Ok(bytes @ 1..) = socket.read(&mut piece) {
            if socket.write_all(&piece[..bytes]).is_err() {
                return;
            }
        }
    })
}

fn is_echoed(socket: &mut TcpStream, words: &[u8]) {
    socket.write_all(words).unwrap();
    let mut back = vec![0; words.len()];
    socket.read_exact(&mut back).unwrap();
    assert_eq!(back, words);
}

/// It has heard the signal when nobody gets in any more.
fn stops_listening(relay: &Relay) {
    let until = Instant::now() + DEADLINE;
    while TcpStream::connect(relay.address).is_ok() {
        assert!(Instant::now() < until, "it goes on accepting");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn connections_that_there_are_go_on_when_it_is_to_drain() {
    let relay = Relay::start(&echo(), &["--drain", "60"]);
    let mut client = relay.client();
    is_echoed(&mut client, b"before");
    relay.wharf.signal(Signal::TERM);
    stops_listening(&relay);
    is_echoed(&mut client, b"and after");
    drop(client);
    let end = relay.wharf.end();
    assert!(end.status.success(), "{:?}", end.errors);
    let last = end.errors.last().unwrap();
    assert!(last.starts_with("ended: ") && last.ends_with("15 bytes to the target, 15 back"), "{last}");
}

#[test]
fn who_does_not_end_in_time_is_cut_off() {
    let relay = Relay::start(&echo(), &["--drain", "1"]);
    let mut client = relay.client();
    is_echoed(&mut client, b"here");
    let end = relay.wharf.end_by(Signal::TERM);
    assert!(end.status.success(), "{:?}", end.errors);
    assert!(end.errors.last().unwrap().ends_with("4 back, 1 connections cut off"), "{:?}", end.errors);
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let relay = Relay::start(&echo(), &["--drain", "60"]);
    let mut client = relay.client();
    is_echoed(&mut client, b"here");
    relay.wharf.signal(Signal::TERM);
    stops_listening(&relay);
    let end = relay.wharf.end_by(Signal::TERM);
    assert_eq!(end.code, Some(143), "{:?}", end.errors);
    assert_eq!(end.errors, ["wharf: ended at once by a second signal"]);
}

#[test]
fn who_was_connected_when_it_stops_listening_is_relayed() {
    const CLIENTS: usize = 200;
    let relay = Relay::start(&echo(), &["--drain", "60"]);
    // The kernel makes these connections; the relay can accept them only after it may know that it is to end.
    relay.wharf.signal(Signal::STOP);
    let mut clients: Vec<TcpStream> = (0..CLIENTS).map(|_| relay.client()).collect();
    relay.wharf.signal(Signal::TERM);
    relay.wharf.signal(Signal::CONT);
    clients.iter_mut().for_each(|client| is_echoed(client, b"ping"));
    drop(clients);
    let end = relay.wharf.end();
    assert!(end.status.success(), "{:?}", end.errors);
    assert_eq!(end.errors, ["ended: 200 connections relayed, 0 not connected, 800 bytes to the target, 800 back"]);
}

#[test]
fn what_cannot_be_is_one_sentence_with_a_remedy() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for (arguments, words) in [
        (["relay", address.as_str(), "127.0.0.1:1"], "another program listens there"),
        (["relay", "nowhere", "127.0.0.1:1"], "give ADDRESS:PORT"),
        (["relay", "unix:/tmp/x", "127.0.0.1:1"], "serves TCP only; give ADDRESS:PORT"),
        (["relay", "127.0.0.1:0", "nowhere"], "give ADDRESS:PORT"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_wharf")).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(words) && said.lines().count() == 1, "{said}");
        assert_eq!(output.status.code(), Some(1));
    }
}
