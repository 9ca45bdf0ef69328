//! The words of the control connection: cookie, states, error codes, and the decoder that finds them in a stream of
//! bytes. Nothing here touches a socket.

use crate::json::{self, Map};
use std::fmt;

/// Bytes of a cookie, its final NUL included.
pub const COOKIE_BYTES: usize = 37;
/// Where servers listen, unless told otherwise.
pub const DEFAULT_PORT: u16 = 5201;
/// The largest parameter frame that a server takes.
pub const PARAMETERS_BYTES_MAX: usize = 64 * 1024;

/// What names a test: the client sends it first on the control connection and on every TCP stream.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Cookie([u8; COOKIE_BYTES]);

impl Cookie {
    /// A fresh one: 36 random characters of `a-z2-7`, and a NUL.
    pub fn random() -> Cookie {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut bytes = [0; COOKIE_BYTES];
        bytes[..COOKIE_BYTES - 1].fill_with(|| LETTERS[fastrand::usize(..LETTERS.len())]);
        Cookie(bytes)
    }

    /// The cookie in these bytes: 36 printable ones and one NUL. Stock peers take any 37 bytes, and compare up to the first
    /// NUL only; a cookie that begins with one would match every other.
    pub fn parse(bytes: &[u8]) -> Option<Cookie> {
        let bytes: [u8; COOKIE_BYTES] = bytes.try_into().ok()?;
        let (text, end) = bytes.split_at(COOKIE_BYTES - 1);
        (text.iter().all(u8::is_ascii_graphic) && end == [0]).then_some(Cookie(bytes))
    }

    /// As it goes over the wire.
    pub fn bytes(&self) -> &[u8; COOKIE_BYTES] {
        &self.0
    }

    /// As people see it: without the NUL.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.0[..COOKIE_BYTES - 1]).unwrap_or("")
    }
}

impl fmt::Debug for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

/// The states that travel over the control connection, one signed byte each.
#[allow(missing_docs)]
pub mod state {
    pub const TEST_START: i8 = 1;
    pub const TEST_RUNNING: i8 = 2;
    pub const TEST_END: i8 = 4;
    pub const PARAM_EXCHANGE: i8 = 9;
    pub const CREATE_STREAMS: i8 = 10;
    pub const SERVER_TERMINATE: i8 = 11;
    pub const CLIENT_TERMINATE: i8 = 12;
    pub const EXCHANGE_RESULTS: i8 = 13;
    pub const DISPLAY_RESULTS: i8 = 14;
    pub const DONE: i8 = 16;
    /// Ours, from a client to a server that said `wharf_two_phase`, in place of `DONE`: the other direction is next.
    pub const SECOND_PHASE: i8 = 100;
    pub const ACCESS_DENIED: i8 = -1;
    pub const SERVER_ERROR: i8 = -2;
}

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
        let errno = crate::system::errno(error);
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
            errno => format!("{text}, errno: {}", crate::system::errno_text(errno)),
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

/// Finds states, frames and error pairs in what comes over the control connection. What comes next is not marked in the
/// stream: it follows from the state of the test, so whoever calls says what it waits for.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// What was understood stays until it is worth moving the rest: a flood of states must not cost its square.
    understood: usize,
}

/// A frame that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Empty, or longer than allowed: its announced length.
    Length(u32),
    /// Not one JSON object.
    NoObject,
}

impl Decoder {
    /// More bytes have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes wait to be understood.
    pub fn len(&self) -> usize {
        self.rest().len()
    }

