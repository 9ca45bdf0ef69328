//! Reports for programs: iperf3's schema, always valid, and our own data under one key, `wharf`.

use super::text::{http_date, plain};
use crate::measure::figures::{End, Half, Interval, Role, Row, Start};
use crate::protocol::json::without_controls;
use crate::protocol::parameters::{Parameters, Protocol};
use crate::surroundings::system;
use serde_json::{Map, Value, json};
use std::time::UNIX_EPOCH;

/// A finite number; JSON has no other.
fn number(value: f64) -> Value {
    json!(if value.is_finite() { value } else { 0.0 })
}

/// What is printed as the system: `uname -a` without its operating system's name.
pub fn system_info() -> String {
    system::name()
}

/// What is known before a connection is made.
pub fn preamble(version: &str) -> Value {
    json!({"connected": [], "version": version, "system_info": system_info()})
}

/// The `start` object.
pub fn start(start: &Start, version: &str) -> Value {
    let parameters = &start.parameters;
    let connected: Vec<Value> = start
        .streams
        .iter()
        .map(|stream| {
            let (local, peer) = (plain(stream.local), plain(stream.peer));
            json!({
                "socket": stream.id,
                "local_host": local.ip().to_string(), "local_port": local.port(),
                "remote_host": peer.ip().to_string(), "remote_port": peer.port(),
            })
        })
        .collect();
    let since = start.time.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut map = Map::new();
    map.insert("connected".into(), connected.into());
    map.insert("version".into(), version.into());
    map.insert("system_info".into(), system_info().into());
    map.insert(
        "timestamp".into(),
        json!({
            "time": http_date(start.time),
            "timesecs": since.as_secs(),
            "timemillisecs": since.as_millis() as u64,
        }),
    );
    let who = if start.role == Role::Client { "connecting_to" } else { "accepted_connection" };
    map.insert(who.into(), json!({"host": start.host, "port": start.port}));
    map.insert("cookie".into(), start.cookie.text().into());
    if parameters.protocol == Protocol::Tcp {
        let key = if parameters.mss > 0 { "tcp_mss" } else { "tcp_mss_default" };
        map.insert(key.into(), start.mss.into());
    }
    map.insert("target_bitrate".into(), parameters.bandwidth.into());
    map.insert("fq_rate".into(), parameters.fq_rate.into());
    map.insert("sock_bufsize".into(), parameters.window.into());
    map.insert("sndbuf_actual".into(), start.buffers.0.into());
    map.insert("rcvbuf_actual".into(), start.buffers.1.into());
    map.insert("test_start".into(), test_start(parameters, start.interval.as_secs_f64()));
    map.into()
}

fn test_start(parameters: &Parameters, interval: f64) -> Value {
    json!({
        "protocol": parameters.protocol.name(),
        "num_streams": parameters.parallel,
        "blksize": parameters.len,
        "omit": parameters.omit,
        "duration": parameters.time,
        "bytes": parameters.num,
        "blocks": parameters.blocks,
        "reverse": i32::from(parameters.reverse),
        "tos": parameters.tos,
        "target_bitrate": parameters.bandwidth,
        "bidir": i32::from(parameters.bidirectional),
        "fqrate": parameters.fq_rate,
        "interval": number(interval),
        "gso": i32::from(parameters.gsro),
        "gro": i32::from(parameters.gsro),
    })
}

fn row(row: &Row, protocol: Protocol) -> Value {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| drop(map.insert(key.into(), value));
    if let Some(id) = row.id {
        put("socket", id.into());
    }
    put("start", number(row.start));
    put("end", number(row.end));
    put("seconds", number(row.seconds()));
    put("bytes", row.bytes.into());
    put("bits_per_second", number(row.rate()));
    match (protocol, row.sends) {
        (Protocol::Tcp, true) => {
            if let Some(count) = row.retransmits {
                put("retransmits", count.into());
            }
            if let Some(tcp) = row.tcp {
                put("snd_cwnd", tcp.congestion_window.into());
                put("snd_wnd", tcp.send_window.into());
                put("rtt", tcp.rtt.into());
                put("rttvar", tcp.rtt_variation.into());
                put("pmtu", tcp.path_mtu.into());
                put("reorder", tcp.reordered.into());
            }
        }
        (Protocol::Tcp, false) => {}
        (Protocol::Udp, true) => put("packets", row.packets.into()),
        (Protocol::Udp, false) => {
            put("jitter_ms", number(row.jitter * 1000.0));
            put("lost_packets", row.lost.into());
            put("packets", row.packets.into());
            put("lost_percent", number(100.0 * row.lost as f64 / row.packets.max(1) as f64));
        }
    }
    put("omitted", row.omitted.into());
    put("sender", row.sends.into());
    map.into()
}

