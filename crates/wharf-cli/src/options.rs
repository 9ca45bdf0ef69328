//! What can be said on the command line.

use crate::tls;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;
use wharf::Workers;
use wharf_session::{Rate, Service, ServiceOptions, SlowConsumer};

/// The least outbox. The servers' own messages fit into it, and the echo of what arrives while it is half full: those
/// are at most the port's receive buffer (16 KiB) and an unfinished line (8 KiB).
const OUTBOX_BYTES_MIN: u64 = 64 * 1024;

/// The least memory for all sessions: some receives of every worker, with their answers.
const MEMORY_BYTES_MIN: u64 = 1024 * 1024;

/// The largest block of a copy: the kernel moves a page less than 2 GiB at a time.
const BLOCK_BYTES_MAX: usize = 1 << 30;

/// A week: who wants to wait for longer wants no limit.
const SECONDS_MAX: f64 = 7.0 * 24.0 * 3600.0;

/// Servers, clients and copies on an I/O completion port.
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
    /// Forward connections to another address, both ways; Ctrl+C ends it
    Relay(Relay),
    /// Copy a file or a tree, with several blocks under way at a time
    ///
    /// Contents, permissions and holes are copied, and links inside a tree are kept as links. No link inside of either
    /// tree is followed, also not where the copy has one in the place of a file or directory: that is an error. Owners,
    /// times and set-user-ID bits are not kept. What of a tree cannot be copied is told and left out; the exit code is
    /// then 1. Of a source that grows meanwhile, what is there when its end is reached is copied. Ctrl+C ends it when
    /// the blocks that are under way are written, but after 3 seconds, and says what is left; what was copied stays,
    /// however it was interrupted, and --resume continues it. A second Ctrl+C ends it at once. Memory is --depth times
    /// --block at most, twice that with --verify or --resume, and the names of the directories that are being read.
    Copy(Copy),
    /// Tell what this machine offers, and which limits will bite
    Doctor(Doctor),
    /// Measure the network, with wharf or iperf3 at the other end
    #[command(subcommand)]
    Perf(crate::perf::Perf),
}

#[derive(Debug, Subcommand)]
pub enum Serve {
    /// Every line goes to everybody; nc or telnet is client enough
    Chat(Server),
    /// What comes goes back
    Echo(Server),
    /// What comes is thrown away
    Discard(Server),
    /// A directory over HTTP/1.1, for GET and HEAD
    ///
    /// Ranges, conditions (ETag, If-Modified-Since and the like), index.html, keep-alive and pipelining are served.
    /// Nothing outside of DIRECTORY is, wherever symbolic links lead; nor is what is no regular file, nor, without
    /// --hidden, any name that begins with a dot. Of several ranges at once the whole file is sent.
    Files(Files),
}

/// How much at a time, and whether to tell: what everything that serves connections has in common.
#[derive(Args, Clone, Debug)]
pub struct Load {
    /// Threads that serve; more are started while all are blocked [default: twice the concurrency]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub workers: Option<u16>,
    /// Threads that may run at the same time [default: the processors]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrency: Option<u16>,
    /// Connections at a time; further ones are closed at once
    #[arg(long, visible_alias = "max-connections", value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_sessions: Option<u32>,
    /// Print figures every SECONDS seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub stats: Option<u32>,
}

impl Load {
    /// How many connections there may be at a time.
    pub fn connections(&self) -> usize {
        self.max_sessions.map_or(usize::MAX, |most| most as usize)
    }
}

/// How a server ends whose connections may last.
#[derive(Args, Clone, Debug)]
pub struct Ending {
    /// When told to end, take no more connections, and give the present ones SECONDS seconds to end by themselves
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub drain: Option<u32>,
}

impl Ending {
    pub fn drain(&self) -> Option<Duration> {
        self.drain.map(|seconds| Duration::from_secs(seconds.into()))
    }
}

