//! Echo: what a message costs the server, at the peak (closed loop) and with a fixed rate (open loop, for latency).
//!
//! One worker on a processor of its own, beside loops and runtimes with one thread; two workers on both processors,
//! which the generator shares. A cell is connections x bytes, and the messages under way on each connection.

use crate::compare::{Case, compare};
use crate::lab::Lab;
use crate::load::{Shape, Work};
use crate::machine::Place;
use crate::measure::Plan;
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::stats::median;
use crate::system::System;
use crate::systems::{is_raw_loop, is_runtime, peers, wharf_one, wharf_two};
use std::io;
use std::path::Path;
use std::time::Duration;

const KIB: usize = 1024;
/// Connections, bytes, depth.
type Cell = (usize, usize, usize);

/// Long enough for thousands of messages, short enough that a round of all servers sees one state of the machine.
const SLICE: Duration = Duration::from_millis(60);
/// With 8000 connections a round of all of them takes a while.
const LONG_SLICE: Duration = Duration::from_millis(200);
/// Of an open loop: latencies need more messages.
const OPEN_SLICE: Duration = Duration::from_millis(150);
/// A fifth or so of what a processor can do.
const OPEN_RATE: f64 = 20_000.0;

const QUICK_ONE: [Cell; 5] = [(64, 32, 1), (1000, 32, 1), (64, 16 * KIB, 1), (64, 32, 16), (1, 32, 1)];
const QUICK_TWO: [Cell; 1] = [(64, 32, 1)];
/// Every value of each axis with the middle ones of the others, and the corners where something else limits: one
/// connection (waking up), many (memory), much (copying), deep (buffers).
const FULL_ONE: [Cell; 14] = [
    (1, 32, 1),
    (64, 32, 1),
    (1000, 32, 1),
    (1, 32, 16),
    (64, 32, 16),
    (1000, 32, 16),
    (1, 512, 1),
    (64, 512, 1),
    (1000, 512, 1),
    (64, 512, 16),
    (1, 16 * KIB, 1),
    (64, 16 * KIB, 1),
    (1000, 16 * KIB, 1),
    (64, 16 * KIB, 16),
];
const FULL_TWO: [Cell; 6] = [(1, 32, 1), (64, 32, 1), (1000, 32, 1), (64, 512, 1), (64, 16 * KIB, 1), (64, 32, 16)];
const CROWD: Cell = (8000, 32, 1);
const OPEN: [Cell; 2] = [(64, 32, 1), (1000, 32, 1)];

pub fn run(lab: &Lab, beside: Option<&Path>) -> io::Result<Report> {
    let mut report = Report::default();
    let one = systems_one(lab, beside);
    let two = systems_two(lab);
    let closed = |cell: Cell, place, systems, slice, seconds, workers| Case {
        scenario: "echo",
        name: name(cell, workers),
        place,
        systems,
        shape: Shape::new(cell.0, cell.1, cell.2),
        work: Work::Closed,
        slice,
        plan: Plan::within(seconds),
        idle: 0,
        afresh: false,
    };
    for &cell in lab.pick(&QUICK_ONE[..], &FULL_ONE[..]) {
        let case = closed(cell, Place::Apart, &one, lab.pick(SLICE / 2, SLICE), lab.pick(3.0, 10.0), 1);
        if lab.has_time(&case.name, 5.0) {
            report.rows.extend(compare(lab, &case)?);
        }
    }
    for &cell in lab.pick(&QUICK_TWO[..], &FULL_TWO[..]) {
        let case = closed(cell, Place::Anywhere, &two, SLICE, lab.pick(3.0, 10.0), 2);
        if lab.has_time(&case.name, 5.0) {
            report.rows.extend(compare(lab, &case)?);
        }
    }
    for &cell in lab.pick(&OPEN[..1], &OPEN[..]) {
        let case = Case {
            name: format!("{}, {OPEN_RATE} messages/s", name(cell, 1)),
            work: Work::Open { rate: OPEN_RATE, alone: true },
            ..closed(cell, Place::Apart, &one, lab.pick(OPEN_SLICE / 3, OPEN_SLICE), lab.pick(3.0, 12.0), 1)
        };
        if lab.has_time(&case.name, 6.0) {
            report.rows.extend(compare(lab, &case)?);
        }
    }
    // So many that two servers' are all that the generator can have: each peer beside wharf alone.
    let few = crowd_systems(lab);
    let case = closed(CROWD, Place::Apart, &few, lab.pick(LONG_SLICE / 2, LONG_SLICE), lab.pick(1.5, 7.0), 1);
    if lab.has_time(&case.name, 7.0) {
        report.rows.extend(compare(lab, &case)?);
    }
    goals(&mut report);
    Ok(report)
}

