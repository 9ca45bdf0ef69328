//! When sends leave: those between the frames that came together leave together, and nothing of what a session promises
//! changes by it. What has come out is read from plain sockets.

mod common;

use common::theatre::{Gate, client, fall, next, quiet_panics, read_exactly, read_to_end};
use common::{eventually, small_buffers};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use wharf::Workers;
use wharf_session::{
    Closed, Framed, FramedLink, FramedSession, Group, Lines, Link, Service, ServiceOptions, SlowConsumer,
};

const LINE_MAX: usize = 1024;

type OnLine = Arc<dyn Fn(&FramedLink<Lines>, &str) + Send + Sync>;

/// Joins the room, tells its link, and does with a line what the test says.
struct Member {
    room: Group,
    links: Sender<Link>,
    reasons: Sender<String>,
    line: OnLine,
}

impl FramedSession for Member {
    type Codec = Lines;

    fn opened(&mut self, link: &FramedLink<Lines>) {
        self.room.join(link);
        self.links.send(link.link().clone()).unwrap();
    }

    fn frame(&mut self, link: &FramedLink<Lines>, line: &[u8]) {
        (self.line)(link, std::str::from_utf8(line).unwrap());
    }

    fn closed(&mut self, _link: &FramedLink<Lines>, reason: &Closed) {
        let _ = self.reasons.send(format!("{reason:?}"));
    }
}

struct Stage {
    service: Service,
    address: SocketAddr,
    room: Group,
    links: Receiver<Link>,
    reasons: Receiver<String>,
}

impl Stage {
    fn new(builder: ServiceOptions, line: impl Fn(&Group, &FramedLink<Lines>, &str) + Send + Sync + 'static) -> Stage {
        let (room, (links, told), (reasons, why)) = (Group::new(), channel(), channel());
        let service = builder.start().unwrap();
        let group = room.clone();
        let own = room.clone();
        let line: OnLine = Arc::new(move |link, text| line(&own, link, text));
        let make = move |_| {
            let (room, links, reasons, line) = (group.clone(), links.clone(), reasons.clone(), line.clone());
            Framed::new(Lines::new(LINE_MAX), Member { room, links, reasons, line })
        };
        let address = service.listen("127.0.0.1:0", make).unwrap();
        Stage { service, address, room, links: told, reasons: why }
    }

    /// A room where every line goes to everybody.
    fn chat(builder: ServiceOptions) -> Stage {
        Stage::new(builder, |room, _, line| _ = room.broadcast(format!("{line}\n").as_bytes()))
    }

    fn enter(&self) -> (TcpStream, Link) {
        let socket = client(self.address);
        (socket, next(&self.links))
    }
}

/// Numbered lines of different lengths.
fn lines(count: usize) -> String {
    (0..count).map(|number| format!("{number} {}\n", "x".repeat(number % 90))).collect()
}

/// Says it while others may have to be read from.
fn say(socket: &TcpStream, text: String) -> thread::JoinHandle<()> {
    let mut socket = socket.try_clone().unwrap();
    thread::spawn(move || socket.write_all(text.as_bytes()).unwrap())
}

#[test]
fn lines_that_came_together_leave_together_in_order_and_all_of_them() {
    const LINES: usize = 20_000;
    let stage = Stage::chat(Service::options().outbox(256 * 1024, SlowConsumer::Wait));
    let members: Vec<_> = (0..20).map(|_| stage.enter()).collect();
    let said = say(&members[0].0, lines(LINES));
    let expected = lines(LINES);
    let reading: Vec<_> = members
        .into_iter()
        .map(|(mut socket, link)| {
            let length = expected.len();
            (thread::spawn(move || (read_exactly(&mut socket, length), socket)), link)
        })
        .collect();
    said.join().unwrap();
    for (thread, link) in reading {
        let (heard, _socket) = thread.join().unwrap();
        assert!(heard == expected.as_bytes());
        eventually("all is counted", || link.stats().messages_sent == LINES as u64);
        let stats = link.stats();
        assert!(stats.sends < LINES as u64 / 4, "{} lines took {} sends", LINES, stats.sends);
        assert_eq!((stats.queued_bytes, stats.dropped, stats.bytes_sent), (0, 0, expected.len() as u64));
    }
    let stats = stage.room.stats();
    assert_eq!((stats.broadcasts, stats.accepted, stats.refused), (LINES as u64, 20 * LINES as u64, 0));
    assert_eq!(stats.bytes, 20 * expected.len() as u64);
}

