//! A client beside a loop of 60 frames a second, which never waits for the network.
//!
//! `cargo run --example frame_loop -- 2` runs for two seconds, and then reports by how much the worst frame was late.
//! It brings a slow server of its own, which takes 30 ms, two frames, for each answer. For comparison the loop runs
//! once more with a socket that blocks.
//!
//! Once a frame the loop takes what has completed, with `get_timeout(ZERO)`, on its own thread: no second thread, no
//! locks, and a message is handled where the state is that it changes.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};
use wharf::{Buffer, CompletionPort, Event, Stream};

const FRAME: Duration = Duration::from_micros(1_000_000 / 60);
const SERVER_THINKS: Duration = Duration::from_millis(30);
/// Some work, as a frame has.
const DRAWING: Duration = Duration::from_millis(2);
const MESSAGE: &[u8; 16] = b"a player's move\n";

fn main() -> io::Result<()> {
    let seconds: f32 = std::env::args().nth(1).and_then(|text| text.parse().ok()).unwrap_or(2.0);
    let length = Duration::from_secs_f32(seconds);
    with_a_port(length)?;
    with_a_socket_that_blocks(length)
}

fn with_a_port(length: Duration) -> io::Result<()> {
    let port = CompletionPort::<(), ()>::new()?;
    port.connect(slow_server()?, (), ()).map_err(io::Error::from)?;
    let mut connection: Option<Stream<(), ()>> = None;
    frames("with a port", length, || {
        let mut bytes = 0;
        while let Ok(packet) = port.get_timeout(Duration::ZERO) {
            match packet.event {
                Event::Connected { stream, result } => {
                    result?;
                    stream.recv(Buffer::with_capacity(4096), ())?;
                    connection = Some(stream);
                }
                Event::Received { stream, buffer, result } => {
                    bytes += result?;
                    stream.recv(buffer, ())?;
                }
                _ => {} // sent
            }
        }
        if let Some(stream) = &connection {
            stream.send(MESSAGE, ())?; // does not wait, however slow the server is
        }
        Ok(bytes)
    })
}

fn with_a_socket_that_blocks(length: Duration) -> io::Result<()> {
    let mut socket = std::net::TcpStream::connect(slow_server()?)?;
    frames("with a socket that blocks", length, || {
        let mut answer = *MESSAGE;
        socket.write_all(MESSAGE)?;
        socket.read_exact(&mut answer)?;
        Ok(answer.len())
    })
}

/// Runs the loop; `network` is called once a frame, and returns how many bytes it has received.
fn frames(name: &str, length: Duration, mut network: impl FnMut() -> io::Result<usize>) -> io::Result<()> {
    let (mut frames, mut bytes, mut worst) = (0, 0, Duration::ZERO);
    let (begin, mut due) = (Instant::now(), Instant::now());
    while begin.elapsed() < length {
        worst = worst.max(due.elapsed());
        bytes += network()?;
        let drawn = Instant::now() + DRAWING;
        while Instant::now() < drawn {
            std::hint::spin_loop();
        }
        frames += 1;
        due = begin + FRAME * frames;
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
    println!("{name}: {frames} frames, {} answers, the worst frame {worst:.1?} late", bytes / MESSAGE.len());
    Ok(())
}

/// Answers one message after another.
fn slow_server() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || -> io::Result<()> {
        let (mut socket, _) = listener.accept()?;
        let mut message = *MESSAGE;
        loop {
            socket.read_exact(&mut message)?;
            thread::sleep(SERVER_THINKS);
            socket.write_all(&message)?;
        }
    });
    Ok(address)
}
