//! Byte ranges of a request against the length of a file.

/// What is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Selected {
    /// All of it: no range was asked for, or none that this server serves. A range may always be ignored, and several
    /// at once are: whoever asks for them gets the file, from which each of them can be taken.
    All,
    /// `length` bytes from `offset`, at least one.
    Part { offset: u64, length: u64 },
    /// The range begins behind the end.
    Nothing,
}

/// `value`: the `Range` field. `length`: of the file, in bytes.
pub fn select(value: &[u8], length: u64) -> Selected {
    let Some(set) = str::from_utf8(value).ok().and_then(after_unit) else { return Selected::All };
    if set.contains(',') {
        return Selected::All;
    }
    let Some((first, last)) = set.trim_matches([' ', '\t']).split_once('-') else { return Selected::All };
    match (number(first), number(last)) {
        // The last `suffix` bytes, or all if there are fewer.
        (None, Some(suffix)) if first.is_empty() => match suffix {
            0 => Selected::Nothing,
            // An empty file has no byte to name.
            _ if length == 0 => Selected::All,
            _ => Selected::Part { offset: length.saturating_sub(suffix), length: suffix.min(length) },
        },
        (Some(first), None) if last.is_empty() => part(first, u64::MAX, length),
        (Some(first), Some(last)) if first <= last => part(first, last, length),
        _ => Selected::All,
    }
}

fn after_unit(value: &str) -> Option<&str> {
    let (unit, set) = value.split_once('=')?;
    unit.trim_matches([' ', '\t']).eq_ignore_ascii_case("bytes").then_some(set)
}

fn part(first: u64, last: u64, length: u64) -> Selected {
    if first >= length {
        return Selected::Nothing;
    }
    Selected::Part { offset: first, length: last.min(length - 1) - first + 1 }
}

/// More than fits into a number is behind every end.
fn number(digits: &str) -> Option<u64> {
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some(digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_cut_at_the_end_of_the_file() {
        let part = |offset, length| Selected::Part { offset, length };
        for (value, selected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=0-9", part(0, 10)),
            ("bytes=3-", part(3, 7)),
            ("bytes=9-9", part(9, 1)),
            ("bytes=5-1000", part(5, 5)),
            ("bytes=5-99999999999999999999999999", part(5, 5)),
            ("bytes=-1", part(9, 1)),
            ("bytes=-10", part(0, 10)),
            ("bytes=-1000", part(0, 10)),
            ("Bytes=0-1", part(0, 2)),
            ("bytes= 0-1 ", part(0, 2)),
            ("bytes=10-", Selected::Nothing),
            ("bytes=10-20", Selected::Nothing),
            ("bytes=99999999999999999999999999-", Selected::Nothing),
            ("bytes=-0", Selected::Nothing),
            ("bytes=5-4", Selected::All),
            ("bytes=0-1,3-4", Selected::All),
            ("bytes=", Selected::All),
            ("bytes=-", Selected::All),
            ("bytes=a-b", Selected::All),
            ("bytes=0x1-2", Selected::All),
            ("bytes=+1-2", Selected::All),
            ("bytes=--1", Selected::All),
            ("bytes 0-1", Selected::All),
            ("lines=0-1", Selected::All),
            ("", Selected::All),
        ] {
            assert_eq!(select(value.as_bytes(), 10), selected, "{value}");
        }
        assert_eq!(select(b"bytes=\xff-", 10), Selected::All);
    }

    #[test]
    fn an_empty_file_has_no_part() {
        assert_eq!(select(b"bytes=0-", 0), Selected::Nothing);
        assert_eq!(select(b"bytes=-5", 0), Selected::All);
        assert_eq!(select(b"bytes=-0", 0), Selected::Nothing);
    }

    #[test]
    fn no_range_of_any_file_leaves_it() {
        let numbers = [0, 1, 2, 9, 10, 11, u64::MAX - 1, u64::MAX];
        for length in numbers {
            for first in numbers {
                for last in numbers {
                    for value in [format!("bytes={first}-{last}"), format!("bytes={first}-"), format!("bytes=-{last}")]
                    {
                        if let Selected::Part { offset, length: bytes } = select(value.as_bytes(), length) {
                            let end = offset.checked_add(bytes);
                            assert!(bytes > 0 && end.is_some_and(|end| end <= length), "{value} of {length}");
                        }
                    }
                }
            }
        }
    }
}