#[test]
fn answers_to_frames_that_came_together_leave_together() {
    const LINES: usize = 20_000;
    let stage = Stage::new(Service::options(), |_, link, line| link.send(line.as_bytes()).unwrap());
    let (mut socket, link) = stage.enter();
    let said = say(&socket, lines(LINES));
    let expected = lines(LINES);
    assert!(read_exactly(&mut socket, expected.len()) == expected.as_bytes());
    said.join().unwrap();
    eventually("all is counted", || link.stats().messages_sent == LINES as u64);
    assert!(link.stats().sends < LINES as u64 / 4, "{LINES} lines took {} sends", link.stats().sends);
}

#[test]
fn a_line_that_comes_alone_leaves_at_once() {
    // The handler does not return before the line has arrived.
    let gate = Gate::default();
    let closed = gate.clone();
    let stage = Stage::new(Service::options().concurrency(1).workers(Workers::exactly(1)), move |room, _, line| {
        room.broadcast(format!("{line}\n").as_bytes());
        closed.pass();
    });
    let (mut socket, _) = stage.enter();
    socket.write_all(b"alone\n").unwrap();
    assert_eq!(read_exactly(&mut socket, 6), b"alone\n");
    gate.open();
}

/// The third of four lines stops the handler until everybody has heard it.
fn blocked(workers: usize, stop: impl Fn(&Gate) + Send + Sync + 'static) {
    let gate = Gate::default();
    let closed = gate.clone();
    let builder = Service::options().concurrency(1).workers(Workers::exactly(workers));
    let stage = Stage::new(builder, move |room, _, line| {
        room.broadcast(format!("{line}\n").as_bytes());
        if line == "stop" {
            stop(&closed);
        }
    });
    let mut members: Vec<_> = (0..3).map(|_| stage.enter().0).collect();
    for _ in 0..20 {
        // More follows than the end of a frame, or each would pass for the last one, which leaves at once.
        members[0].write_all(format!("one\ntwo\nstop\n{}", "m".repeat(64)).as_bytes()).unwrap();
        for socket in &mut members {
            assert_eq!(read_exactly(socket, 13), b"one\ntwo\nstop\n");
        }
        gate.open();
        members[0].write_all(b"\n").unwrap();
        members.iter_mut().for_each(|socket| assert_eq!(read_exactly(socket, 65)[63..], *b"m\n"));
        gate.close();
    }
    gate.open();
}

#[test]
fn a_handler_that_says_it_blocks_keeps_no_line_back() {
    // No other worker is there who could send it.
    blocked(1, |gate| wharf::blocking(|| gate.pass()));
}

#[test]
fn what_is_sent_while_blocking_leaves_at_once() {
    let gate = Gate::default();
    let closed = gate.clone();
    let builder = Service::options().concurrency(1).workers(Workers::exactly(1));
    let stage = Stage::new(builder, move |room, _, line| {
        let say = || room.broadcast(format!("{line}\n").as_bytes());
        if line == "stop" {
            wharf::blocking(|| {
                say();
                closed.pass();
            });
        } else {
            say();
        }
    });
    let (mut socket, _) = stage.enter();
    socket.write_all(b"1\n2\nstop\n4\n").unwrap();
    assert_eq!(read_exactly(&mut socket, 9), b"1\n2\nstop\n");
    gate.open();
    assert_eq!(read_exactly(&mut socket, 2), b"4\n");
}

#[test]
fn a_handler_that_blocks_unannounced_keeps_no_line_back() {
    blocked(2, Gate::pass);
}

#[test]
fn what_is_coalesced_for_another_service_leaves_though_the_own_ends() {
    let other = Stage::new(Service::options(), |_, _, _| {});
    let mut reader = client(other.address);
    let foreign = next(&other.links);
    let (gate, own_links) = (Gate::default(), Arc::new(Mutex::new(Vec::<Link>::new())));
    let (stop, known) = (gate.clone(), own_links.clone());
    let own = Stage::new(Service::options().workers(Workers::exactly(1)), move |_, _, text| {
        if text == "2" {
            // Between two frames: both are left. The first is this service's, and so is the packet that would send
            // them.
            known.lock().unwrap().iter().for_each(|link| link.send("own\n").unwrap());
            foreign.send("foreign\n").unwrap();
            stop.pass();
        }
    });
    let _quiet = client(own.address);
    own_links.lock().unwrap().push(next(&own.links));
    let mut speaker = client(own.address);
    let _ = next(&own.links);
    // More follows than the end of a frame, or the second would pass for the last one, which leaves at once.
    speaker.write_all(format!("1\n2\n{}\n", "m".repeat(64)).as_bytes()).unwrap();
    gate.wait_for(1);
    // Its port is closed, and takes no packet any more; the handler goes on.
    drop(own.service);
    assert_eq!(read_exactly(&mut reader, 8), b"foreign\n");
    gate.open();
}

