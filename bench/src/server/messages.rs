//! Messages of one size out of a stream's pieces.

pub struct Messages {
    size: usize,
    begun: Vec<u8>,
}

impl Messages {
    pub fn new(size: usize) -> Messages {
        Messages { size: size.max(1), begun: Vec::new() }
    }

    /// Hands over each message that these bytes complete.
    pub fn each(&mut self, data: &[u8], mut handle: impl FnMut(&[u8])) {
        let missing = (self.size - self.begun.len()) % self.size;
        let (first, rest) = data.split_at(missing.min(data.len()));
        self.begun.extend_from_slice(first);
        if self.begun.len() == self.size {
            handle(&self.begun);
            self.begun.clear();
        }
        let mut whole = rest.chunks_exact(self.size);
        (&mut whole).for_each(&mut handle);
        self.begun.extend_from_slice(whole.remainder());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_they_came() {
        let text = b"aaaabbbbccccdddd";
        for first in 0..text.len() {
            for second in first..text.len() {
                let mut messages = Messages::new(4);
                let mut found = Vec::new();
                for piece in [&text[..first], &text[first..second], &text[second..]] {
                    messages.each(piece, |message| found.push(message.to_vec()));
                }
                assert_eq!(found, [b"aaaa", b"bbbb", b"cccc", b"dddd"], "cut at {first} and {second}");
            }
        }
    }
}
