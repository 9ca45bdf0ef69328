//! Every operation that was accepted ends in exactly one packet, whatever cancels, closes and resets race (row K-01),
//! and nothing is left behind: no context, no buffer, no allocation, no descriptor.
//!
//! A seeded storm of operations runs over real sockets in several threads, each in a process of its own where every
//! allocation is counted. The seed is printed; `WHARF_TEST_SEED` repeats it (threads still interleave as they like).

mod common;

use common::numbers::*;
use common::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream as StdStream};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use wharf::{Buffer, Event, OperationId, Outcome, Refused, Wake, Workers, blocking};

/// What operations on connections that come and go may end with.
const EXPECTED: [i32; 7] = [ECONNRESET, ECONNABORTED, ECONNREFUSED, ECANCELED, ENOTCONN, ESHUTDOWN, EPIPE];

/// Counts what is allocated and not freed.
struct Counting;

static LIVE_BLOCKS: AtomicI64 = AtomicI64::new(0);
static LIVE_BYTES: AtomicI64 = AtomicI64::new(0);

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system's allocator unchanged; counting touches atomics only.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE_BLOCKS.fetch_add(1, SeqCst);
        LIVE_BYTES.fetch_add(layout.size() as i64, SeqCst);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE_BLOCKS.fetch_sub(1, SeqCst);
        LIVE_BYTES.fetch_sub(layout.size() as i64, SeqCst);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LIVE_BYTES.fetch_add(size as i64 - layout.size() as i64, SeqCst);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What the process has open.
#[cfg(windows)]
#[allow(unsafe_code)]
fn descriptors() -> usize {
    use windows_sys::Win32::System::Threading::{GetCurrentProcess, GetProcessHandleCount};
    let mut count = 0;
    // SAFETY: the process's own handle is always good; the number lives through the call.
    assert!(unsafe { GetProcessHandleCount(GetCurrentProcess(), &raw mut count) } != 0, "handles cannot be counted");
    count as usize
}

/// What the process has open.
#[cfg(unix)]
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Storms of a test. A system call takes ten times as long under Wine.
const STORMS: u64 = if cfg!(windows) { 10 } else { 60 };

/// Runs `round` again and again; after the first ones nothing more may stay allocated or open. Each has a thread of its
/// own, for a thread keeps the memory of a few operations to use it again, until it ends.
fn leaves_nothing(rounds: u64, mut round: impl FnMut(u64) -> usize + Send) {
    /// What a process makes once (the test harness's own thread does so at its leisure) shows in one attempt; a leak
    /// in each.
    const ATTEMPTS: u64 = 4;
    let mut round = |number| thread::scope(|scope| scope.spawn(|| round(number)).join().unwrap());
    let mut packets: usize = (0..3).map(&mut round).sum();
    let mut figures = Vec::new();
    for attempt in 0..ATTEMPTS {
        let before = (LIVE_BLOCKS.load(SeqCst), LIVE_BYTES.load(SeqCst), descriptors());
        let first = 3 + attempt * rounds;
        packets += (first..first + rounds).map(&mut round).sum::<usize>();
        let after = (LIVE_BLOCKS.load(SeqCst), LIVE_BYTES.load(SeqCst), descriptors());
        if before == after {
            assert!(packets > 10 * rounds as usize, "nothing has happened: {packets} packets in {rounds} rounds");
            return;
        }
        figures.push((before, after));
    }
    panic!("blocks, bytes and descriptors before and after {rounds} rounds, each time: {figures:?}");
}

fn seed() -> u64 {
    let seed = match std::env::var("WHARF_TEST_SEED") {
        Ok(seed) => seed.parse().expect("WHARF_TEST_SEED is a number"),
        Err(_) => fastrand::u64(..),
    };
    println!("seed: WHARF_TEST_SEED={seed}");
    seed
}

/// What the issuing side and the handlers share.
struct Storm {
    port: Port,
    mint: Mint,
    /// Operations that were accepted: each owes one packet.
    accepted: AtomicUsize,
    /// Their packets.
    ended: AtomicUsize,
    next: AtomicU64,
    /// The handlers may issue and close.
    wild: AtomicBool,
    problems: Mutex<Vec<String>>,
    /// Streams that were accepted or connected: operations that nobody will end keep them open, so they are closed.
    born: Mutex<Vec<Stream>>,
}

impl Storm {
    fn token(&self) -> Token {
        self.mint.token(self.next.fetch_add(1, SeqCst))
    }

