//! Sockets, file reads and timers together: each message of 32 bytes names a block of 4 KiB; the server reads it, waits
//! a millisecond, and answers. wharf does all of it in one port; the peers do it their way. The file lies in the cache.

use crate::compare::{Case, compare};
use crate::lab::Lab;
use crate::load::{Shape, Work};
use crate::machine::Place;
use crate::measure::Plan;
use crate::process::Folder;
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::system::System;
use crate::systems::{POOL, POOL_OF_TWO, is_runtime, peers};
use std::io::{self, Write};
use std::time::Duration;

const BLOCKS: u64 = 16 * 1024;
const OPEN_RATE: f64 = 5_000.0;

pub fn run(lab: &Lab) -> io::Result<Report> {
    let folder = Folder::new()?;
    let path = folder.path().join("blocks");
    let mut file = std::fs::File::create(&path)?;
    // Written just now: the cache has it.
    (0..BLOCKS).try_for_each(|number| file.write_all(&[number as u8; 4096]))?;
    drop(file);
    let with_file = |systems: Vec<System>| -> Vec<System> {
        systems.into_iter().map(|system| system.with("--file", &path)).collect()
    };
    let own = |name: &str, workers, limit| {
        System::wharf(name, &format!("mixed --size 32 --workers {workers} --limit {limit}"))
    };
    let names = ["tokio", "compio", "monoio", "glommio"];
    let mut one = vec![own(POOL, 2, 1), own(AGAIN, 2, 1)];
    one.extend(peers(&names, 1, "mixed --size 32"));
    let mut two = vec![own(POOL_OF_TWO, 3, 2), own(AGAIN, 3, 2)];
    two.extend(peers(&names, 2, "mixed --size 32"));
    let (one, two) = (with_file(one), with_file(two));
    let mut report = Report::default();
    let shape = |depth| Shape { blocks: Some(BLOCKS), ..Shape::new(64, 32, depth) };
    let open = Work::Open { rate: OPEN_RATE, alone: true };
    for (name, place, systems, depth, work) in [
        ("64 connections, depth 4".to_owned(), Place::Apart, &one, 4, Work::Closed),
        (format!("64 connections, {OPEN_RATE} messages/s"), Place::Apart, &one, 1, open),
        ("64 connections, depth 4, 2 processors".to_owned(), Place::Anywhere, &two, 4, Work::Closed),
    ] {
        let case = Case {
            scenario: "mixed",
            name,
            place,
            systems,
            shape: shape(depth),
            work,
            slice: Duration::from_millis(lab.pick(100, 200)),
            plan: Plan::within(lab.pick(5.0, 15.0)),
            idle: 0,
            afresh: false,
        };
        if lab.has_time(&case.name, 9.0) {
            report.rows.extend(compare(lab, &case)?);
        }
    }
    let goals = report.cheapest(is_runtime).into_iter().map(|(case, ratio)| {
        Goal::new(format!("{case}: the cheapest runtime, cpu/wharf"), Some(ratio), Wanted::AtLeast(1.0))
    });
    report.goals = goals.collect();
    Ok(report)
}
