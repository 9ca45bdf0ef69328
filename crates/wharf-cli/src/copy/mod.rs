//! Copies through a completion port.
//!
//! `target.rs` says where the copy goes; `walk.rs` finds what is to be copied and makes directories and links; `tree`
//! opens what is in a tree, and nothing that a link leads to; `open.rs` opens a file and its copy; `plan.rs` moves the
//! blocks, and `compare.rs` compares them; `failure.rs` is why it ended early. Here are the checks before, the progress
//! meanwhile, and the line at the end.

mod compare;
mod failure;
mod open;
mod plan;
mod target;
mod tree;
mod walk;

use crate::options::{Copy, Options};
use crate::output;
use crate::port::no_port;
use crate::signals::{self, end_at_once};
use crate::system;
use clap::CommandFactory;
use failure::{Failure, Weight, cannot};
use indicatif::{ProgressBar, ProgressStyle};
use open::ALIGNMENT;
use plan::{Control, Copier, THREADS};
use std::fs::{self, Metadata};
use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};
use target::{refuse_inside, target_of};
use walk::Walk;
use wharf::{CompletionPort, GetError};

/// How often the progress is drawn.
const PROGRESS: Duration = Duration::from_millis(100);
/// After so long a block that does not end is left: reading some files waits for what may never come.
const PATIENCE: Duration = Duration::from_secs(3);

/// Copies, and says what came of it.
pub fn run(options: &Copy) -> Result<(), String> {
    refuse_block(options);
    if let (Some(warning), true) = (system::CACHE_STAYS, options.sync && options.verify && !options.direct) {
        log::warn!("{warning}");
    }
    let began = Instant::now();
    let (target, about) = ends(options)?;
    let tree = about.is_dir();
    let walk = Walk::new(options, options.source.clone(), target.clone());
    // A port of its own: the blocks' packets are the threads'.
    let control = CompletionPort::<(), Control>::new().map_err(|error| no_port(&error))?;
    signals::catch(&control, Control::Signal)?;
    let bar = progress(if tree { None } else { Some(about.len()) });
    let copier = Copier::new(options.clone(), walk, control.clone(), bar.clone()).map_err(|error| no_port(&error))?;
    let copier = Arc::new(copier);
    let threads: Vec<_> =
        (0..THREADS).map(|_| copier.clone()).map(|copier| thread::spawn(move || copier.work())).collect();
    copier.start();
    let interrupted = follow(&copier, &control, &threads, &bar);
    copier.close();
    let nothing = || copier.outcome.lock().unwrap_or_else(PoisonError::into_inner).is_none();
    if let Some(signal) = interrupted.filter(|_| nothing()) {
        bar.finish_and_clear();
        eprintln!("wharf: interrupted: a block that is being read or written does not end; --resume goes on");
        std::process::exit(128 + signal);
    }
    let ended_well = threads.into_iter().all(|thread| thread.join().is_ok());
    bar.finish_and_clear();
    let outcome = copier.outcome.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(outcome) = outcome.filter(|_| ended_well) else {
        return Err("a thread of the copy ended by a mistake of this program; please report what it printed".into());
    };
    if let Err(failure) = outcome {
        let how = if options.force { "--resume instead of --force" } else { "--resume" };
        let left = format!("what was copied stays in {}, and {how} continues it", target.display());
        return match interrupted {
            Some(signal) => {
                eprintln!("wharf: {}: {}; {left}", failure.sentence, still_to_do(&copier, &about));
                // As a shell reports who was ended by a signal: a script must not go on as if nothing was.
                std::process::exit(128 + signal);
            }
            None if failure.resumable => Err(format!("{}; {left}", failure.sentence)),
            None => Err(failure.sentence),
        };
    }
    tell(&copier, options, tree, began.elapsed())?;
    match copier.left.load(Ordering::Relaxed) {
        0 => Ok(()),
        1 => Err("one name of the tree was not copied; it is told above".into()),
        left => Err(format!("{left} names of the tree were not copied; they are told above")),
    }
}

/// Ends the program if the options say what cannot be.
fn refuse_block(options: &Copy) {
    if options.direct && !options.block.is_multiple_of(ALIGNMENT) {
        let what = format!("direct I/O needs a --block that is a multiple of {ALIGNMENT}, such as 64K");
        Options::command().error(clap::error::ErrorKind::ValueValidation, what).exit();
    }
}

/// Where the copy goes, and what the source is.
fn ends(options: &Copy) -> Result<(PathBuf, Metadata), String> {
    let source = &options.source;
    let about = fs::metadata(source).map_err(|error| cannot("read", source, &error))?;
    if !about.is_dir() {
        return Ok((target_of(source, &options.target)?, about));
    }
    if !options.recursive {
        return Err(format!("{} is a directory; -r copies it with all it holds", source.display()));
    }
    refuse_inside(source, &options.target)?;
    Ok((options.target.clone(), about))
}

/// Draws the progress until the copy has ended; the signal that has interrupted it.
fn follow(
    copier: &Copier,
    control: &CompletionPort<(), Control>,
    threads: &[JoinHandle<()>],
    bar: &ProgressBar,
) -> Option<i32> {
    let (mut interrupted, mut patience) = (None, None::<Instant>);
    // A thread that panicked will not tell that it ended; the other might wait for ever.
    while !threads.iter().any(|thread| thread.is_finished()) {
        match control.get_timeout(PROGRESS).map(|packet| packet.context) {
            Ok(Control::Signal(signal)) if interrupted.is_none() => {
                interrupted = Some(signal);
                // Blocks that are under way are still written: what is there is then whole blocks.
                copier.stop(Failure { sentence: "interrupted".into(), resumable: true, weight: Weight::Ends });
                patience = Some(Instant::now() + PATIENCE);
            }
            Ok(Control::Signal(signal)) => end_at_once(signal),
            Ok(Control::Ended) => break,
            Err(GetError::TimedOut) if patience.is_some_and(|until| Instant::now() > until) => break,
            Err(GetError::TimedOut) => {}
            Err(_) => break,
        }
        bar.set_position(copier.bytes.load(Ordering::Relaxed));
        bar.set_message(copier.files.load(Ordering::Relaxed).to_string());
    }
    interrupted
}

/// What an interrupted copy has done, or has left.
fn still_to_do(copier: &Copier, about: &Metadata) -> String {
    let (bytes, files) = (copier.bytes.load(Ordering::Relaxed), copier.files.load(Ordering::Relaxed));
    if about.is_dir() {
        return format!("{files} files are done, {bytes} bytes were copied");
    }
    let kept = copier.kept.load(Ordering::Relaxed);
    format!("{} of {} bytes are left", about.len().saturating_sub(bytes + kept), about.len())
}

/// The line at the end.
fn tell(copier: &Copier, options: &Copy, tree: bool, time: Duration) -> Result<(), String> {
    let (bytes, files) = (copier.bytes.load(Ordering::Relaxed), copier.files.load(Ordering::Relaxed));
    let seconds = time.as_secs_f64().max(1e-6);
    let files = if tree { format!("{files} files, ") } else { String::new() };
    let verified = if options.verify { ", verified" } else { "" };
    let rate = bytes as f64 / seconds / 1e6;
    output::write(
        "what was done",
        &format!("copied {files}{bytes} bytes in {seconds:.3} s, {rate:.1} MB/s{verified}\n"),
    )
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