    /// Counts what an issuing call came to. Counted before the call: the packet may come before it returns.
    fn issue<B>(
        &self,
        call: impl FnOnce(Token) -> Result<Outcome<u64, Token>, Refused<Token, B>>,
    ) -> Option<OperationId> {
        self.accepted.fetch_add(1, SeqCst);
        match call(self.token()) {
            Ok(Outcome::Pending(id)) => Some(id),
            Ok(Outcome::Done(packet)) => {
                packet.context.arrive();
                self.ended.fetch_add(1, SeqCst);
                None
            }
            Err(refused) => {
                self.accepted.fetch_sub(1, SeqCst);
                drop(refused.context);
                None
            }
        }
    }

    fn random_operation(&self, stream: &Stream, random: &mut fastrand::Rng) -> Option<OperationId> {
        match random.u32(..10) {
            0..2 => self.issue(|token| stream.recv(Vec::with_capacity(random.usize(0..3000)), token)),
            2 => self.issue(|token| stream.recv_pooled(token)),
            3 => self.issue(|token| stream.readable(token)),
            4 => self.issue(|token| stream.send(vec![1; random.usize(0..300_000)], token)),
            5 => {
                let shared: Arc<[u8]> = vec![2; random.usize(0..5000)].into();
                self.issue(|token| stream.send(shared, token))
            }
            6 => self.issue(|token| stream.send("static", token)),
            7 => {
                let buffers = (0..random.usize(0..20)).map(|n| Buffer::from(vec![3; n * 50])).collect();
                self.issue(|token| stream.send_vectored(buffers, token))
            }
            8 if random.u32(..8) == 0 => self.issue(|token| stream.disconnect(token)),
            8 => self.issue(|token| stream.send("x", token)),
            _ => self.issue(|token| stream.recv(vec![0; 100], token)),
        }
    }

    fn handle(&self, packet: Taken) {
        packet.context.arrive();
        // A packet that was handled is forgotten: its handles and buffers go here.
        let mut random = fastrand::Rng::with_seed(packet.context.number);
        if self.wild.load(SeqCst) {
            match &packet.event {
                Event::Received { stream, .. } | Event::Sent { stream, .. } | Event::Readable { stream, .. } => {
                    match random.u32(..20) {
                        0..8 => drop(self.random_operation(stream, &mut random)),
                        8 => stream.close(),
                        9 => drop(stream.cancel_all()),
                        10 => blocking(|| thread::sleep(Duration::from_micros(200))),
                        11 => thread::sleep(Duration::from_millis(2)),
                        12 => drop(stream.shutdown(Shutdown::Both)),
                        _ => {}
                    }
                }
                Event::Accepted { listener, result } => {
                    self.issue(|token| listener.accept(token));
                    if let Ok((socket, _)) = result
                        && let Ok(stream) = self.port.associate(socket.try_clone().unwrap(), 3)
                    {
                        self.random_operation(&stream, &mut random);
                        self.born.lock().unwrap().push(stream);
                    }
                }
                Event::Connected { stream, result } => match result {
                    Ok(()) => drop(self.random_operation(stream, &mut random)),
                    Err(_) if random.bool() => drop(self.issue(|token| stream.connect(dead_address(), token))),
                    Err(_) => {}
                },
                _ => {}
            }
        }
        if let Some(error) = packet.error() {
            // Reset, refused, aborted, shut down: what cancels, closes and resets may lead to.
            if !EXPECTED.contains(&error.raw_os_error().unwrap_or(0)) {
                self.problems.lock().unwrap().push(format!("{error}: {:?}", packet.event));
            }
        }
        drop(packet);
        self.ended.fetch_add(1, SeqCst);
    }
}

#[derive(Clone, Copy)]
enum Ending {
    /// Every device is closed, and every operation has to end in its packet.
    Drain,
    /// The port is closed in the middle of it.
    ClosePort,
    /// The port's last handle is dropped while operations are outstanding; the workers have been told to stop.
    DropPort,
}

