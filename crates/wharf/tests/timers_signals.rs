//! Timers and signals as packets.

mod common;

use common::numbers::ECANCELED;
use common::*;
#[cfg(unix)]
use rustix::process::{Signal, getpid, kill_process};
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};
use wharf::{Cancel, Event, GetError, Wake};

#[track_caller]
fn elapsed(packet: Taken) -> (u64, std::io::Result<u64>) {
    match packet.event {
        Event::Elapsed { result } => (packet.context.number, result),
        other => panic!("a timer was expected: {other:?}"),
    }
}

// --- One-shot timers ---

#[test]
fn a_timer_brings_one_packet_and_never_early() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let begin = Instant::now();
    port.timer(Duration::from_millis(30), 9, ledger.token(1)).unwrap();
    assert_eq!(port.get_timeout(Duration::ZERO).unwrap_err(), GetError::TimedOut);
    let packet = next(&port);
    assert!(begin.elapsed() >= Duration::from_millis(30));
    assert_eq!(packet.key, 9);
    let (number, result) = elapsed(packet);
    assert_eq!((number, result.unwrap()), (1, 1));
    quiet(&port, &ledger);
}

#[test]
fn timers_come_in_the_order_of_their_times_whatever_the_order_of_issue() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let times = [40, 10, 30, 0, 20, 50];
    for ms in times {
        port.timer(Duration::from_millis(ms), 0, ledger.token(ms)).unwrap();
    }
    for expected in [0, 10, 20, 30, 40, 50] {
        assert_eq!(elapsed(next(&port)).0, expected);
    }
}

#[test]
fn timers_that_are_due_together_all_come() {
    const COUNT: u64 = 2000;
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    for n in 0..COUNT {
        port.timer(Duration::from_micros(n % 5000), 0, ledger.token(n)).unwrap();
    }
    let mut seen = vec![false; COUNT as usize];
    for _ in 0..COUNT {
        let (number, result) = elapsed(next(&port));
        result.unwrap();
        assert!(!std::mem::replace(&mut seen[number as usize], true));
    }
    quiet(&port, &ledger);
}

#[test]
fn a_timer_set_earlier_than_the_one_a_sleeping_thread_waits_for_comes_first() {
    let ledger = Ledger::new();
    for threads in [1, 2, 4] {
        let port = port(0, Wake::default());
        port.timer(Duration::from_secs(3600), 0, ledger.token(1)).unwrap();
        let fired = std::sync::Arc::new(AtomicUsize::new(0));
        let count = fired.clone();
        let _crew = Crew::start(&port, threads, move |_, packet| {
            assert_eq!(elapsed(packet).0, 2);
            count.fetch_add(1, SeqCst);
        });
        for n in 1..20 {
            port.timer(Duration::from_micros(n * 300), 0, ledger.token(2)).unwrap();
            eventually("the earlier timer comes", || fired.load(SeqCst) == n as usize);
        }
    }
}

#[test]
fn a_timer_comes_while_the_only_running_handler_blocks() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let fired = std::sync::Arc::new(AtomicUsize::new(0));
    let count = fired.clone();
    let _crew = Crew::start(&port, 2, move |_, packet| match packet.event {
        Event::Elapsed { .. } => drop(count.fetch_add(1, SeqCst)),
        _ => eventually("the timer comes to another thread", || count.load(SeqCst) == 1),
    });
    port.timer(Duration::from_millis(20), 0, ledger.token(1)).unwrap();
    port.post(0, 0, ledger.token(2)).unwrap();
    eventually("the timer comes", || fired.load(SeqCst) == 1);
}

#[test]
fn a_cancelled_timer_ends_with_one_packet_at_once() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let far = port.timer(Duration::from_secs(3600), 4, ledger.token(1)).unwrap();
    let near = port.timer(Duration::from_millis(1), 0, ledger.token(2)).unwrap();
    assert_eq!(port.cancel(far), Cancel::Requested);
    assert_eq!(port.cancel(far), Cancel::TooLate);
    let packet = next(&port);
    assert_eq!(packet.key, 4);
    let (number, result) = elapsed(packet);
    assert_eq!((number, errno(&result)), (1, ECANCELED));
    assert_eq!(elapsed(next(&port)).0, 2);
    assert_eq!(port.cancel(near), Cancel::TooLate);
    quiet(&port, &ledger);
}

