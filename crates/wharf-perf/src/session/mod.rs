//! One test at one end: what client and server have in common. Each of them owns one
//! [`TestSession`](test::TestSession), under one lock that the data path does not take.

pub(crate) mod connection;
pub(crate) mod purpose;
pub(crate) mod test;
pub(crate) mod timers;
