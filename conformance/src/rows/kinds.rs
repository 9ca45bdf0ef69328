//! What holds for operations of every kind: one of each outstanding, cancelled, closed and refused; and all of them at
//! once, in a race of ends.

use crate::kit::*;
use std::any::Any;
use std::io::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;
use wharf::{Buffer, Cancel, CompletionPort, FileMessage, OperationId};

const KEY: u64 = 7;

/// An operation that does not end by itself, and its device.
struct One {
    kind: &'static str,
    context: u64,
    id: OperationId,
    /// Closes the device; a timer has none.
    close: Option<Close>,
}

/// One of each kind, and what they need to stay outstanding.
struct All {
    operations: Vec<One>,
    _kept: Vec<Box<dyn Any>>,
}

type Close = Arc<dyn Fn() + Send + Sync>;

fn of_each_kind(b: &Bench, port: &Port) -> All {
    let mut operations = Vec::new();
    let mut add = |kind, context, id, close: Option<Close>| operations.push(One { kind, context, id, close });
    // First, since a connect has to fail before its stream can connect by a call that tells the operation's name.
    let (held, nobody) = dead_address();
    let (stream, deaf) = (port.connect(nobody, KEY, 0).unwrap(), b.deaf());
    assert!(next(port).error().is_some(), "nobody listens there");
    let id = pending(stream.connect(deaf.address, 1).unwrap());
    add("connect", 1, id, Some(Arc::new(move || stream.close())));
    let (stream, peer) = b.stream(port, KEY);
    let receiver = stream.clone();
    let close: Close = Arc::new(move || receiver.close());
    add("receive", 2, pending(stream.recv(vec![0; 4], 2).unwrap()), Some(close.clone()));
    add("readable", 3, pending(stream.readable(3).unwrap()), Some(close));
    let socket = port.bind("127.0.0.1:0", KEY).unwrap();
    let id = pending(socket.recv_from(vec![0; 4], 4).unwrap());
    add("receive of a datagram", 4, id, Some(Arc::new(move || socket.close())));
    let listener = port.listen("127.0.0.1:0", KEY).unwrap();
    let id = pending(listener.accept(5).unwrap());
    add("accept", 5, id, Some(Arc::new(move || listener.close())));
    let (stream, other) = b.narrow(port, KEY);
    let sender = stream.clone();
    let close: Close = Arc::new(move || sender.close());
    add("half-sent send", 6, pending(stream.send(vec![7; MUCH], 6).unwrap()), Some(close.clone()));
    add("send behind it", 7, pending(stream.send("behind", 7).unwrap()), Some(close.clone()));
    add("disconnect behind it", 8, pending(stream.disconnect(8).unwrap()), Some(close));
    let (stream, third) = b.narrow(port, KEY);
    let path = Temporary::with(vec![7; MUCH]);
    let file = std::fs::File::open(&path).unwrap();
    let id = pending(stream.send_file(FileMessage::new(file), 9).unwrap());
    add("half-sent file", 9, id, Some(Arc::new(move || stream.close())));
    add("timer", 10, port.timer(Duration::from_secs(600), KEY, 10).unwrap(), None);
    All { operations, _kept: vec![Box::new((held, deaf)), Box::new((peer, other, third)), Box::new(path)] }
}

/// Takes the packets of these contexts, in any order: each once, as cancelled, with its key; then none is left.
#[track_caller]
fn each_is_cancelled(port: &Port, mut contexts: Vec<u64>) {
    while !contexts.is_empty() {
        let packet = next(port);
        let at = contexts.iter().position(|&context| context == packet.context);
        let at = at.unwrap_or_else(|| panic!("a packet that is not expected any more: {packet:?}"));
        contexts.swap_remove(at);
        assert_eq!((packet.key, codes(&packet)), (KEY, (995, 995)), "{packet:?}");
    }
    quiet(port);
}

/// K-03, O-02: any thread cancels one of each kind, and each ends once, as cancelled.
pub fn each_can_be_cancelled(b: &Bench) {
    let port = b.port();
    let all = of_each_kind(b, &port);
    // What is behind another goes first, so that nothing else is ended by it.
    for one in all.operations.iter().rev() {
        let own = port.clone();
        let id = one.id;
        let cancelled = thread::spawn(move || own.cancel(id)).join().unwrap();
        assert_eq!(cancelled, Cancel::Requested, "{}", one.kind);
        let packet = next(&port);
        assert_eq!((packet.key, packet.context, codes(&packet)), (KEY, one.context, (995, 995)), "{}", one.kind);
        assert_eq!(port.cancel(id), Cancel::TooLate, "{}: it has ended", one.kind);
    }
    quiet(&port);
}

