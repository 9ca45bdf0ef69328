//! Copies as their users meet them: real files in the temporary directory, and what is said when something is wrong.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Who has no privileges, on every system.
const NOBODY: u32 = 65534;

/// A directory of its own, removed with all it holds.
struct Temporary(PathBuf);

impl Temporary {
    fn new() -> Temporary {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("wharf-copy-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).unwrap();
        Temporary(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn with(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn command(source: &Path, target: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.arg("copy").args(more).args([source, target]).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn copy(source: &Path, target: &Path, more: &[&str]) -> Output {
    command(source, target, more).output().unwrap()
}

/// Copies, and returns the one line that is said about it.
#[track_caller]
fn copies(source: &Path, target: &Path, more: &[&str]) -> String {
    well(&copy(source, target, more))
}

#[track_caller]
fn well(output: &Output) -> String {
    let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{errors}");
    assert_eq!(errors, "", "the progress is for terminals");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("copied ") && said.contains(" bytes in ") && said.contains(" MB/s"), "{said}");
    said.into_owned()
}

/// An error is one sentence on stderr, with its cause and what to do about it, and exit code 1.
#[track_caller]
fn fails(output: &Output, cause: &str, remedy: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.starts_with("wharf: ") && said.contains(cause) && said.contains(remedy), "{said}");
}

/// What of a tree was not copied is told, a line for each, and then how much it was; the rest is copied.
#[track_caller]
fn fails_in_part(output: &Output, causes: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("copied "), "{said}");
    assert_eq!(said.lines().count(), causes.len() + 1, "{said}");
    for cause in causes {
        assert!(said.lines().any(|line| line.starts_with("wharf: ") && line.contains(cause)), "{cause}: {said}");
    }
    assert!(said.lines().last().unwrap().contains("of the tree w"), "{said}");
}

#[track_caller]
fn same(source: &Path, target: &Path) {
    let (ours, theirs) = (fs::read(source).unwrap(), fs::read(target).unwrap());
    // Not by `assert_eq`, which would print megabytes.
    assert!(
        ours == theirs,
        "{} is not {} ({} and {} bytes)",
        target.display(),
        source.display(),
        theirs.len(),
        ours.len()
    );
}

/// Bytes of which no block is like another, and none is zero.
fn content(bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % 255) as u8 + 1
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Says loudly that something was not tested, and why.
fn skipped(what: &str, why: &str) {
    // Not by `eprintln`, whose output a passed test swallows.
    let _ = writeln!(std::io::stderr(), "SKIPPED: {what}: {why}");
}

fn is_root() -> bool {
    rustix::process::getuid().is_root()
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

// --- Files ---

#[test]
fn sixty_four_mib_and_a_bit_are_copied_by_either_engine() {
    let here = Temporary::new();
    let source = here.with("source", content((64 << 20) + 12_345));
    for engine in ["auto", "threads"] {
        let target = here.path(engine);
        let mut command = command(&source, &target, &["--verify", "--sync"]);
        let said = well(&command.env("WHARF_ENGINE", engine).output().unwrap());
        assert!(said.starts_with("copied 67121209 bytes in ") && said.ends_with("verified\n"), "{said}");
        same(&source, &target);
    }
}

#[test]
fn files_of_every_length_around_a_block_are_copied() {
    let here = Temporary::new();
    for bytes in [0, 1, 4095, 4096, 4097, 8192, 12_289, 65_536, 65_537, 100_000] {
        let source = here.with("source", content(bytes));
        for more in [&["--verify"][..], &["--depth", "1"], &["--direct", "--verify"], &["--resume"]] {
            let target = here.path("target");
            let output = copy(&source, &target, &[&["--block", "4K"], more].concat());
            if more[0] == "--direct" && String::from_utf8_lossy(&output.stderr).contains("offers no direct I/O") {
                skipped("--direct", "the temporary directory's file system offers none; set TMPDIR to another");
                let _ = fs::remove_file(&target);
                continue;
            }
            let said = well(&output);
            assert!(said.starts_with(&format!("copied {bytes} bytes in ")), "{said}");
            same(&source, &target);
            fs::remove_file(&target).unwrap();
        }
    }
}

#[test]
fn direct_io_copies_a_large_file_with_its_tail() {
    let here = Temporary::new();
    let source = here.with("source", content((16 << 20) + 4096 + 777));
    let target = here.path("target");
    let output = copy(&source, &target, &["--direct", "--verify"]);
    if String::from_utf8_lossy(&output.stderr).contains("offers no direct I/O") {
        return skipped("--direct", "the temporary directory's file system offers none; set TMPDIR to another");
    }
    well(&output);
    same(&source, &target);
    fs::File::options().write(true).open(&target).unwrap().set_len(5_000_001).unwrap();
    copies(&source, &target, &["--direct", "--resume", "--sync"]);
    same(&source, &target);
}

#[test]
fn permissions_are_kept_and_set_user_id_is_not() {
    let here = Temporary::new();
    for (given, kept) in [(0o640, 0o640), (0o444, 0o444), (0o777, 0o777), (0o4755, 0o755)] {
        let source = here.with("source", "x");
        fs::set_permissions(&source, Permissions::from_mode(given)).unwrap();
        let target = here.path("target");
        copies(&source, &target, &[]);
        assert_eq!(mode(&target), kept, "of {given:o}");
        // Continued though it is read-only: it is whole already.
        let said = copies(&source, &target, &["--resume"]);
        assert!(said.starts_with("copied 0 bytes"), "{said}");
        assert_eq!(mode(&target), kept, "of {given:o}");
        fs::remove_file(&source).unwrap();
        fs::remove_file(&target).unwrap();
    }
}

#[test]
fn in_a_directory_the_file_keeps_its_name_and_a_named_link_is_followed() {
    let here = Temporary::new();
    let source = here.with("source", "content");
    let target = here.path("directory");
    fs::create_dir(&target).unwrap();
    copies(&source, &target, &[]);
    same(&source, &target.join("source"));
    symlink("source", here.path("link")).unwrap();
    copies(&here.path("link"), &target, &["-r"]);
    assert!(fs::symlink_metadata(target.join("link")).unwrap().is_file());
    same(&source, &target.join("link"));
}

#[test]
fn a_source_that_is_longer_than_it_said_is_copied_whole() {
    let here = Temporary::new();
    // Its length is told as 0, as that of every such file.
    let source = Path::new("/proc/version");
    for block in ["1M", "7", "1"] {
        copies(source, &here.path("target"), &["--block", block, "--verify", "--force"]);
        same(source, &here.path("target"));
    }
}

#[test]
fn a_source_that_is_shorter_than_it_says_is_copied_to_its_end() {
    let here = Temporary::new();
    // Its length is told as a page, and it has a few bytes.
    let source = Path::new("/sys/devices/system/cpu/online");
    if !source.exists() {
        return skipped("a source that is shorter than it says", "/sys is not mounted");
    }
    for block in ["1M", "1K", "1"] {
        for more in ["--force", "--resume"] {
            copies(source, &here.path("target"), &["--block", block, "--verify", more]);
            same(source, &here.path("target"));
        }
    }
}

#[test]
fn a_source_that_becomes_shorter_is_an_error() {
    let here = Temporary::new();
    let source = here.with("source", content(64 << 20));
    let target = here.path("target");
    let mut child = command(&source, &target, &SLOWLY).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while !target.exists() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
    }
    fs::File::options().write(true).open(&source).unwrap().set_len(63 << 20).unwrap();
    let output = child.wait_with_output().unwrap();
    fails(&output, "the source became shorter while it was copied", "copy it again");
}

#[test]
fn holes_are_kept() {
    use std::os::unix::fs::FileExt;
    let here = Temporary::new();
    let source = here.path("source");
    let file = fs::File::create(&source).unwrap();
    let bytes = (256 << 20) + 12_345;
    file.set_len(bytes).unwrap();
    for at in [(10 << 20) + 17, 100 << 20, 200 << 20] {
        file.write_all_at(&content(70_000), at).unwrap();
    }
    let room = |path: &Path| fs::metadata(path).unwrap().blocks() * 512;
    if room(&source) > 8 << 20 {
        return skipped("holes", "the temporary directory's file system has none; set TMPDIR to another");
    }
    for more in [&["--verify"][..], &["--force", "--block", "64K", "--depth", "3"], &["--resume", "--verify"]] {
        let target = here.path("target");
        let said = copies(&source, &target, more);
        let resumed = more[0] == "--resume";
        assert!(resumed || said.starts_with(&format!("copied {bytes} bytes in ")), "{said}");
        same(&source, &target);
        assert!(room(&target) < 8 << 20, "{} bytes for {}", room(&target), room(&source));
        // Cut off in a hole, to be continued.
        fs::File::options()
            .write(true)
            .open(&target)
            .unwrap()
            .set_len(if resumed { bytes } else { 120 << 20 })
            .unwrap();
    }
}

/// Reading it waits for what may never come.
#[test]
fn one_ctrl_c_ends_a_copy_of_what_never_ends() {
    let here = Temporary::new();
    let source = Path::new("/proc/kmsg");
    if fs::File::open(source).is_err() {
        return skipped("a source that never ends", "/proc/kmsg may not be read here");
    }
    let target = here.path("target");
    let (code, said) = interrupted(command(source, &target, &[]), || target.exists(), Signal::INT);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.starts_with("wharf: interrupted: "), "{said}");
}

// --- Overwriting and continuing ---

#[test]
fn what_exists_is_overwritten_only_by_force() {
    let here = Temporary::new();
    let source = here.with("source", "new");
    let target = here.with("target", "old and longer");
    let output = copy(&source, &target, &[]);
    fails(&output, "File exists", "--force overwrites it, --resume continues it");
    assert_eq!(fs::read(&target).unwrap(), b"old and longer");
    // Its owner may, even if it is read-only.
    fs::set_permissions(&target, Permissions::from_mode(0o444)).unwrap();
    copies(&source, &target, &["--force"]);
    same(&source, &target);
    assert_eq!(mode(&target), mode(&source));
}

#[test]
fn a_file_is_not_copied_onto_itself() {
    let here = Temporary::new();
    let source = here.with("source", "precious");
    fs::hard_link(&source, here.path("hard")).unwrap();
    symlink("source", here.path("soft")).unwrap();
    for name in ["source", "hard", "soft"] {
        for more in ["--force", "--resume"] {
            fails(&copy(&source, &here.path(name), &[more]), "are the same file", "choose another target");
        }
    }
    assert_eq!(fs::read(&source).unwrap(), b"precious");
}

#[test]
fn a_copy_that_was_cut_off_is_continued() {
    let here = Temporary::new();
    let all = content(3_000_001);
    let source = here.with("source", &all);
    let target = here.path("target");
    for there in [0, 1, 65_535, 65_536, 1_000_000, 2_999_999, 3_000_000, 3_000_001] {
        fs::write(&target, &all[..there]).unwrap();
        let said = copies(&source, &target, &["--resume", "--block", "64K", "--verify"]);
        same(&source, &target);
        let copied: usize = said.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(copied <= all.len() - there + 65_536, "{copied} bytes after {there}");
    }
}

#[test]
fn gaps_of_an_interrupted_copy_are_filled() {
    let here = Temporary::new();
    let all = content(1_000_001);
    let source = here.with("source", &all);
    let target = here.path("target");
    for gap in [0..1, 65_536..131_072, 70_000..70_001, 130_000..300_000, 999_999..1_000_001, 0..1_000_001] {
        let mut there = all.clone();
        there[gap].fill(0);
        fs::write(&target, there).unwrap();
        copies(&source, &target, &["--resume", "--block", "64K"]);
        same(&source, &target);
    }
}

#[test]
fn what_is_no_part_of_the_source_is_not_continued_and_not_touched() {
    let here = Temporary::new();
    let mut all = content(1_000_000);
    let source = here.with("source", &all);
    all.truncate(900_000);
    // A gap before it: nothing is filled before all was compared.
    all[..100_000].fill(0);
    all[800_000] = if all[800_000] == 7 { 8 } else { 7 };
    let target = here.with("target", &all);
    let output = copy(&source, &target, &["--resume", "--block", "64K"]);
    fails(&output, "at byte 800000, so it cannot be continued", "--force copies it anew");
    assert!(fs::read(&target).unwrap() == all);
    let longer = here.with("longer", content(1_000_001));
    let output = copy(&source, &longer, &["--resume"]);
    fails(&output, "so it cannot be continued", "--force copies it anew");
}

#[test]
fn a_copy_that_was_killed_is_continued_wherever_it_was() {
    let here = Temporary::new();
    let source = here.with("source", content(32 << 20));
    for milliseconds in [1, 5, 10, 20, 40, 80] {
        let target = here.path("target");
        let mut child =
            command(&source, &target, &["--block", "4K", "--depth", "64"]).stdout(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(milliseconds));
        child.kill().unwrap();
        child.wait().unwrap();
        copies(&source, &target, &["--resume", "--verify"]);
        same(&source, &target);
        fs::remove_file(&target).unwrap();
    }
}

/// Starts a copy, asks it to end as soon as it has begun, and returns with which code it ended and what it said.
fn interrupted(mut copy: Command, begun: impl Fn() -> bool, signal: Signal) -> (Option<i32>, String) {
    let mut child = copy.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    while !begun() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it began");
        thread::sleep(Duration::from_millis(1));
    }
    kill_process(Pid::from_child(&child), signal).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// The bytes that an interrupted copy says are left.
fn left(said: &str) -> u64 {
    let rest = said.strip_prefix("wharf: interrupted: ").unwrap_or_else(|| panic!("{said}"));
    rest.split(' ').next().unwrap().parse().unwrap()
}

/// So many small blocks, one after the other, that nobody copies them in the time of a signal.
const SLOWLY: [&str; 4] = ["--block", "512", "--depth", "1"];

#[test]
fn ctrl_c_says_what_is_left_and_how_it_goes_on() {
    let here = Temporary::new();
    let source = here.with("source", content(64 << 20));
    let target = here.path("target");
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (ended, said) = interrupted(command(&source, &target, &SLOWLY), || target.exists(), signal);
        assert_eq!(ended, Some(code), "{said}");
        // What was written is there, in whole blocks.
        assert_eq!(length(&target), (64 << 20) - left(&said), "{said}");
        let path = target.display();
        let rest = format!(" of 67108864 bytes are left; what was copied stays in {path}, and --resume continues it\n");
        assert!(said.ends_with(&rest), "{said}");
        fs::remove_file(&target).unwrap();
    }
    fs::write(&target, "of an earlier copy").unwrap();
    let force: Vec<_> = SLOWLY.into_iter().chain(["--force"]).collect();
    let (_, said) = interrupted(command(&source, &target, &force), || length(&target) != 18, Signal::INT);
    assert!(said.contains("--resume instead of --force continues it"), "{said}");
    copies(&source, &target, &["--resume", "--verify"]);
    same(&source, &target);
}

#[test]
fn what_an_earlier_copy_has_written_is_not_left_to_be_copied() {
    let here = Temporary::new();
    let all = content(64 << 20);
    let source = here.with("source", &all);
    let target = here.with("target", &all[..63 << 20]);
    let more: Vec<_> = SLOWLY.into_iter().chain(["--resume"]).collect();
    // It is written to when all that is there was compared.
    let copy = command(&source, &target, &more);
    let (_, said) = interrupted(copy, || length(&target) != 63 << 20, Signal::INT);
    assert_eq!(length(&target), (64 << 20) - left(&said), "{said}");
}

// --- Trees ---

#[test]
fn ctrl_c_in_a_tree_says_how_far_it_came() {
    let here = Temporary::new();
    let source = here.path("source");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("large"), content(64 << 20)).unwrap();
    let target = here.path("target");
    let more: Vec<_> = SLOWLY.into_iter().chain(["-r"]).collect();
    let (code, said) = interrupted(command(&source, &target, &more), || target.join("large").exists(), Signal::INT);
    assert_eq!(code, Some(130), "{said}");
    assert!(said.starts_with("wharf: interrupted: 0 files are done, "), "{said}");
    assert!(
        said.contains(" bytes were copied; what was copied stays in ") && said.ends_with("continues it\n"),
        "{said}"
    );
    copies(&source, &target, &["-r", "--resume"]);
    same(&source.join("large"), &target.join("large"));
}

