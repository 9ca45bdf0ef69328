//! Skips what follows a head: no request for a file needs a body, but the next request begins behind it.
//!
//! Strict, because a server in front may have read it: a line that is not exactly as the standard says ends the
//! connection, and nothing behind it is taken for a request.

use super::request::{BODY_BYTES_MAX, Body};

/// A body that is being skipped.
#[derive(Debug)]
pub struct Skip {
    state: State,
    /// Bytes that it may still have, framing included.
    allowed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// So many bytes, and it is over.
    Rest(u64),
    /// In the digits of a chunk's size.
    Size {
        value: u64,
        digits: u8,
    },
    /// In what follows a size up to the end of the line.
    Extension {
        size: u64,
    },
    /// The second character of the line's end comes.
    SizeEnd {
        size: u64,
    },
    /// So many bytes of a chunk.
    Data(u64),
    DataCr,
    DataLf,
    /// A field behind the chunks, or the empty line that ends them, begins.
    Trailer,
    InTrailer,
    TrailerEnd,
    LastEnd,
}

/// What bytes came to.
#[derive(Debug, PartialEq, Eq)]
pub enum Skipped {
    /// It is over; this number of the bytes belonged to it.
    Done(usize),
    /// All of the bytes were its, and more are to come.
    More,
    /// It is none, or too long.
    Refused,
}

impl Skip {
    /// `None` where nothing follows.
    pub fn new(body: Body) -> Option<Skip> {
        let state = match body {
            Body::None => return None,
            Body::Length(bytes) => State::Rest(bytes),
            Body::Chunked => State::Size { value: 0, digits: 0 },
        };
        Some(Skip { state, allowed: BODY_BYTES_MAX })
    }

    pub fn skip(&mut self, bytes: &[u8]) -> Skipped {
        let mut at = 0;
        while at < bytes.len() {
            let taken = match &mut self.state {
                State::Rest(left) | State::Data(left) => {
                    let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    *left -= taken as u64;
                    match self.state {
                        State::Rest(0) => return Skipped::Done(at + taken),
                        State::Data(0) => self.state = State::DataCr,
                        _ => {}
                    }
                    taken
                }
                _ => match self.framing(bytes[at]) {
                    Some(false) => 1,
                    Some(true) => return Skipped::Done(at + 1),
                    None => return Skipped::Refused,
                },
            };
            at += taken;
            match self.allowed.checked_sub(taken as u64) {
                Some(allowed) => self.allowed = allowed,
                None => return Skipped::Refused,
            }
        }
        Skipped::More
    }

    /// One byte between chunks: whether the body is over, or `None` where the byte must not be.
    fn framing(&mut self, byte: u8) -> Option<bool> {
        self.state = match (self.state, byte) {
            (State::Size { value, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if digits < 16 => {
                let digit = char::from(byte).to_digit(16)?;
                State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 }
            }
            (State::Size { value, digits: 1.. }, b';' | b' ' | b'\t') => State::Extension { size: value },
            (State::Size { value: size, digits: 1.. } | State::Extension { size }, b'\r') => State::SizeEnd { size },
            (State::Extension { size }, b'\t' | b' '..=b'~' | 0x80..) => State::Extension { size },
            (State::SizeEnd { size: 0 }, b'\n') => State::Trailer,
            (State::SizeEnd { size }, b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { value: 0, digits: 0 },
            (State::Trailer, b'\r') => State::LastEnd,
            (State::LastEnd, b'\n') => return Some(true),
            (State::InTrailer, b'\r') => State::TrailerEnd,
            (State::TrailerEnd, b'\n') => State::Trailer,
            (State::Trailer, b'!'..=b'~') | (State::InTrailer, b'\t' | b' '..=b'~' | 0x80..) => State::InTrailer,
            _ => return None,
        };
        Some(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// However the bytes are cut, the same comes of it.
    #[track_caller]
    fn skipped(body: Body, bytes: &[u8]) -> Skipped {
        let whole = Skip::new(body).unwrap().skip(bytes);
        for piece in [1, 2, 3, 7] {
            let mut skip = Skip::new(body).unwrap();
            let mut came_to = Skipped::More;
            for (number, part) in bytes.chunks(piece).enumerate() {
                came_to = match skip.skip(part) {
                    Skipped::More => Skipped::More,
                    Skipped::Done(bytes) => Skipped::Done(number * piece + bytes),
                    Skipped::Refused => Skipped::Refused,
                };
                if came_to != Skipped::More {
                    break;
                }
            }
            assert_eq!(came_to, whole, "in pieces of {piece}");
        }
        whole
    }

    #[test]
    fn a_body_with_a_length_ends_there() {
        assert_eq!(skipped(Body::Length(3), b"abc"), Skipped::Done(3));
        assert_eq!(skipped(Body::Length(3), b"abcGET / HTTP/1.1"), Skipped::Done(3));
        assert_eq!(skipped(Body::Length(4), b"abc"), Skipped::More);
        assert!(Skip::new(Body::None).is_none());
    }

    #[test]
    fn chunks_end_with_their_empty_line() {
        for (chunks, next) in [
            ("0\r\n\r\n", "GET"),
            ("3\r\nabc\r\n0\r\n\r\n", ""),
            ("A;name=\"value\"\r\n0123456789\r\n00\r\n\r\n", "x"),
            ("1 \r\na\r\n0\r\nName: value\r\nOther: \r\n\r\n", "\r\n"),
        ] {
            let bytes = format!("{chunks}{next}");
            assert_eq!(skipped(Body::Chunked, bytes.as_bytes()), Skipped::Done(chunks.len()), "{bytes:?}");
            assert_eq!(skipped(Body::Chunked, &chunks.as_bytes()[..chunks.len() - 1]), Skipped::More, "{bytes:?}");
        }
    }

    #[test]
    fn what_is_not_quite_a_chunk_is_refused() {
        for bytes in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x3\r\nabc",
            " 3\r\nabc",
            "3\nabc",
            "3\r\nabcd\r\n",
            "3\r\nabc\n0\r\n\r\n",
            "3;a\nabc",
            "3\rabc",
            "3;\0\r\n",
            "0\r\n\n",
            "0\r\n Name: folded\r\n\r\n",
            "11111111111111111\r\n",
        ] {
            assert_eq!(skipped(Body::Chunked, bytes.as_bytes()), Skipped::Refused, "{bytes:?}");
        }
    }

    #[test]
    fn chunks_without_end_are_too_long() {
        let mut skip = Skip::new(Body::Chunked).unwrap();
        let mut bytes = 0;
        while skip.skip(b"10\r\n0123456789abcdef\r\n") == Skipped::More {
            bytes += 22;
            assert!(bytes <= BODY_BYTES_MAX);
        }
        let mut skip = Skip::new(Body::Chunked).unwrap();
        assert_eq!(skip.skip(b"ffffffffffffffff\r\n"), Skipped::More);
        assert_eq!(skip.skip(&[0; BODY_BYTES_MAX as usize]), Skipped::Refused);
        let mut skip = Skip::new(Body::Chunked).unwrap();
        assert_eq!(skip.skip(b"1;"), Skipped::More);
        assert_eq!(skip.skip(&[b'x'; BODY_BYTES_MAX as usize]), Skipped::Refused);
    }
}