fn name((connections, bytes, depth): Cell, workers: usize) -> String {
    let bytes = if bytes >= KIB { format!("{} KiB", bytes / KIB) } else { format!("{bytes} B") };
    let depth = if depth > 1 { format!(", depth {depth}") } else { String::new() };
    let workers = if workers > 1 { format!(", {workers} processors") } else { String::new() };
    format!("{connections} x {bytes}{depth}{workers}")
}

fn systems_one(lab: &Lab, beside: Option<&Path>) -> Vec<System> {
    let mut systems = wharf_one("echo");
    systems.push(System::wharf("wharf, a packet for each send", "echo --workers 2 --limit 1 --packets"));
    systems.push(System::wharf("wharf one thread", "echo-loop"));
    systems.extend(peers(
        lab.pick(
            &["tokio", "compio", "monoio", "epoll", "uring"],
            &["tokio", "compio", "monoio", "glommio", "asio", "mio", "epoll", "uring", "poll", "select", "threads"],
        ),
        1,
        "echo",
    ));
    if let Some(program) = beside {
        let other = |name: &str, options| System::other_build(&format!("other build: {name}"), program, options);
        systems.push(other("2, limit 1", "echo --workers 2 --limit 1"));
        systems.push(other("sessions 2, 1", "echo-session --workers 2 --limit 1"));
        systems.push(other("one thread", "echo-loop"));
    }
    systems
}

fn systems_two(lab: &Lab) -> Vec<System> {
    let mut systems = wharf_two("echo");
    systems.push(System::wharf("wharf, a packet for each send", "echo --workers 3 --limit 2 --packets"));
    let names: &[_] = lab.pick(&["tokio"], &["tokio", "compio", "monoio", "glommio", "asio", "epoll", "uring"]);
    systems.extend(peers(names, 2, "echo"));
    systems
}

fn crowd_systems(lab: &Lab) -> Vec<System> {
    let mut systems = wharf_one("echo");
    systems.truncate(lab.pick(1, 2));
    systems.extend(peers(lab.pick(&["tokio"], &["tokio", "monoio", "asio", "epoll", "uring"]), 1, "echo"));
    systems
}

fn goals(report: &mut Report) {
    let middle = |ratios: &[(&str, f64)]| median(&ratios.iter().map(|&(_, ratio)| ratio).collect::<Vec<f64>>());
    let runtimes = report.cheapest(is_runtime);
    let loops = report.cheapest(is_raw_loop);
    let noise = |case| report.row(case, AGAIN).and_then(|row| row.ratio_cpu).map_or(0.0, |ratio| (ratio - 1.0).abs());
    let dear = runtimes.iter().filter(|&&(case, ratio)| 1.0 / ratio > 1.05 + noise(case)).count();
    let again = report.cheapest(|name| name == AGAIN);
    report.goals = vec![
        Goal::new("in the middle case, the cheapest runtime, cpu/wharf", middle(&runtimes), Wanted::AtLeast(1.0)),
        Goal::new(
            format!("cases of {} where wharf costs over 1.05, and the noise, of the cheapest runtime", runtimes.len()),
            (!runtimes.is_empty()).then_some(dear as f64),
            Wanted::AtMost(0.0),
        ),
        // A tenth above the best loop that a system call interface allows.
        Goal::new("in the middle case, the cheapest raw loop, cpu/wharf", middle(&loops), Wanted::AtLeast(1.0 / 1.1)),
        Goal::new(format!("{AGAIN}, cpu"), middle(&again), Wanted::AtMost(1.05)),
    ];
}
