//! Reads by a bare io_uring that one thread owns: what is submitted goes in with the call that waits.

use super::{BLOCK, Block, Count, Job};
use crate::load::Random;
use crate::measure::Sample;
use io_uring::{IoUring, opcode, types};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Instant;

fn ring(depth: usize) -> io::Result<IoUring> {
    IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(depth as u32)
}

/// Whether the kernel gives us one.
pub fn available() -> io::Result<()> {
    ring(1).map(drop)
}

pub fn reads(job: &Job) -> io::Result<Sample> {
    let file = job.open()?;
    let mut random = Random::new(7);
    let mut blocks: Vec<Box<Block>> = (0..job.depth).map(|_| Block::new()).collect();
    let mut issued = vec![Instant::now(); job.depth];
    let mut idle: Vec<usize> = (0..job.depth).collect();
    let mut ring = ring(job.depth)?;
    let mut count = Count::begin();
    let mut outstanding = 0;
    let mut failed = None;
    loop {
        if failed.is_none() && count.begin.elapsed() < job.time {
            for number in idle.drain(..) {
                issued[number] = Instant::now();
                let entry = opcode::Read::new(types::Fd(file.as_raw_fd()), blocks[number].0.as_mut_ptr(), BLOCK as u32)
                    .offset(job.offset(&mut random))
                    .build()
                    .user_data(number as u64);
                #[allow(unsafe_code)]
                // SAFETY: the file and the block stay until the read is done, for nothing is left before that, and a
                // block is given to one read at a time.
                let pushed = unsafe { ring.submission().push(&entry) };
                pushed.expect("the ring has room for as many as there are blocks");
                outstanding += 1;
            }
        }
        if outstanding == 0 {
            return failed.map_or_else(|| Ok(count.sample()), Err);
        }
        if let Err(error) = ring.submit_and_wait(1)
            && error.kind() != io::ErrorKind::Interrupted
        {
            // Reads may still be under way into these.
            std::mem::forget(blocks);
            return Err(error);
        }
        for entry in ring.completion() {
            if entry.result() != BLOCK as i32 {
                failed = Some(io::Error::other(format!("a read came to {}", entry.result())));
            }
            let number = entry.user_data() as usize;
            count.done(issued[number]);
            outstanding -= 1;
            idle.push(number);
        }
    }
}
