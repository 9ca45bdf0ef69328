//! The header of a datagram, and the hello of a UDP stream.

use std::time::Duration;

/// What a client says first on a UDP stream.
pub const HELLO: [u8; 4] = *b"9876";
/// The answer.
pub const REPLY: [u8; 4] = *b"6789";
/// The hellos of older releases, and of big-endian machines.
const HELLOS: [[u8; 4]; 4] = [HELLO, *b"6789", [0x15, 0xCD, 0x5B, 0x07], [0x07, 0x5B, 0xCD, 0x15]];
const REPLIES: [[u8; 4]; 3] = [REPLY, [0xB1, 0x68, 0xDE, 0x3A], *b"9876"];

/// Whether a datagram asks for a stream.
pub fn is_hello(bytes: &[u8]) -> bool {
    HELLOS.iter().any(|hello| bytes == hello)
}

/// Whether a datagram begins with the answer to a hello.
pub fn is_reply(bytes: &[u8]) -> bool {
    bytes.get(..4).is_some_and(|start| REPLIES.iter().any(|reply| start == reply))
}

/// What stands at the start of each datagram: the sender's clock, from any origin, and a number from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// When it was sent.
    pub sent: Duration,
    /// Its number.
    pub sequence: u64,
}

impl Header {
    /// Writes it; 16 bytes with `wide` counters, otherwise 12.
    ///
    /// # Panics
    ///
    /// When `into` is shorter.
    pub fn write(&self, into: &mut [u8], wide: bool) {
        into[..4].copy_from_slice(&(self.sent.as_secs() as u32).to_be_bytes());
        into[4..8].copy_from_slice(&self.sent.subsec_micros().to_be_bytes());
        match wide {
            true => into[8..16].copy_from_slice(&self.sequence.to_be_bytes()),
            false => into[8..12].copy_from_slice(&(self.sequence as u32).to_be_bytes()),
        }
    }

    /// Reads it; `None` if the bytes are too few, the number is 0, or the microseconds are none.
    pub fn read(bytes: &[u8], wide: bool) -> Option<Header> {
        let word = |at: usize| Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
        let sequence = match wide {
            true => u64::from_be_bytes(bytes.get(8..16)?.try_into().ok()?),
            false => word(8)?.into(),
        };
        let (seconds, micros) = (word(0)?, word(4)?);
        (sequence > 0 && micros < 1_000_000)
            .then(|| Header { sent: Duration::new(seconds.into(), micros * 1000), sequence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_as_captured() {
        let narrow = [0, 0, 0x0A, 0x1A, 0, 0x0B, 0xDB, 0x2A, 0, 0, 0, 1];
        let header = Header::read(&narrow, false).unwrap();
        assert_eq!(header, Header { sent: Duration::from_micros(2_586_777_002), sequence: 1 });
        let mut written = [0; 12];
        header.write(&mut written, false);
        assert_eq!(written, narrow);
        let wide = [0, 0, 0x0A, 0x21, 0, 0x08, 0xFB, 0xB1, 0, 0, 0, 0, 0, 0, 0, 1];
        let header = Header::read(&wide, true).unwrap();
        assert_eq!(header, Header { sent: Duration::from_micros(2_593_588_721), sequence: 1 });
        let mut written = [0; 16];
        header.write(&mut written, true);
        assert_eq!(written, wide);
    }

    #[test]
    fn what_is_no_header_is_none() {
        assert_eq!(Header::read(&[0; 11], false), None);
        assert_eq!(Header::read(&[0; 15], true), None);
        assert_eq!(Header::read(&[0; 16], true), None, "number 0");
        assert_eq!(Header::read(&[0, 0, 0, 0, 0xFF, 0, 0, 0, 0, 0, 0, 1], false), None, "too many microseconds");
        assert_eq!(Header::read(b"6789", false), None);
    }
}
