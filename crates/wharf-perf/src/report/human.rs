//! Reports for people who know iperf3.

use super::text::{http_date, plain};
use super::units::{Format, amount, percent};
use crate::measure::figures::{End, Half, Interval, Role, Row, Start, rate};
use crate::protocol::json::pretty;
use crate::protocol::parameters::Protocol;
use crate::protocol::results::printable;
use serde_json::Value;
use std::fmt::Write;

/// The look of a test's report.
#[derive(Clone, Debug, Default)]
pub struct Human {
    /// The unit of rates.
    pub format: Format,
    /// Say more (`-V`).
    pub verbose: bool,
    /// Tell processor seconds for the work done (`--cpu`).
    pub cpu: bool,
    intervals: usize,
}

const RULE: &str = "- - - - - - - - - - - - - - - - - - - - - - - - -";
/// The rule around what an idle server says.
pub const SERVER_RULE: &str = "-----------------------------------------------------------";

impl Human {
    /// With these choices.
    pub fn new(format: Format, verbose: bool, cpu: bool) -> Human {
        Human { format, verbose, cpu, intervals: 0 }
    }

    /// What is said when the streams are there.
    pub fn start(&self, start: &Start) -> Vec<String> {
        let mut lines = Vec::new();
        let parameters = &start.parameters;
        if self.verbose {
            lines.push(format!("Time: {}", http_date(start.time)));
            lines.push(format!("Cookie: {}", start.cookie.text()));
            if parameters.protocol == Protocol::Tcp {
                let how = if parameters.mss > 0 { "" } else { " (default)" };
                lines.push(format!("TCP MSS: {}{how}", start.mss));
            }
            if parameters.bandwidth > 0 {
                lines.push(format!("Target Bitrate: {}", parameters.bandwidth));
            }
        }
        if start.role == Role::Client && parameters.reverse {
            lines.push(format!("Reverse mode, remote host {} is sending", start.host));
        }
        for stream in &start.streams {
            let (local, peer) = (plain(stream.local), plain(stream.peer));
            let (here, there) = (local.port(), peer.port());
            lines.push(format!(
                "[{:3}] local {} port {here} connected to {} port {there}",
                stream.id,
                local.ip(),
                peer.ip()
            ));
        }
        if self.verbose {
            let length = match (parameters.time, parameters.num, parameters.blocks) {
                (_, 0, 0) => format!("{} second test", parameters.time),
                (_, bytes, 0) => format!("{bytes} bytes to send"),
                (_, _, blocks) => format!("{blocks} blocks to send"),
            };
            lines.push(format!(
                "Starting Test: protocol: {}, {} streams, {} byte blocks, omitting {} seconds, {length}, tos {}",
                parameters.protocol.name(),
                parameters.parallel,
                parameters.len,
                parameters.omit,
                parameters.tos
            ));
        }
        lines
    }

