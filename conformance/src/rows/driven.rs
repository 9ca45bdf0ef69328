//! Where it shows that on Unix an operation goes on, and ends, while some thread is inside `get`, and not by itself:
//! for each row that says otherwise what Windows does, and what is done here.

use crate::kit::*;
use std::io::{Read, Write};
use std::net::TcpStream as StdStream;
use std::thread;
use std::time::Duration;
use wharf::Cancel;
use wharf::raw::{CompletionEvent, Sink};

/// A send that does not fit, while the only thread computes: what of it has come by then, which the peer reads all the
/// while.
fn sent_beside(b: &Bench, shut: bool) -> usize {
    let port = b.limited(1);
    let (stream, mut peer) = b.narrow(&port, 1);
    assert!(port.get_timeout(Duration::ZERO).is_err());
    stream.send(vec![7; MUCH], 1).unwrap();
    if shut {
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }
    let came = Count::default();
    let count = came.clone();
    let reader = thread::spawn(move || {
        let mut space = vec![0; 1 << 16];
        while let Ok(bytes @ 1..) = peer.read(&mut space) {
            count.add(bytes);
        }
    });
    burn(Duration::from_millis(300));
    let then = came.now();
    assert_eq!(sent(&port).1.unwrap(), MUCH, "and in the end it is sent");
    stream.close();
    reader.join().unwrap();
    assert_eq!(came.now(), MUCH);
    then
}

/// S-01 as on Windows.
pub fn send_goes_on(b: &Bench) {
    super::send::all_or_waiting(b);
    assert_eq!(sent_beside(b, false), MUCH, "bytes that came while the only thread computed");
}

/// K-20 as on Windows.
pub fn shut_send_goes_on(b: &Bench) {
    super::cancel::shutdown(b);
    assert_eq!(sent_beside(b, true), MUCH, "bytes that came while the only thread computed");
}

/// S-01 here.
pub fn send_stands_still(b: &Bench) {
    super::send::all_or_waiting(b);
    assert!(sent_beside(b, false) < MUCH, "all of it came, though nobody was inside get");
}

/// K-20 here.
pub fn shut_send_stands_still(b: &Bench) {
    super::cancel::shutdown(b);
    assert!(sent_beside(b, true) < MUCH, "all of it came, though nobody was inside get");
}

/// Data has come for a receive, and a client for an accept, and nobody has been inside `get` since: whether a cancel
/// comes too late, and how they end.
fn cancelled_after(b: &Bench) -> [(Cancel, bool); 2] {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    let name = pending(stream.recv(vec![0; 4], 1).unwrap());
    assert!(port.get_timeout(WHILE).is_err());
    peer.write_all(b"x").unwrap();
    thread::sleep(WHILE);
    let cancelled = stream.cancel(name);
    let receive = (cancelled, received(&port).1.is_ok());
    let listener = port.listen("127.0.0.1:0", 1).unwrap();
    let name = pending(listener.accept(1).unwrap());
    assert!(port.get_timeout(WHILE).is_err());
    let _client = b.connect(listener.local_addr().unwrap()).unwrap();
    thread::sleep(WHILE);
    let cancelled = listener.cancel(name);
    [receive, (cancelled, accepted(&port).1.is_ok())]
}

/// K-05.
pub fn too_late_to_cancel(b: &Bench) {
    super::cancel::too_late(b);
    assert_eq!(cancelled_after(b), [(Cancel::TooLate, true); 2], "they had ended by themselves");
}

/// A connection on which all that was sent is told, closed when data had come for the receive that is posted: how the
/// receive ends, and what the peer sees.
fn closed_after(b: &Bench) -> (u32, usize, std::io::Result<usize>) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.recv(vec![0; 64], 1).unwrap();
    assert!(port.get_timeout(WHILE).is_err());
    stream.send(pattern(50_000, 7), 2).unwrap();
    assert_eq!(sent(&port).1.unwrap(), 50_000);
    peer.write_all(b"more").unwrap();
    thread::sleep(WHILE);
    stream.close();
    let ended = codes(&next(&port)).0;
    let mut all = Vec::new();
    let end = peer.read_to_end(&mut all);
    (ended, all.len(), end)
}

/// K-11.
pub fn ended_before_the_close(b: &Bench) {
    super::cancel::close(b);
    assert_eq!(closed_after(b).0, 0, "the receive had its data before the close");
}

/// K-16.
pub fn end_behind_what_was_sent(b: &Bench) {
    super::cancel::linger(b);
    let (_, bytes, end) = closed_after(b);
    assert!(end.is_ok() && bytes == 50_000, "the peer read {bytes} bytes, then {end:?}");
}

/// Four receives whose data comes in another order than theirs, and posts behind it, before anybody is inside `get`.
fn in_which_order(b: &Bench) -> (Vec<u64>, Vec<u64>) {
    let port = b.port();
    let streams: Vec<_> = (0..4).map(|key| b.stream(&port, key)).collect();
    for (number, (stream, _)) in streams.iter().enumerate() {
        stream.recv(vec![0; 4], number as u64).unwrap();
    }
    for number in [2, 0, 3, 1] {
        (&streams[number].1).write_all(b"x").unwrap();
        thread::sleep(Duration::from_millis(5));
    }
    let order = (0..4).map(|_| received(&port).0).collect();
    streams[0].0.recv(vec![0; 4], 9).unwrap();
    assert!(port.get_timeout(WHILE).is_err());
    (&streams[0].1).write_all(b"x").unwrap();
    thread::sleep(WHILE);
    (10..13).for_each(|number| port.post(0, 0, number).unwrap());
    (order, (0..4).map(|_| next(&port).context).collect())
}

