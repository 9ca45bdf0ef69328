//! The conformance suite: what Windows' completion ports do, row by row, and whether wharf does it.
//!
//! `cargo run -p wharf-conformance -- [--engine NAME] [--row ID]... [--json FILE]`
//! `cargo run --release -p wharf-conformance -- soak --minutes 10`
//!
//! A row is a behaviour of the specification, named by its id. It is decided by a function that runs through the public or
//! the raw interface of the library and fails when the behaviour is not there; or it is a known difference; or it speaks of
//! something that only a C interface has (`row.rs`). The rows stand in `rows/`, a file for each group; the list of those that
//! there have to be in `specified.rs`. What comes of it is a table on the terminal, JSON, and the pages
//! `docs/conformance.md` and `docs/known-differences.md`, which a test compares. It also runs in hostile surroundings
//! (`hostile.rs`), and for as long as one likes with everything at once (`soak/`).

mod fake;
mod heap;
#[cfg_attr(windows, path = "hostile_windows.rs")]
mod hostile;
mod kit;
mod native;
mod report;
mod row;
mod rows;
mod run;
mod soak;
mod specified;
mod system;

use clap::Parser;
use kit::{Bench, Engine};
use row::Row;
use std::path::PathBuf;
use std::process::ExitCode;

#[global_allocator]
static HEAP: heap::Counted = heap::Counted;

#[derive(Parser)]
#[command(about = "Runs the behaviours of Windows' completion ports against wharf, row by row")]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// One engine only: epoll+io_uring, epoll+threads, poll+threads, fake: sockets in memory, or auto: what the library chooses
    #[arg(long, value_name = "NAME", value_parser = engine, global = true)]
    engine: Option<Engine>,
    /// In hostile surroundings: descriptors=64, memlock=0, or a refused call: io_uring_setup=EPERM
    #[arg(long, value_name = "WHAT", global = true)]
    hostile: Option<hostile::Surroundings>,
    /// Only these rows (C-01), or groups of rows (C)
    #[arg(long, value_name = "ID")]
    row: Vec<String>,
    /// Write the results there
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Print the page docs/conformance.md instead of the table
    #[arg(long)]
    markdown: bool,
    /// Write the pages of docs/ into that directory
    #[arg(long, value_name = "DIR")]
    pages: Option<PathBuf>,
    /// A part of a row that needs a process of its own
    #[arg(long, hide = true, value_name = "PART")]
    child: Option<String>,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Everything at once on one port, for as long as one likes: exactly one packet each, right data, flat memory
    Soak(soak::Options),
}

