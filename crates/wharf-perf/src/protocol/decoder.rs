//! The decoder of the control connection: finds states, frames and error pairs in a stream of bytes.

use super::json::{self, Map};

/// Finds states, frames and error pairs in what comes over the control connection. What comes next is not marked in the
/// stream: it follows from the state of the test, so whoever calls says what it waits for.
#[derive(Debug, Default)]
pub struct Decoder {
    bytes: Vec<u8>,
    /// What was understood stays until it is worth moving the rest: a flood of states must not cost its square.
    understood: usize,
}

/// A frame that is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Empty, or longer than allowed: its announced length.
    Length(u32),
    /// Not one JSON object.
    NoObject,
}

impl Decoder {
    /// More bytes have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// How many bytes wait to be understood.
    pub fn len(&self) -> usize {
        self.rest().len()
    }

    /// Whether all was understood.
    pub fn is_empty(&self) -> bool {
        self.rest().is_empty()
    }

    fn rest(&self) -> &[u8] {
        &self.bytes[self.understood..]
    }

    fn take(&mut self, count: usize) {
        self.understood += count;
        if self.understood > self.bytes.len() / 2 {
            self.bytes.drain(..self.understood);
            self.understood = 0;
        }
    }

    /// The next state, which stays.
    pub fn next(&self) -> Option<i8> {
        self.rest().first().map(|byte| *byte as i8)
    }

    /// The next state, if it is there.
    pub fn state(&mut self) -> Option<i8> {
        let state = self.next()?;
        self.take(1);
        Some(state)
    }

    /// The two numbers behind state −2. At the end of the stream the second may be missing: it is 0 then.
    pub fn error_pair(&mut self, end: bool) -> Option<(i32, i32)> {
        let word = |at: usize| Some(i32::from_be_bytes(self.rest().get(at..at + 4)?.try_into().ok()?));
        match (word(0), word(4)) {
            (Some(code), Some(errno)) => {
                self.take(8);
                Some((code, errno))
            }
            (Some(code), None) if end => Some((code, 0)),
            _ => None,
        }
    }

    /// The next frame, if it is complete; what follows stays. A frame whose length cannot be right is an error at once,
    /// and no memory is taken for it.
    pub fn frame(&mut self, bytes_max: usize) -> Result<Option<Map>, BadFrame> {
        let Some(head) = self.rest().get(..4) else { return Ok(None) };
        let length = u32::from_be_bytes(head.try_into().unwrap_or_default());
        if length == 0 || length as usize > bytes_max {
            return Err(BadFrame::Length(length));
        }
        let end = 4 + length as usize;
        let Some(frame) = self.rest().get(..end) else { return Ok(None) };
        let object = json::object(&frame[4..]);
        self.take(end);
        object.map(Some).ok_or(BadFrame::NoObject)
    }
}

/// An object as a frame: its length, then its text.
pub fn frame(object: &serde_json::Value) -> Vec<u8> {
    let text = object.to_string();
    let mut frame = Vec::with_capacity(4 + text.len());
    frame.extend_from_slice(&u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::super::failure::Failure;
    use super::*;
    use serde_json::json;

    #[test]
    fn items_are_found_wherever_the_stream_was_cut() {
        let value = json!({"tcp": true, "time": 10});
        let mut stream = vec![9, 10];
        stream.extend(frame(&value));
        stream.extend([1, 2]);
        stream.extend(Failure::new(114, "").frame());
        for step in [1, 2, 3, stream.len()] {
            let mut decoder = Decoder::default();
            let mut seen = Vec::new();
            for piece in stream.chunks(step) {
                decoder.push(piece);
                loop {
                    let item = match seen.len() {
                        0 | 1 | 3 | 4 | 5 => decoder.state().map(|state| format!("{state}")),
                        2 => decoder.frame(100).unwrap().map(|map| serde_json::Value::from(map).to_string()),
                        _ => decoder.error_pair(false).map(|pair| format!("{pair:?}")),
                    };
                    match item {
                        Some(item) => seen.push(item),
                        None => break,
                    }
                }
            }
            assert_eq!(seen, ["9", "10", r#"{"tcp":true,"time":10}"#, "1", "2", "-2", "(114, 0)"], "step {step}");
            assert!(decoder.is_empty());
        }
    }

    #[test]
    fn the_second_word_of_an_error_pair_may_be_missing() {
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 142]);
        assert_eq!(decoder.error_pair(false), None);
        assert_eq!(decoder.error_pair(true), Some((142, 0)));
    }

    #[test]
    fn a_flood_of_states_costs_no_more_than_its_bytes() {
        let mut decoder = Decoder::default();
        let flood = vec![4; 4 << 20];
        decoder.push(&flood);
        // Moving the rest for each of them would be 8 TB.
        let states = std::iter::from_fn(|| decoder.state()).filter(|state| *state == 4).count();
        assert_eq!(states, flood.len());
        decoder.push(&[1]);
        assert_eq!((decoder.len(), decoder.state(), decoder.state()), (1, Some(1), None));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused_before_the_bytes_come() {
        for length in [0, 101, 0x7FFF_FFFF, u32::MAX] {
            let mut decoder = Decoder::default();
            decoder.push(&length.to_be_bytes());
            assert_eq!(decoder.frame(100), Err(BadFrame::Length(length)));
        }
    }
}