/// An object of `intervals`.
pub fn interval(interval: &Interval, start: &Start) -> Value {
    let protocol = start.parameters.protocol;
    let mut map = Map::new();
    let rows: Vec<Value> = interval.rows.iter().map(|one| row(one, protocol)).collect();
    map.insert("streams".into(), rows.into());
    for sum in ordered(start.role, &interval.sums) {
        let key = if map.contains_key("sum") { "sum_bidir_reverse" } else { "sum" };
        map.insert(key.into(), row(sum, protocol));
    }
    map.into()
}

/// The direction from client to server first.
fn ordered(role: Role, sums: &[Row]) -> impl Iterator<Item = &Row> {
    let first = move |sum: &&Row| sum.sends == (role == Role::Client);
    sums.iter().filter(first).chain(sums.iter().filter(move |sum| !first(sum)))
}

fn half(half: &Half, socket: Option<i64>) -> Map<String, Value> {
    let mut map = Map::new();
    if let Some(socket) = socket {
        map.insert("socket".into(), socket.into());
    }
    map.insert("start".into(), json!(0));
    map.insert("end".into(), number(half.seconds));
    map.insert("seconds".into(), number(half.seconds));
    map.insert("bytes".into(), half.bytes.into());
    map.insert("bits_per_second".into(), number(half.rate()));
    map
}

fn udp(half_of: &Half, loss_of: &Half, socket: Option<i64>, sends: bool) -> Map<String, Value> {
    let mut map = half(half_of, socket);
    map.insert("jitter_ms".into(), number(loss_of.jitter * 1000.0));
    map.insert("lost_packets".into(), loss_of.lost.into());
    map.insert("packets".into(), half_of.packets.into());
    map.insert("lost_percent".into(), number(100.0 * loss_of.lost as f64 / half_of.packets.max(1) as f64));
    if socket.is_some() {
        map.insert("out_of_order".into(), loss_of.out_of_order.into());
    }
    map.insert("sender".into(), sends.into());
    map
}