#[test]
fn closing_right_after_lines_sends_them_first() {
    for (how, text) in [("close", "1\n2\nclose\n"), ("finish", "1\n2\nfinish\n"), ("abort", "1\n2\nabort\n")] {
        let stage = Stage::new(Service::options(), move |room, link, line| {
            room.broadcast(format!("{line}\n").as_bytes());
            match line {
                "close" => link.close(),
                "finish" => link.finish(),
                "abort" => link.abort(),
                _ => {}
            }
        });
        let (mut speaker, _) = stage.enter();
        let (mut listener, other) = stage.enter();
        speaker.write_all(text.as_bytes()).unwrap();
        assert_eq!(read_to_end(&mut speaker), text.as_bytes(), "{how}");
        assert_eq!(read_exactly(&mut listener, text.len()), text.as_bytes());
        assert!(other.is_open());
    }
}

#[test]
fn a_session_that_is_closed_in_the_middle_gets_what_was_said_before_and_nothing_after() {
    let target: Arc<Mutex<Option<Link>>> = Arc::default();
    let shared = target.clone();
    let counts = Arc::new(Mutex::new(Vec::new()));
    let told = counts.clone();
    let stage = Stage::new(Service::options(), move |room, _, line| {
        if line == "close" {
            shared.lock().unwrap().as_ref().unwrap().close();
        }
        told.lock().unwrap().push(room.broadcast(format!("{line}\n").as_bytes()));
    });
    let (mut speaker, _) = stage.enter();
    let (mut listener, link) = stage.enter();
    *target.lock().unwrap() = Some(link);
    speaker.write_all(b"1\n2\n3\nclose\n5\n6\n                              ").unwrap();
    assert_eq!(read_exactly(&mut speaker, 16), b"1\n2\n3\nclose\n5\n6\n");
    assert_eq!(read_to_end(&mut listener), b"1\n2\n3\n");
    eventually("all was said", || counts.lock().unwrap().len() == 6);
    assert_eq!(*counts.lock().unwrap(), [2, 2, 2, 1, 1, 1], "who is closed accepts nothing");
}

#[test]
fn members_come_and_go_between_two_lines() {
    let target: Arc<Mutex<Option<Link>>> = Arc::default();
    let shared = target.clone();
    let stage = Stage::new(Service::options(), move |room, _, line| {
        let guest = shared.lock().unwrap().clone().unwrap();
        match line {
            "join" => room.join(&guest),
            "leave" => room.leave(&guest),
            "except" => _ = room.broadcast_except(b"e\n", &guest),
            _ => _ = room.broadcast(format!("{line}\n").as_bytes()),
        }
    });
    let (mut speaker, _) = stage.enter();
    let (mut guest, link) = stage.enter();
    stage.room.leave(&link);
    *target.lock().unwrap() = Some(link);
    speaker.write_all(b"1\n2\njoin\n3\n4\nexcept\n5\nleave\n6\n7\njoin\n8\n9\n").unwrap();
    assert_eq!(read_exactly(&mut speaker, 20), b"1\n2\n3\n4\ne\n5\n6\n7\n8\n9\n");
    assert_eq!(read_exactly(&mut guest, 10), b"3\n4\n5\n8\n9\n");
}

#[test]
fn a_send_from_another_thread_comes_after_what_was_broadcast_before_it() {
    // Each line is broadcast, then another thread sends to one member, and the handler waits until it has.
    let (orders, to_do) = channel::<(Link, String)>();
    let (done, is_done) = channel();
    let is_done = Mutex::new(is_done);
    let target: Arc<Mutex<Option<Link>>> = Arc::default();
    let shared = target.clone();
    let stage = Stage::new(Service::options(), move |room, _, line| {
        assert_eq!(room.broadcast(format!("b {line}\n").as_bytes()), 2);
        let link = shared.lock().unwrap().clone().unwrap();
        orders.send((link, format!("s {line}\n"))).unwrap();
        is_done.lock().unwrap().recv().unwrap();
    });
    thread::spawn(move || {
        while let Ok((link, text)) = to_do.recv() {
            link.send(text).unwrap();
            done.send(()).unwrap();
        }
    });
    let (speaker, _) = stage.enter();
    let (listener, link) = stage.enter();
    *target.lock().unwrap() = Some(link);
    let text: String = (0..500).map(|number| format!("{number}\n")).collect();
    let said = say(&speaker, text);
    let mut heard = BufReader::new(listener).lines();
    for number in 0..500 {
        assert_eq!(heard.next().unwrap().unwrap(), format!("b {number}"));
        assert_eq!(heard.next().unwrap().unwrap(), format!("s {number}"));
    }
    said.join().unwrap();
}

