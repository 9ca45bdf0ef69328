//! A few messages a second: what looking after the workers costs when there is nearly nothing to do.

use crate::load::Load;
use crate::machine;
use crate::measure::{in_turns, ratios, rows};
use crate::process::Server;
use crate::rows::{Goal, Report, Wanted, median};
use std::io;
use std::time::Duration;

pub fn run(quick: bool) -> io::Result<Report> {
    let rates: &[f64] = if quick { &[20.0, 100.0] } else { &[1.0, 20.0, 100.0] };
    let rounds = if quick { 7 } else { 15 };
    let mut report = Report::default();
    for &rate in rates {
        machine::for_servers();
        let servers = [
            Server::port("wharf 2 workers, limit 1", 2, 1)?,
            Server::own("wharf one thread", &["serve-loop"])?,
            Server::port("wharf 3 workers, limit 2", 3, 2)?,
            Server::session("wharf sessions 2, limit 1", 2, 1)?,
            Server::peer("tokio current_thread", "tokio-echo", &["1"])?,
            Server::peer("tokio multi_thread(2)", "tokio-echo", &["2"])?,
        ];
        machine::for_the_generator();
        let mut loads = servers.iter().map(|server| Load::connect(server, 1, 32)).collect::<io::Result<Vec<Load>>>()?;
        let time = Duration::from_secs_f64(if quick { 0.45 } else { (20.0 / rate).clamp(0.8, 5.0) });
        let samples = in_turns(servers.len(), rounds, |at| loads[at].trickle(&servers[at], rate, time))?;
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        report.rows.extend(rows("trickle", &format!("{rate} messages/s"), &names, &samples));
        let watching = median(&ratios(&samples[0], &samples[1], |sample| sample.cpu_us_per_message));
        // The watching costs no more than half a message's own time.
        let what = format!("{rate} messages/s, two workers beside one thread");
        report.goals.push(Goal::new(what, watching, Wanted::AtMost(1.5)));
    }
    Ok(report)
}
