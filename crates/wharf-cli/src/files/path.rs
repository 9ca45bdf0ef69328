//! From a request's target to a name below the directory, without looking at the disk.
//!
//! The name is decoded once. What could mean one thing to this server and another to someone else (dots that climb,
//! separators or zeros in disguise, text that is no UTF-8, what is encoded twice) is refused rather than repaired. What
//! comes out has no `..`, no empty component and no leading slash; that links do not lead out is seen to when it is
//! opened.

use super::status::{Status, status};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use std::borrow::Cow;

/// What may stand in a path as it is.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Text as a component of an address.
pub fn encode(name: &str) -> impl std::fmt::Display {
    utf8_percent_encode(name, ENCODED)
}

/// What a target names.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Relative to the directory: `a/b.txt`; empty for the directory itself.
    pub name: Cow<'a, str>,
    /// It ended with a slash, so it means a directory.
    pub is_directory: bool,
    /// With its question mark, or empty.
    pub query: &'a str,
}

impl Target<'_> {
    /// Where the directory is that was named without its slash. Made from the decoded name, so that no target makes it
    /// point to another host.
    pub fn with_slash(&self) -> String {
        use std::fmt::Write;
        let mut location = String::with_capacity(self.name.len() + self.query.len() + 2);
        for component in self.name.split('/') {
            let _ = write!(location, "/{}", encode(component));
        }
        location.push('/');
        location.push_str(self.query);
        location
    }
}

/// `hidden`: names that begin with a dot are served too.
pub fn resolve(target: &str, hidden: bool) -> Result<Target<'_>, Status> {
    let path_and_query = origin_form(target).ok_or(status::BAD_REQUEST)?;
    let (path, query) = match path_and_query.find('?') {
        Some(at) => path_and_query.split_at(at),
        None => (path_and_query, ""),
    };
    if path.contains('#') || query.contains('#') || !escapes_are_whole(path) {
        return Err(status::BAD_REQUEST);
    }
    // A slash in disguise would be a separator to whoever decodes first and splits afterwards.
    if has_escape(path, "2f") {
        return Err(status::BAD_REQUEST);
    }
    let decoded = percent_decode_str(path).decode_utf8().map_err(|_| status::BAD_REQUEST)?;
    if decoded.bytes().any(|byte| byte < b' ' || byte == 0x7f || byte == b'\\') {
        return Err(status::BAD_REQUEST);
    }
    // Encoded twice, in the hope that it is decoded twice.
    if ["2e", "2f", "5c", "00"].into_iter().any(|escape| has_escape(&decoded, escape)) {
        return Err(status::BAD_REQUEST);
    }
    let is_directory = decoded.ends_with('/') || decoded.ends_with("/.");
    let mut plain = true;
    for component in decoded[1..].split('/') {
        match component {
            ".." => return Err(status::BAD_REQUEST),
            "" | "." => plain = false,
            _ if component.starts_with('.') && !hidden => return Err(status::NOT_FOUND),
            _ => {}
        }
    }
    let name = match (plain, decoded) {
        (true, Cow::Borrowed(path)) => Cow::Borrowed(&path[1..]),
        (_, decoded) => {
            let components = decoded.split('/').filter(|component| !matches!(*component, "" | "."));
            Cow::Owned(components.collect::<Vec<_>>().join("/"))
        }
    };
    Ok(Target { name, is_directory, query })
}

/// `/path?query`, also of `http://host/path?query`, which proxies send.
fn origin_form(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let scheme = ["http://", "https://"]
        .into_iter()
        .find(|scheme| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme)))?;
    let rest = &target[scheme.len()..];
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match &rest[end..] {
        _ if end == 0 => None,
        "" => Some("/"),
        path if path.starts_with('/') => Some(path),
        _ => None,
    }
}

/// Whether two hexadecimal digits follow each percent sign.
fn escapes_are_whole(path: &str) -> bool {
    let mut rest = path.as_bytes();
    while let Some(at) = rest.iter().position(|&byte| byte == b'%') {
        match &rest[at + 1..] {
            [high, low, more @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest = more,
            _ => return false,
        }
    }
    true
}

fn has_escape(text: &str, digits: &str) -> bool {
    let escapes = text.match_indices('%').filter_map(|(at, _)| text.as_bytes().get(at + 1..at + 3));
    escapes.into_iter().any(|escape| escape.eq_ignore_ascii_case(digits.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_decoded_once() {
        for (target, name, is_directory, query) in [
            ("/", "", true, ""),
            ("/?x=/..", "", true, "?x=/.."),
            ("/a", "a", false, ""),
            ("/a/", "a", true, ""),
            ("//a///b", "a/b", false, ""),
            ("/./a/.", "a", true, ""),
            ("/a%20b?c%20d", "a b", false, "?c%20d"),
            ("/%EC%95%88%eb%85%95", "안녕", false, ""),
            ("/100%25.txt", "100%.txt", false, ""),
            ("/a..b/...c", "a..b/...c", false, ""),
            ("/~a;b=c,d:e@f", "~a;b=c,d:e@f", false, ""),
            ("http://example.org", "", true, ""),
            ("HTTP://example.org:80/a?b", "a", false, "?b"),
        ] {
            let found = resolve(target, true);
            assert_eq!(found, Ok(Target { name: name.into(), is_directory, query }), "{target}");
        }
    }

    #[test]
    fn what_climbs_or_hides_is_refused() {
        for target in [
            "/..",
            "/../a",
            "/a/../b",
            "/a/..",
            "/%2e%2e/a",
            "/%2E%2e/a",
            "/.%2e/a",
            "/%2e./a",
            "/a%2fb",
            "/a%2Fb",
            "/..%2fa",
            "/a%5cb",
            "/..%5Ca",
            "/a\\b",
            "/%00",
            "/a%00.txt",
            "/a%0ab",
            "/a%7fb",
            "/%c0%ae%c0%ae/a",
            "/%c0%af",
            "/%e0%80%ae",
            "/%ff",
            "/%ed%a0%80",
            "/%252e%252e/a",
            "/a%252fb",
            "/a%255cb",
            "/a%2500",
            "/%",
            "/%2",
            "/%zz",
            "/%u002e",
            "/a#b",
            "/a?b#c",
            "a",
            "*",
            "",
            "?",
            "http://",
            "http:///a",
            "http://host?a",
            "ftp://host/a",
            "host:80",
        ] {
            assert_eq!(resolve(target, true), Err(status::BAD_REQUEST), "{target}");
        }
    }

    #[test]
    fn names_with_a_dot_are_hidden_unless_asked_for() {
        for target in ["/.git/config", "/a/.b", "/%2ehidden", "/.a/", "/..."] {
            assert_eq!(resolve(target, false), Err(status::NOT_FOUND), "{target}");
            assert!(resolve(target, true).is_ok(), "{target}");
        }
        assert!(resolve("/./a.b", false).is_ok());
    }

    #[test]
    fn a_redirection_stays_on_this_host() {
        for (target, location) in [
            ("//evil.example", "/evil.example/"),
            ("/a//b?c=d", "/a/b/?c=d"),
            ("/a%20%22%3cb", "/a%20%22%3Cb/"),
            ("http://evil.example/x", "/x/"),
            ("/안", "/%EC%95%88/"),
        ] {
            assert_eq!(resolve(target, false).unwrap().with_slash(), location);
        }
    }
}
