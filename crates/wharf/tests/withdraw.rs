//! Operations that are taken back: one packet, or withdrawn.

mod common;

use common::numbers::ECANCELED;
use common::*;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;
use wharf::{CompletionPort, Event, OperationId, Wake, Withdrawal};

const LONG: Duration = Duration::from_secs(600);

/// What was withdrawn, which is as its packet would have been.
#[track_caller]
fn withdrawn(port: &Port, operation: OperationId) -> Taken {
    match port.withdraw(operation) {
        Withdrawal::Withdrawn(packet) => {
            packet.context.arrive();
            packet
        }
        other => panic!("it had not begun: {other:?}"),
    }
}

#[track_caller]
fn is_too_late(port: &Port, operation: OperationId) {
    assert!(matches!(port.withdraw(operation), Withdrawal::TooLate));
}

#[test]
fn a_timer_is_withdrawn_once_and_gives_no_packet() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let timer = port.timer(LONG, 7, ledger.token(1)).unwrap();
    let packet = withdrawn(&port, timer);
    assert_eq!((packet.key, packet.context.number), (7, 1));
    let Event::Elapsed { result } = packet.event else { panic!("{:?}", packet.event) };
    assert_eq!(errno(&result), ECANCELED);
    is_too_late(&port, timer);
    let elapsed = port.timer(Duration::ZERO, 7, ledger.token(2)).unwrap();
    next(&port);
    is_too_late(&port, elapsed);
    quiet(&port, &ledger);
}

#[test]
fn a_periodic_timer_is_withdrawn_with_the_packet_that_is_queued() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let timer = port.interval(Duration::from_millis(1), 7, ledger.token(1)).unwrap();
    next(&port);
    eventually("its next packet is queued", || port.stats().queued == 1 || port.get_timeout(Duration::ZERO).is_ok());
    drop(withdrawn(&port, timer));
    is_too_late(&port, timer);
    thread::sleep(Duration::from_millis(5));
    if let Ok(packet) = port.get_timeout(Duration::ZERO) {
        panic!("a packet of a timer that was withdrawn: {packet:?}");
    }
}

#[test]
fn a_signal_is_withdrawn() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let signal = port.signal(wharf::signal::SIGTERM, 7, ledger.token(1)).unwrap();
    let packet = withdrawn(&port, signal);
    let Event::Signal { result } = packet.event else { panic!("{:?}", packet.event) };
    assert_eq!(errno(&result), ECANCELED);
    is_too_late(&port, signal);
    quiet(&port, &ledger);
}

#[test]
fn an_operation_of_another_port_is_foreign() {
    let ledger = Ledger::new();
    let (one, other) = (port(0, Wake::default()), port(0, Wake::default()));
    let timer = one.timer(LONG, 7, ledger.token(1)).unwrap();
    assert!(matches!(other.withdraw(timer), Withdrawal::Foreign));
    drop(withdrawn(&one, timer));
}

#[test]
fn what_a_branch_has_issued_is_cancelled_and_its_handler_hears_of_it() {
    let port = CompletionPort::<String, Vec<u8>>::new().unwrap();
    let (tell, told) = channel();
    let branch = port.branch::<u8, u8>(move |packet| tell.send((packet.key, packet.context)).unwrap());
    let timer = branch.timer(LONG, 1, 2).unwrap();
    assert!(matches!(port.withdraw(timer), Withdrawal::Requested));
    assert!(port.get_timeout(Duration::ZERO).is_err());
    assert_eq!(told.try_recv(), Ok((1, 2)));
    // The branch withdraws its own, and cancels the port's.
    let Withdrawal::Withdrawn(packet) = branch.withdraw(branch.timer(LONG, 3, 4).unwrap()) else { panic!() };
    assert_eq!((packet.key, packet.context), (3, 4));
    let own = port.timer(LONG, "own".into(), vec![5]).unwrap();
    assert!(matches!(branch.withdraw(own), Withdrawal::Requested));
    assert_eq!(port.get().unwrap().context, [5]);
}

// On Windows the kernel has the operations of devices: they are cancelled.
#[cfg(unix)]
mod devices {
    use super::*;
    use std::io::{Read, Write};
    use wharf::Buffer;
    use wharf::raw::{self, Buffers, CompletionEvent, DeviceKind, Issued, RawBuffer, Sink};

