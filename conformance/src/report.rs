//! What came of it: for the terminal, for other programs, and as the pages in `docs/`.

use crate::judge::Verdict;
use crate::row::{How, Level, Row};
use crate::rows::{APART, Peaks};
use crate::run::Outcome;
use crate::setting::{Engine, Setting, wake_name};
use crate::specified::GROUPS;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// The counts of one level in one setting, in the order of [`Verdict::ALL`].
#[derive(Default, PartialEq)]
struct Counts([usize; Verdict::ALL.len()]);

impl Counts {
    fn of<'a>(outcomes: impl Iterator<Item = &'a Outcome>) -> Counts {
        let mut counts = Counts::default();
        for outcome in outcomes {
            let at = Verdict::ALL.iter().position(|&verdict| verdict == outcome.verdict).expect("one of these");
            counts.0[at] += 1;
        }
        counts
    }

    fn total(&self) -> usize {
        self.0.iter().sum()
    }
}

fn belongs(outcome: &Outcome, letter: &str) -> bool {
    outcome.row.id.starts_with(letter)
}

/// A table of the counts by group, and everything that failed.
pub fn terminal(outcomes: &[Outcome], details: bool) -> String {
    let mut text = String::new();
    for setting in settings(outcomes) {
        let own = || outcomes.iter().filter(move |outcome| outcome.setting == setting);
        let _ = write!(text, "{}\n{:24} {:>5}", setting.name(), "level M", "rows");
        Verdict::ALL
            .iter()
            .for_each(|verdict| _ = write!(text, " {:>width$}", verdict.name(), width = width(*verdict)));
        text.push('\n');
        for group in GROUPS {
            let counts = Counts::of(own().filter(|o| o.row.level == Level::Must && belongs(o, group.letter)));
            if counts.total() > 0 {
                let _ = writeln!(text, "{}", counted(&format!("{} {}", group.letter, group.name), &counts));
            }
        }
        for (name, level) in [("all of level M", Level::Must), ("all of level S", Level::Should)] {
            let _ = writeln!(text, "{}", counted(name, &Counts::of(own().filter(|o| o.row.level == level))));
        }
        text.push('\n');
    }
    for outcome in outcomes {
        // What is expected to fail here, or could not be tried, is said as well: with its words.
        let said = matches!(outcome.verdict, Verdict::Fail | Verdict::ExpectedFailure | Verdict::Unverified);
        if details || said {
            let Row { id, says, .. } = outcome.row;
            let _ = writeln!(text, "{id} {} {}: {says}", outcome.setting.name(), outcome.verdict.name());
            if !outcome.reason.is_empty() {
                let _ = writeln!(text, "     {}", outcome.reason);
            }
            outcome.notes.iter().for_each(|note| _ = writeln!(text, "     {note}"));
        }
    }
    text
}

fn width(verdict: Verdict) -> usize {
    verdict.name().len().max(4)
}

fn counted(name: &str, counts: &Counts) -> String {
    let mut line = format!("{name:24} {:>5}", counts.total());
    for (verdict, count) in Verdict::ALL.iter().zip(counts.0) {
        let _ = write!(line, " {count:>width$}", width = width(*verdict));
    }
    line
}

fn settings(outcomes: &[Outcome]) -> Vec<Setting> {
    let mut settings = Vec::new();
    for outcome in outcomes {
        if !settings.contains(&outcome.setting) {
            settings.push(outcome.setting);
        }
    }
    settings
}

fn engines(outcomes: &[Outcome]) -> Vec<Engine> {
    let mut engines: Vec<Engine> = settings(outcomes).into_iter().map(|setting| setting.engine).collect();
    engines.dedup();
    engines
}

/// One object for each row and setting.
pub fn machine(outcomes: &[Outcome], peaks: &[(Setting, Vec<Peaks>)]) -> Value {
    let rows: Vec<Value> = outcomes
        .iter()
        .map(|outcome| {
            json!({
                "id": outcome.row.id,
                "level": outcome.row.level.letter(),
                "engine": outcome.setting.engine.name(),
                "wake": wake_name(outcome.setting.wake),
                "result": outcome.verdict.name(),
                "reason": outcome.reason,
                "says": outcome.row.says,
                "notes": outcome.notes,
            })
        })
        .collect();
    let peaks: Vec<Value> = peaks
        .iter()
        .flat_map(|(setting, all)| {
            all.iter().flat_map(move |one| {
                STYLES.iter().zip(one.styles).map(move |(style, peak)| {
                    json!({
                        "engine": setting.engine.name(),
                        "wake": wake_name(setting.wake),
                        "limit": one.limit,
                        "workers": one.workers,
                        "handlers": style,
                        "running": peak.running,
                        "inside": peak.inside,
                    })
                })
            })
        })
        .collect();
    json!({ "rows": rows, "peaks": peaks })
}

