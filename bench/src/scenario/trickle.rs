//! A few messages a second: what looking after the workers costs when there is nearly nothing to do.

use crate::load::Load;
use crate::process::Server;
use crate::rows::{Row, median, quartiles};
use std::io;
use std::time::Duration;

pub fn run(quick: bool) -> io::Result<Vec<Row>> {
    let rates: &[f64] = if quick { &[20.0, 100.0] } else { &[1.0, 20.0, 100.0] };
    let rounds = if quick { 5 } else { 11 };
    let mut rows = Vec::new();
    for &rate in rates {
        let servers = [
            Server::own("wharf", &["serve-port", "--workers", "2", "--concurrency", "1"])?,
            Server::own("wharf, one thread", &["serve-loop"])?,
            Server::peer("tokio current_thread", "tokio-echo", &["1"])?,
            Server::peer("tokio multi_thread(2)", "tokio-echo", &["2"])?,
        ];
        let mut loads: Vec<Load> =
            servers.iter().map(|server| Load::connect(server.address, 1, 32)).collect::<io::Result<_>>()?;
        let time = Duration::from_secs_f64((20.0 / rate).clamp(0.8, 5.0));
        let mut cpu = vec![Vec::new(); servers.len()];
        for round in 0..rounds {
            for place in 0..servers.len() {
                let server = (place + round) % servers.len();
                let before = servers[server].usage().0;
                let messages = loads[server].trickle(rate, time)?;
                cpu[server].push((servers[server].usage().0 - before) as f64 / 1000.0 / messages as f64);
            }
        }
        for (server, values) in cpu.iter().enumerate() {
            let ratio: Vec<f64> = values.iter().zip(&cpu[0]).map(|(this, wharf)| this / wharf).collect();
            rows.push(Row {
                scenario: "trickle",
                case: format!("{rate} messages/s"),
                system: servers[server].name.clone(),
                cpu_us_per_message: Some(median(values)),
                ratio_cpu: Some(median(&ratio)),
                ratio_cpu_spread: Some(quartiles(&ratio)),
                rounds,
                ..Row::default()
            });
        }
    }
    Ok(rows)
}
