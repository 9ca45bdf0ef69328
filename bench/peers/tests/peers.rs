//! That the peers answer right: a wrong one would be measured for nothing.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

const KINDS: [&str; 4] = ["echo", "spin", "chat", "mixed"];

/// Which program has which kinds.
const PROGRAMS: [(&str, &[&str]); 13] = [
    ("asio", &["echo", "spin"]),
    ("chat-loop", &["chat"]),
    ("compio", &["echo", "spin", "mixed"]),
    ("epoll", &["echo", "spin"]),
    ("glommio", &["echo", "spin", "mixed"]),
    ("mio", &["echo"]),
    ("monoio", &["echo", "spin", "mixed"]),
    ("poll", &["echo"]),
    ("select", &["echo"]),
    ("threads", &["echo"]),
    ("tokio", &["echo", "spin", "chat", "mixed"]),
    // Its handlers are slow where a message begins with a certain letter, and right all the same.
    ("tokio-echo", &["echo"]),
    ("uring", &["echo"]),
];

/// A server that says nothing for so long has hung.
const SILENCE_MAX: Duration = Duration::from_secs(60);

fn program(name: &str) -> Option<PathBuf> {
    match name {
        "asio" => asio(),
        _ => Some(Path::new(env!("CARGO_BIN_EXE_tokio")).with_file_name(name)),
    }
}

/// Built once for all tests. Where it cannot be built, that is said; in CI it is a failure.
fn asio() -> Option<PathBuf> {
    static BUILT: OnceLock<Option<PathBuf>> = OnceLock::new();
    let build = || {
        let output = Path::new(env!("CARGO_TARGET_TMPDIR")).join("asio");
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("build-asio");
        if Command::new(script).arg(&output).status().is_ok_and(|status| status.success()) {
            return Some(output);
        }
        let message = "asio is not tested, for it could not be built: apt-get install g++ libasio-dev";
        assert!(std::env::var_os("CI").is_none(), "{message}");
        eprintln!("{message}");
        None
    };
    BUILT.get_or_init(build).clone()
}

struct Server {
    child: Child,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(program: &Path, arguments: &[&str]) -> Server {
        let mut command = Command::new(program);
        let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").expect("it says where it listens").parse().unwrap();
        Server { child, output, address }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_nodelay(true).unwrap();
        socket.set_read_timeout(Some(SILENCE_MAX)).unwrap();
        socket.set_write_timeout(Some(SILENCE_MAX)).unwrap();
        socket
    }

    fn heap(&mut self) -> u64 {
        writeln!(self.child.stdin.as_mut().unwrap(), "heap").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().strip_prefix("heap ").expect("it says how much it holds").parse().unwrap()
    }
}

/// Every program that has this kind, with one worker and with two.
fn each(kind: &str, arguments: &[&str], test: impl Fn(&mut Server)) {
    for (name, kinds) in PROGRAMS {
        for workers in ["1", "2"] {
            if !kinds.contains(&kind) {
                continue;
            }
            let Some(program) = program(name) else { continue };
            println!("{name} {kind}, {workers} workers");
            test(&mut Server::start(&program, &[&[kind, "--workers", workers], arguments].concat()));
        }
    }
}

/// Bytes that differ from place to place and from `seed` to `seed`.
fn pattern(seed: usize, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at * 31 + at / 251 + seed * 17) as u8).collect()
}

#[test]
fn a_hundred_connections_get_their_own_bytes_back() {
    each("echo", &[], |server| {
        let mut sockets: Vec<TcpStream> = (0..100).map(|_| server.connect()).collect();
        for bytes in [1, 32, 1000, 16 * 1024, 16 * 1024 + 1, 50_000] {
            for (seed, socket) in sockets.iter_mut().enumerate() {
                socket.write_all(&pattern(seed, bytes)).unwrap();
            }
            for (seed, socket) in sockets.iter_mut().enumerate() {
                let mut answer = vec![0; bytes];
                socket.read_exact(&mut answer).unwrap();
                assert!(answer == pattern(seed, bytes), "connection {seed}, {bytes} bytes");
            }
        }
    });
}