#[test]
fn ten_thousand_tiny_files_are_copied() {
    let here = Temporary::new();
    let source = here.path("source");
    for directory in 0..100 {
        let directory = source.join(directory.to_string());
        fs::create_dir_all(&directory).unwrap();
        for file in 0..100 {
            fs::write(directory.join(file.to_string()), format!("{}/{file}", directory.display())).unwrap();
        }
    }
    let target = here.path("target");
    let said = copies(&source, &target, &["-r"]);
    assert!(said.starts_with("copied 10000 files, "), "{said}");
    for directory in 0..100 {
        for file in 0..100 {
            let name = format!("{directory}/{file}");
            same(&source.join(&name), &target.join(&name));
        }
    }
    // Half of it is lost, and comes again; the rest stays as it is.
    for directory in 0..50 {
        fs::remove_dir_all(target.join(directory.to_string())).unwrap();
    }
    let begun = fs::metadata(target.join("99/99")).unwrap().ino();
    copies(&source, &target, &["-r", "--resume", "--verify", "--depth", "100", "--block", "4K"]);
    same(&source.join("49/99"), &target.join("49/99"));
    assert_eq!(fs::metadata(target.join("99/99")).unwrap().ino(), begun);
}

#[test]
fn a_tree_keeps_links_permissions_and_empty_directories() {
    let here = Temporary::new();
    let source = here.path("source");
    fs::create_dir_all(source.join("a/b/empty")).unwrap();
    fs::write(source.join("a/b/file"), content(100_000)).unwrap();
    fs::write(source.join("a/two\nlines \u{ac00}"), "odd name").unwrap();
    fs::set_permissions(source.join("a/b/file"), Permissions::from_mode(0o604)).unwrap();
    symlink("b/file", source.join("a/link")).unwrap();
    symlink("nowhere", source.join("dangling")).unwrap();
    symlink("..", source.join("a/up")).unwrap();
    fs::set_permissions(source.join("a/b"), Permissions::from_mode(0o555)).unwrap();
    let target = here.path("target");
    for more in [&["-r"][..], &["-r", "--resume"], &["-r", "--force", "--sync", "--verify"]] {
        copies(&source, &target, more);
        same(&source.join("a/b/file"), &target.join("a/b/file"));
        same(&source.join("a/two\nlines \u{ac00}"), &target.join("a/two\nlines \u{ac00}"));
        assert_eq!((mode(&target.join("a/b")), mode(&target.join("a/b/file"))), (0o555, 0o604));
        assert!(target.join("a/b/empty").is_dir());
        for (link, to) in [("a/link", "b/file"), ("dangling", "nowhere"), ("a/up", "..")] {
            assert_eq!(fs::read_link(target.join(link)).unwrap(), Path::new(to));
        }
    }
    let output = copy(&source, &target, &["-r"]);
    fails(&output, "File exists", "--force overwrites it, --resume continues it");
    // What is another link is overwritten by force alone.
    fs::remove_file(target.join("dangling")).unwrap();
    symlink("elsewhere", target.join("dangling")).unwrap();
    fails_in_part(&copy(&source, &target, &["-r", "--resume"]), &["is not the link"]);
    copies(&source, &target, &["-r", "--force"]);
    assert_eq!(fs::read_link(target.join("dangling")).unwrap(), Path::new("nowhere"));
    // So that they can be removed.
    for tree in [&source, &target] {
        fs::set_permissions(tree.join("a/b"), Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn a_tree_is_not_copied_into_itself() {
    let here = Temporary::new();
    let source = here.path("source");
    fs::create_dir_all(source.join("below")).unwrap();
    symlink("source", here.path("alias")).unwrap();
    fails(&copy(&source, &here.path("alias"), &["-r", "--force"]), "are the same directory", "choose another target");
    for inside in ["source/copy", "source/below/copy", "alias/copy", "source/below"] {
        let output = copy(&source, &here.path(inside), &["-r", "--force"]);
        fails(&output, "is inside of", "choose a target elsewhere");
    }
    assert_eq!(fs::read_dir(source.join("below")).unwrap().count(), 0);
}

/// Who may change a tree while root copies it, or who had it before, must not have root write elsewhere.
#[test]
fn a_tree_is_not_copied_through_links_that_are_in_its_copy() {
    let here = Temporary::new();
    let (source, target, out) = (here.path("source"), here.path("target"), here.path("out"));
    fs::create_dir_all(source.join("directory/below")).unwrap();
    fs::write(source.join("directory/file"), "new").unwrap();
    fs::write(source.join("directory/below/file"), "new").unwrap();
    fs::write(source.join("file"), "new").unwrap();
    for (link, to) in [("directory", "../out"), ("file", "../out/file"), ("file", "../out/none")] {
        for more in ["--force", "--resume"] {
            for directory in [&target, &out] {
                let _ = fs::remove_dir_all(directory);
                fs::create_dir(directory).unwrap();
            }
            fs::write(out.join("file"), "").unwrap();
            fs::set_permissions(&out, Permissions::from_mode(0o700)).unwrap();
            symlink(to, target.join(link)).unwrap();
            let output = copy(&source, &target, &["-r", more]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("{} is a link", target.join(link).display())), "{said}");
            assert_eq!(fs::read_dir(&out).unwrap().count(), 1, "{link} {to} {more}");
            assert_eq!((length(&out.join("file")), mode(&out)), (0, 0o700), "{link} {to} {more}");
        }
    }
    // The copy that is named is a link that one has named.
    fs::remove_dir_all(&target).unwrap();
    symlink("out", &target).unwrap();
    copies(&source, &target, &["-r", "--force"]);
    same(&source.join("directory/below/file"), &out.join("directory/below/file"));
}

/// Exchanges two names, until it is dropped.
struct Exchanging(Arc<AtomicBool>, Option<thread::JoinHandle<()>>);

impl Exchanging {
    fn begin(one: PathBuf, other: PathBuf) -> Exchanging {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        let ended = Arc::new(AtomicBool::new(false));
        let until = ended.clone();
        let exchange = move || {
            while !until.load(Ordering::Relaxed) {
                let _ = renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE);
            }
        };
        Exchanging(ended, Some(thread::spawn(exchange)))
    }
}

impl Drop for Exchanging {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
        let _ = self.1.take().unwrap().join();
    }
}

