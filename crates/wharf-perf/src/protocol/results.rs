//! What the two ends tell each other after the test.

use super::failure::{Failure, code};
use super::json::{self, Map};
use serde_json::{Value, json};

/// One end's account of the test.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// Percent of one processor: total, user, system.
    pub cpu: [f64; 3],
    /// Whether `retransmits` means something: 1 yes, 0 a sender that cannot know, −1 a receiver only.
    pub sender_has_retransmits: i64,
    /// TCP's congestion control.
    pub congestion: Option<String>,
    /// All streams, of both directions.
    pub streams: Vec<StreamResult>,
    /// The server's report as text, or as an object.
    pub server_output: Option<Value>,
    /// Ours: whether blocks were verified.
    pub verified: bool,
    /// Ours: the second phase of the test can follow.
    pub two_phase: bool,
}

/// One end's account of one stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StreamResult {
    /// See [`stream_id`](super::parameters::stream_id).
    pub id: i64,
    /// Sent or received, without the omitted ones. `None`: the peer sent something that cannot be.
    pub bytes: Option<u64>,
    /// Segments sent again; −1: unknown.
    pub retransmits: i64,
    /// Seconds.
    pub jitter: f64,
    /// Datagrams lost, the omitted ones included.
    pub errors: i64,
    /// Of those.
    pub omitted_errors: i64,
    /// Datagrams sent, or the highest number received; the omitted ones included.
    pub packets: i64,
    /// Of those.
    pub omitted_packets: i64,
    /// Seconds, without the omitted ones; 0: not told.
    pub seconds: f64,
    /// Ours: blocks that failed verification.
    pub verification: Option<Verification>,
}

/// What a receiver found that looked at every block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verification {
    /// Blocks looked at.
    pub blocks: u64,
    /// The checksum was wrong.
    pub checksum: u64,
    /// Another number than the next. Not an error of UDP: there it is loss and order.
    pub sequence: u64,
    /// The checksum was right, the content was not what is sent.
    pub content: u64,
}

impl Verification {
    /// All of them.
    pub fn errors(&self) -> u64 {
        // A peer may tell any numbers.
        self.checksum.saturating_add(self.sequence).saturating_add(self.content)
    }

    pub(crate) fn to_json(self) -> Value {
        json!({
            "blocks": self.blocks, "checksum_errors": self.checksum,
            "sequence_errors": self.sequence, "content_errors": self.content,
        })
    }
}

impl Results {
    /// The object to send.
    pub fn to_json(&self) -> Value {
        let mut map = Map::new();
        for (key, percent) in ["cpu_util_total", "cpu_util_user", "cpu_util_system"].into_iter().zip(self.cpu) {
            map.insert(key.into(), json!(percent));
        }
        map.insert("sender_has_retransmits".into(), self.sender_has_retransmits.into());
        if let Some(name) = &self.congestion {
            map.insert("congestion_used".into(), name.as_str().into());
        }
        let streams: Vec<Value> = self.streams.iter().map(StreamResult::to_json).collect();
        map.insert("streams".into(), streams.into());
        for (key, on) in [("wharf_verify", self.verified), ("wharf_two_phase", self.two_phase)] {
            if on {
                map.insert(key.into(), 1.into());
            }
        }
        match &self.server_output {
            Some(Value::String(text)) => drop(map.insert("server_output_text".into(), text.as_str().into())),
            Some(object) => drop(map.insert("server_output_json".into(), object.clone())),
            None => {}
        }
        json!(map)
    }

    /// Reads what the peer sent about a test with streams of these ids.
    ///
    /// # Errors
    ///
    /// 117 for what is missing or cannot be, 208 for an id that the test does not have.
    pub fn from_json(map: &Map, ids: &[i64]) -> Result<Results, Failure> {
        let read = Reader(map);
        let mut results = Results {
            cpu: [read.float("cpu_util_total")?, read.float("cpu_util_user")?, read.float("cpu_util_system")?],
            sender_has_retransmits: read.integer("sender_has_retransmits")?,
            congestion: json::get(map, "congestion_used").and_then(Value::as_str).map(printable),
            streams: Vec::new(),
            server_output: None,
            verified: json::get(map, "wharf_verify").is_some(),
            two_phase: json::get(map, "wharf_two_phase").is_some(),
        };
        let text = json::get(map, "server_output_text").filter(|value| value.is_string());
        results.server_output = text.or_else(|| json::get(map, "server_output_json")).cloned();
        let Some(Value::Array(streams)) = json::get(map, "streams") else { return Err(wrong("streams")) };
        for stream in streams {
            let Value::Object(stream) = stream else { return Err(wrong("streams")) };
            let stream = StreamResult::from_json(stream)?;
            if !ids.contains(&stream.id) {
                let text = format!("the results name a stream {} that the test does not have", stream.id);
                return Err(Failure::new(code::STREAM_ID, text));
            }
            results.streams.push(stream);
        }
        Ok(results)
    }

