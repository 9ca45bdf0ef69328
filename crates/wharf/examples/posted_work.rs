//! Work posted from other threads, done by the port's workers, some of which block.
//!
//! `cargo run --example posted_work`
//!
//! Four threads post a hundred jobs each. One job in ten waits for something, and says so with `blocking`; meanwhile
//! other workers go on in its place. So the waits overlap, although only two threads may run at a time.

use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};
use wharf::{CompletionPort, Workers, blocking};

const POSTERS: u64 = 4;
const JOBS: u64 = 100;
const WAIT: Duration = Duration::from_millis(20);

enum Job {
    /// Adds up the numbers below this one.
    Add(u64),
    /// Waits, as for a database or a file.
    Wait,
}

/// What a job came to.
enum Done {
    Sum(u64),
    Waited,
}

fn main() -> std::io::Result<()> {
    // The key says who posted, the context is the job.
    let port = CompletionPort::<u64, Job>::options().concurrency(2).build()?;
    let (done, results) = channel();
    let workers = port.start(Workers::default(), move |packet| {
        let result = match packet.context {
            Job::Add(below) => Done::Sum((0..below).sum()),
            Job::Wait => blocking(|| {
                thread::sleep(WAIT);
                Done::Waited
            }),
        };
        let _ = done.send((packet.key, result));
    })?;

    let begin = Instant::now();
    for poster in 0..POSTERS {
        let port = port.clone();
        thread::spawn(move || {
            for number in 0..JOBS {
                let job = if number % 10 == 0 { Job::Wait } else { Job::Add(number) };
                port.post(0, poster, job).expect("the port is open");
            }
        });
    }
    let (mut sums, mut waits) = ([0; POSTERS as usize], 0);
    for (poster, result) in results.iter().take((POSTERS * JOBS) as usize) {
        match result {
            Done::Sum(sum) => sums[poster as usize] += sum,
            Done::Waited => waits += 1,
        }
    }
    let took = begin.elapsed();
    let threads = workers.shutdown(Duration::from_secs(5)).peak;
    println!("{} jobs done; the sums for each poster: {sums:?}", POSTERS * JOBS);
    println!("{waits} waits of {WAIT:?} took {took:.0?} in all, with at most {threads} threads");
    Ok(())
}
