//! Bulk transfer over the loopback: `wharf perf` against itself beside iperf3 against itself.
//!
//! A message is a megabyte (10^6 bytes) of TCP that arrived, or a datagram that did. Processor time is that of both
//! ends together: a microsecond for a megabyte is a millisecond for a gigabyte. Neither end is bound to a processor.

use crate::lab::Lab;
use crate::measure::{Plan, Sample, all_in_turns, ratios, rows};
use crate::process::program;
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::stats::median;
use crate::system::Server;
use crate::usage::children_cpu_us;
use serde_json::Value;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

struct Case {
    name: &'static str,
    arguments: &'static [&'static str],
    /// The rate that is wanted, of iperf3's.
    rate: f64,
    is_quick: bool,
}

const CASES: [Case; 7] = [
    Case { name: "TCP, one stream", arguments: &[], rate: 1.0, is_quick: true },
    Case { name: "TCP -P 4", arguments: &["-P", "4"], rate: 1.0, is_quick: true },
    Case { name: "TCP -R", arguments: &["-R"], rate: 1.0, is_quick: false },
    Case { name: "TCP --bidir", arguments: &["--bidir"], rate: 1.0, is_quick: false },
    Case { name: "TCP -P 64", arguments: &["-P", "64"], rate: 1.0, is_quick: false },
    Case { name: "UDP -b 0 -l 1400", arguments: &["-u", "-b", "0", "-l", "1400"], rate: 1.5, is_quick: true },
    Case { name: "UDP -b 0 -l 1400 -R", arguments: &["-u", "-b", "0", "-l", "1400", "-R"], rate: 1.5, is_quick: false },
];

pub fn run(lab: &Lab) -> io::Result<Report> {
    let mut report = Report::default();
    let Some(wharf) = program("wharf") else {
        report.notes.push("the program wharf is not built: cargo build --release -p wharf-cli".into());
        return Ok(report);
    };
    if !crate::process::has("iperf3", "--version") {
        report.notes.push("iperf3 is missing (Debian: apt-get install iperf3): nothing was measured".into());
        return Ok(report);
    }
    let ours = |name| serve(name, &wharf, &["perf", "serve"]);
    let stock = PathBuf::from("iperf3");
    let pairs = [
        (ours("wharf perf")?, wharf.clone(), &["perf", "run"][..]),
        (ours(AGAIN)?, wharf.clone(), &["perf", "run"]),
        (serve("iperf3", &stock, &["-s"])?, stock, &["-c"]),
    ];
    let names: Vec<&str> = pairs.iter().map(|(server, ..)| server.name.as_str()).collect();
    for case in &CASES {
        if lab.quick && !case.is_quick {
            continue;
        }
        lab.case(case.name);
        let mut lost: Vec<Vec<f64>> = vec![Vec::new(); pairs.len()];
        let samples = all_in_turns(lab, pairs.len(), Plan::within(lab.pick(1.0, 20.0)), |at| {
            let (server, client, arguments) = &pairs[at];
            let (sample, loss) = transfer(server, client, arguments, case)?;
            lost[at].extend(loss);
            Ok(sample)
        })?;
        report.rows.extend(rows("bulk", case.name, &names, &samples));
        for (name, lost) in names.iter().zip(&lost) {
            if let Some(percent) = median(lost) {
                report.notes.push(format!("{}: {name} lost {percent:.1} % of the datagrams (median)", case.name));
            }
        }
        let rate = median(&ratios(&samples[0], &samples[2], |sample| sample.messages_per_second));
        let cpu = median(&ratios(&samples[0], &samples[2], |sample| sample.cpu_us_per_message));
        report.goals.push(Goal::new(format!("{}: rate of iperf3's", case.name), rate, Wanted::AtLeast(case.rate)));
        report.goals.push(Goal::new(format!("{}: cpu of iperf3's", case.name), cpu, Wanted::AtMost(1.0)));
    }
    Ok(report)
}

