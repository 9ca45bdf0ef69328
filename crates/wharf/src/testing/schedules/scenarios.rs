//! Single scenarios on the fake engine: what a schedule may come to by chance, said by name.

use super::{RECEIVE_BYTES, disposed};
use crate::raw::{
    Buffers, Cancel, Completion, Config, DeviceKind, ECANCELED, FileEngine, GetError, Issued, Kind, OperationId,
    Payload, RawBuffer, Sink,
};
use crate::reactor::DeviceState;
use crate::reactor::Port;
use crate::reactor::engine::Engine;
use crate::sys::errno::{ECONNRESET, ESHUTDOWN};
use crate::testing::fake::{Call, Fake, When, pattern};
use crate::threads::Wake;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const EMFILE: i32 = 24;

type Planned = (Call, When, Box<dyn FnOnce() + Send>);

/// A port over an engine without faults, and what is to happen in the middle of a call.
#[derive(Clone)]
pub(super) struct Scene {
    pub(super) port: Port,
    pub(super) fake: Arc<Fake>,
    planned: Arc<Mutex<Vec<Planned>>>,
    receives: Arc<AtomicUsize>,
    pub(super) sends: Arc<AtomicUsize>,
}

impl Scene {
    pub(super) fn new() -> Scene {
        let config = Config {
            concurrency: 2,
            wake: Wake::Eager,
            pool_buffer_bytes: RECEIVE_BYTES,
            pool_keep: 2,
            files: FileEngine::default(),
            sockets: crate::raw::SocketEngine::Auto,
            dispose: disposed,
        };
        let fake = Arc::new(Fake::quiet());
        let engine = fake.clone();
        let port = Port::build(config, |_| Ok(Engine::of(engine))).expect("a timer descriptor");
        let planned = Arc::new(Mutex::new(Vec::<Planned>::new()));
        let (receives, sends) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (plan, received, sent) = (planned.clone(), receives.clone(), sends.clone());
        fake.hook(move |call, when| {
            match (call, when) {
                (Call::Receive, When::Before) => drop(received.fetch_add(1, Ordering::Relaxed)),
                (Call::Send, When::Before) => drop(sent.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            }
            let step = {
                let mut plan = plan.lock().unwrap();
                let at = plan.iter().position(|(planned, at, _)| (*planned, *at) == (call, when));
                at.map(|at| plan.remove(at).2)
            };
            step.into_iter().for_each(|step| step());
        });
        Scene { port, fake, planned, receives, sends }
    }

    /// Runs `step` in the middle of the next such call.
    pub(super) fn during(&self, call: Call, when: When, step: impl FnOnce(&Scene) + Send + 'static) {
        let scene = self.clone();
        self.planned.lock().unwrap().push((call, when, Box::new(move || step(&scene))));
    }

    /// How often a receive was tried.
    pub(super) fn receives(&self) -> usize {
        self.receives.load(Ordering::Relaxed)
    }

    /// A connected device, whose peer leaves up to `capacity` bytes unread; first readiness was taken.
    pub(super) fn connected(&self, capacity: usize) -> (Arc<DeviceState>, usize) {
        let (handle, connection) = self.fake.connected(capacity);
        let device = self.port.take_over(handle, DeviceKind::Stream, 7).unwrap();
        assert!(self.get().is_none());
        (device, connection)
    }

    pub(super) fn get(&self) -> Option<Completion> {
        match self.port.get(Some(Duration::ZERO)) {
            Ok(completion) => Some(completion),
            Err(empty) => {
                assert_eq!(empty, GetError::TimedOut);
                None
            }
        }
    }

    pub(super) fn got(&self) -> Completion {
        self.get().expect("a packet")
    }

    #[allow(unsafe_code)]
    pub(super) fn receive(
        &self,
        device: &Arc<DeviceState>,
        memory: &'static [AtomicU8],
        token: usize,
    ) -> Result<Issued, i32> {
        // SAFETY: nobody else writes this memory, which is never freed.
        unsafe { self.port.receive(device, Buffers::One(raw(memory)), token, Sink::Port) }
    }

    #[allow(unsafe_code)]
    pub(super) fn send(
        &self,
        device: &Arc<DeviceState>,
        bytes: &'static [AtomicU8],
        token: usize,
    ) -> Result<Issued, i32> {
        // SAFETY: the memory does not change and is never freed.
        unsafe { self.port.send(device, Buffers::One(raw(bytes)), token, Sink::Port) }
    }
}

pub(super) fn memory(bytes: usize) -> &'static [AtomicU8] {
    Vec::leak((0..bytes).map(|at| AtomicU8::new(at as u8)).collect())
}

