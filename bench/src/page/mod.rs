//! The page: what a run came to, method first, made of nothing but its rows.

mod markdown;
mod plot;
mod text;

use crate::rows::Row;
use std::io;
use std::path::{Path, PathBuf};

/// Writes `benchmarks.md` and `plots/` into a folder; returns the page's path.
pub fn write(folder: &Path, rows: &[Row]) -> io::Result<PathBuf> {
    let plots = folder.join("plots");
    let named = |error: io::Error, path: &Path| {
        io::Error::new(error.kind(), format!("{} cannot be written: {error}", path.display()))
    };
    std::fs::create_dir_all(&plots).map_err(|error| named(error, &plots))?;
    let mut drawn = Vec::new();
    for plot in plot::PLOTS {
        let file = plots.join(format!("{}.svg", plot.scenario));
        if let Some(svg) = plot.draw(rows).map_err(io::Error::other)? {
            std::fs::write(&file, svg).map_err(|error| named(error, &file))?;
            drawn.push(plot);
        } else if file.exists() {
            // Of an earlier run: it does not belong to this page.
            std::fs::remove_file(&file)?;
        }
    }
    let page = folder.join("benchmarks.md");
    std::fs::write(&page, markdown::page(rows, &drawn)).map_err(|error| named(error, &page))?;
    Ok(page)
}

/// The scenarios of some rows, in their order.
fn scenarios(rows: &[Row]) -> Vec<&str> {
    let mut found: Vec<&str> = Vec::new();
    for row in rows {
        if !found.contains(&row.scenario.as_str()) {
            found.push(&row.scenario);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::Folder;
    use crate::rows::{About, Goal, Wanted};

    fn rows() -> Vec<Row> {
        let about = About {
            command: "cargo run --release -p wharf-bench -- all".into(),
            kernel: "Linux 6.18".into(),
            notes: vec!["a note | with a bar".into()],
            goals: vec![Goal::new("a goal", Some(2.0), Wanted::AtMost(1.0))],
            ..About::default()
        };
        let row = |case: &str, system: &str, ratio| Row {
            scenario: "echo".into(),
            case: case.into(),
            system: system.into(),
            cpu_us_per_message: Some(5.5),
            ratio_cpu: Some(ratio),
            ratio_cpu_quartiles: Some((ratio * 0.9, ratio * 1.1)),
            rounds: 7,
            ..Row::default()
        };
        let mut rows = vec![
            row("64 x 32 B", "wharf 2 workers, limit 1", 1.0),
            row("64 x 32 B", "tokio <x>", 1.25),
            row("1 x 32 B", "tokio <x>", 1.5),
        ];
        rows[0].about = Some(Box::new(about));
        rows
    }

    #[test]
    fn the_page_says_how_before_it_says_what_and_leaves_nothing_out() {
        let folder = Folder::new().unwrap();
        let page = write(folder.path(), &rows()).unwrap();
        let text = std::fs::read_to_string(page).unwrap();
        let at = |what: &str| text.find(what).unwrap_or_else(|| panic!("{what} is not there:\n{text}"));
        assert!(at("## Method") < at("## Where and with what") && at("Linux 6.18") < at("## echo"));
        assert!(at("cargo run --release -p wharf-bench -- all") < at("## echo"));
        for value in ["5.500", "1.25", "1.35 to 1.65", "1.50", "a note \\| with a bar", "tokio &lt;x>"] {
            at(value);
        }
        assert!(text.contains("| a goal | 2.00 | at most 1 | **MISSED** |"), "{text}");
        assert!(text.contains("(plots/echo.svg)"));
        let svg = std::fs::read_to_string(folder.path().join("plots/echo.svg")).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("tokio"), "{svg}");
    }

    #[test]
    fn the_same_rows_make_the_same_page_and_a_plot_of_another_run_goes() {
        let folder = Folder::new().unwrap();
        let page = write(folder.path(), &rows()).unwrap();
        let first = std::fs::read(&page).unwrap();
        write(folder.path(), &rows()).unwrap();
        assert_eq!(std::fs::read(&page).unwrap(), first);
        let stale = folder.path().join("plots/echo.svg");
        assert!(stale.exists());
        write(folder.path(), &[]).unwrap();
        assert!(!stale.exists());
    }
}
