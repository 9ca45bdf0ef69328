//! Runs rows: those that do not disturb each other side by side, the others one after the other.
//!
//! A row that fails has failed. Only on a machine with so much else to do that nothing can be said of it
//! ([`crate::kit::loaded`]) it is tried twice more, alone, and has to pass both times.

use crate::judge::{Ended, NotTried, Verdict, has_failed, judge};
use crate::kit::{Bench, ROW_LIMIT, loaded};
use crate::row::{How, Row};
use crate::rows;
use crate::setting::{Engine, Setting};
use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;

pub struct Outcome {
    pub row: Row,
    pub setting: Setting,
    pub verdict: Verdict,
    /// Why it is no pass.
    pub reason: String,
    /// What was measured.
    pub notes: Vec<String>,
}

/// Rows that mostly wait; more at a time would make the machine the one that is tested.
const AT_A_TIME: usize = 4;
/// How often a row is tried again on a loaded machine.
const MORE_TRIES: usize = 2;

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

/// What a row is in a setting: a difference of an engine or a policy stands for the row's own test there.
fn in_setting(row: &Row, setting: Setting) -> How {
    rows::apart(row.id, setting).unwrap_or(row.how)
}

/// Runs the rows in a setting, and returns their outcomes in their order.
pub fn run(setting: Setting, rows: &[Row]) -> Vec<Outcome> {
    let outcomes: Arc<Mutex<Vec<Option<Outcome>>>> = Arc::new(Mutex::new(rows.iter().map(|_| None).collect()));
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..crate::hostile::rows_at_a_time().unwrap_or(AT_A_TIME) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(row) = rows.get(at) else { break };
                    if !in_setting(row, setting).test().is_some_and(|(_, alone)| alone) {
                        let outcome = decide(setting, *row);
                        outcomes.lock().unwrap()[at] = Some(outcome);
                    }
                }
            });
        }
    });
    let mut outcomes = std::mem::take(&mut *outcomes.lock().unwrap());
    for (row, outcome) in rows.iter().zip(&mut outcomes) {
        if outcome.is_none() {
            *outcome = Some(decide(setting, *row));
        }
    }
    let outcomes = outcomes.into_iter().map(|outcome| outcome.expect("every row was decided"));
    outcomes.map(|outcome| if outcome.verdict == Verdict::Fail { tried_again(outcome) } else { outcome }).collect()
}

/// What becomes of a row that has failed.
fn tried_again(first: Outcome) -> Outcome {
    if !loaded() {
        return first;
    }
    let again: Vec<Outcome> = (0..MORE_TRIES).map(|_| decide(first.setting, first.row)).collect();
    let failures = again.iter().filter(|outcome| outcome.verdict == Verdict::Fail).count();
    if has_failed(failures, MORE_TRIES, true) {
        let reason = format!("{} (and in {failures} of {MORE_TRIES} further tries)", first.reason);
        return Outcome { reason, ..first };
    }
    let mut last = again.into_iter().next_back().expect("it was tried again");
    last.notes.push(format!("failed beside too much other work, and passed alone: {}", first.reason));
    last
}

fn decide(setting: Setting, row: Row) -> Outcome {
    let not_there = (setting.engine == Engine::Fake).then(|| crate::fake::why_not(row.id)).flatten();
    let how = in_setting(&row, setting);
    let (verdict, reason, notes) = match (how, how.test(), not_there) {
        (_, Some(_), Some(why)) => (Verdict::NotApplicable, why.into(), Vec::new()),
        (_, Some((test, _)), None) => {
            let usual = match how {
                How::Differs { here, .. } => (Verdict::Differs, here),
                _ => (Verdict::Pass, ""),
            };
            let expected = match setting.engine {
                Engine::Iocp => crate::native::expected(row.id, crate::system::is_wine()),
                _ => None,
            };
            let (ended, notes) = execute(setting, row.id, test);
            let (verdict, reason) = judge(usual, expected, ended);
            (verdict, reason, notes)
        }
        (How::NotOffered { here }, ..) => (Verdict::NotOffered, here.into(), Vec::new()),
        (How::NotApplicable { concept }, ..) => (Verdict::NotApplicable, concept.into(), Vec::new()),
        (How::Test(_) | How::Alone(_) | How::Differs { .. }, None, _) => unreachable!("these have a test"),
    };
    Outcome { row, setting, verdict, reason, notes }
}

/// In a thread of its own, so that one that hangs holds up nobody else, and no row finds a thread that another has
/// bound to a port.
fn execute(setting: Setting, id: &str, test: fn(&Bench)) -> (Ended, Vec<String>) {
    let bench = Arc::new(Bench::new(setting));
    let (tell, told) = mpsc::channel();
    let own = bench.clone();
    let started = thread::Builder::new().name(id.into()).spawn(move || {
        IN_ROW.set(true);
        let ended = match catch_unwind(AssertUnwindSafe(|| test(&own))) {
            Ok(()) => Ended::Passed,
            Err(payload) => match payload.downcast::<NotTried>() {
                Ok(not_tried) => Ended::NotTried(*not_tried),
                Err(payload) => Ended::Failed(PANIC.take().unwrap_or_else(|| text_of(&*payload))),
            },
        };
        let _ = tell.send(ended);
    });
    if let Err(error) = started {
        return (Ended::Failed(format!("no thread for it: {error}")), Vec::new());
    }
    let late = |_| Ended::Failed(format!("it did not end within {} s", ROW_LIMIT.as_secs()));
    let ended = told.recv_timeout(ROW_LIMIT).unwrap_or_else(late);
    (ended, bench.notes())
}

/// What a panic said that another thread had.
fn text_of(payload: &(dyn std::any::Any + Send)) -> String {
    let text = payload.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("it panicked").to_owned()
}
