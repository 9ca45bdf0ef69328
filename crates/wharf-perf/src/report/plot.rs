//! Curves over a test's time as an SVG: throughput, and below, as far as they are known, segments sent again and
//! round-trip times.

use super::outcome::Outcome;
use plotters::prelude::*;
use std::path::Path;

/// One curve of each kind, a point for each interval.
#[derive(Clone, Debug, Default, PartialEq)]
struct Curves {
    /// End of the interval in seconds, Mbit/s of what this end sends, and of what it receives.
    sent: Vec<(f64, f64)>,
    received: Vec<(f64, f64)>,
    retransmits: Vec<(f64, f64)>,
    /// Milliseconds, the mean of the streams.
    rtt: Vec<(f64, f64)>,
}

impl Curves {
    fn of(outcome: &Outcome) -> Curves {
        let mut curves = Curves::default();
        let mut offset = 0.0;
        let mut last_end = 0.0;
        for interval in &outcome.intervals {
            for sum in &interval.sums {
                // The counted time begins at 0 again behind the omitted one.
                if sum.end < last_end {
                    offset = last_end;
                }
                last_end = sum.end;
                let at = sum.end + offset;
                let rate = sum.rate() / 1e6;
                if sum.sends {
                    curves.sent.push((at, rate))
                } else {
                    curves.received.push((at, rate))
                }
                if let Some(count) = sum.retransmits {
                    curves.retransmits.push((at, count as f64));
                }
            }
            let trips: Vec<f64> = interval.rows.iter().filter_map(|row| Some(row.tcp?.rtt as f64 / 1000.0)).collect();
            if let (false, Some(sum)) = (trips.is_empty(), interval.sums.first()) {
                curves.rtt.push((sum.end + offset, trips.iter().sum::<f64>() / trips.len() as f64));
            }
        }
        curves
    }
}

/// Draws a test.
///
/// # Errors
///
/// A sentence: there are no intervals to draw, or the file cannot be written.
pub fn draw(outcome: &Outcome, title: &str, file: &Path) -> Result<(), String> {
    let svg = svg(&Curves::of(outcome), title)?;
    std::fs::write(file, svg).map_err(|error| format!("{} cannot be written: {error}", file.display()))
}

fn svg(curves: &Curves, title: &str) -> Result<String, String> {
    let throughput = [("sent", &curves.sent, BLUE), ("received", &curves.received, RED)];
    let mut panels = vec![("Mbit/s", throughput.iter().filter(|it| !it.1.is_empty()).copied().collect::<Vec<_>>())];
    if panels[0].1.is_empty() {
        return Err("there is no interval to draw; the test was shorter than one, or -i is 0".into());
    }
    if !curves.retransmits.is_empty() {
        panels.push(("retransmissions", vec![("retransmissions", &curves.retransmits, MAGENTA)]));
    }
    if !curves.rtt.is_empty() {
        panels.push(("round trip, ms", vec![("round trip", &curves.rtt, GREEN)]));
    }
    let mut text = String::new();
    {
        let root = SVGBackend::with_string(&mut text, (900, 60 + 240 * panels.len() as u32)).into_drawing_area();
        let wrong = |error: &dyn std::fmt::Display| format!("the curves cannot be drawn: {error}");
        root.fill(&WHITE).map_err(|error| wrong(&error))?;
        let root = root.titled(title, ("sans-serif", 20)).map_err(|error| wrong(&error))?;
        for (area, (label, series)) in root.split_evenly((panels.len(), 1)).iter().zip(&panels) {
            let points = || series.iter().flat_map(|(_, points, _)| points.iter());
            let x_max = points().map(|point| point.0).fold(0.0, f64::max).max(0.1);
            let y_max = points().map(|point| point.1).fold(0.0, f64::max).max(1e-3) * 1.1;
            let mut chart = ChartBuilder::on(area)
                .margin(8)
                .x_label_area_size(28)
                .y_label_area_size(70)
                .build_cartesian_2d(0.0..x_max, 0.0..y_max)
                .map_err(|error| wrong(&error))?;
            chart.configure_mesh().x_desc("seconds").y_desc(*label).draw().map_err(|error| wrong(&error))?;
            for (name, points, colour) in series {
                let colour = *colour;
                let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(2);
                let drawn = chart.draw_series(line).map_err(|error| wrong(&error))?;
                drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
            }
            if series.len() > 1 {
                let mut labels = chart.configure_series_labels();
                labels.background_style(WHITE.mix(0.8)).border_style(BLACK).draw().map_err(|error| wrong(&error))?;
            }
        }
        root.present().map_err(|error| wrong(&error))?;
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_a_panel_for_each_thing_that_is_known() {
        let curves = Curves { sent: vec![(1.0, 900.0), (2.0, 950.0)], rtt: vec![(1.0, 0.2)], ..Curves::default() };
        let text = svg(&curves, "a test").unwrap();
        assert!(text.starts_with("<svg") && text.contains("a test") && text.contains("Mbit/s"));
        assert!(text.contains("round trip, ms") && !text.contains("retransmissions"));
        assert!(svg(&Curves::default(), "none").unwrap_err().contains("-i is 0"));
    }
}