#[test]
fn links_that_come_and_go_while_a_tree_is_copied_lead_nowhere() {
    let here = Temporary::new();
    let (source, target, out) = (here.path("source"), here.path("target"), here.path("out"));
    for (directory, content) in [(source.join("directory"), "public"), (out.clone(), "secret")] {
        fs::create_dir_all(&directory).unwrap();
        (0..100).for_each(|file| fs::write(directory.join(file.to_string()), content).unwrap());
    }
    fs::create_dir_all(target.join("directory")).unwrap();
    symlink("../out", source.join("other")).unwrap();
    symlink("../out", target.join("directory.link")).unwrap();
    let is_directory = |path: &Path| fs::symlink_metadata(path).is_ok_and(|about| about.is_dir());
    for _ in 0..30 {
        let exchanging = [
            Exchanging::begin(source.join("directory"), source.join("other")),
            Exchanging::begin(target.join("directory"), target.join("directory.link")),
        ];
        copy(&source, &target, &["-r", "--force"]);
        drop(exchanging);
        for file in 0..100 {
            let name = out.join(file.to_string());
            assert_eq!(fs::read(&name).unwrap(), b"secret", "{} was written", name.display());
        }
        // Whichever of the names the directory has now.
        let names = ["directory", "directory.link", "other"].map(|name| target.join(name));
        for file in names.iter().filter(|name| is_directory(name)).flat_map(|name| fs::read_dir(name).unwrap()) {
            let name = file.unwrap().path();
            assert_ne!(fs::read(&name).unwrap(), b"secret", "{} was read through a link", name.display());
        }
        // A link takes the place of none.
        let _ = fs::remove_file(target.join("other"));
        let _ = fs::remove_dir_all(target.join("other"));
    }
}

