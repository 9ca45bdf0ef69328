//! Reading JSON from a stranger, and writing reports.
//!
//! Stock peers match keys in any case, repeat some, write −1 as 2^64−1 and add text behind the object; all of that is
//! read. What is deeper than 32 levels is not.

use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter};
use std::io::{self, Write};

/// An object, its keys in order.
pub type Map = serde_json::Map<String, Value>;

/// Levels of nesting that a peer may send; its objects have three.
const DEPTH_MAX: usize = 32;

/// The object at the start of `text`; `None` if there is none. Text behind it is ignored; of equal keys the last
/// counts.
pub fn object(text: &[u8]) -> Option<Map> {
    if depth(text) > DEPTH_MAX {
        return None;
    }
    match serde_json::Deserializer::from_slice(text).into_iter::<Value>().next() {
        Some(Ok(Value::Object(map))) => Some(map),
        _ => None,
    }
}

fn depth(text: &[u8]) -> usize {
    let (mut depth, mut deepest, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'[' | b'{' if !quoted => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !quoted => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// The value of a key, whatever its case; of several the last.
pub fn get<'a>(map: &'a Map, key: &str) -> Option<&'a Value> {
    map.iter().rev().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value)
}

/// A whole number: plain, with an exponent, or 2^63 and more for −1. `None`: not a number, or none that fits.
pub fn integer(value: &Value) -> Option<i64> {
    if let Some(number) = value.as_i64() {
        return Some(number);
    }
    if value.is_u64() {
        return Some(-1);
    }
    let number = value.as_f64()?;
    if (9.2e18..=1.9e19).contains(&number) {
        return Some(-1);
    }
    (number.is_finite() && number.abs() < 9.2e18).then_some(number as i64)
}

/// As iperf3 prints objects: tabs in front of keys and behind colons.
pub fn pretty(value: &Value) -> String {
    let mut out = Vec::new();
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Tabs(PrettyFormatter::with_indent(b"\t")));
    // Writing to memory cannot fail, and all keys are text.
    let _ = serde::Serialize::serialize(value, &mut serializer);
    without_controls(&String::from_utf8(out).unwrap_or_default())
}

/// JSON text in which the control characters beyond ASCII's first 32 are escaped, too: a terminal obeys some of them
/// (U+009B). They stand in strings only, where the escape means the same.
pub fn without_controls(text: &str) -> String {
    if !text.contains(|letter| matches!(letter, '\u{7f}'..='\u{9f}')) {
        return text.to_owned();
    }
    let escaped = |letter: char| match letter {
        '\u{7f}'..='\u{9f}' => format!("\\u{:04x}", u32::from(letter)),
        other => other.to_string(),
    };
    text.chars().map(escaped).collect()
}

struct Tabs<'a>(PrettyFormatter<'a>);

impl Formatter for Tabs<'_> {
    fn begin_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b":\t")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn objects_are_read_leniently_and_nothing_else_is_taken_for_one() {
        let map = object(br#" {"Time": 1.2e11, "time":3, "x":18446744073709551615} and more"#).unwrap();
        assert_eq!(integer(get(&map, "TIME").unwrap()), Some(3), "the last of two");
        assert_eq!(integer(get(&map, "x").unwrap()), Some(-1));
        assert_eq!(integer(&json!(1.2e11)), Some(120_000_000_000));
        assert_eq!(integer(&json!(1e300)), None);
        assert_eq!(integer(&json!("1")), None);
        for text in ["", "[1]", "7", "{", r#"{"a":NaN}"#, r#"{"a":1e400}"#, "{'a':1}"] {
            assert!(object(text.as_bytes()).is_none(), "{text}");
        }
        assert!(object(b"{\"a\":\"\xff\"}").is_none());
        assert!(object(&[b'['; 8000]).is_none());
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(31), "]".repeat(31));
        assert!(object(deep.as_bytes()).is_some());
        let deeper = format!("{{\"a\":{}1{}}}", "[".repeat(32), "]".repeat(32));
        assert!(object(deeper.as_bytes()).is_none());
    }

    #[test]
    fn any_bytes_are_read_without_a_panic() {
        fastrand::seed(7);
        let seed = br#"{"tcp":true,"omit":0,"time":10,"streams":[{"id":1,"bytes":-1e3}],"title":"\u00e4\n"}"#;
        for _ in 0..20_000 {
            let mut text = seed.to_vec();
            for _ in 0..fastrand::usize(1..6) {
                let at = fastrand::usize(..text.len());
                match fastrand::u8(..3) {
                    0 => text[at] = fastrand::u8(..),
                    1 => drop(text.remove(at)),
                    _ => text.insert(at, *fastrand::choice(b"{}[],:\"\\e-9\0").unwrap()),
                }
            }
            if let Some(map) = object(&text) {
                for value in map.values() {
                    let whole = integer(value);
                    assert!(value.is_number() || whole.is_none(), "{value} is no number");
                    assert!(value.as_i64().is_none_or(|number| whole == Some(number)), "{value} was read as {whole:?}");
                }
            }
        }
    }

    #[test]
    fn no_control_character_is_printed_as_it_is() {
        let text = pretty(&json!({"title": "a\u{9b}2J\u{7f}\u{1b}\u{e4}"}));
        assert_eq!(text, "{\n\t\"title\":\t\"a\\u009b2J\\u007f\\u001b\u{e4}\"\n}");
        assert_eq!(object(text.as_bytes()).unwrap()["title"], "a\u{9b}2J\u{7f}\u{1b}\u{e4}");
    }

    #[test]
    fn reports_look_like_iperf3s() {
        assert_eq!(
            pretty(&json!({"a": 1, "b": [{"c": 0.5}]})),
            "{\n\t\"a\":\t1,\n\t\"b\":\t[\n\t\t{\n\t\t\t\"c\":\t0.5\n\t\t}\n\t]\n}"
        );
    }
}
