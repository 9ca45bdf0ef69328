//! Why a test failed: iperf3's numbers for it, and the sentences to them.

use super::errno;
use super::words::state;
use std::fmt;

/// Why a test failed: iperf3's number for it, the system's number if there is one, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// See [`code`].
    pub code: i32,
    /// `errno`, or 0.
    pub errno: i32,
    /// What happened, for people.
    pub text: String,
}

impl Failure {
    /// A failure with its own sentence.
    pub fn new(code: i32, text: impl Into<String>) -> Failure {
        Failure { code, errno: 0, text: text.into() }
    }

    /// A failure of the system.
    pub fn system(code: i32, error: &std::io::Error) -> Failure {
        let errno = errno::number(error);
        Failure { code, errno, text: format!("{}: {error}", code_text(code).unwrap_or("error")) }
    }

    /// What a peer sent: only the numbers are its own, so that nothing of it reaches a terminal.
    pub fn remote(code: i32, errno: i32) -> Failure {
        let text = match code_text(code) {
            Some(text) => format!("the server refuses or failed: {text}"),
            None => format!("the server failed with the unknown error {code}"),
        };
        let text = match errno {
            0 => text,
            errno => format!("{text}, errno: {}", errno::text(errno)),
        };
        Failure { code, errno, text }
    }

    /// State −2 and the pair of numbers that follows it.
    pub fn frame(&self) -> [u8; 9] {
        let mut frame = [state::SERVER_ERROR as u8; 9];
        frame[1..5].copy_from_slice(&self.code.to_be_bytes());
        frame[5..].copy_from_slice(&self.errno.to_be_bytes());
        frame
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// iperf3's error codes, as far as they are sent here or known by a text.
#[allow(missing_docs)]
pub mod code {
    pub const DURATION: i32 = 5;
    pub const STREAMS: i32 = 6;
    pub const BLOCK: i32 = 7;
    pub const WINDOW: i32 = 8;
    pub const MSS: i32 = 10;
    pub const OMIT: i32 = 12;
    pub const BURST: i32 = 15;
    pub const FILE: i32 = 14;
    pub const NO_SCTP: i32 = 18;
    pub const UDP_BLOCK: i32 = 20;
    pub const TOS: i32 = 21;
    pub const BANDWIDTH: i32 = 27;
    pub const FILE_OVER_UDP: i32 = 34;
    pub const TOO_LONG: i32 = 37;
    pub const INIT: i32 = 101;
    pub const LISTEN: i32 = 102;
    pub const CONNECT: i32 = 103;
    pub const SEND_COOKIE: i32 = 105;
    pub const COOKIE: i32 = 106;
    pub const CONTROL_WRITE: i32 = 107;
    pub const CONTROL_READ: i32 = 108;
    pub const CONTROL_CLOSED: i32 = 109;
    pub const MESSAGE: i32 = 110;
    pub const PARAMETERS: i32 = 114;
    pub const RESULTS: i32 = 117;
    pub const CLIENT_TERMINATED: i32 = 119;
    pub const SERVER_TERMINATED: i32 = 120;
    pub const BUSY: i32 = 121;
    pub const FLOW_LABEL: i32 = 127;
    pub const AFFINITY: i32 = 132;
    pub const CONGESTION: i32 = 134;
    pub const BUFFER: i32 = 141;
    pub const AUTHORIZATION: i32 = 142;
    pub const SILENCE: i32 = 144;
    pub const EXPIRED: i32 = 160;
    pub const STREAM_CREATE: i32 = 200;
    pub const STREAM_LISTEN: i32 = 202;
    pub const STREAM_CONNECT: i32 = 203;
    pub const STREAM_WRITE: i32 = 205;
    pub const STREAM_READ: i32 = 206;
    pub const STREAM_ID: i32 = 208;
}

fn code_text(code: i32) -> Option<&'static str> {
    Some(match code {
        code::DURATION => "the test's duration is out of range (0 to 86400 s)",
        code::STREAMS => "the number of parallel streams is out of range (1 to 128)",
        code::BLOCK => "the block size is out of range (1 to 1048576 bytes)",
        code::WINDOW => "the socket buffer size is out of range (at most 512 MiB)",
        code::MSS => "the segment size is out of range",
        code::OMIT => "the time to omit is out of range (0 to 600 s)",
        code::BURST => "the burst is out of range (1 to 1000)",
        code::FILE => "the file cannot be used",
        code::FILE_OVER_UDP => "a file cannot go over UDP",
        code::NO_SCTP => "no SCTP support there; use TCP or UDP",
        code::UDP_BLOCK => "the datagram size is out of range (16 to 65507 bytes)",
        code::TOS => "the type of service is out of range (0 to 255)",
        code::BANDWIDTH => "the total required bandwidth is larger than the server's limit",
        code::TOO_LONG => "the test is longer than the server allows",
        code::LISTEN => "unable to start listener for connections",
        code::CONNECT => "unable to connect to server",
        code::SEND_COOKIE => "unable to send cookie to server",
        code::COOKIE => "unable to receive cookie at server",
        code::CONTROL_WRITE => "unable to write to the control connection",
        code::CONTROL_READ => "unable to read from the control connection",
        code::CONTROL_CLOSED => "control socket has closed unexpectedly",
        code::MESSAGE => "received an unknown control message",
        code::PARAMETERS => "unable to receive parameters from client",
        code::RESULTS => "unable to receive results",
        code::CLIENT_TERMINATED => "the client has terminated",
        code::SERVER_TERMINATED => "the server has terminated",
        code::BUSY => "the server is busy running a test. try again later",
        code::FLOW_LABEL => "the flow label is out of range (1 to 1048575), or cannot be set",
        code::AFFINITY => "unable to set CPU affinity",
        code::CONGESTION => "unable to set TCP congestion control algorithm",
        code::BUFFER => "socket buffer size not set correctly (limits: net.core.rmem_max, net.core.wmem_max)",
        code::AUTHORIZATION => "test authorization failed",
        code::SILENCE => "nothing received for the receive timeout",
        code::EXPIRED => "the test lasted longer than its duration allows",
        code::STREAM_CREATE => "unable to create a new stream",
        code::STREAM_LISTEN => "unable to start stream listener",
        code::STREAM_CONNECT => "unable to connect stream",
        code::STREAM_WRITE => "unable to write to stream socket",
        code::STREAM_READ => "unable to read from stream socket",
        code::STREAM_ID => "unknown stream id in the results",
        _ => return None,
    })
}

/// The standard sentence of a code.
pub fn describe(code: i32) -> String {
    code_text(code).map_or_else(|| format!("error {code}"), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_pair_is_as_captured() {
        assert_eq!(Failure::new(114, "").frame(), [0xFE, 0, 0, 0, 0x72, 0, 0, 0, 0]);
        let failure = Failure { code: 202, errno: 93, text: String::new() };
        assert_eq!(failure.frame(), [0xFE, 0, 0, 0, 0xCA, 0, 0, 0, 0x5D]);
    }
}
