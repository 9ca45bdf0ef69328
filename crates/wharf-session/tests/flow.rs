//! What holds sessions back, and lets them go on: pauses, rate limits, memory limits; and the figures.
//!
//! Whatever holds a session, nothing is lost, it can be ended, and it goes on when the reason is gone. Rates are tested
//! by what they cannot fall below: a slow machine makes everything later, never earlier.

mod common;

use common::theatre::{Casting, Gate, Theatre, client, next, read_exactly, read_to_end, round_trip, service};
use common::{DEADLINE, eventually, pattern, small_buffers};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use wharf::Workers;
use wharf_session::{
    Closed, FrameError, Framed, FramedLink, FramedSession, Group, Lines, Link, Rate, SendErrorReason, Service,
    ServiceOptions, SlowConsumer,
};

const KIB: usize = 1024;
const MIB: usize = 1024 * 1024;

/// A session that tells its link and passes on what it receives, and why it was closed.
struct Told {
    service: Service,
    address: SocketAddr,
    links: Receiver<Link>,
    data: Receiver<Vec<u8>>,
    reasons: Receiver<String>,
}

fn telling(theatre: &Theatre, builder: ServiceOptions) -> Told {
    let service = service(builder);
    let (casting, (link, links), (datum, data), (reason, reasons)) =
        (theatre.casting(), channel(), channel(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let datum = datum.clone();
            casting.actor().telling(&link, &reason).received(move |_, data| drop(datum.send(data.to_vec())))
        })
        .unwrap();
    Told { service, address, links, data, reasons }
}

/// So many bytes of what was received.
#[track_caller]
fn collect(data: &Receiver<Vec<u8>>, bytes: usize) -> Vec<u8> {
    let mut collected = Vec::new();
    while collected.len() < bytes {
        collected.extend(next(data));
    }
    collected
}

/// Time enough, nearly always, for the worker that called a handler to issue the next receive. Where it is not, the
/// test tests less, and passes.
fn receive_is_outstanding() {
    thread::sleep(Duration::from_millis(20));
}

/// Nothing is received for a while. It can only be too short to notice something, never fail by chance.
#[track_caller]
fn silent(data: &Receiver<Vec<u8>>) {
    let got = data.recv_timeout(Duration::from_millis(50));
    assert!(got.is_err(), "received although it was paused: {got:?}");
}

/// Nobody was ended for memory: unless this machine stood still for so long that somebody had to be.
#[track_caller]
fn nobody_was_ended(service: &Service, begin: Instant) {
    if begin.elapsed() < Duration::from_millis(900) {
        assert_eq!(service.stats().memory.ended, 0);
    }
}

#[track_caller]
fn all_memory_is_free(service: &Service) {
    eventually("nothing is kept in memory any more", || service.stats().memory.used_bytes == 0);
}

// --- Pause and resume ---

#[test]
fn a_handler_that_pauses_its_session_gets_nothing_more_until_it_is_resumed() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, (datum, data), (tell, links)) = (theatre.casting(), channel(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let (datum, tell) = (datum.clone(), tell.clone());
            let pause = move |link: &Link, data: wharf::Buffer| {
                link.pause();
                datum.send(data.to_vec()).unwrap();
            };
            casting.actor().opened(move |link| tell.send(link.clone()).unwrap()).received(pause)
        })
        .unwrap();
    let mut socket = client(address);
    let link = next(&links);
    let sent = pattern(300 * KIB, 1);
    let (copy, mut got) = (sent.clone(), Vec::new());
    let writer = thread::spawn(move || {
        socket.write_all(&copy).unwrap();
        socket
    });
    let mut calls = 0;
    while got.len() < sent.len() {
        got.extend(next(&data));
        calls += 1;
        if calls <= 3 {
            silent(&data);
            assert!(link.stats().paused);
        }
        link.resume();
    }
    assert!(got == sent);
    drop(writer.join().unwrap());
    eventually("it is over", || theatre.closed() == 1);
    assert_eq!(link.stats().messages_received, calls);
}

#[test]
fn what_comes_after_a_pause_from_another_thread_is_kept_and_is_the_first_thing_after_it() {
    let theatre = Theatre::new();
    let Told { service, address, links, data, reasons } = telling(&theatre, Service::options());
    let mut socket = client(address);
    let link = next(&links);
    socket.write_all(b"before").unwrap();
    assert_eq!(next(&data), b"before");
    receive_is_outstanding();
    // It takes what comes next, and no more.
    link.pause();
    link.pause();
    socket.write_all(b"one").unwrap();
    eventually("it is held", || link.stats().paused);
    assert_eq!(link.stats().unhandled_bytes > 0, service.stats().memory.used_bytes > 0);
    socket.write_all(b"two").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    silent(&data);
    // Sending goes on meanwhile.
    link.send("still here").unwrap();
    assert_eq!(read_exactly(&mut socket, 10), b"still here");
    assert_eq!(theatre.closed(), 0, "what was said before the end comes first");
    link.resume();
    link.resume();
    assert_eq!(collect(&data, 6), b"onetwo");
    assert_eq!(next(&reasons), "ByPeer");
    all_memory_is_free(&service);
}