#[test]
fn cancelling_timers_that_fall_due_gives_each_one_packet() {
    const COUNT: u64 = 2000;
    let ledger = Ledger::new();
    let port = port(2, Wake::Eager);
    let _crew = Crew::start(&port, 2, |_, packet| drop(elapsed(packet)));
    let mut requested = 0;
    let mut random = fastrand::Rng::with_seed(11);
    for n in 0..COUNT {
        let id = port.timer(Duration::from_micros(random.u64(0..100)), 0, ledger.token(n)).unwrap();
        burn(Duration::from_micros(random.u64(0..100)));
        requested += u64::from(port.cancel(id) == Cancel::Requested);
    }
    // That none comes twice is what the tokens check.
    eventually("every timer has ended", || ledger.arrived() == COUNT as usize);
    assert!(requested > 0 && requested < COUNT, "{requested} of {COUNT} were cancelled: no race was run");
}

#[test]
fn a_time_beyond_the_clock_is_accepted_and_cancelled() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let id = port.timer(Duration::MAX, 0, ledger.token(1)).unwrap();
    assert_eq!(port.get_timeout(Duration::from_millis(5)).unwrap_err(), GetError::TimedOut);
    assert_eq!(port.cancel(id), Cancel::Requested);
    assert_eq!(errno(&elapsed(next(&port)).1), ECANCELED);
}

#[test]
fn timers_of_a_closed_port_are_freed_and_none_is_taken_any_more() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let id = port.timer(Duration::from_secs(3600), 0, ledger.token(1)).unwrap();
    port.interval(Duration::from_millis(1), 0, ledger.token(2)).unwrap();
    eventually("a tick is due", || {
        thread::sleep(Duration::from_millis(2));
        drop(port.get_timeout(Duration::ZERO));
        true
    });
    port.close();
    assert_eq!(ledger.live(), 0);
    assert_eq!(port.cancel(id), Cancel::TooLate);
    assert_eq!(port.timer(Duration::ZERO, 0, ledger.token(3)).unwrap_err().context.number, 3);
    assert!(port.interval(Duration::from_millis(1), 0, ledger.token(4)).is_err());
}

// --- Periodic timers ---

#[test]
fn a_periodic_timer_comes_again_and_again_until_it_is_cancelled() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let period = Duration::from_millis(2);
    let begin = Instant::now();
    let id = port.interval(period, 6, ledger.token(1)).unwrap();
    let mut periods = 0;
    for _ in 0..10 {
        let packet = next(&port);
        assert_eq!(packet.key, 6);
        let (number, result) = elapsed(packet);
        assert_eq!(number, 1);
        let count = result.unwrap();
        assert!(count >= 1);
        periods += count;
        let most = begin.elapsed().as_nanos() / period.as_nanos();
        assert!(u128::from(periods) <= most, "{periods} periods are reported and {most} have passed");
    }
    assert_eq!(port.cancel(id), Cancel::Requested);
    loop {
        // A tick that was queued before may come first.
        let (_, result) = elapsed(next(&port));
        if result.is_err() {
            assert_eq!(errno(&result), ECANCELED);
            break;
        }
    }
    assert_eq!(port.cancel(id), Cancel::TooLate);
    quiet(&port, &ledger);
}

#[test]
fn periods_that_nobody_took_are_one_packet_that_counts_them() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let period = Duration::from_millis(1);
    let begin = Instant::now();
    let id = port.interval(period, 0, ledger.token(1)).unwrap();
    let mut periods = elapsed(next(&port)).1.unwrap();
    thread::sleep(Duration::from_millis(50));
    let passed = begin.elapsed().as_nanos() / period.as_nanos();
    let count = elapsed(next(&port)).1.unwrap();
    periods += count;
    assert!(count >= 40, "only {count} of some 50 periods are reported");
    assert!(u128::from(periods) >= passed, "{periods} periods are reported and {passed} have passed");
    assert!(port.stats().queued <= 1);
    port.cancel(id);
    while elapsed(next(&port)).1.is_ok() {}
    quiet(&port, &ledger);
}

