//! `--verify`: what a block carries so that its receiver can tell whether it is the one that was sent.
//!
//! ```text
//!          TCP                                   UDP
//!  0   4   "WHRF"                                iperf3's header
//!  4   4   stream id                               (time, number)
//!  8   8   number, from 0
//! 16   4   CRC-32C of all other bytes            CRC-32C of all other bytes
//! 20   …   bytes that follow from the cookie     bytes that follow from the cookie
//! ```
//!
//! A checksum that is wrong is told as such and nothing more is said of that block; blocks have a fixed size, so the
//! next one is found whatever was damaged.

use crate::protocol::Cookie;
use crate::protocol::parameters::VERIFIED_BYTES_MIN;
use crate::protocol::results::Verification;

const MAGIC: &[u8; 4] = b"WHRF";
const CHECKSUM: std::ops::Range<usize> = 16..20;

/// The payload that both ends know: it follows from the test's cookie.
pub fn pattern(cookie: &Cookie, bytes: usize) -> Vec<u8> {
    let seed = crc32c::crc32c(cookie.bytes());
    let mut random = fastrand::Rng::with_seed(seed.into());
    let mut pattern = vec![0; bytes];
    random.fill(&mut pattern);
    pattern
}

fn checksum(block: &[u8]) -> u32 {
    let head = crc32c::crc32c(&block[..CHECKSUM.start]);
    crc32c::crc32c_append(head, &block[CHECKSUM.end..])
}

/// Turns a block that holds the pattern into block `number` of a TCP stream.
///
/// # Panics
///
/// When it is shorter than [`VERIFIED_BYTES_MIN`].
pub fn seal(block: &mut [u8], stream: i64, number: u64) {
    block[..4].copy_from_slice(MAGIC);
    block[4..8].copy_from_slice(&(stream as u32).to_be_bytes());
    block[8..16].copy_from_slice(&number.to_be_bytes());
    seal_datagram(block);
}

/// Puts the checksum into a datagram whose header is written.
///
/// # Panics
///
/// As for [`seal`].
pub fn seal_datagram(block: &mut [u8]) {
    let sum = checksum(block);
    block[CHECKSUM].copy_from_slice(&sum.to_be_bytes());
}

/// The receiver of one stream.
#[derive(Debug)]
pub struct Checker {
    pattern: std::sync::Arc<[u8]>,
    stream: i64,
    len: usize,
    next: u64,
    /// The start of a block whose end has not come.
    part: Vec<u8>,
    /// What was found so far.
    pub found: Verification,
}

impl Checker {
    /// For blocks of `len` bytes of the stream with this id.
    pub fn new(pattern: std::sync::Arc<[u8]>, stream: i64, len: usize) -> Checker {
        Checker { pattern, stream, len, next: 0, part: Vec::new(), found: Verification::default() }
    }

    /// Bytes of a TCP stream, cut anywhere.
    pub fn bytes(&mut self, mut bytes: &[u8]) {
        if !self.part.is_empty() {
            let missing = (self.len - self.part.len()).min(bytes.len());
            self.part.extend_from_slice(&bytes[..missing]);
            bytes = &bytes[missing..];
            if self.part.len() < self.len {
                return;
            }
            let block = std::mem::take(&mut self.part);
            self.block(&block);
            self.part = block;
            self.part.clear();
        }
        let mut blocks = bytes.chunks_exact(self.len);
        for block in &mut blocks {
            self.block(block);
        }
        self.part.extend_from_slice(blocks.remainder());
    }

    fn block(&mut self, block: &[u8]) {
        if !self.sum_is_right(block) {
            // The number before was the peer's, and may have been the last there is.
            self.next = self.next.wrapping_add(1);
            return;
        }
        let number = u64::from_be_bytes(block[8..16].try_into().unwrap_or_default());
        if number != self.next {
            self.found.sequence += 1;
        }
        self.next = number.wrapping_add(1);
        let named = block[..4] == *MAGIC && block[4..8] == (self.stream as u32).to_be_bytes();
        if !named || block[CHECKSUM.end..] != self.pattern[CHECKSUM.end..block.len()] {
            self.found.content += 1;
        }
    }

    /// One datagram; its number is the account's to judge.
    pub fn datagram(&mut self, bytes: &[u8]) {
        if bytes.len() < VERIFIED_BYTES_MIN || bytes.len() > self.pattern.len() {
            self.found.blocks += 1;
            self.found.content += 1;
        } else if self.sum_is_right(bytes) && bytes[CHECKSUM.end..] != self.pattern[CHECKSUM.end..bytes.len()] {
            self.found.content += 1;
        }
    }

    fn sum_is_right(&mut self, block: &[u8]) -> bool {
        self.found.blocks += 1;
        let right = block[CHECKSUM] == checksum(block).to_be_bytes();
        self.found.checksum += u64::from(!right);
        right
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(cookie: &Cookie, len: usize, numbers: &[u64]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in numbers {
            let mut block = pattern(cookie, len);
            seal(&mut block, 1, *number);
            bytes.extend(block);
        }
        bytes
    }

    #[test]
    fn good_blocks_are_good_wherever_the_stream_is_cut_and_one_flipped_bit_is_one_error() {
        let cookie = Cookie::random();
        let bytes = stream(&cookie, 100, &[0, 1, 2, 3, 4]);
        let shared: std::sync::Arc<[u8]> = pattern(&cookie, 100).into();
        for step in [1, 7, 99, 100, 101, 250, 500] {
            let mut checker = Checker::new(shared.clone(), 1, 100);
            bytes.chunks(step).for_each(|piece| checker.bytes(piece));
            assert_eq!((checker.found.blocks, checker.found.errors()), (5, 0), "step {step}");
            for at in [0, 9, 17, 230, 499] {
                let mut bad = bytes.clone();
                bad[at] ^= 4;
                let mut checker = Checker::new(shared.clone(), 1, 100);
                bad.chunks(step).for_each(|piece| checker.bytes(piece));
                let wanted = Verification { blocks: 5, checksum: 1, sequence: 0, content: 0 };
                assert_eq!(checker.found, wanted, "step {step}, byte {at}");
            }
        }
    }

    #[test]
    fn a_missing_block_and_foreign_content_have_their_own_counters() {
        let cookie = Cookie::random();
        let shared: std::sync::Arc<[u8]> = pattern(&cookie, 64).into();
        let mut checker = Checker::new(shared.clone(), 1, 64);
        checker.bytes(&stream(&cookie, 64, &[0, 2, 3]));
        assert_eq!(checker.found, Verification { blocks: 3, checksum: 0, sequence: 1, content: 0 });
        // Behind the last number comes the first, of a damaged block, too.
        let mut checker = Checker::new(shared.clone(), 1, 64);
        let mut last = stream(&cookie, 64, &[u64::MAX - 1, u64::MAX, 0]);
        last[64 + 30] ^= 1;
        checker.bytes(&last);
        assert_eq!(checker.found, Verification { blocks: 3, checksum: 1, sequence: 1, content: 0 });
        let mut checker = Checker::new(shared, 1, 64);
        checker.bytes(&stream(&Cookie::random(), 64, &[0]));
        assert_eq!(checker.found, Verification { blocks: 1, checksum: 0, sequence: 0, content: 1 });
    }
}