#[derive(Args, Clone, Debug)]
pub struct Server {
    /// Where to listen; 0.0.0.0:25000 serves others, port 0 takes any free one, unix:PATH is a Unix socket
    ///
    /// Sockets that the program is started with (systemd's LISTEN_FDS) are used instead.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:25000")]
    pub listen: String,
    #[command(flatten)]
    pub load: Load,
    /// Bytes that may wait for one session, 64K or more; K, M and G stand for 1024 and its powers
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_outbox)]
    pub outbox: u64,
    /// What happens to a session whose outbox is full
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = Policy::Disconnect)]
    pub slow_consumer: Policy,
    /// Bytes that may wait for all sessions together, 1M or more; K, M and G stand for 1024 and its powers [default: no
    /// limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_memory)]
    pub memory_limit: Option<usize>,
    /// Bytes a second that are received from each connection; whoever sends more has to wait [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_rate)]
    pub rate_limit: Option<u64>,
    /// Bytes that may come at once after a pause [default: what comes in a second]
    #[arg(long, value_name = "SIZE", value_parser = parse_rate, requires = "rate_limit")]
    pub rate_burst: Option<u64>,
    /// Close connections that send and take nothing for SECONDS seconds [default: never]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub idle_timeout: Option<u32>,
    #[command(flatten)]
    pub ending: Ending,
    #[command(flatten)]
    pub tls: tls::ServerOptions,
}

/// See [`Serve::Files`].
#[derive(Args, Clone, Debug)]
pub struct Files {
    /// What is served
    pub directory: PathBuf,
    /// Where to listen; 0.0.0.0:8000 serves others, port 0 takes any free one
    ///
    /// Sockets that the program is started with (systemd's LISTEN_FDS) are used instead.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8000")]
    pub listen: String,
    #[command(flatten)]
    pub load: Load,
    /// List directories that have no index.html
    #[arg(long)]
    pub list: bool,
    /// Serve names that begin with a dot, too
    #[arg(long)]
    pub hidden: bool,
    /// Seconds in which a request has to arrive, from its first byte, or from the connection's beginning, on
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = parse_seconds)]
    pub header_timeout: Duration,
    /// Seconds that a connection may wait for its next request
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub idle_timeout: Duration,
    /// Seconds in which a client has to take what is sent, or each MiB of it
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = parse_seconds)]
    pub send_timeout: Duration,
    /// Append a line for each request, in the common log format, to this file; - is the standard output
    #[arg(long, value_name = "FILE")]
    pub access_log: Option<PathBuf>,
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
    /// The server; unix:PATH for one on a Unix socket
    #[arg(value_name = "HOST:PORT")]
    pub server: String,
    #[command(flatten)]
    pub tls: tls::ClientOptions,
}

/// See [`Command::Copy`].
#[derive(Args, Clone, Debug)]
pub struct Copy {
    /// What to copy
    pub source: PathBuf,
    /// The copy; if SOURCE is a file and this is a directory, the file keeps its name there
    pub target: PathBuf,
    /// Copy a directory: what it holds goes into TARGET
    #[arg(short, long)]
    pub recursive: bool,
    /// Blocks, or small files, that are under way at a time
    #[arg(long, value_name = "COUNT", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub depth: u16,
    /// Bytes of a block; K, M and G stand for 1024 and its powers
    #[arg(long, value_name = "SIZE", default_value = "1M", value_parser = parse_block)]
    pub block: usize,
    /// Read source and copy again, and compare; with --sync the copy comes from the disk and not from the cache
    #[arg(long)]
    pub verify: bool,
    /// Continue a copy that was interrupted; what is there must equal the source, or be zeros
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Have everything on the disk before it ends
    #[arg(long)]
    pub sync: bool,
    /// Overwrite what exists
    #[arg(long)]
    pub force: bool,
    /// Go around the cache (O_DIRECT)
    #[arg(long)]
    pub direct: bool,
}

#[derive(Args, Debug)]
pub struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Bytes, with or without a letter.
fn parse_size(text: &str) -> Option<u64> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    digits.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift))
}

fn parse_block(text: &str) -> Result<usize, String> {
    match parse_size(text).and_then(|bytes| usize::try_from(bytes).ok()) {
        Some(bytes @ 1..=BLOCK_BYTES_MAX) => Ok(bytes),
        _ => Err("give a number of bytes up to 1G, such as 65536, 64K or 1M".into()),
    }
}

