//! What a client asks for: the one frame it sends after `PARAM_EXCHANGE`.
//!
//! Absent keys have iperf3's defaults. `false` is never written: to many releases the presence of a key is its value.
//! Our own keys begin with `wharf_`; stock peers ignore them.

use super::failure::{Failure, code, describe};
use super::json::{self, Map};
use super::words::VERSION;
use serde_json::{Value, json};

/// The largest block of TCP.
pub const BLOCK_BYTES_MAX: usize = 1 << 20;
/// The default block of TCP.
pub const BLOCK_BYTES: usize = 128 * 1024;
/// The smallest datagram: the header with 64-bit counters.
pub const DATAGRAM_BYTES_MIN: usize = 16;
/// The largest datagram.
pub const DATAGRAM_BYTES_MAX: usize = 65507;
/// The smallest block that can be verified.
pub const VERIFIED_BYTES_MIN: usize = 20;
/// The largest parameter frame that a server takes.
pub const PARAMETERS_BYTES_MAX: usize = 64 * 1024;
/// Streams in each direction.
pub const STREAMS_MAX: usize = 128;
/// Seconds of a test.
pub const SECONDS_MAX: u64 = 86400;
/// Seconds that may be omitted at the start.
pub const OMIT_SECONDS_MAX: u64 = 600;
/// Blocks in a burst.
pub const BURST_MAX: u64 = 1000;
/// A socket's buffer.
pub const WINDOW_BYTES_MAX: usize = 512 << 20;
/// A segment, since 3.21.
pub const MSS_MAX: u32 = 32767;
/// Microseconds between two blocks: a day.
pub const SEND_INTERVAL_US_MAX: u64 = 86_400_000_000;
/// IPv6's flow label has 20 bits.
pub const FLOW_LABEL_MAX: u32 = 0xF_FFFF;
/// The default rate of UDP, bits a second.
pub const UDP_RATE: u64 = 1 << 20;

/// TCP or UDP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Protocol {
    #[default]
    Tcp,
    Udp,
}

impl Protocol {
    /// As reports name it.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
    }
}

/// The parameters of a test. Sizes in bytes, times in seconds, rates in bits a second; 0 stands for "not given" where
/// iperf3 has no other word for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Seconds at the start that do not count.
    pub omit: u64,
    /// Seconds; 0: until `num` or `blocks` is reached, or for ever.
    pub time: u64,
    /// Bytes of one direction after which the test ends.
    pub num: u64,
    /// Blocks or datagrams after which it ends.
    pub blocks: u64,
    /// The largest segment.
    pub mss: u32,
    /// `TCP_NODELAY` on the streams.
    pub nodelay: bool,
    /// Streams in each direction.
    pub parallel: usize,
    /// The server sends.
    pub reverse: bool,
    /// Both send.
    pub bidirectional: bool,
    /// Socket buffers.
    pub window: usize,
    /// A block or datagram.
    pub len: usize,
    /// Of each stream; 0: as fast as it goes.
    pub bandwidth: u64,
    /// The kernel's pacing of each stream.
    pub fq_rate: u64,
    /// Blocks that are sent back to back; 0: one.
    pub burst: u64,
    /// Type of service, or traffic class.
    pub tos: u32,
    /// IPv6's label of the client's streams; 0: none.
    pub flow_label: u32,
    /// In front of the client's lines.
    pub title: Option<String>,
    /// Text for the report.
    pub extra_data: Option<String>,
    /// TCP's congestion control.
    pub congestion: Option<String>,
    /// The server's report comes with its results.
    pub get_server_output: bool,
    /// UDP sequence numbers of 64 bits.
    pub counters_64bit: bool,
    /// Digits instead of random bytes.
    pub repeating_payload: bool,
    /// `-Z`; accepted, and without effect here: plain sends are cheaper.
    pub zerocopy: bool,
    /// IPv4 datagrams must not be cut.
    pub dont_fragment: bool,
    /// The receiver throws away in the kernel; accepted, without effect here.
    pub skip_rx_copy: bool,
    /// `--gsro`; without effect on the wire, and always on here where the system has it.
    pub gsro: bool,
    /// The processor the server is to use.
    pub server_affinity: Option<u32>,
    /// An RSA-encrypted login. No login is offered here.
    pub auth_token: Option<String>,
    /// Ours: blocks carry numbers and checksums, which the receiver looks at.
    pub verify: bool,
    /// Ours: a connection for pings is coming.
    pub latency: bool,
    /// Ours: microseconds between the starts of two blocks.
    pub send_interval_us: u64,
    /// Ours: when this direction is through, the other one comes in the same session.
    pub two_phase: bool,
}

