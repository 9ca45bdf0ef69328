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

/// How a row is decided.
#[derive(Clone, Copy)]
pub enum How {
    /// By a function that panics when the behaviour is not there.
    Test(fn(&Bench)),
    /// Like `Test`, while no other row runs: it concludes something from which threads run, or from figures of the process.
    Alone(fn(&Bench)),
    /// Wharf does something else, or does not offer it. Stands in `docs/known-differences.md`.
    Differs { here: &'static str },
    /// It speaks of something that only a C interface has: the concept.
    NotApplicable { concept: &'static str },
    /// Nobody has seen it: what would be needed. Of no row just now.
    #[allow(dead_code)]
    Unverified { needs: &'static str },
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

pub const fn differs(here: &'static str) -> How {
    How::Differs { here }
}

pub const fn only_c(concept: &'static str) -> How {
    How::NotApplicable { concept }
}

#[allow(dead_code)]
pub const fn unverified(needs: &'static str) -> How {
    How::Unverified { needs }
}
