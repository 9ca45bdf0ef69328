//! From bytes to a request, without a socket.
//!
//! `httparse` knows the syntax of a head. What is decided here is what a head *means*, and where doubt would let one
//! message be taken for two it is refused: two lengths, a length beside chunks, codings nobody asked for, two hosts,
//! lines of which some end with CRLF and some with a bare LF.

use super::status::{Status, status};
use std::mem::MaybeUninit;

/// Bytes of a request line with a target; what is longer is refused with 414.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a head in all; what is longer is refused with 431. As large as a buffer of the port's pool, so that what
/// comes in one piece is never copied.
pub const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Fields of a head; more are refused with 431.
pub const FIELDS_MAX: usize = 100;
/// Bytes of a body, with the framing of its chunks, that are skipped; what says that it is longer is refused with 413.
pub const BODY_BYTES_MAX: u64 = 64 * 1024;

/// What the bytes that are there come to.
#[derive(Debug)]
pub enum Parsed<'a> {
    /// A head, and how many bytes it has.
    Request(Request<'a>, usize),
    /// The head has not ended yet.
    NotYet,
    /// No request this server answers with anything but this status. Where the next request begins is not known, so the
    /// connection ends.
    Refused(Status),
}

/// A request, of which the fields that matter to files are kept.
#[derive(Debug)]
pub struct Request<'a> {
    pub method: Method,
    /// As it came: `/path?query`, or `http://host/path`.
    pub target: &'a str,
    /// 0 or 1: of HTTP/1.0 and HTTP/1.1.
    pub minor: u8,
    /// The client wants to go on with this connection, and the request does not stand in the way.
    pub keep_alive: bool,
    pub body: Body,
    pub range: Option<&'a [u8]>,
    pub if_range: Option<&'a [u8]>,
    pub if_match: Vec<&'a [u8]>,
    pub if_none_match: Vec<&'a [u8]>,
    pub if_modified_since: Option<&'a [u8]>,
    pub if_unmodified_since: Option<&'a [u8]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    Get,
    Head,
    /// One that HTTP has and this server does not serve: 405.
    NotServed,
    /// One that nobody has heard of: 501.
    Unknown,
}

/// What follows the head and is no part of the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    None,
    Length(u64),
    Chunked,
}

/// Reads a head from the start of `bytes`.
pub fn parse(bytes: &[u8]) -> Parsed<'_> {
    let mut fields = [const { MaybeUninit::uninit() }; FIELDS_MAX];
    let mut head = httparse::Request::new(&mut []);
    match head.parse_with_uninit_headers(bytes, &mut fields) {
        Ok(httparse::Status::Complete(length)) if length > HEAD_BYTES_MAX => Parsed::Refused(status::FIELDS_TOO_LARGE),
        Ok(httparse::Status::Complete(length)) if ends_are_mixed(&bytes[..length]) => {
            Parsed::Refused(status::BAD_REQUEST)
        }
        Ok(httparse::Status::Complete(length)) => match interpret(&head) {
            Ok(request) => Parsed::Request(request, length),
            Err(status) => Parsed::Refused(status),
        },
        Ok(httparse::Status::Partial) => unfinished(bytes),
        Err(httparse::Error::TooManyHeaders) => Parsed::Refused(status::FIELDS_TOO_LARGE),
        Err(httparse::Error::Version) if names_a_version(bytes) => Parsed::Refused(status::VERSION_NOT_SUPPORTED),
        Err(_) => Parsed::Refused(status::BAD_REQUEST),
    }
}

/// Whether some lines end with CRLF and some with LF alone. All with LF is how people type; but to whoever takes only
/// CRLF for an end, a LF among others is a part of a value, and the field behind it is hidden.
fn ends_are_mixed(head: &[u8]) -> bool {
    let lines = head.iter().enumerate().filter(|&(_, &byte)| byte == b'\n');
    let mut have_cr = lines.map(|(at, _)| at > 0 && head[at - 1] == b'\r');
    let first = have_cr.next();
    have_cr.any(|has_cr| Some(has_cr) != first)
}

