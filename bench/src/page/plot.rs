//! Plots: for most scenarios a dot for each case of a system, on a scale where twice and half are equally far from 1;
//! for the growing crowd, curves.

use crate::rows::Row;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// One plot of a page.
#[derive(Clone, Copy)]
pub struct Plot {
    pub scenario: &'static str,
    pub title: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Dots(fn(&Row) -> Option<f64>),
    /// Processor time over the number of idle connections, which the case names.
    Crowd,
}

const CPU: Kind = Kind::Dots(|row| row.ratio_cpu);
const RATE: Kind = Kind::Dots(|row| row.ratio_rate);

pub const PLOTS: [Plot; 11] = [
    Plot { scenario: "echo", title: "echo: processor time per message, of wharf's", kind: CPU },
    Plot {
        scenario: "scale",
        title: "scale: processor time per message (us) over idle connections",
        kind: Kind::Crowd,
    },
    Plot {
        scenario: "blocked",
        title: "blocked: the other connections' rate, of the same server's without the disturbance",
        kind: Kind::Dots(|row| row.rate_of_quiet),
    },
    Plot { scenario: "trickle", title: "trickle: processor time per message, of wharf's", kind: CPU },
    Plot { scenario: "skew", title: "skew: messages per second, of wharf's", kind: RATE },
    Plot { scenario: "churn", title: "churn: processor time per request, of wharf's", kind: CPU },
    Plot { scenario: "broadcast", title: "broadcast: processor time per delivery, of wharf's", kind: CPU },
    Plot { scenario: "queue", title: "queue: packets per second, of wharf's", kind: RATE },
    Plot { scenario: "files", title: "files: processor time per read, of wharf's", kind: CPU },
    Plot { scenario: "mixed", title: "mixed: processor time per message, of wharf's", kind: CPU },
    Plot { scenario: "idle", title: "idle: live heap per connection, KiB", kind: Kind::Dots(heap_kib) },
];

fn heap_kib(row: &Row) -> Option<f64> {
    row.heap_bytes_per_connection.map(|bytes| bytes / 1024.0)
}

const WIDTH: i32 = 760;
const NAMES: i32 = 220;
const LINE: i32 = 18;
const HEAD: i32 = 34;
const FOOT: i32 = 28;
/// Farther out, a dot stands at the edge.
const EDGES: (f64, f64) = (1.0 / 16.0, 64.0);

impl Plot {
    /// As an SVG, if there is anything to draw.
    pub fn draw(&self, rows: &[Row]) -> Result<Option<String>, String> {
        let own: Vec<&Row> = rows.iter().filter(|row| row.scenario == self.scenario).collect();
        let drawn = match self.kind {
            Kind::Dots(value) => dots(self.title, &by_system(&own, |row| Some((0.0, value(row)?)))),
            Kind::Crowd => crowd(self.title, &by_system(&own, |row| Some((idle(&row.case)?, row.cpu_us_per_message?)))),
        };
        drawn.map_err(|error| format!("{} cannot be drawn: {error}", self.title))
    }
}

type Series<'a> = Vec<(&'a str, Vec<(f64, f64)>)>;
type Drawn = Result<Option<String>, Box<dyn std::error::Error>>;

/// Points of each system, in the order in which the systems come first.
fn by_system<'a>(rows: &[&'a Row], point: impl Fn(&Row) -> Option<(f64, f64)>) -> Series<'a> {
    let mut series: Series = Vec::new();
    for row in rows {
        let Some(point) = point(row).filter(|point| point.1.is_finite() && point.1 > 0.0) else { continue };
        match series.iter_mut().find(|(name, _)| *name == row.system) {
            Some((_, points)) => points.push(point),
            None => series.push((&row.system, vec![point])),
        }
    }
    series
}

/// "10 active, 1000 idle" has a thousand.
fn idle(case: &str) -> Option<f64> {
    case.split(' ').nth(2)?.parse().ok()
}