/// D-17 as on Windows.
pub fn order_of_ending(b: &Bench) {
    super::dequeue::completion_order(b);
    assert_eq!(in_which_order(b), (vec![2, 0, 3, 1], vec![9, 10, 11, 12]));
}

/// D-17 here.
pub fn order_of_looking(b: &Bench) {
    super::dequeue::completion_order(b);
    let (order, behind) = in_which_order(b);
    // On other engines than epoll any order is possible, that of completion, too.
    assert!(b.engine.sockets() != "epoll" || order == [0, 1, 2, 3], "not in the order of association: {order:?}");
    assert_eq!(behind, [10, 11, 12, 9], "the posts were queued when nobody had looked for the data");
}

/// A batch of a post and of a receive behind a full one, for which nothing more has come: what it says of its number,
/// and how many it has.
fn batch_with_nothing(b: &Bench) -> (usize, usize) {
    let port = b.port();
    let (stream, mut peer) = b.stream(&port, 1);
    stream.recv(Vec::with_capacity(4), 0).unwrap();
    peer.write_all(b"full").unwrap();
    assert_eq!(received(&port).0, 0);
    port.post(0, 0, 1).unwrap();
    stream.recv(vec![0; 4], 2).unwrap();
    let batch = port.get_many_timeout(8, DEADLINE).unwrap();
    (batch.len(), batch.count())
}

/// D-42 as on Windows.
pub fn batch_is_counted(b: &Bench) {
    super::dequeue::batch_fields(b);
    let (said, came) = batch_with_nothing(b);
    assert_eq!(said, came);
}

/// D-42 here.
pub fn batch_has_at_most(b: &Bench) {
    super::dequeue::batch_fields(b);
    assert_eq!(batch_with_nothing(b), (2, 1));
}

// --- Events ---

/// O-20, G-02: an event is signalled by a thread that is inside `get`.
pub fn event_wants_a_thread(b: &Bench) {
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let event = CompletionEvent::new();
    raw_receive(&port, &device, Memory::room(4).one(), 1, Sink::Event(event.clone())).unwrap();
    peer.write_all(b"x").unwrap();
    assert!(event.wait(Some(WHILE * 3)).is_none(), "it was signalled, though nobody is inside get");
    raw_quiet(&port);
    assert_eq!(event.wait(Some(DEADLINE)).map(|ended| (ended.token, ended.bytes)), Some((1, 1)));
}

/// O-20 here.
pub fn event_only(b: &Bench) {
    super::operations::event_only(b);
    event_wants_a_thread(b);
}

/// G-02 here.
pub fn wait(b: &Bench) {
    super::related::wait(b);
    event_wants_a_thread(b);
}

/// O-21 here: of two that wait for the event one is released.
pub fn one_is_released(b: &Bench) {
    super::operations::event_and_packet(b);
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let event = CompletionEvent::new();
    raw_receive(&port, &device, Memory::room(4).one(), 1, Sink::Both(event.clone())).unwrap();
    let waits = [0, 1].map(|_| {
        let event = event.clone();
        thread::spawn(move || event.wait(Some(WHILE * 10)).is_some())
    });
    thread::sleep(WHILE);
    peer.write_all(b"x").unwrap();
    raw_next(&port);
    let released = waits.map(|wait| wait.join().unwrap());
    assert_eq!(released.iter().filter(|&&released| released).count(), 1, "{released:?}");
}

/// O-22 here: an event that nobody has asked still tells of the operation before.
pub fn event_is_not_reset(b: &Bench) {
    super::operations::event_is_set(b);
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let event = CompletionEvent::new();
    raw_receive(&port, &device, Memory::room(4).one(), 1, Sink::Event(event.clone())).unwrap();
    peer.write_all(b"x").unwrap();
    raw_quiet(&port);
    raw_receive(&port, &device, Memory::room(4).one(), 2, Sink::Event(event.clone())).unwrap();
    raw_quiet(&port);
    assert_eq!(event.wait(Some(Duration::ZERO)).map(|told| told.token), Some(1), "issuing has reset it");
}

/// G-01 here: who asks a second time is told that it is outstanding.
pub fn told_once(b: &Bench) {
    super::related::ask(b);
    let port = b.raw();
    let (device, mut peer) = b.raw_stream(&port, 1);
    let event = CompletionEvent::new();
    raw_receive(&port, &device, Memory::room(4).one(), 1, Sink::Event(event.clone())).unwrap();
    peer.write_all(b"ab").unwrap();
    raw_quiet(&port);
    let asked = [0, 1].map(|_| event.wait(Some(Duration::ZERO)).map(|ended| ended.bytes));
    assert_eq!(asked, [Some(2), None]);
}

// --- One connection, two descriptors ---

/// Both ends of a connection as the port sees them, and a duplicate of the first, in two ports: P-13, P-15 as on
/// Windows.
pub fn duplicate_is_refused(b: &Bench) {
    let (one, two) = (b.port(), b.port());
    let (server, _peer) = pair();
    let copy: StdStream = server.try_clone().unwrap();
    let _first = one.associate(server, 1).unwrap();
    assert!(two.associate(copy, 2).is_err(), "a duplicate of an associated socket is associated with another port");
}