#[test]
fn a_panic_keeps_nothing_back() {
    quiet_panics();
    let stage = Stage::new(Service::options(), |room, _, line| {
        room.broadcast(format!("{line}\n").as_bytes());
        if line == "fall" {
            fall();
        }
    });
    let (mut listener, _) = stage.enter();
    let (mut speaker, _) = stage.enter();
    speaker.write_all(b"1\n2\nfall\n4\n5\n                              ").unwrap();
    assert_eq!(read_exactly(&mut listener, 9), b"1\n2\nfall\n");
}

#[test]
fn a_flood_with_a_member_who_reads_late_loses_nothing_where_senders_wait() {
    const LINES: usize = 200_000;
    let stage = Stage::chat(Service::options().outbox(64 * 1024, SlowConsumer::Wait));
    let (speaker, _) = stage.enter();
    let (late, link) = stage.enter();
    small_buffers([&late, &late]);
    let expected = lines(LINES);
    let said = say(&speaker, expected.clone());
    let length = expected.len();
    let mut own = speaker.try_clone().unwrap();
    let hearing = thread::spawn(move || read_exactly(&mut own, length));
    // It begins when its outbox is as good as full.
    eventually("it has fallen behind", || link.stats().queued_bytes > 48 * 1024);
    assert!(link.stats().queued_bytes <= 64 * 1024);
    let mut late = late;
    assert!(read_exactly(&mut late, length) == expected.as_bytes());
    assert!(hearing.join().unwrap() == expected.as_bytes());
    said.join().unwrap();
}

#[test]
fn a_flood_drops_the_oldest_of_who_does_not_read_and_counts_them() {
    const LINES: usize = 200_000;
    let stage = Stage::chat(Service::options().outbox(1 << 20, SlowConsumer::DropOldest));
    let (speaker, own) = stage.enter();
    let (late, link) = stage.enter();
    small_buffers([&late, &late]);
    let said = say(&speaker, lines(LINES));
    let reader = speaker.try_clone().unwrap();
    let hearing = thread::spawn(move || count_increasing(reader, LINES - 1));
    let heard = hearing.join().unwrap();
    said.join().unwrap();
    assert_eq!(heard as u64 + own.stats().dropped, LINES as u64);
    let heard = count_increasing(late, LINES - 1);
    assert!(link.stats().dropped > 0, "10 MB fit nowhere");
    assert_eq!(heard as u64 + link.stats().dropped, LINES as u64);
    assert_eq!(stage.room.stats().dropped, link.stats().dropped + own.stats().dropped);
    assert_eq!(stage.room.stats().accepted, 2 * LINES as u64);
}

/// Reads numbered lines up to one; returns how many there were.
fn count_increasing(socket: TcpStream, last: usize) -> usize {
    let (mut count, mut before) = (0, None);
    for line in BufReader::new(socket).lines() {
        let line = line.unwrap();
        let (number, rest) = line.split_once(' ').unwrap();
        let number: usize = number.parse().unwrap();
        assert!(before.is_none_or(|before| before < number), "{number} came after {before:?}");
        assert_eq!(rest.len(), number % 90, "half a line was dropped");
        before = Some(number);
        count += 1;
        if number == last {
            break;
        }
    }
    assert_eq!(before, Some(last), "the newest is there");
    count
}

