//! The options of `wharf perf`: iperf3's letters where it has them.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, parser::ValueSource};
use serde_json::Value;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use wharf::{FileEngine, SocketEngine};
use wharf_perf::client::{KeepAlive, Machinery};
use wharf_perf::output::Form;
use wharf_perf::parameters::{self, Parameters, Protocol};
use wharf_perf::units::{Format, parse_bytes, parse_rate};
use wharf_perf::{client, server};

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
    /// A receiver that gets nothing for so many milliseconds gives up
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u64).range(100..=86_400_000))]
    pub rcv_timeout: Option<u64>,
    /// What `start.version` of the JSON says, for programs that insist on "iperf 3.x"
    #[arg(long, value_name = "TEXT")]
    pub json_version: Option<String>,
    /// Processor seconds for a gigabyte and for a million packets, of both ends
    #[arg(long)]
    pub cpu: bool,
    /// What tells which sockets are ready (epoll, poll) and, with -F, what waits for the disk (io_uring, threads); of `run` a list,
    /// or all: a test with each, and a table
    #[arg(long, value_name = "NAME,...", default_value = "auto", value_delimiter = ',', value_parser = parse_engine)]
    pub engine: Vec<String>,
    /// Send this file, or put there what is received: of one TCP stream
    #[arg(short = 'F', long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// When a silent peer is asked on the control connection, and given up: seconds, seconds, questions [default: 60/10/3]
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

impl Missing {
    fn check(&self) -> Result<(), String> {
        let login =
            [&self.username, &self.rsa_public_key_path, &self.rsa_private_key_path, &self.authorized_users_path];
        let sentence = match () {
            () if self.sctp => "SCTP is not there (--sctp); measure with TCP, or with UDP (-u)",
            () if self.mptcp => "multipath TCP is not there (-m); measure with TCP",
            () if login.iter().any(|it| it.is_some()) => {
                "logins with RSA keys are not there (--username, --rsa-…, --authorized-users-path); keep strangers out with -B or \
                 a firewall"
            }
            () => return Ok(()),
        };
        Err(sentence.into())
    }
}

/// A choice of engines, and what it is called.
#[derive(Clone, Debug)]
pub struct Engine {
    pub name: String,
    pub sockets: Option<SocketEngine>,
    pub files: Option<FileEngine>,
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
    /// With -1: end when no test came for so many seconds
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
    /// Refuse faster tests, and end those that are: bits a second of all streams together, averaged over 5 s or as many as said
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
    #[arg(long, value_name = "COUNT", default_value_t = server::GUESTS_MAX as u16, value_parser = clap::value_parser!(u16).range(1..))]
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
    /// Unacknowledged data breaks a stream after so many milliseconds
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

impl Common {
    /// The processor of this end, or the one that the client wishes for the server.
    pub fn processor(&self, here: bool) -> Option<u32> {
        let (ours, theirs) = self.affinity?;
        if here { ours } else { theirs }
    }

    /// The engines to measure with, each once.
    pub fn engines(&self) -> Result<Vec<Engine>, String> {
        let all = self.engine.iter().any(|name| name == "all");
        let named = |name: &str| all || self.engine.iter().any(|it| it == name);
        let (ring, threads) = (named("io_uring"), named("threads"));
        if !all && (ring || threads) && self.file.is_none() {
            return Err("--engine io_uring and threads wait for the disk, which a test without -F does not use; give epoll, poll, \
                        or a file"
                .into());
        }
        let mut sockets = vec![];
        // Of the socket engines, epoll is what `Auto` chooses here.
        sockets.extend(named("epoll").then_some(("epoll", Some(SocketEngine::Auto))));
        sockets.extend(named("poll").then_some(("poll", Some(SocketEngine::Poll))));
        if sockets.is_empty() {
            sockets.push(("", None));
        }
        let mut files = vec![];
        if self.file.is_some() {
            files.extend(ring.then_some(("io_uring", Some(FileEngine::Ring))));
            files.extend(threads.then_some(("threads", Some(FileEngine::Threads))));
        }
        if files.is_empty() {
            files.push(("", None));
        }
        let mut engines = Vec::new();
        for (socket_name, socket) in &sockets {
            for (file_name, file) in &files {
                let names: Vec<&str> = [*socket_name, *file_name].into_iter().filter(|name| !name.is_empty()).collect();
                let name = if names.is_empty() { "auto".into() } else { names.join("+") };
                engines.push(Engine { name, sockets: *socket, files: *file });
            }
        }
        Ok(engines)
    }

