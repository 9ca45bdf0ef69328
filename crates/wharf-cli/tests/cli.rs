//! The program as its users meet it: started, talked to over real sockets, ended by signals; what it says, and where.

mod common;

use common::{DEADLINE, Wharf, command};
use rustix::process::{Pid, Signal, getuid, kill_process};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::process::{ChildStdin, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Runs it to its end.
fn run(arguments: &[&str]) -> Output {
    command(arguments).stdin(Stdio::null()).output().unwrap()
}

/// One that is written to.
fn start(arguments: &[&str]) -> Wharf {
    Wharf::spawn(command(arguments).stdin(Stdio::piped())).unwrap()
}

/// A server on a free port, and its address.
fn serve(what: &str, more: &[&str]) -> (Wharf, SocketAddr) {
    let wharf = start(&[&["serve", what, "--listen", "127.0.0.1:0"], more].concat());
    let address = wharf.address();
    (wharf, address)
}

fn input(wharf: &mut Wharf) -> ChildStdin {
    wharf.child.stdin.take().unwrap()
}

fn client(address: SocketAddr) -> TcpStream {
    let socket = TcpStream::connect(address).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.set_write_timeout(Some(DEADLINE)).unwrap();
    socket
}

fn says(socket: &mut TcpStream, text: &str) {
    socket.write_all(text.as_bytes()).unwrap();
}

#[track_caller]
fn hears(socket: &mut TcpStream, text: &str) {
    let mut heard = vec![0; text.len()];
    let result = socket.read_exact(&mut heard);
    assert_eq!(String::from_utf8_lossy(&heard), text, "{result:?}");
}

fn read_to_end(socket: &mut TcpStream) -> Vec<u8> {
    let mut read = Vec::new();
    socket.read_to_end(&mut read).unwrap();
    read
}

/// An error is one sentence on stderr, with its cause and what to do about it, and exit code 1.
#[track_caller]
fn fails_with(output: &Output, start: &str, cause: &str, remedy: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with(start) && said.contains(cause) && said.contains(remedy), "{said}");
}

