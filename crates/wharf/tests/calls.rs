//! What a layer of calls above the raw one needs of it: posts with an error, several packets at once, the wait of one
//! thread ended, a thread that leaves, and functions in the queue.

mod common;

use common::*;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;
use wharf::raw::{self, Buffers, Completion, DeviceKind, ECANCELED, GetError, Kind, Post, Ran, RawBuffer, Sink};
use wharf::{CompletionPort, Event, Wake, Workers, blocking};

static DISPOSED: Mutex<Vec<(usize, i32)>> = Mutex::new(Vec::new());

fn raw_port(concurrency: usize) -> raw::Port {
    raw::Port::new(raw::Config {
        concurrency,
        wake: Wake::Eager,
        dispose: |completion| DISPOSED.lock().unwrap().push((completion.token, completion.error)),
        ..raw::Config::default()
    })
    .unwrap()
}

fn post(token: usize) -> Post {
    Post { key: 1, token, bytes: 3 }
}

const NOW: Option<Duration> = Some(Duration::ZERO);

// --- Posts with an error ---

#[test]
fn a_post_with_an_error_comes_out_with_it_in_its_place() {
    let port = raw_port(1);
    port.post(post(1)).unwrap();
    port.post_with_error(post(2), 995).unwrap();
    port.post_with_error(post(3), 0).unwrap();
    port.post(post(4)).unwrap();
    for (token, error) in [(1, 0), (2, 995), (3, 0), (4, 0)] {
        let Completion { key, token: came, bytes, error: told, kind, device, .. } = port.get(NOW).unwrap();
        assert_eq!((key, came, bytes, told, kind, device), (1, token, 3, error, Kind::Posted, 0));
    }
}

#[test]
fn a_closed_port_gives_a_post_with_an_error_back_and_frees_those_that_are_queued() {
    let port = raw_port(1);
    port.post_with_error(post(77_001), ECANCELED).unwrap();
    port.close();
    assert!(DISPOSED.lock().unwrap().contains(&(77_001, ECANCELED)));
    assert_eq!(port.post_with_error(post(9), 5), Err(post(9)));
}

// --- Several at once ---

#[test]
fn several_packets_are_taken_at_once_in_their_order_and_appended() {
    let port = raw_port(1);
    let mut into = Vec::new();
    (0..5).for_each(|token| port.post(post(token)).unwrap());
    assert_eq!(port.get_into(&mut into, 3, None), Ok(3));
    assert_eq!(port.get_into(&mut into, 64, NOW), Ok(2));
    assert_eq!(into.iter().map(|completion| completion.token).collect::<Vec<_>>(), [0, 1, 2, 3, 4]);
    assert_eq!(port.get_into(&mut into, 64, NOW), Err(GetError::TimedOut));
    assert_eq!(port.get_into(&mut into, 0, NOW), Err(GetError::NoRoom));
    port.close();
    assert_eq!(port.get_into(&mut into, 64, NOW), Err(GetError::Abandoned));
    assert_eq!(into.len(), 5, "nothing is appended by a call that fails");
}

#[test]
fn what_was_taken_at_once_is_not_given_back_when_the_thread_blocks() {
    let port = raw_port(1);
    let mut into = Vec::new();
    (0..4).for_each(|token| port.post(post(token)).unwrap());
    assert_eq!(port.get_into(&mut into, 3, None), Ok(3));
    let other = thread::spawn({
        let port = port.clone();
        move || port.get(Some(DEADLINE)).unwrap().token
    });
    // It had one slot for all three.
    assert_eq!(blocking(|| other.join().unwrap()), 3);
    assert_eq!(port.get(NOW).unwrap_err(), GetError::TimedOut);
}

// --- Wakers ---

