//! The concurrency model (C): which threads run.
//!
//! Every row runs alone. Beside its own check the peak number of handlers is measured, with and without blocking, at
//! limits 1, 2 and the number of processors with more workers than that: [`peaks`].

use super::flow::{self, Block};
use crate::kit::*;
use crate::row::{How::*, Row, information, must, should};
use std::collections::HashSet;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};
use wharf::{GetError, blocking};

pub const ROWS: &[Row] = &[
    must(
        "C-01",
        "A thread belongs to a port from its first wait on it, until it ends or waits on another.",
        Alone(bound),
    ),
    must(
        "C-02",
        "A thread belongs to one port at a time: waiting on another frees its slot on the first, and that releases a waiter.",
        Alone(moves),
    ),
    must(
        "C-03",
        "Counted are the threads that have left their wait and neither came back nor block; others, posters too, do not count.",
        Alone(counted),
    ),
    must(
        "C-04",
        "While fewer than the limit run, a packet goes to a waiting thread; at the limit it is queued.",
        Alone(hand_over_at_once),
    ),
    must("C-05", "The thread that began to wait last is released first.", Alone(last_in)),
    must("C-06", "At the limit a caller waits although packets are queued.", Alone(limit_holds)),
    must("C-07", "A worker that comes back takes the next packet itself, while others wait.", Alone(no_switch)),
    must(
        "C-08",
        "When a running worker blocks, announced or not, and packets are queued, another is released.",
        Alone(replaced),
    ),
    must(
        "C-09",
        "A blocked worker that wakes runs on beside its replacement, and nobody else is released until they are below the limit.",
        Alone(runs_on),
    ),
    should("C-10", "At the limit a wait of no time ends with 258, although packets are queued.", Alone(poll_at_limit)),
    must("C-11", "A thread whose wait timed out counts as running until it waits or blocks.", Alone(timed_out_counts)),
    must("C-12", "When a running worker ends, its slot goes to another.", Alone(exit_frees)),
    should("C-13", "A worker that computes keeps its slot, however long.", Alone(spinning)),
    information(
        "C-14",
        "A worker inside its own port's wait is no blocked one: it gave its slot back.",
        Alone(waiting_is_free),
    ),
    must("C-16", "More threads than the limit may wait, and fewer.", Alone(more_and_fewer)),
    should(
        "C-17",
        "A limit of 1 lets one handler run at a time, but for those that are blocked: it is no lock.",
        Alone(no_lock),
    ),
    must(
        "C-18",
        "While a slot is free and a thread waits, nothing stays queued: no event is needed to get it out.",
        Alone(none_waits),
    ),
];

// --- Peaks ---

/// How a handler of [`peak`] spends its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// It computes.
    Computes,
    /// It computes, then blocks and says so.
    Announces,
    /// It computes, then blocks.
    Blocks,
}

/// The most handlers at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peak {
    /// Which compute.
    pub running: usize,
    /// Which have begun and not ended.
    pub inside: usize,
}

/// A limit, how many workers, and what was measured for each style.
pub struct Peaks {
    pub limit: usize,
    pub workers: usize,
    pub styles: [Peak; 3],
}

pub fn peaks(b: &Bench) -> Vec<Peaks> {
    let processors = thread::available_parallelism().unwrap().get();
    [(1, 4), (2, 6), (processors, 2 * processors + 2)]
        .into_iter()
        .map(|(limit, workers)| {
            let styles = [Style::Computes, Style::Announces, Style::Blocks].map(|style| peak(b, limit, workers, style));
            Peaks { limit, workers, styles }
        })
        .collect()
}

/// How often a peak is measured that the machine disturbs.
const TRIES: usize = 3;

/// A worker that waits for a page or for a lock of the kernel while it computes is blocked as any other, and is
/// replaced. On a machine with much else to do that happens now and then, and the peak says nothing then: it is
/// measured again. Only the port knows that it happened, so a peak above the limit counts at once where the port has
/// replaced nobody who did not say so.
fn peak(b: &Bench, limit: usize, workers: usize, style: Style) -> Peak {
    for _ in 1..TRIES {
        let port = b.limited(limit);
        let peak = peak_on(&port, limit, workers, style);
        let replaced = port.stats().write_offs.unwrap_or(0);
        if peak.running <= limit || replaced == 0 {
            return peak;
        }
        b.note(format!("limit {limit}, {style:?}: {} running, {replaced} replaced; once more", peak.running));
    }
    peak_on(&b.limited(limit), limit, workers, style)
}

