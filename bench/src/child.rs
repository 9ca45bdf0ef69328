//! The lab as its own child: a server, a crowd, or the step between that makes a child end with the lab.

use crate::scenario::{blocked, queue};
use crate::{builds, load, process, server};
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
    /// Measures a turn for each line of its standard input, for a lab that compares two builds
    Turns {
        #[command(subcommand)]
        of: Turns,
    },
    /// Holds connections that do nothing
    Crowd { address: SocketAddr, count: usize },
}

#[derive(Subcommand)]
enum Turns {
    /// `queue`: posts and gets of one thread
    QueueOneThread { count: usize },
    /// `queue`: a burst
    QueueBurst { producers: usize, consumers: usize, batch: usize, count: usize },
    /// `queue`: one packet at a time
    QueueSparse { consumers: usize, count: usize },
    /// `blocked`: sleepers beside a flow
    BlockedFlow { limit: usize, sleepers: usize, trials: usize },
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
        What::Turns { of } => turns(&of),
        What::Crowd { address, count } => load::crowd::hold(address, count),
    }
}

fn turns(of: &Turns) -> io::Result<()> {
    match *of {
        Turns::QueueOneThread { count } => {
            let port = queue::one_port()?;
            builds::take_turns(|| Ok(vec![queue::one_thread_turn(count, &port)]))
        }
        Turns::QueueBurst { producers, consumers, batch, count } => {
            builds::take_turns(|| Ok(vec![queue::burst_turn(producers, consumers, batch, count)?]))
        }
        Turns::QueueSparse { consumers, count } => {
            builds::take_turns(|| Ok(vec![queue::sparse_turn(consumers, count)?]))
        }
        Turns::BlockedFlow { limit, sleepers, trials } => {
            let mut flow = blocked::Flow::new(limit, sleepers);
            builds::take_turns(|| Ok(flow.turn(trials)?.into()))
        }
    }
}