    /// Without the engines, of which there may be several.
    fn machinery(&self) -> Machinery {
        Machinery {
            threads: self.workers.map(usize::from),
            concurrency: self.concurrency.map_or(0, usize::from),
            keep_alive: self.cntl_ka.unwrap_or_default(),
            ..Machinery::default()
        }
    }

    fn form(&self) -> Form {
        let default = Form::default();
        Form {
            json: self.json,
            json_stream: self.json_stream || self.json_stream_full_output,
            full: self.json_stream_full_output,
            format: self.format.unwrap_or_default(),
            verbose: self.details,
            cpu: self.cpu,
            version: self.json_version.clone().unwrap_or(default.version),
        }
    }

    /// The report is for programs.
    pub fn is_json(&self) -> bool {
        self.json || self.json_stream || self.json_stream_full_output
    }

    fn family(&self) -> Option<u8> {
        match (self.four, self.six) {
            (true, _) => Some(4),
            (_, true) => Some(6),
            _ => None,
        }
    }

    fn origin(&self) -> Result<client::Origin, String> {
        let (text, device) = match self.bind.as_deref().map(|bind| bind.split_once('%').ok_or(bind)) {
            None => (None, None),
            Some(Ok((address, device))) => (Some(address), Some(device.to_owned())),
            Some(Err(address)) => (Some(address), None),
        };
        let address = match text {
            Some(text) => Some(text.parse::<IpAddr>().map_err(|_| {
                format!("{text:?} is no address of this machine to bind to; give one such as 192.0.2.1 or ::1 with -B")
            })?),
            None => None,
        };
        Ok(client::Origin { address, device: self.bind_dev.clone().or(device) })
    }
}

impl Serve {
    pub fn settings(&self) -> Result<server::Options, String> {
        let common = &self.common;
        common.missing.check()?;
        let origin = common.origin()?;
        let [engine] = &common.engines()?[..] else {
            return Err(
                "a server has one engine for sockets and one for files; compare them with `wharf perf run`".into()
            );
        };
        Ok(server::Options {
            port: common.port,
            address: origin.address,
            device: origin.device,
            family: common.family(),
            one_off: self.one_off,
            idle_timeout: self.idle_timeout.map(Duration::from_secs),
            max_clients: self.max_clients.into(),
            max_seconds: self.server_max_duration,
            // 0 is no limit, as a client's -b 0 is none.
            bitrate_limit: self.server_bitrate_limit.map(|(rate, _)| rate).filter(|rate| *rate > 0),
            bitrate_window: Duration::from_secs(self.server_bitrate_limit.map_or(5, |(_, seconds)| seconds)),
            max_streams: self.max_streams.into(),
            max_parameter_bytes: usize::try_from(self.max_parameters).unwrap_or(usize::MAX),
            max_guests: self.max_pending.into(),
            handshake_timeout: Duration::from_millis(self.handshake_timeout),
            setup_timeout: Duration::from_millis(self.setup_timeout),
            interval: Duration::from_secs_f64(common.interval),
            receive_timeout: Duration::from_millis(common.rcv_timeout.unwrap_or(120_000)),
            form: common.form(),
            machinery: Machinery { socket_engine: engine.sockets, file_engine: engine.files, ..common.machinery() },
            file: common.file.clone(),
        })
    }
}

impl Run {
    pub fn settings(&self) -> Result<client::Options, String> {
        let common = &self.common;
        common.missing.check()?;
        common.engines()?;
        let udp = self.udp;
        let least = if udp { parameters::DATAGRAM_BYTES_MIN } else { 1 };
        let most = if udp { parameters::DATAGRAM_BYTES_MAX } else { parameters::BLOCK_BYTES_MAX };
        let len = match self.length {
            None => 0,
            Some(len) => usize::try_from(len).ok().filter(|len| (least..=most).contains(len)).ok_or_else(|| {
                format!(
                    "-l {len} is out of range: {} blocks have {least} to {most} bytes",
                    if udp { "UDP" } else { "TCP" }
                )
            })?,
        };
        if self.verify && len > 0 && len < wharf_perf::verify::BLOCK_BYTES_MIN {
            let least = wharf_perf::verify::BLOCK_BYTES_MIN;
            return Err(format!("-l {len} is too small for --verify, which needs {least} bytes"));
        }
        let window = self.window.unwrap_or(0);
        if window > parameters::WINDOW_BYTES_MAX as u64 {
            return Err(format!("-w {window} is out of range: at most 512M"));
        }
        let (rate, burst) = self.bitrate.unwrap_or((None, 0));
        let ports = self.parallel * if self.bidir { 2 } else { 1 };
        if self.cport > 0 && self.cport.checked_add(ports - 1).is_none() {
            return Err(format!("--cport {} leaves no ports for {ports} streams; give a lower one", self.cport));
        }
        if let Some(file) = &self.plot {
            // Said before the test, not after it.
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            if folder.is_some_and(|folder| !folder.is_dir()) {
                return Err(format!("{} cannot be written (--plot): there is no such folder", file.display()));
            }
        }
        // An amount of nothing is none, as for iperf3: not a test without an end.
        let (mut bytes, blockcount) =
            (self.bytes.filter(|bytes| *bytes > 0), self.blockcount.filter(|blocks| *blocks > 0));
        if let (Some(file), false, None, None, None) = (&common.file, self.reverse, self.time, bytes, blockcount) {
            // A file ends where it ends. One that cannot be read is the test's failure, and said when it is opened.
            bytes = std::fs::metadata(file).ok().map(|file| file.len().max(1));
        }
        let by_amount = bytes.is_some() || blockcount.is_some();
        let parameters = Parameters {
            protocol: if udp { Protocol::Udp } else { Protocol::Tcp },
            omit: self.omit,
            time: if by_amount { 0 } else { self.time.unwrap_or(10) },
            num: bytes.unwrap_or(0),
            blocks: blockcount.unwrap_or(0),
            mss: self.set_mss.unwrap_or(0),
            nodelay: self.no_delay,
            parallel: self.parallel.into(),
            reverse: self.reverse,
            bidirectional: self.bidir,
            window: window as usize,
            len,
            bandwidth: rate.unwrap_or(if udp && self.send_interval_us.is_none() { parameters::UDP_RATE } else { 0 }),
            fq_rate: self.fq_rate.unwrap_or(0),
            burst,
            tos: self.tos.or(self.dscp.map(|dscp| dscp * 4)).unwrap_or(0),
            flow_label: self.flowlabel.unwrap_or(0),
            title: self.title.clone(),
            extra_data: self.extra_data.clone(),
            congestion: self.congestion.clone(),
            get_server_output: self.get_server_output,
            counters_64bit: self.udp_counters_64bit,
            repeating_payload: self.repeating_payload,
            zerocopy: self.zerocopy,
            dont_fragment: self.dont_fragment,
            skip_rx_copy: self.skip_rx_copy,
            gsro: self.gsro,
            server_affinity: common.processor(false),
            auth_token: None,
            verify: self.verify,
            latency: self.latency,
            send_interval_us: self.send_interval_us.unwrap_or(0),
            two_phase: self.two_phase,
        };
        Ok(client::Options {
            parameters,
            family: common.family(),
            origin: common.origin()?,
            client_port: self.cport,
            connect_timeout: self.connect_timeout.map(Duration::from_millis),
            receive_timeout: Duration::from_millis(common.rcv_timeout.unwrap_or(30_000)),
            send_timeout: self.snd_timeout.map(Duration::from_millis),
            interval: Duration::from_secs_f64(common.interval),
            form: common.form(),
            machinery: common.machinery(),
            file: common.file.clone(),
            ..client::Options::new(self.host.clone(), common.port)
        })
    }
}

/// The command line anew, with the file's settings in front of it.
#[derive(Debug, Parser)]
#[command(name = "wharf perf run", args_override_self = true)]
struct Merged {
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(flatten)]
    run: Run,
}

