//! Non-blocking mode is shared by all duplicates of a descriptor, those of other processes too: whoever has one may set
//! it to blocking after it was associated. No operation of the port waits in the kernel then (row O-24).

#![cfg(unix)]

mod common;

use common::{DEADLINE, Port, Token, dead_address, next, next_accepted, next_received, next_sent, pair, small_buffers};
use rustix::fd::AsFd;
use std::io::{Read, Write};
use std::net::{TcpListener as StdListener, TcpStream as StdStream, UdpSocket as StdUdp};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;
use wharf::raw::SocketEngine;
use wharf::{Buffer, Event, FileMessage};

/// More than a connection with small buffers takes.
const MUCH: usize = 4 << 20;

/// A duplicate was set to blocking by its holder.
fn blocks(duplicate: impl AsFd) {
    rustix::io::ioctl_fionbio(duplicate, false).unwrap();
}

/// Runs `body` on a port of each engine, in a thread of its own that must come back by itself.
fn on_each_engine(body: impl Fn(&Port, &common::Mint) -> Receiver<()> + Clone + Send + 'static) {
    for engine in [SocketEngine::Auto, SocketEngine::Poll] {
        let body = body.clone();
        let (tell, told) = channel();
        let thread = thread::spawn(move || {
            let ledger = common::Ledger::new();
            let port = Port::options().concurrency(1).socket_engine(engine).build().unwrap();
            // What it returns ends when the port's descriptors are closed.
            let _peers = body(&port, &ledger.mint());
            tell.send(()).unwrap();
        });
        let outcome = told.recv_timeout(DEADLINE);
        assert!(outcome != Err(std::sync::mpsc::RecvTimeoutError::Timeout), "{engine:?}: a thread waits in the kernel");
        if let Err(panic) = thread.join() {
            std::panic::resume_unwind(panic);
        }
    }
}

fn nobody() -> Receiver<()> {
    channel().1
}

/// Nothing more comes, and the thread that looks for it does not wait.
fn nothing_more(port: &Port) {
    assert!(port.get_timeout(Duration::from_millis(20)).is_err());
}

#[test]
fn receives_of_a_stream_do_not_wait() {
    on_each_engine(|port, mint| {
        let (server, mut peer) = pair();
        let duplicate = server.try_clone().unwrap();
        let stream = port.associate(server, 1).unwrap();
        blocks(&duplicate);
        // The first is filled, so that more may be there and the second is tried at once.
        for number in 1..3 {
            stream.recv(Buffer::with_capacity(4), mint.token(number)).unwrap();
        }
        peer.write_all(b"1234").unwrap();
        assert_eq!(&next_received(port).buffer[..], b"1234");
        nothing_more(port);
        peer.write_all(b"5").unwrap();
        assert_eq!(&next_received(port).buffer[..], b"5");
        for number in 3..5 {
            stream.recv_pooled(mint.token(number)).unwrap();
        }
        stream.readable(mint.token(5)).unwrap();
        peer.write_all(b"6").unwrap();
        assert_eq!(&next_received(port).buffer[..], b"6");
        nothing_more(port);
        stream.close();
        (0..2).for_each(|_| drop(next(port)));
        nobody()
    });
}

#[test]
fn an_accept_does_not_wait() {
    on_each_engine(|port, mint| {
        let listener = StdListener::bind("127.0.0.1:0").unwrap();
        let (duplicate, address) = (listener.try_clone().unwrap(), listener.local_addr().unwrap());
        let listener = port.associate(listener, 1).unwrap();
        blocks(&duplicate);
        for number in 1..4 {
            listener.accept(mint.token(number)).unwrap();
        }
        for _ in 0..2 {
            let _peer = StdStream::connect(address).unwrap();
            next_accepted(port).1.unwrap();
            nothing_more(port);
            blocks(&duplicate);
        }
        listener.close();
        drop(next(port));
        nobody()
    });
}

#[test]
fn sends_of_a_stream_do_not_wait() {
    on_each_engine(|port, mint| {
        let (server, peer) = pair();
        small_buffers([&server, &peer]);
        let duplicate = server.try_clone().unwrap();
        let stream = port.associate(server, 1).unwrap();
        blocks(&duplicate);
        stream.send(vec![7; MUCH], mint.token(1)).unwrap();
        stream.send_vectored(vec![vec![8; MUCH].into(), vec![9; MUCH].into()], mint.token(2)).unwrap();
        let reader = read_all(peer, 3 * MUCH);
        assert_eq!(next_sent(port).2.unwrap(), MUCH);
        blocks(&duplicate);
        assert_eq!(next(port).bytes(), 2 * MUCH);
        reader
    });
}

#[test]
fn a_send_of_a_file_does_not_wait() {
    on_each_engine(|port, mint| {
        let path = std::env::temp_dir().join(format!("wharf-mode-{}-{:x}", std::process::id(), fastrand::u64(..)));
        std::fs::write(&path, vec![5; MUCH]).unwrap();
        let file = std::fs::File::open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let (server, peer) = pair();
        small_buffers([&server, &peer]);
        let duplicate = server.try_clone().unwrap();
        let stream = port.associate(server, 1).unwrap();
        blocks(&duplicate);
        stream.send_file(FileMessage::new(file), mint.token(1)).unwrap();
        let reader = read_all(peer, MUCH);
        assert_eq!(next(port).bytes(), MUCH);
        reader
    });
}

