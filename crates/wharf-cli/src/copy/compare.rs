//! Is a block of the copy what the source has there?

/// What came of comparing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compared {
    Equal,
    /// Where they differ the copy has zeros: an interrupted copy has not come to it.
    Gap,
    /// At this byte, the first, they differ.
    Differs(usize),
}

/// Compares a block of the copy with the source's, which is as long. Only where `gaps` are looked for there are any.
pub(super) fn compare(source: &[u8], copy: &[u8], gaps: bool) -> Compared {
    assert_eq!(source.len(), copy.len(), "both were cut to what was planned");
    // The usual case at the speed of memory.
    if source == copy {
        return Compared::Equal;
    }
    let differs =
        |gaps: bool| source.iter().zip(copy).position(|(ours, theirs)| ours != theirs && !(gaps && *theirs == 0));
    match differs(gaps) {
        Some(at) => Compared::Differs(at),
        None => Compared::Gap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_differs_is_named() {
        assert_eq!(compare(b"", b"", true), Compared::Equal);
        assert_eq!(compare(b"copied", b"copied", false), Compared::Equal);
        assert_eq!(compare(b"copied", b"cooied", false), Compared::Differs(2));
        assert_eq!(compare(b"copied", b"copieD", true), Compared::Differs(5));
    }

    #[test]
    fn zeros_are_a_gap_only_where_gaps_are_looked_for() {
        assert_eq!(compare(b"copied", b"co\0\0ed", true), Compared::Gap);
        assert_eq!(compare(b"copied", b"\0\0\0\0\0\0", true), Compared::Gap);
        assert_eq!(compare(b"copied", b"co\0\0ed", false), Compared::Differs(2));
        assert_eq!(compare(b"copied", b"c\0pieD", true), Compared::Differs(5), "the gap is not what is wrong");
        assert_eq!(compare(b"c\0pied", b"copied", true), Compared::Differs(1), "zeros of the source are no gap");
    }
}