/// Options of which only one may be given: who says one of them overrides the file's choice.
const EXCLUSIVE: [&[&str]; 3] =
    [&["time", "bytes", "blockcount"], &["reverse", "bidir", "two_phase"], &["tos", "dscp"]];

/// Reads the settings of `--config` and lets the command line override them.
///
/// # Errors
///
/// A sentence that names the file, and the key and value that are wrong.
pub fn with_config(file: &Path) -> Result<Run, String> {
    let text = std::fs::read_to_string(file).map_err(|error| format!("{} cannot be read: {error}", file.display()))?;
    let settings = settings_of(file, &text)?;
    let own: Vec<OsString> = std::env::args_os().skip_while(|argument| argument != "run").skip(1).collect();
    merge(file, &settings, &own)
}

fn settings_of(file: &Path, text: &str) -> Result<serde_json::Map<String, Value>, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let value: Value = match file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
        true => serde_json::from_str(text).map_err(|error| wrong(&error))?,
        false => toml::from_str(text).map_err(|error| wrong(&error))?,
    };
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(wrong(&"the settings have to be one object, with long option names as keys")),
    }
}

fn merge(file: &Path, settings: &serde_json::Map<String, Value>, own: &[OsString]) -> Result<Run, String> {
    let command = Merged::command();
    let name = || std::iter::once(OsString::from("wharf perf run"));
    let said = command.clone().get_matches_from(name().chain(own.iter().cloned()));
    let is_said = |id: &str| said.value_source(id) == Some(ValueSource::CommandLine);
    let mut arguments = Vec::new();
    for (key, value) in settings {
        let id = key.replace('-', "_");
        let Some(argument) = command.get_arguments().find(|it| it.get_id() == id.as_str() && it.get_long().is_some())
        else {
            return Err(format!(
                "{}: there is no setting {key:?}; the names are those of the long options",
                file.display()
            ));
        };
        if id == "config" || id == "help" {
            return Err(format!("{}: {key:?} cannot be set in a file", file.display()));
        }
        let overridden = is_said(&id)
            || EXCLUSIVE.iter().any(|group| group.contains(&&*id) && group.iter().any(|other| is_said(other)));
        if overridden {
            continue;
        }
        let long = argument.get_long().unwrap_or_default();
        match value {
            Value::Bool(true) => arguments.push(format!("--{long}")),
            Value::Bool(false) => {}
            Value::String(text) => arguments.push(format!("--{long}={text}")),
            Value::Number(number) => arguments.push(format!("--{long}={number}")),
            _ => return Err(format!("{}: {key} has to be a number, text, true or false", file.display())),
        }
    }
    let all = name().chain(arguments.into_iter().map(OsString::from)).chain(own.iter().cloned());
    let wrong = |error: clap::Error| {
        let text = error.to_string();
        let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
        format!("{}: {text}", file.display())
    };
    let matches = command.try_get_matches_from(all).map_err(wrong)?;
    Merged::from_arg_matches(&matches).map(|merged| merged.run).map_err(wrong)
}