/// Says loudly that something was not tested, and why.
fn skipped(what: &str, why: &str) {
    // Not by `eprintln`, whose output a passed test swallows.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}

// --- Chat ---

#[test]
fn everybody_in_a_chat_hears_every_line_and_ctrl_c_ends_it() {
    let (wharf, address) = serve("chat", &[]);
    let (mut ann, mut bob) = (client(address), client(address));
    // Who hears the own words is in the room.
    says(&mut ann, "here is Ann\n");
    hears(&mut ann, "here is Ann\n");
    says(&mut bob, "here is Bob\n");
    // Bob may have come before Ann spoke.
    let mut first = String::new();
    BufReader::new(&bob).read_line(&mut first).unwrap();
    hears(&mut ann, "here is Bob\n");
    says(&mut ann, "안녕, Bob\n");
    hears(&mut ann, "안녕, Bob\n");
    let end = wharf.end_by(Signal::INT);
    assert_eq!((end.code, &end.out[..]), (Some(0), &[][..]));
    assert_eq!(end.errors, ["ended: 2 sessions served, 2 at the end"]);
    assert_eq!(read_to_end(&mut ann), b"", "an end, no reset");
}

#[test]
fn lines_in_a_chat_stay_in_one_piece_however_they_come() {
    let (wharf, address) = serve("chat", &[]);
    let (mut ann, mut bob) = (client(address), client(address));
    ann.set_nodelay(true).unwrap();
    says(&mut ann, "one ");
    says(&mut bob, "two\n");
    hears(&mut bob, "two\n");
    says(&mut ann, "line\nand half a");
    hears(&mut bob, "one line\n");
    // What has no end yet is passed on when its speaker goes.
    ann.shutdown(Shutdown::Write).unwrap();
    hears(&mut bob, "and half a\n");
    assert_eq!(wharf.end_by(Signal::INT).code, Some(0));
}

#[test]
fn a_chat_passes_64_mib_without_a_newline_on_and_keeps_none_of_it() {
    const BYTES: usize = 64 * 1024 * 1024;
    const PEAK_KIB: u64 = 32 * 1024;
    let (wharf, address) = serve("chat", &["--slow-consumer", "wait"]);
    let mut speaker = client(address);
    let mut own_words = speaker.try_clone().unwrap();
    let speaking = thread::spawn(move || {
        let piece = vec![b'x'; 64 * 1024];
        (0..BYTES / piece.len()).for_each(|_| speaker.write_all(&piece).unwrap());
        speaker.shutdown(Shutdown::Write).unwrap();
    });
    let mut heard = 0;
    let mut buffer = vec![0; 64 * 1024];
    while let bytes @ 1.. = own_words.read(&mut buffer).unwrap() {
        assert!(buffer[..bytes].iter().all(|&byte| byte == b'x'));
        heard += bytes;
    }
    speaking.join().unwrap();
    // The last piece, which is too short to be passed on before its end, has nobody left to hear it.
    assert!((BYTES - 9 * 1024..=BYTES).contains(&heard), "{heard}");
    let status = std::fs::read_to_string(format!("/proc/{}/status", wharf.child.id())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    assert!(peak < PEAK_KIB, "{peak} KiB were resident");
    assert_eq!(wharf.end_by(Signal::INT).code, Some(0));
}

#[test]
fn the_chat_client_copies_what_is_piped_into_it_and_what_it_hears() {
    let (server, address) = serve("chat", &[]);
    let mut other = client(address);
    says(&mut other, "I am here\n");
    hears(&mut other, "I am here\n");
    let mut wharf = start(&["chat", &address.to_string()]);
    let mut input = input(&mut wharf);
    input.write_all(b"hello\n").unwrap();
    assert_eq!(wharf.line(), "hello");
    hears(&mut other, "hello\n");
    says(&mut other, "welcome\n");
    hears(&mut other, "welcome\n");
    assert_eq!(wharf.line(), "welcome");
    input.write_all(b"bye").unwrap();
    drop(input);
    hears(&mut other, "bye\n");
    let end = wharf.end();
    assert_eq!((end.code, &end.out[..]), (Some(0), &[][..]), "{:?}", end.errors);
    assert_eq!(server.end_by(Signal::INT).code, Some(0));
}

#[test]
fn the_chat_client_sends_more_than_its_outbox_without_a_newline() {
    const BYTES: usize = 5 * 1024 * 1024;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut wharf = start(&["chat", &listener.local_addr().unwrap().to_string()]);
    let (mut server, _) = listener.accept().unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut input = input(&mut wharf);
    let typing = thread::spawn(move || input.write_all(&vec![b'y'; BYTES]).unwrap());
    assert_eq!(read_to_end(&mut server), vec![b'y'; BYTES]);
    typing.join().unwrap();
    drop(server);
    assert_eq!(wharf.end().code, Some(0));
}

#[test]
fn the_chat_client_ends_with_the_server_though_its_input_goes_on() {
    let (server, address) = serve("chat", &[]);
    let mut wharf = start(&["chat", &address.to_string()]);
    let mut input = input(&mut wharf);
    input.write_all(b"hello\n").unwrap();
    assert_eq!(wharf.line(), "hello");
    assert_eq!(server.end_by(Signal::INT).code, Some(0));
    let end = wharf.end();
    assert_eq!((end.code, &end.errors[..]), (Some(1), &["wharf: the server closed the connection".to_owned()][..]));
    drop(input);
}

// --- The other servers ---

#[test]
fn echo_gives_back_what_comes() {
    const BYTES: usize = 8 * 1024 * 1024;
    let (wharf, address) = serve("echo", &["--workers", "2", "--concurrency", "1", "--outbox", "65536"]);
    let mut socket = client(address);
    says(&mut socket, "hello");
    hears(&mut socket, "hello");
    let mut writer = socket.try_clone().unwrap();
    let writing = thread::spawn(move || {
        writer.write_all(&vec![b'e'; BYTES]).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    assert_eq!(read_to_end(&mut socket), vec![b'e'; BYTES]);
    writing.join().unwrap();
    assert_eq!(wharf.end_by(Signal::TERM).code, Some(0));
}

#[test]
fn discard_takes_everything_and_says_nothing() {
    let (wharf, address) = serve("discard", &[]);
    let mut socket = client(address);
    socket.write_all(&vec![b'd'; 8 * 1024 * 1024]).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut socket), b"");
    assert_eq!(wharf.end_by(Signal::INT).code, Some(0));
}

#[test]
fn who_never_reads_does_not_keep_a_server_from_ending() {
    let (wharf, address) = serve("echo", &[]);
    let mut socket = client(address);
    socket.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    // Until nothing moves any more.
    let mut written = 0;
    while let Ok(bytes) = socket.write(&[b'n'; 64 * 1024]) {
        written += bytes;
    }
    let end = wharf.end_by(Signal::INT);
    assert_eq!(end.code, Some(0));
    let [said] = &end.errors[..] else { panic!("one line: {:?}", end.errors) };
    let lost = said.strip_prefix("ended: 1 sessions served, 1 at the end, 1 of them cut off, ");
    let lost = lost.and_then(|lost| lost.strip_suffix(" bytes lost")).unwrap_or_else(|| panic!("{said}"));
    // The client's system has taken some of the echo; none of it was read.
    assert!((1..=written).contains(&lost.parse().unwrap()), "{lost} of {written} bytes");
}

#[test]
fn connections_beyond_max_sessions_are_closed_at_once() {
    let (wharf, address) = serve("echo", &["--max-sessions", "2", "--stats", "1"]);
    let (mut first, mut second) = (client(address), client(address));
    says(&mut first, "1");
    hears(&mut first, "1");
    says(&mut second, "2");
    hears(&mut second, "2");
    assert_eq!(read_to_end(&mut client(address)), b"");
    while !wharf.error().ends_with("  refused 1") {}
    // Its place is free again when the server has noticed that it has gone.
    drop(first);
    while !wharf.error().starts_with("sessions 1  ") {}
    let mut third = client(address);
    says(&mut third, "3");
    hears(&mut third, "3");
    assert_eq!(wharf.end_by(Signal::INT).code, Some(0));
}

#[test]
fn figures_are_printed_every_second_if_asked_for() {
    let (wharf, address) = serve("chat", &["--stats", "1"]);
    let mut socket = client(address);
    says(&mut socket, "x\n");
    hears(&mut socket, "x\n");
    let line = wharf.error();
    let names = [
        "sessions 1",
        "packets/s ",
        "queued 0",
        "active ",
        "waiting ",
        "blocked ",
        "wake-ups/packet ",
        "memory 0",
        "refused 0",
    ];
    let figures: Vec<&str> = line.split("  ").collect();
    assert_eq!(figures.len(), names.len(), "{line}");
    for (figure, name) in figures.iter().zip(names) {
        assert!(figure.starts_with(name), "{line}");
    }
    wharf.error();
    assert_eq!(wharf.end_by(Signal::INT).code, Some(0));
}

#[test]
fn a_server_goes_on_when_nobody_reads_what_it_prints() {
    let mut child = command(&["serve", "echo", "--listen", "127.0.0.1:0", "--stats", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    errors.read_line(&mut line).unwrap();
    assert!(line.starts_with("sessions 0  "), "{line}");
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

// --- What goes wrong ---

#[test]
fn an_address_in_use_is_an_error() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let output = run(&["serve", "chat", "--listen", &address]);
    let start = format!("wharf: cannot listen on {address}: ");
    fails_with(&output, &start, "Address already in use", "choose another port with --listen");
}

#[test]
fn an_address_of_another_machine_is_an_error() {
    // TEST-NET-1, which is nobody's.
    let output = run(&["serve", "echo", "--listen", "192.0.2.1:0"]);
    let start = "wharf: cannot listen on 192.0.2.1:0: ";
    fails_with(&output, start, "Cannot assign requested address", "0.0.0.0 stands for all of them");
}

#[test]
fn a_privileged_port_is_an_error_for_those_without_privileges() {
    let lowest = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if getuid().is_root() || lowest.trim().parse::<u16>().is_ok_and(|lowest| lowest <= 80) {
        return skipped("listening on port 80", "this user may; run the test as another one");
    }
    let output = run(&["serve", "discard", "--listen", "127.0.0.1:80"]);
    fails_with(&output, "wharf: cannot listen on 127.0.0.1:80: ", "Permission denied", "choose a higher one");
}

#[test]
fn what_is_no_address_is_an_error() {
    for (arguments, remedy) in [
        (&["serve", "chat", "--listen", "nonsense"][..], "give ADDRESS:PORT, such as 127.0.0.1:25000"),
        (&["serve", "echo", "--listen", "127.0.0.1:70000"], "give ADDRESS:PORT, such as 127.0.0.1:25000"),
        (&["chat", "nonsense"], "give HOST:PORT, such as localhost:25000"),
    ] {
        let name = arguments.last().unwrap();
        fails_with(&run(arguments), &format!("wharf: {name:?} is not a"), "invalid", remedy);
    }
}

#[test]
fn a_server_that_is_not_there_is_an_error() {
    // Free a moment ago; nobody listens there now.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let output = run(&["chat", &address]);
    let start = format!("wharf: cannot connect to {address}: ");
    fails_with(&output, &start, "Connection refused", "`wharf serve chat` starts one");
}

#[test]
fn a_connection_that_breaks_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let wharf = start(&["chat", &listener.local_addr().unwrap().to_string()]);
    let (mut server, _) = listener.accept().unwrap();
    server.write_all(b"hello\n").unwrap();
    assert_eq!(wharf.line(), "hello");
    rustix::net::sockopt::set_socket_linger(&server, Some(Duration::ZERO)).unwrap();
    drop(server);
    let end = wharf.end();
    assert_eq!(end.code, Some(1));
    assert_eq!(end.errors, ["wharf: the connection ended: Connection reset by peer (os error 104)"]);
}

#[test]
fn wrong_usage_is_explained_and_exits_with_2() {
    for arguments in [
        &[][..],
        &["serve"],
        &["chat"],
        &["serve", "gopher"],
        &["serve", "chat", "--workers", "0"],
        &["serve", "chat", "--max-sessions", "none"],
        &["serve", "chat", "--outbox", "65535"],
        &["serve", "chat", "--outbox", "63K"],
        &["serve", "chat", "--slow-consumer", "forgive"],
        &["serve", "chat", "--stats", "0"],
        &["--frobnicate"],
    ] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("Usage: ") || said.contains("--help"), "{arguments:?}: {said}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for (argument, part) in [("--help", "Usage: wharf "), ("--version", "wharf ")] {
        let output = run(&[argument]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stdout).contains(part));
        assert!(output.stderr.is_empty());
    }
}

#[test]
fn a_second_signal_ends_a_server_at_once() {
    let (wharf, address) = serve("echo", &["--outbox", "16M"]);
    // Sends, and never reads: its echo cannot go out, and the server would wait for it for five seconds.
    let mut client = TcpStream::connect(address).unwrap();
    client.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
    while client.write(&[b'x'; 65536]).is_ok() {}
    wharf.signal(Signal::TERM);
    // It has heard the first when nobody gets in any more.
    let until = Instant::now() + DEADLINE;
    while TcpStream::connect(address).is_ok() {
        assert!(Instant::now() < until, "it serves on");
        thread::sleep(Duration::from_millis(1));
    }
    let end = wharf.end_by(Signal::TERM);
    assert_eq!(end.code, Some(143), "{:?}", end.errors);
    assert_eq!(end.errors, ["wharf: ended at once by a second signal"]);
}

/// The terminal that a server was started in is closed.
#[test]
fn a_hangup_ends_a_server_cleanly_unless_it_is_ignored() {
    let socket = std::env::temp_dir().join(format!("wharf-hangup-{}", std::process::id()));
    let place = format!("unix:{}", socket.display());
    let wharf = Wharf::start(&["serve", "echo", "--listen", &place]);
    assert_eq!(wharf.listening_on(), place);
    let end = wharf.end_by(Signal::HUP);
    assert_eq!(end.code, Some(0), "{:?}", end.errors);
    assert!(!socket.exists(), "the socket's file stays");
    // As by nohup.
    let mut shell = Command::new("sh");
    let script = r#"trap "" HUP; exec "$0" serve echo --listen 127.0.0.1:0"#;
    let wharf = Wharf::spawn(shell.args(["-c", script, env!("CARGO_BIN_EXE_wharf")])).unwrap();
    let address = wharf.address();
    wharf.signal(Signal::HUP);
    for _ in 0..20 {
        assert!(TcpStream::connect(address).is_ok(), "it was ended");
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(wharf.end_by(Signal::TERM).code, Some(0));
}

/// A script starts it in the background, and ends it.
#[test]
fn an_interrupt_ends_a_server_though_it_was_ignored_when_it_started() {
    let mut shell = Command::new("sh");
    let script = r#"trap "" INT; exec "$0" serve echo --listen 127.0.0.1:0"#;
    let wharf = Wharf::spawn(shell.args(["-c", script, env!("CARGO_BIN_EXE_wharf")])).unwrap();
    wharf.address();
    assert_eq!(wharf.end_by(Signal::INT).code, Some(0));
}

#[test]
fn a_report_that_cannot_be_written_is_an_error() {
    let (_server, port) = perf_server();
    let full = || std::fs::File::options().write(true).open("/dev/full").unwrap();
    let runs = ["perf", "run", "127.0.0.1", "-p", &port, "-n", "64K"];
    let source = env!("CARGO_MANIFEST_DIR").to_owned() + "/Cargo.toml";
    let target = std::env::temp_dir().join(format!("wharf-full-{}", std::process::id()));
    let copies = ["copy", "--force", &source, target.to_str().unwrap()];
    for arguments in [&["doctor"][..], &["doctor", "--json"], &runs, &[&runs[..], &["-J"]].concat(), &copies] {
        let output = command(arguments).stdin(Stdio::null()).stdout(full()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("cannot be written: No space left"), "{arguments:?}: {said}");
        // A pipe that nobody reads any more.
        let mut child = command(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        assert_eq!(child.wait().unwrap().code(), Some(0), "{arguments:?}");
    }
    let output = command(&[&runs[..], &["--logfile", "/dev/full"]].concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::remove_file(target).unwrap();
}

fn perf_server() -> (Wharf, String) {
    let server = Wharf::start(&["perf", "serve", "-p", "0"]);
    let port = server.perf_port().to_string();
    (server, port)
}

#[test]
fn settings_that_never_end_are_refused() {
    let output = run(&["perf", "run", "127.0.0.1", "--config", "/dev/zero"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("/dev/zero cannot be read: it has more than"), "{said}");
}