/// How many compute at once on a port, which is closed by it.
pub fn computing(port: &Port, limit: usize, workers: usize) -> usize {
    peak_on(port, limit, workers, Style::Computes).running
}

fn peak_on(port: &Port, limit: usize, workers: usize, style: Style) -> Peak {
    let packets = workers * 8;
    let (running, most, inside, most_inside, done) =
        (Count::default(), Count::default(), Count::default(), Count::default(), Count::default());
    let counts = (running, most.clone(), inside, most_inside.clone(), done.clone());
    // Nothing is computed before all is posted: posting may map memory, and a thread that needs a page meanwhile waits
    // in the kernel. It is blocked then as any other, and one more runs.
    let posted = Flag::default();
    let all_is_posted = posted.clone();
    let _crew = Crew::start(port, workers, move |_, _| {
        let (running, most, inside, most_inside, done) = &counts;
        most_inside.raise_to(inside.up());
        most.raise_to(running.up());
        // Long enough for another to come, if it may.
        let until = Instant::now() + Duration::from_millis(200);
        while (most.now() < limit || !all_is_posted.is_set()) && Instant::now() < until {
            std::hint::spin_loop();
        }
        burn(Duration::from_micros(300));
        running.down();
        let all_are_here = || {
            let until = Instant::now() + Duration::from_secs(2);
            while most_inside.now() < workers && Instant::now() < until {
                thread::sleep(Duration::from_millis(1));
            }
        };
        match style {
            Style::Computes => {}
            Style::Announces => blocking(all_are_here),
            Style::Blocks => all_are_here(),
        }
        inside.down();
        done.up();
    });
    (0..packets as u64).for_each(|number| port.post(0, 0, number).unwrap());
    posted.set();
    eventually("all packets are handled", || done.now() == packets);
    Peak { running: most.now(), inside: most_inside.now() }
}

/// Measures one setting, writes it down, and checks it.
fn check_peak(b: &Bench, limit: usize, workers: usize, style: Style) {
    let peak = peak(b, limit, workers, style);
    let most = if style == Style::Computes { limit.min(workers) } else { workers };
    b.note(format!("limit {limit}, {workers} workers, {style:?}: {} running, {} inside", peak.running, peak.inside));
    assert_eq!(peak, Peak { running: limit.min(workers), inside: most }, "limit {limit}, {workers} workers, {style:?}");
}

fn processors() -> usize {
    thread::available_parallelism().unwrap().get()
}

// --- Rows ---

fn post(port: &Port, context: u64) {
    port.post(0, 0, context).unwrap();
}

/// How many threads the port calls its own.
fn bound_to(port: &Port) -> usize {
    port.workers().len()
}

fn bound(b: &Bench) {
    let (one, two) = (b.limited(1), b.limited(1));
    let (first, second) = (one.clone(), two.clone());
    let (tell, told) = mpsc::channel();
    let (go, hear) = mpsc::channel::<()>();
    let thread = thread::spawn(move || {
        let step = |what: &'static str| {
            tell.send(what).unwrap();
            let _ = hear.recv_timeout(DEADLINE);
        };
        step("new");
        let _ = first.get_timeout(Duration::ZERO);
        step("waited");
        step("does other things");
        let _ = second.get_timeout(Duration::ZERO);
        step("moved");
    });
    for (step, expected) in [("new", (0, 0)), ("waited", (1, 0)), ("does other things", (1, 0)), ("moved", (0, 1))] {
        assert_eq!(told.recv_timeout(DEADLINE).unwrap(), step);
        assert_eq!((bound_to(&one), bound_to(&two)), expected, "{step}");
        go.send(()).unwrap();
    }
    thread.join().unwrap();
    eventually("it belongs to nobody when it has ended", || bound_to(&two) == 0);
    check_peak(b, 1, 4, Style::Computes);
}