fn storm(seed: u64, wake: Wake, ending: Ending, pooled_workers: bool) -> usize {
    let mut random = fastrand::Rng::with_seed(seed);
    let ledger = Ledger::new();
    let port = Port::options().concurrency(2).wake(wake).pool(2000, 4).build().unwrap();
    let storm = Arc::new(Storm {
        port: port.clone(),
        mint: ledger.mint(),
        accepted: AtomicUsize::new(0),
        ended: AtomicUsize::new(0),
        next: AtomicU64::new(seed),
        wild: AtomicBool::new(true),
        problems: Mutex::default(),
        born: Mutex::default(),
    });
    let handler = {
        // Weak, so that the pool's handler does not keep the port, nor the port the handler.
        let storm = Arc::downgrade(&storm);
        move |packet: Taken| match storm.upgrade() {
            Some(storm) => storm.handle(packet),
            None => packet.context.arrive(),
        }
    };
    let (crew, pool) = if pooled_workers {
        (None, Some(port.start(Workers::new(2), handler).unwrap()))
    } else {
        // Not `Crew`, which closes the port: these leave when they are told.
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let (port, handler) = (port.clone(), handler.clone());
                thread::spawn(move || {
                    const LEAVE: u64 = 0x1ea5e;
                    if n == 0 {
                        while let Ok(batch) = port.get_many(5) {
                            let mut leave = false;
                            for packet in batch {
                                leave |= packet.key == LEAVE;
                                if packet.key != LEAVE {
                                    handler(packet);
                                }
                                if leave {
                                    return;
                                }
                            }
                        }
                    } else {
                        while let Ok(packet) = port.get() {
                            if packet.key == LEAVE {
                                return;
                            }
                            handler(packet);
                        }
                    }
                })
            })
            .collect();
        (Some(threads), None)
    };
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    for _ in 0..3 {
        storm.issue(|token| listener.accept(token));
    }
    let mut streams: Vec<Stream> = Vec::new();
    let mut peers: Vec<StdStream> = Vec::new();
    let mut ids: Vec<OperationId> = Vec::new();
    for step in 0..400 {
        if step % 20 == 0 {
            // The handlers shall be in the middle of it whatever comes next.
            burn(Duration::from_micros(200));
        }
        if streams.len() < 6 && random.u32(..5) == 0 {
            let (stream, peer) = connection(&port, step);
            if random.u32(..3) == 0 {
                stream.skip_on_success();
            }
            peer.set_nonblocking(true).unwrap();
            streams.push(stream);
            peers.push(peer);
        }
        let at = random.usize(0..streams.len().max(1));
        match random.u32(..100) {
            0..45 => {
                if let Some(stream) = streams.get(at) {
                    ids.extend(storm.random_operation(stream, &mut random));
                }
            }
            45..60 => {
                if let Some(mut peer) = peers.get(at) {
                    let _ = peer.write(&vec![9; random.usize(0..3000)]);
                }
            }
            60..68 => {
                if let Some(mut peer) = peers.get(at) {
                    let _ = peer.read(&mut vec![0; 100_000]);
                }
            }
            68..76 => {
                if !ids.is_empty() {
                    port.cancel(ids.swap_remove(random.usize(0..ids.len())));
                }
            }
            76..78 => drop(streams.get(at).map(|stream| stream.cancel_all())),
            78..80 => {
                if at < streams.len() {
                    streams.swap_remove(at).close();
                    peers.swap_remove(at);
                }
            }
            80..82 => {
                if at < streams.len() {
                    streams.swap_remove(at);
                    reset(peers.swap_remove(at));
                }
            }
            82 => drop(peers.get(at).map(|peer| peer.shutdown(Shutdown::Write))),
            83 => {
                if at < streams.len() {
                    match streams.swap_remove(at).release() {
                        Ok(socket) => drop(socket),
                        Err(rejected) => streams.push(rejected.source),
                    }
                    // The peers stay beside their streams.
                    let peer = peers.swap_remove(at);
                    if peers.len() < streams.len() {
                        peers.push(peer);
                    }
                }
            }
            84..88 => {
                let target = if random.bool() { address } else { dead_address() };
                storm.accepted.fetch_add(1, SeqCst);
                match port.connect(target, 2, storm.token()) {
                    Ok(stream) => storm.born.lock().unwrap().push(stream),
                    Err(_) => drop(storm.accepted.fetch_sub(1, SeqCst)),
                }
            }
            88..92 => {
                storm.accepted.fetch_add(1, SeqCst);
                let after = Duration::from_micros(random.u64(..3000));
                match port.timer(after, 4, storm.token()) {
                    Ok(id) => ids.push(id),
                    Err(_) => drop(storm.accepted.fetch_sub(1, SeqCst)),
                }
            }
            _ => {
                storm.accepted.fetch_add(1, SeqCst);
                if port.post(step as usize, 5, storm.token()).is_err() {
                    storm.accepted.fetch_sub(1, SeqCst);
                }
            }
        }
    }
    let leave = || {
        for _ in 0..3 {
            let _ = port.post(0, 0x1ea5e, ledger.token(0));
        }
    };
    match ending {
        Ending::Drain => {
            storm.wild.store(false, SeqCst);
            // Handlers that were under way may still issue.
            eventually("every accepted operation has ended in its packet", || {
                streams.iter().chain(storm.born.lock().unwrap().iter()).for_each(wharf::Stream::close);
                listener.close();
                for id in ids.drain(..) {
                    port.cancel(id);
                }
                storm.ended.load(SeqCst) >= storm.accepted.load(SeqCst)
            });
            assert_eq!(storm.ended.load(SeqCst), storm.accepted.load(SeqCst), "more packets than operations");
            eventually("every context is freed", || ledger.live() == 0);
            eventually("every device is gone", || {
                streams.clear();
                storm.born.lock().unwrap().clear();
                port.stats().devices == 0
            });
            leave();
        }
        Ending::ClosePort => port.close(),
        Ending::DropPort => leave(),
    }
    if let Some(pool) = pool {
        pool.shutdown(DEADLINE);
    }
    for thread in crew.into_iter().flatten() {
        thread.join().unwrap();
    }
    assert_eq!(*storm.problems.lock().unwrap(), [""; 0]);
    let arrived = ledger.arrived();
    drop((streams, peers, listener));
    drop(storm);
    drop(port);
    arrived
    // The ledger goes last and looks for what is left.
}

