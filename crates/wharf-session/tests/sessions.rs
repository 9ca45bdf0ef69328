//! Sessions, over real sockets: what `wharf_session` guarantees, and what a session's end comes to.
//!
//! Every session that a test makes is an [`Actor`] of its [`Theatre`], which checks in the end that each was dropped
//! exactly once, that `closed` was called exactly once for each `opened`, and that no two handlers of one overlapped.

mod common;

use common::numbers::{ECONNREFUSED, ECONNRESET};
use common::theatre::{
    Casting, Gate, Theatre, client, fall, next, quiet_panics, read_exactly, read_to_end, round_trip, service,
};
use common::{DEADLINE, dead_address, eventually, in_child, pattern, reset, small_buffers};
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;
use wharf::{Buffer, Workers};
use wharf_session::{Group, Link, SendErrorReason, Service, Session, SlowConsumer};

/// Memory in use, so that a test in a process of its own can say what something costs.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// Allocations of this size are counted; 0 counts none.
static WATCHED: AtomicUsize = AtomicUsize::new(0);
static SEEN: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[allow(unsafe_code)]
// SAFETY: passes every call on to the system's allocator, unchanged.
unsafe impl std::alloc::GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: std::alloc::Layout) -> *mut u8 {
        let now = IN_USE.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        let watched = WATCHED.load(Ordering::Relaxed);
        if watched > 0 && layout.size() >= watched {
            SEEN.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller keeps the contract of `GlobalAlloc`.
        unsafe { std::alloc::System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: std::alloc::Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { std::alloc::System.dealloc(pointer, layout) }
    }
}

/// How much more memory was in use, at its peak, while `run` ran.
fn peak_of(run: impl FnOnce()) -> usize {
    let before = IN_USE.load(Ordering::Relaxed);
    PEAK.store(before, Ordering::Relaxed);
    run();
    PEAK.load(Ordering::Relaxed) - before
}

const MIB: usize = 1024 * 1024;

// --- Handlers ---

#[test]
fn handlers_of_one_session_never_overlap_and_those_of_others_run_meanwhile() {
    let theatre = Theatre::new();
    let service = service(Service::options().concurrency(2));
    let (casting, gate) = (theatre.casting(), Gate::default());
    let meeting = gate.clone();
    let address = service.listen("127.0.0.1:0", move |_| {
        let meeting = meeting.clone();
        let mut met = false;
        casting.actor().received(move |link, data| {
            if !std::mem::replace(&mut met, true) {
                meeting.pass();
            }
            thread::yield_now();
            let _ = link.send(data);
        })
    });
    let address = address.unwrap();
    let clients: Vec<_> = (0..4)
        .map(|seed| {
            thread::spawn(move || {
                let mut socket = client(address);
                let sent = pattern(200_000, seed);
                let (mut writer, to_write) = (socket.try_clone().unwrap(), sent.clone());
                // In pieces: as many packets as possible, so that handlers have a chance to overlap.
                let writing = thread::spawn(move || to_write.chunks(100).for_each(|p| writer.write_all(p).unwrap()));
                assert!(read_exactly(&mut socket, sent.len()) == sent);
                writing.join().unwrap();
            })
        })
        .collect();
    gate.wait_for(4); // all four are inside a handler at the same time
    gate.open();
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn a_handler_that_blocks_stops_no_other_session() {
    let theatre = Theatre::new();
    // One may run at a time, and one thread stands by.
    let service = service(Service::options().concurrency(1).workers(Workers::exactly(2)));
    let (casting, gate) = (theatre.casting(), Gate::default());
    let closed_gate = gate.clone();
    let blocking = casting.clone();
    let blocked = service
        .listen("127.0.0.1:0", move |_| {
            let gate = closed_gate.clone();
            blocking.actor().received(move |link, data| {
                gate.pass();
                let _ = link.send(data);
            })
        })
        .unwrap();
    let free = service.listen("127.0.0.1:0", move |_| casting.echo()).unwrap();
    let mut waiting = client(blocked);
    waiting.write_all(b"?").unwrap();
    gate.wait_for(1);
    let mut other = client(free);
    // All of this while the first handler blocks, undeclared.
    (0..100).for_each(|number: u32| round_trip(&mut other, &number.to_le_bytes()));
    gate.open();
    assert_eq!(read_exactly(&mut waiting, 1), b"?");
}

#[test]
fn handlers_that_sleep_sleep_at_the_same_time() {
    const SLEEPERS: usize = 20;
    let theatre = Theatre::new();
    let service = service(Service::options().concurrency(1));
    let (casting, gate) = (theatre.casting(), Gate::default());
    let bed = gate.clone();
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let bed = bed.clone();
            casting.actor().received(move |link, data| {
                bed.pass();
                let _ = link.send(data);
            })
        })
        .unwrap();
    let mut clients: Vec<_> = (0..SLEEPERS).map(|_| client(address)).collect();
    clients.iter_mut().for_each(|socket| socket.write_all(b"z").unwrap());
    // Nobody wakes before all of them sleep: one after another they never would.
    gate.wait_for(SLEEPERS);
    gate.open();
    clients.iter_mut().for_each(|socket| drop(read_exactly(socket, 1)));
}

// --- Panics ---

