//! One file for each scenario: what is measured, against whom, and what it should come to.

pub mod blocked;
pub mod compensation;
pub mod datagrams;
pub mod echo;
pub mod files;
pub mod idle;
pub mod queue;
pub mod statics;
pub mod trickle;
pub mod wake;