/// Empty lines before a request are allowed.
fn without_empty_lines(bytes: &[u8]) -> &[u8] {
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    &bytes[start..]
}

/// The first line, as far as it is there.
pub fn first_line(bytes: &[u8]) -> &[u8] {
    let bytes = without_empty_lines(bytes);
    let end = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(bytes.len());
    &bytes[..end]
}

fn unfinished(bytes: &[u8]) -> Parsed<'_> {
    let line = first_line(bytes);
    let ended = line.len() < without_empty_lines(bytes).len();
    match () {
        () if line.len() > LINE_BYTES_MAX => Parsed::Refused(status::TARGET_TOO_LONG),
        // An endless run of empty lines is no request line either.
        () if bytes.len() >= HEAD_BYTES_MAX && !ended => Parsed::Refused(status::TARGET_TOO_LONG),
        () if bytes.len() >= HEAD_BYTES_MAX => Parsed::Refused(status::FIELDS_TOO_LARGE),
        () => Parsed::NotYet,
    }
}

/// Whether the line ends in `HTTP/1.2` or the like, which is no error of syntax.
fn names_a_version(bytes: &[u8]) -> bool {
    let line = first_line(bytes);
    let version = line.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    matches!(version, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor] if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn interpret<'a>(head: &httparse::Request<'_, 'a>) -> Result<Request<'a>, Status> {
    let (Some(verb), Some(target), Some(minor)) = (head.method, head.path, head.version) else {
        return Err(status::BAD_REQUEST);
    };
    if target.len() > LINE_BYTES_MAX {
        return Err(status::TARGET_TOO_LONG);
    }
    let mut request = Request {
        method: method(verb),
        target,
        minor,
        keep_alive: minor == 1,
        body: Body::None,
        range: None,
        if_range: None,
        if_match: Vec::new(),
        if_none_match: Vec::new(),
        if_modified_since: None,
        if_unmodified_since: None,
    };
    let (mut host, mut length, mut coding) = (None, None, None);
    let (mut close, mut keep, mut expects, mut ranges) = (false, false, false, 0);
    for field in head.headers.iter() {
        let value = field.value;
        match Name::of(field.name) {
            Name::Host => once(&mut host, value)?,
            Name::ContentLength => once(&mut length, value)?,
            Name::TransferEncoding => once(&mut coding, value)?,
            Name::Connection => {
                for option in value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii) {
                    close |= option.eq_ignore_ascii_case(b"close");
                    keep |= option.eq_ignore_ascii_case(b"keep-alive");
                }
            }
            Name::Expect => expects = true,
            Name::Range => {
                request.range = Some(value);
                ranges += 1;
            }
            Name::IfRange => request.if_range = Some(value),
            Name::IfMatch => request.if_match.push(value),
            Name::IfNoneMatch => request.if_none_match.push(value),
            Name::IfModifiedSince => request.if_modified_since = Some(value),
            Name::IfUnmodifiedSince => request.if_unmodified_since = Some(value),
            Name::Other => {}
        }
    }
    match host {
        None if minor == 1 => return Err(status::BAD_REQUEST),
        Some(host) if !host.iter().all(|&byte| may_be_in_host(byte)) => return Err(status::BAD_REQUEST),
        _ => {}
    }
    request.body = body(length, coding, minor)?;
    // Which of two is meant nobody knows, and a range may always be ignored.
    if ranges > 1 {
        request.range = None;
    }
    request.keep_alive = !close && (minor == 1 || keep);
    // Whoever waits for a "100 Continue" gets the answer instead, and may then send the body or not.
    if expects && request.body != Body::None {
        request.keep_alive = false;
    }
    Ok(request)
}

fn method(verb: &str) -> Method {
    match verb {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" | "PUT" | "DELETE" | "PATCH" | "OPTIONS" | "TRACE" | "CONNECT" => Method::NotServed,
        _ => Method::Unknown,
    }
}

