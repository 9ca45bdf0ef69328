//! Waiting with a deadline, std's sockets and bytes: what the library's tests and the conformance suite both need.

use std::net::{TcpListener as StdListener, TcpStream as StdStream};
use std::thread;
use std::time::{Duration, Instant};

/// After so long a test that waits is stuck.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `holds` does, looking every millisecond.
///
/// # Panics
///
/// When it does not hold after [`DEADLINE`].
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "still not so after {DEADLINE:?}: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits like [`eventually`], but computes all the while: the thread is never blocked.
///
/// # Panics
///
/// As for [`eventually`].
#[track_caller]
pub fn spin_until(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "still not so after {DEADLINE:?}: {what}");
        std::hint::spin_loop();
    }
}

/// Computes for a while, without blocking.
pub fn burn(time: Duration) {
    let until = Instant::now() + time;
    while Instant::now() < until {
        std::hint::spin_loop();
    }
}

/// Both ends of a connection: the accepted one, then the one that connected.
///
/// # Panics
///
/// When the machine makes none.
pub fn pair() -> (StdStream, StdStream) {
    let listener = StdListener::bind("127.0.0.1:0").unwrap();
    let client = StdStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap(), "somebody else has connected");
    for end in [&client, &server] {
        // A test that fails must not hang.
        end.set_read_timeout(Some(DEADLINE)).unwrap();
        end.set_write_timeout(Some(DEADLINE)).unwrap();
    }
    (server, client)
}

/// Small buffers on both ends, so that a send of megabytes does not fit. Not smaller than this: the loopback device's
/// segments of 64 KiB would then each wait for a delayed acknowledgement.
///
/// # Panics
///
/// When the system refuses them.
pub fn small_buffers(ends: [&StdStream; 2]) {
    const BYTES: usize = 64 * 1024;
    for end in ends {
        rustix::net::sockopt::set_socket_send_buffer_size(end, BYTES).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(end, BYTES).unwrap();
    }
}

/// Bytes in which every position can be told from its neighbours.
pub fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}
