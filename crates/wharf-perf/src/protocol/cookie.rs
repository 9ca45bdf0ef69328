//! The cookie: what names a test on each of its connections.

use std::fmt;

/// Bytes of a cookie, its final NUL included.
pub const COOKIE_BYTES: usize = 37;

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

    /// The cookie in these bytes: 36 printable ones and one NUL. Stock peers take any 37 bytes, and compare up to the
    /// first NUL only; a cookie that begins with one would match every other.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
