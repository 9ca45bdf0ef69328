//! What a scenario is run with: how long it may take, and the bar that shows how far it is.

use indicatif::{ProgressBar, ProgressStyle};
use std::cell::RefCell;
use std::time::{Duration, Instant};

/// A quick scenario is to end within 45 seconds; what is not begun by then is left out.
const QUICK: Duration = Duration::from_secs(36);

pub struct Lab {
    pub quick: bool,
    bar: ProgressBar,
    begun: Instant,
    notes: RefCell<Vec<String>>,
}

impl Lab {
    pub fn new(scenario: &str, quick: bool) -> Lab {
        let bar = ProgressBar::new(0);
        let style = ProgressStyle::with_template("{prefix:>10} [{bar:30}] {pos}/{len} {elapsed} {wide_msg}");
        bar.set_style(style.expect("the template is a constant").progress_chars("=> "));
        bar.set_prefix(scenario.to_owned());
        bar.enable_steady_tick(Duration::from_millis(250));
        Lab { quick, bar, begun: Instant::now(), notes: RefCell::default() }
    }

    /// For tests: shows nothing.
    #[cfg(test)]
    pub fn quiet() -> Lab {
        Lab { quick: true, bar: ProgressBar::hidden(), begun: Instant::now(), notes: RefCell::default() }
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
        let fits = !self.quick || self.begun.elapsed() + Duration::from_secs_f64(seconds) <= QUICK;
        if !fits {
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