pub(super) fn raw(memory: &'static [AtomicU8]) -> RawBuffer {
    RawBuffer { pointer: memory.as_ptr().cast_mut().cast(), length: memory.len() }
}

fn holds(memory: &[AtomicU8], connection: usize, from: u64) -> bool {
    memory.iter().zip(from..).all(|(byte, at)| byte.load(Ordering::Relaxed) == pattern(connection, at))
}

pub(super) fn id(issued: Result<Issued, i32>) -> OperationId {
    match issued {
        Ok(Issued::Pending(id)) => id,
        other => panic!("{other:?}"),
    }
}

#[test]
fn data_and_the_end_in_one_event_are_reported_as_both() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(64);
    let buffer = memory(32);
    scene.receive(&device, buffer, 1).unwrap();
    scene.fake.peer_writes(connection, 5);
    scene.fake.peer_finishes(connection);
    assert_eq!(scene.got().bytes, 5);
    assert!(holds(&buffer[..5], connection, 0));
    scene.receive(&device, memory(32), 2).unwrap();
    let end = scene.got();
    assert_eq!((end.token, end.bytes, end.error), (2, 0, 0), "the end gives no further event");
}

#[test]
fn an_edge_during_a_turn_is_not_lost() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(64);
    scene.fake.peer_writes(connection, 1);
    scene.receive(&device, memory(1), 1).unwrap();
    assert_eq!(scene.got().bytes, 1);
    // The buffer was full, so the next receive tries at once, and finds nothing; then data comes and is polled.
    scene.receive(&device, memory(8), 2).unwrap();
    scene.during(Call::Receive, When::After, move |scene| {
        scene.fake.peer_writes(connection, 3);
        assert!(scene.get().is_none());
    });
    let received = scene.got();
    assert_eq!((received.token, received.bytes), (2, 3));
}

#[test]
fn space_that_comes_while_a_send_runs_is_not_lost() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(4);
    scene.during(Call::Send, When::After, move |scene| {
        scene.fake.peer_reads(connection, 4);
        assert!(scene.get().is_none());
    });
    scene.send(&device, memory(8), 1).unwrap();
    let sent = scene.got();
    assert_eq!((sent.bytes, sent.error), (8, 0));
}

#[test]
fn a_cancelled_running_send_completes_once() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(4);
    let cancelled = device.clone();
    scene.during(Call::Send, When::After, move |scene| assert_eq!(scene.port.cancel_all(&cancelled), 1));
    scene.send(&device, memory(10), 1).unwrap();
    let end = scene.got();
    assert_eq!((end.bytes, end.error), (4, ECANCELED), "what went out is told");
    assert!(scene.get().is_none());
    assert_eq!(scene.fake.sent(connection), [0, 1, 2, 3]);
    scene.fake.peer_reads(connection, 4);
    assert!(scene.get().is_none(), "nothing of it is left");
}

#[test]
fn a_cancelled_running_receive_that_finds_nothing_ends() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(4);
    let operation = id(scene.receive(&device, memory(4), 1));
    scene.fake.peer_writes(connection, 1);
    scene.fake.fail_next(Call::Receive, 11);
    scene.during(Call::Receive, When::After, move |scene| {
        assert_eq!(scene.port.cancel(operation), Cancel::Requested);
    });
    assert_eq!(scene.got().error, ECANCELED);
    assert_eq!(scene.port.cancel(operation), Cancel::TooLate);
}

#[test]
fn a_device_closed_during_a_call_keeps_its_handle_to_the_end_of_it() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(4);
    scene.receive(&device, memory(4), 1).unwrap();
    scene.receive(&device, memory(4), 2).unwrap();
    scene.fake.peer_writes(connection, 2);
    let handle = device.handle();
    scene.during(Call::Receive, When::Before, move |scene| {
        scene.port.close_device(&device);
        assert!(scene.fake.is_open(handle));
    });
    let mut ends = [scene.got(), scene.got()].map(|end| (end.token, end.bytes, end.error));
    ends.sort_unstable();
    assert_eq!(ends, [(1, 2, 0), (2, 0, ECANCELED)]);
    assert!(!scene.fake.is_open(handle));
    assert!(scene.get().is_none());
}

#[test]
fn a_late_event_does_not_reach_the_next_device_of_the_same_handle() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(4);
    scene.fake.peer_writes(connection, 2);
    let old = device.handle();
    scene.during(Call::Poll, When::After, move |scene| {
        scene.port.close_device(&device);
        let (handle, _) = scene.fake.connected(4);
        assert_eq!(handle, old, "the number is used again at once");
        let next = scene.port.take_over(handle, DeviceKind::Stream, 8).unwrap();
        scene.receive(&next, memory(4), 1).unwrap();
    });
    assert!(scene.get().is_none());
    assert_eq!(scene.receives.load(Ordering::Relaxed), 0);
}