#[test]
fn a_waker_ends_the_wait_of_its_thread_and_of_no_other() {
    let port = raw_port(0);
    let (tell, told) = mpsc::channel();
    let threads: Vec<_> = (0..3)
        .map(|number| {
            let (port, tell) = (port.clone(), tell.clone());
            thread::spawn(move || {
                tell.send((number, port.waker().unwrap())).unwrap();
                let mut interrupted = 0;
                loop {
                    match port.get(None) {
                        Err(GetError::Interrupted) => interrupted += 1,
                        Err(GetError::Abandoned) => return (number, interrupted),
                        other => panic!("{other:?}"),
                    }
                    tell.send((number, port.waker().unwrap())).unwrap();
                }
            })
        })
        .collect();
    let mut wakers: Vec<_> = (0..3).map(|_| told.recv().unwrap()).collect();
    for round in 0..30 {
        let at = round % 3;
        let (number, waker) = wakers.swap_remove(at);
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        waker.wake();
        let again = told.recv_timeout(DEADLINE).unwrap();
        assert_eq!(again.0, number, "another thread came back");
        wakers.push(again);
    }
    assert!(told.try_recv().is_err());
    port.close();
    let mut all: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    all.sort_unstable();
    assert_eq!(all.iter().map(|&(_, count)| count).sum::<i32>(), 30);
}

#[test]
fn a_waker_that_was_used_before_the_wait_ends_the_next_one_once() {
    let port = raw_port(0);
    let waker = port.waker().unwrap();
    port.post(post(1)).unwrap();
    waker.wake();
    waker.clone().wake();
    assert_eq!(port.get(None).unwrap_err(), GetError::Interrupted);
    assert_eq!(port.get(None).unwrap().token, 1);
    waker.wake();
    assert_eq!(port.get_into(&mut Vec::new(), 4, None), Err(GetError::Interrupted));
    assert_eq!(port.get(NOW).unwrap_err(), GetError::TimedOut);
    assert_eq!(std::io::Error::from(GetError::Interrupted).kind(), std::io::ErrorKind::Interrupted);
}

#[test]
fn the_waker_of_a_thread_that_has_left_wakes_nobody_and_keeps_no_port() {
    let port = raw_port(0);
    let old = port.waker().unwrap();
    raw::leave_port();
    let _new = port.waker().unwrap();
    old.wake();
    assert_eq!(port.get(NOW).unwrap_err(), GetError::TimedOut);
    drop(port);
    old.wake();
}

// --- Leaving ---

#[test]
fn a_thread_that_leaves_gives_its_slot_back_at_once() {
    raw::leave_port();
    let port = raw_port(1);
    (0..3).for_each(|token| port.post(post(token)).unwrap());
    let (tell, told) = mpsc::channel();
    let (go, stay) = mpsc::channel::<()>();
    let first = thread::spawn({
        let (port, tell) = (port.clone(), tell.clone());
        move || {
            tell.send(port.get(None).unwrap().token).unwrap();
            raw::leave_port();
            raw::leave_port();
            // Computes on, as far as the port can know.
            let _ = stay.recv();
            port.get(NOW).unwrap().token
        }
    });
    assert_eq!(told.recv_timeout(DEADLINE), Ok(0));
    assert_eq!(port.get(Some(DEADLINE)).unwrap().token, 1, "there is one slot, and it is free");
    raw::leave_port();
    drop(go);
    assert_eq!(first.join().unwrap(), 2, "it belongs to the port again");
}

// --- Functions ---

static ORDER: Mutex<Vec<(usize, Ran)>> = Mutex::new(Vec::new());