/// Seconds, with a fraction if wanted.
fn parse_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=SECONDS_MAX).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("give a number of seconds from 0.001 up to a week, such as 10 or 0.5".into()),
    }
}

fn parse_memory(text: &str) -> Result<usize, String> {
    match parse_size(text) {
        Some(bytes @ MEMORY_BYTES_MIN..) => Ok(usize::try_from(bytes).unwrap_or(usize::MAX)),
        _ => Err("give a number of bytes from 1M on, such as 64M or 2G".into()),
    }
}

fn parse_outbox(text: &str) -> Result<u64, String> {
    match parse_size(text) {
        Some(bytes @ OUTBOX_BYTES_MIN..) => Ok(bytes),
        _ => Err("give a number of bytes from 64K on, such as 256K or 4M".into()),
    }
}

fn parse_rate(text: &str) -> Result<u64, String> {
    match parse_size(text) {
        Some(bytes @ 1..) => Ok(bytes),
        _ => Err("give a number of bytes, such as 64K or 10M".into()),
    }
}

#[derive(Args, Clone, Debug)]
pub struct Relay {
    /// Where to listen; 0.0.0.0:PORT serves others, port 0 takes any free one
    ///
    /// Sockets that the program is started with (systemd's LISTEN_FDS) are used instead.
    #[arg(value_name = "LISTEN")]
    pub listen: String,
    /// Where to forward to; of a name's addresses the first that answers is taken
    #[arg(value_name = "TARGET")]
    pub target: String,
    #[command(flatten)]
    pub load: Load,
    #[command(flatten)]
    pub ending: Ending,
}

impl Server {
    /// The service these options describe.
    pub fn service(&self) -> ServiceOptions {
        let policy = match self.slow_consumer {
            Policy::Disconnect => SlowConsumer::Disconnect,
            Policy::DropOldest => SlowConsumer::DropOldest,
            Policy::Wait => SlowConsumer::Wait,
        };
        let mut options = Service::options()
            .concurrency(self.load.concurrency.map_or(0, usize::from))
            .outbox(usize::try_from(self.outbox).unwrap_or(usize::MAX), policy);
        if let Some(workers) = self.load.workers {
            options = options.workers(Workers::new(workers.into()));
        }
        if let Some(sessions) = self.load.max_sessions {
            options = options.max_sessions(sessions as usize);
        }
        if let Some(bytes) = self.memory_limit {
            options = options.memory_limit(bytes);
        }
        if let Some(per_second) = self.rate_limit {
            options = options.rate_limit(Rate::bytes(per_second, self.rate_burst.unwrap_or(per_second)));
        }
        if let Some(seconds) = self.idle_timeout {
            options = options.idle_timeout(Duration::from_secs(seconds.into()));
        }
        options
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

    #[test]
    fn times_are_given_in_seconds() {
        assert_eq!(parse_seconds("10"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_seconds("0.25"), Ok(Duration::from_millis(250)));
        for text in ["", "0", "-1", "1s", "inf", "nan", "1e9"] {
            assert!(parse_seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn memory_and_rates_are_given_in_bytes_or_with_a_letter() {
        assert_eq!(parse_memory("64M"), Ok(64 << 20));
        assert_eq!(parse_memory("1048576"), Ok(1 << 20));
        assert_eq!(parse_rate("1"), Ok(1));
        assert_eq!(parse_rate("10k"), Ok(10 << 10));
        for text in ["", "0", "1023K", "-1M", "1.5G", "99999999999G"] {
            assert!(parse_memory(text).is_err(), "{text}");
        }
        for text in ["", "0", "0K", "-1", "64Kbit"] {
            assert!(parse_rate(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_block_is_given_in_bytes_or_with_a_letter() {
        for (text, bytes) in [("1", 1), ("4096", 4096), ("64K", 65536), ("3m", 3 << 20), ("1G", 1 << 30)] {
            assert_eq!(parse_block(text), Ok(bytes), "{text}");
        }
        for text in ["", "0", "K", "-1", "1.5M", "2G", "1T", "1073741825", "99999999999999999999G", "é"] {
            assert!(parse_block(text).is_err(), "{text}");
        }
    }
}
