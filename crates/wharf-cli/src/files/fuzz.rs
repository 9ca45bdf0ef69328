//! Requests as nobody should send them: from a fixed seed, through everything that needs no socket.

use super::answer::{Answer, SMALL_BYTES_MAX, Site};
use super::body::{Skip, Skipped};
use super::open::{Method as Opening, Root};
use super::output::Output;
use super::path::resolve;
use super::request::{Body, Parsed, Request, parse};
use super::response::{self, Facts};
use super::status::status;
use std::fs;
use std::os::unix::fs::symlink;

const ROUNDS: usize = 40_000;
const SEED: u64 = 20_261_121;
/// What lies beside the directory and must never be in an answer.
const SECRET: &[u8] = b"the-secret-beside-the-directory";

/// What requests are made of. Each piece alone is something a client, a proxy or an attacker sends.
const PATHS: &[&str] = &[
    "/",
    "/a.txt",
    "/sub/",
    "/sub",
    "/sub/b.html",
    "/none",
    "/.hidden",
    "/out",
    "/out/secret",
    "/up/secret",
    "/in",
    "/../secret",
    "/sub/../../secret",
    "/%2e%2e/secret",
    "/..%2fsecret",
    "/%2e%2e%2fsecret",
    "/..%5csecret",
    "/%252e%252e%252fsecret",
    "/%c0%ae%c0%ae/secret",
    "/%c0%af..%c0%afsecret",
    "/..;/secret",
    "/.../secret",
    "//secret",
    "/./../secret",
    "/sub/./../..//secret",
    "/a.txt%00.html",
    "/a.txt?x=/../secret",
    "/%",
    "/%4",
    "*",
    "http://h/a.txt",
    "http://h/../secret",
    "https://h",
    "/안녕",
    "/%ed%a0%80",
    "/a.txt/",
    "/a.txt/..",
    "/sub/%2e",
];
const VERBS: &[&str] = &["GET", "HEAD", "POST", "get", "PRI", "CONNECT", "G\0T", ""];
const VERSIONS: &[&str] = &["HTTP/1.1", "HTTP/1.0", "HTTP/2.0", "HTTP/1.9", "http/1.1", "HTTP/11", ""];
const FIELDS: &[&str] = &[
    "Host: h",
    "Host: h:80",
    "Host: a b",
    "host:",
    "Connection: close",
    "Connection: keep-alive, close",
    "Content-Length: 5",
    "Content-Length: 0",
    "Content-Length: -5",
    "Content-Length: 99999999999999999999",
    "Transfer-Encoding: chunked",
    "Transfer-Encoding: chunked, identity",
    "Transfer-Encoding:\tchunked",
    "Transfer-Encoding : chunked",
    "Expect: 100-continue",
    "Range: bytes=0-1",
    "Range: bytes=-1",
    "Range: bytes=9-2",
    "Range: bytes=0-1,4-5",
    "Range: bytes=18446744073709551615-",
    "Range: bytes=-18446744073709551616",
    "If-Range: \"x\"",
    "If-Match: *",
    "If-Match: \"x\"",
    "If-None-Match: *",
    "If-None-Match: \"",
    "If-Modified-Since: now",
    "If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT",
    "If-Unmodified-Since: Sun, 06 Nov 2094 08:49:37 GMT",
    "X: y\r\n folded",
    "X",
    ": y",
    "X: \u{1}",
    "Upgrade: h2c",
];
const ENDS: &[&str] = &["\r\n\r\n", "\n\n", "\r\n", "\r\n\r\n5\r\nabcde\r\n0\r\n\r\n", "\r\n\r\nGET /2 HTTP/1.1\r\n"];

fn pick<'a>(random: &mut fastrand::Rng, list: &[&'a str], usual: usize) -> &'a str {
    if random.u8(..) < 192 { list[random.usize(..usual)] } else { list[random.usize(..list.len())] }
}

