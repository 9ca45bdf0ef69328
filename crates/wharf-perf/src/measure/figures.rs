//! What a test found out, before anybody decides how to show it.

use crate::protocol::Cookie;
use crate::protocol::parameters::Parameters;
use crate::protocol::results::Verification;
use serde_json::Value;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

/// Which end this process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Role {
    Client,
    Server,
}

/// A stream of a test, as this end sees it.
#[derive(Clone, Debug)]
pub struct StreamInfo {
    /// 1, 3, 4 …
    pub id: i64,
    /// This process sends on it.
    pub sends: bool,
    /// This end.
    pub local: SocketAddr,
    /// The other end.
    pub peer: SocketAddr,
}

/// What the kernel knows of a TCP connection at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TcpSample {
    /// Segments sent again since the connection was made.
    pub retransmits: u64,
    /// Bytes.
    pub congestion_window: u64,
    /// Bytes; −1: unknown.
    pub send_window: i64,
    /// Microseconds, smoothed.
    pub rtt: u64,
    /// Microseconds.
    pub rtt_variation: u64,
    /// Bytes.
    pub path_mtu: u64,
    /// Reorderings seen.
    pub reordered: u64,
}

/// A stream's counters at one moment, since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Payload bytes sent or received.
    pub bytes: u64,
    /// Datagrams sent, or the highest number received.
    pub packets: u64,
    /// Datagrams lost.
    pub lost: u64,
    /// Datagrams out of order.
    pub out_of_order: u64,
    /// Seconds.
    pub jitter: f64,
    /// Of a TCP sender.
    pub tcp: Option<TcpSample>,
}

/// One line of an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// The stream; `None`: a sum.
    pub id: Option<i64>,
    /// This process sends.
    pub sends: bool,
    /// Part of the time that does not count.
    pub omitted: bool,
    /// Seconds since the test or the counted part of it began.
    pub start: f64,
    /// The same.
    pub end: f64,
    /// Payload bytes.
    pub bytes: u64,
    /// Segments sent again in it; `None`: unknown, or not a sender.
    pub retransmits: Option<u64>,
    /// At its end.
    pub tcp: Option<TcpSample>,
    /// Datagrams.
    pub packets: u64,
    /// Datagrams lost; negative when late ones of the interval before came.
    pub lost: i64,
    /// Seconds, at its end.
    pub jitter: f64,
}

impl Row {
    /// Its length.
    pub fn seconds(&self) -> f64 {
        self.end - self.start
    }

    /// Bits a second.
    pub fn rate(&self) -> f64 {
        rate(self.bytes, self.seconds())
    }
}

/// What happened between two ticks.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Interval {
    /// Each stream.
    pub rows: Vec<Row>,
    /// Together; the streams from client to server first when there are both.
    pub sums: Vec<Row>,
}

/// One end's total of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Half {
    /// The peer told it, or it is our own.
    pub known: bool,
    /// Seconds.
    pub seconds: f64,
    /// Payload bytes.
    pub bytes: u64,
    /// Segments sent again; −1: unknown.
    pub retransmits: i64,
    /// Seconds.
    pub jitter: f64,
    /// Datagrams lost.
    pub lost: i64,
    /// Datagrams: sent, or the highest number.
    pub packets: i64,
    /// Datagrams out of order; not exchanged, so 0 for the peer.
    pub out_of_order: u64,
}

impl Half {
    /// Bits a second.
    pub fn rate(&self) -> f64 {
        rate(self.bytes, self.seconds)
    }
}

/// Bits a second, 0 in no time.
pub fn rate(bytes: u64, seconds: f64) -> f64 {
    if seconds > 0.0 { bytes as f64 * 8.0 / seconds } else { 0.0 }
}

/// Round trips of a TCP sender, over the ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct RoundTrips {
    /// Microseconds.
    pub max: u64,
    /// Microseconds.
    pub min: u64,
    /// Microseconds.
    pub mean: u64,
    /// Bytes.
    pub max_congestion_window: u64,
    /// Bytes; −1: unknown.
    pub max_send_window: i64,
    /// Reorderings seen.
    pub reordered: u64,
}

/// A stream at the end.
#[derive(Clone, Debug)]
pub struct StreamEnd {
    /// 1, 3, 4 …
    pub id: i64,
    /// This process sends.
    pub sends: bool,
    /// The sending end's account.
    pub sender: Half,
    /// The receiving end's.
    pub receiver: Half,
    /// Of a TCP sender here.
    pub round_trips: Option<RoundTrips>,
    /// What the receiver that looked at every block found.
    pub verification: Option<Verification>,
    /// It ended before the test did.
    pub broke: Option<String>,
    /// What was sent from, or received into.
    pub file: Option<DiskFile>,
}

/// The file of a stream (`-F`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFile {
    /// As it was given.
    pub name: String,
    /// Bytes, at the end.
    pub bytes: u64,
}

/// Percentiles of the pings beside the load, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[allow(missing_docs)]
pub struct Latency {
    pub pings: u64,
    pub min: u64,
    pub mean: f64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    pub max: u64,
}

/// What is known when the streams are there.
#[derive(Clone, Debug)]
pub struct Start {
    /// Which end this is.
    pub role: Role,
    /// What was agreed.
    pub parameters: Parameters,
    /// The test's name.
    pub cookie: Cookie,
    /// The streams.
    pub streams: Vec<StreamInfo>,
    /// Whom the client was told to connect to; at the server the client's address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The control connection's segment size.
    pub mss: u64,
    /// What the system gave a stream: send buffer, receive buffer.
    pub buffers: (u64, u64),
    /// When.
    pub time: SystemTime,
    /// Between two reports; zero: none.
    pub interval: Duration,
    /// What moves the bytes.
    pub engine: String,
}

