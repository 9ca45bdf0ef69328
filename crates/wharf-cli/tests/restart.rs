//! Servers that are started with their listening sockets, hand them over, and serve Unix sockets; and the limits that
//! an operator sets.

mod common;

use common::{DEADLINE, Wharf, command};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// A running server.
struct Server(Wharf);

impl Server {
    fn start(mut command: Command) -> Server {
        Server(Wharf::spawn(&mut command).unwrap())
    }

    #[track_caller]
    fn listening_on(&self) -> String {
        self.0.listening_on()
    }

    fn signal(&self, signal: Signal) {
        self.0.signal(signal);
    }

    /// Waits for its end; returns what it said on stderr.
    #[track_caller]
    fn end(self) -> String {
        let end = self.0.end();
        assert!(end.status.success(), "{}: {:?}", end.status, end.errors);
        end.errors.join("\n")
    }
}

fn wharf(arguments: &[&str]) -> Command {
    let mut command = command(arguments);
    command.stdin(Stdio::null());
    command
}

/// The program as a supervisor starts it: with a listening socket as descriptor 3. A shell knows its own process
/// number, which the program keeps.
fn activated(socket: impl Into<OwnedFd>, arguments: &[&str]) -> Command {
    let script = r#"LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=main exec "$0" "$@" 3<&0 </dev/null"#;
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_wharf")]).args(arguments).env_remove("RUST_LOG");
    command.stdin(socket.into());
    command
}

#[track_caller]
fn round_trip(socket: &mut (impl Read + Write), message: &[u8]) {
    socket.write_all(message).unwrap();
    let mut got = vec![0; message.len()];
    socket.read_exact(&mut got).unwrap();
    assert_eq!(got, message);
}

fn client(address: &str) -> TcpStream {
    let socket = TcpStream::connect(address).expect("a connection attempt failed");
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn sessions_served(said: &str) -> usize {
    let ended = said.lines().find_map(|line| line.strip_prefix("ended: ")).unwrap_or_else(|| panic!("{said}"));
    ended.split(' ').next().unwrap().parse().unwrap()
}

#[test]
fn a_listener_is_handed_over_and_no_connection_attempt_fails() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let start = || Server::start(activated(listener.try_clone().unwrap(), &["-v", "serve", "echo", "--drain", "25"]));
    let old = start();
    assert_eq!(old.listening_on(), address);
    let mut long = client(&address);
    round_trip(&mut long, b"a long conversation");

    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..2)
        .map(|_| {
            let (address, stop, served) = (address.clone(), stop.clone(), served.clone());
            thread::spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    round_trip(&mut client(&address), b"hello");
                    served.fetch_add(1, Ordering::SeqCst);
                }
            })
        })
        .collect();
    let some_more = |many: usize| {
        let until = served.load(Ordering::SeqCst) + many;
        let deadline = Instant::now() + DEADLINE;
        while served.load(Ordering::SeqCst) < until && !clients.iter().any(|client| client.is_finished()) {
            assert!(Instant::now() < deadline, "nobody is served");
            thread::sleep(Duration::from_millis(1));
        }
    };
    some_more(100);
    let new = start();
    assert_eq!(new.listening_on(), address);
    some_more(100);
    old.signal(Signal::TERM);
    some_more(200);
    // The old one still serves whom it has.
    round_trip(&mut long, b"goes on while it drains");
    drop(long);
    let said = old.end();
    assert!(sessions_served(&said) >= 100, "{said}");
    assert!(said.contains("was inherited") && said.contains("\"main\""), "{said}");
    some_more(100);
    stop.store(true, Ordering::SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
    new.signal(Signal::TERM);
    assert!(sessions_served(&new.end()) >= 100);
}

#[test]
fn a_unix_socket_can_be_inherited_too() {
    let path = place("inherited");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let server = Server::start(activated(listener, &["serve", "echo"]));
    assert_eq!(server.listening_on(), format!("unix:{}", path.display()));
    round_trip(&mut UnixStream::connect(&path).unwrap(), b"hello");
    server.signal(Signal::TERM);
    server.end();
    std::fs::remove_file(&path).expect("whoever made it takes it away");
}

