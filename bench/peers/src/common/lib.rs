//! What the programs share: their options, what they say and hear on the standard streams, a heap that counts itself,
//! listeners, and for those that are loops around readiness a connection.
//!
//! A program is `NAME KIND [options]`. It binds a port of 127.0.0.1 that is free, says `listening on ADDRESS` on
//! standard output, and serves until it is killed or its standard input, where that is a pipe, is at its end.
//! A line `heap` on standard input is answered by a line `heap BYTES`.

mod connection;
mod heap;
mod listen;
mod messages;
mod outbox;

pub use connection::{Connection, Progress};
pub use listen::{Place, listener, on_threads};
pub use messages::{Messages, block_of, spin};
pub use outbox::Outbox;

use clap::Parser;
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::time::Duration;

/// What a connection's bytes are read into: as much as wharf's servers take.
pub const BUFFER_BYTES: usize = 16 * 1024;

/// What a message of the kind `mixed` makes the server read.
pub const BLOCK_BYTES: usize = 4096;

/// How long a message of the kind `mixed` waits when its block was read.
pub const PAUSE: Duration = Duration::from_millis(1);

#[derive(Clone, Parser)]
pub struct Options {
    /// What to serve: echo, spin, chat or mixed, as far as this program has it
    pub kind: String,
    /// How many threads serve
    #[arg(long, value_name = "N", default_value = "1")]
    pub workers: NonZeroUsize,
    /// For how many microseconds a message of the kind spin computes
    #[arg(long, value_name = "U", default_value_t = 0)]
    spin_us: u64,
    /// How many bytes a message of the kinds spin and mixed has
    #[arg(long, value_name = "S", default_value = "32")]
    size: NonZeroUsize,
    /// The file whose blocks the kind mixed reads
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
}

impl Options {
    /// What the command line says, in a program that has these kinds; and as many descriptors and as much locked memory
    /// as the system allows us.
    pub fn parse(kinds: &[&str]) -> Options {
        use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
        let options = <Options as Parser>::parse();
        if !kinds.contains(&options.kind.as_str()) {
            eprintln!("unsupported {}", options.kind);
            exit(2);
        }
        if options.kind == "mixed" && options.size.get() < size_of::<u64>() {
            eprintln!("a message of the kind mixed begins with a number of 8 bytes: --size is at least 8");
            exit(2);
        }
        for resource in [Resource::Nofile, Resource::Memlock] {
            let limit = getrlimit(resource);
            // To raise the one to the other is allowed to everybody.
            let _ = setrlimit(resource, Rlimit { current: limit.maximum, maximum: limit.maximum });
        }
        options
    }

    pub fn workers(&self) -> usize {
        self.workers.get()
    }

    pub fn size(&self) -> usize {
        self.size.get()
    }

    pub fn spin(&self) -> Duration {
        Duration::from_micros(self.spin_us)
    }

    /// The file that the kind mixed cannot do without.
    pub fn file(&self) -> &Path {
        self.file.as_deref().unwrap_or_else(|| {
            eprintln!("the kind mixed reads a file: --file PATH");
            exit(2)
        })
    }
}

/// Says where the program listens, and from now on answers on standard input.
pub fn announce(address: SocketAddr) -> io::Result<()> {
    println!("listening on {address}");
    io::stdout().flush()?;
    std::thread::Builder::new().name("stdin".into()).spawn(hear)?;
    Ok(())
}

fn hear() {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        if line.trim() == "heap" {
            println!("heap {}", heap::live_bytes());
        }
    }
    // Whoever holds the other end of a pipe is gone. Of /dev/null, the end says nothing.
    if std::fs::metadata("/proc/self/fd/0").is_ok_and(|input| input.file_type().is_fifo()) {
        exit(0);
    }
}
