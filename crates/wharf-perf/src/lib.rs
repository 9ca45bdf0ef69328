//! **Network measurement on the completion port**, compatible with iperf3 on the wire, in both roles.
//!
//! The folders stand one on the other; each names only those above it in this table.
//!
//! | Folder | What it knows |
//! |---|---|
//! | [`protocol`] | iperf3's words: bytes in, values and actions out, no sockets |
//! | [`measure`] | what is counted, when it counts, when the next block may go, and what is in it |
//! | `surroundings` | the port, sockets, files, what only the system can say, processor time |
//! | [`report`] | rows, sums and totals, as people and programs see them; curves |
//! | `stream` | the data path: each stream with one operation outstanding |
//! | `session` | a test at one end: what client and server do alike |
//! | [`client`], [`server`] | the tests themselves, on one [`wharf::CompletionPort`] |
//!
//! In the engine everything is a packet of one port: the control connection, the streams, datagrams, timers and
//! signals. No stream has a thread; as many workers as the machine has processors take whatever has completed.

pub mod client;
pub mod measure;
pub mod protocol;
pub mod report;
pub mod server;
mod session;
mod stream;
mod surroundings;
