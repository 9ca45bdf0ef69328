//! Figures of several tests.

/// Mean, spread and extremes of some numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Summary {
    /// How many.
    pub count: usize,
    /// Their mean.
    pub mean: f64,
    /// The standard deviation of a sample; 0 for fewer than two.
    pub deviation: f64,
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The most.
    pub max: f64,
}

impl Summary {
    /// Of these; `None` of none.
    pub fn of(numbers: &[f64]) -> Option<Summary> {
        let mut sorted = numbers.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let mean = sorted.iter().sum::<f64>() / count as f64;
        let squares: f64 = sorted.iter().map(|number| (number - mean).powi(2)).sum();
        let deviation = if count < 2 { 0.0 } else { (squares / (count - 1) as f64).sqrt() };
        let median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2.0;
        Some(Summary { count, mean, deviation, median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_are_those_of_a_sample() {
        let summary = Summary::of(&[4.0, 2.0, 6.0, 8.0]).unwrap();
        assert_eq!((summary.count, summary.mean, summary.median, summary.min, summary.max), (4, 5.0, 5.0, 2.0, 8.0));
        assert!((summary.deviation - (20.0_f64 / 3.0).sqrt()).abs() < 1e-12);
        assert_eq!(Summary::of(&[3.0]).map(|one| (one.mean, one.deviation)), Some((3.0, 0.0)));
        assert_eq!(Summary::of(&[]), None);
    }
}