#[test]
fn a_panic_in_a_handler_ends_its_session_only_and_costs_no_worker() {
    quiet_panics();
    #[derive(Clone, Copy)]
    enum Where {
        Opened,
        Received,
        Closed,
    }
    for place in [Where::Opened, Where::Received, Where::Closed] {
        let theatre = Theatre::new();
        let service = service(Service::options().workers(Workers::exactly(1)));
        let casting = theatre.casting();
        let faulty = casting.clone();
        let faulty = service.listen("127.0.0.1:0", move |_| match place {
            Where::Opened => faulty.actor().opened(|_| fall()),
            Where::Received => faulty.actor().received(|_, _| fall()),
            Where::Closed => faulty.actor().closed(|_, _| fall()),
        });
        let (faulty, sound) = (faulty.unwrap(), service.listen("127.0.0.1:0", move |_| casting.echo()).unwrap());
        let mut witness = client(sound);
        round_trip(&mut witness, b"before");
        for number in 1..=20 {
            let mut socket = client(faulty);
            match place {
                Where::Opened => {}
                Where::Received => socket.write_all(b"x").unwrap(),
                Where::Closed => socket.shutdown(Shutdown::Write).unwrap(),
            }
            assert_eq!(read_to_end(&mut socket), b"");
            eventually("the panic is counted", || service.stats().panics == number);
        }
        round_trip(&mut witness, b"after");
        let stats = service.stats();
        assert_eq!((stats.pool.unwrap().workers, stats.pool.unwrap().panics, stats.sessions), (1, 0, 1));
    }
}

#[test]
fn a_panic_where_sessions_are_made_refuses_that_connection_only() {
    quiet_panics();
    let theatre = Theatre::new();
    let service = service(Service::options().workers(Workers::exactly(1)));
    let (casting, bad) = (theatre.casting(), Arc::new(AtomicBool::new(true)));
    let is_bad = bad.clone();
    let make = move |_| if is_bad.load(Ordering::SeqCst) { fall() } else { casting.echo() };
    let address = service.listen("127.0.0.1:0", make).unwrap();
    for number in 1..=20 {
        assert_eq!(read_to_end(&mut client(address)), b"");
        eventually("the panic is counted", || service.stats().panics == number);
    }
    bad.store(false, Ordering::SeqCst);
    round_trip(&mut client(address), b"hello");
    assert_eq!(service.stats().accepted, 1);
    assert_eq!(service.stats().pool.unwrap().panics, 0, "the layer itself does not fall");
}

#[test]
fn a_panic_in_a_sessions_destructor_harms_nobody() {
    quiet_panics();
    struct Brittle(Casting);
    impl Session for Brittle {
        fn received(&mut self, link: &Link, _data: Buffer) {
            link.close();
        }
    }
    impl Drop for Brittle {
        fn drop(&mut self) {
            self.0.0.dropped.fetch_add(1, Ordering::SeqCst);
            fall();
        }
    }
    let theatre = Theatre::new();
    let service = service(Service::options().workers(Workers::exactly(1)));
    let casting = theatre.casting();
    let address = service
        .listen("127.0.0.1:0", move |_| {
            casting.0.made.fetch_add(1, Ordering::SeqCst);
            Brittle(casting.clone())
        })
        .unwrap();
    for number in 1..=5 {
        let mut socket = client(address);
        socket.write_all(b"x").unwrap();
        assert_eq!(read_to_end(&mut socket), b"");
        drop(socket);
        eventually("it is dropped", || theatre.dropped() == number);
    }
    eventually("all are forgotten", || service.stats().sessions == 0);
    let stats = service.stats();
    assert_eq!((stats.panics, stats.pool.unwrap().panics, stats.pool.unwrap().workers), (5, 0, 1));
}

// --- Sending ---

#[test]
fn messages_go_out_in_the_order_of_each_sender_and_in_one_piece() {
    const SENDERS: u8 = 4;
    const MESSAGES: u32 = 3000;
    let theatre = Theatre::new();
    // So small that senders wait for room again and again.
    let service = service(Service::options().outbox(64 * 1024, SlowConsumer::Wait));
    let (casting, (links, told)) = (theatre.casting(), channel());
    let reasons = channel().0;
    let address = service.listen("127.0.0.1:0", move |_| casting.actor().telling(&links, &reasons)).unwrap();
    let mut socket = client(address);
    let link: Link = next(&told);
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let link = link.clone();
            thread::spawn(move || {
                let mut random = fastrand::Rng::with_seed(sender.into());
                for number in 0..MESSAGES {
                    let length = random.u16(0..2000);
                    let mut message = vec![sender];
                    message.extend_from_slice(&number.to_le_bytes());
                    message.extend_from_slice(&length.to_le_bytes());
                    message.extend(std::iter::repeat_n(sender, length.into()));
                    link.send(message).unwrap();
                }
            })
        })
        .collect();
    let mut expected = [0u32; SENDERS as usize];
    for _ in 0..u32::from(SENDERS) * MESSAGES {
        let header = read_exactly(&mut socket, 7);
        let sender = header[0];
        let number = u32::from_le_bytes(header[1..5].try_into().unwrap());
        assert_eq!(number, expected[usize::from(sender)]);
        expected[usize::from(sender)] += 1;
        let length = u16::from_le_bytes(header[5..].try_into().unwrap());
        assert!(read_exactly(&mut socket, length.into()).iter().all(|&byte| byte == sender));
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
}

#[test]
fn a_message_that_is_larger_than_the_outbox_comes_back() {
    let theatre = Theatre::new();
    let service = service(Service::options().outbox(1000, SlowConsumer::Disconnect));
    let (casting, (results, told)) = (theatre.casting(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let results = results.clone();
            // What was received lies in a buffer of the pool that is larger than the outbox: that is no reason.
            casting.actor().received(move |link, data| {
                results.send((link.send(vec![7; 1001]), link.send(data))).unwrap();
            })
        })
        .unwrap();
    let mut socket = client(address);
    round_trip(&mut socket, b"small");
    let (large, small) = next(&told);
    let refused = large.unwrap_err();
    assert_eq!((refused.reason, refused.buffer.len()), (SendErrorReason::TooLarge, 1001));
    assert!(small.is_ok());
}

