//! What has come for an operation is delivered, and not ended: by cancel, withdraw and close, whatever lies in the
//! queue at that moment.

use super::scenarios::{Scene, id, memory};
use crate::op::{Cancel, DeviceKind, Kind, OperationId, Payload, Sink, Withdrawal};
use crate::reactor::DeviceState;
use crate::sys::errno::ECANCELED;
use crate::testing::fake::{Call, When};
use std::sync::Arc;

/// Bytes have come for two receives of one device. Its side lies in the queue, or nobody has looked yet.
fn two_receives(is_queued: bool) -> (Scene, Vec<OperationId>, Arc<DeviceState>) {
    let scene = Scene::new();
    let (other, first) = scene.connected(64);
    let (device, connection) = scene.connected(64);
    let names = (1..=2).map(|token| id(scene.receive(&device, memory(8), token))).collect();
    if is_queued {
        scene.receive(&other, memory(8), 77).unwrap();
        scene.fake.peer_writes(first, 8);
    }
    scene.fake.peer_writes(connection, 16);
    if is_queued {
        assert_eq!(scene.got().token, 77, "the look found both");
    }
    (scene, names, device)
}

#[test]
fn what_has_come_is_too_late_to_cancel_and_comes_in_the_order_of_issue() {
    for is_queued in [false, true] {
        for ended in [0, 1] {
            let (scene, names, _device) = two_receives(is_queued);
            assert_eq!(scene.port.cancel(names[ended]), Cancel::TooLate);
            for token in 1..=2 {
                let got = scene.got();
                assert_eq!((got.token, got.error, got.bytes), (token, 0, 8), "queued: {is_queued}");
            }
            assert!(scene.get().is_none());
        }
    }
}

#[test]
fn what_has_come_is_too_late_to_withdraw() {
    for is_queued in [false, true] {
        let (scene, names, _device) = two_receives(is_queued);
        assert!(matches!(scene.port.withdraw(names[1]), Withdrawal::TooLate));
        assert_eq!([scene.got().token, scene.got().token], [1, 2]);
    }
}

#[test]
fn an_entry_of_the_queue_that_was_passed_over_overtakes_nothing() {
    let (scene, names, device) = two_receives(true);
    assert_eq!(scene.port.cancel(names[0]), Cancel::TooLate);
    // The side lies in the queue twice: what lay there before the first packet comes to nothing.
    let third = id(scene.receive(&device, memory(8), 3));
    assert_eq!([scene.got().token, scene.got().token], [1, 2]);
    assert!(scene.get().is_none(), "nothing has come for the third");
    assert_eq!(scene.port.cancel(third), Cancel::Requested);
    assert_eq!((scene.got().error, scene.get().is_none()), (ECANCELED, true));
}

#[test]
fn a_close_delivers_what_has_come_and_cancels_the_rest() {
    for is_queued in [false, true] {
        let (scene, _, device) = two_receives(is_queued);
        scene.receive(&device, memory(8), 3).unwrap();
        scene.receive(&device, memory(8), 4).unwrap();
        let before = scene.receives();
        assert!(scene.port.close_device(&device));
        assert_eq!(scene.receives() - before, 3, "two that find something, and one that does not");
        let ends: Vec<_> = (1..=4).map(|_| scene.got()).map(|got| (got.token, got.error, got.bytes)).collect();
        assert_eq!(ends, [(1, 0, 8), (2, 0, 8), (3, ECANCELED, 0), (4, ECANCELED, 0)]);
        assert!(!scene.fake.is_open(device.handle()));
    }
}

#[test]
fn a_close_while_a_worker_receives_leaves_the_handle_to_it() {
    let (scene, _, device) = two_receives(false);
    let closed = device.clone();
    scene.during(Call::Receive, When::Before, move |scene| {
        assert!(scene.port.close_device(&closed));
        assert!(scene.fake.is_open(closed.handle()), "the call is under way");
    });
    let ends = [scene.got(), scene.got()].map(|got| (got.token, got.error, got.bytes));
    assert_eq!(ends, [(1, 0, 8), (2, ECANCELED, 0)], "the worker has had the first one in hand");
    assert!(!scene.fake.is_open(device.handle()));
}

#[test]
fn a_client_that_has_come_is_accepted_before_the_listener_is_closed() {
    let scene = Scene::new();
    let handle = scene.fake.listening();
    let listener = scene.port.take_over(handle, DeviceKind::Listener, 1).unwrap();
    let names: Vec<_> = (1..=2).map(|token| id(scene.port.accept(&listener, token, Sink::Port))).collect();
    assert!(scene.get().is_none());
    scene.fake.peer_connects(handle, 4);
    assert_eq!(scene.port.cancel(names[0]), Cancel::TooLate);
    assert!(matches!(scene.got().payload, Payload::Accepted(_)));
    scene.fake.peer_connects(handle, 4);
    scene.port.accept(&listener, 3, Sink::Port).unwrap();
    assert!(scene.port.close_device(&listener));
    let (second, third) = (scene.got(), scene.got());
    assert!(matches!(second.payload, Payload::Accepted(_)) && second.token == 2);
    assert_eq!((third.kind, third.token, third.error), (Kind::Accepted, 3, ECANCELED));
}

#[test]
fn a_wait_that_looks_at_nothing_is_ended_and_not_told_that_something_has_come() {
    let scene = Scene::new();
    let (device, connection) = scene.connected(64);
    let watch = |token| id(scene.port.watch_readable(&device, token, Sink::Port));
    assert_eq!(scene.port.cancel(watch(1)), Cancel::Requested);
    let got = scene.got();
    assert_eq!((got.token, got.error), (1, ECANCELED));
    assert!(matches!(scene.port.withdraw(watch(2)), Withdrawal::Withdrawn(_)));
    // What has come it was told of before, or is told of now.
    let third = watch(3);
    scene.fake.peer_writes(connection, 4);
    assert_eq!((scene.got().token, scene.port.cancel(third)), (3, Cancel::TooLate));
    let before = scene.receives();
    scene.receive(&device, memory(8), 4).unwrap();
    assert_eq!((scene.got().bytes, scene.receives() - before), (4, 1));
    watch(5);
    assert!(scene.port.close_device(&device));
    let got = scene.got();
    assert_eq!((got.token, got.error), (5, ECANCELED));
}
