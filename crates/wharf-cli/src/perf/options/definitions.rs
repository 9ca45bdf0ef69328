//! The options of `wharf perf`: iperf3's letters where it has them.

use super::values::*;
use clap::{Args, Subcommand};
use std::path::PathBuf;
use wharf_perf::client::KeepAlive;
use wharf_perf::protocol::parameters;
use wharf_perf::report::units::{Format, parse_bytes, parse_rate};
use wharf_perf::server;

/// Network measurement, compatible with iperf3.
#[derive(Debug, Subcommand)]
pub enum Perf {
    /// Measure with whoever comes: `wharf perf run`, or stock iperf3 clients
    Serve(Box<Serve>),
    /// Measure against a server: `wharf perf serve`, or a stock iperf3 server
    Run(Box<Run>),
}

/// What both ends have.
#[derive(Args, Clone, Debug)]
pub struct Common {
    /// Port of control connection, streams and datagrams
    #[arg(short, long, value_name = "PORT", default_value_t = 5201)]
    pub port: u16,
    /// Seconds between reports; 0: only the end
    #[arg(short, long, value_name = "SECONDS", default_value_t = 1.0, value_parser = parse_interval)]
    pub interval: f64,
    /// Unit of rates: k, m, g, t bits, or K, M, G, T bytes
    #[arg(short, long, value_name = "UNIT", value_parser = Format::parse)]
    pub format: Option<Format>,
    /// Use this local address, or address%device
    #[arg(short = 'B', long, value_name = "ADDRESS")]
    pub bind: Option<String>,
    /// Use this network device
    #[arg(long, value_name = "DEVICE")]
    pub bind_dev: Option<String>,
    /// Only IPv4
    #[arg(short = '4', long = "version4", conflicts_with = "six")]
    pub four: bool,
    /// Only IPv6
    #[arg(short = '6', long = "version6")]
    pub six: bool,
    /// Run on this processor; "n,m": n here, m at the server
    #[arg(short = 'A', long, value_name = "N[,M]", value_parser = parse_affinity)]
    pub affinity: Option<(Option<u32>, Option<u32>)>,
    /// Say more in the report
    #[arg(short = 'V', long = "details")]
    pub details: bool,
    /// One JSON object, with iperf3's keys
    #[arg(short = 'J', long)]
    pub json: bool,
    /// One JSON object a line, while the test runs
    #[arg(long)]
    pub json_stream: bool,
    /// With --json-stream, the whole object at the end, too
    #[arg(long)]
    pub json_stream_full_output: bool,
    /// Reports and errors go to the end of this file
    #[arg(long, value_name = "FILE")]
    pub logfile: Option<PathBuf>,
    /// Flush after each line (reports are always flushed)
    #[arg(long)]
    pub forceflush: bool,
    /// The time in front of each line, in strftime's words
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "%c ")]
    pub timestamps: Option<String>,
    /// Write the process's number to this file
    #[arg(short = 'I', long, value_name = "FILE")]
    pub pidfile: Option<PathBuf>,
    /// A receiver that gets nothing for MS milliseconds gives up
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=86_400_000))]
    pub rcv_timeout: Option<u64>,
    /// What `start.version` of the JSON says, for programs that insist on "iperf 3.x"
    #[arg(long, value_name = "TEXT")]
    pub json_version: Option<String>,
    /// Processor seconds for a gigabyte and for a million packets, of both ends
    #[arg(long)]
    pub cpu: bool,
    /// What tells which sockets are ready (epoll, poll) and, with -F, what waits for the disk (io_uring, threads); of
    /// `run` a list, or all: a test with each, and a table
    #[arg(long, value_name = "NAME,...", default_value = "auto", value_delimiter = ',', value_parser = parse_engine)]
    pub engine: Vec<String>,
    /// Send this file, or put there what is received: of one TCP stream
    #[arg(short = 'F', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// When a silent peer is asked on the control connection, and given up: seconds, seconds, questions [default:
    /// 60/10/3]
    #[arg(long, value_name = "IDLE/INTERVAL/COUNT", num_args = 0..=1, require_equals = true, default_missing_value = "", value_parser = parse_keep_alive)]
    pub cntl_ka: Option<KeepAlive>,
    #[command(flatten)]
    pub missing: Missing,
    /// Threads [default: twice the concurrency]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: Option<u16>,
    /// Threads that may run at the same time [default: the processors]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: Option<u16>,
}