#[test]
fn a_directory_whose_names_are_their_owners_stays_one() {
    let here = Temporary::new();
    let (source, target) = (here.path("source"), here.path("target"));
    fs::create_dir_all(source.join("everybodys")).unwrap();
    fs::set_permissions(source.join("everybodys"), Permissions::from_mode(0o1777)).unwrap();
    copies(&source, &target, &["-r"]);
    assert_eq!(mode(&target.join("everybodys")), 0o1777);
}

#[test]
fn what_has_no_content_is_an_error() {
    let here = Temporary::new();
    let source = here.path("source");
    fs::create_dir(&source).unwrap();
    let pipe = source.join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fails(&copy(&pipe, &here.path("one"), &[]), "is a pipe", "name a file");
    fails_in_part(&copy(&source, &here.path("two"), &["-r"]), &["is a pipe"]);
    fails(&copy(Path::new("/dev/zero"), &here.path("three"), &[]), "is a character device", "name a file");
    let file = here.with("file", "x");
    fails(&copy(&file, Path::new("/dev/null"), &["--force"]), "/dev/null is no file", "choose another target");
}

// --- What goes wrong ---

#[test]
fn a_source_that_is_not_there_is_an_error() {
    let here = Temporary::new();
    let output = copy(&here.path("missing"), &here.path("target"), &[]);
    fails(&output, "No such file or directory", "check the name");
    assert!(!here.path("target").exists());
}