fn moves(b: &Bench) {
    let (one, two) = (b.limited(1), b.limited(1));
    let (took, go, second) = (Flag::default(), Flag::default(), Flag::default());
    let thread = {
        let (one, two, took, go) = (one.clone(), two.clone(), took.clone(), go.clone());
        thread::spawn(move || {
            next(&one);
            took.set();
            spin_until("the row lets the thread move", || go.is_set());
            next(&two).context
        })
    };
    post(&one, 1);
    eventually("the thread runs for the first port", || took.is_set());
    let flag = second.clone();
    let _crew = Crew::start(&one, 1, move |_, _| flag.set());
    post(&one, 2);
    burn(Duration::from_millis(10));
    assert!(!second.is_set(), "the first port's slot is taken");
    go.set();
    eventually("the first port's waiter is released", || second.is_set());
    eventually("the thread waits on the second port", || two.stats().waiting == 1);
    post(&two, 3);
    assert_eq!(thread.join().unwrap(), 3);
    check_peak(b, 2, 6, Style::Computes);
    flow::another_port_frees(b);
}

fn counted(b: &Bench) {
    let port = b.limited(2);
    assert_eq!(port.stats().active, 0);
    post(&port, 1);
    assert_eq!(port.stats().active, 0, "this thread has posted, and belongs to nobody");
    next(&port);
    assert_eq!(port.stats().active, 1);
    blocking(|| assert_eq!((port.stats().active, port.stats().blocked), (0, 1)));
    assert_eq!(port.stats().active, 1);
    let waiting = port.clone();
    let thread = thread::spawn(move || next(&waiting).context);
    eventually("one waits", || port.stats().waiting == 1);
    assert_eq!(port.stats().active, 1, "who waits does not count");
    post(&port, 2);
    assert_eq!(thread.join().unwrap(), 2);
    check_peak(b, processors(), 2 * processors() + 2, Style::Computes);
    flow::woken_counts_again(b, 1, Block::Mutex);
}

/// What [`handed_over`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Post,
    /// Data that comes for a receive.
    Receive,
}

/// Beside a handler that computes a packet comes, while a slot is free and two threads wait: the medians of the time
/// until its handler runs, and of the time that two threads need to hand something over by a channel, measured by
/// turns.
fn handed_over(b: &Bench, by: By) -> (Duration, Duration) {
    const TURNS: usize = 60;
    let port = b.limited(2);
    let (inside, leave) = (Flag::default(), Flag::default());
    let (entered, go) = (inside.clone(), leave.clone());
    // Neither side of it spins: the processors are for those that are measured.
    let (at, begun) = mpsc::channel::<Instant>();
    let at = Mutex::new(at);
    let crew = Crew::start(&port, 3, move |_, packet| {
        if packet.context == 1 {
            entered.set();
            return spin_until("the row lets the handler go", || go.is_set());
        }
        let now = Instant::now();
        if let wharf::Event::Received { stream, result: Ok(1..), .. } = packet.event {
            stream.recv(vec![0; 4], 2).unwrap();
        }
        at.lock().unwrap().send(now).unwrap();
    });
    let (stream, mut peer) = b.stream(&port, 1);
    post(&port, 1);
    eventually("a handler computes", || inside.is_set());
    stream.recv(vec![0; 4], 2).unwrap();
    let (tell, told) = mpsc::channel::<Instant>();
    let (answer, answers) = mpsc::channel();
    let other = thread::spawn(move || told.iter().for_each(|asked| answer.send(asked.elapsed()).unwrap()));
    let (mut ours, mut plain) = (Vec::new(), Vec::new());
    for _ in 0..TURNS {
        // So that both sides wait.
        thread::sleep(Duration::from_millis(2));
        tell.send(Instant::now()).unwrap();
        plain.push(answers.recv_timeout(DEADLINE).unwrap());
        thread::sleep(Duration::from_millis(2));
        let asked = Instant::now();
        match by {
            By::Post => post(&port, 2),
            By::Receive => std::io::Write::write_all(&mut peer, b"x").unwrap(),
        }
        ours.push(begun.recv_timeout(DEADLINE).expect("it is handled").duration_since(asked));
    }
    leave.set();
    drop((crew, tell));
    other.join().unwrap();
    (median(ours), median(plain))
}

