//! The queue seen from outside: posted packets, who is released for them, how many run, and what happens when a
//! thread blocks, exits, moves away or the port is closed. Rows D, C and P of the specification.

mod common;

use common::*;
#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, Timespec};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use wharf::{CompletionPort, Event, GetError, UnpostedReason, Wake, WorkerState, blocking};

const BOTH: [Wake; 2] = [Wake::Eager, Wake::Adaptive];

fn post(port: &Port, ledger: &Ledger, number: u64) {
    port.post(0, 0, ledger.token(number)).unwrap();
}

// --- Posting and taking ---

#[test]
fn a_posted_packet_comes_out_as_it_was_posted() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    for (bytes, key) in [(0, 0), (1, u64::MAX), (u32::MAX as usize, 7), (usize::MAX, 1 << 63)] {
        port.post(bytes, key, ledger.token(key)).unwrap();
        let packet = next(&port);
        assert_eq!((packet.key, packet.context.number), (key, key));
        assert!(packet.error().is_none());
        assert!(matches!(packet.event, Event::Posted { bytes: came } if came == bytes));
    }
}

#[test]
fn keys_and_contexts_of_any_size_travel_through_the_port() {
    let empty = CompletionPort::<(), ()>::new().unwrap();
    empty.post(3, (), ()).unwrap();
    assert!(matches!(empty.get().unwrap().event, Event::Posted { bytes: 3 }));

    let shared = Arc::new(5);
    let wide = CompletionPort::<Arc<i32>, [u64; 9]>::new().unwrap();
    wide.post(0, shared.clone(), [9; 9]).unwrap();
    let packet = wide.get().unwrap();
    assert!(Arc::ptr_eq(&packet.key, &shared));
    assert_eq!(packet.context, [9; 9]);
    drop(packet);
    wide.post(0, shared.clone(), [8; 9]).unwrap();
    drop(wide);
    assert_eq!(Arc::strong_count(&shared), 1, "the key of a packet that nobody took is freed with the port");

    let odd = CompletionPort::<[u8; 3], (u8, u32)>::new().unwrap();
    odd.post(0, [1, 2, 3], (4, 5)).unwrap();
    let packet = odd.get().unwrap();
    assert_eq!((packet.key, packet.context), ([1, 2, 3], (4, 5)));
}

#[test]
fn packets_leave_in_the_order_they_were_posted() {
    const COUNT: u64 = 100_000;
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    let (poster, mint) = (port.clone(), ledger.mint());
    let thread = thread::spawn(move || (0..COUNT).for_each(|n| poster.post(0, 0, mint.token(n)).unwrap()));
    for expected in 0..COUNT {
        assert_eq!(next(&port).context.number, expected);
    }
    thread.join().unwrap();
}

#[test]
fn each_packet_is_taken_by_exactly_one_thread() {
    const EACH: u64 = 20_000;
    for wake in BOTH {
        let ledger = Ledger::new();
        let port = port(2, wake);
        let taken = Arc::new(AtomicU64::new(0));
        let sum = Arc::new(AtomicU64::new(0));
        let (count, total) = (taken.clone(), sum.clone());
        // That none is taken twice is what the tokens themselves check.
        let _crew = Crew::start(&port, 4, move |_, packet| {
            total.fetch_add(packet.context.number, SeqCst);
            count.fetch_add(1, SeqCst);
        });
        thread::scope(|scope| {
            for producer in 0..2 {
                let (port, mint) = (&port, ledger.mint());
                scope.spawn(move || {
                    for n in 0..EACH {
                        port.post(0, 0, mint.token(producer * EACH + n)).unwrap();
                    }
                });
            }
        });
        eventually("all packets are taken", || taken.load(SeqCst) == 2 * EACH);
        assert_eq!(sum.load(SeqCst), (0..2 * EACH).sum::<u64>());
    }
}

#[test]
fn a_thread_that_only_posts_does_not_belong_to_the_port() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    thread::scope(|scope| {
        scope.spawn(|| post(&port, &ledger, 1));
    });
    assert!(port.workers().is_empty());
    assert_eq!(port.stats().active, 0);
    next(&port);
    assert_eq!(port.workers().len(), 1);
    assert_eq!(port.stats().active, 1);
}

#[test]
fn a_limit_of_zero_means_as_many_as_there_are_processors() {
    let port = port(0, Wake::default());
    assert_eq!(port.stats().concurrency, thread::available_parallelism().unwrap().get());
}

#[test]
fn a_time_out_of_zero_never_waits_and_others_wait_at_least_their_time() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    assert_eq!(port.get_timeout(Duration::ZERO).unwrap_err(), GetError::TimedOut);
    post(&port, &ledger, 1);
    assert_eq!(port.get_timeout(Duration::ZERO).unwrap().context.number, 1);
    let before = Instant::now();
    assert_eq!(port.get_timeout(Duration::from_millis(30)).unwrap_err(), GetError::TimedOut);
    assert!(before.elapsed() >= Duration::from_millis(30));
    // Beyond what a clock can express: no time-out at all.
    post(&port, &ledger, 2);
    assert_eq!(port.get_timeout(Duration::MAX).unwrap().context.number, 2);
    assert_eq!(port.get_many_timeout(8, Duration::ZERO).unwrap_err(), GetError::TimedOut);
}

#[test]
fn a_time_out_of_ages_waits_wherever_a_thread_waits() {
    for time in [Duration::MAX, Duration::from_secs(i64::MAX as u64 / 2), Duration::from_secs(1 << 40)] {
        let ledger = Ledger::new();
        let port = port(0, Wake::default());
        // One leads, one stands by, and one sleeps.
        let threads: Vec<_> = (0..3)
            .map(|n| {
                let waits = port.clone();
                let thread = thread::spawn(move || waits.get_timeout(time).map(|packet| packet.context.number));
                eventually("it waits", || port.stats().waiting == n + 1);
                thread
            })
            .collect();
        let before = port.stats().polls;
        thread::sleep(Duration::from_millis(30));
        let stats = port.stats();
        assert!(stats.waiting == 3 && stats.polls <= before + 3, "{time:?}: they look all the time: {stats:?}");
        (0..3).for_each(|n| post(&port, &ledger, n));
        let came: HashSet<u64> = threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
        assert_eq!(came.len(), 3);
    }
}

#[test]
fn a_waiting_thread_with_a_time_out_still_takes_the_packet_that_comes() {
    // One leads, one stands by, two lie on the stack: each way to sleep has to be reachable with a deadline set.
    let ledger = Ledger::new();
    let port = port(4, Wake::Eager);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| port.get_timeout(DEADLINE))).collect();
        eventually("all wait", || port.stats().waiting == 4);
        (0..4).for_each(|n| post(&port, &ledger, n));
        for thread in threads {
            assert!(thread.join().unwrap().is_ok());
        }
    });
}

