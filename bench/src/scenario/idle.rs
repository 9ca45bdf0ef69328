//! What connections cost that do nothing: memory each, with 9000 of them, and what their server does meanwhile.
//!
//! Each has said 32 bytes and heard them again. Memory is that with them less that before them, resident and live on
//! the heap; the kernel's part is in neither. The connections' other ends are in a process of their own, because the
//! limit on descriptors is a process's. A thread that makes a system call which waits is switched away, so no context
//! switches of any of a server's threads means that all of them stayed in the call in which they sleep.

use crate::compare::start;
use crate::lab::Lab;
use crate::load::crowd::Crowd;
use crate::machine::{Place, connections_most};
use crate::measure::{ROUNDS_LEAST, Sample, rows};
use crate::rows::{AGAIN, Goal, Report, Row, Wanted};
use crate::stats::median;
use crate::system::{Server, System};
use crate::systems::{POOL, is_runtime, peers};
use std::io;
use std::time::Duration;

const CONNECTIONS: usize = 9000;
const FEW: usize = 64;
/// What a server with many connections would do: none of them holds a buffer while it waits.
const POOLED: &str = "wharf, receives into the pool";
/// Timers that the last messages set may still go off.
const SETTLE: Duration = Duration::from_millis(500);

pub fn run(lab: &Lab) -> io::Result<Report> {
    let mut report = Report::default();
    work(lab, &mut report)?;
    memory(lab, &mut report)?;
    Ok(report)
}

fn systems() -> Vec<System> {
    let mut systems = vec![
        System::wharf(POOL, "echo --workers 2 --limit 1"),
        System::wharf(AGAIN, "echo --workers 2 --limit 1"),
        System::wharf(POOLED, "echo --workers 2 --limit 1 --pooled"),
        System::wharf("wharf sessions 2, limit 1", "echo-session --workers 2 --limit 1"),
    ];
    systems.extend(peers(&["tokio", "compio", "monoio", "glommio", "asio", "mio", "epoll", "uring"], 1, "echo"));
    systems.extend(peers(&["tokio"], 2, "echo"));
    systems
}

// --- What an idle server does ---

/// A "message" is a second here.
fn work(lab: &Lab, report: &mut Report) -> io::Result<()> {
    let case = format!("{FEW} connections, a second of doing nothing");
    lab.case(&case);
    let systems = systems();
    let servers = start(lab, Place::Apart, &systems.iter().collect::<Vec<_>>())?;
    let crowds = servers.iter().map(|server| Crowd::connect(server, FEW)).collect::<io::Result<Vec<_>>>()?;
    std::thread::sleep(SETTLE);
    let watched = Duration::from_millis(lab.pick(300, 1000));
    let rounds = lab.pick(ROUNDS_LEAST, 11);
    let steps = lab.steps(rounds);
    let mut samples = vec![Vec::new(); servers.len()];
    // All at once: who does nothing disturbs nobody.
    for _ in 0..rounds {
        let before: Vec<_> = servers.iter().map(Server::usage).collect();
        std::thread::sleep(watched);
        for ((server, before), samples) in servers.iter().zip(before).zip(&mut samples) {
            let used = server.usage().since(before);
            samples.push(Sample {
                cpu_us_per_message: Some(used.cpu_us() / watched.as_secs_f64()),
                switches_per_message: Some(used.switches as f64 / watched.as_secs_f64()),
                wakeups_per_message: Some(used.wakeups as f64 / watched.as_secs_f64()),
                ..Sample::default()
            });
        }
        steps.done();
    }
    drop((steps, crowds));
    let names: Vec<&str> = servers.iter().map(|server| server.name.as_str()).collect();
    for mut row in rows("idle", &case, &names, &samples) {
        // Nothing divided by nothing is no ratio.
        (row.ratio_cpu, row.ratio_cpu_quartiles) = (None, None);
        if row.system.starts_with("wharf") {
            let what = format!("{}: context switches in an idle second", row.system);
            report.goals.push(Goal::new(what, row.switches_per_message, Wanted::AtMost(0.0)));
        }
        report.rows.push(row);
    }
    Ok(())
}

// --- What they keep ---

fn memory(lab: &Lab, report: &mut Report) -> io::Result<()> {
    let count = CONNECTIONS.min(connections_most());
    let case = format!("{count} connections");
    lab.case(&case);
    // Memory is the same each time, to some pages.
    let rounds = lab.pick(1, ROUNDS_LEAST);
    let systems = systems();
    let mut found = vec![(Vec::new(), Vec::new(), Vec::new(), Vec::new()); systems.len()];
    let steps = lab.steps(rounds * systems.len());
    for round in 0..rounds {
        for place in 0..systems.len() {
            let at = (place + round) % systems.len();
            if round > 0 || at == 0 || lab.has_time(&format!("{case}, {}", systems[at].name), 3.0) {
                match kept(lab, &systems[at], count) {
                    Ok([resident, heap, resident_each, heap_each]) => {
                        found[at].0.extend(resident);
                        found[at].1.extend(heap);
                        found[at].2.extend(resident_each);
                        found[at].3.extend(heap_each);
                    }
                    Err(error) if at == 0 => return Err(error),
                    Err(error) => lab.note(format!("{case}, {}: left out, {error}", systems[at].name)),
                }
            }
            steps.done();
        }
    }
    for (system, (resident, heap, resident_each, heap_each)) in systems.iter().zip(&found) {
        if resident.is_empty() {
            continue;
        }
        report.rows.push(Row {
            scenario: "idle".into(),
            case: case.clone(),
            system: system.name.clone(),
            resident_bytes: median(resident),
            heap_bytes: median(heap),
            resident_bytes_per_connection: median(resident_each),
            heap_bytes_per_connection: median(heap_each),
            rounds: resident.len(),
            ..Row::default()
        });
    }
    let each = |name: &str| report.row(&case, name)?.heap_bytes_per_connection;
    let least = systems.iter().filter(|system| is_runtime(&system.name)).filter_map(|system| each(&system.name));
    let of_runtimes = least.reduce(f64::min).zip(each(POOLED)).map(|(least, own)| own / least);
    let goals = [
        ("wharf sessions: live heap per idle connection, bytes", each("wharf sessions 2, limit 1"), 1024.0),
        ("wharf, receives into the pool: live heap per idle connection, bytes", each(POOLED), 300.0),
        ("wharf, receives into the pool: live heap per idle connection, of the least runtime's", of_runtimes, 1.0),
    ];
    report.goals.extend(goals.map(|(what, value, most)| Goal::new(what, value, Wanted::AtMost(most))));
    Ok(())
}

/// Resident and live bytes with the connections, and of each: of a server that was just started.
fn kept(lab: &Lab, system: &System, count: usize) -> io::Result<[Option<f64>; 4]> {
    let servers = start(lab, Place::Apart, &[system])?;
    let server = &servers[0];
    // Whatever is made once is made now.
    drop(Crowd::connect(server, 10)?);
    std::thread::sleep(Duration::from_millis(50));
    let before = (server.resident_bytes(), server.heap_bytes());
    let crowd = Crowd::connect(server, count)?;
    let after = (server.resident_bytes(), server.heap_bytes());
    drop(crowd);
    let each = |after: Option<f64>, before| {
        after.zip(before).map(|(after, before): (f64, f64)| (after - before) / count as f64)
    };
    Ok([after.0, after.1, each(after.0, before.0), each(after.1, before.1)])
}