/// What a hand-over may take that waits for nothing but the scheduler. A tick takes a millisecond at least.
fn without_a_tick(plain: Duration) -> Duration {
    Duration::from_micros(400) + 8 * plain
}

#[track_caller]
fn at_once(b: &Bench, by: By) {
    let (ours, plain) = handed_over(b, by);
    b.note(format!(
        "{by:?}: handed over within {ours:.1?}, beside a handler that computes; a channel takes {plain:.1?}"
    ));
    assert!(
        ours < without_a_tick(plain),
        "{by:?}: half of them took more than {ours:.1?}; a channel takes {plain:.1?}"
    );
}

/// With the default policy it takes a tick.
#[track_caller]
fn after_a_tick(b: &Bench) {
    let (ours, plain) = handed_over(b, By::Post);
    b.note(format!("handed over within {ours:.1?}, beside a handler that computes; a channel takes {plain:.1?}"));
    assert!(ours > Duration::from_micros(300), "the row holds with this policy, too: {ours:.1?}");
    assert!(ours < Duration::from_millis(20) + 8 * plain, "half of them took more than {ours:.1?}, which is no tick");
}

/// C-04 with the default policy.
pub fn hand_over_later(b: &Bench) {
    hand_over(b);
    after_a_tick(b);
}

fn hand_over_at_once(b: &Bench) {
    hand_over(b);
    at_once(b, By::Post);
}

/// D-33, as far as waking goes.
pub fn posts_wake_at_once(b: &Bench) {
    super::dequeue::posts_wake(b);
    at_once(b, By::Post);
}

/// D-33 with the default policy.
pub fn posts_wake_later(b: &Bench) {
    super::dequeue::posts_wake(b);
    after_a_tick(b);
}

/// C-18 with the default policy.
pub fn stranded_for_a_tick(b: &Bench) {
    none_stranded(b);
    after_a_tick(b);
}

fn none_waits(b: &Bench) {
    none_stranded(b);
    at_once(b, By::Post);
    at_once(b, By::Receive);
}

/// C-05 as on Windows: who waited last is released first, whatever it is that comes.
fn last_in(b: &Bench) {
    assert_eq!(release_order(b), [4, 3, 2, 1, 0]);
    let who = by_turns(b);
    assert!(who.iter().all(|&thread| thread == who[0]), "not one warm thread: {who:?}");
    check_peak(b, 1, 4, Style::Announces);
}

/// C-05 on Unix: so for posts; what comes by itself goes to the thread that waits for it.
pub fn leader_is_warm(b: &Bench) {
    lifo(b);
    let who = by_turns(b);
    let threads: HashSet<usize> = who.iter().copied().collect();
    assert!(threads.len() > 1, "one warm thread for both: {who:?}");
}

/// Which threads handle posts and receives that come by turns, each when all wait.
fn by_turns(b: &Bench) -> Vec<usize> {
    const TURNS: usize = 20;
    let port = b.limited(8);
    let (stream, mut peer) = b.stream(&port, 1);
    let who: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = who.clone();
    let _crew = Crew::start(&port, 5, move |thread, packet| {
        if let wharf::Event::Received { stream, result: Ok(1..), .. } = packet.event {
            stream.recv(vec![0; 16], 1).unwrap();
        }
        seen.lock().unwrap().push(thread);
    });
    stream.recv(vec![0; 16], 1).unwrap();
    for turn in 0..TURNS {
        eventually("all wait", || port.stats().waiting == 5);
        thread::sleep(Duration::from_millis(3));
        if turn % 2 == 0 {
            post(&port, 5);
        } else {
            std::io::Write::write_all(&mut peer, b"x").unwrap();
        }
        eventually("it is handled", || who.lock().unwrap().len() > turn);
    }
    let who = who.lock().unwrap();
    who.clone()
}

