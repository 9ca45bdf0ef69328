//! The lab as its users and its own scenarios start it: its servers answer right, and end when they should; what it is
//! told wrongly it says with a remedy.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::time::{Duration, Instant};

const PROGRAM: &str = env!("CARGO_BIN_EXE_wharf-bench");
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Server {
    fn start(options: &[&str]) -> Server {
        let mut child = Command::new(PROGRAM)
            .args(["child", "serve"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let address = line.trim().strip_prefix("listening on ").unwrap().parse().unwrap();
        Server { child, input, output, address }
    }

    fn connect(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_nodelay(true).unwrap();
        socket
    }

    fn heap(&mut self) -> u64 {
        self.input.as_mut().unwrap().write_all(b"heap\n").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line.trim().strip_prefix("heap ").unwrap().parse().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn heard(socket: &mut TcpStream, bytes: usize) -> Vec<u8> {
    let mut answer = vec![0; bytes];
    socket.read_exact(&mut answer).unwrap();
    answer
}

#[test]
fn every_server_that_echoes_sends_back_what_it_was_sent() {
    for options in [
        &["echo"][..],
        &["echo", "--packets", "--workers", "2"],
        &["echo", "--pooled"],
        &["echo-loop"],
        &["echo-session", "--workers", "3", "--limit", "2"],
        &["spin", "--size", "1000"],
        &["spin-session", "--size", "1000", "--spin-us", "1"],
    ] {
        let server = Server::start(options);
        let mut socket = server.connect();
        let sent: Vec<u8> = (0..100_000).map(|at| b'a' + (at % 23) as u8).collect();
        let mut writer = socket.try_clone().unwrap();
        let all = sent.clone();
        let writing = std::thread::spawn(move || writer.write_all(&all).unwrap());
        assert!(heard(&mut socket, sent.len()) == sent, "{options:?}");
        writing.join().unwrap();
    }
}

#[test]
fn every_chat_tells_each_line_to_everybody_and_none_twice() {
    for kind in ["chat", "chat-chunks", "chat-tutorial"] {
        let server = Server::start(&[kind, "--workers", "2", "--limit", "1"]);
        let mut members: Vec<TcpStream> = (0..3).map(|_| server.connect()).collect();
        // Who has come is a member a moment later: until everybody hears what is said.
        for said in 0.. {
            members[0].write_all(format!("come {said:04}\n").as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(20));
            let there = |member: &TcpStream| {
                let mut one = [0];
                member.set_nonblocking(true).unwrap();
                let there = member.peek(&mut one).is_ok();
                member.set_nonblocking(false).unwrap();
                there
            };
            if members.iter().all(there) {
                break;
            }
            assert!(said < 500, "{kind}: nobody hears anything");
        }
        // In pieces, and several at a time.
        for piece in ["fir", "st\nsecond\nthi", "rd\n"] {
            members[1].write_all(piece.as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        for member in members {
            let lines = BufReader::new(member).lines().map(Result::unwrap);
            let heard: Vec<String> = lines.filter(|line| !line.starts_with("come ")).take(3).collect();
            assert_eq!(heard, ["first", "second", "third"], "{kind}");
        }
    }
}

#[test]
fn the_mixed_server_answers_every_message_once_after_its_pause() {
    let folder = std::env::temp_dir().join(format!("wharf-bench-test-{}", std::process::id()));
    std::fs::write(&folder, vec![7; 4096 * 4]).unwrap();
    let server = Server::start(&["mixed", "--size", "32", "--workers", "2", "--file", folder.to_str().unwrap()]);
    let mut socket = server.connect();
    let message = |block: u64, mark: u8| {
        let mut message = vec![mark; 32];
        message[..8].copy_from_slice(&block.to_le_bytes());
        message
    };
    let begin = Instant::now();
    // The third names a block that is not there, and has no answer.
    let messages = [message(0, 1), message(3, 2), message(4, 3), message(1, 4)];
    socket.write_all(&messages.concat()).unwrap();
    let answers = heard(&mut socket, 96);
    assert!(begin.elapsed() >= Duration::from_millis(1));
    let mut marks: Vec<u8> = answers.chunks(32).map(|answer| answer[31]).collect();
    marks.sort_unstable();
    assert_eq!(marks, [1, 2, 4]);
    std::fs::remove_file(folder).unwrap();
}

#[test]
fn a_server_counts_its_heap_and_ends_with_whoever_started_it() {
    let mut server = Server::start(&["echo"]);
    let before = server.heap();
    let mut sockets: Vec<TcpStream> = (0..50).map(|_| server.connect()).collect();
    for socket in &mut sockets {
        socket.write_all(b"x").unwrap();
        heard(socket, 1);
    }
    // A buffer of 16 KiB each.
    let grown = server.heap() - before;
    assert!((50 * 16 * 1024..50 * 40 * 1024).contains(&grown), "{grown}");
    drop(server.input.take());
    let deadline = Instant::now() + PATIENCE;
    while server.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "it goes on alone");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_build_that_is_compared_takes_a_turn_for_each_line_and_ends_with_the_lab() {
    for options in [
        &["queue-one-thread", "1000"][..],
        &["queue-burst", "2", "1", "64", "1000"],
        &["queue-sparse", "1", "5"],
        &["blocked-flow", "2", "1", "1"],
    ] {
        let mut child = Command::new(PROGRAM)
            .args(["child", "turns"])
            .args(options)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        for _ in 0..2 {
            input.write_all(b"turn\n").unwrap();
            let mut line = String::new();
            output.read_line(&mut line).unwrap();
            assert!(line.starts_with("[{") && line.contains("messages_per_second"), "{options:?}: {line:?}");
        }
        drop(input);
        assert!(child.wait().unwrap().success(), "{options:?}");
    }
}

#[test]
fn another_build_beside_a_scenario_that_takes_none_is_refused() {
    let output = Command::new(PROGRAM).args(["wake", "--quick", "--beside", PROGRAM]).output().unwrap();
    assert!(!output.status.success());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("echo, broadcast, queue, blocked and trickle"), "{said}");
}

fn page(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).arg("page").args(arguments).output().unwrap()
}

#[test]
fn a_page_of_nothing_is_an_error_with_a_remedy_and_one_of_rows_is_a_page() {
    let folder = std::env::temp_dir().join(format!("wharf-bench-page-{}", std::process::id()));
    std::fs::create_dir(&folder).unwrap();
    let rows = folder.join("rows.json");
    let (file, out) = (rows.to_str().unwrap(), folder.to_str().unwrap());
    let said = |output: Output| {
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(said(page(&[])).contains("page --json FILE"));
    assert!(said(page(&["--json", file])).contains("rows.json cannot be read"));
    std::fs::write(&rows, "{}").unwrap();
    assert!(said(page(&["--json", file])).contains("is not a run's rows"));
    // Rows of somebody else's, with the least that they have.
    let row = r#"[{"scenario":"echo","case":"c","system":"s","messages_per_second":1.0,"cpu_us_per_message":2.0,
        "p50_us":null,"p99_us":null,"p999_us":null,"ratio_cpu":1.0,"ratio_rate":null,"rounds":7}]"#;
    std::fs::write(&rows, row).unwrap();
    assert!(page(&["--json", file, "--out", out]).status.success());
    let text = std::fs::read_to_string(folder.join("benchmarks.md")).unwrap();
    assert!(text.contains("## echo") && text.contains("2.000"), "{text}");
    std::fs::remove_dir_all(folder).unwrap();
}
