//! From a request and what is known of a file to the head of the answer, without a socket or a disk.

use super::clock;
use super::output::Output;
use super::range::{self, Selected};
use super::request::{Method, Request};
use super::status::{Status, status};
use std::fmt::Write;

/// A file may change again within this time without its time stamp telling so: its tag is weak until then.
const SETTLED_SECONDS: i64 = 2;

/// What an answer to a file's request depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    pub length: u64,
    /// When it was last changed: seconds since 1970, and the nanoseconds of that second.
    pub modified: (i64, u32),
}

/// What is sent behind the head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    pub offset: u64,
    pub length: u64,
}

/// A tag between quotation marks, and whether it stands for the same bytes always.
struct Tag {
    text: [u8; 48],
    length: usize,
    weak: bool,
}

impl Tag {
    fn of(facts: &Facts, now: i64) -> Tag {
        let (seconds, nanoseconds) = facts.modified;
        // 2 quotation marks, 2 hyphens, 16 + 8 + 16 digits.
        let mut tag = Tag { text: [0; 48], length: 0, weak: now.saturating_sub(seconds) < SETTLED_SECONDS };
        tag.push(b"\"");
        tag.push_hex(seconds as u64);
        tag.push(b"-");
        tag.push_hex(nanoseconds.into());
        tag.push(b"-");
        tag.push_hex(facts.length);
        tag.push(b"\"");
        tag
    }

    fn quoted(&self) -> &[u8] {
        &self.text[..self.length]
    }

    fn push(&mut self, bytes: &[u8]) {
        self.text[self.length..self.length + bytes.len()].copy_from_slice(bytes);
        self.length += bytes.len();
    }

    fn push_hex(&mut self, number: u64) {
        let digits = (64 - number.leading_zeros()).div_ceil(4).max(1);
        for digit in (0..digits).rev() {
            self.push(&[b"0123456789abcdef"[(number >> (4 * digit) & 15) as usize]]);
        }
    }
}

/// Decides about a file's request. Only a GET or HEAD comes here.
///
/// The order is the standard's (RFC 9110, 13.2.2): If-Match or else If-Unmodified-Since, If-None-Match or else
/// If-Modified-Since, then Range with If-Range.
fn decide(request: &Request<'_>, facts: &Facts, tag: &Tag) -> (Status, Part) {
    let (modified, _) = facts.modified;
    let whole = Part { offset: 0, length: facts.length };
    let none = Part { offset: 0, length: 0 };
    let since = |value: Option<&[u8]>| value.and_then(clock::parse);
    let names_it = |list: &[&[u8]], strong| list.iter().any(|value| names(value, tag, strong));
    if !request.if_match.is_empty() {
        if !names_it(&request.if_match, true) {
            return (status::PRECONDITION_FAILED, none);
        }
    } else if since(request.if_unmodified_since).is_some_and(|since| modified > since) {
        return (status::PRECONDITION_FAILED, none);
    }
    if !request.if_none_match.is_empty() {
        if names_it(&request.if_none_match, false) {
            return (status::NOT_MODIFIED, none);
        }
    } else if since(request.if_modified_since).is_some_and(|since| modified <= since) {
        return (status::NOT_MODIFIED, none);
    }
    // Ranges are defined for GET only.
    let Some(range) = request.range.filter(|_| request.method == Method::Get) else { return (status::OK, whole) };
    let same = match request.if_range.map(<[u8]>::trim_ascii) {
        None => true,
        Some(value) if value.starts_with(b"\"") => !tag.weak && value == tag.quoted(),
        // A date must be the very one, and old enough that nothing changed within its second.
        Some(value) => !tag.weak && clock::parse(value) == Some(modified),
    };
    match range::select(range, facts.length) {
        Selected::Part { offset, length } if same => (status::PARTIAL_CONTENT, Part { offset, length }),
        Selected::Nothing if same => (status::RANGE_NOT_SATISFIABLE, none),
        _ => (status::OK, whole),
    }
}

/// Whether a list of tags, or the star for all, names this one.
fn names(list: &[u8], tag: &Tag, strong: bool) -> bool {
    let mut rest = list.trim_ascii();
    if rest == b"*" {
        return true;
    }
    // Tags may contain commas.
    while let Some(start) = rest.iter().position(|&byte| byte == b'"') {
        let weak = rest[..start].ends_with(b"W/");
        let Some(end) = rest[start + 1..].iter().position(|&byte| byte == b'"') else { return false };
        let quoted = &rest[start..start + end + 2];
        if quoted == tag.quoted() && !(strong && (weak || tag.weak)) {
            return true;
        }
        rest = &rest[start + end + 2..];
    }
    false
}