fn hand_over(b: &Bench) {
    let port = b.limited(2);
    let (inside, leave) = (Count::default(), Flag::default());
    let (entered, go) = (inside.clone(), leave.clone());
    let _crew = Crew::start(&port, 4, move |_, _| {
        entered.up();
        spin_until("the row lets the handlers go", || go.is_set());
    });
    for number in 1..=2 {
        post(&port, number);
        eventually("a waiter has it", || inside.now() == number as usize);
        assert_eq!(port.stats().active, number as usize);
    }
    post(&port, 3);
    burn(Duration::from_millis(10));
    assert_eq!((inside.now(), port.stats().queued), (2, 1), "at the limit it is queued");
    leave.set();
    eventually("then it is handled", || inside.now() == 3);
    check_peak(b, 2, 6, Style::Announces);
}

/// The order in which five waiting threads are released, each by a packet that comes when the one before it has begun.
fn release_order(b: &Bench) -> Vec<usize> {
    let port = b.limited(8);
    let (tell, told) = mpsc::channel();
    let (tell, go) = (Mutex::new(tell), Flag::default());
    let hold = go.clone();
    let _crew = Crew::start(&port, 5, move |thread, _| {
        tell.lock().unwrap().send(thread).unwrap();
        spin_until("the row lets the handlers go", || hold.is_set());
    });
    let order: Vec<usize> = (0..5)
        .map(|number| {
            post(&port, number);
            told.recv_timeout(DEADLINE).unwrap()
        })
        .collect();
    go.set();
    order
}

fn lifo(b: &Bench) {
    assert_eq!(release_order(b), [4, 3, 2, 1, 0]);
    check_peak(b, 1, 4, Style::Announces);
}

/// C-05 with the default policy: packets that come one by one keep one thread warm, and those beside active threads
/// release the others in any order.
pub fn one_warm(b: &Bench) {
    let port = b.limited(8);
    let who: Arc<Mutex<Vec<usize>>> = Arc::default();
    let seen = who.clone();
    let crew = Crew::start(&port, 5, move |thread, _| seen.lock().unwrap().push(thread));
    for number in 1..=20 {
        eventually("all wait", || port.stats().waiting == 5);
        post(&port, 0);
        eventually("it is handled", || who.lock().unwrap().len() == number);
    }
    assert!(who.lock().unwrap().iter().all(|&thread| thread == 4), "not one warm thread: {:?}", who.lock().unwrap());
    drop(crew);
    let orders: Vec<Vec<usize>> = (0..6).map(|_| release_order(b)).collect();
    assert!(orders.iter().all(|order| order[0] == 4), "the first goes to the one that came last: {orders:?}");
    assert!(orders.iter().any(|order| order != &[4, 3, 2, 1, 0]), "the row holds with this policy, too");
}

fn limit_holds(b: &Bench) {
    check_peak(b, 1, 4, Style::Computes);
    check_peak(b, 2, 6, Style::Computes);
    check_peak(b, processors(), 2 * processors() + 2, Style::Computes);
    flow::woken_counts_again(b, 1, Block::Sleep);
}

fn no_switch(b: &Bench) {
    let port = b.limited(1);
    let (go, who) = (Flag::default(), Arc::new(Mutex::new(Vec::new())));
    let (begin, seen) = (go.clone(), who.clone());
    let _crew = Crew::start(&port, 4, move |thread, packet| {
        if packet.context == 0 {
            spin_until("all packets are posted", || begin.is_set());
        }
        seen.lock().unwrap().push(thread);
    });
    (0..60).for_each(|number| post(&port, number));
    go.set();
    eventually("all packets are handled", || who.lock().unwrap().len() == 60);
    let threads: HashSet<usize> = who.lock().unwrap().iter().copied().collect();
    assert_eq!(threads.len(), 1, "the work was handed around");
    check_peak(b, 1, 4, Style::Computes);
    // So it is with I/O: one thread takes what thirty streams bring, while others wait.
    let port = b.limited(1);
    let streams: Vec<_> = (0..crate::hostile::at_once(30)).map(|key| b.stream(&port, key)).collect();
    let (go, who) = (Flag::default(), Arc::new(Mutex::new(Vec::new())));
    let (begin, seen) = (go.clone(), who.clone());
    let _crew = Crew::start(&port, 4, move |thread, packet| {
        if packet.context == 0 {
            spin_until("all the data is there", || begin.is_set());
        }
        seen.lock().unwrap().push(thread);
    });
    streams.iter().for_each(|(stream, _)| drop(stream.recv(vec![0; 4], 1).unwrap()));
    post(&port, 0);
    eventually("the first handler runs", || port.stats().active == 1);
    streams.iter().for_each(|(_, peer)| std::io::Write::write_all(&mut &*peer, b"x").unwrap());
    go.set();
    eventually("all packets are handled", || who.lock().unwrap().len() == streams.len() + 1);
    let who = who.lock().unwrap();
    let most = (0..4).map(|thread| who.iter().filter(|&&by| by == thread).count()).max();
    assert!(most >= Some(streams.len() * 5 / 6), "the work was handed around: {who:?}");
}

