//! What a reader of the sources relies on, checked: imports point downwards as the picture in `docs/architecture.md`
//! draws them, files of one crate do not import each other in a circle, each file has one parent and says what it is,
//! no line is too wide, words that were given up do not come back, and links between documents lead somewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The widest line, in characters.
const WIDTH: usize = 120;

/// The rooms of the library from the ground up. A room uses those before it, and nothing else.
const FLOORS: &[&str] =
    &["sync", "sys", "contain", "error", "threads", "op", "queue", "reactor", "proactor", "raw", "worker", "port"];

/// Crates whose files import each other in no circle.
const WITHOUT_CIRCLES: &[&str] = &["crates/wharf-perf/src", "bench/src", "conformance/src"];

/// Words that were given up, and what stands for them.
const RETIRED: &[(&str, &str)] = &[
    ("BusyLock", "BackoffLock"),
    ("dead-man's", "watchdog"),
    ("crate::os::", "crate::sys::"),
    ("engine::system", "sys"),
    ("ring_the_bell", "wake"),
    ("Errand", "FileRequest"),
    ("the pump", "the file thread"),
    ("Begun(", "Started("),
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace's folder")
}

/// The files below `folder` whose name ends so, build results apart.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder that is there") {
            let path = entry.expect("an entry of it").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && !name.starts_with('.') {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

/// The shipped code of a file: without comments, and without what is compiled for tests only.
fn code(text: &str) -> String {
    if text.lines().any(|line| line.starts_with("#![cfg(test)]") || line.starts_with("#![cfg(all(test")) {
        return String::new();
    }
    let mut kept = String::new();
    for line in text.lines() {
        if line == "#[cfg(test)]" {
            break;
        }
        if !line.trim_start().starts_with("//") {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// What stands behind each `crate::` of a piece of code: paths, with the names in braces one by one.
fn imports(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        if code[..at].ends_with('$') {
            continue;
        }
        let rest = &code[at + "crate::".len()..];
        let path: String = rest.chars().take_while(|&c| c.is_alphanumeric() || c == '_' || c == ':').collect();
        match path.strip_suffix("::").filter(|_| rest[path.len()..].starts_with('{')) {
            Some(stem) => {
                let inside = rest[path.len() + 1..].split('}').next().unwrap_or_default();
                found.extend(inside.split(',').map(|name| format!("{stem}::{}", name.trim())));
            }
            None => found.push(path.trim_end_matches(':').to_owned()),
        }
    }
    found
}

/// The rooms that each room of the library uses.
fn rooms() -> BTreeMap<String, BTreeSet<String>> {
    let source = root().join("crates/wharf/src");
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in files(&source, ".rs") {
        let inside = path.strip_prefix(&source).expect("below it");
        let room = inside.components().next().expect("a name").as_os_str().to_string_lossy();
        let room = room.trim_end_matches(".rs").to_owned();
        if !FLOORS.contains(&room.as_str()) {
            continue;
        }
        for import in imports(&code(&read(&path))) {
            let to = import.split("::").next().unwrap_or_default().to_owned();
            if to != room && FLOORS.contains(&to.as_str()) {
                uses.entry(room.clone()).or_default().insert(to);
            }
        }
    }
    uses
}

#[test]
fn imports_point_downwards() {
    let floor = |room: &str| FLOORS.iter().position(|&other| other == room);
    let upward: Vec<String> = rooms()
        .iter()
        .flat_map(|(room, uses)| uses.iter().map(move |to| (room, to)))
        .filter(|(room, to)| floor(to) > floor(room))
        .map(|(room, to)| format!("{room} uses {to}, which stands above it"))
        .collect();
    assert!(upward.is_empty(), "{upward:#?}");
}

#[test]
fn the_picture_of_the_rooms_is_what_the_code_imports() {
    let page = read(&root().join("docs/architecture.md"));
    let picture = page.split("```text rooms\n").nth(1).and_then(|rest| rest.split("```").next());
    let picture = picture.expect("docs/architecture.md has a block that begins with ```text rooms");
    let drawn: String = FLOORS
        .iter()
        .rev()
        .filter_map(|&room| {
            let uses = rooms().remove(room)?;
            let uses: Vec<&str> = FLOORS.iter().rev().copied().filter(|&to| uses.contains(to)).collect();
            Some(format!("{room:<9} {}\n", uses.join(" ")))
        })
        .collect();
    assert_eq!(picture, drawn, "the block is to be:\n{drawn}");
}

/// The file that a path names inside a crate: its longest beginning that is one.
fn file_of(source: &Path, path: &str) -> Option<PathBuf> {
    let mut names: Vec<&str> = path.split("::").filter(|name| !name.is_empty()).collect();
    while !names.is_empty() {
        let stem = names.iter().fold(source.to_path_buf(), |path, name| path.join(name));
        for file in [stem.with_extension("rs"), stem.join("mod.rs")] {
            if file.is_file() {
                return Some(file);
            }
        }
        names.pop();
    }
    None
}

/// A circle of files, if there is one.
fn circle(uses: &BTreeMap<PathBuf, BTreeSet<PathBuf>>) -> Option<Vec<PathBuf>> {
    fn visit(
        file: &PathBuf,
        uses: &BTreeMap<PathBuf, BTreeSet<PathBuf>>,
        way: &mut Vec<PathBuf>,
        done: &mut BTreeSet<PathBuf>,
    ) -> Option<Vec<PathBuf>> {
        if let Some(at) = way.iter().position(|before| before == file) {
            return Some(way[at..].to_vec());
        }
        if done.contains(file) {
            return None;
        }
        way.push(file.clone());
        let found = uses.get(file).into_iter().flatten().find_map(|next| visit(next, uses, way, done));
        way.pop();
        done.insert(file.clone());
        found
    }
    let mut done = BTreeSet::new();
    uses.keys().find_map(|file| visit(file, uses, &mut Vec::new(), &mut done))
}

#[test]
fn files_import_each_other_in_no_circle() {
    for source in WITHOUT_CIRCLES {
        let source = root().join(source);
        let uses: BTreeMap<PathBuf, BTreeSet<PathBuf>> = files(&source, ".rs")
            .into_iter()
            .map(|path| {
                let named = imports(&code(&read(&path)));
                let to: BTreeSet<PathBuf> =
                    named.iter().filter_map(|import| file_of(&source, import)).filter(|to| *to != path).collect();
                (path, to)
            })
            .collect();
        if let Some(circle) = circle(&uses) {
            panic!("a circle: {:#?}", circle.iter().map(|path| shown(path)).collect::<Vec<_>>());
        }
    }
}

fn sources() -> Vec<PathBuf> {
    let root = root();
    ["crates", "bench", "conformance"].iter().flat_map(|folder| files(&root.join(folder), ".rs")).collect()
}

fn documents() -> Vec<PathBuf> {
    let root = root();
    let mut found = files(&root.join("docs"), ".md");
    found.extend(
        fs::read_dir(&root)
            .expect("the workspace's folder")
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|ending| ending == "md")),
    );
    found.sort();
    found
}

#[test]
fn each_file_has_one_parent() {
    let attribute = concat!("#[", "path");
    let elsewhere = |path: &PathBuf| read(path).lines().any(|line| line.trim_start().starts_with(attribute));
    let found: Vec<String> = sources().iter().filter(|path| elsewhere(path)).map(|path| shown(path)).collect();
    assert!(found.is_empty(), "what several programs use is a library of theirs, and no module of each: {found:#?}");
}

#[test]
fn each_file_says_what_it_is() {
    let silent: Vec<String> = sources()
        .iter()
        .filter(|path| !read(path).lines().any(|line| line.starts_with("//!")))
        .map(|path| shown(path))
        .collect();
    assert!(silent.is_empty(), "without a header (//!): {silent:#?}");
}

/// Lines that cannot be broken: a table's, a mark that `ci/loom` reads, and those with a word as wide as a line, an
/// address for example.
fn is_unbreakable(line: &str) -> bool {
    let text = line.trim_start_matches([' ', '/', '!']);
    text.starts_with('|')
        || text.starts_with("guard:")
        || line.split_whitespace().any(|word| word.chars().count() > WIDTH - 30)
}

#[test]
fn no_line_is_too_wide() {
    // Made by programs.
    const GENERATED: &[&str] =
        &["benchmarks.md", "conformance.md", "known-differences.md", "errors.md", "perf-matrix.md"];
    let generated = |path: &Path| GENERATED.iter().any(|name| path.ends_with(name));
    let mut wide = Vec::new();
    for path in sources().into_iter().chain(documents()).filter(|path| !generated(path)) {
        let is_page = path.extension().is_some_and(|ending| ending == "md");
        let mut fenced = false;
        for (number, line) in read(&path).lines().enumerate() {
            fenced ^= is_page && line.trim_start().starts_with("```");
            // The code's own lines are the formatter's business.
            let prose = if is_page { !fenced } else { line.trim_start().starts_with("//") };
            if prose && line.chars().count() > WIDTH && !is_unbreakable(line) {
                wide.push(format!("{}:{}", shown(&path), number + 1));
            }
        }
    }
    assert!(wide.is_empty(), "{} lines are wider than {WIDTH} columns: {wide:#?}", wide.len());
}

#[test]
fn retired_words_do_not_come_back() {
    let mut found = Vec::new();
    for path in sources().into_iter().chain(documents()).filter(|path| !path.ends_with("tests/tidy.rs")) {
        let text = read(&path);
        for (word, instead) in RETIRED {
            if text.contains(word) {
                found.push(format!("{}: \"{word}\"; write \"{instead}\"", shown(&path)));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// A heading's name in a link, as the sites that show Markdown make it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|&c| c.is_alphanumeric() || c == ' ' || c == '-' || c == '_');
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(page: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in page.lines() {
        fenced ^= line.trim_start().starts_with("```");
        if !fenced && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#')));
        }
        for (at, _) in line.match_indices("id=\"") {
            found.extend(line[at + 4..].split('"').next().map(str::to_owned));
        }
    }
    found
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    let mut links = 0;
    for path in documents() {
        let page = read(&path);
        for (at, _) in page.match_indices("](") {
            let target = page[at + 2..].split([')', ' ', '\n']).next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            links += 1;
            let (file, name) = target.split_once('#').unwrap_or((target, ""));
            let file = if file.is_empty() { path.clone() } else { path.parent().expect("a folder").join(file) };
            let leads = file.exists()
                && (name.is_empty()
                    || file.extension().is_none_or(|e| e != "md")
                    || anchors(&read(&file)).contains(name));
            if !leads {
                broken.push(format!("{}: {target}", shown(&path)));
            }
        }
    }
    assert!(links > 50, "there are more links than {links}");
    assert!(broken.is_empty(), "{broken:#?}");
}
