//! Reads by `pread`: in place, and in a pool of as many threads as reads are under way, to which a channel brings them.

use super::{Block, Count, Job};
use crate::load::Random;
use crate::measure::Sample;
use std::io;
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Instant;

pub fn in_place(job: &Job) -> io::Result<Sample> {
    let file = job.open()?;
    let mut random = Random::new(7);
    let mut block = Block::new();
    let mut count = Count::begin();
    while count.begin.elapsed() < job.time {
        let issued = Instant::now();
        file.read_exact_at(&mut block.0, job.offset(&mut random))?;
        count.done(issued);
    }
    Ok(count.sample())
}

pub fn threads(job: &Job) -> io::Result<Sample> {
    type Asked = (Box<Block>, u64, Instant);
    let file = job.open()?;
    let (ask, asked) = crossbeam_channel::unbounded::<Asked>();
    let (answer, answered) = crossbeam_channel::unbounded::<(io::Result<()>, Box<Block>, Instant)>();
    let mut random = Random::new(7);
    thread::scope(|scope| {
        for _ in 0..job.depth {
            let (asked, answer, file) = (asked.clone(), answer.clone(), &file);
            scope.spawn(move || {
                for (mut block, offset, issued) in asked {
                    let read = file.read_exact_at(&mut block.0, offset);
                    if answer.send((read, block, issued)).is_err() {
                        return;
                    }
                }
            });
        }
        // Our end is what the threads' loops wait for.
        let ask = ask;
        let gone = |_| io::Error::other("the pool has ended");
        let mut count = Count::begin();
        for _ in 0..job.depth {
            ask.send((Block::new(), job.offset(&mut random), Instant::now()))
                .map_err(|_| io::Error::other("no pool"))?;
        }
        let mut outstanding = job.depth;
        while outstanding > 0 {
            let (read, block, issued) = answered.recv().map_err(gone)?;
            read?;
            count.done(issued);
            outstanding -= 1;
            if count.begin.elapsed() < job.time {
                ask.send((block, job.offset(&mut random), Instant::now())).map_err(|_| io::Error::other("no pool"))?;
                outstanding += 1;
            }
        }
        Ok(count.sample())
    })
}
