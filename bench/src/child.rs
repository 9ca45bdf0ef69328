//! The lab as its own child: a server, a crowd, or the step between that makes a child end with the lab.

use crate::{load, process, server};
use clap::{Parser, Subcommand};
use std::io;
use std::net::SocketAddr;

#[derive(Parser)]
struct Options {
    #[command(subcommand)]
    child: Child,
}

#[derive(Subcommand)]
enum Child {
    #[command(hide = true)]
    Child {
        #[command(subcommand)]
        what: What,
    },
}

#[derive(Subcommand)]
enum What {
    /// Becomes a program, which the kernel ends when the lab does
    Launch {
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// Serves
    Serve(server::Serve),
    /// Holds connections that do nothing
    Crowd { address: SocketAddr, count: usize },
}

pub fn run() -> io::Result<()> {
    if std::env::args().nth(2).as_deref() == Some("serve") {
        server::heap::count();
    }
    let Child::Child { what } = Options::parse().child;
    match what {
        What::Launch { command } => process::launch(&command),
        What::Serve(options) => {
            crate::machine::allow_descriptors();
            server::serve(&options)
        }
        What::Crowd { address, count } => load::crowd::hold(address, count),
    }
}