const STYLES: [&str; 3] = ["compute", "block, announced", "block, not announced"];

const PAGE_HEAD: &str = "\
# Conformance

<!-- Generated by the suite itself; after a change: WHARF_BLESS=1 cargo test -p wharf-conformance -- --ignored pages -->

What is known of Windows' completion ports was written down as rows, each a behaviour that a test can check: P the port, D dequeuing,
C concurrency, O operations, R receive, S send, U datagrams, A accept, N connect, X disconnect, T sending files, F files, Q pipes, K cancel
and close, G related calls. Level M is what a program written for Windows breaks without, level S what it can notice. This page is what came
of running them:

```sh
cargo run -p wharf-conformance                   # everything; --engine NAME, --wake POLICY, --row ID, --json FILE
cargo run -p wharf-conformance -- --engine auto --hostile io_uring_setup=EPERM    # descriptors=64, memlock=0
cargo run --release -p wharf-conformance -- soak --minutes 10                     # everything at once, for long
```

*pass*: a test ran, and can fail. *differs*: wharf does something else, and a test shows it, so that a difference that goes away or grows
is noticed. *not offered*: there is nothing that could be run. Both are in [known differences](known-differences.md) with what there is here.
*expected failure*: on this system the row fails, for a reason and with words that are listed. *unverified*: nobody has seen it here.
*not applicable*: the row speaks of something that only a C interface has, or that the engine does not have.

Each row runs with both policies by which a port wakes further threads: *eager*, which is that of Windows, and *adaptive*, which is the
default. A cell with two words has that of *eager* first. A row that fails is tried again only on a machine whose load says nothing of it.