#[test]
fn sending_after_close_is_refused_and_what_was_sent_before_arrives() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, (links, told), (reasons, why)) = (theatre.casting(), channel(), channel());
    let address = service.listen("127.0.0.1:0", move |_| casting.actor().telling(&links, &reasons)).unwrap();
    let mut socket = client(address);
    let link: Link = next(&told);
    assert!(link.is_open());
    for number in 0..1000u32 {
        link.send(number.to_le_bytes().to_vec()).unwrap();
    }
    link.close();
    assert!(!link.is_open());
    let refused = link.send("more").unwrap_err();
    assert_eq!((refused.reason, &refused.buffer[..]), (SendErrorReason::Closed, &b"more"[..]));
    let sent: Vec<u8> = (0..1000u32).flat_map(u32::to_le_bytes).collect();
    assert!(read_to_end(&mut socket) == sent);
    drop(socket);
    assert_eq!(next(&why), "ByUs");
    assert_eq!(link.stats().bytes_sent, sent.len() as u64);
    link.close();
    link.abort();
    link.finish();
}

#[test]
fn finish_ends_the_own_side_after_what_was_sent_and_receiving_goes_on() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, (heard, told), (reasons, why)) = (theatre.casting(), channel(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let (heard, reasons) = (heard.clone(), reasons.clone());
            casting
                .actor()
                .opened(|link| {
                    link.send(vec![5; MIB / 2]).unwrap();
                    link.finish();
                    assert_eq!(link.send("more").unwrap_err().reason, SendErrorReason::Closed);
                })
                .received(move |_, data| heard.send(data.to_vec()).unwrap())
                .closed(move |_, reason| reasons.send(format!("{reason:?}")).unwrap())
        })
        .unwrap();
    let mut socket = client(address);
    assert_eq!(read_to_end(&mut socket), vec![5; MIB / 2]);
    socket.write_all(b"and yet it moves").unwrap();
    assert_eq!(next(&told), b"and yet it moves");
    assert!(why.try_recv().is_err());
    drop(socket);
    assert_eq!(next(&why), "ByPeer");
}

#[test]
fn reading_pauses_while_the_own_answers_wait_and_nothing_is_lost() {
    const BYTES: usize = 50 * MIB;
    const OUTBOX: usize = 256 * 1024;
    let theatre = Theatre::new();
    let service = service(Service::options().outbox(OUTBOX, SlowConsumer::Disconnect));
    let (casting, (links, told)) = (theatre.casting(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let links = links.clone();
            casting.echo().opened(move |link| links.send(link.clone()).unwrap())
        })
        .unwrap();
    let mut socket = client(address);
    let link: Link = next(&told);
    let sent = pattern(BYTES, 1);
    let (mut writer, to_write) = (socket.try_clone().unwrap(), sent.clone());
    let written = Arc::new(AtomicUsize::new(0));
    let progress = written.clone();
    let writing = thread::spawn(move || {
        for piece in to_write.chunks(64 * 1024) {
            writer.write_all(piece).unwrap();
            progress.fetch_add(piece.len(), Ordering::SeqCst);
        }
        writer.shutdown(Shutdown::Write).unwrap();
    });
    // The client writes until nothing moves any more, and reads only then.
    let mut still = 0;
    let mut last = (0, 0);
    eventually("the pipe is full", || {
        let stats = link.stats();
        assert!(stats.queued_bytes <= OUTBOX, "{stats:?}");
        let now = (written.load(Ordering::SeqCst), stats.bytes_received);
        still = if now == last { still + 1 } else { 0 };
        last = now;
        still > 100
    });
    assert!(last.0 < BYTES, "the server took in {} bytes without the client reading any", last.0);
    let echo = read_to_end(&mut socket);
    writing.join().unwrap();
    assert!(echo == sent, "{} bytes came back", echo.len());
    let stats = link.stats();
    assert_eq!((stats.bytes_received, stats.bytes_sent, stats.queued_bytes), (BYTES as u64, BYTES as u64, 0));
}

// --- Groups ---

#[test]
fn a_broadcast_is_copied_once_for_all() {
    const MEMBERS: usize = 50;
    const BYTES: usize = 512 * 1024;
    in_child("a_broadcast_is_copied_once_for_all", || {
        let theatre = Theatre::new();
        let service = service(Service::options());
        let (casting, room) = (theatre.casting(), Group::new());
        let members = room.clone();
        let address = service.listen("127.0.0.1:0", move |_| casting.member(&members)).unwrap();
        // Nobody reads, so most of it has to be kept.
        let clients: Vec<_> = (0..MEMBERS).map(|_| client(address)).collect();
        eventually("all have joined", || room.len() == MEMBERS);
        let message = pattern(BYTES, 1);
        WATCHED.store(BYTES, Ordering::SeqCst);
        let peak = peak_of(|| assert_eq!(room.broadcast(&message), MEMBERS));
        assert_eq!(SEEN.load(Ordering::SeqCst), 1, "one copy of the message");
        assert!(peak < 2 * BYTES, "{peak} bytes for {MEMBERS} members");
        for mut socket in clients {
            assert!(read_exactly(&mut socket, BYTES) == message);
        }
    });
}

