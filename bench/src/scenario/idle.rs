//! What an idle server does in two seconds, after it has served something. A thread that makes a system call which
//! waits is switched away, so no context switches of any of its threads means that all of them stayed in the call in
//! which they sleep.

use crate::load::Load;
use crate::machine;
use crate::measure::{Sample, rows};
use crate::process::Server;
use crate::rows::{Goal, Report, Wanted};
use std::io;
use std::time::Duration;

const CONNECTIONS: usize = 64;
const WATCHED: Duration = Duration::from_secs(2);
/// Timers that the last messages set may still go off.
const SETTLE: Duration = Duration::from_millis(500);

pub fn run() -> io::Result<Report> {
    machine::for_servers();
    let servers = [
        Server::port("wharf 3 workers, limit 2", 3, 2)?,
        Server::port("wharf 2 workers, limit 1", 2, 1)?,
        Server::own("wharf one thread", &["serve-loop"])?,
        Server::session("wharf sessions 3, limit 2", 3, 2)?,
        Server::peer("tokio current_thread", "tokio-echo", &["1"])?,
        Server::peer("tokio multi_thread(2)", "tokio-echo", &["2"])?,
    ];
    machine::for_the_generator();
    let mut loads =
        servers.iter().map(|server| Load::connect(server, CONNECTIONS, 32)).collect::<io::Result<Vec<Load>>>()?;
    for load in &mut loads {
        load.slice(Duration::from_millis(200))?;
    }
    std::thread::sleep(SETTLE);
    let before: Vec<_> = servers.iter().map(Server::usage).collect();
    std::thread::sleep(WATCHED);
    let mut report = Report::default();
    for (server, before) in servers.iter().zip(before) {
        let after = server.usage();
        let sample = Sample { switches_per_message: Some(after.switches_since(before)), ..Sample::default() };
        // In these rows a "message" is the whole time.
        let case = format!("{} connections, {} s", CONNECTIONS, WATCHED.as_secs());
        let mut row = rows("idle", &case, &[&server.name], &vec![vec![sample]]);
        row[0].cpu_us_per_message = Some(after.cpu_us_since(before));
        report.rows.append(&mut row);
        if server.name.starts_with("wharf") {
            let what = format!("{}: context switches while idle", server.name);
            report.goals.push(Goal::new(what, Some(after.switches_since(before)), Wanted::AtMost(0.0)));
        }
    }
    Ok(report)
}