#[test]
fn many_threads_time_out_while_packets_pass_them_by() {
    let ledger = Ledger::new();
    let port = port(2, Wake::Eager);
    let taken = AtomicU64::new(0);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        for n in 0..4u64 {
            let (port, taken, done) = (&port, &taken, &done);
            scope.spawn(move || {
                while !done.load(SeqCst) {
                    match port.get_timeout(Duration::from_micros(200 + 150 * n)) {
                        Ok(packet) => {
                            packet.context.arrive();
                            taken.fetch_add(1, SeqCst);
                        }
                        Err(error) => assert_eq!(error, GetError::TimedOut),
                    }
                }
            });
        }
        for n in 0..2000 {
            post(&port, &ledger, n);
            burn(Duration::from_micros(50));
        }
        let until = Instant::now() + DEADLINE;
        while taken.load(SeqCst) < 2000 && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
        done.store(true, SeqCst);
    });
    assert_eq!(taken.load(SeqCst), 2000, "a packet was lost between a time-out and a wake-up");
    eventually("all slots are given back", || port.stats().active == 0);
}

#[test]
fn try_post_refuses_a_full_queue_and_gives_everything_back() {
    let ledger = Ledger::new();
    let port = port(0, Wake::default());
    port.try_post(1, 10, ledger.token(1), 2).unwrap();
    port.try_post(2, 20, ledger.token(2), 2).unwrap();
    let unposted = port.try_post(3, 30, ledger.token(3), 2).unwrap_err();
    assert_eq!(unposted.reason, UnpostedReason::Full);
    assert_eq!((unposted.key, unposted.context.number), (30, 3));
    next(&port);
    port.try_post(3, unposted.key, unposted.context, 2).unwrap();
    assert_eq!(port.try_post(4, 40, ledger.token(4), 0).unwrap_err().reason, UnpostedReason::Full);
    port.close();
    assert_eq!(port.try_post(5, 50, ledger.token(5), 2).unwrap_err().reason, UnpostedReason::Closed);
}

#[test]
fn threads_may_come_and_go_without_losing_packets() {
    const COUNT: u64 = 400;
    let ledger = Ledger::new();
    let port = port(2, Wake::Eager);
    let taken = AtomicU64::new(0);
    thread::scope(|scope| {
        for n in 0..COUNT {
            scope.spawn(|| {
                next(&port);
                taken.fetch_add(1, SeqCst);
                // The thread ends without coming back: its slot has to go to the others (row C-12).
            });
            if n % 7 == 0 {
                thread::yield_now();
            }
            post(&port, &ledger, n);
        }
    });
    assert_eq!(taken.load(SeqCst), COUNT);
    // A scoped thread's locals may be destroyed a little after the scope's end.
    eventually("the threads that have ended have given their slots back", || port.stats().active == 0);
    eventually("the threads that have ended are forgotten", || port.workers().is_empty());
}

// --- Who is released ---

#[test]
fn waiting_threads_are_released_last_in_first_out() {
    let ledger = Ledger::new();
    let port = port(8, Wake::Eager);
    let (tell, told) = mpsc::channel();
    let go = Arc::new(AtomicBool::new(false));
    let hold = go.clone();
    let tell = Mutex::new(tell);
    let _crew = Crew::start(&port, 5, move |thread, _| {
        tell.lock().unwrap().send(thread).unwrap();
        spin_until("the test lets the handlers go", || hold.load(SeqCst));
    });
    let mut order = Vec::new();
    for n in 0..5 {
        post(&port, &ledger, n);
        order.push(told.recv_timeout(DEADLINE).unwrap());
    }
    go.store(true, SeqCst);
    assert_eq!(order, [4, 3, 2, 1, 0], "the thread that began to wait last gets the packet");
}

#[test]
fn a_lightly_loaded_port_keeps_reusing_one_thread() {
    for wake in BOTH {
        let ledger = Ledger::new();
        let port = port(4, wake);
        let (tell, told) = mpsc::channel();
        let tell = Mutex::new(tell);
        let _crew = Crew::start(&port, 4, move |thread, _| tell.lock().unwrap().send(thread).unwrap());
        let mut threads = Vec::new();
        for n in 0..50 {
            eventually("all wait again", || port.stats().waiting == 4);
            post(&port, &ledger, n);
            threads.push(told.recv_timeout(DEADLINE).unwrap());
        }
        let changes = threads.windows(2).filter(|pair| pair[0] != pair[1]).count();
        // Round robin would change each time.
        assert!(changes <= 10, "{wake:?}: the work went from thread to thread: {threads:?}");
    }
}

#[test]
fn n_packets_wake_n_waiting_threads() {
    for wake in BOTH {
        const THREADS: usize = 4;
        let ledger = Ledger::new();
        let port = port(THREADS, wake);
        let inside = Arc::new(AtomicUsize::new(0));
        let met = inside.clone();
        let _crew = Crew::start(&port, THREADS, move |_, _| {
            met.fetch_add(1, SeqCst);
            // Computing, so that no thread is replaced for being blocked.
            spin_until("a packet for each thread has woken each", || met.load(SeqCst) >= THREADS);
        });
        (0..THREADS as u64).for_each(|n| post(&port, &ledger, n));
        eventually("all threads met", || inside.load(SeqCst) == THREADS);
    }
}

#[test]
fn a_thread_that_finishes_takes_the_next_packet_itself() {
    const COUNT: u64 = 60;
    let ledger = Ledger::new();
    let port = port(1, Wake::Eager);
    let go = Arc::new(AtomicBool::new(false));
    let who = Arc::new(Mutex::new(Vec::new()));
    let (begin, seen) = (go.clone(), who.clone());
    let _crew = Crew::start(&port, 4, move |thread, packet| {
        if packet.context.number == 0 {
            spin_until("all packets are posted", || begin.load(SeqCst));
        }
        seen.lock().unwrap().push(thread);
    });
    (0..COUNT).for_each(|n| post(&port, &ledger, n));
    go.store(true, SeqCst);
    eventually("all packets are handled", || who.lock().unwrap().len() == COUNT as usize);
    let threads: HashSet<usize> = who.lock().unwrap().iter().copied().collect();
    assert_eq!(threads.len(), 1, "the work was handed around although one thread was running all the time");
}

// --- How many run ---

