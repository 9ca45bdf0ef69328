//! Servers side by side: started, connected to all at once, loaded in turns, and looked at when the load is over.

use crate::lab::Lab;
use crate::load::crowd::Crowd;
use crate::load::{Load, Shape, Work};
use crate::machine::{Place, connections_most};
use crate::measure::{Plan, in_turns, rows};
use crate::rows::{AGAIN, Row};
use crate::syscalls::Syscalls;
use crate::system::{Server, System};
use std::io::{self, ErrorKind};
use std::time::Duration;

/// A case of a scenario.
pub struct Case<'a> {
    pub scenario: &'static str,
    pub name: String,
    pub place: Place,
    /// The first is what the others are divided by.
    pub systems: &'a [System],
    pub shape: Shape,
    pub work: Work,
    pub slice: Duration,
    pub plan: Plan,
    /// Connections to each server that do nothing.
    pub idle: usize,
    /// New connections for each round: which thread of a server has which of them is chance, and one draw says little.
    pub afresh: bool,
}

/// Measures a case. Where the descriptors do not suffice for connections to all servers at a time, some of them are
/// measured after the others, each time beside the first.
pub fn compare(lab: &Lab, case: &Case) -> io::Result<Vec<Row>> {
    lab.case(&case.name);
    let at_once = connections_most() / case.shape.connections.max(1);
    let (first, others) = case.systems.split_first().expect("there is a first");
    if at_once == 0 || (at_once == 1 && !others.is_empty()) {
        lab.note(format!("{}: not measured, the limit on descriptors (ulimit -n) is too low", case.name));
        return Ok(Vec::new());
    }
    let mut all = Vec::new();
    for group in others.chunks((at_once - 1).max(1)) {
        let systems: Vec<&System> = std::iter::once(first).chain(group).collect();
        let mut found = group_of(lab, case, &systems)?;
        if !all.is_empty() {
            found.remove(0); // the first is in the table already
        }
        all.append(&mut found);
    }
    Ok(all)
}

/// The servers that could be started. What is missing is noted; the first may not be.
pub fn start(lab: &Lab, place: Place, systems: &[&System]) -> io::Result<Vec<Server>> {
    place.for_servers();
    let mut servers = Vec::new();
    for system in systems {
        match system.start() {
            Ok(server) => servers.push(server),
            Err(error) if servers.is_empty() => {
                return Err(io::Error::new(error.kind(), format!("{} cannot be started: {error}", system.name)));
            }
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                lab.note(format!("{}: left out, {error}", system.name));
            }
            Err(error) => lab.note(format!("{} cannot be started: {error}", system.name)),
        }
    }
    place.for_the_generator();
    Ok(servers)
}

fn group_of(lab: &Lab, case: &Case, systems: &[&System]) -> io::Result<Vec<Row>> {
    let mut servers = start(lab, case.place, systems)?;
    let mut crowds = Vec::new();
    let mut loads = Vec::new();
    let mut at = 0;
    while at < servers.len() {
        match connect(case, &servers[at]) {
            Ok((crowd, load)) => {
                crowds.push(crowd);
                loads.push(load);
                at += 1;
            }
            Err(error) if at == 0 => return Err(error),
            Err(error) => {
                lab.note(format!("{}: left out, {error}", case.name));
                servers.remove(at);
            }
        }
    }
    let samples = in_turns(
        lab,
        servers.len(),
        case.plan,
        |at| {
            if case.afresh {
                loads[at] = Load::connect(&servers[at], case.shape)?;
            }
            loads[at].measured(&servers[at], case.work, case.slice)
        },
        |_, error| lab.note(format!("{}: ended early, {error}", case.name)),
    )?;
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let alive: Vec<bool> = samples.iter().map(|own| own.len() == samples[0].len()).collect();
    let mut rows = rows(case.scenario, &case.name, &names, &samples);
    for (at, server) in servers.iter().enumerate() {
        let Some(row) = rows.iter_mut().find(|row| row.system == server.name) else { continue };
        if alive[at] {
            look_at(lab, server, row, || Ok(loads[at].slice(case.work, case.slice.min(SYSCALL_SLICE))?.messages));
        }
    }
    Ok(rows)
}

/// Long enough for what is divided by the number of messages.
const SYSCALL_SLICE: Duration = Duration::from_millis(60);

/// Connects, and warms up.
fn connect(case: &Case, server: &Server) -> io::Result<(Option<Crowd>, Load)> {
    let crowd = if case.idle > 0 { Some(Crowd::connect(server, case.idle)?) } else { None };
    let mut load = Load::connect(server, case.shape)?;
    // Closed whatever is measured: everything has been touched once, and no queue stands.
    load.slice(Work::Closed, case.slice.min(SYSCALL_SLICE)).map_err(|error| server.named(error))?;
    Ok((crowd, load))
}

/// What is not measured in turns: memory, and how many system calls the messages of one more slice take.
pub fn look_at(lab: &Lab, server: &Server, row: &mut Row, slice: impl FnOnce() -> io::Result<u64>) {
    row.resident_bytes = server.resident_bytes();
    row.heap_bytes = server.heap_bytes();
    let count = || -> io::Result<f64> {
        let mut counter = Syscalls::of(server.id())?;
        let messages = slice()?;
        Ok(counter.count()? as f64 / messages as f64)
    };
    match count() {
        Ok(count) => row.syscalls_per_message = Some(count),
        Err(error) => lab.note(format!("system calls were not counted: {error}")),
    }
}

/// How far wharf is from itself, in all cases of some rows.
pub fn noise(rows: &[Row]) -> Option<String> {
    let again = || rows.iter().filter(|row| row.system == AGAIN);
    let range = |value: fn(&Row) -> Option<f64>| {
        let values: Vec<f64> = again().filter_map(value).collect();
        let least = values.iter().copied().reduce(f64::min)?;
        Some((least, values.iter().copied().reduce(f64::max)?))
    };
    let cpu = range(|row| row.ratio_cpu)?;
    let rate = range(|row| row.ratio_rate)?;
    Some(format!(
        "noise floor (wharf against itself): cpu {:.2} to {:.2}, rate {:.2} to {:.2}",
        cpu.0, cpu.1, rate.0, rate.1
    ))
}