The engine *fake* is that of the library's own tests: sockets in memory. The rows run on it unchanged, with their threads and in real time;
what a row names as the other end is then a peer in the same memory. Real sockets only name those of the network (numbers, addresses,
options), and carry nothing. Of its faults those are on that no program may notice: events without a reason, late and delayed ones, and
polls that bring nothing. It asserts the port's side of an engine's contract on the way. A row whose subject it does not have is *not
applicable* there, [with the reason](#not-on-the-fake-engine). The schedules go on from there, with every fault, in virtual time:
[how we know](verification.md).
";

/// `docs/conformance.md`.
pub fn page(outcomes: &[Outcome], peaks: &[(Setting, Vec<Peaks>)]) -> String {
    let mut page = String::from(PAGE_HEAD);
    let settings = settings(outcomes);
    page.push_str("\n## Counts\n\n");
    table_head(&mut page, outcomes, &["Engine", "Wake", "Level"]);
    for &setting in &settings {
        for level in [Level::Must, Level::Should] {
            let counts = Counts::of(outcomes.iter().filter(|o| o.setting == setting && o.row.level == level));
            let first = [setting.engine.name(), wake_name(setting.wake), level.letter()];
            line(&mut page, outcomes, &first, &counts);
        }
    }
    page.push_str("\nLevel M by group, the same in each setting unless a line for it says otherwise:\n\n");
    table_head(&mut page, outcomes, &["Group", ""]);
    for group in GROUPS {
        let mut before: Option<Counts> = None;
        for &setting in &settings {
            let own = |o: &&Outcome| o.setting == setting && o.row.level == Level::Must && belongs(o, group.letter);
            let counts = Counts::of(outcomes.iter().filter(own));
            if before.as_ref() != Some(&counts) {
                let name = if before.is_none() { group.name.into() } else { format!("on {}", setting.name()) };
                line(&mut page, outcomes, &[group.letter, &name], &counts);
            }
            before.get_or_insert(counts);
        }
    }
    page.push_str(&peaks_page(peaks));
    rows_page(&mut page, outcomes);
    if outcomes.iter().any(left_out) {
        page.push_str(
            "\n## Not on the fake engine\n\n| Row | Level | Behaviour | What it does not have |\n|---|---|---|---|\n",
        );
    }
    let wake = settings.first().map(|first| first.wake);
    for Outcome { row: Row { id, level, says, .. }, reason, .. } in
        outcomes.iter().filter(|outcome| left_out(outcome) && Some(outcome.setting.wake) == wake)
    {
        let _ = writeln!(page, "| {id} | {} | {says} | {reason} |", level.letter());
    }
    page.push_str(
        "\n## Not applicable\n\n| Row | Level | Behaviour | What only a C interface has |\n|---|---|---|---|\n",
    );
    for outcome in outcomes.iter().filter(|outcome| Some(&outcome.setting) == settings.first()) {
        if let How::NotApplicable { concept } = outcome.row.how {
            let Row { id, level, says, .. } = outcome.row;
            let _ = writeln!(page, "| {id} | {} | {says} | {concept} |", level.letter());
        }
    }
    page
}

/// The verdict of each row on each engine.
fn rows_page(page: &mut String, outcomes: &[Outcome]) {
    let engines = engines(outcomes);
    page.push_str("\n## Rows\n\n| Row | Level | Behaviour |");
    engines.iter().for_each(|engine| _ = write!(page, " {} |", engine.name()));
    page.push_str("\n|---|---|---|");
    engines.iter().for_each(|_| page.push_str("---|"));
    page.push('\n');
    let first = settings(outcomes).first().copied();
    for row in outcomes.iter().filter(|outcome| Some(outcome.setting) == first).map(|outcome| outcome.row) {
        if matches!(row.how, How::NotApplicable { .. }) {
            continue;
        }
        let _ = write!(page, "| {} | {} | {} |", row.id, row.level.letter(), row.says);
        for &engine in &engines {
            let own = outcomes.iter().filter(|outcome| outcome.row.id == row.id && outcome.setting.engine == engine);
            let mut verdicts: Vec<&str> = own.map(|outcome| outcome.verdict.name()).collect();
            verdicts.dedup();
            let _ = write!(page, " {} |", verdicts.join(", "));
        }
        page.push('\n');
    }
}

/// The row has a test, and the engine nothing that it could run on.
fn left_out(outcome: &Outcome) -> bool {
    outcome.verdict == Verdict::NotApplicable && !matches!(outcome.row.how, How::NotApplicable { .. })
}

/// The verdicts that have a column: a page on which nothing fails as expected has none for it.
fn columns(outcomes: &[Outcome]) -> impl Iterator<Item = (usize, Verdict)> {
    let any = outcomes.iter().any(|outcome| outcome.verdict == Verdict::ExpectedFailure);
    Verdict::ALL.into_iter().enumerate().filter(move |&(_, verdict)| any || verdict != Verdict::ExpectedFailure)
}

fn table_head(page: &mut String, outcomes: &[Outcome], first: &[&str]) {
    first.iter().for_each(|name| _ = write!(page, "| {name} "));
    page.push_str("| Rows |");
    columns(outcomes).for_each(|(_, verdict)| _ = write!(page, " {} |", verdict.name()));
    page.push_str("\n|");
    (0..=first.len() + columns(outcomes).count()).for_each(|_| page.push_str("---|"));
    page.push('\n');
}

fn line(page: &mut String, outcomes: &[Outcome], first: &[&str], counts: &Counts) {
    first.iter().for_each(|name| _ = write!(page, "| {name} "));
    let _ = write!(page, "| {} |", counts.total());
    columns(outcomes).for_each(|(at, _)| _ = write!(page, " {} |", counts.0[at]));
    page.push('\n');
}

fn peaks_page(peaks: &[(Setting, Vec<Peaks>)]) -> String {
    let mut text = String::from(
        "
## How many run

The most handlers at a time, while more packets are queued than there are workers: *running* are those that compute, *inside*
those that have begun and not ended. A handler that blocks is replaced, so all workers come to be inside while no more than the limit run.

| Engine | Wake | Limit | Workers | computing | blocking, announced | blocking, not announced |
|---|---|---|---|---|---|---|
",
    );
    for (setting, all) in peaks {
        // The last one's limit is the number of processors, which is not the same everywhere.
        for (at, one) in all.iter().enumerate() {
            let (limit, workers) = match at {
                2 => ("processors".into(), "2 × processors + 2".into()),
                _ => (one.limit.to_string(), one.workers.to_string()),
            };
            let names = (setting.engine.name(), wake_name(setting.wake));
            let _ = write!(text, "| {} | {} | {limit} | {workers} |", names.0, names.1);
            for peak in one.styles {
                let words = |number: usize| match number {
                    _ if number == one.limit => "the limit".to_string(),
                    _ if number == one.workers => "all workers".to_string(),
                    other => other.to_string(),
                };
                let _ = write!(text, " {} running, {} inside |", words(peak.running), words(peak.inside));
            }
            text.push('\n');
        }
    }
    text
}

const DIFFERENCES_HEAD: &str = "\
# Known differences from Windows

<!-- Generated from the tables in conformance/src; after a change: WHARF_BLESS=1 cargo test -p wharf-conformance -- --ignored pages -->

The ids are those of the [conformance suite](conformance.md), where the rows that are not here pass.

A test shows each of them, except of what is not offered.

## What is done differently

| Row | Level | Windows | here |
|---|---|---|---|
";

/// Differences of rows that pass all the same, or that oblige to nothing: row, Windows, here.
const BESIDE: &[(&str, &str, &str)] = &[
    (
        "C-08",
        "the kernel releases the next thread the moment one blocks",
        "declared blocking at once, undeclared after one or two ticks",
    ),
    (
        "O-05",
        "a truncation known at once is returned and queued as well",
        "reported once, as a packet (allowed by O-06)",
    ),
    ("O-28", "a lack of resources has codes of its own", "the system's number, as it is"),
    (
        "F-03",
        "a read at the end fails with `ERROR_HANDLE_EOF` (38)",
        "it is a success of 0 bytes, as everywhere in Rust; `Packet::nt_status` says `STATUS_END_OF_FILE`, which is 38",
    ),
    ("N-04", "a connect can carry the first data", "issue a send when it is connected"),
    (
        "P-11",
        "events and timers cannot associate",
        "an event descriptor can, as a stream; timers are operations of the port",
    ),
    (
        "Q-05",
        "a read of a pipe whose other end is closed fails with 109",
        "it is a success of 0 bytes; `Packet::nt_status` says `STATUS_PIPE_BROKEN`, which is 109. The codes come with the packet, not at once",
    ),
    ("T-02", "a length of 0 means up to the end of the file", "`length: None` does; 0 is none"),
    (
        "P-40",
        "a wait for the port hears of everything",
        "with `SocketEngine::Poll` of posts only where the system is not Linux",
    ),
    (
        "P-40",
        "a wait for the port ends when something is queued",
        "it may also end when a socket has data that no receive waits for: a `get` then finds nothing",
    ),
    ("R-22", "`SO_ERROR` reads 0 after a reset", "what Linux says"),
    ("T-03", "without OVERLAPPED the file position is used", "there is none: the offset is always given"),
];

/// `docs/known-differences.md`.
pub fn differences(rows: &[Row]) -> String {
    let mut page = String::from(DIFFERENCES_HEAD);
    for row in rows {
        if let How::Differs { here, .. } = row.how {
            let _ = writeln!(page, "| {} | {} | {} | {here} |", row.id, row.level.letter(), row.says);
        }
    }
    page.push_str("\n## What is not offered\n\n| Row | Level | Windows | here |\n|---|---|---|---|\n");
    for row in rows {
        if let How::NotOffered { here } = row.how {
            let _ = writeln!(page, "| {} | {} | {} | {here} |", row.id, row.level.letter(), row.says);
        }
    }
    page.push_str(
        "\n## With one engine, or one policy of waking\n\n| Row | Where | Windows | here |\n|---|---|---|---|\n",
    );
    for row in rows {
        for apart in APART.iter().filter(|apart| apart.row == row.id) {
            let _ = writeln!(page, "| {} | {} | {} | {} |", row.id, apart.at.name(), row.says, apart.here);
        }
    }
    page.push_str("\n## Beside rows that pass, or oblige to nothing\n\n| Row | Windows | here |\n|---|---|---|\n");
    for (id, windows, here) in BESIDE {
        let _ = writeln!(page, "| {id} | {windows} | {here} |");
    }
    page.push_str("\n## What only a C interface has\n\n| What | Rows |\n|---|---|\n");
    let mut concepts: Vec<(&str, Vec<&str>)> = Vec::new();
    for row in rows {
        if let How::NotApplicable { concept } = row.how {
            match concepts.iter_mut().find(|(known, _)| *known == concept) {
                Some((_, ids)) => ids.push(row.id),
                None => concepts.push((concept, vec![row.id])),
            }
        }
    }
    for (concept, ids) in concepts {
        let _ = writeln!(page, "| {concept} | {} |", ids.join(", "));
    }
    page
}
