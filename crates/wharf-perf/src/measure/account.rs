//! The receiver's account of the datagrams of one stream: loss, order and jitter.

use crate::protocol::datagram::Header;
use std::time::Duration;

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
    use crate::protocol::datagram::{is_hello, is_reply};

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
