//! A test in two phases, first from the client to the server and then back: what each end counted, side by side.

use crate::measure::figures::{End, Half, Role, Start};
use crate::protocol::parameters::Protocol;
use serde_json::{Map, Value, json};

/// Both phases, as both ends saw them.
#[derive(Clone, Debug)]
pub struct Sides {
    phases: Vec<Phase>,
}

#[derive(Clone, Debug)]
struct Phase {
    name: &'static str,
    protocol: Protocol,
    /// Bytes that were to arrive; 0: whatever arrives is right.
    wanted: u64,
    len: u64,
    /// The client's figures, and the server's.
    ends: [Figures; 2],
    verified: Option<bool>,
    verification_errors: u64,
    broken: bool,
}

#[derive(Clone, Copy, Debug)]
struct Figures {
    sends: bool,
    half: Half,
    cpu: Option<f64>,
}

impl Sides {
    /// From the two phases' starts and ends; without the second if there was none.
    pub fn new(first: (&Start, &End), second: Option<(&Start, &End)>) -> Sides {
        let phases = [Some(first), second].into_iter().flatten().map(|(start, end)| Phase::new(start, end)).collect();
        Sides { phases }
    }

    /// Both were there, all that was to arrive did, no stream broke, and no block was other than it was sent.
    pub fn success(&self) -> bool {
        self.phases.len() == 2 && self.phases.iter().all(Phase::success)
    }

    /// For people.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![String::new(), format!("{:22} {:>18} {:>18}", "", "client", "server")];
        for phase in &self.phases {
            lines.extend(phase.lines());
        }
        lines.push(if self.success() { "Both phases succeeded." } else { "Not both phases succeeded." }.into());
        lines
    }

    /// For programs.
    pub fn to_json(&self) -> Value {
        let phases: Vec<Value> = self.phases.iter().map(Phase::to_json).collect();
        json!({"phases": phases, "success": self.success()})
    }
}

impl Phase {
    fn new(start: &Start, end: &End) -> Phase {
        let client = start.role == Role::Client;
        let client_sends = !start.parameters.reverse;
        let ours = client == client_sends;
        let (sent, received) = (end.sum(ours, true), end.sum(ours, false));
        let here = Some(end.cpu[0]);
        let there = end.remote_cpu.map(|cpu| cpu[0]);
        let figures = |sends: bool, is_here: bool| Figures {
            sends,
            half: if sends { sent } else { received },
            cpu: if is_here { here } else { there },
        };
        let parameters = &start.parameters;
        Phase {
            name: if client_sends { "client to server" } else { "server to client" },
            protocol: parameters.protocol,
            wanted: parameters.num.max(parameters.blocks.saturating_mul(parameters.len as u64)),
            len: parameters.len.max(1) as u64,
            ends: [figures(client_sends, client), figures(!client_sends, !client)],
            verified: end.verified,
            verification_errors: end.verification_errors(),
            broken: end.streams.iter().any(|stream| stream.broke.is_some()),
        }
    }

    fn received(&self) -> &Half {
        &self.ends[usize::from(self.ends[0].sends)].half
    }

    fn success(&self) -> bool {
        let received = self.received();
        let arrived = received.known && received.bytes > 0 && received.bytes >= self.wanted;
        arrived && !self.broken && self.verification_errors == 0
    }

    /// Blocks of TCP, or datagrams.
    fn packets(&self, half: &Half) -> u64 {
        match self.protocol {
            Protocol::Tcp => half.bytes / self.len,
            Protocol::Udp => u64::try_from(half.packets).unwrap_or(0),
        }
    }

    fn lines(&self) -> Vec<String> {
        let udp = self.protocol == Protocol::Udp;
        let row = |name: &str, cell: &dyn Fn(&Figures) -> Option<String>| {
            let cells = self.ends.map(|end| cell(&end).filter(|_| end.half.known).unwrap_or_else(|| "-".into()));
            format!("  {name:20} {:>18} {:>18}", cells[0], cells[1])
        };
        let way = |end: &Figures| if end.sends { "sent" } else { "received" };
        let mut lines = vec![
            format!("{:22} {:>18} {:>18}", self.name, way(&self.ends[0]), way(&self.ends[1])),
            row("bytes", &|end| Some(end.half.bytes.to_string())),
            row(if udp { "datagrams" } else { "blocks" }, &|end| Some(self.packets(&end.half).to_string())),
            row("seconds", &|end| Some(format!("{:.2}", end.half.seconds))),
            row("Mbit/s", &|end| Some(format!("{:.1}", end.half.rate() / 1e6))),
        ];
        if udp {
            lines.push(row("lost", &|end| (!end.sends).then(|| end.half.lost.to_string())));
            lines.push(row("jitter, ms", &|end| (!end.sends).then(|| format!("{:.3}", 1000.0 * end.half.jitter))));
        } else {
            lines.push(row("retransmits", &|end| {
                (end.sends && end.half.retransmits >= 0).then(|| end.half.retransmits.to_string())
            }));
        }
        lines.push(row("processor, %", &|end| end.cpu.map(|cpu| format!("{cpu:.1}"))));
        if let Some(verified) = self.verified {
            lines.push(row("verification errors", &|end| {
                (!end.sends)
                    .then(|| if verified { self.verification_errors.to_string() } else { "not verified".into() })
            }));
        }
        lines
    }

