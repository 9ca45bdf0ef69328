//! A few messages a second: what looking after the workers costs when there is nearly nothing to do. All servers have
//! theirs in the same seconds, in turns, each alone while it works.

use crate::compare::start;
use crate::lab::Lab;
use crate::load::trickle::trickle;
use crate::load::{Load, Shape};
use crate::machine::Place;
use crate::measure::{ROUNDS_LEAST, Sample, ratios, rows};
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::stats::median;
use crate::system::System;
use crate::systems::{POOL, POOL_OF_TWO, is_runtime, peers};
use std::io;
use std::path::Path;

/// Messages a second, and how many make a round: of a quick run, and of a full one.
const RATES: [(f64, usize, usize); 3] = [(1.0, 1, 3), (20.0, 12, 40), (100.0, 50, 150)];

pub fn run(lab: &Lab, beside: Option<&Path>) -> io::Result<Report> {
    let mut report = Report::default();
    let mut goals = Vec::new();
    for (rate, quick, full) in RATES {
        let case = format!("{rate} messages/s");
        lab.case(&case);
        let count = lab.pick(quick, full);
        let systems = systems(lab, beside);
        let servers = start(lab, Place::Apart, &systems.iter().collect::<Vec<_>>())?;
        let mut loads = servers
            .iter()
            .map(|server| Load::connect(server, Shape::new(1, 32, 1)))
            .collect::<io::Result<Vec<Load>>>()?;
        // Each has answered before.
        trickle(&servers, &mut loads, 100.0, 3, 0).into_iter().collect::<io::Result<Vec<Sample>>>()?;
        let rounds = lab.pick(ROUNDS_LEAST, 15);
        let mut samples = vec![Vec::new(); servers.len()];
        let steps = lab.steps(rounds);
        for round in 0..rounds {
            let found = trickle(&servers, &mut loads, rate, count, round);
            for (at, (own, sample)) in samples.iter_mut().zip(found).enumerate() {
                match sample {
                    Ok(sample) => own.push(sample),
                    Err(error) if at == 0 => return Err(error),
                    Err(error) => lab.note(format!("{case}: a round less, {error}")),
                }
            }
            steps.done();
        }
        drop(steps);
        let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
        let mut found = rows("trickle", &case, &names, &samples);
        for row in &mut found {
            if let Some(server) = servers.iter().find(|server| server.name == row.system) {
                (row.resident_bytes, row.heap_bytes) = (server.resident_bytes(), server.heap_bytes());
            }
        }
        report.rows.append(&mut found);
        let one_thread = names.iter().position(|&name| name == ONE_THREAD).expect("wharf's own");
        let watching = median(&ratios(&samples[0], &samples[one_thread], |sample| sample.cpu_us_per_message));
        // The watching costs no more than half a message's own time.
        goals.push(Goal::new(format!("{case}, {POOL} beside one thread"), watching, Wanted::AtMost(1.5)));
    }
    for (case, ratio) in report.cheapest(is_runtime) {
        let what = format!("{case}: the cheapest runtime, cpu/wharf");
        goals.push(Goal::new(what, Some(ratio), Wanted::AtLeast(1.0 / 1.1)));
    }
    report.goals.append(&mut goals);
    Ok(report)
}

const ONE_THREAD: &str = "wharf one thread";

fn systems(lab: &Lab, beside: Option<&Path>) -> Vec<System> {
    let mut systems = vec![
        System::wharf(POOL, "echo --workers 2 --limit 1"),
        System::wharf(AGAIN, "echo --workers 2 --limit 1"),
        System::wharf(ONE_THREAD, "echo-loop"),
        System::wharf(POOL_OF_TWO, "echo --workers 3 --limit 2"),
        System::wharf("wharf sessions 2, limit 1", "echo-session --workers 2 --limit 1"),
    ];
    let names: &[_] =
        lab.pick(&["tokio", "compio", "monoio"], &["tokio", "compio", "monoio", "glommio", "asio", "epoll"]);
    systems.extend(peers(names, 1, "echo"));
    systems.extend(peers(&["tokio"], 2, "echo"));
    if let Some(program) = beside {
        let other = |name: &str, options| System::other_build(&format!("other build: {name}"), program, options);
        systems.push(other("2, limit 1", "echo --workers 2 --limit 1"));
        systems.push(other("one thread", "echo-loop"));
    }
    systems
}