#[test]
fn a_session_can_be_paused_before_anything_came() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, (datum, data), (tell, links)) = (theatre.casting(), channel(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let (datum, tell) = (datum.clone(), tell.clone());
            let opened = move |link: &Link| {
                link.pause();
                tell.send(link.clone()).unwrap();
            };
            casting.actor().opened(opened).received(move |_, data| drop(datum.send(data.to_vec())))
        })
        .unwrap();
    let mut socket = client(address);
    let link = next(&links);
    socket.write_all(b"early").unwrap();
    silent(&data);
    assert_eq!(link.stats().unhandled_bytes, 0, "nothing was received at all");
    link.resume();
    assert_eq!(next(&data), b"early");
}

/// Collects lines, and does something at each.
struct Reader {
    lines: Sender<String>,
    links: Sender<Link>,
    each: fn(&Link, &str),
    reasons: Sender<String>,
}

impl FramedSession for Reader {
    type Codec = Lines;

    fn opened(&mut self, link: &FramedLink<Lines>) {
        let _ = self.links.send(link.link().clone());
    }

    fn frame(&mut self, link: &FramedLink<Lines>, frame: &[u8]) {
        let line = String::from_utf8_lossy(frame).into_owned();
        (self.each)(link, &line);
        let _ = self.lines.send(line);
    }

    fn closed(&mut self, _link: &FramedLink<Lines>, reason: &Closed) {
        let _ = self.reasons.send(format!("{reason:?}"));
    }
}

struct Lined {
    service: Service,
    address: SocketAddr,
    links: Receiver<Link>,
    lines: Receiver<String>,
    reasons: Receiver<String>,
}

fn lined(builder: ServiceOptions, each: fn(&Link, &str)) -> Lined {
    let service = service(builder);
    let ((link, links), (line, lines), (reason, reasons)) = (channel(), channel(), channel());
    let make = move |_| {
        let reader = Reader { lines: line.clone(), links: link.clone(), each, reasons: reason.clone() };
        Framed::new(Lines::new(MIB), reader)
    };
    let address = service.listen("127.0.0.1:0", make).unwrap();
    Lined { service, address, links, lines, reasons }
}

#[test]
fn a_framed_session_stops_between_two_frames_of_one_receive_and_goes_on_there() {
    let Lined { service, address, links, lines, reasons } = lined(Service::options(), |link, line| {
        if line != "last" {
            link.pause();
        }
    });
    let mut socket = client(address);
    socket.write_all(b"one\ntwo\nthree\nfour\nlast\nand ha").unwrap();
    let link = next(&links);
    for line in ["one", "two", "three", "four"] {
        assert_eq!(next(&lines), line);
        assert!(lines.recv_timeout(Duration::from_millis(30)).is_err(), "a frame was handed on in the pause");
        link.resume();
    }
    assert_eq!(next(&lines), "last");
    assert_eq!(link.stats().messages_received, 5);
    socket.write_all(b"lf\n").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next(&lines), "and half");
    link.resume();
    assert_eq!(next(&reasons), "ByPeer");
    all_memory_is_free(&service);
}

#[test]
fn a_paused_session_ends_like_any_other_whoever_ends_it() {
    for how in ["close", "abort", "shutdown", "drop"] {
        for with_data in [false, true] {
            let theatre = Theatre::new();
            let Told { service, address, links, data, reasons } = telling(&theatre, Service::options());
            let mut socket = client(address);
            let link = next(&links);
            if with_data {
                socket.write_all(b"first").unwrap();
                next(&data);
                receive_is_outstanding();
            }
            link.pause();
            if with_data {
                socket.write_all(b"kept").unwrap();
                eventually("it is held", || link.stats().paused);
            }
            let mut service = Some(service);
            match how {
                "close" => link.close(),
                "abort" => link.abort(),
                "shutdown" => {
                    let report = service.take().unwrap().shutdown(DEADLINE);
                    assert_eq!((report.graceful, report.aborted), (1, 0));
                }
                _ => drop(service.take()),
            }
            let expected = if matches!(how, "close" | "abort") { "ByUs" } else { "Shutdown" };
            let mut read = Vec::new();
            let _ = socket.read_to_end(&mut read);
            assert_eq!(next(&reasons), expected, "{how}, with data: {with_data}");
            assert!(data.try_recv().is_err(), "nothing is handled after the end was decided");
            // Too late, and harmless.
            link.resume();
            link.pause();
            link.resume();
            assert_eq!(theatre.closed(), 1);
            if let Some(service) = &service {
                all_memory_is_free(service);
            }
        }
    }
}

#[test]
fn a_paused_session_is_not_idle_and_is_again_when_it_is_resumed() {
    const TIMEOUT: Duration = Duration::from_millis(400);
    let theatre = Theatre::new();
    let Told { service: _service, address, links, reasons, .. } =
        telling(&theatre, Service::options().idle_timeout(TIMEOUT));
    let socket = client(address);
    let link = next(&links);
    link.pause();
    let other = client(address);
    // Another one that is not paused is closed meanwhile, so time has passed.
    assert_eq!(next(&reasons), "IdleTimeout");
    thread::sleep(TIMEOUT);
    assert!(link.is_open(), "our own pause was taken for the peer's silence");
    let resumed = Instant::now();
    link.resume();
    assert_eq!(next(&reasons), "IdleTimeout");
    assert!(resumed.elapsed() >= TIMEOUT - Duration::from_millis(50), "the pause was counted");
    drop((socket, other));
}

// --- Rate limits ---