#[test]
fn functions_stand_in_one_order_with_packets_and_each_is_called_once() {
    fn noted(context: usize, ran: Ran) {
        ORDER.lock().unwrap().push((context, ran));
    }
    let port = raw_port(1);
    port.run(noted, 1).unwrap();
    port.post(post(2)).unwrap();
    port.run(noted, 3).unwrap();
    port.run(noted, usize::MAX).unwrap();
    port.post(post(4)).unwrap();
    port.run(noted, 5).unwrap();
    assert_eq!(port.get(NOW).unwrap().token, 2);
    assert_eq!(*ORDER.lock().unwrap(), [(1, Ran::Worker)], "what stands behind the packet is not called yet");
    assert_eq!(port.get(NOW).unwrap().token, 4);
    assert_eq!(*ORDER.lock().unwrap(), [(1, Ran::Worker), (3, Ran::Worker), (usize::MAX, Ran::Worker)]);
    port.close();
    assert_eq!(ORDER.lock().unwrap().last(), Some(&(5, Ran::Closed)));
    assert_eq!(ORDER.lock().unwrap().len(), 4);
    assert_eq!(port.run(noted, 6), Err(6));
    assert_eq!(ORDER.lock().unwrap().len(), 4, "what was given back is not called");
}

#[test]
fn a_function_that_blocks_is_replaced() {
    static STATE: AtomicUsize = AtomicUsize::new(0);
    fn waits(_: usize, _: Ran) {
        STATE.store(1, SeqCst);
        while STATE.load(SeqCst) != 2 {
            thread::sleep(Duration::from_millis(1));
        }
    }
    fn frees(_: usize, _: Ran) {
        STATE.store(2, SeqCst);
    }
    let port = CompletionPort::<(), ()>::options().concurrency(1).build::<(), ()>().unwrap();
    let workers = port.start(Workers::exactly(2), |_| {}).unwrap();
    port.run(|| waits(0, Ran::Worker)).unwrap();
    eventually("it is called", || STATE.load(SeqCst) >= 1);
    port.run(|| frees(0, Ran::Worker)).unwrap();
    eventually("the other is called beside it", || STATE.load(SeqCst) == 2);
    port.close();
    workers.join();
}

#[test]
fn functions_that_queue_themselves_do_not_keep_a_get_whose_time_is_over() {
    static PORT: Mutex<Option<raw::Port>> = Mutex::new(None);
    fn again(context: usize, ran: Ran) {
        if ran == Ran::Worker {
            let port = PORT.lock().unwrap().clone();
            if let Some(port) = port {
                port.run(again, context).unwrap();
            }
        }
    }
    let port = raw_port(1);
    *PORT.lock().unwrap() = Some(port.clone());
    port.run(again, 1).unwrap();
    assert_eq!(port.get(NOW).unwrap_err(), GetError::TimedOut);
    assert_eq!(port.get_into(&mut Vec::new(), 1, NOW), Err(GetError::TimedOut));
    *PORT.lock().unwrap() = None;
}

