//! Datagrams (U).

use crate::kit::*;
use crate::row::{How::*, Row, differs, must, not_offered, should};
use std::net::UdpSocket as StdUdp;
use std::thread;
use wharf::Event;
use wharf::error::ErrorExt;

pub const ROWS: &[Row] = &[
    must("U-01", "A receive takes one whole datagram; an empty one is a success of 0 bytes, and no end.", Test(whole)),
    must(
        "U-02",
        "A datagram longer than the buffer fills it, loses the rest, and says so: 234 port-side, 10040 in Winsock.",
        Test(too_long),
    ),
    should(
        "U-03",
        "A datagram that is too long and already there is told by the call and the packet.",
        differs("told once, by the packet (which O-06 allows)", told_once),
    ),
    should("U-04", "A receive without space consumes the datagram.", Test(zero_space)),
    must("U-05", "The packet says who sent the datagram.", Test(sender)),
    must(
        "U-06",
        "A receive on a socket that is neither bound nor connected is refused; a send binds it.",
        Test(unbound),
    ),
    must(
        "U-07",
        "A datagram longer than any is refused at once with 10040: nothing is sent or queued.",
        Test(oversize),
    ),
    must("U-08", "A datagram goes whole or not at all.", Test(no_partial)),
    should(
        "U-09",
        "A datagram that nobody wanted fails one receive, also of an unconnected socket: 1234 port-side, 10054 in Winsock; the next works.",
        differs(
            "so with `report_refusals`; without it only connected sockets hear of it, in a receive or a send (tested as U-10)",
            refusals_by_default,
        ),
    ),
    should("U-10", "The reporting of unreachable peers can be turned off.", Test(refusals)),
    must(
        "U-11",
        "On a stream the datagram calls work as the stream's.",
        differs(
            "a stream has no `recv_from`; the raw layer, which takes any device, refuses it as an invalid argument (EINVAL)",
            datagram_calls_of_a_stream,
        ),
    ),
    should(
        "U-12",
        "A connected socket takes only its peer's datagrams, and sends to it without an address.",
        Test(connected),
    ),
    should(
        "U-13",
        "A receive can bring control data, and say that it was cut.",
        not_offered("not offered, but for the lengths of receive offload"),
    ),
    must(
        "U-14",
        "Without a receive datagrams wait in the socket's buffer; what does not fit is dropped without a word.",
        Test(overflow),
    ),
    must(
        "U-15",
        "A datagram whose time to live ended surfaces as 10052.",
        differs(
            "10065: Linux has one number (`EHOSTUNREACH`) for an expired time to live and for a host that is away",
            time_to_live,
        ),
    ),
];

fn taken(port: &Port) -> (u64, std::io::Result<usize>, Vec<u8>, Option<std::net::SocketAddr>) {
    let packet = next(port);
    match packet.event {
        Event::ReceivedFrom { buffer, from, result, .. } => (packet.context, result, buffer.to_vec(), from),
        other => panic!("a datagram was expected: {other:?}"),
    }
}

fn whole(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    let (sender, to) = (b.mail(), socket.local_addr().unwrap());
    for content in [&b"one"[..], b"", b"three", b"", b"5"] {
        sender.send_to(content, to);
    }
    for (number, content) in [&b"one"[..], b"", b"three", b"", b"5"].into_iter().enumerate() {
        socket.recv_from(vec![0; 64], number as u64).unwrap();
        let (context, result, bytes, _) = taken(&port);
        assert_eq!((context, result.unwrap(), &bytes[..]), (number as u64, content.len(), content));
    }
}

fn too_long(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    let (sender, to) = (b.mail(), socket.local_addr().unwrap());
    socket.recv_from(Vec::with_capacity(4), 1).unwrap();
    sender.send_to(b"123456789", to);
    let packet = next(&port);
    assert_eq!(codes(&packet), (234, 10040));
    let Event::ReceivedFrom { buffer, result, .. } = packet.event else { panic!("a datagram was expected") };
    assert!(result.is_err());
    assert_eq!(&buffer[..], b"1234");
    socket.recv_from(vec![0; 64], 2).unwrap();
    sender.send_to(b"next", to);
    assert_eq!(taken(&port).2, b"next", "the rest of the long one is gone");
}

fn zero_space(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    let (sender, to) = (b.mail(), socket.local_addr().unwrap());
    sender.send_to(b"lost", to);
    sender.send_to(b"next", to);
    socket.recv_from(Vec::new(), 1).unwrap();
    assert_eq!(codes(&next(&port)), (234, 10040));
    socket.recv_from(vec![0; 64], 2).unwrap();
    assert_eq!(taken(&port).2, b"next");
}