/// The most handlers that ran at the same time.
fn peak(limit: usize, threads: usize, wake: Wake) -> usize {
    const COUNT: u64 = 300;
    let ledger = Ledger::new();
    let port = port(limit, wake);
    let running = Arc::new(AtomicUsize::new(0));
    let most = Arc::new(AtomicUsize::new(0));
    let done = Arc::new(AtomicU64::new(0));
    let counters = (running.clone(), most.clone(), done.clone());
    let _crew = Crew::start(&port, threads, move |_, _| {
        let (running, most, done) = &counters;
        most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
        burn(Duration::from_micros(200));
        running.fetch_sub(1, SeqCst);
        done.fetch_add(1, SeqCst);
    });
    (0..COUNT).for_each(|n| post(&port, &ledger, n));
    eventually("all packets are handled", || done.load(SeqCst) == COUNT);
    most.load(SeqCst)
}

#[test]
fn handlers_that_compute_reach_the_limit_and_never_exceed_it() {
    for wake in BOTH {
        for (limit, threads) in [(1, 1), (1, 2), (1, 6), (2, 2), (2, 6), (3, 8)] {
            assert_eq!(peak(limit, threads, wake), limit, "{wake:?}, limit {limit}, {threads} threads");
        }
    }
}

#[test]
fn fewer_threads_than_the_limit_are_no_mistake() {
    assert_eq!(peak(8, 2, Wake::Eager), 2);
}

#[test]
fn a_batch_counts_as_one_running_thread() {
    let ledger = Ledger::new();
    let port = port(2, Wake::Eager);
    let (running, most, taken) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    const COUNT: usize = 400;
    (0..COUNT as u64).for_each(|n| post(&port, &ledger, n));
    thread::scope(|scope| {
        for _ in 0..5 {
            scope.spawn(|| {
                while let Ok(batch) = port.get_many(8) {
                    most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                    let mut seen = 0;
                    for packet in batch {
                        packet.context.arrive();
                        seen += 1;
                        burn(Duration::from_micros(100));
                    }
                    running.fetch_sub(1, SeqCst);
                    if taken.fetch_add(seen, SeqCst) + seen == COUNT {
                        port.close();
                    }
                }
            });
        }
    });
    assert_eq!(taken.load(SeqCst), COUNT);
    assert_eq!(most.load(SeqCst), 2);
}

#[test]
fn at_the_limit_a_get_finds_nothing_although_the_queue_is_not_empty() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let (stop, spinning) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        post(&port, &ledger, 1);
        scope.spawn(|| {
            next(&port);
            spinning.store(true, SeqCst);
            spin_until("the test is over", || stop.load(SeqCst));
        });
        eventually("a handler runs", || spinning.load(SeqCst));
        post(&port, &ledger, 2);
        let zero = port.get_timeout(Duration::ZERO).map(|packet| packet.context.number);
        let some = port.get_timeout(Duration::from_millis(20)).map(|packet| packet.context.number);
        let many = port.get_many_timeout(2, Duration::ZERO).map(|batch| batch.len());
        stop.store(true, SeqCst);
        assert_eq!(zero, Err(GetError::TimedOut));
        assert_eq!(some, Err(GetError::TimedOut));
        assert_eq!(many, Err(GetError::TimedOut));
    });
    // The slot came back with the thread's end.
    assert_eq!(next(&port).context.number, 2);
}

#[test]
fn a_thread_that_timed_out_counts_as_running_until_it_blocks() {
    let ledger = Ledger::new();
    let port = port(1, Wake::Eager);
    let taken = Arc::new(AtomicBool::new(false));
    let flag = taken.clone();
    let _crew = Crew::start(&port, 1, move |_, _| flag.store(true, SeqCst));
    let _ = port.get_timeout(Duration::ZERO);
    post(&port, &ledger, 1);
    burn(Duration::from_millis(30));
    assert!(!taken.load(SeqCst), "a packet was released although a thread runs and the limit is 1");
    eventually("the packet is released once this thread sleeps", || taken.load(SeqCst));
}

#[test]
fn a_spinning_handler_keeps_its_slot() {
    for wake in BOTH {
        let ledger = Ledger::new();
        let port = port(1, wake);
        let (ended, early) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let done = Arc::new(AtomicBool::new(false));
        let flags = (ended.clone(), early.clone(), done.clone());
        let _crew = Crew::start(&port, 3, move |_, packet| {
            let (ended, early, done) = &flags;
            if packet.context.number == 1 {
                // Some fifty ticks of the watchdog timer.
                burn(Duration::from_millis(50));
                ended.store(true, SeqCst);
            } else {
                early.store(!ended.load(SeqCst), SeqCst);
                done.store(true, SeqCst);
            }
        });
        post(&port, &ledger, 1);
        post(&port, &ledger, 2);
        eventually("both packets are handled", || done.load(SeqCst));
        assert!(!early.load(SeqCst), "{wake:?}: a second handler ran beside one that was computing");
    }
}

#[test]
fn others_go_on_while_fewer_than_the_limit_spin() {
    for wake in BOTH {
        let ledger = Ledger::new();
        let port = port(2, wake);
        let done = Arc::new(AtomicU64::new(0));
        let count = done.clone();
        let _crew = Crew::start(&port, 3, move |_, packet| {
            if packet.context.number == 0 {
                spin_until("the others are done", || count.load(SeqCst) == 100);
            } else {
                count.fetch_add(1, SeqCst);
            }
        });
        (0..=100).for_each(|n| post(&port, &ledger, n));
        eventually("the packets behind the spinning handler are handled", || done.load(SeqCst) == 100);
    }
}

// --- Blocking ---

/// At limit 1 the first packet's handler blocks in `block` until `release`, which happens only after another thread
/// has handled the second packet. Returns how often the port itself had to find out.
fn is_replaced_while_blocked(
    how: &str,
    prepare: impl Fn(),
    block: impl Fn() + Send + Sync + 'static,
    release: impl Fn(),
) -> u64 {
    let block = Arc::new(block);
    let mut write_offs = 0;
    for wake in BOTH {
        for both_at_once in [false, true] {
            let ledger = Ledger::new();
            let port = port(1, wake);
            let first = Arc::new((AtomicBool::new(false), AtomicBool::new(false)));
            let second = Arc::new(AtomicBool::new(false));
            let (block, flags, flag) = (block.clone(), first.clone(), second.clone());
            prepare();
            let _crew = Crew::start(&port, 2, move |_, packet| {
                if packet.context.number == 1 {
                    flags.0.store(true, SeqCst);
                    block();
                    flags.1.store(true, SeqCst);
                } else {
                    flag.store(true, SeqCst);
                }
            });
            post(&port, &ledger, 1);
            if !both_at_once {
                eventually("the first handler runs", || first.0.load(SeqCst));
            }
            post(&port, &ledger, 2);
            eventually(&format!("a handler that is blocked by {how} is replaced"), || second.load(SeqCst));
            assert!(!first.1.load(SeqCst), "{how} did not block");
            release();
            eventually("the blocked handler goes on", || first.1.load(SeqCst));
            eventually("nobody counts as blocked", || port.stats().blocked == 0);
            // Where the kernel keeps the queue it does not say; there is no timer of ours then.
            write_offs += port.stats().write_offs.unwrap_or(0);
        }
    }
    write_offs
}

