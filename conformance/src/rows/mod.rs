//! The rows, by group. Each file has a table, and the functions that decide its rows.

mod accept;
mod cancel;
mod concurrency;
mod connect;
mod datagram;
mod dequeue;
mod files;
mod operations;
mod port;
mod receive;
mod related;
mod send;
mod transmit;

use crate::kit::Bench;
use crate::row::Row;

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

/// A part of a row that runs in a process of its own.
pub fn child(part: &str) -> Option<fn(&Bench)> {
    Some(match part {
        "fork" => port::fork,
        "no-descriptors" => operations::no_descriptors,
        "sigpipe" => send::sigpipe,
        "exit" => cancel::exit,
        _ => return None,
    })
}