/// K-11, K-12, O-02: a close ends those of each kind, each once, with key and context.
pub fn each_ends_by_closing(b: &Bench) {
    let port = b.port();
    let all = of_each_kind(b, &port);
    all.operations.iter().filter_map(|one| one.close.as_ref()).for_each(|close| close());
    let closed = all.operations.iter().filter(|one| one.close.is_some());
    each_is_cancelled(&port, closed.map(|one| one.context).collect());
}

/// K-01: operations of every kind end by themselves, by a cancel and by a close, in a race; each has one packet.
pub fn race_of_ends(b: &Bench) {
    const ROUNDS: usize = 60;
    /// More than there are in a round.
    const STEP: u64 = 20;
    let port = b.limited(3);
    let packets: Arc<Vec<AtomicU32>> =
        Arc::new((0..ROUNDS * STEP as usize).map(|_| AtomicU32::new(0)).collect::<Vec<_>>());
    let own = packets.clone();
    let crew = Crew::start(&port, 3, move |_, packet| {
        own[packet.context as usize].fetch_add(1, Ordering::SeqCst);
    });
    let mut accepted = vec![false; ROUNDS * STEP as usize];
    let mut random = fastrand::Rng::with_seed(3);
    let content = Temporary::with(pattern(1 << 18, 5));
    for round in 0..ROUNDS {
        let first = round as u64 * STEP;
        let mut ids = Vec::new();
        let mut issued = |number: u64, id: Option<OperationId>| {
            accepted[(first + number) as usize] = id.is_some();
            ids.extend(id);
        };
        let (stream, peer) = b.narrow(&port, KEY);
        issued(0, stream.recv(vec![0; 100], first).ok().map(pending));
        issued(1, stream.readable(first + 1).ok().map(pending));
        issued(2, stream.recv(vec![0; 100], first + 2).ok().map(pending));
        issued(3, stream.send(vec![7; 400_000], first + 3).ok().map(pending));
        let file = std::fs::File::open(&content).unwrap();
        issued(4, stream.send_file(FileMessage::new(file), first + 4).ok().map(pending));
        issued(5, stream.disconnect(first + 5).ok().map(pending));
        let socket = port.bind("127.0.0.1:0", KEY).unwrap();
        let mail_to = socket.local_addr().unwrap();
        issued(6, socket.recv_from(vec![0; 100], first + 6).ok().map(pending));
        issued(7, socket.recv_from(vec![0; 100], first + 7).ok().map(pending));
        issued(8, socket.send_to("x", mail_to, first + 8).ok().map(pending));
        let listener = port.listen("127.0.0.1:0", KEY).unwrap();
        let client_to = listener.local_addr().unwrap();
        issued(9, listener.accept(first + 9).ok().map(pending));
        issued(10, listener.accept(first + 10).ok().map(pending));
        let milliseconds = random.u64(0..3);
        issued(11, port.timer(Duration::from_millis(milliseconds), KEY, first + 11).ok());
        let path = Temporary::with(pattern(100_000, 6));
        let file = port.open(&path, std::fs::OpenOptions::new().read(true).write(true), KEY).unwrap();
        issued(12, file.write_at(vec![7; 50_000], 10, first + 12).ok().map(pending));
        issued(13, file.sync(first + 13).ok().map(pending));
        issued(14, file.read_at(vec![0; 50_000], 0, first + 14).ok().map(pending));
        random.shuffle(&mut ids);
        let (closes, resets) = (random.bool(), random.bool());
        let mail = b.mail();
        thread::scope(|scope| {
            let port = &port;
            let ids = &ids;
            scope.spawn(move || {
                let _ = (&peer).write_all(&[1; 150]);
                mail.send_to(b"mail", mail_to);
                drop(b.connect(client_to));
                let mut space = vec![0; 100_000];
                peer.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                let _ = std::io::Read::read(&mut &peer, &mut space);
                if resets {
                    peer.reset_when_closed();
                }
            });
            scope.spawn(move || ids.iter().for_each(|&id| _ = port.cancel(id)));
            if closes {
                stream.close();
                listener.close();
                socket.close();
                file.close();
            }
        });
        // The last handles of those that were not closed go here.
    }
    let expected = accepted.iter().filter(|&&accepted| accepted).count();
    let total = || packets.iter().map(|count| count.load(Ordering::SeqCst) as usize).sum::<usize>();
    eventually("every operation has its packet", || total() >= expected);
    thread::sleep(WHILE);
    for (number, (count, accepted)) in packets.iter().zip(accepted).enumerate() {
        let (count, kind) = (count.load(Ordering::SeqCst), number as u64 % STEP);
        assert_eq!(count, u32::from(accepted), "packets of operation {kind} of round {}", number as u64 / STEP);
    }
    b.note(format!("{expected} operations of all kinds, a packet each"));
    drop(crew);
}

