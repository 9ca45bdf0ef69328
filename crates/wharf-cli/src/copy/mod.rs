//! Copies through a completion port.
//!
//! `walk.rs` finds what is to be copied and makes directories and links; `open.rs` opens a file and its copy; `plan.rs`
//! moves the blocks, and `compare.rs` compares them. Here are the checks before, the progress meanwhile, and the line at
//! the end.

mod compare;
mod open;
mod plan;
mod walk;

use crate::options::{Copy, Options};
use crate::port::no_port;
use crate::signals::{self, end_at_once};
use crate::system;
use clap::CommandFactory;
use indicatif::{ProgressBar, ProgressStyle};
use plan::Copier;
use std::fs;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf, is_separator};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread;
use std::time::{Duration, Instant};
use walk::Walk;
use wharf::{CompletionPort, GetError};

/// Handlers issue the next operation and open files; two of them, because opening may wait for the disk.
const THREADS: usize = 2;
/// How often the progress is drawn.
const PROGRESS: Duration = Duration::from_millis(100);
/// What every disk's direct I/O is content with.
const ALIGNMENT: usize = 4096;

/// Why a copy ended early.
#[derive(Debug)]
struct Failure {
    sentence: String,
    /// Something was copied, and `--resume` can go on from there.
    resumable: bool,
}

/// What the main thread waits for.
#[derive(Clone, Copy)]
enum Control {
    /// There is nothing more to do.
    Ended,
    /// Ctrl+C, or the like.
    Signal(i32),
}

impl From<String> for Failure {
    fn from(sentence: String) -> Failure {
        Failure { sentence, resumable: false }
    }
}

/// A system's error about a path, with what to do about it.
fn cannot(verb: &str, path: &Path, error: &io::Error) -> String {
    let remedy = system::remedy(error).unwrap_or(match error.kind() {
        io::ErrorKind::NotFound => "check the name, and make the directory it is in",
        io::ErrorKind::PermissionDenied => "ask its owner for permission, or copy as another user",
        io::ErrorKind::AlreadyExists => "--force overwrites it, --resume continues it",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room there",
        io::ErrorKind::IsADirectory => "name a file, or remove the directory",
        io::ErrorKind::NotADirectory => "a part of the path is a file; check the name",
        io::ErrorKind::ReadOnlyFilesystem => "mount it for writing, or choose another target",
        io::ErrorKind::FileTooLarge => "its file system holds no file of that size; choose another target",
        _ => "look at the disk and its file system",
    });
    format!("cannot {verb} {}: {error}; {remedy}", path.display())
}

