//! What the test files share: waiting with a deadline, sockets, child processes, and sessions that are counted.
//!
//! Time limits here are for hung tests only: nothing is concluded from how long something took.

// Each test file uses a part of this.
#![allow(dead_code, unused_imports)]

pub mod theatre;

pub use wharf_testkit::numbers;
pub use wharf_testkit::plain::*;
pub use wharf_testkit::process::*;
pub use wharf_testkit::sockets::*;
