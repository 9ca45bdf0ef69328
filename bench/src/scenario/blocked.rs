//! One of 64 connections makes its handler slow for 50 ms with every message: what the others notice. Rates and
//! latencies are those of the others, beside the same server's without the disturbance, in turns. Latencies come from
//! an open loop: a closed one would stop sending while it waits, and see one late message where a user sees all.
//!
//! The handler sleeps; or two of them want one lock, so one sleeps with it and one waits for it; or it computes, which
//! no port can know from work, and so is reported beside a runtime with as many threads.
//!
//! And handlers that sleep beside others that take packet after packet, without a network: [`flow`].

mod flow;

pub use flow::Flow;

use crate::compare::start;
use crate::lab::Lab;
use crate::load::{Load, Shape, Work};
use crate::machine::Place;
use crate::measure::{Plan, Samples, in_turns, ratios, rows};
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::server::{ANNOUNCE, BLOCK, COMPUTE, LOCK};
use crate::stats::median;
use crate::system::System;
use crate::systems::{POOL, POOL_OF_TWO};
use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::time::Duration;

const CONNECTIONS: usize = 64;
/// Below what one processor can do, so that latency is that of the disturbance and not of a queue.
const OPEN_RATE: f64 = 10_000.0;

/// How a case's handlers are disturbed.
struct Disturbance {
    name: &'static str,
    connections: usize,
    letter: u8,
    place: Place,
}

const DISTURBANCES: [Disturbance; 3] = [
    Disturbance { name: "1 of 64 sleeps 50 ms", connections: 1, letter: BLOCK, place: Place::Apart },
    Disturbance { name: "2 of 64 want a lock for 50 ms", connections: 2, letter: LOCK, place: Place::Apart },
    // Whoever computes needs a processor, so there have to be two.
    Disturbance { name: "1 of 64 computes 50 ms", connections: 1, letter: COMPUTE, place: Place::Anywhere },
];

/// A system, and what its slow messages begin with where it is not the disturbance's own letter.
fn systems(disturbance: &Disturbance, beside: Option<&Path>) -> Vec<(System, u8)> {
    let letter = disturbance.letter;
    let mut systems = vec![
        (System::wharf(POOL_OF_TWO, "echo --workers 3 --limit 2"), letter),
        (System::wharf(AGAIN, "echo --workers 3 --limit 2"), letter),
        (System::wharf("wharf sessions 3, limit 2", "echo-session --workers 3 --limit 2"), letter),
        (System::peer("tokio multi_thread(2)", "tokio-echo", "echo --workers 2"), letter),
        (System::peer("tokio multi_thread(3)", "tokio-echo", "echo --workers 3"), letter),
    ];
    if letter == BLOCK {
        systems.insert(2, (System::wharf(POOL, "echo --workers 2 --limit 1"), letter));
        systems.push((System::wharf("wharf 3, limit 2, announced", "echo --workers 3 --limit 2"), ANNOUNCE));
        systems.push((System::peer("tokio (2), block_in_place", "tokio-echo", "echo --workers 2"), ANNOUNCE));
    }
    if let Some(program) = beside {
        let other = |name: &str, options| System::other_build(&format!("other build: {name}"), program, options);
        systems.push((other("3, limit 2", "echo --workers 3 --limit 2"), letter));
        systems.push((other("sessions 3, 2", "echo-session --workers 3 --limit 2"), letter));
    }
    systems
}

pub fn run(lab: &Lab, beside: Option<&Path>) -> io::Result<Report> {
    let mut report = Report::default();
    // The closed loop's rate, and the open one's latencies. What is most telling comes first: a quick run may end
    // early.
    let [sleep, lock, compute] = &DISTURBANCES;
    for (disturbance, is_open) in
        [(sleep, false), (sleep, true), (lock, false), (compute, false), (lock, true), (compute, true)]
    {
        // A quick run has time for three or four cases: both kinds are among them.
        if (disturbance.letter, is_open) == (LOCK, false) {
            beside_a_flow(lab, &mut report, beside)?;
        }
        let alone = disturbance.place == Place::Apart;
        let (way, work) = match is_open {
            false => ("closed loop", Work::Closed),
            true => ("10 000 messages/s", Work::Open { rate: OPEN_RATE, alone }),
        };
        if lab.has_time(&format!("{}, {way}", disturbance.name), 6.0) {
            case(lab, &mut report, &systems(disturbance, beside), disturbance, (way, work, is_open))?;
        }
    }
    Ok(report)
}