    #[test]
    fn a_receive_that_waits_behind_another_is_withdrawn_and_the_data_goes_to_the_others() {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let (stream, mut peer) = connection(&port, 7);
        let ids: Vec<_> =
            (0..3).map(|n| pending(stream.recv(Buffer::with_capacity(4), ledger.token(n)).unwrap())).collect();
        let packet = withdrawn(&port, ids[1]);
        let Event::Received { buffer, result, .. } = packet.event else { panic!("{:?}", packet.event) };
        assert_eq!((buffer.capacity(), errno(&result)), (4, ECANCELED));
        peer.write_all(b"firsthird").unwrap();
        let (first, third) = (next_received(&port), next_received(&port));
        assert_eq!((first.number, &first.buffer[..]), (0, &b"firs"[..]));
        assert_eq!((third.number, &third.buffer[..]), (2, &b"thir"[..]));
        is_too_late(&port, ids[0]);
        is_too_late(&port, ids[1]);
        quiet(&port, &ledger);
    }

    #[test]
    fn of_a_send_that_waits_nothing_goes_out_and_one_that_has_begun_is_cancelled() {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let (stream, mut peer) = connection(&port, 7);
        let large = pending(stream.send(vec![1; 16 << 20], ledger.token(1)).unwrap());
        let behind = pending(stream.send("behind", ledger.token(2)).unwrap());
        let last = pending(stream.send("last", ledger.token(3)).unwrap());
        let packet = withdrawn(&port, behind);
        let Event::Sent { buffer, .. } = packet.event else { panic!("{:?}", packet.event) };
        assert_eq!(&buffer[..], b"behind");
        assert!(matches!(port.withdraw(large), Withdrawal::Requested));
        let (number, _, result) = next_sent(&port);
        assert_eq!((number, errno(&result)), (1, ECANCELED));
        // The peer reads a piece of the large one, and then the last.
        let reader = thread::spawn(move || {
            let mut all = Vec::new();
            peer.read_to_end(&mut all).unwrap();
            all
        });
        assert_eq!(next_sent(&port).0, 3);
        is_too_late(&port, last);
        stream.close();
        let all = reader.join().unwrap();
        let rest = all.iter().position(|&byte| byte != 1).expect("the last was sent");
        assert_eq!(&all[rest..], b"last");
        quiet(&port, &ledger);
    }

    #[test]
    fn an_accept_is_withdrawn() {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let listener = port.listen("127.0.0.1:0", 7).unwrap();
        let accept = pending(listener.accept(ledger.token(1)).unwrap());
        assert!(matches!(withdrawn(&port, accept).event, Event::Accepted { result: Err(_), .. }));
        quiet(&port, &ledger);
    }

    #[test]
    fn in_a_race_with_data_each_receive_has_its_packet_or_is_withdrawn() {
        const ROUNDS: u64 = 3000;
        let ledger = Ledger::new();
        let port = port(2, Wake::Eager);
        let (stream, mut peer) = connection(&port, 7);
        let (mut bytes, mut taken_back) = (0, 0);
        for round in 0..ROUNDS {
            let receive = pending(stream.recv(Buffer::with_capacity(64), ledger.token(round)).unwrap());
            let writer = thread::scope(|scope| {
                let writer = scope.spawn(|| peer.write_all(b"x"));
                if round % 2 == 0 {
                    thread::yield_now();
                }
                match port.withdraw(receive) {
                    Withdrawal::Withdrawn(packet) => {
                        packet.context.arrive();
                        taken_back += 1;
                    }
                    Withdrawal::Requested | Withdrawal::TooLate => bytes += next_received(&port).buffer.len(),
                    other => panic!("{other:?}"),
                }
                writer.join().unwrap()
            });
            writer.unwrap();
        }
        drop(peer);
        // What came for those that were withdrawn waits for the next.
        loop {
            stream.recv(Buffer::with_capacity(4096), ledger.token(ROUNDS)).unwrap();
            match next_received(&port).buffer.len() {
                0 => break,
                more => bytes += more,
            }
        }
        assert_eq!(bytes, ROUNDS as usize, "{taken_back} were withdrawn");
        quiet(&port, &ledger);
    }

    #[test]
    #[allow(unsafe_code)]
    fn the_event_of_an_operation_that_was_withdrawn_is_not_signalled() {
        let port = raw::Port::new(raw::Config { concurrency: 1, ..raw::Config::default() }).unwrap();
        let (ours, _peer) = pair();
        let device = port.adopt(ours, DeviceKind::Stream, 5).unwrap();
        let mut memory = [0_u8; 8];
        let event = CompletionEvent::new();
        let buffers = Buffers::One(RawBuffer { pointer: memory.as_mut_ptr(), length: memory.len() });
        // SAFETY: the memory is this function's, and is not touched until the operation was withdrawn.
        let issued = unsafe { port.receive(&device, buffers, 9, Sink::Event(event.clone())) };
        let Ok(Issued::Pending(id)) = issued else { panic!("{issued:?}") };
        let Withdrawal::Withdrawn(completion) = port.withdraw(id) else { panic!("it waits for data") };
        assert_eq!((completion.key, completion.token, completion.error), (5, 9, ECANCELED));
        assert!(event.wait(Some(Duration::from_millis(20))).is_none());
    }
}
