//! The rows that are known to fail on the native engine of Windows: those of `ci/windows-expected`, each with the words
//! that its failure has to say. What fails with other words has another cause, and is a failure.

/// What a row fails with there, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub row: &'static str,
    /// One of these is part of the failure's text; they stand between " / ".
    pub words: &'static str,
    pub why: &'static str,
    /// It may pass as well.
    pub sometimes: bool,
}

impl Expected {
    /// The failure is the one that is listed.
    pub fn is(&self, text: &str) -> bool {
        self.words.split(" / ").any(|words| text.contains(words))
    }

    /// Wine does otherwise than Windows, so that the row says nothing of Windows.
    pub fn is_of_wine(&self) -> bool {
        self.why.starts_with("Wine")
    }
}

/// The list: `row ID WORDS | REASON`, or `row? ID WORDS | REASON` for what may pass as well.
fn list() -> impl Iterator<Item = Expected> {
    include_str!("../../ci/windows-expected").lines().filter_map(|line| {
        let (kind, rest) = line.split_once(' ')?;
        let sometimes = match kind {
            "row" => false,
            "row?" => true,
            _ => return None,
        };
        let (row, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (words, why) = rest.split_once(" | ").unwrap_or((rest, ""));
        Some(Expected { row, words, why, sometimes })
    })
}

/// How the row is expected to fail on a Windows that is Wine, or none.
pub fn expected(id: &str, on_wine: bool) -> Option<Expected> {
    list().find(|expected| expected.row == id && (on_wine || !expected.is_of_wine()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_expected_to_fail_is_one_that_there_is_and_has_its_words_and_its_reason() {
        let mut seen = Vec::new();
        for expected in list() {
            let row = crate::rows::all().into_iter().find(|row| row.id == expected.row);
            assert!(row.is_some_and(|row| row.how.test().is_some()), "{expected:?} is of no row that is run");
            assert!(expected.words.len() > 3, "{expected:?}: what does it fail with?");
            assert!(expected.why.starts_with("Wine: ") || expected.why.starts_with("Windows: "), "{expected:?}");
            assert!(!seen.contains(&expected.row), "{expected:?} stands there twice");
            seen.push(expected.row);
        }
        assert!(!seen.is_empty());
    }

    #[test]
    fn what_wine_does_otherwise_is_expected_under_wine_only() {
        assert!(expected("C-06", true).is_some_and(|expected| expected.is_of_wine()));
        assert_eq!(expected("C-06", false), None);
        assert!(expected("Q-08", false).is_some());
        assert_eq!(expected("C-0", true), None);
    }
}
