//! Transfers that go on while the program around them does its worst: workers that end, panic and sleep, and a process
//! that forks. No operation may fail, and nothing be lost or told twice.

#![cfg(target_os = "linux")]

mod common;

use common::{DEADLINE, Ledger, Mint, Port, Stream, Taken, Token, alarm, eventually, in_child, pattern};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream, UdpSocket as StdSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use wharf::fs::File;
use wharf::{Buffer, Event, GetError, PortOptions, UnpostedReason, WorkerPool, Workers};

/// What a posted packet makes its handler do.
const PANIC: u64 = 1;
const SLEEP: u64 = 2;
const SLEEP_ANNOUNCED: u64 = 3;
/// Everything else.
const TRANSFER: u64 = 0;

/// A server of streams, datagrams and a file, and its clients, which compare what comes back.
struct Transfers {
    port: Port,
    mint: Mint,
    address: SocketAddr,
    datagrams: SocketAddr,
    failed: Mutex<Vec<String>>,
    stop: AtomicBool,
    /// Turns of the clients, and of the file.
    turns: AtomicUsize,
    files: AtomicUsize,
    slept: AtomicUsize,
}

const BLOCK: usize = 8192;

impl Transfers {
    fn start(ledger: &Ledger) -> Arc<Transfers> {
        let port: Port = PortOptions::default().concurrency(2).build().unwrap();
        let listener = port.listen("127.0.0.1:0", 0).unwrap();
        let address = listener.local_addr().unwrap();
        listener.accept(ledger.token(TRANSFER)).unwrap();
        let socket = port.bind("127.0.0.1:0", 0).unwrap();
        let datagrams = socket.local_addr().unwrap();
        socket.recv_from(Buffer::with_capacity(2048), ledger.token(TRANSFER)).unwrap();
        let path = std::env::temp_dir().join(format!("wharf-hostile-{}-{:x}", std::process::id(), fastrand::u64(..)));
        let mut options = std::fs::OpenOptions::new();
        let file = port.open(&path, options.read(true).write(true).create_new(true), 0).unwrap();
        std::fs::remove_file(&path).unwrap();
        let transfers = Arc::new(Transfers {
            port,
            mint: ledger.mint(),
            address,
            datagrams,
            failed: Mutex::default(),
            stop: AtomicBool::new(false),
            turns: AtomicUsize::new(0),
            files: AtomicUsize::new(0),
            slept: AtomicUsize::new(0),
        });
        transfers.write(&file);
        transfers
    }

    fn token(&self) -> Token {
        self.mint.token(TRANSFER)
    }

    fn content(&self) -> Vec<u8> {
        pattern(BLOCK, self.files.load(SeqCst) as u64)
    }

    fn write(&self, file: &File<u64, Token>) {
        if !self.stop.load(SeqCst) {
            file.write_at(self.content(), 0, self.token()).unwrap();
        }
    }

    fn failed(&self, what: String) {
        self.failed.lock().unwrap().push(what);
    }

    /// What every worker does with a packet.
    fn handle(&self, packet: Taken) {
        packet.context.arrive();
        match (packet.context.number, packet.event) {
            (PANIC, _) => panic!("as asked for"),
            (SLEEP, _) => {
                thread::sleep(Duration::from_secs(1));
                self.slept.fetch_add(1, SeqCst);
            }
            (SLEEP_ANNOUNCED, _) => {
                wharf::blocking(|| thread::sleep(Duration::from_secs(1)));
                self.slept.fetch_add(1, SeqCst);
            }
            (_, Event::Accepted { listener, result: Ok((socket, _)) }) => {
                listener.accept(self.token()).unwrap();
                let stream: Stream = self.port.associate(socket, 0).unwrap();
                stream.recv_pooled(self.token()).unwrap();
            }
            (_, Event::Received { stream, buffer, result: Ok(1..) }) => {
                drop(stream.send(buffer, self.token()).unwrap())
            }
            (_, Event::Received { result: Ok(_), .. }) => {}
            (_, Event::Sent { stream, result: Ok(_), .. }) => drop(stream.recv_pooled(self.token()).unwrap()),
            (_, Event::ReceivedFrom { socket, buffer, from: Some(from), result: Ok(_), .. }) => {
                socket.send_to(buffer, from, self.token()).unwrap();
            }
            (_, Event::SentTo { socket, result: Ok(_), .. }) => {
                socket.recv_from(Buffer::with_capacity(2048), self.token()).unwrap();
            }
            (_, Event::Written { file, result: Ok(BLOCK), .. }) => {
                file.read_at(Buffer::with_capacity(BLOCK), 0, self.token()).unwrap();
            }
            (_, Event::Read { file, buffer, result: Ok(BLOCK) }) => {
                if buffer[..] != self.content() {
                    self.failed("the file does not hold what was written".into());
                }
                self.files.fetch_add(1, SeqCst);
                self.write(&file);
            }
            (_, other) => self.failed(format!("{other:?}")),
        }
    }

