//! The data path: the streams of a test, each with one operation outstanding at a time. When it completes the next one
//! is issued, under no lock of the test.

pub(crate) mod base;
pub(crate) mod payload;
pub(crate) mod pings;
pub(crate) mod receiver;
pub(crate) mod send_control;
pub(crate) mod sender;
pub(crate) mod streams;
