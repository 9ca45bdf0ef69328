//! What keeps a port's only thread busy does not hold back the rest: posts that beget posts, and sends that a peer
//! takes faster than their packets are.
//!
//! Nothing is concluded from the clock: the wait is told by the posts that were handled, or the packets that were
//! queued, meanwhile.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};
use wharf::{Buffer, CompletionPort};

type Port = CompletionPort<u64, u64>;

const BUSY: u64 = 0;
const TOLD: u64 = 1;
const ROUNDS: usize = 9;

fn port() -> Port {
    Port::options().concurrency(1).build().unwrap()
}

fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (client, listener.accept().unwrap().0)
}

fn compute(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// One thread handles a packet of 5 ms that posts itself anew. Something happens while it does. Returns how many of
/// these packets it handled before it was told.
fn handled_before(happen: impl FnOnce(&Port) -> Option<TcpStream>) -> usize {
    let port = port();
    let kept = happen(&port);
    port.post(0, 0, BUSY).unwrap();
    let mut handled = 0;
    loop {
        let packet = port.get().unwrap();
        if packet.context == TOLD {
            drop(kept);
            return handled;
        }
        compute(Duration::from_millis(5));
        handled += 1;
        port.post(0, 0, BUSY).unwrap();
    }
}

#[test]
fn a_socket_and_a_timer_do_not_wait_for_posts_that_beget_posts() {
    let receive = || {
        handled_before(|port| {
            let (mut client, server) = pair();
            let stream = port.associate(server, 1).unwrap();
            stream.recv(Buffer::with_capacity(8), TOLD).unwrap();
            // The port has seen that nothing is there.
            assert!(port.get_timeout(Duration::ZERO).is_err());
            client.write_all(b"x").unwrap();
            Some(client)
        })
    };
    let timer = || {
        handled_before(|port| {
            port.timer(Duration::from_millis(10), 1, TOLD).unwrap();
            None
        })
    };
    for (what, round) in [("a receive", &receive as &dyn Fn() -> usize), ("a timer of two packets", &timer)] {
        let mut handled: Vec<usize> = (0..ROUNDS).map(|_| round()).collect();
        handled.sort_unstable();
        // By count alone a poll comes after 64.
        assert!(handled[ROUNDS / 2] < 8, "{what} waited for so many packets of 5 ms: {handled:?}");
    }
}

#[test]
fn sends_that_a_peer_takes_do_not_hold_back_packets() {
    const SENDS: usize = 40_000;
    let port = port();
    let (mut peer, server) = pair();
    let stream = port.associate(server, 1).unwrap();
    for _ in 0..SENDS {
        stream.send(vec![7_u8; 200], BUSY).map_err(|refused| refused.error).unwrap();
    }
    let reader = thread::spawn(move || {
        let mut space = vec![0; 1 << 20];
        let mut left = SENDS * 200;
        while left > 0 {
            left -= peer.read(&mut space).unwrap();
        }
    });
    let mut most = 0;
    for _ in 0..SENDS {
        let before = port.stats().inserted;
        port.get().unwrap();
        most = most.max(port.stats().inserted - before);
    }
    reader.join().unwrap();
    // A few turns, of two calls at most. Without a limit all that the peer takes is queued first.
    assert!(most <= 2048, "{most} packets were queued while one was taken");
}