/// How long so much takes at least, with what may come at once taken off.
fn least(bytes: usize, at_once: usize, per_second: u64) -> Duration {
    Duration::from_secs_f64(bytes.saturating_sub(at_once) as f64 / per_second as f64)
}

/// One receive: what a session may get beyond its burst.
const RECEIVE: usize = 16 * KIB;

#[test]
fn a_session_receives_no_faster_than_its_rate_and_loses_nothing() {
    const PER_SECOND: u64 = 400 * KIB as u64;
    const BURST: usize = 64 * KIB;
    let theatre = Theatre::new();
    let builder = Service::options().rate_limit(Rate::bytes(PER_SECOND, BURST as u64));
    let Told { service, address, links, data, .. } = telling(&theatre, builder);
    let begin = Instant::now();
    let senders: Vec<_> = (0..3)
        .map(|_| {
            let mut socket = client(address);
            thread::spawn(move || {
                socket.write_all(&pattern(300 * KIB, 7)).unwrap();
                socket
            })
        })
        .collect();
    let links: Vec<Link> = (0..3).map(|_| next(&links)).collect();
    collect(&data, 900 * KIB);
    let took = begin.elapsed();
    let least = least(300 * KIB, BURST + RECEIVE, PER_SECOND);
    assert!(took >= least, "300 KiB came in {took:?}, which should take {least:?} at least");
    for link in &links {
        assert_eq!(link.stats().bytes_received, 300 * KIB as u64);
    }
    senders.into_iter().for_each(|sender| drop(sender.join().unwrap()));
    all_memory_is_free(&service);
}

#[test]
fn frames_are_limited_one_by_one_even_if_they_came_together() {
    let rate = Rate::messages(50, 5);
    let Lined { service: _service, address, links, lines, reasons } =
        lined(Service::options().rate_limit(rate), |_, _| {});
    let mut socket = client(address);
    let begin = Instant::now();
    let text: String = (0..40).map(|number| format!("{number}\n")).collect();
    socket.write_all(text.as_bytes()).unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    for number in 0..40 {
        assert_eq!(next(&lines), number.to_string());
    }
    let (took, least) = (begin.elapsed(), least(40, 5, 50));
    assert!(took >= least, "40 frames came in {took:?}, which should take {least:?} at least");
    assert_eq!(next(&reasons), "ByPeer");
    assert_eq!(next(&links).stats().messages_received, 40);
}

#[test]
fn one_link_can_have_a_rate_of_its_own_and_lose_it_again() {
    let theatre = Theatre::new();
    let Told { service: _service, address, links, data, .. } = telling(&theatre, Service::options());
    let mut socket = client(address);
    let link = next(&links);
    link.set_rate_limit(Some(Rate::bytes(1, 1)));
    socket.write_all(&pattern(3, 1)).unwrap();
    collect(&data, 3);
    // In debt for seconds from now on.
    let writer = thread::spawn(move || {
        socket.write_all(&pattern(MIB, 2)).unwrap();
        socket
    });
    eventually("it is held", || link.stats().paused);
    silent(&data);
    link.set_rate_limit(None);
    assert!(collect(&data, MIB) == pattern(MIB, 2));
    drop(writer.join().unwrap());
}

#[test]
fn who_is_over_its_rate_can_be_ended_at_once() {
    for abort in [false, true] {
        let theatre = Theatre::new();
        let builder = Service::options().rate_limit(Rate::bytes(1, 1));
        let Told { service: _service, address, links, reasons, .. } = telling(&theatre, builder);
        let mut socket = client(address);
        let link = next(&links);
        socket.write_all(&[0; 10_000]).unwrap();
        eventually("it is held", || link.stats().paused);
        if abort {
            link.abort()
        } else {
            link.close()
        }
        // Hours before it had tokens again.
        assert_eq!(next(&reasons), "ByUs");
    }
}

#[test]
fn who_is_over_its_rate_is_not_idle() {
    let theatre = Theatre::new();
    let builder = Service::options().idle_timeout(Duration::from_millis(100)).rate_limit(Rate::bytes(1000, 1));
    let Told { service: _service, address, reasons, .. } = telling(&theatre, builder);
    let mut socket = client(address);
    let begin = Instant::now();
    socket.write_all(&[0; 1000]).unwrap();
    assert_eq!(next(&reasons), "IdleTimeout");
    // A second for what it had sent, and only then the time-out.
    assert!(begin.elapsed() >= Duration::from_millis(1000), "closed while it was held: after {:?}", begin.elapsed());
}

// --- Memory ---

/// Sessions whose clients do not read, each with a link.
fn deaf(told: &Told, count: usize) -> Vec<(TcpStream, Link)> {
    let connect = |_| {
        let socket = client(told.address);
        let link = next(&told.links);
        (socket, link)
    };
    (0..count).map(connect).collect()
}

/// Sends until the system takes no more, and then so many bytes; returns how many in all.
fn stuff(link: &Link, bytes: usize) -> usize {
    const PIECE: usize = 64 * KIB;
    let mut sent = 0;
    // More than the system takes of one connection.
    while link.stats().kept_bytes == 0 {
        link.send(vec![1; PIECE]).unwrap();
        sent += PIECE;
    }
    while link.stats().kept_bytes < bytes {
        link.send(vec![1; PIECE]).unwrap();
        sent += PIECE;
    }
    sent
}