    fn role(&self, start: &Start, sends: bool) -> &'static str {
        if !start.parameters.bidirectional {
            return "";
        }
        match (start.role, sends) {
            (Role::Client, true) => "[TX-C]",
            (Role::Client, false) => "[RX-C]",
            (Role::Server, true) => "[TX-S]",
            (Role::Server, false) => "[RX-S]",
        }
    }

    fn header(&self, start: &Start, summary: bool) -> String {
        let role = if start.parameters.bidirectional { "[Role]" } else { "" };
        let sends = start.streams.iter().any(|stream| stream.sends);
        let receives = start.streams.iter().any(|stream| !stream.sends);
        let columns = match start.parameters.protocol {
            Protocol::Tcp if summary && (sends || start.role == Role::Client) => "         Retr",
            Protocol::Tcp if sends && !summary => "         Retr  Cwnd",
            Protocol::Tcp => "",
            Protocol::Udp if summary || receives => "         Jitter    Lost/Total Datagrams",
            Protocol::Udp => "         Total Datagrams",
        };
        format!("[ ID]{role} Interval           Transfer     Bitrate{columns}")
    }

    /// The lines of an interval.
    pub fn interval(&mut self, start: &Start, interval: &Interval) -> Vec<String> {
        let mut lines = Vec::new();
        if self.intervals == 0 {
            lines.push(self.header(start, false));
        } else if start.streams.len() > 1 {
            lines.push(RULE.into());
        }
        self.intervals += 1;
        let protocol = start.parameters.protocol;
        lines.extend(interval.rows.iter().map(|row| self.row(self.role(start, row.sends), protocol, row)));
        for sum in &interval.sums {
            if interval.rows.iter().filter(|row| row.sends == sum.sends).count() > 1 {
                lines.push(self.row(self.role(start, sum.sends), protocol, sum));
            }
        }
        lines
    }

    fn row(&self, role: &str, protocol: Protocol, row: &Row) -> String {
        let mut line = self.line(row.id, role, row.start, row.end, row.bytes);
        let omitted = if row.omitted { "(omitted)" } else { "" };
        let _ = match (protocol, row.sends) {
            (Protocol::Tcp, true) => match (row.retransmits, row.tcp) {
                (Some(count), Some(tcp)) => {
                    write!(line, "  {count:3}   {}       {omitted}", amount(tcp.congestion_window as f64))
                }
                (Some(count), None) => write!(line, "  {count:3}             {omitted}"),
                _ => write!(line, "                  {omitted}"),
            },
            (Protocol::Tcp, false) => write!(line, "                  {omitted}"),
            (Protocol::Udp, true) => write!(line, "  {}  {omitted}", row.packets),
            (Protocol::Udp, false) => {
                let share = percent(100.0 * row.lost.max(0) as f64 / row.packets.max(1) as f64);
                let jitter = row.jitter * 1000.0;
                write!(line, "  {jitter:.3} ms  {}/{} ({share})  {omitted}", row.lost, row.packets)
            }
        };
        line
    }

    fn line(&self, id: Option<i64>, role: &str, start: f64, end: f64, bytes: u64) -> String {
        let id = id.map_or_else(|| "SUM".into(), |id| format!("{id:3}"));
        let rate = self.format.rate(rate(bytes, end - start));
        format!("[{id}]{role} {start:6.2}-{end:<6.2} sec  {}  {rate}", amount(bytes as f64))
    }

    fn total(&self, id: Option<i64>, role: &str, protocol: Protocol, half: &Half, sender: bool) -> String {
        let mut line = self.line(id, role, 0.0, half.seconds, half.bytes);
        let who = if sender { "sender" } else { "receiver" };
        let _ = match protocol {
            Protocol::Tcp if sender && half.retransmits >= 0 => {
                write!(line, "  {:3}            {who}", half.retransmits)
            }
            Protocol::Tcp => write!(line, "                  {who}"),
            Protocol::Udp => {
                let lost = if sender { 0 } else { half.lost };
                let share = percent(100.0 * lost.max(0) as f64 / half.packets.max(1) as f64);
                let jitter = if sender { 0.0 } else { half.jitter * 1000.0 };
                write!(line, "  {jitter:.3} ms  {lost}/{} ({share})  {who}", half.packets)
            }
        };
        line
    }

    /// The lines of the end.
    pub fn end(&self, start: &Start, end: &End) -> Vec<String> {
        let protocol = start.parameters.protocol;
        let mut lines = vec![RULE.into()];
        if self.verbose {
            lines.push("Test Complete. Summary Results:".into());
        }
        lines.push(self.header(start, true));
        for stream in &end.streams {
            let role = self.role(start, stream.sends);
            for sender in [true, false] {
                let half = if sender { &stream.sender } else { &stream.receiver };
                if half.known {
                    lines.push(self.total(Some(stream.id), role, protocol, half, sender));
                }
            }
            if stream.receiver.out_of_order > 0 {
                let late = stream.receiver.out_of_order;
                lines.push(format!("[{:3}]  {late} datagrams received out-of-order", stream.id));
            }
            if let Some(file) = &stream.file {
                let half = if stream.sends { &stream.sender } else { &stream.receiver };
                let (done, way) = (amount(half.bytes as f64), if stream.sends { "Sent" } else { "Received" });
                lines.push(format!(
                    "        {way} {done} / {} of {}",
                    amount(file.bytes as f64),
                    printable(&file.name)
                ));
            }
            if let Some(why) = &stream.broke {
                lines.push(format!("[{:3}]  ended before the test: {why}", stream.id));
            }
        }
        for ours in end.directions() {
            if end.streams.iter().filter(|stream| stream.sends == ours).count() > 1 {
                for sender in [true, false] {
                    let sum = end.sum(ours, sender);
                    if sum.known {
                        lines.push(self.total(None, self.role(start, ours), protocol, &sum, sender));
                    }
                }
            }
        }
        if self.verbose {
            lines.push(cpu_line(start, end));
            for (who, name) in [("snd", &end.congestion.0), ("rcv", &end.congestion.1)] {
                if let Some(name) = name {
                    lines.push(format!("{who}_tcp_congestion {name}"));
                }
            }
        }
        if self.cpu {
            lines.push(cost_line(start, end));
        }
        if let Some(latency) = &end.latency {
            lines.push(format!(
                "Latency under load: {} pings, p50 {} us, p99 {} us, p99.9 {} us, max {} us",
                latency.pings, latency.p50, latency.p99, latency.p999, latency.max
            ));
        }
        if start.parameters.verify {
            lines.push(verification_line(end));
        }
        match &end.server_output {
            Some(Value::String(text)) => {
                lines.extend([String::new(), "Server output:".into()]);
                lines.extend(text.lines().map(printable));
            }
            Some(object) => {
                lines.extend([String::new(), "Server JSON output:".into()]);
                // All of its control characters are escaped, but the tabs and ends of lines that were made here.
                lines.extend(pretty(object).lines().map(str::to_owned));
            }
            None => {}
        }
        lines
    }
}