impl Default for Parameters {
    fn default() -> Self {
        Parameters {
            protocol: Protocol::Tcp,
            omit: 0,
            time: 10,
            num: 0,
            blocks: 0,
            mss: 0,
            nodelay: false,
            parallel: 1,
            reverse: false,
            bidirectional: false,
            window: 0,
            len: BLOCK_BYTES,
            bandwidth: 0,
            fq_rate: 0,
            burst: 0,
            tos: 0,
            flow_label: 0,
            title: None,
            extra_data: None,
            congestion: None,
            get_server_output: false,
            counters_64bit: false,
            repeating_payload: false,
            zerocopy: false,
            dont_fragment: false,
            skip_rx_copy: false,
            gsro: false,
            server_affinity: None,
            auth_token: None,
            verify: false,
            latency: false,
            send_interval_us: 0,
            two_phase: false,
        }
    }
}

impl Parameters {
    /// The object to send.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        let mut put = |key: &str, value: Value| drop(map.insert(key.into(), value));
        put(if self.protocol == Protocol::Udp { "udp" } else { "tcp" }, true.into());
        put("omit", self.omit.into());
        if let Some(cpu) = self.server_affinity {
            put("server_affinity", cpu.into());
        }
        put("time", self.time.into());
        put("num", self.num.into());
        put("blockcount", self.blocks.into());
        if self.mss > 0 {
            put("MSS", self.mss.into());
        }
        if self.nodelay {
            put("nodelay", true.into());
        }
        put("parallel", self.parallel.into());
        if self.reverse {
            put("reverse", true.into());
        }
        if self.bidirectional {
            put("bidirectional", true.into());
        }
        if self.window > 0 {
            put("window", self.window.into());
        }
        put("len", self.len.into());
        let numbers =
            [("bandwidth", self.bandwidth), ("fqrate", self.fq_rate), ("pacing_timer", 1000), ("burst", self.burst)];
        numbers.into_iter().filter(|(_, value)| *value > 0).for_each(|(key, value)| put(key, value.into()));
        if self.protocol == Protocol::Udp && self.gsro {
            let datagrams = DATAGRAM_BYTES_MAX / self.len.max(1) * self.len;
            put("gso", 1.into());
            put("gso_dg_size", self.len.into());
            put("gso_bf_size", datagrams.into());
            put("gro", 1.into());
            put("gro_bf_size", DATAGRAM_BYTES_MAX.into());
        }
        for (key, value) in [("TOS", self.tos), ("flowlabel", self.flow_label)] {
            if value > 0 {
                put(key, value.into());
            }
        }
        let texts = [
            ("title", &self.title),
            ("extra_data", &self.extra_data),
            ("congestion", &self.congestion),
            ("authtoken", &self.auth_token),
        ];
        for (key, text) in texts {
            if let Some(text) = text {
                put(key, text.as_str().into());
            }
        }
        let switches = [
            ("get_server_output", self.get_server_output),
            ("udp_counters_64bit", self.counters_64bit),
            ("repeating_payload", self.repeating_payload),
            ("zerocopy", self.zerocopy),
            ("dont_fragment", self.dont_fragment),
            ("skip_rx_copy", self.skip_rx_copy),
            ("wharf_verify", self.verify),
            ("wharf_latency", self.latency),
            ("wharf_two_phase", self.two_phase),
        ];
        switches.into_iter().filter(|(_, on)| *on).for_each(|(key, _)| put(key, 1.into()));
        if self.send_interval_us > 0 {
            put("wharf_send_interval_us", self.send_interval_us.into());
        }
        put("client_version", VERSION.into());
        json!(map)
    }

    /// Reads what a client sent, and checks each value's type and range.
    ///
    /// # Errors
    ///
    /// A [`Failure`] with the code that iperf3 has for it; its text names the key and the value.
    pub fn from_json(map: &Map) -> Result<Parameters, Failure> {
        let read = Reader(map);
        if read.flag("sctp")? {
            return Err(Failure::new(code::NO_SCTP, describe(code::NO_SCTP)));
        }
        let protocol = if read.flag("udp")? { Protocol::Udp } else { Protocol::Tcp };
        read.flag("tcp")?;
        let udp = protocol == Protocol::Udp;
        let block = match udp {
            true => read.number("len", 0, DATAGRAM_BYTES_MIN as u64, DATAGRAM_BYTES_MAX as u64, code::UDP_BLOCK)?,
            false => read.number("len", BLOCK_BYTES as u64, 1, BLOCK_BYTES_MAX as u64, code::BLOCK)?,
        };
        if udp && block == 0 {
            return Err(Failure::new(code::UDP_BLOCK, "parameter error: len is missing; a UDP test has to give it"));
        }
        let any = |key| read.number(key, 0, 0, i64::MAX as u64, code::PARAMETERS);
        let affinity = match json::get(map, "server_affinity") {
            Some(_) => Some(read.number("server_affinity", 0, 0, 1024, code::AFFINITY)? as u32),
            None => None,
        };
        let parameters = Parameters {
            protocol,
            omit: read.number("omit", 0, 0, OMIT_SECONDS_MAX, code::OMIT)?,
            time: read.number("time", 10, 0, SECONDS_MAX, code::DURATION)?,
            num: any("num")?,
            blocks: any("blockcount")?,
            mss: read.number("MSS", 0, 0, MSS_MAX.into(), code::MSS)? as u32,
            nodelay: read.flag("nodelay")?,
            parallel: read.number("parallel", 1, 1, STREAMS_MAX as u64, code::STREAMS)? as usize,
            reverse: read.flag("reverse")?,
            bidirectional: read.flag("bidirectional")?,
            window: read.number("window", 0, 0, WINDOW_BYTES_MAX as u64, code::WINDOW)? as usize,
            len: block as usize,
            bandwidth: any("bandwidth")?,
            fq_rate: any("fqrate")?,
            burst: read.number("burst", 0, 1, BURST_MAX, code::BURST)?,
            tos: read.number("TOS", 0, 0, 255, code::TOS)? as u32,
            flow_label: read.number("flowlabel", 0, 1, FLOW_LABEL_MAX.into(), code::FLOW_LABEL)? as u32,
            title: read.text("title")?,
            extra_data: read.text("extra_data")?,
            congestion: read.text("congestion")?,
            get_server_output: read.flag("get_server_output")?,
            counters_64bit: read.flag("udp_counters_64bit")?,
            repeating_payload: read.flag("repeating_payload")?,
            zerocopy: read.flag("zerocopy")?,
            dont_fragment: read.flag("dont_fragment")?,
            skip_rx_copy: read.flag("skip_rx_copy")?,
            gsro: read.flag("gso")?,
            server_affinity: affinity,
            auth_token: read.text("authtoken")?,
            verify: read.flag("wharf_verify")?,
            latency: read.flag("wharf_latency")?,
            send_interval_us: read.number("wharf_send_interval_us", 0, 0, SEND_INTERVAL_US_MAX, code::PARAMETERS)?,
            two_phase: read.flag("wharf_two_phase")?,
        };
        for key in ["pacing_timer", "gso_dg_size", "gso_bf_size", "gro_bf_size"] {
            any(key)?;
        }
        if parameters.two_phase && (parameters.reverse || parameters.bidirectional) {
            let text =
                "parameter error: two phases have a direction each; reverse and bidirectional do not go with them";
            return Err(Failure::new(code::PARAMETERS, text));
        }
        if parameters.verify && parameters.len < VERIFIED_BYTES_MIN {
            let text = format!("parameter error: len {} is too small to be verified", parameters.len);
            return Err(Failure::new(code::BLOCK, text));
        }
        Ok(parameters)
    }

    /// Streams of the whole test.
    pub fn streams(&self) -> usize {
        self.parallel * if self.bidirectional { 2 } else { 1 }
    }

    /// Whether the client sends on the stream of this index.
    pub fn client_sends(&self, index: usize) -> bool {
        if self.bidirectional { index < self.parallel } else { !self.reverse }
    }

    /// Blocks after which a direction is to end, if it is.
    pub fn blocks_wanted(&self) -> Option<u64> {
        match (self.blocks, self.num) {
            (0, 0) => None,
            (0, bytes) => Some(bytes.div_ceil(self.len.max(1) as u64)),
            (blocks, _) => Some(blocks),
        }
    }

    /// Bytes in front of a datagram's payload.
    pub fn header_bytes(&self) -> usize {
        if self.counters_64bit { 16 } else { 12 }
    }
}