#[test]
fn broadcasts_reach_all_while_others_join_leave_and_end() {
    const FAITHFUL: usize = 10;
    const MESSAGES: u32 = 5000;
    let theatre = Theatre::new();
    let service = service(Service::options().outbox(64 * MIB, SlowConsumer::Disconnect));
    let (casting, room, (links, told)) = (theatre.casting(), Group::new(), channel());
    let members = room.clone();
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let (links, members) = (links.clone(), members.clone());
            casting.actor().opened(move |link| {
                members.join(link);
                members.join(link); // again does nothing
                let _ = links.send(link.clone()); // in the end nobody listens any more
            })
        })
        .unwrap();
    let faithful: Vec<_> = (0..FAITHFUL).map(|_| client(address)).collect();
    let _links: Vec<Link> = (0..FAITHFUL).map(|_| next(&told)).collect();
    assert_eq!(room.len(), FAITHFUL);
    let over = Arc::new(AtomicBool::new(false));
    let fickle: Vec<_> = (0..3)
        .map(|number| {
            let over = over.clone();
            thread::spawn(move || {
                while !over.load(Ordering::SeqCst) {
                    let socket = client(address);
                    if number == 0 {
                        reset(socket);
                    }
                }
            })
        })
        .collect();
    let leaving = {
        let (over, room) = (over.clone(), room.clone());
        thread::spawn(move || {
            while !over.load(Ordering::SeqCst) {
                if let Ok(link) = told.recv_timeout(Duration::from_millis(10)) {
                    room.leave(&link);
                    room.leave(&link);
                }
            }
        })
    };
    let readers: Vec<_> = faithful
        .into_iter()
        .map(|mut socket| {
            thread::spawn(move || {
                (0..MESSAGES).for_each(|number| assert_eq!(read_exactly(&mut socket, 4), number.to_le_bytes()));
                socket
            })
        })
        .collect();
    for number in 0..MESSAGES {
        assert!(room.broadcast(&number.to_le_bytes()) >= FAITHFUL);
    }
    let sockets: Vec<TcpStream> = readers.into_iter().map(|reader| reader.join().unwrap()).collect();
    over.store(true, Ordering::SeqCst);
    fickle.into_iter().for_each(|thread| thread.join().unwrap());
    leaving.join().unwrap();
    drop(sockets);
    eventually("those who ended have left", || room.is_empty());
    eventually("all are forgotten", || service.stats().sessions == 0);
    assert_eq!(theatre.opened(), theatre.closed());
}

#[test]
fn a_broadcast_can_leave_one_out_and_counts_who_accepted() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, room, (links, told)) = (theatre.casting(), Group::new(), channel());
    let reasons = channel().0;
    let address = service.listen("127.0.0.1:0", move |_| casting.actor().telling(&links, &reasons)).unwrap();
    let mut clients: Vec<_> = (0..3).map(|_| client(address)).collect();
    let links: Vec<Link> = (0..3).map(|_| next(&told)).collect();
    links.iter().for_each(|link| room.join(link));
    assert_eq!(room.broadcast_except(b"a", &links[0]), 2);
    assert_eq!(room.broadcast(b"b"), 3);
    for socket in &mut clients {
        let mine = links.iter().find(|link| link.peer() == socket.local_addr().unwrap()).unwrap();
        let expected: &[u8] = if mine.id() == links[0].id() { b"b" } else { b"ab" };
        assert_eq!(read_exactly(socket, expected.len()), expected);
    }
    links[1].abort();
    eventually("it has left", || room.len() == 2);
    room.join(&links[1]);
    assert_eq!(room.len(), 2, "who has ended does not join");
    assert_eq!(room.broadcast(b"c"), 2);
}

// --- Peers that do not read ---

/// A session whose client never reads, its link, and why it is closed.
struct Stuck {
    service: Service,
    link: Link,
    why: Receiver<String>,
    socket: TcpStream,
}

const STUCK_OUTBOX: usize = 512 * 1024;
const STUCK_MESSAGE: usize = 10_000;

fn stuck(theatre: &Theatre, policy: SlowConsumer) -> Stuck {
    let service = service(Service::options().outbox(STUCK_OUTBOX, policy));
    let (casting, (links, told), (reasons, why)) = (theatre.casting(), channel(), channel());
    let address = service.listen("127.0.0.1:0", move |_| casting.actor().telling(&links, &reasons)).unwrap();
    let socket = client(address);
    let link = next(&told);
    Stuck { service, link, why, socket }
}

fn numbered(number: u32) -> Vec<u8> {
    let mut message = number.to_le_bytes().to_vec();
    message.resize(STUCK_MESSAGE, 0);
    message.shrink_to_fit();
    message
}

fn read_numbered(socket: &mut TcpStream) -> u32 {
    u32::from_le_bytes(read_exactly(socket, STUCK_MESSAGE)[..4].try_into().unwrap())
}

/// What one outbox may cost, with the lists around it.
const STUCK_MEMORY: usize = STUCK_OUTBOX + 256 * 1024;

#[test]
fn a_slow_consumer_is_disconnected_when_its_outbox_is_full() {
    in_child("a_slow_consumer_is_disconnected_when_its_outbox_is_full", || {
        let theatre = Theatre::new();
        let Stuck { service, link, why, mut socket } = stuck(&theatre, SlowConsumer::Disconnect);
        let mut accepted = 0;
        let mut reason = None;
        let peak = peak_of(|| {
            while reason.is_none() {
                match link.send(numbered(accepted)) {
                    Ok(()) => accepted += 1,
                    Err(refused) => reason = Some(refused.reason),
                }
                assert!(link.stats().queued_bytes <= STUCK_OUTBOX);
            }
        });
        assert_eq!(reason, Some(SendErrorReason::SlowConsumer));
        assert!(peak <= STUCK_MEMORY, "{peak}");
        assert_eq!(next(&why), "SlowConsumer");
        assert_eq!(link.send("x").unwrap_err().reason, SendErrorReason::Closed);
        eventually("nothing is kept for it", || link.stats().kept_bytes == 0);
        eventually("it is forgotten", || service.stats().sessions == 0);
        // What the system had taken can still be read, in order; then the connection has ended, well or not.
        let mut rest = Vec::new();
        let _ = socket.read_to_end(&mut rest);
        for (number, message) in rest.chunks_exact(STUCK_MESSAGE).enumerate() {
            assert_eq!(message, numbered(number as u32));
        }
    });
}

#[test]
fn the_oldest_messages_for_a_slow_consumer_are_dropped_and_counted() {
    in_child("the_oldest_messages_for_a_slow_consumer_are_dropped_and_counted", || {
        const MESSAGES: u32 = 5000;
        let theatre = Theatre::new();
        let Stuck { service: _service, link, mut socket, .. } = stuck(&theatre, SlowConsumer::DropOldest);
        let peak = peak_of(|| {
            for number in 0..MESSAGES {
                link.send(numbered(number)).unwrap();
                assert!(link.stats().queued_bytes <= STUCK_OUTBOX);
            }
        });
        assert!(peak <= STUCK_MEMORY, "{peak}");
        let dropped = link.stats().dropped;
        assert!(dropped > 0, "50 MB fit nowhere");
        let mut last = None;
        for _ in 0..u64::from(MESSAGES) - dropped {
            let number = read_numbered(&mut socket);
            assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
            last = Some(number);
        }
        assert_eq!(last, Some(MESSAGES - 1), "the newest is there");
        assert_eq!(link.stats().dropped, dropped);
        assert!(link.is_open());
    });
}

