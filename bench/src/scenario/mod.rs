//! One file for each scenario.

pub mod echo;
pub mod idle;
pub mod queue;
pub mod trickle;
pub mod wake;
