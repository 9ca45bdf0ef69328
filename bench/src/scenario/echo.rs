//! Closed-loop echo: server processor time per message.

use crate::load::Load;
use crate::machine;
use crate::measure::{in_turns, rows};
use crate::process::Server;
use crate::rows::{Goal, Report, Row, Wanted, median};
use std::io;
use std::path::Path;
use std::time::Duration;

/// Long enough for thousands of messages, short enough that a round of all servers sees one state of the machine.
const SLICE: Duration = Duration::from_millis(60);

pub fn run(quick: bool, beside: Option<&Path>) -> io::Result<Report> {
    let cases: &[(usize, usize)] = if quick {
        &[(1, 32), (64, 32), (1000, 32), (64, 512), (64, 16 * 1024)]
    } else {
        &[(1, 32), (64, 32), (1000, 32), (1, 512), (64, 512), (1000, 512), (64, 16 * 1024)]
    };
    let rounds = if quick { 9 } else { 31 };
    let mut report = Report::default();
    for &(connections, bytes) in cases {
        report.rows.extend(case(connections, bytes, rounds, beside)?);
    }
    for name in ["tokio current_thread", "tokio multi_thread(2)"] {
        let own = report.rows.iter().filter(|row| row.system == name);
        let ratios: Vec<f64> = own.filter_map(|row| row.ratio_cpu).collect();
        // No slower than tokio beyond the noise, which is 4 to 7 per cent.
        let what = format!("{name}, cpu/wharf in the middle case");
        report.goals.push(Goal::new(what, median(&ratios), Wanted::AtLeast(0.93)));
    }
    Ok(report)
}

/// The first is what the others are divided by; the second is the same once more, and shows how much is noise.
fn servers(beside: Option<&Path>) -> io::Result<Vec<Server>> {
    let mut servers = vec![
        Server::port("wharf 2 workers, limit 1", 2, 1)?,
        Server::port("the same again (noise)", 2, 1)?,
        Server::port("wharf 3 workers, limit 2", 3, 2)?,
        Server::own("wharf one thread", &["serve-loop"])?,
        Server::session("wharf sessions 2, limit 1", 2, 1)?,
        Server::session("wharf sessions 3, limit 2", 3, 2)?,
        Server::peer("tokio current_thread", "tokio-echo", &["1"])?,
        Server::peer("tokio multi_thread(2)", "tokio-echo", &["2"])?,
    ];
    if let Some(program) = beside {
        servers.push(Server::other("other build: 2, limit 1", program, &["serve-port", "--", "2", "1"])?);
        servers.push(Server::other("other build: sessions 2, 1", program, &["serve-session", "--", "2", "1"])?);
        servers.push(Server::other("other build: one thread", program, &["serve-loop"])?);
    }
    Ok(servers)
}

fn case(connections: usize, bytes: usize, rounds: usize, beside: Option<&Path>) -> io::Result<Vec<Row>> {
    machine::for_servers();
    let servers = servers(beside)?;
    machine::for_the_generator();
    let mut loads =
        servers.iter().map(|server| Load::connect(server, connections, bytes)).collect::<io::Result<Vec<Load>>>()?;
    for load in &mut loads {
        load.slice(SLICE)?; // warm
    }
    let samples = in_turns(servers.len(), rounds, |at| loads[at].measured(&servers[at], SLICE))?;
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    Ok(rows("echo", &format!("{connections} x {bytes} B"), &names, &samples))
}