/// The `end` object.
pub fn end(end: &End, start: &Start) -> Value {
    let mut map = Map::new();
    let tcp = start.parameters.protocol == Protocol::Tcp;
    let streams: Vec<Value> = end
        .streams
        .iter()
        .map(|stream| {
            if !tcp {
                return json!({"udp": udp(&stream.sender, &stream.receiver, Some(stream.id), stream.sends)});
            }
            let mut sender = half(&stream.sender, Some(stream.id));
            if stream.sender.retransmits >= 0 {
                sender.insert("retransmits".into(), stream.sender.retransmits.into());
            }
            // A client that receives knows none; iperf3's has zeros there, and its readers expect the keys.
            let unknown = start.role == Role::Client && stream.sender.retransmits >= 0;
            if let Some(trips) = stream.round_trips.or(unknown.then(Default::default)) {
                sender.insert("reorder".into(), trips.reordered.into());
                sender.insert("max_snd_cwnd".into(), trips.max_congestion_window.into());
                sender.insert("max_snd_wnd".into(), trips.max_send_window.into());
                sender.insert("max_rtt".into(), trips.max.into());
                sender.insert("min_rtt".into(), trips.min.into());
                sender.insert("mean_rtt".into(), trips.mean.into());
            }
            sender.insert("sender".into(), stream.sends.into());
            let mut receiver = half(&stream.receiver, Some(stream.id));
            receiver.insert("sender".into(), stream.sends.into());
            let mut object = json!({"sender": sender, "receiver": receiver});
            if let Some(file) = &stream.file {
                let share = |bytes: u64| number(100.0 * bytes as f64 / file.bytes.max(1) as f64);
                let (sent, received) = (stream.sender.bytes, stream.receiver.bytes);
                object["diskfile"] = json!({
                    "sent": sent, "received": received, "size": file.bytes,
                    "percent_sent": share(sent), "percent_received": share(received), "filename": file.name,
                });
            }
            object
        })
        .collect();
    map.insert("streams".into(), streams.into());
    let directions = end.directions();
    let first = directions.iter().filter(|sends| **sends == (start.role == Role::Client));
    let second = directions.iter().filter(|sends| **sends != (start.role == Role::Client));
    for (position, sends) in first.chain(second).enumerate() {
        let suffix = if position == 0 { "" } else { "_bidir_reverse" };
        let (sent, received) = (end.sum(*sends, true), end.sum(*sends, false));
        if tcp {
            let mut object = half(&sent, None);
            if sent.retransmits >= 0 {
                object.insert("retransmits".into(), sent.retransmits.into());
            }
            object.insert("sender".into(), (*sends).into());
            map.insert(format!("sum_sent{suffix}"), object.into());
            let mut object = half(&received, None);
            object.insert("sender".into(), (*sends).into());
            map.insert(format!("sum_received{suffix}"), object.into());
        } else {
            map.insert(format!("sum{suffix}"), udp(&sent, &received, None, *sends).into());
            map.insert(format!("sum_sent{suffix}"), udp(&sent, &Half::default(), None, true).into());
            map.insert(format!("sum_received{suffix}"), udp(&received, &received, None, false).into());
        }
    }
    let remote = end.remote_cpu.unwrap_or_default();
    map.insert(
        "cpu_utilization_percent".into(),
        json!({
            "host_total": number(end.cpu[0]), "host_user": number(end.cpu[1]), "host_system": number(end.cpu[2]),
            "remote_total": number(remote[0]), "remote_user": number(remote[1]), "remote_system": number(remote[2]),
        }),
    );
    if tcp {
        for (key, name) in
            [("sender_tcp_congestion", &end.congestion.0), ("receiver_tcp_congestion", &end.congestion.1)]
        {
            if let Some(name) = name {
                map.insert(key.into(), name.as_str().into());
            }
        }
    }
    map.into()
}

/// What iperf3 has no place for: the top-level key `wharf`.
pub fn ours(end: Option<&End>, start: Option<&Start>) -> Value {
    let mut map = Map::new();
    map.insert("version".into(), env!("CARGO_PKG_VERSION").into());
    if let Some(start) = start {
        map.insert("engine".into(), start.engine.as_str().into());
    }
    if let (Some(end), Some(start)) = (end, start) {
        map.insert("throughput_bits_per_second".into(), number(end.throughput()));
        let cost = end.cost(start.parameters.len);
        let of = |seconds: f64, work: f64| number(if work > 0.0 { seconds / work } else { 0.0 });
        let mut cpu = json!({
            "host_seconds": number(cost.here),
            "host_seconds_per_gigabyte": of(cost.here, cost.gigabytes),
            "host_seconds_per_million_packets": of(cost.here, cost.million_packets),
        });
        if let Some(there) = cost.there {
            cpu["remote_seconds"] = number(there);
            cpu["remote_seconds_per_gigabyte"] = of(there, cost.gigabytes);
            cpu["remote_seconds_per_million_packets"] = of(there, cost.million_packets);
        }
        map.insert("cpu".into(), cpu);
        if let Some(verified) = end.verified {
            map.insert("verified".into(), verified.into());
            let streams: Vec<Value> = end
                .streams
                .iter()
                .filter_map(|stream| {
                    let mut found = stream.verification?.to_json();
                    found["socket"] = stream.id.into();
                    Some(found)
                })
                .collect();
            map.insert("verification".into(), streams.into());
        }
        if let Some(latency) = end.latency {
            map.insert(
                "latency_us".into(),
                json!({
                    "pings": latency.pings, "min": latency.min, "mean": number(latency.mean),
                    "p50": latency.p50, "p99": latency.p99, "p99_9": latency.p999, "max": latency.max,
                }),
            );
        }
        let broken: Vec<Value> = end
            .streams
            .iter()
            .filter_map(|stream| Some(json!({"socket": stream.id, "error": stream.broke.as_ref()?})))
            .collect();
        if !broken.is_empty() {
            map.insert("broken_streams".into(), broken.into());
        }
    }
    map.into()
}

/// One line of `--json-stream`.
pub fn event(name: &str, data: Value) -> String {
    without_controls(&json!({"event": name, "data": data}).to_string())
}
