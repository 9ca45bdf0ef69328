//! A supervisor of child processes: their output and their end are packets, and who ends is started again.
//!
//! `cargo run --example supervise [STARTS]`
//!
//! Three commands run side by side. What they print is told with their name, however the pieces come; a command that
//! has ended is started again, after a pause that doubles, up to STARTS (3) times in all. No thread waits for any of
//! them.

use std::io::{self, Write};
use std::process::{Command, Stdio};
use std::time::Duration;
use wharf::{Buffer, CompletionPort, Event};

const COMMANDS: [&str; 3] = ["echo one; exit 0", "echo two; exit 2", "echo three; kill -9 $$"];
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// The key of a command's devices and timers: which one it is, and how often it was started.
type Key = (usize, u32);

fn start(port: &CompletionPort<Key, ()>, (which, starts): Key) -> io::Result<()> {
    let key = (which, starts + 1);
    let mut child = Command::new("sh").args(["-c", COMMANDS[which]]).stdout(Stdio::piped()).spawn()?;
    let output = child.stdout.take().expect("it was asked for");
    port.associate(output, key)?.recv(Buffer::with_capacity(4096), ())?;
    port.associate(child, key)?.wait(())?;
    Ok(())
}

fn main() -> io::Result<()> {
    let most = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(3);
    let port = CompletionPort::<Key, ()>::new()?;
    for which in 0..COMMANDS.len() {
        start(&port, (which, 0))?;
    }
    let mut ended = 0;
    // A command's output may be read to its end before or after its own end is told: both are waited for.
    let mut open_outputs = COMMANDS.len();
    while ended < COMMANDS.len() || open_outputs > 0 {
        let packet = port.get()?;
        let (which, starts) = packet.key;
        match packet.event {
            Event::Received { stream, buffer, result: Ok(1..) } => {
                print!("[{which}] {}", String::from_utf8_lossy(&buffer));
                io::stdout().flush()?;
                stream.recv(buffer, ())?;
            }
            Event::Received { .. } => open_outputs -= 1,
            Event::Exited { result, .. } => {
                println!("[{which}] start {starts} ended: {}", result?);
                if starts < most {
                    port.timer(FIRST_PAUSE * 2_u32.pow(starts - 1), packet.key, ())?;
                } else {
                    ended += 1;
                }
            }
            Event::Elapsed { .. } => {
                start(&port, packet.key)?;
                open_outputs += 1;
            }
            _ => {}
        }
    }
    println!("all have ended");
    Ok(())
}
