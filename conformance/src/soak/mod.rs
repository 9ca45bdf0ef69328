//! The soak: everything that a port does, at once and for as long as one likes, on one port.
//!
//! `cargo run --release -p wharf-conformance -- soak --minutes 10`
//!
//! It runs in rounds. In a round actors (`actors/`) connect, talk, download, ping, write and read files, post, wait,
//! cancel, close, block and panic, and compare whatever comes back with what was sent. Then the round ends: players
//! stop, services are closed, and when every packet has come nothing may be left: no operation, no device. What the
//! process then still holds (allocated bytes, resident memory, descriptors) is compared with what it held after the
//! first rounds.
//!
//! It fails when an operation has no packet or two (`ledger.rs`), when data differs, when an operation fails that
//! nobody cancelled, when a round does not come to its end, and when memory or descriptors grow.

mod actors;
mod ledger;
mod stage;

use crate::heap;
use crate::kit::Bench;
use crate::setting::{Engine, Setting};
use crate::system;
use actors::PANIC;
use ledger::{Kind, Ledger};
use stage::{Port, Stage, dispatch};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use wharf::{Wake, Workers};

#[derive(clap::Args)]
pub struct Options {
    /// How long
    #[arg(long, value_name = "N", default_value_t = 10.0)]
    minutes: f64,
    /// How long, in seconds
    #[arg(long, value_name = "N", conflicts_with = "minutes")]
    seconds: Option<f64>,
    /// What the chosen values depend on
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

/// What the process holds while nothing is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    allocated: usize,
    resident: usize,
    descriptors: usize,
}

/// Rounds after which everything is there that is made once: workers' descriptors, pooled buffers, the file thread.
const WARM_UP: usize = 2;
/// What may come and go: buffers of the pool, room in lists. A leak of 100 bytes in every thousandth operation is more
/// than that within a minute.
const ALLOCATED_MORE: usize = 256 * 1024;
/// The allocator's own: it gives back what it likes.
const RESIDENT_MORE: usize = 32 * 1024 * 1024;
const WORKERS: usize = 6;
/// A worker that stands by for the first time, or is looked at, takes one each.
const DESCRIPTORS_MORE: usize = 2 * WORKERS;
/// A round that has not ended after so long hangs.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Whether what is held has grown since the warm-up.
fn grown(held: &[Held]) -> Result<(), String> {
    let Some((first, last)) = held.get(WARM_UP - 1).zip(held.last()) else { return Ok(()) };
    let checks = [
        ("allocated bytes", first.allocated, last.allocated, ALLOCATED_MORE),
        ("resident bytes", first.resident, last.resident, RESIDENT_MORE),
        ("descriptors", first.descriptors, last.descriptors, DESCRIPTORS_MORE),
    ];
    for (what, first, last, more) in checks {
        if last > first + more {
            return Err(format!("{what} grew from {first} to {last}"));
        }
    }
    Ok(())
}

fn held() -> std::io::Result<Held> {
    let (resident, descriptors) = (system::resident()?, system::descriptors()?);
    Ok(Held { allocated: heap::live(), resident, descriptors })
}

pub fn run(options: &Options, engine: Engine) -> ExitCode {
    quiet_panics();
    match soak(options, engine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("the soak failed: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The panics that actors raise are not said.
fn quiet_panics() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if info.payload().downcast_ref::<&str>() != Some(&PANIC) {
            usual(info);
        }
    }));
}

/// A directory that is gone in the end.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn soak(options: &Options, engine: Engine) -> Result<(), String> {
    let whole = Duration::from_secs_f64(options.seconds.unwrap_or(options.minutes * 60.0));
    let seed = options.seed.unwrap_or_else(|| fastrand::u64(..));
    let say = |error: std::io::Error| error.to_string();
    let directory = Directory(std::env::temp_dir().join(format!("wharf-soak-{}", std::process::id())));
    std::fs::create_dir_all(&directory.0).map_err(say)?;
    let port: Port = Bench::new(Setting { engine, wake: Wake::Eager }).options().build().map_err(say)?;
    let pool = port.start(Workers::exactly(WORKERS), dispatch).map_err(say)?;
    let ledger = Ledger::default();
    println!("{}, {} s, seed {seed}", engine.name(), whole.as_secs());
    let round = (whole / 20).clamp(Duration::from_millis(500), Duration::from_secs(15));
    let begun = Instant::now();
    let mut measured: Vec<Held> = Vec::new();
    while begun.elapsed() < whole || measured.len() <= WARM_UP {
        let seed = seed.wrapping_add(measured.len() as u64 * 1_000_003);
        let stage = Stage::new(&port, &ledger, directory.0.clone(), seed).map_err(say)?;
        actors::begin(&stage).map_err(say)?;
        std::thread::sleep(round);
        stage.stop();
        ended(&ledger, "a player did not come to its end", || stage.players() == 0)?;
        stage.close();
        // A worker that has handled the last packet may still hold its context, and so the stage with all that it has.
        let gone = stage.gone();
        drop(stage);
        let idle = || port.stats().devices == 0 && port.stats().queued == 0;
        let over = || ledger.outstanding() == 0 && idle() && gone.load(Ordering::SeqCst);
        ended(&ledger, "something was left when everybody had gone", over)?;
        measured.push(held().map_err(say)?);
        let Held { allocated, resident, descriptors } = *measured.last().expect("just pushed");
        let operations: u64 = ledger.counts().iter().map(|counts| counts.packets).sum();
        println!(
            "{:7.1} s {operations:12} operations {:7} KiB allocated {:7} KiB resident {descriptors:4} descriptors",
            begun.elapsed().as_secs_f64(),
            allocated / 1024,
            resident / 1024,
        );
        if let Some(fault) = ledger.faults().first() {
            return Err(format!("{fault} (and {} more)", ledger.faults().len() - 1));
        }
        grown(&measured)?;
    }
    let stats = port.stats();
    let files = stats.files.unwrap_or(stats.engine);
    port.close();
    let report = pool.join();
    println!("{:16} {:>12} {:>12} {:>12}", "", "issued", "packets", "cancelled");
    for ((_, name), counts) in Kind::ALL.iter().zip(ledger.counts()) {
        println!("{name:16} {:>12} {:>12} {:>12}", counts.issued, counts.packets, counts.cancelled);
        if counts.issued != counts.packets {
            return Err(format!("{name}: {} were issued, and {} packets came", counts.issued, counts.packets));
        }
    }
    println!(
        "files by {files}, {} handlers panicked; every operation had its one packet, nothing has grown",
        report.panics
    );
    Ok(())
}

fn ended(ledger: &Ledger, what: &str, holds: impl Fn() -> bool) -> Result<(), String> {
    let until = Instant::now() + END_LIMIT;
    while !holds() {
        if let Some(fault) = ledger.faults().first() {
            return Err(fault.clone());
        }
        if Instant::now() > until {
            return Err(format!("{what}: {} operations are outstanding", ledger.outstanding()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grows_after_the_warm_up_fails_and_what_grew_before_does_not() {
        let one = |allocated, descriptors| Held { allocated, resident: 0, descriptors };
        assert_eq!(grown(&[]), Ok(()));
        assert_eq!(grown(&[one(0, 3), one(9 << 20, 90), one(9 << 20, 90)]), Ok(()));
        assert!(grown(&[one(0, 3), one(1 << 20, 3), one(2 << 20, 3)]).unwrap_err().contains("allocated"));
        assert!(grown(&[one(0, 3), one(0, 3), one(0, 40)]).unwrap_err().contains("descriptors"));
    }
}