#[test]
fn a_handler_that_announces_blocking_is_replaced_at_once() {
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let wait = move || blocking(|| told.lock().unwrap().recv_timeout(DEADLINE).unwrap());
    let write_offs = is_replaced_while_blocked("blocking()", || {}, wait, || tell.send(()).unwrap());
    assert_eq!(write_offs, 0, "the announcement was not heard: the timer had to find the blocked thread");
}

#[test]
fn an_announcement_does_not_wait_for_the_timer() {
    let replaced_without_a_tick = || {
        let ledger = Ledger::new();
        let port = port(1, Wake::default());
        let [before, after] = [const { AtomicU64::new(u64::MAX) }; 2];
        let ticks = Arc::new((before, after));
        let (figures, own) = (ticks.clone(), port.clone());
        let posted = Arc::new(AtomicBool::new(false));
        let both = posted.clone();
        let _crew = Crew::start(&port, 2, move |_, packet| {
            if packet.context.number == 1 {
                spin_until("both packets are posted", || both.load(SeqCst));
                figures.0.store(own.stats().ticks.unwrap_or(0), SeqCst);
                blocking(|| eventually("the other packet is handled", || figures.1.load(SeqCst) != u64::MAX));
            } else {
                figures.1.store(own.stats().ticks.unwrap_or(0), SeqCst);
            }
        });
        post(&port, &ledger, 1);
        post(&port, &ledger, 2);
        posted.store(true, SeqCst);
        eventually("the second packet is handled", || ticks.1.load(SeqCst) != u64::MAX);
        ticks.0.load(SeqCst) == ticks.1.load(SeqCst)
    };
    // A tick may go off for another reason, and on a loaded machine often does; but not nearly each time.
    let good = (0..50).filter(|_| replaced_without_a_tick()).count();
    println!("{good} of 50 without a tick");
    assert!(good >= 10, "only {good} of 50 threads that announced that they block were replaced without a tick");
}

#[test]
fn a_handler_that_waits_for_a_message_is_replaced() {
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let wait = move || told.lock().unwrap().recv_timeout(DEADLINE).unwrap();
    is_replaced_while_blocked("a channel", || {}, wait, || tell.send(()).unwrap());
}

#[test]
fn a_handler_that_sleeps_is_replaced() {
    let awake = Arc::new(AtomicBool::new(false));
    let flag = awake.clone();
    let sleep = move || {
        while !flag.swap(false, SeqCst) {
            thread::sleep(Duration::from_millis(20));
        }
    };
    is_replaced_while_blocked("sleep", || {}, sleep, || awake.store(true, SeqCst));
}

#[test]
fn a_handler_that_waits_for_a_mutex_is_replaced() {
    let mutex = Arc::new(Mutex::new(()));
    let wanted = mutex.clone();
    let held = RefCell::new(None);
    let lock = move || drop(wanted.lock().unwrap());
    is_replaced_while_blocked(
        "a mutex",
        || *held.borrow_mut() = Some(mutex.lock().unwrap()),
        lock,
        || {
            drop(held.take());
        },
    );
}

#[test]
fn a_handler_that_reads_a_blocking_socket_is_replaced() {
    let (mine, yours) = pair();
    let read = move || assert_eq!((&yours).read(&mut [0; 1]).unwrap(), 1);
    is_replaced_while_blocked("a blocking read", || {}, read, || (&mine).write_all(b"x").unwrap());
}

#[test]
fn data_that_arrives_while_the_only_running_handler_blocks_is_received() {
    // Nobody posts and nobody returns: the event itself has to bring the replacement.
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let (stream, mut peer) = connection(&port, 0);
    stream.recv(vec![0; 16], ledger.token(2)).unwrap();
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let (inside, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let flags = (inside.clone(), came.clone());
    let _crew = Crew::start(&port, 2, move |_, packet| {
        if packet.context.number == 1 {
            flags.0.store(true, SeqCst);
            told.lock().unwrap().recv_timeout(DEADLINE).unwrap();
        } else {
            assert_eq!(received(packet).result.unwrap(), 1);
            flags.1.store(true, SeqCst);
        }
    });
    post(&port, &ledger, 1);
    eventually("a handler blocks", || inside.load(SeqCst));
    peer.write_all(b"x").unwrap();
    eventually("the data is received", || came.load(SeqCst));
    tell.send(()).unwrap();
}

#[test]
fn a_blocked_thread_that_wakes_runs_on_beside_its_replacement_and_no_third_is_released() {
    let ledger = Ledger::new();
    let port = port(1, Wake::Eager);
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let steps: Arc<[AtomicBool; 4]> = Arc::default();
    let [resumed, second, third, go] = [0, 1, 2, 3];
    let flags = steps.clone();
    let _crew = Crew::start(&port, 3, move |_, packet| match packet.context.number {
        1 => {
            blocking(|| told.lock().unwrap().recv_timeout(DEADLINE).unwrap());
            flags[resumed].store(true, SeqCst);
            spin_until("the test lets the first handler go", || flags[go].load(SeqCst));
        }
        2 => {
            flags[second].store(true, SeqCst);
            spin_until("the blocked handler runs on", || flags[resumed].load(SeqCst));
        }
        _ => flags[third].store(true, SeqCst),
    });
    post(&port, &ledger, 1);
    eventually("the first handler blocks", || port.stats().blocked == 1);
    post(&port, &ledger, 2);
    eventually("the second runs", || steps[second].load(SeqCst));
    post(&port, &ledger, 3);
    tell.send(()).unwrap();
    eventually("the second has returned while the first runs", || port.stats().waiting == 2);
    thread::sleep(Duration::from_millis(20));
    assert!(!steps[third].load(SeqCst), "the limit is 1 and one thread runs");
    assert_eq!(port.stats().active, 1);
    steps[go].store(true, SeqCst);
    eventually("the third packet is handled", || steps[third].load(SeqCst));
}

#[test]
fn a_thread_that_was_found_blocked_counts_again_once_it_computes() {
    let ledger = Ledger::new();
    let port = port(1, Wake::Eager);
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let steps: Arc<[AtomicBool; 4]> = Arc::default();
    let [second, third, leave, go] = [0, 1, 2, 3];
    let flags = steps.clone();
    let _crew = Crew::start(&port, 3, move |_, packet| match packet.context.number {
        1 => {
            // Not announced: the port has to find out that it blocks, and that it runs again.
            told.lock().unwrap().recv_timeout(DEADLINE).unwrap();
            spin_until("the test lets the first handler go", || flags[go].load(SeqCst));
        }
        2 => {
            flags[second].store(true, SeqCst);
            spin_until("the test lets the second handler go", || flags[leave].load(SeqCst));
        }
        _ => flags[third].store(true, SeqCst),
    });
    post(&port, &ledger, 1);
    post(&port, &ledger, 2);
    eventually("the second runs beside the blocked first", || steps[second].load(SeqCst));
    assert_eq!((port.stats().active, port.stats().blocked), (1, 1));
    post(&port, &ledger, 3);
    tell.send(()).unwrap();
    eventually("both count as running", || (port.stats().active, port.stats().blocked) == (2, 0));
    steps[leave].store(true, SeqCst);
    eventually("the second has returned while the first runs", || port.stats().waiting == 2);
    thread::sleep(Duration::from_millis(20));
    assert!(!steps[third].load(SeqCst), "the limit is 1 and one thread runs");
    steps[go].store(true, SeqCst);
    eventually("the third packet is handled", || steps[third].load(SeqCst));
}

#[test]
fn a_port_with_nothing_to_do_does_not_tick_whoever_sleeps() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let _crew = Crew::start(&port, 3, move |_, _| told.lock().unwrap().recv_timeout(DEADLINE).unwrap());
    eventually("all wait", || port.stats().waiting == 3);
    post(&port, &ledger, 1);
    eventually("the first has its packet", || port.stats().waiting == 2);
    // Takes the slot of the first, and nobody wants it of the second.
    post(&port, &ledger, 2);
    eventually("the second has its packet", || port.stats().waiting == 1);
    eventually("the timer has gone off for the last time", || {
        let before = port.stats().ticks;
        thread::sleep(Duration::from_millis(100));
        port.stats().ticks == before
    });
    tell.send(()).unwrap();
    tell.send(()).unwrap();
}

