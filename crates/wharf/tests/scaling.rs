//! What is done for one operation does not grow with the number of those that are outstanding beside it. Compared are
//! times of one machine: ten times as many may take a few times more than ten times as long, and not a hundred times.

mod common;

use std::time::{Duration, Instant};
use wharf::raw::FileEngine;
use wharf::{Buffer, CompletionPort, Outcome};

const FEW: usize = 4_000;
const MANY: usize = 10 * FEW;
const TRIES: usize = 5;
/// Linear is 10, quadratic 100.
const RATIO_MAX: f64 = 35.0;

#[track_caller]
fn grows_linearly(what: &str, time: impl Fn(usize) -> Duration) {
    let mut best = [Duration::MAX; 2];
    let ratio = |[few, many]: [Duration; 2]| many.as_secs_f64() / few.as_secs_f64();
    for _ in 0..TRIES {
        for (best, count) in best.iter_mut().zip([FEW, MANY]) {
            *best = time(count).min(*best);
        }
        if ratio(best) < RATIO_MAX {
            return;
        }
    }
    panic!("{what}: ten times as many take {:.0} times as long, {best:?}", ratio(best));
}

#[test]
fn receives_are_cancelled_in_any_order() {
    type Order = fn(&mut Vec<wharf::OperationId>);
    let orders: [(&str, Order); 2] = [("oldest first", |_| {}), ("newest first", |ids| ids.reverse())];
    for (what, order) in orders {
        grows_linearly(what, |count| {
            let port = CompletionPort::<(), ()>::new().unwrap();
            let socket = port.bind("127.0.0.1:0", ()).unwrap();
            let issue = |_| match socket.recv_from(Buffer::with_capacity(16), ()) {
                Ok(Outcome::Pending(id)) => id,
                other => panic!("{other:?}"),
            };
            let mut ids: Vec<_> = (0..count).map(issue).collect();
            order(&mut ids);
            let begun = Instant::now();
            for id in ids {
                port.cancel(id);
            }
            begun.elapsed()
        });
    }
}

enum Cancel {
    None,
    Together,
    NewestFirst,
}

/// How long operations of one file take that are issued, perhaps cancelled, and taken.
fn syncs(engine: FileEngine, count: usize, cancel: Cancel) -> Duration {
    let port = CompletionPort::<(), ()>::options().file_engine(engine).build().unwrap();
    let path = std::env::temp_dir().join(format!("wharf-scaling-{}-{:x}", std::process::id(), fastrand::u64(..)));
    std::fs::write(&path, b"x").unwrap();
    let file = port.open(&path, std::fs::OpenOptions::new().read(true).write(true), ()).unwrap();
    std::fs::remove_file(&path).unwrap();
    let begun = Instant::now();
    let issue = |_| match file.sync_data(()) {
        Ok(Outcome::Pending(id)) => id,
        other => panic!("{other:?}"),
    };
    let ids: Vec<_> = (0..count).map(issue).collect();
    match cancel {
        Cancel::None => {}
        Cancel::Together => drop(file.cancel_all()),
        Cancel::NewestFirst => {
            for id in ids.into_iter().rev() {
                file.cancel(id);
            }
        }
    }
    (0..count).for_each(|_| drop(port.get_timeout(common::DEADLINE).unwrap()));
    begun.elapsed()
}

#[test]
fn operations_of_a_file_end_and_are_cancelled_whatever_runs_them() {
    for engine in [FileEngine::Auto, FileEngine::Threads] {
        grows_linearly(&format!("{engine:?}, all end"), |count| syncs(engine, count, Cancel::None));
        grows_linearly(&format!("{engine:?}, all are cancelled together"), |count| {
            syncs(engine, count, Cancel::Together)
        });
        grows_linearly(&format!("{engine:?}, each is cancelled, the newest first"), |count| {
            syncs(engine, count, Cancel::NewestFirst)
        });
    }
}