/// Writes the head of the answer to a file's request, and returns its status and what follows. Of what has neither a
/// part of the file nor 304 as its answer the text is written too.
pub fn file(request: &Request<'_>, facts: &Facts, name: &str, close: bool, output: &mut Output) -> (Status, Part) {
    let (now, date) = clock::now();
    let tag = Tag::of(facts, now);
    let (found, part) = decide(request, facts, &tag);
    if found == status::RANGE_NOT_SATISFIABLE || found == status::PRECONDITION_FAILED {
        let mut field = String::new();
        if found == status::RANGE_NOT_SATISFIABLE {
            let _ = write!(field, "Content-Range: bytes */{}\r\n", facts.length);
        }
        text(found, request.method, request.minor, close, &field, output);
        return (found, part);
    }
    line(found, &date, output);
    if found != status::NOT_MODIFIED {
        output.push_str("Content-Type: ");
        output.push_str(content_type(name));
        // No browser makes a page of what is none.
        output.push_str("\r\nX-Content-Type-Options: nosniff\r\nContent-Length: ");
        output.push_number(part.length);
        output.push_str("\r\nAccept-Ranges: bytes\r\n");
    }
    if found == status::PARTIAL_CONTENT {
        output.push_str("Content-Range: bytes ");
        output.push_number(part.offset);
        output.push_str("-");
        output.push_number(part.offset + part.length - 1);
        output.push_str("/");
        output.push_number(facts.length);
        output.push_str("\r\n");
    }
    output.push_str("Last-Modified: ");
    // A date in the future would be no date of a change: the standard wants the time of the answer instead.
    output.push(&clock::date(facts.modified.0.min(now)));
    output.push_str(if tag.weak { "\r\nETag: W/" } else { "\r\nETag: " });
    output.push(tag.quoted());
    output.push_str("\r\n");
    end(request.minor, close, output);
    let sent = if request.method == Method::Head { Part { offset: 0, length: 0 } } else { part };
    (found, sent)
}

/// Writes a whole answer that consists of a sentence. `field`: further lines of the head, each with its end.
pub fn text(found: Status, method: Method, minor: u8, close: bool, field: &str, output: &mut Output) {
    let Status { code, reason, because } = found;
    let content = format!("{code} {reason}: {because}\n");
    content_of(found, method, minor, close, ("text/plain; charset=utf-8", field), content.as_bytes(), output);
}

/// Writes a whole answer with its content, and the type and further fields of it.
pub fn content_of(
    found: Status,
    method: Method,
    minor: u8,
    close: bool,
    (content_type, field): (&str, &str),
    content: &[u8],
    output: &mut Output,
) {
    line(found, &clock::now().1, output);
    output.push_str("Content-Type: ");
    output.push_str(content_type);
    // No browser makes a page of what is none.
    output.push_str("\r\nX-Content-Type-Options: nosniff\r\nContent-Length: ");
    output.push_number(content.len() as u64);
    output.push_str("\r\n");
    output.push_str(field);
    end(minor, close, output);
    if method != Method::Head {
        output.push(content);
    }
}

fn line(found: Status, date: &clock::Date, output: &mut Output) {
    // The answer names the version that this server speaks, whatever the request's.
    output.push_str("HTTP/1.1 ");
    output.push_number(found.code.into());
    output.push_str(" ");
    output.push_str(found.reason);
    output.push_str("\r\nDate: ");
    output.push(date);
    output.push_str("\r\n");
}

fn end(minor: u8, close: bool, output: &mut Output) {
    output.push_str(match (close, minor) {
        (true, _) => "Connection: close\r\n\r\n",
        (false, 0) => "Connection: keep-alive\r\n\r\n",
        (false, _) => "\r\n",
    });
}

