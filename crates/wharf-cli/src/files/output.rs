//! The memory answers are written into: heads, and the contents of small files, for one send.

use std::cell::RefCell;
use wharf::Buffer;

/// A thread keeps one such memory for the next answer, unless it has grown beyond this.
const KEPT_BYTES_MAX: usize = 256 * 1024;

thread_local! {
    static KEPT: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Bytes to be sent. A connection that waits has none.
#[derive(Debug, Default)]
pub struct Output {
    /// Longer than what is used: what an earlier answer left there need not be written with zeros again before a file
    /// is read into it.
    memory: Vec<u8>,
    used: usize,
}

impl Output {
    pub fn len(&self) -> usize {
        self.used
    }

    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    pub fn written(&self) -> &[u8] {
        &self.memory[..self.used]
    }

    /// Forgets everything from `length` on.
    pub fn truncate(&mut self, length: usize) {
        self.used = self.used.min(length);
    }

    /// So many bytes behind what is used, whatever they contain. [`grow`](Output::grow) makes them part of it.
    pub fn space(&mut self, bytes: usize) -> &mut [u8] {
        let end = self.used + bytes;
        if self.memory.len() < end {
            if self.memory.capacity() == 0 {
                self.memory = KEPT.take();
            }
            if self.memory.len() < end {
                self.memory.resize(end, 0);
            }
        }
        &mut self.memory[self.used..end]
    }

    /// So many bytes of the space were written.
    pub fn grow(&mut self, bytes: usize) {
        self.used += bytes;
        assert!(self.used <= self.memory.len(), "only what is there can be used");
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.space(bytes.len()).copy_from_slice(bytes);
        self.used += bytes.len();
    }

    pub fn push_str(&mut self, text: &str) {
        self.push(text.as_bytes());
    }

    pub fn push_number(&mut self, number: u64) {
        let mut digits = [0; 20];
        let mut start = digits.len();
        let mut rest = number;
        loop {
            start -= 1;
            digits[start] = b'0' + (rest % 10) as u8;
            rest /= 10;
            if rest == 0 {
                break;
            }
        }
        self.push(&digits[start..]);
    }

    /// Everything, to be sent; nothing is left.
    pub fn take(&mut self) -> Buffer {
        let Output { mut memory, used } = std::mem::take(self);
        memory.truncate(used);
        Buffer::from(memory)
    }

    /// A buffer that was sent.
    pub fn recycle(buffer: Buffer) {
        if !buffer.is_writable() {
            return;
        }
        let memory = buffer.into_vec();
        if memory.capacity() <= KEPT_BYTES_MAX {
            KEPT.with_borrow_mut(|kept| {
                if kept.capacity() < memory.capacity() {
                    *kept = memory;
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_sent_and_nothing_of_an_earlier_answer() {
        let mut output = Output::default();
        output.push_str("a long first answer");
        Output::recycle(output.take());
        assert!(output.is_empty());
        for number in [0, 7, 10, 1234567890, u64::MAX] {
            output.push_number(number);
            assert_eq!(&output.take()[..], number.to_string().as_bytes());
        }
        output.push_str("abc");
        output.space(5)[..2].copy_from_slice(b"de");
        output.grow(2);
        output.truncate(4);
        assert_eq!(&output.take()[..], b"abcd");
        assert_eq!(output.take().len(), 0);
    }
}
