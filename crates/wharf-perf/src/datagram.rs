//! The header of a datagram, the hello of a UDP stream, and the receiver's account of loss, order and jitter.

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

/// The receiver's account of one stream. Numbers are of 64 bits and saturate, so that no peer can make them wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Account {
    /// The highest number seen: what iperf3 calls the packets of a receiver.
    pub highest: u64,
    /// Numbers that were passed over and have not come since.
    pub lost: u64,
    /// Datagrams with a number that is not higher than all before; repeated ones, too.
    pub out_of_order: u64,
    /// Seconds, smoothed over 16 datagrams.
    pub jitter: f64,
    /// Datagrams that came.
    pub arrived: u64,
    transit: Option<f64>,
}

impl Account {
    /// A datagram came, at `arrived` of the receiver's clock.
    pub fn datagram(&mut self, header: &Header, arrived: Duration) {
        self.arrived += 1;
        if header.sequence > self.highest {
            self.lost = self.lost.saturating_add(header.sequence - self.highest - 1);
            self.highest = header.sequence;
        } else {
            self.out_of_order += 1;
            self.lost = self.lost.saturating_sub(1);
        }
        let transit = arrived.as_secs_f64() - header.sent.as_secs_f64();
        if let Some(last) = self.transit.replace(transit) {
            self.jitter += ((transit - last).abs() - self.jitter) / 16.0;
        }
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

    #[test]
    fn loss_and_order_are_counted_as_iperf3_does() {
        let account = |numbers: &[u64]| {
            let mut account = Account::default();
            for sequence in numbers {
                account.datagram(&Header { sent: Duration::ZERO, sequence: *sequence }, Duration::ZERO);
            }
            (account.highest, account.lost, account.out_of_order)
        };
        assert_eq!(account(&[1, 2, 3, 4, 5]), (5, 0, 0));
        assert_eq!(account(&[1, 2, 3, 5, 4, 6]), (6, 0, 1));
        assert_eq!(account(&[1, 2, 5, 6]), (6, 2, 0));
        assert_eq!(account(&[1, 2, 2, 3]), (3, 0, 1));
        assert_eq!(account(&[10, 11]), (11, 9, 0));
        assert_eq!(account(&[1, 1 << 33]), (1 << 33, (1 << 33) - 2, 0));
        assert_eq!(account(&[u64::MAX, 1, u64::MAX]).0, u64::MAX);
    }

    #[test]
    fn jitter_is_the_smoothed_change_of_transit() {
        let mut account = Account::default();
        for (number, arrived) in [(1, 100), (2, 116), (3, 116)] {
            let header = Header { sent: Duration::ZERO, sequence: number };
            account.datagram(&header, Duration::from_millis(arrived));
        }
        // 16 ms, then 0: 1 ms, then 15/16 of it.
        assert!((account.jitter - 0.001 * 15.0 / 16.0).abs() < 1e-9, "{}", account.jitter);
    }

    #[test]
    fn any_bytes_are_taken_without_a_panic() {
        fastrand::seed(3);
        let mut account = Account::default();
        for _ in 0..100_000 {
            let bytes: Vec<u8> = (0..fastrand::usize(..20)).map(|_| fastrand::u8(..)).collect();
            for wide in [false, true] {
                if let Some(header) = Header::read(&bytes, wide) {
                    account.datagram(&header, Duration::from_secs(1));
                }
            }
            let _ = (is_hello(&bytes), is_reply(&bytes));
        }
        assert!(account.jitter.is_finite());
    }
}