#[test]
fn when_the_memory_is_used_up_the_session_that_holds_most_ends() {
    let theatre = Theatre::new();
    let builder = Service::options().memory_limit(3 * MIB).outbox(16 * MIB, SlowConsumer::Disconnect);
    let told = telling(&theatre, builder);
    let deaf = deaf(&told, 3);
    stuff(&deaf[0].1, MIB);
    stuff(&deaf[1].1, MIB + 512 * KIB);
    let used = told.service.stats().memory;
    assert!((2 * MIB + 256 * KIB..=3 * MIB).contains(&used.used_bytes), "{used:?}");
    // Little enough not to be the largest, but too much for what is left.
    deaf[2].1.pause();
    while told.service.stats().memory.ended == 0 {
        deaf[2].1.send(vec![1; 64 * KIB]).unwrap();
        let memory = told.service.stats().memory;
        assert!(memory.used_bytes <= 3 * MIB, "{memory:?}");
    }
    assert_eq!(next(&told.reasons), "MemoryLimit");
    assert!(!deaf[1].1.is_open() && deaf[0].1.is_open() && deaf[2].1.is_open());
    assert_eq!(deaf[1].1.send("more").unwrap_err().reason, SendErrorReason::MemoryLimit);
    let memory = told.service.stats().memory;
    assert_eq!((memory.ended, memory.limit_bytes), (1, Some(3 * MIB)));
    drop(deaf);
    all_memory_is_free(&told.service);
}

#[test]
fn a_sender_hears_that_its_own_message_was_too_much() {
    let theatre = Theatre::new();
    let builder = Service::options().memory_limit(MIB).outbox(16 * MIB, SlowConsumer::Disconnect);
    let told = telling(&theatre, builder);
    let deaf = deaf(&told, 1);
    let link = &deaf[0].1;
    assert_eq!(link.send(vec![0; MIB + 1]).unwrap_err().reason, SendErrorReason::TooLarge);
    let refused = loop {
        if let Err(refused) = link.send(vec![0; 100 * KIB]) {
            break refused;
        }
    };
    assert_eq!((refused.reason, refused.buffer.len()), (SendErrorReason::MemoryLimit, 100 * KIB));
    assert_eq!(next(&told.reasons), "MemoryLimit");
}

#[test]
fn with_drop_oldest_the_memory_limit_ends_nobody_and_counts_what_is_dropped() {
    let theatre = Theatre::new();
    let builder = Service::options().memory_limit(2 * MIB).outbox(16 * MIB, SlowConsumer::DropOldest);
    let told = telling(&theatre, builder);
    let deaf = deaf(&told, 2);
    let room = Group::new();
    deaf.iter().for_each(|(_, link)| room.join(link));
    let mut largest = 0;
    for _ in 0..200 {
        assert_eq!(room.broadcast(&[7; 64 * KIB]), 2);
        largest = largest.max(told.service.stats().memory.used_bytes);
    }
    assert!(largest <= 2 * MIB, "{largest} bytes were kept");
    let stats = deaf.each_ref_stats();
    assert!(stats.iter().all(|stats| stats.dropped > 0), "{stats:?}");
    let group = room.stats();
    assert_eq!((group.members, group.broadcasts, group.accepted, group.refused), (2, 200, 400, 0));
    assert_eq!(group.bytes, 400 * 64 * KIB as u64);
    assert!(group.dropped > 0 && group.dropped <= stats.iter().map(|stats| stats.dropped).sum());
    assert_eq!(told.service.stats().memory.ended, 0);
}

trait Stats {
    fn each_ref_stats(&self) -> Vec<wharf_session::LinkStats>;
}

impl Stats for Vec<(TcpStream, Link)> {
    fn each_ref_stats(&self) -> Vec<wharf_session::LinkStats> {
        self.iter().map(|(_, link)| link.stats()).collect()
    }
}

#[test]
fn with_wait_senders_wait_for_memory_that_another_session_holds_and_lose_nothing() {
    let theatre = Theatre::new();
    let begin = Instant::now();
    let builder = Service::options().memory_limit(2 * MIB).outbox(16 * MIB, SlowConsumer::Wait);
    let told = telling(&theatre, builder);
    let mut deaf = deaf(&told, 2);
    // As much as fits, in one session.
    let queued = stuff(&deaf[0].1, 2 * MIB - 64 * KIB);
    let link = deaf[1].1.clone();
    let sent = Arc::new(AtomicUsize::new(0));
    let progress = sent.clone();
    let sender = thread::spawn(move || {
        for _ in 0..100 {
            link.send(vec![2; 100 * KIB]).unwrap();
            progress.fetch_add(1, Ordering::SeqCst);
        }
    });
    let (first, second) = deaf.split_at_mut(1);
    // The one that holds the memory reads only after the other cannot be sent more to.
    let reader = thread::spawn({
        let mut socket = second[0].0.try_clone().unwrap();
        move || read_exactly(&mut socket, 100 * 100 * KIB)
    });
    assert_eq!(read_exactly(&mut first[0].0, queued).len(), queued);
    assert!(reader.join().unwrap().iter().all(|&byte| byte == 2));
    sender.join().unwrap();
    assert_eq!(sent.load(Ordering::SeqCst), 100);
    nobody_was_ended(&told.service, begin);
    all_memory_is_free(&told.service);
}