#[test]
fn every_operation_of_a_storm_ends_in_exactly_one_packet() {
    in_child("every_operation_of_a_storm_ends_in_exactly_one_packet", || {
        let seed = seed();
        leaves_nothing(STORMS, |round| {
            let wake = if round % 2 == 0 { Wake::Adaptive } else { Wake::Eager };
            storm(seed.wrapping_add(round), wake, Ending::Drain, round % 3 == 0)
        });
    });
}

#[test]
fn closing_the_port_in_a_storm_frees_everything() {
    in_child("closing_the_port_in_a_storm_frees_everything", || {
        let seed = seed();
        leaves_nothing(STORMS, |round| {
            let wake = if round % 2 == 0 { Wake::Adaptive } else { Wake::Eager };
            storm(seed.wrapping_add(round), wake, Ending::ClosePort, round % 3 == 0)
        });
    });
}

#[test]
fn dropping_the_last_handle_of_a_port_in_a_storm_frees_everything() {
    in_child("dropping_the_last_handle_of_a_port_in_a_storm_frees_everything", || {
        let seed = seed();
        leaves_nothing(STORMS, |round| {
            storm(seed.wrapping_add(round), Wake::Adaptive, Ending::DropPort, round % 3 == 0)
        });
    });
}

#[cfg(unix)]
#[test]
fn timers_signals_batches_and_posts_that_nobody_takes_are_freed() {
    in_child("timers_signals_batches_and_posts_that_nobody_takes_are_freed", || {
        leaves_nothing(20, |round| {
            let ledger = Ledger::new();
            let port = port(2, Wake::default());
            for n in 0..20 {
                port.post(0, 0, ledger.token(n)).unwrap();
                port.timer(Duration::from_millis(n), 0, ledger.token(n)).unwrap();
            }
            port.interval(Duration::from_micros(100), 0, ledger.token(100)).unwrap();
            port.signal(libc::SIGUSR1, 0, ledger.token(101)).unwrap();
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::USR1).unwrap();
            let mut batch = port.get_many(10).unwrap();
            drop(batch.next());
            let kept = batch.next();
            match round % 4 {
                0 => port.close(),
                1 => drop(batch),
                2 => drop(port),
                _ => drop(kept),
            }
            ledger.made()
        });
    });
}

#[test]
fn a_timer_with_a_counted_key_and_context_frees_both() {
    let counted = Arc::new(());
    {
        let port = wharf::CompletionPort::<Arc<()>, Arc<()>>::new().unwrap();
        let both = || (counted.clone(), counted.clone());
        let (key, context) = both();
        port.post(0, key, context).unwrap();
        let (key, context) = both();
        port.timer(Duration::ZERO, key, context).unwrap();
        let (key, context) = both();
        let id = port.timer(Duration::from_secs(3600), key, context).unwrap();
        let (key, context) = both();
        let ticks = port.interval(Duration::from_millis(1), key, context).unwrap();
        let (server, mut peer) = pair();
        let stream = port.associate(server, counted.clone()).unwrap();
        stream.recv(vec![0; 8], counted.clone()).unwrap();
        stream.recv(vec![0; 8], counted.clone()).unwrap();
        peer.write_all(b"x").unwrap();
        let mut kinds = 0;
        while kinds != 0b1111 {
            let packet = port.get_timeout(DEADLINE).unwrap();
            kinds |= match packet.event {
                Event::Posted { .. } => 1,
                Event::Received { .. } => 2,
                Event::Elapsed { .. } => 4,
                _ => 0,
            };
            if kinds & 7 == 7 {
                port.cancel(id);
                port.cancel(ticks);
                kinds |= 8;
            }
        }
        // The rest is outstanding or queued.
    }
    eventually("every key and context is freed", || Arc::strong_count(&counted) == 1);
}