/// At limit 1 the first handler blocks, until after the second packet's has run.
fn is_replaced(b: &Bench, how: &str, block: impl Fn(&mpsc::Receiver<()>) + Send + Sync + 'static) {
    let port = b.limited(1);
    let (tell, told) = mpsc::channel();
    let told = Mutex::new(told);
    let (begun, ended, second) = (Flag::default(), Flag::default(), Flag::default());
    let flags = (begun.clone(), ended.clone(), second.clone());
    let _crew = Crew::start(&port, 2, move |_, packet| {
        if packet.context == 1 {
            flags.0.set();
            block(&told.lock().unwrap());
            flags.1.set();
        } else {
            flags.2.set();
        }
    });
    post(&port, 1);
    eventually("the first handler runs", || begun.is_set());
    post(&port, 2);
    eventually(&format!("a handler that blocks ({how}) is replaced"), || second.is_set());
    assert!(!ended.is_set(), "{how} did not block");
    tell.send(()).unwrap();
    eventually("the blocked handler goes on", || ended.is_set());
}

/// A handler that says that it blocks is replaced at once, and not when somebody has seen it: at limit 1 the packet
/// behind it is handled without a tick.
fn announced_is_replaced_at_once(b: &Bench) {
    const TURNS: usize = 40;
    let port = b.limited(1);
    let (tell, told) = mpsc::channel::<Instant>();
    let (done, next) = (Mutex::new(tell), Mutex::new(told));
    let (at, begun) = mpsc::channel::<Duration>();
    let at = Mutex::new(at);
    let _crew = Crew::start(&port, 2, move |_, packet| {
        if packet.context == 2 {
            return done.lock().unwrap().send(Instant::now()).unwrap();
        }
        // So that the packet behind it is there.
        burn(Duration::from_micros(80));
        let blocks = Instant::now();
        let handled = blocking(|| next.lock().unwrap().recv_timeout(DEADLINE).unwrap());
        at.lock().unwrap().send(handled.saturating_duration_since(blocks)).unwrap();
    });
    let mut ours = Vec::new();
    for _ in 0..TURNS {
        eventually("both wait", || port.stats().waiting == 2);
        post(&port, 1);
        post(&port, 2);
        ours.push(begun.recv_timeout(DEADLINE).expect("it is handled"));
    }
    let (_, plain) = handed_over(b, By::Post);
    let ours = median(ours);
    b.note(format!("a handler that says that it blocks is replaced within {ours:.1?}; a channel takes {plain:.1?}"));
    assert!(ours < without_a_tick(plain), "half of those that said so were replaced after more than {ours:.1?}");
}

fn replaced(b: &Bench) {
    announced_is_replaced_at_once(b);
    is_replaced(b, "announced", |told| blocking(|| told.recv_timeout(DEADLINE).unwrap()));
    is_replaced(b, "a channel", |told| told.recv_timeout(DEADLINE).unwrap());
    is_replaced(b, "sleeping", |told| {
        while told.try_recv().is_err() {
            thread::sleep(Duration::from_millis(10));
        }
    });
    let (mine, yours) = pair();
    is_replaced(b, "a blocking read", move |told| {
        use std::io::Read;
        // Nobody writes: the read ends by its time, again and again.
        mine.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        while told.try_recv().is_err() {
            let _ = (&mine).read(&mut [0; 1]);
        }
    });
    drop(yours);
    check_peak(b, 1, 4, Style::Blocks);
    check_peak(b, 2, 6, Style::Blocks);
    check_peak(b, processors(), 2 * processors() + 2, Style::Blocks);
    flow::sleepers_are_replaced(b, 2, 1, Block::Sleep);
    flow::sleepers_are_replaced(b, 4, 2, Block::Sleep);
    flow::sleepers_are_replaced(b, 2, 1, Block::Mutex);
    flow::batch_of_a_sleeper(b);
}

