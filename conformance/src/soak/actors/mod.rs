//! Who uses the port during a soak, a file for each. An actor issues operations, checks what their packets bring, and
//! goes on until the round ends.

mod acceptor;
mod downloader;
mod echo_client;
mod echo_server;
mod librarian;
mod pinger;
mod pong;
mod poster;
mod shower;
mod sleeper;
mod watchman;
mod waverer;

pub(super) use sleeper::PANIC;

use crate::soak::stage::Stage;
use std::io;
use std::sync::Arc;

/// Puts everybody on.
pub(super) fn begin(stage: &Arc<Stage>) -> io::Result<()> {
    let echo = acceptor::Acceptor::open(stage, false)?;
    let download = acceptor::Acceptor::open(stage, true)?;
    let pong = pong::Pong::open(stage)?;
    for _ in 0..12 {
        echo_client::EchoClient::enter(stage, echo);
    }
    for number in 0..3 {
        downloader::Downloader::enter(stage, download);
        pinger::Pinger::enter(stage, pong);
        librarian::Librarian::enter(stage, number)?;
        sleeper::Sleeper::enter(stage);
    }
    for _ in 0..4 {
        poster::Poster::enter(stage);
        watchman::Watchman::enter(stage);
        waverer::Waverer::enter(stage)?;
    }
    Ok(())
}