#[test]
fn a_target_in_no_directory_is_an_error() {
    let here = Temporary::new();
    let source = here.with("source", "x");
    fails(&copy(&source, &here.path("no/target"), &[]), "No such file or directory", "make the directory it is in");
    fails(&copy(&source, &source.join("target"), &[]), "Not a directory", "a part of the path is a file");
    let tree = here.path("tree");
    fs::create_dir(&tree).unwrap();
    fails(&copy(&tree, &source, &["-r"]), "File exists", "overwrites it");
    fails(&copy(&tree, &source, &["-r", "--force"]), "is there, and no directory", "remove it");
}

#[test]
fn a_target_that_leads_nowhere_is_an_error() {
    let here = Temporary::new();
    let source = here.with("source", "x");
    let link = here.path("link");
    symlink("nowhere", &link).unwrap();
    for more in [&[][..], &["--force"]] {
        fails(&copy(&source, &link, more), "is a link that leads nowhere", "remove it");
    }
    fails(&copy(&source, &here.path("none/"), &[]), "is no directory", "make it, or leave the slash at its end out");
}

#[test]
fn a_directory_is_copied_only_when_asked_for() {
    let here = Temporary::new();
    let source = here.path("source");
    fs::create_dir(&source).unwrap();
    fails(&copy(&source, &here.path("target"), &[]), "is a directory", "-r copies it with all it holds");
    assert!(!here.path("target").exists());
}