/// What iperf3 has and this has not: taken, so that it is refused with a sentence that says so.
#[derive(Args, Clone, Debug)]
pub struct Missing {
    #[arg(long, hide = true)]
    pub sctp: bool,
    #[arg(short, long, hide = true)]
    pub mptcp: bool,
    #[arg(long, hide = true, value_name = "NAME")]
    pub username: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    pub rsa_public_key_path: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    pub rsa_private_key_path: Option<String>,
    #[arg(long, hide = true, value_name = "FILE")]
    pub authorized_users_path: Option<String>,
}

/// See [`Perf::Serve`].
#[derive(Args, Clone, Debug)]
pub struct Serve {
    #[command(flatten)]
    pub common: Common,
    /// One test, and then the end
    #[arg(short = '1', long)]
    pub one_off: bool,
    /// Go on in the background once it listens; what it says then goes to --logfile, or nowhere
    #[arg(short = 'D', long)]
    pub daemon: bool,
    /// With -1: end when no test came for SECONDS seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub idle_timeout: Option<u64>,
    /// Tests at a time; further clients hear "busy"
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub max_clients: u16,
    /// Refuse tests of more streams, both directions together
    #[arg(long, value_name = "COUNT", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_streams: u16,
    /// Refuse longer tests
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    pub server_max_duration: Option<u64>,
    /// Refuse faster tests, and end those that are: bits a second of all streams together, averaged over 5 s or as many
    /// as said
    #[arg(long, value_name = "RATE[/SECONDS]", value_parser = parse_limit)]
    pub server_bitrate_limit: Option<(u64, u64)>,
    /// Largest parameter block taken from a client
    #[arg(long, value_name = "BYTES", default_value = "64K", value_parser = parse_bytes)]
    pub max_parameters: u64,
    /// What the cookie of a connection may take, and then its parameters: milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub handshake_timeout: u64,
    /// What all streams of a test may take, and then its results: milliseconds
    #[arg(long, value_name = "MS", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub setup_timeout: u64,
    /// Connections that may be silent about what they want, at a time
    #[arg(long, value_name = "COUNT", default_value_t = server::PENDING_MAX as u16, value_parser = clap::value_parser!(u16).range(1..))]
    pub max_pending: u16,
}

