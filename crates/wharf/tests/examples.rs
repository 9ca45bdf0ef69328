//! The examples, run as their headers say: each is started as a process of its own, talked to, and ended.

#![cfg(unix)]

mod common;

use common::pattern;
use rustix::process::Signal;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::thread;
use wharf_testkit::example::{Example, all_are_tested, client, read_until};

#[test]
fn echo_gives_everybody_back_what_they_sent() {
    const BYTES: usize = 4 * 1024 * 1024;
    let mut example = Example::start("echo", &["127.0.0.1:0"]);
    let address = example.address();
    let clients: Vec<_> = (0..8)
        .map(|seed| {
            thread::spawn(move || {
                let mut socket = client(address);
                let sent = pattern(BYTES, seed);
                let mut writer = socket.try_clone().unwrap();
                let to_write = sent.clone();
                let writing = thread::spawn(move || {
                    writer.write_all(&to_write).unwrap();
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let mut echo = Vec::new();
                socket.read_to_end(&mut echo).unwrap();
                writing.join().unwrap();
                assert!(echo == sent, "client {seed} got {} other bytes back", echo.len());
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    // It does not ask for signals. Not SIGINT, which a test run in the background may have inherited as ignored.
    example.signal(Signal::TERM);
    let (status, _) = example.end();
    assert_eq!(status.signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn accept_thread_sends_everything_to_everybody_until_ctrl_c() {
    let mut example = Example::start("accept_thread", &["127.0.0.1:0"]);
    let address = example.address();
    let mut clients: Vec<TcpStream> = (0..5).map(|_| client(address)).collect();
    // Each has to be in the list before the next line: its own words come back to it.
    for (number, socket) in clients.iter_mut().enumerate() {
        socket.write_all(format!("{number} is here\n").as_bytes()).unwrap();
        read_until(socket, &format!("{number} is here\n"));
    }
    drop(clients.pop());
    clients[0].write_all(b"to all\n").unwrap();
    clients.iter_mut().for_each(|socket| drop(read_until(socket, "to all\n")));
    example.signal(Signal::INT);
    let (status, said) = example.end();
    assert!(status.success(), "{status}");
    assert_eq!(said, "ended\n");
}

#[test]
fn frame_loop_reports_how_late_the_worst_frame_was() {
    let mut example = Example::start("frame_loop", &["1"]);
    let (status, said) = example.end();
    assert!(status.success(), "{status}: {said}");
    for (line, name) in said.lines().zip(["with a port: ", "with a socket that blocks: "]) {
        let numbers = line.strip_prefix(name).unwrap_or_else(|| panic!("{said}"));
        let words: Vec<&str> = numbers.split(' ').collect();
        let [frames, "frames,", answers, "answers,", "the", "worst", "frame", _, "late"] = words[..] else {
            panic!("{said}");
        };
        assert!(frames.parse::<u32>().unwrap() > 0 && answers.parse::<u32>().unwrap() > 0, "{said}");
    }
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn posted_work_does_every_job_once() {
    let mut example = Example::start("posted_work", &[]);
    let (status, said) = example.end();
    assert!(status.success(), "{status}: {said}");
    // Numbers 0 to 99 without every tenth, each the sum of those below it.
    let sum: u64 = (0..100).filter(|number| number % 10 != 0).map(|number| (0..number).sum::<u64>()).sum();
    let first =
        format!("400 jobs done; the sums for each poster: [{sum}, {sum}, {sum}, {sum}]\n40 waits of 20ms took ");
    assert!(said.starts_with(&first), "{said}");
}

#[test]
fn one_loop_serves_a_socket_a_file_a_timer_a_signal_a_child_and_posts() {
    let mut example = Example::start("one_loop", &[]);
    let address = example.address();
    let mut socket = client(address);
    socket.write_all(b"for the journal\n").unwrap();
    read_until(&mut socket, "for the journal\n");
    let mut lines: Vec<String> = (0..3).map(|_| example.line()).collect();
    lines.sort();
    let peer = format!("{} has come", socket.local_addr().unwrap());
    assert_eq!(lines, [peer.as_str(), "somebody posted 42", "the child has ended: exit status: 0"]);
    example.signal(Signal::INT);
    let (status, said) = example.end();
    assert!(status.success(), "{status}");
    assert!(said.ends_with(" seconds, and 16 bytes in the journal\n"), "{said}");
}

#[test]
fn event_is_signalled_with_nobody_inside_get() {
    let (status, said) = Example::start("event", &[]).end();
    assert!(status.success(), "{status}: {said}");
    assert_eq!(said, "operation 7: \"hello\"\n");
}

#[test]
fn supervise_starts_again_who_ends_and_tells_all_they_say() {
    let mut example = Example::start("supervise", &["2"]);
    let (status, said) = example.end();
    assert!(status.success(), "{status}: {said}");
    let mut lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.pop(), Some("all have ended"));
    lines.sort_unstable();
    let expected = [
        "[0] one",
        "[0] one",
        "[0] start 1 ended: exit status: 0",
        "[0] start 2 ended: exit status: 0",
        "[1] start 1 ended: exit status: 2",
        "[1] start 2 ended: exit status: 2",
        "[1] two",
        "[1] two",
        "[2] start 1 ended: signal: 9 (SIGKILL)",
        "[2] start 2 ended: signal: 9 (SIGKILL)",
        "[2] three",
        "[2] three",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn game_ticks_on_while_handlers_think() {
    let mut example = Example::start("game", &["127.0.0.1:0"]);
    let address = example.address();
    let mut thinkers: Vec<TcpStream> = (0..12).map(|_| client(address)).collect();
    let mut player = client(address);
    player.write_all(b"eenn").unwrap();
    read_until(&mut player, ": 13 players, you are at 2,2\n");
    // A second and more of thinking for each, six times as many as may run.
    thinkers.iter_mut().for_each(|socket| socket.write_all(&[b't'; 15]).unwrap());
    player.write_all(b"w").unwrap();
    let seen = read_until(&mut player, "you are at 1,2\n");
    let first = |text: &str| text.split([' ', ':']).nth(1).unwrap().parse::<u64>().unwrap();
    let begin = first(seen.lines().last().unwrap());
    // Twenty ticks take a second, as long as all of them think.
    let mut ticks = Vec::new();
    while ticks.len() < 20 {
        let lines = read_until(&mut player, "\n");
        ticks.extend(lines.lines().filter(|line| line.contains("you are at")).map(first));
    }
    assert!(ticks.is_sorted() && ticks[0] > begin, "{ticks:?}");
    example.signal(Signal::INT);
    let (status, said) = example.end();
    assert!(status.success(), "{status}");
    assert!(said.contains(" ticks, the worst ") && said.ends_with(" late\n"), "{said}");
}

#[test]
fn every_example_is_tested_and_says_how_to_try_it() {
    all_are_tested(env!("CARGO_MANIFEST_DIR"), include_str!("examples.rs"));
}
