//! `wharf perf` and stock iperf3, each as client and as server of the other, over the modes that both have. Each row of
//! the matrix has a server of its own for one test, and both ends' reports and exit codes are looked at.
//!
//! Needs `iperf3` (Debian: `apt-get install iperf3`). Where it is missing that is said, and in CI (`CI` set) it is a
//! failure. With `WHARF_PERF_MATRIX=FILE` the rows are written there as a table.

mod common;

use common::Wharf as Program;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

const DEADLINE: Duration = Duration::from_secs(90);
/// A row about loss or a rate, or with a stock peer, is tried so often: a busy machine may lose a datagram, hold up a
/// sender and find a single-threaded peer's races; a wrong program fails each time.
const TRIES: u32 = 3;
/// What the kernel may hold of a stream when the end is told, and a block or a joined one.
const IN_FLIGHT: u64 = 48 << 20;

/// Rates are measured by one matrix at a time; what measures none may run beside each other.
static ALONE: RwLock<()> = RwLock::new(());
/// How many rows run at a time that ask for little, and how many that take what they get.
const QUIET_AT_ONCE: usize = 16;
const LOUD_AT_ONCE: usize = 6;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Peer {
    Wharf,
    Stock,
}

use Peer::{Stock, Wharf};

fn version() -> Option<String> {
    let output = Command::new("iperf3").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().nth(1)?.to_owned())
}

/// Whether there is a stock iperf3; says so if not.
fn have_stock() -> bool {
    let have = version().is_some();
    if !have {
        assert!(std::env::var_os("CI").is_none(), "iperf3 is missing; install it with: apt-get install iperf3");
        eprintln!(
            "NOT RUN: iperf3 is missing, so nothing was tried against it; install it with: apt-get install iperf3"
        );
    }
    have
}

struct Server {
    wharf: Program,
    port: u16,
}

impl Server {
    fn start(more: &[&str]) -> Server {
        Server::on(V4, more)
    }

    fn on(host: &str, more: &[&str]) -> Server {
        let wharf = Program::start(&[&["perf", "serve", "-p", "0", "-B", host], more].concat());
        let port = wharf.perf_port();
        Server { wharf, port }
    }
}

fn wharf() -> Command {
    common::command(&[])
}

/// Each only once: the system gives out a port again as soon as it is free, and then the client of one row comes to the
/// server of another.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return port;
        }
    }
}

/// A client to its end.
fn client(peer: Peer, port: u16, options: &[&str]) -> Output {
    client_of("127.0.0.1", peer, port, options)
}

fn client_of(host: &str, peer: Peer, port: u16, options: &[&str]) -> Output {
    let mut command = command(peer, &["perf", "run", host], &["-c", host]);
    command.args(["-p", &port.to_string()]).args(options);
    Running::start(command).finish()
}

fn command(peer: Peer, ours: &[&str], stock: &[&str]) -> Command {
    let (mut command, arguments) = match peer {
        Wharf => (wharf(), ours),
        Stock => (Command::new("iperf3"), stock),
    };
    command.args(arguments);
    command
}

/// A process whose output is read by two threads.
struct Running {
    what: String,
    child: Child,
    output: [Option<std::thread::JoinHandle<Vec<u8>>>; 2],
}

impl Running {
    fn start(mut command: Command) -> Running {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let read = |mut from: Box<dyn Read + Send>| {
            std::thread::spawn(move || {
                let mut bytes = Vec::new();
                from.read_to_end(&mut bytes).unwrap();
                bytes
            })
        };
        let output =
            [Some(read(Box::new(child.stdout.take().unwrap()))), Some(read(Box::new(child.stderr.take().unwrap())))];
        Running { what: format!("{command:?}"), child, output }
    }

    fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    fn finish(mut self) -> Output {
        let until = Instant::now() + DEADLINE;
        while !self.has_ended() {
            assert!(Instant::now() < until, "{} does not end", self.what);
            std::thread::sleep(Duration::from_millis(5));
        }
        let [stdout, stderr] = [0, 1].map(|at| self.output[at].take().unwrap().join().unwrap());
        Output { status: self.child.wait().unwrap(), stdout, stderr }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a test of these options has to come to.
#[derive(Clone, Copy, Default)]
struct Row {
    options: &'static str,
    /// Bytes that have to arrive at least.
    least: u64,
    /// Datagrams at a rate that loses none.
    lossless: bool,
    /// Bits a second of all streams together.
    rate: f64,
    /// Only this client has the option.
    only: Option<Peer>,
    /// What the client connects to.
    host: &'static str,
    /// The server writes for people, and its client gets that.
    text_server: bool,
}

impl Row {
    /// It leaves the machine to others.
    fn is_quiet(&self) -> bool {
        self.lossless || self.rate > 0.0 || self.options.contains("-b 1M") || self.options.contains("-n 1")
    }

    /// What reports call it.
    fn name(&self) -> String {
        if self.host == V4 { self.options.to_owned() } else { format!("{} {}", self.host, self.options) }
    }
}

const V4: &str = "127.0.0.1";
const V6: &str = "::1";

const fn row(options: &'static str) -> Row {
    Row { options, least: 1, lossless: false, rate: 0.0, only: None, host: V4, text_server: false }
}

const fn moves(options: &'static str, least: u64) -> Row {
    Row { least, ..row(options) }
}

const fn lossless(options: &'static str) -> Row {
    Row { lossless: true, ..row(options) }
}

const fn paced(options: &'static str, rate: f64) -> Row {
    Row { rate, ..row(options) }
}

const fn ours(options: &'static str) -> Row {
    Row { only: Some(Wharf), ..row(options) }
}

const fn to(host: &'static str, options: &'static str) -> Row {
    Row { host, ..row(options) }
}

/// The matrix of the specification, as far as the two have the options.
const ROWS: &[Row] = &[
    row("-t 1"),
    row("-t 1 -P 4"),
    row("-t 1 -P 128 -b 1M -l 8K"),
    row("-t 1 -R"),
    row("-t 1 -R -P 4"),
    row("-t 1 --bidir"),
    row("-t 1 --bidir -P 2"),
    moves("-n 100M", 100 << 20),
    moves("-R -n 100M", 100 << 20),
    moves("--bidir -n 50M", 50 << 20),
    moves("-k 100", 100 * 131072),
    moves("-R -k 100", 100 * 131072),
    row("-n 1"),
    row("-k 1"),
    row("-l 1 -n 1000"),
    row("-t 1 -O 1"),
    lossless("-u -t 1 -O 1"),
    row("-t 1 -O 1 -R"),
    paced("-t 1 -b 50M", 50e6),
    paced("-t 1 -b 50M/10 -l 16K", 50e6),
    paced("-t 1 -R -b 50M", 50e6),
    paced("-t 1 -P 2 -b 50M", 100e6),
    lossless("-u -t 1"),
    lossless("-u -t 1 -b 2M -l 1000"),
    lossless("-u -R -t 1 -P 2"),
    lossless("-u -t 1 --bidir -P 2"),
    lossless("-u -t 1 --udp-counters-64bit"),
    lossless("-u -t 1 -R --udp-counters-64bit"),
    row("-u -b 0 -t 1 -l 1400"),
    row("-u -b 0 -t 1 -l 1400 -R"),
    lossless("-u -t 1 -l 16 -b 100K"),
    lossless("-u -t 1 -l 65507 -b 2M"),
    row("-t 1 -Z"),
    row("-t 1 -R -Z"),
    row("-t 1 --repeating-payload"),
    row("-t 1 -w 256K"),
    row("-t 1 -M 1000"),
    row("-t 1 -N"),
    row("-t 1 -C cubic"),
    row("-t 1 -S 16"),
    row("-t 1 --dscp ef"),
    row("-t 1 -4"),
    to(V6, "-t 1 -6"),
    to(V6, "-t 1 -6 -R"),
    Row { host: V6, ..lossless("-u -t 1 -6") },
    to("localhost", "-t 1"),
    to("localhost", "-t 1 -4 -R"),
    row("-t 1 -T title --extra-data more"),
    Row { text_server: true, ..row("-t 1 --get-server-output") },
    row("-t 1 -R --get-server-output"),
    ours("-t 1 --json-stream"),
    ours("-t 1 -R --json-stream"),
    ours("-t 1 --verify"),
    ours("-t 1 -R --verify"),
    ours("-t 1 --gsro -u -b 100M -l 1000"),
];

fn number(report: &Value, path: &str) -> f64 {
    report.pointer(path).and_then(Value::as_f64).unwrap_or_else(|| panic!("{path} is missing in {report}"))
}

/// The report in what a process has written: the object, or of a stream of events the first and the last.
fn report_of(what: &str, output: &Output) -> Value {
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {} {said} {text}", output.status);
    if !text.starts_with("{\"event\"") {
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{what}: {error}: {text}"));
        assert!(report.get("error").is_none(), "{what}: {}", report["error"]);
        return report;
    }
    let mut report = json!({"intervals": []});
    for line in text.lines() {
        let mut event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{what}: {error}: {line}"));
        let (name, data) = (event["event"].as_str().unwrap().to_owned(), event["data"].take());
        match &*name {
            "interval" => report["intervals"].as_array_mut().unwrap().push(data),
            "error" => panic!("{what}: {data}"),
            name => report[name] = data,
        }
    }
    assert!(!report["intervals"].as_array().unwrap().is_empty(), "{what}: no intervals in {text}");
    report
}

/// The server's report has the same streams, and of what the server itself has counted the client tells the same.
fn check_server(what: &str, row: Row, client: &Value, server: &Value) {
    let has = |option: &str| row.options.split(' ').any(|it| it == option);
    let count = |report: &Value| report["end"]["streams"].as_array().map(Vec::len);
    assert_eq!(count(server), count(client), "{what}: streams");
    assert_eq!(server["start"]["test_start"]["protocol"], client["start"]["test_start"]["protocol"], "{what}");
    assert_eq!(server["start"]["cookie"], client["start"]["cookie"], "{what}: both tell of the same test");
    let directions: &[(&str, bool)] = match (has("--bidir"), has("-R")) {
        (true, _) => &[("", false), ("_bidir_reverse", true)],
        (_, reverse) => &[("", reverse)],
    };
    for (suffix, server_sends) in directions {
        let half = if *server_sends { "sent" } else { "received" };
        let bytes = format!("/end/sum_{half}{suffix}/bytes");
        let (here, there) = (number(client, &bytes), number(server, &bytes));
        assert_eq!(here, there, "{what}: {bytes}, as the client and as the server tells it");
        if has("-u") {
            let sum = format!("/end/sum{suffix}");
            let (packets, lost) =
                (number(server, &format!("{sum}/packets")), number(server, &format!("{sum}/lost_packets")));
            assert!(packets > 0.0, "{what}: the server knows of no datagram");
            assert!(!row.lossless || lost == 0.0, "{what}: the server has lost {lost} of {packets}");
        } else {
            assert!(there >= 1.0, "{what}: the server has counted nothing");
        }
    }
}

fn check(client_is: Peer, server_is: Peer, row: Row, output: &Output, server: &Output) {
    let what = format!("{client_is:?} → {server_is:?}: {}", row.name());
    let report = report_of(&format!("{what}, the client"), output);
    match row.text_server {
        true => assert!(server.status.success(), "{what}: {}", String::from_utf8_lossy(&server.stderr)),
        false => check_server(&what, row, &report, &report_of(&format!("{what}, the server"), server)),
    }
    let options: Vec<&str> = row.options.split(' ').collect();
    let has = |option: &str| options.contains(&option);
    let value = |option: &str| options.iter().position(|it| *it == option).map(|at| options[at + 1]);
    let parallel: usize = value("-P").map_or(1, |count| count.parse().unwrap());
    let streams = report["end"]["streams"].as_array().unwrap();
    assert_eq!(streams.len(), parallel * if has("--bidir") { 2 } else { 1 }, "{what}");
    if client_is == Wharf {
        let ids: Vec<i64> = report["start"]["connected"]
            .as_array()
            .unwrap()
            .iter()
            .map(|stream| stream["socket"].as_i64().unwrap())
            .collect();
        let wanted: Vec<i64> = (1..).filter(|id| *id != 2).take(ids.len()).collect();
        assert_eq!(ids, wanted, "{what}");
    }
    for suffix in ["", "_bidir_reverse"] {
        if !suffix.is_empty() && !has("--bidir") {
            continue;
        }
        if has("-u") {
            // A stock client says of its datagrams what it knows itself; what was lost is the server's word.
            let sum = format!("/end/sum{suffix}");
            let (packets, lost) =
                (number(&report, &format!("{sum}/packets")), number(&report, &format!("{sum}/lost_packets")));
            assert!(packets > 0.0 && lost < packets, "{what}: {lost} of {packets}");
            assert!(!row.lossless || lost == 0.0, "{what}: {lost} of {packets} lost");
        } else {
            let sent = number(&report, &format!("/end/sum_sent{suffix}/bytes"));
            let received = number(&report, &format!("/end/sum_received{suffix}/bytes"));
            assert!(sent >= 1.0, "{what}");
            assert!(
                (sent - received).abs() <= IN_FLIGHT as f64 * parallel as f64,
                "{what}: {sent} sent, {received} received"
            );
            // A stock client that receives takes each read for a block, and ends early.
            let reads = client_is == Stock && has("-R") && has("-k");
            if row.least > 1 && !has("--bidir") && !reads {
                assert!(sent.max(received) >= row.least as f64, "{what}: {sent} sent, {received} received");
            }
        }
    }
    // What the sender has sent in what it takes for the time: a late clock at the other end changes neither.
    if row.rate > 0.0 {
        let (bits, seconds) = (8.0 * number(&report, "/end/sum_sent/bytes"), number(&report, "/end/sum_sent/seconds"));
        let block = value("-l").map_or(131_072, |_| 10 * 16_384) as f64;
        let most = row.rate * seconds * 1.05 + 16.0 * block * parallel as f64;
        assert!((0.5 * row.rate * seconds..most).contains(&bits), "{what}: {bits} bits in {seconds} s");
    }
    if let Some(time) = value("-t") {
        let time: f64 = time.parse().unwrap();
        let path = if has("-u") { "/end/sum/seconds" } else { "/end/sum_sent/seconds" };
        let seconds = number(&report, path);
        assert!(seconds > 0.5 * time, "{what}: {seconds} s");
    }
    if has("-O") {
        let omitted = report["intervals"].as_array().unwrap().iter().filter(|it| it["sum"]["omitted"] == true).count();
        assert!(omitted >= 1, "{what}");
    }
    if row.text_server {
        let text = report["server_output_text"].as_str().unwrap_or_else(|| panic!("{what}: {report}"));
        assert!(text.contains("Accepted connection") && text.contains("receiver"), "{what}: {text}");
    } else if has("--get-server-output") {
        let both = [&report["server_output_json"]["start"]["cookie"], &report["start"]["cookie"]];
        assert!(both[0].is_string() && both[0] == both[1], "{what}: {both:?}");
    }
    if has("--verify") {
        assert_eq!(report["wharf"]["verified"], server_is == Wharf, "{what}");
    }
    if has("-T") && client_is == Wharf {
        assert_eq!((&report["title"], &report["extra_data"]), (&Value::from("title"), &Value::from("more")), "{what}");
    }
}

/// One row: a server for one test, and a client, both to their ends.
fn cell(client_is: Peer, server_is: Peer, row: Row) -> [Output; 2] {
    let streams = row.options.contains("--json-stream");
    let form = |peer| if streams && peer == Wharf { "--json-stream" } else { "-J" };
    let mut options: Vec<&str> = row.options.split(' ').filter(|option| *option != "--json-stream").collect();
    options.push(form(client_is));
    let until = Instant::now() + DEADLINE;
    loop {
        let port = free_port();
        let mut command = command(server_is, &["perf", "serve"], &["-s"]);
        command.args(["-1", "-p", &port.to_string()]);
        if server_is == Wharf {
            // A busy machine is no reason to give a client up.
            command.args(["--handshake-timeout", "100000", "--setup-timeout", "100000"]);
        }
        if !row.text_server {
            command.arg(form(server_is));
        }
        if row.host != "localhost" {
            command.args(["-B", row.host]);
        }
        let mut server = Running::start(command);
        // It must not be asked whether it listens: that would be its one test.
        while !server.has_ended() {
            let output = client_of(row.host, client_is, port, &options);
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            // In use: of the datagrams' port, which somebody else's socket may have.
            if !["refused", "unable to connect", "already in use"].iter().any(|word| text.contains(word)) {
                return [output, server.finish()];
            }
            assert!(Instant::now() < until, "{server_is:?} does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        // Somebody has taken the port that was free.
        let output = server.finish();
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        assert!(said.contains("in use") && Instant::now() < until, "{server_is:?} has ended: {said}");
    }
}

/// How a row went.
enum Went {
    Well,
    Badly(String),
    NotRun(&'static str),
}

fn run_row(client_is: Peer, server_is: Peer, row: Row) -> Went {
    if row.host == V6 && TcpListener::bind((V6, 0)).is_err() {
        eprintln!("NOT RUN: this machine has no ::1, so nothing was tried with IPv6: {}", row.name());
        return Went::NotRun("not run: no ::1");
    }
    // A stock server of that age can stand still in a write while its client waits for it.
    let stock = client_is == Stock || server_is == Stock;
    let tries = if row.lossless || row.rate > 0.0 || stock { TRIES } else { 1 };
    let mut went = Went::Well;
    for attempt in 1..=tries {
        let result = std::panic::catch_unwind(|| {
            let [client, server] = cell(client_is, server_is, row);
            check(client_is, server_is, row, &client, &server);
        });
        let Err(panic) = result else { return Went::Well };
        let why = panic.downcast_ref::<String>().map_or("it panicked", String::as_str);
        // Some have a report in them.
        let why: String = format!("{client_is:?} → {server_is:?}: {}: {why}", row.name()).chars().take(800).collect();
        eprintln!("attempt {attempt} of {tries}: {why}");
        went = Went::Badly(why);
    }
    went
}

/// Whether there is time for all rows: `.ci/run` and `ci/perf-matrix` take it.
fn long() -> bool {
    ["WHARF_LONG", "WHARF_PERF_MATRIX"].iter().any(|name| std::env::var_os(name).is_some())
}

/// All rows with one pair, several at a time where they do not disturb each other. Where there is no time for that,
/// each pair has every third row, so that each row is run by one of them.
fn matrix(client_is: Peer, server_is: Peer) {
    let _alone = ALONE.write().unwrap_or_else(PoisonError::into_inner);
    let part = match (client_is, server_is) {
        (Wharf, Wharf) => 0,
        (Wharf, Stock) => 1,
        _ => 2,
    };
    let rows = ROWS.iter().enumerate().filter(|(number, _)| long() || number % 3 == part).map(|(_, row)| *row);
    let rows: Vec<Row> = rows.filter(|row| row.only.is_none_or(|only| only == client_is)).collect();
    let went: Vec<Mutex<Option<Went>>> = rows.iter().map(|_| Mutex::new(None)).collect();
    for (quiet, at_once) in [(true, QUIET_AT_ONCE), (false, LOUD_AT_ONCE)] {
        let next = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..at_once {
                scope.spawn(|| {
                    while let Some(row) = rows.get(next.fetch_add(1, Relaxed)) {
                        if row.is_quiet() == quiet {
                            let at = rows.iter().position(|it| it.name() == row.name()).unwrap();
                            *went[at].lock().unwrap() = Some(run_row(client_is, server_is, *row));
                        }
                    }
                });
            }
        });
    }
    let went: Vec<Went> = went.into_iter().map(|went| went.into_inner().unwrap().unwrap()).collect();
    write_table(client_is, server_is, rows.iter().zip(&went));
    let failed: Vec<&str> =
        went.iter().filter_map(|went| if let Went::Badly(why) = went { Some(&**why) } else { None }).collect();
    assert!(failed.is_empty(), "{} rows failed:\n{}", failed.len(), failed.join("\n"));
}

fn write_table<'a>(client_is: Peer, server_is: Peer, table: impl Iterator<Item = (&'a Row, &'a Went)>) {
    let Some(folder) = std::env::var_os("WHARF_PERF_MATRIX") else { return };
    let name =
        |peer| if peer == Wharf { "wharf".to_owned() } else { format!("iperf3 {}", version().unwrap_or_default()) };
    let mut text = format!("### {} → {}\n\n| Client options | Result |\n|---|---|\n", name(client_is), name(server_is));
    for (row, went) in table {
        let result = match went {
            Went::Well => "passed",
            Went::Badly(_) => "FAILED",
            Went::NotRun(why) => why,
        };
        text += &format!("| `{}` | {result} |\n", row.name());
    }
    let file = std::path::Path::new(&folder).join(format!("{client_is:?}-{server_is:?}.md").to_lowercase());
    std::fs::write(file, text).unwrap();
}

#[test]
fn our_client_and_our_server_pass_the_matrix() {
    matrix(Wharf, Wharf);
}

#[test]
fn our_client_and_a_stock_server_pass_the_matrix() {
    if have_stock() {
        matrix(Wharf, Stock);
    }
}

#[test]
fn a_stock_client_and_our_server_pass_the_matrix() {
    if have_stock() {
        matrix(Stock, Wharf);
    }
}

/// Programs that read iperf3's reports find its keys in ours, also of a test that was over before an interval was.
#[test]
fn reports_have_the_keys_of_stock_reports() {
    fn keys(value: &Value, path: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(map) => map.iter().for_each(|(key, value)| keys(value, &format!("{path}/{key}"), into)),
            Value::Array(array) => array.iter().for_each(|value| keys(value, &format!("{path}/*"), into)),
            _ => drop(into.insert(path.to_owned())),
        }
    }
    if !have_stock() {
        return;
    }
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let have_the_same = |options: &'static str| {
        let stock = cell(Stock, Stock, row(options));
        let ours = cell(Wharf, Wharf, row(options));
        for (end, at) in [("client", 0), ("server", 1)] {
            let [stock, ours] = [&stock[at], &ours[at]].map(|output| {
                let mut found = BTreeSet::new();
                keys(&report_of(&format!("{options}, the {end}"), output), "", &mut found);
                found
            });
            // Stock tells all of the test once more as an interval where none was asked for.
            let none = options.contains("-i 0");
            let missing: Vec<_> =
                stock.difference(&ours).filter(|key| !none || !key.starts_with("/intervals")).collect();
            assert!(missing.is_empty(), "{options}, the {end}: {missing:?}");
        }
    };
    // At a rate that leaves a processor for those beside it.
    std::thread::scope(|scope| {
        for options in [
            "-n 1M",
            "-t 1 -b 20M -i 0",
            "-t 1 -b 20M -R",
            "-t 1 -b 20M --bidir",
            "-u -t 1",
            "-u -t 1 -R",
            "-n 1M -T title --extra-data more",
        ] {
            scope.spawn(move || have_the_same(options));
        }
    });
}

