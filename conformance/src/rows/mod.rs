//! The rows, by group. Each file has a table, and the functions that decide its rows.

mod accept;
mod apart;
mod cancel;
mod concurrency;
mod connect;
mod datagram;
mod dequeue;
mod driven;
mod files;
mod flow;
mod kinds;
mod operations;
mod port;
mod receive;
mod related;
mod send;
mod transmit;

use crate::kit::Bench;
use crate::row::{How, Row};
use crate::setting::{Setting, Where};

pub use apart::APART;
pub use concurrency::{Peaks, peaks};

/// Every row, in the order of the specification.
pub fn all() -> Vec<Row> {
    let groups = [
        port::ROWS,
        dequeue::ROWS,
        concurrency::ROWS,
        operations::ROWS,
        receive::ROWS,
        send::ROWS,
        datagram::ROWS,
        accept::ROWS,
        connect::ROWS,
        transmit::ROWS,
        files::ROWS,
        cancel::ROWS,
        related::ROWS,
    ];
    groups.concat()
}

/// A difference that is not one everywhere, in the setting where it is one.
pub struct Apart {
    pub row: &'static str,
    pub at: Where,
    /// What is done there.
    pub here: &'static str,
    /// Panics when that is not done.
    pub shown: fn(&Bench),
}

/// How the row is decided in this setting, if not as everywhere.
pub fn apart(id: &str, setting: Setting) -> Option<How> {
    let found = APART.iter().find(|apart| apart.row == id && apart.at.is(setting));
    found.map(|apart| How::Differs { here: apart.here, shown: apart.shown, alone: true })
}

/// A part of a row that runs in a process of its own.
pub fn child(part: &str) -> Option<fn(&Bench)> {
    Some(match part {
        "fork" => port::fork,
        "no-port" => port::none_left,
        "no-descriptors" => operations::no_descriptors,
        "sigpipe" => send::sigpipe,
        "exit" => cancel::exit,
        _ => return None,
    })
}
