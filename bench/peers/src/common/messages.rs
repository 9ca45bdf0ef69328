//! Messages of a fixed size, and what they make a server do.

use std::io;
use std::time::{Duration, Instant};

/// Puts messages of one size together from the pieces that a stream brings.
pub struct Messages {
    size: usize,
    partial: Vec<u8>,
}

impl Messages {
    pub fn new(size: usize) -> Messages {
        Messages { size, partial: Vec::new() }
    }

    /// Hands over each message that these bytes complete.
    pub fn each(&mut self, mut bytes: &[u8], mut handle: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if !self.partial.is_empty() {
            let (now, rest) = bytes.split_at((self.size - self.partial.len()).min(bytes.len()));
            self.partial.extend_from_slice(now);
            bytes = rest;
            if self.partial.len() < self.size {
                return Ok(());
            }
            handle(&self.partial)?;
            self.partial.clear();
        }
        let mut whole = bytes.chunks_exact(self.size);
        for message in &mut whole {
            handle(message)?;
        }
        self.partial.extend_from_slice(whole.remainder());
        Ok(())
    }
}

/// Computes for so long.
pub fn spin(time: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < time {
        std::hint::spin_loop();
    }
}

/// Where the block begins that a message of the kind mixed names, in bytes.
pub fn block_of(message: &[u8]) -> u64 {
    let number = message.first_chunk().expect("a message of the kind mixed has 8 bytes at least");
    u64::from_le_bytes(*number).wrapping_mul(crate::BLOCK_BYTES as u64)
}