/// Two of these, even two equal ones, may be read differently by whoever passed the request on.
fn once<'a>(place: &mut Option<&'a [u8]>, value: &'a [u8]) -> Result<(), Status> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(status::BAD_REQUEST),
    }
}

fn body(length: Option<&[u8]>, coding: Option<&[u8]>, minor: u8) -> Result<Body, Status> {
    match (length, coding) {
        (None, None) => Ok(Body::None),
        (Some(digits), None) => {
            if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
                return Err(status::BAD_REQUEST);
            }
            let bytes = str::from_utf8(digits).ok().and_then(|digits| digits.parse::<u64>().ok());
            match bytes {
                Some(0) => Ok(Body::None),
                Some(bytes) if bytes <= BODY_BYTES_MAX => Ok(Body::Length(bytes)),
                // More than fits into a number is more than is skipped, too.
                _ => Err(status::CONTENT_TOO_LARGE),
            }
        }
        (None, Some(coding)) if minor == 1 && coding.eq_ignore_ascii_case(b"chunked") => Ok(Body::Chunked),
        (None, Some(_)) if minor == 1 => Err(status::NOT_IMPLEMENTED),
        _ => Err(status::BAD_REQUEST),
    }
}

/// A name, an address, a port: what an authority consists of, without a user.
fn may_be_in_host(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(&byte)
}

enum Name {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Expect,
    Range,
    IfRange,
    IfMatch,
    IfNoneMatch,
    IfModifiedSince,
    IfUnmodifiedSince,
    Other,
}

