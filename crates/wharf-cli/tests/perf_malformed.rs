//! `wharf perf` against peers that are broken or hostile: each input is answered as specified, what it took is freed,
//! the server says one line, and the next client is served at once.

mod common;

use common::{Wharf, command};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(40);
const PARAMETERS: &str = r#"{"tcp":true,"omit":0,"time":60,"num":0,"blockcount":0,"parallel":1,"len":1000}"#;
const RESULTS: &str = r#"{"cpu_util_total":0,"cpu_util_user":0,"cpu_util_system":0,"sender_has_retransmits":-1,"streams":[{"id":1,"bytes":0,"retransmits":-1,"jitter":0,"errors":0,"packets":0}]}"#;

struct Server {
    wharf: Wharf,
    address: SocketAddr,
    /// As it was to.
    ended: bool,
}

impl Server {
    fn start(more: &[&str]) -> Server {
        let wharf = Wharf::start(&[&["perf", "serve", "-p", "0", "-B", "127.0.0.1"], more].concat());
        let address = SocketAddr::from(([127, 0, 0, 1], wharf.perf_port()));
        Server { wharf, address, ended: false }
    }

    /// What it said on stderr.
    fn said(&self) -> String {
        self.wharf.complaints().join("\n")
    }

    fn connect(&self) -> Peer {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        Peer(socket)
    }

    /// A control connection after its cookie, in PARAM_EXCHANGE.
    fn greeted(&self) -> Peer {
        let peer = self.connect();
        peer.send(&cookie(b'a'));
        assert_eq!(peer.state(), 9);
        peer
    }

    /// A test with one stream that runs.
    fn running(&self, parameters: &str) -> (Peer, Peer) {
        let control = self.greeted();
        control.frame(parameters);
        assert_eq!(control.state(), 10);
        let stream = self.connect();
        stream.send(&cookie(b'a'));
        assert_eq!((control.state(), control.state()), (1, 2));
        (control, stream)
    }

