//! The rows that are known to fail on the native engine of Windows, as far as Wine 8 shows it: those of `ci/windows-expected`.

/// Why the row fails there.
pub fn why_it_fails(id: &str) -> Option<&'static str> {
    let rows = include_str!("../../ci/windows-expected").lines().filter_map(|line| line.strip_prefix("row "));
    rows.filter_map(|row| row.split_once(' ')).find(|&(row, _)| row == id).map(|(_, why)| why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_is_expected_to_fail_is_one_that_there_is_and_has_its_reason() {
        assert!(why_it_fails("C-06").is_some_and(|why| why.starts_with("Wine: no concurrency limit")));
        assert_eq!(why_it_fails("C-0"), None);
        let expected = include_str!("../../ci/windows-expected").lines().filter_map(|line| line.strip_prefix("row "));
        for row in expected {
            let id = row.split(' ').next().unwrap_or_default();
            assert!(crate::rows::all().iter().any(|row| row.id == id), "{row}");
        }
    }
}