#[test]
fn senders_wait_for_a_slow_consumer_and_lose_nothing() {
    in_child("senders_wait_for_a_slow_consumer_and_lose_nothing", || {
        const MESSAGES: u32 = 3000;
        let theatre = Theatre::new();
        let Stuck { service: _service, link, mut socket, .. } = stuck(&theatre, SlowConsumer::Wait);
        let sender = link.clone();
        let peak = peak_of(|| {
            let accepted = Arc::new(AtomicUsize::new(0));
            let count = accepted.clone();
            let sending = thread::spawn(move || {
                for number in 0..MESSAGES {
                    sender.send(numbered(number)).unwrap();
                    count.fetch_add(1, Ordering::SeqCst);
                }
            });
            let (mut still, mut last) = (0, 0);
            eventually("the sender waits", || {
                assert!(link.stats().queued_bytes <= STUCK_OUTBOX);
                let now = accepted.load(Ordering::SeqCst);
                still = if now == last { still + 1 } else { 0 };
                last = now;
                still > 100
            });
            assert!(last < MESSAGES as usize, "30 MB fit nowhere");
            for number in 0..MESSAGES {
                assert_eq!(read_numbered(&mut socket), number);
                assert!(link.stats().queued_bytes <= STUCK_OUTBOX);
            }
            sending.join().unwrap();
        });
        assert!(peak <= STUCK_MEMORY, "{peak}");
        assert_eq!(link.stats().dropped, 0);
    });
}

#[test]
fn a_sender_that_waits_hears_when_the_session_ends() {
    for graceful in [true, false] {
        let theatre = Theatre::new();
        let Stuck { service: _service, link, socket, .. } = stuck(&theatre, SlowConsumer::Wait);
        let sender = link.clone();
        let sending = thread::spawn(move || {
            loop {
                if let Err(refused) = sender.send(numbered(0)) {
                    return refused.reason;
                }
            }
        });
        eventually("the outbox is full", || link.stats().queued_bytes + STUCK_MESSAGE > STUCK_OUTBOX);
        if graceful {
            link.close()
        } else {
            drop(socket)
        }
        assert_eq!(sending.join().unwrap(), SendErrorReason::Closed);
    }
}

#[test]
fn waiting_for_room_never_takes_the_last_worker() {
    let theatre = Theatre::new();
    const WORKERS: usize = 3;
    let builder = Service::options().workers(Workers::exactly(WORKERS)).outbox(STUCK_OUTBOX, SlowConsumer::Wait);
    let service = service(builder);
    let (casting, (links, told), (reasons, why)) = (theatre.casting(), channel(), channel());
    let sink = casting.clone();
    let slow = service.listen("127.0.0.1:0", move |_| sink.actor().telling(&links, &reasons)).unwrap();
    let _never_reads = client(slow);
    let target: Link = next(&told);
    // As many as there are workers send to the one who does not read, until it has ended.
    let flood = service
        .listen("127.0.0.1:0", move |_| {
            let target = target.clone();
            casting.actor().received(move |link, _| {
                while target.send(numbered(0)).is_ok() {}
                let _ = link.send("refused");
            })
        })
        .unwrap();
    let mut senders: Vec<_> = (0..WORKERS).map(|_| client(flood)).collect();
    senders.iter_mut().for_each(|socket| socket.write_all(b"go").unwrap());
    senders.iter_mut().for_each(|socket| assert_eq!(read_exactly(socket, 7), b"refused"));
    assert_eq!(next(&why), "SlowConsumer");
}

#[test]
fn workers_that_wait_for_room_go_on_when_the_peer_reads() {
    const MESSAGES: usize = 500;
    const WORKERS: usize = 3;
    let theatre = Theatre::new();
    let builder = Service::options().workers(Workers::exactly(WORKERS)).outbox(STUCK_OUTBOX, SlowConsumer::Wait);
    let service = service(builder);
    let (casting, (links, told)) = (theatre.casting(), channel());
    let (sink, reasons) = (casting.clone(), channel().0);
    let slow = service.listen("127.0.0.1:0", move |_| sink.actor().telling(&links, &reasons)).unwrap();
    let mut reader = client(slow);
    let target: Link = next(&told);
    let receiver = target.clone();
    let flood = service
        .listen("127.0.0.1:0", move |_| {
            let target = target.clone();
            casting.actor().received(move |_, _| (0..MESSAGES).for_each(|_| target.send(numbered(0)).unwrap()))
        })
        .unwrap();
    let mut senders: Vec<_> = (1..WORKERS).map(|_| client(flood)).collect();
    senders.iter_mut().for_each(|socket| socket.write_all(b"go").unwrap());
    eventually("the outbox is full", || receiver.stats().queued_bytes + STUCK_MESSAGE > STUCK_OUTBOX);
    (0..MESSAGES * (WORKERS - 1)).for_each(|_| assert_eq!(read_numbered(&mut reader), 0));
}

// --- The end of a connection ---

#[cfg(unix)]
#[test]
fn a_client_that_ends_its_side_with_its_request_still_gets_the_answer() {
    const ANSWER: usize = 8 * MIB;
    let theatre = Theatre::new();
    let service = service(Service::options().outbox(2 * ANSWER, SlowConsumer::Disconnect));
    let (casting, (reasons, why)) = (theatre.casting(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let reasons = reasons.clone();
            casting
                .actor()
                .received(|link, data| {
                    // More than the system takes at once: the rest goes out after the peer's end was noticed.
                    link.send(pattern(ANSWER, data[0].into())).unwrap();
                })
                .closed(move |_, reason| reasons.send(format!("{reason:?}")).unwrap())
        })
        .unwrap();
    for seed in 0..4 {
        let mut socket = client(address);
        // Corked until it is shut, so that data and end travel in one segment.
        rustix::net::sockopt::set_tcp_cork(&socket, true).unwrap();
        socket.write_all(&[seed]).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        assert_eq!(next(&why), "ByPeer");
        assert!(read_to_end(&mut socket) == pattern(ANSWER, seed.into()));
    }
    eventually("all are forgotten", || service.stats().sessions == 0);
}