    /// The next client is served at once, and the server has said something that has these words.
    fn serves(&self, words: &str) {
        let port = self.address.port().to_string();
        let output = run(&["127.0.0.1", "-p", &port, "-n", "64K", "--connect-timeout", "20000"]);
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{why}");
        let until = Instant::now() + DEADLINE;
        while !self.said().contains(words) {
            assert!(Instant::now() < until, "{words:?} was not said: {:?}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn lines(&self) -> usize {
        self.wharf.complaints().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let alive = self.wharf.child.try_wait().unwrap().is_none();
        assert!(alive || self.ended || std::thread::panicking(), "the server has died");
    }
}

fn run(options: &[&str]) -> Output {
    command(&["perf", "run"]).args(options).output().unwrap()
}

fn cookie(letter: u8) -> [u8; 37] {
    let mut cookie = [letter; 37];
    cookie[36] = 0;
    cookie
}

struct Peer(TcpStream);

impl Peer {
    fn send(&self, bytes: &[u8]) {
        (&self.0).write_all(bytes).unwrap();
    }

    fn frame(&self, text: &str) {
        self.send(&(text.len() as u32).to_be_bytes());
        self.send(text.as_bytes());
    }

    fn state(&self) -> i8 {
        let mut byte = [0];
        (&self.0).read_exact(&mut byte).unwrap();
        byte[0] as i8
    }

    /// State −2 and its code.
    fn refusal(&self) -> i32 {
        assert_eq!(self.state(), -2);
        let mut pair = [0; 8];
        (&self.0).read_exact(&mut pair).unwrap();
        i32::from_be_bytes(pair[..4].try_into().unwrap())
    }

    fn object(&self) -> serde_json::Value {
        let mut length = [0; 4];
        (&self.0).read_exact(&mut length).unwrap();
        let mut text = vec![0; u32::from_be_bytes(length) as usize];
        (&self.0).read_exact(&mut text).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    fn finish(&self) {
        self.0.shutdown(std::net::Shutdown::Write).unwrap();
    }

    /// Closed by the other side, with whatever on the way.
    fn is_closed(&self) {
        let mut rest = Vec::new();
        let _ = (&self.0).read_to_end(&mut rest);
    }
}

/// Rows 1 and 2.
#[test]
fn who_says_nothing_or_drips_is_closed_after_a_while_and_holds_up_nobody() {
    for (timeout, patient) in [("300000", true), ("1500", false)] {
        let server = Server::start(&["--handshake-timeout", timeout]);
        let silent = server.connect();
        let dripping = server.connect();
        let drip = dripping.0.try_clone().unwrap();
        std::thread::spawn(move || {
            while (&drip).write_all(b"a").is_ok() {
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        if patient {
            // Their time is far from over, so nobody can have waited for its end.
            server.serves("");
            assert_eq!(server.lines(), 0);
        } else {
            silent.is_closed();
            dripping.is_closed();
            server.serves("no cookie came in 1.5 s");
            assert_eq!(server.lines(), 2);
        }
    }
}

/// Rows 3, 4 and 5.
#[test]
fn a_cookie_that_is_none_is_refused() {
    let server = Server::start(&[]);
    let short = server.connect();
    short.send(b"tencharact");
    short.finish();
    assert_eq!(short.refusal(), 106);
    let long = server.connect();
    long.send(&[b'a'; 100]);
    assert_eq!(long.refusal(), 106, "its 37th byte is no NUL");
    let mut leading = cookie(b'a');
    leading[0] = 0;
    let peer = server.connect();
    peer.send(&leading);
    assert_eq!(peer.refusal(), 106);
    let rest = server.connect();
    rest.send(&cookie(b'a'));
    rest.send(&[b'x'; 63]);
    assert_eq!(rest.state(), 9);
    assert_eq!(rest.refusal(), 114, "the rest is taken for a length");
    server.serves("unable to receive cookie");
    assert_eq!(server.lines(), 4);
}

/// Row 6.
#[test]
fn parameters_that_do_not_come_end_the_test_in_time_and_hold_up_nobody() {
    let server = Server::start(&["--max-clients", "2", "--handshake-timeout", "300000"]);
    let _silent = server.greeted();
    server.serves("");
    let server = Server::start(&["--handshake-timeout", "1500"]);
    let peer = server.greeted();
    assert_eq!(peer.refusal(), 114);
    server.serves("did not come in time");
}

/// Rows 7 to 13.
#[test]
fn frames_that_are_none_are_refused_and_take_no_memory() {
    let server = Server::start(&[]);
    for length in [0, 0x7FFF_FFFF, 0xFFFF_FFFF, 65537_u32] {
        let peer = server.greeted();
        peer.send(&length.to_be_bytes());
        assert_eq!(peer.refusal(), 114, "{length}");
    }
    let cut = server.greeted();
    cut.send(&[0, 0, 0, 100, b'{']);
    cut.finish();
    assert_eq!(cut.refusal(), 114);
    let deep = format!("{{\"a\":{}", "[".repeat(8000));
    for text in
        ["garbage", &deep, "[1]", "7", "{\"title\":\"\u{0}\"}", r#"{"time":"1"}"#, r#"{"title":5}"#, r#"{"tcp":1"#]
    {
        let peer = server.greeted();
        peer.frame(text);
        assert_eq!(peer.refusal(), 114, "{text:.40}");
    }
    let peer = server.greeted();
    peer.send(&[0, 0, 0, 12]);
    peer.send(b"{\"title\":\"\xff");
    assert_eq!(peer.refusal(), 114);
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.wharf.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 200_000, "{peak} kB");
    let empty = server.greeted();
    empty.frame("{}");
    assert_eq!(empty.state(), 10, "an empty object asks for the defaults");
    empty.finish();
    empty.is_closed();
    server.serves("unable to receive parameters");
}

/// Rows 14 to 20.
#[test]
fn numbers_out_of_range_are_refused_with_their_codes() {
    let server = Server::start(&[]);
    for (text, code) in [
        (r#"{"parallel":0}"#, 6),
        (r#"{"parallel":-1}"#, 6),
        (r#"{"parallel":129}"#, 6),
        (r#"{"parallel":1e18}"#, 6),
        (r#"{"time":-1}"#, 5),
        (r#"{"time":86401}"#, 5),
        (r#"{"time":1e300}"#, 5),
        (r#"{"len":0}"#, 7),
        (r#"{"len":-1}"#, 7),
        (r#"{"len":1048577}"#, 7),
        (r#"{"udp":true,"len":15}"#, 20),
        (r#"{"udp":true,"len":65508}"#, 20),
        (r#"{"udp":true}"#, 20),
        (r#"{"bandwidth":-5}"#, 114),
        (r#"{"burst":0}"#, 15),
        (r#"{"TOS":300}"#, 21),
        (r#"{"omit":601}"#, 12),
        (r#"{"MSS":40000}"#, 10),
        (r#"{"window":629145600}"#, 8),
        (r#"{"window":536870912}"#, 141),
        (r#"{"sctp":true}"#, 18),
    ] {
        let peer = server.greeted();
        peer.frame(text);
        assert_eq!(peer.refusal(), code, "{text}");
    }
    server.serves("parameter error");
    assert_eq!(server.lines(), 21);
}

/// Row 21.
#[test]
fn streams_that_never_come_end_the_test_in_time() {
    let server = Server::start(&["--setup-timeout", "2000"]);
    for parameters in [PARAMETERS, r#"{"udp":true,"len":1000,"reverse":true}"#] {
        let peer = server.greeted();
        peer.frame(parameters);
        assert_eq!(peer.state(), 10);
        assert_eq!(peer.refusal(), 144);
    }
    server.serves("only 0 of 1 streams came in time");
}

/// Rows 22, 23 and 24.
#[test]
fn foreign_streams_are_refused_and_the_test_goes_on() {
    let server = Server::start(&[]);
    let control = server.greeted();
    control.frame(PARAMETERS);
    assert_eq!(control.state(), 10);
    let silent = server.connect();
    for _ in 0..16 {
        let foreign = server.connect();
        foreign.send(&cookie(b'b'));
        assert_eq!(foreign.state(), -1);
    }
    let stream = server.connect();
    stream.send(&cookie(b'a'));
    assert_eq!((control.state(), control.state()), (1, 2));
    let another = server.connect();
    another.send(&cookie(b'a'));
    assert_eq!(another.state(), -1, "more than announced");
    drop(silent);
    control.send(&[16]);
    control.is_closed();
    let control = server.greeted();
    control.frame(PARAMETERS);
    assert_eq!(control.state(), 10);
    for _ in 0..17 {
        let foreign = server.connect();
        foreign.send(&cookie(b'b'));
        assert_eq!(foreign.state(), -1);
    }
    assert_eq!(control.refusal(), 200);
    server.serves("too many connections with wrong cookies");
}

/// The first streams of a test both ways are those that the client sends on, in the order of the connections.
#[test]
fn streams_are_told_apart_by_the_order_of_their_connections_and_not_of_their_cookies() {
    let server = Server::start(&[]);
    let control = server.greeted();
    control.frame(&PARAMETERS.replace(r#""tcp":true"#, r#""tcp":true,"bidirectional":1"#));
    assert_eq!(control.state(), 10);
    let (ours, theirs) = (server.connect(), server.connect());
    theirs.send(&cookie(b'a'));
    // It has been read, or will be together with the other one; either way the server has to know which came first.
    std::thread::sleep(Duration::from_millis(20));
    ours.send(&cookie(b'a'));
    assert_eq!((control.state(), control.state()), (1, 2));
    let mut block = [0; 1000];
    (&theirs.0).read_exact(&mut block).unwrap();
    ours.0.set_nonblocking(true).unwrap();
    let nothing = (&ours.0).read(&mut block).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock, "the server receives on this one");
}

/// Rows 25, 26 and 27.
#[test]
fn datagrams_of_others_and_such_as_are_none_count_for_nothing() {
    let server = Server::start(&[]);
    let control = server.greeted();
    // An amount is waited for.
    control.frame(r#"{"udp":true,"len":100,"time":0,"num":500}"#);
    assert_eq!(control.state(), 10);
    let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
    stranger.send_to(b"9876", server.address).unwrap();
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    client.set_read_timeout(Some(DEADLINE)).unwrap();
    client.connect(server.address).unwrap();
    client.send(b"hello world").unwrap();
    client.send(b"9876").unwrap();
    let mut answer = [0; 10];
    assert_eq!(client.recv(&mut answer).unwrap(), 4);
    assert_eq!(&answer[..4], b"6789");
    assert_eq!((control.state(), control.state()), (1, 2));
    let datagram = |number: u32| [&[0, 0, 0, 1, 0, 0, 0, 1][..], &number.to_be_bytes(), &[7; 88]].concat();
    stranger.send_to(&datagram(1), server.address).unwrap();
    client.send(b"").unwrap();
    client.send(b"9876").unwrap();
    client.send(&[0; 11]).unwrap();
    client.send(&datagram(0)).unwrap();
    for number in [1, 3, 2, u32::MAX, 5] {
        client.send(&datagram(number)).unwrap();
    }
    control.send(&[4]);
    assert_eq!(control.state(), 13);
    control.frame(RESULTS);
    let results = control.object();
    let stream = &results["streams"][0];
    assert_eq!(stream["bytes"], 500);
    assert_eq!(stream["packets"], u64::from(u32::MAX));
    assert_eq!(stream["errors"], u64::from(u32::MAX) - 5);
    assert_eq!(control.state(), 14);
    control.send(&[16]);
    server.serves("");
}

/// Whether the server has said something that was not read yet.
fn has_spoken(control: &Peer) -> bool {
    control.0.set_nonblocking(true).unwrap();
    let spoken = control.0.peek(&mut [0]).is_ok();
    control.0.set_nonblocking(false).unwrap();
    spoken
}

/// The server's results of its one stream, at the end of a test whose end was told.
fn results_of_stream(control: &Peer) -> serde_json::Value {
    assert_eq!(control.state(), 13);
    control.frame(RESULTS);
    let results = control.object();
    assert_eq!(control.state(), 14);
    control.send(&[16]);
    control.is_closed();
    results["streams"][0].clone()
}

/// How often a busy machine may hold this process up between two words.
const TRIES: u32 = 20;

#[test]
fn in_a_test_by_time_no_byte_counts_that_came_when_the_clock_had_stopped() {
    let server = Server::start(&[]);
    let bytes = (0..TRIES).map(|_| {
        let (control, stream) = server.running(PARAMETERS);
        stream.send(&[7; 1000]);
        std::thread::sleep(Duration::from_millis(2));
        control.send(&[4]);
        while !has_spoken(&control) {
            // It may have closed the stream.
            let _ = (&stream.0).write(b"x");
            std::thread::sleep(Duration::from_micros(100));
        }
        results_of_stream(&control)["bytes"].as_u64().unwrap()
    });
    let all: Vec<u64> = bytes.collect();
    assert!(all.contains(&1000), "{all:?}");
}

#[test]
fn datagrams_that_come_when_the_clock_has_stopped_are_not_lost_and_no_part_of_the_rate() {
    let server = Server::start(&[]);
    let late = (0..TRIES).map(|_| {
        let control = server.greeted();
        control.frame(r#"{"udp":true,"len":100,"time":60}"#);
        assert_eq!(control.state(), 10);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.address).unwrap();
        client.send(b"9876").unwrap();
        assert_eq!((control.state(), control.state()), (1, 2));
        let mut number = 0_u32;
        let mut send = || {
            number += 1;
            let _ = client.send(&[&[0, 0, 0, 1, 0, 0, 0, 1][..], &number.to_be_bytes(), &[7; 88]].concat());
        };
        (0..10).for_each(|_| send());
        control.send(&[4]);
        while !has_spoken(&control) {
            send();
        }
        let stream = results_of_stream(&control);
        let [bytes, packets, lost] = ["bytes", "packets", "errors"].map(|key| stream[key].as_u64().unwrap());
        assert!(bytes <= 100 * (packets - lost), "{stream}");
        packets - lost - bytes / 100
    });
    let late: Vec<u64> = late.collect();
    assert!(late.iter().any(|late| *late > 0), "none came late, or those were counted: {late:?}");
}

/// Row 28.
#[test]
fn an_unknown_state_is_refused() {
    let server = Server::start(&[]);
    let (control, _stream) = server.running(PARAMETERS);
    control.send(&[99]);
    assert_eq!(control.refusal(), 110);
    server.serves("unknown control message");
}

/// Row 29.
#[test]
fn states_at_the_wrong_time_end_the_test_or_are_ignored() {
    let server = Server::start(&[]);
    let early = server.greeted();
    early.frame(PARAMETERS);
    assert_eq!(early.state(), 10);
    early.send(&[4]);
    assert_eq!(early.refusal(), 110);
    let (control, _stream) = server.running(PARAMETERS);
    control.send(&[16]);
    control.is_closed();
    let (control, _stream) = server.running(PARAMETERS);
    control.send(&[13]);
    assert_eq!(control.refusal(), 110);
    let (control, _stream) = server.running(PARAMETERS);
    control.send(&[4, 4]);
    assert_eq!(control.state(), 13);
    control.frame(RESULTS);
    control.object();
    assert_eq!(control.state(), 14);
    control.send(&[16]);
    control.is_closed();
    server.serves("unknown control message");
}

/// Row 30.
#[test]
fn a_stream_that_ends_early_is_told_and_costs_no_processor_time() {
    let server = Server::start(&[]);
    let (control, stream) = server.running(PARAMETERS);
    drop(stream);
    let ticks = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", server.wharf.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    let before = ticks();
    std::thread::sleep(Duration::from_secs(1));
    assert!(ticks() - before < 30, "ticks of 10 ms in a second");
    control.send(&[4]);
    assert_eq!(control.state(), 13);
    control.frame(RESULTS);
    control.object();
    assert_eq!(control.state(), 14);
    control.send(&[16]);
    server.serves("");
}

/// Rows 31, 32 and 33.
#[test]
fn results_that_do_not_come_or_cannot_be_are_refused() {
    let server = Server::start(&["--setup-timeout", "3000"]);
    let ended = || {
        let (control, _stream) = server.running(PARAMETERS);
        control.send(&[4]);
        assert_eq!(control.state(), 13);
        control
    };
    for (text, code) in [
        (RESULTS.replace("\"id\":1", "\"id\":2"), 208),
        (RESULTS.replace("\"bytes\":0,", ""), 117),
        (RESULTS.replace("\"bytes\":0", "\"bytes\":NaN"), 117),
        (RESULTS.replace("\"bytes\":0", "\"bytes\":1e400"), 117),
        ("[]".into(), 117),
    ] {
        let control = ended();
        control.frame(&text);
        assert_eq!(control.refusal(), code, "{text}");
    }
    let control = ended();
    control.send(&(1_u32 << 30).to_be_bytes());
    assert_eq!(control.refusal(), 117);
    let control = ended();
    control.frame(&RESULTS.replace("\"bytes\":0", "\"bytes\":-4"));
    control.object();
    assert_eq!(control.state(), 14, "unknown, which is no reason to fail");
    control.send(&[16]);
    control.is_closed();
    let control = ended();
    assert_eq!(control.refusal(), 117, "nothing came");
    server.serves("unable to receive results");
}

/// Row 34.
#[test]
fn who_holds_the_connection_open_after_an_error_holds_up_nobody() {
    let server = Server::start(&[]);
    let holding = server.greeted();
    holding.frame("7");
    assert_eq!(holding.refusal(), 114);
    server.serves("unable to receive parameters");
    holding.is_closed();
}

/// Row 35: the end of the stream, and a reset, at every step.
#[test]
fn a_client_may_leave_at_any_step() {
    let server = Server::start(&[]);
    for reset in [false, true] {
        for step in 0..9 {
            let control = server.connect();
            let mut streams = Vec::new();
            let mut at = 0;
            let mut go = || {
                at += 1;
                at <= step
            };
            if go() {
                control.send(&cookie(b'a')[..10]);
            }
            if go() {
                control.send(&cookie(b'a')[10..]);
                assert_eq!(control.state(), 9);
            }
            if go() {
                control.send(&(PARAMETERS.len() as u32).to_be_bytes());
            }
            if go() {
                control.send(PARAMETERS.as_bytes());
                assert_eq!(control.state(), 10);
            }
            if go() {
                let stream = server.connect();
                stream.send(&cookie(b'a'));
                streams.push(stream);
                assert_eq!((control.state(), control.state()), (1, 2));
            }
            if go() {
                streams[0].send(&[1; 5000]);
                control.send(&[4]);
                assert_eq!(control.state(), 13);
            }
            if go() {
                control.send(&(RESULTS.len() as u32).to_be_bytes());
            }
            if go() {
                control.send(RESULTS.as_bytes());
                control.object();
                assert_eq!(control.state(), 14);
            }
            if reset {
                rustix::net::sockopt::set_socket_linger(&control.0, Some(Duration::ZERO)).unwrap();
            } else {
                control.finish();
                control.is_closed();
            }
            drop(control);
            let until = Instant::now() + DEADLINE;
            loop {
                let port = server.address.port().to_string();
                if run(&["127.0.0.1", "-p", &port, "-k", "1", "-i", "0"]).status.success() {
                    break;
                }
                assert!(Instant::now() < until, "step {step}, reset {reset}: {:?}", server.said());
            }
        }
    }
}

/// Row 36.
#[test]
fn a_thousand_connections_without_a_word_keep_nobody_out() {
    let server = Server::start(&[]);
    let crowd: Vec<Peer> = (0..1000).map(|_| server.connect()).collect();
    server.serves("too many connections");
    drop(crowd);
}

#[test]
fn who_was_connected_when_it_ends_hears_that_there_is_no_place() {
    const CLIENTS: usize = 100;
    let mut server = Server::start(&[]);
    // The kernel makes these connections; the server can accept them only after it may know that it is to end.
    server.wharf.signal(Signal::STOP);
    let clients: Vec<Peer> = (0..CLIENTS).map(|_| server.connect()).collect();
    for (number, client) in clients.iter().enumerate() {
        let mut cookie = cookie(b'a');
        cookie[..2].copy_from_slice(&[b'a' + (number / 26) as u8, b'a' + (number % 26) as u8]);
        client.send(&cookie);
    }
    server.wharf.signal(Signal::TERM);
    server.wharf.signal(Signal::CONT);
    // The first may still have become a test, which then ends.
    let refused = clients.iter().filter(|client| client.state() == -1).count();
    assert!(refused >= CLIENTS - 1, "{refused} of {CLIENTS}");
    server.ended = true;
}

/// Row 37.
#[test]
fn a_client_that_vanishes_in_the_test_is_given_up() {
    let server = Server::start(&["--rcv-timeout", "500"]);
    let (control, _stream) = server.running(r#"{"tcp":true,"time":0,"len":1000}"#);
    assert_eq!(control.refusal(), 144);
    server.serves("nothing received");
}

/// Row 38.
#[test]
fn a_strangers_text_does_not_steer_the_terminal() {
    let server = Server::start(&[]);
    let peer = server.greeted();
    peer.frame("{\"title\":\"\\u001b[2J\",\"time\":-1}");
    assert_eq!(peer.refusal(), 5);
    server.serves("time -1");
    assert!(!server.said().contains('\u{1b}'));
}

#[test]
fn all_streams_of_the_largest_test_may_be_connected_before_one_says_what_it_is() {
    let server = Server::start(&[]);
    let control = server.greeted();
    control.frame(r#"{"tcp":true,"time":60,"parallel":128,"bidirectional":true,"len":1000}"#);
    assert_eq!(control.state(), 10);
    let streams: Vec<Peer> = (0..256).map(|_| server.connect()).collect();
    streams.iter().for_each(|stream| stream.send(&cookie(b'a')));
    assert_eq!((control.state(), control.state()), (1, 2));
}

/// A ping connection whose client asks and does not read.
#[test]
fn pings_without_a_reader_take_no_memory() {
    let server = Server::start(&[]);
    let (control, _stream) = server.running(r#"{"tcp":true,"time":60,"len":1000,"wharf_latency":1}"#);
    let pings = server.connect();
    pings.send(&cookie(b'a'));
    pings.0.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let piece = vec![7; 1 << 16];
    let mut sent = 0_u64;
    // It answers as long as its answers are taken; then it does not read on, and this end has to wait.
    while let Ok(count) = (&pings.0).write(&piece) {
        sent += count as u64;
        assert!(sent < 256 << 20, "it takes whatever comes");
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.wharf.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100_000, "{peak} kB");
    control.send(&[16]);
    server.serves("the client has given up");
}

/// What a client sets for its test does not outlive it.
#[test]
fn a_processor_that_a_client_chose_is_not_the_next_clients() {
    let server = Server::start(&[]);
    let allowed = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.wharf.child.id())).unwrap();
        status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap().trim().to_owned()
    };
    let before = allowed();
    let first = before.split([',', '-']).next().unwrap().to_owned();
    let (control, _stream) =
        server.running(&format!(r#"{{"tcp":true,"time":60,"len":1000,"server_affinity":{first}}}"#));
    assert_eq!(allowed(), first);
    control.send(&[16]);
    control.is_closed();
    let until = Instant::now() + DEADLINE;
    while allowed() != before {
        assert!(Instant::now() < until, "{} are left of {before}", allowed());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Those who connect and leave without a word leave nothing behind, be it for the time that a cookie has.
#[test]
fn who_connects_and_leaves_is_forgotten_at_once() {
    let server = Server::start(&[]);
    // Of sockets: threads that were added to the pool have descriptors, too.
    let descriptors = || {
        let all = std::fs::read_dir(format!("/proc/{}/fd", server.wharf.child.id())).unwrap().flatten();
        all.filter_map(|it| std::fs::read_link(it.path()).ok())
            .filter(|it| it.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let before = descriptors();
    let started = Instant::now();
    let mut rounds = 0;
    while started.elapsed() < Duration::from_secs(2) {
        drop(server.connect());
        rounds += 1;
    }
    // The last ones may be on their way; of all those before none is there.
    let until = Instant::now() + Duration::from_secs(2);
    while descriptors() > before + 2 {
        assert!(Instant::now() < until, "{} descriptors after {rounds} connections, {before} before", descriptors());
        std::thread::sleep(Duration::from_millis(5));
    }
    server.serves("");
}

const TWO_PHASES: &str = r#"{"tcp":true,"time":60,"len":1000,"wharf_two_phase":1}"#;

/// A test in two phases up to the end of the first, through the door of anybody.
fn first_phase(server: &Server) -> Peer {
    let (control, _stream) = server.running(TWO_PHASES);
    control.send(&[4]);
    assert_eq!(control.state(), 13);
    control.frame(RESULTS);
    assert_eq!(control.object()["wharf_two_phase"], 1);
    assert_eq!(control.state(), 14);
    control
}

#[test]
fn the_second_phase_has_its_time_and_is_only_for_those_who_asked() {
    let server = Server::start(&["--setup-timeout", "1500"]);
    // Nothing comes after the first: its place is free again when the time is over.
    let control = first_phase(&server);
    control.is_closed();
    // It may be asked for, and then no stream comes.
    let control = first_phase(&server);
    control.send(&[100]);
    assert_eq!(control.state(), 10);
    assert_eq!(control.refusal(), 144);
    // All of it by hand: the server sends, and its streams have the same numbers.
    let control = first_phase(&server);
    control.send(&[100]);
    assert_eq!(control.state(), 10);
    let stream = server.connect();
    stream.send(&cookie(b'a'));
    assert_eq!((control.state(), control.state()), (1, 2));
    let mut some = [0; 1000];
    (&stream.0).read_exact(&mut some).unwrap();
    control.send(&[4]);
    assert_eq!(control.state(), 13);
    control.frame(RESULTS);
    assert_eq!(control.object()["streams"][0]["id"], 1);
    assert_eq!(control.state(), 14);
    // There is no third.
    control.send(&[100]);
    control.is_closed();
    // Not asked for, or too early.
    let (control, _stream) = server.running(PARAMETERS);
    control.send(&[4]);
    assert_eq!(control.state(), 13);
    control.frame(RESULTS);
    control.object();
    assert_eq!(control.state(), 14);
    control.send(&[100]);
    control.is_closed();
    let (control, _stream) = server.running(TWO_PHASES);
    control.send(&[100]);
    assert_eq!(control.refusal(), 110);
    server.serves("unknown control message");
}

/// Bytes that nearly make sense.
fn noise(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..random.usize(1..6) {
        match random.u8(..6) {
            0 => bytes.push(*random.choice(&[1, 2, 4, 9, 10, 11, 12, 13, 14, 16, 100, 0xFF, 0xFE, 0]).unwrap()),
            1 => bytes.extend(cookie(b'a')),
            2 | 3 => {
                let texts = [PARAMETERS, RESULTS, TWO_PHASES, "{}", "[", r#"{"udp":true,"len":100}"#];
                let mut text = random.choice(texts).unwrap().as_bytes().to_vec();
                if random.bool() {
                    let at = random.usize(..text.len());
                    text[at] = random.u8(..);
                }
                let length = if random.u8(..8) == 0 { random.u32(..) } else { text.len() as u32 };
                bytes.extend(length.to_be_bytes());
                bytes.extend(text);
            }
            4 => bytes.extend([0xFE, 0, 0, 0, random.u8(..), 0, 0, 0, random.u8(..)]),
            _ => {
                let count = random.usize(..40);
                bytes.extend(std::iter::repeat_with(|| random.u8(..)).take(count));
            }
        }
    }
    bytes
}

#[test]
fn noise_at_any_step_does_not_kill_a_server_and_leaves_nothing_behind() {
    let server = Server::start(&["--max-clients", "100", "--setup-timeout", "1000", "--handshake-timeout", "1000"]);
    let sockets = || {
        let all = std::fs::read_dir(format!("/proc/{}/fd", server.wharf.child.id())).unwrap().flatten();
        all.filter_map(|it| std::fs::read_link(it.path()).ok())
            .filter(|it| it.to_string_lossy().starts_with("socket:"))
            .count()
    };
    let before = sockets();
    let seed = 38;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for _ in 0..400 {
        let control = server.connect();
        let name = cookie(random.lowercase() as u8);
        // It may be refused at any point, and what is sent then is nobody's.
        let say = |peer: &Peer, bytes: &[u8]| drop((&peer.0).write_all(bytes));
        let steps = random.u8(..4);
        let mut streams = Vec::new();
        if steps > 0 {
            say(&control, &name);
        }
        if steps > 1 {
            say(&control, &(TWO_PHASES.len() as u32).to_be_bytes());
            say(&control, TWO_PHASES.as_bytes());
        }
        if steps > 2 {
            let stream = server.connect();
            say(&stream, &name);
            say(&stream, &noise(&mut random));
            streams.push(stream);
        }
        say(&control, &noise(&mut random));
        if random.bool() {
            let _ = rustix::net::sockopt::set_socket_linger(&control.0, Some(Duration::ZERO));
        }
    }
    server.serves("");
    let until = Instant::now() + DEADLINE;
    while sockets() > before {
        assert!(Instant::now() < until, "{} sockets, {before} before", sockets());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(!server.said().contains("panicked"), "{}", server.said());
}

#[test]
fn a_flood_of_words_that_the_test_is_over_holds_up_nobody() {
    let server = Server::start(&[]);
    // The server waits for what was announced, and does not look at what is said meanwhile.
    let announced = r#"{"tcp":true,"omit":0,"time":0,"num":1000000000000,"blockcount":0,"parallel":1,"len":131072}"#;
    let (control, _stream) = server.running(announced);
    let flood = vec![4; 1 << 20];
    for _ in 0..30 {
        // It may have had enough.
        if (&control.0).write_all(&flood).is_err() {
            break;
        }
    }
    drop(control);
    let until = Instant::now() + DEADLINE;
    let port = server.address.port().to_string();
    loop {
        let output = run(&["127.0.0.1", "-p", &port, "-n", "64K", "--connect-timeout", "20000"]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            break;
        }
        assert!(said.contains("busy") && Instant::now() < until, "{said}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_for_one_test_begins_no_second_one() {
    let mut server = Server::start(&["-1"]);
    // Its test is over but for the last word, and its place is free.
    let (control, _stream) = server.running(PARAMETERS);
    control.send(&[4]);
    assert_eq!(control.state(), 13);
    control.frame(RESULTS);
    control.object();
    assert_eq!(control.state(), 14);
    let second = server.connect();
    second.send(&cookie(b'b'));
    assert_eq!(second.state(), -1, "busy, and not a test that would be cut off");
    control.send(&[16]);
    let until = Instant::now() + DEADLINE;
    while server.wharf.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "the server does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(server.wharf.child.wait().unwrap().success());
    server.ended = true;
}

/// Ctrl+C ends several tests wherever they are: in one, after its report, or in the pause between two.
#[cfg(unix)]
#[test]
fn ctrl_c_between_two_tests_ends_them_all() {
    use rustix::process::{Pid, Signal, kill_process};
    let server = Server::start(&[]);
    let port = server.address.port().to_string();
    let start = |pause: &str| {
        Command::new(env!("CARGO_BIN_EXE_wharf"))
            .args([
                "perf",
                "run",
                "127.0.0.1",
                "-p",
                &port,
                "-n",
                "1",
                "-i",
                "0",
                "--repeat",
                "100000",
                "--pause",
                pause,
            ])
            .env_remove("RUST_LOG")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    };
    for attempt in 0..8 {
        let mut client = start(if attempt < 4 { "0" } else { "60" });
        let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
        assert!(lines.by_ref().any(|line| line.unwrap() == "iperf Done."));
        if attempt >= 4 {
            // The connection's end is waited for, and then comes the pause.
            std::thread::sleep(Duration::from_millis(300));
        }
        std::thread::spawn(move || lines.for_each(drop));
        kill_process(Pid::from_child(&client), Signal::INT).unwrap();
        let until = Instant::now() + DEADLINE;
        while client.try_wait().unwrap().is_none() {
            if Instant::now() > until {
                client.kill().unwrap();
                panic!("attempt {attempt}: Ctrl+C was not heard");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let output = client.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("the client has terminated"), "{said}");
    }
}

// --- Clients against hostile servers ---

/// A server that plays its part by hand.
fn hostile(play: impl FnOnce(Peer, &TcpListener) + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        let (socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        play(Peer(socket), &listener);
    });
    port
}

fn client_says(play: impl FnOnce(Peer, &TcpListener) + Send + 'static, words: &str) {
    client_with(play, &["--rcv-timeout", "1000"], words);
}

fn client_with(play: impl FnOnce(Peer, &TcpListener) + Send + 'static, more: &[&str], words: &str) {
    let port = hostile(play).to_string();
    let started = Instant::now();
    let output = run(&[&["127.0.0.1", "-p", &port, "-t", "1"], more].concat());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(words), "{said}");
    assert!(!said.contains('\u{1b}') && !said.contains("panicked"), "{said}");
    assert!(started.elapsed() < DEADLINE);
}

#[test]
fn a_client_names_what_the_server_did() {
    client_says(|peer, _| peer.send(&[0xFF]), "the server is busy running a test. try again later");
    client_says(|peer, _| peer.send(&[0xFE, 0, 0, 0, 27, 0, 0, 0, 0]), "larger than the server's limit");
    client_says(|peer, _| peer.send(&[0xFE, 0, 0, 0, 142]), "test authorization failed");
    client_says(|peer, _| peer.send(&[0xFE, 0, 0, 3, 231, 0, 0, 0, 13]), "unknown error 999");
    client_says(|peer, _| peer.send(&[11]), "the server has terminated");
    client_says(|peer, _| peer.send(&[77]), "unknown control message");
    client_says(|_, _| {}, "control socket has closed unexpectedly");
}

#[test]
fn a_client_does_not_follow_states_in_a_wrong_order() {
    for state in [1, 2, 10, 13, 14, 16] {
        client_says(move |peer, _| peer.send(&[state]), "unknown control message");
    }
    client_says(
        |peer, _| {
            peer.send(&[9, 9]);
            peer.is_closed();
        },
        "unknown control message",
    );
}

#[test]
fn a_client_gives_up_on_a_silent_server() {
    client_says(|peer, _| peer.is_closed(), "silent for too long");
    client_says(
        |peer, _| {
            peer.send(&[9]);
            peer.is_closed();
        },
        "silent for too long",
    );
    // Streams are taken, and then nothing.
    client_says(
        |peer, listener| {
            peer.send(&[9, 10]);
            let stream = listener.accept().unwrap();
            peer.is_closed();
            drop(stream);
        },
        "silent for too long",
    );
}

#[test]
fn a_client_does_not_wait_for_ever_for_what_an_error_is() {
    // In a running test nothing has a time that would end it.
    client_says(
        |peer, listener| {
            peer.send(&[9, 10]);
            let stream = listener.accept().unwrap();
            peer.send(&[1, 2]);
            std::thread::sleep(Duration::from_millis(200));
            peer.send(&[0xFE]);
            peer.is_closed();
            drop(stream);
        },
        "silent for too long",
    );
}

#[test]
fn a_client_takes_no_absurd_results() {
    for head in [vec![0, 0, 0, 0], vec![0x40, 0, 0, 0], vec![0, 0, 0, 2, b'[', b']']] {
        client_says(
            move |peer, listener| {
                peer.send(&[9, 10]);
                let (mut stream, _) = listener.accept().unwrap();
                peer.send(&[1, 2]);
                std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
                let mut cookie = [0; 37];
                (&peer.0).read_exact(&mut cookie).unwrap();
                peer.object();
                assert_eq!(peer.state(), 4);
                peer.send(&[13]);
                peer.object();
                peer.send(&head);
                peer.is_closed();
            },
            "unable to receive results",
        );
    }
}

#[test]
fn a_connect_that_takes_too_long_is_given_up() {
    // A backlog that is full: the system leaves further connections without an answer.
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    rustix::net::listen(&socket, 0).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let filled: Vec<_> = (0..3).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(200))).collect();
    let output = run(&["127.0.0.1", "-p", &address.port().to_string(), "--connect-timeout", "500"]);
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("unable to connect to server"), "{said}");
    drop(filled);
}

#[test]
fn a_client_does_not_wait_for_bytes_that_cannot_move_any_more() {
    // The stream is gone, of a test that ends with bytes: it ends with those that went.
    let port = hostile(|peer, listener| {
        peer.send(&[9, 10]);
        let (stream, _) = listener.accept().unwrap();
        peer.send(&[1, 2]);
        std::thread::sleep(Duration::from_millis(100));
        drop(stream);
        let mut cookie = [0; 37];
        (&peer.0).read_exact(&mut cookie).unwrap();
        peer.object();
        assert_eq!(peer.state(), 4);
        peer.send(&[13]);
        peer.object();
        peer.frame(RESULTS);
        peer.send(&[14]);
        peer.is_closed();
    });
    let output = run(&["127.0.0.1", "-p", &port.to_string(), "-n", "100G"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("ended before the test"), "{said}");
    // The stream is there, and nobody reads it.
    let port = hostile(|peer, listener| {
        peer.send(&[9, 10]);
        let stream = listener.accept().unwrap();
        peer.send(&[1, 2]);
        peer.is_closed();
        drop(stream);
    });
    let output = run(&["127.0.0.1", "-p", &port.to_string(), "-n", "100G", "--rcv-timeout", "500"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("nothing received"));
}

#[test]
fn a_client_does_not_store_what_a_server_floods_it_with() {
    // It waits for an answer to its hello while states come that are not due.
    client_with(
        |peer, _| {
            peer.send(&[9, 10]);
            let piece = vec![1; 1 << 20];
            while (&peer.0).write_all(&piece).is_ok() {}
        },
        &["-u"],
        "more than there is to say",
    );
}

#[test]
fn a_test_ends_whose_bytes_have_come_before_its_start_was_told() {
    let port = hostile(|peer, listener| {
        peer.send(&[9, 10]);
        let (mut stream, _) = listener.accept().unwrap();
        // A server sends as soon as it has told that the test runs, and data may overtake that.
        stream.write_all(&[7; 4096]).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        peer.send(&[1, 2]);
        let mut cookie = [0; 37];
        (&peer.0).read_exact(&mut cookie).unwrap();
        peer.object();
        assert_eq!(peer.state(), 4);
        peer.send(&[13]);
        peer.object();
        peer.frame(RESULTS);
        peer.send(&[14]);
        peer.is_closed();
    });
    let output = run(&["127.0.0.1", "-p", &port.to_string(), "-R", "-n", "4K", "--rcv-timeout", "30000"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_client_gives_up_on_a_server_that_is_silent_in_the_second_phase() {
    for (after, words) in
        [(&[][..], "silent for too long"), (&[10, 1][..], "silent for too long"), (&[14], "unknown control")]
    {
        client_with(
            move |peer, listener| {
                peer.send(&[9, 10]);
                let (mut stream, _) = listener.accept().unwrap();
                std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
                peer.send(&[1, 2]);
                let mut cookie = [0; 37];
                (&peer.0).read_exact(&mut cookie).unwrap();
                assert_eq!(peer.object()["wharf_two_phase"], 1);
                assert_eq!(peer.state(), 4);
                peer.send(&[13]);
                peer.object();
                peer.frame(&RESULTS.replace("\"streams\"", "\"wharf_two_phase\":1,\"streams\""));
                peer.send(&[14]);
                assert_eq!(peer.state(), 100);
                peer.send(after);
                peer.is_closed();
            },
            &["--two-phase", "--rcv-timeout", "1000"],
            words,
        );
    }
}

#[test]
fn noise_at_any_step_does_not_kill_a_client() {
    let seed = 39;
    println!("seed {seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..100 {
        let good: &[u8] = &[9, 10, 1, 2, 13];
        let steps = random.usize(..=good.len());
        let rest: Vec<Vec<u8>> = (0..4).map(|_| noise(&mut random)).collect();
        let options = random.choice([&["-n", "1M"][..], &["-n", "1M", "-R"], &["-k", "5", "--two-phase"]]).unwrap();
        let port = hostile(move |peer, listener| {
            for state in &good[..steps] {
                let _ = (&peer.0).write_all(&[*state]);
                if *state == 10 {
                    let (mut stream, _) = listener.accept().unwrap();
                    std::thread::spawn(move || std::io::copy(&mut stream, &mut std::io::sink()));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            for bytes in rest {
                let _ = (&peer.0).write_all(&bytes);
            }
            let _ = peer.0.shutdown(std::net::Shutdown::Write);
            peer.is_closed();
        });
        let output = run(&[&["127.0.0.1", "-p", &port.to_string(), "--rcv-timeout", "500"][..], options].concat());
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(matches!(output.status.code(), Some(0 | 1)), "round {round}: {} {said}", output.status);
        assert!(!said.contains("panicked") && !said.contains('\u{1b}'), "round {round}: {said}");
    }
}