#[test]
fn a_periodic_timer_whose_packet_is_queued_can_be_cancelled() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let (ticks, ended) = (std::sync::Arc::new(AtomicUsize::new(0)), std::sync::Arc::new(AtomicUsize::new(0)));
    let counters = (ticks.clone(), ended.clone());
    let _crew = Crew::start(&port, 1, move |_, packet| match elapsed(packet).1 {
        Ok(_) => drop(counters.0.fetch_add(1, SeqCst)),
        Err(_) => drop(counters.1.fetch_add(1, SeqCst)),
    });
    for n in 1..20 {
        // This thread has the only slot and computes: the other one may look for events but take nothing.
        let _ = port.get_timeout(Duration::ZERO);
        let id = port.interval(Duration::from_millis(20), 0, ledger.token(1)).unwrap();
        spin_until("the tick is queued", || port.stats().queued == 1);
        assert_eq!(port.cancel(id), Cancel::Requested);
        assert_eq!(port.cancel(id), Cancel::TooLate);
        eventually("the last packet comes", || ended.load(SeqCst) == n);
    }
    eventually("the queue is empty", || port.stats().queued == 0);
    assert_eq!((ticks.load(SeqCst), ended.load(SeqCst)), (0, 19));
}

#[test]
fn an_interval_of_next_to_no_time_does_not_keep_others_waiting() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let (stream, mut peer) = connection(&port, 0);
    stream.recv(vec![0; 8], ledger.token(2)).unwrap();
    let id = port.interval(Duration::from_micros(1), 0, ledger.token(1)).unwrap();
    peer.write_all(b"x").unwrap();
    let until = Instant::now() + DEADLINE;
    let mut came = [false; 2];
    while came != [true; 2] {
        assert!(Instant::now() < until, "{came:?}");
        let packet = next(&port);
        came[usize::from(matches!(packet.event, Event::Received { .. }))] = true;
    }
    port.cancel(id);
    while elapsed(next(&port)).1.is_ok() {}
}

#[test]
fn many_periodic_timers_run_in_several_threads() {
    let ledger = Ledger::new();
    let port = port(2, Wake::default());
    let counts: std::sync::Arc<Vec<AtomicUsize>> = std::sync::Arc::new((0..20).map(|_| AtomicUsize::new(0)).collect());
    let ended = std::sync::Arc::new(AtomicUsize::new(0));
    let (counters, ends) = (counts.clone(), ended.clone());
    let _crew = Crew::start(&port, 3, move |_, packet| {
        let (number, result) = elapsed(packet);
        match result {
            Ok(count) => drop(counters[number as usize].fetch_add(count as usize, SeqCst)),
            Err(_) => drop(ends.fetch_add(1, SeqCst)),
        }
    });
    let ids: Vec<_> =
        (0..20).map(|n| port.interval(Duration::from_micros(700 + 100 * n), 0, ledger.token(n)).unwrap()).collect();
    eventually("each ticks ten times", || counts.iter().all(|count| count.load(SeqCst) >= 10));
    for id in ids {
        assert_eq!(port.cancel(id), Cancel::Requested);
    }
    eventually("each ends once", || ended.load(SeqCst) == 20);
}

// --- Signals ---

#[cfg(unix)]
fn raise(signal: Signal) {
    kill_process(getpid(), signal).unwrap();
}

#[cfg(unix)]
#[track_caller]
fn signalled(packet: Taken) -> (u64, std::io::Result<i32>) {
    match packet.event {
        Event::Signal { result } => (packet.context.number, result),
        other => panic!("a signal was expected: {other:?}"),
    }
}

#[cfg(unix)]
#[test]
fn a_signal_is_a_packet_until_its_registration_is_cancelled() {
    in_child("a_signal_is_a_packet_until_its_registration_is_cancelled", || {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        let number = Signal::USR1.as_raw();
        let id = port.signal(number, 5, ledger.token(1)).unwrap();
        quiet(&port, &ledger);
        for _ in 0..10 {
            // Nobody waits: it is there for the next who comes.
            raise(Signal::USR1);
            let packet = next(&port);
            assert_eq!(packet.key, 5);
            let (context, result) = signalled(packet);
            assert_eq!((context, result.unwrap()), (1, number));
        }
        // Faster than they are taken: merged, but never none.
        (0..5).for_each(|_| raise(Signal::USR1));
        signalled(next(&port)).1.unwrap();
        while let Ok(packet) = port.get_timeout(Duration::from_millis(20)) {
            signalled(packet).1.unwrap();
        }
        assert_eq!(port.cancel(id), Cancel::Requested);
        assert_eq!(errno(&signalled(next(&port)).1), ECANCELED);
        assert_eq!(port.cancel(id), Cancel::TooLate);
        // The process survives it all the same.
        raise(Signal::USR1);
        quiet(&port, &ledger);
    });
}