fn request(random: &mut fastrand::Rng) -> Vec<u8> {
    let mut text = String::new();
    text.push_str(pick(random, VERBS, 2));
    text.push(' ');
    text.push_str(pick(random, PATHS, 5));
    if random.u8(..) < 64 {
        text.push_str(pick(random, PATHS, PATHS.len()));
    }
    text.push(' ');
    text.push_str(pick(random, VERSIONS, 2));
    text.push_str("\r\n");
    text.push_str(pick(random, FIELDS, 1));
    for _ in 0..random.usize(..4) {
        text.push_str("\r\n");
        text.push_str(pick(random, FIELDS, FIELDS.len()));
    }
    text.push_str(pick(random, ENDS, 1));
    let mut bytes = text.into_bytes();
    // And then a byte here and there, which is what finds the places nobody thought of.
    for _ in 0..random.usize(..8).saturating_sub(4) {
        let at = random.usize(..bytes.len());
        match random.u8(..5) {
            0 => bytes[at] = random.u8(..),
            1 => bytes.insert(at, random.u8(..)),
            2 if bytes.len() > 1 => drop(bytes.remove(at)),
            3 => bytes.truncate(at.max(1)),
            _ => {
                let piece = bytes[at..(at + random.usize(1..16)).min(bytes.len())].to_vec();
                let to = random.usize(..bytes.len());
                bytes.splice(to..to, piece);
            }
        }
    }
    bytes
}

/// Whether a name is relative, and goes down only.
fn stays_inside(name: &str) -> bool {
    name.is_empty()
        || name.split('/').all(|component| !matches!(component, "" | "." | ".."))
            && !name.bytes().any(|byte| byte < b' ' || byte == b'\\')
}

/// An answer is a whole one: a head that can be read, with a status from the list, and as much content as it says.
#[track_caller]
fn is_whole(output: &[u8], answer: &Answer, request: &Request<'_>) {
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(output).unwrap() else { panic!("a head without an end") };
    assert_eq!(head.code, Some(answer.status.code));
    assert!(status::ALL.contains(&answer.status));
    let field = |name: &str| head.headers.iter().find(|field| field.name == name).map(|field| field.value);
    let said = field("Content-Length").map(|value| str::from_utf8(value).unwrap().parse::<u64>().unwrap());
    let there = (output.len() - length) as u64 + answer.file.as_ref().map_or(0, |(_, part)| part.length);
    match (request.method, answer.status.code) {
        (super::request::Method::Head, _) | (_, 304) => assert_eq!(there, 0),
        _ => assert_eq!(said, Some(there)),
    }
    if answer.status.code == 301 {
        let location = field("Location").unwrap();
        assert!(location.starts_with(b"/") && !location.starts_with(b"//"), "{location:?}");
    }
}

fn in_a_tree(name: &str, check: impl FnOnce(&std::path::Path)) {
    let top = std::env::temp_dir().join(format!("wharf-fuzz-{name}-{}", std::process::id()));
    let root = top.join("root");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::write(top.join("secret"), SECRET).unwrap();
    fs::write(root.join("a.txt"), "some text").unwrap();
    fs::write(root.join("sub/b.html"), vec![b'b'; SMALL_BYTES_MAX as usize + 1]).unwrap();
    fs::write(root.join(".hidden"), SECRET).unwrap();
    symlink("../secret", root.join("out")).unwrap();
    symlink("..", root.join("up")).unwrap();
    symlink("a.txt", root.join("in")).unwrap();
    check(&root);
    fs::remove_dir_all(&top).unwrap();
}

#[test]
fn whatever_is_asked_gets_a_whole_answer_and_nothing_from_outside() {
    in_a_tree("requests", |path| {
        let mut random = fastrand::Rng::with_seed(SEED);
        let sites = [false, true].map(|list| {
            let root = Root::open(path).unwrap();
            let root = if list { root.with_method(Opening::Components) } else { root };
            Site { root, list, hidden: false }
        });
        let (mut codes, mut refused, mut unfinished) = (std::collections::BTreeMap::new(), 0, 0);
        let mut output = Output::default();
        for round in 0..ROUNDS {
            let bytes = request(&mut random);
            let shown = || format!("seed {SEED}, round {round}: {:?}", String::from_utf8_lossy(&bytes));
            match parse(&bytes) {
                Parsed::NotYet => unfinished += 1,
                Parsed::Refused(status) => {
                    assert!(status::ALL.contains(&status) && status.code >= 400, "{}", shown());
                    refused += 1;
                }
                Parsed::Request(request, length) => {
                    assert!(length <= bytes.len() && length > 0, "{}", shown());
                    if let Ok(target) = resolve(request.target, round % 2 == 0) {
                        assert!(stays_inside(&target.name), "{} names {:?}", shown(), target.name);
                    }
                    output.truncate(0);
                    let answer = sites[round % 2].answer(&request, !request.keep_alive, &mut output);
                    let written = output.written();
                    assert!(!written.windows(SECRET.len()).any(|window| window == SECRET), "{}", shown());
                    is_whole(written, &answer, &request);
                    *codes.entry(answer.status.code).or_insert(0) += 1;
                }
            }
        }
        // Otherwise the requests are not what they are meant to be.
        for code in [200, 206, 301, 304, 400, 403, 404, 405, 412, 416, 501] {
            assert!(codes.get(&code).is_some_and(|&count| count > 5), "{code} came too seldom: {codes:?}");
        }
        assert!(refused > ROUNDS / 50 && unfinished > ROUNDS / 50, "{refused} refused, {unfinished} unfinished");
    });
}