fn runs_on(b: &Bench) {
    let port = b.limited(1);
    let (tell, told) = mpsc::channel::<()>();
    let told = Mutex::new(told);
    let steps: Arc<[Flag; 4]> = Arc::default();
    let [resumed, second, third, go] = [0, 1, 2, 3];
    let flags = steps.clone();
    let _crew = Crew::start(&port, 3, move |_, packet| match packet.context {
        1 => {
            blocking(|| told.lock().unwrap().recv_timeout(DEADLINE).unwrap());
            flags[resumed].set();
            spin_until("the row lets the first handler go", || flags[go].is_set());
        }
        2 => {
            flags[second].set();
            spin_until("the blocked handler runs on", || flags[resumed].is_set());
        }
        _ => flags[third].set(),
    });
    post(&port, 1);
    eventually("the first handler blocks", || port.stats().blocked == 1);
    post(&port, 2);
    eventually("the second runs", || steps[second].is_set());
    post(&port, 3);
    tell.send(()).unwrap();
    eventually("the second has returned while the first runs", || port.stats().waiting == 2);
    thread::sleep(WHILE);
    assert!(!steps[third].is_set(), "the limit is 1 and one thread runs");
    steps[go].set();
    eventually("the third packet is handled", || steps[third].is_set());
    check_peak(b, 2, 6, Style::Announces);
    flow::woken_counts_again(b, 2, Block::Mutex);
}

/// A port of limit 1 with its slot taken by a thread that computes until the flag is set.
fn busy(port: &Port) -> (Flag, thread::JoinHandle<()>) {
    let (inside, leave) = (Flag::default(), Flag::default());
    let (own, entered, go) = (port.clone(), inside.clone(), leave.clone());
    post(port, 0);
    let thread = thread::spawn(move || {
        next(&own);
        entered.set();
        spin_until("the row lets the thread go", || go.is_set());
    });
    eventually("the slot is taken", || inside.is_set());
    (leave, thread)
}

fn poll_at_limit(b: &Bench) {
    let port = b.limited(1);
    let (leave, thread) = busy(&port);
    post(&port, 2);
    assert_eq!(port.stats().queued, 1);
    let zero = port.get_timeout(Duration::ZERO).map(|packet| packet.context);
    let many = port.get_many_timeout(2, Duration::ZERO).map(|batch| batch.len());
    leave.set();
    assert_eq!((zero, many), (Err(GetError::TimedOut), Err(GetError::TimedOut)));
    thread.join().unwrap();
    assert_eq!(next(&port).context, 2);
    check_peak(b, 1, 4, Style::Computes);
}

fn timed_out_counts(b: &Bench) {
    let port = b.limited(1);
    let taken = Flag::default();
    let flag = taken.clone();
    let _crew = Crew::start(&port, 1, move |_, _| flag.set());
    let _ = port.get_timeout(Duration::ZERO);
    post(&port, 1);
    burn(Duration::from_millis(30));
    assert!(!taken.is_set(), "a thread runs, and the limit is 1");
    eventually("the packet is released once this thread sleeps", || taken.is_set());
    check_peak(b, 1, 4, Style::Blocks);
    flow::poller_holds_nothing(b);
}

fn exit_frees(b: &Bench) {
    let port = b.limited(1);
    let (leave, thread) = busy(&port);
    let second = Flag::default();
    let flag = second.clone();
    let _crew = Crew::start(&port, 1, move |_, _| flag.set());
    post(&port, 2);
    burn(Duration::from_millis(10));
    assert!(!second.is_set(), "the slot is taken");
    leave.set();
    thread.join().unwrap();
    eventually("the next packet is handled", || second.is_set());
    check_peak(b, 2, 6, Style::Computes);
    // By a panic, also inside of a call that blocks.
    for inside in [false, true] {
        let port = b.limited(1);
        post(&port, 1);
        let own = port.clone();
        let thread = thread::spawn(move || {
            next(&own);
            let end = || std::panic::resume_unwind(Box::new("the handler has had enough"));
            if inside {
                blocking(end);
            }
            end();
        });
        assert!(thread.join().is_err(), "it panicked");
        let second = Flag::default();
        let flag = second.clone();
        let _crew = Crew::start(&port, 1, move |_, _| flag.set());
        post(&port, 2);
        eventually("the next packet is handled", || second.is_set());
    }
}

