//! What is not of the network: Unix sockets, pipes, the standard input, event descriptors, child processes.

#![cfg(unix)]

mod common;

use common::{Ledger, Port, Stream, Token, errno, eventually, next, next_received, next_sent, pending, port, quiet};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use wharf::process::Child;
use wharf::signal::{SIGKILL, SIGTERM};
use wharf::{Buffer, Cancel, Event, Wake};

const EPIPE: i32 = 32;
const ECHILD: i32 = 10;
const ENOTSOCK: i32 = 88;
const ECANCELED: i32 = 125;

fn fresh() -> (Ledger, Port) {
    (Ledger::new(), port(1, Wake::default()))
}

#[test]
fn unix_streams_are_accepted_and_carry_bytes_to_their_end() {
    let (ledger, port) = fresh();
    let path = std::env::temp_dir().join(format!("wharf-local-{}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    let listener = port.associate(UnixListener::bind(&path).unwrap(), 5).unwrap();
    pending(listener.accept(ledger.token(1)).unwrap());
    let mut client = UnixStream::connect(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let packet = next(&port);
    let Event::AcceptedLocal { result: Ok(accepted), .. } = packet.event else { panic!("{packet:?}") };
    let stream = port.associate(accepted, 6).unwrap();
    pending(stream.recv(Buffer::with_capacity(100), ledger.token(2)).unwrap());
    client.write_all(b"hello").unwrap();
    assert_eq!(&next_received(&port).buffer[..], b"hello");
    pending(stream.send("answer", ledger.token(3)).unwrap());
    assert_eq!(next_sent(&port).2.unwrap(), 6);
    let mut answer = [0; 6];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"answer");
    drop(client);
    pending(stream.recv_pooled(ledger.token(4)).unwrap());
    assert_eq!(next_received(&port).result.unwrap(), 0);
    // What ends an accept is told by the same event.
    pending(listener.accept(ledger.token(5)).unwrap());
    listener.close();
    let packet = next(&port);
    let Event::AcceptedLocal { result, .. } = packet.event else { panic!("{packet:?}") };
    assert_eq!(errno(&result), ECANCELED);
    quiet(&port, &ledger);
}

#[test]
fn a_unix_stream_sends_more_than_its_buffer_takes() {
    let (ledger, port) = fresh();
    let (one, mut other) = UnixStream::pair().unwrap();
    let stream: Stream = port.associate(one, 5).unwrap();
    let much: Vec<u8> = (0..4_000_000_u32).map(|at| at.to_le_bytes()[1]).collect();
    pending(stream.send(much.clone(), ledger.token(1)).unwrap());
    let reader = std::thread::spawn(move || {
        let mut got = vec![0; 4_000_000];
        other.read_exact(&mut got).unwrap();
        got
    });
    assert_eq!(next_sent(&port).2.unwrap(), 4_000_000);
    assert!(reader.join().unwrap() == much);
}

#[test]
fn unix_datagrams_keep_their_boundaries() {
    let (ledger, port) = fresh();
    let (one, other) = UnixDatagram::pair().unwrap();
    let socket = port.associate(one, 5).unwrap();
    pending(socket.recv_from(Buffer::with_capacity(100), ledger.token(1)).unwrap());
    other.send(b"whole").unwrap();
    let packet = next(&port);
    let Event::ReceivedFrom { buffer, from: None, result: Ok(5), .. } = packet.event else { panic!("{packet:?}") };
    assert_eq!(&buffer[..], b"whole");
    pending(socket.send("back", ledger.token(2)).unwrap());
    assert!(matches!(next(&port).event, Event::SentTo { result: Ok(4), .. }));
    let mut back = [0; 10];
    assert_eq!(other.recv(&mut back).unwrap(), 4);
}

#[test]
fn a_pipe_carries_bytes_both_ways_of_waiting_and_tells_its_end() {
    let (ledger, port) = fresh();
    let (reader, writer) = std::io::pipe().unwrap();
    let from: Stream = port.associate(reader, 1).unwrap();
    let to: Stream = port.associate(writer, 2).unwrap();
    // Waiting for data without taking any, then for the data.
    pending(from.readable(ledger.token(1)).unwrap());
    pending(to.send("first", ledger.token(2)).unwrap());
    let (mut readable, mut sent) = (false, false);
    for _ in 0..2 {
        match next(&port).event {
            Event::Readable { result: Ok(()), .. } => readable = true,
            Event::Sent { result: Ok(5), .. } => sent = true,
            other => panic!("{other:?}"),
        }
    }
    assert!(readable && sent);
    pending(from.recv(Buffer::with_capacity(100), ledger.token(3)).unwrap());
    assert_eq!(&next_received(&port).buffer[..], b"first");
    // More than a pipe holds goes on as it is read.
    let much = vec![7_u8; 1 << 20];
    pending(to.send(much, ledger.token(4)).unwrap());
    let mut collected = 0;
    while collected < 1 << 20 {
        pending(from.recv_pooled(ledger.token(5)).unwrap());
        loop {
            match next(&port).event {
                Event::Received { buffer, result, .. } => {
                    assert!(buffer.iter().all(|&byte| byte == 7));
                    collected += result.unwrap();
                    break;
                }
                Event::Sent { result, .. } => assert_eq!(result.unwrap(), 1 << 20),
                other => panic!("{other:?}"),
            }
        }
    }
    eventually("the send is over", || port.devices().iter().all(|device| device.pending == (0, 0)));
    while port.get_timeout(std::time::Duration::ZERO).is_ok_and(|packet| {
        packet.context.arrive();
        true
    }) {}
    to.close();
    pending(from.recv_pooled(ledger.token(6)).unwrap());
    assert_eq!(next_received(&port).result.unwrap(), 0, "the last writer is gone");
}

#[test]
fn a_pipe_that_nobody_reads_any_more_is_told_as_broken() {
    let (ledger, port) = fresh();
    let (reader, writer) = std::io::pipe().unwrap();
    let to: Stream = port.associate(writer, 2).unwrap();
    pending(to.send(vec![0; 1 << 20], ledger.token(1)).unwrap());
    drop(reader);
    assert_eq!(errno(&next_sent(&port).2), EPIPE);
    // No address, no shutdown: it is no socket.
    assert_eq!(errno(&to.local_addr()), ENOTSOCK);
}

#[test]
fn a_pipe_that_cannot_be_shut_goes_on_sending() {
    let (ledger, port) = fresh();
    let (mut reader, writer) = std::io::pipe().unwrap();
    let to: Stream = port.associate(writer, 2).unwrap();
    pending(to.disconnect(ledger.token(1)).unwrap());
    let packet = next(&port);
    let Event::Disconnected { result, .. } = packet.event else { panic!("{packet:?}") };
    assert_eq!(errno(&result), ENOTSOCK);
    for how in [Shutdown::Write, Shutdown::Both] {
        assert_eq!(errno(&to.shutdown(how)), ENOTSOCK);
    }
    pending(to.send("on it goes", ledger.token(2)).expect("nothing was shut"));
    assert_eq!(next_sent(&port).2.unwrap(), 10);
    let mut came = [0; 10];
    reader.read_exact(&mut came).unwrap();
    assert_eq!(&came, b"on it goes");
    quiet(&port, &ledger);
}

#[test]
fn operations_on_a_pipe_are_cancelled() {
    let (ledger, port) = fresh();
    let (reader, _writer) = std::io::pipe().unwrap();
    let from: Stream = port.associate(reader, 1).unwrap();
    let id = pending(from.recv(Buffer::with_capacity(9), ledger.token(1)).unwrap());
    assert_eq!(from.cancel(id), Cancel::Requested);
    let received = next_received(&port);
    assert_eq!((errno(&received.result), received.buffer.capacity()), (ECANCELED, 9));
    let fd = from.release_fd().unwrap();
    assert!(rustix::fs::fstat(&fd).is_ok(), "it is open, and the caller's");
}

#[test]
fn an_event_descriptor_is_waited_for_and_read() {
    let (ledger, port) = fresh();
    let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC).unwrap();
    let bell = event.try_clone().unwrap();
    let event: Stream = port.associate(event, 1).unwrap();
    for number in 1..4_u64 {
        pending(event.recv(Buffer::with_capacity(8), ledger.token(number)).unwrap());
        rustix::io::write(&bell, &number.to_ne_bytes()).unwrap();
        assert_eq!(&next_received(&port).buffer[..], &number.to_ne_bytes());
    }
}

#[test]
fn what_cannot_be_waited_for_is_refused_with_what_to_do() {
    let (_ledger, port) = fresh();
    let file = OwnedFd::from(std::fs::File::open(std::env::current_exe().unwrap()).unwrap());
    let error = port.associate(file, 1).unwrap_err().error;
    assert!(error.to_string().contains("associate it as std::fs::File"), "{error}");
    let socket = OwnedFd::from(UnixStream::pair().unwrap().0);
    let error = port.associate(socket, 1).unwrap_err().error;
    assert!(error.to_string().contains("associated as what it is"), "{error}");
}

#[test]
fn the_end_of_a_child_is_a_packet_with_its_status() {
    let (ledger, port) = fresh();
    let mut children: Vec<Child<u64, Token>> = Vec::new();
    for code in 0..20 {
        let child = Command::new("sh").args(["-c", &format!("exit {code}")]).spawn().unwrap();
        let child = port.associate(child, code).unwrap();
        child.wait(ledger.token(code)).unwrap();
        children.push(child);
    }
    for _ in 0..20 {
        let packet = next(&port);
        let Event::Exited { result, child } = packet.event else { panic!("{:?}", packet.event) };
        assert_eq!(result.unwrap().code(), i32::try_from(packet.key).ok());
        assert_eq!(*child.key(), packet.key);
    }
    children[0].wait(ledger.token(99)).unwrap();
    let packet = next(&port);
    let Event::Exited { result, .. } = packet.event else { panic!("{:?}", packet.event) };
    assert_eq!(errno(&result), ECHILD, "the status is told once");
}

#[test]
fn a_child_is_signalled_and_its_pipes_are_served_beside_its_end() {
    let (ledger, port) = fresh();
    let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let to: Stream = port.associate(child.stdin.take().unwrap(), 1).unwrap();
    let from: Stream = port.associate(child.stdout.take().unwrap(), 2).unwrap();
    let child: Child<u64, Token> = port.associate(child, 3).unwrap();
    pending(from.recv(Buffer::with_capacity(100), ledger.token(1)).unwrap());
    pending(to.send("through cat\n", ledger.token(2)).unwrap());
    child.wait(ledger.token(3)).unwrap();
    let mut heard = false;
    for _ in 0..2 {
        match next(&port).event {
            Event::Sent { result, .. } => assert_eq!(result.unwrap(), 12),
            Event::Received { buffer, .. } => heard = &buffer[..] == b"through cat\n",
            other => panic!("{other:?}"),
        }
    }
    assert!(heard);
    child.signal(SIGTERM).unwrap();
    let packet = next(&port);
    let Event::Exited { result, .. } = packet.event else { panic!("{:?}", packet.event) };
    assert_eq!(result.unwrap().signal(), Some(15));
    assert!(child.signal(SIGTERM).is_err(), "it has ended");
    quiet(&port, &ledger);
}

#[test]
fn a_wait_for_a_child_is_cancelled_and_the_child_goes_on() {
    let (ledger, port) = fresh();
    let child = Command::new("sleep").arg("1000").spawn().unwrap();
    let child: Child<u64, Token> = port.associate(child, 3).unwrap();
    child.wait(ledger.token(1)).unwrap();
    assert_eq!(child.cancel_all(), 1);
    let packet = next(&port);
    let Event::Exited { result, .. } = packet.event else { panic!("{:?}", packet.event) };
    assert_eq!(errno(&result), ECANCELED);
    child.signal(SIGKILL).unwrap();
    child.wait(ledger.token(2)).unwrap();
    let packet = next(&port);
    let Event::Exited { result, .. } = packet.event else { panic!("{:?}", packet.event) };
    assert_eq!(result.unwrap().signal(), Some(9));
}

#[test]
fn the_standard_input_is_read_through_the_port_and_left_as_it_was() {
    const CHILD: &str = "WHARF_TEST_STDIN";
    const NAME: &str = "the_standard_input_is_read_through_the_port_and_left_as_it_was";
    if std::env::var_os(CHILD).is_some() {
        let (ledger, port) = fresh();
        let input = port.stdin(1).unwrap();
        let mut text = Vec::new();
        loop {
            pending(input.recv(Buffer::with_capacity(4), ledger.token(1)).unwrap());
            let received = next_received(&port);
            if received.result.unwrap() == 0 {
                break;
            }
            text.extend_from_slice(&received.buffer);
        }
        assert_eq!(text, b"said on standard input");
        let flags = rustix::fs::fcntl_getfl(std::io::stdin().as_fd()).unwrap();
        assert!(!flags.contains(rustix::fs::OFlags::NONBLOCK), "who shares it is not disturbed");
        return;
    }
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", NAME])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"said on standard input").unwrap();
    assert!(child.wait().unwrap().success());
}