fn parse_interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if seconds == 0.0 || (0.1..=60.0).contains(&seconds) => Ok(seconds),
        _ => Err("give 0, or 0.1 to 60 seconds".into()),
    }
}

fn parse_pause(text: &str) -> Result<f64, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| (0.0..=86400.0).contains(seconds));
    seconds.ok_or_else(|| "give 0 to 86400 seconds".into())
}

/// "NaN" is a number to the parser, and would let everything pass.
fn parse_percent(text: &str) -> Result<f64, String> {
    let percent = text.parse::<f64>().ok().filter(|percent| (0.0..=100.0).contains(percent));
    percent.ok_or_else(|| "give 0 to 100 percent".into())
}

fn parse_engine(text: &str) -> Result<String, String> {
    match text {
        "auto" | "epoll" | "poll" | "io_uring" | "threads" | "all" => Ok(text.into()),
        _ => {
            Err("the engines here are epoll and poll for sockets, io_uring and threads for files (-F); or auto, or all"
                .into())
        }
    }
}

fn parse_limit(text: &str) -> Result<(u64, u64), String> {
    let (rate, seconds) = text.split_once('/').unwrap_or((text, "5"));
    let seconds = seconds.parse().ok().filter(|seconds| (1..=3600).contains(seconds));
    Ok((parse_rate(rate)?, seconds.ok_or("the time behind the slash is 1 to 3600 seconds")?))
}

fn parse_keep_alive(text: &str) -> Result<KeepAlive, String> {
    let default = KeepAlive::default();
    let wrong = || "give IDLE/INTERVAL/COUNT: 1 to 32767 seconds twice, and 1 to 127 questions".to_owned();
    let number = |part: Option<&str>, most: u32, default: u64| match part {
        None | Some("") => Ok(default),
        Some(part) => part.parse::<u32>().ok().filter(|it| (1..=most).contains(it)).map(u64::from).ok_or_else(wrong),
    };
    let mut parts = text.split('/');
    let idle = number(parts.next(), 32_767, default.idle.as_secs())?;
    let interval = number(parts.next(), 32_767, default.interval.as_secs())?;
    let count = number(parts.next(), 127, default.count.into())?;
    if parts.next().is_some() {
        return Err(wrong());
    }
    Ok(KeepAlive { idle: Duration::from_secs(idle), interval: Duration::from_secs(interval), count: count as u32 })
}

