//! How much a turn does, and what the next one begins with, on the fake engine: counted, not timed.

use super::scenarios::{Scene, id, memory, raw};
use crate::raw::{Buffers, Issued, Kind, Part, Post, RawBuffer, Sink};
use crate::reactor::DeviceState;
use crate::sync::Arc;
use crate::sys::errno::ECONNRESET;
use crate::testing::fake::{Call, When};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What one turn may move.
const TURN: usize = 1024 * 1024;
const MUCH: usize = 8 * TURN;

/// Bytes that were sent when the issuing call has returned: it has had one turn.
fn first_turn(scene: &Scene, connection: usize) -> usize {
    scene.fake.sent(connection).len()
}

/// Takes the one packet that is expected.
fn ends_with(scene: &Scene, bytes: usize) {
    let packet = scene.got();
    assert_eq!((packet.bytes, packet.error), (bytes, 0));
    assert!(scene.get().is_none());
}

#[allow(unsafe_code)]
fn send_many(scene: &Scene, device: &Arc<DeviceState>, pieces: Vec<RawBuffer>) -> Result<Issued, i32> {
    // SAFETY: the memory does not change and is never freed.
    unsafe { scene.port.send(device, Buffers::Many(pieces.into()), 1, Sink::Port) }
}

#[test]
fn a_turn_of_a_send_is_bounded_by_bytes() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(usize::MAX / 2);
    scene.send(&device, memory(MUCH), 1).unwrap();
    let first = first_turn(&scene, connection);
    assert!((1..=TURN).contains(&first), "{first} bytes in one turn");
    ends_with(&scene, MUCH);

    let pieces = (0..8).map(|_| raw(memory(MUCH / 8))).collect();
    send_many(&scene, &device, pieces).unwrap();
    let first = first_turn(&scene, connection) - MUCH;
    assert!((1..=TURN).contains(&first), "{first} bytes in one turn");
    ends_with(&scene, MUCH);
}

#[test]
#[allow(unsafe_code)]
fn a_turn_of_a_send_of_a_file_to_a_peer_that_never_fills_is_bounded_by_bytes() {
    let path = std::env::temp_dir().join(format!("wharf-turn-{}-{:x}", std::process::id(), fastrand::u64(..)));
    std::fs::write(&path, vec![3; MUCH]).unwrap();
    let file = std::fs::File::open(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let scene = Scene::new();
    let (device, connection) = scene.connected(usize::MAX / 2);
    let part = Part::File { handle: file.as_raw_fd(), offset: 0, length: MUCH as u64 };
    // SAFETY: the file is open to the end of the test.
    unsafe { scene.port.send_parts(&device, vec![part], 1, Sink::Port) }.unwrap();
    let first = first_turn(&scene, connection);
    assert!((1..=TURN).contains(&first), "{first} bytes in one turn");
    let packet = scene.port.get(Some(std::time::Duration::from_secs(30))).unwrap();
    assert_eq!((packet.bytes, packet.error), (MUCH, 0));
}

#[test]
fn a_send_of_very_many_pieces_takes_as_few_calls_as_the_system_lets_it() {
    const PIECES: usize = 160_000;
    let scene = Scene::new();
    let (device, connection) = scene.connected(usize::MAX / 2);
    let bytes = memory(PIECES);
    let pieces = bytes.chunks(1).map(raw).collect();
    send_many(&scene, &device, pieces).unwrap();
    ends_with(&scene, PIECES);
    let sent = scene.fake.sent(connection);
    assert!(sent.iter().zip(bytes).all(|(sent, given)| *sent == given.load(Ordering::Relaxed)));
    assert_eq!(scene.sends.load(Ordering::Relaxed), PIECES.div_ceil(1024));
}

#[test]
#[allow(unsafe_code)]
fn parts_that_lie_in_memory_go_together() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(usize::MAX / 2);
    let bytes = memory(5000);
    let parts = bytes.chunks(1).map(|piece| Part::Memory(raw(piece))).collect();
    // SAFETY: the memory does not change and is never freed.
    unsafe { scene.port.send_parts(&device, parts, 1, Sink::Port) }.unwrap();
    ends_with(&scene, 5000);
    let sent = scene.fake.sent(connection);
    assert!(sent.iter().zip(bytes).all(|(sent, given)| *sent == given.load(Ordering::Relaxed)));
    assert_eq!(scene.sends.load(Ordering::Relaxed), 5);
}

#[test]
fn a_reset_behind_a_connect_is_the_first_receives() {
    for written in [0, 5] {
        let scene = Scene::new();
        let peer = SocketAddr::from(([127, 0, 0, 1], 7));
        let device = scene.port.open_stream(&peer, 1).unwrap();
        id(scene.port.connect(&device, &peer, 1, Sink::Port));
        let connection = scene.fake.end_connect(device.handle(), true, 64).unwrap();
        scene.fake.peer_writes(connection, written);
        scene.fake.peer_resets(connection, false);
        let connected = scene.got();
        assert_eq!((connected.kind, connected.error), (Kind::Connected, 0), "it was made");
        if written > 0 {
            scene.receive(&device, memory(32), 2).unwrap();
            assert_eq!(scene.got().bytes, 5, "what came before the reset");
        }
        scene.receive(&device, memory(32), 3).unwrap();
        assert_eq!(scene.got().error, ECONNRESET);
        assert_eq!(scene.receive(&device, memory(32), 4).unwrap_err(), ECONNRESET);
        assert_eq!(scene.send(&device, memory(1), 5).unwrap_err(), ECONNRESET);
    }
}

#[test]
fn a_reset_that_the_connecting_call_is_told_is_the_first_receives() {
    let scene = Scene::new();
    let peer = SocketAddr::from(([127, 0, 0, 1], 7));
    let device = scene.port.open_stream(&peer, 1).unwrap();
    scene.fake.fail_next(Call::Connect, ECONNRESET);
    id(scene.port.connect(&device, &peer, 1, Sink::Port));
    let connected = scene.got();
    assert_eq!((connected.kind, connected.error), (Kind::Connected, 0));
    assert_eq!(scene.receive(&device, memory(32), 2).unwrap_err(), ECONNRESET);
    assert_eq!(scene.send(&device, memory(1), 3).unwrap_err(), ECONNRESET);
}

#[test]
fn a_packet_is_taken_between_turns_that_take_longer_than_a_tick() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(usize::MAX / 2);
    scene.send(&device, memory(MUCH), 1).unwrap();
    // A poll is due behind each.
    for _ in 0..MUCH / TURN {
        scene.during(Call::Send, When::After, |_| std::thread::sleep(Duration::from_millis(2)));
    }
    scene.port.post(Post { key: 0, token: 9, bytes: 0 }).unwrap();
    assert_eq!(scene.got().token, 9);
    let sent = scene.fake.sent(connection).len();
    assert!(sent <= 4 * TURN, "{sent} bytes were sent before the packet was taken");
}
