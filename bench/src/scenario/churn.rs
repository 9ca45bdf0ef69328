//! Connections that come and go: connect, ten requests of 32 bytes one after the other, close; 64 at a time. A message
//! is a request, and carries its part of the connection's cost; the first one's latency counts from the call that
//! connects.

use crate::compare::{look_at, start};
use crate::lab::Lab;
use crate::load::churn::Churn;
use crate::load::measured;
use crate::machine::Place;
use crate::measure::{Plan, in_turns, rows};
use crate::rows::{Goal, Report, Wanted};
use crate::system::System;
use crate::systems::{peers, wharf_one, wharf_two};
use std::io;
use std::time::Duration;

const REQUESTS: usize = 10;
const SLOTS: usize = 64;

pub fn run(lab: &Lab) -> io::Result<Report> {
    let mut report = Report::default();
    let mut one = wharf_one("echo");
    one.extend(peers(
        lab.pick(&["tokio", "epoll"], &["tokio", "compio", "monoio", "asio", "epoll", "threads"]),
        1,
        "echo",
    ));
    let mut two = wharf_two("echo");
    two.extend(peers(&["tokio"], 2, "echo"));
    for (name, place, systems) in [("one processor", Place::Apart, one), ("two processors", Place::Anywhere, two)] {
        case(lab, &mut report, name, place, &systems)?;
    }
    let ratio = report.row("one processor", "tokio current_thread").and_then(|row| row.ratio_cpu);
    report.goals.push(Goal::new("one processor: tokio, cpu/wharf", ratio, Wanted::AtLeast(1.0)));
    Ok(report)
}

fn case(lab: &Lab, report: &mut Report, name: &str, place: Place, systems: &[System]) -> io::Result<()> {
    lab.case(name);
    let slice = Duration::from_millis(lab.pick(150, 300));
    let servers = start(lab, place, &systems.iter().collect::<Vec<_>>())?;
    let mut lasting = vec![(0.0, 0); servers.len()];
    let mut turn = |at: usize| -> io::Result<_> {
        // A new one each time: what a failed slice has left open ends with it.
        let mut churn = Churn::new(servers[at].address, REQUESTS, 32)?;
        measured(&servers[at], || {
            let churned = churn.slice(SLOTS, slice)?;
            lasting[at].0 += churned.slice.time.as_secs_f64();
            lasting[at].1 += churned.connections;
            Ok(churned.slice)
        })
    };
    for at in 0..servers.len() {
        turn(at)?; // warm
    }
    let plan = Plan::within(lab.pick(8.0, 20.0));
    let samples = in_turns(lab, servers.len(), plan, &mut turn, |_, error| {
        lab.note(format!("{name}: ended early, {error}"));
    })?;
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let mut found = rows("churn", name, &names, &samples);
    for (at, server) in servers.iter().enumerate() {
        let (seconds, connections) = lasting[at];
        report.notes.push(format!("{name}, {}: {:.0} connections/s", server.name, connections as f64 / seconds));
        if let Some(row) = found.iter_mut().find(|row| row.system == server.name) {
            look_at(lab, server, row, || {
                let mut churn = Churn::new(server.address, REQUESTS, 32)?;
                Ok(churn.slice(SLOTS, slice / 3)?.slice.messages)
            });
        }
    }
    report.rows.append(&mut found);
    Ok(())
}