#[test]
fn blocking_may_nest_and_a_panic_in_it_ends_it() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    assert_eq!(blocking(|| 42), 42, "in a thread that belongs to no port it only calls");
    post(&port, &ledger, 1);
    next(&port);
    assert_eq!(port.stats().active, 1);
    blocking(|| {
        assert_eq!((port.stats().active, port.stats().blocked), (0, 1));
        blocking(|| assert_eq!((port.stats().active, port.stats().blocked), (0, 1)));
        assert_eq!(port.stats().active, 0, "the outer call is still blocking");
    });
    assert_eq!((port.stats().active, port.stats().blocked), (1, 0));
    let panicked = std::panic::catch_unwind(|| blocking(|| panic!("on purpose, in a test")));
    assert!(panicked.is_err());
    assert_eq!((port.stats().active, port.stats().blocked), (1, 0));
}

#[test]
fn blocking_inside_a_get_inside_blocking_is_heard() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    (1..=2).for_each(|n| post(&port, &ledger, n));
    assert_eq!(next(&port).context.number, 1);
    let in_both = |active, blocked| {
        let stats = port.stats();
        assert_eq!((stats.active, stats.blocked), (active, blocked));
    };
    blocking(|| {
        in_both(0, 1);
        assert_eq!(next(&port).context.number, 2);
        in_both(1, 0);
        blocking(|| {
            in_both(0, 1);
            blocking(|| in_both(0, 1));
            in_both(0, 1);
        });
        in_both(1, 0);
    });
    in_both(1, 0);
}

#[test]
fn a_get_inside_blocking_is_counted_once() {
    let ledger = Ledger::new();
    let (one, two) = (port(1, Wake::default()), port(1, Wake::default()));
    post(&one, &ledger, 1);
    post(&one, &ledger, 2);
    next(&one);
    blocking(|| {
        assert_eq!(next(&one).context.number, 2);
        assert_eq!(one.stats().active, 1);
    });
    assert_eq!(one.stats().active, 1);
    blocking(|| {
        // Moves the thread to another port: the first one must not count it when the closure ends.
        assert_eq!(two.get_timeout(Duration::ZERO).unwrap_err(), GetError::TimedOut);
    });
    assert_eq!((one.stats().active, one.stats().blocked), (0, 0));
    assert_eq!((two.stats().active, two.stats().blocked), (1, 0));
}

#[test]
fn a_blocked_worker_is_named_in_the_report() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let _crew = Crew::start(&port, 2, move |_, _| told.lock().unwrap().recv_timeout(DEADLINE).unwrap());
    post(&port, &ledger, 1);
    // The second packet makes the port look.
    post(&port, &ledger, 2);
    eventually("both handlers are blocked", || {
        let blocked = port.workers().iter().filter(|worker| worker.state == WorkerState::Blocked).count();
        blocked >= 1 && port.stats().queued == 0
    });
    let report = port.workers();
    assert_eq!(report.len(), 2);
    let blocked = report.iter().find(|worker| worker.state == WorkerState::Blocked).unwrap();
    assert!(blocked.blocked_for.is_some());
    assert!(blocked.thread > 0);
    (0..2).for_each(|_| tell.send(()).unwrap());
    eventually("both wait again", || port.workers().iter().all(|worker| worker.state == WorkerState::Waiting));
}

// --- Leaving ---

#[test]
fn a_thread_that_exits_gives_its_slot_back() {
    for post_first in [false, true] {
        let ledger = Ledger::new();
        let port = port(1, Wake::Eager);
        let (go, took) = (AtomicBool::new(false), AtomicBool::new(false));
        let second = Arc::new(AtomicBool::new(false));
        thread::scope(|scope| {
            scope.spawn(|| {
                next(&port);
                took.store(true, SeqCst);
                spin_until("the test lets the thread exit", || go.load(SeqCst));
            });
            post(&port, &ledger, 1);
            eventually("the thread has the packet", || took.load(SeqCst));
            let flag = second.clone();
            let _crew = Crew::start(&port, 1, move |_, _| flag.store(true, SeqCst));
            if post_first {
                post(&port, &ledger, 2);
                go.store(true, SeqCst);
            } else {
                go.store(true, SeqCst);
                eventually("the slot is free", || port.stats().active == 0);
                post(&port, &ledger, 2);
            }
            eventually("the next packet is handled", || second.load(SeqCst));
        });
        assert_eq!(ledger.arrived(), 2, "the packet of the thread that has ended is not delivered again");
    }
}