    /// The workers, and four clients.
    fn run(self: &Arc<Self>) -> (WorkerPool, Vec<JoinHandle<()>>) {
        let handler = self.clone();
        let pool = self.port.start(Workers::new(3), move |packet| handler.handle(packet)).unwrap();
        let client = |seed| {
            let transfers = self.clone();
            thread::spawn(move || transfers.talk(seed))
        };
        (pool, (0..4).map(client).collect())
    }

    /// A client of its own thread, until it is told to stop.
    fn talk(&self, seed: u64) {
        let mut stream = StdStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let socket = StdSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let mut back = vec![0; BLOCK];
        for turn in 0.. {
            if self.stop.load(SeqCst) {
                return;
            }
            let sent = pattern(BLOCK, seed << 32 | turn);
            stream.write_all(&sent).unwrap();
            stream.read_exact(&mut back).unwrap();
            assert_eq!(back, sent, "what came back is not what was sent");
            socket.send_to(&sent[..1000], self.datagrams).unwrap();
            assert_eq!(socket.recv(&mut back).unwrap(), 1000);
            assert_eq!(back[..1000], sent[..1000]);
            self.turns.fetch_add(1, SeqCst);
        }
    }

    #[track_caller]
    fn are_well(&self) {
        let failed = self.failed.lock().unwrap();
        assert!(failed.is_empty(), "{} operations failed: {}", failed.len(), failed[0]);
    }

    /// Transfers go on from here.
    fn go_on(&self, what: &str) {
        let (turns, files) = (self.turns.load(SeqCst), self.files.load(SeqCst));
        eventually(what, || {
            // What failed is said at once, and not that nothing goes on.
            self.are_well();
            self.turns.load(SeqCst) > turns + 20 && self.files.load(SeqCst) > files + 20
        });
    }
}

