//! One of 64 connections makes its handler sleep for 50 ms with every message: what the others notice. Rates and
//! latencies are those of the 63 others, beside the same server's without the disturbance, in turns.

use crate::load::Load;
use crate::machine;
use crate::measure::{in_turns, ratios, rows};
use crate::process::Server;
use crate::rows::{Goal, Report, Wanted, median};
use crate::server::{ANNOUNCE, BLOCK};
use std::io;
use std::time::Duration;

const CONNECTIONS: usize = 64;

pub fn run(quick: bool) -> io::Result<Report> {
    // Several times the 50 ms for which the handler sleeps.
    let slice = Duration::from_millis(if quick { 300 } else { 1000 });
    let rounds = if quick { 7 } else { 15 };
    machine::for_servers();
    let servers = [
        (Server::port("wharf 3 workers, limit 2", 3, 2)?, BLOCK),
        (Server::port("wharf 3, limit 2, announced", 3, 2)?, ANNOUNCE),
        (Server::port("wharf 2 workers, limit 1", 2, 1)?, BLOCK),
        (Server::session("wharf sessions 3, limit 2", 3, 2)?, BLOCK),
        (Server::peer("tokio multi_thread(2)", "tokio-echo", &["2"])?, BLOCK),
        (Server::peer("tokio multi_thread(3)", "tokio-echo", &["3"])?, BLOCK),
        (Server::peer("tokio (2), block_in_place", "tokio-echo", &["2"])?, ANNOUNCE),
    ];
    machine::for_the_generator();
    let mut loads =
        servers.iter().map(|(server, _)| Load::connect(server, CONNECTIONS, 32)).collect::<io::Result<Vec<Load>>>()?;
    for load in &mut loads {
        load.slice(Duration::from_millis(100))?; // warm
    }
    let mut quiet = vec![Vec::new(); servers.len()];
    let blocked = in_turns(servers.len(), rounds, |at| {
        let (server, letter) = &servers[at];
        loads[at].disturb(None);
        quiet[at].push(loads[at].measured(server, slice)?);
        loads[at].disturb(Some(*letter));
        loads[at].measured(server, slice)
    })?;
    let names: Vec<&str> = servers.iter().map(|(server, _)| server.name.as_str()).collect();
    let mut report = Report { rows: rows("blocked", "quiet", &names, &quiet), ..Report::default() };
    for (at, mut row) in rows("blocked", "1 of 64 blocks", &names, &blocked).into_iter().enumerate() {
        row.rate_of_quiet = median(&ratios(&blocked[at], &quiet[at], |sample| sample.messages_per_second));
        if at == 0 {
            let what = |what: &str| format!("{}: {what}", row.system);
            report.goals.push(Goal::new(what("the others' rate, of quiet"), row.rate_of_quiet, Wanted::AtLeast(0.95)));
            // Two ticks of the dead-man's timer.
            let later = row.p999_us.zip(report.rows[0].p999_us).map(|(blocked, quiet)| blocked - quiet);
            report.goals.push(Goal::new(what("the others' p99.9 in us, above quiet's"), later, Wanted::AtMost(2000.0)));
        }
        let of_quiet = row.rate_of_quiet.unwrap_or(f64::NAN);
        report.notes.push(format!("{}: the others' rate is {of_quiet:.2} of quiet", row.system));
        report.rows.push(row);
    }
    Ok(report)
}
