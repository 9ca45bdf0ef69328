//! What a scenario is run with: how long it may take, and the bar that shows how far it is.

use indicatif::{ProgressBar, ProgressStyle};
use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

/// A quick scenario is to end within 45 seconds; what is not begun by then is left out.
const QUICK: Duration = Duration::from_secs(36);

pub struct Lab {
    pub quick: bool,
    /// How much of the time that a case would like to have it may take: less than 1 where a whole run is late.
    pub pace: f64,
    bar: ProgressBar,
    begun: Instant,
    notes: RefCell<Vec<String>>,
    /// When the case before began, and what it was to take.
    last: Cell<Option<(f64, f64)>>,
    /// How much longer than that cases take on this machine, or while others use it.
    slowness: Cell<f64>,
}

impl Lab {
    pub fn new(scenario: &str, quick: bool, pace: f64) -> Lab {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{prefix:>10} [{bar:30}] {pos}/{len} {elapsed} {wide_msg}");
        bar.set_style(style.expect("the template is a constant").progress_chars("=> "));
        bar.set_prefix(scenario.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        Lab { pace, ..Lab::with(quick, bar) }
    }

    /// For tests: shows nothing.
    #[cfg(test)]
    pub fn quiet() -> Lab {
        Lab::with(true, ProgressBar::hidden())
    }

    fn with(quick: bool, bar: ProgressBar) -> Lab {
        let (begun, notes) = (Instant::now(), RefCell::default());
        Lab { quick, pace: 1.0, bar, begun, notes, last: Cell::new(None), slowness: Cell::new(1.0) }
    }

    /// One of two values: a quick run's, or a full one's.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// What is being measured now.
    pub fn case(&self, what: &str) {
        self.bar.set_message(what.to_owned());
    }

    /// So many steps more until the end.
    pub fn steps(&self, count: usize) -> Steps<'_> {
        self.bar.inc_length(count as u64);
        Steps { bar: &self.bar }
    }

    /// Whether another case that takes so long fits into a quick run; if not, the report says so.
    pub fn has_time(&self, what: &str, seconds: f64) -> bool {
        self.has_time_at(self.seconds(), what, seconds)
    }

    fn has_time_at(&self, now: f64, what: &str, seconds: f64) -> bool {
        if let Some((begin, expected)) = self.last.take() {
            self.slowness.set(self.slowness.get().max((now - begin) / expected));
        }
        let fits = !self.quick || now + seconds * self.slowness.get() <= QUICK.as_secs_f64();
        if fits {
            self.last.set(Some((now, seconds)));
        } else {
            self.note(format!("{what}: left out of a quick run, for the time"));
        }
        fits
    }

    /// A line of the report, said once.
    pub fn note(&self, text: impl Into<String>) {
        let text = text.into();
        let mut notes = self.notes.borrow_mut();
        if !notes.contains(&text) {
            notes.push(text);
        }
    }

    pub fn seconds(&self) -> f64 {
        self.begun.elapsed().as_secs_f64()
    }

    /// Takes the bar away; returns what was noted.
    pub fn finish(self) -> Vec<String> {
        self.bar.finish_and_clear();
        self.notes.into_inner()
    }
}

/// Steps of a case. Those that were not made are taken for made when it ends.
pub struct Steps<'a> {
    bar: &'a ProgressBar,
}

impl Steps<'_> {
    pub fn done(&self) {
        self.bar.inc(1);
    }
}

impl Drop for Steps<'_> {
    fn drop(&mut self) {
        // A case's steps are the last ones of the bar.
        self.bar.set_position(self.bar.length().unwrap_or(0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_machine_makes_a_quick_run_leave_out_more() {
        let lab = Lab::quiet();
        assert!(lab.has_time_at(0.0, "one", 0.1));
        // The case before took twenty times what it should, and so would this one.
        assert!(!lab.has_time_at(2.0, "another", QUICK.as_secs_f64() / 10.0));
        assert!(lab.has_time_at(2.0, "a short one", 0.5));
        assert_eq!(lab.finish(), ["another: left out of a quick run, for the time"]);
        let full = Lab { quick: false, ..Lab::quiet() };
        assert!(full.has_time("anything", 1e6));
    }
}