#[test]
fn a_flood_ends_who_does_not_read_and_nobody_else() {
    const LINES: usize = 200_000;
    let stage = Stage::chat(Service::options().outbox(256 * 1024, SlowConsumer::Disconnect));
    let (speaker, own) = stage.enter();
    let (late, link) = stage.enter();
    small_buffers([&late, &late]);
    let mut writer = speaker.try_clone().unwrap();
    let mut heard = BufReader::new(speaker);
    // As much at a time as its own outbox takes.
    let all = lines(LINES);
    let mut lines = all.lines();
    let mut line = String::new();
    loop {
        let some: Vec<&str> = lines.by_ref().take(500).collect();
        if some.is_empty() {
            break;
        }
        writer.write_all((some.join("\n") + "\n").as_bytes()).unwrap();
        for expected in some {
            line.clear();
            heard.read_line(&mut line).unwrap();
            assert_eq!(line.trim_end_matches('\n'), expected);
        }
    }
    assert_eq!(next(&stage.reasons), "SlowConsumer");
    assert!(!link.is_open() && own.is_open());
    drop(late);
}

#[test]
fn an_outbox_of_a_few_lines_is_not_filled_by_coalescing() {
    // The peer reads; what could have gone out never makes it a slow one.
    const LINES: usize = 300;
    for policy in [SlowConsumer::Disconnect, SlowConsumer::DropOldest] {
        let stage = Stage::chat(Service::options().outbox(400, policy));
        let (mut socket, link) = stage.enter();
        let expected = lines(LINES);
        socket.write_all(expected.as_bytes()).unwrap();
        assert!(read_exactly(&mut socket, expected.len()) == expected.as_bytes());
        assert_eq!(link.stats().dropped, 0);
    }
}

#[test]
fn coalescing_never_exceeds_the_memory_limit() {
    const LINES: usize = 5_000;
    const LIMIT: usize = 128 * 1024;
    let builder = Service::options().outbox(64 * 1024, SlowConsumer::Wait).memory_limit(LIMIT);
    let stage = Stage::chat(builder);
    let members: Vec<_> = (0..16).map(|_| stage.enter()).collect();
    let said = say(&members[0].0, lines(LINES));
    let expected = Arc::new(lines(LINES));
    let reading: Vec<_> = members
        .into_iter()
        .map(|(mut socket, _)| {
            let expected = expected.clone();
            thread::spawn(move || assert!(read_exactly(&mut socket, expected.len()) == expected.as_bytes()))
        })
        .collect();
    while reading.iter().any(|thread| !thread.is_finished()) {
        let used = stage.service.stats().memory.used_bytes;
        // Receives may exceed it by a quarter, sends by nothing.
        assert!(used <= LIMIT + LIMIT / 4, "{used}");
        thread::yield_now();
    }
    reading.into_iter().for_each(|thread| thread.join().unwrap());
    said.join().unwrap();
    eventually("nothing is kept", || stage.service.stats().memory.used_bytes == 0);
}

#[test]
fn members_who_end_their_side_in_a_flood_hear_whole_lines_up_to_it() {
    for round in 0..10 {
        let stage = Stage::chat(Service::options().outbox(1 << 20, SlowConsumer::Wait));
        let (speaker, _) = stage.enter();
        let members: Vec<_> = (0..4).map(|_| stage.enter()).collect();
        let text = lines(5_000);
        let said = say(&speaker, text.clone());
        let mut own = speaker.try_clone().unwrap();
        let length = text.len();
        let hearing = thread::spawn(move || read_exactly(&mut own, length));
        for (number, (mut socket, _)) in members.into_iter().enumerate() {
            let mut heard = vec![0; 1 + 1000 * number + 777 * round];
            socket.read_exact(&mut heard).unwrap();
            socket.shutdown(Shutdown::Write).unwrap();
            heard.extend(read_to_end(&mut socket));
            assert!(heard.ends_with(b"\n") && text.as_bytes().starts_with(&heard), "{} bytes", heard.len());
        }
        assert!(hearing.join().unwrap() == text.as_bytes());
        said.join().unwrap();
    }
}

#[test]
fn shutting_down_in_a_flood_sends_what_was_accepted() {
    let stage = Stage::chat(Service::options());
    let (mut speaker, _) = stage.enter();
    let (mut listener, _) = stage.enter();
    let text = lines(200);
    speaker.write_all(text.as_bytes()).unwrap();
    eventually("the last line is said", || stage.room.stats().broadcasts == 200);
    let room = stage.room.clone();
    let reading = thread::spawn(move || read_to_end(&mut listener));
    let own = thread::spawn(move || read_to_end(&mut speaker));
    let report = stage.service.shutdown(common::DEADLINE);
    assert_eq!((report.graceful, report.aborted), (2, 0));
    assert!(reading.join().unwrap() == text.as_bytes());
    assert!(own.join().unwrap() == text.as_bytes());
    assert!(room.is_empty());
}