#[test]
fn no_target_made_of_tricks_leaves_the_directory() {
    const PIECES: &[&str] = &[
        "/", "..", ".", "%2e", "%2E", "%2f", "%5c", "\\", "%00", "%25", "2e", "2f", "%c0%ae", "%c0%af", "a", "sub",
        "?", "#", "%", "secret", ";", " ", "~", "C:", "%u002e", "\u{ff0e}", "\u{2215}",
    ];
    in_a_tree("targets", |path| {
        let mut random = fastrand::Rng::with_seed(SEED);
        let root = Root::open(path).unwrap();
        let mut named = 0;
        for round in 0..ROUNDS {
            let mut target = String::from("/");
            for _ in 0..random.usize(..10) {
                target.push_str(PIECES[random.usize(..PIECES.len())]);
            }
            let Ok(found) = resolve(&target, true) else { continue };
            named += 1;
            assert!(stays_inside(&found.name), "seed {SEED}, round {round}: {target:?} names {:?}", found.name);
            if let Ok(file) = root.file(&found.name) {
                let mut content = [0; 64];
                let bytes = rustix::io::read(&file, &mut content).unwrap_or(0);
                assert_ne!(&content[..bytes], SECRET, "seed {SEED}, round {round}: {target:?}");
            }
            let back = found.with_slash();
            let again = resolve(back.split('?').next().unwrap(), true).unwrap();
            assert_eq!(again.name, found.name, "where a redirection leads is what was meant: {target:?} to {back:?}");
        }
        assert!(named > ROUNDS / 50, "{named} targets named anything");
    });
}

#[test]
fn an_answer_never_sends_what_the_file_does_not_have() {
    let mut random = fastrand::Rng::with_seed(SEED);
    for round in 0..ROUNDS {
        let bytes = request(&mut random);
        let Parsed::Request(request, _) = parse(&bytes) else { continue };
        let length = [0, 1, 2, 10, u64::from(random.u32(..)), u64::MAX][random.usize(..6)];
        let facts = Facts { length, modified: (random.i64(..), random.u32(..)) };
        let (status, part) = response::file(&request, &facts, "a", false, &mut Output::default());
        let end = part.offset.checked_add(part.length);
        assert!(end.is_some_and(|end| end <= length), "seed {SEED}, round {round}: {status:?} {part:?} of {length}");
    }
}

#[test]
fn a_body_ends_at_the_same_byte_however_it_is_cut() {
    const PIECES: &[&str] =
        &["5\r\n", "abcde", "\r\n", "0\r\n", "\r\n\r\n", "X: y\r\n", ";e=f", "\n", "ffff\r\n", "g", " "];
    let mut random = fastrand::Rng::with_seed(SEED);
    for round in 0..ROUNDS {
        let mut bytes = Vec::new();
        for _ in 0..random.usize(1..12) {
            bytes.extend_from_slice(PIECES[random.usize(..PIECES.len())].as_bytes());
        }
        let body = if random.bool() { Body::Chunked } else { Body::Length(random.u64(1..20)) };
        let whole = Skip::new(body).unwrap().skip(&bytes);
        let mut skip = Skip::new(body).unwrap();
        let (mut at, mut came_to) = (0, Skipped::More);
        while at < bytes.len() && came_to == Skipped::More {
            let end = (at + random.usize(1..6)).min(bytes.len());
            came_to = match skip.skip(&bytes[at..end]) {
                Skipped::Done(bytes) => Skipped::Done(at + bytes),
                other => other,
            };
            at = end;
        }
        assert_eq!(came_to, whole, "seed {SEED}, round {round}: {:?}", String::from_utf8_lossy(&bytes));
    }
}
