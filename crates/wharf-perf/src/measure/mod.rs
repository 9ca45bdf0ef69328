//! Measuring: what is counted, when it counts, and what comes of it. All of it is values; the counters, the clock's
//! readings and the bytes are handed in.

pub mod account;
pub mod book;
pub mod figures;
pub(crate) mod measurement;
pub mod pace;
pub(crate) mod rate_limit;
pub(crate) mod round_trips;
pub(crate) mod settling;
pub mod summary;
pub mod verify;