#[test]
fn a_long_stream_comes_back_whole_and_then_its_end() {
    // More than both sockets and all buffers of a ring take.
    const BYTES: usize = 32 << 20;
    each("echo", &[], |server| {
        let sent = pattern(1, BYTES);
        let mut socket = server.connect();
        let mut sender = socket.try_clone().unwrap();
        let copy = sent.clone();
        let sending = thread::spawn(move || {
            for (at, piece) in copy.chunks(70_001).enumerate() {
                sender.write_all(piece).unwrap();
                if at % 40 == 0 {
                    thread::sleep(Duration::from_millis(1));
                }
            }
            sender.shutdown(Shutdown::Write).unwrap();
        });
        // The server is to find no room now and then.
        thread::sleep(Duration::from_millis(200));
        let mut answer = Vec::new();
        socket.read_to_end(&mut answer).unwrap();
        sending.join().unwrap();
        assert!(answer == sent, "{} of {BYTES} bytes came back, or others", answer.len());
    });
}

#[test]
fn connections_that_come_and_go_leave_nothing() {
    each("echo", &[], |server| {
        let round = |server: &Server| {
            let mut sockets: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
            for socket in &mut sockets {
                socket.write_all(b"hello").unwrap();
            }
            for (at, socket) in sockets.iter_mut().enumerate() {
                let mut answer = [0; 5];
                socket.read_exact(&mut answer).unwrap();
                // Some go in peace, some leave bytes behind and so reset the connection.
                if at % 2 == 0 {
                    socket.write_all(&[0; 3000]).unwrap();
                }
            }
        };
        round(server);
        let before = server.heap();
        assert!(before > 0);
        (0..10).for_each(|_| round(server));
        // 500 connections with a buffer of 16 KiB each would be eight million bytes.
        let deadline = Instant::now() + SILENCE_MAX;
        while server.heap() > before + 2_000_000 {
            assert!(Instant::now() < deadline, "{before} bytes before, {} after", server.heap());
            thread::sleep(Duration::from_millis(10));
        }
    });
}

#[test]
fn a_message_is_computed_and_comes_back() {
    const SIZE: usize = 24;
    const MESSAGES: usize = 50;
    each("spin", &["--size", "24", "--spin-us", "200"], |server| {
        let mut sockets: Vec<TcpStream> = (0..10).map(|_| server.connect()).collect();
        let begin = Instant::now();
        // Broken where no message ends, and half of one left over.
        for (seed, socket) in sockets.iter_mut().enumerate() {
            let sent = pattern(seed, SIZE * MESSAGES + SIZE / 2);
            sent.chunks(SIZE * 3 + 7).for_each(|piece| socket.write_all(piece).unwrap());
        }
        for (seed, socket) in sockets.iter_mut().enumerate() {
            let mut answer = vec![0; SIZE * MESSAGES];
            socket.read_exact(&mut answer).unwrap();
            assert!(answer == pattern(seed, SIZE * MESSAGES), "connection {seed}");
        }
        // Two threads at most compute.
        assert!(begin.elapsed() >= Duration::from_micros(200) * (10 * MESSAGES / 2) as u32);
        for (seed, socket) in sockets.iter_mut().enumerate() {
            socket.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
            let half = socket.read(&mut [0; SIZE]).map_err(|error| error.kind());
            assert!(matches!(half, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)), "connection {seed}: {half:?}");
        }
    });
}

#[test]
fn a_line_goes_to_every_member() {
    const MEMBERS: usize = 20;
    const LINES: usize = 50;
    each("chat", &[], |server| {
        let mut members: Vec<TcpStream> = Vec::new();
        for number in 0..MEMBERS {
            members.push(server.connect());
            // A member hears itself: so it is one before anything is counted.
            let hello = format!("hello {number}\n");
            members[number].write_all(hello.as_bytes()).unwrap();
            let mut own = vec![0; hello.len()];
            members[number].read_exact(&mut own).unwrap();
            assert_eq!(own, hello.as_bytes());
        }
        thread::scope(|scope| {
            for (number, member) in members.iter().enumerate() {
                scope.spawn(move || {
                    let mut said = member;
                    for line in 0..LINES {
                        // Now and then a line comes in two pieces.
                        let text = format!("{number} {line}\n");
                        let (first, second) = text.split_at(if line % 7 == 0 { 2 } else { 0 });
                        said.write_all(first.as_bytes()).unwrap();
                        said.write_all(second.as_bytes()).unwrap();
                    }
                });
                scope.spawn(move || {
                    let mut next: HashMap<usize, usize> = HashMap::new();
                    let lines = BufReader::new(member).lines().map(Result::unwrap);
                    for line in lines.filter(|line| !line.starts_with("hello")).take(MEMBERS * LINES) {
                        let (who, what) = line.split_once(' ').unwrap();
                        let next = next.entry(who.parse().unwrap()).or_default();
                        assert_eq!(what.parse(), Ok(*next), "member {number} hears {who}");
                        *next += 1;
                    }
                    assert!(next.len() == MEMBERS && next.values().all(|&lines| lines == LINES));
                });
            }
        });
        // One goes, and the others go on.
        drop(members.swap_remove(0));
        members[0].write_all(b"still here\n").unwrap();
        for member in &members {
            let mut line = String::new();
            BufReader::with_capacity(1, member).read_line(&mut line).unwrap();
            assert_eq!(line, "still here\n");
        }
    });
}

