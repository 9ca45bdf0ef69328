//! **Network measurement on the completion port**, compatible with iperf3 on the wire, in both roles.
//!
//! | Module | What it knows |
//! |---|---|
//! | [`protocol`], [`parameters`], [`results`], [`datagram`] | iperf3's words: bytes in, values out, no sockets |
//! | [`pace`], [`verify`] | when the next block may go, and what is in it |
//! | [`report`] | rows, sums and totals, and how people and programs see them |
//! | [`client`], [`server`] | the tests themselves, on one [`wharf::CompletionPort`] |
//! | [`plot`], [`summary`] | curves of one test, figures of several |
//!
//! In the engine everything is a packet of one port: the control connection, the streams, datagrams, timers and signals. No
//! stream has a thread; as many workers as the machine has processors take whatever has completed.

pub mod client;
pub mod datagram;
mod flow;
pub mod json;
mod latency;
mod machinery;
mod op;
pub mod output;
pub mod pace;
pub mod parameters;
pub mod plot;
pub mod protocol;
pub mod report;
pub mod results;
pub mod server;
mod session;
mod socket;
pub mod summary;
pub mod units;
pub mod verify;

/// What the peer is told.
pub const VERSION: &str = concat!("wharf ", env!("CARGO_PKG_VERSION"));
