//! Rows that hold on some engines, or with one policy of waking, and differ with the others.

use super::{Apart, concurrency};
use crate::setting::Where::With;
use wharf::Wake::Adaptive;

pub const APART: &[Apart] = &[Apart {
    row: "C-05",
    at: With(Adaptive),
    here: "so when nobody is active; beside active threads the others are released one tick later, in any order",
    shown: concurrency::one_warm,
}];