#[test]
fn the_file_server_and_the_relay_take_an_inherited_socket_too() {
    let directory = place("directory");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("a.txt"), "some text").unwrap();
    let listener = || TcpListener::bind("127.0.0.1:0").unwrap();
    let (for_files, for_relay) = (listener(), listener());
    let (files_at, relay_at) =
        (for_files.local_addr().unwrap().to_string(), for_relay.local_addr().unwrap().to_string());
    // The address that is not used is one that could not be.
    let path = directory.to_str().unwrap();
    let files = Server::start(activated(for_files, &["serve", "files", path, "--listen", "192.0.2.1:1"]));
    let relay = Server::start(activated(for_relay, &["relay", "192.0.2.1:1", &files_at]));
    assert_eq!((files.listening_on(), relay.listening_on()), (files_at, relay_at.clone()));
    let mut socket = client(&relay_at);
    socket.write_all(b"GET /a.txt HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("some text"), "{answer}");
    for server in [relay, files] {
        server.signal(Signal::TERM);
        server.end();
    }
    let local = std::os::unix::net::UnixListener::bind(directory.join("socket")).unwrap();
    fails(&activated(local, &["serve", "files", path]).output().unwrap(), "is no TCP socket", "pass on one that is");
    std::fs::remove_dir_all(&directory).unwrap();
}

#[test]
fn sockets_that_are_for_another_process_are_not_touched() {
    let mut command = wharf(&["serve", "echo", "--listen", "127.0.0.1:0"]);
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "1");
    let server = Server::start(command);
    round_trip(&mut client(&server.listening_on()), b"at --listen");
    server.signal(Signal::TERM);
    server.end();
}

#[track_caller]
fn fails(output: &Output, cause: &str, remedy: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.starts_with("wharf: ") && said.contains(cause) && said.contains(remedy), "{said}");
}

#[test]
fn what_is_passed_on_and_is_no_listener_is_an_error_that_says_so() {
    let (one, _other) = UnixStream::pair().unwrap();
    let output = activated(one, &["serve", "echo"]).output().unwrap();
    fails(&output, "descriptor 3 of LISTEN_FDS does not listen", "ListenStream=");
    let file = std::fs::File::open("/dev/null").unwrap();
    fails(&activated(file, &["serve", "echo"]).output().unwrap(), "no socket", "LISTEN_FDS");
}

/// A path that nobody else has.
fn place(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("wharf-cli-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}

#[test]
fn a_server_on_a_unix_socket_serves_and_takes_its_file_away() {
    let path = place("served");
    let address = format!("unix:{}", path.display());
    let server = Server::start(wharf(&["serve", "chat", "--listen", &address]));
    assert_eq!(server.listening_on(), address);
    let mut socket = UnixStream::connect(&path).unwrap();
    round_trip(&mut socket, b"hello\n");
    let mut chat = wharf(&["chat", &address]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    chat.stdin.as_mut().unwrap().write_all(b"from the chat client\n").unwrap();
    let mut heard = [0; 21];
    socket.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"from the chat client\n");
    drop(chat.stdin.take());
    assert!(chat.wait().unwrap().success());

    let taken = wharf(&["serve", "chat", "--listen", &address]).output().unwrap();
    fails(&taken, "cannot listen on unix:", "choose another path");
    server.signal(Signal::INT);
    server.end();
    assert!(!path.exists());
    fails(&wharf(&["chat", &address]).output().unwrap(), "cannot connect to unix:", "is the server running?");
}

#[test]
fn a_connection_is_served_no_faster_than_the_rate_limit() {
    let server = Server::start(wharf(&[
        "serve",
        "echo",
        "--listen",
        "127.0.0.1:0",
        "--rate-limit",
        "64K",
        "--rate-burst",
        "8K",
    ]));
    let mut socket = client(&server.listening_on());
    let begin = Instant::now();
    round_trip(&mut socket, &[7; 64 * 1024]);
    // 8 KiB at once, 16 KiB in the first receive; the rest takes its time.
    let least = Duration::from_millis((64 - 8 - 16) * 1000 / 64);
    assert!(begin.elapsed() >= least, "64 KiB came back after {:?}", begin.elapsed());
}

#[test]
fn silent_connections_are_closed_when_the_operator_says_so() {
    let server = Server::start(wharf(&[
        "serve",
        "echo",
        "--listen",
        "127.0.0.1:0",
        "--idle-timeout",
        "1",
        "--memory-limit",
        "4M",
    ]));
    let mut socket = client(&server.listening_on());
    assert_eq!(socket.read(&mut [0; 8]).unwrap(), 0);
}

#[test]
fn limits_that_make_no_sense_are_refused_with_an_example() {
    for (arguments, remedy) in [
        (&["--memory-limit", "1K"][..], "64M"),
        (&["--memory-limit", "lots"], "64M"),
        (&["--rate-limit", "0"], "64K"),
        (&["--rate-burst", "64K"], "--rate-limit"),
    ] {
        let output = wharf(&["serve", "echo"]).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(remedy), "{arguments:?}: {said}");
    }
}