/// A socket as the system makes it, which std never gives.
fn without_address() -> StdUdp {
    use rustix::net::{AddressFamily, SocketType, socket};
    StdUdp::from(socket(AddressFamily::INET, SocketType::DGRAM, None).unwrap())
}

fn unbound(b: &Bench) {
    let port = b.port();
    let socket = port.associate(without_address(), 1).unwrap();
    let refused = socket.recv_from(vec![0; 16], 1).expect_err("nothing could arrive");
    assert_eq!((refused.context, refused.error.winsock(), refused.buffer.len()), (1, 10022, 16));
    let refused = socket.recv_from_many([(vec![0; 16], 2)]);
    assert!(refused.iter().all(Result::is_err), "several are no different");
    quiet(&port);
    let receiver = b.mail();
    socket.send_to("x", receiver.local_addr(), 3).unwrap();
    assert!(matches!(next(&port).event, Event::SentTo { result: Ok(1), .. }));
    socket.recv_from(vec![0; 16], 4).unwrap();
    receiver.receive();
    receiver.send_to(b"back", ([127, 0, 0, 1], socket.local_addr().unwrap().port()).into());
    assert_eq!(taken(&port).2, b"back", "the send has bound it");
    let connected = port.associate(without_address(), 2).unwrap();
    connected.connect(receiver.local_addr()).unwrap();
    connected.recv_from(vec![0; 16], 5).unwrap();
    receiver.send_to(b"there", connected.local_addr().unwrap());
    assert_eq!(taken(&port).2, b"there", "and so does connecting");
}

fn sender(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    let to = socket.local_addr().unwrap();
    let senders = [b.mail(), b.mail(), b.mail()];
    for (number, sender) in senders.iter().enumerate() {
        socket.recv_from(vec![0; 64], number as u64).unwrap();
        sender.send_to(b"x", to);
        assert_eq!(taken(&port).3, Some(sender.local_addr()));
    }
}

fn oversize(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    let receiver = b.mail();
    let to = receiver.local_addr();
    let refused = socket.send_to(vec![1; 70_000], to, 5).expect_err("no datagram is so long");
    assert_eq!((refused.context, refused.error.winsock(), refused.buffer.len()), (5, 10040, 70_000));
    quiet(&port);
    socket.send_to("x", to, 6).unwrap();
    assert_eq!(receiver.receive(), b"x", "nothing came before this one");
}

fn no_partial(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    let receiver = b.mail();
    let to = receiver.local_addr();
    for length in [0, 1, 1400, 20_000, 60_000] {
        let content = pattern(length, 4);
        socket.send_to(content.clone(), to, 1).unwrap();
        let packet = next(&port);
        assert!(matches!(packet.event, Event::SentTo { result: Ok(all), .. } if all == length));
        assert!(receiver.receive() == content);
    }
    // So it is with 64 at once, and with a send buffer that has room for few of them: they wait, and go whole.
    const DATAGRAMS: u64 = 64;
    let socket = StdUdp::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_send_buffer_size(&socket, 8 * 1024).unwrap();
    let socket = port.associate(socket, 2).unwrap();
    let contents: Vec<Vec<u8>> = (0..DATAGRAMS).map(|number| pattern(1 + number as usize * 60, number)).collect();
    for (number, content) in (0..).zip(&contents) {
        socket.send_to(content.clone(), to, number).unwrap();
    }
    let mut sent = vec![false; contents.len()];
    for _ in 0..DATAGRAMS {
        let packet = next(&port);
        let number = packet.context as usize;
        let Event::SentTo { result, .. } = packet.event else { panic!("a datagram was sent") };
        assert_eq!(result.unwrap(), contents[number].len());
        assert!(!std::mem::replace(&mut sent[number], true));
    }
    // The receiver may have lost some; what it has is whole.
    receiver.set_time_out(WHILE);
    let mut came = 0;
    while let Some(bytes) = receiver.try_receive() {
        assert!(contents.contains(&bytes), "a part of a datagram: {} bytes", bytes.len());
        came += 1;
    }
    assert!(came > 0);
}

fn refusals(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    let gone = b.mail();
    let nobody = gone.local_addr();
    drop(gone);
    socket.report_refusals(true).unwrap();
    socket.recv_from(vec![0; 16], 1).unwrap();
    socket.send_to("x", nobody, 2).unwrap();
    let mut told = 0;
    for _ in 0..2 {
        let packet = next(&port);
        if packet.context == 1 {
            assert_eq!(codes(&packet), (1234, 10054));
            told += 1;
        }
    }
    assert_eq!(told, 1);
    socket.report_refusals(false).unwrap();
    socket.recv_from(vec![0; 16], 3).unwrap();
    socket.send_to("x", nobody, 4).unwrap();
    assert_eq!(next(&port).context, 4);
    assert!(port.get_timeout(WHILE).is_err(), "off: nobody is told");
    b.mail().send_to(b"works", socket.local_addr().unwrap());
    assert_eq!(taken(&port).2, b"works");
}