fn engine(name: &str) -> Result<Engine, String> {
    let known = || Engine::ALL.iter().copied().chain([Engine::Auto]);
    let names: Vec<&str> = known().map(Engine::name).collect();
    let found = known().find(|engine| engine.name() == name);
    found.ok_or_else(|| format!("there is no such engine; there are {}", names.join(", ")))
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(surroundings) = options.hostile
        && let Err(error) = hostile::enter(surroundings.clone())
    {
        eprintln!("the process cannot be put into {surroundings:?}: {error}");
        return ExitCode::from(2);
    }
    if let Some(Command::Soak(soak)) = &options.command {
        let engine = options.engine.unwrap_or(Engine::Auto);
        if engine == Engine::Fake {
            eprintln!(
                "the fake engine has no peers that are other programs' sockets; leave --engine away, or name a real one"
            );
            return ExitCode::from(2);
        }
        return soak::run(soak, engine);
    }
    if let Some(part) = &options.child {
        return child(part, options.engine.unwrap_or(Engine::ALL[0]));
    }
    let rows = match chosen(&options.row) {
        Ok(rows) => rows,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    run::keep_panics();
    let engines: Vec<Engine> = options.engine.map_or_else(|| Engine::ALL.to_vec(), |one| vec![one]);
    let outcomes: Vec<run::Outcome> = engines.iter().flat_map(|&engine| run::run(engine, &rows)).collect();
    // Whoever asks for single rows does not want to wait for the rest.
    let whole = options.row.is_empty();
    let peaks: Vec<_> = engines.iter().filter(|_| whole).map(|&e| (e, rows::peaks(&Bench::new(e)))).collect();
    if options.markdown {
        print!("{}", report::page(&outcomes, &peaks));
    } else {
        print!("{}", report::terminal(&outcomes, !whole));
    }
    let mut files = Vec::new();
    if let Some(path) = &options.json {
        files.push((path.clone(), format!("{:#}\n", report::machine(&outcomes, &peaks))));
    }
    if let Some(path) = &options.pages {
        files.push((path.join("conformance.md"), report::page(&outcomes, &peaks)));
        files.push((path.join("known-differences.md"), report::differences(&rows)));
    }
    for (path, text) in files {
        if let Err(error) = std::fs::write(&path, text) {
            eprintln!("cannot write {}: {error}", path.display());
            return ExitCode::from(2);
        }
    }
    let failed = outcomes.iter().filter(|outcome| outcome.verdict == run::Verdict::Fail).count();
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!("{failed} rows failed");
    ExitCode::FAILURE
}

fn child(part: &str, engine: Engine) -> ExitCode {
    let Some(run) = rows::child(part) else {
        eprintln!("there is no part {part}");
        return ExitCode::from(2);
    };
    kit::alarm();
    run(&Bench::new(engine));
    ExitCode::SUCCESS
}

/// The rows of these ids and groups; all of them when none is named.
fn chosen(names: &[String]) -> Result<Vec<Row>, String> {
    let all = rows::all();
    if names.is_empty() {
        return Ok(all);
    }
    let is = |row: &Row, name: &String| row.id == name || row.id.split('-').next() == Some(name);
    match names.iter().find(|name| !all.iter().any(|row| is(row, name))) {
        Some(name) => Err(format!("there is no row {name}; rows are named as P-01, groups by their letter")),
        None => Ok(all.into_iter().filter(|row| names.iter().any(|name| is(row, name))).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use row::{How, Level};

    #[test]
    fn every_row_that_obliges_is_there_once_with_its_level() {
        let all = rows::all();
        let mut expected = 0;
        for group in specified::GROUPS {
            for level in [Level::Must, Level::Should] {
                for id in group.ids(level) {
                    let found: Vec<&Row> = all.iter().filter(|row| row.id == id).collect();
                    assert_eq!(found.len(), 1, "{id}");
                    assert_eq!(found[0].level, level, "{id}");
                    expected += 1;
                }
            }
            for row in all.iter().filter(|row| row.level == Level::Information && row.id.starts_with(group.letter)) {
                assert!(group.ids(Level::Information).any(|id| id == row.id), "{}", row.id);
                expected += 1;
            }
        }
        assert_eq!(all.len(), expected, "a row that the specification does not have");
    }

    #[test]
    fn enough_of_the_rows_of_level_m_are_executed() {
        let executed = |row: &&Row| matches!(row.how, How::Test(_) | How::Alone(_)) && row.level == Level::Must;
        let count = rows::all().iter().filter(executed).count();
        assert!(count >= 140, "{count} rows of level M have a test");
    }

    #[test]
    fn rows_that_the_fake_engine_does_not_run_have_a_test_elsewhere() {
        for (at, (id, why)) in fake::NOT_THERE.iter().enumerate() {
            let is_run = |row: &Row| row.id == *id && matches!(row.how, How::Test(_) | How::Alone(_));
            assert!(rows::all().iter().any(is_run), "{id}");
            assert!(fake::NOT_THERE[..at].iter().all(|(before, _)| before != id), "{id} twice");
            assert!(!why.contains('|') && !why.ends_with('.'), "{id}");
        }
        assert!(fake::NOT_THERE.len() <= 24, "more rows than it cannot model");
    }

    #[test]
    fn every_cell_of_the_pages_stands_in_its_own_column() {
        for row in rows::all() {
            let more = match row.how {
                How::Differs { here } => here,
                How::NotApplicable { concept } => concept,
                How::Unverified { needs } => needs,
                How::Test(_) | How::Alone(_) => "",
            };
            assert!(!row.says.contains('|') && !more.contains('|'), "{}", row.id);
            assert!(row.says.ends_with('.') && !more.ends_with('.'), "{}", row.id);
        }
    }
}
