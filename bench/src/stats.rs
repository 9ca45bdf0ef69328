//! What many figures come to: medians, quartiles, and percentiles of latencies.

use hdrhistogram::Histogram;

/// The middle of a list, unless it is empty.
pub fn median(values: &[f64]) -> Option<f64> {
    quantile(values, 0.5)
}

/// The quartiles of a list, unless it is empty.
pub fn quartiles(values: &[f64]) -> Option<(f64, f64)> {
    Some((quantile(values, 0.25)?, quantile(values, 0.75)?))
}

fn quantile(values: &[f64], at: f64) -> Option<f64> {
    let mut sorted: Vec<f64> = values.iter().copied().filter(|value| value.is_finite()).collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get((sorted.len().saturating_sub(1) as f64 * at).round() as usize).copied()
}

/// A histogram of nanoseconds with three digits.
pub fn histogram() -> Histogram<u64> {
    Histogram::new(3).expect("three digits are few enough")
}

/// A percentile of several rounds, in microseconds.
///
/// It is the median of the rounds' own where each round has enough values for that: one round in which the machine was
/// busy with something else would fill the tail of a common histogram. Where rounds are short of values, as with one
/// message a second, it is that of all rounds together; and without enough values even then it is not known.
pub fn percentile_us(rounds: &[&Histogram<u64>], at: f64) -> Option<f64> {
    // So many values that at least two lie beyond it.
    let enough = (2.0 / (1.0 - at)).round() as u64;
    let own: Vec<f64> = rounds
        .iter()
        .filter(|round| round.len() >= enough)
        .map(|round| round.value_at_quantile(at) as f64 / 1000.0)
        .collect();
    if !own.is_empty() && own.len() == rounds.len() {
        return median(&own);
    }
    let mut all = histogram();
    rounds.iter().for_each(|round| all.add(*round).expect("both grow"));
    (all.len() >= enough).then(|| all.value_at_quantile(at) as f64 / 1000.0)
}

/// The longest of all rounds, in microseconds.
pub fn longest_us(rounds: &[&Histogram<u64>]) -> Option<f64> {
    rounds.iter().filter(|round| !round.is_empty()).map(|round| round.max() as f64 / 1000.0).reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_a_list_does_not_depend_on_its_order_or_on_what_is_no_number() {
        assert_eq!(median(&[3.0, 1.0, f64::NAN, 2.0]), Some(2.0));
        assert_eq!(median(&[]), None);
        assert_eq!(quartiles(&[5.0, 1.0, 2.0, 3.0, 4.0]), Some((2.0, 4.0)));
        assert_eq!(quartiles(&[f64::INFINITY]), None);
    }

    fn of(values: impl IntoIterator<Item = u64>) -> Histogram<u64> {
        let mut histogram = histogram();
        values.into_iter().for_each(|value| histogram.record(value).unwrap());
        histogram
    }

    #[test]
    fn one_disturbed_round_does_not_make_the_percentile() {
        let calm = of((0..1000).map(|_| 10_000));
        let disturbed = of((0..1000).map(|at| if at < 900 { 10_000 } else { 50_000_000 }));
        let rounds = [&calm, &disturbed, &calm];
        let p99 = percentile_us(&rounds, 0.99).unwrap();
        assert!((9.9..10.1).contains(&p99), "{p99}");
        // But what happened is told.
        assert!(longest_us(&rounds).unwrap() > 49_000.0);
    }

    #[test]
    fn rounds_of_few_values_are_taken_together_and_nothing_is_made_up() {
        let one = of([100_000]);
        let rounds: Vec<&Histogram<u64>> = vec![&one; 300];
        let p99 = percentile_us(&rounds, 0.99).unwrap();
        assert!((99.9..100.2).contains(&p99), "{p99}");
        // Three hundred values have no 99.9th percentile.
        assert_eq!(percentile_us(&rounds, 0.999), None);
        assert_eq!(percentile_us(&[], 0.5), None);
        assert_eq!(longest_us(&[]), None);
    }
}