#[cfg(unix)]
#[test]
fn a_signal_wakes_a_sleeping_thread_and_reaches_every_registration() {
    in_child("a_signal_wakes_a_sleeping_thread_and_reaches_every_registration", || {
        let ledger = Ledger::new();
        let ports = [port(1, Wake::default()), port(1, Wake::default())];
        let counts = std::sync::Arc::new([const { AtomicUsize::new(0) }; 4]);
        let crews: Vec<Crew> = ports
            .iter()
            .map(|port| {
                let counts = counts.clone();
                Crew::start(port, 2, move |_, packet| {
                    let (number, result) = signalled(packet);
                    let expected = if number == 3 { Signal::USR2 } else { Signal::USR1 };
                    assert_eq!(result.unwrap(), expected.as_raw());
                    counts[number as usize].fetch_add(1, SeqCst);
                })
            })
            .collect();
        ports[0].signal(Signal::USR1.as_raw(), 0, ledger.token(0)).unwrap();
        ports[0].signal(Signal::USR1.as_raw(), 0, ledger.token(1)).unwrap();
        ports[1].signal(Signal::USR1.as_raw(), 0, ledger.token(2)).unwrap();
        ports[1].signal(Signal::USR2.as_raw(), 0, ledger.token(3)).unwrap();
        for n in 1..20 {
            raise(Signal::USR1);
            eventually("each registration of the signal has its packet", || {
                counts[..3].iter().all(|count| count.load(SeqCst) == n)
            });
            assert_eq!(counts[3].load(SeqCst), 0);
        }
        raise(Signal::USR2);
        eventually("the other signal has its packet", || counts[3].load(SeqCst) == 1);
        // Closing ends the registrations: their contexts are freed, the handlers gone.
        drop(crews);
        raise(Signal::USR1);
        raise(Signal::USR2);
        assert_eq!(ledger.live(), 0);
    });
}

#[cfg(unix)]
#[test]
#[allow(unsafe_code)]
fn a_handler_that_the_program_had_before_still_runs() {
    use std::sync::atomic::AtomicUsize;
    static CALLS: AtomicUsize = AtomicUsize::new(0);
    extern "C" fn handler(_: libc::c_int) {
        CALLS.fetch_add(1, SeqCst);
    }
    in_child("a_handler_that_the_program_had_before_still_runs", || {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        // SAFETY: the handler only adds to an atomic.
        unsafe { libc::signal(libc::SIGUSR1, handler as extern "C" fn(libc::c_int) as libc::sighandler_t) };
        port.signal(libc::SIGUSR1, 0, ledger.token(1)).unwrap();
        raise(Signal::USR1);
        signalled(next(&port)).1.unwrap();
        assert_eq!(CALLS.load(SeqCst), 1);
    });
}

#[cfg(unix)]
#[test]
fn a_signal_that_interrupts_a_wait_loses_nothing() {
    in_child("a_signal_that_interrupts_a_wait_loses_nothing", || {
        let ledger = Ledger::new();
        let port = port(1, Wake::default());
        let (stream, mut peer) = connection(&port, 0);
        port.signal(Signal::USR1.as_raw(), 0, ledger.token(0)).unwrap();
        let received = std::sync::Arc::new(AtomicUsize::new(0));
        let count = received.clone();
        let mint = ledger.mint();
        let _crew = Crew::start(&port, 3, move |_, packet| match packet.event {
            Event::Received { stream, buffer, result } => {
                let bytes = result.unwrap();
                count.fetch_add(bytes, SeqCst);
                if bytes > 0 {
                    stream.recv(buffer, mint.token(1)).unwrap();
                }
            }
            Event::Signal { result } => drop(result.unwrap()),
            other => panic!("{other:?}"),
        });
        stream.recv(vec![0; 16], ledger.token(1)).unwrap();
        for n in 1..300 {
            raise(Signal::USR1);
            peer.write_all(b"x").unwrap();
            if n % 10 == 0 {
                eventually("the data is received", || received.load(SeqCst) == n);
            }
        }
        eventually("all data is received", || received.load(SeqCst) == 299);
        let report = port.workers();
        assert_eq!(report.len(), 3);
    });
}

#[cfg(unix)]
#[test]
fn a_signal_that_cannot_be_caught_is_refused() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    for number in [libc::SIGKILL, libc::SIGSTOP, libc::SIGSEGV, 0, -1, 1000] {
        let error = port.signal(number, 0, ledger.token(1)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "signal {number}: {error}");
    }
    assert_eq!(ledger.live(), 0);
    port.close();
    assert!(port.signal(libc::SIGUSR1, 0, ledger.token(2)).is_err());
}
