//! A row: one behaviour, how much it matters, and how we know.

use crate::kit::Bench;

/// How much a row obliges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// A program written for Windows breaks without it.
    Must,
    /// A program can notice; a deviation is allowed, and listed.
    Should,
    /// It describes Windows, and obliges to nothing.
    Information,
}

impl Level {
    pub fn letter(self) -> &'static str {
        match self {
            Level::Must => "M",
            Level::Should => "S",
            Level::Information => "I",
        }
    }
}

/// What runs for a row. It panics when what it is to show is not so.
pub type Check = fn(&Bench);

/// How a row is decided.
#[derive(Clone, Copy)]
pub enum How {
    /// By a function that panics when the behaviour is not there.
    Test(Check),
    /// Like `Test`, while no other row runs: it concludes something from which threads run, from how long something
    /// takes, or from figures of the process.
    Alone(Check),
    /// Wharf does something else, which stands in `docs/known-differences.md`. The function panics when that is not
    /// done either, so that a difference that goes away, or grows, is noticed.
    Differs { here: &'static str, shown: Check, alone: bool },
    /// Wharf does not offer it, so that nothing can be run: what there is instead. Stands there as well.
    NotOffered { here: &'static str },
    /// It speaks of something that only a C interface has: the concept.
    NotApplicable { concept: &'static str },
}

impl How {
    /// What is run, and whether nothing else may run beside it.
    pub fn test(&self) -> Option<(Check, bool)> {
        match *self {
            How::Test(test) => Some((test, false)),
            How::Alone(test) => Some((test, true)),
            How::Differs { shown, alone, .. } => Some((shown, alone)),
            How::NotOffered { .. } | How::NotApplicable { .. } => None,
        }
    }
}

/// One behaviour of the specification.
#[derive(Clone, Copy)]
pub struct Row {
    pub id: &'static str,
    pub level: Level,
    /// The behaviour, in a sentence.
    pub says: &'static str,
    pub how: How,
}

pub const fn must(id: &'static str, says: &'static str, how: How) -> Row {
    Row { id, level: Level::Must, says, how }
}

pub const fn should(id: &'static str, says: &'static str, how: How) -> Row {
    Row { id, level: Level::Should, says, how }
}

pub const fn information(id: &'static str, says: &'static str, how: How) -> Row {
    Row { id, level: Level::Information, says, how }
}

pub const fn differs(here: &'static str, shown: Check) -> How {
    How::Differs { here, shown, alone: false }
}

pub const fn not_offered(here: &'static str) -> How {
    How::NotOffered { here }
}

pub const fn only_c(concept: &'static str) -> How {
    How::NotApplicable { concept }
}