impl Name {
    /// The length goes first: most fields of most requests are none of these.
    fn of(name: &str) -> Name {
        let is = |other: &str| name.eq_ignore_ascii_case(other);
        match name.len() {
            4 if is("host") => Name::Host,
            5 if is("range") => Name::Range,
            6 if is("expect") => Name::Expect,
            8 if is("if-range") => Name::IfRange,
            8 if is("if-match") => Name::IfMatch,
            10 if is("connection") => Name::Connection,
            13 if is("if-none-match") => Name::IfNoneMatch,
            14 if is("content-length") => Name::ContentLength,
            17 if is("transfer-encoding") => Name::TransferEncoding,
            17 if is("if-modified-since") => Name::IfModifiedSince,
            19 if is("if-unmodified-since") => Name::IfUnmodifiedSince,
            _ => Name::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> Request<'_> {
        match parse(text.as_bytes()) {
            Parsed::Request(request, length) => {
                assert_eq!(length, text.len(), "{text:?}");
                request
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[track_caller]
    fn refused(text: &str) -> u16 {
        match parse(text.as_bytes()) {
            Parsed::Refused(status) => status.code,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_request_is_what_its_head_says() {
        let get = request("GET /a?b HTTP/1.1\r\nHost: example.org:80\r\nRange: bytes=0-\r\n\r\n");
        assert_eq!((get.method, get.target, get.keep_alive, get.body), (Method::Get, "/a?b", true, Body::None));
        assert_eq!(get.range, Some(&b"bytes=0-"[..]));
        let head = request("\r\n\r\nHEAD / HTTP/1.0\r\n\r\n");
        assert_eq!((head.method, head.minor, head.keep_alive), (Method::Head, 0, false));
        assert!(request("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert!(!request("GET / HTTP/1.1\r\nHost:\r\nConnection: upgrade, CLOSE\r\n\r\n").keep_alive);
        assert_eq!(request("POST / HTTP/1.1\r\nHost: a\r\n\r\n").method, Method::NotServed);
        assert_eq!(request("BREW / HTTP/1.1\r\nHost: a\r\n\r\n").method, Method::Unknown);
    }

    #[test]
    fn what_is_behind_the_head_stays_there() {
        let two = b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n";
        let Parsed::Request(first, length) = parse(two) else { panic!() };
        assert_eq!((first.target, length), ("/1", two.len() / 2));
        let Parsed::Request(second, _) = parse(&two[length..]) else { panic!() };
        assert_eq!(second.target, "/2");
    }

    #[test]
    fn every_beginning_of_a_head_waits_for_the_rest() {
        let text = "GET /a HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n";
        for end in 0..text.len() {
            assert!(matches!(parse(&text.as_bytes()[..end]), Parsed::NotYet), "{:?}", &text[..end]);
        }
    }

    #[test]
    fn lines_end_in_one_way_only() {
        assert!(request("GET / HTTP/1.1\nHost: a\nContent-Length: 1\n\n").keep_alive, "typed by hand");
        for mixed in [
            "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nX: b\nTransfer-Encoding: chunked\r\n\r\n",
        ] {
            assert_eq!(refused(mixed), 400, "{mixed:?}");
        }
    }

    #[test]
    fn bodies_are_told_in_one_way_only() {
        let body = |fields: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
            match parse(text.as_bytes()) {
                Parsed::Request(request, _) => Ok(request.body),
                Parsed::Refused(status) => Err(status.code),
                Parsed::NotYet => panic!("{text:?}"),
            }
        };
        assert_eq!(body("Content-Length: 0\r\n"), Ok(Body::None));
        assert_eq!(body("Content-Length: 65536\r\n"), Ok(Body::Length(65536)));
        assert_eq!(body("Transfer-Encoding: Chunked\r\n"), Ok(Body::Chunked));
        assert_eq!(body("Content-Length: 65537\r\n"), Err(413));
        assert_eq!(body("Content-Length: 99999999999999999999999\r\n"), Err(413));
        assert_eq!(body("Transfer-Encoding: gzip\r\n"), Err(501));
        assert_eq!(body("Transfer-Encoding: gzip, chunked\r\n"), Err(501));
        for bad in [
            "Content-Length: \r\n",
            "Content-Length: +3\r\n",
            "Content-Length: -1\r\n",
            "Content-Length: 0x10\r\n",
            "Content-Length: 3 3\r\n",
            "Content-Length: 3, 3\r\n",
            "Content-Length: 3\r\nContent-Length: 3\r\n",
            "Content-Length: 3\r\nContent-Length: 4\r\n",
            "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
            "Transfer-Encoding : chunked\r\n",
            "Content-Length : 3\r\n",
            " Content-Length: 3\r\n",
            "X: y\r\n Content-Length: 3\r\n",
        ] {
            assert_eq!(body(bad), Err(400), "{bad:?}");
        }
        assert_eq!(refused("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
        assert!(!request("GET / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n").keep_alive);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        for bad in [
            "GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
            "GET /\r\n\r\n",
            "GET / HTTP\r\n\r\n",
            "GET / FTP/1.1\r\n\r\n",
            "GET  / HTTP/1.1\r\n\r\n",
            " GET / HTTP/1.1\r\n\r\n",
            "GET / HTTP/1.1\r\nHost\r\n\r\n",
            "GET / HTTP/1.1\r\n: a\r\n\r\n",
            "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
            "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0",
        ] {
            assert_eq!(refused(bad), 400, "{bad:?}");
        }
        for version in ["HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "HTTP/3.0"] {
            assert_eq!(refused(&format!("GET / {version}\r\nHost: a\r\n\r\n")), 505, "{version}");
        }
    }

    #[test]
    fn heads_have_limits() {
        let long = "a".repeat(LINE_BYTES_MAX);
        assert_eq!(refused(&format!("GET /{long} HTTP/1.1\r\nHost: a\r\n\r\n")), 414);
        assert_eq!(refused(&format!("GET /{long}{long}")), 414);
        assert_eq!(refused(&"\r\n".repeat(HEAD_BYTES_MAX)), 414);
        let field = format!("X: {}\r\n", "y".repeat(1000));
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}", field.repeat(17))), 431);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", field.repeat(17))), 431);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(FIELDS_MAX))), 431);
        request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(FIELDS_MAX - 1)));
    }
}
