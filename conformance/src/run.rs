//! Runs rows: those that do not disturb each other side by side, the others one after the other.

use crate::kit::{Bench, Engine, ROW_LIMIT};
use crate::row::{How, Row};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

/// What became of a row on an engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    /// It stands in `docs/known-differences.md`.
    ExpectedFailure,
    Unverified,
    NotApplicable,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::ExpectedFailure => "expected-failure",
            Verdict::Unverified => "unverified",
            Verdict::NotApplicable => "not-applicable",
        }
    }
}

pub struct Outcome {
    pub row: Row,
    pub engine: Engine,
    pub verdict: Verdict,
    /// Why it is no pass.
    pub reason: String,
    /// What was measured.
    pub notes: Vec<String>,
}

impl Outcome {
    /// It passes, and is expected to fail.
    pub fn surprises(&self) -> bool {
        self.verdict == Verdict::Pass
            && self.engine == Engine::Iocp
            && crate::native::why_it_fails(self.row.id).is_some()
    }
}

/// Rows that mostly wait; more at a time would make the machine the one that is tested.
const AT_A_TIME: usize = 4;

thread_local! {
    static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    static IN_ROW: RefCell<bool> = const { RefCell::new(false) };
}

/// A row that fails says so in its outcome, not on the terminal.
pub fn keep_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if IN_ROW.with_borrow(|inside| *inside) {
            PANIC.set(Some(info.to_string().replace('\n', " ")));
        } else {
            usual(info);
        }
    }));
}

/// Runs the rows on an engine, and returns their outcomes in their order.
pub fn run(engine: Engine, rows: &[Row]) -> Vec<Outcome> {
    let outcomes: Arc<Mutex<Vec<Option<Outcome>>>> = Arc::new(Mutex::new(rows.iter().map(|_| None).collect()));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..crate::hostile::rows_at_a_time().unwrap_or(AT_A_TIME) {
            scope.spawn(|| {
                while let Some(row) = rows.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if !matches!(row.how, How::Alone(_)) {
                        let at = rows.iter().position(|other| other.id == row.id).expect("one of these");
                        let outcome = decide(engine, *row);
                        outcomes.lock().unwrap()[at] = Some(outcome);
                    }
                }
            });
        }
    });
    let mut outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
    for (row, outcome) in rows.iter().zip(&mut outcomes) {
        if outcome.is_none() {
            *outcome = Some(decide(engine, *row));
        }
    }
    outcomes.into_iter().map(|outcome| outcome.expect("every row was decided")).collect()
}

fn decide(engine: Engine, row: Row) -> Outcome {
    let not_there = (engine == Engine::Fake).then(|| crate::fake::why_not(row.id)).flatten();
    let (verdict, reason, notes) = match row.how {
        How::Test(_) | How::Alone(_) if not_there.is_some() => {
            (Verdict::NotApplicable, not_there.unwrap_or_default().into(), Vec::new())
        }
        How::Test(test) | How::Alone(test) => {
            let (result, mut notes) = execute(engine, row.id, test);
            let expected = (engine == Engine::Iocp).then(|| crate::native::why_it_fails(row.id)).flatten();
            match (result, expected) {
                (Ok(()), expected) => {
                    notes.extend(expected.map(|why| format!("passes, and is expected to fail: {why}")));
                    (Verdict::Pass, String::new(), notes)
                }
                // Wine has no concurrency limit, so that the rows about it say nothing of Windows.
                (Err(_), Some(why)) if row.id.starts_with("C-") => (Verdict::Unverified, why.into(), notes),
                (Err(_), Some(why)) => (Verdict::ExpectedFailure, why.into(), notes),
                (Err(why), None) => (Verdict::Fail, why, notes),
            }
        }
        How::Differs { here } => (Verdict::ExpectedFailure, here.into(), Vec::new()),
        How::NotApplicable { concept } => (Verdict::NotApplicable, concept.into(), Vec::new()),
        How::Unverified { needs } => (Verdict::Unverified, needs.into(), Vec::new()),
    };
    Outcome { row, engine, verdict, reason, notes }
}

/// In a thread of its own, so that one that hangs holds up nobody else, and no row finds a thread that another has bound
/// to a port.
fn execute(engine: Engine, id: &str, test: fn(&Bench)) -> (Result<(), String>, Vec<String>) {
    let bench = Arc::new(Bench::new(engine));
    let (tell, told) = mpsc::channel();
    let own = bench.clone();
    let started = thread::Builder::new().name(id.into()).spawn(move || {
        IN_ROW.set(true);
        let result = catch_unwind(AssertUnwindSafe(|| test(&own)));
        let why = PANIC.take().unwrap_or_else(|| "it panicked".into());
        let _ = tell.send(result.map_err(|_| why));
    });
    if let Err(error) = started {
        return (Err(format!("no thread for it: {error}")), Vec::new());
    }
    let late = || Err(format!("it did not end within {} s", ROW_LIMIT.as_secs()));
    let result = told.recv_timeout(ROW_LIMIT).unwrap_or_else(|_| late());
    (result, bench.notes())
}