#[test]
fn a_sender_that_waits_for_memory_hears_when_its_session_ends() {
    let theatre = Theatre::new();
    let builder = Service::options().memory_limit(MIB).outbox(16 * MIB, SlowConsumer::Wait);
    let told = telling(&theatre, builder);
    let deaf = deaf(&told, 1);
    let link = deaf[0].1.clone();
    let (tell, heard) = channel();
    let sender = thread::spawn(move || {
        loop {
            tell.send(()).unwrap();
            if let Err(refused) = link.send(vec![0; 100 * KIB]) {
                return refused.reason;
            }
        }
    });
    while heard.recv_timeout(Duration::from_millis(200)).is_ok() {}
    deaf[0].1.abort();
    let reason = sender.join().unwrap();
    assert!(matches!(reason, SendErrorReason::Closed | SendErrorReason::MemoryLimit), "{reason:?}");
    all_memory_is_free(&told.service);
}

/// A session that is stuck with most of the memory, beside an echo.
fn full(theatre: &Theatre, policy: SlowConsumer) -> (Service, SocketAddr, TcpStream, Link, usize, Receiver<String>) {
    let service = service(Service::options().memory_limit(2 * MIB).outbox(16 * MIB, policy));
    let (casting, (link, links), (reason, reasons)) = (theatre.casting(), channel(), channel());
    let stuck = service.listen("127.0.0.1:0", move |_| casting.actor().telling(&link, &reason)).unwrap();
    let casting: Casting = theatre.casting();
    let echo = service.listen("127.0.0.1:0", move |_| casting.echo()).unwrap();
    let socket = client(stuck);
    let link = next(&links);
    let queued = stuff(&link, MIB + MIB * 3 / 4);
    (service, echo, socket, link, queued, reasons)
}

#[test]
fn receiving_stops_while_memory_is_short_and_goes_on_when_it_is_not() {
    let theatre = Theatre::new();
    let begin = Instant::now();
    let (service, echo, mut stuck, _link, queued, _reasons) = full(&theatre, SlowConsumer::Wait);
    let mut socket = client(echo);
    socket.write_all(b"anybody there?").unwrap();
    eventually("it is held back", || service.stats().memory.held_back > 0);
    assert_eq!(read_exactly(&mut stuck, queued).len(), queued);
    assert_eq!(read_exactly(&mut socket, 14), b"anybody there?");
    nobody_was_ended(&service, begin);
    drop((socket, stuck));
    all_memory_is_free(&service);
}

#[test]
fn memory_that_nobody_reads_stops_the_others_for_a_moment_only() {
    for policy in [SlowConsumer::Disconnect, SlowConsumer::DropOldest, SlowConsumer::Wait] {
        let theatre = Theatre::new();
        let (service, echo, _stuck, link, _, reasons) = full(&theatre, policy);
        let mut socket = client(echo);
        // Waits until the one that holds most, and takes nothing, is found out.
        round_trip(&mut socket, b"anybody there?");
        assert_eq!(next(&reasons), "MemoryLimit", "{policy:?}");
        assert!(!link.is_open());
        assert_eq!(service.stats().memory.ended, 1);
        round_trip(&mut socket, b"yes");
    }
}

#[test]
fn nobody_is_ended_for_memory_that_nobody_waits_for() {
    let theatre = Theatre::new();
    let (service, _echo, _stuck, link, _, _reasons) = full(&theatre, SlowConsumer::Wait);
    let (casting, (tell, links)) = (theatre.casting(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let tell = tell.clone();
            casting.actor().opened(move |link| tell.send(link.clone()).unwrap())
        })
        .unwrap();
    let begin = Instant::now();
    let mut socket = client(address);
    socket.write_all(b"held back").unwrap();
    let held = next(&links);
    eventually("it is held back", || held.stats().paused);
    // Nobody waits any more, so nobody has to make room.
    held.abort();
    eventually("it is over", || theatre.closed() == 1);
    let in_time = begin.elapsed() < Duration::from_millis(900);
    // Two looks later. A look that comes late makes the test weaker, never fail.
    thread::sleep(Duration::from_millis(2200));
    if in_time {
        assert!(link.is_open());
        assert_eq!(service.stats().memory.ended, 0);
    }
}

#[test]
fn unfinished_frames_cannot_fill_the_memory_for_ever() {
    let builder = Service::options().memory_limit(MIB).workers(Workers::new(2));
    let Lined { service, address, lines, reasons, .. } = lined(builder, |_, _| {});
    let mut droppers: Vec<TcpStream> = (0..6).map(|_| client(address)).collect();
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = stop.clone();
    let writer = thread::spawn(move || {
        // Each sends the beginning of a long line, and no end.
        droppers.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let mut sent = vec![0; droppers.len()];
        while !stopped.load(Ordering::SeqCst) {
            for (socket, sent) in droppers.iter_mut().zip(&mut sent) {
                if *sent < 400 * KIB {
                    *sent += socket.write(&[b'x'; 8 * KIB]).unwrap_or(0);
                }
            }
            thread::sleep(Duration::from_millis(1));
        }
    });
    assert_eq!(next(&reasons), "MemoryLimit");
    // Everybody else is served.
    let mut socket = client(address);
    socket.write_all(b"hello\n").unwrap();
    assert_eq!(next(&lines), "hello");
    stop.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    drop(socket);
    all_memory_is_free(&service);
}

