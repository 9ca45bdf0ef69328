//! `wharf chat` in a terminal, which is a real pseudo-terminal here.

mod common;

use common::{DEADLINE, Wharf, command};
use rustix::process::Signal;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::process::Child;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Instant;

struct Talk {
    child: Child,
    keys: File,
    shown: Receiver<Vec<u8>>,
    seen: String,
}

impl Talk {
    fn start(server: SocketAddr) -> Talk {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap().into_string().unwrap();
        let screen = File::options().read(true).write(true).open(name).unwrap();
        let end = || OwnedFd::from(screen.try_clone().unwrap());
        let mut talk = command(&["chat", &server.to_string()]);
        let child = talk.env("TERM", "xterm").stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let keys = File::from(keyboard);
        let (into, shown) = channel();
        let mut from = keys.try_clone().unwrap();
        thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(bytes @ 1..) = from.read(&mut piece) {
                if into.send(piece[..bytes].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut talk = Talk { child, keys, shown, seen: String::new() };
        talk.sees("> ");
        talk
    }

    #[track_caller]
    fn sees(&mut self, words: &str) {
        let until = Instant::now() + DEADLINE;
        while !self.seen.contains(words) {
            let left = until.saturating_duration_since(Instant::now());
            match self.shown.recv_timeout(left) {
                Ok(piece) => self.seen.push_str(&String::from_utf8_lossy(&piece)),
                Err(error) => panic!("{words:?} is not shown ({error}): {:?}", self.seen),
            }
        }
    }
}

impl Drop for Talk {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_others_send_does_not_steer_the_terminal() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut talk = Talk::start(server.local_addr().unwrap());
    let (mut member, _) = server.accept().unwrap();
    member.write_all(b"\x1b]0;x\x07\x1b[2J\xc2").unwrap();
    member.write_all(b"\x9bdone\n").unwrap();
    talk.sees("done");
    assert!(talk.seen.contains("^[]0;x^G^[[2J<U+009B>done"), "{:?}", talk.seen);
    assert!(!talk.seen.contains("\x1b]0;x") && !talk.seen.contains("\x1b[2J"), "{:?}", talk.seen);
}

/// Nobody presses a key.
#[test]
fn the_end_of_the_server_is_told_at_once_and_is_an_error() {
    let server = Wharf::start(&["serve", "chat", "--listen", "127.0.0.1:0"]);
    let mut talk = Talk::start(server.address());
    assert_eq!(server.end_by(Signal::TERM).code, Some(0));
    talk.sees("the server closed the connection");
    assert_eq!(talk.child.wait().unwrap().code(), Some(1));
    // A connection that breaks.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut talk = Talk::start(server.local_addr().unwrap());
    let (member, _): (TcpStream, _) = server.accept().unwrap();
    rustix::net::sockopt::set_socket_linger(&member, Some(std::time::Duration::ZERO)).unwrap();
    drop(member);
    talk.sees("the connection ended");
    assert_eq!(talk.child.wait().unwrap().code(), Some(1));
}

#[test]
fn whoever_leaves_has_made_no_error() {
    let server = Wharf::start(&["serve", "chat", "--listen", "127.0.0.1:0"]);
    let mut talk = Talk::start(server.address());
    talk.keys.write_all(b"\x04").unwrap();
    assert_eq!(talk.child.wait().unwrap().code(), Some(0));
}
