//! What a message costs while more and more connections are idle beside the ten that are not. `select` cannot have
//! descriptors beyond 1023, and `poll` looks at all of them each time.

use crate::compare::{Case, compare};
use crate::lab::Lab;
use crate::load::{Shape, Work};
use crate::machine::Place;
use crate::measure::Plan;
use crate::rows::{Goal, Report, Wanted};
use crate::system::System;
use crate::systems::{POOL, peers, wharf_one};
use std::io;
use std::time::Duration;

const ACTIVE: usize = 10;
const IDLE: [usize; 4] = [10, 100, 1000, 10_000];
/// A quick run's, at the end where the difference is largest.
const SELECT_MOST: usize = 1000;
/// Threads that a crowd of its own size can be served by without exhausting what a machine lets one user have.
const THREADS_MOST: usize = 4000;

pub fn run(lab: &Lab) -> io::Result<Report> {
    let mut report = Report::default();
    for idle in IDLE {
        let systems = systems(lab, idle);
        let case = Case {
            scenario: "scale",
            name: format!("{ACTIVE} active, {idle} idle"),
            place: Place::Apart,
            systems: &systems,
            shape: Shape::new(ACTIVE, 32, 1),
            work: Work::Closed,
            slice: Duration::from_millis(lab.pick(40, 80)),
            plan: Plan::within(lab.pick(3.0, 15.0)),
            idle,
            afresh: false,
        };
        if lab.has_time(&case.name, 7.0) {
            report.rows.extend(compare(lab, &case)?);
        }
    }
    let cost = |case: String| report.row(&case, POOL)?.cpu_us_per_message;
    let grown = cost(format!("{ACTIVE} active, 10000 idle")).zip(cost(format!("{ACTIVE} active, 10 idle")));
    let what = format!("{POOL}: cost with 10 000 idle, of that with 10");
    report.goals.push(Goal::new(what, grown.map(|(many, few)| many / few), Wanted::AtMost(1.15)));
    report.notes.push(
        "select is left out beyond 1000 descriptors, its limit is 1024; a thread per connection beyond 4000".into(),
    );
    Ok(report)
}

fn systems(lab: &Lab, idle: usize) -> Vec<System> {
    let mut systems = wharf_one("echo");
    systems.extend(peers(lab.pick(&["tokio", "epoll"], &["tokio", "epoll", "uring"]), 1, "echo"));
    systems.extend(peers(&["poll"], 1, "echo"));
    if idle + ACTIVE < SELECT_MOST {
        systems.extend(peers(&["select"], 1, "echo"));
    }
    if idle <= THREADS_MOST {
        systems.extend(peers(&["threads"], 1, "echo"));
    }
    systems
}