#[test]
fn a_reset_ends_the_session_as_failed_and_no_other() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, (links, told), (reasons, why)) = (theatre.casting(), channel(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let mut actor = casting.actor().telling(&links, &reasons);
            actor.received = Box::new(|link, data| drop(link.send(data)));
            actor
        })
        .unwrap();
    let mut witness = client(address);
    next(&told);
    for in_the_middle in [false, true] {
        let socket = client(address);
        let link: Link = next(&told);
        if in_the_middle {
            // A send is outstanding when the reset comes.
            link.send(vec![0; 900_000]).unwrap();
        }
        reset(socket);
        let reason = next(&why);
        assert!(reason.starts_with(&format!("Failed(Os {{ code: {ECONNRESET},")), "{reason}");
        eventually("nothing is kept for it", || link.stats().kept_bytes == 0);
        assert_eq!(link.send("x").unwrap_err().reason, SendErrorReason::Closed);
    }
    round_trip(&mut witness, b"well");
}

#[test]
fn what_a_peer_said_before_it_reset_is_heard_even_while_it_is_sent_to() {
    let theatre = Theatre::new();
    let service = service(Service::options().outbox(64 * MIB, SlowConsumer::Disconnect));
    let (casting, (heard, told), (reasons, why)) = (theatre.casting(), channel(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let (heard, reasons) = (heard.clone(), reasons.clone());
            casting
                .actor()
                .opened(|link| link.send(vec![0; 32 * MIB]).unwrap())
                .received(move |_, data| heard.send(data.to_vec()).unwrap())
                .closed(move |_, reason| reasons.send(format!("{reason:?}")).unwrap())
        })
        .unwrap();
    for number in 0..100u32 {
        let mut socket = client(address);
        read_exactly(&mut socket, 1);
        socket.write_all(&number.to_le_bytes()).unwrap();
        reset(socket);
        assert_eq!(next(&told), number.to_le_bytes());
        let reason = next(&why);
        assert!(reason.starts_with(&format!("Failed(Os {{ code: {ECONNRESET},")), "{reason}");
    }
}

#[test]
fn a_thousand_sessions_are_opened_and_closed_at_once() {
    const CLIENTS: usize = 1000;
    let theatre = Theatre::new();
    let service = service(Service::options());
    let casting = theatre.casting();
    let address = service.listen("127.0.0.1:0", move |_| casting.echo()).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|part| {
            thread::spawn(move || {
                let mut clients: Vec<_> = (0..CLIENTS / 8).map(|_| client(address)).collect();
                for (number, socket) in clients.iter_mut().enumerate() {
                    round_trip(socket, format!("{part} {number}").as_bytes());
                }
                clients
            })
        })
        .collect();
    let clients: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(service.stats().sessions, CLIENTS);
    // All at once, from several sides, well and badly.
    let threads: Vec<_> = clients
        .into_iter()
        .enumerate()
        .map(|(part, clients)| {
            thread::spawn(move || if part % 2 == 0 { drop(clients) } else { clients.into_iter().for_each(reset) })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    eventually("all are forgotten", || service.stats().sessions == 0);
    assert_eq!((theatre.opened(), theatre.closed()), (CLIENTS, CLIENTS));
    eventually("all sockets are closed", || service.stats().port.devices == 1);
}

// --- Connecting ---

#[test]
fn a_refused_connection_is_told_to_the_session() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (reasons, why) = channel();
    let link = service.connect(dead_address(), theatre.casting().actor().telling(&channel().0, &reasons)).unwrap();
    let reason = next(&why);
    assert!(reason.starts_with(&format!("Failed(Os {{ code: {ECONNREFUSED},")), "{reason}");
    assert_eq!(link.send("x").unwrap_err().reason, SendErrorReason::Closed);
    assert_eq!(theatre.opened(), 0);
    eventually("it is forgotten", || service.stats().sessions == 0);
}

#[test]
fn what_is_sent_before_the_connection_is_made_goes_out_first() {
    const MESSAGES: u32 = 1000;
    let theatre = Theatre::new();
    let service = service(Service::options());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for round in 0..20 {
        let link = service.connect(address, theatre.casting().actor()).unwrap();
        for number in 0..MESSAGES {
            link.send(number.to_le_bytes().to_vec()).unwrap();
        }
        if round % 2 == 0 {
            link.close()
        } else {
            link.finish()
        }
        let (mut socket, _) = listener.accept().unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        let sent: Vec<u8> = (0..MESSAGES).flat_map(u32::to_le_bytes).collect();
        assert!(read_to_end(&mut socket) == sent);
    }
    eventually("all are forgotten", || service.stats().sessions == 0);
}

#[test]
fn both_ends_of_a_connection_can_be_sessions_of_one_service() {
    const ROUNDS: u32 = 1000;
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (casting, (done, told)) = (theatre.casting(), channel());
    let address = service.listen("127.0.0.1:0", move |_| casting.echo()).unwrap();
    let mut count = 0;
    let caller = theatre.casting().actor().opened(|link| link.send("ball").unwrap()).received(move |link, data| {
        count += 1;
        if count < ROUNDS {
            link.send(data).unwrap();
        } else {
            done.send(count).unwrap();
            link.close();
        }
    });
    service.connect(address, caller).unwrap();
    assert_eq!(next(&told), ROUNDS);
    eventually("both are forgotten", || service.stats().sessions == 0);
}