#[test]
fn a_service_can_allow_shorter_frames_than_the_codec() {
    let Lined { service, address, links, lines, reasons } = lined(Service::options().inbox(4000), |_, _| {});
    let mut socket = client(address);
    let link = next(&links);
    socket.write_all(&[b'x'; 3000]).unwrap();
    eventually("it waits for its end", || link.stats().unhandled_bytes >= 3000);
    assert!(service.stats().memory.used_bytes >= 3000);
    socket.write_all(b"\n").unwrap();
    assert_eq!(next(&lines).len(), 3000);
    eventually("it keeps nothing any more", || link.stats().unhandled_bytes == 0);
    socket.write_all(&[b'x'; 4001]).unwrap();
    let too_long = Closed::Framing(FrameError::TooLong { length: None, maximum: 4000 });
    assert_eq!(next(&reasons), format!("{too_long:?}"));
    drop(socket);
    all_memory_is_free(&service);
}

#[test]
fn a_sender_that_needs_more_than_is_left_does_not_wait_for_ever_though_memory_is_not_short() {
    let theatre = Theatre::new();
    let builder = Service::options().memory_limit(2 * MIB).outbox(16 * MIB, SlowConsumer::Wait);
    let told = telling(&theatre, builder);
    let deaf = deaf(&told, 2);
    // More than half, and less than three quarters.
    stuff(&deaf[0].1, MIB + 256 * KIB);
    let link = deaf[1].1.clone();
    let sender = thread::spawn(move || link.send(vec![2; MIB]));
    assert_eq!(next(&told.reasons), "MemoryLimit");
    sender.join().unwrap().unwrap();
    assert!(!deaf[0].1.is_open() && deaf[1].1.is_open());
    assert_eq!(told.service.stats().memory.ended, 1);
    drop(deaf);
    all_memory_is_free(&told.service);
}

#[test]
fn what_was_received_is_handed_on_though_memory_is_short() {
    static STUCK: Mutex<Option<Link>> = Mutex::new(None);
    let builder = Service::options().memory_limit(2 * MIB).outbox(16 * MIB, SlowConsumer::Wait);
    let Lined { service, address, links, lines, .. } = lined(builder, |_, _| {
        // Nobody waits for memory yet, so nobody was ended for it.
        let stuck = STUCK.lock().unwrap();
        assert!(stuck.as_ref().is_none_or(Link::is_open), "a frame waited for memory");
    });
    let theatre = Theatre::new();
    let (casting, (link, stuck_links)) = (theatre.casting(), channel());
    let stuck_address = service
        .listen("127.0.0.1:0", move |_| {
            let link = link.clone();
            casting.actor().opened(move |opened| link.send(opened.clone()).unwrap())
        })
        .unwrap();
    let mut socket = client(address);
    next(&links);
    receive_is_outstanding();
    let _stuck = client(stuck_address);
    let link = next(&stuck_links);
    stuff(&link, MIB + 3 * MIB / 4);
    *STUCK.lock().unwrap() = Some(link);
    socket.write_all(b"one\ntwo\nthr").unwrap();
    assert_eq!((next(&lines), next(&lines)), ("one".into(), "two".into()));
    assert_eq!(service.stats().panics, 0);
    *STUCK.lock().unwrap() = None;
}

#[test]
fn what_came_in_pauses_is_handed_on_when_it_alone_makes_memory_short() {
    const SESSIONS: usize = 5;
    let theatre = Theatre::new();
    // Each keeps a receive of 16 KiB: five are short, and less than all.
    let told = telling(&theatre, Service::options().memory_limit(100 * KIB));
    let mut sessions = deaf(&told, SESSIONS);
    receive_is_outstanding();
    for (socket, link) in &mut sessions {
        link.pause();
        socket.write_all(&[b'x'; 10]).unwrap();
    }
    eventually("all are held", || sessions.iter().all(|(_, link)| link.stats().paused));
    sessions.iter().for_each(|(_, link)| link.resume());
    assert_eq!(collect(&told.data, SESSIONS * 10).len(), SESSIONS * 10);
    let memory = told.service.stats().memory;
    assert_eq!((memory.ended, memory.held_back), (0, 0));
    all_memory_is_free(&told.service);
}

#[test]
fn receives_that_were_outstanding_exceed_the_limit_by_a_quarter_at_most() {
    const LIMIT: usize = 512 * KIB;
    let Lined { service, address, links, .. } = lined(Service::options().memory_limit(LIMIT), |_, _| {});
    let mut sockets: Vec<TcpStream> = (0..120).map(|_| client(address)).collect();
    let links: Vec<Link> = sockets.iter().map(|_| next(&links)).collect();
    receive_is_outstanding();
    let mut most = 0;
    for socket in &mut sockets {
        let _ = socket.write_all(&[b'x'; 15 * KIB]);
        most = most.max(service.stats().memory.used_bytes);
    }
    let begin = Instant::now();
    while service.stats().memory.ended == 0 && begin.elapsed() < Duration::from_secs(5) {
        most = most.max(service.stats().memory.used_bytes);
    }
    // Each worker may be about to end somebody.
    assert!(most <= LIMIT + LIMIT / 4 + 16 * 32 * KIB, "{most} bytes were kept");
    assert!(service.stats().memory.ended > 0);
    links.iter().for_each(Link::abort);
    all_memory_is_free(&service);
}