type Affinity = (Option<u32>, Option<u32>);

fn parse_affinity(text: &str) -> Result<Affinity, String> {
    let number = |text: &str| match text {
        "" => Ok(None),
        text => match text.parse::<u32>() {
            Ok(number) if number <= 1024 => Ok(Some(number)),
            _ => Err("give the number of a processor, or two with a comma between them".to_owned()),
        },
    };
    let (ours, theirs) = text.split_once(',').unwrap_or((text, ""));
    Ok((number(ours)?, number(theirs)?))
}

fn parse_bitrate(text: &str) -> Result<(Option<u64>, u64), String> {
    let (rate, burst) = match text.split_once('/') {
        Some((rate, burst)) => (rate, Some(burst)),
        None => (text, None),
    };
    let burst = match burst {
        None => 0,
        Some(burst) => burst
            .parse()
            .ok()
            .filter(|burst| (1..=parameters::BURST_MAX).contains(burst))
            .ok_or("the burst behind the slash is 1 to 1000 blocks")?,
    };
    // Without a rate the burst has nothing to do.
    Ok((if rate.is_empty() { None } else { Some(parse_rate(rate)?) }, burst))
}

fn parse_tos(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None if text.len() > 1 && text.starts_with('0') => u32::from_str_radix(text, 8).ok(),
        None => text.parse().ok(),
    };
    number.filter(|number| *number <= 255).ok_or_else(|| "give 0 to 255, 0x0 to 0xff or 00 to 0377".into())
}

fn parse_label(text: &str) -> Result<u32, String> {
    let number = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let number = number.filter(|number| (1..=parameters::FLOW_LABEL_MAX).contains(number));
    number.ok_or_else(|| "give 1 to 1048575, or 0x1 to 0xfffff".into())
}