/// O-04: each call, on a device that is closed and then on a closed port, is refused, and all that was given comes
/// back.
pub fn each_call_is_refused(b: &Bench) {
    for closed_port in [false, true] {
        let port: CompletionPort<u64, Arc<()>> = b.build(b.options()).unwrap();
        let mark = Arc::new(());
        let (server, _peer) = b.pair();
        let stream = port.associate(server, 1).unwrap();
        let socket = port.bind("127.0.0.1:0", 2).unwrap();
        let listener = port.listen("127.0.0.1:0", 3).unwrap();
        let path = Temporary::with("content");
        let file = port.open(&path, std::fs::OpenOptions::new().read(true).write(true), 4).unwrap();
        if closed_port {
            port.close();
        } else {
            stream.close();
            socket.close();
            listener.close();
            file.close();
        }
        let to = SocketAddr::from(([127, 0, 0, 1], 9));
        let given = || Buffer::from(vec![5; 3]);
        let context = || mark.clone();
        let mut accepted = Vec::new();
        // A buffer has to come back as it was.
        let mut call = |name: &'static str, refused: Option<Option<Buffer>>| match refused {
            Some(None) => {}
            Some(Some(buffer)) => assert_eq!((&buffer[..], buffer.capacity()), (&[5; 3][..], 3), "{name}"),
            None => accepted.push(name),
        };
        let file_message = || FileMessage::new(std::fs::File::open(&path).unwrap());
        call("recv", stream.recv(given(), context()).err().map(|refused| Some(refused.buffer)));
        call("recv_pooled", stream.recv_pooled(context()).err().map(|_| None));
        call("readable", stream.readable(context()).err().map(|_| None));
        call("send", stream.send(given(), context()).err().map(|refused| Some(refused.buffer)));
        let vectored = stream.send_vectored(vec![given()], context());
        call("send_vectored", vectored.err().map(|mut refused| refused.buffer.pop()));
        call("send_file", stream.send_file(file_message(), context()).err().map(|_| None));
        call("disconnect", stream.disconnect(context()).err().map(|_| None));
        call("connect", stream.connect(to, context()).err().map(|_| None));
        call("accept", listener.accept(context()).err().map(|_| None));
        call("recv_from", socket.recv_from(given(), context()).err().map(|refused| Some(refused.buffer)));
        call("recv_from_pooled", socket.recv_from_pooled(context()).err().map(|_| None));
        call("send_to", socket.send_to(given(), to, context()).err().map(|refused| Some(refused.buffer)));
        call("send of a datagram", socket.send(given(), context()).err().map(|refused| Some(refused.buffer)));
        let mut many = socket.send_to_many([(given(), to, context())]);
        call("send_to_many", many.pop().and_then(Result::err).map(|refused| Some(refused.buffer)));
        let mut many = socket.recv_from_many([(given(), context())]);
        call("recv_from_many", many.pop().and_then(Result::err).map(|refused| Some(refused.buffer)));
        call("read_at", file.read_at(given(), 0, context()).err().map(|refused| Some(refused.buffer)));
        call("write_at", file.write_at(given(), 0, context()).err().map(|refused| Some(refused.buffer)));
        call("append", file.append(given(), context()).err().map(|refused| Some(refused.buffer)));
        call("sync", file.sync(context()).err().map(|_| None));
        call("sync_data", file.sync_data(context()).err().map(|_| None));
        if closed_port {
            call("timer", port.timer(Duration::ZERO, 1, context()).err().map(|_| None));
            call("connect of the port", port.connect(to, 1, context()).err().map(|_| None));
            call("post", port.post(0, 1, context()).err().map(|_| None));
        } else {
            assert!(port.get_timeout(WHILE).is_err(), "nothing is queued");
        }
        assert!(
            accepted.is_empty(),
            "accepted, though {}: {accepted:?}",
            if closed_port { "the port is closed" } else { "closed" }
        );
        assert_eq!(Arc::strong_count(&mark), 1, "contexts of refused calls are the caller's again");
        assert_eq!(std::fs::read(&path).unwrap(), b"content");
    }
}
