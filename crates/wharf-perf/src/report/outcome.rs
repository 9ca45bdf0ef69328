//! What a client's test came to, for whoever asked for it.

use super::sides::Sides;
use crate::measure::figures::{End, Interval, Start};
use crate::protocol::Failure;

/// What a test came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Known as soon as the streams were there.
    pub start: Option<Start>,
    /// As they were reported.
    pub intervals: Vec<Interval>,
    /// The totals; after a failure what was known then.
    pub end: Option<End>,
    /// Why it failed, if it did.
    pub failure: Option<Failure>,
    /// Of a test in two phases whose second has begun, the first; the rest is about the second.
    pub first: Option<Box<Outcome>>,
    /// What moved the bytes.
    pub engine: String,
}

impl Outcome {
    /// Both phases side by side, of a test that had two.
    pub fn sides(&self) -> Option<Sides> {
        let first = self.first.as_ref()?;
        let (start, end) = (first.start.as_ref()?, first.end.as_ref()?);
        Some(Sides::new((start, end), self.start.as_ref().zip(self.end.as_ref())))
    }

    pub(crate) fn failed(failure: Failure) -> Outcome {
        Outcome {
            start: None,
            intervals: Vec::new(),
            end: None,
            failure: Some(failure),
            first: None,
            engine: String::new(),
        }
    }
}
