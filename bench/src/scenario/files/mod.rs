//! Files: random reads of 4 KiB, from the cache and past it, with 1, 32 and 128 under way, beside a pool of threads
//! that read, a bare io_uring, and fio; and copies.
//!
//! One thread issues and takes packets; what waits for the disk waits in the port's internal engine. A message is a
//! read, and latency counts from the call that issues it. fio runs as its users would start it, with the same engine.

mod copy;
mod fio;
mod pool;
mod port;
mod ring;

use crate::lab::Lab;
use crate::load::Random;
use crate::measure::{Plan, Sample, all_in_turns, process_cpu_us, ratios, rows};
use crate::process::{Folder, has};
use crate::rows::{AGAIN, Goal, Report, Wanted};
use crate::stats::{histogram, median};
use crate::usage::own_switches;
use hdrhistogram::Histogram;
use std::fs::{File as StdFile, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

const BLOCK: usize = 4096;
const MIB: u64 = 1024 * 1024;
const DEPTHS: [usize; 3] = [1, 32, 128];

pub fn run(lab: &Lab) -> io::Result<Report> {
    let folder = Folder::new()?;
    let mut report = Report::default();
    let path = folder.path().join("reads");
    let size = lab.pick(128 * MIB, 512 * MIB);
    fill(&path, size)?;
    for direct in [false, true] {
        for depth in DEPTHS {
            let job = Job { path: &path, blocks: size / BLOCK as u64, depth, direct, time: lab.pick(SLICE / 8, SLICE) };
            if lab.has_time(&job.name(), if direct && depth == 32 { 12.0 } else { 3.0 }) {
                reads(lab, &mut report, &job)?;
            }
        }
    }
    std::fs::remove_file(&path)?;
    if lab.has_time("copies", 9.0) {
        copy::run(lab, &mut report, folder.path())?;
    }
    Ok(report)
}

const SLICE: Duration = Duration::from_millis(500);

/// Reads for a while.
#[derive(Clone, Copy)]
struct Job<'a> {
    path: &'a Path,
    blocks: u64,
    depth: usize,
    direct: bool,
    time: Duration,
}

impl Job<'_> {
    fn name(&self) -> String {
        format!("{} 4 KiB, depth {}", if self.direct { "direct" } else { "cached" }, self.depth)
    }

    fn options(&self) -> OpenOptions {
        let mut options = OpenOptions::new();
        options.read(true);
        if self.direct {
            options.custom_flags(libc::O_DIRECT);
        }
        options
    }

    fn open(&self) -> io::Result<StdFile> {
        self.options().open(self.path)
    }

    fn offset(&self, random: &mut Random) -> u64 {
        random.below(self.blocks) * BLOCK as u64
    }
}

/// What is counted while reads go on.
struct Count {
    begin: Instant,
    cpu: f64,
    switches: u64,
    reads: u64,
    latency: Histogram<u64>,
}

impl Count {
    fn begin() -> Count {
        Count { begin: Instant::now(), cpu: process_cpu_us(), switches: own_switches(), reads: 0, latency: histogram() }
    }

    fn done(&mut self, issued: Instant) {
        self.reads += 1;
        let _ = self.latency.record(issued.elapsed().as_nanos() as u64);
    }

    fn sample(self) -> Sample {
        let (cpu, switches) = (process_cpu_us() - self.cpu, own_switches() - self.switches);
        Sample {
            latency: Some(self.latency),
            switches_per_message: Some(switches as f64 / self.reads as f64),
            ..sample(self.reads, self.begin.elapsed(), cpu)
        }
    }
}

fn sample(count: u64, time: Duration, cpu_us: f64) -> Sample {
    Sample {
        messages_per_second: Some(count as f64 / time.as_secs_f64()),
        cpu_us_per_message: Some(cpu_us / count as f64),
        ..Sample::default()
    }
}

fn reads(lab: &Lab, report: &mut Report, job: &Job) -> io::Result<()> {
    type Read<'a> = (&'a str, fn(&Job) -> io::Result<Sample>);
    let case = job.name();
    lab.case(&case);
    let mut systems: Vec<Read> = vec![("wharf", port::packets), (AGAIN, port::packets)];
    if !job.direct {
        systems.push(("wharf, skip on success", port::skipping));
    }
    let pread = systems.len();
    systems.push(if job.depth == 1 {
        ("pread", pool::in_place)
    } else {
        ("pread in a pool of threads", pool::threads)
    });
    match ring::available() {
        Ok(()) => systems.push(("raw io_uring", ring::reads)),
        Err(error) => lab.note(format!("io_uring cannot be had here: {error}")),
    }
    // It measures whole seconds, and in a quick run there are none for it but once.
    if !has("fio", "--version") {
        lab.note("fio is missing (Debian: apt-get install fio)");
    } else if !lab.quick || (job.direct && job.depth == 32) {
        systems.push(("fio, io_uring", fio::reads));
    }
    if !job.direct {
        warm(job)?;
    }
    let names: Vec<&str> = systems.iter().map(|system| system.0).collect();
    let plan = Plan::within(lab.pick(2.0, 14.0));
    let samples = all_in_turns(lab, systems.len(), plan, |at| systems[at].1(job))?;
    report.rows.extend(rows("files", &case, &names, &samples));
    let cpu = |of: usize, by: usize| median(&ratios(&samples[of], &samples[by], |sample| sample.cpu_us_per_message));
    let mut goal = |of: usize, by: usize, most: f64| {
        let what = format!("{case}: {}, cpu of {}'s", names[of], names[by]);
        report.goals.push(Goal::new(what, cpu(of, by), Wanted::AtMost(most)));
    };
    match (job.direct, job.depth) {
        (false, 1) => {
            goal(0, pread, 1.3);
            goal(2, pread, 1.3);
        }
        (true, 32 | 128) => {
            goal(0, pread, 1.0);
            if let Some(fio) = names.iter().position(|name| name.starts_with("fio")) {
                goal(0, fio, 1.25);
            }
        }
        _ => {}
    }
    Ok(())
}

/// All of it is in the cache afterwards.
fn warm(job: &Job) -> io::Result<()> {
    let mut file = job.open()?;
    let mut buffer = vec![0; MIB as usize];
    while file.read(&mut buffer)? > 0 {}
    Ok(())
}

fn fill(path: &Path, bytes: u64) -> io::Result<()> {
    let mut file = StdFile::create(path)?;
    let mut random = Random::new(bytes | 1);
    let mut block = vec![0; MIB as usize];
    for _ in 0..bytes.div_ceil(MIB) {
        block.chunks_exact_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.below(u64::MAX).to_le_bytes()));
        file.write_all(&block)?;
    }
    file.set_len(bytes)?;
    file.sync_all()
}

/// Memory that direct reads accept.
#[repr(align(4096))]
#[derive(Clone)]
struct Block([u8; BLOCK]);

impl Block {
    fn new() -> Box<Block> {
        Box::new(Block([0; BLOCK]))
    }
}
