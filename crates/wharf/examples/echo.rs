//! An echo server of workers and packets.
//!
//! `cargo run --example echo -- 127.0.0.1:7000`, then `nc 127.0.0.1 7000`. Ctrl+C ends it.
//!
//! There is no list of connections: an operation holds its stream and its buffer, and its packet gives both back. When
//! no further operation is issued the last handle goes, and the socket is closed.

use std::io::{self, Write};
use wharf::{Buffer, CompletionPort, Event, Outcome, Workers};

/// A connection has one buffer, which goes back and forth between receive and send.
const BUFFER_BYTES: usize = 16 * 1024;
/// After this number of operations that were done at once a connection waits its turn: others need the worker too.
const OPERATIONS_PER_TURN: usize = 32;

/// An operation's context: nothing, but for a connection that waits its turn the packet that it was at.
struct Turn(Option<Box<Packet>>);

const NOTHING: Turn = Turn(None);

type Packet = wharf::Packet<(), Turn>;
type Port = CompletionPort<(), Turn>;

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".into());
    let port = Port::new()?;
    let listener = port.listen(address, ())?;
    println!("listening on {}", listener.local_addr()?);
    io::stdout().flush()?;
    listener.accept(NOTHING)?;
    let workers = port.start(Workers::default(), {
        let port = port.clone();
        move |packet| handle(&port, packet)
    })?;
    workers.join();
    Ok(())
}

fn handle(port: &Port, mut packet: Packet) {
    if let Some(waited) = packet.context.0.take() {
        packet = *waited;
    }
    for _ in 0..OPERATIONS_PER_TURN {
        match next(port, packet) {
            Some(done) => packet = done,
            None => return,
        }
    }
    let _ = port.post(0, (), Turn(Some(Box::new(packet))));
}

/// Issues what follows from a packet. What could be done at once returns its packet here instead of queueing it.
fn next(port: &Port, packet: Packet) -> Option<Packet> {
    let outcome = match packet.event {
        Event::Accepted { listener, result } => {
            let _ = listener.accept(NOTHING);
            let (socket, _peer) = result.ok()?;
            let stream = port.associate_accepted(socket, ()).ok()?;
            stream.skip_on_success();
            stream.recv(Buffer::with_capacity(BUFFER_BYTES), NOTHING)
        }
        Event::Received { stream, buffer, result: Ok(1..) } => stream.send(buffer, NOTHING),
        Event::Sent { stream, buffer, result: Ok(_) } => stream.recv(buffer, NOTHING),
        _ => return None, // the end of a stream, or an error
    };
    match outcome {
        Ok(Outcome::Done(packet)) => Some(packet),
        _ => None,
    }
}
