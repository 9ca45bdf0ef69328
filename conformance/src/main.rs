//! The conformance suite: what Windows' completion ports do, row by row, and whether wharf does it.
//!
//! `cargo run -p wharf-conformance -- [--engine NAME] [--wake POLICY] [--row ID]... [--json FILE]`
//! `cargo run --release -p wharf-conformance -- soak --minutes 10`
//!
//! A row is a behaviour of the specification, named by its id. It is decided by a function that runs through the public
//! or the raw interface of the library and fails when the behaviour is not there; or it is a known difference, and the
//! function shows what is done instead; or it speaks of something that is not offered, or that only a C interface has
//! (`row.rs`). Each runs on every engine, with both policies of waking (`setting.rs`). The rows stand in `rows/`, a
//! file for each group; the list of those that there have to be in `specified.rs`. What comes of it is a table on the
//! terminal, JSON, and the pages `docs/conformance.md` and `docs/known-differences.md`, which a test compares. It also
//! runs in hostile surroundings (`hostile/`), and for as long as one likes with everything at once (`soak/`).

mod fake;
mod heap;
mod hostile;
mod judge;
mod kit;
mod native;
mod report;
mod row;
mod rows;
mod run;
mod setting;
mod soak;
mod specified;
mod system;

use clap::Parser;
use kit::Bench;
use row::Row;
use setting::{Engine, Setting, WAKES, wake_name};
use std::path::PathBuf;
use std::process::ExitCode;
use wharf::Wake;

#[global_allocator]
static HEAP: heap::Counted = heap::Counted;

#[derive(Parser)]
#[command(about = "Runs the behaviours of Windows' completion ports against wharf, row by row")]
struct Options {
    #[command(subcommand)]
    command: Option<Command>,
    /// One engine only: epoll+io_uring, epoll+threads, poll+threads, fake: sockets in memory, or auto: what the library
    /// chooses
    #[arg(long, value_name = "NAME", value_parser = engine, global = true)]
    engine: Option<Engine>,
    /// One policy only by which a port wakes further threads: eager, as Windows does, or adaptive, which is the default
    #[arg(long, value_name = "POLICY", value_parser = wake)]
    wake: Option<Wake>,
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

fn wake(name: &str) -> Result<Wake, String> {
    let found = WAKES.into_iter().find(|&wake| wake_name(wake) == name);
    found.ok_or_else(|| format!("there is no such policy; there are {}", WAKES.map(wake_name).join(", ")))
}

fn main() -> ExitCode {
    let options = Options::parse();
    if let Some(surroundings) = &options.hostile
        && let Err(error) = hostile::enter(surroundings)
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
        let engine = options.engine.unwrap_or(Engine::ALL[0]);
        return child(part, Setting { engine, wake: options.wake.unwrap_or(Wake::Eager) });
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
    let wakes: Vec<Wake> = options.wake.map_or_else(|| WAKES.to_vec(), |one| vec![one]);
    let settings: Vec<Setting> =
        engines.iter().flat_map(|&engine| wakes.iter().map(move |&wake| Setting { engine, wake })).collect();
    // The kernel's own port wakes as it does, whatever a program asks for.
    let kernels = |setting: &Setting| setting.engine == Engine::Iocp && setting.wake != wakes[0];
    let settings: Vec<Setting> = settings.into_iter().filter(|setting| !kernels(setting)).collect();
    let outcomes: Vec<run::Outcome> = settings.iter().flat_map(|&setting| run::run(setting, &rows)).collect();
    // Whoever asks for single rows does not want to wait for the rest.
    let whole = options.row.is_empty();
    let peaks: Vec<_> = settings.iter().filter(|_| whole).map(|&s| (s, rows::peaks(&Bench::new(s)))).collect();
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
    let failed = outcomes.iter().filter(|outcome| outcome.verdict == judge::Verdict::Fail).count();
    if failed == 0 {
        return ExitCode::SUCCESS;
    }
    eprintln!("{failed} rows failed");
    ExitCode::FAILURE
}

fn child(part: &str, setting: Setting) -> ExitCode {
    let Some(run) = rows::child(part) else {
        eprintln!("there is no part {part}");
        return ExitCode::from(2);
    };
    kit::alarm();
    run(&Bench::new(setting));
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

    /// Pinned, so that no test becomes a difference, and no difference goes away, without somebody's saying so here.
    #[test]
    fn as_many_rows_are_decided_in_each_way_as_it_is_said_here() {
        let all = rows::all();
        let count = |level, is: fn(&How) -> bool| all.iter().filter(|row| row.level == level && is(&row.how)).count();
        let ways: [fn(&How) -> bool; 4] = [
            |how| matches!(how, How::Test(_) | How::Alone(_)),
            |how| matches!(how, How::Differs { .. }),
            |how| matches!(how, How::NotOffered { .. }),
            |how| matches!(how, How::NotApplicable { .. }),
        ];
        // Tested, differing, not offered, not applicable.
        assert_eq!(ways.map(|is| count(Level::Must, is)), [169, 14, 6, 25], "level M");
        assert_eq!(ways.map(|is| count(Level::Should, is)), [32, 11, 21, 29], "level S");
        // Differences of one engine, or of one policy.
        assert_eq!(rows::APART.len(), if cfg!(target_os = "linux") { 13 } else { 14 });
    }

    #[test]
    fn rows_that_the_fake_engine_does_not_run_have_a_test_elsewhere() {
        for (at, (id, why)) in fake::NOT_THERE.iter().enumerate() {
            let is_run = |row: &Row| row.id == *id && row.how.test().is_some();
            assert!(rows::all().iter().any(is_run), "{id}");
            assert!(fake::NOT_THERE[..at].iter().all(|(before, _)| before != id), "{id} twice");
            assert!(!why.contains('|') && !why.ends_with('.'), "{id}");
        }
        assert!(fake::NOT_THERE.len() <= 29, "more rows than it cannot model");
    }

    #[test]
    fn every_cell_of_the_pages_stands_in_its_own_column() {
        for row in rows::all() {
            let more = match row.how {
                How::Differs { here, .. } | How::NotOffered { here } => here,
                How::NotApplicable { concept } => concept,
                How::Test(_) | How::Alone(_) => "",
            };
            assert!(!row.says.contains('|') && !more.contains('|'), "{}", row.id);
            assert!(row.says.ends_with('.') && !more.ends_with('.'), "{}", row.id);
        }
    }
}
