//! iperf3's protocol as bytes and values: no socket, no thread and no clock is in this folder.
//!
//! | File | What it knows |
//! |---|---|
//! | `words`, [`Cookie`], [`Failure`] | single words: states, error codes, what names a test |
//! | [`Decoder`] | where the next word, frame or pair of numbers is in a stream of bytes |
//! | [`parameters`], [`results`], [`datagram`] | what the frames and the datagrams hold |
//! | [`client`], [`server`] | the control connection of each end: bytes in, actions out |

pub mod client;
mod cookie;
pub mod datagram;
mod decoder;
pub(crate) mod errno;
mod failure;
pub mod json;
pub mod parameters;
pub mod results;
pub mod server;
mod words;

pub use cookie::{COOKIE_BYTES, Cookie};
pub use decoder::{BadFrame, Decoder, frame};
pub use failure::{Failure, code, describe};
pub use words::{DEFAULT_PORT, VERSION, state};