fn beside_a_flow(lab: &Lab, report: &mut Report, beside: Option<&Path>) -> io::Result<()> {
    for sleepers in flow::SLEEPERS {
        if lab.has_time(&sleepers.name(), 6.0) {
            flow::case(lab, report, sleepers, beside)?;
        }
    }
    Ok(())
}

fn case(
    lab: &Lab,
    report: &mut Report,
    systems: &[(System, u8)],
    disturbance: &Disturbance,
    (way, work, is_open): (&str, Work, bool),
) -> io::Result<()> {
    let name = format!("{}, {way}", disturbance.name);
    lab.case(&name);
    let (systems, letters): (Vec<&System>, Vec<u8>) = systems.iter().map(|(system, letter)| (system, *letter)).unzip();
    let servers = start(lab, disturbance.place, &systems)?;
    if servers.len() < systems.len() {
        return Err(io::Error::other("a server is missing"));
    }
    let shape = Shape::new(CONNECTIONS, 32, 1);
    let mut loads = servers.iter().map(|server| Load::connect(server, shape)).collect::<io::Result<Vec<Load>>>()?;
    for (load, server) in loads.iter_mut().zip(&servers) {
        load.slice(Work::Closed, Duration::from_millis(50)).map_err(|error| server.named(error))?; // warm
    }
    // Several times the 50 ms for which a handler is slow.
    let slice = Duration::from_millis(lab.pick(110, 400));
    let quiet_slice = slice / 3;
    let quiet: RefCell<Samples> = RefCell::new(vec![Vec::new(); servers.len()]);
    let disturbed = in_turns(
        lab,
        servers.len(),
        Plan::within(lab.pick(4.0, 18.0)),
        |at| {
            loads[at].disturb(0, letters[at]);
            quiet.borrow_mut()[at].push(loads[at].measured(&servers[at], work, quiet_slice)?);
            loads[at].disturb(disturbance.connections, letters[at]);
            loads[at].measured(&servers[at], work, slice)
        },
        |_, error| lab.note(format!("{name}: ended early, {error}")),
    )?;
    let quiet = quiet.into_inner();
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    let calm = rows("blocked", &format!("quiet, for: {name}"), &names, &quiet);
    let mut found = rows("blocked", &name, &names, &disturbed);
    for row in &mut found {
        let at = names.iter().position(|&name| name == row.system).expect("its name is one of them");
        row.rate_of_quiet = median(&ratios(&disturbed[at], &quiet[at], |sample| sample.messages_per_second));
        row.resident_bytes = servers[at].resident_bytes();
        row.heap_bytes = servers[at].heap_bytes();
    }
    if disturbance.letter != COMPUTE {
        let (row, before) = (&found[0], &calm[0]);
        let what = |what: &str| format!("{name}: {}, {what}", row.system);
        if is_open {
            // Two ticks of the watchdog timer.
            let later = row.p999_us.zip(before.p999_us).map(|(blocked, quiet)| blocked - quiet);
            report.goals.push(Goal::new(what("the others' p99.9 in us"), row.p999_us, Wanted::AtMost(3000.0)));
            report.goals.push(Goal::new(what("the others' p99.9 in us above quiet's"), later, Wanted::AtMost(2000.0)));
        } else {
            report.goals.push(Goal::new(what("the others' rate of quiet's"), row.rate_of_quiet, Wanted::AtLeast(0.95)));
        }
    }
    report.rows.extend(calm);
    report.rows.append(&mut found);
    Ok(())
}