    /// The account of a stream.
    pub fn stream(&self, id: i64) -> Option<&StreamResult> {
        self.streams.iter().find(|stream| stream.id == id)
    }
}

impl StreamResult {
    fn to_json(&self) -> Value {
        let mut value = json!({
            "id": self.id,
            "bytes": self.bytes.unwrap_or(0),
            "retransmits": self.retransmits,
            "jitter": self.jitter,
            "errors": self.errors,
            "omitted_errors": self.omitted_errors,
            "packets": self.packets,
            "omitted_packets": self.omitted_packets,
            "start_time": 0,
            "end_time": self.seconds,
        });
        if let Some(verification) = self.verification {
            value["wharf_verification"] = verification.to_json();
        }
        value
    }

    fn from_json(map: &Map) -> Result<StreamResult, Failure> {
        let read = Reader(map);
        let omitted = (json::get(map, "omitted_errors"), json::get(map, "omitted_packets"));
        let (omitted_errors, omitted_packets) = match omitted {
            (None, None) => (0, 0),
            _ => (read.integer("omitted_errors")?, read.integer("omitted_packets")?),
        };
        let seconds = match json::get(map, "end_time") {
            Some(_) => read.float("end_time")?,
            None => 0.0,
        };
        let verification = json::get(map, "wharf_verification").and_then(Value::as_object).map(|found| {
            let count = |key| json::get(found, key).and_then(Value::as_u64).unwrap_or(0);
            Verification {
                blocks: count("blocks"),
                checksum: count("checksum_errors"),
                sequence: count("sequence_errors"),
                content: count("content_errors"),
            }
        });
        Ok(StreamResult {
            id: read.integer("id")?,
            bytes: u64::try_from(read.integer("bytes")?).ok(),
            retransmits: read.integer("retransmits")?,
            jitter: read.float("jitter")?,
            errors: read.integer("errors")?,
            omitted_errors,
            packets: read.integer("packets")?,
            omitted_packets,
            seconds,
            verification,
        })
    }
}

/// Text of a stranger, without what could steer a terminal.
pub fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '\u{FFFD}' } else { letter }).collect()
}

struct Reader<'a>(&'a Map);

impl Reader<'_> {
    fn integer(&self, key: &str) -> Result<i64, Failure> {
        json::get(self.0, key).and_then(json::integer).ok_or_else(|| wrong(key))
    }

    fn float(&self, key: &str) -> Result<f64, Failure> {
        let number = json::get(self.0, key).and_then(Value::as_f64).filter(|number| number.is_finite());
        number.ok_or_else(|| wrong(key))
    }
}

fn wrong(key: &str) -> Failure {
    Failure::new(code::RESULTS, format!("unable to receive results: {key} is missing or no sensible value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Results, i32> {
        Results::from_json(&json::object(text.as_bytes()).unwrap(), &[1, 3]).map_err(|failure| failure.code)
    }

    const CAPTURED: &str = r#"{"cpu_util_total":0.65,"cpu_util_user":0.1,"cpu_util_system":0.55,"sender_has_retransmits":1,"congestion_used":"cubic","streams":[{"id":1,"bytes":393216,"retransmits":18446744073709551615,"jitter":0,"errors":0,"packets":0,"start_time":0,"end_time":1.000916}]}"#;

    #[test]
    fn what_stock_sends_is_read_and_ours_is_read_back() {
        let results = read(CAPTURED).unwrap();
        let stream = results.stream(1).unwrap();
        assert_eq!((stream.bytes, stream.retransmits, stream.seconds), (Some(393216), -1, 1.000916));
        assert_eq!(results.congestion.as_deref(), Some("cubic"));
        let mut ours = results.clone();
        (ours.verified, ours.two_phase) = (true, true);
        ours.streams[0].verification = Some(Verification { blocks: 3, checksum: 1, sequence: 2, content: 0 });
        assert_eq!(Results::from_json(ours.to_json().as_object().unwrap(), &[1]), Ok(ours));
    }

    #[test]
    fn what_is_missing_or_cannot_be_is_refused() {
        assert_eq!(read(&CAPTURED.replace("\"id\":1", "\"id\":2")), Err(208));
        for (from, to) in [
            ("\"cpu_util_user\":0.1,", ""),
            ("\"bytes\":393216,", ""),
            ("\"packets\":0", "\"packets\":\"x\""),
            ("\"errors\":0", "\"errors\":0,\"omitted_errors\":0"),
            ("\"streams\":[", "\"other\":["),
            ("\"bytes\":393216", "\"bytes\":1e300"),
        ] {
            assert_eq!(read(&CAPTURED.replace(from, to)), Err(117), "{from} → {to}");
        }
        let negative = read(&CAPTURED.replace("393216", "-4")).unwrap();
        assert_eq!(negative.streams[0].bytes, None, "unknown, and said so");
    }

    #[test]
    fn a_strangers_text_cannot_steer_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\n"), "a\u{FFFD}[2Jb\u{FFFD}");
    }
}
