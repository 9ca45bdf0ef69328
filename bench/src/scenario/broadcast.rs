//! A chat: one member speaks, and every member hears each line. A message is a delivery. One line at a time (latency
//! from the line to each member); and more lines than the members can drain, where what counts is how many deliveries a
//! second of the server's processor makes. A flooded server is a new one each time, and is ended with what it still has
//! queued. Only what a member has received is a delivery; lines that a server has dropped are none, and are told apart.

use crate::compare::{look_at, start};
use crate::lab::Lab;
use crate::load::chat::Room;
use crate::load::measured;
use crate::machine::Place;
use crate::measure::{Plan, in_turns, rows};
use crate::rows::{AGAIN, Goal, Report, Row, Wanted};
use crate::system::System;
use std::io;
use std::path::Path;
use std::time::Duration;

const MEMBERS: [usize; 3] = [10, 100, 1000];
const LINES: [(usize, &str); 2] = [(64, "64 B"), (1024, "1 KiB")];
const SESSIONS: &str = "wharf sessions";
const LOOP: &str = "a loop of sends";

pub fn run(lab: &Lab, beside: Option<&Path>) -> io::Result<Report> {
    let systems = systems(beside);
    let mut report = Report::default();
    let cells = MEMBERS.iter().flat_map(|&members| LINES.map(|line| (members, line)));
    for (members, (bytes, shown)) in cells {
        // A quick run leaves out the middle.
        if lab.quick && (members == 100 || (members == 10 && bytes == 1024)) {
            continue;
        }
        let name = format!("{members} members, {shown}");
        let many = members == 1000;
        if lab.has_time(&format!("{name}, one line at a time"), if many { 7.0 } else { 4.0 }) {
            one_at_a_time(lab, &mut report, &systems, (members, bytes), format!("{name}, one line at a time"))?;
        }
        if lab.has_time(&format!("{name}, flooded"), if many { 14.0 } else { 6.0 }) {
            flooded(lab, &mut report, &systems, (members, bytes), format!("{name}, flooded"))?;
        }
    }
    for row in report.rows.iter().filter(|row| row.case.ends_with("flooded")) {
        if let Some(cpu) = row.cpu_us_per_message {
            let note = format!("{}, {}: {:.0} deliveries per CPU second", row.case, row.system, 1e6 / cpu);
            report.notes.push(note);
        }
    }
    for (way, least) in [("one line at a time", 1.0), ("flooded", 2.0)] {
        for name in ["tokio current_thread", LOOP] {
            let least = if name == LOOP { 1.0 } else { least };
            let of_it = |row: &&Row| row.system == name && row.case.ends_with(way);
            for row in report.rows.iter().filter(of_it) {
                let what = format!("{}: {name}, cpu/wharf", row.case);
                report.goals.push(Goal::new(what, row.ratio_cpu, Wanted::AtLeast(least)));
            }
        }
    }
    Ok(report)
}

fn systems(beside: Option<&Path>) -> Vec<System> {
    let mut systems = vec![
        System::wharf(SESSIONS, "chat --workers 2 --limit 1"),
        System::wharf(AGAIN, "chat --workers 2 --limit 1"),
        System::wharf("wharf sessions, drop the oldest", "chat --workers 2 --limit 1 --drop-oldest"),
        System::wharf("wharf sessions, whole chunks", "chat-chunks --workers 2 --limit 1"),
        System::wharf("wharf port, the tutorials' way", "chat-tutorial --workers 2 --limit 1"),
        System::peer("tokio current_thread", "tokio", "chat --workers 1"),
        System::peer(LOOP, "chat-loop", "chat"),
    ];
    if let Some(program) = beside {
        systems.push(System::other_build("other build: sessions", program, "chat --workers 2 --limit 1"));
    }
    systems
}

fn one_at_a_time(
    lab: &Lab,
    report: &mut Report,
    systems: &[System],
    (members, bytes): (usize, usize),
    name: String,
) -> io::Result<()> {
    lab.case(&name);
    let slice = Duration::from_millis(lab.pick(40, 100));
    let mut servers = Vec::new();
    let mut rooms = Vec::new();
    for server in start(lab, Place::Apart, &systems.iter().collect::<Vec<_>>())? {
        let warm = |room: &mut Room| room.one_at_a_time(slice / 2).map_err(|error| server.named(error)).map(drop);
        match Room::enter(&server, members, bytes).and_then(|mut room| warm(&mut room).map(|()| room)) {
            Ok(room) => {
                rooms.push(room);
                servers.push(server);
            }
            Err(error) if servers.is_empty() => return Err(error),
            Err(error) => lab.note(format!("{name}: left out, {error}")),
        }
    }
    let turn = |at: usize| measured(&servers[at], || rooms[at].one_at_a_time(slice));
    let plan = Plan::within(lab.pick(2.5, 10.0));
    let samples =
        in_turns(lab, servers.len(), plan, turn, |_, error| lab.note(format!("{name}: ended early, {error}")))?;
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let mut found = rows("broadcast", &name, &names, &samples);
    for (server, room) in servers.iter().zip(&mut rooms) {
        if let Some(row) = found.iter_mut().find(|row| row.system == server.name) {
            look_at(lab, server, row, || Ok(room.one_at_a_time(slice / 2)?.messages));
        }
    }
    report.rows.append(&mut found);
    Ok(())
}

fn flooded(
    lab: &Lab,
    report: &mut Report,
    systems: &[System],
    (members, bytes): (usize, usize),
    name: String,
) -> io::Result<()> {
    lab.case(&name);
    let slice = Duration::from_millis(lab.pick(60, 200));
    let mut memory = vec![(None, None); systems.len()];
    let mut lost = vec![(0, 0); systems.len()];
    let turn = |at: usize| {
        let servers = start(lab, Place::Apart, &[&systems[at]])?;
        let server = &servers[0];
        let mut room = Room::enter(server, members, bytes)?;
        let sample = measured(server, || room.flood(slice))?;
        memory[at] = (server.resident_bytes(), server.heap_bytes());
        let (lines, all) = room.lost();
        lost[at] = (lost[at].0 + lines, lost[at].1 + all);
        Ok(sample)
    };
    let plan = Plan::within(lab.pick(4.0, 16.0));
    let failed = |at: usize, error: io::Error| lab.note(format!("{name}: {} left out, {error}", systems[at].name));
    let samples = in_turns(lab, systems.len(), plan, turn, failed)?;
    let names: Vec<&str> = systems.iter().map(|system| system.name.as_str()).collect();
    let mut found = rows("broadcast", &name, &names, &samples);
    for (system, (lines, all)) in systems.iter().zip(lost).filter(|(_, (lines, _))| *lines > 0) {
        let share = 100.0 * lines as f64 / all as f64;
        report.notes.push(format!("{name}, {}: {share:.0} % of the lines were lost on the way", system.name));
    }
    for (system, (resident, heap)) in systems.iter().zip(memory) {
        if let Some(row) = found.iter_mut().find(|row| row.system == system.name) {
            (row.resident_bytes, row.heap_bytes) = (resident, heap);
        }
    }
    report.rows.append(&mut found);
    Ok(())
}