fn connected(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    let (peer, stranger) = (b.mail(), b.mail());
    let to = socket.local_addr().unwrap();
    socket.connect(peer.local_addr()).unwrap();
    stranger.send_to(b"stranger", to);
    peer.send_to(b"peer", to);
    socket.recv_from(vec![0; 16], 1).unwrap();
    assert_eq!(taken(&port).2, b"peer");
    socket.send("hello", 2).unwrap();
    assert_eq!(peer.receive(), b"hello");
}

fn overflow(b: &Bench) {
    const SENT: usize = 2000;
    let port = b.port();
    let socket = StdUdp::bind("127.0.0.1:0").unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(&socket, 16 * 1024).unwrap();
    let socket = port.associate(socket, 1).unwrap();
    let (sender, to) = (b.mail(), socket.local_addr().unwrap());
    (0..SENT).for_each(|_| sender.send_to(&[7; 100], to));
    thread::sleep(WHILE);
    quiet(&port);
    let mut came = 0;
    socket.recv_from(vec![0; 200], 0).unwrap();
    while let Ok(packet) = port.get_timeout(WHILE) {
        assert!(packet.error().is_none(), "what was dropped is no error");
        came += 1;
        socket.recv_from(vec![0; 200], 0).unwrap();
    }
    assert!(0 < came && came < SENT, "{came} of {SENT} came: some wait, the rest is dropped");
    sender.send_to(b"works", to);
    assert_eq!(taken(&port).2, b"works");
}

// --- What is done instead ---

/// U-03: the call says that it pends, and the packet tells.
fn told_once(b: &Bench) {
    let port = b.port();
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    b.mail().send_to(b"too long", socket.local_addr().unwrap());
    thread::sleep(WHILE);
    pending(socket.recv_from(Vec::with_capacity(4), 1).expect("it is no refusal"));
    assert_eq!(codes(&next(&port)), (234, 10040));
    quiet(&port);
}

/// U-09: without `report_refusals` a socket that is not connected hears nothing, and a connected one does.
fn refusals_by_default(b: &Bench) {
    let port = b.port();
    let gone = b.mail();
    let nobody = gone.local_addr();
    drop(gone);
    let socket = port.bind("127.0.0.1:0", 1).unwrap();
    socket.recv_from(vec![0; 16], 1).unwrap();
    socket.send_to("x", nobody, 2).unwrap();
    let packet = next(&port);
    assert!(packet.context == 2 && packet.error().is_none(), "{packet:?}");
    assert!(port.get_timeout(WHILE).is_err(), "nobody is told");
    b.mail().send_to(b"works", socket.local_addr().unwrap());
    assert_eq!(taken(&port).2, b"works");
    let connected = port.bind("127.0.0.1:0", 2).unwrap();
    connected.connect(nobody).unwrap();
    connected.recv_from(vec![0; 16], 3).unwrap();
    connected.send("x", 4).unwrap();
    let told = [next(&port), next(&port)].iter().filter(|packet| codes(packet) == (1234, 10054)).count();
    assert_eq!(told, 1, "one operation of a connected socket");
}

/// U-15: a time to live that ended is a host that is away.
fn time_to_live(_: &Bench) {
    use wharf::error::{Class, nt_status_of_number, winsock};
    if cfg!(windows) {
        not_tried("a network in which a time to live ends");
    }
    const EHOSTUNREACH: i32 = if cfg!(target_os = "linux") { 113 } else { 65 };
    assert_eq!(winsock(nt_status_of_number(EHOSTUNREACH, Class::Datagram)), 10065);
}

/// U-11, in the raw layer.
#[allow(unsafe_code)]
fn datagram_calls_of_a_stream(b: &Bench) {
    use wharf::raw::Sink;
    let port = b.raw();
    let (device, peer) = b.raw_stream(&port, 1);
    let memory = Memory::new(b"four");
    // SAFETY: `Memory` is never freed.
    let refused = unsafe {
        [
            port.receive_from(&device, memory.one(), 1, Sink::Port),
            port.send_to(&device, memory.one(), Some(peer.local_addr().unwrap()), 2, Sink::Port),
        ]
    };
    for refused in refused {
        assert_eq!(wharf::error::io_error(refused.expect_err("it is a stream")).winsock(), 10022);
    }
    raw_quiet(&port);
    port.close_device(&device);
}