#[test]
fn many_who_are_ended_for_memory_at_once_are_counted_once_each() {
    const SESSIONS: usize = 12;
    let theatre = Theatre::new();
    let builder = Service::options().memory_limit(2 * MIB).outbox(16 * MIB, SlowConsumer::Disconnect);
    let told = telling(&theatre, builder);
    let deaf = deaf(&told, SESSIONS);
    let senders: Vec<_> = (0..4)
        .map(|_| {
            let links: Vec<Link> = deaf.iter().map(|(_, link)| link.clone()).collect();
            thread::spawn(move || while links.iter().any(|link| link.send(vec![1; 64 * KIB]).is_ok()) {})
        })
        .collect();
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    (0..SESSIONS).for_each(|_| assert_eq!(next(&told.reasons), "MemoryLimit"));
    assert_eq!(told.service.stats().memory.ended, SESSIONS as u64);
    drop(deaf);
    all_memory_is_free(&told.service);
}

#[test]
fn without_a_limit_the_figure_tells_what_is_kept_of_those_that_are_being_closed_too() {
    let theatre = Theatre::new();
    let told = telling(&theatre, Service::options().outbox(16 * MIB, SlowConsumer::Disconnect));
    let deaf = deaf(&told, 2);
    stuff(&deaf[0].1, MIB);
    stuff(&deaf[1].1, 2 * MIB);
    let kept = || deaf.iter().map(|(_, link)| link.stats().kept_bytes).sum::<usize>();
    assert_eq!(told.service.stats().memory.limit_bytes, None);
    assert_eq!(told.service.stats().memory.used_bytes, kept());
    deaf[0].1.close();
    // Once, though it is among the sessions and among those that are being closed.
    eventually("both are counted", || told.service.stats().memory.used_bytes == kept());
    // The peer's end leaves what was accepted for it.
    deaf[1].0.shutdown(Shutdown::Write).unwrap();
    eventually("one is over", || theatre.closed() == 1);
    assert!(kept() >= 3 * MIB);
    eventually("both are counted still", || told.service.stats().memory.used_bytes == kept());
    drop(deaf);
    all_memory_is_free(&told.service);
}

// --- Figures ---

#[test]
fn a_link_tells_what_went_through_it_and_for_how_long() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, (tell, links)) = (theatre.casting(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let tell = tell.clone();
            casting.echo().opened(move |link| tell.send(link.clone()).unwrap())
        })
        .unwrap();
    let mut socket = client(address);
    let link = next(&links);
    for _ in 0..5 {
        round_trip(&mut socket, b"12345678");
    }
    eventually("the last send is counted", || link.stats().messages_sent == 5);
    let stats = link.stats();
    assert_eq!((stats.messages_received, stats.bytes_received, stats.bytes_sent), (5, 40, 40));
    assert!(!stats.paused && stats.dropped == 0);
    let silent = stats.silent_for.unwrap();
    thread::sleep(Duration::from_millis(60));
    let later = link.stats();
    assert!(later.silent_for.unwrap() >= silent + Duration::from_millis(40), "{stats:?} {later:?}");
    assert!(later.open_for.unwrap() >= later.silent_for.unwrap());
    // One that was never opened has no such times.
    let never = service.connect(common::dead_address(), theatre.casting().actor()).unwrap();
    assert_eq!((never.stats().open_for, never.stats().silent_for), (None, None));
}

// --- All at once ---

#[test]
fn however_sessions_are_paused_and_resumed_everything_arrives() {
    const SESSIONS: usize = 12;
    const BYTES: usize = 256 * KIB;
    let theatre = Theatre::new();
    let builder = Service::options()
        .idle_timeout(Duration::from_secs(20))
        .rate_limit(Rate::bytes(8 * MIB as u64, 64 * KIB as u64))
        .memory_limit(512 * KIB)
        .outbox(64 * KIB, SlowConsumer::Wait);
    let service = service(builder);
    let (casting, links) = (theatre.casting(), Arc::new(Mutex::new(Vec::<Link>::new())));
    let all = links.clone();
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let all = all.clone();
            let mut calls = 0;
            casting.actor().opened(move |link| all.lock().unwrap().push(link.clone())).received(move |link, data| {
                calls += 1;
                if calls % 7 == 0 {
                    link.pause();
                }
                drop(link.send(data));
                if calls % 14 == 0 {
                    link.resume();
                }
            })
        })
        .unwrap();
    let clients: Vec<_> = (0..SESSIONS)
        .map(|number| {
            let socket = client(address);
            small_buffers([&socket, &socket]);
            thread::spawn(move || {
                let sent = pattern(BYTES, number as u64);
                let (mut writing, copy, mut reading) = (socket.try_clone().unwrap(), sent.clone(), socket);
                let writer = thread::spawn(move || writing.write_all(&copy).unwrap());
                let got = read_exactly(&mut reading, BYTES);
                writer.join().unwrap();
                assert!(got == sent, "session {number} got something else back");
            })
        })
        .collect();
    eventually("all are connected", || links.lock().unwrap().len() == SESSIONS);
    let done = Arc::new(AtomicBool::new(false));
    let meddlers: Vec<_> = (0..4)
        .map(|seed| {
            let (links, done) = (links.lock().unwrap().clone(), done.clone());
            thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed);
                while !done.load(Ordering::SeqCst) {
                    let link = &links[random.usize(..links.len())];
                    match random.u8(..8) {
                        0..3 => link.pause(),
                        3..7 => link.resume(),
                        _ => link.set_rate_limit(Some(Rate::bytes(random.u64(1..32) * MIB as u64, 32 * KIB as u64))),
                    }
                    if random.u8(..4) == 0 {
                        thread::sleep(Duration::from_micros(random.u64(..500)));
                    }
                }
                // Whatever was paused last goes on: nobody else would resume it.
            })
        })
        .collect();
    thread::sleep(Duration::from_millis(700));
    done.store(true, Ordering::SeqCst);
    meddlers.into_iter().for_each(|meddler| meddler.join().unwrap());
    // Handlers pause too.
    let finished = Arc::new(AtomicBool::new(false));
    let (links, stop) = (links.lock().unwrap().clone(), finished.clone());
    let resumer = thread::spawn(move || {
        while !stop.load(Ordering::SeqCst) {
            links.iter().for_each(Link::resume);
            thread::sleep(Duration::from_millis(1));
        }
    });
    clients.into_iter().for_each(|client| client.join().unwrap());
    finished.store(true, Ordering::SeqCst);
    resumer.join().unwrap();
    eventually("all are over", || theatre.closed() == SESSIONS);
    assert_eq!(service.stats().memory.ended, 0);
    all_memory_is_free(&service);
}