/// Runs it without privileges. The program goes where anybody may run it.
fn as_nobody(here: &Temporary, source: &Path, target: &Path) -> Output {
    if !is_root() {
        return copy(source, target, &[]);
    }
    let program = here.path("wharf");
    fs::copy(env!("CARGO_BIN_EXE_wharf"), &program).unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        match Command::new(&program).arg("copy").args([source, target]).uid(NOBODY).gid(NOBODY).output() {
            // A child that another test has just forked still has the copy open for writing.
            Err(error) if error.kind() == ErrorKind::ExecutableFileBusy && Instant::now() < until => {
                thread::sleep(Duration::from_millis(10));
            }
            output => return output.unwrap(),
        }
    }
}

#[test]
fn a_source_that_may_not_be_read_is_an_error() {
    let here = Temporary::new();
    fs::set_permissions(&here.0, Permissions::from_mode(0o777)).unwrap();
    let source = here.with("source", "secret");
    fs::set_permissions(&source, Permissions::from_mode(0o000)).unwrap();
    let output = as_nobody(&here, &source, &here.path("target"));
    fails(&output, &format!("cannot read {}: Permission denied", source.display()), "ask its owner for permission");
    assert!(!here.path("target").exists());
}

#[test]
fn a_target_that_may_not_be_written_is_an_error() {
    let here = Temporary::new();
    let source = here.with("source", "x");
    let directory = here.path("directory");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o555)).unwrap();
    let output = as_nobody(&here, &source, &directory.join("target"));
    fails(&output, "Permission denied", "ask its owner for permission");
}