/// See [`Perf::Run`].
#[derive(Args, Clone, Debug)]
pub struct Run {
    /// The server
    #[arg(value_name = "HOST")]
    pub host: String,
    #[command(flatten)]
    pub common: Common,
    /// Settings from a JSON or TOML file: long option names as keys; what is said here overrides them
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// UDP
    #[arg(short, long)]
    pub udp: bool,
    /// Seconds [default: 10]; 0: until Ctrl+C
    #[arg(short, long, value_name = "SECONDS", conflicts_with_all = ["bytes", "blockcount"], value_parser = clap::value_parser!(u64).range(0..=parameters::SECONDS_MAX))]
    pub time: Option<u64>,
    /// Bytes to move, instead of a time
    #[arg(short = 'n', long, value_name = "SIZE", conflicts_with = "blockcount", value_parser = parse_bytes)]
    pub bytes: Option<u64>,
    /// Blocks or datagrams to move, instead of a time
    #[arg(short = 'k', long, value_name = "COUNT", value_parser = parse_bytes)]
    pub blockcount: Option<u64>,
    /// Bytes of a block or datagram [default: 128K; UDP: the connection's segment size]
    #[arg(short, long, value_name = "SIZE", value_parser = parse_bytes)]
    pub length: Option<u64>,
    /// Bits a second of each stream, and blocks in a burst [default: unlimited; UDP: 1M]
    #[arg(short, long, value_name = "RATE[/BURST]", value_parser = parse_bitrate)]
    pub bitrate: Option<(Option<u64>, u64)>,
    /// Microseconds between the starts of two blocks, whatever their size (wharf as sender)
    #[arg(long, value_name = "US", value_parser = clap::value_parser!(u64).range(0..=parameters::SEND_INTERVAL_US_MAX))]
    pub send_interval_us: Option<u64>,
    /// Let the kernel pace each stream: bits a second
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub fq_rate: Option<u64>,
    /// Taken for iperf3's sake; sleeps are exact here
    #[arg(long, value_name = "US")]
    pub pacing_timer: Option<u64>,
    /// Streams in each direction
    #[arg(short = 'P', long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=128))]
    pub parallel: u16,
    /// The server sends
    #[arg(short = 'R', long, conflicts_with = "bidir")]
    pub reverse: bool,
    /// Both send at the same time
    #[arg(long)]
    pub bidir: bool,
    /// First the client sends, then the server, in one session if the server is wharf; both ends' figures side by side
    #[arg(long, conflicts_with_all = ["bidir", "reverse", "file"])]
    pub two_phase: bool,
    /// Socket buffers
    #[arg(short, long, value_name = "SIZE", value_parser = parse_bytes)]
    pub window: Option<u64>,
    /// Largest segment of TCP
    #[arg(short = 'M', long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=i64::from(parameters::MSS_MAX)))]
    pub set_mss: Option<u32>,
    /// Send small pieces at once
    #[arg(short = 'N', long)]
    pub no_delay: bool,
    /// TCP's congestion control
    #[arg(short = 'C', long, value_name = "NAME")]
    pub congestion: Option<String>,
    /// Type of service; 0x and 0 in front mean hexadecimal and octal
    #[arg(short = 'S', long, value_name = "N", conflicts_with = "dscp", value_parser = parse_tos)]
    pub tos: Option<u32>,
    /// The same as DSCP: 0 to 63, or a name such as ef, af11, cs1
    #[arg(long, value_name = "DSCP", value_parser = parse_dscp)]
    pub dscp: Option<u32>,
    /// IPv6's flow label of what this end sends: 1 to 1048575, 0x in front means hexadecimal
    #[arg(short = 'L', long, value_name = "N", value_parser = parse_label)]
    pub flowlabel: Option<u32>,
    /// Seconds at the start that do not count
    #[arg(short = 'O', long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=parameters::OMIT_SECONDS_MAX))]
    pub omit: u64,
    /// In front of each line
    #[arg(short = 'T', long, value_name = "TEXT")]
    pub title: Option<String>,
    /// Text for the JSON report
    #[arg(long, value_name = "TEXT")]
    pub extra_data: Option<String>,
    /// The server's report, too
    #[arg(long)]
    pub get_server_output: bool,
    /// UDP sequence numbers of 64 bits
    #[arg(long)]
    pub udp_counters_64bit: bool,
    /// Digits instead of random bytes
    #[arg(long)]
    pub repeating_payload: bool,
    /// IPv4 datagrams must not be cut
    #[arg(long)]
    pub dont_fragment: bool,
    /// Asks a stock server to segment and join in the kernel; this end always does where it can
    #[arg(long)]
    pub gsro: bool,
    /// Asks a stock server to send from a file; this end sends as it always does, which is cheaper
    #[arg(short = 'Z', long)]
    pub zerocopy: bool,
    /// Asks a stock server to throw away in the kernel; this end receives as always
    #[arg(long)]
    pub skip_rx_copy: bool,
    /// The first stream's own port
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub cport: u16,
    /// For the control connection
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub connect_timeout: Option<u64>,
    /// Unacknowledged data breaks a stream after MS milliseconds
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..))]
    pub snd_timeout: Option<u64>,
    /// Number and checksum in each block, looked at by the receiver; both ends have to be wharf
    #[arg(long)]
    pub verify: bool,
    /// Pings beside the streams: p50, p99, p99.9; the server has to be wharf
    #[arg(long)]
    pub latency: bool,
    /// Curves of throughput, retransmissions and round trips
    #[arg(long, value_name = "FILE.svg")]
    pub plot: Option<PathBuf>,
    /// So many tests, and a summary
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub repeat: u32,
    /// Seconds between two of them
    #[arg(long, value_name = "SECONDS", default_value_t = 0.0, value_parser = parse_pause)]
    pub pause: f64,
    /// Exit with 1 if less arrives: bits a second
    #[arg(long, value_name = "RATE", value_parser = parse_rate)]
    pub fail_under: Option<u64>,
    /// Exit with 1 if more is lost: percent of the datagrams
    #[arg(long, value_name = "PERCENT", value_parser = parse_percent)]
    pub fail_loss: Option<f64>,
}

/// `wharf perf run` with these arguments, for tests.
#[cfg(test)]
pub(super) fn of_arguments(arguments: &[&str]) -> Result<Run, String> {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        run: Run,
    }
    let line = ["wharf perf run"].iter().chain(arguments);
    <Line as clap::Parser>::try_parse_from(line).map(|line| line.run).map_err(|error| error.to_string())
}
