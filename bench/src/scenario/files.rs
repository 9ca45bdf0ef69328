//! Files: direct random reads beside fio's io_uring engine, reads from the cache beside `pread`, and `wharf copy` beside
//! `cp`.
//!
//! Reads are of 4 KiB, at random places of one file. One thread issues and takes packets; what waits for the disk waits in
//! the port's internal engine. fio runs as its users would start it, and once more with submissions in batches. Copies are
//! cold: the system is asked to forget the source, and each copy goes into an empty folder.

use crate::measure::{Sample, in_turns, process_cpu_us, ratios, rows, thread_cpu_us};
use crate::process::{Folder, has, program};
use crate::rows::{Goal, Report, Wanted, median};
use std::fs::{File as StdFile, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use wharf::{Buffer, CompletionPort, Event, Outcome};

const BLOCK: usize = 4096;
const MIB: u64 = 1024 * 1024;

pub fn run(quick: bool) -> io::Result<Report> {
    let folder = Folder::new()?;
    let mut report = Report::default();
    let (size, rounds, slice) = if quick { (256 * MIB, 5, 1) } else { (1024 * MIB, 9, 2) };
    let file = folder.path().join("reads");
    fill(&file, size)?;
    direct(&mut report, &file, size, rounds, Duration::from_secs(slice))?;
    cached(&mut report, &file, size.min(256 * MIB), if quick { 9 } else { 31 })?;
    std::fs::remove_file(&file)?;
    let (large, small, rounds) = if quick { (256 * MIB, 2000, 5) } else { (1024 * MIB, 10_000, 7) };
    copies(&mut report, folder.path(), large, small, rounds)?;
    Ok(report)
}

/// Numbers without a pattern, the same in each run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = StdFile::create(path)?;
    let mut random = Random(bytes | 1);
    let mut block = vec![0; MIB as usize];
    for _ in 0..bytes.div_ceil(MIB) {
        block.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.below(u64::MAX).to_le_bytes()));
        file.write_all(&block)?;
    }
    file.set_len(bytes)?;
    file.sync_all()
}

// --- Reads past the cache ---

fn direct(report: &mut Report, file: &Path, size: u64, rounds: usize, slice: Duration) -> io::Result<()> {
    let fio = has("fio", "--version");
    if !fio {
        report.notes.push("fio is missing (Debian: apt-get install fio): nothing stands beside direct reads".into());
    }
    let names = ["wharf", "the same again (noise)", "fio, io_uring", "fio, io_uring, batches of 16"];
    let systems = if fio { 4 } else { 2 };
    for depth in [32, 128] {
        let samples = in_turns(systems, rounds, |system| match system {
            0 | 1 => direct_reads(file, size, depth, slice),
            2 => fio_reads(file, depth, slice, &[]),
            _ => fio_reads(file, depth, slice, &["--iodepth_batch_submit=16", "--iodepth_batch_complete_max=16"]),
        })?;
        report.rows.extend(rows("files", &format!("direct 4 KiB, depth {depth}"), &names[..systems], &samples));
        if fio {
            let cpu = median(&ratios(&samples[0], &samples[2], |sample| sample.cpu_us_per_message));
            let what = format!("direct reads at depth {depth}, cpu of fio's");
            report.goals.push(Goal::new(what, cpu, Wanted::AtMost(1.25)));
        }
    }
    Ok(())
}

fn direct_reads(path: &Path, size: u64, depth: usize, slice: Duration) -> io::Result<Sample> {
    let port = CompletionPort::<(), ()>::builder().concurrency(1).build()?;
    let mut options = OpenOptions::new();
    let file = port.open(path, options.read(true).custom_flags(libc::O_DIRECT), ())?;
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut offset = || random.below(size / BLOCK as u64) * BLOCK as u64;
    let (begin, cpu) = (Instant::now(), process_cpu_us());
    for _ in 0..depth {
        file.read_at(Buffer::aligned(BLOCK, BLOCK), offset(), ())?;
    }
    let (mut count, mut outstanding) = (0, depth);
    while outstanding > 0 {
        let go_on = begin.elapsed() < slice;
        for packet in port.get_many(depth, None)? {
            let Event::Read { file, buffer, result } = packet.event else { continue };
            result?;
            count += 1;
            outstanding -= 1;
            if go_on {
                file.read_at(buffer, offset(), ())?;
                outstanding += 1;
            }
        }
    }
    Ok(sample(count, begin.elapsed(), process_cpu_us() - cpu))
}

fn sample(count: u64, time: Duration, cpu_us: f64) -> Sample {
    Sample {
        messages_per_second: Some(count as f64 / time.as_secs_f64()),
        cpu_us_per_message: Some(cpu_us / count as f64),
        ..Sample::default()
    }
}