#[test]
fn a_thread_that_waits_on_another_port_gives_its_slot_back() {
    let ledger = Ledger::new();
    let (one, two) = (port(1, Wake::Eager), port(1, Wake::Eager));
    let (go, took) = (AtomicBool::new(false), AtomicBool::new(false));
    let second = Arc::new(AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            next(&one);
            took.store(true, SeqCst);
            spin_until("the test lets the thread move", || go.load(SeqCst));
            assert_eq!(next(&two).context.number, 3);
        });
        post(&one, &ledger, 1);
        eventually("the thread has a packet of the first port", || took.load(SeqCst));
        let flag = second.clone();
        let _crew = Crew::start(&one, 1, move |_, _| flag.store(true, SeqCst));
        post(&one, &ledger, 2);
        burn(Duration::from_millis(10));
        assert!(!second.load(SeqCst), "the first port's slot was not taken");
        go.store(true, SeqCst);
        eventually("the first port's next packet is handled", || second.load(SeqCst));
        eventually("the thread waits on the second port", || two.stats().waiting == 1);
        assert_eq!(one.workers().len(), 1, "the thread belongs to the second port now");
        post(&two, &ledger, 3);
    });
}

#[test]
fn a_thread_may_serve_two_ports_in_turn() {
    let ledger = Ledger::new();
    let ports = [port(1, Wake::default()), port(1, Wake::default())];
    for n in 0..200 {
        post(&ports[n % 2], &ledger, n as u64);
        assert_eq!(next(&ports[n % 2]).context.number, n as u64);
        assert_eq!(ports[n % 2].stats().active, 1);
        assert_eq!(ports[(n + 1) % 2].stats().active, 0);
    }
}

#[test]
fn a_port_may_end_before_the_threads_that_belonged_to_it() {
    let ledger = Ledger::new();
    let first = port(1, Wake::default());
    post(&first, &ledger, 1);
    next(&first);
    drop(first);
    let second = port(1, Wake::default());
    post(&second, &ledger, 2);
    assert_eq!(next(&second).context.number, 2);
    assert_eq!(second.stats().active, 1);
}

struct AtExit {
    port: Port,
    mint: Mint,
    first: u64,
    problems: Arc<Mutex<Vec<String>>>,
}

impl Drop for AtExit {
    fn drop(&mut self) {
        let mut problems = Vec::new();
        let mut check = |what: &str, holds: bool| {
            if !holds {
                problems.push(format!("{} (contexts from {})", what, self.first));
            }
        };
        for n in 0..6 {
            check("post", self.port.post(0, 0, self.mint.token(self.first + n)).is_ok());
        }
        match self.port.get_timeout(Duration::ZERO) {
            Ok(packet) => {
                packet.context.arrive();
                check("order", packet.context.number == self.first);
            }
            Err(error) => check(&format!("get: {error}"), false),
        }
        match self.port.get_many_timeout(4, Duration::ZERO) {
            // Two are walked through; the others go back to the head of the queue.
            Ok(batch) => batch.take(2).enumerate().for_each(|(n, packet)| {
                packet.context.arrive();
                check("order in a batch", packet.context.number == self.first + 1 + n as u64);
            }),
            Err(error) => check(&format!("get_many: {error}"), false),
        }
        for n in 3..6 {
            match self.port.get_timeout(Duration::ZERO) {
                Ok(packet) => {
                    packet.context.arrive();
                    check("order behind a batch", packet.context.number == self.first + n);
                }
                Err(error) => check(&format!("get {n}: {error}"), false),
            }
        }
        check("nothing is left", self.port.get_timeout(Duration::ZERO).is_err());
        check("blocking", blocking(|| 1) == 1);
        let mut all = self.problems.lock().unwrap();
        all.extend(problems);
        all.push(format!("destructor {} is done", self.first));
    }
}

thread_local! {
    static EARLY: RefCell<Option<AtExit>> = const { RefCell::new(None) };
    static LATE: RefCell<Option<AtExit>> = const { RefCell::new(None) };
}

#[test]
fn destructors_of_thread_locals_may_post_and_get() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let problems = Arc::new(Mutex::new(Vec::new()));
    let make = |first| AtExit { port: port.clone(), mint: ledger.mint(), first, problems: problems.clone() };
    let (early, late) = (make(100), make(200));
    thread::spawn(move || {
        let port = late.port.clone();
        // The one is destroyed after the thread's binding to the port, the other before.
        EARLY.set(Some(early));
        assert_eq!(port.get_timeout(Duration::ZERO).unwrap_err(), GetError::TimedOut);
        LATE.set(Some(late));
    })
    .join()
    .unwrap();
    let mut said = problems.lock().unwrap().clone();
    said.sort_unstable();
    assert_eq!(said, ["destructor 100 is done", "destructor 200 is done"]);
    assert_eq!(port.stats().active, 0, "the thread is gone, and has left no slot taken");
    assert!(port.workers().is_empty());
}

// --- Batches ---

#[test]
fn a_batch_takes_what_is_there_in_order_and_does_not_wait_for_more() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    (0..5).for_each(|n| post(&port, &ledger, n));
    let numbers = |most| -> Vec<u64> {
        let batch = port.get_many(most).unwrap();
        batch.map(|packet| packet.context.number).collect()
    };
    assert_eq!(numbers(3), [0, 1, 2]);
    assert_eq!(numbers(100), [3, 4]);
}

#[test]
fn the_rest_of_a_dropped_batch_goes_back_to_the_head_of_the_queue() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    (0..6).for_each(|n| post(&port, &ledger, n));
    let mut batch = port.get_many(4).unwrap();
    assert_eq!(batch.len(), 4);
    assert_eq!(batch.next().unwrap().context.number, 0);
    drop(batch);
    assert_eq!(port.stats().queued, 5);
    for expected in 1..6 {
        assert_eq!(next(&port).context.number, expected);
    }
    let stats = port.stats();
    assert_eq!((stats.inserted, stats.removed), (6, 6), "what went back does not count twice");
}

#[test]
fn the_rest_of_a_batch_goes_back_when_its_thread_calls_get() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    (0..4).for_each(|n| post(&port, &ledger, n));
    let mut batch = port.get_many(3).unwrap();
    assert_eq!(batch.next().unwrap().context.number, 0);
    assert_eq!(next(&port).context.number, 1);
    assert!(batch.is_empty());
    assert!(batch.next().is_none(), "the packet is somebody else's now");
    drop(batch);
    assert_eq!(next(&port).context.number, 2);
    assert_eq!(next(&port).context.number, 3);
}

