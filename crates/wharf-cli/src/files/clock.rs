//! The time, as cheap as it can be had: to the tick of the kernel (4 ms or so, 16 on Windows), without a system call.

use std::cell::{Cell, RefCell};
use std::time::{Duration, UNIX_EPOCH};

pub use crate::system::{coarse_ms as milliseconds, coarse_seconds as seconds};

/// A date as HTTP writes it: `Sun, 06 Nov 1994 08:49:37 GMT`.
pub type Date = [u8; 29];

/// Dates that were written lately: the same second, and the same files, come again and again.
const SLOTS: usize = 64;

thread_local! {
    static WRITTEN: RefCell<[(i64, Date); SLOTS]> = const { RefCell::new([(i64::MIN, [0; 29]); SLOTS]) };
    static NOW: Cell<(i64, Date)> = const { Cell::new((i64::MIN, [0; 29])) };
}

/// The date of now.
pub fn now() -> (i64, Date) {
    let now = seconds();
    let mut written = NOW.get();
    if written.0 != now {
        written = (now, date(now));
        NOW.set(written);
    }
    written
}

/// `seconds` since 1970. What is before that, or behind the year 9999, is written as the nearest that can be.
pub fn date(seconds: i64) -> Date {
    const LAST: i64 = 253_402_300_799;
    let seconds = seconds.clamp(0, LAST);
    WRITTEN.with_borrow_mut(|written| {
        let slot = &mut written[seconds as usize % SLOTS];
        if slot.0 != seconds {
            let time = UNIX_EPOCH + Duration::from_secs(seconds.unsigned_abs());
            let text = httpdate::fmt_http_date(time);
            slot.1.copy_from_slice(text.as_bytes());
            slot.0 = seconds;
        }
        slot.1
    })
}

/// Seconds since 1970 of a date in any of the three forms that HTTP has had.
pub fn parse(date: &[u8]) -> Option<i64> {
    let time = httpdate::parse_http_date(str::from_utf8(date).ok()?.trim_ascii()).ok()?;
    i64::try_from(time.duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_written_and_read() {
        for (seconds, text) in [
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777 + SLOTS as i64, "Sun, 06 Nov 1994 08:50:41 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(date(seconds), text.as_bytes());
            assert_eq!(parse(text.as_bytes()), Some(seconds));
        }
        assert_eq!(date(-1), date(0));
        assert_eq!(date(i64::MAX), *b"Fri, 31 Dec 9999 23:59:59 GMT");
        assert_eq!(parse(b"Sunday, 06-Nov-94 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(parse(b"Sun Nov  6 08:49:37 1994"), Some(784_111_777));
        for bad in ["", "now", "Sun, 06 Nov 1994 08:49:37", "\u{ff}"] {
            assert_eq!(parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
