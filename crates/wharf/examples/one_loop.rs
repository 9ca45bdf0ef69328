//! One loop for everything: a socket, a file, a timer, a signal, a child process and posted packets.
//!
//! `cargo run --example one_loop`, then for example `nc 127.0.0.1 PORT` with the port it prints
//!
//! What a client sends is appended to a journal and echoed when the journal has it. A timer counts the seconds, a child
//! process is waited for, other threads post, Ctrl+C ends it; and all of that comes out of one queue.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::time::Duration;
use wharf::signal::SIGINT;
use wharf::{Buffer, CompletionPort, Event, Stream};

/// What an operation is for. An append remembers who is to be answered.
#[derive(Clone)]
enum Purpose {
    Any,
    Answer(u64),
}

type Port = CompletionPort<(), Purpose>;

fn main() -> std::io::Result<()> {
    use Purpose::{Answer, Any};
    let port = Port::new()?;
    let path = std::env::temp_dir().join(format!("wharf-journal-{}", std::process::id()));
    let journal = port.open(&path, OpenOptions::new().read(true).append(true).create(true), ())?;
    let listener = port.listen("127.0.0.1:0", ())?;
    listener.accept(Any)?;
    port.interval(Duration::from_secs(1), (), Any)?;
    port.signal(SIGINT, (), Any)?;
    let child = port.associate(std::process::Command::new("sleep").arg("0.1").spawn()?, ())?;
    child.wait(Any)?;
    let poster = port.clone();
    std::thread::spawn(move || poster.post(42, (), Any));
    println!("listening on {}", listener.local_addr()?);

    let mut streams: HashMap<u64, Stream<(), Purpose>> = HashMap::new();
    let mut seconds = 0;
    while let Ok(packet) = port.get() {
        match (packet.event, packet.context) {
            (Event::Accepted { listener, result }, _) => {
                listener.accept(Any)?;
                let (socket, peer) = result?;
                let stream = port.associate(socket, ())?;
                println!("{peer} has come");
                stream.recv(Buffer::with_capacity(4096), Any)?;
                streams.insert(stream.number(), stream);
            }
            (Event::Received { stream, buffer, result: Ok(1..) }, _) => {
                journal.append(buffer, Answer(stream.number()))?;
            }
            (Event::Received { stream, .. }, _) => drop(streams.remove(&stream.number())),
            (Event::Written { buffer, result, .. }, Answer(number)) => {
                result?;
                if let Some(stream) = streams.get(&number) {
                    let _ = stream.send(buffer, Any);
                }
            }
            (Event::Sent { stream, buffer, result: Ok(_) }, _) => drop(stream.recv(buffer, Any)),
            (Event::Elapsed { result }, _) => seconds += result?,
            (Event::Exited { result, .. }, _) => println!("the child has ended: {}", result?),
            (Event::Posted { bytes }, _) => println!("somebody posted {bytes}"),
            (Event::Signal { .. }, _) => break,
            _ => {}
        }
    }
    println!("{seconds} seconds, and {} bytes in the journal", journal.len()?);
    std::fs::remove_file(path)
}
