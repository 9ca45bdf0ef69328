//! How to serve.

use crate::protocol::DEFAULT_PORT;
use crate::protocol::parameters::{PARAMETERS_BYTES_MAX, STREAMS_MAX};
use crate::report::printer::Form;
use crate::surroundings::machinery::Machinery;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// All streams of the largest test, which a busy server may find connected before it has read a single cookie, and 64
/// strangers.
pub const PENDING_MAX: usize = 2 * STREAMS_MAX + 64;

/// How to serve.
#[derive(Clone, Debug)]
pub struct Options {
    /// TCP and UDP; 0: any free one, the first line says which.
    pub port: u16,
    /// The address to listen on; `None`: all.
    pub address: Option<IpAddr>,
    /// The network device.
    pub device: Option<String>,
    /// Only IPv4 (4) or IPv6 (6).
    pub family: Option<u8>,
    /// One test, and then the end.
    pub one_off: bool,
    /// With `one_off`: ends also when no test came for so long.
    pub idle_timeout: Option<Duration>,
    /// Tests at a time; iperf3 has one, and refuses the second.
    pub max_clients: usize,
    /// Longest test, the omitted time included, seconds.
    pub max_seconds: Option<u64>,
    /// Bits a second of all streams of a test together: what a client asks for, and what it then takes.
    pub bitrate_limit: Option<u64>,
    /// The time over which that is averaged.
    pub bitrate_window: Duration,
    /// Most streams of a test, both directions together.
    pub max_streams: usize,
    /// Largest parameter frame, bytes.
    pub max_parameter_bytes: usize,
    /// Connections without a cookie at a time.
    pub max_pending: usize,
    /// What the cookie of a connection may take, and then the parameters of a test.
    pub handshake_timeout: Duration,
    /// What all streams of a test may take, and then its results.
    pub setup_timeout: Duration,
    /// Between two reports.
    pub interval: Duration,
    /// Nothing came for so long: the test is over.
    pub receive_timeout: Duration,
    /// The form of the reports.
    pub form: Form,
    /// What it runs on.
    pub machinery: Machinery,
    /// Sent instead of random bytes, or what is received goes there. Of tests with one TCP stream; others are refused.
    pub file: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            port: DEFAULT_PORT,
            address: None,
            device: None,
            family: None,
            one_off: false,
            idle_timeout: None,
            max_clients: 1,
            max_seconds: None,
            bitrate_limit: None,
            bitrate_window: Duration::from_secs(5),
            max_streams: 2 * STREAMS_MAX,
            max_parameter_bytes: PARAMETERS_BYTES_MAX,
            max_pending: PENDING_MAX,
            handshake_timeout: Duration::from_secs(5),
            setup_timeout: Duration::from_secs(10),
            interval: Duration::from_secs(1),
            receive_timeout: Duration::from_secs(120),
            form: Form::default(),
            machinery: Machinery::default(),
            file: None,
        }
    }
}