#[test]
#[allow(unsafe_code)]
fn more_pieces_than_one_call_takes_are_sent_and_received() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(1000);
    let bytes = memory(150);
    let pieces = |memory: &'static [AtomicU8]| {
        let empty = std::iter::repeat_n(RawBuffer { pointer: memory.as_ptr().cast_mut().cast(), length: 0 }, 70);
        Buffers::Many(empty.chain(memory.chunks(1).map(raw)).collect())
    };
    // SAFETY: the memory does not change and is never freed.
    unsafe { scene.port.send(&device, pieces(bytes), 1, Sink::Port) }.unwrap();
    assert_eq!((scene.got().bytes, scene.fake.sent(connection).len()), (150, 150));

    scene.fake.peer_writes(connection, 150);
    let [first, second] = [memory(100), memory(100)];
    for (token, buffer) in [(2, first), (3, second)] {
        // SAFETY: nobody else writes this memory, which is never freed.
        unsafe { scene.port.receive(&device, pieces(buffer), token, Sink::Port) }.unwrap();
    }
    let mut at = 0;
    for (token, buffer) in [(2, first), (3, second)] {
        let received = scene.got();
        assert_eq!((received.token, received.error), (token, 0));
        assert!(received.bytes > 0 && holds(&buffer[..received.bytes], connection, at));
        at += received.bytes as u64;
    }
}

#[test]
fn a_listener_without_descriptors_goes_on_when_one_is_closed_or_after_a_while() {
    let scene = Scene::new();
    let listener = scene.fake.listening();
    let device = scene.port.take_over(listener, DeviceKind::Listener, 1).unwrap();
    let (other, _) = scene.connected(4);
    let closed = |token| {
        scene.fake.peer_connects(listener, 4);
        assert!(scene.get().is_none());
        scene.fake.fail_next(Call::Accept, EMFILE);
        scene.port.accept(&device, token, Sink::Port).unwrap();
        assert!(scene.get().is_none(), "the listener has had its edge");
    };
    closed(1);
    scene.port.close_device(&other);
    assert_eq!(scene.got().kind, Kind::Accepted);
    closed(2);
    scene.fake.advance(Duration::from_millis(100));
    let accepted = scene.got();
    assert!(matches!(accepted.payload, Payload::Accepted(_)) && accepted.token == 2);
}

#[test]
fn a_send_issued_while_the_side_is_being_shut_is_refused() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(64);
    let same = device.clone();
    scene.during(Call::Shutdown, When::After, move |scene| {
        assert_eq!(scene.send(&same, memory(3), 2).unwrap_err(), ESHUTDOWN);
        assert_eq!(scene.port.disconnect(&same, 3, Sink::Port).unwrap_err(), ESHUTDOWN);
    });
    scene.port.disconnect(&device, 1, Sink::Port).unwrap();
    assert_eq!((scene.got().kind, scene.get().is_none()), (Kind::Disconnected, true));
    // The connection is not taken for broken: it can be received from.
    scene.receive(&device, memory(8), 4).unwrap();
    scene.fake.peer_writes(connection, 8);
    assert_eq!((scene.got().bytes, scene.fake.view(connection).shut), (8, true));
}

#[test]
fn a_failure_inside_the_issuing_call_comes_before_the_next_receive() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(64);
    device.skip_on_success();
    scene.fake.peer_resets(connection, true);
    assert!(scene.get().is_none());
    let same = device.clone();
    scene.during(Call::Receive, When::After, move |scene| drop(scene.receive(&same, memory(4), 2).unwrap()));
    id(scene.receive(&device, memory(4), 1));
    assert_eq!([scene.got(), scene.got()].map(|end| (end.token, end.error)), [(1, ECONNRESET), (2, ECONNRESET)]);
}

#[test]
fn a_reset_fails_all_receives_and_refuses_later_ones() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(64);
    for token in 0..4 {
        scene.receive(&device, memory(if token == 1 { 0 } else { 4 }), token).unwrap();
    }
    scene.fake.peer_writes(connection, 3);
    scene.fake.peer_resets(connection, false);
    assert_eq!(scene.got().bytes, 3, "what came before the reset is received");
    for token in 1..4 {
        let failed = scene.got();
        assert_eq!((failed.token, failed.error), (token, ECONNRESET));
    }
    assert_eq!(scene.receive(&device, memory(4), 5).unwrap_err(), ECONNRESET);
    assert_eq!(scene.send(&device, memory(4), 6).unwrap_err(), ECONNRESET);
}

