//! What the page says of each scenario, and of the method.

pub const METHOD: &str = "\
Servers and the load generator are separate processes. Where there are two processors, a server with one worker has the
first to itself and the generator the second; a server that is to use both shares them with the generator, which then
reports how much it took. Everything talks over the loopback, in a network namespace of its own with Reno (BBR paces, and
what it paces it does not cost).

Every system of a case runs, and is connected, at the same time. They are loaded in turns, for a few dozen milliseconds each, in rounds
whose order rotates: what the machine does beside hits all of them alike. **A ratio is a system's value divided by
wharf's in the same round**; the median of the rounds is given, with its quartiles, over seven rounds at least. Processor time is
user and system together, by `schedstat`, of all threads of the server; it is the figure that survives a machine that others
use as well. *wharf again* is wharf measured against itself, by a second process: what it shows is noise, and nothing smaller than
that is a difference.

*Closed loop*: a fixed number of messages is always under way, and an answer calls forth the next; it finds the peak. *Open loop*:
messages leave by a random schedule of fixed rate, and latency counts from the moment that the schedule says, so that a
server that stalls pays for everything that it made late (no coordinated omission). Percentiles are the median of the rounds' own, where a
round has messages enough for that; the maximum is that of all rounds. Answers are compared with what was sent.

Wake-ups are how often a thread of the server began to run, by `schedstat`; switches are voluntary and involuntary context switches.
System calls are counted by the kernel's tracepoint in a further slice, which is not measured otherwise. Resident memory and live
heap (a counting allocator, in every Rust program) are taken after the load, with its connections still there.

Run it yourself: `cargo run --release -p wharf-bench -- SCENARIO`, with one of the names below or `all`; `--quick` for less than 45 seconds
each, once the peers are built; `--json FILE` for the rows; `--out DIR` for this page and its plots (else `target/bench`). The peers are
programs of their own in `bench/peers`, built when they are needed. `--beside PROGRAM` compares two builds, before and after a
change: it puts another build of the lab, by the path of its `wharf-bench`, into `echo`, `broadcast`, `queue`, `blocked` and `trickle`, whose turns
are interleaved with those of this one. What runs inside of the lab otherwise (`queue`, the flow of `blocked`) then also runs in a child of this
build, *this build, apart*, which is what to compare *other build* with.

What to distrust: the loopback has no latency and no loss, and costs its sender what a network card would cost nobody; figures
of another table have another state of the machine; a figure is one machine's.
";

/// What is measured, by scenario.
pub fn of(scenario: &str) -> &'static str {
    match scenario {
        "echo" => {
            "Bytes back as they come. A case is connections x bytes, and how many messages are under way on each \
             connection. *A packet for each send* is without `skip_on_success`; *one thread* calls `get` itself, so \
             nobody watches it."
        }
        "scale" => "Ten connections echo 32 bytes while so many others are idle.",
        "blocked" => {
            "One of 64 handlers (or two, where they want one lock) is slow for 50 ms with every message. The figures \
             are those of the other connections; *of quiet* is their rate, of that without the disturbance in the same round. A \
             handler that computes keeps its slot by design, and is reported beside a runtime with as many threads. \
             *Beside a flow*: handlers that compute for 100 us keep the processors busy and are never out of packets, and one of two \
             (two of four) sleeps; latency is the time from there until as many threads as the limit have begun a handler beside."
        }
        "trickle" => {
            "So many messages a second on one connection; all servers have theirs in the same seconds, in turns, each \
             alone while it works."
        }
        "skew" => {
            "A tenth of the connections carries nine tenths of the messages, and each message computes for 50 us: two \
             workers beside runtimes that give each connection to one thread for good. And 20 us on connections that \
             are all alike. Every round has new connections, for which thread has how many of the busy ones is chance."
        }
        "churn" => {
            "Connect, ten requests of 32 bytes one after the other, close; 64 at a time. A message is a request."
        }
        "broadcast" => {
            "One member of a chat speaks, every member hears each line. A message is a delivery. *Flooded*: more lines \
             than the members can drain; there, the processor time per delivery is what counts."
        }
        "queue" => {
            "Posted packets beside queues that do nothing else. *Burst*: producers and consumers that do nothing but \
             post and take. *Sparse*: the consumer sleeps before each packet."
        }
        "files" => "Random reads of 4 KiB, from the cache and past it (a message is a read), and whole copies.",
        "idle" => {
            "Connections that have said 32 bytes once and do nothing now: resident memory and live heap of each, in \
             bytes, without the kernel's part; and what their server does in a second (processor time, context \
             switches and wake-ups are per second there)."
        }
        "mixed" => {
            "Each message names a block of a file; the server reads it, waits for a timer of one millisecond, and \
             answers. wharf does all of it in one port."
        }
        "wake" => {
            "A thread that sleeps is woken by another one, and wakes it back by a futex whatever is measured. Latency \
             and processor time are those of the one way."
        }
        "compensation" => {
            "Two packets, a limit of one: the first one's handler blocks, and the second needs another worker. Latency is \
             from the blocking to the other worker; a message is one such time."
        }
        "datagrams" => {
            "Bursts of 64 datagrams from one socket to another, by one thread. A message is a datagram, sent and received."
        }
        "static" => {
            "Files over HTTP/1.1: `wharf serve files` beside nginx with one worker and `sendfile`. wrk is the load, with 64 connections."
        }
        "bulk" => {
            "`wharf perf` against itself beside Debian's iperf3 against itself, over the loopback, a second a test. A message \
             is a megabyte (10⁶ bytes) of TCP, or a datagram, that arrived; processor time is that of both ends (1000 us for \
             a megabyte are 1 s for a gigabyte)."
        }
        _ => "",
    }
}