#[test]
fn a_connection_made_elsewhere_can_be_adopted() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let (server, mut peer) = common::pair();
    let here = thread::current().id();
    let (threads, told) = channel();
    let actor = theatre.casting().echo().opened(move |_| threads.send(thread::current().id()).unwrap());
    let link = service.adopt(server, actor).unwrap();
    assert_ne!(next(&told), here, "a worker calls the handlers");
    round_trip(&mut peer, b"hello");
    assert_eq!(link.peer(), peer.local_addr().unwrap());
}

// --- Limits ---

#[test]
fn connections_beyond_the_limit_are_refused_until_a_session_ends() {
    const LIMIT: usize = 3;
    let theatre = Theatre::new();
    let service = service(Service::options().max_sessions(LIMIT));
    let casting = theatre.casting();
    let address = service.listen("127.0.0.1:0", move |_| casting.echo()).unwrap();
    let mut clients: Vec<_> = (0..LIMIT).map(|_| client(address)).collect();
    clients.iter_mut().for_each(|socket| round_trip(socket, b"in"));
    for number in 1..=5 {
        assert_eq!(read_to_end(&mut client(address)), b"");
        eventually("it is counted", || service.stats().refused == number);
    }
    assert_eq!(theatre.made(), LIMIT, "no session is made for a connection that is refused");
    let error = service.connect(address, theatre.casting().actor()).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::QuotaExceeded);
    clients.pop();
    eventually("one has ended", || service.stats().sessions == LIMIT - 1);
    round_trip(&mut client(address), b"in again");
}

#[test]
fn a_stream_without_any_newline_costs_a_room_no_memory() {
    in_child("a_stream_without_any_newline_costs_a_room_no_memory", || {
        const BYTES: usize = 64 * MIB;
        const OUTBOX: usize = MIB;
        let theatre = Theatre::new();
        let service = service(Service::options().outbox(OUTBOX, SlowConsumer::Wait));
        let (casting, room) = (theatre.casting(), Group::new());
        let members = room.clone();
        let address = service.listen("127.0.0.1:0", move |_| casting.member(&members)).unwrap();
        let (mut listener, mut speaker) = (client(address), client(address));
        eventually("both have joined", || room.len() == 2);
        let mut own_words = speaker.try_clone().unwrap();
        let piece = vec![b'x'; 64 * 1024];
        let peak = peak_of(|| {
            let mut threads = Vec::new();
            threads.push(thread::spawn(move || {
                (0..BYTES / piece.len()).for_each(|_| speaker.write_all(&piece).unwrap());
            }));
            for socket in [&mut listener, &mut own_words] {
                let mut socket = socket.try_clone().unwrap();
                threads.push(thread::spawn(move || {
                    let mut buffer = vec![0; 64 * 1024];
                    for _ in 0..BYTES / buffer.len() {
                        socket.read_exact(&mut buffer).unwrap();
                        assert!(buffer.iter().all(|&byte| byte == b'x'));
                    }
                }));
            }
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
        assert!(peak < 3 * OUTBOX, "{peak} bytes");
    });
}

// --- Shutdown ---

#[test]
fn shutdown_sends_what_was_accepted_and_tells_every_session() {
    const CLIENTS: usize = 20;
    const BYTES: usize = 4 * MIB;
    let theatre = Theatre::new();
    let service = service(Service::options().outbox(2 * BYTES, SlowConsumer::Disconnect));
    let (casting, (links, told), (reasons, why)) = (theatre.casting(), channel(), channel());
    let address = service.listen("127.0.0.1:0", move |_| casting.actor().telling(&links, &reasons)).unwrap();
    let clients: Vec<_> = (0..CLIENTS).map(|_| client(address)).collect();
    for _ in 0..CLIENTS {
        next(&told).send(pattern(BYTES, 9)).unwrap();
    }
    // Nobody has read yet: the outboxes are full, and empty themselves while the service waits.
    let readers: Vec<_> =
        clients.into_iter().map(|mut socket| thread::spawn(move || read_to_end(&mut socket))).collect();
    let report = service.shutdown(DEADLINE);
    assert_eq!((report.graceful, report.aborted, report.workers_left), (CLIENTS, 0, 0));
    for reader in readers {
        assert!(reader.join().unwrap() == pattern(BYTES, 9));
    }
    for _ in 0..CLIENTS {
        assert_eq!(next(&why), "Shutdown");
    }
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn shutdown_cuts_off_who_never_reads_when_its_time_is_over() {
    // By the shutdown's own deadline, whether closing a session may take longer or less.
    for (linger, deadline) in [(DEADLINE, 100), (Duration::from_millis(10), 2000)] {
        let deadline = Duration::from_millis(deadline);
        let theatre = Theatre::new();
        let service = service(Service::options().outbox(64 * MIB, SlowConsumer::Disconnect).linger(linger));
        let (casting, (links, told), (reasons, why)) = (theatre.casting(), channel(), channel());
        let address = service.listen("127.0.0.1:0", move |_| casting.actor().telling(&links, &reasons)).unwrap();
        let clients: Vec<_> = (0..3).map(|_| client(address)).collect();
        let links: Vec<Link> = (0..3).map(|_| next(&told)).collect();
        links[0].send(vec![0; 32 * MIB]).unwrap();
        let report = service.shutdown(deadline);
        assert!(report.aborted >= 1, "{report:?}");
        assert_eq!((report.graceful + report.aborted, report.workers_left), (3, 0), "{report:?}");
        if linger < deadline {
            assert_eq!(report.aborted, 1, "the others had nothing to read");
        }
        (0..3).for_each(|_| assert_eq!(next(&why), "Shutdown"));
        drop(clients);
    }
}

#[test]
fn shutdown_reports_a_handler_that_does_not_return() {
    let theatre = Theatre::new();
    let gate = Gate::default();
    let service = service(Service::options());
    let (casting, closed_gate) = (theatre.casting(), gate.clone());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let gate = closed_gate.clone();
            casting.actor().received(move |_, _| gate.pass())
        })
        .unwrap();
    let mut socket = client(address);
    socket.write_all(b"x").unwrap();
    gate.wait_for(1);
    // Time enough for the workers that have nothing to do to end, on a busy machine too.
    let report = service.shutdown(Duration::from_secs(1));
    assert_eq!((report.graceful, report.aborted, report.workers_left), (0, 1, 1));
    assert_eq!(theatre.closed(), 0, "closed does not overlap with the handler that runs");
    gate.open();
    eventually("closed is called when it has returned", || theatre.closed() == 1);
}

#[test]
fn shutdown_hears_out_a_peer_that_speaks_to_the_end() {
    let theatre = Theatre::new();
    let service = service(Service::options());
    let casting = theatre.casting();
    let address = service.listen("127.0.0.1:0", move |_| casting.echo()).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut socket = client(address);
    round_trip(&mut socket, b"begun");
    let (mut writer, is_over) = (socket.try_clone().unwrap(), over.clone());
    let speaking = thread::spawn(move || while !is_over.load(Ordering::SeqCst) && writer.write_all(b"blah").is_ok() {});
    let reading = thread::spawn(move || {
        // An end, and no reset: what the service sent has arrived.
        let end = socket.read_to_end(&mut Vec::new());
        over.store(true, Ordering::SeqCst);
        end
    });
    let report = service.shutdown(DEADLINE);
    assert_eq!(report.aborted, 0);
    reading.join().unwrap().unwrap();
    speaking.join().unwrap();
}

#[test]
fn dropping_the_service_closes_everything_and_tells_every_session() {
    const CLIENTS: usize = 50;
    let theatre = Theatre::new();
    let room = Group::new();
    let (reasons, why) = channel();
    let service = service(Service::options());
    let (casting, members) = (theatre.casting(), room.clone());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let reasons = reasons.clone();
            // Members hold their room and the room its members: this circle has to be cut.
            casting.member(&members).closed(move |_, reason| reasons.send(format!("{reason:?}")).unwrap())
        })
        .unwrap();
    let mut clients: Vec<_> = (0..CLIENTS).map(|_| client(address)).collect();
    eventually("all have joined", || room.len() == CLIENTS);
    let member = room.members()[0].clone();
    drop(service);
    for socket in &mut clients {
        assert_eq!(read_to_end(socket), b"");
    }
    (0..CLIENTS).for_each(|_| assert_eq!(next(&why), "Shutdown"));
    assert!(room.is_empty());
    assert_eq!(member.send("x").unwrap_err().reason, SendErrorReason::Closed);
    assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
}