/// A stream's number: 1, 3, 4, 5 …; there is no 2.
pub fn stream_id(index: usize) -> i64 {
    if index == 0 { 1 } else { index as i64 + 2 }
}

struct Reader<'a>(&'a Map);

impl Reader<'_> {
    /// `default` when the key is absent; it need not be in the range.
    fn number(&self, key: &str, default: u64, least: u64, most: u64, code: i32) -> Result<u64, Failure> {
        let Some(value) = json::get(self.0, key) else { return Ok(default) };
        if !value.is_number() {
            return Err(wrong_type(key, "a number"));
        }
        let number = json::integer(value).unwrap_or(i64::MAX);
        match u64::try_from(number) {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => {
                let what = describe(code);
                let text = format!("parameter error: {key} {value}, allowed are {least} to {most} ({what})");
                Err(Failure::new(code, text))
            }
        }
    }

    fn flag(&self, key: &str) -> Result<bool, Failure> {
        match json::get(self.0, key) {
            None => Ok(false),
            Some(Value::Bool(on)) => Ok(*on),
            Some(Value::Number(number)) => Ok(number.as_f64() != Some(0.0)),
            Some(_) => Err(wrong_type(key, "true or a number")),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>, Failure> {
        match json::get(self.0, key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(wrong_type(key, "text")),
        }
    }
}

fn wrong_type(key: &str, wanted: &str) -> Failure {
    Failure::new(code::PARAMETERS, format!("parameter error: {key} has the wrong type; it has to be {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Parameters, i32> {
        Parameters::from_json(&json::object(text.as_bytes()).unwrap()).map_err(|failure| failure.code)
    }

    #[test]
    fn captured_frames_are_read() {
        let tcp = r#"{"tcp":true,"omit":0,"time":10,"num":0,"blockcount":0,"parallel":1,"len":131072,"pacing_timer":1000,"client_version":"3.12"}"#;
        assert_eq!(read(tcp), Ok(Parameters::default()));
        let udp = r#"{"udp":true,"omit":0,"time":10,"num":0,"blockcount":0,"parallel":1,"len":32768,"bandwidth":1048576,"pacing_timer":1000,"gso":0,"gso_dg_size":0,"gso_bf_size":65507,"gro":0,"gro_bf_size":65507,"client_version":"3.21+"}"#;
        let wanted = Parameters { protocol: Protocol::Udp, len: 32768, bandwidth: 1 << 20, ..Parameters::default() };
        assert_eq!(read(udp), Ok(wanted));
        assert_eq!(read("{}"), Ok(Parameters::default()));
        assert_eq!(read(r#"{"REVERSE":true,"Time":2e0}"#).map(|p| (p.reverse, p.time)), Ok((true, 2)));
        assert_eq!(read(r#"{"reverse":false}"#).map(|p| p.reverse), Ok(false));
    }

    #[test]
    fn what_is_written_is_read_back_and_has_no_false() {
        let parameters = Parameters {
            protocol: Protocol::Udp,
            omit: 1,
            time: 0,
            num: 5,
            blocks: 0,
            mss: 1000,
            nodelay: true,
            parallel: 3,
            reverse: true,
            window: 65536,
            len: 1400,
            bandwidth: 10,
            fq_rate: 7,
            burst: 5,
            tos: 16,
            flow_label: 0xABCDE,
            title: Some("a\u{1b}title".into()),
            extra_data: Some("more".into()),
            congestion: Some("cubic".into()),
            get_server_output: true,
            counters_64bit: true,
            server_affinity: Some(1),
            verify: true,
            send_interval_us: 20,
            gsro: true,
            ..Parameters::default()
        };
        let value = parameters.to_json();
        assert!(!value.to_string().contains("false"));
        assert_eq!(Parameters::from_json(value.as_object().unwrap()), Ok(parameters));
    }

    #[test]
    fn values_out_of_range_have_their_codes() {
        for (text, code) in [
            (r#"{"parallel":0}"#, 6),
            (r#"{"parallel":-1}"#, 6),
            (r#"{"parallel":129}"#, 6),
            (r#"{"parallel":1e18}"#, 6),
            (r#"{"time":-1}"#, 5),
            (r#"{"time":86401}"#, 5),
            (r#"{"time":1e300}"#, 5),
            (r#"{"len":0}"#, 7),
            (r#"{"len":-1}"#, 7),
            (r#"{"len":1048577}"#, 7),
            (r#"{"udp":true,"len":15}"#, 20),
            (r#"{"udp":true,"len":65508}"#, 20),
            (r#"{"udp":true}"#, 20),
            (r#"{"bandwidth":-5}"#, 114),
            (r#"{"num":-5}"#, 114),
            (r#"{"burst":0}"#, 15),
            (r#"{"TOS":300}"#, 21),
            (r#"{"flowlabel":0}"#, 127),
            (r#"{"flowlabel":1048576}"#, 127),
            (r#"{"omit":601}"#, 12),
            (r#"{"MSS":40000}"#, 10),
            (r#"{"window":629145600}"#, 8),
            (r#"{"sctp":true}"#, 18),
            (r#"{"wharf_send_interval_us":9e15}"#, 114),
            (r#"{"wharf_two_phase":1,"reverse":true}"#, 114),
            (r#"{"time":"1"}"#, 114),
            (r#"{"title":5}"#, 114),
            (r#"{"reverse":"yes"}"#, 114),
        ] {
            assert_eq!(read(text), Err(code), "{text}");
        }
    }

    #[test]
    fn ids_leave_out_the_two() {
        assert_eq!((0..4).map(stream_id).collect::<Vec<_>>(), [1, 3, 4, 5]);
    }
}
