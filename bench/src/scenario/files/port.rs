//! Reads through a port.

use super::{BLOCK, Count, Job};
use crate::load::Random;
use crate::measure::Sample;
use std::io;
use std::time::Instant;
use wharf::{Buffer, CompletionPort, Event, Outcome, Packet};

/// A packet for each read, taken in batches where several are under way.
pub fn packets(job: &Job) -> io::Result<Sample> {
    let port = CompletionPort::<(), Instant>::options().concurrency(1).build()?;
    let file = port.open(job.path, &job.options(), ())?;
    let mut random = Random::new(7);
    let mut count = Count::begin();
    for _ in 0..job.depth {
        file.read_at(Buffer::aligned(BLOCK, BLOCK), job.offset(&mut random), Instant::now())?;
    }
    let mut outstanding = job.depth;
    while outstanding > 0 {
        let go_on = count.begin.elapsed() < job.time;
        for packet in port.get_many(job.depth)? {
            let buffer = done(packet, &mut count)?;
            outstanding -= 1;
            if go_on {
                file.read_at(buffer, job.offset(&mut random), Instant::now())?;
                outstanding += 1;
            }
        }
    }
    Ok(count.sample())
}

/// Reads that the cache can do at once have no packet, so none is ever under way beside another.
pub fn skipping(job: &Job) -> io::Result<Sample> {
    let port = CompletionPort::<(), Instant>::options().concurrency(1).build()?;
    let file = port.open(job.path, &job.options(), ())?;
    file.skip_on_success();
    let mut random = Random::new(7);
    let mut buffer = Buffer::aligned(BLOCK, BLOCK);
    let mut count = Count::begin();
    while count.begin.elapsed() < job.time {
        let packet = match file.read_at(buffer, job.offset(&mut random), Instant::now())? {
            Outcome::Done(packet) => packet,
            Outcome::Pending(_) => port.get()?,
        };
        buffer = done(packet, &mut count)?;
    }
    Ok(count.sample())
}

fn done(packet: Packet<(), Instant>, count: &mut Count) -> io::Result<Buffer> {
    let Event::Read { buffer, result, .. } = packet.event else {
        return Err(io::Error::other("a packet that is no read's"));
    };
    if result? != BLOCK {
        return Err(io::Error::other("a short read"));
    }
    count.done(packet.context);
    Ok(buffer)
}
