//! A tenth of the connections carries nine tenths of the messages, each of which computes for 50 us; two workers on two
//! processors, beside runtimes that give each connection to one thread for good. And 20 us on connections that are all
//! alike, beside a runtime that steals. The generator shares the processors, and its part of one is in the table. Every
//! round has new connections, for which thread has how many of the busy ones is chance.

use crate::compare::{Case, compare};
use crate::lab::Lab;
use crate::load::{Shape, Work};
use crate::machine::Place;
use crate::measure::Plan;
use crate::rows::{Goal, Report, Wanted};
use crate::systems::{peers, wharf_two};
use std::io;
use std::time::Duration;

const CONNECTIONS: usize = 60;
/// Below half of what two processors can do with 50 us each, so that a thread with two thirds of it is not overloaded
/// yet.
const OPEN_RATE: f64 = 14_000.0;
/// Much less than messages wait for their turn, and long enough for several answers.
const GATHER: Duration = Duration::from_micros(300);

pub fn run(lab: &Lab) -> io::Result<Report> {
    let mut report = Report::default();
    let per_thread = ["monoio", "glommio", "compio"];
    let skewed = Shape { skewed: true, ..Shape::new(CONNECTIONS, 32, 1) };
    let open = Work::Open { rate: OPEN_RATE, alone: false };
    let gather = Some(GATHER);
    let deep = Shape { skewed: true, gather, ..Shape::new(CONNECTIONS, 32, 2) };
    let uniform = Shape { gather, ..Shape::new(CONNECTIONS, 32, 2) };
    for (name, micros, shape, work, with) in [
        ("skewed, 50 us, closed loop", 50, deep, Work::Closed, &per_thread[..]),
        ("skewed, 50 us, 14 000 messages/s", 50, skewed, open, &per_thread[..]),
        ("uniform, 20 us, closed loop", 20, uniform, Work::Closed, &[]),
    ] {
        let options = format!("spin --spin-us {micros} --size 32");
        let mut systems = wharf_two(&options);
        systems.extend(peers(&["tokio"], 2, &options));
        systems.extend(peers(with, 2, &options));
        let case = Case {
            scenario: "skew",
            name: name.into(),
            place: Place::Anywhere,
            systems: &systems,
            shape,
            work,
            slice: Duration::from_millis(lab.pick(120, 300)),
            plan: Plan::within(lab.pick(8.0, 30.0)),
            idle: 0,
            afresh: true,
        };
        if lab.has_time(name, 11.0) {
            report.rows.extend(compare(lab, &case)?);
        }
    }
    goals(&mut report);
    Ok(report)
}

fn goals(report: &mut Report) {
    let closed = "skewed, 50 us, closed loop";
    let mut goals = Vec::new();
    for name in ["monoio, 2 threads", "glommio, 2 threads", "compio, 2 threads"] {
        let rate = report.row(closed, name).and_then(|row| row.ratio_rate);
        goals.push(Goal::new(format!("skewed: {name}, rate/wharf"), rate, Wanted::AtMost(1.0 / 1.3)));
    }
    let rate = report.row("uniform, 20 us, closed loop", "tokio multi_thread(2)").and_then(|row| row.ratio_rate);
    goals.push(Goal::new("uniform: tokio, rate/wharf", rate, Wanted::AtMost(1.0 / 0.97)));
    let skewed = report.rows.iter().filter(|row| row.case.starts_with("skewed"));
    let share = skewed.filter_map(|row| row.generator_share).reduce(f64::max);
    goals.push(Goal::new("skewed: the generator's part of a processor, at most", share, Wanted::AtMost(0.15)));
    report.goals = goals;
}