#[test]
fn a_message_is_answered_when_its_block_was_read() {
    const BLOCKS: u64 = 64;
    const MESSAGES: u64 = 200;
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("blocks");
    std::fs::write(&file, vec![7; BLOCKS as usize * 4096]).unwrap();
    let message = |connection: u8, number: u64, block: u64| {
        let mut message = [connection; 32];
        message[..8].copy_from_slice(&block.to_le_bytes());
        message[8..16].copy_from_slice(&number.to_le_bytes());
        message
    };
    each("mixed", &["--size", "32", "--file", file.to_str().unwrap()], |server| {
        let mut sockets: Vec<TcpStream> = (0..8).map(|_| server.connect()).collect();
        let begin = Instant::now();
        for (connection, socket) in sockets.iter_mut().enumerate() {
            // The first message's block is behind the file's end, so there is no answer: the file is really read.
            let mut bytes = message(connection as u8, MESSAGES, BLOCKS).to_vec();
            (0..MESSAGES).for_each(|number| bytes.extend(message(connection as u8, number, number % BLOCKS)));
            bytes.chunks(1000).for_each(|piece| socket.write_all(piece).unwrap());
        }
        for (connection, socket) in sockets.iter_mut().enumerate() {
            let mut answers: Vec<[u8; 32]> = Vec::new();
            for _ in 0..MESSAGES {
                let mut answer = [0; 32];
                socket.read_exact(&mut answer).unwrap();
                answers.push(answer);
            }
            answers.sort_by_key(|answer| u64::from_le_bytes(answer[8..16].try_into().unwrap()));
            let expected: Vec<_> =
                (0..MESSAGES).map(|number| message(connection as u8, number, number % BLOCKS)).collect();
            assert!(answers == expected, "connection {connection}");
        }
        assert!(begin.elapsed() >= Duration::from_millis(1));
        // Once more one by one: nothing was left over.
        for (connection, socket) in sockets.iter_mut().enumerate() {
            let sent = message(connection as u8, 5, 6);
            let begin = Instant::now();
            socket.write_all(&sent).unwrap();
            let mut answer = [0; 32];
            socket.read_exact(&mut answer).unwrap();
            assert!(answer == sent && begin.elapsed() >= Duration::from_millis(1));
        }
    });
}

#[test]
fn a_kind_that_is_not_there_is_refused() {
    for (name, kinds) in PROGRAMS {
        let Some(program) = program(name) else { continue };
        for kind in KINDS.into_iter().chain(["nonsense"]).filter(|kind| !kinds.contains(kind)) {
            let output = Command::new(&program).args([kind, "--workers", "2"]).stdin(Stdio::null()).output().unwrap();
            assert_eq!(output.status.code(), Some(2), "{name} {kind}");
            assert_eq!(String::from_utf8_lossy(&output.stderr).trim(), format!("unsupported {kind}"), "{name}");
        }
    }
}

#[test]
fn the_end_of_standard_input_is_the_end() {
    for (name, kinds) in PROGRAMS {
        let Some(program) = program(name) else { continue };
        let kind = kinds[0];
        let mut server = Server::start(&program, &[kind]);
        let _connected = server.connect();
        drop(server.child.stdin.take());
        let deadline = Instant::now() + SILENCE_MAX;
        while server.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{name} {kind} goes on");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn select_closes_what_is_beyond_its_sets() {
    const FITS_SURELY: usize = 900;
    let server = Server::start(&program("select").unwrap(), &["echo"]);
    let mut sockets: Vec<TcpStream> = (0..1100).map(|_| server.connect()).collect();
    for (number, socket) in sockets.iter_mut().enumerate() {
        // What the server closes may be closed before we write.
        let written = socket.write_all(b"hello");
        let mut answer = Vec::new();
        let read = socket.take(5).read_to_end(&mut answer);
        if number < FITS_SURELY {
            assert!(written.is_ok() && answer == b"hello", "connection {number}: {read:?}");
        } else if number >= 1024 {
            assert!(answer.is_empty(), "connection {number}");
        }
    }
}