#[test]
fn no_operation_fails_while_workers_end_panic_and_sleep_for_a_second() {
    in_child("no_operation_fails_while_workers_end_panic_and_sleep_for_a_second", || {
        const PANICS: u64 = 10;
        const SLEEPS: u64 = 6;
        std::panic::set_hook(Box::new(|info| {
            if !info.to_string().contains("as asked for") {
                // Of the test's own: what its packet carried would be answered no more, and everybody would wait.
                eprintln!("{info}");
                std::process::abort();
            }
        }));
        let ledger = Ledger::new();
        let transfers = Transfers::start(&ledger);
        let (pool, clients) = transfers.run();
        // Threads that take a few packets and end, by returning or by a panic of their own.
        let passers: Vec<_> = (0..8)
            .map(|number| {
                let transfers = transfers.clone();
                thread::spawn(move || {
                    for _ in 0..20 + number {
                        // Who lies at the bottom of the stack may wait until the end: the last one to wait is the
                        // first.
                        let Ok(packet) = transfers.port.get() else { return };
                        transfers.handle(packet);
                    }
                    assert!(number % 2 == 0, "as asked for");
                })
            })
            .collect();
        for number in 0..PANICS.max(2 * SLEEPS) {
            if number < PANICS {
                transfers.port.post(0, 0, ledger.token(PANIC)).unwrap();
            }
            if number < 2 * SLEEPS {
                let sleep = if number % 2 == 0 { SLEEP } else { SLEEP_ANNOUNCED };
                transfers.port.post(0, 0, ledger.token(sleep)).unwrap();
            }
            transfers.go_on("transfers go on while workers end, panic and sleep");
        }
        eventually("all have slept", || transfers.slept.load(SeqCst) as u64 == 2 * SLEEPS);
        transfers.go_on("transfers go on afterwards");
        transfers.stop.store(true, SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        transfers.are_well();
        // Then what waits for nobody any more: the accept, and a receive of datagrams.
        eventually("every other packet has come", || ledger.live() == 2);
        assert_eq!(ledger.made() - ledger.arrived(), 2);
        transfers.port.close();
        // A panic is that of a packet it took, or its own.
        passers.into_iter().for_each(|passer| drop(passer.join()));
        let report = pool.join();
        assert!(report.panics <= PANICS, "{report:?}");
        assert!(report.grown > 0, "sleeping workers were replaced: {report:?}");
        drop(transfers);
    });
}

/// Runs `child` in a forked process and returns its exit code. Other threads may hold any lock at this point, so the
/// child only makes calls that have to fail before they take one, and allocates, which the C library allows.
#[allow(unsafe_code)]
fn forked(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: as said above; the child ends by _exit and runs none of the parent's destructors.
    match unsafe { libc::fork() } {
        0 => {
            alarm();
            let code = child();
            // SAFETY: ends the process.
            unsafe { libc::_exit(code) }
        }
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        number => {
            let mut status = 0;
            // SAFETY: `status` is ours to be written.
            assert_eq!(unsafe { libc::waitpid(number, &raw mut status, 0) }, number);
            assert!(libc::WIFEXITED(status), "the child was killed by signal {}", libc::WTERMSIG(status));
            libc::WEXITSTATUS(status)
        }
    }
}

#[test]
fn a_fork_in_the_middle_of_transfers_gives_the_child_errors_and_leaves_the_parent_alone() {
    in_child("a_fork_in_the_middle_of_transfers_gives_the_child_errors_and_leaves_the_parent_alone", || {
        let ledger = Ledger::new();
        let transfers = Transfers::start(&ledger);
        let (pool, clients) = transfers.run();
        let (own, _peer) = common::connection(&transfers.port, 1);
        let begun = Instant::now();
        for _ in 0..20 {
            transfers.go_on("transfers go on between forks");
            let token = || ledger.token(TRANSFER);
            let tokens: Vec<Token> = (0..8).map(|_| token()).collect();
            let code = forked(|| {
                let mut tokens = tokens.into_iter();
                let mut token = || tokens.next().unwrap();
                let port = &transfers.port;
                let checks = [
                    port.get_timeout(Duration::ZERO).unwrap_err() == GetError::Forked,
                    port.get().unwrap_err() == GetError::Forked,
                    port.post(0, 0, token()).is_err_and(|unposted| unposted.reason == UnpostedReason::Closed),
                    own.recv(vec![0; 8], token()).is_err(),
                    own.send("from the child", token()).is_err(),
                    port.timer(Duration::ZERO, 0, token()).is_err(),
                    port.connect(transfers.address, 0, token()).is_err(),
                    own.disconnect(token()).is_err(),
                ];
                checks.iter().position(|holds| !holds).map_or(0, |at| 10 + at as i32)
            });
            assert_eq!(code, 0, "10 and more: which of the child's calls did otherwise than fail");
        }
        transfers.go_on("transfers go on after the last fork");
        println!("20 forks, {} turns, {:?}", transfers.turns.load(SeqCst), begun.elapsed());
        transfers.stop.store(true, SeqCst);
        clients.into_iter().for_each(|client| client.join().unwrap());
        transfers.are_well();
        drop(own);
        transfers.port.close();
        pool.join();
        drop(transfers);
    });
}