#[test]
fn the_service_can_be_dropped_while_a_handler_runs_and_by_a_handler() {
    let theatre = Theatre::new();
    let gate = Gate::default();
    let mine = Arc::new(Mutex::new(None));
    let service = service(Service::options());
    let (casting, closed_gate, shared) = (theatre.casting(), gate.clone(), mine.clone());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let (gate, shared) = (closed_gate.clone(), shared.clone());
            casting.actor().received(move |link, data| {
                if &data[..] == b"drop" {
                    drop(shared.lock().unwrap().take());
                    assert!(!link.is_open());
                } else {
                    gate.pass();
                }
            })
        })
        .unwrap();
    *mine.lock().unwrap() = Some(service);
    let mut busy = client(address);
    busy.write_all(b"wait").unwrap();
    gate.wait_for(1);
    let mut dropping = client(address);
    dropping.write_all(b"drop").unwrap();
    assert_eq!(read_to_end(&mut dropping), b"");
    assert_eq!(read_to_end(&mut busy), b"", "its socket is closed although its handler runs");
    gate.open();
    eventually("both have heard of it", || theatre.closed() == 2);
}

#[test]
fn sessions_that_are_being_opened_while_the_service_ends_are_told_too() {
    for round in 0..30 {
        let theatre = Theatre::new();
        let service = service(Service::options());
        let casting = theatre.casting();
        let address = service.listen("127.0.0.1:0", move |_| casting.echo()).unwrap();
        let over = Arc::new(AtomicBool::new(false));
        let comers: Vec<_> = (0..4)
            .map(|_| {
                let over = over.clone();
                thread::spawn(move || {
                    while !over.load(Ordering::SeqCst) {
                        let Ok(mut socket) = TcpStream::connect(address) else { return };
                        let _ = socket.write_all(b"hello");
                    }
                })
            })
            .collect();
        eventually("some have come", || theatre.opened() > 20);
        if round % 2 == 0 {
            drop(service)
        } else {
            _ = service.shutdown(DEADLINE)
        }
        over.store(true, Ordering::SeqCst);
        comers.into_iter().for_each(|thread| thread.join().unwrap());
        eventually("who was opened is closed", || theatre.closed() >= theatre.opened());
    }
}

#[test]
fn half_closed_sessions_with_slow_readers_are_still_served_during_shutdown() {
    const ANSWER: usize = 16 * MIB;
    let theatre = Theatre::new();
    let service = service(Service::options().outbox(2 * ANSWER, SlowConsumer::Disconnect));
    let (casting, (reasons, why)) = (theatre.casting(), channel());
    let address = service
        .listen("127.0.0.1:0", move |_| {
            let reasons = reasons.clone();
            let actor = casting.actor().received(|link, _| link.send(pattern(ANSWER, 3)).unwrap());
            actor.closed(move |_, reason| reasons.send(format!("{reason:?}")).unwrap())
        })
        .unwrap();
    let mut socket = client(address);
    small_buffers([&socket, &socket]);
    socket.write_all(b"?").unwrap();
    socket.shutdown(Shutdown::Write).unwrap();
    assert_eq!(next(&why), "ByPeer");
    let reading = thread::spawn(move || read_to_end(&mut socket));
    service.shutdown(DEADLINE);
    assert!(reading.join().unwrap() == pattern(ANSWER, 3));
}
