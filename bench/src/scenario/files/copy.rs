//! `wharf copy` beside `cp`: one large file, and many small ones. Copies are cold: the system is asked to forget the
//! source, and each copy goes into an empty folder. A message is a whole copy.

use super::{MIB, fill, sample};
use crate::lab::Lab;
use crate::measure::{Plan, all_in_turns, ratios, rows};
use crate::process::program;
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::stats::median;
use crate::usage::children_cpu_us;
use std::fs::File as StdFile;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

pub fn run(lab: &Lab, report: &mut Report, folder: &Path) -> io::Result<()> {
    let (large, small) = lab.pick((64 * MIB, 500), (512 * MIB, 10_000));
    let Some(wharf) = program("wharf") else {
        report.notes.push("the program wharf is not built (cargo build --release -p wharf-cli): no copies".into());
        return Ok(());
    };
    let one = folder.join("one");
    std::fs::create_dir(&one)?;
    fill(&one.join("file"), large)?;
    let many = folder.join("many");
    for number in 0..small {
        let folder = many.join(format!("{}", number / 100));
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("{number}")), vec![number as u8; 1000 + number % 7000])?;
    }
    let names = ["wharf copy -r", "cp -r", AGAIN];
    for (case, source) in [(format!("copy {} MiB", large / MIB), one), (format!("copy {small} small files"), many)] {
        let target = folder.join("target");
        lab.case(&case);
        let samples = all_in_turns(lab, names.len(), Plan::within(lab.pick(3.0, 25.0)), |system| {
            forget(&source)?;
            let mut command = match system {
                1 => Command::new("cp"),
                _ => Command::new(&wharf),
            };
            if system != 1 {
                command.arg("copy");
            }
            let before = children_cpu_us();
            let begin = Instant::now();
            let status =
                command.arg("-r").arg(&source).arg(&target).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
            let time = begin.elapsed();
            if !status.success() {
                return Err(io::Error::other(format!("{} has failed: {status}", names[system])));
            }
            let cpu = children_cpu_us() - before;
            std::fs::remove_dir_all(&target)?;
            // What the copy has left to be written is its own affair, and not the next one's.
            rustix::fs::sync();
            Ok(sample(1, time, cpu))
        })?;
        report.rows.extend(rows("files", &case, &names, &samples));
        let rate = median(&ratios(&samples[0], &samples[1], |sample| sample.messages_per_second));
        report.goals.push(Goal::new(format!("{case}, rate of cp's"), rate, Wanted::AtLeast(1.0)));
    }
    Ok(())
}

/// Takes the files of a tree out of the system's cache.
fn forget(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            forget(&entry?.path())?;
        }
        return Ok(());
    }
    let file = StdFile::open(path)?;
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    Ok(())
}
