//! What a row's verdict is, from what its test did and what is expected of it.

use crate::native::Expected;

/// What became of a row in a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Pass,
    Fail,
    /// What is done instead stands in `docs/known-differences.md`, and was shown.
    Differs,
    /// It stands there too, and there is nothing that could be run.
    NotOffered,
    /// It fails on this system as listed, with the words that are listed.
    ExpectedFailure,
    /// Nobody has seen it here.
    Unverified,
    NotApplicable,
}

impl Verdict {
    pub const ALL: [Verdict; 7] = [
        Verdict::Pass,
        Verdict::Fail,
        Verdict::Differs,
        Verdict::NotOffered,
        Verdict::ExpectedFailure,
        Verdict::Unverified,
        Verdict::NotApplicable,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Differs => "differs",
            Verdict::NotOffered => "not offered",
            Verdict::ExpectedFailure => "expected failure",
            Verdict::Unverified => "unverified",
            Verdict::NotApplicable => "not applicable",
        }
    }
}

/// What a row raises that could not try anything (`kit::not_tried`, `kit::not_here`).
#[derive(Clone, Debug)]
pub struct NotTried {
    /// The system does not have what the row speaks of, so that there is nothing to know.
    pub not_applicable: bool,
    pub why: String,
}

/// How a test ended.
#[derive(Clone, Debug)]
pub enum Ended {
    Passed,
    /// With what the panic said.
    Failed(String),
    NotTried(NotTried),
}

/// The verdict, and the reason for it where it is no pass. `usual` is that of a test that passes.
pub fn judge(usual: (Verdict, &str), expected: Option<Expected>, ended: Ended) -> (Verdict, String) {
    match (ended, expected) {
        (Ended::Passed, Some(listed)) if !listed.sometimes => {
            let Expected { words, why, .. } = listed;
            (Verdict::Fail, format!("it passes, and is listed to fail with \"{words}\" ({why}): take it off the list"))
        }
        (Ended::Passed, _) => (usual.0, usual.1.into()),
        (Ended::Failed(text), Some(listed)) if listed.is(&text) => {
            let verdict = if listed.is_of_wine() { Verdict::Unverified } else { Verdict::ExpectedFailure };
            (verdict, format!("{}; it failed with: {text}", listed.why))
        }
        (Ended::Failed(text), Some(Expected { words, why, .. })) => {
            (Verdict::Fail, format!("{text}; it is listed to fail with \"{words}\" ({why})"))
        }
        (Ended::Failed(text), None) => (Verdict::Fail, text),
        (Ended::NotTried(NotTried { not_applicable: true, why }), _) => (Verdict::NotApplicable, why),
        (Ended::NotTried(NotTried { not_applicable: false, why }), _) => (Verdict::Unverified, why),
    }
}

/// Whether a row that failed, and failed again `failures` times of `tries` when it ran alone, has failed. A quiet
/// machine is no excuse for a single failure, and a loaded one none for most.
pub fn has_failed(failures: usize, tries: usize, loaded: bool) -> bool {
    !loaded || failures * 2 >= tries
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINE: Expected = Expected { row: "C-06", words: "limit 1", why: "Wine: no limit", sometimes: false };
    const WINDOWS: Expected = Expected { row: "Q-08", words: "associate", why: "Windows: pipes", sometimes: false };
    const PASS: (Verdict, &str) = (Verdict::Pass, "");

    fn failed(text: &str) -> Ended {
        Ended::Failed(text.into())
    }

    #[test]
    fn a_failure_is_expected_only_with_the_words_that_are_listed() {
        assert_eq!(judge(PASS, Some(WINE), failed("limit 1, 4 workers")).0, Verdict::Unverified);
        assert_eq!(judge(PASS, Some(WINDOWS), failed("cannot associate")).0, Verdict::ExpectedFailure);
        let (verdict, reason) = judge(PASS, Some(WINE), failed("a packet came twice"));
        assert_eq!(verdict, Verdict::Fail);
        assert!(reason.contains("a packet came twice") && reason.contains("limit 1"), "both are said: {reason}");
        assert_eq!(judge(PASS, None, failed("limit 1")).0, Verdict::Fail);
    }

    #[test]
    fn a_row_that_passes_against_the_list_fails_unless_it_may() {
        assert_eq!(judge(PASS, Some(WINE), Ended::Passed).0, Verdict::Fail);
        assert_eq!(judge(PASS, Some(Expected { sometimes: true, ..WINE }), Ended::Passed).0, Verdict::Pass);
        assert_eq!(judge((Verdict::Differs, "here"), None, Ended::Passed), (Verdict::Differs, "here".into()));
    }

    #[test]
    fn what_was_not_tried_is_no_pass() {
        let not_tried = |not_applicable| Ended::NotTried(NotTried { not_applicable, why: "why".into() });
        assert_eq!(judge(PASS, None, not_tried(false)), (Verdict::Unverified, "why".into()));
        assert_eq!(judge(PASS, Some(WINE), not_tried(true)).0, Verdict::NotApplicable);
    }

    #[test]
    fn a_second_try_helps_on_a_loaded_machine_only_and_not_a_row_that_mostly_fails() {
        assert!(has_failed(0, 2, false));
        assert!(!has_failed(0, 2, true));
        assert!(has_failed(1, 2, true));
        assert!(has_failed(2, 2, true));
    }
}