fn dots(title: &str, series: &Series) -> Drawn {
    if series.is_empty() {
        return Ok(None);
    }
    let values = || series.iter().flat_map(|(_, points)| points.iter().map(|point| point.1));
    // Whole powers of two around all of them, 1 among them.
    let low = values().fold(1.0, f64::min).max(EDGES.0).log2().floor();
    let high = values().fold(1.0, f64::max).min(EDGES.1).log2().ceil().max(low + 1.0);
    let height = HEAD + FOOT + LINE * series.len() as i32;
    let mut text = String::new();
    {
        let root: Area = SVGBackend::with_string(&mut text, (WIDTH as u32, height as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        let at = |value: f64| {
            let part = ((value.log2() - low) / (high - low)).clamp(0.0, 1.0);
            NAMES + 10 + (part * f64::from(WIDTH - NAMES - 30)) as i32
        };
        let style = |size: i32, position| ("sans-serif", size).into_font().color(&BLACK).pos(position);
        root.draw(&Text::new(title.to_owned(), (10, 8), style(17, Pos::new(HPos::Left, VPos::Top))))?;
        let bottom = height - FOOT;
        for power in low as i32..=high as i32 {
            let value = 2_f64.powi(power);
            let line = if power == 0 { BLACK.stroke_width(1) } else { BLACK.mix(0.15).stroke_width(1) };
            root.draw(&PathElement::new([(at(value), HEAD), (at(value), bottom)], line))?;
            let label = if power < 0 { format!("1/{}", 2_i32.pow(power.unsigned_abs())) } else { format!("{value}") };
            root.draw(&Text::new(label, (at(value), bottom + 6), style(14, Pos::new(HPos::Center, VPos::Top))))?;
        }
        for (line, (name, points)) in series.iter().enumerate() {
            let y = HEAD + LINE * line as i32 + LINE / 2;
            root.draw(&Text::new((*name).to_owned(), (NAMES, y), style(14, Pos::new(HPos::Right, VPos::Center))))?;
            for &(_, value) in points {
                root.draw(&Circle::new((at(value), y), 4, BLUE.mix(0.45).filled()))?;
            }
            let all: Vec<f64> = points.iter().map(|point| point.1).collect();
            if let Some(middle) = crate::stats::median(&all) {
                root.draw(&PathElement::new([(at(middle), y - 7), (at(middle), y + 7)], RED.stroke_width(2)))?;
            }
        }
        root.present()?;
    }
    Ok(Some(text))
}

fn crowd(title: &str, series: &Series) -> Drawn {
    if series.iter().all(|(_, points)| points.len() < 2) {
        return Ok(None);
    }
    let points = || series.iter().flat_map(|(_, points)| points.iter());
    let most = points().map(|point| point.0).fold(10.0, f64::max);
    let (low, high) =
        points().fold((f64::INFINITY, 0.0_f64), |(low, high), point| (low.min(point.1), high.max(point.1)));
    let mut text = String::new();
    {
        let root: Area = SVGBackend::with_string(&mut text, (WIDTH as u32, 360)).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(title, ("sans-serif", 17))?;
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(28)
            .y_label_area_size(60)
            .build_cartesian_2d((10.0..most * 1.2).log_scale(), (low * 0.8..high * 1.3).log_scale())?;
        chart.configure_mesh().x_desc("idle connections").draw()?;
        for (number, (name, points)) in series.iter().enumerate() {
            let colour = Palette99::pick(number).to_rgba();
            let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(2);
            let drawn = chart.draw_series(line)?;
            drawn.label(*name).legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperLeft)
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK)
            .draw()?;
        root.present()?;
    }
    Ok(Some(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(scenario: &str, case: &str, system: &str, value: f64) -> Row {
        Row {
            scenario: scenario.into(),
            case: case.into(),
            system: system.into(),
            cpu_us_per_message: Some(value),
            ratio_cpu: Some(value),
            ..Row::default()
        }
    }

    fn plot(scenario: &str) -> Plot {
        *PLOTS.iter().find(|plot| plot.scenario == scenario).unwrap()
    }

    #[test]
    fn every_case_is_a_dot_and_one_far_out_stands_at_the_edge() {
        let rows = [1.0, 1.5, 3.0, 1e9].map(|value| row("echo", "c", "a peer", value));
        let svg = plot("echo").draw(&rows).unwrap().unwrap();
        assert_eq!(svg.matches("<circle").count(), 4);
        assert!(svg.contains("a peer") && svg.contains("\n64\n"), "{svg}");
        // A value that is none is no dot, and nothing at all is no plot.
        assert!(plot("echo").draw(&[row("echo", "c", "a peer", f64::NAN)]).unwrap().is_none());
        assert!(plot("queue").draw(&rows).unwrap().is_none());
    }

    #[test]
    fn the_crowd_is_a_curve_over_what_the_case_says() {
        assert_eq!(idle("10 active, 1000 idle"), Some(1000.0));
        assert_eq!(idle("something else"), None);
        let rows = [10, 100, 1000].map(|idle| row("scale", &format!("10 active, {idle} idle"), "a peer", 5.0));
        let svg = plot("scale").draw(&rows).unwrap().unwrap();
        assert!(svg.contains("<polyline") && svg.contains("a peer"), "{svg}");
        assert!(plot("scale").draw(&rows[..1]).unwrap().is_none());
    }
}
