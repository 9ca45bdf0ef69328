//! What can be said on the command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use wharf::Workers;
use wharf::session::{Builder, Service, SlowConsumer};

/// The least outbox. The servers' own messages fit into it, and the echo of what arrives while it is half full: those
/// are at most the port's receive buffer (16 KiB) and an unfinished line (8 KiB).
const OUTBOX_BYTES_MIN: u64 = 64 * 1024;

/// Servers and clients on an I/O completion port.
#[derive(Debug, Parser)]
#[command(name = "wharf", version, about, max_term_width = 110)]
pub struct Options {
    /// Say more (-v, -vv, -vvv); RUST_LOG overrides it
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a server; Ctrl+C ends it cleanly
    #[command(subcommand)]
    Serve(Serve),
    /// Talk to a chat server; plain lines when not on a terminal
    Chat(Client),
}

#[derive(Debug, Subcommand)]
pub enum Serve {
    /// Every line goes to everybody; nc or telnet is client enough
    Chat(Server),
    /// What comes goes back
    Echo(Server),
    /// What comes is thrown away
    Discard(Server),
}

#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Where to listen; 0.0.0.0:25000 serves others, port 0 takes any free one
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:25000")]
    pub listen: String,
    /// Threads that serve; more are started while all are blocked [default: twice the concurrency]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: Option<u16>,
    /// Threads that may run at the same time [default: the processors]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: Option<u16>,
    /// Sessions at a time; further connections are closed at once
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_sessions: Option<u32>,
    /// Bytes that may wait for one session, 65536 or more
    #[arg(long, value_name = "BYTES", default_value_t = 1024 * 1024, value_parser = clap::value_parser!(u64).range(OUTBOX_BYTES_MIN..))]
    pub outbox: u64,
    /// What happens to a session whose outbox is full
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Policy::Disconnect)]
    pub slow_consumer: Policy,
    /// Print figures every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub stats: Option<u32>,
}

/// [`SlowConsumer`] as words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Policy {
    /// It ends
    Disconnect,
    /// Its oldest messages are dropped
    DropOldest,
    /// Whoever sends to it waits
    Wait,
}

#[derive(Args, Debug)]
pub struct Client {
    /// The server
    #[arg(value_name = "HOST:PORT")]
    pub server: String,
}

impl Server {
    /// The service these options describe.
    pub fn service(&self) -> Builder {
        let policy = match self.slow_consumer {
            Policy::Disconnect => SlowConsumer::Disconnect,
            Policy::DropOldest => SlowConsumer::DropOldest,
            Policy::Wait => SlowConsumer::Wait,
        };
        let mut builder = Service::builder()
            .concurrency(self.concurrency.map_or(0, usize::from))
            .outbox(usize::try_from(self.outbox).unwrap_or(usize::MAX), policy);
        if let Some(workers) = self.workers {
            builder = builder.workers(Workers::new(workers.into()));
        }
        if let Some(sessions) = self.max_sessions {
            builder = builder.max_sessions(sessions as usize);
        }
        builder
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_options_contradict_each_other_nowhere() {
        Options::command().debug_assert();
    }
}