/// The end of a test.
#[derive(Clone, Debug)]
pub struct End {
    /// The streams.
    pub streams: Vec<StreamEnd>,
    /// Percent of a processor, here: total, user, system.
    pub cpu: [f64; 3],
    /// And there.
    pub remote_cpu: Option<[f64; 3]>,
    /// TCP's congestion control, sender and receiver.
    pub congestion: (Option<String>, Option<String>),
    /// Whether the peer can verify and did; `None`: it was not asked for.
    pub verified: Option<bool>,
    /// Pings beside the load; `None`: not asked for, or the peer has none.
    pub latency: Option<Latency>,
    /// The server's own report.
    pub server_output: Option<Value>,
}

impl End {
    /// The streams of a direction together, in the sender's or the receiver's account.
    pub fn sum(&self, ours: bool, sender: bool) -> Half {
        let halves: Vec<Half> = self
            .streams
            .iter()
            .filter(|stream| stream.sends == ours)
            .map(|stream| if sender { stream.sender } else { stream.receiver })
            .collect();
        let mut sum = Half { known: !halves.is_empty() && halves.iter().all(|half| half.known), ..Half::default() };
        for half in &halves {
            sum.seconds = sum.seconds.max(half.seconds);
            // The peer's figures may be anything.
            sum.bytes = sum.bytes.saturating_add(half.bytes);
            let known = sum.retransmits >= 0 && half.retransmits >= 0;
            sum.retransmits = if known { sum.retransmits.saturating_add(half.retransmits) } else { -1 };
            sum.jitter += half.jitter / halves.len() as f64;
            sum.lost = sum.lost.saturating_add(half.lost);
            sum.packets = sum.packets.saturating_add(half.packets);
            sum.out_of_order = sum.out_of_order.saturating_add(half.out_of_order);
        }
        sum
    }

    /// Whether this process sends, receives, or both.
    pub fn directions(&self) -> Vec<bool> {
        [true, false].into_iter().filter(|ours| self.streams.iter().any(|stream| stream.sends == *ours)).collect()
    }

    /// What arrived, of all streams, bits a second: the figure that thresholds and summaries are about. Where the
    /// receiver did not tell, what was sent.
    pub fn throughput(&self) -> f64 {
        self.directions()
            .into_iter()
            .map(|ours| {
                let received = self.sum(ours, false);
                if received.known { received.rate() } else { self.sum(ours, true).rate() }
            })
            .sum()
    }

    /// Datagrams of a direction that did not arrive, in percent of those that were sent. The receiver's own count
    /// misses the last ones, and of a direction that is dead all of them.
    pub fn loss_percent(&self, ours: bool) -> f64 {
        let (sent, received) = (self.sum(ours, true), self.sum(ours, false));
        let arrived = if received.known { received.packets.saturating_sub(received.lost) } else { 0 };
        let all = sent.packets.max(received.packets);
        if all > 0 { 100.0 * all.saturating_sub(arrived).max(0) as f64 / all as f64 } else { 0.0 }
    }

    /// Errors that verification found, of all streams. What a peer sends that seals no blocks is not wrong.
    pub fn verification_errors(&self) -> u64 {
        if self.verified != Some(true) {
            return 0;
        }
        let errors = self.streams.iter().filter_map(|stream| stream.verification).map(|found| found.errors());
        errors.fold(0, u64::saturating_add)
    }

    /// Processor seconds, here and there, from percent and time; for a gigabyte that arrived and for a million packets.
    pub fn cost(&self, len: usize) -> Cost {
        let (mut bytes, mut packets, mut seconds) = (0, 0.0, 0.0_f64);
        for ours in self.directions() {
            let (sent, received) = (self.sum(ours, true), self.sum(ours, false));
            let arrived = if received.known { received } else { sent };
            bytes = u64::saturating_add(bytes, arrived.bytes);
            seconds = seconds.max(sent.seconds).max(received.seconds);
            packets += arrived.bytes as f64 / len.max(1) as f64;
        }
        let here = self.cpu[0] / 100.0 * seconds;
        let there = self.remote_cpu.map(|cpu| cpu[0] / 100.0 * seconds);
        Cost { here, there, gigabytes: bytes as f64 / 1e9, million_packets: packets / 1e6 }
    }
}

/// Processor time of a test.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cost {
    /// Seconds of this process.
    pub here: f64,
    /// Seconds of the peer, if it told.
    pub there: Option<f64>,
    /// What arrived, 10⁹ bytes.
    pub gigabytes: f64,
    /// Datagrams that arrived, or blocks of TCP, in millions.
    pub million_packets: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(sent: Half, received: Half) -> End {
        let stream = StreamEnd {
            id: 1,
            sends: true,
            sender: sent,
            receiver: received,
            round_trips: None,
            verification: None,
            broke: None,
            file: None,
        };
        End {
            streams: vec![stream],
            cpu: [0.0; 3],
            remote_cpu: None,
            congestion: (None, None),
            verified: None,
            latency: None,
            server_output: None,
        }
    }

    #[test]
    fn datagrams_that_were_lost_at_the_end_are_lost_too() {
        let half = |packets, lost| Half { known: true, packets, lost, ..Half::default() };
        assert_eq!(end(half(100, 0), half(100, 0)).loss_percent(true), 0.0);
        assert_eq!(end(half(100, 0), half(90, 5)).loss_percent(true), 15.0);
        assert_eq!(end(half(100, 0), half(0, 0)).loss_percent(true), 100.0, "nothing has come");
        assert_eq!(end(half(100, 0), Half::default()).loss_percent(true), 100.0, "nobody has told");
        assert_eq!(end(half(0, 0), half(0, 0)).loss_percent(true), 0.0);
    }
}
