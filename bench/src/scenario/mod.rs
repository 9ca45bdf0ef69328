//! One file for each scenario: what is measured, against whom, and what it should come to.

pub mod blocked;
pub mod broadcast;
pub mod bulk;
pub mod churn;
pub mod compensation;
pub mod datagrams;
pub mod echo;
pub mod files;
pub mod idle;
pub mod mixed;
pub mod queue;
pub mod scale;
pub mod skew;
pub mod statics;
pub mod trickle;
pub mod wake;