#[test]
fn a_second_batch_of_a_thread_takes_nothing_from_the_first_but_what_went_back() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    (0..6).for_each(|n| post(&port, &ledger, n));
    let mut first = port.get_many(3).unwrap();
    assert_eq!(first.next().unwrap().context.number, 0);
    let second = port.get_many(3).unwrap();
    // The older handle may be dropped at any time without disturbing the newer one's packets or their order.
    drop(first);
    let mut numbers: Vec<u64> = Vec::new();
    for packet in second {
        packet.context.arrive();
        numbers.push(packet.context.number);
    }
    while let Ok(packet) = port.get_timeout(Duration::ZERO) {
        packet.context.arrive();
        numbers.push(packet.context.number);
    }
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
}

/// At limit 1 a thread takes four packets, handles one and blocks; the other three have to be handled meanwhile.
fn a_blocked_batch_holds_nothing(block: impl FnOnce(&dyn Fn() -> bool) + Send) {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    (0..4).for_each(|n| post(&port, &ledger, n));
    let others = Arc::new(AtomicU64::new(0));
    thread::scope(|scope| {
        let (tell, told) = mpsc::channel();
        let count = others.clone();
        let port = &port;
        let thread = scope.spawn(move || {
            let mut batch = port.get_many(4).unwrap();
            let first = batch.next().unwrap().context.number;
            tell.send(()).unwrap();
            block(&|| count.load(SeqCst) == 3);
            (first, batch.next().map(|packet| packet.context.number))
        });
        told.recv_timeout(DEADLINE).unwrap();
        let count = others.clone();
        let _crew = Crew::start(port, 1, move |_, _| {
            count.fetch_add(1, SeqCst);
        });
        assert_eq!(thread.join().unwrap(), (0, None));
    });
    assert_eq!(others.load(SeqCst), 3);
}

#[test]
fn the_rest_of_a_batch_goes_back_when_its_thread_announces_that_it_blocks() {
    a_blocked_batch_holds_nothing(|others_are_done| {
        blocking(|| eventually("the rest of the batch is handled by others", others_are_done));
    });
}

#[test]
fn the_rest_of_a_batch_goes_back_when_its_thread_is_found_asleep() {
    a_blocked_batch_holds_nothing(|others_are_done| {
        let until = Instant::now() + DEADLINE;
        while !others_are_done() {
            assert!(Instant::now() < until, "a sleeping thread holds the rest of its batch");
            thread::sleep(Duration::from_millis(50));
        }
    });
}

#[test]
fn the_rest_of_a_batch_goes_back_when_its_thread_ends() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    (0..4).for_each(|n| post(&port, &ledger, n));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut batch = port.get_many(4).unwrap();
            assert_eq!(batch.next().unwrap().context.number, 0);
            // Not dropped: the thread's end has to do.
            std::mem::forget(batch);
        });
    });
    for expected in 1..4 {
        assert_eq!(next(&port).context.number, expected);
    }
}

#[test]
fn batches_of_a_port_with_sockets_bring_their_packets_too() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let connections: Vec<_> = (0..40).map(|n| connection(&port, n)).collect();
    for (n, (stream, peer)) in connections.iter().enumerate() {
        let mut peer = peer;
        stream.recv(vec![0; 8], ledger.token(n as u64)).unwrap();
        peer.write_all(b"x").unwrap();
    }
    let mut seen = HashSet::new();
    let until = Instant::now() + DEADLINE;
    while seen.len() < connections.len() {
        assert!(Instant::now() < until);
        for packet in port.get_many_timeout(7, DEADLINE).unwrap() {
            packet.context.arrive();
            seen.insert(received(packet).number);
        }
    }
}

// --- Closing ---

#[test]
fn closing_wakes_every_waiting_thread_as_abandoned() {
    for (limit, wake) in [(1, Wake::Eager), (4, Wake::Adaptive)] {
        let port = port(limit, wake);
        thread::scope(|scope| {
            let mut threads = Vec::new();
            for n in 0..9 {
                let port = &port;
                threads.push(scope.spawn(move || match n % 3 {
                    0 => port.get().map(drop),
                    1 => port.get_timeout(Duration::from_secs(3600)).map(drop),
                    _ => port.get_many(4).map(drop),
                }));
                eventually("the thread waits", || port.stats().waiting == n + 1);
            }
            port.close();
            for thread in threads {
                assert_eq!(thread.join().unwrap(), Err(GetError::Abandoned));
            }
        });
        assert_eq!(GetError::Abandoned.win32(), 735);
        assert_eq!(port.get().unwrap_err(), GetError::Abandoned);
        assert_eq!(port.get_timeout(Duration::ZERO).unwrap_err(), GetError::Abandoned);
        port.close();
    }
}

#[test]
fn a_closed_port_gives_posts_back_and_frees_what_was_queued() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    (0..10).for_each(|n| post(&port, &ledger, n));
    let mut batch = port.get_many(4).unwrap();
    let kept = batch.next().unwrap();
    port.close();
    assert_eq!(ledger.live(), 1, "all but the packet that was taken out are freed");
    assert!(batch.next().is_none());
    drop(batch);
    let unposted = port.post(1, 2, ledger.token(3)).unwrap_err();
    assert_eq!((unposted.reason, unposted.key, unposted.context.number), (UnpostedReason::Closed, 2, 3));
    drop(kept);
}

#[test]
fn the_last_handle_closes_the_port_and_no_other_does() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let clone = port.clone();
    post(&port, &ledger, 1);
    drop(port);
    assert_eq!(next(&clone).context.number, 1);
    let (stream, _peer) = connection(&clone, 1);
    stream.recv(vec![0; 8], ledger.token(2)).unwrap();
    post(&clone, &ledger, 3);
    drop(clone);
    eventually("the port's end frees what was queued and outstanding", || ledger.live() == 0);
    assert!(stream.recv(vec![0; 8], ledger.token(4)).is_err(), "the device does not keep the port open");
}

#[test]
fn ports_are_made_and_closed_without_leaking_descriptors() {
    // A process of its own, because other tests open and close descriptors all the time.
    in_child("ports_are_made_and_closed_without_leaking_descriptors", || {
        let count = || std::fs::read_dir("/proc/self/fd").unwrap().count();
        let ledger = Ledger::new();
        let round = || {
            let port = port(2, Wake::default());
            let (stream, _peer) = connection(&port, 1);
            stream.recv(vec![0; 8], ledger.token(0)).unwrap();
            port.timer(Duration::from_secs(3600), 0, ledger.token(1)).unwrap();
            let notifier = port.notifier().unwrap();
            thread::scope(|scope| {
                let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| port.get().is_err())).collect();
                eventually("all wait", || port.stats().waiting == 3);
                port.close();
                assert!(threads.into_iter().all(|thread| thread.join().unwrap()));
            });
            drop(notifier);
        };
        round();
        let before = count();
        (0..50).for_each(|_| round());
        assert_eq!(count(), before);
    });
}

