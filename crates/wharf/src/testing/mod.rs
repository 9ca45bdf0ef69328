//! Tools of this crate's own tests: an engine that plays a network, and random schedules on it.

pub(crate) mod fake;
#[cfg(test)]
mod schedules;
