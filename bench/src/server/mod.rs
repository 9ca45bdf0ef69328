//! wharf's own servers, each as its users would write it. They take the same options as the peers, tell where they
//! listen in one line, answer `heap` on the standard input with the bytes that are allocated, and end when it ends.

mod chat;
mod echo;
mod handler;
pub mod heap;
mod messages;
mod mixed;
mod spin;
mod tutorial;

pub use handler::{ANNOUNCE, BLOCK, COMPUTE, LOCK, compute};

use clap::{Args, ValueEnum};
use std::io::{self, BufRead, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use wharf::{CompletionPort, Context, Key};

/// What a server does with what it is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Bytes back as they come, at port level
    Echo,
    /// The same, by one thread that calls `get` itself
    EchoLoop,
    /// The same, with sessions
    EchoSession,
    /// Computes for each message, then sends it back
    Spin,
    /// The same, with sessions
    SpinSession,
    /// Each line to every member, with sessions
    Chat,
    /// The same; what came of whole lines goes out together
    ChatChunks,
    /// Each line to every member by a send of its own, and the next line when they are done
    ChatTutorial,
    /// A block of a file, then a timer, then the answer, for each message
    Mixed,
}

/// A server's options: those of the peers, and the port's.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    pub kind: Kind,
    /// Threads
    #[arg(long, default_value_t = 1)]
    pub workers: usize,
    /// How many of them may run at a time
    #[arg(long, default_value_t = 1)]
    pub limit: usize,
    /// Microseconds of computing for each message
    #[arg(long, default_value_t = 0)]
    pub spin_us: u64,
    /// Bytes of a message
    #[arg(long, default_value_t = 32)]
    pub size: usize,
    /// The file whose blocks are read
    #[arg(long)]
    pub file: Option<PathBuf>,
    /// A packet for each send, instead of skipping those that were done at once
    #[arg(long)]
    pub packets: bool,
    /// Receive into the port's pool, so that an idle connection has no buffer
    #[arg(long)]
    pub pooled: bool,
    /// A chat member who does not read loses the oldest lines, instead of holding up the sender
    #[arg(long)]
    pub drop_oldest: bool,
}

pub fn serve(options: &Serve) -> io::Result<()> {
    match options.kind {
        Kind::Echo => echo::pool(options),
        Kind::EchoLoop => echo::one_thread(options),
        Kind::EchoSession => echo::session(options),
        Kind::Spin => spin::pool(options),
        Kind::SpinSession => spin::session(options),
        Kind::Chat => chat::lines(options),
        Kind::ChatChunks => chat::chunks(options),
        Kind::ChatTutorial => tutorial::pool(options),
        Kind::Mixed => mixed::pool(options),
    }
}

/// A port with a listener that takes connections; the caller serves it.
fn listening<K: Key, C: Context + Clone>(limit: usize, key: K, context: C) -> io::Result<CompletionPort<K, C>> {
    let port = CompletionPort::<K, C>::options().concurrency(limit).build()?;
    let listener = port.listen("127.0.0.1:0", key)?;
    for _ in 0..16 {
        listener.accept(context.clone())?;
    }
    ready(listener.local_addr()?)?;
    Ok(port)
}

/// Tells where it listens, and looks after the standard input from now on.
fn ready(address: SocketAddr) -> io::Result<()> {
    println!("listening on {address}");
    io::stdout().flush()?;
    std::thread::Builder::new().name("input".into()).spawn(|| {
        for line in io::stdin().lock().lines() {
            match line.as_deref() {
                Ok("heap") => println!("heap {}", heap::live_bytes()),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        // Whoever started this server has gone.
        std::process::exit(0);
    })?;
    Ok(())
}