// --- The notifier ---

#[cfg(unix)]
fn is_readable(notifier: &wharf::Notifier) -> bool {
    let mut fds = [PollFd::new(notifier, PollFlags::IN)];
    rustix::event::poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap();
    fds[0].revents().contains(PollFlags::IN)
}

#[cfg(unix)]
#[test]
fn the_notifier_is_readable_while_something_is_queued() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    post(&port, &ledger, 0);
    let notifier = port.notifier().unwrap();
    assert!(is_readable(&notifier), "what was queued before the notifier was made counts");
    next(&port);
    assert!(port.get_timeout(Duration::ZERO).is_err());
    assert!(!is_readable(&notifier), "the queue is empty");
    for n in 0..3 {
        post(&port, &ledger, n);
    }
    for n in 0..3 {
        assert!(is_readable(&notifier));
        assert!(is_readable(&notifier), "looking takes nothing");
        assert_eq!(next(&port).context.number, n);
    }
    assert!(port.get_timeout(Duration::ZERO).is_err());
    assert!(!is_readable(&notifier));
    port.close();
    assert!(is_readable(&notifier), "whoever waits for a closed port is woken");
}

#[cfg(unix)]
#[test]
fn the_notifier_hears_of_sockets_and_timers_that_nobody_polls() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let notifier = port.notifier().unwrap();
    let (stream, mut peer) = connection(&port, 0);
    stream.recv(vec![0; 8], ledger.token(1)).unwrap();
    // The new socket may have made it readable; a get that finds nothing settles that.
    assert!(port.get_timeout(Duration::from_millis(1)).is_err());
    assert!(!is_readable(&notifier));
    peer.write_all(b"x").unwrap();
    eventually("the notifier is readable when data came", || is_readable(&notifier));
    assert_eq!(next_received(&port).result.unwrap(), 1);
    let _ = port.get_timeout(Duration::from_millis(1));
    assert!(!is_readable(&notifier));
    port.timer(Duration::from_millis(5), 0, ledger.token(2)).unwrap();
    eventually("the notifier is readable when a timer is due", || is_readable(&notifier));
    assert_eq!(next(&port).context.number, 2);
}

#[cfg(unix)]
#[test]
fn a_program_may_wait_on_the_notifier_alone() {
    let ledger = Ledger::new();
    let port = port(1, Wake::default());
    let notifier = port.notifier().unwrap();
    let (poster, mint) = (port.clone(), ledger.mint());
    const COUNT: u64 = 500;
    let thread = thread::spawn(move || {
        for n in 0..COUNT {
            poster.post(0, 0, mint.token(n)).unwrap();
            if n % 10 == 0 {
                thread::sleep(Duration::from_micros(300));
            }
        }
    });
    let mut taken = 0;
    while taken < COUNT {
        let mut fds = [PollFd::new(&notifier, PollFlags::IN)];
        let timeout = Timespec { tv_sec: DEADLINE.as_secs() as i64, tv_nsec: 0 };
        assert_eq!(rustix::event::poll(&mut fds, Some(&timeout)).unwrap(), 1, "packets are queued and nobody is told");
        while let Ok(packet) = port.get_timeout(Duration::ZERO) {
            assert_eq!(packet.context.number, taken);
            taken += 1;
        }
    }
    thread.join().unwrap();
}

// --- Figures ---

#[test]
fn the_figures_tell_what_the_port_is_at() {
    let ledger = Ledger::new();
    let port = port(3, Wake::default());
    let (_stream, _peer) = connection(&port, 0);
    (0..4).for_each(|n| post(&port, &ledger, n));
    let stats = port.stats();
    assert_eq!((stats.concurrency, stats.devices, stats.queued, stats.active), (3, 1, 4, 0));
    assert_eq!((stats.inserted, stats.removed, stats.waiting, stats.blocked), (4, 0, 0, 0));
    assert!(!stats.engine.is_empty());
    next(&port);
    let stats = port.stats();
    assert_eq!((stats.queued, stats.active, stats.inserted, stats.removed), (3, 1, 4, 1));
    let _crew = {
        (0..3).for_each(|_| drop(next(&port)));
        Crew::start(&port, 2, |_, _| {})
    };
    assert_eq!((port.stats().waiting, port.stats().active), (2, 1));
    let text = format!("{port:?}");
    assert!(text.contains("concurrency") || text.contains("limit"), "{text}");
}

// --- All at once ---

#[test]
fn no_packet_is_stranded_whatever_the_handlers_do() {
    const PRODUCERS: u64 = 3;
    const EACH: u64 = 700;
    for (limit, threads, wake) in [(1, 3, Wake::Adaptive), (2, 5, Wake::Adaptive), (2, 5, Wake::Eager)] {
        let seed = fastrand::u64(..);
        println!("seed {seed}, limit {limit}, {threads} threads, {wake:?}");
        let ledger = Ledger::new();
        let port = port(limit, wake);
        let done = Arc::new(AtomicU64::new(0));
        let count = done.clone();
        let _crew = Crew::start(&port, threads, move |_, packet| {
            match packet.context.number % 50 {
                0 => thread::sleep(Duration::from_micros(1500)),
                1 => blocking(|| thread::sleep(Duration::from_micros(300))),
                2..10 => burn(Duration::from_micros(100)),
                10 => thread::yield_now(),
                _ => {}
            }
            count.fetch_add(1, SeqCst);
        });
        thread::scope(|scope| {
            for producer in 0..PRODUCERS {
                let (port, mint) = (&port, ledger.mint());
                let mut random = fastrand::Rng::with_seed(seed ^ producer);
                scope.spawn(move || {
                    for _ in 0..EACH {
                        port.post(0, 0, mint.token(random.u64(..))).unwrap();
                        match random.u32(..100) {
                            0..2 => thread::sleep(Duration::from_millis(2)),
                            2..40 => burn(Duration::from_micros(random.u64(1..60))),
                            _ => {}
                        }
                    }
                });
            }
        });
        eventually("all packets are handled", || done.load(SeqCst) == PRODUCERS * EACH);
        eventually("all threads wait", || port.stats().waiting == threads);
        let stats = port.stats();
        assert_eq!((stats.active, stats.blocked, stats.queued), (0, 0, 0));
        assert_eq!(stats.inserted, stats.removed);
    }
}
