//! What a client is asked to do.

use crate::protocol::parameters::Parameters;
use crate::report::printer::Form;
use crate::surroundings::machinery::Machinery;
use crate::surroundings::socket::Origin;
use std::path::PathBuf;
use std::time::Duration;

/// A test to be made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Name or address.
    pub host: String,
    /// Of the control connection, the streams and the datagrams.
    pub port: u16,
    /// What to do. `len` 0: the default, which for UDP is the connection's segment size.
    pub parameters: Parameters,
    /// Only IPv4 (4) or IPv6 (6).
    pub family: Option<u8>,
    /// Where this end's sockets are.
    pub origin: Origin,
    /// The first stream's own port; the next ones follow. 0: any.
    pub client_port: u16,
    /// For the control connection; `None`: as long as the system tries.
    pub connect_timeout: Option<Duration>,
    /// A receiver that got nothing for so long gives up; so does a client whose server says nothing.
    pub receive_timeout: Duration,
    /// Unacknowledged data breaks a stream after so long.
    pub send_timeout: Option<Duration>,
    /// Between two reports; zero: only the end.
    pub interval: Duration,
    /// The form of the report.
    pub form: Form,
    /// What it runs on.
    pub machinery: Machinery,
    /// Sent instead of random bytes, or what is received goes there. Of one TCP stream.
    pub file: Option<PathBuf>,
    /// A line in front of the report.
    pub announce: Option<String>,
}

impl Options {
    /// A test of ten seconds against this server.
    pub fn new(host: impl Into<String>, port: u16) -> Options {
        Options {
            host: host.into(),
            port,
            parameters: Parameters::default(),
            family: None,
            origin: Origin::default(),
            client_port: 0,
            connect_timeout: None,
            receive_timeout: Duration::from_secs(30),
            send_timeout: None,
            interval: Duration::from_secs(1),
            form: Form::default(),
            machinery: Machinery::default(),
            file: None,
            announce: None,
        }
    }
}