fn fio_reads(path: &Path, depth: usize, slice: Duration, further: &[&str]) -> io::Result<Sample> {
    let output = Command::new("fio")
        .args(["--name=reads", "--rw=randread", "--bs=4k", "--direct=1", "--ioengine=io_uring", "--time_based"])
        .args(["--output-format=json", "--randrepeat=0", "--norandommap"])
        .arg(format!("--filename={}", path.display()))
        .arg(format!("--iodepth={depth}"))
        .arg(format!("--runtime={}", slice.as_secs()))
        .args(further)
        .stderr(Stdio::null())
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    // Notes may stand before it.
    let json: serde_json::Value = serde_json::from_str(&text[text.find('{').unwrap_or(0)..])?;
    let job = &json["jobs"][0];
    let number = |value: &serde_json::Value| value.as_f64().ok_or_else(|| io::Error::other("fio said nothing of it"));
    let count = number(&job["read"]["total_ios"])?;
    let time_us = number(&job["job_runtime"])? * 1000.0;
    let cpu = (number(&job["usr_cpu"])? + number(&job["sys_cpu"])?) / 100.0;
    Ok(Sample {
        messages_per_second: Some(number(&job["read"]["iops"])?),
        cpu_us_per_message: Some(cpu * time_us / count),
        ..Sample::default()
    })
}

// --- Reads from the cache ---

fn cached(report: &mut Report, path: &Path, size: u64, rounds: usize) -> io::Result<()> {
    const READS: u64 = 50_000;
    let file = StdFile::open(path)?;
    let mut block = vec![0; BLOCK];
    for at in (0..size).step_by(BLOCK) {
        file.read_exact_at(&mut block, at)?;
    }
    let names = ["wharf, skip on success", "wharf", "pread"];
    let samples = in_turns(names.len(), rounds, |system| match system {
        0 => cached_reads(path, size, READS, true),
        1 => cached_reads(path, size, READS, false),
        _ => {
            let mut random = Random(0x9e37_79b9_7f4a_7c15);
            let (begin, cpu) = (Instant::now(), thread_cpu_us());
            for _ in 0..READS {
                let at = random.below(size / BLOCK as u64) * BLOCK as u64;
                file.read_exact_at(&mut block, at)?;
            }
            Ok(sample(READS, begin.elapsed(), thread_cpu_us() - cpu))
        }
    })?;
    report.rows.extend(rows("files", "cached 4 KiB, depth 1", &names, &samples));
    for (system, name) in names.iter().enumerate().take(2) {
        let cpu = median(&ratios(&samples[system], &samples[2], |sample| sample.cpu_us_per_message));
        report.goals.push(Goal::new(format!("cached reads, {name}, cpu of pread's"), cpu, Wanted::AtMost(1.3)));
    }
    Ok(())
}

fn cached_reads(path: &Path, size: u64, reads: u64, skip: bool) -> io::Result<Sample> {
    let port = CompletionPort::<(), ()>::builder().concurrency(1).build()?;
    let file = port.open(path, OpenOptions::new().read(true), ())?;
    if skip {
        file.skip_on_success();
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let mut buffer = Buffer::with_capacity(BLOCK);
    let (begin, cpu) = (Instant::now(), thread_cpu_us());
    for _ in 0..reads {
        let at = random.below(size / BLOCK as u64) * BLOCK as u64;
        let packet = match file.read_at(buffer, at, ())? {
            Outcome::Done(packet) => packet,
            Outcome::Pending(_) => port.get()?,
        };
        let Event::Read { buffer: read, result, .. } = packet.event else { unreachable!("only reads are issued") };
        result?;
        buffer = read;
    }
    Ok(sample(reads, begin.elapsed(), thread_cpu_us() - cpu))
}

// --- Copies ---

fn copies(report: &mut Report, folder: &Path, large: u64, small: usize, rounds: usize) -> io::Result<()> {
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
    let names = ["wharf copy -r", "cp -r"];
    for (case, source) in [(format!("copy {} MiB", large / MIB), one), (format!("copy {small} small files"), many)] {
        let target = folder.join("target");
        let samples = in_turns(names.len(), rounds, |system| {
            forget(&source)?;
            let mut command = match system {
                0 => Command::new(&wharf),
                _ => Command::new("cp"),
            };
            if system == 0 {
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

/// The processor time of the children that have ended.
fn children_cpu_us() -> f64 {
    let mut usage: libc::rusage = {
        #[allow(unsafe_code)]
        // SAFETY: plain data, for which zeros are valid.
        unsafe {
            std::mem::zeroed()
        }
    };
    #[allow(unsafe_code)]
    // SAFETY: the system writes into a place of our own.
    unsafe {
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
    }
    let us = |time: libc::timeval| time.tv_sec as f64 * 1e6 + time.tv_usec as f64;
    us(usage.ru_utime) + us(usage.ru_stime)
}