#[test]
fn a_reset_that_a_running_send_has_fetched_is_no_end_of_the_stream() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(64);
    scene.receive(&device, memory(4), 1).unwrap();
    scene.fake.peer_resets(connection, true);
    // The system reports the reset to the send only, and the end of the stream to the receive.
    scene.during(Call::Send, When::After, |scene| assert!(scene.get().is_none()));
    scene.send(&device, memory(4), 2).unwrap();
    let mut ends = [scene.got(), scene.got()].map(|end| (end.token, end.error));
    ends.sort_unstable();
    assert_eq!(ends, [(1, ECONNRESET), (2, ECONNRESET)]);
}

#[test]
fn data_behind_an_urgent_mark_is_received() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(64);
    scene.fake.peer_writes(connection, 4);
    scene.fake.peer_urges(connection);
    scene.fake.peer_writes(connection, 5);
    assert!(scene.get().is_none());
    for token in 1..3 {
        scene.receive(&device, memory(16), token).unwrap();
    }
    assert_eq!([scene.got(), scene.got()].map(|end| end.bytes), [4, 5], "a receive ends at the mark, once");
}

#[test]
fn a_zero_byte_receive_does_not_complete_on_stale_readiness() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(64);
    scene.fake.peer_writes(connection, 4);
    scene.receive(&device, memory(4), 1).unwrap();
    assert_eq!(scene.got().bytes, 4);
    scene.receive(&device, memory(0), 2).unwrap();
    assert!(scene.get().is_none(), "the direction is maybe ready, and nothing is there");
    scene.fake.peer_writes(connection, 1);
    assert_eq!(scene.got().kind, Kind::Readable);
    assert_eq!(scene.fake.view(connection).taken, 4);
}

#[test]
fn a_device_closed_while_a_connect_begins_is_closed_all_the_same() {
    for (call, when) in [(Call::Connect, When::After), (Call::Register, When::Before), (Call::Register, When::After)] {
        let scene = Scene::new();
        let peer = SocketAddr::from(([127, 0, 0, 1], 7));
        let device = scene.port.open_stream(&peer, 1).unwrap();
        let same = device.clone();
        scene.during(call, when, move |scene| {
            assert_eq!(scene.port.give_up(&same).unwrap_err(), 16, "a call is under way");
            scene.port.close_device(&same);
        });
        scene.port.connect(&device, &peer, 1, Sink::Port).unwrap();
        assert_eq!((scene.got().error, scene.get().is_none()), (ECANCELED, true));
        assert_eq!(scene.fake.open_handles(), [], "closed {when:?} {call:?}");
    }
}

#[test]
fn a_connect_that_follows_a_cancelled_one_has_its_turn_alone() {
    let scene = Scene::new();
    let peer = SocketAddr::from(([127, 0, 0, 1], 7));
    let device = scene.port.open_stream(&peer, 1).unwrap();
    let handle = device.handle();
    scene.during(Call::Register, When::After, move |scene| {
        scene.fake.end_connect(handle, true, 4);
        assert!(scene.get().is_none(), "the event comes while the connect is being issued");
    });
    let first = id(scene.port.connect(&device, &peer, 1, Sink::Port));
    assert_eq!(scene.port.cancel(first), Cancel::Requested);
    // The queue still has an entry for the first.
    scene.during(Call::Connect, When::After, |scene| {
        let cancelled = scene.got();
        assert_eq!((cancelled.token, cancelled.error), (1, ECANCELED));
    });
    id(scene.port.connect(&device, &peer, 2, Sink::Port));
    assert!(scene.get().is_none());
    scene.fake.end_connect(handle, true, 4);
    let connected = scene.got();
    assert_eq!((connected.token, connected.error), (2, 0));
}

#[test]
fn a_finished_receive_is_too_late_to_cancel_while_sends_run() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(4);
    // Two sends that will be gathered, and between them a receive, which completes.
    scene.send(&device, memory(6), 1).unwrap();
    scene.send(&device, memory(1), 2).unwrap();
    let receive = id(scene.receive(&device, memory(1), 3));
    scene.fake.peer_writes(connection, 1);
    assert_eq!(scene.got().token, 3);
    scene.send(&device, memory(1), 4).unwrap();
    let same = device.clone();
    scene.during(Call::Send, When::Before, move |scene| {
        assert_eq!(scene.port.cancel(receive), Cancel::TooLate);
        assert_eq!(scene.port.devices()[0].pending, (0, 3));
        assert_eq!(scene.port.cancel_all(&same), 3);
    });
    scene.fake.peer_reads(connection, 4);
    assert_eq!([scene.got(), scene.got(), scene.got()].map(|end| end.error), [0, 0, 0], "all fit meanwhile");
}