    fn to_json(&self) -> Value {
        let end = |figures: &Figures| {
            let half = &figures.half;
            let mut map = Map::new();
            map.insert("sends".into(), figures.sends.into());
            if half.known {
                map.insert("bytes".into(), half.bytes.into());
                map.insert("packets".into(), self.packets(half).into());
                map.insert("seconds".into(), json!(half.seconds));
                map.insert("bits_per_second".into(), json!(half.rate()));
                if self.protocol == Protocol::Udp && !figures.sends {
                    map.insert("lost_packets".into(), half.lost.into());
                    map.insert("jitter_ms".into(), json!(1000.0 * half.jitter));
                }
                if figures.sends && half.retransmits >= 0 {
                    map.insert("retransmits".into(), half.retransmits.into());
                }
            }
            if let Some(cpu) = figures.cpu {
                map.insert("cpu_percent".into(), json!(cpu));
            }
            Value::from(map)
        };
        json!({
            "phase": self.name, "client": end(&self.ends[0]), "server": end(&self.ends[1]),
            "verified": self.verified, "verification_errors": self.verification_errors, "success": self.success(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::figures::{StreamEnd, StreamInfo};
    use crate::protocol::Cookie;
    use crate::protocol::parameters::Parameters;

    /// A phase of 10 blocks of 1000 bytes, of which `received` bytes came.
    fn phase(role: Role, reverse: bool, received: u64) -> (Start, End) {
        let sends = (role == Role::Client) != reverse;
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let parameters = Parameters { reverse, blocks: 10, len: 1000, two_phase: true, ..Parameters::default() };
        let start = Start {
            role,
            parameters,
            cookie: Cookie::random(),
            streams: vec![StreamInfo { id: 1, sends, local: address, peer: address }],
            host: String::new(),
            port: 0,
            mss: 0,
            buffers: (0, 0),
            time: std::time::SystemTime::UNIX_EPOCH,
            interval: std::time::Duration::ZERO,
            engine: String::new(),
        };
        let half = |bytes| Half { known: true, seconds: 1.0, bytes, retransmits: -1, ..Half::default() };
        let stream = StreamEnd {
            id: 1,
            sends,
            sender: Half { retransmits: 3, ..half(10_000) },
            receiver: half(received),
            round_trips: None,
            verification: None,
            broke: None,
            file: None,
        };
        let cpu = if role == Role::Client { [10.0; 3] } else { [20.0; 3] };
        let remote_cpu = Some(if role == Role::Client { [20.0; 3] } else { [10.0; 3] });
        let congestion = (None, None);
        let streams = vec![stream];
        (start, End { streams, cpu, remote_cpu, congestion, verified: None, latency: None, server_output: None })
    }

    #[test]
    fn both_ends_print_the_same_table() {
        let tables = [Role::Client, Role::Server].map(|role| {
            let (first, second) = (phase(role, false, 10_000), phase(role, true, 10_000));
            Sides::new((&first.0, &first.1), Some((&second.0, &second.1)))
        });
        assert_eq!(tables[0].lines(), tables[1].lines());
        assert_eq!(tables[0].to_json(), tables[1].to_json());
        let lines = tables[0].lines();
        assert_eq!(lines[1], "                                   client             server");
        assert_eq!(lines[2], "client to server                     sent           received");
        assert_eq!(lines[3], "  bytes                             10000              10000");
        assert!(
            lines.contains(&"  retransmits                           3                  -".to_owned()),
            "{lines:#?}"
        );
        assert!(
            lines.contains(&"  retransmits                           -                  3".to_owned()),
            "{lines:#?}"
        );
        assert!(
            lines.contains(&"  processor, %                       10.0               20.0".to_owned()),
            "{lines:#?}"
        );
        assert_eq!(lines.last().unwrap(), "Both phases succeeded.");
    }

    #[test]
    fn it_is_no_success_when_something_is_missing() {
        let (first, second) = (phase(Role::Client, false, 10_000), phase(Role::Client, true, 9_999));
        assert!(!Sides::new((&first.0, &first.1), Some((&second.0, &second.1))).success(), "a byte is missing");
        assert!(!Sides::new((&first.0, &first.1), None).success(), "a phase is missing");
    }
}
