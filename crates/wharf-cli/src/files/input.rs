//! Bytes that have come and are not used up.

use wharf::Buffer;

/// As a rule what was received is used where it lies; only a request that comes in pieces is gathered.
#[derive(Debug, Default)]
pub struct Input {
    received: Buffer,
    /// Used instead if it is not empty.
    gathered: Vec<u8>,
    /// So many bytes are used up.
    at: usize,
}

impl Input {
    pub fn bytes(&self) -> &[u8] {
        let all = if self.gathered.is_empty() { &self.received[..] } else { &self.gathered[..] };
        &all[self.at..]
    }

    pub fn use_up(&mut self, bytes: usize) {
        assert!(bytes <= self.bytes().len(), "only what has come can be used up");
        self.at += bytes;
    }

    pub fn add(&mut self, received: Buffer) {
        self.release();
        if self.gathered.is_empty() {
            self.received = received;
        } else {
            self.gathered.extend_from_slice(&received);
        }
    }

    /// Gives the received buffer back to its pool: nothing more is done until more comes.
    pub fn release(&mut self) {
        if self.gathered.is_empty() {
            self.gathered = self.received[self.at..].to_vec();
        } else {
            self.gathered.drain(..self.at);
        }
        if self.gathered.is_empty() {
            self.gathered = Vec::new();
        }
        self.received = Buffer::default();
        self.at = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_and_go_in_their_order() {
        let mut input = Input::default();
        assert_eq!(input.bytes(), b"");
        input.add("abc".into());
        input.use_up(1);
        assert_eq!(input.bytes(), b"bc");
        input.add("def".into());
        assert_eq!(input.bytes(), b"bcdef");
        input.use_up(4);
        input.release();
        assert_eq!(input.bytes(), b"f");
        input.use_up(1);
        input.add("g".into());
        assert_eq!(input.bytes(), b"g");
        input.use_up(1);
        input.release();
        assert_eq!(input.bytes(), b"");
    }
}
