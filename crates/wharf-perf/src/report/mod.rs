//! What a test found out, as people and programs see it, and its way to them.

pub mod human;
pub mod json;
pub mod log;
pub mod outcome;
pub mod plot;
pub mod printer;
pub mod sides;
pub mod text;
pub mod units;