fn parse_dscp(text: &str) -> Result<u32, String> {
    let lower = text.to_ascii_lowercase();
    let digit = |at: usize, most: u32| lower[at..].chars().next()?.to_digit(10).filter(|digit| *digit <= most);
    let named = match lower.len() {
        2 if lower == "ef" => Some(46),
        2 if lower == "be" => Some(0),
        3 if lower.starts_with("cs") => digit(2, 7).map(|class| class * 8),
        4 if lower.starts_with("af") && lower.is_ascii() => {
            digit(2, 4).zip(digit(3, 3)).filter(|it| it.0 > 0 && it.1 > 0).map(|(class, drop)| class * 8 + drop * 2)
        }
        _ => None,
    };
    let number = named.or_else(|| parse_tos(text).ok()).filter(|number| *number <= 63);
    number.ok_or_else(|| "give 0 to 63, or a name: ef, be, cs0 to cs7, af11 to af43".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(settings: &str, own: &[&str]) -> Result<Run, String> {
        let file = Path::new("settings.toml");
        let own: Vec<OsString> = own.iter().map(OsString::from).collect();
        merge(file, &settings_of(file, settings)?, &own)
    }

    #[test]
    fn the_command_line_overrides_the_file_and_the_file_the_defaults() {
        let run = merged("parallel = 4\ntime = 5\nudp = true\nlength = '1400'", &["host", "-P", "2"]).unwrap();
        assert_eq!((run.parallel, run.time, run.udp, run.length, run.omit), (2, Some(5), true, Some(1400), 0));
        let run = merged("time = 5\nreverse = true", &["host", "-n", "1M", "--bidir"]).unwrap();
        assert_eq!((run.time, run.bytes, run.reverse, run.bidir), (None, Some(1 << 20), false, true));
        let run = merged("host = 'there'\nfail-under = '5G'", &["host"]).map(|run| run.host);
        assert!(run.unwrap_err().contains("host"));
    }

    #[test]
    fn engines_are_a_list_and_those_of_files_need_a_file() {
        let names = |options: &[&str]| {
            let own: Vec<&str> = [&["host"], options].concat();
            merged("", &own)
                .unwrap()
                .common
                .engines()
                .map(|engines| engines.into_iter().map(|engine| engine.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap(), ["auto"]);
        assert_eq!(names(&["--engine", "poll,epoll"]).unwrap(), ["epoll", "poll"]);
        assert_eq!(names(&["--engine", "all"]).unwrap(), ["epoll", "poll"]);
        assert_eq!(
            names(&["--engine", "all", "-F", "f"]).unwrap(),
            ["epoll+io_uring", "epoll+threads", "poll+io_uring", "poll+threads"]
        );
        assert_eq!(names(&["--engine", "threads", "-F", "f"]).unwrap(), ["threads"]);
        assert!(names(&["--engine", "threads"]).unwrap_err().contains("-F"));
    }

    #[test]
    fn what_could_pass_unseen_or_never_end_is_refused_or_as_iperf3_takes_it() {
        for share in ["nan", "101", "inf"] {
            assert!(parse_percent(share).is_err(), "{share}");
        }
        for nothing in [["-n", "0"], ["-k", "0"]] {
            let parameters = merged("", &["host", nothing[0], nothing[1]]).unwrap().settings().unwrap().parameters;
            assert_eq!((parameters.time, parameters.blocks_wanted()), (10, None), "{nothing:?}");
        }
        let settings = |options: &[&str]| merged("", &[&["host"], options].concat()).unwrap().settings();
        assert!(settings(&["--cport", "65534", "-P", "2"]).is_ok());
        assert!(settings(&["--cport", "65534", "-P", "2", "--bidir"]).unwrap_err().contains("--cport 65534"));
        assert!(settings(&["--plot", "curve.svg"]).is_ok());
        assert!(settings(&["--plot", "/no/such/curve.svg"]).unwrap_err().contains("--plot"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (option, words) in [("--sctp", "SCTP"), ("-m", "multipath"), ("--username=u", "RSA")] {
            let said = merged("", &["host", option]).unwrap().settings().unwrap_err();
            assert!(said.contains(words), "{option}: {said}");
        }
    }

    #[test]
    fn a_wrong_setting_is_named_with_its_value_and_what_is_allowed() {
        let said = merged("parallel = 400", &["host"]).unwrap_err();
        assert!(said.contains("settings.toml") && said.contains("400") && said.contains("--parallel"), "{said}");
        assert!(said.contains("128"), "{said}");
        let said = merged("paralel = 4", &["host"]).unwrap_err();
        assert!(said.contains("paralel"), "{said}");
        assert!(merged("time = [1]", &["host"]).unwrap_err().contains("time"));
        let json = settings_of(Path::new("a.JSON"), r#"{"time": 3}"#).unwrap();
        assert_eq!(json["time"], 3);
        assert!(settings_of(Path::new("a.json"), "[]").is_err());
    }

    #[test]
    fn words_are_read_as_iperf3_reads_them() {
        assert_eq!(parse_bitrate("50M/10"), Ok((Some(50_000_000), 10)));
        assert_eq!(parse_bitrate("/10"), Ok((None, 10)));
        assert!(parse_bitrate("1M/0").is_err());
        assert_eq!((parse_tos("0x10"), parse_tos("020"), parse_tos("16")), (Ok(16), Ok(16), Ok(16)));
        assert_eq!(
            (parse_dscp("ef"), parse_dscp("AF41"), parse_dscp("cs1"), parse_dscp("8")),
            (Ok(46), Ok(34), Ok(8), Ok(8))
        );
        assert!(parse_dscp("af44").is_err() && parse_dscp("64").is_err() && parse_dscp("a\u{e9}1").is_err());
        assert_eq!(parse_limit("5G"), Ok((5_000_000_000, 5)));
        assert_eq!(parse_limit("1M/2"), Ok((1_000_000, 2)));
        assert!(parse_limit("1M/0").is_err());
        let seconds = Duration::from_secs;
        let keep_alive = |idle, interval, count| KeepAlive { idle: seconds(idle), interval: seconds(interval), count };
        assert_eq!(parse_keep_alive(""), Ok(KeepAlive::default()));
        assert_eq!(parse_keep_alive("5/1/2"), Ok(keep_alive(5, 1, 2)));
        assert_eq!(parse_keep_alive("7"), Ok(keep_alive(7, 10, 3)));
        assert!(parse_keep_alive("0").is_err() && parse_keep_alive("1/1/1/1").is_err());
        assert_eq!(parse_affinity("1,0"), Ok((Some(1), Some(0))));
        assert_eq!(parse_affinity(",2"), Ok((None, Some(2))));
    }
}