/// Copies, and says what came of it.
pub fn run(options: &Copy) -> Result<(), String> {
    if options.direct && !options.block.is_multiple_of(ALIGNMENT) {
        let what = format!("direct I/O needs a --block that is a multiple of {ALIGNMENT}, such as 64K");
        Options::command().error(clap::error::ErrorKind::ValueValidation, what).exit();
    }
    if let (Some(warning), true) = (system::CACHE_STAYS, options.sync && options.verify && !options.direct) {
        log::warn!("{warning}");
    }
    let began = Instant::now();
    let source = &options.source;
    let about = fs::metadata(source).map_err(|error| cannot("read", source, &error))?;
    let tree = about.is_dir();
    if tree && !options.recursive {
        return Err(format!("{} is a directory; -r copies it with all it holds", source.display()));
    }
    let target = if tree { options.target.clone() } else { target_of(source, &options.target)? };
    if tree {
        refuse_inside(source, &target)?;
    }
    let walk = Walk::new(options, source.clone(), target.clone());
    // A port of its own: the blocks' packets are the threads'.
    let control = CompletionPort::<(), Control>::new().map_err(|error| no_port(&error))?;
    signals::catch(&control, Control::Signal)?;
    let copier = Copier::new(options.clone(), walk, control.clone()).map_err(|error| no_port(&error))?;
    let copier = Arc::new(copier);
    let bar = progress(if tree { None } else { Some(about.len()) });
    let threads: Vec<_> =
        (0..THREADS).map(|_| copier.clone()).map(|copier| thread::spawn(move || copier.work())).collect();
    copier.start();
    let mut interrupted = None;
    // A thread that panicked will not tell that it ended; the other might wait for ever.
    while !threads.iter().any(|thread| thread.is_finished()) {
        match control.get_timeout(PROGRESS).map(|packet| packet.context) {
            Ok(Control::Signal(signal)) if interrupted.is_none() => {
                interrupted = Some(signal);
                // Blocks that are under way are still written: what is there is then whole blocks.
                copier.stop(Failure { sentence: "interrupted".into(), resumable: true });
            }
            Ok(Control::Signal(_)) => end_at_once(),
            Ok(Control::Ended) => break,
            Err(GetError::TimedOut) => {}
            Err(_) => break,
        }
        bar.set_position(copier.bytes.load(Ordering::Relaxed));
        bar.set_message(copier.files.load(Ordering::Relaxed).to_string());
    }
    copier.close();
    let ended_well = threads.into_iter().all(|thread| thread.join().is_ok());
    bar.finish_and_clear();
    let outcome = copier.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(outcome) = outcome.filter(|_| ended_well) else {
        return Err("a thread of the copy ended by a mistake of this program; please report what it printed".into());
    };
    let (bytes, files) = (copier.bytes.load(Ordering::Relaxed), copier.files.load(Ordering::Relaxed));
    if let Err(failure) = outcome {
        let how = if options.force { "--resume instead of --force" } else { "--resume" };
        let left = format!("what was copied stays in {}, and {how} continues it", target.display());
        return match interrupted {
            Some(signal) => {
                let kept = copier.kept.load(Ordering::Relaxed);
                let there = if tree {
                    format!("{files} files are done, {bytes} bytes were copied")
                } else {
                    format!("{} of {} bytes are left", about.len().saturating_sub(bytes + kept), about.len())
                };
                eprintln!("wharf: {}: {there}; {left}", failure.sentence);
                // As a shell reports who was ended by a signal: a script must not go on as if nothing was.
                std::process::exit(128 + signal);
            }
            None if failure.resumable => Err(format!("{}; {left}", failure.sentence)),
            None => Err(failure.sentence),
        };
    }
    let seconds = began.elapsed().as_secs_f64().max(1e-6);
    let files = if tree { format!("{files} files, ") } else { String::new() };
    let verified = if options.verify { ", verified" } else { "" };
    // Whether somebody reads it does not change what was done.
    let _ = writeln!(
        io::stdout(),
        "copied {files}{bytes} bytes in {seconds:.3} s, {:.1} MB/s{verified}",
        bytes as f64 / seconds / 1e6
    );
    Ok(())
}

/// In a directory a file keeps its name.
fn target_of(source: &Path, target: &Path) -> Result<PathBuf, String> {
    if !target.is_dir() {
        if target.as_os_str().as_encoded_bytes().last().is_some_and(|&byte| is_separator(char::from(byte))) {
            let target = target.display();
            return Err(format!("{target} is no directory; make it, or leave the slash at its end out"));
        }
        return Ok(target.to_owned());
    }
    let name = source.file_name().map(ToOwned::to_owned);
    // `..` and the like have none; as a file they have.
    let name = name.or_else(|| fs::canonicalize(source).ok()?.file_name().map(ToOwned::to_owned));
    name.map(|name| target.join(name)).ok_or_else(|| format!("{} has no name; name the target", source.display()))
}

/// A tree that is copied into itself has no end.
fn refuse_inside(source: &Path, target: &Path) -> Result<(), String> {
    let real = fs::canonicalize(source).map_err(|error| cannot("read", source, &error))?;
    let absolute = std::path::absolute(target).map_err(|error| cannot("write", target, &error))?;
    let existing = absolute.ancestors().find_map(|path| fs::canonicalize(path).ok());
    match existing {
        Some(existing) if existing == real && fs::canonicalize(target).is_ok() => {
            Err(format!("{} and {} are the same directory; choose another target", source.display(), target.display()))
        }
        Some(existing) if existing.starts_with(&real) => {
            Err(format!("{} is inside of {}; choose a target elsewhere", target.display(), source.display()))
        }
        _ => Ok(()),
    }
}

/// Shown on a terminal only.
fn progress(bytes: Option<u64>) -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let (bar, template) = match bytes {
        Some(bytes) => (ProgressBar::new(bytes), "{wide_bar} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} to go"),
        None => (ProgressBar::no_length(), "{spinner} {msg} files, {bytes}  {bytes_per_sec}"),
    };
    bar.set_style(ProgressStyle::with_template(template).expect("the template is right"));
    bar
}