    /// Whether all was understood.
    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.understood..]
    }

    fn take(&mut self, count: usize) {
        self.understood += count;
        if self.understood > self.bytes.len() / 2 {
            self.bytes.drain(..self.understood);
            self.understood = 0;
        }
    }

    /// The next state, which stays.
    pub fn next(&self) -> Option<i8> {
        self.rest().first().map(|byte| *byte as i8)
    }

    /// The next state, if it is there.
    pub fn state(&mut self) -> Option<i8> {
        let state = self.next()?;
        self.take(1);
        Some(state)
    }

    /// The two numbers behind state −2. At the end of the stream the second may be missing: it is 0 then.
    pub fn error_pair(&mut self, end: bool) -> Option<(i32, i32)> {
        let word = |at: usize| Some(i32::from_be_bytes(self.rest().get(at..at + 4)?.try_into().ok()?));
        match (word(0), word(4)) {
            (Some(code), Some(errno)) => {
                self.take(8);
                Some((code, errno))
            }
            (Some(code), None) if end => Some((code, 0)),
            _ => None,
        }
    }

    /// The next frame, if it is complete; what follows stays. A frame whose length cannot be right is an error at once,
    /// and no memory is taken for it.
    pub fn frame(&mut self, bytes_max: usize) -> Result<Option<Map>, BadFrame> {
        let Some(head) = self.rest().get(..4) else { return Ok(None) };
        let length = u32::from_be_bytes(head.try_into().unwrap_or_default());
        if length == 0 || length as usize > bytes_max {
            return Err(BadFrame::Length(length));
        }
        let end = 4 + length as usize;
        let Some(frame) = self.rest().get(..end) else { return Ok(None) };
        let object = json::object(&frame[4..]);
        self.take(end);
        object.map(Some).ok_or(BadFrame::NoObject)
    }
}

/// An object as a frame: its length, then its text.
pub fn frame(object: &serde_json::Value) -> Vec<u8> {
    let text = object.to_string();
    let mut frame = Vec::with_capacity(4 + text.len());
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cookie_has_36_printable_bytes_and_a_nul() {
        let cookie = Cookie::random();
        assert!(cookie.text().bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')));
        assert_eq!(Cookie::parse(cookie.bytes()), Some(cookie));
        assert_ne!(Cookie::random(), cookie);
        let mut bad = *cookie.bytes();
        bad[36] = b'a';
        assert_eq!(Cookie::parse(&bad), None, "no NUL at the end");
        bad = *cookie.bytes();
        bad[0] = 0;
        assert_eq!(Cookie::parse(&bad), None, "a NUL at the start");
        assert_eq!(Cookie::parse(&cookie.bytes()[..36]), None);
    }

    #[test]
    fn items_are_found_wherever_the_stream_was_cut() {
        let value = json!({"tcp": true, "time": 10});
        let mut stream = vec![9, 10];
        stream.extend(frame(&value));
        stream.extend([1, 2]);
        stream.extend(Failure::new(114, "").frame());
        for step in [1, 2, 3, stream.len()] {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(piece);
                loop {
                    let item = match seen.len() {
                        0 | 1 | 3 | 4 | 5 => decoder.state().map(|state| format!("{state}")),
                        2 => decoder.frame(100).unwrap().map(|map| serde_json::Value::from(map).to_string()),
                        _ => decoder.error_pair(false).map(|pair| format!("{pair:?}")),
                    };
                    match item {
                        Some(item) => seen.push(item),
                        None => break,
                    }
                }
            }
            assert_eq!(seen, ["9", "10", r#"{"tcp":true,"time":10}"#, "1", "2", "-2", "(114, 0)"], "step {step}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn the_error_pair_is_as_captured_and_its_second_word_may_be_missing() {
        assert_eq!(Failure::new(114, "").frame(), [0xFE, 0, 0, 0, 0x72, 0, 0, 0, 0]);
        let failure = Failure { code: 202, errno: 93, text: String::new() };
        assert_eq!(failure.frame(), [0xFE, 0, 0, 0, 0xCA, 0, 0, 0, 0x5D]);
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 142]);
        assert_eq!(decoder.error_pair(false), None);
        assert_eq!(decoder.error_pair(true), Some((142, 0)));
    }

    #[test]
    fn a_flood_of_states_costs_no_more_than_its_bytes() {
        let mut decoder = Decoder::default();
        let flood = vec![4; 4 << 20];
        decoder.push(&flood);
        // Moving the rest for each of them would be 8 TB.
        let states = std::iter::from_fn(|| decoder.state()).filter(|state| *state == 4).count();
        assert_eq!(states, flood.len());
        decoder.push(&[1]);
        assert_eq!((decoder.len(), decoder.state(), decoder.state()), (1, Some(1), None));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_the_bytes_come() {
        for length in [0, 101, 0x7FFF_FFFF, u32::MAX] {
            let mut decoder = Decoder::default();
            decoder.push(&length.to_be_bytes());
            assert_eq!(decoder.frame(100), Err(BadFrame::Length(length)));
        }
    }
}
