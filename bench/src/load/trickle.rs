//! A few messages a second to each of several servers at the same time: their messages take turns, so each server is
//! alone while it works, and a round takes no longer than one server would.

use super::Load;
use crate::measure::Sample;
use crate::stats::histogram;
use crate::system::Server;
use std::io;
use std::time::{Duration, Instant};

/// What each server came to, with `count` messages at `rate` a second. The order of their turns begins with `first`.
pub fn trickle(
    servers: &[Server],
    loads: &mut [Load],
    rate: f64,
    count: usize,
    first: usize,
) -> Vec<io::Result<Sample>> {
    let period = Duration::from_secs_f64(1.0 / rate);
    let turn = period.div_f64(servers.len() as f64);
    let before: Vec<_> = servers.iter().map(Server::usage).collect();
    let mut latencies = vec![histogram(); servers.len()];
    let mut late = histogram();
    let mut failed: Vec<Option<io::Error>> = servers.iter().map(|_| None).collect();
    let begin = Instant::now() + Duration::from_millis(2);
    for number in 0..count {
        for place in 0..servers.len() {
            let due = begin + period.mul_f64(number as f64) + turn.mul_f64(place as f64);
            let at = (place + first) % servers.len();
            if failed[at].is_some() {
                continue;
            }
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let _ = late.record((Instant::now() - due).as_nanos() as u64);
            match loads[at].one(due) {
                Ok(latency) => drop(latencies[at].record(latency.as_nanos() as u64)),
                Err(error) => failed[at] = Some(servers[at].named(error)),
            }
        }
    }
    // What a message left to be done later, a timer, belongs to it.
    let end = begin + period.mul_f64(count as f64);
    std::thread::sleep(end.saturating_duration_since(Instant::now()));
    let time = begin.elapsed();
    let sample = |((server, before), (latency, failed)): ((&Server, _), (_, Option<io::Error>))| {
        let used = server.usage().since(before);
        let messages = count as f64;
        failed.map_or(Ok(()), Err)?;
        Ok(Sample {
            messages_per_second: Some(messages / time.as_secs_f64()),
            cpu_us_per_message: Some(used.cpu_us() / messages),
            switches_per_message: Some(used.switches as f64 / messages),
            wakeups_per_message: Some(used.wakeups as f64 / messages),
            latency: Some(latency),
            late: Some(late.clone()),
            ..Sample::default()
        })
    };
    servers.iter().zip(before).zip(latencies.into_iter().zip(failed)).map(sample).collect()
}