/// Neither says its address in a way that a program reads, so it is given a port that was free just before.
fn serve(name: &str, program: &Path, arguments: &[&str]) -> io::Result<Server> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let port = address.port().to_string();
    let arguments: Vec<String> =
        arguments.iter().chain(&["-B", "127.0.0.1", "-p", &port]).map(|&it| it.into()).collect();
    let server = Server::silent(name, program, &arguments, address)?;
    let until = Instant::now() + Duration::from_secs(10);
    while let Err(error) = TcpStream::connect(address) {
        if Instant::now() > until {
            return Err(io::Error::new(error.kind(), format!("{name} does not answer at {address}: {error}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    // It takes that connection for a test that was broken off.
    std::thread::sleep(Duration::from_millis(300));
    Ok(server)
}

/// One test, and how many percent of the datagrams were lost.
fn transfer(server: &Server, client: &Path, arguments: &[&str], case: &Case) -> io::Result<(Sample, Option<f64>)> {
    let SocketAddr::V4(address) = server.address else { return Err(io::Error::other("the server is of IPv4")) };
    let (before, own) = (server.usage(), children_cpu_us());
    let output = Command::new(client)
        .args(arguments)
        .args([&address.ip().to_string(), "-p", &address.port().to_string(), "-J", "-i", "0", "-t", "1"])
        .args(case.arguments)
        .stdin(Stdio::null())
        .output()?;
    let used = server.usage().since(before);
    let cpu_us = used.cpu_us() + children_cpu_us() - own;
    let report: Value = serde_json::from_slice(&output.stdout)
        .map_err(|error| io::Error::other(format!("{}: no report: {error}", server.name)))?;
    let (messages, seconds, lost) = arrived(&report).ok_or_else(|| {
        let why = report["error"].as_str().unwrap_or("the report has no sum of what arrived");
        io::Error::other(format!("{}, {}: {why}", server.name, case.name))
    })?;
    let sample = Sample {
        messages_per_second: Some(messages / seconds),
        cpu_us_per_message: Some(cpu_us / messages),
        ..Sample::default()
    };
    Ok((sample, lost))
}

/// How many messages arrived, in how many seconds, and the percentage that did not.
fn arrived(report: &Value) -> Option<(f64, f64, Option<f64>)> {
    let end = &report["end"];
    let test = &report["start"]["test_start"];
    if test["protocol"] == "UDP" {
        // What the receiver got, against what the sender sent: the receiver's own count of losses misses the last ones.
        let (sent, received) = (&end["sum_sent"], &end["sum_received"]);
        let packets = sent["packets"].as_f64()?;
        let arrived = received["bytes"].as_f64()? / test["blksize"].as_f64()?;
        return Some((arrived, received["seconds"].as_f64()?, Some(100.0 * (1.0 - arrived / packets))));
    }
    let sums = [&end["sum_received"], &end["sum_received_bidir_reverse"]];
    let bytes: f64 = sums.iter().filter_map(|sum| sum["bytes"].as_f64()).sum();
    Some((bytes / 1e6, sums[0]["seconds"].as_f64()?, None)).filter(|_| bytes > 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_arrived_is_taken_from_reports_of_each_kind() {
        let sum = |bytes: u64| json!({ "bytes": bytes, "seconds": 2.0 });
        let tcp = json!({ "end": { "sum_received": sum(3_000_000) } });
        assert_eq!(arrived(&tcp), Some((3.0, 2.0, None)));
        let both = json!({ "end": { "sum_received": sum(3_000_000), "sum_received_bidir_reverse": sum(1_000_000) } });
        assert_eq!(arrived(&both), Some((4.0, 2.0, None)));
        // 200 were sent and 150 came, of which the receiver missed 20: it never heard of the last 30.
        let udp = json!({ "start": { "test_start": { "protocol": "UDP", "blksize": 1000 } },
            "end": { "sum": { "packets": 200, "lost_packets": 20, "seconds": 1.5 },
                "sum_sent": { "packets": 200, "seconds": 1.5 },
                "sum_received": { "packets": 170, "lost_packets": 20, "bytes": 150_000, "seconds": 2.0 } } });
        assert_eq!(arrived(&udp), Some((150.0, 2.0, Some(25.0))));
        assert_eq!(arrived(&json!({ "end": {}, "error": "it broke" })), None);
        assert_eq!(arrived(&json!({ "end": { "sum_received": sum(0) } })), None);
    }
}