/// Needs a file system of its own, which only root (of a user namespace, too) may mount.
#[test]
fn on_a_full_disk_the_copy_stays_and_is_continued_when_there_is_room() {
    let here = Temporary::new();
    let source = here.with("source", content(1_000_001));
    let full = here.path("full");
    fs::create_dir(&full).unwrap();
    let script = r#"
        mount -t tmpfs -o size=2m none "$2" || exit 9
        head -c 1500000 /dev/zero >"$2/other"
        "$0" copy "$1" "$2/target" --block 4K; echo "code $?"
        rm "$2/other"
        "$0" copy "$1" "$2/target" --resume --verify || exit 8
        cmp "$1" "$2/target" && echo same
    "#;
    let output = Command::new("unshare")
        .args(["--mount", "--map-root-user", "sh", "-c", script, env!("CARGO_BIN_EXE_wharf")])
        .args([&source, &full])
        .output();
    match output {
        Ok(output) if String::from_utf8_lossy(&output.stdout).contains("code ") => {
            let (said, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(said.starts_with("code 1\ncopied ") && said.ends_with("same\n"), "{said}{errors}");
            assert_eq!(errors.lines().count(), 1, "{errors}");
            let target = full.join("target");
            assert!(
                errors.starts_with(&format!("wharf: cannot write {}: No space left", target.display())),
                "{errors}"
            );
            let end = format!(
                "; make room there; what was copied stays in {}, and --resume continues it\n",
                target.display()
            );
            assert!(errors.ends_with(&end), "{errors}");
        }
        other => {
            assert!(std::env::var_os("CI").is_none(), "a small file system cannot be mounted: {other:?}");
            skipped("a full disk", &format!("a small file system cannot be mounted here: {other:?}"));
        }
    }
}

#[test]
fn with_few_descriptors_fewer_files_are_open_at_a_time() {
    let here = Temporary::new();
    let source = here.path("source");
    fs::create_dir(&source).unwrap();
    (0..200).for_each(|file| fs::write(source.join(file.to_string()), content(100_000)).unwrap());
    let target = here.path("target");
    let limited = |limit: u32, target: &Path| {
        let script = format!(r#"ulimit -n {limit}; exec "$0" copy -r --depth 64 "$1" "$2""#);
        let mut shell = Command::new("sh");
        shell.args(["-c", &script, env!("CARGO_BIN_EXE_wharf")]).args([&source, target]).output().unwrap()
    };
    // Fewer files are open at a time.
    well(&limited(24, &target));
    (0..200).for_each(|file| same(&source.join(file.to_string()), &target.join(file.to_string())));
    // Not enough for one.
    let output = limited(13, &here.path("none"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("Too many open files") && said.contains("ulimit -n"), "{said}");
}

/// A file that cannot be copied does not keep the rest from being copied.
#[test]
fn one_bad_file_does_not_end_a_tree() {
    let here = Temporary::new();
    let source = here.path("source");
    fs::create_dir_all(source.join("directory")).unwrap();
    assert!(Command::new("mkfifo").arg(source.join("directory/pipe")).status().unwrap().success());
    let _socket = std::os::unix::net::UnixListener::bind(source.join("socket")).unwrap();
    for name in ["a", "m", "z", "directory/a", "directory/z"] {
        fs::write(source.join(name), content(100_000)).unwrap();
    }
    let target = here.path("target");
    fails_in_part(&copy(&source, &target, &["-r"]), &["pipe is a pipe", "socket is a socket"]);
    let others = |but: &str| {
        for name in ["a", "m", "z", "directory/a", "directory/z"].iter().filter(|name| **name != but) {
            same(&source.join(name), &target.join(name));
        }
    };
    others("");
    // One that differs, and one whose place is taken.
    fs::remove_file(source.join("directory/pipe")).unwrap();
    fs::remove_file(source.join("socket")).unwrap();
    fs::write(target.join("m"), "something else").unwrap();
    fails_in_part(&copy(&source, &target, &["-r", "--resume"]), &["m differs from"]);
    fs::remove_file(target.join("m")).unwrap();
    fs::create_dir(target.join("m")).unwrap();
    let output = copy(&source, &target, &["-r", "--force"]);
    fails_in_part(&output, &["Is a directory"]);
    assert!(!String::from_utf8_lossy(&output.stderr).contains("--force"), "it was given");
    others("m");
}

#[test]
fn wrong_usage_is_explained_and_exits_with_2() {
    for arguments in [
        &["copy"][..],
        &["copy", "one"],
        &["copy", "one", "two", "three"],
        &["copy", "one", "two", "--depth", "0"],
        &["copy", "one", "two", "--depth", "1025"],
        &["copy", "one", "two", "--block", "0"],
        &["copy", "one", "two", "--block", "much"],
        &["copy", "one", "two", "--block", "2G"],
        &["copy", "one", "two", "--force", "--resume"],
        &["copy", "one", "two", "--direct", "--block", "1000"],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_wharf")).args(arguments).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains("Usage: ") || said.contains("--help"), "{arguments:?}: {said}");
    }
}

#[test]
fn the_help_says_what_is_not_kept() {
    let output = Command::new(env!("CARGO_BIN_EXE_wharf")).args(["copy", "--help"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("set-user-ID bits are not kept"), "{said}");
}