fn spinning(b: &Bench) {
    let port = b.limited(1);
    let (leave, thread) = busy(&port);
    let second = Flag::default();
    let flag = second.clone();
    let _crew = Crew::start(&port, 2, move |_, _| flag.set());
    post(&port, 2);
    burn(Duration::from_millis(60));
    assert!(!second.is_set(), "a second handler ran beside one that computes");
    leave.set();
    thread.join().unwrap();
    eventually("then it runs", || second.is_set());
    check_peak(b, 1, 4, Style::Computes);
    // Also when it goes into the kernel, and does not wait there.
    let path = Temporary::with(vec![7; 100_000]);
    let port = b.limited(1);
    let (second, busy) = (Flag::default(), Count::default());
    let (flag, inside) = (second.clone(), busy.clone());
    let _crew = Crew::start(&port, 2, move |_, packet| {
        if packet.context == 2 {
            return flag.set();
        }
        inside.up();
        let until = Instant::now() + Duration::from_millis(60);
        while Instant::now() < until {
            // What the cache has; pages that are new; and a word with the scheduler.
            assert_eq!(std::fs::read(&path).unwrap().len(), 100_000);
            std::hint::black_box(vec![1_u8; 1 << 20]);
            thread::yield_now();
            assert!(!flag.is_set(), "a second handler ran beside one that does not block");
        }
    });
    post(&port, 1);
    eventually("the slot is taken", || busy.now() == 1);
    post(&port, 2);
    eventually("then it runs", || second.is_set());
}

fn waiting_is_free(b: &Bench) {
    let port = b.limited(1);
    let done = Count::default();
    let count = done.clone();
    let _crew = Crew::start(&port, 3, move |_, _| _ = count.up());
    assert_eq!((port.stats().active, port.stats().waiting, port.stats().blocked), (0, 3, 0));
    post(&port, 1);
    eventually("it is handled", || done.now() == 1);
    eventually("all wait again", || port.stats().waiting == 3);
    assert_eq!((port.stats().active, port.stats().write_offs.unwrap_or(0)), (0, 0), "nobody was found blocked");
    check_peak(b, 1, 4, Style::Announces);
}

fn more_and_fewer(b: &Bench) {
    check_peak(b, 1, 4, Style::Computes);
    check_peak(b, 8, 2, Style::Computes);
    check_peak(b, 8, 2, Style::Announces);
}

fn no_lock(b: &Bench) {
    check_peak(b, 1, 4, Style::Computes);
    // Two are inside at once as soon as one of them blocks.
    check_peak(b, 1, 4, Style::Announces);
    check_peak(b, 1, 4, Style::Blocks);
    flow::woken_counts_again(b, 1, Block::Sleep);
}

fn none_stranded(b: &Bench) {
    const PACKETS: usize = 4000;
    for limit in [1, 2, 3] {
        let port = b.limited(limit);
        let done = Count::default();
        let (count, own) = (done.clone(), port.clone());
        let _crew = Crew::start(&port, 4, move |_, packet| {
            match packet.context % 500 {
                0 => blocking(|| thread::sleep(Duration::from_millis(1))),
                250 => thread::sleep(Duration::from_millis(1)),
                // Posts from inside of a handler, too.
                10 => own.post(0, 0, 1).unwrap(),
                _ => {}
            }
            count.up();
        });
        for number in 0..PACKETS as u64 {
            post(&port, number);
            if number % 64 == 0 {
                // Let the queue run dry now and then: that is where a wake-up would be lost.
                eventually("everything so far is handled", || port.stats().queued == 0);
            }
        }
        eventually("no packet is left", || done.now() == PACKETS + PACKETS / 500);
    }
    check_peak(b, 2, 6, Style::Blocks);
}