#[test]
fn a_typed_function_is_called_or_dropped_and_a_closed_port_gives_it_back() {
    let held = Arc::new(());
    let port = CompletionPort::<(), ()>::new().unwrap();
    let (tell, told) = mpsc::channel();
    for number in 0..3 {
        let (held, tell) = (held.clone(), tell.clone());
        port.run(move || tell.send((number, held)).unwrap()).unwrap();
    }
    assert!(port.get_timeout(Duration::ZERO).is_err());
    assert_eq!(told.try_iter().map(|(number, _)| number).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(Arc::strong_count(&held), 1);
    let queued = held.clone();
    port.run(move || drop(queued)).unwrap();
    port.close();
    assert_eq!(Arc::strong_count(&held), 1, "what nobody calls is dropped");
    let late = held.clone();
    let back = port.run(move || drop(late)).unwrap_err();
    assert_eq!(Arc::strong_count(&held), 2);
    (back.function)();
}

#[test]
fn a_pool_goes_on_after_a_function_that_panics() {
    let port = CompletionPort::<(), ()>::new().unwrap();
    let workers = port.start(Workers::exactly(1), |_| {}).unwrap();
    let (tell, told) = mpsc::channel();
    port.run(|| std::panic::resume_unwind(Box::new("a panic that is meant"))).unwrap();
    port.run(move || tell.send(1).unwrap()).unwrap();
    assert_eq!(told.recv_timeout(DEADLINE), Ok(1));
    port.close();
    assert_eq!(workers.join().panics, 1);
}

// --- Cancelling by token and by issuer ---

/// A connected device, its peer, and memory for receives, which is never freed.
fn device(port: &raw::Port) -> (raw::Device, std::net::TcpStream) {
    let (server, peer) = pair();
    server.set_nonblocking(true).unwrap();
    (port.adopt(server, DeviceKind::Stream, 5).unwrap(), peer)
}

fn space(bytes: usize) -> Buffers {
    let memory = Vec::leak(vec![0_u8; bytes]);
    Buffers::One(RawBuffer { pointer: memory.as_mut_ptr(), length: bytes })
}

#[allow(unsafe_code)]
fn receive(port: &raw::Port, device: &raw::Device, token: usize) {
    // SAFETY: the memory is nobody else's, and is never freed.
    unsafe { port.receive(device, space(8), token, Sink::Port) }.unwrap();
}

fn ended(port: &raw::Port) -> (usize, i32) {
    let completion = port.get(Some(DEADLINE)).unwrap();
    (completion.token, completion.error)
}

#[test]
fn operations_are_cancelled_by_their_token() {
    let port = raw_port(1);
    let (device, mut peer) = device(&port);
    (1..=3).for_each(|token| receive(&port, &device, token));
    receive(&port, &device, 2);
    assert_eq!(port.cancel_token(&device, 9), 0);
    assert_eq!(port.cancel_token(&device, 2), 2, "both that have it");
    assert_eq!(port.cancel_token(&device, 2), 0);
    let mut aborted = [ended(&port), ended(&port)];
    aborted.sort_unstable();
    assert_eq!(aborted, [(2, ECANCELED), (2, ECANCELED)]);
    peer.write_all(b"eighteight").unwrap();
    assert_eq!((ended(&port), ended(&port)), ((1, 0), (3, 0)));
    let other = raw_port(1);
    receive(&port, &device, 4);
    assert_eq!(other.cancel_token(&device, 4), 0, "it is another port's");
    port.close_device(&device);
}

#[test]
#[allow(unsafe_code)]
fn a_send_that_has_begun_is_cancelled_by_its_token() {
    let port = raw_port(1);
    let (device, _peer) = device(&port);
    // SAFETY: the memory is never freed and does not change.
    unsafe { port.send(&device, space(32 << 20), 7, Sink::Port) }.unwrap();
    assert_eq!(port.cancel_token(&device, 7), 1);
    assert_eq!(ended(&port), (7, ECANCELED));
    port.close_device(&device);
}

#[test]
fn a_thread_cancels_what_it_has_issued_and_nothing_else() {
    let port = raw_port(2);
    let (device, mut peer) = device(&port);
    receive(&port, &device, 1);
    let issued = thread::scope(|scope| {
        let other = scope.spawn(|| {
            assert_eq!(raw::set_issuer(8), 0);
            receive(&port, &device, 2);
            receive(&port, &device, 3);
            // The thread that had issued it is gone, its tag is not.
        });
        other.join()
    });
    issued.unwrap();
    receive(&port, &device, 4);
    assert_eq!(port.cancel_issued_by(&device, 7), 0);
    assert_eq!(port.cancel_issued_by(&device, 8), 2);
    let mut aborted = [ended(&port), ended(&port)];
    aborted.sort_unstable();
    assert_eq!(aborted, [(2, ECANCELED), (3, ECANCELED)]);
    peer.write_all(b"eighteight").unwrap();
    assert_eq!((ended(&port), ended(&port)), ((1, 0), (4, 0)));
    port.close_device(&device);
}

#[test]
fn in_a_race_with_data_each_receive_that_is_cancelled_by_token_completes_once() {
    let port = raw_port(2);
    let (device, mut peer) = device(&port);
    let (mut bytes, mut cancelled) = (0, 0);
    for token in 1..2000 {
        receive(&port, &device, token);
        thread::scope(|scope| {
            let writer = scope.spawn(|| peer.write_all(b"x").unwrap());
            let count = port.cancel_token(&device, token);
            writer.join().unwrap();
            let completion = port.get(Some(DEADLINE)).unwrap();
            assert_eq!(completion.token, token);
            match completion.error {
                0 => bytes += completion.bytes,
                error => {
                    assert_eq!(error, ECANCELED, "{count}");
                    cancelled += 1;
                }
            }
        });
    }
    assert_eq!(port.get(NOW).unwrap_err(), GetError::TimedOut);
    assert!(bytes <= 1999, "{cancelled} were cancelled");
    port.close_device(&device);
}

#[test]
fn a_typed_stream_cancels_what_was_issued_under_a_tag() {
    let port = CompletionPort::<(), u32>::new().unwrap();
    let (server, _peer) = pair();
    let stream = port.associate(server, ()).unwrap();
    stream.recv_pooled(1).unwrap();
    raw::set_issuer(9);
    stream.recv_pooled(2).unwrap();
    raw::set_issuer(0);
    assert_eq!(stream.cancel_issued_by(9), 1);
    assert_eq!(port.get_timeout(DEADLINE).unwrap().context, 2);
    assert!(port.get_timeout(Duration::ZERO).is_err());
    stream.close();
}

// --- Timers that are reset ---

const LONG: Duration = Duration::from_secs(600);

#[test]
fn a_timer_that_is_reset_elapses_at_the_new_time() {
    let port = CompletionPort::<(), u32>::new().unwrap();
    let hurried = port.timer(LONG, (), 1).unwrap();
    let put_off = port.timer(Duration::from_millis(5), (), 2).unwrap();
    assert!(port.reset_timer(hurried, Duration::from_millis(10)));
    assert!(port.reset_timer(put_off, LONG));
    let start = std::time::Instant::now();
    assert_eq!(port.get_timeout(DEADLINE).unwrap().context, 1);
    assert!(!port.reset_timer(hurried, LONG), "it has elapsed");
    assert!(port.get_timeout(Duration::from_millis(20)).is_err(), "it was put off");
    // Put off again and again, and then not.
    for milliseconds in 1..50 {
        assert!(port.reset_timer(put_off, Duration::from_millis(100 + milliseconds)));
    }
    assert_eq!(port.get_timeout(DEADLINE).unwrap().context, 2);
    assert!(start.elapsed() >= Duration::from_millis(149), "too early");
    let other = CompletionPort::<(), u32>::new().unwrap();
    let timer = port.timer(LONG, (), 3).unwrap();
    assert!(!other.reset_timer(timer, Duration::ZERO), "it is another port's");
    port.cancel(timer);
    assert!(!port.reset_timer(timer, Duration::ZERO), "it was cancelled");
    let signal = port.signal(wharf::signal::SIGTERM, (), 4).unwrap();
    assert!(!port.reset_timer(signal, Duration::ZERO), "it is none");
}

#[test]
fn an_interval_that_is_reset_begins_anew() {
    let port = CompletionPort::<(), u32>::new().unwrap();
    let interval = port.interval(LONG, (), 1).unwrap();
    assert!(port.reset_timer(interval, Duration::from_millis(1)));
    let Event::Elapsed { result: Ok(1) } = port.get_timeout(DEADLINE).unwrap().event else { panic!("one period") };
    assert!(port.get_timeout(Duration::from_millis(5)).is_err(), "the next comes a period later");
    assert!(port.reset_timer(interval, Duration::ZERO));
    let Event::Elapsed { result: Ok(1) } = port.get_timeout(DEADLINE).unwrap().event else { panic!("one period") };
    port.cancel(interval);
}