fn cpu_line(start: &Start, end: &End) -> String {
    let side = |cpu: [f64; 3]| format!("{:.1}% ({:.1}%u/{:.1}%s)", cpu[0], cpu[1], cpu[2]);
    let (here, there) = match (start.parameters.bidirectional, start.streams.iter().any(|stream| stream.sends)) {
        (true, _) => ("both", "both"),
        (false, true) => ("sender", "receiver"),
        (false, false) => ("receiver", "sender"),
    };
    let remote = end.remote_cpu.map_or_else(|| "unknown".into(), side);
    format!("CPU Utilization: local/{here} {}, remote/{there} {remote}", side(end.cpu))
}

fn cost_line(start: &Start, end: &End) -> String {
    let cost = end.cost(start.parameters.len);
    let unit = if start.parameters.protocol == Protocol::Udp { "datagrams" } else { "blocks" };
    let side = |seconds: f64| {
        let (gigabyte, million) = (seconds / cost.gigabytes.max(1e-9), seconds / cost.million_packets.max(1e-9));
        format!("{seconds:.3} s = {gigabyte:.3} s/GB = {million:.2} s/million {unit}")
    };
    let there = cost.there.map_or_else(|| "unknown".into(), side);
    format!("CPU time: local {}, remote {there}", side(cost.here))
}

fn verification_line(end: &End) -> String {
    if end.verified != Some(true) {
        return "Verification: not verified, the peer cannot (it is not wharf)".into();
    }
    let (mut blocks, mut checksum, mut sequence, mut content) = (0_u64, 0_u64, 0_u64, 0_u64);
    for found in end.streams.iter().filter_map(|stream| stream.verification) {
        let add = |sum: &mut u64, more| *sum = sum.saturating_add(more);
        add(&mut blocks, found.blocks);
        add(&mut checksum, found.checksum);
        add(&mut sequence, found.sequence);
        add(&mut content, found.content);
    }
    format!(
        "Verification: {blocks} blocks, {checksum} checksum errors, {sequence} sequence errors, {content} content errors"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::figures::{StreamInfo, TcpSample};
    use crate::protocol::Cookie;
    use crate::protocol::parameters::{Parameters, stream_id};

    fn start(parameters: Parameters, sends: &[bool]) -> Start {
        let stream = |(index, sends): (usize, &bool)| StreamInfo {
            id: stream_id(index),
            sends: *sends,
            local: "127.0.0.1:59236".parse().unwrap(),
            peer: "[::ffff:127.0.0.1]:5201".parse().unwrap(),
        };
        Start {
            role: Role::Client,
            parameters,
            cookie: Cookie::random(),
            streams: sends.iter().enumerate().map(stream).collect(),
            host: "127.0.0.1".into(),
            port: 5201,
            mss: 1448,
            buffers: (0, 0),
            time: std::time::SystemTime::UNIX_EPOCH,
            interval: std::time::Duration::from_secs(1),
            engine: "epoll".into(),
        }
    }

    #[test]
    fn lines_look_like_iperf3s() {
        let mut human = Human::default();
        let start = start(Parameters::default(), &[true]);
        assert_eq!(human.start(&start), ["[  1] local 127.0.0.1 port 59236 connected to 127.0.0.1 port 5201"]);
        let tcp = TcpSample { congestion_window: 1_174_405, ..TcpSample::default() };
        let row = Row {
            id: Some(1),
            sends: true,
            end: 1.0,
            bytes: 1_310_720,
            retransmits: Some(0),
            tcp: Some(tcp),
            ..Row::default()
        };
        let interval = Interval { rows: vec![row.clone()], sums: vec![] };
        assert_eq!(
            human.interval(&start, &interval),
            [
                "[ ID] Interval           Transfer     Bitrate         Retr  Cwnd",
                "[  1]   0.00-1.00   sec  1.25 MBytes  10.5 Mbits/sec    0   1.12 MBytes       ",
            ]
        );
        let half = Half { known: true, seconds: 2.0, bytes: 2_490_368, retransmits: 0, ..Half::default() };
        assert_eq!(
            human.total(Some(1), "", Protocol::Tcp, &half, true),
            "[  1]   0.00-2.00   sec  2.38 MBytes  9.96 Mbits/sec    0            sender"
        );
        assert_eq!(
            human.total(Some(1), "", Protocol::Tcp, &half, false),
            "[  1]   0.00-2.00   sec  2.38 MBytes  9.96 Mbits/sec                  receiver"
        );
        let sum = Row { end: 1.0, sends: true, bytes: 2_621_440, retransmits: Some(0), ..Row::default() };
        assert_eq!(
            human.row("", Protocol::Tcp, &sum),
            "[SUM]   0.00-1.00   sec  2.50 MBytes  21.0 Mbits/sec    0             "
        );
    }

    #[test]
    fn datagrams_have_jitter_and_loss() {
        let human = Human::default();
        let half = Half { known: true, seconds: 1.0, bytes: 131072, jitter: 3e-6, packets: 4, ..Half::default() };
        assert_eq!(
            human.total(Some(1), "", Protocol::Udp, &half, false),
            "[  1]   0.00-1.00   sec   128 KBytes  1.05 Mbits/sec  0.003 ms  0/4 (0%)  receiver"
        );
    }
}