#[test]
fn one_last_resume_is_enough_whatever_came_before() {
    let theatre = Theatre::new();
    let Told { service: _service, address, links, data, .. } = telling(&theatre, Service::options());
    let mut socket = client(address);
    let link = next(&links);
    for round in 0..300u32 {
        let message = round.to_le_bytes();
        let other = link.clone();
        let meddler = thread::spawn(move || {
            for _ in 0..round % 5 {
                other.pause();
                other.resume();
            }
            other.pause();
        });
        socket.write_all(&message).unwrap();
        if round % 3 == 0 {
            link.pause();
            link.resume();
        }
        meddler.join().unwrap();
        link.resume();
        assert_eq!(collect(&data, 4), message);
    }
}

#[test]
fn sessions_that_are_paused_limited_and_ended_by_many_threads_are_each_closed_once() {
    let theatre = Theatre::new();
    for round in 0..6 {
        let builder = Service::options()
            .rate_limit(Rate::bytes(4 * MIB as u64, 64 * KIB as u64))
            .memory_limit(512 * KIB)
            .idle_timeout(Duration::from_secs(5))
            .linger(Duration::from_millis(300))
            .outbox(128 * KIB, [SlowConsumer::Disconnect, SlowConsumer::DropOldest, SlowConsumer::Wait][round % 3]);
        let service = service(builder);
        let (casting, links) = (theatre.casting(), Arc::new(Mutex::new(Vec::<Link>::new())));
        let all = links.clone();
        let address = service
            .listen("127.0.0.1:0", move |_| {
                let all = all.clone();
                casting.echo().opened(move |link| all.lock().unwrap().push(link.clone()))
            })
            .unwrap();
        const SESSIONS: usize = 16;
        let clients: Vec<_> = (0..SESSIONS)
            .map(|number| {
                let mut socket = client(address);
                thread::spawn(move || {
                    let mut read = vec![0; 64 * KIB];
                    // Half of them never read.
                    while socket.write_all(&[number as u8; 16 * KIB]).is_ok() {
                        if number % 2 == 0 && socket.read(&mut read).is_ok_and(|bytes| bytes == 0) {
                            break;
                        }
                    }
                })
            })
            .collect();
        eventually("all are connected", || links.lock().unwrap().len() == SESSIONS);
        let all = links.lock().unwrap().clone();
        let gate = Gate::default();
        let meddlers: Vec<_> = (0..4)
            .map(|seed| {
                let (links, gate) = (all.clone(), gate.clone());
                thread::spawn(move || {
                    let mut random = fastrand::Rng::with_seed(1000 * round as u64 + seed);
                    gate.pass();
                    for _ in 0..2000 {
                        let link = &links[random.usize(..links.len())];
                        match random.u8(..40) {
                            0..16 => link.pause(),
                            16..35 => link.resume(),
                            35 => link.set_rate_limit(None),
                            36 => link.set_rate_limit(Some(Rate::bytes(100, 100))),
                            37 => link.finish(),
                            38 => link.close(),
                            _ => link.abort(),
                        }
                    }
                })
            })
            .collect();
        gate.wait_for(4);
        gate.open();
        meddlers.into_iter().for_each(|meddler| meddler.join().unwrap());
        if round % 2 == 0 {
            all.iter().for_each(Link::close);
            eventually("all are closed", || theatre.closed() == theatre.opened());
            eventually("all are forgotten", || service.stats().sessions == 0);
            all_memory_is_free(&service);
            let report = service.shutdown(DEADLINE);
            assert_eq!(report.workers_left, 0);
        } else {
            drop(service);
        }
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert_eq!(theatre.opened(), (round + 1) * SESSIONS);
        eventually("each was closed", || theatre.closed() == theatre.opened());
    }
}

#[test]
fn a_session_that_is_closed_with_something_to_send_sends_it_though_it_is_paused() {
    let theatre = Theatre::new();
    let Told { service: _service, address, links, reasons, .. } = telling(&theatre, Service::options());
    let mut socket = client(address);
    let link = next(&links);
    link.pause();
    link.send("last words").unwrap();
    link.close();
    assert_eq!(read_to_end(&mut socket), b"last words");
    drop(socket);
    assert_eq!(next(&reasons), "ByUs");
}