#[test]
fn datagrams_do_not_wait() {
    on_each_engine(|port, mint| {
        let socket = StdUdp::bind("127.0.0.1:0").unwrap();
        let duplicate = socket.try_clone().unwrap();
        let to = duplicate.local_addr().unwrap();
        let socket = port.associate(socket, 1).unwrap();
        blocks(&duplicate);
        // One by one, and several with one call.
        for round in [1, 3] {
            socket.recv_from_many((0..round + 1).map(|number| (Buffer::with_capacity(8), mint.token(number))));
            for _ in 0..round {
                duplicate.send_to(b"x", to).unwrap();
            }
            (0..round).for_each(|_| drop(next(port)));
            nothing_more(port);
            duplicate.send_to(b"y", to).unwrap();
            drop(next(port));
        }
        let sends = (0..500).map(|number| (vec![0; 1400], to, mint.token(number)));
        assert!(socket.send_to_many(sends).iter().all(Result::is_ok));
        (0..500).for_each(|_| drop(next(port)));
        nobody()
    });
}

#[test]
fn pipes_do_not_wait() {
    on_each_engine(|port, mint| {
        let (reader, mut writer) = std::io::pipe().unwrap();
        let duplicate = reader.try_clone().unwrap();
        let reader = port.associate(reader, 1).unwrap();
        blocks(&duplicate);
        for number in 1..3 {
            reader.recv(Buffer::with_capacity(4), mint.token(number)).unwrap();
        }
        writer.write_all(b"1234").unwrap();
        assert_eq!(&next_received(port).buffer[..], b"1234");
        nothing_more(port);
        writer.write_all(b"5").unwrap();
        assert_eq!(&next_received(port).buffer[..], b"5");

        let (mut source, sink) = std::io::pipe().unwrap();
        let duplicate = sink.try_clone().unwrap();
        let sink = port.associate(sink, 2).unwrap();
        blocks(&duplicate);
        sink.send(vec![7; MUCH], mint.token(3)).unwrap();
        let (tell, told) = channel();
        thread::spawn(move || {
            source.read_exact(&mut vec![0; MUCH]).unwrap();
            let _ = tell.send(());
        });
        assert_eq!(next_sent(port).2.unwrap(), MUCH);
        told
    });
}

#[test]
fn a_terminal_does_not_wait() {
    on_each_engine(|port, mint| {
        use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
        let mut keyboard = std::fs::File::from(openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap());
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::NOCTTY;
        let terminal = rustix::fs::open(&name, flags, rustix::fs::Mode::empty()).unwrap();
        let duplicate = terminal.try_clone().unwrap();
        let terminal = port.associate(terminal, 1).unwrap();
        for number in 1..3 {
            terminal.recv(Buffer::with_capacity(2), mint.token(number)).unwrap();
        }
        blocks(&duplicate);
        keyboard.write_all(b"a\n").unwrap();
        assert_eq!(&next_received(port).buffer[..], b"a\n");
        blocks(&duplicate);
        nothing_more(port);
        keyboard.write_all(b"b\n").unwrap();
        assert_eq!(&next_received(port).buffer[..], b"b\n");
        nobody()
    });
}

#[test]
fn a_connect_does_not_wait() {
    on_each_engine(|port, mint| {
        // A listener with a full backlog lets connects wait.
        let deaf = bound();
        rustix::net::listen(&deaf, 0).unwrap();
        let address = std::net::SocketAddr::try_from(rustix::net::getsockname(&deaf).unwrap()).unwrap();
        let fillers: Vec<_> = (0..4)
            .map(|_| {
                let filler = bound();
                rustix::io::ioctl_fionbio(&filler, true).unwrap();
                let _ = rustix::net::connect(&filler, &address);
                filler
            })
            .collect();
        let socket = bound();
        let duplicate = socket.try_clone().unwrap();
        let stream = port.connect_with(socket.into(), dead_address(), 1, mint.token(1)).unwrap();
        let Event::Connected { result, .. } = next(port).event else { panic!() };
        result.unwrap_err();
        blocks(&duplicate);
        stream.connect(address, mint.token(2)).unwrap();
        nothing_more(port);
        stream.close();
        drop((next(port), fillers));
        nobody()
    });
}

/// A bound socket that is neither connected nor listens.
fn bound() -> rustix::fd::OwnedFd {
    use rustix::net::{AddressFamily, SocketType, bind, socket};
    let socket = socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    bind(&socket, &std::net::SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    socket
}

fn read_all(mut peer: StdStream, bytes: usize) -> Receiver<()> {
    let (tell, told) = channel();
    thread::spawn(move || {
        peer.read_exact(&mut vec![0; bytes]).unwrap();
        let _ = tell.send(());
    });
    told
}

/// What a packet says of how many bytes were moved.
trait Bytes {
    fn bytes(self) -> usize;
}

impl Bytes for wharf::Packet<u64, Token> {
    fn bytes(self) -> usize {
        match self.event {
            Event::Sent { result, .. } | Event::SentFile { result, .. } | Event::SentVectored { result, .. } => {
                result.unwrap()
            }
            other => panic!("{other:?}"),
        }
    }
}
