//! What others send, on its way to a terminal: characters that would steer it are shown instead.

use std::fmt::Write as _;

/// Text in pieces, of which one may end in the middle of a character.
#[derive(Default)]
pub struct Printable {
    unfinished: Vec<u8>,
}

impl Printable {
    /// The next piece, as it can be shown.
    pub fn next(&mut self, piece: &[u8]) -> String {
        let mut bytes = std::mem::take(&mut self.unfinished);
        bytes.extend_from_slice(piece);
        let end = whole(&bytes);
        self.unfinished = bytes.split_off(end);
        let mut shown = String::with_capacity(bytes.len());
        let text = String::from_utf8_lossy(&bytes);
        let mut letters = text.chars().peekable();
        while let Some(letter) = letters.next() {
            match letter {
                '\n' | '\t' => shown.push(letter),
                // The end of a line in many a protocol.
                '\r' if letters.peek() == Some(&'\n') => {}
                '\0'..='\x1f' => shown.extend(['^', char::from(letter as u8 + 64)]),
                '\x7f' => shown.push_str("^?"),
                _ if steers(letter) => drop(write!(shown, "<U+{:04X}>", u32::from(letter))),
                _ => shown.push(letter),
            }
        }
        shown
    }
}

/// So many bytes are whole characters, or can never become one.
fn whole(bytes: &[u8]) -> usize {
    let begin = bytes.len().saturating_sub(3);
    for at in begin..bytes.len() {
        if std::str::from_utf8(&bytes[at..]).is_err_and(|error| error.valid_up_to() == 0 && error.error_len().is_none())
        {
            return at;
        }
    }
    bytes.len()
}

/// Controls of a terminal with eight bits, and what turns the direction of the text around.
fn steers(letter: char) -> bool {
    matches!(letter, '\u{80}'..='\u{9f}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_shown() {
        let shown = |bytes: &[u8]| Printable::default().next(bytes);
        assert_eq!(shown(b"\x1b]0;x\x07\x1b[2Jtext\n"), "^[]0;x^G^[[2Jtext\n");
        assert_eq!(shown(b"tab\there\r\nnext\rback\x08\x7f\0"), "tab\there\nnext^Mback^H^?^@");
        assert_eq!(shown("\u{9b}2J\u{202e}abc\u{2066}".as_bytes()), "<U+009B>2J<U+202E>abc<U+2066>");
        assert_eq!(shown("gr\u{fc}\u{df}e \u{ac00}\n".as_bytes()), "gr\u{fc}\u{df}e \u{ac00}\n");
        assert_eq!(shown(b"\x9b2J"), "\u{fffd}2J");
    }

    #[test]
    fn a_character_that_comes_in_pieces_is_one() {
        let text = "a\u{9b}\u{ac00}\u{1f600}z".as_bytes();
        for size in 1..text.len() {
            let mut printable = Printable::default();
            let shown: String = text.chunks(size).map(|piece| printable.next(piece)).collect();
            assert_eq!(shown, "a<U+009B>\u{ac00}\u{1f600}z", "{size}");
        }
    }
}