/// By the end of the name. Text is taken for UTF-8.
fn content_type(name: &str) -> &'static str {
    let file = name.rsplit('/').next().unwrap_or(name);
    let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
    let found = match extension {
        // What a site consists of, without a search.
        "html" | "htm" => return "text/html; charset=utf-8",
        "css" => return "text/css; charset=utf-8",
        "js" | "mjs" => return "text/javascript; charset=utf-8",
        "txt" => return "text/plain; charset=utf-8",
        other => mime_guess::from_ext(other).first_raw(),
    };
    match found {
        Some("text/plain") => "text/plain; charset=utf-8",
        Some("text/markdown") => "text/markdown; charset=utf-8",
        Some("text/csv") => "text/csv; charset=utf-8",
        Some("text/xml") => "text/xml; charset=utf-8",
        Some("text/html") => "text/html; charset=utf-8",
        Some("text/css") => "text/css; charset=utf-8",
        Some("text/javascript") => "text/javascript; charset=utf-8",
        // Of whatever kind of text: a source, a table, a letter.
        Some(other) if other.starts_with("text/") => with_charset(other),
        Some(other) => other,
        None => "application/octet-stream",
    }
}

/// There are some hundred types of text, so what is kept here stays small.
fn with_charset(text: &'static str) -> &'static str {
    use std::collections::HashMap;
    use std::sync::{Mutex, OnceLock, PoisonError};
    static WRITTEN: OnceLock<Mutex<HashMap<&'static str, &'static str>>> = OnceLock::new();
    let mut written = WRITTEN.get_or_init(Mutex::default).lock().unwrap_or_else(PoisonError::into_inner);
    written.entry(text).or_insert_with(|| String::leak(format!("{text}; charset=utf-8")))
}

#[cfg(test)]
mod tests {
    use super::super::request::{Parsed, parse};
    use super::*;

    const FACTS: Facts = Facts { length: 1000, modified: (784_111_777, 5) };
    const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";
    const TAG: &str = "\"2ebc98a1-5-3e8\"";

    fn answer_about(facts: &Facts, verb: &str, fields: &str) -> (u16, Part, String) {
        let text = format!("{verb} /a.txt HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let Parsed::Request(request, _) = parse(text.as_bytes()) else { panic!("{text}") };
        let mut output = Output::default();
        let (found, part) = file(&request, facts, "a.txt", false, &mut output);
        (found.code, part, String::from_utf8(output.take().to_vec()).unwrap())
    }

    fn answer(fields: &str) -> (u16, u64, u64) {
        let (code, part, _) = answer_about(&FACTS, "GET", fields);
        (code, part.offset, part.length)
    }

    #[test]
    fn a_head_says_what_there_is_to_know() {
        let (code, part, head) = answer_about(&FACTS, "GET", "");
        assert_eq!((code, part), (200, Part { offset: 0, length: 1000 }));
        let (line, rest) = head.split_once("\r\n").unwrap();
        let (date, rest) = rest.split_once("\r\n").unwrap();
        assert_eq!(line, "HTTP/1.1 200 OK");
        assert!(clock::parse(date.strip_prefix("Date: ").unwrap().as_bytes()).is_some());
        let expected = format!(
            "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: 1000\r\nAccept-Ranges: bytes\r\n\
             Last-Modified: {DATE}\r\nETag: {TAG}\r\n\r\n"
        );
        assert_eq!(rest, expected);
        let (code, part, same) = answer_about(&FACTS, "HEAD", "Range: bytes=0-1\r\n");
        assert_eq!((code, part.length), (200, 0));
        assert!(same.ends_with(&expected), "{same}");
    }

    #[test]
    fn ranges_are_answered_with_their_place() {
        let (code, part, head) = answer_about(&FACTS, "GET", "Range: bytes=-10\r\n");
        assert_eq!((code, part), (206, Part { offset: 990, length: 10 }));
        assert!(head.contains("Content-Length: 10\r\n") && head.contains("Content-Range: bytes 990-999/1000\r\n"));
        let (code, part, head) = answer_about(&FACTS, "GET", "Range: bytes=1000-\r\n");
        assert_eq!((code, part.length), (416, 0));
        assert!(head.contains("Content-Range: bytes */1000\r\n"), "{head}");
        assert_eq!(answer("Range: bytes=0-1\r\nRange: bytes=0-1\r\n"), (200, 0, 1000));
    }

    #[test]
    fn conditions_are_weighed_in_their_order() {
        for (fields, code) in [
            (format!("If-None-Match: {TAG}"), 304),
            (format!("If-None-Match: W/{TAG}"), 304),
            (format!("If-None-Match: \"a,b\", \"c\",{TAG}"), 304),
            (format!("If-None-Match: \"a\"\r\nIf-None-Match: {TAG}"), 304),
            ("If-None-Match: *".into(), 304),
            ("If-None-Match: \"other\"".into(), 200),
            (format!("If-None-Match: {}", TAG.trim_matches('"')), 200),
            ("If-None-Match: \"unfinished".into(), 200),
            (format!("If-Modified-Since: {DATE}"), 304),
            (format!("If-Modified-Since: {EARLIER}"), 200),
            ("If-Modified-Since: yesterday".into(), 200),
            // The tag decides, and the date is not looked at.
            (format!("If-None-Match: \"other\"\r\nIf-Modified-Since: {DATE}"), 200),
            (format!("If-Match: {TAG}"), 200),
            ("If-Match: *".into(), 200),
            (format!("If-Match: W/{TAG}"), 412),
            ("If-Match: \"other\"".into(), 412),
            (format!("If-Match: {TAG}\r\nIf-None-Match: {TAG}"), 304),
            (format!("If-Unmodified-Since: {DATE}"), 200),
            (format!("If-Unmodified-Since: {EARLIER}"), 412),
            (format!("Range: bytes=0-0\r\nIf-Range: {TAG}"), 206),
            (format!("Range: bytes=0-0\r\nIf-Range: {DATE}"), 206),
            (format!("Range: bytes=0-0\r\nIf-Range: W/{TAG}"), 200),
            ("Range: bytes=0-0\r\nIf-Range: \"other\"".into(), 200),
            (format!("Range: bytes=0-0\r\nIf-Range: {EARLIER}"), 200),
            ("Range: bytes=5000-\r\nIf-Range: \"other\"".into(), 200),
            (format!("Range: bytes=5000-\r\nIf-Range: {TAG}"), 416),
            (format!("Range: bytes=0-0\r\nIf-None-Match: {TAG}"), 304),
        ] {
            assert_eq!(answer(&format!("{fields}\r\n")).0, code, "{fields}");
        }
        let (_, _, head) = answer_about(&FACTS, "GET", &format!("If-None-Match: {TAG}\r\n"));
        assert!(head.contains(&format!("ETag: {TAG}\r\n")) && !head.contains("Content-"), "{head}");
    }

    #[test]
    fn what_has_just_changed_is_not_continued() {
        let young = Facts { modified: (clock::seconds(), 0), ..FACTS };
        let (_, _, head) = answer_about(&young, "GET", "");
        let tag = head.split("ETag: W/").nth(1).unwrap().split("\r\n").next().unwrap();
        assert_eq!(answer_about(&young, "GET", &format!("If-None-Match: {tag}\r\n")).0, 304);
        assert_eq!(answer_about(&young, "GET", &format!("Range: bytes=0-0\r\nIf-Range: {tag}\r\n")).0, 200);
        assert_eq!(answer_about(&young, "GET", &format!("If-Match: {tag}\r\n")).0, 412);
        // And a time that has not come yet is not told.
        let future = Facts { modified: (i64::MAX, u32::MAX), length: u64::MAX };
        assert!(answer_about(&future, "GET", "").2.contains("Last-Modified: "));
        let past = Facts { modified: (i64::MIN, 0), length: 0 };
        assert!(answer_about(&past, "GET", "").2.contains("Last-Modified: Thu, 01 Jan 1970 00:00:00 GMT\r\n"));
    }

    #[test]
    fn text_has_a_charset() {
        for (name, expected) in [
            ("a.html", "text/html; charset=utf-8"),
            ("a/b.HTML", "text/html; charset=utf-8"),
            ("a.css", "text/css; charset=utf-8"),
            ("a.js", "text/javascript; charset=utf-8"),
            ("a.md", "text/markdown; charset=utf-8"),
            ("a.rs", "text/x-rust; charset=utf-8"),
            ("a.tar.gz", "application/gzip"),
            ("a.png", "image/png"),
            ("a.json", "application/json"),
            ("a.svg", "image/svg+xml"),
            ("a.wasm", "application/wasm"),
            ("Makefile", "application/octet-stream"),
            ("a.d/b", "application/octet-stream"),
            ("a.nobody-knows", "application/octet-stream"),
        ] {
            assert_eq!(content_type(name), expected, "{name}");
        }
    }
}