#[test]
fn a_second_client_hears_busy_and_the_first_is_not_disturbed() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&[]);
    let port = server.port;
    let first = Program::start(&["perf", "run", V4, "-p", &port.to_string(), "-t", "0", "-i", "0.1"]);
    first.says(" sec ");
    let mut seconds = vec![Wharf];
    if have_stock() {
        seconds.push(Stock);
    }
    for peer in seconds {
        let second = client(peer, port, &["-t", "1"]);
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert_eq!(second.status.code(), Some(1), "{peer:?}");
        assert!(said.contains("the server is busy running a test. try again later"), "{peer:?}: {said}");
    }
    // It measures on, up to its own end.
    let lines = first.says(" sec ");
    assert!(!lines.contains(" 0.00 bits/sec"), "{lines}");
    let end = first.end_by(Signal::INT);
    assert!(end.errors.len() == 1 && end.errors[0].contains("the client has terminated"), "{:?}", end.errors);
}

#[test]
fn as_many_clients_as_allowed_are_served_at_once() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&["--max-clients", "3"]);
    let port = server.port;
    let options: [&[&str]; 3] = [&["-t", "1", "-J"], &["-t", "1", "-J", "-R"], &["-t", "1", "-J", "-u"]];
    let clients = options.map(|options| std::thread::spawn(move || client(Wharf, port, options)));
    for client in clients {
        let output = client.join().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

/// Resident memory, kilobytes, and sockets of a process.
fn holds(process: u32) -> (u64, usize) {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident = resident.trim().trim_end_matches(" kB").parse().unwrap();
    let descriptors = std::fs::read_dir(format!("/proc/{process}/fd")).unwrap().flatten();
    // Threads that were added to the pool have descriptors, too.
    let links = descriptors.filter_map(|it| std::fs::read_link(it.path()).ok());
    (resident, links.filter(|it| it.to_string_lossy().starts_with("socket:")).count())
}

#[test]
fn after_hundreds_of_tests_the_server_holds_what_it_held_before() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&[]);
    let tests = |count: &str, more: &[&str]| {
        let options = [&["-n", "64K", "-i", "0", "--repeat", count], more].concat();
        let output = client(Wharf, server.port, &options);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let last = said.lines().last().unwrap_or_default().to_owned();
        assert!(output.status.success(), "{last}");
        assert!(last.starts_with(&format!("{count} tests, 0 failed: mean")), "{last}");
    };
    let all = |count: &str| {
        tests(count, &[]);
        tests(count, &["-R", "-P", "2"]);
        tests(count, &["-u", "-b", "0", "-l", "1000"]);
        tests(count, &["--bidir", "--verify", "--latency"]);
    };
    let (first, more) = if long() { ("50", "200") } else { ("10", "40") };
    all(first);
    let (memory, descriptors) = holds(server.wharf.child.id());
    all(more);
    let until = Instant::now() + DEADLINE;
    loop {
        // The last test may not be put away yet.
        let (memory_now, descriptors_now) = holds(server.wharf.child.id());
        if memory_now < memory + 12 * 1024 && descriptors_now <= descriptors {
            break;
        }
        assert!(
            Instant::now() < until,
            "{memory} kB and {descriptors} sockets have become {memory_now} kB and {descriptors_now}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A stock server, or ours, for as many tests as come.
fn serving(peer: Peer, more: &[&str]) -> (Running, u16) {
    let until = Instant::now() + DEADLINE;
    loop {
        let port = free_port();
        let mut command = command(peer, &["perf", "serve"], &["-s"]);
        command.args(["-B", V4, "-p", &port.to_string()]).args(more);
        let mut server = Running::start(command);
        while !server.has_ended() {
            // Not by a connection, which would be taken for a test: by what the system says.
            let listening = format!("0100007F:{port:04X} 00000000:0000 0A");
            if std::fs::read_to_string("/proc/net/tcp").unwrap().contains(&listening) {
                return (server, port);
            }
            assert!(Instant::now() < until, "{peer:?} does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// The table of both phases in what somebody has written.
fn table(output: &Output) -> Vec<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = said.lines().skip_while(|line| !line.trim_start().starts_with("client  "));
    let table: Vec<String> = lines.take_while(|line| !line.is_empty()).map(str::to_owned).collect();
    assert_eq!(table.last().map(String::as_str), Some("Both phases succeeded."), "{said}");
    table
}

#[test]
fn two_phases_are_one_session_and_both_ends_print_the_same_table() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    for options in [
        &["-k", "1000", "-l", "8K", "--verify"][..],
        &["-n", "1M", "-P", "3", "--latency"],
        &["-u", "-k", "50", "-l", "1000", "-b", "10M", "--verify"],
        &["-t", "1", "-O", "1", "-i", "0.5"],
    ] {
        // It serves one session, so there cannot be two.
        let (output, server) = (1..)
            .find_map(|attempt| {
                let (server, port) = serving(Wharf, &["-1"]);
                let output = client(Wharf, port, &[options, &["--two-phase"]].concat());
                let server = server.finish();
                // A busy machine may let no byte come in a second.
                let again = options.contains(&"-t") && !output.status.success() && attempt < TRIES;
                (!again).then_some((output, server))
            })
            .unwrap();
        let said = [&output.stdout[..], &output.stderr].concat();
        assert!(output.status.success(), "{options:?}: {}", String::from_utf8_lossy(&said));
        let (ours, theirs) = (table(&output), table(&server));
        assert_eq!(ours, theirs, "{options:?}");
        if options.contains(&"8K") {
            assert!(ours[2].split_whitespace().eq(["bytes", "8192000", "8192000"]), "{ours:#?}");
            let bytes = ours.iter().filter(|line| line.split_whitespace().eq(["bytes", "8192000", "8192000"]));
            assert_eq!(bytes.count(), 2, "so many blocks, and no more, in each phase: {ours:#?}");
        }
    }
}

#[test]
fn two_phases_with_a_stock_server_are_two_sessions() {
    if !have_stock() {
        return;
    }
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let (_server, port) = serving(Stock, &[]);
    let output = client(Wharf, port, &["-n", "1M", "--two-phase", "--verify"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("the server is not wharf") && said.contains("not verified"), "{said}");
    table(&output);
}

#[test]
fn files_arrive_as_they_were_sent_in_both_directions() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::new("files");
    let content: Vec<u8> = (0..3_000_001_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let from = folder.file("from");
    std::fs::write(&from, &content).unwrap();
    let mut pairs = vec![(Wharf, Wharf)];
    if have_stock() {
        pairs.extend([(Wharf, Stock), (Stock, Wharf)]);
    }
    for (number, (client_is, server_is)) in pairs.into_iter().enumerate() {
        let (mut attempt, mut directions) = (1, vec![true, false]);
        while let Some(&reverse) = directions.last() {
            let to = folder.file(&format!("to-{number}-{reverse}"));
            let (at_server, at_client) = if reverse { (&from, &to) } else { (&to, &from) };
            let (server, port) = serving(server_is, &["-1", "-F", at_server]);
            let mut options = vec!["-F", at_client, "-J"];
            if reverse {
                // The client says when it is over; so many bytes are in the file.
                options.extend(
                    if client_is == Wharf { ["-R", "-n", "3000001"] } else { ["-R", "-t", "2"] }
                        .iter()
                        .flat_map(|it| [*it]),
                );
            }
            let what = format!("{client_is:?} → {server_is:?}, reverse {reverse}");
            let output = client(client_is, port, &options);
            let report = report_of(&what, &output);
            let server = server.finish();
            assert!(server.status.success(), "{what}: {}", String::from_utf8_lossy(&server.stderr));
            // On a busy machine a stock server was seen to miss the end of a file; why was not looked into.
            let whole = std::fs::read(&to).unwrap() == content;
            if !whole && server_is == Stock && attempt < TRIES {
                std::fs::remove_file(&to).unwrap();
                attempt += 1;
                continue;
            }
            assert!(whole, "{what}: what arrived is something else");
            if client_is == Wharf {
                assert_eq!(report["end"]["streams"][0]["diskfile"]["size"], 3_000_001, "{what}");
            }
            directions.pop();
        }
    }
    let output = client(Wharf, 1, &["-F", &folder.file("none")]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("none cannot be read (-F)"));
}

/// A folder that goes with the test.
struct Folder(std::path::PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = std::env::temp_dir().join(format!("wharf-perf-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        Folder(folder)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_test_that_is_faster_than_the_server_allows_is_ended_while_it_runs() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&["--server-bitrate-limit", "20M/1"]);
    for more in [&["-R"][..], &[], &["--bidir"]] {
        // It asks for no rate, so nothing can be said before it runs; it would take an hour.
        let output = client(Wharf, server.port, &[&["-t", "3600"], more].concat());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("larger than the server's limit"), "{said}");
    }
    let output = client(Wharf, server.port, &["-t", "3", "-b", "5M", "-l", "8K", "--bidir"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn streams_have_the_flow_label_that_was_asked_for() {
    if TcpListener::bind((V6, 0)).is_err() || !std::path::Path::new("/proc/net/ip6_flowlabel").exists() {
        return eprintln!("NOT RUN: this machine has no ::1, or does not tell its flow labels");
    }
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let Server { wharf: _server, port } = Server::on(V6, &[]);
    for more in [&["-P", "2"][..], &["-u"]] {
        let mut command = command(Wharf, &["perf", "run", V6], &[]);
        command.args(["-p", &port.to_string(), "-t", "60", "-b", "1M", "-l", "1000", "-L", "0xABCDE"]).args(more);
        let client = Running::start(command);
        let until = Instant::now() + DEADLINE;
        while !std::fs::read_to_string("/proc/net/ip6_flowlabel").unwrap().to_lowercase().contains("abcde") {
            assert!(Instant::now() < until, "the system knows of no such label");
            std::thread::sleep(Duration::from_millis(5));
        }
        let id = rustix::process::Pid::from_child(&client.child);
        // It connects and sends with it: there is something to report when it is ended.
        std::thread::sleep(Duration::from_millis(500));
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        let said = client.finish().stderr;
        assert!(
            String::from_utf8_lossy(&said).contains("the client has terminated"),
            "{}",
            String::from_utf8_lossy(&said)
        );
    }
    let output = client(Wharf, 1, &["-L", "7"]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn engines_are_compared_in_a_table_and_each_says_what_it_was() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&["--engine", "poll"]);
    let output = client(Wharf, server.port, &["-n", "1M", "--engine", "all", "--repeat", "3"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}");
    let rows: Vec<Vec<&str>> = said
        .lines()
        .skip_while(|line| !line.starts_with("Engine here"))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), ["Engine", "epoll", "poll"], "{said}");
    assert!(rows[1..].iter().all(|row| row[1] == "3" && row[2].parse::<f64>().unwrap() > 0.0), "{said}");
    for engine in ["epoll", "poll"] {
        let output = client(Wharf, server.port, &["-n", "1M", "-J", "--engine", engine]);
        assert_eq!(report_of(engine, &output)["wharf"]["engine"], engine);
    }
    let output = client(Wharf, server.port, &["-n", "1M", "--engine", "threads"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("-F"), "an engine that has nothing to do is refused");
}

#[test]
fn a_server_in_the_background_listens_when_its_starter_is_back() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let folder = Folder::new("background");
    let (log, number) = (folder.file("log"), folder.file("number"));
    let mut command = wharf();
    command.args(["perf", "serve", "-D", "-B", V4, "-p", "0", "--logfile", &log, "-I", &number]);
    let output = Running::start(command).finish();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    let words: Vec<&str> = said.split_whitespace().collect();
    let process: i32 = words.last().unwrap().parse().unwrap();
    assert_eq!(std::fs::read_to_string(&number).unwrap().trim(), process.to_string());
    let port: u16 = words[3].parse().unwrap();
    let second = {
        let mut command = wharf();
        command.args(["perf", "serve", "-D", "-B", V4, "-p", &port.to_string()]);
        Running::start(command).finish()
    };
    let served = client(Wharf, port, &["-n", "1M"]).status.success();
    let id = rustix::process::Pid::from_raw(process).unwrap();
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert!(served);
    assert_eq!(second.status.code(), Some(1), "the port is taken, which is said before the starter is back");
    assert!(String::from_utf8_lossy(&second.stderr).contains("another server is there"));
    let until = Instant::now() + DEADLINE;
    while std::path::Path::new(&number).exists() {
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(std::fs::read_to_string(&log).unwrap().contains("Accepted connection from 127.0.0.1"));
}

#[test]
fn a_signal_ends_both_ends_and_the_other_one_hears() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&[]);
    let port = server.port;
    let spawn = || Program::start(&["perf", "run", V4, "-p", &port.to_string(), "-t", "0", "-i", "0.1"]);
    let client_of_ours = spawn();
    client_of_ours.says(" sec ");
    let end = client_of_ours.end_by(Signal::INT);
    assert!(end.out.iter().any(|line| line.contains("sender")), "what is known is reported: {:?}", end.out);
    assert!(end.errors.concat().contains("the client has terminated"), "{:?}", end.errors);
    let next = client(Wharf, port, &["-n", "1M"]);
    assert!(next.status.success(), "the server serves on");
    let client_of_ours = spawn();
    client_of_ours.says(" sec ");
    server.wharf.signal(Signal::TERM);
    let end = client_of_ours.end();
    assert_eq!(end.code, Some(1));
    assert!(end.errors.concat().contains("the server has terminated"), "{:?}", end.errors);
}

#[test]
fn a_server_for_one_test_ends_after_it_or_when_none_comes() {
    let mut server = Server::start(&["-1"]);
    let output = client(Wharf, server.port, &["-n", "1M"]);
    assert!(output.status.success());
    let until = Instant::now() + DEADLINE;
    while server.wharf.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(server.wharf.child.wait().unwrap().success());
    let mut server = Server::start(&["-1", "--idle-timeout", "1"]);
    while server.wharf.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it does not end");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(server.wharf.child.wait().unwrap().success());
}

#[test]
fn limits_of_the_server_are_told_with_their_codes() {
    let server = Server::start(&["--server-max-duration", "5", "--server-bitrate-limit", "100M", "--max-streams", "4"]);
    for (options, words) in [
        (["-t", "6", "-b", "1M"], "longer than the server allows"),
        (["-t", "1", "-b", "200M"], "larger than the server's limit"),
        (["-P", "5", "-b", "1M"], "streams"),
    ] {
        let output = client(Wharf, server.port, &options);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1));
        assert!(said.contains(words), "{options:?}: {said}");
    }
    assert!(client(Wharf, server.port, &["-t", "1", "-b", "10M"]).status.success());
}

#[test]
fn what_cannot_be_measured_is_no_failed_test() {
    for options in [
        &["run", V4, "-l", "0"][..],
        &["run", V4, "--sctp"],
        &["run", V4, "--engine", "threads"],
        &["run", V4, "--config", "/no/such/settings.toml"],
        &["run", V4, "-t", "1", "-k", "1"],
        &["serve", "--sctp"],
        &["serve", "--engine", "all"],
    ] {
        let mut command = wharf();
        let output = Running::start({
            command.arg("perf").args(options);
            command
        })
        .finish();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{options:?}: {said}");
        assert!(!said.is_empty(), "{options:?}");
    }
}

#[test]
fn the_file_with_the_process_number_goes_with_the_process() {
    let folder = Folder::new("number");
    let number = folder.file("number");
    let path = std::path::Path::new(&number);
    let server = Server::start(&[]);
    let port = server.port.to_string();
    let running = Program::start(&["perf", "run", V4, "-p", &port, "-t", "0", "-i", "0.1", "-I", &number]);
    running.says(" sec ");
    assert_eq!(std::fs::read_to_string(path).unwrap(), format!("{}\n", running.child.id()));
    running.end_by(Signal::INT);
    assert!(!path.exists(), "after a client");
    for command in [&["run", V4][..], &["serve", "-p", "0"]] {
        let log = folder.file("no/such/folder/log");
        let mut wharf = wharf();
        wharf.arg("perf").args(command).args(["-I", &number, "--logfile", &log]);
        let output = Running::start(wharf).finish();
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be written"));
        assert!(!path.exists(), "{command:?}, whose log file cannot be opened");
    }
}

#[test]
fn both_phases_of_several_tests_have_their_own_figures() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&[]);
    let events = |options: &[&str], event: &str| -> Vec<Value> {
        let all = [&["-n", "1M", "--two-phase", "--repeat", "3", "--json-stream"], options].concat();
        let output = client(Wharf, server.port, &all);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}");
        let all = said.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        all.filter(|line| line["event"] == event).map(|line| line["data"].clone()).collect()
    };
    let phases = ["client to server", "server to client"];
    let summaries = events(&[], "summary");
    assert_eq!(summaries.iter().map(|it| it["phase"].as_str().unwrap()).collect::<Vec<_>>(), phases);
    assert!(summaries.iter().all(|it| it["runs"] == 3 && it["failed"] == 0), "{summaries:?}");
    let engines = events(&["--engine", "epoll,poll"], "engines");
    let rows = engines[0].as_array().unwrap();
    assert_eq!(rows.iter().map(|it| it["phase"].as_str().unwrap()).collect::<Vec<_>>(), [phases, phases].concat());
    assert!(rows.iter().all(|it| it["tests"] == 3), "{rows:?}");
    let output = client(Wharf, server.port, &["-n", "1M", "--two-phase", "--repeat", "2"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(phases.iter().all(|phase| said.contains(&format!("\n2 tests, 0 failed, {phase}: mean "))), "{said}");
}

#[test]
fn two_phases_thresholds_curves_and_settings_come_together() {
    let _beside = ALONE.read().unwrap_or_else(PoisonError::into_inner);
    let server = Server::start(&[]);
    let folder = std::env::temp_dir().join(format!("wharf-perf-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (curve, settings) = (folder.join("curve.svg"), folder.join("settings.toml"));
    std::fs::write(&settings, "blockcount = 10000\nlength = '8K'\nverify = true\n").unwrap();
    let settings = settings.to_str().unwrap();
    let output = client(Wharf, server.port, &["--config", settings, "--two-phase", "--cpu", "--latency"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said} {}", String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("Both phases succeeded."), "{said}");
    assert_eq!(said.matches("0 checksum errors, 0 sequence errors, 0 content errors").count(), 2, "{said}");
    assert_eq!(said.matches("CPU time: local").count(), 2, "{said}");
    let draw = curve.to_str().unwrap();
    let output =
        client(Wharf, server.port, &["-t", "1", "-i", "0.2", "--plot", draw, "--latency", "--fail-under", "900T"]);
    assert_eq!(output.status.code(), Some(1), "a threshold was missed");
    assert!(String::from_utf8_lossy(&output.stderr).contains("--fail-under"));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Latency under load:"));
    assert!(std::fs::read_to_string(&curve).unwrap().contains("<svg"));
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_flipped_bit_between_the_ends_is_one_checksum_error() {
    let server = Server::start(&[]);
    let target = SocketAddr::from(([127, 0, 0, 1], server.port));
    let between = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = between.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (number, client) in between.incoming().map_while(Result::ok).enumerate() {
            let server = TcpStream::connect(target).unwrap();
            let (mut up, mut down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut down, &mut &client));
            std::thread::spawn(move || {
                let mut at = 0;
                let mut buffer = [0; 4096];
                while let Ok(bytes @ 1..) = up.read(&mut buffer) {
                    // Of the data, which is the second connection's, one bit.
                    if number == 1 && (at..at + bytes).contains(&100_037) {
                        buffer[100_037 - at] ^= 1;
                    }
                    at += bytes;
                    if std::io::Write::write_all(&mut &server, &buffer[..bytes]).is_err() {
                        return;
                    }
                }
                let _ = server.shutdown(std::net::Shutdown::Write);
            });
        }
    });
    let output = client(Wharf, port, &["-k", "1000", "-l", "8K", "--verify"]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(" 1 checksum errors, 0 sequence errors, 0 content errors"), "{said}");
}
