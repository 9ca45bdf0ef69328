//! Closed-loop echo: server processor time per message.

use crate::load::Load;
use crate::machine;
use crate::process::Server;
use crate::rows::{Row, median, quartiles};
use std::io;
use std::time::Duration;

const SLICE: Duration = Duration::from_millis(60);

pub fn run(quick: bool) -> io::Result<Vec<Row>> {
    let cases: &[(usize, usize)] = if quick {
        &[(64, 32), (1000, 32)]
    } else {
        &[(1, 32), (64, 32), (1000, 32), (64, 512), (1000, 512), (64, 16 * 1024)]
    };
    let rounds = if quick { 15 } else { 31 };
    let mut rows = Vec::new();
    for &(connections, bytes) in cases {
        rows.extend(case(connections, bytes, rounds)?);
    }
    Ok(rows)
}

/// The first is what the others are divided by.
fn servers() -> io::Result<Vec<Server>> {
    let wharf = ["serve-port", "--workers", "2", "--concurrency", "1"];
    Ok(vec![
        Server::own("wharf", &wharf)?,
        Server::own("wharf again (noise)", &wharf)?,
        Server::own("wharf 3 workers limit 2", &["serve-port", "--workers", "3", "--concurrency", "2"])?,
        Server::own("wharf sessions", &["serve-session", "--workers", "2", "--concurrency", "1"])?,
        Server::own("wharf, one thread", &["serve-loop"])?,
        Server::peer("tokio current_thread", "tokio-echo", &["1"])?,
        Server::peer("tokio multi_thread(2)", "tokio-echo", &["2"])?,
    ])
}

fn case(connections: usize, bytes: usize, rounds: usize) -> io::Result<Vec<Row>> {
    machine::for_servers();
    let servers = servers()?;
    machine::for_the_generator();
    let mut loads: Vec<Load> = servers
        .iter()
        .map(|server| Load::connect(server.address, connections, bytes))
        .collect::<io::Result<_>>()?;
    for load in &mut loads {
        load.slice(SLICE)?; // warm
    }
    let count = servers.len();
    let mut cpu = vec![Vec::new(); count];
    let mut rate = vec![Vec::new(); count];
    let mut switches = vec![Vec::new(); count];
    let mut latency: Vec<_> = (0..count).map(|_| hdrhistogram::Histogram::<u64>::new(3).expect("three digits")).collect();
    for round in 0..rounds {
        for place in 0..count {
            let server = (place + round) % count;
            let before = servers[server].usage();
            let slice = loads[server].slice(SLICE)?;
            let after = servers[server].usage();
            let messages = slice.messages as f64;
            cpu[server].push((after.0 - before.0) as f64 / 1000.0 / messages);
            switches[server].push((after.1 - before.1) as f64 / messages);
            rate[server].push(messages / slice.time.as_secs_f64());
            let _ = latency[server].add(&slice.latency);
        }
    }
    let ratios = |values: &[Vec<f64>], server: usize| -> Vec<f64> {
        values[server].iter().zip(&values[0]).map(|(this, wharf)| this / wharf).collect()
    };
    Ok((0..count)
        .map(|server| {
            let ratio = ratios(&cpu, server);
            let percentile = |at: f64| Some(latency[server].value_at_quantile(at) as f64 / 1000.0);
            Row {
                scenario: "echo",
                case: format!("{connections} connections x {bytes} B"),
                system: servers[server].name.clone(),
                messages_per_second: Some(median(&rate[server])),
                cpu_us_per_message: Some(median(&cpu[server])),
                p50_us: percentile(0.5),
                p99_us: percentile(0.99),
                p999_us: percentile(0.999),
                ratio_cpu: Some(median(&ratio)),
                ratio_cpu_spread: Some(quartiles(&ratio)),
                ratio_rate: Some(median(&ratios(&rate, server))),
                switches_per_message: Some(median(&switches[server])),
                rounds,
            }
        })
        .collect())
}
